package selector

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"unicode"

	"github.com/osds-io/osds/pkg/model"
)

const (
	maxShown     = 120 // bytes of a value shown
	maxListShown = 8   // elements of a list shown
)

// clip makes a text from a record fit to be shown: bounded, and without the
// control characters that a terminal would obey.
func clip(s string) string {
	if len(s) > maxShown {
		s = strings.ToValidUTF8(s[:maxShown], "") + "..."
	}
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, s)
}

// formatNumber writes a number as people do.
func formatNumber(f float64) string {
	if math.Abs(f) >= 1e15 {
		return strconv.FormatFloat(f, 'g', -1, 64)
	}
	return strconv.FormatFloat(f, 'f', -1, 64)
}

// show writes a value for people; empty for one that is absent.
func (v value) show() string {
	switch v.kind {
	case boolean:
		if v.implied {
			return "false (not stated)"
		}
		return strconv.FormatBool(v.num != 0)
	case number:
		return formatNumber(v.num)
	case text:
		return clip(v.raw.Value())
	case other:
		return "(an object)"
	}
	return ""
}

func showList(l []value) string {
	parts := make([]string, 0, maxListShown+1)
	for i, e := range l {
		if i == maxListShown {
			parts = append(parts, "...")
			break
		}
		parts = append(parts, e.show())
	}
	return "[" + strings.Join(parts, ", ") + "]"
}

// gbFloor and gbCeil write a size in GB with one decimal at most. What a pool
// has is rounded down and what it lacks is rounded up, so that "has 10 GB" is
// never said of a pool that 10 GB do not fit in.
func gbFloor(b model.Bytes) string {
	if b < 0 {
		return "-" + tenths(-b, true)
	}
	return tenths(b, false)
}

func gbCeil(b model.Bytes) string { return tenths(max(b, 0), true) }

func tenths(b model.Bytes, up bool) string {
	whole, rest := int64(b/model.GiB), int64(b%model.GiB)*10
	t := rest / int64(model.GiB)
	if up && rest%int64(model.GiB) != 0 {
		t++
	}
	if t == 10 {
		whole, t = whole+1, 0
	}
	if t == 0 {
		return fmt.Sprintf("%d GB", whole)
	}
	return fmt.Sprintf("%d.%d GB", whole, t)
}

// nearest gives the known name that is closest to s, and how many letters away
// it is; case counts for nothing.
func nearest(s string, known []string) (string, int) {
	best, dist := "", math.MaxInt
	for _, k := range known {
		if k == "" {
			continue
		}
		if d := distance(strings.ToLower(s), strings.ToLower(k)); d < dist {
			best, dist = k, d
		}
	}
	return best, dist
}

// distance is the Levenshtein distance of two bounded texts.
func distance(a, b string) int {
	if len(a) > maxPathLength {
		a = a[:maxPathLength]
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		prev := row[0]
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			prev, row[j] = row[j], min(row[j]+1, row[j-1]+1, prev+cost)
		}
	}
	return row[len(b)]
}

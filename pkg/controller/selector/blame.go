package selector

import (
	"fmt"
	"slices"
	"strings"

	"github.com/osds-io/osds/pkg/model"
)

const (
	maxBlames    = 6 // reasons in a summary
	maxBlameHave = 3 // values seen in one reason
)

// blame is how many pools one rule kept out in one way, and what was seen there.
type blame struct {
	rule    *rule
	out     outcome
	count   int
	have    []string // the least few of the distinct values
	more    bool     // there are others
	largest model.Bytes
	pool    string // the pool with the largest room, for rules about room
}

// blames counts each pool that does not fit under one rule, so that the counts
// add up. The words do not depend on the order of the pools.
type blames struct {
	rules    []*rule
	by       [][]blame // for each rule, one for each outcome seen
	noRecord int
}

func newBlames(rules []*rule) *blames {
	return &blames{rules: rules, by: make([][]blame, len(rules))}
}

func (b *blames) add(n int, out outcome, l *view) {
	r := b.rules[n]
	i := slices.IndexFunc(b.by[n], func(x blame) bool { return x.out == out })
	if i < 0 {
		i = len(b.by[n])
		b.by[n] = append(b.by[n], blame{rule: r, out: out})
	}
	x := &b.by[n][i]
	x.count++
	switch {
	case out == missing:
	case out != fail:
		x.saw(r.note(l, out))
	case r.capacity:
		room := l.a.total
		if r.slot == slotFreeCapacity {
			room = l.a.free(l.c)
		}
		if name := poolName(l.c.Pool); x.pool == "" || room > x.largest || room == x.largest && name < x.pool {
			x.largest, x.pool = room, name
		}
	default:
		x.saw(r.haveText(l))
	}
}

// saw keeps the least values, in order.
func (x *blame) saw(s string) {
	i, found := slices.BinarySearch(x.have, s)
	if found {
		return
	}
	if len(x.have) == maxBlameHave {
		x.more = true
		if i == maxBlameHave {
			return
		}
		x.have = x.have[:maxBlameHave-1]
	}
	x.have = slices.Insert(x.have, i, s)
}

// String lists the reasons, the most frequent first.
func (b *blames) String() string {
	var all []*blame
	for n := range b.by {
		slices.SortFunc(b.by[n], func(x, y blame) int { return int(x.out) - int(y.out) })
		for i := range b.by[n] {
			all = append(all, &b.by[n][i])
		}
	}
	slices.SortStableFunc(all, func(x, y *blame) int { return y.count - x.count })
	var parts []string
	rest := 0
	for i, x := range all {
		if i < maxBlames {
			parts = append(parts, fmt.Sprintf("%d %s", x.count, x.text()))
		} else {
			rest += x.count
		}
	}
	if b.noRecord > 0 {
		parts = append(parts, fmt.Sprintf("%d without a record", b.noRecord))
	}
	if rest > 0 {
		parts = append(parts, fmt.Sprintf("%d for other reasons", rest))
	}
	return strings.Join(parts, ", ")
}

// text reads after the count: "2 lack capacity (largest free 40 GB in pool-x)".
func (x *blame) text() string {
	r := x.rule
	have := strings.Join(x.have, " or ")
	if x.more {
		have += " or others"
	}
	switch {
	case x.out == missing:
		return plural(x.count, "does", "do") + " not state " + r.name
	case x.out != fail:
		return r.name + " cannot be evaluated: " + have
	case r.capacity && r.slot == slotFreeCapacity:
		return fmt.Sprintf("%s capacity (largest free %s in %s)", plural(x.count, "lacks", "lack"), gbFloor(x.largest), x.pool)
	case r.capacity:
		return fmt.Sprintf("smaller than the volume (largest %s: %s)", gbFloor(x.largest), x.pool)
	case r.summary != nil:
		return r.summary(have)
	}
	return fmt.Sprintf("%s is %s, not %s", r.name, have, r.short)
}

func plural(n int, one, many string) string {
	if n == 1 {
		return one
	}
	return many
}

package conf

import (
	"sort"
	"strings"
)

// Nearest gives the name in known that is nearest to name, by the number of
// letters to change, add or remove, without regard to case; empty if none is
// near enough to be meant. Of equally near ones it gives the first by alphabet.
func Nearest(name string, known []string) string {
	limit := 1 + len(name)/3
	best, bestD := "", limit+1
	sorted := append([]string(nil), known...)
	sort.Strings(sorted)
	for _, k := range sorted {
		if d := distance(strings.ToLower(name), strings.ToLower(k), bestD); d < bestD {
			best, bestD = k, d
		}
	}
	return best
}

// distance is the Levenshtein distance of two strings, or at least limit if it
// is not less than that.
func distance(a, b string, limit int) int {
	if len(a) > 256 || len(b) > 256 || len(a)-len(b) >= limit || len(b)-len(a) >= limit {
		return limit
	}
	prev := make([]int, len(b)+1)
	cur := make([]int, len(b)+1)
	for j := range prev {
		prev[j] = j
	}
	for i := range len(a) {
		cur[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			cur[j+1] = min(prev[j]+cost, prev[j+1]+1, cur[j]+1)
		}
		prev, cur = cur, prev
	}
	return prev[len(b)]
}

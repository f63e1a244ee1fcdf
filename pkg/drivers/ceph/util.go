//go:build ceph

package ceph

import (
	"sort"
	"strings"
)

func cutPrefix(s, prefix string) (string, bool) { return strings.CutPrefix(s, prefix) }

func sortBy[T any](l []T, less func(a, b T) bool) {
	sort.Slice(l, func(i, j int) bool { return less(l[i], l[j]) })
}

// errnoIs says whether two errors are the same answer of Ceph.
func errnoIs(err, other error) bool {
	return err != nil && errno(err) == errno(other) && errno(err) != 0
}

// splitAddrs takes apart what librados gives as a client's addresses, such as
// "[v2:10.0.0.1:0/77,v1:10.0.0.1:0/77]".
func splitAddrs(s string) []string {
	var out []string
	for _, a := range strings.Split(strings.Trim(s, "[]"), ",") {
		if a = bareAddr(a); a != "" {
			out = append(out, a)
		}
	}
	return out
}

// bareAddr is an address without its messenger's version.
func bareAddr(a string) string {
	a = strings.TrimSpace(strings.Trim(a, "[] "))
	for _, v := range []string{"v1:", "v2:", "any:"} {
		a = strings.TrimPrefix(a, v)
	}
	if a == "-" || a == ":/0" {
		return ""
	}
	return a
}

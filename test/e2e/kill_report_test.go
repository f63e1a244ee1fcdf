//go:build real

package e2e

import (
	"fmt"
	"sort"
	"strings"
	"testing"
	"text/tabwriter"
	"time"
)

// report prints a table of all points, and fails the test for points that could
// not be reached again.
func report(t *testing.T, results []outcome) {
	t.Helper()
	sort.SliceStable(results, func(i, j int) bool {
		a, b := results[i], results[j]
		if a.who != b.who {
			return a.who > b.who
		}
		if a.driver != b.driver {
			return a.driver > b.driver
		}
		return a.point < b.point || a.point == b.point && a.nth < b.nth
	})
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 2, 0, 2, ' ', 0)
	fmt.Fprintln(w, "process\tdriver\tkilled at\thit\tresult\ttook")
	good, missed := 0, 0
	for _, o := range results {
		res := "ok"
		switch {
		case o.err != nil:
			res = "FAILED"
		case !o.reached:
			res = "not reached"
			missed++
			// The way back differs with how long it took.
			if o.after == nil && !byChance(o.point) {
				t.Errorf("%s was reached in the dry run and not again", o.attempt)
			}
		default:
			good++
		}
		where := o.point
		if o.after != nil {
			where += " (after " + o.after.point + ")"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%s\t%s\n", o.who, o.driver, where, o.nth, res, o.took.Round(10*time.Millisecond))
	}
	_ = w.Flush()
	t.Logf("%d points, %d killed and recovered, %d not reached again\n%s", len(results), good, missed, b.String())
}

// byChance says whether a point is reached only when something was late: the
// note of a failed try, a pool whose figures moved, a dock that was slow to come.
func byChance(point string) bool {
	for _, s := range []string{".note.", ".pool.", ".dock.", ".lost."} {
		if strings.Contains(point, s) {
			return true
		}
	}
	return false
}

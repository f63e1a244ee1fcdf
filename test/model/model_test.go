package model

import (
	"fmt"
	"strings"
	"testing"
)

// maxStates bounds a walk: growth beyond it is a mistake in the model.
const maxStates = 4_000_000

type verdict struct {
	states, edges int
	bad           string
	trace         []state
}

// walk visits every state within a budget, nearest first, and stops at the first
// that breaks an invariant.
func walk(t *testing.T, r rules, b budget) verdict {
	t.Helper()
	s0 := start(b)
	// prev holds, for each state, the index of the one that it was reached from.
	seen := map[state]int32{s0: 0}
	queue := []state{s0}
	prev := []int32{-1}
	x := &step{r: r}
	v := verdict{}
	for at := 0; at < len(queue); at++ {
		s := queue[at]
		x.next(s)
		if bad := r.check(&s, x.quiet); bad != "" {
			v.bad = bad
			for i := int32(at); i >= 0; i = prev[i] {
				v.trace = append(v.trace, queue[i])
			}
			break
		}
		for _, n := range x.out {
			v.edges++
			if _, ok := seen[n]; ok {
				continue
			}
			seen[n] = int32(len(queue))
			queue = append(queue, n)
			prev = append(prev, int32(at))
		}
		if len(queue) > maxStates {
			t.Fatalf("more than %d states", maxStates)
		}
	}
	v.states = len(queue)
	return v
}

func (v verdict) String() string {
	var b strings.Builder
	for i := len(v.trace) - 1; i >= 0; i-- {
		fmt.Fprintf(&b, "%3d %+v\n", len(v.trace)-1-i, v.trace[i])
	}
	return b.String()
}

// TestProtocol: with every rule in force the invariants hold in every state.
func TestProtocol(t *testing.T) {
	for name, b := range map[string]budget{
		"two changes of leader":            {takes: 2, deletes: 1},
		"a change and two failures":        {takes: 1, fails: 2, deletes: 1},
		"a late call and a change":         {takes: 1, lates: 1, fails: 1, deletes: 1},
		"two late calls":                   {lates: 2, fails: 1, deletes: 1},
		"the dock goes away":               {downs: 1, fails: 1, lates: 1, deletes: 1},
		"the dock goes away and a change":  {downs: 1, takes: 1, fails: 1, deletes: 1},
		"the dock goes away, a late call":  {downs: 1, takes: 1, lates: 1, deletes: 1},
		"the dock goes away twice, change": {downs: 2, takes: 1, deletes: 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			v := walk(t, allRules(), b)
			t.Logf("%d states, %d transitions", v.states, v.edges)
			if v.bad != "" {
				t.Fatalf("%s after %d steps\n%s", v.bad, len(v.trace)-1, v)
			}
			if v.states < 1000 {
				t.Fatal("hardly anything was walked")
			}
		})
	}
}

// TestEveryRuleIsNeeded: with any one rule dropped an invariant breaks.
func TestEveryRuleIsNeeded(t *testing.T) {
	one := budget{takes: 1, fails: 1, lates: 1, downs: 1, deletes: 1}
	for _, c := range []struct {
		name string
		drop func(*rules)
		b    budget
		want string
	}{
		{"reservation with the placement", func(r *rules) { r.reserve = false }, one, "OVERCOMMIT"},
		{"work that is resumed", func(r *rules) { r.resume = false }, one, "STUCK"},
		{"undo before error", func(r *rules) { r.undo = false }, one, "ORPHAN"},
		{"epoch in every transaction", func(r *rules) { r.epochTxn = false }, one, "LEDGER"},
		// Both of the dock's memories of epochs: either alone would refuse it.
		{"the dock's fence", func(r *rules) { r.fence, r.order = false, false }, budget{takes: 1, lates: 1, fails: 1, deletes: 1}, "ORPHAN"},
		{"the fence on disk", func(r *rules) { r.fenceDisk = false }, budget{takes: 1, downs: 1, deletes: 1}, "ORPHAN"},
		{"order of calls on an object", func(r *rules) { r.order = false }, budget{lates: 1, fails: 1, deletes: 1}, "ORPHAN"},
		{"debts", func(r *rules) { r.debt = false }, one, "ORPHAN"},
		{"space of debts", func(r *rules) { r.debtHolds = false }, one, "OVERCOMMIT"},
		{"unknown is not a failure", func(r *rules) { r.unknownIs = false }, budget{fails: 1, deletes: 1}, "ORPHAN"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r := allRules()
			c.drop(&r)
			v := walk(t, r, c.b)
			if !strings.HasPrefix(v.bad, c.want) {
				t.Fatalf("without it: %q after %d states, want %s\n%s", v.bad, v.states, c.want, v)
			}
			t.Logf("without it, after %d steps (%d states): %s", len(v.trace)-1, v.states, v.bad)
		})
	}
}

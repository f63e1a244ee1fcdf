package failover

import (
	"fmt"
	"os"
	"reflect"
	"strings"
	"testing"
)

// maxStates bounds a walk: growth beyond it is a mistake in the model.
const maxStates = 9_000_000

// step says how a state was first reached.
type step struct {
	from int32
	what string
}

type verdict struct {
	states, edges int
	bad           string
	trace         []string
}

// walk visits every state, nearest first, and stops at the first that breaks a
// promise. Then it looks for states from which there is no way, without mishap
// and without a new wish of a user, to one that the replication should end in.
func walk(t *testing.T, w world, r rules) verdict {
	t.Helper()
	m := &machine{w: w, r: r}
	s0 := start(w)
	seen := map[state]int32{s0: 0}
	queue := []state{s0}
	steps := []step{{from: -1}}
	var from, to []int32 // the ways that may be relied on
	v := verdict{}
	trace := func(at int32) {
		for i := at; i >= 0; i = steps[i].from {
			changed := ""
			if steps[i].from >= 0 {
				changed = diff("", reflect.ValueOf(queue[steps[i].from]), reflect.ValueOf(queue[i]))
			}
			v.trace = append(v.trace, fmt.Sprintf("%-36s%s", steps[i].what, changed))
		}
	}
	for at := 0; at < len(queue); at++ {
		s := queue[at]
		if v.bad = m.check(&s); v.bad != "" {
			trace(int32(at))
			return v
		}
		for _, e := range m.next(s) {
			v.edges++
			i, ok := seen[e.to]
			if !ok {
				i = int32(len(queue))
				seen[e.to] = i
				queue = append(queue, e.to)
				steps = append(steps, step{int32(at), e.String()})
			}
			if !e.mishap {
				from, to = append(from, int32(at)), append(to, i)
			}
		}
		if len(queue) > maxStates {
			t.Fatalf("more than %d states", maxStates)
		}
		v.states = len(queue)
	}
	if i := m.stuck(queue, from, to); i >= 0 {
		v.bad = "STUCK: no way back to one primary and both in step"
		trace(i)
	}
	return v
}

// stuck is the first state that no good one can be reached from; -1 if none.
func (m *machine) stuck(all []state, from, to []int32) int32 {
	// The ways into each state, one after the other.
	first := make([]int32, len(all)+1)
	for _, i := range to {
		first[i+1]++
	}
	for i := range all {
		first[i+1] += first[i]
	}
	into := make([]int32, len(to))
	fill := append([]int32(nil), first[:len(all)]...)
	for k, i := range to {
		into[fill[i]] = from[k]
		fill[i]++
	}
	ok := make([]bool, len(all))
	var todo []int32
	for i := range all {
		if m.good(&all[i]) {
			ok[i] = true
			todo = append(todo, int32(i))
		}
	}
	for len(todo) > 0 {
		i := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		for _, j := range into[first[i]:first[i+1]] {
			if !ok[j] {
				ok[j] = true
				todo = append(todo, j)
			}
		}
	}
	for i := range all {
		if !ok[i] {
			return int32(i)
		}
	}
	return -1
}

// diff tells what has changed.
func diff(name string, a, b reflect.Value) string {
	if a.Equal(b) {
		return ""
	}
	out := ""
	switch a.Kind() {
	case reflect.Struct:
		for i := range a.NumField() {
			out += diff(name+"."+a.Type().Field(i).Name, a.Field(i), b.Field(i))
		}
	case reflect.Array:
		for i := range a.Len() {
			out += diff(fmt.Sprintf("%s%d", name, i), a.Index(i), b.Index(i))
		}
	default:
		out = fmt.Sprintf(" %s=%v", strings.TrimPrefix(name, "."), b)
	}
	return out
}

func (v verdict) String() string {
	var b strings.Builder
	for i := len(v.trace) - 1; i >= 0; i-- {
		fmt.Fprintf(&b, "%3d %s\n", len(v.trace)-1-i, v.trace[i])
	}
	return b.String()
}

// The worlds, by what they are of. small is walked always; the rest of what may
// go wrong is added with OSDS_MODEL=large, which takes minutes and gigabytes.
var worlds = []struct {
	name         string
	small, large []world
}{
	{"sync, one site, arbiter only",
		[]world{
			{sync: true, sites: 1, ops: 1, cuts: 1, offs: 1, lates: 1, writes: 1},
			{sync: true, sites: 1, ops: 2, cuts: 1, lates: 1, writes: 1},
			{sync: true, sites: 1, ops: 1, dies: 1, cuts: 1, writes: 2},
			{sync: true, sites: 1, ops: 1, cuts: 1, deletes: 1, writes: 1},
		},
		[]world{
			{sync: true, sites: 1, ops: 2, cuts: 1, dies: 1, offs: 1, writes: 2},
			{sync: true, sites: 1, ops: 2, cuts: 2, lates: 1, writes: 2},
			{sync: true, sites: 1, ops: 1, cuts: 1, dies: 1, offs: 1, lates: 1, deletes: 1, writes: 1},
		}},
	{"sync, one site, every evidence",
		[]world{
			{sync: true, sites: 1, fence: true, watchdog: true, statement: true, ops: 1, cuts: 1, dies: 1, writes: 1},
			{sync: true, sites: 1, fence: true, watchdog: true, statement: true, ops: 1, offs: 1, lates: 1, writes: 1},
		},
		[]world{
			{sync: true, sites: 1, fence: true, watchdog: true, statement: true, ops: 1, cuts: 1, dies: 1, offs: 1, lates: 1, writes: 1},
			{sync: true, sites: 1, fence: true, watchdog: true, statement: true, ops: 2, dies: 1, offs: 1, lates: 1, writes: 1},
		}},
	{"async, one site",
		[]world{
			{sites: 1, fence: true, watchdog: true, statement: true, ops: 1, cuts: 1, offs: 1, lates: 1, writes: 1},
			{sites: 1, fence: true, watchdog: true, statement: true, ops: 2, cuts: 1, writes: 2},
			{sites: 1, fence: true, watchdog: true, statement: true, ops: 1, dies: 1, cuts: 1, lates: 1, writes: 1},
			{sites: 1, fence: true, keeps: true, ops: 1, cuts: 1, offs: 1, lates: 1, writes: 2},
		},
		[]world{
			{sites: 1, fence: true, watchdog: true, statement: true, ops: 2, cuts: 1, dies: 1, lates: 1, writes: 1},
			{sites: 1, fence: true, watchdog: true, statement: true, ops: 2, cuts: 1, offs: 1, lates: 1, writes: 1},
			{sites: 1, fence: true, keeps: true, ops: 2, cuts: 1, offs: 1, lates: 1, deletes: 1, writes: 1},
		}},
	{"sync, two sites",
		[]world{
			{sync: true, sites: 2, statement: true, ops: 1, cuts: 1, offs: 1, writes: 1},
			{sync: true, sites: 2, statement: true, ops: 1, cuts: 1, dies: 1, writes: 1},
			{sync: true, sites: 2, statement: true, ops: 1, offs: 1, lates: 1, writes: 1},
			{sync: true, sites: 2, statement: true, ops: 2, writes: 1},
		},
		[]world{
			{sync: true, sites: 2, statement: true, ops: 2, cuts: 1, lates: 1, writes: 1},
			{sync: true, sites: 2, statement: true, ops: 2, cuts: 1, offs: 1, writes: 1},
			{sync: true, sites: 2, statement: true, ops: 2, offs: 1, lates: 1, writes: 1},
			{sync: true, sites: 2, statement: true, ops: 1, cuts: 1, dies: 1, offs: 1, deletes: 1, writes: 1},
		}},
	{"async, two sites",
		[]world{
			{sites: 2, statement: true, ops: 1, cuts: 1, offs: 1, lates: 1, writes: 1},
			{sites: 2, statement: true, ops: 1, dies: 1, offs: 1, lates: 1, writes: 1},
			{sites: 2, statement: true, ops: 2, offs: 1, writes: 1},
			{sites: 2, statement: true, ops: 1, cuts: 1, deletes: 1, writes: 1},
		},
		[]world{
			{sites: 2, statement: true, ops: 2, cuts: 1, offs: 1, lates: 1, writes: 1},
			{sites: 2, statement: true, ops: 2, offs: 2, writes: 1},
			{sites: 2, statement: true, ops: 1, cuts: 1, dies: 1, offs: 1, lates: 1, deletes: 1, writes: 1},
		}},
}

// TestProtocol: with every rule in force every promise is kept in every state.
func TestProtocol(t *testing.T) {
	large := os.Getenv("OSDS_MODEL") == "large"
	for _, c := range worlds {
		ws := c.small
		if large {
			ws = append(ws, c.large...)
		}
		for _, w := range ws {
			t.Run(c.name, func(t *testing.T) {
				v := walk(t, w, allRules())
				t.Logf("%d states, %d ways: %+v", v.states, v.edges, w)
				if v.bad != "" {
					t.Fatalf("%s after %d steps\n%s", v.bad, len(v.trace)-1, v)
				}
				if v.states < 1000 {
					t.Fatal("hardly anything was walked")
				}
			})
		}
	}
}

// TestEveryRuleIsNeeded: with any one rule dropped a promise is broken.
func TestEveryRuleIsNeeded(t *testing.T) {
	plain := world{sync: true, sites: 1, ops: 1, cuts: 1, writes: 1}
	async := world{sites: 1, fence: true, watchdog: true, statement: true, ops: 1, cuts: 1, dies: 1, offs: 1, lates: 1, writes: 1}
	watched := world{sites: 1, watchdog: true, ops: 1, offs: 1, cuts: 1, lates: 1, writes: 1}
	asyncTwice := world{sites: 1, fence: true, watchdog: true, statement: true, ops: 2, cuts: 1, lates: 1, writes: 1}
	two := world{sync: true, sites: 2, statement: true, ops: 1, cuts: 1, offs: 1, writes: 1}
	for _, c := range []struct {
		name string
		drop func(*rules)
		w    world
		want string
	}{
		{"evidence", func(r *rules) { r.evidence = false }, async, "TWO"},
		{"evidence, with an arbiter", func(r *rules) { r.evidence = false }, world{sync: true, sites: 1, ops: 1, cuts: 2, writes: 1}, "LATE"},
		{"the intent comes first", func(r *rules) { r.intentFirst = false }, plain, "LATE"},
		{"a generation in every call", func(r *rules) { r.generation = false }, asyncTwice, ""},
		{"generations on disk, and calls bound to an instance", func(r *rules) { r.durable, r.instance = false, false }, watched, "TWO"},
		{"calls bound to an instance of the dock", func(r *rules) { r.instance = false }, watched, "TWO"},
		{"one transaction of the arbiter", func(r *rules) { r.arbiterTxn = false }, plain, ""},
		{"the arbiter records", func(r *rules) { r.outdated = false }, plain, ""},
		{"a primary alone asks", func(r *rules) { r.frozenAsks = false }, plain, ""},
		{"a leave is for one freeze", func(r *rules) { r.thisFreeze = false }, world{sync: true, sites: 1, ops: 1, cuts: 2, writes: 1}, ""},
		{"the count is compared", func(r *rules) { r.countSame = false }, world{sync: true, sites: 1, ops: 1, cuts: 2, writes: 1}, "LOST"},
		{"the status is newer than the count", func(r *rules) { r.askAfter = false }, world{sync: true, sites: 1, ops: 1, cuts: 2, writes: 1}, "LOST"},
		{"transactions of deposed leaders fail", func(r *rules) { r.guarded = false }, asyncTwice, ""},
		{"the watchdog", func(r *rules) { r.watchdog = false }, async, "TWO"},
		{"waiting for the watchdog", func(r *rules) { r.waits = false }, async, "TWO"},
		{"a planned move waits for the end of the stream", func(r *rules) { r.marker = false }, async, "LOST"},
		{"accepting loss, sync", func(r *rules) { r.accept = false }, plain, "LOST"},
		{"statements are true", func(r *rules) { r.trueWord = false }, async, "TWO"},
		{"removed sides remember their generation", func(r *rules) { r.tombstone = false }, world{sync: true, sites: 1, lates: 1, deletes: 1, ops: 1}, "ORPHAN"},
		{"two sites never choose the same generation", func(r *rules) { r.unique = false }, world{sites: 2, statement: true, ops: 2, offs: 2, writes: 1}, ""},
		{"a word of the other site since the dock started", func(r *rules) { r.word = false }, world{sites: 2, statement: true, ops: 1, offs: 1, writes: 1}, ""},
		{"the other site records the intent", func(r *rules) { r.joins = false }, two, ""},
		{"fenced storage keeps the generation", func(r *rules) { r.fenceGen = false }, asyncTwice, ""},
		{"what is lacking is handed over", func(r *rules) { r.handOver = false }, world{sync: true, sites: 2, ops: 2, cuts: 1, writes: 1}, "LOST"},
		{"the loser is told", func(r *rules) { r.demoteTold = false }, plain, "STUCK"},
		{"a history is discarded only where two have parted", func(r *rules) { r.parted = false }, world{sync: true, sites: 1, ops: 2, cuts: 1, lates: 1, writes: 1}, "STUCK"},
		{"of two histories the one that was promoted later is kept", func(r *rules) { r.later = false }, world{sync: true, sites: 1, ops: 1, cuts: 1, offs: 1, writes: 1}, "LOST"},
		{"a primary is promoted anew like any other", func(r *rules) { r.anew = false }, asyncTwice, "LOST"},
		{"the role of an array survives its power", func(r *rules) {}, world{sites: 1, statement: true, keeps: true, ops: 1, offs: 1, writes: 1}, "TWO"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := allRules()
			c.drop(&r)
			v := walk(t, c.w, r)
			if v.bad == "" || !strings.HasPrefix(v.bad, c.want) {
				t.Fatalf("without it: %q after %d states, want %s\n%s", v.bad, v.states, c.want, v)
			}
			t.Logf("without it, after %d steps (%d states): %s", len(v.trace)-1, v.states, v.bad)
			if testing.Verbose() && os.Getenv("OSDS_MODEL") != "" {
				t.Logf("\n%s", v)
			}
		})
	}
}

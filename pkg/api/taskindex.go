package api

import (
	"strings"
	"sync"
	"time"

	"github.com/tidwall/btree"

	"github.com/osds-io/osds/pkg/db"
	"github.com/osds-io/osds/pkg/model"
)

// endedTasks is how many tasks are remembered that no record shows any more: of
// records that are gone, or that have had another task since.
const endedTasks = 4096

// task is a task where it was last seen. rec is shared with the cache. There is
// one for every record, so it is kept small.
type task struct {
	rec model.Tasked
	// since is when rec ceased to show the task, in Unix nanoseconds; 0 if it
	// still does.
	since int64
}

func (t task) id() string { return t.rec.CurrentTask().ID }

// gone says that the record no longer shows the task: it is gone itself, or has
// had another task since.
func (t task) gone() bool { return t.since != 0 }

// taskIndex finds tasks by their id. Tasks are no records of their own, but part
// of the record they work on, so this is fed by the store's events. It holds one
// task per live record, in the order of ids, which is the order of their making.
type taskIndex struct {
	mu sync.RWMutex
	//
	// The trees hold pointers, and a task's record is replaced in place: a
	// node's unused slots keep what was in them once, which by value would be
	// records from long ago.
	all    *btree.BTreeG[*task]
	active *btree.BTreeG[*task]
	// ended is a ring of the ids of tasks that are gone; next is the oldest.
	ended []string
	next  int
	// totals counts tasks that ended, for the metrics page.
	totals map[taskKey]int64
	now    func() time.Time

	store  *db.Store
	resets int64
	stop   func()
}

// taskKey is what ended tasks are counted by.
type taskKey struct {
	res   model.Resource
	kind  model.TaskKind
	state model.TaskState
}

// newTaskIndex makes the index and keeps it up to date until its stop is called.
func newTaskIndex(s *db.Store, now func() time.Time) *taskIndex {
	x := &taskIndex{all: newTaskTree(), active: newTaskTree(), totals: map[taskKey]int64{}, now: now, store: s}
	// Events that come during the scan wait for its end, and are then applied
	// in order: the last one of each record has the last word.
	x.mu.Lock()
	defer x.mu.Unlock()
	x.stop = s.OnEvent(x.event)
	x.scan()
	return x
}

func newTaskTree() *btree.BTreeG[*task] {
	return btree.NewBTreeGOptions(func(a, b *task) bool { return a.id() < b.id() }, btree.Options{NoLocks: true})
}

// scan fills the index from the cache.
func (x *taskIndex) scan() {
	x.resets = x.store.Resets()
	scan(x, x.store.Volumes)
	scan(x, x.store.Snapshots)
	scan(x, x.store.Attachments)
	scan(x, x.store.Groups)
	scan(x, x.store.Debts)
}

// rlock locks for reading. If the cache lost events and was loaded anew, so is
// the index, but for what is remembered of tasks that are gone.
func (x *taskIndex) rlock() {
	x.mu.RLock()
	if x.store.Resets() == x.resets {
		return
	}
	x.mu.RUnlock()
	x.mu.Lock()
	if x.store.Resets() != x.resets {
		var live []*task
		x.all.Scan(func(t *task) bool {
			if !t.gone() {
				live = append(live, t)
			}
			return true
		})
		for _, t := range live {
			x.all.Delete(t)
		}
		x.active.Clear()
		x.scan()
	}
	x.mu.Unlock()
	x.mu.RLock()
}

func scan[T any, P interface {
	*T
	model.Tasked
}](x *taskIndex, t *db.Table[T, P]) {
	for _, r := range t.All() {
		x.put(r)
	}
}

// event applies one change.
func (x *taskIndex) event(e db.Event) {
	rec, ok := e.Rec.(model.Tasked)
	if !ok {
		return
	}
	old, _ := e.Old.(model.Tasked)
	x.mu.Lock()
	defer x.mu.Unlock()
	if e.Type == db.Deleted {
		if rec.CurrentTask() != nil {
			x.count(rec, rec)
			x.retire(rec)
		}
		return
	}
	if old != nil && old.CurrentTask() != nil {
		if now := rec.CurrentTask(); now == nil || now.ID != old.CurrentTask().ID {
			x.retire(old)
		}
	}
	x.count(old, rec)
	x.put(rec)
	if k := rec.CurrentTask(); k != nil && !k.Active() && (old == nil || old.CurrentTask().Active()) {
		x.active.Delete(&task{rec: rec})
	}
}

// put notes where a record's task stands.
func (x *taskIndex) put(rec model.Tasked) {
	t := rec.CurrentTask()
	if t == nil {
		return
	}
	k := x.set(rec, 0)
	if t.Active() {
		x.active.Set(k)
	}
}

// set notes the record that shows a task, or did until since.
func (x *taskIndex) set(rec model.Tasked, since int64) *task {
	k := &task{rec: rec, since: since}
	if old, ok := x.all.Get(k); ok {
		*old = *k
		return old
	}
	x.all.Set(k)
	return k
}

// retire moves a task that its record no longer shows among those that are
// remembered for a while.
func (x *taskIndex) retire(rec model.Tasked) {
	id := rec.CurrentTask().ID
	x.active.Delete(&task{rec: rec})
	if old, ok := x.get(id); ok && old.gone() {
		return
	}
	x.set(rec, x.now().UnixNano())
	if len(x.ended) < endedTasks {
		x.ended = append(x.ended, id)
		return
	}
	if oldest, ok := x.all.Get(pivot(x.ended[x.next])); ok && oldest.gone() {
		x.all.Delete(oldest)
		oldest.rec = nil
	}
	x.ended[x.next] = id
	x.next = (x.next + 1) % endedTasks
}

// count counts a task that ended with this change. A task that was over before
// is not counted again; one whose record is gone ended with it.
func (x *taskIndex) count(old, rec model.Tasked) {
	t := rec.CurrentTask()
	if old == nil || t == nil || !old.CurrentTask().Active() || old.CurrentTask().ID != t.ID {
		return
	}
	state := t.State
	if old == rec {
		state = goneState(t)
	}
	if state.Done() {
		x.totals[taskKey{rec.Res(), t.Kind, state}]++
	}
}

// get finds a task; the caller holds the lock.
func (x *taskIndex) get(id string) (task, bool) {
	t, ok := x.all.Get(pivot(id))
	if !ok {
		return task{}, false
	}
	return *t, true
}

// find finds a task by its id.
func (x *taskIndex) find(id string) (task, bool) {
	x.rlock()
	defer x.mu.RUnlock()
	return x.get(id)
}

// pivot is a task that only has an id, to search with.
func pivot(id string) *task {
	return &task{rec: &model.Debt{Task: &model.Task{ID: id}}}
}

// maxTasksLooked bounds how many tasks one page looks at, so that a filter that
// matches little costs little.
const maxTasksLooked = 20000

// page gives tasks that match, newest first, from after a marker. next is where
// the following page begins; empty at the end.
func (x *taskIndex) page(after string, limit int, onlyActive bool, match func(task) bool) (out []task, next string) {
	x.rlock()
	defer x.mu.RUnlock()
	tree := x.all
	if onlyActive {
		tree = x.active
	}
	looked, last := 0, after
	visit := func(t *task) bool {
		id := t.id()
		if after != "" && id >= after {
			return true
		}
		if looked == maxTasksLooked || len(out) == limit {
			next = last
			return false
		}
		looked++
		last = strings.Clone(id)
		if match(*t) {
			out = append(out, *t)
		}
		return true
	}
	if after == "" {
		tree.Reverse(visit)
	} else {
		tree.Descend(pivot(after), visit)
	}
	return out, next
}

// each calls f for every task in progress.
func (x *taskIndex) each(f func(task)) {
	x.rlock()
	defer x.mu.RUnlock()
	x.active.Scan(func(t *task) bool { f(*t); return true })
}

// ends gives how many tasks ended since the process began.
func (x *taskIndex) ends() map[taskKey]int64 {
	x.rlock()
	defer x.mu.RUnlock()
	out := make(map[taskKey]int64, len(x.totals))
	for k, n := range x.totals {
		out[k] = n
	}
	return out
}

// goneState is how a task ended whose record is gone while it was in progress.
// Removing the record is the end of a delete and of a settled debt; a create ends
// so only if it was cancelled.
func goneState(t *model.Task) model.TaskState {
	switch {
	case t.State.Done():
		return t.State
	case t.Kind == model.TaskDelete, t.Kind == model.TaskSettle:
		return model.TaskSucceeded
	}
	return model.TaskCancelled
}

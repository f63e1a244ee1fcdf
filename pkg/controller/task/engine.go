// Package task runs the work that records carry. A record with an active task is
// the durable task: the engine finds it in the store, does its next step, and
// writes the result with the step that follows. Nothing of it lives only here: a
// process may be killed at any instruction, and whoever leads next goes on.
//
// An engine lives for one term of leadership. At most one goroutine works on a
// record at a time.
package task

import (
	"container/heap"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime/debug"
	"sync"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/osds-io/osds/pkg/db"
	"github.com/osds-io/osds/pkg/model"
)

// Class is a queue of the engine with its own limit of tasks at a time, so that
// one slow dock does not hold up the others, nor creates hold up attaching.
type Class struct {
	Name  string
	Limit int
}

// Handler does the steps of one resource's tasks.
type Handler interface {
	// Class is the queue that the record's next step belongs to.
	Class(rec model.Tasked) Class
	// Step does the next step and commits what follows from it through the
	// job. An error means that the step is tried again later; steps are
	// therefore idempotent. A failure that no retry mends is not an error
	// here: the handler commits the way out (undo, then the error state).
	Step(ctx context.Context, j *Job) error
}

// Wait is the error of a step that has to wait for something without having
// failed.
type Wait struct {
	For    time.Duration
	Reason string
}

func (w *Wait) Error() string { return w.Reason }

// Engine runs tasks during one term.
type Engine struct {
	Store *db.Store
	Term  *db.Term
	Log   *logrus.Entry
	Now   func() time.Time
	// Release gives reserved space back that a committed transaction freed, or
	// a failed one did not use.
	Release func(poolID string, n model.Bytes)
	// Handlers by resource.
	Handlers map[model.Resource]Handler
	// LongestPause bounds what a task waits for its next try, whatever time its
	// record gives: clocks are set back, and those of two leaders differ. 0
	// means 15 s, longer than any try is put off.
	LongestPause time.Duration

	mu      sync.Mutex
	jobs    map[string]*Job
	classes map[string]*queue
	timers  timerHeap
	wake    chan struct{}
	wg      sync.WaitGroup
	ctx     context.Context
	end     context.CancelCauseFunc
}

// Job is the work on one record.
type Job struct {
	e   *Engine
	key string
	res model.Resource
	id  string
	// Rec is the record as last committed. It is shared and not to be changed.
	Rec   model.Tasked
	gone  bool
	state jobState
	dirty bool  // the record changed while the job was running
	seen  int64 // the latest revision of the record that an event brought
	last  int64 // the revision of our own latest write of it
	due   time.Time
	hurry bool // the next try need not wait for its time
	index int  // in the timer heap, -1 if not there
	// failures that were not written to the record (conflicts with clients).
	spins int
	// stop ends the step under way: a user cancelled the task.
	stop context.CancelFunc
}

type jobState int

const (
	queued jobState = iota
	running
	waiting
	// over: the job has ended, and the watch has not shown that yet. Events of
	// before are history by now, and must not begin the task once more.
	over
)

type queue struct {
	name    string // of its class; never changes
	limit   int
	running int
	jobs    []*Job
}

// Run works until the context ends, and returns when all steps have ended.
func (e *Engine) Run(ctx context.Context) error {
	e.mu.Lock()
	e.ctx, e.end = context.WithCancelCause(ctx)
	e.jobs, e.classes = map[string]*Job{}, map[string]*queue{}
	e.wake = make(chan struct{}, 1)
	e.mu.Unlock()
	defer e.end(nil)
	stop := e.Store.OnEvent(e.onEvent)
	defer stop()
	for _, r := range e.Store.ActiveTasks() {
		e.begin(r)
	}
	e.runTimers()
	e.wg.Wait()
	if ctx.Err() == nil {
		return fmt.Errorf("tasks stop: %w", context.Cause(e.ctx))
	}
	return nil
}

// Active is the number of records with work in progress.
func (e *Engine) Active() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	n := 0
	for _, j := range e.jobs {
		if j.state != over {
			n++
		}
	}
	return n
}

// Kick makes every waiting task try again now: something it may wait for has
// changed (a dock came back).
func (e *Engine) Kick() {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.jobs == nil {
		return
	}
	for len(e.timers) > 0 {
		j := heap.Pop(&e.timers).(*Job)
		j.hurry = true
		e.enqueue(j)
	}
}

func (e *Engine) onEvent(ev db.Event) {
	r, ok := ev.Rec.(model.Tasked)
	if !ok {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if ev.Type != db.Deleted && r.CurrentTask().Active() {
		e.offer(r)
	}
	if j, ok := e.jobs[db.Key(r.Res(), r.Base().ID)]; ok {
		j.seen = max(j.seen, ev.Rev)
		if j.state == over && j.seen >= j.last {
			delete(e.jobs, j.key)
		}
	}
}

// begin offers a record that was active when the term began, unless an event has
// brought it meanwhile and its task has ended by now.
func (e *Engine) begin(r model.Tasked) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if now, ok := e.Store.Tasked(r.Res(), r.Base().ID); ok && now.CurrentTask().Active() {
		e.offer(now)
	}
}

// offer brings a record with an active task to the engine's attention. The
// caller holds the lock.
func (e *Engine) offer(r model.Tasked) {
	b := r.Base()
	key := db.Key(r.Res(), b.ID)
	j, ok := e.jobs[key]
	if ok && j.state == over {
		if b.Rev <= j.last {
			return
		}
		ok = false
	}
	if !ok {
		j = &Job{e: e, key: key, res: r.Res(), id: b.ID, Rec: r, index: -1}
		e.jobs[key] = j
		e.enqueue(j)
		return
	}
	switch j.state {
	case running:
		if b.Rev > j.seen {
			j.seen = b.Rev
			j.dirty = true
			if r.CurrentTask().Cancel && j.stop != nil {
				j.stop()
			}
		}
	case waiting:
		if b.Rev > j.Rec.Base().Rev {
			j.Rec = r
			t := r.CurrentTask()
			if t.Cancel || !t.NextRun.After(e.Now()) {
				heap.Remove(&e.timers, j.index)
				e.enqueue(j)
			}
		}
	case queued:
		if b.Rev > j.Rec.Base().Rev {
			j.Rec = r
		}
	}
}

// enqueue puts a job into its class's queue. The caller holds the lock.
func (e *Engine) enqueue(j *Job) {
	h, ok := e.Handlers[j.res]
	if !ok {
		delete(e.jobs, j.key)
		return
	}
	c := h.Class(j.Rec)
	q, ok := e.classes[c.Name]
	if !ok {
		q = &queue{name: c.Name}
		e.classes[c.Name] = q
	}
	q.limit = c.Limit
	j.state = queued
	q.jobs = append(q.jobs, j)
	e.dispatch(q)
}

// dispatch starts jobs of a queue up to its limit. The caller holds the lock.
func (e *Engine) dispatch(q *queue) {
	for len(q.jobs) > 0 && q.running < q.limit && e.ctx.Err() == nil {
		j := q.jobs[0]
		q.jobs[0] = nil
		q.jobs = q.jobs[1:]
		j.state = running
		q.running++
		e.wg.Add(1)
		go e.work(j, q, e.Handlers[j.res])
	}
}

// work does steps of a job until it ends, waits, or belongs to another class.
func (e *Engine) work(j *Job, q *queue, h Handler) {
	defer e.wg.Done()
	var pause time.Duration
	again := false
	for e.ctx.Err() == nil {
		t := j.Rec.CurrentTask()
		if !t.Active() {
			break
		}
		if d := t.NextRun.Sub(e.Now()); d > 0 && !t.Cancel && !j.hurry {
			if pause = d; d > e.longestPause() {
				pause, j.hurry = e.longestPause(), true
			}
			break
		}
		if h.Class(j.Rec).Name != q.name {
			again = true
			break
		}
		j.hurry = false
		began := e.Now()
		err := e.step(j, h)
		if j.gone {
			break
		}
		if err == nil {
			j.spins = 0
			continue
		}
		if p := model.ProgressOf(err); p != nil && e.ctx.Err() == nil {
			// Others of its class have a turn before the rest of it.
			pause, again = e.goesOn(j, p, e.Now().Sub(began))
			break
		}
		if pause = e.failed(j, err); pause > 0 {
			break
		}
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	q.running--
	e.settle(j, pause, again)
	e.dispatch(q)
}

func (e *Engine) longestPause() time.Duration {
	if e.LongestPause > 0 {
		return e.LongestPause
	}
	return 15 * time.Second
}

// step does one step. Its context ends when a user cancels the task, so that a
// long call to a dock does not hold that up; commits do not depend on it.
func (e *Engine) step(j *Job, h Handler) (err error) {
	defer func() {
		// One record must not take the process, and with it all others, down
		// again and again. The task says what happened, and is tried again.
		if p := recover(); p != nil {
			e.Log.WithField("record", j.key).Errorf("panic in a step: %v\n%s", p, debug.Stack())
			err = model.Errorf(model.KindInternal, "a fault of osdslet in this step: %v; its log has more", p)
		}
	}()
	ctx, stop := context.WithCancel(e.ctx)
	defer stop()
	if !j.Task().Cancel {
		if !e.stoppable(j, stop) {
			return errMoved
		}
		defer func() {
			e.mu.Lock()
			j.stop = nil
			e.mu.Unlock()
		}()
	}
	return h.Step(ctx, j)
}

// stoppable lets a wish to cancel end the step that is about to begin. It is
// false if one has come since the record was read; j.Rec is then the new one.
func (e *Engine) stoppable(j *Job, stop context.CancelFunc) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if j.dirty {
		if r, ok := e.lookup(j); ok && r.Base().Rev > j.Rec.Base().Rev && r.CurrentTask().Active() && r.CurrentTask().Cancel {
			j.Rec = r
			return false
		}
	}
	j.stop = stop
	return true
}

// settle decides what becomes of a job after its goroutine. The caller holds the
// lock.
func (e *Engine) settle(j *Job, pause time.Duration, again bool) {
	if e.ctx.Err() != nil {
		return
	}
	if j.dirty {
		// A client changed the record while we worked: look at it afresh.
		j.dirty = false
		if r, ok := e.lookup(j); ok && r.Base().Rev > j.Rec.Base().Rev {
			j.Rec, j.gone = r, false
			t := r.CurrentTask()
			if t.Active() && (t.Cancel || !t.NextRun.After(e.Now())) {
				pause, again = 0, true
			}
		}
	}
	switch {
	case j.gone || !j.Rec.CurrentTask().Active():
		if j.state = over; j.seen >= j.last {
			delete(e.jobs, j.key)
		}
	case pause > 0 && !again:
		j.state, j.due = waiting, e.Now().Add(pause)
		heap.Push(&e.timers, j)
		select {
		case e.wake <- struct{}{}:
		default:
		}
	default:
		e.enqueue(j)
	}
}

// lookup reads the job's record from the cache; tables have a lock of their own.
func (e *Engine) lookup(j *Job) (model.Tasked, bool) { return e.Store.Tasked(j.res, j.id) }

// failed deals with a step's error and gives how long to pause; 0 means go on at
// once with j.Rec as it is now.
func (e *Engine) failed(j *Job, err error) time.Duration {
	var se *storeFailure
	switch {
	case errors.Is(err, errMoved):
		// A client changed the record; j.Rec is the new one.
		j.spins++
		if j.spins < 20 {
			return 0
		}
		return time.Duration(j.spins) * 10 * time.Millisecond
	case errors.As(err, &se):
		// The outcome of a write is unknown, or we no longer lead. Whoever
		// leads next reads the store and goes on.
		e.end(se.err)
		return time.Second
	case e.ctx.Err() != nil:
		return time.Second
	}
	// A stale call is tried again like any other: it was overtaken by a later
	// one on its object. If it is the epoch that is stale the term is about to
	// end, by the lease or by what the dock reports.
	var w *Wait
	pause := backoff(j.Rec.CurrentTask())
	if errors.As(err, &w) {
		// Each look is a write. What has waited for long, for a host that is
		// dead perhaps, is looked at less often.
		pause = max(w.For, min(e.Now().Sub(j.Task().CreatedAt)/10, 10*time.Second))
	}
	e.Log.WithFields(logrus.Fields{"record": j.key, "task": j.Rec.CurrentTask().ID, "step": j.Rec.CurrentTask().Step}).
		WithError(err).Debugf("step to be tried again in %s", pause.Round(time.Millisecond))
	next, cancelled := e.Now().Add(pause), j.Task().Cancel
	nerr := j.note(func(t *model.Task) {
		if w != nil {
			t.State, t.LastError, t.ErrorKind, t.NextRun = model.TaskWaiting, w.Reason, model.KindBusy, next.UTC()
			return
		}
		t.Missed(err, next)
	})
	switch {
	case errors.Is(nerr, errMoved) && !j.gone && j.Task().Cancel && !cancelled:
		return 0 // a user does not want to wait for the next try
	case nerr != nil && !errors.Is(nerr, errMoved):
		if errors.As(nerr, &se) {
			e.end(se.err)
		}
		return time.Second
	}
	return pause
}

// goesOn notes how far long work is, and gives how long to wait before the step is
// done again, or that it is to be done again at once: a driver works only while it
// is called.
func (e *Engine) goesOn(j *Job, p *model.Progress, took time.Duration) (pause time.Duration, again bool) {
	err := j.note(func(t *model.Task) { t.GoesOn(p, e.Now()) })
	var se *storeFailure
	switch {
	case errors.As(err, &se):
		e.end(se.err)
		return time.Second, false
	case err != nil && !errors.Is(err, errMoved):
		return time.Second, false
	case err == nil && took < shortStep:
		// It goes on elsewhere, and this was only a look.
		return shortStep, false
	}
	return 0, true
}

// shortStep is how long a step of long work takes at least. Each is a write.
const shortStep = time.Second

// The longest pauses between two tries. Each try is a write; a debt may wait for
// its dock for weeks, as may a host that has not seen a new size; nobody waits for
// them, and they are kicked when the dock is back.
const (
	maxPause     = 10 * time.Second
	maxDebtPause = 30 * time.Second
)

// backoff grows from 200 ms to the longest pause, give or take a fifth.
func backoff(t *model.Task) time.Duration {
	most := maxPause
	if t.Kind == model.TaskSettle || t.Kind == model.TaskResize {
		most = maxDebtPause
	}
	d := min(200*time.Millisecond<<min(t.Attempts, 20), most)
	return d*4/5 + rand.N(d*2/5)
}

func (e *Engine) runTimers() {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		e.mu.Lock()
		next := time.Hour
		for len(e.timers) > 0 {
			d := e.timers[0].due.Sub(e.Now())
			if d > 0 {
				next = d
				break
			}
			e.enqueue(heap.Pop(&e.timers).(*Job))
		}
		e.mu.Unlock()
		timer.Reset(next)
		select {
		case <-timer.C:
		case <-e.wake:
		case <-e.ctx.Done():
			return
		}
	}
}

// timerHeap orders waiting jobs by when they are due.
type timerHeap []*Job

func (h timerHeap) Len() int           { return len(h) }
func (h timerHeap) Less(i, j int) bool { return h[i].due.Before(h[j].due) }
func (h timerHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].index, h[j].index = i, j
}

// Push is part of heap.Interface.
func (h *timerHeap) Push(x any) {
	j := x.(*Job)
	j.index = len(*h)
	*h = append(*h, j)
}

// Pop is part of heap.Interface.
func (h *timerHeap) Pop() any {
	old := *h
	j := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	j.index = -1
	return j
}

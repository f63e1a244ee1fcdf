package dock

import (
	"container/list"
	"context"
	"sync"
	"time"

	"github.com/osds-io/osds/pkg/model"
)

// maxRemembered is how many objects' orders are remembered beyond those that
// have a call in progress.
const maxRemembered = 64 << 10

// objectKey names what calls are kept in order on.
type objectKey struct {
	res model.Resource
	id  string
}

func (k objectKey) String() string { return string(k.res) + "/" + k.id }

func (k objectKey) less(o objectKey) bool {
	if k.res != o.res {
		return k.res < o.res
	}
	return k.id < o.id
}

// stamp is a call's place in the order of all calls: of one leader by seq, of
// several by epoch.
type stamp struct{ epoch, seq int64 }

func (s stamp) less(o stamp) bool {
	if s.epoch != o.epoch {
		return s.epoch < o.epoch
	}
	return s.seq < o.seq
}

// want is a lock that a call needs. A shared lock is for what is only read: the
// source of a clone.
type want struct {
	key    objectKey
	shared bool
}

// locks has one lock for each object that has a call in progress, and the
// highest stamp that each object saw lately. Waiters are served in order.
type locks struct {
	mu   sync.Mutex
	objs map[objectKey]*object
	// idle are the objects without a call whose stamp is remembered, the
	// latest in front; forgotten ones leave their stamp in floor.
	idle  list.List
	floor stamp
	max   int
}

// object is the lock of one object.
type object struct {
	key     objectKey
	refs    int // holders and waiters
	seen    stamp
	excl    bool
	shared  int
	stuck   int       // holders whose call is over its deadline
	since   time.Time // of the last such
	waiters list.List // of *waiter
	idleAt  *list.Element
}

type waiter struct {
	shared bool
	ready  chan error // nil: the lock is held
}

func newLocks(maxIdle int) *locks {
	return &locks{objs: map[objectKey]*object{}, max: maxIdle}
}

// held is the set of locks of one call, in the order they were taken.
type held struct {
	l     *locks
	n     int
	objs  [3]*object
	shr   [3]bool
	stuck bool
}

// acquire takes the locks in the fixed order of their keys, waiting until ctx
// ends. It gives unavailable, at once, if one is held by a call that did not end
// in its time; and unavailable if the wait was too long: the call surely did not
// begin. A key that is wanted twice is taken once.
func (l *locks) acquire(ctx context.Context, wants ...want) (*held, error) {
	for i := 1; i < len(wants); i++ { // at most three
		for j := i; j > 0 && wants[j].key.less(wants[j-1].key); j-- {
			wants[j], wants[j-1] = wants[j-1], wants[j]
		}
	}
	h := &held{l: l}
	for i, w := range wants {
		if i+1 < len(wants) && wants[i+1].key == w.key {
			wants[i+1].shared = w.shared && wants[i+1].shared
			continue
		}
		o, err := l.one(ctx, w)
		if err != nil {
			h.release()
			return nil, err
		}
		h.objs[h.n], h.shr[h.n] = o, w.shared
		h.n++
	}
	return h, nil
}

func (l *locks) one(ctx context.Context, w want) (*object, error) {
	l.mu.Lock()
	o := l.ref(w.key)
	switch {
	case o.stuck > 0:
		err := o.stuckError()
		l.unref(o)
		l.mu.Unlock()
		return nil, err
	case o.waiters.Len() == 0 && o.grants(w.shared):
		o.take(w.shared)
		l.mu.Unlock()
		return o, nil
	}
	wt := &waiter{shared: w.shared, ready: make(chan error, 1)}
	el := o.waiters.PushBack(wt)
	l.mu.Unlock()

	select {
	case err := <-wt.ready:
		if err != nil {
			return nil, err // markStuck dropped our reference
		}
		return o, nil
	case <-ctx.Done():
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	select {
	case err := <-wt.ready: // at the same moment
		if err != nil {
			return nil, err
		}
		l.drop(o, w.shared)
	default:
		o.waiters.Remove(el)
		l.wake(o) // those behind may go now
		l.unref(o)
	}
	return nil, model.Errorf(model.KindUnavailable, "waited for an earlier call on %s that has not ended: %w", w.key, ctx.Err())
}

// order says whether a call with this stamp may act on the object key, which it
// holds: not if a later call was seen. From then on its own stamp is seen.
func (h *held) order(key objectKey, s stamp) error {
	h.l.mu.Lock()
	defer h.l.mu.Unlock()
	for _, o := range h.objs[:h.n] {
		if o.key != key {
			continue
		}
		if s.less(o.seen) {
			return model.Errorf(model.KindStale, "the call (epoch %d, seq %d) on %s is overtaken: (epoch %d, seq %d) was seen",
				s.epoch, s.seq, key, o.seen.epoch, o.seen.seq)
		}
		o.seen = s
		return nil
	}
	panic("dock: order of an object that is not held: " + key.String())
}

// release gives the locks back. A second time does nothing.
func (h *held) release() {
	h.l.mu.Lock()
	defer h.l.mu.Unlock()
	for i := h.n - 1; i >= 0; i-- {
		if h.stuck {
			h.objs[i].stuck--
		}
		h.l.drop(h.objs[i], h.shr[i])
	}
	h.n = 0
}

// markStuck marks the locks as held by a call that is over its time: who waits
// for them, or comes, is told so at once, until release. After release it does
// nothing.
func (h *held) markStuck() {
	h.l.mu.Lock()
	defer h.l.mu.Unlock()
	if h.stuck {
		return
	}
	h.stuck = true
	for _, o := range h.objs[:h.n] {
		o.stuck++
		o.since = time.Now()
		for el := o.waiters.Front(); el != nil; el = o.waiters.Front() {
			o.waiters.Remove(el)
			el.Value.(*waiter).ready <- o.stuckError()
			h.l.unref(o)
		}
	}
}

func (o *object) stuckError() error {
	return model.Errorf(model.KindUnavailable,
		"an earlier call on %s is over its deadline since %s and the backend has not answered; nothing else is done to it until then",
		o.key, o.since.UTC().Format(time.RFC3339))
}

// grants says whether a lock is free for another holder.
func (o *object) grants(shared bool) bool {
	return !o.excl && (shared || o.shared == 0)
}

func (o *object) take(shared bool) {
	if shared {
		o.shared++
	} else {
		o.excl = true
	}
}

// drop ends one holder's turn.
func (l *locks) drop(o *object, shared bool) {
	if shared {
		o.shared--
	} else {
		o.excl = false
	}
	l.wake(o)
	l.unref(o)
}

// wake gives the lock to the waiters in front that may have it.
func (l *locks) wake(o *object) {
	for el := o.waiters.Front(); el != nil; el = o.waiters.Front() {
		w := el.Value.(*waiter)
		if !o.grants(w.shared) {
			return
		}
		o.take(w.shared)
		o.waiters.Remove(el)
		w.ready <- nil
	}
}

// ref gives the object of a key with one more reference. An object that is not
// remembered starts at the floor: a call that is older than all that was
// forgotten could be older than a forgotten one on this very object.
func (l *locks) ref(key objectKey) *object {
	o := l.objs[key]
	if o == nil {
		o = &object{key: key, seen: l.floor}
		l.objs[key] = o
	}
	if o.idleAt != nil {
		l.idle.Remove(o.idleAt)
		o.idleAt = nil
	}
	o.refs++
	return o
}

// unref drops a reference; the last one makes the object idle.
func (l *locks) unref(o *object) {
	if o.refs--; o.refs > 0 {
		return
	}
	if !l.floor.less(o.seen) {
		delete(l.objs, o.key) // it knows nothing that the floor does not
		return
	}
	o.idleAt = l.idle.PushFront(o)
	for l.idle.Len() > l.max {
		old := l.idle.Remove(l.idle.Back()).(*object)
		delete(l.objs, old.key)
		if l.floor.less(old.seen) {
			l.floor = old.seen
		}
	}
}

// size is for tests and metrics.
func (l *locks) size() (objects, idle int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.objs), l.idle.Len()
}

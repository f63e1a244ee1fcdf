package lvm

import (
	"context"
	"sync"

	"github.com/osds-io/osds/pkg/model"
)

// prio is how urgent a command is.
type prio int

// Attaching and detaching go first: somebody's machine waits for them. What only
// tidies up comes last.
const (
	prioAttach prio = iota
	prioNormal
	prioTidy
	prios
)

// fairness is how many turns in a row may go to the more urgent while a less
// urgent one waits.
const fairness = 8

// together is how many creates may be under way on one group. LVM still does one
// after another, but the next is started, and has read its configuration, when the
// one before it ends.
const together = 2

// turns gives callers one turn at a time; creates share one. LVM would let
// commands on one group wait for each other as well, but in no order, and with a
// process each.
type turns struct {
	mu      sync.Mutex
	alone   bool // somebody has the turn alone
	sharing int  // how many share it
	waiting [prios][]*waiter
	passed  int // turns that a waiting, less urgent caller did not get
}

type waiter struct {
	come   chan struct{}
	shares bool
}

// take waits for a turn; the function it gives ends it. The error says that
// nothing has begun.
func (t *turns) take(ctx context.Context, p prio) (func(), error) { return t.wait(ctx, p, false) }

// share is take for callers that do not mind some of their own kind.
func (t *turns) share(ctx context.Context, p prio) (func(), error) { return t.wait(ctx, p, true) }

func (t *turns) wait(ctx context.Context, p prio, shares bool) (func(), error) {
	if err := ctx.Err(); err != nil {
		return nil, notBegun(err)
	}
	w := &waiter{come: make(chan struct{}), shares: shares}
	end := func() { t.end(shares) }
	t.mu.Lock()
	t.waiting[p] = append(t.waiting[p], w)
	t.next()
	t.mu.Unlock()
	select {
	case <-w.come:
		return end, nil
	case <-ctx.Done():
	}
	t.mu.Lock()
	for i, c := range t.waiting[p] {
		if c == w {
			t.waiting[p] = append(t.waiting[p][:i:i], t.waiting[p][i+1:]...)
			t.next() // those behind it may share what it could not
			t.mu.Unlock()
			return nil, notBegun(ctx.Err())
		}
	}
	t.mu.Unlock()
	end() // it came at the same moment
	return nil, notBegun(ctx.Err())
}

func notBegun(err error) error {
	return model.Errorf(model.KindUnknownOutcome, "waiting for other commands on the volume group: %w", err)
}

// end gives a turn back.
func (t *turns) end(shared bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if shared {
		t.sharing--
	} else {
		t.alone = false
	}
	t.next()
}

// next gives turns to those who may have one now. Those who share do not pass one
// who does not. mu is held.
func (t *turns) next() {
	for !t.alone {
		p, passed := t.first()
		if p < 0 {
			t.passed = 0
			return
		}
		w := t.waiting[p][0]
		if t.sharing > 0 && (!w.shares || t.sharing >= together) {
			return
		}
		t.waiting[p], t.passed = t.waiting[p][1:], passed
		if w.shares {
			t.sharing++
		} else {
			t.alone = true
		}
		close(w.come)
	}
}

// first gives whose turn is next, by urgency (below 0: nobody waits), and what
// passed is to be then.
func (t *turns) first() (p, passed int) {
	p = -1
	for q := range t.waiting {
		switch {
		case len(t.waiting[q]) == 0:
		case p < 0:
			p = q
		case t.passed >= fairness:
			return q, 0
		default:
			return p, t.passed + 1
		}
	}
	return p, 0
}

// batch collects requests for the same kind of command, so that one command
// serves all that wait for a turn.
type batch struct {
	mu      sync.Mutex
	waiting []*item
}

// item is one logical volume's part of a command.
type item struct {
	name string
	done bool
	err  error
}

// maxBatch bounds the logical volumes of one command.
const maxBatch = 64

func (b *batch) add(name string) *item {
	it := &item{name: name}
	b.mu.Lock()
	b.waiting = append(b.waiting, it)
	b.mu.Unlock()
	return it
}

// next gives what is to be done now, with it among them; nothing if it was done
// in another's turn. The caller has the turn.
func (b *batch) next(it *item) []*item {
	b.mu.Lock()
	defer b.mu.Unlock()
	if it.done {
		return nil
	}
	out := []*item{it}
	rest := b.waiting[:0:0]
	for _, x := range b.waiting {
		switch {
		case x == it:
		case len(out) < maxBatch:
			out = append(out, x)
		default:
			rest = append(rest, x)
		}
	}
	b.waiting = rest
	return out
}

// drop takes back a request that is not wanted any more, unless it was taken up.
func (b *batch) drop(it *item) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for i, x := range b.waiting {
		if x == it {
			b.waiting = append(b.waiting[:i:i], b.waiting[i+1:]...)
			return
		}
	}
}

// finish notes what came of requests.
func (b *batch) finish(items []*item, verdict func(*item) error) {
	for _, it := range items {
		err := verdict(it)
		b.mu.Lock()
		it.done, it.err = true, err
		b.mu.Unlock()
	}
}

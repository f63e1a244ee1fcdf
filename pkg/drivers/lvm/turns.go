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

// turns gives callers one turn at a time. LVM would let commands on one group
// wait for each other as well, but in no order, and with a process each.
type turns struct {
	mu      sync.Mutex
	busy    bool
	waiting [prios][]chan struct{}
	passed  int // turns that a waiting, less urgent caller did not get
}

// take waits for a turn; the function it gives ends it. The error says that
// nothing has begun.
func (t *turns) take(ctx context.Context, p prio) (func(), error) {
	if err := ctx.Err(); err != nil {
		return nil, notBegun(err)
	}
	t.mu.Lock()
	if !t.busy {
		t.busy = true
		t.mu.Unlock()
		return t.end, nil
	}
	ch := make(chan struct{})
	t.waiting[p] = append(t.waiting[p], ch)
	t.mu.Unlock()
	select {
	case <-ch:
		return t.end, nil
	case <-ctx.Done():
	}
	t.mu.Lock()
	for i, c := range t.waiting[p] {
		if c == ch {
			t.waiting[p] = append(t.waiting[p][:i:i], t.waiting[p][i+1:]...)
			t.mu.Unlock()
			return nil, notBegun(ctx.Err())
		}
	}
	t.mu.Unlock()
	t.end() // it came at the same moment
	return nil, notBegun(ctx.Err())
}

func notBegun(err error) error {
	return model.Errorf(model.KindUnknownOutcome, "waiting for other commands on the volume group: %w", err)
}

// end passes the turn on.
func (t *turns) end() {
	t.mu.Lock()
	defer t.mu.Unlock()
	from := -1
	below := false // somebody less urgent than from waits
	for p := range t.waiting {
		if len(t.waiting[p]) == 0 {
			continue
		}
		if from < 0 {
			from = p
		} else {
			below = true
		}
	}
	if from < 0 {
		t.busy, t.passed = false, 0
		return
	}
	if below {
		if t.passed++; t.passed > fairness {
			t.passed = 0
			for p := from + 1; p < int(prios); p++ {
				if len(t.waiting[p]) > 0 {
					from = p
					break
				}
			}
		}
	} else {
		t.passed = 0
	}
	ch := t.waiting[from][0]
	t.waiting[from] = t.waiting[from][1:]
	close(ch)
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

//go:build ceph

package ceph

import (
	"context"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/osds-io/osds/internal/keylock"
	"github.com/osds-io/osds/pkg/drivers"
	"github.com/osds-io/osds/pkg/model"
)

// Bounds of what a cluster that does not answer can take with it.
const (
	// maxCalls is how many calls may be under way, in time or not.
	maxCalls = 96
	// maxLate is how many of them may be past their deadline before new ones
	// are refused at once.
	maxLate = 32
)

// calls counts the calls that are under way. librados has no deadlines: a call
// runs in a goroutine of its own, and its caller is answered when its time is
// over, whatever becomes of it. It keeps its locks until it has ended, so that
// the same call again never runs beside it.
type calls struct {
	slots chan struct{}
	late  atomic.Int64
	wg    sync.WaitGroup
}

func newCalls() *calls { return &calls{slots: make(chan struct{}, maxCalls)} }

// begin takes a slot.
func (c *calls) begin(ctx context.Context) error {
	if n := c.late.Load(); n >= maxLate {
		return model.Errorf(model.KindUnavailable, "the cluster does not answer: %d calls are past their time", n)
	}
	select {
	case c.slots <- struct{}{}:
	case <-ctx.Done():
		return model.Errorf(model.KindUnavailable, "the cluster had no room for the call in its time: %w", ctx.Err())
	}
	c.wg.Add(1)
	return nil
}

func (c *calls) end() {
	<-c.slots
	c.wg.Done()
}

// wait waits for the calls to end, but not for ever.
func (c *calls) wait(limit time.Duration) error {
	idle := make(chan struct{})
	go func() { c.wg.Wait(); close(idle) }()
	t := time.NewTimer(limit)
	defer t.Stop()
	select {
	case <-idle:
		return nil
	case <-t.C:
		return model.Errorf(model.KindUnavailable, "%d calls to the cluster do not end", len(c.slots))
	}
}

// The states of one call.
const (
	running = iota
	late
	done
)

type outcome[T any] struct {
	v   T
	err error
}

// do makes one call: it waits for the locks, connects if need be, and runs fn.
// When ctx ends, the caller is told that the outcome is unknown; fn, which has
// the same ctx, ends at its next step.
func do[T any](ctx context.Context, d *Driver, what string, wants []keylock.Want, fn func(context.Context, *link) (T, error)) (T, error) {
	var none T
	if err := drivers.Begin(ctx); err != nil {
		return none, err
	}
	if err := d.calls.begin(ctx); err != nil {
		return none, err
	}
	var state atomic.Int32
	ch := make(chan outcome[T], 1)
	go func() {
		defer d.calls.end()
		var o outcome[T]
		func() {
			defer func() {
				if p := recover(); p != nil {
					o.err = model.Errorf(model.KindInternal, "the driver panicked: %v\n%s", p, debug.Stack())
				}
			}()
			o.v, o.err = locked(ctx, d, wants, fn)
		}()
		if !state.CompareAndSwap(running, done) {
			d.calls.late.Add(-1)
		}
		ch <- o
	}()
	select {
	case o := <-ch:
		return o.v, fail(what, o.err)
	case <-ctx.Done():
	}
	d.calls.late.Add(1)
	if !state.CompareAndSwap(running, late) {
		d.calls.late.Add(-1)
		o := <-ch // it had ended just then
		return o.v, fail(what, o.err)
	}
	return none, model.Errorf(model.KindUnknownOutcome, "%s: the cluster has not done it in time: %w", what, ctx.Err())
}

// locked runs fn with its locks and a connection. If the connection turns out to
// be cut off, fn runs once more with a new one: all it does may be done again.
func locked[T any](ctx context.Context, d *Driver, wants []keylock.Want, fn func(context.Context, *link) (T, error)) (T, error) {
	var none T
	if len(wants) > 0 {
		d.interrupt(wants)
		unlock, err := d.locks.LockAll(ctx, wants...)
		if err != nil {
			return none, err
		}
		defer unlock()
	}
	for try := 0; ; try++ {
		l, err := d.links.get(ctx)
		if err != nil {
			return none, err
		}
		v, err := fn(ctx, l)
		d.links.put(l, cutOff(err))
		if !cutOff(err) || try > 0 || ctx.Err() != nil {
			return v, err
		}
	}
}

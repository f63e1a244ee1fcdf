package dock

import (
	"context"
	"runtime/debug"
	"sync"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/osds-io/osds/internal/faults"
	"github.com/osds-io/osds/internal/obs"
	"github.com/osds-io/osds/pkg/dock/dockpb"
	"github.com/osds-io/osds/pkg/drivers"
	"github.com/osds-io/osds/pkg/model"
)

// stuckGrace is how long a driver may take to end after its caller went away,
// before its object counts as stuck.
const stuckGrace = time.Second

// call is one call on its way to a driver.
type call struct {
	op      op
	by      *dockpb.Call
	backend string
	// target is the object that the call is about: its order is kept there.
	target objectKey
	wants  []want
}

// mutates says whether the op changes something; those that do must be fenced.
func (o op) mutates() bool {
	switch o {
	case opGetVolume, opListVolumes, opGetSnapshot, opListSnapshots, opListExports, opListDevices, opListImportable:
		return false
	}
	return true
}

// urgent says whether the op may use the slots that are kept free: creates must
// not hold up attaching, nor attaching hold up the end of what is attached.
func (o op) urgent() bool {
	switch o {
	case opExport, opUnexport, opDetach:
		return true
	}
	return false
}

// run takes one call to the driver of its backend.
func run[T any](ctx context.Context, d *Dock, c call, fn func(context.Context, drivers.Driver) (T, error)) (T, error) {
	return through(ctx, d, c, func() (*service[drivers.Driver], error) {
		if b := d.backends[c.backend]; b != nil {
			return &b.service, nil
		}
		// Not "notFound": that would say that the volume is gone.
		return nil, model.Errorf(model.KindUnavailable, "this dock has no backend %q in its configuration", c.backend)
	}, fn)
}

// runHere takes one call to this host's connector.
func runHere[T any](ctx context.Context, d *Dock, c call, fn func(context.Context, Attacher) (T, error)) (T, error) {
	return through(ctx, d, c, func() (*service[Attacher], error) {
		if d.connector == nil {
			return nil, model.Errorf(model.KindUnavailable, "this dock has no connector: set connector.enabled in its configuration, or type attacher")
		}
		return &d.connector.service, nil
	}, fn)
}

// through takes one call through the fence, the locks and the slots to what
// serves it. It answers by the deadline of ctx at the latest; what it holds is
// given back when fn has ended.
func through[S closer, T any](ctx context.Context, d *Dock, c call, find func() (*service[S], error), fn func(context.Context, S) (T, error)) (out T, err error) {
	began := time.Now()
	if d.inFlight.Add(1) > int64(d.cfg.Limits.MaxCalls) {
		d.inFlight.Add(-1)
		err = model.Errorf(model.KindUnavailable, "the dock has %d calls in progress already", d.cfg.Limits.MaxCalls)
	} else {
		d.metrics.flight.Inc()
		out, err = pass(ctx, d, c, find, fn)
		d.metrics.flight.Dec()
		d.inFlight.Add(-1)
	}
	d.metrics.done(c.op, err, began)
	d.logCall(ctx, c, err, time.Since(began))
	if err != nil {
		return out, dockpb.ToStatus(err)
	}
	return out, nil
}

func pass[S closer, T any](ctx context.Context, d *Dock, c call, find func() (*service[S], error), fn func(context.Context, S) (T, error)) (out T, err error) {
	if err := d.checkCaller(c); err != nil {
		return out, err
	}
	sv, err := find()
	if err != nil {
		return out, err
	}
	impl, done, err := sv.use()
	if err != nil {
		return out, err
	}
	// Until the driver's goroutine takes over, it is ours to give back.
	p := &permit{dock: d, done: done}
	defer func() {
		if !p.begun {
			p.giveBack()
		}
	}()

	dl, ok := ctx.Deadline()
	if !ok {
		dl = time.Now().Add(d.cfg.Limits.DefaultDeadline)
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, dl)
		defer cancel()
	}
	// The driver and all waiting get a little less, so that the answer still
	// arrives: "did not begin" is worth much more to the caller than silence.
	dctx, cancel := context.WithDeadline(ctx, dl.Add(-margin(time.Until(dl))))
	p.cancel = cancel
	dctx = obs.WithFields(dctx, obs.Fields{RequestID: c.by.GetRequestId(), TaskID: c.by.GetTaskId(), Epoch: c.by.GetEpoch()})

	if len(c.wants) > 0 {
		if p.locks, err = d.locks.acquire(dctx, c.wants...); err != nil {
			return out, err
		}
	}
	if p.slot, err = sv.slots.take(dctx, c.op.urgent()); err != nil {
		return out, err
	}
	// The time in the queue is over: is the call still wanted, and still in
	// order?
	if err := dctx.Err(); err != nil {
		return out, model.Errorf(model.KindUnavailable, "the call did not begin in its time: %w", err)
	}
	if c.by.GetEpoch() > 0 {
		if err := d.fence.check(c.by.GetEpoch()); err != nil {
			return out, err
		}
		if p.locks != nil {
			if err := p.locks.order(c.target, stamp{c.by.GetEpoch(), c.by.GetSeq()}); err != nil {
				return out, err
			}
		}
	}
	return begin(ctx, dctx, p, c.op, impl, fn)
}

// margin is the part of the time left that is kept for the way back.
func margin(left time.Duration) time.Duration {
	return max(0, min(left/10, 250*time.Millisecond))
}

type result[T any] struct {
	out T
	err error
}

// begin runs fn and answers when it ends, or when ctx does.
func begin[S, T any](ctx, dctx context.Context, p *permit, o op, impl S, fn func(context.Context, S) (T, error)) (out T, err error) {
	ch := make(chan result[T], 1)
	p.begun = true
	go func() {
		var r result[T]
		defer func() {
			if pv := recover(); pv != nil {
				// What was done is not known.
				r.err = model.Errorf(model.KindUnknownOutcome, "the driver panicked: %v", pv)
				p.dock.log.WithContext(dctx).WithField("op", o).Errorf("the driver panicked: %v\n%s", pv, debug.Stack())
			}
			p.giveBack()
			ch <- r
		}()
		faults.Point(opInfo[o].before)
		r.out, r.err = fn(dctx, impl)
		faults.Point(opInfo[o].after)
	}()
	select {
	case r := <-ch:
		return r.out, r.err
	case <-ctx.Done():
	}
	select {
	case r := <-ch: // at the same moment
		return r.out, r.err
	default:
	}
	p.overdue()
	return out, model.Errorf(model.KindUnknownOutcome, "the driver has not ended in the call's time: %w", ctx.Err())
}

// permit is what a call holds while its driver works: its locks, its slot, and
// the right to use the driver.
type permit struct {
	dock   *Dock
	done   func()
	cancel context.CancelFunc
	locks  *held
	slot   chan struct{}
	begun  bool // the driver's goroutine gives it back

	mu    sync.Mutex
	ended bool
	over  bool
}

// overdue marks the objects as stuck if the driver does not end soon.
func (p *permit) overdue() {
	time.AfterFunc(stuckGrace, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.ended {
			return
		}
		p.over = true
		p.dock.metrics.stuck.Inc()
		if p.locks != nil {
			p.locks.markStuck()
		}
	})
}

func (p *permit) giveBack() {
	p.mu.Lock()
	p.ended = true
	if p.over {
		p.dock.metrics.stuck.Dec()
	}
	p.mu.Unlock()
	if p.cancel != nil {
		p.cancel()
	}
	if p.slot != nil {
		<-p.slot
	}
	if p.locks != nil {
		p.locks.release()
	}
	p.done()
}

// checkCaller checks who calls: the leader of our cluster, with an epoch that
// is not over.
func (d *Dock) checkCaller(c call) error {
	by := c.by
	if own, theirs := d.state.clusterID(), by.GetClusterId(); own != "" && theirs != "" && own != theirs {
		return model.Errorf(model.KindDenied, "this dock belongs to the cluster %s, not to %s", own, theirs)
	}
	if by.GetEpoch() <= 0 {
		if c.op.mutates() {
			return model.Invalid("call.epoch", "%s must carry the leader's epoch", c.op)
		}
		return nil
	}
	if by.GetSeq() <= 0 && len(c.wants) > 0 {
		return model.Invalid("call.seq", "%s must carry a number that grows with every call", c.op)
	}
	return d.fence.admit(by.GetEpoch())
}

// logCall logs a call: as a warning what an operator may want to know of, all else
// for who looks closely. The caller gets the error too, so that what it asked for
// wrongly is not worth more.
func (d *Dock) logCall(ctx context.Context, c call, err error, took time.Duration) {
	level := logrus.DebugLevel
	if err != nil && model.ProgressOf(err) == nil {
		switch model.KindOf(err) {
		case model.KindUnknownOutcome, model.KindInternal, model.KindStale, model.KindDenied:
			level = logrus.WarnLevel
		}
	}
	if !d.log.Logger.IsLevelEnabled(level) {
		return
	}
	ctx = obs.WithFields(ctx, obs.Fields{RequestID: c.by.GetRequestId(), TaskID: c.by.GetTaskId(), Epoch: c.by.GetEpoch()})
	e := d.log.WithContext(ctx).WithFields(logrus.Fields{
		"op": c.op.String(), "backend": c.backend, "object": c.target.String(), "duration": took,
	})
	if err != nil {
		e.WithError(err).Log(level, "call failed")
	} else {
		e.Log(level, "call")
	}
}

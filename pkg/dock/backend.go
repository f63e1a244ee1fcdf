package dock

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/sirupsen/logrus"
	"google.golang.org/protobuf/proto"

	"github.com/osds-io/osds/pkg/dock/dockpb"
	"github.com/osds-io/osds/pkg/drivers"
	"github.com/osds-io/osds/pkg/model"
)

// maxPools bounds the pools of one backend.
const maxPools = 1024

// Times of the backends' care. They are variables of one dock so that tests
// need not wait.
type careTimes struct {
	openLimit  time.Duration // how long opening may take
	firstLook  time.Duration // how long the dock's first word waits for it
	retryMin   time.Duration // the first pause after a failure
	retryMax   time.Duration // the longest
	poolsEvery time.Duration // how often pools are read
	poolsLimit time.Duration // how long that may take
}

func defaultCare() careTimes {
	return careTimes{
		openLimit: time.Minute, firstLook: 4 * time.Second, retryMin: time.Second, retryMax: time.Minute,
		poolsEvery: 3 * time.Second, poolsLimit: 30 * time.Second,
	}
}

// backend is one configured backend: opened by its driver's factory, tried again
// with growing pauses while it cannot be, its pools read every few seconds.
type backend struct {
	cfg     BackendConfig
	factory drivers.Factory
	dconf   func() (drivers.Config, error)
	dockID  string
	log     *logrus.Entry
	slots   slots
	care    careTimes

	mu     sync.RWMutex
	drv    drivers.Driver // nil: out of service
	reason string         // why it is
	pools  []*dockpb.Pool
	read   time.Time // when pools were read last
	closed bool
	// tried is closed when it was opened and its pools were read, or could not
	// be, for the first time.
	tried     chan struct{}
	triedOnce sync.Once
	// wg counts the goroutine that cares for it and driver calls going on.
	wg sync.WaitGroup
}

// run opens the backend and keeps its pools fresh until ctx ends.
func (b *backend) run(ctx context.Context) {
	for attempt := 0; ; attempt++ {
		drv, err := b.open(ctx)
		if err == nil {
			b.mu.Lock()
			b.drv, b.reason = drv, ""
			b.mu.Unlock()
			b.log.Info("backend in service")
			break
		}
		if ctx.Err() != nil {
			return
		}
		b.setReason(err.Error())
		b.wasTried()
		wait := backoff(attempt, b.care.retryMin, b.care.retryMax)
		b.log.WithError(err).WithField("again", wait).Warn("backend out of service")
		if !pause(ctx, wait) {
			return
		}
	}
	for {
		b.readPools(ctx)
		b.wasTried()
		if !pause(ctx, b.care.poolsEvery) {
			return
		}
	}
}

func (b *backend) wasTried() { b.triedOnce.Do(func() { close(b.tried) }) }

type opened struct {
	drv drivers.Driver
	err error
}

// open calls the factory. Of one that ignores its deadline the end is waited for,
// because a second attempt beside it could have two drivers on one backend.
func (b *backend) open(parent context.Context) (drivers.Driver, error) {
	c, err := b.dconf()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(parent, b.care.openLimit)
	defer cancel()
	ch := make(chan opened, 1)
	b.wg.Add(1)
	go func() {
		defer b.wg.Done()
		var r opened
		defer func() {
			if p := recover(); p != nil {
				r.err = model.Errorf(model.KindInternal, "the driver panicked: %v", p)
			}
			ch <- r
		}()
		r.drv, r.err = b.factory(ctx, c)
	}()
	select {
	case r := <-ch:
		if r.err == nil && r.drv == nil {
			r.err = errors.New("the driver opened nothing")
		}
		return r.drv, r.err
	case <-ctx.Done():
	}
	if parent.Err() == nil {
		b.setReason(fmt.Sprintf("opening does not end, for more than %v", b.care.openLimit))
		b.log.Warn("opening the backend does not end")
		select {
		case r := <-ch:
			return nil, r.discard()
		case <-parent.Done():
		}
	}
	b.wg.Add(1)
	go func() { defer b.wg.Done(); _ = (<-ch).discard() }()
	return nil, parent.Err()
}

// discard closes what was opened too late.
func (r opened) discard() error {
	if r.err == nil && r.drv != nil {
		_ = r.drv.Close()
		return errors.New("opening took too long")
	}
	return r.err
}

func (b *backend) setReason(s string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.reason = s
}

// driver gives the driver for one call; done is called when the call has ended.
// A backend out of service is unavailable, which is never taken for absence.
func (b *backend) driver() (drv drivers.Driver, done func(), err error) {
	b.mu.RLock()
	defer b.mu.RUnlock()
	switch {
	case b.closed:
		return nil, nil, model.Errorf(model.KindUnavailable, "the dock is stopping")
	case b.drv == nil:
		return nil, nil, model.Errorf(model.KindUnavailable, "the backend %s is out of service: %s", b.cfg.Name, b.reasonOr("not open yet"))
	}
	b.wg.Add(1)
	return b.drv, b.wg.Done, nil
}

func (b *backend) reasonOr(s string) string {
	if b.reason != "" {
		return b.reason
	}
	return s
}

// state says whether the backend is in service, and if not, why.
func (b *backend) state() (inService bool, reason string) {
	b.mu.RLock()
	defer b.mu.RUnlock()
	if b.drv == nil {
		return false, b.reasonOr("not open yet")
	}
	return true, b.reason
}

// readPools asks the driver for its pools. On an error the last known ones stay,
// marked unusable: nobody may take them for gone.
func (b *backend) readPools(parent context.Context) {
	drv, done, err := b.driver()
	if err != nil {
		return
	}
	ctx, cancel := context.WithTimeout(parent, b.care.poolsLimit)
	defer cancel()
	type result struct {
		pools []drivers.Pool
		err   error
	}
	ch := make(chan result, 1)
	go func() {
		defer done()
		var r result
		defer func() {
			if p := recover(); p != nil {
				r.err = model.Errorf(model.KindInternal, "the driver panicked: %v", p)
			}
			ch <- r
		}()
		r.pools, r.err = drv.Pools(ctx)
	}()
	var r result
	select {
	case r = <-ch:
	case <-ctx.Done():
		b.poolsFailed(fmt.Errorf("reading them does not end: %w", ctx.Err()))
		select {
		case r = <-ch: // never two at once
		case <-parent.Done():
			return
		}
	}
	if len(r.pools) > maxPools {
		r.err = fmt.Errorf("there are %d pools, at most %d are taken", len(r.pools), maxPools)
	}
	if r.err != nil {
		b.poolsFailed(r.err)
		return
	}
	out := make([]*dockpb.Pool, 0, len(r.pools))
	for _, p := range r.pools {
		m, err := dockpb.FromPool(b.cfg.Name, b.cfg.Driver, b.poolID(p), abilities(drv, p), p)
		if err != nil {
			b.poolsFailed(err)
			return
		}
		out = append(out, m)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.reason != "" {
		b.log.Info("the pools can be read again")
	}
	b.pools, b.read, b.reason = out, time.Now(), ""
}

func (b *backend) poolsFailed(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	msg := "the pools cannot be read: " + err.Error()
	if b.reason != msg {
		b.log.WithError(err).Warn("the pools cannot be read")
	}
	b.reason = msg
	marked := make([]*dockpb.Pool, len(b.pools))
	for i, p := range b.pools {
		marked[i] = proto.Clone(p).(*dockpb.Pool)
		marked[i].Unusable = msg
	}
	b.pools = marked
}

// snapshot is the pools as they were read last. The messages are shared and
// never changed.
func (b *backend) snapshot() []*dockpb.Pool {
	b.mu.RLock()
	defer b.mu.RUnlock()
	return b.pools
}

// poolID is the backend's own id of the pool, or one derived from the dock's.
func (b *backend) poolID(p drivers.Pool) string {
	if model.ValidID(p.ID) {
		return p.ID
	}
	ns, err := uuid.Parse(b.dockID)
	if err != nil {
		ns = uuid.NameSpaceOID
	}
	return uuid.NewSHA1(ns, []byte(b.cfg.Name+"/"+p.Name)).String()
}

// close ends the driver when no call is going on any more, or leaves it alone
// if ctx ends before that: a call may not see its driver closed.
func (b *backend) close(ctx context.Context) error {
	b.mu.Lock()
	drv := b.drv
	b.closed = true
	b.mu.Unlock()
	idle := make(chan struct{})
	go func() { b.wg.Wait(); close(idle) }()
	select {
	case <-idle:
	case <-ctx.Done():
		return fmt.Errorf("the backend %s still has calls that do not end", b.cfg.Name)
	}
	if drv == nil {
		return nil
	}
	return drv.Close()
}

// abilities are what a pool can do: what its driver implements, less what the
// driver says this pool lacks.
func abilities(drv drivers.Driver, p drivers.Pool) []string {
	var out []string
	add := func(a string) {
		for _, l := range p.Lacks {
			if l == a {
				return
			}
		}
		out = append(out, a)
	}
	if e, ok := drv.(drivers.Expander); ok {
		add(model.AbilityExpand)
		if e.ExpandsOnline() {
			add(model.AbilityExpandLive)
		}
	}
	if _, ok := drv.(drivers.Snapshotter); ok {
		add(model.AbilitySnapshot)
	}
	if _, ok := drv.(drivers.Cloner); ok {
		add(model.AbilityClone)
	}
	if _, ok := drv.(drivers.Reverter); ok {
		add(model.AbilityRevert)
	}
	if _, ok := drv.(drivers.Exporter); ok {
		add(model.AbilityExport)
	}
	if p.Extras.DataStorage.ProvisioningPolicy == "Thin" {
		add(model.AbilityThin)
	}
	return out
}

// slots bound the calls that a driver has at once: some for all, and a few that
// only exports use.
type slots struct {
	general, export chan struct{}
}

func newSlots(general, export int) slots {
	return slots{general: make(chan struct{}, general), export: make(chan struct{}, export)}
}

// take waits for a slot until ctx ends; free gives it back.
func (s slots) take(ctx context.Context, export bool) (free chan struct{}, err error) {
	reserve := s.export
	if !export {
		reserve = nil // a nil channel is never ready
	}
	select {
	case s.general <- struct{}{}:
		return s.general, nil
	default:
	}
	select {
	case s.general <- struct{}{}:
		return s.general, nil
	case reserve <- struct{}{}:
		return s.export, nil
	case <-ctx.Done():
		return nil, model.Errorf(model.KindUnavailable, "the backend had no room for the call in its time: %w", ctx.Err())
	}
}

// backoff is the pause after the attempt-th failure: doubling, with jitter of
// half of it.
func backoff(attempt int, least, most time.Duration) time.Duration {
	d := least << min(attempt, 20)
	if d > most || d <= 0 {
		d = most
	}
	return d/2 + rand.N(d/2+1)
}

// pause waits; false if ctx ended.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

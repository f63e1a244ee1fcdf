package dock

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/osds-io/osds/pkg/model"
)

// Times of the care for backends and the connector. They are variables of one dock so that tests
// need not wait.
type careTimes struct {
	openLimit  time.Duration // how long opening may take
	firstLook  time.Duration // how long the dock's first word waits for it
	retryMin   time.Duration // the first pause after a failure
	retryMax   time.Duration // the longest
	poolsEvery time.Duration // how often pools are read
	poolsLimit time.Duration // how long that may take
	namesEvery time.Duration // how often the host's initiators are looked up
}

func defaultCare() careTimes {
	return careTimes{
		openLimit: time.Minute, firstLook: 4 * time.Second, retryMin: time.Second, retryMax: time.Minute,
		poolsEvery: 3 * time.Second, poolsLimit: 30 * time.Second,
		namesEvery: namesEvery,
	}
}

// closer is what calls go to: a backend's driver, or the connector.
type closer interface{ Close() error }

// service is something that calls go to, with the care it needs: it is opened,
// tried again with growing pauses while it cannot be, bounded in how many calls
// it has at a time, and closed when none is going on any more.
type service[S closer] struct {
	// what names it in messages: "the backend x".
	what  string
	maker func(ctx context.Context) (S, error)
	log   *logrus.Entry
	slots slots
	care  careTimes

	mu     sync.RWMutex
	impl   S
	up     bool
	reason string // why it is not up, or what is wrong with it
	closed bool
	// tried is closed when it was opened, or could not be, for the first time.
	tried     chan struct{}
	triedOnce sync.Once
	// wg counts the openings and the calls going on.
	wg sync.WaitGroup
}

// keepOpening opens the service, however often that takes; false if ctx ended
// first.
func (s *service[S]) keepOpening(ctx context.Context) bool {
	for attempt := 0; ; attempt++ {
		impl, err := s.open(ctx)
		if err == nil {
			s.mu.Lock()
			s.impl, s.up, s.reason = impl, true, ""
			s.mu.Unlock()
			s.log.Info(s.what + " is in service")
			return true
		}
		if ctx.Err() != nil {
			return false
		}
		s.setReason(err.Error())
		s.wasTried()
		wait := backoff(attempt, s.care.retryMin, s.care.retryMax)
		s.log.WithError(err).WithField("again", wait).Warn(s.what + " is out of service")
		if !pause(ctx, wait) {
			return false
		}
	}
}

func (s *service[S]) wasTried() { s.triedOnce.Do(func() { close(s.tried) }) }

type opened[S closer] struct {
	impl S
	err  error
}

// open makes the implementation. Of a maker that ignores its deadline the end is
// waited for, because a second attempt beside it could have two drivers on one
// backend.
func (s *service[S]) open(parent context.Context) (none S, err error) {
	ctx, cancel := context.WithTimeout(parent, s.care.openLimit)
	defer cancel()
	ch := make(chan opened[S], 1)
	s.wg.Add(1)
	go func() {
		defer s.wg.Done()
		var r opened[S]
		defer func() {
			if p := recover(); p != nil {
				r.err = model.Errorf(model.KindInternal, "%s panicked: %v", s.what, p)
			}
			ch <- r
		}()
		r.impl, r.err = s.maker(ctx)
	}()
	select {
	case r := <-ch:
		if r.err == nil && any(r.impl) == nil {
			r.err = errors.New("the driver opened nothing")
		}
		return r.impl, r.err
	case <-ctx.Done():
	}
	if parent.Err() == nil {
		s.setReason(fmt.Sprintf("opening does not end, for more than %v", s.care.openLimit))
		s.log.Warn("opening " + s.what + " does not end")
		select {
		case r := <-ch:
			return none, r.discard()
		case <-parent.Done():
		}
	}
	s.wg.Add(1)
	go func() { defer s.wg.Done(); _ = (<-ch).discard() }()
	return none, parent.Err()
}

// discard closes what was opened too late.
func (r opened[S]) discard() error {
	if r.err == nil && any(r.impl) != nil {
		_ = r.impl.Close()
		return errors.New("opening took too long")
	}
	return r.err
}

func (s *service[S]) setReason(r string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reason = r
}

// use gives the implementation for one call; done is called when the call has
// ended. A service that is not up is unavailable, which is never taken for
// absence.
func (s *service[S]) use() (impl S, done func(), err error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	switch {
	case s.closed:
		return impl, nil, model.Errorf(model.KindUnavailable, "the dock is stopping")
	case !s.up:
		return impl, nil, model.Errorf(model.KindUnavailable, "%s is out of service: %s", s.what, s.reasonOr("not open yet"))
	}
	s.wg.Add(1)
	return s.impl, s.wg.Done, nil
}

func (s *service[S]) reasonOr(or string) string {
	if s.reason != "" {
		return s.reason
	}
	return or
}

// state says whether the service is up, and if not, or not well, why.
func (s *service[S]) state() (inService bool, reason string) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if !s.up {
		return false, s.reasonOr("not open yet")
	}
	return true, s.reason
}

// close ends the implementation when no call is going on any more, or leaves it
// alone if ctx ends before that: a call may not see its driver closed.
func (s *service[S]) close(ctx context.Context) error {
	s.mu.Lock()
	impl, up := s.impl, s.up
	s.closed = true
	s.mu.Unlock()
	idle := make(chan struct{})
	go func() { s.wg.Wait(); close(idle) }()
	select {
	case <-idle:
	case <-ctx.Done():
		return fmt.Errorf("%s still has calls that do not end", s.what)
	}
	if !up {
		return nil
	}
	return impl.Close()
}

// slots bound the calls that a driver has at once: some for all, and a few that
// only exports and what ends them use.
type slots struct {
	general, reserved chan struct{}
}

func newSlots(general, reserved int) slots {
	return slots{general: make(chan struct{}, general), reserved: make(chan struct{}, reserved)}
}

// take waits for a slot until ctx ends; free gives it back.
func (s slots) take(ctx context.Context, urgent bool) (free chan struct{}, err error) {
	reserve := s.reserved
	if !urgent {
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
		return s.reserved, nil
	case <-ctx.Done():
		return nil, model.Errorf(model.KindUnavailable, "there was no room for the call in its time: %w", ctx.Err())
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

package connector

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/osds-io/osds/pkg/model"
)

// dialer makes connections to portals. One that is being made cannot be called
// off, in the kernel as little as in iscsid: it lives on after the call that
// began it, and whoever comes next waits for it instead of beginning another, or
// taking for gone what is still to come.
type dialer struct {
	// block runs what may last longer than its caller waits.
	block func(ctx context.Context, what string, f func() error) error

	mu   sync.Mutex
	busy map[portal]chan struct{}
}

// pathGrace is how long a connection may take after another portal's has
// succeeded: an attach does not wait for a dead portal.
const pathGrace = 2 * time.Second

// dial connects to one portal by f, unless it is there after all.
func (d *dialer) dial(ctx context.Context, p portal, there func() bool, f func() error) error {
	done := make(chan struct{})
	for {
		d.mu.Lock()
		other := d.busy[p]
		if other == nil {
			if d.busy == nil {
				d.busy = map[portal]chan struct{}{}
			}
			d.busy[p] = done
			d.mu.Unlock()
			break
		}
		d.mu.Unlock()
		select {
		case <-other:
			if there() {
				return nil
			}
		case <-ctx.Done():
			return model.Errorf(model.KindUnknownOutcome, "connection to %s is being made: %w", p, ctx.Err())
		}
	}
	end := func() {
		d.mu.Lock()
		delete(d.busy, p)
		d.mu.Unlock()
		close(done)
	}
	err := d.block(ctx, "connection to "+p.String(), func() error {
		defer end()
		return f()
	})
	if errors.Is(err, errClosed) {
		end() // it was not run
	}
	return err
}

// all connects to several portals at once, and gives the errors of those that
// failed or are not there in time. alive says that another path works already.
func (d *dialer) all(ctx context.Context, ps []portal, alive bool, dial func(ctx context.Context, p portal) error) []error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	results := make(chan error, len(ps))
	for _, p := range ps {
		go func() { results <- dial(ctx, p) }()
	}
	var errs []error
	var grace <-chan time.Time
	if alive {
		grace = time.After(pathGrace)
	}
	for left := len(ps); left > 0; {
		select {
		case err := <-results:
			left--
			if err != nil {
				errs = append(errs, err)
			} else if grace == nil {
				grace = time.After(pathGrace)
			}
		case <-grace:
			cancel()
			grace = nil
		}
	}
	return errs
}

// settle waits until no connection to a target is being made.
func (d *dialer) settle(ctx context.Context, t *target) error {
	for _, p := range t.Portals {
		d.mu.Lock()
		other := d.busy[p]
		d.mu.Unlock()
		if other == nil {
			continue
		}
		select {
		case <-other:
		case <-ctx.Done():
			return model.Errorf(model.KindUnknownOutcome, "a connection to %s is still being made: %w", p, ctx.Err())
		}
	}
	return nil
}

package lvm

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/osds-io/osds/internal/faults"
	"github.com/osds-io/osds/pkg/drivers"
	"github.com/osds-io/osds/pkg/model"
)

// viewAge is how old a view may be that a change is based on. Between reports a
// view is kept up to date with what the driver itself has done; what others did
// behind its back is seen at the latest after this time, and LVM itself refuses
// what does not fit any more. Where a report takes long it may be older, so that
// reports are not most of what is done.
const (
	viewAge    = 10 * time.Second
	viewAgeMax = 30 * time.Second
	viewRest   = 40 // how many times as long as a report took its view may be used
)

// maxAge is viewAge for a report that took so long.
func maxAge(took time.Duration) time.Duration {
	return min(max(viewAge, viewRest*took), viewAgeMax)
}

// vgroup is a volume group that pools are in.
type vgroup struct {
	name  string
	turns turns
	// removals are collected, see batch.
	removals batch

	mu   sync.Mutex
	view *group // what is there, by the last report and our changes since; nil if not known
	at   time.Time
	took time.Duration // by that report
	// changes counts the beginnings and ends of commands that change the group:
	// a report that one of them overlaps may be out of date.
	changes, running int
}

// reports gives reports to callers. All that ask while one is being made get the
// next, together.
type reports struct {
	mu      sync.Mutex
	current *flight
	next    *flight
}

type flight struct {
	done   chan struct{}
	groups map[string]*group
	err    error
}

// fresh gives a report that was begun after the call. What it holds is shared and
// never changed.
func (d *Driver) fresh(ctx context.Context) (map[string]*group, error) {
	if err := ctx.Err(); err != nil {
		return nil, model.Errorf(model.KindUnknownOutcome, "reading the state of LVM: %w", err)
	}
	r := &d.reports
	r.mu.Lock()
	f := r.next
	if f == nil {
		f = &flight{done: make(chan struct{})}
		r.next = f
		if r.current == nil {
			r.current, r.next = f, nil
			d.wg.Add(1)
			go d.fly(f)
		}
	}
	r.mu.Unlock()
	select {
	case <-f.done:
		return f.groups, f.err
	case <-ctx.Done():
		return nil, model.Errorf(model.KindUnknownOutcome, "reading the state of LVM: %w", ctx.Err())
	}
}

// fly makes reports as long as somebody waits for one.
func (d *Driver) fly(f *flight) {
	defer d.wg.Done()
	for f != nil {
		before := map[string]int{}
		for n, g := range d.groups {
			g.mu.Lock()
			before[n] = g.changes
			if g.running > 0 {
				before[n] = -1
			}
			g.mu.Unlock()
		}
		began := time.Now()
		f.groups, f.err = d.cmd.report(d.ctx, d.groupNames)
		took := time.Since(began)
		if f.err == nil {
			for n, g := range d.groups {
				g.mu.Lock()
				if g.changes == before[n] {
					g.view, g.at, g.took = f.groups[n], time.Now(), took
				}
				g.mu.Unlock()
			}
		}
		close(f.done)
		r := &d.reports
		r.mu.Lock()
		r.current, r.next = r.next, nil
		f = r.current
		r.mu.Unlock()
	}
}

// absentGroup is the error about a group that a report does not have.
func absentGroup(name string) error {
	return model.Errorf(model.KindUnavailable, "there is no volume group %s that LVM can use: are its devices there?", name)
}

// freshGroup gives a group by a report that was begun after the call.
func (d *Driver) freshGroup(ctx context.Context, name string) (*group, error) {
	all, err := d.fresh(ctx)
	if err != nil {
		return nil, err
	}
	return d.checkGroup(name, all[name])
}

// checkGroup refuses a group that is absent, or another one under the same name:
// what is not in that is not gone.
func (d *Driver) checkGroup(name string, g *group) (*group, error) {
	if g == nil {
		return nil, absentGroup(name)
	}
	if want := d.known.get(name); want != "" && want != g.uuid {
		return nil, model.Errorf(model.KindUnavailable,
			"the volume group %s is another one than it was (it had the UUID %s and has %s); to begin anew, remove it from %s in the driver's state directory",
			name, want, g.uuid, knownFile)
	}
	return g, nil
}

// recent gives a group as it was a moment ago, with what the driver has done
// since. The result is a copy of the index; its volumes are never changed.
func (d *Driver) recent(ctx context.Context, name string) (*group, error) {
	vg := d.groups[name]
	vg.mu.Lock()
	if vg.view != nil && time.Since(vg.at) < maxAge(vg.took) {
		g := vg.view
		vg.mu.Unlock()
		return d.checkGroup(name, g)
	}
	vg.mu.Unlock()
	return d.freshGroup(ctx, name)
}

// update changes the view after a command of ours: fn gets a copy.
func (vg *vgroup) update(fn func(g *group)) {
	vg.mu.Lock()
	defer vg.mu.Unlock()
	if vg.view == nil {
		return
	}
	g := *vg.view
	g.lvs = make(map[string]*lv, len(vg.view.lvs)+1)
	for n, l := range vg.view.lvs {
		g.lvs[n] = l
	}
	fn(&g)
	vg.view = &g
}

// forget drops the view: something happened that is not known.
func (vg *vgroup) forget() {
	vg.mu.Lock()
	vg.view = nil
	vg.mu.Unlock()
}

// change runs one command that changes a group. The caller has the turn. It is
// not begun if ctx has ended; once begun, it runs to its end. settings are more
// of LVM's own configuration.
//
// That it ended well is taken for a fact only for what the caller then sees in a
// device or a report; anything else makes the view worthless.
func (d *Driver) change(ctx context.Context, vg *vgroup, settings string, argv ...string) error {
	if err := ctx.Err(); err != nil {
		return notBegun(err)
	}
	vg.mu.Lock()
	vg.changes++
	vg.running++
	vg.mu.Unlock()
	cctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), commandLimit)
	defer cancel()
	_, err := d.cmd.lvm(cctx, settings, argv...)
	vg.mu.Lock()
	vg.changes++
	vg.running--
	by := raises(argv)
	if err != nil {
		vg.view, by = nil, -1
	}
	vg.mu.Unlock()
	d.clean.raised(vg.name, by)
	return err
}

// failed finds out what came of a command that ended with an error: look reads a
// fresh report and says what is true now. If it does not know better, the
// command's own error stands.
func (d *Driver) failed(ctx context.Context, vg *vgroup, cause error, look func(g *group) (done bool, err error)) error {
	if model.IsKind(cause, model.KindUnsupported) {
		return cause // not installed: nothing has run
	}
	g, err := d.freshGroup(ctx, vg.name)
	if err != nil {
		if model.IsKind(err, model.KindUnavailable) && model.IsKind(cause, model.KindInternal) {
			return err // the group is not there
		}
		return model.Errorf(model.KindUnknownOutcome, "%w (and %v)", cause, err)
	}
	done, err := look(g)
	switch {
	case err != nil:
		return err
	case done:
		return nil
	}
	return cause
}

// point is a fault point of an operation.
func point(op, at string) {
	if faults.On() {
		faults.Point("lvm." + op + "." + at)
	}
}

// asKind gives an error of the system a kind.
func asKind(what string, err error) error {
	var me *model.Error
	var u *unfinished
	switch {
	case err == nil:
		return nil
	case errors.As(err, &u) && alone(err, u):
		return drivers.InProgress(what, u.what, model.Bytes(u.off), model.Bytes(u.end))
	case errors.As(err, &me):
		return err
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return model.Errorf(model.KindUnknownOutcome, "%s: %w", what, err)
	}
	return model.Errorf(model.KindInternal, "%s: %w", what, err)
}

// alone says whether nothing else went wrong beside the end of a call's time.
func alone(err error, u *unfinished) bool {
	for err != nil && err != error(u) {
		if j, ok := err.(interface{ Unwrap() []error }); ok {
			all := j.Unwrap()
			if len(all) != 1 {
				return false
			}
			err = all[0]
			continue
		}
		err = errors.Unwrap(err)
	}
	return err != nil
}

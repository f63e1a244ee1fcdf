// Package steps is what the handlers of all resources share: how failures of a
// dock are judged, when retrying ends, and how a debt is left.
package steps

import (
	"fmt"
	"slices"
	"time"

	"github.com/osds-io/osds/pkg/controller/fleet"
	"github.com/osds-io/osds/pkg/controller/task"
	"github.com/osds-io/osds/pkg/db"
	"github.com/osds-io/osds/pkg/model"
)

// Limits bound the work.
type Limits struct {
	// Create is how long a create may be tried before it is undone. Time during
	// which the dock tells of work that advances does not count.
	Create time.Duration
	// Place is how long a create waits for a pool whose dock is away, if no
	// other fits.
	Place time.Duration
	// Debt is how long a removal waits for a dock that is not there before it
	// leaves a debt.
	Debt time.Duration
	// Call bounds a short call to a dock, LongCall one that may copy data.
	Call, LongCall time.Duration
	// Attempts is how often a step may fail with a definite error of unclear
	// meaning (internal, busy) before it is given up.
	Attempts int
	// Host bounds a call to a host's dock that nobody can wait for long.
	Host time.Duration
	// PerDock is how many steps run on one dock at a time; as many again may
	// attach and detach.
	PerDock int
}

// DefaultLimits are the limits where none are configured.
func DefaultLimits() Limits {
	return Limits{
		Create: 10 * time.Minute, Place: 30 * time.Second, Debt: 30 * time.Second,
		Call: 2 * time.Minute, LongCall: time.Hour, Host: 30 * time.Second, Attempts: 6, PerDock: 128,
	}
}

// Base is embedded by every handler.
type Base struct {
	Store  *db.Store
	Fleet  *fleet.Fleet
	Limits Limits
	Now    func() time.Time
}

// Verdict is what a failure means for the step.
type Verdict int

// The verdicts.
const (
	// Retry: try again later.
	Retry Verdict = iota
	// Fail: no retry will mend it.
	Fail
)

// Judge decides about a dock's error. Unavailable and unknown outcomes are
// always tried again: the next try looks. Unclear ones are, a few times; an
// outage before does not count.
func (b *Base) Judge(t *model.Task, err error) Verdict {
	switch model.KindOf(err) {
	case model.KindUnavailable, model.KindUnknownOutcome, model.KindStale:
		return Retry
	case model.KindBusy, model.KindInternal, model.KindConflict:
		if t.Refusals+1 < b.Limits.Attempts {
			return Retry
		}
	}
	return Fail
}

// WaitOn says whether a create that met err is to be tried on, or to be undone.
// Time during which its work was seen to advance does not count.
func (b *Base) WaitOn(t *model.Task, err error) bool {
	if p := model.ProgressOf(err); p != nil && t.Advances(p) {
		return true
	}
	return b.Judge(t, err) == Retry && t.Idle(b.Now()) < b.Limits.Create
}

// StepSince is when the task's current step began.
func StepSince(t *model.Task) time.Time {
	if n := len(t.History); n > 0 {
		return t.History[n-1].At
	}
	return t.CreatedAt
}

// DockGone says whether a removal has waited long enough for a dock that does
// not answer, so that a debt is to be left. Time before this term does not count:
// after a restart docks need a moment to come back.
func (b *Base) DockGone(t *model.Task, err error) bool {
	if model.ProgressOf(err) != nil {
		return false // it is there, and at work
	}
	if !model.IsKind(err, model.KindUnavailable, model.KindUnknownOutcome) {
		return false
	}
	since := StepSince(t)
	if p := t.Progress; p != nil && p.At.After(since) {
		since = p.At
	}
	if s := b.Fleet.Started(); s.After(since) {
		since = s
	}
	return b.Now().Sub(since) > b.Limits.Debt
}

// Owing gives a debt for a part of a volume (a snapshot, an export) that is
// still to be removed; nil if there is none.
func (b *Base) Owing(v *model.Volume, parts ...model.Resource) *model.Debt {
	for _, d := range b.Store.Debts.Where("poolId", v.PoolID, 0) {
		if d.VolumeID == v.ID && slices.Contains(parts, d.Resource) {
			return d
		}
	}
	return nil
}

// OwingOn gives a debt for a device of a volume that a host is still to give up;
// nil if there is none. What is attached there anew would look the same to it.
func (b *Base) OwingOn(dockID, volumeID string) *model.Debt {
	for _, d := range b.Store.Debts.Where("dockId", dockID, 0) {
		if d.VolumeID == volumeID && d.Resource == model.ResDevice {
			return d
		}
	}
	return nil
}

// Removed judges how a removal went: it is done (neither), it is to be owed
// because its dock is gone or nothing mends it, or it is to be tried again.
func (b *Base) Removed(t *model.Task, err error) (owe bool, again error) {
	switch {
	case err == nil:
		return false, nil
	case b.DockGone(t, err), b.Judge(t, err) == Fail:
		return true, nil
	}
	return false, err
}

// Bulk is the class of ordinary steps on a pool's dock.
func (b *Base) Bulk(poolID string) task.Class { return b.class(poolID, "bulk") }

// Attach is the class of attaching and detaching.
func (b *Base) Attach(poolID string) task.Class { return b.class(poolID, "attach") }

// OnHost is the class of steps that call the dock of a host that attaches.
func (b *Base) OnHost(dockID string) task.Class {
	return task.Class{Name: "host/" + dockID, Limit: b.Limits.PerDock}
}

func (b *Base) class(poolID, kind string) task.Class {
	dock := "none"
	if p, ok := b.Store.Pools.Get(poolID); ok {
		dock = p.DockID
	}
	return task.Class{Name: kind + "/" + dock, Limit: b.Limits.PerDock}
}

// Control is the class of steps that call no dock.
func (b *Base) Control() task.Class { return task.Class{Name: "control", Limit: 256} }

// Owe adds a debt to a transaction: what is to be removed when the dock returns.
// Its space stays reserved in the pool until then.
func (b *Base) Owe(t *db.Txn, d *model.Debt) error {
	p, ok := b.Store.Pools.Get(d.PoolID)
	if !ok {
		return model.Errorf(model.KindInternal, "a debt in pool %s, which is not known", d.PoolID)
	}
	d.DockID = p.DockID
	b.owe(t, d)
	return nil
}

// OweDevice adds a debt for the device of an attachment that its host is to give
// up when its dock returns.
func (b *Base) OweDevice(t *db.Txn, a *model.Attachment, why string) {
	if _, ok := b.Store.Docks.Get(a.DockID); !ok {
		return // given up by an administrator, with all that it owed
	}
	b.owe(t, &model.Debt{
		Meta: model.Meta{TenantID: a.TenantID}, DockID: a.DockID, Resource: model.ResDevice, ObjectID: a.ID, VolumeID: a.VolumeID,
		Connection: a.Connection.WithoutSecrets(), Reason: why,
	})
}

func (b *Base) owe(t *db.Txn, d *model.Debt) {
	now := b.Now().UTC()
	d.ID = model.DebtID(d.Resource, d.ObjectID)
	d.Name = fmt.Sprintf("%s %s", d.Resource, d.ObjectID)
	d.CreatedAt = now
	d.Task = model.NewTask(model.ResDebt, model.TaskSettle, model.StatusDeleting, "", now)
	t.Create(d)
}

// Attached is the status that a volume has by its attachments other than one: in
// use while one of them is, or may be, live; attaching while one is being made,
// whose end writes the volume again; else available.
func (b *Base) Attached(volumeID, except string) model.Status {
	s := model.StatusAvailable
	for _, a := range b.Store.Attachments.Where("volumeId", volumeID, 0) {
		switch {
		case a.ID == except, a.Status == model.StatusError:
		case a.Status == model.StatusCreating:
			s = model.StatusAttaching
		default:
			return model.StatusInUse
		}
	}
	return s
}

// Cancelled is the reason of a record whose create a user cancelled.
const Cancelled = "cancelled by the user"

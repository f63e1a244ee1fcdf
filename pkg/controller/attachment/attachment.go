// Package attachment does the tasks of attachments: export a volume to a host and,
// where a dock serves the host, have it make the device; and end both, the device
// first, so that nothing is lost, or the export first, to cut off a host that does
// not answer. The volume's status follows in the same transaction.
package attachment

import (
	"context"
	"math"
	"time"

	"github.com/osds-io/osds/pkg/controller/fleet"
	"github.com/osds-io/osds/pkg/controller/steps"
	"github.com/osds-io/osds/pkg/controller/task"
	"github.com/osds-io/osds/pkg/db"
	"github.com/osds-io/osds/pkg/drivers"
	"github.com/osds-io/osds/pkg/model"
)

// Handler does attachments' tasks.
type Handler struct{ steps.Base }

var _ task.Handler = (*Handler)(nil)

// Class queues steps apart from the creates: by the dock of the host while it is
// the one to call, else by the dock of the volume's pool.
func (h *Handler) Class(rec model.Tasked) task.Class {
	a := rec.(*model.Attachment)
	if a.DockID != "" && (!a.Task.Force || a.Task.Step == model.StepDetach) {
		return h.OnHost(a.DockID)
	}
	return h.Attach(h.pool(a))
}

func (h *Handler) pool(a *model.Attachment) string {
	if v, ok := h.Store.Volumes.Get(a.VolumeID); ok {
		return v.PoolID
	}
	return ""
}

// Step does the next step.
func (h *Handler) Step(ctx context.Context, j *task.Job) error {
	a := j.Rec.(*model.Attachment)
	switch {
	case a.Task.Kind == model.TaskDelete:
		return h.detach(ctx, j, a)
	case a.Task.Kind == model.TaskResize:
		return h.resize(ctx, j, a)
	case a.Task.Step == model.StepUndo:
		return h.undo(ctx, j, a)
	case a.Task.Cancel:
		return h.giveUp(j, model.Errorf(model.KindConflict, steps.Cancelled))
	case a.Task.Step == model.StepAttach:
		return h.attach(ctx, j, a)
	}
	return h.export(ctx, j, a)
}

// export makes the volume reachable from the host. If a dock serves the host, its
// id is stored with the result, before it is called.
func (h *Handler) export(ctx context.Context, j *task.Job, a *model.Attachment) error {
	v, ok := h.Store.Volumes.Get(a.VolumeID)
	if !ok {
		return h.giveUp(j, model.Errorf(model.KindNotFound, "volume %s is gone", a.VolumeID))
	}
	host, ok := h.Store.Hosts.Get(a.HostID)
	if !ok {
		return h.giveUp(j, model.Errorf(model.KindNotFound, "host %s is gone", a.HostID))
	}
	// An export that could not be ended yet may still be live: a new one must
	// wait for it.
	if d := h.Owing(v, model.ResAttachment); d != nil {
		return &task.Wait{For: time.Second, Reason: "an earlier export of the volume is still to be ended: " + d.Reason}
	}
	dock, err := h.Fleet.ServedBy(host, a.AccessProtocol)
	if err != nil {
		return h.giveUp(j, err)
	}
	var conn model.Connection
	if dock != nil {
		if d := h.OwingOn(dock.ID, v.ID); d != nil {
			return &task.Wait{For: time.Second, Reason: "the host still has a device of an earlier attachment of the volume to give up: " + d.Reason}
		}
		_, err = h.Fleet.Host(dock.ID) // nothing is exported to a host that is not there
	}
	if err == nil {
		conn, err = h.callExport(ctx, a, v, fleet.Complete(host, dock, a.AccessProtocol))
	}
	if err != nil {
		return h.again(j, a, err)
	}
	if dock == nil {
		return task.Advance(j, "attachment.attached", func(a *model.Attachment, t *db.Txn) error {
			a.Connection = &conn
			return h.live(t, a)
		})
	}
	return task.Advance(j, "attachment.exported", func(a *model.Attachment, t *db.Txn) error {
		// Not to a dock that an administrator is giving up.
		d, ok := h.Store.Docks.Get(dock.ID)
		if !ok || d.Status == model.StatusDeleting {
			return model.Errorf(model.KindUnavailable, "dock %s of the host is being removed", dock.Name)
		}
		t.If(db.Key(model.ResDock, d.ID), d.Rev)
		a.Connection, a.DockID = &conn, dock.ID
		a.Task.Begin(model.StepAttach, h.Now())
		return nil
	})
}

// again has a failed step of an attach tried again, or gives the attach up.
func (h *Handler) again(j *task.Job, a *model.Attachment, err error) error {
	if h.WaitOn(a.Task, err) {
		return err
	}
	return h.giveUp(j, err)
}

// live ends an attach that went well.
func (h *Handler) live(t *db.Txn, a *model.Attachment) error {
	a.Status, a.StatusReason = model.StatusAvailable, ""
	a.Task.End(model.TaskSucceeded, h.Now())
	return h.follow(t, a, true)
}

func (h *Handler) callExport(ctx context.Context, a *model.Attachment, v *model.Volume, host *model.Host) (model.Connection, error) {
	tg, err := h.Fleet.Target(v.PoolID)
	if err != nil {
		return model.Connection{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, h.Limits.Call)
	defer cancel()
	return tg.Export(ctx, h.Fleet.Call(a.Task), tg.Backend, drivers.Export{
		AttachmentID: a.ID, Volume: drivers.VolumeRef{ID: v.ID, Pool: tg.Pool.Name, BackendData: v.BackendData},
		MultiAttach: v.MultiAttach, ReadOnly: a.AttachMode == "ro", Protocol: a.AccessProtocol, Host: *host, QoS: h.qos(v),
	})
}

// qos is what the volume's profile bounds its hosts to; what it does not state is
// not bounded.
func (h *Handler) qos(v *model.Volume) drivers.QoS {
	p, ok := h.Store.Profiles.Get(v.ProfileID)
	if !ok {
		return drivers.QoS{}
	}
	c := p.Provisioning.IOConnectivity
	return drivers.QoS{
		MaxIOPS:           max(c.MaxIOPS, 0),
		MaxBytesPerSecond: min(max(c.MaxBWS, 0), math.MaxInt64/int64(model.MiB)) * int64(model.MiB),
	}
}

// follow brings the volume's status in line with its attachments: in use while
// this one is live, else what the others say.
func (h *Handler) follow(t *db.Txn, a *model.Attachment, live bool) error {
	v, ok := h.Store.Volumes.Get(a.VolumeID)
	if !ok {
		return nil
	}
	switch v.Status {
	case model.StatusAttaching, model.StatusInUse, model.StatusAvailable:
	default:
		// Extending while in use, say: its own task puts it back, by what
		// attachments there are then.
		t.Update(v.Clone())
		return nil
	}
	want := h.Attached(v.ID, a.ID)
	if live {
		want = model.StatusInUse
	}
	c := v.Clone()
	if c.Status != want {
		c.Status, c.UpdatedAt = want, h.Now().UTC()
	}
	// Written all the same: the guard makes two detaches of one volume see each
	// other, and an attach see a volume that has grown.
	t.Update(c)
	return nil
}

func (h *Handler) giveUp(j *task.Job, err error) error {
	return task.Advance(j, "attachment.giveup", func(a *model.Attachment, _ *db.Txn) error {
		a.Task.Fail(err)
		a.Task.Begin(model.StepUndo, h.Now())
		return nil
	})
}

// unexport ends the export; nil means that it is seen to be absent.
func (h *Handler) unexport(ctx context.Context, a *model.Attachment) error {
	v, ok := h.Store.Volumes.Get(a.VolumeID)
	if !ok || v.PoolID == "" {
		return nil
	}
	tg, err := h.Fleet.Target(v.PoolID)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, h.Limits.Call)
	defer cancel()
	return tg.Unexport(ctx, h.Fleet.Call(a.Task), tg.Backend, drivers.ExportRef{
		AttachmentID: a.ID, Volume: drivers.VolumeRef{ID: v.ID, Pool: tg.Pool.Name, BackendData: v.BackendData}, Force: a.Task.Force,
	})
}

// undo takes the device away, if a dock may have made one, and then the export. A
// host that does not give its device up is cut off.
func (h *Handler) undo(ctx context.Context, j *task.Job, a *model.Attachment) error {
	if a.DockID != "" {
		derr := h.callDetach(ctx, a, false, h.Limits.Call)
		owe, again := h.Removed(a.Task, derr)
		if again != nil {
			return again
		}
		return h.offHost(j, model.StepUndo, func(a *model.Attachment, t *db.Txn) {
			if owe {
				h.OweDevice(t, a, "undo of an attach: "+derr.Error())
				a.Task.Force = true
			}
		})
	}
	derr := h.unexport(ctx, a)
	owe, again := h.Removed(a.Task, derr)
	if again != nil {
		return again
	}
	return task.Advance(j, "attachment.undone", func(a *model.Attachment, t *db.Txn) error {
		if owe {
			if err := h.owe(t, a, "undo of an attach: "+derr.Error()); err != nil {
				return err
			}
		}
		a.Status, a.StatusReason, a.Connection = model.StatusError, a.Task.Failure, nil
		a.Task.EndWith(a.Task.Reason(), h.Now())
		return h.follow(t, a, false)
	})
}

func (h *Handler) owe(t *db.Txn, a *model.Attachment, why string) error {
	d := &model.Debt{
		Meta: model.Meta{TenantID: a.TenantID}, Resource: model.ResAttachment, ObjectID: a.ID, VolumeID: a.VolumeID,
		Reason: why, Force: a.Task.Force,
	}
	if v, ok := h.Store.Volumes.Get(a.VolumeID); ok {
		d.PoolID, d.BackendData = v.PoolID, v.BackendData
	}
	return h.Owe(t, d)
}

// detach ends the attachment: the device first, then the export; with force the
// other way round.
func (h *Handler) detach(ctx context.Context, j *task.Job, a *model.Attachment) error {
	switch {
	case a.Task.PrevStatus == model.StatusError:
		// It was undone, or its undoing is owed.
		return h.drop(j, nil)
	case a.DockID != "" && a.Task.Force && a.Task.Step == model.StepDetach:
		return h.abandon(ctx, j, a)
	case a.DockID != "" && !a.Task.Force:
		return h.takeAway(ctx, j, a)
	}
	err := h.unexport(ctx, a)
	switch {
	case err == nil, h.DockGone(a.Task, err):
		if a.DockID != "" {
			return h.cutOff(j, err)
		}
		return h.drop(j, err)
	case h.Judge(a.Task, err) == steps.Retry:
		return err
	}
	return h.errorDeleting(j, err)
}

func (h *Handler) errorDeleting(j *task.Job, err error) error {
	return task.Advance(j, "attachment.errordeleting", func(a *model.Attachment, _ *db.Txn) error {
		a.Status, a.StatusReason = model.StatusErrorDeleting, err.Error()
		a.Task.EndWith(err, h.Now())
		return nil
	})
}

// drop removes the record; owed is why the end of the export is to be owed, nil if
// it has ended or is owed already.
func (h *Handler) drop(j *task.Job, owed error) error {
	return task.Drop(j, "attachment.drop", func(a *model.Attachment, t *db.Txn) error {
		if owed != nil {
			if err := h.owe(t, a, "detach: "+owed.Error()); err != nil {
				return err
			}
		}
		return h.follow(t, a, false)
	})
}

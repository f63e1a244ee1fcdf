// Package attachment does the tasks of attachments: export a volume to a host,
// and end the export. The volume's status follows in the same transaction.
package attachment

import (
	"context"
	"time"

	"github.com/osds-io/osds/pkg/controller/steps"
	"github.com/osds-io/osds/pkg/controller/task"
	"github.com/osds-io/osds/pkg/db"
	"github.com/osds-io/osds/pkg/drivers"
	"github.com/osds-io/osds/pkg/model"
)

// Handler does attachments' tasks.
type Handler struct{ steps.Base }

var _ task.Handler = (*Handler)(nil)

// Class queues steps by the dock of the volume's pool, apart from the creates.
func (h *Handler) Class(rec model.Tasked) task.Class {
	return h.Attach(h.pool(rec.(*model.Attachment)))
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
	case a.Task.Step == model.StepUndo:
		return h.undo(ctx, j, a)
	case a.Task.Cancel:
		return h.giveUp(j, model.Errorf(model.KindConflict, steps.Cancelled))
	}
	return h.attach(ctx, j, a)
}

func (h *Handler) attach(ctx context.Context, j *task.Job, a *model.Attachment) error {
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
	conn, err := h.export(ctx, a, v, host)
	if err != nil {
		if h.Judge(a.Task, err) == steps.Retry && h.Now().Sub(a.Task.CreatedAt) < h.Limits.Create {
			return err
		}
		return h.giveUp(j, err)
	}
	return task.Advance(j, "attachment.attached", func(a *model.Attachment, t *db.Txn) error {
		a.Status, a.StatusReason, a.Connection = model.StatusAvailable, "", &conn
		a.Task.End(model.TaskSucceeded, h.Now())
		return h.follow(t, a, true)
	})
}

func (h *Handler) export(ctx context.Context, a *model.Attachment, v *model.Volume, host *model.Host) (model.Connection, error) {
	tg, err := h.Fleet.Target(v.PoolID)
	if err != nil {
		return model.Connection{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, h.Limits.Call)
	defer cancel()
	return tg.Export(ctx, h.Fleet.Call(a.Task), tg.Backend, drivers.Export{
		AttachmentID: a.ID, Volume: drivers.VolumeRef{ID: v.ID, Pool: tg.Pool.Name, BackendData: v.BackendData},
		MultiAttach: v.MultiAttach, ReadOnly: a.AttachMode == "ro", Protocol: a.AccessProtocol, Host: *host,
	})
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
	if v.Status == want {
		// Written all the same: the guard makes two detaches of one volume see
		// each other.
		c := v.Clone()
		t.Update(c)
		return nil
	}
	c := v.Clone()
	c.Status, c.UpdatedAt = want, h.Now().UTC()
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
		AttachmentID: a.ID, Volume: drivers.VolumeRef{ID: v.ID, Pool: tg.Pool.Name, BackendData: v.BackendData},
	})
}

func (h *Handler) undo(ctx context.Context, j *task.Job, a *model.Attachment) error {
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
		a.Status, a.StatusReason = model.StatusError, a.Task.Failure
		a.Task.EndWith(a.Task.Reason(), h.Now())
		return h.follow(t, a, false)
	})
}

func (h *Handler) owe(t *db.Txn, a *model.Attachment, why string) error {
	d := &model.Debt{Meta: model.Meta{TenantID: a.TenantID}, Resource: model.ResAttachment, ObjectID: a.ID, VolumeID: a.VolumeID, Reason: why}
	if v, ok := h.Store.Volumes.Get(a.VolumeID); ok {
		d.PoolID, d.BackendData = v.PoolID, v.BackendData
	}
	return h.Owe(t, d)
}

func (h *Handler) detach(ctx context.Context, j *task.Job, a *model.Attachment) error {
	if a.Task.PrevStatus == model.StatusError {
		// It was undone, or its undoing is owed.
		return h.drop(j, nil)
	}
	err := h.unexport(ctx, a)
	switch {
	case err == nil:
		return h.drop(j, nil)
	case h.DockGone(a.Task, err):
		return h.drop(j, err)
	case h.Judge(a.Task, err) == steps.Retry:
		return err
	}
	return task.Advance(j, "attachment.errordeleting", func(a *model.Attachment, t *db.Txn) error {
		a.Status, a.StatusReason = model.StatusErrorDeleting, err.Error()
		a.Task.EndWith(err, h.Now())
		return nil
	})
}

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

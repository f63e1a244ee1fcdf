package attachment

import (
	"context"
	"fmt"
	"time"

	"github.com/osds-io/osds/pkg/controller/steps"
	"github.com/osds-io/osds/pkg/controller/task"
	"github.com/osds-io/osds/pkg/db"
	"github.com/osds-io/osds/pkg/dock/client"
	"github.com/osds-io/osds/pkg/model"
)

// attach has the host's dock make the device.
func (h *Handler) attach(ctx context.Context, j *task.Job, a *model.Attachment) error {
	v, ok := h.Store.Volumes.Get(a.VolumeID)
	if !ok {
		return h.giveUp(j, model.Errorf(model.KindNotFound, "volume %s is gone", a.VolumeID))
	}
	dev, err := h.callAttach(ctx, a, v.Size)
	if err != nil {
		return h.again(j, a, err)
	}
	return task.Advance(j, "attachment.attached", func(a *model.Attachment, t *db.Txn) error {
		if now, ok := h.Store.Volumes.Get(a.VolumeID); ok && now.Size > v.Size {
			// It has grown meanwhile, and whoever had the hosts see that did
			// not know of this one.
			return model.Errorf(model.KindBusy, "the volume has grown while it was being attached")
		}
		a.DevicePath = dev.Path
		if a.Mountpoint == "" {
			a.Mountpoint = dev.Path
		}
		return h.live(t, a)
	})
}

func (h *Handler) callAttach(ctx context.Context, a *model.Attachment, size model.Bytes) (client.Device, error) {
	host, err := h.Fleet.Host(a.DockID)
	if err != nil {
		return client.Device{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, h.Limits.Call)
	defer cancel()
	return host.Attach(ctx, h.Fleet.Call(a.Task), client.AttachRequest{
		AttachmentID: a.ID, VolumeID: a.VolumeID, Connection: connection(a), ReadOnly: a.AttachMode == "ro", Size: size,
	})
}

// callDetach has the host's dock take the device away; nil means that it is seen
// to be absent.
func (h *Handler) callDetach(ctx context.Context, a *model.Attachment, force bool, limit time.Duration) error {
	host, err := h.Fleet.Host(a.DockID)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	return host.Detach(ctx, h.Fleet.Call(a.Task), client.DetachRequest{
		AttachmentID: a.ID, VolumeID: a.VolumeID, Connection: connection(a), Force: force,
	})
}

func connection(a *model.Attachment) model.Connection {
	if a.Connection == nil {
		return model.Connection{}
	}
	return *a.Connection
}

// offHost notes that the host has no device any more, or that it is owed, and
// goes on with the export.
func (h *Handler) offHost(j *task.Job, next model.Step, also func(*model.Attachment, *db.Txn)) error {
	return task.Advance(j, "attachment.offhost", func(a *model.Attachment, t *db.Txn) error {
		if also != nil {
			also(a, t)
		}
		if a.Mountpoint == a.DevicePath {
			a.Mountpoint = ""
		}
		a.DockID, a.DevicePath = "", ""
		a.Task.Begin(next, h.Now())
		return nil
	})
}

// takeAway has the host give the device up. A host that does not answer keeps it:
// what it has not written yet would be lost, so that cutting it off is for a user
// to decide.
func (h *Handler) takeAway(ctx context.Context, j *task.Job, a *model.Attachment) error {
	err := h.callDetach(ctx, a, false, h.Limits.Call)
	switch {
	case err == nil:
		return h.offHost(j, model.StepUnexport, nil)
	case h.DockGone(a.Task, err):
		return h.errorDeleting(j, model.Errorf(model.KindOf(err),
			"the host does not answer; detach with force cuts it off (force=true, or osdsctl volume attachment delete --force): %v", err))
	case h.Judge(a.Task, err) == steps.Retry:
		return err
	}
	return h.errorDeleting(j, err)
}

// cutOff notes that the export has ended, or is owed, before the host is asked to
// give up what is left there.
func (h *Handler) cutOff(j *task.Job, owed error) error {
	return task.Advance(j, "attachment.cutoff", func(a *model.Attachment, t *db.Txn) error {
		if owed != nil {
			if err := h.owe(t, a, "detach: "+owed.Error()); err != nil {
				return err
			}
		}
		a.Task.Begin(model.StepDetach, h.Now())
		return nil
	})
}

// abandon ends a forced detach: the host gives up what is left there now, or when
// its dock returns.
func (h *Handler) abandon(ctx context.Context, j *task.Job, a *model.Attachment) error {
	err := h.callDetach(ctx, a, true, h.Limits.Host)
	return task.Drop(j, "attachment.drop", func(a *model.Attachment, t *db.Txn) error {
		if err != nil {
			h.OweDevice(t, a, "forced detach: "+err.Error())
		}
		return h.follow(t, a, false)
	})
}

// Unseen is the reason of an attachment whose host has not seen a volume's new
// size.
func Unseen(size model.Bytes, err error) string {
	return fmt.Sprintf("the host has not seen the new size of %s yet: %v", size, err)
}

// resize has a host see a size that it could not be told when the volume grew.
func (h *Handler) resize(ctx context.Context, j *task.Job, a *model.Attachment) error {
	end := func(label, reason string, err error) error {
		return task.Advance(j, label, func(a *model.Attachment, _ *db.Txn) error {
			a.StatusReason = reason
			a.Task.EndWith(err, h.Now())
			return nil
		})
	}
	v, ok := h.Store.Volumes.Get(a.VolumeID)
	switch {
	case a.Task.Cancel:
		return end("attachment.notresized", a.StatusReason, model.Errorf(model.KindConflict, steps.Cancelled))
	case !ok || a.DockID == "":
		return end("attachment.resized", "", nil)
	}
	err := Resize(ctx, &h.Base, a.Task, a, max(a.Task.NewSize, v.Size), h.Limits.Call)
	switch {
	case err == nil:
		return end("attachment.resized", "", nil)
	case h.Judge(a.Task, err) == steps.Retry:
		return err
	}
	return end("attachment.notresized", Unseen(a.Task.NewSize, err), err)
}

// Resize has the host of an attachment see a size, for a task that knows whether
// the file system is to grow too.
func Resize(ctx context.Context, b *steps.Base, t *model.Task, a *model.Attachment, size model.Bytes, limit time.Duration) error {
	host, err := b.Fleet.Host(a.DockID)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	_, err = host.ResizeDevice(ctx, b.Fleet.Call(t), client.ResizeRequest{
		AttachmentID: a.ID, VolumeID: a.VolumeID, Size: size, GrowFS: t.GrowFS,
	})
	return err
}

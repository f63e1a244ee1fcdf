package volume

import (
	"context"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/osds-io/osds/pkg/controller/attachment"
	"github.com/osds-io/osds/pkg/controller/steps"
	"github.com/osds-io/osds/pkg/controller/task"
	"github.com/osds-io/osds/pkg/db"
	"github.com/osds-io/osds/pkg/drivers"
	"github.com/osds-io/osds/pkg/model"
)

// extend reserves the growth first, in the transaction that says so, and then
// grows. The backend's own figure decides what happened if it failed.
func (h *Handler) extend(ctx context.Context, j *task.Job, v *model.Volume) error {
	switch v.Task.Step {
	case model.StepReserve:
		return h.reserveGrowth(j, v)
	case model.StepResize:
		return h.tellHosts(ctx, j, v)
	}
	if v.Task.Cancel {
		return h.look(ctx, j, v, model.Errorf(model.KindConflict, steps.Cancelled))
	}
	tg, err := h.Fleet.Target(v.PoolID)
	if err != nil {
		return err
	}
	cctx, cancel := context.WithTimeout(ctx, h.Limits.Call)
	defer cancel()
	got, err := tg.ExpandVolume(cctx, h.Fleet.Call(v.Task), tg.Backend, *ref(v, tg), v.Task.NewSize)
	switch {
	case err == nil:
		return h.grown(j, got)
	case h.Judge(v.Task, err) == steps.Retry:
		return err
	}
	return h.look(ctx, j, v, err)
}

func (h *Handler) reserveGrowth(j *task.Job, v *model.Volume) error {
	if v.Task.Cancel {
		return h.back(j, "volume.notgrown", model.Errorf(model.KindConflict, steps.Cancelled), false)
	}
	p, ok := h.Fleet.Pool(v.PoolID)
	if !ok {
		return h.back(j, "volume.notgrown", model.Errorf(model.KindNotFound, "pool %s is gone", v.PoolID), false)
	}
	var full error
	err := task.Advance(j, "volume.reserve", func(v *model.Volume, t *db.Txn) error {
		// What an earlier extend that ended in error holds counts.
		more := max(v.Task.NewSize-v.Reserved, 0)
		if full = h.Fleet.Ledger.Reserve(v.PoolID, more, p.Limit()); full != nil {
			return full
		}
		t.Account(v.PoolID, more)
		v.Reserved += more
		v.Task.Begin(model.StepApply, h.Now())
		return nil
	})
	if full != nil {
		return h.back(j, "volume.notgrown", full, false)
	}
	return err
}

// look asks the backend for the volume's size after a failed or cancelled
// growth, and goes by that. A cancelled one does not wait for a dock that is
// gone: the volume keeps its space and says that its size is not known, and can
// be deleted, or grown when the dock is back.
func (h *Handler) look(ctx context.Context, j *task.Job, v *model.Volume, why error) error {
	got, err := h.get(ctx, v)
	switch {
	case err != nil && v.Task.Cancel && h.DockGone(v.Task, err):
		why = model.Errorf(model.KindOf(why), "%w; how large the volume is now is not known: %v", why, err)
		return h.errorExtending(j, why)
	case err != nil && h.Judge(v.Task, err) == steps.Retry:
		return err
	case err != nil:
		return h.errorExtending(j, why)
	case got.Size >= v.Task.NewSize:
		return h.grown(j, got)
	}
	if err := h.forgetGrowth(ctx, v); err != nil && h.Judge(v.Task, err) == steps.Retry {
		return err
	}
	return h.back(j, "volume.notgrown", why, true)
}

// forgetGrowth has the backend give up what it holds for a growth that was begun
// and is not wanted any more: growing to the size that the volume has does that.
// The space may then be promised to others.
func (h *Handler) forgetGrowth(ctx context.Context, v *model.Volume) error {
	tg, err := h.Fleet.Target(v.PoolID)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, h.Limits.Call)
	defer cancel()
	_, err = tg.ExpandVolume(ctx, h.Fleet.Call(v.Task), tg.Backend, *ref(v, tg), v.Size)
	return err
}

func (h *Handler) errorExtending(j *task.Job, why error) error {
	return task.Advance(j, "volume.errorextending", func(v *model.Volume, _ *db.Txn) error {
		h.end(v, model.StatusErrorExtending, why)
		return nil
	})
}

// get asks the dock for the volume as it is.
func (h *Handler) get(ctx context.Context, v *model.Volume) (drivers.Volume, error) {
	tg, err := h.Fleet.Target(v.PoolID)
	if err != nil {
		return drivers.Volume{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, h.Limits.Call)
	defer cancel()
	return tg.GetVolume(ctx, h.Fleet.Call(v.Task), tg.Backend, *ref(v, tg))
}

func (h *Handler) grown(j *task.Job, got drivers.Volume) error {
	return task.Advance(j, "volume.extended", func(v *model.Volume, t *db.Txn) error {
		v.Size = v.Task.NewSize
		t.Account(v.PoolID, v.Size-v.Reserved)
		v.Reserved = v.Size
		if got.BackendData != nil {
			v.BackendData = got.BackendData
		}
		// Whoever is being attached now commits after this, or was seen here:
		// the end of an attach writes the volume too.
		if len(h.served(v)) > 0 {
			v.Task.Begin(model.StepResize, h.Now())
			return nil
		}
		h.end(v, h.settled(v), nil)
		return nil
	})
}

// served are the volume's live attachments that docks made devices for.
func (h *Handler) served(v *model.Volume) (out []*model.Attachment) {
	for _, a := range h.Store.Attachments.Where("volumeId", v.ID, 0) {
		if a.DockID != "" && a.Status == model.StatusAvailable {
			out = append(out, a)
		}
	}
	return out
}

// Bounds of telling hosts of a new size.
const (
	tellAtOnce = 16
	// maxUnseen is how many tasks for hosts fit in one transaction; the rest
	// are told when the volume grows again, or is attached again.
	maxUnseen = 100
)

// tellHosts has the hosts see the new size. The volume has grown already, and who
// grew it need not wait for a host that does not answer: each of those gets a task
// of its own attachment.
func (h *Handler) tellHosts(ctx context.Context, j *task.Job, v *model.Volume) error {
	unseen := map[string]error{}
	var mu sync.Mutex
	var g errgroup.Group
	g.SetLimit(tellAtOnce)
	for _, a := range h.served(v) {
		g.Go(func() error {
			if err := attachment.Resize(ctx, &h.Base, v.Task, a, v.Size, h.Limits.Host); err != nil {
				mu.Lock()
				defer mu.Unlock()
				unseen[a.ID] = err
			}
			return nil
		})
	}
	_ = g.Wait()
	return task.Advance(j, "volume.told", func(v *model.Volume, t *db.Txn) error {
		n := 0
		for _, a := range h.served(v) {
			err := unseen[a.ID]
			if err == nil || n == maxUnseen {
				continue
			}
			n++
			c, now := a.Clone(), h.Now()
			c.StatusReason, c.UpdatedAt = attachment.Unseen(v.Size, err), now.UTC()
			c.Task = model.NewTask(model.ResAttachment, model.TaskResize, c.Status, v.Task.RequestID, now)
			c.Task.NewSize, c.Task.GrowFS = v.Size, v.Task.GrowFS
			t.Update(c)
		}
		h.end(v, h.settled(v), nil)
		return nil
	})
}

// revert puts the volume back to a snapshot. A failure in the middle leaves its
// contents undefined, which errorReverting says; it can be reverted again.
func (h *Handler) revert(ctx context.Context, j *task.Job, v *model.Volume) error {
	s, ok := h.Store.Snapshots.Get(v.Task.SnapshotID)
	if !ok {
		return h.back(j, "volume.notreverted", model.Errorf(model.KindNotFound, "snapshot %s is gone", v.Task.SnapshotID), false)
	}
	tg, err := h.Fleet.Target(v.PoolID)
	if err != nil {
		return err
	}
	cctx, cancel := context.WithTimeout(ctx, h.Limits.LongCall)
	defer cancel()
	_, err = tg.RevertVolume(cctx, h.Fleet.Call(v.Task), tg.Backend, *ref(v, tg),
		drivers.SnapshotRef{ID: s.ID, VolumeID: v.ID, Pool: tg.Pool.Name, BackendData: s.BackendData})
	switch {
	case err == nil:
		return task.Advance(j, "volume.reverted", func(v *model.Volume, _ *db.Txn) error {
			h.end(v, h.settled(v), nil)
			return nil
		})
	case h.Judge(v.Task, err) == steps.Retry:
		return err
	case model.IsKind(err, model.KindUnsupported, model.KindInvalid, model.KindNotFound, model.KindBusy) && v.Task.PrevStatus != model.StatusErrorReverting:
		return h.back(j, "volume.notreverted", err, false)
	}
	return task.Advance(j, "volume.errorreverting", func(v *model.Volume, _ *db.Txn) error {
		h.end(v, model.StatusErrorReverting, err)
		return nil
	})
}

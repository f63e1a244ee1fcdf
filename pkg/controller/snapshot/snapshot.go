// Package snapshot does the tasks of snapshots: create and delete. A snapshot
// reserves its volume's full size: overwriting all of the volume must never find
// the pool full.
package snapshot

import (
	"context"

	"github.com/osds-io/osds/pkg/controller/fleet"
	"github.com/osds-io/osds/pkg/controller/steps"
	"github.com/osds-io/osds/pkg/controller/task"
	"github.com/osds-io/osds/pkg/db"
	"github.com/osds-io/osds/pkg/drivers"
	"github.com/osds-io/osds/pkg/model"
)

// Handler does snapshots' tasks.
type Handler struct{ steps.Base }

var _ task.Handler = (*Handler)(nil)

// Class queues steps by the dock of the snapshot's pool.
func (h *Handler) Class(rec model.Tasked) task.Class {
	s := rec.(*model.Snapshot)
	if s.Task.Step == model.StepReserve {
		return h.Control()
	}
	return h.Bulk(s.PoolID)
}

// Step does the next step.
func (h *Handler) Step(ctx context.Context, j *task.Job) error {
	s := j.Rec.(*model.Snapshot)
	switch {
	case s.Task.Kind == model.TaskDelete:
		return h.remove(ctx, j, s)
	case s.Task.Kind != model.TaskCreate:
		return h.end(j, "snapshot.fail", model.Errorf(model.KindInternal, "snapshots have no task %q", s.Task.Kind))
	case s.Task.Step == model.StepUndo:
		return h.undo(ctx, j, s)
	case s.Task.Step == model.StepReserve:
		return h.reserve(j, s)
	case s.Task.Cancel:
		return h.giveUp(j, model.Errorf(model.KindConflict, steps.Cancelled))
	}
	return h.provision(ctx, j, s)
}

func (h *Handler) reserve(j *task.Job, s *model.Snapshot) error {
	if s.Task.Cancel {
		return h.end(j, "snapshot.fail", model.Errorf(model.KindConflict, steps.Cancelled))
	}
	v, ok := h.Store.Volumes.Get(s.VolumeID)
	if !ok {
		return h.end(j, "snapshot.fail", model.Errorf(model.KindNotFound, "volume %s is gone", s.VolumeID))
	}
	p, ok := h.Fleet.Pool(v.PoolID)
	if !ok {
		return h.end(j, "snapshot.fail", model.Errorf(model.KindNotFound, "pool %s is gone", v.PoolID))
	}
	var full error
	err := task.Advance(j, "snapshot.reserve", func(s *model.Snapshot, t *db.Txn) error {
		if full = h.Fleet.Ledger.Reserve(p.ID, v.Size, p.Limit()); full != nil {
			full = model.Errorf(model.KindExhausted, "pool %s: rule freeCapacity: a snapshot holds its volume's size: %w", p.Name, full)
			return full
		}
		s.PoolID, s.Size, s.Reserved = p.ID, v.Size, v.Size
		t.Account(p.ID, v.Size)
		s.Task.Begin(model.StepProvision, h.Now())
		return nil
	})
	if full != nil {
		return h.end(j, "snapshot.fail", full)
	}
	return err
}

func ref(s *model.Snapshot, tg *fleet.Target) drivers.SnapshotRef {
	return drivers.SnapshotRef{ID: s.ID, VolumeID: s.VolumeID, Pool: tg.Pool.Name, BackendData: s.BackendData}
}

func (h *Handler) provision(ctx context.Context, j *task.Job, s *model.Snapshot) error {
	got, err := h.make(ctx, s)
	if err != nil {
		if h.WaitOn(s.Task, err) {
			return err
		}
		if model.IsKind(err, model.KindExists) {
			return h.foreign(j, err)
		}
		return h.giveUp(j, err)
	}
	var full error
	err = task.Advance(j, "snapshot.created", func(s *model.Snapshot, t *db.Txn) error {
		s.Status, s.StatusReason, s.BackendData = model.StatusAvailable, "", got.BackendData
		if got.Size > 0 && got.Size != s.Reserved {
			// The volume grew before it was taken, or after its size was read.
			if full = h.holdMore(s, got.Size-s.Reserved); full != nil {
				return full
			}
			t.Account(s.PoolID, got.Size-s.Reserved)
			s.Size, s.Reserved = got.Size, got.Size
		}
		s.Task.End(model.TaskSucceeded, h.Now())
		return nil
	})
	if full != nil {
		return h.giveUp(j, full)
	}
	return err
}

// holdMore takes more space of the pool for a snapshot that turned out larger
// than its volume was when the space was reserved.
func (h *Handler) holdMore(s *model.Snapshot, more model.Bytes) error {
	if more <= 0 {
		return nil
	}
	p, ok := h.Fleet.Pool(s.PoolID)
	if !ok {
		return model.Errorf(model.KindNotFound, "pool %s is gone", s.PoolID)
	}
	if err := h.Fleet.Ledger.Reserve(p.ID, more, p.Limit()); err != nil {
		return model.Errorf(model.KindExhausted, "pool %s: rule freeCapacity: the volume has grown, and a snapshot holds its volume's size: %w", p.Name, err)
	}
	return nil
}

func (h *Handler) make(ctx context.Context, s *model.Snapshot) (drivers.Snapshot, error) {
	tg, err := h.Fleet.Target(s.PoolID)
	if err != nil {
		return drivers.Snapshot{}, err
	}
	v, ok := h.Store.Volumes.Get(s.VolumeID)
	if !ok {
		return drivers.Snapshot{}, model.Errorf(model.KindNotFound, "volume %s is gone", s.VolumeID)
	}
	ctx, cancel := context.WithTimeout(ctx, h.Limits.LongCall)
	defer cancel()
	return tg.CreateSnapshot(ctx, h.Fleet.Call(s.Task), tg.Backend, drivers.CreateSnapshot{
		ID: s.ID, Name: s.Name, TenantID: s.TenantID, ClusterID: h.Fleet.ClusterID,
		Volume: drivers.VolumeRef{ID: v.ID, Pool: tg.Pool.Name, BackendData: v.BackendData},
	})
}

// foreign ends a create whose id the backend has for something else: that is not
// ours to undo, only the reservation is given back.
func (h *Handler) foreign(j *task.Job, err error) error {
	return task.Advance(j, "snapshot.foreign", func(s *model.Snapshot, t *db.Txn) error {
		t.Account(s.PoolID, -s.Reserved)
		s.PoolID, s.Reserved = "", 0
		h.close(s, model.StatusError, err)
		return nil
	})
}

func (h *Handler) giveUp(j *task.Job, err error) error {
	return task.Advance(j, "snapshot.giveup", func(s *model.Snapshot, _ *db.Txn) error {
		s.Task.Fail(err)
		s.Task.Begin(model.StepUndo, h.Now())
		return nil
	})
}

func (h *Handler) unmake(ctx context.Context, s *model.Snapshot) error {
	tg, err := h.Fleet.Target(s.PoolID)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, h.Limits.Call)
	defer cancel()
	return tg.DeleteSnapshot(ctx, h.Fleet.Call(s.Task), tg.Backend, ref(s, tg))
}

func (h *Handler) undo(ctx context.Context, j *task.Job, s *model.Snapshot) error {
	derr := h.unmake(ctx, s)
	owe, again := h.Removed(s.Task, derr)
	if again != nil {
		return again
	}
	return task.Advance(j, "snapshot.undone", func(s *model.Snapshot, t *db.Txn) error {
		if owe {
			if err := h.owe(t, s, "undo of a create: "+derr.Error()); err != nil {
				return err
			}
		} else {
			t.Account(s.PoolID, -s.Reserved)
		}
		s.Reserved, s.PoolID = 0, ""
		h.close(s, model.StatusError, s.Task.Reason())
		return nil
	})
}

func (h *Handler) owe(t *db.Txn, s *model.Snapshot, why string) error {
	return h.Owe(t, &model.Debt{
		Meta: model.Meta{TenantID: s.TenantID}, PoolID: s.PoolID, Resource: model.ResSnapshot, ObjectID: s.ID,
		VolumeID: s.VolumeID, BackendData: s.BackendData, Reserved: s.Reserved, Reason: why,
	})
}

func (h *Handler) remove(ctx context.Context, j *task.Job, s *model.Snapshot) error {
	if s.PoolID == "" || s.Reserved == 0 {
		return h.drop(j, nil)
	}
	err := h.unmake(ctx, s)
	switch {
	case err == nil:
		return h.drop(j, nil)
	case h.DockGone(s.Task, err):
		return h.drop(j, err)
	case h.Judge(s.Task, err) == steps.Retry:
		return err
	}
	return task.Advance(j, "snapshot.errordeleting", func(s *model.Snapshot, _ *db.Txn) error {
		h.close(s, model.StatusErrorDeleting, err)
		return nil
	})
}

func (h *Handler) drop(j *task.Job, owed error) error {
	return task.Drop(j, "snapshot.drop", func(s *model.Snapshot, t *db.Txn) error {
		if owed != nil {
			return h.owe(t, s, "delete: "+owed.Error())
		}
		t.Account(s.PoolID, -s.Reserved)
		return nil
	})
}

// end ends a create that left nothing on a backend.
func (h *Handler) end(j *task.Job, label string, err error) error {
	return task.Advance(j, label, func(s *model.Snapshot, _ *db.Txn) error {
		s.PoolID, s.Reserved = "", 0
		h.close(s, model.StatusError, err)
		return nil
	})
}

// close puts a snapshot and its task into their last state, which is an error.
func (h *Handler) close(s *model.Snapshot, status model.Status, err error) {
	s.Status, s.StatusReason = status, err.Error()
	s.Task.EndWith(err, h.Now())
}

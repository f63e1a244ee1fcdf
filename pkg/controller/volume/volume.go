// Package volume does the tasks of volumes: create, delete, extend, revert.
package volume

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/osds-io/osds/pkg/controller/fleet"
	"github.com/osds-io/osds/pkg/controller/selector"
	"github.com/osds-io/osds/pkg/controller/steps"
	"github.com/osds-io/osds/pkg/controller/task"
	"github.com/osds-io/osds/pkg/db"
	"github.com/osds-io/osds/pkg/drivers"
	"github.com/osds-io/osds/pkg/model"
)

// Handler does volumes' tasks.
type Handler struct{ steps.Base }

var _ task.Handler = (*Handler)(nil)

// Class queues steps by the dock of the volume's pool.
func (h *Handler) Class(rec model.Tasked) task.Class {
	v := rec.(*model.Volume)
	if v.Existing != "" && v.Task.Step == model.StepPlace {
		return h.Bulk(v.RequestedPoolID) // its backend is asked
	}
	if v.PoolID == "" || v.Task.Step == model.StepPlace {
		return h.Control()
	}
	return h.Bulk(v.PoolID)
}

// Step does the next step.
func (h *Handler) Step(ctx context.Context, j *task.Job) error {
	v := j.Rec.(*model.Volume)
	t := v.Task
	switch t.Kind {
	case model.TaskCreate:
		return h.create(ctx, j, v)
	case model.TaskDelete:
		return h.remove(ctx, j, v)
	case model.TaskExtend:
		return h.extend(ctx, j, v)
	case model.TaskRevert:
		return h.revert(ctx, j, v)
	}
	return h.fail(j, model.Errorf(model.KindInternal, "volumes have no task %q", t.Kind))
}

func (h *Handler) create(ctx context.Context, j *task.Job, v *model.Volume) error {
	switch {
	case v.Task.Step == model.StepUndo:
		return h.undo(ctx, j, v)
	case v.Task.Cancel:
		return h.giveUp(j, model.Errorf(model.KindConflict, steps.Cancelled))
	case v.Task.Step == model.StepPlace && v.Existing != "":
		return h.placeImport(ctx, j, v)
	case v.Task.Step == model.StepPlace:
		return h.place(j, v)
	}
	return h.provision(ctx, j, v)
}

// Request is what the selector is asked for a volume. An error says that what
// the volume refers to is gone.
func Request(s *db.Store, v *model.Volume) (selector.Request, error) {
	r := selector.Request{Size: v.Size, AvailabilityZone: v.AvailabilityZone, PoolID: v.RequestedPoolID, MultiAttach: v.MultiAttach}
	p, ok := s.Profiles.Get(v.ProfileID)
	if !ok {
		return r, model.Errorf(model.KindNotFound, "profile %s is gone", v.ProfileID)
	}
	r.Profile = p
	switch {
	case v.SnapshotID != "":
		x, ok := s.Snapshots.Get(v.SnapshotID)
		if !ok {
			return r, model.Errorf(model.KindNotFound, "snapshot %s is gone", v.SnapshotID)
		}
		r.RequirePoolID, r.RequireWhy = x.PoolID, "its snapshot is there"
		r.Needs = []string{model.AbilityClone}
	case v.SourceVolumeID != "":
		x, ok := s.Volumes.Get(v.SourceVolumeID)
		if !ok {
			return r, model.Errorf(model.KindNotFound, "source volume %s is gone", v.SourceVolumeID)
		}
		r.RequirePoolID, r.RequireWhy = x.PoolID, "its source volume is there"
		r.Needs = []string{model.AbilityClone}
	}
	if v.GroupID != "" {
		g, ok := s.Groups.Get(v.GroupID)
		if !ok {
			return r, model.Errorf(model.KindNotFound, "volume group %s is gone", v.GroupID)
		}
		if r.RequirePoolID != "" && r.RequirePoolID != g.PoolID {
			return r, model.Errorf(model.KindConflict, "its source is in pool %s, its group in pool %s", r.RequirePoolID, g.PoolID)
		}
		r.RequirePoolID, r.RequireWhy = g.PoolID, "its group is there"
	}
	return r, nil
}

// place chooses a pool and reserves the size in the transaction that records
// the placement.
func (h *Handler) place(j *task.Job, v *model.Volume) error {
	r, err := Request(h.Store, v)
	if err != nil {
		return h.fail(j, err)
	}
	for _, id := range v.Task.Excluded {
		if r.Excluded == nil {
			r.Excluded = map[string]string{}
		}
		r.Excluded[id] = "an earlier try there failed: " + v.Task.Failure
	}
	var why error
	err = task.Advance(j, "volume.place", func(v *model.Volume, t *db.Txn) error {
		pool, ex, err := h.Fleet.Place(r)
		if ex != nil {
			ex.ProfileID, ex.ProfileName = r.Profile.ID, r.Profile.Name
			if b, merr := json.Marshal(ex); merr == nil {
				t.PutRaw(db.ExplanationKey(v.ID), b, 0)
			}
		}
		if model.IsKind(err, model.KindUnavailable) && h.Now().Sub(v.Task.CreatedAt) < h.Limits.Place {
			return err // a dock that restarts is back in a moment
		}
		if err != nil {
			why = err
			h.end(v, model.StatusError, err)
			return nil
		}
		why = nil
		v.PoolID, v.Reserved = pool.ID, r.Size
		t.Account(pool.ID, r.Size)
		v.Task.Begin(model.StepProvision, h.Now())
		return nil
	})
	if err == nil && why != nil {
		return nil
	}
	return err
}

func (h *Handler) provision(ctx context.Context, j *task.Job, v *model.Volume) error {
	do := h.make
	if v.Existing != "" {
		do = h.takeOver
	}
	got, err := do(ctx, v)
	if err != nil {
		if h.WaitOn(v.Task, err) {
			return err
		}
		if model.IsKind(err, model.KindExists) {
			return h.foreign(j, err)
		}
		return h.giveUp(j, err)
	}
	return task.Advance(j, "volume.created", func(v *model.Volume, _ *db.Txn) error {
		v.Status, v.StatusReason = model.StatusAvailable, ""
		v.BackendData, v.DurableName, v.DurableFormat = got.BackendData, got.DurableName, got.DurableFormat
		v.Task.Failure, v.Task.FailureKind = "", ""
		v.Task.End(model.TaskSucceeded, h.Now())
		return nil
	})
}

// foreign ends a create whose id the backend has for something else (made before
// the store was restored from a backup, say). What is there is not ours to undo:
// only the reservation is given back.
func (h *Handler) foreign(j *task.Job, err error) error {
	return task.Advance(j, "volume.foreign", func(v *model.Volume, t *db.Txn) error {
		t.Account(v.PoolID, -v.Reserved)
		v.PoolID, v.Reserved = "", 0
		h.end(v, model.StatusError, err)
		return nil
	})
}

// make asks the dock for the volume.
func (h *Handler) make(ctx context.Context, v *model.Volume) (drivers.Volume, error) {
	tg, err := h.Fleet.Target(v.PoolID)
	if err != nil {
		return drivers.Volume{}, err
	}
	req := drivers.CreateVolume{
		ID: v.ID, Name: v.Name, Pool: tg.Pool.Name, Size: v.Size,
		TenantID: v.TenantID, ClusterID: h.Fleet.ClusterID,
	}
	limit := h.Limits.Call
	switch {
	case v.SnapshotID != "":
		s, ok := h.Store.Snapshots.Get(v.SnapshotID)
		if !ok {
			return drivers.Volume{}, model.Errorf(model.KindNotFound, "snapshot %s is gone", v.SnapshotID)
		}
		req.Source = &drivers.Source{Snapshot: &drivers.SnapshotRef{ID: s.ID, VolumeID: s.VolumeID, Pool: tg.Pool.Name, BackendData: s.BackendData}, Size: s.Size}
		limit = h.Limits.LongCall
	case v.SourceVolumeID != "":
		s, ok := h.Store.Volumes.Get(v.SourceVolumeID)
		if !ok {
			return drivers.Volume{}, model.Errorf(model.KindNotFound, "source volume %s is gone", v.SourceVolumeID)
		}
		req.Source = &drivers.Source{Volume: ref(s, tg), Size: s.Size}
		limit = h.Limits.LongCall
	}
	if p, ok := h.Store.Profiles.Get(v.ProfileID); ok {
		req.Profile = p
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	return tg.CreateVolume(ctx, h.Fleet.Call(v.Task), tg.Backend, req)
}

func ref(v *model.Volume, tg *fleet.Target) *drivers.VolumeRef {
	return &drivers.VolumeRef{ID: v.ID, Pool: tg.Pool.Name, BackendData: v.BackendData}
}

// giveUp begins to undo a create; one that has no place yet needs no undo.
func (h *Handler) giveUp(j *task.Job, err error) error {
	if j.Rec.(*model.Volume).PoolID == "" {
		return h.fail(j, err)
	}
	return task.Advance(j, "volume.giveup", func(v *model.Volume, _ *db.Txn) error {
		v.Task.Fail(err)
		v.Task.Begin(model.StepUndo, h.Now())
		return nil
	})
}

// undo removes what the create may have left. Only then is the record in error,
// or placed elsewhere if the pool turned out to be full. If the dock is gone,
// the record ends in error and the removal is owed.
func (h *Handler) undo(ctx context.Context, j *task.Job, v *model.Volume) error {
	derr := h.unmake(ctx, v, v.Existing != "")
	owe, again := h.Removed(v.Task, derr)
	if again != nil {
		return again
	}
	return task.Advance(j, "volume.undone", func(v *model.Volume, t *db.Txn) error {
		pool, n := v.PoolID, v.Reserved
		why := v.Task.Reason()
		v.PoolID, v.Reserved = "", 0
		if owe {
			if err := h.Owe(t, &model.Debt{
				Meta: model.Meta{TenantID: v.TenantID}, PoolID: pool, Resource: model.ResVolume, ObjectID: v.ID,
				BackendData: v.BackendData, Reserved: n, Release: v.Existing != "", Reason: "undo of a create: " + derr.Error(),
			}); err != nil {
				return err
			}
		} else {
			t.Account(pool, -n)
			if v.Task.FailureKind == model.KindExhausted && !v.Task.Cancel && v.RequestedPoolID == "" && v.SnapshotID == "" && v.SourceVolumeID == "" && v.GroupID == "" {
				// The backend was fuller than it said: elsewhere, perhaps.
				v.Task.Excluded = append(v.Task.Excluded, pool)
				v.Task.Begin(model.StepPlace, h.Now())
				return nil
			}
		}
		h.end(v, model.StatusError, why)
		return nil
	})
}

// unmake asks the dock to remove the volume, or to give it back with its data; nil
// means that it is seen to be absent.
func (h *Handler) unmake(ctx context.Context, v *model.Volume, release bool) error {
	if release {
		return h.letGo(ctx, v)
	}
	tg, err := h.Fleet.Target(v.PoolID)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, h.Limits.Call)
	defer cancel()
	return tg.DeleteVolume(ctx, h.Fleet.Call(v.Task), tg.Backend, *ref(v, tg))
}

func (h *Handler) remove(ctx context.Context, j *task.Job, v *model.Volume) error {
	if v.PoolID == "" {
		return h.drop(j, nil)
	}
	err := h.unmake(ctx, v, v.Task.Release)
	// The volume had no snapshots or attachments when its deletion was accepted,
	// but the backend may still have one that is owed.
	if d := h.Owing(v, model.ResSnapshot, model.ResAttachment); d != nil && model.IsKind(err, model.KindBusy) {
		return &task.Wait{For: time.Second, Reason: "a part of the volume is still to be removed first: " + d.Name + ": " + d.Reason}
	}
	switch {
	case err == nil:
		return h.drop(j, nil)
	case h.DockGone(v.Task, err):
		return h.drop(j, err)
	case h.Judge(v.Task, err) == steps.Retry:
		return err
	}
	return task.Advance(j, "volume.errordeleting", func(v *model.Volume, _ *db.Txn) error {
		h.end(v, model.StatusErrorDeleting, err)
		return nil
	})
}

// drop removes the record and frees its space, or, with owed, leaves the
// removal as a debt that keeps the space.
func (h *Handler) drop(j *task.Job, owed error) error {
	return task.Drop(j, "volume.drop", func(v *model.Volume, t *db.Txn) error {
		t.DeleteRaw(db.ExplanationKey(v.ID))
		if owed == nil {
			t.Account(v.PoolID, -v.Reserved)
			return nil
		}
		return h.Owe(t, &model.Debt{
			Meta: model.Meta{TenantID: v.TenantID}, PoolID: v.PoolID, Resource: model.ResVolume, ObjectID: v.ID,
			BackendData: v.BackendData, Reserved: v.Reserved, Release: v.Task.Release, Reason: "delete: " + owed.Error(),
		})
	})
}

// fail ends a task whose volume has nothing on a backend.
func (h *Handler) fail(j *task.Job, err error) error {
	return task.Advance(j, "volume.fail", func(v *model.Volume, _ *db.Txn) error {
		h.end(v, model.StatusError, err)
		return nil
	})
}

// end puts a volume and its task into their last state.
func (h *Handler) end(v *model.Volume, s model.Status, err error) {
	v.Status, v.StatusReason = s, ""
	if err != nil {
		v.StatusReason = err.Error()
	}
	v.Task.EndWith(err, h.Now())
}

// back ends a task that failed without effect: the volume is as it was before,
// with the error of an earlier task that nobody has looked into yet, unless the
// backend has just been asked (release).
func (h *Handler) back(j *task.Job, label string, err error, release bool) error {
	return task.Advance(j, label, func(v *model.Volume, t *db.Txn) error {
		if release {
			t.Account(v.PoolID, v.Size-v.Reserved)
			v.Reserved = v.Size
		}
		was := h.settled(v)
		if v.Task.PrevStatus.Failed() && !release {
			was = v.Task.PrevStatus
		}
		h.end(v, was, err)
		v.StatusReason = fmt.Sprintf("the last %s failed: %v", v.Task.Kind, err)
		return nil
	})
}

// settled is the status a volume goes back to, by its attachments. A detach at
// the same time writes the volume too, so that one of the two transactions is
// built again.
func (h *Handler) settled(v *model.Volume) model.Status { return h.Attached(v.ID, "") }

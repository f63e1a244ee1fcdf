package api

import (
	"net/http"
	"time"

	"github.com/osds-io/osds/pkg/db"
	"github.com/osds-io/osds/pkg/model"
	"github.com/osds-io/osds/pkg/model/wire"
)

// retryTask makes a task that waits try again now. One that failed is started
// anew, as a new task, if its record is in the error state that the failure left
// behind: with all that the first request was checked for checked again.
func (s *Server) retryTask(c *call) error {
	const failed = "retry task failed: "
	if x, err := c.liveTask(); err == nil && x.rec.CurrentTask().Active() && x.rec.CurrentTask().NextRun.IsZero() {
		return c.JSON(http.StatusAccepted, x.spec(s.now())) // it waits for nothing
	}
	return c.change("api.task.retry", func(t *db.Txn) (*answer, error) {
		x, err := c.liveTask()
		if err != nil {
			return nil, prefixed(failed, err)
		}
		if x.rec.CurrentTask().Active() {
			rec, k := withTask(x.rec)
			k.NextRun = time.Time{}
			rec.Base().UpdatedAt = s.now()
			t.Update(rec)
			return &answer{status: http.StatusAccepted, body: task{rec: rec}.spec(s.now())}, nil
		}
		rec, err := c.startAgain(t, x.rec)
		if err != nil {
			return nil, prefixed(failed, err)
		}
		rec.Base().UpdatedAt = s.now()
		t.Update(rec)
		return &answer{status: http.StatusAccepted, body: task{rec: rec}.spec(s.now())}, nil
	})
}

// startAgain gives the record as it is with its failed operation started anew.
func (c *call) startAgain(t *db.Txn, r model.Tasked) (model.Tasked, error) {
	if k := r.CurrentTask(); k.State == model.TaskSucceeded {
		return nil, model.Errorf(model.KindBusy, "task %s succeeded: there is nothing to try again", k.ID)
	}
	if r.GetStatus() == model.StatusError && r.CurrentTask().Kind == model.TaskCreate {
		// The undo of the failed create may still be owed: it would remove what
		// a second one makes.
		t.If(db.Key(model.ResDebt, debtID(r)), db.Absent)
		if d, ok := c.store().Debts.Get(debtID(r)); ok {
			return nil, model.Errorf(model.KindBusy, "what the failed create left behind is still to be removed (debt %s: %s); wait for it, or delete the record", d.ID, d.Reason)
		}
	}
	switch x := r.(type) {
	case *model.Volume:
		return c.volumeAgain(t, x)
	case *model.Snapshot:
		return c.snapshotAgain(t, x)
	case *model.Attachment:
		return c.attachmentAgain(t, x)
	case *model.Group:
		return c.groupAgain(t, x)
	}
	return nil, model.Errorf(model.KindUnsupported, "task %s cannot be started again", r.CurrentTask().ID)
}

// debtID is the id of the debt for what a record left on a backend: the
// controllers name debts so, and a record has at most one.
func debtID(r model.Record) string { return string(r.Res()) + "." + r.Base().ID }

// noWayBack refuses to start an operation again, and says what to do instead.
func noWayBack(r model.Tasked, wayOut string) error {
	k := r.CurrentTask()
	return model.Errorf(model.KindBusy, "task %s (%s) %s and %s %s is %s: %s",
		k.ID, k.Kind, k.State, singular(r.Res()), r.Base().ID, r.GetStatus(), wayOut)
}

// asNew makes a new task for an operation on a record.
func (c *call) asNew(r model.Tasked, kind model.TaskKind, prev model.Status) *model.Task {
	return model.NewTask(r.Res(), kind, prev, c.id, c.s.now())
}

func (c *call) volumeAgain(t *db.Txn, v *model.Volume) (model.Tasked, error) {
	n, k := v.Clone(), v.Task
	n.StatusReason = ""
	switch {
	case v.Status == model.StatusError && k.Kind == model.TaskCreate:
		if v.Reserved != 0 {
			return nil, noWayBack(v, "it still holds space; delete it")
		}
		again, err := c.newVolume(t, &wire.VolumeSpec{
			Base: wire.Base{ID: v.ID}, Name: v.Name, Description: v.Description, Size: v.Size.GBCeil(), AvailabilityZone: v.AvailabilityZone,
			ProfileID: v.ProfileID, PoolID: v.RequestedPoolID, SnapshotID: v.SnapshotID, SourceVolumeID: v.SourceVolumeID,
			GroupID: v.GroupID, MultiAttach: v.MultiAttach, Metadata: v.Metadata,
		})
		if err != nil {
			return nil, err
		}
		n.Status, n.Task, n.PoolID, n.BackendData = model.StatusCreating, again.Task, "", nil
		n.DurableName, n.DurableFormat = "", ""
	case v.Status == model.StatusErrorDeleting:
		if err := c.mayDeleteVolume(t, v); err != nil {
			return nil, err
		}
		n.Status, n.Task = model.StatusDeleting, c.asNew(v, model.TaskDelete, v.Status)
	case v.Status == model.StatusErrorExtending && k.Kind == model.TaskExtend:
		if err := c.mayResize(t, v, k.NewSize.GBCeil()); err != nil {
			return nil, err
		}
		n.Status, n.Task = model.StatusExtending, c.asNew(v, model.TaskExtend, v.Status)
		n.Task.NewSize = k.NewSize
	case v.Status == model.StatusErrorReverting && k.Kind == model.TaskRevert:
		x, ok := c.store().Snapshots.Get(k.SnapshotID)
		if !ok {
			return nil, noWayBack(v, "its snapshot is gone; revert it to another one, or delete it")
		}
		if _, err := c.mayRevert(t, x, v.ID); err != nil {
			return nil, err
		}
		t.Update(x.Clone())
		n.Status, n.Task = model.StatusReverting, c.asNew(v, model.TaskRevert, v.Status)
		n.Task.SnapshotID = k.SnapshotID
	case v.Status.Failed():
		return nil, noWayBack(v, "delete it")
	default:
		return nil, noWayBack(v, "send the request again")
	}
	return n, nil
}

func (c *call) snapshotAgain(t *db.Txn, x *model.Snapshot) (model.Tasked, error) {
	n := x.Clone()
	n.StatusReason = ""
	switch {
	case x.Status == model.StatusError && x.Task.Kind == model.TaskCreate:
		if x.Reserved != 0 {
			return nil, noWayBack(x, "it still holds space; delete it")
		}
		again, err := c.newSnapshot(t, &wire.VolumeSnapshotSpec{
			Name: x.Name, Description: x.Description, VolumeID: x.VolumeID, ProfileID: x.ProfileID, Metadata: x.Metadata,
		})
		if err != nil {
			return nil, err
		}
		n.Status, n.Task, n.PoolID, n.Size, n.BackendData = model.StatusCreating, again.Task, again.PoolID, again.Size, nil
	case x.Status == model.StatusErrorDeleting:
		if err := c.mayDeleteSnapshot(x); err != nil {
			return nil, err
		}
		n.Status, n.Task = model.StatusDeleting, c.asNew(x, model.TaskDelete, x.Status)
	case x.Status.Failed():
		return nil, noWayBack(x, "delete it")
	default:
		return nil, noWayBack(x, "send the request again")
	}
	return n, nil
}

func (c *call) attachmentAgain(t *db.Txn, a *model.Attachment) (model.Tasked, error) {
	n := a.Clone()
	n.StatusReason = ""
	switch {
	case a.Status == model.StatusError && a.Task.Kind == model.TaskCreate:
		again, err := c.newAttachment(t, &wire.VolumeAttachmentSpec{
			VolumeID: a.VolumeID, HostID: a.HostID, AttachMode: a.AttachMode, Mountpoint: a.Mountpoint, Metadata: a.Metadata,
		})
		if err != nil {
			return nil, err
		}
		n.Status, n.Task, n.Connection, n.AccessProtocol = model.StatusCreating, again.Task, nil, again.AccessProtocol
	case a.Status == model.StatusErrorDeleting:
		return c.asDetached(a, a.Task.Force), nil
	case a.Status == model.StatusAvailable && a.Task.Kind == model.TaskResize:
		// The reason stays until the host has seen the size.
		n.StatusReason, n.Task = a.StatusReason, c.asNew(a, model.TaskResize, a.Status)
		n.Task.NewSize, n.Task.GrowFS = a.Task.NewSize, a.Task.GrowFS
	case a.Status.Failed():
		return nil, noWayBack(a, "delete it")
	default:
		return nil, noWayBack(a, "send the request again")
	}
	return n, nil
}

func (c *call) groupAgain(t *db.Txn, g *model.Group) (model.Tasked, error) {
	n := g.Clone()
	n.StatusReason = ""
	switch {
	case g.Status == model.StatusError && g.Task.Kind == model.TaskCreate:
		again, err := c.newGroup(t, &wire.VolumeGroupSpec{Name: g.Name, Description: g.Description, Profiles: g.Profiles, AvailabilityZone: g.AvailabilityZone})
		if err != nil {
			return nil, err
		}
		n.Status, n.Task, n.PoolID = model.StatusCreating, again.Task, ""
	case g.Status == model.StatusErrorDeleting:
		if err := c.mayDeleteGroup(t, g); err != nil {
			return nil, err
		}
		n.Status, n.Task = model.StatusDeleting, c.asNew(g, model.TaskDelete, g.Status)
	case g.Status.Failed():
		return nil, noWayBack(g, "its members are as they were; delete it")
	default:
		return nil, noWayBack(g, "send the request again")
	}
	return n, nil
}

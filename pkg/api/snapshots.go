package api

import (
	"net/http"

	"github.com/gorilla/mux"

	"github.com/osds-io/osds/pkg/db"
	"github.com/osds-io/osds/pkg/model"
	"github.com/osds-io/osds/pkg/model/wire"
)

func (s *Server) routesSnapshots(r *mux.Router) {
	s.tenantHandle(r, "/block/snapshots", methods{http.MethodGet: s.listSnapshots, http.MethodPost: s.createSnapshot})
	s.tenantHandle(r, "/block/snapshots/{snapshotId}", methods{
		http.MethodGet: s.getSnapshot, http.MethodPut: s.updateSnapshot, http.MethodDelete: s.deleteSnapshot,
	})
	s.tenantHandle(r, "/block/snapshots/{snapshotId}/revert", methods{http.MethodPost: s.revertSnapshot})
}

var snapshotShape = shapeOf(wire.VolumeSnapshotSpec{})

func showSnapshot(x *model.Snapshot) any { return wire.FromSnapshot(x) }

// snapshot gives the snapshot that the path names.
func (c *call) snapshot() (*model.Snapshot, error) {
	id := c.pathID("snapshotId")
	x, ok := c.store().Snapshots.GetOf(c.scope(), id)
	if !ok {
		return nil, notFound("volume snapshot", id, "specified volume snapshot("+shorten(id)+") can't find")
	}
	return x, nil
}

func (s *Server) listSnapshots(c *call) error { return list(c, s.Store.Snapshots, showSnapshot) }

func (s *Server) getSnapshot(c *call) error {
	x, err := c.snapshot()
	if err != nil {
		return err
	}
	return c.Record(http.StatusOK, x.Rev, wire.FromSnapshot(x))
}

// createSnapshot accepts a new snapshot and writes its volume again, so that the
// volume cannot be deleted in between.
func (s *Server) createSnapshot(c *call) error {
	var spec wire.VolumeSnapshotSpec
	if err := c.decode("volume snapshot", &spec); err != nil {
		return err
	}
	id, err := c.newID(spec.ID)
	if err != nil {
		return err
	}
	release, err := c.hold(spec.VolumeID)
	if err != nil {
		return err
	}
	defer release()
	return c.change("api.snapshot.create", func(t *db.Txn) (*answer, error) {
		if err := idIsFree(s.Store.Snapshots, "volume snapshot", id); err != nil {
			return nil, err
		}
		x, err := c.newSnapshot(t, &spec)
		if err != nil {
			return nil, prefixed("create volume snapshot failed: ", err)
		}
		x.ID = id
		createRecord(t, x)
		return accepted(wire.FromSnapshot(x)), nil
	})
}

func (c *call) newSnapshot(t *db.Txn, spec *wire.VolumeSnapshotSpec) (*model.Snapshot, error) {
	if err := model.ValidateName("name", spec.Name, false); err != nil {
		return nil, err
	}
	if err := model.ValidateDescription(spec.Description); err != nil {
		return nil, err
	}
	if spec.VolumeID == "" {
		return nil, model.Invalid("volumeId", "volumeId is missing: give the id of the volume")
	}
	v, err := c.otherVolume("volumeId", spec.VolumeID)
	if err != nil {
		return nil, err
	}
	if !model.MayStart(model.ResVolume, model.TaskSnapshot, v.Status) {
		return nil, busy(v.Task, "only volumes that are available or inUse can be snapshotted, volume %s is %s", v.ID, v.Status)
	}
	if err := c.guardGroup(t, v); err != nil {
		return nil, err
	}
	p, err := c.poolOf(v)
	if err != nil {
		return nil, err
	}
	if !p.Can(model.AbilitySnapshot) {
		return nil, &model.Error{Kind: model.KindUnsupported, Field: "volumeId", Message: "pool " + p.Name + " cannot make snapshots"}
	}
	profileID := spec.ProfileID
	if profileID == "" {
		profileID = v.ProfileID
	}
	if profileID != "" {
		profile, err := c.usableProfile(nil, profileID)
		if err != nil {
			return nil, err
		}
		t.If(db.Key(model.ResProfile, profile.ID), profile.Rev)
	}
	meta := make(map[string]string, len(v.Metadata)+len(spec.Metadata))
	for k, x := range v.Metadata {
		meta[k] = x
	}
	for k, x := range spec.Metadata {
		meta[k] = x
	}
	if err := model.ValidateMetadata("metadata", meta); err != nil {
		return nil, err
	}
	t.Update(v.Clone())
	now := c.s.now()
	return &model.Snapshot{
		Meta:     model.Meta{TenantID: c.tenant, UserID: c.user, Name: spec.Name, Description: spec.Description, CreatedAt: now},
		VolumeID: v.ID, ProfileID: profileID, PoolID: v.PoolID, Size: v.Size, Status: model.StatusCreating, Metadata: meta,
		Task: model.NewTask(model.ResSnapshot, model.TaskCreate, "", c.id, now),
	}, nil
}

// updateSnapshot changes name and description.
func (s *Server) updateSnapshot(c *call) error {
	release, err := c.hold(c.pathID("snapshotId"))
	if err != nil {
		return err
	}
	defer release()
	return c.change("api.snapshot.update", func(t *db.Txn) (*answer, error) {
		old, err := c.snapshot()
		if err != nil {
			return nil, err
		}
		if err := c.ifMatch(old.Rev); err != nil {
			return nil, err
		}
		in, err := c.patch("volume snapshot", snapshotShape)
		if err != nil {
			return nil, err
		}
		x := old.Clone()
		if err := in.nameAndDescription(&x.Meta, func(n string) error { return model.ValidateName("name", n, false) }); err != nil {
			return nil, prefixed("update volume snapshot failed: ", err)
		}
		if err := in.rest(wire.FromSnapshot(old)); err != nil {
			return nil, err
		}
		x.UpdatedAt = s.now()
		t.Update(x)
		return done(wire.FromSnapshot(x)), nil
	})
}

// deleteSnapshot accepts the deletion of a snapshot. Clones and reverts write
// the snapshot again when they begin, so the guard on its revision says that
// none came in between.
func (s *Server) deleteSnapshot(c *call) error {
	release, err := c.hold(c.pathID("snapshotId"))
	if err != nil {
		return err
	}
	defer release()
	return c.change("api.snapshot.delete", func(t *db.Txn) (*answer, error) {
		old, err := c.snapshot()
		if err != nil {
			return nil, err
		}
		if err := c.ifMatch(old.Rev); err != nil {
			return nil, err
		}
		if err := c.mayDeleteSnapshot(old); err != nil {
			return nil, prefixed("delete volume snapshot failed: ", err)
		}
		x := old.Clone()
		now := s.now()
		x.Task = model.NewTask(model.ResSnapshot, model.TaskDelete, old.Status, c.id, now)
		x.Status, x.StatusReason, x.UpdatedAt = model.StatusDeleting, "", now
		t.Update(x)
		return &answer{status: http.StatusAccepted}, nil
	})
}

func (c *call) mayDeleteSnapshot(x *model.Snapshot) error {
	if x.Task.Active() || !model.MayStart(model.ResSnapshot, model.TaskDelete, x.Status) {
		return busy(x.Task, "only the volume snapshot with the status available, error, errorDeleting can be deleted, the volume snapshot status is %s", x.Status)
	}
	if v := cloning(c.store(), "snapshotId", x.ID); v != nil {
		return model.Errorf(model.KindBusy, "volume snapshot %s can not be deleted, because volume %s is being made from it", x.ID, v.ID)
	}
	if v, ok := c.store().Volumes.Get(x.VolumeID); ok && v.Task.Active() && v.Task.SnapshotID == x.ID {
		return busy(v.Task, "volume snapshot %s can not be deleted, because volume %s is being reverted to it", x.ID, v.ID)
	}
	return nil
}

// revertSnapshot accepts that the snapshot's volume goes back to what it was
// then. The task is the volume's; the snapshot is written again, so that it
// stays.
func (s *Server) revertSnapshot(c *call) error {
	var spec wire.RevertSpec
	if err := c.decodeOptional("revert", &spec); err != nil {
		return err
	}
	x, err := c.snapshot()
	if err != nil {
		return err
	}
	release, err := c.hold(x.ID, x.VolumeID)
	if err != nil {
		return err
	}
	defer release()
	return c.change("api.snapshot.revert", func(t *db.Txn) (*answer, error) {
		x, err := c.snapshot()
		if err != nil {
			return nil, err
		}
		if err := c.ifMatch(x.Rev); err != nil {
			return nil, err
		}
		old, err := c.mayRevert(t, x, spec.VolumeID)
		if err != nil {
			return nil, prefixed("revert volume failed: ", err)
		}
		v := old.Clone()
		now := s.now()
		v.Task = model.NewTask(model.ResVolume, model.TaskRevert, old.Status, c.id, now)
		v.Task.SnapshotID = x.ID
		v.Status, v.StatusReason, v.UpdatedAt = model.StatusReverting, "", now
		t.Update(v).Update(x.Clone())
		return accepted(volumeJSON{v}), nil
	})
}

// mayRevert gives the volume of a snapshot if it may go back now.
func (c *call) mayRevert(t *db.Txn, x *model.Snapshot, want string) (*model.Volume, error) {
	if want != "" && want != x.VolumeID {
		return nil, model.Invalid("volumeId", "volume snapshot %s is of volume %s, not of %s", x.ID, x.VolumeID, shorten(want))
	}
	v, ok := c.store().Volumes.GetOf(c.scope(), x.VolumeID)
	if !ok {
		return nil, model.Invalid("volumeId", "specified volume(%s) can't find", x.VolumeID)
	}
	if x.Status != model.StatusAvailable {
		return nil, busy(x.Task, "volume snapshot %s is %s, it must be available", x.ID, x.Status)
	}
	if v.Task.Active() || !model.MayStart(model.ResVolume, model.TaskRevert, v.Status) {
		return nil, busy(v.Task, "only a volume that is available, and so not attached, can be reverted, volume %s is %s", v.ID, v.Status)
	}
	if c.store().Attachments.Count("volumeId", v.ID) > 0 {
		return nil, model.Errorf(model.KindBusy, "volume %s has attachments: delete them first", v.ID)
	}
	// What is being copied must be what was there when the copy was accepted.
	if y := cloning(c.store(), "sourceVolumeId", v.ID); y != nil {
		return nil, model.Errorf(model.KindBusy, "volume %s is being cloned to volume %s", v.ID, y.ID)
	}
	for _, y := range c.store().Snapshots.Where("volumeId", v.ID, 0) {
		if y.Status == model.StatusCreating {
			return nil, busy(y.Task, "volume snapshot %s of volume %s is being made", y.ID, v.ID)
		}
	}
	if err := c.guardGroup(t, v); err != nil {
		return nil, err
	}
	p, err := c.poolOf(v)
	if err != nil {
		return nil, err
	}
	if !p.Can(model.AbilityRevert) {
		return nil, model.Errorf(model.KindUnsupported, "pool %s cannot revert volumes to snapshots", p.Name)
	}
	return v, nil
}

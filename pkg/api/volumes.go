package api

import (
	"encoding/json"
	"net/http"
	"strings"

	"github.com/gorilla/mux"

	"github.com/osds-io/osds/pkg/db"
	"github.com/osds-io/osds/pkg/model"
	"github.com/osds-io/osds/pkg/model/wire"
)

func (s *Server) routesVolumes(r *mux.Router) {
	s.tenantHandle(r, "/block/volumes/{volumeId}", methods{
		http.MethodGet: s.getVolume, http.MethodPut: s.updateVolume, http.MethodDelete: s.deleteVolume,
	})
	s.tenantHandle(r, "/block/volumes", methods{http.MethodGet: s.listVolumes, http.MethodPost: s.createVolume})
	s.tenantHandle(r, "/block/volumes/{volumeId}/resize", methods{http.MethodPost: s.resizeVolume})
	s.tenantHandle(r, "/block/volumes/{volumeId}/explanation", methods{http.MethodGet: s.getExplanation})
}

var volumeShape = shapeOf(wire.VolumeSpec{})

func showVolume(v *model.Volume) any { return volumeJSON{v} }

// volume gives the volume that the path names.
func (c *call) volume() (*model.Volume, error) {
	id := c.pathID("volumeId")
	v, ok := c.store().Volumes.GetOf(c.scope(), id)
	if !ok {
		if c.admin {
			return nil, notFound("volume", id, "specified volume("+shorten(id)+") can't find")
		}
		return nil, notFound("volume", id, "Wrong resource uuid provided!")
	}
	return v, nil
}

// otherVolume gives a volume that a body names.
func (c *call) otherVolume(field, id string) (*model.Volume, error) {
	v, ok := c.store().Volumes.GetOf(c.scope(), id)
	if !ok {
		return nil, model.Invalid(field, "specified volume(%s) can't find", shorten(id))
	}
	return v, nil
}

// pool gives the pool that a volume is in.
func (c *call) poolOf(v *model.Volume) (*model.Pool, error) {
	p, ok := c.store().Pools.Get(v.PoolID)
	if !ok {
		return nil, model.Errorf(model.KindBusy, "volume %s is in pool %q, which is not known", v.ID, v.PoolID)
	}
	return p, nil
}

func (s *Server) listVolumes(c *call) error { return list(c, s.Store.Volumes, showVolume) }

func (s *Server) getVolume(c *call) error {
	v, err := c.volume()
	if err != nil {
		return err
	}
	return c.Record(http.StatusOK, v.Rev, volumeJSON{v})
}

// getExplanation says why a volume is where it is, or is nowhere.
func (s *Server) getExplanation(c *call) error {
	v, err := c.volume()
	if err != nil {
		return err
	}
	b, _, err := s.Store.GetRaw(c.ctx, db.ExplanationKey(v.ID))
	if err != nil {
		return err
	}
	if b == nil {
		return model.Errorf(model.KindNotFound, "volume %s has no explanation: it has not been placed yet", v.ID)
	}
	return c.JSON(http.StatusOK, json.RawMessage(b))
}

// updateVolume changes name, description and metadata. Metadata is merged; null
// removes a key.
func (s *Server) updateVolume(c *call) error {
	release, err := c.hold(c.pathID("volumeId"))
	if err != nil {
		return err
	}
	defer release()
	return c.change("api.volume.update", func(t *db.Txn) (*answer, error) {
		old, err := c.volume()
		if err != nil {
			return nil, err
		}
		if err := c.ifMatch(old.Rev); err != nil {
			return nil, err
		}
		in, err := c.patch("volume", volumeShape)
		if err != nil {
			return nil, err
		}
		v := old.Clone()
		if err := in.nameAndDescription(&v.Meta, model.ValidateVolumeName); err != nil {
			return nil, prefixed("update volume failed: ", err)
		}
		var meta map[string]*string
		if _, err := in.take("metadata", &meta); err != nil {
			return nil, err
		}
		if v.Metadata, err = mergeMetadata(v.Metadata, v.BackendData, meta); err != nil {
			return nil, prefixed("update volume failed: ", err)
		}
		if err := in.rest(wire.FromVolume(old)); err != nil {
			return nil, err
		}
		v.UpdatedAt = s.now()
		t.Update(v)
		return done(volumeJSON{v}), nil
	})
}

// mergeMetadata merges what a client sent into its metadata. What the driver
// keeps there is shown with it, so it comes back unchanged from clients that
// send what they read.
func mergeMetadata(own, backend map[string]string, in map[string]*string) (map[string]string, error) {
	for k, v := range in {
		if b, ok := backend[k]; ok {
			if v == nil || *v != b {
				return nil, model.Invalid("metadata."+k, "metadata.%s is kept by the storage driver and cannot be changed", shorten(k))
			}
			continue
		}
		if v == nil {
			delete(own, k)
			continue
		}
		if own == nil {
			own = map[string]string{}
		}
		own[k] = *v
	}
	return own, model.ValidateMetadata("metadata", own)
}

// resizeVolume accepts the growth of a volume.
func (s *Server) resizeVolume(c *call) error {
	var spec wire.ExtendVolumeSpec
	if err := c.decode("volume", &spec); err != nil {
		return err
	}
	release, err := c.hold(c.pathID("volumeId"))
	if err != nil {
		return err
	}
	defer release()
	return c.change("api.volume.resize", func(t *db.Txn) (*answer, error) {
		old, err := c.volume()
		if err != nil {
			return nil, err
		}
		if err := c.ifMatch(old.Rev); err != nil {
			return nil, err
		}
		if err := c.mayResize(t, old, spec.NewSize); err != nil {
			return nil, prefixed("extend volume failed: ", err)
		}
		if spec.GrowFileSystem {
			if err := c.mayGrowFS(old); err != nil {
				return nil, prefixed("extend volume failed: ", err)
			}
		}
		v := old.Clone()
		now := s.now()
		v.Task = model.NewTask(model.ResVolume, model.TaskExtend, old.Status, c.id, now)
		v.Task.NewSize, v.Task.GrowFS = model.FromGB(spec.NewSize), spec.GrowFileSystem
		v.Status, v.StatusReason, v.UpdatedAt = model.StatusExtending, "", now
		t.Update(v)
		return accepted(volumeJSON{v}), nil
	})
}

// mayResize says whether a volume may grow now. A volume in use needs a pool
// that can grow it under its users.
func (c *call) mayResize(t *db.Txn, v *model.Volume, newSize int64) error {
	const original = "the status of the volume to be extended must be available!"
	if v.Task.Active() || !model.MayStart(model.ResVolume, model.TaskExtend, v.Status) {
		return busy(v.Task, "%s It is %s", original, v.Status)
	}
	if x := cloning(c.store(), "sourceVolumeId", v.ID); x != nil {
		return model.Errorf(model.KindBusy, "volume %s is being cloned to volume %s, which was accepted with its present size", v.ID, x.ID)
	}
	if err := c.guardGroup(t, v); err != nil {
		return err
	}
	p, err := c.poolOf(v)
	if err != nil {
		return err
	}
	switch {
	case v.Status == model.StatusInUse && !p.Can(model.AbilityExpandLive):
		return model.Errorf(model.KindUnsupported, "%s It is %s, and pool %s cannot grow volumes in use", original, v.Status, p.Name)
	case !p.Can(model.AbilityExpand):
		return model.Errorf(model.KindUnsupported, "pool %s cannot grow volumes", p.Name)
	}
	return model.ValidateExtend(v.Size, newSize)
}

// mayGrowFS says whether there is a file system that a dock can grow: of a volume
// that one host alone has attached, through its dock, for writing.
func (c *call) mayGrowFS(v *model.Volume) error {
	const field = "growFileSystem"
	live := 0
	for _, a := range c.store().Attachments.Where("volumeId", v.ID, 0) {
		switch {
		case a.Status == model.StatusError:
			continue
		case a.DockID == "":
			return model.Invalid(field, "growFileSystem: the host of attachment %s attaches by itself, without a dock of type attacher: grow the file system there", a.ID)
		case a.AttachMode == "ro":
			return model.Invalid(field, "growFileSystem: attachment %s is read-only", a.ID)
		}
		live++
	}
	if live != 1 {
		return model.Invalid(field, "growFileSystem: volume %s has %d attachments, and exactly one host must have it attached", v.ID, live)
	}
	return nil
}

// deleteVolume accepts the deletion of a volume. What depends on a volume wrote
// it again when it was made, so the guard on its revision says that nothing came
// in between.
func (s *Server) deleteVolume(c *call) error {
	release, err := c.hold(c.pathID("volumeId"))
	if err != nil {
		return err
	}
	defer release()
	return c.change("api.volume.delete", func(t *db.Txn) (*answer, error) {
		old, err := c.volume()
		if err != nil {
			return nil, err
		}
		if err := c.ifMatch(old.Rev); err != nil {
			return nil, err
		}
		if err := c.mayDeleteVolume(t, old); err != nil {
			return nil, prefixed("delete volume failed: ", err)
		}
		keep, err := c.released(old)
		if err != nil {
			return nil, prefixed("delete volume failed: ", err)
		}
		v := old.Clone()
		now := s.now()
		v.Task = model.NewTask(model.ResVolume, model.TaskDelete, old.Status, c.id, now)
		v.Task.Release = keep
		v.Status, v.StatusReason, v.UpdatedAt = model.StatusDeleting, "", now
		t.Update(v)
		return &answer{status: http.StatusAccepted}, nil
	})
}

func (c *call) mayDeleteVolume(t *db.Txn, v *model.Volume) error {
	if v.Task.Active() || !model.MayStart(model.ResVolume, model.TaskDelete, v.Status) {
		return busy(v.Task, "only the volume with the status available, error, error_deleting, error_extending can be deleted, the volume status is %s", v.Status)
	}
	st := c.store()
	switch {
	case st.Snapshots.Count("volumeId", v.ID) > 0:
		return model.Errorf(model.KindBusy, "volume %s can not be deleted, because it still has snapshots", v.ID)
	case st.Attachments.Count("volumeId", v.ID) > 0:
		return model.Errorf(model.KindBusy, "volume %s can not be deleted, because it's in use", v.ID)
	case v.ReplicationID != "":
		return model.Errorf(model.KindBusy, "volume %s can not be deleted, because it is part of replication %s", v.ID, v.ReplicationID)
	}
	if x := cloning(st, "sourceVolumeId", v.ID); x != nil {
		return model.Errorf(model.KindBusy, "volume %s can not be deleted, because volume %s is being made from it", v.ID, x.ID)
	}
	for _, g := range st.Groups.Where("status", string(model.StatusUpdating), 0) {
		if contains(g.AddVolumes, v.ID) || contains(g.RemoveVolumes, v.ID) {
			return model.Errorf(model.KindBusy, "volume %s can not be deleted, because volume group %s is being updated with it", v.ID, g.ID)
		}
	}
	return c.guardGroup(t, v)
}

// cloning gives a volume that is being made from a source; field says what sort
// of source.
func cloning(st *db.Store, field, id string) *model.Volume {
	for _, v := range st.Volumes.Where(field, id, 0) {
		if v.Status == model.StatusCreating {
			return v
		}
	}
	return nil
}

func contains(list []string, s string) bool {
	for _, x := range list {
		if x == s {
			return true
		}
	}
	return false
}

// guardGroup refuses work on a member of a group that is being deleted, and
// guards on the group's revision, so that its deletion cannot begin meanwhile.
func (c *call) guardGroup(t *db.Txn, v *model.Volume) error {
	if v.GroupID == "" {
		return nil
	}
	g, ok := c.store().Groups.Get(v.GroupID)
	if !ok {
		return nil
	}
	if g.Status == model.StatusDeleting {
		return busy(g.Task, "volume %s is a member of volume group %s, which is being deleted", v.ID, g.ID)
	}
	t.If(db.Key(model.ResGroup, g.ID), g.Rev)
	return nil
}

// busy refuses because of a record's state. If work is going on, it says which,
// and how to end it.
func busy(t *model.Task, format string, args ...any) error {
	e := model.Errorf(model.KindBusy, format, args...)
	if t.Active() {
		e.Message = strings.TrimSuffix(e.Message, ".") + "; task " + t.ID + " (" + string(t.Kind) + ") is in progress: wait for it"
		if t.Kind == model.TaskCreate {
			e.Message += ", or cancel it (osdsctl task cancel " + t.ID + ")"
		}
	}
	return e
}

package api

import (
	"net/http"

	"github.com/gorilla/mux"

	"github.com/osds-io/osds/pkg/db"
	"github.com/osds-io/osds/pkg/model"
	"github.com/osds-io/osds/pkg/model/wire"
)

// Bounds of a volume group: a change of all members must fit in a transaction.
const (
	maxGroupMembers  = 100
	maxGroupProfiles = 16
)

func (s *Server) routesGroups(r *mux.Router) {
	s.tenantHandle(r, "/block/volumeGroups", methods{http.MethodGet: s.listGroups, http.MethodPost: s.createGroup})
	s.tenantHandle(r, "/block/volumeGroups/{volumeGroupId}", methods{
		http.MethodGet: s.getGroup, http.MethodPut: s.updateGroup, http.MethodDelete: s.deleteGroup,
	})
}

var groupShape = shapeOf(wire.VolumeGroupSpec{})

func showGroup(g *model.Group) any { return wire.FromGroup(g) }

// group gives the volume group that the path names.
func (c *call) group() (*model.Group, error) {
	id := c.pathID("volumeGroupId")
	g, ok := c.store().Groups.GetOf(c.scope(), id)
	if !ok {
		return nil, notFound("volume group", id, "Wrong resource uuid provided!")
	}
	return g, nil
}

func (s *Server) listGroups(c *call) error { return list(c, s.Store.Groups, showGroup) }

func (s *Server) getGroup(c *call) error {
	g, err := c.group()
	if err != nil {
		return err
	}
	return c.Record(http.StatusOK, g.Rev, wire.FromGroup(g))
}

func (s *Server) createGroup(c *call) error {
	var spec wire.VolumeGroupSpec
	if err := c.decode("volume group", &spec); err != nil {
		return err
	}
	id, err := c.newID(spec.ID)
	if err != nil {
		return err
	}
	return c.change("api.group.create", func(t *db.Txn) (*answer, error) {
		if err := idIsFree(s.Store.Groups, "volume group", id); err != nil {
			return nil, err
		}
		g, err := c.newGroup(t, &spec)
		if err != nil {
			return nil, prefixed("create volume group failed: ", err)
		}
		g.ID = id
		t.Create(g)
		return accepted(wire.FromGroup(g)), nil
	})
}

func (c *call) newGroup(t *db.Txn, spec *wire.VolumeGroupSpec) (*model.Group, error) {
	switch {
	case len(spec.Profiles) == 0:
		return nil, model.Invalid("profiles", "profiles must be provided to create volume group.")
	case len(spec.Profiles) > maxGroupProfiles:
		return nil, model.Invalid("profiles", "profiles has %d entries, at most %d are allowed", len(spec.Profiles), maxGroupProfiles)
	case len(spec.AddVolumes) > 0 || len(spec.RemoveVolumes) > 0:
		return nil, &model.Error{Kind: model.KindUnsupported, Field: "addVolumes",
			Message: "volumes cannot be given when a group is created: create it empty and add them with PUT"}
	}
	if err := model.ValidateName("name", spec.Name, false); err != nil {
		return nil, err
	}
	if err := model.ValidateDescription(spec.Description); err != nil {
		return nil, err
	}
	zone := spec.AvailabilityZone
	if zone == "" {
		zone = defaultZone
	}
	if err := model.ValidateZone("availabilityZone", zone); err != nil {
		return nil, err
	}
	var profiles []string
	for _, id := range spec.Profiles {
		if contains(profiles, id) {
			continue
		}
		p, err := c.usableProfile(nil, id)
		if err != nil {
			e := model.AsError(err)
			e.Field = "profiles"
			return nil, e
		}
		if p.StorageType != storageBlock {
			return nil, model.Invalid("profiles", "profile %s is for %s storage: a volume group needs profiles for %s storage", p.ID, p.StorageType, storageBlock)
		}
		t.If(db.Key(model.ResProfile, p.ID), p.Rev)
		profiles = append(profiles, id)
	}
	now := c.s.now()
	return &model.Group{
		Meta:   model.Meta{TenantID: c.tenant, UserID: c.user, Name: spec.Name, Description: spec.Description, CreatedAt: now},
		Status: model.StatusCreating, AvailabilityZone: zone, Profiles: profiles,
		Task: model.NewTask(model.ResGroup, model.TaskCreate, "", c.id, now),
	}, nil
}

// updateGroup changes name and description at once, and accepts the change of
// the members. Members are written again, so that none can be deleted or join
// another group in between.
func (s *Server) updateGroup(c *call) error {
	release, err := c.hold(c.pathID("volumeGroupId"))
	if err != nil {
		return err
	}
	defer release()
	return c.change("api.group.update", func(t *db.Txn) (*answer, error) {
		old, err := c.group()
		if err != nil {
			return nil, err
		}
		if err := c.ifMatch(old.Rev); err != nil {
			return nil, err
		}
		in, err := c.patch("volume group", groupShape)
		if err != nil {
			return nil, err
		}
		g := old.Clone()
		if err := c.patchGroup(t, in, g); err != nil {
			return nil, prefixed("update volume group failed: ", err)
		}
		if err := in.rest(wire.FromGroup(old)); err != nil {
			return nil, err
		}
		now := s.now()
		g.UpdatedAt = now
		if len(g.AddVolumes)+len(g.RemoveVolumes) > 0 {
			g.Task = model.NewTask(model.ResGroup, model.TaskUpdate, old.Status, c.id, now)
			g.Status, g.StatusReason = model.StatusUpdating, ""
		}
		t.Update(g)
		return accepted(wire.FromGroup(g)), nil
	})
}

// patchGroup takes a group's fields out of a PUT into g.
func (c *call) patchGroup(t *db.Txn, in *patch, g *model.Group) error {
	name, err := in.text("name")
	if err != nil {
		return err
	}
	desc, err := in.text("description")
	if err != nil {
		return err
	}
	var add, remove []string
	if _, err := in.take("addVolumes", &add); err != nil {
		return err
	}
	if _, err := in.take("removeVolumes", &remove); err != nil {
		return err
	}
	if (name == nil || *name == "") && desc == nil && len(add) == 0 && len(remove) == 0 {
		return model.Errorf(model.KindInvalid, "update group %s faild, because no valid name, description, addvolumes or removevolumes were provided", g.ID)
	}
	if name != nil && *name != "" {
		if err := model.ValidateName("name", *name, false); err != nil {
			return err
		}
		g.Name = *name
	}
	if desc != nil {
		if err := model.ValidateDescription(*desc); err != nil {
			return err
		}
		g.Description = *desc
	}
	if len(add)+len(remove) == 0 {
		return nil
	}
	if g.Task.Active() || !model.MayStart(model.ResGroup, model.TaskUpdate, g.Status) {
		return busy(g.Task, "only a volume group that is available or inUse can be updated, volume group %s is %s", g.ID, g.Status)
	}
	return c.changeMembers(t, g, add, remove)
}

// changeMembers checks which volumes join and leave a group.
func (c *call) changeMembers(t *db.Txn, g *model.Group, add, remove []string) error {
	if n := len(add) + len(remove); n > maxGroupMembers {
		return model.Invalid("addVolumes", "%d volumes are given, at most %d are allowed at a time", n, maxGroupMembers)
	}
	g.AddVolumes, g.RemoveVolumes = nil, nil
	for _, id := range add {
		if contains(remove, id) {
			return model.Invalid("addVolumes", "volume %s is to be added and removed: it must be in one of addVolumes and removeVolumes only", shorten(id))
		}
		if contains(g.AddVolumes, id) {
			continue
		}
		v, err := c.otherVolume("addVolumes", id)
		if err != nil {
			return err
		}
		if err := mayJoin(v, g); err != nil {
			return err
		}
		for _, other := range c.store().Groups.Where("status", string(model.StatusUpdating), 0) {
			if contains(other.AddVolumes, id) {
				return model.Errorf(model.KindBusy, "volume %s is being added to group %s", id, other.ID)
			}
		}
		g.AddVolumes = append(g.AddVolumes, id)
		t.Update(v.Clone())
	}
	for _, id := range remove {
		if contains(g.RemoveVolumes, id) {
			continue
		}
		v, err := c.otherVolume("removeVolumes", id)
		if err != nil {
			return err
		}
		if v.GroupID != g.ID {
			return model.Invalid("removeVolumes", "volume %s is not in group %s", id, g.ID)
		}
		if v.Task.Active() || v.Status.Transitional() {
			return busy(v.Task, "volume %s is %s, and so cannot leave group %s now", id, v.Status, g.ID)
		}
		g.RemoveVolumes = append(g.RemoveVolumes, id)
		t.Update(v.Clone())
	}
	if n := c.store().Volumes.Count("groupId", g.ID) + len(g.AddVolumes) - len(g.RemoveVolumes); n > maxGroupMembers {
		return model.Invalid("addVolumes", "volume group %s would have %d members, at most %d are allowed", g.ID, n, maxGroupMembers)
	}
	return nil
}

// mayJoin says whether a volume may become a member of a group.
func mayJoin(v *model.Volume, g *model.Group) error {
	switch {
	case v.GroupID != "":
		return model.Invalid("addVolumes", "volume %s is already in group %s", v.ID, v.GroupID)
	case !contains(g.Profiles, v.ProfileID):
		return model.Invalid("addVolumes", "volume profile is not supported by the group: volume %s has profile %s", v.ID, v.ProfileID)
	case v.Task.Active(), v.Status != model.StatusAvailable && v.Status != model.StatusInUse:
		return busy(v.Task, "volume %s is %s, it must be available or inUse to join group %s", v.ID, v.Status, g.ID)
	case g.PoolID != "" && v.PoolID != g.PoolID:
		return model.Invalid("addVolumes", "volume is not local to the pool of group: volume %s is in pool %s, group %s in pool %s", v.ID, v.PoolID, g.ID, g.PoolID)
	}
	return nil
}

// deleteGroup accepts the deletion of a group with its members. It guards on
// each member, which new snapshots and attachments write again; they in turn
// guard on the group.
func (s *Server) deleteGroup(c *call) error {
	release, err := c.hold(c.pathID("volumeGroupId"))
	if err != nil {
		return err
	}
	defer release()
	return c.change("api.group.delete", func(t *db.Txn) (*answer, error) {
		old, err := c.group()
		if err != nil {
			return nil, err
		}
		if err := c.ifMatch(old.Rev); err != nil {
			return nil, err
		}
		if err := c.mayDeleteGroup(t, old); err != nil {
			return nil, prefixed("delete volume group failed: ", err)
		}
		g := old.Clone()
		now := s.now()
		g.Task = model.NewTask(model.ResGroup, model.TaskDelete, old.Status, c.id, now)
		g.Status, g.StatusReason, g.UpdatedAt = model.StatusDeleting, "", now
		t.Update(g)
		return &answer{status: http.StatusAccepted}, nil
	})
}

func (c *call) mayDeleteGroup(t *db.Txn, g *model.Group) error {
	if g.Task.Active() || !model.MayStart(model.ResGroup, model.TaskDelete, g.Status) {
		return busy(g.Task, "only the volume group with the status available, error, errorDeleting, inUse can be deleted, the volume group status is %s", g.Status)
	}
	st := c.store()
	members := st.Volumes.Where("groupId", g.ID, 0)
	if len(members) > maxGroupMembers {
		return model.Errorf(model.KindBusy, "volume group %s has %d members: remove some first", g.ID, len(members))
	}
	for _, v := range members {
		switch {
		case st.Snapshots.Count("volumeId", v.ID) > 0:
			return model.Errorf(model.KindBusy, "volume %s of group %s still has snapshots", v.ID, g.ID)
		case st.Attachments.Count("volumeId", v.ID) > 0:
			return model.Errorf(model.KindBusy, "volume %s of group %s is attached", v.ID, g.ID)
		case v.ReplicationID != "":
			return model.Errorf(model.KindBusy, "volume %s of group %s is part of replication %s", v.ID, g.ID, v.ReplicationID)
		case v.Task.Active() && v.Task.Kind != model.TaskDelete:
			return busy(v.Task, "volume %s of group %s is %s", v.ID, g.ID, v.Status)
		}
		if x := cloning(st, "sourceVolumeId", v.ID); x != nil {
			return model.Errorf(model.KindBusy, "volume %s is being made from volume %s of group %s", x.ID, v.ID, g.ID)
		}
		t.If(db.Key(model.ResVolume, v.ID), v.Rev)
	}
	return nil
}

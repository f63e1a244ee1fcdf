package api

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/osds-io/osds/pkg/db"
	"github.com/osds-io/osds/pkg/model"
	"github.com/osds-io/osds/pkg/model/wire"
)

// Names and values that the original gives a meaning.
const (
	defaultProfile  = "default_block"
	defaultZone     = "default"
	storageBlock    = "block"
	multiAttachKey  = "capabilities:multiAttach"
	defaultMaxPools = 50
	maxMaxPools     = 1000
)

// deletionWait is how long a create waits for the end of its profile's deletion,
// which may be refused.
const deletionWait = 2 * time.Second

// createVolume accepts a new volume, or, with ?dryRun=explain, says where it
// would be placed.
func (s *Server) createVolume(c *call) error {
	var spec wire.VolumeSpec
	if err := c.decode("volume", &spec); err != nil {
		return err
	}
	id, err := c.newID(spec.ID)
	if err != nil {
		return err
	}
	spec.ID = id
	if c.r.URL.RawQuery != "" {
		if maxPools, ok, err := dryRun(c.r.URL.RawQuery); err != nil {
			return err
		} else if ok {
			return s.explainVolume(c, &spec, maxPools)
		}
	}
	release, err := c.hold(spec.SnapshotID, spec.SourceVolumeID, spec.GroupID)
	if err != nil {
		return err
	}
	defer release()
	return c.change("api.volume.create", func(t *db.Txn) (*answer, error) {
		if err := idIsFree(s.Store.Volumes, "volume", id); err != nil {
			return nil, err
		}
		v, err := c.newVolume(t, &spec)
		if err != nil {
			return nil, err
		}
		createRecord(t, v)
		return accepted(volumeJSON{v}), nil
	})
}

// dryRun reads the query of a create.
func dryRun(raw string) (maxPools int, ok bool, err error) {
	q, err := url.ParseQuery(raw)
	if err != nil {
		return 0, false, model.Errorf(model.KindInvalid, "the query string is not well-formed: %w", err)
	}
	switch d := q.Get("dryRun"); d {
	case "":
		return 0, false, nil
	case "explain":
	default:
		return 0, false, model.Invalid("dryRun", "dryRun %q is not known: use explain", shorten(d))
	}
	n, err := number(q, "maxPools", defaultMaxPools)
	return min(n, maxMaxPools), true, err
}

// explainVolume plans a volume and writes nothing.
func (s *Server) explainVolume(c *call, spec *wire.VolumeSpec, maxPools int) error {
	if spec.Existing != "" {
		return &model.Error{Kind: model.KindUnsupported, Field: "existing", Message: "an imported volume stays where it is: there is nothing to explain"}
	}
	if s.Planner == nil {
		return model.Errorf(model.KindUnavailable, "this server cannot plan volumes")
	}
	v, err := c.newVolume(&db.Txn{}, spec)
	if err != nil {
		return err
	}
	x, err := s.Planner.Explain(c.ctx, v, maxPools)
	if err != nil {
		return err
	}
	return c.JSON(http.StatusOK, x)
}

// volumeSource is what a new volume is a copy of: at most one of the two.
type volumeSource struct {
	snapshot *model.Snapshot
	volume   *model.Volume
	pool     *model.Pool
	size     model.Bytes
	profile  string
	zone     string
}

// newVolume makes the record of a new volume and adds to the transaction what
// must not change until it is written. The texts are the original's where it has
// one.
func (c *call) newVolume(t *db.Txn, spec *wire.VolumeSpec) (*model.Volume, error) {
	src, err := c.volumeSource(t, spec)
	if err != nil {
		return nil, prefixed("create volume failed: ", err)
	}
	now := c.s.now()
	v := &model.Volume{
		Meta: model.Meta{ID: spec.ID, TenantID: c.tenant, UserID: c.user, Name: spec.Name, Description: spec.Description, CreatedAt: now},
		Size: model.FromGB(spec.Size), AvailabilityZone: spec.AvailabilityZone, Status: model.StatusCreating,
		RequestedPoolID: spec.PoolID, GroupID: spec.GroupID, SnapshotID: spec.SnapshotID, SourceVolumeID: spec.SourceVolumeID,
		MultiAttach: spec.MultiAttach, Metadata: spec.Metadata,
	}
	profile, err := c.volumeProfile(t, spec.ProfileID, src)
	if err != nil {
		return nil, err
	}
	v.ProfileID = profile.ID
	v.MultiAttach = v.MultiAttach || asksMultiAttach(profile)
	if spec.Existing != "" {
		if err := c.importedVolume(spec, v); err != nil {
			return nil, prefixed("create volume failed: ", err)
		}
	}
	if err := checkVolume(spec, src); err != nil {
		return nil, prefixed("create volume failed: ", err)
	}
	if src != nil && spec.Size == 0 {
		v.Size = src.size
	}
	if err := c.volumePlace(t, v, src); err != nil {
		return nil, prefixed("create volume failed: ", err)
	}
	v.Task = model.NewTask(model.ResVolume, model.TaskCreate, "", c.id, now)
	return v, nil
}

// checkVolume checks the fields that need nothing else.
func checkVolume(spec *wire.VolumeSpec, src *volumeSource) error {
	if err := model.ValidateVolumeName(spec.Name); err != nil {
		return err
	}
	if spec.Existing == "" && (spec.Size != 0 || src == nil || src.volume == nil) { // a clone's size may be left out
		if err := model.ValidateSizeGB("size", spec.Size); err != nil {
			return err
		}
	}
	switch {
	case src == nil, spec.Size == 0:
	case src.snapshot != nil && model.FromGB(spec.Size) < src.size:
		return model.Invalid("size", "size of volume must be equal to or bigger than size of the snapshot")
	case model.FromGB(spec.Size) < src.size:
		return model.Invalid("size", "size of volume must be equal to or bigger than size of the source volume (%d GB)", src.size.GBCeil())
	}
	if err := model.ValidateDescription(spec.Description); err != nil {
		return err
	}
	if spec.AvailabilityZone != "" {
		if err := model.ValidateZone("availabilityZone", spec.AvailabilityZone); err != nil {
			return err
		}
	}
	switch {
	case spec.SnapshotFromCloud:
		return &model.Error{Kind: model.KindUnsupported, Field: "snapshotFromCloud", Message: "volumes cannot be made from snapshots in a cloud"}
	case spec.ReplicationID != "":
		return &model.Error{Kind: model.KindUnsupported, Field: "replicationId",
			Message: "replicationId cannot be given: a volume becomes part of a replication when that is created"}
	}
	return model.ValidateMetadata("metadata", spec.Metadata)
}

// volumeSource reads what a new volume is to be a copy of, and writes it again,
// so that it stays until the copy is made. It gives nil for an empty volume.
func (c *call) volumeSource(t *db.Txn, spec *wire.VolumeSpec) (*volumeSource, error) {
	var src *volumeSource
	var poolID, field string
	switch {
	case spec.SnapshotID != "" && spec.SourceVolumeID != "":
		return nil, model.Invalid("sourceVolumeId", "snapshotId and sourceVolumeId cannot be given together: use one of them")
	case spec.SnapshotID != "":
		x, ok := c.store().Snapshots.GetOf(c.scope(), spec.SnapshotID)
		if !ok {
			return nil, model.Invalid("snapshotId", "specified volume snapshot(%s) can't find", shorten(spec.SnapshotID))
		}
		if x.Status != model.StatusAvailable {
			return nil, busy(x.Task, "snapshot %s is %s, it must be available", x.ID, x.Status)
		}
		if v, ok := c.store().Volumes.Get(x.VolumeID); ok {
			if err := c.guardGroup(t, v); err != nil {
				return nil, err
			}
		}
		t.Update(x.Clone())
		src = &volumeSource{snapshot: x, size: x.Size, profile: x.ProfileID}
		poolID, field = x.PoolID, "snapshotId"
	case spec.SourceVolumeID != "":
		v, err := c.otherVolume("sourceVolumeId", spec.SourceVolumeID)
		if err != nil {
			return nil, err
		}
		if !model.MayStart(model.ResVolume, model.TaskSnapshot, v.Status) {
			return nil, busy(v.Task, "source volume %s is %s, it must be available or inUse", v.ID, v.Status)
		}
		if err := c.guardGroup(t, v); err != nil {
			return nil, err
		}
		t.Update(v.Clone())
		src = &volumeSource{volume: v, size: v.Size, profile: v.ProfileID}
		poolID, field = v.PoolID, "sourceVolumeId"
	default:
		return nil, nil
	}
	p, ok := c.store().Pools.Get(poolID)
	if !ok {
		return nil, model.Errorf(model.KindBusy, "the source is in pool %q, which is not known", poolID)
	}
	if !p.Can(model.AbilityClone) {
		return nil, &model.Error{Kind: model.KindUnsupported, Field: field, Message: "pool " + p.Name + " cannot make volumes from snapshots or volumes"}
	}
	src.pool, src.zone = p, p.AvailabilityZone
	return src, nil
}

// volumeProfile gives the profile of a new volume: the one asked for, else the
// source's, else the default one. The guard on its revision keeps it from being
// deleted meanwhile.
func (c *call) volumeProfile(t *db.Txn, id string, src *volumeSource) (*model.Profile, error) {
	if id == "" && src != nil {
		id = src.profile
	}
	var p *model.Profile
	if id == "" {
		for _, x := range c.store().Profiles.Where("name", defaultProfile, 1) {
			if x.StorageType == storageBlock {
				p = x
			}
		}
		if p == nil {
			return nil, model.Invalid("profileId", "get default profile failed: can't find profile(name: %s, storageType:%s)", defaultProfile, storageBlock)
		}
	}
	p, err := c.usableProfile(p, id)
	if err != nil {
		return nil, err
	}
	if p.StorageType != storageBlock {
		return nil, model.Invalid("profileId", "profile %s is for %s storage: a volume needs one for %s storage", p.ID, p.StorageType, storageBlock)
	}
	t.If(db.Key(model.ResProfile, p.ID), p.Rev)
	return p, nil
}

// usableProfile gives a profile that new records may name: p, or that with the
// id. One that is just being deleted is waited for, because its deletion may be
// refused; the mark of a deletion that nobody goes on with is taken away.
func (c *call) usableProfile(p *model.Profile, id string) (*model.Profile, error) {
	var wait context.Context
	for {
		if p == nil {
			var ok bool
			if p, ok = c.store().Profiles.Get(id); !ok {
				return nil, model.Invalid("profileId", "get profile failed: Wrong resource uuid provided!")
			}
		}
		if !p.Deleting {
			return p, nil
		}
		if c.s.now().Sub(p.UpdatedAt) > abandoned {
			q, err := c.s.markDeleting(c.ctx, p, false)
			var lost *db.ErrConflict
			if err != nil && !errors.As(err, &lost) {
				return nil, err
			}
			if err == nil {
				return q, nil
			}
		}
		if wait == nil {
			ctx, cancel := context.WithTimeout(c.ctx, deletionWait)
			defer cancel()
			wait = ctx
		}
		// Anything that happens may be the end of the deletion; taken before
		// the profile is looked at, no change is missed.
		next := c.store().Rev() + 1
		if x, ok := c.store().Profiles.Get(p.ID); ok && x.Rev == p.Rev {
			if err := c.store().WaitRev(wait, next); err != nil {
				return nil, model.Errorf(model.KindBusy, "profile %s is being deleted", p.ID)
			}
		}
		p, id = nil, p.ID
	}
}

// asksMultiAttach says whether a profile asks for volumes that several hosts may
// use, in the original's words.
func asksMultiAttach(p *model.Profile) bool {
	switch v := p.Custom[multiAttachKey].(type) {
	case bool:
		return v
	case string:
		f := strings.Fields(v)
		return len(f) == 2 && f[0] == "<is>" && strings.EqualFold(f[1], "true")
	}
	return false
}

// volumePlace checks and completes where a new volume may go: its zone, pool and
// group. A copy is made in its source's pool, a member in its group's.
func (c *call) volumePlace(t *db.Txn, v *model.Volume, src *volumeSource) error {
	var pool *model.Pool
	if v.RequestedPoolID != "" {
		p, ok := c.store().Pools.Get(v.RequestedPoolID)
		if !ok {
			return model.Invalid("poolId", "specified pool(%s) can't find", shorten(v.RequestedPoolID))
		}
		if p.StorageType != storageBlock {
			return model.Invalid("poolId", "pool %s is for %s storage: a volume needs one for %s storage", p.ID, p.StorageType, storageBlock)
		}
		pool = p
	}
	if src != nil {
		if pool != nil && pool.ID != src.pool.ID {
			return model.Invalid("poolId", "the volume must be made in pool %s, where its source is: leave poolId out", src.pool.ID)
		}
		pool = src.pool
	}
	if v.GroupID != "" {
		var err error
		if pool, err = c.joinGroup(t, v, pool); err != nil {
			return err
		}
	}
	if pool != nil {
		v.RequestedPoolID = pool.ID
		if v.AvailabilityZone == "" {
			v.AvailabilityZone = pool.AvailabilityZone
		}
		if v.AvailabilityZone != pool.AvailabilityZone {
			return model.Invalid("availabilityZone", "pool %s is in availability zone %q, not in %q", pool.ID, pool.AvailabilityZone, v.AvailabilityZone)
		}
	}
	if v.AvailabilityZone == "" {
		v.AvailabilityZone = defaultZone
	}
	return nil
}

// joinGroup checks that a new volume may be a member of its group, and writes
// the group again, so that it stays. It gives the pool that the volume must be
// in.
func (c *call) joinGroup(t *db.Txn, v *model.Volume, pool *model.Pool) (*model.Pool, error) {
	g, ok := c.store().Groups.GetOf(c.scope(), v.GroupID)
	if !ok {
		return nil, model.Invalid("groupId", "specified volume group(%s) can't find", shorten(v.GroupID))
	}
	if g.Task.Active() || !model.MayStart(model.ResGroup, model.TaskUpdate, g.Status) {
		return nil, busy(g.Task, "volume group %s is %s, it must be available", g.ID, g.Status)
	}
	if !contains(g.Profiles, v.ProfileID) {
		return nil, model.Invalid("profileId", "volume profile %s is not supported by the group %s", v.ProfileID, g.ID)
	}
	if n := c.store().Volumes.Count("groupId", g.ID); n >= maxGroupMembers {
		return nil, model.Invalid("groupId", "volume group %s has %d members, at most %d are allowed", g.ID, n, maxGroupMembers)
	}
	t.Update(g.Clone())
	if g.PoolID == "" {
		return pool, nil
	}
	p, ok := c.store().Pools.Get(g.PoolID)
	if !ok {
		return nil, model.Errorf(model.KindBusy, "volume group %s is in pool %q, which is not known", g.ID, g.PoolID)
	}
	if pool != nil && pool.ID != p.ID {
		return nil, model.Invalid("groupId", "volume group %s is in pool %s, the volume would be in pool %s", g.ID, p.ID, pool.ID)
	}
	return p, nil
}

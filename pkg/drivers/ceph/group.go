//go:build ceph

package ceph

import (
	"context"
	"slices"
	"sort"
	"time"

	"github.com/ceph/go-ceph/rbd"

	"github.com/osds-io/osds/internal/keylock"
	"github.com/osds-io/osds/pkg/drivers"
	"github.com/osds-io/osds/pkg/model"
)

// groupEntry says what a group snapshot is of. It is written before the snapshot
// is made.
type groupEntry struct {
	GroupID string    `json:"groupId"`
	Volumes []string  `json:"volumes"`
	Name    string    `json:"name,omitempty"`
	Tenant  string    `json:"tenantId,omitempty"`
	Cluster string    `json:"clusterId,omitempty"`
	Created time.Time `json:"created"`
}

func groupName(id string) string { return namePrefix + id }

// groupLocks are the locks of a group and its volumes.
func groupLocks(groupID string, volumes []string) []keylock.Want {
	w := []keylock.Want{{Key: "g/" + groupID}}
	for _, v := range volumes {
		w = append(w, lockVolume(v))
	}
	return w
}

func (e groupEntry) snapshot(id, pool string) drivers.GroupSnapshot {
	return drivers.GroupSnapshot{ID: id, GroupID: e.GroupID, Pool: pool, VolumeIDs: e.Volumes, TenantID: e.Tenant, ClusterID: e.Cluster}
}

// CreateGroupSnapshot takes a snapshot of several volumes at one moment: librbd
// takes the locks of all images, which halts writes, before the first snapshot.
func (d *Driver) CreateGroupSnapshot(ctx context.Context, r drivers.CreateGroupSnapshot) (drivers.GroupSnapshot, error) {
	none := drivers.GroupSnapshot{}
	if err := r.Check(); err != nil {
		return none, err
	}
	if _, err := d.pool(r.Pool); err != nil {
		return none, err
	}
	e := groupEntry{GroupID: r.GroupID, Name: r.Name, Tenant: r.TenantID, Cluster: r.ClusterID, Created: time.Now().UTC()}
	if e.Cluster == "" {
		e.Cluster = d.cluster
	}
	for _, v := range r.Volumes {
		e.Volumes = append(e.Volumes, v.ID)
	}
	sort.Strings(e.Volumes)
	return on(ctx, d, r.Pool, "group snapshot "+r.ID, groupLocks(r.GroupID, e.Volumes), func(ctx context.Context, s *space) (drivers.GroupSnapshot, error) {
		var have groupEntry
		found, err := s.dir.get(groupKey+r.ID, &have)
		if err != nil {
			return none, err
		}
		if found && (have.GroupID != e.GroupID || !slices.Equal(have.Volumes, e.Volumes)) {
			return none, model.Errorf(model.KindExists, "group snapshot %s is there already, of group %s with %d volumes", r.ID, have.GroupID, len(have.Volumes))
		}
		state, err := s.groupSnap(r.GroupID, r.ID)
		if err != nil {
			return none, err
		}
		if found && state == groupSnapWhole {
			return have.snapshot(r.ID, s.name), nil
		}
		for _, v := range e.Volumes {
			img, err := s.openVolume(v, false)
			if err != nil {
				return none, err
			}
			img.close()
		}
		if err := step(ctx, "group.begin"); err != nil {
			return none, err
		}
		if err := s.dir.put(map[string]any{groupKey + r.ID: e}); err != nil {
			return none, err
		}
		if err := s.snapGroup(ctx, r.ID, e, state); err != nil {
			if ctx.Err() == nil && s.dropGroupSnap(ctx, r.ID, e) == nil {
				_ = s.dir.drop(groupKey + r.ID)
			}
			return none, err
		}
		return e.snapshot(r.ID, s.name), step(ctx, "group.end")
	})
}

// The states of a group snapshot.
type groupSnapState int

const (
	groupSnapNone groupSnapState = iota
	groupSnapPart
	groupSnapWhole
)

func (s *space) groupSnap(groupID, id string) (groupSnapState, error) {
	l, err := rbd.GroupSnapList(s.io, groupName(groupID))
	if absent(err) {
		return groupSnapNone, nil
	}
	if err != nil {
		return groupSnapNone, err
	}
	for _, x := range l {
		if x.Name == snapName(id) {
			if x.State == rbd.GroupSnapStateComplete {
				return groupSnapWhole, nil
			}
			return groupSnapPart, nil
		}
	}
	return groupSnapNone, nil
}

// snapGroup makes the group what it has to be, and takes the snapshot.
func (s *space) snapGroup(ctx context.Context, id string, e groupEntry, state groupSnapState) error {
	group := groupName(e.GroupID)
	if state != groupSnapNone {
		if err := rbd.GroupSnapRemove(s.io, group, snapName(id)); err != nil && !absent(err) {
			return err
		}
	}
	if err := step(ctx, "group.noted"); err != nil {
		return err
	}
	if err := rbd.GroupCreate(s.io, group); err != nil && !errnoIs(err, rbd.ErrExist) {
		return err
	}
	if err := s.setMembers(ctx, e); err != nil {
		return err
	}
	if err := step(ctx, "group.joined"); err != nil {
		return err
	}
	return rbd.GroupSnapCreate(s.io, group, snapName(id))
}

// setMembers makes a group's images those of the entry. Who is in it for older
// snapshots cannot leave.
func (s *space) setMembers(ctx context.Context, e groupEntry) error {
	group := groupName(e.GroupID)
	l, err := rbd.GroupImageList(s.io, group)
	if err != nil {
		return err
	}
	older, err := rbd.GroupSnapList(s.io, group)
	if err != nil {
		return err
	}
	in := map[string]bool{}
	for _, i := range l {
		in[i.Name] = true
	}
	for _, v := range e.Volumes {
		n := imageName(v)
		if in[n] {
			delete(in, n)
			continue
		}
		if err := rbd.GroupImageAdd(s.io, group, s.io, n); err != nil {
			if errnoIs(err, rbd.ErrExist) {
				return model.Errorf(model.KindBusy, "volume %s is in another group: %w", v, err)
			}
			return err
		}
		if err := step(ctx, "group.added"); err != nil {
			return err
		}
	}
	for n := range in {
		if len(older) > 0 {
			return model.Errorf(model.KindBusy, "the group %s has snapshots with other volumes, such as %s: delete those snapshots first", e.GroupID, n)
		}
		if err := rbd.GroupImageRemove(s.io, group, s.io, n); err != nil && !absent(err) {
			return err
		}
	}
	return nil
}

// dropGroupSnap removes a group snapshot, and the group with its last one.
func (s *space) dropGroupSnap(ctx context.Context, id string, e groupEntry) error {
	group := groupName(e.GroupID)
	if err := rbd.GroupSnapRemove(s.io, group, snapName(id)); err != nil && !absent(err) {
		return err
	}
	if err := step(ctx, "ungroup.removed"); err != nil {
		return err
	}
	left, err := rbd.GroupSnapList(s.io, group)
	if absent(err) {
		return nil
	}
	if err != nil || len(left) > 0 {
		return err
	}
	l, err := rbd.GroupImageList(s.io, group)
	if err != nil {
		return err
	}
	for _, i := range l {
		if err := rbd.GroupImageRemove(s.io, group, s.io, i.Name); err != nil && !absent(err) {
			return err
		}
	}
	if err := step(ctx, "ungroup.left"); err != nil {
		return err
	}
	if err := rbd.GroupRemove(s.io, group); err != nil && !absent(err) {
		return err
	}
	return nil
}

// noGroup takes an image out of a group of ours that has no snapshots: one that
// was broken off left it there.
func (s *space) noGroup(img *image) error {
	g, err := img.GetGroup()
	if err != nil || g.Name == "" {
		return ignoreAbsent(err)
	}
	busy := model.Errorf(model.KindBusy, "volume %s is in the group %s", img.id, g.Name)
	if _, ours := cutPrefix(g.Name, namePrefix); !ours || g.PoolID != s.l.ids[s.name] {
		return busy
	}
	snaps, err := rbd.GroupSnapList(s.io, g.Name)
	if err != nil || len(snaps) > 0 {
		if err == nil {
			err = busy
		}
		return err
	}
	return ignoreAbsent(rbd.GroupImageRemove(s.io, g.Name, s.io, imageName(img.id)))
}

func ignoreAbsent(err error) error {
	if absent(err) {
		return nil
	}
	return err
}

// findGroup reads the entry of a group snapshot.
func (d *Driver) findGroup(ctx context.Context, r drivers.GroupSnapshotRef) (groupEntry, error) {
	if err := r.Check(); err != nil {
		return groupEntry{}, err
	}
	e, err := on(ctx, d, r.Pool, "group snapshot "+r.ID, nil, func(_ context.Context, s *space) (groupEntry, error) { return s.groupEntry(r.ID) })
	if err == nil && e.GroupID != r.GroupID {
		err = model.Invalid("groupId", "group snapshot %s is of group %s, not of %s", r.ID, e.GroupID, r.GroupID)
	}
	return e, err
}

func (s *space) groupEntry(id string) (groupEntry, error) {
	var e groupEntry
	found, err := s.dir.get(groupKey+id, &e)
	if err == nil && !found {
		err = model.Errorf(model.KindNotFound, "group snapshot %s is not there", id)
	}
	return e, err
}

// GetGroupSnapshot gives a group snapshot that is whole.
func (d *Driver) GetGroupSnapshot(ctx context.Context, r drivers.GroupSnapshotRef) (drivers.GroupSnapshot, error) {
	none := drivers.GroupSnapshot{}
	e, err := d.findGroup(ctx, r)
	if err != nil {
		return none, err
	}
	return on(ctx, d, r.Pool, "group snapshot "+r.ID, nil, func(_ context.Context, s *space) (drivers.GroupSnapshot, error) {
		state, err := s.groupSnap(e.GroupID, r.ID)
		if err != nil {
			return none, err
		}
		if state != groupSnapWhole {
			return none, model.Errorf(model.KindNotFound, "group snapshot %s is not there", r.ID)
		}
		return e.snapshot(r.ID, s.name), nil
	})
}

// DeleteGroupSnapshot removes a group snapshot, whole or not.
func (d *Driver) DeleteGroupSnapshot(ctx context.Context, r drivers.GroupSnapshotRef) error {
	e, err := d.findGroup(ctx, r)
	if err == nil {
		_, err = on(ctx, d, r.Pool, "group snapshot "+r.ID, groupLocks(e.GroupID, e.Volumes), func(ctx context.Context, s *space) (struct{}, error) {
			if _, err := s.groupEntry(r.ID); err != nil {
				return struct{}{}, err
			}
			if err := step(ctx, "ungroup.begin"); err != nil {
				return struct{}{}, err
			}
			if err := s.dropGroupSnap(ctx, r.ID, e); err != nil {
				return struct{}{}, err
			}
			return struct{}{}, s.dir.drop(groupKey + r.ID)
		})
	}
	if model.IsKind(err, model.KindNotFound) {
		return nil
	}
	return err
}

// RevertGroup puts all volumes of a group snapshot back to it.
func (d *Driver) RevertGroup(ctx context.Context, r drivers.GroupSnapshotRef) error {
	e, err := d.findGroup(ctx, r)
	if err != nil {
		return err
	}
	_, err = on(ctx, d, r.Pool, "group snapshot "+r.ID, groupLocks(e.GroupID, e.Volumes), func(ctx context.Context, s *space) (struct{}, error) {
		return struct{}{}, s.revertGroup(ctx, r.ID, e)
	})
	return err
}

func (s *space) revertGroup(ctx context.Context, id string, e groupEntry) error {
	state, err := s.groupSnap(e.GroupID, id)
	if err != nil {
		return err
	}
	if state != groupSnapWhole {
		return model.Errorf(model.KindNotFound, "group snapshot %s is not there", id)
	}
	sizes := map[string]model.Bytes{}
	for _, v := range e.Volumes {
		if sizes[v], err = s.noteSize(v); err != nil {
			return err
		}
	}
	if err := step(ctx, "revertGroup.noted"); err != nil {
		return err
	}
	if err := rbd.GroupSnapRollback(s.io, groupName(e.GroupID), snapName(id)); err != nil {
		return err
	}
	if err := step(ctx, "revertGroup.rolled"); err != nil {
		return err
	}
	for _, v := range e.Volumes {
		if err := s.regrow(v, sizes[v]); err != nil {
			return err
		}
	}
	return nil
}

// noteSize notes in a volume's image how large it is, before it may shrink.
func (s *space) noteSize(id string) (model.Bytes, error) {
	if err := s.notExported(id); err != nil {
		return 0, err
	}
	img, err := s.openVolume(id, true)
	if err != nil {
		return 0, err
	}
	defer img.close()
	if err := s.notWatched(img); err != nil {
		return 0, err
	}
	full := img.fullSize()
	if err := img.SetMetadata(revertMeta, itoa(int64(full))); err != nil {
		return 0, err
	}
	return full, img.Image.Close()
}

// regrow makes a volume as large as it was.
func (s *space) regrow(id string, full model.Bytes) error {
	img, err := s.openVolume(id, true)
	if err != nil {
		return err
	}
	defer img.close()
	if img.raw < full {
		if err := img.Resize(uint64(full)); err != nil {
			return err
		}
	}
	if err := img.RemoveMetadata(revertMeta); err != nil && !absent(err) {
		return err
	}
	return img.Image.Close()
}

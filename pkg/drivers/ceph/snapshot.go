//go:build ceph

package ceph

import (
	"context"
	"encoding/json"
	"time"

	"github.com/ceph/go-ceph/rbd"

	"github.com/osds-io/osds/internal/keylock"
	"github.com/osds-io/osds/pkg/drivers"
	"github.com/osds-io/osds/pkg/model"
)

func noSnapshot(id string) error {
	return model.Errorf(model.KindNotFound, "snapshot %s is not there", id)
}

// lookSnapshot looks at a snapshot that must be whole, and at its volume.
// volumeID is what the caller takes for the volume; empty if it does not know.
func (s *space) lookSnapshot(id, volumeID string) (*image, *snap, snapshotEntry, error) {
	var e snapshotEntry
	found, err := s.dir.get(snapshotKey+id, &e)
	if err != nil {
		return nil, nil, e, err
	}
	if !found || !model.ValidID(e.VolumeID) {
		return nil, nil, e, noSnapshot(id)
	}
	if volumeID != "" && volumeID != e.VolumeID {
		return nil, nil, e, model.Invalid("volumeId", "snapshot %s is of volume %s, not of %s", id, e.VolumeID, volumeID)
	}
	img, err := s.look(e.VolumeID)
	if err != nil {
		return nil, nil, e, err
	}
	if img == nil || !img.whole {
		return nil, nil, e, noSnapshot(id)
	}
	snaps, err := s.lookSnaps(img)
	if err != nil {
		return nil, nil, e, err
	}
	if sn := find(snaps, snapName(id)); sn != nil {
		return img, sn, e, nil
	}
	return nil, nil, e, noSnapshot(id)
}

func (s *space) snapshot(id string, e snapshotEntry, img *image, sn *snap) drivers.Snapshot {
	return drivers.Snapshot{ID: id, VolumeID: e.VolumeID, Pool: s.name, Size: model.Bytes(sn.Size) - img.tag.header(),
		TenantID: e.Tenant, ClusterID: e.Cluster}
}

// CreateSnapshot takes a snapshot of a volume as it is at one moment; also of one
// that is in use.
func (d *Driver) CreateSnapshot(ctx context.Context, r drivers.CreateSnapshot) (drivers.Snapshot, error) {
	none := drivers.Snapshot{}
	if err := r.Check(); err != nil {
		return none, err
	}
	wants := []keylock.Want{lockSnapshot(r.ID), lockVolume(r.Volume.ID)}
	return on(ctx, d, r.Volume.Pool, "snapshot "+r.ID, wants, func(ctx context.Context, s *space) (drivers.Snapshot, error) {
		var e snapshotEntry
		found, err := s.dir.get(snapshotKey+r.ID, &e)
		if err != nil {
			return none, err
		}
		if found && e.VolumeID != r.Volume.ID {
			return none, model.Errorf(model.KindExists, "snapshot %s is there already, of volume %s", r.ID, e.VolumeID)
		}
		img, err := s.lookVolume(r.Volume.ID)
		if err != nil {
			return none, err
		}
		snaps, err := s.lookSnaps(img)
		if err != nil {
			return none, err
		}
		switch sn := find(snaps, snapName(r.ID)); {
		case sn != nil && found:
			return s.snapshot(r.ID, e, img, sn), nil
		case sn != nil:
			return none, model.Errorf(model.KindExists, "%s@%s is there and not of this osds; it is left alone", imageName(r.Volume.ID), sn.Name)
		}
		e = snapshotEntry{VolumeID: r.Volume.ID, Name: r.Name, Tenant: r.TenantID, Cluster: r.ClusterID, Size: img.size(), Created: time.Now().UTC()}
		if e.Cluster == "" {
			e.Cluster = d.cluster
		}
		if err := step(ctx, "snapshot.begin"); err != nil {
			return none, err
		}
		return s.takeSnapshot(ctx, r.ID, e, img)
	})
}

// takeSnapshot notes a snapshot and takes it. Opening the image takes longer than
// writing the note, and goes on meanwhile.
func (s *space) takeSnapshot(ctx context.Context, id string, e snapshotEntry, looked *image) (drivers.Snapshot, error) {
	none := drivers.Snapshot{}
	noted := make(chan error, 1)
	go func() { noted <- s.dir.put(map[string]any{snapshotKey + id: e}) }()
	img, err := rbd.OpenImage(s.io, imageName(e.VolumeID), rbd.NoSnapshot)
	if nerr := <-noted; nerr != nil || err != nil {
		if err == nil {
			_ = img.Close()
			err = nerr
		}
		if absent(err) {
			err = noVolume(e.VolumeID)
		}
		return none, err
	}
	defer img.Close()
	if err := step(ctx, "snapshot.noted"); err != nil {
		return none, err
	}
	if _, err := img.CreateSnapshot(snapName(id)); err != nil {
		return none, err
	}
	if err := step(ctx, "snapshot.end"); err != nil {
		return none, err
	}
	sn, err := (&image{Image: img}).snap(snapName(id))
	if err != nil {
		return none, err
	}
	if sn == nil {
		return none, model.Errorf(model.KindUnavailable, "the snapshot %s is gone again", snapName(id))
	}
	return s.snapshot(id, e, looked, sn), nil
}

// DeleteSnapshot removes a snapshot, whole or not. Clones of it live on: what
// they share stays in the image, out of sight, until the last of them is gone.
func (d *Driver) DeleteSnapshot(ctx context.Context, r drivers.SnapshotRef) error {
	if err := r.Check(); err != nil {
		return err
	}
	volumeID, err := d.volumeOf(ctx, r)
	if err != nil || volumeID == "" {
		return err
	}
	wants := []keylock.Want{lockSnapshot(r.ID), lockVolume(volumeID)}
	_, err = on(ctx, d, r.Pool, "snapshot "+r.ID, wants, func(ctx context.Context, s *space) (struct{}, error) {
		none := struct{}{}
		var e snapshotEntry
		found, err := s.dir.get(snapshotKey+r.ID, &e)
		if err != nil {
			return none, err
		}
		if !found {
			return none, noSnapshot(r.ID)
		}
		if e.VolumeID == "" {
			e.VolumeID = volumeID // its entry is damaged
		}
		img, err := s.open(e.VolumeID, false)
		if err != nil {
			return none, err
		}
		defer func() { img.close() }()
		if err := step(ctx, "deleteSnapshot.begin"); err != nil {
			return none, err
		}
		if img != nil && img.whole {
			sn, err := img.snap(snapName(r.ID))
			if err != nil {
				return none, err
			}
			if sn != nil {
				img.close()
				if img, err = s.openVolume(e.VolumeID, true); err != nil {
					return none, err
				}
				if err := img.removeSnap(snapName(r.ID)); err != nil && !absent(err) {
					return none, err
				}
			}
		}
		if err := step(ctx, "deleteSnapshot.removed"); err != nil {
			return none, err
		}
		return none, s.dir.drop(snapshotKey + r.ID)
	})
	if model.IsKind(err, model.KindNotFound) {
		return nil
	}
	return err
}

// volumeOf says which volume a snapshot is of; empty if there is no such
// snapshot.
func (d *Driver) volumeOf(ctx context.Context, r drivers.SnapshotRef) (string, error) {
	e, err := on(ctx, d, r.Pool, "snapshot "+r.ID, nil, func(_ context.Context, s *space) (snapshotEntry, error) {
		var e snapshotEntry
		found, err := s.dir.get(snapshotKey+r.ID, &e)
		if err == nil && !found {
			err = noSnapshot(r.ID)
		}
		return e, err
	})
	switch {
	case model.IsKind(err, model.KindNotFound):
		return "", nil
	case err != nil:
		return "", err
	case r.VolumeID != "" && e.VolumeID != "" && r.VolumeID != e.VolumeID:
		return "", model.Invalid("volumeId", "snapshot %s is of volume %s, not of %s", r.ID, e.VolumeID, r.VolumeID)
	case e.VolumeID == "" && r.VolumeID == "":
		return "", model.Errorf(model.KindInternal, "the directory's entry of snapshot %s is damaged: name its volume", r.ID)
	case e.VolumeID == "":
		return r.VolumeID, nil
	}
	return e.VolumeID, nil
}

// GetSnapshot gives a snapshot that is whole.
func (d *Driver) GetSnapshot(ctx context.Context, r drivers.SnapshotRef) (drivers.Snapshot, error) {
	if err := r.Check(); err != nil {
		return drivers.Snapshot{}, err
	}
	return on(ctx, d, r.Pool, "snapshot "+r.ID, nil, func(_ context.Context, s *space) (drivers.Snapshot, error) {
		img, sn, e, err := s.lookSnapshot(r.ID, r.VolumeID)
		if err != nil {
			return drivers.Snapshot{}, err
		}
		return s.snapshot(r.ID, e, img, sn), nil
	})
}

// ListSnapshots lists the snapshots by id, incomplete ones too.
func (d *Driver) ListSnapshots(ctx context.Context, p drivers.Page) ([]drivers.Snapshot, error) {
	return listed(ctx, d, "snapshots", snapshotKey, p, func(s drivers.Snapshot) string { return s.ID },
		func(ctx context.Context, s *space, items []item) ([]drivers.Snapshot, error) {
			out := make([]drivers.Snapshot, len(items))
			entries := make([]snapshotEntry, len(items))
			byVolume := map[string][]int{}
			for i, it := range items {
				_ = json.Unmarshal(it.data, &entries[i]) // what cannot be read is incomplete
				e := entries[i]
				out[i] = drivers.Snapshot{ID: it.id, VolumeID: e.VolumeID, Pool: s.name, Size: e.Size,
					TenantID: e.Tenant, ClusterID: e.Cluster, Incomplete: true}
				if model.ValidID(e.VolumeID) {
					byVolume[e.VolumeID] = append(byVolume[e.VolumeID], i)
				}
			}
			volumes := make([]string, 0, len(byVolume))
			for v := range byVolume {
				volumes = append(volumes, v)
			}
			return out, each(ctx, len(volumes), func(n int) error {
				img, err := s.look(volumes[n])
				if err != nil || img == nil || !img.whole {
					return err
				}
				l, err := s.lookSnaps(img)
				if err != nil {
					return err
				}
				for _, i := range byVolume[volumes[n]] {
					for _, sn := range l {
						if sn.Name == snapName(out[i].ID) {
							out[i] = s.snapshot(out[i].ID, entries[i], img, &sn)
						}
					}
				}
				return nil
			})
		})
}

// RevertVolume puts a volume back to one of its snapshots. librbd makes the image
// as small as the snapshot was; it is made as large again, and until it is, its
// metadata says how large it has to be.
func (d *Driver) RevertVolume(ctx context.Context, vr drivers.VolumeRef, sr drivers.SnapshotRef) (drivers.Volume, error) {
	none := drivers.Volume{}
	if err := vr.Check(); err != nil {
		return none, err
	}
	if err := sr.Check(); err != nil {
		return none, err
	}
	wants := []keylock.Want{lockVolume(vr.ID), {Key: "s/" + sr.ID, Shared: true}}
	return on(ctx, d, vr.Pool, "volume "+vr.ID, wants, func(ctx context.Context, s *space) (drivers.Volume, error) {
		_, sn, e, err := s.lookSnapshot(sr.ID, "")
		if err != nil {
			return none, err
		}
		if e.VolumeID != vr.ID {
			return none, model.Invalid("snapshotId", "snapshot %s is of volume %s, not of %s", sr.ID, e.VolumeID, vr.ID)
		}
		if err := s.notExported(vr.ID); err != nil {
			return none, err
		}
		img, err := s.openVolume(vr.ID, true)
		if err != nil {
			return none, err
		}
		defer func() { img.close() }()
		if err := s.notWatched(img); err != nil {
			return none, err
		}
		if err := step(ctx, "revert.begin"); err != nil {
			return none, err
		}
		if err := s.rollback(ctx, img, sn); err != nil {
			return none, err
		}
		if err := step(ctx, "revert.end"); err != nil {
			return none, err
		}
		v := img.volume(s.name)
		err = img.Image.Close()
		img = nil
		return v, err
	})
}

func (s *space) rollback(ctx context.Context, img *image, sn *snap) error {
	full := img.fullSize()
	if model.Bytes(sn.Size) < full {
		if err := img.SetMetadata(revertMeta, itoa(int64(full))); err != nil {
			return err
		}
		if err := step(ctx, "revert.noted"); err != nil {
			return err
		}
	}
	if err := img.GetSnapshot(sn.Name).Rollback(); err != nil {
		return err
	}
	if err := step(ctx, "revert.rolled"); err != nil {
		return err
	}
	if n, err := img.GetSize(); err != nil {
		return err
	} else if model.Bytes(n) < full {
		if err := img.Resize(uint64(full)); err != nil {
			return err
		}
	}
	if err := step(ctx, "revert.resized"); err != nil {
		return err
	}
	img.raw = full
	delete(img.meta, revertMeta)
	if err := img.RemoveMetadata(revertMeta); err != nil && !absent(err) {
		return err
	}
	return nil
}

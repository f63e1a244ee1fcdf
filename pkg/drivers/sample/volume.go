package sample

import (
	"context"

	"go.etcd.io/bbolt"

	"github.com/osds-io/osds/pkg/drivers"
	"github.com/osds-io/osds/pkg/model"
)

// CreateVolume makes a volume, or a clone if the request has a source.
func (d *Driver) CreateVolume(ctx context.Context, r drivers.CreateVolume) (drivers.Volume, error) {
	return d.create(ctx, opCreate, r)
}

// CloneVolume makes a volume from a snapshot or another volume. It keeps the
// lineage; there is no data.
func (d *Driver) CloneVolume(ctx context.Context, r drivers.CreateVolume) (drivers.Volume, error) {
	if r.Source == nil {
		return drivers.Volume{}, model.Invalid("source", "a clone needs a source")
	}
	return d.create(ctx, opClone, r)
}

func (d *Driver) create(ctx context.Context, op string, r drivers.CreateVolume) (drivers.Volume, error) {
	if err := r.Check(); err != nil {
		return drivers.Volume{}, err
	}
	want := volume{Pool: r.Pool, Size: r.Size, Tenant: r.TenantID, Cluster: r.ClusterID}
	if s := r.Source; s != nil && s.Snapshot != nil {
		want.Source = "s/" + s.Snapshot.ID
	} else if s != nil {
		want.Source = "v/" + s.Volume.ID
	}
	var got volume
	err := d.change(ctx, op, func(tx *bbolt.Tx) error {
		if _, ok := d.pools[r.Pool]; !ok {
			return model.Errorf(model.KindUnavailable, "pool %q is not in the sample driver's configuration", r.Pool)
		}
		have, ok, err := get[volume](tx, bVolumes, r.ID)
		if err != nil {
			return err
		}
		same := ok && have.Pool == want.Pool && have.Size == want.Size && have.Source == want.Source
		switch {
		case ok && (have.Going || have.Part && !same):
			// What is left of another is of no use.
			if err := d.forget(tx, r.ID, have); err != nil {
				return err
			}
		case ok:
			if !same {
				return model.Errorf(model.KindExists, "volume %s is there already, with another size, source or pool", r.ID)
			}
			got = have
			return nil
		}
		if why := d.pools[r.Pool].Unusable; why != "" {
			return model.Errorf(model.KindUnavailable, "pool %s cannot be used: %s", r.Pool, why)
		}
		if err := d.checkSource(tx, r); err != nil {
			return err
		}
		if err := d.addUsed(tx, r.Pool, r.Size); err != nil {
			return err
		}
		got = want
		got.Part = d.toils(op)
		return put(tx, bVolumes, r.ID, got)
	})
	if err == nil && got.Part {
		if err = d.toil(ctx, op, r.ID, r.Size); err == nil {
			got, err = d.whole(op, r)
		}
	}
	if err != nil {
		return drivers.Volume{}, err
	}
	return got.public(r.ID), nil
}

// whole ends the work on a new volume.
func (d *Driver) whole(op string, r drivers.CreateVolume) (v volume, err error) {
	err = d.commit(op, func(tx *bbolt.Tx) error {
		var ok bool
		if v, ok, err = get[volume](tx, bVolumes, r.ID); err != nil || !ok || v.Going {
			return model.Errorf(model.KindUnavailable, "volume %s was removed while it was made: call again (%v)", r.ID, err)
		}
		v.Part = false
		if err := restWork(tx, r.ID, ""); err != nil {
			return err
		}
		return put(tx, bVolumes, r.ID, v)
	})
	return v, err
}

// forget takes a volume out of the inventory.
func (d *Driver) forget(tx *bbolt.Tx, id string, v volume) error {
	if err := d.addUsed(tx, v.Pool, -v.Size); err != nil {
		return err
	}
	if err := restWork(tx, id, ""); err != nil {
		return err
	}
	return tx.Bucket(bVolumes).Delete([]byte(id))
}

func (d *Driver) checkSource(tx *bbolt.Tx, r drivers.CreateVolume) error {
	if r.Source == nil {
		return nil
	}
	if err := d.can(r.Pool, model.AbilityClone); err != nil {
		return err
	}
	var size model.Bytes
	var pool string
	if r.Source.Snapshot != nil {
		s, err := d.needSnapshot(tx, *r.Source.Snapshot)
		if err != nil {
			return err
		}
		size, pool = s.Size, s.Pool
	} else {
		v, err := d.needVolume(tx, *r.Source.Volume)
		if err != nil {
			return err
		}
		size, pool = v.Size, v.Pool
	}
	if pool != r.Pool {
		return model.Invalid("pool", "a clone stays in its source's pool, %s", pool)
	}
	if size > r.Size {
		return model.Invalid("size", "size %s is less than the source's, %s", r.Size, size)
	}
	return nil
}

// DeleteVolume removes a volume; busy while it is exported or has snapshots.
func (d *Driver) DeleteVolume(ctx context.Context, r drivers.VolumeRef) error {
	if err := r.Check(); err != nil {
		return err
	}
	var wipe model.Bytes
	err := d.change(ctx, opDelete, func(tx *bbolt.Tx) error {
		wipe = 0
		v, ok, err := d.volumeOf(tx, r)
		if err != nil || !ok {
			return err
		}
		if a := firstOf(tx, bExportsOf, r.ID); a != "" {
			return model.Errorf(model.KindBusy, "volume %s is exported by attachment %s", r.ID, a)
		}
		if s := firstOf(tx, bSnapshotsOf, r.ID); s != "" {
			return model.Errorf(model.KindBusy, "volume %s has snapshots, such as %s", r.ID, s)
		}
		if v.Part || !d.toils(opDelete) {
			return d.forget(tx, r.ID, v)
		}
		wipe, v.Going = v.Size, true
		return put(tx, bVolumes, r.ID, v)
	})
	if err != nil || wipe == 0 {
		return err
	}
	if err := d.toil(ctx, opDelete, r.ID, wipe); err != nil {
		return err
	}
	return d.commit(opDelete, func(tx *bbolt.Tx) error {
		v, ok, err := d.volumeOf(tx, r)
		if err != nil || !ok || !v.Going {
			return err
		}
		return d.forget(tx, r.ID, v)
	})
}

// GetVolume gives a volume.
func (d *Driver) GetVolume(ctx context.Context, r drivers.VolumeRef) (drivers.Volume, error) {
	if err := r.Check(); err != nil {
		return drivers.Volume{}, err
	}
	var v volume
	err := d.act(ctx, opGet, func() error {
		return d.view(func(tx *bbolt.Tx) (err error) {
			v, err = d.needVolume(tx, r)
			return err
		})
	})
	if err != nil {
		return drivers.Volume{}, err
	}
	return v.public(r.ID), nil
}

// ListVolumes lists the volumes by id.
func (d *Driver) ListVolumes(ctx context.Context, p drivers.Page) ([]drivers.Volume, error) {
	var out []drivers.Volume
	err := d.act(ctx, opList, func() error {
		return page(d, bVolumes, p, func(id string, v volume) { out = append(out, v.public(id)) })
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// ExpandsOnline is true.
func (d *Driver) ExpandsOnline() bool { return true }

// ExpandVolume grows a volume.
func (d *Driver) ExpandVolume(ctx context.Context, r drivers.VolumeRef, size model.Bytes) (drivers.Volume, error) {
	if err := r.Check(); err != nil {
		return drivers.Volume{}, err
	}
	if err := drivers.CheckSize("size", size); err != nil {
		return drivers.Volume{}, err
	}
	var v volume
	if d.toils(opExpand) {
		var more model.Bytes
		if err := d.view(func(tx *bbolt.Tx) error {
			if v, ok, err := d.volumeOf(tx, r); err == nil && ok && !v.Part && !v.Going {
				more = size - v.Size
			}
			return nil
		}); err != nil {
			return drivers.Volume{}, err
		}
		if more > 0 {
			if err := d.toil(ctx, opExpand, r.ID, more); err != nil {
				return drivers.Volume{}, err
			}
		}
	}
	err := d.change(ctx, opExpand, func(tx *bbolt.Tx) (err error) {
		if v, err = d.needVolume(tx, r); err != nil {
			return err
		}
		if err := restWork(tx, r.ID, opExpand); err != nil || v.Size >= size {
			return err
		}
		ability := model.AbilityExpand
		if firstOf(tx, bExportsOf, r.ID) != "" {
			ability = model.AbilityExpandLive
		}
		if err := d.can(v.Pool, ability); err != nil {
			return err
		}
		if err := d.addUsed(tx, v.Pool, size-v.Size); err != nil {
			return err
		}
		v.Size = size
		return put(tx, bVolumes, r.ID, v)
	})
	if err != nil {
		return drivers.Volume{}, err
	}
	return v.public(r.ID), nil
}

// RevertVolume records that a volume was put back to one of its snapshots.
func (d *Driver) RevertVolume(ctx context.Context, vr drivers.VolumeRef, sr drivers.SnapshotRef) (drivers.Volume, error) {
	if err := vr.Check(); err != nil {
		return drivers.Volume{}, err
	}
	if err := sr.Check(); err != nil {
		return drivers.Volume{}, err
	}
	var v volume
	if d.toils(opRevert) {
		// What would be refused needs no work first.
		var need bool
		if err := d.view(func(tx *bbolt.Tx) (err error) {
			v, err = d.needVolume(tx, vr)
			s, ok, serr := d.snapshotOf(tx, sr)
			need = err == nil && serr == nil && ok && s.Volume == vr.ID && firstOf(tx, bExportsOf, vr.ID) == ""
			return nil
		}); err != nil {
			return drivers.Volume{}, err
		}
		if need {
			if err := d.toil(ctx, opRevert, vr.ID, v.Size); err != nil {
				return drivers.Volume{}, err
			}
		}
	}
	err := d.change(ctx, opRevert, func(tx *bbolt.Tx) (err error) {
		if v, err = d.needVolume(tx, vr); err != nil {
			return err
		}
		s, err := d.needSnapshot(tx, sr)
		if err != nil {
			return err
		}
		if s.Volume != vr.ID {
			return model.Invalid("snapshotId", "snapshot %s is of volume %s, not of %s", sr.ID, s.Volume, vr.ID)
		}
		if a := firstOf(tx, bExportsOf, vr.ID); a != "" {
			return model.Errorf(model.KindBusy, "volume %s is exported by attachment %s", vr.ID, a)
		}
		if err := d.can(v.Pool, model.AbilityRevert); err != nil {
			return err
		}
		if err := restWork(tx, vr.ID, opRevert); err != nil {
			return err
		}
		v.Reverted = sr.ID
		return put(tx, bVolumes, vr.ID, v)
	})
	if err != nil {
		return drivers.Volume{}, err
	}
	return v.public(vr.ID), nil
}

// CreateSnapshot makes a snapshot. It takes none of the pool's capacity.
func (d *Driver) CreateSnapshot(ctx context.Context, r drivers.CreateSnapshot) (drivers.Snapshot, error) {
	if err := r.Check(); err != nil {
		return drivers.Snapshot{}, err
	}
	var got snapshot
	err := d.change(ctx, opSnapshot, func(tx *bbolt.Tx) error {
		have, ok, err := get[snapshot](tx, bSnapshots, r.ID)
		if err != nil {
			return err
		}
		if ok {
			if have.Volume != r.Volume.ID {
				return model.Errorf(model.KindExists, "snapshot %s is there already, of volume %s", r.ID, have.Volume)
			}
			got = have
			return nil
		}
		v, err := d.needVolume(tx, r.Volume)
		if err != nil {
			return err
		}
		if err := d.can(v.Pool, model.AbilitySnapshot); err != nil {
			return err
		}
		got = snapshot{Volume: r.Volume.ID, Pool: v.Pool, Size: v.Size, Tenant: r.TenantID, Cluster: r.ClusterID}
		if err := tx.Bucket(bSnapshotsOf).Put(pair(r.Volume.ID, r.ID), nil); err != nil {
			return err
		}
		return put(tx, bSnapshots, r.ID, got)
	})
	if err != nil {
		return drivers.Snapshot{}, err
	}
	return got.public(r.ID), nil
}

// DeleteSnapshot removes a snapshot.
func (d *Driver) DeleteSnapshot(ctx context.Context, r drivers.SnapshotRef) error {
	if err := r.Check(); err != nil {
		return err
	}
	return d.change(ctx, opDeleteSnapshot, func(tx *bbolt.Tx) error {
		s, ok, err := d.snapshotOf(tx, r)
		if err != nil || !ok {
			return err
		}
		if err := tx.Bucket(bSnapshotsOf).Delete(pair(s.Volume, r.ID)); err != nil {
			return err
		}
		return tx.Bucket(bSnapshots).Delete([]byte(r.ID))
	})
}

// GetSnapshot gives a snapshot.
func (d *Driver) GetSnapshot(ctx context.Context, r drivers.SnapshotRef) (drivers.Snapshot, error) {
	if err := r.Check(); err != nil {
		return drivers.Snapshot{}, err
	}
	var s snapshot
	err := d.act(ctx, opGetSnapshot, func() error {
		return d.view(func(tx *bbolt.Tx) (err error) {
			s, err = d.needSnapshot(tx, r)
			return err
		})
	})
	if err != nil {
		return drivers.Snapshot{}, err
	}
	return s.public(r.ID), nil
}

// ListSnapshots lists the snapshots by id.
func (d *Driver) ListSnapshots(ctx context.Context, p drivers.Page) ([]drivers.Snapshot, error) {
	var out []drivers.Snapshot
	err := d.act(ctx, opListSnapshots, func() error {
		return page(d, bSnapshots, p, func(id string, s snapshot) { out = append(out, s.public(id)) })
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

package local

import (
	"context"
	"time"

	"github.com/osds-io/osds/internal/faults"
	"github.com/osds-io/osds/internal/keylock"
	"github.com/osds-io/osds/pkg/drivers"
	"github.com/osds-io/osds/pkg/model"
)

// CreateSnapshot copies a volume as it is at one moment. Where the file system
// shares blocks, the volume may be in use; elsewhere that is busy.
func (d *Driver) CreateSnapshot(ctx context.Context, r drivers.CreateSnapshot) (drivers.Snapshot, error) {
	if err := r.Check(); err != nil {
		return drivers.Snapshot{}, err
	}
	if err := drivers.Begin(ctx); err != nil {
		return drivers.Snapshot{}, err
	}
	unlock, err := d.locks.LockAll(ctx, keylock.Want{Key: key(snapshots, r.ID)},
		keylock.Want{Key: key(volumes, r.Volume.ID), Shared: true})
	if err != nil {
		return drivers.Snapshot{}, ioError("snapshot "+r.ID, err)
	}
	defer unlock()
	have, err := d.need(snapshots, r.ID, "")
	switch {
	case err == nil && have.meta.VolumeID != r.Volume.ID:
		return drivers.Snapshot{}, model.Errorf(model.KindExists, "snapshot %s is there already, of volume %s", r.ID, have.meta.VolumeID)
	case err == nil:
		return have.snapshot(), nil
	case !model.IsKind(err, model.KindNotFound):
		return drivers.Snapshot{}, err
	}
	vol, err := d.need(volumes, r.Volume.ID, r.Volume.Pool)
	if err != nil {
		return drivers.Snapshot{}, err
	}
	if have.pool != nil && have.pool != vol.pool {
		return drivers.Snapshot{}, model.Errorf(model.KindExists, "a part of snapshot %s is in pool %s: delete it first", r.ID, have.pool.name)
	}
	f, vol, err := d.openSource(volumes, r.Volume.ID, r.Volume.Pool, vol.pool)
	if err != nil {
		return drivers.Snapshot{}, err
	}
	defer f.Close()
	m := meta{Version: 1, ID: r.ID, Name: r.Name, Tenant: r.TenantID, Cluster: r.ClusterID, Size: vol.size,
		VolumeID: r.Volume.ID, Created: time.Now().UTC()}
	if m.Cluster == "" {
		m.Cluster = d.cluster
	}
	o, err := d.produce(ctx, vol.pool, m, making{op: "snapshot", kind: snapshots, id: r.ID, size: vol.size, source: f, atomic: d.inUse(vol)})
	if err != nil {
		return drivers.Snapshot{}, err
	}
	d.share(volumes, r.Volume.ID)
	return o.snapshot(), nil
}

// DeleteSnapshot removes a snapshot, whole or not.
func (d *Driver) DeleteSnapshot(ctx context.Context, r drivers.SnapshotRef) error {
	bad := r.Check()
	if bad == nil {
		_, bad = d.ofVolume(r)
	}
	return d.delete(ctx, snapshots, r.ID, r.Pool, bad)
}

// ofVolume checks that a snapshot, if there is one, is of the volume that the
// reference names.
func (d *Driver) ofVolume(r drivers.SnapshotRef) (object, error) {
	o, ok, err := d.lookup(snapshots, r.ID, r.Pool)
	if err == nil && ok && r.VolumeID != "" && o.meta.VolumeID != "" && o.meta.VolumeID != r.VolumeID {
		err = model.Invalid("volumeId", "snapshot %s is of volume %s, not of %s", r.ID, o.meta.VolumeID, r.VolumeID)
	}
	return o, err
}

// GetSnapshot gives a snapshot that is whole.
func (d *Driver) GetSnapshot(ctx context.Context, r drivers.SnapshotRef) (drivers.Snapshot, error) {
	if err := r.Check(); err != nil {
		return drivers.Snapshot{}, err
	}
	if err := drivers.Begin(ctx); err != nil {
		return drivers.Snapshot{}, err
	}
	if _, err := d.ofVolume(r); err != nil {
		return drivers.Snapshot{}, err
	}
	o, err := d.need(snapshots, r.ID, r.Pool)
	if err != nil {
		return drivers.Snapshot{}, err
	}
	return o.snapshot(), nil
}

// ListSnapshots lists the snapshots by id, incomplete ones too.
func (d *Driver) ListSnapshots(ctx context.Context, p drivers.Page) ([]drivers.Snapshot, error) {
	var out []drivers.Snapshot
	err := d.list(ctx, snapshots, p, func(o object) { out = append(out, o.snapshot()) })
	return out, err
}

func (o object) snapshot() drivers.Snapshot {
	return drivers.Snapshot{ID: o.meta.ID, VolumeID: o.meta.VolumeID, Pool: o.pool.name, Size: o.size,
		TenantID: o.meta.Tenant, ClusterID: o.meta.Cluster, Incomplete: !o.whole}
}

// RevertVolume puts a volume back to one of its snapshots: a copy of the
// snapshot, made aside, takes the place of the volume's data in one step.
func (d *Driver) RevertVolume(ctx context.Context, vr drivers.VolumeRef, sr drivers.SnapshotRef) (drivers.Volume, error) {
	if err := vr.Check(); err != nil {
		return drivers.Volume{}, err
	}
	if err := sr.Check(); err != nil {
		return drivers.Volume{}, err
	}
	if err := drivers.Begin(ctx); err != nil {
		return drivers.Volume{}, err
	}
	unlock, err := d.locks.LockAll(ctx, keylock.Want{Key: key(volumes, vr.ID)}, keylock.Want{Key: key(snapshots, sr.ID), Shared: true})
	if err != nil {
		return drivers.Volume{}, ioError("volume "+vr.ID, err)
	}
	defer unlock()
	vol, err := d.need(volumes, vr.ID, vr.Pool)
	if err != nil {
		return drivers.Volume{}, err
	}
	f, snap, err := d.openSource(snapshots, sr.ID, sr.Pool, vol.pool)
	if err != nil {
		return drivers.Volume{}, err
	}
	defer f.Close()
	if snap.meta.VolumeID != vr.ID {
		return drivers.Volume{}, model.Invalid("snapshotId", "snapshot %s is of volume %s, not of %s", sr.ID, snap.meta.VolumeID, vr.ID)
	}
	if err := d.notInUse(vol); err != nil {
		return drivers.Volume{}, err
	}
	p := vol.pool
	if p.thick() {
		// The new data needs room beside the old.
		release, err := d.reserve(ctx, p, volumes, vr.ID, vol.size)
		if err != nil {
			return drivers.Volume{}, err
		}
		defer release()
	}
	faults.Point("local.revert.begin")
	if err := p.make(ctx, making{op: "revert", kind: volumes, id: vr.ID, size: max(vol.size, snap.size), source: f}); err != nil {
		return drivers.Volume{}, ioError("volume "+vr.ID, err)
	}
	n := p.allocated(volumes, vr.ID)
	d.update(volumes, vr.ID, func(o *object) { o.alloc, o.size = n, max(vol.size, snap.size) })
	if p.reflink && !p.thick() {
		d.share(volumes, vr.ID)
		d.share(snapshots, sr.ID)
		p.wake()
	}
	faults.Point("local.revert.end")
	return d.GetVolume(ctx, vr)
}

// Package memdriver keeps volumes in memory: it is what the tests of the dock,
// of its client and of its registry drive, where the subject is the way to a
// driver and not the driver. Hook lets a test hold a call, or make it fail.
package memdriver

import (
	"context"
	"maps"
	"slices"
	"sync"

	"github.com/osds-io/osds/pkg/drivers"
	"github.com/osds-io/osds/pkg/model"
)

// Driver has every ability.
type Driver struct {
	// Hook, if set, is called at the beginning of each method, with its name and
	// the object's id; an error is the method's.
	Hook func(ctx context.Context, method, id string) error
	// Total is the size of the only pool.
	Total model.Bytes
	// Fills are shown of the pool.
	Fills []model.Fill

	mu      sync.Mutex
	vols    map[string]drivers.Volume
	snaps   map[string]drivers.Snapshot
	exports map[string]drivers.LiveExport
	closed  bool
	// what the last Export and Unexport were asked for
	exported   drivers.Export
	unexported drivers.ExportRef
}

var (
	_ drivers.Expander    = (*Driver)(nil)
	_ drivers.Snapshotter = (*Driver)(nil)
	_ drivers.Cloner      = (*Driver)(nil)
	_ drivers.Reverter    = (*Driver)(nil)
	_ drivers.Exporter    = (*Driver)(nil)
)

// New makes an empty driver.
func New() *Driver {
	return &Driver{
		Total: 100 * model.TiB, vols: map[string]drivers.Volume{},
		snaps: map[string]drivers.Snapshot{}, exports: map[string]drivers.LiveExport{},
	}
}

// Factory gives always this driver.
func (d *Driver) Factory(context.Context, drivers.Config) (drivers.Driver, error) { return d, nil }

// Bare is the driver without its optional abilities.
func Bare(d *Driver) drivers.Driver { return bare{d} }

type bare struct{ drivers.Driver }

func (d *Driver) hook(ctx context.Context, method, id string) error {
	if d.Hook != nil {
		return d.Hook(ctx, method, id)
	}
	return nil
}

// Pools gives one pool, named mem.
func (d *Driver) Pools(ctx context.Context) ([]drivers.Pool, error) {
	if err := d.hook(ctx, "Pools", ""); err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	used := model.Bytes(0)
	for _, v := range d.vols {
		used += v.Size
	}
	return []drivers.Pool{{
		Name: "mem", Total: d.Total, Free: d.Total - used, OverProvisioning: 1,
		AvailabilityZone: "default", StorageType: "block", MultiAttach: true, Fills: d.Fills,
	}}, nil
}

// CreateVolume makes a volume.
func (d *Driver) CreateVolume(ctx context.Context, r drivers.CreateVolume) (drivers.Volume, error) {
	if err := d.hook(ctx, "CreateVolume", r.ID); err != nil {
		return drivers.Volume{}, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if v, ok := d.vols[r.ID]; ok {
		if v.Size != r.Size {
			return drivers.Volume{}, model.Errorf(model.KindExists, "the volume %s has another size", r.ID)
		}
		return v, nil
	}
	v := drivers.Volume{
		ID: r.ID, Pool: r.Pool, Size: r.Size, BackendData: map[string]string{"path": "mem/" + r.ID},
		TenantID: r.TenantID, ClusterID: r.ClusterID,
	}
	d.vols[r.ID] = v
	return v, nil
}

// CloneVolume makes a volume of a source that must be there.
func (d *Driver) CloneVolume(ctx context.Context, r drivers.CreateVolume) (drivers.Volume, error) {
	d.mu.Lock()
	ok := false
	if r.Source.Snapshot != nil {
		_, ok = d.snaps[r.Source.Snapshot.ID]
	} else {
		_, ok = d.vols[r.Source.Volume.ID]
	}
	d.mu.Unlock()
	if !ok {
		return drivers.Volume{}, model.Errorf(model.KindNotFound, "the source of %s is not there", r.ID)
	}
	return d.CreateVolume(ctx, r)
}

// DeleteVolume removes a volume.
func (d *Driver) DeleteVolume(ctx context.Context, r drivers.VolumeRef) error {
	if err := d.hook(ctx, "DeleteVolume", r.ID); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.vols, r.ID)
	return nil
}

// GetVolume gives a volume.
func (d *Driver) GetVolume(ctx context.Context, r drivers.VolumeRef) (drivers.Volume, error) {
	if err := d.hook(ctx, "GetVolume", r.ID); err != nil {
		return drivers.Volume{}, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	v, ok := d.vols[r.ID]
	if !ok {
		return v, model.Errorf(model.KindNotFound, "no volume %s", r.ID)
	}
	return v, nil
}

// ExpandVolume grows a volume.
func (d *Driver) ExpandVolume(ctx context.Context, r drivers.VolumeRef, size model.Bytes) (drivers.Volume, error) {
	v, err := d.GetVolume(ctx, r)
	if err != nil {
		return v, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	v.Size = max(v.Size, size)
	d.vols[r.ID] = v
	return v, nil
}

// ExpandsOnline is true.
func (d *Driver) ExpandsOnline() bool { return true }

// RevertVolume does nothing to a volume that is there.
func (d *Driver) RevertVolume(ctx context.Context, v drivers.VolumeRef, s drivers.SnapshotRef) (drivers.Volume, error) {
	if _, err := d.GetSnapshot(ctx, s); err != nil {
		return drivers.Volume{}, err
	}
	return d.GetVolume(ctx, v)
}

// CreateSnapshot makes a snapshot.
func (d *Driver) CreateSnapshot(ctx context.Context, r drivers.CreateSnapshot) (drivers.Snapshot, error) {
	if err := d.hook(ctx, "CreateSnapshot", r.ID); err != nil {
		return drivers.Snapshot{}, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	v, ok := d.vols[r.Volume.ID]
	if !ok {
		return drivers.Snapshot{}, model.Errorf(model.KindNotFound, "no volume %s", r.Volume.ID)
	}
	s := drivers.Snapshot{ID: r.ID, VolumeID: v.ID, Pool: v.Pool, Size: v.Size, TenantID: r.TenantID, ClusterID: r.ClusterID}
	d.snaps[r.ID] = s
	return s, nil
}

// DeleteSnapshot removes a snapshot.
func (d *Driver) DeleteSnapshot(ctx context.Context, r drivers.SnapshotRef) error {
	if err := d.hook(ctx, "DeleteSnapshot", r.ID); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.snaps, r.ID)
	return nil
}

// GetSnapshot gives a snapshot.
func (d *Driver) GetSnapshot(ctx context.Context, r drivers.SnapshotRef) (drivers.Snapshot, error) {
	if err := d.hook(ctx, "GetSnapshot", r.ID); err != nil {
		return drivers.Snapshot{}, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	s, ok := d.snaps[r.ID]
	if !ok {
		return s, model.Errorf(model.KindNotFound, "no snapshot %s", r.ID)
	}
	return s, nil
}

// Export makes an export.
func (d *Driver) Export(ctx context.Context, r drivers.Export) (model.Connection, error) {
	if err := d.hook(ctx, "Export", r.AttachmentID); err != nil {
		return model.Connection{}, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for id, e := range d.exports {
		if e.VolumeID == r.Volume.ID && id != r.AttachmentID && !r.MultiAttach {
			return model.Connection{}, model.Errorf(model.KindBusy, "the volume is exported as %s", id)
		}
	}
	d.exported = r
	d.exports[r.AttachmentID] = drivers.LiveExport{AttachmentID: r.AttachmentID, VolumeID: r.Volume.ID, Pool: "mem", Detail: r.Host.HostName}
	return model.Connection{Type: "local", Data: map[string]any{"devicePath": "/dev/mem/" + r.Volume.ID, "targetLun": 1}}, nil
}

// Asked gives what the last Export and the last Unexport were asked for.
func (d *Driver) Asked() (drivers.Export, drivers.ExportRef) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.exported, d.unexported
}

// Unexport ends an export.
func (d *Driver) Unexport(ctx context.Context, r drivers.ExportRef) error {
	if err := d.hook(ctx, "Unexport", r.AttachmentID); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.unexported = r
	delete(d.exports, r.AttachmentID)
	return nil
}

func pageOf[T any](m map[string]T, p drivers.Page) []T {
	var out []T
	for _, id := range slices.Sorted(maps.Keys(m)) {
		if id > p.After && len(out) < p.Limit {
			out = append(out, m[id])
		}
	}
	return out
}

// ListVolumes lists volumes.
func (d *Driver) ListVolumes(ctx context.Context, p drivers.Page) ([]drivers.Volume, error) {
	if err := d.hook(ctx, "ListVolumes", ""); err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return pageOf(d.vols, p), nil
}

// ListSnapshots lists snapshots.
func (d *Driver) ListSnapshots(_ context.Context, p drivers.Page) ([]drivers.Snapshot, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return pageOf(d.snaps, p), nil
}

// ListExports lists exports.
func (d *Driver) ListExports(_ context.Context, p drivers.Page) ([]drivers.LiveExport, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return pageOf(d.exports, p), nil
}

// Close notes that it was called.
func (d *Driver) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.closed = true
	return nil
}

// Closed says whether Close was called.
func (d *Driver) Closed() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.closed
}

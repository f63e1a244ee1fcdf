package client

import (
	"context"
	"encoding/json"

	"github.com/osds-io/osds/pkg/dock/dockpb"
	"github.com/osds-io/osds/pkg/drivers"
	"github.com/osds-io/osds/pkg/model"
)

var (
	createVolume   = newMethod(dockpb.Dock_CreateVolume_FullMethodName, "createVolume", false)
	deleteVolume   = newMethod(dockpb.Dock_DeleteVolume_FullMethodName, "deleteVolume", false)
	getVolume      = newMethod(dockpb.Dock_GetVolume_FullMethodName, "getVolume", true)
	listVolumes    = newMethod(dockpb.Dock_ListVolumes_FullMethodName, "listVolumes", true)
	expandVolume   = newMethod(dockpb.Dock_ExpandVolume_FullMethodName, "expandVolume", false)
	revertVolume   = newMethod(dockpb.Dock_RevertVolume_FullMethodName, "revertVolume", false)
	createSnapshot = newMethod(dockpb.Dock_CreateSnapshot_FullMethodName, "createSnapshot", false)
	deleteSnapshot = newMethod(dockpb.Dock_DeleteSnapshot_FullMethodName, "deleteSnapshot", false)
	getSnapshot    = newMethod(dockpb.Dock_GetSnapshot_FullMethodName, "getSnapshot", true)
	listSnapshots  = newMethod(dockpb.Dock_ListSnapshots_FullMethodName, "listSnapshots", true)
	export         = newMethod(dockpb.Dock_Export_FullMethodName, "export", false)
	unexport       = newMethod(dockpb.Dock_Unexport_FullMethodName, "unexport", false)
	listExports    = newMethod(dockpb.Dock_ListExports_FullMethodName, "listExports", true)
	attach         = newMethod(dockpb.Dock_Attach_FullMethodName, "attach", false)
	detach         = newMethod(dockpb.Dock_Detach_FullMethodName, "detach", false)
	resizeDevice   = newMethod(dockpb.Dock_ResizeDevice_FullMethodName, "resizeDevice", false)
	listDevices    = newMethod(dockpb.Dock_ListDevices_FullMethodName, "listDevices", true)
)

// CreateVolume makes a volume in a backend of the dock, as a clone if r has a
// source.
func (c *Client) CreateVolume(ctx context.Context, by Call, backend string, r drivers.CreateVolume) (drivers.Volume, error) {
	in := &dockpb.CreateVolumeRequest{
		Call: by.pb(), Ref: &dockpb.ObjectRef{Id: r.ID, Backend: backend, Pool: r.Pool},
		Name: r.Name, Size: int64(r.Size), TenantId: r.TenantID,
	}
	if in.Call.ClusterId == "" {
		in.Call.ClusterId = r.ClusterID
	}
	if s := r.Source; s != nil {
		in.SourceSize = int64(s.Size)
		if s.Snapshot != nil {
			in.SourceSnapshot = dockpb.SnapshotRef(backend, *s.Snapshot)
		}
		if s.Volume != nil {
			in.SourceVolume = dockpb.VolumeRef(backend, *s.Volume)
		}
	}
	var err error
	if in.Profile, err = c.profiles.encode(r.Profile); err != nil {
		return drivers.Volume{}, err
	}
	out := new(dockpb.Volume)
	if err := c.invoke(ctx, createVolume, in, out); err != nil {
		return drivers.Volume{}, err
	}
	return dockpb.ToVolume(out), nil
}

// DeleteVolume removes a volume; nil if the backend sees that there is none.
func (c *Client) DeleteVolume(ctx context.Context, by Call, backend string, r drivers.VolumeRef) error {
	return c.invoke(ctx, deleteVolume, &dockpb.ObjectRequest{Call: by.pb(), Ref: dockpb.VolumeRef(backend, r)}, new(dockpb.Empty))
}

// GetVolume looks at a volume. With an epoch and a number in by it waits for
// what is going on with the volume, and calls that were made earlier and arrive
// later are refused: what it saw stays true.
func (c *Client) GetVolume(ctx context.Context, by Call, backend string, r drivers.VolumeRef) (drivers.Volume, error) {
	out := new(dockpb.Volume)
	if err := c.invoke(ctx, getVolume, &dockpb.ObjectRequest{Call: by.pb(), Ref: dockpb.VolumeRef(backend, r)}, out); err != nil {
		return drivers.Volume{}, err
	}
	return dockpb.ToVolume(out), nil
}

// ListVolumes lists what the backend has of ours, in pages ordered by id; the
// dock gives at most 1000 at once.
func (c *Client) ListVolumes(ctx context.Context, by Call, backend string, p drivers.Page) ([]drivers.Volume, error) {
	out := new(dockpb.VolumeList)
	if err := c.invoke(ctx, listVolumes, page(by, backend, p), out); err != nil {
		return nil, err
	}
	list := make([]drivers.Volume, 0, len(out.GetVolumes()))
	for _, v := range out.GetVolumes() {
		list = append(list, dockpb.ToVolume(v))
	}
	return list, nil
}

func page(by Call, backend string, p drivers.Page) *dockpb.ListRequest {
	return &dockpb.ListRequest{Call: by.pb(), Backend: backend, After: p.After, Limit: int32(min(max(p.Limit, 0), 1<<20))}
}

// ExpandVolume grows a volume to at least size.
func (c *Client) ExpandVolume(ctx context.Context, by Call, backend string, r drivers.VolumeRef, size model.Bytes) (drivers.Volume, error) {
	out := new(dockpb.Volume)
	in := &dockpb.ExpandVolumeRequest{Call: by.pb(), Ref: dockpb.VolumeRef(backend, r), Size: int64(size)}
	if err := c.invoke(ctx, expandVolume, in, out); err != nil {
		return drivers.Volume{}, err
	}
	return dockpb.ToVolume(out), nil
}

// RevertVolume puts a volume back to one of its snapshots.
func (c *Client) RevertVolume(ctx context.Context, by Call, backend string, v drivers.VolumeRef, s drivers.SnapshotRef) (drivers.Volume, error) {
	out := new(dockpb.Volume)
	in := &dockpb.RevertVolumeRequest{Call: by.pb(), Volume: dockpb.VolumeRef(backend, v), Snapshot: dockpb.SnapshotRef(backend, s)}
	if err := c.invoke(ctx, revertVolume, in, out); err != nil {
		return drivers.Volume{}, err
	}
	return dockpb.ToVolume(out), nil
}

// CreateSnapshot makes a snapshot of a volume.
func (c *Client) CreateSnapshot(ctx context.Context, by Call, backend string, r drivers.CreateSnapshot) (drivers.Snapshot, error) {
	in := &dockpb.CreateSnapshotRequest{
		Call: by.pb(), Ref: &dockpb.ObjectRef{Id: r.ID, Backend: backend, Pool: r.Volume.Pool, VolumeId: r.Volume.ID},
		Name: r.Name, Volume: dockpb.VolumeRef(backend, r.Volume), TenantId: r.TenantID,
	}
	if in.Call.ClusterId == "" {
		in.Call.ClusterId = r.ClusterID
	}
	out := new(dockpb.Snapshot)
	if err := c.invoke(ctx, createSnapshot, in, out); err != nil {
		return drivers.Snapshot{}, err
	}
	return dockpb.ToSnapshot(out), nil
}

// DeleteSnapshot removes a snapshot; nil if the backend sees that there is none.
func (c *Client) DeleteSnapshot(ctx context.Context, by Call, backend string, r drivers.SnapshotRef) error {
	return c.invoke(ctx, deleteSnapshot, &dockpb.ObjectRequest{Call: by.pb(), Ref: dockpb.SnapshotRef(backend, r)}, new(dockpb.Empty))
}

// GetSnapshot looks at a snapshot; see GetVolume.
func (c *Client) GetSnapshot(ctx context.Context, by Call, backend string, r drivers.SnapshotRef) (drivers.Snapshot, error) {
	out := new(dockpb.Snapshot)
	if err := c.invoke(ctx, getSnapshot, &dockpb.ObjectRequest{Call: by.pb(), Ref: dockpb.SnapshotRef(backend, r)}, out); err != nil {
		return drivers.Snapshot{}, err
	}
	return dockpb.ToSnapshot(out), nil
}

// ListSnapshots lists the snapshots of ours; see ListVolumes.
func (c *Client) ListSnapshots(ctx context.Context, by Call, backend string, p drivers.Page) ([]drivers.Snapshot, error) {
	out := new(dockpb.SnapshotList)
	if err := c.invoke(ctx, listSnapshots, page(by, backend, p), out); err != nil {
		return nil, err
	}
	list := make([]drivers.Snapshot, 0, len(out.GetSnapshots()))
	for _, v := range out.GetSnapshots() {
		list = append(list, dockpb.ToSnapshot(v))
	}
	return list, nil
}

// Export makes a volume reachable from a host.
func (c *Client) Export(ctx context.Context, by Call, backend string, r drivers.Export) (model.Connection, error) {
	host, err := json.Marshal(&r.Host)
	if err != nil {
		return model.Connection{}, model.Errorf(model.KindInternal, "host: %w", err)
	}
	in := &dockpb.ExportRequest{
		Call: by.pb(), AttachmentId: r.AttachmentID, Volume: dockpb.VolumeRef(backend, r.Volume),
		MultiAttach: r.MultiAttach, ReadOnly: r.ReadOnly, Protocol: r.Protocol, Host: host,
		MaxIops: r.QoS.MaxIOPS, MaxBytesPerSecond: r.QoS.MaxBytesPerSecond,
	}
	out := new(dockpb.Connection)
	if err := c.invoke(ctx, export, in, out); err != nil {
		return model.Connection{}, err
	}
	return dockpb.ToConnection(out), nil
}

// Unexport ends an export; nil if the backend sees that there is none.
func (c *Client) Unexport(ctx context.Context, by Call, backend string, r drivers.ExportRef) error {
	in := &dockpb.UnexportRequest{Call: by.pb(), AttachmentId: r.AttachmentID, Volume: dockpb.VolumeRef(backend, r.Volume), Force: r.Force}
	return c.invoke(ctx, unexport, in, new(dockpb.Empty))
}

// ListExports lists the live exports; see ListVolumes.
func (c *Client) ListExports(ctx context.Context, by Call, backend string, p drivers.Page) ([]drivers.LiveExport, error) {
	out := new(dockpb.ExportList)
	if err := c.invoke(ctx, listExports, page(by, backend, p), out); err != nil {
		return nil, err
	}
	list := make([]drivers.LiveExport, 0, len(out.GetExports()))
	for _, v := range out.GetExports() {
		list = append(list, dockpb.ToLiveExport(v))
	}
	return list, nil
}

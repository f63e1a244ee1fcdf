package client

import (
	"context"

	"github.com/osds-io/osds/pkg/dock/dockpb"
	"github.com/osds-io/osds/pkg/drivers"
)

var (
	listImportable = newMethod(dockpb.Dock_ListImportable_FullMethodName, "listImportable", true)
	importVolume   = newMethod(dockpb.Dock_ImportVolume_FullMethodName, "importVolume", false)
	releaseVolume  = newMethod(dockpb.Dock_ReleaseVolume_FullMethodName, "releaseVolume", false)
)

// ListImportable lists what a pool has that osds has not made, in pages ordered by
// name; the dock gives at most 1000 at once.
func (c *Client) ListImportable(ctx context.Context, by Call, backend, pool string, p drivers.Page) ([]drivers.Importable, error) {
	in := &dockpb.ListImportableRequest{Call: by.pb(), Backend: backend, Pool: pool, After: p.After, Limit: int32(min(max(p.Limit, 0), 1<<20))}
	out := new(dockpb.ImportableList)
	if err := c.invoke(ctx, listImportable, in, out); err != nil {
		return nil, err
	}
	list := make([]drivers.Importable, 0, len(out.GetVolumes()))
	for _, v := range out.GetVolumes() {
		list = append(list, dockpb.ToImportable(v))
	}
	return list, nil
}

// ImportVolume makes an existing volume one of osds's.
func (c *Client) ImportVolume(ctx context.Context, by Call, backend string, r drivers.ImportVolume) (drivers.Volume, error) {
	in := &dockpb.ImportVolumeRequest{
		Call: by.pb(), Ref: &dockpb.ObjectRef{Id: r.ID, Backend: backend, Pool: r.Pool}, Existing: r.Existing, TenantId: r.TenantID,
	}
	if in.Call.ClusterId == "" {
		in.Call.ClusterId = r.ClusterID
	}
	out := new(dockpb.Volume)
	if err := c.invoke(ctx, importVolume, in, out); err != nil {
		return drivers.Volume{}, err
	}
	return dockpb.ToVolume(out), nil
}

// ReleaseVolume ends that a volume is osds's, and leaves its data; nil if the
// backend sees that it is not there.
func (c *Client) ReleaseVolume(ctx context.Context, by Call, backend string, r drivers.VolumeRef) error {
	return c.invoke(ctx, releaseVolume, &dockpb.ObjectRequest{Call: by.pb(), Ref: dockpb.VolumeRef(backend, r)}, new(dockpb.Empty))
}

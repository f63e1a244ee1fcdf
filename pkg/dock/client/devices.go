package client

import (
	"context"

	"github.com/osds-io/osds/pkg/dock/dockpb"
	"github.com/osds-io/osds/pkg/drivers"
	"github.com/osds-io/osds/pkg/model"
)

// AttachRequest names an attachment to a dock's own host; see dock.proto.
type AttachRequest struct {
	AttachmentID, VolumeID string
	Connection             model.Connection
	ReadOnly               bool
	// Size is what the device must be at least.
	Size model.Bytes
}

// DetachRequest names an attachment to end. With Force the export is gone, or
// given up: nothing is flushed, and holders are cut off.
type DetachRequest struct {
	AttachmentID, VolumeID string
	Connection             model.Connection
	Force                  bool
}

// ResizeRequest asks a host to see a volume's new size, and with GrowFS to grow
// the file system on it.
type ResizeRequest struct {
	AttachmentID, VolumeID string
	Size                   model.Bytes
	GrowFS                 bool
}

// Device is a block device of a dock's host.
type Device struct {
	AttachmentID, VolumeID string
	Path, Identity, Detail string
	Size                   model.Bytes
}

func toDevice(d *dockpb.Device) Device {
	return Device{
		AttachmentID: d.GetAttachmentId(), VolumeID: d.GetVolumeId(), Path: d.GetPath(),
		Identity: d.GetIdentity(), Detail: d.GetDetail(), Size: model.Bytes(d.GetSize()),
	}
}

// Attach makes the device of an export on the dock's host.
func (c *Client) Attach(ctx context.Context, by Call, r AttachRequest) (Device, error) {
	conn, err := dockpb.FromConnection(r.Connection)
	if err != nil {
		return Device{}, err
	}
	in := &dockpb.AttachRequest{
		Call: by.pb(), AttachmentId: r.AttachmentID, VolumeId: r.VolumeID, Connection: conn, ReadOnly: r.ReadOnly, Size: int64(r.Size),
	}
	out := new(dockpb.Device)
	if err := c.invoke(ctx, attach, in, out); err != nil {
		return Device{}, err
	}
	return toDevice(out), nil
}

// Detach takes a device away; nil if the dock sees that there is none.
func (c *Client) Detach(ctx context.Context, by Call, r DetachRequest) error {
	conn, err := dockpb.FromConnection(r.Connection)
	if err != nil {
		return err
	}
	in := &dockpb.DetachRequest{Call: by.pb(), AttachmentId: r.AttachmentID, VolumeId: r.VolumeID, Connection: conn, Force: r.Force}
	return c.invoke(ctx, detach, in, new(dockpb.Empty))
}

// ResizeDevice has the host see a volume's new size.
func (c *Client) ResizeDevice(ctx context.Context, by Call, r ResizeRequest) (Device, error) {
	in := &dockpb.ResizeDeviceRequest{
		Call: by.pb(), AttachmentId: r.AttachmentID, VolumeId: r.VolumeID, Size: int64(r.Size), GrowFileSystem: r.GrowFS,
	}
	out := new(dockpb.Device)
	if err := c.invoke(ctx, resizeDevice, in, out); err != nil {
		return Device{}, err
	}
	return toDevice(out), nil
}

// ListDevices lists what the dock's host has attached, in pages ordered by
// attachment id.
func (c *Client) ListDevices(ctx context.Context, by Call, p drivers.Page) ([]Device, error) {
	out := new(dockpb.DeviceList)
	if err := c.invoke(ctx, listDevices, page(by, "", p), out); err != nil {
		return nil, err
	}
	list := make([]Device, 0, len(out.GetDevices()))
	for _, v := range out.GetDevices() {
		list = append(list, toDevice(v))
	}
	return list, nil
}

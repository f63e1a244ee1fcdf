package dock

import (
	"context"

	"github.com/osds-io/osds/pkg/dock/connector"
	"github.com/osds-io/osds/pkg/dock/dockpb"
	"github.com/osds-io/osds/pkg/model"
)

// deviceKey keeps the order of calls about the device of an attachment. It is
// not the export's key: a device that hangs on its way out must not hold up the
// end of its export, by which its host is cut off.
func deviceKey(attachment string) objectKey { return objectKey{model.ResDevice, attachment} }

// deviceCall is the part that all requests about one device share.
func deviceCall(o op, by *dockpb.Call, attachment, volume string) (call, error) {
	c := call{op: o, by: by, backend: connectorName, target: deviceKey(attachment)}
	c.wants = []want{{key: c.target}}
	if err := checkID("attachment_id", attachment); err != nil {
		return c, err
	}
	return c, checkID("volume_id", volume)
}

func fromDevice(v connector.Device) *dockpb.Device {
	return &dockpb.Device{
		AttachmentId: v.AttachmentID, VolumeId: v.VolumeID, Path: v.Path, Identity: v.Identity, Size: int64(v.Size), Detail: v.Detail,
	}
}

// Attach makes the device of an export on this host.
func (s *server) Attach(ctx context.Context, r *dockpb.AttachRequest) (*dockpb.Device, error) {
	c, err := deviceCall(opAttach, r.GetCall(), r.GetAttachmentId(), r.GetVolumeId())
	switch {
	case err != nil:
	case r.GetSize() < 0:
		err = model.Invalid("size", "size: %d is not a size", r.GetSize())
	case r.GetConnection().GetType() == "":
		err = model.Invalid("connection.type", "connection.type: is missing")
	}
	if err != nil {
		return nil, refuse(err)
	}
	in := connector.Request{
		AttachmentID: r.GetAttachmentId(), VolumeID: r.GetVolumeId(), Connection: dockpb.ToConnection(r.GetConnection()),
		ReadOnly: r.GetReadOnly(), Size: model.Bytes(r.GetSize()),
	}
	return runHere(ctx, s.d, c, func(ctx context.Context, a Attacher) (*dockpb.Device, error) {
		v, err := a.Attach(ctx, in)
		if err != nil {
			return nil, err
		}
		return fromDevice(v), nil
	})
}

// Detach takes a device away.
func (s *server) Detach(ctx context.Context, r *dockpb.DetachRequest) (*dockpb.Empty, error) {
	c, err := deviceCall(opDetach, r.GetCall(), r.GetAttachmentId(), r.GetVolumeId())
	if err != nil {
		return nil, refuse(err)
	}
	in := connector.Request{
		AttachmentID: r.GetAttachmentId(), VolumeID: r.GetVolumeId(), Connection: dockpb.ToConnection(r.GetConnection()), Force: r.GetForce(),
	}
	return runHere(ctx, s.d, c, func(ctx context.Context, a Attacher) (*dockpb.Empty, error) {
		return &dockpb.Empty{}, a.Detach(ctx, in)
	})
}

// ResizeDevice has this host see a volume's new size.
func (s *server) ResizeDevice(ctx context.Context, r *dockpb.ResizeDeviceRequest) (*dockpb.Device, error) {
	c, err := deviceCall(opResizeDevice, r.GetCall(), r.GetAttachmentId(), r.GetVolumeId())
	if err == nil && r.GetSize() <= 0 {
		err = model.Invalid("size", "size: %d is not a size", r.GetSize())
	}
	if err != nil {
		return nil, refuse(err)
	}
	return runHere(ctx, s.d, c, func(ctx context.Context, a Attacher) (*dockpb.Device, error) {
		v, err := a.Resize(ctx, r.GetAttachmentId(), model.Bytes(r.GetSize()), r.GetGrowFileSystem())
		if err != nil {
			return nil, err
		}
		return fromDevice(v), nil
	})
}

// ListDevices lists what this host has attached.
func (s *server) ListDevices(ctx context.Context, r *dockpb.ListRequest) (*dockpb.DeviceList, error) {
	c, p, err := page(opListDevices, r)
	if err != nil {
		return nil, refuse(err)
	}
	c.backend = connectorName
	return runHere(ctx, s.d, c, func(ctx context.Context, a Attacher) (*dockpb.DeviceList, error) {
		list, err := a.List(ctx, p)
		if err == nil {
			err = tooMany(c, len(list), p)
		}
		if err != nil {
			return nil, err
		}
		out := &dockpb.DeviceList{Devices: make([]*dockpb.Device, 0, len(list))}
		for _, v := range list {
			out.Devices = append(out.Devices, fromDevice(v))
		}
		return out, nil
	})
}

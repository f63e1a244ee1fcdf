package dock

import (
	"context"
	"encoding/json"

	"github.com/osds-io/osds/pkg/dock/dockpb"
	"github.com/osds-io/osds/pkg/drivers"
	"github.com/osds-io/osds/pkg/model"
)

// maxPage bounds a page of a list; a larger or missing limit means this.
const maxPage = 1000

// server is the Dock service.
type server struct {
	dockpb.UnimplementedDockServer
	d *Dock
}

func volumeKey(id string) objectKey   { return objectKey{model.ResVolume, id} }
func snapshotKey(id string) objectKey { return objectKey{model.ResSnapshot, id} }
func exportKey(id string) objectKey   { return objectKey{model.ResAttachment, id} }

// checkID refuses what cannot be an id. Drivers make names and paths of ids, so
// nothing else may reach them.
func checkID(field, id string) error {
	if !model.ValidID(id) {
		return model.Invalid(field, "%s: %.64q is not an id", field, id)
	}
	return nil
}

// ability finds an optional ability of a driver.
func ability[A any](drv drivers.Driver, c call, what string) (A, error) {
	a, ok := drv.(A)
	if !ok {
		return a, model.Errorf(model.KindUnsupported, "the backend %s cannot %s", c.backend, what)
	}
	return a, nil
}

func refuse(err error) error { return dockpb.ToStatus(err) }

// CreateVolume makes a volume, empty or as a clone.
func (s *server) CreateVolume(ctx context.Context, r *dockpb.CreateVolumeRequest) (*dockpb.Volume, error) {
	id := r.GetRef().GetId()
	c := call{op: opCreateVolume, by: r.GetCall(), backend: r.GetRef().GetBackend(), target: volumeKey(id)}
	if err := checkID("ref.id", id); err != nil {
		return nil, refuse(err)
	}
	if r.GetSize() <= 0 {
		return nil, refuse(model.Invalid("size", "size: %d is not a size", r.GetSize()))
	}
	in := drivers.CreateVolume{
		ID: id, Name: r.GetName(), Pool: r.GetRef().GetPool(), Size: model.Bytes(r.GetSize()),
		TenantID: r.GetTenantId(), ClusterID: s.d.clusterFor(r.GetCall()),
	}
	c.wants = []want{{key: c.target}}
	src, w, err := source(r)
	if err != nil {
		return nil, refuse(err)
	}
	if src != nil {
		in.Source = src
		c.wants = append(c.wants, w)
	}
	if in.Profile, err = s.d.profiles.decode(r.GetProfile()); err != nil {
		return nil, refuse(err)
	}
	return run(ctx, s.d, c, func(ctx context.Context, drv drivers.Driver) (*dockpb.Volume, error) {
		create := drv.CreateVolume
		if in.Source != nil {
			cl, err := ability[drivers.Cloner](drv, c, "clone")
			if err != nil {
				return nil, err
			}
			create = cl.CloneVolume
		}
		v, err := create(ctx, in)
		if err != nil {
			return nil, err
		}
		return dockpb.FromVolume(c.backend, v), nil
	})
}

// source reads what a clone is made from. The source is locked shared, so that
// it is not removed meanwhile but many clones can be made at once.
func source(r *dockpb.CreateVolumeRequest) (*drivers.Source, want, error) {
	snap, vol := r.GetSourceSnapshot(), r.GetSourceVolume()
	if snap == nil && vol == nil {
		return nil, want{}, nil
	}
	if snap != nil && vol != nil {
		return nil, want{}, model.Invalid("source_volume", "source_volume: is given together with source_snapshot")
	}
	src := &drivers.Source{Size: model.Bytes(r.GetSourceSize())}
	ref, field, key := snap, "source_snapshot", snapshotKey(snap.GetId())
	if snap != nil {
		x := dockpb.ToSnapshotRef(snap)
		src.Snapshot = &x
	} else {
		x := dockpb.ToVolumeRef(vol)
		src.Volume, ref, field, key = &x, vol, "source_volume", volumeKey(vol.GetId())
	}
	if err := checkID(field+".id", ref.GetId()); err != nil {
		return nil, want{}, err
	}
	if ref.GetBackend() != "" && ref.GetBackend() != r.GetRef().GetBackend() {
		return nil, want{}, model.Invalid(field+".backend", "%s: a clone stays in its source's backend, %s", field, ref.GetBackend())
	}
	return src, want{key: key, shared: true}, nil
}

// objectCall is the part that all requests about one volume or snapshot share.
func objectCall(o op, by *dockpb.Call, ref *dockpb.ObjectRef, key objectKey) (call, error) {
	c := call{op: o, by: by, backend: ref.GetBackend(), target: key, wants: []want{{key: key}}}
	if !o.mutates() && by.GetEpoch() == 0 {
		// Nobody will act on a look without an epoch: it need not wait for
		// what is going on.
		c.wants = nil
	}
	return c, checkID("ref.id", ref.GetId())
}

// DeleteVolume removes a volume.
func (s *server) DeleteVolume(ctx context.Context, r *dockpb.ObjectRequest) (*dockpb.Empty, error) {
	c, err := objectCall(opDeleteVolume, r.GetCall(), r.GetRef(), volumeKey(r.GetRef().GetId()))
	if err != nil {
		return nil, refuse(err)
	}
	return run(ctx, s.d, c, func(ctx context.Context, drv drivers.Driver) (*dockpb.Empty, error) {
		return &dockpb.Empty{}, drv.DeleteVolume(ctx, dockpb.ToVolumeRef(r.GetRef()))
	})
}

// GetVolume looks at a volume. With an epoch it takes its turn among the calls
// on the volume: after it no call that was made earlier can act any more, so
// that what it saw stays true.
func (s *server) GetVolume(ctx context.Context, r *dockpb.ObjectRequest) (*dockpb.Volume, error) {
	c, err := objectCall(opGetVolume, r.GetCall(), r.GetRef(), volumeKey(r.GetRef().GetId()))
	if err != nil {
		return nil, refuse(err)
	}
	return run(ctx, s.d, c, func(ctx context.Context, drv drivers.Driver) (*dockpb.Volume, error) {
		v, err := drv.GetVolume(ctx, dockpb.ToVolumeRef(r.GetRef()))
		if err != nil {
			return nil, err
		}
		return dockpb.FromVolume(c.backend, v), nil
	})
}

// ExpandVolume grows a volume.
func (s *server) ExpandVolume(ctx context.Context, r *dockpb.ExpandVolumeRequest) (*dockpb.Volume, error) {
	c, err := objectCall(opExpandVolume, r.GetCall(), r.GetRef(), volumeKey(r.GetRef().GetId()))
	if err == nil && r.GetSize() <= 0 {
		err = model.Invalid("size", "size: %d is not a size", r.GetSize())
	}
	if err != nil {
		return nil, refuse(err)
	}
	return run(ctx, s.d, c, func(ctx context.Context, drv drivers.Driver) (*dockpb.Volume, error) {
		e, err := ability[drivers.Expander](drv, c, "expand volumes")
		if err != nil {
			return nil, err
		}
		v, err := e.ExpandVolume(ctx, dockpb.ToVolumeRef(r.GetRef()), model.Bytes(r.GetSize()))
		if err != nil {
			return nil, err
		}
		return dockpb.FromVolume(c.backend, v), nil
	})
}

// RevertVolume puts a volume back to a snapshot.
func (s *server) RevertVolume(ctx context.Context, r *dockpb.RevertVolumeRequest) (*dockpb.Volume, error) {
	c, err := objectCall(opRevertVolume, r.GetCall(), r.GetVolume(), volumeKey(r.GetVolume().GetId()))
	if err == nil {
		err = checkID("snapshot.id", r.GetSnapshot().GetId())
	}
	if err != nil {
		return nil, refuse(err)
	}
	c.wants = append(c.wants, want{key: snapshotKey(r.GetSnapshot().GetId()), shared: true})
	return run(ctx, s.d, c, func(ctx context.Context, drv drivers.Driver) (*dockpb.Volume, error) {
		rv, err := ability[drivers.Reverter](drv, c, "revert volumes")
		if err != nil {
			return nil, err
		}
		v, err := rv.RevertVolume(ctx, dockpb.ToVolumeRef(r.GetVolume()), dockpb.ToSnapshotRef(r.GetSnapshot()))
		if err != nil {
			return nil, err
		}
		return dockpb.FromVolume(c.backend, v), nil
	})
}

// CreateSnapshot makes a snapshot; nothing else is done to its volume meanwhile.
func (s *server) CreateSnapshot(ctx context.Context, r *dockpb.CreateSnapshotRequest) (*dockpb.Snapshot, error) {
	c, err := objectCall(opCreateSnapshot, r.GetCall(), r.GetRef(), snapshotKey(r.GetRef().GetId()))
	if err == nil {
		err = checkID("volume.id", r.GetVolume().GetId())
	}
	if err != nil {
		return nil, refuse(err)
	}
	c.wants = append(c.wants, want{key: volumeKey(r.GetVolume().GetId())})
	in := drivers.CreateSnapshot{
		ID: r.GetRef().GetId(), Name: r.GetName(), Volume: dockpb.ToVolumeRef(r.GetVolume()),
		TenantID: r.GetTenantId(), ClusterID: s.d.clusterFor(r.GetCall()),
	}
	return run(ctx, s.d, c, func(ctx context.Context, drv drivers.Driver) (*dockpb.Snapshot, error) {
		sn, err := ability[drivers.Snapshotter](drv, c, "make snapshots")
		if err != nil {
			return nil, err
		}
		v, err := sn.CreateSnapshot(ctx, in)
		if err != nil {
			return nil, err
		}
		return dockpb.FromSnapshot(c.backend, v), nil
	})
}

// DeleteSnapshot removes a snapshot; nothing else is done to its volume
// meanwhile.
func (s *server) DeleteSnapshot(ctx context.Context, r *dockpb.ObjectRequest) (*dockpb.Empty, error) {
	c, err := objectCall(opDeleteSnapshot, r.GetCall(), r.GetRef(), snapshotKey(r.GetRef().GetId()))
	if err == nil && r.GetRef().GetVolumeId() != "" {
		err = checkID("ref.volume_id", r.GetRef().GetVolumeId())
		c.wants = append(c.wants, want{key: volumeKey(r.GetRef().GetVolumeId())})
	}
	if err != nil {
		return nil, refuse(err)
	}
	return run(ctx, s.d, c, func(ctx context.Context, drv drivers.Driver) (*dockpb.Empty, error) {
		sn, err := ability[drivers.Snapshotter](drv, c, "make snapshots")
		if err != nil {
			return nil, err
		}
		return &dockpb.Empty{}, sn.DeleteSnapshot(ctx, dockpb.ToSnapshotRef(r.GetRef()))
	})
}

// GetSnapshot looks at a snapshot; see GetVolume.
func (s *server) GetSnapshot(ctx context.Context, r *dockpb.ObjectRequest) (*dockpb.Snapshot, error) {
	c, err := objectCall(opGetSnapshot, r.GetCall(), r.GetRef(), snapshotKey(r.GetRef().GetId()))
	if err != nil {
		return nil, refuse(err)
	}
	return run(ctx, s.d, c, func(ctx context.Context, drv drivers.Driver) (*dockpb.Snapshot, error) {
		sn, err := ability[drivers.Snapshotter](drv, c, "make snapshots")
		if err != nil {
			return nil, err
		}
		v, err := sn.GetSnapshot(ctx, dockpb.ToSnapshotRef(r.GetRef()))
		if err != nil {
			return nil, err
		}
		return dockpb.FromSnapshot(c.backend, v), nil
	})
}

// Export makes a volume reachable from a host; nothing else is done to the
// volume meanwhile.
func (s *server) Export(ctx context.Context, r *dockpb.ExportRequest) (*dockpb.Connection, error) {
	c, err := exportCall(opExport, r.GetCall(), r.GetVolume(), r.GetAttachmentId())
	if err != nil {
		return nil, refuse(err)
	}
	in := drivers.Export{
		AttachmentID: r.GetAttachmentId(), Volume: dockpb.ToVolumeRef(r.GetVolume()),
		MultiAttach: r.GetMultiAttach(), ReadOnly: r.GetReadOnly(), Protocol: r.GetProtocol(),
		QoS: drivers.QoS{MaxIOPS: r.GetMaxIops(), MaxBytesPerSecond: r.GetMaxBytesPerSecond()},
	}
	if in.QoS.MaxIOPS < 0 || in.QoS.MaxBytesPerSecond < 0 {
		return nil, refuse(model.Invalid("max_iops", "max_iops, max_bytes_per_second: a bound cannot be negative"))
	}
	if len(r.GetHost()) > 0 {
		if err := json.Unmarshal(r.GetHost(), &in.Host); err != nil {
			return nil, refuse(model.Invalid("host", "host: %v", err))
		}
	}
	return run(ctx, s.d, c, func(ctx context.Context, drv drivers.Driver) (*dockpb.Connection, error) {
		e, err := ability[drivers.Exporter](drv, c, "export volumes")
		if err != nil {
			return nil, err
		}
		conn, err := e.Export(ctx, in)
		if err != nil {
			return nil, err
		}
		return dockpb.FromConnection(conn)
	})
}

// Unexport ends an export.
func (s *server) Unexport(ctx context.Context, r *dockpb.UnexportRequest) (*dockpb.Empty, error) {
	c, err := exportCall(opUnexport, r.GetCall(), r.GetVolume(), r.GetAttachmentId())
	if err != nil {
		return nil, refuse(err)
	}
	in := drivers.ExportRef{AttachmentID: r.GetAttachmentId(), Volume: dockpb.ToVolumeRef(r.GetVolume()), Force: r.GetForce()}
	return run(ctx, s.d, c, func(ctx context.Context, drv drivers.Driver) (*dockpb.Empty, error) {
		e, err := ability[drivers.Exporter](drv, c, "export volumes")
		if err != nil {
			return nil, err
		}
		return &dockpb.Empty{}, e.Unexport(ctx, in)
	})
}

// exportCall keeps the order on the attachment, so that an export that was
// overtaken by its own end is refused, and locks the volume as well. Exports of
// one volume to several hosts may come in any order.
func exportCall(o op, by *dockpb.Call, vol *dockpb.ObjectRef, attachment string) (call, error) {
	c := call{op: o, by: by, backend: vol.GetBackend(), target: exportKey(attachment)}
	c.wants = []want{{key: c.target}, {key: volumeKey(vol.GetId())}}
	if err := checkID("attachment_id", attachment); err != nil {
		return c, err
	}
	return c, checkID("volume.id", vol.GetId())
}

// page reads the part that all list requests share.
func page(o op, r *dockpb.ListRequest) (call, drivers.Page, error) {
	c := call{op: o, by: r.GetCall(), backend: r.GetBackend()}
	p := drivers.Page{After: r.GetAfter(), Limit: int(r.GetLimit())}
	if p.Limit <= 0 || p.Limit > maxPage {
		p.Limit = maxPage
	}
	if p.After != "" {
		return c, p, checkID("after", p.After)
	}
	return c, p, nil
}

// tooMany is the error of a driver that does not keep to its page.
func tooMany(c call, n int, p drivers.Page) error {
	if n > p.Limit {
		return model.Errorf(model.KindInternal, "the driver of %s listed %d objects, asked for %d", c.backend, n, p.Limit)
	}
	return nil
}

// ListVolumes lists everything of ours in a backend.
func (s *server) ListVolumes(ctx context.Context, r *dockpb.ListRequest) (*dockpb.VolumeList, error) {
	c, p, err := page(opListVolumes, r)
	if err != nil {
		return nil, refuse(err)
	}
	return run(ctx, s.d, c, func(ctx context.Context, drv drivers.Driver) (*dockpb.VolumeList, error) {
		list, err := drv.ListVolumes(ctx, p)
		if err == nil {
			err = tooMany(c, len(list), p)
		}
		if err != nil {
			return nil, err
		}
		out := &dockpb.VolumeList{Volumes: make([]*dockpb.Volume, 0, len(list))}
		for _, v := range list {
			out.Volumes = append(out.Volumes, dockpb.FromVolume(c.backend, v))
		}
		return out, nil
	})
}

// ListSnapshots lists all snapshots of ours in a backend.
func (s *server) ListSnapshots(ctx context.Context, r *dockpb.ListRequest) (*dockpb.SnapshotList, error) {
	c, p, err := page(opListSnapshots, r)
	if err != nil {
		return nil, refuse(err)
	}
	return run(ctx, s.d, c, func(ctx context.Context, drv drivers.Driver) (*dockpb.SnapshotList, error) {
		sn, err := ability[drivers.Snapshotter](drv, c, "make snapshots")
		if err != nil {
			return nil, err
		}
		list, err := sn.ListSnapshots(ctx, p)
		if err == nil {
			err = tooMany(c, len(list), p)
		}
		if err != nil {
			return nil, err
		}
		out := &dockpb.SnapshotList{Snapshots: make([]*dockpb.Snapshot, 0, len(list))}
		for _, v := range list {
			out.Snapshots = append(out.Snapshots, dockpb.FromSnapshot(c.backend, v))
		}
		return out, nil
	})
}

// ListExports lists the live exports of a backend.
func (s *server) ListExports(ctx context.Context, r *dockpb.ListRequest) (*dockpb.ExportList, error) {
	c, p, err := page(opListExports, r)
	if err != nil {
		return nil, refuse(err)
	}
	return run(ctx, s.d, c, func(ctx context.Context, drv drivers.Driver) (*dockpb.ExportList, error) {
		e, err := ability[drivers.Exporter](drv, c, "export volumes")
		if err != nil {
			return nil, err
		}
		list, err := e.ListExports(ctx, p)
		if err == nil {
			err = tooMany(c, len(list), p)
		}
		if err != nil {
			return nil, err
		}
		out := &dockpb.ExportList{Exports: make([]*dockpb.LiveExport, 0, len(list))}
		for _, v := range list {
			out.Exports = append(out.Exports, dockpb.FromLiveExport(c.backend, v))
		}
		return out, nil
	})
}

package lvm

import (
	"context"
	"strings"

	"github.com/osds-io/osds/internal/keylock"
	"github.com/osds-io/osds/pkg/drivers"
	"github.com/osds-io/osds/pkg/drivers/export"
	"github.com/osds-io/osds/pkg/model"
)

// Export makes a volume reachable from a host, by the pool's protocol if the
// request names none.
func (d *Driver) Export(ctx context.Context, r drivers.Export) (model.Connection, error) {
	none := model.Connection{}
	if err := r.Check(); err != nil {
		return none, err
	}
	p, err := d.pool(r.Volume.Pool)
	if err != nil {
		return none, err
	}
	if err := drivers.Begin(ctx); err != nil {
		return none, err
	}
	protocol := strings.ToLower(r.Protocol)
	if protocol == "" {
		protocol = p.conf.Extras.IOConnectivity.AccessProtocol
	}
	unlock, err := d.lock(ctx, keylock.Want{Key: "a/" + r.AttachmentID}, keylock.Want{Key: volumeKey(r.Volume.ID)})
	if err != nil {
		return none, err
	}
	defer unlock()
	_, l, err := d.need(ctx, p, r.Volume.ID, false)
	if err != nil {
		return none, err
	}
	if s := l.tags[tagRevert]; s != "" && !p.conf.isThin() {
		return none, model.Errorf(model.KindBusy, "volume %s is half reverted to snapshot %s: revert it again first", r.Volume.ID, s)
	}
	if err := d.settled(ctx, p.vg, l); err != nil {
		return none, err
	}
	if err := d.activate(ctx, p.vg, l, prioAttach); err != nil {
		return none, err
	}
	return d.exports.Export(ctx, export.Request{
		AttachmentID: r.AttachmentID, VolumeID: r.Volume.ID, Device: devicePath(p.vg.name, l.name), Protocol: protocol,
		Host: r.Host, ReadOnly: r.ReadOnly, MultiAttach: r.MultiAttach && p.conf.MultiAttach, QoS: r.QoS,
	})
}

// Unexport ends an export.
func (d *Driver) Unexport(ctx context.Context, r drivers.ExportRef) error {
	if err := r.Check(); err != nil {
		return err
	}
	if r.Volume.Pool != "" {
		if _, err := d.pool(r.Volume.Pool); err != nil {
			return err
		}
	}
	if err := drivers.Begin(ctx); err != nil {
		return err
	}
	wants := []keylock.Want{{Key: "a/" + r.AttachmentID}}
	if r.Volume.ID != "" {
		wants = append(wants, keylock.Want{Key: volumeKey(r.Volume.ID)})
	}
	unlock, err := d.lock(ctx, wants...)
	if err != nil {
		return err
	}
	defer unlock()
	return d.exports.Unexport(ctx, r.AttachmentID, r.Force)
}

// ListExports lists the live exports, by attachment id.
func (d *Driver) ListExports(ctx context.Context, p drivers.Page) ([]drivers.LiveExport, error) {
	if err := drivers.Begin(ctx); err != nil {
		return nil, err
	}
	out, err := d.exports.List(ctx, p)
	if err != nil {
		return nil, err
	}
	for i := range out {
		for _, n := range d.groupNames {
			g, err := d.recent(ctx, n)
			if err != nil {
				continue // the export lives, wherever its volume is
			}
			if l, err := volumeIn(g, out[i].VolumeID); err == nil && l != nil {
				if q := d.poolOf(n, l); q != nil {
					out[i].Pool = q.name
				}
			}
		}
	}
	return out, nil
}

// deviceOf gives a volume's device for an export that is made again after a
// restart of the host: activated, if nothing else has done that.
func (d *Driver) deviceOf(ctx context.Context, id string) (string, error) {
	for _, n := range d.groupNames {
		g, err := d.recent(ctx, n)
		if err != nil {
			return "", err
		}
		l, err := volumeIn(g, id)
		if err != nil || l == nil {
			continue
		}
		if err := d.activate(ctx, d.groups[n], l, prioAttach); err != nil {
			return "", err
		}
		return devicePath(n, l.name), nil
	}
	return "", model.Errorf(model.KindNotFound, "volume %s is not there", id)
}

// notExported is busy for a volume that has an export.
func (d *Driver) notExported(id string) error {
	if at := d.exports.Of(id); len(at) > 0 {
		return model.Errorf(model.KindBusy, "volume %s is exported, by attachment %s", id, at[0])
	}
	return nil
}

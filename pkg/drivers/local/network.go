package local

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"strings"

	"github.com/osds-io/osds/internal/faults"
	"github.com/osds-io/osds/internal/keylock"
	"github.com/osds-io/osds/pkg/drivers"
	"github.com/osds-io/osds/pkg/drivers/export"
	"github.com/osds-io/osds/pkg/model"
)

// This file is about pools whose volumes other hosts attach, over iSCSI or NVMe.
// Such a volume has one loop device, which all its targets share: a target of
// the file itself would have sectors of another size than the same volume
// attached on this host, and could not grow while it is attached. A flush goes
// through the device to the file and its disk.

// network says whether a pool's volumes are exported over a network.
func (p *pool) network() bool { return p.protocol() != protocol }

func (p *pool) protocol() string { return p.conf.Extras.IOConnectivity.AccessProtocol }

// netTag is the name of a volume's shared device. It is not that of any
// attachment: no id begins with '='.
func netTag(volumeID string) string {
	h := sha256.Sum256([]byte(volumeID))
	return tagPrefix + "=" + hex.EncodeToString(h[:20])
}

// openNetwork opens the exports of pools that have any, and ends devices that
// nothing uses any more.
func (d *Driver) openNetwork(ctx context.Context, c drivers.Config, o export.Options) error {
	any := false
	for _, p := range d.pools {
		any = any || p.network()
	}
	if !any {
		return nil
	}
	xc := o.Config(filepath.Join(c.StateDir, "exports"), c.ClusterID, c.Backend)
	xc.Log = c.Log
	m, err := export.Open(ctx, xc, func(ctx context.Context, id string) (string, error) {
		o, err := d.need(volumes, id, "")
		if err != nil {
			return "", err
		}
		l, err := d.sharedLoop(ctx, o)
		return l.path(), err
	})
	if err != nil {
		return err
	}
	d.net = m
	d.mu.RLock()
	var ids []string
	d.volumes.Scan(func(id string, _ *object) bool {
		ids = append(ids, id)
		return true
	})
	d.mu.RUnlock()
	for _, id := range ids {
		// What cannot be ended now keeps its volume busy, and no more.
		_ = d.dropSharedLoop(ctx, id)
	}
	return nil
}

// exportedTo lists the attachments of a volume over a network.
func (d *Driver) exportedTo(volumeID string) []string {
	if d.net == nil {
		return nil
	}
	return d.net.Of(volumeID)
}

// exportNetwork exports a volume of a network's pool. The locks of the
// attachment and the volume are held.
func (d *Driver) exportNetwork(ctx context.Context, o object, r drivers.Export) (model.Connection, error) {
	none := model.Connection{}
	if of, ok := d.net.VolumeOf(r.AttachmentID); ok && of != r.Volume.ID {
		return none, model.Errorf(model.KindExists, "attachment %s is there already, of volume %s", r.AttachmentID, of)
	}
	ls, err := d.loopsOf(o.meta.ID)
	if err != nil {
		return none, ioError("volume "+r.Volume.ID, err)
	}
	if _, others := split(ls, netTag(o.meta.ID)); len(others) > 0 {
		return none, model.Errorf(model.KindBusy, "volume %s is in use on this host, as %s", o.meta.ID, others[0].path())
	}
	faults.Point("local.export.begin")
	l, err := d.sharedLoop(ctx, o)
	if err != nil {
		return none, ioError("attachment "+r.AttachmentID, err)
	}
	c, err := d.net.Export(ctx, export.Request{AttachmentID: r.AttachmentID, VolumeID: o.meta.ID, Device: l.path(),
		Protocol: o.pool.protocol(), Host: r.Host, ReadOnly: r.ReadOnly,
		MultiAttach: r.MultiAttach && o.pool.conf.MultiAttach, QoS: r.QoS})
	if err != nil && !model.IsKind(err, model.KindUnknownOutcome) {
		_ = d.dropSharedLoop(ctx, o.meta.ID)
	}
	return c, err
}

// sharedLoop gives the device that a volume's targets share, and makes it if
// need be.
func (d *Driver) sharedLoop(ctx context.Context, o object) (loop, error) {
	unlock, err := d.locks.LockAll(ctx, keylock.Want{Key: "l/" + o.meta.ID})
	if err != nil {
		return loop{}, err
	}
	defer unlock()
	ls, err := d.loopsOf(o.meta.ID)
	if err != nil {
		return loop{}, err
	}
	tag := netTag(o.meta.ID)
	if mine, _ := split(ls, tag); len(mine) > 0 {
		return mine[0], errors.Join(mine[0].keep(), mine[0].resize())
	}
	f, err := o.pool.root.OpenFile(volumes.data(o.meta.ID), os.O_RDWR, 0)
	if err != nil {
		return loop{}, err
	}
	defer f.Close()
	l, err := bindLoop(ctx, f, tag, false)
	if err != nil {
		return l, err
	}
	faults.Point("local.export.bound")
	if o.pool.thick() {
		_ = l.noDiscard()
	}
	return l, nil
}

// dropSharedLoop ends a volume's shared device if nothing is exported of it, or
// noted to be.
func (d *Driver) dropSharedLoop(ctx context.Context, volumeID string) error {
	unlock, err := d.locks.LockAll(ctx, keylock.Want{Key: "l/" + volumeID})
	if err != nil {
		return err
	}
	defer unlock()
	if len(d.exportedTo(volumeID)) > 0 {
		return nil
	}
	ls, err := d.loopsOf(volumeID)
	if err != nil {
		return err
	}
	mine, _ := split(ls, netTag(volumeID))
	return d.unbindAll(ctx, mine, volumeID)
}

// unexportNetwork ends an export over a network, and the volume's device with
// the last of them.
func (d *Driver) unexportNetwork(ctx context.Context, r drivers.ExportRef) error {
	volumeID := r.Volume.ID
	if of, ok := d.net.VolumeOf(r.AttachmentID); ok {
		if volumeID != "" && volumeID != of {
			return model.Invalid("volumeId", "attachment %s is of volume %s, not of %s", r.AttachmentID, of, volumeID)
		}
		volumeID = of
	}
	if err := d.net.Unexport(ctx, r.AttachmentID, r.Force); err != nil {
		return err
	}
	if volumeID == "" {
		return nil
	}
	return ioError("attachment "+r.AttachmentID, d.dropSharedLoop(ctx, volumeID))
}

// networkExports lists what is exported over a network, with its pool.
func (d *Driver) networkExports(ctx context.Context, p drivers.Page) ([]drivers.LiveExport, error) {
	if d.net == nil {
		return nil, nil
	}
	xs, err := d.net.List(ctx, p)
	for i := range xs {
		if o, ok, _ := d.lookup(volumes, xs[i].VolumeID, ""); ok {
			xs[i].Pool = o.pool.name
		}
	}
	return xs, err
}

// whyNoNetwork says why a pool's volumes cannot be exported; empty if they can.
func (d *Driver) whyNoNetwork(p *pool) string {
	if d.net == nil || !p.network() {
		return ""
	}
	_, why := d.net.Protocols()
	return why[p.protocol()]
}

// accessProtocol gives an access protocol as it is spelt, if it is one.
func accessProtocol(s string) (string, bool) {
	for _, p := range []string{protocol, export.ISCSI, export.NVMe} {
		if strings.EqualFold(s, p) {
			return p, true
		}
	}
	return "", false
}

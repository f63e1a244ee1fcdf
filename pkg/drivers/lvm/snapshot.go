package lvm

import (
	"context"
	"strconv"

	"github.com/osds-io/osds/internal/keylock"
	"github.com/osds-io/osds/pkg/drivers"
	"github.com/osds-io/osds/pkg/model"
)

// CreateSnapshot makes a snapshot of a volume as it is now. LVM suspends the
// volume for a moment, so that it is crash-consistent.
func (d *Driver) CreateSnapshot(ctx context.Context, r drivers.CreateSnapshot) (drivers.Snapshot, error) {
	none := drivers.Snapshot{}
	if err := r.Check(); err != nil {
		return none, err
	}
	p, err := d.pool(r.Volume.Pool)
	if err != nil {
		return none, err
	}
	if err := checkName("snapshotId", p.vg.name, r.ID); err != nil {
		return none, err
	}
	if err := drivers.Begin(ctx); err != nil {
		return none, err
	}
	unlock, err := d.lock(ctx, keylock.Want{Key: snapshotKey(r.ID)}, keylock.Want{Key: volumeKey(r.Volume.ID)})
	if err != nil {
		return none, err
	}
	defer unlock()
	if err := d.recoverVolume(ctx, p.vg, r.Volume.ID); err != nil {
		return none, err
	}
	g, err := d.freshGroup(ctx, p.vg.name)
	if err != nil {
		return none, err
	}
	have, err := snapshotIn(g, r.ID)
	if err != nil {
		return none, err
	}
	if have != nil {
		switch {
		case have.tags[tagOf] != r.Volume.ID:
			return none, model.Errorf(model.KindExists, "snapshot %s is there already, of volume %s", r.ID, have.tags[tagOf])
		case have.overflowed():
			return none, overflowError(r.ID)
		}
		return d.snapshot(g, have), nil
	}
	if vg := d.elsewhere(p, snapshotName(r.ID)); vg != "" {
		return none, model.Errorf(model.KindExists, "snapshot %s is there already, in the volume group %s", r.ID, vg)
	}
	_, vol, err := d.need(ctx, p, r.Volume.ID, true)
	if err != nil {
		return none, err
	}
	if err := halfReverted(p, r.Volume.ID, vol); err != nil {
		return none, err
	}
	cluster := r.ClusterID
	if cluster == "" {
		cluster = d.cluster
	}
	t := tags{tagKind: kindSnapshot, tagID: r.ID, tagOf: r.Volume.ID, tagTenant: r.TenantID, tagCluster: cluster,
		tagSize: strconv.FormatInt(int64(vol.size), 10)}
	if err := d.takeSnapshot(ctx, p, vol, snapshotName(r.ID), t, "snapshot"); err != nil {
		return none, err
	}
	g, l, err := d.needSnapshot(ctx, p, r.ID, false)
	if err != nil {
		return none, err
	}
	return d.snapshot(g, l), nil
}

// takeSnapshot makes a thin or thick snapshot.
func (d *Driver) takeSnapshot(ctx context.Context, p *pool, vol *lv, name string, t tags, op string) error {
	if err := d.settled(ctx, p.vg, vol); err != nil {
		return err
	}
	if p.conf.isThin() {
		return d.snapThin(ctx, p, vol.name, name, t, op)
	}
	if err := d.activate(ctx, p.vg, vol, prioNormal); err != nil {
		return err // LVM clears the beginning of the snapshot's space
	}
	return d.inTurn(ctx, p.vg, prioNormal, func(g *group) error {
		// One that does not fit is refused by LVM; room for the least there is
		// says so without a command.
		space := g.roundUp(max(vol.size*model.Bytes(p.conf.snapshot.percent)/100, p.conf.snapshot.bytes))
		if err := d.room(p, g, space, true); err != nil {
			return err
		}
		argv := []string{"lvcreate", "--yes", "--quiet", "--type", "snapshot", "--name", name}
		if n := p.conf.snapshot.percent; n > 0 {
			argv = append(argv, "--extents", strconv.Itoa(n)+"%ORIGIN")
		} else {
			argv = append(argv, "--size", bytesArg(space))
		}
		point(op, "begin")
		err := d.change(ctx, p.vg, "", append(append(argv, t.args()...), p.vg.name+"/"+vol.name)...)
		p.vg.forget() // how much space it took, LVM has chosen
		if err != nil {
			err = d.failed(ctx, p.vg, err, func(g *group) (bool, error) {
				if l := g.lvs[name]; l != nil {
					return l.is(t[tagKind], t[tagID]), nil
				}
				if model.IsKind(err, model.KindUnknownOutcome) {
					return false, nil
				}
				return false, d.room(p, g, space, false)
			})
		}
		if err == nil {
			point(op, "made")
		}
		return err
	})
}

// snapThin makes a thin snapshot of a thin volume or snapshot. It stays without a
// device until it needs one.
func (d *Driver) snapThin(ctx context.Context, p *pool, origin, name string, t tags, op string) error {
	return d.inTurn(ctx, p.vg, prioNormal, func(g *group) error {
		if err := d.room(p, g, 0, true); err != nil {
			return err
		}
		from := g.lvs[origin]
		if from == nil {
			return model.Errorf(model.KindNotFound, "%s/%s is not there any more", g.name, origin)
		}
		l := &lv{name: name, size: from.size, tags: t, open: no, pool: p.conf.thin, origin: origin, data: noPercent, meta: noPercent, snap: noPercent}
		point(op, "begin")
		argv := append([]string{"lvcreate", "--yes", "--quiet", "--snapshot", "--name", name, "--activate", "n",
			"--setactivationskip", "n"}, t.args()...)
		if err := d.create(ctx, p, l, "", append(argv, p.vg.name+"/"+origin)...); err != nil {
			return err
		}
		point(op, "made")
		return nil
	})
}

func overflowError(id string) error {
	return model.Errorf(model.KindConflict, "snapshot %s has overflowed: more was written to its volume than it had space for (snapshotSize), and its data is lost; delete it", id)
}

// halfReverted refuses a thick volume that is neither what it was nor what it is
// to become.
func halfReverted(p *pool, id string, l *lv) error {
	if s := l.tags[tagRevert]; s != "" && !p.conf.isThin() {
		return model.Errorf(model.KindBusy, "volume %s is half reverted to snapshot %s: revert it again first", id, s)
	}
	return nil
}

// DeleteSnapshot removes a snapshot, whole or not.
func (d *Driver) DeleteSnapshot(ctx context.Context, r drivers.SnapshotRef) error {
	if err := r.Check(); err != nil {
		return err
	}
	if err := drivers.Begin(ctx); err != nil {
		return err
	}
	pools, err := d.searchPools(r.Pool)
	if err != nil {
		return err
	}
	wants := []keylock.Want{{Key: snapshotKey(r.ID)}}
	if r.VolumeID != "" {
		wants = append(wants, keylock.Want{Key: volumeKey(r.VolumeID)})
	}
	unlock, err := d.lock(ctx, wants...)
	if err != nil {
		return err
	}
	defer unlock()
	for _, p := range pools {
		g, err := d.freshGroup(ctx, p.vg.name)
		if err != nil {
			return err
		}
		l, err := snapshotIn(g, r.ID)
		if err != nil || l == nil {
			continue // absent, or somebody else's
		}
		if err := ofVolume(r, l); err != nil {
			return err
		}
		if r.Pool != "" {
			if err := inPool(d, p, l, "snapshot "+r.ID); err != nil {
				return err
			}
		}
		point("deleteSnapshot", "begin")
		if err := d.remove(ctx, p.vg, l.name, prioNormal); err != nil {
			return err
		}
		point("deleteSnapshot", "removed")
	}
	return nil
}

// ofVolume checks that a snapshot is of the volume that the reference names.
func ofVolume(r drivers.SnapshotRef, l *lv) error {
	if of := l.tags[tagOf]; r.VolumeID != "" && of != r.VolumeID {
		return model.Invalid("volumeId", "snapshot %s is of volume %s, not of %s", r.ID, of, r.VolumeID)
	}
	return nil
}

// GetSnapshot gives a snapshot that is whole. One that has overflowed is a
// conflict: it is there, and worthless.
func (d *Driver) GetSnapshot(ctx context.Context, r drivers.SnapshotRef) (drivers.Snapshot, error) {
	none := drivers.Snapshot{}
	if err := r.Check(); err != nil {
		return none, err
	}
	if err := drivers.Begin(ctx); err != nil {
		return none, err
	}
	pools, err := d.searchPools(r.Pool)
	if err != nil {
		return none, err
	}
	for _, p := range pools {
		var g *group
		var l *lv
		if g, l, err = d.needSnapshot(ctx, p, r.ID, true); err == nil {
			if err := ofVolume(r, l); err != nil {
				return none, err
			}
			if l, err = d.fill(ctx, p, l); err != nil {
				return none, err
			}
			return d.snapshot(g, l), nil
		}
		if !model.IsKind(err, model.KindNotFound) && !(r.Pool == "" && model.IsKind(err, model.KindInvalid)) {
			return none, err
		}
	}
	return none, err
}

// fill looks whether a thick snapshot has overflowed, which is seen only while it
// has a device.
func (d *Driver) fill(ctx context.Context, p *pool, l *lv) (*lv, error) {
	if l.pool != "" {
		return l, nil
	}
	if l.invalid == unknown {
		if err := d.activate(ctx, p.vg, &lv{name: l.origin}, prioNormal); err != nil {
			return nil, err
		}
		p.vg.forget()
		_, now, err := d.needSnapshot(ctx, p, l.tags[tagID], true)
		if err != nil {
			return nil, err
		}
		l = now
	}
	if l.overflowed() {
		return nil, overflowError(l.tags[tagID])
	}
	return l, nil
}

// growSnapshots gives thick snapshots that are nearly full more space, where the
// configuration asks for it.
func (d *Driver) growSnapshots(ctx context.Context) {
	for _, n := range d.names {
		p := d.pools[n]
		if p.conf.SnapshotGrow == 0 {
			continue
		}
		g, err := d.recent(ctx, p.vg.name)
		if err != nil {
			continue // Pools says so
		}
		for _, l := range g.lvs {
			if l.origin == "" || l.tags[tagKind] == "" || !p.has(l) || l.overflowed() || l.snap < percent(p.conf.SnapshotGrow*100) {
				continue
			}
			err := d.inTurn(ctx, p.vg, prioNormal, func(g *group) error {
				if err := d.room(p, g, g.roundUp(l.size/5), true); err != nil {
					return err
				}
				defer p.vg.forget()
				return d.change(ctx, p.vg, "", "lvextend", "--yes", "--quiet", "--extents", "+20%LV", g.name+"/"+l.name)
			})
			if err != nil {
				d.warn(p, "grow "+l.tags[tagID], "a snapshot that is nearly full could not be given more space: "+err.Error())
				continue
			}
			d.warn(p, "grow "+l.tags[tagID], "")
			d.log.WithField("pool", n).WithField("snapshot", l.tags[tagID]).Info("the snapshot was given a fifth more space")
		}
	}
}

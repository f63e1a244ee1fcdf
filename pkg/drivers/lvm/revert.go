package lvm

import (
	"context"
	"errors"

	"github.com/osds-io/osds/internal/keylock"
	"github.com/osds-io/osds/pkg/drivers"
	"github.com/osds-io/osds/pkg/model"
)

// RevertVolume puts a volume back to one of its snapshots. LVM's own merge would
// use the snapshot up. So a thin volume is replaced by a new snapshot of the
// snapshot; of a thick one, what differs is copied back.
func (d *Driver) RevertVolume(ctx context.Context, vr drivers.VolumeRef, sr drivers.SnapshotRef) (drivers.Volume, error) {
	none := drivers.Volume{}
	if err := vr.Check(); err != nil {
		return none, err
	}
	if err := sr.Check(); err != nil {
		return none, err
	}
	p, err := d.pool(vr.Pool)
	if err != nil {
		return none, err
	}
	if err := drivers.Begin(ctx); err != nil {
		return none, err
	}
	unlock, err := d.lock(ctx, keylock.Want{Key: volumeKey(vr.ID)}, keylock.Want{Key: snapshotKey(sr.ID), Shared: true})
	if err != nil {
		return none, err
	}
	defer unlock()
	if err := d.recoverVolume(ctx, p.vg, vr.ID); err != nil {
		return none, err
	}
	_, vol, err := d.need(ctx, p, vr.ID, true)
	if err != nil {
		return none, err
	}
	_, snap, err := d.needSnapshot(ctx, p, sr.ID, true)
	if err != nil {
		return none, err
	}
	if of := snap.tags[tagOf]; of != vr.ID {
		return none, model.Invalid("snapshotId", "snapshot %s is of volume %s, not of %s", sr.ID, of, vr.ID)
	}
	if snap, err = d.fill(ctx, p, snap); err != nil {
		return none, err
	}
	if err := d.notExported(vr.ID); err != nil {
		return none, err
	}
	if err := d.settled(ctx, p.vg, vol); err != nil {
		return none, err
	}
	if p.conf.isThin() {
		err = d.revertThin(ctx, p, vol, snap)
	} else {
		err = d.revertThick(ctx, p, vol, snap)
	}
	if err != nil {
		return none, err
	}
	g, l, err := d.need(ctx, p, vr.ID, true)
	if err != nil {
		return none, err
	}
	return d.volume(g, l), nil
}

// revertThin makes what the volume is to become, and swaps it in by its name:
//
//	_revert-ID made and grown; volume-ID -> _old-ID; _revert-ID -> volume-ID; _old-ID removed
//
// Once the old one has given up its name there is no way back, only on:
// recoverVolume finishes what a crash has left.
func (d *Driver) revertThin(ctx context.Context, p *pool, vol, snap *lv) error {
	id := vol.tags[tagID]
	if err := d.removeAny(ctx, p.vg, revertName(id), id); err != nil {
		return err // of a revert that was interrupted
	}
	t := vol.tags.without(tagNew).with(tagRevert, snap.tags[tagID]).with(tagKind, kindVolume)
	if err := d.snapThin(ctx, p, snap.name, revertName(id), t, "revert"); err != nil {
		return err
	}
	if snap.size < vol.size {
		if err := d.growThin(ctx, p, revertName(id), vol.size, false, "revert"); err != nil {
			return err
		}
	}
	// Whoever has it open would go on with the old one.
	if err := d.inTurn(ctx, p.vg, prioNormal, func(*group) error { return d.deactivate(ctx, p.vg, volumeName(id)) }); err != nil {
		return err
	}
	if err := d.rename(ctx, p.vg, volumeName(id), oldName(id)); err != nil {
		return err
	}
	point("revert", "parted")
	if err := d.rename(ctx, p.vg, revertName(id), volumeName(id)); err != nil {
		return err
	}
	point("revert", "swapped")
	if err := d.removeAny(ctx, p.vg, oldName(id), id); err != nil {
		return err
	}
	point("revert", "end")
	return nil
}

// removeAny removes a logical volume of ours by its name, if it is there and made
// for the id.
func (d *Driver) removeAny(ctx context.Context, vg *vgroup, name, id string) error {
	g, err := d.recent(ctx, vg.name)
	if err != nil {
		return err
	}
	if l := g.lvs[name]; l == nil || l.tags[tagID] != id || l.tags[tagKind] == "" {
		return nil
	}
	return d.remove(ctx, vg, name, prioNormal)
}

// rename gives a logical volume another name. One that has it already is done.
func (d *Driver) rename(ctx context.Context, vg *vgroup, from, to string) error {
	return d.inTurn(ctx, vg, prioNormal, func(g *group) error {
		if err := d.change(ctx, vg, "", "lvrename", "--yes", "--quiet", vg.name, from, to); err != nil {
			return d.failed(ctx, vg, err, func(g *group) (bool, error) {
				return g.lvs[from] == nil && g.lvs[to] != nil, nil
			})
		}
		vg.update(func(g *group) {
			if l := g.lvs[from]; l != nil {
				c := *l
				c.name = to
				g.lvs[to] = &c
				delete(g.lvs, from)
			}
			for n, x := range g.lvs {
				if x.origin == from {
					c := *x
					c.origin = to
					g.lvs[n] = &c
				}
			}
		})
		return nil
	})
}

// recoverVolume finishes the swap of a revert that was interrupted. It does no harm
// beside a revert that is going on: each of its steps may be done by either.
func (d *Driver) recoverVolume(ctx context.Context, vg *vgroup, id string) error {
	g, err := d.recent(ctx, vg.name)
	if err != nil {
		return err
	}
	return d.recoverIn(ctx, vg, g, id)
}

func (d *Driver) recoverIn(ctx context.Context, vg *vgroup, g *group, id string) error {
	old := g.lvs[oldName(id)]
	if !old.is(kindVolume, id) {
		return nil
	}
	vol, next := g.lvs[volumeName(id)], g.lvs[revertName(id)]
	if vol == nil {
		from := old.name
		if next.is(kindVolume, id) && next.size >= old.size {
			from = next.name
		}
		if err := d.rename(ctx, vg, from, volumeName(id)); err != nil {
			return err
		}
		if from == old.name {
			return nil
		}
	}
	return d.removeAny(ctx, vg, oldName(id), id)
}

// recoverGroup finishes every interrupted swap of a group, when the driver opens.
func (d *Driver) recoverGroup(ctx context.Context, vg *vgroup, g *group) error {
	for _, l := range g.lvs {
		if id := l.tags[tagID]; l.tags[tagKind] == kindVolume && l.name == oldName(id) {
			if err := d.recoverIn(ctx, vg, g, id); err != nil {
				return err
			}
		}
	}
	return nil
}

// revertThick copies what differs from the snapshot back into the volume, in
// place. Until that has come to its end the volume is neither what it was nor
// what it is to become: a tag says so, and nothing but the same revert, or a
// delete, is done with it.
func (d *Driver) revertThick(ctx context.Context, p *pool, vol, snap *lv) error {
	id := snap.tags[tagID]
	if err := d.activate(ctx, p.vg, vol, prioNormal); err != nil {
		return err
	}
	if err := notOpen(ctx, p.vg.name, vol.name); err != nil {
		return err
	}
	name := revertNote(vol.tags[tagID], id)
	if vol.tags[tagRevert] != id {
		// How far an earlier one came says nothing of this one.
		if err := d.journal.set(name, progress{}); err != nil {
			return err
		}
		if err := d.retag(ctx, p.vg, vol.name, vol.tags, vol.tags.with(tagRevert, id)); err != nil {
			return err
		}
	}
	point("revert", "marked")
	if err := d.copyBack(ctx, p, vol, snap, name); err != nil {
		return asKind("reverting volume "+vol.tags[tagID], err)
	}
	point("revert", "copied")
	if err := d.stillGood(ctx, p, snap.name); err != nil {
		return err
	}
	marked := vol.tags.with(tagRevert, id)
	if err := d.retag(ctx, p.vg, vol.name, marked, marked.without(tagRevert)); err != nil {
		return err
	}
	d.journal.drop(name)
	point("revert", "end")
	return nil
}

// revertNote is the journal's name of how far a thick revert is. It is only of
// use while the volume's tag says that the revert is going on.
func revertNote(volumeID, snapshotID string) string { return "revert/" + volumeID + "/" + snapshotID }

// copyBack goes on from where the journal says that an earlier call came to.
// Nobody has written since: the volume is not exported before the revert ends.
func (d *Driver) copyBack(ctx context.Context, p *pool, vol, snap *lv, name string) (err error) {
	size := snap.sizeWhenTaken()
	src, err := openAtLeast(ctx, p.vg.name, snap.name, size)
	if err != nil {
		return err
	}
	defer src.Close()
	dst, err := openDevice(ctx, p.vg.name, vol.name, vol.size, true)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, dst.Close()) }()
	pc, end := d.pace(ctx), min(int64(size), int64(vol.size))
	from := min(d.journal.get(name).Offset, int64(vol.size))
	note := func(off int64) error { return d.journal.set(name, progress{Offset: off}) }
	if err = copyData(pc, dst, src, min(from, end), end, true, note); err == nil {
		// What came after the snapshot reads as zero.
		err = copyData(pc, dst, nil, max(from, end), int64(vol.size), true, note)
	}
	var u *unfinished
	if errors.As(err, &u) && dst.Sync() == nil {
		_ = note(u.off)
	}
	return err
}

// retag changes the tags of a logical volume.
func (d *Driver) retag(ctx context.Context, vg *vgroup, name string, from, to tags) error {
	argv := []string{"lvchange", "--yes", "--quiet"}
	for k, v := range from {
		if v != "" && to[k] != v {
			argv = append(argv, "--deltag", k+"="+encodeTag(v))
		}
	}
	for k, v := range to {
		if v != "" && from[k] != v {
			argv = append(argv, "--addtag", k+"="+encodeTag(v))
		}
	}
	return d.inTurn(ctx, vg, prioNormal, func(g *group) error {
		if err := d.change(ctx, vg, "", append(argv, vg.name+"/"+name)...); err != nil {
			return d.failed(ctx, vg, err, func(g *group) (bool, error) {
				l := g.lvs[name]
				if l == nil {
					return false, model.Errorf(model.KindNotFound, "%s/%s is not there any more", vg.name, name)
				}
				for k, v := range to {
					if l.tags[k] != v {
						return false, nil
					}
				}
				return true, nil
			})
		}
		vg.update(func(g *group) {
			if l := g.lvs[name]; l != nil {
				c := *l
				c.tags = to.without()
				g.lvs[name] = &c
			}
		})
		return nil
	})
}

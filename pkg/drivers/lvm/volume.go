package lvm

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"

	"github.com/osds-io/osds/internal/keylock"
	"github.com/osds-io/osds/pkg/drivers"
	"github.com/osds-io/osds/pkg/model"
)

// roundUp rounds a size up to whole extents.
func (g *group) roundUp(n model.Bytes) model.Bytes { return (n + g.extent - 1) / g.extent * g.extent }

// CreateVolume makes a volume, or a clone if the request has a source.
func (d *Driver) CreateVolume(ctx context.Context, r drivers.CreateVolume) (drivers.Volume, error) {
	if r.Source != nil {
		return d.CloneVolume(ctx, r)
	}
	p, err := d.checkCreate(ctx, r)
	if err != nil {
		return drivers.Volume{}, err
	}
	unlock, err := d.lock(ctx, keylock.Want{Key: volumeKey(r.ID)})
	if err != nil {
		return drivers.Volume{}, err
	}
	defer unlock()
	return d.produce(ctx, p, r, "", func(g *group, have *lv, t tags) (*lv, error) {
		if p.conf.isThin() {
			return d.makeThin(ctx, p, r, t)
		}
		return d.makeThick(ctx, p, r, have, t)
	})
}

func (d *Driver) checkCreate(ctx context.Context, r drivers.CreateVolume) (*pool, error) {
	if err := r.Check(); err != nil {
		return nil, err
	}
	p, err := d.pool(r.Pool)
	if err != nil {
		return nil, err
	}
	if err := checkName("volumeId", p.vg.name, r.ID); err != nil {
		return nil, err
	}
	return p, drivers.Begin(ctx)
}

// produce gives the volume that there is, or has make make it. make gets what an
// interrupted call left of the very same volume, or nil, and the tags of a new
// one without tagNew. The caller holds the volume's lock.
func (d *Driver) produce(ctx context.Context, p *pool, r drivers.CreateVolume, source string,
	make func(g *group, have *lv, t tags) (*lv, error)) (drivers.Volume, error) {
	none := drivers.Volume{}
	if err := d.recoverVolume(ctx, p.vg, r.ID); err != nil {
		return none, err
	}
	if vg := d.elsewhere(p, volumeName(r.ID)); vg != "" {
		return none, model.Errorf(model.KindExists, "volume %s is there already, in the volume group %s", r.ID, vg)
	}
	g, err := d.recent(ctx, p.vg.name)
	if err != nil {
		return none, err
	}
	have := g.lvs[volumeName(r.ID)]
	if have != nil { // seldom: be sure of it
		if g, err = d.freshGroup(ctx, p.vg.name); err != nil {
			return none, err
		}
		if have, err = volumeIn(g, r.ID); err != nil {
			return none, err
		}
	}
	if have != nil {
		same := have.size == g.roundUp(r.Size) && have.tags[tagSource] == source && p.has(have)
		switch {
		case have.tags[tagImport] != "":
			return none, model.Errorf(model.KindExists, "volume %s is being imported", r.ID)
		case d.whole(have) && same:
			return d.volume(g, have), nil
		case d.whole(have):
			return none, model.Errorf(model.KindExists, "volume %s is there already, with %s in pool %s and source %q",
				r.ID, have.size, d.volume(g, have).Pool, have.tags[tagSource])
		case !same || have.tags[tagDeleting] != "":
			if err := d.removeAll(ctx, p.vg, r.ID, "create"); err != nil {
				return none, err
			}
			have = nil
		}
	}
	cluster := r.ClusterID
	if cluster == "" {
		cluster = d.cluster
	}
	t := tags{tagKind: kindVolume, tagID: r.ID, tagTenant: r.TenantID, tagCluster: cluster, tagSource: source}
	l, err := make(g, have, t)
	if err != nil {
		return none, err
	}
	return d.volume(g, l), nil
}

// makeThin makes a thin volume: one command, and it is whole.
func (d *Driver) makeThin(ctx context.Context, p *pool, r drivers.CreateVolume, t tags) (*lv, error) {
	var made *lv
	err := d.inTurn(ctx, p.vg, prioNormal, func(g *group) error {
		size := g.roundUp(r.Size)
		if err := d.room(p, g, size, true); err != nil {
			return err
		}
		l := &lv{name: volumeName(r.ID), size: size, tags: t, active: true, open: no, pool: p.conf.thin, data: noPercent, meta: noPercent, snap: noPercent}
		point("create", "begin")
		argv := append([]string{"lvcreate", "--yes", "--quiet", "--type", "thin", "--thinpool", p.conf.thin, "--virtualsize", bytesArg(size),
			"--name", l.name, "--activate", "y", "--wipesignatures", "n"}, t.args()...)
		if err := d.create(ctx, p, l, "", append(argv, p.vg.name)...); err != nil {
			return err
		}
		point("create", "made")
		made = l
		return nil
	})
	return made, err
}

// makeThick makes a thick volume, or goes on with one: it is cleared before it
// is whole.
func (d *Driver) makeThick(ctx context.Context, p *pool, r drivers.CreateVolume, have *lv, t tags) (*lv, error) {
	l := have
	if l == nil && p.conf.Zeroing == zeroDelete {
		var err error
		if l, err = d.makeClear(ctx, p, r, t); err != nil {
			return nil, err
		}
	}
	if l == nil {
		var err error
		if l, err = d.makeNew(ctx, p, volumeName(r.ID), r.Size, t, "create"); err != nil {
			return nil, err
		}
	}
	if d.whole(l) {
		return l, nil
	}
	if err := d.finish(ctx, p, l, "create", func(f *os.File, from int64, note func(int64) error) error {
		return zero(d.pace(ctx), f, from, int64(l.size), note)
	}); err != nil {
		return nil, fmt.Errorf("volume %s: %w", r.ID, err)
	}
	return l, nil
}

// makeNew makes a thick logical volume that is not whole yet. What is on its
// extents is somebody's old data.
func (d *Driver) makeNew(ctx context.Context, p *pool, name string, size model.Bytes, t tags, op string) (*lv, error) {
	var made *lv
	err := d.inTurn(ctx, p.vg, prioNormal, func(g *group) error {
		size := g.roundUp(size)
		if err := d.room(p, g, size, true); err != nil {
			return err
		}
		l := &lv{name: name, size: size, tags: t.with(tagNew, model.NewID()), active: true, open: no, data: noPercent, meta: noPercent, snap: noPercent}
		point(op, "begin")
		argv := append([]string{"lvcreate", "--yes", "--quiet", "--type", "linear", "--extents", strconv.FormatInt(int64(size/g.extent), 10),
			"--name", name, "--activate", "y", "--zero", "n", "--wipesignatures", "n"}, l.tags.args()...)
		if err := d.create(ctx, p, l, "", append(argv, p.vg.name)...); err != nil {
			return err
		}
		point(op, "made")
		made = l
		return nil
	})
	return made, err
}

func bytesArg(n model.Bytes) string { return strconv.FormatInt(int64(n), 10) + "b" }

// inTurn calls fn in a turn of the group, with its recent state.
func (d *Driver) inTurn(ctx context.Context, vg *vgroup, pr prio, fn func(g *group) error) error {
	end, err := vg.turns.take(ctx, pr)
	if err != nil {
		return err
	}
	defer end()
	g, err := d.recent(ctx, vg.name)
	if err != nil {
		return err
	}
	return fn(g)
}

// create runs an lvcreate that makes l, active unless l says otherwise. The
// caller has the turn. An error other than unknownOutcome says that it was not
// made.
func (d *Driver) create(ctx context.Context, p *pool, l *lv, settings string, argv ...string) error {
	err := d.change(ctx, p.vg, settings, argv...)
	if err == nil && l.active {
		// The device is the proof.
		f, derr := openDevice(ctx, p.vg.name, l.name, l.size, false)
		if derr == nil {
			derr = f.Close()
		}
		if derr != nil {
			p.vg.forget()
			err = derr
		}
	}
	if err == nil && !l.active {
		g, rerr := d.freshGroup(ctx, p.vg.name)
		if rerr != nil {
			return model.Errorf(model.KindUnknownOutcome, "%s was made, and then: %w", l.name, rerr)
		}
		if g.lvs[l.name] != nil {
			return nil
		}
		err = model.Errorf(model.KindInternal, "%s/%s is not there although it was made", g.name, l.name)
	}
	if err == nil {
		p.vg.update(func(g *group) {
			g.lvs[l.name] = l
			if l.pool == "" {
				g.free -= l.size
			}
		})
		return nil
	}
	return d.failed(ctx, p.vg, err, func(g *group) (bool, error) {
		now := g.lvs[l.name]
		if now == nil {
			if model.IsKind(err, model.KindUnknownOutcome) {
				return false, nil
			}
			return false, d.room(p, g, l.size, false)
		}
		if now.tags[tagNew] == l.tags[tagNew] && now.is(l.tags[tagKind], l.tags[tagID]) && now.size == l.size {
			// It was made all the same; what is wrong is the device.
			if now.active {
				return true, nil
			}
			return false, model.Errorf(model.KindUnavailable, "%s/%s was made but is not active: %w", g.name, l.name, err)
		}
		return false, model.Errorf(model.KindExists, "%s/%s is there already", g.name, l.name)
	})
}

// finish brings what is new to its end: fill clears or copies, from where an
// earlier call came to; then it is whole.
func (d *Driver) finish(ctx context.Context, p *pool, l *lv, op string, fill func(f *os.File, from int64, note func(int64) error) error) error {
	nonce := l.tags[tagNew]
	if err := d.activate(ctx, p.vg, l, prioNormal); err != nil {
		return err
	}
	f, err := openDevice(ctx, p.vg.name, l.name, l.size, true)
	if err != nil {
		return err
	}
	note := func(off int64) error { return d.journal.set(nonce, progress{Offset: off}) }
	err = fill(f, min(d.journal.get(nonce).Offset, int64(l.size)), note)
	var u *unfinished
	if errors.As(err, &u) {
		if serr := f.Sync(); serr == nil {
			_ = note(u.off) // where the next call goes on
		}
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return asKind(p.vg.name+"/"+l.name, err)
	}
	point(op, "filled")
	if err := d.journal.set(nonce, progress{Whole: true}); err != nil {
		return err
	}
	point(op, "whole")
	d.wake()
	return nil
}

// activate makes sure that a logical volume has its device.
func (d *Driver) activate(ctx context.Context, vg *vgroup, l *lv, pr prio) error {
	if l.active && l.suspended != yes {
		if _, err := os.Stat(devicePath(vg.name, l.name)); err == nil {
			return nil
		}
	}
	return d.inTurn(ctx, vg, pr, func(g *group) error {
		argv := []string{"lvchange", "--quiet", "--yes", "--activate", "y", "--ignoreactivationskip", vg.name + "/" + l.name}
		if l.suspended == yes {
			argv = []string{"lvchange", "--quiet", "--refresh", vg.name + "/" + l.name}
		}
		if err := d.change(ctx, vg, "", argv...); err != nil {
			return d.failed(ctx, vg, err, func(g *group) (bool, error) {
				now := g.lvs[l.name]
				if now == nil {
					return false, model.Errorf(model.KindNotFound, "%s/%s is not there any more", vg.name, l.name)
				}
				return now.active && now.suspended != yes, nil
			})
		}
		vg.update(func(g *group) { g.setActive(l.name, true) })
		return nil
	})
}

func (g *group) setActive(name string, on bool) {
	if l := g.lvs[name]; l != nil {
		c := *l
		c.active, c.suspended = on, no
		g.lvs[name] = &c
	}
}

// DeleteVolume removes a volume, whole or not, and whatever was made for it.
func (d *Driver) DeleteVolume(ctx context.Context, r drivers.VolumeRef) error {
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
	unlock, err := d.lock(ctx, keylock.Want{Key: volumeKey(r.ID)})
	if err != nil {
		return err
	}
	defer unlock()
	if at := d.exports.Of(r.ID); len(at) > 0 {
		return model.Errorf(model.KindBusy, "volume %s is exported, by attachment %s", r.ID, at[0])
	}
	for _, p := range pools {
		if err := d.deleteIn(ctx, p, r.ID, r.Pool != ""); err != nil {
			return err
		}
	}
	return nil
}

func (d *Driver) deleteIn(ctx context.Context, p *pool, id string, named bool) error {
	g, err := d.recent(ctx, p.vg.name)
	if err != nil {
		return err
	}
	l, err := volumeIn(g, id)
	if err != nil || l == nil {
		if g, err = d.freshGroup(ctx, p.vg.name); err != nil {
			return err
		}
		if l, err = volumeIn(g, id); model.IsKind(err, model.KindExists) {
			return nil // somebody else's: the volume is absent
		} else if err != nil {
			return err
		}
	}
	if l == nil {
		l = claimed(g, id)
	}
	if l != nil && named {
		if err := inPool(d, p, l, "volume "+id); err != nil {
			return err
		}
	}
	if l != nil && l.tags[tagImport] != "" {
		return d.undoImport(ctx, p.vg, l)
	}
	point("delete", "begin")
	if l != nil && p.conf.Zeroing == zeroDelete {
		if err := d.wipe(ctx, p, id); err != nil {
			return err
		}
	}
	return d.removeAll(ctx, p.vg, id, "delete")
}

// removeAll removes a volume and its helps. The helps go first, so that what a
// crash leaves is still listed as the volume.
func (d *Driver) removeAll(ctx context.Context, vg *vgroup, id, op string) error {
	g, err := d.recent(ctx, vg.name)
	if err != nil {
		return err
	}
	for _, n := range append(auxNames(id), volumeName(id)) {
		l := g.lvs[n]
		if l == nil || l.tags[tagID] != id || l.tags[tagKind] == "" {
			continue
		}
		if err := d.remove(ctx, vg, n, prioNormal); err != nil {
			return err
		}
		point(op, "removed")
		d.journal.drop(l.tags[tagNew], l.tags[tagDeleting], revertNote(id, l.tags[tagRevert]))
	}
	return nil
}

// remove removes one logical volume of ours, together with what others want
// removed at the same time. It is busy if it is in use or has thick snapshots.
func (d *Driver) remove(ctx context.Context, vg *vgroup, name string, pr prio) error {
	it := vg.removals.add(name)
	end, err := vg.turns.take(ctx, pr)
	if err != nil {
		vg.removals.drop(it)
		if it.finished(&vg.removals) {
			return it.err
		}
		return err
	}
	defer end()
	items := vg.removals.next(it)
	if items == nil {
		return it.err
	}
	g, err := d.beforeRemoval(ctx, vg, items)
	if err != nil {
		vg.removals.finish(items, func(*item) error { return err })
		return err
	}
	verdicts := map[string]error{}
	var argv []string
	for _, x := range items {
		ok, err := removable(g, x.name)
		verdicts[x.name] = err
		if ok && !slices.Contains(argv, vg.name+"/"+x.name) {
			argv = append(argv, vg.name+"/"+x.name)
		}
	}
	if len(argv) > 0 {
		settings := ""
		if d.discards(vg) {
			settings = "devices/issue_discards=1"
		}
		cause := d.change(ctx, vg, settings, append([]string{"lvremove", "--yes", "--quiet"}, argv...)...)
		if cause == nil {
			vg.update(func(g *group) { g.drop(items, verdicts) })
			if len(argv) == len(items) {
				d.learnClear(ctx, vg, g, d.cleared(g, items))
			}
		}
		after := g
		for _, x := range items {
			was := g.lvs[x.name]
			if was == nil || verdicts[x.name] != nil || (cause == nil && was.active && gone(vg.name, x.name)) {
				continue
			}
			if after == g {
				if after, err = d.freshGroup(ctx, vg.name); err != nil {
					after = nil
				}
			}
			verdicts[x.name] = stillThere(after, x.name, cause, err)
		}
	}
	vg.removals.finish(items, func(x *item) error { return verdicts[x.name] })
	return it.err
}

// beforeRemoval gives the state that removals are judged by. A thick volume may
// have got a snapshot behind our back, and LVM would remove that as well: a fresh
// report says.
func (d *Driver) beforeRemoval(ctx context.Context, vg *vgroup, items []*item) (*group, error) {
	g, err := d.recent(ctx, vg.name)
	if err != nil {
		return nil, err
	}
	for _, x := range items {
		if l := g.lvs[x.name]; l == nil || (l.pool == "" && l.tags[tagKind] == kindVolume) {
			return d.freshGroup(ctx, vg.name)
		}
	}
	return g, nil
}

func (it *item) finished(b *batch) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return it.done
}

// gone says whether a device's name is gone, as it is with its device.
func gone(vg, name string) bool {
	_, err := os.Lstat(devicePath(vg, name))
	return errors.Is(err, os.ErrNotExist)
}

// removable says whether a logical volume may be removed; an error says why not,
// and neither that it is absent.
func removable(g *group, name string) (ok bool, err error) {
	l := g.lvs[name]
	if l == nil {
		return false, nil
	}
	if l.tags[tagKind] == "" {
		return false, model.Errorf(model.KindExists, "%s/%s was not made by osds", g.name, name)
	}
	for _, x := range g.lvs {
		// Thin snapshots do not need their origin.
		if x.origin == name && x.pool == "" && l.pool == "" {
			what := x.name
			if x.tags[tagKind] == kindSnapshot {
				what = "snapshot " + x.tags[tagID]
			}
			return false, model.Errorf(model.KindBusy, "volume %s has thick snapshots, which need it: %s", l.tags[tagID], what)
		}
	}
	// That it is open is no reason yet: udev looks into every device that was
	// written to. LVM tries for some seconds.
	return true, nil
}

func stillThere(g *group, name string, cause, err error) error {
	switch {
	case g == nil:
		return model.Errorf(model.KindUnknownOutcome, "removing %s: %v (and %w)", name, cause, err)
	case g.lvs[name] == nil:
		return nil
	case g.lvs[name].open == yes:
		return model.Errorf(model.KindBusy, "%s/%s is in use", g.name, name)
	case cause == nil:
		return model.Errorf(model.KindUnknownOutcome, "%s/%s is there although its removal went well", g.name, name)
	}
	return cause
}

// drop takes removed logical volumes out of the state.
func (g *group) drop(items []*item, verdicts map[string]error) {
	for _, x := range items {
		if l := g.lvs[x.name]; l != nil && verdicts[x.name] == nil {
			delete(g.lvs, x.name)
			if l.pool == "" {
				g.free += l.size
			}
		}
	}
}

// discards says whether the devices of a group are to be told of free space.
func (d *Driver) discards(vg *vgroup) bool {
	for _, p := range d.pools {
		if p.vg == vg && p.conf.Discard {
			return true
		}
	}
	return false
}

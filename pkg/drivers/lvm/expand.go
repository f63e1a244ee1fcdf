package lvm

import (
	"context"
	"fmt"
	"os"
	"slices"

	"github.com/osds-io/osds/internal/keylock"
	"github.com/osds-io/osds/pkg/drivers"
	"github.com/osds-io/osds/pkg/model"
)

// ExpandsOnline is true: targets are told of the new size. A thick volume with
// snapshots cannot, because LVM cannot; it is busy while it is exported.
func (d *Driver) ExpandsOnline() bool { return true }

// ExpandVolume grows a volume, and tells its targets.
func (d *Driver) ExpandVolume(ctx context.Context, r drivers.VolumeRef, size model.Bytes) (drivers.Volume, error) {
	none := drivers.Volume{}
	if err := r.Check(); err != nil {
		return none, err
	}
	if err := drivers.CheckSize("size", size); err != nil {
		return none, err
	}
	p, err := d.pool(r.Pool)
	if err != nil {
		return none, err
	}
	if err := drivers.Begin(ctx); err != nil {
		return none, err
	}
	unlock, err := d.lock(ctx, keylock.Want{Key: volumeKey(r.ID)})
	if err != nil {
		return none, err
	}
	defer unlock()
	if err := d.recoverVolume(ctx, p.vg, r.ID); err != nil {
		return none, err
	}
	g, l, err := d.need(ctx, p, r.ID, true)
	if err != nil {
		return none, err
	}
	if size = g.roundUp(size); size > l.size {
		if err := d.settled(ctx, p.vg, l); err != nil {
			return none, err
		}
		if p.conf.isThin() {
			err = d.growThin(ctx, p, l.name, size, true, "expand")
		} else {
			err = d.growThick(ctx, p, r.ID, l, size)
		}
		if err != nil {
			return none, err
		}
		if g, l, err = d.need(ctx, p, r.ID, true); err != nil {
			return none, err
		}
	} else if err := d.removeAux(ctx, p.vg, growName(r.ID)); err != nil {
		return none, err // of a growth that was interrupted and is not wanted any more
	}
	// Also where it was as large already: a crash may have come between the two.
	if len(d.exports.Of(r.ID)) > 0 {
		if err := d.exports.Resized(ctx, r.ID); err != nil {
			return none, err
		}
	}
	return d.volume(g, l), nil
}

// growThin grows a thin logical volume: what is added has no blocks yet and reads
// as zero.
func (d *Driver) growThin(ctx context.Context, p *pool, name string, size model.Bytes, counted bool, op string) error {
	return d.inTurn(ctx, p.vg, prioNormal, func(g *group) error {
		l := g.lvs[name]
		if l == nil {
			return model.Errorf(model.KindNotFound, "%s/%s is not there any more", g.name, name)
		}
		if counted {
			if err := d.room(p, g, size-l.size, true); err != nil {
				return err
			}
		}
		point(op, "begin")
		return d.extend(ctx, p, name, size, nil, op)
	})
}

// extend runs an lvextend, on the given extents if there are any. The caller has
// the turn.
func (d *Driver) extend(ctx context.Context, p *pool, name string, size model.Bytes, on []peRange, op string) error {
	argv := []string{"lvextend", "--yes", "--quiet", "--size", bytesArg(size), p.vg.name + "/" + name}
	for _, r := range on {
		argv = append(argv, r.String())
	}
	err := d.change(ctx, p.vg, "", argv...)
	p.vg.update(func(g *group) {
		if l := g.lvs[name]; l != nil {
			c := *l
			if c.size = size; l.pool == "" {
				g.free -= size - l.size
			}
			g.lvs[name] = &c
		}
	})
	if err != nil {
		err = d.failed(ctx, p.vg, err, func(g *group) (bool, error) {
			l := g.lvs[name]
			return l != nil && l.size >= size, nil
		})
	}
	if err == nil {
		point(op, "extended")
	}
	return err
}

// growThick grows a thick volume. The new extents are taken by a help first and
// cleared there, and only then given to the volume, in two commands: at no time
// can the volume's host read what was on them, and snapshots of the volume do not
// have to keep it.
func (d *Driver) growThick(ctx context.Context, p *pool, id string, l *lv, size model.Bytes) error {
	if err := d.growable(p, id, l); err != nil {
		return err
	}
	h, err := d.growHelp(ctx, p, id, size-l.size)
	if err != nil {
		return err
	}
	if !d.whole(h) {
		if err := d.finish(ctx, p, h, "expand", func(f *os.File, from int64, note func(int64) error) error {
			return zero(d.pace(ctx), f, from, int64(h.size), note)
		}); err != nil {
			return fmt.Errorf("the new part of volume %s: %w", id, err)
		}
	}
	end, err := p.vg.turns.take(ctx, prioNormal)
	if err != nil {
		return err
	}
	defer end()
	g, err := d.freshGroup(ctx, p.vg.name)
	if err != nil {
		return err
	}
	if h, err = ownIn(g, growName(id), kindAux, id); err != nil || h == nil || !d.whole(h) || len(h.ranges) == 0 {
		return model.Errorf(model.KindUnavailable, "the new extents of volume %s are not there any more: call again (%v)", id, err)
	}
	origin := hasThickSnapshots(g, l.name)
	if origin {
		// LVM grows the origin of snapshots only while it has no device.
		if err := d.deactivate(ctx, p.vg, l.name); err != nil {
			return err
		}
	}
	point("expand", "cleared")
	if err := d.change(ctx, p.vg, "", "lvremove", "--yes", "--quiet", p.vg.name+"/"+h.name); err != nil {
		if err := d.failed(ctx, p.vg, err, func(g *group) (bool, error) { return g.lvs[h.name] == nil, nil }); err != nil {
			return err
		}
	}
	d.journal.drop(h.tags[tagNew])
	p.vg.forget()
	point("expand", "freed")
	return d.extend(ctx, p, l.name, size, h.ranges, "expand")
}

// growable says why a thick volume cannot grow now.
func (d *Driver) growable(p *pool, id string, l *lv) error {
	p.vg.mu.Lock()
	g := p.vg.view
	p.vg.mu.Unlock()
	if g != nil && hasThickSnapshots(g, l.name) {
		if err := d.notExported(id); err != nil {
			return model.Errorf(model.KindBusy, "a thick volume with snapshots can grow only while it is not exported: %w", err)
		}
	}
	if slices.ContainsFunc(l.segs, func(t string) bool { return t != "linear" }) {
		return model.Errorf(model.KindUnsupported, "volume %s is not linear (%v), and cannot grow", id, l.segs)
	}
	return nil
}

func hasThickSnapshots(g *group, name string) bool {
	for _, x := range g.lvs {
		if x.origin == name && x.pool == "" {
			return true
		}
	}
	return false
}

// growHelp gives the help that holds a volume's new extents, whole or not. One of
// another size, of a growth that was interrupted, is removed.
func (d *Driver) growHelp(ctx context.Context, p *pool, id string, n model.Bytes) (*lv, error) {
	g, err := d.freshGroup(ctx, p.vg.name)
	if err != nil {
		return nil, err
	}
	h, err := ownIn(g, growName(id), kindAux, id)
	if err != nil {
		return nil, err
	}
	if h != nil && h.size == n {
		return h, nil
	}
	if h != nil {
		if err := d.remove(ctx, p.vg, h.name, prioNormal); err != nil {
			return nil, err
		}
		d.journal.drop(h.tags[tagNew])
	}
	return d.makeNew(ctx, p, growName(id), n, tags{tagKind: kindAux, tagID: id, tagCluster: d.cluster}, "expand")
}

// removeAux removes a help if there is one, by the state of a moment ago.
func (d *Driver) removeAux(ctx context.Context, vg *vgroup, name string) error {
	g, err := d.recent(ctx, vg.name)
	if err != nil {
		return err
	}
	l := g.lvs[name]
	if l == nil || l.tags[tagKind] != kindAux {
		return nil
	}
	if err := d.remove(ctx, vg, name, prioNormal); err != nil {
		return err
	}
	d.journal.drop(l.tags[tagNew])
	return nil
}

// deactivate takes a logical volume's device away; busy while it is open. The
// caller has the turn.
func (d *Driver) deactivate(ctx context.Context, vg *vgroup, name string) error {
	if err := d.change(ctx, vg, "", "lvchange", "--yes", "--quiet", "--activate", "n", vg.name+"/"+name); err != nil {
		return d.failed(ctx, vg, err, func(g *group) (bool, error) {
			l := g.lvs[name]
			switch {
			case l == nil:
				return false, model.Errorf(model.KindNotFound, "%s/%s is not there any more", vg.name, name)
			case l.open == yes:
				return false, model.Errorf(model.KindBusy, "%s/%s is in use", vg.name, name)
			}
			return !l.active, nil
		})
	}
	vg.update(func(g *group) { g.setActive(name, false) })
	return nil
}

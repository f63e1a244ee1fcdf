package lvm

import (
	"context"
	"fmt"
	"os"

	"github.com/osds-io/osds/internal/keylock"
	"github.com/osds-io/osds/pkg/drivers"
	"github.com/osds-io/osds/pkg/model"
)

// CloneVolume makes a volume from a snapshot or another volume of the pool. Thin,
// it shares blocks with its source and depends on it in no other way; thick, it
// is a copy.
func (d *Driver) CloneVolume(ctx context.Context, r drivers.CreateVolume) (drivers.Volume, error) {
	none := drivers.Volume{}
	if r.Source == nil {
		return none, model.Invalid("source", "a clone needs a source")
	}
	p, err := d.checkCreate(ctx, r)
	if err != nil {
		return none, err
	}
	src := sourceOf(r.Source)
	if src.pool != "" && src.pool != r.Pool {
		if _, err := d.pool(src.pool); err != nil {
			return none, err
		}
		return none, model.Invalid("pool", "a clone stays in its source's pool, %s", src.pool)
	}
	unlock, err := d.lock(ctx, keylock.Want{Key: volumeKey(r.ID)}, keylock.Want{Key: src.key, Shared: true})
	if err != nil {
		return none, err
	}
	defer unlock()
	return d.produce(ctx, p, r, src.label, func(_ *group, have *lv, t tags) (*lv, error) {
		g, from, err := src.need(ctx, d, p)
		if err != nil {
			return nil, err
		}
		if n := from.sizeWhenTaken(); n > g.roundUp(r.Size) {
			return nil, model.Invalid("size", "size %s is less than the source's, %s", r.Size, n)
		}
		if p.conf.isThin() {
			return d.cloneThin(ctx, p, r, from, have, t)
		}
		return d.cloneThick(ctx, p, r, src, from, have, t)
	})
}

// source is what a clone is made from.
type source struct {
	snapshot        bool
	id, of          string
	pool, key, name string
	label           string // of tagSource
}

func sourceOf(s *drivers.Source) source {
	if s.Snapshot != nil {
		id := s.Snapshot.ID
		return source{snapshot: true, id: id, of: s.Snapshot.VolumeID, pool: s.Snapshot.Pool, key: snapshotKey(id), name: snapshotName(id), label: "snapshot/" + id}
	}
	id := s.Volume.ID
	return source{id: id, pool: s.Volume.Pool, key: volumeKey(id), name: volumeName(id), label: "volume/" + id}
}

// need gives the source, which must be whole and settled.
func (s source) need(ctx context.Context, d *Driver, p *pool) (*group, *lv, error) {
	if s.snapshot {
		g, l, err := d.needSnapshot(ctx, p, s.id, true)
		if err == nil {
			l, err = d.fill(ctx, p, l)
		}
		return g, l, err
	}
	if err := d.recoverVolume(ctx, p.vg, s.id); err != nil {
		return nil, nil, err
	}
	g, l, err := d.need(ctx, p, s.id, true)
	if err == nil {
		err = halfReverted(p, s.id, l)
	}
	if err == nil {
		err = d.settled(ctx, p.vg, l)
	}
	return g, l, err
}

// cloneThin makes a thin snapshot, which is a volume as any other. One that is
// to be larger is grown before it is whole.
func (d *Driver) cloneThin(ctx context.Context, p *pool, r drivers.CreateVolume, from, have *lv, t tags) (*lv, error) {
	l := have
	if l == nil {
		err := d.inTurn(ctx, p.vg, prioNormal, func(g *group) error {
			size := g.roundUp(r.Size)
			if err := d.room(p, g, size, true); err != nil {
				return err
			}
			if size > from.size {
				t = t.with(tagNew, model.NewID())
			}
			l = &lv{name: volumeName(r.ID), size: from.size, tags: t, active: true, open: no, pool: p.conf.thin, origin: from.name,
				data: noPercent, meta: noPercent, snap: noPercent}
			point("clone", "begin")
			argv := append([]string{"lvcreate", "--yes", "--quiet", "--snapshot", "--name", l.name, "--activate", "y",
				"--setactivationskip", "n"}, t.args()...)
			return d.create(ctx, p, l, "", append(argv, p.vg.name+"/"+from.name)...)
		})
		if err != nil {
			return nil, err
		}
		point("clone", "made")
	}
	nonce := l.tags[tagNew]
	if nonce == "" {
		return l, nil
	}
	g, err := d.freshGroup(ctx, p.vg.name)
	if err != nil {
		return nil, err
	}
	if size := g.roundUp(r.Size); size > l.size {
		if err := d.growThin(ctx, p, l.name, size, false, "clone"); err != nil {
			return nil, err
		}
		c := *l
		c.size = size
		l = &c
	}
	if err := d.journal.set(nonce, progress{Whole: true}); err != nil {
		return nil, err
	}
	point("clone", "whole")
	d.wake()
	return l, nil
}

// cloneThick copies the source, by way of a snapshot where the source is a
// volume, which may be written to meanwhile.
func (d *Driver) cloneThick(ctx context.Context, p *pool, r drivers.CreateVolume, src source, from, have *lv, t tags) (*lv, error) {
	size := from.sizeWhenTaken()
	l := have
	if l == nil {
		var err error
		if l, err = d.makeNew(ctx, p, volumeName(r.ID), r.Size, t, "clone"); err != nil {
			return nil, err
		}
	}
	name := from.name
	if !src.snapshot {
		var err error
		if name, err = d.cloneHelp(ctx, p, r.ID, from, l); err != nil {
			return nil, err
		}
	} else if err := d.activate(ctx, p.vg, from, prioNormal); err != nil {
		return nil, err
	}
	err := d.finish(ctx, p, l, "clone", func(f *os.File, at int64, note func(int64) error) error {
		in, err := openAtLeast(ctx, p.vg.name, name, size)
		if err != nil {
			return err
		}
		defer in.Close()
		pc := d.pace(ctx) // of both parts
		if err := copyData(pc, f, in, min(at, int64(size)), int64(size), false, note); err != nil {
			return err
		}
		if err := d.stillGood(ctx, p, name); err != nil {
			return err
		}
		return zero(pc, f, max(at, int64(size)), int64(l.size), note)
	})
	if err != nil {
		return nil, fmt.Errorf("volume %s: %w", r.ID, err)
	}
	if !src.snapshot {
		if err := d.remove(ctx, p.vg, name, prioNormal); err != nil {
			return nil, err
		}
		point("clone", "helped")
	}
	return l, nil
}

// cloneHelp gives the snapshot that a volume is copied from. If it has to be made
// anew, so has the copy.
func (d *Driver) cloneHelp(ctx context.Context, p *pool, id string, from, l *lv) (string, error) {
	name := cloneName(id)
	g, err := d.freshGroup(ctx, p.vg.name)
	if err != nil {
		return "", err
	}
	h, err := ownIn(g, name, kindAux, id)
	if err != nil {
		return "", err
	}
	if h != nil && (h.overflowed() || h.origin != from.name) {
		if err := d.remove(ctx, p.vg, name, prioNormal); err != nil {
			return "", err
		}
		h = nil
	}
	if h != nil {
		return name, d.activate(ctx, p.vg, from, prioNormal)
	}
	if err := d.journal.set(l.tags[tagNew], progress{}); err != nil {
		return "", err
	}
	return name, d.takeSnapshot(ctx, p, from, name, tags{tagKind: kindAux, tagID: id, tagCluster: d.cluster}, "clone")
}

// stillGood says whether the snapshot that was read has held until now.
func (d *Driver) stillGood(ctx context.Context, p *pool, name string) error {
	g, err := d.freshGroup(ctx, p.vg.name)
	if err != nil {
		return err
	}
	if l := g.lvs[name]; l == nil || l.overflowed() {
		return model.Errorf(model.KindExhausted, "%s/%s has overflowed while it was copied: more was written to its volume than it had space for (snapshotSize)", g.name, name)
	}
	return nil
}

// openAtLeast opens an active logical volume for reading.
func openAtLeast(ctx context.Context, vg, name string, size model.Bytes) (*os.File, error) {
	f, err := openDeviceAny(ctx, vg, name, false)
	if err != nil {
		return nil, err
	}
	have, err := deviceSize(f)
	if err == nil && have < size {
		err = model.Errorf(model.KindInternal, "%s has %s and should have %s", f.Name(), have, size)
	}
	if err != nil {
		_ = f.Close()
		return nil, err
	}
	return f, nil
}

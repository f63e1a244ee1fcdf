package lvm

import (
	"context"
	"fmt"
	"sort"
	"strings"

	"github.com/osds-io/osds/internal/keylock"
	"github.com/osds-io/osds/pkg/drivers"
	"github.com/osds-io/osds/pkg/model"
)

var _ drivers.Importer = (*Driver)(nil)

// obstacle says why a logical volume cannot become a volume of ours; empty if it
// can.
func (l *lv) obstacle(g *group) string {
	switch {
	case l.tags[tagKind] != "":
		return "it belongs to osds already"
	case !l.role["public"]:
		return "it is a part of another logical volume"
	case l.layout["pool"]:
		return "it is a pool"
	case l.role["snapshot"] && l.pool == "":
		return "it is a thick snapshot, which lives only as long as its origin"
	case l.pool == "" && hasThickSnapshots(g, l.name):
		return "it has thick snapshots, which osds would not know"
	case l.pool == "" && !l.layout["linear"]:
		return "it is not linear"
	case l.open == yes:
		return "it is in use: unmount it, or take it out of what uses it"
	case l.permissions == 'r':
		return "it is read-only: lvchange --permission rw"
	}
	return ""
}

// ListImportable lists the logical volumes in a pool that are not ours, as
// GROUP/NAME.
func (d *Driver) ListImportable(ctx context.Context, pool string, p drivers.Page) ([]drivers.Importable, error) {
	q, err := d.pool(pool)
	if err != nil {
		return nil, err
	}
	g, err := d.freshGroup(ctx, q.vg.name)
	if err != nil {
		return nil, err
	}
	found := map[string]drivers.Importable{}
	var names []string
	for _, l := range g.lvs {
		if d.poolOf(g.name, l) != q || l.tags[tagKind] != "" || !l.role["public"] || l.layout["pool"] {
			continue
		}
		name := g.name + "/" + l.name
		names = append(names, name)
		adds := l.size
		if q.conf.isThin() {
			adds = l.data.of(l.size)
		}
		if c := q.conf.Capacity; c > 0 {
			// The pool's total grows no further than what is ours needs.
			total, _ := q.thickSpace(g)
			adds = min(adds, max(q.used(g)+l.size-total, 0))
			if q.conf.isThin() {
				adds = 0
			}
		}
		found[name] = drivers.Importable{Name: name, Pool: q.name, Size: l.size, Adds: adds, Obstacle: l.obstacle(g)}
	}
	sort.Strings(names)
	var out []drivers.Importable
	for _, n := range page(names, p) {
		out = append(out, found[n])
	}
	return out, nil
}

// ImportVolume tags and renames a logical volume. Existing is its name, or
// GROUP/NAME.
//
// First it gets the tags, among them osds.import with the name that it had, then
// the name, then it loses osds.import; so that at each point it is known what it
// was and how to give it back.
func (d *Driver) ImportVolume(ctx context.Context, r drivers.ImportVolume) (drivers.Volume, error) {
	none := drivers.Volume{}
	if err := r.Check(); err != nil {
		return none, err
	}
	p, err := d.pool(r.Pool)
	if err != nil {
		return none, err
	}
	if err := checkName("volumeId", p.vg.name, r.ID); err != nil {
		return none, err
	}
	name := strings.TrimPrefix(r.Existing, p.vg.name+"/")
	if !validName(name) {
		return none, model.Invalid("existing", "%.64q is not the name of a logical volume in group %s", r.Existing, p.vg.name)
	}
	if err := drivers.Begin(ctx); err != nil {
		return none, err
	}
	unlock, err := d.lock(ctx, keylock.Want{Key: volumeKey(r.ID)}, keylock.Want{Key: "i/" + name})
	if err != nil {
		return none, err
	}
	defer unlock()
	g, err := d.freshGroup(ctx, p.vg.name)
	if err != nil {
		return none, err
	}
	cluster := r.ClusterID
	if cluster == "" {
		cluster = d.cluster
	}
	t := tags{tagKind: kindVolume, tagID: r.ID, tagTenant: r.TenantID, tagCluster: cluster, tagSource: "import/" + name}
	l, err := volumeIn(g, r.ID)
	if err != nil {
		return none, err
	}
	if l == nil {
		if l, err = d.claim(ctx, p, g, name, r.ID, t); err != nil {
			return none, err
		}
		if err := d.rename(ctx, p.vg, name, volumeName(r.ID)); err != nil {
			return none, err
		}
		point("import", "renamed")
	} else if l.tags[tagSource] != t[tagSource] {
		return none, model.Errorf(model.KindExists, "volume %s is there already, with source %q", r.ID, l.tags[tagSource])
	}
	if l.tags[tagImport] != "" {
		if err := d.retag(ctx, p.vg, volumeName(r.ID), l.tags, l.tags.without(tagImport)); err != nil {
			return none, err
		}
		point("import", "end")
	}
	g, l, err = d.need(ctx, p, r.ID, true)
	if err != nil {
		return none, err
	}
	return d.volume(g, l), nil
}

// claim tags what is to be imported; it may be from an earlier call.
func (d *Driver) claim(ctx context.Context, p *pool, g *group, name, id string, t tags) (*lv, error) {
	l := g.lvs[name]
	if l == nil {
		return nil, model.Errorf(model.KindNotFound, "there is no logical volume %s/%s", g.name, name)
	}
	want := t.with(tagImport, name)
	if l.tags[tagImport] == name && l.tags[tagID] == id {
		return l, nil
	}
	if err := inPool(d, p, l, name); err != nil {
		return nil, err
	}
	if why := l.obstacle(g); why != "" {
		kind := model.KindUnsupported
		switch {
		case l.tags[tagKind] != "":
			kind = model.KindExists
		case l.open == yes:
			kind = model.KindBusy
		}
		return nil, model.Errorf(kind, "%s/%s cannot be imported: %s", g.name, name, why)
	}
	point("import", "begin")
	if err := d.retag(ctx, p.vg, name, tags{}, want); err != nil {
		return nil, err
	}
	point("import", "claimed")
	c := *l
	c.tags = want
	return &c, nil
}

// undoImport gives back what was not imported to its end: with its name, and
// without our tags.
func (d *Driver) undoImport(ctx context.Context, vg *vgroup, l *lv) error {
	name := l.tags[tagImport]
	if l.name != name {
		if err := d.rename(ctx, vg, l.name, name); err != nil {
			return fmt.Errorf("giving back %s/%s, once %s: %w", vg.name, l.name, name, err)
		}
	}
	return d.retag(ctx, vg, name, l.tags, tags{})
}

// claimed gives what an interrupted import of a volume has tagged and not yet
// renamed; nil if there is none.
func claimed(g *group, id string) *lv {
	for _, l := range g.lvs {
		if l.is(kindVolume, id) && l.tags[tagImport] == l.name {
			return l
		}
	}
	return nil
}

// ReleaseVolume gives a volume its old name and takes our tags off. A volume that
// was not imported keeps the name that it has.
//
// It is marked as if its import had been interrupted, and then given back as that
// is: so a crash at any point leaves what the same call again, or a delete,
// completes in the same way.
func (d *Driver) ReleaseVolume(ctx context.Context, r drivers.VolumeRef) error {
	if err := r.Check(); err != nil {
		return err
	}
	p, err := d.pool(r.Pool)
	if err != nil {
		return err
	}
	if err := drivers.Begin(ctx); err != nil {
		return err
	}
	unlock, err := d.lock(ctx, keylock.Want{Key: volumeKey(r.ID)})
	if err != nil {
		return err
	}
	defer unlock()
	if err := d.notExported(r.ID); err != nil {
		return err
	}
	if err := d.recoverVolume(ctx, p.vg, r.ID); err != nil {
		return err
	}
	g, err := d.freshGroup(ctx, p.vg.name)
	if err != nil {
		return err
	}
	l, err := volumeIn(g, r.ID)
	switch {
	case model.IsKind(err, model.KindExists):
		return nil // somebody else's
	case err != nil:
		return err
	case l == nil:
		if l = claimed(g, r.ID); l == nil {
			return nil
		}
	}
	if err := inPool(d, p, l, "volume "+r.ID); err != nil {
		return err
	}
	if l.tags[tagImport] != "" {
		return d.undoImport(ctx, p.vg, l)
	}
	if !d.whole(l) || l.tags[tagDeleting] != "" {
		return d.removeAll(ctx, p.vg, r.ID, "release")
	}
	if _, err := removable(g, l.name); err != nil {
		return err // it would be the origin of snapshots of ours
	}
	if err := d.settled(ctx, p.vg, l); err != nil {
		return err
	}
	if err := d.removeAux(ctx, p.vg, growName(r.ID)); err != nil {
		return err
	}
	if g, err = d.freshGroup(ctx, p.vg.name); err != nil {
		return err
	}
	if l, err = volumeIn(g, r.ID); err != nil || l == nil {
		return model.Errorf(model.KindUnavailable, "volume %s changed while it was released: call again (%v)", r.ID, err)
	}
	name, imported := strings.CutPrefix(l.tags[tagSource], "import/")
	if !imported || g.lvs[name] != nil || !validName(name) {
		name = l.name
	}
	point("release", "begin")
	marked := l.tags.with(tagImport, name)
	if err := d.retag(ctx, p.vg, l.name, l.tags, marked); err != nil {
		return err
	}
	point("release", "marked")
	c := *l
	c.tags = marked
	if err := d.undoImport(ctx, p.vg, &c); err != nil {
		return err
	}
	point("release", "end")
	return nil
}

package lvm

import (
	"context"
	"sort"
	"strconv"

	"github.com/osds-io/osds/internal/keylock"
	"github.com/osds-io/osds/pkg/drivers"
	"github.com/osds-io/osds/pkg/drivers/export"
	"github.com/osds-io/osds/pkg/model"
)

func volumeKey(id string) string   { return "v/" + id }
func snapshotKey(id string) string { return "s/" + id }

// lock takes locks; the error says that nothing has begun.
func (d *Driver) lock(ctx context.Context, wants ...keylock.Want) (func(), error) {
	unlock, err := d.locks.LockAll(ctx, wants...)
	return unlock, asKind("waiting for another call", err)
}

// volumeIn gives a volume's logical volume by a state of its group, whole or not;
// nil if there is none. One of that name that is not ours is an exists error: it
// is neither the volume nor proof that the volume is gone.
func volumeIn(g *group, id string) (*lv, error) { return ownIn(g, volumeName(id), kindVolume, id) }

func snapshotIn(g *group, id string) (*lv, error) {
	return ownIn(g, snapshotName(id), kindSnapshot, id)
}

func ownIn(g *group, name, kind, id string) (*lv, error) {
	l := g.lvs[name]
	if l != nil && !l.is(kind, id) {
		return nil, model.Errorf(model.KindExists, "%s/%s was not made by osds: it has none of its tags; rename it", g.name, name)
	}
	return l, nil
}

// inPool checks that what was found is in the pool that the caller names.
func inPool(d *Driver, p *pool, l *lv, what string) error {
	if p.has(l) {
		return nil
	}
	where := p.vg.name
	if q := d.poolOf(p.vg.name, l); q != nil {
		where = q.name
	} else if l.pool != "" {
		where += "/" + l.pool
	}
	return model.Invalid("pool", "%s is in pool %s, not in %s", what, where, p.name)
}

// elsewhere gives the pool of another group in which a volume with the id is, as
// far as that is known without a report; "" if there is none.
func (d *Driver) elsewhere(p *pool, name string) string {
	for _, vg := range d.groups {
		if vg == p.vg {
			continue
		}
		vg.mu.Lock()
		var l *lv
		if vg.view != nil {
			l = vg.view.lvs[name]
		}
		vg.mu.Unlock()
		if l != nil && l.tags[tagID] != "" {
			return vg.name
		}
	}
	return ""
}

// need gives a volume that is whole, by a recent state: it is for calls that the
// backend itself would refuse if the state were out of date. fresh asks for a
// report that begins now.
func (d *Driver) need(ctx context.Context, p *pool, id string, fresh bool) (*group, *lv, error) {
	return d.needOf(ctx, p, id, volumeIn, "volume ", fresh)
}

func (d *Driver) needSnapshot(ctx context.Context, p *pool, id string, fresh bool) (*group, *lv, error) {
	return d.needOf(ctx, p, id, snapshotIn, "snapshot ", fresh)
}

func (d *Driver) needOf(ctx context.Context, p *pool, id string, in func(*group, string) (*lv, error), what string, fresh bool) (*group, *lv, error) {
	look := d.recent
	if fresh {
		look = d.freshGroup
	}
	g, err := look(ctx, p.vg.name)
	if err != nil {
		return nil, nil, err
	}
	l, err := in(g, id)
	if model.IsKind(err, model.KindExists) {
		return nil, nil, model.Errorf(model.KindNotFound, "%s%s is not there: %w", what, id, err)
	}
	if err != nil {
		return nil, nil, err
	}
	if l == nil || !d.whole(l) {
		if !fresh {
			return d.needOf(ctx, p, id, in, what, true) // absence is said by the backend alone
		}
		return nil, nil, model.Errorf(model.KindNotFound, "%s%s is not there", what, id)
	}
	if err := inPool(d, p, l, what+id); err != nil {
		return nil, nil, err
	}
	return g, l, nil
}

// searchPools are the pools to look in: the one that is named, or all.
func (d *Driver) searchPools(name string) ([]*pool, error) {
	if name != "" {
		p, err := d.pool(name)
		return []*pool{p}, err
	}
	var out []*pool
	seen := map[*vgroup]bool{}
	for _, n := range d.names {
		if p := d.pools[n]; !seen[p.vg] {
			seen[p.vg] = true
			out = append(out, p)
		}
	}
	return out, nil
}

// GetVolume gives a volume that is whole.
func (d *Driver) GetVolume(ctx context.Context, r drivers.VolumeRef) (drivers.Volume, error) {
	none := drivers.Volume{}
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
		if err := d.recoverVolume(ctx, p.vg, r.ID); err != nil {
			return none, err
		}
		var g *group
		var l *lv
		if g, l, err = d.need(ctx, p, r.ID, true); err == nil {
			return d.volume(g, l), nil
		}
		if !model.IsKind(err, model.KindNotFound) && !(r.Pool == "" && model.IsKind(err, model.KindInvalid)) {
			return none, err
		}
	}
	return none, err
}

// volume shows a logical volume as the contract does.
func (d *Driver) volume(g *group, l *lv) drivers.Volume {
	id := l.tags[tagID]
	v := drivers.Volume{ID: id, Size: l.size, TenantID: l.tags[tagTenant], ClusterID: l.tags[tagCluster],
		Incomplete: !d.whole(l), BackendData: map[string]string{"lvPath": devicePath(g.name, volumeName(id))}}
	if p := d.poolOf(g.name, l); p != nil {
		v.Pool = p.name
		v.DurableName, v.DurableFormat = export.Identity(p.conf.Extras.IOConnectivity.AccessProtocol, id)
	}
	return v
}

func (d *Driver) snapshot(g *group, l *lv) drivers.Snapshot {
	s := drivers.Snapshot{ID: l.tags[tagID], VolumeID: l.tags[tagOf], Size: l.sizeWhenTaken(), TenantID: l.tags[tagTenant],
		ClusterID: l.tags[tagCluster], Incomplete: !d.whole(l) || l.overflowed()}
	if p := d.poolOf(g.name, l); p != nil {
		s.Pool = p.name
	}
	return s
}

// sizeWhenTaken is how large a snapshot's volume was; for a thick snapshot LVM
// shows the space it takes instead.
func (l *lv) sizeWhenTaken() model.Bytes {
	if n, err := strconv.ParseInt(l.tags[tagSize], 10, 64); err == nil && n > 0 {
		return model.Bytes(n)
	}
	return l.size
}

// overflowed says whether a thick snapshot has lost its data.
func (l *lv) overflowed() bool { return l.invalid == yes }

// ours lists what is ours in the configured pools, by id: one logical volume for
// each.
func (d *Driver) ours(all map[string]*group, kind string) (ids []string, found map[string]*lv, in map[string]*group) {
	found, in = map[string]*lv{}, map[string]*group{}
	for _, name := range d.groupNames {
		g := all[name]
		if g == nil {
			continue
		}
		for _, l := range g.lvs {
			id := l.tags[tagID]
			if l.tags[tagKind] != kind || !model.ValidID(id) || d.poolOf(name, l) == nil {
				continue
			}
			// During a revert a volume has two; the one that has its name counts.
			if old := found[id]; old == nil || l.name == volumeName(id) {
				found[id], in[id] = l, g
			}
		}
	}
	for id := range found {
		ids = append(ids, id)
	}
	sort.Strings(ids)
	return ids, found, in
}

// listGroups gives a report for a list: of all groups or none, because what is in
// one that is missing would pass for gone.
func (d *Driver) listGroups(ctx context.Context) (map[string]*group, error) {
	all, err := d.fresh(ctx)
	if err != nil {
		return nil, err
	}
	for _, n := range d.groupNames {
		if _, err := d.checkGroup(n, all[n]); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// ListVolumes lists the volumes by id, incomplete ones too.
func (d *Driver) ListVolumes(ctx context.Context, p drivers.Page) ([]drivers.Volume, error) {
	all, err := d.listGroups(ctx)
	if err != nil {
		return nil, err
	}
	ids, found, in := d.ours(all, kindVolume)
	var out []drivers.Volume
	for _, id := range page(ids, p) {
		out = append(out, d.volume(in[id], found[id]))
	}
	return out, nil
}

// ListSnapshots lists the snapshots by id. One that has overflowed is shown as
// incomplete: there is nothing in it any more.
func (d *Driver) ListSnapshots(ctx context.Context, p drivers.Page) ([]drivers.Snapshot, error) {
	all, err := d.listGroups(ctx)
	if err != nil {
		return nil, err
	}
	ids, found, in := d.ours(all, kindSnapshot)
	var out []drivers.Snapshot
	for _, id := range page(ids, p) {
		out = append(out, d.snapshot(in[id], found[id]))
	}
	return out, nil
}

// page gives the part of sorted ids that a page asks for.
func page(ids []string, p drivers.Page) []string {
	i := sort.SearchStrings(ids, p.After)
	if i < len(ids) && ids[i] == p.After {
		i++
	}
	return ids[i:min(len(ids), i+p.Bound())]
}

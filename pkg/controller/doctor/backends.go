package doctor

import (
	"context"
	"fmt"
	"time"

	"github.com/osds-io/osds/pkg/controller/fleet"
	"github.com/osds-io/osds/pkg/drivers"
	"github.com/osds-io/osds/pkg/model"
	"github.com/osds-io/osds/pkg/model/wire"
)

// listPage is how many objects one call to a dock lists.
const listPage = 1000

// holding is what one backend holds.
type holding struct {
	volumes   map[string]drivers.Volume
	snapshots map[string]drivers.Snapshot
	exports   map[string]drivers.LiveExport
}

// place is one backend of one dock.
type place struct{ dock, backend string }

// suspicion is a difference between records and a backend; it is reported only
// if it is there again after a while.
type suspicion struct{ check, what string }

// backends compares the records with what the docks hold, twice: what differs
// both times, with the record untouched in between, is no work in flight.
func (d *Doctor) backends(ctx context.Context) []wire.DoctorCheck {
	reach := check("docks", "every dock answers")
	names := map[string]*wire.DoctorCheck{}
	var order []*wire.DoctorCheck
	for _, n := range [][2]string{
		{"orphans", "no backend holds what osds does not know of"},
		{"ghosts", "every volume and snapshot is on its backend"},
		{"exports", "live exports and attachments are the same"},
		{"devices", "what hosts have attached and attachments are the same"},
	} {
		c := check(n[0], n[1])
		names[n[0]] = &c
		order = append(order, &c)
	}
	first := d.compare(ctx, &reach, names)
	if len(first) > 0 {
		wait := d.Settle
		if wait == 0 {
			wait = 2 * time.Second
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
		}
		for s, rev := range d.compare(ctx, nil, nil) {
			if was, ok := first[s]; ok && was == rev {
				names[s.check].Add(s.what)
			}
		}
	}
	out := []wire.DoctorCheck{reach}
	for _, c := range order {
		out = append(out, *c)
	}
	return out
}

// compare makes one pass. Each suspicion comes with the revision of the record
// it is about, so that a record that moved is not held against it.
func (d *Doctor) compare(ctx context.Context, reach *wire.DoctorCheck, counts map[string]*wire.DoctorCheck) map[suspicion]int64 {
	out := map[suspicion]int64{}
	held := map[place]*holding{}
	for _, p := range d.Store.Pools.All() {
		at := place{p.DockID, p.Backend}
		if _, ok := held[at]; ok {
			continue
		}
		held[at] = nil
		dock, ok := d.Store.Docks.Get(p.DockID)
		if !ok {
			continue
		}
		h, err := d.list(ctx, dock, p.Backend)
		if reach != nil {
			reach.Checked++
		}
		if err != nil {
			if reach != nil {
				reach.Add(fmt.Sprintf("dock %s (%s), backend %s: %v", dock.Name, dock.Endpoint, p.Backend, err))
			}
			continue
		}
		held[at] = h
	}
	hosts := d.attached(ctx, reach)
	// The lists are older than the records from here on: what was made in
	// between is no orphan, because its record names the work.
	if err := d.Store.Sync(ctx); err != nil {
		return out
	}
	for at, h := range held {
		if h != nil {
			d.orphans(at, h, out, counts)
		}
	}
	d.ghosts(held, out, counts)
	d.devices(hosts, out, counts)
	return out
}

func (d *Doctor) list(ctx context.Context, dock *model.Dock, backend string) (*holding, error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	r, err := d.Dialer.Dial(dock.Endpoint)
	if err != nil {
		return nil, err
	}
	h := &holding{}
	if h.volumes, err = collect(func(p drivers.Page) ([]drivers.Volume, error) {
		return r.ListVolumes(ctx, fleet.Call{}, backend, p)
	}, func(x drivers.Volume) string { return x.ID }); err != nil {
		return nil, err
	}
	if h.snapshots, err = collect(func(p drivers.Page) ([]drivers.Snapshot, error) {
		return r.ListSnapshots(ctx, fleet.Call{}, backend, p)
	}, func(x drivers.Snapshot) string { return x.ID }); err != nil && !model.IsKind(err, model.KindUnsupported) {
		return nil, err
	}
	if h.exports, err = collect(func(p drivers.Page) ([]drivers.LiveExport, error) {
		return r.ListExports(ctx, fleet.Call{}, backend, p)
	}, func(x drivers.LiveExport) string { return x.AttachmentID }); err != nil && !model.IsKind(err, model.KindUnsupported) {
		return nil, err
	}
	return h, nil
}

// collect reads all pages of a list.
func collect[T any](list func(drivers.Page) ([]T, error), id func(T) string) (map[string]T, error) {
	out := map[string]T{}
	p := drivers.Page{Limit: listPage}
	for {
		l, err := list(p)
		if err != nil {
			return nil, err
		}
		for _, x := range l {
			out[id(x)] = x
			p.After = id(x)
		}
		if len(l) < listPage {
			return out, nil
		}
	}
}

// owed says whether a debt covers an object.
func (d *Doctor) owed(res model.Resource, id string) bool {
	_, ok := d.Store.Debts.Get(model.DebtID(res, id))
	return ok
}

func (d *Doctor) orphans(at place, h *holding, out map[suspicion]int64, counts map[string]*wire.DoctorCheck) {
	ours := func(cluster string) bool { return cluster == "" || d.ClusterID() == "" || cluster == d.ClusterID() }
	where := fmt.Sprintf("dock %s, backend %s", at.dock, at.backend)
	for id, x := range h.volumes {
		count(counts, "orphans")
		if !ours(x.ClusterID) || d.owed(model.ResVolume, id) {
			continue
		}
		v, ok := d.Store.Volumes.Get(id)
		switch {
		case !ok:
			out[suspicion{"orphans", fmt.Sprintf("volume %s on %s has no record", id, where)}] = 0
		case v.PoolID == "":
			out[suspicion{"orphans", fmt.Sprintf("volume %s on %s: its record (%s) has no place", id, where, v.Status)}] = v.Rev
		}
	}
	for id, x := range h.snapshots {
		count(counts, "orphans")
		if !ours(x.ClusterID) || d.owed(model.ResSnapshot, id) {
			continue
		}
		s, ok := d.Store.Snapshots.Get(id)
		switch {
		case !ok:
			out[suspicion{"orphans", fmt.Sprintf("snapshot %s on %s has no record", id, where)}] = 0
		case s.PoolID == "":
			out[suspicion{"orphans", fmt.Sprintf("snapshot %s on %s: its record (%s) has no place", id, where, s.Status)}] = s.Rev
		}
	}
	for id, x := range h.exports {
		count(counts, "exports")
		if d.owed(model.ResAttachment, id) {
			continue
		}
		a, ok := d.Store.Attachments.Get(id)
		switch {
		case !ok:
			out[suspicion{"exports", fmt.Sprintf("export %s of volume %s on %s has no attachment", id, x.VolumeID, where)}] = 0
		case a.Status == model.StatusError:
			out[suspicion{"exports", fmt.Sprintf("export %s of volume %s on %s is live, its attachment is in error", id, x.VolumeID, where)}] = a.Rev
		}
	}
}

func count(counts map[string]*wire.DoctorCheck, name string) {
	if c, ok := counts[name]; ok {
		c.Checked++
	}
}

func (d *Doctor) ghosts(held map[place]*holding, out map[suspicion]int64, counts map[string]*wire.DoctorCheck) {
	at := func(poolID string) *holding {
		p, ok := d.Store.Pools.Get(poolID)
		if !ok {
			return nil
		}
		return held[place{p.DockID, p.Backend}]
	}
	for _, v := range d.Store.Volumes.All() {
		h := at(v.PoolID)
		if h == nil || v.Task.Active() || v.Status == model.StatusErrorDeleting {
			continue
		}
		count(counts, "ghosts")
		x, ok := h.volumes[v.ID]
		switch {
		case !ok || x.Incomplete:
			out[suspicion{"ghosts", fmt.Sprintf("volume %s (%s) is not on its backend", v.ID, v.Status)}] = v.Rev
		case x.Size < v.Size:
			out[suspicion{"ghosts", fmt.Sprintf("volume %s is %s, on its backend %s", v.ID, v.Size, x.Size)}] = v.Rev
		}
	}
	for _, s := range d.Store.Snapshots.All() {
		h := at(s.PoolID)
		if h == nil || s.Task.Active() || s.Status == model.StatusErrorDeleting {
			continue
		}
		count(counts, "ghosts")
		if x, ok := h.snapshots[s.ID]; !ok || x.Incomplete {
			out[suspicion{"ghosts", fmt.Sprintf("snapshot %s (%s) is not on its backend", s.ID, s.Status)}] = s.Rev
		}
	}
	for _, a := range d.Store.Attachments.All() {
		v, ok := d.Store.Volumes.Get(a.VolumeID)
		if !ok || a.Status != model.StatusAvailable || a.Task.Active() {
			continue
		}
		if h := at(v.PoolID); h != nil {
			if _, ok := h.exports[a.ID]; !ok {
				out[suspicion{"exports", fmt.Sprintf("attachment %s of volume %s is available and has no live export", a.ID, v.ID)}] = a.Rev
			}
		}
	}
}

package drivertest

import (
	"slices"

	"github.com/osds-io/osds/pkg/drivers"
	"github.com/osds-io/osds/pkg/model"
)

func testSnapshot(e *env) {
	e.needs(model.AbilitySnapshot)
	s := e.d.(drivers.Snapshotter)
	vol := e.make()
	e.write(vol, 1)
	r := e.snapshotRequest(vol)
	first, err := s.CreateSnapshot(e.ctx(), r)
	e.want("snapshot", err)
	if first.ID != r.ID || first.VolumeID != vol.ID || first.Size < e.h.Size || first.TenantID != testTenant || first.ClusterID != testCluster {
		e.Errorf("got %+v", first)
	}
	snap := e.snapRef(first)
	e.write(vol, 2)
	again, err := s.CreateSnapshot(e.ctx(), r)
	e.want("the same snapshot again", err)
	if again.ID != first.ID || again.Size != first.Size || again.VolumeID != first.VolumeID {
		e.Errorf("first %+v, then %+v", first, again)
	}
	got, err := s.GetSnapshot(e.ctx(), snap)
	e.want("get", err)
	if got.ID != first.ID || got.Size != first.Size || got.VolumeID != vol.ID || got.Incomplete {
		e.Errorf("made %+v, got %+v", first, got)
	}
	// The point in time is that of the first call.
	e.snapshotHas("a snapshot", snap, first.Size, 1)
	e.has("the volume", vol, 2, e.h.Size)
	other := e.make()
	r2 := r
	r2.Volume = other
	_, err = s.CreateSnapshot(e.ctx(), r2)
	e.want("the same snapshot of another volume", err, model.KindExists)

	absent := e.snapshotRequest(drivers.VolumeRef{ID: model.NewID(), Pool: e.h.Pool})
	_, err = s.CreateSnapshot(e.ctx(), absent)
	e.want("snapshot of an absent volume", err, model.KindNotFound)
	_, err = s.GetSnapshot(e.ctx(), e.snapshots[absent.ID])
	e.want("get of an absent snapshot", err, model.KindNotFound)
	if v, ok := e.listed(r.ID); ok {
		e.Errorf("a snapshot is listed as a volume: %+v", v)
	}
}

// snapshotHas looks into a snapshot by way of a clone, if there are clones.
func (e *env) snapshotHas(what string, s drivers.SnapshotRef, size model.Bytes, seed uint64) {
	e.Helper()
	if _, ok := able[drivers.Cloner](e, model.AbilityClone); !ok || !e.hasData() {
		return
	}
	r := e.volume()
	r.Size, r.Source = size, &drivers.Source{Snapshot: &s, Size: size}
	ref := e.makeOf(r)
	e.has(what, ref, seed, e.h.Size)
	e.want("delete of a clone", e.d.DeleteVolume(e.ctx(), ref))
}

func testSnapshotDelete(e *env) {
	e.needs(model.AbilitySnapshot)
	s := e.d.(drivers.Snapshotter)
	vol := e.make()
	e.write(vol, 1)
	a, b := e.snapshot(vol), e.snapshot(vol)
	e.write(vol, 2)
	e.want("delete", s.DeleteSnapshot(e.ctx(), a))
	e.want("delete again", s.DeleteSnapshot(e.ctx(), a))
	_, err := s.GetSnapshot(e.ctx(), a)
	e.want("get of a deleted snapshot", err, model.KindNotFound)
	e.noLeftovers(a.ID)
	e.has("the volume after a snapshot's end", vol, 2, e.h.Size)
	e.snapshotHas("the other snapshot", b, e.h.Size, 1)
	never := drivers.SnapshotRef{ID: model.NewID(), VolumeID: vol.ID, Pool: e.h.Pool}
	e.want("delete of what never was", s.DeleteSnapshot(e.ctx(), never))
}

func testSnapshotList(e *env) {
	e.needs(model.AbilitySnapshot)
	vol := e.make()
	var ids []string
	for range 3 {
		ids = append(ids, e.snapshot(vol).ID)
	}
	slices.Sort(ids)
	for _, limit := range []int{1, 2, 1 << 30} {
		all := pages(e, limit, func(p drivers.Page) ([]drivers.Snapshot, error) {
			return e.d.(drivers.Snapshotter).ListSnapshots(e.ctx(), p)
		}, func(s drivers.Snapshot) string { return s.ID })
		var got []string
		for _, s := range all {
			if slices.Contains(ids, s.ID) {
				got = append(got, s.ID)
				if s.VolumeID != vol.ID || s.TenantID != testTenant || s.ClusterID != testCluster || s.Pool != e.h.Pool || s.Incomplete {
					e.Errorf("listed as %+v", s)
				}
			}
		}
		if !slices.Equal(got, ids) {
			e.Errorf("by %d: listed %q, want %q", limit, got, ids)
		}
	}
}

// Deleting a volume that has snapshots is either busy, and nothing changes, or
// the snapshots stay whole without it.
func testSnapshottedVolume(e *env) {
	e.needs(model.AbilitySnapshot)
	s := e.d.(drivers.Snapshotter)
	vol := e.make()
	e.write(vol, 1)
	snap := e.snapshot(vol)
	e.write(vol, 2)
	err := e.d.DeleteVolume(e.ctx(), vol)
	if err != nil {
		e.want("delete", err, model.KindBusy)
		if _, err := e.d.GetVolume(e.ctx(), vol); err != nil {
			e.Errorf("after a refused delete: %v", err)
		}
		e.has("after a refused delete", vol, 2, e.h.Size)
	} else if _, err := e.d.GetVolume(e.ctx(), vol); !model.IsKind(err, model.KindNotFound) {
		e.Errorf("after a delete: %v", err)
	}
	if _, err := s.GetSnapshot(e.ctx(), snap); err != nil {
		e.Errorf("the snapshot: %v", err)
	}
	e.snapshotHas("the snapshot", snap, e.h.Size, 1)
	e.want("delete of the snapshot", s.DeleteSnapshot(e.ctx(), snap))
	e.want("delete of the volume", e.d.DeleteVolume(e.ctx(), vol))
	e.absent(vol)
}

func testCloneOfSnapshot(e *env) {
	e.needs(model.AbilitySnapshot, model.AbilityClone)
	c, s := e.d.(drivers.Cloner), e.d.(drivers.Snapshotter)
	vol := e.make()
	e.write(vol, 1)
	snap := e.snapshot(vol)
	e.write(vol, 2)

	r := e.volume()
	r.Source = &drivers.Source{Snapshot: &snap, Size: e.h.Size}
	clone := e.makeOf(r)
	e.has("a clone", clone, 1, e.h.Size)
	e.write(clone, 3)
	again, err := c.CloneVolume(e.ctx(), r)
	e.want("the same clone again", err)
	e.checkVolume(again, r)
	e.has("after the same clone again", clone, 3, e.h.Size)
	e.has("the source", vol, 2, e.h.Size)
	e.snapshotHas("the snapshot", snap, e.h.Size, 1)

	big := e.volume()
	big.Size, big.Source = 2*e.h.Size, &drivers.Source{Snapshot: &snap, Size: e.h.Size}
	large := e.makeOf(big)
	e.has("a larger clone", large, 1, 2*e.h.Size)

	// Neither needs the other once the clone is made.
	e.want("delete of the snapshot", s.DeleteSnapshot(e.ctx(), snap))
	e.want("delete of the source", e.d.DeleteVolume(e.ctx(), vol))
	e.has("a clone without its source", clone, 3, e.h.Size)
	e.has("a larger clone without its source", large, 1, 2*e.h.Size)
	if v, ok := e.listed(clone.ID); !ok || v.Incomplete || v.TenantID != testTenant {
		e.Errorf("the clone is listed as %+v, %t", v, ok)
	}
}

func testCloneOfVolume(e *env) {
	e.needs(model.AbilityClone)
	src := e.make()
	e.write(src, 1)
	r := e.volume()
	r.Size, r.Source = 2*e.h.Size, &drivers.Source{Volume: &src, Size: e.h.Size}
	clone := e.makeOf(r)
	e.has("a clone", clone, 1, 2*e.h.Size)
	e.write(clone, 2)
	e.has("the source", src, 1, e.h.Size)
	e.write(src, 3)
	e.has("the clone", clone, 2, 2*e.h.Size)
	e.want("delete of the source", e.d.DeleteVolume(e.ctx(), src))
	e.has("the clone without its source", clone, 2, 2*e.h.Size)
}

func testCloneRefusals(e *env) {
	e.needs(model.AbilityClone)
	c := e.d.(drivers.Cloner)
	src := e.make()
	refused := func(what string, change func(*drivers.CreateVolume), kinds ...model.Kind) {
		e.Helper()
		r := e.volume()
		r.Source = &drivers.Source{Volume: &src, Size: e.h.Size}
		change(&r)
		_, err := c.CloneVolume(e.ctx(), r)
		e.want(what, err, kinds...)
		if r.ID == e.volumes[r.ID].ID {
			e.absent(e.volumes[r.ID])
		}
	}
	gone := drivers.VolumeRef{ID: model.NewID(), Pool: e.h.Pool}
	refused("clone of an absent volume", func(r *drivers.CreateVolume) { r.Source.Volume = &gone }, model.KindNotFound)
	refused("clone without a source", func(r *drivers.CreateVolume) { r.Source = nil }, model.KindInvalid)
	refused("clone of neither", func(r *drivers.CreateVolume) { r.Source = &drivers.Source{} }, model.KindInvalid)
	refused("clone of both", func(r *drivers.CreateVolume) {
		r.Source.Snapshot = &drivers.SnapshotRef{ID: model.NewID(), Pool: e.h.Pool}
	}, model.KindInvalid)
	refused("smaller clone", func(r *drivers.CreateVolume) { r.Size = e.h.Size / 2 }, model.KindInvalid)
	// The size in the request may be out of date: the source's own counts.
	refused("smaller clone, unnoticed", func(r *drivers.CreateVolume) {
		r.Size, r.Source.Size = e.h.Size/2, e.h.Size/2
	}, model.KindInvalid)
	if _, ok := able[drivers.Snapshotter](e, model.AbilitySnapshot); ok {
		refused("clone of an absent snapshot", func(r *drivers.CreateVolume) {
			r.Source = &drivers.Source{Snapshot: &drivers.SnapshotRef{ID: model.NewID(), Pool: e.h.Pool}, Size: e.h.Size}
		}, model.KindNotFound)
	}
}

func testRevert(e *env) {
	e.needs(model.AbilitySnapshot, model.AbilityRevert)
	rv := e.d.(drivers.Reverter)
	vol := e.make()
	e.write(vol, 1)
	early := e.snapshot(vol)
	size := e.h.Size
	if x, ok := able[drivers.Expander](e, model.AbilityExpand); ok {
		size *= 2
		_, err := x.ExpandVolume(e.ctx(), vol, size)
		e.want("expand", err)
	}
	e.write(vol, 2)
	late := e.snapshot(vol)
	e.write(vol, 3)
	if size > e.h.Size && e.hasData() {
		f := e.openData(vol)
		if _, err := f.WriteAt([]byte("beyond the early snapshot"), int64(size)-4096); err != nil {
			e.Fatal(err)
		}
		e.want("close", f.Close())
	}
	for range 2 { // called again, it does the same
		v, err := rv.RevertVolume(e.ctx(), vol, early)
		e.want("revert", err)
		if v.ID != vol.ID || v.Size < size {
			e.Errorf("got %+v, the size was %s", v, size)
		}
		e.has("after a revert", vol, 1, size)
		e.write(vol, 4)
	}
	_, err := rv.RevertVolume(e.ctx(), vol, late)
	e.want("revert to the later one", err)
	e.has("after a revert to the later one", vol, 2, size)
	e.snapshotHas("the early snapshot", early, e.h.Size, 1)
	e.snapshotHas("the later snapshot", late, size, 2)

	_, err = rv.RevertVolume(e.ctx(), vol, drivers.SnapshotRef{ID: model.NewID(), VolumeID: vol.ID, Pool: e.h.Pool})
	e.want("revert to an absent snapshot", err, model.KindNotFound)
	other := e.make()
	foreign := e.snapshot(other)
	_, err = rv.RevertVolume(e.ctx(), vol, foreign)
	e.want("revert to another volume's snapshot", err, model.KindInvalid, model.KindNotFound, model.KindConflict)
	e.has("after refused reverts", vol, 2, size)
	if x, ok := able[drivers.Exporter](e, model.AbilityExport); ok {
		xr := e.export(vol)
		_, err := x.Export(e.ctx(), xr)
		e.want("export", err)
		_, err = rv.RevertVolume(e.ctx(), vol, early)
		e.want("revert of an exported volume", err, model.KindBusy)
		e.want("unexport", x.Unexport(e.ctx(), e.exportRef(xr)))
		e.has("after a refused revert", vol, 2, size)
	}
	if got, err := e.d.GetVolume(e.ctx(), vol); err != nil || got.Size < size {
		e.Errorf("in the end: %+v, %v", got, err)
	}
	if v, ok := e.listed(vol.ID); !ok || v.Incomplete {
		e.Errorf("listed as %+v, %t", v, ok)
	}
}

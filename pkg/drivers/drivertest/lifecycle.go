package drivertest

import (
	"errors"
	"fmt"
	"slices"

	"github.com/osds-io/osds/pkg/drivers"
	"github.com/osds-io/osds/pkg/model"
)

// A restart changes nothing of what there is.
func testRestart(e *env) {
	vol := e.make()
	e.write(vol, 1)
	r := e.volume()
	gone := e.makeOf(r)
	e.want("delete", e.d.DeleteVolume(e.ctx(), gone))
	var snap drivers.SnapshotRef
	snaps := false
	if _, snaps = able[drivers.Snapshotter](e, model.AbilitySnapshot); snaps {
		snap = e.snapshot(vol)
		e.write(vol, 2)
	}
	grown := e.make()
	if x, ok := able[drivers.Expander](e, model.AbilityExpand); ok {
		_, err := x.ExpandVolume(e.ctx(), grown, 2*e.h.Size)
		e.want("expand", err)
	}
	var xr drivers.Export
	var conn model.Connection
	x, exports := able[drivers.Exporter](e, model.AbilityExport)
	if exports {
		exported := e.make()
		xr = e.export(exported)
		var err error
		conn, err = x.Export(e.ctx(), xr)
		e.want("export", err)
	}
	ours := func() string {
		return fmt.Sprintf("%+v", slices.DeleteFunc(e.all(), func(v drivers.Volume) bool { return e.volumes[v.ID].ID == "" }))
	}
	before := ours()
	pool := e.pool()

	e.reopen()

	if after := ours(); after != before {
		e.Errorf("there were\n%s\nand are\n%s", before, after)
	}
	if p := e.pool(); p.ID != pool.ID || p.Total <= 0 || p.Free > p.Total {
		e.Errorf("the pool was %+v and is %+v", pool, p)
	}
	e.absent(gone)
	if snaps {
		s, err := e.d.(drivers.Snapshotter).GetSnapshot(e.ctx(), snap)
		e.want("get snapshot", err)
		if s.VolumeID != vol.ID || s.TenantID != testTenant || s.Incomplete {
			e.Errorf("the snapshot is %+v", s)
		}
		e.has("the volume", vol, 2, e.h.Size)
		e.snapshotHas("the snapshot", snap, e.h.Size, 1)
	} else {
		e.has("the volume", vol, 1, e.h.Size)
	}
	if exports {
		x := e.d.(drivers.Exporter)
		if live := e.exportsOf(xr.Volume.ID); len(live) != 1 || live[0].AttachmentID != xr.AttachmentID {
			e.Errorf("live: %+v", live)
		}
		e.want("delete of an exported volume", e.d.DeleteVolume(e.ctx(), xr.Volume), model.KindBusy)
		again, err := x.Export(e.ctx(), xr)
		e.want("the same export", err)
		if fmt.Sprint(again) != fmt.Sprint(conn) {
			e.Errorf("the connection was %v and is %v", conn, again)
		}
		e.want("unexport", x.Unexport(e.ctx(), e.exportRef(xr)))
		if live := e.exportsOf(xr.Volume.ID); len(live) != 0 {
			e.Errorf("live after the end: %+v", live)
		}
	}
}

// Sixteen callers at once, each with volumes of its own, and a source that all
// of them clone and snapshot.
func testMixed(e *env) {
	src := e.make()
	e.write(src, 1)
	const callers, rounds = 16, 3
	for i, err := range e.together(callers, func(i int) error {
		for range rounds {
			if err := e.life(src, i); err != nil {
				return err
			}
		}
		return nil
	}) {
		if err != nil {
			e.Errorf("caller %d: %v", i, err)
		}
	}
	e.has("the common source", src, 1, e.h.Size)
}

// life is one volume's life; what is done in it depends on i.
func (e *env) life(src drivers.VolumeRef, i int) error {
	r := e.volume()
	create := e.d.CreateVolume
	if c, ok := able[drivers.Cloner](e, model.AbilityClone); ok && i%4 == 1 {
		r.Source = &drivers.Source{Volume: &src, Size: e.h.Size}
		create = c.CloneVolume
	}
	v, err := create(e.ctx(), r)
	if err != nil {
		return fmt.Errorf("create: %w", err)
	}
	ref := e.ref(v)
	size := v.Size
	if x, ok := able[drivers.Expander](e, model.AbilityExpand); ok && i%2 == 0 {
		g, err := x.ExpandVolume(e.ctx(), ref, 2*e.h.Size)
		if err != nil {
			return fmt.Errorf("expand: %w", err)
		}
		size = g.Size
	}
	if s, ok := able[drivers.Snapshotter](e, model.AbilitySnapshot); ok && i%3 == 0 {
		of := ref
		if i%2 == 0 {
			of = src
		}
		snap, err := s.CreateSnapshot(e.ctx(), e.snapshotRequest(of))
		if err != nil {
			return fmt.Errorf("snapshot: %w", err)
		}
		if err := s.DeleteSnapshot(e.ctx(), e.snapRef(snap)); err != nil {
			return fmt.Errorf("delete snapshot: %w", err)
		}
	}
	if x, ok := able[drivers.Exporter](e, model.AbilityExport); ok && i%4 == 2 {
		xr := e.export(ref)
		if _, err := x.Export(e.ctx(), xr); err != nil && !model.IsKind(err, model.KindUnsupported) {
			return fmt.Errorf("export: %w", err)
		}
		if err := x.Unexport(e.ctx(), e.exportRef(xr)); err != nil && !model.IsKind(err, model.KindUnsupported) {
			return fmt.Errorf("unexport: %w", err)
		}
	}
	if got, err := e.d.GetVolume(e.ctx(), ref); err != nil || got.Size != size {
		return fmt.Errorf("get: %+v, %w", got, err)
	}
	if _, err := e.d.Pools(e.ctx()); err != nil {
		return fmt.Errorf("pools: %w", err)
	}
	if _, err := e.d.ListVolumes(e.ctx(), drivers.Page{Limit: 5}); err != nil {
		return fmt.Errorf("list: %w", err)
	}
	if err := e.d.DeleteVolume(e.ctx(), ref); err != nil {
		return fmt.Errorf("delete: %w", err)
	}
	if _, err := e.d.GetVolume(e.ctx(), ref); !model.IsKind(err, model.KindNotFound) {
		return errors.Join(errors.New("get of a deleted volume"), err)
	}
	return nil
}

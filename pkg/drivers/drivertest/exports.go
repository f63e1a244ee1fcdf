package drivertest

import (
	"fmt"
	"slices"

	"github.com/osds-io/osds/pkg/drivers"
	"github.com/osds-io/osds/pkg/model"
)

func (e *env) exporter() drivers.Exporter {
	e.Helper()
	e.needs(model.AbilityExport)
	return e.d.(drivers.Exporter)
}

func checkConnection(e *env, c model.Connection) {
	e.Helper()
	if c.Type == "" || len(c.Data) == 0 {
		e.Errorf("connection %+v", c)
	}
}

func testExport(e *env) {
	x := e.exporter()
	vol := e.make()
	r := e.export(vol)
	first, err := x.Export(e.ctx(), r)
	if err != nil {
		e.Fatalf("export: %v", err)
	}
	checkConnection(e, first)
	again, err := x.Export(e.ctx(), r)
	e.want("the same export again", err)
	if fmt.Sprint(first) != fmt.Sprint(again) {
		e.Errorf("first %v, then %v", first, again)
	}
	second := e.export(vol)
	_, err = x.Export(e.ctx(), second)
	e.want("a second export", err, model.KindBusy)
	moved := r
	moved.Volume = e.make()
	_, err = x.Export(e.ctx(), moved)
	e.want("the same attachment of another volume", err, model.KindExists)

	live := e.exportsOf(vol.ID)
	if len(live) != 1 || live[0].AttachmentID != r.AttachmentID || live[0].Pool != e.h.Pool {
		e.Errorf("live: %+v", live)
	}
	e.want("delete of an exported volume", e.d.DeleteVolume(e.ctx(), vol), model.KindBusy)
	if _, err := e.d.GetVolume(e.ctx(), vol); err != nil {
		e.Errorf("after a refused delete: %v", err)
	}

	ref := e.exportRef(r)
	e.want("unexport", x.Unexport(e.ctx(), ref))
	e.want("unexport again", x.Unexport(e.ctx(), ref))
	e.want("unexport of the refused one", x.Unexport(e.ctx(), e.exportRef(second)))
	e.want("unexport of what never was", x.Unexport(e.ctx(), drivers.ExportRef{AttachmentID: model.NewID(), Volume: vol}))
	if live := e.exportsOf(vol.ID); len(live) != 0 {
		e.Errorf("live after the end: %+v", live)
	}
	_, err = x.Export(e.ctx(), second)
	e.want("an export after the first one's end", err)
	e.want("unexport", x.Unexport(e.ctx(), e.exportRef(second)))
	e.want("delete", e.d.DeleteVolume(e.ctx(), vol))
	e.want("unexport of a deleted volume", x.Unexport(e.ctx(), ref))

	absent := e.export(drivers.VolumeRef{ID: model.NewID(), Pool: e.h.Pool})
	_, err = x.Export(e.ctx(), absent)
	e.want("export of an absent volume", err, model.KindNotFound)
	e.noLeftovers(absent.AttachmentID)
}

func (e *env) exportsOf(volumeID string) []drivers.LiveExport {
	e.Helper()
	return slices.DeleteFunc(e.allExports(), func(l drivers.LiveExport) bool { return l.VolumeID != volumeID })
}

func testExportReadOnly(e *env) {
	x := e.exporter()
	vol := e.make()
	r := e.export(vol)
	r.ReadOnly = true
	c, err := x.Export(e.ctx(), r)
	if model.IsKind(err, model.KindUnsupported) {
		// Refused rather than made writable; nothing of it may be left.
		if live := e.exportsOf(vol.ID); len(live) != 0 {
			e.Errorf("live after a refusal: %+v", live)
		}
		e.noLeftovers(r.AttachmentID)
		e.Skipf("read-only exports are refused: %v", err)
	}
	e.want("read-only export", err)
	checkConnection(e, c)
	_, err = x.Export(e.ctx(), r)
	e.want("the same again", err)
	other := r
	other.ReadOnly = false
	_, err = x.Export(e.ctx(), other)
	e.want("the same attachment, writable", err, model.KindExists)
	e.want("unexport", x.Unexport(e.ctx(), e.exportRef(r)))
}

// A volume that is exported may grow where the driver says so.
func testExportGrown(e *env) {
	x := e.exporter()
	e.needs(model.AbilityExpand)
	g := e.d.(drivers.Expander)
	vol := e.make()
	e.write(vol, 1)
	r := e.export(vol)
	_, err := x.Export(e.ctx(), r)
	e.want("export", err)
	v, err := g.ExpandVolume(e.ctx(), vol, 2*e.h.Size)
	if !g.ExpandsOnline() || slices.Contains(e.pool().Lacks, model.AbilityExpandLive) {
		e.want("growing an exported volume", err, model.KindBusy, model.KindUnsupported)
	} else {
		e.want("growing an exported volume", err)
		if v.Size < 2*e.h.Size {
			e.Errorf("got %+v", v)
		}
	}
	e.want("unexport", x.Unexport(e.ctx(), e.exportRef(r)))
	v, err = g.ExpandVolume(e.ctx(), vol, 2*e.h.Size)
	e.want("growing it afterwards", err)
	e.has("after growing", vol, 1, 2*e.h.Size)
}

func testMultiAttach(e *env) {
	x := e.exporter()
	vol := e.make()
	var rs []drivers.Export
	for range 3 {
		r := e.export(vol)
		r.MultiAttach = true
		rs = append(rs, r)
	}
	_, err := x.Export(e.ctx(), rs[0])
	if !e.pool().MultiAttach {
		if err == nil {
			_, err = x.Export(e.ctx(), rs[1])
		}
		e.want("several exports in a pool without multi-attach", err, model.KindBusy, model.KindUnsupported)
		return
	}
	e.want("first export", err)
	for i, r := range rs[1:] {
		c, err := x.Export(e.ctx(), r)
		e.want(fmt.Sprint("further export ", i+1), err)
		checkConnection(e, c)
	}
	if live := e.exportsOf(vol.ID); len(live) != 3 {
		e.Errorf("live: %+v", live)
	}
	for _, limit := range []int{1, 2} {
		n := 0
		for _, l := range pages(e, limit, func(p drivers.Page) ([]drivers.LiveExport, error) { return x.ListExports(e.ctx(), p) },
			func(l drivers.LiveExport) string { return l.AttachmentID }) {
			if l.VolumeID == vol.ID {
				n++
			}
		}
		if n != 3 {
			e.Errorf("by %d: listed %d", limit, n)
		}
	}
	e.want("unexport", x.Unexport(e.ctx(), e.exportRef(rs[1])))
	if live := e.exportsOf(vol.ID); len(live) != 2 || slices.ContainsFunc(live, func(l drivers.LiveExport) bool { return l.AttachmentID == rs[1].AttachmentID }) {
		e.Errorf("live after the end of one: %+v", live)
	}
	e.want("delete of an exported volume", e.d.DeleteVolume(e.ctx(), vol), model.KindBusy)
	single := e.export(vol)
	_, err = x.Export(e.ctx(), single)
	e.want("an export that will not share", err, model.KindBusy)
}

// A host that has no name on the pool's storage network is refused: an export is
// never for everybody. A host that is cut off is so at once.
func testExportHosts(e *env) {
	x := e.exporter()
	if len(e.h.Host.Initiators) == 0 {
		e.Skip("the pool's hosts have no initiators")
	}
	vol := e.make()
	for _, initiators := range [][]model.Initiator{nil, {{PortName: "10000090fa1b2c3d", Protocol: "fibre_channel"}},
		{{PortName: "../x", Protocol: e.h.Protocol}}, {{PortName: "", Protocol: e.h.Protocol}}} {
		r := e.export(vol)
		r.Host.Initiators = initiators
		_, err := x.Export(e.ctx(), r)
		e.want(fmt.Sprintf("export to a host with initiators %v", initiators), err, model.KindInvalid)
		if f := model.AsError(err); f != nil && f.Field == "" {
			e.Errorf("the error names no field: %v", err)
		}
		e.noLeftovers(r.AttachmentID)
	}
	limited := e.export(vol)
	limited.QoS = drivers.QoS{MaxIOPS: 100}
	if _, err := x.Export(e.ctx(), limited); err != nil {
		e.want("export with a limit", err, model.KindUnsupported)
	}
	e.want("unexport", x.Unexport(e.ctx(), e.exportRef(limited)))

	if e.h.Hold == nil {
		return
	}
	r := e.export(vol)
	c, err := x.Export(e.ctx(), r)
	if err != nil {
		e.Fatalf("export: %v", err)
	}
	moved := r
	moved.Host.Initiators = slices.Clone(r.Host.Initiators)
	for i := range moved.Host.Initiators {
		moved.Host.Initiators[i].PortName += "-other"
	}
	_, err = x.Export(e.ctx(), moved)
	e.want("the same attachment for another host", err, model.KindExists)
	release := e.h.Hold(e.T, c)
	ref := e.exportRef(r)
	ref.Force = true
	e.want("unexport by force while it is in use", x.Unexport(e.ctx(), ref))
	if live := e.exportsOf(vol.ID); len(live) != 0 {
		e.Errorf("live after the end: %+v", live)
	}
	release()
	e.want("delete", e.d.DeleteVolume(e.ctx(), vol))
}

// An export that its user holds open is not ended under it.
func testHold(e *env) {
	x := e.exporter()
	if e.h.Hold == nil {
		if e.h.Skip["hold"] == "" {
			e.Error(`without Hold the harness must say why in Skip["hold"]`)
		}
		return
	}
	vol := e.make()
	r := e.export(vol)
	c, err := x.Export(e.ctx(), r)
	if err != nil {
		e.Fatalf("export: %v", err)
	}
	release := e.h.Hold(e.T, c)
	e.want("unexport while it is in use", x.Unexport(e.ctx(), e.exportRef(r)), model.KindBusy)
	if live := e.exportsOf(vol.ID); len(live) != 1 {
		e.Errorf("after a refused unexport, live: %+v", live)
	}
	release()
	if live := e.exportsOf(vol.ID); len(live) != 1 {
		e.Errorf("an export ended by itself after a refused unexport; live: %+v", live)
	}
	e.want("unexport", x.Unexport(e.ctx(), e.exportRef(r)))
	if live := e.exportsOf(vol.ID); len(live) != 0 {
		e.Errorf("live after the end: %+v", live)
	}
}

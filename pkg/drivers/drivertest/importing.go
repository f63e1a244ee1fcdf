package drivertest

import (
	"maps"
	"slices"

	"github.com/osds-io/osds/pkg/drivers"
	"github.com/osds-io/osds/pkg/model"
)

// importable gives what could be imported in the suite's pool, by name.
func (e *env) importable() map[string]drivers.Importable {
	e.Helper()
	out := map[string]drivers.Importable{}
	for _, x := range pages(e, 3, func(p drivers.Page) ([]drivers.Importable, error) {
		return e.d.(drivers.Importer).ListImportable(e.ctx(), e.h.Pool, p)
	}, func(x drivers.Importable) string { return x.Name }) {
		if x.Pool != e.h.Pool || x.Size <= 0 || x.Adds < 0 || x.Adds > x.Size {
			e.Errorf("importable: %+v", x)
		}
		out[x.Name] = x
	}
	return out
}

// news gives the one name that is importable now and was not before.
func (e *env) news(before map[string]drivers.Importable) string {
	e.Helper()
	var found []string
	for _, n := range slices.Sorted(maps.Keys(e.importable())) {
		if _, old := before[n]; !old {
			found = append(found, n)
		}
	}
	if len(found) != 1 {
		e.Fatalf("importable and new: %q, want one", found)
	}
	return found[0]
}

func (e *env) importRequest(name string) drivers.ImportVolume {
	id := model.NewID()
	e.noteVolume(drivers.VolumeRef{ID: id, Pool: e.h.Pool})
	return drivers.ImportVolume{ID: id, Pool: e.h.Pool, Existing: name, TenantID: testTenant, ClusterID: testCluster}
}

// released makes a volume, writes to it, gives it back, and says under what name
// it can be imported.
func (e *env) released() string {
	e.Helper()
	v := e.make()
	e.write(v, 1)
	before := e.importable()
	e.want("release", e.d.(drivers.Importer).ReleaseVolume(e.ctx(), v))
	e.notOurs(v)
	return e.news(before)
}

// notOurs checks that a volume is none of ours; others may have it.
func (e *env) notOurs(r drivers.VolumeRef) {
	e.Helper()
	_, err := e.d.GetVolume(e.ctx(), r)
	e.want("get of a volume that was given back", err, model.KindNotFound)
	if v, ok := e.listed(r.ID); ok {
		e.Errorf("a volume that was given back is listed: %+v", v)
	}
}

// imported imports what must succeed, and checks that the data is there.
func (e *env) imported(name string) drivers.VolumeRef {
	e.Helper()
	r := e.importRequest(name)
	v, err := e.d.(drivers.Importer).ImportVolume(e.ctx(), r)
	if err != nil {
		e.Fatalf("import of %s: %v", name, err)
	}
	e.checkVolume(v, drivers.CreateVolume{ID: r.ID, Pool: r.Pool, Size: e.h.Size, TenantID: testTenant, ClusterID: testCluster})
	ref := e.ref(v)
	e.has("an imported volume", ref, 1, e.h.Size)
	return ref
}

func testImport(e *env) {
	e.needs(model.AbilityImport)
	x := e.d.(drivers.Importer)
	before := e.importable()
	name := e.released()
	r := e.importRequest(name)
	bad := r
	bad.Existing = name + "-absent"
	_, err := x.ImportVolume(e.ctx(), bad)
	e.want("import of what is not there", err, model.KindNotFound)
	e.notOurs(drivers.VolumeRef{ID: r.ID, Pool: r.Pool})

	v, err := x.ImportVolume(e.ctx(), r)
	e.want("import", err)
	again, err := x.ImportVolume(e.ctx(), r)
	e.want("the same import again", err)
	if v.ID != again.ID || v.Size != again.Size || v.Incomplete {
		e.Errorf("imported %+v, then %+v", v, again)
	}
	ref := e.ref(v)
	e.has("an imported volume", ref, 1, e.h.Size)
	if _, ok := e.importable()[name]; ok {
		e.Errorf("%s is imported and importable", name)
	}
	e.reopen()
	x = e.d.(drivers.Importer)
	if got, err := e.d.GetVolume(e.ctx(), ref); err != nil || got.TenantID != testTenant || got.ClusterID != testCluster || got.Size != v.Size {
		e.Errorf("after a restart: %+v, %v", got, err)
	}
	// Given back, it has its old name again, and nobody else is disturbed.
	e.want("release", x.ReleaseVolume(e.ctx(), ref))
	e.want("release of one that is not ours any more", x.ReleaseVolume(e.ctx(), ref))
	e.want("delete of one that is not ours any more", e.d.DeleteVolume(e.ctx(), ref))
	e.notOurs(ref)
	if after := e.importable(); len(after) != len(before)+1 || after[name].Obstacle != "" {
		e.Errorf("importable: %+v, before %+v", after, before)
	}
	// A volume in use is not given back.
	ref = e.imported(name)
	if ex, ok := able[drivers.Exporter](e, model.AbilityExport); ok {
		a := e.export(ref)
		_, err := ex.Export(e.ctx(), a)
		e.want("export", err)
		e.want("release of an exported volume", x.ReleaseVolume(e.ctx(), ref), model.KindBusy)
		e.want("unexport", ex.Unexport(e.ctx(), e.exportRef(a)))
	}
	e.want("delete", e.d.DeleteVolume(e.ctx(), ref))
	e.absent(ref)
	if after := e.importable(); len(after) != len(before) {
		e.Errorf("a deleted volume is importable: %+v", after)
	}
}

// importCrashes interrupt taking over and giving back. Whatever happens, the data
// is never lost: it can be imported in the end.
func importCrashes() []crashCase {
	var before map[string]drivers.Importable
	var over bool // done and undo come after each other
	end := func(e *env, name string) {
		e.Helper()
		if over {
			if _, ok := e.importable()[name]; ok {
				e.Errorf("%s has come back", name)
			}
			return
		}
		over = true
		ref := e.imported(name)
		e.want("delete", e.d.DeleteVolume(e.ctx(), ref))
		e.absent(ref)
	}
	whole := func(e *env, ref drivers.VolumeRef) {
		e.Helper()
		_, err := e.d.GetVolume(e.ctx(), ref)
		if err == nil {
			e.has("after the crash", ref, 1, e.h.Size)
			return
		}
		e.want("get", err, model.KindNotFound)
		if l, listed := e.listed(ref.ID); listed && !l.Incomplete {
			e.Errorf("get says notFound, the list has %+v", l)
		}
	}
	return []crashCase{
		{name: "import", needs: []string{model.AbilityImport},
			prepare: func(e *env) order {
				over = false
				r := e.importRequest(e.released())
				return order{Op: "import", Import: r, Volume: e.volumes[r.ID]}
			},
			between: func(e *env, o order) { whole(e, o.Volume) },
			done: func(e *env, o order) {
				_, err := e.d.GetVolume(e.ctx(), o.Volume)
				e.want("get", err)
				e.has("an imported volume", o.Volume, 1, e.h.Size)
			},
			undo: func(e *env, o order) {
				e.want("release", e.d.(drivers.Importer).ReleaseVolume(e.ctx(), o.Volume))
				e.notOurs(o.Volume)
				end(e, o.Import.Existing)
			}},
		{name: "release", needs: []string{model.AbilityImport},
			prepare: func(e *env) order {
				v := e.make()
				e.write(v, 1)
				before, over = e.importable(), false
				return order{Op: "release", Volume: v}
			},
			between: func(e *env, o order) { whole(e, o.Volume) },
			done: func(e *env, o order) {
				e.notOurs(o.Volume)
				end(e, e.news(before))
			},
			undo: func(e *env, o order) {
				// There is no way back once it has begun but on.
				e.want("release", e.d.(drivers.Importer).ReleaseVolume(e.ctx(), o.Volume))
				e.notOurs(o.Volume)
				if l := e.importable(); len(l) > len(before) {
					end(e, e.news(before))
				}
			}},
	}
}

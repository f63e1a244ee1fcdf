package api

import (
	"context"
	"fmt"
	"net/url"
	"testing"

	"github.com/osds-io/osds/pkg/model"
	"github.com/osds-io/osds/pkg/model/wire"
)

// fakeFinder has seven volumes in every pool: the real one asks docks, which the
// end-to-end tests do.
type fakeFinder struct{}

func (fakeFinder) Importable(_ context.Context, poolID, after string, limit int) (out []*wire.ImportableSpec, err error) {
	out = []*wire.ImportableSpec{}
	for i := range 7 {
		n := fmt.Sprintf("vg/old%d", i)
		if n > after && len(out) < limit {
			out = append(out, &wire.ImportableSpec{Name: n, PoolID: poolID, Size: 1, Bytes: 1 << 30})
		}
	}
	return out, nil
}

func TestListImportable(t *testing.T) {
	e := newEnv(t, func(d *Deps) { d.Finder = fakeFinder{} })
	admin := e.admin()
	p := e.pool(func(p *model.Pool) { p.Abilities = append(p.Abilities, model.AbilityImport) })
	path := "/pools/" + p.ID + "/importable"
	e.get(path).fails(403, model.KindDenied, "", "administrators")
	admin.get("/pools/"+model.NewID()+"/importable").fails(404, model.KindNotFound, "", "")
	admin.get(path+"?limit=x").fails(400, model.KindInvalid, "limit", "")
	admin.get(path+"?marker=x").fails(400, model.KindInvalid, "marker", "")
	var names []string
	for marker := ""; ; {
		var page []wire.ImportableSpec
		r := admin.get(path + "?limit=3&marker=" + url.QueryEscape(marker)).want(200).into(&page)
		for _, x := range page {
			names = append(names, x.Name)
		}
		if marker = r.Header.Get(wire.HeaderNextMarker); marker == "" {
			break
		}
		if len(page) != 3 {
			t.Fatalf("a page of 3 has %d", len(page))
		}
	}
	if len(names) != 7 || names[6] != "vg/old6" {
		t.Error(names)
	}
	admin.get("/pools/" + p.ID).want(200)
}

func TestImportIsChecked(t *testing.T) {
	e := newEnv(t)
	admin := e.admin()
	prof := e.profile()
	can := e.pool(func(p *model.Pool) { p.Abilities, p.MultiAttach = append(p.Abilities, model.AbilityImport), false })
	cannot := e.pool()
	body := func(more map[string]any) map[string]any {
		m := map[string]any{"name": "v", "poolId": can.ID, "existing": "vg/old", "profileId": prof.ID}
		for k, v := range more {
			m[k] = v
		}
		return m
	}
	const path = "/block/volumes"
	e.post(path, body(nil)).fails(403, model.KindDenied, "existing", "administrators")
	for field, more := range map[string]map[string]any{
		"size":        {"size": 1},
		"poolId":      {"poolId": ""},
		"groupId":     {"groupId": model.NewID()},
		"multiAttach": {"multiAttach": true},
		"tenantId":    {"tenantId": "no such/tenant"},
	} {
		admin.post(path, body(more)).fails(400, model.KindInvalid, field, "")
	}
	admin.post(path, body(map[string]any{"poolId": cannot.ID})).fails(400, model.KindUnsupported, "poolId", "cannot import")
	admin.post(path+"?dryRun=explain", body(nil)).fails(400, model.KindUnsupported, "existing", "")

	var v wire.VolumeSpec
	admin.post(path, body(map[string]any{"tenantId": e.tenant})).want(202).into(&v)
	if v.TenantID != e.tenant || v.Existing != "vg/old" || v.Status != model.StatusCreating {
		t.Errorf("%+v", v)
	}
	e.get(path + "/" + v.ID).want(200).into(&v) // it is the tenant's

	// Giving back is for administrators, and for what is whole.
	admin.del(path+"/"+v.ID+"?release=true").fails(400, model.KindBusy, "", "")
	e.setVolume(v.ID, func(x *model.Volume) {
		x.PoolID, x.Status, x.Size = can.ID, model.StatusAvailable, model.GiB
		ended(x.Task)
	})
	e.del(path+"/"+v.ID+"?release=true").fails(403, model.KindDenied, "release", "administrators")
	admin.del(path+"/"+v.ID+"?release=maybe").fails(400, model.KindInvalid, "release", "")
	admin.del(path + "/" + v.ID + "?release=true").want(202)
	x, _ := e.store.Volumes.Get(v.ID)
	if !x.Task.Release || x.Status != model.StatusDeleting {
		t.Errorf("%+v", x.Task)
	}
}

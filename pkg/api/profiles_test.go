package api

import (
	"strings"
	"testing"

	"github.com/osds-io/osds/pkg/db"
	"github.com/osds-io/osds/pkg/model"
	"github.com/osds-io/osds/pkg/model/wire"
)

func TestProfileLife(t *testing.T) {
	e := newEnv(t)
	name := unique("profile")
	var p wire.ProfileSpec
	r := e.post("/profiles", map[string]any{"name": name, "storageType": "Block", "description": "d"}).want(200).into(&p)
	if p.Name != name || p.StorageType != "block" || p.CreatedAt == "" || p.UpdatedAt != "" {
		t.Fatalf("created: %s", r.Body)
	}
	if got := e.get("/profiles/" + p.ID).want(200); got.Body != r.Body || got.Header.Get("ETag") != r.Header.Get("ETag") {
		t.Fatalf("get differs from create:\n%s %s\n%s %s", r.Header.Get("ETag"), r.Body, got.Header.Get("ETag"), got.Body)
	}
	e.post("/profiles", map[string]any{"name": name, "storageType": "block"}).
		fails(400, model.KindExists, "name", "create profile failed: the profile name '"+name+"' already exists")
	e.post("/profiles", map[string]any{"id": p.ID, "name": unique("p"), "storageType": "block"}).fails(409, model.KindExists, "id", "exists already")
	e.post("/profiles", map[string]any{"name": "x", "storageType": "object"}).
		fails(400, model.KindInvalid, "storageType", "parse profile request body failed: object is invalid storagetype")
	e.post("/profiles", map[string]any{"storageType": "block"}).fails(400, model.KindInvalid, "name", "name is missing")
	e.post("/profiles", `{"name":"x","storageType":"block","provisioningProperties":{"ioConnectivity":{"maxIOPS":"x"}}}`).
		fails(400, model.KindInvalid, "provisioningProperties.ioConnectivity.maxIOPS", "must be a whole number")
	e.del("/profiles/" + p.ID).want(200)
	e.get("/profiles/"+p.ID).fails(404, model.KindNotFound, "", "profile "+p.ID+" not found: Wrong resource uuid provided!")
	e.del("/profiles/" + p.ID).want(404)
	e.post("/profiles", map[string]any{"name": name, "storageType": "block"}).want(200)
}

func TestUpdateProfile(t *testing.T) {
	e := newEnv(t)
	var p wire.ProfileSpec
	e.post("/profiles", map[string]any{"name": unique("p"), "storageType": "block", "description": "d", "customProperties": map[string]any{"a": 1, "b": map[string]any{"x": "y"}},
		"provisioningProperties": map[string]any{"dataStorage": map[string]any{"provisioningPolicy": "Thin"}}}).want(200).into(&p)
	path := "/profiles/" + p.ID
	name := unique("renamed")
	var got wire.ProfileSpec
	r := e.put(path, map[string]any{"name": name, "description": "", "customProperties": map[string]any{"b": nil, "c": []any{"z"}}}).want(200).into(&got)
	if got.Name != name || got.Description != "" || len(got.CustomProperties) != 2 || got.CustomProperties["a"] != 1.0 || got.ProvisioningProperties.DataStorage.ProvisioningPolicy != "Thin" {
		t.Errorf("%s", r.Body)
	}
	e.put(path, e.get(path).Body).want(200)
	e.put(path, `{"storageType":"file"}`).fails(400, model.KindInvalid, "storageType", "cannot be changed")
	e.put(path, `{"provisioningProperties":{}}`).fails(400, model.KindInvalid, "provisioningProperties", "cannot be changed")
	e.put(path, `{"name":""}`).fails(400, model.KindInvalid, "name", "name is missing")
	e.put(path, `{"customProperties":{"deep":`+strings.Repeat(`{"a":`, 9)+`1`+strings.Repeat(`}`, 9)+`}}`).fails(400, model.KindInvalid, "customProperties", "nested")
	e.put("/profiles/nope", `{"name":"x"}`).want(404)
	// The old name is free again, the new one taken.
	e.post("/profiles", map[string]any{"name": p.Name, "storageType": "block"}).want(200).into(&got)
	e.put("/profiles/"+got.ID, map[string]any{"name": name}).fails(400, model.KindExists, "name", "already exists")
}

func TestCustomProperties(t *testing.T) {
	e := newEnv(t)
	p := e.profile()
	path := "/profiles/" + p.ID + "/customProperties"
	if r := e.get(path).want(200); r.Body != "{}" {
		t.Errorf("none: %s", r.Body)
	}
	if r := e.post(path, `{"k":"v","a b/c":1}`).want(200); r.Body != `{"a b/c":1,"k":"v"}` {
		t.Errorf("added: %s", r.Body)
	}
	if r := e.post(path, `{"k":"w",":x:y":true}`).want(200); r.Body != `{":x:y":true,"a b/c":1,"k":"w"}` {
		t.Errorf("added: %s", r.Body)
	}
	e.del(path + "/%3Ax%3Ay").want(200)
	e.del(path+"/:x:y").fails(404, model.KindNotFound, "customKey", "has no custom property :x:y")
	e.post(path, `{"a b/c":null}`).want(200) // a key with a slash cannot be in a path
	if r := e.del(path + "/k").want(200); r.Body != "" {
		t.Errorf("removed: %s", r.Body)
	}
	if r := e.get(path).want(200); r.Body != "{}" {
		t.Errorf("none again: %s", r.Body)
	}
	e.post(path, `{"":"v"}`).fails(400, model.KindInvalid, "customProperties", "empty key")
	e.post(path, `[]`).want(400)
	for _, m := range []string{"GET", "POST"} {
		e.do(m, "/profiles/nope/customProperties", `{"k":"v"}`).want(404)
	}
	e.del("/profiles/nope/customProperties/k").want(404)
}

func TestDeleteProfileWithDependants(t *testing.T) {
	e := newEnv(t)
	p := e.profile()
	names := []string{}
	for _, n := range []string{"one", "two"} {
		var v wire.VolumeSpec
		e.post("/block/volumes", map[string]any{"name": n, "size": 1, "profileId": p.ID}).want(202).into(&v)
		names = append(names, n)
	}
	e.del("/profiles/"+p.ID).fails(400, model.KindBusy, "", "There are dependent volumes : ["+strings.Join(names, " ")+"] for the specified profile "+p.ID)
	for i := range 20 {
		e.post("/block/volumes", map[string]any{"name": "more" + strings.Repeat("x", i), "size": 1, "profileId": p.ID}).want(202)
	}
	if r := e.del("/profiles/" + p.ID).want(400); !strings.Contains(r.Body, " ...]") || len(r.Body) > 400 {
		t.Errorf("the list of names is not bounded: %s", r.Body)
	}
}

func TestDocksPoolsZones(t *testing.T) {
	e := newEnv(t, func(d *Deps) { d.Store = ownStore(t) })
	for _, p := range []string{"/docks", "/pools", "/availabilityZones"} {
		if r := e.get(p).want(200); r.Body != "[]" {
			t.Errorf("%s of nothing: %s", p, r.Body)
		}
	}
	a := e.pool(func(p *model.Pool) { p.Name, p.OverProvisioning = "a", 2 })
	e.pool(func(p *model.Pool) { p.Name, p.AvailabilityZone = "b", "west" })
	e.pool(func(p *model.Pool) { p.Name, p.AvailabilityZone = "c", "west" })
	e.commit((&db.Txn{Label: "test"}).Create(&model.Account{Meta: model.Meta{ID: a.ID}, Reserved: 30 * model.GiB}))
	if r := e.get("/availabilityZones").want(200); r.Body != `["default","west"]` {
		t.Errorf("zones: %s", r.Body)
	}
	var p wire.StoragePoolSpec
	r := e.get("/pools/" + a.ID).want(200).into(&p)
	if p.TotalCapacity != 100 || p.FreeCapacity != 90 || p.ReservedCapacity != 30 || p.ProvisionedLimit != 200 || p.Status != "available" || r.Header.Get("ETag") != "" {
		t.Errorf("%s %v", r.Body, r.Header)
	}
	var ps []wire.StoragePoolSpec
	if e.get("/pools?availabilityZone=west&sortKey=name").want(200).into(&ps); len(ps) != 2 || ps[0].Name != "c" {
		t.Errorf("%+v", ps)
	}
	live := newEnv(t, func(d *Deps) {
		d.Store = e.store
		d.PoolView = func(p *model.Pool) (model.Bytes, model.Bytes, model.Bytes, model.Status) {
			return 80 * model.GiB, 5 * model.GiB, 40 * model.GiB, model.StatusUnavailable
		}
	})
	live.get("/pools/" + a.ID).want(200).into(&p)
	if p.TotalCapacity != 80 || p.FreeCapacity != 5 || p.ReservedCapacity != 40 || p.ProvisionedLimit != 160 || p.Status != "unavailable" {
		t.Errorf("live: %+v", p)
	}
	if rec, _ := e.store.Pools.Get(a.ID); rec.Free != 90*model.GiB {
		t.Error("the cached record was changed")
	}
	e.get("/pools/nope").fails(404, model.KindNotFound, "", "pool nope not found")
	e.get("/docks/nope").fails(404, model.KindNotFound, "", "dock nope not found")
	e.post("/pools", `{}`).want(405)
}

package api

import (
	"testing"

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
	e.post("/profiles", map[string]any{"name": "x", "storageType": "object"}).
		fails(400, model.KindInvalid, "storageType", "parse profile request body failed: object is invalid storagetype")
	e.del("/profiles/" + p.ID).want(200)
	e.get("/profiles/"+p.ID).fails(404, model.KindNotFound, "", "profile "+p.ID+" not found: Wrong resource uuid provided!")
	e.post("/profiles", map[string]any{"name": name, "storageType": "block"}).want(200)
}

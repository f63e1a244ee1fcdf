package api

import (
	"fmt"
	"testing"

	"github.com/osds-io/osds/pkg/db"
	"github.com/osds-io/osds/pkg/model"
	"github.com/osds-io/osds/pkg/model/wire"
)

func (e *env) group(pool *model.Pool, profiles ...*wire.ProfileSpec) *wire.VolumeGroupSpec {
	e.t.Helper()
	var ids []string
	for _, p := range profiles {
		ids = append(ids, p.ID)
	}
	return create[wire.VolumeGroupSpec](e, "/block/volumeGroups", pool, map[string]any{"name": "g", "profiles": ids})
}

func TestCreateGroup(t *testing.T) {
	e := newEnv(t)
	profile := e.profile()
	var file wire.ProfileSpec
	e.post("/profiles", map[string]any{"name": unique("f"), "storageType": "file"}).want(200).into(&file)
	var g wire.VolumeGroupSpec
	r := e.post("/block/volumeGroups", map[string]any{"name": "g", "description": "d", "profiles": []string{profile.ID, profile.ID}}).want(202).into(&g)
	if g.Status != "creating" || g.AvailabilityZone != "default" || len(g.Profiles) != 1 || g.TaskID == "" {
		t.Errorf("%s", r.Body)
	}
	const failed = "create volume group failed: "
	for _, c := range []struct {
		body    map[string]any
		kind    model.Kind
		field   string
		message string
	}{
		{map[string]any{"name": "g"}, "invalid", "profiles", failed + "profiles must be provided to create volume group."},
		{map[string]any{"profiles": []string{"nope"}}, "invalid", "profiles", "Wrong resource uuid provided!"},
		{map[string]any{"profiles": []string{file.ID}}, "invalid", "profiles", "is for file storage"},
		{map[string]any{"profiles": make([]string, 17)}, "invalid", "profiles", "at most 16"},
		{map[string]any{"profiles": []string{profile.ID}, "addVolumes": []string{"x"}}, "unsupported", "addVolumes", "add them with PUT"},
	} {
		e.post("/block/volumeGroups", c.body).fails(400, c.kind, c.field, c.message)
	}
	e.del("/profiles/"+profile.ID).fails(400, model.KindBusy, "", "There are dependent volume groups : ["+g.ID+"]")
	e.del("/block/volumeGroups/"+g.ID).fails(400, model.KindBusy, "", "the volume group status is creating; task "+g.TaskID)
}

func TestUpdateGroup(t *testing.T) {
	e := newEnv(t)
	pool, profile, other := e.pool(), e.profile(), e.profile()
	g := e.group(pool, profile)
	v := e.volume(pool, profile)
	p := "/block/volumeGroups/" + g.ID
	elsewhere := e.volume(e.pool(), profile)
	wrong := e.volume(pool, other)
	in := e.volume(pool, profile, map[string]any{"groupId": g.ID})
	bad := e.volume(pool, profile)
	e.setVolume(bad.ID, func(v *model.Volume) { v.Status = model.StatusError })
	const failed = "update volume group failed: "
	for _, c := range []struct {
		body    any
		kind    model.Kind
		field   string
		message string
	}{
		{`{}`, "invalid", "", failed + "update group " + g.ID + " faild, because no valid name, description, addvolumes or removevolumes were provided"},
		{`{"name":""}`, "invalid", "", "no valid name"},
		{map[string]any{"addVolumes": []string{"nope"}}, "invalid", "addVolumes", failed + "specified volume(nope) can't find"},
		{map[string]any{"removeVolumes": []string{"nope"}}, "invalid", "removeVolumes", failed + "specified volume(nope) can't find"},
		{map[string]any{"addVolumes": []string{v.ID}, "removeVolumes": []string{v.ID}}, "invalid", "addVolumes", "to be added and removed"},
		{map[string]any{"addVolumes": []string{in.ID}}, "invalid", "addVolumes", "already in group"},
		{map[string]any{"addVolumes": []string{wrong.ID}}, "invalid", "addVolumes", "volume profile is not supported by the group"},
		{map[string]any{"addVolumes": []string{elsewhere.ID}}, "invalid", "addVolumes", "volume is not local to the pool of group"},
		{map[string]any{"addVolumes": []string{bad.ID}}, "busy", "", "is error, it must be available or inUse"},
		{map[string]any{"removeVolumes": []string{v.ID}}, "invalid", "removeVolumes", "is not in group"},
		{map[string]any{"addVolumes": make([]string, 101)}, "invalid", "addVolumes", "at most 100"},
		{`{"status":"error"}`, "invalid", "", "no valid name"},
		{`{"name":"x","status":"error"}`, "invalid", "status", "cannot be changed"},
		{`{"name":"x","profiles":[]}`, "invalid", "profiles", "cannot be changed"},
		{`{"addVolumes":"x"}`, "invalid", "addVolumes", "must be a list"},
	} {
		e.put(p, c.body).fails(400, c.kind, c.field, c.message)
	}
	e.put("/block/volumeGroups/nope", `{"name":"x"}`).fails(404, model.KindNotFound, "", "volume group nope not found: Wrong resource uuid provided!")
	var got wire.VolumeGroupSpec
	e.put(p, `{"name":"n","description":""}`).want(202).into(&got)
	if got.Name != "n" || got.Description != "" || got.Status != "available" {
		t.Errorf("%+v", got)
	}
	before, _ := testStore.Volumes.Get(v.ID)
	r := e.put(p, map[string]any{"addVolumes": []string{v.ID, v.ID}, "removeVolumes": []string{in.ID}}).want(202).into(&got)
	if got.Status != "updating" || got.AddVolumes != nil {
		t.Errorf("%s", r.Body)
	}
	rec, _ := testStore.Groups.Get(g.ID)
	if rec.Task.Kind != model.TaskUpdate || len(rec.AddVolumes) != 1 || len(rec.RemoveVolumes) != 1 || rec.Task.PrevStatus != model.StatusAvailable {
		t.Errorf("%+v %+v", rec, rec.Task)
	}
	if now, _ := testStore.Volumes.Get(v.ID); now.Rev == before.Rev {
		t.Error("the volume was not written again")
	}
	e.put(p, map[string]any{"addVolumes": []string{elsewhere.ID}}).fails(400, model.KindBusy, "", "is updating; task")
	e.put(p, `{"name":"still"}`).want(202) // does not disturb the update
	e.del("/block/volumes/"+v.ID).fails(400, model.KindBusy, "", "is being updated with it")
	e.del("/block/volumes/"+in.ID).fails(400, model.KindBusy, "", "is being updated with it")
	g2 := create[wire.VolumeGroupSpec](e.admin(), "/block/volumeGroups", pool, map[string]any{"profiles": []string{profile.ID}})
	e.admin().put("/block/volumeGroups/"+g2.ID, map[string]any{"addVolumes": []string{v.ID}}).fails(400, model.KindBusy, "", "is being added to group "+g.ID)
	e.settle(pool)
	if now, _ := testStore.Groups.Get(g.ID); now.Name != "still" || now.Status != "available" {
		t.Errorf("%+v", now)
	}
	if r := e.get("/block/volumes?groupId=" + g.ID); len(r.Body) < 10 || testStore.Volumes.Count("groupId", g.ID) != 1 {
		t.Errorf("members: %s", r.Body)
	}
}

func TestDeleteGroup(t *testing.T) {
	e := newEnv(t)
	pool, profile := e.pool(), e.profile()
	g := e.group(pool, profile)
	v := e.volume(pool, profile, map[string]any{"groupId": g.ID})
	p := "/block/volumeGroups/" + g.ID
	x := e.snapshot(v)
	e.del(p).fails(400, model.KindBusy, "", "delete volume group failed: volume "+v.ID+" of group "+g.ID+" still has snapshots")
	e.del("/block/snapshots/" + x.ID).want(202)
	e.settle(pool)
	h := e.host()
	a := e.attachment(v, h)
	e.del(p).fails(400, model.KindBusy, "", "is attached")
	e.del("/block/attachments/" + a.ID).want(202)
	e.settle(pool)
	e.post("/block/volumes/"+v.ID+"/resize", `{"newSize":2}`).want(202)
	e.del(p).fails(400, model.KindBusy, "", "is extending")
	e.settle(pool)
	e.del(p).want(202)
	rec, _ := testStore.Groups.Get(g.ID)
	if rec.Status != model.StatusDeleting || rec.Task.Kind != model.TaskDelete || rec.Task.Step != model.StepMembers {
		t.Errorf("%+v %+v", rec, rec.Task)
	}
	// Nothing new begins on its members.
	const gone = "which is being deleted"
	e.post("/block/snapshots", map[string]any{"volumeId": v.ID}).fails(400, model.KindBusy, "", gone)
	e.post("/block/attachments", map[string]any{"volumeId": v.ID, "hostId": h.ID}).fails(400, model.KindBusy, "", gone)
	e.post("/block/volumes", with(nil, "sourceVolumeId", v.ID, "size", 2)).fails(400, model.KindBusy, "", gone)
	e.post("/block/volumes/"+v.ID+"/resize", `{"newSize":3}`).fails(400, model.KindBusy, "", gone)
	e.del("/block/volumes/"+v.ID).fails(400, model.KindBusy, "", gone)
	e.post("/block/volumes", with(profile, "groupId", g.ID)).fails(400, model.KindBusy, "", "is deleting")
	e.del(p).fails(400, model.KindBusy, "", "the volume group status is deleting")
	e.settle(pool)
	e.get("/block/volumes/" + v.ID).want(404)
	e.get(p).want(404)
}

func TestVolumeJoinsGroup(t *testing.T) {
	e := newEnv(t)
	pool, profile, other := e.pool(func(p *model.Pool) { p.AvailabilityZone = "west" }), e.profile(), e.profile()
	elsewhere := e.pool()
	g := e.group(pool, profile)
	before, _ := testStore.Groups.Get(g.ID)
	var v wire.VolumeSpec
	e.post("/block/volumes", with(profile, "groupId", g.ID)).want(202).into(&v)
	rec, _ := testStore.Volumes.Get(v.ID)
	if v.GroupID != g.ID || v.AvailabilityZone != "west" || rec.RequestedPoolID != pool.ID {
		t.Errorf("%+v, pool %s", v, rec.RequestedPoolID)
	}
	if now, _ := testStore.Groups.Get(g.ID); now.Rev == before.Rev {
		t.Error("the group was not written again")
	}
	e.post("/block/volumes", with(other, "groupId", g.ID)).fails(400, model.KindInvalid, "profileId", "is not supported by the group")
	e.post("/block/volumes", with(profile, "groupId", g.ID, "poolId", elsewhere.ID)).fails(400, model.KindInvalid, "groupId", "is in pool "+pool.ID)
	e.settle(pool)
	// A clone within the group is a member like any other.
	e.post("/block/volumes", with(profile, "groupId", g.ID, "sourceVolumeId", v.ID)).want(202)
	tx := &db.Txn{Label: "test"}
	for i := range 99 {
		tx.Create(&model.Volume{Meta: model.Meta{ID: model.NewID(), TenantID: e.tenant, Name: fmt.Sprint(i)}, GroupID: g.ID, Status: model.StatusAvailable, Size: model.GiB, PoolID: pool.ID})
	}
	e.commit(tx)
	e.post("/block/volumes", with(profile, "groupId", g.ID)).fails(400, model.KindInvalid, "groupId", "at most 100")
}

package api

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/osds-io/osds/pkg/db"
	"github.com/osds-io/osds/pkg/model"
	"github.com/osds-io/osds/pkg/model/wire"
)

// with gives a volume's body with more fields.
func with(profile *wire.ProfileSpec, kv ...any) map[string]any {
	m := map[string]any{"name": "v", "size": 1}
	if profile != nil {
		m["profileId"] = profile.ID
	}
	for i := 0; i+1 < len(kv); i += 2 {
		if kv[i+1] == nil {
			delete(m, kv[i].(string))
			continue
		}
		m[kv[i].(string)] = kv[i+1]
	}
	return m
}

func TestCreateVolume(t *testing.T) {
	e := newEnv(t)
	profile := e.profile()
	id := model.NewID()
	r := e.post("/block/volumes", with(profile, "id", id, "description", "d <&>", "metadata", map[string]string{"a": "b"}, "multiAttach", true,
		"createdAt", "1999-01-01T00:00:00", "updatedAt", "x", "status", "available", "tenantId", "other", "userId", "u"), wire.HeaderRequestID, "req-1").want(202)
	var v wire.VolumeSpec
	r.into(&v)
	if v.ID != id || v.Status != "creating" || v.TenantID != e.tenant || v.UserID != "" || v.Description != "d <&>" || v.Metadata["a"] != "b" || !v.MultiAttach ||
		v.AvailabilityZone != "default" || v.PoolID != "" || v.UpdatedAt != "" || v.TaskID == "" || strings.HasPrefix(v.CreatedAt, "1999") {
		t.Errorf("created: %s", r.Body)
	}
	if !strings.Contains(r.Body, `d \u003c\u0026\u003e`) || !strings.Contains(r.Body, `"AttachStatus":""`) || strings.HasSuffix(r.Body, "\n") {
		t.Errorf("not the original's form: %s", r.Body)
	}
	if got := e.get("/block/volumes/" + id).want(200); got.Body != r.Body || got.Header.Get("ETag") != r.Header.Get("ETag") {
		t.Errorf("read: %s\nwritten: %s", got.Body, r.Body)
	}
	rec, _ := testStore.Volumes.Get(id)
	k := rec.Task
	if !k.Active() || k.Kind != model.TaskCreate || k.State != model.TaskPending || k.Step != model.StepPlace || k.RequestID != "req-1" || rec.Size != model.GiB {
		t.Errorf("record: %+v, task %+v", rec, k)
	}
	e.post("/block/volumes", with(profile, "id", id)).fails(409, model.KindExists, "id", "exists already")
}

func TestCreateVolumeIsValidated(t *testing.T) {
	e := newEnv(t)
	profile := e.profile()
	filePool := e.pool(func(p *model.Pool) { p.StorageType = "file" })
	otherZone := e.pool(func(p *model.Pool) { p.AvailabilityZone = "west" })
	var file wire.ProfileSpec
	e.post("/profiles", map[string]any{"name": unique("f"), "storageType": "file"}).want(200).into(&file)
	many := map[string]string{}
	for range 65 {
		many[unique("k")] = "v"
	}
	for _, c := range []struct {
		kv      []any
		kind    model.Kind
		field   string
		message string
	}{
		{[]any{"name", nil}, "invalid", "name", "create volume failed: empty volume name is not allowed. Please give valid name"},
		{[]any{"name", strings.Repeat("n", 256)}, "invalid", "name", "at most 255"},
		{[]any{"name", "a/b"}, "invalid", "name", "create volume failed: invalid volume name, it should only contain english char and number  : a/b"},
		{[]any{"size", nil}, "invalid", "size", "create volume failed: invalid volume size: 0"},
		{[]any{"size", -1}, "invalid", "size", "create volume failed: invalid volume size: -1"},
		{[]any{"size", int64(1) << 40}, "invalid", "size", "more than the largest size"},
		{[]any{"description", strings.Repeat("d", 1025)}, "invalid", "description", "at most 1024"},
		{[]any{"description", "a\u0000b"}, "invalid", "description", "control character"},
		{[]any{"availabilityZone", strings.Repeat("z", 256)}, "invalid", "availabilityZone", "at most 255"},
		{[]any{"metadata", many}, "invalid", "metadata", "at most 64"},
		{[]any{"profileId", "nope"}, "invalid", "profileId", "get profile failed: Wrong resource uuid provided!"},
		{[]any{"profileId", file.ID}, "invalid", "profileId", "is for file storage"},
		{[]any{"poolId", "nope"}, "invalid", "poolId", "specified pool(nope) can't find"},
		{[]any{"poolId", filePool.ID}, "invalid", "poolId", "is for file storage"},
		{[]any{"poolId", otherZone.ID, "availabilityZone", "default"}, "invalid", "availabilityZone", `is in availability zone "west"`},
		{[]any{"snapshotId", "nope"}, "invalid", "snapshotId", "create volume failed: specified volume snapshot(nope) can't find"},
		{[]any{"sourceVolumeId", "nope"}, "invalid", "sourceVolumeId", "create volume failed: specified volume(nope) can't find"},
		{[]any{"snapshotId", "a", "sourceVolumeId", "b"}, "invalid", "sourceVolumeId", "use one of them"},
		{[]any{"groupId", "nope"}, "invalid", "groupId", "specified volume group(nope) can't find"},
		{[]any{"snapshotFromCloud", true}, "unsupported", "snapshotFromCloud", "cloud"},
		{[]any{"replicationId", "r"}, "unsupported", "replicationId", "cannot be given"},
		{[]any{"id", "nope"}, "invalid", "id", "is not a UUID"},
		{[]any{"id", strings.ToUpper(model.NewID())}, "invalid", "id", "lower case"},
		{[]any{"id", "../../x"}, "invalid", "id", "is not a UUID"},
	} {
		e.post("/block/volumes", with(profile, c.kv...)).fails(400, c.kind, c.field, c.message)
	}
	if r := e.get("/block/volumes").want(200); r.Body != "[]" {
		t.Errorf("something was written: %s", r.Body)
	}
	var v wire.VolumeSpec
	e.post("/block/volumes", with(profile, "poolId", otherZone.ID)).want(202).into(&v)
	if v.AvailabilityZone != "west" {
		t.Errorf("the zone is %q, not that of the pool", v.AvailabilityZone)
	}
	if rec, _ := testStore.Volumes.Get(v.ID); rec.RequestedPoolID != otherZone.ID || rec.PoolID != "" {
		t.Errorf("pool %q, requested %q", rec.PoolID, rec.RequestedPoolID)
	}
}

func TestMultiAttachByProfile(t *testing.T) {
	e := newEnv(t)
	for value, want := range map[any]bool{"<is> true": true, "<is>  True": true, true: true, "true": false, "<is> false": false, "<in> true": false} {
		p := e.profile(map[string]any{"capabilities:multiAttach": value})
		var v wire.VolumeSpec
		e.post("/block/volumes", with(p)).want(202).into(&v)
		if v.MultiAttach != want {
			t.Errorf("%v: multiAttach %v", value, v.MultiAttach)
		}
	}
}

type planner struct {
	got  *model.Volume
	max  int
	fail error
}

func (p *planner) Explain(_ context.Context, v *model.Volume, max int) (*model.Explanation, error) {
	p.got, p.max = v, max
	return &model.Explanation{SizeGB: v.Size.GBCeil(), Reason: "because", Pools: []model.PoolVerdict{}}, p.fail
}

func TestDryRun(t *testing.T) {
	pl := &planner{}
	e := newEnv(t, func(d *Deps) { d.Planner = pl })
	profile := e.profile()
	var x wire.ExplanationSpec
	e.post("/block/volumes?dryRun=explain", with(profile, "size", 7)).want(200).into(&x)
	if x.Reason != "because" || x.SizeGB != 7 || pl.got.ProfileID != profile.ID || pl.got.AvailabilityZone != "default" || pl.got.Status != model.StatusCreating || pl.max != defaultMaxPools {
		t.Errorf("explanation %+v of %+v, at most %d pools", x, pl.got, pl.max)
	}
	e.post("/block/volumes?dryRun=explain&maxPools=3", with(profile)).want(200)
	if pl.max != 3 {
		t.Errorf("maxPools %d", pl.max)
	}
	e.post("/block/volumes?dryRun=explain", with(profile, "size", 0)).fails(400, model.KindInvalid, "size", "invalid volume size")
	e.post("/block/volumes?dryRun=yes", with(profile)).fails(400, model.KindInvalid, "dryRun", "use explain")
	e.post("/block/volumes?dryRun=explain&maxPools=x", with(profile)).fails(400, model.KindInvalid, "maxPools", "is not a number")
	pl.fail = errors.New("no")
	e.post("/block/volumes?dryRun=explain", with(profile)).fails(500, model.KindInternal, "", "no")
	if r := e.get("/block/volumes").want(200); r.Body != "[]" {
		t.Errorf("something was written: %s", r.Body)
	}
	newEnv(t).post("/block/volumes?dryRun=explain", with(profile)).fails(503, model.KindUnavailable, "", "cannot plan")
}

func TestExplanation(t *testing.T) {
	e := newEnv(t)
	v := e.volume(e.pool(), e.profile())
	e.get("/block/volumes/"+v.ID+"/explanation").fails(404, model.KindNotFound, "", "has no explanation")
	b, _ := json.Marshal(model.Explanation{Reason: "it fits", Pools: []model.PoolVerdict{}})
	e.commit((&db.Txn{Label: "test"}).PutRaw(db.ExplanationKey(v.ID), b, 0))
	if r := e.get("/block/volumes/" + v.ID + "/explanation").want(200); r.Body != string(b) {
		t.Errorf("%s, want %s", r.Body, b)
	}
	e.get("/block/volumes/nope/explanation").want(404)
}

func TestUpdateVolume(t *testing.T) {
	e := newEnv(t)
	v := e.volume(e.pool(), e.profile(), map[string]any{"description": "d", "metadata": map[string]string{"a": "1", "b": "2"}})
	p := "/block/volumes/" + v.ID
	var got wire.VolumeSpec
	e.put(p, `{"name":"n","description":"","metadata":{"a":"9","b":null,"c":"3"}}`).want(200).into(&got)
	if got.Name != "n" || got.Description != "" || len(got.Metadata) != 3 || got.Metadata["a"] != "9" || got.Metadata["c"] != "3" || got.Metadata["lvPath"] == "" || got.UpdatedAt == "" {
		t.Errorf("%+v", got)
	}
	// What was read may be sent back as a whole.
	r := e.get(p).want(200)
	same := e.put(p, r.Body).want(200).into(&got)
	if got.Metadata["lvPath"] == "" || got.Name != "n" {
		t.Errorf("%s", same.Body)
	}
	if rec, _ := testStore.Volumes.Get(v.ID); len(rec.Metadata) != 2 {
		t.Errorf("the driver's metadata became the client's: %v", rec.Metadata)
	}
	e.put(p, `{"size":1,"status":"available","poolId":"`+got.PoolID+`","groupId":"","multiAttach":false,"replicationDriverData":{},"identifier":null,"updatedAt":"x"}`).want(200)
	for _, c := range []struct{ body, field string }{
		{`{"size":2}`, "size"}, {`{"Status":"error"}`, "status"}, {`{"poolId":"x"}`, "poolId"}, {`{"poolId":""}`, "poolId"}, {`{"profileId":"x"}`, "profileId"},
		{`{"groupId":"x"}`, "groupId"}, {`{"availabilityZone":"x"}`, "availabilityZone"}, {`{"multiAttach":true}`, "multiAttach"},
		{`{"tenantId":"x"}`, "tenantId"}, {`{"id":"x"}`, "id"}, {`{"identifier":{"durableName":"x"}}`, "identifier"},
		{`{"replicationDriverData":{"a":"b"}}`, "replicationDriverData"}, {`{"snapshotId":"x"}`, "snapshotId"},
	} {
		e.put(p, c.body).fails(400, model.KindInvalid, c.field, "cannot be changed")
	}
	e.put(p, `{"name":""}`).fails(400, model.KindInvalid, "name", "empty volume name")
	e.put(p, `{"name":5}`).fails(400, model.KindInvalid, "name", "must be a string")
	e.put(p, `{"metadata":{"lvPath":"/dev/sda"}}`).fails(400, model.KindInvalid, "metadata.lvPath", "kept by the storage driver")
	e.put(p, `{"metadata":{"k":7}}`).fails(400, model.KindInvalid, "metadata", "must be a string")
	e.put(p, `{"name":"a","NAME":"b"}`).fails(400, model.KindInvalid, "name", "given twice")
	e.put(p, ``).fails(400, model.KindInvalid, "", "EOF")
	e.put("/block/volumes/nope", `{"name":"x"}`).fails(404, model.KindNotFound, "", "volume nope not found")
}

func TestResizeVolume(t *testing.T) {
	e := newEnv(t)
	profile := e.profile()
	can := e.pool()
	offline := e.pool(func(p *model.Pool) { p.Abilities = []string{model.AbilityExpand} })
	cannot := e.pool(func(p *model.Pool) { p.Abilities = nil })
	v := e.volume(can, profile)
	p := "/block/volumes/" + v.ID + "/resize"
	e.post(p, `{"newSize":1}`).fails(400, model.KindInvalid, "newSize", "extend volume failed: new size for extend must be greater than current size.(current: 1 GB, extended: 1 GB).")
	e.post(p, `{}`).fails(400, model.KindInvalid, "newSize", "extended: 0 GB")
	e.post(p, `{"newSize":9999999999}`).fails(400, model.KindInvalid, "newSize", "more than the largest size")
	e.post(p, ``).want(400)
	e.post("/block/volumes/nope/resize", `{"newSize":2}`).want(404)
	var got wire.VolumeSpec
	r := e.post(p, `{"newSize":3}`).want(202).into(&got)
	if got.Size != 1 || got.Status != model.StatusExtending {
		t.Errorf("accepted: %s", r.Body)
	}
	rec, _ := testStore.Volumes.Get(v.ID)
	if k := rec.Task; k.Kind != model.TaskExtend || k.NewSize != 3*model.GiB || k.PrevStatus != model.StatusAvailable || k.Step != model.StepReserve {
		t.Errorf("task %+v", k)
	}
	e.post(p, `{"newSize":4}`).fails(400, model.KindBusy, "", "extend volume failed: the status of the volume to be extended must be available!")
	e.settle(can)
	e.setVolume(v.ID, func(v *model.Volume) { v.Status = model.StatusInUse })
	e.post(p, `{"newSize":4}`).want(202)
	if rec, _ := testStore.Volumes.Get(v.ID); rec.Task.PrevStatus != model.StatusInUse {
		t.Errorf("task %+v", rec.Task)
	}
	w := e.volume(offline, profile)
	e.setVolume(w.ID, func(v *model.Volume) { v.Status = model.StatusInUse })
	e.post("/block/volumes/"+w.ID+"/resize", `{"newSize":4}`).fails(400, model.KindUnsupported, "", "cannot grow volumes in use")
	e.setVolume(w.ID, func(v *model.Volume) { v.Status, v.StatusReason = model.StatusErrorExtending, "why" })
	e.post("/block/volumes/"+w.ID+"/resize", `{"newSize":4}`).want(202).into(&got)
	if got.StatusReason != "" {
		t.Errorf("the old reason stays: %+v", got)
	}
	x := e.volume(cannot, profile)
	e.post("/block/volumes/"+x.ID+"/resize", `{"newSize":4}`).fails(400, model.KindUnsupported, "", "cannot grow volumes")
}

func TestDeleteVolume(t *testing.T) {
	e := newEnv(t)
	pool, profile := e.pool(), e.profile()
	const only = "delete volume failed: only the volume with the status available, error, error_deleting, error_extending can be deleted, the volume status is "
	var v wire.VolumeSpec
	e.post("/block/volumes", with(profile)).want(202).into(&v)
	e.del("/block/volumes/"+v.ID).fails(400, model.KindBusy, "", only+"creating; task "+v.TaskID)
	if r := e.del("/block/volumes/" + v.ID); !strings.Contains(r.Body, "osdsctl task cancel "+v.TaskID) {
		t.Errorf("does not say what to do: %s", r.Body)
	}
	e.settle(pool)
	for _, st := range []model.Status{model.StatusInUse, model.StatusAttaching, model.StatusExtending, model.StatusReverting, model.StatusDeleting} {
		e.setVolume(v.ID, func(v *model.Volume) { v.Status = st })
		e.del("/block/volumes/"+v.ID).fails(400, model.KindBusy, "", only+string(st))
	}
	for _, st := range []model.Status{model.StatusAvailable, model.StatusError, model.StatusErrorDeleting, model.StatusErrorExtending, model.StatusErrorReverting} {
		w := e.volume(pool, profile)
		e.setVolume(w.ID, func(v *model.Volume) { v.Status = st })
		if r := e.del("/block/volumes/" + w.ID).want(202); r.Body != "" {
			t.Errorf("body %q", r.Body)
		}
		rec, _ := testStore.Volumes.Get(w.ID)
		if rec.Status != model.StatusDeleting || rec.Task.Kind != model.TaskDelete || rec.Task.PrevStatus != st || rec.PoolID != pool.ID {
			t.Errorf("%s: %+v %+v", st, rec, rec.Task)
		}
	}
	repl := e.volume(pool, profile)
	e.setVolume(repl.ID, func(v *model.Volume) { v.ReplicationID = "r1" })
	e.del("/block/volumes/"+repl.ID).fails(400, model.KindBusy, "", "part of replication r1")
	att := e.volume(pool, profile)
	e.attachment(att, e.host())
	e.setVolume(att.ID, func(v *model.Volume) { v.Status = model.StatusAvailable }) // even if the status lied
	e.del("/block/volumes/"+att.ID).fails(400, model.KindBusy, "", "can not be deleted, because it's in use")
	e.del("/block/volumes/nope").want(404)
}

func TestClones(t *testing.T) {
	e := newEnv(t)
	pool, profile, other := e.pool(func(p *model.Pool) { p.AvailabilityZone = "west" }), e.profile(), e.profile()
	elsewhere := e.pool()
	v := e.volume(pool, profile, map[string]any{"size": 3, "poolId": pool.ID})
	x := e.snapshot(v)
	snapRev, _ := testStore.Snapshots.Get(x.ID)
	// The profile, the pool and the zone are the source's unless given.
	var c wire.VolumeSpec
	e.post("/block/volumes", with(nil, "size", 5, "snapshotId", x.ID)).want(202).into(&c)
	rec, _ := testStore.Volumes.Get(c.ID)
	if c.ProfileID != profile.ID || c.SnapshotID != x.ID || c.AvailabilityZone != "west" || rec.RequestedPoolID != pool.ID || c.Size != 5 {
		t.Errorf("clone: %+v, pool %s", c, rec.RequestedPoolID)
	}
	if now, _ := testStore.Snapshots.Get(x.ID); now.Rev == snapRev.Rev {
		t.Error("the snapshot was not written again")
	}
	e.del("/block/snapshots/"+x.ID).fails(400, model.KindBusy, "", "is being made from it")
	e.post("/block/volumes", with(nil, "size", 2, "snapshotId", x.ID)).
		fails(400, model.KindInvalid, "size", "create volume failed: size of volume must be equal to or bigger than size of the snapshot")
	e.post("/block/volumes", with(nil, "size", nil, "snapshotId", x.ID)).fails(400, model.KindInvalid, "size", "invalid volume size: 0")
	e.post("/block/volumes", with(nil, "size", 5, "snapshotId", x.ID, "poolId", elsewhere.ID)).fails(400, model.KindInvalid, "poolId", "where its source is")
	e.post("/block/volumes", with(other, "size", 5, "snapshotId", x.ID, "poolId", pool.ID, "availabilityZone", "west")).want(202).into(&c)
	if c.ProfileID != other.ID {
		t.Errorf("clone: %+v", c)
	}
	// A clone of a volume needs no size.
	volRev, _ := testStore.Volumes.Get(v.ID)
	e.post("/block/volumes", with(nil, "size", nil, "sourceVolumeId", v.ID)).want(202).into(&c)
	if c.Size != 3 || c.SourceVolumeID != v.ID || c.ProfileID != profile.ID {
		t.Errorf("clone: %+v", c)
	}
	if now, _ := testStore.Volumes.Get(v.ID); now.Rev == volRev.Rev || now.Status != model.StatusAvailable {
		t.Error("the source was not written again")
	}
	e.post("/block/volumes", with(nil, "size", 2, "sourceVolumeId", v.ID)).fails(400, model.KindInvalid, "size", "size of the source volume (3 GB)")
	e.settle(pool)
	e.del("/block/snapshots/" + x.ID).want(202)
	e.post("/block/volumes", with(nil, "size", 5, "snapshotId", x.ID)).fails(400, model.KindBusy, "", "it must be available")
	e.settle(pool)
	e.post("/block/volumes", with(nil, "sourceVolumeId", v.ID, "size", 4)).want(202).into(&c)
	e.del("/block/volumes/"+v.ID).fails(400, model.KindBusy, "", "because volume "+c.ID+" is being made from it")
	e.settle(pool)
	e.del("/block/volumes/" + v.ID).want(202)
	e.post("/block/volumes", with(nil, "sourceVolumeId", v.ID)).fails(400, model.KindBusy, "", "it must be available or inUse")
	plain := e.pool(func(p *model.Pool) { p.Abilities = []string{model.AbilitySnapshot} })
	e.post("/block/volumes", with(nil, "sourceVolumeId", e.volume(plain, profile).ID)).fails(400, model.KindUnsupported, "sourceVolumeId", "cannot make volumes from")
}

func TestSnapshots(t *testing.T) {
	e := newEnv(t)
	pool, profile, other := e.pool(), e.profile(), e.profile()
	v := e.volume(pool, profile, map[string]any{"metadata": map[string]string{"a": "1", "b": "2"}})
	before, _ := testStore.Volumes.Get(v.ID)
	var x wire.VolumeSnapshotSpec
	r := e.post("/block/snapshots", map[string]any{"name": "s", "description": "d", "volumeId": v.ID, "metadata": map[string]string{"b": "3"}}).want(202).into(&x)
	if x.Status != "creating" || x.Size != 0 || strings.Contains(r.Body, `"size"`) || x.PoolID != pool.ID || x.ProfileID != profile.ID || x.Metadata["a"] != "1" || x.Metadata["b"] != "3" || x.TaskID == "" {
		t.Errorf("created: %s", r.Body)
	}
	rec, _ := testStore.Snapshots.Get(x.ID)
	if rec.Size != model.GiB || rec.Task.Kind != model.TaskCreate || rec.Task.Step != model.StepReserve {
		t.Errorf("record: %+v %+v", rec, rec.Task)
	}
	if now, _ := testStore.Volumes.Get(v.ID); now.Rev == before.Rev || now.UpdatedAt != before.UpdatedAt {
		t.Errorf("the volume was not written again, or not as it was")
	}
	const only = "delete volume snapshot failed: only the volume snapshot with the status available, error, errorDeleting can be deleted, the volume snapshot status is "
	e.del("/block/snapshots/"+x.ID).fails(400, model.KindBusy, "", only+"creating; task "+x.TaskID)
	e.settle(pool)
	x = wire.VolumeSnapshotSpec{}
	e.post("/block/snapshots", map[string]any{"volumeId": v.ID, "profileId": other.ID}).want(202).into(&x)
	if x.ProfileID != other.ID || x.Name != "" {
		t.Errorf("%+v", x)
	}
	e.del("/profiles/"+other.ID).fails(400, model.KindBusy, "", "There are dependent snapshots : ["+x.ID+"] for the specified profile "+other.ID)
	e.settle(pool)
	for _, c := range []struct {
		body    map[string]any
		kind    model.Kind
		field   string
		message string
	}{
		{map[string]any{}, "invalid", "volumeId", "volumeId is missing"},
		{map[string]any{"volumeId": "nope"}, "invalid", "volumeId", "create volume snapshot failed: specified volume(nope) can't find"},
		{map[string]any{"volumeId": v.ID, "name": strings.Repeat("n", 256)}, "invalid", "name", "at most 255"},
		{map[string]any{"volumeId": v.ID, "profileId": "nope"}, "invalid", "profileId", "Wrong resource uuid provided!"},
		{map[string]any{"volumeId": v.ID, "metadata": map[string]string{"": "x"}}, "invalid", "metadata", "empty key"},
		{map[string]any{"volumeId": v.ID, "id": "x"}, "invalid", "id", "not a UUID"},
	} {
		e.post("/block/snapshots", c.body).fails(400, c.kind, c.field, c.message)
	}
	p := "/block/snapshots/" + x.ID
	e.put(p, `{"name":"n","description":"dd"}`).want(200).into(&x)
	if x.Name != "n" || x.Description != "dd" || x.Status != "available" || x.Size != 1 || x.Metadata["lvsPath"] == "" {
		t.Errorf("%+v", x)
	}
	e.put(p, e.get(p).Body).want(200)
	e.put(p, `{"metadata":{"x":"y"}}`).fails(400, model.KindInvalid, "metadata", "cannot be changed")
	e.put(p, `{"volumeId":"y"}`).fails(400, model.KindInvalid, "volumeId", "cannot be changed")
	e.put("/block/snapshots/nope", `{"name":"n"}`).fails(404, model.KindNotFound, "", "volume snapshot nope not found")
	for _, st := range []model.Status{model.StatusCreating, model.StatusDeleting, model.StatusError, model.StatusExtending} {
		e.setVolume(v.ID, func(v *model.Volume) { v.Status = st })
		e.post("/block/snapshots", map[string]any{"volumeId": v.ID}).fails(400, model.KindBusy, "", "volume "+v.ID+" is "+string(st))
	}
	e.setVolume(v.ID, func(v *model.Volume) { v.Status = model.StatusInUse })
	e.post("/block/snapshots", map[string]any{"volumeId": v.ID}).want(202)
	plain := e.volume(e.pool(func(p *model.Pool) { p.Abilities = nil }), profile)
	e.post("/block/snapshots", map[string]any{"volumeId": plain.ID}).fails(400, model.KindUnsupported, "volumeId", "cannot make snapshots")
	e.del(p).want(202)
	e.del(p).fails(400, model.KindBusy, "", only+"deleting")
}

func TestRevert(t *testing.T) {
	e := newEnv(t)
	pool, profile := e.pool(), e.profile()
	v := e.volume(pool, profile)
	x, y := e.snapshot(v), e.snapshot(v)
	p := "/block/snapshots/" + x.ID + "/revert"
	e.post(p, `{"volumeId":"other"}`).fails(400, model.KindInvalid, "volumeId", "is of volume "+v.ID)
	e.setVolume(v.ID, func(v *model.Volume) { v.Status = model.StatusInUse })
	e.post(p, nil).fails(400, model.KindBusy, "", "revert volume failed: only a volume that is available")
	e.setVolume(v.ID, func(v *model.Volume) { v.Status = model.StatusAvailable })
	var got wire.VolumeSpec
	e.post(p, `{"volumeId":"`+v.ID+`"}`).want(202).into(&got)
	if got.ID != v.ID || got.Status != model.StatusReverting {
		t.Errorf("%+v", got)
	}
	rec, _ := testStore.Volumes.Get(v.ID)
	if k := rec.Task; k.Kind != model.TaskRevert || k.SnapshotID != x.ID || k.PrevStatus != model.StatusAvailable || k.Step != model.StepApply {
		t.Errorf("task %+v", k)
	}
	e.del("/block/snapshots/"+x.ID).fails(400, model.KindBusy, "", "is being reverted to it")
	e.post("/block/snapshots/"+y.ID+"/revert", nil).fails(400, model.KindBusy, "", "is reverting")
	e.settle(pool)
	e.post(p, nil).want(202)
	e.post("/block/snapshots/nope/revert", nil).want(404)
	e.post(p, `[]`).want(400)
	w := e.volume(e.pool(func(p *model.Pool) { p.Abilities = []string{model.AbilitySnapshot} }), profile)
	e.post("/block/snapshots/"+e.snapshot(w).ID+"/revert", nil).fails(400, model.KindUnsupported, "", "cannot revert volumes")
}

func TestReadYourWritesAfterManyChanges(t *testing.T) {
	e := newEnv(t)
	v := e.volume(e.pool(), e.profile())
	for range 50 {
		n := unique("n")
		e.put("/block/volumes/"+v.ID, map[string]string{"name": n}).want(200)
		var got wire.VolumeSpec
		if e.get("/block/volumes/" + v.ID).into(&got); got.Name != n {
			t.Fatalf("read %q, wrote %q", got.Name, n)
		}
	}
}

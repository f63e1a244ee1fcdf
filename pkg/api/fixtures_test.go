package api

import (
	"context"
	"testing"
	"time"

	"github.com/osds-io/osds/pkg/db"
	"github.com/osds-io/osds/pkg/model"
	"github.com/osds-io/osds/pkg/model/wire"
)

var allAbilities = []string{model.AbilityExpand, model.AbilityExpandLive, model.AbilitySnapshot, model.AbilityClone, model.AbilityRevert, model.AbilityExport}

// ownStore opens a store for a test that needs an empty system.
func ownStore(t testing.TB) *db.Store {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	s, err := db.Open(ctx, db.Config{Embedded: db.Embedded{Dir: t.TempDir()}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

// pool registers a pool as a dock would; change may change it first.
func (e *env) pool(change ...func(*model.Pool)) *model.Pool {
	e.t.Helper()
	p := &model.Pool{
		Meta:   model.Meta{ID: model.NewID(), Name: unique("pool"), CreatedAt: time.Now().UTC()},
		DockID: model.NewID(), Backend: "b", Status: model.StatusAvailable, AvailabilityZone: "default", StorageType: "block",
		Total: 100 * model.GiB, Free: 90 * model.GiB, OverProvisioning: 1, Driver: "sample", Abilities: allAbilities,
	}
	for _, f := range change {
		f(p)
	}
	e.commit((&db.Txn{Label: "test"}).Create(p))
	return p
}

// profile makes a block profile.
func (e *env) profile(custom ...map[string]any) *wire.ProfileSpec {
	e.t.Helper()
	body := map[string]any{"name": unique("profile"), "storageType": "block"}
	if len(custom) > 0 {
		body["customProperties"] = custom[0]
	}
	var p wire.ProfileSpec
	e.post("/profiles", body).want(200).into(&p)
	return &p
}

// create makes a record that is accepted, and gives it as it is when its work is
// done.
func create[T any, P interface {
	*T
	wire.Spec
}](e *env, path string, pool *model.Pool, body any) P {
	e.t.Helper()
	v := P(new(T))
	e.post(path, body).want(202).into(v)
	e.settle(pool)
	id := v.Common().ID
	v = P(new(T))
	e.get(path + "/" + id).want(200).into(v)
	return v
}

// volume makes a volume of 1 GB and waits until it is available.
func (e *env) volume(pool *model.Pool, profile *wire.ProfileSpec, more ...map[string]any) *wire.VolumeSpec {
	e.t.Helper()
	body := map[string]any{"name": "v", "size": 1, "profileId": profile.ID}
	for _, m := range more {
		for k, v := range m {
			body[k] = v
		}
	}
	return create[wire.VolumeSpec](e, "/block/volumes", pool, body)
}

func (e *env) snapshot(v *wire.VolumeSpec) *wire.VolumeSnapshotSpec {
	e.t.Helper()
	return create[wire.VolumeSnapshotSpec](e, "/block/snapshots", nil, map[string]any{"name": "s", "volumeId": v.ID})
}

func (e *env) host() *wire.HostSpec {
	e.t.Helper()
	var h wire.HostSpec
	e.post("/host/hosts", map[string]any{"hostName": unique("host"), "availabilityZones": []string{"default"}}).want(200).into(&h)
	return &h
}

func (e *env) attachment(v *wire.VolumeSpec, h *wire.HostSpec) *wire.VolumeAttachmentSpec {
	e.t.Helper()
	return create[wire.VolumeAttachmentSpec](e, "/block/attachments", nil, map[string]any{"volumeId": v.ID, "hostId": h.ID})
}

// setVolume changes a volume in the store.
func (e *env) setVolume(id string, f func(*model.Volume)) {
	e.t.Helper()
	v, ok := e.store.Volumes.Get(id)
	if !ok {
		e.t.Fatalf("no volume %s", id)
	}
	v = v.Clone()
	f(v)
	e.commit((&db.Txn{Label: "test"}).Update(v))
}

// settle does the work of all tasks of the tenant, in place of the controllers:
// everything succeeds, but volumes larger than the pool.
func (e *env) settle(pool *model.Pool) {
	e.t.Helper()
	mine := func(r model.Record) bool { return r.Base().TenantID == e.tenant }
	for _, v := range e.store.Volumes.All() {
		if mine(v) && v.Task.Active() {
			e.settleVolume(v.Clone(), pool)
		}
	}
	for _, x := range e.store.Snapshots.All() {
		if mine(x) && x.Task.Active() {
			e.settleSnapshot(x.Clone())
		}
	}
	for _, a := range e.store.Attachments.All() {
		if mine(a) && a.Task.Active() {
			e.settleAttachment(a.Clone())
		}
	}
	for _, g := range e.store.Groups.All() {
		if mine(g) && g.Task.Active() {
			e.settleGroup(g.Clone(), pool)
		}
	}
}

func ended(t *model.Task) { t.State, t.EndedAt = model.TaskSucceeded, time.Now().UTC() }

func (e *env) settleVolume(v *model.Volume, pool *model.Pool) {
	e.t.Helper()
	t := &db.Txn{Label: "test"}
	v.UpdatedAt = time.Now().UTC()
	switch v.Task.Kind {
	case model.TaskCreate:
		if v.RequestedPoolID != "" {
			pool, _ = e.store.Pools.Get(v.RequestedPoolID)
		}
		v.Status, v.PoolID = model.StatusAvailable, pool.ID
		v.BackendData = map[string]string{"lvPath": "/dev/vg/volume-" + v.ID}
		v.DurableName, v.DurableFormat = "6"+v.ID, "NAA"
		if v.Size > pool.Total {
			v.Status, v.PoolID, v.BackendData, v.DurableName = model.StatusError, "", nil, ""
		}
	case model.TaskExtend:
		v.Status = v.Task.PrevStatus
		if p, ok := e.store.Pools.Get(v.PoolID); ok && v.Task.NewSize <= p.Total {
			v.Size = v.Task.NewSize
		}
	case model.TaskRevert:
		v.Status = model.StatusAvailable
	case model.TaskDelete:
		e.commit(t.Remove(v))
		return
	}
	ended(v.Task)
	e.commit(t.Update(v))
}

func (e *env) settleSnapshot(x *model.Snapshot) {
	e.t.Helper()
	t := &db.Txn{Label: "test"}
	if x.Task.Kind == model.TaskDelete {
		e.commit(t.Remove(x))
		return
	}
	x.Status, x.UpdatedAt = model.StatusAvailable, time.Now().UTC()
	x.BackendData = map[string]string{"lvsPath": "/dev/vg/_snapshot-" + x.ID}
	ended(x.Task)
	e.commit(t.Update(x))
}

func (e *env) settleAttachment(a *model.Attachment) {
	e.t.Helper()
	t := &db.Txn{Label: "test"}
	now := time.Now().UTC()
	v, ok := e.store.Volumes.Get(a.VolumeID)
	if !ok {
		e.t.Fatalf("attachment %s has no volume", a.ID)
	}
	v = v.Clone()
	v.UpdatedAt = now
	if a.Task.Kind == model.TaskDelete {
		if e.store.Attachments.Count("volumeId", v.ID) == 1 {
			v.Status = model.StatusAvailable
		}
		e.commit(t.Remove(a).Update(v))
		return
	}
	v.Status = model.StatusInUse
	a.Status, a.UpdatedAt = model.StatusAvailable, now
	a.Connection = &model.Connection{Type: "iscsi", Data: map[string]any{"targetDiscovered": true, "targetIqn": "iqn.2017-10.io:volume:1",
		"targetPortal": "127.0.0.1:3260", "discard": false}}
	ended(a.Task)
	e.commit(t.Update(a).Update(v))
}

func (e *env) settleGroup(g *model.Group, pool *model.Pool) {
	e.t.Helper()
	t := &db.Txn{Label: "test"}
	if g.Task.Kind == model.TaskDelete {
		for _, v := range e.store.Volumes.Where("groupId", g.ID, 0) {
			t.Remove(v)
		}
		e.commit(t.Remove(g))
		return
	}
	set := func(ids []string, group string) {
		for _, id := range ids {
			v, _ := e.store.Volumes.Get(id)
			v = v.Clone()
			v.GroupID = group
			t.Update(v)
		}
	}
	if g.Task.Kind == model.TaskCreate {
		g.PoolID = pool.ID
	}
	set(g.AddVolumes, g.ID)
	set(g.RemoveVolumes, "")
	g.Status, g.AddVolumes, g.RemoveVolumes = model.StatusAvailable, nil, nil
	ended(g.Task)
	e.commit(t.Update(g))
}

package controller

import (
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/osds-io/osds/pkg/db"
	"github.com/osds-io/osds/pkg/model"
)

// importVolume asks for an import as the API does.
func (r *rig) importVolume(name string) *model.Volume {
	now := time.Now().UTC()
	v := &model.Volume{Meta: model.Meta{ID: model.NewID(), TenantID: "t", Name: "v", CreatedAt: now}, Existing: name, RequestedPoolID: "p0",
		AvailabilityZone: "default", Status: model.StatusCreating, ProfileID: "prof", Task: model.NewTask(model.ResVolume, model.TaskCreate, "", "req", now)}
	r.commit((&db.Txn{Label: "api"}).Create(v))
	return v
}

func (r *rig) others(name string) model.Bytes {
	r.dock.mu.Lock()
	defer r.dock.mu.Unlock()
	return r.dock.others[name]
}

func (r *rig) setOthers(name string, n model.Bytes) {
	r.dock.mu.Lock()
	defer r.dock.mu.Unlock()
	r.dock.others[name] = n
}

// An imported volume is accounted with the size that it has, can be given back,
// and is deleted like any other.
func TestImport(t *testing.T) {
	r := newRig(t, 100*model.GiB)
	const size = 7*model.GiB + 4096
	r.setOthers("vg/old", size)
	v := r.importVolume("vg/old")
	r.quiet()
	x, _ := r.s.Volumes.Get(v.ID)
	if x.Status != model.StatusAvailable || x.Size != size || x.Reserved != size || x.PoolID != "p0" || r.others("vg/old") != 0 {
		t.Fatalf("%s %q, %s, %s reserved", x.Status, x.StatusReason, x.Size, x.Reserved)
	}
	r.healthy()
	r.request(v.ID, model.TaskDelete, func(c *model.Volume) { c.Status, c.Task.Release = model.StatusDeleting, true })
	r.quiet()
	if _, ok := r.s.Volumes.Get(v.ID); ok || r.others("vg/old") != size {
		t.Errorf("given back: %s, record there: %t", r.others("vg/old"), ok)
	}
	v = r.importVolume("vg/old")
	r.quiet()
	r.request(v.ID, model.TaskDelete, func(c *model.Volume) { c.Status = model.StatusDeleting })
	r.quiet()
	if _, ok := r.s.Volumes.Get(v.ID); ok || r.others("vg/old") != 0 {
		t.Errorf("deleted: %s, record there: %t", r.others("vg/old"), ok)
	}
	r.healthy()
}

// What cannot be imported is refused with the reason, and what is larger than the
// pool may hold is not touched.
func TestImportRefused(t *testing.T) {
	r := newRig(t, 100*model.GiB)
	r.setOthers("busy", model.GiB)
	full := r.volume(100)
	r.quiet()
	if x, _ := r.s.Volumes.Get(full.ID); x.Status != model.StatusAvailable {
		t.Fatal(x.StatusReason)
	}
	// A pool whose total does not grow with what is imported.
	r.setOthers("one", model.GiB)
	for name, want := range map[string]string{"absent": "no volume", "busy": "in use"} {
		v := r.importVolume(name)
		r.quiet()
		if x, _ := r.s.Volumes.Get(v.ID); x.Status != model.StatusError || !strings.Contains(x.StatusReason, want) || x.Reserved != 0 || x.PoolID != "" {
			t.Errorf("%s: %s %q, %s reserved", name, x.Status, x.StatusReason, x.Reserved)
		}
	}
	// It fits although the pool is full: its space was not the pool's.
	v := r.importVolume("one")
	r.quiet()
	if x, _ := r.s.Volumes.Get(v.ID); x.Status != model.StatusAvailable {
		t.Errorf("%s %q", x.Status, x.StatusReason)
	}
	r.until(func() bool { p, _ := r.s.Pools.Get("p0"); return p.Total == 101*model.GiB }, "the pool has grown")
	r.healthy()
}

// An import that is given up, cancelled, or whose dock is lost in the middle, is
// given back: at no time is the volume deleted.
func TestImportIsNeverDeleted(t *testing.T) {
	r := newRig(t, 100*model.GiB)
	r.setOthers("old", 5*model.GiB)
	var deleted, stuck atomic.Bool
	hook := func(op, id string) error {
		if op == "DeleteVolume" {
			deleted.Store(true)
		}
		if op == "ReleaseVolume" && stuck.Load() {
			return model.Errorf(model.KindUnavailable, "connection refused")
		}
		return nil
	}
	r.dock.hook.Store(&hook)
	r.quick(1500 * time.Millisecond)
	r.dock.trouble.Store(1000) // each call is refused, or done and its answer lost
	v := r.importVolume("old")
	r.until(func() bool { x, _ := r.s.Volumes.Get(v.ID); return x.Task.Step == model.StepUndo }, "the import is given up")
	r.dock.trouble.Store(0)
	r.quiet()
	x, _ := r.s.Volumes.Get(v.ID)
	if x.Status != model.StatusError || r.others("old") != 5*model.GiB || deleted.Load() {
		t.Errorf("%s %q, others have %s, deleted %t", x.Status, x.StatusReason, r.others("old"), deleted.Load())
	}
	r.healthy()

	// The dock is gone for long: the debt gives back, too.
	r.dock.trouble.Store(1000)
	v = r.importVolume("old")
	r.until(func() bool { x, _ := r.s.Volumes.Get(v.ID); return x.Task.Step == model.StepUndo }, "the import is given up")
	stuck.Store(true)
	r.dock.trouble.Store(0)
	r.until(func() bool { return r.s.Debts.Len() == 1 }, "it is owed")
	stuck.Store(false)
	r.quiet()
	if r.s.Debts.Len() != 0 || r.others("old") != 5*model.GiB || deleted.Load() {
		t.Errorf("%d debts, others have %s, deleted %t", r.s.Debts.Len(), r.others("old"), deleted.Load())
	}
	r.healthy()
}

package controller

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/osds-io/osds/pkg/db"
	"github.com/osds-io/osds/pkg/model"
)

func (r *rig) hook(f func(op, id string) error) { r.dock.hook.Store(&f) }

// A volume may grow between the reservation of its snapshot and its making. The
// snapshot is as large as the volume is by then, and holds as much.
func TestSnapshotOfAVolumeThatGrows(t *testing.T) {
	for _, c := range []struct {
		name  string
		total model.Bytes
		ok    bool
	}{{"room", 100 * model.GiB, true}, {"full", 35 * model.GiB, false}} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, c.total)
			v := r.volume(10)
			r.quiet()
			grown := make(chan struct{})
			r.hook(func(op, _ string) error {
				if op == "CreateSnapshot" {
					<-grown
				}
				return nil
			})
			now := time.Now().UTC()
			x := &model.Snapshot{Meta: model.Meta{ID: model.NewID(), TenantID: "t", CreatedAt: now}, VolumeID: v.ID, PoolID: "p0", Size: 10 * model.GiB,
				Status: model.StatusCreating, Task: model.NewTask(model.ResSnapshot, model.TaskCreate, "", "req", now)}
			r.commit((&db.Txn{Label: "api"}).Create(x))
			r.until(func() bool { s, _ := r.s.Snapshots.Get(x.ID); return s.Task.Step == model.StepProvision }, "the snapshot is reserved")
			r.request(v.ID, model.TaskExtend, func(c *model.Volume) { c.Status, c.Task.NewSize = model.StatusExtending, 20*model.GiB })
			r.until(func() bool { got, _ := r.s.Volumes.Get(v.ID); return got.Size == 20*model.GiB }, "the volume has grown")
			close(grown)
			r.quiet()
			got, _ := r.s.Snapshots.Get(x.ID)
			a, _ := r.s.Ledger.Get("p0")
			if c.ok {
				if got.Status != model.StatusAvailable || got.Size != 20*model.GiB || got.Reserved != 20*model.GiB || a.Reserved != 40*model.GiB {
					t.Fatalf("%s, size %s, holds %s; the pool %s", got.Status, got.Size, got.Reserved, a.Reserved)
				}
			} else if got.Status != model.StatusError || got.StatusReason == "" || a.Reserved != 20*model.GiB || len(r.dock.snaps) != 0 {
				t.Fatalf("%s (%s), holds %s; the pool %s", got.Status, got.StatusReason, got.Reserved, a.Reserved)
			}
			r.healthy()
		})
	}
}

// A leader that dies between marking a lost dock and marking its pools leaves
// pools that look available. The next one finishes that.
func TestPoolsOfALostDockAreFinished(t *testing.T) {
	r := newRig(t, 100*model.GiB)
	r.stop()
	r.dock.down.Store(true)
	d, _ := r.s.Docks.Get("d1")
	n := d.Clone()
	n.Status, n.Reason = model.StatusUnavailable, "no heart-beat"
	r.commit((&db.Txn{Label: "x"}).Update(n))
	r.start()
	for i := 0; ; i++ {
		if p, _ := r.s.Pools.Get("p0"); p.Status == model.StatusUnavailable && p.Reason != "" {
			break
		}
		if i == 500 {
			t.Fatal("the pool of a dock that is gone stays available")
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// Tries that found no dock say nothing about what the dock means by its first
// answer: only refusals count against a step.
func TestOutageDoesNotCountAsRefusals(t *testing.T) {
	r := newRig(t, 100*model.GiB)
	v := r.volume(10)
	r.quiet()
	var calls atomic.Int64
	r.hook(func(op, _ string) error {
		if op != "DeleteVolume" {
			return nil
		}
		switch calls.Add(1) {
		case 1:
			return model.Errorf(model.KindBusy, "an export is still being ended")
		}
		return nil
	})
	r.request(v.ID, model.TaskDelete, func(c *model.Volume) {
		c.Status = model.StatusDeleting
		for range 20 { // as an outage leaves it
			c.Task.Missed(model.Errorf(model.KindUnavailable, "no dock"), time.Now())
		}
	})
	r.quiet()
	if got, ok := r.s.Volumes.Get(v.ID); ok {
		t.Fatalf("%s: %s", got.Status, got.StatusReason)
	}
	r.healthy()
}

// A volume whose growth went wrong stays errorExtending when the next try ends
// before it began: nobody knows yet how large it is on the backend.
func TestRefusedGrowthKeepsErrorExtending(t *testing.T) {
	r := newRig(t, 100*model.GiB)
	v := r.volume(10)
	r.quiet()
	got, _ := r.s.Volumes.Get(v.ID)
	c := got.Clone()
	c.Status, c.StatusReason = model.StatusErrorExtending, "who knows"
	r.commit((&db.Txn{Label: "x"}).Update(c))
	r.request(v.ID, model.TaskExtend, func(c *model.Volume) { c.Status, c.Task.NewSize = model.StatusExtending, 500*model.GiB })
	r.quiet()
	if got, _ = r.s.Volumes.Get(v.ID); got.Status != model.StatusErrorExtending || got.StatusReason == "" {
		t.Fatalf("%s: %s", got.Status, got.StatusReason)
	}
	// The way out is open: a growth that fits.
	r.request(v.ID, model.TaskExtend, func(c *model.Volume) { c.Status, c.Task.NewSize = model.StatusExtending, 20*model.GiB })
	r.quiet()
	if got, _ = r.s.Volumes.Get(v.ID); got.Status != model.StatusAvailable || got.Size != 20*model.GiB {
		t.Fatalf("%s: %s", got.Status, got.StatusReason)
	}
	r.healthy()
}

// attach makes an attachment of a volume as the API does.
func (r *rig) attach(volume string) *model.Attachment {
	now := time.Now().UTC()
	a := &model.Attachment{Meta: model.Meta{ID: model.NewID(), TenantID: "t", CreatedAt: now}, VolumeID: volume, HostID: "host", Status: model.StatusCreating,
		Task: model.NewTask(model.ResAttachment, model.TaskCreate, "", "req", now)}
	v, _ := r.s.Volumes.Get(volume)
	c := v.Clone()
	c.Status = model.StatusAttaching
	r.commit((&db.Txn{Label: "api"}).Create(a).Update(c))
	return a
}

// The debt of an export carries what the driver keeps of the volume, as the
// detach itself does: the volume may be gone when it is settled.
func TestDebtOfAnExportKnowsTheVolume(t *testing.T) {
	r := newRig(t, 100*model.GiB)
	v := r.volume(10)
	r.quiet()
	a := r.attach(v.ID)
	r.quiet()
	r.dock.down.Store(true)
	at, _ := r.s.Attachments.Get(a.ID)
	d := at.Clone()
	d.Status, d.Task = model.StatusDeleting, model.NewTask(model.ResAttachment, model.TaskDelete, at.Status, "req", time.Now())
	r.commit((&db.Txn{Label: "api"}).Update(d))
	r.until(func() bool { return r.s.Debts.Len() == 1 }, "a debt")
	v, _ = r.s.Volumes.Get(v.ID)
	if got := r.s.Debts.All()[0].BackendData["lun"]; got == "" || got != v.BackendData["lun"] {
		t.Errorf("the debt has %q, the volume %q", got, v.BackendData["lun"])
	}
	r.dock.down.Store(false)
	r.quiet()
	r.healthy()
}

// A growth whose dock is gone can be cancelled: the volume must not be held for
// as long as the dock is away, which may be for ever.
func TestCancelledGrowthDoesNotWaitForADeadDock(t *testing.T) {
	r := newRig(t, 100*model.GiB)
	v := r.volume(10)
	r.quiet()
	r.dock.down.Store(true)
	r.request(v.ID, model.TaskExtend, func(c *model.Volume) { c.Status, c.Task.NewSize = model.StatusExtending, 20*model.GiB })
	r.until(func() bool { got, _ := r.s.Volumes.Get(v.ID); return got.Task.Attempts > 0 }, "a try without the dock")
	err := r.s.Retry(context.Background(), 100, func() error {
		got, _ := r.s.Volumes.Get(v.ID)
		c := got.Clone()
		c.Task.Cancel, c.Task.NextRun = true, time.Time{}
		_, err := r.s.Commit(context.Background(), (&db.Txn{Label: "api"}).Update(c))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; r.s.Volumes.Count("status", string(model.StatusErrorExtending)) == 0; i++ {
		if got, _ := r.s.Volumes.Get(v.ID); i == 800 {
			t.Fatalf("%s, attempt %d: %s", got.Status, got.Task.Attempts, got.Task.LastError)
		}
		time.Sleep(10 * time.Millisecond)
	}
	got, _ := r.s.Volumes.Get(v.ID)
	if got.StatusReason == "" || got.Reserved != 20*model.GiB || got.Task.State != model.TaskCancelled {
		t.Fatalf("%q, holds %s, task %s", got.StatusReason, got.Reserved, got.Task.State)
	}
	r.request(v.ID, model.TaskDelete, func(c *model.Volume) { c.Status = model.StatusDeleting })
	r.until(func() bool { return r.s.Debts.Len() == 1 && r.s.Volumes.Len() == 0 }, "a debt in place of the volume")
	r.dock.down.Store(false)
	r.quiet()
	if a, _ := r.s.Ledger.Get("p0"); a.Reserved != 0 {
		t.Fatalf("%s is still reserved", a.Reserved)
	}
	r.healthy()
}

// The end of one attachment must not make a volume available that another is
// being made of: it would be grown as if nobody used it.
func TestDetachWhileAnotherAttaches(t *testing.T) {
	r := newRig(t, 100*model.GiB)
	v := r.volume(10)
	r.quiet()
	now := time.Now().UTC()
	old := &model.Attachment{Meta: model.Meta{ID: model.NewID(), TenantID: "t", CreatedAt: now}, VolumeID: v.ID, HostID: "host",
		Status: model.StatusDeleting, Task: model.NewTask(model.ResAttachment, model.TaskDelete, model.StatusError, "req", now)}
	held := make(chan struct{})
	r.hook(func(op, _ string) error {
		if op == "Export" {
			<-held
		}
		return nil
	})
	a := r.attach(v.ID)
	r.commit((&db.Txn{Label: "api"}).Create(old))
	r.until(func() bool { _, ok := r.s.Attachments.Get(old.ID); return !ok }, "the failed attachment is deleted")
	if got, _ := r.s.Volumes.Get(v.ID); got.Status != model.StatusAttaching {
		t.Errorf("the volume is %s while it is being exported", got.Status)
	}
	close(held)
	r.quiet()
	got, _ := r.s.Volumes.Get(v.ID)
	if at, _ := r.s.Attachments.Get(a.ID); got.Status != model.StatusInUse || at.Status != model.StatusAvailable {
		t.Errorf("in the end the volume is %s, the attachment %s", got.Status, at.Status)
	}
	r.healthy()
}

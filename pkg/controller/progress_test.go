package controller

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/osds-io/osds/pkg/controller/steps"
	"github.com/osds-io/osds/pkg/db"
	"github.com/osds-io/osds/pkg/drivers"
	"github.com/osds-io/osds/pkg/model"
)

// slow makes a dock answer calls of one operation with progress; next says how
// much of 100 MiB is done, or less than 0 for the end of the work.
func (r *rig) slow(op string, next func(id string) int64) {
	h := func(o, id string) error {
		if o != op {
			return nil
		}
		if n := next(id); n >= 0 {
			return drivers.InProgress("volume "+id, "cleared", model.Bytes(n)*model.MiB, 100*model.MiB)
		}
		return nil
	}
	r.dock.hook.Store(&h)
}

// quick restarts the controller with a short limit of creates.
func (r *rig) quick(create time.Duration) {
	r.stop()
	r.tune = func(l *steps.Limits) { l.Create = create }
	r.start()
}

// Work that advances is waited for, however long it takes, and is seen in the
// record; a new leader goes on where the old one was.
func TestLongCreateIsWaitedFor(t *testing.T) {
	const limit = 2500 * time.Millisecond
	r := newRig(t, 100*model.GiB)
	r.quick(limit)
	var done atomic.Int64
	r.slow("CreateVolume", func(string) int64 {
		if n := done.Add(15); n < 100 {
			return n
		}
		return -1
	})
	v := r.volume(10)
	at := func() *model.Task { x, _ := r.s.Volumes.Get(v.ID); return x.Task }
	r.until(func() bool { p := at().Progress; return p != nil && p.Done >= 30*model.MiB }, "progress in the record")
	k := at()
	if k.Attempts != 0 || k.LastError != "" || k.State != model.TaskRunning || !strings.HasPrefix(k.Doing(), "cleared ") {
		t.Errorf("%+v", k)
	}
	was := k.Progress.Done
	r.stop()
	r.start()
	if p := at().Progress; p == nil || p.Done < was {
		t.Errorf("after a take-over: %+v, before %v", p, was)
	}
	r.quiet()
	x, _ := r.s.Volumes.Get(v.ID)
	if x.Status != model.StatusAvailable || x.Task.State != model.TaskSucceeded || x.Task.EndedAt.Sub(x.Task.CreatedAt) < limit {
		t.Errorf("%s %s: %+v", x.Status, x.StatusReason, x.Task)
	}
	r.healthy()
}

// Work that does not advance, or comes back to where it was again and again, is
// given up and undone; so is what a user cancels.
func TestStandingCreateIsUndone(t *testing.T) {
	r := newRig(t, 100*model.GiB)
	r.quick(2500 * time.Millisecond)
	var n atomic.Int64
	r.slow("CreateVolume", func(string) int64 { return 10 + n.Add(1)%2*10 })
	v := r.volume(10)
	r.quiet()
	x, _ := r.s.Volumes.Get(v.ID)
	if x.Status != model.StatusError || !strings.Contains(x.StatusReason, "cleared") || x.Reserved != 0 {
		t.Errorf("%s %q, %s reserved", x.Status, x.StatusReason, x.Reserved)
	}
	r.quick(time.Hour)
	v = r.volume(10)
	r.until(func() bool { x, _ := r.s.Volumes.Get(v.ID); return x.Task.Progress != nil }, "progress in the record")
	r.cancelTask(v.ID)
	r.quiet()
	if x, _ := r.s.Volumes.Get(v.ID); x.Status != model.StatusError || x.Task.State != model.TaskCancelled || x.Reserved != 0 {
		t.Errorf("%s %q, %+v", x.Status, x.StatusReason, x.Task)
	}
	r.healthy()
}

// cancelTask does what the API does when a user cancels a volume's task.
func (r *rig) cancelTask(id string) {
	r.t.Helper()
	for range 100 {
		x, _ := r.s.Volumes.Get(id)
		c := x.Clone()
		c.Task.Cancel, c.Task.NextRun = true, time.Time{}
		if rev, err := r.s.Commit(context.Background(), (&db.Txn{Label: "api"}).Update(c)); err == nil {
			_ = r.s.WaitRev(context.Background(), rev)
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	r.t.Fatal("never: the task is cancelled")
}

// A cancelled growth leaves the volume as it was, and nothing set aside on the
// backend. A removal that clears is no dock that is away: no debt is left for it.
func TestLongGrowthAndRemoval(t *testing.T) {
	r := newRig(t, 100*model.GiB)
	v := r.volume(10)
	r.quiet()
	r.slow("ExpandVolume", func(string) int64 {
		if x, _ := r.s.Volumes.Get(v.ID); x.Task.Cancel {
			return -1 // the one that gives up what was set aside
		}
		return 40
	})
	r.request(v.ID, model.TaskExtend, func(c *model.Volume) { c.Status, c.Task.NewSize = model.StatusExtending, model.FromGB(20) })
	r.until(func() bool { x, _ := r.s.Volumes.Get(v.ID); return x.Task.Progress != nil }, "progress in the record")
	r.cancelTask(v.ID)
	r.quiet()
	x, _ := r.s.Volumes.Get(v.ID)
	if x.Status != model.StatusAvailable || x.Size != model.FromGB(10) || x.Reserved != x.Size || x.Task.State != model.TaskCancelled {
		t.Errorf("%s %q, %s, %s reserved, %+v", x.Status, x.StatusReason, x.Size, x.Reserved, x.Task)
	}
	r.healthy()

	var calls atomic.Int64
	r.slow("DeleteVolume", func(string) int64 {
		if n := calls.Add(1); n <= 3 { // longer than a debt waits for a dock
			return n
		}
		return -1
	})
	r.request(v.ID, model.TaskDelete, func(c *model.Volume) { c.Status = model.StatusDeleting })
	r.quiet()
	if _, ok := r.s.Volumes.Get(v.ID); ok || r.s.Debts.Len() != 0 || calls.Load() != 4 {
		t.Errorf("there still: %t, %d debts, %d calls", ok, r.s.Debts.Len(), calls.Load())
	}
	r.healthy()
}

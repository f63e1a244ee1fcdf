package task

import (
	"context"
	"io"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/osds-io/osds/pkg/db"
	"github.com/osds-io/osds/pkg/model"
)

// scripted is a handler whose steps a test writes.
type scripted struct {
	step func(ctx context.Context, j *Job) error
}

func (s *scripted) Class(model.Tasked) Class               { return Class{Name: "c", Limit: 4} }
func (s *scripted) Step(ctx context.Context, j *Job) error { return s.step(ctx, j) }

// run starts an engine with one handler for volumes, in a term of its own.
func run(t *testing.T, now func() time.Time, step func(ctx context.Context, j *Job) error) *db.Store {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	s, err := db.Open(ctx, db.Config{Embedded: db.Embedded{Dir: t.TempDir()}})
	if err != nil {
		t.Fatal(err)
	}
	log := logrus.New()
	log.SetOutput(io.Discard)
	el := &db.Elector{Store: s, Lead: func(ctx context.Context, term *db.Term) {
		e := &Engine{
			Store: s, Term: term, Log: logrus.NewEntry(log), Now: now, LongestPause: 200 * time.Millisecond, Release: func(string, model.Bytes) {},
			Handlers: map[model.Resource]Handler{model.ResVolume: &scripted{step}},
		}
		_ = e.Run(ctx)
	}}
	ectx, stop := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); el.Run(ectx) }()
	t.Cleanup(func() { stop(); <-done; s.Close() })
	for i := 0; el.Leader() == nil; i++ {
		if i > 3000 {
			t.Fatal("no leader")
		}
		time.Sleep(10 * time.Millisecond)
	}
	return s
}

func commitAs(t *testing.T, s *db.Store, txn *db.Txn) {
	t.Helper()
	rev, err := s.Commit(context.Background(), txn)
	if err == nil {
		err = s.WaitRev(context.Background(), rev)
	}
	if err != nil {
		t.Error(err)
	}
}

func accept(t *testing.T, s *db.Store) *model.Volume {
	v := &model.Volume{Meta: model.Meta{ID: model.NewID(), TenantID: "t"}, Status: model.StatusCreating,
		Task: model.NewTask(model.ResVolume, model.TaskCreate, "", "", time.Now())}
	commitAs(t, s, (&db.Txn{Label: "x"}).Create(v))
	return v
}

func await(t *testing.T, s *db.Store, id string, ok func(*model.Volume) bool) {
	t.Helper()
	for range 2000 {
		if v, found := s.Volumes.Get(id); found && ok(v) {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	v, _ := s.Volumes.Get(id)
	t.Fatalf("never: %+v", v.Task)
}

func finish(j *Job) error {
	return Advance(j, "x", func(v *model.Volume, _ *db.Txn) error {
		v.Status = model.StatusAvailable
		v.Task.End(model.TaskSucceeded, time.Now())
		return nil
	})
}

// The watch may show a step's write only after the whole task has ended. Such
// events are history: the task must not be done once more because of them.
func TestLateEventsDoNotReviveATask(t *testing.T) {
	var applied, late atomic.Int64
	gate := make(chan struct{})
	s := run(t, time.Now, func(ctx context.Context, j *Job) error {
		if j.Task().Step == model.StepPlace {
			return Advance(j, "x", func(v *model.Volume, _ *db.Txn) error { v.Task.Begin(model.StepApply, time.Now()); return nil })
		}
		if applied.Add(1) > 1 {
			late.Add(1)
		}
		return finish(j)
	})
	// A reader of events that holds the watch up between the two writes.
	stop := s.OnEvent(func(ev db.Event) {
		if ev.Type == db.Created {
			<-gate
		}
	})
	defer stop()
	v := &model.Volume{Meta: model.Meta{ID: model.NewID(), TenantID: "t"}, Status: model.StatusCreating,
		Task: model.NewTask(model.ResVolume, model.TaskCreate, "", "", time.Now())}
	if _, err := s.Commit(context.Background(), (&db.Txn{Label: "x"}).Create(v)); err != nil {
		t.Fatal(err)
	}
	for range 1000 {
		if b, _, err := s.GetRaw(context.Background(), db.Key(model.ResVolume, v.ID)); err != nil {
			t.Fatal(err)
		} else if b != nil && applied.Load() == 1 {
			break
		}
		time.Sleep(5 * time.Millisecond)
	}
	time.Sleep(300 * time.Millisecond) // the end is written and the job is over
	close(gate)
	await(t, s, v.ID, func(v *model.Volume) bool { return v.Status == model.StatusAvailable })
	time.Sleep(300 * time.Millisecond) // a revived task would run now
	if late.Load() != 0 {
		t.Fatalf("the last step ran %d times more after the task had ended", late.Load())
	}
	// The record is not forgotten for that: its next task runs.
	got, _ := s.Volumes.Get(v.ID)
	c := got.Clone()
	c.Task = model.NewTask(model.ResVolume, model.TaskDelete, got.Status, "", time.Now())
	c.Task.Step = model.StepApply
	commitAs(t, s, (&db.Txn{Label: "x"}).Update(c))
	await(t, s, v.ID, func(v *model.Volume) bool { return v.Task.ID == c.Task.ID && v.Task.State == model.TaskSucceeded })
}

// A wish to cancel that arrives between two steps ends the call that the second
// one makes: it may be one that copies for an hour.
func TestCancelBetweenSteps(t *testing.T) {
	var s *db.Store
	ready := make(chan struct{})
	s = run(t, time.Now, func(ctx context.Context, j *Job) error {
		<-ready
		v := j.Rec.(*model.Volume)
		switch {
		case v.Task.Cancel:
			return finish(j)
		case v.Task.Step == model.StepPlace:
			if err := Advance(j, "x", func(v *model.Volume, _ *db.Txn) error { v.Task.Begin(model.StepProvision, time.Now()); return nil }); err != nil {
				return err
			}
			c := j.Rec.(*model.Volume).Clone()
			c.Task.Cancel = true
			commitAs(t, s, (&db.Txn{Label: "x"}).Update(c))
			return nil
		}
		select {
		case <-ctx.Done():
			return model.Errorf(model.KindUnknownOutcome, "given up")
		case <-time.After(10 * time.Second):
			t.Error("the long call was not ended")
			return finish(j)
		}
	})
	close(ready)
	v := accept(t, s)
	await(t, s, v.ID, func(v *model.Volume) bool { return v.Status == model.StatusAvailable })
}

// The time of the next try was written by a clock that has been set back since,
// or by a leader whose clock is ahead. Nothing waits for clocks to agree.
func TestClockSetBack(t *testing.T) {
	s := run(t, time.Now, func(ctx context.Context, j *Job) error { return finish(j) })
	v := &model.Volume{Meta: model.Meta{ID: model.NewID(), TenantID: "t"}, Status: model.StatusCreating,
		Task: model.NewTask(model.ResVolume, model.TaskCreate, "", "", time.Now())}
	v.Task.NextRun = time.Now().Add(24 * time.Hour)
	commitAs(t, s, (&db.Txn{Label: "x"}).Create(v))
	await(t, s, v.ID, func(v *model.Volume) bool { return v.Status == model.StatusAvailable })
}

// What waits for something for long is looked at, and written, less often: it
// may wait for days for a host that is gone.
func TestLongWaitsAreLookedAtSeldom(t *testing.T) {
	s := run(t, time.Now, func(context.Context, *Job) error { return &Wait{For: time.Second, Reason: "a dead host"} })
	v := &model.Volume{Meta: model.Meta{ID: model.NewID(), TenantID: "t"}, Status: model.StatusCreating,
		Task: model.NewTask(model.ResVolume, model.TaskCreate, "", "", time.Now().Add(-24*time.Hour))}
	commitAs(t, s, (&db.Txn{Label: "x"}).Create(v))
	w := accept(t, s) // has just begun
	for _, c := range []struct {
		id       string
		from, to time.Duration
	}{{v.ID, 9 * time.Second, 15 * time.Second}, {w.ID, 0, 2 * time.Second}} {
		await(t, s, c.id, func(v *model.Volume) bool { return v.Task.State == model.TaskWaiting })
		got, _ := s.Volumes.Get(c.id)
		if d := got.Task.NextRun.Sub(got.UpdatedAt); d < c.from || d > c.to {
			t.Errorf("waits %s, want %s to %s", d, c.from, c.to)
		}
	}
}

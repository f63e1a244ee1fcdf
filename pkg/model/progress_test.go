package model

import (
	"fmt"
	"math"
	"strings"
	"testing"
	"time"
)

func TestProgressFigures(t *testing.T) {
	for _, x := range []struct {
		p     Progress
		want  int
		valid bool
	}{
		{Progress{"cleared", 0, GiB}, 0, true},
		{Progress{"cleared", GiB - 1, GiB}, 99, true},
		{Progress{"cleared", GiB, GiB}, 100, true},
		{Progress{"cleared", math.MaxInt64 / 2, math.MaxInt64}, 50, true},
		{Progress{"cleared", 2, 1}, 100, false},
		{Progress{"cleared", -1, 1}, 0, false},
		{Progress{"cleared", 0, 0}, 0, false},
		{Progress{"", 1, 2}, 50, false},
	} {
		if x.p.Percent() != x.want || x.p.Valid() != x.valid {
			t.Errorf("%+v: %d %%, valid %t", x.p, x.p.Percent(), x.p.Valid())
		}
	}
	if s := (Progress{"cleared", 3 * GiB, 10 * GiB}).String(); s != "cleared 3 GiB of 10 GiB (30 %)" {
		t.Error(s)
	}
	e := &Error{Kind: KindUnknownOutcome, Progress: &Progress{"copied", 1, 2}}
	if p := ProgressOf(fmt.Errorf("volume x: %w", e)); p == nil || p.Done != 1 {
		t.Errorf("%+v", p)
	}
	e.Progress = &Progress{"copied", 3, 2} // nonsense tells of nothing
	if ProgressOf(e) != nil || ProgressOf(nil) != nil || ProgressOf(Errorf(KindBusy, "x")) != nil {
		t.Error("progress where there is none")
	}
}

// Time counts from when the work was last seen to advance; work that was thrown
// back advances only past where it was.
func TestTaskIdle(t *testing.T) {
	at := time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)
	k := NewTask(ResVolume, TaskCreate, StatusCreating, "", at)
	step := func(done Bytes) time.Duration {
		at = at.Add(time.Minute)
		k.GoesOn(&Progress{"cleared", done, 100}, at)
		return k.Idle(at)
	}
	for i, x := range []struct {
		done Bytes
		want time.Duration
	}{{10, 0}, {10, time.Minute}, {0, 2 * time.Minute}, {9, 3 * time.Minute}, {11, 0}, {12, 0}} {
		if got := step(x.done); got != x.want {
			t.Errorf("%d: idle for %s, want %s", i, got, x.want)
		}
	}
	if k.Attempts != 0 || k.State != TaskRunning || !strings.HasSuffix(k.Doing(), "(12 %)") {
		t.Errorf("%+v %q", k, k.Doing())
	}
	at = at.Add(time.Minute)
	k.GoesOn(&Progress{"copied", 1, 100}, at) // another part of the work
	if k.Idle(at) != 0 {
		t.Error(k.Idle(at))
	}
	k.Begin(StepUndo, at)
	if k.Progress != nil {
		t.Error("a step begins with another's progress")
	}
	k.GoesOn(&Progress{"cleared", 1, 2}, at)
	if k.End(TaskSucceeded, at); k.Progress != nil || k.Doing() != "" {
		t.Error("an ended task goes on")
	}
}

package db

import (
	"context"
	"testing"
	"time"

	"github.com/osds-io/osds/pkg/model"
)

// revision publishes one revision of n events.
func revision(h *hub, rev int64, n int) {
	evs := make([]Event, n)
	for i := range evs {
		evs[i] = Event{Rev: rev, N: i, Type: Updated, Rec: &model.Volume{}}
	}
	h.publish(rev, evs)
}

func TestStreamResumesOrSaysThatItCannot(t *testing.T) {
	h := newHub(4)
	h.start(10)
	s := &Store{hub: h}
	next := func(st *Stream) [2]int64 {
		t.Helper()
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		evs, err := st.Next(ctx, 1)
		if err != nil {
			t.Fatal(err)
		}
		return [2]int64{evs[0].Rev, int64(evs[0].N)}
	}
	revision(h, 11, 3) // 11.0 11.1 11.2
	for _, c := range []struct {
		rev  int64
		n    int
		want [2]int64
	}{{10, -1, [2]int64{11, 0}}, {11, 0, [2]int64{11, 1}}, {11, 1, [2]int64{11, 2}}} {
		st, ok := s.Stream(c.rev, c.n)
		if !ok {
			t.Fatalf("%d.%d: not in the history", c.rev, c.n)
		}
		if got := next(st); got != c.want {
			t.Errorf("after %d.%d comes %v, want %v", c.rev, c.n, got, c.want)
		}
	}
	if _, ok := s.Stream(9, -1); ok {
		t.Error("a revision before the first load is in the history")
	}
	revision(h, 12, 3) // drops 11.0 and 11.1
	if _, ok := s.Stream(10, -1); ok {
		t.Error("11.0 is gone, but a reader that has not seen it may go on")
	}
	if _, ok := s.Stream(11, 0); ok {
		t.Error("11.1 is gone, but a reader that has not seen it may go on")
	}
	if st, ok := s.Stream(11, 1); !ok || next(st) != [2]int64{11, 2} {
		t.Error("11.2 is there, but its reader cannot go on")
	}
	if st, ok := s.Stream(11, -1); !ok || next(st) != [2]int64{12, 0} {
		t.Error("who has seen all of 11 cannot go on with 12")
	}
}

func TestSlowStreamIsTold(t *testing.T) {
	h := newHub(2)
	h.start(1)
	s := &Store{hub: h}
	st, ok := s.Stream(1, -1)
	if !ok {
		t.Fatal("no stream")
	}
	revision(h, 2, 3)
	if _, err := st.Next(context.Background(), 10); err != error(ErrResync) {
		t.Errorf("a reader that lost an event gets %v", err)
	}
	st, _ = s.Stream(2, -1)
	h.reset(5, nil)
	if _, err := st.Next(context.Background(), 10); err != error(ErrResync) {
		t.Errorf("a reader from before a reset gets %v", err)
	}
	if s.Resets() != 1 {
		t.Errorf("%d resets", s.Resets())
	}
}

// What OnEvent feeds is up to date for whoever waited for a revision.
func TestSubscribersSeeARevisionBeforeItsWaiters(t *testing.T) {
	s := open(t)
	seen := map[string]bool{}
	s.OnEvent(func(e Event) { seen[e.Rec.Base().ID] = true })
	for i := range 50 {
		v := volume(i)
		rev, err := s.Commit(context.Background(), (&Txn{Label: "t"}).Create(v))
		if err != nil {
			t.Fatal(err)
		}
		if err := s.WaitRev(context.Background(), rev); err != nil {
			t.Fatal(err)
		}
		if !seen[v.ID] {
			t.Fatalf("volume %d: the subscriber has not seen revision %d", i, rev)
		}
	}
}

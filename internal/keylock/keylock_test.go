package keylock

import (
	"context"
	"errors"
	"sync"
	"testing"
)

func TestExclusiveAndShared(t *testing.T) {
	var s Set
	ctx := t.Context()
	r1, err := s.LockAll(ctx, Want{"a", true})
	if err != nil {
		t.Fatal(err)
	}
	r2, err := s.LockAll(ctx, Want{"a", true}, Want{"b", false})
	if err != nil {
		t.Fatal("a second reader must not wait:", err)
	}
	ended, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := s.Lock(ended, "a"); !errors.Is(err, context.Canceled) {
		t.Fatalf("a writer came in beside readers: %v", err)
	}
	// What was taken before the failure is given back.
	if _, err := s.LockAll(ended, Want{"0", false}, Want{"a", false}); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	r1()
	r2()
	w, err := s.LockAll(ctx, Want{"a", true}, Want{"a", false}, Want{"0", false})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.LockAll(ended, Want{"a", true}); err == nil {
		t.Fatal("a key wanted both ways must be held exclusively")
	}
	w()
	if len(s.locks) != 0 {
		t.Errorf("%d locks are kept that nobody holds", len(s.locks))
	}
}

func TestNoDeadlockAndNoRace(t *testing.T) {
	var s Set
	var wg sync.WaitGroup
	n := map[string]int{} // each entry guarded by the lock of its name
	var a, b int
	for i := range 8 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			x, y := "a", "b"
			if i%2 == 1 {
				x, y = y, x
			}
			for range 500 {
				f, err := s.LockAll(t.Context(), Want{Key: x}, Want{Key: y})
				if err != nil {
					t.Error(err)
					return
				}
				a++
				b--
				n["x"]++
				f()
			}
		}()
	}
	wg.Wait()
	if a != 4000 || b != -4000 || n["x"] != 4000 || len(s.locks) != 0 {
		t.Errorf("%d %d %d, %d locks left", a, b, n["x"], len(s.locks))
	}
}

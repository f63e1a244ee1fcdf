package lvm

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/osds-io/osds/pkg/model"
)

// queueUp has callers wait for a turn, in order, and gives how they got it.
func queueUp(t *testing.T, prios []prio) (got []prio) {
	synctest.Test(t, func(t *testing.T) {
		var tu turns
		end, err := tu.take(t.Context(), prioNormal)
		if err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		for _, p := range prios {
			wg.Go(func() {
				end, err := tu.take(t.Context(), p)
				if err != nil {
					t.Error(err)
					return
				}
				got = append(got, p) // its turn: nobody else is here
				end()
			})
			synctest.Wait()
		}
		end()
		wg.Wait()
		if tu.alone || tu.sharing != 0 {
			t.Error("busy in the end")
		}
	})
	return got
}

func TestTurns(t *testing.T) {
	got := queueUp(t, []prio{prioTidy, prioNormal, prioAttach, prioNormal, prioAttach})
	if want := []prio{prioAttach, prioAttach, prioNormal, prioNormal, prioTidy}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// Attaching goes first, and does not go on for ever while others wait.
func TestTurnsAreFair(t *testing.T) {
	var all []prio
	for range 3 * fairness {
		all = append(all, prioAttach)
	}
	got := queueUp(t, append(all, prioNormal, prioTidy))
	if n := slices.Index(got, prioNormal); n != fairness {
		t.Errorf("the ordinary caller came after %d", n)
	}
	if n := slices.Index(got, prioTidy); n < fairness || n > 3*fairness {
		t.Errorf("the tidying one came after %d", n)
	}
}

func TestTurnsEndWithContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var tu turns
		end, err := tu.take(t.Context(), prioNormal)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		var gone error
		go func() { _, gone = tu.take(ctx, prioNormal) }()
		synctest.Wait()
		cancel()
		synctest.Wait()
		if model.KindOf(gone) != model.KindUnknownOutcome || !errors.Is(gone, context.Canceled) {
			t.Errorf("got %v", gone)
		}
		if _, err := tu.take(ctx, prioAttach); model.KindOf(err) != model.KindUnknownOutcome {
			t.Errorf("with a context that has ended: %v", err)
		}
		end()
		if end, err = tu.take(t.Context(), prioTidy); err != nil {
			t.Fatal(err)
		}
		end()
	})
}

// Some share a turn, but nobody who wants it alone; and those who share do not
// pass one who does.
func TestTurnsShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var tu turns
		var ends [5]func()
		var got []int
		ctx, cancel := context.WithCancel(t.Context())
		for i, alone := range []bool{false, false, false, true, false} {
			go func() {
				var err error
				if alone {
					ends[i], err = tu.take(ctx, prioNormal)
				} else {
					ends[i], err = tu.share(t.Context(), prioNormal)
				}
				if err == nil {
					got = append(got, i)
				}
			}()
			synctest.Wait()
		}
		step := func(end int, want ...int) {
			t.Helper()
			ends[end]()
			synctest.Wait()
			if !slices.Equal(got, want) {
				t.Fatalf("after the end of %d: got %v, want %v", end, got, want)
			}
		}
		if !slices.Equal(got, []int{0, 1}) {
			t.Fatalf("at first %v", got)
		}
		step(1, 0, 1, 2)
		step(0, 0, 1, 2)
		step(2, 0, 1, 2, 3)
		step(3, 0, 1, 2, 3, 4)
		// One that does not wait any more makes room for those behind it.
		got = nil
		go func() { _, _ = tu.take(ctx, prioNormal) }()
		synctest.Wait()
		go func() {
			if end, err := tu.share(t.Context(), prioNormal); err == nil {
				got = append(got, 9)
				end()
			}
		}()
		synctest.Wait()
		if got != nil {
			t.Fatal("one who shares has passed one who does not")
		}
		cancel()
		synctest.Wait()
		if !slices.Equal(got, []int{9}) {
			t.Fatalf("%v", got)
		}
		ends[4]()
		if tu.alone || tu.sharing != 0 {
			t.Error("busy in the end")
		}
	})
}

func TestBatch(t *testing.T) {
	var b batch
	var all []*item
	for range maxBatch + 2 {
		all = append(all, b.add("x"))
	}
	b.drop(all[1])
	first := b.next(all[0])
	if len(first) != maxBatch || first[0] != all[0] || slices.Contains(first, all[1]) {
		t.Fatalf("got %d", len(first))
	}
	fail := errors.New("that one")
	b.finish(first, func(it *item) error {
		if it == all[2] {
			return fail
		}
		return nil
	})
	if got := b.next(all[2]); got != nil || all[2].err != fail || all[0].err != nil {
		t.Errorf("%v, %v, %v", got, all[2].err, all[0].err)
	}
	last := all[len(all)-1]
	if got := b.next(last); len(got) != 1 || got[0] != last {
		t.Errorf("%v", got)
	}
}

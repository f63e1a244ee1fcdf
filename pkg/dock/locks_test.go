package dock

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/osds-io/osds/pkg/model"
)

func vol(id string) want    { return want{key: volumeKey(id)} }
func shared(id string) want { return want{key: volumeKey(id), shared: true} }

func take(t *testing.T, l *locks, w ...want) *held {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	h, err := l.acquire(ctx, w...)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// waiting waits until an object has n waiters.
func waiting(t *testing.T, l *locks, id string, n int) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(time.Millisecond) {
		l.mu.Lock()
		o := l.objs[volumeKey(id)]
		got := 0
		if o != nil {
			got = o.waiters.Len()
		}
		l.mu.Unlock()
		if got == n {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%d waiters, want %d", got, n)
		}
	}
}

func TestLockIsExclusiveAndInOrder(t *testing.T) {
	l := newLocks(10)
	h := take(t, l, vol("a"))
	var mu sync.Mutex
	var order []int
	var wg sync.WaitGroup
	for i := range 5 {
		wg.Go(func() {
			h := take(t, l, vol("a"))
			mu.Lock()
			order = append(order, i)
			mu.Unlock()
			h.release()
		})
		waiting(t, l, "a", i+1)
	}
	other := take(t, l, vol("b")) // another object does not wait
	other.release()
	h.release()
	wg.Wait()
	if fmt.Sprint(order) != "[0 1 2 3 4]" {
		t.Errorf("served in the order %v", order)
	}
	if n, _ := l.size(); n != 0 {
		t.Errorf("%d objects left", n)
	}
}

func TestSharedLocks(t *testing.T) {
	l := newLocks(10)
	a, b := take(t, l, shared("s")), take(t, l, shared("s"))
	got := make(chan string, 2)
	go func() { h := take(t, l, vol("s")); got <- "exclusive"; h.release() }()
	waiting(t, l, "s", 1)
	go func() { h := take(t, l, shared("s")); got <- "shared"; h.release() }()
	waiting(t, l, "s", 2) // behind the exclusive one: it is not starved
	a.release()
	select {
	case x := <-got:
		t.Fatalf("%s got the lock beside a shared holder", x)
	default:
	}
	b.release()
	if x := <-got; x != "exclusive" {
		t.Errorf("%s came first", x)
	}
	<-got
}

func TestLockWaitEnds(t *testing.T) {
	l := newLocks(10)
	h := take(t, l, vol("a"))
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { _, err := l.acquire(ctx, vol("a")); done <- err }()
	waiting(t, l, "a", 1)
	cancel()
	if err := <-done; !model.IsKind(err, model.KindUnavailable) {
		t.Errorf("got %v", err)
	}
	h.release()
	take(t, l, vol("a")).release()
	if n, _ := l.size(); n != 0 {
		t.Errorf("%d objects left", n)
	}
}

func TestWaiterThatLeavesLetsOthersPass(t *testing.T) {
	l := newLocks(10)
	h := take(t, l, shared("a"))
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { _, err := l.acquire(ctx, vol("a")); done <- err }()
	waiting(t, l, "a", 1)
	got := make(chan struct{})
	go func() { take(t, l, shared("a")).release(); close(got) }()
	waiting(t, l, "a", 2)
	cancel()
	<-done
	<-got // while h is still held
	h.release()
}

func TestStuckHolder(t *testing.T) {
	l := newLocks(10)
	h := take(t, l, vol("a"))
	done := make(chan error, 1)
	go func() { _, err := l.acquire(context.Background(), vol("a")); done <- err }()
	waiting(t, l, "a", 1)
	h.markStuck()
	h.markStuck()
	if err := <-done; !model.IsKind(err, model.KindUnavailable) || !strings.Contains(err.Error(), "volumes/a") {
		t.Errorf("the waiter got %v", err)
	}
	if _, err := l.acquire(context.Background(), vol("a")); !model.IsKind(err, model.KindUnavailable) {
		t.Errorf("a newcomer got %v", err)
	}
	h.release()
	h.release()
	h.markStuck() // too late to matter
	take(t, l, vol("a")).release()
	if n, _ := l.size(); n != 0 {
		t.Errorf("%d objects left", n)
	}
}

func TestOrderOfAnObject(t *testing.T) {
	l := newLocks(10)
	try := func(id string, epoch, seq int64) error {
		h := take(t, l, vol(id))
		defer h.release()
		return h.order(volumeKey(id), stamp{epoch, seq})
	}
	for _, tc := range []struct {
		epoch, seq int64
		stale      bool
	}{{1, 5, false}, {1, 5, false}, {1, 4, true}, {1, 9, false}, {1, 5, true}, {2, 1, false}, {1, 99, true}, {2, 1, false}} {
		err := try("a", tc.epoch, tc.seq)
		if (err != nil) != tc.stale || tc.stale && !model.IsKind(err, model.KindStale) {
			t.Errorf("(%d, %d): %v", tc.epoch, tc.seq, err)
		}
	}
	if err := try("b", 1, 1); err != nil {
		t.Errorf("another object: %v", err)
	}
}

// What is forgotten leaves a floor: an old call on a forgotten object is refused
// rather than believed.
func TestMemoryOfOrdersIsBounded(t *testing.T) {
	const most = 100
	l := newLocks(most)
	for i := range int64(3 * most) {
		h := take(t, l, vol(fmt.Sprint(i)))
		if err := h.order(volumeKey(fmt.Sprint(i)), stamp{1, i + 1}); err != nil {
			t.Fatal(err)
		}
		h.release()
	}
	if n, idle := l.size(); n != most || idle != most {
		t.Errorf("%d objects, %d idle, want %d", n, idle, most)
	}
	h := take(t, l, vol("0")) // forgotten; it saw seq 1
	if err := h.order(volumeKey("0"), stamp{1, 1}); !model.IsKind(err, model.KindStale) {
		t.Errorf("an old call on a forgotten object: %v", err)
	}
	if err := h.order(volumeKey("0"), stamp{1, 3*most + 1}); err != nil {
		t.Errorf("a new call: %v", err)
	}
	h.release()
	for i := range most + 1 { // objects in use are never forgotten
		h := take(t, l, vol("used"))
		if err := h.order(volumeKey("used"), stamp{1, 1000}); err != nil {
			t.Fatalf("%d: %v", i, err)
		}
		x := take(t, l, vol(fmt.Sprint("x", i)))
		_ = x.order(volumeKey(fmt.Sprint("x", i)), stamp{1, 2000})
		x.release()
		h.release()
	}
}

func TestTheSameObjectTwiceIsOneLock(t *testing.T) {
	l := newLocks(10)
	h := take(t, l, vol("a"), shared("a"))
	if h.n != 1 || h.shr[0] {
		t.Errorf("%d locks, shared %v", h.n, h.shr)
	}
	h.release()
}

// Calls that take several locks, in any order given, neither deadlock nor
// overlap.
func TestManyLocksAtOnce(t *testing.T) {
	l := newLocks(4)
	var busy [6]sync.Mutex
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			for range 300 {
				p := rand.Perm(len(busy))[:3]
				h := take(t, l, vol(fmt.Sprint(p[0])), vol(fmt.Sprint(p[1])), vol(fmt.Sprint(p[2])))
				for _, i := range p {
					if !busy[i].TryLock() {
						t.Error("two holders of one lock")
					}
				}
				_ = h.order(volumeKey(fmt.Sprint(p[0])), stamp{1, rand.Int64N(1000)})
				for _, i := range p {
					busy[i].Unlock()
				}
				h.release()
			}
		})
	}
	wg.Wait()
	if n, idle := l.size(); n != idle || n > 4 {
		t.Errorf("%d objects, %d idle at the end", n, idle)
	}
}

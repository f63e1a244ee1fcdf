package osdslet

import (
	"context"
	"testing"
	"time"
)

func TestMemoryIsReturnedOnceAfterEachLoad(t *testing.T) {
	const busy, quiet = 100 << 20, 1 << 10
	w, sum := memoryWatch{busy: true}, uint64(0)
	var got string
	for _, n := range []uint64{quiet, quiet, quiet, quiet, quiet, // the start
		busy, quiet, quiet, busy, quiet, quiet, quiet, quiet, // a load with a pause
		quiet, quiet} {
		sum += n
		if w.over(sum) {
			got += "x"
		} else {
			got += "."
		}
	}
	if want := "..x........x..."; got != want {
		t.Errorf("returned at %s, want %s", got, want)
	}
}

var sink []byte

func TestReturnMemoryEnds(t *testing.T) {
	before := allocated()
	sink = make([]byte, 10<<20)
	if n := allocated() - before; n < 10<<20 {
		t.Errorf("%d bytes were allocated", n)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { returnMemory(ctx); close(done) }()
	cancel()
	select {
	case <-done:
	case <-time.After(time.Minute):
		t.Fatal("it does not end")
	}
}

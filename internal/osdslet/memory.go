package osdslet

import (
	"context"
	"runtime/debug"
	"runtime/metrics"
	"time"

	"github.com/osds-io/osds/pkg/model"
)

const (
	// memoryLook is how often it is looked at how busy the process is.
	memoryLook = 2 * time.Second
	// memoryBusy is a rate of allocation per second that is called busy: lists
	// and creates by the hundred.
	memoryBusy = 8 * model.MiB
	// memoryCalm is for how many looks it must be less before memory is given
	// back.
	memoryCalm = 3
)

// returnMemory gives back to the system what a load, or the start, has left
// behind, once it is over. The runtime keeps about twice what is in use, and
// more after a burst, for the next one; it gives that back so slowly that after
// a hundred thousand creates osdslet held three times what it needs for hours.
// It runs until ctx ends.
func returnMemory(ctx context.Context) {
	t := time.NewTicker(memoryLook)
	defer t.Stop()
	w := memoryWatch{busy: true, last: allocated()} // the start is a load, too
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		if w.over(allocated()) {
			debug.FreeOSMemory()
		}
	}
}

// allocated is how much the process has allocated since its start.
func allocated() uint64 {
	s := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
	metrics.Read(s)
	return s[0].Value.Uint64()
}

// memoryWatch tells when a load is over.
type memoryWatch struct {
	busy bool
	calm int
	last uint64
}

// over is given what has been allocated so far, at each look. It is true once
// after each load.
func (w *memoryWatch) over(now uint64) bool {
	rate := float64(now-w.last) / memoryLook.Seconds()
	w.last = now
	if rate >= float64(memoryBusy) {
		w.busy, w.calm = true, 0
		return false
	}
	w.calm++
	if !w.busy || w.calm < memoryCalm {
		return false
	}
	w.busy = false
	return true
}

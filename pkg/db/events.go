package db

import (
	"context"
	"slices"
	"sort"
	"sync"

	"github.com/osds-io/osds/pkg/model"
)

// EventType says what happened to a record.
type EventType string

// The event types.
const (
	Created EventType = "created"
	Updated EventType = "updated"
	Deleted EventType = "deleted"
)

// Event is one change of one record. Rec is the record after the change, or, for
// Deleted, as it was last. N numbers the events of one revision from 0.
type Event struct {
	Rev  int64
	N    int
	Type EventType
	Rec  model.Record
	// Old is the record before the change; nil if created or replayed from a
	// time before this process.
	Old model.Record
}

// hub keeps the latest events and wakes those who wait for more. Slow readers
// lose nothing as long as they are within the history; the writer never waits.
type hub struct {
	mu     sync.Mutex
	ring   []Event
	next   int64 // sequence number of the next event; ring[seq%len] is event seq
	first  int64 // sequence number of the oldest event kept
	floor  int64 // the history is whole from after this revision on
	floorN int   // ... and from after this event of it; -1 if none was dropped
	wake   chan struct{}
	closed bool
	// epoch counts resets: readers from before one have to list again.
	epoch int64
	subs  []*subscriber
}

func newHub(n int) *hub {
	if n <= 0 {
		n = 8192
	}
	return &hub{ring: make([]Event, n), wake: make(chan struct{})}
}

func (h *hub) start(rev int64) {
	h.mu.Lock()
	h.floor, h.floorN = rev, -1
	h.mu.Unlock()
}

func (h *hub) publish(rev int64, evs []Event) {
	if len(evs) == 0 {
		return
	}
	h.mu.Lock()
	if h.closed {
		h.mu.Unlock()
		return
	}
	for _, e := range evs {
		slot := &h.ring[h.next%int64(len(h.ring))]
		if h.next-h.first == int64(len(h.ring)) {
			h.floor, h.floorN = slot.Rev, slot.N
			h.first++
		}
		kept := e
		kept.Old = nil // history must not keep twice the records alive
		*slot = kept
		h.next++
	}
	close(h.wake)
	h.wake = make(chan struct{})
	subs := h.subs
	h.mu.Unlock()
	tell(subs, evs)
}

// reset drops the history: something between was lost. Streams have to list
// again; subscribers are told what is different now, in no order.
func (h *hub) reset(rev int64, evs []Event) {
	h.mu.Lock()
	h.first, h.floor, h.floorN = h.next, rev, -1
	h.epoch++
	if h.closed {
		h.mu.Unlock()
		return
	}
	close(h.wake)
	h.wake = make(chan struct{})
	subs := h.subs
	h.mu.Unlock()
	tell(subs, evs)
}

func tell(subs []*subscriber, evs []Event) {
	for _, sub := range subs {
		sub.mu.Lock()
		for i := 0; i < len(evs) && !sub.over; i++ {
			sub.f(evs[i])
		}
		sub.mu.Unlock()
	}
}

func (h *hub) close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.closed {
		h.closed = true
		close(h.wake)
	}
}

// subscriber is called for every event until it is stopped.
type subscriber struct {
	mu   sync.Mutex
	f    func(Event)
	over bool
}

func (h *hub) subscribe(f func(Event)) (stop func()) {
	sub := &subscriber{f: f}
	h.mu.Lock()
	h.subs = append(append([]*subscriber{}, h.subs...), sub)
	h.mu.Unlock()
	return func() {
		h.mu.Lock()
		h.subs = slices.DeleteFunc(slices.Clone(h.subs), func(x *subscriber) bool { return x == sub })
		h.mu.Unlock()
		sub.mu.Lock()
		sub.over = true
		sub.mu.Unlock()
	}
}

// Resets counts how often the cache was loaded anew because events were lost.
// Whoever keeps something up to date by OnEvent has to begin again when it grows.
func (s *Store) Resets() int64 {
	s.hub.mu.Lock()
	defer s.hub.mu.Unlock()
	return s.hub.epoch
}

// Stream reads events in order, from after a position.
type Stream struct {
	h     *hub
	seq   int64
	epoch int64
	rev   int64
	n     int
}

// Stream starts reading after (rev, n): after all of revision rev if n is
// negative. ok is false if the history does not reach back that far; the reader
// then lists and starts from the list's revision.
func (s *Store) Stream(rev int64, n int) (st *Stream, ok bool) {
	h := s.hub
	h.mu.Lock()
	defer h.mu.Unlock()
	if rev < h.floor || (rev == h.floor && n >= 0 && n < h.floorN) {
		return nil, false
	}
	kept := int(h.next - h.first)
	i := sort.Search(kept, func(i int) bool {
		e := h.ring[(h.first+int64(i))%int64(len(h.ring))]
		return e.Rev > rev || (e.Rev == rev && n >= 0 && e.N > n)
	})
	return &Stream{h: h, seq: h.first + int64(i), epoch: h.epoch, rev: rev, n: n}, true
}

// Next waits for events and gives at most limit of them. ErrResync means that
// the reader fell behind and has to list again; a context error means that
// nothing came in time.
func (st *Stream) Next(ctx context.Context, limit int) ([]Event, error) {
	h := st.h
	for {
		h.mu.Lock()
		if st.epoch != h.epoch || st.seq < h.first {
			h.mu.Unlock()
			return nil, ErrResync
		}
		if h.closed {
			h.mu.Unlock()
			return nil, model.Errorf(model.KindUnavailable, "shutting down")
		}
		if n := min(h.next-st.seq, int64(limit)); n > 0 {
			out := make([]Event, n)
			for i := range out {
				out[i] = h.ring[(st.seq+int64(i))%int64(len(h.ring))]
			}
			st.seq += n
			h.mu.Unlock()
			return out, nil
		}
		wake := h.wake
		h.mu.Unlock()
		select {
		case <-wake:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// ErrResync says that events were lost to the reader.
var ErrResync = &model.Error{Kind: model.KindConflict, Message: "the event history does not reach back that far; list again and continue from the list's revision"}

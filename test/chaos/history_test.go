//go:build real

package chaos

import (
	"fmt"
	"math/rand/v2"
	"sort"
	"strings"
	"sync"
	"time"

	"github.com/osds-io/osds/pkg/model"
)

// answerOf is how a request ended for its client.
type answerOf int

const (
	accepted answerOf = iota // 2xx
	refused                  // the server said no
	silent                   // no answer: it may have been carried out
)

func (a answerOf) String() string { return [...]string{"accepted", "refused", "no answer"}[a] }

// entry is one request.
type entry struct {
	at     time.Time
	worker int
	op     string
	id     string
	answer answerOf
	err    string
}

// object is what the clients know of one record.
type object struct {
	res model.Resource
	id  string
	// volume is what a snapshot or an attachment belongs to.
	volume string
	owner  int
	// created: the create was accepted. Else nobody knows whether it was.
	created bool
	// leaving: a delete was sent, of it or of its group; gone: accepted.
	leaving, gone bool
	// sizes are those that it may have, in GB.
	sizes []int64
}

// history is everything that clients asked for and were told.
type history struct {
	mu      sync.Mutex
	entries []entry
	objects map[string]*object
	// live are the ids of objects that are not known to be gone, by resource.
	live map[model.Resource][]string
}

func newHistory() *history {
	return &history{objects: map[string]*object{}, live: map[model.Resource][]string{}}
}

func (h *history) note(worker int, op, id string, a answerOf, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	e := entry{at: time.Now(), worker: worker, op: op, id: id, answer: a}
	if err != nil {
		e.err = err.Error()
	}
	h.entries = append(h.entries, e)
}

// add notes an object before its create is sent.
func (h *history) add(o *object) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.objects[o.id] = o
	h.live[o.res] = append(h.live[o.res], o.id)
}

// change changes an object.
func (h *history) change(id string, f func(*object)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if o := h.objects[id]; o != nil {
		f(o)
	}
}

// forget takes an object out of what clients work on.
func (h *history) forget(id string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	o := h.objects[id]
	if o == nil {
		return
	}
	l := h.live[o.res]
	for i := range l {
		if l[i] == id {
			l[i] = l[len(l)-1]
			h.live[o.res] = l[:len(l)-1]
			return
		}
	}
}

// pick gives an object at random: mostly one of the worker's own, so that much
// succeeds, and at times anybody's, so that requests meet.
func (h *history) pick(rng *rand.Rand, res model.Resource, worker int) *object {
	h.mu.Lock()
	defer h.mu.Unlock()
	l := h.live[res]
	if len(l) == 0 {
		return nil
	}
	anybody := rng.IntN(5) == 0
	for range 8 {
		o := h.objects[l[rng.IntN(len(l))]]
		if o.owner == worker || anybody {
			c := *o
			return &c
		}
	}
	return nil
}

func (h *history) count(res model.Resource) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.live[res])
}

// of gives the story of one record.
func (h *history) of(id string) string {
	h.mu.Lock()
	defer h.mu.Unlock()
	var b strings.Builder
	for _, e := range h.entries {
		if e.id == id {
			fmt.Fprintf(&b, "\n    %s client %d: %s: %s %s", e.at.UTC().Format("15:04:05.000"), e.worker, e.op, e.answer, e.err)
		}
	}
	return b.String()
}

// summary counts requests by operation and answer.
func (h *history) summary() (string, int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	n := map[string][3]int{}
	for _, e := range h.entries {
		x := n[e.op]
		x[e.answer]++
		n[e.op] = x
	}
	var names []string
	for op := range n {
		names = append(names, op)
	}
	sort.Strings(names)
	var b strings.Builder
	for _, op := range names {
		fmt.Fprintf(&b, "\n  %-20s %5d accepted %5d refused %5d without an answer", op, n[op][0], n[op][1], n[op][2])
	}
	return b.String(), len(h.entries)
}

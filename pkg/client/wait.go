package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/osds-io/osds/pkg/model"
	"github.com/osds-io/osds/pkg/model/wire"
)

// DefaultWait is how long Wait waits if its context has no deadline.
const DefaultWait = 15 * time.Minute

// Between two looks without an event stream; and how long a stream is trusted
// before a look is taken all the same.
const (
	firstLook  = 100 * time.Millisecond
	maxLook    = 2 * time.Second
	trustEvent = 30 * time.Second
)

// Watched is a record as Wait sees it.
type Watched struct {
	Resource model.Resource
	ID, Name string
	Status   model.Status
	// StatusReason is why the record is in an error state.
	StatusReason string
	TaskID       string
	// TaskState is set where the record is a task.
	TaskState model.TaskState
	// Deleted says that the record is gone.
	Deleted bool
	// Raw is the record's JSON; nil if it is gone.
	Raw json.RawMessage
}

// State is the status in a word.
func (w *Watched) State() string {
	switch {
	case w.Deleted:
		return "deleted"
	case w.TaskState != "":
		return string(w.TaskState)
	}
	return string(w.Status)
}

func (w *Watched) settled() bool {
	if w.TaskState != "" {
		return w.TaskState.Done()
	}
	return w.Deleted || !w.Status.Transitional()
}

// WaitOptions change Wait.
type WaitOptions struct {
	// TaskID is the work that is waited for. If the record settles but this
	// work failed, so does Wait: a volume whose growing failed is available
	// again.
	TaskID string
	// Gone says that the record is being deleted: if it settles and is still
	// there, Wait fails.
	Gone bool
	// OnChange is called with the first look and at each change of state.
	OnChange func(*Watched)
	// OnTask is called with the work in progress at each look and event, for
	// those who show steps and failed tries; it costs one more question each.
	OnTask func(*wire.TaskSpec)
	// PollOnly does without the event stream.
	PollOnly bool
}

// FailedError says that what was waited for ended otherwise than asked.
type FailedError struct {
	Watched
	Reason string
}

func (e *FailedError) Error() string {
	noun := strings.TrimSuffix(string(e.Resource), "s")
	s := fmt.Sprintf("%s %s is %s", noun, e.ID, e.State())
	if e.Reason != "" {
		s += ": " + e.Reason
	}
	return s
}

// Wait waits until no work is going on on a record: by the event stream where
// the server has one, else by looking again and again. It holds out while the
// server cannot be reached. It gives the record as it was last seen, with a
// *FailedError if that is an error state, and with the context's error if that
// ended first.
func (c *Client) Wait(ctx context.Context, res model.Resource, id string, o WaitOptions) (*Watched, error) {
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, DefaultWait)
		defer cancel()
	}
	w := &waiter{c: c, res: res, id: id, o: o, last: &Watched{Resource: res, ID: id}, events: !o.PollOnly}
	pause := firstLook
	for {
		err := w.look(ctx)
		switch {
		case err == nil && w.last.settled():
			if done, err := w.verdict(ctx); done {
				return w.last, err
			}
		case err != nil && ctx.Err() == nil && !IsUnreachable(err) && !model.IsKind(err, model.KindUnavailable, model.KindUnknownOutcome):
			return w.last, err
		case err == nil && w.events && w.follow(ctx):
			pause = firstLook
			continue
		}
		if !sleep(ctx, pause) {
			return w.last, w.timeout(ctx, err)
		}
		pause = min(pause*3/2, maxLook)
	}
}

type waiter struct {
	c    *Client
	res  model.Resource
	id   string
	o    WaitOptions
	last *Watched
	// since is the revision of the last look.
	since  int64
	events bool
	told   bool
}

func (w *waiter) timeout(ctx context.Context, err error) error {
	if ctx.Err() == nil {
		<-ctx.Done() // sleep gave up a little before the deadline
	}
	if err != nil && w.last.Raw == nil { // never seen: the error says more
		return err
	}
	return fmt.Errorf("%s %s is still %s: %w", strings.TrimSuffix(string(w.res), "s"), w.id, w.last.State(), ctx.Err())
}

// saw keeps what is known of the record and tells of changes.
func (w *waiter) saw(raw json.RawMessage) error {
	n := &Watched{Resource: w.res, ID: w.id}
	if raw == nil {
		n.Deleted, n.Name = true, w.last.Name
	} else {
		var v struct {
			Name         string          `json:"name"`
			HostName     string          `json:"hostName"`
			Status       model.Status    `json:"status"`
			StatusReason string          `json:"statusReason"`
			TaskID       string          `json:"taskId"`
			State        model.TaskState `json:"state"`
			LastError    string          `json:"lastError"`
		}
		if err := json.Unmarshal(raw, &v); err != nil {
			return model.Errorf(model.KindInternal, "the record of %s %s is not understood: %w", w.res, w.id, err)
		}
		n.Name, n.Status, n.StatusReason, n.TaskID, n.Raw = v.Name+v.HostName, v.Status, v.StatusReason, v.TaskID, raw
		if w.res == ResTask {
			n.TaskState, n.StatusReason = v.State, v.LastError
		}
	}
	changed := !w.told || n.State() != w.last.State()
	w.last = n
	if changed && w.o.OnChange != nil {
		w.o.OnChange(n)
	}
	w.told = true
	return nil
}

// look reads the record.
func (w *waiter) look(ctx context.Context) error {
	p, err := idPath(paths[w.res], w.id)
	if err != nil {
		return err
	}
	var raw json.RawMessage
	ctx, cancel := context.WithTimeout(ctx, w.c.cfg.Timeout)
	defer cancel()
	a, err := w.c.call(ctx, newRequest(http.MethodGet, p, nil, nil, nil), &raw)
	if IsNotFound(err) && (w.o.Gone || w.told) {
		return w.saw(nil)
	}
	if err != nil {
		return err
	}
	// The answer's own revision, not the newest that the client has seen: a
	// change in between must come as an event.
	w.since, _ = strconv.ParseInt(a.header.Get(wire.HeaderRevision), 10, 64)
	if err := w.saw(raw); err != nil {
		return err
	}
	w.tellTask(ctx)
	return nil
}

// tellTask shows the work in progress to whoever wants to see it. It is only
// for show: errors do not matter.
func (w *waiter) tellTask(ctx context.Context) {
	id := w.last.TaskID
	if w.res == ResTask {
		id = w.id
	}
	if w.o.OnTask == nil || id == "" || w.last.settled() {
		return
	}
	if t, err := w.c.Tasks.Get(ctx, id); err == nil {
		w.o.OnTask(t)
	}
}

// follow reads events until the record settles, or the stream ends. It says
// whether an event came, so that looking again is worth while at once.
func (w *waiter) follow(ctx context.Context) bool {
	if w.since == 0 || w.res == ResTask {
		// Without a revision a change between look and stream would be
		// missed; and tasks have no events, their records do.
		w.events = false
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, trustEvent)
	defer cancel()
	came := false
	for e, err := range w.c.Events(ctx, EventsQuery{Since: w.since, Resource: w.res, ID: w.id}) {
		if err != nil {
			if ctx.Err() == nil && permanent(err) {
				w.events = false
			}
			return came
		}
		if e.Type == wire.EventResync {
			return came
		}
		if e.ResourceID != w.id {
			continue
		}
		came = true
		raw := e.Object
		if e.Type == wire.EventDeleted {
			raw = nil
		}
		if e.Type != wire.EventDeleted && len(raw) == 0 {
			return true
		}
		if w.saw(raw) != nil || w.last.settled() {
			return true
		}
		w.tellTask(ctx)
	}
	return came
}

// verdict says whether a settled record is what was asked for. done is false if
// the work in question turns out to be going on.
func (w *waiter) verdict(ctx context.Context) (done bool, err error) {
	r := w.last
	switch {
	case r.Deleted && w.o.Gone:
		return true, nil
	case r.Deleted:
		return true, &FailedError{Watched: *r, Reason: "it was deleted while it was waited for"}
	case r.TaskState == model.TaskFailed || r.TaskState == model.TaskCancelled || r.Status.Failed():
		return true, &FailedError{Watched: *r, Reason: r.StatusReason}
	}
	if w.o.TaskID != "" && r.TaskID == w.o.TaskID && w.res != ResTask {
		t, err := w.c.Tasks.Get(ctx, w.o.TaskID)
		var refused *Error
		switch {
		case errors.As(err, &refused) || (err == nil && t.State == model.TaskSucceeded):
			// A server without tasks, or one that forgot it: the record decides.
		case err != nil || !t.State.Done():
			return false, nil
		default:
			reason := t.LastError
			if reason == "" {
				reason = "its task is " + string(t.State)
			}
			return true, &FailedError{Watched: *r, Reason: reason}
		}
	}
	if w.o.Gone {
		reason := r.StatusReason
		if reason == "" {
			reason = "it was not deleted"
		}
		return true, &FailedError{Watched: *r, Reason: reason}
	}
	return true, nil
}

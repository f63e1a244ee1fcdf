package client

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"math/rand/v2"
	"mime"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/osds-io/osds/pkg/model"
	"github.com/osds-io/osds/pkg/model/wire"
)

const (
	// streamIdle is how long a stream may be silent, keep-alives included,
	// before it counts as broken.
	streamIdle = 90 * time.Second
	// maxEvent bounds one line of a stream.
	maxEvent = 8 << 20
)

// EventsQuery says which events to follow.
type EventsQuery struct {
	// Since is the revision after which events are wanted: that of a list.
	// 0 means from now on.
	Since int64
	// LastEventID goes on after an event seen earlier; it comes before Since.
	LastEventID string
	// Resource and ID narrow the stream down.
	Resource model.Resource
	ID       string
	// OnBreak, if set, is told of each break of the connection, before it is
	// made again.
	OnBreak func(error)
}

// Events follows the changes of records, in order and without gaps. It makes
// the connection again when it breaks, on any endpoint, and goes on after the
// last event it gave. It ends with the context, when the consumer stops, with an
// error that repeating does not mend, or with a resync event: the server's
// history does not reach back far enough, and the consumer must list again and
// follow from that list's revision.
func (c *Client) Events(ctx context.Context, q EventsQuery) iter.Seq2[*wire.EventSpec, error] {
	return func(yield func(*wire.EventSpec, error) bool) {
		s := &stream{c: c, q: q, last: q.LastEventID, since: q.Since, yield: yield}
		failures, connected := 0, false
		pause := firstPause
		for {
			ep := c.endpoint()
			s.progress = false
			err := s.run(ctx, ep)
			if s.done || ctx.Err() != nil {
				if !s.done {
					yield(nil, context.Cause(ctx))
				}
				return
			}
			if connected = connected || s.progress; s.progress {
				failures, pause = 0, firstPause
			}
			failures++
			if permanent(err) || (!connected && failures > max(0, c.cfg.Retries)+len(c.endpoints)-1) {
				yield(nil, err)
				return
			}
			c.moveOn(ep)
			if q.OnBreak != nil {
				q.OnBreak(err)
			}
			if !sleep(ctx, time.Duration(rand.Int64N(int64(pause)))+pause/4) {
				yield(nil, err)
				return
			}
			pause = min(2*pause, maxPause)
		}
	}
}

// permanent says whether a stream's error will be the same the next time.
func permanent(err error) bool {
	var refused *Error
	if errors.As(err, &refused) {
		return !transient(refused.Code) && refused.Code < 500
	}
	return isTLSTrust(err) || model.IsKind(err, model.KindUnsupported)
}

// stream is the state of Events over its connections.
type stream struct {
	c     *Client
	q     EventsQuery
	yield func(*wire.EventSpec, error) bool
	// last is the id of the last event given, since where to begin if there
	// was none.
	last  string
	since int64
	// progress says that the connection stood; done that nobody wants more.
	progress, done bool
}

func (s *stream) request() *request {
	v := url.Values{}
	if s.since > 0 {
		v.Set("since", strconv.FormatInt(s.since, 10))
	}
	if s.q.Resource != "" {
		v.Set("resource", string(s.q.Resource))
	}
	if s.q.ID != "" {
		v.Set("id", s.q.ID)
	}
	rq := newRequest(http.MethodGet, "events", v, nil, []Option{Header("Accept", "text/event-stream"), Header("Cache-Control", "no-cache")})
	if s.last != "" {
		rq.header.Set("Last-Event-ID", s.last)
	}
	return rq
}

// run follows one connection to its end.
func (s *stream) run(ctx context.Context, ep *url.URL) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	idle := time.AfterFunc(streamIdle, func() { cancel(fmt.Errorf("the stream was silent for %s", streamIdle)) })
	defer idle.Stop()
	resp, _, err := s.c.send(ctx, ep, s.request())
	if err != nil {
		return &Unreachable{Endpoint: ep.String(), Reads: true, Err: err}
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode == http.StatusGone {
		s.resync(&wire.EventSpec{})
		return nil
	}
	if resp.StatusCode != http.StatusOK {
		body, _ := io.ReadAll(io.LimitReader(resp.Body, maxErrorAnswer))
		return errorOf(resp, body)
	}
	if t, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type")); t != "text/event-stream" {
		return model.Errorf(model.KindUnsupported, "the server at %s has no event stream (it answered with %q)", ep, t)
	}
	s.progress = true
	if rev, err := strconv.ParseInt(resp.Header.Get(wire.HeaderRevision), 10, 64); err == nil && s.since == 0 && s.last == "" {
		// "From now on" is fixed by the first connection, so that a break
		// before the first event loses nothing.
		s.since = rev
	}
	if err := s.read(resp.Body, idle); err != nil {
		return &Unreachable{Endpoint: ep.String(), Sent: true, Reads: true, Err: err}
	}
	return nil
}

// read parses server-sent events until the body ends or nobody wants more.
func (s *stream) read(body io.Reader, idle *time.Timer) error {
	sc := bufio.NewScanner(body)
	sc.Buffer(make([]byte, 64<<10), maxEvent)
	var id, event string
	var data []byte
	for sc.Scan() {
		idle.Reset(streamIdle)
		line := sc.Bytes()
		if len(line) == 0 {
			if len(data) > 0 || event == string(wire.EventResync) {
				s.dispatch(id, event, data)
				if s.done {
					return nil
				}
			}
			// An id without data says how far the stream has come.
			s.last = first(id, s.last)
			id, event, data = "", "", data[:0]
			continue
		}
		name, value, _ := bytes.Cut(line, []byte(":"))
		value = bytes.TrimPrefix(value, []byte(" "))
		switch string(name) {
		case "id":
			id = string(value)
		case "event":
			event = string(value)
		case "data":
			if len(data) > 0 {
				data = append(data, '\n')
			}
			data = append(data, value...)
		}
		// Comments (an empty name) keep the connection alive; other fields
		// are of no use here.
	}
	if err := sc.Err(); err != nil {
		return err
	}
	return io.ErrUnexpectedEOF
}

// dispatch gives one event to the consumer. An event that is not understood is
// passed over: a newer server may have kinds that this client does not know.
func (s *stream) dispatch(id, event string, data []byte) {
	e := &wire.EventSpec{}
	if len(data) > 0 && json.Unmarshal(data, e) != nil {
		e = &wire.EventSpec{}
	}
	if e.ID == "" {
		e.ID = id
	}
	if e.Type == "" {
		e.Type = wire.EventType(event)
	}
	if e.Type == wire.EventResync || event == string(wire.EventResync) {
		s.resync(e)
		return
	}
	if e.ResourceID != "" && !s.yield(e, nil) {
		s.done = true
	}
	s.c.sawRevision(e.Revision)
}

func first(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

func (s *stream) resync(e *wire.EventSpec) {
	e.Type = wire.EventResync
	s.yield(e, nil)
	s.done = true
}

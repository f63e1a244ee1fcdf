package api

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/gorilla/mux"

	"github.com/osds-io/osds/pkg/db"
	"github.com/osds-io/osds/pkg/model"
)

const (
	headerLastEventID = "Last-Event-Id" // canonical
	// eventBatch is how many events are read, and written, at a time.
	eventBatch = 512
	// eventFlush is how many bytes are gathered before they are sent.
	eventFlush = 128 << 10
	// maxStreams bounds the streams of one server.
	maxStreams = 1024
)

func (s *Server) routesEvents(r *mux.Router) {
	s.tenantHandle(r, "/events", methods{http.MethodGet: s.streamEvents}).stream = true
}

// streams counts the open streams and ends them all at once.
type streams struct {
	ctx context.Context
	end context.CancelFunc
	mu  sync.Mutex
	n   int
	// keepAlive is how often a silent stream says that it lives.
	keepAlive time.Duration
	// write is how long a client may take for what is sent at a time.
	write time.Duration
	// ahead is how long a stream waits for a position that this server has not
	// reached; its client may have it from another server.
	ahead time.Duration
}

func newStreams() *streams {
	x := &streams{keepAlive: 15 * time.Second, write: 10 * time.Second, ahead: 2 * time.Second}
	x.ctx, x.end = context.WithCancel(context.Background())
	return x
}

// enter counts a stream in, if there is room.
func (x *streams) enter() error {
	x.mu.Lock()
	defer x.mu.Unlock()
	switch {
	case x.ctx.Err() != nil:
		return model.Errorf(model.KindUnavailable, "shutting down")
	case x.n >= maxStreams:
		return model.Errorf(model.KindUnavailable, "there are %d event streams already: end some, or use another server", x.n)
	}
	x.n++
	return nil
}

func (x *streams) leave() {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.n--
}

func (x *streams) open() int {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.n
}

// position is where a stream stands: behind event n of a revision, or behind all
// of it if n is negative.
type position struct {
	rev int64
	n   int
}

func (p position) String() string {
	if p.n < 0 {
		return strconv.FormatInt(p.rev, 10)
	}
	return strconv.FormatInt(p.rev, 10) + "." + strconv.Itoa(p.n)
}

// parsePosition reads "<revision>" or "<revision>.<n>".
func parsePosition(field, s string) (position, error) {
	bad := model.Invalid(field, "%s %q is not a position in the stream: use a revision, or the id of an event", field, shorten(s))
	digits := func(s string) bool {
		return s != "" && strings.Trim(s, "0123456789") == ""
	}
	r, n, has := strings.Cut(s, ".")
	if !digits(r) || (has && !digits(n)) {
		return position{}, bad
	}
	p := position{n: -1}
	var err error
	if p.rev, err = strconv.ParseInt(r, 10, 64); err != nil {
		return p, bad
	}
	if has {
		if p.n, err = strconv.Atoi(n); err != nil {
			return p, bad
		}
	}
	return p, nil
}

// eventFilter says what one stream shows.
type eventFilter struct {
	tenant    string // whose records; empty for all
	resources []model.Resource
	ids       []string
}

// tenantResources are what a tenant may see: those of its own records, and what
// belongs to no tenant but is every tenant's to know.
var tenantResources = []model.Resource{model.ResPool, model.ResProfile, model.ResHost, model.ResVolume,
	model.ResSnapshot, model.ResAttachment, model.ResGroup}

var adminResources = append(slices.Clone(tenantResources), model.ResDock, model.ResDebt, model.ResLedger)

// eventFilter reads the query.
func (c *call) eventFilter(v url.Values) (*eventFilter, error) {
	f := &eventFilter{tenant: c.scope()}
	resources := fields(v["resource"])
	if f.ids = fields(v["id"]); len(f.ids) > maxFilterValues {
		return nil, model.Invalid("id", "%d ids are given, at most %d are allowed", len(f.ids), maxFilterValues)
	}
	if len(resources) > len(adminResources) {
		return nil, model.Invalid("resource", "%d resources are given, and there are %d", len(resources), len(adminResources))
	}
	for _, s := range resources {
		r := model.Resource(s)
		switch {
		case !slices.Contains(adminResources, r):
			return nil, model.Invalid("resource", "resource %q has no events: use some of %s", shorten(s), join(adminResources))
		case !c.admin && !slices.Contains(tenantResources, r):
			return nil, &model.Error{Kind: model.KindDenied, Field: "resource", Message: "events of " + s + " are for administrators"}
		}
		f.resources = append(f.resources, r)
	}
	if len(f.resources) == 0 {
		// Each placement changes an account: that is noise to whoever does not
		// ask for it.
		f.resources = slices.DeleteFunc(slices.Clone(adminResources), func(r model.Resource) bool { return r == model.ResLedger })
		if !c.admin {
			f.resources = tenantResources
		}
	}
	return f, nil
}

// fields splits values that may be repeated or separated by commas.
func fields(vs []string) (out []string) {
	for _, v := range vs {
		for _, s := range strings.Split(v, ",") {
			if s = strings.TrimSpace(s); s != "" {
				out = append(out, s)
			}
		}
	}
	return out
}

func join[T ~string](vs []T) string {
	out := make([]string, len(vs))
	for i, v := range vs {
		out[i] = string(v)
	}
	return strings.Join(out, ", ")
}

// wants says whether the stream shows a record.
func (f *eventFilter) wants(r model.Record) bool {
	res := r.Res()
	if !slices.Contains(f.resources, res) {
		return false
	}
	b := r.Base()
	if f.tenant != "" && b.TenantID != f.tenant && res != model.ResPool && res != model.ResProfile {
		return false
	}
	return len(f.ids) == 0 || slices.Contains(f.ids, b.ID)
}

// streamEvents writes changes as server-sent events until the client goes, the
// server ends, or the reader is so slow that it lost some.
func (s *Server) streamEvents(c *call) error {
	v, err := url.ParseQuery(c.r.URL.RawQuery)
	if err != nil {
		return model.Errorf(model.KindInvalid, "the query string is not well-formed: %w", err)
	}
	f, err := c.eventFilter(v)
	if err != nil {
		return err
	}
	at, given := position{rev: c.rev, n: -1}, false // as X-Osds-Revision says
	for _, from := range []struct{ name, value string }{
		{"Last-Event-ID", c.r.Header.Get(headerLastEventID)}, {"since", v.Get("since")},
	} {
		if from.value == "" || given {
			continue
		}
		if at, err = parsePosition(from.name, from.value); err != nil {
			return err
		}
		given = true
	}
	if err := s.streams.enter(); err != nil {
		return err
	}
	defer s.streams.leave()
	ctx, cancel := context.WithCancel(c.ctx)
	defer cancel()
	defer context.AfterFunc(s.streams.ctx, cancel)()

	c.w.Header()["Cache-Control"] = []string{"no-store"}
	c.w.Header()["X-Accel-Buffering"] = []string{"no"} // proxies must pass it on at once
	w := &eventWriter{s: s, rc: http.NewResponseController(c.w), f: f, at: at}
	// A server's read timeout is for requests, and would end the stream.
	_ = w.rc.SetReadDeadline(time.Time{})
	w.w = c.Stream(http.StatusOK, "text/event-stream")
	// Its answer is its beginning: how long it stays open says nothing.
	s.stats.observe(c.stats, http.StatusOK, time.Since(c.start))
	c.counted = true
	w.run(ctx)
	return nil
}

// run writes events until the end of the stream.
func (w *eventWriter) run(ctx context.Context) {
	st, ok := w.begin(ctx)
	if !ok {
		w.resync()
		return
	}
	w.hello()
	for w.flush() == nil {
		wait, cancel := context.WithTimeout(ctx, time.Until(w.sent.Add(w.s.streams.keepAlive)))
		evs, err := st.Next(wait, eventBatch)
		cancel()
		switch {
		case err == nil:
			if w.events(evs) != nil {
				return
			}
		case ctx.Err() != nil:
			return
		case errors.Is(err, context.DeadlineExceeded):
			w.keepAlive()
		case err == error(db.ErrResync):
			w.resync()
			return
		default: // the store is closing
			return
		}
		if time.Since(w.sent) >= w.s.streams.keepAlive {
			w.keepAlive()
		}
	}
}

// begin finds the stream's beginning in the history.
func (w *eventWriter) begin(ctx context.Context) (*db.Stream, bool) {
	if w.at.rev > w.s.Store.Rev() {
		// Read from a server that is ahead of this one, or from a store that
		// was set back to an older state since.
		wait, cancel := context.WithTimeout(ctx, w.s.streams.ahead)
		defer cancel()
		if w.s.Store.WaitRev(wait, w.at.rev) != nil {
			return nil, false
		}
	}
	return w.s.Store.Stream(w.at.rev, w.at.n)
}

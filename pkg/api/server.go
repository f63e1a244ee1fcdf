package api

import (
	"context"
	"net/http"
	"time"

	"github.com/gorilla/mux"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/sirupsen/logrus"

	"github.com/osds-io/osds/pkg/db"
	"github.com/osds-io/osds/pkg/model"
	"github.com/osds-io/osds/pkg/model/wire"
)

// Planner says where a volume would be placed, and why.
type Planner interface {
	// Explain plans v, which is as it would be created, and writes nothing.
	// At most maxPools pools are listed.
	Explain(ctx context.Context, v *model.Volume, maxPools int) (*model.Explanation, error)
}

// Doctor checks the invariants.
type Doctor interface {
	Check(ctx context.Context) (*wire.DoctorReport, error)
}

// Deps is what the server is made of. Only Store is required.
type Deps struct {
	Store   *db.Store
	Planner Planner
	// PoolView gives a pool's live figures; nil shows the record's own and the
	// ledger's.
	PoolView func(*model.Pool) (total, free, reserved model.Bytes, status model.Status)
	// PoolFills gives the live fills of a pool's parts; nil knows of none.
	PoolFills func(*model.Pool) []model.Fill
	Doctor    Doctor
	Finder    Finder
	// Leader says who runs the controllers; nil if unknown.
	Leader  func() *db.LeaderInfo
	Log     *logrus.Entry
	Metrics prometheus.Registerer
	// Strict refuses body fields that are not part of the API, which the
	// original ignores.
	Strict bool
	// MaxBody bounds a request's body in bytes; 0 means 1 MiB.
	MaxBody int64
	// RequestTimeout is every handler's deadline, but for streams; 0 means 30 s.
	RequestTimeout time.Duration
	Now            func() time.Time
}

// Bounds that are not configurable.
const (
	defaultMaxBody = 1 << 20
	defaultTimeout = 30 * time.Second
	// minRevisionWait is how long a request waits for the revision that its
	// client has seen elsewhere.
	minRevisionWait = 5 * time.Second
	// maxTries is how often a change is built anew after it collided with
	// another one.
	maxTries = 16
)

// Server is the REST server: an http.Handler.
type Server struct {
	Deps
	router    *mux.Router
	endpoints []*endpoint
	locks     *keyedLocks
	ids       *requestIDs
	leases    leases
	stats     *stats
	tasks     *taskIndex
	streams   *streams
}

// New makes the server.
func New(d Deps) *Server { return newServer(d) }

// Close ends event streams, which would otherwise hold up a shutdown, and the
// server's look at the store. Other requests are still answered.
func (s *Server) Close() {
	s.streams.end()
	s.tasks.stop()
}

func newServer(d Deps) *Server {
	if d.MaxBody <= 0 {
		d.MaxBody = defaultMaxBody
	}
	if d.RequestTimeout <= 0 {
		d.RequestTimeout = defaultTimeout
	}
	if d.Now == nil {
		d.Now = time.Now
	}
	if d.Log == nil {
		d.Log = logrus.NewEntry(logrus.StandardLogger())
	}
	if d.Leader == nil {
		d.Leader = func() *db.LeaderInfo { return nil }
	}
	if d.Metrics == nil {
		d.Metrics = prometheus.NewRegistry()
	}
	s := &Server{Deps: d, router: mux.NewRouter().SkipClean(true), locks: newKeyedLocks(), ids: newRequestIDs()}
	s.stats = newStats(d.Metrics)
	s.tasks, s.streams = newTaskIndex(d.Store, s.now), newStreams()
	s.routes(s.router)
	return s
}

// ServeHTTP serves one request.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c := &call{s: s, w: w, r: r, ctx: r.Context(), start: time.Now(), id: s.requestID(r)}
	w.Header().Set(wire.HeaderRequestID, c.id)
	defer c.finish()
	path, err := checkPath(r.URL)
	if err != nil {
		c.fail(err)
		return
	}
	r.URL.Path = path
	var m mux.RouteMatch
	if !s.router.Match(r, &m) {
		c.fail(model.Errorf(model.KindNotFound, "there is nothing at %s", shorten(r.URL.Path)))
		return
	}
	if e, ok := m.Handler.(*endpoint); ok {
		c.endpoint, c.vars = e, m.Vars
		e.serve(c)
		return
	}
	// A handler of another package; it knows nothing of calls.
	rec := &recorder{ResponseWriter: w}
	m.Handler.ServeHTTP(rec, mux.SetURLVars(r, m.Vars))
	c.status, c.started = rec.status, true
}

// now is the time in UTC.
func (s *Server) now() time.Time { return s.Now().UTC() }

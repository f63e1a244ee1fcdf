package api

import (
	"context"
	"crypto/rand"
	"encoding/base32"
	"net/http"
	"net/url"
	"runtime/debug"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/osds-io/osds/pkg/db"
	"github.com/osds-io/osds/pkg/model"
	"github.com/osds-io/osds/pkg/model/wire"
)

// call is one request being served, and who asks.
type call struct {
	s        *Server
	w        http.ResponseWriter
	r        *http.Request
	ctx      context.Context
	vars     map[string]string
	endpoint *endpoint
	stats    *routeStats
	start    time.Time

	id     string // the request id
	tenant string // the URL's
	admin  bool
	user   string

	body    []byte // once read
	gotBody bool
	rev     int64 // what the answer reflects
	status  int
	started bool // the answer's head is written
	counted bool // in the metrics
	err     error
}

// store is the store.
func (c *call) store() *db.Store { return c.s.Store }

// scope is the tenant whose records the caller may see; empty for all.
func (c *call) scope() string {
	if c.admin {
		return ""
	}
	return c.tenant
}

// pathID gives a path variable that is a record's id. An id that cannot exist is
// simply not found by those who look for it.
func (c *call) pathID(name string) string { return c.vars[name] }

// begin says who asks, and waits for the revision that the caller has seen.
func (c *call) begin(e *endpoint) error {
	if e.tenant {
		c.tenant = c.vars["tenantId"]
		if !model.ValidTenant(c.tenant) {
			return model.Invalid("tenantId", "tenant id %q is not valid: use 1 to 64 letters, digits, '-' and '_'", shorten(c.tenant))
		}
		// Without authentication the URL says who asks, as in the original.
		c.admin = c.tenant == model.AdminTenant
	}
	if h := c.r.Header.Get(wire.HeaderMinRevision); h != "" {
		rev, err := strconv.ParseInt(h, 10, 64)
		if err != nil || rev < 0 {
			return model.Invalid(wire.HeaderMinRevision, "%s %q is not a revision", wire.HeaderMinRevision, shorten(h))
		}
		if c.store().Rev() < rev {
			ctx, cancel := context.WithTimeout(c.ctx, minRevisionWait)
			defer cancel()
			if err := c.store().WaitRev(ctx, rev); err != nil {
				return err
			}
		}
	}
	// Taken before anything is read: the answer shows at least this.
	c.rev = c.store().Rev()
	return nil
}

// finish logs and counts, and answers for a handler that panicked.
func (c *call) finish() {
	if p := recover(); p != nil {
		if p == http.ErrAbortHandler {
			panic(p)
		}
		c.s.Log.WithFields(logrus.Fields{"request": c.id, "method": c.r.Method, "path": c.r.URL.Path, "stack": string(debug.Stack())}).
			Errorf("panic: %v", p)
		if c.started {
			// Half an answer must not look like a whole one.
			defer panic(http.ErrAbortHandler)
		} else {
			c.fail(model.Errorf(model.KindInternal, "internal error; the log has the details under request id %s", c.id))
		}
	}
	d := time.Since(c.start)
	if !c.counted {
		c.s.stats.observe(c.stats, c.status, d)
	}
	c.log(d)
}

// log writes the access log: changes and errors for operators, reads only for
// those who debug.
func (c *call) log(d time.Duration) {
	level := logrus.InfoLevel
	switch {
	case c.status == http.StatusServiceUnavailable && c.r.URL.Path == "/readyz":
		// An answer, not a failure; who probes asks every few seconds.
		level = logrus.DebugLevel
	case c.status >= 500:
		level = logrus.ErrorLevel
	case c.status >= 400, c.r.Method != http.MethodGet && c.r.Method != http.MethodHead:
	default:
		level = logrus.DebugLevel
	}
	if !c.s.Log.Logger.IsLevelEnabled(level) {
		return
	}
	f := logrus.Fields{"request": c.id, "method": c.r.Method, "path": c.r.URL.Path, "status": c.status,
		"duration": d.Round(time.Microsecond).String(), "remote": c.r.RemoteAddr}
	if c.err != nil {
		f["error"] = c.err.Error()
	}
	c.s.Log.WithFields(f).Log(level, "request")
}

// checkPath refuses paths that mean one thing to a proxy and another one here,
// and gives the path to route by: one slash at the end is ignored.
func checkPath(u *url.URL) (string, error) {
	p := u.Path
	if strings.Contains(p, "//") || strings.Contains(p, "/.") && dotSegment(p) || strings.ContainsFunc(p, func(r rune) bool { return r < 0x20 || r == 0x7f }) ||
		(u.RawPath != "" && strings.Contains(strings.ToLower(u.RawPath), "%2f")) {
		return "", model.Errorf(model.KindNotFound, "there is nothing at this path: it has empty, relative or encoded parts")
	}
	if len(p) > 1 && p[len(p)-1] == '/' {
		p = p[:len(p)-1]
	}
	return p, nil
}

func dotSegment(p string) bool {
	for _, s := range strings.Split(p, "/") {
		if s == "." || s == ".." {
			return true
		}
	}
	return false
}

// requestIDs makes ids that are unique over processes and cost little.
type requestIDs struct {
	prefix string
	n      atomic.Uint64
}

func newRequestIDs() *requestIDs {
	var b [10]byte
	_, _ = rand.Read(b[:])
	return &requestIDs{prefix: strings.ToLower(base32.StdEncoding.EncodeToString(b[:])) + "-"}
}

func (s *Server) requestID(r *http.Request) string {
	if id := r.Header.Get(wire.HeaderRequestID); validToken(id, 128) {
		return id
	}
	return s.ids.prefix + strconv.FormatUint(s.ids.n.Add(1), 36)
}

// validToken says whether s is 1 to max printable ASCII characters without a
// space, quote or backslash: safe in a header and in a log.
func validToken(s string, max int) bool {
	if s == "" || len(s) > max {
		return false
	}
	for i := 0; i < len(s); i++ {
		if b := s[i]; b <= ' ' || b >= 0x7f || b == '"' || b == '\\' {
			return false
		}
	}
	return true
}

// shorten bounds what of a client's text is repeated in a message.
func shorten(s string) string {
	const max = 128
	if len(s) > max {
		s = strings.ToValidUTF8(s[:max], "") + "..."
	}
	return s
}

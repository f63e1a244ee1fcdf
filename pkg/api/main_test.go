package api

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/osds-io/osds/pkg/db"
	"github.com/osds-io/osds/pkg/model"
	"github.com/osds-io/osds/pkg/model/wire"
)

// testStore is shared by all tests of the package: an etcd takes half a second
// to start. Each test has tenants, pools and profiles of its own.
var testStore *db.Store

func TestMain(m *testing.M) {
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "osds-api-")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(dir)
		log := logrus.New()
		log.SetLevel(logrus.WarnLevel)
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		if testStore, err = db.Open(ctx, db.Config{Embedded: db.Embedded{Dir: dir}, Log: logrus.NewEntry(log)}); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer testStore.Close()
		return complete(m.Run())
	}())
}

var testNumber atomic.Int64

// unique gives a name that no other test has.
func unique(prefix string) string {
	return fmt.Sprintf("%s-%d-%d", prefix, os.Getpid(), testNumber.Add(1))
}

// env is a server over the shared store, and a tenant of its own.
type env struct {
	t      testing.TB
	s      *Server
	store  *db.Store
	url    string
	tenant string
	client *http.Client
}

func newEnv(t testing.TB, change ...func(*Deps)) *env {
	t.Helper()
	log := logrus.New()
	log.SetLevel(logrus.PanicLevel)
	d := Deps{Store: testStore, Log: logrus.NewEntry(log)}
	for _, f := range change {
		f(&d)
	}
	s := newServer(d)
	srv := httptest.NewServer(s)
	t.Cleanup(func() { s.Close(); srv.Close() })
	return &env{t: t, s: s, store: d.Store, url: srv.URL, tenant: unique("tenant"), client: checked(t)}
}

// as gives the same server for another tenant.
func (e *env) as(tenant string) *env {
	c := *e
	c.tenant = tenant
	return &c
}

func (e *env) admin() *env { return e.as(model.AdminTenant) }

// reply is an answer.
type reply struct {
	t      testing.TB
	what   string
	Status int
	Header http.Header
	Body   string
}

// do sends a request. path is below the tenant, or from the root if it begins
// with "//". body is a string, or anything to encode. headers are name and value
// in turn.
func (e *env) do(method, path string, body any, headers ...string) *reply {
	e.t.Helper()
	var rd io.Reader
	switch b := body.(type) {
	case nil:
	case string:
		rd = strings.NewReader(b)
	default:
		j, err := json.Marshal(b)
		if err != nil {
			e.t.Fatal(err)
		}
		rd = bytes.NewReader(j)
	}
	u := e.url + "/v1beta/" + e.tenant + path
	if strings.HasPrefix(path, "//") {
		u = e.url + path[1:]
	}
	r, err := http.NewRequest(method, u, rd)
	if err != nil {
		e.t.Fatal(err)
	}
	for i := 0; i+1 < len(headers); i += 2 {
		r.Header.Add(headers[i], headers[i+1])
	}
	resp, err := e.client.Do(r)
	if err != nil {
		e.t.Fatalf("%s %s: %v", method, path, err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		e.t.Fatalf("%s %s: %v", method, path, err)
	}
	return &reply{t: e.t, what: method + " " + path, Status: resp.StatusCode, Header: resp.Header, Body: string(b)}
}

func (e *env) get(path string, headers ...string) *reply {
	e.t.Helper()
	return e.do("GET", path, nil, headers...)
}

func (e *env) post(path string, body any, headers ...string) *reply {
	e.t.Helper()
	return e.do("POST", path, body, headers...)
}

func (e *env) put(path string, body any, headers ...string) *reply {
	e.t.Helper()
	return e.do("PUT", path, body, headers...)
}

func (e *env) del(path string, headers ...string) *reply {
	e.t.Helper()
	return e.do("DELETE", path, nil, headers...)
}

// want checks the status.
func (r *reply) want(status int) *reply {
	r.t.Helper()
	if r.Status != status {
		r.t.Fatalf("%s: status %d, want %d: %s", r.what, r.Status, status, r.Body)
	}
	return r
}

// into decodes the body.
func (r *reply) into(v any) *reply {
	r.t.Helper()
	if err := json.Unmarshal([]byte(r.Body), v); err != nil {
		r.t.Fatalf("%s: %v: %s", r.what, err, r.Body)
	}
	return r
}

// fails checks an error answer as a whole: status, kind, field, and a part of
// the message.
func (r *reply) fails(status int, kind model.Kind, field, message string) *reply {
	r.t.Helper()
	r.want(status)
	var e wire.ErrorSpec
	r.into(&e)
	if e.Code != status || e.Kind != kind || e.Field != field || !strings.Contains(e.Message, message) {
		r.t.Fatalf("%s: %+v, want kind %s, field %q, message with %q", r.what, e, kind, field, message)
	}
	if ct := r.Header.Get("Content-Type"); ct != contentJSON {
		r.t.Fatalf("%s: content type %q", r.what, ct)
	}
	if e.RequestID == "" || e.RequestID != r.Header.Get(wire.HeaderRequestID) {
		r.t.Fatalf("%s: request id %q in the body, %q in the header", r.what, e.RequestID, r.Header.Get(wire.HeaderRequestID))
	}
	return r
}

// commit writes to the store as a controller would.
func (e *env) commit(t *db.Txn) {
	e.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	rev, err := e.store.Commit(ctx, t)
	if err == nil {
		err = e.store.WaitRev(ctx, rev)
	}
	if err != nil {
		e.t.Fatalf("commit %s: %v", t.Label, err)
	}
}

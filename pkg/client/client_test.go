package client

import (
	"context"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/osds-io/osds/pkg/model"
	"github.com/osds-io/osds/pkg/model/wire"
)

const base = "/v1beta/" + model.AdminTenant

// seen is a request as the server got it.
type seen struct {
	method, path, query, body string
	header                    http.Header
}

// play is a server that answers each request by a function and keeps them all.
type play struct {
	*httptest.Server
	mu   sync.Mutex
	reqs []seen
}

func (p *play) requests() []seen {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]seen(nil), p.reqs...)
}

func (p *play) last() seen {
	r := p.requests()
	return r[len(r)-1]
}

func serve(t *testing.T, answer func(n int, w http.ResponseWriter, r *http.Request)) *play {
	t.Helper()
	p := &play{}
	p.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		p.mu.Lock()
		p.reqs = append(p.reqs, seen{r.Method, r.URL.Path, r.URL.RawQuery, string(body), r.Header.Clone()})
		n := len(p.reqs)
		p.mu.Unlock()
		answer(n, w, r)
	}))
	t.Cleanup(p.Close)
	return p
}

func newClient(t *testing.T, cfg Config, servers ...*play) *Client {
	t.Helper()
	for _, s := range servers {
		cfg.Endpoints = append(cfg.Endpoints, s.URL)
	}
	c, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// closedEndpoint is an address where nobody listens.
func closedEndpoint(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return "http://" + l.Addr().String()
}

func jsonAnswer(w http.ResponseWriter, code int, body string) {
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(code)
	_, _ = io.WriteString(w, body)
}

func TestConfig(t *testing.T) {
	for _, cfg := range []Config{
		{Endpoints: []string{"ftp://x"}}, {Endpoints: []string{"http://"}}, {Endpoints: []string{"http://u:p@h:1"}},
		{Endpoints: []string{"http://h?x=1"}}, {TenantID: "../x"}, {CAFile: "/does/not/exist"}, {CertFile: "x"},
	} {
		if _, err := New(cfg); !model.IsKind(err, model.KindInvalid) {
			t.Errorf("%+v: %v", cfg, err)
		}
	}
	c := newClient(t, Config{Endpoints: []string{"localhost:50040/"}})
	if c.Endpoint() != "http://localhost:50040" || c.TenantID() != model.AdminTenant {
		t.Error(c.Endpoint(), c.TenantID())
	}
}

func TestRequestBodies(t *testing.T) {
	p := serve(t, func(_ int, w http.ResponseWriter, _ *http.Request) { jsonAnswer(w, 202, `{"id":"x"}`) })
	c := newClient(t, Config{UserAgent: "test/1", Token: "tok"}, p)
	ctx := t.Context()
	for _, x := range []struct {
		call               func() error
		method, path, body string
	}{
		{func() error {
			_, err := c.Volumes.Create(ctx, &wire.VolumeSpec{Name: "v1", Size: 1, Description: "x"})
			return err
		},
			"POST", "/block/volumes", `{"description":"x","name":"v1","size":1}`},
		{func() error { _, err := c.ExtendVolume(ctx, "U3", 3); return err }, "POST", "/block/volumes/U3/resize", `{"newSize":3}`},
		{func() error {
			_, err := c.Volumes.Update(ctx, "U3", &wire.VolumeSpec{Name: "v1b", Metadata: map[string]string{"a": "b"}})
			return err
		}, "PUT", "/block/volumes/U3", `{"metadata":{"a":"b"},"name":"v1b"}`},
		{func() error {
			_, err := c.ResizeVolume(ctx, "U3", &wire.ExtendVolumeSpec{NewSize: 3, GrowFileSystem: true})
			return err
		}, "POST", "/block/volumes/U3/resize", `{"newSize":3,"growFileSystem":true}`},
		{func() error { return c.Attachments.Delete(ctx, "U9", Force()) }, "DELETE", "/block/attachments/U9", ""},
		{func() error { return c.Volumes.Delete(ctx, "U3") }, "DELETE", "/block/volumes/U3", ""},
		{func() error {
			_, err := c.Snapshots.Create(ctx, &wire.VolumeSnapshotSpec{Name: "s1", VolumeID: "U3"})
			return err
		}, "POST", "/block/snapshots", `{"name":"s1","volumeId":"U3"}`},
		{func() error { _, err := c.RevertToSnapshot(ctx, "U7", nil); return err }, "POST", "/block/snapshots/U7/revert", `{}`},
		{func() error {
			_, err := c.Attachments.Create(ctx, &wire.VolumeAttachmentSpec{VolumeID: "U3", HostID: "U2", AttachMode: "rw"})
			return err
		}, "POST", "/block/attachments", `{"attachMode":"rw","hostId":"U2","volumeId":"U3"}`},
		{func() error {
			_, err := c.Profiles.Create(ctx, &wire.ProfileSpec{Name: "default_block", StorageType: "block"})
			return err
		}, "POST", "/profiles", `{"name":"default_block","storageType":"block"}`},
		{func() error {
			s := &wire.ProfileSpec{Name: "p", StorageType: "block"}
			s.ProvisioningProperties.DataStorage.ProvisioningPolicy = "Thin"
			_, err := c.Profiles.Create(ctx, s)
			return err
		}, "POST", "/profiles", `{"name":"p","provisioningProperties":{"dataStorage":{"provisioningPolicy":"Thin"},"ioConnectivity":{}},"storageType":"block"}`},
		{func() error { _, err := c.Hosts.Update(ctx, "U2", &wire.HostSpec{IP: "10.0.0.2"}); return err },
			"PUT", "/host/hosts/U2", `{"ip":"10.0.0.2"}`},
		{func() error {
			_, err := c.Hosts.Update(ctx, "U2", &wire.HostSpec{Initiators: []wire.Initiator{}})
			return err
		}, "PUT", "/host/hosts/U2", `{"initiators":[]}`},
		{func() error { _, err := c.Groups.Update(ctx, "U8", map[string]any{"description": ""}); return err },
			"PUT", "/block/volumeGroups/U8", `{"description":""}`},
		{func() error { _, err := c.AddCustomProperties(ctx, "U4", map[string]any{"k": "v"}); return err },
			"POST", "/profiles/U4/customProperties", `{"k":"v"}`},
		{func() error { return c.RemoveCustomProperty(ctx, "U4", "a/b") }, "DELETE", "/profiles/U4/customProperties/a/b", ""},
		{func() error { _, err := c.PlanVolume(ctx, &wire.VolumeSpec{Name: "v", Size: 2}); return err },
			"POST", "/block/volumes", `{"name":"v","size":2}`},
		{func() error { _, err := c.CancelTask(ctx, "t1"); return err }, "POST", "/tasks/t1/cancel", ""},
		{func() error { _, err := c.RetryTask(ctx, "t1"); return err }, "POST", "/tasks/t1/retry", ""},
		{func() error { _, err := c.VolumeExplanation(ctx, "U3"); return err }, "GET", "/block/volumes/U3/explanation", ""},
		{func() error { _, err := c.Doctor(ctx); return err }, "GET", "/doctor", ""},
	} {
		if err := x.call(); err != nil {
			t.Errorf("%s %s: %v", x.method, x.path, err)
			continue
		}
		r := p.last()
		if r.method != x.method || r.path != base+x.path || r.body != x.body {
			t.Errorf("sent %s %s %s, want %s %s %s", r.method, r.path, r.body, x.method, base+x.path, x.body)
		}
		if ua := r.header.Get("User-Agent"); ua != "test/1 osds-client/1" || r.header.Get("X-Auth-Token") != "tok" {
			t.Errorf("headers %v", r.header)
		}
		key := r.header.Get("Idempotency-Key")
		if wantKey := x.method == "POST" && !strings.Contains(r.query, "dryRun"); (key != "") != wantKey {
			t.Errorf("%s %s: Idempotency-Key %q", x.method, x.path, key)
		}
		if x.body != "" && r.header.Get("Content-Type") != "application/json" {
			t.Errorf("content type %q", r.header.Get("Content-Type"))
		}
	}
	for _, id := range []string{"", "../x", "a/b", ".", ".."} {
		if err := c.Volumes.Delete(ctx, id); !model.IsKind(err, model.KindInvalid) {
			t.Errorf("id %q: %v", id, err)
		}
	}
}

func TestVersionsAreNotBelowATenant(t *testing.T) {
	p := serve(t, func(_ int, w http.ResponseWriter, r *http.Request) {
		b, _ := json.Marshal(wire.Versions())
		if r.URL.Path != "/" {
			b, _ = json.Marshal(wire.Versions()[0])
		}
		jsonAnswer(w, 200, string(b))
	})
	c := newClient(t, Config{}, p)
	v, err := c.Versions(t.Context())
	if err != nil || len(v) != 1 || v[0].Status != "CURRENT" || p.last().path != "/" {
		t.Error(v, err, p.last().path)
	}
	one, err := c.Version(t.Context(), "v1beta")
	if err != nil || one.Name != "v1beta" || p.last().path != "/v1beta" {
		t.Error(one, err, p.last().path)
	}
}

func TestServerErrors(t *testing.T) {
	var code int
	var ctype, body string
	p := serve(t, func(_ int, w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", ctype)
		w.Header().Set("X-Request-Id", "req-1")
		w.WriteHeader(code)
		_, _ = io.WriteString(w, body)
	})
	c := newClient(t, Config{Retries: -1}, p)
	for _, x := range []struct {
		code        int
		ctype, body string
		kind        model.Kind
		text        string
	}{
		{404, "application/json; charset=utf-8", `{"code":404,"message":"volume nope not found: specified volume(nope) can't find"}`,
			model.KindNotFound, "volume nope not found: specified volume(nope) can't find"},
		{400, "text/plain; charset=utf-8", `{"code":400,"message":"Request body has an error: doesn't match the schema: Property 'size' is missing"}`,
			model.KindInvalid, "Property 'size' is missing"},
		{507, "application/json", `{"code":507,"message":"pool is full","kind":"exhausted","field":"size","requestId":"r2"}`, model.KindExhausted, "pool is full"},
		{400, "application/json", `{"code":400,"message":"busy","kind":"busy"}`, model.KindBusy, "busy"},
		{404, "text/html", "<!DOCTYPE html><html>nothing</html>", model.KindNotFound, "the server answered 404 Not Found"},
		{500, "", "", model.KindInternal, "the server answered 500"},
		{502, "text/plain", "bad gateway\nsecond line", model.KindUnavailable, "bad gateway"},
		{302, "text/html", "", model.KindInternal, "302"},
	} {
		code, ctype, body = x.code, x.ctype, x.body
		_, err := c.Volumes.Get(t.Context(), "nope")
		var e *Error
		if !errors.As(err, &e) || e.Code != x.code || model.KindOf(err) != x.kind || !strings.Contains(err.Error(), x.text) ||
			strings.Contains(err.Error(), "\n") || e.RequestID == "" {
			t.Errorf("%d %s: %#v %v", x.code, x.body, e, model.KindOf(err))
		}
		if x.code == 507 && (e.Field != "size" || e.RequestID != "r2") {
			t.Errorf("%+v", e)
		}
	}
	code, body = 200, "<html>"
	if _, err := c.Volumes.Get(t.Context(), "x"); err == nil || !strings.Contains(err.Error(), "is it an osds server") {
		t.Error(err)
	}
}

func TestRedirectIsNotFollowed(t *testing.T) {
	other := serve(t, func(_ int, w http.ResponseWriter, _ *http.Request) { jsonAnswer(w, 200, `[]`) })
	p := serve(t, func(_ int, w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, other.URL, http.StatusTemporaryRedirect)
	})
	c := newClient(t, Config{Token: "tok"}, p)
	if _, err := c.Volumes.List(t.Context(), Query{}); err == nil {
		t.Error("no error")
	}
	if n := len(other.requests()); n != 0 {
		t.Errorf("the token went to another server %d times", n)
	}
}

func TestRetries(t *testing.T) {
	fails := func(times, code int) *play {
		return serve(t, func(n int, w http.ResponseWriter, _ *http.Request) {
			if n <= times {
				w.Header().Set("Retry-After", "0.01")
				jsonAnswer(w, code, fmt.Sprintf(`{"code":%d,"message":"later"}`, code))
				return
			}
			jsonAnswer(w, 200, `{"id":"x"}`)
		})
	}
	spec := &wire.VolumeSpec{Name: "v", Size: 1}
	for _, x := range []struct {
		what     string
		code     int
		call     func(*Client) error
		requests int
		ok       bool
	}{
		{"get", 503, func(c *Client) error { _, err := c.Volumes.Get(t.Context(), "x"); return err }, 3, true},
		{"create", 503, func(c *Client) error { _, err := c.Volumes.Create(t.Context(), spec); return err }, 3, true},
		{"create with own key", 429, func(c *Client) error {
			_, err := c.Volumes.Create(t.Context(), spec, IdempotencyKey("mine"))
			return err
		}, 3, true},
		{"plan", 504, func(c *Client) error { _, err := c.PlanVolume(t.Context(), spec); return err }, 3, true},
		{"create without key", 503, func(c *Client) error {
			_, err := c.Volumes.Create(t.Context(), spec, NoIdempotencyKey())
			return err
		}, 1, false},
		{"put", 503, func(c *Client) error { _, err := c.Volumes.Update(t.Context(), "x", spec); return err }, 1, false},
		{"delete", 503, func(c *Client) error { return c.Volumes.Delete(t.Context(), "x") }, 1, false},
		{"get 500", 500, func(c *Client) error { _, err := c.Volumes.Get(t.Context(), "x"); return err }, 1, false},
		{"get 404", 404, func(c *Client) error { _, err := c.Volumes.Get(t.Context(), "x"); return err }, 1, false},
	} {
		p := fails(2, x.code)
		err := x.call(newClient(t, Config{}, p))
		got := p.requests()
		if (err == nil) != x.ok || len(got) != x.requests {
			t.Errorf("%s: %d requests, %v", x.what, len(got), err)
		}
		for _, r := range got {
			if k := r.header.Get("Idempotency-Key"); k != got[0].header.Get("Idempotency-Key") || (x.what == "create with own key" && k != "mine") {
				t.Errorf("%s: the key changed to %q", x.what, k)
			}
			if r.body != got[0].body {
				t.Errorf("%s: the body changed to %q", x.what, r.body)
			}
		}
	}
	p := fails(100, 503)
	_, err := newClient(t, Config{Retries: 2}, p).Volumes.Get(t.Context(), "x")
	if !model.IsKind(err, model.KindUnavailable) || len(p.requests()) != 3 {
		t.Errorf("%d requests, %v", len(p.requests()), err)
	}
}

func TestBrokenConnection(t *testing.T) {
	broken := func(times int) *play {
		return serve(t, func(n int, w http.ResponseWriter, _ *http.Request) {
			if n <= times {
				conn, _, err := w.(http.Hijacker).Hijack()
				if err == nil {
					_ = conn.Close()
				}
				return
			}
			jsonAnswer(w, 200, `{"id":"x"}`)
		})
	}
	p := broken(1)
	if _, err := newClient(t, Config{}, p).Volumes.Create(t.Context(), &wire.VolumeSpec{Name: "v"}); err != nil {
		t.Error(err)
	}
	if r := p.requests(); len(r) < 2 || r[0].header.Get("Idempotency-Key") != r[1].header.Get("Idempotency-Key") {
		t.Errorf("%d requests", len(r))
	}
	p = broken(100)
	_, err := newClient(t, Config{}, p).Volumes.Update(t.Context(), "x", &wire.VolumeSpec{Name: "v"})
	if !model.IsKind(err, model.KindUnknownOutcome) || !IsUnreachable(err) || len(p.requests()) != 1 {
		t.Errorf("%d requests, kind %s, %v", len(p.requests()), model.KindOf(err), err)
	}
	if _, err = newClient(t, Config{Retries: 1}, broken(100)).Volumes.Get(t.Context(), "x"); !model.IsKind(err, model.KindUnavailable) {
		t.Errorf("a read has no unknown outcome: %v", err)
	}
}

func TestFailover(t *testing.T) {
	p := serve(t, func(_ int, w http.ResponseWriter, _ *http.Request) { jsonAnswer(w, 200, `{"id":"x"}`) })
	c := newClient(t, Config{Endpoints: []string{closedEndpoint(t), closedEndpoint(t), p.URL}, Retries: -1})
	// What was never sent may go elsewhere, even without a key.
	if _, err := c.Volumes.Update(t.Context(), "x", &wire.VolumeSpec{Name: "v"}); err != nil {
		t.Fatal(err)
	}
	if c.Endpoint() != p.URL {
		t.Errorf("at %s", c.Endpoint())
	}
	down := newClient(t, Config{Endpoints: []string{closedEndpoint(t), closedEndpoint(t)}, Retries: -1})
	err := down.Volumes.Delete(t.Context(), "x")
	if !IsUnreachable(err) || !model.IsKind(err, model.KindUnavailable) || !strings.Contains(err.Error(), "cannot reach the server at http://127.0.0.1:") {
		t.Errorf("%v", err)
	}
	// A server that answers 503 is left too.
	sick := serve(t, func(_ int, w http.ResponseWriter, _ *http.Request) {
		jsonAnswer(w, 503, `{"code":503,"message":"starting"}`)
	})
	c = newClient(t, Config{}, sick, p)
	if _, err := c.Volumes.Get(t.Context(), "x"); err != nil || len(sick.requests()) != 1 {
		t.Error(err, len(sick.requests()))
	}
}

func TestHangingServer(t *testing.T) {
	release := make(chan struct{})
	t.Cleanup(func() { close(release) }) // before the server is closed
	hang := serve(t, func(_ int, _ http.ResponseWriter, r *http.Request) {
		select {
		case <-release:
		case <-r.Context().Done():
		}
	})
	good := serve(t, func(_ int, w http.ResponseWriter, _ *http.Request) { jsonAnswer(w, 200, `{"id":"x"}`) })
	c := newClient(t, Config{AttemptTimeout: 50 * time.Millisecond}, hang, good)
	if _, err := c.Volumes.Get(t.Context(), "x"); err != nil || c.Endpoint() != good.URL {
		t.Error(err, c.Endpoint())
	}
	c = newClient(t, Config{Timeout: 50 * time.Millisecond}, hang)
	_, err := c.Volumes.Create(t.Context(), &wire.VolumeSpec{Name: "v"})
	if !model.IsKind(err, model.KindUnknownOutcome) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v", err)
	}
}

func TestReadYourWrites(t *testing.T) {
	rev := "17"
	write := serve(t, func(_ int, w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("X-Osds-Revision", rev)
		jsonAnswer(w, 202, `{"id":"x"}`)
	})
	c := newClient(t, Config{}, write)
	get := func() string {
		if _, err := c.Volumes.Get(t.Context(), "x"); err != nil {
			t.Fatal(err)
		}
		return write.last().header.Get("X-Osds-Min-Revision")
	}
	if got := get(); got != "" {
		t.Errorf("first request asked for revision %q", got)
	}
	if got := get(); got != "17" || c.Revision() != 17 {
		t.Errorf("asked for %q", got)
	}
	rev = "3" // a server that lags behind must not take us back
	if get(); c.Revision() != 17 {
		t.Error(c.Revision())
	}
}

func TestETag(t *testing.T) {
	p := serve(t, func(_ int, w http.ResponseWriter, r *http.Request) {
		if m := r.Header.Get("If-Match"); m != "" && m != `"5"` {
			jsonAnswer(w, 412, `{"code":412,"message":"the volume has changed","kind":"stale"}`)
			return
		}
		w.Header().Set("ETag", `"5"`)
		jsonAnswer(w, 200, `{"id":"x","name":"n"}`)
	})
	c := newClient(t, Config{}, p)
	v, err := c.Volumes.Get(t.Context(), "x")
	if err != nil || v.ETag != `"5"` {
		t.Fatal(v, err)
	}
	if _, err := c.Volumes.Update(t.Context(), "x", v, IfMatch(v.ETag)); err != nil {
		t.Error(err)
	}
	if strings.Contains(p.last().body, "5") {
		t.Errorf("the tag is in the body: %s", p.last().body)
	}
	if err := c.Volumes.Delete(t.Context(), "x", IfMatch(`"4"`)); !model.IsKind(err, model.KindStale) {
		t.Error(err)
	}
}

func TestPaging(t *testing.T) {
	pages := map[string][]string{"": {"a", "b"}, "m1": {"c", "d"}, "m2": {"e"}}
	next := map[string]string{"": "m1", "m1": "m2"}
	p := serve(t, func(_ int, w http.ResponseWriter, r *http.Request) {
		m := r.URL.Query().Get("marker")
		w.Header().Set("X-Osds-Total-Count", "5")
		if next[m] != "" {
			w.Header().Set("X-Osds-Next-Marker", next[m])
		}
		jsonAnswer(w, 200, `[{"id":"`+strings.Join(pages[m], `"},{"id":"`)+`"}]`)
	})
	c := newClient(t, Config{}, p)
	q := Query{Limit: 2, SortKey: "name", SortDir: "asc"}.Where("status", "available").Where("status", "error").Where("name", "")
	got := ""
	for v, err := range c.Volumes.All(t.Context(), q) {
		if err != nil {
			t.Fatal(err)
		}
		got += v.ID
	}
	if got != "abcde" || len(p.requests()) != 3 {
		t.Errorf("%q in %d requests", got, len(p.requests()))
	}
	want := url.Values{"limit": {"2"}, "marker": {"m2"}, "sortKey": {"name"}, "sortDir": {"asc"}, "status": {"available", "error"}}
	if p.last().query != want.Encode() {
		t.Errorf("query %s", p.last().query)
	}
	few, err := c.Volumes.Collect(t.Context(), q, 3)
	if err != nil || len(few) != 3 || len(p.requests()) != 5 {
		t.Errorf("%d rows, %d requests, %v", len(few), len(p.requests()), err)
	}
	page, err := c.Volumes.List(t.Context(), q)
	if err != nil || page.Next != "m1" || page.Total != 5 {
		t.Errorf("%+v %v", page, err)
	}
}

// TestPagingOfTheOriginal: a server without markers is read by offsets.
func TestPagingOfTheOriginal(t *testing.T) {
	p := serve(t, func(_ int, w http.ResponseWriter, r *http.Request) {
		switch r.URL.Query().Get("offset") {
		case "":
			jsonAnswer(w, 200, `[{"id":"a"},{"id":"b"}]`)
		case "2":
			jsonAnswer(w, 200, `[{"id":"c"}]`)
		default:
			jsonAnswer(w, 200, `null`)
		}
	})
	c := newClient(t, Config{}, p)
	all, err := c.Volumes.Collect(t.Context(), Query{Limit: 2}, 0)
	if err != nil || len(all) != 3 || len(p.requests()) != 2 {
		t.Error(len(all), err, len(p.requests()))
	}
	null := serve(t, func(_ int, w http.ResponseWriter, _ *http.Request) { jsonAnswer(w, 200, `null`) })
	page, err := newClient(t, Config{}, null).Groups.List(t.Context(), Query{})
	if err != nil || page.Items == nil || len(page.Items) != 0 || page.Total != -1 {
		t.Errorf("%+v %v", page, err)
	}
}

func TestPagingError(t *testing.T) {
	p := serve(t, func(n int, w http.ResponseWriter, _ *http.Request) {
		if n > 1 {
			jsonAnswer(w, 400, `{"code":400,"message":"bad marker"}`)
			return
		}
		w.Header().Set("X-Osds-Next-Marker", "m")
		jsonAnswer(w, 200, `[{"id":"a"}]`)
	})
	rows, err := newClient(t, Config{}, p).Volumes.Collect(t.Context(), Query{}, 0)
	if err == nil || rows != nil {
		t.Error("half a list must not pass for a whole one")
	}
}

func TestTLS(t *testing.T) {
	srv := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { jsonAnswer(w, 200, `[]`) }))
	srv.Config.ErrorLog = nil
	t.Cleanup(srv.Close)
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	good := newClient(t, Config{Endpoints: []string{srv.URL}, CAFile: ca})
	if _, err := good.Volumes.List(t.Context(), Query{}); err != nil {
		t.Error(err)
	}
	bad := newClient(t, Config{Endpoints: []string{srv.URL}})
	if _, err := bad.Volumes.List(t.Context(), Query{}); !IsUnreachable(err) || !isTLSTrust(err) {
		t.Errorf("%v", err)
	}
	empty := filepath.Join(t.TempDir(), "empty.pem")
	if err := os.WriteFile(empty, []byte("nothing"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := New(Config{CAFile: empty}); !model.IsKind(err, model.KindInvalid) {
		t.Error(err)
	}
}

func TestTrace(t *testing.T) {
	p := serve(t, func(_ int, w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Set-Cookie", "hush3")
		jsonAnswer(w, 200, `{"id":"x","connectionInfo":{"driverVolumeType":"iscsi","data":{"authPassword":"hush4","targetLun":1}}}`)
	})
	var b strings.Builder
	c := newClient(t, Config{Token: "hush1", Wrap: Trace(&b)}, p)
	a, err := c.Attachments.Create(t.Context(), &wire.VolumeAttachmentSpec{HostID: "h", Metadata: map[string]string{"password": "hush2"}})
	if err != nil || a.ConnectionInfo.Data["authPassword"] != "hush4" {
		t.Fatal(err, a)
	}
	out := b.String()
	if strings.Contains(out, "hush") {
		t.Errorf("a secret is shown:\n%s", out)
	}
	for _, want := range []string{"> POST " + p.URL + base + "/block/attachments\n", "> X-Auth-Token: ***\n", `"hostId":"h"`, "< HTTP/1.1 200 OK",
		`"targetLun":1`, `"authPassword":"***"`} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is missing in:\n%s", want, out)
		}
	}
	if _, ok := Redact([]byte(`<html>`)); ok {
		t.Error("HTML is no JSON")
	}
}

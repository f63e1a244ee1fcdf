package api

import (
	"bufio"
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/mux"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/sirupsen/logrus"
	logtest "github.com/sirupsen/logrus/hooks/test"

	"github.com/osds-io/osds/pkg/model"
	"github.com/osds-io/osds/pkg/model/wire"
)

func TestUnknownRoutesAndMethods(t *testing.T) {
	e := newEnv(t)
	for _, p := range []string{"/nope", "/block", "/block/volumes/a/b/c", "//v1beta", "/block/volumes/x/resize/y", "//a/b/c"} {
		r := e.get(p)
		if p == "//v1beta" {
			r.want(200)
			continue
		}
		r.fails(404, model.KindNotFound, "", "there is nothing at")
	}
	e.get("//v2").fails(404, model.KindNotFound, "", "can't find the version: v2")
	for _, c := range []struct{ method, path, allow string }{
		{"POST", "/block/volumes/x", "DELETE, GET, PUT"},
		{"PATCH", "/block/volumes", "GET, POST"},
		{"DELETE", "/pools", "GET"},
		{"PUT", "/profiles/x/customProperties", "GET, POST"},
		{"DELETE", "//", "GET"},
		{"OPTIONS", "/host/hosts", "GET, POST"},
	} {
		r := e.do(c.method, c.path, nil).fails(405, model.KindUnsupported, "", "use "+c.allow)
		if got := r.Header.Get("Allow"); got != c.allow {
			t.Errorf("%s %s: Allow %q, want %q", c.method, c.path, got, c.allow)
		}
	}
	// One slash at the end is as good as none, as in the original.
	e.get("/block/volumes/").want(200)
	if got := e.do("HEAD", "/block/volumes", nil); got.Status != 405 || got.Body != "" {
		t.Errorf("HEAD: %d %q", got.Status, got.Body)
	}
}

// raw sends a request line that http.NewRequest would not, and gives the status.
func (e *env) raw(target string) int {
	e.t.Helper()
	c, err := net.Dial("tcp", strings.TrimPrefix(e.url, "http://"))
	if err != nil {
		e.t.Fatal(err)
	}
	defer c.Close()
	_, _ = c.Write([]byte("GET " + target + " HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"))
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		e.t.Fatalf("%s: %v", target, err)
	}
	resp.Body.Close()
	return resp.StatusCode
}

func TestPathTricks(t *testing.T) {
	e := newEnv(t)
	h := e.host()
	base := "/v1beta/" + e.tenant
	if got := e.raw(base + "/host/hosts/" + h.ID); got != 200 {
		t.Fatalf("the plain path: %d", got)
	}
	for _, p := range []string{
		base + "/../" + e.tenant + "/host/hosts", base + "/host/./hosts", base + "//host/hosts", base + "/host/hosts//" + h.ID,
		base + "/%2e%2e/" + e.tenant + "/host/hosts", base + "/host%2fhosts", base + "/host/hosts%2F" + h.ID, base + "/host/hosts/%00" + h.ID,
		base + "/host/hosts/" + h.ID + "%00", base + "/host/hosts/%2e", base + "/host/hosts/..%2f" + h.ID, base + "/host/hosts/%0a",
	} {
		if got := e.raw(p); got != 404 {
			t.Errorf("%s: %d, want 404", p, got)
		}
	}
	for _, tenant := range []string{"-x", "a.b", "a%20b", strings.Repeat("a", 65), "%C3%A4", "a@b"} {
		if got := e.raw("/v1beta/" + tenant + "/host/hosts"); got != 400 {
			t.Errorf("tenant %s: %d, want 400", tenant, got)
		}
	}
	e.as("a.b").get("/host/hosts").fails(400, model.KindInvalid, "tenantId", "is not valid")
}

func TestRequestID(t *testing.T) {
	e := newEnv(t)
	if got := e.get("/profiles", wire.HeaderRequestID, "abc-123").Header.Get(wire.HeaderRequestID); got != "abc-123" {
		t.Errorf("a valid id became %q", got)
	}
	seen := map[string]bool{}
	for _, bad := range []string{"", "a b", `a"b`, strings.Repeat("x", 129), "a\\b", "\u00e4"} {
		got := e.get("/profiles", wire.HeaderRequestID, bad).Header.Get(wire.HeaderRequestID)
		if got == bad || got == "" || seen[got] {
			t.Errorf("id %q became %q", bad, got)
		}
		seen[got] = true
	}
	e.get("/nope", wire.HeaderRequestID, "mine").fails(404, model.KindNotFound, "", "")
}

func TestBodies(t *testing.T) {
	e := newEnv(t, func(d *Deps) { d.MaxBody = 4096 }).lenient()
	post := func(body string) *reply { return e.post("/block/volumes", body) }
	post("").fails(400, model.KindInvalid, "", "parse volume request body failed: EOF")
	post("   \n").fails(400, model.KindInvalid, "", "EOF")
	post(`{"name":"a"`).fails(400, model.KindInvalid, "", "parse volume request body failed: unexpected end of JSON input")
	post(`{"name":"a"} x`).fails(400, model.KindInvalid, "", "invalid character 'x'")
	post(`{"name":"a"}{"name":"b"}`).fails(400, model.KindInvalid, "", "invalid character '{'")
	post(`{"name":7,"size":1}`).fails(400, model.KindInvalid, "name", "name must be a string, not number")
	post(`{"name":"a","size":"1"}`).fails(400, model.KindInvalid, "size", "size must be a whole number of at most 64 bits, not string")
	post(`{"name":"a","size":1.5}`).fails(400, model.KindInvalid, "size", "not number 1.5")
	post(`{"name":"a","size":99999999999999999999}`).fails(400, model.KindInvalid, "size", "whole number")
	post(`{"name":"a","size":1,"multiAttach":"yes"}`).fails(400, model.KindInvalid, "multiAttach", "true or false")
	post(`{"name":"a","size":1,"metadata":{"k":1}}`).fails(400, model.KindInvalid, "metadata", "must be a string")
	post(`{"id":5}`).fails(400, model.KindInvalid, "id", "id must be a string")
	for _, b := range []string{`null`, `[]`, `"x"`, `7`, `true`} {
		post(b).fails(400, model.KindInvalid, "", "it must be a JSON object")
	}
	big := `{"name":"` + strings.Repeat("a", 5000) + `"}`
	post(big).fails(413, model.KindInvalid, "", "too large: at most 4096 B")
	// The same without a Content-Length.
	r, err := http.Post(e.url+"/v1beta/"+e.tenant+"/block/volumes", "", struct{ *strings.Reader }{strings.NewReader(big)})
	if err != nil {
		t.Fatal(err)
	}
	r.Body.Close()
	if r.StatusCode != 413 {
		t.Errorf("chunked: %d, want 413", r.StatusCode)
	}
	// Names match in any case, unknown fields and content types do not matter,
	// and the last of two equal names counts.
	p := e.profile()
	e.post("/block/volumes", `{"NAME":"x","Name":"a","Size":1,"profileid":"`+p.ID+`","nonsense":[1]}`, "Content-Type", "application/x-www-form-urlencoded").want(202)
}

func TestStrictNamesUnknownFields(t *testing.T) {
	e := newEnv(t, func(d *Deps) { d.Strict = true })
	p := e.profile()
	body := `{"name":"a","size":1,"profileId":"` + p.ID + `"`
	e.post("/block/volumes", body+`,"siez":2}`).fails(400, model.KindInvalid, "siez", "there is no field")
	e.post("/block/volumes", body+`} {}`).fails(400, model.KindInvalid, "", "more after")
	var v wire.VolumeSpec
	e.post("/block/volumes", body+`}`).want(202).into(&v)
	e.put("/block/volumes/"+v.ID, `{"descr":"x"}`).fails(400, model.KindInvalid, "descr", "there is no field")
	e.put("/block/volumes/"+v.ID, `{"Description":"x"}`).want(200)
}

func TestPanicIsAnswered(t *testing.T) {
	log, hook := logtest.NewNullLogger()
	e := newEnv(t, func(d *Deps) { d.Log = logrus.NewEntry(log) }).unchecked()
	e.s.tenantHandle(e.s.router, "/test/panic", methods{"GET": func(*call) error { panic("oh") }})
	e.s.tenantHandle(e.s.router, "/test/late", methods{"GET": func(c *call) error {
		w := c.Stream(200, "text/plain")
		_, _ = w.Write([]byte("half"))
		_ = http.NewResponseController(w).Flush()
		panic("late")
	}})
	r := e.get("/test/panic").fails(500, model.KindInternal, "", "request id")
	found := false
	for _, l := range hook.AllEntries() {
		found = found || (l.Data["request"] == r.Header.Get(wire.HeaderRequestID) && strings.Contains(l.Message, "oh") && strings.Contains(l.Data["stack"].(string), "server_test.go"))
	}
	if !found {
		t.Errorf("the panic is not in the log with its request id and stack: %v", hook.AllEntries())
	}
	// After the answer began, breaking it off is all that is left.
	resp, err := http.Get(e.url + "/v1beta/" + e.tenant + "/test/late")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if _, err := bufio.NewReader(resp.Body).ReadString('\n'); err == nil || err.Error() == "EOF" {
		t.Errorf("half an answer looks whole: %v", err)
	}
	e.get("/profiles").want(200) // the server lives
}

func TestForeignHandlersAreServed(t *testing.T) {
	e := newEnv(t).unchecked()
	e.s.router.HandleFunc("/test/{x}/plain", func(w http.ResponseWriter, r *http.Request) {
		_, _ = w.Write([]byte("x=" + mux.Vars(r)["x"]))
	})
	if r := e.get("//test/7/plain").want(200); r.Body != "x=7" || r.Header.Get(wire.HeaderRequestID) == "" {
		t.Errorf("%s %v", r.Body, r.Header)
	}
}

func TestDeadline(t *testing.T) {
	e := newEnv(t, func(d *Deps) { d.RequestTimeout = 20 * time.Millisecond }).unchecked()
	var left time.Duration
	e.s.tenantHandle(e.s.router, "/test/slow", methods{"GET": func(c *call) error {
		d, _ := c.ctx.Deadline()
		left = time.Until(d)
		<-c.ctx.Done()
		return c.ctx.Err()
	}})
	e.get("/test/slow").fails(504, model.KindUnknownOutcome, "", "deadline")
	if left <= 0 || left > 20*time.Millisecond {
		t.Errorf("the handler had %v", left)
	}
}

func TestRevisions(t *testing.T) {
	e := newEnv(t)
	h := e.host()
	r := e.get("/host/hosts/" + h.ID).want(200)
	rev, err := strconv.ParseInt(r.Header.Get(wire.HeaderRevision), 10, 64)
	if err != nil || rev <= 0 || rev > testStore.Rev() {
		t.Fatalf("revision %q, the store is at %d", r.Header.Get(wire.HeaderRevision), testStore.Rev())
	}
	made := e.put("/host/hosts/"+h.ID, `{"port":1}`).want(200)
	after, _ := strconv.ParseInt(made.Header.Get(wire.HeaderRevision), 10, 64)
	if after <= rev {
		t.Errorf("a change at revision %d answers revision %d", rev, after)
	}
	e.get("/nope").want(404)
	e.get("/host/hosts", wire.HeaderMinRevision, strconv.FormatInt(after, 10)).want(200)
	for _, bad := range []string{"x", "-1", "1.5"} {
		e.get("/host/hosts", wire.HeaderMinRevision, bad).fails(400, model.KindInvalid, wire.HeaderMinRevision, "is not a revision")
	}
	// A revision that another server has, and this one sees only later.
	e2 := newEnv(t, func(d *Deps) { d.RequestTimeout = 10 * time.Second }).as(e.tenant)
	done := make(chan *reply)
	go func() {
		done <- e2.get("/host/hosts/"+h.ID, wire.HeaderMinRevision, strconv.FormatInt(testStore.Rev()+1, 10))
	}()
	select {
	case <-done:
		t.Fatal("did not wait for the revision")
	case <-time.After(50 * time.Millisecond):
	}
	e.put("/host/hosts/"+h.ID, `{"port":2}`).want(200)
	var spec wire.HostSpec
	if (<-done).want(200).into(&spec); spec.Port != 2 {
		t.Errorf("port %d, want that of the change waited for", spec.Port)
	}
	e3 := newEnv(t, func(d *Deps) { d.RequestTimeout = 50 * time.Millisecond })
	e3.get("/host/hosts", wire.HeaderMinRevision, "9000000000").fails(503, model.KindUnavailable, "", "has not reached")
}

func TestConditions(t *testing.T) {
	e := newEnv(t)
	h := e.host()
	p := "/host/hosts/" + h.ID
	tag := e.get(p).want(200).Header.Get("ETag")
	r := e.get(p, "If-None-Match", tag).want(304)
	if r.Body != "" || r.Header.Get("ETag") != tag {
		t.Errorf("304 with %q, tag %q", r.Body, r.Header.Get("ETag"))
	}
	e.get(p, "If-None-Match", `"1", W/`+tag).want(304)
	e.get(p, "If-None-Match", `"1"`).want(200)
	e.put(p, `{"port":1}`, "If-Match", `"1"`).fails(412, model.KindStale, "", "read it again")
	e.put(p, `{"port":1}`, "If-Match", "W/"+tag).fails(412, model.KindStale, "", "read it again")
	next := e.put(p, `{"port":1}`, "If-Match", `"1", `+tag).want(200).Header.Get("ETag")
	if next == tag || next != e.get(p).Header.Get("ETag") {
		t.Errorf("tags: %s before, %s of the change, %s now", tag, next, e.get(p).Header.Get("ETag"))
	}
	e.put(p, `{"port":2}`, "If-Match", tag).want(412)
	e.put(p, `{"port":3}`, "If-Match", "*").want(200)
	e.del(p, "If-Match", tag).want(412)
	e.del("/host/hosts/nope", "If-Match", "*").want(404)
	e.del(p, "If-Match", e.get(p).Header.Get("ETag")).want(200)
}

// serve calls the server without a network, so that all is done when it returns.
func (e *env) serve(method, path, body string) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	e.s.ServeHTTP(w, httptest.NewRequest(method, "/v1beta/"+e.tenant+path, strings.NewReader(body)))
	return w
}

func TestMetrics(t *testing.T) {
	reg := prometheus.NewRegistry()
	e := newEnv(t, func(d *Deps) { d.Metrics = reg })
	for _, p := range []string{"/profiles", "/profiles", "/profiles/x", "/nope"} {
		e.serve("GET", p, "")
	}
	all, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]float64{}
	for _, f := range all {
		if f.GetName() != "osds_api_requests_total" {
			continue
		}
		for _, m := range f.GetMetric() {
			k := ""
			for _, l := range m.GetLabel() {
				k += l.GetValue() + " "
			}
			got[k] = m.GetCounter().GetValue()
		}
	}
	for k, n := range map[string]float64{
		"200 GET /v1beta/{tenantId}/profiles ": 2, "404 GET /v1beta/{tenantId}/profiles/{profileId} ": 1, "404 any none ": 1,
	} {
		if got[k] != n {
			t.Errorf("%s: %v, want %v; have %v", k, got[k], n, got)
		}
	}
}

func TestAccessLog(t *testing.T) {
	log, hook := logtest.NewNullLogger()
	e := newEnv(t, func(d *Deps) { d.Log = logrus.NewEntry(log) })
	e.serve("GET", "/profiles", "")
	if n := len(hook.AllEntries()); n != 0 {
		t.Errorf("a read made %d entries", n)
	}
	e.serve("POST", "/host/hosts", `{"hostName":"h"}`)
	e.serve("GET", "/nope", "")
	es := hook.AllEntries()
	if len(es) != 2 || es[0].Data["method"] != "POST" || es[0].Data["status"] != 200 || es[1].Data["status"] != 404 || es[1].Data["error"] == nil {
		t.Errorf("entries: %v", es)
	}
	log.SetLevel(logrus.DebugLevel)
	hook.Reset()
	e.serve("GET", "/profiles", "")
	if es := hook.AllEntries(); len(es) != 1 || es[0].Level != logrus.DebugLevel {
		t.Errorf("a read at debug: %v", es)
	}
}

func TestKeyedLocks(t *testing.T) {
	l := newKeyedLocks()
	ctx := context.Background()
	one, err := l.hold(ctx, "b", "", "a", "b")
	if err != nil {
		t.Fatal(err)
	}
	short, cancel := context.WithTimeout(ctx, 10*time.Millisecond)
	defer cancel()
	if _, err := l.hold(short, "c", "b"); model.KindOf(err) != model.KindUnavailable {
		t.Fatalf("a held lock was taken: %v", err)
	}
	two, err := l.hold(ctx, "c") // was released by the one that gave up
	if err != nil {
		t.Fatal(err)
	}
	two()
	one()
	if len(l.m) != 0 {
		t.Errorf("%d locks are left over", len(l.m))
	}
}

package api

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/osds-io/osds/pkg/db"
	"github.com/osds-io/osds/pkg/model"
	"github.com/osds-io/osds/pkg/model/wire"
)

// follower reads a stream in the background.
type follower struct {
	t      testing.TB
	events chan wire.EventSpec
	// lines are ids that came without an event: the beginning and keep-alives.
	lines chan string
	// rev is X-Osds-Revision.
	rev   string
	close func()
	ended chan struct{}
}

// follow opens a stream.
func (e *env) follow(query string, headers ...string) *follower {
	e.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	r, err := http.NewRequestWithContext(ctx, "GET", e.url+"/v1beta/"+e.tenant+"/events"+query, nil)
	if err != nil {
		e.t.Fatal(err)
	}
	for i := 0; i+1 < len(headers); i += 2 {
		r.Header.Add(headers[i], headers[i+1])
	}
	resp, err := e.client.Do(r)
	if err != nil {
		e.t.Fatal(err)
	}
	if resp.StatusCode != 200 || resp.Header.Get("Content-Type") != "text/event-stream" {
		b, _ := io.ReadAll(resp.Body)
		e.t.Fatalf("events%s: %s %s", query, resp.Status, b)
	}
	f := &follower{t: e.t, events: make(chan wire.EventSpec, 10000), lines: make(chan string, 10000), rev: resp.Header.Get(wire.HeaderRevision), ended: make(chan struct{})}
	f.close = func() {
		cancel()
		<-f.ended
	}
	e.t.Cleanup(f.close)
	go func() {
		defer close(f.ended)
		defer resp.Body.Close()
		f.read(resp.Body)
	}()
	return f
}

func (f *follower) read(body io.Reader) {
	sc := bufio.NewScanner(body)
	sc.Buffer(nil, 1<<20)
	id, data := "", ""
	for sc.Scan() {
		name, value, _ := strings.Cut(sc.Text(), ": ")
		switch name {
		case "id":
			id = value
		case "data":
			data = value
		case "":
			if sc.Text() != "" {
				continue
			}
			if data == "" {
				f.lines <- id
				continue
			}
			var e wire.EventSpec
			if err := json.Unmarshal([]byte(data), &e); err != nil {
				f.t.Errorf("event %q: %v", data, err)
			}
			f.events <- e
			data = ""
		}
	}
}

// next gives the next event.
func (f *follower) next() wire.EventSpec {
	f.t.Helper()
	select {
	case e := <-f.events:
		return e
	case <-f.ended:
		select {
		case e := <-f.events:
			return e
		default:
		}
		f.t.Fatal("the stream ended")
	case <-time.After(20 * time.Second):
		f.t.Fatal("no event came")
	}
	return wire.EventSpec{}
}

// until collects events up to one that matches.
func (f *follower) until(last func(wire.EventSpec) bool) []wire.EventSpec {
	f.t.Helper()
	var out []wire.EventSpec
	for {
		e := f.next()
		out = append(out, e)
		if last(e) {
			return out
		}
	}
}

func describe(evs []wire.EventSpec) string {
	var out []string
	for _, e := range evs {
		out = append(out, string(e.Type)+" "+string(e.Resource))
	}
	return strings.Join(out, ", ")
}

// mark makes a profile, which every stream shows, and gives a test for its event.
func (e *env) mark() func(wire.EventSpec) bool {
	e.t.Helper()
	p := e.profile()
	return func(ev wire.EventSpec) bool { return ev.ResourceID == p.ID }
}

func TestEventsShowEachChangeAsAGetDoes(t *testing.T) {
	e := newEnv(t)
	pool, profile := e.pool(), e.profile()
	f := e.follow("?resource=volumes")
	v := e.volume(pool, profile)
	r := e.put("/block/volumes/"+v.ID, map[string]any{"description": "<new> & \"quoted\"", "metadata": map[string]string{"a": "ü"}}).want(200)
	e.del("/block/volumes/" + v.ID).want(202)
	e.settle(pool)

	evs := []wire.EventSpec{f.next(), f.next(), f.next(), f.next(), f.next()}
	want := "created volumes, updated volumes, updated volumes, updated volumes, deleted volumes"
	if got := describe(evs); got != want {
		t.Fatalf("%s, want %s", got, want)
	}
	for i, ev := range evs {
		if ev.ResourceID != v.ID || ev.TenantID != e.tenant || ev.ID != fmt.Sprintf("%d.0", ev.Revision) {
			t.Errorf("event %d: %+v", i, ev)
		}
		if i > 0 && ev.Revision <= evs[i-1].Revision {
			t.Errorf("revisions %d, %d are not in order", evs[i-1].Revision, ev.Revision)
		}
	}
	if string(evs[2].Object) != r.Body {
		t.Errorf("the event's object differs from the answer:\n%s\n%s", evs[2].Object, r.Body)
	}
	if tag := wire.ETag(evs[2].Revision); tag != r.Header.Get("ETag") {
		t.Errorf("revision %s, ETag %s", tag, r.Header.Get("ETag"))
	}
	var last wire.VolumeSpec
	if err := json.Unmarshal(evs[4].Object, &last); err != nil || last.Status != model.StatusDeleting || last.Name != v.Name {
		t.Errorf("a deletion shows the record as it was last, not %s", evs[4].Object)
	}
}

func TestEventsGoOnWhereTheyStopped(t *testing.T) {
	e := newEnv(t)
	since := e.get("/host/hosts").want(200).Header.Get(wire.HeaderRevision)
	const n = 40
	var want []string
	for range n {
		want = append(want, e.host().ID)
	}
	var got []string
	f := e.follow("?resource=hosts&since=" + since)
	for len(got) < n {
		ev := f.next()
		got = append(got, ev.ResourceID)
		if len(got)%7 == 0 && len(got) < n {
			// The header of a reconnecting client is stronger than its URL.
			f.close()
			f = e.follow("?resource=hosts&since="+since, "Last-Event-ID", ev.ID)
		}
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("events of\n%v, want\n%v", got, want)
	}
	// From now on, without a position: only what comes.
	f = e.follow("?resource=hosts")
	id := e.host().ID
	if ev := f.next(); ev.ResourceID != id {
		t.Errorf("a stream from now on begins with %+v", ev)
	}
}

// One transaction changes several records: each of its events has its own id,
// and a client that saw the first gets the others.
func TestEventsOfOneRevision(t *testing.T) {
	e := newEnv(t)
	f := e.follow("?resource=hosts")
	tx := &db.Txn{Label: "test"}
	for range 3 {
		tx.Create(&model.Host{Meta: model.Meta{ID: model.NewID(), TenantID: e.tenant, CreatedAt: time.Now().UTC()}, HostName: unique("h")})
	}
	e.commit(tx)
	a, b, c := f.next(), f.next(), f.next()
	if a.Revision != c.Revision || a.ID == b.ID || b.ID == c.ID {
		t.Fatalf("ids %s, %s, %s", a.ID, b.ID, c.ID)
	}
	g := e.follow("?resource=hosts", "Last-Event-ID", a.ID)
	if x, y := g.next(), g.next(); x.ID != b.ID || y.ID != c.ID {
		t.Errorf("after %s come %s and %s, want %s and %s", a.ID, x.ID, y.ID, b.ID, c.ID)
	}
	whole := strconv.FormatInt(a.Revision, 10)
	h := e.follow("?resource=hosts&since=" + whole)
	id := e.host().ID
	if x := h.next(); x.ResourceID != id {
		t.Errorf("after revision %s comes %+v", whole, x)
	}
}

func TestEventsAreOfTheCallersTenant(t *testing.T) {
	e := newEnv(t)
	other := e.as(unique("other"))
	mine, theirs, all := e.follow(""), other.follow(""), e.admin().follow("")
	h := e.host()
	pool := e.pool()
	dock := &model.Dock{Meta: model.Meta{ID: model.NewID(), Name: "d"}, Status: model.StatusAvailable}
	debt := &model.Debt{Meta: model.Meta{ID: model.NewID(), TenantID: e.tenant}, PoolID: pool.ID, Resource: model.ResVolume, ObjectID: "x", Reason: "r"}
	account := &model.Account{Meta: model.Meta{ID: pool.ID}, Reserved: 5}
	e.commit((&db.Txn{Label: "test"}).Create(dock))
	e.commit((&db.Txn{Label: "test"}).Create(debt))
	e.commit((&db.Txn{Label: "test"}).Create(account))
	end := e.mark()
	saw := func(f *follower) string {
		var out []string
		for _, ev := range f.until(end) {
			switch ev.ResourceID {
			case h.ID, pool.ID, dock.ID, debt.ID:
				out = append(out, string(ev.Resource))
			}
		}
		return strings.Join(out, " ")
	}
	if got := saw(mine); got != "hosts pools" {
		t.Errorf("the tenant sees %q", got)
	}
	if got := saw(theirs); got != "pools" {
		t.Errorf("another tenant sees %q", got)
	}
	if got := saw(all); got != "hosts pools docks debts" {
		t.Errorf("an administrator sees %q", got)
	}
	for _, res := range []string{"docks", "debts", "ledger", "volumes,debts"} {
		e.get("/events?resource="+res).fails(403, model.KindDenied, "resource", "administrators")
	}
	// The ledger's are there for those who ask.
	f := e.admin().follow("?resource=ledger")
	e.commit((&db.Txn{Label: "test"}).Put(&model.Account{Meta: model.Meta{ID: pool.ID}, Reserved: 7}))
	ev := f.next()
	var row wire.LedgerSpec
	if err := json.Unmarshal(ev.Object, &row); err != nil || row.PoolID != pool.ID || row.Reserved != 7 || row.Total != int64(pool.Total) {
		t.Errorf("ledger event %+v %s", ev, ev.Object)
	}
	e.commit((&db.Txn{Label: "test"}).DeleteRaw(db.Key(model.ResDebt, debt.ID)).DeleteRaw(db.Key(model.ResDock, dock.ID)).DeleteRaw(db.Key(model.ResLedger, pool.ID)))
}

func TestEventFilters(t *testing.T) {
	e := newEnv(t)
	a, b := e.host(), e.host()
	p := e.profile()
	f := e.follow("?resource=hosts,profiles&id=" + b.ID + "&id=" + p.ID)
	e.put("/host/hosts/"+a.ID, map[string]any{"ip": "10.0.0.1"}).want(200)
	e.put("/host/hosts/"+b.ID, map[string]any{"ip": "10.0.0.2"}).want(200)
	e.put("/profiles/"+p.ID, map[string]any{"description": "x"}).want(200)
	if x, y := f.next(), f.next(); x.ResourceID != b.ID || y.ResourceID != p.ID {
		t.Errorf("%+v, %+v", x, y)
	}
}

func TestEventsRefuseBadParameters(t *testing.T) {
	e := newEnv(t)
	for _, c := range []struct{ query, field string }{
		{"?since=x", "since"}, {"?since=-1", "since"}, {"?since=1.", "since"}, {"?since=.1", "since"}, {"?since=1.2.3", "since"},
		{"?since=99999999999999999999", "since"}, {"?since=1.99999999999999999999", "since"}, {"?since=%31%20", "since"},
		{"?resource=volume", "resource"}, {"?resource=tasks", "resource"},
		{"?id=" + strings.Repeat("a,", 300), "id"}, {"?resource=" + strings.Repeat("hosts,", 300), "resource"}, {"?a=%zz", ""},
	} {
		e.get("/events"+c.query).fails(400, model.KindInvalid, c.field, "")
	}
	e.get("/events", "Last-Event-ID", "abc").fails(400, model.KindInvalid, "Last-Event-ID", "position")
	e.post("/events", "{}").fails(405, model.KindUnsupported, "", "GET")
}

// historyStore is a store of its own that remembers few events.
func historyStore(t *testing.T, n int) *db.Store {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	s, err := db.Open(ctx, db.Config{Embedded: db.Embedded{Dir: t.TempDir()}, EventHistory: n})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

func TestEventsResync(t *testing.T) {
	st := historyStore(t, 8)
	e := newEnv(t, func(d *Deps) { d.Store = st })
	e.s.streams.ahead = 10 * time.Millisecond
	since := e.get("/host/hosts").Header.Get(wire.HeaderRevision)
	for range 20 {
		e.host()
	}
	lost := func(from string) wire.EventSpec {
		t.Helper()
		f := e.follow("?since=" + from)
		ev := f.next()
		if ev.Type != wire.EventResync || ev.Revision != st.Rev() || ev.ID != strconv.FormatInt(ev.Revision, 10) {
			t.Fatalf("from %s comes %+v, at revision %d", from, ev, st.Rev())
		}
		<-f.ended
		return ev
	}
	ev := lost(since)
	lost(strconv.FormatInt(st.Rev()+1000, 10)) // of another history

	// Listing and going on from there loses nothing.
	f := e.follow("?since=" + ev.ID)
	id := e.host().ID
	if x := f.next(); x.ResourceID != id {
		t.Errorf("after a resync comes %+v", x)
	}
}

// A server that is a little behind waits for a position that its client has from
// another one.
func TestEventsWaitForAPositionAhead(t *testing.T) {
	st := historyStore(t, 100)
	e := newEnv(t, func(d *Deps) { d.Store = st })
	ahead := strconv.FormatInt(st.Rev()+1, 10)
	var wg sync.WaitGroup
	wg.Add(1)
	var f *follower
	go func() {
		defer wg.Done()
		f = e.follow("?since=" + ahead)
	}()
	e.host()
	id := e.host().ID
	wg.Wait()
	if x := f.next(); x.ResourceID != id {
		t.Errorf("after %s comes %+v", ahead, x)
	}
}

// slowWriter is a client that takes nothing until it is let.
type slowWriter struct {
	*httptest.ResponseRecorder
	entered chan struct{}
	once    sync.Once
	release chan struct{}
}

func (w *slowWriter) Write(b []byte) (int, error) {
	w.once.Do(func() { close(w.entered) })
	<-w.release
	return w.ResponseRecorder.Write(b)
}

// A reader that falls behind the history is told so, and its stream ends; the
// writers do not wait for it.
func TestEventsOfASlowReader(t *testing.T) {
	st := historyStore(t, 8)
	e := newEnv(t, func(d *Deps) { d.Store = st })
	w := &slowWriter{ResponseRecorder: httptest.NewRecorder(), entered: make(chan struct{}), release: make(chan struct{})}
	done := make(chan struct{})
	go func() {
		defer close(done)
		e.s.ServeHTTP(w, httptest.NewRequest("GET", "/v1beta/"+e.tenant+"/events", nil))
	}()
	<-w.entered
	for range 20 {
		e.host()
	}
	close(w.release)
	<-done
	if b := w.Body.String(); !strings.Contains(b, "event: resync\n") || strings.Contains(b, "event: created") {
		t.Errorf("the slow reader got %q", b)
	}
	if n := e.s.streams.open(); n != 0 {
		t.Errorf("%d streams are open", n)
	}
}

// A client that is there and reads nothing is cut off.
func TestEventsOfAClientThatDoesNotRead(t *testing.T) {
	st := historyStore(t, 0)
	e := newEnv(t, func(d *Deps) { d.Store = st })
	e.s.streams.write = 100 * time.Millisecond
	conn, err := net.Dial("tcp", strings.TrimPrefix(e.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := fmt.Fprintf(conn, "GET /v1beta/%s/events HTTP/1.1\r\nHost: x\r\n\r\n", e.tenant); err != nil {
		t.Fatal(err)
	}
	for e.s.streams.open() == 0 {
		time.Sleep(time.Millisecond)
	}
	// More than the sockets hold.
	text := strings.Repeat("x", 30000)
	for i := 0; i < 2000 && e.s.streams.open() > 0; i += 20 {
		tx := &db.Txn{Label: "test"}
		for range 20 {
			tx.Create(&model.Profile{Meta: model.Meta{ID: model.NewID(), Name: "p", CreatedAt: time.Now().UTC()}, StorageType: "block", Custom: map[string]any{"a": text}})
		}
		e.commit(tx)
	}
	for e.s.streams.open() != 0 { // the test's own deadline bounds this
		time.Sleep(time.Millisecond)
	}
}

// brokenWriter is a client that has gone.
type brokenWriter struct{ *httptest.ResponseRecorder }

func (w *brokenWriter) Write([]byte) (int, error) { return 0, errors.New("connection reset by peer") }

func TestEventsEndWithTheClient(t *testing.T) {
	e := newEnv(t)
	e.s.ServeHTTP(&brokenWriter{httptest.NewRecorder()}, httptest.NewRequest("GET", "/v1beta/"+e.tenant+"/events", nil))
	f := e.follow("")
	f.close()
	for e.s.streams.open() != 0 { // the server notices; the test's own deadline bounds this
		time.Sleep(time.Millisecond)
	}
}

func TestEventsEndWithTheServer(t *testing.T) {
	e := newEnv(t)
	a, b := e.follow(""), e.follow("?resource=volumes")
	e.s.Close()
	<-a.ended
	<-b.ended
	e.get("/events").fails(503, model.KindUnavailable, "", "shutting down")
	e.get("/profiles").want(200) // all else goes on
}

func TestEventsEndWithTheStore(t *testing.T) {
	st := historyStore(t, 8)
	e := newEnv(t, func(d *Deps) { d.Store = st })
	f := e.follow("")
	st.Close()
	<-f.ended
}

// A silent stream says that it lives, and how far it has come, even if a filter
// keeps everything back.
func TestEventsKeepAlive(t *testing.T) {
	e := newEnv(t)
	e.s.streams.keepAlive = 20 * time.Millisecond
	f := e.follow("?resource=volumes")
	if first := <-f.lines; first != f.rev {
		t.Errorf("the stream begins at %s, X-Osds-Revision is %s", first, f.rev)
	}
	e.host()
	rev := testStore.Rev()
	for {
		id := <-f.lines
		if p, err := parsePosition("id", id); err != nil {
			t.Fatal(err)
		} else if p.rev >= rev {
			break
		}
	}
	select {
	case ev := <-f.events:
		t.Errorf("an event came: %+v", ev)
	default:
	}
}

func TestEventsAreBounded(t *testing.T) {
	e := newEnv(t)
	e.s.streams.n = maxStreams
	r := e.get("/events").fails(503, model.KindUnavailable, "", "event streams")
	if r.Header.Get("Retry-After") == "" {
		t.Error("no Retry-After")
	}
	e.s.streams.n = 0
}

// BenchmarkEvent encodes one event of a volume.
func BenchmarkEvent(b *testing.B) {
	w := &eventWriter{s: &Server{}, f: &eventFilter{resources: tenantResources}}
	v := &model.Volume{
		Meta: model.Meta{ID: model.NewID(), TenantID: model.AdminTenant, Name: "volume", CreatedAt: time.Now(), UpdatedAt: time.Now()},
		Size: model.GiB, Status: model.StatusAvailable, AvailabilityZone: "default", PoolID: model.NewID(), ProfileID: model.NewID(),
		BackendData: map[string]string{"lvPath": "/dev/vg/x"}, Task: &model.Task{ID: model.NewID()},
	}
	e := db.Event{Rev: 4711, Type: db.Updated, Rec: v}
	b.ReportAllocs()
	for b.Loop() {
		w.buf.Reset()
		if w.f.wants(v) {
			w.event(&e)
		}
	}
	b.SetBytes(int64(w.buf.Len()))
}

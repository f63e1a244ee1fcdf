//go:build linux

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/osds-io/osds/pkg/db"
	"github.com/osds-io/osds/pkg/model"
)

// TestMain lets the test binary be the etcd of the raw part, as the program is.
func TestMain(m *testing.M) {
	if len(os.Args) == 3 && os.Args[1] == etcdFlag {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := runEtcd(ctx, os.Args[2], os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

func TestPercentiles(t *testing.T) {
	var all []time.Duration
	if p := percentile(all, 50); p != 0 {
		t.Errorf("of none: %v", p)
	}
	for i := range 100 {
		all = append(all, time.Duration(i+1))
	}
	for p, want := range map[int]time.Duration{1: 1, 50: 50, 99: 99, 100: 100} {
		if got := percentile(all, p); got != want {
			t.Errorf("p%d of 1..100 is %d, want %d", p, got, want)
		}
	}
	if got := percentile(all[:1], 99); got != 1 {
		t.Errorf("p99 of one value is %d", got)
	}
}

func TestFiguresAreMediansOfWindows(t *testing.T) {
	m := &measured{}
	// Three windows of a second with 10, 30 and 20 operations; what ends before
	// the first or after the last does not count.
	all := []done{{at: 500 * time.Millisecond, took: time.Hour}, {at: 4 * time.Second, took: time.Hour}}
	for w, n := range []int{10, 30, 20} {
		for range n {
			all = append(all, done{at: time.Duration(w+1)*time.Second + time.Millisecond, took: time.Duration(n) * time.Millisecond, kind: w})
		}
	}
	m.sum(all, []time.Duration{time.Second, 2 * time.Second, 3 * time.Second, 4 * time.Second})
	if m.ended != 60 || m.rate != 20 || m.p50 != 20*time.Millisecond || m.p99 != 20*time.Millisecond {
		t.Errorf("%+v", m)
	}
	if k := m.kinds[1]; k.n != 30 || k.p99 != 30*time.Millisecond {
		t.Errorf("kind 1: %+v", k)
	}
	if even := median([]int{4, 1, 3, 2}, func(i int) float64 { return float64(i) }); even != 2.5 {
		t.Errorf("median of 1..4 is %v", even)
	}
}

func TestDriveCountsErrorsAndGivesUp(t *testing.T) {
	n := 0
	bad := errors.New("bad")
	m, err := drive(t.Context(), timing{0, 250 * time.Millisecond, 2}, []operation{func(context.Context) (int, error) {
		if n++; n == 3 {
			return 0, bad
		}
		time.Sleep(time.Millisecond)
		return 0, nil
	}}, nil)
	if err != nil || m.errors != 1 || !errors.Is(m.first, bad) || m.ended == 0 || len(m.windows) != 2 {
		t.Errorf("%+v, %v", m, err)
	}
	ops := make([]operation, 200)
	for i := range ops {
		ops[i] = func(context.Context) (int, error) { return 0, bad }
	}
	if _, err := drive(t.Context(), timing{0, time.Minute, 1}, ops, nil); !errors.Is(err, bad) {
		t.Errorf("a load that only fails: %v", err)
	}
}

func TestPacedCountsFromItsTurn(t *testing.T) {
	const rate, slow = 100, 50 * time.Millisecond
	calls := 0
	op := paced(rate, func(context.Context) (int, error) {
		if calls++; calls == 1 {
			time.Sleep(slow) // the next four should have begun meanwhile
		}
		return 0, nil
	})
	var took []time.Duration
	for range 4 {
		var began time.Time
		if _, err := op(context.WithValue(t.Context(), startKey{}, &began)); err != nil {
			t.Fatal(err)
		}
		took = append(took, time.Since(began))
	}
	if took[0] < slow || took[1] < slow/2 { // never less: the first one slept
		t.Errorf("%v", took)
	}
}

func TestBarLines(t *testing.T) {
	var out bytes.Buffer
	r := newReport(&out)
	r.atLeast("volumes_128", 2210.4, "volumes/s", 2000)
	r.atLeast("volumes_raw_ratio_128", 0.0612, "ratio", 0.07)
	r.atMost("create_loss", 0, "volumes", 0)
	r.atMost("restart_ready", 5.25, "s", 5)
	r.end()
	want := `
bar volumes_128 2210 volumes/s >= 2000 ok
bar volumes_raw_ratio_128 0.061 ratio >= 0.07 short
bar create_loss 0 volumes <= 0 ok
bar restart_ready 5.250 s <= 5 short
`
	if out.String() != want {
		t.Errorf("%s", out.String())
	}
}

// stub is an API that makes volumes available at once, but for some.
type stub struct {
	mu      sync.Mutex
	streams []chan string
	volumes []string
	status  map[string]string
	chunked bool
	fail    func(n int) string // the end of the nth volume; "" is available
}

func (s *stub) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch {
	case strings.HasSuffix(r.URL.Path, "/events"):
		s.stream(w, r)
	case r.Method == http.MethodPost:
		s.create(w, r)
	default:
		s.list(w, r)
	}
}

func (s *stub) stream(w http.ResponseWriter, r *http.Request) {
	ch := make(chan string, 1000)
	s.mu.Lock()
	s.streams = append(s.streams, ch)
	s.mu.Unlock()
	w.Header().Set("Content-Type", "text/event-stream")
	fmt.Fprint(w, "retry: 2000\nid: 1\n\n")
	_ = http.NewResponseController(w).Flush()
	for {
		select {
		case e, ok := <-ch:
			if !ok {
				return
			}
			fmt.Fprint(w, e)
			_ = http.NewResponseController(w).Flush()
		case <-r.Context().Done():
			return
		}
	}
}

func (s *stub) create(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	if !bytes.Contains(body, []byte(`"name":"vol-`)) || r.Header.Get("Content-Type") != "application/json" {
		http.Error(w, "not what a client sends: "+string(body), http.StatusBadRequest)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	id := model.NewID()
	end := "available"
	if s.fail != nil {
		if e := s.fail(len(s.volumes)); e != "" {
			end = e
		}
	}
	s.volumes = append(s.volumes, id)
	s.status[id] = end
	// The events come before the answer, or after it; both must do.
	for _, status := range []string{"creating", end} {
		for _, ch := range s.streams {
			ch <- fmt.Sprintf("id: 7.0\nevent: updated\ndata: {\"id\":\"7.0\",\"revision\":7,\"type\":\"updated\",\"resource\":\"volumes\",\"resourceId\":%q,\"object\":{\"id\":%q,\"name\":\"x\",\"status\":%q}}\n\n", id, id, status)
		}
	}
	w.WriteHeader(http.StatusAccepted)
	if s.chunked {
		_ = http.NewResponseController(w).Flush()
	}
	fmt.Fprintf(w, `{"id":%q,"status":"creating"}`, id)
}

func (s *stub) list(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	from := 0
	if m := r.URL.Query().Get("marker"); m != "" {
		_, _ = fmt.Sscanf(m, "m%d", &from)
	}
	to := min(from+10, len(s.volumes))
	if to < len(s.volumes) {
		w.Header().Set("X-Osds-Next-Marker", fmt.Sprintf("m%d", to))
	}
	var out []string
	for _, id := range s.volumes[from:to] {
		if s.status[id] != "missing" {
			out = append(out, fmt.Sprintf(`{"id":%q,"status":%q}`, id, s.status[id]))
		}
	}
	fmt.Fprintf(w, "[%s]", strings.Join(out, ","))
}

func newStub(t *testing.T, chunked bool, fail func(int) string) (*stub, *creator) {
	t.Helper()
	s := &stub{status: map[string]string{}, chunked: chunked, fail: fail}
	srv := httptest.NewServer(s)
	t.Cleanup(srv.Close)
	addr := srv.Listener.Addr().String()
	w, err := watch(t.Context(), "http://"+addr+"/v1beta/bench/events")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.close)
	return s, &creator{addr: addr, profiles: []string{"p1", "p2"}, zones: zones, events: w}
}

func TestCreatorMakesAndVerifies(t *testing.T) {
	for _, chunked := range []bool{false, true} {
		_, c := newStub(t, chunked, nil)
		errs, first := c.fill(t.Context(), 100, 8, nil)
		if errs != 0 || len(c.accepted) != 100 {
			t.Fatalf("chunked %v: %d errors (%v), %d accepted", chunked, errs, first, len(c.accepted))
		}
		lost, listed, detail, err := c.verify()
		if lost != 0 || listed != 100 || err != nil {
			t.Errorf("chunked %v: %d lost of %d, %s, %v", chunked, lost, listed, detail, err)
		}
	}
}

func TestCreatorSeesErrorsAndLoss(t *testing.T) {
	s, c := newStub(t, false, func(n int) string {
		return map[int]string{5: "error"}[n]
	})
	errs, first := c.fill(t.Context(), 20, 1, nil)
	if errs != 1 || first == nil || !strings.Contains(first.Error(), "ended in error") {
		t.Errorf("%d errors, the first %v", errs, first)
	}
	s.mu.Lock()
	s.status[s.volumes[7]] = "missing"
	s.mu.Unlock()
	lost, listed, detail, err := c.verify()
	if lost != 2 || listed != 19 || detail == "" || err != nil {
		t.Errorf("%d lost of %d, %q, %v", lost, listed, detail, err)
	}
}

func TestCreateThatNeverBecomesAvailable(t *testing.T) {
	_, c := newStub(t, false, func(int) string { return "creating" })
	k := c.client()
	defer k.close()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := k.create(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v", err)
	}
}

func TestStreamThatEndsWakesClients(t *testing.T) {
	s, c := newStub(t, false, func(int) string { return "creating" })
	k := c.client()
	defer k.close()
	res := make(chan error, 1)
	go func() {
		_, err := k.create(t.Context())
		res <- err
	}()
	for c.events.waits() == 0 {
		time.Sleep(time.Millisecond)
	}
	s.mu.Lock()
	s.streams[0] <- "id: 9\nevent: resync\ndata: {}\n\n"
	s.mu.Unlock()
	if err := <-res; !errors.Is(err, errResynched) {
		t.Errorf("%v", err)
	}
	if _, err := k.create(t.Context()); !errors.Is(err, errResynched) {
		t.Errorf("after the end: %v", err)
	}
}

func (w *watcher) waits() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.waiting)
}

func TestTrickleKeepsItsRate(t *testing.T) {
	_, c := newStub(t, false, nil)
	began := time.Now()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	made, errs, first := c.trickle(ctx, 100, 4)
	// However slow the machine is: never more than the rate allows.
	if most := int(100*time.Since(began).Seconds()) + 4; errs != 0 || made == 0 || made > most {
		t.Errorf("%d made at 100/s, at most %d were due, %d errors (%v)", made, most, errs, first)
	}
	if lost, listed, _, err := c.verify(); lost != 0 || listed != made || err != nil {
		t.Errorf("%d lost, %d listed, %v", lost, listed, err)
	}
}

func TestConnReadsAnswers(t *testing.T) {
	big := strings.Repeat("x", 100_000)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/close":
			w.Header().Set("Connection", "close")
		case "/page":
			w.Header().Set("X-Osds-Total-Count", "42")
			w.Header().Set("X-Osds-Next-Marker", "abc")
		case "/none":
			w.WriteHeader(http.StatusNoContent)
			return
		}
		_, _ = io.WriteString(w, big)
	}))
	defer srv.Close()
	c := newConn(srv.Listener.Addr().String())
	defer c.close()
	for range 2 {
		for _, path := range []string{"/", "/page", "/none", "/close"} {
			status, body, err := c.do(request(nil, http.MethodGet, path, nil))
			if err != nil || (path != "/none" && (status != 200 || string(body) != big)) || (path == "/none" && (status != 204 || len(body) != 0)) {
				t.Fatalf("%s: %d, %d bytes, %v", path, status, len(body), err)
			}
			if path == "/page" && (c.total != 42 || string(c.next) != "abc") || path != "/page" && (c.total != -1 || len(c.next) != 0) {
				t.Errorf("%s: total %d, next %q", path, c.total, c.next)
			}
		}
	}
	srv.CloseClientConnections()
	if _, _, err := c.do(request(nil, http.MethodGet, "/", nil)); err == nil {
		// The connection was closed after the last answer; a new one is made.
		return
	}
	if status, _, err := c.do(request(nil, http.MethodGet, "/", nil)); err != nil || status != 200 {
		t.Errorf("after an error: %d, %v", status, err)
	}
}

func TestProcIsMeasuredAndEnded(t *testing.T) {
	log := filepath.Join(t.TempDir(), "log")
	p, err := startProc("sleeper", log, []string{"BENCH_WORD=hello"}, "/bin/sh", "-c", "echo $BENCH_WORD; exec sleep 60")
	if err != nil {
		t.Fatal(err)
	}
	defer p.kill()
	for !strings.Contains(tail(log, 100), "hello") {
		time.Sleep(time.Millisecond)
	}
	if err := p.died(); err != nil {
		t.Error(err)
	}
	if n, err := p.fds(); err != nil || n.rest < 3 || n.wal != 0 {
		t.Errorf("%+v descriptors, %v", n, err)
	}
	for { // it has none for a moment while it becomes the sleeper
		m, err := p.memory()
		if err != nil {
			t.Fatal(err)
		}
		if m.anon > 0 && m.file > 0 {
			break
		}
		time.Sleep(time.Millisecond)
	}
	m := meter{procs: []*proc{p}}
	m.edge(0)
	m.edge(1)
	if u, err := m.used(); err != nil || len(u.procs) != 1 || u.procs[0] > time.Second {
		t.Errorf("%+v, %v", u, err)
	}
	p.stop()
	if err := p.died(); err == nil || !strings.Contains(err.Error(), "hello") {
		t.Errorf("after stop: %v", err)
	}
}

func TestHistogram(t *testing.T) {
	text := func(a, b, all int) string {
		return fmt.Sprintf("# TYPE x histogram\nx_bucket{method=\"GET\",route=\"/a\",le=\"0.001\"} %d\nx_bucket{method=\"GET\",route=\"/a\",le=\"0.0025\"} %d\n"+
			"x_bucket{method=\"GET\",route=\"/a\",le=\"+Inf\"} %d\nx_bucket{method=\"POST\",route=\"/a\",le=\"+Inf\"} 7e+06\nx_sum 1\n", a, b, all)
	}
	before, err := parseHistogram(text(10, 10, 10), "x_bucket", `method="GET"`, `/a"`)
	if err != nil {
		t.Fatal(err)
	}
	after, err := parseHistogram(text(108, 110, 111), "x_bucket", `method="GET"`, `/a"`)
	if err != nil {
		t.Fatal(err)
	}
	for p, want := range map[float64]time.Duration{50: time.Millisecond, 99: 2500 * time.Microsecond, 100: math.MaxInt64} {
		if got := after.percentile(before, p); got != want {
			t.Errorf("p%v is %v, want %v", p, got, want)
		}
	}
	if got := before.percentile(before, 99); got != 0 {
		t.Errorf("of nothing: %v", got)
	}
	if _, err := parseHistogram(text(1, 1, 1), "y_bucket"); err == nil {
		t.Error("a metric that is not there is no error")
	}
}

func TestRollup(t *testing.T) {
	m, err := parseRollup("x", "00400000-7ffd [rollup]\nRss:  300 kB\nPss: 200 kB\nAnonymous:   100 kB\n")
	if err != nil || m.anon != 100<<10 || m.file != 200<<10 {
		t.Errorf("%v, %v", m, err)
	}
	if _, err := parseRollup("x", "Rss: 300 kB\n"); err == nil {
		t.Error("nothing anonymous is no error")
	}
}

func TestRawAgainstAMemberOfItsOwn(t *testing.T) {
	var out bytes.Buffer
	b := &bench{r: newReport(&out), dir: t.TempDir(), clients: []int{1, 4}, rawTiming: timing{500 * time.Millisecond, time.Second, 3}}
	if err := b.raw(t.Context()); err != nil {
		t.Fatal(err)
	}
	if b.r.made["raw_1"] <= 0 || b.r.made["raw_4"] <= 0 || strings.Count(out.String(), "clients  ") != 2 {
		t.Errorf("%v\n%s", b.r.made, out.String())
	}
	if left, _ := os.ReadDir(b.dir); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestCopiesAreWholeAndCounted(t *testing.T) {
	log := logrus.New()
	log.SetOutput(io.Discard)
	st, err := db.Open(t.Context(), db.Config{Embedded: db.Embedded{Dir: t.TempDir()}, Log: logrus.NewEntry(log)})
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	now := time.Now().UTC()
	first := &db.Txn{Label: "t"}
	for i, pool := range []string{"a", "b"} {
		v := &model.Volume{Meta: model.Meta{ID: model.NewID(), TenantID: tenant, Name: fmt.Sprint("m", i), CreatedAt: now},
			Size: model.GiB, Reserved: model.GiB, PoolID: pool, Status: model.StatusAvailable,
			Task: model.NewTask(model.ResVolume, model.TaskCreate, "", "r", now)}
		v.Task.End(model.TaskSucceeded, now)
		first.Create(v).PutRaw(db.ExplanationKey(v.ID), []byte("{}"), 0)
		first.Create(&model.Account{Meta: model.Meta{ID: pool}, Reserved: model.GiB})
	}
	rev, err := st.Commit(t.Context(), first)
	if err == nil {
		err = st.WaitRev(t.Context(), rev)
	}
	if err != nil {
		t.Fatal(err)
	}
	const n = 3*perTxn + 7
	ids, err := copyVolumes(t.Context(), st, n)
	if err != nil {
		t.Fatal(err)
	}
	if err := st.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	slices.Sort(ids)
	if got := len(slices.Compact(ids)); got != n || st.Volumes.Len() != n+2 {
		t.Errorf("%d ids, %d volumes", got, st.Volumes.Len())
	}
	var sum model.Bytes
	for _, v := range st.Volumes.All() {
		sum += v.Reserved
		if v.Status != model.StatusAvailable || v.Task == nil || v.Name == "" {
			t.Fatalf("%+v", v)
		}
	}
	var accounts model.Bytes
	for _, a := range st.Ledger.All() {
		accounts += a.Reserved
	}
	if sum != accounts || sum != (n+2)*model.GiB {
		t.Errorf("volumes hold %v, accounts say %v", sum, accounts)
	}
	if b, _, err := st.GetRaw(t.Context(), db.ExplanationKey(ids[0])); err != nil || string(b) != "{}" {
		t.Errorf("explanation %q, %v", b, err)
	}
}

func TestFlags(t *testing.T) {
	for _, bad := range [][]string{{"-only", "raw,no"}, {"-clients", "0"}, {"-clients", "x"}, {"-load", "x"}, {"-volumes", "1"}} {
		if _, _, err := parse(bad); err == nil {
			t.Errorf("%v is no error", bad)
		}
	}
	b, _, err := parse([]string{"-short", "-only", "raw,lists"})
	if err != nil || b.load != "store" || !b.parts["raw"] || !b.parts["lists"] || b.parts["volumes"] {
		t.Errorf("%+v, %v", b, err)
	}
}

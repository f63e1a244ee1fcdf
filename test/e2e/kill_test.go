//go:build real

package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/osds-io/osds/pkg/client"
	"github.com/osds-io/osds/pkg/model"
	"github.com/osds-io/osds/test/harness"
)

// killWorkers is how many clusters are tortured at a time. Most of the time goes
// with starting and coming back, not with work.
const killWorkers = 3

// pointLimit is how long one point may take before the cluster counts as stuck.
const pointLimit = 75 * time.Second

// broken is the backend on which every create fails, so that it has to be undone.
const broken = "broken"

// who is the process that dies.
type who string

const (
	theLet  who = "osdslet"
	theDock who = "osdsdock"
	theHost who = "attacher"
)

// attempt is one kill: where, in which process, with which driver below.
type attempt struct {
	who    who
	driver string
	point  string
	nth    int
	// after, if set, is where the process is killed first; point is then
	// reached on its way back.
	after *attempt
	// fresh says that the point is only reached in a cluster that is new.
	fresh bool
}

func (a attempt) plan() string {
	p := "kill:" + a.point
	if a.nth > 1 {
		p += fmt.Sprintf("@%d", a.nth)
	}
	return p
}

func (a attempt) String() string {
	s := fmt.Sprintf("%s %s %s@%d", a.who, a.driver, a.point, a.nth)
	if a.after != nil {
		s += fmt.Sprintf(" on the way back from %s@%d", a.after.point, a.after.nth)
	}
	return s
}

// outcome is how it went.
type outcome struct {
	attempt
	err     error
	reached bool
	took    time.Duration
	// back are the points that the process reached on its way back.
	back []string
}

// rig is one cluster of an osdslet and a dock with both drivers, and perhaps a dock
// that attaches.
type rig struct {
	c      *harness.Cluster
	let    *harness.Let
	dock   *harness.Dock
	at     *harness.Dock // nil: hosts attach by themselves
	cl     *client.Client
	admin  *client.Client
	host   string
	pools  map[string]string // backend: pool
	tracks int
}

// newRig makes a cluster and starts it; traced processes write the points that
// they reach from their very start.
func newRig(t *testing.T, drivers []string, traced bool) (*rig, error) {
	c := suite.NewCluster(t)
	r := &rig{c: c, pools: map[string]string{}}
	conf := harness.Quick().With(harness.Config{"controller.leaseTTL": "1s"})
	r.let = c.AddLet(conf)
	var backends []harness.Backend
	for _, d := range drivers {
		b := harness.Sample(d, 100)
		switch d {
		case "local", served:
			b = c.Local(d, 20)
		case broken:
			// It says that it has room, and finds that it has none; after
			// each start only when asked again about what it has made already.
			b.Config += "failures: [{op: create, lost: true, rate: 1, times: 1}, {op: create, kind: exhausted, rate: 1, message: no room after all}]\n"
		}
		backends = append(backends, b)
	}
	r.dock = c.AddDock(nil, backends...)
	if slices.Contains(drivers, served) {
		r.at = c.AddAttacher(nil)
	}
	if traced {
		for _, w := range r.all() {
			r.process(w).SetFaults("trace:" + r.traceFile(w))
		}
	}
	a := c.Client(client.Config{Retries: -1, AttemptTimeout: 10 * time.Second})
	r.cl = a.Client
	r.admin = c.Client(client.Config{}).Client
	for _, w := range r.all() {
		if err := r.process(w).Start(); err != nil {
			return nil, err
		}
	}
	return r, nil
}

// all are the processes of the cluster.
func (r *rig) all() []who {
	if r.at == nil {
		return []who{theLet, theDock}
	}
	return []who{theLet, theDock, theHost}
}

func (r *rig) traceFile(w who) string { return filepath.Join(r.c.Dir, string(w)+".trace") }

func (r *rig) process(w who) *harness.Process {
	switch w {
	case theLet:
		return r.let.Process
	case theHost:
		return r.at.Process
	}
	return r.dock.Process
}

// setUp makes what the scenario needs. It may be called while processes die, and
// again.
func (r *rig) setUp(ctx context.Context, drivers []string) error {
	host, err := os.Hostname()
	if err != nil {
		return err
	}
	return again(ctx, func() error {
		if r.host == "" {
			if _, err := r.admin.Profiles.Create(ctx, profile("default_block")); err != nil && !strings.Contains(err.Error(), "default_block") {
				return err
			}
			l, err := r.admin.Hosts.Collect(ctx, client.Query{}, 0)
			if err != nil {
				return err
			}
			if len(l) == 0 {
				_, err := r.admin.Hosts.Create(ctx, hostSpec(host))
				return errors.Join(err, errors.New("made just now"))
			}
			r.host = l[0].ID
		}
		pools, err := r.admin.Pools.Collect(ctx, client.Query{}, 0)
		if err != nil {
			return err
		}
		for _, p := range pools {
			if p.Status == model.StatusAvailable {
				r.pools[p.Backend] = p.ID
			}
		}
		for _, d := range drivers {
			if r.pools[d] == "" {
				return fmt.Errorf("no pool of backend %s", d)
			}
		}
		if r.at != nil {
			return r.attaches(ctx)
		}
		return nil
	})
}

// live runs the scenario on a driver and then checks that nothing is left.
func (r *rig) live(ctx context.Context, driver string, log func(string, ...any)) error {
	s := &scenario{c: r.cl, poolID: r.pools[driver], hostID: r.host, log: log,
		ready: func(ctx context.Context) error { return again(ctx, r.let.Ready) }}
	run := s.run
	s.imports = driver == "local"
	switch driver {
	case broken:
		run = s.refused
	case served:
		run = s.served
	}
	if err := run(ctx); err != nil {
		return err
	}
	return r.clean(ctx)
}

// clean checks that all is quiet, well and empty.
func (r *rig) clean(ctx context.Context) error {
	err := again(ctx, func() error {
		tasks, err := r.admin.Tasks.Collect(ctx, client.Query{}.Where("state", "active"), 20)
		if err != nil {
			return err
		}
		if len(tasks) > 0 {
			t := tasks[0]
			return fmt.Errorf("%d tasks go on, such as %s of %s %s: step %s, %d attempts: %s", len(tasks), t.Kind, t.Resource, t.ResourceID, t.Step, t.Attempts, t.LastError)
		}
		return nil
	})
	if err != nil {
		return err
	}
	// A dock that is on its way back cannot be asked yet.
	err = again(ctx, func() error {
		rep, err := r.admin.Doctor(ctx)
		if err != nil {
			return err
		}
		return harness.Findings(rep)
	})
	if err != nil {
		return err
	}
	ledger, err := r.admin.Ledger(ctx)
	if err != nil {
		return err
	}
	for _, p := range ledger {
		if p.Reserved != 0 || p.Volumes != 0 || p.Snapshots != 0 || p.Debts != 0 {
			return fmt.Errorf("the ledger of %s after the last delete: %+v", p.PoolName, p)
		}
	}
	if l, err := harness.Loops(r.c.Dir); err != nil || len(l) > 0 {
		return errors.Join(err, fmt.Errorf("loop devices: %v", l))
	}
	var files []string
	left := []string{"local/volumes", "local/import", "local/snapshots", "local/exports", served + "/volumes", served + "/exports"}
	if r.at != nil {
		left = append(left, filepath.Base(r.at.StateDir)+"/connector")
	}
	for _, dir := range left {
		l, err := filepath.Glob(filepath.Join(r.c.Dir, dir, "*"))
		if err != nil {
			return err
		}
		files = append(files, l...)
	}
	if len(files) > 0 {
		return fmt.Errorf("files after the last delete: %v", files)
	}
	return nil
}

// guard starts the process again whenever it dies by a fault point, with the
// next of plans. It ends with stop, which gives how often that happened.
func (r *rig) guard(p *harness.Process, plans ...string) (stop func() (kills int, err error)) {
	quit := make(chan struct{})
	done := make(chan struct{})
	var kills int
	var failed error
	go func() {
		defer close(done)
		for {
			select {
			case <-quit:
				return
			case <-p.Exited():
			}
			if !p.Killed() {
				failed = fmt.Errorf("%s ended by itself", p.Name)
				return
			}
			kills++
			next := ""
			if len(plans) > 0 {
				next, plans = plans[0], plans[1:]
			}
			p.SetFaults(next)
			if failed = p.Start(); failed != nil {
				return
			}
		}
	}()
	return func() (int, error) { close(quit); <-done; return kills, failed }
}

// try makes one attempt.
func (r *rig) try(ctx context.Context, drivers []string, at attempt) (o outcome) {
	began := time.Now()
	o.attempt = at
	var seen []string
	var mu sync.Mutex
	log := func(f string, args ...any) {
		mu.Lock()
		defer mu.Unlock()
		seen = append(seen, fmt.Sprintf(f, args...))
	}
	defer func() {
		o.took = time.Since(began)
		if o.err != nil {
			mu.Lock()
			defer mu.Unlock()
			o.err = fmt.Errorf("%w\n  the client saw:\n    %s", o.err, strings.Join(seen, "\n    "))
		}
	}()
	ctx, cancel := context.WithTimeout(ctx, pointLimit)
	defer cancel()
	p := r.process(at.who)
	p.Kill()
	r.tracks++
	track := filepath.Join(r.c.Dir, fmt.Sprintf("back%d.trace", r.tracks))
	want := 1
	plans := []string{"trace:" + track}
	p.SetFaults(at.plan())
	if at.after != nil {
		want = 2
		p.SetFaults(at.after.plan())
		plans = []string{at.plan(), ""}
	}
	if o.err = p.Start(); o.err != nil {
		return o
	}
	stop := r.guard(p, plans...)
	err := r.setUp(ctx, drivers)
	if err == nil {
		err = r.live(ctx, at.driver, log)
	}
	kills, gerr := stop()
	o.reached = kills >= want
	o.err = errors.Join(err, gerr)
	if !o.reached && o.err == nil {
		// It would die in the middle of a later attempt, on the other process.
		p.Kill()
		p.SetFaults("")
		o.err = p.Start()
	}
	o.back, _, err = harness.Points(track)
	o.err = errors.Join(o.err, err)
	return o
}

// dryRun enumerates the points that both processes reach over the scenario with
// a driver: first in a new cluster, then in one that was started again.
func dryRun(t *testing.T, drivers []string, driver string) []attempt {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*pointLimit)
	defer cancel()
	r, err := newRig(t, drivers, true)
	if err != nil {
		t.Fatal(err)
	}
	pass := func() {
		t.Helper()
		if err := r.setUp(ctx, drivers); err != nil {
			t.Fatal(err)
		}
		if err := r.live(ctx, driver, t.Logf); err != nil {
			t.Fatalf("the dry run with driver %s: %v", driver, err)
		}
	}
	read := func(w who) ([]string, map[string]int) {
		t.Helper()
		order, hits, err := harness.Points(r.traceFile(w))
		if err != nil {
			t.Fatal(err)
		}
		return order, hits
	}
	pass()
	firstOrder, first := map[who][]string{}, map[who]map[string]int{}
	for _, w := range r.all() {
		firstOrder[w], first[w] = read(w)
	}
	var out []attempt
	for _, w := range r.all() {
		// This one alone is started again: only it will be.
		p := r.process(w)
		p.Kill()
		if err := os.Remove(r.traceFile(w)); err != nil {
			t.Fatal(err)
		}
		r.c.Must(p.Start())
		pass()
		order, hits := read(w)
		for _, name := range order {
			out = append(out, attempt{who: w, driver: driver, point: name, nth: 1})
			if hits[name] > 1 {
				out = append(out, attempt{who: w, driver: driver, point: name, nth: 2})
			}
		}
		for _, name := range firstOrder[w] {
			if hits[name] == 0 {
				out = append(out, attempt{who: w, driver: driver, point: name, nth: 1, fresh: true})
			}
		}
	}
	retire(r)
	if len(out) < 30 {
		t.Fatalf("only %d points with driver %s: %v", len(out), driver, out)
	}
	return out
}

// TestKillAnywhere kills the real osdslet and the real osdsdock at every fault
// point that the life of a volume reaches, one at a time, with driver sample and
// with driver local, and those of a create that fails and is undone; starts them
// again; and checks that everything that was
// accepted ended as asked, and that nothing is left behind.
func TestKillAnywhere(t *testing.T) {
	drivers := []string{"sample", broken}
	switch _, err := os.Stat("/dev/loop-control"); {
	case os.Geteuid() != 0:
		t.Log("driver local is left out: its loop devices need root")
	case err != nil:
		t.Logf("driver local is left out: no loop devices here: %v", err)
	default:
		drivers = append(drivers, "local")
	}
	var todo []attempt
	for _, d := range drivers {
		todo = append(todo, dryRun(t, drivers, d)...)
	}
	todo = only(todo, os.Getenv("OSDS_KILL_POINT"))
	t.Logf("%d attempts", len(todo))
	report(t, tortureTwice(t, drivers, todo, func(string) bool { return true }))
}

// tortureTwice makes the attempts, and then those on the points that were only
// reached on the way back, of those that keep wants.
func tortureTwice(t *testing.T, drivers []string, todo []attempt, keep func(point string) bool) []outcome {
	t.Helper()
	results := torture(t, drivers, todo)

	// What is only reached on the way back is tried too: die, and die again
	// while coming back.
	known := map[string]bool{}
	for _, a := range todo {
		known[string(a.who)+a.driver+a.point] = true
	}
	var back []attempt
	for _, o := range results {
		for _, p := range o.back {
			if k := string(o.who) + o.driver + p; !known[k] && keep(p) {
				known[k] = true
				first := o.attempt
				back = append(back, attempt{who: o.who, driver: o.driver, point: p, nth: 1, after: &first, fresh: o.fresh})
			}
		}
	}
	t.Logf("%d more on the way back", len(back))
	return append(results, torture(t, drivers, back)...)
}

// only keeps the attempts whose name has a text, to look into one.
func only(all []attempt, text string) []attempt {
	if text == "" {
		return all
	}
	var out []attempt
	for _, a := range all {
		if strings.Contains(a.String(), text) {
			out = append(out, a)
		}
	}
	return out
}

// torture makes the attempts on a few clusters at a time. A cluster that failed
// one is not used any more.
func torture(t *testing.T, drivers []string, todo []attempt) []outcome {
	t.Helper()
	queue := make(chan attempt, len(todo))
	for _, a := range todo {
		queue <- a
	}
	close(queue)
	var mu sync.Mutex
	var out []outcome
	var wg sync.WaitGroup
	for range min(killWorkers, len(todo)) {
		wg.Go(func() {
			var r *rig
			for a := range queue {
				var o outcome
				tries := 3 // a point may be one of chance: a retry, a late beat
				if a.after != nil {
					tries = 1
				}
				for range tries {
					if r == nil || a.fresh {
						retire(r)
						var err error
						if r, err = newRig(t, drivers, false); err != nil {
							t.Error(err)
							return
						}
						if a.fresh {
							// Before anything was written.
							retire(r)
							if err := errors.Join(os.RemoveAll(r.let.Conf["dataDir"].(string)), os.RemoveAll(r.dock.StateDir), r.startOthers(a.who)); err != nil {
								t.Error(err)
								return
							}
						}
					}
					o = r.try(t.Context(), drivers, a)
					if o.err != nil {
						t.Errorf("%s: %v", a, o.err)
						retire(r)
						r = nil
						break
					}
					if o.reached {
						break
					}
				}
				mu.Lock()
				out = append(out, o)
				mu.Unlock()
			}
			retire(r)
		})
	}
	wg.Wait()
	return out
}

// startOthers starts the processes that are not the one to die.
func (r *rig) startOthers(dies who) error {
	for _, w := range r.all() {
		if w == dies {
			continue
		}
		if err := r.process(w).Start(); err != nil {
			return err
		}
	}
	return nil
}

// retire ends a cluster's processes; the rest goes with the test.
func retire(r *rig) {
	if r == nil {
		return
	}
	for _, w := range r.all() {
		r.process(w).Kill()
	}
}

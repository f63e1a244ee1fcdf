//go:build real

// Package chaos runs two osdslets on one etcd and two docks, lets clients work,
// and kills and stalls any of the four at random. Then the faults stop, and every
// invariant must hold: nothing stuck, no orphan, no ghost, the ledger exact, and
// whatever was accepted is as it was asked for.
package chaos

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/osds-io/osds/pkg/client"
	"github.com/osds-io/osds/pkg/model/wire"
	"github.com/osds-io/osds/test/harness"
)

var suite *harness.Suite

func TestMain(m *testing.M) { os.Exit(harness.Main(m, &suite)) }

// Settings of a run, from the environment.
const (
	envDuration = "OSDS_CHAOS_DURATION" // how long there are faults; 3m
	envSeed     = "OSDS_CHAOS_SEED"     // of what clients and faults do; random
)

// workers is how many clients there are.
const workers = 12

func settings(t *testing.T) (time.Duration, uint64) {
	d, seed := 3*time.Minute, rand.Uint64()
	var err error
	if s := os.Getenv(envDuration); s != "" {
		if d, err = time.ParseDuration(s); err != nil {
			t.Fatalf("%s: %v", envDuration, err)
		}
	}
	if s := os.Getenv(envSeed); s != "" {
		if seed, err = strconv.ParseUint(s, 10, 64); err != nil {
			t.Fatalf("%s: %v", envSeed, err)
		}
	}
	return d, seed
}

func TestChaos(t *testing.T) {
	duration, seed := settings(t)
	t.Logf("%s=%d %s=%s", envSeed, seed, envDuration, duration)
	c := suite.NewCluster(t)
	e := c.StartEtcd()
	conf := harness.Quick().With(e.Config()).With(harness.Config{"log.level": "info"})
	c.AddLet(conf)
	c.AddLet(conf)
	// One dock without storage, slow and unreliable; one with files and, for
	// root, real block devices.
	flaky := fmt.Sprintf("pool:\n  flaky-pool: {capacity: 20TiB, multiAttach: true}\n"+
		"latency: {default: 2ms, create: 10ms}\njitter: 0.5\nseed: %d\nfailures:\n", seed%1e9)
	// What changes something fails at times; lists do not, so that the doctor
	// can be believed.
	for _, op := range []string{"create", "clone", "delete", "expand", "snapshot", "deleteSnapshot", "export", "unexport"} {
		flaky += fmt.Sprintf("  - {op: %s, rate: 0.03, kind: unavailable, message: the link is down}\n  - {op: %s, rate: 0.03, lost: true}\n", op, op)
	}
	c.AddDock(nil, harness.Backend{Name: "flaky", Driver: "sample", Config: flaky},
		harness.Backend{Name: "harsh", Driver: "sample", Config: fmt.Sprintf(harsh, seed%1e9)})
	c.AddDock(nil, harness.Backend{Name: "files", Driver: "local", Config: fmt.Sprintf(`
pool:
  files-pool: {path: %s/files, overProvisioningRatio: 100}
`, c.Dir)})
	c.Start()
	a := c.Admin()
	pools := a.WaitPools(4)
	profile, host := a.Setup()
	second := a.Host("another-host")

	stop := make(chan struct{})
	var wg sync.WaitGroup
	var clients []*worker
	for i := range workers {
		w := &worker{
			n: i, t: t, rng: rand.New(rand.NewPCG(seed, uint64(i))), vols: map[string]*volume{},
			// The local pool exports to this host alone.
			hosts: map[string][]string{"flaky-pool": {host.ID, second.ID}, "files-pool": {host.ID}},
		}
		for _, p := range pools {
			// What is asked of the harsh ones need not succeed.
			if w.hosts[p.Name] != nil {
				w.pools = append(w.pools, pool{p.ID, p.Name})
			}
		}
		// Each begins with another osdslet and moves on when that one fails.
		lets := []*harness.Let{c.Lets[i%2], c.Lets[(i+1)%2]}
		w.api = c.Client(client.Config{Timeout: 20 * time.Second, AttemptTimeout: 6 * time.Second}, lets...).Client
		clients = append(clients, w)
		wg.Go(func() { w.run(t.Context(), stop) })
	}
	crowd := &world{t: t, c: c, admin: a, h: newHistory()}
	work, end := context.WithCancel(t.Context())
	defer end()
	var poolIDs []string
	for _, p := range pools {
		poolIDs = append(poolIDs, p.ID)
	}
	for _, g := range crowd.newCrowd(seed, host.ID, profile.ID, poolIDs) {
		wg.Go(func() { g.run(work) })
	}
	sameView, sameFences := crowd.follow(), crowd.watchEpochs()
	n := &nemesis{t: t, rng: rand.New(rand.NewPCG(seed, 1<<40)), c: c, deeds: map[string]int{}}
	n.run(duration)
	close(stop)
	end()
	wg.Wait()
	n.heal()
	t.Logf("faults: %v", n.deeds)
	a.Quiet(4 * time.Minute)
	a.Doctor()

	var sum counts
	for _, w := range clients {
		w.verify(a)
		sum.add(&w.counts)
	}
	t.Logf("requests: %d accepted, %d refused, %d without an answer; %v", sum.accepted, sum.refused, sum.unknown, sum.kinds)
	text, requests := crowd.h.summary()
	t.Logf("the crowd: %d requests%s", requests, text)
	crowd.check()
	sameFences()
	sameView()
	if sum.accepted < 500 {
		t.Errorf("only %d requests were accepted: this was no test", sum.accepted)
	}
	if len(n.deeds) == 0 {
		t.Error("there were no faults")
	}
	n.epochs()
	clearAll(t, a)
}

// clearAll deletes everything through the API, and sees that nothing is left: no
// record, no reservation, nothing on a backend.
func clearAll(t *testing.T, a *harness.API) {
	t.Helper()
	remove(t, a, a.Attachments)
	remove(t, a, a.Snapshots)
	remove(t, a, a.Groups)
	remove(t, a, a.Volumes)
	a.Doctor()
	accounts, err := a.Ledger(a.Ctx())
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range accounts {
		if x.Reserved != 0 || x.Debts != 0 {
			t.Errorf("pool %s has %d bytes reserved in the end, %d of them owed", x.PoolName, x.Reserved, x.Debts)
		}
	}
}

// remove deletes all records of a kind and waits until they are gone.
func remove[T any](t *testing.T, a *harness.API, all client.Collection[T]) {
	t.Helper()
	list, err := all.Collect(a.Ctx(), client.Query{}, 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range list {
		if err := all.Delete(a.Ctx(), idOf(x)); err != nil {
			t.Fatalf("delete %s: %v", idOf(x), err)
		}
	}
	a.Quiet(2 * time.Minute)
	if list, err = all.Collect(a.Ctx(), client.Query{}, 0); err != nil || len(list) != 0 {
		t.Fatalf("%d records are left: %v", len(list), err)
	}
}

func idOf(x any) string {
	switch v := x.(type) {
	case *wire.VolumeAttachmentSpec:
		return v.ID
	case *wire.VolumeSnapshotSpec:
		return v.ID
	case *wire.VolumeSpec:
		return v.ID
	case *wire.VolumeGroupSpec:
		return v.ID
	}
	panic(fmt.Sprintf("%T", x))
}

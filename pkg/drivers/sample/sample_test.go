package sample

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/osds-io/osds/pkg/drivers"
	"github.com/osds-io/osds/pkg/drivers/drivertest"
	"github.com/osds-io/osds/pkg/model"
)

func TestMain(m *testing.M) {
	drivertest.Child(func(ctx context.Context, dir string) (drivers.Driver, error) {
		return Open(ctx, drivers.Config{Backend: "sample", StateDir: dir, Path: filepath.Join(dir, "sample.yaml")})
	})
	os.Exit(m.Run())
}

// backend writes a configuration and gives a function that opens the backend.
func backend(t testing.TB, yaml string) (dir string, open func(testing.TB) drivers.Driver) {
	t.Helper()
	dir = t.TempDir()
	path := filepath.Join(dir, "sample.yaml")
	if err := os.WriteFile(path, []byte(yaml), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir, func(t testing.TB) drivers.Driver {
		d, err := Open(t.Context(), drivers.Config{Backend: "sample", StateDir: dir, Path: path})
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
}

func harness(t testing.TB, yaml string) (string, drivertest.Harness) {
	dir, open := backend(t, yaml)
	return dir, drivertest.Harness{New: open, Pool: "p", Fill: true, Host: model.Host{HostName: "h"},
		Skip: map[string]string{"data": "the sample driver has no data", "hold": "nobody can open a simulated export"}}
}

func TestConformance(t *testing.T) {
	_, h := harness(t, "pool: {p: {capacity: 2GiB, multiAttach: true}, other: {capacity: 1TiB}}")
	drivertest.Run(t, h)
}

func TestConformanceWithoutMultiAttach(t *testing.T) {
	_, h := harness(t, "pool: {p: {capacity: 1GiB, overProvisioningRatio: 3}}")
	drivertest.Run(t, h)
}

// A pool can be told to lack what the driver has; the suite then skips it or
// wants a refusal.
func TestConformanceWithLacks(t *testing.T) {
	_, h := harness(t, "pool: {p: {capacity: 2GiB, lacks: [expandOnline, revert, clone]}}")
	drivertest.Run(t, h)
	_, h = harness(t, "pool: {p: {capacity: 2GiB, lacks: [export, expand, snapshot]}}")
	drivertest.Run(t, h)
}

func TestUnusablePool(t *testing.T) {
	_, open := backend(t, "pool: {p: {unusable: it is being rebuilt}}")
	d := open(t)
	defer func() { _ = d.Close() }()
	ps, err := d.Pools(t.Context())
	if err != nil || ps[0].Unusable != "it is being rebuilt" {
		t.Error(ps, err)
	}
	_, err = d.CreateVolume(t.Context(), drivers.CreateVolume{ID: "v", Pool: "p", Size: 1})
	if !model.IsKind(err, model.KindUnavailable) {
		t.Error(err)
	}
}

func TestCrash(t *testing.T) {
	dir, h := harness(t, "pool: {p: {capacity: 2GiB}}")
	drivertest.Crash(t, h, dir)
}

// Long work is done in many calls, goes on after a restart, and can be undone.
func TestProgress(t *testing.T) {
	_, h := harness(t, "pool: {p: {capacity: 2GiB}}\nwork: {create: 200ms, clone: 200ms, expand: 200ms, revert: 200ms, delete: 200ms}\nslice: 1ms")
	drivertest.Progress(t, h, "create", "clone", "expand", "revert", "delete")
}

func TestDefaultPools(t *testing.T) {
	d, err := Factory(t.Context(), drivers.Config{StateDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = d.Close() }()
	ps, err := d.Pools(t.Context())
	if err != nil || len(ps) != 2 {
		t.Fatal(ps, err)
	}
	for i, want := range []struct {
		id, disk string
		gb       int64
	}{{"084bf71e-a102-11e7-88a8-e31fe6d52248", "SSD", 100}, {"a594b8ac-a103-11e7-985f-d723bcf01b5f", "SAS", 200}} {
		p := ps[i]
		if p.ID != want.id || p.Name != fmt.Sprintf("sample-pool-%02d", i+1) || p.Total != model.FromGB(want.gb) || p.Free != p.Total ||
			p.Extras.Advanced["diskType"] != want.disk || !p.MultiAttach || p.Extras.IOConnectivity.AccessProtocol != "rbd" {
			t.Errorf("%+v", p)
		}
	}
}

func TestManyPoolsHaveStableIDs(t *testing.T) {
	_, open := backend(t, "pool: {ssd: {capacity: 1TiB, count: 1200}}")
	ids := map[string]string{}
	for range 2 {
		d := open(t)
		ps, err := d.Pools(t.Context())
		if err != nil || len(ps) != 1200 || ps[0].Name != "ssd-00001" || ps[1199].Name != "ssd-01200" {
			t.Fatal(len(ps), err)
		}
		for _, p := range ps {
			if old, ok := ids[p.Name]; ok && old != p.ID {
				t.Fatalf("pool %s was %s and is %s", p.Name, old, p.ID)
			}
			ids[p.Name] = p.ID
		}
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
	}
	uniq := map[string]bool{}
	for _, id := range ids {
		uniq[id] = true
	}
	if len(uniq) != 1200 {
		t.Errorf("%d different ids", len(uniq))
	}
}

func TestSecondProcessIsRefused(t *testing.T) {
	dir, open := backend(t, "")
	d := open(t)
	defer func() { _ = d.Close() }()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	_, err := Open(ctx, drivers.Config{StateDir: dir})
	if !model.IsKind(err, model.KindUnavailable) || !strings.Contains(err.Error(), "in use") {
		t.Errorf("got %v", err)
	}
}

// The same seed gives the same failures, at about the rate asked for; a failure
// leaves nothing, a lost answer leaves everything.
func TestFailures(t *testing.T) {
	run := func() (outcome string, failed, lost int) {
		_, open := backend(t, `
pool: {p: {capacity: 1TiB}}
seed: 7
failures:
- {op: create, rate: 0.2, kind: unavailable, message: link down}
- {op: create, rate: 0.2, lost: true}
`)
		d := open(t)
		defer func() { _ = d.Close() }()
		for i := range 300 {
			id := fmt.Sprintf("v%03d", i)
			_, err := d.CreateVolume(t.Context(), drivers.CreateVolume{ID: id, Pool: "p", Size: model.GiB})
			_, gerr := d.GetVolume(t.Context(), drivers.VolumeRef{ID: id, Pool: "p"})
			k := model.KindOf(err)
			outcome += string(k) + ","
			switch k {
			case model.KindUnavailable:
				failed++
				if !strings.Contains(err.Error(), "link down") || !model.IsKind(gerr, model.KindNotFound) {
					t.Fatalf("%v, then %v", err, gerr)
				}
			case model.KindUnknownOutcome:
				lost++
				if gerr != nil {
					t.Fatalf("lost, then %v", gerr)
				}
			case "":
				if gerr != nil {
					t.Fatal(gerr)
				}
			default:
				t.Fatal(err)
			}
		}
		return outcome, failed, lost
	}
	a, failed, lost := run()
	if b, _, _ := run(); a != b {
		t.Error("the same seed gave different failures")
	}
	if failed < 30 || failed > 90 || lost < 25 || lost > 80 {
		t.Errorf("%d failed, %d lost of 300", failed, lost)
	}
}

// A caller whose time ends while the simulated backend is slow learns that it
// does not know, and nothing was done.
func TestLatencyObeysTheContext(t *testing.T) {
	_, open := backend(t, "pool: {p: {}}\nlatency: {create: 1h, default: 0s}\njitter: 0.5")
	d := open(t)
	defer func() { _ = d.Close() }()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	_, err := d.CreateVolume(ctx, drivers.CreateVolume{ID: "v", Pool: "p", Size: 1})
	if !model.IsKind(err, model.KindUnknownOutcome) {
		t.Error(err)
	}
	if _, err := d.GetVolume(t.Context(), drivers.VolumeRef{ID: "v", Pool: "p"}); !model.IsKind(err, model.KindNotFound) {
		t.Error(err)
	}
}

// Calls that are refused must not disturb those that share their commit, and
// the count of what is promised stays right.
func TestRefusalsShareACommit(t *testing.T) {
	_, open := backend(t, "pool: {p: {capacity: 32GiB}}")
	d := open(t)
	defer func() { _ = d.Close() }()
	var made atomic.Int64
	var wg sync.WaitGroup
	for i := range 64 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			_, err := d.CreateVolume(t.Context(), drivers.CreateVolume{ID: fmt.Sprint("v", i), Pool: "p", Size: model.GiB})
			if err == nil {
				made.Add(1)
			} else if !model.IsKind(err, model.KindExhausted) {
				t.Error(err)
			}
		}()
	}
	wg.Wait()
	ps, err := d.Pools(t.Context())
	if made.Load() != 32 || err != nil || ps[0].Free != 0 {
		t.Errorf("%d made, %+v, %v", made.Load(), ps, err)
	}
}

func TestConfig(t *testing.T) {
	for _, x := range []struct{ yaml, field, text string }{
		{"pools: {}", "pools", `did you mean "pool"?`},
		{"pool: {p: {capacty: 1}}", "pool.p.capacty", `"pool.p.capacity"`},
		{"pool: {p: {capacity: -1}}", "pool.p.capacity", "use K, M, G"},
		{"pool: {p: {count: -2}}", "pool.p.count", "from 1 to"},
		{"pool: {p: {count: 2, id: x}}", "pool.p.id", "cannot be given to 2 pools"},
		{"pool: {p: {count: 99999}, q: {count: 2}}", "pool", "more than"},
		{"pool: {p: {overProvisioningRatio: 0.5}}", "pool.p.overProvisioningRatio", "from 1"},
		{"pool: {p: {storageType: file}}", "pool.p.storageType", "must be block"},
		{"pool: {p: {lacks: [exprot]}}", "pool.p.lacks", `"export"`},
		{"pool: {p: {extras: {dataStorage: {provisioningPolicy: Fat}}}}", "pool.p.extras.dataStorage.provisioningPolicy", "Thin or Thick"},
		{"latency: {crate: 1ms}", "latency.crate", `"create"`},
		{"latency: {create: 2h}", "latency.create", "from 0s"},
		{"work: {crate: 1s}", "work.crate", `"create"`},
		{"work: {get: 1s}", "work.get", "no work"},
		{"work: {create: 25h}", "work.create", "from 0s"},
		{"slice: 1h", "slice", "from 1ns"},
		{"jitter: 2", "jitter", "from 0 to 1"},
		{"failures: [{op: creat, rate: 1, kind: busy}]", "failures[0].op", `"create"`},
		{"failures: [{op: create, rate: 2, kind: busy}]", "failures[0].rate", "from 0 to 1"},
		{"failures: [{op: create, rate: 1, kind: bsy}]", "failures[0].kind", `"busy"`},
		{"failures: [{op: create, rate: 1, kind: busy, lost: true}]", "failures[0].kind", "leave kind out"},
		{`pool: {"a\nb": {}}`, "pool", "control characters"},
	} {
		_, err := parse("s.yaml", []byte(x.yaml))
		e := model.AsError(err)
		if e == nil || e.Kind != model.KindInvalid || e.Field != x.field || !strings.Contains(e.Message, x.text) || !strings.HasPrefix(e.Message, "s.yaml") {
			t.Errorf("%q: %+v", x.yaml, e)
		}
	}
	c, err := parse("s.yaml", []byte("pool: {a: {count: 2}, a-00001: {}}"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.expand(); !model.IsKind(err, model.KindInvalid) {
		t.Errorf("two pools of one name: %v", err)
	}
	if _, err := Open(t.Context(), drivers.Config{StateDir: t.TempDir(), Path: "/nowhere.yaml"}); !model.IsKind(err, model.KindInvalid) {
		t.Errorf("a file that is not there: %v", err)
	}
	if _, err := Open(t.Context(), drivers.Config{}); !model.IsKind(err, model.KindInvalid) {
		t.Errorf("no state directory: %v", err)
	}
}

func FuzzConfig(f *testing.F) {
	f.Add([]byte("pool: {p: {capacity: 1GiB, count: 3, extras: {advanced: {diskType: SSD}}}}\nlatency: {create: 1ms}\njitter: 0.1\nfailures: [{op: any, rate: 0.5, kind: busy}]"))
	f.Add([]byte("pool:\n  p:\n    id: x\n    lacks: [export]\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := parse("f.yaml", data)
		if err != nil {
			if !model.IsKind(err, model.KindInvalid) {
				t.Fatalf("kind %s: %v", model.KindOf(err), err)
			}
			return
		}
		pools, err := c.expand()
		if err != nil {
			return
		}
		if len(pools) == 0 || len(pools) > maxPools {
			t.Fatalf("%d pools", len(pools))
		}
		for n, p := range pools {
			if p.Capacity <= 0 || p.OverProvisioningRatio < 1 || n == "" {
				t.Fatalf("pool %q: %+v", n, p)
			}
		}
	})
}

// 128 callers, as in the target of 5,000 creates a second.
func BenchmarkCreate(b *testing.B) {
	_, open := backend(b, "pool: {p: {capacity: 1048576TiB}}")
	d := open(b)
	defer func() { _ = d.Close() }()
	b.SetParallelism(64)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			_, err := d.CreateVolume(context.Background(), drivers.CreateVolume{ID: model.NewID(), Pool: "p", Size: model.GiB,
				TenantID: model.AdminTenant, ClusterID: "0198f3f2-0000-7000-8000-000000000001"})
			if err != nil {
				b.Fatal(err)
			}
		}
	})
}

// What an export is bounded to is accepted, and shown; a forced end is an end.
func TestExportBounds(t *testing.T) {
	_, open := backend(t, "pool: {p: {capacity: 1GiB}}")
	d := open(t).(*Driver)
	defer d.Close()
	v := drivers.VolumeRef{ID: "v", Pool: "p"}
	if _, err := d.CreateVolume(t.Context(), drivers.CreateVolume{ID: "v", Pool: "p", Size: model.MiB}); err != nil {
		t.Fatal(err)
	}
	in := drivers.Export{AttachmentID: "a", Volume: v, Host: model.Host{HostName: "h"}, QoS: drivers.QoS{MaxIOPS: 150, MaxBytesPerSecond: 5 << 20}}
	if _, err := d.Export(t.Context(), in); err != nil {
		t.Fatal(err)
	}
	in.QoS = drivers.QoS{} // a profile may have changed when the same call comes again
	if _, err := d.Export(t.Context(), in); err != nil {
		t.Fatal(err)
	}
	l, err := d.ListExports(t.Context(), drivers.Page{Limit: 5})
	if err != nil || len(l) != 1 || !strings.HasSuffix(l[0].Detail, ", at most 150 IOPS, at most 5 MiB/s") {
		t.Errorf("%+v, %v", l, err)
	}
	if err := d.Unexport(t.Context(), drivers.ExportRef{AttachmentID: "a", Volume: v, Force: true}); err != nil {
		t.Error(err)
	}
	if l, err := d.ListExports(t.Context(), drivers.Page{Limit: 5}); err != nil || len(l) != 0 {
		t.Errorf("%+v, %v", l, err)
	}
}

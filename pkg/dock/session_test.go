package dock_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/osds-io/osds/internal/tlsconf"
	"github.com/osds-io/osds/pkg/dock"
	"github.com/osds-io/osds/pkg/dock/internal/docktest"
	"github.com/osds-io/osds/pkg/dock/internal/memdriver"
	"github.com/osds-io/osds/pkg/dock/registry"
	"github.com/osds-io/osds/pkg/drivers"
	"github.com/osds-io/osds/pkg/model"
)

// events is an observer that remembers.
type events struct {
	mu    sync.Mutex
	list  []string
	beats atomic.Int64
}

func (e *events) add(s string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.list = append(e.list, s)
}

func (e *events) DockSeen(s registry.Session) { e.add("seen " + s.ID()) }
func (e *events) DockBeat(registry.Session)   { e.beats.Add(1) }
func (e *events) DockGone(id, _ string)       { e.add("gone " + id) }
func (e *events) all() string                 { e.mu.Lock(); defer e.mu.Unlock(); return strings.Join(e.list, ", ") }
func quickRegistry(o *events) registry.Options {
	return registry.Options{ClusterID: "c1", Observer: o, Beat: 50 * time.Millisecond}
}
func ready(d *docktest.Running, at string) string { return check(d, "osdslet/"+at) }

func check(d *docktest.Running, name string) string {
	for _, c := range d.Ready(context.Background()) {
		if c.Name == name {
			if c.OK {
				return "ok"
			}
			return c.Detail
		}
	}
	return "no such check"
}

// A dock registers with every osdslet over TLS, publishes its pools, and is
// called at the endpoint it gave.
func TestRegistersEverywhere(t *testing.T) {
	ca := docktest.CA(t)
	let := docktest.Identity(t, ca, tlsconf.RoleLet)
	var seen [2]events
	var regs [2]*registry.Registry
	cfg := docktest.Config(t)
	cfg.Osdslets = nil
	for i := range regs {
		o := quickRegistry(&seen[i])
		o.Leader = func() (bool, int64) { return i == 0, 17 }
		var addr string
		regs[i], addr, _ = docktest.StartRegistry(t, "127.0.0.1:0", o, let.ServerCredentials(tlsconf.RoleDock))
		cfg.Osdslets = append(cfg.Osdslets, addr)
	}
	cfg.TLS, cfg.InsecureLoopback = docktest.Files(t, ca, tlsconf.RoleDock), false
	cfg.Name, cfg.Metadata = "rack1", map[string]string{"rack": "1"}
	d := docktest.Start(t, cfg, mem(memdriver.New()), dock.Quick)
	for i, reg := range regs {
		docktest.Until(t, "beats with pools", func() bool {
			s, ok := reg.Get(d.ID())
			return ok && len(s.Pools) == 1 && seen[i].beats.Load() > 2
		})
		s, _ := reg.Get(d.ID())
		h, p := s.Hello, s.Pools[0]
		if h.GetName() != "rack1" || h.GetEndpoint() != d.Addr || h.GetMetadata()["rack"] != "1" || h.GetVersion() != "test" ||
			h.GetType() != "provisioner" || fmt.Sprint(h.GetBackends()) != "[mem:mem]" {
			t.Errorf("hello %v", h)
		}
		if p.GetName() != "mem" || p.GetBackend() != "mem" || !model.ValidUUID(p.GetId()) || p.GetTotal() != int64(100*model.TiB) {
			t.Errorf("pool %v", p)
		}
		for _, a := range []string{model.AbilityExpand, model.AbilityExpandLive, model.AbilitySnapshot, model.AbilityClone, model.AbilityRevert, model.AbilityExport} {
			if !strings.Contains(strings.Join(p.GetAbilities(), ","), a) {
				t.Errorf("the pool lacks %s: %v", a, p.GetAbilities())
			}
		}
		if got := seen[i].all(); got != "seen "+d.ID() {
			t.Errorf("observed %s", got)
		}
	}
	if dock.Cluster(d.Dock) != "c1" || d.Epoch() != 17 {
		t.Errorf("cluster %q, epoch %d: not taken from the Welcome", dock.Cluster(d.Dock), d.Epoch())
	}
	if check(d, "sessions") != "ok" || check(d, "backends") != "ok" || check(d, "certificate") != "ok" {
		t.Errorf("ready: %+v", d.Ready(t.Context()))
	}
	s, _ := regs[0].Get(d.ID())
	c := dialTo(t, s.Hello.GetEndpoint(), let.ClientCredentials(tlsconf.RoleDock), "mem")
	wantKind(t, "an epoch older than the Welcome's", c.DeleteVolume(within(t, time.Minute), call(16, 1), "mem", drivers.VolumeRef{ID: "v"}), model.KindStale)
	other := call(17, 1)
	other.ClusterID = "c2"
	wantKind(t, "another cluster's call", c.DeleteVolume(within(t, time.Minute), other, "mem", drivers.VolumeRef{ID: "v"}), model.KindDenied)
}

// An osdslet that is restarted is found again; within the grace nobody is told
// that the dock was gone.
func TestSessionComesBack(t *testing.T) {
	var ev events
	cfg := docktest.Config(t)
	reg, addr, stop := docktest.StartRegistry(t, "127.0.0.1:0", quickRegistry(&ev), nil)
	cfg.Osdslets = []string{addr}
	d := docktest.Start(t, cfg, mem(memdriver.New()), dock.Quick)
	docktest.Until(t, "the session", func() bool { _, ok := reg.Get(d.ID()); return ok })
	stop()
	docktest.Until(t, "the dock to notice", func() bool { return ready(d, addr) != "ok" })
	var ev2 events
	reg, _, _ = docktest.StartRegistry(t, addr, quickRegistry(&ev2), nil)
	docktest.Until(t, "the session again", func() bool { _, ok := reg.Get(d.ID()); return ok && ready(d, addr) == "ok" })
	if err := d.Stop(); err != nil {
		t.Fatal(err)
	}
}

// The dock's connection breaks and it comes back within the grace: it was never
// gone. It stays away: it is gone, once.
func TestGrace(t *testing.T) {
	var ev events
	o := quickRegistry(&ev)
	o.Grace = 300 * time.Millisecond
	cfg := docktest.Config(t)
	reg, addr, _ := docktest.StartRegistry(t, "127.0.0.1:0", o, nil)
	cfg.Osdslets = []string{addr}
	// A dock that hears nothing for so short a time ends its sessions all the
	// time, and comes back at once.
	d := docktest.Start(t, cfg, mem(memdriver.New()), func(d *dock.Dock) { dock.Quick(d); dock.Silence(d, 40*time.Millisecond) })
	docktest.Until(t, "several sessions", func() bool { return strings.Count(ev.all(), "seen") >= 4 })
	if got := ev.all(); strings.Contains(got, "gone") {
		t.Errorf("observed %s", got)
	}
	if err := d.Stop(); err != nil {
		t.Fatal(err)
	}
	docktest.Until(t, "the end", func() bool { return strings.HasSuffix(ev.all(), "gone "+d.ID()) })
	if _, ok := reg.Get(d.ID()); ok || len(reg.Snapshot()) != 0 {
		t.Error("a dock that is gone is still there")
	}
	if n := strings.Count(ev.all(), "gone"); n != 1 {
		t.Errorf("gone %d times", n)
	}
}

// A dock belongs to one cluster until it is moved.
func TestAnotherCluster(t *testing.T) {
	cfg := docktest.Config(t)
	_, addr1, _ := docktest.StartRegistry(t, "127.0.0.1:0", registry.Options{ClusterID: "c1"}, nil)
	reg2, addr2, _ := docktest.StartRegistry(t, "127.0.0.1:0", registry.Options{ClusterID: "c2"}, nil)
	cfg.Osdslets = []string{addr1}
	d := docktest.Start(t, cfg, mem(memdriver.New()), dock.Quick)
	docktest.Until(t, "the session", func() bool { return ready(d, addr1) == "ok" })
	if err := d.Stop(); err != nil {
		t.Fatal(err)
	}
	cfg.Osdslets = []string{addr2, addr1}
	d = docktest.Start(t, cfg, mem(memdriver.New()), dock.Quick)
	docktest.Until(t, "the refusal", func() bool { return strings.Contains(ready(d, addr2), "belongs to the cluster c1") })
	if !strings.Contains(ready(d, addr2), "--join-cluster c2") || len(reg2.Snapshot()) != 0 {
		t.Errorf("ready says %q; registered %v", ready(d, addr2), reg2.Snapshot())
	}
	docktest.Until(t, "its own cluster", func() bool { return ready(d, addr1) == "ok" && check(d, "sessions") == "ok" })
	if err := d.Stop(); err != nil {
		t.Fatal(err)
	}
	if left, err := dock.JoinCluster(cfg.StateDir, "c2"); err != nil || left != "c1" {
		t.Fatal(left, err)
	}
	d = docktest.Start(t, cfg, mem(memdriver.New()), dock.Quick)
	docktest.Until(t, "the new cluster", func() bool { return ready(d, addr2) == "ok" })
	docktest.Until(t, "the old one's refusal", func() bool { return strings.Contains(ready(d, addr1), "belongs to the cluster c2") })
}

// A host that was copied has two docks with one id: the second is refused while
// the first lives, and comes in when it does not.
func TestTwoInstances(t *testing.T) {
	var ev events
	o := quickRegistry(&ev)
	o.Grace = 100 * time.Millisecond
	reg, addr, _ := docktest.StartRegistry(t, "127.0.0.1:0", o, nil)
	cfg := docktest.Config(t)
	cfg.Osdslets = []string{addr}
	first := docktest.Start(t, cfg, mem(memdriver.New()), dock.Quick)
	docktest.Until(t, "the first", func() bool { return ready(first, addr) == "ok" })
	s, _ := reg.Get(first.ID())

	copied := cfg
	copied.StateDir = docktest.CopyState(t, cfg.StateDir)
	second := docktest.Start(t, copied, mem(memdriver.New()), dock.Quick)
	if second.ID() != first.ID() {
		t.Fatal("not a copy")
	}
	docktest.Until(t, "the refusal", func() bool { return strings.Contains(ready(second, addr), "registered already") })
	if now, _ := reg.Get(first.ID()); now.Hello.GetInstance() != s.Hello.GetInstance() {
		t.Error("the second took the place of the first")
	}
	if err := first.Stop(); err != nil {
		t.Fatal(err)
	}
	docktest.Until(t, "the second", func() bool { return ready(second, addr) == "ok" })
	if now, _ := reg.Get(first.ID()); now.Hello.GetEndpoint() != second.Addr {
		t.Errorf("registered at %s", now.Hello.GetEndpoint())
	}
}

// Pools that cannot be read are shown as unusable; they do not vanish.
func TestPoolsThatCannotBeRead(t *testing.T) {
	drv := memdriver.New()
	var broken, hang atomic.Bool
	drv.Hook = func(ctx context.Context, m, _ string) error {
		if m == "Pools" && broken.Load() {
			return model.Errorf(model.KindUnavailable, "the array does not answer")
		}
		if m == "Pools" && hang.Load() {
			<-ctx.Done()
			return ctx.Err()
		}
		return nil
	}
	reg, addr, _ := docktest.StartRegistry(t, "127.0.0.1:0", quickRegistry(&events{}), nil)
	cfg := docktest.Config(t)
	cfg.Osdslets = []string{addr}
	d := docktest.Start(t, cfg, mem(drv), dock.Quick)
	pool := func(ok func(s registry.Session) bool) func() bool {
		return func() bool { s, live := reg.Get(d.ID()); return live && len(s.Pools) == 1 && ok(s) }
	}
	docktest.Until(t, "the pool", pool(func(s registry.Session) bool { return s.Pools[0].GetUnusable() == "" }))
	broken.Store(true)
	docktest.Until(t, "the reason", pool(func(s registry.Session) bool {
		return strings.Contains(s.Pools[0].GetUnusable(), "does not answer") && s.OutOfService["mem"] != ""
	}))
	broken.Store(false)
	docktest.Until(t, "the pool again", pool(func(s registry.Session) bool { return s.Pools[0].GetUnusable() == "" && s.OutOfService["mem"] == "" }))
	hang.Store(true)
	if err := d.Stop(); err != nil { // a hanging Pools does not hold it
		t.Error(err)
	}
}

// Two backends on one store: its space counts once.
func TestOnePoolTwice(t *testing.T) {
	shared := memdriver.New()
	f := func(context.Context, drivers.Config) (drivers.Driver, error) { return identified{shared}, nil }
	reg, addr, _ := docktest.StartRegistry(t, "127.0.0.1:0", quickRegistry(&events{}), nil)
	cfg := docktest.Config(t)
	cfg.Osdslets = []string{addr}
	cfg.Backends = append(cfg.Backends, dock.BackendConfig{Name: "again", Driver: "mem"})
	d := docktest.Start(t, cfg, map[string]drivers.Factory{"mem": f}, dock.Quick)
	docktest.Until(t, "the reason", func() bool {
		s, ok := reg.Get(d.ID())
		return ok && len(s.Pools) == 1 && s.Pools[0].GetBackend() == "mem" && strings.Contains(s.OutOfService["again"], "the same as one of the backend mem")
	})
	s, _ := reg.Get(d.ID())
	if s.Pools[0].GetId() != "the-store-itself" {
		t.Errorf("pool id %s", s.Pools[0].GetId())
	}
}

// identified is a driver whose pool has an id of its own.
type identified struct{ *memdriver.Driver }

func (i identified) Pools(ctx context.Context) ([]drivers.Pool, error) {
	pools, err := i.Driver.Pools(ctx)
	for k := range pools {
		pools[k].ID = "the-store-itself"
	}
	return pools, err
}

// An osdslet that stops answering without ending the connection is left.
func TestSilentOsdslet(t *testing.T) {
	block := make(chan struct{})
	o := quickRegistry(nil)
	o.Observer = blocks{block}
	_, addr, _ := docktest.StartRegistry(t, "127.0.0.1:0", o, nil)
	defer close(block)
	cfg := docktest.Config(t)
	cfg.Osdslets = []string{addr}
	d := docktest.Start(t, cfg, mem(memdriver.New()), func(d *dock.Dock) { dock.Quick(d); dock.Silence(d, 50*time.Millisecond) })
	docktest.Until(t, "the dock to notice", func() bool { return strings.Contains(ready(d, addr), "nothing heard") })
	if got := check(d, "sessions"); got == "ok" {
		t.Error("ready without a session")
	}
}

type blocks struct{ ch chan struct{} }

func (b blocks) DockSeen(registry.Session) { <-b.ch }
func (b blocks) DockBeat(registry.Session) {}
func (b blocks) DockGone(string, string)   {}

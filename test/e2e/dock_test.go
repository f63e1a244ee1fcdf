//go:build real

package e2e

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/osds-io/osds/pkg/client"
	"github.com/osds-io/osds/pkg/model"
	"github.com/osds-io/osds/pkg/model/wire"
	"github.com/osds-io/osds/test/harness"
)

// TestDeadDock: a dock that is killed makes its pools unavailable within 15 s,
// which is promised; its volumes keep their records; it comes back by itself.
func TestDeadDock(t *testing.T) {
	t.Parallel()
	c := suite.NewCluster(t)
	c.AddLet(nil) // the times that users have
	c.AddDock(nil, harness.Sample("a", 100))
	c.AddDock(nil, harness.Sample("b", 100))
	c.Start()
	a := c.Admin()
	a.WaitPools(2)
	a.Setup()
	dead, alive := a.Pool("a-pool"), a.Pool("b-pool")
	v := a.Volume(wire.VolumeSpec{Name: "v", PoolID: dead.ID})

	c.Docks[0].Kill()
	began := time.Now()
	c.Until(harness.Limit, "the pool is unavailable", func() error {
		p, err := a.Pools.Get(a.Ctx(), dead.ID)
		if err != nil {
			return err
		}
		if p.Status != model.StatusUnavailable || p.StatusReason == "" {
			return errorf("%s %q", p.Status, p.StatusReason)
		}
		return nil
	})
	// The bound is 15 s; the rest is for a machine that is busy with other
	// tests.
	if took := time.Since(began); took > 20*time.Second {
		t.Errorf("it took %s until the pool of a killed dock was unavailable", took)
	} else {
		t.Logf("unavailable %s after the kill", took.Round(100*time.Millisecond))
	}
	docks, err := a.Docks.Collect(a.Ctx(), client.Query{}.Where("name", "osdsdock1"), 0)
	if err != nil || len(docks) != 1 || docks[0].Status != model.StatusUnavailable || docks[0].StatusReason == "" {
		t.Fatalf("%+v %v", docks, err)
	}
	if got := a.GetVolume(v.ID); got.Status != model.StatusAvailable || got.PoolID != dead.ID {
		t.Fatalf("the volume of a dead dock: %+v", got)
	}
	// New volumes go elsewhere.
	if n := a.Volume(wire.VolumeSpec{Name: "n"}); n.PoolID != alive.ID {
		t.Fatalf("placed in %s", n.PoolID)
	}
	// The doctor says that it could not ask.
	r, err := a.Client.Doctor(a.Ctx())
	if err != nil || r.OK {
		t.Fatalf("the doctor of a cluster with a dead dock: %+v %v", r, err)
	}

	c.Must(c.Docks[0].Start())
	a.WaitPools(2)
	a.Grow(v.ID, 2)
	a.Doctor()
}

// TestDebt: deleting does not wait for a dead dock; what is owed keeps its space
// until the dock is back, and is settled then.
func TestDebt(t *testing.T) {
	t.Parallel()
	c, a := one(t, sample("s", 10))
	_, host := a.Setup()
	v := a.Volume(wire.VolumeSpec{Name: "v", Size: 4})
	s := a.Snapshot(v.ID, "s")
	w := a.Volume(wire.VolumeSpec{Name: "w", Size: 1})
	at := a.Attach(w.ID, host.ID)
	c.Docks[0].Kill()
	// Those of a pair wait together for the dock.
	for _, pair := range [][2]func(){
		{func() { a.DeleteSnapshot(s.ID) }, func() { a.Detach(at.ID) }},
		{func() { a.DeleteVolume(v.ID) }, func() { a.DeleteVolume(w.ID) }},
	} {
		var wg sync.WaitGroup
		wg.Go(pair[0])
		wg.Go(pair[1])
		wg.Wait()
	}
	debts, err := a.Debts(a.Ctx())
	if err != nil || len(debts) != 4 {
		t.Fatalf("%+v %v", debts, err)
	}
	owed := map[model.Resource]int64{}
	for _, d := range debts {
		owed[d.Resource] += d.Reserved
		if d.Reason == "" || d.DockID == "" {
			t.Errorf("%+v", d)
		}
	}
	if want := map[model.Resource]int64{model.ResVolume: 5 << 30, model.ResSnapshot: 4 << 30, model.ResAttachment: 0}; fmt.Sprint(owed) != fmt.Sprint(want) {
		t.Fatalf("owed %v, want %v", owed, want)
	}
	l, err := a.Ledger(a.Ctx())
	if err != nil || len(l) != 1 || l[0].Reserved != 9<<30 || l[0].Debts != 9<<30 {
		t.Fatalf("%+v %v", l, err)
	}
	// A restart in between forgets nothing.
	c.Lets[0].Kill()
	c.Must(c.Lets[0].Start())
	c.Lets[0].WaitReady()
	if again, err := a.Debts(a.Ctx()); err != nil || len(again) != 4 {
		t.Fatalf("%+v %v", again, err)
	}
	c.Must(c.Docks[0].Start())
	a.WaitPools(1)
	a.Quiet(harness.Limit)
	if left, err := a.Debts(a.Ctx()); err != nil || len(left) != 0 {
		t.Fatalf("%+v %v", left, err)
	}
	empty(t, a)
	a.Doctor()
	// The space is there again.
	a.DeleteVolume(a.Volume(wire.VolumeSpec{Size: 10}).ID)
}

// TestRemoveDock: a dock that will not come back is removed with its pools and
// what is owed there, and the doctor is content; one that comes back all the same
// registers anew, and what is still on it is named.
func TestRemoveDock(t *testing.T) {
	t.Parallel()
	c := suite.NewCluster(t)
	c.AddLet(harness.Quick())
	c.AddDock(nil, harness.Sample("a", 100))
	c.AddDock(nil, harness.Sample("b", 100))
	c.Start()
	a := c.Admin()
	a.WaitPools(2)
	a.Setup()
	pool := a.Pool("a-pool")
	v := a.Volume(wire.VolumeSpec{Name: "v", PoolID: pool.ID})
	ctl := c.Ctl()
	has(t, ctl.Fails(2, "dock", "delete", pool.DockID).Err, "stop it")
	c.Docks[0].Kill()
	c.Until(harness.Limit, "the dock is unavailable", func() error {
		d, err := a.Docks.Get(a.Ctx(), pool.DockID)
		if err == nil && d.Status != model.StatusUnavailable {
			err = errorf("it is %s", d.Status)
		}
		return err
	})
	has(t, ctl.Fails(2, "dock", "delete", pool.DockID).Err, v.ID)
	a.DeleteVolume(v.ID)
	if debts, err := a.Debts(a.Ctx()); err != nil || len(debts) != 1 {
		t.Fatalf("%+v %v", debts, err)
	}
	ctl.OK("dock", "delete", pool.DockID)
	c.Until(harness.Limit, "the dock is gone", func() error {
		docks, err := a.Docks.Collect(a.Ctx(), client.Query{}, 0)
		if err == nil && len(docks) != 1 {
			err = errorf("%d docks", len(docks))
		}
		return err
	})
	if pools := a.WaitPools(1); pools[0].Name != "b-pool" {
		t.Errorf("%+v", pools[0])
	}
	if debts, err := a.Debts(a.Ctx()); err != nil || len(debts) != 0 {
		t.Errorf("%+v %v", debts, err)
	}
	if l, err := a.Ledger(a.Ctx()); err != nil || len(l) != 1 || l[0].Reserved != 0 {
		t.Errorf("%+v %v", l, err)
	}
	a.Doctor()

	// A leader that had the debt in hand may settle it once more; a new one
	// knows nothing of it.
	c.Lets[0].Kill()
	c.Must(c.Lets[0].Start())
	c.Lets[0].WaitReady()
	c.Must(c.Docks[0].Start())
	a.WaitPools(2)
	r, err := a.Client.Doctor(a.Ctx())
	if err != nil || r.OK || !strings.Contains(fmt.Sprintf("%+v", r), v.ID) {
		t.Fatalf("the doctor, with a volume on the backend that was written off: %+v %v", r, err)
	}
}

// TestManyBackends: one dock serves several backends, of one driver and of
// several.
func TestManyBackends(t *testing.T) {
	t.Parallel()
	c, a := one(t, sample("s1", 50), sample("s2", 60), local("l1", 10), local("l2", 20))
	a.Setup()
	pools := map[string]*wire.StoragePoolSpec{}
	for _, p := range a.WaitPools(4) {
		pools[p.Name] = p
	}
	for name, want := range map[string]struct {
		backend, driver string
		gb              int64
	}{"s1-pool": {"s1", "sample", 50}, "s2-pool": {"s2", "sample", 60}, "l1-pool": {"l1", "local", 10}, "l2-pool": {"l2", "local", 20}} {
		p := pools[name]
		if p == nil || p.Backend != want.backend || p.Driver != want.driver || p.TotalCapacity != want.gb {
			t.Fatalf("%s: %+v", name, p)
		}
		v := a.Volume(wire.VolumeSpec{Name: name, PoolID: p.ID})
		if v.PoolID != p.ID {
			t.Errorf("%s: in %s", name, v.PoolID)
		}
		s := a.Snapshot(v.ID, "s")
		cl := a.Volume(wire.VolumeSpec{Name: "clone", SnapshotID: s.ID, Size: 1})
		if cl.PoolID != p.ID || s.PoolID != p.ID {
			t.Errorf("%s: snapshot in %s, clone in %s", name, s.PoolID, cl.PoolID)
		}
	}
	a.Doctor()
	// Backends are told apart after a restart.
	c.Docks[0].Kill()
	c.Must(c.Docks[0].Start())
	c.Docks[0].WaitReady()
	a.WaitPools(4)
	a.Doctor()
	for x, err := range a.Snapshots.All(a.Ctx(), client.Query{}) {
		if err != nil {
			t.Fatal(err)
		}
		a.DeleteSnapshot(x.ID)
	}
	for x, err := range a.Volumes.All(a.Ctx(), client.Query{}) {
		if err != nil {
			t.Fatal(err)
		}
		a.DeleteVolume(x.ID)
	}
	empty(t, a)
	a.Doctor()
}

//go:build real

package e2e

import (
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/osds-io/osds/pkg/client"
	"github.com/osds-io/osds/pkg/model"
	"github.com/osds-io/osds/pkg/model/wire"
	"github.com/osds-io/osds/test/harness"
)

// deposed makes a cluster of two osdslets on an etcd of its own. The first leads,
// and reaches etcd through a proxy; the second has faults. Clients use the second.
func deposed(t *testing.T, faults string, backend harness.Backend) (c *harness.Cluster, old, next *harness.Let, etcd *harness.Proxy, a *harness.API) {
	t.Helper()
	c = suite.NewCluster(t)
	e := c.StartEtcd()
	etcd = e.Proxy()
	old, next = c.AddLet(harness.Quick().With(e.Via(etcd))), c.AddLet(harness.Quick().With(e.Config()))
	next.SetFaults(faults)
	c.AddDock(harness.Config{harness.ViaProxy: true}, backend)
	c.Must(old.Start())
	leads(c, old)
	c.Must(next.Start())
	next.WaitReady()
	c.Must(c.Docks[0].Start())
	a = c.Client(client.Config{}, next)
	a.WaitPools(1)
	a.Setup()
	return c, old, next, etcd, a
}

// leads waits until an osdslet says that it leads.
func leads(c *harness.Cluster, l *harness.Let) {
	c.T.Helper()
	c.Until(harness.Limit, l.Name+" leads", func() error {
		if who, _ := l.Leader(); who != l.API {
			return errorf("%q leads", who)
		}
		return nil
	})
}

// metric gives the sum of a dock's metric over its labels that have a text.
func metric(t *testing.T, c *harness.Cluster, name, label string) int {
	t.Helper()
	body, err := c.Docks[0].Metrics()
	if err != nil {
		t.Fatal(err)
	}
	sum := 0.0
	for _, line := range strings.Split(body, "\n") {
		if !strings.HasPrefix(line, name) || !strings.Contains(line, label) {
			continue
		}
		n, err := strconv.ParseFloat(line[strings.LastIndexByte(line, ' ')+1:], 64)
		if err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		sum += n
	}
	return int(sum)
}

// held makes volumes whose creates are on their way to the dock, and stay there.
func held(t *testing.T, c *harness.Cluster, a *harness.API, n int) (ids []string) {
	t.Helper()
	a.DeleteVolume(a.Volume(wire.VolumeSpec{Name: "first"}).ID) // the connection stands
	c.Docks[0].Proxy.Hold()
	for i := range n {
		v, err := a.Volumes.Create(a.Ctx(), &wire.VolumeSpec{Name: fmt.Sprintf("v%d", i), Size: 1})
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, v.ID)
	}
	c.Until(harness.Limit, "all are being made", func() error {
		l, err := a.Tasks.Collect(a.Ctx(), client.Query{}.Where("state", "active"), 0)
		if err != nil {
			return err
		}
		n := 0
		for _, x := range l {
			if x.Step == model.StepProvision {
				n++
			}
		}
		if n != len(ids) {
			return errorf("%d of %d", n, len(l))
		}
		return nil
	})
	return ids
}

// late delivers what was held back after the volumes were made and deleted by
// other calls: the dock must refuse all of it.
func late(t *testing.T, c *harness.Cluster, a *harness.API, ids []string) {
	t.Helper()
	for _, id := range ids {
		a.Settle(model.ResVolume, id, "")
		if err := a.Volumes.Delete(a.Ctx(), id); err != nil {
			t.Fatal(err)
		}
	}
	for _, id := range ids {
		a.Gone(model.ResVolume, id)
	}
	stale := func() int { return metric(t, c, "osds_dock_stale_total", "") }
	was := stale()
	t.Logf("%d bytes come late", c.Docks[0].Proxy.Release())
	// One that was given up meanwhile may be refused for that, or, if word of
	// that comes with it, never begin.
	c.Until(harness.Limit, "most of the late calls are refused as such", func() error {
		if n := stale() - was; n < len(ids)/2 {
			return errorf("%d of %d", n, len(ids))
		}
		return nil
	})
	a.Quiet(harness.Limit)
	a.Doctor()
	empty(t, a)
}

// TestDeposedLeaderCalls: the calls of a leader reach the dock only when another
// one has done its work, and users have deleted the result. They come with an
// epoch that is over: the dock refuses them, and nothing is made that nobody
// knows of.
func TestDeposedLeaderCalls(t *testing.T) {
	t.Parallel()
	c, old, next, _, a := deposed(t, "", harness.Sample("s", 100))
	ids := held(t, c, a, 20)
	c.Must(old.Pause())
	leads(c, next)
	late(t, c, a, ids)
	c.Must(old.Resume())
	old.WaitReady()
	a.Quiet(harness.Limit)
	a.Doctor()
	empty(t, a)
}

// TestLateCalls: calls of the same leader arrive after later ones did, by another
// connection. The dock refuses them by their numbers.
func TestLateCalls(t *testing.T) {
	t.Parallel()
	c := suite.NewCluster(t)
	c.AddLet(harness.Quick())
	c.AddDock(harness.Config{harness.ViaProxy: true}, harness.Sample("s", 100))
	c.Start()
	a := c.Admin()
	a.WaitPools(1)
	a.Setup()
	// The connection goes when its pings are not answered; a new one is made.
	late(t, c, a, held(t, c, a, 20))
}

// TestDeposedLeaderWrites: a transaction of a leader reaches the store only when
// another one leads, is at the same record, and has changed the ledger since. With
// the ledger as the old leader knew it, it must not hold.
func TestDeposedLeaderWrites(t *testing.T) {
	t.Parallel()
	slow := harness.Sample("s", 100)
	slow.Config += "latency: {delete: 1s}\n" // shorter than a lease
	// The new leader comes to the same point, and stays there until the late
	// transaction has come.
	c, old, next, etcd, a := deposed(t, "sleep:20s:db.volume.drop.before", slow)
	v := a.Volume(wire.VolumeSpec{Name: "v", Size: 5})
	if err := a.Volumes.Delete(a.Ctx(), v.ID); err != nil {
		t.Fatal(err)
	}
	c.Until(harness.Limit, "the dock is deleting it", func() error {
		if n := metric(t, c, "osds_dock_calls_in_flight", ""); n != 1 {
			return errorf("%d calls", n)
		}
		return nil
	})
	etcd.Hold() // with the transaction that follows, and the lease
	leads(c, next)
	const more = 4
	for i := range more {
		a.Volume(wire.VolumeSpec{Name: fmt.Sprintf("w%d", i), Size: 1})
	}
	if got := a.GetVolume(v.ID); got.Status != model.StatusDeleting {
		t.Fatalf("the new leader was quicker than it should be here: %s", got.Status)
	}
	t.Logf("%d bytes come late", etcd.Release())
	old.WaitReady()
	a.Gone(model.ResVolume, v.ID)
	a.Quiet(harness.Limit)
	a.Doctor()
	l, err := a.Ledger(a.Ctx())
	if err != nil || len(l) != 1 || l[0].Reserved != more<<30 {
		t.Fatalf("%+v %v", l, err)
	}
}

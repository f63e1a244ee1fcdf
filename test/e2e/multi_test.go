//go:build real

package e2e

import (
	"fmt"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/osds-io/osds/pkg/client"
	"github.com/osds-io/osds/pkg/model"
	"github.com/osds-io/osds/pkg/model/wire"
	"github.com/osds-io/osds/test/harness"
)

// twoLets is the work of two osdslets on one etcd: both serve, either may die,
// the other leads then, and clients read what they wrote through the other.
func twoLets(t *testing.T, c *harness.Cluster, mayDie ...*harness.Let) {
	t.Helper()
	c.AddDock(nil, harness.Sample("shared", 500))
	c.Start()
	a := c.Admin()
	a.WaitPools(1)
	a.Setup()
	by := []*harness.API{c.Client(client.Config{}, c.Lets[0]), c.Client(client.Config{}, c.Lets[1])}

	// Read your writes: what one server accepted, the other shows at once.
	for i := range 100 {
		w, r := by[i%2], by[(i+1)%2]
		v, err := w.Volumes.Create(w.Ctx(), &wire.VolumeSpec{Name: fmt.Sprintf("rw%d", i), Size: 1})
		if err != nil {
			t.Fatal(err)
		}
		r.SetRevision(w.Revision())
		if got, err := r.Volumes.Get(r.Ctx(), v.ID); err != nil || got.Name != v.Name {
			t.Fatalf("the other server: %+v %v", got, err)
		}
	}
	a.Quiet(harness.Limit)
	for i, l := range mayDie {
		leader := leaderOf(t, c)
		other := c.Lets[0]
		if l == other {
			other = c.Lets[1]
		}
		t.Logf("%s leads; %s dies", leader, l.Name)
		// Work is going on while it dies.
		var wg sync.WaitGroup
		errs := make(chan error, 64)
		ids := make(chan string, 64)
		for n := range 16 {
			wg.Go(func() {
				cl := by[1]
				if l == c.Lets[1] {
					cl = by[0]
				}
				v, err := cl.Volumes.Create(t.Context(), &wire.VolumeSpec{Name: fmt.Sprintf("d%d-%d", i, n), Size: 1})
				if err != nil {
					errs <- err
					return
				}
				ids <- v.ID
			})
		}
		l.Kill()
		wg.Wait()
		close(errs)
		close(ids)
		for err := range errs {
			t.Errorf("through the server that lives: %v", err)
		}
		o := c.Client(client.Config{}, other)
		c.Until(harness.Limit, other.Name+" leads", func() error {
			if got := leaderOf(t, c, other); got != other.API {
				return errorf("%q leads", got)
			}
			return nil
		})
		for id := range ids {
			o.Settle(model.ResVolume, id, "")
			if v := o.GetVolume(id); v.Status != model.StatusAvailable {
				t.Errorf("volume %s is %s: %s", id, v.Status, v.StatusReason)
			}
			o.DeleteVolume(id)
		}
		o.Doctor()
		c.Must(l.Start())
		l.WaitReady()
	}
	// In order: whoever is stopped hands over at once.
	for range 2 {
		leader := leaderOf(t, c)
		for _, l := range mayDie {
			if l.API == leader {
				c.Must(l.Stop())
				c.Until(harness.Limit, "another leads", func() error {
					for _, o := range c.Lets {
						if o != l && leaderOf(t, c, o) == o.API {
							return nil
						}
					}
					return errorf("nobody")
				})
				c.Must(l.Start())
				l.WaitReady()
			}
		}
	}
	l, err := a.Volumes.Collect(a.Ctx(), client.Query{}, 0)
	if err != nil || len(l) != 100 {
		t.Fatalf("%d volumes in the end: %v", len(l), err)
	}
	a.Doctor()
}

// leaderOf gives the address of the leader as the ready check of an osdslet
// names it.
func leaderOf(t *testing.T, c *harness.Cluster, lets ...*harness.Let) string {
	t.Helper()
	if len(lets) == 0 {
		lets = c.Lets
	}
	var leader string
	err := harness.Poll(harness.Limit, func() error {
		for _, l := range lets {
			if !l.Alive() {
				continue
			}
			if leader, _ = l.Leader(); leader != "" {
				return nil
			}
		}
		return errorf("nobody leads")
	})
	if err != nil {
		t.Fatal(err)
	}
	return leader
}

// TestTwoOnEmbedded: the second osdslet is a client of the first one's etcd, so
// that only the second may die.
func TestTwoOnEmbedded(t *testing.T) {
	t.Parallel()
	c := suite.NewCluster(t)
	etcd := "http://" + harness.Port(t)
	c.AddLet(harness.Quick().With(harness.Config{"etcd.embedded.listenClient": etcd}))
	second := c.AddLet(harness.Quick().With(harness.Config{"etcd.endpoints": []string{etcd}}))
	twoLets(t, c, second)
	// If the first is away, so is the store: the second says so, and serves
	// again when it is back.
	first := c.Lets[0]
	first.Kill()
	c.Until(harness.Limit, "the second is not ready", func() error {
		if second.Ready() == nil {
			return errorf("it says that it is")
		}
		return nil
	})
	c.Must(first.Start())
	first.WaitReady()
	second.WaitReady()
	a := c.Client(client.Config{}, second)
	a.WaitPools(1)
	a.DeleteVolume(a.Volume(wire.VolumeSpec{Name: "after"}).ID)
	a.Doctor()
}

// TestTwoOnExternal: both on an etcd of their own package, with TLS and a
// password; either may die, and so may etcd.
func TestTwoOnExternal(t *testing.T) {
	t.Parallel()
	c := suite.NewCluster(t)
	e := c.StartEtcd()
	for range 2 {
		c.AddLet(harness.Quick().With(e.Config()))
	}
	twoLets(t, c, c.Lets...)
	e.Kill()
	c.Must(e.Start())
	for _, l := range c.Lets {
		l.WaitReady()
	}
	a := c.Admin()
	a.WaitPools(1)
	a.DeleteVolume(a.Volume(wire.VolumeSpec{Name: "after"}).ID)
	a.Doctor()
	// A wrong password is said to be one.
	bad := c.AddLet(harness.Quick().With(e.Config()).With(harness.Config{"etcd.password": "wrong"}))
	c.Must(bad.Start())
	select {
	case <-bad.Exited():
	case <-time.After(3 * time.Minute):
		t.Error("an osdslet with a wrong password goes on")
	}
	b, err := os.ReadFile(bad.LogPath())
	if err != nil {
		t.Fatal(err)
	}
	has(t, string(b), "authentication failed")
}

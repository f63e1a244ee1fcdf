//go:build real

package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/osds-io/osds/pkg/client"
	"github.com/osds-io/osds/pkg/model"
	"github.com/osds-io/osds/pkg/model/wire"
	"github.com/osds-io/osds/test/harness"
)

// everything gives all records as JSON, by resource and id.
func everything(t *testing.T, a *harness.API) map[string]string {
	t.Helper()
	out := map[string]string{}
	add := func(res, id string, x any, err error) {
		if err != nil {
			t.Fatalf("list %s: %v", res, err)
		}
		b, err := json.Marshal(x)
		if err != nil {
			t.Fatal(err)
		}
		out[res+"/"+id] = string(b)
	}
	for x, err := range a.Profiles.All(a.Ctx(), client.Query{}) {
		add("profiles", idOf(x), x, err)
	}
	for x, err := range a.Hosts.All(a.Ctx(), client.Query{}) {
		add("hosts", idOf(x), x, err)
	}
	for x, err := range a.Volumes.All(a.Ctx(), client.Query{}) {
		add("volumes", idOf(x), x, err)
	}
	for x, err := range a.Snapshots.All(a.Ctx(), client.Query{}) {
		add("snapshots", idOf(x), x, err)
	}
	for x, err := range a.Attachments.All(a.Ctx(), client.Query{}) {
		add("attachments", idOf(x), x, err)
	}
	for x, err := range a.Groups.All(a.Ctx(), client.Query{}) {
		add("groups", idOf(x), x, err)
	}
	l, err := a.Ledger(a.Ctx())
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range l {
		p.Free = 0 // what the backend says, which moves
		add("ledger", p.PoolID, p, nil)
	}
	return out
}

func idOf[S any, P interface {
	*S
	wire.Spec
}](x P) string {
	if x == nil {
		return ""
	}
	return x.Common().ID
}

func sameRecords(t *testing.T, was, is map[string]string) {
	t.Helper()
	for k, v := range was {
		if is[k] != v {
			t.Errorf("%s\n was %s\n  is %s", k, v, is[k])
		}
	}
	for k, v := range is {
		if _, ok := was[k]; !ok {
			t.Errorf("%s is new: %s", k, v)
		}
	}
}

// TestRestart: after everything was stopped, in order or by a loss of power, and
// started again, everything is as it was, and work goes on.
func TestRestart(t *testing.T) {
	t.Parallel()
	c, a := one(t, sample("s", 100))
	_, host := a.Setup()
	v := a.Volume(wire.VolumeSpec{Name: "v", Size: 3, Metadata: map[string]string{"k": "v"}})
	s := a.Snapshot(v.ID, "snap")
	a.Volume(wire.VolumeSpec{Name: "clone", Size: 4, SnapshotID: s.ID})
	a.Attach(v.ID, host.ID)
	g, err := a.Groups.Create(a.Ctx(), &wire.VolumeGroupSpec{Name: "g", Profiles: []string{v.ProfileID}, AvailabilityZone: "default"})
	if err != nil {
		t.Fatal(err)
	}
	a.Settle(model.ResGroup, g.ID, g.TaskID)
	a.Volume(wire.VolumeSpec{Name: "member", GroupID: g.ID})
	was := everything(t, a)
	for name, stop := range map[string]func(){
		"in order": c.Stop,
		"killed":   func() { c.Lets[0].Kill(); c.Docks[0].Kill() },
	} {
		stop()
		c.Start()
		a.WaitPools(1)
		t.Logf("stopped: %s", name)
		sameRecords(t, was, everything(t, a))
	}
	a.Grow(v.ID, 5)
	a.Doctor()
}

// TestStopLosesNothing: while osdslet is asked to stop, clients go on; what was
// accepted is done after the next start.
func TestStopLosesNothing(t *testing.T) {
	t.Parallel()
	c := suite.NewCluster(t)
	let := c.AddLet(harness.Quick())
	slow := harness.Sample("slow", 1000)
	slow.Config += "latency: {create: 100ms, delete: 50ms}\njitter: 0.5\n"
	c.AddDock(nil, slow)
	c.Start()
	a := c.Client(client.Config{Retries: -1})
	a.WaitPools(1)
	a.Setup()

	var mu sync.Mutex
	accepted := map[string]bool{} // volume: whether it was then deleted
	stopped := make(chan struct{})
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stopped:
					return
				default:
				}
				id := model.NewID()
				ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
				_, err := a.Volumes.Create(ctx, &wire.VolumeSpec{Base: wire.Base{ID: id}, Name: fmt.Sprintf("v%d-%d", w, i), Size: 1})
				cancel()
				mu.Lock()
				if err == nil {
					accepted[id] = true
				}
				mu.Unlock()
				if err != nil && !client.IsUnreachable(err) && !model.IsKind(err, model.KindUnavailable) {
					t.Errorf("create: %v", err)
				}
			}
		})
	}
	c.Until(harness.Limit, "work is going on", func() error {
		mu.Lock()
		defer mu.Unlock()
		if len(accepted) < 50 {
			return errorf("%d accepted", len(accepted))
		}
		return nil
	})
	c.Must(let.Stop())
	close(stopped)
	wg.Wait()
	c.Must(let.Start())
	let.WaitReady()
	a.Quiet(2 * harness.Limit)
	for id := range accepted {
		if v := a.GetVolume(id); v.Status != model.StatusAvailable {
			t.Errorf("volume %s was accepted and is %s: %s", id, v.Status, v.StatusReason)
		}
	}
	t.Logf("%d creates were accepted up to the stop", len(accepted))
	a.Doctor()
}

// TestIdempotencyKeyOverCrash: a request that got no answer, because osdslet was
// killed on its way to it, is repeated with the same key, and is done once.
func TestIdempotencyKeyOverCrash(t *testing.T) {
	t.Parallel()
	c, a := one(t, sample("s", 100))
	a.Setup()
	one := c.Client(client.Config{Retries: -1})
	for _, point := range []string{"db.api.volume.create.before", "db.api.volume.create.after"} {
		let := c.Lets[0]
		c.Must(let.Stop())
		let.SetFaults("kill:" + point)
		c.Must(let.Start())
		let.WaitReady()
		key := model.NewID()
		spec := &wire.VolumeSpec{Name: "once", Size: 1}
		_, err := one.Volumes.Create(one.Ctx(), spec, client.IdempotencyKey(key))
		if !model.IsKind(err, model.KindUnknownOutcome) {
			t.Fatalf("%s: a server that dies: %v", point, err)
		}
		<-let.Exited()
		let.SetFaults("")
		c.Must(let.Start())
		let.WaitReady()
		first, err := a.Volumes.Create(a.Ctx(), spec, client.IdempotencyKey(key))
		if err != nil {
			t.Fatal(err)
		}
		// And over an orderly restart, when the answer is long known.
		a.Settle(model.ResVolume, first.ID, first.TaskID)
		c.Must(let.Stop())
		c.Must(let.Start())
		let.WaitReady()
		again, err := a.Volumes.Create(a.Ctx(), spec, client.IdempotencyKey(key))
		if err != nil || again.ID != first.ID || again.TaskID != first.TaskID {
			t.Fatalf("%s: the same key gave %+v and %+v: %v", point, first, again, err)
		}
		_, err = a.Volumes.Create(a.Ctx(), &wire.VolumeSpec{Name: "another", Size: 1}, client.IdempotencyKey(key))
		if e := model.AsError(err); e == nil || e.HTTPStatus() != http.StatusUnprocessableEntity {
			t.Fatalf("the same key for another request: %v", err)
		}
		l, err := a.Volumes.Collect(a.Ctx(), client.Query{}, 0)
		if err != nil || len(l) != 1 {
			t.Fatalf("%s: %d volumes: %v", point, len(l), err)
		}
		a.DeleteVolume(first.ID)
	}
	a.Doctor()
	empty(t, a)
}

// TestIfMatch: a change that is conditional on a record's revision is refused
// after another one came in between.
func TestIfMatch(t *testing.T) {
	t.Parallel()
	c, a := one(t, sample("s", 100))
	a.Setup()
	v := a.Volume(wire.VolumeSpec{Name: "v"})
	if v.ETag == "" {
		t.Fatal("no entity tag")
	}
	other, err := a.Volumes.Update(a.Ctx(), v.ID, map[string]any{"description": "somebody else's"})
	if err != nil {
		t.Fatal(err)
	}
	for what, err := range map[string]error{
		"update": second(a.Volumes.Update(a.Ctx(), v.ID, map[string]any{"name": "mine"}, client.IfMatch(v.ETag))),
		"grow":   second(a.ExtendVolume(a.Ctx(), v.ID, 2, client.IfMatch(v.ETag))),
		"delete": a.Volumes.Delete(a.Ctx(), v.ID, client.IfMatch(v.ETag)),
	} {
		if !model.IsKind(err, model.KindStale) {
			t.Errorf("%s of what was changed: %v", what, err)
		}
	}
	if v = a.GetVolume(v.ID); v.Name != "v" || v.Size != 1 || v.ETag != other.ETag {
		t.Fatalf("%+v", v)
	}
	// The tag outlives the process.
	c.Lets[0].Kill()
	c.Must(c.Lets[0].Start())
	c.Lets[0].WaitReady()
	if _, err := a.Volumes.Update(a.Ctx(), v.ID, map[string]any{"name": "mine"}, client.IfMatch(other.ETag)); err != nil {
		t.Fatal(err)
	}
}

func second[T any](_ T, err error) error { return err }

// TestEventsOverRestart: a stream that goes on after osdslet was killed has every
// change of every record, once, in order.
func TestEventsOverRestart(t *testing.T) {
	t.Parallel()
	c, a := one(t, sample("s", 100))
	a.Setup()
	first := a.Volume(wire.VolumeSpec{Name: "before"})
	ctx, stop := context.WithCancel(a.Ctx())
	defer stop()
	follower := c.Client(client.Config{})
	page, err := follower.Volumes.List(ctx, client.Query{})
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var seen []*wire.EventSpec
	breaks := 0
	done := make(chan error, 1)
	go func() {
		for e, err := range follower.Events(ctx, client.EventsQuery{Since: page.Revision, Resource: model.ResVolume,
			OnBreak: func(error) { mu.Lock(); breaks++; mu.Unlock() }}) {
			if err != nil {
				done <- err
				return
			}
			if e.Type == wire.EventResync {
				done <- errorf("the stream lost its place")
				return
			}
			mu.Lock()
			seen = append(seen, e)
			mu.Unlock()
		}
		done <- nil
	}()
	want := 0
	for i := range 4 {
		id := a.Volume(wire.VolumeSpec{Name: fmt.Sprintf("v%d", i)}).ID
		if i == 2 {
			c.Lets[0].Kill()
			c.Must(c.Lets[0].Start())
			c.Lets[0].WaitReady()
			a.WaitPools(1)
		}
		a.Grow(id, 2)
		a.DeleteVolume(id)
		want++
	}
	a.DeleteVolume(first.ID)
	// A volume's life: created, ... , deleted. Each change is one event.
	lives := func() (map[string][]*wire.EventSpec, error) {
		mu.Lock()
		defer mu.Unlock()
		m := map[string][]*wire.EventSpec{}
		last := int64(0)
		for _, e := range seen {
			if e.Revision < last {
				return nil, errorf("revision %d after %d", e.Revision, last)
			}
			last = e.Revision
			m[e.ResourceID] = append(m[e.ResourceID], e)
		}
		return m, nil
	}
	c.Until(harness.Limit, "every event has come", func() error {
		m, err := lives()
		if err != nil {
			t.Fatal(err)
		}
		if l := m[first.ID]; len(l) == 0 || l[len(l)-1].Type != wire.EventDeleted {
			return errorf("the last delete is not there")
		}
		return nil
	})
	stop()
	if err := <-done; err != nil && ctx.Err() == nil {
		t.Fatal(err)
	}
	m, err := lives()
	if err != nil {
		t.Fatal(err)
	}
	if breaks == 0 {
		t.Error("the stream did not break, though the server died")
	}
	full := 0
	for id, l := range m {
		if id == first.ID {
			continue
		}
		full++
		var states []model.Status
		for _, e := range l {
			var o wire.VolumeSpec
			if len(e.Object) > 0 {
				if err := json.Unmarshal(e.Object, &o); err != nil {
					t.Fatal(err)
				}
			}
			if len(states) == 0 || states[len(states)-1] != o.Status {
				states = append(states, o.Status)
			}
		}
		if l[0].Type != wire.EventCreated || l[len(l)-1].Type != wire.EventDeleted ||
			fmt.Sprint(states) != "[creating available extending available deleting]" {
			t.Errorf("volume %s: %s ... %s: %v", id, l[0].Type, l[len(l)-1].Type, states)
		}
	}
	if full != want {
		t.Errorf("%d volumes lived in the stream, want %d", full, want)
	}
}

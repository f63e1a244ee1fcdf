//go:build real

package chaos

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/osds-io/osds/pkg/client"
	"github.com/osds-io/osds/pkg/model"
	"github.com/osds-io/osds/pkg/model/wire"
	"github.com/osds-io/osds/test/harness"
)

// world is what is looked at beside the clients' own accounts: the fences of the
// docks, a view made of events alone, and the records of the crowd.
type world struct {
	t     *testing.T
	c     *harness.Cluster
	admin *harness.API
	h     *history
}

// newCrowd makes the guests.
func (w *world) newCrowd(seed uint64, host, profile string, pools []string) []*guest {
	var out []*guest
	for n := range guests {
		out = append(out, &guest{
			t: w.t, n: n, rng: rand.New(rand.NewPCG(seed, 1<<20+uint64(n))), h: w.h, profile: profile, host: host, pools: pools,
			maxVolumes: 120, patient: w.client(n, 6), hasty: w.client(n, -1),
		})
	}
	return out
}

// client makes a client that begins with one or the other osdslet.
func (w *world) client(n, retries int) *client.Client {
	lets := slices.Clone(w.c.Lets)
	if n%2 == 1 {
		slices.Reverse(lets)
	}
	return w.c.Client(client.Config{Retries: retries, AttemptTimeout: 4 * time.Second}, lets...).Client
}

// watchEpochs reads the epochs that the docks keep on disk; they may never go
// back, whatever dies. The function it gives ends it.
func (w *world) watchEpochs() (stop func()) {
	quit, done := make(chan struct{}), make(chan struct{})
	highest := map[string]int64{}
	look := func() {
		for _, d := range w.c.Docks {
			b, err := os.ReadFile(filepath.Join(d.StateDir, "fence.json"))
			var f struct{ Epoch int64 }
			if err == nil {
				err = json.Unmarshal(b, &f)
			}
			if err != nil {
				w.t.Errorf("%s: fence.json: %v", d.Name, err)
				continue
			}
			if f.Epoch < highest[d.Name] {
				w.t.Errorf("%s: the epoch went back from %d to %d", d.Name, highest[d.Name], f.Epoch)
			}
			highest[d.Name] = f.Epoch
		}
	}
	go func() {
		defer close(done)
		for {
			look()
			select {
			case <-quit:
				return
			case <-time.After(20 * time.Millisecond):
			}
		}
	}()
	return func() {
		close(quit)
		<-done
		_, epoch := w.c.Lets[0].Leader()
		w.t.Logf("epochs seen by the docks: %v; the leader's: %d", highest, epoch)
		for name, e := range highest {
			if e > epoch {
				w.t.Errorf("%s has seen epoch %d, the leader has %d", name, e, epoch)
			}
		}
		if epoch < 3 {
			w.t.Errorf("the leader's epoch is %d: leadership hardly changed", epoch)
		}
	}
}

// follow keeps a view of all volumes from the event stream alone. The function
// that it gives compares it with the list.
func (w *world) follow() (compare func()) {
	ctx, cancel := context.WithCancel(w.t.Context())
	c := w.client(0, 6)
	var mu sync.Mutex
	view := map[string]string{}
	events, resyncs := 0, 0
	done := make(chan struct{})
	load := func() (int64, error) {
		p, err := c.Volumes.List(ctx, client.Query{Limit: 1})
		if err != nil {
			return 0, err
		}
		// The list may be newer than the revision: events say the rest.
		m := map[string]string{}
		for v, err := range c.Volumes.All(ctx, client.Query{}) {
			if err != nil {
				return 0, err
			}
			m[v.ID] = string(v.Status)
		}
		mu.Lock()
		view = m
		mu.Unlock()
		return p.Revision, nil
	}
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			rev, err := load()
			if err != nil {
				sleep(ctx, 100*time.Millisecond)
				continue
			}
			for e, err := range c.Events(ctx, client.EventsQuery{Since: rev, Resource: model.ResVolume}) {
				if err != nil || e.Type == wire.EventResync {
					break
				}
				var v struct{ Status string }
				_ = json.Unmarshal(e.Object, &v)
				mu.Lock()
				events++
				if e.Type == wire.EventDeleted {
					delete(view, e.ResourceID)
				} else {
					view[e.ResourceID] = v.Status
				}
				mu.Unlock()
			}
			resyncs++
		}
	}()
	return func() {
		defer func() { cancel(); <-done }()
		w.c.Until(harness.Limit, "the view made of events is the list", func() error {
			l, err := w.admin.Volumes.Collect(ctx, client.Query{}, 0)
			if err != nil {
				return err
			}
			mu.Lock()
			defer mu.Unlock()
			for _, v := range l {
				if view[v.ID] != string(v.Status) {
					return fmt.Errorf("volume %s is %s, in the view %q", v.ID, v.Status, view[v.ID])
				}
			}
			if len(view) != len(l) {
				return fmt.Errorf("%d volumes, %d in the view", len(l), len(view))
			}
			return nil
		})
		w.t.Logf("%d events, %d new beginnings", events, resyncs)
	}
}

// check holds what is there against what the crowd was told.
func (w *world) check() {
	w.t.Helper()
	if d, err := w.admin.Debts(w.admin.Ctx()); err != nil || len(d) > 0 {
		w.t.Errorf("debts when every dock is back: %+v %v", d, err)
	}
	there := w.records()
	w.h.mu.Lock()
	objects := make([]object, 0, len(w.h.objects))
	for _, o := range w.h.objects {
		objects = append(objects, *o)
	}
	w.h.mu.Unlock()
	counts := map[string]int{}
	for _, o := range objects {
		r, ok := there[o.id]
		delete(there, o.id)
		switch {
		case o.gone && ok:
			w.t.Errorf("%s %s was deleted, or refused, and is there as %s (%s)%s", o.res, o.id, r.status, r.reason, w.h.of(o.id))
		case o.created && !o.leaving && !ok:
			w.t.Errorf("%s %s was accepted, nobody deleted it, and it is not there%s", o.res, o.id, w.h.of(o.id))
		case ok && r.status.Transitional():
			w.t.Errorf("%s %s is %s for ever%s", o.res, o.id, r.status, w.h.of(o.id))
		case ok && r.status == model.StatusErrorDeleting:
			w.t.Errorf("%s %s could not be deleted: %s%s", o.res, o.id, r.reason, w.h.of(o.id))
		case ok && o.res == model.ResVolume && !slices.Contains(o.sizes, r.size):
			w.t.Errorf("volume %s has %d GB; it was asked for with %v%s", o.id, r.size, o.sizes, w.h.of(o.id))
		case ok && r.status.Failed() && r.reason == "":
			w.t.Errorf("%s %s is %s without a reason%s", o.res, o.id, r.status, w.h.of(o.id))
		}
		if ok {
			counts[string(o.res)+" "+string(r.status)]++
		}
	}
	for id, r := range there {
		if !ofWorker(id) {
			w.t.Errorf("%s %s is there (%s), and nobody asked for it", r.res, id, r.status)
		}
	}
	w.t.Logf("of %d objects of the crowd there are in the end: %v", len(objects), counts)
	w.exports()
}

// exports checks on the host that no file is behind two loop devices.
func (w *world) exports() {
	loops, err := harness.Loops(w.c.Dir)
	if err != nil {
		w.t.Fatal(err)
	}
	behind := map[string]string{}
	for dev, file := range loops {
		if other, twice := behind[file]; twice {
			w.t.Errorf("%s is behind %s and %s", file, dev, other)
		}
		behind[file] = dev
	}
}

type record struct {
	res    model.Resource
	status model.Status
	reason string
	size   int64
}

// records reads everything that there is.
func (w *world) records() map[string]record {
	w.t.Helper()
	out := map[string]record{}
	a, ctx := w.admin, w.admin.Ctx()
	var errs []error
	for x, err := range a.Volumes.All(ctx, client.Query{}) {
		if errs = append(errs, err); err == nil {
			out[x.ID] = record{model.ResVolume, x.Status, x.StatusReason, x.Size}
		}
	}
	for x, err := range a.Snapshots.All(ctx, client.Query{}) {
		if errs = append(errs, err); err == nil {
			out[x.ID] = record{model.ResSnapshot, x.Status, x.StatusReason, 0}
		}
	}
	for x, err := range a.Attachments.All(ctx, client.Query{}) {
		if errs = append(errs, err); err == nil {
			out[x.ID] = record{model.ResAttachment, x.Status, x.StatusReason, 0}
		}
	}
	for x, err := range a.Groups.All(ctx, client.Query{}) {
		if errs = append(errs, err); err == nil {
			out[x.ID] = record{model.ResGroup, x.Status, x.StatusReason, 0}
		}
	}
	if err := errors.Join(errs...); err != nil {
		w.t.Fatal(err)
	}
	return out
}

// sleep waits; false if the context ended.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

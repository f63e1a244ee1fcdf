//go:build linux && ceph

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/osds-io/osds/test/cephlab"
	"github.com/osds-io/osds/test/harness"
)

// cephClients is how many clients the rates are measured with.
const cephClients = 16

// cephBatches is how many batches each side runs of each call.
const cephBatches = 4

// cephCalls are the calls that are compared, with what osds may add to each.
var cephCalls = []string{"create", "snapshot", "clone", "delete"}

const (
	cephAdds  = 5.0 // ms
	cephRatio = 0.8
)

// caller makes the calls that are compared, one after the other: librbd's own, or
// those of the API.
type caller interface {
	create(ctx context.Context) (volume string, err error)
	snapshot(ctx context.Context, volume string) (snap string, err error)
	clone(ctx context.Context, volume, snap string) (clone string, err error)
	remove(ctx context.Context, volume string) error
	close()
}

// side is one of the two that are compared.
type side struct {
	name   string
	client func() caller
	took   map[string][]time.Duration
	rate   map[string][]float64
	vols   []string // made by many clients, and what belongs to each of them
	snaps  []string
	clones []string
}

// ceph compares the life of volumes through osds with the same calls made by
// librbd, on a cluster of its own, in turns.
func (b *bench) ceph(ctx context.Context) (err error) {
	if why := cephlab.Why(); why != "" {
		b.r.head("ceph: skipped: %s", why)
		return nil
	}
	b.r.head("ceph: a volume's life by REST against the same calls of librbd, in turns; Ceph with one OSD on this machine")
	dir, err := os.MkdirTemp("", "osds-ceph") // short: daemons make sockets there
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	began := time.Now()
	lab, err := cephlab.Start(ctx, cephlab.Config{Dir: dir, Pools: []string{"direct", "osds"}})
	if err != nil {
		return err
	}
	defer lab.Stop()
	bin := filepath.Join(b.dir, "bin-ceph")
	if err := build(ctx, bin, harness.BuildTags()); err != nil {
		return err
	}
	s, err := newSystem(ctx, filepath.Join(b.dir, "ceph"), bin, b.profile, backing{driver: "ceph", pools: 1,
		config: fmt.Sprintf("configFile: %s\npool: {osds: {overProvisioningRatio: 1000}}\n", lab.Conf)})
	if err != nil {
		return err
	}
	defer s.stop()
	w, err := watch(ctx, "http://"+s.api+"/v1beta/"+tenant+"/events?resource=volumes,snapshots")
	if err != nil {
		return err
	}
	defer w.close()
	d, err := connectDirect(lab.Conf, "direct")
	if err != nil {
		return err
	}
	defer d.end()
	b.r.say("  ready after %.1f s; volumes of 1 GiB; a snapshot opens its image; a delete moves an image to the trash", time.Since(began).Seconds())
	sides := []*side{
		{name: "librbd", client: func() caller { return d }},
		{name: "osds", client: func() caller { return &restCaller{addr: s.api, w: w, conn: newConn(s.api)} }},
	}
	for _, x := range sides {
		x.took, x.rate = map[string][]time.Duration{}, map[string][]float64{}
	}
	if err := b.cephLatency(ctx, sides); err != nil {
		return err
	}
	return b.cephRates(ctx, sides, s)
}

// cephLatency makes each call from one client, now on one side, now on the other.
func (b *bench) cephLatency(ctx context.Context, sides []*side) error {
	callers := make([]caller, len(sides))
	for i, x := range sides {
		callers[i] = x.client()
		defer callers[i].close()
	}
	const warm = 5
	for n := range warm + b.cephPairs {
		// A whole life on one side, then on the other: monitors give out numbers
		// of snapshots in beats, and the second of two snapshots in a row would
		// wait for the next.
		for k := range sides {
			i := (n + k) % len(sides)
			took, err := life(ctx, callers[i])
			if err != nil {
				return fmt.Errorf("%s: %w", sides[i].name, err)
			}
			if n < warm {
				continue
			}
			for call, all := range took {
				sides[i].took[call] = append(sides[i].took[call], all...)
			}
		}
	}
	b.r.say("  1 client, p50 and p90 of %d pairs (%d of creates):", b.cephPairs, 2*b.cephPairs)
	for _, call := range cephCalls {
		var p50, p90 [2]time.Duration
		for i, x := range sides {
			slices.Sort(x.took[call])
			p50[i], p90[i] = percentile(x.took[call], 50), percentile(x.took[call], 90)
		}
		b.r.say("    %-8s  %s p50 %9s p90 %9s   %s p50 %9s p90 %9s   added %9s", call,
			sides[0].name, ms(p50[0]), ms(p90[0]), sides[1].name, ms(p50[1]), ms(p90[1]), ms(p50[1]-p50[0]))
		b.r.atMost("ceph_"+call+"_added_p50", float64(p50[1]-p50[0])/1e6, "ms", cephAdds)
	}
	return nil
}

// life makes each call, and gives how long each took.
func life(ctx context.Context, c caller) (map[string][]time.Duration, error) {
	took := map[string][]time.Duration{}
	var volume, other, snap string
	for _, s := range []struct {
		call string
		f    func() error
	}{
		{"create", func() (err error) { volume, err = c.create(ctx); return }},
		{"create", func() (err error) { other, err = c.create(ctx); return }},
		{"snapshot", func() (err error) { snap, err = c.snapshot(ctx, volume); return }},
		{"clone", func() (err error) { _, err = c.clone(ctx, volume, snap); return }},
		{"delete", func() error { return c.remove(ctx, other) }},
	} {
		began := time.Now()
		if err := s.f(); err != nil {
			return nil, fmt.Errorf("%s: %w", s.call, err)
		}
		took[s.call] = append(took[s.call], time.Since(began))
	}
	return took, nil
}

// cephRates makes each call from many clients, in batches that take turns.
func (b *bench) cephRates(ctx context.Context, sides []*side, s *system) error {
	b.r.say("  %d clients, %d batches of %d calls on each side:", cephClients, cephBatches, b.cephBatch)
	callers := make([][]caller, len(sides))
	for i, x := range sides {
		for range cephClients {
			c := x.client()
			defer c.close()
			callers[i] = append(callers[i], c)
		}
		n := cephBatches * b.cephBatch
		x.vols, x.snaps, x.clones = make([]string, n), make([]string, n), make([]string, n)
	}
	for _, call := range cephCalls {
		spent := make([]used, len(sides))
		for n := range cephBatches {
			for k := range sides {
				// One, two; two, one: what grows with time is shared alike.
				i := (n + k) % len(sides)
				x, m := sides[i], meter{procs: []*proc{s.let, s.dock}}
				m.edge(0)
				took, err := batch(ctx, callers[i], n*b.cephBatch, b.cephBatch, x.call(call))
				if err != nil {
					return fmt.Errorf("%s of volumes by %s: %w", call, x.name, err)
				}
				m.edge(1)
				u, err := m.used()
				if err != nil {
					return err
				}
				spent[i].add(u)
				x.rate[call] = append(x.rate[call], float64(b.cephBatch)/took.Seconds())
			}
		}
		var rate [2]float64
		for i, x := range sides {
			rate[i] = median(x.rate[call], func(r float64) float64 { return r })
		}
		b.r.say("    %-8s  %s %6.1f/s   %s %6.1f/s   ratio %.2f", call, sides[0].name, rate[0], sides[1].name, rate[1], rate[1]/rate[0])
		each := func(d time.Duration) float64 { return float64(d) / 1e6 / float64(cephBatches*b.cephBatch) }
		b.r.say("              processor time per call: %s: this program %.2f ms, others (Ceph) %.2f; %s: osdslet %.2f, dock %.2f, this program %.2f, others (Ceph) %.2f",
			sides[0].name, each(spent[0].self), each(spent[0].others),
			sides[1].name, each(spent[1].procs[0]), each(spent[1].procs[1]), each(spent[1].self), each(spent[1].others))
		b.r.atLeast("ceph_"+call+"_ratio_16", rate[1]/rate[0], "ratio", cephRatio)
	}
	return nil
}

// call gives one of the calls on the side's ith volume.
func (x *side) call(name string) func(ctx context.Context, c caller, i int) error {
	return func(ctx context.Context, c caller, i int) (err error) {
		switch name {
		case "create":
			x.vols[i], err = c.create(ctx)
		case "snapshot":
			x.snaps[i], err = c.snapshot(ctx, x.vols[i])
		case "clone":
			x.clones[i], err = c.clone(ctx, x.vols[i], x.snaps[i])
		case "delete":
			err = c.remove(ctx, x.clones[i])
		}
		return err
	}
}

// batch makes n calls from many clients, and says how long all of them took.
func batch(ctx context.Context, cs []caller, first, n int, call func(ctx context.Context, c caller, i int) error) (time.Duration, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var next atomic.Int64
	var wg sync.WaitGroup
	began := time.Now()
	for _, c := range cs {
		wg.Go(func() {
			for ctx.Err() == nil {
				i := int(next.Add(1)) - 1
				if i >= n {
					return
				}
				if err := call(ctx, c, first+i); err != nil {
					cancel(err)
				}
			}
		})
	}
	wg.Wait()
	return time.Since(began), context.Cause(ctx)
}

// add adds what was used over another time.
func (u *used) add(o used) {
	if u.procs == nil {
		u.procs = make([]time.Duration, len(o.procs))
	}
	for i, d := range o.procs {
		u.procs[i] += d
	}
	u.self, u.others, u.over = u.self+o.self, u.others+o.others, u.over+o.over
}

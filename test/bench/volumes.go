//go:build linux

package main

import (
	"context"
	"fmt"
	"path/filepath"
	"time"
)

// idle is how long pools of connections and files may take to settle after a
// load before descriptors are counted.
const idle = 20 * time.Second

// volumes measures creates end to end: from before the POST is sent until the
// client has seen the volume available, over HTTP, the controllers, gRPC, the
// sample driver and back over the event stream.
func (b *bench) volumes(ctx context.Context) error {
	b.r.head("volumes: POST until available; %d pools, sample driver without latency, embedded etcd (%s)", poolCount, b.volTiming)
	b.r.say("  each client: POST, wait for the event, next. One event stream of this process tells all its clients.")
	s, err := newSystem(ctx, filepath.Join(b.dir, "volumes"), b.bin, b.profile, onSample)
	if err != nil {
		return err
	}
	defer s.stop()
	c, err := s.creator(ctx)
	if err != nil {
		return err
	}
	// A first use opens what stays open: the connection to the dock, files.
	if errs, first := c.fill(ctx, 64, 8, nil); errs > 0 {
		c.events.close()
		return fmt.Errorf("the first volumes: %d of 64 failed: %w", errs, first)
	}
	c.events.close()
	sleepUntil(ctx, time.Now().Add(2*time.Second))
	letFDs, dockFDs, err := s.fds()
	if err != nil {
		return err
	}
	if c.events, err = reopen(ctx, s); err != nil {
		return err
	}
	errs := 0
	for _, n := range b.clients {
		e, err := b.volumesAt(ctx, s, c, n)
		if err != nil {
			return err
		}
		errs += e
	}
	c.events.close()
	lost, listed, detail, err := c.verify()
	if err != nil {
		return err
	}
	b.r.say("  verified: %d volumes listed, %d accepted, %d failed, %d lost or not available %s", listed, len(c.accepted), errs, lost, detail)
	b.loss += errs + lost
	b.lossKnown = true
	return b.descriptors(ctx, s, letFDs, dockFDs)
}

func reopen(ctx context.Context, s *system) (*watcher, error) {
	c, err := s.creator(ctx)
	if err != nil {
		return nil, err
	}
	return c.events, nil
}

// volumesAt measures with n clients and gives how many creates failed.
func (b *bench) volumesAt(ctx context.Context, s *system, c *creator, n int) (errs int, err error) {
	ks, stop := c.clients(n)
	defer stop()
	ops := make([]operation, n)
	for i, k := range ks {
		ops[i] = k.create
	}
	meter := meter{procs: []*proc{s.let, s.dock}}
	m, err := drive(ctx, b.volTiming, ops, meter.edge)
	if err != nil {
		return 0, err
	}
	u, err := meter.used()
	if err != nil {
		return 0, err
	}
	b.r.say("  %3d clients  %s   cores: osdslet %.2f, dock %.2f, load %.2f, others %.2f", n, m.figures,
		u.cores(u.procs[0]), u.cores(u.procs[1]), u.cores(u.self), u.cores(u.others))
	each := func(d time.Duration) float64 { return float64(d) / 1e6 / float64(max(m.ended, 1)) }
	b.r.say("               processor time per volume: osdslet %.3f ms, dock %.3f ms, load %.3f ms", each(u.procs[0]), each(u.procs[1]), each(u.self))
	if m.errors > 0 {
		b.r.say("               %d creates failed, the first: %v", m.errors, m.first)
	}
	switch n {
	case 1:
		b.r.atMost("create_p50_1", float64(m.p50)/1e6, "ms", 4)
	case 128:
		b.r.atLeast("volumes_128", m.rate, "volumes/s", 2000)
		if raw := b.r.made["raw_128"]; raw > 0 {
			b.r.atLeast("volumes_raw_ratio_128", m.rate/raw, "ratio", 0.07)
		}
		b.r.atMost("cpu_per_volume", each(u.procs[0]+u.procs[1]), "ms/volume", 1)
	}
	return m.errors, nil
}

// descriptors compares open files and sockets with those before the load, once
// idle ones had time to go.
func (b *bench) descriptors(ctx context.Context, s *system, let0, dock0 fds) error {
	var let, dock fds
	for end := time.Now().Add(idle); ; sleepUntil(ctx, time.Now().Add(500*time.Millisecond)) {
		var err error
		if let, dock, err = s.fds(); err != nil {
			return err
		}
		if let.rest+dock.rest <= let0.rest+dock0.rest || time.Now().After(end) || ctx.Err() != nil {
			break
		}
	}
	b.r.say("  descriptors before and after: osdslet %d %d (and of etcd's log %d %d), dock %d %d", let0.rest, let.rest, let0.wal, let.wal, dock0.rest, dock.rest)
	b.r.atMost("fd_growth", float64(max(let.rest+dock.rest-let0.rest-dock0.rest, 0)), "fds", 0)
	return ctx.Err()
}

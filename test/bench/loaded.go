//go:build linux

package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"path/filepath"
	"strconv"
	"time"
)

// loaded measures a system that holds many volumes: the memory they take, lists
// and gets while others create, and a restart after a crash.
func (b *bench) loaded(ctx context.Context) error {
	b.r.head("loaded: %d volumes, made through the %s", b.count, map[string]string{"api": "API", "store": "store before osdslet's start (one real volume, copied)"}[b.load])
	s, err := newSystem(ctx, filepath.Join(b.dir, "loaded"), b.bin, b.loadProfile(), onSample)
	if err != nil {
		return err
	}
	defer s.stop()
	before, err := s.let.settled(ctx, 3*time.Second, 15*time.Second)
	if err != nil {
		return err
	}
	b.r.say("  osdslet idle: %s", before)
	ids, err := b.fill(ctx, s)
	if err != nil {
		return err
	}
	if b.parts["memory"] {
		if err := b.memoryNow(ctx, s, before, "after the load"); err != nil {
			return err
		}
	}
	if b.parts["lists"] {
		if err := b.lists(ctx, s); err != nil {
			return err
		}
		if err := b.gets(ctx, s, ids); err != nil {
			return err
		}
	}
	if b.parts["restart"] || b.parts["memory"] {
		if err := b.restart(ctx, s, ids, before); err != nil {
			return err
		}
	}
	if b.perVolume > 0 {
		b.r.atMost("memory_per_volume", b.perVolume, "KiB/volume", 4)
	}
	return nil
}

// loadProfile is where the profiles of this part go, if this part is asked for
// alone.
func (b *bench) loadProfile() string {
	if b.parts["volumes"] {
		return ""
	}
	return b.profile
}

// fill brings the volumes in and gives ids of many of them.
func (b *bench) fill(ctx context.Context, s *system) ([]string, error) {
	c, err := s.creator(ctx)
	if err != nil {
		return nil, err
	}
	defer c.events.close()
	n, clients := b.count, 128
	if b.load == "store" {
		n, clients = 64, 8 // real ones, to copy
	}
	began := time.Now()
	meter := meter{procs: []*proc{s.let, s.dock}}
	meter.edge(0)
	errs, first := c.fill(ctx, n, clients, func(done int) {
		if done >= b.count/4 {
			b.r.say("  %d volumes after %.1f s", done, time.Since(began).Seconds())
		}
	})
	meter.edge(1)
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if errs >= maxErrors {
		return nil, fmt.Errorf("load: %d creates failed: %w", errs, first)
	}
	lost, listed, detail, err := c.verify()
	if err != nil {
		return nil, err
	}
	b.loss += errs + lost
	b.lossKnown = true
	if b.load == "store" {
		began = time.Now()
		ids, err := s.preload(ctx, b.count-listed)
		if err != nil {
			return nil, err
		}
		b.r.say("  %d copies written in %.1f s", len(ids), time.Since(began).Seconds())
		return append(ids, c.accepted...), nil
	}
	u, err := meter.used()
	if err != nil {
		return nil, err
	}
	b.r.say("  loaded in %.1f s: %.0f volumes/s; %d listed, %d failed, %d lost or not available %s", u.over.Seconds(),
		float64(n)/u.over.Seconds(), listed, errs, lost, detail)
	b.r.say("  cores: osdslet %.2f, dock %.2f, load %.2f, others %.2f", u.cores(u.procs[0]), u.cores(u.procs[1]), u.cores(u.self), u.cores(u.others))
	return c.accepted, nil
}

// memoryNow measures what the volumes take, when things have calmed down. The
// bar is on the worst of the measurements.
func (b *bench) memoryNow(ctx context.Context, s *system, before memory, when string) error {
	m, err := s.let.settled(ctx, b.calm, b.settle)
	if err != nil {
		return err
	}
	per := float64(m.anon-before.anon) / 1024 / float64(b.count)
	b.r.say("  osdslet %s: %s; %.2f KiB of anonymous memory per volume above idle", when, m, per)
	b.perVolume = max(b.perVolume, per)
	return nil
}

// The kinds of list requests.
var listKinds = []string{"no filter", "status", "profileId", "poolId", "availabilityZone", "name", "marker"}

const kindMarker = 6

// The load of lists: every client asks for listRate pages a second, and others
// create listCreates volumes a second meanwhile.
const (
	listClients = 32
	listRate    = 50
	listCreates = 200
)

// lists measures pages of 50 while volumes are being created: first at a steady
// rate, which the bar is on, then as fast as the clients can. At saturation a
// latency says how long the queue is, and how the kernel shares the processors
// between osdslet and its clients, so that it has no bar.
func (b *bench) lists(ctx context.Context, s *system) error {
	b.r.head("lists: %d clients, pages of 50 of %d volumes, random filter, offset or marker, %d creates/s meanwhile (%s)", listClients, b.count, listCreates, b.readTiming)
	c, err := s.creator(ctx)
	if err != nil {
		return err
	}
	defer c.events.close()
	c.seq.Store(int64(b.count) + 1_000_000)
	bctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type made struct {
		n, errs int
		first   error
	}
	creates := make(chan made, 1)
	began := time.Now()
	go func() {
		n, errs, first := c.trickle(bctx, listCreates, 16)
		creates <- made{n, errs, first}
	}()
	steady, err := b.listsAt(ctx, s, listRate)
	if err == nil {
		_, err = b.listsAt(ctx, s, 0)
	}
	cancel()
	cr := <-creates
	b.r.say("  creates meanwhile: %.0f/s", float64(cr.n)/time.Since(began).Seconds())
	if err != nil {
		return err
	}
	lost, _, detail, err := c.verify()
	if err != nil {
		return err
	}
	if lost+cr.errs > 0 {
		b.r.say("  creates meanwhile: %d failed (%v), %d lost %s", cr.errs, cr.first, lost, detail)
	}
	b.loss += lost + cr.errs
	b.r.atMost("list_p99", float64(steady.p99)/1e6, "ms", 5)
	return nil
}

// listsAt measures with every client asking for rate pages a second, or as fast
// as it can for 0.
func (b *bench) listsAt(ctx context.Context, s *system, rate int) (*measured, error) {
	ops := make([]operation, listClients)
	for i := range ops {
		l := &listClient{s: s, conn: newConn(s.api), names: b.count, totals: map[string]int{}}
		defer l.conn.close()
		ops[i] = l.page
		if rate > 0 {
			ops[i] = paced(rate, ops[i])
		}
	}
	meter := meter{procs: []*proc{s.let, s.dock}}
	before, err := s.listDurations()
	if err != nil {
		return nil, err
	}
	m, err := drive(ctx, b.readTiming, ops, meter.edge)
	if err != nil {
		return nil, err
	}
	after, err := s.listDurations()
	if err != nil {
		return nil, err
	}
	if m.errors > 0 {
		return nil, fmt.Errorf("lists: %d failed: %w", m.errors, m.first)
	}
	u, err := meter.used()
	if err != nil {
		return nil, err
	}
	how := "as fast as they can"
	if rate > 0 {
		how = fmt.Sprintf("%d pages/s each", rate)
	}
	b.r.say("  %3d clients  %s   cores: osdslet %.2f, load %.2f, others %.2f; %s", listClients, m.figures,
		u.cores(u.procs[0]), u.cores(u.self), u.cores(u.others), how)
	b.r.say("               inside osdslet, from the request's head to the end of its answer: p50 <= %s, p99 <= %s",
		after.percentile(before, 50), after.percentile(before, 99))
	if rate > 0 {
		for k, name := range listKinds {
			b.r.say("    %-17s %s", name, m.kinds[k])
		}
	}
	return m, nil
}

// listClient asks for pages.
type listClient struct {
	s      *system
	conn   *httpConn
	names  int
	totals map[string]int // by filter: how many there were last time
	filter string         // of the marker
	marker []byte
	req    []byte
}

// page asks for one page: a third of the time the one after the last, else one
// at a random offset of a random filter.
func (l *listClient) page(context.Context) (int, error) {
	kind, path := kindMarker, ""
	if len(l.marker) > 0 && rand.IntN(3) == 0 {
		path = volumesPath + "?limit=50" + l.filter + "&marker=" + string(l.marker)
	} else {
		kind = rand.IntN(kindMarker)
		l.filter = l.filterOf(kind)
		path = volumesPath + "?limit=50" + l.filter
		if n := l.totals[l.filter]; n > 1 {
			path += "&offset=" + strconv.Itoa(rand.IntN(n))
		}
	}
	l.req = request(l.req[:0], http.MethodGet, path, nil)
	status, body, err := l.conn.do(l.req)
	if err != nil {
		return kind, err
	}
	if status != http.StatusOK || len(body) < 100 { // never an empty page
		return kind, unexpected("GET "+path, status, body)
	}
	if l.conn.total >= 0 && kind != 5 {
		l.totals[l.filter] = l.conn.total
	}
	l.marker = append(l.marker[:0], l.conn.next...)
	return kind, nil
}

func (l *listClient) filterOf(kind int) string {
	switch kind {
	case 1:
		return "&status=available"
	case 2:
		return "&profileId=" + randomID(l.s.profiles)
	case 3:
		return "&poolId=" + randomID(l.s.pools)
	case 4:
		return "&availabilityZone=" + randomID(zones)
	case 5:
		return "&name=" + string(appendName(nil, 1+rand.Int64N(int64(l.names))))
	}
	return ""
}

// gets measures single records.
func (b *bench) gets(ctx context.Context, s *system, ids []string) error {
	const clients = 32
	b.r.head("gets: %d clients, one random volume of %d each (%s)", clients, b.count, b.readTiming)
	ops := make([]operation, clients)
	for i := range ops {
		conn := newConn(s.api)
		defer conn.close()
		var req []byte
		ops[i] = func(context.Context) (int, error) {
			req = request(req[:0], http.MethodGet, volumesPath+"/"+randomID(ids), nil)
			status, body, err := conn.do(req)
			if err == nil && status != http.StatusOK {
				err = unexpected("GET a volume", status, body)
			}
			return 0, err
		}
	}
	meter := meter{procs: []*proc{s.let}}
	m, err := drive(ctx, b.readTiming, ops, meter.edge)
	if err != nil {
		return err
	}
	if m.errors > 0 {
		return fmt.Errorf("gets: %d failed: %w", m.errors, m.first)
	}
	u, err := meter.used()
	if err != nil {
		return err
	}
	b.r.say("  %3d clients  %s   cores: osdslet %.2f, load %.2f, others %.2f", clients, m.figures,
		u.cores(u.procs[0]), u.cores(u.self), u.cores(u.others))
	b.r.atLeast("get_rate", m.rate, "requests/s", 10000)
	return nil
}

// restart kills osdslet without warning and measures until it serves again.
func (b *bench) restart(ctx context.Context, s *system, ids []string, before memory) error {
	b.r.head("restart: kill -9 with %d volumes, until /readyz and a GET answer (the page cache is warm)", b.count)
	had, err := listAll(s.api)
	if err != nil {
		return err
	}
	var took []time.Duration
	for i := range b.restarts {
		s.let.kill()
		began := time.Now()
		if err := s.startLet(); err != nil {
			return err
		}
		if err := s.ready(ctx, time.Minute); err != nil {
			return err
		}
		ready := time.Since(began)
		var v struct{ ID string }
		if err := s.call(http.MethodGet, volumesPath+"/"+randomID(ids), nil, http.StatusOK, &v); err != nil {
			return err
		}
		took = append(took, time.Since(began))
		cpu, err := s.let.cpu()
		if err != nil {
			return err
		}
		b.r.say("  ready after %.2f s, a GET answered after %.2f s; processor time until then %.2f s", ready.Seconds(), took[i].Seconds(), cpu.Seconds())
		if i > 0 {
			continue
		}
		have, err := listAll(s.api)
		if err != nil {
			return err
		}
		gone := 0
		for id := range had {
			if have[id] == "" {
				gone++
			}
		}
		b.r.say("  %d volumes before, %d after, %d lost", len(had), len(have), gone)
		b.loss += gone
		if err := s.awaitPools(ctx); err != nil {
			return err
		}
		if b.parts["memory"] {
			if err := b.memoryNow(ctx, s, before, "after the restart"); err != nil {
				return err
			}
		}
	}
	if b.parts["restart"] {
		b.r.atMost("restart_ready", median(took, func(d time.Duration) float64 { return d.Seconds() }), "s", 5)
	}
	return nil
}

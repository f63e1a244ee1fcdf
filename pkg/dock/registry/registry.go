// Package registry is the osdslet's half of the docks' sessions: who is there,
// with which pools, since when nothing was heard. It keeps everything in memory;
// what is to be stored its Observer stores.
package registry

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/sirupsen/logrus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/peer"

	"github.com/osds-io/osds/pkg/dock/dockpb"
	"github.com/osds-io/osds/pkg/model"
)

// Session is a dock as it was heard of last. Its messages are shared and never
// changed.
type Session struct {
	Hello        *dockpb.Hello
	Pools        []*dockpb.Pool
	OutOfService map[string]string
	// Epoch is the highest epoch the dock has seen: a leader whose own is not
	// higher is none.
	Epoch int64
	// Since is when this instance of the dock came, LastBeat when it was heard
	// of last.
	Since, LastBeat time.Time
	// Peer is the address it connected from.
	Peer string
}

// ID is the dock's id.
func (s Session) ID() string { return s.Hello.GetDockId() }

// Observer is told of docks. For one dock the calls come one at a time and in
// order: seen, beats, gone, seen again. They may ask the Registry, and should
// not take long: the dock's answers wait for them.
type Observer interface {
	// DockSeen: a dock has come, or come back, or started anew (another
	// Hello.Instance).
	DockSeen(Session)
	// DockBeat: it was heard of.
	DockBeat(Session)
	// DockGone: nothing was heard for too long, or its connection broke and it
	// did not come back.
	DockGone(id, reason string)
}

// Options are what a Registry is made from.
type Options struct {
	// ClusterID is this cluster; docks of others are refused.
	ClusterID string
	// Leader says whether this osdslet leads, and the epoch it knows of.
	Leader func() (leads bool, epoch int64)
	// Observer may be nil.
	Observer Observer
	Log      *logrus.Logger
	// Beat is how often docks are asked to be heard of; 0 means 3 s.
	Beat time.Duration
	// Silence is how long a dock may not be heard of before it is gone; 0
	// means 12 s. Grace is how long one whose connection broke has to come
	// back; 0 means 5 s.
	Silence, Grace time.Duration
	// MaxDocks bounds the docks; 0 means 4096.
	MaxDocks int
}

// Bounds of what one dock may tell.
const (
	maxPools    = 4096
	maxMetadata = 64
	maxNames    = 128
)

// Registry implements the Registry service.
type Registry struct {
	dockpb.UnimplementedRegistryServer
	opts Options
	log  *logrus.Entry

	mu    sync.Mutex
	docks map[string]*entry
}

// entry is one dock.
type entry struct {
	// turn is held while the observer is told of this dock, and while what it is
	// told of changes. It is taken before Registry.mu.
	turn sync.Mutex

	// Under Registry.mu:
	s      Session
	live   bool
	stream *stream   // nil: the connection broke
	broke  time.Time // when
}

// stream is one connection of a dock.
type stream struct {
	cancel context.CancelCauseFunc
}

// New makes a registry. Run must be running for docks to be noticed gone.
func New(o Options) *Registry {
	if o.Beat <= 0 {
		o.Beat = 3 * time.Second
	}
	if o.Silence <= 0 {
		o.Silence = 12 * time.Second
	}
	if o.Grace <= 0 {
		o.Grace = 5 * time.Second
	}
	if o.MaxDocks <= 0 {
		o.MaxDocks = 4096
	}
	if o.Leader == nil {
		o.Leader = func() (bool, int64) { return false, 0 }
	}
	if o.Observer == nil {
		o.Observer = nobody{}
	}
	if o.Log == nil {
		o.Log = logrus.StandardLogger()
	}
	return &Registry{opts: o, log: logrus.NewEntry(o.Log), docks: map[string]*entry{}}
}

type nobody struct{}

func (nobody) DockSeen(Session)        {}
func (nobody) DockBeat(Session)        {}
func (nobody) DockGone(string, string) {}

// Snapshot lists the live docks, ordered by id.
func (r *Registry) Snapshot() []Session {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := make([]Session, 0, len(r.docks))
	for _, e := range r.docks {
		if e.live {
			out = append(out, e.s)
		}
	}
	slices.SortFunc(out, func(a, b Session) int { return cmp.Compare(a.ID(), b.ID()) })
	return out
}

// Get gives a live dock.
func (r *Registry) Get(id string) (Session, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if e := r.docks[id]; e != nil && e.live {
		return e.s, true
	}
	return Session{}, false
}

// Run notices docks that are gone, until ctx ends.
func (r *Registry) Run(ctx context.Context) {
	t := time.NewTicker(min(r.opts.Silence, r.opts.Grace) / 5)
	defer t.Stop()
	for {
		select {
		case <-t.C:
			r.sweep(time.Now())
		case <-ctx.Done():
			return
		}
	}
}

// sweep tells of the docks that are gone by now.
func (r *Registry) sweep(now time.Time) {
	r.mu.Lock()
	var late []*entry
	for _, e := range r.docks {
		if e.live && r.overdue(e, now) != "" {
			late = append(late, e)
		}
	}
	r.mu.Unlock()
	for _, e := range late {
		r.expire(e, now)
	}
}

// overdue says why a dock is gone; "" if it is not. The caller holds r.mu.
func (r *Registry) overdue(e *entry, now time.Time) string {
	if since := now.Sub(e.s.LastBeat); since > r.opts.Silence {
		return fmt.Sprintf("nothing heard from the dock for %v", since.Round(time.Second))
	}
	if e.stream == nil && now.Sub(e.broke) > r.opts.Grace {
		return fmt.Sprintf("the dock's connection broke %v ago and it has not come back", now.Sub(e.broke).Round(time.Second))
	}
	return ""
}

func (r *Registry) expire(e *entry, now time.Time) {
	e.turn.Lock()
	defer e.turn.Unlock()
	r.mu.Lock()
	reason := ""
	if e.live {
		reason = r.overdue(e, now) // it may have been heard of meanwhile
	}
	if reason == "" {
		r.mu.Unlock()
		return
	}
	e.live = false
	id := e.s.ID()
	if e.stream != nil {
		e.stream.cancel(errors.New(reason))
		e.stream = nil
	}
	delete(r.docks, id)
	r.mu.Unlock()
	r.log.WithField("dock", id).Warn("dock gone: " + reason)
	r.opts.Observer.DockGone(id, reason)
}

// Session serves one dock's session.
func (r *Registry) Session(srv grpc.BidiStreamingServer[dockpb.DockMessage, dockpb.Welcome]) error {
	ctx, cancel := context.WithCancelCause(srv.Context())
	defer cancel(nil)
	first, err := recv(ctx, srv, r.opts.Silence)
	if err != nil {
		return err
	}
	hello := first.GetHello()
	if hello == nil {
		return r.refuse(srv, "", "the first message must introduce the dock")
	}
	st := &stream{cancel: cancel}
	e, why := r.join(hello, first, st, peerOf(srv.Context()))
	if why != "" {
		return r.refuse(srv, hello.GetDockId(), why)
	}
	defer r.leave(e, st)
	for {
		if err := srv.Send(r.welcome()); err != nil {
			return err
		}
		m, err := recv(ctx, srv, 2*r.opts.Silence)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if why := check(m); why != "" {
			return r.refuse(srv, hello.GetDockId(), why)
		}
		if !r.beat(e, st, m) {
			return dockpb.ToStatus(model.Errorf(model.KindUnavailable, "this session of the dock is over: %v", context.Cause(ctx)))
		}
	}
}

// recv waits for a message until ctx ends, or for so long. What it leaves
// waiting ends with the stream, that is when the handler returns.
func recv(ctx context.Context, srv grpc.BidiStreamingServer[dockpb.DockMessage, dockpb.Welcome], limit time.Duration) (*dockpb.DockMessage, error) {
	type result struct {
		m   *dockpb.DockMessage
		err error
	}
	ch := make(chan result, 1)
	go func() {
		m, err := srv.Recv()
		ch <- result{m, err}
	}()
	t := time.NewTimer(limit)
	defer t.Stop()
	select {
	case x := <-ch:
		return x.m, x.err
	case <-ctx.Done():
		return nil, dockpb.ToStatus(model.Errorf(model.KindUnavailable, "this session of the dock is over: %v", context.Cause(ctx)))
	case <-t.C:
		return nil, dockpb.ToStatus(model.Errorf(model.KindUnavailable, "nothing heard from the dock for %v", limit))
	}
}

func peerOf(ctx context.Context) string {
	if p, ok := peer.FromContext(ctx); ok && p.Addr != nil {
		return p.Addr.String()
	}
	return ""
}

func (r *Registry) welcome() *dockpb.Welcome {
	leads, epoch := r.opts.Leader()
	return &dockpb.Welcome{ClusterId: r.opts.ClusterID, BeatMs: int32(r.opts.Beat.Milliseconds()), Leader: leads, Epoch: epoch}
}

// refuse tells the dock why, and ends the session.
func (r *Registry) refuse(srv grpc.BidiStreamingServer[dockpb.DockMessage, dockpb.Welcome], id, why string) error {
	r.log.WithFields(logrus.Fields{"dock": id, "peer": peerOf(srv.Context())}).Warn("dock refused: " + why)
	return srv.Send(&dockpb.Welcome{ClusterId: r.opts.ClusterID, Refused: why})
}

// join makes a dock's session the live one, or says why not.
func (r *Registry) join(h *dockpb.Hello, m *dockpb.DockMessage, st *stream, from string) (*entry, string) {
	if why := r.checkHello(h); why != "" {
		return nil, why
	}
	if why := check(m); why != "" {
		return nil, why
	}
	for {
		e, why := r.entryFor(h)
		if why != "" {
			return nil, why
		}
		if why, again := r.take(e, h, m, st, from); !again {
			return e, why
		}
	}
}

// entryFor finds or makes the entry of a dock.
func (r *Registry) entryFor(h *dockpb.Hello) (*entry, string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	e := r.docks[h.GetDockId()]
	if e == nil {
		if len(r.docks) >= r.opts.MaxDocks {
			return nil, fmt.Sprintf("there are %d docks already, no more are taken", len(r.docks))
		}
		e = &entry{}
		r.docks[h.GetDockId()] = e
	}
	return e, ""
}

// take gives the entry to a stream. again means that the entry was given up
// meanwhile and another has to be found.
func (r *Registry) take(e *entry, h *dockpb.Hello, m *dockpb.DockMessage, st *stream, from string) (why string, again bool) {
	e.turn.Lock()
	defer e.turn.Unlock()
	now := time.Now()
	r.mu.Lock()
	if r.docks[h.GetDockId()] != e {
		r.mu.Unlock()
		return "", true
	}
	if e.live && e.stream != nil && e.s.Hello.GetInstance() != h.GetInstance() && r.overdue(e, now) == "" {
		old := e.s
		r.mu.Unlock()
		return fmt.Sprintf("a dock with the id %s is registered already, from %s (node %s, heard of %v ago); if this is a copy of that host, remove its state directory so that it gets an id of its own",
			h.GetDockId(), old.Peer, old.Hello.GetNodeId(), now.Sub(old.LastBeat).Round(time.Millisecond)), false
	}
	if e.stream != nil {
		e.stream.cancel(errors.New("the dock has opened another one"))
	}
	back := e.live && e.s.Hello.GetInstance() == h.GetInstance()
	since := now
	if back {
		since = e.s.Since
	}
	e.s = Session{Hello: h, Pools: m.GetPools(), OutOfService: m.GetOutOfService(), Epoch: m.GetEpoch(), Since: since, LastBeat: now, Peer: from}
	e.live, e.stream = true, st
	s := e.s
	r.mu.Unlock()
	r.log.WithFields(logrus.Fields{"dock": s.ID(), "name": h.GetName(), "endpoint": h.GetEndpoint(), "pools": len(s.Pools)}).Info("dock registered")
	r.opts.Observer.DockSeen(s)
	return "", false
}

// beat notes a message; false if the stream is no longer the dock's.
func (r *Registry) beat(e *entry, st *stream, m *dockpb.DockMessage) bool {
	e.turn.Lock()
	defer e.turn.Unlock()
	r.mu.Lock()
	if e.stream != st {
		r.mu.Unlock()
		return false
	}
	e.s.Pools, e.s.OutOfService, e.s.Epoch, e.s.LastBeat = m.GetPools(), m.GetOutOfService(), m.GetEpoch(), time.Now()
	s := e.s
	r.mu.Unlock()
	r.opts.Observer.DockBeat(s)
	return true
}

// leave notes that a stream ended; the dock has the grace to come back.
func (r *Registry) leave(e *entry, st *stream) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if e.stream == st {
		e.stream, e.broke = nil, time.Now()
	}
}

// checkHello says what is wrong with an introduction.
func (r *Registry) checkHello(h *dockpb.Hello) string {
	switch {
	case !model.ValidUUID(h.GetDockId()):
		return fmt.Sprintf("the dock id %.64q is not a UUID", h.GetDockId())
	case h.GetInstance() == "":
		return "the dock's instance is empty"
	case h.GetClusterId() != "" && h.GetClusterId() != r.opts.ClusterID:
		return fmt.Sprintf("this dock belongs to the cluster %s, and this is the cluster %s; stop the dock and run osdsdock --join-cluster %s to move it",
			h.GetClusterId(), r.opts.ClusterID, r.opts.ClusterID)
	case h.GetType() != model.DockProvisioner && h.GetType() != model.DockAttacher:
		return fmt.Sprintf("docks of type %.64q are not supported, only provisioner and attacher", h.GetType())
	case len(h.GetInitiators()) > maxNames || len(h.GetAddresses()) > maxNames:
		return fmt.Sprintf("the dock has %d initiators and %d addresses, at most %d of each are taken", len(h.GetInitiators()), len(h.GetAddresses()), maxNames)
	case len(h.GetMetadata()) > maxMetadata:
		return fmt.Sprintf("the dock has %d metadata entries, at most %d are taken", len(h.GetMetadata()), maxMetadata)
	}
	for _, x := range h.GetInitiators() {
		if why := checkInitiator(x); why != "" {
			return why
		}
	}
	host, port, err := net.SplitHostPort(h.GetEndpoint())
	ip := net.ParseIP(host)
	if err != nil || host == "" || port == "" || port == "0" || ip != nil && ip.IsUnspecified() {
		return fmt.Sprintf("the endpoint %.128q is no address that can be dialled; set advertise in the dock's configuration to host:port", h.GetEndpoint())
	}
	return ""
}

// checkInitiator says what is wrong with a name of the dock's host. Such names
// reach targets' access lists. "local" is for devices that need no network.
func checkInitiator(x *dockpb.Initiator) string {
	if x.GetProtocol() == "local" {
		if n := len(x.GetPortName()); n == 0 || n > 255 {
			return fmt.Sprintf("the dock's local initiator has a name of %d characters, 1 to 255 are taken", n)
		}
		return ""
	}
	if err := model.ValidateInitiator(model.Initiator{PortName: x.GetPortName(), Protocol: x.GetProtocol()}); err != nil {
		return "the dock's initiators: " + err.Error()
	}
	return ""
}

// check says what is wrong with a message.
func check(m *dockpb.DockMessage) string {
	if n := len(m.GetPools()); n > maxPools {
		return fmt.Sprintf("the dock has %d pools, at most %d are taken", n, maxPools)
	}
	seen := make(map[string]bool, len(m.GetPools()))
	for _, p := range m.GetPools() {
		if !model.ValidID(p.GetId()) {
			return fmt.Sprintf("the pool %.64q has the id %.64q, which is none", p.GetName(), p.GetId())
		}
		if seen[p.GetId()] {
			return fmt.Sprintf("the pool id %s is given twice", p.GetId())
		}
		seen[p.GetId()] = true
	}
	return ""
}

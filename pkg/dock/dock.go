package dock

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/sirupsen/logrus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"

	"github.com/osds-io/osds/internal/obs"
	"github.com/osds-io/osds/internal/tlsconf"
	"github.com/osds-io/osds/pkg/dock/dockpb"
	"github.com/osds-io/osds/pkg/drivers"
	"github.com/osds-io/osds/pkg/model"
)

// Options are what a dock is made from besides its configuration.
type Options struct {
	Config Config
	// Drivers are the drivers that are linked, by name.
	Drivers  map[string]drivers.Factory
	Version  string
	Log      *logrus.Logger
	Registry prometheus.Registerer // nil: no metrics are published
	// Attacher makes what attaches for this host; nil is package connector.
	Attacher OpenAttacher
}

// Dock is the agent of one storage host.
type Dock struct {
	cfg      Config
	version  string
	log      *logrus.Entry
	state    *state
	fence    *fence
	locks    *locks
	profiles profileCache
	metrics  *metrics
	inFlight atomic.Int64
	instance string
	backends map[string]*backend
	order    []string // the backends' names as configured
	// connector attaches for this host; nil: this dock does not.
	connector *attachService
	sessions  []*session
	creds     struct {
		server, client credentials.TransportCredentials
	}
	identity *tlsconf.Identity // nil: insecure

	care  careTimes
	times sessionTimes

	mu       sync.Mutex
	endpoint string // set by Serve
	// renewed is closed, and replaced, when the dock has to introduce itself
	// anew: its host has other initiators.
	renewed chan struct{}
}

// New checks the configuration and takes the state directory. Close gives it
// back; Serve does so itself.
func New(o Options) (_ *Dock, err error) {
	if err := o.Config.Validate(); err != nil {
		return nil, err
	}
	if err := o.Config.ValidateDrivers(o.Drivers); err != nil {
		return nil, err
	}
	if o.Log == nil {
		o.Log = logrus.StandardLogger()
	}
	d := &Dock{
		cfg: o.Config, version: o.Version, log: logrus.NewEntry(o.Log), locks: newLocks(maxRemembered),
		instance: uuid.NewString(), backends: map[string]*backend{}, care: defaultCare(), times: defaultSession(),
		renewed: make(chan struct{}),
	}
	if err := d.loadCredentials(); err != nil {
		return nil, err
	}
	if d.state, err = openState(d.cfg.StateDir); err != nil {
		return nil, err
	}
	if d.fence, err = openFence(d.cfg.StateDir); err != nil {
		_ = d.state.close()
		return nil, err
	}
	if d.cfg.attaches() {
		d.connector = d.newConnector(o.Attacher)
	}
	d.metrics = newMetrics(o.Registry, d)
	for _, bc := range d.cfg.Backends {
		d.order = append(d.order, bc.Name)
		d.backends[bc.Name] = d.newBackend(bc, o.Drivers[bc.Driver])
	}
	for _, ep := range d.cfg.Osdslets {
		s := &session{d: d, endpoint: ep, creds: d.creds.client, log: d.log.WithField("osdslet", ep)}
		d.sessions = append(d.sessions, s)
		s.set(false, "")
	}
	return d, nil
}

func (d *Dock) loadCredentials() error {
	if !d.cfg.TLS.Set() {
		d.creds.server, d.creds.client = insecure.NewCredentials(), insecure.NewCredentials()
		return nil
	}
	id, err := tlsconf.Load(d.cfg.TLS, tlsconf.RoleDock)
	if err != nil {
		return model.Errorf(model.KindInvalid, "%w", err)
	}
	id.OnReload = func(err error) {
		if err != nil {
			d.log.WithError(err).Error("the certificates on disk cannot be used; going on with the last good ones")
			return
		}
		d.log.Info("certificates loaded again")
	}
	d.identity = id
	d.creds.server, d.creds.client = id.ServerCredentials(tlsconf.RoleLet), id.ClientCredentials(tlsconf.RoleLet)
	return nil
}

func (d *Dock) newBackend(bc BackendConfig, f drivers.Factory) *backend {
	b := &backend{cfg: bc, dockID: d.state.dockID()}
	b.what, b.log = "the backend "+bc.Name, d.log.WithFields(logrus.Fields{"backend": bc.Name, "driver": bc.Driver})
	b.slots, b.tried = newSlots(d.cfg.Limits.CallsPerBackend, d.cfg.Limits.ExportReserve), make(chan struct{})
	b.maker = func(ctx context.Context) (drivers.Driver, error) {
		dir, err := d.state.driverDir(bc.Name)
		if err != nil {
			return nil, err
		}
		return f(ctx, drivers.Config{Backend: bc.Name, Path: bc.Config, StateDir: dir, ClusterID: d.state.clusterID()})
	}
	return b
}

func (d *Dock) newConnector(open OpenAttacher) *attachService {
	if open == nil {
		open = openConnector
	}
	a := &attachService{changed: d.renew}
	a.what, a.log = "the connector", d.log.WithField("backend", connectorName)
	a.slots, a.tried = newSlots(d.cfg.Limits.CallsPerBackend, d.cfg.Limits.ExportReserve), make(chan struct{})
	a.maker = func(ctx context.Context) (Attacher, error) {
		c := d.cfg.Connector
		if c.Log = a.log; c.StateDir == "" {
			var err error
			if c.StateDir, err = d.state.connectorDir(); err != nil {
				return nil, err
			}
		}
		return open(ctx, c)
	}
	return a
}

// renew has every session introduce the dock anew.
func (d *Dock) renew() {
	d.mu.Lock()
	defer d.mu.Unlock()
	close(d.renewed)
	d.renewed = make(chan struct{})
}

// renewal is closed when the next renew is called.
func (d *Dock) renewal() <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.renewed
}

// ID is the dock's id.
func (d *Dock) ID() string { return d.state.dockID() }

// Epoch is the highest epoch seen.
func (d *Dock) Epoch() int64 { return d.fence.epoch() }

// Close gives the state directory back, of a dock that was never served.
func (d *Dock) Close() error { return d.state.close() }

// Serve answers calls on lis and keeps the sessions, until ctx ends; then it
// takes no more calls, lets those in progress end, closes the drivers and gives
// the state directory back. It is called once.
func (d *Dock) Serve(ctx context.Context, lis net.Listener) error {
	defer d.state.close()
	if !d.cfg.TLS.Set() && !tlsconf.IsLoopback(lis.Addr().String()) {
		_ = lis.Close()
		return model.Errorf(model.KindInvalid, "without tls the dock serves loopback addresses only, not %s", lis.Addr())
	}
	d.setEndpoint(lis.Addr())
	run, stop := context.WithCancel(ctx)
	defer stop()
	var wg sync.WaitGroup
	for _, b := range d.backends {
		b.care = d.care
		wg.Go(func() { b.run(run) })
	}
	if d.connector != nil {
		d.connector.care = d.care
		wg.Go(func() { d.connector.run(run) })
	}
	for _, s := range d.sessions {
		s.times = d.times
		wg.Go(func() { d.awaitBackends(run); s.run(run) })
	}
	srv := d.newServer()
	served := make(chan error, 1)
	go func() { served <- srv.Serve(lis) }()
	d.log.WithFields(logrus.Fields{"dock": d.ID(), "listen": lis.Addr().String(), "epoch": d.Epoch()}).Info("dock started")

	var err error
	select {
	case err = <-served:
		stop()
	case <-ctx.Done():
		stop()
		d.stopServer(srv)
		<-served
	}
	wg.Wait()
	err = errors.Join(err, d.closeBackends())
	d.log.Info("dock stopped")
	return err
}

// awaitBackends waits a while for every backend, and the connector, to be opened,
// or to fail to be. A dock that introduced itself before would have no pools to
// show, or not its host's initiators: after a mere restart they would be taken for
// gone.
func (d *Dock) awaitBackends(ctx context.Context) {
	limit := time.NewTimer(d.care.firstLook)
	defer limit.Stop()
	var tried []chan struct{}
	for _, b := range d.backends {
		tried = append(tried, b.tried)
	}
	if d.connector != nil {
		tried = append(tried, d.connector.tried)
	}
	for _, t := range tried {
		select {
		case <-t:
		case <-limit.C:
			return
		case <-ctx.Done():
			return
		}
	}
}

// setEndpoint decides where osdslet dials.
func (d *Dock) setEndpoint(a net.Addr) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.endpoint = d.cfg.Advertise
	if d.endpoint == "" {
		host, _, _ := net.SplitHostPort(d.cfg.Listen)
		_, port, _ := net.SplitHostPort(a.String())
		d.endpoint = net.JoinHostPort(host, port)
	}
}

func (d *Dock) newServer() *grpc.Server {
	srv := grpc.NewServer(
		grpc.Creds(d.creds.server),
		grpc.MaxConcurrentStreams(uint32(d.cfg.Limits.MaxCalls)),
		grpc.ConnectionTimeout(10*time.Second),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: 20 * time.Second, Timeout: 5 * time.Second}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 5 * time.Second, PermitWithoutStream: true}),
	)
	dockpb.RegisterDockServer(srv, &server{d: d})
	return srv
}

// stopServer lets calls in progress end, for a bounded time.
func (d *Dock) stopServer(srv *grpc.Server) {
	done := make(chan struct{})
	go func() { srv.GracefulStop(); close(done) }()
	t := time.NewTimer(d.cfg.Limits.Shutdown)
	defer t.Stop()
	select {
	case <-done:
	case <-t.C:
		d.log.WithField("calls", d.inFlight.Load()).Warn("calls in progress did not end in time; they are cut off")
		srv.Stop()
		<-done
	}
}

// closeBackends closes every driver, and the connector, whose calls have ended. Only calls whose time
// was over before are waited for here.
func (d *Dock) closeBackends() error {
	ctx, cancel := context.WithTimeout(context.Background(), max(d.cfg.Limits.Shutdown/2, time.Second))
	defer cancel()
	errs := make([]error, len(d.order))
	var wg sync.WaitGroup
	for i, name := range d.order {
		wg.Go(func() { errs[i] = d.backends[name].close(ctx) })
	}
	var err error
	if d.connector != nil {
		err = d.connector.close(ctx)
	}
	wg.Wait()
	return errors.Join(append(errs, err)...)
}

// clusterFor is the cluster that what a call makes is tagged with.
func (d *Dock) clusterFor(c *dockpb.Call) string {
	if id := c.GetClusterId(); id != "" {
		return id
	}
	return d.state.clusterID()
}

// hello introduces the dock.
func (d *Dock) hello() *dockpb.Hello {
	d.mu.Lock()
	endpoint := d.endpoint
	d.mu.Unlock()
	meta := map[string]string{"os": runtime.GOOS, "arch": runtime.GOARCH}
	var names []model.Initiator
	var addrs []string
	if d.connector != nil {
		names, addrs = d.connector.initiators(hostname()), addresses(endpoint)
		maps.Copy(meta, attacherMetadata(names, addrs))
	}
	maps.Copy(meta, d.cfg.Metadata)
	h := &dockpb.Hello{
		DockId: d.ID(), Instance: d.instance, Name: d.cfg.name(), NodeId: hostname(), Endpoint: endpoint,
		Version: d.version, Type: d.cfg.Type, Metadata: meta, ClusterId: d.state.clusterID(),
		Initiators: dockpb.FromInitiators(names), Addresses: addrs,
	}
	for _, name := range d.order {
		h.Backends = append(h.Backends, name+":"+d.backends[name].cfg.Driver)
	}
	return h
}

// beat is the dock as it is now. A pool that two backends show is published by
// the first alone: its space must not count twice.
func (d *Dock) beat() *dockpb.DockMessage {
	m := &dockpb.DockMessage{Epoch: d.fence.epoch(), OutOfService: map[string]string{}}
	owner := map[string]string{}
	for _, name := range d.order {
		b := d.backends[name]
		up, reason := b.state()
		set(d.metrics.backend.WithLabelValues(name, b.cfg.Driver), up)
		for _, p := range b.snapshot() {
			if first, twice := owner[p.GetId()]; twice {
				reason = fmt.Sprintf("its pool %s (%s) is the same as one of the backend %s; only that one is published", p.GetName(), p.GetId(), first)
				continue
			}
			owner[p.GetId()] = name
			m.Pools = append(m.Pools, p)
		}
		if reason != "" {
			m.OutOfService[name] = reason
		}
	}
	if d.connector != nil {
		up, reason := d.connector.state()
		set(d.metrics.attach, up)
		if reason != "" {
			m.OutOfService[connectorName] = reason
		}
	}
	return m
}

// Ready is for /readyz: at least one backend, or the connector, and one session
// must be up.
func (d *Dock) Ready(context.Context) []obs.Check {
	var out []obs.Check
	anyBackend, anySession := false, false
	for _, name := range d.order {
		up, reason := d.backends[name].state()
		anyBackend = anyBackend || up
		out = append(out, obs.Check{Name: "backend/" + name, OK: up && reason == "", Detail: reason, Optional: true})
	}
	if d.connector != nil {
		up, reason := d.connector.state()
		anyBackend = anyBackend || up && d.cfg.Type == model.DockAttacher
		out = append(out, obs.Check{Name: "connector", OK: up && reason == "", Detail: reason, Optional: true})
	}
	for _, s := range d.sessions {
		up, detail := s.status()
		anySession = anySession || up
		out = append(out, obs.Check{Name: "osdslet/" + s.endpoint, OK: up, Detail: detail, Optional: true})
	}
	if d.identity != nil {
		left := time.Until(d.identity.Expires())
		out = append(out, obs.Check{Name: "certificate", OK: left > 14*24*time.Hour, Optional: true,
			Detail: "good until " + d.identity.Expires().UTC().Format(time.RFC3339)})
	}
	return slices.Insert(out, 0,
		obs.Check{Name: "backends", OK: anyBackend, Detail: none(anyBackend, "nothing that this dock serves is in service")},
		obs.Check{Name: "sessions", OK: anySession, Detail: none(anySession, "registered with no osdslet")})
}

func none(ok bool, s string) string {
	if ok {
		return ""
	}
	return s
}

package osdslet

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/sirupsen/logrus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"

	"github.com/osds-io/osds/internal/obs"
	"github.com/osds-io/osds/internal/tlsconf"
	"github.com/osds-io/osds/pkg/api"
	"github.com/osds-io/osds/pkg/controller"
	"github.com/osds-io/osds/pkg/controller/doctor"
	"github.com/osds-io/osds/pkg/controller/steps"
	"github.com/osds-io/osds/pkg/db"
	"github.com/osds-io/osds/pkg/dock/client"
	"github.com/osds-io/osds/pkg/dock/dockpb"
	"github.com/osds-io/osds/pkg/dock/registry"
	"github.com/osds-io/osds/pkg/model"
)

// grace is how long requests in flight may take to end at a stop.
const grace = 10 * time.Second

// Options are what Run needs besides the configuration.
type Options struct {
	Config  Config
	Version string
	Log     *logrus.Logger
	// Ready, if not nil, is called when the API is being served, with its
	// address and that of the registry.
	Ready func(api, registry net.Addr)
}

// daemon is one running osdslet.
type daemon struct {
	o     Options
	c     *Config
	log   *logrus.Entry
	store *db.Store
	reg   *registry.Registry
	ctl   *controller.Controller
	docks *client.Dialer
	id    *tlsconf.Identity // towards docks; nil: insecure
	webID *tlsconf.Identity // of the REST API; nil: HTTP
}

// Run is osdslet: it returns when the context ends and everything is stopped, or
// when it cannot go on.
func Run(ctx context.Context, o Options) error {
	d := &daemon{o: o, c: &o.Config, log: logrus.NewEntry(o.Log)}
	if err := d.c.Validate(); err != nil {
		return err
	}
	if err := d.loadCertificates(); err != nil {
		return err
	}
	// Ports first: a second osdslet by mistake ends before it touches data.
	apiLis, err := net.Listen("tcp", d.c.API.Listen)
	if err != nil {
		return fmt.Errorf("api.listen: %w", err)
	}
	defer apiLis.Close()
	regLis, err := net.Listen("tcp", d.c.Registry.Listen)
	if err != nil {
		return fmt.Errorf("registry.listen: %w", err)
	}
	defer regLis.Close()
	if d.store, err = d.openStore(ctx); err != nil {
		return err
	}
	defer d.store.Close()
	return d.serve(ctx, apiLis, regLis)
}

func (d *daemon) loadCertificates() (err error) {
	if d.id, d.webID, err = d.c.certificates(); err != nil {
		return err
	}
	for what, id := range d.identities() {
		log := d.log.WithField("certificate", what)
		id.OnReload = func(err error) {
			if err != nil {
				log.WithError(err).Error("the certificates on disk cannot be used; going on with the last good ones")
				return
			}
			log.Info("certificates loaded again")
		}
	}
	return nil
}

// identities are the certificates in use, by their key in the configuration.
func (d *daemon) identities() map[string]*tlsconf.Identity {
	all := map[string]*tlsconf.Identity{"tls": d.id, "api.cert": d.webID}
	maps.DeleteFunc(all, func(_ string, id *tlsconf.Identity) bool { return id == nil })
	return all
}

func (d *daemon) openStore(ctx context.Context) (*db.Store, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	e := d.c.Etcd
	cfg := db.Config{
		Endpoints: e.Endpoints, Username: e.Username, Password: e.Password, Prefix: e.Prefix, Log: d.log,
		Embedded: db.Embedded{Dir: d.c.DataDir, ListenClient: e.Embedded.ListenClient, Quota: int64(e.Embedded.Quota)},
	}
	if e.TLS.CA != "" || e.TLS.Cert != "" {
		t, err := etcdTLS(e.TLS)
		if err != nil {
			return nil, err
		}
		cfg.TLS = t
	}
	return db.Open(ctx, cfg)
}

func etcdTLS(c EtcdTLS) (*tls.Config, error) {
	t := &tls.Config{MinVersion: tls.VersionTLS12}
	if c.CA != "" {
		pem, err := os.ReadFile(c.CA)
		if err != nil {
			return nil, model.Invalid("etcd.tls.ca", "etcd.tls.ca: %v", err)
		}
		t.RootCAs = x509.NewCertPool()
		if !t.RootCAs.AppendCertsFromPEM(pem) {
			return nil, model.Invalid("etcd.tls.ca", "etcd.tls.ca: %s holds no certificate", c.CA)
		}
	}
	if c.Cert != "" {
		pair, err := tls.LoadX509KeyPair(c.Cert, c.Key)
		if err != nil {
			return nil, model.Invalid("etcd.tls.cert", "etcd.tls.cert: %v", err)
		}
		t.Certificates = []tls.Certificate{pair}
	}
	return t, nil
}

func (d *daemon) serve(ctx context.Context, apiLis, regLis net.Listener) error {
	cluster, err := d.store.ClusterID(ctx)
	if err != nil {
		return err
	}
	var creds credentials.TransportCredentials
	if d.id != nil {
		creds = d.id.ClientCredentials(tlsconf.RoleDock)
	}
	d.docks = client.New(client.Options{Creds: creds})
	defer d.docks.Close()

	sess := newSessions()
	d.reg = registry.New(registry.Options{
		ClusterID: cluster, Observer: sess, Log: d.o.Log, Beat: d.c.Registry.Beat, Silence: d.c.Registry.Lost,
		Leader: func() (bool, int64) {
			l := d.ctl.Leader()
			if l == nil {
				return false, 0
			}
			return l.Instance == d.store.Instance(), l.Epoch
		},
	})
	sess.reg = d.reg
	cc := d.c.Controller
	d.ctl = controller.New(controller.Config{
		Store: d.store, Dialer: dialer{d.docks}, Sessions: sess, ClusterID: cluster, Address: apiLis.Addr().String(),
		LeaseTTL: cc.LeaseTTL, DockGrace: cc.DockGrace, Log: d.log, Now: time.Now,
		Limits: steps.Limits{Create: cc.Create, Place: cc.Place, Debt: cc.Debt, Call: cc.Call, LongCall: cc.LongCall, Attempts: cc.Attempts, PerDock: cc.PerDock},
	})
	metrics := obs.NewRegistry()
	for what, id := range d.identities() {
		metrics.MustRegister(obs.CertificateExpiry(what, id.Expires))
	}
	handler := api.New(api.Deps{
		Store: d.store, Planner: &controller.Planner{Store: d.store, Now: time.Now},
		Finder: &controller.Finder{Store: d.store, Dialer: dialer{d.docks}},
		Doctor: &doctor.Doctor{Store: d.store, Dialer: dialer{d.docks}, Now: time.Now, ClusterID: func() string { return cluster }},
		PoolView: func(p *model.Pool) (total, free, reserved model.Bytes, status model.Status) {
			return sess.view(d.store, p)
		},
		PoolFills: sess.fills,
		Leader:    d.ctl.Leader, Log: d.log, Metrics: metrics, Strict: d.c.API.Strict,
		MaxBody: int64(d.c.API.MaxBody), RequestTimeout: d.c.API.RequestTimeout, Now: time.Now,
	})
	return d.runAll(ctx, apiLis, regLis, handler)
}

// runAll runs the parts, and stops them in order: first the API, so that what it
// accepted is in the store; then the controllers; then the docks' sessions.
func (d *daemon) runAll(ctx context.Context, apiLis, regLis net.Listener, handler http.Handler) error {
	work, stopWork := context.WithCancel(context.WithoutCancel(ctx))
	defer stopWork()
	var wg sync.WaitGroup
	defer wg.Wait()
	defer stopWork()
	srv := grpc.NewServer(d.serverOptions()...)
	dockpb.RegisterRegistryServer(srv, d.reg)
	fail := make(chan error, 2)
	wg.Add(4)
	go func() { defer wg.Done(); returnMemory(work) }()
	go func() { defer wg.Done(); d.reg.Run(work) }()
	go func() { defer wg.Done(); d.ctl.Run(work) }()
	go func() {
		defer wg.Done()
		if err := srv.Serve(regLis); err != nil {
			fail <- fmt.Errorf("registry: %w", err)
		}
	}()
	defer srv.Stop()
	web := d.webServer(handler)
	wg.Add(1)
	go func() {
		defer wg.Done()
		var err error
		if d.webID != nil {
			err = web.ServeTLS(apiLis, "", "") // from webServer's TLSConfig
		} else {
			err = web.Serve(apiLis)
		}
		if !errors.Is(err, http.ErrServerClosed) {
			fail <- fmt.Errorf("api: %w", err)
		}
	}()
	d.log.WithFields(logrus.Fields{"api": apiLis.Addr(), "registry": regLis.Addr(), "version": d.o.Version}).Info("osdslet serves")
	if d.o.Ready != nil {
		d.o.Ready(apiLis.Addr(), regLis.Addr())
	}
	var err error
	select {
	case err = <-fail:
	case <-ctx.Done():
		d.log.Info("stopping")
	}
	end, cancel := context.WithTimeout(context.Background(), grace)
	defer cancel()
	if c, ok := handler.(interface{ Close() }); ok {
		c.Close() // event streams end, or Shutdown would wait for them
	}
	if serr := web.Shutdown(end); serr != nil {
		_ = web.Close()
	}
	return err
}

func (d *daemon) webServer(h http.Handler) *http.Server {
	t := &tls.Config{MinVersion: tls.VersionTLS12}
	if d.webID != nil {
		t.GetCertificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return d.webID.Certificate(), nil }
	}
	return &http.Server{
		Handler: h, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 64 << 10,
		TLSConfig: t,
		ErrorLog:  nil,
	}
}

func (d *daemon) serverOptions() []grpc.ServerOption {
	creds := insecure.NewCredentials()
	if d.id != nil {
		creds = d.id.ServerCredentials(tlsconf.RoleDock)
	}
	return []grpc.ServerOption{
		grpc.Creds(creds),
		grpc.MaxRecvMsgSize(16 << 20),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: 10 * time.Second, Timeout: 5 * time.Second}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 2 * time.Second, PermitWithoutStream: true}),
	}
}

// Package docktest starts docks and registries on loopback for the tests of the
// packages around.
package docktest

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/sirupsen/logrus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/osds-io/osds/internal/tlsconf"
	"github.com/osds-io/osds/pkg/dock"
	"github.com/osds-io/osds/pkg/dock/dockpb"
	"github.com/osds-io/osds/pkg/dock/registry"
	"github.com/osds-io/osds/pkg/drivers"
)

// Logger writes to the test's log.
func Logger(tb testing.TB) *logrus.Logger {
	log := logrus.New()
	log.SetOutput(tb.Output())
	log.SetLevel(logrus.WarnLevel)
	if testing.Verbose() {
		log.SetLevel(logrus.InfoLevel)
	}
	return log
}

// CA makes an authority.
func CA(tb testing.TB) tlsconf.Pair {
	tb.Helper()
	ca, err := tlsconf.MakeCA("")
	if err != nil {
		tb.Fatal(err)
	}
	return ca
}

// Files makes a certificate for 127.0.0.1 and stores it.
func Files(tb testing.TB, ca tlsconf.Pair, role tlsconf.Role) tlsconf.Files {
	tb.Helper()
	p, err := tlsconf.MakeCert(ca, tlsconf.Request{Kind: tlsconf.Both, Role: role, IPs: []net.IP{net.ParseIP("127.0.0.1")}})
	if err != nil {
		tb.Fatal(err)
	}
	dir := tb.TempDir()
	f := tlsconf.Files{CA: filepath.Join(dir, "ca"), Cert: filepath.Join(dir, "cert"), Key: filepath.Join(dir, "key")}
	if err := p.Write(f.Cert, f.Key); err != nil {
		tb.Fatal(err)
	}
	if err := os.WriteFile(f.CA, ca.Cert, 0o600); err != nil {
		tb.Fatal(err)
	}
	return f
}

// Identity is Files, loaded.
func Identity(tb testing.TB, ca tlsconf.Pair, role tlsconf.Role) *tlsconf.Identity {
	tb.Helper()
	id, err := tlsconf.Load(Files(tb, ca, role), tlsconf.RoleNone)
	if err != nil {
		tb.Fatal(err)
	}
	return id
}

// Config is a dock's configuration with the backend "mem" of the driver "mem",
// without certificates, and with an osdslet that is not there.
func Config(tb testing.TB) dock.Config {
	cfg := dock.DefaultConfig()
	cfg.Listen, cfg.Osdslets, cfg.StateDir = "127.0.0.1:0", []string{"127.0.0.1:1"}, tb.TempDir()
	cfg.InsecureLoopback = true
	cfg.Backends = []dock.BackendConfig{{Name: "mem", Driver: "mem"}}
	cfg.Limits.Shutdown = 10 * time.Second
	return cfg
}

// Running is a dock that is being served.
type Running struct {
	*dock.Dock
	Addr string
	stop context.CancelFunc
	done chan error
}

// Stop ends the dock and gives what Serve gave. A second time gives nil.
func (r *Running) Stop() error {
	r.stop()
	return <-r.done
}

// Start makes and serves a dock; it is stopped at the end of the test. tune may
// be nil.
func Start(tb testing.TB, cfg dock.Config, drv map[string]drivers.Factory, tune func(*dock.Dock)) *Running {
	tb.Helper()
	return StartAttacher(tb, cfg, drv, nil, tune)
}

// StartAttacher is Start with what attaches for the dock's host.
func StartAttacher(tb testing.TB, cfg dock.Config, drv map[string]drivers.Factory, open dock.OpenAttacher, tune func(*dock.Dock)) *Running {
	tb.Helper()
	d, err := dock.New(dock.Options{Config: cfg, Drivers: drv, Attacher: open, Log: Logger(tb), Version: "test"})
	if err != nil {
		tb.Fatal(err)
	}
	if tune != nil {
		tune(d)
	}
	lis, err := net.Listen("tcp", cfg.Listen)
	if err != nil {
		tb.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	r := &Running{Dock: d, Addr: lis.Addr().String(), stop: cancel, done: make(chan error, 1)}
	go func() { r.done <- d.Serve(ctx, lis); close(r.done) }()
	tb.Cleanup(func() {
		if err := r.Stop(); err != nil {
			tb.Errorf("serve: %v", err)
		}
	})
	return r
}

// StartRegistry serves a registry at an address ("127.0.0.1:0" for any) and gives
// the address and how to stop it, which may be called twice. Nil creds are plain
// text.
func StartRegistry(tb testing.TB, addr string, o registry.Options, creds credentials.TransportCredentials) (*registry.Registry, string, func()) {
	tb.Helper()
	if creds == nil {
		creds = insecure.NewCredentials()
	}
	if o.Log == nil {
		o.Log = Logger(tb)
	}
	reg := registry.New(o)
	lis, err := net.Listen("tcp", addr)
	if err != nil {
		tb.Fatal(err)
	}
	srv := grpc.NewServer(grpc.Creds(creds))
	dockpb.RegisterRegistryServer(srv, reg)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{}, 2)
	go func() { _ = srv.Serve(lis); done <- struct{}{} }()
	go func() { reg.Run(ctx); done <- struct{}{} }()
	stopped := false
	stop := func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		srv.Stop()
		<-done
		<-done
	}
	tb.Cleanup(stop)
	return reg, lis.Addr().String(), stop
}

// Until waits until ok, for at most half a minute.
func Until(tb testing.TB, what string, ok func() bool) {
	tb.Helper()
	for end := time.Now().Add(30 * time.Second); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			tb.Fatalf("waited too long for: %s", what)
		}
	}
}

// CopyState copies a state directory, as cloning a host's disk does.
func CopyState(tb testing.TB, dir string) string {
	tb.Helper()
	to := tb.TempDir()
	entries, err := os.ReadDir(dir)
	if err != nil {
		tb.Fatal(err)
	}
	for _, e := range entries {
		if e.IsDir() {
			continue
		}
		data, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err == nil {
			err = os.WriteFile(filepath.Join(to, e.Name()), data, 0o600)
		}
		if err != nil {
			tb.Fatal(err)
		}
	}
	return to
}

package harness

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Limit is how long anything that takes a moment may take before a test gives it
// up. It is generous: the machine may be busy, and a bound that is reached only
// when something is broken costs nothing.
const Limit = 90 * time.Second

// Cluster is some osdslets and docks of one test.
type Cluster struct {
	T     testing.TB
	S     *Suite
	Dir   string
	Lets  []*Let
	Docks []*Dock
	// LetConfig and DockConfig stand under the configuration of each process
	// that is added after they were set.
	LetConfig, DockConfig Config
}

// Quick is a configuration of osdslet with short times, for tests in which much
// dies and comes back.
var quick = Config{
	"registry.beat": "250ms", "registry.lost": "2s",
	"controller.leaseTTL": "2s", "controller.debt": "4s", "controller.dockGrace": "5s",
}

// Quick gives a configuration of osdslet with short times, for tests in which
// much dies and comes back.
func Quick() Config { return quick.With(nil) }

// NewCluster makes an empty cluster. Its processes end with the test; what they
// leave behind, loop devices and mounts, is then an error of the test.
func (s *Suite) NewCluster(t testing.TB) *Cluster {
	t.Helper()
	c := &Cluster{T: t, S: s, Dir: s.Dir(t)}
	t.Cleanup(func() { c.leftovers(c.Dir) })
	return c
}

// Let is one osdslet.
type Let struct {
	*Process
	c *Cluster
	// API and Registry are its addresses, host:port.
	API, Registry string
	// Scheme is http or https.
	Scheme string
	File   string
	Conf   Config

	checked string
}

// AddLet makes an osdslet, with an etcd inside unless conf says otherwise, and
// does not start it. Without certificates in conf it is insecure, on loopback.
func (c *Cluster) AddLet(conf Config) *Let {
	c.T.Helper()
	name := fmt.Sprintf("osdslet%d", len(c.Lets)+1)
	l := &Let{c: c, API: Port(c.T), Registry: Port(c.T), Scheme: "http"}
	base := Config{
		"dataDir": filepath.Join(c.Dir, name), "api.listen": l.API, "registry.listen": l.Registry,
		"log.level": "debug",
	}
	all := base.With(c.LetConfig).With(conf)
	if _, ok := all["tls.ca"]; !ok {
		all = all.With(Config{"insecureLoopback": true})
	}
	if _, ok := all["api.cert"]; ok {
		l.Scheme = "https"
	}
	l.File = filepath.Join(c.Dir, name+".yaml")
	l.Conf = all
	all.write(c.T, l.File)
	l.Process = c.S.newProcess(c.T, name, c.Dir, c.S.Let, "--config", l.File)
	c.Lets = append(c.Lets, l)
	return l
}

// URL is where the API is.
func (l *Let) URL() string { return l.Scheme + "://" + l.API }

// Dock is one osdsdock.
type Dock struct {
	*Process
	c *Cluster
	// Listen is the address of its service, Admin that of its health.
	Listen, Admin string
	// StateDir is its directory.
	StateDir string
	File     string
	// Proxy, if the dock's configuration asked for it, stands before the dock.
	Proxy *Proxy
}

// ViaProxy is a key in a dock's configuration that is for AddDock alone: osdslets
// reach the dock through a proxy.
const ViaProxy = "(via proxy)"

// Backend is one backend of a dock.
type Backend struct {
	Name, Driver string
	// Config is the driver's YAML; empty is none.
	Config string
}

// Sample is a backend with one simulated pool of a size in GB.
func Sample(name string, gb int) Backend {
	return Backend{Name: name, Driver: "sample", Config: fmt.Sprintf("pool:\n  %s-pool:\n    capacity: %dGiB\n    multiAttach: true\n", name, gb)}
}

// Local is a backend with one pool of sparse files below the cluster's directory.
func (c *Cluster) Local(name string, gb int) Backend {
	return Backend{Name: name, Driver: "local", Config: fmt.Sprintf(
		"pool:\n  %s-pool:\n    path: %s\n    capacity: %dGiB\n    overProvisioningRatio: 4\n", name, filepath.Join(c.Dir, name), gb)}
}

// AddDock makes a dock that registers with every osdslet there is so far, and
// does not start it.
func (c *Cluster) AddDock(conf Config, backends ...Backend) *Dock {
	c.T.Helper()
	name := fmt.Sprintf("osdsdock%d", len(c.Docks)+1)
	d := &Dock{c: c, Listen: Port(c.T), Admin: Port(c.T), StateDir: filepath.Join(c.Dir, name)}
	var lets []string
	for _, l := range c.Lets {
		lets = append(lets, l.Registry)
	}
	list := []map[string]any{}
	for _, b := range backends {
		e := map[string]any{"name": b.Name, "driver": b.Driver}
		if b.Config != "" {
			e["config"] = WriteFile(c.T, filepath.Join(c.Dir, name+"-"+b.Name+".yaml"), []byte(b.Config))
		}
		list = append(list, e)
	}
	if _, ok := conf[ViaProxy]; ok {
		d.Proxy = NewProxy(c.T, d.Listen)
		conf = conf.With(Config{ViaProxy: nil, "advertise": d.Proxy.Addr})
	}
	base := Config{
		"name": name, "listen": d.Listen, "admin.listen": d.Admin, "osdslets": lets, "stateDir": d.StateDir,
		"backends": list, "log.level": "debug", "limits.shutdown": "10s",
	}
	all := base.With(c.DockConfig).With(conf)
	if _, ok := all["tls.ca"]; !ok {
		all = all.With(Config{"insecureLoopback": true})
	}
	d.File = filepath.Join(c.Dir, name+".yaml")
	all.write(c.T, d.File)
	d.Process = c.S.newProcess(c.T, name, c.Dir, c.S.Dock, "--config", d.File)
	c.Docks = append(c.Docks, d)
	return d
}

// AddAttacher makes a dock that only attaches for this machine, and does not start
// it.
func (c *Cluster) AddAttacher(conf Config) *Dock {
	c.T.Helper()
	return c.AddDock(Config{"type": "attacher"}.With(conf))
}

// Start starts every process and waits until all are ready: osdslets with a
// leader, docks with their backends and all pools available.
func (c *Cluster) Start() {
	c.T.Helper()
	for _, l := range c.Lets {
		c.Must(l.Start())
		l.WaitReady()
	}
	for _, d := range c.Docks {
		c.Must(d.Start())
	}
	for _, d := range c.Docks {
		d.WaitReady()
	}
}

// Must fails the test if there is an error.
func (c *Cluster) Must(err error) {
	c.T.Helper()
	if err != nil {
		c.T.Fatal(err)
	}
}

// Stop stops every process that runs, docks first, and fails the test if one
// does not end well.
func (c *Cluster) Stop() {
	c.T.Helper()
	for _, d := range c.Docks {
		if d.Alive() {
			c.Must(d.Stop())
		}
	}
	for _, l := range c.Lets {
		if l.Alive() {
			c.Must(l.Stop())
		}
	}
}

// WaitReady waits until the osdslet's /readyz says so.
func (l *Let) WaitReady() {
	l.c.T.Helper()
	l.c.Until(Limit, l.Name+" is ready", func() error { return l.Ready() })
}

// Ready asks once; the error says what is missing.
func (l *Let) Ready() error { return l.c.ready(l.URL()+"/readyz", l.Process) }

// Leader asks the osdslet who leads, and gives the leader's API address and its
// epoch; "" if it knows of none or does not answer.
func (l *Let) Leader() (address string, epoch int64) {
	body, err := l.c.get(l.URL() + "/readyz")
	if err != nil {
		return "", 0
	}
	var r struct {
		Checks []struct {
			Name, Detail string
			OK           bool
		}
	}
	if json.Unmarshal(body, &r) != nil {
		return "", 0
	}
	for _, c := range r.Checks {
		if c.Name != "leader" || !c.OK {
			continue
		}
		_, rest, _ := strings.Cut(c.Detail, " at ")
		if n, _ := fmt.Sscanf(strings.Replace(rest, ", epoch ", " ", 1), "%s %d", &address, &epoch); n == 2 {
			return address, epoch
		}
	}
	return "", 0
}

// WaitReady waits until the dock's /readyz says so: a backend is in service, and
// an osdslet has welcomed it.
func (d *Dock) WaitReady() {
	d.c.T.Helper()
	d.c.Until(Limit, d.Name+" is ready", func() error { return d.c.ready("http://"+d.Admin+"/readyz", d.Process) })
}

// Metrics gives the dock's page of metrics.
func (d *Dock) Metrics() (string, error) {
	b, err := d.c.get("http://" + d.Admin + "/metrics")
	return string(b), err
}

// errEnded ends a wait early: it cannot come true any more.
type errEnded struct{ error }

func (c *Cluster) ready(url string, p *Process) error {
	if !p.Alive() {
		return errEnded{fmt.Errorf("%s has ended", p.Name)}
	}
	_, err := c.get(url)
	return err
}

// get asks one of the processes for its health; an answer other than 200 is an
// error, and comes with its body.
func (c *Cluster) get(url string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	resp, err := c.S.plain.Do(r)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, 8<<20))
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", resp.Status, b)
	}
	return b, err
}

// Until polls until f gives nil, and fails the test after a limit with f's last
// error.
func (c *Cluster) Until(limit time.Duration, what string, f func() error) {
	c.T.Helper()
	if err := Poll(limit, f); err != nil {
		c.T.Fatalf("not within %s: %s: %v", limit, what, err)
	}
}

// Poll calls f until it gives nil, for at most limit, and gives its last error.
func Poll(limit time.Duration, f func() error) error {
	deadline := time.Now().Add(limit)
	pause := 10 * time.Millisecond
	for {
		err := f()
		if err == nil {
			return nil
		}
		if _, ended := err.(errEnded); ended || time.Now().After(deadline) {
			return err
		}
		time.Sleep(pause)
		pause = min(pause*5/4, 200*time.Millisecond)
	}
}

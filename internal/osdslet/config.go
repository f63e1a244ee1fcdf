// Package osdslet is the daemon of the same name: the REST API, the registry of
// docks and the controllers in one process. cmd/osdslet only calls it; tests run
// it in their own process where they do not need to kill it.
package osdslet

import (
	"net"
	"time"

	"github.com/osds-io/osds/internal/obs"
	"github.com/osds-io/osds/internal/tlsconf"
	"github.com/osds-io/osds/pkg/controller/steps"
	"github.com/osds-io/osds/pkg/model"
)

// Config is the configuration of osdslet.
type Config struct {
	DataDir string `yaml:"dataDir" doc:"Directory of the embedded etcd and of this process's identity. It must survive restarts and belongs to one osdslet alone."`

	API      APIConfig      `yaml:"api"`
	Registry RegistryConfig `yaml:"registry"`
	Etcd     EtcdConfig     `yaml:"etcd"`

	TLS              tlsconf.Files `yaml:"tls"`
	InsecureLoopback bool          `yaml:"insecureLoopback" doc:"Talk to docks without certificates, on loopback addresses only; for trying osds on one machine."`

	Controller ControllerConfig `yaml:"controller"`
	Log        obs.LogConfig    `yaml:"log"`
}

// APIConfig is the REST endpoint.
type APIConfig struct {
	Listen         string        `yaml:"listen" doc:"Where the REST API is served, host:port."`
	Cert           string        `yaml:"cert" doc:"Certificate (PEM) to serve HTTPS with; empty is HTTP."`
	Key            string        `yaml:"key" doc:"Private key of cert (PEM)."`
	Strict         bool          `yaml:"strict" doc:"Refuse request bodies with unknown fields instead of ignoring them."`
	MaxBody        model.Bytes   `yaml:"maxBody" doc:"The largest request body."`
	RequestTimeout time.Duration `yaml:"requestTimeout" doc:"How long a request may take."`
}

// RegistryConfig is where docks register.
type RegistryConfig struct {
	Listen string        `yaml:"listen" doc:"Where docks register and beat, host:port."`
	Beat   time.Duration `yaml:"beat" doc:"How often docks beat."`
	Lost   time.Duration `yaml:"lost" doc:"How long after its last beat a dock is taken for gone."`
}

// EtcdConfig says where the store is.
type EtcdConfig struct {
	Endpoints []string       `yaml:"endpoints" doc:"URLs of an external etcd; empty runs one inside osdslet."`
	Username  string         `yaml:"username" doc:"User of an external etcd."`
	Password  model.Secret   `yaml:"password" doc:"Password of that user."`
	TLS       EtcdTLS        `yaml:"tls"`
	Prefix    string         `yaml:"prefix" doc:"What every key begins with."`
	Embedded  EmbeddedConfig `yaml:"embedded"`
}

// EtcdTLS is the TLS of the connection to an external etcd.
type EtcdTLS struct {
	CA   string `yaml:"ca" doc:"Authority of etcd's certificates (PEM)."`
	Cert string `yaml:"cert" doc:"Client certificate (PEM), where etcd asks for one."`
	Key  string `yaml:"key" doc:"Private key of cert (PEM)."`
}

// EmbeddedConfig is the etcd inside osdslet.
type EmbeddedConfig struct {
	ListenClient string      `yaml:"listenClient" doc:"URL for other clients, such as a second osdslet; empty is a socket in dataDir that only this user can reach. Clients at a TCP address are not asked for credentials: use an external etcd where others share the network."`
	Quota        model.Bytes `yaml:"quota" doc:"The largest size of the database."`
}

// ControllerConfig bounds the controllers' work.
type ControllerConfig struct {
	LeaseTTL  time.Duration `yaml:"leaseTTL" doc:"How long a leader that died holds up the next one."`
	Create    time.Duration `yaml:"create" doc:"How long a create is tried before it is undone and ends in error. Time during which long work (clearing, copying) advances does not count."`
	Place     time.Duration `yaml:"place" doc:"How long a create waits for a pool whose dock is away, if no other pool fits."`
	Debt      time.Duration `yaml:"debt" doc:"How long a removal waits for a dock that is gone before it is owed instead."`
	Call      time.Duration `yaml:"call" doc:"Deadline of a short call to a dock."`
	LongCall  time.Duration `yaml:"longCall" doc:"Deadline of a call that may copy data (clone, snapshot, revert)."`
	PerDock   int           `yaml:"perDock" doc:"How many tasks work on one dock at a time."`
	Attempts  int           `yaml:"attempts" doc:"How often a step may fail for an unclear reason before it is given up."`
	DockGrace time.Duration `yaml:"dockGrace" doc:"How long after a change of leader docks may take to come before they are called unavailable."`
}

// DefaultConfig holds the defaults.
func DefaultConfig() Config {
	l := steps.DefaultLimits()
	return Config{
		DataDir:  "/var/lib/osds/osdslet",
		API:      APIConfig{Listen: "127.0.0.1:50040", MaxBody: model.MiB, RequestTimeout: 30 * time.Second},
		Registry: RegistryConfig{Listen: "127.0.0.1:50049", Beat: 3 * time.Second, Lost: 12 * time.Second},
		Etcd:     EtcdConfig{Prefix: "/osds/v1/", Embedded: EmbeddedConfig{Quota: 8 * model.GiB}},
		Controller: ControllerConfig{
			LeaseTTL: 5 * time.Second, Create: l.Create, Place: l.Place, Debt: l.Debt, Call: l.Call, LongCall: l.LongCall,
			PerDock: l.PerDock, Attempts: l.Attempts, DockGrace: 12 * time.Second,
		},
		Log: obs.DefaultLog(),
	}
}

// Validate checks everything that can be checked without opening anything.
func (c *Config) Validate() error {
	if c.DataDir == "" {
		return model.Invalid("dataDir", "must be set")
	}
	for key, addr := range map[string]string{"api.listen": c.API.Listen, "registry.listen": c.Registry.Listen} {
		if _, _, err := net.SplitHostPort(addr); err != nil {
			return model.Invalid(key, "%q is not host:port", addr)
		}
	}
	switch {
	case c.TLS.Set() && c.InsecureLoopback:
		return model.Invalid("insecureLoopback", "is set together with tls; remove one of them")
	case !c.TLS.Set() && !c.InsecureLoopback:
		return model.Invalid("tls", "ca, cert and key must be set (osdsctl certs makes them); or set insecureLoopback to work without, on this machine alone")
	case c.InsecureLoopback && !tlsconf.IsLoopback(c.Registry.Listen):
		return model.Invalid("registry.listen", "%s is not a loopback address, which is needed without tls", c.Registry.Listen)
	case (c.API.Cert == "") != (c.API.Key == ""):
		return model.Invalid("api.cert", "api.cert and api.key are needed together")
	case (c.Etcd.TLS.Cert == "") != (c.Etcd.TLS.Key == ""):
		return model.Invalid("etcd.tls.cert", "etcd.tls.cert and etcd.tls.key are needed together")
	case c.Registry.Beat < 100*time.Millisecond || c.Registry.Lost < 2*c.Registry.Beat:
		return model.Invalid("registry.lost", "must be at least twice registry.beat, and that at least 100ms")
	case c.API.MaxBody < 4*model.KiB || c.API.MaxBody > 64*model.MiB:
		return model.Invalid("api.maxBody", "must be from 4 KiB to 64 MiB")
	case c.API.RequestTimeout < time.Second:
		return model.Invalid("api.requestTimeout", "must be at least 1s")
	case c.Controller.LeaseTTL < time.Second || c.Controller.LeaseTTL > time.Minute:
		return model.Invalid("controller.leaseTTL", "must be from 1s to 1m")
	case c.Controller.PerDock < 1 || c.Controller.PerDock > 4096:
		return model.Invalid("controller.perDock", "must be from 1 to 4096")
	case c.Controller.Attempts < 1:
		return model.Invalid("controller.attempts", "must be at least 1")
	case c.Controller.Call < time.Second || c.Controller.LongCall < c.Controller.Call:
		return model.Invalid("controller.call", "must be at least 1s, and controller.longCall no less")
	case c.Controller.Create <= 0 || c.Controller.Debt <= 0 || c.Controller.Place < 0:
		return model.Invalid("controller.create", "controller.create and controller.debt must be positive, and controller.place not negative")
	}
	return nil
}

// CheckFiles reads the certificates that the configuration names, and says what
// is wrong with them. They are read again at the start.
func (c *Config) CheckFiles() error {
	if _, _, err := c.certificates(); err != nil {
		return err
	}
	_, err := etcdTLS(c.Etcd.TLS)
	return err
}

// certificates loads what osdslet shows to docks and to clients of the REST API,
// each nil if there is none.
func (c *Config) certificates() (docks, web *tlsconf.Identity, err error) {
	if c.TLS.Set() {
		if docks, err = tlsconf.Load(c.TLS, tlsconf.RoleLet); err != nil {
			return nil, nil, err
		}
	}
	if c.API.Cert != "" {
		// Clients show no certificate, so the authority is of no use here.
		web, err = tlsconf.Load(tlsconf.Files{CA: c.API.Cert, Cert: c.API.Cert, Key: c.API.Key}, tlsconf.RoleNone)
		if err != nil {
			return nil, nil, model.Invalid("api.cert", "api.cert: %v", err)
		}
	}
	return docks, web, nil
}

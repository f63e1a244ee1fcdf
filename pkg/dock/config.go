package dock

import (
	"fmt"
	"net"
	"os"
	"sort"
	"strings"
	"time"

	"github.com/osds-io/osds/internal/conf"
	"github.com/osds-io/osds/internal/obs"
	"github.com/osds-io/osds/internal/tlsconf"
	"github.com/osds-io/osds/pkg/dock/connector"
	"github.com/osds-io/osds/pkg/drivers"
	"github.com/osds-io/osds/pkg/model"
)

// Config is the configuration of a dock.
type Config struct {
	Name             string            `yaml:"name" doc:"The dock's name in lists; empty is the host name."`
	Type             string            `yaml:"type" doc:"What the dock does: provisioner drives backends, and attaches for its host too if connector.enabled says so; attacher only attaches, and has no backends." oneof:"provisioner,attacher"`
	Listen           string            `yaml:"listen" doc:"Where osdslet's calls are answered, host:port."`
	Advertise        string            `yaml:"advertise" doc:"Where osdslet reaches this dock, host:port; empty is listen, which must then name one address."`
	Osdslets         []string          `yaml:"osdslets" doc:"The registration endpoints of every osdslet, host:port each; the dock keeps a session with all of them."`
	StateDir         string            `yaml:"stateDir" doc:"Directory for the dock's id, its cluster and its fence. It must survive restarts and belongs to one dock alone."`
	TLS              tlsconf.Files     `yaml:"tls"`
	InsecureLoopback bool              `yaml:"insecureLoopback" doc:"Work without certificates, on loopback addresses only; for trying osds on one machine."`
	Backends         []BackendConfig   `yaml:"backends" doc:"What the dock drives."`
	Connector        connector.Config  `yaml:"connector"`
	Limits           Limits            `yaml:"limits"`
	Metadata         map[string]string `yaml:"metadata" doc:"Free words that are shown with the dock."`
	Log              obs.LogConfig     `yaml:"log"`
	Admin            AdminConfig       `yaml:"admin"`
}

// BackendConfig is one backend.
type BackendConfig struct {
	Name   string `yaml:"name" doc:"The backend's name on this dock. Volumes are bound to it: it must not change."`
	Driver string `yaml:"driver" doc:"The driver that serves it."`
	Config string `yaml:"config" doc:"Path of the driver's own YAML file."`
}

// Limits bound what the dock takes on.
type Limits struct {
	CallsPerBackend int           `yaml:"callsPerBackend" doc:"How many calls a backend's driver, or the connector, is given at once."`
	ExportReserve   int           `yaml:"exportReserve" doc:"Further calls per backend, and for the connector, that only exports and their removal may use, and detaching, so that attaching does not wait behind creates."`
	MaxCalls        int           `yaml:"maxCalls" doc:"How many calls may be in progress or waiting in the whole dock; more are refused as unavailable."`
	DefaultDeadline time.Duration `yaml:"defaultDeadline" doc:"The deadline of a call that brings none."`
	Shutdown        time.Duration `yaml:"shutdown" doc:"How long calls in progress may take to end when the dock is stopped."`
}

// AdminConfig is the admin endpoint.
type AdminConfig struct {
	Listen string `yaml:"listen" doc:"Where /healthz, /readyz and /metrics are served, host:port; empty is nowhere."`
}

// DefaultConfig holds the defaults.
func DefaultConfig() Config {
	return Config{
		Type:      model.DockProvisioner,
		Listen:    "127.0.0.1:50050",
		Osdslets:  []string{"127.0.0.1:50049"},
		StateDir:  "/var/lib/osds/dock",
		Connector: connector.DefaultConfig(),
		Limits: Limits{
			CallsPerBackend: 32, ExportReserve: 4, MaxCalls: 2048,
			DefaultDeadline: time.Minute, Shutdown: 30 * time.Second,
		},
		Log:   obs.DefaultLog(),
		Admin: AdminConfig{Listen: "127.0.0.1:50051"},
	}
}

// maxBackends bounds one dock's backends.
const maxBackends = 64

// Validate checks everything that can be checked without opening anything.
func (c *Config) Validate() error {
	if c.Type != model.DockProvisioner && c.Type != model.DockAttacher {
		return model.Invalid("type", "%q is unknown, use provisioner or attacher", c.Type)
	}
	if _, _, err := splitAddr("listen", c.Listen); err != nil {
		return err
	}
	if c.Advertise != "" {
		if err := reachable("advertise", c.Advertise); err != nil {
			return err
		}
	} else if host, _, _ := splitAddr("listen", c.Listen); unspecified(host) {
		return model.Invalid("advertise", "must be set, because listen (%s) names no address that osdslet could dial", c.Listen)
	}
	if len(c.Osdslets) == 0 {
		return model.Invalid("osdslets", "must name at least one osdslet, such as 127.0.0.1:50049")
	}
	seen := map[string]bool{}
	for i, ep := range c.Osdslets {
		key := fmt.Sprintf("osdslets[%d]", i)
		if err := reachable(key, ep); err != nil {
			return err
		}
		if seen[ep] {
			return model.Invalid(key, "%s is given twice", ep)
		}
		seen[ep] = true
	}
	if c.StateDir == "" {
		return model.Invalid("stateDir", "must be set")
	}
	if err := c.validateSecurity(); err != nil {
		return err
	}
	if err := c.Connector.Validate(); err != nil {
		return err
	}
	return c.validateBackends()
}

func (c *Config) validateSecurity() error {
	if c.TLS.Set() {
		if c.InsecureLoopback {
			return model.Invalid("insecureLoopback", "is set together with tls; remove one of them")
		}
		return nil
	}
	if !c.InsecureLoopback {
		return model.Invalid("tls", "ca, cert and key must be set (osdsctl certs makes them); or set insecureLoopback to work without, on this machine alone")
	}
	for key, addr := range map[string]string{"listen": c.Listen, "advertise": c.Advertise} {
		if addr != "" && !tlsconf.IsLoopback(addr) {
			return model.Invalid(key, "%s is not a loopback address, which is needed without tls", addr)
		}
	}
	for i, addr := range c.Osdslets {
		if !tlsconf.IsLoopback(addr) {
			return model.Invalid(fmt.Sprintf("osdslets[%d]", i), "%s is not a loopback address, which is needed without tls", addr)
		}
	}
	return nil
}

func (c *Config) validateBackends() error {
	switch {
	case c.Type == model.DockAttacher && len(c.Backends) > 0:
		return model.Invalid("backends", "an attacher has no backends; remove them, or use type provisioner with connector.enabled")
	case c.Type != model.DockAttacher && len(c.Backends) == 0:
		return model.Invalid("backends", "must name at least one backend; only a dock of type attacher has none")
	}
	if len(c.Backends) > maxBackends {
		return model.Invalid("backends", "%d are too many, at most %d", len(c.Backends), maxBackends)
	}
	names := map[string]bool{}
	for i, b := range c.Backends {
		key := fmt.Sprintf("backends[%d]", i)
		if !model.ValidID(b.Name) {
			return model.Invalid(key+".name", "%q must be of letters, digits, '.', '_' and '-'", b.Name)
		}
		if names[b.Name] {
			return model.Invalid(key+".name", "%q is given twice", b.Name)
		}
		names[b.Name] = true
		if b.Driver == "" {
			return model.Invalid(key+".driver", "must be set")
		}
	}
	for key, v := range map[string]int{"callsPerBackend": c.Limits.CallsPerBackend, "exportReserve": c.Limits.ExportReserve, "maxCalls": c.Limits.MaxCalls} {
		if v < 1 || v > 1<<16 {
			return model.Invalid("limits."+key, "is %d, must be from 1 to %d", v, 1<<16)
		}
	}
	if c.Limits.DefaultDeadline < time.Second {
		return model.Invalid("limits.defaultDeadline", "is %v, must be at least 1s", c.Limits.DefaultDeadline)
	}
	if c.Limits.Shutdown < 0 {
		return model.Invalid("limits.shutdown", "is %v, must not be negative", c.Limits.Shutdown)
	}
	return nil
}

// ValidateDrivers refuses drivers that are not linked, naming those that are.
func (c *Config) ValidateDrivers(reg map[string]drivers.Factory) error {
	known := make([]string, 0, len(reg))
	for name := range reg {
		known = append(known, name)
	}
	sort.Strings(known)
	for i, b := range c.Backends {
		if reg[b.Driver] != nil {
			continue
		}
		hint := ""
		if n := conf.Nearest(b.Driver, known); n != "" {
			hint = fmt.Sprintf("; did you mean %q?", n)
		}
		return model.Invalid(fmt.Sprintf("backends[%d].driver", i), "backends[%d].driver: there is no driver %q, there are: %s%s",
			i, b.Driver, strings.Join(known, ", "), hint)
	}
	return nil
}

// attaches says whether the dock attaches for its host.
func (c *Config) attaches() bool { return c.Type == model.DockAttacher || c.Connector.Enabled }

// name is the dock's name.
func (c *Config) name() string {
	if c.Name != "" {
		return c.Name
	}
	return hostname()
}

func hostname() string {
	h, err := os.Hostname()
	if err != nil || h == "" {
		return "unknown"
	}
	return h
}

func splitAddr(key, addr string) (host, port string, err error) {
	host, port, serr := net.SplitHostPort(addr)
	if serr != nil || port == "" {
		return "", "", model.Invalid(key, "%q must be host:port, such as 10.0.0.5:50050", addr)
	}
	return host, port, nil
}

// reachable refuses an address that nobody can dial.
func reachable(key, addr string) error {
	host, port, err := splitAddr(key, addr)
	if err != nil {
		return err
	}
	if unspecified(host) || port == "0" {
		return model.Invalid(key, "%q is no address that can be dialled; name a host and a port", addr)
	}
	return nil
}

func unspecified(host string) bool {
	ip := net.ParseIP(host)
	return host == "" || ip != nil && ip.IsUnspecified()
}

package connector

import (
	"net"
	"path/filepath"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/osds-io/osds/pkg/model"
)

// What to do about several paths to one device (Config.Multipath).
const (
	// MultipathAuto wants a multipath device for a connection with several
	// portals, and takes the plain device where there is one.
	MultipathAuto = "auto"
	// MultipathAlways wants a multipath device over iSCSI even for one portal.
	MultipathAlways = "always"
	// MultipathSingle uses one portal only, the first that answers.
	MultipathSingle = "single"
)

// How images of Ceph become devices (Config.RBD).
const (
	RBDAuto   = "auto"
	RBDKernel = "kernel"
	RBDNBD    = "nbd"
	RBDFuse   = "fuse"
)

// Config is what a Connector is made from, and the part of a dock's
// configuration that says how it attaches. A value of 0 is the default's.
type Config struct {
	Enabled            bool          `yaml:"enabled" doc:"Attach volumes for this host: make the devices of its attachments here, and take them away. A dock of type attacher always does. Needs root, and open-iscsi for iSCSI or the kernel's nvme-tcp for NVMe."`
	StateDir           string        `yaml:"stateDir" doc:"Directory for the notes of what is attached; empty is connector below the dock's stateDir. It must survive restarts and belongs to one dock alone."`
	Multipath          string        `yaml:"multipath" oneof:"auto,always,single" doc:"auto: a multipath device for connections with several portals (over iSCSI this needs a running multipathd); always: over iSCSI also for one portal; single: use one portal only, and survive no path's failure."`
	LoginTimeout       time.Duration `yaml:"loginTimeout" doc:"How long one attempt to log in to an iSCSI portal may take."`
	ReplacementTimeout time.Duration `yaml:"replacementTimeout" doc:"How long I/O waits for a lost iSCSI session to come back before it fails, where there is one path."`
	PathTimeout        time.Duration `yaml:"pathTimeout" doc:"The same where there are several paths: after it, I/O goes to another path. How long it waits without any path is multipathd's no_path_retry."`
	CtrlLossTimeout    time.Duration `yaml:"ctrlLossTimeout" doc:"How long the kernel tries to reconnect a lost NVMe controller, and I/O waits if it was the last."`
	ReconnectDelay     time.Duration `yaml:"reconnectDelay" doc:"The pause between these attempts."`
	KeepAlive          time.Duration `yaml:"keepAlive" doc:"The keep-alive timeout of NVMe controllers: a path that is silent for that long is lost."`
	RBD                string        `yaml:"rbd" oneof:"auto,kernel,nbd,fuse" doc:"How images of Ceph become devices: kernel (its rbd driver), nbd (rbd-nbd), or fuse (rbd-fuse and a loop device); auto takes the first of them that works here. Volumes that are attached stay as they are."`
	CephDir            string        `yaml:"cephDir" doc:"Where this host's Ceph keyrings are, ceph.client.USER.keyring or ceph.keyring: exports bring no keys."`
	RBDAddresses       []string      `yaml:"rbdAddresses" doc:"The addresses by which Ceph sees this host, if they are not those of its interfaces (behind a NAT) or not all of them are to count. A client is cut off by its address."`
	RepairInterval     time.Duration `yaml:"repairInterval" doc:"How often portals that could not be reached when a volume was attached are tried again."`

	// Log may be nil.
	Log *logrus.Entry `yaml:"-"`
}

// DefaultConfig holds the defaults.
func DefaultConfig() Config {
	return Config{
		Multipath:          MultipathAuto,
		LoginTimeout:       5 * time.Second,
		ReplacementTimeout: 2 * time.Minute,
		PathTimeout:        5 * time.Second,
		CtrlLossTimeout:    10 * time.Minute,
		ReconnectDelay:     2 * time.Second,
		KeepAlive:          5 * time.Second,
		RBD:                RBDAuto,
		CephDir:            "/etc/ceph",
		RepairInterval:     30 * time.Second,
	}
}

// Validate checks everything that can be checked without opening anything.
func (c *Config) Validate() error {
	switch c.Multipath {
	case "", MultipathAuto, MultipathAlways, MultipathSingle:
	default:
		return model.Invalid("connector.multipath", "%q is unknown, use auto, always or single", c.Multipath)
	}
	switch c.RBD {
	case "", RBDAuto, RBDKernel, RBDNBD, RBDFuse:
	default:
		return model.Invalid("connector.rbd", "%q is unknown, use auto, kernel, nbd or fuse", c.RBD)
	}
	if c.StateDir != "" && !filepath.IsAbs(c.StateDir) {
		return model.Invalid("connector.stateDir", "%q must be an absolute path", c.StateDir)
	}
	if c.CephDir != "" && !filepath.IsAbs(c.CephDir) {
		return model.Invalid("connector.cephDir", "%q must be an absolute path", c.CephDir)
	}
	if len(c.RBDAddresses) > maxAddresses {
		return model.Invalid("connector.rbdAddresses", "has %d addresses, at most %d count", len(c.RBDAddresses), maxAddresses)
	}
	for _, a := range c.RBDAddresses {
		if ip := net.ParseIP(a); ip == nil || ip.IsUnspecified() {
			return model.Invalid("connector.rbdAddresses", "%q is not an address, such as 10.0.0.5", a)
		}
	}
	for _, d := range []struct {
		key      string
		v        time.Duration
		min, max time.Duration
	}{
		{"loginTimeout", c.LoginTimeout, time.Second, 5 * time.Minute},
		{"replacementTimeout", c.ReplacementTimeout, time.Second, 24 * time.Hour},
		{"pathTimeout", c.PathTimeout, time.Second, time.Hour},
		{"ctrlLossTimeout", c.CtrlLossTimeout, time.Second, 24 * time.Hour},
		{"reconnectDelay", c.ReconnectDelay, time.Second, time.Hour},
		{"keepAlive", c.KeepAlive, time.Second, time.Hour},
		{"repairInterval", c.RepairInterval, time.Second, 24 * time.Hour},
	} {
		if d.v != 0 && (d.v < d.min || d.v > d.max) {
			return model.Invalid("connector."+d.key, "is %v, must be from %v to %v", d.v, d.min, d.max)
		}
		if d.v%time.Second != 0 {
			return model.Invalid("connector."+d.key, "is %v, must be whole seconds", d.v)
		}
	}
	return nil
}

// withDefaults fills what is not set.
func (c Config) withDefaults() Config {
	d := DefaultConfig()
	if c.Multipath == "" {
		c.Multipath = d.Multipath
	}
	if c.RBD == "" {
		c.RBD = d.RBD
	}
	if c.CephDir == "" {
		c.CephDir = d.CephDir
	}
	for _, x := range []struct{ v, def *time.Duration }{
		{&c.LoginTimeout, &d.LoginTimeout}, {&c.ReplacementTimeout, &d.ReplacementTimeout},
		{&c.PathTimeout, &d.PathTimeout}, {&c.CtrlLossTimeout, &d.CtrlLossTimeout},
		{&c.ReconnectDelay, &d.ReconnectDelay}, {&c.KeepAlive, &d.KeepAlive},
		{&c.RepairInterval, &d.RepairInterval},
	} {
		if *x.v == 0 {
			*x.v = *x.def
		}
	}
	if c.Log == nil {
		c.Log = logrus.NewEntry(logrus.StandardLogger())
	}
	return c
}

func seconds(d time.Duration) int { return int(d / time.Second) }

package ceph

import (
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"time"

	"github.com/osds-io/osds/internal/conf"
	"github.com/osds-io/osds/pkg/drivers"
	"github.com/osds-io/osds/pkg/model"
)

// protocol is the access protocol: hosts are clients of the cluster themselves.
const protocol = "rbd"

// config is the driver's YAML.
type config struct {
	ConfigFile  string `yaml:"configFile" doc:"The cluster's configuration file."`
	ClusterName string `yaml:"clusterName" doc:"The cluster's name, as hosts know it."`
	User        string `yaml:"user" doc:"The cephx user of the dock, without client."`
	Keyring     string `yaml:"keyring" doc:"The user's keyring; where the configuration file says if left out."`
	HostUser    string `yaml:"hostUser" doc:"The cephx user that hosts are told to use; the dock's if left out."`
	// The limits of one step; a call's own deadline may be earlier.
	ConnectTimeout time.Duration `yaml:"connectTimeout" doc:"How long connecting may take."`
	OpTimeout      time.Duration `yaml:"opTimeout" doc:"How long one request to a monitor or an OSD may take."`

	TrashDelay    time.Duration `yaml:"trashDelay" doc:"How long a deleted volume stays in the trash."`
	MaxCloneDepth int           `yaml:"maxCloneDepth" doc:"How many parents a clone may have before it is flattened at once."`
	BlocklistTime time.Duration `yaml:"blocklistTime" doc:"How long the clients of a fenced host stay blocklisted."`

	Encryption encryptionConfig      `yaml:"encryption"`
	Pool       map[string]poolConfig `yaml:"pool" doc:"The pools, by name."`
}

type encryptionConfig struct {
	PassphraseFile string `yaml:"passphraseFile" doc:"A file with the passphrase of encrypted volumes."`
}

type poolConfig struct {
	drivers.PoolConfig
	DataPool              string   `yaml:"dataPool" doc:"A pool for the data alone, such as an erasure-coded one."`
	ImageFeatures         []string `yaml:"imageFeatures" doc:"The features of new images."`
	OverProvisioningRatio float64  `yaml:"overProvisioningRatio" doc:"How many times the capacity may be promised."`
}

// features are what imageFeatures may name, with librbd's bits.
var features = map[string]uint64{"layering": 1, "exclusive-lock": 4, "object-map": 8, "fast-diff": 16, "deep-flatten": 32}

// defaultFeatures are those of Ceph itself.
var defaultFeatures = []string{"layering", "exclusive-lock", "object-map", "fast-diff", "deep-flatten"}

func defaults() config {
	return config{
		ConfigFile: "/etc/ceph/ceph.conf", ClusterName: "ceph", User: "admin",
		ConnectTimeout: 10 * time.Second, OpTimeout: 30 * time.Second,
		TrashDelay: time.Hour, MaxCloneDepth: 5, BlocklistTime: 24 * time.Hour,
	}
}

// load reads the driver's YAML.
func load(path string) (config, error) {
	c := defaults()
	if path == "" {
		return c, model.Invalid("config", "the ceph driver needs a file that names its pools; see docs/drivers/ceph.md")
	}
	err := conf.Load(&c, conf.Options{Name: "ceph", File: path})
	return c, err
}

func parse(name string, data []byte) (config, error) {
	c := defaults()
	err := conf.Parse(&c, name, data)
	return c, err
}

// CheckConfig says what is wrong with the driver's YAML file at path, or that
// this program was built without the driver.
func CheckConfig(path string) error {
	if _, err := load(path); err != nil {
		return err
	}
	return builtIn()
}

// Validate checks the configuration and fills in defaults.
func (c *config) Validate() error {
	for _, f := range []struct {
		name string
		path *string
		need bool
	}{
		{"configFile", &c.ConfigFile, true}, {"keyring", &c.Keyring, false},
		{"encryption.passphraseFile", &c.Encryption.PassphraseFile, false},
	} {
		if *f.path == "" && !f.need {
			continue
		}
		if !filepath.IsAbs(*f.path) || strings.ContainsRune(*f.path, 0) {
			return model.Invalid(f.name, "must be an absolute path, not %q", *f.path)
		}
		*f.path = filepath.Clean(*f.path)
	}
	c.User, c.HostUser = strings.TrimPrefix(c.User, "client."), strings.TrimPrefix(c.HostUser, "client.")
	if c.HostUser == "" {
		c.HostUser = c.User
	}
	for _, f := range []struct{ name, value string }{{"clusterName", c.ClusterName}, {"user", c.User}, {"hostUser", c.HostUser}} {
		if !plainName(f.value) {
			return model.Invalid(f.name, "must be 1 to 64 letters, digits, '.', '_' and '-', not %q", f.value)
		}
	}
	for _, f := range []struct {
		name       string
		value      time.Duration
		least, max time.Duration
	}{
		{"connectTimeout", c.ConnectTimeout, time.Second, 5 * time.Minute},
		{"opTimeout", c.OpTimeout, time.Second, 10 * time.Minute},
		{"trashDelay", c.TrashDelay, 0, 365 * 24 * time.Hour},
		{"blocklistTime", c.BlocklistTime, time.Minute, 365 * 24 * time.Hour},
	} {
		if f.value < f.least || f.value > f.max || f.value%time.Second != 0 {
			return model.Invalid(f.name, "must be whole seconds from %v to %v, not %v", f.least, f.max, f.value)
		}
	}
	if c.MaxCloneDepth < 0 || c.MaxCloneDepth > 15 {
		return model.Invalid("maxCloneDepth", "must be from 0 to 15 (hosts refuse deeper images), not %d", c.MaxCloneDepth)
	}
	if len(c.Pool) == 0 {
		return model.Invalid("pool", "there must be at least one pool")
	}
	for _, name := range sortedNames(c.Pool) {
		if err := checkPoolName("pool", name); err != nil {
			return err
		}
		p := c.Pool[name]
		if err := p.check(c); err != nil {
			return drivers.Prefixed("pool."+name, err)
		}
		c.Pool[name] = p
	}
	return nil
}

// check checks a pool and fills in its defaults.
func (p *poolConfig) check(c *config) error {
	if err := p.PoolConfig.Check(); err != nil {
		return err
	}
	if err := drivers.CheckRatio(&p.OverProvisioningRatio); err != nil {
		return err
	}
	if p.DataPool != "" {
		if err := checkPoolName("dataPool", p.DataPool); err != nil {
			return err
		}
	}
	if len(p.ImageFeatures) == 0 {
		p.ImageFeatures = slices.Clone(defaultFeatures)
	}
	for i, f := range p.ImageFeatures {
		if features[f] == 0 {
			return model.Invalid("imageFeatures", "%q is no feature that can be chosen; they are %s", f, strings.Join(defaultFeatures, ", "))
		}
		if slices.Contains(p.ImageFeatures[:i], f) {
			return model.Invalid("imageFeatures", "%q is there twice", f)
		}
	}
	for _, dep := range []struct{ f, needs string }{{"object-map", "exclusive-lock"}, {"fast-diff", "object-map"}, {"layering", "layering"}} {
		if (dep.f == dep.needs || slices.Contains(p.ImageFeatures, dep.f)) && !slices.Contains(p.ImageFeatures, dep.needs) {
			return model.Invalid("imageFeatures", "must have %s too", dep.needs)
		}
	}
	x := &p.Extras
	switch pol := &x.DataStorage.ProvisioningPolicy; *pol {
	case "":
		*pol = drivers.ThinPolicy
	case drivers.ThickPolicy:
		return model.Invalid("extras.dataStorage.provisioningPolicy", "must be Thin: an RBD image takes space as it is written")
	}
	switch ap := &x.IOConnectivity.AccessProtocol; {
	case *ap == "":
		*ap = protocol
	case !strings.EqualFold(*ap, protocol):
		return model.Invalid("extras.ioConnectivity.accessProtocol", "must be %s, not %q", protocol, *ap)
	}
	if x.Advanced == nil {
		x.Advanced = map[string]any{}
	}
	if c.Encryption.PassphraseFile != "" {
		x.Advanced[encryptionKey] = luks2
	}
	return nil
}

// encryptionKey is what a profile asks for encryption with, in its
// customProperties, and what a pool says that it can by, in extras.advanced.
const (
	encryptionKey = "encryption"
	luks2         = "luks2"
)

// checkPoolName refuses what could be taken for something else where pools are
// named: "pool/image", "pool/image@snapshot".
func checkPoolName(field, name string) error {
	if err := drivers.CheckPoolName(name); err != nil {
		return err
	}
	if strings.ContainsAny(name, "/@") || strings.HasPrefix(name, ".") || strings.HasPrefix(name, "-") {
		return model.Invalid(field, "pool name %q must not have '/' or '@', nor begin with '.' or '-'", name)
	}
	return nil
}

func plainName(s string) bool {
	if s == "" || len(s) > 64 || s[0] == '-' || s[0] == '.' {
		return false
	}
	for _, r := range s {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', strings.ContainsRune("._-", r):
		default:
			return false
		}
	}
	return true
}

func sortedNames(m map[string]poolConfig) []string {
	names := make([]string, 0, len(m))
	for n := range m {
		names = append(names, n)
	}
	sort.Strings(names)
	return names
}

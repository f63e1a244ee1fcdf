package local

import (
	"path/filepath"
	"sort"
	"strings"

	"github.com/osds-io/osds/internal/conf"
	"github.com/osds-io/osds/pkg/drivers"
	"github.com/osds-io/osds/pkg/drivers/export"
	"github.com/osds-io/osds/pkg/model"
)

// config is the driver's YAML.
type config struct {
	Pool map[string]poolConfig `yaml:"pool" doc:"The pools, by name."`
	// HostNames are further names of this host, for hosts that are registered
	// under another one than the kernel's.
	HostNames []string `yaml:"hostNames" doc:"Further names of this host."`
	// Targets are for pools with the access protocols iscsi and nvmeof.
	export.Options
}

type poolConfig struct {
	drivers.PoolConfig
	Path                  string      `yaml:"path" doc:"The pool's directory; made if it is missing."`
	Capacity              model.Bytes `yaml:"capacity" doc:"An upper bound; the file system's if left out."`
	ProvisioningPolicy    string      `yaml:"provisioningPolicy" doc:"Thin or Thick; Thin if left out."`
	OverProvisioningRatio float64     `yaml:"overProvisioningRatio" doc:"How many times the capacity may be promised; thin pools only."`
}

// protocol is the access protocol of a pool that names none: a block device on
// the dock's own host.
const protocol = "local"

// load reads the driver's YAML. Without one there is a thin pool in the state
// directory, so that a first start needs no configuration.
func load(path, stateDir string) (config, error) {
	c := config{}
	if path == "" {
		c.Pool = map[string]poolConfig{"default": {Path: filepath.Join(stateDir, "default")}}
		return c, c.Validate()
	}
	err := conf.Load(&c, conf.Options{Name: "local", File: path})
	return c, err
}

// CheckConfig says what is wrong with the driver's YAML file at path.
func CheckConfig(path string) error {
	_, err := load(path, "")
	return err
}

func parse(name string, data []byte) (config, error) {
	var c config
	err := conf.Parse(&c, name, data)
	return c, err
}

// Validate checks the configuration and fills in defaults.
func (c *config) Validate() error {
	if len(c.Pool) == 0 {
		return model.Invalid("pool", "there must be at least one pool")
	}
	if err := c.Options.Validate(); err != nil {
		return err
	}
	paths := map[string]string{}
	for _, name := range sortedNames(c.Pool) {
		if err := drivers.CheckPoolName(name); err != nil {
			return err
		}
		p := c.Pool[name]
		if err := p.check(); err != nil {
			return drivers.Prefixed("pool."+name, err)
		}
		for other, owner := range paths {
			if within(p.Path, other) || within(other, p.Path) {
				return model.Invalid("pool."+name+".path", "%s overlaps with that of pool %s, %s", p.Path, owner, other)
			}
		}
		if p.Extras.IOConnectivity.AccessProtocol != protocol && len(c.Portals)+len(c.NVMePortals) == 0 && c.TgtBindIP == "" {
			return model.Invalid("portals", "pool %s is exported over %s: give the addresses of this host that targets listen on", name, p.Extras.IOConnectivity.AccessProtocol)
		}
		paths[p.Path] = name
		c.Pool[name] = p
	}
	return nil
}

// within says whether a path is another one or lies below it.
func within(path, above string) bool {
	return path == above || strings.HasPrefix(path, strings.TrimSuffix(above, "/")+"/")
}

// check checks a pool and fills in its defaults.
func (p *poolConfig) check() error {
	if err := p.PoolConfig.Check(); err != nil {
		return err
	}
	switch {
	case p.Path == "":
		return model.Invalid("path", "must be given: the directory that holds the volumes")
	case !filepath.IsAbs(p.Path) || strings.ContainsRune(p.Path, 0):
		return model.Invalid("path", "must be an absolute path, not %q", p.Path)
	}
	p.Path = filepath.Clean(p.Path)
	if p.Path == "/" {
		return model.Invalid("path", "must not be the root directory")
	}
	if p.Capacity != 0 {
		if err := drivers.CheckSize("capacity", p.Capacity); err != nil {
			return err
		}
	}
	switch {
	case p.ProvisioningPolicy == "", strings.EqualFold(p.ProvisioningPolicy, drivers.ThinPolicy):
		p.ProvisioningPolicy = drivers.ThinPolicy
	case strings.EqualFold(p.ProvisioningPolicy, drivers.ThickPolicy):
		p.ProvisioningPolicy = drivers.ThickPolicy
		if p.OverProvisioningRatio != 0 && p.OverProvisioningRatio != 1 {
			return model.Invalid("overProvisioningRatio", "a thick pool cannot promise more than it has; leave it out")
		}
	default:
		return model.Invalid("provisioningPolicy", "must be Thin or Thick, not %q", p.ProvisioningPolicy)
	}
	if err := drivers.CheckRatio(&p.OverProvisioningRatio); err != nil {
		return err
	}
	if p.Extras.DataStorage.ProvisioningPolicy == "" {
		p.Extras.DataStorage.ProvisioningPolicy = p.ProvisioningPolicy
	}
	ap := &p.Extras.IOConnectivity.AccessProtocol
	if *ap == "" {
		*ap = protocol
	}
	spelt, ok := accessProtocol(*ap)
	if !ok {
		return model.Invalid("extras.ioConnectivity.accessProtocol", "must be local, iscsi or nvmeof, not %q", *ap)
	}
	*ap = spelt
	return nil
}

func sortedNames(m map[string]poolConfig) []string {
	names := make([]string, 0, len(m))
	for n := range m {
		names = append(names, n)
	}
	sort.Strings(names)
	return names
}

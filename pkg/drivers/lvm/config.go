package lvm

import (
	"path/filepath"
	"regexp"
	"sort"
	"strconv"
	"strings"

	"github.com/osds-io/osds/internal/conf"
	"github.com/osds-io/osds/pkg/drivers"
	"github.com/osds-io/osds/pkg/drivers/export"
	"github.com/osds-io/osds/pkg/model"
)

// config is the driver's YAML. The keys of targets are export.Options'.
type config struct {
	export.Options
	Pool map[string]poolConfig `yaml:"pool" doc:"The pools. A key is the name of a volume group, for thick volumes, or GROUP/POOL, for those of a thin pool."`
	// Devices bounds what LVM looks at.
	Devices []string `yaml:"devices" doc:"The devices that LVM may look at, as paths; all that its own configuration allows if left out."`
}

type poolConfig struct {
	drivers.PoolConfig
	Capacity              model.Bytes `yaml:"capacity" doc:"An upper bound of what osds takes; what there is if left out."`
	OverProvisioningRatio float64     `yaml:"overProvisioningRatio" doc:"How many times the capacity may be promised; thin pools only."`
	Zeroing               string      `yaml:"zeroing" oneof:"before,delete" doc:"When thick volumes are cleared: before they are handed out, or when they are deleted, so that new ones are ready at once."`
	Discard               bool        `yaml:"discard" doc:"Whether the devices are told of space that thick volumes give back."`
	SnapshotSize          string      `yaml:"snapshotSize" doc:"The space of a thick volume's snapshot: a percentage of the volume, or a size; 100% if left out, which cannot overflow."`
	DataWarn              int         `yaml:"dataWarn" doc:"The percentage of a thin pool's data space from which it is warned of; 80 if left out."`
	DataStop              int         `yaml:"dataStop" doc:"The percentage from which nothing new is placed; 95 if left out."`
	MetadataWarn          int         `yaml:"metadataWarn" doc:"The same for its metadata space; 70 if left out."`
	MetadataStop          int         `yaml:"metadataStop" doc:"The same for its metadata space; 90 if left out."`
	SnapshotWarn          int         `yaml:"snapshotWarn" doc:"The percentage of a thick snapshot's space from which it is warned of; 80 if left out."`
	SnapshotGrow          int         `yaml:"snapshotGrow" doc:"The percentage from which it gets more space, where there is some; 0, the default, is never."`

	// What the keys say, filled in by check.
	vg, thin string
	snapshot snapshotSize
}

// snapshotSize is a percentage of the volume, or bytes if that is 0.
type snapshotSize struct {
	percent int
	bytes   model.Bytes
}

// The values of zeroing.
const (
	zeroBefore = "before"
	zeroDelete = "delete"
)

func (p *poolConfig) isThin() bool { return p.thin != "" }

// load reads the driver's YAML. There is no pool to fall back on: a volume group
// is somebody's until the administrator says otherwise.
func load(path string) (config, error) {
	c := config{}
	if path == "" {
		return c, model.Invalid("config", "the lvm driver needs a file that names its volume groups: give the backend a config")
	}
	err := conf.Load(&c, conf.Options{Name: "lvm", File: path})
	return c, err
}

// CheckConfig says what is wrong with the driver's YAML file at path.
func CheckConfig(path string) error {
	_, err := load(path)
	return err
}

// Validate checks the configuration and fills in defaults.
func (c *config) Validate() error {
	if err := c.Options.Validate(); err != nil {
		return err
	}
	if len(c.Pool) == 0 {
		return model.Invalid("pool", "there must be at least one pool: the name of a volume group, or GROUP/POOL")
	}
	for i, d := range c.Devices {
		if !devicePattern.MatchString(d) || filepath.Clean(d) != d {
			return model.Invalid("devices["+strconv.Itoa(i)+"]", "%.64q is not the path of a device below /dev", d)
		}
	}
	for _, name := range sortedNames(c.Pool) {
		p := c.Pool[name]
		if err := p.check(name); err != nil {
			return drivers.Prefixed("pool."+name, err)
		}
		c.Pool[name] = p
	}
	return nil
}

var (
	// namePattern is what LVM takes as a name of a group or volume.
	namePattern   = regexp.MustCompile(`^[A-Za-z0-9+_.][A-Za-z0-9+_.-]{0,126}$`)
	devicePattern = regexp.MustCompile(`^/dev/[A-Za-z0-9_.:+/-]{1,200}$`)
)

func validName(s string) bool { return namePattern.MatchString(s) && s != "." && s != ".." }

// check checks a pool and fills in its defaults.
func (p *poolConfig) check(name string) error {
	if err := drivers.CheckPoolName(name); err != nil {
		return err
	}
	p.vg, p.thin, _ = strings.Cut(name, "/")
	if !validName(p.vg) || (strings.Contains(name, "/") && !validName(p.thin)) {
		return model.Invalid("", "%.64q is neither the name of a volume group nor GROUP/POOL, with names as LVM takes them", name)
	}
	if err := p.PoolConfig.Check(); err != nil {
		return err
	}
	if p.Capacity != 0 {
		if err := drivers.CheckSize("capacity", p.Capacity); err != nil {
			return err
		}
	}
	if err := p.checkKind(); err != nil {
		return err
	}
	if err := drivers.CheckRatio(&p.OverProvisioningRatio); err != nil {
		return err
	}
	for _, x := range []struct {
		name     string
		val      *int
		def, low int
	}{
		{"dataWarn", &p.DataWarn, 80, 1}, {"dataStop", &p.DataStop, 95, 1}, {"metadataWarn", &p.MetadataWarn, 70, 1},
		{"metadataStop", &p.MetadataStop, 90, 1}, {"snapshotWarn", &p.SnapshotWarn, 80, 1}, {"snapshotGrow", &p.SnapshotGrow, 0, 0},
	} {
		if *x.val == 0 {
			*x.val = x.def
		}
		if *x.val < x.low || *x.val > 99 {
			return model.Invalid(x.name, "must be a percentage from %d to 99, not %d", x.low, *x.val)
		}
	}
	if p.DataWarn > p.DataStop {
		return model.Invalid("dataWarn", "must not be above dataStop, %d", p.DataStop)
	}
	if p.MetadataWarn > p.MetadataStop {
		return model.Invalid("metadataWarn", "must not be above metadataStop, %d", p.MetadataStop)
	}
	return p.checkProtocol()
}

// checkKind checks what a thick or a thin pool cannot have.
func (p *poolConfig) checkKind() error {
	policy := drivers.ThickPolicy
	if p.isThin() {
		policy = drivers.ThinPolicy
	}
	switch have := &p.Extras.DataStorage.ProvisioningPolicy; {
	case *have == "":
		*have = policy
	case *have != policy:
		return model.Invalid("extras.dataStorage.provisioningPolicy", "is %s, but the pool's key names a %s pool; leave it out", *have, strings.ToLower(policy))
	}
	if p.isThin() {
		switch {
		case p.Zeroing != "":
			return model.Invalid("zeroing", "is for thick pools: a thin pool clears its blocks itself; leave it out")
		case p.SnapshotSize != "":
			return model.Invalid("snapshotSize", "is for thick pools: a thin snapshot takes its space from the pool; leave it out")
		case p.SnapshotWarn != 0:
			return model.Invalid("snapshotWarn", "is for thick pools; leave it out")
		case p.SnapshotGrow != 0:
			return model.Invalid("snapshotGrow", "is for thick pools; leave it out")
		case p.Discard:
			return model.Invalid("discard", "is for thick pools: what a thin pool does is its own setting (lvchange --discards); leave it out")
		}
		return nil
	}
	if p.OverProvisioningRatio != 0 && p.OverProvisioningRatio != 1 {
		return model.Invalid("overProvisioningRatio", "a thick pool cannot promise more than it has; leave it out")
	}
	for _, x := range []struct {
		name string
		val  int
	}{{"dataWarn", p.DataWarn}, {"dataStop", p.DataStop}, {"metadataWarn", p.MetadataWarn}, {"metadataStop", p.MetadataStop}} {
		if x.val != 0 {
			return model.Invalid(x.name, "is for thin pools; leave it out")
		}
	}
	if p.Zeroing == "" {
		p.Zeroing = zeroBefore
	}
	return p.snapshot.parse(p.SnapshotSize)
}

func (s *snapshotSize) parse(text string) error {
	if text == "" {
		text = "100%"
	}
	if num, ok := strings.CutSuffix(strings.TrimSpace(text), "%"); ok {
		n, err := strconv.Atoi(strings.TrimSpace(num))
		if err != nil || n < 1 || n > 100 {
			return model.Invalid("snapshotSize", "%.64q is not a percentage from 1%% to 100%%", text)
		}
		s.percent = n
		return nil
	}
	n, err := model.ParseBytes(text)
	if err != nil {
		return model.Invalid("snapshotSize", "%v; or a percentage of the volume, such as 20%%", err)
	}
	s.bytes = n
	return drivers.CheckSize("snapshotSize", n)
}

func (p *poolConfig) checkProtocol() error {
	switch ap := &p.Extras.IOConnectivity.AccessProtocol; {
	case *ap == "":
		*ap = export.ISCSI
	case strings.EqualFold(*ap, export.ISCSI):
		*ap = export.ISCSI
	case strings.EqualFold(*ap, export.NVMe):
		*ap = export.NVMe
	default:
		return model.Invalid("extras.ioConnectivity.accessProtocol", "must be %s or %s, not %.64q", export.ISCSI, export.NVMe, *ap)
	}
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

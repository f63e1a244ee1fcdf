package sample

import (
	"fmt"
	"slices"
	"sort"
	"strings"
	"time"

	"github.com/osds-io/osds/internal/conf"
	"github.com/osds-io/osds/pkg/drivers"
	"github.com/osds-io/osds/pkg/model"
)

// config is the driver's YAML.
type config struct {
	Pool map[string]poolConfig `yaml:"pool"`
	// Latency is how long each operation takes, by its name or "default".
	Latency map[string]time.Duration `yaml:"latency"`
	// Work is how long the work of an operation takes in all: create, clone,
	// expand, revert or delete. It is done in slices, each a call, and goes on
	// after a restart.
	Work  map[string]time.Duration `yaml:"work"`
	Slice time.Duration            `yaml:"slice"`
	// Jitter varies each latency by up to this share of it, 0 to 1.
	Jitter float64 `yaml:"jitter"`
	// Seed makes jitter and failures the same in each run of the same calls;
	// 0 is a new one each time.
	Seed     int64     `yaml:"seed"`
	Failures []failure `yaml:"failures"`
}

type poolConfig struct {
	drivers.PoolConfig
	ID                    string      `yaml:"id"`
	Capacity              model.Bytes `yaml:"capacity"`
	Count                 int         `yaml:"count"`
	OverProvisioningRatio float64     `yaml:"overProvisioningRatio"`
	Unusable              string      `yaml:"unusable"`
	// Fills are what the pool says of the parts of it that can run full.
	Fills []model.Fill `yaml:"fills"`
	Lacks []string     `yaml:"lacks"`
}

// failure makes some calls of one operation fail.
type failure struct {
	// Op is an operation, or "any".
	Op   string     `yaml:"op"`
	Kind model.Kind `yaml:"kind"`
	// Rate is the share of the calls, 0 to 1.
	Rate float64 `yaml:"rate"`
	// Times is how many of them, from the driver's start; 0 is no bound.
	Times int `yaml:"times"`
	// Lost calls are done, but answered with unknownOutcome.
	Lost    bool   `yaml:"lost"`
	Message string `yaml:"message"`

	struck int // under Driver.mu
}

// The operations that latency and failures name.
const (
	opPools          = "pools"
	opCreate         = "create"
	opDelete         = "delete"
	opGet            = "get"
	opList           = "list"
	opExpand         = "expand"
	opClone          = "clone"
	opRevert         = "revert"
	opSnapshot       = "snapshot"
	opDeleteSnapshot = "deleteSnapshot"
	opGetSnapshot    = "getSnapshot"
	opListSnapshots  = "listSnapshots"
	opExport         = "export"
	opUnexport       = "unexport"
	opListExports    = "listExports"

	anyOp     = "any"
	defaultOp = "default"
)

func ops() []string {
	return []string{opPools, opCreate, opDelete, opGet, opList, opExpand, opClone, opRevert, opSnapshot,
		opDeleteSnapshot, opGetSnapshot, opListSnapshots, opExport, opUnexport, opListExports}
}

// failureKinds are what a backend may answer. notFound is among them: a backend
// that lies is worth trying, too.
func failureKinds() []string {
	return []string{string(model.KindInvalid), string(model.KindNotFound), string(model.KindExists), string(model.KindConflict),
		string(model.KindExhausted), string(model.KindUnsupported), string(model.KindBusy), string(model.KindDenied),
		string(model.KindUnavailable), string(model.KindUnknownOutcome), string(model.KindInternal)}
}

// The bounds of what a file may ask for.
const (
	maxPools   = 100_000
	maxLatency = time.Hour
	maxWork    = 24 * time.Hour
	maxSlice   = time.Minute

	defaultSlice = time.Second
)

// load reads the driver's YAML; without one there are the default pools.
func load(path string) (config, error) {
	if path == "" {
		return defaults(), nil
	}
	var c config
	err := conf.Load(&c, conf.Options{Name: "sample", File: path})
	return c, err
}

// CheckConfig says what is wrong with the driver's YAML file at path.
func CheckConfig(path string) error {
	_, err := load(path)
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
		c.Pool = defaults().Pool
	}
	if c.Jitter < 0 || c.Jitter > 1 {
		return model.Invalid("jitter", "must be from 0 to 1, not %v", c.Jitter)
	}
	for op, l := range c.Latency {
		if known := append(ops(), defaultOp); !slices.Contains(known, op) {
			return model.Invalid("latency."+op, "unknown operation; %s", meant(op, known))
		}
		if l < 0 || l > maxLatency {
			return model.Invalid("latency."+op, "must be from 0s to %s, not %s", maxLatency, l)
		}
	}
	if err := c.checkWork(); err != nil {
		return err
	}
	for i, f := range c.Failures {
		if err := f.check(); err != nil {
			return drivers.Prefixed(fmt.Sprintf("failures[%d]", i), err)
		}
	}
	total := 0
	for _, name := range sortedNames(c.Pool) {
		if err := drivers.CheckPoolName(name); err != nil {
			return err
		}
		p := c.Pool[name]
		if err := p.check(); err != nil {
			return drivers.Prefixed("pool."+name, err)
		}
		c.Pool[name] = p
		if total += p.Count; total > maxPools {
			return model.Invalid("pool", "more than %d pools", maxPools)
		}
	}
	return nil
}

func (c *config) checkWork() error {
	known := []string{opCreate, opClone, opExpand, opRevert, opDelete}
	for op, l := range c.Work {
		if !slices.Contains(known, op) {
			return model.Invalid("work."+op, "this operation has no work to do; %s", meant(op, known))
		}
		if l < 0 || l > maxWork {
			return model.Invalid("work."+op, "must be from 0s to %s, not %s", maxWork, l)
		}
	}
	if c.Slice == 0 {
		c.Slice = defaultSlice
	}
	if c.Slice < 0 || c.Slice > maxSlice {
		return model.Invalid("slice", "must be from 1ns to %s, not %s", maxSlice, c.Slice)
	}
	return nil
}

func (f failure) check() error {
	if known := append(ops(), anyOp); !slices.Contains(known, f.Op) {
		return model.Invalid("op", "%q is not an operation; %s", f.Op, meant(f.Op, known))
	}
	if f.Times < 0 {
		return model.Invalid("times", "must not be negative")
	}
	if f.Rate < 0 || f.Rate > 1 {
		return model.Invalid("rate", "must be from 0 to 1, not %v", f.Rate)
	}
	switch {
	case f.Lost && f.Kind != "" && f.Kind != model.KindUnknownOutcome:
		return model.Invalid("kind", "a lost answer is always unknownOutcome; leave kind out")
	case !f.Lost && !slices.Contains(failureKinds(), string(f.Kind)):
		return model.Invalid("kind", "%q is not an error kind; %s", f.Kind, meant(string(f.Kind), failureKinds()))
	}
	return nil
}

// meant says what a misspelt word should have been.
func meant(got string, known []string) string {
	if n := conf.Nearest(got, known); n != "" {
		return fmt.Sprintf("did you mean %q?", n)
	}
	return "use one of " + strings.Join(known, ", ")
}

// check checks a pool and fills in its defaults.
func (p *poolConfig) check() error {
	if err := p.PoolConfig.Check(); err != nil {
		return err
	}
	if p.Capacity == 0 {
		p.Capacity = 100 * model.GiB
	}
	if err := drivers.CheckSize("capacity", p.Capacity); err != nil {
		return err
	}
	if p.Count == 0 {
		p.Count = 1
	}
	if p.Count < 0 || p.Count > maxPools {
		return model.Invalid("count", "must be from 1 to %d, not %d", maxPools, p.Count)
	}
	if p.ID != "" {
		if p.Count > 1 {
			return model.Invalid("id", "cannot be given to %d pools; leave id or count out", p.Count)
		}
		if err := drivers.CheckID("id", p.ID); err != nil {
			return err
		}
	}
	if len(model.UsableFills(p.Fills)) != len(p.Fills) {
		return model.Invalid("fills", "each of at most %d has a name of its own (small letters) and used, warn and stop from 0 to 1", model.MaxFills)
	}
	if err := drivers.CheckRatio(&p.OverProvisioningRatio); err != nil {
		return err
	}
	known := []string{model.AbilityExpand, model.AbilityExpandLive, model.AbilitySnapshot, model.AbilityClone,
		model.AbilityRevert, model.AbilityExport}
	for _, a := range p.Lacks {
		if !slices.Contains(known, a) {
			return model.Invalid("lacks", "%q is not an ability; %s", a, meant(a, known))
		}
	}
	if p.Extras.DataStorage.ProvisioningPolicy == "" {
		p.Extras.DataStorage.ProvisioningPolicy = drivers.ThinPolicy
	}
	if p.Extras.IOConnectivity.AccessProtocol == "" {
		p.Extras.IOConnectivity.AccessProtocol = "iscsi"
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

// expand gives the pools, with those of a count named name-00001 and so on.
func (c *config) expand() (map[string]poolConfig, error) {
	out := make(map[string]poolConfig, len(c.Pool))
	for _, name := range sortedNames(c.Pool) {
		p := c.Pool[name]
		for i := range p.Count {
			n := name
			if p.Count > 1 {
				n = fmt.Sprintf("%s-%05d", name, i+1)
			}
			if _, dup := out[n]; dup {
				return nil, model.Invalid("pool."+name, "pool %q would be there twice", n)
			}
			out[n] = p
		}
	}
	return out, nil
}

// defaults are the two block pools that the original's sample driver has, with
// its ids, so that its tests and tutorials work unchanged.
func defaults() config {
	yes, no := true, false
	extras := func(disk, delay string, iops, least, bws, leastBWS int64) model.PoolExtras {
		return model.PoolExtras{
			DataStorage: model.DataStorage{ProvisioningPolicy: "Thin", Compression: &yes, Deduplication: &no},
			IOConnectivity: model.IOConnectivity{AccessProtocol: "rbd", MaxIOPS: iops, MinIOPS: least,
				MaxBWS: bws, MinBWS: leastBWS, Latency: 100},
			DataProtection: model.DataProtection{IsIsolated: &no},
			Advanced:       map[string]any{"diskType": disk, "latency": delay},
		}
	}
	pool := func(id, desc string, gb int64, x model.PoolExtras) poolConfig {
		return poolConfig{ID: id, Capacity: model.FromGB(gb), Count: 1, OverProvisioningRatio: 1,
			PoolConfig: drivers.PoolConfig{Description: desc, AvailabilityZone: "default", StorageType: "block", MultiAttach: true, Extras: x}}
	}
	return config{Pool: map[string]poolConfig{
		"sample-pool-01": pool("084bf71e-a102-11e7-88a8-e31fe6d52248", "A simulated pool of solid state disks", 100,
			extras("SSD", "3ms", 8_000_000, 1_000_000, 700, 100)),
		"sample-pool-02": pool("a594b8ac-a103-11e7-985f-d723bcf01b5f", "A simulated pool of SAS disks", 200,
			extras("SAS", "500ms", 3_000_000, 500_000, 350, 50)),
	}}
}

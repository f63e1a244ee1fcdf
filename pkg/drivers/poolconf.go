package drivers

import (
	"encoding/json"
	"math"
	"strings"

	"github.com/osds-io/osds/pkg/model"
)

// PoolConfig is what the entry of a pool in a driver's YAML has whatever the
// driver; a driver embeds it in its own. The names are the original's.
type PoolConfig struct {
	AvailabilityZone string           `yaml:"availabilityZone" doc:"The availability zone of the pool; default if left out."`
	StorageType      string           `yaml:"storageType" doc:"Always block."`
	MultiAttach      bool             `yaml:"multiAttach" doc:"Whether one volume may be attached several times."`
	Description      string           `yaml:"description" doc:"For people."`
	Extras           model.PoolExtras `yaml:"extras" doc:"What the pool can do, for profiles to match."`
}

// Check checks the entry and fills in what was left out. A field in its error is
// relative to the entry.
func (p *PoolConfig) Check() error {
	if p.AvailabilityZone == "" {
		p.AvailabilityZone = "default"
	}
	if p.StorageType == "" {
		p.StorageType = "block"
	}
	if p.StorageType != "block" {
		return model.Invalid("storageType", "must be block, not %q", clip(p.StorageType))
	}
	return first(checkLabel("availabilityZone", p.AvailabilityZone), checkLabel("description", p.Description),
		checkExtras(&p.Extras))
}

func checkExtras(x *model.PoolExtras) error {
	switch pol := x.DataStorage.ProvisioningPolicy; {
	case pol == "":
	case strings.EqualFold(pol, ThinPolicy):
		x.DataStorage.ProvisioningPolicy = ThinPolicy
	case strings.EqualFold(pol, ThickPolicy):
		x.DataStorage.ProvisioningPolicy = ThickPolicy
	default:
		return model.Invalid("extras.dataStorage.provisioningPolicy", "must be Thin or Thick, not %q", clip(pol))
	}
	io := x.IOConnectivity
	for name, n := range map[string]int64{"maxIOPS": io.MaxIOPS, "minIOPS": io.MinIOPS, "maxBWS": io.MaxBWS,
		"minBWS": io.MinBWS, "latency": io.Latency} {
		if n < 0 {
			return model.Invalid("extras.ioConnectivity."+name, "must not be negative, is %d", n)
		}
	}
	if x.Advanced == nil {
		return nil
	}
	// Once through JSON: what a pool shows must be the same here, in records
	// and on the wire, and YAML has values that JSON cannot carry.
	b, err := json.Marshal(x.Advanced)
	if err != nil {
		return model.Invalid("extras.advanced", "has a value that JSON cannot carry: %v", err)
	}
	x.Advanced = nil
	return json.Unmarshal(b, &x.Advanced)
}

// The provisioning policies of a pool, as profiles name them.
const (
	ThinPolicy  = "Thin"
	ThickPolicy = "Thick"
)

// MaxOverProvisioning is the largest ratio that a pool may be configured with.
const MaxOverProvisioning = 1000

// CheckRatio checks an over-provisioning ratio; left out it is 1.
func CheckRatio(r *float64) error {
	if *r == 0 {
		*r = 1
	}
	if *r < 1 || *r > MaxOverProvisioning || math.IsNaN(*r) {
		return model.Invalid("overProvisioningRatio", "must be from 1 to %d, not %v", MaxOverProvisioning, *r)
	}
	return nil
}

// CheckPoolName says whether a pool may bear the name.
func CheckPoolName(name string) error {
	if name == "" {
		return model.Invalid("pool", "a pool's name must not be empty")
	}
	return checkLabel("pool", name)
}

// Prefixed puts the place of an entry before the field of an error about it.
func Prefixed(at string, err error) error {
	if err == nil {
		return nil
	}
	e := *model.AsError(err)
	if e.Field == "" {
		e.Field = at
	} else {
		e.Field = at + "." + e.Field
	}
	return &e
}

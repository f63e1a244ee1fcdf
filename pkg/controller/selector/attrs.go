package selector

import (
	"encoding/json"
	"math"
	"sort"
	"strings"
	"unique"

	"github.com/osds-io/osds/pkg/model"
)

// slot is the place of a value that every pool has by the schema of the pool's
// JSON. A rule finds its slot once, when it is compiled.
type slot uint8

// The slots that most rules look at come first, so that they share cache lines.
const (
	slotID slot = iota
	slotStatus
	slotStorageType
	slotAvailabilityZone
	slotTotalCapacity
	slotMultiAttach
	slotAbilities
	slotProvisioningPolicy
	slotCompression
	slotDeduplication
	slotAccessProtocol
	slotMaxIOPS
	slotLatency
	slotMinIOPS
	slotMaxBWS
	slotMinBWS
	slotRecoveryTime
	slotIsIsolated
	slotRecoveryGeographic
	slotReplicaType
	slotProtectionRecoveryTime
	slotName
	slotDescription
	slotDockID
	slotReplicationType
	slotReplicationDriverName
	slotDriver
	slotBackend
	slotCharacterCodeSet
	slotMaxFileNameLength
	slotAccessCapability
	slotMinLifetime
	slotRecoveryPointTime
	slotFreeCapacity
	slotProvisionedLimit
	slotOverProvisioning
	slotStatusReason
	slotStatic // the number of slots that are filled when the Attrs are made

	// slotReservedCapacity moves with the ledger and is computed from the
	// Candidate.
	slotReservedCapacity
	slotNamed // the number of named slots

	slotAdvanced // below extras.advanced: looked up by key
	slotUnknown  // no pool has it
)

// slotNames are the paths of the slots in the pool's JSON.
var slotNames = [slotNamed]string{
	slotID:                     "id",
	slotName:                   "name",
	slotDescription:            "description",
	slotStatus:                 "status",
	slotDockID:                 "dockId",
	slotAvailabilityZone:       "availabilityZone",
	slotTotalCapacity:          "totalCapacity",
	slotMultiAttach:            "multiAttach",
	slotStorageType:            "storageType",
	slotReplicationType:        "replicationType",
	slotReplicationDriverName:  "replicationDriverName",
	slotDriver:                 "driver",
	slotBackend:                "backend",
	slotAbilities:              "abilities",
	slotRecoveryTime:           "extras.dataStorage.recoveryTimeObjective",
	slotProvisioningPolicy:     "extras.dataStorage.provisioningPolicy",
	slotCompression:            "extras.dataStorage.compression",
	slotDeduplication:          "extras.dataStorage.deduplication",
	slotCharacterCodeSet:       "extras.dataStorage.characterCodeSet",
	slotMaxFileNameLength:      "extras.dataStorage.maxFileNameLengthBytes",
	slotAccessCapability:       "extras.dataStorage.storageAccessCapability",
	slotAccessProtocol:         "extras.ioConnectivity.accessProtocol",
	slotMaxIOPS:                "extras.ioConnectivity.maxIOPS",
	slotMinIOPS:                "extras.ioConnectivity.minIOPS",
	slotMaxBWS:                 "extras.ioConnectivity.maxBWS",
	slotMinBWS:                 "extras.ioConnectivity.minBWS",
	slotLatency:                "extras.ioConnectivity.latency",
	slotIsIsolated:             "extras.dataProtection.isIsolated",
	slotMinLifetime:            "extras.dataProtection.minLifetime",
	slotRecoveryGeographic:     "extras.dataProtection.recoveryGeographicObjective",
	slotRecoveryPointTime:      "extras.dataProtection.recoveryPointObjectiveTime",
	slotProtectionRecoveryTime: "extras.dataProtection.recoveryTimeObjective",
	slotReplicaType:            "extras.dataProtection.replicaType",
	slotFreeCapacity:           "freeCapacity",
	slotProvisionedLimit:       "provisionedLimit",
	slotOverProvisioning:       "overProvisioningRatio",
	slotStatusReason:           "statusReason",
	slotReservedCapacity:       "reservedCapacity",
}

const advancedPrefix = "extras.advanced."

// Bounds of what is read of a pool. A pool's record comes from a dock, which
// may be wrong or worse; beyond the bounds it is cut, never refused.
const (
	maxAdvanced   = 256  // values below extras.advanced
	maxDepth      = 8    // nested objects
	maxList       = 256  // elements of a list
	maxPoolText   = 1024 // bytes of a text
	maxPathLength = 256  // bytes of a path
)

// slotOf finds the slot of a path.
func slotOf(path string) slot {
	for s, name := range slotNames {
		if name != "" && name == path {
			return slot(s)
		}
	}
	if len(path) > len(advancedPrefix) && strings.HasPrefix(path, advancedPrefix) {
		return slotAdvanced
	}
	return slotUnknown
}

type kind uint8

const (
	absent kind = iota
	boolean
	number
	text
	list
	other // something that no rule can compare
)

func (k kind) String() string {
	switch k {
	case boolean:
		return "true or false"
	case number:
		return "a number"
	case text:
		return "a text"
	case list:
		return "a list"
	case other:
		return "an object"
	}
	return "nothing"
}

// value is one value of a pool. Texts are interned, so that comparing two is
// comparing two pointers and touches no other memory. A value is half a cache
// line; a test of the size says so.
type value struct {
	num  float64 // a number; 1 or 0 of a boolean; the index in Attrs.lists of a list
	raw  unique.Handle[string]
	fold unique.Handle[string] // raw in lower case
	kind kind
	// implied marks a boolean that the pool does not state: it is false, as in
	// the pool's JSON.
	implied bool
}

// Attrs is a pool's values, ready to be compared. It is made once for each
// revision of the pool's record and is never changed; it may be shared.
type Attrs struct {
	total    model.Bytes
	limit    model.Bytes
	physical float64 // free / total as the backend says, 0..1
	// problem says why the capacity cannot be computed; empty if it can.
	problem string
	advKeys []unique.Handle[string] // the paths below extras.advanced
	advVals []value
	dropped int // values below extras.advanced that are not read
	lists   [][]value
	vals    [slotStatic]value
}

// NewAttrs reads a pool's record. It gives nil for nil.
func NewAttrs(p *model.Pool) *Attrs {
	if p == nil {
		return nil
	}
	a := &Attrs{total: p.Total}
	a.setCapacity(p)
	v := &a.vals
	v[slotID] = textValue(p.ID)
	v[slotName] = stated(p.Name)
	v[slotDescription] = stated(p.Description)
	v[slotStatus] = stated(string(p.Status))
	v[slotDockID] = stated(p.DockID)
	v[slotAvailabilityZone] = stated(p.AvailabilityZone)
	v[slotTotalCapacity] = numberValue(float64(p.Total.GBFloor()))
	v[slotFreeCapacity] = numberValue(float64(p.Free.GBFloor()))
	v[slotProvisionedLimit] = numberValue(float64(a.limit.GBFloor()))
	v[slotOverProvisioning] = numberValue(ratioOf(p))
	v[slotStatusReason] = stated(p.Reason)
	v[slotMultiAttach] = boolValue(p.MultiAttach)
	v[slotStorageType] = stated(p.StorageType)
	v[slotReplicationType] = stated(p.ReplicationType)
	v[slotReplicationDriverName] = stated(p.ReplicationName)
	v[slotDriver] = stated(p.Driver)
	v[slotBackend] = stated(p.Backend)
	v[slotAbilities] = a.listValue(p.Abilities)

	ds := &p.Extras.DataStorage
	v[slotRecoveryTime] = statedNumber(ds.RecoveryTimeObjective)
	v[slotProvisioningPolicy] = stated(ds.ProvisioningPolicy)
	v[slotCompression] = impliedBool(ds.Compression)
	v[slotDeduplication] = impliedBool(ds.Deduplication)
	v[slotCharacterCodeSet] = stated(ds.CharacterCodeSet)
	v[slotMaxFileNameLength] = statedNumber(ds.MaxFileNameLengthBytes)
	if len(ds.StorageAccessCapability) > 0 {
		v[slotAccessCapability] = a.listValue(ds.StorageAccessCapability)
	}
	io := &p.Extras.IOConnectivity
	v[slotAccessProtocol] = stated(io.AccessProtocol)
	v[slotMaxIOPS] = statedNumber(io.MaxIOPS)
	v[slotMinIOPS] = statedNumber(io.MinIOPS)
	v[slotMaxBWS] = statedNumber(io.MaxBWS)
	v[slotMinBWS] = statedNumber(io.MinBWS)
	v[slotLatency] = statedNumber(io.Latency)
	dp := &p.Extras.DataProtection
	v[slotIsIsolated] = impliedBool(dp.IsIsolated)
	v[slotMinLifetime] = stated(dp.MinLifetime)
	v[slotRecoveryGeographic] = stated(dp.RecoveryGeographicObject)
	v[slotRecoveryPointTime] = stated(dp.RecoveryPointObjectiveTime)
	v[slotProtectionRecoveryTime] = stated(dp.RecoveryTimeObjective)
	v[slotReplicaType] = stated(dp.ReplicaType)

	a.flatten(advancedPrefix, p.Extras.Advanced, 0)
	return a
}

// ratioOf is the over-provisioning ratio, 1 where there is none.
func ratioOf(p *model.Pool) float64 {
	if p.OverProvisioning <= 0 {
		return 1
	}
	return p.OverProvisioning
}

// setCapacity guards the arithmetic against figures that cannot be: a pool with
// such a figure takes nothing, and says why.
func (a *Attrs) setCapacity(p *model.Pool) {
	r := ratioOf(p)
	switch {
	case p.Total < 0:
		a.problem = "the pool's total capacity is negative"
	case math.IsNaN(r) || math.IsInf(r, 0):
		a.problem = "the pool's over-provisioning ratio is not a number"
	case float64(p.Total)*r >= math.MaxInt64:
		a.problem = "the pool's over-provisioning ratio is too large"
	default:
		a.limit = p.Limit()
	}
	if p.Total > 0 {
		a.physical = clamp(float64(p.Free) / float64(p.Total))
	}
}

// flatten reads the levels of extras.advanced. Keys go in their order, so that
// the same record always gives the same Attrs.
func (a *Attrs) flatten(prefix string, m map[string]any, depth int) {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	for _, k := range keys {
		path := prefix + k
		if sub, ok := m[k].(map[string]any); ok && depth < maxDepth {
			a.flatten(path+".", sub, depth+1)
			continue
		}
		v := a.valueOf(m[k])
		if v.kind == absent {
			continue
		}
		if len(a.advKeys) >= maxAdvanced || len(path) > maxPathLength {
			a.dropped++
			continue
		}
		a.advKeys = append(a.advKeys, unique.Make(path))
		a.advVals = append(a.advVals, v)
	}
}

// advanced finds a value below extras.advanced; the first one wins where two
// spellings ({"a":{"b":1}} and {"a.b":2}) give one path. It gives nil if there is none.
func (a *Attrs) advanced(key unique.Handle[string]) *value {
	for i, k := range a.advKeys {
		if k == key {
			return &a.advVals[i]
		}
	}
	return nil
}

// free is what may still be reserved. It is below zero where more is reserved
// than the limit (a pool that shrank).
func (a *Attrs) free(c *Candidate) model.Bytes { return a.limit - max(c.Reserved, 0) }

func textValue(s string) value {
	if len(s) > maxPoolText {
		s = s[:maxPoolText]
	}
	return value{kind: text, raw: unique.Make(s), fold: unique.Make(strings.ToLower(s))}
}

// stated is a text that is absent where it is empty, as in the pool's JSON.
func stated(s string) value {
	if s == "" {
		return value{}
	}
	return textValue(s)
}

func numberValue(f float64) value {
	if math.IsNaN(f) || math.IsInf(f, 0) {
		return value{kind: other}
	}
	return value{kind: number, num: f}
}

// statedNumber is a figure that is absent where it is zero: the schema has no
// other way to leave it out.
func statedNumber(n int64) value {
	if n == 0 {
		return value{}
	}
	return numberValue(float64(n))
}

func boolValue(b bool) value {
	v := value{kind: boolean}
	if b {
		v.num = 1
	}
	return v
}

func impliedBool(b *bool) value {
	if b == nil {
		return value{kind: boolean, implied: true}
	}
	return boolValue(*b)
}

// valueOf turns a decoded JSON (or YAML) value of the pool into one of ours.
func (a *Attrs) valueOf(x any) value {
	switch x.(type) {
	case []any, []string:
		return a.listValue(x)
	}
	return scalar(x)
}

func (a *Attrs) listValue(x any) value {
	a.lists = append(a.lists, elements(x))
	return value{kind: list, num: float64(len(a.lists) - 1)}
}

// listOf gives the elements of a list.
func (a *Attrs) listOf(v *value) []value { return a.lists[int(v.num)] }

// elements reads a list, maxList elements of it at most.
func elements(x any) []value {
	var out []value
	switch t := x.(type) {
	case []string:
		for _, e := range t[:min(len(t), maxList)] {
			out = append(out, textValue(e))
		}
	case []any:
		for _, e := range t[:min(len(t), maxList)] {
			out = append(out, scalar(e))
		}
	}
	return out
}

func scalar(x any) value {
	switch t := x.(type) {
	case nil:
		return value{}
	case bool:
		return boolValue(t)
	case string:
		return textValue(t)
	}
	if f, ok := toFloat(x); ok {
		return numberValue(f)
	}
	return value{kind: other}
}

// toFloat reads any kind of number that a decoder may give.
func toFloat(x any) (float64, bool) {
	switch t := x.(type) {
	case float64:
		return t, true
	case float32:
		return float64(t), true
	case int:
		return float64(t), true
	case int64:
		return float64(t), true
	case int32:
		return float64(t), true
	case uint64:
		return float64(t), true
	case uint32:
		return float64(t), true
	case uint:
		return float64(t), true
	case json.Number:
		f, err := t.Float64()
		return f, err == nil
	}
	return 0, false
}

func clamp(f float64) float64 { return min(max(f, 0), 1) }

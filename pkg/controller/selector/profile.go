package selector

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"

	"github.com/osds-io/osds/pkg/model"
)

const (
	// capabilityPrefix begins the keys of customProperties that are rules on
	// the pool's JSON; the rest of the key is the path, further colons too.
	capabilityPrefix = "capabilities:"
	weightsKey       = "weights"
	customField      = "customProperties."

	maxCapabilities = 64
)

// ValidateProfile checks what a profile says to the selector: its figures, its
// "capabilities:" keys and its weights. It is stricter than Compile, which lets
// an operator that does not exist pass and finds that no pool meets it. The
// error is of kind invalid and names the field.
func ValidateProfile(p *model.Profile) error {
	rules, _, err := profileRules(p, "the profile")
	if err != nil {
		return err
	}
	for _, r := range rules {
		if r.unknown != "" {
			return model.Invalid(r.field, "%s: %s", r.field, r.unknown)
		}
	}
	return nil
}

// WantsMultiAttach says whether the profile makes its volumes multi-attach: it
// asks its pools for multiAttach ("capabilities:multiAttach": "<is> true").
func WantsMultiAttach(p *model.Profile) bool {
	return p != nil && isTrue(p.Custom[capabilityPrefix+"multiAttach"])
}

// askerOf names the profile at the beginning of a sentence.
func askerOf(p *model.Profile) string {
	switch {
	case p.Name != "":
		return "profile " + clip(p.Name)
	case p.ID != "":
		return "profile " + clip(p.ID)
	}
	return "the profile"
}

// storageTypeOf is the storage type a profile is for.
func storageTypeOf(p *model.Profile) string {
	if p == nil || p.StorageType == "" {
		return DefaultStorageType
	}
	return p.StorageType
}

func storageTypeRule(want, asker string) *rule {
	r := attribute(slotNames[slotStorageType], "storageType", asker, wishExact(want))
	r.same = want
	return r
}

// builder collects rules and the first error.
type builder struct {
	asker string
	rules []*rule
	err   error
}

func (b *builder) add(path, field, same string, w wish) {
	r := attribute(path, field, b.asker, w)
	r.same = same
	b.rules = append(b.rules, r)
}

// number adds a rule unless nothing is asked, which is zero.
func (b *builder) number(s slot, field, sign string, want int64) {
	switch {
	case want < 0 && b.err == nil:
		b.err = model.Invalid(field, "%s is %d; it must not be negative", field, want)
	case want > 0:
		b.add(slotNames[s], field, fmt.Sprint(sign, want), wishNumber(sign, float64(want)))
	}
}

func (b *builder) text(s slot, field, want string) {
	if len(want) > maxWishText && b.err == nil {
		b.err = model.Invalid(field, "%s is longer than %d bytes", field, maxWishText)
	} else if want != "" {
		b.add(slotNames[s], field, strings.ToLower(want), wishText(want))
	}
}

// flag adds a rule where the profile states true or false; a profile that states
// neither asks for neither.
func (b *builder) flag(s slot, field string, want *bool) {
	if want != nil {
		b.add(slotNames[s], field, fmt.Sprint(*want), wishBool(*want))
	}
}

// profileRules are the rules a profile asks for and the weights it sets (nil if
// none). The storage type is not among them.
func profileRules(p *model.Profile, asker string) ([]*rule, *weights, error) {
	if p == nil {
		return nil, nil, nil
	}
	b := &builder{asker: asker}
	const ds, io, dp = "provisioningProperties.dataStorage.", "provisioningProperties.ioConnectivity.", "replicationProperties.dataProtection."

	d := &p.Provisioning.DataStorage
	b.number(slotRecoveryTime, ds+"recoveryTimeObjective", "<=", d.RecoveryTimeObjective)
	b.text(slotProvisioningPolicy, ds+"provisioningPolicy", d.ProvisioningPolicy)
	b.flag(slotCompression, ds+"compression", d.Compression)
	b.flag(slotDeduplication, ds+"deduplication", d.Deduplication)
	if strings.EqualFold(p.StorageType, "file") {
		b.text(slotCharacterCodeSet, ds+"characterCodeSet", d.CharacterCodeSet)
		b.number(slotMaxFileNameLength, ds+"maxFileNameLengthBytes", ">=", d.MaxFileNameLengthBytes)
		if len(d.StorageAccessCapability) > 0 {
			w, err := parseList(d.StorageAccessCapability)
			if err != nil {
				return nil, nil, model.Invalid(ds+"storageAccessCapability", "%sstorageAccessCapability: %v", ds, err)
			}
			b.add(slotNames[slotAccessCapability], ds+"storageAccessCapability", fmt.Sprintf("%q", d.StorageAccessCapability), w)
		}
	}

	// Every figure is what the pool must reach, except latency, which it must
	// not exceed.
	c := &p.Provisioning.IOConnectivity
	b.text(slotAccessProtocol, io+"accessProtocol", c.AccessProtocol)
	b.number(slotMaxIOPS, io+"maxIOPS", ">=", c.MaxIOPS)
	b.number(slotMinIOPS, io+"minIOPS", ">=", c.MinIOPS)
	b.number(slotMaxBWS, io+"maxBWS", ">=", c.MaxBWS)
	b.number(slotMinBWS, io+"minBWS", ">=", c.MinBWS)
	b.number(slotLatency, io+"latency", "<=", c.Latency)

	r := &p.Replication.DataProtection
	b.flag(slotIsIsolated, dp+"isIsolated", r.IsIsolated)
	b.text(slotRecoveryGeographic, dp+"recoveryGeographicObjective", r.RecoveryGeographicObject)
	b.text(slotProtectionRecoveryTime, dp+"recoveryTimeObjective", r.RecoveryTimeObjective)
	b.text(slotReplicaType, dp+"replicaType", r.ReplicaType)

	b.capabilities(p.Custom)
	if b.err != nil {
		return nil, nil, b.err
	}
	w, err := parseWeights(p.Custom[weightsKey])
	if err != nil {
		return nil, nil, err
	}
	return b.rules, w, nil
}

// capabilities adds the rules of the customProperties, in the order of their
// keys.
func (b *builder) capabilities(custom map[string]any) {
	n := 0
	for _, k := range slices.Sorted(maps.Keys(custom)) {
		path, ok := strings.CutPrefix(k, capabilityPrefix)
		if !ok || b.err != nil {
			continue
		}
		field := customField + clip(k)
		if n++; n > maxCapabilities {
			b.err = model.Invalid(field, "a profile may have at most %d keys that begin with %q", maxCapabilities, capabilityPrefix)
			return
		}
		if path == "" || len(path) > maxPathLength {
			b.err = model.Invalid(field, "%s: after %q comes the name of a pool value, such as totalCapacity, of at most %d bytes", field, capabilityPrefix, maxPathLength)
			return
		}
		w, err := parseWish(custom[k])
		if err != nil {
			b.err = model.Invalid(field, "%s: %v", field, err)
			return
		}
		// The type counts: "1" and 1 are not the same wish.
		b.add(path, field, fmt.Sprintf("%T %q", custom[k], fmt.Sprint(custom[k])), w)
	}
}

// parseWeights reads the "weights" of the customProperties: a map from weigher
// to weight. Weighers that it does not name keep their defaults; a negative
// weight turns a weigher round.
func parseWeights(x any) (*weights, error) {
	if x == nil {
		return nil, nil
	}
	const field = customField + weightsKey
	m, ok := x.(map[string]any)
	if !ok {
		return nil, model.Invalid(field, `%s must be an object of weighers and numbers, such as {"capacity": 1}`, field)
	}
	w := defaultWeights()
	for _, k := range slices.Sorted(maps.Keys(m)) {
		f := field + "." + clip(k)
		i := slices.Index(weigherNames[:], k)
		if i < 0 {
			near, _ := nearest(k, weigherNames[:])
			return nil, model.Invalid(f, "%s: there is no weigher %q; the nearest is %q (known: %s)",
				f, clip(k), near, strings.Join(weigherNames[:], ", "))
		}
		n, ok := toFloat(m[k])
		if !ok || math.IsNaN(n) || math.Abs(n) > maxWeight {
			return nil, model.Invalid(f, "%s must be a number from -%d to %d", f, maxWeight, maxWeight)
		}
		w[i] = n
	}
	return &w, nil
}

// suffix marks a wish with the profile it is from, where there are several.
func suffix(p *model.Profile) string { return fmt.Sprintf(" (%s)", askerOf(p)) }

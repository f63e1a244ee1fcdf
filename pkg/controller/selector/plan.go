package selector

import (
	"math"
	"strings"

	"github.com/osds-io/osds/pkg/model"
)

// DefaultZone is the availability zone of a request that names none, and
// DefaultStorageType the storage type of a profile that names none.
const (
	DefaultZone        = "default"
	DefaultStorageType = "block"
)

// smallest is the room that a request of size 0 (a group without volumes) asks
// for: the smallest volume there is.
const smallest = model.GiB

// Bounds of a request.
const (
	maxNeeds    = 32
	maxProfiles = 64
	maxExcluded = 10000
)

// Request is what is to be placed.
type Request struct {
	// Size is what would be reserved. For an extend it is the growth, and Held
	// what the volume has in the pool already.
	Size, Held model.Bytes
	// AvailabilityZone wanted; DefaultZone if empty.
	AvailabilityZone string
	// PoolID is the pool the client asked for, if any. RequirePoolID is the
	// only pool it can be in (that of a clone's source, of a group), and
	// RequireWhy says why.
	PoolID, RequirePoolID, RequireWhy string
	// Profile says what the pool must be. With Profiles (those of a group), the
	// pool must be what all of them say.
	Profile  *model.Profile
	Profiles []*model.Profile
	// MultiAttach asks for a pool whose volumes several hosts may attach.
	MultiAttach bool
	// Needs are abilities that the pool must have (model.AbilityClone, ...).
	Needs []string
	// Excluded are pools that an earlier try failed on, each with why.
	Excluded map[string]string
}

// Candidate is a pool to choose from, with what is known of it at this moment.
type Candidate struct {
	Pool *model.Pool
	// Attrs is NewAttrs(Pool), made once for each revision of the pool. It is
	// made anew on each look if it is nil, which is slow.
	Attrs *Attrs
	// Reserved is what the ledger holds reserved in the pool, Volumes how many
	// live volumes are in it.
	Reserved model.Bytes
	Volumes  int
}

// attrs gives the pool's values; nil for a candidate without a pool, which fits
// nothing.
func (c *Candidate) attrs() *Attrs {
	if c.Pool == nil {
		return nil
	}
	if c.Attrs != nil {
		return c.Attrs
	}
	return NewAttrs(c.Pool)
}

// Plan is a compiled request. It does not change and may be used by several
// goroutines.
type Plan struct {
	rules   []*rule // in the order in which they are shown
	order   []*rule // in the order in which they are asked
	weights weights
	size    model.Bytes

	// For explanations only.
	profileID, profileName string
	named                  string // the pool asked for or required
	required               bool
}

// Compile makes a plan of a request. The error is of kind invalid and names the
// field of the profile or the request at fault. An operator that does not exist
// is no error here: no pool meets it, and the explanation says so.
//
// The request's maps and slices must not change while the plan is used.
func Compile(r Request) (*Plan, error) {
	if err := r.check(); err != nil {
		return nil, err
	}
	profiles := r.profiles()
	if n := len(profiles); n > maxProfiles {
		return nil, model.Invalid("profiles", "%d profiles are asked for together; at most %d may be", n, maxProfiles)
	}
	p := &Plan{weights: defaultWeights(), size: r.Size, named: r.PoolID}
	if r.RequirePoolID != "" {
		p.named, p.required = r.RequirePoolID, true
	}
	// What several profiles ask alike is asked once.
	seen := map[[2]string]bool{}
	merge := func(into []*rule, from []*rule, prof *model.Profile) []*rule {
		for _, x := range from {
			if k := [2]string{x.name, x.same}; !seen[k] {
				seen[k] = true
				if len(profiles) > 1 {
					x.want += suffix(prof)
				}
				into = append(into, x)
			}
		}
		return into
	}
	var wishes, types []*rule
	weighed := false
	for _, prof := range profiles {
		asker := askerOf(prof)
		rules, w, err := profileRules(prof, asker)
		if err != nil {
			return nil, inProfile(err, prof, len(profiles) > 1)
		}
		if w != nil && !weighed {
			// The first profile that sets weights sets those of the plan.
			p.weights, weighed = *w, true
		}
		types = merge(types, []*rule{storageTypeRule(storageTypeOf(prof), asker)}, prof)
		wishes = merge(wishes, rules, prof)
	}
	if len(profiles) == 0 {
		types = append(types, storageTypeRule(DefaultStorageType, "the request"))
	}
	p.nameProfiles(profiles)
	p.rules = append(requestRules(&r, types), wishes...)
	p.order = byCost(p.rules)
	return p, nil
}

// profiles are all the request's profiles, each once.
func (r *Request) profiles() []*model.Profile {
	var out []*model.Profile
	seen := map[*model.Profile]bool{nil: true}
	for _, p := range append([]*model.Profile{r.Profile}, r.Profiles...) {
		if !seen[p] {
			seen[p] = true
			out = append(out, p)
		}
	}
	return out
}

func (r *Request) check() error {
	switch {
	case r.Size < 0:
		return model.Invalid("size", "size is %s; it must not be negative", r.Size)
	case r.Held < 0 || r.Held > math.MaxInt64/4 || r.Size > math.MaxInt64/4:
		return model.Invalid("size", "size is beyond what any pool can be")
	case r.RequirePoolID == "" && r.RequireWhy != "":
		// Anywhere would be wrong: a clone would miss its source.
		return model.Invalid("poolId", "it can be in one pool only (%s), and that pool is not known", clip(r.RequireWhy))
	case len(r.Needs) > maxNeeds:
		return model.Invalid("needs", "%d abilities are needed; at most %d may be", len(r.Needs), maxNeeds)
	case len(r.Excluded) > maxExcluded:
		return model.Invalid("excluded", "%d pools are excluded; at most %d may be", len(r.Excluded), maxExcluded)
	}
	return nil
}

// inProfile adds to an error which of several profiles it is about.
func inProfile(err error, p *model.Profile, several bool) error {
	e := model.AsError(err)
	if !several {
		return e
	}
	return model.Invalid(e.Field, "%s: %s", askerOf(p), e.Message)
}

func (p *Plan) nameProfiles(profiles []*model.Profile) {
	if len(profiles) == 1 {
		p.profileID, p.profileName = profiles[0].ID, profiles[0].Name
		return
	}
	var ids, names []string
	for _, x := range profiles {
		ids, names = append(ids, x.ID), append(names, x.Name)
	}
	p.profileID, p.profileName = strings.Join(ids, ","), strings.Join(names, ",")
}

// admits asks the rules of one pool, the cheapest first, until one says no.
func (p *Plan) admits(l *view) bool {
	if l.a == nil {
		return false
	}
	for _, r := range p.order {
		if r.eval(l) != pass {
			return false
		}
	}
	return true
}

// Place chooses a pool: of those that pass every rule the one with the best
// score, and of equals the one with the least id. It gives its index in cands;
// ok is false if no pool fits.
func (p *Plan) Place(cands []Candidate) (winner int, ok bool) {
	fit := make([]*Attrs, len(cands))
	var g ranges
	var l view
	for i := range cands {
		l.c = &cands[i]
		l.a = l.c.attrs()
		if p.admits(&l) {
			fit[i] = l.a
			g.add(l.c, l.a)
		}
	}
	winner, best := -1, 0.0
	for i, a := range fit {
		if a == nil {
			continue
		}
		c := &cands[i]
		s := p.score(c, a, &g)
		if winner < 0 || better(s, c.Pool.ID, best, cands[winner].Pool.ID) {
			winner, best = i, s
		}
	}
	return winner, winner >= 0
}

// maxFitsReasons bounds how many failed rules Fits names.
const maxFitsReasons = 4

// Fits asks the rules of one pool, such as at the moment of reservation or for
// an extend. The reason names the rules that failed.
func (p *Plan) Fits(c *Candidate) (reason string, ok bool) {
	l := view{c: c, a: c.attrs()}
	if p.admits(&l) {
		return "", true
	}
	if l.a == nil {
		return noRecord, false
	}
	return p.failures(&l), false
}

// failures words what failed on one pool.
func (p *Plan) failures(l *view) string {
	var parts []string
	n := 0
	for _, r := range p.rules {
		out := r.eval(l)
		if out == pass {
			continue
		}
		if n++; n > maxFitsReasons {
			continue
		}
		have := r.haveText(l)
		s := r.name + " is " + have + ", want " + r.want
		if note := r.note(l, out); note != "" {
			s = r.name + ": " + note + ", want " + r.want
		}
		parts = append(parts, s)
	}
	if n > maxFitsReasons {
		parts = append(parts, "and more")
	}
	return strings.Join(parts, "; ")
}

package selector

import (
	"fmt"
	"slices"
	"strings"
	"unique"

	"github.com/osds-io/osds/pkg/model"
)

// rule is one thing that a pool must be. Rules do not change once compiled.
type rule struct {
	name  string // the path in the pool's JSON
	field string // where it was asked for, as the client spells it
	// asker is who asks, at the beginning of a sentence: "the profile", "the
	// request".
	asker string
	wish
	// same is equal for two rules on one path that ask the same.
	same string
	slot slot
	key  unique.Handle[string] // of slotAdvanced
	// check takes the place of the test of one value.
	check func(*Candidate, *Attrs) outcome
	// have takes the place of the value's own words.
	have func(*Candidate, *Attrs) string
	// change takes the place of the usual words for what would have to change.
	change func(*Candidate, *Attrs) string
	// summary takes the place of the usual words for pools that fail, after
	// their count.
	summary func(have string) string
	// hint is added where no pool can state the value.
	hint string
	// capacity marks the rules that are about room: a pool that fails only
	// these is said to lack capacity.
	capacity bool
}

// view is one pool as the rules see it. One view serves a whole placement, pool
// after pool, so that nothing is allocated for each.
type view struct {
	c *Candidate
	a *Attrs
	// moving is what the last rule saw that looked at a slot which moves with
	// the ledger, or at nothing.
	moving value
}

// eval asks the rule of one pool. It is the only place where rules are asked:
// Place, Explain and Fits agree because of it.
func (r *rule) eval(l *view) outcome {
	if r.check != nil {
		return r.check(l.c, l.a)
	}
	v := r.value(l)
	if v.kind == absent {
		return missing
	}
	if v.kind == list && r.elements != nil {
		return r.elements(l.a.listOf(v))
	}
	return r.test(v)
}

// value is what the pool has in the rule's slot.
func (r *rule) value(l *view) *value {
	if r.slot < slotStatic {
		return &l.a.vals[r.slot]
	}
	return r.otherValue(l)
}

func (r *rule) otherValue(l *view) *value {
	l.moving = value{}
	switch {
	case r.slot == slotAdvanced:
		if v := l.a.advanced(r.key); v != nil {
			return v
		}
	case r.slot == slotReservedCapacity:
		l.moving = numberValue(float64(max(l.c.Reserved, 0).GBCeil()))
	}
	return &l.moving
}

// haveText is the value seen, in words.
func (r *rule) haveText(l *view) string {
	if r.have != nil {
		return r.have(l.c, l.a)
	}
	v := r.value(l)
	if v.kind == list {
		return showList(l.a.listOf(v))
	}
	return v.show()
}

// note says why a rule could not be evaluated; empty where it could.
func (r *rule) note(l *view, out outcome) string {
	switch out {
	case missing:
		return "pool does not state it" + r.missingHint(l.a)
	case wrongType:
		return fmt.Sprintf("pool states %s, the rule needs %s", r.value(l).kind, r.needs)
	case unknownOp:
		return r.unknown
	case noFigures:
		return l.a.problem
	case fail:
		if r.check == nil && r.value(l).implied {
			return "pool does not state it"
		}
	}
	return ""
}

// missingHint helps with a name that is spelt nearly as one that exists.
func (r *rule) missingHint(a *Attrs) string {
	if r.slot == slotAdvanced {
		for _, k := range a.advKeys {
			if strings.EqualFold(k.Value(), r.name) {
				return fmt.Sprintf("; it states %s, and case counts", clip(k.Value()))
			}
		}
		if a.dropped > 0 {
			return fmt.Sprintf(" among the first %d values of extras.advanced, and no more are read", maxAdvanced)
		}
	}
	return r.hint
}

// changeText says what would have to change for the pool to pass.
func (r *rule) changeText(l *view, out outcome) string {
	switch out {
	case missing:
		return fmt.Sprintf("pool would have to state %s, or %s do without it", r.name, r.asker)
	case wrongType:
		return fmt.Sprintf("pool would have to state %s as %s, or %s ask for it otherwise", r.name, r.needs, r.asker)
	case unknownOp:
		return fmt.Sprintf("%s of %s would have to be corrected: %s", r.field, r.asker, r.unknown)
	case noFigures:
		return "pool would have to report figures that make sense: " + l.a.problem
	}
	if r.change != nil {
		return r.change(l.c, l.a)
	}
	return fmt.Sprintf("%s would have to accept %s %s instead of %s", r.asker, r.name, r.haveText(l), r.short)
}

// attribute is a rule on one value of the pool's JSON.
func attribute(path, field, asker string, w wish) *rule {
	r := &rule{name: path, field: field, asker: asker, wish: w, slot: slotOf(path)}
	if w.unknown != "" {
		r.check = func(*Candidate, *Attrs) outcome { return unknownOp }
	}
	switch r.slot {
	case slotAdvanced:
		r.key = unique.Make(path)
		r.cost = max(r.cost, costLookup)
	case slotUnknown:
		if known, d := nearest(path, slotNames[:]); d <= 3 {
			r.hint = fmt.Sprintf("; the nearest name that pools have is %s", known)
		}
	}
	return r
}

// requestRules are the rules that come from the request itself, in the order in
// which people want to read them.
func requestRules(r *Request, types []*rule) []*rule {
	const asker = "the request"
	status := attribute("status", "status", asker, wishExact(string(model.StatusAvailable)))
	status.have = func(c *Candidate, a *Attrs) string {
		s := a.vals[slotStatus].show()
		if c.Pool.Reason != "" {
			s += " (" + clip(c.Pool.Reason) + ")"
		}
		return s
	}
	status.change = func(c *Candidate, a *Attrs) string {
		return "pool would have to be available; it is " + status.have(c, a)
	}
	rules := append([]*rule{status}, types...)

	zone := r.AvailabilityZone
	if zone == "" {
		zone = DefaultZone
	}
	rules = append(rules, attribute("availabilityZone", "availabilityZone", asker, wishText(zone)))
	if r.PoolID != "" {
		id := attribute("id", "poolId", asker, wishExact(r.PoolID))
		id.cost = costFirst
		id.change = func(*Candidate, *Attrs) string {
			return fmt.Sprintf("the request would have to name this pool, or none, instead of %s", id.short)
		}
		rules = append(rules, id)
	}
	if r.RequirePoolID != "" {
		id := attribute("id", "poolId", asker, wishExact(r.RequirePoolID))
		id.cost = costFirst
		if r.RequireWhy != "" {
			id.want += " (" + clip(r.RequireWhy) + ")"
		}
		id.change = func(*Candidate, *Attrs) string {
			s := "it cannot be in another pool than " + id.short
			if r.RequireWhy != "" {
				s += ": " + clip(r.RequireWhy)
			}
			return s
		}
		rules = append(rules, id)
	}
	if len(r.Excluded) > 0 {
		rules = append(rules, excludedRule(r.Excluded))
	}
	if r.MultiAttach {
		rules = append(rules, attribute("multiAttach", "multiAttach", asker, wishBool(true)))
	}
	for _, need := range r.Needs {
		rules = append(rules, abilityRule(need))
	}
	return append(rules, freeRule(r), totalRule(r))
}

// excludedRule keeps a pool out that an earlier try failed on.
func excludedRule(why map[string]string) *rule {
	return &rule{
		name: "excluded", field: "excluded", asker: "the request", slot: slotID,
		wish: wish{want: "no failed try before", short: "untried", needs: "a text", cost: costLookup},
		check: func(c *Candidate, _ *Attrs) outcome {
			_, out := why[c.Pool.ID]
			return verdict(!out)
		},
		have: func(c *Candidate, _ *Attrs) string {
			if w, out := why[c.Pool.ID]; out {
				return "failed: " + clip(w)
			}
			return "none"
		},
		summary: func(have string) string { return "tried before (" + have + ")" },
		change: func(c *Candidate, _ *Attrs) string {
			return "what made the earlier try fail would have to be put right: " + clip(why[c.Pool.ID])
		},
	}
}

// abilityRule wants the pool's driver to be able to do something.
func abilityRule(need string) *rule {
	w := wishContains(elements([]string{need}))
	w.want = "contains " + clip(need)
	r := attribute("abilities", "abilities", "the request", w)
	r.summary = func(string) string { return "cannot " + clip(need) }
	r.change = func(*Candidate, *Attrs) string {
		return fmt.Sprintf("pool's driver would have to be able to %s", clip(need))
	}
	return r
}

// freeRule is the ledger's own condition. It is computed in bytes: a pool that
// passes it is one that the reservation will not refuse, if nothing was reserved
// since.
func freeRule(r *Request) *rule {
	size := max(r.Size, smallest)
	return &rule{
		name: "freeCapacity", field: "size", asker: "the request", slot: slotFreeCapacity, capacity: true,
		wish: wish{want: ">= " + gbCeil(size), short: ">= " + gbCeil(size), needs: "a number", cost: costFirst},
		check: func(c *Candidate, a *Attrs) outcome {
			if a.problem != "" {
				return noFigures
			}
			return verdict(a.free(c) >= size)
		},
		have: func(c *Candidate, a *Attrs) string {
			if a.problem != "" {
				return ""
			}
			return gbFloor(a.free(c))
		},
		change: func(c *Candidate, a *Attrs) string {
			s := fmt.Sprintf("free %s more", gbCeil(size-a.free(c)))
			if whole := a.free(c).GBFloor(); whole > 0 && r.Held == 0 {
				s += fmt.Sprintf(", or ask for at most %d GB", whole)
			}
			return s
		},
	}
}

// totalRule keeps a volume out of a pool that is smaller than the volume: a thin
// pool may promise more than it has, but not to one volume that could then never
// be filled. For thick pools it says nothing that freeCapacity does not.
func totalRule(r *Request) *rule {
	size := r.Held + max(r.Size, smallest)
	return &rule{
		name: "totalCapacity", field: "size", asker: "the request", slot: slotTotalCapacity, capacity: true,
		wish: wish{want: ">= " + gbCeil(size), short: ">= " + gbCeil(size), needs: "a number", cost: costFirst},
		check: func(_ *Candidate, a *Attrs) outcome {
			return verdict(a.total >= size)
		},
		have: func(_ *Candidate, a *Attrs) string { return gbFloor(a.total) },
		change: func(_ *Candidate, a *Attrs) string {
			return fmt.Sprintf("pool would have to be %s larger to hold a volume of %s", gbCeil(size-a.total), gbCeil(size))
		},
	}
}

// byCost gives the rules in the order in which Place asks them. The answer is
// the same in any order; only the work differs.
func byCost(rules []*rule) []*rule {
	order := slices.Clone(rules)
	slices.SortStableFunc(order, func(a, b *rule) int { return int(a.cost) - int(b.cost) })
	return order
}

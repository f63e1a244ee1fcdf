package selector

import (
	"fmt"
	"slices"
	"time"

	"github.com/osds-io/osds/pkg/model"
)

// DefaultMaxPools is how many pools an explanation writes out if it is not told,
// MaxPools how many at most.
const (
	DefaultMaxPools = 100
	MaxPools        = 1000
)

const noRecord = "there is no record of the pool"

// finding is what the rules found of one candidate.
type finding struct {
	index    int
	attrs    *Attrs
	id       string
	failures int
	score    float64
	free     model.Bytes
	named    bool // the pool that was asked for
}

func (f *finding) fits() bool { return f.failures == 0 }

// Explain asks every rule of every pool and says what it found: the winner is
// the one that Place gives for the same candidates. It writes out the best
// maxPools pools (DefaultMaxPools if 0 or less, MaxPools at most): those that
// fit by score, then the pool that was asked for, then those that fail the
// fewest rules.
func (p *Plan) Explain(cands []Candidate, maxPools int, rev int64, now time.Time) *model.Explanation {
	if maxPools <= 0 {
		maxPools = DefaultMaxPools
	}
	maxPools = min(maxPools, MaxPools)
	e := &model.Explanation{
		At: now.UTC(), Revision: rev, SizeGB: p.size.GBCeil(),
		ProfileID: p.profileID, ProfileName: p.profileName,
		Considered: len(cands),
	}
	var g ranges
	var l view
	blames := newBlames(p.rules)
	finds := make([]finding, len(cands))
	for i := range cands {
		finds[i] = p.look(&l, cands, i, blames)
		if f := &finds[i]; f.fits() {
			g.add(&cands[i], f.attrs)
			e.Fitting++
		}
	}
	for i := range finds {
		if f := &finds[i]; f.fits() {
			f.score = p.score(&cands[f.index], f.attrs, &g)
		}
	}
	slices.SortFunc(finds, compareFindings)
	n := min(len(finds), maxPools)
	e.Omitted = len(finds) - n
	e.Pools = make([]model.PoolVerdict, n)
	for i := range e.Pools {
		e.Pools[i] = p.verdictOf(&finds[i], &cands[finds[i].index], &g)
	}
	if e.Fitting > 0 {
		win := cands[finds[0].index].Pool
		e.WinnerID, e.WinnerName = win.ID, win.Name
	}
	e.Reason = p.reason(finds, cands, e.Fitting, blames)
	return e
}

// look asks all rules of one candidate and blames the first that failed.
func (p *Plan) look(l *view, cands []Candidate, i int, blames *blames) finding {
	c := &cands[i]
	f := finding{index: i, attrs: c.attrs()}
	l.c, l.a = c, f.attrs
	if f.attrs == nil {
		f.failures = len(p.rules) + 1
		blames.noRecord++
		return f
	}
	f.id = c.Pool.ID
	f.free = f.attrs.free(c)
	f.named = p.named != "" && f.id == p.named
	blamed, blamedOut, onlyRoom := -1, pass, true
	for n, r := range p.rules {
		out := r.eval(l)
		if out == pass {
			continue
		}
		f.failures++
		// Room comes last: a pool is said to lack it if all else is well.
		if blamed < 0 || onlyRoom && !r.capacity {
			blamed, blamedOut = n, out
		}
		onlyRoom = onlyRoom && r.capacity
	}
	if blamed >= 0 {
		blames.add(blamed, blamedOut, l)
	}
	return f
}

// compareFindings puts the best first.
func compareFindings(a, b finding) int {
	less := func(x bool) int {
		if x {
			return -1
		}
		return 1
	}
	switch {
	case a.fits() != b.fits():
		return less(a.fits())
	case a.fits():
		if a.score == b.score && a.id == b.id {
			return a.index - b.index
		}
		return less(better(a.score, a.id, b.score, b.id))
	case a.named != b.named:
		return less(a.named)
	case a.failures != b.failures:
		return a.failures - b.failures
	case a.free != b.free:
		return less(a.free > b.free)
	case a.id != b.id:
		return less(a.id < b.id)
	}
	return a.index - b.index
}

// verdictOf writes out one pool.
func (p *Plan) verdictOf(f *finding, c *Candidate, g *ranges) model.PoolVerdict {
	if f.attrs == nil {
		return model.PoolVerdict{Rules: []model.RuleResult{{Rule: "id", Want: "a pool", Note: noRecord}},
			Change: []string{noRecord}}
	}
	l := &view{c: c, a: f.attrs}
	v := model.PoolVerdict{PoolID: c.Pool.ID, PoolName: c.Pool.Name, Fits: f.fits()}
	v.Rules = make([]model.RuleResult, len(p.rules))
	for i, r := range p.rules {
		out := r.eval(l)
		v.Rules[i] = model.RuleResult{Rule: r.name, Want: r.want, Have: r.haveText(l), OK: out == pass}
		if out != pass {
			v.Rules[i].Note = r.note(l, out)
			v.Change = append(v.Change, r.changeText(l, out))
		}
	}
	if v.Fits {
		v.Score = f.score
		for w, weight := range p.weights {
			if weight != 0 {
				v.Weights = append(v.Weights, model.WeightResult{
					Weigher: weigherNames[w], Value: p.weigh(weigher(w), c, f.attrs, g), Weight: weight})
			}
		}
	}
	return v
}

// reason is the one sentence that says how it ended; finds are in order.
func (p *Plan) reason(finds []finding, cands []Candidate, fitting int, b *blames) string {
	name := func(i int) string { return poolName(cands[finds[i].index].Pool) }
	switch {
	case fitting == 1:
		return fmt.Sprintf("%s is the only pool that fits, of %s", name(0), count(len(finds), "pool"))
	case fitting > 1:
		return fmt.Sprintf("%s has the best score, %.3f, of %d pools that fit; next is %s with %.3f",
			name(0), finds[0].score, fitting, name(1), finds[1].score)
	case p.named != "":
		return p.namedReason(finds, cands)
	case len(finds) == 0:
		return "no pool fits: there are no pools; a pool comes with a dock that is running and has registered"
	}
	return "no pool fits: " + count(len(finds), "pool") + ": " + b.String()
}

// namedReason is for a request that only one pool can satisfy.
func (p *Plan) namedReason(finds []finding, cands []Candidate) string {
	what := "asked for"
	if p.required {
		what = "required"
	}
	if len(finds) == 0 || !finds[0].named {
		return fmt.Sprintf("no pool fits: there is no pool %s, which is %s", clip(p.named), what)
	}
	c := &cands[finds[0].index]
	return fmt.Sprintf("no pool fits: %s, which is %s, does not: %s", poolName(c.Pool), what, p.failures(&view{c: c, a: finds[0].attrs}))
}

// poolName is what people call the pool.
func poolName(p *model.Pool) string {
	if p.Name != "" {
		return clip(p.Name)
	}
	return clip(p.ID)
}

func count(n int, what string) string {
	return fmt.Sprintf("%d %s%s", n, what, plural(n, "", "s"))
}

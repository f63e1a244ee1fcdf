package selector

// weigher is one view of how good a pool is that fits, from 0 to 1.
type weigher int

const (
	// weighCapacity is the part of the limit that is left after the placement:
	// pools fill evenly.
	weighCapacity weigher = iota
	// weighSpread is 1 for a pool without volumes and 0 for the one with the
	// most: the loss of a pool takes few volumes with it.
	weighSpread
	// weighPhysical is the part of the pool that the backend says is free: a
	// thin pool that is really filling up is avoided before it is full, however
	// much may still be promised.
	weighPhysical
	// weighPerformance is how far up the pool is, in latency and IOPS, among
	// the pools that fit.
	weighPerformance
	weigherCount
)

var weigherNames = [weigherCount]string{"capacity", "spread", "physical", "performance"}

// maxWeight bounds a weight, so that no sum of scores loses its small parts.
const maxWeight = 1000

// weights are the factors of the weighers.
type weights [weigherCount]float64

// defaultWeights leave performance out: a profile that needs speed asks for it
// by a rule, and one that does not should leave the fast pools to those.
func defaultWeights() weights {
	return weights{weighCapacity: 1, weighSpread: 0.5, weighPhysical: 1, weighPerformance: 0}
}

// ranges are what the relative weighers measure by: the extremes among the pools
// that fit. They do not depend on the order of the pools.
type ranges struct {
	volumes        int
	latency, iops  bool // anyone states it
	minLat, maxLat float64
	minOps, maxOps float64
}

func (g *ranges) add(c *Candidate, a *Attrs) {
	g.volumes = max(g.volumes, c.Volumes)
	if v := &a.vals[slotLatency]; v.kind == number {
		if !g.latency {
			g.latency, g.minLat, g.maxLat = true, v.num, v.num
		}
		g.minLat, g.maxLat = min(g.minLat, v.num), max(g.maxLat, v.num)
	}
	if v := &a.vals[slotMaxIOPS]; v.kind == number {
		if !g.iops {
			g.iops, g.minOps, g.maxOps = true, v.num, v.num
		}
		g.minOps, g.maxOps = min(g.minOps, v.num), max(g.maxOps, v.num)
	}
}

// weigh gives one weigher's value.
func (p *Plan) weigh(w weigher, c *Candidate, a *Attrs, g *ranges) float64 {
	switch w {
	case weighCapacity:
		if a.limit <= 0 {
			return 0
		}
		return clamp(float64(a.free(c)-p.size) / float64(a.limit))
	case weighSpread:
		if g.volumes <= 0 {
			return 1
		}
		return clamp(1 - float64(c.Volumes)/float64(g.volumes))
	case weighPhysical:
		return a.physical
	case weighPerformance:
		return performance(a, g)
	}
	return 0
}

// performance is the mean of what the candidates can be told apart by; a pool
// that does not state a figure which others state counts as the slowest.
func performance(a *Attrs, g *ranges) float64 {
	sum, n := 0.0, 0.0
	if g.latency {
		n++
		if v := &a.vals[slotLatency]; v.kind == number {
			sum += part(g.maxLat-v.num, g.maxLat-g.minLat)
		}
	}
	if g.iops {
		n++
		if v := &a.vals[slotMaxIOPS]; v.kind == number {
			sum += part(v.num-g.minOps, g.maxOps-g.minOps)
		}
	}
	if n == 0 {
		return 0
	}
	return sum / n
}

func part(x, of float64) float64 {
	if of <= 0 {
		return 1
	}
	return clamp(x / of)
}

// score is the sum of the weighers' values times their weights, always added in
// the same order.
func (p *Plan) score(c *Candidate, a *Attrs, g *ranges) float64 {
	s := 0.0
	for w, f := range p.weights {
		if f != 0 {
			s += f * p.weigh(weigher(w), c, a, g)
		}
	}
	return s
}

// better is the one order of pools that fit: by score, and by id where the
// scores are equal.
func better(score float64, id string, than float64, thanID string) bool {
	if score != than {
		return score > than
	}
	return id < thanID
}

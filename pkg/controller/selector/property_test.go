package selector

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"unsafe"

	"github.com/osds-io/osds/pkg/model"
)

func pick[T any](r *rand.Rand, xs ...T) T { return xs[r.IntN(len(xs))] }

// randomPool makes pools from few values, so that ties, near misses and missing
// values are frequent.
func randomPool(r *rand.Rand, i int) *model.Pool {
	p := &model.Pool{
		Meta:   model.Meta{ID: fmt.Sprintf("%04x-%d", r.IntN(1<<16), i), Name: fmt.Sprint("pool-", i)},
		Status: pick(r, model.StatusAvailable, model.StatusAvailable, model.StatusAvailable, model.StatusUnavailable),
		Reason: pick(r, "", "no answer"), AvailabilityZone: pick(r, "default", "default", "Default", "b", ""),
		StorageType: pick(r, "block", "block", "block", "file", ""),
		Total:       model.Bytes(r.Int64N(200)) * model.GiB, OverProvisioning: pick(r, 0, 1, 1, 2.5, 10),
		MultiAttach: r.IntN(2) == 0, Abilities: pick(r, nil, []string{"clone"}, []string{"expand", "clone", "revert"}),
	}
	p.Free = model.Bytes(r.Int64N(int64(p.Total) + 1))
	p.Extras.DataStorage = model.DataStorage{ProvisioningPolicy: pick(r, "", "Thin", "thick"), Compression: pick(r, nil, ptr(true), ptr(false)), RecoveryTimeObjective: r.Int64N(3) * 10}
	p.Extras.IOConnectivity = model.IOConnectivity{AccessProtocol: pick(r, "", "iscsi", "rbd"), MaxIOPS: r.Int64N(4) * 1000, Latency: r.Int64N(4) * 10}
	p.Extras.Advanced = map[string]any{"diskType": pick[any](r, "SSD", "ssd", "SAS", 7.0, nil, []any{"SSD"}), "tier": pick[any](r, 1.0, 2.0, "1", true)}
	return p
}

func randomCandidates(r *rand.Rand, n int) []Candidate {
	out := make([]Candidate, n)
	for i := range out {
		p := randomPool(r, i)
		out[i] = Candidate{Pool: p, Reserved: model.Bytes(r.Int64N(100)) * model.GiB, Volumes: r.IntN(5)}
		if r.IntN(4) > 0 {
			out[i].Attrs = NewAttrs(p)
		}
		if r.IntN(50) == 0 {
			out[i] = Candidate{}
		}
	}
	return out
}

func randomProfile(r *rand.Rand, totals bool) *model.Profile {
	p := &model.Profile{Meta: model.Meta{ID: "p", Name: "prof"}, StorageType: pick(r, "block", "block", "", "file"), Custom: map[string]any{}}
	if r.IntN(3) == 0 {
		p.Provisioning.DataStorage = model.DataStorage{ProvisioningPolicy: pick(r, "", "Thin"), Compression: pick(r, nil, ptr(true), ptr(false)), RecoveryTimeObjective: r.Int64N(3) * 10}
	}
	if r.IntN(3) == 0 {
		p.Provisioning.IOConnectivity = model.IOConnectivity{AccessProtocol: pick(r, "", "ISCSI"), MaxIOPS: r.Int64N(3) * 1000, Latency: r.Int64N(4) * 10}
	}
	wishes := []any{"SSD", "s!= SAS", "<or> SSD <or> 7", "<in> ^S", "<is> true", ">= 1", "< 2", "= 1", 1.0, true, []any{"SSD"}, "=> 2"}
	if r.IntN(3) == 0 {
		p.Custom["capabilities:extras.advanced.diskType"] = pick(r, wishes...)
	}
	if r.IntN(3) == 0 {
		p.Custom["capabilities:extras.advanced.tier"] = pick(r, wishes...)
	}
	if totals && r.IntN(3) == 0 {
		p.Custom["capabilities:"+pick(r, "totalCapacity", "freeCapacity", "reservedCapacity")] = pick[any](r, "<= 100", ">= 50", "!= 60")
	}
	if r.IntN(3) == 0 {
		p.Custom["weights"] = map[string]any{pick(r, weigherNames[:]...): pick[any](r, -1.0, 0.0, 2.0, 0.3)}
	}
	return p
}

func randomRequest(r *rand.Rand, cands []Candidate, totals bool) Request {
	req := Request{Size: model.Bytes(r.Int64N(80)) * model.GiB, Profile: randomProfile(r, totals), MultiAttach: r.IntN(6) == 0}
	if r.IntN(5) == 0 {
		req.Profiles = []*model.Profile{randomProfile(r, totals)}
	}
	if r.IntN(6) == 0 {
		req.Needs = []string{"clone"}
	}
	if c := pick(r, cands...); r.IntN(6) == 0 && c.Pool != nil {
		req.PoolID = c.Pool.ID
	}
	if c := pick(r, cands...); r.IntN(6) == 0 && c.Pool != nil {
		req.Excluded = map[string]string{c.Pool.ID: "failed"}
	}
	return req
}

// forRandom runs a property on many random requests.
func forRandom(t *testing.T, f func(t *testing.T, r *rand.Rand, p *Plan, cands []Candidate)) {
	t.Helper()
	fitting := 0
	for seed := range uint64(3000) {
		r := rand.New(rand.NewPCG(seed, 42))
		cands := randomCandidates(r, 1+r.IntN(30))
		p, err := Compile(randomRequest(r, cands, false))
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		if _, ok := p.Place(cands); ok {
			fitting++
		}
		if f(t, r, p, cands); t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
	// A property of requests that never fit would prove nothing.
	if fitting < 500 || fitting > 2900 {
		t.Fatalf("%d of 3000 requests fit: the generator is no good", fitting)
	}
}

func TestPlaceIsExplained(t *testing.T) {
	forRandom(t, func(t *testing.T, r *rand.Rand, p *Plan, cands []Candidate) {
		winner, ok := p.Place(cands)
		e := p.Explain(cands, 1+r.IntN(40), 1, now)
		if ok != (e.WinnerID != "") || ok != (e.Fitting > 0) {
			t.Errorf("Place: %v, Explain: winner %q, %d fit", ok, e.WinnerID, e.Fitting)
		}
		if ok && (cands[winner].Pool.ID != e.WinnerID || e.Pools[0].PoolID != e.WinnerID || cands[winner].Pool.Name != e.WinnerName) {
			t.Errorf("Place: %s, Explain: %s, first %s", cands[winner].Pool.ID, e.WinnerID, e.Pools[0].PoolID)
		}
		if e.Reason == "" || e.Considered != len(cands) || e.Omitted+len(e.Pools) != len(cands) {
			t.Errorf("%+v", e)
		}
		byID := map[string]*Candidate{}
		for i := range cands {
			if cands[i].Pool != nil {
				byID[cands[i].Pool.ID] = &cands[i]
			}
		}
		for _, v := range e.Pools {
			all := !slices.ContainsFunc(v.Rules, func(x model.RuleResult) bool { return !x.OK })
			if all != v.Fits || v.Fits != (len(v.Change) == 0) {
				t.Errorf("pool %s: fits %v, rules %+v, change %q", v.PoolID, v.Fits, v.Rules, v.Change)
			}
			if c := byID[v.PoolID]; c != nil {
				if reason, fits := p.Fits(c); fits != v.Fits || fits != (reason == "") {
					t.Errorf("pool %s: Fits %v (%s), Explain %v", v.PoolID, fits, reason, v.Fits)
				}
			}
		}
	})
}

func TestOrderDoesNotMatter(t *testing.T) {
	forRandom(t, func(t *testing.T, r *rand.Rand, p *Plan, cands []Candidate) {
		before, ok := p.Place(cands)
		id := ""
		if ok {
			id = cands[before].Pool.ID
		}
		first, _ := json.Marshal(p.Explain(cands, 10, 1, now))
		shuffled := slices.Clone(cands)
		r.Shuffle(len(shuffled), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
		after, ok2 := p.Place(shuffled)
		if ok != ok2 || ok && shuffled[after].Pool.ID != id {
			t.Errorf("another order, another winner: %s", id)
		}
		second, _ := json.Marshal(p.Explain(shuffled, 10, 1, now))
		if string(first) != string(second) {
			t.Errorf("another order, another explanation:\n%s\n%s", first, second)
		}
	})
}

func TestMoreCapacityStillFits(t *testing.T) {
	forRandom(t, func(t *testing.T, r *rand.Rand, p *Plan, cands []Candidate) {
		for i := range cands {
			c := cands[i]
			if _, ok := p.Fits(&c); !ok {
				continue
			}
			larger := *c.Pool
			larger.Total += model.Bytes(r.Int64N(1000)) * model.GiB
			larger.OverProvisioning = max(larger.OverProvisioning, 1) * (1 + r.Float64())
			c.Pool, c.Attrs = &larger, NewAttrs(&larger)
			c.Reserved = model.Bytes(r.Int64N(int64(c.Reserved) + 1))
			if reason, ok := p.Fits(&c); !ok {
				t.Errorf("a larger pool does not fit: %s", reason)
			}
		}
	})
}

// Removing a pool that did not win never changes who fits, and the winner among
// equals by absolute weighers stays.
func TestFittingIsOfThePoolAlone(t *testing.T) {
	for seed := range uint64(1000) {
		r := rand.New(rand.NewPCG(seed, 7))
		cands := randomCandidates(r, 2+r.IntN(10))
		p := compile(t, randomRequest(r, cands, true))
		all := p.Explain(cands, 100, 1, now)
		drop := r.IntN(len(cands))
		fewer := p.Explain(slices.Delete(slices.Clone(cands), drop, drop+1), 100, 1, now)
		was := map[string]bool{}
		for _, v := range all.Pools {
			was[v.PoolID] = v.Fits
		}
		for _, v := range fewer.Pools {
			if was[v.PoolID] != v.Fits {
				t.Fatalf("seed %d: pool %s fits: %v, without another: %v", seed, v.PoolID, was[v.PoolID], v.Fits)
			}
		}
	}
}

// A plan and the Attrs serve several goroutines, and leave no trace in what they
// were made from.
func TestPlanIsShared(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 5))
	cands := randomCandidates(r, 40)
	req := randomRequest(r, cands, true)
	req.Profile.Custom["capabilities:name"] = "<in> pool"
	req.Profile.Custom["capabilities:reservedCapacity"] = ">= 0"
	before, _ := json.Marshal(struct {
		P *model.Profile
		C []Candidate
	}{req.Profile, cands})
	p := compile(t, req)
	want, _ := p.Place(cands)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 50 {
				if w, _ := p.Place(cands); w != want {
					t.Errorf("winner %d, want %d", w, want)
				}
				p.Explain(cands, 10, 1, now)
			}
		})
	}
	wg.Wait()
	after, _ := json.Marshal(struct {
		P *model.Profile
		C []Candidate
	}{req.Profile, cands})
	if string(before) != string(after) {
		t.Error("the selector changed what it was given")
	}
}

// Placement is bound by memory: two values to a cache line.
func TestValueSize(t *testing.T) {
	if n := unsafe.Sizeof(value{}); n != 32 {
		t.Errorf("a value takes %d bytes", n)
	}
}

// Place allocates for the call, not for each pool.
func TestPlaceAllocations(t *testing.T) {
	cands := benchPools(2000)
	p := benchPlan(t)
	// Package regexp keeps its machines in a sync.Pool, which the race detector
	// empties at random.
	p.order = slices.DeleteFunc(p.order, func(r *rule) bool { return r.cost == costRegexp })
	if n := testing.AllocsPerRun(5, func() { p.Place(cands) }); n > 4 {
		t.Errorf("%v allocations for %d pools", n, len(cands))
	}
	moving := compile(t, Request{Size: 1, Profile: custom(t, "capabilities:reservedCapacity", `">= 1"`)})
	if n := testing.AllocsPerRun(5, func() { moving.Place(cands) }); n > 4 {
		t.Errorf("%v allocations with a value that moves", n)
	}
}

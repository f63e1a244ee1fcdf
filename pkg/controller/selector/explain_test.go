package selector

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/osds-io/osds/pkg/model"
)

// zonePool is an empty thick pool of 100 GB.
func zonePool(name, zone string) Candidate {
	p := richPool()
	p.ID, p.Name, p.AvailabilityZone = name+"-id", name, zone
	p.Free = p.Total
	return candidate(p)
}

func TestExplainNoFit(t *testing.T) {
	a, b, c := zonePool("pool-a", "a"), zonePool("pool-x", "a"), zonePool("pool-c", "b")
	a.Reserved, b.Reserved = 70*model.GiB, 60*model.GiB
	p := compile(t, Request{Size: 50 * model.GiB, AvailabilityZone: "a", Profile: &model.Profile{Meta: model.Meta{ID: "g", Name: "gold"}}})
	e := p.Explain([]Candidate{a, b, c}, 0, 7, now)
	if want := "no pool fits: 3 pools: 2 lack capacity (largest free 40 GB in pool-x), 1 availabilityZone is b, not a"; e.Reason != want {
		t.Errorf("reason\n%s\n%s", e.Reason, want)
	}
	if e.Considered != 3 || e.Fitting != 0 || e.Omitted != 0 || e.WinnerID != "" || e.SizeGB != 50 || e.Revision != 7 || !e.At.Equal(now) || e.ProfileID != "g" || e.ProfileName != "gold" {
		t.Errorf("%+v", e)
	}
	// The pool with room comes first among those that fail one rule.
	if got := []string{e.Pools[0].PoolName, e.Pools[1].PoolName, e.Pools[2].PoolName}; !slices.Equal(got, []string{"pool-c", "pool-x", "pool-a"}) {
		t.Errorf("order %q", got)
	}
	if got := e.Pools[1].Change; !slices.Equal(got, []string{"free 10 GB more, or ask for at most 40 GB"}) {
		t.Errorf("change %q", got)
	}
}

func TestReasons(t *testing.T) {
	down := zonePool("down", "default")
	down.Pool.Status, down.Pool.Reason = model.StatusUnavailable, "dock is silent"
	down.Attrs = NewAttrs(down.Pool)
	slow := zonePool("slow", "default")
	slow.Pool.Extras.IOConnectivity.Latency = 100
	slow.Attrs = NewAttrs(slow.Pool)
	mute := zonePool("mute", "default")
	mute.Pool.Extras.IOConnectivity.Latency = 0
	mute.Attrs = NewAttrs(mute.Pool)
	good := zonePool("good", "default")
	fast := profileJSON(t, `{"name":"fast","provisioning":{"ioConnectivity":{"latency":50}}}`)
	big := zonePool("big", "default")
	big.Pool.OverProvisioning = 10
	big.Attrs = NewAttrs(big.Pool)
	ten := make([]Candidate, 10)
	for i := range ten {
		ten[i] = zonePool(fmt.Sprint("p", i), fmt.Sprint("z", i))
	}
	tests := []struct {
		name string
		r    Request
		c    []Candidate
		want string
	}{
		{"nothing there", Request{}, nil, "no pool fits: there are no pools; a pool comes with a dock that is running and has registered"},
		{"several reasons", Request{Size: model.GiB, Profile: fast}, []Candidate{down, slow, mute, {}},
			"no pool fits: 4 pools: 1 status is unavailable (dock is silent), not available, 1 extras.ioConnectivity.latency is 100, not <= 50, " +
				"1 does not state extras.ioConnectivity.latency, 1 without a record"},
		{"many values", Request{}, ten, "no pool fits: 10 pools: 10 availabilityZone is z0 or z1 or z2 or others, not default"},
		{"one fits", Request{Profile: fast}, []Candidate{slow, good}, "good is the only pool that fits, of 2 pools"},
		{"asked for, unknown", Request{PoolID: "nope"}, []Candidate{good}, "no pool fits: there is no pool nope, which is asked for"},
		{"asked for, no pools", Request{PoolID: "nope"}, nil, "no pool fits: there is no pool nope, which is asked for"},
		{"asked for, does not fit", Request{PoolID: "slow-id", Profile: fast}, []Candidate{good, slow},
			"no pool fits: slow, which is asked for, does not: extras.ioConnectivity.latency is 100, want <= 50"},
		{"required, does not fit", Request{RequirePoolID: "down-id", RequireWhy: "its source is there"}, []Candidate{good, down},
			"no pool fits: down, which is required, does not: status is unavailable (dock is silent), want == available"},
		{"asked for one, required another", Request{PoolID: "good-id", RequirePoolID: "slow-id", RequireWhy: "the group is there"}, []Candidate{good, slow},
			"no pool fits: slow, which is required, does not: id is slow-id, want == good-id"},
		{"tried before", Request{Excluded: map[string]string{"good-id": "lvcreate failed"}}, []Candidate{good}, "no pool fits: 1 pool: 1 tried before (failed: lvcreate failed)"},
		{"ability", Request{Needs: []string{"revert"}}, []Candidate{good}, "no pool fits: 1 pool: 1 cannot revert"},
		{"lacks capacity", Request{Size: 101 * model.GiB}, []Candidate{good}, "no pool fits: 1 pool: 1 lacks capacity (largest free 100 GB in good)"},
		{"larger than a thin pool", Request{Size: 101 * model.GiB}, []Candidate{big}, "no pool fits: 1 pool: 1 smaller than the volume (largest 100 GB: big)"},
		{"slow and full: the wish, not the room", Request{Size: 101 * model.GiB, Profile: fast}, []Candidate{slow},
			"no pool fits: 1 pool: 1 extras.ioConnectivity.latency is 100, not <= 50"},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			if got := compile(t, tc.r).Explain(tc.c, 10, 1, now).Reason; got != tc.want {
				t.Errorf("\n%s\n%s", got, tc.want)
			}
		})
	}
}

// A request for one pool shows that pool first, however many others come closer.
func TestNamedPoolComesFirst(t *testing.T) {
	cands := make([]Candidate, 50)
	for i := range cands {
		cands[i] = zonePool(fmt.Sprintf("p%02d", i), "default")
	}
	cands[33].Pool.Status = model.StatusUnavailable
	cands[33].Attrs = NewAttrs(cands[33].Pool)
	cands[33].Reserved = cands[33].Pool.Total
	e := compile(t, Request{Size: model.GiB, PoolID: "p33-id"}).Explain(cands, 3, 1, now)
	if len(e.Pools) != 3 || e.Omitted != 47 || e.Pools[0].PoolID != "p33-id" || len(e.Pools[0].Change) != 2 {
		t.Errorf("%+v", e.Pools[0])
	}
}

func TestExplainBounds(t *testing.T) {
	cands := make([]Candidate, MaxPools+5)
	for i := range cands {
		cands[i] = zonePool(fmt.Sprintf("p%04d", i), "default")
	}
	p := compile(t, Request{Size: model.GiB})
	for ask, want := range map[int]int{-1: DefaultMaxPools, 0: DefaultMaxPools, 1: 1, 7: 7, MaxPools: MaxPools, MaxPools + 5: MaxPools, math.MaxInt: MaxPools} {
		if e := p.Explain(cands, ask, 1, now); len(e.Pools) != want || e.Omitted != len(cands)-want || e.Considered != len(cands) {
			t.Errorf("%d asked: %d pools, %d omitted", ask, len(e.Pools), e.Omitted)
		}
	}
	if e := p.Explain(nil, 5, 1, now); e.Pools == nil || len(e.Pools) != 0 {
		t.Errorf("no pools are an empty list: %#v", e.Pools)
	}
}

// Score is the sum of what is shown.
func TestScoreAddsUp(t *testing.T) {
	a, b := zonePool("a", "default"), zonePool("b", "default")
	a.Reserved, a.Volumes, b.Volumes = 20*model.GiB, 1, 4
	e := compile(t, Request{Size: 10 * model.GiB}).Explain([]Candidate{b, a}, 5, 1, now)
	if e.WinnerID != "a-id" || e.WinnerName != "a" || e.Pools[0].PoolID != "a-id" || e.Fitting != 2 {
		t.Fatalf("%+v", e)
	}
	for _, v := range e.Pools {
		sum := 0.0
		for _, w := range v.Weights {
			if w.Value < 0 || w.Value > 1 {
				t.Errorf("%s: %+v", v.PoolID, w)
			}
			sum += w.Value * w.Weight
		}
		if sum != v.Score || len(v.Weights) != 3 {
			t.Errorf("%s: %v, %+v", v.PoolID, v.Score, v.Weights)
		}
	}
	want := []model.WeightResult{{Weigher: "capacity", Value: 0.7, Weight: 1}, {Weigher: "spread", Value: 0.75, Weight: 0.5}, {Weigher: "physical", Value: 1, Weight: 1}}
	for i, w := range e.Pools[0].Weights {
		if w.Weigher != want[i].Weigher || math.Abs(w.Value-want[i].Value) > 1e-12 || w.Weight != want[i].Weight {
			t.Errorf("%+v, want %+v", w, want[i])
		}
	}
	if want := "a has the best score, 2.075, of 2 pools that fit; next is b with 1.900"; e.Reason != want {
		t.Errorf("%s", e.Reason)
	}
}

func TestWeighers(t *testing.T) {
	only := func(name string, weight float64) *model.Profile {
		w := map[string]any{"capacity": 0.0, "spread": 0, "physical": 0.0, "performance": 0.0}
		w[name] = weight
		return &model.Profile{Custom: map[string]any{"weights": w}}
	}
	a, b := zonePool("a", "default"), zonePool("b", "default")
	a.Reserved, b.Reserved = 10*model.GiB, 50*model.GiB // more room in a
	a.Volumes, b.Volumes = 9, 2                         // fewer volumes in b
	a.Pool.Free, b.Pool.Free = 20*model.GiB, 40*model.GiB
	b.Pool.Extras.IOConnectivity.Latency = 5 // b is faster
	a.Attrs, b.Attrs = NewAttrs(a.Pool), NewAttrs(b.Pool)
	for _, tc := range []struct {
		weigher string
		weight  float64
		want    int
	}{
		{"capacity", 1, 0}, {"capacity", -1, 1}, // turned round, pools are filled one after the other
		{"spread", 1, 1}, {"spread", -1, 0},
		{"physical", 1, 1}, {"physical", -1, 0},
		{"performance", 1, 1}, {"performance", -1, 0},
	} {
		p := compile(t, Request{Size: model.GiB, Profile: only(tc.weigher, tc.weight)})
		if w, ok := p.Place([]Candidate{a, b}); !ok || w != tc.want {
			t.Errorf("%s %v: %d %v", tc.weigher, tc.weight, w, ok)
		}
		if e := p.Explain([]Candidate{a, b}, 2, 1, now); len(e.Pools[0].Weights) != 1 || e.Pools[0].Weights[0].Weigher != tc.weigher {
			t.Errorf("%s: %+v", tc.weigher, e.Pools[0].Weights)
		}
	}
	// All weights off: the least id.
	if w, _ := compile(t, Request{Size: model.GiB, Profile: only("spread", 0)}).Place([]Candidate{b, a}); w != 1 {
		t.Errorf("tie: %d", w)
	}
	// A pool that states no figures is the slowest.
	a.Pool.Extras.IOConnectivity = model.IOConnectivity{}
	a.Attrs = NewAttrs(a.Pool)
	if w, _ := compile(t, Request{Size: model.GiB, Profile: only("performance", 1)}).Place([]Candidate{a, b}); w != 1 {
		t.Errorf("a mute pool: %d", w)
	}
}

func TestWeightsOfProfile(t *testing.T) {
	for _, tc := range []struct{ json, field, part string }{
		{`{"capacity": 2, "spread": 0.5, "physical": -1, "performance": 1000}`, "", ""},
		{`{}`, "", ""},
		{`{"capasity": 1}`, "customProperties.weights.capasity", `the nearest is "capacity"`},
		{`{"Spread": 1}`, "customProperties.weights.Spread", `the nearest is "spread"`},
		{`{"capacity": "1"}`, "customProperties.weights.capacity", "must be a number"},
		{`{"capacity": 1001}`, "customProperties.weights.capacity", "from -1000 to 1000"},
		{`{"capacity": null}`, "customProperties.weights.capacity", "must be a number"},
		{`[1]`, "customProperties.weights", "must be an object"},
		{`"capacity"`, "customProperties.weights", "must be an object"},
	} {
		prof := custom(t, "weights", tc.json)
		_, cerr := Compile(Request{Profile: prof})
		for _, err := range []error{ValidateProfile(prof), cerr} {
			if tc.field == "" {
				if err != nil {
					t.Errorf("%s: %v", tc.json, err)
				}
				continue
			}
			if e := model.AsError(err); err == nil || e.Kind != model.KindInvalid || e.Field != tc.field || !strings.Contains(e.Message, tc.part) {
				t.Errorf("%s: %v", tc.json, err)
			}
		}
	}
	// Weighers that are not named keep their defaults.
	p := compile(t, Request{Profile: custom(t, "weights", `{"spread": 3}`)})
	if want := (weights{1, 3, 1, 0}); p.weights != want {
		t.Errorf("%v", p.weights)
	}
	// The first profile that sets weights sets them.
	p = compile(t, Request{Profiles: []*model.Profile{{}, custom(t, "weights", `{"spread": 4}`), custom(t, "weights", `{"spread": 5}`)}})
	if p.weights[weighSpread] != 4 {
		t.Errorf("%v", p.weights)
	}
}

// The explanation of the same candidates is the same in JSON, whatever their
// order, and it can be stored.
func TestExplanationIsStable(t *testing.T) {
	cands := []Candidate{zonePool("a", "default"), zonePool("b", "x"), zonePool("c", "default"), zonePool("d", "y")}
	p := compile(t, Request{Size: 10 * model.GiB})
	first, err := json.Marshal(p.Explain(cands, 10, 3, now))
	if err != nil {
		t.Fatal(err)
	}
	slices.Reverse(cands)
	second, err := json.Marshal(p.Explain(cands, 10, 3, now))
	if err != nil {
		t.Fatal(err)
	}
	if string(first) != string(second) {
		t.Errorf("\n%s\n%s", first, second)
	}
}

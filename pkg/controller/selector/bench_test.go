package selector

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/osds-io/osds/pkg/model"
)

// benchPools are n pools that differ in figures and texts; their Attrs are made
// as in service, once.
func benchPools(n int) []Candidate {
	r := rand.New(rand.NewPCG(1, 2))
	yes, no := true, false
	out := make([]Candidate, n)
	for i := range out {
		p := &model.Pool{
			Meta:   model.Meta{ID: fmt.Sprintf("%08x-a102-11e7-88a8-e31fe6d52248", r.Uint32()), Name: fmt.Sprintf("pool-%05d", i)},
			DockID: fmt.Sprintf("dock-%03d", i%500), Backend: "lvm", Status: model.StatusAvailable,
			AvailabilityZone: "default", StorageType: "block", Driver: "lvm", MultiAttach: true,
			Total: model.Bytes(1+r.IntN(50)) * model.TiB, OverProvisioning: 2,
			Abilities: []string{model.AbilityExpand, model.AbilitySnapshot, model.AbilityClone, model.AbilityExport},
		}
		p.Free = p.Total / 2
		p.Extras.DataStorage = model.DataStorage{ProvisioningPolicy: "Thin", Compression: &yes, Deduplication: &no, RecoveryTimeObjective: 5}
		p.Extras.IOConnectivity = model.IOConnectivity{AccessProtocol: "iscsi", MaxIOPS: int64(8000 + r.IntN(9000)),
			MinIOPS: 1000, MaxBWS: 700, MinBWS: 100, Latency: int64(1 + r.IntN(20))}
		p.Extras.DataProtection = model.DataProtection{IsIsolated: &yes, RecoveryGeographicObject: "Datacenter", ReplicaType: "Mirror"}
		p.Extras.Advanced = map[string]any{"diskType": "SSD", "vendor": "acme", "tier": 1.0, "rack": fmt.Sprintf("r%d", i%40),
			"net": map[string]any{"speed": 25.0, "paths": 2.0}}
		out[i] = Candidate{Pool: p, Attrs: NewAttrs(p), Reserved: model.Bytes(r.Int64N(int64(p.Total))), Volumes: r.IntN(300)}
	}
	return out
}

// benchPlan has 20 rules, the usual ones of every request among them, and every
// pool passes all of them: the most work there is.
func benchPlan(tb testing.TB) *Plan {
	yes := true
	prof := &model.Profile{Meta: model.Meta{ID: "p", Name: "gold"}, StorageType: "block"}
	prof.Provisioning.DataStorage = model.DataStorage{ProvisioningPolicy: "thin", Compression: &yes, RecoveryTimeObjective: 10}
	prof.Provisioning.IOConnectivity = model.IOConnectivity{AccessProtocol: "ISCSI", MaxIOPS: 8000, MaxBWS: 500, Latency: 20}
	prof.Replication.DataProtection = model.DataProtection{IsIsolated: &yes, ReplicaType: "mirror"}
	prof.Custom = map[string]any{
		"capabilities:extras.advanced.diskType":  "<or> NVME <or> SSD",
		"capabilities:extras.advanced.vendor":    "s== acme",
		"capabilities:extras.advanced.net.speed": ">= 10",
		"capabilities:extras.advanced.tier":      1.0,
		"capabilities:name":                      "<in> ^pool-",
	}
	p, err := Compile(Request{Size: 10 * model.GiB, Profile: prof, MultiAttach: true})
	if err != nil {
		tb.Fatal(err)
	}
	if n := len(p.rules); n != 20 {
		tb.Fatalf("the plan has %d rules", n)
	}
	return p
}

func BenchmarkPlace10000x20(b *testing.B) {
	cands, p := benchPools(10000), benchPlan(b)
	b.ReportAllocs()
	for b.Loop() {
		if _, ok := p.Place(cands); !ok {
			b.Fatal("no pool fits")
		}
	}
}

func BenchmarkExplain10000x20(b *testing.B) {
	cands, p := benchPools(10000), benchPlan(b)
	now := time.Now()
	b.ReportAllocs()
	for b.Loop() {
		if e := p.Explain(cands, 100, 1, now); e.Fitting != 10000 || len(e.Pools) != 100 {
			b.Fatalf("%d of %d fit, %d written", e.Fitting, e.Considered, len(e.Pools))
		}
	}
}

// No pool fits: every pool is blamed on a rule and the summary is written.
func BenchmarkExplainNoFit10000x20(b *testing.B) {
	cands := benchPools(10000)
	for i := range cands {
		cands[i].Reserved = cands[i].Attrs.limit
	}
	p, now := benchPlan(b), time.Now()
	b.ReportAllocs()
	for b.Loop() {
		if e := p.Explain(cands, 100, 1, now); e.Fitting != 0 || e.Reason == "" {
			b.Fatalf("%d fit: %s", e.Fitting, e.Reason)
		}
	}
}

func BenchmarkCompile20(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		benchPlan(b)
	}
}

func BenchmarkNewAttrs(b *testing.B) {
	p := benchPools(1)[0].Pool
	b.ReportAllocs()
	for b.Loop() {
		NewAttrs(p)
	}
}

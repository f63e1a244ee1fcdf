//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/osds-io/osds/pkg/controller/selector"
	"github.com/osds-io/osds/pkg/model"
)

const (
	placementPools = 10000
	placementRules = 20
	explainedPools = 100
)

// placement measures the choice of a pool, called in this process: 10,000 pools,
// 20 rules that every pool passes, which is the most work there is.
func (b *bench) placement(ctx context.Context) error {
	b.r.head("placement: %d pools, %d rules, in this process (%s each)", placementPools, placementRules, b.placeFor)
	cands := manyPools(placementPools)
	plan, err := manyRules()
	if err != nil {
		return err
	}
	now := time.Now()
	ex := plan.Explain(cands, explainedPools, 1, now)
	if ex.Fitting != placementPools || len(ex.Pools) != explainedPools || len(ex.Pools[0].Rules) != placementRules {
		return fmt.Errorf("placement: %d pools fit, %d are explained, with %d rules", ex.Fitting, len(ex.Pools), len(ex.Pools[0].Rules))
	}
	place, err := repeat(ctx, b.placeFor, func() error {
		if _, ok := plan.Place(cands); !ok {
			return errors.New("no pool fits")
		}
		return nil
	})
	if err != nil {
		return err
	}
	explain, err := repeat(ctx, b.placeFor, func() error {
		plan.Explain(cands, explainedPools, 1, now)
		return nil
	})
	if err != nil {
		return err
	}
	b.r.say("  place    p50 %8s   p99 %8s", ms(place.p50), ms(place.p99))
	b.r.say("  explain  p50 %8s   p99 %8s   (%d pools written out)", ms(explain.p50), ms(explain.p99), explainedPools)
	b.r.atMost("place_10000x20", float64(place.p50)/1e6, "ms", 5)
	b.r.atMost("explain_10000x20", float64(explain.p50)/1e6, "ms", 25)
	return nil
}

// repeat calls f one after the other for a while.
func repeat(ctx context.Context, d time.Duration, f func() error) (figures, error) {
	var took []time.Duration
	began := time.Now()
	for time.Since(began) < d && ctx.Err() == nil {
		t := time.Now()
		if err := f(); err != nil {
			return figures{}, err
		}
		took = append(took, time.Since(t))
	}
	slices.Sort(took)
	return figuresOf(took, time.Since(began)), ctx.Err()
}

// manyPools are pools that differ in figures and texts.
func manyPools(n int) []selector.Candidate {
	r := rand.New(rand.NewPCG(3, 4))
	yes, no := true, false
	out := make([]selector.Candidate, n)
	for i := range out {
		p := &model.Pool{
			Meta:   model.Meta{ID: fmt.Sprintf("%08x-0000-4000-8000-%012x", r.Uint32(), i), Name: fmt.Sprintf("pool-%05d", i)},
			DockID: fmt.Sprintf("dock-%03d", i%400), Backend: "ceph", Status: model.StatusAvailable, AvailabilityZone: "default",
			StorageType: "block", Driver: "ceph", MultiAttach: true, Total: model.Bytes(2+r.IntN(60)) * model.TiB, OverProvisioning: 2,
			Abilities: []string{model.AbilityExpand, model.AbilitySnapshot, model.AbilityClone, model.AbilityExport},
		}
		p.Free = p.Total / 2
		p.Extras.DataStorage = model.DataStorage{ProvisioningPolicy: "Thin", Compression: &yes, Deduplication: &no, RecoveryTimeObjective: 5}
		p.Extras.IOConnectivity = model.IOConnectivity{AccessProtocol: "iscsi", MaxIOPS: 9000 + r.Int64N(9000), MinIOPS: 1000,
			MaxBWS: 800, MinBWS: 100, Latency: 1 + r.Int64N(20)}
		p.Extras.DataProtection = model.DataProtection{IsIsolated: &yes, RecoveryGeographicObject: "Datacenter", ReplicaType: "Mirror"}
		p.Extras.Advanced = map[string]any{"diskType": "SSD", "vendor": "acme", "tier": 1.0, "row": fmt.Sprintf("r%d", i%40),
			"net": map[string]any{"speed": 25.0, "paths": 2.0}}
		out[i] = selector.Candidate{Pool: p, Attrs: selector.NewAttrs(p), Reserved: model.Bytes(r.Int64N(int64(p.Total))), Volumes: r.IntN(300)}
	}
	return out
}

// manyRules is a request with placementRules rules, those of every request among
// them.
func manyRules() (*selector.Plan, error) {
	yes := true
	p := &model.Profile{Meta: model.Meta{ID: "p", Name: "gold"}, StorageType: "block"}
	p.Provisioning.DataStorage = model.DataStorage{ProvisioningPolicy: "Thin", Compression: &yes, RecoveryTimeObjective: 10}
	p.Provisioning.IOConnectivity = model.IOConnectivity{AccessProtocol: "iscsi", MaxIOPS: 8000, MaxBWS: 500, Latency: 20}
	p.Replication.DataProtection = model.DataProtection{IsIsolated: &yes, ReplicaType: "Mirror"}
	p.Custom = map[string]any{
		"capabilities:extras.advanced.diskType":  "<or> NVME <or> SSD",
		"capabilities:extras.advanced.vendor":    "s== acme",
		"capabilities:extras.advanced.net.speed": ">= 10",
		"capabilities:extras.advanced.tier":      1.0,
		"capabilities:name":                      "<in> ^pool-",
	}
	return selector.Compile(selector.Request{Size: 10 * model.GiB, Profile: p, MultiAttach: true})
}

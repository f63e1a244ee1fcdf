package selector

import (
	"encoding/json"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/osds-io/osds/pkg/model"
	"github.com/osds-io/osds/pkg/model/wire"
)

var now = time.Date(2026, 11, 20, 21, 40, 25, 0, time.UTC)

func ptr[T any](x T) *T { return &x }

// richPool states everything that a profile can ask for.
func richPool() *model.Pool {
	p := samplePools()[0]
	p.Name, p.ID = "pool-x", "pool-x-id"
	p.Abilities = []string{model.AbilityExpand, model.AbilityClone}
	p.Extras.DataStorage = model.DataStorage{RecoveryTimeObjective: 10, ProvisioningPolicy: "Thin", Compression: ptr(true), Deduplication: ptr(false),
		CharacterCodeSet: "ASCII", MaxFileNameLengthBytes: 255, StorageAccessCapability: []string{"Read", "Write"}}
	p.Extras.IOConnectivity = model.IOConnectivity{AccessProtocol: "iscsi", MaxIOPS: 1000, MinIOPS: 100, MaxBWS: 500, MinBWS: 50, Latency: 20}
	p.Extras.DataProtection = model.DataProtection{IsIsolated: ptr(true), RecoveryGeographicObject: "Datacenter", RecoveryTimeObjective: "OnlineActive", ReplicaType: "Mirror"}
	return p
}

// Every documented rule, met and not met.
func TestRules(t *testing.T) {
	const (
		ds = "extras.dataStorage."
		io = "extras.ioConnectivity."
		dp = "extras.dataProtection."
	)
	profile := func(s string) func(*testing.T, *Request, *model.Pool) {
		return func(t *testing.T, r *Request, _ *model.Pool) { r.Profile = profileJSON(t, s) }
	}
	request := func(f func(*Request)) func(*testing.T, *Request, *model.Pool) {
		return func(_ *testing.T, r *Request, _ *model.Pool) { f(r) }
	}
	pool := func(f func(*model.Pool)) func(*testing.T, *Request, *model.Pool) {
		return func(_ *testing.T, _ *Request, p *model.Pool) { f(p) }
	}
	// stated asks by the profile and takes what the pool states away.
	without := func(s string, f func(*model.Pool)) func(*testing.T, *Request, *model.Pool) {
		return func(t *testing.T, r *Request, p *model.Pool) { r.Profile = profileJSON(t, s); f(p) }
	}
	tests := []struct {
		name       string
		set        func(*testing.T, *Request, *model.Pool)
		rule       string
		want, have string
		ok         bool
		change     string // part of the change, where it does not fit
	}{
		{"status", pool(func(p *model.Pool) {}), "status", "== available", "available", true, ""},
		{"status", pool(func(p *model.Pool) { p.Status, p.Reason = model.StatusUnavailable, "dock is silent" }), "status",
			"== available", "unavailable (dock is silent)", false, "pool would have to be available; it is unavailable (dock is silent)"},
		{"storage type", profile(`{"storageType":"block"}`), "storageType", "== block", "block", true, ""},
		{"storage type", profile(`{"name":"nas","storageType":"file"}`), "storageType", "== file", "block", false, "profile nas would have to accept storageType block instead of file"},
		{"no zone", request(func(r *Request) {}), "availabilityZone", "== default", "default", true, ""},
		{"zone", request(func(r *Request) { r.AvailabilityZone = "a" }), "availabilityZone", "== a", "default", false,
			"the request would have to accept availabilityZone default instead of a"},
		{"id", request(func(r *Request) { r.PoolID = "pool-x-id" }), "id", "== pool-x-id", "pool-x-id", true, ""},
		{"id", request(func(r *Request) { r.PoolID = "pool-y" }), "id", "== pool-y", "pool-x-id", false, "name this pool, or none, instead of pool-y"},
		{"id, letter by letter", request(func(r *Request) { r.PoolID = "POOL-X-ID" }), "id", "== POOL-X-ID", "pool-x-id", false, "name this pool"},
		{"required", request(func(r *Request) { r.RequirePoolID, r.RequireWhy = "pool-x-id", "its snapshot is there" }), "id",
			"== pool-x-id (its snapshot is there)", "pool-x-id", true, ""},
		{"required", request(func(r *Request) { r.RequirePoolID, r.RequireWhy = "pool-y", "its snapshot is there" }), "id",
			"== pool-y (its snapshot is there)", "pool-x-id", false, "it cannot be in another pool than pool-y: its snapshot is there"},
		{"multi-attach", request(func(r *Request) { r.MultiAttach = true }), "multiAttach", "== true", "true", true, ""},
		{"multi-attach", func(_ *testing.T, r *Request, p *model.Pool) { r.MultiAttach, p.MultiAttach = true, false }, "multiAttach", "== true", "false", false,
			"the request would have to accept multiAttach false instead of true"},
		{"ability", request(func(r *Request) { r.Needs = []string{"clone"} }), "abilities", "contains clone", "[expand, clone]", true, ""},
		{"ability", request(func(r *Request) { r.Needs = []string{"revert"} }), "abilities", "contains revert", "[expand, clone]", false, "be able to revert"},
		{"no abilities", func(_ *testing.T, r *Request, p *model.Pool) { r.Needs, p.Abilities = []string{"clone"}, nil }, "abilities", "contains clone", "[]", false, "be able to clone"},
		{"excluded", request(func(r *Request) { r.Excluded = map[string]string{"other": "x"} }), "excluded", "no failed try before", "none", true, ""},
		{"excluded", request(func(r *Request) { r.Excluded = map[string]string{"pool-x-id": "no space"} }), "excluded", "no failed try before", "failed: no space", false, "put right: no space"},
		{"capacity", request(func(r *Request) { r.Size = 90 * model.GiB }), "freeCapacity", ">= 90 GB", "90 GB", true, ""},
		{"capacity", request(func(r *Request) { r.Size = 91 * model.GiB }), "freeCapacity", ">= 91 GB", "90 GB", false, "free 1 GB more, or ask for at most 90 GB"},
		{"extend", request(func(r *Request) { r.Size, r.Held = 90*model.GiB, 10*model.GiB }), "freeCapacity", ">= 90 GB", "90 GB", true, ""},
		{"total", request(func(r *Request) { r.Size = 50 * model.GiB }), "totalCapacity", ">= 50 GB", "100 GB", true, ""},

		{"rto", profile(`{"provisioning":{"dataStorage":{"recoveryTimeObjective":10}}}`), ds + "recoveryTimeObjective", "<= 10", "10", true, ""},
		{"rto", profile(`{"provisioning":{"dataStorage":{"recoveryTimeObjective":9}}}`), ds + "recoveryTimeObjective", "<= 9", "10", false, "accept " + ds + "recoveryTimeObjective 10 instead of <= 9"},
		{"policy", profile(`{"provisioning":{"dataStorage":{"provisioningPolicy":"thin"}}}`), ds + "provisioningPolicy", "== thin", "Thin", true, ""},
		{"policy", profile(`{"provisioning":{"dataStorage":{"provisioningPolicy":"Thick"}}}`), ds + "provisioningPolicy", "== Thick", "Thin", false, "the profile would have to accept " + ds + "provisioningPolicy Thin instead of Thick"},
		{"compression", profile(`{"provisioning":{"dataStorage":{"compression":true}}}`), ds + "compression", "== true", "true", true, ""},
		{"compression", profile(`{"provisioning":{"dataStorage":{"compression":false}}}`), ds + "compression", "== false", "true", false, "accept " + ds + "compression true instead of false"},
		{"compression not stated", without(`{"provisioning":{"dataStorage":{"compression":false}}}`, func(p *model.Pool) { p.Extras.DataStorage.Compression = nil }), ds + "compression", "== false", "false (not stated)", true, ""},
		{"compression not stated", without(`{"provisioning":{"dataStorage":{"compression":true}}}`, func(p *model.Pool) { p.Extras.DataStorage.Compression = nil }), ds + "compression", "== true", "false (not stated)", false, "accept"},
		{"deduplication", profile(`{"provisioning":{"dataStorage":{"deduplication":false}}}`), ds + "deduplication", "== false", "false", true, ""},
		{"deduplication", profile(`{"provisioning":{"dataStorage":{"deduplication":true}}}`), ds + "deduplication", "== true", "false", false, "accept"},

		{"protocol", profile(`{"provisioning":{"ioConnectivity":{"accessProtocol":"iSCSI"}}}`), io + "accessProtocol", "== iSCSI", "iscsi", true, ""},
		{"protocol", profile(`{"provisioning":{"ioConnectivity":{"accessProtocol":"rbd"}}}`), io + "accessProtocol", "== rbd", "iscsi", false, "accept"},
		{"maxIOPS", profile(`{"provisioning":{"ioConnectivity":{"maxIOPS":1000}}}`), io + "maxIOPS", ">= 1000", "1000", true, ""},
		{"maxIOPS", profile(`{"provisioning":{"ioConnectivity":{"maxIOPS":1001}}}`), io + "maxIOPS", ">= 1001", "1000", false, "accept"},
		{"minIOPS", profile(`{"provisioning":{"ioConnectivity":{"minIOPS":100}}}`), io + "minIOPS", ">= 100", "100", true, ""},
		{"minIOPS", profile(`{"provisioning":{"ioConnectivity":{"minIOPS":101}}}`), io + "minIOPS", ">= 101", "100", false, "accept"},
		{"maxBWS", profile(`{"provisioning":{"ioConnectivity":{"maxBWS":500}}}`), io + "maxBWS", ">= 500", "500", true, ""},
		{"maxBWS", profile(`{"provisioning":{"ioConnectivity":{"maxBWS":501}}}`), io + "maxBWS", ">= 501", "500", false, "accept"},
		{"minBWS", profile(`{"provisioning":{"ioConnectivity":{"minBWS":50}}}`), io + "minBWS", ">= 50", "50", true, ""},
		{"minBWS", profile(`{"provisioning":{"ioConnectivity":{"minBWS":51}}}`), io + "minBWS", ">= 51", "50", false, "accept"},
		{"latency", profile(`{"provisioning":{"ioConnectivity":{"latency":20}}}`), io + "latency", "<= 20", "20", true, ""},
		{"latency", profile(`{"provisioning":{"ioConnectivity":{"latency":19}}}`), io + "latency", "<= 19", "20", false, "accept " + io + "latency 20 instead of <= 19"},
		{"latency not stated", without(`{"provisioning":{"ioConnectivity":{"latency":19}}}`, func(p *model.Pool) { p.Extras.IOConnectivity.Latency = 0 }), io + "latency", "<= 19", "", false,
			"pool would have to state " + io + "latency, or the profile do without it"},
		{"maxIOPS not stated", without(`{"provisioning":{"ioConnectivity":{"maxIOPS":1}}}`, func(p *model.Pool) { p.Extras.IOConnectivity.MaxIOPS = 0 }), io + "maxIOPS", ">= 1", "", false, "pool would have to state"},

		{"isolated", profile(`{"replication":{"dataProtection":{"isIsolated":true}}}`), dp + "isIsolated", "== true", "true", true, ""},
		{"isolated", profile(`{"replication":{"dataProtection":{"isIsolated":false}}}`), dp + "isIsolated", "== false", "true", false, "accept"},
		{"geography", profile(`{"replication":{"dataProtection":{"recoveryGeographicObjective":"datacenter"}}}`), dp + "recoveryGeographicObjective", "== datacenter", "Datacenter", true, ""},
		{"geography", profile(`{"replication":{"dataProtection":{"recoveryGeographicObjective":"Rack"}}}`), dp + "recoveryGeographicObjective", "== Rack", "Datacenter", false, "accept"},
		{"protection rto", profile(`{"replication":{"dataProtection":{"recoveryTimeObjective":"OnlineActive"}}}`), dp + "recoveryTimeObjective", "== OnlineActive", "OnlineActive", true, ""},
		{"protection rto", profile(`{"replication":{"dataProtection":{"recoveryTimeObjective":"offline"}}}`), dp + "recoveryTimeObjective", "== offline", "OnlineActive", false, "accept"},
		{"replica", profile(`{"replication":{"dataProtection":{"replicaType":"Mirror"}}}`), dp + "replicaType", "== Mirror", "Mirror", true, ""},
		{"replica", profile(`{"replication":{"dataProtection":{"replicaType":"Snapshot"}}}`), dp + "replicaType", "== Snapshot", "Mirror", false, "accept"},

		{"free by capability", profile(`{"custom":{"capabilities:freeCapacity":"> 89"}}`), "freeCapacity", "> 89", "90", true, ""},
		{"free by capability", profile(`{"custom":{"capabilities:freeCapacity":"> 90"}}`), "freeCapacity", "> 90", "90", false, "accept freeCapacity 90 instead of > 90"},
		{"full is a value", without(`{"custom":{"capabilities:freeCapacity":"< 1"}}`, func(p *model.Pool) { p.Free, p.OverProvisioning = 0, 2 }), "freeCapacity", "< 1", "0", true, ""},
		{"reserved by capability", profile(`{"custom":{"capabilities:reservedCapacity":"<= 10"}}`), "reservedCapacity", "<= 10", "10", true, ""},
		{"reserved by capability", profile(`{"custom":{"capabilities:reservedCapacity":"< 10"}}`), "reservedCapacity", "< 10", "10", false, "accept"},
		{"ratio by capability", profile(`{"custom":{"capabilities:overProvisioningRatio":"== 1"}}`), "overProvisioningRatio", "== 1", "1", true, ""},
		{"ratio by capability", profile(`{"custom":{"capabilities:overProvisioningRatio":"> 1"}}`), "overProvisioningRatio", "> 1", "1", false, "accept"},
	}
	for _, tc := range tests {
		t.Run(tc.name+" "+tc.want, func(t *testing.T) {
			req, p := Request{Size: model.GiB}, richPool()
			tc.set(t, &req, p)
			plan := compile(t, req)
			c := candidate(p)
			got := seen(t, plan, c, tc.rule, tc.want)
			if got.Want != tc.want || got.Have != tc.have || got.OK != tc.ok {
				t.Errorf("rule %+v, want %q %q %v", got, tc.want, tc.have, tc.ok)
			}
			reason, ok := plan.Fits(&c)
			if ok != tc.ok {
				t.Errorf("fits %v: %s", ok, reason)
			}
			v := plan.Explain([]Candidate{c}, 1, 1, now).Pools[0]
			if tc.ok != (len(v.Change) == 0) || !strings.Contains(strings.Join(v.Change, "\n"), tc.change) {
				t.Errorf("change %q, want %q", v.Change, tc.change)
			}
			if tc.ok != (reason == "") || !tc.ok && !strings.Contains(reason, tc.rule) {
				t.Errorf("reason %q", reason)
			}
		})
	}
}

// What a profile does not state it does not ask for, and the properties that are
// for files are none of a block pool's business.
func TestOmittedAsksNothing(t *testing.T) {
	bare := richPool()
	bare.Extras = model.PoolExtras{}
	for _, s := range []string{
		`{"storageType":"block"}`,
		`{"storageType":"block","provisioning":{"dataStorage":{"characterCodeSet":"ASCII","maxFileNameLengthBytes":255,"storageAccessCapability":["Read"]}}}`,
		`{"snapshot":{"schedule":{"occurrence":"Daily"},"retention":{"number":3}},"protection":{"dataProtection":{"isIsolated":true}}}`,
		`{"replication":{"dataProtection":{"minLifetime":"P1Y"},"replicaInfos":{"replicaUpdateMode":"Active","replicationBandwidth":5}}}`,
		`{"custom":{"intervalSnapshot":"1h","diskType":"SAS","key3":{"key31":1}}}`,
	} {
		p := compile(t, Request{Size: model.GiB, Profile: profileJSON(t, s)})
		c := candidate(bare)
		if reason, ok := p.Fits(&c); !ok {
			t.Errorf("%s: %s", s, reason)
		}
	}
	c := candidate(bare)
	if reason, ok := compile(t, Request{}).Fits(&c); !ok {
		t.Errorf("an empty request: %s", reason)
	}
}

func TestFileProfile(t *testing.T) {
	pool := richPool()
	pool.StorageType = "file"
	for s, want := range map[string]bool{
		`{"characterCodeSet":"ascii","maxFileNameLengthBytes":255,"storageAccessCapability":["Read"]}`: true,
		`{"characterCodeSet":"UTF-8"}`:                 false,
		`{"maxFileNameLengthBytes":256}`:               false,
		`{"storageAccessCapability":["Execute"]}`:      false,
		`{"storageAccessCapability":["Write","Read"]}`: true,
	} {
		p := compile(t, Request{Size: model.GiB, Profile: profileJSON(t, `{"storageType":"file","provisioning":{"dataStorage":`+s+`}}`)})
		c := candidate(pool)
		if reason, ok := p.Fits(&c); ok != want {
			t.Errorf("%s: %v %s", s, ok, reason)
		}
	}
}

// The ledger decides, in bytes, and a thin pool may not be promised to one
// volume that it can never hold.
func TestCapacity(t *testing.T) {
	tests := []struct {
		name                  string
		total, reserved, size model.Bytes
		ratio                 float64
		held                  model.Bytes
		want                  bool
		rule                  string
	}{
		{"thick, exact", 100 * model.GiB, 90 * model.GiB, 10 * model.GiB, 1, 0, true, ""},
		{"thick, one byte short", 100 * model.GiB, 90*model.GiB + 1, 10 * model.GiB, 1, 0, false, "freeCapacity"},
		{"no ratio is 1", 100 * model.GiB, 90*model.GiB + 1, 10 * model.GiB, 0, 0, false, "freeCapacity"},
		{"reserve", 100 * model.GiB, 0, 100 * model.GiB, 0.9, 0, false, "freeCapacity"},
		{"thin", 100 * model.GiB, 950 * model.GiB, 50 * model.GiB, 10, 0, true, ""},
		{"thin, full", 100 * model.GiB, 951 * model.GiB, 50 * model.GiB, 10, 0, false, "freeCapacity"},
		{"thin, as large as the pool", 100 * model.GiB, 0, 100 * model.GiB, 10, 0, true, ""},
		{"thin, larger than the pool", 100 * model.GiB, 0, 101 * model.GiB, 10, 0, false, "totalCapacity"},
		{"thin, extended beyond the pool", 100 * model.GiB, 60 * model.GiB, 50 * model.GiB, 10, 60 * model.GiB, false, "totalCapacity"},
		{"thin, extended", 100 * model.GiB, 60 * model.GiB, 40 * model.GiB, 10, 60 * model.GiB, true, ""},
		{"shrunk below its volumes", 10 * model.GiB, 20 * model.GiB, model.GiB, 1, 0, false, "freeCapacity"},
		{"a group needs some room", 10 * model.GiB, 10 * model.GiB, 0, 1, 0, false, "freeCapacity"},
		{"a group", 10 * model.GiB, 9 * model.GiB, 0, 1, 0, true, ""},
		{"no total", 0, 0, model.GiB, 1, 0, false, "freeCapacity"},
		{"ratio is not a number", 100 * model.GiB, 0, model.GiB, math.NaN(), 0, false, "over-provisioning"},
		{"ratio is infinite", 100 * model.GiB, 0, model.GiB, math.Inf(1), 0, false, "over-provisioning"},
		{"ratio is absurd", 100 * model.GiB, 0, model.GiB, 1e300, 0, false, "over-provisioning"},
		{"negative total", -100 * model.GiB, 0, model.GiB, 1, 0, false, "negative"},
		{"negative reserved counts as none", 10 * model.GiB, math.MinInt64, 11 * model.GiB, 1, 0, false, "freeCapacity"},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			p := richPool()
			p.Total, p.OverProvisioning = tc.total, tc.ratio
			c := Candidate{Pool: p, Reserved: tc.reserved} // without Attrs: made on the look
			plan := compile(t, Request{Size: tc.size, Held: tc.held})
			reason, ok := plan.Fits(&c)
			if ok != tc.want || !strings.Contains(reason, tc.rule) {
				t.Errorf("fits %v: %q, want %v %q", ok, reason, tc.want, tc.rule)
			}
			if _, placed := plan.Place([]Candidate{c}); placed != tc.want {
				t.Errorf("placed: %v", placed)
			}
		})
	}
}

func TestSizesInWords(t *testing.T) {
	for _, tc := range []struct {
		b           model.Bytes
		floor, ceil string
	}{
		{0, "0 GB", "0 GB"},
		{10 * model.GiB, "10 GB", "10 GB"},
		{10*model.GiB - 1, "9.9 GB", "10 GB"},
		{10*model.GiB + 1, "10 GB", "10.1 GB"},
		{model.GiB / 2, "0.5 GB", "0.5 GB"},
		{1, "0 GB", "0.1 GB"},
		{-1, "-0.1 GB", "0 GB"},
		{-10 * model.GiB, "-10 GB", "0 GB"},
		{math.MaxInt64, "8589934591.9 GB", "8589934592 GB"},
	} {
		if f, c := gbFloor(tc.b), gbCeil(tc.b); f != tc.floor || c != tc.ceil {
			t.Errorf("%d: %q %q, want %q %q", int64(tc.b), f, c, tc.floor, tc.ceil)
		}
	}
}

// A group's pool must be what all its profiles say; what they say alike is said
// once.
func TestSeveralProfiles(t *testing.T) {
	gold := profileJSON(t, `{"id":"g","name":"gold","provisioning":{"ioConnectivity":{"accessProtocol":"iscsi","maxIOPS":500}}}`)
	silver := profileJSON(t, `{"id":"s","name":"silver","provisioning":{"ioConnectivity":{"accessProtocol":"ISCSI","maxIOPS":600}}}`)
	p := compile(t, Request{Profiles: []*model.Profile{gold, silver, gold, nil}})
	c := candidate(richPool())
	if reason, ok := p.Fits(&c); !ok {
		t.Fatal(reason)
	}
	e := p.Explain([]Candidate{c}, 1, 1, now)
	var iops, protocol, types []string
	for _, r := range e.Pools[0].Rules {
		switch r.Rule {
		case "extras.ioConnectivity.maxIOPS":
			iops = append(iops, r.Want)
		case "extras.ioConnectivity.accessProtocol":
			protocol = append(protocol, r.Want)
		case "storageType":
			types = append(types, r.Want)
		}
	}
	if strings.Join(iops, "|") != ">= 500 (profile gold)|>= 600 (profile silver)" || len(protocol) != 1 || len(types) != 1 {
		t.Errorf("%q %q %q", iops, protocol, types)
	}
	if e.ProfileID != "g,s" || e.ProfileName != "gold,silver" {
		t.Errorf("profiles %q %q", e.ProfileID, e.ProfileName)
	}
	silver.Provisioning.IOConnectivity.AccessProtocol = "rbd"
	if reason, ok := compile(t, Request{Profile: gold, Profiles: []*model.Profile{silver}}).Fits(&c); ok || !strings.Contains(reason, "want == rbd (profile silver)") {
		t.Errorf("%v %s", ok, reason)
	}
	silver.Provisioning.IOConnectivity.Latency = -1
	_, err := Compile(Request{Profiles: []*model.Profile{gold, silver}})
	if e := model.AsError(err); err == nil || e.Field != "provisioningProperties.ioConnectivity.latency" || !strings.HasPrefix(e.Message, "profile silver: ") {
		t.Errorf("%v", err)
	}
}

// Long wishes that are shown alike are still two wishes.
func TestLikeWishesAreNotMerged(t *testing.T) {
	long := strings.Repeat("x", maxShown+10)
	a := &model.Profile{Meta: model.Meta{Name: "a"}, Custom: map[string]any{"capabilities:description": "<in> ^" + long}}
	b := &model.Profile{Meta: model.Meta{Name: "b"}, Custom: map[string]any{"capabilities:description": "<in> ^" + long + "y"}}
	pool := richPool()
	pool.Description = long
	c := candidate(pool)
	if _, ok := compile(t, Request{Profiles: []*model.Profile{a}}).Fits(&c); !ok {
		t.Error("the first wish is met")
	}
	if _, ok := compile(t, Request{Profiles: []*model.Profile{a, b}}).Fits(&c); ok {
		t.Error("the second wish is not met")
	}
	n := &model.Profile{Custom: map[string]any{"capabilities:totalCapacity": "100"}}
	s := &model.Profile{Custom: map[string]any{"capabilities:totalCapacity": true}}
	if _, ok := compile(t, Request{Profiles: []*model.Profile{n, s}}).Fits(&c); ok {
		t.Error("a number is not true")
	}
}

func TestBadRequests(t *testing.T) {
	negative := &model.Profile{}
	negative.Provisioning.DataStorage.RecoveryTimeObjective = -1
	for name, tc := range map[string]struct {
		r     Request
		field string
	}{
		"size":     {Request{Size: -1}, "size"},
		"held":     {Request{Held: -1}, "size"},
		"nowhere":  {Request{RequireWhy: "its source is there"}, "poolId"},
		"huge":     {Request{Size: math.MaxInt64, Held: math.MaxInt64}, "size"},
		"needs":    {Request{Needs: make([]string, maxNeeds+1)}, "needs"},
		"profiles": {Request{Profiles: manyProfiles(maxProfiles + 1)}, "profiles"},
		"profile":  {Request{Profile: negative}, "provisioningProperties.dataStorage.recoveryTimeObjective"},
	} {
		_, err := Compile(tc.r)
		if e := model.AsError(err); err == nil || e.Kind != model.KindInvalid || e.Field != tc.field {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func manyProfiles(n int) []*model.Profile {
	out := make([]*model.Profile, n)
	for i := range out {
		out[i] = &model.Profile{}
	}
	return out
}

// What a profile may name is what GET /pools shows: the same paths, the same
// values.
func TestAttrsAreTheWire(t *testing.T) {
	full := richPool()
	full.Description, full.Backend, full.Reason, full.OverProvisioning = "described", "lvm-1", "because", 2.5
	full.Extras.DataProtection.MinLifetime, full.Extras.DataProtection.RecoveryPointObjectiveTime = "P1Y", "PT1H"
	bare := &model.Pool{Meta: model.Meta{ID: "bare"}}
	for _, p := range []*model.Pool{full, bare} {
		c := Candidate{Pool: p, Attrs: NewAttrs(p), Reserved: 10*model.GiB + 1}
		data, err := json.Marshal(wire.FromPool(p, c.Reserved))
		if err != nil {
			t.Fatal(err)
		}
		var decoded map[string]any
		if err := json.Unmarshal(data, &decoded); err != nil {
			t.Fatal(err)
		}
		delete(decoded, "createdAt")
		delete(decoded, "updatedAt")
		n := 0
		eachLeaf("", decoded, func(path string, x any) {
			n++
			r := attribute(path, path, "the test", wish{})
			l := &view{c: &c, a: c.Attrs}
			v := r.value(l)
			if r.slot == slotUnknown || v.kind == absent {
				t.Errorf("%s: the wire shows %v, no rule can see it", path, x)
				return
			}
			var same bool
			if elems, ok := x.([]any); ok {
				same = v.kind == list && slices.EqualFunc(elements(elems), l.a.listOf(v), sameTyped)
			} else {
				same = sameTyped(scalar(x), *v)
			}
			if !same {
				t.Errorf("%s: the wire shows %v, rules see %s", path, x, r.haveText(l))
			}
		})
		if p == full && n < int(slotNamed) {
			t.Errorf("the wire shows %d values, %d slots", n, slotNamed)
		}
	}
}

func eachLeaf(prefix string, m map[string]any, f func(string, any)) {
	for k, x := range m {
		if sub, ok := x.(map[string]any); ok {
			eachLeaf(prefix+k+".", sub, f)
		} else {
			f(prefix+k, x)
		}
	}
}

// Values of a pool that comes from a dock are bounded and cannot fool a rule.
func TestHostilePool(t *testing.T) {
	p := richPool()
	deep := map[string]any{"end": 1.0}
	for range 100 {
		deep = map[string]any{"d": deep}
	}
	adv := map[string]any{"deep": deep, "nan": math.NaN(), "nil": nil, "long": strings.Repeat("x", 1<<20), "a": map[string]any{"b": 1.0}, "a.b": 2.0,
		"mixed": []any{map[string]any{}, []any{1.0}, "x"}, "\x1b[31m": "\x1b[2J", "ints": []any{int64(1), uint32(2), float32(3)}}
	for i := range 1000 {
		adv["z"+strings.Repeat("z", i%300)+string(rune('a'+i%26))+strings.Repeat("q", i/300)] = i
	}
	p.Extras.Advanced = adv
	a, b := NewAttrs(p), NewAttrs(p)
	if len(a.advKeys) != maxAdvanced || a.dropped == 0 || len(b.advKeys) != len(a.advKeys) {
		t.Fatalf("%d values, %d dropped", len(a.advKeys), a.dropped)
	}
	for i := range a.advKeys {
		if a.advKeys[i] != b.advKeys[i] {
			t.Fatal("two readings of a record differ")
		}
	}
	for key, tc := range map[string]struct {
		value any
		fits  bool
	}{
		"nan":   {"!= 1", false},
		"nil":   {"x", false},
		"long":  {"<in> ^x{9}x*$", true},
		"a.b":   {1.0, true},
		"mixed": {[]any{"x"}, true},
		"ints":  {[]any{1, 2.0, 3.0}, true},
		"deep":  {"x", false},
		"zzzzz": {"x", false},
	} {
		prof := &model.Profile{Custom: map[string]any{"capabilities:extras.advanced." + key: tc.value}}
		c := candidate(p)
		if reason, ok := compile(t, Request{Profile: prof}).Fits(&c); ok != tc.fits {
			t.Errorf("%s: %v %s", key, ok, reason)
		} else if len(reason) > 2000 || strings.ContainsRune(reason, '\x1b') {
			t.Errorf("%s: %q", key, reason)
		}
	}
	if NewAttrs(nil) != nil {
		t.Error("no pool has no values")
	}
}

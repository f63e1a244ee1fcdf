package selector

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/osds-io/osds/pkg/model"
)

// samplePools are the two pools of the original's sample driver, which its
// selector was probed with.
func samplePools() []*model.Pool {
	yes, no := true, false
	p1 := &model.Pool{
		Meta:   model.Meta{ID: "084bf71e-a102-11e7-88a8-e31fe6d52248", Name: "sample-pool-01"},
		Status: model.StatusAvailable, AvailabilityZone: "default", StorageType: "block",
		Total: 100 * model.GiB, Free: 90 * model.GiB, OverProvisioning: 1, MultiAttach: true, DockID: "dock-1",
		ReplicationType: "ArrayBased", ReplicationName: "sample", Driver: "sample",
	}
	p1.Extras.DataStorage = model.DataStorage{ProvisioningPolicy: "Thin", Compression: &yes, Deduplication: &no}
	p1.Extras.IOConnectivity = model.IOConnectivity{AccessProtocol: "rbd", MaxIOPS: 8000000, MinIOPS: 1000000, MaxBWS: 700, MinBWS: 100, Latency: 100}
	p1.Extras.DataProtection.IsIsolated = &no
	p1.Extras.Advanced = map[string]any{
		"diskType": "SSD", "latency": "3ms", "encrypted": true, "disks": 24.0, "tags": []any{"fast", "ssd", 7.0, true},
		"rack": map[string]any{"name": "r1", "row": map[string]any{"number": 4.0}}, "vendor:tier": "gold", "label": "Solid State",
	}
	p2 := p1.Clone()
	p2.ID, p2.Name = "a594b8ac-a103-11e7-985f-d723bcf01b5f", "sample-pool-02"
	p2.Total, p2.Free, p2.MultiAttach = 200*model.GiB, 170*model.GiB, false
	p2.Extras.Advanced = map[string]any{"diskType": "SAS", "latency": "500ms"}
	return []*model.Pool{p1, p2}
}

func candidate(p *model.Pool) Candidate {
	return Candidate{Pool: p, Attrs: NewAttrs(p), Reserved: p.Total - p.Free}
}

// profileJSON reads a profile as it is stored.
func profileJSON(t testing.TB, s string) *model.Profile {
	t.Helper()
	p := &model.Profile{}
	if err := json.Unmarshal([]byte(s), p); err != nil {
		t.Fatalf("%s: %v", s, err)
	}
	return p
}

// custom makes a profile with one customProperty, given as JSON.
func custom(t testing.TB, key, value string) *model.Profile {
	t.Helper()
	k, _ := json.Marshal(key)
	return profileJSON(t, `{"name":"gold","storageType":"block","custom":{`+string(k)+`:`+value+`}}`)
}

func compile(t testing.TB, r Request) *Plan {
	t.Helper()
	p, err := Compile(r)
	if err != nil {
		t.Fatalf("Compile: %v", err)
	}
	return p
}

// seen gives what one rule found of a pool.
func seen(t testing.TB, p *Plan, c Candidate, rule, want string) model.RuleResult {
	t.Helper()
	e := p.Explain([]Candidate{c}, 1, 1, now)
	for _, r := range e.Pools[0].Rules {
		if r.Rule == rule && (want == "" || strings.HasPrefix(r.Want, want)) {
			return r
		}
	}
	t.Fatalf("no rule %s %s in %+v", rule, want, e.Pools[0].Rules)
	return model.RuleResult{}
}

func TestOperators(t *testing.T) {
	const adv = "extras.advanced."
	tests := []struct {
		key, value string // the value as JSON
		fits       bool
		note       string // part of the note, where the rule cannot be evaluated
	}{
		// Without an operator.
		{adv + "diskType", `"SSD"`, true, ""},
		{adv + "diskType", `"ssd"`, true, ""},
		{adv + "diskType", `" SSD "`, true, ""},
		{adv + "diskType", `"SAS"`, false, ""},
		{adv + "label", `"solid state"`, true, ""},
		{adv + "label", `"solid"`, false, ""},
		{adv + "encrypted", `"true"`, true, ""},
		{adv + "encrypted", `"1"`, true, ""},
		{adv + "encrypted", `"false"`, false, ""},
		{adv + "encrypted", `"SSD"`, false, "true or false"},
		{"totalCapacity", `"100"`, true, ""},
		{"totalCapacity", `"100.0"`, true, ""},
		{"totalCapacity", `"200"`, false, ""},
		{"totalCapacity", `"large"`, false, "a number"},
		{adv + "tags", `"fast"`, false, "a list"},
		{adv + "nope", `"x"`, false, "does not state"},
		{"multiAttach", `"true"`, true, ""},
		// Numbers.
		{"totalCapacity", `"== 100"`, true, ""},
		{"totalCapacity", `"== 100.00000000001"`, true, ""},
		{"totalCapacity", `"== 101"`, false, ""},
		{"totalCapacity", `"!= 101"`, true, ""},
		{"totalCapacity", `"!= 100"`, false, ""},
		{"totalCapacity", `">= 100"`, true, ""},
		{"totalCapacity", `">=  100"`, true, ""},
		{"totalCapacity", `">= 150"`, false, ""},
		{"totalCapacity", `"<= 100"`, true, ""},
		{"totalCapacity", `"<= 99.5"`, false, ""},
		{"totalCapacity", `"> 99"`, true, ""},
		{"totalCapacity", `"> 100"`, false, ""},
		{"totalCapacity", `"< 101"`, true, ""},
		{"totalCapacity", `"< 100"`, false, ""},
		{"totalCapacity", `"> -1e3"`, true, ""},
		{adv + "diskType", `">= 100"`, false, "states a text, the rule needs a number"},
		{adv + "encrypted", `"== 1"`, false, "needs a number"},
		{adv + "nope", `"!= 1"`, false, "does not state"},
		// Equality of any type.
		{"totalCapacity", `"= 100"`, true, ""},
		{"totalCapacity", `"= 200"`, false, ""},
		{adv + "diskType", `"= ssd"`, true, ""},
		{adv + "diskType", `"= SAS"`, false, ""},
		{adv + "encrypted", `"= true"`, true, ""},
		{adv + "encrypted", `"= false"`, false, ""},
		// Letters.
		{adv + "diskType", `"s== ssd"`, true, ""},
		{adv + "diskType", `"s== sas"`, false, ""},
		{adv + "diskType", `"s!= SAS"`, true, ""},
		{adv + "diskType", `"s!= ssd"`, false, ""},
		{adv + "diskType", `"s< T"`, true, ""},
		{adv + "diskType", `"s< ssd"`, false, ""},
		{adv + "diskType", `"s<= SSD"`, true, ""},
		{adv + "diskType", `"s<= SAS"`, false, ""},
		{adv + "diskType", `"s> SAS"`, true, ""},
		{adv + "diskType", `"s> SSD"`, false, ""},
		{adv + "diskType", `"s>= SSD"`, true, ""},
		{adv + "diskType", `"s>= T"`, false, ""},
		{adv + "label", `"s== Solid State"`, true, ""},
		{"totalCapacity", `"s== 100"`, false, "states a number, the rule needs a text"},
		// Booleans.
		{adv + "encrypted", `"<is> true"`, true, ""},
		{adv + "encrypted", `"<is> True"`, true, ""},
		{adv + "encrypted", `"<is> false"`, false, ""},
		{"multiAttach", `"<is> true"`, true, ""},
		{"extras.dataStorage.deduplication", `"<is> false"`, true, ""},
		{"extras.dataStorage.compression", `"<is> false"`, false, ""},
		{adv + "diskType", `"<is> true"`, false, "needs true or false"},
		// Regular expressions.
		{adv + "diskType", `"<in> ^S"`, true, ""},
		{adv + "diskType", `"<in> SD$"`, true, ""},
		{adv + "diskType", `"<in> ^s"`, false, ""},
		{adv + "diskType", `"<in> (?i)^s"`, true, ""},
		{adv + "label", `"<in> Solid State"`, true, ""},
		{adv + "label", `"<in> ^[\\w ]{3,40}$"`, true, ""},
		{"totalCapacity", `"<in> 1"`, false, "needs a text"},
		// Alternatives.
		{adv + "diskType", `"<or> SSD <or> NVME"`, true, ""},
		{adv + "diskType", `"<or> NVME <or> ssd"`, true, ""},
		{adv + "diskType", `"<or> NVME <or> SAS"`, false, ""},
		{adv + "diskType", `"<or> SSD"`, true, ""},
		{adv + "label", `"<or> Spinning Rust <or> Solid State"`, true, ""},
		{"totalCapacity", `"<or> 50 <or> 100"`, true, ""},
		{"totalCapacity", `"<or> large <or> 100"`, true, ""},
		{"totalCapacity", `"<or> large <or> 50"`, false, ""},
		{"totalCapacity", `"<or> large <or> huge"`, false, "states a number"},
		// Typed values.
		{"totalCapacity", `100`, true, ""},
		{"totalCapacity", `200`, false, ""},
		{adv + "diskType", `200`, false, "needs a number"},
		{adv + "encrypted", `true`, true, ""},
		{adv + "encrypted", `false`, false, ""},
		{adv + "disks", `true`, false, "needs true or false"},
		{adv + "tags", `["fast"]`, true, ""},
		{adv + "tags", `["ssd","fast"]`, true, ""},
		{adv + "tags", `["Fast"]`, false, ""},
		{adv + "tags", `["fast",7,true]`, true, ""},
		{adv + "tags", `["fast",8]`, false, ""},
		{adv + "tags", `["fast",false]`, false, ""},
		{adv + "diskType", `["SSD"]`, false, "needs a list"},
		{"abilities", `["clone"]`, true, ""},
		{"abilities", `["clone","teleport"]`, false, ""},
		// Paths: all levels, and colons in them.
		{adv + "rack.name", `"r1"`, true, ""},
		{adv + "rack.row.number", `">= 4"`, true, ""},
		{adv + "rack", `"r1"`, false, "does not state"},
		{adv + "vendor:tier", `"gold"`, true, ""},
		{adv + "vendor:tier", `"silver"`, false, ""},
		{adv + "vendor", `"gold"`, false, "does not state"},
		{adv + "disktype", `"SSD"`, false, "it states extras.advanced.diskType"},
		{"totalcapacity", `100`, false, "the nearest name that pools have is totalCapacity"},
		// Operators that do not exist.
		{"totalCapacity", `"=> 100"`, false, "unknown operator"},
		{"totalCapacity", `">=100"`, false, `unknown operator ">="`},
		{"totalCapacity", `"<like> 1"`, false, `unknown operator "<like>"`},
		{adv + "diskType", `"s=SSD"`, false, "unknown operator"},
		{adv + "diskType", `"!SSD"`, false, "unknown operator"},
	}
	pool := samplePools()[0]
	pool.Abilities = []string{"expand", "clone"}
	for _, tc := range tests {
		t.Run(tc.key+" "+tc.value, func(t *testing.T) {
			p := compile(t, Request{Size: model.GiB, Profile: custom(t, "capabilities:"+tc.key, tc.value)})
			c := candidate(pool)
			reason, ok := p.Fits(&c)
			if ok != tc.fits {
				t.Fatalf("fits: %v, want %v (%s)", ok, tc.fits, reason)
			}
			r := p.Explain([]Candidate{c}, 1, 1, now).Pools[0].Rules
			got := r[len(r)-1]
			if got.Rule != tc.key || got.OK != tc.fits || (tc.note == "") != (got.Note == "") || !strings.Contains(got.Note, tc.note) {
				t.Errorf("rule %+v, want a note with %q", got, tc.note)
			}
			if got.Want == "" {
				t.Error("the rule does not say what it wants")
			}
		})
	}
}

// The probes of the original's selector, with its faults corrected: latency is
// an upper bound, compression counts only where it is stated, and "=" and ">"
// work.
func TestOriginalProbes(t *testing.T) {
	const both, first, second, none = "both", "01", "02", "none"
	tests := []struct{ profile, want string }{
		{`{}`, both},
		{`{"custom":{"capabilities:extras.advanced.diskType":"SAS"}}`, second},
		{`{"custom":{"capabilities:extras.advanced.diskType":"<or> NVME <or> sas"}}`, second},
		{`{"custom":{"capabilities:extras.advanced.diskType":"s!= SSD"}}`, second},
		{`{"custom":{"capabilities:extras.advanced.diskType":"<in> ^S"}}`, both},
		{`{"custom":{"capabilities:totalCapacity":">= 150"}}`, second},
		{`{"custom":{"capabilities:totalCapacity":200}}`, second},
		{`{"custom":{"capabilities:totalCapacity":"200"}}`, second},
		{`{"custom":{"capabilities:totalCapacity":"> 150"}}`, second},
		{`{"custom":{"capabilities:totalCapacity":"= 200"}}`, second},
		{`{"custom":{"capabilities:unknown":"x"}}`, none},
		{`{"custom":{"diskType":"SAS"}}`, both},
		{`{"custom":{":diskType":"SAS"}}`, both},
		{`{"custom":{"replicationType":"ArrayBased"}}`, both},
		{`{"provisioning":{"dataStorage":{"provisioningPolicy":"Thin"}}}`, both},
		{`{"provisioning":{"dataStorage":{"provisioningPolicy":"Thin","compression":true}}}`, both},
		{`{"provisioning":{"ioConnectivity":{"latency":50}}}`, none},
		{`{"provisioning":{"ioConnectivity":{"latency":500}}}`, both},
		{`{"replication":{"dataProtection":{"isIsolated":true}}}`, none},
		{`{"replication":{"dataProtection":{"isIsolated":false}}}`, both},
	}
	for _, tc := range tests {
		t.Run(tc.profile, func(t *testing.T) {
			p := compile(t, Request{Size: model.GiB, Profile: profileJSON(t, tc.profile)})
			got := none
			pools := samplePools()
			c1, c2 := candidate(pools[0]), candidate(pools[1])
			_, ok1 := p.Fits(&c1)
			_, ok2 := p.Fits(&c2)
			switch {
			case ok1 && ok2:
				got = both
			case ok1:
				got = first
			case ok2:
				got = second
			}
			if got != tc.want {
				t.Errorf("fits %s, want %s", got, tc.want)
			}
		})
	}
}

// One pool that a rule cannot be evaluated on does not stop the others.
func TestOneBadPoolDoesNotAbort(t *testing.T) {
	pools := samplePools()
	pools[0].Extras.Advanced["disks"] = "many"
	pools[1].Extras.Advanced["disks"] = 12.0
	p := compile(t, Request{Size: model.GiB, Profile: custom(t, "capabilities:extras.advanced.disks", `">= 10"`)})
	cands := []Candidate{candidate(pools[0]), {}, candidate(pools[1])}
	if w, ok := p.Place(cands); !ok || w != 2 {
		t.Fatalf("Place: %d %v, want the third", w, ok)
	}
	e := p.Explain(cands, 10, 1, now)
	if e.WinnerID != pools[1].ID || e.Fitting != 1 || len(e.Pools) != 3 {
		t.Fatalf("%+v", e)
	}
	if n := e.Pools[1].Rules; n[len(n)-1].Note != "pool states a text, the rule needs a number" {
		t.Errorf("note of the pool with the wrong type: %+v", n)
	}
	if e.Pools[2].Fits || e.Pools[2].Rules[0].Note == "" {
		t.Errorf("a candidate without a pool: %+v", e.Pools[2])
	}
}

func TestMalformedWishes(t *testing.T) {
	long := `"` + strings.Repeat("x", maxWishText+1) + `"`
	tests := []struct{ key, value, part string }{
		{"capabilities:totalCapacity", `">= much"`, `"much" is not a number`},
		{"capabilities:totalCapacity", `">="`, "is not a number"},
		{"capabilities:totalCapacity", `"== 10 GB"`, `"10 GB" is not a number`},
		{"capabilities:totalCapacity", `"== SSD"`, "use s=="},
		{"capabilities:totalCapacity", `"> NaN"`, "is not a number"},
		{"capabilities:totalCapacity", `"< Inf"`, "is not a number"},
		{"capabilities:x", `"="`, "followed by nothing"},
		{"capabilities:x", `"s=="`, "followed by nothing"},
		{"capabilities:x", `"<is> maybe"`, "true or false"},
		{"capabilities:x", `"<is>"`, "true or false"},
		{"capabilities:x", `"<in>"`, "regular expression"},
		{"capabilities:x", `"<in> ("`, "cannot be read"},
		{"capabilities:x", `"<in> ` + strings.Repeat("a", maxPattern+1) + `"`, "longer than"},
		{"capabilities:x", `"<in> (a{30}){30}"`, "repeats too much"},
		{"capabilities:x", `"<in> (a|b){1000}"`, "repeats too much"},
		{"capabilities:x", `"<or>"`, "followed by nothing"},
		{"capabilities:x", `"<or> a <or>"`, "followed by nothing"},
		{"capabilities:x", `"<or> >= 5"`, "plain value"},
		{"capabilities:x", `"<or>` + strings.Repeat(" a <or>", maxAlternatives) + ` a"`, "at most 64 alternatives"},
		{"capabilities:x", `""`, "is empty"},
		{"capabilities:x", `"  "`, "is empty"},
		{"capabilities:x", long, "longer than"},
		{"capabilities:x", `null`, "leave the key out"},
		{"capabilities:x", `{"a":1}`, "object"},
		{"capabilities:x", `[]`, "empty list"},
		{"capabilities:x", `[{"a":1}]`, "texts, numbers"},
		{"capabilities:x", `[null]`, "texts, numbers"},
		{"capabilities:x", `[["a"]]`, "texts, numbers"},
		{"capabilities:x", `[` + strings.Repeat("1,", 64) + `1]`, "at most 64 elements"},
		{"capabilities:x", `[` + strings.Repeat("1,", 400) + `1]`, "at most 64 elements"},
		{"capabilities:", `"x"`, "the name of a pool value"},
		{"capabilities:" + strings.Repeat("k", 300), `"x"`, "the name of a pool value"},
	}
	for _, tc := range tests {
		t.Run(tc.key[:min(len(tc.key), 30)]+" "+tc.value[:min(len(tc.value), 30)], func(t *testing.T) {
			prof := custom(t, tc.key, tc.value)
			for what, err := range map[string]error{"Validate": ValidateProfile(prof), "Compile": func() error { _, err := Compile(Request{Profile: prof}); return err }()} {
				if err == nil {
					t.Fatalf("%s took it", what)
				}
				e := model.AsError(err)
				if e.Kind != model.KindInvalid || !strings.HasPrefix(e.Field, "customProperties.capabilities:") || !strings.Contains(e.Message, tc.part) {
					t.Errorf("%s: %+v, want %q", what, e, tc.part)
				}
			}
		})
	}
}

// An operator that does not exist is refused when the profile is made, and meets
// no pool where it is stored already.
func TestUnknownOperator(t *testing.T) {
	prof := custom(t, "capabilities:totalCapacity", `">=150"`)
	err := ValidateProfile(prof)
	if e := model.AsError(err); err == nil || e.Kind != model.KindInvalid || e.Field != "customProperties.capabilities:totalCapacity" {
		t.Fatalf("ValidateProfile: %v", err)
	}
	p := compile(t, Request{Size: model.GiB, Profile: prof})
	e := p.Explain([]Candidate{candidate(samplePools()[1])}, 1, 1, now)
	if e.Fitting != 0 || !strings.Contains(e.Reason, `1 totalCapacity cannot be evaluated: unknown operator ">="`) {
		t.Errorf("%s", e.Reason)
	}
	if len(e.Pools[0].Change) != 1 || !strings.Contains(e.Pools[0].Change[0], "would have to be corrected") {
		t.Errorf("%q", e.Pools[0].Change)
	}
}

func TestWantsMultiAttach(t *testing.T) {
	for value, want := range map[string]bool{
		`"<is> true"`: true, `"<is> True"`: true, `"true"`: true, `"= true"`: true, `true`: true,
		`"<is> false"`: false, `false`: false, `"yes"`: false, `"<is>"`: false, `1`: false, `"<in> true"`: false, `">=1"`: false,
	} {
		if got := WantsMultiAttach(custom(t, "capabilities:multiAttach", value)); got != want {
			t.Errorf("%s: %v", value, got)
		}
	}
	if WantsMultiAttach(nil) || WantsMultiAttach(&model.Profile{}) || WantsMultiAttach(custom(t, "multiAttach", "true")) {
		t.Error("a profile that does not ask for it")
	}
}

func TestManyCapabilities(t *testing.T) {
	prof := &model.Profile{Custom: map[string]any{}}
	for i := range maxCapabilities + 1 {
		prof.Custom["capabilities:extras.advanced."+strings.Repeat("x", i+1)] = true
	}
	if err := ValidateProfile(prof); !model.IsKind(err, model.KindInvalid) {
		t.Errorf("%d keys: %v", len(prof.Custom), err)
	}
}

package selector

import (
	"encoding/json"
	"testing"
	"unicode/utf8"

	"github.com/osds-io/osds/pkg/model"
)

// FuzzOperator: no text makes the parser or its rule panic; what is accepted
// compiles, says what it wants in clean text, and gives the same answer twice.
func FuzzOperator(f *testing.F) {
	for _, s := range []string{"SAS", "<or> NVME <or> sas", "s!= SSD", "<in> ^S", ">= 150", "= 200", "> 150", "<is> true", "", " ", "<", "<>", "s", "s=",
		"=> 5", ">=5", "<or>", "<in> (((", "== 1e309", "!= -0", "< 0x1p-2", "<or> <or>", "<or> =", "\x00", "s== \xff", "<in> \\pN{5}", "<in> ((a{30}){30}){30}", "NaN"} {
		f.Add(s)
	}
	values := []value{{}, textValue("SSD"), textValue(""), textValue("150"), numberValue(150), numberValue(0), boolValue(true), impliedBool(nil),
		{kind: list}, {kind: other}}
	pool := candidate(samplePools()[0])
	f.Fuzz(func(t *testing.T, s string) {
		w, err := parseText(s)
		prof := &model.Profile{Custom: map[string]any{"capabilities:extras.advanced.diskType": s}}
		p, cerr := Compile(Request{Profile: prof})
		verr := ValidateProfile(prof)
		if (err == nil) != (cerr == nil) {
			t.Fatalf("%q: parse %v, compile %v", s, err, cerr)
		}
		if (verr == nil) != (err == nil && w.unknown == "") {
			t.Fatalf("%q: parse %v %q, validate %v", s, err, w.unknown, verr)
		}
		if err != nil {
			if !model.IsKind(cerr, model.KindInvalid) || !model.IsKind(verr, model.KindInvalid) {
				t.Fatalf("%q: %v, %v", s, cerr, verr)
			}
			return
		}
		if w.want == "" || w.short == "" || w.needs == "" || len(w.want) > 4*maxShown || !utf8.ValidString(w.want) {
			t.Fatalf("%q wants %q, not %q, needs %q", s, w.want, w.short, w.needs)
		}
		for i := range values {
			if a, b := w.test(&values[i]), w.test(&values[i]); a != b || a == missing {
				t.Fatalf("%q on %+v: %d, then %d", s, values[i], a, b)
			}
		}
		_, placed := p.Place([]Candidate{pool})
		e := p.Explain([]Candidate{pool}, 1, 1, now)
		if placed != e.Pools[0].Fits || len(e.Pools[0].Change) == 0 != placed {
			t.Fatalf("%q: placed %v, explained %+v", s, placed, e.Pools[0])
		}
	})
}

// FuzzProfile: whatever JSON is stored as a profile, it compiles or is refused
// with a field; what ValidateProfile accepts compiles; Place and Explain agree.
func FuzzProfile(f *testing.F) {
	for _, s := range []string{
		`{}`, `{"storageType":"block","provisioning":{"dataStorage":{"provisioningPolicy":"Thin","compression":false},"ioConnectivity":{"latency":5,"maxIOPS":-1}}}`,
		`{"custom":{"capabilities:multiAttach":"<is> true","capabilities:extras.advanced.diskType":"<or> SSD <or> NVME","capabilities:totalCapacity":">= 150"}}`,
		`{"custom":{"weights":{"capacity":1,"spread":-2.5}}}`, `{"custom":{"weights":{"x":1}}}`, `{"custom":{"weights":[]}}`,
		`{"custom":{"capabilities:":1,"capabilities::":[1,"a",true],"capabilities:x":{"a":null}}}`,
		`{"storageType":"file","provisioning":{"dataStorage":{"storageAccessCapability":["Read",""],"maxFileNameLengthBytes":1}}}`,
		`{"replication":{"dataProtection":{"isIsolated":true,"replicaType":"snapshot"}}}`,
	} {
		f.Add([]byte(s), int64(10))
	}
	pools := samplePools()
	cands := []Candidate{candidate(pools[0]), candidate(pools[1]), {}}
	f.Fuzz(func(t *testing.T, data []byte, size int64) {
		prof := &model.Profile{}
		if json.Unmarshal(data, prof) != nil {
			return
		}
		verr := ValidateProfile(prof)
		p, err := Compile(Request{Size: model.Bytes(size), Profile: prof})
		if err != nil {
			e := model.AsError(err)
			if e.Kind != model.KindInvalid || e.Field == "" || e.Message == "" {
				t.Fatalf("%+v", e)
			}
			if verr == nil && e.Field != "size" {
				t.Fatalf("valid, but: %v", err)
			}
			return
		}
		w, ok := p.Place(cands)
		e := p.Explain(cands, 10, 1, now)
		if ok != (e.Fitting > 0) || ok && cands[w].Pool.ID != e.WinnerID {
			t.Fatalf("placed %d %v, explained %+v", w, ok, e)
		}
		if _, err := json.Marshal(e); err != nil {
			t.Fatal(err)
		}
		WantsMultiAttach(prof)
	})
}

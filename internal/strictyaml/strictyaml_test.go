package strictyaml

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/osds-io/osds/pkg/model"
)

type inner struct {
	Path     string            `yaml:"path"`
	Capacity model.Bytes       `yaml:"capacity"`
	Ratio    float64           `yaml:"overProvisioningRatio"`
	Multi    *bool             `yaml:"multiAttach"`
	Delay    time.Duration     `yaml:"delay"`
	Extras   *model.PoolExtras `yaml:"extras"`
	hidden   int               // must not be reachable from a document
	Skipped  string            `yaml:"-"`
}

type conf struct {
	Pool  map[string]inner `yaml:"pool"`
	Names []string         `yaml:"names"`
	Count int              `yaml:"count"`
	Free  map[string]any   `yaml:"free"`
}

func TestDecode(t *testing.T) {
	c := conf{Count: 7, Names: []string{"kept"}}
	err := Decode("x.yaml", []byte(`
# a comment
pool:
  default: &d
    path: /a b
    capacity: 100GiB
    overProvisioningRatio: 2.5
    multiAttach: true
    delay: 20ms
    extras: {dataStorage: {compression: false, provisioningPolicy: Thin}, advanced: {diskType: SSD, n: 3, since: 2020-01-01, deep: [1, ~, {a: ~}]}}
  other: *d
count: ~
free: {a: [true, 1.5, x]}
`), &c)
	if err != nil {
		t.Fatal(err)
	}
	p := c.Pool["default"]
	if p.Path != "/a b" || p.Capacity != 100*model.GiB || p.Ratio != 2.5 || !*p.Multi || p.Delay != 20*time.Millisecond {
		t.Errorf("got %+v", p)
	}
	if p.Extras.DataStorage.Compression == nil || *p.Extras.DataStorage.Compression || p.Extras.DataStorage.ProvisioningPolicy != "Thin" {
		t.Errorf("extras: %+v", p.Extras.DataStorage)
	}
	if !reflect.DeepEqual(c.Pool["other"], p) {
		t.Error("an alias gave something else")
	}
	if c.Count != 7 || p.hidden != 0 || len(c.Names) != 1 {
		t.Errorf("null and absent keys changed defaults: %+v", c)
	}
	b, err := json.Marshal(p.Extras.Advanced)
	if err != nil || string(b) != `{"deep":[1,null,{"a":null}],"diskType":"SSD","n":3,"since":"2020-01-01"}` {
		t.Errorf("advanced: %s, %v", b, err)
	}
}

func TestEmpty(t *testing.T) {
	for _, s := range []string{"", "\n\n", "# only a comment\n", "---\n", "~"} {
		c := conf{Count: 1}
		if err := Decode("x", []byte(s), &c); err != nil || c.Count != 1 {
			t.Errorf("%q: %v %+v", s, err, c)
		}
	}
}

func TestRefusals(t *testing.T) {
	for _, x := range []struct{ doc, field, text string }{
		{"pool:\n  a:\n    capcity: 1", "pool.a.capcity", `x.yaml:3: pool.a.capcity: unknown key; did you mean "capacity"?`},
		{"zzzzzz: 1", "zzzzzz", "known are count, free, names, pool"},
		{"hidden: 1", "hidden", "unknown key"},
		{"pool: {a: {Skipped: 1}}", "pool.a.Skipped", "unknown key"},
		{"pool: {a: {extras: {dataStorage: {provisionPolicy: Thin}}}}", "pool.a.extras.dataStorage.provisionPolicy", `"provisioningPolicy"`},
		{"count: 1\ncount: 2", "count", "given twice, first in line 1"},
		{"count: many", "count", "not a whole number"},
		{"count: [1]", "count", "single value"},
		{"names: a", "names", "must be a list"},
		{"pool: 3", "pool", "must be a mapping"},
		{"pool: {a: {capacity: 10XB}}", "pool.a.capacity", "unknown unit"},
		{"pool: {a: {capacity: {}}}", "pool.a.capacity", "single value"},
		{"pool: {a: {multiAttach: 2}}", "pool.a.multiAttach", "not true or false"},
		{"pool: {a: {delay: 5}}", "pool.a.delay", "not a duration"},
		{"pool: {a: {overProvisioningRatio: .inf}}", "pool.a.overProvisioningRatio", "not a number"},
		{"free: {a: .nan}", "free.a", "not a decimal number"},
		{"a: &a {b: 1}\npool: {<<: *a}", "a", "unknown key"},
		{"pool: {<<: {b: 1}}", "pool", "merge keys"},
		{"count: 1\n---\ncount: 2", "", "second document"},
		{"pool: {", "", "x.yaml: "},
		{"- 1", "", "mapping"},
	} {
		var c conf
		err := Decode("x.yaml", []byte(x.doc), &c)
		if err == nil {
			t.Errorf("%q was accepted: %+v", x.doc, c)
			continue
		}
		e := model.AsError(err)
		if e.Kind != model.KindInvalid || e.Field != x.field || !strings.Contains(e.Message, x.text) {
			t.Errorf("%q: kind %s, field %q, %q; want field %q and %q", x.doc, e.Kind, e.Field, e.Message, x.field, x.text)
		}
	}
}

// A document of a few hundred bytes can stand for billions of values.
func TestExpansionIsBounded(t *testing.T) {
	var b strings.Builder
	b.WriteString("free:\n  a0: &a0 [x]\n")
	for i := 1; i < 30; i++ {
		p := string(rune('0'+(i-1)/10)) + string(rune('0'+(i-1)%10))
		q := string(rune('0'+i/10)) + string(rune('0'+i%10))
		if i == 1 {
			p = "0"
		}
		b.WriteString("  a" + q + ": &a" + q + " [*a" + p + ", *a" + p + ", *a" + p + "]\n")
	}
	var c conf
	if err := Decode("x", []byte(b.String()), &c); err == nil || !strings.Contains(err.Error(), "too deep or too large") {
		t.Errorf("got %v", err)
	}
	if err := Decode("x", []byte("free: &a {b: *a}"), &c); err == nil {
		t.Error("an alias of itself was accepted")
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte("pool: {a: {path: /x, capacity: 1GiB}}\nnames: [a]\n"))
	f.Add([]byte("free: &a {b: *a}"))
	f.Add([]byte("? [a]\n: b"))
	f.Fuzz(func(t *testing.T, data []byte) {
		var c conf
		if err := Decode("x", data, &c); err != nil {
			if !model.IsKind(err, model.KindInvalid) {
				t.Fatalf("kind %s: %v", model.KindOf(err), err)
			}
			return
		}
		if _, err := json.Marshal(c.Free); err != nil {
			t.Fatalf("a value that JSON cannot carry: %v", err)
		}
	})
}

package conf

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"

	"github.com/osds-io/osds/pkg/model"
)

type testBackend struct {
	Name   string `yaml:"name" doc:"The backend's name."`
	Driver string `yaml:"driver" oneof:"local,sample"`
	Slots  int    `yaml:"slots"`
	Key    model.Secret
}

func (b *testBackend) SetDefaults() { b.Slots = 4 }

func (b *testBackend) Validate() error {
	if b.Name == "" {
		return model.Invalid("name", "must not be empty")
	}
	return nil
}

type testConfig struct {
	API struct {
		Listen  string        `yaml:"listen" doc:"Where to listen."`
		Timeout time.Duration `yaml:"timeout"`
		Token   model.Secret  `yaml:"token"`
	} `yaml:"api"`
	Limit    model.Bytes       `yaml:"limit"`
	Ratio    float64           `yaml:"ratio"`
	Format   string            `yaml:"format" oneof:"text,json" doc:"How to log."`
	Insecure bool              `yaml:"insecureLoopback"`
	Maybe    *bool             `yaml:"maybe"`
	Peers    []string          `yaml:"peers"`
	Labels   map[string]string `yaml:"labels"`
	Any      map[string]any    `yaml:"any"`
	Backends []testBackend     `yaml:"backends"`
	StateDir string
}

func (c *testConfig) Validate() error {
	if c.Ratio < 1 {
		return model.Invalid("ratio", "is %v, must be 1 or more", c.Ratio)
	}
	return nil
}

func defaults() testConfig {
	var c testConfig
	c.API.Listen, c.API.Timeout = "127.0.0.1:1", 3*time.Second
	c.Ratio, c.Format = 1, "text"
	c.Peers = []string{"a"}
	return c
}

func write(t *testing.T, name, text string) string {
	t.Helper()
	p := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(p, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return p
}

func TestPrecedence(t *testing.T) {
	secret := write(t, "token", "hunter2\n")
	file := write(t, "c.yaml", `
api:
  listen: file:1
  timeout: 90s
  tokenFile: `+secret+`
limit: 1.5GiB
format: json
peers: [x, y]
maybe: false
labels: {CamelCase: v, other: 50050}
any: {Deep: {Key: [1, two]}}
stateDir: /from/file
backends:
  - {name: one, driver: local}
  - {name: two, driver: sample, slots: 9, key: k}
`)
	t.Setenv("OSDS_API_LISTEN", "env:1")
	t.Setenv("OSDS_LIMIT", "2GiB")
	t.Setenv("OSDS_TESTD_LIMIT", "3 GiB")
	t.Setenv("OSDS_PEERS", "p, q")
	t.Setenv("OSDS_INSECURELOOPBACK", "true")
	fs := pflag.NewFlagSet("x", pflag.ContinueOnError)
	fs.String("config", "", "")
	c := defaults()
	AddFlags(fs, &c)
	if err := fs.Parse([]string{"--config=zzz", "--api.listen=flag:1", "--maybe"}); err != nil {
		t.Fatal(err)
	}
	if err := Load(&c, Options{Name: "testd", File: file, EnvPrefix: "OSDS", Flags: fs}); err != nil {
		t.Fatal(err)
	}
	want := defaults()
	want.API.Listen, want.API.Timeout, want.API.Token = "flag:1", 90*time.Second, "hunter2"
	want.Limit, want.Format, want.Insecure = 3*model.GiB, "json", true
	yes := true
	want.Maybe = &yes
	want.Peers = []string{"p", "q"}
	want.Labels = map[string]string{"CamelCase": "v", "other": "50050"}
	want.Any = map[string]any{"Deep": map[string]any{"Key": []any{1, "two"}}}
	want.StateDir = "/from/file"
	want.Backends = []testBackend{{Name: "one", Driver: "local", Slots: 4}, {Name: "two", Driver: "sample", Slots: 9, Key: "k"}}
	if !reflect.DeepEqual(c, want) {
		t.Errorf("got  %+v\nwant %+v", c, want)
	}
	if c.API.Token.Reveal() != "hunter2" {
		t.Errorf("token %q", c.API.Token.Reveal())
	}
}

func TestRefused(t *testing.T) {
	for _, tc := range []struct{ name, yaml, want, key string }{
		{"unknown", "format: text\napi:\n  lisen: x\n", `c.yaml:3: api.lisen: unknown key; did you mean "api.listen"?`, "api.lisen"},
		{"case", "statedir: x\n", `statedir: unknown key; did you mean "stateDir"?`, "statedir"},
		{"far", "zzzzzzzzzz: 1\n", "c.yaml:1: zzzzzzzzzz: unknown key", "zzzzzzzzzz"},
		{"in a list", "backends:\n- name: a\n- name: b\n  drver: local\n", `c.yaml:4: backends[1].drver: unknown key; did you mean "backends[1].driver"?`, "backends[1].drver"},
		{"twice", "format: text\nformat: json\n", "c.yaml:2: format: given twice, first at line 1", "format"},
		{"duration", "api:\n  timeout: 5\n", `c.yaml:2: api.timeout: "5" is not a duration`, "api.timeout"},
		{"size", "limit: 5 pounds\n", "c.yaml:1: limit: size", "limit"},
		{"oneof", "format: jsn\n", `"jsn" is not one of text, json; did you mean "json"?`, "format"},
		{"oneof in a list", "backends: [{name: a, driver: lokal}]\n", `backends[0].driver: "lokal" is not one of local, sample; did you mean "local"?`, "backends[0].driver"},
		{"bool", "insecureLoopback: si\n", "neither true nor false", "insecureLoopback"},
		{"list for a scalar", "format: [a]\n", "must be a single value", "format"},
		{"scalar for a list", "peers: a\n", "must be a list", "peers"},
		{"scalar for a mapping", "api: 5\n", "c.yaml:1: api: must be a mapping", "api"},
		{"alias", "peers: &a [x]\nany: {b: *a}\n", "aliases are not accepted", ""},
		{"two documents", "format: text\n---\nformat: json\n", "more than one YAML document", ""},
		{"not yaml", "a: [\n", "c.yaml", ""},
		{"validate", "ratio: 0.5\n", "ratio: is 0.5, must be 1 or more", "ratio"},
		{"validate in a list", "backends: [{driver: local}]\n", "backends[0].name: must not be empty", "backends[0].name"},
		{"nan", "ratio: .nan\n", "is not a number", "ratio"},
		{"two secrets", "api: {token: a, tokenFile: /b}\n", "keep one of them", "api.token"},
		{"no secret file", "api: {tokenFile: /does/not/exist}\n", "api.tokenFile: open /does/not/exist", "api.tokenFile"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := defaults()
			err := Load(&c, Options{Name: "testd", File: write(t, "c.yaml", tc.yaml), EnvPrefix: "OSDS"})
			var e *model.Error
			if !errors.As(err, &e) || e.Kind != model.KindInvalid {
				t.Fatalf("got %v", err)
			}
			if !strings.Contains(e.Message, tc.want) || e.Field != tc.key {
				t.Errorf("field %q, message %q; want %q, %q", e.Field, e.Message, tc.key, tc.want)
			}
			if !reflect.DeepEqual(c, defaults()) {
				t.Errorf("the target was changed: %+v", c)
			}
		})
	}
}

func TestAllProblemsAtOnce(t *testing.T) {
	c := defaults()
	err := Parse(&c, "x", []byte("aa: 1\nbb: 2\nformat: no\n"))
	if n := len(strings.Split(err.Error(), "\n")); n != 3 {
		t.Errorf("%d lines: %v", n, err)
	}
	err = Parse(&c, "x", []byte(strings.Repeat("? [a]\n: b\n", 50)))
	if lines := strings.Split(err.Error(), "\n"); len(lines) != maxProblems+1 || lines[maxProblems] != "and 30 more" {
		t.Errorf("not bounded: %q", lines)
	}
}

func TestVariables(t *testing.T) {
	o := Options{Name: "testd", EnvPrefix: "OSDS", OtherEnv: []string{"OSDS_FORMATS"}}
	t.Setenv("OSDS_SOMETHING_ELSE", "x") // another program's
	t.Setenv("OSDS_FORMATS", "x")        // near, but said to be another's
	t.Setenv("OSDS_BACKENDS", "[{name: a, driver: local}]")
	c := defaults()
	if err := Load(&c, o); err != nil {
		t.Fatal(err)
	}
	if len(c.Backends) != 1 || c.Backends[0].Slots != 4 {
		t.Errorf("backends %+v", c.Backends)
	}
	for name, want := range map[string]string{
		"OSDS_API_LISTN":        "variable OSDS_API_LISTN: unknown; did you mean OSDS_API_LISTEN?",
		"OSDS_TESTD_WHATEVERXX": "variable OSDS_TESTD_WHATEVERXX: unknown",
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv(name, "x")
			if err := Load(&c, o); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("got %v, want %s", err, want)
			}
		})
	}
	t.Setenv("OSDS_API_TIMEOUT", "soon")
	if err := Load(&c, o); err == nil || !strings.Contains(err.Error(), "variable OSDS_API_TIMEOUT: api.timeout:") {
		t.Errorf("got %v", err)
	}
}

func TestFile(t *testing.T) {
	c := defaults()
	missing := filepath.Join(t.TempDir(), "none.yaml")
	if err := Load(&c, Options{File: missing, Optional: true}); err != nil {
		t.Error(err)
	}
	if err := Load(&c, Options{File: missing}); err == nil || !strings.Contains(err.Error(), missing) {
		t.Errorf("got %v", err)
	}
	big := write(t, "big.yaml", strings.Repeat("# x\n", MaxFile/4+1))
	if err := Load(&c, Options{File: big}); err == nil || !strings.Contains(err.Error(), "larger than") {
		t.Errorf("got %v", err)
	}
}

func TestRenderHidesAndLoadsAgain(t *testing.T) {
	c := defaults()
	c.API.Token, c.Limit = "hunter2", 1536*model.MiB+1
	c.API.Timeout = 5 * time.Minute
	c.Backends = []testBackend{{Name: "a", Driver: "local", Key: "hunter3"}}
	c.Labels = map[string]string{"B": "1", "a": "true"}
	text := Render(&c)
	if strings.Contains(text, "hunter") || !strings.Contains(text, "token: '***'") || !strings.Contains(text, "timeout: 5m\n") {
		t.Errorf("rendered:\n%s", text)
	}
	back := defaults()
	if err := Parse(&back, "r", []byte(text)); err != nil {
		t.Fatalf("%v in\n%s", err, text)
	}
	c.API.Token, c.Backends[0].Key, c.Any = "***", "***", map[string]any{}
	if !reflect.DeepEqual(back, c) {
		t.Errorf("got  %+v\nwant %+v", back, c)
	}
}

func TestReference(t *testing.T) {
	c := defaults()
	got := map[string]Key{}
	for _, k := range Reference(&c) {
		got[k.Key] = k
	}
	for _, want := range []Key{
		{Key: "api.listen", Type: "string", Default: "127.0.0.1:1", Doc: "Where to listen.", flag: true},
		{Key: "api.timeout", Type: "duration", Default: "3s", flag: true},
		{Key: "api.token", Type: "secret"},
		{Key: "api.tokenFile", Type: "path", Doc: "Path of a file that holds api.token; give one of the two.", flag: true},
		{Key: "limit", Type: "size", Default: "0", flag: true},
		{Key: "format", Type: "string", Default: "text", Doc: "How to log.", OneOf: []string{"text", "json"}, flag: true},
		{Key: "peers", Type: "list of string", Default: "a", flag: true},
		{Key: "backends", Type: "list of mapping"},
		{Key: "backends[].slots", Type: "integer", Default: "4"},
		{Key: "stateDir", Type: "string", flag: true},
	} {
		if !reflect.DeepEqual(got[want.Key], want) {
			t.Errorf("got %+v, want %+v", got[want.Key], want)
		}
	}
}

func TestNearest(t *testing.T) {
	known := []string{"listen", "limits", "stateDir", "tls"}
	for in, want := range map[string]string{
		"lisen": "listen", "LISTEN": "listen", "limit": "limits", "statdir": "stateDir",
		"tsl": "tls", "unrelated": "", "": "", "x": "",
	} {
		if got := Nearest(in, known); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
}

// FuzzFile: no file makes the loader panic, and what is accepted can be shown
// and loaded again with the same meaning.
func FuzzFile(f *testing.F) {
	for _, s := range []string{
		"", "api: {listen: x, timeout: 3s}", "backends: [{name: a, driver: local}]",
		"limit: 3GiB\nlabels: {a: b}\n", "any: {x: [1, {y: 2.5}]}", "<<: {a: b}", "? [a]\n: b", "maybe: ~",
		"peers: &a [*a]", "api: !!binary aGVsbG8=", "any: {1: 2, x: 2001-01-01}",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		c := defaults()
		if err := Parse(&c, "fuzz", data); err != nil {
			var e *model.Error
			if !errors.As(err, &e) || e.Message == "" {
				t.Fatalf("not an error of ours: %#v", err)
			}
			return
		}
		c.Any = nil // free form; only that it does not panic
		text := Render(&c)
		back := defaults()
		if err := Parse(&back, "again", []byte(text)); err != nil {
			if strings.Contains(err.Error(), "File: ") {
				return
			}
			t.Fatalf("%v in\n%s", err, text)
		}
		if again := Render(&back); again != text {
			t.Fatalf("first\n%s\nthen\n%s", text, again)
		}
	})
}

// A pool's extras are written in drivers' files under their wire names.
func TestWireNames(t *testing.T) {
	var c struct {
		Pool map[string]struct {
			Extras model.PoolExtras `yaml:"extras"`
		} `yaml:"pool"`
	}
	err := Parse(&c, "d.yaml", []byte("pool: {p: {extras: {ioConnectivity: {maxIOPS: 7}, dataProtection: {recoveryGeographicObjective: Rack}}}}"))
	if x := c.Pool["p"].Extras; err != nil || x.IOConnectivity.MaxIOPS != 7 || x.DataProtection.RecoveryGeographicObject != "Rack" {
		t.Errorf("%+v, %v", x, err)
	}
	err = Parse(&c, "d.yaml", []byte("pool: {p: {extras: {ioConectivity: {}}}}"))
	if err == nil || !strings.Contains(err.Error(), `"pool.p.extras.ioConnectivity"`) {
		t.Error(err)
	}
}

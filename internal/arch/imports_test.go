package arch

import (
	"bytes"
	"encoding/json"
	"io"
	"os/exec"
	"strings"
	"testing"
)

const module = "github.com/osds-io/osds/"

// rules says, for each part of the tree, what it may import from this module.
// The longest matching prefix decides. "internal" stands for the small packages
// below internal/ that any may use, except those with a rule of their own.
var rules = map[string][]string{
	"pkg/model":               {},
	"pkg/model/wire":          {"pkg/model"},
	"pkg/db":                  {"pkg/model", "internal"},
	"pkg/drivers":             {"pkg/model", "pkg/drivers", "internal"},
	"pkg/dock":                {"pkg/model", "pkg/drivers", "pkg/dock", "internal"},
	"pkg/controller":          {"pkg/model", "pkg/db", "pkg/drivers", "pkg/dock/client", "pkg/controller", "internal"},
	"pkg/controller/selector": {"pkg/model"},
	"pkg/controller/ledger":   {"pkg/model"},
	"pkg/api":                 {"pkg/model", "pkg/db", "pkg/controller/selector", "pkg/api", "internal"},
	"pkg/client":              {"pkg/model", "internal"},
	"internal":                {"pkg/model", "internal"},
	"internal/cli":            {"pkg/model", "pkg/client", "internal"},
	"internal/osdslet":        {"pkg", "internal"},
	"internal/gendocs":        {"pkg", "internal"},
	"internal/arch":           {},
	"cmd":                     {"pkg", "internal"},
	"test":                    {"pkg", "internal", "test"},
}

// apart are packages below internal/ that only cmd and tests may import: they
// wire whole programs.
var apart = []string{"internal/cli", "internal/osdslet", "internal/gendocs", "internal/arch"}

type pkg struct {
	ImportPath string
	Imports    []string
}

func TestImports(t *testing.T) {
	out, err := exec.Command("go", "list", "-json=ImportPath,Imports", module+"...").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	seen := 0
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p pkg
		if err := dec.Decode(&p); err == io.EOF {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		seen++
		path := strings.TrimPrefix(p.ImportPath, module)
		key := rule(path)
		if key == "" {
			t.Errorf("%s: no rule says what it may import; add one", path)
			continue
		}
		for _, i := range p.Imports {
			i, ours := strings.CutPrefix(i, module)
			if ours && !allowed(path, rules[key], i) {
				t.Errorf("%s imports %s, which the rule of %s does not allow", path, i, key)
			}
		}
	}
	if seen < 10 {
		t.Fatalf("looked at only %d packages", seen)
	}
}

func rule(path string) string {
	best := ""
	for k := range rules {
		if under(path, k) && len(k) > len(best) {
			best = k
		}
	}
	return best
}

func allowed(from string, list []string, path string) bool {
	for _, a := range apart {
		if under(path, a) && !under(from, a) && !under(from, "cmd") && !under(from, "test") && !under(from, "internal/gendocs") {
			return false
		}
	}
	for _, k := range list {
		if under(path, k) {
			return true
		}
	}
	return false
}

func under(path, prefix string) bool {
	return path == prefix || strings.HasPrefix(path, prefix+"/")
}

// The store's client library stays behind pkg/db: nobody else speaks etcd.
func TestOnlyTheStoreSpeaksEtcd(t *testing.T) {
	out, err := exec.Command("go", "list", "-json=ImportPath,Imports", module+"pkg/...", module+"internal/...", module+"cmd/...").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p pkg
		if err := dec.Decode(&p); err == io.EOF {
			return
		} else if err != nil {
			t.Fatal(err)
		}
		for _, i := range p.Imports {
			if strings.HasPrefix(i, "go.etcd.io/etcd/") && p.ImportPath != module+"pkg/db" {
				t.Errorf("%s imports %s", p.ImportPath, i)
			}
		}
	}
}

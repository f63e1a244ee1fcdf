package cli

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/osds-io/osds/internal/tlsconf"
)

func TestCerts(t *testing.T) {
	dir := t.TempDir()
	run := func(args ...string) result {
		return runWith(t.Context(), nil, "", append([]string{"certs"}, args...)...)
	}
	if r := run("dock", "--dir", dir, "--host", "h"); r.code != ExitUsage || !strings.Contains(r.err, "make one with 'osdsctl certs ca'") {
		t.Errorf("%+v", r)
	}
	for _, args := range [][]string{
		{"ca", "--dir", dir}, {"server", "--dir", dir, "--host", "api1,127.0.0.1"}, {"dock", "--dir", dir, "--host", "store1", "--days", "30"},
		{"api", "--dir", dir, "--host", "api.example.org"}, {"dock", "--dir", dir, "--host", "store2", "--name", "store2"},
	} {
		r := run(args...)
		if r.code != 0 || strings.Count(r.out, dir) != 2 {
			t.Fatalf("%v: %+v", args, r)
		}
	}
	for name, role := range map[string]tlsconf.Role{"osdslet": tlsconf.RoleLet, "dock": tlsconf.RoleDock, "store2": tlsconf.RoleDock, "api": tlsconf.RoleNone} {
		key := filepath.Join(dir, name+"-key.pem")
		files := tlsconf.Files{CA: filepath.Join(dir, "ca.pem"), Cert: filepath.Join(dir, name+".pem"), Key: key}
		if _, err := tlsconf.Load(files, role); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if st, err := os.Stat(key); err != nil || st.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v %v", key, st, err)
		}
	}
	before, err := os.ReadFile(filepath.Join(dir, "ca.pem"))
	if err != nil {
		t.Fatal(err)
	}
	if r := run("ca", "--dir", dir); r.code != ExitUsage || !strings.Contains(r.err, "use --force") {
		t.Errorf("%+v", r)
	}
	if after, err := os.ReadFile(filepath.Join(dir, "ca.pem")); err != nil || string(after) != string(before) {
		t.Error("the authority was replaced")
	}
	for _, args := range [][]string{{"dock", "--dir", dir}, {"dock", "--dir", dir, "--host", "h", "--days", "-1", "--name", "x"},
		{"dock", "--dir", dir, "--host", "h", "--name", "../x"}} {
		if r := run(args...); r.code != ExitUsage {
			t.Errorf("%v: %+v", args, r)
		}
	}
}

//go:build real

package e2e

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/osds-io/osds/test/harness"
)

// TestCheckConfig: --check-config says what is in effect; of a bad file it names
// the key, and the one that was probably meant.
func TestCheckConfig(t *testing.T) {
	t.Parallel()
	dir := suite.Dir(t)
	n := 0
	check := func(program, text string) (string, bool) {
		t.Helper()
		n++
		file := harness.WriteFile(t, filepath.Join(dir, "c"+string(rune('a'+n))+".yaml"), []byte(text))
		out, err := exec.CommandContext(t.Context(), program, "--config", file, "--check-config").CombinedOutput()
		return string(out), err == nil
	}
	letOK := "dataDir: /tmp/x\ninsecureLoopback: true\n"
	dockOK := "stateDir: /tmp/x\ninsecureLoopback: true\nbackends: [{name: a, driver: sample}]\n"
	if out, ok := check(suite.Let, letOK+"etcd: {password: hush, username: u, endpoints: ['http://127.0.0.1:1']}\n"); !ok ||
		!strings.Contains(out, "50040") || strings.Contains(out, "hush") {
		t.Errorf("%t\n%s", ok, out)
	}
	if out, ok := check(suite.Dock, dockOK); !ok || !strings.Contains(out, "50050") {
		t.Errorf("%t\n%s", ok, out)
	}
	for _, c := range []struct {
		program, text string
		want          []string
	}{
		{suite.Let, letOK + "api: {lisen: '127.0.0.1:1'}\n", []string{"api.lisen", "api.listen", "3"}},
		{suite.Let, letOK + "registri: {}\n", []string{"registri", "registry"}},
		{suite.Let, letOK + "registry: {beat: soon}\n", []string{"registry.beat", "soon"}},
		{suite.Let, letOK + "registry: {beat: 3s, lost: 4s}\n", []string{"registry.lost"}},
		{suite.Let, letOK + "api: {listen: nowhere}\n", []string{"api.listen", "host:port"}},
		{suite.Let, letOK + "registry: {listen: '0.0.0.0:1'}\n", []string{"registry.listen", "loopback"}},
		{suite.Let, "dataDir: /tmp/x\n", []string{"tls", "osdsctl certs"}},
		{suite.Let, letOK + "tls: {ca: /x}\n", []string{"tls"}},
		{suite.Let, letOK + "log: {level: lod}\n", []string{"log.level", "info"}},
		{suite.Let, letOK + "controller: {leaseTTL: 100ms}\n", []string{"controller.leaseTTL", "1s"}},
		{suite.Let, letOK + "api: {maxBody: 1}\n", []string{"api.maxBody"}},
		{suite.Let, letOK + "insecureLoopback: true\n", []string{"insecureLoopback", "twice"}},
		{suite.Dock, "stateDir: /tmp/x\ninsecureLoopback: true\nbackends: [{name: a, driver: sampel}]\n", []string{"backends[0].driver", "sampel", "sample"}},
		{suite.Dock, "stateDir: /tmp/x\ninsecureLoopback: true\nbackends: []\n", []string{"backends"}},
		{suite.Dock, dockOK + "osdslets: []\n", []string{"osdslets"}},
		{suite.Dock, dockOK + "osdslets: ['10.0.0.1:50049']\n", []string{"osdslets[0]", "loopback"}},
		{suite.Dock, dockOK + "statdir: /tmp\n", []string{"statdir", "stateDir"}},
		{suite.Dock, dockOK + "limits: {maxCalls: 0}\n", []string{"limits.maxCalls"}},
		{suite.Dock, "stateDir: /tmp/x\ninsecureLoopback: true\nbackends: [{name: a, driver: sample}, {name: a, driver: sample}]\n", []string{"backends[1].name", "twice"}},
		{suite.Dock, dockOK + "advertise: 0.0.0.0:1\n", []string{"advertise"}},
	} {
		out, ok := check(c.program, c.text)
		if ok {
			t.Errorf("%s accepts\n%s", filepath.Base(c.program), c.text)
			continue
		}
		for _, w := range c.want {
			if !strings.Contains(out, w) {
				t.Errorf("%s of\n%s says\n%s, want %q in it", filepath.Base(c.program), c.text, out, w)
			}
		}
	}
}

//go:build real

package lvm

import (
	"bufio"
	"bytes"
	"context"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/osds-io/osds/test/guest"
	"github.com/osds-io/osds/test/harness"
)

// inGuest are the packages whose tests with the tag real need the kernel of a
// guest.
var inGuest = []string{"pkg/drivers/export", "pkg/drivers/lvm", "pkg/drivers/local", "pkg/dock/connector"}

// packageLimit is how long one package's tests may take in a guest.
const packageLimit = 25 * time.Minute

// TestPackages runs the packages' own tests in a guest: the conformance suite of
// the drivers on real volume groups, the exports on the kernel's targets, the
// connector on the kernel's initiators.
func TestPackages(t *testing.T) {
	if world.why != "" {
		t.Skip("skipped:", world.why)
	}
	for _, p := range inGuest {
		t.Run(path.Base(p), func(t *testing.T) {
			tests := realTests(t, filepath.Join(world.root, p))
			if len(tests) == 0 {
				t.Skip("skipped: the package has no test with the tag real")
			}
			run := "^(" + strings.Join(tests, "|") + ")$"
			name := strings.ReplaceAll(p, "/", "_") + ".test"
			bin := filepath.Join(world.share, "tests", name)
			if err := goTool(t.Context(), "test", "-c", "-tags", "real", "-o", bin, "./"+p); err != nil {
				t.Fatal(err)
			}
			// Their test data is found where a package's tests look for it.
			work := filepath.Join(world.share, "tests", filepath.Base(p))
			if err := os.MkdirAll(work, 0o700); err != nil {
				t.Fatal(err)
			}
			if data := filepath.Join(world.root, p, "testdata"); exists(data) {
				if err := os.CopyFS(filepath.Join(work, "testdata"), os.DirFS(data)); err != nil {
					t.Fatal(err)
				}
			}
			// Each in a guest of its own: nothing of another package is left. Two at
			// once, as a guest's emulation takes one processor.
			t.Parallel()
			l := boot(t, guest.Config{Nodes: 1, CPUs: 2, Memory: 1024, Disks: []int{3072, 3072}})
			ctx, cancel := context.WithTimeout(t.Context(), packageLimit)
			defer cancel()
			out := &testOutput{t: t}
			err := l.Nodes[0].Exec(ctx, guest.Cmd{
				Args: []string{"/share/tests/" + name, "-test.v", "-test.run", run, "-test.timeout", packageLimit.String()},
				Env:  []string{"OSDS_TEST_GUEST=1", "OSDS_TEST_DISK=/dev/vdb"}, Dir: "/share/tests/" + filepath.Base(p), Stdout: out,
			})
			out.end()
			if err != nil {
				t.Errorf("%v\nthe guest's console:\n%s", err, l.Nodes[0].Console())
			}
			if out.passed == 0 && err == nil {
				t.Error("no test passed")
			}
			t.Logf("%d tests passed, %d were skipped: %s", out.passed, len(out.skipped), strings.Join(out.skipped, ", "))
		})
	}
}

var testFunc = regexp.MustCompile(`(?m)^func (Test\w+)\(t \*testing\.T\)`)

// realTests names a package's tests that are built with the tag real only. The
// others run everywhere, with every make test.
func realTests(t *testing.T, dir string) (names []string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.HasPrefix(b, []byte("//go:build real")) {
			continue
		}
		for _, m := range testFunc.FindAllSubmatch(b, -1) {
			names = append(names, string(m[1]))
		}
	}
	return names
}

// TestTgt runs the exports' tests of tgt on this machine itself, whatever its
// kernel: tgt is a program, and libiscsi's test program needs no initiator of the
// kernel's. They skip themselves where these are missing; here they are not.
func TestTgt(t *testing.T) {
	var host harness.Suite
	host.Need(t, "tgt", "tgtd", "tgtadm")
	host.Need(t, "libiscsi-bin", "iscsi-test-cu", "iscsi-inq")
	const pkg = "pkg/drivers/export"
	out := &testOutput{t: t}
	cmd := exec.CommandContext(t.Context(), "go", "test", "-tags", "real", "-count=1", "-v", "-timeout", packageLimit.String(), "-run", "Tgt", "./"+pkg)
	cmd.Dir, cmd.Stdout, cmd.Stderr = world.root, out, out
	err := cmd.Run()
	out.end()
	if err != nil {
		t.Error(err)
	}
	t.Logf("%d tests passed, %d were skipped: %s", out.passed, len(out.skipped), strings.Join(out.skipped, ", "))
	if out.passed == 0 {
		t.Error("no test passed")
	}
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

var verdict = regexp.MustCompile(`^\s*--- (PASS|SKIP): (\S+)`)

// testOutput passes a test binary's output on, line by line, and counts.
type testOutput struct {
	t       *testing.T
	mu      sync.Mutex
	rest    []byte
	passed  int
	skipped []string
}

func (o *testOutput) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.rest = append(o.rest, p...)
	for {
		i := bytes.IndexByte(o.rest, '\n')
		if i < 0 {
			return len(p), nil
		}
		o.line(string(o.rest[:i]))
		o.rest = o.rest[i+1:]
	}
}

// end passes on what has no line end, as a panic's output may.
func (o *testOutput) end() {
	o.mu.Lock()
	defer o.mu.Unlock()
	sc := bufio.NewScanner(bytes.NewReader(o.rest))
	for sc.Scan() {
		o.line(sc.Text())
	}
	o.rest = nil
}

func (o *testOutput) line(s string) {
	if strings.HasPrefix(s, "=== ") {
		return
	}
	if m := verdict.FindStringSubmatch(s); m != nil {
		if m[1] == "PASS" {
			o.passed++
		} else {
			o.skipped = append(o.skipped, m[2])
		}
	}
	// The guest's verdicts must not be taken for ours.
	_, _ = o.t.Output().Write([]byte("| " + s + "\n"))
}

//go:build real

package lvm

import (
	"bytes"
	"context"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/osds-io/osds/test/guest"
	"github.com/osds-io/osds/test/harness"
)

// inGuest are the packages whose tests with the tag real need the kernel of a
// guest.
var inGuest = []string{"pkg/drivers/export", "pkg/drivers/lvm", "pkg/drivers/local", "pkg/dock/connector"}

// inShort is the one of them that short mode has.
const inShort = "pkg/drivers/export"

// packageLimit is how long one package's tests may take in a guest.
const packageLimit = 40 * time.Minute

// TestPackages runs the packages' own tests in a guest: the conformance suite of
// the drivers on real volume groups, the exports on the kernel's targets, the
// connector on the kernel's initiators.
func TestPackages(t *testing.T) {
	if world.why != "" {
		t.Skip("skipped:", world.why)
	}
	for _, p := range inGuest {
		t.Run(path.Base(p), func(t *testing.T) {
			if testing.Short() && p != inShort {
				t.Skip("skipped: in short mode", path.Base(inShort), "alone; the suite lvm has all")
			}
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
			out := harness.NewVerdicts(t)
			err := l.Nodes[0].Exec(ctx, guest.Cmd{
				Args: []string{"/share/tests/" + name, "-test.v", "-test.run", run, "-test.timeout", packageLimit.String()},
				Env:  []string{"OSDS_TEST_GUEST=1", "OSDS_TEST_DISK=/dev/vdb"}, Dir: "/share/tests/" + filepath.Base(p), Stdout: out,
			})
			out.End()
			if err != nil {
				t.Errorf("%v\nthe guest's console:\n%s", err, l.Nodes[0].Console())
			}
			if out.Passed == 0 && err == nil {
				t.Error("no test passed")
			}
			t.Logf("%d tests passed, %d were skipped: %s", out.Passed, len(out.Skipped), strings.Join(out.Skipped, ", "))
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

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

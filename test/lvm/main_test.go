//go:build real

// Package lvm runs the data path as its users do: volumes of LVM, exported over
// iSCSI and NVMe/TCP, attached on other machines. The machines are guests with a
// kernel that has all of it (package guest); what is run in them is this tree's own
// programs and tests, linked statically.
package lvm

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/osds-io/osds/pkg/api/apicheck"
	"github.com/osds-io/osds/test/guest"
	"github.com/osds-io/osds/test/harness"
)

// Environment variables of this suite.
const (
	// envVolumes is how many volumes the crowd makes, envKills how often the
	// dock is killed meanwhile.
	envVolumes, envKills = "OSDS_LVM_VOLUMES", "OSDS_LVM_KILLS"
)

// world is what all tests of the package share; it is set once by TestMain.
var world struct {
	root  string // of this module
	dir   string // removed at the end
	share string // what guests have as /share
	image *guest.Image
	// why says why there are no guests; empty if there are.
	why string
	api *apicheck.Suite
}

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	flag.Parse()
	if err := prepare(); err != nil {
		fmt.Fprintln(os.Stderr, "lvm:", err)
		return 1
	}
	defer func() {
		if os.Getenv(harness.EnvKeep) != "" {
			fmt.Fprintln(os.Stderr, "lvm: kept", world.dir)
			return
		}
		_ = os.RemoveAll(world.dir)
	}()
	return m.Run()
}

// prepare makes the guests' image and builds what runs in them.
func prepare() (err error) {
	world.api = apicheck.NewSuite()
	if world.dir, err = os.MkdirTemp("", "osds-lvm"); err != nil {
		return err
	}
	world.share = filepath.Join(world.dir, "share")
	for _, d := range []string{"bin", "tests", "log"} {
		if err := os.MkdirAll(filepath.Join(world.share, d), 0o700); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Minute)
	defer cancel()
	out, err := exec.CommandContext(ctx, "go", "env", "GOMOD").Output()
	if err != nil {
		return fmt.Errorf("go env GOMOD: %w", err)
	}
	world.root = filepath.Dir(strings.TrimSpace(string(out)))
	began := time.Now()
	world.image, err = guest.Build(ctx, os.Stderr)
	var cannot *guest.CannotError
	switch {
	case errors.As(err, &cannot):
		world.why = err.Error()
		fmt.Fprintln(os.Stderr, "lvm:", err)
		return nil
	case err != nil:
		return err
	}
	images := time.Since(began)
	began = time.Now()
	if err := goTool(ctx, "build", "-o", filepath.Join(world.share, "bin")+"/", "./cmd/osdslet", "./cmd/osdsdock", "./cmd/osdsctl", "./test/lvm/probe"); err != nil {
		return err
	}
	fmt.Fprintf(os.Stderr, "lvm: image ready in %.0f s, programs built in %.0f s\n", images.Seconds(), time.Since(began).Seconds())
	return nil
}

// goTool runs the go command so that what it makes runs on any Linux.
func goTool(ctx context.Context, args ...string) error {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = world.root
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go %s: %w\n%s", strings.Join(args, " "), err, out)
	}
	return nil
}

// boot starts guests that end with the test.
func boot(t *testing.T, c guest.Config) *guest.Lab {
	t.Helper()
	if world.why != "" {
		t.Skip("skipped:", world.why)
	}
	c.Share = world.share
	dir, err := os.MkdirTemp(world.dir, "lab")
	if err != nil {
		t.Fatal(err)
	}
	l, err := world.image.Boot(t.Context(), dir, c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = l.Close()
		if os.Getenv(harness.EnvKeep) == "" {
			_ = os.RemoveAll(dir)
		}
	})
	return l
}

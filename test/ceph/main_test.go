//go:build real && linux

package ceph

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/osds-io/osds/test/cephlab"
	"github.com/osds-io/osds/test/harness"
)

// suite and lab are set once by TestMain; tests only read them.
var (
	suite *harness.Suite
	lab   *cephlab.Cluster
)

func TestMain(m *testing.M) {
	if err := cephlab.Install(context.Background()); err != nil {
		fmt.Println("skipped: no Ceph can be had here:", err)
		return
	}
	if why := cephlab.Why(); why != "" {
		fmt.Println("skipped:", why)
		return
	}
	os.Exit(run(m))
}

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "osds-ceph")
	if err != nil {
		fmt.Println("--- FAIL:", err)
		return 1
	}
	defer os.RemoveAll(dir)
	began := time.Now()
	// Pool rbd is for what goes past the driver.
	lab, err = cephlab.Start(context.Background(), cephlab.Config{Dir: dir, Pools: []string{"rbd", "vols"}})
	if err != nil {
		fmt.Println("--- FAIL: no cluster:", err)
		return 1
	}
	defer lab.Stop()
	fmt.Printf("a cluster was up after %.1f s\n", time.Since(began).Seconds())
	return harness.Main(m, &suite)
}

// needFuse skips a test that makes block devices where none can be.
func needFuse(t *testing.T) {
	t.Helper()
	for _, dev := range []string{"/dev/fuse", "/dev/loop-control"} {
		if _, err := os.Stat(dev); err != nil {
			t.Skipf("skipped: images cannot be made devices here: %v", err)
		}
	}
	if _, err := exec.LookPath("mkfs.ext4"); err != nil {
		suite.Need(t, "e2fsprogs", "mkfs.ext4", "resize2fs")
	}
}

// noLoops and noMounts fail a test that has left devices or file systems.
func noLoops(t *testing.T, dir string) {
	t.Helper()
	if l, err := harness.Loops(dir); err != nil || len(l) > 0 {
		t.Errorf("loop devices are left: %v, %v", l, err)
	}
	// Of a file system that was unmounted under it, a device has the name of
	// the file alone.
	files, _ := filepath.Glob("/sys/block/loop*/loop/backing_file")
	for _, f := range files {
		b, _ := os.ReadFile(f)
		if filepath.Dir(string(b)) == "/" {
			t.Errorf("a loop device is left: %s", f)
		}
	}
}

func noMounts(t *testing.T, dir string) {
	t.Helper()
	if m, err := harness.Mounts(dir); err != nil || len(m) > 0 {
		t.Errorf("mounts are left: %v, %v", m, err)
	}
}

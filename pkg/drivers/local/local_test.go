package local

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/osds-io/osds/internal/run"
	"github.com/osds-io/osds/pkg/drivers"
	"github.com/osds-io/osds/pkg/drivers/drivertest"
	"github.com/osds-io/osds/pkg/model"
)

func TestMain(m *testing.M) {
	drivertest.Child(openAt)
	os.Exit(m.Run())
}

// openAt opens the backend that setUp has made in a directory.
func openAt(ctx context.Context, dir string) (drivers.Driver, error) {
	return Factory(ctx, drivers.Config{Backend: "local", Path: filepath.Join(dir, "local.yaml"),
		StateDir: filepath.Join(dir, "state"), ClusterID: "cluster"})
}

// setUp makes a configuration with one pool, "p".
func setUp(t testing.TB, dir, poolDir, keys string) {
	t.Helper()
	yaml := fmt.Sprintf("pool:\n  p:\n    path: %s\n    %s\n", poolDir, strings.ReplaceAll(keys, "\n", "\n    "))
	if err := os.WriteFile(filepath.Join(dir, "local.yaml"), []byte(yaml), 0o600); err != nil {
		t.Fatal(err)
	}
}

// backend gives a pool in a directory of the test's own, opened.
func backend(t testing.TB, keys string) (dir string, d *Driver) {
	t.Helper()
	dir = t.TempDir()
	setUp(t, dir, filepath.Join(dir, "pool"), keys)
	return dir, open(t, dir)
}

func open(t testing.TB, dir string) *Driver {
	t.Helper()
	d, err := openAt(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	return d.(*Driver)
}

const testSize = 4 * model.MiB

// harness is for a pool in poolDir, with its configuration in dir.
func harness(dir, poolDir string) drivertest.Harness {
	return drivertest.Harness{
		New: func(t testing.TB) drivers.Driver { return open(t, dir) },
		// Files of any length will do; small ones are fast.
		Pool: "p", Size: testSize, Fill: true, Host: model.Host{HostName: "localhost"}, Protocol: "local",
		OpenData: func(_ context.Context, r drivers.VolumeRef) (drivertest.Data, error) {
			return os.OpenFile(filepath.Join(poolDir, volumes.data(r.ID)), os.O_RDWR, 0)
		},
		Leftovers: func(id string) ([]string, error) { return leftovers(poolDir, id) },
		Hold: func(t testing.TB, c model.Connection) func() {
			f, err := os.Open(c.Data["devicePath"].(string))
			if err != nil {
				t.Fatal(err)
			}
			return func() { _ = f.Close() }
		},
	}
}

// leftovers looks for an id in the pool's directory and among the loop devices.
func leftovers(poolDir, id string) (left []string, err error) {
	err = filepath.WalkDir(poolDir, func(path string, _ fs.DirEntry, err error) error {
		if err == nil && strings.Contains(filepath.Base(path), id) {
			left = append(left, path)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	ls, err := findLoops(func(string) bool { return true })
	for _, l := range ls {
		if l.base == id+dataExt || l.tag == tagOf(id) {
			left = append(left, l.path())
		}
	}
	return left, err
}

func TestConformanceThin(t *testing.T) {
	dir := t.TempDir()
	setUp(t, dir, filepath.Join(dir, "pool"), "capacity: 192MiB\nmultiAttach: true")
	drivertest.Run(t, harness(dir, filepath.Join(dir, "pool")))
}

func TestConformanceThick(t *testing.T) {
	dir := t.TempDir()
	setUp(t, dir, filepath.Join(dir, "pool"), "capacity: 192MiB\nprovisioningPolicy: Thick")
	drivertest.Run(t, harness(dir, filepath.Join(dir, "pool")))
}

func TestConformanceReflink(t *testing.T) {
	for _, keys := range []string{"multiAttach: true\noverProvisioningRatio: 2", "provisioningPolicy: Thick"} {
		t.Run(strings.Fields(keys)[1], func(t *testing.T) {
			dir, mnt := t.TempDir(), xfs(t)
			setUp(t, dir, filepath.Join(mnt, "pool"), keys)
			if d := open(t, dir); !d.pools["p"].reflink {
				t.Error("the file system shares blocks, and the driver does not know")
			} else if err := d.Close(); err != nil {
				t.Fatal(err)
			}
			drivertest.Run(t, harness(dir, filepath.Join(mnt, "pool")))
		})
	}
}

func TestCrash(t *testing.T) {
	for _, policy := range []string{"Thin", "Thick"} {
		t.Run(policy, func(t *testing.T) {
			if policy == "Thick" && testing.Short() {
				t.Skip("left out of a short run")
			}
			dir := t.TempDir()
			setUp(t, dir, filepath.Join(dir, "pool"), "capacity: 192MiB\nprovisioningPolicy: "+policy)
			drivertest.Crash(t, harness(dir, filepath.Join(dir, "pool")), dir)
		})
	}
}

func TestCrashReflink(t *testing.T) {
	if testing.Short() {
		t.Skip("left out of a short run")
	}
	dir, mnt := t.TempDir(), xfs(t)
	setUp(t, dir, filepath.Join(mnt, "pool"), "provisioningPolicy: Thin")
	drivertest.Crash(t, harness(dir, filepath.Join(mnt, "pool")), dir)
}

// command runs a system program, and skips the test if it is not installed.
func command(t testing.TB, argv ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	_, err := run.Exec{}.Run(ctx, run.Cmd{Name: argv[0], Args: argv[1:]})
	if model.IsKind(err, model.KindUnsupported) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func needRoot(t testing.TB) {
	t.Helper()
	if why := whyNoLoops(); why != "" {
		t.Skip(why)
	}
}

// xfs mounts a fresh XFS, which shares blocks, on a loop device.
func xfs(t testing.TB) string {
	t.Helper()
	needRoot(t)
	dir := t.TempDir()
	image, mnt := filepath.Join(dir, "xfs.img"), filepath.Join(dir, "mnt")
	f, err := os.Create(image)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(512 << 20); err != nil {
		t.Fatal(err)
	}
	command(t, "mkfs.xfs", "-q", "-m", "reflink=1", image)
	mount(t, loopFor(t, f).path(), mnt, "xfs", 0)
	return mnt
}

// loopFor binds a loop device that is not the driver's, until the test ends.
func loopFor(t testing.TB, f *os.File) loop {
	t.Helper()
	l, err := bindLoop(t.Context(), f, "osds-test", false)
	if err != nil {
		t.Fatal(err)
	}
	info, err := l.ask()
	if err != nil {
		t.Fatal(err)
	}
	l.dev, l.ino = info.Device, info.Inode
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := l.unbind(ctx); err != nil {
			t.Errorf("%s: %v", l.path(), err)
		}
	})
	return l
}

// mount mounts a device, until the test ends or the function is called.
func mount(t testing.TB, dev, at, fstype string, flags uintptr) (unmount func()) {
	t.Helper()
	if err := os.MkdirAll(at, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount(dev, at, fstype, flags, ""); err != nil {
		t.Fatalf("mount %s: %v", dev, err)
	}
	done := false
	unmount = func() {
		if !done {
			done = true
			if err := unix.Unmount(at, 0); err != nil {
				t.Errorf("unmount %s: %v", at, err)
			}
		}
	}
	t.Cleanup(unmount)
	return unmount
}

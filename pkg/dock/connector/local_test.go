package connector

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/osds-io/osds/pkg/drivers"
	"github.com/osds-io/osds/pkg/model"
)

// loopDevice binds a file of a volume to a loop device.
func loopDevice(t *testing.T, volume string, size int64) (dev, file string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root for loop devices")
	}
	file = filepath.Join(t.TempDir(), volume+".img")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(file, size); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("losetup", "-f", "--show", file).CombinedOutput()
	if err != nil {
		t.Skipf("needs loop devices: %v: %s", err, out)
	}
	dev = strings.TrimSpace(string(out))
	t.Cleanup(func() { sh(t, "losetup", "-d", dev) })
	// The flag outlives whoever had the device before.
	sh(t, "blockdev", "--setrw", dev)
	return dev, file
}

func sh(t testing.TB, args ...string) {
	t.Helper()
	if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v: %s", strings.Join(args, " "), err, out)
	}
}

func bound(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func TestLocal(t *testing.T) {
	for _, fs := range []string{"ext4", "xfs"} {
		t.Run(fs, func(t *testing.T) { localLife(t, fs) })
	}
}

func localLife(t *testing.T, fs string) {
	if _, err := exec.LookPath("mkfs." + fs); err != nil {
		t.Skip(err)
	}
	volume := model.NewID()
	dev, file := loopDevice(t, volume, 400<<20)
	conf := Config{StateDir: filepath.Join(t.TempDir(), "s"), Log: quietLog()}
	c, err := New(bound(t), conf)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}()
	r := Request{AttachmentID: model.NewID(), VolumeID: volume, Size: 400 * model.MiB,
		Connection: model.Connection{Type: "local", Data: map[string]any{"devicePath": dev, "volumeId": volume}}}
	d, err := c.Attach(bound(t), r)
	id, _ := drivers.NAA(volume)
	if err != nil || d.Path != dev || d.Size != 400*model.MiB || d.Identity != id {
		t.Fatalf("%+v, %v", d, err)
	}

	sh(t, "mkfs."+fs, "-q", dev)
	dir := t.TempDir()
	sh(t, "mount", dev, dir)
	mounted := true
	defer func() {
		if mounted {
			_ = unix.Unmount(dir, unix.MNT_DETACH)
		}
	}()
	if err := c.Detach(bound(t), r); !model.IsKind(err, model.KindBusy) || !strings.Contains(err.Error(), "mounted on "+dir) {
		t.Errorf("%v", err)
	}
	// The driver grows the file and tells the device; here the test does.
	if err := os.Truncate(file, 600<<20); err != nil {
		t.Fatal(err)
	}
	sh(t, "losetup", "-c", dev)
	var was, is unix.Statfs_t
	if err := unix.Statfs(dir, &was); err != nil {
		t.Fatal(err)
	}
	grow := fs != "ext4" || mayResize(t)
	if d, err = c.Resize(bound(t), r.AttachmentID, 600*model.MiB, grow); err != nil || d.Size != 600*model.MiB {
		t.Fatalf("%+v, %v", d, err)
	}
	if err := unix.Statfs(dir, &is); err != nil || grow && is.Blocks*uint64(is.Bsize) < was.Blocks*uint64(was.Bsize)+150<<20 {
		t.Errorf("the file system has grown from %d to %d blocks, %v", was.Blocks, is.Blocks, err)
	}

	// Another process knows it by the note.
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if c, err = New(bound(t), conf); err != nil {
		t.Fatal(err)
	}
	if list, err := c.List(bound(t), drivers.Page{}); err != nil || len(list) != 1 || list[0].Path != dev || list[0].VolumeID != volume {
		t.Errorf("%+v, %v", list, err)
	}
	r.Force = true
	if err := c.Detach(bound(t), r); err != nil {
		t.Fatal(err)
	}
	mounted = false
	if b, err := os.ReadFile("/proc/self/mountinfo"); err != nil || strings.Contains(string(b), dir) {
		t.Error("still mounted after a forced detach", err)
	}
	if err := c.Detach(bound(t), r); err != nil {
		t.Error("detached twice:", err)
	}
	if _, err := c.Resize(bound(t), r.AttachmentID, 0, false); !model.IsKind(err, model.KindNotFound) {
		t.Error(err)
	}
}

// mayResize says whether ext4 lets us grow it: containers often lack the
// capability.
func mayResize(t *testing.T) bool {
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var caps [2]unix.CapUserData
	if err := unix.Capget(&hdr, &caps[0]); err != nil {
		t.Fatal(err)
	}
	ok := caps[0].Effective&(1<<unix.CAP_SYS_RESOURCE) != 0
	if !ok {
		t.Log("ext4 is not grown: CAP_SYS_RESOURCE is missing here")
	}
	return ok
}

// TestLocalRefuses has devices that are not the volume's.
func TestLocalRefuses(t *testing.T) {
	volume := model.NewID()
	dev, _ := loopDevice(t, model.NewID(), 1<<20)
	c, err := New(bound(t), Config{StateDir: t.TempDir(), Log: quietLog()})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for path, kind := range map[string]model.Kind{dev: model.KindConflict, "/dev/null": model.KindInvalid} {
		r := Request{AttachmentID: model.NewID(), VolumeID: volume, Connection: model.Connection{Type: "local", Data: map[string]any{"devicePath": path}}}
		if _, err := c.Attach(bound(t), r); !model.IsKind(err, kind) {
			t.Errorf("%s: %v", path, err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	r := Request{AttachmentID: "a1", VolumeID: volume, Connection: model.Connection{Type: "local", Data: map[string]any{"devicePath": "/dev/osds-none"}}}
	if _, err := c.Attach(ctx, r); !model.IsKind(err, model.KindUnknownOutcome) || !strings.Contains(err.Error(), "is not there") {
		t.Error(err)
	}
	// What came to nothing is noted until it is detached; what was refused is not.
	if list := c.notes.all(); len(list) != 1 || list[0].AttachmentID != "a1" {
		t.Errorf("%+v", list)
	}
	if err := c.Detach(bound(t), Request{AttachmentID: "a1", VolumeID: "other"}); !model.IsKind(err, model.KindConflict) {
		t.Error(err)
	}
	if err := c.Detach(bound(t), r); err != nil || len(c.notes.all()) != 0 {
		t.Error(err)
	}
	for _, bad := range []Request{{}, {AttachmentID: "../x", VolumeID: volume}, {AttachmentID: "a", VolumeID: "b", Size: -1}} {
		if _, err := c.Attach(bound(t), bad); !model.IsKind(err, model.KindInvalid) {
			t.Error(err)
		}
	}
	if err := c.Detach(bound(t), Request{AttachmentID: ".."}); !model.IsKind(err, model.KindInvalid) {
		t.Error(err)
	}
}

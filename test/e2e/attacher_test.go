//go:build real

package e2e

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/osds-io/osds/pkg/client"
	"github.com/osds-io/osds/pkg/model"
	"github.com/osds-io/osds/pkg/model/wire"
	"github.com/osds-io/osds/test/harness"
)

// loopsHere says why devices cannot be attached on this machine.
func loopsHere() error {
	if os.Geteuid() != 0 {
		return errors.New("loop devices need root")
	}
	_, err := os.Stat("/dev/loop-control")
	return err
}

// attached makes a cluster of an osdslet, a dock with driver local and a dock that
// attaches, on this machine.
func attached(t *testing.T) (c *harness.Cluster, a *harness.API, storage, host *harness.Dock) {
	t.Helper()
	if err := loopsHere(); err != nil {
		t.Skipf("skipped: %v", err)
	}
	c = suite.NewCluster(t)
	c.AddLet(harness.Quick())
	b := c.Local("local", 20)
	b.Config += "    multiAttach: true\n"
	storage, host = c.AddDock(nil, b), c.AddAttacher(nil)
	c.Start()
	a = c.Admin()
	a.WaitPools(1)
	a.WaitAttacher(host.Name)
	return c, a, storage, host
}

// notes lists what a dock's connector has noted.
func notes(t *testing.T, d *harness.Dock) []string {
	t.Helper()
	l, err := filepath.Glob(filepath.Join(d.StateDir, "connector", "*.json"))
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// TestAttacherDock: a volume is attached through the dock of its host, used, grown,
// and detached, by REST alone.
func TestAttacherDock(t *testing.T) {
	t.Parallel()
	_, a, _, host := attached(t)
	_, h := a.Setup()
	docks, err := a.Docks.Collect(a.Ctx(), client.Query{}.Where("type", "attacher"), 0)
	if err != nil || len(docks) != 1 || len(docks[0].Initiators) == 0 || docks[0].Metadata["OsType"] != "linux" {
		t.Fatalf("the attacher's record: %+v, %v", docks, err)
	}
	v := a.Volume(wire.VolumeSpec{Name: "v", Size: 1})
	at := a.Attach(v.ID, h.ID)
	dev, _ := at.ConnectionInfo.Data["devicePath"].(string)
	if at.DockID != docks[0].ID || dev == "" || at.Mountpoint != dev || len(notes(t, host)) != 1 {
		t.Fatalf("attached: %+v", at)
	}
	f, err := os.OpenFile(dev, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt([]byte("written through the dock"), 4096); err != nil {
		t.Fatal(err)
	}
	a.Grow(v.ID, 2)
	if size, err := f.Seek(0, 2); err != nil || size != 2<<30 {
		t.Errorf("the host sees %d bytes, %v", size, err)
	}
	a.Doctor()

	// A mount keeps it; the reason names it.
	m := filepath.Join(t.TempDir(), "mnt")
	if err := os.Mkdir(m, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	harness.Run(t, harness.Tool(t, "mkfs.ext4"), "-q", dev)
	harness.Run(t, harness.Tool(t, "mount"), dev, m)
	mounted := true
	defer func() {
		if mounted {
			_ = unix.Unmount(m, 0)
		}
	}()
	if err := a.Attachments.Delete(a.Ctx(), at.ID); err != nil {
		t.Fatal(err)
	}
	_, err = a.Wait(a.Ctx(), model.ResAttachment, at.ID, client.WaitOptions{Gone: true})
	var failed *client.FailedError
	if !errors.As(err, &failed) || !strings.Contains(failed.Reason, m) {
		t.Fatalf("a detach of what is mounted: %v", err)
	}
	if got := a.GetVolume(v.ID); got.Status != model.StatusInUse {
		t.Errorf("the volume is %s", got.Status)
	}
	a.Doctor()
	if x, err := a.Attachments.Get(a.Ctx(), at.ID); err != nil || x.Status != model.StatusErrorDeleting {
		t.Fatalf("%+v, %v", x, err)
	}
	if err := unix.Unmount(m, 0); err != nil {
		t.Fatal(err)
	}
	mounted = false
	a.Detach(at.ID)
	if got := a.GetVolume(v.ID); got.Status != model.StatusAvailable || len(notes(t, host)) != 0 {
		t.Fatalf("detached: %+v, notes %v", got, notes(t, host))
	}
	a.Doctor()

	at = a.Attach(v.ID, h.ID)
	dev = at.Mountpoint
	// The file system grows with the volume. It is idle: not every place that
	// tests run in lets mounted ones grow.
	x, err := a.ResizeVolume(a.Ctx(), v.ID, &wire.ExtendVolumeSpec{NewSize: 4, GrowFileSystem: true})
	if err != nil {
		t.Fatal(err)
	}
	a.Settle(model.ResVolume, v.ID, x.TaskID)
	if at, err = a.Attachments.Get(a.Ctx(), at.ID); err != nil || at.StatusReason != "" {
		t.Errorf("%+v, %v", at, err)
	}
	harness.Run(t, harness.Tool(t, "mount"), dev, m)
	mounted = true
	var fs unix.Statfs_t
	if err := unix.Statfs(m, &fs); err != nil || fs.Blocks*uint64(fs.Bsize) < 3<<30 {
		t.Errorf("%v: the file system has %d blocks of %d", err, fs.Blocks, fs.Bsize)
	}
	if err := unix.Unmount(m, 0); err != nil {
		t.Fatal(err)
	}
	mounted = false
	a.Detach(at.ID)
	a.DeleteVolume(v.ID)
	a.Doctor()
}

// TestAttacherAway: a host that does not answer keeps its device, and says what to
// do; cut off by force it owes the device, and gives it up when it is back.
func TestAttacherAway(t *testing.T) {
	t.Parallel()
	c, a, _, host := attached(t)
	_, h := a.Setup()
	v := a.Volume(wire.VolumeSpec{Name: "v", Size: 1})
	at := a.Attach(v.ID, h.ID)
	host.Kill()
	if err := a.Attachments.Delete(a.Ctx(), at.ID); err != nil {
		t.Fatal(err)
	}
	_, err := a.Wait(a.Ctx(), model.ResAttachment, at.ID, client.WaitOptions{Gone: true})
	var failed *client.FailedError
	if !errors.As(err, &failed) || !strings.Contains(failed.Reason, "detach with force cuts it off") {
		t.Fatalf("a detach from a dead host: %v", err)
	}
	// It grows all the same.
	a.Grow(v.ID, 2)
	if err := a.Attachments.Delete(a.Ctx(), at.ID, client.Force()); err != nil {
		t.Fatal(err)
	}
	a.Gone(model.ResAttachment, at.ID)
	if got := a.GetVolume(v.ID); got.Status != model.StatusAvailable || got.Size != 2 {
		t.Fatalf("cut off: %+v", got)
	}
	debts, err := a.Debts(a.Ctx())
	if err != nil || len(debts) != 1 || debts[0].Resource != model.ResDevice || debts[0].ObjectID != at.ID {
		t.Fatalf("debts %+v, %v", debts, err)
	}
	if l, err := harness.Loops(c.Dir); err != nil || len(l) != 0 {
		t.Fatalf("still exported: %v %v", l, err)
	}
	c.Must(host.Start())
	a.Quiet(harness.Limit)
	if debts, err := a.Debts(a.Ctx()); err != nil || len(debts) != 0 || len(notes(t, host)) != 0 {
		t.Fatalf("debts %+v, %v, notes %v", debts, err, notes(t, host))
	}
	at = a.Attach(v.ID, h.ID)
	a.Detach(at.ID)
	a.DeleteVolume(v.ID)
	a.Doctor()
}

// TestAttacherReadOnly: read-only reaches the device, and a multi-attach volume of
// one host is refused twice.
func TestAttacherReadOnly(t *testing.T) {
	t.Parallel()
	_, a, _, _ := attached(t)
	_, h := a.Setup()
	v := a.Volume(wire.VolumeSpec{Name: "v", Size: 1, MultiAttach: true})
	x, err := a.Attachments.Create(a.Ctx(), &wire.VolumeAttachmentSpec{VolumeID: v.ID, HostID: h.ID, AttachMode: "ro", Mountpoint: "/data"})
	if err != nil {
		t.Fatal(err)
	}
	a.Settle(model.ResAttachment, x.ID, x.TaskID)
	if x, err = a.Attachments.Get(a.Ctx(), x.ID); err != nil || x.Mountpoint != "/data" {
		t.Fatalf("the client's mountpoint: %+v, %v", x, err)
	}
	dev, _ := x.ConnectionInfo.Data["devicePath"].(string)
	if f, err := os.OpenFile(dev, os.O_RDWR, 0); err == nil {
		_, err = f.WriteAt([]byte("x"), 0)
		_ = f.Close()
		if err == nil {
			t.Error("a read-only device was written to")
		}
	}
	if _, err := a.Attachments.Create(a.Ctx(), &wire.VolumeAttachmentSpec{VolumeID: v.ID, HostID: h.ID}); !model.IsKind(err, model.KindBusy) {
		t.Errorf("the same host twice: %v", err)
	}
	a.Detach(x.ID)
	// Nothing of that is left on the device, which is likely to be the next one's.
	x = a.Attach(v.ID, h.ID)
	f, err := os.OpenFile(x.Mountpoint, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.WriteAt([]byte("x"), 0)
	if err = errors.Join(err, f.Close()); err != nil {
		t.Errorf("a device after a read-only one: %v", err)
	}
	a.Detach(x.ID)
	a.DeleteVolume(v.ID)
	a.Doctor()
}

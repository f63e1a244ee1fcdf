package local

import (
	"bytes"
	"context"
	"crypto/rand"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/osds-io/osds/pkg/drivers"
	"github.com/osds-io/osds/pkg/model"
)

func ctx(t testing.TB) context.Context {
	c, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	return c
}

func closeDriver(t testing.TB, d *Driver) {
	t.Helper()
	if err := d.Close(); err != nil {
		t.Error(err)
	}
}

// create makes a volume that must succeed.
func create(t testing.TB, d *Driver, size model.Bytes) drivers.VolumeRef {
	t.Helper()
	r := drivers.CreateVolume{ID: model.NewID(), Pool: "p", Size: size, TenantID: "t", ClusterID: "c"}
	if _, err := d.CreateVolume(ctx(t), r); err != nil {
		t.Fatal(err)
	}
	return drivers.VolumeRef{ID: r.ID, Pool: "p"}
}

// export exports a volume, until the test ends.
func exportVolume(t testing.TB, d *Driver, v drivers.VolumeRef, change func(*drivers.Export)) (string, drivers.ExportRef) {
	t.Helper()
	r := drivers.Export{AttachmentID: model.NewID(), Volume: v}
	if change != nil {
		change(&r)
	}
	ref := drivers.ExportRef{AttachmentID: r.AttachmentID, Volume: v}
	c, err := d.Export(ctx(t), r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { detachAll(t, v.ID) })
	return c.Data["devicePath"].(string), ref
}

// detachAll detaches what is left of a volume's devices, past the driver.
func detachAll(t testing.TB, volumeID string) {
	ls, err := findLoops(func(base string) bool { return base == volumeID+dataExt })
	if err != nil {
		t.Error(err)
	}
	for _, l := range ls {
		if err := l.unbind(ctx(t)); err != nil {
			t.Errorf("%s: %v", l.path(), err)
		}
	}
}

func wantKind(t testing.TB, what string, err error, kind model.Kind) {
	t.Helper()
	if model.KindOf(err) != kind {
		t.Errorf("%s: kind %q, want %q: %v", what, model.KindOf(err), kind, err)
	}
}

func noise(t testing.TB, n int) []byte {
	t.Helper()
	b := make([]byte, n)
	if _, err := rand.Read(b); err != nil {
		t.Fatal(err)
	}
	return b
}

func writeFile(t testing.TB, path string, b []byte) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

func compareFile(t testing.TB, path string, want []byte) {
	t.Helper()
	got, err := os.ReadFile(path)
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("%s: %d bytes, want %d, equal %t, %v", path, len(got), len(want), bytes.Equal(got, want), err)
	}
}

// The life of a volume on its host: a file system is made, used, grown while it
// is mounted, and found again.
func TestFileSystemOnVolume(t *testing.T) {
	needRoot(t)
	t.Run("ext4", func(t *testing.T) {
		fileSystemOnVolume(t, "ext4", func(dev, at string, unmount func()) func() {
			if hasResource(t) {
				command(t, "resize2fs", dev)
				return unmount
			}
			t.Log("CAP_SYS_RESOURCE is missing here, so ext4 is grown unmounted")
			unmount()
			command(t, "e2fsck", "-f", "-p", dev)
			command(t, "resize2fs", dev)
			return mount(t, dev, at, "ext4", 0)
		})
	})
	t.Run("xfs", func(t *testing.T) {
		fileSystemOnVolume(t, "xfs", func(_, at string, unmount func()) func() {
			command(t, "xfs_growfs", at)
			return unmount
		})
	})
}

// hasResource says whether this process may do what growing a mounted ext4
// needs.
func hasResource(t testing.TB) bool {
	t.Helper()
	h := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&h, &data[0]); err != nil {
		t.Fatal(err)
	}
	return data[0].Effective&(1<<unix.CAP_SYS_RESOURCE) != 0
}

func fileSystemOnVolume(t *testing.T, fstype string, grow func(dev, at string, unmount func()) func()) {
	dir, d := backend(t, "capacity: 2GiB")
	defer closeDriver(t, d)
	v := create(t, d, 320*model.MiB)
	dev, ref := exportVolume(t, d, v, nil)
	command(t, "mkfs."+fstype, "-q", dev)
	mnt := filepath.Join(dir, "mnt")
	unmount := mount(t, dev, mnt, fstype, 0)
	small := noise(t, 3<<20+17)
	writeFile(t, filepath.Join(mnt, "small"), small)

	err := d.Unexport(ctx(t), ref)
	wantKind(t, "unexport of a mounted volume", err, model.KindBusy)
	if err == nil || !strings.Contains(err.Error(), mnt) {
		t.Errorf("the message should say where it is mounted: %v", err)
	}
	wantKind(t, "delete of a mounted volume", d.DeleteVolume(ctx(t), v), model.KindBusy)
	writeFile(t, filepath.Join(mnt, "after"), small) // the device lives on

	if got, err := d.ExpandVolume(ctx(t), v, 512*model.MiB); err != nil || got.Size != 512*model.MiB {
		t.Fatal(got, err)
	}
	unmount = grow(dev, mnt, unmount)
	var st unix.Statfs_t
	if err := unix.Statfs(mnt, &st); err != nil || model.Bytes(st.Blocks)*model.Bytes(st.Bsize) < 400*model.MiB {
		t.Errorf("the file system has %d blocks of %d, %v", st.Blocks, st.Bsize, err)
	}
	large := noise(t, 20<<20)
	writeFile(t, filepath.Join(mnt, "large"), large)
	unmount()
	if err := d.Unexport(ctx(t), ref); err != nil {
		t.Fatal(err)
	}

	dev, ref = exportVolume(t, d, v, func(r *drivers.Export) { r.ReadOnly = true })
	if f, err := os.OpenFile(dev, os.O_RDWR, 0); err == nil {
		if _, err := f.WriteAt([]byte("x"), 0); err == nil && f.Sync() == nil {
			t.Error("a read-only export was written to")
		}
		_ = f.Close()
	}
	unmount = mount(t, dev, mnt, fstype, unix.MS_RDONLY)
	compareFile(t, filepath.Join(mnt, "small"), small)
	compareFile(t, filepath.Join(mnt, "after"), small)
	compareFile(t, filepath.Join(mnt, "large"), large)
	unmount()
	if err := d.Unexport(ctx(t), ref); err != nil {
		t.Fatal(err)
	}
	if err := d.DeleteVolume(ctx(t), v); err != nil {
		t.Fatal(err)
	}
}

// A snapshot of a mounted volume holds everything that was synced before it, and
// nothing of what came after; without reflinks it is refused.
func TestSnapshotOfVolumeInUse(t *testing.T) {
	for _, policy := range []string{"Thin", "Thick"} {
		t.Run(policy, func(t *testing.T) {
			mnt := xfs(t)
			dir := t.TempDir()
			setUp(t, dir, filepath.Join(mnt, "pool"), "provisioningPolicy: "+policy)
			d := open(t, dir)
			defer closeDriver(t, d)
			v := create(t, d, 64*model.MiB)
			dev, ref := exportVolume(t, d, v, nil)
			command(t, "mkfs.ext4", "-q", dev)
			at := filepath.Join(dir, "mnt")
			unmount := mount(t, dev, at, "ext4", 0)
			first := noise(t, 5<<20)
			writeFile(t, filepath.Join(at, "first"), first)

			s, err := d.CreateSnapshot(ctx(t), drivers.CreateSnapshot{ID: model.NewID(), Volume: v})
			if err != nil {
				t.Fatal(err)
			}
			writeFile(t, filepath.Join(at, "second"), first)
			writeFile(t, filepath.Join(at, "first"), noise(t, 5<<20))
			c := drivers.CreateVolume{ID: model.NewID(), Pool: "p", Size: 64 * model.MiB,
				Source: &drivers.Source{Snapshot: &drivers.SnapshotRef{ID: s.ID, VolumeID: v.ID, Pool: "p"}, Size: s.Size}}
			if _, err := d.CloneVolume(ctx(t), c); err != nil {
				t.Fatal(err)
			}
			unmount()
			if err := d.Unexport(ctx(t), ref); err != nil {
				t.Fatal(err)
			}
			dev, ref = exportVolume(t, d, drivers.VolumeRef{ID: c.ID, Pool: "p"}, nil)
			b, err := os.ReadFile("/sys/block/" + filepath.Base(dev) + "/queue/logical_block_size")
			if err != nil || strings.TrimSpace(string(b)) != "512" {
				t.Errorf("after a snapshot the sector size is %q, %v", b, err)
			}
			unmount = mount(t, dev, at, "ext4", 0)
			compareFile(t, filepath.Join(at, "first"), first)
			if _, err := os.Stat(filepath.Join(at, "second")); !os.IsNotExist(err) {
				t.Errorf("what was written after the snapshot: %v", err)
			}
			unmount()
			if err := d.Unexport(ctx(t), ref); err != nil {
				t.Fatal(err)
			}
		})
	}
}

func TestCopyOfVolumeInUseIsRefusedWithoutReflink(t *testing.T) {
	needRoot(t)
	dir, d := backend(t, "capacity: 1GiB")
	defer closeDriver(t, d)
	if d.pools["p"].reflink {
		t.Skip("the temporary directory shares blocks")
	}
	v := create(t, d, testSize)
	_, ref := exportVolume(t, d, v, nil)
	s := drivers.CreateSnapshot{ID: model.NewID(), Volume: v}
	_, err := d.CreateSnapshot(ctx(t), s)
	wantKind(t, "snapshot", err, model.KindBusy)
	c := drivers.CreateVolume{ID: model.NewID(), Pool: "p", Size: testSize, Source: &drivers.Source{Volume: &v, Size: testSize}}
	_, err = d.CloneVolume(ctx(t), c)
	wantKind(t, "clone", err, model.KindBusy)
	for _, id := range []string{s.ID, c.ID} {
		if left, err := leftovers(filepath.Join(dir, "pool"), id); err != nil || len(left) > 0 {
			t.Error(left, err)
		}
	}
	if err := d.Unexport(ctx(t), ref); err != nil {
		t.Fatal(err)
	}
	if _, err := d.CreateSnapshot(ctx(t), s); err != nil {
		t.Error(err)
	}
}

// A device that somebody else made of a volume counts as a use of it.
func TestForeignLoop(t *testing.T) {
	needRoot(t)
	dir, d := backend(t, "capacity: 1GiB\nmultiAttach: true")
	defer closeDriver(t, d)
	v := create(t, d, testSize)
	f, err := os.OpenFile(filepath.Join(dir, "pool", volumes.data(v.ID)), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	l := loopFor(t, f)
	_ = f.Close()
	wantKind(t, "delete", d.DeleteVolume(ctx(t), v), model.KindBusy)
	_, err = d.Export(ctx(t), drivers.Export{AttachmentID: model.NewID(), Volume: v, MultiAttach: true})
	wantKind(t, "export", err, model.KindBusy)
	if xs, err := d.ListExports(ctx(t), drivers.Page{}); err != nil || len(xs) != 0 {
		t.Error(xs, err)
	}
	if err := d.Unexport(ctx(t), drivers.ExportRef{AttachmentID: model.NewID(), Volume: v}); err != nil {
		t.Error(err)
	}
	if still, err := l.same(); err != nil || !still {
		t.Errorf("somebody else's device was detached: %v", err)
	}
}

// Somebody removes the file under a device: the device lives on, so the export
// does, until it is ended.
func TestFileVanishes(t *testing.T) {
	needRoot(t)
	dir, d := backend(t, "capacity: 1GiB\nprovisioningPolicy: Thick")
	v := create(t, d, testSize)
	dev, ref := exportVolume(t, d, v, nil)
	if err := os.Remove(filepath.Join(dir, "pool", volumes.data(v.ID))); err != nil {
		t.Fatal(err)
	}
	closeDriver(t, d)
	d = open(t, dir)
	defer closeDriver(t, d)
	if xs, err := d.ListExports(ctx(t), drivers.Page{}); err != nil || len(xs) != 1 || xs[0].Detail != dev {
		t.Errorf("listed: %+v, %v", xs, err)
	}
	wantKind(t, "delete", d.DeleteVolume(ctx(t), v), model.KindBusy)
	_, err := d.CreateVolume(ctx(t), drivers.CreateVolume{ID: v.ID, Pool: "p", Size: testSize})
	wantKind(t, "create anew", err, model.KindBusy)
	if err := d.Unexport(ctx(t), ref); err != nil {
		t.Fatal(err)
	}
	if left, err := findLoops(func(base string) bool { return base == v.ID+dataExt }); err != nil || len(left) != 0 {
		t.Errorf("left: %+v, %v", left, err)
	}
	if err := d.DeleteVolume(ctx(t), v); err != nil {
		t.Fatal(err)
	}
}

// After a restart of the host there are no devices, whatever was noted.
func TestDevicesVanish(t *testing.T) {
	needRoot(t)
	dir, d := backend(t, "capacity: 1GiB")
	v := create(t, d, testSize)
	_, ref := exportVolume(t, d, v, nil)
	detachAll(t, v.ID)
	closeDriver(t, d)
	d = open(t, dir)
	defer closeDriver(t, d)
	if xs, err := d.ListExports(ctx(t), drivers.Page{}); err != nil || len(xs) != 0 {
		t.Errorf("listed: %+v, %v", xs, err)
	}
	again := drivers.Export{AttachmentID: ref.AttachmentID, Volume: v}
	if _, err := d.Export(ctx(t), again); err != nil {
		t.Fatal(err)
	}
	if xs, err := d.ListExports(ctx(t), drivers.Page{}); err != nil || len(xs) != 1 {
		t.Errorf("listed: %+v, %v", xs, err)
	}
	detachAll(t, v.ID)
	if err := d.DeleteVolume(ctx(t), v); err != nil {
		t.Fatal(err)
	}
	if left, err := leftovers(filepath.Join(dir, "pool"), ref.AttachmentID); err != nil || len(left) > 0 {
		t.Errorf("the note of an export outlived its volume: %q, %v", left, err)
	}
}

// The note of an export may be lost; the device itself says whose it is.
func TestLostNote(t *testing.T) {
	needRoot(t)
	dir, d := backend(t, "capacity: 1GiB")
	v := create(t, d, testSize)
	_, ref := exportVolume(t, d, v, nil)
	closeDriver(t, d)
	if err := os.WriteFile(filepath.Join(dir, "pool", exportFile(ref.AttachmentID)), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	d = open(t, dir)
	defer closeDriver(t, d)
	if xs, err := d.ListExports(ctx(t), drivers.Page{}); err != nil || len(xs) != 1 || xs[0].AttachmentID != ref.AttachmentID || xs[0].VolumeID != v.ID {
		t.Errorf("listed: %+v, %v", xs, err)
	}
	if err := d.Unexport(ctx(t), ref); err != nil {
		t.Fatal(err)
	}
	if left, err := leftovers(filepath.Join(dir, "pool"), ref.AttachmentID); err != nil || len(left) > 1 {
		t.Error(left, err)
	}
	if err := d.DeleteVolume(ctx(t), v); err != nil {
		t.Fatal(err)
	}
}

// A detach that was interrupted leaves a device that would vanish at its last
// close; exporting again makes it stay.
func TestInterruptedDetach(t *testing.T) {
	needRoot(t)
	_, d := backend(t, "capacity: 1GiB")
	defer closeDriver(t, d)
	v := create(t, d, testSize)
	dev, ref := exportVolume(t, d, v, nil)
	f, err := os.Open(dev)
	if err != nil {
		t.Fatal(err)
	}
	g, err := os.Open(dev)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetInt(int(g.Fd()), unix.LOOP_CLR_FD, 0); err != nil {
		t.Fatal(err)
	}
	_ = g.Close()
	c, err := d.Export(ctx(t), drivers.Export{AttachmentID: ref.AttachmentID, Volume: v})
	if err != nil || c.Data["devicePath"] != dev {
		t.Fatalf("%+v, %v", c, err)
	}
	_ = f.Close()
	if xs, err := d.ListExports(ctx(t), drivers.Page{}); err != nil || len(xs) != 1 || xs[0].Detail != dev {
		t.Errorf("listed: %+v, %v", xs, err)
	}
	if err := d.Unexport(ctx(t), ref); err != nil {
		t.Fatal(err)
	}
}

// A crash may come between growing the file and telling the device.
func TestGrowthIsCompleted(t *testing.T) {
	needRoot(t)
	dir, d := backend(t, "capacity: 1GiB")
	defer closeDriver(t, d)
	v := create(t, d, testSize)
	dev, ref := exportVolume(t, d, v, nil)
	if err := os.Truncate(filepath.Join(dir, "pool", volumes.data(v.ID)), int64(2*testSize)); err != nil {
		t.Fatal(err)
	}
	if got, err := d.ExpandVolume(ctx(t), v, 2*testSize); err != nil || got.Size != 2*testSize {
		t.Fatal(got, err)
	}
	f, err := os.Open(dev)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if end, err := f.Seek(0, 2); err != nil || end != int64(2*testSize) {
		t.Errorf("the device has %d bytes, %v", end, err)
	}
	_ = f.Close()
	if err := d.Unexport(ctx(t), ref); err != nil {
		t.Fatal(err)
	}
}

// The kernel keeps 63 bytes of a device's name; an id may be longer.
func TestLongAttachmentID(t *testing.T) {
	needRoot(t)
	dir, d := backend(t, "capacity: 1GiB\nmultiAttach: true")
	v := create(t, d, testSize)
	long := strings.Repeat("x", 127)
	var refs []drivers.ExportRef
	for _, end := range []string{"a", "b"} {
		_, ref := exportVolume(t, d, v, func(r *drivers.Export) { r.AttachmentID, r.MultiAttach = long+end, true })
		refs = append(refs, ref)
	}
	closeDriver(t, d)
	d = open(t, dir)
	defer closeDriver(t, d)
	xs, err := d.ListExports(ctx(t), drivers.Page{})
	if err != nil || len(xs) != 2 || xs[0].AttachmentID != long+"a" || xs[1].AttachmentID != long+"b" {
		t.Errorf("listed: %+v, %v", xs, err)
	}
	for _, ref := range refs {
		if err := d.Unexport(ctx(t), ref); err != nil {
			t.Fatal(err)
		}
	}
}

func TestOtherHostIsRefused(t *testing.T) {
	_, d := backend(t, "capacity: 1GiB")
	defer closeDriver(t, d)
	v := create(t, d, testSize)
	for _, h := range []model.Host{{HostName: "some-other-host"}, {IP: "192.0.2.1"}, {HostName: "other", IP: "192.0.2.1"}} {
		_, err := d.Export(ctx(t), drivers.Export{AttachmentID: model.NewID(), Volume: v, Host: h})
		wantKind(t, "export to "+h.HostName+h.IP, err, model.KindInvalid)
	}
	name, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range []model.Host{{HostName: strings.ToUpper(name)}, {HostName: name + ".example.org"}, {HostName: "x", IP: "127.0.0.1"}, {}} {
		if err := d.isThisHost(h); err != nil {
			t.Error(err)
		}
	}
	_, err = d.Export(ctx(t), drivers.Export{AttachmentID: model.NewID(), Volume: v, Protocol: "iscsi"})
	wantKind(t, "export by iSCSI", err, model.KindUnsupported)
}

//go:build real

package e2e

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/osds-io/osds/pkg/model"
	"github.com/osds-io/osds/pkg/model/wire"
	"github.com/osds-io/osds/test/harness"
)

// needBlock skips a test without what it takes to mount a volume.
func needBlock(t *testing.T) {
	t.Helper()
	harness.NeedRoot(t, "it makes loop devices and mounts them")
	if _, err := os.Stat("/dev/loop-control"); err != nil {
		t.Skipf("skipped: no loop devices here: %v", err)
	}
	suite.Need(t, "e2fsprogs", "mkfs.ext4", "resize2fs")
	suite.Need(t, "mount", "mount", "umount", "losetup")
}

// onXFS is a backend of files on an XFS of its own, which has reflinks.
func onXFS(name string, gb int) func(*harness.Cluster) harness.Backend {
	return func(c *harness.Cluster) harness.Backend {
		c.T.Helper()
		suite.Need(c.T, "xfsprogs", "mkfs.xfs")
		c.MountXFS(filepath.Join(c.Dir, name), 2*gb)
		return c.Local(name, gb)
	}
}

// device gives the block device of an attachment of driver local.
func device(t *testing.T, a *wire.VolumeAttachmentSpec) string {
	t.Helper()
	dev, _ := a.ConnectionInfo.Data["devicePath"].(string)
	if !strings.HasPrefix(dev, "/dev/loop") {
		t.Fatalf("the attachment's connection names no loop device: %+v", a.ConnectionInfo)
	}
	return dev
}

// mount mounts a device below the cluster's directory until the function that it
// gives is called.
func mount(t *testing.T, c *harness.Cluster, dev string) (dir string, unmount func()) {
	t.Helper()
	dir, err := os.MkdirTemp(c.Dir, "mnt")
	if err != nil {
		t.Fatal(err)
	}
	harness.Run(t, harness.Tool(t, "mount"), dev, dir)
	return dir, func() { t.Helper(); harness.Run(t, harness.Tool(t, "umount"), dir) }
}

// put writes a file and returns when it is on the device.
func put(t *testing.T, path string, data []byte) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
}

func same(t *testing.T, path string, want []byte) {
	t.Helper()
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Fatalf("%s has %d bytes (%x), want %d (%x)", path, len(got), sha256.Sum256(got), len(want), sha256.Sum256(want))
	}
}

func noise(t *testing.T, n int) []byte {
	t.Helper()
	b := make([]byte, n)
	if _, err := rand.Read(b); err != nil {
		t.Fatal(err)
	}
	return b
}

// TestFirstSession is the life of a volume with a file system on it: make,
// attach, write, snapshot, clone, grow, detach, revert, compare, delete.
func TestFirstSession(t *testing.T) {
	t.Parallel()
	needBlock(t)
	// Only a file system with reflinks copies a file that is being written to
	// at one point in time.
	c, a := one(t, onXFS("files", 8))
	_, host := a.Setup()

	v := a.Volume(wire.VolumeSpec{Name: "vol1", Size: 1, Description: "a first one"})
	if v.PoolID != a.Pool("files-pool").ID || v.Size != 1 || v.AvailabilityZone != "default" {
		t.Fatalf("%+v", v)
	}
	at := a.Attach(v.ID, host.ID)
	if s := a.GetVolume(v.ID).Status; s != model.StatusInUse {
		t.Fatalf("an attached volume is %s", s)
	}
	dev := device(t, at)
	harness.Run(t, harness.Tool(t, "mkfs.ext4"), "-q", dev)
	first, second := noise(t, 3<<20), noise(t, 2<<20)
	dir, unmount := mount(t, c, dev)
	put(t, filepath.Join(dir, "data"), first)
	unmount()

	snap := a.Snapshot(v.ID, "before")
	if snap.Size != 1 || snap.PoolID != v.PoolID {
		t.Fatalf("%+v", snap)
	}
	dir, unmount = mount(t, c, dev)
	put(t, filepath.Join(dir, "data"), second)
	put(t, filepath.Join(dir, "more"), second)
	unmount()

	// Grow it while it is attached: the device and the file system follow.
	if g := a.Grow(v.ID, 2); g.Size != 2 || g.Status != model.StatusInUse {
		t.Fatalf("%+v", g)
	}
	if size := blockSize(t, dev); size != 2<<30 {
		t.Fatalf("%s has %d bytes after the volume grew to 2 GB", dev, size)
	}
	harness.Run(t, "e2fsck", "-fy", dev)
	harness.Run(t, harness.Tool(t, "resize2fs"), dev)
	dir, unmount = mount(t, c, dev)
	put(t, filepath.Join(dir, "large"), noise(t, 8<<20))
	same(t, filepath.Join(dir, "data"), second)
	unmount()

	// Two clones: of the snapshot, and of the volume as it is.
	old := a.Volume(wire.VolumeSpec{Name: "of-snapshot", Size: 1, SnapshotID: snap.ID})
	now := a.Volume(wire.VolumeSpec{Name: "of-volume", SourceVolumeID: v.ID})
	if now.Size != 2 {
		t.Fatalf("a clone of a 2 GB volume has %d GB", now.Size)
	}
	for id, want := range map[string][]byte{old.ID: first, now.ID: second} {
		x := a.Attach(id, host.ID)
		dir, unmount := mount(t, c, device(t, x))
		same(t, filepath.Join(dir, "data"), want)
		unmount()
		a.Detach(x.ID)
	}

	a.Detach(at.ID)
	loops, err := harness.Loops(filepath.Join(c.Dir, "files"))
	if err != nil || len(loops) > 0 {
		t.Fatalf("loop devices after the last detach: %v %v", loops, err)
	}
	if s := a.GetVolume(v.ID).Status; s != model.StatusAvailable {
		t.Fatalf("a detached volume is %s", s)
	}

	// Back to what it was, in content; it keeps its size.
	r, err := a.RevertToSnapshot(a.Ctx(), snap.ID, nil)
	if err != nil {
		t.Fatal(err)
	}
	a.Settle(model.ResVolume, v.ID, r.TaskID)
	at = a.Attach(v.ID, host.ID)
	dir, unmount = mount(t, c, device(t, at))
	same(t, filepath.Join(dir, "data"), first)
	if _, err := os.Stat(filepath.Join(dir, "more")); !os.IsNotExist(err) {
		t.Fatalf("a file from after the snapshot is there: %v", err)
	}
	unmount()
	a.Detach(at.ID)
	a.Doctor()

	// A volume with a snapshot stays until that is gone.
	if err := a.Volumes.Delete(a.Ctx(), v.ID); !model.IsKind(err, model.KindBusy) {
		t.Fatalf("deleting a volume that has a snapshot: %v", err)
	}
	a.DeleteSnapshot(snap.ID)
	for _, id := range []string{v.ID, old.ID, now.ID} {
		a.DeleteVolume(id)
	}
	a.Doctor()
	empty(t, a)
}

// blockSize gives a block device's size in bytes.
func blockSize(t *testing.T, dev string) int64 {
	t.Helper()
	b, err := os.ReadFile("/sys/block/" + filepath.Base(dev) + "/size")
	if err != nil {
		t.Fatal(err)
	}
	var n int64
	if _, err := fmt.Sscan(string(b), &n); err != nil {
		t.Fatal(err)
	}
	return n * 512
}

// empty checks that nothing is reserved anywhere.
func empty(t *testing.T, a *harness.API) {
	t.Helper()
	l, err := a.Ledger(a.Ctx())
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range l {
		if p.Reserved != 0 || p.Volumes != 0 || p.Snapshots != 0 || p.Debts != 0 {
			t.Errorf("pool %s after the last delete: %+v", p.PoolName, p)
		}
	}
}

// TestReadmeSession runs the README's first session word by word.
func TestReadmeSession(t *testing.T) {
	t.Parallel()
	needBlock(t)
	suite.Need(t, "curl", "curl")
	suite.Need(t, "util-linux", "unshare")
	blocks := readmeBlocks(t, "## A first session")
	if len(blocks) != 2 {
		t.Fatalf("the README's first session has %d blocks of commands, want osdsctl's and curl's", len(blocks))
	}
	c, a := one(t, local("default", 20))
	script := strings.Join(blocks, "\n")
	script = strings.ReplaceAll(script, "http://127.0.0.1:50040", c.Lets[0].Checked())
	script = strings.ReplaceAll(script, "export PATH=$PWD/bin:$PATH", "")
	// A mount name space of its own: /mnt of this machine is not ours.
	script = "set -eux\n" + script + "\nkill %1\n"
	file := harness.WriteFile(t, filepath.Join(c.Dir, "session.sh"), []byte(script))
	ctl := c.Ctl()
	ctl.Script("unshare", "--mount", "--propagation", "private", "bash", file)
	a.Quiet(harness.Limit)
	a.Doctor()
	for _, want := range []string{"clone1", "vol2"} {
		if !strings.Contains(ctl.OK("volume", "list"), want) {
			t.Errorf("there is no volume %s after the session", want)
		}
	}
}

// readmeBlocks gives the sh blocks of a section of the README.
func readmeBlocks(t *testing.T, heading string) []string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("..", "..", "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, ok := strings.Cut(string(b), "\n"+heading+"\n")
	if !ok {
		t.Fatalf("the README has no section %q", heading)
	}
	rest, _, _ = strings.Cut(rest, "\n## ")
	var out []string
	for {
		_, block, found := strings.Cut(rest, "```sh\n")
		if !found {
			return out
		}
		block, after, _ := strings.Cut(block, "```")
		out, rest = append(out, block), after
	}
}

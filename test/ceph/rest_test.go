//go:build real && ceph && linux

package ceph

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/osds-io/osds/pkg/dock/connector"
	"github.com/osds-io/osds/pkg/model"
	"github.com/osds-io/osds/pkg/model/wire"
	"github.com/osds-io/osds/test/harness"
)

// TestDriver runs the driver's own tests, the conformance suite above all, on the
// cluster.
func TestDriver(t *testing.T) {
	for _, p := range []string{"p", "q"} {
		must(t, lab.CreatePool(t.Context(), p))
	}
	cmd := exec.CommandContext(t.Context(), "go", "test", "-count=1", "-timeout=8m", "-tags", harness.BuildTags(), "github.com/osds-io/osds/pkg/drivers/ceph")
	cmd.Env = append(os.Environ(), "OSDS_TEST_CEPH_CONF="+lab.Conf)
	began := time.Now()
	out, err := cmd.CombinedOutput()
	if err != nil || bytes.Contains(out, []byte("[no test files]")) {
		t.Fatalf("%v\n%s", err, out)
	}
	t.Logf("the driver's tests took %s: %s", time.Since(began).Round(time.Second), bytes.TrimSpace(out))
}

// site is osds on the cluster, with a pool of the test's own.
type site struct {
	*testing.T
	c    *harness.Cluster
	a    *harness.API
	pool string
	host *wire.HostSpec
}

// poolSeq makes the names of pools differ.
func poolName(t *testing.T) string {
	return strings.ToLower(strings.NewReplacer("Test", "", "/", "-").Replace(t.Name()))
}

func backend(pool string) harness.Backend {
	return harness.Backend{Name: "ceph", Driver: "ceph", Config: fmt.Sprintf(
		"configFile: %s\ntrashDelay: 0s\npool:\n  %s:\n    overProvisioningRatio: 10\n", lab.Conf, pool)}
}

// newSite makes a pool, an osdslet and a dock, and starts them. At the end
// nothing of theirs may be left in the pool.
func newSite(t *testing.T) *site {
	t.Helper()
	s := &site{T: t, pool: poolName(t)}
	must(t, lab.CreatePool(t.Context(), s.pool))
	s.c = suite.NewCluster(t)
	s.c.AddLet(harness.Quick())
	s.c.AddDock(nil, backend(s.pool))
	s.c.Start()
	s.a = s.c.Admin()
	s.a.WaitPools(1)
	_, s.host = s.a.Setup()
	return s
}

// invariants checks that nothing is going on, that the doctor finds nothing, and
// that the images are those of the volumes.
func (s *site) invariants() {
	s.Helper()
	s.a.Quiet(2 * harness.Limit)
	s.a.Doctor()
	vols, err := s.a.Volumes.Collect(s.a.Ctx(), query(), 0)
	must(s.T, err)
	want := map[string]bool{}
	var size int64
	for _, v := range vols {
		want["opensds-"+v.ID] = v.Status != model.StatusError
		size += v.Size << 30
	}
	snaps, err := s.a.Snapshots.Collect(s.a.Ctx(), query(), 0)
	must(s.T, err)
	l, err := s.a.Ledger(s.a.Ctx())
	must(s.T, err)
	if len(l) != 1 || l[0].Debts != 0 || l[0].Volumes != size {
		s.Errorf("the ledger says %+v, the volumes have %d bytes, snapshots: %d", l, size, len(snaps))
	}
	for _, i := range s.images() {
		if !want[i] {
			s.Errorf("image %s is of no volume", i)
		}
		delete(want, i)
	}
	for i, made := range want {
		if made {
			s.Errorf("volume %s has no image", i)
		}
	}
}

// images lists the pool's images, once the trash is empty.
func (s *site) images() []string {
	s.Helper()
	must(s.T, harness.Poll(harness.Limit, func() error {
		out, err := lab.RBD(s.Context(), "trash", "ls", "--all", s.pool)
		if err == nil && len(bytes.TrimSpace(out)) > 0 {
			err = fmt.Errorf("the trash has %s", out)
		}
		return err
	}))
	out, err := lab.RBD(s.Context(), "ls", s.pool)
	must(s.T, err)
	return strings.Fields(string(out))
}

// empty checks that all is gone.
func (s *site) empty() {
	s.Helper()
	s.invariants()
	if l := s.images(); len(l) > 0 {
		s.Errorf("images are left: %v", l)
	}
}

// use attaches a volume to this machine by what REST says, and gives its device.
func (s *site) use(h *host, volume string) (*wire.VolumeAttachmentSpec, connector.Device) {
	s.Helper()
	x := s.a.Attach(volume, s.host.ID)
	if x.ConnectionInfo.DriverVolumeType != "rbd" {
		s.Fatalf("the connection is %+v", x.ConnectionInfo)
	}
	d, err := h.c.Attach(h.ctx(), connector.Request{AttachmentID: x.ID, VolumeID: volume, Size: model.GiB,
		Connection: model.Connection{Type: x.ConnectionInfo.DriverVolumeType, Data: x.ConnectionInfo.Data}})
	must(s.T, err)
	return x, d
}

func (s *site) release(h *host, x *wire.VolumeAttachmentSpec) {
	s.Helper()
	must(s.T, h.c.Detach(h.ctx(), connector.Request{AttachmentID: x.ID, VolumeID: x.VolumeID}))
	s.a.Detach(x.ID)
}

func mount(t *testing.T, dev, dir string) (unmount func()) {
	t.Helper()
	must(t, os.MkdirAll(dir, 0o700))
	// A clone has the file system's id of its origin.
	harness.Run(t, "mount", "-o", "nouuid", dev, dir)
	done := false
	t.Cleanup(func() {
		if !done {
			_ = unix.Unmount(dir, unix.MNT_DETACH)
		}
	})
	return func() { t.Helper(); must(t, unix.Unmount(dir, 0)); done = true }
}

func write(t *testing.T, path string, data []byte) {
	t.Helper()
	f, err := os.Create(path)
	must(t, err)
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	must(t, err)
}

func same(t *testing.T, what, path string, want []byte) {
	t.Helper()
	if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, want) {
		t.Errorf("%s: %s has not what was written (%v)", what, path, err)
	}
}

func absent(t *testing.T, what, path string) {
	t.Helper()
	if _, err := os.Stat(path); !os.IsNotExist(err) {
		t.Errorf("%s: %s is there (%v)", what, path, err)
	}
}

// TestVolume is the life of a volume by REST, with a file system on it: what was
// written is there, after a snapshot, growth, a revert, and in a clone.
func TestVolume(t *testing.T) {
	h := newHost(t)
	suite.Need(t, "xfsprogs", "mkfs.xfs", "xfs_growfs")
	s := newSite(t)
	v := s.a.Volume(wire.VolumeSpec{Name: "v", Size: 1})
	x, d := s.use(h, v.ID)
	mnt := filepath.Join(h.dir, "mnt")
	harness.Run(t, "mkfs.xfs", "-q", d.Path)
	unmount := mount(t, d.Path, mnt)
	first, second, third := random(24<<20), random(16<<20), random(8<<20)
	write(t, filepath.Join(mnt, "a"), first)

	// Frozen, so that the snapshot has a file system without a log to replay.
	harness.Run(t, "xfs_freeze", "-f", mnt)
	snap := s.a.Snapshot(v.ID, "first")
	harness.Run(t, "xfs_freeze", "-u", mnt)
	write(t, filepath.Join(mnt, "a"), second)
	write(t, filepath.Join(mnt, "b"), second)

	// It grows while it is used.
	before := capacity(t, mnt)
	if g := s.a.Grow(v.ID, 2); g.Size != 2 {
		t.Errorf("after growth: %+v", g)
	}
	grown, err := h.c.Resize(h.ctx(), x.ID, 2*model.GiB, true)
	must(t, err)
	if grown.Size != 2*model.GiB || capacity(t, mnt) < before*3/2 {
		t.Errorf("after growth: %+v, the file system has %d bytes, had %d", grown, capacity(t, mnt), before)
	}
	same(t, "grown", filepath.Join(mnt, "b"), second)
	unmount()
	s.release(h, x)
	s.invariants()

	// A clone of the snapshot has what was there then; what is written to one
	// is not in the other.
	clone := s.a.Volume(wire.VolumeSpec{Name: "clone", Size: 2, SnapshotID: snap.ID})
	y, d := s.use(h, clone.ID)
	unmount = mount(t, d.Path, filepath.Join(h.dir, "clone"))
	same(t, "clone", filepath.Join(h.dir, "clone", "a"), first)
	absent(t, "clone", filepath.Join(h.dir, "clone", "b"))
	write(t, filepath.Join(h.dir, "clone", "c"), third)
	unmount()
	s.release(h, y)

	rv, err := s.a.RevertToSnapshot(s.a.Ctx(), snap.ID, &wire.RevertSpec{})
	must(t, err)
	s.a.Settle(model.ResVolume, v.ID, rv.TaskID)
	x, d = s.use(h, v.ID)
	unmount = mount(t, d.Path, mnt)
	same(t, "reverted", filepath.Join(mnt, "a"), first)
	absent(t, "reverted", filepath.Join(mnt, "b"))
	absent(t, "reverted", filepath.Join(mnt, "c"))
	unmount()
	s.release(h, x)
	s.invariants()

	// The clone needs neither the snapshot nor the volume.
	s.a.DeleteSnapshot(snap.ID)
	s.a.DeleteVolume(v.ID)
	y, d = s.use(h, clone.ID)
	unmount = mount(t, d.Path, filepath.Join(h.dir, "clone"))
	same(t, "clone without its origin", filepath.Join(h.dir, "clone", "a"), first)
	same(t, "clone without its origin", filepath.Join(h.dir, "clone", "c"), third)
	unmount()
	s.release(h, y)
	s.a.DeleteVolume(clone.ID)
	s.empty()
	h.noneLeft()
}

// bound gives a part of a test a time.
func bound(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

package local

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/osds-io/osds/internal/faults"
	"github.com/osds-io/osds/pkg/drivers"
	"github.com/osds-io/osds/pkg/model"
)

func tryOpen(t testing.TB, dir string) error {
	t.Helper()
	c, cancel := context.WithTimeout(t.Context(), 3e9)
	defer cancel()
	d, err := openAt(c, dir)
	if err == nil {
		_ = d.Close()
	}
	return err
}

// A pool whose file system is not mounted must not pass for an empty one: its
// volumes would be taken for lost.
func TestMissingPoolIsNotEmpty(t *testing.T) {
	dir, d := backend(t, "capacity: 1GiB")
	v := create(t, d, testSize)
	id := d.pools["p"].id
	closeDriver(t, d)
	path := filepath.Join(dir, "pool")
	if err := os.Rename(path, path+".away"); err != nil {
		t.Fatal(err)
	}
	err := tryOpen(t, dir)
	wantKind(t, "open of what is not mounted", err, model.KindUnavailable)
	if err == nil || !strings.Contains(err.Error(), "mounted?") {
		t.Error(err)
	}
	// Another pool in its place is no better.
	other := t.TempDir()
	setUp(t, other, path, "")
	closeDriver(t, open(t, other))
	wantKind(t, "open of another pool", tryOpen(t, dir), model.KindUnavailable)

	if err := os.RemoveAll(path); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".away", path); err != nil {
		t.Fatal(err)
	}
	d = open(t, dir)
	defer closeDriver(t, d)
	if _, err := d.GetVolume(ctx(t), v); err != nil || d.pools["p"].id != id {
		t.Error(err)
	}
}

func TestStrangeDirectoryIsRefused(t *testing.T) {
	dir := t.TempDir()
	setUp(t, dir, dir, "") // it holds the configuration
	err := tryOpen(t, dir)
	wantKind(t, "open", err, model.KindInvalid)
	if err == nil || !strings.Contains(err.Error(), "local.yaml") {
		t.Error(err)
	}
}

func TestSecondDockIsRefused(t *testing.T) {
	dir, d := backend(t, "capacity: 1GiB")
	other := t.TempDir()
	link := filepath.Join(other, "link")
	if err := os.Symlink(filepath.Join(dir, "pool"), link); err != nil {
		t.Fatal(err)
	}
	setUp(t, other, link, "")
	wantKind(t, "a second dock", tryOpen(t, other), model.KindUnavailable)
	closeDriver(t, d)
	if err := tryOpen(t, other); err != nil {
		t.Errorf("after the first one's end: %v", err)
	}
}

// What is damaged is listed, is no volume, and can be removed.
func TestDamage(t *testing.T) {
	dir, d := backend(t, "capacity: 1GiB")
	v, w, x := create(t, d, testSize), create(t, d, testSize), create(t, d, testSize)
	closeDriver(t, d)
	pool := filepath.Join(dir, "pool")
	if err := os.WriteFile(filepath.Join(pool, volumes.meta(v.ID)), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(pool, volumes.meta(w.ID))); err != nil {
		t.Fatal(err)
	}
	for _, n := range []string{"tmp/v-whatever.img", "volumes/not a name.img", "volumes/readme"} {
		if err := os.WriteFile(filepath.Join(pool, n), []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	d = open(t, dir)
	defer closeDriver(t, d)
	vs, err := d.ListVolumes(ctx(t), drivers.Page{})
	if err != nil || len(vs) != 3 || !vs[0].Incomplete || !vs[1].Incomplete || vs[2].Incomplete {
		t.Fatalf("%+v, %v", vs, err)
	}
	if _, err := os.Stat(filepath.Join(pool, "tmp/v-whatever.img")); !os.IsNotExist(err) {
		t.Errorf("what was being made: %v", err)
	}
	for _, r := range []drivers.VolumeRef{v, w} {
		_, err := d.GetVolume(ctx(t), r)
		wantKind(t, "get", err, model.KindNotFound)
		if err := d.DeleteVolume(ctx(t), r); err != nil {
			t.Error(err)
		}
		if left, err := leftovers(pool, r.ID); err != nil || len(left) > 0 {
			t.Error(left, err)
		}
	}
	// Somebody removes a file while the dock runs.
	if err := os.Remove(filepath.Join(pool, volumes.data(x.ID))); err != nil {
		t.Fatal(err)
	}
	_, err = d.GetVolume(ctx(t), x)
	wantKind(t, "get of a removed file", err, model.KindNotFound)
	if vs, err := d.ListVolumes(ctx(t), drivers.Page{}); err != nil || len(vs) != 1 || !vs[0].Incomplete {
		t.Errorf("%+v, %v", vs, err)
	}
}

// A file that lies about, put there by hand, must not become a volume's data,
// not even if the process dies at the worst moment.
func TestStrayDataIsNotAdopted(t *testing.T) {
	r := drivers.CreateVolume{ID: "a-volume", Pool: "p", Size: testSize}
	if dir := os.Getenv(strayEnv); dir != "" {
		d := open(t, dir)
		if err := os.WriteFile(filepath.Join(dir, "pool", volumes.data(r.ID)), noise(t, int(testSize)), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := faults.Arm(); err != nil {
			t.Fatal(err)
		}
		_, err := d.CreateVolume(ctx(t), r)
		t.Fatalf("it should be dead: %v", err)
	}
	dir, d := backend(t, "capacity: 1GiB")
	closeDriver(t, d)
	cmd := exec.CommandContext(ctx(t), os.Args[0], "-test.run=^TestStrayDataIsNotAdopted$")
	cmd.Env = append(os.Environ(), strayEnv+"="+dir, faults.Env+"=kill:local.create.meta")
	if out, err := cmd.CombinedOutput(); err == nil || !strings.Contains(err.Error(), "killed") {
		t.Fatalf("%v\n%s", err, out)
	}
	d = open(t, dir)
	defer closeDriver(t, d)
	_, err := d.GetVolume(ctx(t), drivers.VolumeRef{ID: r.ID, Pool: "p"})
	wantKind(t, "get", err, model.KindNotFound)
	if _, err := d.CreateVolume(ctx(t), r); err != nil {
		t.Fatal(err)
	}
	compareFile(t, filepath.Join(dir, "pool", volumes.data(r.ID)), make([]byte, testSize))
}

const strayEnv = "OSDS_LOCAL_TEST_STRAY"

func blocks(t testing.TB, path string) model.Bytes {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		t.Fatal(err)
	}
	return model.Bytes(st.Blocks) * 512
}

// A thick volume has its space from the start and keeps it, in copies and after
// discards too; a thin one has none.
func TestSpaceIsSetAside(t *testing.T) {
	for _, where := range []string{"plain", "reflink"} {
		for _, policy := range []string{"Thin", "Thick"} {
			t.Run(where+"/"+policy, func(t *testing.T) {
				dir := t.TempDir()
				pool := filepath.Join(dir, "pool")
				if where == "reflink" {
					pool = filepath.Join(xfs(t), "pool")
				}
				setUp(t, dir, pool, "provisioningPolicy: "+policy)
				d := open(t, dir)
				defer closeDriver(t, d)
				check := func(what, name string, size model.Bytes) {
					t.Helper()
					got := blocks(t, filepath.Join(pool, name))
					if policy == "Thick" && got < size {
						t.Errorf("%s has %s of %s set aside", what, got, size)
					}
					if policy == "Thin" && got > size/2 {
						t.Errorf("%s takes %s of %s", what, got, size)
					}
				}
				v := create(t, d, 2*testSize)
				check("a volume", volumes.data(v.ID), 2*testSize)
				if _, err := d.ExpandVolume(ctx(t), v, 4*testSize); err != nil {
					t.Fatal(err)
				}
				check("a grown volume", volumes.data(v.ID), 4*testSize)
				s, err := d.CreateSnapshot(ctx(t), drivers.CreateSnapshot{ID: model.NewID(), Volume: v})
				if err != nil {
					t.Fatal(err)
				}
				check("a snapshot", snapshots.data(s.ID), 4*testSize)
				sr := drivers.SnapshotRef{ID: s.ID, VolumeID: v.ID, Pool: "p"}
				c := drivers.CreateVolume{ID: model.NewID(), Pool: "p", Size: 6 * testSize, Source: &drivers.Source{Snapshot: &sr, Size: s.Size}}
				if _, err := d.CloneVolume(ctx(t), c); err != nil {
					t.Fatal(err)
				}
				check("a clone", volumes.data(c.ID), 6*testSize)
				if _, err := d.RevertVolume(ctx(t), v, sr); err != nil {
					t.Fatal(err)
				}
				check("a reverted volume", volumes.data(v.ID), 4*testSize)

				if whyNoLoops() != "" {
					t.Log(whyNoLoops())
					return
				}
				dev, ref := exportVolume(t, d, v, nil)
				f, err := os.OpenFile(dev, os.O_RDWR, 0)
				if err != nil {
					t.Fatal(err)
				}
				if err := fallocate(f, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 0, int64(testSize)); err != nil {
					t.Logf("the device takes no holes: %v", err)
				}
				_ = f.Close()
				if err := d.Unexport(ctx(t), ref); err != nil {
					t.Fatal(err)
				}
				check("a volume after its use", volumes.data(v.ID), 4*testSize)
			})
		}
	}
}

// Total is what osds may use: its own space and what is free, not what others
// use, and not twice what files share.
func TestStatistics(t *testing.T) {
	mnt := xfs(t)
	dir := t.TempDir()
	setUp(t, dir, filepath.Join(mnt, "pool"), "overProvisioningRatio: 3")
	d := open(t, dir)
	defer func() { closeDriver(t, d) }()
	near := func(what string, got, want model.Bytes) {
		t.Helper()
		if diff := got - want; diff < -6*model.MiB || diff > 6*model.MiB {
			t.Errorf("%s: %s, want about %s", what, got, want)
		}
	}
	stats := func() drivers.Pool {
		t.Helper()
		d.refresh(ctx(t), d.pools["p"]) // now, not within a minute
		ps, err := d.Pools(ctx(t))
		if err != nil {
			t.Fatal(err)
		}
		return ps[0]
	}
	empty := stats()
	if ps := empty.Extras.Advanced["snapshotMethod"]; ps != "reflink" {
		t.Errorf("snapshotMethod is %v", ps)
	}
	v := create(t, d, 64*model.MiB)
	writeFile(t, filepath.Join(mnt, "pool", volumes.data(v.ID)), noise(t, 64<<20))
	p := stats()
	near("total with a volume", p.Total, empty.Total)
	near("free with a volume", p.Free, empty.Free-64*model.MiB)

	for range 3 {
		if _, err := d.CreateSnapshot(ctx(t), drivers.CreateSnapshot{ID: model.NewID(), Volume: v}); err != nil {
			t.Fatal(err)
		}
	}
	p = stats()
	near("total with snapshots", p.Total, empty.Total)
	near("free with snapshots", p.Free, empty.Free-64*model.MiB)

	writeFile(t, filepath.Join(mnt, "others"), noise(t, 100<<20))
	p = stats()
	near("total beside others", p.Total, empty.Total-100*model.MiB)
	near("free beside others", p.Free, empty.Free-164*model.MiB)

	if d.pools["p"].excess < 180*model.MiB {
		t.Errorf("three snapshots of 64 MiB share %s", d.pools["p"].excess)
	}
	closeDriver(t, d)
	d = open(t, dir)
	p = stats()
	near("total after a restart", p.Total, empty.Total-100*model.MiB)
}

// Calls in flight are counted, and counted once: what fits together gets in
// together.
func TestPromisesInFlight(t *testing.T) {
	mnt := xfs(t)
	dir := t.TempDir()
	setUp(t, dir, filepath.Join(mnt, "pool"), "provisioningPolicy: Thick")
	d := open(t, dir)
	defer closeDriver(t, d)
	ps, err := d.Pools(ctx(t))
	if err != nil {
		t.Fatal(err)
	}
	size := ps[0].Total / 10
	var wg sync.WaitGroup
	for range 9 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			r := drivers.CreateVolume{ID: model.NewID(), Pool: "p", Size: size}
			if _, err := d.CreateVolume(context.Background(), r); err != nil {
				t.Error(err)
			}
		}()
	}
	wg.Wait()
	_, err = d.CreateVolume(ctx(t), drivers.CreateVolume{ID: model.NewID(), Pool: "p", Size: 2 * size})
	wantKind(t, "one too many", err, model.KindExhausted)
	p := d.pools["p"]
	if p.reserved != 0 || len(p.making) != 0 {
		t.Errorf("%s reserved, %d in flight, and nothing is going on", p.reserved, len(p.making))
	}
}

func TestExcess(t *testing.T) {
	e := extents{list: []extent{{100, 50}, {0, 10}, {120, 10}, {130, 40}, {0, 10}, {0, 10}, {500, 1}}}
	// 0-10 thrice: 20; 120-130 in 100-150: 10; 130-150 of 130-170: 20.
	if n := e.excess(); n != 50 {
		t.Errorf("excess is %d", n)
	}
}

// endsAfter is a context that is asked some times before it has ended.
type endsAfter struct {
	context.Context
	mu sync.Mutex
	n  int
}

func (c *endsAfter) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.n--; c.n < 0 {
		return context.Canceled
	}
	return nil
}

// A copy stops where its caller does, and leaves nothing.
func TestCopyIsCancelled(t *testing.T) {
	dir, d := backend(t, "capacity: 1GiB")
	defer closeDriver(t, d)
	if d.pools["p"].reflink {
		t.Skip("the temporary directory shares blocks")
	}
	v := create(t, d, 64*model.MiB)
	data := noise(t, 64<<20)
	writeFile(t, filepath.Join(dir, "pool", volumes.data(v.ID)), data)
	stopped := 0
	for n := range 12 {
		r := drivers.CreateVolume{ID: model.NewID(), Pool: "p", Size: 64 * model.MiB, Source: &drivers.Source{Volume: &v, Size: 64 * model.MiB}}
		_, err := d.CloneVolume(&endsAfter{Context: ctx(t), n: n}, r)
		if err == nil {
			compareFile(t, filepath.Join(dir, "pool", volumes.data(r.ID)), data)
			continue
		}
		stopped++
		wantKind(t, "clone", err, model.KindUnknownOutcome)
		if left, err := leftovers(filepath.Join(dir, "pool"), r.ID); err != nil || len(left) > 0 {
			t.Errorf("stopped at the look no. %d: left %q, %v", n, left, err)
		}
	}
	if stopped < 8 {
		t.Errorf("a copy of eight steps looked at its context %d times", stopped)
	}
}

// Copying keeps holes, and does not depend on copy_file_range.
func TestCopies(t *testing.T) {
	dir := t.TempDir()
	src, err := os.Create(filepath.Join(dir, "src"))
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	want := make([]byte, 24<<20)
	for _, off := range []int{0, 5 << 20, 5<<20 + 123456, 20<<20 - 1} {
		copy(want[off:], noise(t, 70_000))
		if _, err := src.WriteAt(want[off:off+70_000], int64(off)); err != nil {
			t.Fatal(err)
		}
	}
	if err := src.Truncate(int64(len(want))); err != nil {
		t.Fatal(err)
	}
	for name, fn := range map[string]func(dst *os.File) error{
		"sparse":   func(dst *os.File) error { return copySparse(ctx(t), dst, src, int64(len(want))) },
		"buffered": func(dst *os.File) error { return copyBuffered(ctx(t), dst, src, 0, int64(len(want))) },
	} {
		dst, err := os.Create(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if err := fn(dst); err != nil {
			t.Fatal(err)
		}
		if err := dst.Truncate(int64(len(want))); err != nil {
			t.Fatal(err)
		}
		_ = dst.Close()
		compareFile(t, filepath.Join(dir, name), want)
		if n := blocks(t, filepath.Join(dir, name)); name == "sparse" && n > 4*model.MiB {
			t.Errorf("a sparse copy of 280 kB takes %s", n)
		}
	}
}

// Without root there are volumes and no exports, and both the pool and the
// refusal say so.
func TestWithoutRoot(t *testing.T) {
	if os.Getenv("OSDS_LOCAL_TEST_WITHOUT_ROOT") == "" {
		if os.Geteuid() != 0 {
			t.Setenv("OSDS_LOCAL_TEST_WITHOUT_ROOT", "1")
			withoutRoot(t)
			return
		}
		cmd := exec.CommandContext(ctx(t), os.Args[0], "-test.run=^TestWithoutRoot$", "-test.v")
		cmd.Env = append(os.Environ(), "OSDS_LOCAL_TEST_WITHOUT_ROOT=1")
		out, err := cmd.CombinedOutput()
		if err != nil || !strings.Contains(string(out), "--- PASS: TestWithoutRoot") {
			t.Errorf("%v\n%s", err, out)
		}
		return
	}
	if err := syscall.Setgid(65534); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Setuid(65534); err != nil {
		t.Fatal(err)
	}
	withoutRoot(t)
}

func withoutRoot(t *testing.T) {
	_, d := backend(t, "capacity: 1GiB")
	defer closeDriver(t, d)
	v := create(t, d, testSize)
	ps, err := d.Pools(ctx(t))
	if err != nil || len(ps[0].Lacks) != 1 || ps[0].Lacks[0] != model.AbilityExport {
		t.Errorf("%+v, %v", ps, err)
	}
	_, err = d.Export(ctx(t), drivers.Export{AttachmentID: model.NewID(), Volume: v})
	wantKind(t, "export", err, model.KindUnsupported)
	if err == nil || !strings.Contains(err.Error(), "root") {
		t.Error(err)
	}
	if err := d.DeleteVolume(ctx(t), v); err != nil {
		t.Error(err)
	}
}

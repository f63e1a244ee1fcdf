//go:build real

package lvm

import (
	"context"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/osds-io/osds/pkg/drivers"
	"github.com/osds-io/osds/pkg/drivers/drivertest"
	"github.com/osds-io/osds/pkg/model"
)

// What is LVM's own, beyond the suite.

func reqOf(pool string, size model.Bytes) drivers.CreateVolume {
	return drivers.CreateVolume{ID: model.NewID(), Name: "own", Pool: pool, Size: size, TenantID: "tenant", ClusterID: "cluster"}
}

func must[T any](t testing.TB) func(v T, err error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func wantKind(t testing.TB, what string, err error, k model.Kind) {
	t.Helper()
	if model.KindOf(err) != k {
		t.Errorf("%s: %v, want %q", what, err, k)
	}
}

// contents reads a volume.
func contents(t testing.TB, id string) []byte {
	t.Helper()
	b, err := os.ReadFile(devicePath(testGroup, volumeName(id)))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func scribble(t testing.TB, path, text string, n int) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_SYNC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.Write([]byte(strings.Repeat(text, n/len(text)))); err != nil {
		t.Fatal(err)
	}
}

// With zeroing at deletion new volumes are ready at once where that is safe, and
// cleared where it is not.
func TestClearedAtDelete(t *testing.T) {
	dir := setUp(t, testGroup, "zeroing: delete")
	d := open(t, dir)
	defer func() { _ = d.Close() }()
	ctx := t.Context()
	isZeroed := func(what, id string) {
		t.Helper()
		if b := contents(t, id); !isZero(b) {
			t.Errorf("%s shows old data", what)
		}
	}
	first := must[drivers.Volume](t)(d.CreateVolume(ctx, reqOf(testGroup, 16*model.MiB)))
	isZeroed("the first", first.ID)
	scribble(t, devicePath(testGroup, volumeName(first.ID)), "secret", 16<<20)
	if err := d.DeleteVolume(ctx, drivers.VolumeRef{ID: first.ID, Pool: testGroup}); err != nil {
		t.Fatal(err)
	}
	g := must[*group](t)(d.freshGroup(ctx, testGroup))
	if clear := d.clean.of(g); choose(clear, 4) == nil {
		t.Errorf("after a delete %v is known to be clear", clear)
	}
	second := must[drivers.Volume](t)(d.CreateVolume(ctx, reqOf(testGroup, 8*model.MiB)))
	isZeroed("the second", second.ID)
	// The tag of the second is taken off now or later; either way the other half
	// is still known to be clear.
	if err := d.settle(ctx, d.groups[testGroup], prioNormal); err != nil {
		t.Fatal(err)
	}
	g = must[*group](t)(d.freshGroup(ctx, testGroup))
	if clear := d.clean.of(g); choose(clear, 2) == nil || choose(clear, 3) != nil {
		t.Errorf("after a create %v is known to be clear", clear)
	}
	// Somebody else has the extents for a while.
	sh(t, "lvm", "lvcreate", "--yes", "--zero", "n", "--wipesignatures", "n", "--extents", "20", "--name", "foreign", testGroup)
	scribble(t, "/dev/"+testGroup+"/foreign", "foreign", 80<<20)
	sh(t, "lvm", "lvremove", "--yes", testGroup+"/foreign")
	g = must[*group](t)(d.freshGroup(ctx, testGroup))
	if clear := d.clean.of(g); clear != nil {
		t.Errorf("after somebody else's change %v is known to be clear", clear)
	}
	third := must[drivers.Volume](t)(d.CreateVolume(ctx, reqOf(testGroup, 64*model.MiB)))
	isZeroed("the third", third.ID)
	for _, id := range []string{second.ID, third.ID} {
		if err := d.DeleteVolume(ctx, drivers.VolumeRef{ID: id, Pool: testGroup}); err != nil {
			t.Error(err)
		}
	}
}

// A thick snapshot that is full is worthless, and says so.
func TestOverflow(t *testing.T) {
	dir := setUp(t, testGroup, "snapshotSize: 8MiB")
	d := open(t, dir)
	defer func() { _ = d.Close() }()
	ctx := t.Context()
	v := must[drivers.Volume](t)(d.CreateVolume(ctx, reqOf(testGroup, 64*model.MiB)))
	ref := drivers.VolumeRef{ID: v.ID, Pool: testGroup}
	s := must[drivers.Snapshot](t)(d.CreateSnapshot(ctx, drivers.CreateSnapshot{ID: model.NewID(), Volume: ref}))
	sref := drivers.SnapshotRef{ID: s.ID, VolumeID: v.ID, Pool: testGroup}
	must[drivers.Snapshot](t)(d.GetSnapshot(ctx, sref))
	scribble(t, devicePath(testGroup, volumeName(v.ID)), "overflow", 32<<20)
	_, err := d.GetSnapshot(ctx, sref)
	wantKind(t, "get", err, model.KindConflict)
	_, err = d.CreateSnapshot(ctx, drivers.CreateSnapshot{ID: s.ID, Volume: ref})
	wantKind(t, "the same again", err, model.KindConflict)
	_, err = d.RevertVolume(ctx, ref, sref)
	wantKind(t, "revert", err, model.KindConflict)
	r := reqOf(testGroup, 64*model.MiB)
	r.Source = &drivers.Source{Snapshot: &sref, Size: v.Size}
	_, err = d.CloneVolume(ctx, r)
	wantKind(t, "clone", err, model.KindConflict)
	list := must[[]drivers.Snapshot](t)(d.ListSnapshots(ctx, drivers.Page{}))
	if len(list) != 1 || !list[0].Incomplete {
		t.Errorf("listed as %+v", list)
	}
	// After a restart of the host nothing has a device, and the loss is seen still.
	sh(t, "lvm", "vgchange", "--activate", "n", testGroup)
	_, err = d.GetSnapshot(ctx, sref)
	wantKind(t, "get after a restart of the host", err, model.KindConflict)
	if err := d.DeleteSnapshot(ctx, sref); err != nil {
		t.Error(err)
	}
	if err := d.DeleteVolume(ctx, ref); err != nil {
		t.Error(err)
	}
}

func TestImportReal(t *testing.T) {
	for _, s := range suites {
		t.Run(s.name, func(t *testing.T) {
			d := open(t, setUp(t, s.pool, s.keys))
			defer func() { _ = d.Close() }()
			ctx := t.Context()
			_, thin, isThin := strings.Cut(s.pool, "/")
			argv := []string{"lvm", "lvcreate", "--yes", "--name", "legacy"}
			if isThin {
				argv = append(argv, "--virtualsize", "32M", "--thinpool", thin)
			} else {
				argv = append(argv, "--size", "32M")
			}
			sh(t, append(argv, testGroup)...)
			scribble(t, "/dev/"+testGroup+"/legacy", "treasure", 32<<20)
			before := must[[]byte](t)(os.ReadFile("/dev/" + testGroup + "/legacy"))

			r := drivers.ImportVolume{ID: model.NewID(), Pool: s.pool, Existing: testGroup + "/legacy", TenantID: "tenant", ClusterID: "cluster"}
			f := must[*os.File](t)(os.Open("/dev/" + testGroup + "/legacy"))
			_, err := d.ImportVolume(ctx, r)
			wantKind(t, "import of what is in use", err, model.KindBusy)
			_ = f.Close()

			// An import that was interrupted is undone by a delete.
			g := must[*group](t)(d.freshGroup(ctx, testGroup))
			must[*lv](t)(d.claim(ctx, d.pools[s.pool], g, "legacy", r.ID, tags{tagKind: kindVolume, tagID: r.ID, tagSource: "import/legacy"}))
			if _, err := d.GetVolume(ctx, drivers.VolumeRef{ID: r.ID, Pool: s.pool}); model.KindOf(err) != model.KindNotFound {
				t.Errorf("half imported: %v", err)
			}
			if err := d.DeleteVolume(ctx, drivers.VolumeRef{ID: r.ID, Pool: s.pool}); err != nil {
				t.Error(err)
			}
			list := must[[]drivers.Importable](t)(d.ListImportable(ctx, s.pool, drivers.Page{}))
			if len(list) != 1 || list[0].Name != testGroup+"/legacy" || list[0].Obstacle != "" || list[0].Pool != s.pool {
				t.Fatalf("%+v", list)
			}

			v := must[drivers.Volume](t)(d.ImportVolume(ctx, r))
			if v.ID != r.ID || v.Size != 32*model.MiB || v.TenantID != "tenant" || v.Incomplete {
				t.Errorf("%+v", v)
			}
			must[drivers.Volume](t)(d.ImportVolume(ctx, r))
			if after := contents(t, r.ID); string(after) != string(before) {
				t.Error("the data is another")
			}
			other := r
			other.ID = model.NewID()
			other.Existing = volumeName(r.ID)
			_, err = d.ImportVolume(ctx, other)
			wantKind(t, "import of a volume of ours", err, model.KindExists)
			if err := d.DeleteVolume(ctx, drivers.VolumeRef{ID: r.ID, Pool: s.pool}); err != nil {
				t.Error(err)
			}
			if list := must[[]drivers.Importable](t)(d.ListImportable(ctx, s.pool, drivers.Page{})); len(list) != 0 {
				t.Errorf("%+v", list)
			}
		})
	}
}

// What is not tagged as ours is nobody's business, even under a name of ours.
func TestForeignIsLeftAlone(t *testing.T) {
	d := open(t, setUp(t, testGroup, "capacity: 1GiB"))
	defer func() { _ = d.Close() }()
	ctx := t.Context()
	r := reqOf(testGroup, 16*model.MiB)
	sh(t, "lvm", "lvcreate", "--yes", "--size", "16M", "--name", volumeName(r.ID), testGroup)
	_, err := d.CreateVolume(ctx, r)
	wantKind(t, "create", err, model.KindExists)
	_, err = d.GetVolume(ctx, drivers.VolumeRef{ID: r.ID, Pool: testGroup})
	wantKind(t, "get", err, model.KindNotFound)
	if err := d.DeleteVolume(ctx, drivers.VolumeRef{ID: r.ID, Pool: testGroup}); err != nil {
		t.Error(err)
	}
	if l := must[[]drivers.Volume](t)(d.ListVolumes(ctx, drivers.Page{})); len(l) != 0 {
		t.Errorf("%+v", l)
	}
	if g := must[*group](t)(d.freshGroup(ctx, testGroup)); g.lvs[volumeName(r.ID)] == nil {
		t.Error("somebody's volume is gone")
	}
}

// A thin pool takes nothing new when it is nearly full, and serves what it has.
func TestWatermarks(t *testing.T) {
	pool := testGroup + "/tp"
	d := open(t, setUp(t, pool, "overProvisioningRatio: 4\ndataWarn: 5\ndataStop: 10"))
	defer func() { _ = d.Close() }()
	ctx := t.Context()
	v := must[drivers.Volume](t)(d.CreateVolume(ctx, reqOf(pool, 512*model.MiB)))
	scribble(t, devicePath(testGroup, volumeName(v.ID)), "thinfill", 64<<20)
	ps := must[[]drivers.Pool](t)(d.Pools(ctx))
	if !strings.Contains(ps[0].Unusable, "dataStop") || ps[0].Free >= ps[0].Total {
		t.Errorf("%+v", ps[0])
	}
	_, err := d.CreateVolume(ctx, reqOf(pool, 16*model.MiB))
	wantKind(t, "create", err, model.KindExhausted)
	_, err = d.CreateSnapshot(ctx, drivers.CreateSnapshot{ID: model.NewID(), Volume: drivers.VolumeRef{ID: v.ID, Pool: pool}})
	wantKind(t, "snapshot", err, model.KindExhausted)
	must[drivers.Volume](t)(d.GetVolume(ctx, drivers.VolumeRef{ID: v.ID, Pool: pool}))
	if err := d.DeleteVolume(ctx, drivers.VolumeRef{ID: v.ID, Pool: pool}); err != nil {
		t.Error(err)
	}
	if ps := must[[]drivers.Pool](t)(d.Pools(ctx)); ps[0].Unusable != "" {
		t.Errorf("after the delete: %q", ps[0].Unusable)
	}
}

// A create whose time is over goes on where it was.
func TestZeroingGoesOn(t *testing.T) {
	d := open(t, setUp(t, testGroup, "capacity: 2GiB"))
	defer func() { _ = d.Close() }()
	r := reqOf(testGroup, model.GiB)
	var last int64
	for try := 0; ; try++ {
		if try == 200 {
			t.Fatal("it does not come to its end")
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		v, err := d.CreateVolume(ctx, r)
		cancel()
		if err == nil {
			if v.Incomplete {
				t.Errorf("%+v", v)
			}
			break
		}
		wantKind(t, "create", err, model.KindUnknownOutcome)
		if _, err := d.GetVolume(t.Context(), drivers.VolumeRef{ID: r.ID, Pool: testGroup}); model.KindOf(err) != model.KindNotFound {
			t.Errorf("unfinished: %v", err)
		}
		g := must[*group](t)(d.freshGroup(t.Context(), testGroup))
		if l := g.lvs[volumeName(r.ID)]; l != nil {
			now := d.journal.get(l.tags[tagNew]).Offset
			if now < last {
				t.Errorf("it was at %d and is at %d", last, now)
			}
			last = now
		}
		if err := d.Close(); err != nil { // as by a restart
			t.Fatal(err)
		}
		d = must[drivers.Driver](t)(openAt(t.Context(), dirOf(d))).(*Driver)
	}
	f := must[*os.File](t)(os.Open(devicePath(testGroup, volumeName(r.ID))))
	defer f.Close()
	b := make([]byte, 1<<20)
	for off := int64(0); off < int64(r.Size); off += int64(len(b)) {
		if err := readFull(f, b, off); err != nil || !isZero(b) {
			t.Fatalf("at %d: old data shows (%v)", off, err)
		}
	}
	_ = f.Close()
	if err := d.DeleteVolume(t.Context(), drivers.VolumeRef{ID: r.ID, Pool: testGroup}); err != nil {
		t.Error(err)
	}
}

// dirOf gives the directory that a driver was opened from.
func dirOf(d *Driver) string { return strings.TrimSuffix(d.journal.path, "/state/"+journalFile) }

// Without a device nothing is lost: it is made when it is needed.
func TestAfterHostRestart(t *testing.T) {
	for _, s := range suites {
		t.Run(s.name, func(t *testing.T) {
			dir := setUp(t, s.pool, s.keys)
			d := open(t, dir)
			ctx := t.Context()
			v := must[drivers.Volume](t)(d.CreateVolume(ctx, reqOf(s.pool, 16*model.MiB)))
			ref := drivers.VolumeRef{ID: v.ID, Pool: s.pool}
			scribble(t, devicePath(testGroup, volumeName(v.ID)), "survivor", 16<<20)
			sn := must[drivers.Snapshot](t)(d.CreateSnapshot(ctx, drivers.CreateSnapshot{ID: model.NewID(), Volume: ref}))
			if err := d.Close(); err != nil {
				t.Fatal(err)
			}
			sh(t, "lvm", "vgchange", "--activate", "n", testGroup)
			d = open(t, dir)
			defer func() { _ = d.Close() }()
			if ps := must[[]drivers.Pool](t)(d.Pools(ctx)); ps[0].Unusable != "" {
				t.Errorf("%+v", ps[0])
			}
			r := reqOf(s.pool, 16*model.MiB)
			sref := drivers.SnapshotRef{ID: sn.ID, VolumeID: v.ID, Pool: s.pool}
			r.Source = &drivers.Source{Snapshot: &sref, Size: v.Size}
			must[drivers.Volume](t)(d.CloneVolume(ctx, r))
			if b := contents(t, r.ID); !strings.HasPrefix(string(b), "survivorsurvivor") {
				t.Errorf("the clone begins with %q", b[:16])
			}
			if dev, err := d.deviceOf(ctx, v.ID); err != nil {
				t.Error(err)
			} else if _, err := os.Stat(dev); err != nil {
				t.Error(err)
			}
			must[drivers.Volume](t)(d.ExpandVolume(ctx, ref, 32*model.MiB))
			must[string](t)(d.deviceOf(ctx, v.ID)) // growing may have taken the device away
			if b := contents(t, v.ID); !isZero(b[16<<20:]) || !strings.HasPrefix(string(b), "survivor") {
				t.Error("after growing the data is another")
			}
			for _, id := range []string{r.ID} {
				if err := d.DeleteVolume(ctx, drivers.VolumeRef{ID: id, Pool: s.pool}); err != nil {
					t.Error(err)
				}
			}
			if err := d.DeleteSnapshot(ctx, sref); err != nil {
				t.Error(err)
			}
			if err := d.DeleteVolume(ctx, ref); err != nil {
				t.Error(err)
			}
		})
	}
}

// Clearing and copying is done in many calls where it takes long, goes on after a
// restart, and can be undone. Clearing is told to end after one step, which may be
// fast; copying, whose steps are small, after a while.
func TestProgress(t *testing.T) {
	parts := []string{"create", "create-undone", "clone", "expand", "expand-given-up", "revert", "delete"}
	for _, x := range []struct {
		zeroing string
		slice   time.Duration
		ops     []string
	}{
		{zeroBefore, 1, []string{"create", "create-undone", "expand", "expand-given-up"}},
		{zeroBefore, 100 * time.Millisecond, []string{"clone", "revert"}},
		{zeroDelete, 1, []string{"delete"}},
		{zeroDelete, 100 * time.Millisecond, []string{"clone"}},
	} {
		t.Run(x.zeroing+"/"+strings.Join(x.ops, ","), func(t *testing.T) {
			dir := setUp(t, testGroup, "capacity: 900MiB\nzeroing: "+x.zeroing)
			h := harness(dir, testGroup)
			h.Size = 96 * model.MiB // more than one step of clearing
			h.Skip = map[string]string{}
			for _, p := range parts {
				if !slices.Contains(x.ops, p) {
					h.Skip["progress-"+p] = "not with this way of clearing, or with another length of a call"
				}
			}
			h.New = func(t testing.TB) drivers.Driver {
				d := open(t, dir)
				d.slice = x.slice
				return d
			}
			drivertest.Progress(t, h, x.ops...)
		})
	}
}

//go:build ceph

package ceph

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/ceph/go-ceph/rbd"

	"github.com/osds-io/osds/pkg/drivers"
	"github.com/osds-io/osds/pkg/model"
)

// A client that was blocklisted connects anew by itself.
func TestReconnect(t *testing.T) {
	b := newBed(t, "trashDelay: 0s", "")
	l, err := b.d.links.get(b.ctx())
	b.want("link", err)
	b.d.links.put(l, false)
	for _, a := range l.addrs {
		b.want("blocklist", (&link{conn: b.o.conn}).blocklist(a, time.Minute))
	}
	v := b.volume()
	if _, err := b.d.GetVolume(b.ctx(), v); err != nil {
		t.Error(err)
	}
	now, err := b.d.links.get(b.ctx())
	b.want("link", err)
	b.d.links.put(now, false)
	if now == l {
		t.Error("the connection is still the one that was cut off")
	}
}

// While the OSD does not answer, calls end with their deadlines, and beyond a
// bound they are refused at once. Afterwards all is as before.
func TestStuckCluster(t *testing.T) {
	b := newBed(t, "trashDelay: 0s\nopTimeout: 20s", "")
	v := b.volume()
	pid := osdPID(t)
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	going := sync.OnceFunc(func() { _ = syscall.Kill(pid, syscall.SIGCONT) })
	defer going()
	short := func() error {
		ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
		defer cancel()
		_, err := b.d.GetVolume(ctx, v)
		return err
	}
	b.want("a call on a cluster that does not answer", short(), model.KindUnknownOutcome)
	var wg sync.WaitGroup
	for range 2 * maxLate {
		wg.Go(func() { _ = short() })
	}
	wg.Wait()
	b.want("a call beyond the bound", short(), model.KindUnavailable)
	if n := len(b.d.calls.slots); n > maxCalls {
		t.Errorf("%d calls are under way", n)
	}
	going()
	b.eventually("calls after the cluster is back", func() (bool, error) {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		_, err := b.d.GetVolume(ctx, v)
		if err != nil && !model.IsKind(err, model.KindUnknownOutcome, model.KindUnavailable) {
			return false, err
		}
		return err == nil, nil
	})
	b.eventually("no call is late", func() (bool, error) { return b.d.calls.late.Load() == 0, nil })
}

// osdPID finds the one OSD of a test cluster by the file beside its
// configuration.
func osdPID(t *testing.T) int {
	t.Helper()
	file := filepath.Join(filepath.Dir(needCluster(t)), "run", "osd.0.pid")
	p, err := os.ReadFile(file)
	if err != nil {
		t.Skipf("the OSD's process is not known: %v", err)
	}
	var pid int
	if _, err := fmt.Sscan(string(p), &pid); err != nil || pid <= 1 {
		t.Fatalf("%s: %q", file, p)
	}
	return pid
}

// A cluster that cannot be reached is an error in bounded time.
func TestUnreachable(t *testing.T) {
	dir := t.TempDir()
	cf := filepath.Join(dir, "ceph.conf")
	// Nobody listens there: the port is the discard service's.
	text := "[global]\nfsid = 11111111-2222-3333-4444-555555555555\nmon host = 127.0.0.1:9\nkeyring = " + filepath.Join(dir, "k") + "\n"
	for f, s := range map[string]string{cf: text, filepath.Join(dir, "k"): "[client.admin]\n\tkey = AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA==\n",
		filepath.Join(dir, "ceph.yaml"): "configFile: " + cf + "\nconnectTimeout: 2s\npool: {p: {}}\n"} {
		if err := os.WriteFile(f, []byte(s), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	_, err := openAt(ctx, dir)
	if !model.IsKind(err, model.KindUnavailable) || !strings.Contains(err.Error(), "monitor") {
		t.Errorf("got %v (%s)", err, model.KindOf(err))
	}
	// One that is impatient is answered in its own time.
	ctx, cancel = context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := openAt(ctx, dir); !model.IsKind(err, model.KindUnknownOutcome, model.KindUnavailable) {
		t.Errorf("got %v", err)
	}
	if err := os.Remove(cf); err != nil {
		t.Fatal(err)
	}
	if _, err := openAt(t.Context(), dir); !model.IsKind(err, model.KindUnavailable) || !strings.Contains(err.Error(), "configFile") {
		t.Errorf("without the file: %v", err)
	}
}

// customBed is a bed on pools and with keys of its own.
func customBed(t *testing.T, yaml string) *bed {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "ceph.yaml"), fmt.Appendf(nil, "configFile: %s\n%s", needCluster(t), yaml), 0o600); err != nil {
		t.Fatal(err)
	}
	b := &bed{TB: t, dir: dir, o: client(t), d: open(t, dir)}
	t.Cleanup(func() {
		if err := b.d.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return b
}

// A cephx user with the capabilities of the document can do everything, and
// nothing in other pools.
func TestRestrictedUser(t *testing.T) {
	o := client(t)
	var out []struct {
		Key string `json:"key"`
	}
	cmd := map[string]any{"prefix": "auth get-or-create", "entity": "client.osds-test",
		"caps": []string{"mon", "profile rbd", "osd", "profile rbd pool=p", "mgr", "profile rbd"}}
	if err := (&link{conn: o.conn}).command(cmd, &out); err != nil || len(out) != 1 {
		t.Fatalf("making a user: %v, %v", out, err)
	}
	keyring := filepath.Join(t.TempDir(), "keyring")
	if err := os.WriteFile(keyring, []byte("[client.osds-test]\n\tkey = "+out[0].Key+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	keys := "trashDelay: 0s\nuser: osds-test\nkeyring: " + keyring + "\n"
	b := customBed(t, keys+"pool: {p: {multiAttach: true}}\n")
	v := b.volume()
	b.write(v, 1, 0)
	c := b.cloneOf(v)
	snap := drivers.CreateSnapshot{ID: model.NewID(), Volume: v}
	_, err := b.d.CreateSnapshot(b.ctx(), snap)
	b.want("snapshot", err)
	ref := drivers.SnapshotRef{ID: snap.ID, VolumeID: v.ID, Pool: "p"}
	_, err = b.d.ExpandVolume(b.ctx(), v, 2*testSize)
	b.want("expand", err)
	_, err = b.d.RevertVolume(b.ctx(), v, ref)
	b.want("revert", err)
	if ps, err := b.d.Pools(b.ctx()); err != nil || ps[0].Total <= 0 || ps[0].Free <= 0 || ps[0].Extras.Advanced["copies"] != float64(1) {
		t.Errorf("pools %+v, %v", ps, err)
	}
	x := b.export(v, "h", "127.0.0.1")
	_, err = b.d.Export(b.ctx(), x)
	b.want("export", err)
	img, err := client(t).open(v.ID)
	b.want("open", err)
	if _, err := img.WriteAt(text(2), 0); err != nil {
		t.Fatal(err)
	}
	b.want("forced unexport", b.d.Unexport(b.ctx(), drivers.ExportRef{AttachmentID: x.AttachmentID, Volume: v, Force: true}))
	_ = img.Image.Close()
	g := drivers.CreateGroupSnapshot{ID: model.NewID(), GroupID: model.NewID(), Pool: "p", Volumes: []drivers.VolumeRef{v, c}}
	_, err = b.d.CreateGroupSnapshot(b.ctx(), g)
	b.want("group snapshot", err)
	b.want("delete of the group snapshot", b.d.DeleteGroupSnapshot(b.ctx(), drivers.GroupSnapshotRef{ID: g.ID, GroupID: g.GroupID, Pool: "p"}))
	b.want("delete of the snapshot", b.d.DeleteSnapshot(b.ctx(), ref))
	b.want("delete", b.d.DeleteVolume(b.ctx(), v))
	b.eventually("purge", func() (bool, error) { in, err := b.trashed(v.ID); return !in, err })
	b.has(c, 1, 0)
	b.want("delete", b.d.DeleteVolume(b.ctx(), c))

	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "ceph.yaml"), fmt.Appendf(nil, "configFile: %s\n%spool: {q: {}}\n", needCluster(t), keys), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := openAt(b.ctx(), dir); !model.IsKind(err, model.KindDenied) {
		t.Errorf("another pool: %v (%s)", err, model.KindOf(err))
	}
}

// A pool that has reached its quota says so, refuses new volumes, and lets what
// is there be deleted.
func TestFullPool(t *testing.T) {
	b := customBed(t, "trashDelay: 0s\npool: {q: {}}\n")
	quota := func(n string) {
		t.Helper()
		b.want("quota", (&link{conn: b.o.conn}).command(map[string]any{"prefix": "osd pool set-quota", "pool": "q", "field": "max_bytes", "val": n}, nil))
	}
	pool := func() drivers.Pool {
		t.Helper()
		ps, err := b.d.Pools(b.ctx())
		b.want("pools", err)
		return ps[0]
	}
	r := b.request()
	r.Pool = "q"
	_, err := b.d.CreateVolume(b.ctx(), r)
	b.want("create", err)
	io, err := b.o.conn.OpenIOContext("q")
	b.want("pool", err)
	defer io.Destroy()
	img, err := rbd.OpenImage(io, imageName(r.ID), rbd.NoSnapshot)
	b.want("open", err)
	for off := int64(0); off < int64(testSize); off += 64 << 10 {
		if _, err := img.WriteAt(text(uint64(off)+1), off); err != nil {
			t.Fatal(err)
		}
	}
	b.want("close", img.Close())
	quota(itoa(int64(testSize)))
	defer quota("0")
	b.eventually("the pool is full", func() (bool, error) { p := pool(); return p.Free == 0 && p.Unusable != "", nil })
	more := b.request()
	more.Pool, more.Size = "q", testSize/2
	_, err = b.d.CreateVolume(b.ctx(), more)
	b.want("create in a full pool", err, model.KindExhausted)
	_, err = b.d.GetVolume(b.ctx(), drivers.VolumeRef{ID: more.ID, Pool: "q"})
	b.want("get", err, model.KindNotFound)
	_, err = b.d.ExpandVolume(b.ctx(), drivers.VolumeRef{ID: r.ID, Pool: "q"}, 4*testSize)
	b.want("expand in a full pool", err, model.KindExhausted)
	b.want("delete in a full pool", b.d.DeleteVolume(b.ctx(), drivers.VolumeRef{ID: r.ID, Pool: "q"}))
	b.eventually("the pool has room again", func() (bool, error) { p := pool(); return p.Free > 0 && p.Unusable == "", nil })
	b.eventually("create", func() (bool, error) {
		_, err := b.d.CreateVolume(b.ctx(), more)
		if model.IsKind(err, model.KindExhausted) {
			return false, nil
		}
		return err == nil, err
	})
	b.want("delete", b.d.DeleteVolume(b.ctx(), drivers.VolumeRef{ID: more.ID, Pool: "q"}))
}

func TestUnknownPoolInCluster(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "ceph.yaml"), fmt.Appendf(nil, "configFile: %s\npool: {nosuch: {}}\n", needCluster(t)), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := openAt(t.Context(), dir); !model.IsKind(err, model.KindUnavailable) || !strings.Contains(err.Error(), "nosuch") {
		t.Errorf("got %v", err)
	}
}

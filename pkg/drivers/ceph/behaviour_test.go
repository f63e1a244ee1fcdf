//go:build ceph

package ceph

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/ceph/go-ceph/rbd"

	"github.com/osds-io/osds/pkg/drivers"
	"github.com/osds-io/osds/pkg/model"
)

// bed is a driver on the cluster, with what a test has made.
type bed struct {
	testing.TB
	d    *Driver
	o    *outside
	dir  string
	made []string
}

func newBed(t testing.TB, keys, poolKeys string) *bed {
	t.Helper()
	dir := setUp(t, keys, poolKeys)
	b := &bed{TB: t, dir: dir, o: client(t), d: open(t, dir)}
	t.Cleanup(func() {
		for range 3 {
			for _, id := range b.made {
				_ = b.d.DeleteVolume(b.ctx(), drivers.VolumeRef{ID: id, Pool: "p"})
			}
		}
		if err := b.d.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return b
}

func (b *bed) ctx() context.Context {
	c, cancel := context.WithTimeout(context.Background(), time.Minute)
	b.Cleanup(cancel)
	return c
}

func (b *bed) request() drivers.CreateVolume {
	id := model.NewID()
	b.made = append(b.made, id)
	return drivers.CreateVolume{ID: id, Name: "v", Pool: "p", Size: testSize, TenantID: "t", ClusterID: "c"}
}

func (b *bed) volume() drivers.VolumeRef { b.Helper(); return b.make(b.request()) }

func (b *bed) make(r drivers.CreateVolume) drivers.VolumeRef {
	b.Helper()
	if _, err := b.d.CreateVolume(b.ctx(), r); err != nil {
		b.Fatalf("create: %v", err)
	}
	return drivers.VolumeRef{ID: r.ID, Pool: "p"}
}

func (b *bed) cloneOf(src drivers.VolumeRef) drivers.VolumeRef {
	b.Helper()
	r := b.request()
	r.Source = &drivers.Source{Volume: &src, Size: testSize}
	return b.make(r)
}

func (b *bed) want(what string, err error, kinds ...model.Kind) {
	b.Helper()
	if len(kinds) == 0 {
		if err != nil {
			b.Fatalf("%s: %v", what, err)
		}
		return
	}
	if !model.IsKind(err, kinds...) {
		b.Fatalf("%s: %v (%s), want %v", what, err, model.KindOf(err), kinds)
	}
}

func text(seed uint64) []byte {
	p := make([]byte, 64<<10)
	r := rand.New(rand.NewPCG(seed, 7))
	for i := range p {
		p[i] = byte(r.Uint32())
	}
	return p
}

func (b *bed) write(v drivers.VolumeRef, seed uint64, off int64) {
	b.Helper()
	img, err := b.o.open(v.ID)
	b.want("open", err)
	if _, err := img.WriteAt(text(seed), off); err != nil {
		b.Fatalf("write: %v", err)
	}
	b.want("close", img.Close())
}

func (b *bed) has(v drivers.VolumeRef, seed uint64, off int64) {
	b.Helper()
	img, err := b.o.open(v.ID)
	b.want("open", err)
	defer img.Close()
	got := make([]byte, 64<<10)
	if _, err := img.ReadAt(got, off); err != nil {
		b.Fatalf("read: %v", err)
	}
	want := text(seed)
	if seed == 0 {
		want = make([]byte, len(want))
	}
	if !bytes.Equal(got, want) {
		b.Errorf("volume %s has not what was written (seed %d at %d)", v.ID, seed, off)
	}
}

// eventually waits for what the background does.
func (b *bed) eventually(what string, fn func() (bool, error)) {
	b.Helper()
	ctx := b.ctx()
	for {
		ok, err := fn()
		if err != nil {
			b.Fatalf("%s: %v", what, err)
		}
		if ok {
			return
		}
		b.d.wake()
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
			b.Fatalf("%s: it does not come about", what)
		}
	}
}

// trashed says whether the trash has an image of a volume.
func (b *bed) trashed(ids ...string) (bool, error) {
	l, err := rbd.GetTrashList(b.o.io)
	for _, t := range l {
		for _, id := range ids {
			if t.Name == imageName(id) {
				return true, err
			}
		}
	}
	return false, err
}

func (b *bed) export(v drivers.VolumeRef, host, ip string) drivers.Export {
	return drivers.Export{AttachmentID: model.NewID(), Volume: v, Protocol: protocol, Host: model.Host{HostName: host, IP: ip}}
}

// A host that does not let go is cut off: nothing it sends later reaches the
// volume.
func TestFence(t *testing.T) {
	b := newBed(t, "trashDelay: 0s", "multiAttach: true")
	v := b.volume()
	x := b.export(v, "h1", "127.0.0.1")
	c, err := b.d.Export(b.ctx(), x)
	b.want("export", err)
	for k, want := range map[string]any{"secret_type": "ceph", "name": "p/" + imageName(v.ID), "cluster_name": "ceph",
		"volume_id": v.ID, "access_mode": "rw", "auth_username": "admin", "encrypted": false} {
		if c.Type != "rbd" || c.Data[k] != want {
			t.Errorf("connection %s is %v, want %v", k, c.Data[k], want)
		}
	}
	if h, p := c.Data["hosts"].([]string), c.Data["ports"].([]string); len(h) == 0 || len(h) != len(p) || h[0] != "127.0.0.1" {
		t.Errorf("monitors %v %v", h, p)
	}
	host := client(t)
	img, err := host.open(v.ID)
	b.want("open", err)
	if _, err := img.WriteAt(text(1), 0); err != nil {
		t.Fatal(err)
	}
	ref := drivers.ExportRef{AttachmentID: x.AttachmentID, Volume: v}
	b.want("unexport", b.d.Unexport(b.ctx(), ref), model.KindBusy)
	b.want("delete", b.d.DeleteVolume(b.ctx(), v), model.KindBusy)
	ref.Force = true
	b.want("forced unexport", b.d.Unexport(b.ctx(), ref))
	if _, err := img.WriteAt(text(2), 0); err == nil {
		if err = img.Flush(); err == nil {
			t.Error("a host that was cut off could write")
		}
	}
	b.has(v, 1, 0)
	y := b.export(v, "h2", "127.0.0.1")
	_, err = b.d.Export(b.ctx(), y)
	b.want("export to another host", err)
	b.write(v, 3, 0) // the new one is not cut off
	b.want("unexport", b.d.Unexport(b.ctx(), drivers.ExportRef{AttachmentID: y.AttachmentID, Volume: v}))
	b.has(v, 3, 0)
	_ = img.Image.Close()
}

// Of an image that several hosts have, the clients of the one that is meant are
// cut off, and one that might be anybody's is not.
func TestFenceOfSharedVolume(t *testing.T) {
	b := newBed(t, "trashDelay: 0s", "multiAttach: true")
	v := b.volume()
	var refs []drivers.ExportRef
	for i, ip := range []string{"127.0.0.1", "10.99.0.2"} {
		x := b.export(v, fmt.Sprint("h", i), ip)
		x.MultiAttach = true
		_, err := b.d.Export(b.ctx(), x)
		b.want("export", err)
		refs = append(refs, drivers.ExportRef{AttachmentID: x.AttachmentID, Volume: v})
	}
	host := client(t)
	img, err := host.open(v.ID)
	b.want("open", err)
	// The one at another address lets go, although the image is open.
	b.want("unexport of who is not there", b.d.Unexport(b.ctx(), refs[1]))
	b.want("unexport of who is", b.d.Unexport(b.ctx(), refs[0]), model.KindBusy)
	b.want("close", img.Close())
	b.want("unexport", b.d.Unexport(b.ctx(), refs[0]))

	clients := []string{"10.0.0.1:0/5", "10.0.0.2:0/6", "10.0.0.3:0/7"}
	mine, unclear := whose(clients, exportEntry{Addrs: []string{"10.0.0.1"}}, map[string]exportEntry{"o": {Addrs: []string{"10.0.0.2"}}})
	if !slices.Equal(mine, clients[:1]) || !slices.Equal(unclear, clients[2:]) {
		t.Errorf("mine %v, unclear %v", mine, unclear)
	}
	if mine, unclear = whose(clients, exportEntry{}, nil); len(mine) != 3 || len(unclear) != 0 {
		t.Errorf("alone: mine %v, unclear %v", mine, unclear)
	}
}

// An image that is open although no attachment accounts for it is not exported,
// nor deleted.
func TestUnknownClient(t *testing.T) {
	b := newBed(t, "trashDelay: 0s", "")
	v := b.volume()
	host := client(t)
	img, err := host.open(v.ID)
	b.want("open", err)
	_, err = b.d.Export(b.ctx(), b.export(v, "h", "127.0.0.1"))
	b.want("export", err, model.KindBusy)
	b.want("delete", b.d.DeleteVolume(b.ctx(), v), model.KindBusy)
	b.want("close", img.Close())
	b.want("delete", b.d.DeleteVolume(b.ctx(), v))
}

// A deleted volume is not listed, its space is not promised, and it is gone when
// its time has come.
func TestTrash(t *testing.T) {
	b := newBed(t, "trashDelay: 1h", "")
	v := b.volume()
	b.write(v, 1, 0)
	b.want("delete", b.d.DeleteVolume(b.ctx(), v))
	if in, err := b.trashed(v.ID); err != nil || !in {
		t.Fatalf("in the trash: %t, %v", in, err)
	}
	_, err := b.d.GetVolume(b.ctx(), v)
	b.want("get", err, model.KindNotFound)
	b.eventually("the trash is counted", func() (bool, error) {
		p := b.d.pools["p"]
		p.mu.Lock()
		defer p.mu.Unlock()
		return p.away >= 4*model.MiB, nil
	})
	l, err := rbd.GetTrashList(b.o.io)
	b.want("list", err)
	i := slices.IndexFunc(l, func(x rbd.TrashInfo) bool { return x.Name == imageName(v.ID) })
	if left := time.Until(l[i].DefermentEndTime); left <= 0 {
		t.Errorf("due in %v", left)
	}
	// Somebody else's trash is not purged; ours is not before its time.
	if err := rbd.TrashRemove(b.o.io, l[i].Id, false); err == nil {
		t.Error("it was not protected")
	}
	b.want("restore", rbd.TrashRestore(b.o.io, l[i].Id, imageName(v.ID)))
	got, err := b.d.GetVolume(b.ctx(), v)
	if b.want("get of a restored volume", err); got.TenantID != "t" {
		t.Errorf("got %+v", got)
	}
	b.has(v, 1, 0)
	b.want("rebuild", b.rebuild())
	b.want("delete", b.d.DeleteVolume(b.ctx(), v))
	// Another dock, which keeps nothing, does not purge it either.
	at := newBed(t, "trashDelay: 0s", "")
	w := at.volume()
	b.want("delete", at.d.DeleteVolume(b.ctx(), w))
	b.eventually("purge", func() (bool, error) { in, err := b.trashed(w.ID); return !in, err })
	if in, err := b.trashed(v.ID); err != nil || !in {
		t.Errorf("one that is not due: %t, %v", in, err)
	}
	l, err = rbd.GetTrashList(b.o.io)
	b.want("list", err)
	for _, x := range l {
		if x.Name == imageName(v.ID) {
			b.want("tidy up", rbd.TrashRemove(b.o.io, x.Id, true))
		}
	}
}

func (b *bed) rebuild() error {
	_, err := do(b.ctx(), b.d, "rebuild", nil, func(ctx context.Context, l *link) (struct{}, error) {
		return struct{}{}, b.d.space(l, b.d.pools["p"]).rebuild(ctx)
	})
	return err
}

// A chain of clones, deleted in several orders: each goes at once, those that are
// left keep their data, and in the end nothing is left in the trash.
func TestCloneChain(t *testing.T) {
	const depth = 16
	orders := map[string]func(int) int{
		"first to last": func(i int) int { return i },
		"last to first": func(i int) int { return depth - 1 - i },
		"crosswise":     func(i int) int { return i * 7 % depth },
	}
	for name, at := range orders {
		t.Run(name, func(t *testing.T) {
			b := newBed(t, "trashDelay: 0s\nmaxCloneDepth: 3", "")
			chain := []drivers.VolumeRef{b.volume()}
			b.write(chain[0], 100, 0)
			for i := 1; i < depth; i++ {
				v := b.cloneOf(chain[i-1])
				b.write(v, uint64(100+i), int64(i%2)*4<<20)
				chain = append(chain, v)
			}
			content := func(i int) {
				t.Helper()
				b.has(chain[i], uint64(100+i), int64(i%2)*4<<20)
			}
			gone := map[int]bool{}
			for i := range depth {
				n := at(i)
				b.want("delete", b.d.DeleteVolume(b.ctx(), chain[n]))
				gone[n] = true
				for k := range depth {
					if !gone[k] && (k+i)%5 == 0 {
						content(k)
					}
				}
			}
			b.eventually("purge", func() (bool, error) { in, err := b.trashed(b.made...); return !in, err })
		})
	}
}

// A parent that must go is parted from clones that live on.
func TestPurgeOfParent(t *testing.T) {
	b := newBed(t, "trashDelay: 0s", "")
	parent := b.volume()
	b.write(parent, 1, 0)
	clone := b.cloneOf(parent)
	b.want("delete", b.d.DeleteVolume(b.ctx(), parent))
	b.eventually("purge of the parent", func() (bool, error) { in, err := b.trashed(parent.ID); return !in, err })
	b.has(clone, 1, 0)
	img, err := b.o.open(clone.ID)
	b.want("open", err)
	defer img.Close()
	if p, err := img.GetParent(); !absent(err) {
		t.Errorf("the clone still has a parent: %+v, %v", p, err)
	}
}

// A revert to a snapshot that is smaller shrinks the image for a while. Broken off
// then, the volume still says its size, and the same call again makes it whole.
func TestRevertBrokenOff(t *testing.T) {
	b := newBed(t, "trashDelay: 0s", "")
	v := b.volume()
	b.write(v, 1, 0)
	snap := drivers.CreateSnapshot{ID: model.NewID(), Volume: v}
	_, err := b.d.CreateSnapshot(b.ctx(), snap)
	b.want("snapshot", err)
	_, err = b.d.ExpandVolume(b.ctx(), v, 2*testSize)
	b.want("expand", err)
	b.write(v, 2, int64(testSize))
	img, err := b.o.open(v.ID)
	b.want("open", err)
	b.want("note", img.SetMetadata(revertMeta, itoa(int64(2*testSize))))
	b.want("rollback", img.GetSnapshot(snapName(snap.ID)).Rollback())
	b.want("close", img.Close())
	got, err := b.d.GetVolume(b.ctx(), v)
	if b.want("get", err); got.Size != 2*testSize {
		t.Errorf("in between it says %s", got.Size)
	}
	ref := drivers.SnapshotRef{ID: snap.ID, VolumeID: v.ID, Pool: "p"}
	if got, err = b.d.RevertVolume(b.ctx(), v, ref); err != nil || got.Size != 2*testSize {
		t.Errorf("%+v, %v", got, err)
	}
	b.has(v, 1, 0)
	b.has(v, 0, int64(testSize))
	b.want("delete of the snapshot", b.d.DeleteSnapshot(b.ctx(), ref))
}

// Images of others are left alone, whatever their names.
func TestForeignImages(t *testing.T) {
	b := newBed(t, "trashDelay: 0s", "")
	r := b.request()
	opts := rbd.NewRbdImageOptions()
	defer opts.Destroy()
	b.want("create", rbd.CreateImage(b.o.io, imageName(r.ID), uint64(testSize), opts))
	ref := drivers.VolumeRef{ID: r.ID, Pool: "p"}
	b.write(ref, 9, 0)
	_, err := b.d.CreateVolume(b.ctx(), r)
	b.want("create", err, model.KindExists)
	_, err = b.d.GetVolume(b.ctx(), ref)
	b.want("get", err, model.KindNotFound)
	b.want("delete of nothing of ours", b.d.DeleteVolume(b.ctx(), ref))
	b.want("rebuild", b.rebuild())
	l, err := b.d.ListVolumes(b.ctx(), drivers.Page{})
	b.want("list", err)
	if slices.ContainsFunc(l, func(v drivers.Volume) bool { return v.ID == r.ID }) {
		t.Error("a foreign image is listed")
	}
	b.has(ref, 9, 0)
	_, err = b.d.Export(b.ctx(), b.export(ref, "h", ""))
	b.want("export", err, model.KindNotFound)

	// A snapshot that somebody made keeps the volume.
	v := b.volume()
	img, err := b.o.open(v.ID)
	b.want("open", err)
	s, err := img.CreateSnapshot("by-hand")
	b.want("snapshot", err)
	b.want("close", img.Close())
	b.want("delete", b.d.DeleteVolume(b.ctx(), v), model.KindBusy)
	if img, err = b.o.open(v.ID); err != nil {
		t.Fatal(err)
	}
	_ = s
	b.want("remove", img.GetSnapshot("by-hand").Remove())
	b.want("close", img.Close())
	b.want("remove", rbd.RemoveImage(b.o.io, imageName(r.ID)))
}

// What the images say of themselves makes a lost directory anew.
func TestRebuild(t *testing.T) {
	b := newBed(t, "trashDelay: 0s", "")
	v := b.volume()
	snap := drivers.CreateSnapshot{ID: model.NewID(), Volume: v, TenantID: "t", ClusterID: "c"}
	_, err := b.d.CreateSnapshot(b.ctx(), snap)
	b.want("snapshot", err)
	b.want("removing the directory's entries", store{b.o.io, &writer{}}.drop(volumeKey+v.ID, snapshotKey+snap.ID))
	b.want("close", b.d.Close())
	b.d = open(t, b.dir)
	l, err := b.d.ListVolumes(b.ctx(), drivers.Page{})
	b.want("list", err)
	if !slices.ContainsFunc(l, func(x drivers.Volume) bool { return x.ID == v.ID && x.TenantID == "t" && !x.Incomplete }) {
		t.Errorf("listed: %+v", l)
	}
	ref := drivers.SnapshotRef{ID: snap.ID, VolumeID: v.ID, Pool: "p"}
	s, err := b.d.GetSnapshot(b.ctx(), ref)
	if b.want("get", err); s.TenantID != "t" || s.Size != testSize {
		t.Errorf("got %+v", s)
	}
	b.want("delete of the snapshot", b.d.DeleteSnapshot(b.ctx(), ref))
}

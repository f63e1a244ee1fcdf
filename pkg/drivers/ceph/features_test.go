//go:build ceph

package ceph

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ceph/go-ceph/rbd"

	"github.com/osds-io/osds/pkg/drivers"
	"github.com/osds-io/osds/pkg/model"
)

const passphrase = "correct horse"

func encryptedBed(t *testing.T) *bed {
	t.Helper()
	file := filepath.Join(t.TempDir(), "passphrase")
	if err := os.WriteFile(file, []byte(passphrase+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return newBed(t, "trashDelay: 0s\nencryption: {passphraseFile: "+file+"}", "")
}

// plain opens an encrypted volume as a host with the passphrase sees it.
func (b *bed) plain(v drivers.VolumeRef) data {
	b.Helper()
	img, err := b.o.open(v.ID)
	b.want("open", err)
	if err := img.EncryptionLoad(rbd.EncryptionOptionsLUKS2{Alg: rbd.EncryptionAlgorithmAES256, Passphrase: []byte(passphrase)}); err != nil {
		b.Fatalf("the passphrase does not open it: %v", err)
	}
	return img
}

func (b *bed) plainHas(v drivers.VolumeRef, seed uint64, off int64) {
	b.Helper()
	img := b.plain(v)
	defer img.Close()
	got := make([]byte, 64<<10)
	if _, err := img.ReadAt(got, off); err != nil {
		b.Fatalf("read: %v", err)
	}
	if !bytes.Equal(got, text(seed)) {
		b.Errorf("volume %s has not what was written (seed %d at %d)", v.ID, seed, off)
	}
}

func (b *bed) plainWrite(v drivers.VolumeRef, seed uint64, off int64) {
	b.Helper()
	img := b.plain(v)
	if _, err := img.WriteAt(text(seed), off); err != nil {
		b.Fatalf("write: %v", err)
	}
	b.want("close", img.Close())
}

// What is written to an encrypted volume cannot be read without the passphrase,
// and its size is what was asked for, through clone, growth and revert.
func TestEncryption(t *testing.T) {
	b := encryptedBed(t)
	r := b.request()
	r.Profile = &model.Profile{Custom: map[string]any{"capabilities:extras.advanced.encryption": "luks2"}}
	v, err := b.d.CreateVolume(b.ctx(), r)
	b.want("create", err)
	if v.Size != testSize {
		t.Errorf("size %s, want %s", v.Size, testSize)
	}
	ref := drivers.VolumeRef{ID: r.ID, Pool: "p"}
	again, err := b.d.CreateVolume(b.ctx(), r)
	if b.want("the same create again", err); again.Size != v.Size {
		t.Errorf("then %+v", again)
	}
	last := int64(testSize) - 64<<10
	b.plainWrite(ref, 1, last)
	raw, err := b.o.open(r.ID)
	b.want("open", err)
	head, all := make([]byte, 6), make([]byte, int64(testSize+luksHeader))
	if _, err := raw.ReadAt(head, 0); err != nil || !bytes.Equal(head, []byte("LUKS\xba\xbe")) {
		t.Errorf("the image begins with %q, %v", head, err)
	}
	if _, err := raw.ReadAt(all, 0); err != nil || bytes.Contains(all, text(1)[:512]) {
		t.Errorf("what was written can be read without the passphrase (%v)", err)
	}
	b.want("close", raw.Close())
	if s := raw.GetName(); strings.Contains(s, passphrase) {
		t.Error("the passphrase is in a name")
	}
	img, err := b.o.open(r.ID)
	b.want("open", err)
	meta, err := img.ListMetadata()
	b.want("metadata", err)
	for k, m := range meta {
		if strings.Contains(m, passphrase) {
			t.Errorf("the passphrase is in the metadata %s", k)
		}
	}
	b.want("close", img.Close())

	snap := drivers.CreateSnapshot{ID: model.NewID(), Volume: ref, TenantID: "t"}
	s, err := b.d.CreateSnapshot(b.ctx(), snap)
	if b.want("snapshot", err); s.Size != testSize {
		t.Errorf("the snapshot's size is %s", s.Size)
	}
	b.plainWrite(ref, 2, last)
	g, err := b.d.ExpandVolume(b.ctx(), ref, 2*testSize)
	if b.want("expand", err); g.Size != 2*testSize {
		t.Errorf("grown to %s", g.Size)
	}
	b.plainHas(ref, 2, last)
	b.plainWrite(ref, 3, 2*int64(testSize)-64<<10)
	back, err := b.d.RevertVolume(b.ctx(), ref, drivers.SnapshotRef{ID: snap.ID, VolumeID: r.ID, Pool: "p"})
	if b.want("revert", err); back.Size != 2*testSize {
		t.Errorf("after the revert it is %s", back.Size)
	}
	b.plainHas(ref, 1, last)
	clone := b.request()
	clone.Source = &drivers.Source{Snapshot: &drivers.SnapshotRef{ID: snap.ID, VolumeID: r.ID, Pool: "p"}, Size: testSize}
	c, err := b.d.CreateVolume(b.ctx(), clone)
	if b.want("clone", err); c.Size != testSize {
		t.Errorf("the clone's size is %s", c.Size)
	}
	cref := drivers.VolumeRef{ID: clone.ID, Pool: "p"}
	b.plainHas(cref, 1, last)
	x, err := b.d.Export(b.ctx(), b.export(cref, "h", ""))
	if b.want("export", err); x.Data["encrypted"] != true || x.Data["encryption_format"] != "luks2" {
		t.Errorf("connection %v", x.Data)
	}
	l, err := b.d.ListExports(b.ctx(), drivers.Page{})
	b.want("exports", err)
	for _, e := range l {
		if e.VolumeID == clone.ID {
			b.want("unexport", b.d.Unexport(b.ctx(), drivers.ExportRef{AttachmentID: e.AttachmentID}))
		}
	}
	b.want("delete of the snapshot", b.d.DeleteSnapshot(b.ctx(), drivers.SnapshotRef{ID: snap.ID, VolumeID: r.ID, Pool: "p"}))

	plain := b.volume()
	bad := b.request()
	bad.Profile, bad.Source = r.Profile, &drivers.Source{Volume: &plain, Size: testSize}
	_, err = b.d.CreateVolume(b.ctx(), bad)
	b.want("an encrypted clone of a plain volume", err, model.KindUnsupported)
	bad.Source, bad.Profile = nil, &model.Profile{Custom: map[string]any{"encryption": "rot13"}}
	_, err = b.d.CreateVolume(b.ctx(), bad)
	b.want("another encryption", err, model.KindInvalid)
}

func TestEncryptionNeedsPassphrase(t *testing.T) {
	b := newBed(t, "trashDelay: 0s", "")
	r := b.request()
	r.Profile = &model.Profile{Custom: map[string]any{"encryption": "luks2"}}
	_, err := b.d.CreateVolume(b.ctx(), r)
	b.want("create", err, model.KindUnsupported)
	dir := setUp(t, "encryption: {passphraseFile: /nonexistent/file}", "")
	if _, err := openAt(b.ctx(), dir); !model.IsKind(err, model.KindUnavailable) || !strings.Contains(err.Error(), "passphraseFile") {
		t.Errorf("got %v", err)
	}
}

// A profile's bounds, and those of an export, stand in the image's metadata,
// where librbd's clients look.
func TestQoS(t *testing.T) {
	b := newBed(t, "trashDelay: 0s", "multiAttach: true")
	r := b.request()
	r.Profile = &model.Profile{}
	r.Profile.Provisioning.IOConnectivity = model.IOConnectivity{MaxIOPS: 500, MaxBWS: 20}
	v := b.make(r)
	bounds := func(ref drivers.VolumeRef, iops, bps string) {
		t.Helper()
		img, err := b.o.open(ref.ID)
		b.want("open", err)
		defer img.Close()
		m, err := img.ListMetadata()
		if b.want("metadata", err); m[qosIOPS] != iops || m[qosBPS] != bps {
			t.Errorf("bounds %q and %q, want %q and %q", m[qosIOPS], m[qosBPS], iops, bps)
		}
	}
	bounds(v, "500", "20971520")
	x := b.export(v, "h", "127.0.0.1")
	x.QoS, x.MultiAttach = drivers.QoS{MaxIOPS: 100}, true
	_, err := b.d.Export(b.ctx(), x)
	b.want("export", err)
	bounds(v, "100", "")
	y := b.export(v, "h2", "10.99.0.1")
	y.MultiAttach = true
	_, err = b.d.Export(b.ctx(), y)
	b.want("an export with other bounds beside it", err, model.KindUnsupported)
	b.want("unexport", b.d.Unexport(b.ctx(), drivers.ExportRef{AttachmentID: x.AttachmentID, Volume: v}))
	_, err = b.d.Export(b.ctx(), y)
	b.want("export without bounds", err)
	bounds(v, "", "")
	b.want("unexport", b.d.Unexport(b.ctx(), drivers.ExportRef{AttachmentID: y.AttachmentID, Volume: v}))
	bounds(b.cloneOf(v), "", "")
}

// A group snapshot is of all its volumes or none, and reverts them together.
func TestGroupSnapshot(t *testing.T) {
	b := newBed(t, "trashDelay: 0s", "")
	vs := []drivers.VolumeRef{b.volume(), b.volume(), b.volume()}
	for i, v := range vs {
		b.write(v, uint64(10+i), 0)
	}
	r := drivers.CreateGroupSnapshot{ID: model.NewID(), GroupID: model.NewID(), Pool: "p", Volumes: vs, TenantID: "t", ClusterID: "c"}
	for range 2 {
		s, err := b.d.CreateGroupSnapshot(b.ctx(), r)
		if b.want("create", err); len(s.VolumeIDs) != 3 || s.GroupID != r.GroupID || s.TenantID != "t" {
			t.Errorf("got %+v", s)
		}
	}
	ref := drivers.GroupSnapshotRef{ID: r.ID, GroupID: r.GroupID, Pool: "p"}
	_, err := b.d.GetGroupSnapshot(b.ctx(), ref)
	b.want("get", err)
	other := r
	other.Volumes = vs[:2]
	_, err = b.d.CreateGroupSnapshot(b.ctx(), other)
	b.want("the same id with other volumes", err, model.KindExists)
	other.ID, other.GroupID = model.NewID(), model.NewID()
	_, err = b.d.CreateGroupSnapshot(b.ctx(), other)
	b.want("volumes that are in another group", err, model.KindBusy)
	b.want("delete of what was not made", b.d.DeleteGroupSnapshot(b.ctx(), drivers.GroupSnapshotRef{ID: other.ID, GroupID: other.GroupID, Pool: "p"}))
	b.want("delete of a member", b.d.DeleteVolume(b.ctx(), vs[0]), model.KindBusy)
	for i, v := range vs {
		b.write(v, uint64(20+i), 0)
	}
	_, err = b.d.ExpandVolume(b.ctx(), vs[1], 2*testSize)
	b.want("expand", err)
	b.want("revert", b.d.RevertGroup(b.ctx(), ref))
	for i, v := range vs {
		b.has(v, uint64(10+i), 0)
	}
	if v, err := b.d.GetVolume(b.ctx(), vs[1]); err != nil || v.Size != 2*testSize {
		t.Errorf("after the revert: %+v, %v", v, err)
	}
	b.has(vs[1], 0, int64(testSize))
	b.want("delete", b.d.DeleteGroupSnapshot(b.ctx(), ref))
	b.want("delete again", b.d.DeleteGroupSnapshot(b.ctx(), ref))
	_, err = b.d.GetGroupSnapshot(b.ctx(), ref)
	b.want("get", err, model.KindNotFound)
	for _, v := range vs {
		b.want("delete", b.d.DeleteVolume(b.ctx(), v))
	}
	if l, err := rbd.GroupList(b.o.io); err != nil || strings.Contains(strings.Join(l, " "), r.GroupID) {
		t.Errorf("groups left: %v, %v", l, err)
	}
}

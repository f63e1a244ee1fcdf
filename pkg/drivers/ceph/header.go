//go:build ceph

package ceph

import (
	"encoding/binary"
	"math"
	"time"

	"github.com/ceph/go-ceph/rados"
	"github.com/ceph/go-ceph/rbd"

	"github.com/osds-io/osds/pkg/model"
)

// Opening an image by librbd takes a dozen requests, and more if something is to
// be changed. What is looked at and set most often, the size and the metadata, is
// asked here of the OSDs themselves: by the methods of their class rbd, which
// librbd uses too and which stay the same from release to release.

const (
	idPrefix     = "rbd_id."     // + an image's name: an object that holds its id
	headerPrefix = "rbd_header." // + that id: what the image is
	class        = "rbd"
	// metaMost bounds how much metadata is read of an image.
	metaMost = 1024
	// snapsMost bounds how many snapshots are read in one request.
	snapsMost = 128
)

// noSnapID is the number that stands for the image itself.
const noSnapID = math.MaxUint64 - 1

// look reads a volume's image without opening it. It is nil, without an error, if
// the cluster says that there is none.
func (s *space) look(id string) (*image, error) {
	rid, err := s.imageID(id)
	if err != nil || rid == "" {
		return nil, err
	}
	op := rados.CreateReadOp()
	defer op.Release()
	size := op.Exec(class, "get_size", encodeU64(nil, noSnapID))
	meta := op.Exec(class, "metadata_list", encodeU64(encodeText(nil, ""), metaMost))
	snaps := op.Exec(class, "get_snapcontext", nil)
	group := op.Exec(class, "image_group_get", nil)
	if err := op.Operate(s.io, headerPrefix+rid, rados.OperationNoFlag); err != nil {
		if absent(err) {
			return nil, nil // a part of one that librbd was making or removing
		}
		return nil, err
	}
	img := &image{id: id, rid: rid, meta: map[string]string{}}
	b, err := size.Bytes()
	if err != nil {
		return nil, err
	}
	d := decoder{b: b}
	d.take(1) // the size of objects
	img.raw = model.Bytes(d.u64())
	if b, err = meta.Bytes(); err != nil {
		return nil, err
	}
	m := decoder{b: b}
	for n := m.u32(); n > 0 && !m.short; n-- {
		k := m.text()
		img.meta[k] = m.text()
	}
	if b, err = snaps.Bytes(); err != nil {
		return nil, err
	}
	c := decoder{b: b}
	c.u64() // the newest number given out
	for n := c.u32(); n > 0 && !c.short; n-- {
		img.snapIDs = append(img.snapIDs, c.u64())
	}
	if b, err = group.Bytes(); err != nil {
		return nil, err
	}
	g := decoder{b: b}
	in := g.inner()
	in.u64() // the group's pool
	img.grouped = in.text() != ""
	if d.short || m.short || c.short || g.short || in.short {
		return nil, model.Errorf(model.KindInternal, "the header of image %s cannot be read", imageName(id))
	}
	img.readTag()
	return img, nil
}

// lookSnaps reads the snapshots of an image that was looked at, those in the trash
// and of groups too. Of very many it opens the image.
func (s *space) lookSnaps(img *image) ([]snap, error) {
	if len(img.snapIDs) == 0 {
		return nil, nil
	}
	if len(img.snapIDs) > snapsMost {
		open, err := s.open(img.id, false)
		if err != nil || open == nil {
			return nil, err
		}
		defer open.close()
		return open.snaps()
	}
	op := rados.CreateReadOp()
	defer op.Release()
	steps := make([]*rados.ReadOpExecStep, len(img.snapIDs))
	for i, id := range img.snapIDs {
		steps[i] = op.Exec(class, "snapshot_get", encodeU64(nil, id))
	}
	if err := op.Operate(s.io, headerPrefix+img.rid, rados.OperationNoFlag); err != nil {
		if absent(err) {
			// One has gone since; what is there now is to be read as a whole.
			err = model.Errorf(model.KindUnavailable, "the snapshots of volume %s were changed while they were read", img.id)
		}
		return nil, err
	}
	out := make([]snap, len(steps))
	for i, step := range steps {
		b, err := step.Bytes()
		if err != nil {
			return nil, err
		}
		d := decoder{b: b}
		in := d.inner()
		out[i].Id = in.u64()
		kind := in.inner()
		out[i].kind = rbd.SnapNamespaceType(kind.u32())
		out[i].Name = in.text()
		out[i].Size = in.u64()
		if d.short || in.short || kind.short {
			return nil, model.Errorf(model.KindInternal, "a snapshot of image %s cannot be read", imageName(img.id))
		}
	}
	return out, nil
}

// find gives a snapshot that is not in the trash; nil if there is none.
func find(snaps []snap, name string) *snap {
	for i, s := range snaps {
		if s.Name == name && s.kind == rbd.SnapNamespaceTypeUser {
			return &snaps[i]
		}
	}
	return nil
}

// lookVolume looks at a volume that must be whole.
func (s *space) lookVolume(id string) (*image, error) {
	img, err := s.look(id)
	if err == nil && (img == nil || !img.whole) {
		err = noVolume(id)
	}
	return img, err
}

// imageID gives librbd's id of a volume's image; empty if there is none.
func (s *space) imageID(id string) (string, error) {
	op := rados.CreateReadOp()
	defer op.Release()
	get := op.Exec(class, "get_id", nil)
	if err := op.Operate(s.io, idPrefix+imageName(id), rados.OperationNoFlag); err != nil {
		if absent(err) {
			return "", nil
		}
		return "", err
	}
	b, err := get.Bytes()
	if err != nil {
		return "", err
	}
	d := decoder{b: b}
	rid := d.text()
	if d.short {
		return "", model.Errorf(model.KindInternal, "the id of image %s cannot be read", imageName(id))
	}
	return rid, nil
}

// inTrash says whether an image is in the trash, and until when it must stay there.
func (s *space) inTrash(rid string) (until time.Time, there bool, err error) {
	op := rados.CreateReadOp()
	defer op.Release()
	get := op.Exec(class, "trash_get", encodeText(nil, rid))
	if err := op.Operate(s.io, trashObject, rados.OperationNoFlag); err != nil {
		if absent(err) {
			err = nil
		}
		return until, false, err
	}
	b, err := get.Bytes()
	if err != nil {
		return until, false, err
	}
	d := decoder{b: b}
	in := d.inner()
	in.take(1) // who put it there
	in.text()  // its name
	in.u64()   // when
	sec, nsec := in.u32(), in.u32()
	if d.short || in.short {
		return until, false, model.Errorf(model.KindInternal, "the trash's entry of image %s cannot be read", rid)
	}
	return time.Unix(int64(sec), int64(nsec)), true, nil
}

// setMeta changes the metadata of an image that nobody has open yet, in one step.
func (s *space) setMeta(rid string, set map[string]string, remove []string) error {
	op := rados.CreateWriteOp()
	defer op.Release()
	op.AssertExists()
	for _, k := range remove {
		op.Exec(class, "metadata_remove", encodeText(nil, k))
	}
	b := binary.LittleEndian.AppendUint32(nil, uint32(len(set)))
	for k, v := range set {
		b = encodeText(encodeText(b, k), v)
	}
	op.Exec(class, "metadata_set", b)
	return op.Operate(s.io, headerPrefix+rid, rados.OperationNoFlag)
}

func encodeText(b []byte, s string) []byte {
	return append(binary.LittleEndian.AppendUint32(b, uint32(len(s))), s...)
}

func encodeU64(b []byte, n uint64) []byte { return binary.LittleEndian.AppendUint64(b, n) }

// decoder reads Ceph's encoding. What is not there reads as zero and is noted.
type decoder struct {
	b     []byte
	short bool
}

func (d *decoder) take(n int) []byte {
	if n < 0 || n > len(d.b) {
		d.short, d.b = true, nil
		return nil
	}
	t := d.b[:n]
	d.b = d.b[n:]
	return t
}

// inner gives what stands in a part that begins with its versions and its length.
func (d *decoder) inner() *decoder {
	d.take(2)
	n := int(d.u32())
	in := &decoder{b: d.take(n)}
	in.short = d.short
	return in
}

func (d *decoder) u32() uint32 {
	if t := d.take(4); t != nil {
		return binary.LittleEndian.Uint32(t)
	}
	return 0
}

func (d *decoder) u64() uint64 {
	if t := d.take(8); t != nil {
		return binary.LittleEndian.Uint64(t)
	}
	return 0
}

func (d *decoder) text() string { return string(d.take(int(d.u32()))) }

//go:build ceph

package ceph

import (
	"context"
	"strings"
	"syscall"

	"github.com/ceph/go-ceph/rbd"

	"github.com/osds-io/osds/pkg/drivers"
	"github.com/osds-io/osds/pkg/model"
)

// CloneVolume makes a volume from a snapshot or another volume of the pool. It
// shares what it has not written with its source, and is not affected by the
// source's end.
func (d *Driver) CloneVolume(ctx context.Context, r drivers.CreateVolume) (drivers.Volume, error) {
	if r.Source == nil {
		return drivers.Volume{}, model.Invalid("source", "a clone needs a source")
	}
	return d.CreateVolume(ctx, r)
}

// source is what a clone is made of.
type source struct {
	volumeID string
	snap     string      // empty: one is taken for the clone
	raw      model.Bytes // that it must have, and
	now      model.Bytes // that it has: less if a revert was broken off
	depth    int
	crypt    *crypt
	// inherited is metadata that librbd copies and that is not for the clone.
	inherited []string
}

// source looks at what a volume is to be made of.
func (s *space) source(m making) (*source, error) {
	if ref := m.Source.Volume; ref != nil {
		img, err := s.lookVolume(ref.ID)
		if err != nil {
			return nil, err
		}
		return m.checkSource(&source{volumeID: ref.ID, raw: img.fullSize(), now: img.raw, depth: img.tag.Depth, crypt: img.tag.Crypt, inherited: img.inherited()})
	}
	img, sn, _, err := s.lookSnapshot(m.Source.Snapshot.ID, m.Source.Snapshot.VolumeID)
	if err != nil {
		return nil, err
	}
	return m.checkSource(&source{volumeID: img.id, snap: sn.Name, raw: model.Bytes(sn.Size), now: model.Bytes(sn.Size), depth: img.tag.Depth, crypt: img.tag.Crypt, inherited: img.inherited()})
}

func (m *making) checkSource(src *source) (*source, error) {
	size := src.raw
	if src.crypt != nil {
		size -= src.crypt.Header
	}
	switch {
	case size > m.size:
		return nil, model.Invalid("size", "size %s is less than the source's, %s", m.Size, size)
	case m.encrypt && src.crypt == nil:
		return nil, model.Errorf(model.KindUnsupported, "the profile asks for encryption, and a clone of a volume that is not encrypted cannot be; make an empty volume and copy the data on a host")
	}
	return src, nil
}

// clone makes the image of a clone.
func (s *space) clone(ctx context.Context, m making, o *rbd.ImageOptions) error {
	if err := o.SetUint64(rbd.ImageOptionCloneFormat, 2); err != nil {
		return err
	}
	src := m.src
	if src.snap != "" {
		return rbd.CloneImage(s.io, imageName(src.volumeID), src.snap, s.io, imageName(m.ID), o)
	}
	if err := s.dropCloneSnap("volume/"+src.volumeID, m.ID); err != nil {
		return err
	}
	img, err := s.openVolume(src.volumeID, true)
	if err != nil {
		return err
	}
	defer func() { img.close() }()
	name := clonePrefix + m.ID
	if _, err := img.CreateSnapshot(name); err != nil {
		return err
	}
	if err := step(ctx, "clone.snapped"); err != nil {
		return err
	}
	if err := rbd.CloneImage(s.io, imageName(src.volumeID), name, s.io, imageName(m.ID), o); err != nil {
		return err
	}
	if err := step(ctx, "clone.cloned"); err != nil {
		return err
	}
	// It has a clone now: it goes to the image's trash, and nobody sees it.
	if err := img.removeSnap(name); err != nil && !absent(err) {
		return err
	}
	err = img.Image.Close()
	img = nil
	return err
}

// finishClone gives a cloned image its size, and makes it independent if it has
// too many parents.
func (s *space) finishClone(ctx context.Context, img *image, m *making) error {
	want := m.size
	if m.crypt != nil {
		want += m.crypt.Header
	}
	deep := m.depth > s.d.conf.MaxCloneDepth
	if img.raw >= want && !deep {
		return nil
	}
	rw, err := s.open(m.ID, true)
	if err == nil && rw == nil {
		err = noVolume(m.ID)
	}
	if err != nil {
		return err
	}
	defer rw.close()
	if img.raw < want {
		if err := rw.Resize(uint64(want)); err != nil {
			return err
		}
		img.raw = want
		if err := step(ctx, "clone.resized"); err != nil {
			return err
		}
	}
	if deep {
		if err := flatten(ctx, rw.Image); err != nil {
			return err
		}
		m.depth = 0
		if err := step(ctx, "clone.flattened"); err != nil {
			return err
		}
	}
	return rw.Image.Close()
}

// flatten copies what an image shares with its parent, until ctx ends.
func flatten(ctx context.Context, img *rbd.Image) error {
	err := img.FlattenWithProgress(func(uint64, uint64, any) int {
		if ctx.Err() != nil {
			return -int(syscall.ECANCELED)
		}
		return 0
	}, nil)
	if err != nil && ctx.Err() != nil {
		return ctx.Err()
	}
	if errno(err) == syscall.EINVAL {
		// It has no parent, or none any more.
		if _, perr := img.GetParent(); absent(perr) {
			return nil
		}
	}
	return err
}

// dropCloneSnap removes the snapshot that lives while a volume is cloned. from is
// the clone's source as the directory has it.
func (s *space) dropCloneSnap(from, id string) error {
	src, ok := strings.CutPrefix(from, "volume/")
	if !ok {
		return nil
	}
	img, err := s.open(src, false)
	if err != nil || img == nil {
		return err
	}
	sn, err := img.snap(clonePrefix + id)
	img.close()
	if err != nil || sn == nil {
		return err
	}
	if img, err = s.open(src, true); err != nil || img == nil {
		return err
	}
	defer img.close()
	if err := img.removeSnap(clonePrefix + id); err != nil && !absent(err) {
		return err
	}
	return nil
}

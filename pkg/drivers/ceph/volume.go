//go:build ceph

package ceph

import (
	"context"
	"encoding/json"
	"maps"
	"math"
	"slices"
	"strconv"
	"time"

	"github.com/ceph/go-ceph/rbd"

	"github.com/osds-io/osds/internal/keylock"
	"github.com/osds-io/osds/pkg/drivers"
	"github.com/osds-io/osds/pkg/model"
)

func itoa(n int64) string { return strconv.FormatInt(n, 10) }

// block is what sizes are rounded up to.
const block model.Bytes = 4096

func roundUp(n model.Bytes) model.Bytes { return (n + block - 1) / block * block }

// The names of locks.
func lockVolume(id string) keylock.Want   { return keylock.Want{Key: "v/" + id} }
func lockSnapshot(id string) keylock.Want { return keylock.Want{Key: "s/" + id} }

// CreateVolume makes a volume, or a clone if the request has a source.
func (d *Driver) CreateVolume(ctx context.Context, r drivers.CreateVolume) (drivers.Volume, error) {
	none := drivers.Volume{}
	if err := r.Check(); err != nil {
		return none, err
	}
	if _, err := d.pool(r.Pool); err != nil {
		return none, err
	}
	wants := []keylock.Want{lockVolume(r.ID)}
	if s := r.Source; s != nil {
		ref, poolName := s.Volume, ""
		if ref != nil {
			wants, poolName = append(wants, lockVolume(ref.ID)), ref.Pool
		} else {
			wants, poolName = append(wants, keylock.Want{Key: "s/" + s.Snapshot.ID, Shared: true}), s.Snapshot.Pool
		}
		if poolName != "" && poolName != r.Pool {
			return none, model.Invalid("pool", "a copy stays in its source's pool, %s", poolName)
		}
	}
	enc, err := d.wishOf(r.Profile)
	if err != nil {
		return none, err
	}
	return on(ctx, d, r.Pool, "volume "+r.ID, wants, func(ctx context.Context, s *space) (drivers.Volume, error) {
		m := making{CreateVolume: r, encrypt: enc, size: roundUp(r.Size)}
		if m.ClusterID == "" {
			m.ClusterID = d.cluster
		}
		return s.create(ctx, m)
	})
}

// making is a volume that is being made.
type making struct {
	drivers.CreateVolume
	size    model.Bytes
	encrypt bool
	src     *source // of a clone
	crypt   *crypt
	depth   int
}

// op names the operation in fault points.
func (m *making) op() string {
	if m.Source != nil {
		return "clone"
	}
	return "create"
}

// source is the source in a tag and in the directory.
func (m *making) sourceName() string {
	switch {
	case m.Source == nil:
		return ""
	case m.Source.Snapshot != nil:
		return "snapshot/" + m.Source.Snapshot.ID
	}
	return "volume/" + m.Source.Volume.ID
}

func (s *space) create(ctx context.Context, m making) (drivers.Volume, error) {
	none := drivers.Volume{}
	have, err := s.look(m.ID)
	if err != nil {
		return none, err
	}
	if have != nil {
		if have.whole {
			if have.size() != m.size || have.tag.Source != m.sourceName() {
				return none, model.Errorf(model.KindExists, "volume %s is there already, with size %s and source %q", m.ID, have.size(), have.tag.Source)
			}
			return have.volume(s.name), nil
		}
		// An unfinished one of ours is made anew.
		var e volumeEntry
		if ours, err := s.dir.get(volumeKey+m.ID, &e); err != nil {
			return none, err
		} else if !ours {
			return none, s.foreign(m.ID)
		}
		if err := s.clear(ctx, m.ID, e.Source); err != nil {
			return none, err
		}
	}
	if err := step(ctx, m.op()+".begin"); err != nil {
		return none, err
	}
	e := volumeEntry{Name: m.Name, Tenant: m.TenantID, Cluster: m.ClusterID, Size: m.size, Source: m.sourceName(), Created: time.Now().UTC()}
	// The note is written while it is looked whether it can be done.
	noted := make(chan error, 1)
	go func() { noted <- s.dir.put(map[string]any{volumeKey + m.ID: e}) }()
	err = s.mayCreate(ctx, &m)
	if nerr := <-noted; nerr != nil {
		return none, nerr
	}
	if err != nil {
		// There is no image; an earlier attempt may have left a snapshot.
		if s.dropCloneSnap(e.Source, m.ID) == nil {
			_ = s.dir.drop(volumeKey + m.ID)
		}
		return none, err
	}
	v, err := s.make(ctx, m)
	switch {
	case err == nil || ctx.Err() != nil:
	case model.IsKind(err, model.KindExists):
		// Somebody else has made an image of that name meanwhile: it stays.
		if s.dropCloneSnap(e.Source, m.ID) == nil {
			_ = s.dir.drop(volumeKey + m.ID)
		}
	default:
		// Nothing is to be left of it; what cannot be removed stays listed.
		if s.clear(ctx, m.ID, e.Source) == nil {
			_ = s.dir.drop(volumeKey + m.ID)
		}
	}
	return v, err
}

// mayCreate looks at what a volume is to be made of, and whether there is room.
func (s *space) mayCreate(ctx context.Context, m *making) (err error) {
	if m.Source != nil {
		if m.src, err = s.source(*m); err != nil {
			return err
		}
		m.depth = m.src.depth + 1
		m.crypt = m.src.crypt
	}
	return s.room(ctx, m.size)
}

// make makes the image and what belongs to it. The directory has it already.
func (s *space) make(ctx context.Context, m making) (drivers.Volume, error) {
	none := drivers.Volume{}
	if err := step(ctx, m.op()+".noted"); err != nil {
		return none, err
	}
	err := s.image(ctx, m)
	if errnoIs(err, rbd.ErrExist) {
		// A create that was killed inside librbd can leave a name without an
		// image; one with an image was made by somebody else just now.
		if img, oerr := s.open(m.ID, false); oerr != nil {
			return none, oerr
		} else if img != nil {
			img.close()
			return none, s.foreign(m.ID)
		}
		if err := rbd.RemoveImage(s.io, imageName(m.ID)); err != nil && !absent(err) {
			return none, err
		}
		err = s.image(ctx, m)
	}
	if err != nil {
		return none, err
	}
	if err := step(ctx, m.op()+".made"); err != nil {
		return none, err
	}
	v, err := s.finish(ctx, m)
	if err != nil {
		return none, err
	}
	return v, step(ctx, m.op()+".end")
}

// image makes the image itself.
func (s *space) image(ctx context.Context, m making) error {
	o := rbd.NewRbdImageOptions()
	defer o.Destroy()
	var bits uint64
	for _, f := range s.conf.ImageFeatures {
		bits |= features[f]
	}
	if err := o.SetUint64(rbd.ImageOptionFeatures, bits); err != nil {
		return err
	}
	if s.conf.DataPool != "" {
		if err := o.SetString(rbd.ImageOptionDataPool, s.conf.DataPool); err != nil {
			return err
		}
	}
	if m.src != nil {
		return s.clone(ctx, m, o)
	}
	size := m.size
	if m.encrypt {
		size += luksHeader
	}
	return rbd.CreateImage(s.io, imageName(m.ID), uint64(size), o)
}

// finish makes an image a volume: the tag comes last, together with all other
// metadata.
func (s *space) finish(ctx context.Context, m making) (drivers.Volume, error) {
	none := drivers.Volume{}
	img := &image{id: m.ID, raw: m.size}
	var err error
	var inherited []string
	if m.encrypt && m.src == nil {
		img, err = s.look(m.ID)
	} else {
		img.rid, err = s.imageID(m.ID)
	}
	if err != nil {
		return none, err
	}
	if img == nil || img.rid == "" {
		return none, model.Errorf(model.KindUnavailable, "the image %s is gone again", imageName(m.ID))
	}
	if m.src != nil {
		img.raw, inherited = m.src.now, m.src.inherited
	}
	img.meta = nil
	switch {
	case m.src != nil:
		err = s.finishClone(ctx, img, &m)
	case m.encrypt:
		m.crypt, err = s.format(ctx, img, m.size)
	}
	if err != nil {
		return none, err
	}
	if err := step(ctx, m.op()+".filled"); err != nil {
		return none, err
	}
	img.tag = tag{Version: 1, ID: m.ID, Name: m.Name, Tenant: m.TenantID, Cluster: m.ClusterID,
		Source: m.sourceName(), Depth: m.depth, Crypt: m.crypt, Created: time.Now().UTC()}
	b, err := json.Marshal(img.tag)
	if err != nil {
		return none, err
	}
	set := map[string]string{tagMeta: string(b)}
	maps.Copy(set, qosOf(m.Profile))
	if err := s.setMeta(img.rid, set, inherited); err != nil {
		return none, err
	}
	return img.volume(s.name), nil
}

// qosOf gives the image metadata by which librbd's clients hold a profile's
// bounds. maxBWS is in MiB per second, as it is when a volume is attached.
func qosOf(p *model.Profile) map[string]string {
	if p == nil {
		return nil
	}
	io := p.Provisioning.IOConnectivity
	return qosMeta(drivers.QoS{MaxIOPS: io.MaxIOPS, MaxBytesPerSecond: min(io.MaxBWS, math.MaxInt64/int64(model.MiB)) * int64(model.MiB)})
}

func qosMeta(q drivers.QoS) map[string]string {
	m := map[string]string{}
	if q.MaxIOPS > 0 {
		m[qosIOPS] = itoa(q.MaxIOPS)
	}
	if q.MaxBytesPerSecond > 0 {
		m[qosBPS] = itoa(q.MaxBytesPerSecond)
	}
	return m
}

// clear removes what an interrupted create left: the image, and the snapshot of
// its source that lives while a volume is cloned. The directory still has it.
func (s *space) clear(ctx context.Context, id, from string) error {
	if err := rbd.RemoveImage(s.io, imageName(id)); err != nil && !absent(err) {
		return err
	}
	if err := step(ctx, "clear.image"); err != nil {
		return err
	}
	return s.dropCloneSnap(from, id)
}

// DeleteVolume puts a volume into the trash, from where it is purged later. What
// an interrupted create left is removed at once.
func (d *Driver) DeleteVolume(ctx context.Context, r drivers.VolumeRef) error {
	if err := r.Check(); err != nil {
		return err
	}
	_, err := on(ctx, d, r.Pool, "volume "+r.ID, []keylock.Want{lockVolume(r.ID)}, func(ctx context.Context, s *space) (struct{}, error) {
		err := s.delete(ctx, r.ID)
		if err == nil && r.Pool == "" {
			err = errNext
		}
		return struct{}{}, err
	})
	if err == errNext {
		return nil
	}
	return err
}

// errNext makes on go on to the next pool.
var errNext = model.Errorf(model.KindNotFound, "go on to the next pool")

func (s *space) delete(ctx context.Context, id string) error {
	img, err := s.look(id)
	if err != nil {
		return err
	}
	if img == nil || !img.whole {
		var e volumeEntry
		if ours, err := s.dir.get(volumeKey+id, &e); err != nil || !ours {
			return err // there is nothing, or nothing of ours
		}
		if err := s.clear(ctx, id, e.Source); err != nil {
			return err
		}
		return s.dir.drop(volumeKey + id)
	}
	if err := s.notExported(id); err != nil {
		return err
	}
	if err := s.unused(ctx, img); err != nil {
		return err
	}
	if err := step(ctx, "delete.begin"); err != nil {
		return err
	}
	// One change: a volume that was noted as deleted and is still there is
	// found again by what its image says of itself.
	note := trashEntry{VolumeID: id, Deleted: time.Now().UTC()}
	if err := s.dir.change(map[string]any{trashKey + img.rid: note}, volumeKey+id); err != nil {
		return err
	}
	if err := step(ctx, "delete.noted"); err != nil {
		return err
	}
	err = rbd.GetImage(s.io, imageName(id)).Trash(s.d.conf.TrashDelay)
	if absent(err) {
		// Where librbd cannot write it may say this too.
		err = s.isAbsent(id)
	}
	if err != nil {
		// If this cannot be written either, the background does it.
		_ = s.dir.put(map[string]any{volumeKey + id: img.entry()})
		return err
	}
	s.d.wake()
	return step(ctx, "delete.moved")
}

// unused is busy for a volume that somebody has open, that has snapshots, or that
// is in a group. librbd puts such an image into the trash all the same. For most
// volumes what was looked at says that there is nothing; the others are opened.
func (s *space) unused(ctx context.Context, img *image) error {
	if len(img.snapIDs) == 0 && !img.grouped {
		if watched, err := s.watched(img.rid); err != nil || !watched {
			return err
		}
	}
	open, err := s.open(img.id, false)
	if err != nil {
		return err
	}
	if open == nil {
		return model.Errorf(model.KindUnavailable, "the image %s is gone meanwhile", imageName(img.id))
	}
	defer open.close()
	if err := s.notWatched(open); err != nil {
		return err
	}
	if err := s.noSnaps(ctx, open); err != nil {
		return err
	}
	return s.noGroup(open)
}

// isAbsent is an error unless the pool has no image of the volume.
func (s *space) isAbsent(id string) error {
	names, err := rbd.GetImageNames(s.io)
	if err == nil && slices.Contains(names, imageName(id)) {
		err = model.Errorf(model.KindUnavailable, "volume %s could not be moved to the trash of pool %s, and is still there", id, s.name)
	}
	return err
}

// noSnaps is busy for a volume that has snapshots. One that a broken-off clone
// left is removed, if that clone is not being made any more.
func (s *space) noSnaps(ctx context.Context, img *image) error {
	l, err := img.snaps()
	if err != nil {
		return err
	}
	for _, sn := range l {
		switch sn.kind {
		case rbd.SnapNamespaceTypeTrash:
			continue // clones that need it go on needing it
		case rbd.SnapNamespaceTypeGroup:
			return model.Errorf(model.KindBusy, "volume %s is in a group snapshot: delete that first", img.id)
		}
		if of, ok := cutPrefix(sn.Name, clonePrefix); ok {
			c, err := s.look(of)
			if err != nil {
				return err
			}
			whole := c != nil && c.whole
			var e volumeEntry
			making, err := s.dir.get(volumeKey+of, &e)
			if err != nil {
				return err
			}
			if whole || !making {
				if err := s.dropCloneSnap("volume/"+img.id, of); err != nil {
					return err
				}
				continue
			}
		}
		return model.Errorf(model.KindBusy, "volume %s has snapshots, such as %s: delete them first", img.id, sn.Name)
	}
	return ctx.Err()
}

// GetVolume gives a volume that is whole.
func (d *Driver) GetVolume(ctx context.Context, r drivers.VolumeRef) (drivers.Volume, error) {
	if err := r.Check(); err != nil {
		return drivers.Volume{}, err
	}
	return on(ctx, d, r.Pool, "volume "+r.ID, nil, func(_ context.Context, s *space) (drivers.Volume, error) {
		img, err := s.lookVolume(r.ID)
		if err != nil {
			return drivers.Volume{}, err
		}
		return img.volume(s.name), nil
	})
}

// ListVolumes lists the volumes by id, incomplete ones too.
func (d *Driver) ListVolumes(ctx context.Context, p drivers.Page) ([]drivers.Volume, error) {
	return listed(ctx, d, "volumes", volumeKey, p, func(v drivers.Volume) string { return v.ID },
		func(ctx context.Context, s *space, items []item) ([]drivers.Volume, error) {
			out := make([]drivers.Volume, len(items))
			return out, each(ctx, len(items), func(i int) error {
				img, err := s.look(items[i].id)
				if err != nil {
					return err
				}
				if img != nil && img.whole {
					out[i] = img.volume(s.name)
					return nil
				}
				var e volumeEntry
				_ = json.Unmarshal(items[i].data, &e) // what cannot be read is incomplete too
				out[i] = drivers.Volume{ID: items[i].id, Pool: s.name, Size: e.Size, TenantID: e.Tenant, ClusterID: e.Cluster, Incomplete: true}
				return nil
			})
		})
}

// ExpandsOnline is true: the clients of an image are told of its new size.
func (d *Driver) ExpandsOnline() bool { return true }

// ExpandVolume grows a volume. Where a client holds the image's lock, that client
// does the work or hands the lock over.
func (d *Driver) ExpandVolume(ctx context.Context, r drivers.VolumeRef, size model.Bytes) (drivers.Volume, error) {
	none := drivers.Volume{}
	if err := r.Check(); err != nil {
		return none, err
	}
	if err := drivers.CheckSize("size", size); err != nil {
		return none, err
	}
	size = roundUp(size)
	return on(ctx, d, r.Pool, "volume "+r.ID, []keylock.Want{lockVolume(r.ID)}, func(ctx context.Context, s *space) (drivers.Volume, error) {
		img, err := s.lookVolume(r.ID)
		if err != nil {
			return none, err
		}
		if size <= img.size() {
			return img.volume(s.name), nil
		}
		if err := s.room(ctx, size); err != nil {
			return none, err
		}
		if err := step(ctx, "expand.begin"); err != nil {
			return none, err
		}
		if img, err = s.openVolume(r.ID, true); err != nil {
			return none, err
		}
		defer img.close()
		if err := img.Resize(uint64(size + img.tag.header())); err != nil {
			return none, err
		}
		if err := step(ctx, "expand.resized"); err != nil {
			return none, err
		}
		img.raw = size + img.tag.header()
		return img.volume(s.name), img.Image.Close()
	})
}

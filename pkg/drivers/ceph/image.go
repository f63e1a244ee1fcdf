//go:build ceph

package ceph

import (
	"encoding/json"
	"slices"
	"strings"
	"time"

	"github.com/ceph/go-ceph/rados"
	"github.com/ceph/go-ceph/rbd"

	"github.com/osds-io/osds/pkg/drivers"
	"github.com/osds-io/osds/pkg/model"
)

const (
	// namePrefix begins the names of images and snapshots; it is the original's.
	namePrefix = "opensds-"
	// clonePrefix begins the names of snapshots that live only while a volume
	// is cloned.
	clonePrefix = "osds-clone-"

	metaPrefix = "osds."
	// tagMeta is the metadata that makes an image a volume, set last.
	tagMeta = metaPrefix + "volume"
	// revertMeta is there while a revert is under way that needs the volume to
	// be made larger again: the size in bytes.
	revertMeta = metaPrefix + "revert"

	qosPrefix = "conf_rbd_qos_"
	qosIOPS   = qosPrefix + "iops_limit"
	qosBPS    = qosPrefix + "bps_limit"
)

func imageName(id string) string { return namePrefix + id }
func snapName(id string) string  { return namePrefix + id }

// tag is the value of tagMeta.
type tag struct {
	Version int    `json:"version"`
	ID      string `json:"id"`
	Name    string `json:"name,omitempty"`
	Tenant  string `json:"tenantId,omitempty"`
	Cluster string `json:"clusterId,omitempty"`
	Source  string `json:"source,omitempty"`
	// Depth is how many parents the image had when it was made; it has fewer
	// since some of them were cut off.
	Depth   int       `json:"depth,omitempty"`
	Crypt   *crypt    `json:"encryption,omitempty"`
	Created time.Time `json:"created"`
}

// crypt says how an image is encrypted. Header is how much of the image is not
// the volume's.
type crypt struct {
	Format string      `json:"format"`
	Header model.Bytes `json:"header"`
	// Secret names the passphrase; it is never the passphrase.
	Secret string `json:"secret"`
}

// space is a pool as one connection reaches it.
type space struct {
	*pool
	d   *Driver
	l   *link
	io  *rados.IOContext
	dir store
}

func (d *Driver) space(l *link, p *pool) *space {
	io := l.pools[p.name]
	return &space{pool: p, d: d, l: l, io: io, dir: store{io, l.dirs[p.name]}}
}

// image is an image with what its metadata says. One that was only looked at is
// not open: its rbd.Image is nil.
type image struct {
	*rbd.Image
	id    string
	rid   string // librbd's id; of one that was only looked at
	tag   tag
	whole bool // tag is the image's own
	raw   model.Bytes
	meta  map[string]string
	// Of one that was only looked at: its snapshots, the newest first, and
	// whether it is in a group.
	snapIDs []uint64
	grouped bool
}

// open opens a volume's image. It is nil, without an error, if the cluster says
// that there is none.
func (s *space) open(id string, writable bool) (*image, error) {
	how := rbd.OpenImageReadOnly
	if writable {
		how = rbd.OpenImage
	}
	r, err := how(s.io, imageName(id), rbd.NoSnapshot)
	if absent(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	img := &image{Image: r, id: id}
	if err := img.read(); err != nil {
		_ = r.Close()
		return nil, err
	}
	return img, nil
}

func (i *image) read() error {
	size, err := i.GetSize()
	if err != nil {
		return err
	}
	if i.meta, err = i.ListMetadata(); err != nil {
		return err
	}
	i.raw = model.Bytes(size)
	i.readTag()
	return nil
}

func (i *image) readTag() {
	var t tag
	// A clone bears its parent's metadata until it gets its own.
	if s, ok := i.meta[tagMeta]; ok && json.Unmarshal([]byte(s), &t) == nil && t.Version == 1 && t.ID == i.id {
		i.tag, i.whole = t, true
	}
}

// close closes an image for good or bad; one that is closed, or none at all, is
// left alone.
func (i *image) close() {
	if i != nil && i.Image != nil {
		_ = i.Image.Close()
	}
}

// header is how much of the image is not the volume's.
func (t tag) header() model.Bytes {
	if t.Crypt != nil {
		return t.Crypt.Header
	}
	return 0
}

// size is the volume's size: that of its image, or what it will be again when a
// revert that was broken off is done.
func (i *image) size() model.Bytes { return i.fullSize() - i.tag.header() }

// fullSize is the same of the image.
func (i *image) fullSize() model.Bytes {
	n := i.raw
	if s, ok := i.meta[revertMeta]; ok {
		if b, err := model.ParseBytes(s); err == nil {
			n = max(n, b)
		}
	}
	return n
}

func (i *image) volume(pool string) drivers.Volume {
	return drivers.Volume{ID: i.id, Pool: pool, Size: i.size(), TenantID: i.tag.Tenant, ClusterID: i.tag.Cluster}
}

// entry is what the directory says of a volume that is whole.
func (i *image) entry() volumeEntry {
	t := i.tag
	return volumeEntry{Name: t.Name, Tenant: t.Tenant, Cluster: t.Cluster, Size: i.size(), Source: t.Source, Created: t.Created}
}

// snap is a snapshot of an image.
type snap struct {
	rbd.SnapInfo
	kind rbd.SnapNamespaceType
}

// snaps lists an image's snapshots, those in the trash and of groups too.
func (i *image) snaps() ([]snap, error) {
	l, err := i.GetSnapshotNames()
	if err != nil {
		return nil, err
	}
	out := make([]snap, 0, len(l))
	for _, s := range l {
		k, err := i.GetSnapNamespaceType(s.Id)
		if absent(err) {
			continue // gone meanwhile
		}
		if err != nil {
			return nil, err
		}
		out = append(out, snap{s, k})
	}
	return out, nil
}

// snap finds a snapshot that is not in the trash; nil if there is none.
func (i *image) snap(name string) (*snap, error) {
	l, err := i.GetSnapshotNames()
	if err != nil {
		return nil, err
	}
	for _, s := range l {
		if s.Name != name {
			continue
		}
		if k, err := i.GetSnapNamespaceType(s.Id); err != nil || k == rbd.SnapNamespaceTypeUser {
			return &snap{s, k}, err
		}
	}
	return nil, nil
}

// removeSnap removes a snapshot. One that has clones goes to the image's own
// trash, and from there when the last of them is independent.
func (i *image) removeSnap(name string) error {
	s := i.GetSnapshot(name)
	// Somebody may have protected it; clones of ours do not need that.
	if p, err := s.IsProtected(); err != nil {
		return err
	} else if p {
		if err := s.Unprotect(); err != nil {
			return err
		}
	}
	return s.Remove()
}

// inherited gives the metadata that a clone has from its parent and that is not
// for it. What may be set while the clone is made is always among it.
func (i *image) inherited() []string {
	out := []string{tagMeta, revertMeta, qosIOPS, qosBPS}
	for k := range i.meta {
		if (strings.HasPrefix(k, metaPrefix) || strings.HasPrefix(k, qosPrefix)) && !slices.Contains(out, k) {
			out = append(out, k)
		}
	}
	return out
}

// foreign is the error of a name that is taken by somebody else's image.
func (s *space) foreign(id string) error {
	return model.Errorf(model.KindExists, "pool %s has an image %s that is not of this osds; it is left alone", s.name, imageName(id))
}

func noVolume(id string) error {
	return model.Errorf(model.KindNotFound, "volume %s is not there", id)
}

// openVolume opens a volume that must be whole.
func (s *space) openVolume(id string, writable bool) (*image, error) {
	img, err := s.open(id, writable)
	if err != nil {
		return nil, err
	}
	if img == nil {
		return nil, noVolume(id)
	}
	if !img.whole {
		img.close()
		return nil, noVolume(id)
	}
	return img, nil
}

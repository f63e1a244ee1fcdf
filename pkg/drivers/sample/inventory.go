package sample

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"slices"

	"go.etcd.io/bbolt"

	"github.com/osds-io/osds/pkg/drivers"
	"github.com/osds-io/osds/pkg/model"
)

// The inventory's buckets. The two indexes hold keys "volume NUL object" and no
// values; used holds what each pool has promised.
var (
	bMeta        = []byte("meta")
	bVolumes     = []byte("volumes")
	bSnapshots   = []byte("snapshots")
	bExports     = []byte("exports")
	bSnapshotsOf = []byte("snapshotsOf")
	bExportsOf   = []byte("exportsOf")
	bUsed        = []byte("used")

	kInstance = []byte("instance")
)

// volume is a stored volume; its id is the key. Names are short because there
// may be very many.
type volume struct {
	Pool    string      `json:"p"`
	Size    model.Bytes `json:"s"`
	Tenant  string      `json:"t,omitempty"`
	Cluster string      `json:"c,omitempty"`
	// Source is what it was cloned from: "s/" and a snapshot's id, or "v/" and
	// a volume's.
	Source string `json:"o,omitempty"`
	// Reverted is the snapshot that it was last put back to.
	Reverted string `json:"r,omitempty"`
	// Part marks one that is not whole yet, Going one that is being wiped.
	Part  bool `json:"i,omitempty"`
	Going bool `json:"d,omitempty"`
}

type snapshot struct {
	Volume  string      `json:"v"`
	Pool    string      `json:"p"`
	Size    model.Bytes `json:"s"`
	Tenant  string      `json:"t,omitempty"`
	Cluster string      `json:"c,omitempty"`
}

type export struct {
	Volume   string `json:"v"`
	Pool     string `json:"p"`
	Host     string `json:"h,omitempty"`
	ReadOnly bool   `json:"r,omitempty"`
	Multi    bool   `json:"m,omitempty"`
	// QoS is what the export was bounded to when it was made.
	QoS drivers.QoS `json:"q,omitzero"`
}

// get reads an object; false if there is none.
func get[T any](tx *bbolt.Tx, bucket []byte, id string) (v T, ok bool, err error) {
	b := tx.Bucket(bucket).Get([]byte(id))
	if b == nil {
		return v, false, nil
	}
	if err := json.Unmarshal(b, &v); err != nil {
		return v, false, fmt.Errorf("%s/%s is damaged: %w", bucket, id, err)
	}
	return v, true, nil
}

func put(tx *bbolt.Tx, bucket []byte, id string, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return tx.Bucket(bucket).Put([]byte(id), b)
}

// page calls fn with the objects of a page, in the order of their ids.
func page[T any](d *Driver, bucket []byte, p drivers.Page, fn func(id string, v T)) error {
	return d.view(func(tx *bbolt.Tx) error {
		c := tx.Bucket(bucket).Cursor()
		k, b := c.Seek([]byte(p.After))
		if p.After != "" && k != nil && string(k) == p.After {
			k, b = c.Next()
		}
		for n := p.Bound(); k != nil && n > 0; n-- {
			var v T
			if err := json.Unmarshal(b, &v); err != nil {
				return fmt.Errorf("%s/%s is damaged: %w", bucket, k, err)
			}
			fn(string(k), v)
			k, b = c.Next()
		}
		return nil
	})
}

// An index key's two ids are both free of NUL.
func pair(a, b string) []byte { return []byte(a + "\x00" + b) }

// firstOf gives one object that an index has for a volume, or "".
func firstOf(tx *bbolt.Tx, index []byte, volumeID string) string {
	prefix := pair(volumeID, "")
	if k, _ := tx.Bucket(index).Cursor().Seek(prefix); bytes.HasPrefix(k, prefix) {
		return string(k[len(prefix):])
	}
	return ""
}

func getUsed(b *bbolt.Bucket, pool string) model.Bytes {
	v := b.Get([]byte(pool))
	if len(v) != 8 {
		return 0
	}
	return model.Bytes(binary.BigEndian.Uint64(v))
}

// addUsed changes what a pool has promised. More is refused if it does not fit,
// and nothing is written then.
func (d *Driver) addUsed(tx *bbolt.Tx, poolName string, n model.Bytes) error {
	b := tx.Bucket(bUsed)
	used := getUsed(b, poolName)
	if p, ok := d.pools[poolName]; ok && n > 0 {
		limit := model.Bytes(float64(p.Capacity) * p.OverProvisioningRatio)
		if n > limit-used {
			return model.Errorf(model.KindExhausted, "pool %s has %s of %s left, %s are asked for", poolName, max(limit-used, 0), limit, n)
		}
	}
	var v [8]byte
	binary.BigEndian.PutUint64(v[:], uint64(max(used+n, 0)))
	return b.Put([]byte(poolName), v[:])
}

// known says whether a pool is configured. That it is not says nothing about
// what was in it, so it is never notFound.
func (d *Driver) known(name string) error {
	if _, ok := d.pools[name]; !ok && name != "" {
		return model.Errorf(model.KindUnavailable, "pool %q is not in the sample driver's configuration", name)
	}
	return nil
}

// can refuses what a pool has not.
func (d *Driver) can(name, ability string) error {
	p := d.pools[name]
	if slices.Contains(p.Lacks, ability) {
		return model.Errorf(model.KindUnsupported, "pool %s lacks the ability %s, as configured", name, ability)
	}
	return nil
}

// volumeOf reads the volume that a reference names; false if it is absent.
func (d *Driver) volumeOf(tx *bbolt.Tx, r drivers.VolumeRef) (volume, bool, error) {
	if err := d.known(r.Pool); err != nil {
		return volume{}, false, err
	}
	v, ok, err := get[volume](tx, bVolumes, r.ID)
	if ok && r.Pool != "" && v.Pool != r.Pool {
		return v, false, model.Invalid("pool", "volume %s is in pool %s, not in %s", r.ID, v.Pool, r.Pool)
	}
	return v, ok, err
}

// needVolume is volumeOf for a volume that must be there.
func (d *Driver) needVolume(tx *bbolt.Tx, r drivers.VolumeRef) (volume, error) {
	v, ok, err := d.volumeOf(tx, r)
	if err == nil && (!ok || v.Part || v.Going) {
		err = model.Errorf(model.KindNotFound, "volume %s is not there, or not whole", r.ID)
	}
	return v, err
}

// snapshotOf reads the snapshot that a reference names; false if it is absent.
func (d *Driver) snapshotOf(tx *bbolt.Tx, r drivers.SnapshotRef) (snapshot, bool, error) {
	if err := d.known(r.Pool); err != nil {
		return snapshot{}, false, err
	}
	s, ok, err := get[snapshot](tx, bSnapshots, r.ID)
	switch {
	case ok && r.Pool != "" && s.Pool != r.Pool:
		return s, false, model.Invalid("pool", "snapshot %s is in pool %s, not in %s", r.ID, s.Pool, r.Pool)
	case ok && r.VolumeID != "" && s.Volume != r.VolumeID:
		return s, false, model.Invalid("volumeId", "snapshot %s is of volume %s, not of %s", r.ID, s.Volume, r.VolumeID)
	}
	return s, ok, err
}

// needSnapshot is snapshotOf for a snapshot that must be there.
func (d *Driver) needSnapshot(tx *bbolt.Tx, r drivers.SnapshotRef) (snapshot, error) {
	s, ok, err := d.snapshotOf(tx, r)
	if err == nil && !ok {
		err = model.Errorf(model.KindNotFound, "snapshot %s is not there", r.ID)
	}
	return s, err
}

func (v volume) public(id string) drivers.Volume {
	name, format := drivers.NAA(id)
	return drivers.Volume{ID: id, Pool: v.Pool, Size: v.Size, DurableName: name, DurableFormat: format,
		TenantID: v.Tenant, ClusterID: v.Cluster, Incomplete: v.Part || v.Going}
}

func (s snapshot) public(id string) drivers.Snapshot {
	return drivers.Snapshot{ID: id, VolumeID: s.Volume, Pool: s.Pool, Size: s.Size, TenantID: s.Tenant, ClusterID: s.Cluster}
}

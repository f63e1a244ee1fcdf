package local

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/osds-io/osds/internal/faults"
	"github.com/osds-io/osds/internal/keylock"
	"github.com/osds-io/osds/pkg/drivers"
	"github.com/osds-io/osds/pkg/drivers/export"
	"github.com/osds-io/osds/pkg/model"
)

// block is what sizes are rounded up to: the largest sector of a loop device.
const block model.Bytes = 4096

func roundUp(n model.Bytes) model.Bytes { return (n + block - 1) / block * block }

func key(k kind, id string) string { return string(k) + "/" + id }

// CreateVolume makes a volume, or a clone if the request has a source.
func (d *Driver) CreateVolume(ctx context.Context, r drivers.CreateVolume) (drivers.Volume, error) {
	op := "create"
	if r.Source != nil {
		op = "clone"
	}
	return d.createVolume(ctx, op, r)
}

// CloneVolume makes a volume from a snapshot or another volume of the pool.
func (d *Driver) CloneVolume(ctx context.Context, r drivers.CreateVolume) (drivers.Volume, error) {
	if r.Source == nil {
		return drivers.Volume{}, model.Invalid("source", "a clone needs a source")
	}
	return d.createVolume(ctx, "clone", r)
}

func (d *Driver) createVolume(ctx context.Context, op string, r drivers.CreateVolume) (drivers.Volume, error) {
	if err := r.Check(); err != nil {
		return drivers.Volume{}, err
	}
	p, err := d.pool(r.Pool)
	if err != nil {
		return drivers.Volume{}, err
	}
	if err := drivers.Begin(ctx); err != nil {
		return drivers.Volume{}, err
	}
	m := meta{Version: 1, ID: r.ID, Name: r.Name, Tenant: r.TenantID, Cluster: r.ClusterID, Size: roundUp(r.Size), Created: time.Now().UTC()}
	if m.Cluster == "" {
		m.Cluster = d.cluster
	}
	wants := []keylock.Want{{Key: key(volumes, r.ID)}}
	var from kind
	var fromID, fromPool string
	if s := r.Source; s != nil {
		from, fromID, fromPool = volumes, "", ""
		if s.Snapshot != nil {
			from, fromID, fromPool = snapshots, s.Snapshot.ID, s.Snapshot.Pool
		} else {
			fromID, fromPool = s.Volume.ID, s.Volume.Pool
		}
		m.Source = from.one() + "/" + fromID
		wants = append(wants, keylock.Want{Key: key(from, fromID), Shared: true})
	}
	unlock, err := d.locks.LockAll(ctx, wants...)
	if err != nil {
		return drivers.Volume{}, ioError("volume "+r.ID, err)
	}
	defer unlock()

	have, ok, err := d.lookup(volumes, r.ID, r.Pool)
	if err != nil {
		if model.IsKind(err, model.KindInvalid) {
			err = model.Errorf(model.KindExists, "volume %s is there already: %w", r.ID, err)
		}
		return drivers.Volume{}, err
	}
	if ok && have.whole {
		if have, err = d.need(volumes, r.ID, r.Pool); err == nil {
			if have.size != m.Size || have.meta.Source != m.Source {
				return drivers.Volume{}, model.Errorf(model.KindExists, "volume %s is there already, with %s and source %q", r.ID, have.size, have.meta.Source)
			}
			return have.volume(), nil
		}
		if !model.IsKind(err, model.KindNotFound) {
			return drivers.Volume{}, err
		}
	}
	mk := making{op: op, kind: volumes, id: r.ID, size: m.Size}
	if from != 0 {
		f, src, err := d.openSource(from, fromID, fromPool, p)
		if err != nil {
			return drivers.Volume{}, err
		}
		defer f.Close()
		if src.size > m.Size {
			return drivers.Volume{}, model.Invalid("size", "size %s is less than the source's, %s", r.Size, src.size)
		}
		mk.source, mk.atomic = f, from == volumes && d.inUse(src)
	}
	o, err := d.produce(ctx, p, m, mk)
	if err != nil {
		return drivers.Volume{}, err
	}
	if from != 0 {
		d.share(from, fromID)
	}
	return o.volume(), nil
}

// produce makes a new object, of which there may be an incomplete part: its
// metadata, then its data. On an error nothing is left of it, as far as that is
// possible; what cannot be removed stays listed as incomplete.
func (d *Driver) produce(ctx context.Context, p *pool, m meta, mk making) (object, error) {
	what := mk.kind.one() + " " + m.ID
	faults.Point("local." + mk.op + ".begin")
	if err := d.clear(p, mk.kind, m.ID, mk.op); err != nil {
		return object{}, ioError(what, err)
	}
	release, err := d.reserve(ctx, p, mk.kind, m.ID, m.Size)
	if err != nil {
		return object{}, err
	}
	defer release()
	o := &object{kind: mk.kind, meta: m, pool: p, size: m.Size, shared: mk.source != nil && p.reflink && !p.thick()}
	d.set(mk.kind, o)
	if err = p.writeJSON(mk.kind.meta(m.ID), m); err == nil {
		faults.Point("local." + mk.op + ".meta")
		err = p.make(ctx, mk)
	}
	if err != nil {
		if rerr := d.remove(p, mk.kind, m.ID, mk.op); rerr == nil {
			d.drop(mk.kind, m.ID)
		}
		return object{}, ioError(what, err)
	}
	faults.Point("local." + mk.op + ".end")
	n := p.allocated(mk.kind, m.ID)
	d.update(mk.kind, m.ID, func(o *object) { o.whole, o.alloc = true, n })
	if o.shared {
		d.addExcess(p, n)
	}
	got, _, err := d.lookup(mk.kind, m.ID, "")
	return got, err
}

// clear removes what an interrupted call left of an object. Data without its
// metadata must go before new metadata comes, or the two would pass for a whole.
func (d *Driver) clear(p *pool, k kind, id, op string) error {
	o, ok, err := d.lookup(k, id, "")
	if err != nil {
		return err
	}
	if ok && k == volumes {
		// Its file may have been removed under a device that lives on.
		if err := d.notInUse(o); err != nil {
			return err
		}
	}
	if !ok {
		_, err := p.root.Lstat(k.data(id))
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
	}
	if err := d.remove(p, k, id, op); err != nil {
		return err
	}
	d.drop(k, id)
	return nil
}

// remove removes an object's files, and notes that there may be more room soon.
func (d *Driver) remove(p *pool, k kind, id, op string) error {
	err := p.remove(k, id, op)
	d.mu.Lock()
	p.freed = time.Now()
	d.mu.Unlock()
	return err
}

// openSource opens what a copy is made from. The caller holds its lock.
func (d *Driver) openSource(k kind, id, poolName string, p *pool) (*os.File, object, error) {
	src, err := d.need(k, id, poolName)
	if err != nil {
		return nil, src, err
	}
	if src.pool != p {
		return nil, src, model.Invalid("pool", "a copy stays in its source's pool, %s", src.pool.name)
	}
	f, err := p.root.OpenFile(k.data(id), os.O_RDONLY, 0)
	if err != nil {
		return nil, src, ioError(k.one()+" "+id, err)
	}
	return f, src, nil
}

// DeleteVolume removes a volume, whole or not. Its snapshots do not need it and
// stay.
func (d *Driver) DeleteVolume(ctx context.Context, r drivers.VolumeRef) error {
	return d.delete(ctx, volumes, r.ID, r.Pool, r.Check())
}

func (d *Driver) delete(ctx context.Context, k kind, id, poolName string, bad error) error {
	if bad != nil {
		return bad
	}
	if err := drivers.Begin(ctx); err != nil {
		return err
	}
	unlock, err := d.locks.Lock(ctx, key(k, id))
	if err != nil {
		return ioError(k.one()+" "+id, err)
	}
	defer unlock()
	o, ok, err := d.lookup(k, id, poolName)
	if err != nil || !ok {
		return err
	}
	if k == volumes {
		if err := d.notInUse(o); err != nil {
			return err
		}
		if err := d.forgetExports(o); err != nil {
			return err
		}
	}
	op := "delete"
	if k == snapshots {
		op = "deleteSnapshot"
	}
	faults.Point("local." + op + ".begin")
	if err := d.remove(o.pool, k, id, op); err != nil {
		d.update(k, id, func(o *object) { o.whole = false })
		return ioError(k.one()+" "+id, err)
	}
	d.drop(k, id)
	if o.shared {
		o.pool.wake()
	}
	return nil
}

// GetVolume gives a volume that is whole.
func (d *Driver) GetVolume(ctx context.Context, r drivers.VolumeRef) (drivers.Volume, error) {
	if err := r.Check(); err != nil {
		return drivers.Volume{}, err
	}
	if err := drivers.Begin(ctx); err != nil {
		return drivers.Volume{}, err
	}
	o, err := d.need(volumes, r.ID, r.Pool)
	if err != nil {
		return drivers.Volume{}, err
	}
	return o.volume(), nil
}

// ListVolumes lists the volumes by id, incomplete ones too.
func (d *Driver) ListVolumes(ctx context.Context, p drivers.Page) ([]drivers.Volume, error) {
	var out []drivers.Volume
	err := d.list(ctx, volumes, p, func(o object) { out = append(out, o.volume()) })
	return out, err
}

func (o object) volume() drivers.Volume {
	name, format := drivers.NAA(o.meta.ID)
	if o.pool.network() {
		name, format = export.Identity(o.pool.protocol(), o.meta.ID)
	}
	return drivers.Volume{ID: o.meta.ID, Pool: o.pool.name, Size: o.size, DurableName: name, DurableFormat: format,
		TenantID: o.meta.Tenant, ClusterID: o.meta.Cluster, Incomplete: !o.whole}
}

// ExpandsOnline is true: loop devices are told of their file's new length.
func (d *Driver) ExpandsOnline() bool { return true }

// ExpandVolume grows a volume, and the devices that it is exported by.
func (d *Driver) ExpandVolume(ctx context.Context, r drivers.VolumeRef, size model.Bytes) (drivers.Volume, error) {
	if err := r.Check(); err != nil {
		return drivers.Volume{}, err
	}
	if err := drivers.CheckSize("size", size); err != nil {
		return drivers.Volume{}, err
	}
	if err := drivers.Begin(ctx); err != nil {
		return drivers.Volume{}, err
	}
	unlock, err := d.locks.Lock(ctx, key(volumes, r.ID))
	if err != nil {
		return drivers.Volume{}, ioError("volume "+r.ID, err)
	}
	defer unlock()
	o, err := d.need(volumes, r.ID, r.Pool)
	if err != nil {
		return drivers.Volume{}, err
	}
	if size = roundUp(size); size > o.size {
		release, err := d.reserve(ctx, o.pool, volumes, r.ID, size-o.size)
		if err != nil {
			return drivers.Volume{}, err
		}
		defer release()
		faults.Point("local.expand.begin")
		if err := o.pool.grow(ctx, r.ID, o.size, size); err != nil {
			return drivers.Volume{}, ioError("volume "+r.ID, err)
		}
		n := o.pool.allocated(volumes, r.ID)
		d.update(volumes, r.ID, func(o *object) { o.size, o.alloc = size, n })
		o.size = size
	}
	faults.Point("local.expand.file")
	// Also where the file had its length already: a crash may have come
	// between the two.
	if err := d.growExports(ctx, o); err != nil {
		return drivers.Volume{}, err
	}
	return o.volume(), nil
}

// grow lengthens a volume's file. It is either done or undone.
func (p *pool) grow(ctx context.Context, id string, from, to model.Bytes) error {
	f, err := p.root.OpenFile(volumes.data(id), os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	if p.thick() {
		if err := allocate(ctx, f, from, to); err != nil {
			// Cutting it to its own length gives back what was set aside.
			_ = fallocate(f, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, int64(from), int64(to-from))
			_ = f.Truncate(int64(from))
			return err
		}
		faults.Point("local.expand.allocated")
	}
	if err := f.Truncate(int64(to)); err != nil {
		return err
	}
	faults.Point("local.expand.truncated")
	return f.Sync()
}

// forgetExports removes the records of exports that have ended without being
// told: after a restart of the host there are no devices.
func (d *Driver) forgetExports(o object) error {
	for _, x := range d.exportsOf(o.meta.ID) {
		if err := d.removeExport(x); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return ioError("attachment "+x.AttachmentID, err)
		}
	}
	return nil
}

package local

import (
	"context"
	"math"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/osds-io/osds/pkg/drivers"
	"github.com/osds-io/osds/pkg/model"
)

// Pools lists the pools. It costs one statfs for each, and a stat for each
// volume that is exported: only those change their size on disk unasked.
func (d *Driver) Pools(ctx context.Context) ([]drivers.Pool, error) {
	out := make([]drivers.Pool, 0, len(d.names))
	for _, n := range d.names {
		if err := ctx.Err(); err != nil {
			return nil, model.Errorf(model.KindUnknownOutcome, "pools: %w", err)
		}
		p := d.pools[n]
		c := p.conf
		dp := drivers.Pool{ID: p.id, Name: n, OverProvisioning: c.OverProvisioningRatio, AvailabilityZone: c.AvailabilityZone,
			StorageType: c.StorageType, Description: c.Description, MultiAttach: c.MultiAttach, Extras: p.extras()}
		if p.noExport != "" || d.whyNoNetwork(p) != "" {
			dp.Lacks = []string{model.AbilityExport}
		}
		d.restat(p)
		u, err := d.measure(p)
		if err != nil {
			dp.Unusable = "its file system cannot be read: " + err.Error()
		} else {
			dp.Total, dp.Free = u.total, u.free
			if u.readOnly {
				dp.Unusable = "its file system is mounted read-only"
			}
		}
		out = append(out, dp)
	}
	return out, nil
}

// extras are the configured ones, and how snapshots are made.
func (p *pool) extras() model.PoolExtras {
	x := p.conf.Extras
	adv := make(map[string]any, len(x.Advanced)+1)
	adv["snapshotMethod"] = "copy"
	if p.reflink {
		adv["snapshotMethod"] = "reflink"
	}
	for k, v := range x.Advanced {
		adv[k] = v
	}
	x.Advanced = adv
	return x
}

// usage is what a pool has.
type usage struct {
	total, free model.Bytes
	readOnly    bool
}

// measure computes a pool's usage from the file system's figures and what is
// remembered of the files.
func (d *Driver) measure(p *pool) (usage, error) {
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(p.lock.Fd()), &st); err != nil {
		return usage{}, err
	}
	unit := uint64(st.Frsize)
	if unit == 0 {
		unit = uint64(st.Bsize)
	}
	avail, used := clampMul(st.Bavail, unit), clampMul(st.Blocks-min(st.Bfree, st.Blocks), unit)

	d.mu.Lock()
	defer d.mu.Unlock()
	// What our files take: counted once where they share blocks, never more
	// than the file system has in use, and with what is just being made.
	// (The file system's figure is the older one: rather too much room than
	// too little, for then the file system itself says no.)
	ours := p.alloc - p.excess
	for k := range p.making {
		ours += p.inFlight(d, k)
	}
	ours = min(max(ours, 0), used)
	capacity := p.conf.Capacity
	if capacity == 0 {
		capacity = math.MaxInt64
	}
	u := usage{readOnly: st.Flags&unix.ST_RDONLY != 0}
	if p.thick() {
		claimed := p.promised + p.reserved
		owed := max(claimed-ours, 0) // promised but, after discards, not set aside
		u.total = min(capacity, claimed+max(avail-owed, 0))
		u.free = max(u.total-p.promised, 0)
		return u, nil
	}
	u.total = min(capacity, ours+avail)
	u.free = max(min(u.total-ours, avail), 0)
	return u, nil
}

// room is how much more may be promised of a total. The caller holds the lock.
func (p *pool) room(total model.Bytes) model.Bytes {
	limit := model.Bytes(min(float64(total)*p.conf.OverProvisioningRatio, float64(drivers.MaxSize)))
	return max(limit-p.promised-p.reserved, 0)
}

func clampMul(a, b uint64) model.Bytes {
	if b != 0 && a > uint64(drivers.MaxSize)/b {
		return drivers.MaxSize
	}
	return model.Bytes(a * b)
}

// objectKey names an object, for the set of those that are being made or grown.
type objectKey struct {
	kind kind
	id   string
}

// inFlight is how much more an object has on disk than is counted of it.
func (p *pool) inFlight(d *Driver, k objectKey) model.Bytes {
	n := p.allocated(k.kind, k.id)
	if fi, err := p.root.Lstat(k.kind.temp(k.id)); err == nil {
		n += blocksOf(fi)
	}
	if o, ok := d.index(k.kind).Get(k.id); ok {
		n -= o.alloc
	}
	return max(n, 0)
}

// count adds (or with -1 takes away) an object to what its pool counts. The
// caller holds the lock.
func (d *Driver) count(o *object, sign model.Bytes) {
	p := o.pool
	p.alloc += sign * o.alloc
	if o.whole && (o.kind == volumes || p.thick()) {
		n := o.size
		if p.thick() {
			n = max(n, o.alloc)
		}
		p.promised += sign * n
	}
}

// reserve promises space to a call until the function it gives is called, which
// is after the object has been counted. In a thin pool snapshots promise
// nothing: they take what they take.
func (d *Driver) reserve(ctx context.Context, p *pool, k kind, id string, n model.Bytes) (func(), error) {
	counted := k == volumes || p.thick()
	for again := false; ; again = true {
		u, err := d.measure(p)
		if err != nil {
			return nil, ioError("pool "+p.name, err)
		}
		d.mu.Lock()
		room := p.room(u.total)
		if !counted || n <= room {
			if counted {
				p.reserved += n
			}
			p.making[objectKey{k, id}]++
			d.mu.Unlock()
			break
		}
		freed := p.freed
		d.mu.Unlock()
		// XFS counts what was removed as free a moment later.
		if again && time.Since(freed) > freeDelay {
			return nil, model.Errorf(model.KindExhausted, "pool %s has room for %s, %s are asked for", p.name, room, n)
		}
		if again {
			select {
			case <-ctx.Done():
				return nil, model.Errorf(model.KindUnknownOutcome, "pool %s: %w", p.name, ctx.Err())
			case <-time.After(freeDelay / 20):
			}
		}
		d.restat(p) // the counts of volumes in use may be old
	}
	return func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		if counted {
			p.reserved -= n
		}
		key := objectKey{k, id}
		if p.making[key]--; p.making[key] == 0 {
			delete(p.making, key)
		}
	}, nil
}

// freeDelay is how long after a removal the file system may still count the
// space as used.
const freeDelay = time.Second

// restat looks at the files of volumes that are exported.
func (d *Driver) restat(p *pool) {
	var ids []string
	d.mu.RLock()
	d.exports.Scan(func(_ string, x *attachment) bool {
		if x.pool == p {
			ids = append(ids, x.VolumeID)
		}
		return true
	})
	d.mu.RUnlock()
	if p.network() && d.net != nil {
		for _, id := range d.net.Volumes() {
			if o, ok, _ := d.lookup(volumes, id, ""); ok && o.pool == p {
				ids = append(ids, id)
			}
		}
	}
	slices.Sort(ids)
	for _, id := range slices.Compact(ids) {
		n := p.allocated(volumes, id)
		d.update(volumes, id, func(o *object) { o.alloc = n })
	}
}

// share notes that an object's data shares blocks with a copy of it.
func (d *Driver) share(k kind, id string) {
	d.update(k, id, func(o *object) { o.shared = o.pool.reflink && !o.pool.thick() })
}

// addExcess notes that n bytes are counted that a new copy does not take. The
// refresh makes it exact.
func (d *Driver) addExcess(p *pool, n model.Bytes) {
	d.mu.Lock()
	p.excess += n
	d.mu.Unlock()
	p.wake()
}

// linkShared finds out, after all objects were read, whose blocks may be shared:
// copies know their source, the source does not know its copies.
func (d *Driver) linkShared() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, k := range []kind{volumes, snapshots} {
		d.index(k).Scan(func(_ string, o *object) bool {
			o.shared = o.shared && o.pool.reflink && !o.pool.thick()
			if !o.shared {
				return true
			}
			for _, src := range []struct {
				kind kind
				id   string
			}{{volumes, o.meta.VolumeID}, sourceOf(o.meta)} {
				if s, ok := d.index(src.kind).Get(src.id); ok {
					s.shared = true
				}
			}
			return true
		})
	}
}

func sourceOf(m meta) (src struct {
	kind kind
	id   string
}) {
	for _, k := range []kind{volumes, snapshots} {
		if n := len(k.one()) + 1; len(m.Source) > n && m.Source[:n] == k.one()+"/" {
			src.kind, src.id = k, m.Source[n:]
		}
	}
	return src
}

// wake asks for the counts to be taken anew, soon.
func (p *pool) wake() {
	select {
	case p.kick <- struct{}{}:
	default:
	}
}

// How often the counts are taken anew, at least and at most.
const (
	freshEvery = time.Minute
	freshPause = 2 * time.Second
)

// keepFresh takes the counts anew now and then, and after calls that change who
// shares what. It spends at most a tenth of its time on it.
func (d *Driver) keepFresh(ctx context.Context, p *pool) {
	tick := time.NewTicker(freshEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-p.kick:
		}
		begin := time.Now()
		d.refresh(ctx, p)
		select {
		case <-ctx.Done():
			return
		case <-time.After(max(freshPause, 10*time.Since(begin))):
		}
	}
}

// refresh looks at every file of a pool.
func (d *Driver) refresh(ctx context.Context, p *pool) {
	type file struct {
		objectKey
		shared bool
	}
	var files []file
	d.mu.RLock()
	for _, k := range []kind{volumes, snapshots} {
		d.index(k).Scan(func(id string, o *object) bool {
			if o.pool == p && o.whole {
				files = append(files, file{objectKey{k, id}, o.shared})
			}
			return true
		})
	}
	d.mu.RUnlock()
	ext := extents{left: maxExtents}
	for _, f := range files {
		if ctx.Err() != nil {
			return
		}
		if st, err := p.stat(f.kind, f.id); err == nil {
			d.update(f.kind, f.id, func(o *object) { o.alloc = model.Bytes(st.Blocks) * 512 })
		}
		if f.shared {
			ext.add(p, f.kind, f.id)
		}
	}
	d.mu.Lock()
	p.excess = ext.excess()
	d.mu.Unlock()
}

// Package local is a driver whose volumes are files in a directory, and whose
// exports are loop devices on the dock's own host, or targets of such devices
// for other hosts.
//
// A pool's directory holds
//
//	.osds-pool.json          the pool's identity
//	volumes/ID.json ID.img   what a volume is, and its data
//	snapshots/ID.json ID.img the same for snapshots
//	exports/ID.json          which volume an attachment is of
//	tmp/                     what is being made; emptied when the pool is opened
//
// A volume or snapshot is whole when both of its files are there. The .json comes
// first, and the .img gets its name when its content is complete and on disk; so
// a crash at any point leaves either a whole object or one that lists as
// incomplete, which the same create makes anew and which a delete removes. Live
// exports are known from the kernel, never from memory.
package local

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"sort"
	"sync"
	"syscall"

	"github.com/tidwall/btree"

	"github.com/osds-io/osds/internal/keylock"
	"github.com/osds-io/osds/pkg/drivers"
	"github.com/osds-io/osds/pkg/drivers/export"
	"github.com/osds-io/osds/pkg/model"
)

// Driver drives the pools of one configuration. It implements every ability.
type Driver struct {
	pools   map[string]*pool
	names   []string // of pools, sorted
	cluster string
	hosts   []string // names of this host

	// locks are named v/ID, s/ID and a/ID: calls on one object wait for each
	// other, and what is being copied is not changed.
	locks keylock.Set

	mu        sync.RWMutex // guards what follows, and the fields of objects
	volumes   btree.Map[string, *object]
	snapshots btree.Map[string, *object]
	exports   btree.Map[string, *attachment]

	// net has the exports over a network; nil without such pools.
	net *export.Manager

	stop context.CancelFunc
	wg   sync.WaitGroup
}

var (
	_ drivers.Factory     = Factory
	_ drivers.Driver      = (*Driver)(nil)
	_ drivers.Expander    = (*Driver)(nil)
	_ drivers.Snapshotter = (*Driver)(nil)
	_ drivers.Cloner      = (*Driver)(nil)
	_ drivers.Reverter    = (*Driver)(nil)
	_ drivers.Exporter    = (*Driver)(nil)
)

// Factory opens the pools of a dock's backend. It is a drivers.Factory.
func Factory(ctx context.Context, c drivers.Config) (drivers.Driver, error) {
	d, err := Open(ctx, c)
	if err != nil {
		return nil, err
	}
	return d, nil
}

// Open opens the pools that c.Path configures. Each pool's directory is locked
// against other docks until Close.
func Open(ctx context.Context, c drivers.Config) (*Driver, error) {
	if c.StateDir == "" {
		return nil, model.Invalid("stateDir", "the local driver needs a state directory")
	}
	if err := os.MkdirAll(c.StateDir, 0o700); err != nil {
		return nil, model.Errorf(model.KindUnavailable, "the local driver's state directory: %w", err)
	}
	cf, err := load(c.Path, c.StateDir)
	if err != nil {
		return nil, err
	}
	known, err := readKnown(c.StateDir)
	if err != nil {
		return nil, err
	}
	d := &Driver{pools: map[string]*pool{}, cluster: c.ClusterID, hosts: append(hostNames(), cf.HostNames...)}
	for _, name := range sortedNames(cf.Pool) {
		p, err := openPool(ctx, name, cf.Pool[name], known)
		if err != nil {
			_ = d.closePools()
			return nil, err
		}
		d.pools[name] = p
		d.names = append(d.names, name)
		if err := d.loadPool(p); err != nil {
			_ = d.closePools()
			return nil, err
		}
	}
	if err := known.write(c.StateDir, d.pools); err != nil {
		_ = d.closePools()
		return nil, err
	}
	if err := d.openNetwork(ctx, c, cf.Options); err != nil {
		_ = d.closePools()
		return nil, err
	}
	d.linkShared()
	run, stop := context.WithCancel(context.Background())
	d.stop = stop
	for _, n := range d.names {
		p := d.pools[n]
		if d.refresh(ctx, p); ctx.Err() != nil {
			p.wake() // it goes on in the background
		}
		d.wg.Add(1)
		go func() {
			defer d.wg.Done()
			d.keepFresh(run, p)
		}()
	}
	return d, nil
}

// Close ends the driver. Exports live on.
func (d *Driver) Close() error {
	d.stop()
	d.wg.Wait()
	if d.net != nil {
		return errors.Join(d.net.Close(), d.closePools())
	}
	return d.closePools()
}

func (d *Driver) closePools() error {
	var errs []error
	for _, p := range d.pools {
		errs = append(errs, p.close())
	}
	return errors.Join(errs...)
}

// loadPool reads what a pool's directory has.
func (d *Driver) loadPool(p *pool) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, k := range []kind{volumes, snapshots} {
		objs, err := p.scan(k)
		if err != nil {
			return ioError("pool "+p.name, err)
		}
		for _, o := range objs {
			if old, dup := d.index(k).Get(o.meta.ID); dup {
				return model.Errorf(model.KindUnavailable, "%s %s is in two pools, %s and %s: remove one of its copies", k.one(), o.meta.ID, old.pool.name, p.name)
			}
			d.index(k).Set(o.meta.ID, o)
			d.count(o, 1)
		}
	}
	exports, err := p.scanExports()
	if err != nil {
		return ioError("pool "+p.name, err)
	}
	for _, x := range exports {
		d.exports.Set(x.AttachmentID, x)
	}
	return nil
}

func (d *Driver) index(k kind) *btree.Map[string, *object] {
	if k == snapshots {
		return &d.snapshots
	}
	return &d.volumes
}

// pool gives a configured pool. That one is not configured says nothing about
// what is in it, so the error is never notFound.
func (d *Driver) pool(name string) (*pool, error) {
	if p := d.pools[name]; p != nil {
		return p, nil
	}
	return nil, model.Errorf(model.KindUnavailable, "pool %q is not in the local driver's configuration", name)
}

// lookup gives a copy of an object, whole or not, and false if nothing of it is
// known. A pool that is named must be the object's.
func (d *Driver) lookup(k kind, id, poolName string) (object, bool, error) {
	if poolName != "" {
		if _, err := d.pool(poolName); err != nil {
			return object{}, false, err
		}
	}
	d.mu.RLock()
	defer d.mu.RUnlock()
	o, ok := d.index(k).Get(id)
	if !ok {
		return object{}, false, nil
	}
	if poolName != "" && o.pool.name != poolName {
		return object{}, false, model.Invalid("pool", "%s %s is in pool %s, not in %s", k.one(), id, o.pool.name, poolName)
	}
	return *o, true, nil
}

// need gives a copy of an object that must be whole. It looks at the directory:
// a file that somebody removed is not there, whatever was remembered.
func (d *Driver) need(k kind, id, poolName string) (object, error) {
	o, ok, err := d.lookup(k, id, poolName)
	if err != nil {
		return o, err
	}
	absent := model.Errorf(model.KindNotFound, "%s %s is not there", k.one(), id)
	if !ok || !o.whole {
		return o, absent
	}
	st, err := o.pool.stat(k, id)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		d.update(k, id, func(o *object) { o.whole, o.alloc = false, 0 })
		return o, absent
	case err != nil:
		return o, ioError(k.one()+" "+id, err)
	}
	o.size = model.Bytes(st.Size)
	return o, nil
}

// update changes an object under the lock, with the pool's counts.
func (d *Driver) update(k kind, id string, fn func(*object)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	o, ok := d.index(k).Get(id)
	if !ok {
		return
	}
	d.count(o, -1)
	fn(o)
	d.count(o, 1)
}

// set puts an object into the index, and drop takes it out.
func (d *Driver) set(k kind, o *object) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if old, ok := d.index(k).Set(o.meta.ID, o); ok {
		d.count(old, -1)
	}
	d.count(o, 1)
}

func (d *Driver) drop(k kind, id string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if old, ok := d.index(k).Delete(id); ok {
		d.count(old, -1)
	}
}

// list calls fn with copies of a page's objects.
func (d *Driver) list(ctx context.Context, k kind, p drivers.Page, fn func(object)) error {
	if err := ctx.Err(); err != nil {
		return model.Errorf(model.KindUnknownOutcome, "list: %w", err)
	}
	d.mu.RLock()
	defer d.mu.RUnlock()
	n := p.Bound()
	d.index(k).Ascend(p.After, func(id string, o *object) bool {
		if id == p.After {
			return true
		}
		if n--; n < 0 {
			return false
		}
		fn(*o)
		return true
	})
	return nil
}

// ioError gives an error of the file system a kind.
func ioError(what string, err error) error {
	var me *model.Error
	switch {
	case err == nil:
		return nil
	case errors.As(err, &me):
		return err
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return model.Errorf(model.KindUnknownOutcome, "%s: %w", what, err)
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return model.Errorf(model.KindExhausted, "%s: the file system is full: %w", what, err)
	case errors.Is(err, syscall.EROFS), errors.Is(err, syscall.EIO), errors.Is(err, syscall.ESTALE), errors.Is(err, syscall.ENODEV):
		return model.Errorf(model.KindUnavailable, "%s: %w", what, err)
	}
	return model.Errorf(model.KindInternal, "%s: %w", what, err)
}

// hostNames are the names that this host goes by.
func hostNames() []string {
	names := []string{"localhost"}
	if h, err := os.Hostname(); err == nil {
		names = append(names, h)
	}
	sort.Strings(names)
	return names
}

//go:build ceph

package ceph

import (
	"context"
	"strings"

	"github.com/google/uuid"

	"github.com/osds-io/osds/internal/keylock"
	"github.com/osds-io/osds/pkg/drivers"
	"github.com/osds-io/osds/pkg/model"
)

// Driver drives the pools of one cluster. It implements every ability.
type Driver struct {
	conf    config
	cluster string // osds's cluster id
	pools   map[string]*pool
	names   []string // of pools, sorted

	links *links
	calls *calls
	// locks are named v/ID, s/ID and a/ID: calls on one object wait for each
	// other, and what is being copied is not changed.
	locks keylock.Set

	stop context.CancelFunc
	kick chan struct{} // wakes the care of the trash
	// yields is the background's work that calls break off.
	yields yielding
}

var (
	_ drivers.Factory          = Factory
	_ drivers.Driver           = (*Driver)(nil)
	_ drivers.Expander         = (*Driver)(nil)
	_ drivers.Snapshotter      = (*Driver)(nil)
	_ drivers.Cloner           = (*Driver)(nil)
	_ drivers.Reverter         = (*Driver)(nil)
	_ drivers.Exporter         = (*Driver)(nil)
	_ drivers.GroupSnapshotter = (*Driver)(nil)
)

// Factory connects to the cluster of a dock's backend. It is a drivers.Factory.
func Factory(ctx context.Context, c drivers.Config) (drivers.Driver, error) {
	d, err := Open(ctx, c)
	if err != nil {
		return nil, err
	}
	return d, nil
}

// Open connects to the cluster that c.Path configures. A cluster that does not
// answer is an error after connectTimeout, or when ctx ends. Several docks may
// have the same pool open.
func Open(ctx context.Context, c drivers.Config) (*Driver, error) {
	cf, err := load(c.Path)
	if err != nil {
		return nil, err
	}
	own, err := newSelf(c.StateDir)
	if err != nil {
		return nil, err
	}
	d := &Driver{conf: cf, cluster: c.ClusterID, pools: map[string]*pool{}, names: sortedNames(cf.Pool),
		links: newLinks(cf, own), calls: newCalls(), kick: make(chan struct{}, 1)}
	for _, n := range d.names {
		d.pools[n] = &pool{name: n, conf: cf.Pool[n]}
	}
	if err := d.checkPassphrase(); err != nil {
		return nil, err
	}
	run, stop := context.WithCancel(context.Background())
	d.stop = stop
	_, err = do(ctx, d, "opening the cluster", nil, func(ctx context.Context, l *link) (struct{}, error) {
		for _, n := range d.names {
			p := d.pools[n]
			p.id = poolID(l.fsid, l.ids[n])
			if err := d.space(l, p).rebuild(ctx); err != nil {
				return struct{}{}, fail("pool "+n, err)
			}
		}
		return struct{}{}, nil
	})
	if err != nil {
		_ = d.Close()
		return nil, err
	}
	d.calls.wg.Go(func() { d.care(run) })
	return d, nil
}

// Close ends the driver. Exports live on.
func (d *Driver) Close() error {
	d.stop()
	// Steps end at opTimeout; a few follow each other.
	limit := 4 * d.conf.OpTimeout
	if err := d.calls.wait(limit); err != nil {
		return err // the connection stays with them
	}
	return d.links.close(limit)
}

// poolID is the identity of a pool: its number in its cluster, which is never
// used again.
func poolID(fsid string, id int64) string {
	ns, err := uuid.Parse(fsid)
	if err != nil {
		ns = uuid.NewSHA1(uuid.NameSpaceOID, []byte(fsid))
	}
	return uuid.NewSHA1(ns, []byte("rbd/"+itoa(id))).String()
}

// pool gives a configured pool. That one is not configured says nothing about
// what is in it, so the error is never notFound.
func (d *Driver) pool(name string) (*pool, error) {
	if p := d.pools[name]; p != nil {
		return p, nil
	}
	return nil, model.Errorf(model.KindUnavailable, "pool %q is not in the ceph driver's configuration (there are %s)", name, strings.Join(d.names, ", "))
}

// on makes a call on a pool. Without a name it is made on each pool until one
// does not say notFound.
func on[T any](ctx context.Context, d *Driver, name, what string, wants []keylock.Want, fn func(context.Context, *space) (T, error)) (T, error) {
	var none T
	if name != "" {
		p, err := d.pool(name)
		if err != nil {
			return none, err
		}
		return do(ctx, d, what, wants, func(ctx context.Context, l *link) (T, error) { return fn(ctx, d.space(l, p)) })
	}
	return do(ctx, d, what, wants, func(ctx context.Context, l *link) (v T, err error) {
		for _, n := range d.names {
			if v, err = fn(ctx, d.space(l, d.pools[n])); !model.IsKind(err, model.KindNotFound) {
				return v, err
			}
		}
		return v, err
	})
}

// Package sample is a driver with no storage behind it: a simulated backend whose
// inventory is kept on disk. It has every ability of a real one except data. It
// serves first steps without hardware, tests of what is above the drivers (it
// can be slow, fail, and lose answers on request), and benchmarks of the control
// plane.
//
// The inventory is a bbolt file in the driver's state directory. A call that was
// answered is on disk, and survives a crash at any point; concurrent calls share
// one write to the disk.
package sample

import (
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sort"
	"sync"
	"time"

	"github.com/google/uuid"
	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"github.com/osds-io/osds/internal/faults"
	"github.com/osds-io/osds/pkg/drivers"
	"github.com/osds-io/osds/pkg/model"
)

// Driver is the simulated backend. It implements every ability.
type Driver struct {
	db    *bbolt.DB
	conf  config
	pools map[string]pool
	names []string // of pools, sorted

	mu  sync.Mutex // guards rng
	rng *rand.Rand
}

type pool struct {
	poolConfig
	id string
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

// Factory opens the simulated backend of a dock. It is a drivers.Factory.
func Factory(ctx context.Context, c drivers.Config) (drivers.Driver, error) {
	d, err := Open(ctx, c)
	if err != nil {
		return nil, err
	}
	return d, nil
}

// batchDelay is how long the first of several concurrent calls waits for others
// to share its write to the disk.
const batchDelay = 500 * time.Microsecond

// Open opens the simulated backend: c.Path is its YAML (none: the two default
// pools), c.StateDir holds its inventory.
func Open(ctx context.Context, c drivers.Config) (*Driver, error) {
	if c.StateDir == "" {
		return nil, model.Invalid("stateDir", "the sample driver needs a state directory")
	}
	conf, err := load(c.Path)
	if err != nil {
		return nil, err
	}
	pools, err := conf.expand()
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(c.StateDir, 0o700); err != nil {
		return nil, model.Errorf(model.KindUnavailable, "the sample driver's state directory: %w", err)
	}
	wait := 2 * time.Second // for a predecessor that is just ending
	if t, ok := ctx.Deadline(); ok {
		wait = min(wait, max(time.Until(t), time.Millisecond))
	}
	path := filepath.Join(c.StateDir, "sample.db")
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{
		Timeout: wait,
		// The free list is rebuilt at open instead of written with each commit.
		NoFreelistSync: true, FreelistType: bbolt.FreelistMapType,
	})
	if errors.Is(err, bolterrors.ErrTimeout) {
		return nil, model.Errorf(model.KindUnavailable, "%s is in use by another process", path)
	}
	if err != nil {
		return nil, model.Errorf(model.KindUnavailable, "%s: %w", path, err)
	}
	db.MaxBatchDelay = batchDelay
	d := &Driver{db: db, conf: conf, pools: make(map[string]pool, len(pools)), rng: newRand(conf.Seed)}
	instance, err := d.prepare()
	if err != nil {
		_ = db.Close()
		return nil, model.Errorf(model.KindUnavailable, "%s: %w", path, err)
	}
	for n, p := range pools {
		id := p.ID
		if id == "" {
			id = uuid.NewSHA1(instance, []byte(n)).String()
		}
		d.pools[n] = pool{poolConfig: p, id: id}
		d.names = append(d.names, n)
	}
	sort.Strings(d.names)
	return d, nil
}

func newRand(seed int64) *rand.Rand {
	s := uint64(seed)
	if seed == 0 {
		s = rand.Uint64()
	}
	return rand.New(rand.NewPCG(s, 0x05d5))
}

// prepare makes the buckets and gives the identity of this inventory, from which
// those of its pools are derived.
func (d *Driver) prepare() (id uuid.UUID, err error) {
	err = d.db.Update(func(tx *bbolt.Tx) error {
		for _, b := range [][]byte{bMeta, bVolumes, bSnapshots, bExports, bSnapshotsOf, bExportsOf, bUsed, bWork} {
			if _, err := tx.CreateBucketIfNotExists(b); err != nil {
				return err
			}
		}
		m := tx.Bucket(bMeta)
		if v := m.Get(kInstance); v != nil {
			id, err = uuid.FromBytes(v)
			return err
		}
		id = uuid.New()
		return m.Put(kInstance, id[:])
	})
	return id, err
}

// Close ends the driver.
func (d *Driver) Close() error { return d.db.Close() }

// Pools lists the simulated pools. Free is what has not been promised, scaled
// down where more may be promised than there is.
func (d *Driver) Pools(ctx context.Context) ([]drivers.Pool, error) {
	if err := d.act(ctx, opPools, nil); err != nil {
		return nil, err
	}
	out := make([]drivers.Pool, 0, len(d.names))
	err := d.view(func(tx *bbolt.Tx) error {
		used := tx.Bucket(bUsed)
		for _, n := range d.names {
			p := d.pools[n]
			free := p.Capacity - model.Bytes(float64(getUsed(used, n))/p.OverProvisioningRatio)
			out = append(out, drivers.Pool{
				ID: p.id, Name: n, Total: p.Capacity, Free: max(free, 0),
				OverProvisioning: p.OverProvisioningRatio, AvailabilityZone: p.AvailabilityZone,
				StorageType: p.StorageType, Description: p.Description, MultiAttach: p.MultiAttach,
				Extras: p.Extras, Unusable: p.Unusable, Lacks: p.Lacks, Fills: p.Fills,
			})
		}
		return nil
	})
	return out, err
}

// act does what every call begins with: it takes the configured time, fails if
// the dice say so, and then does the work, if any. A lost answer comes after it.
func (d *Driver) act(ctx context.Context, op string, work func() error) error {
	if err := drivers.Begin(ctx); err != nil {
		return err
	}
	delay, fail := d.roll(op)
	if delay > 0 {
		t := time.NewTimer(delay)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return model.Errorf(model.KindUnknownOutcome, "sample %s: %w", op, ctx.Err())
		}
	}
	if fail != nil && !fail.Lost {
		msg := fail.Message
		if msg == "" {
			msg = "simulated failure"
		}
		return model.Errorf(fail.Kind, "sample %s: %s", op, msg)
	}
	if work != nil {
		if err := work(); err != nil {
			return err
		}
	}
	if fail != nil {
		return model.Errorf(model.KindUnknownOutcome, "sample %s: the answer was lost, as configured", op)
	}
	return nil
}

// roll gives a call's latency and its failure, if any.
func (d *Driver) roll(op string) (time.Duration, *failure) {
	delay, ok := d.conf.Latency[op]
	if !ok {
		delay = d.conf.Latency[defaultOp]
	}
	if (delay == 0 || d.conf.Jitter == 0) && len(d.conf.Failures) == 0 {
		return delay, nil
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if delay > 0 {
		delay += time.Duration(float64(delay) * d.conf.Jitter * (2*d.rng.Float64() - 1))
	}
	for i := range d.conf.Failures {
		f := &d.conf.Failures[i]
		if (f.Op == op || f.Op == anyOp) && (f.Times == 0 || f.struck < f.Times) && d.rng.Float64() < f.Rate {
			f.struck++
			return delay, f
		}
	}
	return delay, nil
}

// change does a call's work in a transaction that it may share with others. fn
// checks before it writes: an error of its own means that it has written
// nothing. It may be called more than once.
func (d *Driver) change(ctx context.Context, op string, fn func(*bbolt.Tx) error) error {
	return d.act(ctx, op, func() error { return d.commit(op, fn) })
}

// commit is change for what comes after a call's beginning.
func (d *Driver) commit(op string, fn func(*bbolt.Tx) error) error {
	faults.Point("sample." + op + ".before")
	var refused error
	err := d.db.Batch(func(tx *bbolt.Tx) error {
		refused = nil
		err := fn(tx)
		var e *model.Error
		if errors.As(err, &e) {
			refused = err
			return nil // do not undo the others' work for it
		}
		return err
	})
	faults.Point("sample." + op + ".after")
	if err != nil {
		return model.Errorf(model.KindUnknownOutcome, "sample inventory: %w", err)
	}
	return refused
}

func (d *Driver) view(fn func(*bbolt.Tx) error) error {
	err := d.db.View(fn)
	if err != nil && model.KindOf(err) == model.KindInternal {
		return model.Errorf(model.KindUnavailable, "sample inventory: %w", err)
	}
	return err
}

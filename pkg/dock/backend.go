package dock

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"
	"google.golang.org/protobuf/proto"

	"github.com/osds-io/osds/pkg/dock/dockpb"
	"github.com/osds-io/osds/pkg/drivers"
	"github.com/osds-io/osds/pkg/model"
)

// maxPools bounds the pools of one backend.
const maxPools = 1024

// backend is one configured backend: its driver, and its pools, which are read
// every few seconds.
type backend struct {
	service[drivers.Driver]
	cfg    BackendConfig
	dockID string

	pools []*dockpb.Pool // under service.mu
	read  time.Time      // when pools were read last
}

// run opens the backend and keeps its pools fresh until ctx ends.
func (b *backend) run(ctx context.Context) {
	if !b.keepOpening(ctx) {
		return
	}
	for {
		began := time.Now()
		b.readPools(ctx)
		b.wasTried()
		if !pause(ctx, max(b.care.poolsEvery, min(poolsRest*time.Since(began), poolsSeldom))) {
			return
		}
	}
}

// Reading pools is work for the backend, which may be in the way of its other
// work: LVM reads all its devices, under the lock that a create needs. It gets
// one part in poolsRest of the time, and yet a turn every poolsSeldom.
const (
	poolsRest   = 20
	poolsSeldom = 20 * time.Second
)

// readPools asks the driver for its pools. On an error the last known ones stay,
// marked unusable: nobody may take them for gone.
func (b *backend) readPools(parent context.Context) {
	drv, done, err := b.use()
	if err != nil {
		return
	}
	ctx, cancel := context.WithTimeout(parent, b.care.poolsLimit)
	defer cancel()
	type result struct {
		pools []drivers.Pool
		err   error
	}
	ch := make(chan result, 1)
	go func() {
		defer done()
		var r result
		defer func() {
			if p := recover(); p != nil {
				r.err = model.Errorf(model.KindInternal, "the driver panicked: %v", p)
			}
			ch <- r
		}()
		r.pools, r.err = drv.Pools(ctx)
	}()
	var r result
	select {
	case r = <-ch:
	case <-ctx.Done():
		b.poolsFailed(fmt.Errorf("reading them does not end: %w", ctx.Err()))
		select {
		case r = <-ch: // never two at once
		case <-parent.Done():
			return
		}
	}
	if len(r.pools) > maxPools {
		r.err = fmt.Errorf("there are %d pools, at most %d are taken", len(r.pools), maxPools)
	}
	if r.err != nil {
		b.poolsFailed(r.err)
		return
	}
	out := make([]*dockpb.Pool, 0, len(r.pools))
	for _, p := range r.pools {
		m, err := dockpb.FromPool(b.cfg.Name, b.cfg.Driver, b.poolID(p), abilities(drv, p), p)
		if err != nil {
			b.poolsFailed(err)
			return
		}
		out = append(out, m)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.reason != "" {
		b.log.Info("the pools can be read again")
	}
	b.pools, b.read, b.reason = out, time.Now(), ""
}

func (b *backend) poolsFailed(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	msg := "the pools cannot be read: " + err.Error()
	if b.reason != msg {
		b.log.WithError(err).Warn("the pools cannot be read")
	}
	b.reason = msg
	marked := make([]*dockpb.Pool, len(b.pools))
	for i, p := range b.pools {
		marked[i] = proto.Clone(p).(*dockpb.Pool)
		marked[i].Unusable = msg
	}
	b.pools = marked
}

// snapshot is the pools as they were read last. The messages are shared and
// never changed.
func (b *backend) snapshot() []*dockpb.Pool {
	b.mu.RLock()
	defer b.mu.RUnlock()
	return b.pools
}

// poolID is the backend's own id of the pool, or one derived from the dock's.
func (b *backend) poolID(p drivers.Pool) string {
	if model.ValidID(p.ID) {
		return p.ID
	}
	ns, err := uuid.Parse(b.dockID)
	if err != nil {
		ns = uuid.NameSpaceOID
	}
	return uuid.NewSHA1(ns, []byte(b.cfg.Name+"/"+p.Name)).String()
}

// abilities are what a pool can do: what its driver implements, less what the
// driver says this pool lacks.
func abilities(drv drivers.Driver, p drivers.Pool) []string {
	var out []string
	add := func(a string) {
		for _, l := range p.Lacks {
			if l == a {
				return
			}
		}
		out = append(out, a)
	}
	if e, ok := drv.(drivers.Expander); ok {
		add(model.AbilityExpand)
		if e.ExpandsOnline() {
			add(model.AbilityExpandLive)
		}
	}
	if _, ok := drv.(drivers.Snapshotter); ok {
		add(model.AbilitySnapshot)
	}
	if _, ok := drv.(drivers.Cloner); ok {
		add(model.AbilityClone)
	}
	if _, ok := drv.(drivers.Reverter); ok {
		add(model.AbilityRevert)
	}
	if _, ok := drv.(drivers.Exporter); ok {
		add(model.AbilityExport)
	}
	if _, ok := drv.(drivers.Importer); ok {
		add(model.AbilityImport)
	}
	if p.Extras.DataStorage.ProvisioningPolicy == "Thin" {
		add(model.AbilityThin)
	}
	return out
}

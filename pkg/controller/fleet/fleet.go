// Package fleet is the leader's view of docks and pools: which are there, what
// they can hold, where the next volume goes, and how to call them.
package fleet

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/osds-io/osds/pkg/controller/ledger"
	"github.com/osds-io/osds/pkg/controller/selector"
	"github.com/osds-io/osds/pkg/db"
	"github.com/osds-io/osds/pkg/dock/client"
	"github.com/osds-io/osds/pkg/drivers"
	"github.com/osds-io/osds/pkg/model"
)

// Call identifies one call to a dock; see dock.proto.
type Call = client.Call

// Remote is a dock as controllers call it. Every call is idempotent by its
// object's id; errors are *model.Error.
type Remote interface {
	CreateVolume(ctx context.Context, c Call, backend string, r drivers.CreateVolume) (drivers.Volume, error)
	DeleteVolume(ctx context.Context, c Call, backend string, r drivers.VolumeRef) error
	GetVolume(ctx context.Context, c Call, backend string, r drivers.VolumeRef) (drivers.Volume, error)
	ListImportable(ctx context.Context, c Call, backend, pool string, p drivers.Page) ([]drivers.Importable, error)
	ImportVolume(ctx context.Context, c Call, backend string, r drivers.ImportVolume) (drivers.Volume, error)
	ReleaseVolume(ctx context.Context, c Call, backend string, r drivers.VolumeRef) error
	ExpandVolume(ctx context.Context, c Call, backend string, r drivers.VolumeRef, size model.Bytes) (drivers.Volume, error)
	RevertVolume(ctx context.Context, c Call, backend string, v drivers.VolumeRef, s drivers.SnapshotRef) (drivers.Volume, error)
	CreateSnapshot(ctx context.Context, c Call, backend string, r drivers.CreateSnapshot) (drivers.Snapshot, error)
	DeleteSnapshot(ctx context.Context, c Call, backend string, r drivers.SnapshotRef) error
	Export(ctx context.Context, c Call, backend string, r drivers.Export) (model.Connection, error)
	Unexport(ctx context.Context, c Call, backend string, r drivers.ExportRef) error
	ListVolumes(ctx context.Context, c Call, backend string, p drivers.Page) ([]drivers.Volume, error)
	ListSnapshots(ctx context.Context, c Call, backend string, p drivers.Page) ([]drivers.Snapshot, error)
	ListExports(ctx context.Context, c Call, backend string, p drivers.Page) ([]drivers.LiveExport, error)

	Attach(ctx context.Context, c Call, r client.AttachRequest) (client.Device, error)
	Detach(ctx context.Context, c Call, r client.DetachRequest) error
	ResizeDevice(ctx context.Context, c Call, r client.ResizeRequest) (client.Device, error)
	ListDevices(ctx context.Context, c Call, p drivers.Page) ([]client.Device, error)
}

// Dialer gives the dock at an endpoint. It connects when first used.
type Dialer interface {
	Dial(endpoint string) (Remote, error)
}

// Session is a live dock as it reports itself.
type Session struct {
	DockID, Instance, Name, NodeID, Endpoint, Version, Type string
	Backends                                                []string // "name:driver"
	Metadata                                                map[string]string
	Pools                                                   []Pool
	OutOfService                                            map[string]string // backend: why
	// Initiators are the host's names on the storage networks: a dock with any
	// attaches for its host. Addresses are the host's.
	Initiators []model.Initiator
	Addresses  []string
	// Epoch is the highest the dock has seen.
	Epoch int64
	// LastBeat is when it last said anything.
	LastBeat time.Time
}

// Pool is a pool as the dock reports it.
type Pool struct {
	drivers.Pool
	Backend, Driver string
	Abilities       []string
}

// Sessions is where live docks are known.
type Sessions interface {
	// Live gives the docks with a session that beats.
	Live() []Session
	// Changed is closed, and replaced, when a dock comes, goes or reports
	// other pools.
	Changed() <-chan struct{}
}

// Fleet is the docks and pools during one term of leadership.
type Fleet struct {
	Store     *db.Store
	Term      *db.Term
	Ledger    *ledger.Ledger
	Dialer    Dialer
	Sessions  Sessions
	ClusterID string
	Log       *logrus.Entry
	Now       func() time.Time
	// Grace is how long after the start of a term a dock may take to come
	// before it is called unavailable.
	Grace time.Duration
	// Back is called when a dock has come back.
	Back func()

	seq     atomic.Int64
	started time.Time
	mu      sync.Mutex
	cands   []selector.Candidate
	index   map[string]int // pool id -> position in cands
	counts  map[string]int // pool id -> volumes
	live    map[string]bool
}

// Start fills the view from the store and keeps it current until stop is called.
func (f *Fleet) Start() (stop func()) {
	f.started = f.Now()
	f.mu.Lock()
	f.index, f.counts, f.live = map[string]int{}, map[string]int{}, map[string]bool{}
	f.mu.Unlock()
	stop = f.Store.OnEvent(f.onEvent)
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, v := range f.Store.Volumes.All() {
		if v.PoolID != "" {
			f.counts[v.PoolID]++
		}
	}
	for _, p := range f.Store.Pools.All() {
		f.setPool(p)
	}
	return stop
}

// Started is when the term's view began: for how long docks have had to come.
func (f *Fleet) Started() time.Time { return f.started }

// onEvent keeps pools and counts. The counts only weigh, so that an event seen
// twice around the start of a term does no harm.
func (f *Fleet) onEvent(e db.Event) {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch r := e.Rec.(type) {
	case *model.Pool:
		if e.Type == db.Deleted {
			f.dropPool(r.ID)
			return
		}
		f.setPool(r)
	case *model.Volume:
		was, is := "", r.PoolID
		if e.Type == db.Deleted {
			was, is = r.PoolID, ""
		} else if old, ok := e.Old.(*model.Volume); ok && old != nil {
			was = old.PoolID
		}
		if was != is {
			if was != "" {
				f.counts[was]--
			}
			if is != "" {
				f.counts[is]++
			}
		}
	}
}

func (f *Fleet) setPool(p *model.Pool) {
	i, ok := f.index[p.ID]
	if !ok {
		i = len(f.cands)
		f.index[p.ID] = i
		f.cands = append(f.cands, selector.Candidate{})
	} else if f.cands[i].Pool.Rev > p.Rev {
		return
	}
	f.cands[i] = selector.Candidate{Pool: p, Attrs: selector.NewAttrs(p)}
}

func (f *Fleet) dropPool(id string) {
	i, ok := f.index[id]
	if !ok {
		return
	}
	last := len(f.cands) - 1
	f.cands[i] = f.cands[last]
	f.index[f.cands[i].Pool.ID] = i
	f.cands = f.cands[:last]
	delete(f.index, id)
}

// Pool gives a pool by id.
func (f *Fleet) Pool(id string) (*model.Pool, bool) { return f.Store.Pools.Get(id) }

// refresh brings the candidates' figures up to date. The caller holds the lock.
func (f *Fleet) refresh() {
	for i := range f.cands {
		id := f.cands[i].Pool.ID
		f.cands[i].Reserved = f.Ledger.Used(id)
		f.cands[i].Volumes = f.counts[id]
	}
}

// ExplainPools is how many pools a stored explanation shows.
const ExplainPools = 16

// Place chooses the pool for a request and reserves its size there. The caller
// commits the reservation with the placement, or releases it. The explanation
// is of the very evaluation that chose. An exhausted error says why none fits.
func (f *Fleet) Place(r selector.Request) (*model.Pool, *model.Explanation, error) {
	plan, err := selector.Compile(r)
	if err != nil {
		return nil, nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.refresh()
	ex := plan.Explain(f.cands, ExplainPools, f.Store.Rev(), f.Now().UTC())
	i, ok := plan.Place(f.cands)
	if !ok {
		kind := model.KindExhausted
		if f.wouldFit(plan) {
			kind = model.KindUnavailable
		}
		return nil, ex, model.Errorf(kind, "%s", ex.Reason)
	}
	p := f.cands[i].Pool
	if err := f.Ledger.Reserve(p.ID, r.Size, p.Limit()); err != nil {
		return nil, ex, err
	}
	return p, ex, nil
}

// wouldFit says whether a pool would fit if its dock were there. The caller holds
// the lock.
func (f *Fleet) wouldFit(plan *selector.Plan) bool {
	for i := range f.cands {
		if f.cands[i].Pool.Status == model.StatusAvailable {
			continue
		}
		c := f.cands[i]
		c.Pool = c.Pool.Clone()
		c.Pool.Status = model.StatusAvailable
		c.Attrs = selector.NewAttrs(c.Pool)
		if _, ok := plan.Fits(&c); ok {
			return true
		}
	}
	return false
}

// Choose is Place without a reservation, for groups.
func (f *Fleet) Choose(r selector.Request) (*model.Pool, error) {
	plan, err := selector.Compile(r)
	if err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.refresh()
	i, ok := plan.Place(f.cands)
	if !ok {
		return nil, model.Errorf(model.KindExhausted, "%s", plan.Explain(f.cands, 0, f.Store.Rev(), f.Now().UTC()).Reason)
	}
	return f.cands[i].Pool, nil
}

// Target is where a pool's objects are reached.
type Target struct {
	Remote
	Pool    *model.Pool
	Dock    *model.Dock
	Backend string
}

// Target finds the dock of a pool. A dock that is not there is an unavailable
// error, known without calling it.
func (f *Fleet) Target(poolID string) (*Target, error) {
	p, ok := f.Store.Pools.Get(poolID)
	if !ok {
		return nil, model.Errorf(model.KindUnavailable, "pool %s is not known any more", poolID)
	}
	r, d, err := f.reach(p.DockID)
	if err != nil {
		return nil, err
	}
	return &Target{Remote: r, Pool: p, Dock: d, Backend: p.Backend}, nil
}

// reach finds a dock that is there.
func (f *Fleet) reach(dockID string) (Remote, *model.Dock, error) {
	d, ok := f.Store.Docks.Get(dockID)
	if !ok {
		return nil, nil, model.Errorf(model.KindUnavailable, "dock %s is not known any more", dockID)
	}
	f.mu.Lock()
	live := f.live[d.ID]
	f.mu.Unlock()
	if !live {
		return nil, nil, model.Errorf(model.KindUnavailable, "dock %s (%s) is not there: %s", d.Name, d.Endpoint, reasonOr(d.Reason, "no session"))
	}
	r, err := f.Dialer.Dial(d.Endpoint)
	if err != nil {
		return nil, nil, model.Errorf(model.KindUnavailable, "dock %s (%s): %w", d.Name, d.Endpoint, err)
	}
	return r, d, nil
}

// Call makes the identity of the next call for a task. Later calls have higher
// numbers: a dock refuses an earlier one that arrives late.
func (f *Fleet) Call(t *model.Task) Call {
	return Call{Epoch: f.Term.Epoch, Seq: f.seq.Add(1), RequestID: t.RequestID, TaskID: t.ID, ClusterID: f.ClusterID}
}

func reasonOr(s, d string) string {
	if s == "" {
		return d
	}
	return s
}

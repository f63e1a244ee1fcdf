package osdslet

import (
	"encoding/json"
	"sync"

	"github.com/osds-io/osds/pkg/controller/fleet"
	"github.com/osds-io/osds/pkg/db"
	"github.com/osds-io/osds/pkg/dock/client"
	"github.com/osds-io/osds/pkg/dock/dockpb"
	"github.com/osds-io/osds/pkg/dock/registry"
	"github.com/osds-io/osds/pkg/drivers"
	"github.com/osds-io/osds/pkg/model"
)

// dialer is the docks' client in the controllers' terms.
type dialer struct{ d *client.Dialer }

// Dial gives the dock at an endpoint.
func (d dialer) Dial(endpoint string) (fleet.Remote, error) {
	c, err := d.d.Dock(endpoint)
	if err != nil {
		return nil, err
	}
	return c, nil
}

// sessions is the registry in the controllers' terms.
type sessions struct {
	reg *registry.Registry

	mu      sync.Mutex
	changed chan struct{}
	// extras are decoded once for as long as a pool reports the same ones.
	extras map[string]decodedExtras
	// figures are what pools reported last, by id.
	figures map[string]figures
}

// figures are a pool's live statistics.
type figures struct {
	dock        string
	total, free model.Bytes
	fills       []model.Fill
}

type decodedExtras struct {
	raw string
	x   model.PoolExtras
}

func newSessions() *sessions {
	return &sessions{changed: make(chan struct{}), extras: map[string]decodedExtras{}, figures: map[string]figures{}}
}

// Live gives the docks with a session.
func (s *sessions) Live() []fleet.Session {
	var out []fleet.Session
	for _, x := range s.reg.Snapshot() {
		h := x.Hello
		f := fleet.Session{
			DockID: h.GetDockId(), Instance: h.GetInstance(), Name: h.GetName(), NodeID: h.GetNodeId(), Endpoint: h.GetEndpoint(),
			Version: h.GetVersion(), Type: h.GetType(), Backends: h.GetBackends(), Metadata: h.GetMetadata(),
			OutOfService: x.OutOfService, Epoch: x.Epoch, LastBeat: x.LastBeat,
			Initiators: dockpb.ToInitiators(h.GetInitiators()), Addresses: h.GetAddresses(),
		}
		for _, p := range x.Pools {
			f.Pools = append(f.Pools, s.pool(p))
		}
		out = append(out, f)
	}
	return out
}

func (s *sessions) pool(p *dockpb.Pool) fleet.Pool {
	return fleet.Pool{
		Backend: p.GetBackend(), Driver: p.GetDriver(), Abilities: p.GetAbilities(),
		Pool: drivers.Pool{
			ID: p.GetId(), Name: p.GetName(), Total: model.Bytes(p.GetTotal()), Free: model.Bytes(p.GetFree()),
			OverProvisioning: p.GetOverProvisioning(), AvailabilityZone: p.GetAvailabilityZone(), StorageType: p.GetStorageType(),
			Description: p.GetDescription(), MultiAttach: p.GetMultiAttach(), Extras: s.extrasOf(p), Unusable: p.GetUnusable(),
		},
	}
}

// extrasOf decodes a pool's extras. What cannot be decoded is left out: the pool
// then states nothing, and no profile that asks for something picks it.
func (s *sessions) extrasOf(p *dockpb.Pool) model.PoolExtras {
	if len(p.GetExtras()) == 0 {
		return model.PoolExtras{}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if d, ok := s.extras[p.GetId()]; ok && d.raw == string(p.GetExtras()) {
		return d.x
	}
	var x model.PoolExtras
	_ = json.Unmarshal(p.GetExtras(), &x)
	s.extras[p.GetId()] = decodedExtras{string(p.GetExtras()), x}
	return x
}

// Changed is closed when a dock comes or goes.
func (s *sessions) Changed() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.changed
}

func (s *sessions) fire() {
	s.mu.Lock()
	defer s.mu.Unlock()
	close(s.changed)
	s.changed = make(chan struct{})
}

// DockSeen is part of registry.Observer.
func (s *sessions) DockSeen(x registry.Session) {
	s.DockBeat(x)
	s.fire()
}

// DockBeat is part of registry.Observer; the controllers look every second.
func (s *sessions) DockBeat(x registry.Session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range x.Pools {
		s.figures[p.GetId()] = figures{x.ID(), model.Bytes(p.GetTotal()), model.Bytes(p.GetFree()), dockpb.ToFills(p.GetFills())}
	}
}

// DockGone is part of registry.Observer.
func (s *sessions) DockGone(id, _ string) {
	s.mu.Lock()
	for pool, f := range s.figures {
		if f.dock == id {
			delete(s.figures, pool)
		}
	}
	s.mu.Unlock()
	s.fire()
}

// view gives a pool's figures as they are now, for the API: statistics from the
// dock's last beat where it has a session here, else the record's.
func (s *sessions) view(st *db.Store, p *model.Pool) (total, free, reserved model.Bytes, status model.Status) {
	total, free, status = p.Total, p.Free, p.Status
	s.mu.Lock()
	if f, ok := s.figures[p.ID]; ok && f.dock == p.DockID {
		total, free = f.total, f.free
	}
	s.mu.Unlock()
	if a, ok := st.Ledger.Get(p.ID); ok {
		reserved = a.Reserved
	}
	return total, free, reserved, status
}

// fills gives what a pool's dock said last of its parts that can run full; nil if
// it has no session here.
func (s *sessions) fills(p *model.Pool) []model.Fill {
	s.mu.Lock()
	defer s.mu.Unlock()
	if f, ok := s.figures[p.ID]; ok && f.dock == p.DockID {
		return f.fills
	}
	return nil
}

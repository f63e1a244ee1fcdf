package api

import (
	"net/http"
	"slices"

	"github.com/gorilla/mux"

	"github.com/osds-io/osds/pkg/db"
	"github.com/osds-io/osds/pkg/model"
	"github.com/osds-io/osds/pkg/model/wire"
)

// routesDocks registers what docks bring with them: docks, pools and the zones
// of the pools. None of them can be changed here; docks register themselves.
func (s *Server) routesDocks(r *mux.Router) {
	s.tenantHandle(r, "/pools", methods{http.MethodGet: s.listPools})
	s.tenantHandle(r, "/pools/{poolId}", methods{http.MethodGet: s.getPool})
	s.tenantHandle(r, "/pools/{poolId}/importable", methods{http.MethodGet: adminOnly("the list of what could be imported", s.listImportable)})
	s.tenantHandle(r, "/docks", methods{http.MethodGet: s.listDocks})
	s.tenantHandle(r, "/docks/{dockId}", methods{http.MethodGet: s.getDock, http.MethodDelete: adminOnly("the removal of docks", s.deleteDock)})
	s.tenantHandle(r, "/availabilityZones", methods{http.MethodGet: s.listZones})
}

func showDock(d *model.Dock) any { return wire.FromDock(d) }

func (s *Server) listDocks(c *call) error { return list(c, s.Store.Docks, showDock) }

func (s *Server) getDock(c *call) error {
	id := c.pathID("dockId")
	d, ok := s.Store.Docks.Get(id)
	if !ok {
		return notFound("dock", id, "specified dock("+shorten(id)+") can't find")
	}
	return c.Record(http.StatusOK, d.Rev, wire.FromDock(d))
}

// deleteDock accepts the removal of a dock that is gone for good, with its pools
// and what is still owed on its backends; the controllers do it. It is refused
// for a dock that is there, and while records live in its pools.
func (s *Server) deleteDock(c *call) error {
	return c.change("api.dock.delete", func(t *db.Txn) (*answer, error) {
		id := c.pathID("dockId")
		d, ok := s.Store.Docks.Get(id)
		if !ok {
			return nil, notFound("dock", id, "specified dock("+shorten(id)+") can't find")
		}
		if err := c.ifMatch(d.Rev); err != nil {
			return nil, err
		}
		switch d.Status {
		case model.StatusDeleting:
			return &answer{status: http.StatusAccepted, rev: d.Rev}, nil
		case model.StatusUnavailable:
		default:
			return nil, model.Errorf(model.KindConflict, "dock %s is %s: stop it, and wait until it is unavailable", d.Name, d.Status)
		}
		if err := s.unusedPools(d); err != nil {
			return nil, err
		}
		n := d.Clone()
		n.Status, n.Reason, n.UpdatedAt = model.StatusDeleting, "", s.now()
		t.Update(n)
		return &answer{status: http.StatusAccepted}, nil
	})
}

// unusedPools is an error if a record lives in one of the dock's pools.
func (s *Server) unusedPools(d *model.Dock) error {
	if what := s.Store.UseOfDock(d.ID); what != "" {
		return model.Errorf(model.KindConflict, "dock %s still has records, such as %s: delete them first (attachments with force); what cannot be removed from the dead backend is owed then, and written off with the dock", d.Name, what)
	}
	return nil
}

// showPool shows a pool with its live figures, which are newer than the record.
func (s *Server) showPool(p *model.Pool) any {
	x := s.poolSpec(p)
	if s.PoolFills != nil {
		x.SetFills(s.PoolFills(p))
	}
	return x
}

func (s *Server) poolSpec(p *model.Pool) *wire.StoragePoolSpec {
	if s.PoolView == nil {
		var reserved model.Bytes
		if a, ok := s.Store.Ledger.Get(p.ID); ok {
			reserved = a.Reserved
		}
		return wire.FromPool(p, reserved)
	}
	live := p.Clone()
	var reserved model.Bytes
	live.Total, live.Free, reserved, live.Status = s.PoolView(p)
	return wire.FromPool(live, reserved)
}

func (s *Server) listPools(c *call) error { return list(c, s.Store.Pools, s.showPool) }

// getPool gives no entity tag: the figures change without the record.
func (s *Server) getPool(c *call) error {
	id := c.pathID("poolId")
	p, ok := s.Store.Pools.Get(id)
	if !ok {
		return notFound("pool", id, "specified pool("+shorten(id)+") can't find")
	}
	return c.JSON(http.StatusOK, s.showPool(p))
}

// listZones gives the zones of all pools, each once.
func (s *Server) listZones(c *call) error {
	zones := []string{}
	for _, p := range s.Store.Pools.All() {
		if p.AvailabilityZone != "" {
			zones = append(zones, p.AvailabilityZone)
		}
	}
	slices.Sort(zones)
	return c.JSON(http.StatusOK, slices.Compact(zones))
}

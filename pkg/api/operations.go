package api

import (
	"net/http"
	"net/url"
	"slices"
	"sort"
	"strconv"
	"strings"

	"github.com/gorilla/mux"

	"github.com/osds-io/osds/pkg/db"
	"github.com/osds-io/osds/pkg/model"
	"github.com/osds-io/osds/pkg/model/wire"
)

// routesOperations registers what administrators look at.
func (s *Server) routesOperations(r *mux.Router) {
	s.tenantHandle(r, "/doctor", methods{http.MethodGet: adminOnly("the doctor", s.runDoctor)})
	s.tenantHandle(r, "/ledger", methods{http.MethodGet: adminOnly("the ledger", s.listLedger)})
	s.tenantHandle(r, "/debts", methods{http.MethodGet: adminOnly("the list of debts", s.listDebts)})
}

// adminOnly refuses everybody else.
func adminOnly(what string, h handler) handler {
	return func(c *call) error {
		if !c.admin {
			return model.Errorf(model.KindDenied, "%s is for administrators", what)
		}
		return h(c)
	}
}

// runDoctor checks the invariants. What it finds is an answer, not an error.
func (s *Server) runDoctor(c *call) error {
	if s.Doctor == nil {
		return model.Errorf(model.KindUnavailable, "this server cannot check the invariants")
	}
	r, err := s.Doctor.Check(c.ctx)
	if err != nil {
		return err
	}
	c.rev = max(c.rev, r.Revision)
	return c.JSON(http.StatusOK, r)
}

func showDebt(d *model.Debt) any { return wire.FromDebt(d) }

func (s *Server) listDebts(c *call) error { return list(c, s.Store.Debts, showDebt) }

// listLedger gives every pool's account with what makes it up, all from one
// view of the records.
func (s *Server) listLedger(c *call) error {
	v, err := url.ParseQuery(c.r.URL.RawQuery)
	if err != nil {
		return model.Errorf(model.KindInvalid, "the query string is not well-formed: %w", err)
	}
	limit, err := number(v, "limit", db.MaxPage)
	if err != nil {
		return err
	}
	rows := s.accounts()
	if want := v["poolId"]; len(want) > 0 {
		rows = slices.DeleteFunc(rows, func(r *wire.LedgerSpec) bool { return !slices.Contains(want, r.PoolID) })
	}
	h := c.w.Header()
	h["X-Osds-Total-Count"] = []string{strconv.Itoa(len(rows))}
	hash := hashQuery(&db.Query{Sort: "ledger", Filters: []db.Filter{{Field: "poolId", Values: v["poolId"]}}})
	if m := v.Get("marker"); m != "" {
		at, err := parseMarker(m, hash)
		if err != nil {
			return err
		}
		rows = rows[sort.Search(len(rows), func(i int) bool { return rows[i].PoolID > at.ID }):]
	}
	if limit = min(limit, db.MaxPage); len(rows) > limit {
		rows = rows[:limit]
		if limit > 0 {
			h["X-Osds-Next-Marker"] = []string{marker{db.Cursor{ID: rows[limit-1].PoolID}, hash}.String()}
		}
	}
	return c.JSON(http.StatusOK, rows)
}

// accounts gives the ledger, ordered by pool. A pool that holds something is in
// it even if its account or its record is missing: that is what one looks for.
func (s *Server) accounts() []*wire.LedgerSpec {
	byPool := map[string]*wire.LedgerSpec{}
	row := func(id string) *wire.LedgerSpec {
		r, ok := byPool[id]
		if !ok {
			r = &wire.LedgerSpec{PoolID: id}
			byPool[id] = r
		}
		return r
	}
	for _, p := range s.Store.Pools.All() {
		total, free, _ := s.poolFigures(p)
		r := row(p.ID)
		r.PoolName, r.Total, r.Free, r.Limit = p.Name, int64(total), int64(free), int64(p.Limit())
	}
	s.Store.View(func(v db.View) {
		for _, a := range v.Accounts() {
			row(a.ID).Reserved = int64(a.Reserved)
		}
		for _, x := range v.Volumes() {
			if x.Reserved != 0 {
				row(x.PoolID).Volumes += int64(x.Reserved)
			}
		}
		for _, x := range v.Snapshots() {
			if x.Reserved != 0 {
				row(x.PoolID).Snapshots += int64(x.Reserved)
			}
		}
		for _, x := range v.Debts() {
			if x.Reserved != 0 {
				row(x.PoolID).Debts += int64(x.Reserved)
			}
		}
	})
	out := make([]*wire.LedgerSpec, 0, len(byPool))
	for id, r := range byPool {
		if *r == (wire.LedgerSpec{PoolID: id}) {
			continue // the empty account of a pool that was removed
		}
		out = append(out, r)
	}
	slices.SortFunc(out, func(a, b *wire.LedgerSpec) int { return strings.Compare(a.PoolID, b.PoolID) })
	return out
}

// poolFigures gives a pool's figures, live ones where there are any.
func (s *Server) poolFigures(p *model.Pool) (total, free model.Bytes, status model.Status) {
	if s.PoolView == nil {
		return p.Total, p.Free, p.Status
	}
	total, free, _, status = s.PoolView(p)
	return total, free, status
}

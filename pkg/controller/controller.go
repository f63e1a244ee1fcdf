// Package controller runs the work of osds: whoever is elected leader places
// volumes, drives the docks, and keeps docks and pools in view. Its parts are in
// the packages below it; this one wires them for a term of leadership.
package controller

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/sirupsen/logrus"
	"golang.org/x/sync/errgroup"

	"github.com/osds-io/osds/pkg/controller/attachment"
	"github.com/osds-io/osds/pkg/controller/debt"
	"github.com/osds-io/osds/pkg/controller/fleet"
	"github.com/osds-io/osds/pkg/controller/group"
	"github.com/osds-io/osds/pkg/controller/ledger"
	"github.com/osds-io/osds/pkg/controller/selector"
	"github.com/osds-io/osds/pkg/controller/snapshot"
	"github.com/osds-io/osds/pkg/controller/steps"
	"github.com/osds-io/osds/pkg/controller/task"
	"github.com/osds-io/osds/pkg/controller/volume"
	"github.com/osds-io/osds/pkg/db"
	"github.com/osds-io/osds/pkg/model"
)

// Config is what a controller needs.
type Config struct {
	Store     *db.Store
	Dialer    fleet.Dialer
	Sessions  fleet.Sessions
	ClusterID string
	// Address is what the election shows as this process's.
	Address string
	// LeaseTTL is how long a dead leader holds the others up.
	LeaseTTL time.Duration
	// DockGrace is how long after a take-over docks may take to come.
	DockGrace time.Duration
	Limits    steps.Limits
	Log       *logrus.Entry
	Now       func() time.Time
}

// Controller campaigns for leadership and works while it leads.
type Controller struct {
	c       Config
	elector *db.Elector
	engine  atomic.Pointer[task.Engine]
}

// New makes a controller; Run starts it.
func New(c Config) *Controller {
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.DockGrace == 0 {
		c.DockGrace = 12 * time.Second
	}
	if c.Limits.Host == 0 {
		c.Limits.Host = steps.DefaultLimits().Host
	}
	k := &Controller{c: c}
	k.elector = &db.Elector{Store: c.Store, Address: c.Address, TTL: c.LeaseTTL, Lead: k.lead}
	return k
}

// Run works until the context ends.
func (k *Controller) Run(ctx context.Context) { k.elector.Run(ctx) }

// Leader gives who leads, as far as this process knows.
func (k *Controller) Leader() *db.LeaderInfo { return k.elector.Leader() }

// Leading says whether this process leads and works.
func (k *Controller) Leading() bool { return k.engine.Load() != nil }

// lead works for one term.
func (k *Controller) lead(ctx context.Context, term *db.Term) {
	c := k.c
	log := c.Log.WithField("epoch", term.Epoch)
	books, bad := ledger.New(c.Store.Ledger.All(), Counted(c.Store), c.Now)
	for _, m := range bad {
		log.WithFields(logrus.Fields{"pool": m.PoolID, "account": m.Account, "recount": m.Recount}).Error("the ledger differed from the records; the records hold")
	}
	term.Lane.SetLedger(books)
	fl := &fleet.Fleet{
		Store: c.Store, Term: term, Ledger: books, Dialer: c.Dialer, Sessions: c.Sessions,
		ClusterID: c.ClusterID, Log: log, Now: c.Now, Grace: c.DockGrace,
	}
	base := steps.Base{Store: c.Store, Fleet: fl, Limits: c.Limits, Now: c.Now}
	eng := &task.Engine{
		Store: c.Store, Term: term, Log: log, Now: c.Now, Release: books.Release,
		Handlers: map[model.Resource]task.Handler{
			model.ResVolume:     &volume.Handler{Base: base},
			model.ResSnapshot:   &snapshot.Handler{Base: base},
			model.ResAttachment: &attachment.Handler{Base: base},
			model.ResGroup:      &group.Handler{Base: base},
			model.ResDebt:       &debt.Handler{Base: base},
		},
	}
	fl.Back = eng.Kick
	stop := fl.Start()
	defer stop()
	if err := fl.Look(ctx); err != nil {
		if ctx.Err() == nil {
			log.WithError(err).Warn("the term of leadership ends early")
		}
		return
	}
	k.engine.Store(eng)
	defer k.engine.Store(nil)
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error { return fl.Run(gctx) })
	g.Go(func() error { return eng.Run(gctx) })
	if err := g.Wait(); err != nil && ctx.Err() == nil {
		log.WithError(err).Warn("the term of leadership ends early")
	}
}

// Counted is everything that holds space in a pool.
func Counted(s *db.Store) []ledger.Counted {
	var out []ledger.Counted
	s.View(func(v db.View) {
		for _, x := range v.Volumes() {
			out = append(out, ledger.Counted{PoolID: x.PoolID, Bytes: x.Reserved})
		}
		for _, x := range v.Snapshots() {
			out = append(out, ledger.Counted{PoolID: x.PoolID, Bytes: x.Reserved})
		}
		for _, x := range v.Debts() {
			out = append(out, ledger.Counted{PoolID: x.PoolID, Bytes: x.Reserved})
		}
	})
	return out
}

// Planner explains placements in any osdslet, leader or not: it evaluates what
// the leader would, on the ledger as the store has it.
type Planner struct {
	Store *db.Store
	Now   func() time.Time
}

// Explain says where a volume would go, and why; nothing is reserved.
func (p *Planner) Explain(_ context.Context, v *model.Volume, maxPools int) (*model.Explanation, error) {
	r, err := volume.Request(p.Store, v)
	if err != nil {
		return nil, err
	}
	plan, err := selector.Compile(r)
	if err != nil {
		return nil, err
	}
	pools := p.Store.Pools.All()
	cands := make([]selector.Candidate, len(pools))
	for i, x := range pools {
		cands[i] = selector.Candidate{Pool: x, Attrs: selector.NewAttrs(x), Volumes: p.Store.Volumes.Count("poolId", x.ID)}
		if a, ok := p.Store.Ledger.Get(x.ID); ok {
			cands[i].Reserved = a.Reserved
		}
	}
	ex := plan.Explain(cands, maxPools, p.Store.Rev(), p.Now().UTC())
	ex.ProfileID, ex.ProfileName = r.Profile.ID, r.Profile.Name
	return ex, nil
}

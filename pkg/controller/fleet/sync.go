package fleet

import (
	"context"
	"math"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/osds-io/osds/pkg/db"
	"github.com/osds-io/osds/pkg/model"
)

// Run keeps the dock and pool records in step with the sessions until the
// context ends. An error means that the term is to end.
func (f *Fleet) Run(ctx context.Context) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		changed := f.Sessions.Changed()
		if err := f.Look(ctx); err != nil {
			return err
		}
		select {
		case <-changed:
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// Look is one round of Run, before anything asks for a dock: what is resumed at
// the start of a term then finds the docks that are there. An error means that
// the term is to end.
func (f *Fleet) Look(ctx context.Context) error {
	err := f.reconcile(ctx)
	if err != nil && !model.IsKind(err, model.KindStale) && ctx.Err() == nil {
		f.Log.WithError(err).Warn("docks and pools: trying again")
		return nil
	}
	return err
}

// reconcile writes what changed since the last time.
func (f *Fleet) reconcile(ctx context.Context) error {
	live := map[string]bool{}
	for _, s := range f.Sessions.Live() {
		if s.Epoch > f.Term.Epoch {
			return f.Term.RaiseEpoch(ctx, s.Epoch)
		}
		live[s.DockID] = true
		if err := f.seen(ctx, s); err != nil {
			return err
		}
	}
	f.mu.Lock()
	back := false
	for id := range live {
		back = back || !f.live[id]
	}
	f.live = live
	f.mu.Unlock()
	if back && f.Back != nil {
		f.Back()
	}
	for _, d := range f.Store.Docks.All() {
		if live[d.ID] || f.Now().Sub(f.started) < f.Grace {
			continue
		}
		away := f.lost
		if d.Status == model.StatusDeleting {
			away = f.remove
		}
		if err := away(ctx, d); err != nil {
			return err
		}
	}
	return nil
}

// seen writes a dock's record and those of its pools where they differ from what
// the dock reports.
func (f *Fleet) seen(ctx context.Context, s Session) error {
	now := f.Now().UTC()
	want := &model.Dock{
		Meta: model.Meta{ID: s.DockID, Name: s.Name, CreatedAt: now},
		Type: s.Type, Status: model.StatusAvailable, Endpoint: s.Endpoint, NodeID: s.NodeID,
		DriverName: driverNames(s.Backends), Version: s.Version, Metadata: s.Metadata,
		Initiators: s.Initiators, Addresses: s.Addresses,
	}
	if why := s.OutOfService[connectorOut]; why != "" {
		want.Reason = "attaching on this host is out of service: " + why
	}
	if have, ok := f.Store.Docks.Get(s.DockID); ok {
		want.CreatedAt, want.UpdatedAt, want.Rev, want.Description = have.CreatedAt, have.UpdatedAt, have.Rev, have.Description
		if !reflect.DeepEqual(want, have) {
			want.UpdatedAt = now
			if have.Status != model.StatusAvailable {
				f.Log.WithField("dock", s.Name).Info("dock is back")
			}
			if err := f.write(ctx, "dock.update", want); err != nil {
				return err
			}
		}
	} else {
		f.Log.WithField("dock", s.Name).WithField("endpoint", s.Endpoint).Info("new dock")
		if err := f.write(ctx, "dock.create", want); err != nil {
			return err
		}
	}
	return f.seenPools(ctx, s)
}

// connectorOut is the connector's name among what a dock has out of service; no
// backend can have it.
const connectorOut = "(connector)"

func (f *Fleet) seenPools(ctx context.Context, s Session) error {
	now := f.Now().UTC()
	reported := map[string]bool{}
	for i := range s.Pools {
		want := poolRecord(&s, &s.Pools[i], now)
		reported[want.ID] = true
		have, ok := f.Store.Pools.Get(want.ID)
		if ok {
			if have.DockID != s.DockID && f.dockLive(have.DockID) {
				continue // served by another dock already; the first one keeps it
			}
			want.CreatedAt, want.UpdatedAt, want.Rev = have.CreatedAt, have.UpdatedAt, have.Rev
			total := want.Total
			if !poolMoved(have, want) {
				// What was imported counts from now on, however little it is.
				if total <= have.Total || f.Ledger.Used(want.ID) <= have.Limit() {
					continue
				}
				want.Total = total
			}
			want.UpdatedAt = now
		}
		if err := f.write(ctx, "pool.write", want); err != nil {
			return err
		}
	}
	for _, p := range f.Store.Pools.Where("dockId", s.DockID, 0) {
		if reported[p.ID] || p.Status == model.StatusUnavailable {
			continue
		}
		why := "the dock does not report this pool any more"
		if r, ok := s.OutOfService[p.Backend]; ok {
			why = "backend " + p.Backend + " is out of service: " + r
		}
		if err := f.poolDown(ctx, p, why); err != nil {
			return err
		}
	}
	return nil
}

func (f *Fleet) dockLive(id string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.live[id]
}

func poolRecord(s *Session, p *Pool, now time.Time) *model.Pool {
	w := &model.Pool{
		Meta:   model.Meta{ID: p.ID, Name: p.Name, Description: p.Description, CreatedAt: now},
		DockID: s.DockID, Backend: p.Backend, Driver: p.Driver, Status: model.StatusAvailable,
		AvailabilityZone: reasonOr(p.AvailabilityZone, "default"), StorageType: reasonOr(p.StorageType, "block"),
		Total: p.Total, Free: p.Free, OverProvisioning: p.OverProvisioning, MultiAttach: p.MultiAttach,
		Extras: p.Extras, Abilities: p.Abilities,
	}
	if p.Unusable != "" {
		w.Status, w.Reason = model.StatusUnavailable, p.Unusable
	}
	return w
}

// poolMoved says whether a pool's record is to be written. Statistics change all
// the time and are written only when they moved by more than a hundredth of the
// pool (what is free: by a twentieth).
func poolMoved(have, want *model.Pool) bool {
	total := math.Max(float64(have.Total), 1)
	if math.Abs(float64(want.Total-have.Total)) > total/100 || math.Abs(float64(want.Free-have.Free)) > total/20 {
		return true
	}
	// Within the threshold the record keeps its figures, so that a pool's
	// limit does not flutter with every file of others.
	w := *want
	w.Total, w.Free = have.Total, have.Free
	if !reflect.DeepEqual(&w, have) {
		want.Total, want.Free = have.Total, have.Free
		return true
	}
	return false
}

// lost marks a dock and its pools unavailable; their volumes keep their records.
// It is called in every round as long as the dock is gone: the writes are one by
// one, and the term may end, or one of them collide, between them.
func (f *Fleet) lost(ctx context.Context, d *model.Dock) error {
	why := "no heart-beat; last known at " + d.Endpoint
	if d.Status != model.StatusUnavailable {
		f.Log.WithField("dock", d.Name).Warn("dock is gone: " + why)
		n := d.Clone()
		n.Status, n.Reason, n.UpdatedAt = model.StatusUnavailable, why, f.Now().UTC()
		if err := f.write(ctx, "dock.lost", n); err != nil {
			return err
		}
	}
	for _, p := range f.Store.Pools.Where("dockId", d.ID, 0) {
		if p.Status == model.StatusUnavailable {
			continue
		}
		if err := f.poolDown(ctx, p, "dock "+d.Name+" is gone: "+why); err != nil {
			return err
		}
	}
	return nil
}

// removeBatch is how many records one transaction of a dock's removal takes away.
const removeBatch = 50

// remove takes away a dock that an administrator gave up: what is owed on its
// backends, its pools, and then the dock itself. Each transaction depends on the
// dock's record: if the dock comes back in the middle, the rest stays.
func (f *Fleet) remove(ctx context.Context, d *model.Dock) error {
	if what := f.Store.UseOfDock(d.ID); what != "" {
		n := d.Clone()
		n.Status, n.Reason, n.UpdatedAt = model.StatusUnavailable, "not removed: there is "+what, f.Now().UTC()
		return f.write(ctx, "dock.kept", n)
	}
	for {
		t := &db.Txn{Label: "dock.remove"}
		debts := f.Store.Debts.Where("dockId", d.ID, removeBatch)
		for _, x := range debts {
			t.Remove(x).Account(x.PoolID, -x.Reserved)
		}
		if len(debts) == 0 {
			for _, p := range f.Store.Pools.Where("dockId", d.ID, removeBatch) {
				t.Remove(p)
			}
		}
		last := len(t.Ops) == 0
		if last {
			t.Remove(d)
		} else {
			t.If(db.Key(model.ResDock, d.ID), d.Rev)
		}
		if done, err := f.commit(ctx, f.Term.Lane, t); err != nil || !done {
			return err
		}
		for _, x := range debts {
			f.Log.WithFields(logrus.Fields{"dock": d.Name, "pool": x.PoolID, "resource": x.Resource, "object": x.ObjectID, "bytes": int64(x.Reserved)}).
				Warn("a debt is written off with its dock: what it stood for may still be on the backend")
		}
		if last {
			f.Log.WithField("dock", d.Name).Info("dock is removed")
			return nil
		}
	}
}

func (f *Fleet) poolDown(ctx context.Context, p *model.Pool, why string) error {
	n := p.Clone()
	n.Status, n.Reason, n.UpdatedAt = model.StatusUnavailable, why, f.Now().UTC()
	return f.write(ctx, "pool.lost", n)
}

// write commits one record and waits until the cache shows it, so that the next
// round compares with it.
func (f *Fleet) write(ctx context.Context, label string, r model.Record) error {
	_, err := f.commit(ctx, f.Term.Side, (&db.Txn{Label: label}).Update(r))
	return err
}

// commit commits a transaction and waits until the cache shows it; false if it
// collided with another change, which the cache shows then: what it was about is
// looked at again in the next round.
func (f *Fleet) commit(ctx context.Context, lane *db.Lane, t *db.Txn) (bool, error) {
	rev, err := lane.Commit(ctx, t)
	if c, ok := err.(*db.ErrConflict); ok {
		return false, f.Store.WaitRev(ctx, c.Rev)
	}
	if err != nil {
		return false, err
	}
	return true, f.Store.WaitRev(ctx, rev)
}

func driverNames(backends []string) string {
	var names []string
	for _, b := range backends {
		_, d, _ := strings.Cut(b, ":")
		if d != "" && !slices.Contains(names, d) {
			names = append(names, d)
		}
	}
	return strings.Join(names, ",")
}

package controller

import (
	"context"

	"github.com/osds-io/osds/pkg/controller/fleet"
	"github.com/osds-io/osds/pkg/db"
	"github.com/osds-io/osds/pkg/drivers"
	"github.com/osds-io/osds/pkg/model"
	"github.com/osds-io/osds/pkg/model/wire"
)

// Finder asks docks for what could be imported. It only reads, so that any
// osdslet may.
type Finder struct {
	Store  *db.Store
	Dialer fleet.Dialer
}

// Importable lists what a pool has that osds has not made, in pages ordered by
// name.
func (f *Finder) Importable(ctx context.Context, poolID, after string, limit int) ([]*wire.ImportableSpec, error) {
	p, ok := f.Store.Pools.Get(poolID)
	if !ok {
		return nil, model.Errorf(model.KindNotFound, "pool %s is not known", poolID)
	}
	if !p.Can(model.AbilityImport) {
		return nil, model.Errorf(model.KindUnsupported, "pool %s cannot import volumes", p.Name)
	}
	d, ok := f.Store.Docks.Get(p.DockID)
	if !ok || d.Status != model.StatusAvailable {
		return nil, model.Errorf(model.KindUnavailable, "the dock of pool %s is not there", p.Name)
	}
	r, err := f.Dialer.Dial(d.Endpoint)
	if err != nil {
		return nil, model.Errorf(model.KindUnavailable, "dock %s (%s): %w", d.Name, d.Endpoint, err)
	}
	list, err := r.ListImportable(ctx, fleet.Call{}, p.Backend, p.Name, drivers.Page{After: after, Limit: limit})
	if err != nil {
		return nil, err
	}
	out := make([]*wire.ImportableSpec, 0, len(list))
	for _, x := range list {
		out = append(out, &wire.ImportableSpec{Name: x.Name, PoolID: p.ID, Size: x.Size.GBCeil(), Bytes: int64(x.Size), Obstacle: x.Obstacle})
	}
	return out, nil
}

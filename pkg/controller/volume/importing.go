package volume

import (
	"context"

	"github.com/osds-io/osds/pkg/controller/fleet"
	"github.com/osds-io/osds/pkg/controller/task"
	"github.com/osds-io/osds/pkg/db"
	"github.com/osds-io/osds/pkg/drivers"
	"github.com/osds-io/osds/pkg/model"
)

// This file is about volumes that the backend had before osds: they are taken over
// where they are, with their data. Whatever goes wrong on the way, they are given
// back and never deleted.

// placeImport asks the backend for the volume that is to be imported, and reserves
// its size. It counts against the limit as any other, but the pool's total grows
// with it: until now its space was others'.
func (h *Handler) placeImport(ctx context.Context, j *task.Job, v *model.Volume) error {
	found, err := h.find(ctx, v)
	if err == nil && found.Obstacle != "" {
		err = model.Errorf(model.KindConflict, "%s cannot be imported: %s", v.Existing, found.Obstacle)
		return h.fail(j, err)
	}
	if err != nil {
		if h.WaitOn(v.Task, err) {
			return err
		}
		return h.fail(j, err)
	}
	p, ok := h.Fleet.Pool(v.RequestedPoolID)
	if !ok {
		return h.fail(j, model.Errorf(model.KindNotFound, "pool %s is gone", v.RequestedPoolID))
	}
	limit := p.Limit() + grown(found.Adds, p.OverProvisioning)
	var full error
	err = task.Advance(j, "volume.placeimport", func(v *model.Volume, t *db.Txn) error {
		if full = h.Fleet.Ledger.Reserve(p.ID, found.Size, limit); full != nil {
			return full
		}
		t.Account(p.ID, found.Size)
		v.PoolID, v.Size, v.Reserved = p.ID, found.Size, found.Size
		v.Task.Begin(model.StepProvision, h.Now())
		return nil
	})
	if full != nil {
		return h.fail(j, model.Errorf(model.KindExhausted, "%s has %s: %w; nothing was imported", v.Existing, found.Size, full))
	}
	return err
}

// grown is by how much a pool's limit grows with its total.
func grown(n model.Bytes, ratio float64) model.Bytes {
	return (&model.Pool{Total: n, OverProvisioning: ratio}).Limit()
}

// Bounds of the search for a volume to be imported.
const (
	findPage  = 1000
	findPages = 100
)

// find looks for the volume among those of its pool that could be imported.
func (h *Handler) find(ctx context.Context, v *model.Volume) (drivers.Importable, error) {
	tg, err := h.Fleet.Target(v.RequestedPoolID)
	if err != nil {
		return drivers.Importable{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, h.Limits.Call)
	defer cancel()
	after := ""
	for range findPages {
		list, err := tg.ListImportable(ctx, fleet.Call{ClusterID: h.Fleet.ClusterID}, tg.Backend, tg.Pool.Name, drivers.Page{After: after, Limit: findPage})
		if err != nil {
			return drivers.Importable{}, err
		}
		for _, x := range list {
			if x.Name == v.Existing {
				return x, nil
			}
		}
		if len(list) < findPage {
			break
		}
		after = list[len(list)-1].Name
	}
	return drivers.Importable{}, model.Errorf(model.KindNotFound, "pool %s has no volume %q that could be imported", tg.Pool.Name, v.Existing)
}

// takeOver asks the dock to import the volume. One that has another size by now is
// not what was reserved.
func (h *Handler) takeOver(ctx context.Context, v *model.Volume) (drivers.Volume, error) {
	tg, err := h.Fleet.Target(v.PoolID)
	if err != nil {
		return drivers.Volume{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, h.Limits.Call)
	defer cancel()
	got, err := tg.ImportVolume(ctx, h.Fleet.Call(v.Task), tg.Backend, drivers.ImportVolume{
		ID: v.ID, Pool: tg.Pool.Name, Existing: v.Existing, TenantID: v.TenantID, ClusterID: h.Fleet.ClusterID,
	})
	if err == nil && got.Size != v.Size {
		return got, model.Errorf(model.KindInvalid, "%s had %s and has %s now: import it again", v.Existing, v.Size, got.Size)
	}
	return got, err
}

// letGo asks the dock to give a volume back with its data; nil means that it is
// seen not to be ours any more.
func (h *Handler) letGo(ctx context.Context, v *model.Volume) error {
	tg, err := h.Fleet.Target(v.PoolID)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, h.Limits.Call)
	defer cancel()
	return tg.ReleaseVolume(ctx, h.Fleet.Call(v.Task), tg.Backend, *ref(v, tg))
}

// Package debt settles what could not be removed from a backend in time. It
// tries for as long as it takes: a debt ends when the backend says that the
// object is gone.
package debt

import (
	"context"

	"github.com/osds-io/osds/pkg/controller/steps"
	"github.com/osds-io/osds/pkg/controller/task"
	"github.com/osds-io/osds/pkg/db"
	"github.com/osds-io/osds/pkg/dock/client"
	"github.com/osds-io/osds/pkg/drivers"
	"github.com/osds-io/osds/pkg/model"
)

// Handler settles debts.
type Handler struct{ steps.Base }

var _ task.Handler = (*Handler)(nil)

// Class queues debts apart, by dock.
func (h *Handler) Class(rec model.Tasked) task.Class {
	d := rec.(*model.Debt)
	c := h.Bulk(d.PoolID)
	if d.Resource == model.ResDevice {
		c = h.OnHost(d.DockID)
	}
	c.Name, c.Limit = "debt-"+c.Name, 8
	return c
}

// Step tries to settle the debt.
func (h *Handler) Step(ctx context.Context, j *task.Job) error {
	d := j.Rec.(*model.Debt)
	if err := h.settle(ctx, d); err != nil {
		return err
	}
	return task.Drop(j, "debt.settled", func(d *model.Debt, t *db.Txn) error {
		t.Account(d.PoolID, -d.Reserved)
		return nil
	})
}

func (h *Handler) settle(ctx context.Context, d *model.Debt) error {
	if d.Resource == model.ResDevice {
		return h.giveUpDevice(ctx, d)
	}
	tg, err := h.Fleet.Target(d.PoolID)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, h.Limits.Call)
	defer cancel()
	call := h.Fleet.Call(d.Task)
	switch d.Resource {
	case model.ResVolume:
		v := drivers.VolumeRef{ID: d.ObjectID, Pool: tg.Pool.Name, BackendData: d.BackendData}
		if d.Release {
			return tg.ReleaseVolume(ctx, call, tg.Backend, v)
		}
		return tg.DeleteVolume(ctx, call, tg.Backend, v)
	case model.ResSnapshot:
		return tg.DeleteSnapshot(ctx, call, tg.Backend, drivers.SnapshotRef{ID: d.ObjectID, VolumeID: d.VolumeID, Pool: tg.Pool.Name, BackendData: d.BackendData})
	case model.ResAttachment:
		return tg.Unexport(ctx, call, tg.Backend, drivers.ExportRef{
			AttachmentID: d.ObjectID, Volume: drivers.VolumeRef{ID: d.VolumeID, Pool: tg.Pool.Name, BackendData: d.BackendData}, Force: d.Force,
		})
	}
	return model.Errorf(model.KindInternal, "a debt for %q, which nobody knows", d.Resource)
}

// giveUpDevice has a host that was cut off, or did not answer, give up its device.
func (h *Handler) giveUpDevice(ctx context.Context, d *model.Debt) error {
	host, err := h.Fleet.Host(d.DockID)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, h.Limits.Call)
	defer cancel()
	r := client.DetachRequest{AttachmentID: d.ObjectID, VolumeID: d.VolumeID, Force: true}
	if d.Connection != nil {
		r.Connection = *d.Connection
	}
	return host.Detach(ctx, h.Fleet.Call(d.Task), r)
}

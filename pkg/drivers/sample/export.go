package sample

import (
	"context"
	"fmt"

	"go.etcd.io/bbolt"

	"github.com/osds-io/osds/pkg/drivers"
	"github.com/osds-io/osds/pkg/model"
)

// Export records an export and gives the connection that the original's sample
// driver gives. Nothing listens at its address.
func (d *Driver) Export(ctx context.Context, r drivers.Export) (model.Connection, error) {
	if err := r.Check(); err != nil {
		return model.Connection{}, err
	}
	err := d.change(ctx, opExport, func(tx *bbolt.Tx) error {
		v, err := d.needVolume(tx, r.Volume)
		if err != nil {
			return err
		}
		want := export{Volume: r.Volume.ID, Pool: v.Pool, Host: r.Host.HostName, ReadOnly: r.ReadOnly, Multi: r.MultiAttach, QoS: r.QoS}
		have, ok, err := get[export](tx, bExports, r.AttachmentID)
		if err != nil {
			return err
		}
		if ok {
			if have.Volume != want.Volume || have.ReadOnly != want.ReadOnly {
				return model.Errorf(model.KindExists, "attachment %s is there already, of volume %s, read-only %t", r.AttachmentID, have.Volume, have.ReadOnly)
			}
			return nil
		}
		if err := d.can(v.Pool, model.AbilityExport); err != nil {
			return err
		}
		if err := d.mayShare(tx, r, v); err != nil {
			return err
		}
		if err := tx.Bucket(bExportsOf).Put(pair(r.Volume.ID, r.AttachmentID), nil); err != nil {
			return err
		}
		return put(tx, bExports, r.AttachmentID, want)
	})
	if err != nil {
		return model.Connection{}, err
	}
	return model.Connection{Type: "iscsi", Data: map[string]any{
		"discard":          false,
		"targetDiscovered": true,
		"targetIqn":        target(r.Volume.ID),
		"targetPortal":     "127.0.0.1:3260",
	}}, nil
}

func target(volumeID string) string { return "iqn.2017-10.io.opensds:volume:" + volumeID }

// mayShare refuses a second export unless the pool, this export and those that
// are there already all allow it.
func (d *Driver) mayShare(tx *bbolt.Tx, r drivers.Export, v volume) error {
	a := firstOf(tx, bExportsOf, r.Volume.ID)
	if a == "" {
		return nil
	}
	other, _, err := get[export](tx, bExports, a)
	if err != nil {
		return err
	}
	if !r.MultiAttach || !other.Multi || !d.pools[v.Pool].MultiAttach {
		return model.Errorf(model.KindBusy, "volume %s is exported already, by attachment %s, and is not multi-attach", r.Volume.ID, a)
	}
	return nil
}

// detail describes an export to people.
func detail(e export) string {
	s := target(e.Volume)
	if e.QoS.MaxIOPS > 0 {
		s += fmt.Sprintf(", at most %d IOPS", e.QoS.MaxIOPS)
	}
	if e.QoS.MaxBytesPerSecond > 0 {
		s += fmt.Sprintf(", at most %s/s", model.Bytes(e.QoS.MaxBytesPerSecond))
	}
	return s
}

// Unexport ends an export. Nobody is connected to a simulated one, so that force
// makes no difference.
func (d *Driver) Unexport(ctx context.Context, r drivers.ExportRef) error {
	if err := r.Check(); err != nil {
		return err
	}
	return d.change(ctx, opUnexport, func(tx *bbolt.Tx) error {
		if err := d.known(r.Volume.Pool); err != nil {
			return err
		}
		e, ok, err := get[export](tx, bExports, r.AttachmentID)
		if err != nil || !ok {
			return err
		}
		if r.Volume.ID != "" && r.Volume.ID != e.Volume {
			return model.Invalid("volumeId", "attachment %s is of volume %s, not of %s", r.AttachmentID, e.Volume, r.Volume.ID)
		}
		if err := tx.Bucket(bExportsOf).Delete(pair(e.Volume, r.AttachmentID)); err != nil {
			return err
		}
		return tx.Bucket(bExports).Delete([]byte(r.AttachmentID))
	})
}

// ListExports lists the exports by attachment id.
func (d *Driver) ListExports(ctx context.Context, p drivers.Page) ([]drivers.LiveExport, error) {
	var out []drivers.LiveExport
	err := d.act(ctx, opListExports, func() error {
		return page(d, bExports, p, func(id string, e export) {
			out = append(out, drivers.LiveExport{AttachmentID: id, VolumeID: e.Volume, Pool: e.Pool, Detail: detail(e)})
		})
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

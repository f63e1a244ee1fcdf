package doctor

import (
	"context"
	"fmt"
	"time"

	"github.com/osds-io/osds/pkg/controller/fleet"
	"github.com/osds-io/osds/pkg/dock/client"
	"github.com/osds-io/osds/pkg/drivers"
	"github.com/osds-io/osds/pkg/model"
	"github.com/osds-io/osds/pkg/model/wire"
)

// devicesOf lists what the host of a dock has attached.
func (d *Doctor) devicesOf(ctx context.Context, dock *model.Dock) (map[string]client.Device, error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	r, err := d.Dialer.Dial(dock.Endpoint)
	if err != nil {
		return nil, err
	}
	return collect(func(p drivers.Page) ([]client.Device, error) {
		return r.ListDevices(ctx, fleet.Call{}, p)
	}, func(x client.Device) string { return x.AttachmentID })
}

// attached lists the devices of every host that a dock attaches for, by dock. A
// host that is away and has nothing attached, as one that was given up, is not
// missed.
func (d *Doctor) attached(ctx context.Context, reach *wire.DoctorCheck) map[string]map[string]client.Device {
	out := map[string]map[string]client.Device{}
	used := map[string]bool{}
	for _, a := range d.Store.Attachments.All() {
		used[a.DockID] = true
	}
	for _, dock := range d.Store.Docks.All() {
		if !dock.Attaches() || dock.Status != model.StatusAvailable && !used[dock.ID] {
			continue
		}
		l, err := d.devicesOf(ctx, dock)
		if reach != nil {
			reach.Checked++
		}
		if err != nil {
			if reach != nil {
				reach.Add(fmt.Sprintf("dock %s (%s), the host's devices: %v", dock.Name, dock.Endpoint, err))
			}
			continue
		}
		out[dock.ID] = l
	}
	return out
}

// devices compares the devices of hosts with the attachments.
func (d *Doctor) devices(held map[string]map[string]client.Device, out map[suspicion]int64, counts map[string]*wire.DoctorCheck) {
	for dock, list := range held {
		for id, x := range list {
			count(counts, "devices")
			if d.owed(model.ResDevice, id) {
				continue
			}
			a, ok := d.Store.Attachments.Get(id)
			switch {
			case !ok:
				out[suspicion{"devices", fmt.Sprintf("device %s of volume %s on dock %s has no attachment (%s)", x.Path, x.VolumeID, dock, id)}] = 0
			case a.DockID != dock:
				out[suspicion{"devices", fmt.Sprintf("device %s of attachment %s is on dock %s, its record says %q", x.Path, id, dock, a.DockID)}] = a.Rev
			}
		}
	}
	for _, a := range d.Store.Attachments.All() {
		list, ok := held[a.DockID]
		if !ok || a.Status != model.StatusAvailable || a.Task.Active() {
			continue
		}
		v, _ := d.Store.Volumes.Get(a.VolumeID)
		switch x, ok := list[a.ID]; {
		case !ok:
			out[suspicion{"devices", fmt.Sprintf("attachment %s of volume %s is available and dock %s has no device of it", a.ID, a.VolumeID, a.DockID)}] = a.Rev
		case v != nil && x.Size > 0 && x.Size < v.Size && !v.Task.Active():
			out[suspicion{"devices", fmt.Sprintf("attachment %s: its host sees %s of volume %s, which has %s", a.ID, x.Size, v.ID, v.Size)}] = a.Rev
		}
	}
}

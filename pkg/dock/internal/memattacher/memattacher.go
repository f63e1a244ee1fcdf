// Package memattacher attaches in memory: what the tests of the dock call, where
// the subject is the way to a connector and not the connector.
package memattacher

import (
	"context"
	"slices"
	"strings"
	"sync"

	"github.com/osds-io/osds/pkg/dock"
	"github.com/osds-io/osds/pkg/dock/connector"
	"github.com/osds-io/osds/pkg/drivers"
	"github.com/osds-io/osds/pkg/model"
)

// Attacher keeps what is attached in memory.
type Attacher struct {
	// Hook, if set, is called at the beginning of each method, with its name and
	// the attachment; an error is the method's.
	Hook func(ctx context.Context, method, id string) error

	mu      sync.Mutex
	names   []model.Initiator
	devices map[string]connector.Device
	last    connector.Request
	grown   bool
	closed  bool
}

var _ dock.Attacher = (*Attacher)(nil)

// New makes one of a host with names.
func New(names ...model.Initiator) *Attacher {
	return &Attacher{names: names, devices: map[string]connector.Device{}}
}

// Open gives always this one.
func (a *Attacher) Open(_ context.Context, c connector.Config) (dock.Attacher, error) {
	if c.StateDir == "" {
		return nil, model.Errorf(model.KindInternal, "no state directory")
	}
	return a, nil
}

func (a *Attacher) hook(ctx context.Context, method, id string) error {
	if a.Hook != nil {
		return a.Hook(ctx, method, id)
	}
	return nil
}

// SetNames changes the host's names.
func (a *Attacher) SetNames(names ...model.Initiator) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.names = names
}

// Last is the request of the last Attach or Detach, Grown whether the last Resize
// was to grow the file system, Closed whether Close was called.
func (a *Attacher) Last() (r connector.Request, grown, closed bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.last, a.grown, a.closed
}

// Attach makes a device.
func (a *Attacher) Attach(ctx context.Context, r connector.Request) (connector.Device, error) {
	if err := a.hook(ctx, "Attach", r.AttachmentID); err != nil {
		return connector.Device{}, err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.last = r
	d := connector.Device{AttachmentID: r.AttachmentID, VolumeID: r.VolumeID, Path: "/dev/" + r.AttachmentID, Identity: "naa." + r.VolumeID, Size: r.Size, Detail: "one path"}
	a.devices[r.AttachmentID] = d
	return d, nil
}

// Detach takes a device away.
func (a *Attacher) Detach(ctx context.Context, r connector.Request) error {
	if err := a.hook(ctx, "Detach", r.AttachmentID); err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.last = r
	delete(a.devices, r.AttachmentID)
	return nil
}

// Resize grows a device.
func (a *Attacher) Resize(ctx context.Context, id string, size model.Bytes, growFS bool) (connector.Device, error) {
	if err := a.hook(ctx, "Resize", id); err != nil {
		return connector.Device{}, err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	d, ok := a.devices[id]
	if !ok {
		return d, model.Errorf(model.KindNotFound, "attachment %s is not here", id)
	}
	d.Size, a.grown = size, growFS
	a.devices[id] = d
	return d, nil
}

// List lists the devices.
func (a *Attacher) List(_ context.Context, p drivers.Page) ([]connector.Device, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	var out []connector.Device
	for id, d := range a.devices {
		if id > p.After {
			out = append(out, d)
		}
	}
	slices.SortFunc(out, func(x, y connector.Device) int { return strings.Compare(x.AttachmentID, y.AttachmentID) })
	return out[:min(len(out), p.Limit)], nil
}

// Initiators are the host's names.
func (a *Attacher) Initiators() []model.Initiator {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.names)
}

// Close notes that it was called.
func (a *Attacher) Close() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.closed = true
	return nil
}

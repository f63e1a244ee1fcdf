// Package drivers is the contract between the dock and what it drives. A driver
// implements Driver and as many of the abilities below as its backend has; the
// dock finds them by type assertion and publishes them as the pool's abilities.
//
// A driver is done when it passes package drivertest on its real backend.
package drivers

import (
	"context"

	"github.com/sirupsen/logrus"

	"github.com/osds-io/osds/pkg/model"
)

// Driver is what every backend can do.
//
// Rules for every method, here and in the abilities:
//   - The context has a deadline and is obeyed.
//   - Calls may be concurrent. The dock keeps calls on one object (volume,
//     snapshot) one at a time; calls on different objects come together.
//   - Objects are named by our ids and tagged as ours, so that ListVolumes
//     finds them after a crash at any point.
//   - Errors are *model.Error with a kind. notFound is answered only where the
//     backend itself said that the object is absent. unknownOutcome (or a
//     context error) means that it may or may not have happened; any other
//     kind means that nothing of it remains, or that the same call again will
//     finish or undo it.
//   - Work that takes longer than some seconds need not be done in one call: an
//     error made by InProgress says how far it is, and the same call again goes
//     on from there, also after a restart. Until it is whole it is as an
//     interrupted call leaves it. Work that is told of so must advance with each
//     call; it is given up, and undone, when it does not for long.
//   - A crash in the middle leaves what the same call again completes, or what
//     the matching delete removes.
type Driver interface {
	// Pools lists the pools with their statistics.
	Pools(ctx context.Context) ([]Pool, error)
	// CreateVolume makes a volume. The same id with the same size gives the
	// existing volume; with another size or source it is an exists error.
	// A volume that is being returned is whole: it never shows old data.
	CreateVolume(ctx context.Context, r CreateVolume) (Volume, error)
	// DeleteVolume removes a volume, and whatever an interrupted create left of
	// it. It is nil for one that is seen to be absent; busy for one that is
	// exported or has snapshots that need it.
	DeleteVolume(ctx context.Context, r VolumeRef) error
	// GetVolume tells the truth after an unknown outcome: the volume if it is
	// whole, notFound if there is none or only an unfinished part of one.
	GetVolume(ctx context.Context, r VolumeRef) (Volume, error)
	// ListVolumes lists everything of ours, finished or not, in pages ordered
	// by id.
	ListVolumes(ctx context.Context, p Page) ([]Volume, error)
	// Close ends the driver. No call comes after it.
	Close() error
}

// Expander grows volumes.
type Expander interface {
	// ExpandVolume grows a volume to at least size bytes; a volume that is as
	// large already is a success. Data is untouched, new space reads as zero.
	ExpandVolume(ctx context.Context, r VolumeRef, size model.Bytes) (Volume, error)
	// ExpandsOnline says whether a volume may grow while it is exported.
	ExpandsOnline() bool
}

// Snapshotter makes point-in-time copies in the volume's pool.
type Snapshotter interface {
	// CreateSnapshot is idempotent by id, like CreateVolume. A snapshot of a
	// volume in use is crash-consistent.
	CreateSnapshot(ctx context.Context, r CreateSnapshot) (Snapshot, error)
	// DeleteSnapshot is idempotent, like DeleteVolume. Volumes cloned from it
	// are not affected.
	DeleteSnapshot(ctx context.Context, r SnapshotRef) error
	// GetSnapshot gives a whole snapshot or notFound.
	GetSnapshot(ctx context.Context, r SnapshotRef) (Snapshot, error)
	// ListSnapshots lists all of ours in pages ordered by id.
	ListSnapshots(ctx context.Context, p Page) ([]Snapshot, error)
}

// Cloner makes a new, independent volume from a snapshot or another volume of
// the same pool; CreateVolume.Source says which. The new volume may be larger.
type Cloner interface {
	CloneVolume(ctx context.Context, r CreateVolume) (Volume, error)
}

// Reverter puts a volume that is not exported back to one of its snapshots. The
// snapshot stays, and so do later ones. The volume's size stays: bytes beyond
// the snapshot's size read as zero. Interrupted, it is completed by the same
// call again.
type Reverter interface {
	RevertVolume(ctx context.Context, v VolumeRef, s SnapshotRef) (Volume, error)
}

// GroupSnapshotter makes snapshots of several volumes of one pool at the same
// moment. A group snapshot is one object: it is whole with all of its volumes or
// not there, and its parts are no snapshots that Snapshotter knows.
type GroupSnapshotter interface {
	// CreateGroupSnapshot is idempotent by id, like CreateVolume. Volumes in use
	// are crash-consistent, each and with each other. A volume belongs to at
	// most one group that has snapshots; another one is busy.
	CreateGroupSnapshot(ctx context.Context, r CreateGroupSnapshot) (GroupSnapshot, error)
	// GetGroupSnapshot gives a whole group snapshot or notFound.
	GetGroupSnapshot(ctx context.Context, r GroupSnapshotRef) (GroupSnapshot, error)
	// DeleteGroupSnapshot is idempotent, like DeleteVolume.
	DeleteGroupSnapshot(ctx context.Context, r GroupSnapshotRef) error
	// RevertGroup puts all the volumes back, as RevertVolume does one; all of
	// them keep their sizes. Interrupted, it is completed by the same call again.
	RevertGroup(ctx context.Context, r GroupSnapshotRef) error
}

// Exporter makes a volume reachable from one host.
type Exporter interface {
	// Export is idempotent by attachment id. A second export of a volume that
	// is not multi-attach is busy.
	Export(ctx context.Context, r Export) (model.Connection, error)
	// Unexport ends the export; nil for one that is seen to be absent, busy
	// while the host (where the backend can tell) still has the device open.
	Unexport(ctx context.Context, r ExportRef) error
	// ListExports lists the live exports in pages ordered by attachment id.
	ListExports(ctx context.Context, p Page) ([]LiveExport, error)
}

// Importer takes over volumes that the backend has and osds has not made.
type Importer interface {
	// ListImportable lists what could be imported in a pool, in pages ordered by
	// name.
	ListImportable(ctx context.Context, pool string, p Page) ([]Importable, error)
	// ImportVolume makes an existing volume one of ours, with its data: named
	// and tagged as if it had been created. It is idempotent by id. One that is
	// in use, or belongs to osds already, is busy or exists. Interrupted, it is
	// completed by the same call again, and ReleaseVolume and DeleteVolume give
	// the volume back as it was; once it is whole, DeleteVolume deletes it.
	ImportVolume(ctx context.Context, r ImportVolume) (Volume, error)
	// ReleaseVolume ends that a volume is ours and leaves its data: it is named
	// as it was before it was imported, where that name is free, and can be
	// imported again. It is nil for one that is absent or not ours any more, and
	// busy for one that is exported or has snapshots that need it. What is not
	// whole is deleted, for it may show old data; but an interrupted import is
	// given back.
	ReleaseVolume(ctx context.Context, r VolumeRef) error
}

// Importable is a volume that could be imported.
type Importable struct {
	// Name is the backend's own, for ImportVolume.Existing.
	Name, Pool string
	Size       model.Bytes
	// Adds is by how much the pool's Total grows when it is imported: the space
	// that counts as others' until then.
	Adds model.Bytes
	// Obstacle says why it cannot be imported now; empty if it can.
	Obstacle string
}

// ImportVolume asks for an existing volume to be taken over.
type ImportVolume struct {
	ID, Pool            string
	Existing            string
	TenantID, ClusterID string
}

// Pool is one pool of a backend.
type Pool struct {
	// ID is a stable identity that the backend itself keeps (a volume group's
	// UUID, an id file in the directory), so that the pool is the same behind
	// another dock. Empty if there is none; the dock then derives one.
	ID   string
	Name string
	// Total is what osds may use: the space its volumes take and the free
	// space that is theirs, never what others have used.
	Total, Free model.Bytes
	// OverProvisioning is how many times Total may be promised; 1 if thick.
	OverProvisioning float64
	AvailabilityZone string
	StorageType      string // block
	Description      string
	MultiAttach      bool
	Extras           model.PoolExtras
	// Unusable says why nothing can be placed here now; empty if it can.
	Unusable string
	// Fills say how full parts of the pool are that can run full by themselves,
	// with the watermarks that the driver acts by.
	Fills []model.Fill
	// Lacks are abilities that the driver has but this pool has not.
	Lacks []string
}

// Page asks for at most Limit objects with ids after After.
type Page struct {
	After string
	Limit int
}

// VolumeRef names a volume: its id, its pool's name at the backend, and what the
// driver asked to be given back.
type VolumeRef struct {
	ID          string
	Pool        string
	BackendData map[string]string
}

// SnapshotRef names a snapshot.
type SnapshotRef struct {
	ID          string
	VolumeID    string
	Pool        string
	BackendData map[string]string
}

// Source is what a clone is made from: one of the two.
type Source struct {
	Snapshot *SnapshotRef
	Volume   *VolumeRef
	Size     model.Bytes
}

// CreateVolume asks for a volume. TenantID and ClusterID go into the tag.
type CreateVolume struct {
	ID, Name, Pool      string
	Size                model.Bytes
	TenantID, ClusterID string
	Source              *Source
	Profile             *model.Profile
}

// Volume is a volume as the backend has it.
type Volume struct {
	ID, Pool    string
	Size        model.Bytes
	BackendData map[string]string
	// DurableName is the identity that hosts see (a WWN, a serial number).
	DurableName, DurableFormat string
	TenantID, ClusterID        string
	// Incomplete marks, in lists, what an interrupted create left.
	Incomplete bool
}

// CreateSnapshot asks for a snapshot.
type CreateSnapshot struct {
	ID, Name            string
	Volume              VolumeRef
	TenantID, ClusterID string
}

// Snapshot is a snapshot as the backend has it.
type Snapshot struct {
	ID, VolumeID, Pool  string
	Size                model.Bytes
	BackendData         map[string]string
	TenantID, ClusterID string
	Incomplete          bool
}

// CreateGroupSnapshot asks for a snapshot of all of a group's volumes.
type CreateGroupSnapshot struct {
	ID, GroupID, Name, Pool string
	Volumes                 []VolumeRef
	TenantID, ClusterID     string
}

// GroupSnapshotRef names a group snapshot.
type GroupSnapshotRef struct{ ID, GroupID, Pool string }

// GroupSnapshot is a group snapshot as the backend has it.
type GroupSnapshot struct {
	ID, GroupID, Pool   string
	VolumeIDs           []string
	TenantID, ClusterID string
}

// Export asks for an export.
type Export struct {
	AttachmentID string
	Volume       VolumeRef
	MultiAttach  bool
	ReadOnly     bool
	Protocol     string // the pool's accessProtocol
	Host         model.Host
	QoS          QoS
}

// QoS bounds what a host may do to a volume; 0 is no bound. A driver that
// cannot hold a bound that is asked for answers unsupported.
type QoS struct {
	MaxIOPS           int64
	MaxBytesPerSecond int64
}

// ExportRef names an export.
type ExportRef struct {
	AttachmentID string
	Volume       VolumeRef
	// Force ends the export although its host is still connected: the host is
	// cut off first, so that nothing it sends later can reach the volume.
	Force bool
}

// LiveExport is an export as the backend has it.
type LiveExport struct {
	AttachmentID, VolumeID, Pool string
	// Detail is for people: the device, the target name.
	Detail string
}

// Config is what a driver is made from: the dock's entry for one backend.
type Config struct {
	// Backend is the dock's name for it, Path its driver YAML file.
	Backend, Path string
	// StateDir is a directory of the driver's own that survives restarts.
	StateDir string
	// ClusterID tags what is made.
	ClusterID string
	// Log is for what the operator should know and no answer says; may be nil.
	Log logrus.FieldLogger
}

// Factory opens a backend. An error keeps the backend out of service with a
// reason; the dock tries again.
type Factory func(ctx context.Context, c Config) (Driver, error)

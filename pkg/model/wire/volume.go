package wire

import (
	"maps"

	"github.com/osds-io/osds/pkg/model"
)

// VolumeSpec is a volume.
type VolumeSpec struct {
	Base
	TenantID              string            `json:"tenantId,omitempty"`
	UserID                string            `json:"userId,omitempty"`
	Name                  string            `json:"name,omitempty"`
	Description           string            `json:"description,omitempty"`
	GroupID               string            `json:"groupId,omitempty"`
	Size                  int64             `json:"size,omitempty"` // GB
	AvailabilityZone      string            `json:"availabilityZone,omitempty"`
	Status                model.Status      `json:"status,omitempty"`
	PoolID                string            `json:"poolId,omitempty"`
	ProfileID             string            `json:"profileId,omitempty"`
	Metadata              map[string]string `json:"metadata,omitempty"`
	SnapshotID            string            `json:"snapshotId,omitempty"`
	SnapshotFromCloud     bool              `json:"snapshotFromCloud,omitempty"`
	ReplicationID         string            `json:"replicationId,omitempty"`
	ReplicationDriverData map[string]string `json:"replicationDriverData,omitempty"`
	// AttachStatus is always empty and always there: a leak of the original's
	// that its clients may count on.
	AttachStatus string      `json:"AttachStatus"`
	MultiAttach  bool        `json:"multiAttach,omitempty"`
	Identifier   *Identifier `json:"identifier,omitempty"`

	// SourceVolumeID makes a volume a clone of another one.
	SourceVolumeID string `json:"sourceVolumeId,omitempty"`
	// Existing makes a volume of what the pool PoolID has under this name.
	Existing     string `json:"existing,omitempty"`
	StatusReason string `json:"statusReason,omitempty"`
	TaskID       string `json:"taskId,omitempty"`
}

// Identifier is what the hosts' operating systems see of a volume.
type Identifier struct {
	DurableName       string `json:"durableName,omitempty"`
	DurableNameFormat string `json:"durableNameFormat,omitempty"`
}

// reason is what a record says of its status: how far long work on it is, while
// there is any.
func reason(of string, t *model.Task) string {
	if s := t.Doing(); s != "" {
		return s
	}
	return of
}

// FromVolume shows a volume. Its metadata is the client's, with the driver's
// added; a client's key of the same name gives way. The result shares maps with
// the record: it is for encoding, not for changing.
func FromVolume(v *model.Volume) *VolumeSpec {
	s := &VolumeSpec{
		Base:             baseOf(&v.Meta),
		TenantID:         v.TenantID,
		UserID:           v.UserID,
		Name:             v.Name,
		Description:      v.Description,
		GroupID:          v.GroupID,
		Size:             v.Size.GBCeil(),
		AvailabilityZone: v.AvailabilityZone,
		Status:           v.Status,
		PoolID:           v.PoolID,
		ProfileID:        v.ProfileID,
		Metadata:         mergeMaps(v.Metadata, v.BackendData),
		SnapshotID:       v.SnapshotID,
		ReplicationID:    v.ReplicationID,
		MultiAttach:      v.MultiAttach,
		SourceVolumeID:   v.SourceVolumeID,
		Existing:         v.Existing,
		StatusReason:     reason(v.StatusReason, v.Task),
		TaskID:           taskID(v.Task),
	}
	if v.DurableName != "" {
		s.Identifier = &Identifier{DurableName: v.DurableName, DurableNameFormat: v.DurableFormat}
	}
	return s
}

// ExtendVolumeSpec is the body of a resize.
type ExtendVolumeSpec struct {
	NewSize int64 `json:"newSize"` // GB
	// GrowFileSystem asks the dock of the host that has the volume attached to
	// grow the file system on it too.
	GrowFileSystem bool `json:"growFileSystem,omitempty"`
}

// RevertSpec is the (optional) body of a snapshot's revert.
type RevertSpec struct {
	// VolumeID, if given, must be the snapshot's volume: a guard against
	// reverting the wrong one.
	VolumeID string `json:"volumeId,omitempty"`
}

// VolumeSnapshotSpec is a snapshot of a volume.
type VolumeSnapshotSpec struct {
	Base
	TenantID    string            `json:"tenantId,omitempty"`
	UserID      string            `json:"userId,omitempty"`
	Name        string            `json:"name,omitempty"`
	Description string            `json:"description,omitempty"`
	ProfileID   string            `json:"profileId,omitempty"`
	Size        int64             `json:"size,omitempty"` // GB; not before it is available
	Status      model.Status      `json:"status,omitempty"`
	VolumeID    string            `json:"volumeId,omitempty"`
	Metadata    map[string]string `json:"metadata,omitempty"`

	PoolID       string `json:"poolId,omitempty"`
	StatusReason string `json:"statusReason,omitempty"`
	TaskID       string `json:"taskId,omitempty"`
}

// FromSnapshot shows a snapshot; see FromVolume about its metadata.
func FromSnapshot(v *model.Snapshot) *VolumeSnapshotSpec {
	s := &VolumeSnapshotSpec{
		Base:         baseOf(&v.Meta),
		TenantID:     v.TenantID,
		UserID:       v.UserID,
		Name:         v.Name,
		Description:  v.Description,
		ProfileID:    v.ProfileID,
		Size:         v.Size.GBCeil(),
		Status:       v.Status,
		VolumeID:     v.VolumeID,
		Metadata:     mergeMaps(v.Metadata, v.BackendData),
		PoolID:       v.PoolID,
		StatusReason: v.StatusReason,
		TaskID:       taskID(v.Task),
	}
	// The size is known when the snapshot is: as in the original.
	if v.Status == model.StatusCreating {
		s.Size = 0
	}
	return s
}

// VolumeAttachmentSpec is the export of a volume to a host.
type VolumeAttachmentSpec struct {
	Base
	TenantID       string         `json:"tenantId,omitempty"`
	UserID         string         `json:"userId,omitempty"`
	HostID         string         `json:"hostId,omitempty"`
	VolumeID       string         `json:"volumeId,omitempty"`
	Status         model.Status   `json:"status,omitempty"`
	Mountpoint     string         `json:"mountpoint,omitempty"`
	AttachMode     string         `json:"attachMode,omitempty"` // ro or rw
	AccessProtocol string         `json:"accessProtocol,omitempty"`
	ConnectionInfo ConnectionInfo `json:"connectionInfo"`

	// DockID is the dock that made the device on the host; empty where the
	// host attaches by itself.
	DockID       string            `json:"dockId,omitempty"`
	Metadata     map[string]string `json:"metadata,omitempty"`
	StatusReason string            `json:"statusReason,omitempty"`
	TaskID       string            `json:"taskId,omitempty"`
}

// ConnectionInfo is what a host needs to reach an export.
type ConnectionInfo struct {
	DriverVolumeType     string         `json:"driverVolumeType,omitempty"`
	Data                 map[string]any `json:"data,omitempty"`
	AdditionalProperties map[string]any `json:"additionalProperties,omitempty"`
	// ExtraProperties is the swagger file's name for AdditionalProperties:
	// read, never written.
	ExtraProperties map[string]any `json:"extraProperties,omitempty"`
}

// Normalize moves what came under the swagger file's name to its place.
func (c *ConnectionInfo) Normalize() {
	if c.AdditionalProperties == nil {
		c.AdditionalProperties = c.ExtraProperties
	}
	c.ExtraProperties = nil
}

// devicePath is the key of a connection's data for the device on the host.
const devicePath = "devicePath"

// FromAttachment shows an attachment with its connection data, but without what
// the host logs in with: for lists, events and whatever is kept.
func FromAttachment(a *model.Attachment) *VolumeAttachmentSpec {
	return fromAttachment(a, a.Connection.WithoutSecrets())
}

// FromAttachmentWithSecrets shows an attachment to the one who attaches.
func FromAttachmentWithSecrets(a *model.Attachment) *VolumeAttachmentSpec {
	return fromAttachment(a, a.Connection)
}

func fromAttachment(a *model.Attachment, conn *model.Connection) *VolumeAttachmentSpec {
	s := &VolumeAttachmentSpec{
		Base:           baseOf(&a.Meta),
		TenantID:       a.TenantID,
		UserID:         a.UserID,
		HostID:         a.HostID,
		VolumeID:       a.VolumeID,
		Status:         a.Status,
		Mountpoint:     a.Mountpoint,
		AttachMode:     a.AttachMode,
		AccessProtocol: a.AccessProtocol,
		DockID:         a.DockID,
		Metadata:       a.Metadata,
		StatusReason:   a.StatusReason,
		TaskID:         taskID(a.Task),
	}
	// While the host's dock is at work the export is nothing to use yet.
	if conn == nil || a.Status == model.StatusCreating {
		return s
	}
	s.ConnectionInfo.DriverVolumeType, s.ConnectionInfo.Data = conn.Type, conn.Data
	if a.DevicePath != "" {
		data := make(map[string]any, len(conn.Data)+1)
		maps.Copy(data, conn.Data)
		data[devicePath] = a.DevicePath
		s.ConnectionInfo.Data = data
	}
	return s
}

// VolumeGroupSpec is a consistency group.
type VolumeGroupSpec struct {
	Base
	Name             string       `json:"name,omitempty"`
	Status           model.Status `json:"status,omitempty"`
	TenantID         string       `json:"tenantId,omitempty"`
	UserID           string       `json:"userId,omitempty"`
	Description      string       `json:"description,omitempty"`
	Profiles         []string     `json:"profiles,omitempty"`
	AvailabilityZone string       `json:"availabilityZone,omitempty"`
	// AddVolumes and RemoveVolumes are input only.
	AddVolumes     []string `json:"addVolumes,omitempty"`
	RemoveVolumes  []string `json:"removeVolumes,omitempty"`
	PoolID         string   `json:"poolId,omitempty"`
	GroupSnapshots []string `json:"groupSnapshots,omitempty"`

	StatusReason string `json:"statusReason,omitempty"`
	TaskID       string `json:"taskId,omitempty"`
}

// FromGroup shows a volume group.
func FromGroup(g *model.Group) *VolumeGroupSpec {
	return &VolumeGroupSpec{
		Base:             baseOf(&g.Meta),
		Name:             g.Name,
		Status:           g.Status,
		TenantID:         g.TenantID,
		UserID:           g.UserID,
		Description:      g.Description,
		Profiles:         g.Profiles,
		AvailabilityZone: g.AvailabilityZone,
		PoolID:           g.PoolID,
		StatusReason:     g.StatusReason,
		TaskID:           taskID(g.Task),
	}
}

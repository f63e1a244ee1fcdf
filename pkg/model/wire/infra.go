package wire

import (
	"github.com/osds-io/osds/pkg/model"
)

// DockSpec is the agent of a storage host.
type DockSpec struct {
	Base
	Type        string            `json:"type,omitempty"`
	Name        string            `json:"name,omitempty"`
	Description string            `json:"description,omitempty"`
	Status      model.Status      `json:"status,omitempty"`
	StorageType string            `json:"storageType,omitempty"`
	Endpoint    string            `json:"endpoint,omitempty"`
	NodeID      string            `json:"nodeId,omitempty"`
	DriverName  string            `json:"driverName,omitempty"`
	Metadata    map[string]string `json:"metadata,omitempty"`

	StatusReason string `json:"statusReason,omitempty"`
	Version      string `json:"version,omitempty"`
	// Initiators are its host's names on the storage networks: a dock with any
	// attaches for the host.
	Initiators []Initiator `json:"initiators,omitempty"`
}

// FromDock shows a dock.
func FromDock(d *model.Dock) *DockSpec {
	return &DockSpec{
		Base:         baseOf(&d.Meta),
		Type:         d.Type,
		Name:         d.Name,
		Description:  d.Description,
		Status:       d.Status,
		Endpoint:     d.Endpoint,
		NodeID:       d.NodeID,
		DriverName:   d.DriverName,
		Metadata:     d.Metadata,
		StatusReason: d.Reason,
		Version:      d.Version,
		Initiators:   fromInitiators(d.Initiators),
	}
}

// fromInitiators shows a host's names; never null.
func fromInitiators(list []model.Initiator) []Initiator {
	out := make([]Initiator, len(list))
	for i, x := range list {
		out[i] = Initiator{PortName: x.PortName, Protocol: x.Protocol}
	}
	return out
}

// StoragePoolSpec is a pool.
type StoragePoolSpec struct {
	Base
	Name                  string         `json:"name,omitempty"`
	Description           string         `json:"description,omitempty"`
	Status                model.Status   `json:"status,omitempty"`
	DockID                string         `json:"dockId,omitempty"`
	AvailabilityZone      string         `json:"availabilityZone,omitempty"`
	TotalCapacity         int64          `json:"totalCapacity,omitempty"` // GB
	FreeCapacity          int64          `json:"freeCapacity,omitempty"`  // GB
	ConsumedCapacity      int64          `json:"consumedCapacity,omitempty"`
	MultiAttach           bool           `json:"multiAttach"`
	StorageType           string         `json:"storageType,omitempty"`
	Extras                PoolExtrasSpec `json:"extras"`
	ReplicationType       string         `json:"replicationType,omitempty"`
	ReplicationDriverName string         `json:"replicationDriverName,omitempty"`

	// ReservedCapacity is what osds has promised, in GB; never more than
	// ProvisionedLimit, which is the total times OverProvisioningRatio.
	ReservedCapacity      int64    `json:"reservedCapacity"`
	ProvisionedLimit      int64    `json:"provisionedLimit"`
	OverProvisioningRatio float64  `json:"overProvisioningRatio,omitempty"`
	StatusReason          string   `json:"statusReason,omitempty"`
	Backend               string   `json:"backend,omitempty"`
	Driver                string   `json:"driver,omitempty"`
	Abilities             []string `json:"abilities,omitempty"`
	// Fills are of parts of the pool that can run full by themselves.
	Fills []FillSpec `json:"fills,omitempty"`
}

// FillSpec is how full a part of a pool is; the figures are from 0 to 1.
type FillSpec struct {
	model.Fill
	Watermark model.Watermark `json:"watermark"`
}

// SetFills shows a pool's live fills. What has reached a watermark is the reason
// of its status, unless there is a graver one.
func (s *StoragePoolSpec) SetFills(fills []model.Fill) {
	s.Fills = nil
	for _, f := range fills {
		s.Fills = append(s.Fills, FillSpec{f, f.Watermark()})
	}
	if s.StatusReason == "" {
		s.StatusReason = model.Warnings(fills)
	}
}

// PoolExtrasSpec is what a pool can do.
type PoolExtrasSpec struct {
	DataStorage    DataStorageSpec    `json:"dataStorage"`
	IOConnectivity IOConnectivitySpec `json:"ioConnectivity"`
	DataProtection DataProtectionSpec `json:"dataProtection"`
	Advanced       map[string]any     `json:"advanced,omitempty"`
	// CustomProperties is the swagger file's name for Advanced: read, never
	// written.
	CustomProperties map[string]any `json:"customProperties,omitempty"`
}

// Normalize moves what came under the swagger file's name to its place.
func (e *PoolExtrasSpec) Normalize() {
	if e.Advanced == nil {
		e.Advanced = e.CustomProperties
	}
	e.CustomProperties = nil
}

// FromPool shows a pool with what the ledger has reserved in it. Free space is
// rounded down and reserved space up, so that nobody counts on what is not
// there.
func FromPool(p *model.Pool, reserved model.Bytes) *StoragePoolSpec {
	ratio := p.OverProvisioning
	if ratio <= 0 {
		ratio = 1
	}
	return &StoragePoolSpec{
		Base:                  baseOf(&p.Meta),
		Name:                  p.Name,
		Description:           p.Description,
		Status:                p.Status,
		DockID:                p.DockID,
		AvailabilityZone:      p.AvailabilityZone,
		TotalCapacity:         p.Total.GBFloor(),
		FreeCapacity:          p.Free.GBFloor(),
		MultiAttach:           p.MultiAttach,
		StorageType:           p.StorageType,
		Extras:                FromExtras(&p.Extras),
		ReplicationType:       p.ReplicationType,
		ReplicationDriverName: p.ReplicationName,
		ReservedCapacity:      reserved.GBCeil(),
		ProvisionedLimit:      p.Limit().GBFloor(),
		OverProvisioningRatio: ratio,
		StatusReason:          p.Reason,
		Backend:               p.Backend,
		Driver:                p.Driver,
		Abilities:             p.Abilities,
	}
}

// FromExtras shows a pool's capabilities.
func FromExtras(e *model.PoolExtras) PoolExtrasSpec {
	return PoolExtrasSpec{
		DataStorage:    fromDataStorage(&e.DataStorage),
		IOConnectivity: fromIOConnectivity(&e.IOConnectivity),
		DataProtection: fromDataProtection(&e.DataProtection),
		Advanced:       e.Advanced,
	}
}

// HostSpec is a machine that volumes attach to.
type HostSpec struct {
	Base
	TenantID   string `json:"tenantId,omitempty"`
	UserID     string `json:"userId,omitempty"`
	HostName   string `json:"hostName,omitempty"`
	OSType     string `json:"osType,omitempty"`
	AccessMode string `json:"accessMode,omitempty"`
	IP         string `json:"ip,omitempty"`
	Port       int    `json:"port,omitempty"`
	Username   string `json:"username,omitempty"`
	// Password is accepted, because the original's clients send it, and is
	// neither stored nor ever given back.
	Password          InputOnly   `json:"password,omitzero"`
	AvailabilityZones []string    `json:"availabilityZones"`
	Initiators        []Initiator `json:"initiators"`
}

// InputOnly is a string that is read from a request and never kept: decoding
// drops it.
type InputOnly struct{}

// UnmarshalJSON reads over the value.
func (*InputOnly) UnmarshalJSON([]byte) error { return nil }

// Initiator is one name of a host on a storage network.
type Initiator struct {
	PortName string `json:"portName,omitempty"`
	Protocol string `json:"protocol,omitempty"`
}

// FromHost shows a host. Its lists are never null.
func FromHost(h *model.Host) *HostSpec {
	s := &HostSpec{
		Base:              baseOf(&h.Meta),
		TenantID:          h.TenantID,
		UserID:            h.UserID,
		HostName:          h.HostName,
		OSType:            h.OSType,
		AccessMode:        h.AccessMode,
		IP:                h.IP,
		Port:              h.Port,
		Username:          h.Username,
		AvailabilityZones: h.AvailabilityZones,
		Initiators:        fromInitiators(h.Initiators),
	}
	if s.AvailabilityZones == nil {
		s.AvailabilityZones = []string{}
	}
	return s
}

// ImportableSpec is a volume that a pool's backend has and osds has not made.
type ImportableSpec struct {
	// Name is the backend's own: VolumeSpec.Existing.
	Name   string `json:"name"`
	PoolID string `json:"poolId"`
	Size   int64  `json:"size"` // GB, rounded up
	Bytes  int64  `json:"bytes"`
	// Obstacle says why it cannot be imported now; empty if it can.
	Obstacle string `json:"obstacle,omitempty"`
}

package model

import (
	"math"
	"strings"
	"time"
)

// Resource names a kind of record. It is the first path element of its keys and
// the "resource" of events and tasks.
type Resource string

// The resources.
const (
	ResDock       Resource = "docks"
	ResPool       Resource = "pools"
	ResProfile    Resource = "profiles"
	ResHost       Resource = "hosts"
	ResVolume     Resource = "volumes"
	ResSnapshot   Resource = "snapshots"
	ResAttachment Resource = "attachments"
	ResGroup      Resource = "volumeGroups"
	ResDebt       Resource = "debts"
	ResLedger     Resource = "ledger"
	// ResDevice is no record: it names, in debts and in the doctor's findings,
	// the device that an attachment left on its host.
	ResDevice Resource = "devices"
)

// Meta is what every record has. Rev is the etcd modification revision that the
// record was read at; it is not stored, and it is the record's ETag.
type Meta struct {
	ID          string    `json:"id"`
	TenantID    string    `json:"tenant,omitempty"`
	UserID      string    `json:"user,omitempty"`
	Name        string    `json:"name,omitempty"`
	Description string    `json:"desc,omitempty"`
	CreatedAt   time.Time `json:"created"`
	UpdatedAt   time.Time `json:"updated,omitzero"`
	Rev         int64     `json:"-"`
}

// Base gives the Meta of any record that embeds it.
func (m *Meta) Base() *Meta { return m }

// Record is any stored record. Records read from a cache are shared: they are
// never changed in place, but copied (each type's Clone) and written back.
type Record interface {
	Base() *Meta
	// Res is the record's resource.
	Res() Resource
}

// Tasked is a record that can have work going on. The record in its
// transitional state is the durable task: nothing about the work lives
// elsewhere.
type Tasked interface {
	Record
	// CurrentTask is the task in progress, or the last one that ended; nil if
	// there never was one.
	CurrentTask() *Task
	// GetStatus is the record's status.
	GetStatus() Status
}

// Volume is a block volume.
type Volume struct {
	Meta
	Size             Bytes  `json:"size"`
	AvailabilityZone string `json:"az,omitempty"`
	Status           Status `json:"status"`
	StatusReason     string `json:"reason,omitempty"`
	ProfileID        string `json:"profile,omitempty"`
	// PoolID is the pool the volume is placed in, with Reserved bytes in that
	// pool's ledger; RequestedPoolID is what the client asked for.
	PoolID          string `json:"pool,omitempty"`
	RequestedPoolID string `json:"wantPool,omitempty"`
	// Reserved is what the volume holds in its pool's ledger. It is set in the
	// transaction that places (or grows) the volume and cleared in the one that
	// removes it, and always equals what the ledger counts for it.
	Reserved       Bytes  `json:"reserved,omitempty"`
	GroupID        string `json:"group,omitempty"`
	SnapshotID     string `json:"snapshot,omitempty"`
	SourceVolumeID string `json:"sourceVolume,omitempty"`
	// Existing is the name that an imported volume had on its backend.
	Existing      string            `json:"existing,omitempty"`
	ReplicationID string            `json:"replication,omitempty"`
	MultiAttach   bool              `json:"multiAttach,omitempty"`
	Metadata      map[string]string `json:"metadata,omitempty"`
	// BackendData is what the driver wants back with each later call
	// (huaweiLunId, lvPath, ...). It shows in the wire's metadata.
	BackendData   map[string]string `json:"backend,omitempty"`
	DurableName   string            `json:"durable,omitempty"`
	DurableFormat string            `json:"durableFormat,omitempty"`
	Task          *Task             `json:"task,omitempty"`
}

// Res is ResVolume.
func (*Volume) Res() Resource { return ResVolume }

// CurrentTask gives the volume's task.
func (v *Volume) CurrentTask() *Task { return v.Task }

// GetStatus gives the volume's status.
func (v *Volume) GetStatus() Status { return v.Status }

// Clone gives a copy that may be changed.
func (v *Volume) Clone() *Volume {
	c := *v
	c.Metadata, c.BackendData = cloneMap(v.Metadata), cloneMap(v.BackendData)
	c.Task = v.Task.Clone()
	return &c
}

// Snapshot is a point-in-time copy of a volume, in the volume's pool.
type Snapshot struct {
	Meta
	VolumeID     string            `json:"volume"`
	ProfileID    string            `json:"profile,omitempty"`
	PoolID       string            `json:"pool,omitempty"`
	Size         Bytes             `json:"size,omitempty"`
	Reserved     Bytes             `json:"reserved,omitempty"`
	Status       Status            `json:"status"`
	StatusReason string            `json:"reason,omitempty"`
	Metadata     map[string]string `json:"metadata,omitempty"`
	BackendData  map[string]string `json:"backend,omitempty"`
	Task         *Task             `json:"task,omitempty"`
}

// Res is ResSnapshot.
func (*Snapshot) Res() Resource { return ResSnapshot }

// CurrentTask gives the snapshot's task.
func (s *Snapshot) CurrentTask() *Task { return s.Task }

// GetStatus gives the snapshot's status.
func (s *Snapshot) GetStatus() Status { return s.Status }

// Clone gives a copy that may be changed.
func (s *Snapshot) Clone() *Snapshot {
	c := *s
	c.Metadata, c.BackendData = cloneMap(s.Metadata), cloneMap(s.BackendData)
	c.Task = s.Task.Clone()
	return &c
}

// Attachment is the export of one volume to one host.
type Attachment struct {
	Meta
	VolumeID       string      `json:"volume"`
	HostID         string      `json:"host"`
	Status         Status      `json:"status"`
	StatusReason   string      `json:"reason,omitempty"`
	Mountpoint     string      `json:"mountpoint,omitempty"`
	AttachMode     string      `json:"mode,omitempty"`
	AccessProtocol string      `json:"protocol,omitempty"`
	Connection     *Connection `json:"conn,omitempty"`
	// DockID is the dock that attaches for the host; empty if the host attaches
	// by itself. It is stored before the dock is called, and cleared when the
	// dock has said that the device is gone.
	DockID string `json:"dock,omitempty"`
	// DevicePath is the device that the dock made.
	DevicePath string            `json:"device,omitempty"`
	Metadata   map[string]string `json:"metadata,omitempty"`
	Task       *Task             `json:"task,omitempty"`
}

// Res is ResAttachment.
func (*Attachment) Res() Resource { return ResAttachment }

// CurrentTask gives the attachment's task.
func (a *Attachment) CurrentTask() *Task { return a.Task }

// GetStatus gives the attachment's status.
func (a *Attachment) GetStatus() Status { return a.Status }

// Clone gives a copy that may be changed. Connection is replaced as a whole,
// never changed, and so is shared.
func (a *Attachment) Clone() *Attachment {
	c := *a
	c.Metadata = cloneMap(a.Metadata)
	c.Task = a.Task.Clone()
	return &c
}

// Connection is what a host needs to reach an export: the original's
// connectionInfo. Data's keys depend on Type (iscsi, rbd, nvmeof, local, ...).
type Connection struct {
	Type string         `json:"type"`
	Data map[string]any `json:"data,omitempty"`
}

// Group is a consistency group: volumes kept in one pool.
type Group struct {
	Meta
	Status           Status   `json:"status"`
	StatusReason     string   `json:"reason,omitempty"`
	AvailabilityZone string   `json:"az,omitempty"`
	PoolID           string   `json:"pool,omitempty"`
	Profiles         []string `json:"profiles,omitempty"`
	// AddVolumes and RemoveVolumes are the update in progress.
	AddVolumes    []string `json:"add,omitempty"`
	RemoveVolumes []string `json:"remove,omitempty"`
	Task          *Task    `json:"task,omitempty"`
}

// Res is ResGroup.
func (*Group) Res() Resource { return ResGroup }

// CurrentTask gives the group's task.
func (g *Group) CurrentTask() *Task { return g.Task }

// GetStatus gives the group's status.
func (g *Group) GetStatus() Status { return g.Status }

// Clone gives a copy that may be changed.
func (g *Group) Clone() *Group {
	c := *g
	c.Profiles = append([]string(nil), g.Profiles...)
	c.AddVolumes = append([]string(nil), g.AddVolumes...)
	c.RemoveVolumes = append([]string(nil), g.RemoveVolumes...)
	c.Task = g.Task.Clone()
	return &c
}

// Host is a machine that volumes attach to.
type Host struct {
	Meta
	HostName          string      `json:"hostName"`
	OSType            string      `json:"os,omitempty"`
	AccessMode        string      `json:"access,omitempty"`
	IP                string      `json:"ip,omitempty"`
	Port              int         `json:"port,omitempty"`
	Username          string      `json:"username,omitempty"`
	AvailabilityZones []string    `json:"azs,omitempty"`
	Initiators        []Initiator `json:"initiators,omitempty"`
}

// Initiator is one name of a host on a storage network.
type Initiator struct {
	PortName string `json:"portName"`
	Protocol string `json:"protocol"`
}

// Res is ResHost.
func (*Host) Res() Resource { return ResHost }

// Clone gives a copy that may be changed.
func (h *Host) Clone() *Host {
	c := *h
	c.AvailabilityZones = append([]string(nil), h.AvailabilityZones...)
	c.Initiators = append([]Initiator(nil), h.Initiators...)
	return &c
}

// InitiatorsFor gives the host's names for a protocol.
func (h *Host) InitiatorsFor(protocol string) []Initiator {
	return initiatorsFor(h.Initiators, protocol)
}

// Dock is the agent of one storage host.
type Dock struct {
	Meta
	Type     string `json:"type"` // provisioner or attacher
	Status   Status `json:"status"`
	Reason   string `json:"reason,omitempty"`
	Endpoint string `json:"endpoint"` // host:port that osdslet dials
	NodeID   string `json:"node"`     // host name
	// DriverName is the driver of its backends, comma-separated where there
	// are several.
	DriverName string            `json:"driver"`
	Version    string            `json:"version,omitempty"`
	Metadata   map[string]string `json:"metadata,omitempty"`
	// Initiators are the host's names on the storage networks; a dock with any
	// attaches for its host. Addresses are the host's.
	Initiators []Initiator `json:"initiators,omitempty"`
	Addresses  []string    `json:"addresses,omitempty"`
}

// Res is ResDock.
func (*Dock) Res() Resource { return ResDock }

// The types of docks. Any dock may attach for its host; an attacher does nothing
// else.
const (
	DockProvisioner = "provisioner"
	DockAttacher    = "attacher"
)

// Attaches says whether the dock attaches for its host.
func (d *Dock) Attaches() bool { return len(d.Initiators) > 0 }

// InitiatorsFor gives the names that the dock's host has for a protocol.
func (d *Dock) InitiatorsFor(protocol string) []Initiator {
	return initiatorsFor(d.Initiators, protocol)
}

func initiatorsFor(list []Initiator, protocol string) (out []Initiator) {
	for _, x := range list {
		if strings.EqualFold(x.Protocol, protocol) {
			out = append(out, x)
		}
	}
	return out
}

// Clone gives a copy that may be changed.
func (d *Dock) Clone() *Dock {
	c := *d
	c.Metadata = cloneMap(d.Metadata)
	c.Initiators = append([]Initiator(nil), d.Initiators...)
	c.Addresses = append([]string(nil), d.Addresses...)
	return &c
}

// Pool is a storage pool of a dock's backend. It is written when the dock
// registers and when a figure moves by more than a threshold; statistics that
// change every few seconds stay in memory.
type Pool struct {
	Meta
	DockID           string `json:"dock"`
	Backend          string `json:"backend"` // the dock's name for the backend
	Status           Status `json:"status"`
	Reason           string `json:"reason,omitempty"`
	AvailabilityZone string `json:"az"`
	StorageType      string `json:"storageType"` // block
	// Total is what osds may use of the backend; Free is what the backend says
	// is free. The ledger's limit is Total x OverProvisioning.
	Total            Bytes      `json:"total"`
	Free             Bytes      `json:"free"`
	OverProvisioning float64    `json:"ratio"` // 1 for thick pools
	MultiAttach      bool       `json:"multiAttach,omitempty"`
	Extras           PoolExtras `json:"extras"`
	ReplicationType  string     `json:"replType,omitempty"`
	ReplicationName  string     `json:"replName,omitempty"`
	Driver           string     `json:"driver"`
	// Abilities are the optional operations of the driver for this pool.
	Abilities []string `json:"abilities,omitempty"`
}

// Res is ResPool.
func (*Pool) Res() Resource { return ResPool }

// Clone gives a copy that may be changed; Extras and Abilities are replaced as a
// whole, never changed, and so are shared.
func (p *Pool) Clone() *Pool { c := *p; return &c }

// Limit is how much may be reserved in the pool's ledger, in bytes: Total times
// OverProvisioning, exactly Total for a ratio of 1, and never more than fits.
func (p *Pool) Limit() Bytes {
	r := p.OverProvisioning
	if !(r > 0) || r == 1 { // not a number counts as 1
		return p.Total
	}
	if l := float64(p.Total) * r; l < math.MaxInt64/2 {
		return Bytes(l)
	}
	return math.MaxInt64 / 2
}

// Can says whether the pool has an ability.
func (p *Pool) Can(a string) bool {
	for _, x := range p.Abilities {
		if x == a {
			return true
		}
	}
	return false
}

// Abilities of a pool, published by the dock from what its driver implements.
const (
	AbilityExpand     = "expand"
	AbilityExpandLive = "expandOnline"
	AbilitySnapshot   = "snapshot"
	AbilityClone      = "clone"
	AbilityRevert     = "revert"
	AbilityExport     = "export"
	AbilityThin       = "thin"
	// AbilityImport is taking over what the backend has, and giving it back.
	AbilityImport = "import"
)

// Debt is work owed on a backend whose dock did not answer in time: the record
// it belonged to is gone or in error, the space stays reserved, and the debt is
// settled when the dock returns.
type Debt struct {
	Meta
	DockID string `json:"dock"`
	// PoolID is empty for what is owed on a host that attached.
	PoolID string `json:"pool"`
	// What is to be removed: a volume, a snapshot or an export, by its id; or
	// the device on the host, by the id of its attachment.
	Resource Resource `json:"res"`
	ObjectID string   `json:"object"`
	// VolumeID is the volume a snapshot, an attachment or a device belongs to.
	VolumeID string `json:"volume,omitempty"`
	// Force is for exports whose host may still be connected: it is cut off.
	Force bool `json:"force,omitempty"`
	// Release is for volumes that are to be given back with their data.
	Release bool `json:"release,omitempty"`
	// Connection is what a device was attached by, without its secrets.
	Connection  *Connection       `json:"conn,omitempty"`
	BackendData map[string]string `json:"backend,omitempty"`
	Reserved    Bytes             `json:"reserved,omitempty"`
	Reason      string            `json:"reason"`
	Task        *Task             `json:"task,omitempty"`
}

// DebtID is the id of the debt for an object: the object is owed once.
func DebtID(res Resource, id string) string { return string(res) + "." + id }

// Res is ResDebt.
func (*Debt) Res() Resource { return ResDebt }

// CurrentTask gives the debt's task.
func (d *Debt) CurrentTask() *Task { return d.Task }

// GetStatus is always deleting: a debt is gone when it is settled.
func (d *Debt) GetStatus() Status { return StatusDeleting }

// Clone gives a copy that may be changed.
func (d *Debt) Clone() *Debt {
	c := *d
	c.BackendData = cloneMap(d.BackendData)
	c.Task = d.Task.Clone()
	return &c
}

// Account is a pool's ledger entry: its ID is the pool's. It is written in the
// same transaction as each record that it counts, so that Reserved always equals
// the sum of Reserved of the pool's volumes, snapshots and debts.
type Account struct {
	Meta
	Reserved Bytes `json:"reserved"`
}

// Res is ResLedger.
func (*Account) Res() Resource { return ResLedger }

// Clone gives a copy that may be changed.
func (a *Account) Clone() *Account { c := *a; return &c }

func cloneMap(m map[string]string) map[string]string {
	if m == nil {
		return nil
	}
	c := make(map[string]string, len(m))
	for k, v := range m {
		c[k] = v
	}
	return c
}

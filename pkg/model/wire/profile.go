package wire

import (
	"strings"

	"github.com/osds-io/osds/pkg/model"
)

// ProfileSpec is a profile: what storage must be.
type ProfileSpec struct {
	Base
	Name                     string           `json:"name,omitempty"`
	Description              string           `json:"description,omitempty"`
	StorageType              string           `json:"storageType,omitempty"`
	ProvisioningProperties   ProvisioningSpec `json:"provisioningProperties"`
	ReplicationProperties    ReplicationProps `json:"replicationProperties"`
	SnapshotProperties       SnapshotProps    `json:"snapshotProperties"`
	DataProtectionProperties ProtectionProps  `json:"dataProtectionProperties"`
	CustomProperties         map[string]any   `json:"customProperties,omitempty"`
}

// ProvisioningSpec is provisioningProperties.
type ProvisioningSpec struct {
	DataStorage    DataStorageSpec    `json:"dataStorage"`
	IOConnectivity IOConnectivitySpec `json:"ioConnectivity"`
}

// DataStorageSpec is a level of service of data storage. A client leaves
// compression and deduplication out where it does not care; answers always
// state them.
type DataStorageSpec struct {
	RecoveryTimeObjective   int64    `json:"recoveryTimeObjective,omitempty"` // minutes
	ProvisioningPolicy      string   `json:"provisioningPolicy,omitempty"`    // Thin or Thick
	CharacterCodeSet        string   `json:"characterCodeSet,omitempty"`
	MaxFileNameLengthBytes  int64    `json:"maxFileNameLengthBytes,omitempty"`
	StorageAccessCapability []string `json:"storageAccessCapability,omitempty"`
	Compression             *bool    `json:"compression,omitempty"`
	Deduplication           *bool    `json:"deduplication,omitempty"`
}

// IOConnectivitySpec is a level of service of data access.
type IOConnectivitySpec struct {
	AccessProtocol string `json:"accessProtocol,omitempty"`
	MaxIOPS        int64  `json:"maxIOPS,omitempty"`
	MinIOPS        int64  `json:"minIOPS,omitempty"`
	MaxBWS         int64  `json:"maxBWS,omitempty"`  // MB/s
	MinBWS         int64  `json:"minBWS,omitempty"`  // MB/s
	Latency        int64  `json:"latency,omitempty"` // milliseconds
}

// DataProtectionSpec is a level of service of data protection. Names are read
// in any letter case, so the swagger file's capitals are understood.
type DataProtectionSpec struct {
	IsIsolated                  *bool  `json:"isIsolated,omitempty"`
	MinLifetime                 string `json:"minLifetime,omitempty"`
	RecoveryGeographicObjective string `json:"recoveryGeographicObjective,omitempty"`
	RecoveryPointObjectiveTime  string `json:"recoveryPointObjectiveTime,omitempty"`
	RecoveryTimeObjective       string `json:"recoveryTimeObjective,omitempty"`
	ReplicaType                 string `json:"replicaType,omitempty"`
}

// ReplicationProps is replicationProperties.
type ReplicationProps struct {
	DataProtection DataProtectionSpec `json:"dataProtection"`
	ReplicaInfos   ReplicaInfosSpec   `json:"replicaInfos"`
}

// ReplicaInfosSpec is replicationProperties.replicaInfos. The last two are the
// swagger file's misspellings: read, never written.
type ReplicaInfosSpec struct {
	ReplicaUpdateMode    string `json:"replicaUpdateMode,omitempty"`
	ReplicationBandwidth int64  `json:"replicationBandwidth,omitempty"` // Mb/s
	ReplicationPeriod    string `json:"replicationPeriod,omitempty"`
	ConsistencyEnabled   *bool  `json:"consistencyEnabled,omitempty"`
	ReplcationBandwidth  int64  `json:"replcationBandwidth,omitempty"`
	ConsistencyEnalbed   *bool  `json:"consistencyEnalbed,omitempty"`
}

// SnapshotProps is snapshotProperties.
type SnapshotProps struct {
	Schedule  ScheduleSpec  `json:"schedule"`
	Retention RetentionSpec `json:"retention"`
	Topology  TopologySpec  `json:"topology"`
}

// ScheduleSpec says when snapshots are made.
type ScheduleSpec struct {
	Datetime   string `json:"datetime,omitempty"`
	Occurrence string `json:"occurrence,omitempty"`
}

// RetentionSpec says how long snapshots are kept.
type RetentionSpec struct {
	Duration int64 `json:"duration,omitempty"` // days
	Number   int64 `json:"number,omitempty"`
}

// TopologySpec says where snapshots go.
type TopologySpec struct {
	Bucket string `json:"bucket,omitempty"`
}

// ProtectionProps is dataProtectionProperties; ConsistencyEnalbed is the
// swagger file's misspelling: read, never written.
type ProtectionProps struct {
	DataProtection     DataProtectionSpec `json:"dataProtection"`
	ConsistencyEnabled *bool              `json:"consistencyEnabled,omitempty"`
	ConsistencyEnalbed *bool              `json:"consistencyEnalbed,omitempty"`
}

// FromProfile shows a profile.
func FromProfile(p *model.Profile) *ProfileSpec {
	s := &ProfileSpec{
		Base:             baseOf(&p.Meta),
		Name:             p.Name,
		Description:      p.Description,
		StorageType:      p.StorageType,
		CustomProperties: p.Custom,
	}
	s.ProvisioningProperties.DataStorage = fromDataStorage(&p.Provisioning.DataStorage)
	s.ProvisioningProperties.IOConnectivity = fromIOConnectivity(&p.Provisioning.IOConnectivity)
	s.ReplicationProperties.DataProtection = fromDataProtection(&p.Replication.DataProtection)
	ri := &p.Replication.ReplicaInfos
	s.ReplicationProperties.ReplicaInfos = ReplicaInfosSpec{
		ReplicaUpdateMode:    ri.ReplicaUpdateMode,
		ReplicationBandwidth: ri.ReplicationBandwidth,
		ReplicationPeriod:    ri.ReplicationPeriod,
		ConsistencyEnabled:   onlyTrue(ri.ConsistencyEnabled),
	}
	s.SnapshotProperties = SnapshotProps{
		Schedule:  ScheduleSpec(p.Snapshot.Schedule),
		Retention: RetentionSpec(p.Snapshot.Retention),
		Topology:  TopologySpec(p.Snapshot.Topology),
	}
	s.DataProtectionProperties.DataProtection = fromDataProtection(&p.Protection.DataProtection)
	s.DataProtectionProperties.ConsistencyEnabled = onlyTrue(p.Protection.ConsistencyEnabled)
	return s
}

// Normalize moves what came in the swagger file's misspellings to where it
// belongs. It fails if a field came in both spellings with different values.
func (s *ProfileSpec) Normalize() error {
	ri, dp := &s.ReplicationProperties.ReplicaInfos, &s.DataProtectionProperties
	bandwidth, err := oneOf("replicationProperties.replicaInfos.replicationBandwidth",
		nonZero(ri.ReplicationBandwidth), nonZero(ri.ReplcationBandwidth))
	if err != nil {
		return err
	}
	replConsistency, err := oneOf("replicationProperties.replicaInfos.consistencyEnabled",
		ri.ConsistencyEnabled, ri.ConsistencyEnalbed)
	if err != nil {
		return err
	}
	protConsistency, err := oneOf("dataProtectionProperties.consistencyEnabled", dp.ConsistencyEnabled, dp.ConsistencyEnalbed)
	if err != nil {
		return err
	}
	if bandwidth != nil {
		ri.ReplicationBandwidth = *bandwidth
	}
	ri.ConsistencyEnabled, dp.ConsistencyEnabled = replConsistency, protConsistency
	ri.ReplcationBandwidth, ri.ConsistencyEnalbed, dp.ConsistencyEnalbed = 0, nil, nil
	return nil
}

// ToProfile reads a profile that a client sent: it accepts both spellings of the
// fields that the swagger file misspells, fills in what the original fills in
// for file profiles, and validates. Only the client's fields are set.
func ToProfile(in *ProfileSpec) (*model.Profile, error) {
	c := *in
	s := &c
	if err := s.Normalize(); err != nil {
		return nil, err
	}
	ri := s.ReplicationProperties.ReplicaInfos
	p := &model.Profile{
		Meta:        model.Meta{Name: s.Name, Description: s.Description},
		StorageType: strings.ToLower(s.StorageType),
		Custom:      s.CustomProperties,
		Provisioning: model.Provisioning{
			DataStorage:    toDataStorage(&s.ProvisioningProperties.DataStorage),
			IOConnectivity: model.IOConnectivity(s.ProvisioningProperties.IOConnectivity),
		},
		Replication: model.ReplicationProp{
			DataProtection: toDataProtection(&s.ReplicationProperties.DataProtection),
			ReplicaInfos: model.ReplicaInfos{
				ReplicaUpdateMode:    ri.ReplicaUpdateMode,
				ReplicationBandwidth: ri.ReplicationBandwidth,
				ReplicationPeriod:    ri.ReplicationPeriod,
				ConsistencyEnabled:   ri.ConsistencyEnabled,
			},
		},
		Snapshot: model.SnapshotProp{
			Schedule:  model.Schedule(s.SnapshotProperties.Schedule),
			Retention: model.Retention(s.SnapshotProperties.Retention),
			Topology:  model.Topology(s.SnapshotProperties.Topology),
		},
		Protection: model.ProtectionProp{
			DataProtection:     toDataProtection(&s.DataProtectionProperties.DataProtection),
			ConsistencyEnabled: s.DataProtectionProperties.ConsistencyEnabled,
		},
	}
	fileDefaults(p)
	return p, model.ValidateProfile(p)
}

// fileDefaults gives a file profile the original's defaults.
func fileDefaults(p *model.Profile) {
	if p.StorageType != "file" {
		return
	}
	ds := &p.Provisioning.DataStorage
	if ds.RecoveryTimeObjective == 0 && ds.ProvisioningPolicy == "" && ds.Compression == nil && ds.Deduplication == nil &&
		ds.CharacterCodeSet == "" && ds.MaxFileNameLengthBytes == 0 && len(ds.StorageAccessCapability) == 0 {
		ds.StorageAccessCapability = []string{"Read", "Write", "Execute"}
	}
	if p.Provisioning.IOConnectivity == (model.IOConnectivity{}) {
		p.Provisioning.IOConnectivity.AccessProtocol = "nfs"
	}
}

func fromDataStorage(d *model.DataStorage) DataStorageSpec {
	return DataStorageSpec{
		RecoveryTimeObjective:   d.RecoveryTimeObjective,
		ProvisioningPolicy:      d.ProvisioningPolicy,
		CharacterCodeSet:        d.CharacterCodeSet,
		MaxFileNameLengthBytes:  d.MaxFileNameLengthBytes,
		StorageAccessCapability: d.StorageAccessCapability,
		Compression:             stated(d.Compression),
		Deduplication:           stated(d.Deduplication),
	}
}

func toDataStorage(d *DataStorageSpec) model.DataStorage {
	return model.DataStorage{
		RecoveryTimeObjective:   d.RecoveryTimeObjective,
		ProvisioningPolicy:      d.ProvisioningPolicy,
		Compression:             d.Compression,
		Deduplication:           d.Deduplication,
		CharacterCodeSet:        d.CharacterCodeSet,
		MaxFileNameLengthBytes:  d.MaxFileNameLengthBytes,
		StorageAccessCapability: d.StorageAccessCapability,
	}
}

func fromIOConnectivity(c *model.IOConnectivity) IOConnectivitySpec { return IOConnectivitySpec(*c) }

func fromDataProtection(d *model.DataProtection) DataProtectionSpec {
	return DataProtectionSpec{
		IsIsolated:                  stated(d.IsIsolated),
		MinLifetime:                 d.MinLifetime,
		RecoveryGeographicObjective: d.RecoveryGeographicObject,
		RecoveryPointObjectiveTime:  d.RecoveryPointObjectiveTime,
		RecoveryTimeObjective:       d.RecoveryTimeObjective,
		ReplicaType:                 d.ReplicaType,
	}
}

func toDataProtection(d *DataProtectionSpec) model.DataProtection {
	return model.DataProtection{
		IsIsolated:                 d.IsIsolated,
		MinLifetime:                d.MinLifetime,
		RecoveryGeographicObject:   d.RecoveryGeographicObjective,
		RecoveryPointObjectiveTime: d.RecoveryPointObjectiveTime,
		RecoveryTimeObjective:      d.RecoveryTimeObjective,
		ReplicaType:                d.ReplicaType,
	}
}

// stated gives a value to write: the original's answers have no "not stated".
func stated(b *bool) *bool {
	v := b != nil && *b
	return &v
}

// onlyTrue is nil for false, which the original leaves out here.
func onlyTrue(b *bool) *bool {
	if b == nil || !*b {
		return nil
	}
	return stated(b)
}

func nonZero(n int64) *int64 {
	if n == 0 {
		return nil
	}
	return &n
}

// oneOf gives the value of whichever spelling was used, and fails if both were
// with different values.
func oneOf[T comparable](field string, right, misspelt *T) (*T, error) {
	switch {
	case misspelt == nil:
		return right, nil
	case right == nil || *right == *misspelt:
		return misspelt, nil
	}
	return nil, model.Invalid(field, "%s is given twice, in two spellings with different values: give it once", field)
}

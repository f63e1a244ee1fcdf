package model

// Profile says what storage must be. The JSON is both wire and store; the
// misspelt names of the original's swagger are accepted on input (package
// wire) and never written.
type Profile struct {
	Meta
	StorageType  string          `json:"storageType"`
	Provisioning Provisioning    `json:"provisioning"`
	Replication  ReplicationProp `json:"replication"`
	Snapshot     SnapshotProp    `json:"snapshot"`
	Protection   ProtectionProp  `json:"protection"`
	Custom       map[string]any  `json:"custom,omitempty"`
	// Deleting is set before dependants are counted, so that no new one can
	// come in between; it is cleared if there are any.
	Deleting bool `json:"deleting,omitempty"`
}

// Res is ResProfile.
func (*Profile) Res() Resource { return ResProfile }

// Clone gives a copy whose Custom map may be changed at its first level.
func (p *Profile) Clone() *Profile {
	c := *p
	if p.Custom != nil {
		c.Custom = make(map[string]any, len(p.Custom))
		for k, v := range p.Custom {
			c.Custom[k] = v
		}
	}
	return &c
}

// Provisioning is provisioningProperties.
type Provisioning struct {
	DataStorage    DataStorage    `json:"dataStorage"`
	IOConnectivity IOConnectivity `json:"ioConnectivity"`
}

// DataStorage is the original's DataStorageLoS. Compression and Deduplication
// are pointers here: a profile that does not state them does not ask for false.
type DataStorage struct {
	RecoveryTimeObjective   int64    `json:"recoveryTimeObjective,omitempty"` // minutes
	ProvisioningPolicy      string   `json:"provisioningPolicy,omitempty"`    // Thin, Thick
	Compression             *bool    `json:"compression,omitempty"`
	Deduplication           *bool    `json:"deduplication,omitempty"`
	CharacterCodeSet        string   `json:"characterCodeSet,omitempty"`
	MaxFileNameLengthBytes  int64    `json:"maxFileNameLengthBytes,omitempty"`
	StorageAccessCapability []string `json:"storageAccessCapability,omitempty"`
}

// IOConnectivity is the original's IOConnectivityLoS.
type IOConnectivity struct {
	AccessProtocol string `json:"accessProtocol,omitempty"`
	MaxIOPS        int64  `json:"maxIOPS,omitempty"`
	MinIOPS        int64  `json:"minIOPS,omitempty"`
	MaxBWS         int64  `json:"maxBWS,omitempty"`  // MB/s
	MinBWS         int64  `json:"minBWS,omitempty"`  // MB/s
	Latency        int64  `json:"latency,omitempty"` // an upper bound, milliseconds
}

// DataProtection is the original's DataProtectionLoS; times are ISO 8601
// durations.
type DataProtection struct {
	IsIsolated                 *bool  `json:"isIsolated,omitempty"`
	MinLifetime                string `json:"minLifetime,omitempty"`
	RecoveryGeographicObject   string `json:"recoveryGeographicObjective,omitempty"`
	RecoveryPointObjectiveTime string `json:"recoveryPointObjectiveTime,omitempty"`
	RecoveryTimeObjective      string `json:"recoveryTimeObjective,omitempty"`
	ReplicaType                string `json:"replicaType,omitempty"`
}

// ReplicationProp is replicationProperties.
type ReplicationProp struct {
	DataProtection DataProtection `json:"dataProtection"`
	ReplicaInfos   ReplicaInfos   `json:"replicaInfos"`
}

// ReplicaInfos is replicationProperties.replicaInfos.
type ReplicaInfos struct {
	ReplicaUpdateMode    string `json:"replicaUpdateMode,omitempty"`
	ReplicationBandwidth int64  `json:"replicationBandwidth,omitempty"` // Mb/s
	ReplicationPeriod    string `json:"replicationPeriod,omitempty"`    // ISO 8601 duration
	ConsistencyEnabled   *bool  `json:"consistencyEnabled,omitempty"`
}

// SnapshotProp is snapshotProperties.
type SnapshotProp struct {
	Schedule  Schedule  `json:"schedule"`
	Retention Retention `json:"retention"`
	Topology  Topology  `json:"topology"`
}

// Schedule says when snapshots are made.
type Schedule struct {
	Datetime   string `json:"datetime,omitempty"` // ISO 8601 date-time
	Occurrence string `json:"occurrence,omitempty"`
}

// Retention says how long snapshots are kept.
type Retention struct {
	Duration int64 `json:"duration,omitempty"` // days
	Number   int64 `json:"number,omitempty"`
}

// Topology says where snapshots go.
type Topology struct {
	Bucket string `json:"bucket,omitempty"`
}

// ProtectionProp is dataProtectionProperties.
type ProtectionProp struct {
	DataProtection     DataProtection `json:"dataProtection"`
	ConsistencyEnabled *bool          `json:"consistencyEnabled,omitempty"`
}

// PoolExtras is what a pool can do, beyond the figures: the original's extras.
type PoolExtras struct {
	DataStorage    DataStorage    `json:"dataStorage"`
	IOConnectivity IOConnectivity `json:"ioConnectivity"`
	DataProtection DataProtection `json:"dataProtection"`
	Advanced       map[string]any `json:"advanced,omitempty"`
}

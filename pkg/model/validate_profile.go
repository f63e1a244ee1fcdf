package model

import (
	"regexp"
	"strings"
	"time"
)

// Bounds of customProperties, which have no schema.
const (
	MaxCustomDepth   = 8
	MaxCustomEntries = 256
	MaxCustomBytes   = 32 << 10
)

// The enums of the original's swagger file, and what its code accepts besides.
var (
	accessProtocols = []string{"iscsi", "rbd", "fibre_channel", "nvmeof", "DSWare", "NFS", "cifs", "local"}
	geographies     = []string{"Datacenter", "Rack", "RackGroup", "Region", "Row", "Server"}
	recoveryTimes   = []string{"OnlineActive", "OnlinePassive", "Nearline", "Offline"}
	replicaTypes    = []string{"Clone", "Mirror", "Snapshot", "TokenizedClone"}
	updateModes     = []string{"Active", "Adaptive", "Asynchronous", "Synchronous"}
	occurrences     = []string{"Hourly", "Daily", "Weekly", "Monthly"}
	accessRights    = []string{"Read", "Write", "Execute"}
)

// ValidateProfile checks a profile. Fields are named as clients spell them.
func ValidateProfile(p *Profile) error {
	if t := strings.ToLower(p.StorageType); t != "block" && t != "file" {
		// The original's text, misspelling and all.
		return Invalid("storageType", "%s is invalid storagetype", p.StorageType)
	}
	return firstError(
		ValidateName("name", p.Name, true),
		ValidateDescription(p.Description),
		validateDataStorage("provisioningProperties.dataStorage.", &p.Provisioning.DataStorage),
		validateIOConnectivity("provisioningProperties.ioConnectivity.", &p.Provisioning.IOConnectivity),
		validateDataProtection("replicationProperties.dataProtection.", &p.Replication.DataProtection),
		validateReplicaInfos("replicationProperties.replicaInfos.", &p.Replication.ReplicaInfos),
		validateSnapshotProp("snapshotProperties.", &p.Snapshot),
		validateDataProtection("dataProtectionProperties.dataProtection.", &p.Protection.DataProtection),
		ValidateCustom("customProperties", p.Custom),
	)
}

// ValidateExtras checks what a pool says that it can do, in the wire's names.
func ValidateExtras(e *PoolExtras) error {
	return firstError(
		validateDataStorage("extras.dataStorage.", &e.DataStorage),
		validateIOConnectivity("extras.ioConnectivity.", &e.IOConnectivity),
		validateDataProtection("extras.dataProtection.", &e.DataProtection),
		ValidateCustom("extras.advanced", e.Advanced),
	)
}

func validateDataStorage(at string, d *DataStorage) error {
	for _, r := range d.StorageAccessCapability {
		if err := validateEnum(at+"storageAccessCapability", r, accessRights...); err != nil {
			return err
		}
	}
	if n := len(d.StorageAccessCapability); n > len(accessRights) {
		return Invalid(at+"storageAccessCapability", "%sstorageAccessCapability has %d values, at most %d are allowed", at, n, len(accessRights))
	}
	return firstError(
		validateNonNegative(at+"recoveryTimeObjective", d.RecoveryTimeObjective),
		validateEnum(at+"provisioningPolicy", d.ProvisioningPolicy, "Thin", "Thick"),
		validateText(at+"characterCodeSet", d.CharacterCodeSet, MaxName),
		validateNonNegative(at+"maxFileNameLengthBytes", d.MaxFileNameLengthBytes),
	)
}

func validateIOConnectivity(at string, c *IOConnectivity) error {
	err := firstError(
		validateEnum(at+"accessProtocol", c.AccessProtocol, accessProtocols...),
		validateNonNegative(at+"maxIOPS", c.MaxIOPS),
		validateNonNegative(at+"minIOPS", c.MinIOPS),
		validateNonNegative(at+"maxBWS", c.MaxBWS),
		validateNonNegative(at+"minBWS", c.MinBWS),
		validateNonNegative(at+"latency", c.Latency),
	)
	switch {
	case err != nil:
		return err
	case c.MaxIOPS > 0 && c.MinIOPS > c.MaxIOPS:
		return Invalid(at+"minIOPS", "%sminIOPS is %d, more than maxIOPS %d", at, c.MinIOPS, c.MaxIOPS)
	case c.MaxBWS > 0 && c.MinBWS > c.MaxBWS:
		return Invalid(at+"minBWS", "%sminBWS is %d, more than maxBWS %d", at, c.MinBWS, c.MaxBWS)
	}
	return nil
}

func validateDataProtection(at string, d *DataProtection) error {
	return firstError(
		validateDuration(at+"minLifetime", d.MinLifetime),
		validateEnum(at+"recoveryGeographicObjective", d.RecoveryGeographicObject, geographies...),
		validateDuration(at+"recoveryPointObjectiveTime", d.RecoveryPointObjectiveTime),
		validateEnum(at+"recoveryTimeObjective", d.RecoveryTimeObjective, recoveryTimes...),
		validateEnum(at+"replicaType", d.ReplicaType, replicaTypes...),
	)
}

func validateReplicaInfos(at string, r *ReplicaInfos) error {
	return firstError(
		validateEnum(at+"replicaUpdateMode", r.ReplicaUpdateMode, updateModes...),
		validateNonNegative(at+"replicationBandwidth", r.ReplicationBandwidth),
		validateDuration(at+"replicationPeriod", r.ReplicationPeriod),
	)
}

func validateSnapshotProp(at string, s *SnapshotProp) error {
	return firstError(
		validateDateTime(at+"schedule.datetime", s.Schedule.Datetime),
		validateEnum(at+"schedule.occurrence", s.Schedule.Occurrence, occurrences...),
		validateNonNegative(at+"retention.duration", s.Retention.Duration),
		validateNonNegative(at+"retention.number", s.Retention.Number),
		validateText(at+"topology.bucket", s.Topology.Bucket, MaxName),
	)
}

// isoDuration is an ISO 8601 duration. The S of the seconds may be missing,
// because it is in the original's own example.
var isoDuration = regexp.MustCompile(
	`^P(\d{1,9}Y)?(\d{1,9}M)?(\d{1,9}W)?(\d{1,9}D)?(T(\d{1,9}H)?(\d{1,9}M)?(\d{1,9}([.,]\d{1,9})?S?)?)?$`)

func validateDuration(field, s string) error {
	if s == "" || (isoDuration.MatchString(s) && s != "P" && !strings.HasSuffix(s, "T")) {
		return nil
	}
	return Invalid(field, "%s %s is not an ISO 8601 duration: use a form such as P1D, PT15M or P1Y2M3DT4H5M6S", field, quote(s))
}

// dateTimes are the forms of an ISO 8601 date-time that clients send, with and
// without a zone; a fraction of a second is read by all of them.
var dateTimes = []string{time.RFC3339, "2006-01-02T15:04:05Z0700", "2006-01-02T15:04:05", "2006-01-02T15:04", "2006-01-02"}

func validateDateTime(field, s string) error {
	if s == "" {
		return nil
	}
	for _, f := range dateTimes {
		if _, err := time.Parse(f, s); err == nil {
			return nil
		}
	}
	return Invalid(field, "%s %s is not an ISO 8601 date-time: use a form such as 2019-09-07T07:02:35Z", field, quote(s))
}

// ValidateCustom bounds a free-form object: its depth, the number of its
// entries, and the bytes of its text.
func ValidateCustom(field string, m map[string]any) error {
	c := customCounter{field: field}
	return c.object(m, 1)
}

type customCounter struct {
	field          string
	entries, bytes int
}

func (c *customCounter) object(m map[string]any, depth int) error {
	for k, v := range m {
		if k == "" {
			return Invalid(c.field, "%s has an empty key", c.field)
		}
		if err := validateText(c.field, k, MaxName); err != nil {
			return Invalid(c.field, "%s has a key that is too long or not plain text (at most %d characters)", c.field, MaxName)
		}
		c.bytes += len(k)
		if err := c.value(v, depth); err != nil {
			return err
		}
	}
	return nil
}

func (c *customCounter) value(v any, depth int) error {
	if c.entries++; c.entries > MaxCustomEntries {
		return Invalid(c.field, "%s has more than %d entries", c.field, MaxCustomEntries)
	}
	if depth > MaxCustomDepth {
		return Invalid(c.field, "%s is nested more than %d levels deep", c.field, MaxCustomDepth)
	}
	switch x := v.(type) {
	case string:
		c.bytes += len(x)
	case map[string]any:
		if err := c.object(x, depth+1); err != nil {
			return err
		}
	case []any:
		for _, e := range x {
			if err := c.value(e, depth+1); err != nil {
				return err
			}
		}
	}
	if c.bytes > MaxCustomBytes {
		return Invalid(c.field, "%s has more than %d bytes of text", c.field, MaxCustomBytes)
	}
	return nil
}

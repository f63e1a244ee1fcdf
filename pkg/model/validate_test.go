package model

import (
	"strings"
	"testing"
)

// wantField fails unless err is an invalid-request error that names the field.
func wantField(t *testing.T, what string, err error, field string) {
	t.Helper()
	if field == "" {
		if err != nil {
			t.Errorf("%s: %v", what, err)
		}
		return
	}
	e := AsError(err)
	if e == nil || e.Kind != KindInvalid || e.Field != field || e.Message == "" {
		t.Errorf("%s: %+v, want an error about %s", what, e, field)
	}
}

func TestValidateVolumeName(t *testing.T) {
	for name, field := range map[string]string{
		"v1": "", "A b_c-9": "", strings.Repeat("x", 255): "",
		"": "name", strings.Repeat("x", 256): "name", "bad/name": "name", "é": "name", "a\n": "name", "$(id)": "name",
	} {
		wantField(t, name, ValidateVolumeName(name), field)
	}
	// Texts that clients of the original may look at.
	for name, text := range map[string]string{
		"":         "empty volume name is not allowed. Please give valid name",
		"bad/name": "invalid volume name, it should only contain english char and number  : bad/name",
	} {
		if err := ValidateVolumeName(name); err.Error() != text {
			t.Error(err)
		}
	}
}

func TestValidateText(t *testing.T) {
	wantField(t, "empty allowed", ValidateName("name", "", false), "")
	wantField(t, "empty refused", ValidateName("name", "", true), "name")
	wantField(t, "other letters", ValidateName("name", "größe", true), "")
	wantField(t, "255 letters of two bytes", ValidateName("name", strings.Repeat("é", 255), true), "")
	wantField(t, "256", ValidateName("name", strings.Repeat("é", 256), true), "name")
	wantField(t, "control", ValidateName("name", "a\x00b", true), "name")
	wantField(t, "escape", ValidateName("name", "a\x1b[2Jb", true), "name")
	wantField(t, "not UTF-8", ValidateName("name", "a\xff", true), "name")
	wantField(t, "lines", ValidateDescription("a\nb\tc"), "")
	wantField(t, "1024", ValidateDescription(strings.Repeat("x", 1024)), "")
	wantField(t, "1025", ValidateDescription(strings.Repeat("x", 1025)), "description")
	wantField(t, "mountpoint", ValidateMountpoint("/mnt/a b"), "")
	wantField(t, "mountpoint", ValidateMountpoint("/mnt\x07"), "mountpoint")
	wantField(t, "zone", ValidateZone("availabilityZone", strings.Repeat("z", 256)), "availabilityZone")
	for mode, field := range map[string]string{"": "", "ro": "", "RW": "", "wr": "attachMode"} {
		wantField(t, mode, ValidateAttachMode(mode), field)
	}
}

func TestValidateMetadata(t *testing.T) {
	many := map[string]string{}
	for i := range MaxMetadataKeys + 1 {
		many[strings.Repeat("k", i+1)] = ""
	}
	wantField(t, "too many", ValidateMetadata("metadata", many), "metadata")
	delete(many, "k")
	wantField(t, "just enough", ValidateMetadata("metadata", many), "")
	wantField(t, "empty key", ValidateMetadata("metadata", map[string]string{"": "x"}), "metadata")
	wantField(t, "long key", ValidateMetadata("metadata", map[string]string{strings.Repeat("k", 256): "x"}), "metadata")
	wantField(t, "long value", ValidateMetadata("metadata", map[string]string{"k": strings.Repeat("v", 1025)}), "metadata.k")
	wantField(t, "nil", ValidateMetadata("metadata", nil), "")
}

func TestValidateSizes(t *testing.T) {
	for gb, field := range map[int64]string{1: "", MaxVolumeGB: "", 0: "size", -1: "size", MaxVolumeGB + 1: "size", 1 << 62: "size"} {
		wantField(t, "size", ValidateSizeGB("size", gb), field)
	}
	if err := ValidateSizeGB("size", 0); err.Error() != "invalid volume size: 0" {
		t.Error(err)
	}
	wantField(t, "grow", ValidateExtend(GiB, 2), "")
	wantField(t, "too big", ValidateExtend(GiB, MaxVolumeGB+1), "newSize")
	err := ValidateExtend(GiB, 1)
	wantField(t, "same", err, "newSize")
	if err.Error() != "new size for extend must be greater than current size.(current: 1 GB, extended: 1 GB)." {
		t.Error(err)
	}
}

func TestValidateProfile(t *testing.T) {
	for _, c := range []struct {
		field  string
		change func(*Profile)
	}{
		{"", func(*Profile) {}},
		{"", func(p *Profile) { p.StorageType = "FILE" }},
		{"storageType", func(p *Profile) { p.StorageType = "" }},
		{"name", func(p *Profile) { p.Name = "" }},
		{"description", func(p *Profile) { p.Description = strings.Repeat("x", 1025) }},
		{"provisioningProperties.dataStorage.provisioningPolicy", func(p *Profile) { p.Provisioning.DataStorage.ProvisioningPolicy = "Foo" }},
		{"", func(p *Profile) { p.Provisioning.DataStorage.ProvisioningPolicy = "thin" }},
		{"provisioningProperties.dataStorage.recoveryTimeObjective", func(p *Profile) { p.Provisioning.DataStorage.RecoveryTimeObjective = -1 }},
		{"provisioningProperties.dataStorage.maxFileNameLengthBytes", func(p *Profile) { p.Provisioning.DataStorage.MaxFileNameLengthBytes = -1 }},
		{"provisioningProperties.dataStorage.storageAccessCapability", func(p *Profile) {
			p.Provisioning.DataStorage.StorageAccessCapability = []string{"Read", "Fly"}
		}},
		{"provisioningProperties.dataStorage.storageAccessCapability", func(p *Profile) {
			p.Provisioning.DataStorage.StorageAccessCapability = []string{"Read", "Read", "Read", "Read"}
		}},
		{"provisioningProperties.ioConnectivity.accessProtocol", func(p *Profile) { p.Provisioning.IOConnectivity.AccessProtocol = "pigeon" }},
		{"", func(p *Profile) { p.Provisioning.IOConnectivity.AccessProtocol = "DSWARE" }},
		{"provisioningProperties.ioConnectivity.latency", func(p *Profile) { p.Provisioning.IOConnectivity.Latency = -5 }},
		{"provisioningProperties.ioConnectivity.minIOPS", func(p *Profile) {
			p.Provisioning.IOConnectivity.MinIOPS, p.Provisioning.IOConnectivity.MaxIOPS = 10, 5
		}},
		{"provisioningProperties.ioConnectivity.minBWS", func(p *Profile) {
			p.Provisioning.IOConnectivity.MinBWS, p.Provisioning.IOConnectivity.MaxBWS = 10, 5
		}},
		{"", func(p *Profile) { p.Provisioning.IOConnectivity.MinIOPS = 10 }},
		{"replicationProperties.dataProtection.recoveryGeographicObjective", func(p *Profile) {
			p.Replication.DataProtection.RecoveryGeographicObject = "Moon"
		}},
		{"replicationProperties.dataProtection.recoveryTimeObjective", func(p *Profile) { p.Replication.DataProtection.RecoveryTimeObjective = "x" }},
		{"replicationProperties.dataProtection.replicaType", func(p *Profile) { p.Replication.DataProtection.ReplicaType = "x" }},
		{"replicationProperties.dataProtection.minLifetime", func(p *Profile) { p.Replication.DataProtection.MinLifetime = "1 year" }},
		{"replicationProperties.replicaInfos.replicaUpdateMode", func(p *Profile) { p.Replication.ReplicaInfos.ReplicaUpdateMode = "x" }},
		{"replicationProperties.replicaInfos.replicationBandwidth", func(p *Profile) { p.Replication.ReplicaInfos.ReplicationBandwidth = -1 }},
		{"replicationProperties.replicaInfos.replicationPeriod", func(p *Profile) { p.Replication.ReplicaInfos.ReplicationPeriod = "5 m" }},
		{"snapshotProperties.schedule.datetime", func(p *Profile) { p.Snapshot.Schedule.Datetime = "tomorrow" }},
		{"", func(p *Profile) { p.Snapshot.Schedule.Datetime = "2019-09-07T07:02:35.389" }},
		{"", func(p *Profile) { p.Snapshot.Schedule.Datetime = "2019-09-07T07:02:35.389Z" }},
		{"", func(p *Profile) { p.Snapshot.Schedule.Datetime = "2019-09-07T07:02:35+02:00" }},
		{"snapshotProperties.schedule.occurrence", func(p *Profile) { p.Snapshot.Schedule.Occurrence = "Never" }},
		{"snapshotProperties.retention.duration", func(p *Profile) { p.Snapshot.Retention.Duration = -1 }},
		{"snapshotProperties.retention.number", func(p *Profile) { p.Snapshot.Retention.Number = -1 }},
		{"dataProtectionProperties.dataProtection.minLifetime", func(p *Profile) { p.Protection.DataProtection.MinLifetime = "P" }},
		{"customProperties", func(p *Profile) { p.Custom = map[string]any{"": 1} }},
	} {
		p := &Profile{Meta: Meta{Name: "p"}, StorageType: "block"}
		c.change(p)
		wantField(t, c.field, ValidateProfile(p), c.field)
	}
	wantField(t, "extras", ValidateExtras(&PoolExtras{DataStorage: DataStorage{ProvisioningPolicy: "x"}}), "extras.dataStorage.provisioningPolicy")
}

func TestDurations(t *testing.T) {
	for s, ok := range map[string]bool{
		"P3Y6M4DT12H30M5S": true, "P1D": true, "PT15M": true, "PT0.5S": true, "P2W": true, "P3Y6M4DT12H30M55": true,
		"": true, "P": false, "PT": false, "P1DT": false, "1D": false, "P1H": false, "PT1D": false, "P-1D": false, "p1d": false,
	} {
		if err := validateDuration("f", s); (err == nil) != ok {
			t.Errorf("%q: %v", s, err)
		}
	}
}

func TestValidateCustom(t *testing.T) {
	deep := map[string]any{"x": 1}
	for range MaxCustomDepth {
		deep = map[string]any{"d": deep}
	}
	wantField(t, "too deep", ValidateCustom("customProperties", deep), "customProperties")
	wantField(t, "deep", ValidateCustom("customProperties", deep["d"].(map[string]any)), "")
	list := []any{}
	for range MaxCustomEntries {
		list = append(list, 1)
	}
	wantField(t, "many", ValidateCustom("customProperties", map[string]any{"l": list}), "customProperties")
	wantField(t, "fewer", ValidateCustom("customProperties", map[string]any{"l": list[1:]}), "")
	wantField(t, "big", ValidateCustom("customProperties", map[string]any{"s": strings.Repeat("x", MaxCustomBytes)}), "customProperties")
	wantField(t, "typical", ValidateCustom("customProperties", map[string]any{
		"capabilities:extras.advanced.diskType": "<or> SSD <or> NVME", "key3": map[string]any{"key31": true}, "n": nil}), "")
}

func TestValidateHost(t *testing.T) {
	for _, c := range []struct {
		field  string
		change func(*Host)
	}{
		{"", func(*Host) {}},
		{"hostName", func(h *Host) { h.HostName = "" }},
		{"hostName", func(h *Host) { h.HostName = "a b" }},
		{"hostName", func(h *Host) { h.HostName = "-a" }},
		{"hostName", func(h *Host) { h.HostName = strings.Repeat("a", 256) }},
		{"", func(h *Host) { h.HostName = "node-1.example.org" }},
		{"osType", func(h *Host) { h.OSType = "beos" }},
		{"", func(h *Host) { h.OSType = "Linux" }},
		{"accessMode", func(h *Host) { h.AccessMode = "x" }},
		{"ip", func(h *Host) { h.IP = "10.0.0" }},
		{"ip", func(h *Host) { h.IP = "fe80::1%eth0" }},
		{"", func(h *Host) { h.IP = "fe80::1" }},
		{"port", func(h *Host) { h.Port = 65536 }},
		{"port", func(h *Host) { h.Port = -1 }},
		{"availabilityZones[0]", func(h *Host) { h.AvailabilityZones = []string{""} }},
		{"availabilityZones", func(h *Host) { h.AvailabilityZones = make([]string, MaxHostZones+1) }},
		{"username", func(h *Host) { h.Username = "a\x00" }},
		{"initiators", func(h *Host) { h.Initiators = make([]Initiator, MaxHostInitiators+1) }},
		{"initiators[1].portName", func(h *Host) { h.Initiators = []Initiator{{"iqn.a:b", "iscsi"}, {"iqn.a:b", "iscsi"}} }},
		{"initiators[0].portName", func(h *Host) { h.Initiators = []Initiator{{"iqn.a; rm -rf", "iscsi"}} }},
	} {
		h := &Host{HostName: "h1", OSType: "linux", AccessMode: "agentless", IP: "10.0.0.1", AvailabilityZones: []string{"default"}}
		c.change(h)
		wantField(t, c.field, ValidateHost(h), c.field)
	}
}

func TestValidateInitiator(t *testing.T) {
	for _, c := range []struct{ name, protocol, field string }{
		{"iqn.1993-08.org.debian:01:abc", "iscsi", ""},
		{"iqn.a:b", "iscsi", ""}, // as the original's tests have it
		{"eui.02004567A425678D", "ISCSI", ""},
		{"naa.52004567BA64678D", "iscsi", ""},
		{"nqn.2014-08.org.nvmexpress:uuid:f81d4fae-7dec-11d0-a765-00a0c91e6bf6", "nvmeof", ""},
		{"10000090fa1b2c3d", "fibre_channel", ""},
		{"10:00:00:90:fa:1b:2c:3d", "fibre_channel", ""},
		{"0x10000090fa1b2c3d", "fibre_channel", ""},
		{"nqn.2014-08.org:x", "iscsi", "portName"},
		{"iqn.1993-08.org.debian:01:abc", "nvmeof", "portName"},
		{"2001:db8::7", "rbd", ""},
		{"192.0.2.7", "rbd", ""},
		{"2001:db8:::7", "rbd", "portName"},
		{"10000090fa1b2c3", "fibre_channel", "portName"},
		{"iqn." + strings.Repeat("x", 220), "iscsi", "portName"},
		{"iqn.a b", "iscsi", "portName"},
		{"", "iscsi", "portName"},
		{"iqn.a:b", "", "protocol"},
		{"iqn.a:b", "smoke", "protocol"},
	} {
		wantField(t, c.name+" "+c.protocol, ValidateInitiator(Initiator{PortName: c.name, Protocol: c.protocol}), c.field)
	}
}

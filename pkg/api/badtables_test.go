package api

import (
	"fmt"
	"strings"
)

func badVolumes() []bad {
	right := map[string]string{"name": `"v"`, "size": `1`, "profileId": `"{profile}"`}
	keys := `{"k0":"v"`
	for i := range 64 {
		keys += fmt.Sprintf(`,"key%d":"v"`, i)
	}
	keys += "}"
	out := badFields("/block/volumes", right, []string{
		`name name -`, `name name ""`, `name name 5`, `name name null`, `name name []`, `name name {}`, `name name true`, `name name "{long}"`,
		`name name "bad/name"`, `name name "größe"`, `name name "a\nb"`, `name name "a\u0000b"`, `name name ";rm -rf /"`, `name name "../../etc"`, `name name "$(id)"`,
		`size size -`, `size size 0`, `size size -1`, `size size 1.5`, `size size "1"`, `size size null`, `size size 1e3`, `size size 9223372036854775807`,
		`size size 9223372036854775808`, `size size 1e400`, `size size -9223372036854775808`, `size size 1073741825`, `size size true`, `size size [1]`, `size size {}`,
		`description description "{longer}"`, `description description 1`, `description description "a\u0007b"`, `description description ["x"]`,
		`availabilityZone availabilityZone 1`, `availabilityZone availabilityZone "{long}"`, `availabilityZone availabilityZone "a\u0001"`,
		`profileId profileId 1`, `profileId profileId "{none}"`, `profileId profileId "{file}"`, `profileId profileId "../x"`, `profileId profileId "{huge}"`, `profileId profileId "{vol}"`,
		`poolId poolId 1`, `poolId poolId "{none}"`, `poolId poolId "{profile}"`, `poolId poolId "{huge}"`,
		`snapshotId snapshotId "{none}"`, `snapshotId snapshotId "{theirsnap}"`, `snapshotId snapshotId 7`, `snapshotId snapshotId "{vol}"`,
		`sourceVolumeId sourceVolumeId "{none}"`, `sourceVolumeId sourceVolumeId "{theirvol}"`, `sourceVolumeId sourceVolumeId 7`, `sourceVolumeId sourceVolumeId "{snap}"`,
		`groupId groupId "{none}"`, `groupId groupId "{theirgroup}"`, `groupId groupId 7`,
		`multiAttach multiAttach "yes"`, `multiAttach multiAttach 1`,
		`metadata metadata "x"`, `metadata metadata []`, `metadata metadata {"":"x"}`, `metadata metadata {"{long}":"x"}`, `metadata metadata.a {"a":"{longer}"}`,
		`metadata metadata.a {"a":"\u0000"}`, `snapshotFromCloud snapshotFromCloud true`, `snapshotFromCloud snapshotFromCloud "x"`, `replicationId replicationId "x"`,
		`id id "x"`, `id id 5`, `id id "0000"`, `id id "ABCDEF01-0000-7000-8000-000000000000"`, `id id "../../../../etc/passwd"`, `id id "{huge}"`,
	})
	out = append(out, badFields("/block/volumes", right, []string{`metadata metadata ` + keys})...)
	return append(out, []bad{
		{"POST", "/block/volumes", `{"name":"v","size":1,"profileId":"{profile}","metadata":{"a":1}}`, 400, "metadata", nil},
		{"POST", "/block/volumes", `{"name":"v","size":1,"profileId":"{profile}","metadata":{"a":{"b":"c"}}}`, 400, "metadata", nil},
		{"POST", "/block/volumes", `{"name":"v","size":1,"profileId":"{profile}","metadata":{"a":["b"]}}`, 400, "metadata", nil},
		{"POST", "/block/volumes", `{"name":"v","size":1}`, 400, "profileId", nil}, // there is no default profile
		{"POST", "/block/volumes", `{"name":"v","size":1,"profileId":"{profile}","snapshotId":"{snap}","sourceVolumeId":"{vol}"}`, 400, "sourceVolumeId", nil},
		{"POST", "/block/volumes", `{"name":"v","size":2,"profileId":"{profile}","snapshotId":"{snap}"}`, 400, "size", nil},
		{"POST", "/block/volumes", `{"name":"v","size":2,"profileId":"{profile}","sourceVolumeId":"{vol}"}`, 400, "size", nil},
		{"POST", "/block/volumes", `{"name":"v","size":3,"profileId":"{profile}","snapshotId":"{making}"}`, 400, "", nil},
		{"POST", "/block/volumes", `{"name":"v","size":3,"profileId":"{profile}","sourceVolumeId":"{busy}"}`, 400, "", nil},
		{"POST", "/block/volumes", `{"name":"v","size":3,"profileId":"{profile}","snapshotId":"{snap}","poolId":"{elsewhere}"}`, 400, "poolId", nil},
		{"POST", "/block/volumes", `{"name":"v","size":1,"profileId":"{second}","groupId":"{group}"}`, 400, "profileId", nil},
		{"POST", "/block/volumes", `{"name":"v","size":1,"profileId":"{profile}","poolId":"{elsewhere}","availabilityZone":"default"}`, 400, "availabilityZone", nil},
		{"POST", "/block/volumes", `{"name":"v","size":1,"profileId":"{profile}","id":"{vol}"}`, 409, "id", nil},
		{"POST", "/block/volumes", `{"name":"v","size":1,"profileId":"{profile}","id":"{theirvol}"}`, 409, "id", nil},
		{"POST", "/block/volumes?dryRun=yes", badVolume("name", `"v"`), 400, "dryRun", nil},
		{"POST", "/block/volumes?dryRun=explain&maxPools=-1", badVolume("name", `"v"`), 400, "maxPools", nil},
		{"POST", "/block/volumes?dryRun=explain&maxPools=x", badVolume("name", `"v"`), 400, "maxPools", nil},
		{"POST", "/block/volumes?dryRun=%zz", badVolume("name", `"v"`), 400, "", nil},

		{"POST", "/block/volumes/{vol}/resize", ``, 400, "", nil},
		{"POST", "/block/volumes/{vol}/resize", `{}`, 400, "newSize", nil},
		{"POST", "/block/volumes/{vol}/resize", `{"newSize":3}`, 400, "newSize", nil},
		{"POST", "/block/volumes/{vol}/resize", `{"newSize":1}`, 400, "newSize", nil},
		{"POST", "/block/volumes/{vol}/resize", `{"newSize":-5}`, 400, "newSize", nil},
		{"POST", "/block/volumes/{vol}/resize", `{"newSize":"5"}`, 400, "newSize", nil},
		{"POST", "/block/volumes/{vol}/resize", `{"newSize":5.5}`, 400, "newSize", nil},
		{"POST", "/block/volumes/{vol}/resize", `{"newSize":null}`, 400, "newSize", nil},
		{"POST", "/block/volumes/{vol}/resize", `{"newSize":1073741825}`, 400, "newSize", nil},
		{"POST", "/block/volumes/{vol}/resize", `{"newSize":99999999999999999999}`, 400, "newSize", nil},
		{"POST", "/block/volumes/{none}/resize", `{"newSize":5}`, 404, "", nil},
		{"POST", "/block/volumes/{theirvol}/resize", `{"newSize":5}`, 404, "", nil},
		{"POST", "/block/volumes/{busy}/resize", `{"newSize":5}`, 400, "", nil},

		{"PUT", "/block/volumes/{vol}", ``, 400, "", nil},
		{"PUT", "/block/volumes/{vol}", `[]`, 400, "", nil},
		{"PUT", "/block/volumes/{vol}", `{"name":""}`, 400, "name", nil},
		{"PUT", "/block/volumes/{vol}", `{"name":"a/b"}`, 400, "name", nil},
		{"PUT", "/block/volumes/{vol}", `{"name":7}`, 400, "name", nil},
		{"PUT", "/block/volumes/{vol}", `{"description":7}`, 400, "description", nil},
		{"PUT", "/block/volumes/{vol}", `{"description":"{longer}"}`, 400, "description", nil},
		{"PUT", "/block/volumes/{vol}", `{"size":4}`, 400, "size", nil},
		{"PUT", "/block/volumes/{vol}", `{"status":"available2"}`, 400, "status", nil},
		{"PUT", "/block/volumes/{vol}", `{"status":"error"}`, 400, "status", nil},
		{"PUT", "/block/volumes/{vol}", `{"poolId":"{elsewhere}"}`, 400, "poolId", nil},
		{"PUT", "/block/volumes/{vol}", `{"profileId":"{second}"}`, 400, "profileId", nil},
		{"PUT", "/block/volumes/{vol}", `{"tenantId":"x"}`, 400, "tenantId", nil},
		{"PUT", "/block/volumes/{vol}", `{"id":"{none}"}`, 400, "id", nil},
		{"PUT", "/block/volumes/{vol}", `{"metadata":"x"}`, 400, "metadata", nil},
		{"PUT", "/block/volumes/{vol}", `{"metadata":{"a":1}}`, 400, "metadata", nil},
		{"PUT", "/block/volumes/{vol}", `{"metadata":{"lvPath":"/dev/sda"}}`, 400, "metadata.lvPath", nil},
		{"PUT", "/block/volumes/{vol}", `{"metadata":{"lvPath":null}}`, 400, "metadata.lvPath", nil},
		{"PUT", "/block/volumes/{none}", `{"name":"x"}`, 404, "", nil},
		{"PUT", "/block/volumes/{theirvol}", `{"name":"x"}`, 404, "", nil},

		{"DELETE", "/block/volumes/{vol}", ``, 400, "", nil},    // it has a snapshot
		{"DELETE", "/block/volumes/{used}", ``, 400, "", nil},   // it is attached
		{"DELETE", "/block/volumes/{member}", ``, 400, "", nil}, // a snapshot is being made
		{"DELETE", "/block/volumes/{busy}", ``, 400, "", nil},
		{"DELETE", "/block/volumes/{none}", ``, 404, "", nil},
		{"DELETE", "/block/volumes/{theirodd}", ``, 404, "", nil},
		{"GET", "/block/volumes/{theirvol}", ``, 404, "", nil},
		{"GET", "/block/volumes/{theirvol}/explanation", ``, 404, "", nil},
	}...)
}

// badBodies are wrong whatever the call: each is sent to every call that reads a
// body.
func badBodies() (out []bad) {
	deep := func(n int) string { return strings.Repeat(`{"a":`, n) + `1` + strings.Repeat(`}`, n) }
	for _, path := range []string{
		"POST /block/volumes", "POST /block/snapshots", "POST /block/attachments", "POST /block/volumeGroups", "POST /host/hosts", "POST /profiles",
		"POST /block/volumes/{vol}/resize", "PUT /block/volumes/{vol}", "PUT /block/snapshots/{snap}", "PUT /block/attachments/{att}",
		"PUT /block/volumeGroups/{group}", "PUT /host/hosts/{host}", "PUT /profiles/{profile}", "POST /profiles/{profile}/customProperties",
	} {
		method, p, _ := strings.Cut(path, " ")
		for _, body := range []string{
			"", " \n\t", "null", "[]", "[{}]", `"x"`, "5", "true", `{"name":"v"`, `{"name":"v",}`, `{} x`, `{}{}`, `{}]`, `{'name':'v'}`, `{name:"v"}`,
			`{"name":"v" /* c */}`, `{"size":NaN}`, "\xef\xbb\xbf{}", `{"name":"\x"}`, `{"size":01}`, "\xff\xfe{\x00}\x00", `<volume/>`, `name=v&size=1`,
			strings.Repeat("[", 100000), `{"metadata":` + deep(20000) + `}`, "\x00",
		} {
			out = append(out, bad{method, p, body, 400, "", nil})
		}
	}
	// A revert needs no body, but not just any.
	for _, body := range []string{"[]", "5", `{"a"`, `{} x`} {
		out = append(out, bad{"POST", "/block/snapshots/{snap}/revert", body, 400, "", nil})
	}
	// Too large: the client waits for leave before it sends so much.
	large := `{"name":"` + strings.Repeat("x", 10<<20) + `"}`
	for _, path := range []string{"/block/volumes", "/profiles", "/host/hosts"} {
		out = append(out, bad{"POST", path, large, 413, "", []string{"Expect", "100-continue"}})
	}
	return out
}

func badSnapshots() []bad {
	right := map[string]string{"name": `"s"`, "volumeId": `"{vol}"`}
	out := badFields("/block/snapshots", right, []string{
		`volumeId volumeId -`, `volumeId volumeId ""`, `volumeId volumeId 5`, `volumeId volumeId "{none}"`, `volumeId volumeId "{theirvol}"`, `volumeId volumeId "{snap}"`,
		`volumeId volumeId "{huge}"`, `name name "{long}"`, `name name 5`, `name name "a\u0000"`, `description description "{longer}"`, `description description {}`,
		`profileId profileId "{none}"`, `profileId profileId 5`, `metadata metadata "x"`, `metadata metadata {"":"x"}`, `metadata metadata.a {"a":"{longer}"}`,
		`id id "x"`, `id id 1`,
	})
	return append(out, []bad{
		{"POST", "/block/snapshots", `{"volumeId":"{busy}"}`, 400, "", nil},
		{"POST", "/block/snapshots", `{"volumeId":"{vol}","id":"{snap}"}`, 409, "id", nil},
		{"POST", "/block/snapshots", `{"volumeId":"{vol}","id":"{theirsnap}"}`, 409, "id", nil},
		{"PUT", "/block/snapshots/{snap}", `{"name":"{long}"}`, 400, "name", nil},
		{"PUT", "/block/snapshots/{snap}", `{"name":5}`, 400, "name", nil},
		{"PUT", "/block/snapshots/{snap}", `{"volumeId":"{odd}"}`, 400, "volumeId", nil},
		{"PUT", "/block/snapshots/{snap}", `{"size":9}`, 400, "size", nil},
		{"PUT", "/block/snapshots/{snap}", `{"status":"error"}`, 400, "status", nil},
		{"PUT", "/block/snapshots/{theirsnap}", `{"name":"x"}`, 404, "", nil},
		{"POST", "/block/snapshots/{none}/revert", ``, 404, "", nil},
		{"POST", "/block/snapshots/{theirsnap}/revert", ``, 404, "", nil},
		{"POST", "/block/snapshots/{snap}/revert", `{"volumeId":"{odd}"}`, 400, "volumeId", nil},
		{"POST", "/block/snapshots/{snap}/revert", `{"volumeId":5}`, 400, "volumeId", nil},
		{"POST", "/block/snapshots/{making}/revert", ``, 400, "", nil},
		{"DELETE", "/block/snapshots/{making}", ``, 400, "", nil},
		{"DELETE", "/block/snapshots/{theirsnap}", ``, 404, "", nil},
		{"GET", "/block/snapshots/{theirsnap}", ``, 404, "", nil},
	}...)
}

func badAttachments() []bad {
	right := map[string]string{"volumeId": `"{vol}"`, "hostId": `"{host}"`}
	out := badFields("/block/attachments", right, []string{
		`volumeId volumeId -`, `volumeId volumeId ""`, `volumeId volumeId 5`, `volumeId volumeId "{none}"`, `volumeId volumeId "{theirvol}"`, `volumeId volumeId "{huge}"`,
		`hostId hostId -`, `hostId hostId ""`, `hostId hostId 5`, `hostId hostId "{none}"`, `hostId hostId "{theirhost}"`, `hostId hostId "{vol}"`, `hostId hostId "{lone}"`,
		`attachMode attachMode "rwx"`, `attachMode attachMode 5`, `mountpoint mountpoint "{longer}"`, `mountpoint mountpoint 5`, `mountpoint mountpoint "/a\u0000b"`,
		`metadata metadata 5`, `metadata metadata {"":""}`, `id id "x"`,
	})
	return append(out, []bad{
		{"POST", "/block/attachments", `{"volumeId":"{used}","hostId":"{host}"}`, 400, "", nil},
		{"POST", "/block/attachments", `{"volumeId":"{busy}","hostId":"{host}"}`, 400, "", nil},
		{"POST", "/block/attachments", `{"volumeId":"{vol}","hostId":"{host}","id":"{att}"}`, 409, "id", nil},
		{"POST", "/block/attachments", `{"volumeId":"{vol}","hostId":"{host}","id":"{theiratt}"}`, 409, "id", nil},
		{"PUT", "/block/attachments/{att}", `{"mountpoint":5}`, 400, "mountpoint", nil},
		{"PUT", "/block/attachments/{att}", `{"mountpoint":"{longer}"}`, 400, "mountpoint", nil},
		{"PUT", "/block/attachments/{att}", `{"hostId":"{lone}"}`, 400, "hostId", nil},
		{"PUT", "/block/attachments/{att}", `{"volumeId":"{vol}"}`, 400, "volumeId", nil},
		{"PUT", "/block/attachments/{att}", `{"status":"error"}`, 400, "status", nil},
		{"PUT", "/block/attachments/{att}", `{"connectionInfo":{"driverVolumeType":"rbd"}}`, 400, "connectionInfo", nil},
		{"PUT", "/block/attachments/{theiratt}", `{"mountpoint":"/x"}`, 404, "", nil},
		{"DELETE", "/block/attachments/{theiratt}", ``, 404, "", nil},
		{"DELETE", "/block/attachments/{none}", ``, 404, "", nil},
		{"GET", "/block/attachments/{theiratt}", ``, 404, "", nil},
	}...)
}

func badHosts() []bad {
	right := map[string]string{"hostName": `"h"`, "availabilityZones": `["default"]`}
	ini := func(s string) string { return `initiators ` + s }
	zones, inis := `["z"`, `[{"portName":"iqn.2020-01.a:0","protocol":"iscsi"}`
	for i := range 129 {
		zones += `,"z"`
		inis += fmt.Sprintf(`,{"portName":"iqn.2020-01.a:%d","protocol":"iscsi"}`, i+1)
	}
	zones, inis = zones+"]", inis+"]"
	out := badFields("/host/hosts", right, []string{
		`hostName hostName -`, `hostName hostName ""`, `hostName hostName 5`, `hostName hostName "a b"`, `hostName hostName "-a"`, `hostName hostName "a;b"`,
		`hostName hostName "{long}"`, `hostName hostName "{hostName}"`, `hostName hostName "ä"`, `osType osType "beos"`, `osType osType 5`, `accessMode accessMode "x"`,
		`ip ip "10.0.0.300"`, `ip ip "10.0.0.1/24"`, `ip ip "host"`, `ip ip 5`, `ip ip "fe80::1%eth0"`, `port port -1`, `port port 65536`, `port port "22"`, `port port 1.5`,
		`username username "{long}"`, `username username 5`,
		`availabilityZones availabilityZones "default"`, `availabilityZones availabilityZones [1]`, `availabilityZones availabilityZones[0] [""]`,
		`availabilityZones availabilityZones[1] ["a","{long}"]`, `availabilityZones availabilityZones ` + zones,
		ini(`initiators "x"`), ini(`initiators [1]`), ini(`initiators[0].portName [{}]`), ini(`initiators[0].protocol [{"portName":"iqn.2020-01.a:b"}]`),
		ini(`initiators[0].protocol [{"portName":"iqn.2020-01.a:b","protocol":"smb"}]`), ini(`initiators[0].portName [{"portName":"x","protocol":"iscsi"}]`),
		ini(`initiators[0].portName [{"portName":"iqn.2020-01.a:b c","protocol":"iscsi"}]`), ini(`initiators[0].portName [{"portName":"nqn.x y","protocol":"nvmeof"}]`),
		ini(`initiators[0].portName [{"portName":"123","protocol":"fibre_channel"}]`),
		ini(`initiators[1].portName [{"portName":"iqn.2020-01.a:b","protocol":"iscsi"},{"portName":"iqn.2020-01.a:b","protocol":"iscsi"}]`),
		ini(`initiators ` + inis), `id id "x"`,
	})
	return append(out, []bad{
		{"POST", "/host/hosts", `{"hostName":"n","id":"{host}"}`, 409, "id", nil},
		{"POST", "/host/hosts", `{"hostName":"n","id":"{theirhost}"}`, 409, "id", nil},
		{"PUT", "/host/hosts/{host}", `{"hostName":""}`, 400, "hostName", nil},
		{"PUT", "/host/hosts/{host}", `{"hostName":"a b"}`, 400, "hostName", nil},
		{"PUT", "/host/hosts/{lone}", `{"hostName":"{hostName}"}`, 400, "hostName", nil},
		{"PUT", "/host/hosts/{host}", `{"port":70000}`, 400, "port", nil},
		{"PUT", "/host/hosts/{host}", `{"port":"22"}`, 400, "port", nil},
		{"PUT", "/host/hosts/{host}", `{"ip":"x"}`, 400, "ip", nil},
		{"PUT", "/host/hosts/{host}", `{"osType":"x"}`, 400, "osType", nil},
		{"PUT", "/host/hosts/{host}", `{"initiators":[{"portName":"x"}]}`, 400, "initiators[0].protocol", nil},
		{"PUT", "/host/hosts/{host}", `{"availabilityZones":5}`, 400, "availabilityZones", nil},
		{"PUT", "/host/hosts/{host}", `{"tenantId":"x"}`, 400, "tenantId", nil},
		{"PUT", "/host/hosts/{theirhost}", `{"ip":"10.0.0.1"}`, 404, "", nil},
		{"DELETE", "/host/hosts/{host}", ``, 400, "", nil}, // a volume is attached
		{"DELETE", "/host/hosts/{theirlone}", ``, 404, "", nil},
		{"GET", "/host/hosts/{theirhost}", ``, 404, "", nil},
	}...)
}

func badProfiles() []bad {
	right := map[string]string{"name": `"p"`, "storageType": `"block"`}
	const (
		ds = "provisioningProperties.dataStorage."
		io = "provisioningProperties.ioConnectivity."
		dp = "replicationProperties.dataProtection."
		ri = "replicationProperties.replicaInfos."
		sn = "snapshotProperties."
		pp = "dataProtectionProperties.dataProtection."
	)
	// in wraps a value in the objects that a path names.
	in := func(path, value string) string {
		fields := strings.Split(path, ".")
		for i := len(fields) - 1; i > 0; i-- {
			value = fmt.Sprintf(`{%q:%s}`, fields[i], value)
		}
		return fields[0] + " " + path + " " + value
	}
	entries := ""
	for i := range 300 {
		entries += fmt.Sprintf(`,"k%d":1`, i)
	}
	custom := func(field, value string) string { return "customProperties " + field + " " + value }
	out := badFields("/profiles", right, []string{
		`name name -`, `name name ""`, `name name 5`, `name name "{long}"`, `name name "a\u0000"`, `name name "{profileName}"`,
		`storageType storageType -`, `storageType storageType "object"`, `storageType storageType ""`, `storageType storageType 5`, `description description "{longer}"`,
		`provisioningProperties provisioningProperties 5`, `provisioningProperties provisioningProperties []`, `id id "x"`,
		in(ds+"provisioningPolicy", `"Foo"`), in(ds+"provisioningPolicy", `5`), in(ds+"compression", `"yes"`), in(ds+"deduplication", `1`),
		in(ds+"recoveryTimeObjective", `-1`), in(ds+"recoveryTimeObjective", `"1"`), in(ds+"recoveryTimeObjective", `1.5`), in(ds+"maxFileNameLengthBytes", `-1`),
		in(ds+"storageAccessCapability", `"Read"`), in(ds+"storageAccessCapability", `["Fly"]`), in(ds+"storageAccessCapability", `["Read","Write","Execute","Read"]`), in(ds+"characterCodeSet", `5`),
		in(io+"accessProtocol", `"smb9"`), in(io+"maxIOPS", `-1`), in(io+"minIOPS", `"5"`), in(io+"maxBWS", `-1`), in(io+"minBWS", `1.5`), in(io+"latency", `-1`),
		in(dp+"isIsolated", `"no"`), in(dp+"minLifetime", `"1 day"`), in(dp+"minLifetime", `"P"`), in(dp+"recoveryGeographicObjective", `"Moon"`), in(dp+"recoveryPointObjectiveTime", `"15m"`),
		in(dp+"recoveryTimeObjective", `"soon"`), in(dp+"replicaType", `"Copy"`), in(ri+"replicaUpdateMode", `"Lazy"`), in(ri+"replicationBandwidth", `-1`), in(ri+"replicationPeriod", `"often"`),
		in(ri+"consistencyEnabled", `"x"`), in(sn+"schedule.datetime", `"tomorrow"`), in(sn+"schedule.datetime", `"2019-13-01"`), in(sn+"schedule.occurrence", `"Yearly"`),
		in(sn+"retention.duration", `-1`), in(sn+"retention.number", `"3"`), in(sn+"topology.bucket", `5`), in(pp+"minLifetime", `"x"`), in("dataProtectionProperties.consistencyEnabled", `5`),
		custom(`customProperties`, `"x"`), custom(`customProperties`, `[]`), custom(`customProperties`, `{"":1}`), custom(`customProperties`, `{"{long}":1}`),
		custom(`customProperties`, `{"a":`+strings.Repeat(`{"a":`, 9)+`1`+strings.Repeat(`}`, 9)+`}`), custom(`customProperties`, `{"a":1`+entries+`}`),
		custom(`customProperties`, `{"a":"`+strings.Repeat("x", 40000)+`"}`),
		custom(`customProperties.capabilities:totalCapacity`, `{"capabilities:totalCapacity":"=> 150"}`),
		custom(`customProperties.capabilities:totalCapacity`, `{"capabilities:totalCapacity":">= many"}`),
		custom(`customProperties.capabilities:extras.advanced.diskType`, `{"capabilities:extras.advanced.diskType":"<in> ["}`),
		custom(`customProperties.capabilities:extras.advanced.diskType`, `{"capabilities:extras.advanced.diskType":"<nin> SSD"}`),
		custom(`customProperties.capabilities:multiAttach`, `{"capabilities:multiAttach":"<is> perhaps"}`),
		custom(`customProperties.capabilities:a`, `{"capabilities:a":{"b":1}}`),
		custom(`customProperties.weights`, `{"weights":"x"}`),
	})
	return append(out, []bad{
		{"POST", "/profiles", `{"name":"p","storageType":"block","provisioningProperties":{"ioConnectivity":{"minIOPS":5,"maxIOPS":3}}}`, 400, io + "minIOPS", nil},
		{"POST", "/profiles", `{"name":"p","storageType":"block","provisioningProperties":{"ioConnectivity":{"minBWS":5,"maxBWS":3}}}`, 400, io + "minBWS", nil},
		{"POST", "/profiles", `{"name":"p","storageType":"block","replicationProperties":{"replicaInfos":{"replicationBandwidth":5,"replcationBandwidth":3}}}`, 400, ri + "replicationBandwidth", nil},
		{"POST", "/profiles", `{"name":"p","storageType":"block","id":"{profile}"}`, 409, "id", nil},
		{"PUT", "/profiles/{profile}", `{"name":""}`, 400, "name", nil},
		{"PUT", "/profiles/{profile}", `{"name":"{secondName}"}`, 400, "name", nil},
		{"PUT", "/profiles/{profile}", `{"storageType":"file"}`, 400, "storageType", nil},
		{"PUT", "/profiles/{profile}", `{"provisioningProperties":{"dataStorage":{"compression":true}}}`, 400, "provisioningProperties", nil},
		{"PUT", "/profiles/{profile}", `{"customProperties":5}`, 400, "customProperties", nil},
		{"PUT", "/profiles/{profile}", `{"customProperties":{"capabilities:totalCapacity":"=> 5"}}`, 400, "customProperties.capabilities:totalCapacity", nil},
		{"PUT", "/profiles/{none}", `{"name":"x"}`, 404, "", nil},
		{"POST", "/profiles/{profile}/customProperties", `{"":1}`, 400, "customProperties", nil},
		{"POST", "/profiles/{profile}/customProperties", `{"capabilities:totalCapacity":"=> 5"}`, 400, "customProperties.capabilities:totalCapacity", nil},
		{"POST", "/profiles/{none}/customProperties", `{"a":1}`, 404, "", nil},
		{"GET", "/profiles/{none}/customProperties", ``, 404, "", nil},
		{"DELETE", "/profiles/{profile}/customProperties/none", ``, 404, "customKey", nil},
		{"DELETE", "/profiles/{none}/customProperties/a", ``, 404, "", nil},
		{"DELETE", "/profiles/{profile}", ``, 400, "", nil}, // volumes have it
		{"DELETE", "/profiles/{none}", ``, 404, "", nil},
		{"GET", "/profiles/{none}", ``, 404, "", nil},
	}...)
}

func badGroups() []bad {
	right := map[string]string{"name": `"g"`, "profiles": `["{profile}"]`}
	many := `["{profile}"`
	for i := range 16 {
		many += fmt.Sprintf(`,"p%d"`, i)
	}
	out := badFields("/block/volumeGroups", right, []string{
		`profiles profiles -`, `profiles profiles []`, `profiles profiles "x"`, `profiles profiles [1]`, `profiles profiles ["{none}"]`, `profiles profiles ["{file}"]`,
		`profiles profiles [""]`, `profiles profiles ` + many + `]`, `name name "{long}"`, `name name 5`, `description description "{longer}"`,
		`availabilityZone availabilityZone 5`, `availabilityZone availabilityZone "{long}"`, `addVolumes addVolumes ["{vol}"]`, `addVolumes addVolumes "x"`, `id id "x"`,
	})
	hundred := `["{odd}"`
	for i := range 101 {
		hundred += fmt.Sprintf(`,"v%d"`, i)
	}
	return append(out, []bad{
		{"POST", "/block/volumeGroups", `{"name":"g","profiles":["{profile}"],"id":"{group}"}`, 409, "id", nil},
		{"POST", "/block/volumeGroups", `{"name":"g","profiles":["{profile}"],"id":"{theirgroup}"}`, 409, "id", nil},
		{"PUT", "/block/volumeGroups/{group}", `{}`, 400, "", nil},
		{"PUT", "/block/volumeGroups/{group}", `{"name":5}`, 400, "name", nil},
		{"PUT", "/block/volumeGroups/{group}", `{"name":"{long}"}`, 400, "name", nil},
		{"PUT", "/block/volumeGroups/{group}", `{"description":5}`, 400, "description", nil},
		{"PUT", "/block/volumeGroups/{group}", `{"addVolumes":"{vol}"}`, 400, "addVolumes", nil},
		{"PUT", "/block/volumeGroups/{group}", `{"addVolumes":[5]}`, 400, "addVolumes", nil},
		{"PUT", "/block/volumeGroups/{group}", `{"addVolumes":["{none}"]}`, 400, "addVolumes", nil},
		{"PUT", "/block/volumeGroups/{group}", `{"addVolumes":["{theirvol}"]}`, 400, "addVolumes", nil},
		{"PUT", "/block/volumeGroups/{group}", `{"addVolumes":["{odd}"]}`, 400, "addVolumes", nil},
		{"PUT", "/block/volumeGroups/{group}", `{"addVolumes":["{member}"]}`, 400, "addVolumes", nil},
		{"PUT", "/block/volumeGroups/{group}", `{"addVolumes":["{busy}"]}`, 400, "", nil},
		{"PUT", "/block/volumeGroups/{group}", `{"addVolumes":["{vol}"],"removeVolumes":["{vol}"]}`, 400, "addVolumes", nil},
		{"PUT", "/block/volumeGroups/{group}", `{"removeVolumes":["{vol}"]}`, 400, "removeVolumes", nil},
		{"PUT", "/block/volumeGroups/{group}", `{"removeVolumes":["{theirmember}"]}`, 400, "removeVolumes", nil},
		{"PUT", "/block/volumeGroups/{group}", `{"removeVolumes":{}}`, 400, "removeVolumes", nil},
		{"PUT", "/block/volumeGroups/{group}", `{"addVolumes":` + hundred + `]}`, 400, "addVolumes", nil},
		{"PUT", "/block/volumeGroups/{group}", `{"name":"x","profiles":["{second}"]}`, 400, "profiles", nil},
		{"PUT", "/block/volumeGroups/{group}", `{"name":"x","poolId":"{elsewhere}"}`, 400, "poolId", nil},
		{"PUT", "/block/volumeGroups/{theirgroup}", `{"name":"x"}`, 404, "", nil},
		{"DELETE", "/block/volumeGroups/{group}", ``, 400, "", nil}, // a member has a snapshot
		{"DELETE", "/block/volumeGroups/{theirgroup}", ``, 404, "", nil},
		{"GET", "/block/volumeGroups/{theirgroup}", ``, 404, "", nil},
	}...)
}

func badQueries() (out []bad) {
	for _, list := range []string{"/block/volumes", "/block/snapshots", "/block/attachments", "/block/volumeGroups", "/host/hosts", "/profiles", "/pools", "/docks"} {
		for _, q := range []struct{ query, field string }{
			{"limit=-1", "limit"}, {"limit=abc", "limit"}, {"limit=1.5", "limit"}, {"limit=0x10", "limit"}, {"limit=%201", "limit"},
			{"offset=-1", "offset"}, {"offset=abc", "offset"}, {"offset=1e3", "offset"},
			{"sortKey=nope", "sortKey"}, {"sortKey=id%3Bdrop", "sortKey"}, {"sortKey={huge}", "sortKey"}, {"sortDir=up", "sortDir"}, {"sortKey=id&sortDir=ascending", "sortDir"},
			{"marker=x", "marker"}, {"marker=%00", "marker"}, {"marker=e30", "marker"}, {"marker=bnVsbA", "marker"}, {"marker=W10", "marker"}, {"marker={huge}", "marker"},
			{"name=%zz", ""}, {"a=%", ""}, {"limit=1;offset=2", ""}, {strings.Repeat("id=x&", 300), "id"},
		} {
			out = append(out, bad{"GET", list + "?" + q.query, "", 400, q.field, nil})
		}
	}
	return out
}

func badPaths() []bad {
	root := func(path string, status int, field string) bad { return bad{"GET", "/" + path, "", status, field, nil} }
	out := []bad{
		root("/nope", 404, ""), root("/v1", 404, ""), root("/v1beta/{none}/nope", 404, ""), root("/v1beta/{none}", 404, ""), root("/a/b/c/d/e/f", 404, ""),
		root("//block/volumes", 404, ""), root("/v1beta//block/volumes", 404, ""), root("/v1beta/t/block//volumes", 404, ""), root("/v1beta/t/block/volumes//", 404, ""),
		root("/v1beta/t/block/../pools", 404, ""), root("/v1beta/t/./pools", 404, ""), root("/v1beta/t/block/%2e%2e/pools", 404, ""), root("/v1beta/t%2fpools", 404, ""),
		root("/v1beta/t/block%2Fvolumes", 404, ""), root("/v1beta/t/pools/%00", 404, ""), root("/v1beta/t/pools/%0a", 404, ""), root("/v1beta/t/pools/a%2f..%2fb", 404, ""),
		root("/v1beta/bad%20tenant/pools", 400, "tenantId"), root("/v1beta/a.b/pools", 400, "tenantId"), root("/v1beta/-x/pools", 400, "tenantId"), root("/v1beta/%C3%A4/pools", 400, "tenantId"),
		root("/v1beta/"+strings.Repeat("a", 65)+"/pools", 400, "tenantId"), root("/v1beta/%27%20or%201=1/pools", 400, "tenantId"),
		root("/V1BETA/t/pools", 404, ""), root("/v1beta/t/Pools", 404, ""), root("/v1beta/t/block/volume", 404, ""), root("/v1beta/t/block", 404, ""),
		root("/v1beta/t/file/shares", 404, ""), root("/v1beta/t/block/replications", 404, ""),
		{"GET", "/block/volumes/%20", "", 404, "", nil}, {"GET", "/block/volumes/{huge}", "", 404, "", nil}, {"GET", "/block/volumes/a%27b", "", 404, "", nil},
		{"GET", "/block/volumes/{vol}/nope", "", 404, "", nil}, {"GET", "/block/volumes/{vol}/explanation/x", "", 404, "", nil}, {"GET", "/docks/%F0%9F%92%A9", "", 404, "", nil},
		{"GET", "/pools/{none}", "", 404, "", nil}, {"GET", "/docks/{none}", "", 404, "", nil}, {"GET", "/docks/{pool}", "", 404, "", nil},
	}
	for path, methods := range map[string]string{
		"/block/volumes": "PUT DELETE PATCH HEAD OPTIONS TRACE FOO get", "/block/volumes/{vol}": "POST PATCH HEAD OPTIONS", "/block/volumes/{vol}/resize": "GET PUT DELETE",
		"/block/volumes/{vol}/explanation": "POST", "/block/snapshots/{snap}/revert": "GET DELETE", "/pools": "POST PUT DELETE", "/pools/{pool}": "PUT DELETE POST",
		"/docks": "POST", "/availabilityZones": "POST", "/profiles": "PUT DELETE", "/profiles/{profile}/customProperties": "PUT DELETE", "/host/hosts": "DELETE",
		"/tasks": "POST DELETE", "/tasks/{task}": "DELETE PUT", "/tasks/{task}/cancel": "GET DELETE", "/events": "POST", "//healthz": "POST", "//metrics": "DELETE", "//openapi.json": "PUT", "//": "POST",
	} {
		for _, m := range strings.Fields(methods) {
			out = append(out, bad{m, path, "", 405, "", nil})
		}
	}
	return out
}

func badHeaders() []bad {
	good := `{"name":"v","size":1,"profileId":"{profile}"}`
	var out []bad
	for _, key := range []string{"", strings.Repeat("k", 256), "ä", "a\tb", "\xff"} {
		out = append(out, bad{"POST", "/block/volumes", good, 400, "Idempotency-Key", []string{"Idempotency-Key", key}})
	}
	out = append(out, bad{"POST", "/block/volumes", good, 400, "Idempotency-Key", []string{"Idempotency-Key", "a", "Idempotency-Key", "b"}})
	for _, rev := range []string{"x", "-1", "1.5", "99999999999999999999", " "} {
		if rev == " " {
			continue // an empty header is none
		}
		out = append(out, bad{"GET", "/pools", "", 400, "X-Osds-Min-Revision", []string{"X-Osds-Min-Revision", rev}})
	}
	for _, tag := range []string{`"1"`, `W/"1"`, `abc`, `""`, `"`, `"99999999999999999999"`, `"-1"`, "*x"} {
		out = append(out,
			bad{"PUT", "/block/volumes/{vol}", `{"description":"x"}`, 412, "", []string{"If-Match", tag}},
			bad{"DELETE", "/block/volumes/{odd}", ``, 412, "", []string{"If-Match", tag}},
			bad{"PUT", "/host/hosts/{host}", `{"ip":"10.0.0.1"}`, 412, "", []string{"If-Match", tag}},
			bad{"PUT", "/profiles/{profile}", `{"description":"x"}`, 412, "", []string{"If-Match", tag}},
			bad{"DELETE", "/profiles/{file}", ``, 412, "", []string{"If-Match", tag}},
			bad{"POST", "/block/volumes/{odd}/resize", `{"newSize":9}`, 412, "", []string{"If-Match", tag}})
	}
	// A bad request id is not the client's fault to fail for: the server makes
	// one up. The rest of the request decides.
	for _, id := range []string{"", strings.Repeat("r", 129), `a"b`, "a b", "ä"} {
		out = append(out, bad{"GET", "/pools/{none}", "", 404, "", []string{"X-Request-Id", id}})
	}
	return append(out, bad{"GET", "/events", "", 400, "Last-Event-ID", []string{"Last-Event-ID", "x"}})
}

func badWork() []bad {
	return []bad{
		{"GET", "/tasks/{none}", "", 404, "", nil}, {"GET", "/tasks/{theirtask}", "", 404, "", nil}, {"GET", "/tasks/{huge}", "", 404, "", nil},
		{"POST", "/tasks/{none}/cancel", "", 404, "", nil}, {"POST", "/tasks/{theirtask}/cancel", "", 404, "", nil}, {"POST", "/tasks/{done}/cancel", "", 400, "", nil},
		{"POST", "/tasks/{none}/retry", "", 404, "", nil}, {"POST", "/tasks/{theirtask}/retry", "", 404, "", nil}, {"POST", "/tasks/{done}/retry", "", 400, "", nil},
		{"POST", "/tasks/{vol}/retry", "", 404, "", nil},
		{"GET", "/tasks?state=x", "", 400, "state", nil}, {"GET", "/tasks?resource=x", "", 400, "resource", nil}, {"GET", "/tasks?limit=x", "", 400, "limit", nil}, {"GET", "/tasks?marker=x", "", 400, "marker", nil},
		{"GET", "/tasks?a=%zz", "", 400, "", nil}, {"GET", "/events?since=x", "", 400, "since", nil}, {"GET", "/events?resource=x", "", 400, "resource", nil},
		{"GET", "/events?resource=docks", "", 403, "resource", nil}, {"GET", "/events?resource=ledger,volumes", "", 403, "resource", nil},
		{"GET", "/doctor", "", 403, "", nil}, {"GET", "/ledger", "", 403, "", nil}, {"GET", "/debts", "", 403, "", nil},
	}
}

// badStrict are fields that do not exist, where the server is strict.
func badStrict() []bad {
	return []bad{
		{"POST", "/block/volumes", `{"name":"v","size":1,"profileId":"{profile}","colour":"red"}`, 400, "colour", nil},
		{"POST", "/block/volumes", `{"name":"v","size":1,"profileId":"{profile}","identifier":{"x":1}}`, 400, "x", nil},
		{"POST", "/block/volumes/{vol}/resize", `{"newSize":9,"force":true}`, 400, "force", nil},
		{"POST", "/block/snapshots", `{"volumeId":"{vol}","x":1}`, 400, "x", nil},
		{"POST", "/block/snapshots/{snap}/revert", `{"x":1}`, 400, "x", nil},
		{"POST", "/block/attachments", `{"volumeId":"{vol}","hostId":"{host}","x":1}`, 400, "x", nil},
		{"POST", "/block/volumeGroups", `{"name":"g","profiles":["{profile}"],"x":1}`, 400, "x", nil},
		{"POST", "/host/hosts", `{"hostName":"n","x":1}`, 400, "x", nil},
		{"POST", "/host/hosts", `{"hostName":"n","initiators":[{"portName":"iqn.2020-01.a:b","protocol":"iscsi","x":1}]}`, 400, "x", nil},
		{"POST", "/profiles", `{"name":"n","storageType":"block","x":1}`, 400, "x", nil},
		{"POST", "/profiles", `{"name":"n","storageType":"block","provisioningProperties":{"x":1}}`, 400, "x", nil},
		{"PUT", "/block/volumes/{vol}", `{"x":1}`, 400, "x", nil},
		{"PUT", "/block/snapshots/{snap}", `{"x":1}`, 400, "x", nil},
		{"PUT", "/block/attachments/{att}", `{"x":1}`, 400, "x", nil},
		{"PUT", "/block/volumeGroups/{group}", `{"x":1}`, 400, "x", nil},
		{"PUT", "/host/hosts/{host}", `{"x":1}`, 400, "x", nil},
		{"PUT", "/profiles/{profile}", `{"x":1}`, 400, "x", nil},
		{"POST", "/block/volumes", `{} {}`, 400, "", nil},
	}
}

package cli

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"github.com/osds-io/osds/pkg/client"
	"github.com/osds-io/osds/pkg/model"
	"github.com/osds-io/osds/pkg/model/wire"
)

func num(n int64) string { return strconv.FormatInt(n, 10) }

func yesNo(b bool) string { return strconv.FormatBool(b) }

var versionView = &view[wire.VersionSpec]{
	noun: "version",
	list: []col[wire.VersionSpec]{
		{head: "Name", get: func(x *wire.VersionSpec) string { return x.Name }},
		{head: "Status", get: func(x *wire.VersionSpec) string { return x.Status }},
		{head: "UpdatedAt", get: func(x *wire.VersionSpec) string { return x.UpdatedAt }},
	},
	wide: []col[wire.VersionSpec]{{head: "Description", get: func(x *wire.VersionSpec) string { return x.Description }}},
	show: []col[wire.VersionSpec]{
		{head: "Name", get: func(x *wire.VersionSpec) string { return x.Name }},
		{head: "Status", get: func(x *wire.VersionSpec) string { return x.Status }},
		{head: "UpdatedAt", get: func(x *wire.VersionSpec) string { return x.UpdatedAt }},
		{head: "Description", get: func(x *wire.VersionSpec) string { return x.Description }, hide: true},
	},
	id: func(x *wire.VersionSpec) string { return x.Name },
}

var dockView = &view[wire.DockSpec]{
	noun: "dock",
	list: []col[wire.DockSpec]{
		{head: "Id", get: func(x *wire.DockSpec) string { return x.ID }},
		{head: "Name", get: func(x *wire.DockSpec) string { return x.Name }},
		{head: "Description", get: func(x *wire.DockSpec) string { return x.Description }},
		{head: "Endpoint", get: func(x *wire.DockSpec) string { return x.Endpoint }},
		{head: "DriverName", get: func(x *wire.DockSpec) string { return x.DriverName }},
	},
	wide: []col[wire.DockSpec]{
		{head: "Status", get: func(x *wire.DockSpec) string { return string(x.Status) }},
		{head: "NodeId", get: func(x *wire.DockSpec) string { return x.NodeID }},
		{head: "Version", get: func(x *wire.DockSpec) string { return x.Version }},
		{head: "StatusReason", get: func(x *wire.DockSpec) string { return x.StatusReason }},
	},
	show: []col[wire.DockSpec]{
		{head: "Id", get: func(x *wire.DockSpec) string { return x.ID }},
		{head: "CreatedAt", get: func(x *wire.DockSpec) string { return x.CreatedAt }},
		{head: "UpdatedAt", get: func(x *wire.DockSpec) string { return x.UpdatedAt }, hide: true},
		{head: "Name", get: func(x *wire.DockSpec) string { return x.Name }},
		{head: "Description", get: func(x *wire.DockSpec) string { return x.Description }},
		{head: "Endpoint", get: func(x *wire.DockSpec) string { return x.Endpoint }},
		{head: "DriverName", get: func(x *wire.DockSpec) string { return x.DriverName }},
		{head: "Type", get: func(x *wire.DockSpec) string { return x.Type }},
		{head: "Status", get: func(x *wire.DockSpec) string { return string(x.Status) }, hide: true},
		{head: "StatusReason", get: func(x *wire.DockSpec) string { return x.StatusReason }, hide: true},
		{head: "NodeId", get: func(x *wire.DockSpec) string { return x.NodeID }, hide: true},
		{head: "Version", get: func(x *wire.DockSpec) string { return x.Version }, hide: true},
		{head: "Metadata", get: func(x *wire.DockSpec) string { return jsonText(x.Metadata) }},
	},
	id: func(x *wire.DockSpec) string { return x.ID },
}

var poolView = &view[wire.StoragePoolSpec]{
	noun: "pool",
	list: []col[wire.StoragePoolSpec]{
		{head: "Id", get: func(x *wire.StoragePoolSpec) string { return x.ID }},
		{head: "Name", get: func(x *wire.StoragePoolSpec) string { return x.Name }},
		{head: "Description", get: func(x *wire.StoragePoolSpec) string { return x.Description }},
		{head: "Status", get: func(x *wire.StoragePoolSpec) string { return string(x.Status) }},
		{head: "TotalCapacity", get: func(x *wire.StoragePoolSpec) string { return num(x.TotalCapacity) }},
		{head: "FreeCapacity", get: func(x *wire.StoragePoolSpec) string { return num(x.FreeCapacity) }},
	},
	wide: []col[wire.StoragePoolSpec]{
		{head: "ReservedCapacity", get: func(x *wire.StoragePoolSpec) string { return num(x.ReservedCapacity) }},
		{head: "ProvisionedLimit", get: func(x *wire.StoragePoolSpec) string { return num(x.ProvisionedLimit) }},
		{head: "AvailabilityZone", get: func(x *wire.StoragePoolSpec) string { return x.AvailabilityZone }},
		{head: "StorageType", get: func(x *wire.StoragePoolSpec) string { return x.StorageType }},
		{head: "Driver", get: func(x *wire.StoragePoolSpec) string { return x.Driver }},
		{head: "DockId", get: func(x *wire.StoragePoolSpec) string { return x.DockID }},
		{head: "StatusReason", get: func(x *wire.StoragePoolSpec) string { return x.StatusReason }},
	},
	show: []col[wire.StoragePoolSpec]{
		{head: "Id", get: func(x *wire.StoragePoolSpec) string { return x.ID }},
		{head: "CreatedAt", get: func(x *wire.StoragePoolSpec) string { return x.CreatedAt }},
		{head: "UpdatedAt", get: func(x *wire.StoragePoolSpec) string { return x.UpdatedAt }, hide: true},
		{head: "Name", get: func(x *wire.StoragePoolSpec) string { return x.Name }},
		{head: "Description", get: func(x *wire.StoragePoolSpec) string { return x.Description }},
		{head: "Status", get: func(x *wire.StoragePoolSpec) string { return string(x.Status) }},
		{head: "StatusReason", get: func(x *wire.StoragePoolSpec) string { return x.StatusReason }, hide: true},
		{head: "DockId", get: func(x *wire.StoragePoolSpec) string { return x.DockID }},
		{head: "AvailabilityZone", get: func(x *wire.StoragePoolSpec) string { return x.AvailabilityZone }},
		{head: "TotalCapacity", get: func(x *wire.StoragePoolSpec) string { return num(x.TotalCapacity) }},
		{head: "FreeCapacity", get: func(x *wire.StoragePoolSpec) string { return num(x.FreeCapacity) }},
		{head: "ReservedCapacity", get: func(x *wire.StoragePoolSpec) string { return num(x.ReservedCapacity) }},
		{head: "ProvisionedLimit", get: func(x *wire.StoragePoolSpec) string { return num(x.ProvisionedLimit) }},
		{head: "StorageType", get: func(x *wire.StoragePoolSpec) string { return x.StorageType }},
		{head: "MultiAttach", get: func(x *wire.StoragePoolSpec) string { return yesNo(x.MultiAttach) }},
		{head: "Driver", get: func(x *wire.StoragePoolSpec) string { return x.Driver }, hide: true},
		{head: "Backend", get: func(x *wire.StoragePoolSpec) string { return x.Backend }, hide: true},
		{head: "Fills", get: fillsText, hide: true},
		{head: "Abilities", get: func(x *wire.StoragePoolSpec) string { return strings.Join(x.Abilities, ", ") }, hide: true},
		{head: "Extras", get: func(x *wire.StoragePoolSpec) string { return jsonText(x.Extras) }},
	},
	id: func(x *wire.StoragePoolSpec) string { return x.ID },
}

var profileView = &view[wire.ProfileSpec]{
	noun: "profile",
	list: []col[wire.ProfileSpec]{
		{head: "Id", get: func(x *wire.ProfileSpec) string { return x.ID }},
		{head: "Name", get: func(x *wire.ProfileSpec) string { return x.Name }},
		{head: "Description", get: func(x *wire.ProfileSpec) string { return x.Description }},
		{head: "StorageType", get: func(x *wire.ProfileSpec) string { return x.StorageType }},
	},
	wide: []col[wire.ProfileSpec]{
		{head: "CreatedAt", get: func(x *wire.ProfileSpec) string { return x.CreatedAt }},
		{head: "CustomProperties", get: func(x *wire.ProfileSpec) string { return jsonText(x.CustomProperties) }},
	},
	show: []col[wire.ProfileSpec]{
		{head: "Id", get: func(x *wire.ProfileSpec) string { return x.ID }},
		{head: "CreatedAt", get: func(x *wire.ProfileSpec) string { return x.CreatedAt }},
		{head: "UpdatedAt", get: func(x *wire.ProfileSpec) string { return x.UpdatedAt }, hide: true},
		{head: "Name", get: func(x *wire.ProfileSpec) string { return x.Name }},
		{head: "Description", get: func(x *wire.ProfileSpec) string { return x.Description }},
		{head: "StorageType", get: func(x *wire.ProfileSpec) string { return x.StorageType }},
		{head: "ProvisioningProperties", get: func(x *wire.ProfileSpec) string { return jsonText(x.ProvisioningProperties) }},
		{head: "ReplicationProperties", get: func(x *wire.ProfileSpec) string { return jsonText(x.ReplicationProperties) }},
		{head: "SnapshotProperties", get: func(x *wire.ProfileSpec) string { return jsonText(x.SnapshotProperties) }},
		{head: "DataProtectionProperties", get: func(x *wire.ProfileSpec) string { return jsonText(x.DataProtectionProperties) }},
		{head: "CustomProperties", get: func(x *wire.ProfileSpec) string { return jsonText(x.CustomProperties) }},
	},
	id: func(x *wire.ProfileSpec) string { return x.ID },
}

var hostView = &view[wire.HostSpec]{
	noun: "host",
	list: []col[wire.HostSpec]{
		{head: "Id", get: func(x *wire.HostSpec) string { return x.ID }},
		{head: "HostName", get: func(x *wire.HostSpec) string { return x.HostName }},
		{head: "OsType", get: func(x *wire.HostSpec) string { return x.OSType }},
		{head: "AccessMode", get: func(x *wire.HostSpec) string { return x.AccessMode }},
		{head: "IP", get: func(x *wire.HostSpec) string { return x.IP }},
		{head: "AvailabilityZones", get: func(x *wire.HostSpec) string { return fmt.Sprint(x.AvailabilityZones) }},
	},
	wide: []col[wire.HostSpec]{{head: "Initiators", get: initiators}},
	show: []col[wire.HostSpec]{
		{head: "Id", get: func(x *wire.HostSpec) string { return x.ID }},
		{head: "CreatedAt", get: func(x *wire.HostSpec) string { return x.CreatedAt }},
		{head: "UpdatedAt", get: func(x *wire.HostSpec) string { return x.UpdatedAt }, hide: true},
		{head: "HostName", get: func(x *wire.HostSpec) string { return x.HostName }},
		{head: "OsType", get: func(x *wire.HostSpec) string { return x.OSType }},
		{head: "IP", get: func(x *wire.HostSpec) string { return x.IP }},
		{head: "Port", get: func(x *wire.HostSpec) string { return num(int64(x.Port)) }},
		{head: "AccessMode", get: func(x *wire.HostSpec) string { return x.AccessMode }},
		{head: "Username", get: func(x *wire.HostSpec) string { return x.Username }},
		{head: "AvailabilityZones", get: func(x *wire.HostSpec) string { return fmt.Sprint(x.AvailabilityZones) }},
		{head: "Initiators", get: initiators},
	},
	id: func(x *wire.HostSpec) string { return x.ID },
}

func initiators(x *wire.HostSpec) string {
	var b strings.Builder
	for _, i := range x.Initiators {
		fmt.Fprintf(&b, "%s (%s)\n", i.PortName, i.Protocol)
	}
	return b.String()
}

var volumeView = &view[wire.VolumeSpec]{
	noun: "volume",
	list: []col[wire.VolumeSpec]{
		{head: "Id", get: func(x *wire.VolumeSpec) string { return x.ID }},
		{head: "Name", get: func(x *wire.VolumeSpec) string { return x.Name }},
		{head: "Description", get: func(x *wire.VolumeSpec) string { return x.Description }},
		{head: "Size", get: func(x *wire.VolumeSpec) string { return num(x.Size) }},
		{head: "AvailabilityZone", get: func(x *wire.VolumeSpec) string { return x.AvailabilityZone }},
		{head: "Status", get: func(x *wire.VolumeSpec) string { return string(x.Status) }},
		{head: "ProfileId", get: func(x *wire.VolumeSpec) string { return x.ProfileID }},
	},
	wide: []col[wire.VolumeSpec]{
		{head: "PoolId", get: func(x *wire.VolumeSpec) string { return x.PoolID }},
		{head: "GroupId", get: func(x *wire.VolumeSpec) string { return x.GroupID }},
		{head: "MultiAttach", get: func(x *wire.VolumeSpec) string { return yesNo(x.MultiAttach) }},
		{head: "CreatedAt", get: func(x *wire.VolumeSpec) string { return x.CreatedAt }},
		{head: "TenantId", get: func(x *wire.VolumeSpec) string { return x.TenantID }},
		{head: "StatusReason", get: func(x *wire.VolumeSpec) string { return x.StatusReason }},
	},
	show: []col[wire.VolumeSpec]{
		{head: "Id", get: func(x *wire.VolumeSpec) string { return x.ID }},
		{head: "CreatedAt", get: func(x *wire.VolumeSpec) string { return x.CreatedAt }},
		{head: "UpdatedAt", get: func(x *wire.VolumeSpec) string { return x.UpdatedAt }, hide: true},
		{head: "Name", get: func(x *wire.VolumeSpec) string { return x.Name }},
		{head: "Description", get: func(x *wire.VolumeSpec) string { return x.Description }},
		{head: "GroupId", get: func(x *wire.VolumeSpec) string { return x.GroupID }},
		{head: "Size", get: func(x *wire.VolumeSpec) string { return num(x.Size) }},
		{head: "AvailabilityZone", get: func(x *wire.VolumeSpec) string { return x.AvailabilityZone }},
		{head: "Status", get: func(x *wire.VolumeSpec) string { return string(x.Status) }},
		{head: "StatusReason", get: func(x *wire.VolumeSpec) string { return x.StatusReason }, hide: true},
		{head: "PoolId", get: func(x *wire.VolumeSpec) string { return x.PoolID }},
		{head: "ProfileId", get: func(x *wire.VolumeSpec) string { return x.ProfileID }},
		{head: "Metadata", get: func(x *wire.VolumeSpec) string { return jsonText(x.Metadata) }},
		{head: "MultiAttach", get: func(x *wire.VolumeSpec) string { return yesNo(x.MultiAttach) }},
		{head: "SnapshotId", get: func(x *wire.VolumeSpec) string { return x.SnapshotID }, hide: true},
		{head: "SourceVolumeId", get: func(x *wire.VolumeSpec) string { return x.SourceVolumeID }, hide: true},
		{head: "Existing", get: func(x *wire.VolumeSpec) string { return x.Existing }, hide: true},
		{head: "DurableName", get: func(x *wire.VolumeSpec) string {
			if x.Identifier == nil {
				return ""
			}
			return x.Identifier.DurableName
		}, hide: true},
		{head: "TaskId", get: func(x *wire.VolumeSpec) string { return x.TaskID }, hide: true},
	},
	id: func(x *wire.VolumeSpec) string { return x.ID },
}

var snapshotView = &view[wire.VolumeSnapshotSpec]{
	noun: "snapshot",
	list: []col[wire.VolumeSnapshotSpec]{
		{head: "Id", get: func(x *wire.VolumeSnapshotSpec) string { return x.ID }},
		{head: "Name", get: func(x *wire.VolumeSnapshotSpec) string { return x.Name }},
		{head: "Description", get: func(x *wire.VolumeSnapshotSpec) string { return x.Description }},
		{head: "ProfileId", get: func(x *wire.VolumeSnapshotSpec) string { return x.ProfileID }},
		{head: "Size", get: func(x *wire.VolumeSnapshotSpec) string { return num(x.Size) }},
		{head: "Status", get: func(x *wire.VolumeSnapshotSpec) string { return string(x.Status) }},
		{head: "VolumeId", get: func(x *wire.VolumeSnapshotSpec) string { return x.VolumeID }},
	},
	wide: []col[wire.VolumeSnapshotSpec]{
		{head: "PoolId", get: func(x *wire.VolumeSnapshotSpec) string { return x.PoolID }},
		{head: "CreatedAt", get: func(x *wire.VolumeSnapshotSpec) string { return x.CreatedAt }},
		{head: "StatusReason", get: func(x *wire.VolumeSnapshotSpec) string { return x.StatusReason }},
	},
	show: []col[wire.VolumeSnapshotSpec]{
		{head: "Id", get: func(x *wire.VolumeSnapshotSpec) string { return x.ID }},
		{head: "CreatedAt", get: func(x *wire.VolumeSnapshotSpec) string { return x.CreatedAt }},
		{head: "UpdatedAt", get: func(x *wire.VolumeSnapshotSpec) string { return x.UpdatedAt }, hide: true},
		{head: "Name", get: func(x *wire.VolumeSnapshotSpec) string { return x.Name }},
		{head: "Description", get: func(x *wire.VolumeSnapshotSpec) string { return x.Description }},
		{head: "ProfileId", get: func(x *wire.VolumeSnapshotSpec) string { return x.ProfileID }},
		{head: "Size", get: func(x *wire.VolumeSnapshotSpec) string { return num(x.Size) }},
		{head: "Status", get: func(x *wire.VolumeSnapshotSpec) string { return string(x.Status) }},
		{head: "StatusReason", get: func(x *wire.VolumeSnapshotSpec) string { return x.StatusReason }, hide: true},
		{head: "VolumeId", get: func(x *wire.VolumeSnapshotSpec) string { return x.VolumeID }},
		{head: "Metadata", get: func(x *wire.VolumeSnapshotSpec) string { return jsonText(x.Metadata) }},
		{head: "TaskId", get: func(x *wire.VolumeSnapshotSpec) string { return x.TaskID }, hide: true},
	},
	id: func(x *wire.VolumeSnapshotSpec) string { return x.ID },
}

var attachmentView = &view[wire.VolumeAttachmentSpec]{
	noun: "attachment",
	list: []col[wire.VolumeAttachmentSpec]{
		{head: "Id", get: func(x *wire.VolumeAttachmentSpec) string { return x.ID }},
		{head: "HostId", get: func(x *wire.VolumeAttachmentSpec) string { return x.HostID }},
		{head: "VolumeId", get: func(x *wire.VolumeAttachmentSpec) string { return x.VolumeID }},
		{head: "Status", get: func(x *wire.VolumeAttachmentSpec) string { return string(x.Status) }},
		{head: "AccessProtocol", get: func(x *wire.VolumeAttachmentSpec) string { return x.AccessProtocol }},
	},
	wide: []col[wire.VolumeAttachmentSpec]{
		{head: "AttachMode", get: func(x *wire.VolumeAttachmentSpec) string { return x.AttachMode }},
		{head: "Mountpoint", get: func(x *wire.VolumeAttachmentSpec) string { return x.Mountpoint }},
		{head: "CreatedAt", get: func(x *wire.VolumeAttachmentSpec) string { return x.CreatedAt }},
		{head: "StatusReason", get: func(x *wire.VolumeAttachmentSpec) string { return x.StatusReason }},
	},
	show: []col[wire.VolumeAttachmentSpec]{
		{head: "Id", get: func(x *wire.VolumeAttachmentSpec) string { return x.ID }},
		{head: "CreatedAt", get: func(x *wire.VolumeAttachmentSpec) string { return x.CreatedAt }},
		{head: "UpdatedAt", get: func(x *wire.VolumeAttachmentSpec) string { return x.UpdatedAt }, hide: true},
		{head: "HostId", get: func(x *wire.VolumeAttachmentSpec) string { return x.HostID }},
		{head: "VolumeId", get: func(x *wire.VolumeAttachmentSpec) string { return x.VolumeID }},
		{head: "Status", get: func(x *wire.VolumeAttachmentSpec) string { return string(x.Status) }},
		{head: "StatusReason", get: func(x *wire.VolumeAttachmentSpec) string { return x.StatusReason }, hide: true},
		{head: "Mountpoint", get: func(x *wire.VolumeAttachmentSpec) string { return x.Mountpoint }},
		{head: "AttachMode", get: func(x *wire.VolumeAttachmentSpec) string { return x.AttachMode }},
		{head: "AccessProtocol", get: func(x *wire.VolumeAttachmentSpec) string { return x.AccessProtocol }},
		{head: "ConnectionInfo", get: connection},
		{head: "TaskId", get: func(x *wire.VolumeAttachmentSpec) string { return x.TaskID }, hide: true},
	},
	id: func(x *wire.VolumeAttachmentSpec) string { return x.ID },
}

// connection is connectionInfo without its passwords: -o json has them.
func connection(x *wire.VolumeAttachmentSpec) string {
	text, ok := client.Redact([]byte(jsonText(x.ConnectionInfo)))
	if !ok {
		return ""
	}
	return jsonText(json.RawMessage(text))
}

var groupView = &view[wire.VolumeGroupSpec]{
	noun: "group",
	list: []col[wire.VolumeGroupSpec]{
		{head: "Id", get: func(x *wire.VolumeGroupSpec) string { return x.ID }},
		{head: "Name", get: func(x *wire.VolumeGroupSpec) string { return x.Name }},
		{head: "Description", get: func(x *wire.VolumeGroupSpec) string { return x.Description }},
		{head: "Status", get: func(x *wire.VolumeGroupSpec) string { return string(x.Status) }},
		{head: "Profiles", get: func(x *wire.VolumeGroupSpec) string { return fmt.Sprint(x.Profiles) }},
	},
	wide: []col[wire.VolumeGroupSpec]{
		{head: "AvailabilityZone", get: func(x *wire.VolumeGroupSpec) string { return x.AvailabilityZone }},
		{head: "PoolId", get: func(x *wire.VolumeGroupSpec) string { return x.PoolID }},
		{head: "StatusReason", get: func(x *wire.VolumeGroupSpec) string { return x.StatusReason }},
	},
	show: []col[wire.VolumeGroupSpec]{
		{head: "Id", get: func(x *wire.VolumeGroupSpec) string { return x.ID }},
		{head: "CreatedAt", get: func(x *wire.VolumeGroupSpec) string { return x.CreatedAt }},
		{head: "UpdatedAt", get: func(x *wire.VolumeGroupSpec) string { return x.UpdatedAt }, hide: true},
		{head: "Name", get: func(x *wire.VolumeGroupSpec) string { return x.Name }},
		{head: "Description", get: func(x *wire.VolumeGroupSpec) string { return x.Description }},
		{head: "AvailabilityZone", get: func(x *wire.VolumeGroupSpec) string { return x.AvailabilityZone }},
		{head: "Status", get: func(x *wire.VolumeGroupSpec) string { return string(x.Status) }},
		{head: "StatusReason", get: func(x *wire.VolumeGroupSpec) string { return x.StatusReason }, hide: true},
		{head: "PoolId", get: func(x *wire.VolumeGroupSpec) string { return x.PoolID }},
		{head: "Profiles", get: func(x *wire.VolumeGroupSpec) string { return fmt.Sprint(x.Profiles) }},
		{head: "TaskId", get: func(x *wire.VolumeGroupSpec) string { return x.TaskID }, hide: true},
	},
	id: func(x *wire.VolumeGroupSpec) string { return x.ID },
}

var taskView = &view[wire.TaskSpec]{
	noun: "task",
	list: []col[wire.TaskSpec]{
		{head: "Id", get: func(x *wire.TaskSpec) string { return x.ID }},
		{head: "Kind", get: func(x *wire.TaskSpec) string { return string(x.Kind) }},
		{head: "Resource", get: func(x *wire.TaskSpec) string { return string(x.Resource) }},
		{head: "ResourceId", get: func(x *wire.TaskSpec) string { return x.ResourceID }},
		{head: "State", get: func(x *wire.TaskSpec) string { return string(x.State) }},
		{head: "Step", get: func(x *wire.TaskSpec) string { return string(x.Step) }},
		{head: "Attempts", get: func(x *wire.TaskSpec) string { return num(int64(x.Attempts)) }},
		{head: "LastError", get: func(x *wire.TaskSpec) string { return x.LastError }},
	},
	wide: []col[wire.TaskSpec]{
		{head: "Progress", get: progressOf},
		{head: "ResourceName", get: func(x *wire.TaskSpec) string { return x.ResourceName }},
		{head: "CreatedAt", get: func(x *wire.TaskSpec) string { return x.CreatedAt }},
		{head: "NextRetry", get: func(x *wire.TaskSpec) string { return x.NextRetry }},
		{head: "EndedAt", get: func(x *wire.TaskSpec) string { return x.EndedAt }},
		{head: "Owner", get: func(x *wire.TaskSpec) string { return x.Owner }},
	},
	show: []col[wire.TaskSpec]{
		{head: "Id", get: func(x *wire.TaskSpec) string { return x.ID }},
		{head: "Kind", get: func(x *wire.TaskSpec) string { return string(x.Kind) }},
		{head: "Resource", get: func(x *wire.TaskSpec) string { return string(x.Resource) }},
		{head: "ResourceId", get: func(x *wire.TaskSpec) string { return x.ResourceID }},
		{head: "ResourceName", get: func(x *wire.TaskSpec) string { return x.ResourceName }, hide: true},
		{head: "ResourceStatus", get: func(x *wire.TaskSpec) string { return string(x.ResourceStatus) }, hide: true},
		{head: "State", get: func(x *wire.TaskSpec) string { return string(x.State) }},
		{head: "Step", get: func(x *wire.TaskSpec) string { return string(x.Step) }},
		{head: "Progress", get: progressOf, hide: true},
		{head: "Attempts", get: func(x *wire.TaskSpec) string { return num(int64(x.Attempts)) }},
		{head: "LastError", get: func(x *wire.TaskSpec) string { return x.LastError }, hide: true},
		{head: "ErrorKind", get: func(x *wire.TaskSpec) string { return string(x.ErrorKind) }, hide: true},
		{head: "NextRetry", get: func(x *wire.TaskSpec) string { return x.NextRetry }, hide: true},
		{head: "CreatedAt", get: func(x *wire.TaskSpec) string { return x.CreatedAt }},
		{head: "EndedAt", get: func(x *wire.TaskSpec) string { return x.EndedAt }, hide: true},
		{head: "Deadline", get: func(x *wire.TaskSpec) string { return x.Deadline }, hide: true},
		{head: "Owner", get: func(x *wire.TaskSpec) string { return x.Owner }, hide: true},
		{head: "RequestId", get: func(x *wire.TaskSpec) string { return x.RequestID }, hide: true},
		{head: "Steps", get: taskSteps, hide: true},
	},
	id: func(x *wire.TaskSpec) string { return x.ID },
}

func taskSteps(x *wire.TaskSpec) string {
	var b strings.Builder
	for _, s := range x.Steps {
		fmt.Fprintf(&b, "%s %s", s.At, s.Step)
		if s.Attempts > 0 {
			b.WriteString(", " + tries(s.Attempts))
		}
		if s.Error != "" {
			b.WriteString(": " + strings.ReplaceAll(s.Error, "\n", " "))
		}
		b.WriteString("\n")
	}
	return b.String()
}

var debtView = &view[wire.DebtSpec]{
	noun: "debt",
	list: []col[wire.DebtSpec]{
		{head: "Id", get: func(x *wire.DebtSpec) string { return x.ID }},
		{head: "Resource", get: func(x *wire.DebtSpec) string { return string(x.Resource) }},
		{head: "ObjectId", get: func(x *wire.DebtSpec) string { return x.ObjectID }},
		{head: "DockId", get: func(x *wire.DebtSpec) string { return x.DockID }},
		{head: "PoolId", get: func(x *wire.DebtSpec) string { return x.PoolID }},
		{head: "Reserved", get: func(x *wire.DebtSpec) string { return bytesText(x.Reserved) }},
		{head: "Reason", get: func(x *wire.DebtSpec) string { return x.Reason }},
	},
	wide: []col[wire.DebtSpec]{
		{head: "CreatedAt", get: func(x *wire.DebtSpec) string { return x.CreatedAt }},
		{head: "TaskId", get: func(x *wire.DebtSpec) string { return x.TaskID }},
	},
	id: func(x *wire.DebtSpec) string { return x.ID },
}

// fillsText says how full the parts of a pool are, a line each.
func fillsText(x *wire.StoragePoolSpec) string {
	var lines []string
	for _, f := range x.Fills {
		s := f.Fill.String()
		if f.Watermark != model.WatermarkOK {
			s += ": " + string(f.Watermark)
		}
		lines = append(lines, s)
	}
	return strings.Join(lines, "\n")
}

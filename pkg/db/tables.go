package db

import (
	"strconv"

	"github.com/osds-io/osds/pkg/model"
)

// Tables are the typed collections. Field names are the wire's.
type Tables struct {
	Docks       *Table[model.Dock, *model.Dock]
	Pools       *Table[model.Pool, *model.Pool]
	Profiles    *Table[model.Profile, *model.Profile]
	Hosts       *Table[model.Host, *model.Host]
	Volumes     *Table[model.Volume, *model.Volume]
	Snapshots   *Table[model.Snapshot, *model.Snapshot]
	Attachments *Table[model.Attachment, *model.Attachment]
	Groups      *Table[model.Group, *model.Group]
	Debts       *Table[model.Debt, *model.Debt]
	Ledger      *Table[model.Account, *model.Account]
}

func text[P any](name string, f func(P) string) Field[P] { return Field[P]{Name: name, Text: f} }

func index[P any](name string, f func(P) string) Field[P] {
	return Field[P]{Name: name, Text: f, Index: true}
}

func number[P any](name string, f func(P) int64) Field[P] {
	return Field[P]{Name: name, Num: f, Index: true, Text: func(p P) string { return strconv.FormatInt(f(p), 10) }}
}

func newTables(s *Store) Tables {
	return Tables{
		Docks: newTable(s, model.ResDock, false,
			index("status", func(d *model.Dock) string { return string(d.Status) }),
			text("type", func(d *model.Dock) string { return d.Type }),
			text("endpoint", func(d *model.Dock) string { return d.Endpoint }),
			text("nodeId", func(d *model.Dock) string { return d.NodeID }),
			text("driverName", func(d *model.Dock) string { return d.DriverName }),
			text("storageType", func(*model.Dock) string { return "block" })),
		Pools: newTable(s, model.ResPool, false,
			index("status", func(p *model.Pool) string { return string(p.Status) }),
			index("dockId", func(p *model.Pool) string { return p.DockID }),
			text("availabilityZone", func(p *model.Pool) string { return p.AvailabilityZone }),
			text("storageType", func(p *model.Pool) string { return p.StorageType }),
			text("multiAttach", func(p *model.Pool) string { return strconv.FormatBool(p.MultiAttach) })),
		Profiles: newTable(s, model.ResProfile, false,
			text("storageType", func(p *model.Profile) string { return p.StorageType })),
		Hosts: newTable(s, model.ResHost, true,
			index("hostName", func(h *model.Host) string { return h.HostName }),
			text("osType", func(h *model.Host) string { return h.OSType }),
			text("accessMode", func(h *model.Host) string { return h.AccessMode }),
			text("ip", func(h *model.Host) string { return h.IP })),
		Volumes: newTable(s, model.ResVolume, true,
			index("status", func(v *model.Volume) string { return string(v.Status) }),
			index("availabilityZone", func(v *model.Volume) string { return v.AvailabilityZone }),
			index("profileId", func(v *model.Volume) string { return v.ProfileID }),
			index("poolId", func(v *model.Volume) string { return v.PoolID }),
			index("groupId", func(v *model.Volume) string { return v.GroupID }),
			number("size", func(v *model.Volume) int64 { return v.Size.GBCeil() }),
			index("snapshotId", func(v *model.Volume) string { return v.SnapshotID }),
			index("sourceVolumeId", func(v *model.Volume) string { return v.SourceVolumeID }),
			text("durableName", func(v *model.Volume) string { return v.DurableName }),
			text("replicationId", func(v *model.Volume) string { return v.ReplicationID }),
			text("multiAttach", func(v *model.Volume) string { return strconv.FormatBool(v.MultiAttach) })),
		Snapshots: newTable(s, model.ResSnapshot, true,
			index("volumeId", func(x *model.Snapshot) string { return x.VolumeID }),
			index("poolId", func(x *model.Snapshot) string { return x.PoolID }),
			index("status", func(x *model.Snapshot) string { return string(x.Status) }),
			text("profileId", func(x *model.Snapshot) string { return x.ProfileID }),
			number("size", func(x *model.Snapshot) int64 { return x.Size.GBCeil() })),
		Attachments: newTable(s, model.ResAttachment, true,
			index("volumeId", func(a *model.Attachment) string { return a.VolumeID }),
			index("hostId", func(a *model.Attachment) string { return a.HostID }),
			index("status", func(a *model.Attachment) string { return string(a.Status) }),
			text("mountpoint", func(a *model.Attachment) string { return a.Mountpoint }),
			text("attachMode", func(a *model.Attachment) string { return a.AttachMode }),
			text("accessProtocol", func(a *model.Attachment) string { return a.AccessProtocol })),
		Groups: newTable(s, model.ResGroup, true,
			index("status", func(g *model.Group) string { return string(g.Status) }),
			index("poolId", func(g *model.Group) string { return g.PoolID }),
			text("availabilityZone", func(g *model.Group) string { return g.AvailabilityZone })),
		Debts: newTable(s, model.ResDebt, true,
			index("dockId", func(d *model.Debt) string { return d.DockID }),
			index("poolId", func(d *model.Debt) string { return d.PoolID })),
		Ledger: newTable[model.Account](s, model.ResLedger, false),
	}
}

// ExplanationKey is where the explanation of a volume's placement is kept: the
// JSON of a model.Explanation. It is read seldom and so is not in the cache.
func ExplanationKey(volumeID string) string { return "explanations/" + volumeID }

// IdempotencyKey is where the answer to a request with an Idempotency-Key is
// kept; hash is of the tenant and the client's key.
func IdempotencyKey(hash string) string { return "idempotency/" + hash }

//go:build real

package e2e

import (
	"testing"

	"github.com/osds-io/osds/pkg/client"
	"github.com/osds-io/osds/pkg/model"
	"github.com/osds-io/osds/pkg/model/wire"
)

// TestTenants: nobody sees, uses or changes another tenant's records; the
// administrators see all.
func TestTenants(t *testing.T) {
	t.Parallel()
	c, admin := one(t, sample("s", 100))
	admin.Profile("default_block")
	red, blue := c.Client(client.Config{TenantID: "red"}), c.Client(client.Config{TenantID: "blue"})
	host := red.Host("red-host")
	v := red.Volume(wire.VolumeSpec{Name: "secret", Metadata: map[string]string{"plan": "x"}})
	s := red.Snapshot(v.ID, "s")
	at := red.Attach(v.ID, host.ID)
	g, err := red.Groups.Create(red.Ctx(), &wire.VolumeGroupSpec{Name: "g", Profiles: []string{v.ProfileID}, AvailabilityZone: "default"})
	if err != nil {
		t.Fatal(err)
	}
	red.Settle(model.ResGroup, g.ID, g.TaskID)

	ctx := blue.Ctx()
	for what, err := range map[string]error{
		"get volume":        second(blue.Volumes.Get(ctx, v.ID)),
		"update volume":     second(blue.Volumes.Update(ctx, v.ID, map[string]any{"name": "mine"})),
		"grow volume":       second(blue.ExtendVolume(ctx, v.ID, 2)),
		"delete volume":     blue.Volumes.Delete(ctx, v.ID),
		"explain volume":    second(blue.VolumeExplanation(ctx, v.ID)),
		"get snapshot":      second(blue.Snapshots.Get(ctx, s.ID)),
		"revert":            second(blue.RevertToSnapshot(ctx, s.ID, nil)),
		"delete snapshot":   blue.Snapshots.Delete(ctx, s.ID),
		"get attachment":    second(blue.Attachments.Get(ctx, at.ID)),
		"detach":            blue.Attachments.Delete(ctx, at.ID),
		"get host":          second(blue.Hosts.Get(ctx, host.ID)),
		"delete host":       blue.Hosts.Delete(ctx, host.ID),
		"get group":         second(blue.Groups.Get(ctx, g.ID)),
		"delete group":      blue.Groups.Delete(ctx, g.ID),
		"get task":          second(blue.Tasks.Get(ctx, v.TaskID)),
		"snapshot it":       second(blue.Snapshots.Create(ctx, &wire.VolumeSnapshotSpec{VolumeID: v.ID, Name: "mine"})),
		"clone it":          second(blue.Volumes.Create(ctx, &wire.VolumeSpec{Name: "mine", Size: 1, SourceVolumeID: v.ID})),
		"from its snapshot": second(blue.Volumes.Create(ctx, &wire.VolumeSpec{Name: "mine", Size: 1, SnapshotID: s.ID})),
		"into its group":    second(blue.Volumes.Create(ctx, &wire.VolumeSpec{Name: "mine", Size: 1, GroupID: g.ID})),
		"attach it":         second(blue.Attachments.Create(ctx, &wire.VolumeAttachmentSpec{VolumeID: v.ID, HostID: host.ID})),
	} {
		if !model.IsKind(err, model.KindNotFound, model.KindInvalid) {
			t.Errorf("%s: %v", what, err)
		}
	}
	for what, err := range map[string]error{
		"doctor": second(blue.Client.Doctor(ctx)),
		"ledger": second(blue.Ledger(ctx)),
		"debts":  second(blue.Debts(ctx)),
	} {
		if !model.IsKind(err, model.KindDenied) {
			t.Errorf("%s by a tenant: %v", what, err)
		}
	}
	if l, err := blue.Volumes.Collect(ctx, client.Query{}, 0); err != nil || len(l) != 0 {
		t.Errorf("blue sees %d volumes: %v", len(l), err)
	}
	if l, err := blue.Tasks.Collect(ctx, client.Query{}, 0); err != nil || len(l) != 0 {
		t.Errorf("blue sees %d tasks: %v", len(l), err)
	}
	// The same id cannot be taken, and says nothing of whose it is.
	_, err = blue.Volumes.Create(ctx, &wire.VolumeSpec{Base: wire.Base{ID: v.ID}, Name: "mine", Size: 1})
	if !model.IsKind(err, model.KindExists) {
		t.Errorf("another tenant's id: %v", err)
	}
	// The same idempotency key is another one in another tenant.
	first, err := red.Volumes.Create(red.Ctx(), &wire.VolumeSpec{Name: "k", Size: 1}, client.IdempotencyKey("key"))
	if err != nil {
		t.Fatal(err)
	}
	mine, err := blue.Volumes.Create(ctx, &wire.VolumeSpec{Name: "k", Size: 1}, client.IdempotencyKey("key"))
	if err != nil || mine.ID == first.ID {
		t.Fatalf("%+v %v", mine, err)
	}
	red.Settle(model.ResVolume, first.ID, first.TaskID)
	blue.Settle(model.ResVolume, mine.ID, mine.TaskID)
	if l, err := admin.Volumes.Collect(admin.Ctx(), client.Query{}, 0); err != nil || len(l) != 3 {
		t.Errorf("the administrators see %d volumes: %v", len(l), err)
	}
	if got := red.GetVolume(v.ID); got.Name != "secret" || got.TenantID != "red" {
		t.Errorf("%+v", got)
	}
	admin.Doctor()
}

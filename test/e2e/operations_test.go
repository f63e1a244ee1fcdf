//go:build real

package e2e

import (
	"context"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/osds-io/osds/pkg/client"
	"github.com/osds-io/osds/pkg/model"
	"github.com/osds-io/osds/pkg/model/wire"
	"github.com/osds-io/osds/test/harness"
)

// TestRecords makes, changes, lists and removes the records that have no work of
// their own, and asks for all that machines look at.
func TestRecords(t *testing.T) {
	t.Parallel()
	c, a := one(t, sample("s", 100))
	ctx := a.Ctx()

	p := a.Profile("default_block")
	if _, err := a.Profiles.Create(ctx, &wire.ProfileSpec{Name: "default_block", StorageType: "block"}); !model.IsKind(err, model.KindExists, model.KindInvalid, model.KindConflict) {
		t.Errorf("a second profile of a name: %v", err)
	}
	fast := a.Profile("fast")
	got, err := a.AddCustomProperties(ctx, fast.ID, map[string]any{"capabilities:extras.dataStorage.provisioningPolicy": "<in> Thin", "tier": "gold"})
	ok(t, err)
	if len(got) != 2 {
		t.Errorf("%v", got)
	}
	ok(t, a.RemoveCustomProperty(ctx, fast.ID, "tier"))
	if got, err = a.CustomProperties(ctx, fast.ID); err != nil || len(got) != 1 {
		t.Errorf("%v %v", got, err)
	}
	_, err = a.Profiles.Update(ctx, fast.ID, map[string]any{"description": "disks that are fast"})
	ok(t, err)
	if x, err := a.Profiles.Get(ctx, fast.ID); err != nil || x.Description != "disks that are fast" {
		t.Errorf("%+v %v", x, err)
	}

	h := a.Host("h1")
	_, err = a.Hosts.Update(ctx, h.ID, map[string]any{"ip": "10.1.1.1"})
	ok(t, err)
	if x, err := a.Hosts.Get(ctx, h.ID); err != nil || x.IP != "10.1.1.1" || len(x.Initiators) != 1 {
		t.Errorf("%+v %v", x, err)
	}

	v := a.Volume(wire.VolumeSpec{Name: "v", ProfileID: fast.ID})
	if err := a.Profiles.Delete(ctx, fast.ID); err == nil {
		t.Error("a profile was deleted that a volume has")
	}
	s := a.Snapshot(v.ID, "s")
	_, err = a.Snapshots.Update(ctx, s.ID, map[string]any{"name": "s2"})
	ok(t, err)
	at := a.Attach(v.ID, h.ID)
	if err := a.Hosts.Delete(ctx, h.ID); err == nil {
		t.Error("a host was deleted that a volume is attached to")
	}
	_, err = a.Attachments.Update(ctx, at.ID, map[string]any{"mountpoint": "/srv"})
	ok(t, err)
	a.Detach(at.ID)

	g, err := a.Groups.Create(ctx, &wire.VolumeGroupSpec{Name: "g", Profiles: []string{fast.ID}, AvailabilityZone: "default"})
	ok(t, err)
	a.Settle(model.ResGroup, g.ID, g.TaskID)
	a.DeleteSnapshot(s.ID)
	u, err := a.Groups.Update(ctx, g.ID, &wire.VolumeGroupSpec{AddVolumes: []string{v.ID}})
	ok(t, err)
	a.Settle(model.ResGroup, g.ID, u.TaskID)
	if x, err := a.Volumes.Collect(ctx, client.Query{}.Where("groupId", g.ID), 0); err != nil || len(x) != 1 {
		t.Errorf("%+v %v", x, err)
	}
	ok(t, a.Groups.Delete(ctx, g.ID))
	a.Gone(model.ResGroup, g.ID)
	if _, err := a.Volumes.Get(ctx, v.ID); !client.IsNotFound(err) {
		t.Errorf("a member of a group that was deleted: %v", err)
	}
	ok(t, a.Hosts.Delete(ctx, h.ID))
	ok(t, a.Profiles.Delete(ctx, fast.ID))
	ok(t, a.Profiles.Delete(ctx, p.ID))

	vs, err := a.Versions(ctx)
	ok(t, err)
	if len(vs) != 1 {
		t.Errorf("%+v", vs)
	}
	_, err = a.Version(ctx, "v1beta")
	ok(t, err)
	z, err := a.AvailabilityZones(ctx)
	if err != nil || len(z) != 1 || z[0] != "default" {
		t.Errorf("%v %v", z, err)
	}
	docks, err := a.Docks.Collect(ctx, client.Query{}, 0)
	ok(t, err)
	_, err = a.Docks.Get(ctx, docks[0].ID)
	ok(t, err)
	for path, want := range map[string]string{
		"/healthz": "true", "/readyz": "leader", "/openapi.json": `"openapi"`, "/openapi.yaml": "openapi:",
		"/metrics": "osds_api_requests_total",
	} {
		if body := fetch(t, c.Lets[0], path); !strings.Contains(body, want) {
			t.Errorf("GET %s has no %q:\n%s", path, want, body)
		}
	}
	a.Doctor()
	empty(t, a)
}

func ok(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// fetch gets a path as curl does.
func fetch(t *testing.T, l *harness.Let, path string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), harness.Limit)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, l.Checked()+path, nil)
	ok(t, err)
	resp, err := http.DefaultClient.Do(r)
	ok(t, err)
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	ok(t, err)
	if resp.StatusCode != http.StatusOK {
		t.Errorf("GET %s: %s", path, resp.Status)
	}
	return string(b)
}

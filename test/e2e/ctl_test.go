//go:build real

package e2e

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/osds-io/osds/pkg/model"
	"github.com/osds-io/osds/pkg/model/wire"
	"github.com/osds-io/osds/test/harness"
)

// TestCommandLine is the life of a volume by the real osdsctl alone.
func TestCommandLine(t *testing.T) {
	t.Parallel()
	c, a := one(t, sample("simulated", 100))
	ctl := c.Ctl()
	ctl.OK("profile", "create", `{"name": "default_block", "storageType": "block"}`)
	ctl.OK("profile", "create", `{"name": "thick", "storageType": "block", "provisioningProperties": {"dataStorage": {"provisioningPolicy": "Thick"}}}`)
	ctl.OK("host", "create", "h1", "--ip", "10.0.0.1", "--osType", "linux")

	var docks []wire.DockSpec
	ctl.JSON(&docks, "dock", "list")
	if len(docks) != 1 || docks[0].Name != "osdsdock1" || docks[0].DriverName != "sample" || docks[0].Status != model.StatusAvailable {
		t.Fatalf("docks: %+v", docks)
	}
	has(t, ctl.OK("version", "list"), "v1beta", "CURRENT")
	has(t, ctl.OK("availabilityzone", "list"), "default")
	has(t, ctl.OK("pool", "list", "-o", "wide"), "simulated-pool", "ProvisionedLimit")

	// Where would it go, and where not, and why?
	var plan model.Explanation
	ctl.JSON(&plan, "volume", "plan", "10")
	if plan.WinnerName != "simulated-pool" || plan.SizeGB != 10 {
		t.Fatalf("plan: %+v", plan)
	}
	has(t, ctl.Fails(4, "volume", "plan", "10", "-p", "thick").Out, "nowhere", "provisioningPolicy", "Thick", "Thin")
	has(t, ctl.Fails(4, "volume", "plan", "101").Out, "freeCapacity")

	out := ctl.Run("volume", "create", "2", "-n", "vol1", "-d", "by osdsctl", "--wait", "-o", "json")
	var v wire.VolumeSpec
	if err := json.Unmarshal([]byte(out.Out), &v); err != nil || out.Code != 0 {
		t.Fatalf("%v %+v", err, out)
	}
	if v.Status != model.StatusAvailable || v.Size != 2 || v.Name != "vol1" {
		t.Fatalf("%+v", v)
	}
	has(t, out.Err, "creating", "available") // progress
	has(t, ctl.OK("volume", "list"), "vol1", "by osdsctl", "available", "| Id")
	if id := strings.TrimSpace(ctl.OK("volume", "list", "--name", "vol1", "-o", "name")); id != v.ID {
		t.Fatalf("-o name gives %q, want %s", id, v.ID)
	}
	has(t, ctl.OK("volume", "explain", v.ID), "Placed in: simulated-pool")
	has(t, ctl.OK("pool", "explain"), "simulated-pool")
	has(t, ctl.OK("pool", "explain", "simulated-pool"), "extras.dataStorage.provisioningPolicy", "Thin", "2 GiB")

	// A list that follows, while the volume lives on.
	watch := ctl.Go("volume", "list", "--watch")
	watch.Shows("vol1")
	events := ctl.Go("event", "watch", "--resource", "volume", "-o", "json")
	has(t, ctl.OK("volume", "extend", v.ID, "3", "--wait"), "| 3")
	watch.Shows("extending")
	ctl.OK("volume", "update", v.ID, "-n", "vol1b", "--metadata", "owner=billing")
	watch.Shows("vol1b")

	snap := strings.TrimSpace(ctl.OK("volume", "snapshot", "create", v.ID, "-n", "s1", "--wait", "-o", "name"))
	clone := strings.TrimSpace(ctl.OK("volume", "create", "3", "-n", "copy", "-s", snap, "--wait", "-o", "name"))
	other := strings.TrimSpace(ctl.OK("volume", "clone", v.ID, "-n", "copy2", "--wait", "-o", "name"))
	at := strings.TrimSpace(ctl.OK("volume", "attachment", "create", v.ID, "h1", "--wait", "-o", "name"))
	has(t, ctl.OK("volume", "show", v.ID), "inUse")
	r := ctl.Fails(2, "volume", "delete", v.ID)
	has(t, r.Err, "ERROR:", "inUse")
	has(t, ctl.Fails(2, "volume", "revert", snap).Err, "inUse")
	ctl.OK("volume", "attachment", "update", at, "--mountpoint", "/srv/data")
	has(t, ctl.OK("volume", "attachment", "show", at), "/srv/data")
	ctl.OK("volume", "attachment", "delete", at, "--wait")
	ctl.OK("volume", "revert", snap, "--wait")

	// Groups.
	g := strings.TrimSpace(ctl.OK("volume", "group", "create", "-n", "g1", "--profiles", "default_block", "--wait", "-o", "name"))
	ctl.OK("volume", "group", "update", g, "-a", clone+","+other, "--wait")
	has(t, ctl.OK("volume", "show", clone), g)
	ctl.OK("volume", "group", "update", g, "-r", other, "--wait")
	ctl.OK("volume", "group", "delete", g, "--wait")
	has(t, ctl.Fails(2, "volume", "show", clone).Err, "not found")

	// Tasks: what was done stays to be seen.
	var tasks []wire.TaskSpec
	ctl.JSON(&tasks, "task", "list", "--resource", "volume", "--state", "succeeded", "--all")
	if len(tasks) == 0 {
		t.Fatal("no task succeeded")
	}
	has(t, ctl.OK("task", "show", tasks[0].ID), tasks[0].ResourceID)

	ctl.OK("volume", "snapshot", "delete", snap, "--wait")
	ctl.OK("volume", "delete", v.ID, other, "--wait")
	watch.Shows("deleted")
	if code := watch.Interrupt(); code != 0 {
		t.Errorf("an interrupted watch ended with %d", code)
	}
	events.Shows(`"type":"deleted"`)
	if code := events.Interrupt(); code != 0 {
		t.Errorf("interrupted events ended with %d", code)
	}
	has(t, ctl.OK("doctor"), "ledger", "orphans", "true")
	if strings.Contains(ctl.OK("doctor"), "false") {
		t.Error("the doctor finds something")
	}
	has(t, ctl.OK("debt", "list"), "| Id")
	empty(t, a)
}

// TestTasksByHand: a task that waits is retried and cancelled by osdsctl.
func TestTasksByHand(t *testing.T) {
	t.Parallel()
	c, a := one(t, sample("away", 100))
	a.Setup()
	ctl := c.Ctl()
	keep := a.Volume(wire.VolumeSpec{Name: "keep"})

	// The dock is gone: a create waits, with its reason.
	c.Docks[0].Kill()
	id := strings.TrimSpace(ctl.OK("volume", "create", "1", "-n", "waits", "-o", "name"))
	var task wire.TaskSpec
	find := func(state string) {
		c.Until(harness.Limit, "the task is "+state, func() error {
			var l []wire.TaskSpec
			ctl.JSON(&l, "task", "list", "--resourceId", id)
			if len(l) != 1 || string(l[0].State) != state {
				return errorf("%+v", l)
			}
			task = l[0]
			return nil
		})
	}
	c.Until(harness.Limit, "the create has an end or a reason", func() error {
		var l []wire.TaskSpec
		ctl.JSON(&l, "task", "list", "--resourceId", id)
		if len(l) != 1 || l[0].LastError == "" {
			return errorf("%+v", l)
		}
		task = l[0]
		return nil
	})
	if task.State == model.TaskFailed {
		t.Skip("the pool was unavailable before the volume was placed; nothing waits")
	}
	has(t, ctl.OK("task", "list", "--state", "active"), id, "waiting")
	ctl.OK("task", "retry", task.ID)
	// Cancelled, it ends in error; the removal of what may be there is owed.
	ctl.OK("task", "cancel", task.ID)
	find(string(model.TaskCancelled))
	has(t, ctl.OK("volume", "show", id), "error", "cancelled")
	c.Must(c.Docks[0].Start())
	a.Quiet(harness.Limit)
	ctl.OK("volume", "delete", id, keep.ID, "--wait")
	a.Doctor()
	empty(t, a)
}

func has(t *testing.T, text string, want ...string) {
	t.Helper()
	for _, w := range want {
		if !strings.Contains(text, w) {
			t.Errorf("no %q in\n%s", w, text)
		}
	}
}

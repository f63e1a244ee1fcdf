//go:build real

package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/osds-io/osds/pkg/model"
	"github.com/osds-io/osds/pkg/model/wire"
	"github.com/osds-io/osds/test/harness"
)

// TestLongWork: work that takes longer than a create may be tried is waited for
// while it advances, can be watched, and goes on where it was after the dock or
// osdslet was killed.
func TestLongWork(t *testing.T) {
	t.Parallel()
	c := suite.NewCluster(t)
	let := c.AddLet(harness.Quick().With(harness.Config{"controller.create": "5s"}))
	b := harness.Sample("slow", 100)
	b.Config += "work: {create: 12s, expand: 8s, delete: 6s}\n"
	dock := c.AddDock(nil, b)
	c.Start()
	a := c.Admin()
	a.WaitPools(1)
	a.Setup()
	ctl := c.Ctl()

	v, err := a.Volumes.Create(a.Ctx(), &wire.VolumeSpec{Name: "v", Size: 10})
	c.Must(err)
	percent := func(least int) (now int) {
		t.Helper()
		c.Until(time.Minute, fmt.Sprintf("%d %% done", least), func() error {
			k, err := a.Tasks.Get(a.Ctx(), v.TaskID)
			switch {
			case err != nil:
				return err
			case k.State.Done():
				return fmt.Errorf("the task has ended: %s %s", k.State, k.LastError)
			case k.Progress == nil:
				return fmt.Errorf("no progress: %s %s", k.Step, k.LastError)
			case k.Progress.Percent < least:
				return fmt.Errorf("%d %%", k.Progress.Percent)
			}
			now = k.Progress.Percent
			return nil
		})
		return now
	}
	at := percent(10)
	if x := a.GetVolume(v.ID); x.Status != model.StatusCreating || !strings.HasPrefix(x.StatusReason, "cleared ") {
		t.Errorf("%s: %q", x.Status, x.StatusReason)
	}
	if out := ctl.OK("task", "show", v.TaskID); !strings.Contains(out, "cleared ") {
		t.Errorf("osdsctl does not show the progress:\n%s", out)
	}
	dock.Kill()
	c.Must(dock.Start())
	dock.WaitReady()
	at = percent(at + 1)
	let.Kill()
	c.Must(let.Start())
	let.WaitReady()
	if now := percent(0); now < at-10 {
		t.Errorf("%d %% done before osdslet was killed, %d %% after", at, now)
	}
	a.Settle(model.ResVolume, v.ID, v.TaskID)
	k, err := a.Tasks.Get(a.Ctx(), v.TaskID)
	c.Must(err)
	if k.State != model.TaskSucceeded || k.Progress != nil {
		t.Errorf("%+v", k)
	}

	// A growth that is cancelled in the middle leaves the volume as it was.
	x, err := a.ExtendVolume(a.Ctx(), v.ID, 20)
	c.Must(err)
	v.TaskID = x.TaskID
	percent(10)
	_, err = a.CancelTask(a.Ctx(), v.TaskID)
	c.Must(err)
	c.Until(time.Minute, "the growth is cancelled", func() error {
		if x := a.GetVolume(v.ID); x.Status != model.StatusAvailable || x.Size != 10 {
			return fmt.Errorf("%s, %d GB: %s", x.Status, x.Size, x.StatusReason)
		}
		return nil
	})
	if x := a.Grow(v.ID, 20); x.Size != 20 {
		t.Errorf("%d GB: %s", x.Size, x.StatusReason)
	}

	// A removal that takes longer than a debt waits for a dock leaves none.
	a.DeleteVolume(v.ID)
	debts, err := a.Debts(a.Ctx())
	c.Must(err)
	if len(debts) > 0 {
		t.Errorf("debts: %+v", debts)
	}

	// A create that is cancelled in the middle leaves nothing.
	v, err = a.Volumes.Create(a.Ctx(), &wire.VolumeSpec{Name: "w", Size: 10})
	c.Must(err)
	percent(5)
	_, err = a.CancelTask(a.Ctx(), v.TaskID)
	c.Must(err)
	c.Until(time.Minute, "the create is cancelled", func() error {
		if x := a.GetVolume(v.ID); x.Status != model.StatusError {
			return fmt.Errorf("%s: %s", x.Status, x.StatusReason)
		}
		return nil
	})
	a.DeleteVolume(v.ID)
	a.Quiet(time.Minute)
	a.Doctor()
}

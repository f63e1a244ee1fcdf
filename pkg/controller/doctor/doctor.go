// Package doctor checks the invariants of osds on the live system. Tests, the
// chaos run and `osdsctl doctor` share it.
package doctor

import (
	"context"
	"fmt"
	"time"

	"github.com/osds-io/osds/pkg/controller/fleet"
	"github.com/osds-io/osds/pkg/db"
	"github.com/osds-io/osds/pkg/model"
	"github.com/osds-io/osds/pkg/model/wire"
)

// Doctor checks. It may run in any osdslet; it reads the cache, and asks the
// docks what they hold.
type Doctor struct {
	Store  *db.Store
	Dialer fleet.Dialer
	Now    func() time.Time
	// ClusterID tells what is ours on a shared backend.
	ClusterID func() string
	// Settle is how long a suspicion about a backend is given to go away (work
	// in flight) before it is reported; 2 s if zero.
	Settle time.Duration
	// Stuck is for how long a task may stand without an attempt; 2 minutes if
	// zero.
	Stuck time.Duration
}

// Check runs every check. The error is only for a store that does not answer; a
// dock that does not answer is a check that could not be made.
func (d *Doctor) Check(ctx context.Context) (*wire.DoctorReport, error) {
	if err := d.Store.Sync(ctx); err != nil {
		return nil, err
	}
	checks := []wire.DoctorCheck{d.ledger(), d.owners(), d.references(), d.attachments()}
	checks = append(checks, d.backends(ctx)...)
	return wire.NewDoctorReport(d.Now(), d.Store.Rev(), checks), nil
}

func check(name, what string) wire.DoctorCheck {
	return wire.DoctorCheck{Name: name, Description: what, OK: true}
}

// ledger recounts what every pool holds.
func (d *Doctor) ledger() wire.DoctorCheck {
	c := check("ledger", "for every pool, reserved = sum of volumes, snapshots and debts <= total x over-provisioning ratio")
	sum := map[string]model.Bytes{}
	// One view of the tables: the account is written with what it counts.
	d.Store.View(func(v db.View) {
		for _, x := range v.Volumes() {
			sum[x.PoolID] += x.Reserved
		}
		for _, x := range v.Snapshots() {
			sum[x.PoolID] += x.Reserved
		}
		for _, x := range v.Debts() {
			sum[x.PoolID] += x.Reserved
		}
		for _, a := range v.Accounts() {
			if a.Reserved != sum[a.ID] {
				c.Add(fmt.Sprintf("pool %s: the ledger says %d bytes, the records hold %d", a.ID, a.Reserved, sum[a.ID]))
			}
			delete(sum, a.ID)
			c.Checked++
		}
	})
	for pool, n := range sum {
		if n != 0 {
			c.Add(fmt.Sprintf("pool %q: records hold %d bytes, and it has no account", pool, n))
		}
	}
	for _, p := range d.Store.Pools.All() {
		if a, ok := d.Store.Ledger.Get(p.ID); ok && a.Reserved > p.Limit() && p.Status == model.StatusAvailable {
			c.Add(fmt.Sprintf("pool %s (%s): %s reserved, more than its limit of %s", p.Name, p.ID, a.Reserved, p.Limit()))
		}
	}
	return c
}

// owners looks for work that nobody does.
func (d *Doctor) owners() wire.DoctorCheck {
	c := check("owners", "every record in a transitional state has a task, and every task is tried in time")
	stuck := d.Stuck
	if stuck == 0 {
		stuck = 2 * time.Minute
	}
	look := func(r model.Tasked) {
		c.Checked++
		t, b := r.CurrentTask(), r.Base()
		switch {
		case t.Active():
			due := t.CreatedAt
			if b.UpdatedAt.After(due) {
				due = b.UpdatedAt
			}
			if t.NextRun.After(due) {
				due = t.NextRun
			}
			if d.Now().Sub(due) > stuck && !longCall(t) {
				c.Add(fmt.Sprintf("%s %s: task %s (%s, step %s) has not been tried since %s", r.Res(), b.ID, t.ID, t.Kind, t.Step, due.Format(time.RFC3339)))
			}
		case r.GetStatus() == model.StatusAttaching:
			for _, a := range d.Store.Attachments.Where("volumeId", b.ID, 0) {
				if a.Task.Active() {
					return
				}
			}
			c.Add(fmt.Sprintf("volume %s is attaching, and no attachment of it is in progress", b.ID))
		case r.GetStatus().Transitional():
			c.Add(fmt.Sprintf("%s %s is %s without a task", r.Res(), b.ID, r.GetStatus()))
		}
	}
	for _, r := range d.Store.Volumes.All() {
		look(r)
	}
	for _, r := range d.Store.Snapshots.All() {
		look(r)
	}
	for _, r := range d.Store.Attachments.All() {
		look(r)
	}
	for _, r := range d.Store.Groups.All() {
		look(r)
	}
	for _, r := range d.Store.Debts.All() {
		look(r)
	}
	return c
}

// longCall says whether the task's step may be one call that copies data.
func longCall(t *model.Task) bool {
	return t.State == model.TaskRunning && (t.Step == model.StepProvision || t.Step == model.StepApply)
}

// references looks for records that refer to what is not there.
func (d *Doctor) references() wire.DoctorCheck {
	c := check("references", "snapshots have their volume, attachments their volume and host, volumes their profile")
	s := d.Store
	for _, x := range s.Snapshots.All() {
		c.Checked++
		if _, ok := s.Volumes.Get(x.VolumeID); !ok && d.still(x) {
			c.Add(fmt.Sprintf("snapshot %s: its volume %s is not there", x.ID, x.VolumeID))
		}
	}
	for _, x := range s.Attachments.All() {
		c.Checked++
		if _, ok := s.Volumes.Get(x.VolumeID); !ok && d.still(x) {
			c.Add(fmt.Sprintf("attachment %s: its volume %s is not there", x.ID, x.VolumeID))
		}
		if _, ok := s.Hosts.Get(x.HostID); !ok && d.still(x) {
			c.Add(fmt.Sprintf("attachment %s: its host %s is not there", x.ID, x.HostID))
		}
	}
	for _, x := range s.Volumes.All() {
		c.Checked++
		if _, ok := s.Profiles.Get(x.ProfileID); !ok && x.ProfileID != "" && d.still(x) {
			c.Add(fmt.Sprintf("volume %s: its profile %s is not there", x.ID, x.ProfileID))
		}
	}
	return c
}

// still says whether a record is still as it was.
func (d *Doctor) still(r model.Tasked) bool {
	now, ok := d.Store.Tasked(r.Res(), r.Base().ID)
	return ok && now.Base().Rev == r.Base().Rev
}

// attachments compares volumes' states with their attachments.
func (d *Doctor) attachments() wire.DoctorCheck {
	c := check("attachments", "a volume is in use if and only if it has a live attachment, and has one at most if it is not multi-attach")
	d.Store.View(func(v db.View) {
		live := map[string]int{}
		for _, a := range v.Attachments() {
			if a.Status != model.StatusError {
				live[a.VolumeID]++
			}
		}
		for _, x := range v.Volumes() {
			c.Checked++
			n := live[x.ID]
			switch {
			case n > 1 && !x.MultiAttach:
				c.Add(fmt.Sprintf("volume %s is not multi-attach and has %d attachments", x.ID, n))
			case n == 0 && x.Status == model.StatusInUse:
				c.Add(fmt.Sprintf("volume %s is in use, and has no attachment", x.ID))
			case n > 0 && x.Status == model.StatusAvailable:
				c.Add(fmt.Sprintf("volume %s is available, and has %d attachments", x.ID, n))
			}
		}
	})
	return c
}

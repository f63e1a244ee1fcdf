// Package lvm is a driver whose volumes are logical volumes: thick ones in a
// volume group, or thin ones in a thin pool. Hosts reach them by iSCSI or NVMe
// over TCP, see package export.
//
// What there is, is known from LVM's report alone (report.go). The driver names
// and tags everything it makes in the very command that makes it, so that it is
// found after a crash at any point, and touches nothing that is not tagged so.
// Commands that change a volume group come one after the other (turns.go); looks
// are shared (state.go).
//
// A logical volume bears the tag osds.new until it is whole: cleared, copied,
// grown. journal.go says how a create is answered without a second command.
package lvm

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/sirupsen/logrus"

	"github.com/osds-io/osds/internal/keylock"
	"github.com/osds-io/osds/internal/run"
	"github.com/osds-io/osds/pkg/drivers"
	"github.com/osds-io/osds/pkg/drivers/export"
	"github.com/osds-io/osds/pkg/model"
)

// Driver drives the pools of one configuration. It implements every ability.
type Driver struct {
	pools      map[string]*pool
	names      []string // of pools, sorted
	groups     map[string]*vgroup
	groupNames []string
	cluster    string
	log        logrus.FieldLogger

	cmd     *commander
	reports reports
	journal *journal
	clean   *cleanSpace
	known   *identities
	exports *export.Manager

	// locks are named v/ID, s/ID and a/ID: calls on one object wait for each
	// other, and what is being copied is not changed.
	locks keylock.Set

	// slice is how long clearing or copying works in one call.
	slice time.Duration
	// kick asks for tags to be settled.
	kick chan struct{}
	// ctx ends with the driver.
	ctx  context.Context
	stop context.CancelFunc
	wg   sync.WaitGroup
}

// pool is a volume group, or a thin pool in one.
type pool struct {
	name string
	conf poolConfig
	vg   *vgroup

	mu        sync.Mutex
	lastTotal model.Bytes       // as it was seen last
	said      map[string]string // what was warned of
}

var (
	_ drivers.Factory     = Factory
	_ drivers.Driver      = (*Driver)(nil)
	_ drivers.Expander    = (*Driver)(nil)
	_ drivers.Snapshotter = (*Driver)(nil)
	_ drivers.Cloner      = (*Driver)(nil)
	_ drivers.Reverter    = (*Driver)(nil)
	_ drivers.Exporter    = (*Driver)(nil)
)

// Factory opens the pools of a dock's backend. It is a drivers.Factory.
func Factory(ctx context.Context, c drivers.Config) (drivers.Driver, error) {
	d, err := Open(ctx, c)
	if err != nil {
		return nil, err
	}
	return d, nil
}

// Open opens the pools that c.Path configures, and makes the exports again that
// the kernel has lost.
func Open(ctx context.Context, c drivers.Config) (*Driver, error) {
	if c.StateDir == "" {
		return nil, model.Invalid("stateDir", "the lvm driver needs a state directory")
	}
	cf, err := load(c.Path)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(c.StateDir, 0o700); err != nil {
		return nil, model.Errorf(model.KindUnavailable, "the lvm driver's state directory: %w", err)
	}
	d := &Driver{pools: map[string]*pool{}, groups: map[string]*vgroup{}, cluster: c.ClusterID, log: c.Log,
		cmd: newCommander(run.Exec{}, cf.Devices, c.StateDir), kick: make(chan struct{}, 1), slice: defaultSlice}
	if d.log == nil {
		quiet := logrus.New()
		quiet.SetOutput(os.Stderr)
		d.log = quiet
	}
	for _, name := range sortedNames(cf.Pool) {
		conf := cf.Pool[name]
		g := d.groups[conf.vg]
		if g == nil {
			g = &vgroup{name: conf.vg}
			d.groups[conf.vg] = g
			d.groupNames = append(d.groupNames, conf.vg)
		}
		d.pools[name] = &pool{name: name, conf: conf, vg: g}
		d.names = append(d.names, name)
	}
	d.ctx, d.stop = context.WithCancel(context.Background())
	if err := d.begin(ctx, c, cf); err != nil {
		d.stop()
		d.wg.Wait()
		return nil, err
	}
	d.wg.Add(1)
	go d.keep()
	return d, nil
}

// begin looks at what there is, puts right what a crash has left half done, and
// brings the exports back.
func (d *Driver) begin(ctx context.Context, c drivers.Config, cf config) (err error) {
	if err := awaitPredecessor(ctx, c.StateDir); err != nil {
		return err
	}
	d.cmd.hideFronts(ctx)
	if d.journal, err = openJournal(c.StateDir); err != nil {
		return err
	}
	if d.clean, err = openCleanSpace(c.StateDir); err != nil {
		return err
	}
	if d.known, err = openIdentities(c.StateDir); err != nil {
		return err
	}
	all, err := d.fresh(ctx)
	if err != nil {
		return err
	}
	if err := d.identify(all); err != nil {
		return err
	}
	used := map[string]bool{}
	complete := true
	for _, name := range d.groupNames {
		g := all[name]
		if g == nil {
			complete = false
			continue
		}
		for _, l := range g.lvs {
			used[l.tags[tagNew]], used[l.tags[tagDeleting]] = true, true
			if s := l.tags[tagRevert]; s != "" {
				used[revertNote(l.tags[tagID], s)] = true
			}
		}
		if err := d.recoverGroup(ctx, d.groups[name], g); err != nil {
			return err
		}
	}
	if complete {
		d.journal.keep(used)
	}
	d.activatePools(ctx, all)
	xc := cf.Options.Config(filepath.Join(c.StateDir, "exports"), c.ClusterID, c.Backend)
	xc.Log = d.log
	d.exports, err = export.Open(ctx, xc, d.deviceOf)
	return err
}

// activatePools brings thin pools into use that a restart of the host has left
// without a device. One that cannot be is shown as unusable.
func (d *Driver) activatePools(ctx context.Context, all map[string]*group) {
	for _, n := range d.names {
		p := d.pools[n]
		if g := all[p.conf.vg]; g != nil && p.conf.isThin() {
			if tp := g.lvs[p.conf.thin]; tp != nil && !tp.active {
				if err := d.change(ctx, p.vg, "", "lvchange", "--yes", "--quiet", "--activate", "y", g.name+"/"+tp.name); err != nil {
					d.log.WithError(err).WithField("pool", n).Warn("the thin pool cannot be activated")
				}
				p.vg.forget()
			}
		}
	}
}

// identify remembers what the pools are, and refuses to begin with one that was
// never seen.
func (d *Driver) identify(all map[string]*group) error {
	found := map[string]string{}
	for _, name := range d.names {
		p := d.pools[name]
		g := all[p.conf.vg]
		if g == nil {
			if d.known.get(name) == "" {
				return absentGroup(p.conf.vg)
			}
			continue
		}
		if g.lockType != "" && g.lockType != "none" {
			return model.Errorf(model.KindUnsupported, "the volume group %s is shared by several hosts (lock type %s), which the lvm driver cannot drive", g.name, g.lockType)
		}
		found[p.conf.vg] = g.uuid
		if p.conf.isThin() {
			tp := g.lvs[p.conf.thin]
			switch {
			case tp == nil && d.known.get(name) == "":
				return model.Errorf(model.KindUnavailable, "there is no thin pool %s in the volume group %s: make it with lvcreate --type thin-pool", p.conf.thin, g.name)
			case tp != nil && !tp.isThinPool():
				return model.Errorf(model.KindInvalid, "%s/%s is not a thin pool", g.name, p.conf.thin)
			case tp != nil:
				found[name] = tp.uuid
			}
		}
	}
	return d.known.learn(found)
}

func (l *lv) isThinPool() bool { return l.layout["thin"] && l.layout["pool"] }

// Close ends the driver. Exports live on, and so does whatever is active.
func (d *Driver) Close() error {
	err := d.exports.Close()
	if d.journal.pending() {
		ctx, cancel := context.WithTimeout(d.ctx, settleLimit)
		for _, n := range d.groupNames {
			// What is not settled now is when the driver opens again.
			_ = d.settle(ctx, d.groups[n], prioNormal)
		}
		cancel()
	}
	d.stop()
	d.wg.Wait()
	return err
}

// pool gives a configured pool. That one is not configured says nothing about
// what is in it, so the error is never notFound.
func (d *Driver) pool(name string) (*pool, error) {
	if p := d.pools[name]; p != nil {
		return p, nil
	}
	return nil, model.Errorf(model.KindUnavailable, "pool %q is not in the lvm driver's configuration", name)
}

// thinLV gives the thin pool's own logical volume, the same as ever.
func (p *pool) thinLV(d *Driver, g *group) (*lv, error) {
	tp := g.lvs[p.conf.thin]
	if tp == nil || !tp.isThinPool() {
		return nil, model.Errorf(model.KindUnavailable, "there is no thin pool %s in the volume group %s", p.conf.thin, g.name)
	}
	if want := d.known.get(p.name); want != "" && want != tp.uuid {
		return nil, model.Errorf(model.KindUnavailable,
			"the thin pool %s is another one than it was (it had the UUID %s and has %s); to begin anew, remove it from %s in the driver's state directory",
			p.name, want, tp.uuid, knownFile)
	}
	return tp, nil
}

// has says whether a logical volume of the group is in the pool.
func (p *pool) has(l *lv) bool { return l.pool == p.conf.thin }

// poolOf gives the configured pool that a logical volume of a group is in; nil
// if it is in none.
func (d *Driver) poolOf(vg string, l *lv) *pool {
	for _, n := range d.names {
		if p := d.pools[n]; p.conf.vg == vg && p.has(l) {
			return p
		}
	}
	return nil
}

// poolID is a stable identity: that of the group or of the thin pool itself.
func poolID(lvmUUID string) string {
	return uuid.NewSHA1(uuid.NameSpaceOID, []byte(lvmUUID)).String()
}

// whole says whether a logical volume of ours is all that it is to be.
func (d *Driver) whole(l *lv) bool {
	if l.tags[tagDeleting] != "" || l.tags[tagImport] != "" {
		return false
	}
	n := l.tags[tagNew]
	return n == "" || d.journal.get(n).Whole
}

// keepEvery is how often keep looks without being asked.
const keepEvery = 10 * time.Second

// settleLimit bounds what Close waits for tags to be settled.
const settleLimit = 10 * time.Second

// keep settles tags, and gives thick snapshots more space, until the driver ends.
func (d *Driver) keep() {
	defer d.wg.Done()
	tick := time.NewTicker(keepEvery)
	defer tick.Stop()
	for {
		select {
		case <-d.ctx.Done():
			return
		case <-tick.C:
		case <-d.kick:
		}
		for _, n := range d.groupNames {
			if !d.journal.pending() {
				break
			}
			if err := d.settle(d.ctx, d.groups[n], prioTidy); err != nil && d.ctx.Err() == nil {
				d.log.WithError(err).WithField("group", n).Warn("tags of new volumes could not be taken off; it is tried again")
			}
		}
		d.growSnapshots(d.ctx)
	}
}

// wake asks keep for a round.
func (d *Driver) wake() {
	select {
	case d.kick <- struct{}{}:
	default:
	}
}

// settle takes the tag of what is new off everything that is whole.
func (d *Driver) settle(ctx context.Context, vg *vgroup, pr prio) error {
	end, err := vg.turns.take(ctx, pr)
	if err != nil {
		return err
	}
	defer end()
	g, err := d.recent(ctx, vg.name)
	if err != nil {
		return err
	}
	var names, nonces, argv []string
	for _, l := range g.lvs {
		if n := l.tags[tagNew]; n != "" && l.tags[tagKind] == kindVolume && d.journal.get(n).Whole && len(names) < maxBatch {
			names, nonces = append(names, l.name), append(nonces, n)
		}
	}
	if len(names) == 0 {
		return nil
	}
	for _, n := range nonces {
		argv = append(argv, "--deltag", tagNew+"="+encodeTag(n))
	}
	for _, n := range names {
		argv = append(argv, vg.name+"/"+n)
	}
	point("settle", "before")
	err = d.change(ctx, vg, "", append([]string{"lvchange", "--yes", "--quiet"}, argv...)...)
	if err != nil {
		err = d.failed(ctx, vg, err, func(g *group) (bool, error) {
			return !slices.ContainsFunc(names, func(n string) bool { return g.lvs[n] != nil && g.lvs[n].tags[tagNew] != "" }), nil
		})
	} else {
		vg.update(func(g *group) {
			for _, n := range names {
				if l := g.lvs[n]; l != nil {
					c := *l
					c.tags = l.tags.without(tagNew)
					g.lvs[n] = &c
				}
			}
		})
	}
	if err != nil {
		return err
	}
	point("settle", "after")
	d.journal.drop(nonces...)
	return nil
}

// settled makes sure that a volume does not depend on the journal, before
// anything is done with it that may put data into it.
func (d *Driver) settled(ctx context.Context, vg *vgroup, l *lv) error {
	if l.tags[tagNew] == "" {
		return nil
	}
	for range 100 { // each takes off maxBatch tags
		if err := d.settle(ctx, vg, prioAttach); err != nil {
			return err
		}
		g, err := d.recent(ctx, vg.name)
		if err != nil {
			return err
		}
		if now := g.lvs[l.name]; now == nil || now.tags[tagNew] == "" {
			return nil
		}
	}
	return model.Errorf(model.KindInternal, "%s/%s is marked as new for ever", vg.name, l.name)
}

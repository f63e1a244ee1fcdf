package connector

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/osds-io/osds/internal/faults"
	"github.com/osds-io/osds/pkg/drivers"
	"github.com/osds-io/osds/pkg/model"
)

// Detach is nil for what is seen not to be attached; busy while something holds
// the device (a mount, a volume group, an open file), which it names.
func (c *Connector) Detach(ctx context.Context, r Request) error {
	if err := drivers.CheckID("attachmentId", r.AttachmentID); err != nil {
		return err
	}
	ctx, cancel := bounded(ctx)
	defer cancel()
	unlock, err := c.lock(ctx, r.AttachmentID, "")
	if err != nil {
		return err
	}
	defer unlock()
	n, ok := c.notes.get(r.AttachmentID)
	if ok && r.VolumeID != "" && n.VolumeID != r.VolumeID {
		return model.Errorf(model.KindConflict, "attachment %s is of volume %s here, not %s", r.AttachmentID, n.VolumeID, r.VolumeID)
	}
	if !ok {
		if n, ok = c.adopt(r); !ok {
			return nil
		}
	}
	faults.Point("connector.detach.begin")
	return c.detach(ctx, n, r.Force)
}

// adopt makes a note of what is live without one: the notes were lost, or a login
// that was given up has succeeded after all. Only what is named by the
// attachment's id is taken.
func (c *Connector) adopt(r Request) (note, bool) {
	n := note{AttachmentID: r.AttachmentID, VolumeID: r.VolumeID, Stage: stageDetaching, Created: time.Now().UTC()}
	for _, s := range c.h.sessions() {
		if s.portal.Name == iqnPrefix+r.AttachmentID {
			n.Target.Type = typeISCSI
			n.Target.LUN = 1
			n.Target.add(s.portal)
		}
	}
	if n.Target.Type == "" {
		for _, x := range c.h.controllers() {
			if x.portal.Name == nqnPrefix+r.AttachmentID {
				n.Target.Type = typeNVMe
				n.Target.add(x.portal)
			}
		}
	}
	if n.Target.Type == "" {
		ok := c.rbd.adopt(&n, r.Connection, func(i image) bool {
			return len(c.notes.others(n.AttachmentID, func(o *note) bool { return o.Target.Type == typeRBD && o.Target.RBD.String() == i.String() })) > 0
		})
		return n, ok
	}
	if t, err := parseConnection(r.Connection); err == nil && t.Type == n.Target.Type && t.name() == n.Target.name() {
		n.Target.LUN, n.Target.Identity = t.LUN, t.Identity
	}
	return n, n.Target.Type != ""
}

// shared says whether other attachments use the target of one: an array's target
// has many volumes. Targets that osds makes have one.
func (c *Connector) shared(n *note) bool {
	return len(c.notes.others(n.AttachmentID, func(o *note) bool {
		return o.Target.Type == n.Target.Type && n.Target.Type != typeLocal && o.Target.name() == n.Target.name()
	})) > 0
}

// detach ends an attachment. The caller has it locked.
func (c *Connector) detach(ctx context.Context, n note, force bool) error {
	p := c.proto[n.Target.Type]
	if p == nil {
		return model.Errorf(model.KindInternal, "the note of attachment %s has the type %q", n.AttachmentID, n.Target.Type)
	}
	d, why, err := p.find(&n)
	if err != nil {
		// Another volume's device, or none that is known: it was never given out.
		d = disk{}
		c.conf.Log.WithError(err).WithField("attachment", n.AttachmentID).Warn("what this attachment's target shows is not its volume")
	}
	if n.WWID == "" && d.isMap() && n.Target.Type == typeISCSI {
		n.WWID = strings.TrimPrefix(c.h.value("sys/block", d.name, "dm/uuid"), "mpath-")
	}
	if !force {
		if err := c.quiet(ctx, &n, d, why == ""); err != nil {
			return err
		}
	}
	faults.Point("connector.detach.flushed")
	n.Stage = stageDetaching
	if d.name != "" {
		n.Dev = c.h.dev(d.name)
	}
	if err := c.notes.put(n); err != nil {
		return err
	}
	faults.Point("connector.detach.noted")
	if force {
		err = c.cut(ctx, p, &n, d)
	} else {
		err = c.end(ctx, p, &n, d)
	}
	if err != nil {
		return err
	}
	if !c.shared(&n) {
		if err := p.forget(ctx, &n); err != nil {
			return err
		}
	}
	faults.Point("connector.detach.forgotten")
	if err := c.notes.remove(n.AttachmentID); err != nil {
		return err
	}
	faults.Point("connector.detach.done")
	return nil
}

// quiet makes sure that nobody uses what is to be ended.
func (c *Connector) quiet(ctx context.Context, n *note, d disk, reachable bool) error {
	if d.name != "" {
		return c.idle(ctx, n.AttachmentID, d, reachable)
	}
	if ms := c.h.staleMounts(n.Dev); len(ms) > 0 {
		var by []string
		for _, m := range ms {
			by = append(by, "mounted on "+m.point)
		}
		return model.Errorf(model.KindBusy, "the device of attachment %s is gone, and still in use: %s; unmount it, or detach with force", n.AttachmentID, strings.Join(firstFew(by), ", "))
	}
	return nil
}

// end takes away an idle device.
func (c *Connector) end(ctx context.Context, p protocol, n *note, d disk) error {
	if err := p.teardown(ctx, n, d, c.shared(n), false); err != nil {
		return err
	}
	faults.Point("connector.detach.disconnected")
	if n.Target.Type == typeLocal || c.shared(n) {
		return nil
	}
	return c.gone(ctx, p, n)
}

// gone waits until the kernel has taken the device away.
func (c *Connector) gone(ctx context.Context, p protocol, n *note) error {
	for pause := 2 * time.Millisecond; ; pause = min(pause*2, 100*time.Millisecond) {
		d, _, err := p.find(n)
		if err == nil && d.name == "" {
			return nil
		}
		if serr := sleep(ctx, pause); serr != nil {
			return model.Errorf(model.KindUnknownOutcome, "%s of attachment %s is still there: %w", c.h.devPath(d.name), n.AttachmentID, serr)
		}
	}
}

// cut ends an attachment whose export is gone, whoever uses it. Order matters:
// I/O that waits for a path must fail first, or everything after it waits too.
// What cannot be removed, because somebody still has it open, is named in a busy
// error; it is dead, and a later detach removes it.
func (c *Connector) cut(ctx context.Context, p protocol, n *note, d disk) error {
	s := c.h.stackOf(d)
	mounts := append(c.h.mountsOf(s, "self"), c.h.staleMounts(n.Dev)...)
	upper := c.h.upper(d)
	var errs []error
	fail := func(what string, err error) {
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", what, err))
		}
	}
	if n.Target.Type != typeLocal {
		fail("end of the connection", p.teardown(ctx, n, d, c.shared(n), true))
		faults.Point("connector.detach.cut")
	}
	for _, m := range mounts {
		err := c.block(ctx, "unmount of "+m.point, func() error {
			return unix.Unmount(m.point, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
		})
		if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT) {
			err = nil // it has gone, with one below it
		}
		fail("unmount of "+m.point, err)
	}
	faults.Point("connector.detach.unmounted")
	for _, alias := range upper {
		fail("removal of "+alias, c.limited(ctx, func(ctx context.Context) error { return c.h.removeMap(ctx, alias) }))
	}
	if name, _ := c.h.multipathMap(n.WWID); name != "" {
		alias := c.h.value("sys/block", name, "dm/name")
		err := c.limited(ctx, func(ctx context.Context) error { return c.h.removeMap(ctx, alias) })
		if now, _ := c.h.multipathMap(n.WWID); now == "" {
			err = nil
		}
		fail("removal of "+alias, err)
	}
	errs = append(errs, c.left(ctx, p, n)...)
	if len(errs) > 0 {
		return model.Errorf(model.KindBusy, "attachment %s is cut off, but something of it is left on this host: %w", n.AttachmentID, errors.Join(errs...))
	}
	return nil
}

// limited gives one step of a forced detach a part of the time.
func (c *Connector) limited(ctx context.Context, f func(ctx context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	return f(ctx)
}

// left looks what of a cut attachment is still there.
func (c *Connector) left(ctx context.Context, p protocol, n *note) []error {
	if n.Target.Type == typeLocal || c.shared(n) {
		return nil
	}
	// The kernel takes devices away a moment after their paths.
	var d disk
	for range 100 {
		var err error
		if d, _, err = p.find(n); err == nil && d.name == "" {
			break
		}
		if sleep(ctx, 20*time.Millisecond) != nil {
			break
		}
	}
	var out []error
	if d.name != "" {
		what := c.h.devPath(d.name) + " is still there"
		if by := c.h.holders(d); len(by) > 0 {
			what += ": " + strings.Join(by, ", ")
		}
		out = append(out, errors.New(what))
	}
	for _, m := range c.h.staleMounts(n.Dev) {
		out = append(out, errors.New("still mounted on "+m.point))
	}
	return out
}

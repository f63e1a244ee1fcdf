// Package connector is the consumer's side of an attachment: it makes a block
// device of this host from what an export's connection says, and takes it away
// again. Devices are found by their identity, never by name or order.
//
// What is attached is noted on disk before anything is done, so that a detach
// after a crash or a reboot knows what to end.
package connector

import (
	"context"
	"errors"
	"fmt"
	"sort"
	"strings"
	"sync"
	"time"

	"github.com/osds-io/osds/internal/faults"
	"github.com/osds-io/osds/internal/keylock"
	"github.com/osds-io/osds/internal/run"
	"github.com/osds-io/osds/pkg/drivers"
	"github.com/osds-io/osds/pkg/model"
)

// The names of targets that osds makes begin like this; the attachment's id
// follows.
const (
	iqnPrefix = "iqn.2017-10.io.opensds:"
	nqnPrefix = "nqn.2019-01.com.opensds:nvme:"
)

// Bounds of calls.
const (
	// defaultDeadline is that of a call which brings none.
	defaultDeadline = 2 * time.Minute
	// undoTime is what taking back a failed attach may take.
	undoTime = 30 * time.Second
	// closeTime is how long Close waits for what is stuck in the kernel.
	closeTime = 10 * time.Second
)

// Request names an attachment.
type Request struct {
	AttachmentID, VolumeID string
	Connection             model.Connection
	ReadOnly               bool
	// Size is what the device must be at least, in bytes; 0 is anything.
	Size model.Bytes
	// Force, for Detach: the export is gone, or is to be given up. Nothing is
	// flushed, holders are cut off as far as the kernel lets us.
	Force bool
}

// Device is an attached device.
type Device struct {
	AttachmentID, VolumeID string
	// Path is the device to use: the multipath device where there are several
	// paths.
	Path     string
	Identity string
	Size     model.Bytes
	Detail   string
}

// protocol is one way of attaching. Calls for one attachment come one at a time.
type protocol interface {
	// usable says why it does not work on this host now; nil if it does.
	usable() error
	// initiators are the names by which storage knows this host.
	initiators() []model.Initiator
	// connect makes every path that is missing; nil if there is one at the end.
	// fresh says that the caller brought the connection, secrets and all.
	connect(ctx context.Context, n *note, fresh bool) (warn string, err error)
	// find gives the device as the kernel has it, and why it is not usable yet.
	// An error is a device that is not the attachment's.
	find(n *note) (d disk, why string, err error)
	// rescan has the kernel look again.
	rescan(ctx context.Context, n *note, d disk) error
	// teardown ends the paths, and the map if cut is not set. shared says that
	// other attachments use the same target.
	teardown(ctx context.Context, n *note, d disk, shared, cut bool) error
	// forget removes what is kept on disk for the target.
	forget(ctx context.Context, n *note) error
}

// Connector attaches for this host.
type Connector struct {
	conf  Config
	h     *host
	notes *notes
	locks keylock.Set
	proto map[string]protocol
	rbd   *rbd // one of them

	mu       sync.Mutex
	closed   bool
	stuck    map[string]int // what runs in the kernel, for people
	wg       sync.WaitGroup
	stop     context.CancelFunc
	repairs  map[string]context.CancelFunc
	repaired chan struct{}
}

// New makes a connector. It reads the notes, and changes nothing that is
// attached; sessions that are named like ours and have no note are logged, and
// listed by List.
func New(ctx context.Context, c Config) (*Connector, error) {
	return open(ctx, c, &host{run: run.Exec{}})
}

func open(ctx context.Context, conf Config, h *host) (*Connector, error) {
	if err := conf.Validate(); err != nil {
		return nil, err
	}
	if conf.StateDir == "" {
		return nil, model.Invalid("connector.stateDir", "connector.stateDir must be set")
	}
	conf = conf.withDefaults()
	s, err := openNotes(conf.StateDir)
	if err != nil {
		return nil, err
	}
	c := &Connector{conf: conf, h: h, notes: s, stuck: map[string]int{}, repairs: map[string]context.CancelFunc{}, repaired: make(chan struct{})}
	is := &iscsi{h: h, conf: conf, mp: multipath{h}, save: s.put, dialer: dialer{block: c.block}}
	nv := &nvme{h: h, conf: conf, block: c.block, dialer: dialer{block: c.block}}
	c.rbd = newRBD(c)
	c.proto = map[string]protocol{typeISCSI: is, typeNVMe: nv, typeLocal: &local{h}, typeRBD: c.rbd}
	is.removeStrays()
	for _, n := range c.notes.all() {
		if n.Stage != stageAttached {
			conf.Log.WithField("attachment", n.AttachmentID).Warnf("an interrupted call has left this attachment %s; attach or detach it again", n.Stage)
		}
	}
	for _, d := range c.strays() {
		conf.Log.WithField("attachment", d.AttachmentID).Warnf("%s; it is left alone", d.Detail)
	}
	run, stop := context.WithCancel(context.WithoutCancel(ctx))
	c.stop = stop
	go func() {
		defer close(c.repaired)
		c.repairLoop(run)
	}()
	return c, nil
}

// Close ends the connector. Devices stay. It is an error if something is stuck
// in the kernel, which ends when the kernel gives up.
func (c *Connector) Close() error {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.stop()
	<-c.repaired
	done := make(chan struct{})
	go func() { c.wg.Wait(); close(done) }()
	select {
	case <-done:
		return nil
	case <-time.After(closeTime):
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	var what []string
	for s := range c.stuck {
		what = append(what, s)
	}
	sort.Strings(what)
	return model.Errorf(model.KindUnavailable, "the kernel has not ended: %s", strings.Join(firstFew(what), ", "))
}

var errClosed = errors.New("the connector is closed")

// block runs what may wait in the kernel longer than its caller wants to. It
// goes on after the context's end; Close waits for it.
func (c *Connector) block(ctx context.Context, what string, f func() error) error {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return model.Errorf(model.KindUnavailable, "%s: %w", what, errClosed)
	}
	c.stuck[what]++
	c.wg.Add(1)
	c.mu.Unlock()
	done := make(chan error, 1)
	go func() {
		defer c.wg.Done()
		err := f()
		c.mu.Lock()
		if c.stuck[what]--; c.stuck[what] == 0 {
			delete(c.stuck, what)
		}
		c.mu.Unlock()
		done <- err
	}()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return model.Errorf(model.KindUnknownOutcome, "%s has not ended: %w", what, ctx.Err())
	}
}

// Initiators are this host's names on the storage networks, of the protocols
// that work here; never empty for a host with any.
func (c *Connector) Initiators() []model.Initiator {
	var out []model.Initiator
	for _, t := range []string{typeISCSI, typeNVMe, typeRBD} {
		p := c.proto[t]
		if x := p.initiators(); len(x) > 0 && p.usable() == nil {
			out = append(out, x...)
		}
	}
	return out
}

// initiator is a host's one name on a storage network; none if it is empty.
func initiator(name, protocol string) []model.Initiator {
	if name == "" {
		return nil
	}
	return []model.Initiator{{PortName: name, Protocol: protocol}}
}

// Unusable says, by protocol, why it does not work on this host; empty for a
// host with all.
func (c *Connector) Unusable() map[string]string {
	out := map[string]string{}
	for t, p := range c.proto {
		if err := p.usable(); err != nil {
			out[t] = err.Error()
		}
	}
	return out
}

func bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, defaultDeadline)
}

// lock takes an attachment, and its volume if it is known.
func (c *Connector) lock(ctx context.Context, id, volume string) (func(), error) {
	c.mu.Lock()
	if stop := c.repairs[id]; stop != nil {
		stop() // whoever was called for goes first
	}
	c.mu.Unlock()
	wants := []keylock.Want{{Key: "a/" + id}}
	if volume != "" {
		wants = append(wants, keylock.Want{Key: "v/" + volume})
	}
	unlock, err := c.locks.LockAll(ctx, wants...)
	if err != nil {
		return nil, model.Errorf(model.KindUnavailable, "another call for attachment %s is in progress: %w", id, err)
	}
	return unlock, nil
}

// Attach is idempotent by attachment id. It returns when the device can be
// opened and has the right identity and size.
func (c *Connector) Attach(ctx context.Context, r Request) (Device, error) {
	if err := drivers.CheckID("attachmentId", r.AttachmentID); err != nil {
		return Device{}, err
	}
	if err := drivers.CheckID("volumeId", r.VolumeID); err != nil {
		return Device{}, err
	}
	if r.Size < 0 {
		return Device{}, model.Invalid("size", "size must not be negative")
	}
	t, err := parseConnection(r.Connection)
	if err != nil {
		return Device{}, err
	}
	ctx, cancel := bounded(ctx)
	defer cancel()
	unlock, err := c.lock(ctx, r.AttachmentID, r.VolumeID)
	if err != nil {
		return Device{}, err
	}
	defer unlock()
	faults.Point("connector.attach.begin")
	n, isNew, err := c.begin(ctx, r, t)
	if err != nil {
		return Device{}, err
	}
	p := c.proto[t.Type]
	d, warn, err := c.make(ctx, p, &n, r)
	if err != nil {
		if isNew && model.IsKind(err, model.KindDenied, model.KindInvalid, model.KindUnsupported, model.KindConflict) {
			c.undo(ctx, p, &n)
		}
		return Device{}, err
	}
	if dev := c.h.dev(d.name); n.Stage != stageAttached || n.Dev != dev {
		n.Stage, n.Dev = stageAttached, dev
		if err := c.notes.put(n); err != nil {
			return Device{}, err
		}
	}
	faults.Point("connector.attach.done")
	if warn != "" {
		d.detail += "; " + warn
	}
	return c.device(&n, d), nil
}

// begin writes the note, unless it is there. isNew says that it was not.
func (c *Connector) begin(ctx context.Context, r Request, t target) (n note, isNew bool, err error) {
	n, ok := c.notes.get(r.AttachmentID)
	if ok && n.VolumeID != r.VolumeID {
		return n, false, model.Errorf(model.KindExists, "attachment %s is here already, of volume %s", r.AttachmentID, n.VolumeID)
	}
	if ok && n.Stage == stageDetaching {
		// What is half gone is not taken up again.
		if err := c.detach(ctx, n, false); err != nil {
			return n, false, err
		}
		ok = false
	}
	if ok && (n.Target.Type != t.Type || n.Target.name() != t.name()) {
		return n, false, model.Errorf(model.KindConflict, "attachment %s is here already, by %s from %s; detach it first", r.AttachmentID, n.Target.Type, n.Target.name())
	}
	for _, o := range c.notes.others(r.AttachmentID, func(o *note) bool { return o.VolumeID == r.VolumeID }) {
		return n, false, model.Errorf(model.KindBusy, "volume %s is attached to this host already, by attachment %s; one host has a volume once", r.VolumeID, o.AttachmentID)
	}
	if !ok {
		n = note{AttachmentID: r.AttachmentID, VolumeID: r.VolumeID, Stage: stageAttaching, Created: time.Now().UTC()}
	}
	before := n
	if t.Identity == "" {
		t.Identity = n.Target.Identity
	}
	n.Target, n.ReadOnly = t, r.ReadOnly
	if is, _ := c.proto[typeISCSI].(*iscsi); t.Type == typeISCSI && is.wantsMap(&t) && n.WWID == "" && strings.HasPrefix(t.Identity, "6") && len(t.Identity) == 32 {
		n.WWID = "3" + t.Identity
	}
	if !ok || !sameNote(before, n) {
		if err := c.notes.put(n); err != nil {
			return n, !ok, err
		}
	}
	faults.Point("connector.attach.noted")
	return n, !ok, nil
}

func sameNote(a, b note) bool {
	a.Target.Auth, b.Target.Auth = chap{}, chap{}
	a.Target.RBD.secret, b.Target.RBD.secret = "", ""
	return fmt.Sprint(a) == fmt.Sprint(b)
}

// make makes the device and waits for it.
func (c *Connector) make(ctx context.Context, p protocol, n *note, r Request) (disk, string, error) {
	warn, err := p.connect(ctx, n, true)
	if err != nil {
		return disk{}, "", err
	}
	faults.Point("connector.attach.connected")
	d, err := c.wait(ctx, p, n, r.Size, 500*time.Millisecond, true)
	if err != nil {
		return d, warn, err
	}
	faults.Point("connector.attach.device")
	if d, err = c.opened(ctx, p, n, d, r); err != nil {
		if model.KindOf(err) == model.KindUnknownOutcome {
			return d, warn, err
		}
		return d, warn, model.Errorf(model.KindUnavailable, "%s cannot be opened: %w", c.h.devPath(d.name), err)
	}
	return d, warn, nil
}

// wait waits for a device that is usable and large enough. What there is to see
// is looked for often, and the kernel asked to look again seldom, the first time
// after patience. A path that has gone meanwhile is made again.
func (c *Connector) wait(ctx context.Context, p protocol, n *note, size model.Bytes, patience time.Duration, fresh bool) (disk, error) {
	next, joined := time.Now().Add(patience), time.Now().Add(pathGrace)
	for pause := 2 * time.Millisecond; ; {
		d, why, err := p.find(n)
		if err != nil {
			return d, err
		}
		if why == "" && d.size < size {
			why = fmt.Sprintf("%s has %s, and %s are expected", c.h.devPath(d.name), d.size, size)
		}
		if why == "" && d.size == 0 {
			why = c.h.devPath(d.name) + " is empty"
		}
		if why == "" && !c.h.exists(c.h.devPath(d.name)) {
			why = c.h.devPath(d.name) + " has no node yet"
		}
		if why == "" && (!d.joining || time.Now().After(joined)) {
			return d, nil
		}
		if why != "" && time.Now().After(next) {
			_, err := p.connect(ctx, n, fresh)
			if err == nil {
				err = p.rescan(ctx, n, d)
			}
			if err != nil && ctx.Err() == nil {
				return d, err
			}
			next = time.Now().Add(2 * time.Second)
		}
		if err := sleep(ctx, pause); err != nil {
			return d, model.Errorf(model.KindUnknownOutcome, "the device of attachment %s has not come: %s: %w", n.AttachmentID, why, err)
		}
		if pause < 100*time.Millisecond {
			pause = pause * 3 / 2
		}
	}
}

// undo takes back an attach that was refused. What it cannot, the note keeps for
// a detach.
func (c *Connector) undo(ctx context.Context, p protocol, n *note) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTime)
	defer cancel()
	faults.Point("connector.attach.undo")
	if err := c.detach(ctx, *n, false); err != nil {
		c.conf.Log.WithError(err).WithField("attachment", n.AttachmentID).Warn("a refused attach could not be taken back; its detach will")
	}
}

func (c *Connector) device(n *note, d disk) Device {
	out := Device{AttachmentID: n.AttachmentID, VolumeID: n.VolumeID, Identity: d.identity, Size: d.size, Detail: d.detail}
	if d.name != "" {
		out.Path = c.h.devPath(d.name)
	}
	if n.Target.Type == typeLocal {
		out.Path = n.Target.Device
	}
	return out
}

// Resize looks again at a device whose volume has grown, and returns when the
// host sees at least size bytes. growFS grows the file system on it too.
func (c *Connector) Resize(ctx context.Context, attachmentID string, size model.Bytes, growFS bool) (Device, error) {
	if err := drivers.CheckID("attachmentId", attachmentID); err != nil {
		return Device{}, err
	}
	if size < 0 {
		return Device{}, model.Invalid("size", "size must not be negative")
	}
	ctx, cancel := bounded(ctx)
	defer cancel()
	unlock, err := c.lock(ctx, attachmentID, "")
	if err != nil {
		return Device{}, err
	}
	defer unlock()
	n, ok := c.notes.get(attachmentID)
	if !ok || n.Stage != stageAttached {
		return Device{}, model.Errorf(model.KindNotFound, "attachment %s is not attached to this host", attachmentID)
	}
	p := c.proto[n.Target.Type]
	if d, _, err := p.find(&n); err == nil && d.name != "" && d.size < size {
		faults.Point("connector.resize.rescan")
		if err := p.rescan(ctx, &n, d); err != nil {
			return Device{}, err
		}
	}
	d, err := c.wait(ctx, p, &n, size, time.Second, false)
	if err != nil {
		return Device{}, err
	}
	if growFS {
		faults.Point("connector.resize.grow")
		if err := c.grow(ctx, d); err != nil {
			return Device{}, err
		}
	}
	return c.device(&n, d), nil
}

// List lists what is attached or noted, ordered by attachment id. A session that
// is named like ours and has no note is in it too, without a volume.
func (c *Connector) List(ctx context.Context, p drivers.Page) ([]Device, error) {
	if p.Limit <= 0 || p.Limit > drivers.MaxPage {
		p.Limit = drivers.MaxPage
	}
	var out []Device
	for _, n := range c.notes.all() {
		if n.AttachmentID <= p.After {
			continue
		}
		d, why, err := c.proto[n.Target.Type].find(&n)
		x := c.device(&n, d)
		x.Detail = strings.Trim(n.Stage+", "+d.detail, ", ")
		if err != nil {
			why = err.Error()
			x.Path = ""
		}
		if why != "" {
			x.Detail += ": " + why
		}
		out = append(out, x)
		if err := ctx.Err(); err != nil {
			return nil, model.Errorf(model.KindUnknownOutcome, "list of devices: %w", err)
		}
	}
	for _, x := range c.strays() {
		if x.AttachmentID > p.After {
			out = append(out, x)
		}
	}
	sort.SliceStable(out, func(i, j int) bool { return out[i].AttachmentID < out[j].AttachmentID })
	if len(out) > p.Limit {
		out = out[:p.Limit]
	}
	return out, nil
}

// strays are the sessions and the images of ours, by their names, that no note
// knows.
func (c *Connector) strays() []Device {
	byName := map[string][]string{}
	for _, s := range c.h.sessions() {
		byName[s.portal.Name] = append(byName[s.portal.Name], s.name)
	}
	for _, x := range c.h.controllers() {
		byName[x.portal.Name] = append(byName[x.portal.Name], x.name)
	}
	noted := map[string]bool{}
	for _, n := range c.notes.all() {
		for _, p := range n.Target.Portals {
			noted[p.Name] = true
		}
	}
	var out []Device
	for name, by := range byName {
		id, ok := strings.CutPrefix(name, iqnPrefix)
		if !ok {
			id, ok = strings.CutPrefix(name, nqnPrefix)
		}
		if !ok || noted[name] || !model.ValidID(id) {
			continue
		}
		sort.Strings(by)
		out = append(out, Device{AttachmentID: id, Detail: "connected to " + name + " (" + strings.Join(by, ", ") + ") without a note of it"})
	}
	out = append(out, c.rbd.strays(func(id string) bool { _, ok := c.notes.get(id); return ok })...)
	sort.SliceStable(out, func(i, j int) bool { return out[i].AttachmentID < out[j].AttachmentID })
	return out
}

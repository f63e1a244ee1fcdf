package export

import (
	"context"
	"errors"
	"io"
	"maps"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/osds-io/osds/internal/faults"
	"github.com/osds-io/osds/internal/keylock"
	"github.com/osds-io/osds/internal/run"
	"github.com/osds-io/osds/pkg/drivers"
	"github.com/osds-io/osds/pkg/model"
)

// Manager keeps the exports of one backend.
type Manager struct {
	conf    Config
	book    notebook
	owner   string
	log     logrus.FieldLogger
	servers map[string]server // by note.Target
	device  DeviceOf

	iscsiPortals, nvmePortals []netip.AddrPort

	// locks are a/ATTACHMENT and v/VOLUME.
	locks keylock.Set

	mu     sync.Mutex
	closed bool
	// notes are by attachment id; a note in the map is never changed, but
	// replaced. bad are those that could not be read.
	notes map[string]*note
	bad   map[string]error
	// What Protocols has found, and when.
	protoMu sync.Mutex
	protoAt time.Time
	usable  []string
	why     map[string]string

	// wg counts calls that still work, if only in the kernel, and the restorer.
	wg   sync.WaitGroup
	stop context.CancelFunc
}

// DeviceOf gives the path of a volume's device, activated if need be; notFound
// if there is no such volume.
type DeviceOf func(ctx context.Context, volumeID string) (string, error)

// Open makes a manager, looks what the kernel holds, and makes again every
// noted export that is missing: after a restart of the dock nothing is done, after
// one of the host everything. Targets of ours without a note are removed and
// logged. What cannot be restored now (an address that is not there yet, say) is
// tried again in the background.
func Open(ctx context.Context, c Config, device DeviceOf) (*Manager, error) {
	m, err := newManager(c, device)
	if err != nil {
		return nil, err
	}
	notes, bad, err := m.book.read()
	if err != nil {
		return nil, err
	}
	m.bad = bad
	for _, n := range notes {
		m.notes[n.AttachmentID] = n
	}
	for id, why := range bad {
		m.log.WithField("attachment", id).WithError(why).Error("the note of an export is damaged; end the export to remove it")
	}
	left := m.reconcile(ctx, notes)
	bg, stop := context.WithCancel(context.Background())
	m.stop = stop
	m.wg.Add(1)
	go func() {
		defer m.wg.Done()
		m.restoreLater(bg, left)
	}()
	return m, nil
}

func newManager(c Config, device DeviceOf) (*Manager, error) {
	if err := first(
		oneOf("target", c.Target, "", targetLIO, targetTGT),
		checkThrough(c.WriteThrough),
		chapCheck(c)); err != nil {
		return nil, err
	}
	is, err := parsePortals("portals", c.Portals, iscsiPort)
	if err != nil {
		return nil, err
	}
	list, field := c.NVMePortals, "nvmePortals"
	if len(list) == 0 {
		list, field = c.Portals, "portals"
	}
	nv, err := parsePortals(field, list, nvmePort)
	if err != nil {
		return nil, err
	}
	book, owner, err := openNotebook(c.StateDir)
	if err != nil {
		return nil, err
	}
	if c.Log == nil {
		l := logrus.New()
		l.SetOutput(io.Discard)
		c.Log = l
	}
	if c.Run == nil {
		c.Run = run.Exec{}
	}
	mods := &kmods{run: c.Run}
	front := &fronts{stores: stores{root: configfsRoot, owner: owner, adapter: frontStores, through: true}, run: c.Run, mods: mods}
	return &Manager{
		conf: c, book: book, owner: owner, log: c.Log, device: device, iscsiPortals: is, nvmePortals: nv,
		notes: map[string]*note{}, bad: map[string]error{}, stop: func() {},
		servers: map[string]server{
			targetLIO:  &lio{root: configfsRoot, owner: owner, mods: mods},
			targetNVMe: &nvmet{root: filepath.Join(configfsRoot, "nvmet"), owner: owner, mods: mods, all: machine{runDir}, front: front},
			targetTGT:  newTGT(c, owner),
		},
	}, nil
}

func chapCheck(c Config) error {
	if c.Mutual && !c.CHAP {
		return model.Invalid("mutualChap", "needs enableChapAuth")
	}
	return nil
}

func oneOf(field, v string, allowed ...string) error {
	if slices.Contains(allowed, v) {
		return nil
	}
	return model.Invalid(field, "must be one of %s, not %q", strings.TrimLeft(strings.Join(allowed, ", "), ", "), clip(v))
}

func first(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// closeLimit bounds how long Close waits for calls that hang in the kernel:
// those cannot be stopped by anybody.
const closeLimit = 10 * time.Second

// Close ends the manager. Exports stay.
func (m *Manager) Close() error {
	m.mu.Lock()
	m.closed = true
	m.mu.Unlock()
	m.stop()
	ended := make(chan struct{})
	go func() { m.wg.Wait(); close(ended) }()
	select {
	case <-ended:
		return nil
	case <-time.After(closeLimit):
		return model.Errorf(model.KindUnknownOutcome, "a call about an export hangs in the kernel, and is left behind")
	}
}

// lookAgain is how long an answer of Protocols is good.
const lookAgain = 30 * time.Second

// Protocols are those that work on this host now, and why the others do not.
func (m *Manager) Protocols() (usable []string, why map[string]string) {
	m.protoMu.Lock()
	defer m.protoMu.Unlock()
	if time.Since(m.protoAt) < lookAgain {
		return slices.Clone(m.usable), maps.Clone(m.why)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	why = map[string]string{}
	for _, p := range []string{ISCSI, NVMe} {
		if _, err := m.serverFor(ctx, p); err != nil {
			why[p] = err.Error()
		} else {
			usable = append(usable, p)
		}
	}
	m.usable, m.why, m.protoAt = slices.Clone(usable), maps.Clone(why), time.Now()
	return usable, why
}

// serverFor chooses what serves a protocol, by the name that notes have for it.
func (m *Manager) serverFor(ctx context.Context, protocol string) (string, error) {
	portals, name := m.iscsiPortals, m.conf.Target
	switch protocol {
	case ISCSI:
		if name == "" {
			name = targetLIO
			if m.servers[targetLIO].can(ctx) != nil {
				name = targetTGT
			}
		}
	case NVMe:
		portals, name = m.nvmePortals, targetNVMe
	default:
		return "", model.Errorf(model.KindUnsupported, "exports are by %s or %s, not by %q", ISCSI, NVMe, clip(protocol))
	}
	if len(portals) == 0 {
		return "", model.Invalid("portals", "no portals are configured: give the addresses of this host that targets listen on")
	}
	if err := m.servers[name].can(ctx); err != nil {
		if protocol == ISCSI && m.conf.Target == "" {
			err = model.Errorf(model.KindUnsupported, "iSCSI is neither in the kernel (LIO) nor served by tgtd: %w", err)
		}
		return "", err
	}
	return name, nil
}

// work runs fn with locks held. It returns when fn has ended or the context has;
// in the latter case fn goes on, in the kernel perhaps for ever, and keeps the
// locks, so that nothing else is done about the same export or volume meanwhile.
func work[T any](ctx context.Context, m *Manager, what string, wants []keylock.Want, fn func(ctx context.Context) (T, error)) (T, error) {
	var none T
	if err := drivers.Begin(ctx); err != nil {
		return none, err
	}
	unlock, err := m.locks.LockAll(ctx, wants...)
	if err != nil {
		return none, model.Errorf(model.KindUnknownOutcome, "%s: an earlier call about it has not ended: %w", what, err)
	}
	m.mu.Lock()
	if m.closed {
		m.mu.Unlock()
		unlock()
		return none, model.Errorf(model.KindUnavailable, "%s: the exports are closed", what)
	}
	m.wg.Add(1)
	m.mu.Unlock()
	type result struct {
		v   T
		err error
	}
	ch := make(chan result, 1)
	go func() {
		defer m.wg.Done()
		defer unlock()
		v, err := fn(ctx)
		ch <- result{v, err}
	}()
	select {
	case r := <-ch:
		return r.v, r.err
	case <-ctx.Done():
		return none, model.Errorf(model.KindUnknownOutcome, "%s: not ended in time, and goes on: %w", what, ctx.Err())
	}
}

func wants(attachmentID, volumeID string) []keylock.Want {
	w := []keylock.Want{{Key: "a/" + attachmentID}}
	if volumeID != "" {
		w = append(w, keylock.Want{Key: "v/" + volumeID})
	}
	return w
}

// Export is idempotent by attachment id. A second export of a volume is busy
// unless both are multi-attach. Its connection has the keys that clients of the
// original expect.
func (m *Manager) Export(ctx context.Context, r Request) (model.Connection, error) {
	none := model.Connection{}
	r.Protocol = strings.ToLower(r.Protocol)
	if err := first(drivers.CheckID("attachmentId", r.AttachmentID), drivers.CheckID("volumeId", r.VolumeID)); err != nil {
		return none, err
	}
	if !filepath.IsAbs(r.Device) || strings.ContainsAny(r.Device, ",\n\x00") {
		return none, model.Errorf(model.KindInternal, "the device %q of volume %s is no path that can be exported", clip(r.Device), r.VolumeID)
	}
	name, err := m.serverFor(ctx, r.Protocol)
	if err != nil {
		return none, err
	}
	initiators, err := initiatorsOf(r.Host, r.Protocol)
	if err != nil {
		return none, err
	}
	if err := canHold(name, r); err != nil {
		return none, err
	}
	return work(ctx, m, "export of attachment "+r.AttachmentID, wants(r.AttachmentID, r.VolumeID), func(ctx context.Context) (model.Connection, error) {
		return m.export(ctx, r, name, initiators)
	})
}

// canHold refuses what a server cannot do, rather than to leave it out.
func canHold(name string, r Request) error {
	if name == targetNVMe && r.ReadOnly {
		return model.Errorf(model.KindUnsupported, "the kernel's NVMe target has no read-only exports: attach it writable, or use a pool with accessProtocol iscsi")
	}
	if r.QoS != (drivers.QoS{}) {
		why := "its requests are made by threads of the kernel, which belong to no cgroup that could be limited"
		if name == targetTGT {
			why = "one process, tgtd, serves all exports"
		}
		return model.Errorf(model.KindUnsupported, "limits of I/O (maxIOPS %d, %d bytes/s) cannot be held for exports by %s: %s",
			r.QoS.MaxIOPS, r.QoS.MaxBytesPerSecond, name, why)
	}
	return nil
}

func (m *Manager) export(ctx context.Context, r Request, name string, initiators []string) (model.Connection, error) {
	none := model.Connection{}
	if why := m.damaged(r.AttachmentID); why != nil {
		return none, model.Errorf(model.KindUnavailable, "the note of attachment %s %w; end the export first", r.AttachmentID, why)
	}
	old := m.note(r.AttachmentID)
	if old != nil && old.Ending {
		if err := m.finish(ctx, old); err != nil {
			return none, err
		}
		old = nil
	}
	if old != nil {
		return m.again(ctx, old, r, initiators)
	}
	if err := m.mayShare(r); err != nil {
		return none, err
	}
	n := &note{Version: noteVersion, AttachmentID: r.AttachmentID, VolumeID: r.VolumeID, Protocol: r.Protocol,
		Target: name, Name: targetName(r.Protocol, r.AttachmentID), Device: r.Device, Initiators: initiators, HostName: r.Host.HostName,
		ReadOnly: r.ReadOnly, MultiAttach: r.MultiAttach, WriteThrough: m.writesThrough(r.Device, m.notesOf(r.VolumeID)), Created: time.Now().UTC()}
	portals := m.iscsiPortals
	if r.Protocol == NVMe {
		portals = m.nvmePortals
	}
	for _, p := range portals {
		n.Portals = append(n.Portals, p.String())
	}
	if r.Protocol == ISCSI && m.conf.CHAP {
		n.User, n.Password = chapUser(r.AttachmentID), clear{newSecret()}
		if m.conf.Mutual {
			n.UserIn, n.PasswordIn = "target-"+n.User, clear{newSecret()}
		}
	}
	if err := m.servers[name].ready(ctx); err != nil {
		return none, err
	}
	faults.Point("export.begin")
	// The disk and the kernel work side by side: what the kernel has made is gone
	// with the power, as the note may be until it is durable.
	durable, err := m.keepNew(n)
	if err != nil {
		return none, err
	}
	faults.Point("export.noted")
	err = m.servers[name].make(ctx, n)
	if derr := durable(); err == nil {
		err = derr
	}
	if err != nil {
		return none, m.undo(ctx, n, err)
	}
	faults.Point("export.end")
	return n.connection(m.servers[name].identity(ctx, n)), nil
}

// chapUser is what an attachment's host calls itself: short enough for every
// target.
func chapUser(attachmentID string) string { return "osds-" + digest(attachmentID)[:16] }

// again completes an export that is noted, for the same request.
func (m *Manager) again(ctx context.Context, n *note, r Request, initiators []string) (model.Connection, error) {
	if n.VolumeID != r.VolumeID || n.ReadOnly != r.ReadOnly || n.Protocol != r.Protocol || !slices.Equal(n.Initiators, initiators) {
		return model.Connection{}, model.Errorf(model.KindExists, "attachment %s is there already, of volume %s by %s to host %q (%s), read-only %t",
			r.AttachmentID, n.VolumeID, n.Protocol, n.HostName, strings.Join(n.Initiators, ", "), n.ReadOnly)
	}
	s := m.servers[n.Target]
	if err := s.ready(ctx); err != nil {
		return model.Connection{}, err
	}
	if n.Device != r.Device {
		n = n.copyOf()
		n.Device = r.Device
		if err := m.keep(n); err != nil {
			return model.Connection{}, err
		}
	}
	if err := s.make(ctx, n); err != nil {
		return model.Connection{}, err
	}
	return n.connection(s.identity(ctx, n)), nil
}

// mayShare refuses an export beside others unless all of them allow it. Two
// protocols do not know of each other's reservations.
func (m *Manager) mayShare(r Request) error {
	for _, o := range m.notesOf(r.VolumeID) {
		if !o.MultiAttach || !r.MultiAttach {
			return model.Errorf(model.KindBusy, "volume %s is exported already, to host %q by attachment %s, and cannot be shared", r.VolumeID, o.HostName, o.AttachmentID)
		}
		if o.Protocol != r.Protocol {
			return model.Errorf(model.KindBusy, "volume %s is exported over %s already, by attachment %s: all its exports must be by one protocol", r.VolumeID, o.Protocol, o.AttachmentID)
		}
	}
	return nil
}

// undo takes back an export that could not be made. Where the outcome is not
// known the note stays, for the same call to complete or Unexport to end.
func (m *Manager) undo(ctx context.Context, n *note, cause error) error {
	if model.IsKind(cause, model.KindUnknownOutcome) {
		return cause
	}
	if err := m.finish(ctx, n); err != nil {
		m.log.WithField("attachment", n.AttachmentID).WithError(err).Warn("an export that could not be made could not be removed either; it will be")
		e := *model.AsError(cause)
		return &e
	}
	return cause
}

// finish ends an export for good: from here on it is never restored.
func (m *Manager) finish(ctx context.Context, n *note) error {
	s := m.servers[n.Target]
	if !n.Ending {
		n = n.copyOf()
		n.Ending = true
		if err := m.keep(n); err != nil {
			return err
		}
	}
	faults.Point("export.ending")
	if err := s.ready(ctx); err != nil {
		return err
	}
	if err := s.remove(ctx, n); err != nil {
		return err
	}
	faults.Point("export.removed")
	return m.forget(n.AttachmentID)
}

// Unexport is nil if the export is seen to be absent, busy while the host is
// connected, unless force is set. With force the host is cut off before anything
// else, and the export will not come back, whatever happens meanwhile.
func (m *Manager) Unexport(ctx context.Context, attachmentID string, force bool) error {
	if err := drivers.CheckID("attachmentId", attachmentID); err != nil {
		return err
	}
	if err := drivers.Begin(ctx); err != nil {
		return err
	}
	for {
		n := m.note(attachmentID)
		volumeID := ""
		if n != nil {
			volumeID = n.VolumeID
		}
		again, err := work(ctx, m, "end of attachment "+attachmentID, wants(attachmentID, volumeID), func(ctx context.Context) (again bool, err error) {
			now := m.note(attachmentID)
			if now != nil && now.VolumeID != volumeID {
				return true, nil // made meanwhile: other locks are needed
			}
			return false, m.unexport(ctx, attachmentID, now, force)
		})
		if err != nil || !again {
			return err
		}
	}
}

func (m *Manager) unexport(ctx context.Context, attachmentID string, n *note, force bool) error {
	if n == nil {
		if m.damaged(attachmentID) == nil {
			return nil
		}
		return m.unexportDamaged(ctx, attachmentID)
	}
	if !force && !n.Ending {
		who, err := m.servers[n.Target].connected(ctx, n)
		if err != nil {
			return err
		}
		if who != "" {
			return model.Errorf(model.KindBusy, "volume %s is in use: host %q is connected as %s; detach it there first, or use force", n.VolumeID, n.HostName, who)
		}
	}
	faults.Point("unexport.begin")
	if err := m.finish(ctx, n); err != nil {
		return err
	}
	faults.Point("unexport.end")
	return nil
}

// unexportDamaged ends an export of which nothing is known but its id: whatever
// of ours bears its name is removed.
func (m *Manager) unexportDamaged(ctx context.Context, attachmentID string) error {
	var errs []error
	for _, s := range m.servers {
		live, err := s.live(ctx)
		if err != nil {
			continue // a server that is not there has nothing of ours
		}
		for _, p := range []string{ISCSI, NVMe} {
			if t, ok := live[targetName(p, attachmentID)]; ok && t.owner == m.owner {
				errs = append(errs, s.orphan(ctx, targetName(p, attachmentID)))
			}
		}
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	return m.forget(attachmentID)
}

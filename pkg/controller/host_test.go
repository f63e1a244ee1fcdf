package controller

import (
	"context"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/osds-io/osds/pkg/controller/doctor"
	"github.com/osds-io/osds/pkg/controller/fleet"
	"github.com/osds-io/osds/pkg/db"
	"github.com/osds-io/osds/pkg/dock/client"
	"github.com/osds-io/osds/pkg/drivers"
	"github.com/osds-io/osds/pkg/model"
)

// noHost is what a dock without a connector answers.
type noHost struct{}

var errNoHost = model.Errorf(model.KindUnavailable, "this dock has no connector")

func (noHost) Attach(context.Context, fleet.Call, client.AttachRequest) (client.Device, error) {
	return client.Device{}, errNoHost
}
func (noHost) Detach(context.Context, fleet.Call, client.DetachRequest) error { return errNoHost }
func (noHost) ResizeDevice(context.Context, fleet.Call, client.ResizeRequest) (client.Device, error) {
	return client.Device{}, errNoHost
}
func (noHost) ListDevices(context.Context, fleet.Call, drivers.Page) ([]client.Device, error) {
	return nil, errNoHost
}

// memHost is the dock of a host that attaches, in memory: what a connector
// promises, with the kernel's part simulated, because the real one needs a
// network of targets; that is what the suites on real kernels are for.
type memHost struct {
	fleet.Remote // what a dock without backends does not answer
	id, node     string
	initiators   []model.Initiator
	storage      *memDock
	down         atomic.Bool
	trouble      atomic.Int64
	hook         atomic.Pointer[func(op, id string) error]

	mu      sync.Mutex
	devices map[string]client.Device
	held    map[string]bool // attachments whose device somebody holds
	grown   map[string]bool // file systems grown
	epoch   int64
	seqs    map[string][2]int64
}

// addHost adds the dock of a host and waits until it is known.
func (r *rig) addHost(id, node string, names ...model.Initiator) *memHost {
	r.t.Helper()
	h := &memHost{id: id, node: node, initiators: names, storage: r.dock, devices: map[string]client.Device{},
		held: map[string]bool{}, grown: map[string]bool{}, seqs: map[string][2]int64{}}
	r.dock.mu.Lock()
	r.dock.hosts["host:"+id] = h
	r.dock.mu.Unlock()
	r.until(func() bool { d, ok := r.s.Docks.Get(id); return ok && d.Attaches() }, "dock "+id+" is known")
	return h
}

func iscsi(name string) model.Initiator { return model.Initiator{PortName: name, Protocol: "iscsi"} }

// has says whether the host has a device of an attachment. It is not locked with
// the storage's lock held the other way round anywhere.
func (h *memHost) has(attachment string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	_, ok := h.devices[attachment]
	return ok && !h.down.Load()
}

func (h *memHost) count() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.devices)
}

// exported says whether the storage still exports an attachment, and how large
// its volume is.
func (h *memHost) exported(attachment string) (model.Bytes, bool) {
	h.storage.mu.Lock()
	defer h.storage.mu.Unlock()
	e, ok := h.storage.exports[attachment]
	return h.storage.vols[e.VolumeID].Size, ok
}

// enter is the fence, the faults and the hook.
func (h *memHost) enter(op string, c fleet.Call, id string) (lost bool, err error) {
	if h.down.Load() {
		return false, model.Errorf(model.KindUnavailable, "connection refused")
	}
	if f := h.hook.Load(); f != nil {
		if err := (*f)(op, id); err != nil {
			return false, err
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if s := h.seqs[id]; c.Epoch < h.epoch || c.Epoch < s[0] || c.Epoch == s[0] && c.Seq < s[1] {
		return false, model.Errorf(model.KindStale, "late call")
	}
	h.epoch, h.seqs[id] = c.Epoch, [2]int64{c.Epoch, c.Seq}
	if t := h.trouble.Load(); t > 0 && rand.Int64N(1000) < t {
		if rand.IntN(2) == 0 {
			return false, model.Errorf(model.KindUnavailable, "injected: refused")
		}
		return true, nil
	}
	return false, nil
}

func (h *memHost) Attach(_ context.Context, c fleet.Call, r client.AttachRequest) (client.Device, error) {
	lost, err := h.enter("Attach", c, r.AttachmentID)
	if err != nil {
		return client.Device{}, err
	}
	size, ok := h.exported(r.AttachmentID)
	switch {
	case !ok:
		return client.Device{}, model.Errorf(model.KindInternal, "there is no such target")
	case size < r.Size:
		return client.Device{}, model.Errorf(model.KindInternal, "the device has %d bytes, want %d", size, r.Size)
	case r.Connection.Data["authPassword"] != "hush":
		return client.Device{}, model.Errorf(model.KindDenied, "login refused")
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	d := client.Device{AttachmentID: r.AttachmentID, VolumeID: r.VolumeID, Path: "/dev/disk/by-id/" + r.AttachmentID, Size: size}
	h.devices[r.AttachmentID] = d
	if lost {
		return client.Device{}, errLost
	}
	return d, nil
}

func (h *memHost) Detach(_ context.Context, c fleet.Call, r client.DetachRequest) error {
	lost, err := h.enter("Detach", c, r.AttachmentID)
	if err != nil {
		return err
	}
	_, exported := h.exported(r.AttachmentID)
	h.mu.Lock()
	defer h.mu.Unlock()
	if _, ok := h.devices[r.AttachmentID]; ok && !r.Force {
		switch {
		case h.held[r.AttachmentID]:
			return model.Errorf(model.KindBusy, "the device is mounted at /mnt")
		case !exported:
			return model.Errorf(model.KindInternal, "the device cannot be flushed: its export ended before")
		}
	}
	delete(h.devices, r.AttachmentID)
	if lost {
		return errLost
	}
	return nil
}

func (h *memHost) ResizeDevice(_ context.Context, c fleet.Call, r client.ResizeRequest) (client.Device, error) {
	lost, err := h.enter("ResizeDevice", c, r.AttachmentID)
	if err != nil {
		return client.Device{}, err
	}
	size, _ := h.exported(r.AttachmentID)
	h.mu.Lock()
	defer h.mu.Unlock()
	d, ok := h.devices[r.AttachmentID]
	if !ok {
		return d, model.Errorf(model.KindNotFound, "nothing is attached")
	}
	d.Size = size
	h.devices[r.AttachmentID] = d
	if r.GrowFS {
		h.grown[r.AttachmentID] = true
	}
	if lost {
		return d, errLost
	}
	return d, nil
}

func (h *memHost) ListDevices(_ context.Context, _ fleet.Call, p drivers.Page) ([]client.Device, error) {
	if h.down.Load() {
		return nil, model.Errorf(model.KindUnavailable, "connection refused")
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	return page(h.devices, p), nil
}

// newHostRig is a rig with a volume over iSCSI; the host record "host" has the
// name h.
func newHostRig(t *testing.T) (*rig, *model.Volume) {
	t.Helper()
	r := newRigFor(t, 100*model.GiB, "iscsi")
	v := r.volume(10)
	r.quiet()
	return r, v
}

// attachTo begins an attachment as the API does.
func (r *rig) attachTo(volumeID, hostID string) string {
	r.t.Helper()
	now := time.Now().UTC()
	a := &model.Attachment{Meta: model.Meta{ID: model.NewID(), TenantID: "t", CreatedAt: now}, VolumeID: volumeID, HostID: hostID,
		Status: model.StatusCreating, AccessProtocol: "iscsi", AttachMode: "rw", Task: model.NewTask(model.ResAttachment, model.TaskCreate, "", "req", now)}
	v, _ := r.s.Volumes.Get(volumeID)
	c := v.Clone()
	if c.Status == model.StatusAvailable {
		c.Status = model.StatusAttaching
	}
	r.commit((&db.Txn{Label: "api"}).Create(a).Update(c))
	return a.ID
}

// endAttach begins the end of an attachment as the API does.
func (r *rig) endAttach(id string, force bool) {
	r.t.Helper()
	for range 100 {
		a, ok := r.s.Attachments.Get(id)
		if !ok {
			return
		}
		c := a.Clone()
		c.Task, c.Status, c.StatusReason = model.NewDetach(a, force, "req", time.Now()), model.StatusDeleting, ""
		if rev, err := r.s.Commit(context.Background(), (&db.Txn{Label: "api"}).Update(c)); err == nil {
			_ = r.s.WaitRev(context.Background(), rev)
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	r.t.Fatal("the record does not stand still")
}

func (r *rig) att(id string) *model.Attachment {
	r.t.Helper()
	a, ok := r.s.Attachments.Get(id)
	if !ok {
		r.t.Fatalf("attachment %s is gone", id)
	}
	return a
}

func (r *rig) volStatus(id string) model.Status {
	v, ok := r.s.Volumes.Get(id)
	if !ok {
		return ""
	}
	return v.Status
}

// exports is how many exports the storage has.
func (m *memDock) exportCount() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.exports)
}

func TestAttachThroughADock(t *testing.T) {
	r, v := newHostRig(t)
	h := r.addHost("dh", "H", iscsi("iqn.2004-10.io.osds:h")) // another case of the name
	id := r.attachTo(v.ID, "host")
	r.quiet()
	a := r.att(id)
	if a.Status != model.StatusAvailable || a.DockID != "dh" || a.DevicePath != "/dev/disk/by-id/"+id || a.Mountpoint != a.DevicePath || !h.has(id) {
		t.Fatalf("attached: %+v %+v", a, a.Task)
	}
	r.dock.mu.Lock()
	initiator := r.dock.exports[id].Detail
	r.dock.mu.Unlock()
	if initiator != "iqn.2004-10.io.osds:h" {
		t.Errorf("exported to %q: the dock's initiator completes the host", initiator)
	}
	if host, _ := r.s.Hosts.Get("host"); len(host.Initiators) != 0 {
		t.Errorf("the host record was changed: %+v", host)
	}
	r.healthy()

	// The order on the way out is the other way round; a busy device is left
	// alone and named.
	h.mu.Lock()
	h.held[id] = true
	h.mu.Unlock()
	r.endAttach(id, false)
	r.until(func() bool { return r.att(id).Status == model.StatusErrorDeleting }, "the busy device is refused")
	if a = r.att(id); !strings.Contains(a.StatusReason, "mounted at /mnt") || a.DockID == "" || r.volStatus(v.ID) != model.StatusInUse {
		t.Fatalf("busy: %+v, volume %s", a, r.volStatus(v.ID))
	}
	r.healthy()
	h.mu.Lock()
	h.held[id] = false
	h.mu.Unlock()
	r.endAttach(id, false)
	r.until(func() bool { _, ok := r.s.Attachments.Get(id); return !ok }, "it is detached")
	r.quiet()
	if h.count() != 0 || r.dock.exportCount() != 0 || r.volStatus(v.ID) != model.StatusAvailable || r.s.Debts.Len() != 0 {
		t.Fatalf("detached: %d devices, %d exports, volume %s, %d debts", h.count(), r.dock.exportCount(), r.volStatus(v.ID), r.s.Debts.Len())
	}
	r.healthy()
}

// Which dock serves a host: by initiator before by name; two are refused, unless
// one is not there; none, or one without the protocol, leaves it to the host.
func TestWhichDockServes(t *testing.T) {
	r, v := newHostRig(t)
	h := r.addHost("dh", "h", iscsi("iqn.a:h"))
	other := r.addHost("dx", "elsewhere", iscsi("iqn.a:x"))
	r.commit((&db.Txn{Label: "x"}).Create(&model.Host{Meta: model.Meta{ID: "byname"}, HostName: "h", Initiators: []model.Initiator{iscsi("iqn.A:X")}}))
	id := r.attachTo(v.ID, "byname")
	r.quiet()
	if a := r.att(id); a.DockID != "dx" || !other.has(id) {
		t.Fatalf("an initiator in common is not the first choice: %+v", a)
	}
	r.endAttach(id, false)
	r.quiet()

	twin := r.addHost("dt", "h", iscsi("iqn.a:t"))
	id = r.attachTo(v.ID, "host")
	r.quiet()
	a := r.att(id)
	if a.Status != model.StatusError || !strings.Contains(a.StatusReason, "the same node name") || r.dock.exportCount() != 0 || r.volStatus(v.ID) != model.StatusAvailable {
		t.Fatalf("two docks of one name: %+v, %d exports", a, r.dock.exportCount())
	}
	twin.down.Store(true)
	r.until(func() bool { d, _ := r.s.Docks.Get("dt"); return d.Status == model.StatusUnavailable }, "the twin is gone")
	id = r.attachTo(v.ID, "host")
	r.quiet()
	if a = r.att(id); a.DockID != "dh" || !h.has(id) {
		t.Fatalf("of two docks the one that is there: %+v", a)
	}
	r.endAttach(id, false)
	r.quiet()

	r.commit((&db.Txn{Label: "x"}).Create(&model.Host{Meta: model.Meta{ID: "alone"}, HostName: "nobody"}))
	id = r.attachTo(v.ID, "alone")
	r.quiet()
	if a = r.att(id); a.Status != model.StatusAvailable || a.DockID != "" || a.DevicePath != "" || a.Mountpoint != "" {
		t.Fatalf("a host without a dock: %+v", a)
	}
	r.endAttach(id, false)
	r.quiet()
	r.addHost("dn", "deaf", model.Initiator{PortName: "nqn.a:b", Protocol: "nvmeof"})
	r.commit((&db.Txn{Label: "x"}).Create(&model.Host{Meta: model.Meta{ID: "deaf"}, HostName: "deaf"}))
	id = r.attachTo(v.ID, "deaf")
	r.quiet()
	if a = r.att(id); a.Status != model.StatusAvailable || a.DockID != "" {
		t.Fatalf("a dock that does not know the protocol: %+v", a)
	}
}

func TestAttachFailsOnTheHost(t *testing.T) {
	r, v := newHostRig(t)
	h := r.addHost("dh", "h", iscsi("iqn.a:h"))
	refuse := func(op, id string) error {
		if op == "Attach" {
			// The id of the dock is in the record before the dock is called.
			if err := r.s.Sync(context.Background()); err != nil {
				t.Error(err)
			}
			if a, ok := r.s.Attachments.Get(id); !ok || a.DockID != "dh" || a.Connection == nil {
				t.Errorf("the dock is called before the record says so: %+v", a)
			}
			return model.Errorf(model.KindInvalid, "no such portal")
		}
		return nil
	}
	h.hook.Store(&refuse)
	id := r.attachTo(v.ID, "host")
	r.quiet()
	a := r.att(id)
	if a.Status != model.StatusError || !strings.Contains(a.StatusReason, "no such portal") || a.DockID != "" || a.Connection != nil {
		t.Fatalf("%+v", a)
	}
	if r.dock.exportCount() != 0 || r.volStatus(v.ID) != model.StatusAvailable {
		t.Fatalf("%d exports, volume %s", r.dock.exportCount(), r.volStatus(v.ID))
	}
	r.healthy()
	r.endAttach(id, false)
	r.quiet()

	// The host dies with the attach half done: it is cut off, and owes.
	var lost atomic.Bool
	die := func(op, _ string) error {
		if op == "Attach" && lost.CompareAndSwap(false, true) {
			h.down.Store(true)
			return errLost
		}
		return nil
	}
	h.hook.Store(&die)
	id = r.attachTo(v.ID, "host")
	r.until(func() bool { return lost.Load() }, "the host is down")
	x := r.att(id).Clone()
	x.Task.Cancel, x.Task.NextRun = true, time.Time{}
	for {
		if _, err := r.s.Commit(context.Background(), (&db.Txn{Label: "api"}).Update(x)); err == nil {
			break
		}
		x = r.att(id).Clone()
		x.Task.Cancel, x.Task.NextRun = true, time.Time{}
	}
	r.until(func() bool { return r.att(id).Status == model.StatusError }, "it is undone")
	d, ok := r.s.Debts.Get(model.DebtID(model.ResDevice, id))
	if !ok || d.DockID != "dh" || d.VolumeID != v.ID || d.PoolID != "" || r.dock.exportCount() != 0 {
		t.Fatalf("debt %+v, %d exports", d, r.dock.exportCount())
	}
	if d.Connection == nil || d.Connection.Data["authPassword"] != nil {
		t.Errorf("the debt's connection: %#v", d.Connection.Data)
	}
	h.down.Store(false)
	r.quiet()
	if r.s.Debts.Len() != 0 {
		t.Error("the debt is not settled")
	}
	r.healthy()
}

// A dead host: the ordinary detach says so; the forced one cuts it off, and the
// volume is free for others at once; the host gives its device up when it returns.
func TestForceDetach(t *testing.T) {
	r, v := newHostRig(t)
	h := r.addHost("dh", "h", iscsi("iqn.a:h"))
	other := r.addHost("dx", "x", iscsi("iqn.a:x"))
	r.commit((&db.Txn{Label: "x"}).Create(&model.Host{Meta: model.Meta{ID: "second"}, HostName: "x"}))
	id := r.attachTo(v.ID, "host")
	r.quiet()
	h.down.Store(true)
	r.endAttach(id, false)
	r.until(func() bool { return r.att(id).Status == model.StatusErrorDeleting }, "the detach gives up")
	if a := r.att(id); !strings.Contains(a.StatusReason, "detach with force cuts it off") || r.dock.exportCount() != 1 || r.volStatus(v.ID) != model.StatusInUse {
		t.Fatalf("%q, %d exports, volume %s", a.StatusReason, r.dock.exportCount(), r.volStatus(v.ID))
	}
	r.endAttach(id, true)
	r.until(func() bool { _, ok := r.s.Attachments.Get(id); return !ok }, "the record is gone")
	if r.dock.exportCount() != 0 || r.volStatus(v.ID) != model.StatusAvailable {
		t.Fatalf("%d exports, volume %s", r.dock.exportCount(), r.volStatus(v.ID))
	}
	if _, ok := r.s.Debts.Get(model.DebtID(model.ResDevice, id)); !ok {
		t.Fatal("the device is not owed")
	}
	// Elsewhere at once; on the same host only when it has given the old one up.
	id2 := r.attachTo(v.ID, "second")
	r.until(func() bool { return r.att(id2).Status == model.StatusAvailable }, "it is attached elsewhere")
	if !other.has(id2) {
		t.Fatal("not on the other host")
	}
	r.endAttach(id2, false)
	r.until(func() bool { _, ok := r.s.Attachments.Get(id2); return !ok }, "it is detached there")
	hold := func(op, at string) error {
		if op == "Detach" && at == id {
			return model.Errorf(model.KindBusy, "a process sits on it")
		}
		return nil
	}
	h.hook.Store(&hold)
	h.down.Store(false)
	id3 := r.attachTo(v.ID, "host")
	r.until(func() bool { return strings.Contains(r.att(id3).Task.LastError, "give up") }, "it waits for the old device")
	h.hook.Store(nil)
	r.quiet()
	if a := r.att(id3); a.Status != model.StatusAvailable || r.s.Debts.Len() != 0 || h.count() != 1 {
		t.Fatalf("%+v, %d debts, %d devices", a, r.s.Debts.Len(), h.count())
	}
	r.healthy()
	// A host that is there gives its device up in the same go, busy or not.
	h.mu.Lock()
	h.held[id3] = true
	h.mu.Unlock()
	r.endAttach(id3, true)
	r.quiet()
	if h.count() != 0 || r.s.Debts.Len() != 0 || r.volStatus(v.ID) != model.StatusAvailable {
		t.Fatalf("%d devices, %d debts, volume %s", h.count(), r.s.Debts.Len(), r.volStatus(v.ID))
	}
	r.healthy()
}

// With the storage away too, both are owed; nobody gets the volume before the
// export has ended, and it can be deleted.
func TestForceDetachWithStorageAway(t *testing.T) {
	r, v := newHostRig(t)
	h := r.addHost("dh", "h", iscsi("iqn.a:h"))
	id := r.attachTo(v.ID, "host")
	r.quiet()
	h.down.Store(true)
	r.dock.down.Store(true)
	r.endAttach(id, true)
	r.until(func() bool { _, ok := r.s.Attachments.Get(id); return !ok }, "the record is gone")
	ex, ok := r.s.Debts.Get(model.DebtID(model.ResAttachment, id))
	if _, dev := r.s.Debts.Get(model.DebtID(model.ResDevice, id)); !ok || !dev || !ex.Force {
		t.Fatalf("owed: export %+v, device %t", ex, dev)
	}
	id2 := r.attachTo(v.ID, "host")
	r.until(func() bool { return strings.Contains(r.att(id2).Task.LastError, "still to be ended") }, "a new attachment waits")
	x := r.att(id2).Clone()
	x.Task.Cancel, x.Task.NextRun = true, time.Time{}
	r.until(func() bool {
		_, err := r.s.Commit(context.Background(), (&db.Txn{Label: "api"}).Update(x))
		if err != nil {
			x = r.att(id2).Clone()
			x.Task.Cancel, x.Task.NextRun = true, time.Time{}
		}
		return err == nil
	}, "it is cancelled")
	r.until(func() bool { return r.att(id2).Status == model.StatusError }, "it is undone")
	r.endAttach(id2, false)
	r.until(func() bool { _, ok := r.s.Attachments.Get(id2); return !ok }, "its record is gone")
	if !r.request(v.ID, model.TaskDelete, func(c *model.Volume) { c.Status = model.StatusDeleting }) {
		t.Fatal("the volume cannot be deleted")
	}
	r.until(func() bool { return r.volStatus(v.ID) == "" }, "the volume's record is gone")
	r.dock.down.Store(false)
	h.down.Store(false)
	r.quiet()
	r.dock.mu.Lock()
	left := len(r.dock.vols) + len(r.dock.exports)
	r.dock.mu.Unlock()
	if left != 0 || h.count() != 0 || r.s.Debts.Len() != 0 {
		t.Fatalf("%d left on the storage, %d devices, %d debts", left, h.count(), r.s.Debts.Len())
	}
	r.healthy()
}

func TestGrowReachesHosts(t *testing.T) {
	r, v := newHostRig(t)
	h := r.addHost("dh", "h", iscsi("iqn.a:h"))
	id := r.attachTo(v.ID, "host")
	r.quiet()
	grow := func(gb int64, fs bool) {
		t.Helper()
		if !r.request(v.ID, model.TaskExtend, func(c *model.Volume) {
			c.Status, c.Task.NewSize, c.Task.GrowFS = model.StatusExtending, model.FromGB(gb), fs
		}) {
			t.Fatal("it cannot be grown")
		}
	}
	size := func() model.Bytes {
		h.mu.Lock()
		defer h.mu.Unlock()
		return h.devices[id].Size
	}
	grow(20, true)
	r.quiet()
	if got, _ := r.s.Volumes.Get(v.ID); got.Status != model.StatusInUse || got.Size != 20*model.GiB || got.Task.State != model.TaskSucceeded {
		t.Fatalf("%+v %+v", got, got.Task)
	}
	if size() != 20*model.GiB || !h.grown[id] {
		t.Fatalf("the host sees %s, file system grown: %t", size(), h.grown[id])
	}
	// A host that is away does not hold the growth up, sees it when it is back,
	// and can be detached before.
	h.down.Store(true)
	r.until(func() bool { d, _ := r.s.Docks.Get("dh"); return d.Status == model.StatusUnavailable }, "the host is away")
	grow(30, false)
	r.until(func() bool { return r.volStatus(v.ID) == model.StatusInUse }, "the volume has grown")
	a := r.att(id)
	if got, _ := r.s.Volumes.Get(v.ID); got.Size != 30*model.GiB || got.Task.State != model.TaskSucceeded || got.StatusReason != "" {
		t.Fatalf("%+v %+v", got, got.Task)
	}
	if a.Status != model.StatusAvailable || !strings.Contains(a.StatusReason, "has not seen the new size of 30 GiB") || !a.Task.Active() {
		t.Fatalf("%+v %+v", a, a.Task)
	}
	h.down.Store(false)
	r.quiet()
	if a = r.att(id); size() != 30*model.GiB || a.StatusReason != "" || a.Task.State != model.TaskSucceeded {
		t.Fatalf("the host sees %s: %+v", size(), a)
	}
	r.healthy()
	h.down.Store(true)
	r.until(func() bool { d, _ := r.s.Docks.Get("dh"); return d.Status == model.StatusUnavailable }, "the host is away")
	grow(40, false)
	r.until(func() bool { return r.att(id).Task.Kind == model.TaskResize && r.att(id).Task.Active() }, "the host is to be told")
	r.endAttach(id, true)
	r.until(func() bool { _, ok := r.s.Attachments.Get(id); return !ok }, "the record is gone")
	h.down.Store(false)
	r.quiet()
	if h.count() != 0 || r.volStatus(v.ID) != model.StatusAvailable {
		t.Fatalf("%d devices, volume %s", h.count(), r.volStatus(v.ID))
	}
	r.healthy()
}

func TestQoSOfTheProfile(t *testing.T) {
	r := newRigFor(t, 100*model.GiB, "iscsi")
	p, _ := r.s.Profiles.Get("prof")
	c := p.Clone()
	c.Provisioning.IOConnectivity.MaxIOPS, c.Provisioning.IOConnectivity.MaxBWS = 150, 5
	v := r.volume(1)
	r.quiet()
	id := r.attachTo(v.ID, "host")
	r.quiet()
	r.commit((&db.Txn{Label: "x"}).Update(c)) // for what is attached from now on
	w := r.volume(1)
	r.quiet()
	id2 := r.attachTo(w.ID, "host")
	r.quiet()
	r.dock.mu.Lock()
	defer r.dock.mu.Unlock()
	if q := r.dock.qos[id]; q != (drivers.QoS{}) {
		t.Errorf("bounded without being asked: %+v", q)
	}
	if q := r.dock.qos[id2]; q != (drivers.QoS{MaxIOPS: 150, MaxBytesPerSecond: 5 << 20}) {
		t.Errorf("%+v", q)
	}
}

// Attachments come, grow and go while answers are lost, hosts and storage come and
// go, and force is used: at the end nothing is left anywhere.
func TestHostTrouble(t *testing.T) {
	r := newRigFor(t, 1000*model.GiB, "iscsi")
	h := r.addHost("dh", "h", iscsi("iqn.a:h"))
	r.dock.trouble.Store(100)
	h.trouble.Store(150)
	stop := make(chan struct{})
	var wg, flap sync.WaitGroup
	flap.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			case <-time.After(300 * time.Millisecond):
			}
			h.down.Store(i%4 == 1)
			r.dock.down.Store(i%8 == 6)
		}
	})
	for w := range 6 {
		wg.Go(func() {
			for i := range 4 {
				v := r.volume(1)
				r.until(func() bool { return !r.volStatus(v.ID).Transitional() }, "made")
				if r.volStatus(v.ID) != model.StatusAvailable {
					continue
				}
				id := r.attachTo(v.ID, "host")
				r.until(func() bool { a, ok := r.s.Attachments.Get(id); return ok && a.Status != model.StatusCreating }, "attached")
				if (w+i)%2 == 0 {
					r.request(v.ID, model.TaskExtend, func(c *model.Volume) { c.Status, c.Task.NewSize = model.StatusExtending, 2*model.GiB })
				}
				for n := 0; ; n++ {
					r.endAttach(id, n > 0 || w == 0)
					r.until(func() bool { a, ok := r.s.Attachments.Get(id); return !ok || !a.Task.Active() }, "detached or refused")
					if _, ok := r.s.Attachments.Get(id); !ok {
						break
					}
				}
			}
		})
	}
	wg.Wait()
	close(stop)
	flap.Wait()
	r.dock.trouble.Store(0)
	h.trouble.Store(0)
	h.down.Store(false)
	r.dock.down.Store(false)
	r.quiet()
	if h.count() != 0 || r.dock.exportCount() != 0 || r.s.Debts.Len() != 0 {
		t.Errorf("%d devices, %d exports, %d debts", h.count(), r.dock.exportCount(), r.s.Debts.Len())
	}
	for _, v := range r.s.Volumes.All() {
		if v.Status == model.StatusInUse || v.Status == model.StatusAttaching {
			t.Errorf("volume %s is %s", v.ID, v.Status)
		}
	}
	r.healthy()
}

// What a host has and no record knows, and the other way round, is found.
func TestDoctorFindsDevices(t *testing.T) {
	r, v := newHostRig(t)
	h := r.addHost("dh", "h", iscsi("iqn.a:h"))
	id := r.attachTo(v.ID, "host")
	r.quiet()
	found := func(what string) {
		t.Helper()
		d := &doctor.Doctor{Store: r.s, Dialer: r.dock, Now: time.Now, ClusterID: func() string { return "c1" }, Settle: 50 * time.Millisecond}
		rep, err := d.Check(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		var all []string
		for _, c := range rep.Checks {
			all = append(all, c.CounterExamples...)
		}
		if len(all) != 1 || !strings.Contains(all[0], what) {
			t.Errorf("found %q, want one finding with %q", all, what)
		}
	}
	put := func(id string, d client.Device) {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.devices[id] = d
	}
	mine := h.devices[id]
	put("stray", client.Device{AttachmentID: "stray", VolumeID: "v", Path: "/dev/sdz"})
	found("device /dev/sdz of volume v on dock dh has no attachment")
	h.mu.Lock()
	delete(h.devices, "stray")
	delete(h.devices, id)
	h.mu.Unlock()
	found("dock dh has no device of it")
	small := mine
	small.Size = model.GiB
	put(id, small)
	found("its host sees 1 GiB")
	put(id, mine)
	r.healthy()
	h.down.Store(true)
	found("the host's devices: ")
}

// A host that is gone for good is given up with what it owes; its dock cannot be
// removed while it has a device.
func TestHostGivenUp(t *testing.T) {
	r, v := newHostRig(t)
	h := r.addHost("dh", "h", iscsi("iqn.a:h"))
	id := r.attachTo(v.ID, "host")
	r.quiet()
	h.down.Store(true)
	status := func() model.Status {
		if d, ok := r.s.Docks.Get("dh"); ok {
			return d.Status
		}
		return ""
	}
	r.until(func() bool { return status() == model.StatusUnavailable }, "the host is away")
	giveUp := func() {
		t.Helper()
		d, _ := r.s.Docks.Get("dh")
		c := d.Clone()
		c.Status = model.StatusDeleting
		r.commit((&db.Txn{Label: "api"}).Update(c))
	}
	giveUp()
	r.until(func() bool { return status() == model.StatusUnavailable }, "the dock is kept")
	if d, _ := r.s.Docks.Get("dh"); !strings.Contains(d.Reason, id) {
		t.Errorf("kept because: %q", d.Reason)
	}
	r.endAttach(id, true)
	r.until(func() bool { _, ok := r.s.Attachments.Get(id); return !ok && r.s.Debts.Len() == 1 }, "the host is cut off")
	giveUp()
	r.until(func() bool { _, ok := r.s.Docks.Get("dh"); return !ok }, "the dock is removed")
	if r.s.Debts.Len() != 0 {
		t.Error("its debt is not written off")
	}
	r.healthy()
	// What it made is not its host's any more: the host attaches by itself.
	id = r.attachTo(v.ID, "host")
	r.quiet()
	if a := r.att(id); a.Status != model.StatusAvailable || a.DockID != "" {
		t.Errorf("%+v", a)
	}
}

package controller

import (
	"context"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"slices"
	"sort"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/osds-io/osds/pkg/controller/doctor"
	"github.com/osds-io/osds/pkg/controller/fleet"
	"github.com/osds-io/osds/pkg/controller/steps"
	"github.com/osds-io/osds/pkg/db"
	"github.com/osds-io/osds/pkg/drivers"
	"github.com/osds-io/osds/pkg/model"
)

// memDock is a dock in memory: what the wire and a driver promise together, with
// faults on demand (refused before, lost after). It is here because the real
// dock is reached over gRPC, which the end-to-end tests do; these tests are
// about what the controllers do with every answer.
type memDock struct {
	mu    sync.Mutex
	vols  map[string]drivers.Volume
	snaps map[string]drivers.Snapshot
	// others are volumes that osds has not made, by name; imported are the
	// names that volumes of ours had.
	others   map[string]model.Bytes
	imported map[string]string
	exports  map[string]drivers.LiveExport
	epoch    int64
	seqs     map[string][2]int64
	// room is what the backend really has.
	room model.Bytes
	// trouble is the share of calls that fail, half of them after the work
	// was done.
	trouble atomic.Int64 // per mille
	down    atomic.Bool
	// hook, if set, is called before a call is done and may hold or refuse it.
	hook    atomic.Pointer[func(op, id string) error]
	calls   atomic.Int64
	changed chan struct{}
	total   model.Bytes
	pools   int
	// hosts are docks that attach, by endpoint; qos is what each export was
	// bounded to, protocol the pools' access protocol.
	hosts    map[string]*memHost
	qos      map[string]drivers.QoS
	protocol string
	noHost
}

func newMemDock(total model.Bytes) *memDock {
	return &memDock{
		others: map[string]model.Bytes{}, imported: map[string]string{},
		vols: map[string]drivers.Volume{}, snaps: map[string]drivers.Snapshot{}, exports: map[string]drivers.LiveExport{},
		seqs: map[string][2]int64{}, hosts: map[string]*memHost{}, qos: map[string]drivers.QoS{}, room: total, total: total, changed: make(chan struct{}), pools: 1,
	}
}

// enter is the fence and the faults; after is whether the answer is lost.
func (m *memDock) enter(c fleet.Call, object string) (lost bool, err error) {
	m.calls.Add(1)
	if m.down.Load() {
		return false, model.Errorf(model.KindUnavailable, "connection refused")
	}
	if c.Epoch < m.epoch {
		return false, model.Errorf(model.KindStale, "epoch %d, have seen %d", c.Epoch, m.epoch)
	}
	m.epoch = c.Epoch
	if s := m.seqs[object]; c.Epoch < s[0] || (c.Epoch == s[0] && c.Seq < s[1]) {
		return false, model.Errorf(model.KindStale, "late call")
	}
	m.seqs[object] = [2]int64{c.Epoch, c.Seq}
	if t := m.trouble.Load(); t > 0 && rand.Int64N(1000) < t {
		if rand.IntN(2) == 0 {
			return false, model.Errorf(model.KindUnavailable, "injected: refused")
		}
		return true, nil
	}
	return false, nil
}

// asked calls the hook.
func (m *memDock) asked(op, id string) error {
	if h := m.hook.Load(); h != nil {
		return (*h)(op, id)
	}
	return nil
}

var errLost = model.Errorf(model.KindUnknownOutcome, "injected: the answer was lost")

func (m *memDock) CreateVolume(_ context.Context, c fleet.Call, _ string, r drivers.CreateVolume) (drivers.Volume, error) {
	if err := m.asked("CreateVolume", r.ID); err != nil {
		return drivers.Volume{}, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	lost, err := m.enter(c, r.ID)
	if err != nil {
		return drivers.Volume{}, err
	}
	v, ok := m.vols[r.ID]
	if ok && v.Size != r.Size {
		return drivers.Volume{}, model.Errorf(model.KindExists, "volume %s exists with another size", r.ID)
	}
	if !ok {
		if r.Size > m.room {
			return v, model.Errorf(model.KindExhausted, "no space left on device")
		}
		m.room -= r.Size
		v = drivers.Volume{ID: r.ID, Pool: r.Pool, Size: r.Size, ClusterID: r.ClusterID, TenantID: r.TenantID, BackendData: map[string]string{"lun": r.ID[:8]}}
		m.vols[r.ID] = v
	}
	if lost {
		return drivers.Volume{}, errLost
	}
	return v, nil
}

func (m *memDock) DeleteVolume(_ context.Context, c fleet.Call, _ string, r drivers.VolumeRef) error {
	if err := m.asked("DeleteVolume", r.ID); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	lost, err := m.enter(c, r.ID)
	if err != nil {
		return err
	}
	for _, e := range m.exports {
		if e.VolumeID == r.ID {
			return model.Errorf(model.KindBusy, "exported")
		}
	}
	for _, s := range m.snaps {
		if s.VolumeID == r.ID {
			return model.Errorf(model.KindBusy, "it has snapshots")
		}
	}
	m.room += m.vols[r.ID].Size
	delete(m.vols, r.ID)
	if lost {
		return errLost
	}
	return nil
}

func (m *memDock) GetVolume(_ context.Context, c fleet.Call, _ string, r drivers.VolumeRef) (drivers.Volume, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, err := m.enter(c, r.ID); err != nil {
		return drivers.Volume{}, err
	}
	v, ok := m.vols[r.ID]
	if !ok {
		return v, model.Errorf(model.KindNotFound, "no volume %s", r.ID)
	}
	return v, nil
}

func (m *memDock) ExpandVolume(_ context.Context, c fleet.Call, _ string, r drivers.VolumeRef, size model.Bytes) (drivers.Volume, error) {
	if err := m.asked("ExpandVolume", r.ID); err != nil {
		return drivers.Volume{}, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	lost, err := m.enter(c, r.ID)
	if err != nil {
		return drivers.Volume{}, err
	}
	v, ok := m.vols[r.ID]
	if !ok {
		return v, model.Errorf(model.KindNotFound, "no volume %s", r.ID)
	}
	if size > v.Size {
		if size-v.Size > m.room {
			return v, model.Errorf(model.KindExhausted, "no space left on device")
		}
		m.room -= size - v.Size
		v.Size = size
		m.vols[r.ID] = v
	}
	if lost {
		return v, errLost
	}
	return v, nil
}

func (m *memDock) RevertVolume(_ context.Context, c fleet.Call, _ string, r drivers.VolumeRef, _ drivers.SnapshotRef) (drivers.Volume, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	_, err := m.enter(c, r.ID)
	return m.vols[r.ID], err
}

func (m *memDock) CreateSnapshot(_ context.Context, c fleet.Call, _ string, r drivers.CreateSnapshot) (drivers.Snapshot, error) {
	if err := m.asked("CreateSnapshot", r.ID); err != nil {
		return drivers.Snapshot{}, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	lost, err := m.enter(c, r.ID)
	if err != nil {
		return drivers.Snapshot{}, err
	}
	s := drivers.Snapshot{ID: r.ID, VolumeID: r.Volume.ID, Size: m.vols[r.Volume.ID].Size, ClusterID: r.ClusterID}
	m.snaps[r.ID] = s
	if lost {
		return s, errLost
	}
	return s, nil
}

func (m *memDock) DeleteSnapshot(_ context.Context, c fleet.Call, _ string, r drivers.SnapshotRef) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	lost, err := m.enter(c, r.ID)
	if err == nil {
		delete(m.snaps, r.ID)
		if lost {
			err = errLost
		}
	}
	return err
}

func (m *memDock) Export(_ context.Context, c fleet.Call, _ string, r drivers.Export) (model.Connection, error) {
	if err := m.asked("Export", r.AttachmentID); err != nil {
		return model.Connection{}, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	lost, err := m.enter(c, r.AttachmentID)
	if err != nil {
		return model.Connection{}, err
	}
	for _, e := range m.exports {
		if e.VolumeID == r.Volume.ID && e.AttachmentID != r.AttachmentID && !r.MultiAttach {
			return model.Connection{}, model.Errorf(model.KindBusy, "exported already")
		}
	}
	m.exports[r.AttachmentID] = drivers.LiveExport{AttachmentID: r.AttachmentID, VolumeID: r.Volume.ID}
	m.qos[r.AttachmentID] = r.QoS
	for _, x := range r.Host.InitiatorsFor(r.Protocol) {
		m.exports[r.AttachmentID] = drivers.LiveExport{AttachmentID: r.AttachmentID, VolumeID: r.Volume.ID, Detail: x.PortName}
	}
	if lost {
		return model.Connection{}, errLost
	}
	return model.Connection{Type: "iscsi", Data: map[string]any{"targetLun": 1, "authPassword": "hush"}}, nil
}

func (m *memDock) Unexport(_ context.Context, c fleet.Call, _ string, r drivers.ExportRef) error {
	if err := m.asked("Unexport", r.AttachmentID); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	lost, err := m.enter(c, r.AttachmentID)
	if err == nil && !r.Force {
		for _, h := range m.hosts {
			if h.has(r.AttachmentID) {
				return model.Errorf(model.KindBusy, "the host is still connected")
			}
		}
	}
	if err == nil {
		delete(m.exports, r.AttachmentID)
		if lost {
			err = errLost
		}
	}
	return err
}

func page[V any](m map[string]V, p drivers.Page) []V {
	var ids []string
	for id := range m {
		if id > p.After {
			ids = append(ids, id)
		}
	}
	sort.Strings(ids)
	var out []V
	for _, id := range ids[:min(len(ids), p.Limit)] {
		out = append(out, m[id])
	}
	return out
}

func (m *memDock) ListImportable(_ context.Context, _ fleet.Call, _, pool string, p drivers.Page) (out []drivers.Importable, err error) {
	if m.down.Load() {
		return nil, model.Errorf(model.KindUnavailable, "connection refused")
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, n := range slices.Sorted(maps.Keys(m.others)) {
		if n > p.After && len(out) < p.Limit {
			x := drivers.Importable{Name: n, Pool: pool, Size: m.others[n], Adds: m.others[n]}
			if strings.HasPrefix(n, "busy") {
				x.Obstacle = "it is in use"
			}
			out = append(out, x)
		}
	}
	return out, nil
}

func (m *memDock) ImportVolume(_ context.Context, c fleet.Call, _ string, r drivers.ImportVolume) (drivers.Volume, error) {
	if err := m.asked("ImportVolume", r.ID); err != nil {
		return drivers.Volume{}, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	lost, err := m.enter(c, r.ID)
	if err != nil {
		return drivers.Volume{}, err
	}
	v, ok := m.vols[r.ID]
	if !ok {
		size, there := m.others[r.Existing]
		if !there {
			return v, model.Errorf(model.KindNotFound, "there is no %s", r.Existing)
		}
		delete(m.others, r.Existing)
		m.total += size // it was others' until now
		v = drivers.Volume{ID: r.ID, Pool: r.Pool, Size: size, ClusterID: r.ClusterID, TenantID: r.TenantID}
		m.vols[r.ID], m.imported[r.ID] = v, r.Existing
	}
	if lost {
		return drivers.Volume{}, errLost
	}
	return v, nil
}

func (m *memDock) ReleaseVolume(_ context.Context, c fleet.Call, _ string, r drivers.VolumeRef) error {
	if err := m.asked("ReleaseVolume", r.ID); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	lost, err := m.enter(c, r.ID)
	if err != nil {
		return err
	}
	if v, ok := m.vols[r.ID]; ok {
		name := m.imported[r.ID]
		if name == "" {
			name = r.ID
		}
		delete(m.vols, r.ID)
		m.others[name] = v.Size
		m.total -= v.Size
	}
	if lost {
		return errLost
	}
	return nil
}

func (m *memDock) ListVolumes(_ context.Context, _ fleet.Call, _ string, p drivers.Page) ([]drivers.Volume, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return page(m.vols, p), nil
}

func (m *memDock) ListSnapshots(_ context.Context, _ fleet.Call, _ string, p drivers.Page) ([]drivers.Snapshot, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return page(m.snaps, p), nil
}

func (m *memDock) ListExports(_ context.Context, _ fleet.Call, _ string, p drivers.Page) ([]drivers.LiveExport, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return page(m.exports, p), nil
}

// Dial gives the dock itself, or the host at an endpoint.
func (m *memDock) Dial(endpoint string) (fleet.Remote, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if h, ok := m.hosts[endpoint]; ok {
		return h, nil
	}
	return m, nil
}

// Live is the dock's session.
func (m *memDock) Live() []fleet.Session {
	var out []fleet.Session
	m.mu.Lock()
	for ep, h := range m.hosts {
		if !h.down.Load() {
			out = append(out, fleet.Session{DockID: h.id, Name: h.id, NodeID: h.node, Endpoint: ep, Type: model.DockAttacher,
				Initiators: h.initiators, Addresses: []string{"10.0.0.9"}, LastBeat: time.Now()})
		}
	}
	total := m.total
	m.mu.Unlock()
	if m.down.Load() {
		return out
	}
	s := fleet.Session{DockID: "d1", Name: "d1", Endpoint: "127.0.0.1:1", Type: "provisioner", Backends: []string{"b:mem"}, LastBeat: time.Now()}
	for i := range m.pools {
		s.Pools = append(s.Pools, fleet.Pool{
			Backend: "b", Driver: "mem",
			Abilities: []string{model.AbilityExpand, model.AbilityExpandLive, model.AbilitySnapshot, model.AbilityClone, model.AbilityRevert, model.AbilityExport, model.AbilityImport},
			Pool: drivers.Pool{ID: fmt.Sprintf("p%d", i), Name: fmt.Sprintf("pool%d", i), Total: total, Free: total, OverProvisioning: 1, StorageType: "block", AvailabilityZone: "default", MultiAttach: true,
				Extras: model.PoolExtras{IOConnectivity: model.IOConnectivity{AccessProtocol: m.protocol, MaxIOPS: 1000, MaxBWS: 100}}},
		})
	}
	return append(out, s)
}

// Changed never fires: the fleet looks every second anyway.
func (m *memDock) Changed() <-chan struct{} { return m.changed }

type rig struct {
	t    testing.TB
	s    *db.Store
	dock *memDock
	c    *Controller
	stop func()
	tune func(*steps.Limits)
}

func newRig(t testing.TB, total model.Bytes) *rig { t.Helper(); return newRigFor(t, total, "") }

// newRigFor is newRig with pools of an access protocol.
func newRigFor(t testing.TB, total model.Bytes, protocol string) *rig {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	s, err := db.Open(ctx, db.Config{Embedded: db.Embedded{Dir: t.TempDir()}})
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{t: t, s: s, dock: newMemDock(total)}
	r.dock.protocol = protocol
	r.start()
	t.Cleanup(func() { r.stop(); s.Close() })
	r.commit((&db.Txn{Label: "x"}).Create(&model.Profile{Meta: model.Meta{ID: "prof", Name: "default_block"}, StorageType: "block"}))
	r.commit((&db.Txn{Label: "x"}).Create(&model.Host{Meta: model.Meta{ID: "host", Name: "h"}, HostName: "h"}))
	r.until(func() bool { p, ok := s.Pools.Get("p0"); return ok && p.Status == model.StatusAvailable }, "the pool is there")
	return r
}

func (r *rig) start() {
	log := logrus.New()
	log.SetOutput(io.Discard)
	lim := steps.DefaultLimits()
	lim.Debt = 500 * time.Millisecond
	if r.tune != nil {
		r.tune(&lim)
	}
	r.c = New(Config{Store: r.s, Dialer: r.dock, Sessions: r.dock, ClusterID: "c1", Limits: lim, Log: logrus.NewEntry(log), DockGrace: 100 * time.Millisecond})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); r.c.Run(ctx) }()
	r.stop = func() { cancel(); <-done }
}

func (r *rig) commit(t *db.Txn) int64 {
	r.t.Helper()
	rev, err := r.s.Commit(context.Background(), t)
	if err != nil {
		r.t.Fatal(err)
	}
	if err := r.s.WaitRev(context.Background(), rev); err != nil {
		r.t.Fatal(err)
	}
	return rev
}

func (r *rig) until(f func() bool, what string) {
	r.t.Helper()
	for i := 0; i < 6000; i++ {
		if f() {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	r.t.Fatalf("never: %s", what)
}

func (r *rig) volume(gb int64) *model.Volume {
	now := time.Now().UTC()
	v := &model.Volume{Meta: model.Meta{ID: model.NewID(), TenantID: "t", Name: "v", CreatedAt: now}, Size: model.FromGB(gb), AvailabilityZone: "default",
		Status: model.StatusCreating, ProfileID: "prof", Task: model.NewTask(model.ResVolume, model.TaskCreate, "", "req", now)}
	r.commit((&db.Txn{Label: "api"}).Create(v))
	return v
}

// request starts an operation on a volume as the API does; false if the volume's
// state does not allow it.
func (r *rig) request(id string, kind model.TaskKind, f func(*model.Volume)) bool {
	v, ok := r.s.Volumes.Get(id)
	if !ok || !model.MayStart(model.ResVolume, kind, v.Status) || v.Task.Active() {
		return false
	}
	c := v.Clone()
	c.Task = model.NewTask(model.ResVolume, kind, v.Status, "req", time.Now())
	f(c)
	rev, err := r.s.Commit(context.Background(), (&db.Txn{Label: "api"}).Update(c))
	return err == nil && r.s.WaitRev(context.Background(), rev) == nil
}

func (r *rig) quiet() {
	r.t.Helper()
	for range 3000 {
		if len(r.s.ActiveTasks()) == 0 {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	for _, x := range r.s.ActiveTasks() {
		r.t.Logf("%s %s: %s, %+v", x.Res(), x.Base().ID, x.GetStatus(), x.CurrentTask())
	}
	r.t.Fatal("never: no task is active")
}

func (r *rig) healthy() {
	r.t.Helper()
	d := &doctor.Doctor{Store: r.s, Dialer: r.dock, Now: time.Now, ClusterID: func() string { return "c1" }, Settle: 200 * time.Millisecond}
	rep, err := d.Check(context.Background())
	if err != nil {
		r.t.Fatal(err)
	}
	for _, c := range rep.Checks {
		if !c.OK {
			r.t.Errorf("%s: %v", c.Name, c.CounterExamples)
		}
	}
	if rep.OK && rep.Checks[0].Checked == 0 {
		r.t.Error("the doctor checked nothing")
	}
}

func TestCreateExtendDelete(t *testing.T) {
	r := newRig(t, 100*model.GiB)
	v := r.volume(10)
	r.quiet()
	got, _ := r.s.Volumes.Get(v.ID)
	if got.Status != model.StatusAvailable || got.PoolID != "p0" || got.Reserved != 10*model.GiB || got.BackendData["lun"] == "" {
		t.Fatalf("created: %+v", got)
	}
	r.request(v.ID, model.TaskExtend, func(c *model.Volume) { c.Status, c.Task.NewSize = model.StatusExtending, 20*model.GiB })
	r.quiet()
	if got, _ = r.s.Volumes.Get(v.ID); got.Status != model.StatusAvailable || got.Size != 20*model.GiB || got.Reserved != 20*model.GiB {
		t.Fatalf("extended: %+v", got)
	}
	r.request(v.ID, model.TaskExtend, func(c *model.Volume) { c.Status, c.Task.NewSize = model.StatusExtending, 200*model.GiB })
	r.quiet()
	if got, _ = r.s.Volumes.Get(v.ID); got.Status != model.StatusAvailable || got.Size != 20*model.GiB || got.Task.State != model.TaskFailed || got.StatusReason == "" {
		t.Fatalf("extended beyond the pool: %+v %+v", got, got.Task)
	}
	r.healthy()
	r.request(v.ID, model.TaskDelete, func(c *model.Volume) { c.Status = model.StatusDeleting })
	r.quiet()
	if _, ok := r.s.Volumes.Get(v.ID); ok {
		t.Fatal("still there")
	}
	if a, _ := r.s.Ledger.Get("p0"); a.Reserved != 0 {
		t.Fatalf("reserved %d after the last delete", a.Reserved)
	}
	r.healthy()
}

func TestExactlyWhatFits(t *testing.T) {
	r := newRig(t, 100*model.GiB)
	var wg sync.WaitGroup
	for range 512 {
		wg.Add(1)
		go func() { defer wg.Done(); r.volume(1) }()
	}
	wg.Wait()
	r.quiet()
	ok := 0
	for _, v := range r.s.Volumes.All() {
		switch {
		case v.Status == model.StatusAvailable:
			ok++
		case v.Status != model.StatusError || v.StatusReason == "":
			t.Errorf("%s: %s", v.Status, v.StatusReason)
		}
	}
	if ok != 100 {
		t.Fatalf("%d volumes in a pool for 100", ok)
	}
	r.healthy()
}

func TestBackendFullerThanItSaid(t *testing.T) {
	r := newRig(t, 100*model.GiB)
	r.dock.mu.Lock()
	r.dock.room = 5 * model.GiB
	r.dock.mu.Unlock()
	v := r.volume(10)
	r.quiet()
	got, _ := r.s.Volumes.Get(v.ID)
	if got.Status != model.StatusError || got.Reserved != 0 || got.PoolID != "" {
		t.Fatalf("%+v", got)
	}
	r.healthy()
}

func TestDeadDockLeavesDebt(t *testing.T) {
	r := newRig(t, 100*model.GiB)
	v := r.volume(10)
	r.quiet()
	r.dock.down.Store(true)
	r.request(v.ID, model.TaskDelete, func(c *model.Volume) { c.Status = model.StatusDeleting })
	r.until(func() bool { return r.s.Debts.Len() == 1 }, "a debt")
	if _, ok := r.s.Volumes.Get(v.ID); ok {
		t.Fatal("the delete waits for the dead dock")
	}
	if a, _ := r.s.Ledger.Get("p0"); a.Reserved != 10*model.GiB {
		t.Fatalf("the debt holds %s", a.Reserved)
	}
	r.until(func() bool { p, _ := r.s.Pools.Get("p0"); return p.Status == model.StatusUnavailable }, "the pool is unavailable")
	r.dock.down.Store(false)
	r.quiet()
	if r.s.Debts.Len() != 0 || len(r.dock.vols) != 0 {
		t.Fatalf("%d debts, %d volumes on the backend", r.s.Debts.Len(), len(r.dock.vols))
	}
	r.healthy()
}

// A snapshot whose removal is owed keeps its volume busy on the backend: deleting
// the volume waits for the debt instead of failing.
func TestVolumeWaitsForWhatItsPartsOwe(t *testing.T) {
	r := newRig(t, 100*model.GiB)
	v := r.volume(1)
	r.quiet()
	now := time.Now().UTC()
	s := &model.Snapshot{Meta: model.Meta{ID: model.NewID(), TenantID: "t", CreatedAt: now}, VolumeID: v.ID, Status: model.StatusCreating,
		Task: model.NewTask(model.ResSnapshot, model.TaskCreate, "", "req", now)}
	r.commit((&db.Txn{Label: "api"}).Create(s))
	r.quiet()
	r.dock.down.Store(true)
	got, _ := r.s.Snapshots.Get(s.ID)
	c := got.Clone()
	c.Status, c.Task = model.StatusDeleting, model.NewTask(model.ResSnapshot, model.TaskDelete, got.Status, "req", time.Now())
	r.commit((&db.Txn{Label: "api"}).Update(c))
	r.until(func() bool { return r.s.Debts.Len() == 1 }, "a debt of the snapshot")
	// The dock is back, but the debt is not settled yet.
	for _, d := range r.s.Debts.All() {
		c := d.Clone()
		c.Task.NextRun = time.Now().Add(3 * time.Second)
		rev, err := r.s.Commit(context.Background(), (&db.Txn{Label: "x"}).Update(c))
		if err == nil {
			err = r.s.WaitRev(context.Background(), rev)
		}
		if err != nil && !model.IsKind(err, model.KindConflict) {
			t.Fatal(err)
		}
	}
	r.dock.down.Store(false)
	r.request(v.ID, model.TaskDelete, func(c *model.Volume) { c.Status = model.StatusDeleting })
	r.quiet()
	if r.s.Volumes.Len() != 0 || r.s.Debts.Len() != 0 || len(r.dock.vols) != 0 || len(r.dock.snaps) != 0 {
		t.Fatalf("left: %d volumes, %d debts", r.s.Volumes.Len(), r.s.Debts.Len())
	}
	r.healthy()
}

// An id that the backend has for something else (the store was restored, say)
// fails the create, and leaves what is there alone.
func TestForeignObjectIsNotUndone(t *testing.T) {
	r := newRig(t, 100*model.GiB)
	now := time.Now().UTC()
	id := model.NewID()
	r.dock.mu.Lock()
	r.dock.vols[id] = drivers.Volume{ID: id, Size: 7 * model.GiB, ClusterID: "c1"}
	r.dock.mu.Unlock()
	r.commit((&db.Txn{Label: "api"}).Create(&model.Volume{Meta: model.Meta{ID: id, TenantID: "t", Name: "v", CreatedAt: now}, Size: model.GiB,
		AvailabilityZone: "default", Status: model.StatusCreating, ProfileID: "prof", Task: model.NewTask(model.ResVolume, model.TaskCreate, "", "req", now)}))
	r.quiet()
	got, _ := r.s.Volumes.Get(id)
	if got.Status != model.StatusError || got.Reserved != 0 || got.StatusReason == "" {
		t.Errorf("%+v", got)
	}
	if r.dock.vols[id].Size != 7*model.GiB {
		t.Error("what was there has been deleted")
	}
	if a, ok := r.s.Ledger.Get("p0"); ok && a.Reserved != 0 {
		t.Errorf("%s stay reserved", a.Reserved)
	}
}

// A dock that comes back is not kept waiting for by tasks that would try again
// much later.
func TestKickHurriesWaitingTasks(t *testing.T) {
	r := newRig(t, 100*model.GiB)
	r.dock.down.Store(true)
	v := r.volume(1)
	r.until(func() bool { got, _ := r.s.Volumes.Get(v.ID); return got.Task.Attempts > 0 }, "a failed try")
	// As if it had failed many times: the next try is an hour away.
	for {
		got, _ := r.s.Volumes.Get(v.ID)
		c := got.Clone()
		c.Task.NextRun = time.Now().Add(time.Hour)
		rev, err := r.s.Commit(context.Background(), (&db.Txn{Label: "x"}).Update(c))
		if err == nil {
			if err = r.s.WaitRev(context.Background(), rev); err != nil {
				t.Fatal(err)
			}
			break
		}
	}
	r.until(func() bool { p, _ := r.s.Pools.Get("p0"); return p.Status == model.StatusUnavailable }, "the dock is known to be gone")
	r.dock.down.Store(false)
	r.quiet()
	if got, _ := r.s.Volumes.Get(v.ID); got.Status != model.StatusAvailable {
		t.Fatalf("%s: %s", got.Status, got.StatusReason)
	}
}

func TestAttachDetach(t *testing.T) {
	r := newRig(t, 100*model.GiB)
	v := r.volume(10)
	r.quiet()
	now := time.Now().UTC()
	a := &model.Attachment{Meta: model.Meta{ID: model.NewID(), TenantID: "t", CreatedAt: now}, VolumeID: v.ID, HostID: "host", Status: model.StatusCreating,
		Task: model.NewTask(model.ResAttachment, model.TaskCreate, "", "req", now)}
	got, _ := r.s.Volumes.Get(v.ID)
	c := got.Clone()
	c.Status = model.StatusAttaching
	r.commit((&db.Txn{Label: "api"}).Create(a).Update(c))
	r.quiet()
	r.healthy()
	at, _ := r.s.Attachments.Get(a.ID)
	if got, _ = r.s.Volumes.Get(v.ID); got.Status != model.StatusInUse || at.Connection == nil {
		t.Fatalf("%+v %+v", got, at)
	}
	d := at.Clone()
	d.Status, d.Task = model.StatusDeleting, model.NewTask(model.ResAttachment, model.TaskDelete, at.Status, "req", now)
	r.commit((&db.Txn{Label: "api"}).Update(d))
	r.quiet()
	if got, _ = r.s.Volumes.Get(v.ID); got.Status != model.StatusAvailable || r.s.Attachments.Len() != 0 || len(r.dock.exports) != 0 {
		t.Fatalf("%+v", got)
	}
	r.healthy()
}

// TestTroubleAndTakeOvers makes a third of the dock's calls fail, half of those
// after they were done, ends terms of leadership at random, and has clients
// create, extend and delete all the while. In the end nothing may be stuck, lost
// or left over.
func TestTroubleAndTakeOvers(t *testing.T) {
	r := newRig(t, 60*model.GiB)
	r.dock.trouble.Store(300)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 8 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			var mine []string
			for {
				select {
				case <-stop:
					return
				default:
				}
				switch {
				case len(mine) < 4 || rand.IntN(3) == 0:
					mine = append(mine, r.volume(1+rand.Int64N(4)).ID)
				case rand.IntN(2) == 0:
					id := mine[rand.IntN(len(mine))]
					r.request(id, model.TaskExtend, func(c *model.Volume) {
						c.Status, c.Task.NewSize = model.StatusExtending, c.Size+model.GiB
					})
				default:
					i := rand.IntN(len(mine))
					if r.request(mine[i], model.TaskDelete, func(c *model.Volume) { c.Status = model.StatusDeleting }) {
						mine = append(mine[:i], mine[i+1:]...)
					}
				}
				time.Sleep(time.Duration(rand.IntN(10)) * time.Millisecond)
			}
		}()
	}
	for range 10 {
		time.Sleep(time.Duration(200+rand.IntN(400)) * time.Millisecond)
		r.stop()
		r.start()
	}
	close(stop)
	wg.Wait()
	r.dock.trouble.Store(0)
	r.quiet()
	r.healthy()
	if r.dock.calls.Load() < 100 {
		t.Errorf("only %d calls reached the dock", r.dock.calls.Load())
	}
}

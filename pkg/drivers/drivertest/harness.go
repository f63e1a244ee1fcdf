// Package drivertest is the conformance suite of the driver contract. A driver
// is done when it passes the suite on its real backend:
//
//	func TestConformance(t *testing.T) {
//		drivertest.Run(t, drivertest.Harness{New: open, Pool: "default", OpenData: data})
//	}
//
// The suite makes objects with ids of its own, removes them, and fails if
// anything of them is left. It can run beside other users of the same backend.
// Crash, in addition, kills processes in the middle of each operation.
package drivertest

import (
	"context"
	"errors"
	"io"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/osds-io/osds/pkg/drivers"
	"github.com/osds-io/osds/pkg/model"
)

// Data is a volume's content.
type Data interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
}

// Harness says how to reach a backend.
type Harness struct {
	// New opens the backend, the same one each time. The suite closes what it
	// gets before it asks again.
	New func(t testing.TB) drivers.Driver
	// Pool is the pool to use.
	Pool string
	// Size is the size of volumes; 16 MiB if 0. A multiple of what the backend
	// rounds to, and at least 1 MiB. The pool should hold some 30 of them.
	Size model.Bytes
	// OpenData opens the content of a volume that is not exported. Without it
	// nothing is known about data: give the reason in Skip["data"].
	OpenData func(ctx context.Context, r drivers.VolumeRef) (Data, error)
	// Host and Protocol are what volumes are exported to and by.
	Host     model.Host
	Protocol string
	// Hold opens an export as its user would, so that Unexport must be busy
	// until release is called. Without it that is not tried: give the reason
	// in Skip["hold"].
	Hold func(t testing.TB, c model.Connection) (release func())
	// Leftovers looks, past the driver, for whatever in the backend still
	// bears an id. May be nil.
	Leftovers func(id string) ([]string, error)
	// Fill says that the pool is so small that the suite may fill it.
	Fill bool
	// Skip has the tests that are not run, with the reasons.
	Skip map[string]string
	// Timeout is for each call; 1 minute if 0.
	Timeout time.Duration
}

const (
	testTenant  = "tenant-of-drivertest"
	testCluster = "cluster-of-drivertest"
)

func (h *Harness) defaults(t *testing.T) {
	t.Helper()
	if h.New == nil || h.Pool == "" {
		t.Fatal("a harness needs New and Pool")
	}
	if h.Size == 0 {
		h.Size = 16 * model.MiB
	}
	if h.Size < model.MiB {
		t.Fatalf("size %s is less than 1 MiB", h.Size)
	}
	if h.Timeout == 0 {
		h.Timeout = time.Minute
	}
	if h.OpenData == nil && h.Skip["data"] == "" {
		t.Error(`without OpenData the harness must say why in Skip["data"]`)
	}
}

// env is one test's view of the backend. It remembers what was made, under mu,
// and removes it in the end.
type env struct {
	*testing.T
	h *Harness
	d drivers.Driver
	// lacks are the abilities that the pool has not.
	lacks []string

	mu          sync.Mutex
	volumes     map[string]drivers.VolumeRef
	snapshots   map[string]drivers.SnapshotRef
	attachments map[string]drivers.ExportRef
}

func newEnv(t *testing.T, h *Harness) *env {
	e := &env{T: t, h: h, volumes: map[string]drivers.VolumeRef{}, snapshots: map[string]drivers.SnapshotRef{},
		attachments: map[string]drivers.ExportRef{}}
	e.open()
	t.Cleanup(e.finish)
	e.lacks = e.pool().Lacks
	return e
}

func (e *env) open() {
	e.Helper()
	e.d = e.h.New(e.T)
	if e.d == nil {
		e.Fatal("New gave no driver")
	}
}

func (e *env) close() {
	e.Helper()
	if e.d == nil {
		return
	}
	if err := e.d.Close(); err != nil {
		e.Errorf("Close: %v", err)
	}
	e.d = nil
}

// reopen is a restart of the dock.
func (e *env) reopen() {
	e.Helper()
	e.close()
	e.open()
}

// ctx is for one call. It does not end with the test, so that cleaning up works.
func (e *env) ctx() context.Context {
	c, cancel := context.WithTimeout(context.Background(), e.h.Timeout)
	e.Cleanup(cancel)
	return c
}

// volume gives the request for a new volume, and notes its id for the end.
func (e *env) volume() drivers.CreateVolume {
	id := model.NewID()
	e.noteVolume(drivers.VolumeRef{ID: id, Pool: e.h.Pool})
	return drivers.CreateVolume{ID: id, Name: "drivertest", Pool: e.h.Pool, Size: e.h.Size,
		TenantID: testTenant, ClusterID: testCluster}
}

func (e *env) noteVolume(r drivers.VolumeRef) {
	e.mu.Lock()
	e.volumes[r.ID] = r
	e.mu.Unlock()
}

// make makes a volume that must succeed.
func (e *env) make() drivers.VolumeRef {
	e.Helper()
	r := e.volume()
	return e.makeOf(r)
}

func (e *env) makeOf(r drivers.CreateVolume) drivers.VolumeRef {
	e.Helper()
	var v drivers.Volume
	var err error
	if r.Source != nil {
		v, err = e.d.(drivers.Cloner).CloneVolume(e.ctx(), r)
	} else {
		v, err = e.d.CreateVolume(e.ctx(), r)
	}
	if err != nil {
		e.Fatalf("create: %v", err)
	}
	e.checkVolume(v, r)
	return e.ref(v)
}

// ref is how the dock would name a volume that it was given.
func (e *env) ref(v drivers.Volume) drivers.VolumeRef {
	r := drivers.VolumeRef{ID: v.ID, Pool: e.h.Pool, BackendData: v.BackendData}
	e.noteVolume(r)
	return r
}

// checkVolume compares what a driver gave with what was asked for.
func (e *env) checkVolume(v drivers.Volume, r drivers.CreateVolume) {
	e.Helper()
	if v.ID != r.ID || v.Pool != r.Pool || v.Size < r.Size || v.Incomplete {
		e.Errorf("got %+v for %+v", v, r)
	}
	if v.TenantID != r.TenantID || v.ClusterID != r.ClusterID {
		e.Errorf("tagged with tenant %q and cluster %q, want %q and %q", v.TenantID, v.ClusterID, r.TenantID, r.ClusterID)
	}
	if (v.DurableName == "") != (v.DurableFormat == "") {
		e.Errorf("durable name %q with format %q", v.DurableName, v.DurableFormat)
	}
}

// snapshot makes a snapshot that must succeed.
func (e *env) snapshot(v drivers.VolumeRef) drivers.SnapshotRef {
	e.Helper()
	r := e.snapshotRequest(v)
	s, err := e.d.(drivers.Snapshotter).CreateSnapshot(e.ctx(), r)
	if err != nil {
		e.Fatalf("snapshot: %v", err)
	}
	if s.ID != r.ID || s.VolumeID != v.ID || s.Pool != e.h.Pool || s.Size <= 0 || s.Incomplete ||
		s.TenantID != r.TenantID || s.ClusterID != r.ClusterID {
		e.Errorf("got %+v for %+v", s, r)
	}
	return e.snapRef(s)
}

func (e *env) snapshotRequest(v drivers.VolumeRef) drivers.CreateSnapshot {
	r := drivers.CreateSnapshot{ID: model.NewID(), Name: "drivertest", Volume: v, TenantID: testTenant, ClusterID: testCluster}
	e.noteSnapshot(drivers.SnapshotRef{ID: r.ID, VolumeID: v.ID, Pool: e.h.Pool})
	return r
}

func (e *env) noteSnapshot(r drivers.SnapshotRef) {
	e.mu.Lock()
	e.snapshots[r.ID] = r
	e.mu.Unlock()
}

func (e *env) snapRef(s drivers.Snapshot) drivers.SnapshotRef {
	r := drivers.SnapshotRef{ID: s.ID, VolumeID: s.VolumeID, Pool: e.h.Pool, BackendData: s.BackendData}
	e.noteSnapshot(r)
	return r
}

// export gives the request for a new export, and notes its id for the end.
func (e *env) export(v drivers.VolumeRef) drivers.Export {
	r := drivers.Export{AttachmentID: model.NewID(), Volume: v, Protocol: e.h.Protocol, Host: e.h.Host}
	e.noteExport(drivers.ExportRef{AttachmentID: r.AttachmentID, Volume: v})
	return r
}

func (e *env) noteExport(r drivers.ExportRef) {
	e.mu.Lock()
	e.attachments[r.AttachmentID] = r
	e.mu.Unlock()
}

func (e *env) exportRef(r drivers.Export) drivers.ExportRef {
	return drivers.ExportRef{AttachmentID: r.AttachmentID, Volume: r.Volume}
}

// want fails unless err is of one of the kinds; no kind means nil.
func (e *env) want(what string, err error, kinds ...model.Kind) {
	e.Helper()
	if len(kinds) == 0 {
		if err != nil {
			e.Errorf("%s: %v (%s)", what, err, model.KindOf(err))
		}
		return
	}
	if err == nil {
		e.Errorf("%s succeeded, want an error of kind %v", what, kinds)
		return
	}
	if !slices.Contains(kinds, model.KindOf(err)) {
		e.Errorf("%s: kind %s, want %v: %v", what, model.KindOf(err), kinds, err)
	}
	// Context errors may be bare; everything else is an error of ours.
	var me *model.Error
	if !errors.As(err, &me) && !errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded) {
		e.Errorf("%s: %T is no *model.Error: %v", what, err, err)
	}
}

// absent checks that nothing of a volume is there.
func (e *env) absent(r drivers.VolumeRef) {
	e.Helper()
	_, err := e.d.GetVolume(e.ctx(), r)
	e.want("get of an absent volume", err, model.KindNotFound)
	if v, ok := e.listed(r.ID); ok {
		e.Errorf("an absent volume is listed: %+v", v)
	}
	e.noLeftovers(r.ID)
}

func (e *env) noLeftovers(id string) {
	e.Helper()
	if e.h.Leftovers == nil {
		return
	}
	left, err := e.h.Leftovers(id)
	if err != nil {
		e.Errorf("leftovers of %s: %v", id, err)
	}
	if len(left) > 0 {
		e.Errorf("left of %s: %q", id, left)
	}
}

// listed looks a volume up in the list.
func (e *env) listed(id string) (drivers.Volume, bool) {
	e.Helper()
	all := e.all()
	i := slices.IndexFunc(all, func(v drivers.Volume) bool { return v.ID == id })
	if i < 0 {
		return drivers.Volume{}, false
	}
	return all[i], true
}

// all lists the volumes, page by page.
func (e *env) all() []drivers.Volume {
	e.Helper()
	return pages(e, 50, func(p drivers.Page) ([]drivers.Volume, error) { return e.d.ListVolumes(e.ctx(), p) },
		func(v drivers.Volume) string { return v.ID })
}

func (e *env) allSnapshots() []drivers.Snapshot {
	e.Helper()
	return pages(e, 50, func(p drivers.Page) ([]drivers.Snapshot, error) {
		return e.d.(drivers.Snapshotter).ListSnapshots(e.ctx(), p)
	}, func(s drivers.Snapshot) string { return s.ID })
}

func (e *env) allExports() []drivers.LiveExport {
	e.Helper()
	return pages(e, 50, func(p drivers.Page) ([]drivers.LiveExport, error) {
		return e.d.(drivers.Exporter).ListExports(e.ctx(), p)
	}, func(x drivers.LiveExport) string { return x.AttachmentID })
}

// pages reads a whole list and checks that pages are bounded and in order.
func pages[T any](e *env, limit int, list func(drivers.Page) ([]T, error), id func(T) string) []T {
	e.Helper()
	var out []T
	after := ""
	for range 100_000 {
		got, err := list(drivers.Page{After: after, Limit: limit})
		if err != nil {
			e.Fatalf("list after %q: %v", after, err)
		}
		if len(got) == 0 {
			return out
		}
		if len(got) > limit {
			e.Fatalf("a page of %d has %d", limit, len(got))
		}
		for _, x := range got {
			if id(x) <= after {
				e.Fatalf("%q comes after %q", id(x), after)
			}
			after = id(x)
		}
		out = append(out, got...)
	}
	e.Fatal("the list does not end")
	return nil
}

// toTheEnd does a call again as long as it tells of progress.
func toTheEnd(call func() error) (err error) {
	for range maxCalls {
		if err = call(); model.ProgressOf(err) == nil {
			break
		}
	}
	return err
}

// finish removes everything that the test has made and checks that it is gone.
func (e *env) finish() {
	if e.d == nil {
		e.open()
	}
	defer e.close()
	if x, ok := e.d.(drivers.Exporter); ok {
		for _, r := range e.attachments {
			if err := x.Unexport(e.ctx(), r); err != nil && !model.IsKind(err, model.KindUnsupported) {
				e.Errorf("at the end: unexport: %v", err)
			}
		}
		for _, l := range e.allExports() {
			if _, ours := e.attachments[l.AttachmentID]; ours {
				e.Errorf("at the end: export %+v is left", l)
			}
		}
	}
	// Snapshots that clones depend on, and volumes that snapshots depend on:
	// a driver may refuse an order, but not all of them.
	snap, _ := e.d.(drivers.Snapshotter)
	var err error
	for range 4 {
		err = nil
		for _, r := range e.snapshots {
			if serr := toTheEnd(func() error { return snap.DeleteSnapshot(e.ctx(), r) }); serr != nil {
				err = serr
			}
		}
		for _, r := range e.volumes {
			if verr := toTheEnd(func() error { return e.d.DeleteVolume(e.ctx(), r) }); verr != nil {
				err = verr
			}
		}
		if err == nil {
			break
		}
	}
	if err != nil {
		e.Errorf("at the end: delete: %v", err)
	}
	for _, v := range e.all() {
		if _, ours := e.volumes[v.ID]; ours {
			e.Errorf("at the end: volume %+v is left", v)
		}
	}
	if snap != nil {
		for _, s := range e.allSnapshots() {
			if _, ours := e.snapshots[s.ID]; ours {
				e.Errorf("at the end: snapshot %+v is left", s)
			}
		}
	}
	for id := range e.volumes {
		e.noLeftovers(id)
	}
	for id := range e.snapshots {
		e.noLeftovers(id)
	}
	for id := range e.attachments {
		e.noLeftovers(id)
	}
}

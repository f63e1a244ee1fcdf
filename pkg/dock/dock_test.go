package dock_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/osds-io/osds/internal/tlsconf"
	"github.com/osds-io/osds/pkg/dock"
	"github.com/osds-io/osds/pkg/dock/client"
	"github.com/osds-io/osds/pkg/dock/dockpb"
	"github.com/osds-io/osds/pkg/dock/internal/docktest"
	"github.com/osds-io/osds/pkg/dock/internal/memdriver"
	"github.com/osds-io/osds/pkg/drivers"
	"github.com/osds-io/osds/pkg/model"
)

func mem(d *memdriver.Driver) map[string]drivers.Factory {
	return map[string]drivers.Factory{"mem": d.Factory}
}

// dialTo gives a client of the dock at addr, once its backends are in service.
func dialTo(t *testing.T, addr string, creds credentials.TransportCredentials, backends ...string) *client.Client {
	t.Helper()
	d := client.New(client.Options{Creds: creds})
	t.Cleanup(func() { _ = d.Close() })
	c, err := d.Dock(addr)
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range backends {
		docktest.Until(t, "backend "+b, func() bool {
			_, err := c.ListVolumes(t.Context(), client.Call{}, b, drivers.Page{Limit: 1})
			if err != nil && !model.IsKind(err, model.KindUnavailable) {
				t.Fatal(err)
			}
			return err == nil
		})
	}
	return c
}

// call is a leader's call.
func call(epoch, seq int64) client.Call { return client.Call{Epoch: epoch, Seq: seq, RequestID: "r"} }

func newVolume(id string) drivers.CreateVolume {
	return drivers.CreateVolume{ID: id, Name: "n-" + id, Pool: "mem", Size: model.GiB, TenantID: "t", ClusterID: "c"}
}

func within(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

func wantKind(t *testing.T, what string, err error, k model.Kind) {
	t.Helper()
	if model.KindOf(err) != k {
		t.Errorf("%s: got %q (%v), want %q", what, model.KindOf(err), err, k)
	}
}

// Every operation, over mutual TLS, through real connections.
func TestEveryOperation(t *testing.T) {
	ca := docktest.CA(t)
	cfg := docktest.Config(t)
	cfg.TLS, cfg.InsecureLoopback = docktest.Files(t, ca, tlsconf.RoleDock), false
	drv := memdriver.New()
	d := docktest.Start(t, cfg, mem(drv), dock.Quick)
	c := dialTo(t, d.Addr, docktest.Identity(t, ca, tlsconf.RoleLet).ClientCredentials(tlsconf.RoleDock), "mem")
	ctx := within(t, time.Minute)
	seq := int64(0)
	by := func() client.Call { seq++; return call(1, seq) }
	must := func(what string, err error) {
		t.Helper()
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
	}

	in := newVolume("v1")
	in.Profile = &model.Profile{Meta: model.Meta{ID: "p", Rev: 3}, StorageType: "block"}
	v, err := c.CreateVolume(ctx, by(), "mem", in)
	must("create", err)
	if v.ID != "v1" || v.Size != model.GiB || v.BackendData["path"] != "mem/v1" || v.TenantID != "t" || v.ClusterID != "c" {
		t.Errorf("created %+v", v)
	}
	ref := drivers.VolumeRef{ID: "v1", Pool: "mem", BackendData: v.BackendData}
	got, err := c.GetVolume(ctx, by(), "mem", ref)
	must("get", err)
	if !reflect.DeepEqual(got, v) {
		t.Errorf("got %+v, created %+v", got, v)
	}
	v, err = c.ExpandVolume(ctx, by(), "mem", ref, 3*model.GiB)
	must("expand", err)
	if v.Size != 3*model.GiB {
		t.Errorf("expanded to %v", v.Size)
	}
	s, err := c.CreateSnapshot(ctx, by(), "mem", drivers.CreateSnapshot{ID: "s1", Volume: ref, TenantID: "t", ClusterID: "c"})
	must("snapshot", err)
	sref := drivers.SnapshotRef{ID: "s1", VolumeID: "v1", Pool: "mem"}
	gs, err := c.GetSnapshot(ctx, by(), "mem", sref)
	must("get snapshot", err)
	if !reflect.DeepEqual(gs, s) || s.VolumeID != "v1" {
		t.Errorf("snapshot %+v, got %+v", s, gs)
	}
	clone := newVolume("v2")
	clone.Source = &drivers.Source{Snapshot: &sref, Size: model.GiB}
	_, err = c.CreateVolume(ctx, by(), "mem", clone)
	must("clone", err)
	clone3 := newVolume("v3")
	clone3.Source = &drivers.Source{Volume: &ref, Size: model.GiB}
	_, err = c.CreateVolume(ctx, by(), "mem", clone3)
	must("clone of a volume", err)
	_, err = c.RevertVolume(ctx, by(), "mem", ref, sref)
	must("revert", err)
	conn, err := c.Export(ctx, by(), "mem", drivers.Export{AttachmentID: "a1", Volume: ref, Host: model.Host{HostName: "h"}})
	must("export", err)
	if conn.Type != "local" || conn.Data["devicePath"] != "/dev/mem/v1" || conn.Data["targetLun"] != int64(1) {
		t.Errorf("connection %#v", conn)
	}
	ex, err := c.ListExports(ctx, client.Call{}, "mem", drivers.Page{})
	must("list exports", err)
	if len(ex) != 1 || ex[0].AttachmentID != "a1" || ex[0].Detail != "h" {
		t.Errorf("exports %+v", ex)
	}
	_, err = c.Export(ctx, by(), "mem", drivers.Export{AttachmentID: "a2", Volume: ref})
	wantKind(t, "second export", err, model.KindBusy)
	must("unexport", c.Unexport(ctx, by(), "mem", drivers.ExportRef{AttachmentID: "a1", Volume: ref}))
	must("delete snapshot", c.DeleteSnapshot(ctx, by(), "mem", sref))
	snaps, err := c.ListSnapshots(ctx, client.Call{}, "mem", drivers.Page{})
	must("list snapshots", err)
	if len(snaps) != 0 {
		t.Errorf("snapshots %+v", snaps)
	}
	page, err := c.ListVolumes(ctx, client.Call{}, "mem", drivers.Page{After: "v1", Limit: 1})
	must("list", err)
	if len(page) != 1 || page[0].ID != "v2" {
		t.Errorf("page %+v", page)
	}
	must("delete", c.DeleteVolume(ctx, by(), "mem", ref))
	must("delete again", c.DeleteVolume(ctx, by(), "mem", ref))
	_, err = c.GetVolume(ctx, by(), "mem", ref)
	wantKind(t, "get after delete", err, model.KindNotFound)
	if d.Epoch() != 1 {
		t.Errorf("epoch %d", d.Epoch())
	}
}

func TestPeersAreRefused(t *testing.T) {
	ca, other := docktest.CA(t), docktest.CA(t)
	cfg := docktest.Config(t)
	cfg.TLS, cfg.InsecureLoopback = docktest.Files(t, ca, tlsconf.RoleDock), false
	drv := memdriver.New()
	var reached atomic.Int64
	drv.Hook = func(_ context.Context, m, _ string) error {
		if m != "Pools" {
			reached.Add(1)
		}
		return nil
	}
	d := docktest.Start(t, cfg, mem(drv), dock.Quick)
	for name, creds := range map[string]credentials.TransportCredentials{
		"another authority":   docktest.Identity(t, other, tlsconf.RoleLet).ClientCredentials(tlsconf.RoleDock),
		"a dock's own":        docktest.Identity(t, ca, tlsconf.RoleDock).ClientCredentials(tlsconf.RoleDock),
		"no role":             docktest.Identity(t, ca, tlsconf.RoleNone).ClientCredentials(tlsconf.RoleDock),
		"no certificate":      credentials.NewClientTLSFromCert(nil, ""),
		"plain text":          insecure.NewCredentials(),
		"expects another let": docktest.Identity(t, ca, tlsconf.RoleLet).ClientCredentials(tlsconf.RoleLet),
	} {
		c := dialTo(t, d.Addr, creds)
		_, err := c.CreateVolume(within(t, 20*time.Second), call(1, 1), "mem", newVolume("v"))
		// The refusal of a client certificate may reach the client only after
		// its call was written.
		if !model.IsKind(err, model.KindUnavailable, model.KindUnknownOutcome) {
			t.Errorf("%s: got %v", name, err)
		}
	}
	if reached.Load() != 0 {
		t.Errorf("%d calls reached the driver", reached.Load())
	}
}

func TestFenceSurvivesRestart(t *testing.T) {
	cfg := docktest.Config(t)
	drv := memdriver.New()
	first := docktest.Start(t, cfg, mem(drv), dock.Quick)
	c := dialTo(t, first.Addr, nil, "mem")
	ctx := within(t, time.Minute)
	if _, err := c.CreateVolume(ctx, call(5, 1), "mem", newVolume("v")); err != nil {
		t.Fatal(err)
	}
	_, err := c.CreateVolume(ctx, call(4, 99), "mem", newVolume("w"))
	wantKind(t, "an older epoch", err, model.KindStale)
	if err := first.Stop(); err != nil {
		t.Fatal(err)
	}
	second := docktest.Start(t, cfg, mem(drv), dock.Quick)
	if second.ID() != first.ID() || second.Epoch() != 5 {
		t.Errorf("after the restart: id %s (was %s), epoch %d", second.ID(), first.ID(), second.Epoch())
	}
	c = dialTo(t, second.Addr, nil, "mem")
	wantKind(t, "an older epoch after the restart", c.DeleteVolume(ctx, call(4, 100), "mem", drivers.VolumeRef{ID: "v"}), model.KindStale)
	if _, err := c.GetVolume(ctx, client.Call{}, "mem", drivers.VolumeRef{ID: "v"}); err != nil {
		t.Errorf("the refused delete was done: %v", err)
	}
	if err := c.DeleteVolume(ctx, call(6, 1), "mem", drivers.VolumeRef{ID: "v"}); err != nil {
		t.Errorf("a newer epoch: %v", err)
	}
}

func TestCallsMustSayWhoCalls(t *testing.T) {
	drv := memdriver.New()
	d := docktest.Start(t, docktest.Config(t), mem(drv), dock.Quick)
	c := dialTo(t, d.Addr, nil, "mem")
	ctx := within(t, time.Minute)
	for name, by := range map[string]client.Call{"nothing": {}, "no seq": {Epoch: 1}, "negative": {Epoch: -1, Seq: 1}} {
		_, err := c.CreateVolume(ctx, by, "mem", newVolume("v"))
		wantKind(t, name, err, model.KindInvalid)
		wantKind(t, name, c.Unexport(ctx, by, "mem", drivers.ExportRef{AttachmentID: "a", Volume: drivers.VolumeRef{ID: "v"}}), model.KindInvalid)
	}
	for name, id := range map[string]string{"empty": "", "path": "../../etc/passwd", "option": "-rf", "long": strings.Repeat("x", 200)} {
		_, err := c.CreateVolume(ctx, call(1, 1), "mem", newVolume(id))
		wantKind(t, name, err, model.KindInvalid)
		if model.AsError(err).Field != "ref.id" {
			t.Errorf("%s: field %q", name, model.AsError(err).Field)
		}
	}
	bad := newVolume("v")
	bad.Size = 0
	_, err := c.CreateVolume(ctx, call(1, 1), "mem", bad)
	wantKind(t, "no size", err, model.KindInvalid)
	_, err = c.CreateVolume(ctx, call(1, 1), "other", newVolume("v"))
	wantKind(t, "an unknown backend", err, model.KindUnavailable)
	wantKind(t, "an unknown backend", c.DeleteVolume(ctx, call(1, 1), "other", drivers.VolumeRef{ID: "v"}), model.KindUnavailable)
	if list, err := c.ListVolumes(ctx, client.Call{}, "mem", drivers.Page{}); err != nil || len(list) != 0 {
		t.Errorf("made %v, %v", list, err)
	}
}

// A create that is delayed on the way arrives after the delete that undid it, or
// after the look that found nothing: it must not be done.
func TestDelayedCallIsRefused(t *testing.T) {
	drv := memdriver.New()
	d := docktest.Start(t, docktest.Config(t), mem(drv), dock.Quick)
	c := dialTo(t, d.Addr, nil, "mem")
	ctx := within(t, time.Minute)
	v, a := drivers.VolumeRef{ID: "v"}, drivers.ExportRef{AttachmentID: "a", Volume: drivers.VolumeRef{ID: "v"}}

	if err := c.DeleteVolume(ctx, call(1, 8), "mem", v); err != nil {
		t.Fatal(err)
	}
	_, err := c.CreateVolume(ctx, call(1, 7), "mem", newVolume("v"))
	wantKind(t, "a create after its delete", err, model.KindStale)

	_, err = c.GetVolume(ctx, call(1, 10), "mem", drivers.VolumeRef{ID: "w"})
	wantKind(t, "a look", err, model.KindNotFound)
	_, err = c.CreateVolume(ctx, call(1, 9), "mem", newVolume("w"))
	wantKind(t, "a create after the look", err, model.KindStale)

	if err := c.Unexport(ctx, call(1, 12), "mem", a); err != nil {
		t.Fatal(err)
	}
	_, err = c.Export(ctx, call(1, 11), "mem", drivers.Export{AttachmentID: "a", Volume: v})
	wantKind(t, "an export after its end", err, model.KindStale)
	// Other attachments of the volume have an order of their own.
	if _, err := c.Export(ctx, call(1, 10), "mem", drivers.Export{AttachmentID: "b", Volume: v}); err != nil {
		t.Errorf("another attachment: %v", err)
	}
	// A look without an epoch orders nothing.
	if _, err := c.GetVolume(ctx, client.Call{}, "mem", drivers.VolumeRef{ID: "x"}); !model.IsKind(err, model.KindNotFound) {
		t.Error(err)
	}
	if _, err := c.CreateVolume(ctx, call(1, 1), "mem", newVolume("x")); err != nil {
		t.Errorf("a create after a free look: %v", err)
	}
	list, err := c.ListVolumes(ctx, client.Call{}, "mem", drivers.Page{})
	if err != nil || len(list) != 1 || list[0].ID != "x" {
		t.Errorf("there are %+v, %v", list, err)
	}
}

// An epoch that ends while a call of it waits for its object ends the call.
func TestEpochEndsWhileWaiting(t *testing.T) {
	drv := memdriver.New()
	in, release := make(chan struct{}, 1), make(chan struct{})
	drv.Hook = func(_ context.Context, m, id string) error {
		if m == "CreateVolume" && id == "v" {
			in <- struct{}{}
			<-release
		}
		return nil
	}
	d := docktest.Start(t, docktest.Config(t), mem(drv), dock.Quick)
	c := dialTo(t, d.Addr, nil, "mem")
	ctx := within(t, time.Minute)
	first, second := make(chan error, 1), make(chan error, 1)
	go func() { _, err := c.CreateVolume(ctx, call(1, 1), "mem", newVolume("v")); first <- err }()
	<-in
	go func() { second <- c.DeleteVolume(ctx, call(1, 2), "mem", drivers.VolumeRef{ID: "v"}) }()
	// Another leader's call on another object raises the fence.
	if err := c.DeleteVolume(ctx, call(2, 1), "mem", drivers.VolumeRef{ID: "w"}); err != nil {
		t.Fatal(err)
	}
	close(release)
	if err := <-first; err != nil {
		t.Errorf("the call that had begun: %v", err)
	}
	// It came before or after the fence rose; it is refused either way, and so
	// the volume is still there.
	wantKind(t, "the call that waited", <-second, model.KindStale)
	if _, err := c.GetVolume(ctx, call(2, 2), "mem", drivers.VolumeRef{ID: "v"}); err != nil {
		t.Errorf("the stale delete was done: %v", err)
	}
}

// Many callers on several backends at once: each answer belongs to its question,
// each volume is where it was asked for.
func TestManyCallsOverSeveralBackends(t *testing.T) {
	const callers, each = 48, 40
	cfg := docktest.Config(t)
	cfg.Backends = nil
	reg, drvs := map[string]drivers.Factory{}, map[string]*memdriver.Driver{}
	var names []string
	for i := range 5 {
		name := fmt.Sprint("b", i)
		drvs[name] = memdriver.New()
		reg[name] = drvs[name].Factory
		cfg.Backends = append(cfg.Backends, dock.BackendConfig{Name: name, Driver: name})
		names = append(names, name)
	}
	d := docktest.Start(t, cfg, reg, dock.Quick)
	c := dialTo(t, d.Addr, nil, names...)
	ctx := within(t, time.Minute)
	var seq atomic.Int64
	var wg sync.WaitGroup
	for w := range callers {
		wg.Go(func() {
			for i := range each {
				b := names[(w+i)%len(names)]
				in := newVolume(fmt.Sprintf("v-%s-%d-%d", b, w, i))
				in.Size = model.Bytes(w*1000+i+1) * model.MiB
				in.TenantID = b
				v, err := c.CreateVolume(ctx, call(1, seq.Add(1)), b, in)
				if err != nil || v.ID != in.ID || v.Size != in.Size || v.TenantID != b {
					t.Errorf("%s: %+v, %v", in.ID, v, err)
				}
			}
		})
	}
	wg.Wait()
	total := 0
	for _, b := range names {
		list, err := drvs[b].ListVolumes(ctx, drivers.Page{Limit: callers * each})
		if err != nil {
			t.Fatal(err)
		}
		total += len(list)
		for _, v := range list {
			if v.TenantID != b {
				t.Errorf("%s is in %s", v.ID, b)
			}
		}
	}
	if total != callers*each {
		t.Errorf("%d volumes, want %d", total, callers*each)
	}
}

// Calls on one object never overlap, whatever they are.
func TestOneObjectOneCall(t *testing.T) {
	drv := memdriver.New()
	var busy atomic.Int32
	var overlaps, calls atomic.Int32
	drv.Hook = func(_ context.Context, m, _ string) error {
		if m == "Pools" || m == "ListVolumes" {
			return nil
		}
		calls.Add(1)
		if busy.Add(1) != 1 {
			overlaps.Add(1)
		}
		time.Sleep(time.Millisecond)
		busy.Add(-1)
		return nil
	}
	d := docktest.Start(t, docktest.Config(t), mem(drv), dock.Quick)
	c := dialTo(t, d.Addr, nil, "mem")
	ctx := within(t, time.Minute)
	if _, err := c.CreateVolume(ctx, call(1, 1), "mem", newVolume("v")); err != nil {
		t.Fatal(err)
	}
	v := drivers.VolumeRef{ID: "v"}
	s := drivers.SnapshotRef{ID: "s", VolumeID: "v"}
	a := drivers.ExportRef{AttachmentID: "a", Volume: v}
	var wg sync.WaitGroup
	for i := range 4 {
		by := call(1, int64(i+2))
		for _, f := range []func() error{
			func() error { _, err := c.CreateVolume(ctx, by, "mem", newVolume("v")); return err },
			func() error { _, err := c.GetVolume(ctx, by, "mem", v); return err },
			func() error {
				_, err := c.CreateSnapshot(ctx, by, "mem", drivers.CreateSnapshot{ID: "s", Volume: v})
				return err
			},
			func() error { return c.DeleteSnapshot(ctx, by, "mem", s) },
			func() error {
				_, err := c.Export(ctx, by, "mem", drivers.Export{AttachmentID: "a", Volume: v})
				return err
			},
			func() error { return c.Unexport(ctx, by, "mem", a) },
		} {
			wg.Go(func() {
				if err := f(); err != nil && !model.IsKind(err, model.KindStale) {
					t.Error(err)
				}
			})
		}
	}
	wg.Wait()
	if overlaps.Load() != 0 || calls.Load() < 7 {
		t.Errorf("%d of %d calls overlapped", overlaps.Load(), calls.Load())
	}
}

// A driver that ignores its deadline blocks neither the caller nor the other
// objects; its own object stays locked until it ends.
func TestStuckDriver(t *testing.T) {
	drv := memdriver.New()
	release := make(chan struct{})
	drv.Hook = func(_ context.Context, m, id string) error {
		if m == "CreateVolume" && id == "stuck" {
			<-release
		}
		return nil
	}
	d := docktest.Start(t, docktest.Config(t), mem(drv), dock.Quick)
	c := dialTo(t, d.Addr, nil, "mem")
	_, err := c.CreateVolume(within(t, 200*time.Millisecond), call(1, 1), "mem", newVolume("stuck"))
	wantKind(t, "the stuck call", err, model.KindUnknownOutcome)
	ctx := within(t, time.Minute)
	if _, err := c.CreateVolume(ctx, call(1, 2), "mem", newVolume("free")); err != nil {
		t.Errorf("another object: %v", err)
	}
	// Long before its own deadline the next call is told so.
	_, err = c.GetVolume(ctx, call(1, 3), "mem", drivers.VolumeRef{ID: "stuck"})
	wantKind(t, "a look at the stuck object", err, model.KindUnavailable)
	if err == nil || !strings.Contains(err.Error(), "over its deadline") {
		t.Errorf("the reason is not told: %v", err)
	}
	close(release)
	docktest.Until(t, "the object to be free", func() bool {
		_, err := c.GetVolume(ctx, call(1, 4), "mem", drivers.VolumeRef{ID: "stuck"})
		if err != nil && !model.IsKind(err, model.KindUnavailable) {
			t.Fatal(err)
		}
		return err == nil
	})
}

// A call that waits for its object longer than it may is told, before its
// deadline, that it did not begin.
func TestWaitIsToldInTime(t *testing.T) {
	drv := memdriver.New()
	in, release := make(chan struct{}, 1), make(chan struct{})
	drv.Hook = func(_ context.Context, m, id string) error {
		if m == "CreateVolume" {
			in <- struct{}{}
			<-release
		}
		return nil
	}
	d := docktest.Start(t, docktest.Config(t), mem(drv), dock.Quick)
	c := dialTo(t, d.Addr, nil, "mem")
	done := make(chan error, 1)
	ctx := within(t, time.Minute)
	go func() { _, err := c.CreateVolume(ctx, call(1, 1), "mem", newVolume("v")); done <- err }()
	<-in
	err := c.DeleteVolume(within(t, 2*time.Second), call(1, 2), "mem", drivers.VolumeRef{ID: "v"})
	wantKind(t, "the call that waited", err, model.KindUnavailable)
	close(release)
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestExportsDoNotWaitBehindCreates(t *testing.T) {
	cfg := docktest.Config(t)
	cfg.Limits.CallsPerBackend, cfg.Limits.ExportReserve = 3, 1
	drv := memdriver.New()
	in, release := make(chan struct{}, 10), make(chan struct{})
	var most, now atomic.Int32
	drv.Hook = func(_ context.Context, m, _ string) error {
		if m == "CreateVolume" {
			most.Store(max(most.Load(), now.Add(1)))
			in <- struct{}{}
			<-release
			now.Add(-1)
		}
		return nil
	}
	d := docktest.Start(t, cfg, mem(drv), dock.Quick)
	c := dialTo(t, d.Addr, nil, "mem")
	ctx := within(t, time.Minute)
	var wg sync.WaitGroup
	for i := range int64(8) {
		wg.Go(func() {
			if _, err := c.CreateVolume(ctx, call(1, i+1), "mem", newVolume(fmt.Sprint("v", i))); err != nil {
				t.Error(err)
			}
		})
	}
	for range 3 {
		<-in
	}
	v := drivers.VolumeRef{ID: "e"}
	if _, err := c.Export(ctx, call(1, 20), "mem", drivers.Export{AttachmentID: "a", Volume: v}); err != nil {
		t.Error(err)
	}
	if err := c.Unexport(ctx, call(1, 21), "mem", drivers.ExportRef{AttachmentID: "a", Volume: v}); err != nil {
		t.Error(err)
	}
	close(release)
	wg.Wait()
	if most.Load() != 3 {
		t.Errorf("%d creates at once, want 3", most.Load())
	}
}

func TestTooManyCallsAreRefused(t *testing.T) {
	cfg := docktest.Config(t)
	cfg.Limits.MaxCalls = 2
	drv := memdriver.New()
	in, release := make(chan struct{}, 2), make(chan struct{})
	drv.Hook = func(_ context.Context, m, _ string) error {
		if m == "CreateVolume" {
			in <- struct{}{}
			<-release
		}
		return nil
	}
	d := docktest.Start(t, cfg, mem(drv), dock.Quick)
	c, another := dialTo(t, d.Addr, nil, "mem"), dialTo(t, d.Addr, nil, "mem")
	ctx := within(t, time.Minute)
	var wg sync.WaitGroup
	for i := range int64(2) {
		wg.Go(func() {
			if _, err := c.CreateVolume(ctx, call(1, i+1), "mem", newVolume(fmt.Sprint("v", i))); err != nil {
				t.Error(err)
			}
		})
		<-in
	}
	_, err := another.ListVolumes(ctx, client.Call{}, "mem", drivers.Page{})
	wantKind(t, "one too many", err, model.KindUnavailable)
	close(release)
	wg.Wait()
}

func TestAbsentAbilities(t *testing.T) {
	drv := memdriver.New()
	d := docktest.Start(t, docktest.Config(t), map[string]drivers.Factory{
		"mem": func(context.Context, drivers.Config) (drivers.Driver, error) { return memdriver.Bare(drv), nil },
	}, dock.Quick)
	c := dialTo(t, d.Addr, nil, "mem")
	ctx := within(t, time.Minute)
	v, s := drivers.VolumeRef{ID: "v"}, drivers.SnapshotRef{ID: "s", VolumeID: "v"}
	if _, err := c.CreateVolume(ctx, call(1, 1), "mem", newVolume("v")); err != nil {
		t.Fatal(err)
	}
	clone := newVolume("w")
	clone.Source = &drivers.Source{Volume: &v}
	for name, f := range map[string]func(client.Call) error{
		"expand":         func(by client.Call) error { _, err := c.ExpandVolume(ctx, by, "mem", v, model.TiB); return err },
		"clone":          func(by client.Call) error { _, err := c.CreateVolume(ctx, by, "mem", clone); return err },
		"revert":         func(by client.Call) error { _, err := c.RevertVolume(ctx, by, "mem", v, s); return err },
		"snapshot":       func(by client.Call) error { return c.DeleteSnapshot(ctx, by, "mem", s) },
		"list snapshots": func(by client.Call) error { _, err := c.ListSnapshots(ctx, by, "mem", drivers.Page{}); return err },
		"list exports":   func(by client.Call) error { _, err := c.ListExports(ctx, by, "mem", drivers.Page{}); return err },
		"unexport": func(by client.Call) error {
			return c.Unexport(ctx, by, "mem", drivers.ExportRef{AttachmentID: "a", Volume: v})
		},
	} {
		wantKind(t, name, f(call(1, 2)), model.KindUnsupported)
	}
}

// A backend that cannot be opened keeps nobody from the others, and comes into
// service when it can.
func TestBackendOutOfService(t *testing.T) {
	cfg := docktest.Config(t)
	cfg.Backends = append(cfg.Backends, dock.BackendConfig{Name: "late", Driver: "late"}, dock.BackendConfig{Name: "wild", Driver: "wild"})
	late := memdriver.New()
	var fixed atomic.Bool
	var tries atomic.Int32
	reg := mem(memdriver.New())
	reg["late"] = func(_ context.Context, c drivers.Config) (drivers.Driver, error) {
		tries.Add(1)
		if !fixed.Load() {
			return nil, errors.New("the volume group vg0 is missing")
		}
		if c.Backend != "late" || c.StateDir == "" {
			return nil, fmt.Errorf("configured with %+v", c)
		}
		return late, nil
	}
	reg["wild"] = func(context.Context, drivers.Config) (drivers.Driver, error) { panic("boom") }
	d := docktest.Start(t, cfg, reg, dock.Quick)
	c := dialTo(t, d.Addr, nil, "mem")
	ctx := within(t, time.Minute)
	docktest.Until(t, "a few tries", func() bool { return tries.Load() > 3 })
	err := c.DeleteVolume(ctx, call(1, 1), "late", drivers.VolumeRef{ID: "v"})
	wantKind(t, "the backend out of service", err, model.KindUnavailable)
	if !strings.Contains(err.Error(), "vg0 is missing") {
		t.Errorf("the reason is not told: %v", err)
	}
	if _, err := c.CreateVolume(ctx, call(1, 2), "mem", newVolume("v")); err != nil {
		t.Errorf("the other backend: %v", err)
	}
	details := map[string]string{}
	for _, ch := range d.Ready(ctx) {
		details[ch.Name] = ch.Detail
	}
	if !strings.Contains(details["backend/late"], "vg0") || !strings.Contains(details["backend/wild"], "boom") || details["backends"] != "" {
		t.Errorf("ready says %v", details)
	}
	fixed.Store(true)
	docktest.Until(t, "service", func() bool {
		_, err := c.CreateVolume(ctx, call(1, 3), "late", newVolume("w"))
		return err == nil
	})
}

// Opening that does not end is neither waited for by others nor begun twice.
func TestOpeningThatDoesNotEnd(t *testing.T) {
	var open atomic.Int32
	release := make(chan struct{})
	drv := memdriver.New()
	d := docktest.Start(t, docktest.Config(t), map[string]drivers.Factory{
		"mem": func(context.Context, drivers.Config) (drivers.Driver, error) {
			if open.Add(1) > 1 {
				return nil, errors.New("the second")
			}
			<-release
			return drv, nil
		},
	}, func(d *dock.Dock) { dock.Quick(d); dock.OpenLimit(d, 20*time.Millisecond) })
	c := dialTo(t, d.Addr, nil)
	docktest.Until(t, "the reason", func() bool {
		_, err := c.ListVolumes(t.Context(), client.Call{}, "mem", drivers.Page{})
		return err != nil && strings.Contains(err.Error(), "opening does not end")
	})
	if open.Load() != 1 {
		t.Errorf("opened %d times at once", open.Load())
	}
	close(release)
	docktest.Until(t, "the next try", func() bool { return open.Load() > 1 })
	if !drv.Closed() {
		t.Error("what was opened too late is not closed")
	}
}

func TestDriverThatPanics(t *testing.T) {
	drv := memdriver.New()
	drv.Hook = func(_ context.Context, m, id string) error {
		if id == "boom" {
			panic("boom")
		}
		return nil
	}
	d := docktest.Start(t, docktest.Config(t), mem(drv), dock.Quick)
	c := dialTo(t, d.Addr, nil, "mem")
	ctx := within(t, time.Minute)
	for i := range int64(2) { // the lock is free again
		_, err := c.CreateVolume(ctx, call(1, i+1), "mem", newVolume("boom"))
		wantKind(t, "the panic", err, model.KindUnknownOutcome)
	}
	if _, err := c.CreateVolume(ctx, call(1, 3), "mem", newVolume("v")); err != nil {
		t.Error(err)
	}
}

func TestShutdownLetsCallsEnd(t *testing.T) {
	cfg := docktest.Config(t)
	drv := memdriver.New()
	in, release := make(chan struct{}), make(chan struct{})
	drv.Hook = func(_ context.Context, m, _ string) error {
		if m == "CreateVolume" {
			close(in)
			<-release
		}
		return nil
	}
	d := docktest.Start(t, cfg, mem(drv), dock.Quick)
	c := dialTo(t, d.Addr, nil, "mem")
	ctx := within(t, time.Minute)
	created, stopped := make(chan error, 1), make(chan error, 1)
	go func() { _, err := c.CreateVolume(ctx, call(1, 1), "mem", newVolume("v")); created <- err }()
	<-in
	if _, err := dock.New(dock.Options{Config: cfg, Drivers: mem(drv), Log: docktest.Logger(t)}); !model.IsKind(err, model.KindBusy) {
		t.Errorf("a second dock in the same directory: %v", err)
	}
	go func() { stopped <- d.Stop() }()
	docktest.Until(t, "the dock to take no more", func() bool {
		conn, err := net.Dial("tcp", d.Addr)
		if err == nil {
			_ = conn.Close()
		}
		return err != nil
	})
	if drv.Closed() {
		t.Error("the driver is closed while it works")
	}
	close(release)
	if err := <-created; err != nil {
		t.Errorf("the call in progress: %v", err)
	}
	if err := <-stopped; err != nil {
		t.Error(err)
	}
	if !drv.Closed() {
		t.Error("the driver is not closed")
	}
	again, err := dock.New(dock.Options{Config: cfg, Drivers: mem(drv), Log: docktest.Logger(t)})
	if err != nil {
		t.Fatalf("the directory is not given back: %v", err)
	}
	if again.ID() != d.ID() {
		t.Error("another id")
	}
	_ = again.Close()
}

// A call that does not end does not keep the dock from stopping; its driver is
// not closed under it.
func TestShutdownWithStuckCall(t *testing.T) {
	cfg := docktest.Config(t)
	cfg.Limits.Shutdown = 50 * time.Millisecond
	drv := memdriver.New()
	in, release := make(chan struct{}), make(chan struct{})
	drv.Hook = func(_ context.Context, m, _ string) error {
		if m == "CreateVolume" {
			close(in)
			<-release
		}
		return nil
	}
	d := docktest.Start(t, cfg, mem(drv), dock.Quick)
	c := dialTo(t, d.Addr, nil, "mem")
	created := make(chan error, 1)
	go func() {
		_, err := c.CreateVolume(within(t, time.Minute), call(1, 1), "mem", newVolume("v"))
		created <- err
	}()
	<-in
	if err := d.Stop(); err == nil || !strings.Contains(err.Error(), "do not end") {
		t.Errorf("stopped with %v", err)
	}
	wantKind(t, "the call", <-created, model.KindUnknownOutcome)
	if drv.Closed() {
		t.Error("the driver was closed under its call")
	}
	close(release)
}

// An error in the way of a call never looks like an answer of the backend.
func TestUnknownOutcomes(t *testing.T) {
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	in := make(chan struct{}, 1)
	srv := grpc.NewServer()
	dockpb.RegisterDockServer(srv, &hangs{in: in})
	go func() { _ = srv.Serve(lis) }()
	defer srv.Stop()
	c := dialTo(t, lis.Addr().String(), nil)
	done := make(chan error, 1)
	go func() {
		_, err := c.CreateVolume(within(t, time.Minute), call(1, 1), "mem", newVolume("v"))
		done <- err
	}()
	<-in
	srv.Stop() // in the middle of the call
	wantKind(t, "a connection that broke", <-done, model.KindUnknownOutcome)
	_, err = c.CreateVolume(within(t, time.Minute), call(1, 2), "mem", newVolume("v"))
	wantKind(t, "nobody there", err, model.KindUnavailable)
	_, err = c.GetVolume(within(t, time.Minute), call(1, 2), "mem", drivers.VolumeRef{ID: "v"})
	wantKind(t, "nobody there to look", err, model.KindUnavailable)
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = c.CreateVolume(ended, call(1, 3), "mem", newVolume("v"))
	wantKind(t, "a context that had ended", err, model.KindUnavailable)
}

// hangs answers nothing.
type hangs struct {
	dockpb.UnimplementedDockServer
	in chan struct{}
}

func (h *hangs) CreateVolume(ctx context.Context, _ *dockpb.CreateVolumeRequest) (*dockpb.Volume, error) {
	h.in <- struct{}{}
	<-ctx.Done()
	return nil, ctx.Err()
}

func TestMetrics(t *testing.T) {
	reg := prometheus.NewRegistry()
	cfg := docktest.Config(t)
	drv := memdriver.New()
	drv.Fills = []model.Fill{{Of: "data", Used: 0.85, Warn: 0.8, Stop: 0.95}, {Of: "metadata", Used: 0.96, Stop: 0.95}, {Of: "no\nname", Used: 1}}
	d, err := dock.New(dock.Options{Config: cfg, Drivers: mem(drv), Log: docktest.Logger(t), Registry: reg})
	if err != nil {
		t.Fatal(err)
	}
	dock.Quick(d)
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- d.Serve(ctx, lis) }()
	c := dialTo(t, lis.Addr().String(), nil, "mem")
	for i := range int64(3) {
		if _, err := c.CreateVolume(t.Context(), call(2, i+1), "mem", newVolume(fmt.Sprint("v", i))); err != nil {
			t.Fatal(err)
		}
	}
	wantKind(t, "stale", c.DeleteVolume(t.Context(), call(1, 9), "mem", drivers.VolumeRef{ID: "v"}), model.KindStale)
	for range 1000 { // the pools are read a little later
		if gather(t, reg)["osds_dock_pool_free_bytes,mem,mem"] == float64(drv.Total-3*newVolume("v").Size) {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	got := gather(t, reg)
	for name, want := range map[string]float64{
		"osds_dock_calls_total,ok,createVolume": 3, "osds_dock_calls_total,stale,deleteVolume": 1, "osds_dock_stale_total": 1,
		"osds_dock_call_seconds,createVolume": 3, "osds_dock_calls_in_flight": 0, "osds_dock_epoch": 2,
		"osds_dock_session_up,127.0.0.1:1":   0,
		"osds_dock_pool_total_bytes,mem,mem": float64(drv.Total), "osds_dock_pool_allocated_bytes,mem,mem": float64(3 * newVolume("v").Size),
		"osds_dock_pool_up,mem,mem": 1, "osds_dock_pool_fill_ratio,mem,mem,data": 0.85, "osds_dock_pool_watermark,mem,mem,data": 1,
		"osds_dock_pool_fill_warn_ratio,mem,mem,data": 0.8, "osds_dock_pool_fill_stop_ratio,mem,mem,metadata": 0.95,
		"osds_dock_pool_watermark,mem,mem,metadata": 2,
	} {
		if v, ok := got[name]; !ok || v != want {
			t.Errorf("%s is %v (there: %v), want %v", name, v, ok, want)
		}
	}
}

// gather gives the values of all metrics by their names and labels; a pool's id,
// which is made anew each time, is left out.
func gather(t *testing.T, reg *prometheus.Registry) map[string]float64 {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]float64{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			name := f.GetName()
			for _, l := range m.GetLabel() {
				if l.GetName() != "pool" {
					name += "," + l.GetValue()
				}
			}
			got[name] = m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
		}
	}
	return got
}

package dock_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/osds-io/osds/pkg/dock"
	"github.com/osds-io/osds/pkg/dock/client"
	"github.com/osds-io/osds/pkg/dock/connector"
	"github.com/osds-io/osds/pkg/dock/internal/docktest"
	"github.com/osds-io/osds/pkg/dock/internal/memattacher"
	"github.com/osds-io/osds/pkg/dock/internal/memdriver"
	"github.com/osds-io/osds/pkg/drivers"
	"github.com/osds-io/osds/pkg/model"
)

// attacherConfig is a dock that only attaches.
func attacherConfig(t *testing.T) dock.Config {
	cfg := docktest.Config(t)
	cfg.Type, cfg.Backends = model.DockAttacher, nil
	return cfg
}

// hostOf gives a client of a dock once its connector is in service.
func hostOf(t *testing.T, addr string) *client.Client {
	t.Helper()
	c := dialTo(t, addr, nil)
	docktest.Until(t, "the connector", func() bool {
		_, err := c.ListDevices(t.Context(), client.Call{}, drivers.Page{Limit: 1})
		if err != nil && !model.IsKind(err, model.KindUnavailable) {
			t.Fatal(err)
		}
		return err == nil
	})
	return c
}

func attachRequest(id string) client.AttachRequest {
	return client.AttachRequest{
		AttachmentID: id, VolumeID: "v-" + id, ReadOnly: true, Size: 3 * model.GiB,
		Connection: model.Connection{Type: "iscsi", Data: map[string]any{"targetLun": 1, "targetPortal": []string{"10.0.0.1:3260"}, "authPassword": "hush"}},
	}
}

func TestEveryDeviceOperation(t *testing.T) {
	mem := memattacher.New(model.Initiator{PortName: "iqn.a:b", Protocol: "iscsi"})
	d := docktest.StartAttacher(t, attacherConfig(t), nil, mem.Open, dock.Quick)
	c := hostOf(t, d.Addr)
	ctx := within(t, time.Minute)
	dev, err := c.Attach(ctx, call(1, 1), attachRequest("a1"))
	if err != nil || dev != (client.Device{AttachmentID: "a1", VolumeID: "v-a1", Path: "/dev/a1", Identity: "naa.v-a1", Detail: "one path", Size: 3 * model.GiB}) {
		t.Fatalf("%+v, %v", dev, err)
	}
	r, _, _ := mem.Last()
	if r.AttachmentID != "a1" || r.VolumeID != "v-a1" || !r.ReadOnly || r.Force || r.Size != 3*model.GiB || r.Connection.Type != "iscsi" ||
		r.Connection.Data["targetLun"] != int64(1) || r.Connection.Data["authPassword"] != "hush" || fmt.Sprint(r.Connection.Data["targetPortal"]) != "[10.0.0.1:3260]" {
		t.Errorf("the connector was asked for %#v %#v", r, r.Connection.Data)
	}
	if dev, err = c.ResizeDevice(ctx, call(1, 2), client.ResizeRequest{AttachmentID: "a1", VolumeID: "v-a1", Size: 5 * model.GiB, GrowFS: true}); err != nil || dev.Size != 5*model.GiB {
		t.Errorf("%+v, %v", dev, err)
	}
	if _, grown, _ := mem.Last(); !grown {
		t.Error("the file system was not to grow")
	}
	if _, err = c.Attach(ctx, call(1, 3), attachRequest("a2")); err != nil {
		t.Error(err)
	}
	if l, err := c.ListDevices(ctx, client.Call{}, drivers.Page{After: "a1", Limit: 5}); err != nil || len(l) != 1 || l[0].AttachmentID != "a2" {
		t.Errorf("%+v, %v", l, err)
	}
	// The order of calls is kept on each device, and the epoch on the dock.
	_, err = c.Attach(ctx, call(1, 1), attachRequest("a1"))
	wantKind(t, "an overtaken attach", err, model.KindStale)
	if err := c.Detach(ctx, call(2, 1), client.DetachRequest{AttachmentID: "a1", VolumeID: "v-a1", Force: true}); err != nil {
		t.Error(err)
	}
	if r, _, _ := mem.Last(); !r.Force || r.AttachmentID != "a1" {
		t.Errorf("%+v", r)
	}
	wantKind(t, "a deposed leader's", c.Detach(ctx, call(1, 9), client.DetachRequest{AttachmentID: "a2", VolumeID: "v"}), model.KindStale)
	wantKind(t, "without an epoch", c.Detach(ctx, client.Call{}, client.DetachRequest{AttachmentID: "a2", VolumeID: "v"}), model.KindInvalid)
	_, err = c.ResizeDevice(ctx, call(2, 2), client.ResizeRequest{AttachmentID: "a9", VolumeID: "v", Size: 1})
	wantKind(t, "a device that is not there", err, model.KindNotFound)
	for name, r := range map[string]client.AttachRequest{
		"no id":         {VolumeID: "v", Connection: model.Connection{Type: "x"}},
		"a path":        {AttachmentID: "../a", VolumeID: "v", Connection: model.Connection{Type: "x"}},
		"no volume":     {AttachmentID: "a", Connection: model.Connection{Type: "x"}},
		"no connection": {AttachmentID: "a", VolumeID: "v"},
		"a bad size":    {AttachmentID: "a", VolumeID: "v", Connection: model.Connection{Type: "x"}, Size: -1},
	} {
		_, err := c.Attach(ctx, call(2, 3), r)
		wantKind(t, name, err, model.KindInvalid)
	}
	_, err = c.CreateVolume(ctx, call(2, 4), "mem", newVolume("v"))
	wantKind(t, "a create on an attacher", err, model.KindUnavailable)
	if err := d.Stop(); err != nil {
		t.Fatal(err)
	}
	if _, _, closed := mem.Last(); !closed {
		t.Error("the connector is not closed")
	}
}

// A dock may do both, and one without a connector says what to set.
func TestProvisionerWithConnector(t *testing.T) {
	cfg := docktest.Config(t)
	plain := docktest.Start(t, cfg, mem(memdriver.New()), dock.Quick)
	c := dialTo(t, plain.Addr, nil, "mem")
	_, err := c.Attach(within(t, time.Minute), call(1, 1), attachRequest("a1"))
	if !model.IsKind(err, model.KindUnavailable) || !strings.Contains(err.Error(), "connector.enabled") {
		t.Errorf("%v", err)
	}
	cfg = docktest.Config(t)
	cfg.Connector.Enabled = true
	at := memattacher.New()
	both := docktest.StartAttacher(t, cfg, mem(memdriver.New()), at.Open, dock.Quick)
	c = dialTo(t, both.Addr, nil, "mem")
	if _, err = c.CreateVolume(within(t, time.Minute), call(1, 1), "mem", newVolume("v")); err != nil {
		t.Error(err)
	}
	if _, err = hostOf(t, both.Addr).Attach(within(t, time.Minute), call(1, 2), attachRequest("a1")); err != nil {
		t.Error(err)
	}
}

// A detach that hangs does not hold up the end of the export, by which its host is
// cut off, nor other devices; the device itself is left alone until it has ended.
func TestHangingDetach(t *testing.T) {
	cfg := docktest.Config(t)
	cfg.Connector.Enabled = true
	cfg.Limits.CallsPerBackend, cfg.Limits.ExportReserve = 1, 1
	drv, at := memdriver.New(), memattacher.New()
	free := make(chan struct{})
	var hang atomic.Bool
	at.Hook = func(_ context.Context, m, id string) error {
		if m == "Detach" && id == "a1" && hang.Load() {
			<-free
		}
		return nil
	}
	d := docktest.StartAttacher(t, cfg, mem(drv), at.Open, dock.Quick)
	defer close(free)
	c := dialTo(t, d.Addr, nil, "mem")
	hostOf(t, d.Addr)
	ctx := within(t, time.Minute)
	v := drivers.VolumeRef{ID: "v-a1", Pool: "mem"}
	if _, err := c.CreateVolume(ctx, call(1, 1), "mem", newVolume("v-a1")); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Export(ctx, call(1, 2), "mem", drivers.Export{AttachmentID: "a1", Volume: v, QoS: drivers.QoS{MaxIOPS: 5, MaxBytesPerSecond: 7}}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Attach(ctx, call(1, 3), attachRequest("a1")); err != nil {
		t.Fatal(err)
	}
	hang.Store(true)
	err := c.Detach(within(t, 300*time.Millisecond), call(1, 4), client.DetachRequest{AttachmentID: "a1", VolumeID: "v-a1"})
	wantKind(t, "a detach that hangs", err, model.KindUnknownOutcome)
	if err := c.Unexport(ctx, call(1, 5), "mem", drivers.ExportRef{AttachmentID: "a1", Volume: v, Force: true}); err != nil {
		t.Errorf("the export cannot be ended: %v", err)
	}
	if ex, un := drv.Asked(); ex.QoS != (drivers.QoS{MaxIOPS: 5, MaxBytesPerSecond: 7}) || !un.Force || un.AttachmentID != "a1" {
		t.Errorf("the driver was asked for %+v, %+v", ex, un)
	}
	if err := c.Detach(ctx, call(1, 6), client.DetachRequest{AttachmentID: "a2", VolumeID: "v-a2"}); err != nil {
		t.Errorf("another device: %v", err)
	}
	docktest.Until(t, "the device to count as stuck", func() bool {
		err := c.Detach(within(t, 20*time.Second), call(1, 7), client.DetachRequest{AttachmentID: "a1", VolumeID: "v-a1", Force: true})
		wantKind(t, "the hanging device", err, model.KindUnavailable)
		return strings.Contains(err.Error(), "over its deadline")
	})
}

// The connector is opened again and again, and what it knows of its host is told
// to the osdslets, anew when it changes.
func TestAttacherIntroducesItself(t *testing.T) {
	var ev events
	cfg := attacherConfig(t)
	reg, addr, _ := docktest.StartRegistry(t, "127.0.0.1:0", quickRegistry(&ev), nil)
	cfg.Osdslets = []string{addr}
	at := memattacher.New(model.Initiator{PortName: "iqn.a:b", Protocol: "iscsi"})
	var fixed atomic.Bool
	open := func(ctx context.Context, c connector.Config) (dock.Attacher, error) {
		if !fixed.Load() {
			return nil, errors.New("no iscsid")
		}
		return at.Open(ctx, c)
	}
	d := docktest.StartAttacher(t, cfg, nil, open, dock.Quick)
	docktest.Until(t, "the reason to be told", func() bool {
		s, ok := reg.Get(d.ID())
		return ok && strings.Contains(s.OutOfService["(connector)"], "no iscsid")
	})
	if s := check(d, "backends"); s == "ok" {
		t.Error("ready without a connector")
	}
	_, err := dialTo(t, d.Addr, nil).Attach(within(t, time.Minute), call(1, 1), attachRequest("a1"))
	if !model.IsKind(err, model.KindUnavailable) || !strings.Contains(err.Error(), "no iscsid") {
		t.Errorf("%v", err)
	}
	names := func() string {
		s, _ := reg.Get(d.ID())
		var out []string
		for _, x := range s.Hello.GetInitiators() {
			if x.GetProtocol() != "local" {
				out = append(out, x.GetProtocol()+" "+x.GetPortName())
			}
		}
		return strings.Join(out, ",")
	}
	s, _ := reg.Get(d.ID())
	if n := s.Hello.GetInitiators(); len(n) != 1 || n[0].GetProtocol() != "local" || n[0].GetPortName() != s.Hello.GetNodeId() {
		t.Errorf("initiators before it is open: %v", n)
	}
	fixed.Store(true)
	docktest.Until(t, "the initiator", func() bool { return names() == "iscsi iqn.a:b" })
	s, _ = reg.Get(d.ID())
	m := s.Hello.GetMetadata()
	if s.Hello.GetType() != model.DockAttacher || m["Initiator"] != "iqn.a:b" || m["OsType"] == "" || m["Platform"] == "" || m["HostIp"] != "127.0.0.1" ||
		len(s.Hello.GetAddresses()) == 0 || s.Hello.GetAddresses()[0] != "127.0.0.1" {
		t.Errorf("hello %v", s.Hello)
	}
	at.SetNames(model.Initiator{PortName: "iqn.a:b", Protocol: "iscsi"}, model.Initiator{PortName: "nqn.c:d", Protocol: "nvmeof"})
	docktest.Until(t, "the new initiator", func() bool { return names() == "iscsi iqn.a:b,nvmeof nqn.c:d" })
	docktest.Until(t, "readiness", func() bool { return check(d, "backends") == "ok" && check(d, "sessions") == "ok" })
	if strings.Contains(ev.all(), "gone") {
		t.Errorf("the dock was taken for gone: %s", ev.all())
	}
}

func TestConnectorConfig(t *testing.T) {
	for name, tc := range map[string]struct {
		change func(*dock.Config)
		field  string
	}{
		"an attacher":               {func(c *dock.Config) { c.Type, c.Backends = "attacher", nil }, ""},
		"an attacher with backends": {func(c *dock.Config) { c.Type = "attacher" }, "backends"},
		"no backends":               {func(c *dock.Config) { c.Backends = nil }, "backends"},
		"another type":              {func(c *dock.Config) { c.Type = "juggler" }, "type"},
		"both":                      {func(c *dock.Config) { c.Connector.Enabled = true }, ""},
	} {
		cfg := docktest.Config(t)
		tc.change(&cfg)
		err := cfg.Validate()
		if got := model.AsError(err); (got == nil) != (tc.field == "") || got != nil && got.Field != tc.field {
			t.Errorf("%s: %v", name, err)
		}
	}
}

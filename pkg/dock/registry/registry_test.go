package registry_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/osds-io/osds/internal/tlsconf"
	"github.com/osds-io/osds/pkg/dock/dockpb"
	"github.com/osds-io/osds/pkg/dock/internal/docktest"
	"github.com/osds-io/osds/pkg/dock/registry"
)

const (
	dockA = "00000000-0000-4000-8000-00000000000a"
	dockB = "00000000-0000-4000-8000-00000000000b"
)

func hello(id, instance string) *dockpb.Hello {
	return &dockpb.Hello{DockId: id, Instance: instance, Name: "n", NodeId: "node", Endpoint: "10.0.0.5:50050", Type: "provisioner"}
}

type observer struct {
	mu   sync.Mutex
	list []string
}

func (o *observer) add(format string, args ...any) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.list = append(o.list, fmt.Sprintf(format, args...))
}

func (o *observer) DockSeen(s registry.Session) {
	o.add("seen %s/%s", s.ID()[35:], s.Hello.GetInstance())
}
func (o *observer) DockBeat(s registry.Session) {
	o.add("beat %s/%s %d", s.ID()[35:], s.Hello.GetInstance(), s.Epoch)
}
func (o *observer) DockGone(id, reason string) { o.add("gone %s: %s", id[35:], reason) }
func (o *observer) all() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return strings.Join(o.list, "; ")
}

// dock is a dock's end of a session.
type dock struct {
	t      *testing.T
	stream grpc.BidiStreamingClient[dockpb.DockMessage, dockpb.Welcome]
	cancel context.CancelFunc
}

func connect(t *testing.T, addr string) *dock {
	t.Helper()
	conn, err := grpc.NewClient("passthrough:///"+addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(func() { cancel(); _ = conn.Close() })
	stream, err := dockpb.NewRegistryClient(conn).Session(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return &dock{t, stream, cancel}
}

func (d *dock) say(m *dockpb.DockMessage) *dockpb.Welcome {
	d.t.Helper()
	if err := d.stream.Send(m); err != nil {
		d.t.Fatal(err)
	}
	w, err := d.stream.Recv()
	if err != nil {
		d.t.Fatal(err)
	}
	return w
}

func (d *dock) join(id, instance string) *dockpb.Welcome {
	d.t.Helper()
	return d.say(&dockpb.DockMessage{Hello: hello(id, instance)})
}

func TestWelcomeAndBeats(t *testing.T) {
	ob := &observer{}
	reg, addr, _ := docktest.StartRegistry(t, "127.0.0.1:0", registry.Options{
		ClusterID: "c1", Observer: ob, Beat: 1234 * time.Millisecond,
		Leader: func() (bool, int64) { return true, 5 },
	}, nil)
	b, a := connect(t, addr), connect(t, addr)
	b.join(dockB, "b1")
	w := a.join(dockA, "a1")
	if w.GetClusterId() != "c1" || w.GetBeatMs() != 1234 || !w.GetLeader() || w.GetEpoch() != 5 || w.GetRefused() != "" {
		t.Errorf("welcome %v", w)
	}
	a.say(&dockpb.DockMessage{Epoch: 4, Pools: []*dockpb.Pool{{Id: "p", Name: "pool"}}, OutOfService: map[string]string{"x": "why"}})
	list := reg.Snapshot()
	if len(list) != 2 || list[0].ID() != dockA || list[1].ID() != dockB {
		t.Fatalf("snapshot %v", list)
	}
	s := list[0]
	if s.Epoch != 4 || len(s.Pools) != 1 || s.OutOfService["x"] != "why" || s.Peer == "" || s.LastBeat.Before(s.Since) {
		t.Errorf("session %+v", s)
	}
	if got := ob.all(); got != "seen b/b1; seen a/a1; beat a/a1 4" {
		t.Errorf("observed %s", got)
	}
}

func TestRefused(t *testing.T) {
	reg, addr, _ := docktest.StartRegistry(t, "127.0.0.1:0", registry.Options{ClusterID: "c1", MaxDocks: 1}, nil)
	with := func(f func(*dockpb.Hello)) *dockpb.DockMessage {
		h := hello(dockB, "x")
		f(h)
		return &dockpb.DockMessage{Hello: h}
	}
	keep := connect(t, addr)
	for name, tc := range map[string]struct {
		m    *dockpb.DockMessage
		want string
	}{
		"no hello":        {&dockpb.DockMessage{}, "must introduce"},
		"no id":           {with(func(h *dockpb.Hello) { h.DockId = "../x" }), "not a UUID"},
		"no instance":     {with(func(h *dockpb.Hello) { h.Instance = "" }), "instance is empty"},
		"another cluster": {with(func(h *dockpb.Hello) { h.ClusterId = "c9" }), "--join-cluster c1"},
		"another type":    {with(func(h *dockpb.Hello) { h.Type = "juggler" }), "only provisioner and attacher"},
		"a bad initiator": {with(func(h *dockpb.Hello) {
			h.Initiators = []*dockpb.Initiator{{PortName: "iqn.a; reboot", Protocol: "iscsi"}}
		}), "is not an iSCSI name"},
		"a local name of nothing": {with(func(h *dockpb.Hello) { h.Initiators = []*dockpb.Initiator{{Protocol: "local"}} }), "1 to 255"},
		"no endpoint":             {with(func(h *dockpb.Hello) { h.Endpoint = "" }), "set advertise"},
		"any address":             {with(func(h *dockpb.Hello) { h.Endpoint = "0.0.0.0:50050" }), "set advertise"},
		"any v6 address":          {with(func(h *dockpb.Hello) { h.Endpoint = "[::]:50050" }), "set advertise"},
		"no host":                 {with(func(h *dockpb.Hello) { h.Endpoint = ":50050" }), "set advertise"},
		"no port":                 {with(func(h *dockpb.Hello) { h.Endpoint = "10.0.0.1" }), "set advertise"},
		"port 0":                  {with(func(h *dockpb.Hello) { h.Endpoint = "10.0.0.1:0" }), "set advertise"},
		"a pool twice":            {&dockpb.DockMessage{Hello: hello(dockB, "x"), Pools: []*dockpb.Pool{{Id: "p"}, {Id: "p"}}}, "given twice"},
		"a pool of no id":         {&dockpb.DockMessage{Hello: hello(dockB, "x"), Pools: []*dockpb.Pool{{}}}, "which is none"},
		"too many pools":          {&dockpb.DockMessage{Hello: hello(dockB, "x"), Pools: make([]*dockpb.Pool, 5000)}, "at most"},
		"too many entries":        {with(func(h *dockpb.Hello) { h.Metadata = many(100) }), "at most"},
	} {
		d := connect(t, addr)
		if tc.m.Pools != nil {
			for i, p := range tc.m.Pools {
				if p == nil {
					tc.m.Pools[i] = &dockpb.Pool{Id: fmt.Sprint("p", i)}
				}
			}
		}
		w := d.say(tc.m)
		if !strings.Contains(w.GetRefused(), tc.want) {
			t.Errorf("%s: refused with %q, want %q", name, w.GetRefused(), tc.want)
		}
		if _, err := d.stream.Recv(); err == nil {
			t.Errorf("%s: the session goes on", name)
		}
	}
	if n := len(reg.Snapshot()); n != 0 {
		t.Errorf("%d docks registered", n)
	}
	keep.join(dockA, "a1")
	if w := connect(t, addr).join(dockB, "b1"); !strings.Contains(w.GetRefused(), "1 docks already") {
		t.Errorf("one too many: %q", w.GetRefused())
	}
	// A beat that makes no sense ends the session too.
	if w := keep.say(&dockpb.DockMessage{Pools: []*dockpb.Pool{{Id: "/"}}}); w.GetRefused() == "" {
		t.Error("a pool with a bad id was taken in a beat")
	}
}

func many(n int) map[string]string {
	m := map[string]string{}
	for i := range n {
		m[fmt.Sprint(i)] = ""
	}
	return m
}

func TestInstances(t *testing.T) {
	ob := &observer{}
	reg, addr, _ := docktest.StartRegistry(t, "127.0.0.1:0", registry.Options{ClusterID: "c1", Observer: ob, Grace: time.Hour}, nil)
	first := connect(t, addr)
	first.join(dockA, "one")
	since := reg.Snapshot()[0].Since

	if w := connect(t, addr).join(dockA, "two"); !strings.Contains(w.GetRefused(), "registered already") {
		t.Errorf("a second instance: %q", w.GetRefused())
	}
	// The same instance on a new connection takes the place of the old one.
	again := connect(t, addr)
	if w := again.join(dockA, "one"); w.GetRefused() != "" {
		t.Errorf("the same instance: %q", w.GetRefused())
	}
	if _, err := first.stream.Recv(); err == nil {
		t.Error("the old connection goes on")
	}
	again.say(&dockpb.DockMessage{Epoch: 1})
	if s := reg.Snapshot(); len(s) != 1 || !s[0].Since.Equal(since) {
		t.Errorf("sessions %+v", s)
	}
	// Its connection breaks: another instance, the dock started anew, may come
	// at once.
	again.cancel()
	docktest.Until(t, "the new instance", func() bool { return connect(t, addr).join(dockA, "three").GetRefused() == "" })
	s, ok := reg.Get(dockA)
	if !ok || s.Hello.GetInstance() != "three" || s.Since.Equal(since) {
		t.Errorf("session %+v", s)
	}
	if got := ob.all(); !strings.HasPrefix(got, "seen a/one; seen a/one; beat a/one 1; seen a/three") || strings.Contains(got, "gone") {
		t.Errorf("observed %s", got)
	}
}

// A dock that is not heard of is gone, though its connection stands.
func TestSilentDock(t *testing.T) {
	ob := &observer{}
	reg, addr, _ := docktest.StartRegistry(t, "127.0.0.1:0", registry.Options{ClusterID: "c1", Observer: ob, Silence: 50 * time.Millisecond}, nil)
	d := connect(t, addr)
	d.join(dockA, "a1")
	if _, err := d.stream.Recv(); err == nil || !strings.Contains(err.Error(), "nothing heard") {
		t.Errorf("the session ended with %v", err)
	}
	docktest.Until(t, "the end", func() bool { return strings.Contains(ob.all(), "gone") })
	if got := ob.all(); !strings.HasPrefix(got, "seen a/a1; gone a: nothing heard") || len(reg.Snapshot()) != 0 {
		t.Errorf("observed %s, there are %v", got, reg.Snapshot())
	}
	if w := connect(t, addr).join(dockA, "a1"); w.GetRefused() != "" {
		t.Errorf("it may not come back: %q", w.GetRefused())
	}
}

func TestOnlyDocksMayRegister(t *testing.T) {
	ca := docktest.CA(t)
	let := docktest.Identity(t, ca, tlsconf.RoleLet)
	reg, addr, _ := docktest.StartRegistry(t, "127.0.0.1:0", registry.Options{ClusterID: "c1"}, let.ServerCredentials(tlsconf.RoleDock))
	for name, opt := range map[string]grpc.DialOption{
		"an osdslet": grpc.WithTransportCredentials(let.ClientCredentials(tlsconf.RoleLet)),
		"a stranger": grpc.WithTransportCredentials(docktest.Identity(t, docktest.CA(t), tlsconf.RoleDock).ClientCredentials(tlsconf.RoleLet)),
		"plain text": grpc.WithTransportCredentials(insecure.NewCredentials()),
	} {
		conn, err := grpc.NewClient("passthrough:///"+addr, opt)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		stream, err := dockpb.NewRegistryClient(conn).Session(ctx)
		if err == nil {
			_ = stream.Send(&dockpb.DockMessage{Hello: hello(dockA, "x")})
			_, err = stream.Recv()
		}
		if err == nil {
			t.Errorf("%s was welcomed", name)
		}
		cancel()
		_ = conn.Close()
	}
	if len(reg.Snapshot()) != 0 {
		t.Error("somebody is registered")
	}
}

// Many docks come, beat, break and go at once: what is observed of each is in
// order.
func TestManyDocks(t *testing.T) {
	ob := &observer{}
	reg, addr, _ := docktest.StartRegistry(t, "127.0.0.1:0", registry.Options{
		ClusterID: "c1", Observer: ob, Silence: time.Second, Grace: 20 * time.Millisecond}, nil)
	var wg sync.WaitGroup
	for i := range 8 {
		id := fmt.Sprintf("00000000-0000-4000-8000-00000000000%x", i)
		wg.Go(func() {
			for k := range 5 {
				d := connect(t, addr)
				// Refused, the last one's connection is not known to be broken yet.
				if d.join(id, fmt.Sprint(k)).GetRefused() == "" {
					d.say(&dockpb.DockMessage{Epoch: int64(k)})
				}
				d.cancel()
				time.Sleep(time.Duration(i*5) * time.Millisecond)
			}
		})
	}
	wg.Wait()
	docktest.Until(t, "all to be gone", func() bool {
		for i := range 8 {
			ends := strings.LastIndex(ob.all(), fmt.Sprintf("gone %x:", i))
			if ends < 0 || strings.LastIndex(ob.all(), fmt.Sprintf("seen %x/", i)) > ends {
				return false
			}
		}
		return true
	})
	if n := len(reg.Snapshot()); n != 0 {
		t.Errorf("%d docks are still there", n)
	}
	there := map[string]string{}
	ob.mu.Lock()
	defer ob.mu.Unlock()
	for _, ev := range ob.list {
		what, rest, _ := strings.Cut(ev, " ")
		id := rest[:1]
		switch {
		case what == "beat" && there[id] != rest[:strings.LastIndex(rest, " ")]:
			t.Errorf("%s after %q", ev, there[id])
		case what == "seen":
			there[id] = rest
		case what == "gone" && there[id] == "":
			t.Errorf("%s twice", ev)
		case what == "gone":
			there[id] = ""
		}
	}
}

package client_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/osds-io/osds/pkg/dock"
	"github.com/osds-io/osds/pkg/dock/client"
	"github.com/osds-io/osds/pkg/dock/internal/docktest"
	"github.com/osds-io/osds/pkg/dock/internal/memdriver"
	"github.com/osds-io/osds/pkg/drivers"
	"github.com/osds-io/osds/pkg/model"
)

// ready starts a dock and gives a client of it once its backend is in service.
func ready(tb testing.TB, cfg dock.Config, o client.Options, drv *memdriver.Driver) *client.Client {
	tb.Helper()
	d := docktest.Start(tb, cfg, map[string]drivers.Factory{"mem": drv.Factory}, nil)
	dialer := client.New(o)
	tb.Cleanup(func() { _ = dialer.Close() })
	c, err := dialer.Dock(d.Addr)
	if err != nil {
		tb.Fatal(err)
	}
	docktest.Until(tb, "the backend", func() bool {
		_, err := c.ListVolumes(context.Background(), client.Call{}, "mem", drivers.Page{Limit: 1})
		if err != nil && !model.IsKind(err, model.KindUnavailable) {
			tb.Fatal(err)
		}
		return err == nil
	})
	return c
}

// Over several connections each answer still belongs to its question.
func TestSeveralConnections(t *testing.T) {
	c := ready(t, docktest.Config(t), client.Options{Conns: 3}, memdriver.New())
	var wg sync.WaitGroup
	for i := range int64(200) {
		wg.Go(func() {
			id := fmt.Sprint("v", i)
			v, err := c.CreateVolume(t.Context(), client.Call{Epoch: 1, Seq: i + 1}, "mem", drivers.CreateVolume{ID: id, Pool: "mem", Size: model.Bytes(i + 1)})
			if err != nil || v.ID != id || v.Size != model.Bytes(i+1) {
				t.Errorf("%s: %+v, %v", id, v, err)
			}
		})
	}
	wg.Wait()
}

// The deadline travels: the dock's driver sees one that is no later.
func TestDeadlineTravels(t *testing.T) {
	drv := memdriver.New()
	seen := make(chan time.Time, 2)
	drv.Hook = func(ctx context.Context, m, _ string) error {
		if dl, ok := ctx.Deadline(); m == "CreateVolume" && ok {
			seen <- dl
		}
		return nil
	}
	c := ready(t, docktest.Config(t), client.Options{Timeout: 45 * time.Second}, drv)
	ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
	defer cancel()
	want, _ := ctx.Deadline()
	if _, err := c.CreateVolume(ctx, client.Call{Epoch: 1, Seq: 1}, "mem", drivers.CreateVolume{ID: "a", Pool: "mem", Size: 1}); err != nil {
		t.Fatal(err)
	}
	if got := <-seen; got.After(want) || got.Before(want.Add(-time.Minute)) {
		t.Errorf("the driver may work until %v, want a little before %v", got, want)
	}
	// One that brings none gets the client's.
	before := time.Now()
	if _, err := c.CreateVolume(t.Context(), client.Call{Epoch: 1, Seq: 2}, "mem", drivers.CreateVolume{ID: "b", Pool: "mem", Size: 1}); err != nil {
		t.Fatal(err)
	}
	if got := <-seen; got.Before(before) || got.After(time.Now().Add(45*time.Second)) {
		t.Errorf("the driver may work until %v", got)
	}
}

func TestProfileTravels(t *testing.T) {
	drv := memdriver.New()
	var mu sync.Mutex
	got := map[string]*model.Profile{}
	watch := &profiles{Driver: drv, note: func(id string, p *model.Profile) { mu.Lock(); defer mu.Unlock(); got[id] = p }}
	d := docktest.Start(t, docktest.Config(t), map[string]drivers.Factory{
		"mem": func(context.Context, drivers.Config) (drivers.Driver, error) { return watch, nil },
	}, nil)
	dialer := client.New(client.Options{})
	defer dialer.Close()
	c, err := dialer.Dock(d.Addr)
	if err != nil {
		t.Fatal(err)
	}
	docktest.Until(t, "the backend", func() bool {
		_, err := c.ListVolumes(t.Context(), client.Call{}, "mem", drivers.Page{})
		return err == nil
	})
	profile := func(rev int64, policy string) *model.Profile {
		p := &model.Profile{Meta: model.Meta{ID: "p", Rev: rev}}
		p.Provisioning.DataStorage.ProvisioningPolicy = policy
		return p
	}
	for i, tc := range []struct {
		p    *model.Profile
		want string
	}{
		{profile(1, "Thin"), "Thin"}, {profile(1, "Thin"), "Thin"}, {profile(2, "Thick"), "Thick"}, // a new revision is sent anew
		{profile(0, "Thin"), "Thin"}, {profile(0, "Thick"), "Thick"}, {nil, ""}, // no revision: never remembered
	} {
		id := fmt.Sprint("v", i)
		in := drivers.CreateVolume{ID: id, Pool: "mem", Size: 1, Profile: tc.p}
		if _, err := c.CreateVolume(t.Context(), client.Call{Epoch: 1, Seq: int64(i + 1)}, "mem", in); err != nil {
			t.Fatal(err)
		}
		mu.Lock()
		p := got[id]
		mu.Unlock()
		if (p == nil) != (tc.p == nil) || p != nil && p.Provisioning.DataStorage.ProvisioningPolicy != tc.want {
			t.Errorf("%d: %+v arrived, want %q", i, p, tc.want)
		}
	}
}

type profiles struct {
	*memdriver.Driver
	note func(string, *model.Profile)
}

func (p *profiles) CreateVolume(ctx context.Context, r drivers.CreateVolume) (drivers.Volume, error) {
	p.note(r.ID, r.Profile)
	return p.Driver.CreateVolume(ctx, r)
}

func TestDialer(t *testing.T) {
	d := client.New(client.Options{})
	for _, ep := range []string{"10.0.0.1:50050", "store1:50050", ":50050"} {
		if _, err := d.Dock(ep); !model.IsKind(err, model.KindDenied) {
			t.Errorf("%s without certificates: %v", ep, err)
		}
	}
	a, err := d.Dock("127.0.0.1:1")
	if err != nil {
		t.Fatal(err)
	}
	if b, _ := d.Dock("127.0.0.1:1"); a != b {
		t.Error("another client for the same endpoint")
	}
	if err := d.Forget("127.0.0.1:1"); err != nil {
		t.Error(err)
	}
	if err := d.Forget("127.0.0.1:2"); err != nil {
		t.Error(err)
	}
	if err := a.DeleteVolume(t.Context(), client.Call{Epoch: 1, Seq: 1}, "mem", drivers.VolumeRef{ID: "v"}); !model.IsKind(err, model.KindUnavailable) {
		t.Errorf("a call on closed connections: %v", err)
	}
	if b, err := d.Dock("127.0.0.1:1"); err != nil || a == b {
		t.Errorf("after Forget: %v", err)
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
	if _, err := d.Dock("127.0.0.1:1"); !model.IsKind(err, model.KindUnavailable) {
		t.Errorf("after Close: %v", err)
	}
}

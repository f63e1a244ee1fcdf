package local

import (
	"strings"
	"testing"

	"github.com/osds-io/osds/pkg/drivers"
	"github.com/osds-io/osds/pkg/model"
)

func TestConfig(t *testing.T) {
	c, err := parse("l.yaml", []byte(`
hostNames: [storage-1]
pool:
  fast:
    path: /srv/osds/fast/
    capacity: 100GiB
    overProvisioningRatio: 20
    availabilityZone: az1
    multiAttach: true
    extras:
      dataStorage: {compression: false}
      ioConnectivity: {maxIOPS: 100000, latency: 1}
      advanced: {diskType: SSD, racks: [1, 2], bought: 2024-05-01}
  slow:
    path: /srv/osds/slow
    provisioningPolicy: thick
`))
	if err != nil {
		t.Fatal(err)
	}
	fast, slow := c.Pool["fast"], c.Pool["slow"]
	if fast.Path != "/srv/osds/fast" || fast.Capacity != 100*model.GiB || fast.OverProvisioningRatio != 20 || !fast.MultiAttach ||
		fast.AvailabilityZone != "az1" || fast.Extras.DataStorage.ProvisioningPolicy != "Thin" ||
		fast.Extras.IOConnectivity.AccessProtocol != "local" || fast.Extras.Advanced["diskType"] != "SSD" {
		t.Errorf("%+v", fast)
	}
	if slow.ProvisioningPolicy != "Thick" || slow.OverProvisioningRatio != 1 || slow.Extras.DataStorage.ProvisioningPolicy != "Thick" ||
		slow.AvailabilityZone != "default" || slow.StorageType != "block" {
		t.Errorf("%+v", slow)
	}
	for _, x := range []struct{ yaml, field, text string }{
		{"", "pool", "at least one"},
		{"pools: {}", "pools", `"pool"`},
		{"pool: {p: {path: /a, capcity: 1GiB}}", "pool.p.capcity", `"pool.p.capacity"`},
		{"pool: {p: {}}", "pool.p.path", "must be given"},
		{"pool: {p: {path: a/b}}", "pool.p.path", "absolute"},
		{"pool: {p: {path: /}}", "pool.p.path", "root directory"},
		{"pool: {p: {path: /a}, q: {path: /a/b/..}}", "pool.q.path", "overlaps"},
		{"pool: {p: {path: /a}, q: {path: /a/b}}", "pool.q.path", "overlaps"},
		{"pool: {p: {path: /a/b}, q: {path: /a}}", "pool.q.path", "overlaps"},
		{"pool: {p: {path: /a, capacity: lots}}", "pool.p.capacity", "unknown unit"},
		{"pool: {p: {path: /a, provisioningPolicy: Thinn}}", "pool.p.provisioningPolicy", "Thin or Thick"},
		{"pool: {p: {path: /a, provisioningPolicy: Thick, overProvisioningRatio: 2}}", "pool.p.overProvisioningRatio", "leave it out"},
		{"pool: {p: {path: /a, overProvisioningRatio: 0.1}}", "pool.p.overProvisioningRatio", "from 1"},
		{"pool: {p: {path: /a, storageType: file}}", "pool.p.storageType", "must be block"},
		{"pool: {p: {path: /a, extras: {ioConnectivity: {accessProtocol: rbd}}}}", "pool.p.extras.ioConnectivity.accessProtocol", "must be local, iscsi or nvmeof"},
		{"pool: {p: {path: /a, extras: {ioConnectivity: {maxIOPS: -1}}}}", "pool.p.extras.ioConnectivity.maxIOPS", "negative"},
		{"pool: {p: {path: /a, extras: {advanced: {x: .nan}}}}", "pool.p.extras.advanced", "JSON"},
		{"pool: {p: {path: /a, extras: {ioConnectivity: {accessProtocol: iscsi}}}}", "portals", "give the addresses"},
		{"portals: [host.example]\npool: {p: {path: /a}}", "portals", "is not an address"},
		{"mutualChap: true\npool: {p: {path: /a}}", "mutualChap", "enableChapAuth"},
		{`pool: {"": {path: /a}}`, "pool", "empty"},
	} {
		_, err := parse("l.yaml", []byte(x.yaml))
		e := model.AsError(err)
		if e == nil || e.Kind != model.KindInvalid || e.Field != x.field || !strings.Contains(e.Message, x.text) || !strings.HasPrefix(e.Message, "l.yaml") {
			t.Errorf("%q: %+v", x.yaml, e)
		}
	}
	if c, err := parse("l.yaml", []byte("pool: {p: {path: /a}, q: {path: /ab}}")); err != nil || len(c.Pool) != 2 {
		t.Errorf("neighbours: %v", err)
	}
}

// Without a configuration there is a pool in the state directory.
func TestDefaultPool(t *testing.T) {
	d, err := Factory(t.Context(), drivers.Config{StateDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = d.Close() }()
	ps, err := d.Pools(t.Context())
	if err != nil || len(ps) != 1 || ps[0].Name != "default" || ps[0].ID == "" || ps[0].Total <= 0 {
		t.Errorf("%+v, %v", ps, err)
	}
	if _, err := Factory(t.Context(), drivers.Config{}); !model.IsKind(err, model.KindInvalid) {
		t.Error(err)
	}
	if _, err := Factory(t.Context(), drivers.Config{StateDir: t.TempDir(), Path: "/nowhere.yaml"}); !model.IsKind(err, model.KindInvalid) {
		t.Error(err)
	}
}

func FuzzConfig(f *testing.F) {
	f.Add([]byte("pool: {p: {path: /a, capacity: 1GiB, provisioningPolicy: Thick, extras: {advanced: {a: [1]}}}}\nhostNames: [a]"))
	f.Add([]byte("pool:\n  p:\n    path: /a/../b\n  q:\n    path: /c\n    overProvisioningRatio: 3.5\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := parse("f.yaml", data)
		if err != nil {
			if !model.IsKind(err, model.KindInvalid) {
				t.Fatalf("kind %s: %v", model.KindOf(err), err)
			}
			return
		}
		for n, p := range c.Pool {
			if n == "" || !strings.HasPrefix(p.Path, "/") || strings.Contains(p.Path+"/", "/../") || p.OverProvisioningRatio < 1 ||
				p.Capacity < 0 || (p.ProvisioningPolicy != "Thin" && p.ProvisioningPolicy != "Thick") {
				t.Fatalf("pool %q: %+v", n, p)
			}
		}
	})
}

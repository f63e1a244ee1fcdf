package ceph

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/osds-io/osds/pkg/model"
)

func TestConfig(t *testing.T) {
	c, err := parse("c.yaml", []byte(`
configFile: /etc/ceph/../ceph/a.conf
user: client.osds
keyring: /etc/ceph/ceph.client.osds.keyring
hostUser: hosts
trashDelay: 30m
encryption: {passphraseFile: /etc/osds/ceph.pass}
pool:
  rbd:
    storageType: block
    availabilityZone: default
    multiAttach: true
    extras:
      dataStorage: {provisioningPolicy: thin}
      ioConnectivity: {accessProtocol: RBD, maxIOPS: 1000, maxBWS: 1000}
      advanced: {diskType: SSD, latency: 5ms}
  fast:
    dataPool: fast-ec
    imageFeatures: [layering, exclusive-lock]
    overProvisioningRatio: 20
`))
	if err != nil {
		t.Fatal(err)
	}
	if c.ConfigFile != "/etc/ceph/a.conf" || c.User != "osds" || c.HostUser != "hosts" || c.TrashDelay != 30*time.Minute ||
		c.ClusterName != "ceph" || c.MaxCloneDepth != 5 {
		t.Errorf("%+v", c)
	}
	rbd, fast := c.Pool["rbd"], c.Pool["fast"]
	if !rbd.MultiAttach || rbd.OverProvisioningRatio != 1 || rbd.Extras.DataStorage.ProvisioningPolicy != "Thin" ||
		rbd.Extras.Advanced["diskType"] != "SSD" || rbd.Extras.Advanced["encryption"] != "luks2" || len(rbd.ImageFeatures) != 5 {
		t.Errorf("%+v", rbd)
	}
	if fast.DataPool != "fast-ec" || fast.OverProvisioningRatio != 20 || len(fast.ImageFeatures) != 2 ||
		fast.Extras.IOConnectivity.AccessProtocol != "rbd" || fast.AvailabilityZone != "default" {
		t.Errorf("%+v", fast)
	}
	for _, x := range []struct{ yaml, field, text string }{
		{"", "pool", "at least one"},
		{"pool: {p: {}}\nconfigfile: /a", "configfile", `"configFile"`},
		{"pool: {p: {}}\nconfigFile: a.conf", "configFile", "absolute"},
		{"pool: {p: {}}\nkeyring: a", "keyring", "absolute"},
		{"pool: {p: {}}\nuser: 'a b'", "user", "letters"},
		{"pool: {p: {}}\nuser: ''", "user", "letters"},
		{"pool: {p: {}}\nclusterName: ../x", "clusterName", "letters"},
		{"pool: {p: {}}\nopTimeout: 0s", "opTimeout", "from 1s"},
		{"pool: {p: {}}\nopTimeout: 1500ms", "opTimeout", "whole seconds"},
		{"pool: {p: {}}\ntrashDelay: -1s", "trashDelay", "from 0s"},
		{"pool: {p: {}}\nmaxCloneDepth: 16", "maxCloneDepth", "from 0 to 15"},
		{"pool: {p: {}}\nencryption: {passphraseFile: x}", "encryption.passphraseFile", "absolute"},
		{"pool: {a/b: {}}", "pool", "'/'"},
		{"pool: {'a@b': {}}", "pool", "'@'"},
		{"pool: {.mgr: {}}", "pool", "begin with"},
		{"pool: {'': {}}", "pool", "empty"},
		{"pool: {p: {dataPool: a/b}}", "pool.p.dataPool", "'/'"},
		{"pool: {p: {storageType: file}}", "pool.p.storageType", "must be block"},
		{"pool: {p: {imageFeatures: [layering, journaling]}}", "pool.p.imageFeatures", "journaling"},
		{"pool: {p: {imageFeatures: [layering, layering]}}", "pool.p.imageFeatures", "twice"},
		{"pool: {p: {imageFeatures: [exclusive-lock]}}", "pool.p.imageFeatures", "layering"},
		{"pool: {p: {imageFeatures: [layering, object-map]}}", "pool.p.imageFeatures", "exclusive-lock"},
		{"pool: {p: {imageFeatures: [layering, exclusive-lock, fast-diff]}}", "pool.p.imageFeatures", "object-map"},
		{"pool: {p: {overProvisioningRatio: 0.5}}", "pool.p.overProvisioningRatio", "from 1"},
		{"pool: {p: {extras: {dataStorage: {provisioningPolicy: Thick}}}}", "pool.p.extras.dataStorage.provisioningPolicy", "Thin"},
		{"pool: {p: {extras: {ioConnectivity: {accessProtocol: iscsi}}}}", "pool.p.extras.ioConnectivity.accessProtocol", "must be rbd"},
	} {
		_, err := parse("c.yaml", []byte(x.yaml))
		if !model.IsKind(err, model.KindInvalid) || !strings.Contains(err.Error(), x.text) ||
			!strings.Contains(err.Error(), x.field) && fieldOf(err) != x.field {
			t.Errorf("%q: %v (field %q), want %q about %q", x.yaml, err, fieldOf(err), x.text, x.field)
		}
	}
}

func fieldOf(err error) string {
	var e *model.Error
	if errors.As(err, &e) {
		return e.Field
	}
	return ""
}

func TestCheckConfig(t *testing.T) {
	if err := CheckConfig(""); !model.IsKind(err, model.KindInvalid) {
		t.Errorf("without a file: %v", err)
	}
	file := filepath.Join(t.TempDir(), "ceph.yaml")
	if err := os.WriteFile(file, []byte("pool: {rbd: {}}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	// The file is right; whether this build can use it is another question.
	if err := CheckConfig(file); (err == nil) != (builtIn() == nil) {
		t.Errorf("got %v, built in: %v", err, builtIn())
	} else if err != nil && (!model.IsKind(err, model.KindUnsupported) || !strings.Contains(err.Error(), "librbd-dev")) {
		t.Errorf("got %v", err)
	}
	if err := CheckConfig("../../../deploy/driver/ceph.yaml"); err != nil && !model.IsKind(err, model.KindUnsupported) {
		t.Errorf("the example: %v", err)
	}
}

func FuzzConfig(f *testing.F) {
	f.Add([]byte("configFile: /a\npool: {p: {extras: {advanced: {x: 1}}}}"))
	f.Add([]byte("pool: {p: {imageFeatures: [layering]}}\nopTimeout: 5s"))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := parse("fuzz", data)
		if err != nil {
			if !model.IsKind(err, model.KindInvalid) {
				t.Errorf("kind %s: %v", model.KindOf(err), err)
			}
			return
		}
		for n, p := range c.Pool {
			if strings.ContainsAny(n, "/@") || p.OverProvisioningRatio < 1 || p.Extras.IOConnectivity.AccessProtocol == "" {
				t.Errorf("accepted pool %q: %+v", n, p)
			}
		}
	})
}

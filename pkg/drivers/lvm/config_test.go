package lvm

import (
	"strings"
	"testing"

	"github.com/osds-io/osds/internal/conf"
	"github.com/osds-io/osds/pkg/drivers"
	"github.com/osds-io/osds/pkg/model"
)

func parse(name string, data []byte) (config, error) {
	var c config
	err := conf.Parse(&c, name, data)
	return c, err
}

func TestConfig(t *testing.T) {
	c, err := parse("l.yaml", []byte(`
tgtBindIp: 192.0.2.5
tgtConfDir: /etc/tgt/conf.d
enableChapAuth: true
devices: [/dev/disk/by-id/wwn-0x5000c500a1b2c3d4]
pool:
  opensds-volumes:
    storageType: block
    availabilityZone: az1
    multiAttach: true
    snapshotSize: 20%
    snapshotWarn: 60
    discard: true
    capacity: 100GiB
    extras:
      dataStorage: {provisioningPolicy: Thick, compression: false}
      ioConnectivity: {accessProtocol: NVMeoF, maxIOPS: 1000}
      advanced: {diskType: SSD}
  opensds-volumes/thin:
    overProvisioningRatio: 10
    dataWarn: 60
    dataStop: 70
  other:
    snapshotSize: 2GiB
`))
	if err != nil {
		t.Fatal(err)
	}
	thick, thin, other := c.Pool["opensds-volumes"], c.Pool["opensds-volumes/thin"], c.Pool["other"]
	if thick.vg != "opensds-volumes" || thick.isThin() || thick.snapshot.percent != 20 || thick.SnapshotWarn != 60 || thick.Zeroing != zeroBefore ||
		thick.Extras.IOConnectivity.AccessProtocol != "nvmeof" || thick.OverProvisioningRatio != 1 || thick.Capacity != 100*model.GiB {
		t.Errorf("%+v", thick)
	}
	if thin.vg != "opensds-volumes" || thin.thin != "thin" || thin.OverProvisioningRatio != 10 || thin.DataWarn != 60 || thin.DataStop != 70 ||
		thin.MetadataWarn != 70 || thin.MetadataStop != 90 || thin.Extras.DataStorage.ProvisioningPolicy != drivers.ThinPolicy ||
		thin.Extras.IOConnectivity.AccessProtocol != "iscsi" {
		t.Errorf("%+v", thin)
	}
	if other.snapshot != (snapshotSize{bytes: 2 * model.GiB}) || other.SnapshotWarn != 80 {
		t.Errorf("%+v", other)
	}
	if !c.EnableChapAuth || c.TgtBindIP != "192.0.2.5" {
		t.Errorf("%+v", c.Options)
	}
}

func TestConfigRefused(t *testing.T) {
	for _, x := range []struct{ yaml, field, text string }{
		{"", "pool", "at least one"},
		{"pool: {vg: {capcity: 1GiB}}", "pool.vg.capcity", `"pool.vg.capacity"`},
		{"pool: {'a b': {}}", "pool.a b", "GROUP/POOL"},
		{"pool: {'-rf': {}}", "pool.-rf", "GROUP/POOL"},
		{"pool: {vg/: {}}", "pool.vg/", "GROUP/POOL"},
		{"pool: {a/b/c: {}}", "pool.a/b/c", "GROUP/POOL"},
		{"pool: {..: {}}", "pool...", "GROUP/POOL"},
		{"pool: {vg: {zeroing: none}}", "pool.vg.zeroing", "before"},
		{"pool: {vg/t: {zeroing: before}}", "pool.vg/t.zeroing", "clears its blocks itself"},
		{"pool: {vg/t: {snapshotSize: 10%}}", "pool.vg/t.snapshotSize", "leave it out"},
		{"pool: {vg/t: {discard: true}}", "pool.vg/t.discard", "leave it out"},
		{"pool: {vg/t: {snapshotWarn: 50}}", "pool.vg/t.snapshotWarn", "leave it out"},
		{"pool: {vg: {dataWarn: 50}}", "pool.vg.dataWarn", "leave it out"},
		{"pool: {vg/t: {dataWarn: 96}}", "pool.vg/t.dataWarn", "above dataStop"},
		{"pool: {vg/t: {metadataWarn: 95}}", "pool.vg/t.metadataWarn", "above metadataStop"},
		{"pool: {vg/t: {dataStop: 100}}", "pool.vg/t.dataStop", "1 to 99"},
		{"pool: {vg/t: {dataStop: -1}}", "pool.vg/t.dataStop", "1 to 99"},
		{"pool: {vg: {snapshotSize: 0%}}", "pool.vg.snapshotSize", "1% to 100%"},
		{"pool: {vg: {snapshotSize: 101%}}", "pool.vg.snapshotSize", "1% to 100%"},
		{"pool: {vg: {snapshotSize: lots}}", "pool.vg.snapshotSize", "percentage"},
		{"pool: {vg: {snapshotSize: 0}}", "pool.vg.snapshotSize", "greater than 0"},
		{"pool: {vg: {overProvisioningRatio: 2}}", "pool.vg.overProvisioningRatio", "leave it out"},
		{"pool: {vg/t: {overProvisioningRatio: 0.5}}", "pool.vg/t.overProvisioningRatio", "from 1"},
		{"pool: {vg: {extras: {dataStorage: {provisioningPolicy: Thin}}}}", "pool.vg.extras.dataStorage.provisioningPolicy", "thick pool"},
		{"pool: {vg: {extras: {ioConnectivity: {accessProtocol: rbd}}}}", "pool.vg.extras.ioConnectivity.accessProtocol", "iscsi or nvmeof"},
		{"pool: {vg: {storageType: file}}", "pool.vg.storageType", "must be block"},
		{"devices: [vdb]\npool: {vg: {}}", "devices[0]", "below /dev"},
		{"devices: ['/dev/x|y']\npool: {vg: {}}", "devices[0]", "below /dev"},
		{"devices: [/dev/../etc/x]\npool: {vg: {}}", "devices[0]", "below /dev"},
		{"tgtBindIp: everywhere\npool: {vg: {}}", "tgtBindIp", "address"},
	} {
		_, err := parse("l.yaml", []byte(x.yaml))
		e := model.AsError(err)
		if e == nil || e.Kind != model.KindInvalid || e.Field != x.field || !strings.Contains(e.Message, x.text) {
			t.Errorf("%q: %+v", x.yaml, e)
		}
	}
	if err := CheckConfig(""); model.KindOf(err) != model.KindInvalid {
		t.Errorf("without a file: %v", err)
	}
}

func FuzzConfig(f *testing.F) {
	f.Add("pool: {vg: {snapshotSize: 10%, extras: {advanced: {a: [1]}}}}")
	f.Add("pool: {vg/thin: {dataWarn: 1, overProvisioningRatio: 2}}")
	f.Add("devices: [/dev/vdb]\npool: {a: {capacity: 1G}}")
	f.Fuzz(func(t *testing.T, s string) {
		c, err := parse("f.yaml", []byte(s))
		if err != nil {
			if model.KindOf(err) != model.KindInvalid {
				t.Errorf("%v", err)
			}
			return
		}
		for name, p := range c.Pool {
			if !validName(p.vg) || (p.isThin() && !validName(p.thin)) || p.OverProvisioningRatio < 1 || p.DataWarn > p.DataStop {
				t.Errorf("%q gives %+v", name, p)
			}
		}
	})
}

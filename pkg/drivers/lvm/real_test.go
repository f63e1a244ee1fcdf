//go:build real

package lvm

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/osds-io/osds/internal/run"
	"github.com/osds-io/osds/pkg/drivers"
	"github.com/osds-io/osds/pkg/drivers/drivertest"
	"github.com/osds-io/osds/pkg/model"
)

// These tests need the device mapper, root, and a blank disk of at least 1 GiB,
// /dev/vdb or what OSDS_TEST_DISK names.

func TestMain(m *testing.M) {
	drivertest.Child(openAt)
	os.Exit(m.Run())
}

func openAt(ctx context.Context, dir string) (drivers.Driver, error) {
	return Factory(ctx, drivers.Config{Backend: "lvm", Path: filepath.Join(dir, "lvm.yaml"), StateDir: filepath.Join(dir, "state"), ClusterID: "cluster"})
}

// sh runs a command that must succeed.
func sh(t testing.TB, argv ...string) string {
	t.Helper()
	r, err := run.Exec{}.Run(context.WithoutCancel(t.Context()), run.Cmd{Name: argv[0], Args: argv[1:]})
	if err != nil {
		t.Fatalf("%v\n%s", err, r.Stdout)
	}
	return string(r.Stdout)
}

// testGroup is the volume group of the tests.
const testGroup = "osds-test"

// setUp makes a volume group and a configuration of one pool.
func setUp(t testing.TB, pool, keys string) (dir string) {
	t.Helper()
	disk := os.Getenv("OSDS_TEST_DISK")
	if disk == "" {
		disk = "/dev/vdb"
	}
	if _, err := os.Stat("/dev/mapper/control"); err != nil || os.Geteuid() != 0 {
		t.Skip("root and the device mapper are needed: ", err)
	}
	if _, err := os.Stat(disk); err != nil {
		t.Skip("a blank disk is needed: ", err)
	}
	if _, err := exec.LookPath("lvm"); err != nil {
		t.Skip("the package lvm2 is needed: ", err)
	}
	dirty(t, disk)
	sh(t, "lvm", "vgcreate", "--yes", testGroup, disk)
	t.Cleanup(func() {
		sh(t, "lvm", "vgremove", "--yes", "--force", testGroup)
		sh(t, "lvm", "pvremove", "--yes", disk)
	})
	if _, thin, ok := strings.Cut(pool, "/"); ok {
		sh(t, "lvm", "lvcreate", "--yes", "--type", "thin-pool", "--size", "512M", "--poolmetadatasize", "8M", "--name", thin, testGroup)
	}
	dir = t.TempDir()
	yaml := fmt.Sprintf("tgtBindIp: 127.0.0.1\npool:\n  %s:\n    %s\n", pool, strings.ReplaceAll(keys, "\n", "\n    "))
	if err := os.WriteFile(filepath.Join(dir, "lvm.yaml"), []byte(yaml), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

// dirty fills the beginning of a disk with what must never show.
func dirty(t testing.TB, disk string) {
	t.Helper()
	f, err := os.OpenFile(disk, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b := bytes.Repeat([]byte("somebody's data "), 1<<16)
	for off := int64(0); off < 512<<20; off += int64(len(b)) {
		if _, err := f.WriteAt(b, off); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
}

func open(t testing.TB, dir string) *Driver {
	t.Helper()
	d, err := openAt(context.WithoutCancel(t.Context()), dir)
	if err != nil {
		t.Fatal(err)
	}
	return d.(*Driver)
}

func harness(dir, pool string) drivertest.Harness {
	return drivertest.Harness{
		New:  func(t testing.TB) drivers.Driver { return open(t, dir) },
		Pool: pool, Size: 8 * model.MiB, Fill: true, Protocol: "iscsi",
		Host: model.Host{Meta: model.Meta{ID: model.NewID()}, HostName: "consumer",
			Initiators: []model.Initiator{{PortName: "iqn.2000-01.lab.vm:consumer", Protocol: "iscsi"}}},
		OpenData: func(ctx context.Context, r drivers.VolumeRef) (drivertest.Data, error) {
			name := testGroup + "/" + volumeName(r.ID)
			if _, err := os.Stat("/dev/" + name); err != nil {
				if _, err := (run.Exec{}).Run(ctx, run.Cmd{Name: "lvm", Args: []string{"lvchange", "--activate", "y", name}}); err != nil {
					return nil, err
				}
			}
			return os.OpenFile("/dev/"+name, os.O_RDWR|os.O_SYNC, 0)
		},
		Leftovers: leftovers, Timeout: 5 * time.Minute,
		Skip: map[string]string{"hold": "there is no initiator here: test/ has the data path end to end"},
	}
}

// leftovers looks for an id among the logical volumes and devices.
func leftovers(id string) (left []string, err error) {
	out, err := exec.Command("lvm", "lvs", "--all", "--reportformat", "json", "-o", "lv_name,lv_tags", testGroup).Output()
	if err != nil {
		return nil, err
	}
	var r struct {
		Report []struct {
			LV []map[string]string `json:"lv"`
		} `json:"report"`
	}
	if err := json.Unmarshal(bytes.TrimSpace(out), &r); err != nil {
		return nil, err
	}
	for _, l := range r.Report[0].LV {
		if strings.Contains(l["lv_name"]+l["lv_tags"], id) && !strings.Contains(l["lv_tags"], tagSource+"=snapshot/"+id) &&
			!strings.Contains(l["lv_tags"], tagSource+"=volume/"+id) && !strings.Contains(l["lv_tags"], tagOf+"="+id) &&
			!strings.Contains(l["lv_tags"], tagRevert+"="+id) {
			left = append(left, l["lv_name"]+" "+l["lv_tags"])
		}
	}
	names, err := os.ReadDir("/dev/mapper")
	for _, n := range names {
		if strings.Contains(n.Name(), strings.ReplaceAll(id, "-", "--")) {
			left = append(left, n.Name())
		}
	}
	return left, err
}

// The pools of the suite. The thick one is bounded, so that filling it is quick.
var suites = []struct{ name, pool, keys string }{
	{"Thick", testGroup, "capacity: 512MiB\nmultiAttach: true"},
	{"Thin", testGroup + "/tp", "multiAttach: true"},
}

func TestConformance(t *testing.T) {
	for _, s := range suites {
		t.Run(s.name, func(t *testing.T) { drivertest.Run(t, harness(setUp(t, s.pool, s.keys), s.pool)) })
	}
}

func TestCrash(t *testing.T) {
	for _, s := range suites {
		t.Run(s.name, func(t *testing.T) {
			dir := setUp(t, s.pool, s.keys)
			drivertest.Crash(t, harness(dir, s.pool), dir)
		})
	}
}

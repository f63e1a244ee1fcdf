//go:build ceph

package ceph

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ceph/go-ceph/rados"
	"github.com/ceph/go-ceph/rbd"

	"github.com/osds-io/osds/pkg/drivers"
	"github.com/osds-io/osds/pkg/drivers/drivertest"
	"github.com/osds-io/osds/pkg/model"
)

// confEnv names the configuration file of a cluster whose pools p and q may be
// used. Without it these tests are skipped: a cluster is not guessed.
const confEnv = "OSDS_TEST_CEPH_CONF"

func TestMain(m *testing.M) {
	drivertest.Child(openAt)
	os.Exit(m.Run())
}

func needCluster(t testing.TB) string {
	t.Helper()
	c := os.Getenv(confEnv)
	if c == "" {
		t.Skipf("there is no cluster: set %s to the configuration file of one that may be written to", confEnv)
	}
	return c
}

// openAt opens the backend that setUp has made in a directory.
func openAt(ctx context.Context, dir string) (drivers.Driver, error) {
	return Factory(ctx, drivers.Config{Backend: "ceph", Path: filepath.Join(dir, "ceph.yaml"),
		StateDir: filepath.Join(dir, "state"), ClusterID: "cluster"})
}

// setUp writes a configuration with one pool, "p", and further keys of its own
// and of the pool.
func setUp(t testing.TB, keys, poolKeys string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	yaml := fmt.Sprintf("configFile: %s\n%s\npool:\n  p:\n    description: test\n    %s\n", needCluster(t), keys,
		strings.ReplaceAll(poolKeys, "\n", "\n    "))
	if err := os.WriteFile(filepath.Join(dir, "ceph.yaml"), []byte(yaml), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

func open(t testing.TB, dir string) *Driver {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute) // also after the test's end
	defer cancel()
	d, err := openAt(ctx, dir)
	if err != nil {
		t.Fatal(err)
	}
	return d.(*Driver)
}

// outside is a client of the cluster that is not the driver.
type outside struct {
	conn *rados.Conn
	io   *rados.IOContext
}

func client(t testing.TB) *outside {
	t.Helper()
	o, err := connectOutside(needCluster(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(o.close)
	return o
}

func connectOutside(conf string) (*outside, error) {
	conn, err := rados.NewConnWithUser("admin")
	if err != nil {
		return nil, err
	}
	o := &outside{conn: conn}
	if err = conn.ReadConfigFile(conf); err == nil {
		for _, k := range []string{"rados_osd_op_timeout", "rados_mon_op_timeout", "client_mount_timeout"} {
			if err == nil {
				err = conn.SetConfigOption(k, "30")
			}
		}
	}
	if err == nil {
		err = conn.Connect()
	}
	if err == nil {
		o.io, err = conn.OpenIOContext("p")
	}
	if err != nil {
		conn.Shutdown()
		return nil, err
	}
	return o, nil
}

func (o *outside) close() {
	o.io.Destroy()
	o.conn.Shutdown()
}

// data is an image that is open outside the driver.
type data struct {
	*rbd.Image
	done func()
}

func (d data) Close() error {
	err := d.Flush()
	if cerr := d.Image.Close(); err == nil {
		err = cerr
	}
	if d.done != nil {
		d.done()
	}
	return err
}

func (o *outside) open(id string) (data, error) {
	img, err := rbd.OpenImage(o.io, imageName(id), rbd.NoSnapshot)
	return data{Image: img}, err
}

// leftovers looks for an id in the pool. What is in the trash is not left over:
// it is there on purpose.
func (o *outside) leftovers(id string) (left []string, err error) {
	names, err := rbd.GetImageNames(o.io)
	if err != nil {
		return nil, err
	}
	for _, n := range names {
		if strings.Contains(n, id) {
			left = append(left, n)
		}
		img, err := rbd.OpenImageReadOnly(o.io, n, rbd.NoSnapshot)
		if absent(err) {
			continue
		}
		if err != nil {
			return nil, err
		}
		snaps, err := (&image{Image: img}).snaps()
		meta, merr := img.ListMetadata()
		_ = img.Close()
		if err != nil || merr != nil {
			return nil, fmt.Errorf("%s: %v, %v", n, err, merr)
		}
		for _, s := range snaps {
			if strings.Contains(s.Name, id) && s.kind != rbd.SnapNamespaceTypeTrash {
				left = append(left, n+"@"+s.Name)
			}
		}
		for k := range meta {
			if strings.Contains(k, id) {
				left = append(left, n+" "+k)
			}
		}
	}
	err = store{o.io, &writer{}}.all(context.Background(), "", func(i item) bool {
		if strings.Contains(i.id, id) {
			left = append(left, "directory "+i.id)
		}
		return true
	})
	return left, err
}

const testSize = 8 * model.MiB

func harness(t *testing.T, dir string) drivertest.Harness {
	o := client(t)
	return drivertest.Harness{
		New:  func(t testing.TB) drivers.Driver { return open(t, dir) },
		Pool: "p", Size: testSize, Protocol: protocol,
		Host: model.Host{HostName: "host1", IP: "127.0.0.1"},
		OpenData: func(_ context.Context, r drivers.VolumeRef) (drivertest.Data, error) {
			return o.open(r.ID)
		},
		Leftovers: o.leftovers,
		Hold: func(t testing.TB, c model.Connection) func() {
			other := client(t)
			d, err := other.open(c.Data["volume_id"].(string))
			if err != nil {
				t.Fatal(err)
			}
			return func() {
				if err := d.Close(); err != nil {
					t.Error(err)
				}
			}
		},
	}
}

func TestConformance(t *testing.T) {
	dir := setUp(t, "trashDelay: 0s", "multiAttach: true\noverProvisioningRatio: 2")
	drivertest.Run(t, harness(t, dir))
}

func TestCrash(t *testing.T) {
	dir := setUp(t, "trashDelay: 0s", "multiAttach: true")
	drivertest.Crash(t, harness(t, dir), dir)
}

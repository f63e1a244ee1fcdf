//go:build real

package e2e

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/osds-io/osds/pkg/client"
	"github.com/osds-io/osds/pkg/model"
	"github.com/osds-io/osds/pkg/model/wire"
	"github.com/osds-io/osds/test/harness"
)

// TestImport: a file that somebody has put into a pool's directory becomes a
// volume with its data, through osdsctl alone; it is accounted, belongs to the
// tenant that was named, can be given back, and goes with its data when deleted.
func TestImport(t *testing.T) {
	t.Parallel()
	c := suite.NewCluster(t)
	c.AddLet(harness.Quick())
	b := c.Local("l", 3)
	b.Config = strings.Replace(b.Config, "overProvisioningRatio: 4", "overProvisioningRatio: 1", 1)
	c.AddDock(nil, b)
	c.Start()
	a := c.Admin()
	pool := a.WaitPools(1)[0]
	a.Setup()
	ctl := c.Ctl()
	dir := filepath.Join(c.Dir, "l", "import")
	put := func(name string, size int64) []byte {
		t.Helper()
		data := bytes.Repeat([]byte(name+" is somebody's data\n"), 1000)
		f, err := os.Create(filepath.Join(dir, name))
		c.Must(err)
		_, err = f.Write(data)
		c.Must(err)
		c.Must(f.Truncate(size))
		c.Must(f.Close())
		return data
	}
	want := put("old.img", 1<<30+4096)
	put("odd", 1000)
	put("huge", 4<<30)

	out := ctl.OK("pool", "importable", pool.Name)
	for _, s := range []string{"old.img", "odd", "not a multiple of 4096", "huge"} {
		if !strings.Contains(out, s) {
			t.Errorf("osdsctl does not show %q:\n%s", s, out)
		}
	}
	const tenant = "a-tenant"
	var v wire.VolumeSpec
	ctl.JSON(&v, "volume", "import", pool.Name, "old.img", "--for-tenant", tenant, "--wait")
	if v.Status != model.StatusAvailable || v.Size != 2 || v.TenantID != tenant || v.Existing != "old.img" || v.Name != "old-img" {
		t.Errorf("%+v", v)
	}
	file := filepath.Join(c.Dir, "l", "volumes", v.ID+".img")
	if got, err := os.ReadFile(file); err != nil || !bytes.HasPrefix(got, want) {
		t.Errorf("the data is another: %v", err)
	}
	l, err := a.Ledger(a.Ctx())
	if err != nil || len(l) != 1 || l[0].Reserved != 1<<30+4096 {
		t.Errorf("%+v, %v", l, err)
	}
	a.Doctor()

	// What does not fit, or cannot be had, is refused and stays as it was.
	for name, why := range map[string]string{"huge": "nothing was imported", "odd": "multiple", "none": "no volume"} {
		x, err := a.Volumes.Create(a.Ctx(), &wire.VolumeSpec{Name: "x", PoolID: pool.ID, Existing: name})
		c.Must(err)
		c.Until(time.Minute, name+" is refused", func() error {
			if y := a.GetVolume(x.ID); y.Status != model.StatusError || !strings.Contains(y.StatusReason, why) {
				return fmt.Errorf("%s: %s", y.Status, y.StatusReason)
			}
			return nil
		})
		a.DeleteVolume(x.ID)
	}
	if _, err := os.Stat(filepath.Join(dir, "huge")); err != nil {
		t.Error(err)
	}

	// Only its tenant's users and administrators see it; only these give it back.
	user := c.Client(client.Config{TenantID: tenant})
	if err := user.Volumes.Delete(user.Ctx(), v.ID, client.Release()); !model.IsKind(err, model.KindDenied) {
		t.Errorf("a tenant gives a volume back: %v", err)
	}
	ctl.OK("volume", "delete", v.ID, "--release", "--wait")
	if got, err := os.ReadFile(filepath.Join(dir, "old.img")); err != nil || !bytes.HasPrefix(got, want) {
		t.Errorf("given back: %v", err)
	}
	ctl.JSON(&v, "volume", "import", pool.ID, "old.img", "-n", "again", "--wait")
	a.DeleteVolume(v.ID)
	if names, _ := filepath.Glob(filepath.Join(c.Dir, "l", "*", "*old.img")); len(names) > 0 {
		t.Errorf("deleted, and there is %v", names)
	}
	a.Quiet(time.Minute)
	a.Doctor()
}

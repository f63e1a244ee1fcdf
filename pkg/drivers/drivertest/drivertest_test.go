package drivertest_test

import (
	"context"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/osds-io/osds/pkg/drivers"
	"github.com/osds-io/osds/pkg/drivers/drivertest"
	"github.com/osds-io/osds/pkg/drivers/sample"
	"github.com/osds-io/osds/pkg/model"
)

// broken are drivers that break the contract in one way each, with a part of the
// suite that must notice. They are made of the sample driver.
func broken() []struct {
	name, part string
	breaks     func(*sample.Driver) drivers.Driver
} {
	return []struct {
		name, part string
		breaks     func(*sample.Driver) drivers.Driver
	}{
		{"delete-absent", "delete", func(d *sample.Driver) drivers.Driver { return deleteAbsent{d} }},
		{"delete-lies", "delete", func(d *sample.Driver) drivers.Driver { return deleteLies{d} }},
		{"get-absent", "get", func(d *sample.Driver) drivers.Driver { return getAbsent{d} }},
		{"create-again", "same-id", func(d *sample.Driver) drivers.Driver { return &createAgain{Driver: d, seen: map[string]bool{}} }},
		{"list-unbounded", "list", func(d *sample.Driver) drivers.Driver { return listUnbounded{d} }},
		{"untagged", "list", func(d *sample.Driver) drivers.Driver { return untagged{d} }},
		{"no-refusal", "exhausted", func(d *sample.Driver) drivers.Driver { return noRefusal{d} }},
		{"shrinks", "expand", func(d *sample.Driver) drivers.Driver { return shrinks{d} }},
		{"shares", "export", func(d *sample.Driver) drivers.Driver { return shares{d} }},
		{"own-errors", "bad-ids", func(d *sample.Driver) drivers.Driver { return ownErrors{d} }},
		{"ignores-context", "cancelled", func(d *sample.Driver) drivers.Driver { return ignoresContext{d} }},
		{"forgets", "restart", func(d *sample.Driver) drivers.Driver { return forgets{d} }},
		{"unknown-pool", "unknown-pool", func(d *sample.Driver) drivers.Driver { return unknownPool{d} }},
	}
}

const brokenEnv = "OSDS_DRIVERTEST_BROKEN"

// TestSuiteNotices runs the suite, in a process of its own each, with a driver
// that is broken, and wants it to fail at the right place.
func TestSuiteNotices(t *testing.T) {
	for _, b := range broken() {
		t.Run(b.name, func(t *testing.T) {
			cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestBroken$/^"+b.part+"$", "-test.v")
			cmd.Env = append(os.Environ(), brokenEnv+"="+b.name)
			out, err := cmd.CombinedOutput()
			if err == nil || !strings.Contains(string(out), "--- FAIL: TestBroken/"+b.part+" ") {
				t.Errorf("%s went unnoticed: %v\n%s", b.part, err, out)
			}
		})
	}
	t.Run("sound", func(t *testing.T) {
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestBroken$", "-test.v")
		cmd.Env = append(os.Environ(), brokenEnv+"=sound")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
	})
}

func TestBroken(t *testing.T) {
	which := os.Getenv(brokenEnv)
	if which == "" {
		t.Skip("run by TestSuiteNotices")
	}
	all := broken()
	i := slices.IndexFunc(all, func(b struct {
		name, part string
		breaks     func(*sample.Driver) drivers.Driver
	}) bool {
		return b.name == which
	})
	dir := t.TempDir()
	drivertest.Run(t, drivertest.Harness{
		Pool: "sample-pool-01",
		New: func(t testing.TB) drivers.Driver {
			d, err := sample.Open(t.Context(), drivers.Config{StateDir: dir})
			if err != nil {
				t.Fatal(err)
			}
			if i < 0 {
				return d
			}
			return all[i].breaks(d)
		},
		Skip: map[string]string{"data": "there is none", "hold": "there are no devices"},
	})
}

type deleteAbsent struct{ *sample.Driver }

func (d deleteAbsent) DeleteVolume(ctx context.Context, r drivers.VolumeRef) error {
	if _, err := d.Driver.GetVolume(ctx, r); err != nil {
		return err
	}
	return d.Driver.DeleteVolume(ctx, r)
}

type deleteLies struct{ *sample.Driver }

func (deleteLies) DeleteVolume(context.Context, drivers.VolumeRef) error { return nil }

type getAbsent struct{ *sample.Driver }

func (d getAbsent) GetVolume(ctx context.Context, r drivers.VolumeRef) (drivers.Volume, error) {
	v, err := d.Driver.GetVolume(ctx, r)
	if model.IsKind(err, model.KindNotFound) {
		return drivers.Volume{}, model.Errorf(model.KindInternal, "the command failed")
	}
	return v, err
}

type createAgain struct {
	*sample.Driver
	mu   sync.Mutex
	seen map[string]bool
}

func (d *createAgain) CreateVolume(ctx context.Context, r drivers.CreateVolume) (drivers.Volume, error) {
	d.mu.Lock()
	again := d.seen[r.ID]
	d.seen[r.ID] = true
	d.mu.Unlock()
	if again {
		return drivers.Volume{}, model.Errorf(model.KindExists, "volume %s exists", r.ID)
	}
	return d.Driver.CreateVolume(ctx, r)
}

type listUnbounded struct{ *sample.Driver }

func (d listUnbounded) ListVolumes(ctx context.Context, _ drivers.Page) ([]drivers.Volume, error) {
	return d.Driver.ListVolumes(ctx, drivers.Page{})
}

type untagged struct{ *sample.Driver }

func (d untagged) ListVolumes(ctx context.Context, p drivers.Page) ([]drivers.Volume, error) {
	vs, err := d.Driver.ListVolumes(ctx, p)
	for i := range vs {
		vs[i].ClusterID = ""
	}
	return vs, err
}

type noRefusal struct{ *sample.Driver }

func (d noRefusal) CreateVolume(ctx context.Context, r drivers.CreateVolume) (drivers.Volume, error) {
	v, err := d.Driver.CreateVolume(ctx, r)
	if model.IsKind(err, model.KindExhausted) {
		r.Size = 1
		return d.Driver.CreateVolume(ctx, r)
	}
	return v, err
}

type shrinks struct{ *sample.Driver }

func (d shrinks) ExpandVolume(ctx context.Context, r drivers.VolumeRef, size model.Bytes) (drivers.Volume, error) {
	v, err := d.Driver.ExpandVolume(ctx, r, size)
	v.Size = size
	return v, err
}

type shares struct{ *sample.Driver }

func (d shares) Export(ctx context.Context, r drivers.Export) (model.Connection, error) {
	r.MultiAttach = true // and the default pools allow it
	return d.Driver.Export(ctx, r)
}

type ownErrors struct{ *sample.Driver }

func (d ownErrors) DeleteVolume(ctx context.Context, r drivers.VolumeRef) error {
	if r.Check() != nil {
		return os.ErrInvalid
	}
	return d.Driver.DeleteVolume(ctx, r)
}

type ignoresContext struct{ *sample.Driver }

func (d ignoresContext) CreateVolume(ctx context.Context, r drivers.CreateVolume) (drivers.Volume, error) {
	_, err := d.Driver.CreateVolume(context.WithoutCancel(ctx), r)
	if err == nil && ctx.Err() != nil {
		err = model.Errorf(model.KindInternal, "it failed") // but it did not
	}
	return drivers.Volume{ID: r.ID, Pool: r.Pool, Size: r.Size, TenantID: r.TenantID, ClusterID: r.ClusterID}, err
}

type forgets struct{ *sample.Driver }

func (d forgets) Close() error {
	ctx := context.Background()
	if vs, err := d.Driver.ListVolumes(ctx, drivers.Page{}); err == nil {
		for _, v := range vs {
			_ = d.Driver.DeleteVolume(ctx, drivers.VolumeRef{ID: v.ID})
		}
	}
	return d.Driver.Close()
}

type unknownPool struct{ *sample.Driver }

func (d unknownPool) DeleteVolume(ctx context.Context, r drivers.VolumeRef) error {
	err := d.Driver.DeleteVolume(ctx, r)
	if model.IsKind(err, model.KindUnavailable) {
		return nil
	}
	return err
}

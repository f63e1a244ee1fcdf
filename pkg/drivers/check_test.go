package drivers

import (
	"context"
	"errors"
	"math"
	"strings"
	"testing"

	"github.com/osds-io/osds/pkg/model"
)

func TestCheck(t *testing.T) {
	good := CreateVolume{ID: "0198f3f2-0000-7000-8000-000000000001", Name: "../any label: é", Pool: "p", Size: 1, TenantID: "t", ClusterID: "c"}
	if err := good.Check(); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*CreateVolume){
		"volumeId": func(r *CreateVolume) { r.ID = "../x" }, "volumeId ": func(r *CreateVolume) { r.ID = "" },
		"volumeId  ": func(r *CreateVolume) { r.ID = strings.Repeat("a", 129) },
		"name":       func(r *CreateVolume) { r.Name = "a\x00b" }, "name ": func(r *CreateVolume) { r.Name = strings.Repeat("a", 256) },
		"pool": func(r *CreateVolume) { r.Pool = "a\nb" },
		"size": func(r *CreateVolume) { r.Size = 0 }, "size ": func(r *CreateVolume) { r.Size = -1 }, "size  ": func(r *CreateVolume) { r.Size = math.MaxInt64 },
		"tenantId": func(r *CreateVolume) { r.TenantID = "a/b" }, "clusterId": func(r *CreateVolume) { r.ClusterID = "\x01" },
		"source":  func(r *CreateVolume) { r.Source = &Source{} },
		"source ": func(r *CreateVolume) { r.Source = &Source{Volume: &VolumeRef{ID: r.ID}} },
		"source  ": func(r *CreateVolume) {
			r.Source = &Source{Volume: &VolumeRef{ID: "a"}, Snapshot: &SnapshotRef{ID: "b"}}
		},
		"snapshotId": func(r *CreateVolume) { r.Source = &Source{Snapshot: &SnapshotRef{ID: "/"}} },
		"size   ":    func(r *CreateVolume) { r.Source = &Source{Volume: &VolumeRef{ID: "a"}, Size: 2} },
	} {
		r := good
		change(&r)
		if e := model.AsError(r.Check()); e == nil || e.Kind != model.KindInvalid || e.Field != strings.TrimSpace(name) {
			t.Errorf("%q: %+v", name, e)
		}
	}
	for _, err := range []error{
		CreateSnapshot{ID: "a", Volume: VolumeRef{ID: ".."}}.Check(), Export{AttachmentID: "a"}.Check(),
		ExportRef{}.Check(), SnapshotRef{ID: "a", VolumeID: "b/"}.Check(),
	} {
		if !model.IsKind(err, model.KindInvalid) {
			t.Errorf("accepted: %v", err)
		}
	}
}

func TestNAA(t *testing.T) {
	if n, f := NAA("084BF71E-a102-11e7-88a8-e31fe6d52248"); n != "684bf71ea10211e788a8e31fe6d52248" || f != "NAA" {
		t.Error(n, f)
	}
	a, _ := NAA("x")
	b, _ := NAA("y")
	if len(a) != 32 || a[0] != '6' || a == b {
		t.Error(a, b)
	}
}

func TestBegin(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	if err := Begin(ctx); err != nil {
		t.Error(err)
	}
	cancel()
	if err := Begin(ctx); !model.IsKind(err, model.KindUnknownOutcome) || !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

package wire

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/osds-io/osds/pkg/model"
)

// BenchmarkVolume is the hot path of lists and gets.
func BenchmarkVolume(b *testing.B) {
	now := time.Now()
	v := &model.Volume{
		Meta: model.Meta{ID: model.NewID(), TenantID: model.AdminTenant, UserID: "u", Name: "vol1", Description: "some text",
			CreatedAt: now, UpdatedAt: now},
		Size: 10 * model.GiB, AvailabilityZone: "default", Status: model.StatusAvailable, ProfileID: model.NewID(), PoolID: model.NewID(),
		Metadata: map[string]string{"a": "b"}, BackendData: map[string]string{"lvPath": "/dev/vg/volume-x"},
		DurableName: "6abcdefabcdef", DurableFormat: "NAA", Task: &model.Task{ID: model.NewID()},
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := json.Marshal(FromVolume(v)); err != nil {
			b.Fatal(err)
		}
	}
}

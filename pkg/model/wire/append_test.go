package wire

import (
	"encoding/json"
	"math/rand/v2"
	"reflect"
	"testing"
	"time"

	"github.com/osds-io/osds/pkg/model"
)

// awkward are texts that JSON has to escape, and those that it has not.
var awkward = []string{"", "plain", `quote " and \`, "<b>&amp;</b>", "tab\tline\n", "\x00\x7f", "déjà vu", "\u2028\u2029", "\xff broken", "日本"}

// fill sets every field below v to something, or leaves it empty.
func fill(r *rand.Rand, v reflect.Value) {
	if !v.CanSet() || r.IntN(4) == 0 {
		return
	}
	if v.Type() == reflect.TypeFor[time.Time]() {
		v.Set(reflect.ValueOf(time.Unix(r.Int64N(4e9), r.Int64N(1e9)).In(time.FixedZone("x", r.IntN(20000)))))
		return
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString(awkward[r.IntN(len(awkward))] + awkward[r.IntN(len(awkward))])
	case reflect.Int, reflect.Int64:
		v.SetInt(r.Int64N(1 << uint(r.IntN(60)+1)))
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(r, v.Elem())
	case reflect.Struct:
		for i := range v.NumField() {
			fill(r, v.Field(i))
		}
	case reflect.Map:
		m := map[string]string{}
		for range r.IntN(12) {
			m[awkward[r.IntN(len(awkward))]+string(rune('a'+r.IntN(4)))] = awkward[r.IntN(len(awkward))]
		}
		v.Set(reflect.ValueOf(m))
	}
}

func TestAppendVolumeIsWhatTheEncoderWrites(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	vols := []*model.Volume{{}}
	for range 3000 {
		v := &model.Volume{}
		fill(r, reflect.ValueOf(v).Elem())
		vols = append(vols, v)
	}
	for _, v := range vols {
		want, err := json.Marshal(FromVolume(v))
		if err != nil {
			t.Fatal(err)
		}
		if got := AppendVolume([]byte("x"), v); string(got) != "x"+string(want) {
			t.Fatalf("got  %s\nwant x%s", got, want)
		}
	}
}

// BenchmarkAppendVolume is the hot path of lists and gets.
func BenchmarkAppendVolume(b *testing.B) {
	now := time.Now()
	v := &model.Volume{
		Meta: model.Meta{ID: model.NewID(), TenantID: model.AdminTenant, UserID: "u", Name: "vol1", Description: "some text",
			CreatedAt: now, UpdatedAt: now},
		Size: 10 * model.GiB, AvailabilityZone: "default", Status: model.StatusAvailable, ProfileID: model.NewID(), PoolID: model.NewID(),
		Metadata: map[string]string{"a": "b"}, BackendData: map[string]string{"lvPath": "/dev/vg/volume-x"},
		DurableName: "6abcdefabcdef", DurableFormat: "NAA", Task: &model.Task{ID: model.NewID()},
	}
	buf := make([]byte, 0, 4096)
	b.ReportAllocs()
	for b.Loop() {
		buf = AppendVolume(buf[:0], v)
	}
}

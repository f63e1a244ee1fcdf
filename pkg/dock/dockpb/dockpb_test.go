package dockpb

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"unicode/utf8"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/osds-io/osds/pkg/drivers"
	"github.com/osds-io/osds/pkg/model"
)

var allKinds = []model.Kind{
	model.KindInvalid, model.KindNotFound, model.KindExists, model.KindConflict, model.KindExhausted,
	model.KindUnsupported, model.KindBusy, model.KindUnauthenticated, model.KindDenied, model.KindStale,
	model.KindUnavailable, model.KindUnknownOutcome, model.KindInternal,
}

func TestErrorsCrossTheWire(t *testing.T) {
	for _, k := range allKinds {
		in := &model.Error{Kind: k, Message: "what is wrong", Field: "size"}
		st := ToStatus(fmt.Errorf("wrapped: %w", in))
		if status.Code(st) != k.GRPCCode() {
			t.Errorf("%s: code %v", k, status.Code(st))
		}
		for _, sent := range []bool{true, false} {
			out := model.AsError(FromStatus(st, sent))
			if out.Kind != k || out.Message != in.Message || out.Field != in.Field {
				t.Errorf("%s: came back as %+v", k, out)
			}
		}
	}
	if ToStatus(nil) != nil || FromStatus(nil, true) != nil {
		t.Error("nil became an error")
	}
	if k := model.KindOf(FromStatus(ToStatus(context.DeadlineExceeded), true)); k != model.KindUnknownOutcome {
		t.Errorf("a driver's context error is %s", k)
	}
	if k := model.KindOf(FromStatus(ToStatus(errors.New("plain")), true)); k != model.KindInternal {
		t.Errorf("a plain error is %s", k)
	}
}

func TestTransportErrors(t *testing.T) {
	for _, tc := range []struct {
		code       codes.Code
		sent, want model.Kind
	}{
		{codes.Unavailable, model.KindUnknownOutcome, model.KindUnavailable},
		{codes.DeadlineExceeded, model.KindUnknownOutcome, model.KindUnavailable},
		{codes.Canceled, model.KindUnknownOutcome, model.KindUnavailable},
		{codes.Unknown, model.KindUnknownOutcome, model.KindUnavailable},
		{codes.Internal, model.KindUnknownOutcome, model.KindInternal},
		{codes.ResourceExhausted, model.KindUnknownOutcome, model.KindInternal},
		{codes.Unimplemented, model.KindUnsupported, model.KindUnsupported},
		{codes.PermissionDenied, model.KindDenied, model.KindDenied},
		// A status that only looks like an answer of ours is not believed:
		// notFound must never come from a proxy.
		{codes.NotFound, model.KindUnknownOutcome, model.KindUnavailable},
	} {
		err := status.Error(tc.code, "x")
		if k := model.KindOf(FromStatus(err, true)); k != tc.sent {
			t.Errorf("%v, sent: %s, want %s", tc.code, k, tc.sent)
		}
		if k := model.KindOf(FromStatus(err, false)); k != tc.want {
			t.Errorf("%v, not sent: %s, want %s", tc.code, k, tc.want)
		}
	}
	err := FromStatus(status.FromContextError(context.DeadlineExceeded).Err(), true)
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v is no deadline", err)
	}
	made, _ := status.New(codes.Internal, "x").WithDetails(&ErrorDetail{Kind: "fromTheFuture", Message: "x"})
	if k := model.KindOf(FromStatus(made.Err(), true)); k != model.KindUnknownOutcome {
		t.Errorf("a kind of the future is %s", k)
	}
}

func TestLongAndBrokenMessages(t *testing.T) {
	for _, msg := range []string{strings.Repeat("ä", 10_000), "bad \xff\xfe bytes", strings.Repeat("x", maxMessage-1) + "€"} {
		out := model.AsError(FromStatus(ToStatus(model.Errorf(model.KindInternal, "%s", msg)), true))
		if out.Kind != model.KindInternal || !utf8.ValidString(out.Message) || len(out.Message) > maxMessage+8 || out.Message == "" {
			t.Errorf("%.20q...: kind %s, %d bytes", msg, out.Kind, len(out.Message))
		}
	}
}

func TestConnection(t *testing.T) {
	in := model.Connection{Type: "iscsi", Data: map[string]any{
		"targetIQN": []string{"iqn.a", "iqn.b"}, "targetLun": 3, "discard": true, "port": int32(3260), "ratio": 1.5,
		"authPassword": model.Secret("chap"), "nested": map[string]string{"a": "b"}, "none": nil,
	}}
	m, err := FromConnection(in)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]any{
		"targetIQN": []any{"iqn.a", "iqn.b"}, "targetLun": int64(3), "discard": true, "port": int64(3260), "ratio": 1.5,
		"authPassword": "chap", "nested": map[string]any{"a": "b"}, "none": nil,
	}
	if got := ToConnection(m); got.Type != "iscsi" || !reflect.DeepEqual(got.Data, want) {
		t.Errorf("got %#v", got)
	}
	if _, err := FromConnection(model.Connection{Data: map[string]any{"f": func() {}}}); err == nil {
		t.Error("a function was sent")
	}
	loop := map[string]any{}
	loop["self"] = loop
	if _, err := FromConnection(model.Connection{Data: loop}); err == nil {
		t.Error("an endless map was sent")
	}
}

func TestObjectsCrossTheWire(t *testing.T) {
	v := drivers.Volume{ID: "v", Pool: "p", Size: 5, BackendData: map[string]string{"a": "b"}, DurableName: "d",
		DurableFormat: "naa", TenantID: "t", ClusterID: "c", Incomplete: true}
	if got := ToVolume(FromVolume("b", v)); !reflect.DeepEqual(got, v) {
		t.Errorf("volume %+v", got)
	}
	s := drivers.Snapshot{ID: "s", VolumeID: "v", Pool: "p", Size: 5, BackendData: map[string]string{"a": "b"},
		TenantID: "t", ClusterID: "c", Incomplete: true}
	if got := ToSnapshot(FromSnapshot("b", s)); !reflect.DeepEqual(got, s) {
		t.Errorf("snapshot %+v", got)
	}
	r := drivers.SnapshotRef{ID: "s", VolumeID: "v", Pool: "p", BackendData: map[string]string{"a": "b"}}
	if got := ToSnapshotRef(SnapshotRef("b", r)); !reflect.DeepEqual(got, r) {
		t.Errorf("snapshot ref %+v", got)
	}
	p := drivers.Pool{ID: "i", Name: "n", Total: 9, Free: 4, OverProvisioning: 2, AvailabilityZone: "az", StorageType: "block",
		Description: "d", MultiAttach: true, Unusable: "full", Extras: model.PoolExtras{Advanced: map[string]any{"x": 1.0}}}
	m, err := FromPool("b", "drv", "id", []string{"expand"}, p)
	if err != nil {
		t.Fatal(err)
	}
	got, err := ToPool("dock", m)
	if err != nil {
		t.Fatal(err)
	}
	if got.ID != "id" || got.Status != model.StatusUnavailable || got.Reason != "full" || !got.Can("expand") ||
		got.Total != 9 || got.DockID != "dock" || got.Extras.Advanced["x"] != 1.0 {
		t.Errorf("pool %+v", got)
	}
	m.Extras = []byte("{")
	if _, err := ToPool("dock", m); err == nil {
		t.Error("broken extras were accepted")
	}
}

package model

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"
	"google.golang.org/grpc/codes"
)

func TestKinds(t *testing.T) {
	seen := map[codes.Code]Kind{}
	for k, e := range kindTable {
		if e.http < 400 || k.HTTPStatus() != e.http || k.GRPCCode() != e.grpc {
			t.Errorf("%s: %+v", k, e)
		}
		if other, ok := seen[e.grpc]; ok {
			t.Errorf("%s and %s share the gRPC code %s: a peer could not tell them apart", k, other, e.grpc)
		}
		seen[e.grpc] = k
		if KindOfGRPC(k.GRPCCode()) != k {
			t.Errorf("%s does not come back from gRPC", k)
		}
	}
	// What nobody knows the outcome of must never look like a failure.
	for _, c := range []codes.Code{codes.Canceled, codes.Unknown, codes.DeadlineExceeded} {
		if KindOfGRPC(c) != KindUnknownOutcome {
			t.Errorf("%s is %s", c, KindOfGRPC(c))
		}
	}
}

func TestErrors(t *testing.T) {
	err := fmt.Errorf("outer: %w", Errorf(KindBusy, "in use: %w", fs.ErrExist))
	if KindOf(err) != KindBusy || !errors.Is(err, fs.ErrExist) || strings.Count(err.Error(), "file already exists") != 1 {
		t.Errorf("%v, %s", err, KindOf(err))
	}
	if KindOf(fmt.Errorf("x: %w", context.DeadlineExceeded)) != KindUnknownOutcome || KindOf(nil) != "" || KindOf(errors.New("x")) != KindInternal {
		t.Error("kinds of foreign errors")
	}
	if e := AsError(err); e.HTTPStatus() != 400 || AsError(nil) != nil {
		t.Errorf("%+v", e)
	}
	if e := Invalid("size", "size %d is too large", 5); e.Field != "size" || e.Error() != "size 5 is too large" {
		t.Errorf("%+v", e)
	}
}

func TestSecretsNeverPrint(t *testing.T) {
	s := Secret("hunter2")
	x := struct {
		P  Secret
		PP *Secret
	}{s, &s}
	j, err := json.Marshal(x)
	if err != nil {
		t.Fatal(err)
	}
	y, err := yaml.Marshal(x)
	if err != nil {
		t.Fatal(err)
	}
	for _, out := range []string{
		fmt.Sprint(s), fmt.Sprintf("%s %q %v %+v %#v %x %d", s, s, s, s, s, s, s), fmt.Sprintf("%v %+v %#v", x, x, x), string(j), string(y),
		fmt.Errorf("login: %v", s).Error(),
	} {
		if strings.Contains(out, "hunter2") || strings.Contains(out, fmt.Sprintf("%x", "hunter2")) {
			t.Errorf("printed: %s", out)
		}
	}
	if s.Reveal() != "hunter2" {
		t.Error("the value is lost")
	}
}

func TestBytes(t *testing.T) {
	for in, want := range map[string]Bytes{
		"0": 0, "512": 512, "1K": KiB, "100GiB": 100 * GiB, "1.5 TiB": TiB + 512*GiB, "10GB": 10 * GiB, "2P": 2048 * TiB, " 7 m ": 7 * MiB,
	} {
		if got, err := ParseBytes(in); err != nil || got != want {
			t.Errorf("%q: %d, %v", in, got, err)
		}
	}
	for _, in := range []string{"", "-1", "x", "1X", "1e400G", "NaN", "99999999999P", "1..2G"} {
		if got, err := ParseBytes(in); err == nil {
			t.Errorf("%q: %d", in, got)
		}
	}
	for b, gb := range map[Bytes][2]int64{0: {0, 0}, 1: {0, 1}, GiB: {1, 1}, GiB + 1: {1, 2}, 5*GiB - 1: {4, 5}} {
		if b.GBFloor() != gb[0] || b.GBCeil() != gb[1] {
			t.Errorf("%d: %d %d", b, b.GBFloor(), b.GBCeil())
		}
	}
	v := Volume{Size: 3*GiB + 1}
	j, _ := json.Marshal(&v)
	var back Volume
	if err := json.Unmarshal(j, &back); err != nil || back.Size != v.Size {
		t.Errorf("%s: %v", j, err)
	}
}

func FuzzParseBytes(f *testing.F) {
	for _, s := range []string{"1", "1G", "1.5TiB", "-", "0x10", "1e3", "９G"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if b, err := ParseBytes(s); err == nil && b < 0 {
			t.Errorf("%q is %d", s, b)
		}
	})
}

func TestLimit(t *testing.T) {
	for _, c := range []struct {
		ratio float64
		want  Bytes
	}{{1, 100 * GiB}, {0, 100 * GiB}, {-3, 100 * GiB}, {math.NaN(), 100 * GiB}, {2.5, 250 * GiB}, {math.Inf(1), math.MaxInt64 / 2}, {1e300, math.MaxInt64 / 2}} {
		if got := (&Pool{Total: 100 * GiB, OverProvisioning: c.ratio}).Limit(); got != c.want {
			t.Errorf("ratio %v: %d", c.ratio, got)
		}
	}
}

// Every transitional state is entered by some task, and no operation starts in
// one: a record has one task at a time.
func TestStatesAndTasks(t *testing.T) {
	for res, ops := range from {
		for op, states := range ops {
			for _, s := range states {
				if s.Transitional() {
					t.Errorf("%s: %s may start while %s", res, op, s)
				}
				if !MayStart(res, op, s) || MayStart(res, op, StatusCreating) {
					t.Errorf("%s: %s in %s", res, op, s)
				}
			}
		}
	}
	now := time.Now()
	for res, kinds := range firstStep {
		for kind, step := range kinds {
			task := NewTask(res, kind, StatusAvailable, "r", now)
			if task.Step != step || !task.Active() || !ValidUUID(task.ID) {
				t.Errorf("%s %s: %+v", res, kind, task)
			}
		}
	}
}

func TestTaskHistoryIsBounded(t *testing.T) {
	now := time.Now()
	task := NewTask(ResVolume, TaskCreate, "", "r", now)
	for i := range 3 * MaxHistory {
		task.Missed(errors.New("x"), now)
		task.Begin(Step(fmt.Sprint(i)), now)
	}
	old := task.Clone()
	task.End(TaskSucceeded, now)
	if len(task.History) != MaxHistory || task.History[MaxHistory-1].Step != "23" || task.History[0].Attempts != 1 {
		t.Errorf("%+v", task.History)
	}
	if old.State == TaskSucceeded || len(old.History) != MaxHistory || old.History[MaxHistory-1].Step == "23" {
		t.Error("a copy changed with the original")
	}
	if task.Active() || (*Task)(nil).Active() || (*Task)(nil).Clone() != nil {
		t.Error("an ended task is active")
	}
}

func TestIDs(t *testing.T) {
	last := ""
	for range 1000 {
		id := NewID()
		if !ValidUUID(id) || !ValidID(id) || id <= last {
			t.Fatalf("%s after %s", id, last)
		}
		last = id
	}
	for _, s := range []string{"", "..", "../x", "a/b", "-a", strings.Repeat("a", 129), "a\x00", "a b", "é"} {
		if ValidID(s) || ValidTenant(s) {
			t.Errorf("%q is an id", s)
		}
	}
}

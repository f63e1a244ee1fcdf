package wire

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/osds-io/osds/pkg/model"
)

// misspelt is a profile as the original's swagger file and its CLI's help spell
// it.
const misspelt = `{"name":"full","storageType":"block","description":"string",
"provisioningProperties":{"DataStorage":{"recoveryTimeObjective":10,"provisioningPolicy":"Thick","compression":false,
 "characterCodeSet":"ASCII","maxFileNameLengthBytes":255,"StorageAccessCapability":["Read"]},
 "ioConnectivity":{"accessProtocol":"iscsi","maxIOPS":150,"minIOPS":50,"maxBWS":5,"minBWS":1,"latency":1}},
"replicationProperties":{"dataProtection":{"isIsolated":true,"minLifetime":"P3Y6M4DT12H30M55","RecoveryGeographicObjective":"datacenter",
 "RecoveryPointObjectiveTime":"P3Y6M4DT12H30M5S","RecoveryTimeObjective":"offline","ReplicaType":"snapshot"},
 "replicaInfos":{"replicaUpdateMode":"Active","replcationBandwidth":5,"replicationPeriod":"P3Y6M4DT12H30M5S","consistencyEnalbed":true}},
"snapshotProperties":{"schedule":{"datetime":"2019-09-07T07:02:35.389","occurrence":"Daily"},"retention":{"duration":15,"number":10},
 "topology":{"bucket":"string"}},
"dataProtectionProperties":{"dataProtection":{},"consistencyEnalbed":true},
"customProperties":{"key1":"value1","key2":false,"key3":{"key31":"value31"}}}`

func TestToProfile(t *testing.T) {
	correct := strings.NewReplacer("replcationBandwidth", "replicationBandwidth", "consistencyEnalbed", "consistencyEnabled",
		"DataStorage", "dataStorage", "StorageAccess", "storageAccess", "Recovery", "recovery", "ReplicaType", "replicaType").Replace(misspelt)
	var got [2]*model.Profile
	for i, body := range []string{misspelt, correct} {
		var s ProfileSpec
		if err := json.Unmarshal([]byte(body), &s); err != nil {
			t.Fatal(err)
		}
		p, err := ToProfile(&s)
		if err != nil {
			t.Fatal(err)
		}
		got[i] = p
	}
	if !reflect.DeepEqual(got[0], got[1]) {
		t.Errorf("misspelt %+v\ncorrect  %+v", got[0], got[1])
	}
	p := got[0]
	if ri := p.Replication.ReplicaInfos; ri.ReplicationBandwidth != 5 || ri.ConsistencyEnabled == nil || !*ri.ConsistencyEnabled {
		t.Errorf("replicaInfos %+v", ri)
	}
	if dp := p.Replication.DataProtection; dp.RecoveryGeographicObject != "datacenter" || dp.ReplicaType != "snapshot" ||
		dp.RecoveryTimeObjective != "offline" {
		t.Errorf("dataProtection %+v", dp)
	}
	ds := p.Provisioning.DataStorage
	if ds.Compression == nil || *ds.Compression || ds.Deduplication != nil {
		t.Errorf("stated false and not stated must differ: %v %v", ds.Compression, ds.Deduplication)
	}
	out, err := json.Marshal(FromProfile(p))
	if err != nil {
		t.Fatal(err)
	}
	for _, wrong := range []string{"nalbed", "replcation", "Recovery", "ReplicaType"} {
		if strings.Contains(strings.ReplaceAll(string(out), "replicaType", ""), `"`+wrong) || strings.Contains(string(out), "nalbed") {
			t.Errorf("a misspelt name is written: %s", out)
		}
	}
	var back ProfileSpec
	if err := json.Unmarshal(out, &back); err != nil {
		t.Fatal(err)
	}
	if back.ReplicationProperties.ReplicaInfos.ReplicationBandwidth != 5 || back.SnapshotProperties.Retention.Duration != 15 ||
		back.CustomProperties["key3"].(map[string]any)["key31"] != "value31" {
		t.Errorf("lost on the way: %s", out)
	}
}

func TestToProfileRefuses(t *testing.T) {
	for body, field := range map[string]string{
		`{"name":"x","storageType":"object"}`: "storageType",
		`{"storageType":"block"}`:             "name",
		`{"name":"x","storageType":"block","replicationProperties":{"replicaInfos":{"replicationBandwidth":5,"replcationBandwidth":6}}}`: "replicationProperties.replicaInfos.replicationBandwidth",
		`{"name":"x","storageType":"block","dataProtectionProperties":{"consistencyEnalbed":true,"consistencyEnabled":false}}`:           "dataProtectionProperties.consistencyEnabled",
		`{"name":"x","storageType":"block","provisioningProperties":{"dataStorage":{"provisioningPolicy":"Foo"}}}`:                       "provisioningProperties.dataStorage.provisioningPolicy",
		`{"name":"x","storageType":"block","replicationProperties":{"dataProtection":{"RecoveryTimeObjective":"soon"}}}`:                 "replicationProperties.dataProtection.recoveryTimeObjective",
	} {
		var s ProfileSpec
		if err := json.Unmarshal([]byte(body), &s); err != nil {
			t.Fatal(err)
		}
		_, err := ToProfile(&s)
		e := model.AsError(err)
		if e == nil || e.Kind != model.KindInvalid || e.Field != field {
			t.Errorf("%s: %+v, want field %s", body, e, field)
		}
	}
	// The original's text, for its clients.
	if _, err := ToProfile(&ProfileSpec{Name: "x", StorageType: "object"}); err.Error() != "object is invalid storagetype" {
		t.Error(err)
	}
}

func TestSwaggerNames(t *testing.T) {
	var c ConnectionInfo
	if err := json.Unmarshal([]byte(`{"extraProperties":{"a":1}}`), &c); err != nil {
		t.Fatal(err)
	}
	c.Normalize()
	var e PoolExtrasSpec
	if err := json.Unmarshal([]byte(`{"customProperties":{"diskType":"SSD"}}`), &e); err != nil {
		t.Fatal(err)
	}
	e.Normalize()
	if c.AdditionalProperties["a"] != 1.0 || c.ExtraProperties != nil || e.Advanced["diskType"] != "SSD" || e.CustomProperties != nil {
		t.Errorf("%+v %+v", c, e)
	}
}

func TestHostLists(t *testing.T) {
	out, err := json.Marshal(FromHost(&model.Host{Meta: model.Meta{ID: "h"}, HostName: "h1"}))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasSuffix(string(out), `"availabilityZones":[],"initiators":[]}`) {
		t.Error(string(out))
	}
	var h HostSpec
	if err := json.Unmarshal([]byte(`{"hostName":"h1","password":"hush"}`), &h); err != nil {
		t.Fatal(err)
	}
	if out, err = json.Marshal(&h); err != nil || strings.Contains(string(out), "hush") || strings.Contains(string(out), "password") {
		t.Errorf("%s %v", out, err)
	}
}

func TestOwnFields(t *testing.T) {
	v := FromVolume(&model.Volume{Meta: model.Meta{ID: "v"}, Size: 1, SourceVolumeID: "s", StatusReason: "no pool fits",
		Task: &model.Task{ID: "t1"}, Status: model.StatusError})
	if v.Size != 1 || v.SourceVolumeID != "s" || v.StatusReason != "no pool fits" || v.TaskID != "t1" {
		t.Errorf("%+v", v)
	}
	p := FromPool(&model.Pool{Total: 10 * model.GiB, OverProvisioning: 1.5}, 1)
	if p.ReservedCapacity != 1 || p.ProvisionedLimit != 15 || p.OverProvisioningRatio != 1.5 {
		t.Errorf("%+v", p)
	}
}

func TestFromTask(t *testing.T) {
	v := &model.Volume{Meta: model.Meta{ID: "v", TenantID: "t", Name: "n"}, Status: model.StatusCreating}
	if FromTask(v) != nil {
		t.Error("a record without a task has one")
	}
	v.Task = &model.Task{ID: "id", Kind: model.TaskCreate, State: model.TaskWaiting, Step: model.StepProvision, Attempts: 2,
		LastError: "dock away", ErrorKind: model.KindUnavailable, NextRun: created, CreatedAt: created, Deadline: updated, Owner: "o", Epoch: 7,
		RequestID: "r", NewSize: model.GiB, Excluded: []string{"p"}, History: []model.StepDone{{Step: model.StepPlace, At: created, Attempts: 1}}}
	out, err := json.Marshal(FromTask(v))
	if err != nil {
		t.Fatal(err)
	}
	want := `{"id":"id","resource":"volumes","resourceId":"v","tenantId":"t","kind":"create","state":"waiting","step":"provision",` +
		`"attempts":2,"lastError":"dock away","errorKind":"unavailable","nextRetry":"2026-11-20T20:40:25","createdAt":"2026-11-20T20:40:25",` +
		`"deadline":"2026-11-20T20:41:25","owner":"o","epoch":7,"requestId":"r","steps":[{"step":"place","at":"2026-11-20T20:40:25","attempts":1}],` +
		`"newSize":1,"excludedPools":["p"],"resourceName":"n","resourceStatus":"creating"}`
	if string(out) != want {
		t.Errorf("\n got %s\nwant %s", out, want)
	}
	v.Task.State, v.Task.LastError, v.Task.Failure = model.TaskFailed, "", "gone"
	if s := FromTask(v); s.NextRetry != "" || s.LastError != "gone" {
		t.Errorf("%+v", s)
	}
}

func TestErrors(t *testing.T) {
	s := FromError(fmt.Errorf("wrapped: %w", model.Invalid("size", "invalid volume size: 0")), "req")
	if *s != (ErrorSpec{Code: 400, Message: "invalid volume size: 0", Kind: model.KindInvalid, Field: "size", RequestID: "req"}) {
		t.Errorf("%+v", s)
	}
	if FromError(nil, "") != nil {
		t.Error("nil")
	}
	if e := FromError(errors.New("boom"), ""); e.Code != 500 || e.Kind != model.KindInternal {
		t.Errorf("%+v", e)
	}
	e := (&ErrorSpec{Code: 404, Message: "m"}).ToError()
	if e.Kind != model.KindNotFound || e.HTTPStatus() != 404 || e.Error() != "m" {
		t.Errorf("%+v", e)
	}
	for code, kind := range map[int]model.Kind{400: model.KindInvalid, 401: model.KindUnauthenticated, 403: model.KindDenied, 409: model.KindConflict,
		412: model.KindStale, 429: model.KindUnavailable, 500: model.KindInternal, 503: model.KindUnavailable, 507: model.KindExhausted} {
		if got := KindOfStatus(code); got != kind {
			t.Errorf("%d: %s", code, got)
		}
	}
}

func TestTimesAndTags(t *testing.T) {
	for _, s := range []string{"2026-11-20T20:40:25", "2026-11-20T20:40:25Z", "2026-11-20T21:40:25+01:00"} {
		got, err := ParseTime(s)
		if err != nil || FormatTime(got) != "2026-11-20T20:40:25" || got.Location() != time.UTC {
			t.Errorf("%s: %v %v", s, got, err)
		}
	}
	if got, err := ParseTime(""); err != nil || !got.IsZero() || FormatTime(got) != "" {
		t.Error(got, err)
	}
	if _, err := ParseTime("yesterday"); !model.IsKind(err, model.KindInvalid) {
		t.Error(err)
	}
	for s, want := range map[string]int64{ETag(42): 42, `W/"7"`: 7, `5`: 5, `"x"`: 0, ``: 0, `*`: 0, `"-1"`: 0} {
		got, ok := ParseETag(s)
		if ok != (want != 0) || (ok && got != want) {
			t.Errorf("%s: %d %v", s, got, ok)
		}
	}
}

func TestDoctorBounds(t *testing.T) {
	c := DoctorCheck{Name: "ledger", OK: true}
	for range MaxCounterExamples + 3 {
		c.Add("x")
	}
	r := NewDoctorReport(created, 1, []DoctorCheck{{Name: "a", OK: true}, c})
	if r.OK || len(c.CounterExamples) != MaxCounterExamples || c.Omitted != 3 {
		t.Errorf("%+v", r)
	}
	if r := NewDoctorReport(created, 1, nil); !r.OK || r.Checks == nil {
		t.Errorf("%+v", r)
	}
}

// TestOriginalRequests: fields that only exist on the original's wire are read
// without error.
func TestOriginalRequests(t *testing.T) {
	var v VolumeSpec
	if err := json.Unmarshal([]byte(`{"Name":"v","SIZE":1,"snapshotFromCloud":true,"extra":1,"attachstatus":""}`), &v); err != nil {
		t.Fatal(err)
	}
	if v.Name != "v" || v.Size != 1 || !v.SnapshotFromCloud {
		t.Errorf("%+v", v)
	}
}

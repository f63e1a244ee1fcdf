package api

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/sirupsen/logrus"
	logtest "github.com/sirupsen/logrus/hooks/test"

	"github.com/osds-io/osds/pkg/db"
	"github.com/osds-io/osds/pkg/model"
	"github.com/osds-io/osds/pkg/model/wire"
)

// fakeDoctor answers with a fixed report: the real one is tested where it is.
type fakeDoctor struct {
	report *wire.DoctorReport
	err    error
}

func (d *fakeDoctor) Check(context.Context) (*wire.DoctorReport, error) { return d.report, d.err }

func TestDoctor(t *testing.T) {
	check := wire.DoctorCheck{Name: "ledger", OK: true, Checked: 3}
	check.Add("pool p: 5 reserved, 4 counted")
	d := &fakeDoctor{report: wire.NewDoctorReport(time.Now(), 17, []wire.DoctorCheck{{Name: "owners", OK: true}, check})}
	e := newEnv(t, func(x *Deps) { x.Doctor = d })
	e.get("/doctor").fails(403, model.KindDenied, "", "administrators")
	var got wire.DoctorReport
	e.admin().get("/doctor").want(200).into(&got)
	if got.OK || len(got.Checks) != 2 || got.Checks[1].CounterExamples[0] != "pool p: 5 reserved, 4 counted" || got.Revision != 17 {
		t.Errorf("%+v", got)
	}
	d.err = model.Errorf(model.KindUnavailable, "the store is away")
	e.admin().get("/doctor").fails(503, model.KindUnavailable, "", "away")
	newEnv(t).admin().get("/doctor").fails(503, model.KindUnavailable, "", "cannot check")
}

func TestLedger(t *testing.T) {
	st := ownStore(t)
	e := newEnv(t, func(d *Deps) { d.Store = st })
	e.get("/ledger").fails(403, model.KindDenied, "", "administrators")
	admin := e.admin()
	if b := admin.get("/ledger").want(200).Body; b != "[]" {
		t.Errorf("an empty ledger is %s", b)
	}
	var pools []*model.Pool
	for range 3 {
		pools = append(pools, e.pool(func(p *model.Pool) { p.OverProvisioning = 2 }))
	}
	const gone = "00000000-0000-0000-0000-000000000000"
	tx := &db.Txn{Label: "test"}
	for i, res := range []model.Bytes{1, 20, 300} {
		meta := func() model.Meta {
			return model.Meta{ID: model.NewID(), TenantID: e.tenant, Name: "x", CreatedAt: time.Now().UTC()}
		}
		tx.Create(&model.Volume{Meta: meta(), Size: 1, Status: model.StatusAvailable, PoolID: pools[1].ID, Reserved: res})
		tx.Create(&model.Snapshot{Meta: meta(), Status: model.StatusAvailable, PoolID: pools[1].ID, Reserved: 1000 * res})
		if i > 0 {
			tx.Create(&model.Debt{Meta: meta(), PoolID: pools[1].ID, Resource: model.ResVolume, ObjectID: "x", Reason: "r", Reserved: 7})
		}
	}
	tx.Create(&model.Account{Meta: model.Meta{ID: pools[1].ID}, Reserved: 321335})
	tx.Create(&model.Volume{Meta: model.Meta{ID: model.NewID(), TenantID: e.tenant, CreatedAt: time.Now()}, Size: 1, PoolID: gone, Reserved: 9})
	e.commit(tx)

	var rows []wire.LedgerSpec
	r := admin.get("/ledger").want(200).into(&rows)
	if len(rows) != 4 || r.Header.Get(wire.HeaderTotalCount) != "4" {
		t.Fatalf("%s", r.Body)
	}
	want := wire.LedgerSpec{PoolID: pools[1].ID, PoolName: pools[1].Name, Reserved: 321335, Limit: 2 * int64(pools[1].Total), Total: int64(pools[1].Total),
		Free: int64(pools[1].Free), Volumes: 321, Snapshots: 321000, Debts: 14}
	if rows[2] != want {
		t.Errorf("%+v, want %+v", rows[2], want)
	}
	if (rows[0] != wire.LedgerSpec{PoolID: gone, Volumes: 9}) {
		t.Errorf("what a pool that is gone holds: %+v", rows[0])
	}
	if rows[1].Reserved != 0 || rows[1].Total == 0 {
		t.Errorf("a pool without an account: %+v", rows[1])
	}

	var walked []string
	marker := ""
	for {
		var page []wire.LedgerSpec
		r := admin.get("/ledger?limit=3&marker=" + url.QueryEscape(marker)).want(200).into(&page)
		for _, x := range page {
			walked = append(walked, x.PoolID)
		}
		if marker = r.Header.Get(wire.HeaderNextMarker); marker == "" {
			break
		}
	}
	if len(walked) != 4 || walked[0] != gone || walked[3] != rows[3].PoolID {
		t.Errorf("by pages: %v", walked)
	}
	admin.get("/ledger?poolId=" + pools[2].ID).want(200).into(&rows)
	if len(rows) != 1 || rows[0].PoolID != pools[2].ID {
		t.Errorf("one pool: %+v", rows)
	}
	admin.get("/ledger?limit=-1").fails(400, model.KindInvalid, "limit", "")
	admin.get("/ledger?marker=x").fails(400, model.KindInvalid, "marker", "")

	var debts []wire.DebtSpec
	r = admin.get("/debts?poolId=" + pools[1].ID + "&sortKey=createdAt").want(200).into(&debts)
	if len(debts) != 2 || debts[0].Reserved != 7 || r.Header.Get(wire.HeaderTotalCount) != "2" {
		t.Errorf("debts: %s", r.Body)
	}
	e.get("/debts").fails(403, model.KindDenied, "", "administrators")
}

func TestDocksAndPools(t *testing.T) {
	e := newEnv(t)
	d := &model.Dock{Meta: model.Meta{ID: model.NewID(), Name: unique("dock"), CreatedAt: time.Now().UTC()}, Type: "provisioner",
		Status: model.StatusAvailable, Endpoint: "10.0.0.1:50050", NodeID: "n", DriverName: "lvm", Version: "1"}
	e.commit((&db.Txn{Label: "test"}).Create(d))
	p := e.pool(func(p *model.Pool) { p.DockID = d.ID })
	var dock wire.DockSpec
	e.get("/docks/" + d.ID).want(200).into(&dock)
	if dock.NodeID != "n" || dock.Status != model.StatusAvailable {
		t.Errorf("%+v", dock)
	}
	var pool wire.StoragePoolSpec
	e.get("/pools/" + p.ID).want(200).into(&pool)
	if pool.DockID != d.ID || pool.TotalCapacity != 100 || pool.ProvisionedLimit != 100 {
		t.Errorf("%+v", pool)
	}
	e.get("/docks/nope").fails(404, model.KindNotFound, "", "")
	e.get("/pools/nope").fails(404, model.KindNotFound, "", "")
}

func TestRevertIsAccepted(t *testing.T) {
	e := newEnv(t)
	pool := e.pool()
	v := e.volume(pool, e.profile())
	s := e.snapshot(v)
	var got wire.VolumeSpec
	e.post("/block/snapshots/"+s.ID+"/revert", nil).want(202).into(&got)
	if got.ID != v.ID || got.Status != model.StatusReverting {
		t.Errorf("%+v", got)
	}
	e.settle(pool)
}

func TestHealthAndReadiness(t *testing.T) {
	leader := &db.LeaderInfo{Instance: "me", Address: "10.0.0.1:50040", Epoch: 4}
	log, logged := logtest.NewNullLogger()
	log.SetLevel(logrus.DebugLevel)
	e := newEnv(t, func(d *Deps) {
		d.Leader, d.Log = func() *db.LeaderInfo { return leader }, logrus.NewEntry(log)
	})
	if b := e.get("//healthz").want(200).Body; b != `{"ok":true}` {
		t.Errorf("%s", b)
	}
	ready := func(status int) map[string]readyCheck {
		t.Helper()
		var r readiness
		e.get("//readyz").want(status).into(&r)
		out := map[string]readyCheck{}
		ok := true
		for _, c := range r.Checks {
			out[c.Name] = c
			ok = ok && c.OK
		}
		if r.OK != ok || ok != (status == 200) || len(out) != 3 {
			t.Errorf("%d: %+v", status, r)
		}
		return out
	}
	if c := ready(200)["leader"]; c.Detail != "me at 10.0.0.1:50040, epoch 4" {
		t.Errorf("%+v", c)
	}
	leader = nil
	if c := ready(503); c["leader"].OK || !c["store"].OK || !c["cache"].OK {
		t.Errorf("%+v", c)
	}
	// Probes do not fill the log, nor look like failures in it.
	for _, entry := range logged.AllEntries() {
		if entry.Level < logrus.DebugLevel {
			t.Errorf("logged: %v %v %v", entry.Level, entry.Message, entry.Data)
		}
	}

	st := ownStore(t)
	e = newEnv(t, func(d *Deps) { d.Store, d.Leader = st, func() *db.LeaderInfo { return &db.LeaderInfo{} } })
	st.Close()
	if c := ready(503); c["store"].OK {
		t.Errorf("the store is closed, and yet %+v", c)
	}
	e.get("//healthz").want(200)
}

func TestStoreMetrics(t *testing.T) {
	st := ownStore(t)
	reg := prometheus.NewRegistry()
	e := newEnv(t, func(d *Deps) {
		d.Store, d.Metrics = st, reg
		d.Leader = func() *db.LeaderInfo { return &db.LeaderInfo{Instance: st.Instance(), Epoch: 9} }
		d.PoolFills = func(*model.Pool) []model.Fill {
			return []model.Fill{{Of: "data", Used: 0.85, Warn: 0.8, Stop: 0.95}, {Of: "metadata", Used: 0.1, Warn: 0.8, Stop: 0.95}}
		}
	})
	pool, profile := e.pool(), e.profile()
	var shown wire.StoragePoolSpec
	e.get("/pools/" + pool.ID).want(200).into(&shown)
	if shown.StatusReason != "data 85.0 % full (warn at 80 %, stop at 95 %)" || len(shown.Fills) != 2 || shown.Fills[0].Watermark != model.WatermarkWarn ||
		shown.Fills[1].Watermark != model.WatermarkOK || shown.Status != model.StatusAvailable {
		t.Errorf("%+v", shown)
	}
	e.commit((&db.Txn{Label: "test"}).Create(&model.Account{Meta: model.Meta{ID: pool.ID}, Reserved: 12345}))
	e.commit((&db.Txn{Label: "test"}).Create(&model.Dock{Meta: model.Meta{ID: "d1", Name: "dock one"}, Status: model.StatusUnavailable}))
	v := e.volume(pool, profile)
	e.del("/block/volumes/" + v.ID).want(202)
	e.settle(pool)
	w := e.pending(profile)
	e.setTask(w.ID, func(k *model.Task) { k.Missed(errors.New("x"), time.Now().Add(time.Hour)) })
	e.pending(profile)
	f := e.follow("")
	<-f.lines

	page := e.get("//metrics").want(200).Body
	for _, want := range []string{
		`osds_tasks{kind="create",resource="volumes",state="pending"} 1`,
		`osds_tasks{kind="create",resource="volumes",state="waiting"} 1`,
		`osds_task_oldest_seconds{kind="create",resource="volumes"} `,
		`osds_tasks_ended_total{kind="create",resource="volumes",state="succeeded"} 1`,
		`osds_tasks_ended_total{kind="delete",resource="volumes",state="succeeded"} 1`,
		`osds_records{resource="volumes"} 2`,
		fmt.Sprintf(`osds_ledger_reserved_bytes{name="%s",pool="%s"} 12345`, pool.Name, pool.ID),
		fmt.Sprintf(`osds_ledger_limit_bytes{name="%s",pool="%s"} 1.073741824e+11`, pool.Name, pool.ID),
		fmt.Sprintf(`osds_pool_up{name="%s",pool="%s"} 1`, pool.Name, pool.ID),
		fmt.Sprintf(`osds_pool_fill_ratio{name="%s",of="data",pool="%s"} 0.85`, pool.Name, pool.ID),
		fmt.Sprintf(`osds_pool_watermark{name="%s",of="data",pool="%s"} 1`, pool.Name, pool.ID),
		fmt.Sprintf(`osds_pool_watermark{name="%s",of="metadata",pool="%s"} 0`, pool.Name, pool.ID),
		fmt.Sprintf(`osds_pool_allocated_bytes{name="%s",pool="%s"} `, pool.Name, pool.ID),
		`osds_task_idle_seconds{kind="create",resource="volumes"} `,
		`osds_dock_up{dock="d1",name="dock one"} 0`,
		`osds_cache_revision `, `osds_cache_lag_seconds `, `osds_store_txns_total `, `osds_store_changes_total `,
		`osds_event_streams 1`, `osds_leader_epoch 9`, `osds_leading 1`,
		`osds_api_requests_total{code="202",method="POST",route="/v1beta/{tenantId}/block/volumes"} 3`,
		`osds_api_request_duration_seconds_bucket{method="POST",route="/v1beta/{tenantId}/block/volumes",le="30"} 3`,
		`go_goroutines `, `process_open_fds `,
	} {
		if !strings.Contains(page, "\n"+want) {
			t.Errorf("the page has no line %s", want)
		}
	}
	if n := strings.Count(page, "\n"); n > 3000 {
		t.Errorf("%d lines", n)
	}
	// Whoever gathers elsewhere gets nothing here.
	f.close()
	e = newEnv(t, func(d *Deps) {
		d.Store, d.Metrics = st, prometheus.WrapRegistererWithPrefix("x_", prometheus.NewRegistry())
	})
	e.get("//metrics").fails(503, model.KindUnavailable, "", "not gathered here")
}

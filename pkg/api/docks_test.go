package api

import (
	"testing"
	"time"

	"github.com/osds-io/osds/pkg/db"
	"github.com/osds-io/osds/pkg/model"
	"github.com/osds-io/osds/pkg/model/wire"
)

// A dock that will not come back is removed on demand, but not while it is there, nor while anything lives in its pools.
func TestDeleteDock(t *testing.T) {
	st := ownStore(t)
	e := newEnv(t, func(d *Deps) { d.Store = st })
	admin := e.admin()
	dock := &model.Dock{Meta: model.Meta{ID: model.NewID(), Name: "old", CreatedAt: time.Now().UTC()}, Type: "provisioner",
		Status: model.StatusAvailable, Endpoint: "10.0.0.1:50050", NodeID: "old"}
	e.commit((&db.Txn{Label: "test"}).Create(dock))
	mine := func(p *model.Pool) { p.DockID, p.Status = dock.ID, model.StatusUnavailable }
	p := e.pool(mine)
	v := &model.Volume{Meta: model.Meta{ID: model.NewID(), TenantID: e.tenant, CreatedAt: time.Now().UTC()}, Size: 5, PoolID: p.ID, Status: model.StatusAvailable}
	e.commit((&db.Txn{Label: "test"}).Create(v))

	path := "/docks/" + dock.ID
	e.del(path).fails(403, model.KindDenied, "", "administrators")
	admin.del("/docks/"+model.NewID()).fails(404, model.KindNotFound, "", "not found")
	admin.del(path).fails(409, model.KindConflict, "", "stop it")

	setStatus := func(s model.Status) {
		t.Helper()
		d, _ := st.Docks.Get(dock.ID)
		d = d.Clone()
		d.Status = s
		e.commit((&db.Txn{Label: "test"}).Update(d))
	}
	setStatus(model.StatusUnavailable)
	admin.del(path).fails(409, model.KindConflict, "", v.ID)
	old, _ := st.Volumes.Get(v.ID)
	e.commit((&db.Txn{Label: "test"}).Remove(old))
	// Nor while it made the device of an attachment.
	at := &model.Attachment{Meta: model.Meta{ID: model.NewID(), TenantID: e.tenant, CreatedAt: time.Now().UTC()}, VolumeID: "v", HostID: "h",
		Status: model.StatusErrorDeleting, DockID: dock.ID}
	e.commit((&db.Txn{Label: "test"}).Create(at))
	admin.del(path).fails(409, model.KindConflict, "", at.ID)
	now, _ := st.Attachments.Get(at.ID)
	e.commit((&db.Txn{Label: "test"}).Remove(now))

	admin.del(path, "If-Match", `"1"`).fails(412, model.KindStale, "", "")
	admin.del(path, "Idempotency-Key", "k1").want(202)
	admin.del(path, "Idempotency-Key", "k1").want(202) // the same answer again
	admin.del(path).want(202)                          // it is on its way
	var got wire.DockSpec
	admin.get(path).want(200).into(&got)
	if got.Status != model.StatusDeleting {
		t.Errorf("the dock is %s", got.Status)
	}
}

// The ledger does not show the empty account that a removed pool leaves.
func TestLedgerOfRemovedPool(t *testing.T) {
	st := ownStore(t)
	e := newEnv(t, func(d *Deps) { d.Store = st })
	e.commit((&db.Txn{Label: "test"}).Create(&model.Account{Meta: model.Meta{ID: model.NewID()}}))
	if b := e.admin().get("/ledger").want(200).Body; b != "[]" {
		t.Error(b)
	}
}

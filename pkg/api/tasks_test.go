package api

import (
	"fmt"
	"net/url"
	"testing"
	"time"

	"github.com/osds-io/osds/pkg/db"
	"github.com/osds-io/osds/pkg/model"
	"github.com/osds-io/osds/pkg/model/wire"
)

// pending creates a volume and leaves its task to be done.
func (e *env) pending(profile *wire.ProfileSpec) *wire.VolumeSpec {
	e.t.Helper()
	var v wire.VolumeSpec
	e.post("/block/volumes", map[string]any{"name": "v", "size": 1, "profileId": profile.ID}).want(202).into(&v)
	return &v
}

func (e *env) task(id string) *wire.TaskSpec {
	e.t.Helper()
	var k wire.TaskSpec
	e.get("/tasks/" + id).want(200).into(&k)
	return &k
}

// setTask changes the task of a volume as a worker would.
func (e *env) setTask(volume string, f func(*model.Task)) {
	e.t.Helper()
	e.setVolume(volume, func(v *model.Volume) { f(v.Task) })
}

func TestTaskFromBeginningToEnd(t *testing.T) {
	e := newEnv(t)
	pool, profile := e.pool(), e.profile()
	v := e.pending(profile)
	k := e.task(v.TaskID)
	if k.Kind != model.TaskCreate || k.State != model.TaskPending || k.Resource != model.ResVolume || k.ResourceID != v.ID ||
		k.ResourceStatus != model.StatusCreating || k.TenantID != e.tenant || k.RequestID == "" {
		t.Errorf("at first %+v", k)
	}
	later := time.Now().Add(time.Hour)
	for _, c := range []struct {
		what string
		set  func(*model.Task)
		want model.TaskState
		next string
	}{
		{"a step has begun", func(k *model.Task) { k.Begin(model.StepProvision, time.Now()); k.Owner, k.Epoch = "me", 3 }, model.TaskRunning, ""},
		{"a step failed", func(k *model.Task) { k.Missed(model.Errorf(model.KindUnavailable, "no dock"), later) }, model.TaskWaiting, wire.FormatTime(later)},
		{"its time has come", func(k *model.Task) { k.NextRun = time.Now().Add(-time.Second) }, model.TaskRunning, ""},
	} {
		e.setTask(v.ID, c.set)
		if k := e.task(v.TaskID); k.State != c.want || k.NextRetry != c.next {
			t.Errorf("%s: %s, next retry %q; want %s, %q", c.what, k.State, k.NextRetry, c.want, c.next)
		}
	}
	if k := e.task(v.TaskID); k.LastError != "no dock" || k.ErrorKind != model.KindUnavailable || k.Attempts != 1 || len(k.Steps) != 1 || k.Owner != "me" {
		t.Errorf("after a failed step %+v", k)
	}
	e.settle(pool)
	if k := e.task(v.TaskID); k.State != model.TaskSucceeded || k.EndedAt == "" || k.ResourceStatus != model.StatusAvailable {
		t.Errorf("at the end %+v", k)
	}
	e.del("/block/volumes/" + v.ID).want(202)
	var now wire.VolumeSpec
	e.get("/block/volumes/" + v.ID).want(200).into(&now)
	if k := e.task(now.TaskID); k.Kind != model.TaskDelete || k.State != model.TaskPending {
		t.Errorf("the delete is %+v", k)
	}
	if k := e.task(v.TaskID); k.Kind != model.TaskCreate || k.State != model.TaskSucceeded || k.ResourceStatus != "" {
		t.Errorf("the create is remembered as %+v", k)
	}
	e.settle(pool)
	if k := e.task(now.TaskID); k.State != model.TaskSucceeded || k.EndedAt == "" || k.ResourceID != v.ID {
		t.Errorf("the delete of a volume that is gone is %+v", k)
	}
	e.post("/tasks/"+now.TaskID+"/cancel", nil).fails(400, model.KindBusy, "", "is over (succeeded)")
	e.post("/tasks/"+now.TaskID+"/retry", nil).fails(400, model.KindBusy, "", "is over (succeeded)")
}

func TestTasksOfOthersAreNotThere(t *testing.T) {
	e := newEnv(t)
	v := e.pending(e.profile())
	pool := e.pool()
	k := model.NewTask(model.ResDebt, model.TaskSettle, model.StatusDeleting, "", time.Now())
	debt := &model.Debt{Meta: model.Meta{ID: model.NewID(), TenantID: e.tenant}, PoolID: pool.ID, Resource: model.ResVolume, ObjectID: "x", Reason: "r", Task: k}
	e.commit((&db.Txn{Label: "test"}).Create(debt))
	defer e.commit((&db.Txn{Label: "test"}).DeleteRaw(db.Key(model.ResDebt, debt.ID)))
	other := e.as(unique("other"))
	for _, path := range []string{"/tasks/" + v.TaskID, "/tasks/" + model.NewID(), "/tasks/x%20y"} {
		other.get(path).fails(404, model.KindNotFound, "", "not found")
		other.post(path+"/cancel", nil).fails(404, model.KindNotFound, "", "not found")
		other.post(path+"/retry", nil).fails(404, model.KindNotFound, "", "not found")
	}
	e.get("/tasks/"+k.ID).fails(404, model.KindNotFound, "", "") // debts are not the tenant's
	if got := e.admin().task(k.ID); got.Resource != model.ResDebt || got.Kind != model.TaskSettle {
		t.Errorf("%+v", got)
	}
	var list []wire.TaskSpec
	other.get("/tasks").want(200).into(&list)
	if len(list) != 0 {
		t.Errorf("another tenant lists %+v", list)
	}
	e.get("/tasks").want(200).into(&list)
	if len(list) != 1 || list[0].ID != v.TaskID {
		t.Errorf("the tenant lists %+v", list)
	}
	e.admin().get("/tasks?resourceId=" + v.ID).want(200).into(&list)
	if len(list) != 1 || list[0].ID != v.TaskID {
		t.Errorf("an administrator lists %+v", list)
	}
}

// pages walks over a list of tasks and gives their ids.
func (e *env) taskPages(query string, limit int) (ids []string) {
	e.t.Helper()
	marker := ""
	for {
		var page []wire.TaskSpec
		r := e.get(fmt.Sprintf("/tasks?limit=%d&marker=%s%s", limit, url.QueryEscape(marker), query)).want(200).into(&page)
		if len(page) > limit {
			e.t.Fatalf("%d tasks on a page of %d", len(page), limit)
		}
		for _, k := range page {
			ids = append(ids, k.ID)
		}
		if marker = r.Header.Get(wire.HeaderNextMarker); marker == "" {
			return ids
		}
	}
}

func TestTaskLists(t *testing.T) {
	e := newEnv(t)
	pool, profile := e.pool(), e.profile()
	var all, active, done []string // newest first
	for i := range 7 {
		v := e.pending(profile)
		all = append([]string{v.TaskID}, all...)
		if i < 4 {
			done = append([]string{v.TaskID}, done...)
		} else {
			active = append([]string{v.TaskID}, active...)
		}
		if i == 3 {
			e.settle(pool)
		}
	}
	host := e.host()
	for _, c := range []struct {
		query string
		want  []string
	}{
		{"", all}, {"&state=active", active}, {"&state=done", done}, {"&state=pending", active}, {"&state=succeeded", done},
		{"&state=failed", nil}, {"&state=waiting", nil}, {"&resource=volumes", all}, {"&resource=snapshots", nil},
		{"&resource=volumes&state=done", done}, {"&resourceId=" + host.ID, nil},
	} {
		for _, limit := range []int{1, 2, 3, 50, 5000} {
			if got := e.taskPages(c.query, limit); fmt.Sprint(got) != fmt.Sprint(c.want) {
				t.Errorf("%s by %d:\n%v, want\n%v", c.query, limit, got, c.want)
			}
		}
	}
	r := e.get("/tasks?limit=2").want(200)
	m := url.QueryEscape(r.Header.Get(wire.HeaderNextMarker))
	e.get("/tasks?limit=2&state=done&marker="+m).fails(400, model.KindInvalid, "marker", "another query")
	e.get("/tasks?limit=0").want(200)
	for _, c := range []struct{ query, field string }{
		{"state=running2", "state"}, {"state=ACTIVE", "state"}, {"resource=volume", "resource"}, {"resource=hosts", "resource"},
		{"limit=-1", "limit"}, {"limit=x", "limit"}, {"marker=x", "marker"}, {"marker=e30", "marker"}, {"offset=3", "offset"}, {"sortKey=id", "sortKey"},
	} {
		e.get("/tasks?"+c.query).fails(400, model.KindInvalid, c.field, "")
	}
}

// A filter that matches little looks at a bounded number of tasks per page.
func TestTaskPagesAreBounded(t *testing.T) {
	x := &taskIndex{all: newTaskTree(), active: newTaskTree(), store: testStore, resets: testStore.Resets()}
	const n = maxTasksLooked*2 + 10
	for i := range n {
		x.put(&model.Volume{Meta: model.Meta{ID: fmt.Sprint(i)}, Task: &model.Task{ID: fmt.Sprintf("%08d", i), State: model.TaskSucceeded}})
	}
	pages, found, after := 0, 0, ""
	for {
		got, next := x.page(after, 10, false, func(t task) bool { return t.id() == "00000003" })
		pages, found = pages+1, found+len(got)
		if next == "" {
			break
		}
		after = next
	}
	if pages != 3 || found != 1 {
		t.Errorf("%d pages, %d found", pages, found)
	}
}

func TestTaskIndexRemembersSome(t *testing.T) {
	x := &taskIndex{all: newTaskTree(), active: newTaskTree(), totals: map[taskKey]int64{}, now: time.Now, store: testStore, resets: testStore.Resets()}
	record := func(i int) *model.Volume {
		return &model.Volume{Meta: model.Meta{ID: fmt.Sprint(i)}, Task: &model.Task{ID: fmt.Sprintf("%08d", i), Kind: model.TaskDelete, State: model.TaskRunning}}
	}
	const n = endedTasks + 100
	for i := range n {
		x.event(db.Event{Type: db.Created, Rec: record(i)})
		x.event(db.Event{Type: db.Deleted, Rec: record(i)})
	}
	if x.all.Len() != endedTasks || x.active.Len() != 0 || len(x.ended) != endedTasks {
		t.Errorf("%d tasks are kept, %d active, %d in the ring", x.all.Len(), x.active.Len(), len(x.ended))
	}
	if _, ok := x.find(fmt.Sprintf("%08d", 99)); ok {
		t.Error("the oldest are still there")
	}
	if k, ok := x.find(fmt.Sprintf("%08d", 100)); !ok || k.state(time.Now()) != model.TaskSucceeded {
		t.Error("a late one is gone")
	}
	if got := x.ends()[taskKey{model.ResVolume, model.TaskDelete, model.TaskSucceeded}]; got != n {
		t.Errorf("%d ends are counted, want %d", got, n)
	}
}

// When the cache had to be loaded anew, so is the index; what is remembered of
// tasks that are gone stays.
func TestTaskIndexAfterAReset(t *testing.T) {
	e := newEnv(t)
	pool, profile := e.pool(), e.profile()
	v := e.pending(profile)
	e.settle(pool)
	e.del("/block/volumes/" + v.ID).want(202)
	e.settle(pool)
	w := e.pending(profile)
	x := e.s.tasks
	x.mu.Lock()
	x.all.Delete(pivot(w.TaskID))
	x.active.Clear()
	x.put(&model.Volume{Meta: model.Meta{ID: "ghost", TenantID: e.tenant}, Task: &model.Task{ID: "ghost"}})
	x.resets = -1
	x.mu.Unlock()
	e.task(v.TaskID)
	e.task(w.TaskID)
	e.get("/tasks/ghost").want(404)
	if got := e.taskPages("&state=active", 10); len(got) != 1 || got[0] != w.TaskID {
		t.Errorf("active: %v", got)
	}
}

func TestCancelTask(t *testing.T) {
	e := newEnv(t)
	pool, profile := e.pool(), e.profile()
	v := e.pending(profile)
	e.setTask(v.ID, func(k *model.Task) { k.Missed(model.Errorf(model.KindUnavailable, "x"), time.Now().Add(time.Hour)) })
	var k wire.TaskSpec
	r := e.post("/tasks/"+v.TaskID+"/cancel", nil).want(202).into(&k)
	if !k.CancelRequested || k.State != model.TaskRunning || k.ID != v.TaskID {
		t.Errorf("%+v", k)
	}
	rec, _ := e.store.Volumes.Get(v.ID)
	if !rec.Task.Cancel || !rec.Task.NextRun.IsZero() || rec.Task.Attempts != 1 || rec.Status != model.StatusCreating {
		t.Errorf("the record's task is %+v", rec.Task)
	}
	if again := e.post("/tasks/"+v.TaskID+"/cancel", nil).want(202); again.Body != r.Body {
		t.Errorf("the second time %s, the first time %s", again.Body, r.Body)
	}
	if now, _ := e.store.Volumes.Get(v.ID); now.Rev != rec.Rev {
		t.Error("asking again wrote the record again")
	}

	// What can be cancelled, by what the task is and how far it has come.
	w := e.volume(pool, profile)
	set := func(kind model.TaskKind, step model.Step, state model.TaskState, next time.Time) string {
		t.Helper()
		k := model.NewTask(model.ResVolume, kind, model.StatusAvailable, "", time.Now())
		k.Step, k.State, k.NextRun = step, state, next
		e.setVolume(w.ID, func(v *model.Volume) { v.Task = k })
		return "/tasks/" + k.ID + "/cancel"
	}
	later := time.Now().Add(time.Hour)
	e.post(set(model.TaskExtend, model.StepReserve, model.TaskPending, time.Time{}), nil).want(202)
	e.post(set(model.TaskExtend, model.StepApply, model.TaskWaiting, later), nil).want(202)
	e.post(set(model.TaskExtend, model.StepApply, model.TaskRunning, time.Time{}), nil).fails(400, model.KindUnsupported, "", "cannot shrink")
	e.post(set(model.TaskDelete, model.StepRemove, model.TaskPending, time.Time{}), nil).fails(400, model.KindUnsupported, "", "does not come back")
	e.post(set(model.TaskRevert, model.StepApply, model.TaskPending, time.Time{}), nil).fails(400, model.KindUnsupported, "", "cannot be undone")
	e.post(set(model.TaskCreate, model.StepFinish, model.TaskSucceeded, time.Time{}), nil).fails(400, model.KindBusy, "", "has ended already: it succeeded")
	e.post(set(model.TaskCreate, model.StepProvision, model.TaskFailed, time.Time{}), nil).fails(400, model.KindBusy, "", "has ended already: it failed")

	var g wire.VolumeGroupSpec
	e.post("/block/volumeGroups", map[string]any{"name": "g", "profiles": []string{profile.ID}}).want(202).into(&g)
	e.post("/tasks/"+g.TaskID+"/cancel", nil).fails(400, model.KindUnsupported, "", "delete the group")
	e.setVolume(w.ID, func(v *model.Volume) { v.Task, v.Status = nil, model.StatusAvailable })
	var s wire.VolumeSnapshotSpec
	e.post("/block/snapshots", map[string]any{"volumeId": w.ID}).want(202).into(&s)
	e.post("/tasks/"+s.TaskID+"/cancel", nil).want(202)
	e.settle(pool)
	var a wire.VolumeAttachmentSpec
	e.post("/block/attachments", map[string]any{"volumeId": w.ID, "hostId": e.host().ID}).want(202).into(&a)
	e.post("/tasks/"+a.TaskID+"/cancel", nil).want(202)
}

func TestRetryOfATaskThatWaits(t *testing.T) {
	e := newEnv(t)
	v := e.pending(e.profile())
	before, _ := e.store.Volumes.Get(v.ID)
	e.post("/tasks/"+v.TaskID+"/retry", nil).want(202)
	if now, _ := e.store.Volumes.Get(v.ID); now.Rev != before.Rev {
		t.Error("a task that waits for nothing was written")
	}
	e.setTask(v.ID, func(k *model.Task) {
		k.Missed(model.Errorf(model.KindUnavailable, "x"), time.Now().Add(time.Hour))
		k.Attempts = 5
	})
	var k wire.TaskSpec
	e.post("/tasks/"+v.TaskID+"/retry", nil).want(202).into(&k)
	rec, _ := e.store.Volumes.Get(v.ID)
	if k.State != model.TaskRunning || k.ID != v.TaskID || !rec.Task.NextRun.IsZero() || rec.Task.Attempts != 5 || rec.Task.Cancel {
		t.Errorf("%+v, stored %+v", k, rec.Task)
	}
}

// failed puts a volume into an error state with a failed task.
func (e *env) failVolume(id string, status model.Status, kind model.TaskKind, change ...func(*model.Volume)) string {
	e.t.Helper()
	var task string
	e.setVolume(id, func(v *model.Volume) {
		v.Task = model.NewTask(model.ResVolume, kind, model.StatusAvailable, "r", time.Now())
		v.Task.Fail(model.Errorf(model.KindInternal, "it broke"))
		v.Task.End(model.TaskFailed, time.Now())
		v.Status, v.StatusReason = status, "it broke"
		for _, f := range change {
			f(v)
		}
		task = v.Task.ID
	})
	return task
}

func TestRetryStartsAFailedOperationAgain(t *testing.T) {
	e := newEnv(t)
	pool, profile := e.pool(), e.profile()
	v := e.volume(pool, profile)
	s := e.snapshot(v)

	for _, c := range []struct {
		status, want model.Status
		kind         model.TaskKind
		change       func(*model.Volume)
		check        func(*model.Volume) bool
	}{
		{model.StatusErrorExtending, model.StatusExtending, model.TaskExtend, func(v *model.Volume) { v.Task.NewSize = model.FromGB(5) },
			func(v *model.Volume) bool { return v.Task.NewSize == model.FromGB(5) && v.Size == model.GiB }},
		{model.StatusErrorReverting, model.StatusReverting, model.TaskRevert, func(v *model.Volume) { v.Task.SnapshotID = s.ID },
			func(v *model.Volume) bool { return v.Task.SnapshotID == s.ID }},
		{model.StatusError, model.StatusCreating, model.TaskCreate, func(v *model.Volume) { v.PoolID = "" },
			func(v *model.Volume) bool {
				return v.PoolID == "" && v.BackendData == nil && v.CreatedAt.Before(v.UpdatedAt)
			}},
	} {
		old := e.failVolume(v.ID, c.status, c.kind, c.change)
		var k wire.TaskSpec
		e.post("/tasks/"+old+"/retry", nil).want(202).into(&k)
		rec, _ := e.store.Volumes.Get(v.ID)
		if rec.Status != c.want || rec.StatusReason != "" || rec.Task.ID != k.ID || k.ID == old || k.Kind != c.kind ||
			rec.Task.State != model.TaskPending || rec.Task.Attempts != 0 || rec.Name != v.Name || rec.TenantID != e.tenant || !c.check(rec) {
			t.Errorf("%s: %+v, task %+v", c.status, rec, rec.Task)
		}
		if was := e.task(old); was.State != model.TaskFailed || was.LastError != "it broke" {
			t.Errorf("%s: the failed task is remembered as %+v", c.status, was)
		}
		e.post("/tasks/"+old+"/retry", nil).fails(400, model.KindBusy, "", "is over (failed)")
		e.settle(pool)
	}
	e.del("/block/snapshots/" + s.ID).want(202)
	e.settle(pool)
	old := e.failVolume(v.ID, model.StatusErrorDeleting, model.TaskDelete)
	e.post("/tasks/"+old+"/retry", nil).want(202)
	e.settle(pool)
	e.get("/block/volumes/" + v.ID).want(404)
}

func TestRetryThatCannotBe(t *testing.T) {
	e := newEnv(t)
	pool, profile := e.pool(), e.profile()
	v := e.volume(pool, profile)
	retry := func(task string) *reply { t.Helper(); return e.post("/tasks/"+task+"/retry", nil) }

	retry(v.TaskID).fails(400, model.KindBusy, "", "nothing to try again")
	retry(e.failVolume(v.ID, model.StatusAvailable, model.TaskExtend)).fails(400, model.KindBusy, "", "send the request again")
	retry(e.failVolume(v.ID, model.StatusErrorReverting, model.TaskRevert, func(v *model.Volume) { v.Task.SnapshotID = "gone" })).
		fails(400, model.KindBusy, "", "snapshot is gone")
	retry(e.failVolume(v.ID, model.StatusError, model.TaskExtend)).fails(400, model.KindBusy, "", "delete it")
	retry(e.failVolume(v.ID, model.StatusError, model.TaskCreate, func(v *model.Volume) { v.Reserved = 1 })).
		fails(400, model.KindBusy, "", "still holds space")
	e.setVolume(v.ID, func(v *model.Volume) { v.Reserved = 0 })

	// A removal that is owed would hit what a second create makes.
	task := e.failVolume(v.ID, model.StatusError, model.TaskCreate)
	debt := &model.Debt{Meta: model.Meta{ID: "volumes." + v.ID, TenantID: e.tenant}, PoolID: pool.ID, Resource: model.ResVolume, ObjectID: v.ID, Reason: "dock away"}
	e.commit((&db.Txn{Label: "test"}).Create(debt))
	retry(task).fails(400, model.KindBusy, "", "still to be removed (debt volumes."+v.ID)
	e.commit((&db.Txn{Label: "test"}).DeleteRaw(db.Key(model.ResDebt, debt.ID)))

	// What the first request was checked for is checked again.
	task = e.failVolume(v.ID, model.StatusErrorDeleting, model.TaskDelete)
	e.commit((&db.Txn{Label: "test"}).Create(&model.Snapshot{Meta: model.Meta{ID: model.NewID(), TenantID: e.tenant}, VolumeID: v.ID, Status: model.StatusAvailable}))
	retry(task).fails(400, model.KindBusy, "", "still has snapshots")
}

func TestRetryOfOtherRecords(t *testing.T) {
	e := newEnv(t)
	pool, profile := e.pool(), e.profile()
	v, h := e.volume(pool, profile), e.host()
	fail := func(r model.Tasked, status model.Status) string {
		t.Helper()
		n, k := withTask(r)
		k.End(model.TaskFailed, time.Now())
		switch x := n.(type) {
		case *model.Snapshot:
			x.Status, x.StatusReason, x.Reserved = status, "it broke", 0
		case *model.Attachment:
			x.Status, x.StatusReason = status, "it broke"
		case *model.Group:
			x.Status, x.StatusReason = status, "it broke"
		}
		e.commit((&db.Txn{Label: "test"}).Update(n))
		return "/tasks/" + k.ID + "/retry"
	}

	s := e.snapshot(v)
	rec, _ := e.store.Snapshots.Get(s.ID)
	e.post(fail(rec, model.StatusError), nil).want(202)
	if rec, _ = e.store.Snapshots.Get(s.ID); rec.Status != model.StatusCreating || rec.StatusReason != "" || !rec.Task.Active() || rec.VolumeID != v.ID {
		t.Errorf("snapshot %+v", rec)
	}
	e.settle(pool)
	e.del("/block/snapshots/" + s.ID).want(202)
	rec, _ = e.store.Snapshots.Get(s.ID)
	e.post(fail(rec, model.StatusErrorDeleting), nil).want(202)
	e.settle(pool)
	e.get("/block/snapshots/" + s.ID).want(404)

	a := e.attachment(v, h)
	e.setVolume(v.ID, func(v *model.Volume) { v.Status = model.StatusAvailable })
	arec, _ := e.store.Attachments.Get(a.ID)
	e.post(fail(arec, model.StatusError), nil).want(202)
	arec, _ = e.store.Attachments.Get(a.ID)
	vrec, _ := e.store.Volumes.Get(v.ID)
	if arec.Status != model.StatusCreating || arec.Connection != nil || !arec.Task.Active() || vrec.Status != model.StatusAttaching {
		t.Errorf("attachment %+v of a volume that is %s", arec, vrec.Status)
	}
	e.settle(pool)
	e.del("/block/attachments/" + a.ID).want(202)
	arec, _ = e.store.Attachments.Get(a.ID)
	e.post(fail(arec, model.StatusErrorDeleting), nil).want(202)
	e.settle(pool)
	e.get("/block/attachments/" + a.ID).want(404)

	var g wire.VolumeGroupSpec
	e.post("/block/volumeGroups", map[string]any{"name": "g", "profiles": []string{profile.ID}}).want(202).into(&g)
	grec, _ := e.store.Groups.Get(g.ID)
	e.post(fail(grec, model.StatusError), nil).want(202)
	if grec, _ = e.store.Groups.Get(g.ID); grec.Status != model.StatusCreating || !grec.Task.Active() || len(grec.Profiles) != 1 {
		t.Errorf("group %+v", grec)
	}
	e.settle(pool)
	e.del("/block/volumeGroups/" + g.ID).want(202)
	grec, _ = e.store.Groups.Get(g.ID)
	e.post(fail(grec, model.StatusErrorDeleting), nil).want(202)
	e.settle(pool)
	e.get("/block/volumeGroups/" + g.ID).want(404)
}

// Of those who retry at the same time, one starts the task.
func TestRetryOnce(t *testing.T) {
	e := newEnv(t)
	pool, profile := e.pool(), e.profile()
	v := e.volume(pool, profile)
	old := e.failVolume(v.ID, model.StatusErrorDeleting, model.TaskDelete)
	const n = 16
	done := make(chan int, n)
	for range n {
		go func() { done <- e.post("/tasks/"+old+"/retry", nil).Status }()
	}
	won := 0
	for range n {
		switch status := <-done; status {
		case 202:
			won++
		case 400:
		default:
			t.Errorf("status %d", status)
		}
	}
	if won != 1 {
		t.Errorf("%d retries were accepted", won)
	}
}

// BenchmarkTaskIndex applies one event to an index of 100,000 volumes.
func BenchmarkTaskIndex(b *testing.B) {
	x := &taskIndex{all: newTaskTree(), active: newTaskTree(), totals: map[taskKey]int64{}, now: time.Now, store: testStore, resets: testStore.Resets()}
	vols := make([]*model.Volume, 100000)
	for i := range vols {
		vols[i] = &model.Volume{Meta: model.Meta{ID: model.NewID()}, Task: &model.Task{ID: model.NewID(), State: model.TaskSucceeded}}
		x.put(vols[i])
	}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		v := vols[i*7919%len(vols)]
		x.event(db.Event{Type: db.Updated, Rec: v, Old: v})
	}
}

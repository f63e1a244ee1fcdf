package api

import (
	"net/http"
	"net/url"
	"slices"
	"time"

	"github.com/gorilla/mux"

	"github.com/osds-io/osds/pkg/db"
	"github.com/osds-io/osds/pkg/model"
	"github.com/osds-io/osds/pkg/model/wire"
)

func (s *Server) routesTasks(r *mux.Router) {
	s.tenantHandle(r, "/tasks", methods{http.MethodGet: s.listTasks})
	s.tenantHandle(r, "/tasks/{taskId}", methods{http.MethodGet: s.getTask})
	s.tenantHandle(r, "/tasks/{taskId}/cancel", methods{http.MethodPost: s.cancelTask})
	s.tenantHandle(r, "/tasks/{taskId}/retry", methods{http.MethodPost: s.retryTask})
}

// tasked are the resources whose records have tasks.
var tasked = []model.Resource{model.ResVolume, model.ResSnapshot, model.ResAttachment, model.ResGroup, model.ResDebt}

// state is where a task stands at a time. Of work in progress the store only
// knows what was written last; the clock does the rest.
func (t task) state(now time.Time) model.TaskState {
	k := t.rec.CurrentTask()
	switch {
	case t.gone():
		return goneState(k)
	case k.State.Done():
		return k.State
	case k.NextRun.After(now):
		return model.TaskWaiting
	case k.State == model.TaskPending && k.Attempts == 0:
		return model.TaskPending
	}
	return model.TaskRunning
}

// spec shows a task.
func (t task) spec(now time.Time) *wire.TaskSpec {
	s := wire.FromTask(t.rec)
	s.State = t.state(now)
	if s.State != model.TaskWaiting {
		s.NextRetry = ""
	}
	if s.State.Done() {
		s.Deadline = ""
	}
	if t.gone() {
		s.ResourceStatus = "" // that of the record, which is gone or has gone on
		if s.EndedAt == "" {
			s.EndedAt = wire.FormatTime(time.Unix(0, t.since))
		}
	}
	return s
}

// seesTask says whether the caller may see a task: that of its tenant's records.
// Debts are for administrators.
func (c *call) seesTask(t task) bool {
	return c.admin || (t.rec.Base().TenantID == c.tenant && t.rec.Res() != model.ResDebt)
}

// taskFilter is what a list of tasks shows.
type taskFilter struct {
	state      string
	resource   string
	resourceID string
}

// States that stand for several.
const (
	tasksActive = "active"
	tasksDone   = "done"
)

var taskStates = []string{tasksActive, tasksDone, string(model.TaskPending), string(model.TaskRunning), string(model.TaskWaiting),
	string(model.TaskSucceeded), string(model.TaskFailed), string(model.TaskCancelled)}

func readTaskFilter(v url.Values) (taskFilter, error) {
	f := taskFilter{state: v.Get("state"), resource: v.Get("resource"), resourceID: v.Get("resourceId")}
	switch {
	case f.state != "" && !slices.Contains(taskStates, f.state):
		return f, model.Invalid("state", "state %q is not known: use one of %s", shorten(f.state), join(taskStates))
	case f.resource != "" && !slices.Contains(tasked, model.Resource(f.resource)):
		return f, model.Invalid("resource", "records of %q have no tasks: use one of %s", shorten(f.resource), join(tasked))
	case v.Get("sortKey") != "":
		return f, model.Invalid("sortKey", "tasks cannot be sorted: they are listed newest first")
	case v.Get("offset") != "" && v.Get("offset") != "0":
		return f, model.Invalid("offset", "tasks have no offset: use marker, with the value of %s", wire.HeaderNextMarker)
	}
	return f, nil
}

// onlyActive says whether nothing but work in progress can match.
func (f *taskFilter) onlyActive() bool {
	return f.state == tasksActive || f.state != "" && f.state != tasksDone && !model.TaskState(f.state).Done()
}

func (f *taskFilter) match(t task, now time.Time) bool {
	if f.resource != "" && string(t.rec.Res()) != f.resource || f.resourceID != "" && t.rec.Base().ID != f.resourceID {
		return false
	}
	switch s := t.state(now); f.state {
	case "":
		return true
	case tasksActive:
		return !s.Done()
	case tasksDone:
		return s.Done()
	default:
		return string(s) == f.state
	}
}

// listTasks gives tasks, newest first.
func (s *Server) listTasks(c *call) error {
	v, err := url.ParseQuery(c.r.URL.RawQuery)
	if err != nil {
		return model.Errorf(model.KindInvalid, "the query string is not well-formed: %w", err)
	}
	limit, err := number(v, "limit", defaultLimit)
	if err != nil {
		return err
	}
	f, err := readTaskFilter(v)
	if err != nil {
		return err
	}
	// The marker is bound to the query by the same means as those of records.
	hash := hashQuery(&db.Query{Tenant: c.scope(), Sort: "tasks", Filters: []db.Filter{
		{Field: "state", Values: []string{f.state}}, {Field: "resource", Values: []string{f.resource}}, {Field: "resourceId", Values: []string{f.resourceID}},
	}})
	var after string
	if m := v.Get("marker"); m != "" {
		at, err := parseMarker(m, hash)
		if err != nil {
			return err
		}
		after = at.ID
	}
	now := s.now()
	page, next := s.tasks.page(after, min(limit, db.MaxPage), f.onlyActive(), func(t task) bool {
		return c.seesTask(t) && f.match(t, now)
	})
	if next != "" {
		c.w.Header()["X-Osds-Next-Marker"] = []string{marker{db.Cursor{ID: next}, hash}.String()}
	}
	out := make([]*wire.TaskSpec, len(page))
	for i, t := range page {
		out[i] = t.spec(now)
	}
	return c.JSON(http.StatusOK, out)
}

// task gives the task that the path names.
func (c *call) task() (task, error) {
	id := c.pathID("taskId")
	t, ok := c.s.tasks.find(id)
	if !ok || !c.seesTask(t) {
		return task{}, notFound("task", id, "there is no such task, or it ended too long ago")
	}
	return t, nil
}

func (s *Server) getTask(c *call) error {
	t, err := c.task()
	if err != nil {
		return err
	}
	return c.JSON(http.StatusOK, t.spec(s.now()))
}

// liveTask gives the task that the path names with its record as it is now, for
// changes. It fails for a task that its record no longer shows.
func (c *call) liveTask() (task, error) {
	t, err := c.task()
	if err != nil {
		return t, err
	}
	id := t.id()
	if rec, ok := c.store().Tasked(t.rec.Res(), t.rec.Base().ID); ok && rec.CurrentTask() != nil && rec.CurrentTask().ID == id {
		return task{rec: rec}, nil
	}
	if !t.gone() {
		t.since = c.s.now().UnixNano()
	}
	return t, model.Errorf(model.KindBusy, "task %s is over (%s), and %s %s is gone or has had another task since",
		id, t.state(c.s.now()), singular(t.rec.Res()), t.rec.Base().ID)
}

// singular names one record of a resource in messages.
func singular(r model.Resource) string {
	return map[model.Resource]string{
		model.ResVolume: "volume", model.ResSnapshot: "volume snapshot", model.ResAttachment: "volume attachment",
		model.ResGroup: "volume group", model.ResDebt: "debt",
	}[r]
}

// withTask gives a copy of a record, and the task in the copy, to change.
func withTask(r model.Tasked) (model.Tasked, *model.Task) {
	switch x := r.(type) {
	case *model.Volume:
		n := x.Clone()
		return n, n.Task
	case *model.Snapshot:
		n := x.Clone()
		return n, n.Task
	case *model.Attachment:
		n := x.Clone()
		return n, n.Task
	case *model.Group:
		n := x.Clone()
		return n, n.Task
	case *model.Debt:
		n := x.Clone()
		return n, n.Task
	}
	return nil, nil
}

// cancelTask asks a task to undo itself. The worker looks at the wish before
// each step, and is woken if it waits.
func (s *Server) cancelTask(c *call) error {
	const failed = "cancel task failed: "
	if x, err := c.liveTask(); err == nil && x.rec.CurrentTask().Active() && x.rec.CurrentTask().Cancel {
		return c.JSON(http.StatusAccepted, x.spec(s.now())) // asked for already
	}
	return c.change("api.task.cancel", func(t *db.Txn) (*answer, error) {
		x, err := c.liveTask()
		if err != nil {
			return nil, prefixed(failed, err)
		}
		if err := mayCancel(x, s.now()); err != nil {
			return nil, prefixed(failed, err)
		}
		rec, k := withTask(x.rec)
		k.Cancel, k.NextRun = true, time.Time{}
		rec.Base().UpdatedAt = s.now()
		t.Update(rec)
		return &answer{status: http.StatusAccepted, body: task{rec: rec}.spec(s.now())}, nil
	})
}

// mayCancel says whether what a task does can be undone.
func mayCancel(x task, now time.Time) error {
	k, res := x.rec.CurrentTask(), x.rec.Res()
	if k.State.Done() {
		return model.Errorf(model.KindBusy, "task %s has ended already: it %s", k.ID, k.State)
	}
	refuse := func(why string) error {
		return model.Errorf(model.KindUnsupported, "task %s (%s of %s %s) cannot be undone: %s", k.ID, k.Kind, singular(res), x.rec.Base().ID, why)
	}
	switch {
	case k.Kind == model.TaskCreate && res != model.ResGroup:
		return nil
	case k.Kind == model.TaskCreate:
		return refuse("it takes no time; delete the group instead")
	case k.Kind == model.TaskResize:
		return nil // the host sees the size when it looks again
	case k.Kind == model.TaskExtend && k.Step == model.StepResize:
		return refuse("the volume has grown, and volumes cannot shrink")
	case k.Kind == model.TaskExtend && (k.Step == model.StepReserve || k.Progress != nil || x.state(now) == model.TaskWaiting):
		// While the new part is being made ready, or it waits for its next try the backend has not grown it, or
		// the worker finds that it has.
		return nil
	case k.Kind == model.TaskExtend:
		return refuse("the backend is growing the volume, and volumes cannot shrink")
	case k.Kind == model.TaskDelete:
		return refuse("what is deleted on the backend does not come back")
	case k.Kind == model.TaskRevert:
		return refuse("the volume is neither as it was nor as the snapshot until it is done")
	case k.Kind == model.TaskSettle:
		return refuse("what is left on the backend has to be removed; it ends when the dock returns")
	}
	return refuse("wait for its end")
}

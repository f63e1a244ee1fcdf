package model

import "time"

// TaskKind says what a task does to its record.
type TaskKind string

// The task kinds.
const (
	TaskCreate   TaskKind = "create"
	TaskDelete   TaskKind = "delete"
	TaskExtend   TaskKind = "extend"
	TaskRevert   TaskKind = "revert"
	TaskUpdate   TaskKind = "update"
	TaskAttach   TaskKind = "attach"
	TaskSnapshot TaskKind = "snapshot"
	TaskSettle   TaskKind = "settle"
	// TaskResize has a host see a volume's new size.
	TaskResize TaskKind = "resize"
)

// TaskState is where a task stands.
type TaskState string

// The task states. Pending, running and waiting tasks are work in progress;
// which of the three is decided by the clock and the worker, not stored.
const (
	TaskPending   TaskState = "pending"   // accepted, not begun
	TaskRunning   TaskState = "running"   // a step has been begun
	TaskWaiting   TaskState = "waiting"   // a step failed and will be tried again
	TaskSucceeded TaskState = "succeeded" // ended as asked
	TaskFailed    TaskState = "failed"    // ended otherwise; the record says why
	TaskCancelled TaskState = "cancelled" // ended because a user asked
)

// Done says whether the task has ended.
func (s TaskState) Done() bool {
	return s == TaskSucceeded || s == TaskFailed || s == TaskCancelled
}

// Step is one step of a task. Steps of a kind of task are listed in the
// controller that runs it.
type Step string

// The steps.
const (
	StepPlace     Step = "place"     // choose a pool and reserve
	StepProvision Step = "provision" // make it on the backend
	StepUndo      Step = "undo"      // remove what a failed step may have left
	StepReserve   Step = "reserve"   // reserve more in the pool
	StepApply     Step = "apply"     // change it on the backend
	StepExport    Step = "export"    // export to a host
	StepUnexport  Step = "unexport"  // end the export
	StepAttach    Step = "attach"    // have the host's dock make the device
	StepDetach    Step = "detach"    // have the host's dock take the device away
	StepResize    Step = "resize"    // have the hosts see the new size
	StepRemove    Step = "remove"    // remove from the backend
	StepMembers   Step = "members"   // work on the members of a group
	StepFinish    Step = "finish"    // write the result
)

// Task is the work in progress on a record, stored in the record itself, so
// that accepting, moving on and ending are one write each. After it ended it
// stays as the record's last task.
type Task struct {
	ID    string    `json:"id"`
	Kind  TaskKind  `json:"kind"`
	State TaskState `json:"state"`
	Step  Step      `json:"step,omitempty"`
	// Attempts counts the tries of the current step that failed.
	Attempts int `json:"attempts,omitempty"`
	// Refusals counts those of them that got a definite answer. The others say
	// nothing about how the next will go.
	Refusals  int       `json:"refusals,omitempty"`
	LastError string    `json:"error,omitempty"`
	ErrorKind Kind      `json:"errorKind,omitempty"`
	NextRun   time.Time `json:"next,omitzero"`
	// Progress is how far long work of the current step is; nil if nothing was
	// told of it.
	Progress  *TaskProgress `json:"progress,omitempty"`
	CreatedAt time.Time     `json:"created"`
	EndedAt   time.Time     `json:"ended,omitzero"`
	// Owner is the osdslet that ran it last, Epoch its epoch.
	Owner     string `json:"owner,omitempty"`
	Epoch     int64  `json:"epoch,omitempty"`
	RequestID string `json:"request,omitempty"`
	// Cancel is set by a user's request; the task then undoes itself.
	Cancel bool `json:"cancel,omitempty"`
	// Deadline is when retrying ends and the task fails or leaves a debt.
	Deadline time.Time `json:"deadline,omitzero"`
	// NewSize is the size asked for by extend.
	NewSize Bytes `json:"newSize,omitempty"`
	// GrowFS asks for the file system on the volume to grow with it.
	GrowFS bool `json:"growFS,omitempty"`
	// Force, of a detach: cut the host off first, whether it answers or not.
	Force bool `json:"force,omitempty"`
	// Release, of a volume's deletion: its data stays on the backend.
	Release bool `json:"release,omitempty"`
	// SnapshotID is what revert goes back to.
	SnapshotID string `json:"snapshot,omitempty"`
	// Excluded are pools that failed this create and were undone.
	Excluded []string `json:"excluded,omitempty"`
	// Failure is why a step failed, kept while it is being undone, and becomes
	// the record's statusReason.
	Failure     string `json:"failure,omitempty"`
	FailureKind Kind   `json:"failureKind,omitempty"`
	// PrevStatus is the status to go back to.
	PrevStatus Status `json:"prev,omitempty"`
	// History is the steps that ended, oldest first, at most MaxHistory.
	History []StepDone `json:"history,omitempty"`
}

// MaxHistory bounds Task.History: older entries are dropped first.
const MaxHistory = 8

// StepDone is a step that ended.
type StepDone struct {
	Step     Step      `json:"step"`
	At       time.Time `json:"at"`
	Attempts int       `json:"attempts,omitempty"`
	Error    string    `json:"error,omitempty"`
}

// Active says whether the task is work in progress.
func (t *Task) Active() bool { return t != nil && !t.State.Done() }

// Clone gives a copy that may be changed; nil for nil. Progress is replaced as a
// whole, never changed, and so is shared.
func (t *Task) Clone() *Task {
	if t == nil {
		return nil
	}
	c := *t
	c.Excluded = append([]string(nil), t.Excluded...)
	c.History = append([]StepDone(nil), t.History...)
	return &c
}

// firstStep is where a task of a kind begins, by resource.
var firstStep = map[Resource]map[TaskKind]Step{
	ResVolume:     {TaskCreate: StepPlace, TaskDelete: StepRemove, TaskExtend: StepReserve, TaskRevert: StepApply},
	ResSnapshot:   {TaskCreate: StepReserve, TaskDelete: StepRemove},
	ResAttachment: {TaskCreate: StepExport, TaskDelete: StepUnexport, TaskResize: StepResize},
	ResGroup:      {TaskCreate: StepPlace, TaskUpdate: StepMembers, TaskDelete: StepMembers},
	ResDebt:       {TaskSettle: StepRemove},
}

// NewTask makes the task that starts an operation on a record; it is written in
// the same transaction as the record's transitional status. prev is the status
// to go back to if the operation fails without effect.
func NewTask(res Resource, kind TaskKind, prev Status, requestID string, now time.Time) *Task {
	return &Task{
		ID: NewID(), Kind: kind, State: TaskPending, Step: firstStep[res][kind],
		CreatedAt: now.UTC(), RequestID: requestID, PrevStatus: prev,
	}
}

// NewDetach makes the task that ends an attachment. A host that a dock serves
// gives its device up first; with force it is cut off first.
func NewDetach(a *Attachment, force bool, requestID string, now time.Time) *Task {
	t := NewTask(ResAttachment, TaskDelete, a.Status, requestID, now)
	t.Force = force
	if a.DockID != "" && !force {
		t.Step = StepDetach
	}
	return t
}

// Begin moves the task to a step: the one before is entered in the history.
func (t *Task) Begin(step Step, now time.Time) {
	t.done(now)
	t.Step, t.State = step, TaskRunning
	t.Attempts, t.Refusals, t.LastError, t.ErrorKind, t.NextRun, t.Progress = 0, 0, "", "", time.Time{}, nil
}

// End ends the task.
func (t *Task) End(state TaskState, now time.Time) {
	t.done(now)
	t.State, t.EndedAt, t.NextRun, t.Progress = state, now.UTC(), time.Time{}, nil
}

// EndWith ends the task as err says: succeeded if it is nil, else failed, or
// cancelled if a user asked for that.
func (t *Task) EndWith(err error, now time.Time) {
	state := TaskSucceeded
	if err != nil {
		t.LastError, t.ErrorKind = err.Error(), KindOf(err)
		state = TaskFailed
		if t.Cancel {
			state = TaskCancelled
		}
	}
	t.End(state, now)
}

// Reason is why the task is going to fail, as Fail remembered it.
func (t *Task) Reason() error { return Errorf(t.FailureKind, "%s", t.Failure) }

// Fail remembers why the task is going to fail while what it did is undone.
func (t *Task) Fail(err error) {
	t.Failure, t.FailureKind = err.Error(), KindOf(err)
}

// Missed notes a failed attempt of the current step and when to try again.
func (t *Task) Missed(err error, next time.Time) {
	t.Attempts++
	switch KindOf(err) {
	case KindUnavailable, KindUnknownOutcome, KindStale:
	default:
		t.Refusals++
	}
	t.State, t.LastError, t.ErrorKind, t.NextRun = TaskWaiting, err.Error(), KindOf(err), next.UTC()
}

func (t *Task) done(now time.Time) {
	h := append(append([]StepDone(nil), t.History...), StepDone{Step: t.Step, At: now.UTC(), Attempts: t.Attempts, Error: t.LastError})
	if len(h) > MaxHistory {
		h = h[len(h)-MaxHistory:]
	}
	t.History = h
}

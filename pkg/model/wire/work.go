package wire

import (
	"encoding/json"
	"time"

	"github.com/osds-io/osds/pkg/model"
)

// TaskSpec is the work on a record: in progress, or the last that ended.
type TaskSpec struct {
	ID         string          `json:"id"`
	Resource   model.Resource  `json:"resource"`
	ResourceID string          `json:"resourceId"`
	TenantID   string          `json:"tenantId,omitempty"`
	Kind       model.TaskKind  `json:"kind"`
	State      model.TaskState `json:"state"`
	Step       model.Step      `json:"step,omitempty"`
	// Attempts counts the failed tries of the current step; NextRetry is when
	// it will be tried again, Deadline when trying ends.
	Attempts  int        `json:"attempts"`
	LastError string     `json:"lastError,omitempty"`
	ErrorKind model.Kind `json:"errorKind,omitempty"`
	NextRetry string     `json:"nextRetry,omitempty"`
	// Progress is of the current step, where its work is long.
	Progress  *TaskProgressSpec `json:"progress,omitempty"`
	CreatedAt string            `json:"createdAt"`
	EndedAt   string            `json:"endedAt,omitempty"`
	Deadline  string            `json:"deadline,omitempty"`
	Owner     string            `json:"owner,omitempty"`
	Epoch     int64             `json:"epoch,omitempty"`
	RequestID string            `json:"requestId,omitempty"`
	Steps     []TaskStepSpec    `json:"steps,omitempty"`
	// CancelRequested says that a user asked for the task to undo itself.
	CancelRequested bool  `json:"cancelRequested,omitempty"`
	NewSize         int64 `json:"newSize,omitempty"` // GB
	// GrowFileSystem, of a resize; Force, of a detach.
	GrowFileSystem bool `json:"growFileSystem,omitempty"`
	Force          bool `json:"force,omitempty"`
	// Release, of a volume's deletion: its data stays on the backend.
	Release       bool     `json:"release,omitempty"`
	SnapshotID    string   `json:"snapshotId,omitempty"`
	ExcludedPools []string `json:"excludedPools,omitempty"`
	// ResourceStatus and ResourceName save a second question.
	ResourceName   string       `json:"resourceName,omitempty"`
	ResourceStatus model.Status `json:"resourceStatus,omitempty"`
}

// TaskProgressSpec is how far long work is. Sizes are bytes.
type TaskProgressSpec struct {
	What    string `json:"what"`
	Done    int64  `json:"done"`
	Total   int64  `json:"total"`
	Percent int    `json:"percent"`
	// AdvancedAt is when it was last seen to advance.
	AdvancedAt string `json:"advancedAt"`
}

// TaskStepSpec is a step that ended.
type TaskStepSpec struct {
	Step     model.Step `json:"step"`
	At       string     `json:"at"`
	Attempts int        `json:"attempts,omitempty"`
	Error    string     `json:"error,omitempty"`
}

// FromTask shows the task of a record; nil if it never had one.
func FromTask(r model.Tasked) *TaskSpec {
	t := r.CurrentTask()
	if t == nil {
		return nil
	}
	m := r.Base()
	s := &TaskSpec{
		ID:              t.ID,
		Resource:        r.Res(),
		ResourceID:      m.ID,
		TenantID:        m.TenantID,
		Kind:            t.Kind,
		State:           t.State,
		Step:            t.Step,
		Attempts:        t.Attempts,
		LastError:       t.LastError,
		ErrorKind:       t.ErrorKind,
		CreatedAt:       FormatTime(t.CreatedAt),
		EndedAt:         FormatTime(t.EndedAt),
		Owner:           t.Owner,
		Epoch:           t.Epoch,
		RequestID:       t.RequestID,
		CancelRequested: t.Cancel,
		NewSize:         t.NewSize.GBCeil(),
		GrowFileSystem:  t.GrowFS,
		Force:           t.Force,
		Release:         t.Release,
		SnapshotID:      t.SnapshotID,
		ExcludedPools:   t.Excluded,
		ResourceName:    m.Name,
		ResourceStatus:  r.GetStatus(),
	}
	if s.LastError == "" && t.Failure != "" {
		s.LastError, s.ErrorKind = t.Failure, t.FailureKind
	}
	if !t.State.Done() {
		s.NextRetry, s.Deadline = FormatTime(t.NextRun), FormatTime(t.Deadline)
	}
	if p := t.Progress; p != nil {
		s.Progress = &TaskProgressSpec{What: p.What, Done: int64(p.Done), Total: int64(p.Total), Percent: p.Progress().Percent(), AdvancedAt: FormatTime(p.At)}
	}
	for _, d := range t.History {
		s.Steps = append(s.Steps, TaskStepSpec{Step: d.Step, At: FormatTime(d.At), Attempts: d.Attempts, Error: d.Error})
	}
	return s
}

// EventType says what happened to a record. Resync is not about a record: the
// stream cannot go on from where the client was, which must list again.
type EventType string

// The event types.
const (
	EventCreated EventType = "created"
	EventUpdated EventType = "updated"
	EventDeleted EventType = "deleted"
	EventResync  EventType = "resync"
)

// EventSpec is one change of one record.
type EventSpec struct {
	// ID is "<revision>.<n>", the n-th event of a revision: what a client
	// sends as Last-Event-ID to go on after it.
	ID         string         `json:"id"`
	Revision   int64          `json:"revision"`
	Type       EventType      `json:"type"`
	Resource   model.Resource `json:"resource"`
	ResourceID string         `json:"resourceId"`
	TenantID   string         `json:"tenantId,omitempty"`
	// Object is the record as a GET would show it; for a deletion, as it was
	// last, if that is known.
	Object json.RawMessage `json:"object,omitempty"`
}

// DebtSpec is work owed on a backend whose dock did not answer.
type DebtSpec struct {
	Base
	TenantID string         `json:"tenantId,omitempty"`
	Name     string         `json:"name,omitempty"`
	DockID   string         `json:"dockId"`
	PoolID   string         `json:"poolId"`
	Resource model.Resource `json:"resource"`
	ObjectID string         `json:"objectId"`
	VolumeID string         `json:"volumeId,omitempty"`
	Force    bool           `json:"force,omitempty"`
	Reserved int64          `json:"reserved"` // bytes
	Reason   string         `json:"reason"`
	TaskID   string         `json:"taskId,omitempty"`
}

// FromDebt shows a debt.
func FromDebt(d *model.Debt) *DebtSpec {
	return &DebtSpec{
		Base:     baseOf(&d.Meta),
		TenantID: d.TenantID,
		Name:     d.Name,
		DockID:   d.DockID,
		PoolID:   d.PoolID,
		Resource: d.Resource,
		ObjectID: d.ObjectID,
		VolumeID: d.VolumeID,
		Force:    d.Force,
		Reserved: int64(d.Reserved),
		Reason:   d.Reason,
		TaskID:   taskID(d.Task),
	}
}

// LedgerSpec is a pool's account. Sizes are bytes: this is for checking sums.
type LedgerSpec struct {
	PoolID   string `json:"poolId"`
	PoolName string `json:"poolName"`
	Reserved int64  `json:"reserved"`
	Limit    int64  `json:"limit"`
	Total    int64  `json:"total"`
	Free     int64  `json:"free"`
	// Volumes, Snapshots and Debts are what each of them holds of Reserved.
	Volumes   int64 `json:"volumes"`
	Snapshots int64 `json:"snapshots"`
	Debts     int64 `json:"debts"`
}

// DoctorReport is what the invariants' checkers found.
type DoctorReport struct {
	At       string        `json:"at"`
	Revision int64         `json:"revision,omitempty"`
	OK       bool          `json:"ok"`
	Checks   []DoctorCheck `json:"checks"`
}

// MaxCounterExamples bounds DoctorCheck.CounterExamples.
const MaxCounterExamples = 20

// DoctorCheck is one invariant. A check that could not be made has Error and is
// not OK.
type DoctorCheck struct {
	Name            string   `json:"name"`
	Description     string   `json:"description,omitempty"`
	OK              bool     `json:"ok"`
	Checked         int      `json:"checked,omitempty"`
	CounterExamples []string `json:"counterExamples,omitempty"`
	// Omitted counts the counter-examples that were left out.
	Omitted int    `json:"omitted,omitempty"`
	Error   string `json:"error,omitempty"`
}

// Add records a counter-example, within the bound.
func (c *DoctorCheck) Add(what string) {
	c.OK = false
	if len(c.CounterExamples) < MaxCounterExamples {
		c.CounterExamples = append(c.CounterExamples, what)
		return
	}
	c.Omitted++
}

// NewDoctorReport gives a report whose OK is that of all its checks.
func NewDoctorReport(at time.Time, revision int64, checks []DoctorCheck) *DoctorReport {
	r := &DoctorReport{At: FormatTime(at), Revision: revision, OK: true, Checks: checks}
	if r.Checks == nil {
		r.Checks = []DoctorCheck{}
	}
	for i := range checks {
		r.OK = r.OK && checks[i].OK
	}
	return r
}

// ExplanationSpec says why a volume is where it is.
type ExplanationSpec = model.Explanation

package model

import (
	"errors"
	"fmt"
	"time"
)

// Progress says how far long work is. It travels in an Error of a call that has
// not come to its end: the same call again goes on with the work, or finds it
// done.
type Progress struct {
	// What names the part of the work, in the past tense: cleared, copied. Done
	// and Total are of that part.
	What        string
	Done, Total Bytes
}

// Percent is how much is done, from 0 to 100, rounded down.
func (p Progress) Percent() int {
	if p.Total <= 0 || p.Done <= 0 {
		return 0
	}
	// Not Done*100: that need not fit.
	return int(min(float64(p.Done)/float64(p.Total), 1) * 100)
}

// String is for people: "cleared 3 GiB of 10 GiB (30 %)".
func (p Progress) String() string {
	return fmt.Sprintf("%s %s of %s (%d %%)", p.What, p.Done, p.Total, p.Percent())
}

// maxProgressText bounds Progress.What.
const maxProgressText = 64

// Valid says whether the figures make sense.
func (p Progress) Valid() bool {
	return p.What != "" && len(p.What) <= maxProgressText && p.Total > 0 && p.Done >= 0 && p.Done <= p.Total
}

// ProgressOf gives the progress that an error tells of; nil if it tells of none.
func ProgressOf(err error) *Progress {
	var e *Error
	if errors.As(err, &e) && e.Progress != nil && e.Progress.Valid() {
		return e.Progress
	}
	return nil
}

// TaskProgress is how far the current step of a task is, as it was told last.
type TaskProgress struct {
	What  string `json:"what"`
	Done  Bytes  `json:"done"`
	Total Bytes  `json:"total"`
	// Best is the most that was ever done of this part: work that a crash has
	// thrown back advances only when it is past it.
	Best Bytes `json:"best"`
	// At is when the work was last seen to advance.
	At time.Time `json:"at"`
}

// Progress gives the figures alone.
func (p *TaskProgress) Progress() Progress { return Progress{p.What, p.Done, p.Total} }

// Advances says whether p is more than the task has seen of its current step.
func (t *Task) Advances(p *Progress) bool {
	have := t.Progress
	return have == nil || have.What != p.What || have.Total != p.Total || p.Done > have.Best
}

// GoesOn notes that the current step has not come to its end, and how far it is.
// That is no failed attempt.
func (t *Task) GoesOn(p *Progress, now time.Time) {
	n := &TaskProgress{What: p.What, Done: p.Done, Total: p.Total, Best: p.Done, At: now.UTC()}
	if !t.Advances(p) {
		n.Best, n.At = t.Progress.Best, t.Progress.At
	}
	t.Progress = n
	t.State, t.LastError, t.ErrorKind, t.NextRun = TaskRunning, "", "", time.Time{}
}

// Idle is how long nothing is known to have gone on in the task: since it was
// accepted, or since its current step was last seen to advance.
func (t *Task) Idle(now time.Time) time.Duration {
	since := t.CreatedAt
	if t.Progress != nil && t.Progress.At.After(since) {
		since = t.Progress.At
	}
	return now.Sub(since)
}

// Doing says, for people, how far an active task is; empty if nothing is known.
func (t *Task) Doing() string {
	if !t.Active() || t.Progress == nil {
		return ""
	}
	return t.Progress.Progress().String()
}

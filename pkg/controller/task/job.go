package task

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/osds-io/osds/pkg/db"
	"github.com/osds-io/osds/pkg/model"
)

// errMoved says that the record is no longer where the step took it from: a
// client changed it or its task. Job.Rec is fresh.
var errMoved = errors.New("the record changed in the meantime")

// storeFailure is an error of the store that ends the term.
type storeFailure struct{ err error }

func (s *storeFailure) Error() string { return s.err.Error() }
func (s *storeFailure) Unwrap() error { return s.err }

// clonable is a tasked record of a known type.
type clonable[T any] interface {
	*T
	model.Tasked
	Clone() *T
}

// Advance commits a change of the job's record. mut gets a copy to change and
// the transaction to add to; it may be called again on a newer copy when a
// client changed the record in between (a name, a description), as long as the
// task stands where it stood. After an error other than a conflict the change
// was not made, and space that the transaction would have reserved is released.
func Advance[T any, P clonable[T]](j *Job, label string, mut func(P, *db.Txn) error) error {
	return commit[T, P](j, label, false, mut)
}

// Drop commits the removal of the job's record. mut gets the record as it is (a
// copy) and the transaction to add to.
func Drop[T any, P clonable[T]](j *Job, label string, mut func(P, *db.Txn) error) error {
	return commit[T, P](j, label, true, mut)
}

func commit[T any, P clonable[T]](j *Job, label string, drop bool, mut func(P, *db.Txn) error) error {
	// Not the step's context: that one ends when the user cancels, and a commit
	// of unknown outcome would cost the term.
	ctx := j.e.ctx
	for tries := 0; ; tries++ {
		base := j.Rec.(P)
		c := P(base.Clone())
		t := &db.Txn{Label: label}
		if err := mut(c, t); err != nil {
			return err
		}
		if drop {
			t.Remove(c)
		} else {
			c.Base().UpdatedAt = j.e.Now().UTC()
			if k := c.CurrentTask(); k != nil {
				k.Owner, k.Epoch = j.e.Store.Instance(), j.e.Term.Epoch
			}
			t.Update(c)
		}
		rev, err := j.e.commit(ctx, t)
		if err == nil {
			n := new(T)
			*n = *c // the cache serves c's parts; its Rev is ours to set
			P(n).Base().Rev = rev
			j.Rec, j.gone, j.last = P(n), drop, rev
			return nil
		}
		var conflict *db.ErrConflict
		if !errors.As(err, &conflict) {
			return failure(err)
		}
		was := base.CurrentTask()
		if err := j.reload(ctx, conflict.Rev); err != nil {
			return err
		}
		if j.gone {
			return errMoved
		}
		if j.Rec.Base().Rev == base.Base().Rev {
			// Not this record, but another one that the change depends on, or
			// the epoch: do not run in circles until that is known here.
			select {
			case <-time.After(time.Duration(tries+1) * 10 * time.Millisecond):
			case <-ctx.Done():
			}
		}
		now := j.Rec.CurrentTask()
		if tries >= 20 || now == nil || now.ID != was.ID || now.Step != was.Step || now.Cancel != was.Cancel || !now.Active() {
			return errMoved
		}
	}
}

// note changes only the task, for failed attempts.
func (j *Job) note(f func(*model.Task)) error {
	switch j.Rec.(type) {
	case *model.Volume:
		return Advance(j, "volume.note", func(r *model.Volume, _ *db.Txn) error { f(r.Task); return nil })
	case *model.Snapshot:
		return Advance(j, "snapshot.note", func(r *model.Snapshot, _ *db.Txn) error { f(r.Task); return nil })
	case *model.Attachment:
		return Advance(j, "attachment.note", func(r *model.Attachment, _ *db.Txn) error { f(r.Task); return nil })
	case *model.Group:
		return Advance(j, "group.note", func(r *model.Group, _ *db.Txn) error { f(r.Task); return nil })
	case *model.Debt:
		return Advance(j, "debt.note", func(r *model.Debt, _ *db.Txn) error { f(r.Task); return nil })
	}
	return fmt.Errorf("no tasks on %s", j.res)
}

// reload reads the record anew once the cache has reached rev.
func (j *Job) reload(ctx context.Context, rev int64) error {
	if err := j.e.Store.WaitRev(ctx, rev); err != nil {
		return &storeFailure{err}
	}
	r, ok := j.e.Store.Tasked(j.res, j.id)
	if !ok {
		j.gone = true
		return nil
	}
	j.Rec = r
	return nil
}

// commit sends a transaction through the term's lane: the one with the ledger if
// it changes accounts, else the other. Released space is taken off the ledger
// when it is certain; reserved space is given back when the transaction failed.
func (e *Engine) commit(ctx context.Context, t *db.Txn) (int64, error) {
	lane := e.Term.Side
	if len(t.Deltas) > 0 {
		lane = e.Term.Lane
	}
	rev, err := lane.Commit(ctx, t)
	for pool, d := range t.Deltas {
		if (err == nil) == (d < 0) {
			e.Release(pool, max(d, -d))
		}
	}
	return rev, err
}

// Commit is for handlers' changes of records other than the job's.
func (j *Job) Commit(t *db.Txn) error {
	ctx := j.e.ctx
	_, err := j.e.commit(ctx, t)
	var conflict *db.ErrConflict
	if err == nil {
		return nil
	}
	if errors.As(err, &conflict) {
		if werr := j.e.Store.WaitRev(ctx, conflict.Rev); werr != nil {
			return &storeFailure{werr}
		}
		return errMoved
	}
	return failure(err)
}

// failure says whether an error of a commit ends the term. One that is about the
// transaction itself does not: it would come again with the next term, and hold
// up everything else.
func failure(err error) error {
	if model.IsKind(err, model.KindInternal, model.KindInvalid) {
		return err
	}
	return &storeFailure{err}
}

// Task is the job's task.
func (j *Job) Task() *model.Task { return j.Rec.CurrentTask() }

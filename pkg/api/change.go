package api

import (
	"errors"
	"net/http"

	"github.com/osds-io/osds/pkg/db"
	"github.com/osds-io/osds/pkg/model"
	"github.com/osds-io/osds/pkg/model/wire"
)

// answer is what a change answers with. Body is encoded before the commit, so
// that it can be stored with it; nil is an empty body.
type answer struct {
	status int
	body   any
	// record says that the body shows one record, which the change writes: the
	// answer then has an entity tag.
	record bool
	// rev is the record's present revision, for a change that turns out to have
	// nothing to write.
	rev int64
}

// accepted is the answer of a change of one record whose work is still to do.
func accepted(body any) *answer {
	return &answer{status: http.StatusAccepted, body: body, record: true}
}

// done is the answer of a change of one record that needs no work.
func done(body any) *answer { return &answer{status: http.StatusOK, body: body, record: true} }

// change makes one transaction and answers. build validates, reads the cache and
// fills the transaction; it is called again, with an empty one, if the commit
// collided with another change. The answer waits until the cache shows the
// change, and is stored with it if the request has an Idempotency-Key.
func (c *call) change(label string, build func(t *db.Txn) (*answer, error)) error {
	idem, err := c.idempotency()
	if err != nil {
		return err
	}
	buf := getBuffer()
	defer putBuffer(buf)
	var a *answer
	var rev int64
	var again *stored
	err = c.store().Retry(c.ctx, maxTries, func() error {
		t := &db.Txn{Label: label}
		var err error
		if a, err = build(t); err != nil {
			// The reason may be the work of the same request, sent before.
			if again, err = idem.lookUp(c, err); again != nil {
				return nil
			}
			return err
		}
		buf.Reset()
		if a.body != nil {
			if err := encode(buf, a.body); err != nil {
				return err
			}
		}
		if err := idem.store(c, t, a, buf.Bytes()); err != nil {
			return err
		}
		if len(t.Ops) == 0 {
			rev = a.rev
			return nil
		}
		rev, err = c.store().Commit(c.ctx, t)
		if err == nil {
			return nil
		}
		idem.failed(c, err)
		if _, ok := err.(*db.ErrConflict); !ok {
			return err
		}
		if again, err = idem.lookUp(c, err); again != nil {
			return nil
		}
		return err
	})
	if err != nil {
		return conflictAnswer(err)
	}
	if again != nil {
		return c.replay(again)
	}
	if err := c.store().WaitRev(c.ctx, rev); err != nil {
		return err
	}
	c.rev = max(c.rev, rev)
	h := c.w.Header()
	if a.record {
		h["Etag"] = []string{wire.ETag(rev)}
	}
	ct := ""
	if a.body != nil {
		ct = contentJSON
	}
	c.send(a.status, ct, buf.Bytes())
	return nil
}

// conflictAnswer makes a change that lost against others again and again look
// like what it is for its client: something to try again.
func conflictAnswer(err error) error {
	var conflict *db.ErrConflict
	if errors.As(err, &conflict) {
		return &model.Error{Kind: model.KindBusy, Status: http.StatusServiceUnavailable, Message: err.Error(), Err: err}
	}
	return err
}

// hold takes the in-process locks of records that the change touches.
func (c *call) hold(ids ...string) (release func(), err error) {
	return c.s.locks.hold(c.ctx, ids...)
}

package api

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/osds-io/osds/pkg/db"
	"github.com/osds-io/osds/pkg/model"
	"github.com/osds-io/osds/pkg/model/wire"
)

// headerReplayed marks an answer that was given before.
const headerReplayed = "Idempotency-Replayed"

const (
	// keepAnswers is how long the answer to an Idempotency-Key is kept at
	// least; leases are made once per leaseEvery and shared.
	keepAnswers = 24 * time.Hour
	leaseEvery  = time.Hour
)

// stored is the answer to a request with an Idempotency-Key, as it is kept.
type stored struct {
	Request string          `json:"request"` // hash of method, path and body
	Status  int             `json:"status"`
	Record  bool            `json:"record"`
	Body    json.RawMessage `json:"body"`
	rev     int64
}

// idempotency is the request's key; nil if it has none.
type idempotency struct {
	key     string
	request string
}

// idempotency reads the request's Idempotency-Key.
func (c *call) idempotency() (*idempotency, error) {
	hs := c.r.Header[wire.HeaderIdempotencyKey]
	if len(hs) == 0 {
		return nil, nil
	}
	if len(hs) > 1 || !printable(hs[0], 255) {
		return nil, model.Invalid(wire.HeaderIdempotencyKey, "%s must be given once, with 1 to 255 printable ASCII characters", wire.HeaderIdempotencyKey)
	}
	body, err := c.readBody()
	if err != nil {
		return nil, err
	}
	h := sha256.New()
	_, _ = io.WriteString(h, c.r.Method+"\n"+c.r.URL.Path+"\n"+c.r.URL.RawQuery+"\n")
	_, _ = h.Write(body)
	key := sha256.Sum256([]byte(c.tenant + "\n" + hs[0]))
	return &idempotency{key: db.IdempotencyKey(hex.EncodeToString(key[:])), request: hex.EncodeToString(h.Sum(nil))}, nil
}

func printable(s string, max int) bool {
	if s == "" || len(s) > max {
		return false
	}
	for i := 0; i < len(s); i++ {
		if s[i] < ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}

// lookUp asks whether the same request was answered before. If it was, its
// answer counts instead of err; if the key was used for another request, that is
// the error.
func (i *idempotency) lookUp(c *call, err error) (*stored, error) {
	if i == nil {
		return nil, err
	}
	b, rev, gerr := c.store().GetRaw(c.ctx, i.key)
	if gerr != nil {
		return nil, gerr
	}
	if b == nil {
		return nil, err
	}
	st := &stored{rev: rev}
	if uerr := json.Unmarshal(b, st); uerr != nil {
		return nil, model.Errorf(model.KindInternal, "the stored answer cannot be read: %w", uerr)
	}
	if st.Request != i.request {
		return nil, &model.Error{Kind: model.KindConflict, Status: http.StatusUnprocessableEntity, Field: wire.HeaderIdempotencyKey,
			Message: "this " + wire.HeaderIdempotencyKey + " was used for another request: use a new key for a new request"}
	}
	return st, nil
}

// store adds the answer to the transaction. The guard makes sure that of two
// requests with the same key only one does the work.
func (i *idempotency) store(c *call, t *db.Txn, a *answer, body []byte) error {
	if i == nil {
		return nil
	}
	lease, err := c.s.leases.get(c.ctx, c.s)
	if err != nil {
		return err
	}
	t.If(i.key, db.Absent).PutRaw(i.key, encodeStored(i.request, a, body), lease)
	return nil
}

// encodeStored is the JSON of a stored answer, written by hand: the body is JSON
// already, and the encoder would look through it once more.
func encodeStored(request string, a *answer, body []byte) []byte {
	b := make([]byte, 0, len(body)+128)
	b = append(append(b, `{"request":"`...), request...) // hexadecimal digits
	b = strconv.AppendInt(append(b, `","status":`...), int64(a.status), 10)
	b = strconv.AppendBool(append(b, `,"record":`...), a.record)
	if len(body) > 0 {
		b = append(append(b, `,"body":`...), body...)
	}
	return append(b, '}')
}

// failed forgets the shared lease if it may be why a commit failed.
func (i *idempotency) failed(c *call, err error) {
	if i != nil && model.IsKind(err, model.KindUnavailable) {
		c.s.leases.forget()
	}
}

// replay gives an answer again. The record's entity tag is that of the change:
// both were written at the same revision.
func (c *call) replay(st *stored) error {
	if err := c.store().WaitRev(c.ctx, st.rev); err != nil {
		return err
	}
	c.rev = max(c.rev, st.rev)
	h := c.w.Header()
	h[headerReplayed] = []string{"true"}
	if st.Record {
		h["Etag"] = []string{wire.ETag(st.rev)}
	}
	ct := ""
	if len(st.Body) > 0 {
		ct = contentJSON
	}
	c.send(st.Status, ct, st.Body)
	return nil
}

// leases makes the lease that stored answers share.
type leases struct {
	mu   sync.Mutex
	id   db.LeaseID
	made time.Time
}

// get gives a lease that lasts for keepAnswers at least.
func (l *leases) get(ctx context.Context, s *Server) (db.LeaseID, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.id != 0 && time.Since(l.made) < leaseEvery {
		return l.id, nil
	}
	id, err := s.Store.Lease(ctx, keepAnswers+leaseEvery+time.Minute)
	if err != nil {
		return 0, err
	}
	l.id, l.made = id, time.Now()
	return id, nil
}

func (l *leases) forget() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.id = 0
}

// Package ledger keeps what is reserved in each pool. Reservations are made in
// memory first, so that two placements never promise the same space, and become
// durable in the transaction that records what they are for. Only the leader has
// a ledger.
package ledger

import (
	"maps"
	"sync"
	"time"

	"github.com/osds-io/osds/pkg/model"
)

// Ledger is the accounts of all pools during one term of leadership.
type Ledger struct {
	mu sync.Mutex
	// written is what the store has; used adds what is on its way.
	written map[string]model.Bytes
	used    map[string]model.Bytes
	next    map[string]model.Bytes // given to the lane, not yet settled
	broken  bool
	now     func() time.Time
}

// Counted is anything that holds space in a pool.
type Counted struct {
	PoolID string
	Bytes  model.Bytes
}

// Mismatch is an account that did not equal the recount.
type Mismatch struct {
	PoolID           string
	Account, Recount model.Bytes
}

// New makes the ledger from the accounts in the store and a recount of the
// records. They are written together and so are equal; if they are not (a
// restore by hand), the recount holds and the differences are given.
func New(accounts []*model.Account, counted []Counted, now func() time.Time) (*Ledger, []Mismatch) {
	l := &Ledger{written: map[string]model.Bytes{}, now: now}
	for _, c := range counted {
		if c.PoolID != "" {
			l.written[c.PoolID] += c.Bytes
		}
	}
	var bad []Mismatch
	for _, a := range accounts {
		if l.written[a.ID] != a.Reserved {
			bad = append(bad, Mismatch{a.ID, a.Reserved, l.written[a.ID]})
		}
	}
	l.used = maps.Clone(l.written)
	return l, bad
}

// Used is what is reserved in a pool, durable or on its way.
func (l *Ledger) Used(poolID string) model.Bytes {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.used[poolID]
}

// Reserve takes n bytes of a pool if they fit under its limit. The caller either
// commits a transaction with the same delta or releases them.
func (l *Ledger) Reserve(poolID string, n, limit model.Bytes) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if free := limit - l.used[poolID]; n > free {
		return model.Errorf(model.KindExhausted, "pool %s has %s left of %s, %s asked for", poolID, max(free, 0), limit, n)
	}
	l.used[poolID] += n
	return nil
}

// Release gives back what Reserve took, after the transaction failed, or what a
// committed removal freed.
func (l *Ledger) Release(poolID string, n model.Bytes) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.used[poolID] -= n
}

// Accounts gives the accounts after deltas; it is part of db.Ledger.
func (l *Ledger) Accounts(deltas map[string]model.Bytes) []*model.Account {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.next = map[string]model.Bytes{}
	out := make([]*model.Account, 0, len(deltas))
	for pool, d := range deltas {
		n := l.written[pool] + d
		l.next[pool] = n
		out = append(out, &model.Account{Meta: model.Meta{ID: pool, UpdatedAt: l.now().UTC()}, Reserved: n})
	}
	return out
}

// Settled ends what Accounts began; it is part of db.Ledger.
func (l *Ledger) Settled(ok bool, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case err != nil:
		l.broken = true // the term ends; the next leader reads the store
	case ok:
		maps.Copy(l.written, l.next)
	}
	l.next = nil
}

package db

import (
	"context"
	"encoding/json"
	"fmt"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/osds-io/osds/pkg/model"
)

// maxTxnOps is etcd's limit of compares and of operations in one transaction.
const maxTxnOps = 128

// maxBatchBytes bounds what is folded into one transaction, well below the 1.5
// MiB that etcd accepts in a request.
const maxBatchBytes = 512 << 10

// Absent as a guard's revision demands that the key does not exist.
const Absent int64 = 0

// LeaseID names a lease: keys with it end when it does.
type LeaseID = clientv3.LeaseID

// Guard is a condition of a transaction: the key was last modified at Rev.
type Guard struct {
	Key string
	Rev int64
}

// Op is one write of a transaction.
type Op struct {
	key    string
	value  []byte
	delete bool
	lease  LeaseID
	rec    model.Record // what value encodes; nil for keys the cache does not hold
}

// Txn is one state change: all of its operations happen, or none, and only if
// every guard holds. Label names it in fault points and metrics.
type Txn struct {
	Label  string
	Guards []Guard
	Ops    []Op
	// Deltas change the accounts of pools, in bytes. They are committed by the
	// lane's ledger, once per pool and etcd transaction, so that reservations in
	// one pool share a transaction instead of colliding on its account.
	Deltas map[string]model.Bytes
}

// size is about how many bytes the transaction writes.
func (t *Txn) size() int {
	n := 0
	for i := range t.Ops {
		n += len(t.Ops[i].key) + len(t.Ops[i].value)
	}
	return n
}

// Account adds a change of a pool's account.
func (t *Txn) Account(poolID string, delta model.Bytes) *Txn {
	if delta == 0 || poolID == "" {
		return t
	}
	if t.Deltas == nil {
		t.Deltas = map[string]model.Bytes{}
	}
	t.Deltas[poolID] += delta
	return t
}

// If adds a guard.
func (t *Txn) If(key string, rev int64) *Txn {
	t.Guards = append(t.Guards, Guard{key, rev})
	return t
}

// Create adds a record that must not exist yet.
func (t *Txn) Create(r model.Record) *Txn {
	return t.If(Key(r.Res(), r.Base().ID), Absent).Put(r)
}

// Update writes a record that was read at its Rev and must not have changed
// since. A record with Rev 0 must not exist.
func (t *Txn) Update(r model.Record) *Txn {
	return t.If(Key(r.Res(), r.Base().ID), r.Base().Rev).Put(r)
}

// Remove deletes a record that was read at its Rev and must not have changed.
func (t *Txn) Remove(r model.Record) *Txn {
	k := Key(r.Res(), r.Base().ID)
	t.If(k, r.Base().Rev)
	t.Ops = append(t.Ops, Op{key: k, delete: true})
	return t
}

// Put writes a record without a guard of its own. The record must not be
// changed afterwards: the cache will serve it.
func (t *Txn) Put(r model.Record) *Txn {
	b, err := json.Marshal(r)
	if err != nil {
		// A record is plain data; this is a programming error.
		panic(fmt.Sprintf("db: encode %s %s: %v", r.Res(), r.Base().ID, err))
	}
	t.Ops = append(t.Ops, Op{key: Key(r.Res(), r.Base().ID), value: b, rec: r})
	return t
}

// PutRaw writes a key that is not a record, such as a name's reservation.
func (t *Txn) PutRaw(key string, value []byte, lease LeaseID) *Txn {
	t.Ops = append(t.Ops, Op{key: key, value: value, lease: lease})
	return t
}

// DeleteRaw removes a key that is not a record.
func (t *Txn) DeleteRaw(key string) *Txn {
	t.Ops = append(t.Ops, Op{key: key, delete: true})
	return t
}

// Key is the key of a record below the store's prefix.
func Key(res model.Resource, id string) string { return string(res) + "/" + id }

// NameKey reserves a name within a scope (a tenant, or "" for all of osds).
func NameKey(res model.Resource, scope, name string) string {
	return "names/" + string(res) + "/" + scope + "/" + name
}

// ErrConflict is what Commit gives when a guard did not hold. Rev is the store's
// revision at that moment: wait for it, read again and decide anew.
type ErrConflict struct{ Rev int64 }

func (e *ErrConflict) Error() string {
	return fmt.Sprintf("the record changed in the meantime (store revision %d)", e.Rev)
}

// Unwrap makes it a conflict for model.KindOf.
func (e *ErrConflict) Unwrap() error {
	return &model.Error{Kind: model.KindConflict, Message: e.Error()}
}

// Retry runs f until it does not end in an ErrConflict, at most tries times,
// waiting for the cache to see what f collided with.
func (s *Store) Retry(ctx context.Context, tries int, f func() error) error {
	var err error
	for i := 0; i < tries; i++ {
		err = f()
		c, ok := err.(*ErrConflict)
		if !ok {
			return err
		}
		if werr := s.WaitRev(ctx, c.Rev); werr != nil {
			return werr
		}
	}
	return model.Errorf(model.KindBusy, "the record is being changed by others; try again: %w", err)
}

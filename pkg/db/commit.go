package db

import (
	"context"
	"errors"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/osds-io/osds/internal/faults"
	"github.com/osds-io/osds/pkg/model"
)

// commitTimeout bounds one etcd transaction. Past it the outcome is unknown.
const commitTimeout = 10 * time.Second

type pending struct {
	txn  *Txn
	done chan result
}

type result struct {
	rev int64
	err error
}

// Lane folds transactions that are submitted together into one etcd transaction.
// It flushes as soon as a slot is free, so a lone writer waits for nobody and
// batches grow with load. Transactions of one lane are committed in the order
// they were submitted as long as inflight is 1.
type Lane struct {
	s     *Store
	in    chan *pending
	slots chan struct{}
	// guard is added to every transaction of the lane; nil adds none.
	guard func() (Guard, bool)
	// ledger gives the accounts to write for the deltas of a batch. The lane
	// calls done, in order, when it knows whether they were written.
	ledger Ledger
	quit   chan struct{}
	done   chan struct{}
}

// Ledger turns account changes into the accounts to write. It is called by one
// goroutine at a time, and Settled comes before the next Accounts.
type Ledger interface {
	Accounts(deltas map[string]model.Bytes) []*model.Account
	// Settled says whether the accounts of the last call were written. An error
	// means that nobody knows; the ledger is then not to be used any more.
	Settled(ok bool, err error)
}

// SetLedger lets the lane commit transactions that have deltas. It is called
// before the first of them.
func (l *Lane) SetLedger(g Ledger) { l.ledger = g }

// newLane starts a lane with at most inflight etcd transactions at a time. It
// ends with the store.
func (s *Store) newLane(inflight int, guard func() (Guard, bool)) *Lane {
	l := &Lane{s: s, in: make(chan *pending, 4096), slots: make(chan struct{}, inflight), guard: guard, quit: make(chan struct{}), done: make(chan struct{})}
	s.wg.Add(1)
	go l.run()
	return l
}

// Commit submits a transaction and waits for its end. The error is *ErrConflict
// if a guard did not hold, unknownOutcome if the store did not answer in time
// (it may have happened), or unavailable if it surely did not.
func (l *Lane) Commit(ctx context.Context, t *Txn) (int64, error) {
	if len(t.Deltas) > 0 && l.ledger == nil {
		return 0, model.Errorf(model.KindInternal, "transaction %s changes accounts on a lane without a ledger", t.Label)
	}
	if len(t.Ops)+len(t.Deltas) > maxTxnOps-1 || len(t.Guards) > maxTxnOps-1 {
		return 0, model.Errorf(model.KindInternal, "transaction %s has %d operations; one state change must fit in %d", t.Label, len(t.Ops), maxTxnOps-1)
	}
	p := &pending{txn: t, done: make(chan result, 1)}
	if faults.On() {
		faults.Point("db." + t.Label + ".before")
	}
	select {
	case l.in <- p:
	case <-ctx.Done():
		return 0, model.Errorf(model.KindUnavailable, "the store is busy: %w", ctx.Err())
	case <-l.done:
		return 0, errLaneEnded
	}
	select {
	case r := <-p.done:
		if faults.On() && r.err == nil {
			faults.Point("db." + t.Label + ".after")
		}
		return r.rev, r.err
	case <-l.done:
		// Everything that was sent has its result by now.
		select {
		case r := <-p.done:
			return r.rev, r.err
		default:
			return 0, errLaneEnded
		}
	case <-ctx.Done():
		return 0, model.Errorf(model.KindUnknownOutcome, "the store did not answer in time: %w", ctx.Err())
	}
}

var errLaneEnded = model.Errorf(model.KindUnavailable, "shutting down, or no longer the leader")

// stop ends the lane: what waits is refused, what was sent is finished.
func (l *Lane) stop() {
	close(l.quit)
	<-l.done
}

func (l *Lane) run() {
	defer l.s.wg.Done()
	defer close(l.done)
	var flushing sync.WaitGroup
	defer flushing.Wait()
	var held *pending // does not fit with the batch before it
	defer func() { l.refuse(held) }()
	for {
		// Take the slot first: while all are busy, the queue grows into the
		// next batch.
		select {
		case l.slots <- struct{}{}:
		case <-l.s.closing:
			return
		case <-l.quit:
			return
		}
		if held == nil {
			select {
			case held = <-l.in:
			case <-l.s.closing:
				return
			case <-l.quit:
				return
			}
		}
		var batch []*pending
		batch, held = l.gather(held)
		flushing.Add(1)
		go func() {
			defer flushing.Done()
			defer func() { <-l.slots }()
			l.flush(batch)
		}()
	}
}

func (l *Lane) refuse(held *pending) {
	if held != nil {
		held.done <- result{err: errLaneEnded}
	}
	for {
		select {
		case p := <-l.in:
			p.done <- result{err: errLaneEnded}
		default:
			return
		}
	}
}

// gather fills a batch with what is waiting, up to etcd's limits and to the
// first transaction that touches a key of the batch.
func (l *Lane) gather(first *pending) (batch []*pending, held *pending) {
	batch = append(batch, first)
	if len(l.in) == 0 {
		return batch, nil
	}
	ops, guards, size := len(first.txn.Ops)+len(first.txn.Deltas), len(first.txn.Guards)+1, first.txn.size()
	written, guarded := map[string]bool{}, map[string]int64{}
	note := func(t *Txn) {
		for _, o := range t.Ops {
			written[o.key] = true
		}
		for _, g := range t.Guards {
			guarded[g.Key] = g.Rev
		}
	}
	note(first.txn)
	for {
		select {
		case p := <-l.in:
			if ops+len(p.txn.Ops)+len(p.txn.Deltas) > maxTxnOps || guards+len(p.txn.Guards) > maxTxnOps ||
				size+p.txn.size() > maxBatchBytes || collides(p.txn, written, guarded) {
				return batch, p
			}
			ops += len(p.txn.Ops) + len(p.txn.Deltas)
			guards += len(p.txn.Guards)
			size += p.txn.size()
			note(p.txn)
			batch = append(batch, p)
		default:
			return batch, nil
		}
	}
}

// collides says whether t writes or depends on what the batch writes. Guards on
// the same key at the same revision go together.
func collides(t *Txn, written map[string]bool, guarded map[string]int64) bool {
	for _, o := range t.Ops {
		if written[o.key] {
			return true
		}
		if _, ok := guarded[o.key]; ok {
			return true
		}
	}
	for _, g := range t.Guards {
		if written[g.Key] {
			return true
		}
		if rev, ok := guarded[g.Key]; ok && rev != g.Rev {
			return true
		}
	}
	return false
}

// flush commits a batch. If a guard of a batch of several fails, each is tried
// alone, so that one conflict does not hurt the others.
func (l *Lane) flush(batch []*pending) {
	rev, ok, err := l.send(batch)
	if err == nil && !ok && len(batch) > 1 {
		for _, p := range batch {
			l.flush([]*pending{p})
		}
		return
	}
	for _, p := range batch {
		switch {
		case err != nil:
			p.done <- result{err: err}
		case !ok:
			p.done <- result{err: &ErrConflict{Rev: rev}}
		default:
			p.done <- result{rev: rev}
		}
	}
}

func (l *Lane) send(batch []*pending) (rev int64, ok bool, err error) {
	s := l.s
	var cmps []clientv3.Cmp
	var ops []clientv3.Op
	seen := map[string]bool{}
	guard := func(g Guard) {
		if len(batch) > 1 {
			if seen[g.Key] {
				return
			}
			seen[g.Key] = true
		}
		cmps = append(cmps, clientv3.Compare(clientv3.ModRevision(s.prefix+g.Key), "=", g.Rev))
	}
	if l.guard != nil {
		g, live := l.guard()
		if !live {
			return 0, false, model.Errorf(model.KindStale, "no longer the leader")
		}
		guard(g)
	}
	for _, p := range batch {
		for _, g := range p.txn.Guards {
			guard(g)
		}
		for _, o := range p.txn.Ops {
			k := s.prefix + o.key
			switch {
			case o.delete:
				ops = append(ops, clientv3.OpDelete(k))
			case o.lease != 0:
				ops = append(ops, clientv3.OpPut(k, string(o.value), clientv3.WithLease(o.lease)))
			default:
				ops = append(ops, clientv3.OpPut(k, string(o.value)))
			}
			if o.rec != nil {
				s.expect.add(k, o.value, o.rec)
			}
		}
	}
	deltas := sumDeltas(batch)
	if len(deltas) > 0 {
		defer func() { l.ledger.Settled(ok, err) }()
		t := &Txn{}
		for _, a := range l.ledger.Accounts(deltas) {
			t.Put(a)
		}
		for _, o := range t.Ops {
			ops = append(ops, clientv3.OpPut(s.prefix+o.key, string(o.value)))
		}
	}
	ctx, cancel := context.WithTimeout(s.ctx, commitTimeout)
	defer cancel()
	s.metrics.txn(len(batch))
	resp, err := s.cli.Txn(ctx).If(cmps...).Then(ops...).Commit()
	if err != nil {
		return 0, false, storeError(err)
	}
	return resp.Header.Revision, resp.Succeeded, nil
}

func sumDeltas(batch []*pending) map[string]model.Bytes {
	var sum map[string]model.Bytes
	for _, p := range batch {
		for pool, d := range p.txn.Deltas {
			if sum == nil {
				sum = map[string]model.Bytes{}
			}
			sum[pool] += d
		}
	}
	return sum
}

// storeError maps an etcd error. Only errors that etcd gives before it proposes
// a change are "surely not done".
func storeError(err error) error {
	switch {
	case errors.Is(err, rpctypes.ErrNoSpace):
		return model.Errorf(model.KindUnavailable, "the store is full: compact and defragment etcd or raise its quota, then disarm its alarm: %w", err)
	case errors.Is(err, rpctypes.ErrTooManyRequests), errors.Is(err, rpctypes.ErrNoLeader), errors.Is(err, rpctypes.ErrNotCapable):
		return model.Errorf(model.KindUnavailable, "the store is not available: %w", err)
	case errors.Is(err, rpctypes.ErrPermissionDenied), errors.Is(err, rpctypes.ErrAuthFailed):
		return model.Errorf(model.KindUnavailable, "the store refuses our credentials: %w", err)
	case errors.Is(err, rpctypes.ErrRequestTooLarge):
		return model.Errorf(model.KindInvalid, "the record is too large for the store: %w", err)
	case errors.Is(err, rpctypes.ErrLeaseNotFound):
		return model.Errorf(model.KindUnavailable, "a lease in the store ended: %w", err)
	}
	return model.Errorf(model.KindUnknownOutcome, "the store did not confirm the change: %w", err)
}

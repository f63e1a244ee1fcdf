package db

import (
	"context"
	"encoding/json"
	"strconv"
	"sync/atomic"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/osds-io/osds/internal/faults"
	"github.com/osds-io/osds/pkg/model"
)

// Keys of the election. leaderKey lives by its holder's lease and says who leads;
// epochKey stays, and grows with every change of leader. The lease decides when
// another may take over; only the epoch keeps the old one from doing harm.
const (
	leaderKey = "meta/leader"
	epochKey  = "meta/epoch"
)

// LeaderInfo is what the leader says of itself.
type LeaderInfo struct {
	Instance string `json:"instance"`
	Address  string `json:"address,omitempty"`
	Epoch    int64  `json:"epoch"`
}

// Term is one period of leadership. Transactions committed through its lane hold
// only while nobody else has taken over.
type Term struct {
	Epoch int64
	// Lane commits one transaction at a time, in order: whoever commits a
	// reservation knows that the one before it is settled.
	Lane *Lane
	// Side is for changes that reserve nothing; several at a time.
	Side  *Lane
	state *atomic.Pointer[Guard]
	s     *Store
}

// Elector campaigns for leadership as long as it runs.
type Elector struct {
	Store   *Store
	Address string // shown to people
	TTL     time.Duration
	// Lead is called with each term; its context ends with the term. The next
	// term begins only after Lead has returned.
	Lead func(ctx context.Context, t *Term)

	info atomic.Pointer[LeaderInfo]
}

// Leader gives who leads as this process knows it; nil if unknown.
func (e *Elector) Leader() *LeaderInfo { return e.info.Load() }

// Run campaigns until the context ends; then it resigns, so that the next leader
// need not wait for the lease.
func (e *Elector) Run(ctx context.Context) {
	if e.TTL <= 0 {
		e.TTL = 5 * time.Second
	}
	for ctx.Err() == nil {
		if err := e.campaign(ctx); err != nil && ctx.Err() == nil {
			e.Store.log.WithError(err).Warn("leader election: trying again")
		}
		select {
		case <-time.After(200 * time.Millisecond):
		case <-ctx.Done():
		}
	}
}

// campaign takes part once: it leads and returns after the term, or waits until
// the present leader goes.
func (e *Elector) campaign(ctx context.Context) error {
	s := e.Store
	get, err := s.cli.Txn(ctx).Then(clientv3.OpGet(s.prefix+leaderKey), clientv3.OpGet(s.prefix+epochKey)).Commit()
	if err != nil {
		return err
	}
	var epoch, epochRev, leaderRev int64
	if kv := get.Responses[1].GetResponseRange().Kvs; len(kv) > 0 {
		epochRev = kv[0].ModRevision
		if epoch, err = strconv.ParseInt(string(kv[0].Value), 10, 64); err != nil {
			return model.Errorf(model.KindInternal, "key %s%s is %q, not a number", s.prefix, epochKey, kv[0].Value)
		}
	}
	if kv := get.Responses[0].GetResponseRange().Kvs; len(kv) > 0 {
		var info LeaderInfo
		if err := json.Unmarshal(kv[0].Value, &info); err == nil && info.Instance != s.instance {
			e.info.Store(&info)
			return e.await(ctx, get.Header.Revision)
		}
		// Our own, from before a crash: the data directory's lock says that
		// no other process has this instance id.
		leaderRev = kv[0].ModRevision
	}
	lease, err := s.cli.Grant(ctx, int64(max(e.TTL/time.Second, 1)))
	if err != nil {
		return err
	}
	defer e.revoke(lease.ID)
	epoch++
	info := LeaderInfo{Instance: s.instance, Address: e.Address, Epoch: epoch}
	val, _ := json.Marshal(info)
	faults.Point("leader.take.before")
	resp, err := s.cli.Txn(ctx).If(
		clientv3.Compare(clientv3.ModRevision(s.prefix+leaderKey), "=", leaderRev),
		clientv3.Compare(clientv3.ModRevision(s.prefix+epochKey), "=", epochRev),
	).Then(
		clientv3.OpPut(s.prefix+leaderKey, string(val), clientv3.WithLease(lease.ID)),
		clientv3.OpPut(s.prefix+epochKey, strconv.FormatInt(epoch, 10)),
	).Commit()
	if err != nil || !resp.Succeeded {
		return err
	}
	faults.Point("leader.take.after")
	e.info.Store(&info)
	// etcd may grant more than was asked for.
	return e.lead(ctx, lease.ID, time.Duration(lease.TTL)*time.Second, info, resp.Header.Revision)
}

// await returns when the leader's key goes away.
func (e *Elector) await(ctx context.Context, rev int64) error {
	wctx, cancel := context.WithCancel(clientv3.WithRequireLeader(ctx))
	defer cancel()
	r, ok := <-e.Store.cli.Watch(wctx, e.Store.prefix+leaderKey, clientv3.WithRev(rev+1))
	if !ok {
		return wctx.Err()
	}
	if err := r.Err(); err != nil {
		return err
	}
	// Gone, or it changed hands: look again.
	if n := len(r.Events); n > 0 && r.Events[n-1].Type == clientv3.EventTypeDelete {
		e.info.Store(nil)
	}
	return nil
}

func (e *Elector) lead(ctx context.Context, lease clientv3.LeaseID, ttl time.Duration, info LeaderInfo, rev int64) error {
	s := e.Store
	lctx, cancel := context.WithCancel(ctx)
	defer cancel()
	alive, err := s.cli.KeepAlive(lctx, lease)
	if err != nil {
		return err
	}
	state := &atomic.Pointer[Guard]{}
	state.Store(&Guard{Key: epochKey, Rev: rev})
	guard := func() (Guard, bool) {
		g := state.Load()
		if g == nil {
			return Guard{}, false
		}
		return *g, true
	}
	term := &Term{Epoch: info.Epoch, state: state, s: s, Lane: s.newLane(1, guard), Side: s.newLane(4, guard)}
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer cancel()
		if s.WaitRev(lctx, rev) == nil { // the cache shows all that came before us
			s.log.WithField("epoch", info.Epoch).Info("leading")
			e.Lead(lctx, term)
		}
	}()
	// The lease may end while this process is stopped; the guard of the lanes
	// is what counts, this only ends the work early.
	deadline := time.NewTimer(ttl)
	defer deadline.Stop()
	for running := true; running; {
		select {
		case _, ok := <-alive:
			if !ok {
				running = false
				break
			}
			deadline.Reset(ttl)
		case <-deadline.C:
			running = false
		case <-lctx.Done():
			running = false
		}
	}
	cancel()
	<-done
	state.Store(nil)
	term.Lane.stop()
	term.Side.stop()
	e.info.Store(nil)
	s.log.WithField("epoch", info.Epoch).Info("no longer leading")
	return nil
}

func (e *Elector) revoke(id clientv3.LeaseID) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	_, _ = e.Store.cli.Revoke(ctx, id)
}

// RaiseEpoch lifts the epoch above one that a dock has seen and we have not
// (the store was restored from an older backup). It holds only for the present
// leader; the term's lanes go on under the new epoch.
func (t *Term) RaiseEpoch(ctx context.Context, above int64) error {
	g := t.state.Load()
	if g == nil || above < t.Epoch {
		return nil
	}
	s := t.s
	resp, err := s.cli.Txn(ctx).If(clientv3.Compare(clientv3.ModRevision(s.prefix+g.Key), "=", g.Rev)).
		Then(clientv3.OpPut(s.prefix+epochKey, strconv.FormatInt(above, 10))).Commit()
	if err != nil {
		return storeError(err)
	}
	if !resp.Succeeded {
		return model.Errorf(model.KindStale, "no longer the leader")
	}
	// End the term: the next one starts above what the docks have seen.
	t.state.Store(nil)
	return model.Errorf(model.KindStale, "the epoch was raised to %d; leading anew", above)
}

package db

import (
	"context"
	"errors"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"

	"github.com/osds-io/osds/pkg/model"
)

// forget takes a record out of the cache, as if the watch had missed it.
func forget(s *Store, r model.Record) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tables[r.Res()].remove(r.Base().ID)
}

func mustCommit(t *testing.T, s *Store, txn *Txn) {
	t.Helper()
	rev, err := s.Commit(context.Background(), txn)
	if err == nil {
		err = s.WaitRev(context.Background(), rev)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// A load that breaks off has changed the cache up to there. The next one must
// tell what the first found, or work that came in between is never begun.
func TestBrokenOffReloadLosesNoEvents(t *testing.T) {
	s := open(t)
	ctx := context.Background()
	a, b := volume(1), volume(2)
	mustCommit(t, s, (&Txn{Label: "t"}).Create(a))
	mustCommit(t, s, (&Txn{Label: "t"}).Create(b))
	forget(s, a)
	broken := errors.New("connection lost")
	var all []*mvccpb.KeyValue
	s.readAll(ctx, func(p loadedPage) bool { all = append(all, p.kvs...); return p.err == nil })
	_, _, err := s.loadFrom(ctx, func(_ context.Context, give func(loadedPage) bool) {
		if give(loadedPage{kvs: all[:1], rev: s.Rev()}) {
			give(loadedPage{err: broken})
		}
	})
	if !errors.Is(err, broken) {
		t.Fatal(err)
	}
	_, evs, err := s.load(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if len(evs) != 1 || evs[0].Type != Created || evs[0].Rec.Base().ID != a.ID {
		t.Fatalf("the second load tells of %+v", evs)
	}
	if _, evs, _ = s.load(ctx); len(evs) != 0 {
		t.Fatalf("told twice: %+v", evs)
	}
}

// A record that cannot be read does not keep the cache from being loaded again:
// the watch goes on past it, too.
func TestReloadPastAnUnreadableRecord(t *testing.T) {
	s := open(t)
	a := volume(1)
	mustCommit(t, s, (&Txn{Label: "t"}).Create(a))
	mustCommit(t, s, (&Txn{Label: "t"}).PutRaw(Key(model.ResVolume, "bad"), []byte("{"), 0))
	forget(s, a)
	if _, evs, err := s.load(context.Background()); err != nil || len(evs) != 1 {
		t.Fatalf("%v: %+v", err, evs)
	}
}

// On an etcd shared with others a wait needs the nudge; a clock that was set
// back must not stop it.
func TestNudgeAfterClockSetBack(t *testing.T) {
	s := open(t)
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	s.nudged.Store(time.Now().Add(time.Hour).UnixNano())
	r, err := s.cli.Put(ctx, "/others/x", "")
	if err != nil {
		t.Fatal(err)
	}
	s.nudge(ctx)
	if g, err := s.cli.Get(ctx, s.syncKey()); err != nil || len(g.Kvs) == 0 || g.Kvs[0].ModRevision <= r.Header.Revision {
		t.Fatalf("no nudge was written (%v)", err)
	}
}

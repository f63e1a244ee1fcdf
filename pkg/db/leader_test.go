package db

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/osds-io/osds/pkg/model"
)

// second opens another store on the first one's etcd, as another osdslet does.
func second(t *testing.T, s *Store) *Store {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	eps := s.member.etcd.Clients[0].Addr()
	x, err := Open(ctx, Config{Endpoints: []string{"unix://" + eps.String()}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(x.Close)
	return x
}

func TestTwoCandidatesOneLeader(t *testing.T) {
	a := open(t)
	b := second(t, a)
	var leading, most atomic.Int64
	terms := make(chan *Term, 10)
	lead := func(ctx context.Context, tm *Term) {
		most.Store(max(most.Load(), leading.Add(1)))
		terms <- tm
		<-ctx.Done()
		leading.Add(-1)
	}
	run := func(s *Store) (stop func()) {
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan struct{})
		e := &Elector{Store: s, TTL: time.Second, Lead: lead}
		go func() { defer close(done); e.Run(ctx) }()
		return func() { cancel(); <-done }
	}
	stopA := run(a)
	t.Cleanup(stopA)
	first := <-terms
	stopB := run(b)
	t.Cleanup(stopB)
	select {
	case <-terms:
		t.Fatal("two leaders")
	case <-time.After(3 * time.Second): // longer than the lease
	}
	stopA()
	next := <-terms
	if next.Epoch <= first.Epoch || most.Load() != 1 {
		t.Fatalf("epochs %d then %d, %d at once", first.Epoch, next.Epoch, most.Load())
	}
	ctx := context.Background()
	if _, err := first.Side.Commit(ctx, (&Txn{Label: "t"}).Create(volume(1))); err == nil {
		t.Fatal("the old leader wrote")
	}
	if _, err := next.Side.Commit(ctx, (&Txn{Label: "t"}).Create(volume(2))); err != nil {
		t.Fatal(err)
	}
}

// A leader that was stopped for longer than its lease must not write afterwards,
// although it does not know yet.
func TestEpochGuardsAStalledLeader(t *testing.T) {
	s := open(t)
	ctx := context.Background()
	old := &Term{state: &atomic.Pointer[Guard]{}, s: s}
	_, rev, err := s.GetRaw(ctx, epochKey)
	if err != nil {
		t.Fatal(err)
	}
	old.state.Store(&Guard{epochKey, rev})
	lane := s.newLane(1, func() (Guard, bool) { return *old.state.Load(), true })
	if _, err := lane.Commit(ctx, (&Txn{Label: "t"}).Create(volume(1))); err != nil {
		t.Fatal(err)
	}
	tctx, cancel := context.WithCancel(ctx)
	got := make(chan int64, 1)
	e := &Elector{Store: s, TTL: time.Second, Lead: func(ctx context.Context, tm *Term) { got <- tm.Epoch; <-ctx.Done() }}
	done := make(chan struct{})
	go func() { defer close(done); e.Run(tctx) }()
	<-got
	if _, err := lane.Commit(ctx, (&Txn{Label: "t"}).Create(volume(2))); !model.IsKind(err, model.KindConflict) {
		t.Fatalf("the stalled leader's write: %v", err)
	}
	cancel()
	<-done
}

func TestReopenFindsEverything(t *testing.T) {
	dir := t.TempDir()
	ctx := context.Background()
	s, err := Open(ctx, Config{Embedded: Embedded{Dir: dir}})
	if err != nil {
		t.Fatal(err)
	}
	v := volume(1)
	v.Metadata = map[string]string{"a": "b"}
	v.Task = model.NewTask(model.ResVolume, model.TaskCreate, "", "r", time.Now())
	if _, err := s.Commit(ctx, (&Txn{Label: "t"}).Create(v)); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(ctx, Config{Embedded: Embedded{Dir: dir}}); !model.IsKind(err, model.KindBusy) {
		t.Fatalf("two processes shared a data directory: %v", err)
	}
	cluster, _ := s.ClusterID(ctx)
	inst := s.Instance()
	s.Close()
	if s, err = Open(ctx, Config{Embedded: Embedded{Dir: dir}}); err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	got, ok := s.Volumes.Get(v.ID)
	if !ok || got.Name != v.Name || got.Size != v.Size || got.Metadata["a"] != "b" || !got.Task.Active() || got.Rev == 0 {
		t.Fatalf("%+v", got)
	}
	if again, _ := s.ClusterID(ctx); again != cluster || s.Instance() != inst {
		t.Error("the identity changed")
	}
}

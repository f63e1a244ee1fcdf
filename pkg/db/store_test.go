package db

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"github.com/osds-io/osds/pkg/model"
)

func open(t testing.TB) *Store {
	t.Helper()
	dir := t.TempDir()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	s, err := Open(ctx, Config{Embedded: Embedded{Dir: dir}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

func volume(i int) *model.Volume {
	return &model.Volume{
		Meta:   model.Meta{ID: model.NewID(), TenantID: fmt.Sprintf("t%d", i%3), Name: fmt.Sprintf("v%05d", i), CreatedAt: time.Now().UTC()},
		Size:   model.FromGB(int64(i%7 + 1)),
		Status: model.StatusAvailable, ProfileID: fmt.Sprintf("p%d", i%5), PoolID: fmt.Sprintf("pool%d", i%2),
		AvailabilityZone: "default",
	}
}

func TestConcurrentCreatesAreAllSeen(t *testing.T) {
	s := open(t)
	const n = 2000
	var wg sync.WaitGroup
	var fail atomic.Int64
	for w := range 64 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for i := w; i < n; i += 64 {
				v := volume(i)
				rev, err := s.Commit(context.Background(), (&Txn{Label: "t"}).Create(v))
				if err != nil {
					t.Error(err)
					fail.Add(1)
					continue
				}
				if err := s.WaitRev(context.Background(), rev); err != nil {
					t.Error(err)
				}
				got, ok := s.Volumes.Get(v.ID)
				if !ok || got.Rev != rev || got.Name != v.Name {
					t.Errorf("own write not read: %v %v", ok, got)
				}
			}
		}()
	}
	wg.Wait()
	if s.Volumes.Len() != n {
		t.Fatalf("%d volumes, want %d", s.Volumes.Len(), n)
	}
	st := s.Stats()
	if st.Changes != n || st.Txns >= n {
		t.Errorf("no group commit: %+v", st)
	}
}

func BenchmarkCreate128(b *testing.B) {
	s := open(b)
	var i atomic.Int64
	b.SetParallelism(64)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			v := volume(int(i.Add(1)))
			rev, err := s.Commit(context.Background(), (&Txn{Label: "t"}).Create(v))
			if err != nil {
				b.Error(err)
			}
			_ = s.WaitRev(context.Background(), rev)
		}
	})
	st := s.Stats()
	b.ReportMetric(float64(st.Changes)/float64(st.Txns), "changes/txn")
}

// A watch that fell behind the store's compaction loads everything again; who
// was subscribed is told of every difference.
func TestLoadingAgainTellsWhatChanged(t *testing.T) {
	s := open(t)
	ctx := context.Background()
	kept, changed, gone := volume(1), volume(2), volume(3)
	for _, v := range []*model.Volume{kept, changed} {
		if _, err := s.Commit(ctx, (&Txn{Label: "t"}).Create(v)); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Sync(ctx); err != nil {
		t.Fatal(err)
	}
	s.mu.Lock() // as if the watch had missed a deletion and a change
	s.Volumes.put(gone)
	old := changed.Clone()
	old.Name, old.Rev = "before", 1
	s.Volumes.put(old)
	s.mu.Unlock()
	_, evs, err := s.load(ctx)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]EventType{}
	for _, e := range evs {
		got[e.Rec.Base().ID] = e.Type
	}
	if len(got) != 2 || got[gone.ID] != Deleted || got[changed.ID] != Updated {
		t.Fatalf("told of %v", got)
	}
	if v, _ := s.Volumes.Get(changed.ID); v.Name != changed.Name {
		t.Errorf("the change was not loaded")
	}
}

func TestRecordsShareTheirTexts(t *testing.T) {
	dir := t.TempDir()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	s, err := Open(ctx, Config{Embedded: Embedded{Dir: dir}})
	if err != nil {
		t.Fatal(err)
	}
	var ids [2]string
	for i := range ids {
		v := volume(0)
		v.Task = model.NewTask(model.ResVolume, model.TaskCreate, "", "r", time.Now())
		v.Task.Owner = strings.Clone("owner")
		v.Task.Begin(model.StepProvision, time.Now())
		v.AvailabilityZone, ids[i] = strings.Clone("zone"), v.ID
		rev, err := s.Commit(ctx, (&Txn{Label: "t"}).Create(v))
		if err == nil {
			err = s.WaitRev(ctx, rev)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	same := func(what, a, b string) {
		t.Helper()
		if a == "" || a != b || unsafe.StringData(a) != unsafe.StringData(b) {
			t.Errorf("%s: %q and %q are not shared", what, a, b)
		}
	}
	shared := func(s *Store, decoded bool) {
		t.Helper()
		a, _ := s.Volumes.Get(ids[0])
		b, _ := s.Volumes.Get(ids[1])
		same("tenant", a.TenantID, b.TenantID)
		same("zone", a.AvailabilityZone, b.AvailabilityZone)
		same("pool", a.PoolID, b.PoolID)
		if decoded {
			same("owner", a.Task.Owner, b.Task.Owner)
			same("step", string(a.Task.History[0].Step), string(b.Task.History[0].Step))
		}
	}
	shared(s, false)
	s.Close()
	if s, err = Open(ctx, Config{Embedded: Embedded{Dir: dir}}); err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	shared(s, true)
}

// Large records that are written together must not add up to a request that etcd
// refuses; one that is too large by itself is refused alone.
func TestLargeRecordsTogether(t *testing.T) {
	s := open(t)
	ctx := context.Background()
	big := func(n int) *model.Volume {
		v := volume(n)
		v.Description = strings.Repeat("x", n)
		return v
	}
	var wg sync.WaitGroup
	for range 64 {
		wg.Go(func() {
			if _, err := s.Commit(ctx, (&Txn{Label: "t"}).Create(big(100<<10))); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if _, err := s.Commit(ctx, (&Txn{Label: "t"}).Create(big(2<<20))); !model.IsKind(err, model.KindInvalid) {
		t.Errorf("a record of 2 MiB: %v", err)
	}
	if err := s.Sync(ctx); err != nil || s.Volumes.Len() != 64 {
		t.Errorf("%d volumes, %v", s.Volumes.Len(), err)
	}
}

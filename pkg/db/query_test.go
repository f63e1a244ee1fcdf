package db

import (
	"cmp"
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/osds-io/osds/pkg/model"
)

// slow answers a query by looking at every record: what List must equal.
func slow(all []*model.Volume, t *Table[model.Volume, *model.Volume], q Query) []string {
	field := func(name string) *Field[*model.Volume] {
		for i := range t.fields {
			if t.fields[i].Name == name {
				return &t.fields[i]
			}
		}
		return nil
	}
	var got []*model.Volume
	for _, v := range all {
		keep := q.Tenant == "" || v.TenantID == q.Tenant
		for _, f := range q.Filters {
			keep = keep && slices.Contains(f.Values, field(f.Field).Text(v))
		}
		if keep {
			got = append(got, v)
		}
	}
	s := field("id")
	if q.Sort != "" {
		s = field(q.Sort)
	}
	slices.SortFunc(got, func(a, b *model.Volume) int {
		var c int
		if s.Num != nil {
			c = cmp.Compare(s.Num(a), s.Num(b))
		} else {
			c = strings.Compare(s.Text(a), s.Text(b))
		}
		if c == 0 {
			c = strings.Compare(a.ID, b.ID)
		}
		if q.Desc {
			return -c
		}
		return c
	})
	var ids []string
	for _, v := range got {
		ids = append(ids, v.ID)
	}
	return ids
}

func TestListEqualsBruteForce(t *testing.T) {
	s := open(t)
	rng := rand.New(rand.NewPCG(1, 2))
	var all []*model.Volume
	s.mu.Lock()
	for i := range 3000 {
		v := volume(i)
		v.Name = fmt.Sprintf("v%d", rng.IntN(40))
		v.Status = []model.Status{model.StatusAvailable, model.StatusInUse, model.StatusError}[rng.IntN(3)]
		v.Description = fmt.Sprint(rng.IntN(3))
		all = append(all, v)
		s.Volumes.put(v)
	}
	// Changes move records within the trees, removals leave no trace.
	for range 2000 {
		i := rng.IntN(len(all))
		c := all[i].Clone()
		c.Status, c.PoolID, c.Size = model.StatusDeleting, fmt.Sprintf("pool%d", rng.IntN(4)), model.FromGB(rng.Int64N(9)+1)
		all[i] = c
		s.Volumes.put(c)
	}
	for range 500 {
		i := rng.IntN(len(all))
		s.Volumes.remove(all[i].ID)
		all = slices.Delete(all, i, i+1)
	}
	s.mu.Unlock()
	pick := func(xs ...string) string { return xs[rng.IntN(len(xs))] }
	for n := range 800 {
		q := Query{Limit: rng.IntN(60), Offset: rng.IntN(3) * rng.IntN(900), Desc: rng.IntN(2) == 0}
		q.Tenant = pick("", "", "t0", "t1", "nobody")
		q.Sort = pick("", "id", "name", "size", "status", "createdAt", "description", "poolId")
		for range rng.IntN(3) {
			f := Filter{Field: pick("name", "status", "poolId", "size", "description", "tenantId")}
			for range 1 + rng.IntN(2) {
				f.Values = append(f.Values, map[string]string{
					"name": fmt.Sprintf("v%d", rng.IntN(45)), "status": pick("available", "inUse", "deleting", "nope"),
					"poolId": fmt.Sprintf("pool%d", rng.IntN(5)), "size": pick("1", "7", "01", "x"), "description": pick("0", "9"), "tenantId": pick("t0", "t2"),
				}[f.Field])
			}
			if !slices.ContainsFunc(q.Filters, func(x Filter) bool { return x.Field == f.Field }) {
				q.Filters = append(q.Filters, f)
			}
		}
		want := slow(all, s.Volumes, q)
		p := s.Volumes.List(q)
		if p.Total >= 0 && p.Total != len(want) {
			t.Fatalf("%d: %+v: total %d, want %d", n, q, p.Total, len(want))
		}
		// By offset, then on by cursor to the end.
		var got []string
		for _, v := range p.Items {
			got = append(got, v.ID)
		}
		rest := want[min(q.Offset, len(want)):]
		if !slices.Equal(got, rest[:min(len(rest), q.Limit)]) {
			t.Fatalf("%d: %+v: wrong page (%d items of %d)", n, q, len(got), len(rest))
		}
		if q.Limit == 0 {
			continue
		}
		for q.Offset = 0; p.Next != nil; {
			q.After = p.Next
			p = s.Volumes.List(q)
			for _, v := range p.Items {
				got = append(got, v.ID)
			}
		}
		if !slices.Equal(got, rest) {
			t.Fatalf("%d: %+v: paging gave %d of %d", n, q, len(got), len(rest))
		}
	}
}

func TestConflictsAndGuards(t *testing.T) {
	s := open(t)
	ctx := context.Background()
	v := volume(1)
	rev, err := s.Commit(ctx, (&Txn{Label: "t"}).Create(v))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Commit(ctx, (&Txn{Label: "t"}).Create(v.Clone())); !model.IsKind(err, model.KindConflict) {
		t.Fatalf("created twice: %v", err)
	}
	if err := s.WaitRev(ctx, rev); err != nil {
		t.Fatal(err)
	}
	// Of many writers at one revision exactly one wins.
	old, _ := s.Volumes.Get(v.ID)
	wins := make(chan bool, 50)
	for i := range 50 {
		go func() {
			c := old.Clone()
			c.Name = fmt.Sprint(i)
			_, err := s.Commit(ctx, (&Txn{Label: "t"}).Update(c))
			if err != nil && !model.IsKind(err, model.KindConflict) {
				t.Error(err)
			}
			wins <- err == nil
		}()
	}
	n := 0
	for range 50 {
		if <-wins {
			n++
		}
	}
	if n != 1 {
		t.Fatalf("%d writers won", n)
	}
}

func TestStreamResumesAndResyncs(t *testing.T) {
	s := open(t)
	ctx := context.Background()
	start := s.Rev()
	for i := range 20 {
		if _, err := s.Commit(ctx, (&Txn{Label: "t"}).Create(volume(i)).Create(volume(i+100))); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Sync(ctx); err != nil {
		t.Fatal(err)
	}
	st, ok := s.Stream(start, -1)
	if !ok {
		t.Fatal("no history")
	}
	all, err := st.Next(ctx, 100)
	if err != nil || len(all) != 40 {
		t.Fatalf("%d events, %v", len(all), err)
	}
	for cut := range all {
		st, ok := s.Stream(all[cut].Rev, all[cut].N)
		if !ok {
			t.Fatal("no history")
		}
		if cut == len(all)-1 {
			break
		}
		rest, err := st.Next(ctx, 100)
		if err != nil || len(rest) != len(all)-cut-1 || rest[0].Rec.Base().ID != all[cut+1].Rec.Base().ID {
			t.Fatalf("resumed after event %d: %d events, %v", cut, len(rest), err)
		}
	}
	s.hub.mu.Lock()
	for len(s.hub.ring) > 8 {
		s.hub.ring = s.hub.ring[:8] // a short history: only for what follows
		s.hub.first, s.hub.next, s.hub.floor = 0, 0, s.Rev()
	}
	s.hub.mu.Unlock()
	late, _ := s.Stream(s.Rev(), -1)
	for i := range 20 {
		if _, err := s.Commit(ctx, (&Txn{Label: "t"}).Create(volume(i))); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Sync(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := late.Next(ctx, 100); err != ErrResync {
		t.Fatalf("a reader that fell behind got %v", err)
	}
	if _, ok := s.Stream(start, -1); ok {
		t.Fatal("history that is gone was promised")
	}
}

package db

import (
	"context"
	"iter"

	"github.com/osds-io/osds/pkg/model"
)

// View is all tables at one revision, for checks that compare records with each
// other. Nothing changes while it is in use, so it is for short looks only.
type View struct{ s *Store }

// View calls f with a view.
func (s *Store) View(f func(View)) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	f(View{s})
}

func each[T any, P recordPtr[T]](t *Table[T, P]) iter.Seq2[string, P] {
	return func(yield func(string, P) bool) {
		for id, n := range t.byID {
			if !yield(id, n.rec) {
				return
			}
		}
	}
}

// Volumes gives all volumes by id.
func (v View) Volumes() iter.Seq2[string, *model.Volume] { return each(v.s.Tables.Volumes) }

// Snapshots gives all snapshots by id.
func (v View) Snapshots() iter.Seq2[string, *model.Snapshot] { return each(v.s.Tables.Snapshots) }

// Attachments gives all attachments by id.
func (v View) Attachments() iter.Seq2[string, *model.Attachment] { return each(v.s.Tables.Attachments) }

// Debts gives all debts by id.
func (v View) Debts() iter.Seq2[string, *model.Debt] { return each(v.s.Tables.Debts) }

// Accounts gives all accounts by pool.
func (v View) Accounts() iter.Seq2[string, *model.Account] { return each(v.s.Tables.Ledger) }

// Sync waits until the cache shows everything that was committed, by anybody,
// before the call. It writes a key of its own and waits for that.
func (s *Store) Sync(ctx context.Context) error {
	r, err := s.cli.Put(ctx, s.syncKey(), "")
	if err != nil {
		return storeError(err)
	}
	return s.WaitRev(ctx, r.Header.Revision)
}

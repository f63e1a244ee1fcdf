//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"sync"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/osds-io/osds/pkg/db"
	"github.com/osds-io/osds/pkg/model"
)

// perTxn is how many copies one transaction writes: two keys each, within etcd's
// limit.
const perTxn = 50

// preload stops osdslet, writes n copies of the volumes it has straight into its
// store, and starts it again. The records are whole (with their task, their place
// in the ledger and their explanation), but the dock knows nothing of them.
func (s *system) preload(ctx context.Context, n int) ([]string, error) {
	s.let.stop()
	if s.let.err != nil {
		return nil, fmt.Errorf("osdslet did not end well: %w", s.let.err)
	}
	log := logrus.New()
	log.SetOutput(io.Discard)
	st, err := db.Open(ctx, db.Config{Embedded: db.Embedded{Dir: filepath.Join(s.dir, "let")}, Log: logrus.NewEntry(log)})
	if err != nil {
		return nil, err
	}
	ids, err := copyVolumes(ctx, st, n)
	st.Close()
	if err != nil {
		return nil, err
	}
	if err := s.startLet(); err != nil {
		return nil, err
	}
	if err := s.ready(ctx, time.Minute); err != nil {
		return nil, err
	}
	return ids, s.awaitPools(ctx)
}

// copyVolumes adds n copies of the volumes in a store, and what they hold of
// their pools.
func copyVolumes(ctx context.Context, st *db.Store, n int) ([]string, error) {
	models := st.Volumes.All()
	if len(models) == 0 {
		return nil, errors.New("there is no volume to copy")
	}
	explained, _, err := st.GetRaw(ctx, db.ExplanationKey(models[0].ID))
	if err != nil {
		return nil, err
	}
	ids := make([]string, n)
	held := map[string]model.Bytes{}
	for i := range ids {
		ids[i] = model.NewID()
		m := models[i%len(models)]
		held[m.PoolID] += m.Reserved
	}
	var wg sync.WaitGroup
	errs := make([]error, 4)
	for w := range errs {
		wg.Go(func() {
			for from := w * perTxn; from < n && errs[w] == nil; from += len(errs) * perTxn {
				t := &db.Txn{Label: "bench.copy"}
				for i := from; i < min(from+perTxn, n); i++ {
					v := models[i%len(models)].Clone()
					v.ID, v.Name = ids[i], string(appendName(nil, int64(len(models)+i+1)))
					v.CreatedAt = v.CreatedAt.Add(time.Duration(i) * time.Millisecond)
					v.Task.ID = model.NewID()
					t.Create(v)
					t.PutRaw(db.ExplanationKey(v.ID), explained, 0)
				}
				_, errs[w] = st.Commit(ctx, t)
			}
		})
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	t := &db.Txn{Label: "bench.accounts"}
	for pool, b := range held {
		a, ok := st.Ledger.Get(pool)
		if !ok {
			return nil, fmt.Errorf("pool %s has no account", pool)
		}
		a = a.Clone()
		a.Reserved += b
		t.Update(a)
	}
	_, err = st.Commit(ctx, t)
	return ids, err
}

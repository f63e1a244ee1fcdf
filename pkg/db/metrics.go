package db

import "sync/atomic"

// storeMetrics counts what the store does; read by the metrics page.
type storeMetrics struct {
	txns, changes atomic.Int64
}

func (m *storeMetrics) txn(batch int) {
	m.txns.Add(1)
	m.changes.Add(int64(batch))
}

// Stats are the store's counters since start: etcd transactions, and the state
// changes they carried.
type Stats struct{ Txns, Changes int64 }

// Stats gives the counters.
func (s *Store) Stats() Stats {
	return Stats{Txns: s.metrics.txns.Load(), Changes: s.metrics.changes.Load()}
}

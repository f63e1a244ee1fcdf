package db

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/osds-io/osds/pkg/model"
)

// loadPage is how many records one range of a load reads. For each range etcd
// visits the keys of all that follow, to count them.
const loadPage = 10000

// load reads all records at one revision into the tables and gives the revision,
// and what changed against what the tables had, with what loads before this one
// found that broke off. Ranges are read while the one before is being decoded.
func (s *Store) load(ctx context.Context) (int64, []Event, error) {
	return s.loadFrom(ctx, s.readAll)
}

func (s *Store) loadFrom(ctx context.Context, read func(context.Context, func(loadedPage) bool)) (rev int64, _ []Event, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // ends the reading if decoding fails
	pages := make(chan loadedPage, 2)
	go func() {
		defer close(pages)
		read(ctx, func(p loadedPage) bool {
			select {
			case pages <- p:
				return p.err == nil
			case <-ctx.Done():
				return false
			}
		})
	}()
	seen := map[model.Resource]map[string]bool{}
	again := s.rev.Load() > 0
	evs := s.missed
	defer func() {
		if s.missed = nil; err != nil {
			s.missed = evs // the tables have it; nobody was told
		}
	}()
	for p := range pages {
		if p.err != nil {
			return 0, nil, p.err
		}
		rev = p.rev
		// At the start, what cannot be read is an error that people see at once.
		// Later it is passed over, as the watch does: it must not stop the rest.
		recs, err := s.decodeAll(p.kvs, again)
		if err != nil {
			return 0, nil, err
		}
		s.mu.Lock()
		for i, r := range recs {
			if again {
				res, id := s.split(string(p.kvs[i].Key))
				if seen[res] == nil {
					seen[res] = map[string]bool{}
				}
				seen[res][id] = true
			}
			if r == nil {
				continue
			}
			old := s.tables[r.Res()].put(r)
			if again && (old == nil || old.Base().Rev != r.Base().Rev) {
				evs = append(evs, Event{Rev: r.Base().Rev, Type: typeOf(old), Rec: r, Old: old})
			}
		}
		s.mu.Unlock()
	}
	if err := ctx.Err(); err != nil {
		return 0, nil, fmt.Errorf("load the store: %w", err)
	}
	if again {
		// After a compaction the tables may hold what is gone by now.
		s.mu.Lock()
		for res, t := range s.tables {
			for _, id := range t.ids() {
				if !seen[res][id] {
					evs = append(evs, Event{Rev: rev, Type: Deleted, Rec: t.remove(id)})
				}
			}
		}
		s.mu.Unlock()
	}
	s.advance(rev)
	return rev, evs, nil
}

// loadedPage is a part of the records of one resource, as of a revision.
type loadedPage struct {
	kvs []*mvccpb.KeyValue
	rev int64
	err error
}

// readAll gives the records of all tables, page by page, all at the revision of
// the first. It reads resource by resource, for what is not a record
// (explanations, above all) is as large as the records and is not kept in
// memory.
func (s *Store) readAll(ctx context.Context, give func(loadedPage) bool) {
	var rev int64
	for _, res := range slices.Sorted(maps.Keys(s.tables)) {
		from := s.prefix + string(res) + "/"
		end := clientv3.GetPrefixRangeEnd(from)
		for more := true; more; {
			r, err := s.cli.Get(ctx, from, clientv3.WithRange(end), clientv3.WithLimit(loadPage), clientv3.WithRev(rev))
			if err != nil {
				give(loadedPage{err: fmt.Errorf("load the store: %w", err)})
				return
			}
			if rev == 0 {
				rev = r.Header.Revision
			}
			if !give(loadedPage{kvs: r.Kvs, rev: rev}) {
				return
			}
			if more = r.More && len(r.Kvs) > 0; more {
				from = string(r.Kvs[len(r.Kvs)-1].Key) + "\x00"
			}
		}
	}
}

func typeOf(old model.Record) EventType {
	if old == nil {
		return Created
	}
	return Updated
}

// decodeAll decodes a page of records on both of two cores. With skip, one that
// cannot be read is nil, else an error.
func (s *Store) decodeAll(kvs []*mvccpb.KeyValue, skip bool) ([]model.Record, error) {
	recs := make([]model.Record, len(kvs))
	errs := make([]error, 2)
	var wg sync.WaitGroup
	for w := range 2 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for i := w; i < len(kvs); i += 2 {
				res, _ := s.split(string(kvs[i].Key))
				r, err := s.tables[res].decode(kvs[i].Value, nil, kvs[i].ModRevision)
				if err != nil && skip {
					s.log.WithError(err).Errorf("cannot read %s", kvs[i].Key)
					continue
				}
				if err != nil {
					errs[w] = fmt.Errorf("key %s: %w", kvs[i].Key, err)
					return
				}
				recs[i] = r
			}
		}()
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return nil, err
		}
	}
	return recs, nil
}

// watch applies every change after rev until the store closes. If history was
// compacted away, everything is loaded again and streams are told so.
func (s *Store) watch(rev int64) {
	defer s.wg.Done()
	for s.ctx.Err() == nil {
		ctx, cancel := context.WithCancel(clientv3.WithRequireLeader(s.ctx))
		ch := s.cli.Watch(ctx, s.prefix, clientv3.WithPrefix(), clientv3.WithRev(rev+1), clientv3.WithProgressNotify())
		for r := range ch {
			if r.Err() != nil {
				if r.CompactRevision != 0 {
					s.log.Warn("the watch fell behind the store's compaction; loading everything again")
					n, evs, err := s.load(s.ctx)
					if err != nil {
						s.log.WithError(err).Warn("loading everything again failed; trying again")
						break
					}
					rev = n
					s.hub.reset(rev, evs)
				}
				break
			}
			s.apply(r.Events)
			rev = max(rev, r.Header.Revision)
			s.advance(rev)
		}
		cancel()
		select {
		case <-time.After(200 * time.Millisecond):
		case <-s.ctx.Done():
		}
	}
}

// apply puts events into the tables, one revision at a time, and hands them to
// the subscribers.
func (s *Store) apply(evs []*clientv3.Event) {
	for len(evs) > 0 {
		rev := evs[0].Kv.ModRevision
		n := 1
		for n < len(evs) && evs[n].Kv.ModRevision == rev {
			n++
		}
		out := s.applyRevision(rev, evs[:n])
		// Published first: whoever waits for a revision finds what OnEvent
		// keeps up to date there too, and a stream that begins after a revision
		// does not get it.
		s.hub.publish(rev, out)
		s.advance(rev)
		evs = evs[n:]
	}
}

func (s *Store) applyRevision(rev int64, evs []*clientv3.Event) []Event {
	recs := make([]model.Record, len(evs))
	for i, e := range evs {
		res, _ := s.split(string(e.Kv.Key))
		t, ok := s.tables[res]
		if !ok || e.Type == clientv3.EventTypeDelete {
			continue
		}
		r, err := t.decode(e.Kv.Value, s.expect.take(string(e.Kv.Key), e.Kv.Value), rev)
		if err != nil {
			// Written by a newer version or by hand; it must not stop the rest.
			s.log.WithError(err).Errorf("cannot read %s at revision %d", e.Kv.Key, rev)
			continue
		}
		recs[i] = r
	}
	out := make([]Event, 0, len(evs))
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, e := range evs {
		res, id := s.split(string(e.Kv.Key))
		t, ok := s.tables[res]
		switch {
		case !ok:
		case e.Type == clientv3.EventTypeDelete:
			if old := t.remove(id); old != nil {
				out = append(out, Event{Rev: rev, N: len(out), Type: Deleted, Rec: old})
			}
		case recs[i] != nil:
			old := t.put(recs[i])
			out = append(out, Event{Rev: rev, N: len(out), Type: typeOf(old), Rec: recs[i], Old: old})
		}
	}
	return out
}

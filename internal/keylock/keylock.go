// Package keylock has locks that are named by strings, obey contexts, and cost
// nothing while nobody holds them.
package keylock

import (
	"context"
	"sort"
	"sync"

	"golang.org/x/sync/semaphore"
)

// everyone is the weight of an exclusive holder; a shared one weighs 1.
const everyone = 1 << 30

// Set is a set of named read-write locks. The zero value is ready. Waiters are
// served in order, so that readers do not starve a writer.
type Set struct {
	mu    sync.Mutex
	locks map[string]*entry
}

type entry struct {
	sem   *semaphore.Weighted
	users int
}

// Want is one lock that a caller needs.
type Want struct {
	Key    string
	Shared bool
}

// Lock takes a lock for one holder alone. The function it gives releases it; it
// must be called once. The error is the context's.
func (s *Set) Lock(ctx context.Context, key string) (func(), error) {
	return s.LockAll(ctx, Want{Key: key})
}

// LockAll takes several locks, in the order of their keys so that callers never
// wait for each other in a circle. A key that is wanted twice is taken once,
// exclusively if either asks for that. On an error none is held.
func (s *Set) LockAll(ctx context.Context, wants ...Want) (func(), error) {
	w := append([]Want(nil), wants...)
	sort.Slice(w, func(i, j int) bool {
		if w[i].Key != w[j].Key {
			return w[i].Key < w[j].Key
		}
		return !w[i].Shared && w[j].Shared // the exclusive one first; the other is dropped
	})
	var held []func()
	release := func() {
		for i := len(held) - 1; i >= 0; i-- {
			held[i]()
		}
	}
	for i, x := range w {
		if i > 0 && w[i-1].Key == x.Key {
			continue
		}
		f, err := s.one(ctx, x)
		if err != nil {
			release()
			return nil, err
		}
		held = append(held, f)
	}
	return release, nil
}

func (s *Set) one(ctx context.Context, w Want) (func(), error) {
	weight := int64(everyone)
	if w.Shared {
		weight = 1
	}
	s.mu.Lock()
	if s.locks == nil {
		s.locks = map[string]*entry{}
	}
	e := s.locks[w.Key]
	if e == nil {
		e = &entry{sem: semaphore.NewWeighted(everyone)}
		s.locks[w.Key] = e
	}
	e.users++
	s.mu.Unlock()

	done := func(locked bool) {
		if locked {
			e.sem.Release(weight)
		}
		s.mu.Lock()
		if e.users--; e.users == 0 {
			delete(s.locks, w.Key)
		}
		s.mu.Unlock()
	}
	if err := e.sem.Acquire(ctx, weight); err != nil {
		done(false)
		return nil, err
	}
	return func() { done(true) }, nil
}

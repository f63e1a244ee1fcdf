package api

import (
	"context"
	"slices"
	"sync"

	"github.com/osds-io/osds/pkg/model"
)

// keyedLocks serialise changes that touch the same record within this process.
// They are not needed for correctness, which the transactions' guards give, but
// keep those who wait for the same record from colliding again and again.
type keyedLocks struct {
	mu sync.Mutex
	m  map[string]*keyedLock
}

type keyedLock struct {
	users int
	held  chan struct{} // has room for the holder
}

func newKeyedLocks() *keyedLocks { return &keyedLocks{m: map[string]*keyedLock{}} }

// hold takes the locks of all keys and gives what releases them. Empty keys and
// repetitions are ignored.
func (l *keyedLocks) hold(ctx context.Context, keys ...string) (release func(), err error) {
	keys = slices.DeleteFunc(slices.Clone(keys), func(k string) bool { return k == "" })
	slices.Sort(keys) // one order for all, so that two never wait for each other
	keys = slices.Compact(keys)
	var got []string
	release = func() {
		for _, k := range slices.Backward(got) {
			l.release(k)
		}
	}
	for _, k := range keys {
		if err := l.take(ctx, k); err != nil {
			release()
			return nil, err
		}
		got = append(got, k)
	}
	return release, nil
}

func (l *keyedLocks) take(ctx context.Context, key string) error {
	l.mu.Lock()
	k, ok := l.m[key]
	if !ok {
		k = &keyedLock{held: make(chan struct{}, 1)}
		l.m[key] = k
	}
	k.users++
	l.mu.Unlock()
	select {
	case k.held <- struct{}{}:
		return nil
	case <-ctx.Done():
		l.leave(key, k)
		return model.Errorf(model.KindUnavailable, "others are changing %s; try again: %w", key, ctx.Err())
	}
}

func (l *keyedLocks) release(key string) {
	l.mu.Lock()
	k := l.m[key]
	l.mu.Unlock()
	<-k.held
	l.leave(key, k)
}

func (l *keyedLocks) leave(key string, k *keyedLock) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if k.users--; k.users == 0 {
		delete(l.m, key)
	}
}

package db

import "github.com/osds-io/osds/pkg/model"

// OnEvent calls f for every event from now on, in order, from the watch's own
// goroutine: f must not block. The function given back ends it; no call is under
// way when it returns.
func (s *Store) OnEvent(f func(Event)) (stop func()) { return s.hub.subscribe(f) }

// Tasked reads a record that can have a task from the cache.
func (s *Store) Tasked(res model.Resource, id string) (model.Tasked, bool) {
	switch res {
	case model.ResVolume:
		return tasked(s.Volumes.Get(id))
	case model.ResSnapshot:
		return tasked(s.Snapshots.Get(id))
	case model.ResAttachment:
		return tasked(s.Attachments.Get(id))
	case model.ResGroup:
		return tasked(s.Groups.Get(id))
	case model.ResDebt:
		return tasked(s.Debts.Get(id))
	}
	return nil, false
}

func tasked[P model.Tasked](p P, ok bool) (model.Tasked, bool) {
	if !ok {
		return nil, false
	}
	return p, true
}

// ActiveTasks gives every record that has work in progress.
func (s *Store) ActiveTasks() []model.Tasked {
	s.mu.RLock()
	defer s.mu.RUnlock()
	var out []model.Tasked
	collect := func(r model.Tasked) {
		if r.CurrentTask().Active() {
			out = append(out, r)
		}
	}
	for _, n := range s.Volumes.byID {
		collect(n.rec)
	}
	for _, n := range s.Snapshots.byID {
		collect(n.rec)
	}
	for _, n := range s.Attachments.byID {
		collect(n.rec)
	}
	for _, n := range s.Groups.byID {
		collect(n.rec)
	}
	for _, n := range s.Debts.byID {
		collect(n.rec)
	}
	return out
}

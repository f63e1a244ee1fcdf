package export

import (
	"context"
	"sync"
	"time"

	"github.com/osds-io/osds/pkg/model"
)

// restoring is how many exports are restored side by side.
const restoring = 8

// reconcile makes the kernel have what the notes say, and gives the attachments
// for which that did not work.
func (m *Manager) reconcile(ctx context.Context, notes []*note) (left []string) {
	m.removeOrphans(ctx)
	live := m.liveOnce(ctx)
	var mu sync.Mutex
	var wg sync.WaitGroup
	slots := make(chan struct{}, restoring)
	for _, n := range notes {
		wg.Add(1)
		slots <- struct{}{}
		go func() {
			defer func() { <-slots; wg.Done() }()
			if err := m.restore(ctx, n.AttachmentID, live); err != nil {
				m.log.WithField("attachment", n.AttachmentID).WithError(err).Warn("an export could not be restored; it is tried again")
				mu.Lock()
				left = append(left, n.AttachmentID)
				mu.Unlock()
			}
		}()
	}
	wg.Wait()
	return left
}

// lister gives the targets that a server has.
type lister func(kind string) (map[string]liveTarget, error)

// liveOnce asks each server once.
func (m *Manager) liveOnce(ctx context.Context) lister {
	type answer struct {
		live map[string]liveTarget
		err  error
	}
	var mu sync.Mutex
	got := map[string]answer{}
	return func(kind string) (map[string]liveTarget, error) {
		mu.Lock()
		defer mu.Unlock()
		a, ok := got[kind]
		if !ok {
			if a.err = m.servers[kind].ready(ctx); a.err == nil {
				a.live, a.err = m.servers[kind].live(ctx)
			}
			got[kind] = a
		}
		return a.live, a.err
	}
}

// restoreLater tries again what could not be restored, until all is or ctx ends.
func (m *Manager) restoreLater(ctx context.Context, left []string) {
	pause := time.Second
	for len(left) > 0 {
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
		pause = min(2*pause, 30*time.Second)
		var still []string
		for _, id := range left {
			c, cancel := context.WithTimeout(ctx, time.Minute)
			err := m.restore(c, id, m.liveOnce(c))
			cancel()
			if err == nil {
				m.log.WithField("attachment", id).Info("export restored")
				continue
			}
			if ctx.Err() != nil {
				return
			}
			m.log.WithField("attachment", id).WithError(err).Warn("an export could not be restored; it is tried again")
			still = append(still, id)
		}
		left = still
	}
}

// restore makes one noted export whole, or ends it if its end had begun.
func (m *Manager) restore(ctx context.Context, id string, live lister) error {
	n := m.note(id)
	if n == nil {
		return nil // ended meanwhile
	}
	_, err := work(ctx, m, "restoring attachment "+id, wants(id, n.VolumeID), func(ctx context.Context) (struct{}, error) {
		return struct{}{}, m.restoreOne(ctx, id, live)
	})
	return err
}

func (m *Manager) restoreOne(ctx context.Context, id string, live lister) error {
	n := m.note(id)
	if n == nil {
		return nil
	}
	log := m.log.WithField("attachment", id).WithField("volume", n.VolumeID)
	if n.Ending {
		if err := m.finish(ctx, n); err != nil {
			return err
		}
		log.Info("the end of an export was completed")
		return nil
	}
	s := m.servers[n.Target]
	have, err := live(n.Target)
	if err != nil {
		return err
	}
	if have[n.Name].up {
		if n.Target == targetTGT {
			return nil
		}
		// It lives; what a crash in the middle has left out is added.
		return s.make(ctx, n)
	}
	dev, err := m.device(ctx, n.VolumeID)
	if model.IsKind(err, model.KindNotFound) {
		if err := m.finish(ctx, n); err != nil {
			return err
		}
		log.Warn("an export of a volume that is gone was removed")
		return nil
	}
	if err != nil {
		return err
	}
	if now := m.refreshed(n, dev, have); now.Device != n.Device || now.WriteThrough != n.WriteThrough {
		if err := m.keep(now); err != nil {
			return err
		}
		n = now
	}
	if err := s.make(ctx, n); err != nil {
		return err
	}
	log.WithField("device", dev).Info("an export was restored")
	return nil
}

// removeOrphans removes what bears our mark and has no note: nobody asked for it.
func (m *Manager) removeOrphans(ctx context.Context) {
	noted := map[string]bool{}
	volumes := map[string]bool{}
	used := map[string]bool{}
	for _, n := range m.all() {
		noted[n.Name], volumes[n.VolumeID], used[n.Target] = true, true, true
	}
	m.mu.Lock()
	damaged := len(m.bad) > 0
	for id := range m.bad {
		noted[targetName(ISCSI, id)], noted[targetName(NVMe, id)] = true, true
	}
	m.mu.Unlock()
	for kind, s := range m.servers {
		if kind == targetTGT && !used[kind] && m.conf.Target != targetTGT && m.servers[targetLIO].can(ctx) == nil {
			continue // tgtd is asked only where it may be used
		}
		live, err := s.live(ctx)
		if err != nil {
			m.log.WithError(err).Debug("targets of " + kind + " cannot be listed")
			continue
		}
		for name, t := range live {
			if t.owner != m.owner || noted[name] {
				continue
			}
			log := m.log.WithField("target", name)
			if err := s.orphan(ctx, name); err != nil {
				log.WithError(err).Error("a target that nobody asked for could not be removed")
				continue
			}
			log.Warn("a target that nobody asked for was removed")
		}
		gone, err := s.sweep(ctx, func(id string) bool { return damaged || volumes[id] })
		for _, g := range gone {
			m.log.Warn(g + ", which nobody asked for, was removed")
		}
		if err != nil {
			m.log.WithError(err).Warn("leftovers of " + kind + " could not be removed")
		}
	}
}

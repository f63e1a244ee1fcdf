package connector

import (
	"context"
	"time"
)

// repairLoop tries again, now and then, the portals that could not be reached
// when a volume was attached: open-iscsi gives up a first login, and the kernel a
// controller after its loss timeout.
func (c *Connector) repairLoop(ctx context.Context) {
	t := time.NewTicker(c.conf.RepairInterval)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		for _, n := range c.notes.all() {
			if c.lacks(&n) && ctx.Err() == nil {
				c.repair(ctx, n.AttachmentID)
			}
		}
	}
}

// lacks says whether an attached volume has a path, but not all. One without any
// is not for us to bring back: its export may have been taken away.
func (c *Connector) lacks(n *note) bool {
	if n.Stage != stageAttached || c.conf.Multipath == MultipathSingle {
		return false
	}
	have := 0
	switch n.Target.Type {
	case typeISCSI:
		have = len(c.h.sessionsOf(&n.Target))
	case typeNVMe:
		have = len(c.h.controllersOf(&n.Target))
	}
	return have > 0 && have < len(n.Target.Portals)
}

// repair makes the missing paths of one attachment. A call for it ends the
// attempt.
func (c *Connector) repair(ctx context.Context, id string) {
	ctx, cancel := context.WithTimeout(ctx, 2*c.conf.LoginTimeout+5*time.Second)
	defer cancel()
	unlock, err := c.locks.Lock(ctx, "a/"+id)
	if err != nil {
		return
	}
	defer unlock()
	c.mu.Lock()
	c.repairs[id] = cancel
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		delete(c.repairs, id)
		c.mu.Unlock()
	}()
	n, ok := c.notes.get(id)
	if !ok || !c.lacks(&n) {
		return
	}
	log := c.conf.Log.WithField("attachment", id)
	warn, err := c.proto[n.Target.Type].connect(ctx, &n, false)
	switch {
	case err != nil:
		log.WithError(err).Debug("paths could not be repaired")
	case warn != "":
		log.Debug(warn)
	default:
		log.Info("all paths are up again")
	}
}

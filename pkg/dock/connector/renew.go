package connector

import (
	"context"
	"errors"
	"time"

	"golang.org/x/sys/unix"

	"github.com/osds-io/osds/pkg/model"
)

const (
	// openTime is how long the first opening of a device may wait in the kernel
	// before its connection is made anew: one that broke in this moment would be
	// waited for as long as a device in use (two minutes for iSCSI), and the
	// device be dead then.
	openTime = 20 * time.Second
	// renewals is how often that is done in one call.
	renewals = 2
)

// opened opens a device that has just come, and makes its connection anew if that
// broke meanwhile. Only a device that was never given out is treated so: nobody
// has written to it.
func (c *Connector) opened(ctx context.Context, p protocol, n *note, d disk, r Request) (disk, error) {
	for try := 0; ; try++ {
		octx, cancel := context.WithTimeout(ctx, openTime)
		if n.Stage != stageAttaching || c.shared(n) || n.Target.Type == typeLocal || n.Target.Type == typeRBD {
			cancel()
			octx, cancel = context.WithCancel(ctx)
		}
		err := c.revive(octx, p, n, d)
		slow := octx.Err() != nil && ctx.Err() == nil
		cancel()
		if err == nil || try >= renewals || ctx.Err() != nil || n.Stage != stageAttaching || c.shared(n) || !slow && !broken(err) {
			return d, err
		}
		c.conf.Log.WithError(err).WithField("attachment", n.AttachmentID).Warn("a device that has just come is dead; its connection is made anew")
		if err := p.teardown(ctx, n, d, false, true); err != nil {
			return d, err
		}
		if err := c.gone(ctx, p, n); err != nil {
			return d, err
		}
		if _, err := p.connect(ctx, n, true); err != nil {
			return d, err
		}
		if d, err = c.wait(ctx, p, n, r.Size, 500*time.Millisecond, true); err != nil {
			return d, err
		}
	}
}

// revive opens a device. The kernel keeps SCSI disks offline whose errors it could
// not mend, although their session is back since; those are tried once more.
func (c *Connector) revive(ctx context.Context, p protocol, n *note, d disk) error {
	err := c.open(ctx, d, n.ReadOnly)
	if err == nil || n.Target.Type != typeISCSI || !broken(err) || ctx.Err() != nil {
		return err
	}
	if _, why, ferr := p.find(n); ferr != nil || why != "" {
		return err // it is not that
	}
	again := false
	for _, m := range d.members {
		if c.h.value("sys/block", m, "device/state") == "offline" && c.h.write("running", "sys/block", m, "device/state") == nil {
			again = true
		}
	}
	if !again {
		return err
	}
	return c.open(ctx, d, n.ReadOnly)
}

// broken says whether an error of opening a device is that of one without its
// storage.
func broken(err error) bool {
	for _, e := range []error{unix.ENXIO, unix.ENODEV, unix.EIO, unix.ENOLINK, unix.ETIMEDOUT} {
		if errors.Is(err, e) {
			return true
		}
	}
	return model.IsKind(err, model.KindUnknownOutcome)
}

package connector

import (
	"context"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/osds-io/osds/internal/run"
	"github.com/osds-io/osds/pkg/model"
)

// open opens a device as whoever gets it will, and makes it read-only if asked.
// The target enforces read-only too; this keeps mistakes from going that far.
func (c *Connector) open(ctx context.Context, d disk, readOnly bool) error {
	return c.block(ctx, "open of "+c.h.devPath(d.name), func() error {
		for _, name := range append([]string{d.name}, d.members...) {
			f, err := os.OpenFile(c.h.path(c.h.devPath(name)), os.O_RDONLY, 0)
			if err != nil {
				return err
			}
			if readOnly {
				err = unix.IoctlSetPointerInt(int(f.Fd()), unix.BLKROSET, 1)
			}
			if err = errors.Join(err, f.Close()); err != nil {
				return err
			}
			if !readOnly {
				break
			}
		}
		return nil
	})
}

// errHeld is a device that somebody has claimed.
var errHeld = errors.New("somebody has claimed the device")

// flush claims a device for itself, so that nobody can mount it meanwhile, and
// writes out what is cached. Without a path to the device it only claims it: the
// last user's close has written everything already, or it still waits and is seen.
func (c *Connector) flush(ctx context.Context, d disk, reachable bool) error {
	path := c.h.path(c.h.devPath(d.name))
	return c.block(ctx, "flush of "+c.h.devPath(d.name), func() error {
		f, err := os.OpenFile(path, os.O_RDWR|unix.O_EXCL, 0)
		if errors.Is(err, unix.EROFS) || errors.Is(err, unix.EACCES) {
			f, err = os.OpenFile(path, os.O_RDONLY|unix.O_EXCL, 0)
		}
		switch {
		case errors.Is(err, unix.EBUSY):
			return errHeld
		case errors.Is(err, unix.ENXIO), errors.Is(err, unix.ENODEV), errors.Is(err, os.ErrNotExist):
			return nil // it has gone
		case err != nil:
			return err
		}
		defer f.Close()
		if !reachable {
			return nil
		}
		if err := f.Sync(); err != nil {
			return err
		}
		return unix.IoctlSetInt(int(f.Fd()), unix.BLKFLSBUF, 0)
	})
}

// idle makes sure that nothing holds a device, and flushes it.
func (c *Connector) idle(ctx context.Context, id string, d disk, reachable bool) error {
	busy := func(by []string) error {
		return model.Errorf(model.KindBusy, "%s of attachment %s is in use: %s", c.h.devPath(d.name), id, strings.Join(by, ", "))
	}
	if by := c.h.holders(d); len(by) > 0 {
		return busy(by)
	}
	err := c.flush(ctx, d, reachable)
	if errors.Is(err, errHeld) {
		by := append(c.h.holders(d), c.h.elsewhere(d)...)
		if len(by) == 0 {
			by = []string{"something in the kernel, or a flush that an earlier detach began, has claimed it"}
		}
		return busy(by)
	}
	if err != nil && model.KindOf(err) != model.KindUnknownOutcome {
		return model.Errorf(model.KindUnavailable, "%s of attachment %s cannot be flushed: %w", c.h.devPath(d.name), id, err)
	}
	return err
}

// grow grows the file system of a device to the device's size.
func (c *Connector) grow(ctx context.Context, d disk) error {
	path := c.h.devPath(d.name)
	var point string
	s := stack{devs: []stacked{{name: d.name, dev: c.h.dev(d.name)}}}
	for _, m := range c.h.mountsOf(s, "self") {
		point = m.point
	}
	var kind string
	err := c.block(ctx, "look at the file system of "+path, func() (err error) {
		kind, err = fileSystem(c.h.path(path))
		return err
	})
	if err != nil {
		return model.Errorf(model.KindOf(err), "file system of %s: %w", path, err)
	}
	cmd := func(name string, ok []int, args ...string) error {
		if _, err := c.h.run.Run(ctx, run.Cmd{Name: name, Args: args, OK: ok}); err != nil {
			return model.Errorf(model.KindOf(err), "the file system of %s was not grown: %w", path, err)
		}
		return nil
	}
	switch {
	case kind == "ext" && point != "":
		return cmd("resize2fs", nil, path)
	case kind == "ext":
		if by := c.h.holders(d); len(by) > 0 {
			return model.Errorf(model.KindBusy, "the file system of %s is neither mounted here nor idle: %s", path, strings.Join(by, ", "))
		}
		// resize2fs insists on it. 1 is "errors were corrected".
		if err := cmd("e2fsck", []int{1}, "-f", "-p", path); err != nil {
			return err
		}
		return cmd("resize2fs", nil, path)
	case kind == "xfs" && point != "":
		return cmd("xfs_growfs", nil, point)
	case kind == "xfs":
		return model.Errorf(model.KindUnsupported, "the XFS file system of %s is not mounted here, and grows only while it is", path)
	}
	return model.Errorf(model.KindUnsupported, "%s has no ext2/3/4 or XFS file system directly on it; grow what it has by other means", path)
}

// fileSystem knows the file systems that can be grown, by their superblocks.
func fileSystem(path string) (string, error) {
	f, err := os.Open(filepath.Clean(path))
	if err != nil {
		return "", err
	}
	defer f.Close()
	b := make([]byte, 2048)
	if _, err := f.ReadAt(b, 0); err != nil {
		return "", err
	}
	switch {
	case string(b[:4]) == "XFSB":
		return "xfs", nil
	case binary.LittleEndian.Uint16(b[1024+56:]) == 0xef53:
		return "ext", nil
	}
	return "", nil
}

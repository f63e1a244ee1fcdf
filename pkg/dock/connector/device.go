package connector

import (
	"context"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"time"

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
			// A device that is read-only already is left alone: the kernel would
			// keep our mark on a loop device for its next user.
			if readOnly && c.h.value("sys/block", name, "ro") != "1" {
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
	// Maps of a map's partitions have claimed it; nobody may have claimed them.
	claims := c.h.partitionMaps(d)
	return c.block(ctx, "flush of "+c.h.devPath(d.name), func() error {
		excl := unix.O_EXCL
		if len(claims) > 0 {
			excl = 0
		}
		for _, name := range claims {
			f, err := claim(c.h.path(c.h.devPath(name)), unix.O_EXCL)
			if err != nil {
				return err
			}
			if f != nil {
				defer f.Close()
			}
		}
		f, err := claim(c.h.path(c.h.devPath(d.name)), excl)
		if err != nil || f == nil {
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

// claim opens a device; it gives nothing for one that has gone.
func claim(path string, excl int) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|excl, 0)
	if errors.Is(err, unix.EROFS) || errors.Is(err, unix.EACCES) {
		f, err = os.OpenFile(path, os.O_RDONLY|excl, 0)
	}
	switch {
	case errors.Is(err, unix.EBUSY):
		return nil, errHeld
	case errors.Is(err, unix.ENXIO), errors.Is(err, unix.ENODEV), errors.Is(err, os.ErrNotExist):
		return nil, nil
	}
	return f, err
}

// idle makes sure that nothing holds a device, and flushes it. A process that has
// it open is given a moment: the system looks at new devices by itself.
func (c *Connector) idle(ctx context.Context, id string, d disk, reachable bool) error {
	for end := time.Now().Add(time.Second); ; {
		s := c.h.stackOf(d)
		by := c.h.keepers(s)
		stays := len(by) > 0
		if by = append(by, c.h.openBy(s)...); len(by) == 0 {
			err := c.flush(ctx, d, reachable)
			if !errors.Is(err, errHeld) {
				if err != nil && model.KindOf(err) != model.KindUnknownOutcome {
					return model.Errorf(model.KindUnavailable, "%s of attachment %s cannot be flushed: %w", c.h.devPath(d.name), id, err)
				}
				return err
			}
			if by = append(c.h.holders(d), c.h.elsewhere(d)...); len(by) == 0 {
				by = []string{"something in the kernel, or a flush that an earlier detach began, has claimed it"}
			}
		}
		if stays || time.Now().After(end) || sleep(ctx, 100*time.Millisecond) != nil {
			return model.Errorf(model.KindBusy, "%s of attachment %s is in use: %s", c.h.devPath(d.name), id, strings.Join(firstFew(by), ", "))
		}
	}
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

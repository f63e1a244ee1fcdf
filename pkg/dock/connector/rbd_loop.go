package connector

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/osds-io/osds/pkg/model"
)

// rbdLoopName is what a loop device of an attachment is called. The kernel keeps
// 63 bytes.
func rbdLoopName(n *note) string {
	const prefix = "osds-rbd:"
	if len(prefix)+len(n.AttachmentID) < unix.LO_NAME_SIZE {
		return prefix + n.AttachmentID
	}
	h := sha256.Sum256([]byte(n.AttachmentID))
	return prefix + "#" + hex.EncodeToString(h[:20])
}

// loop binds a free loop device to a file, under a name.
func (h *host) loop(file, name string, readOnly bool) error {
	mode := os.O_RDWR
	if readOnly {
		mode = os.O_RDONLY
	}
	f, err := os.OpenFile(file, mode, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	ctl, err := os.OpenFile(h.path("dev/loop-control"), os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer ctl.Close()
	// Whoever else looks for a free device may be quicker.
	for range 64 {
		num, err := unix.IoctlRetInt(int(ctl.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			return fmt.Errorf("free loop device: %w", err)
		}
		err = h.bind(fmt.Sprintf("dev/loop%d", num), f, name, readOnly)
		if !errors.Is(err, unix.EBUSY) {
			return err
		}
	}
	return model.Errorf(model.KindUnavailable, "no loop device could be had: others were quicker each time")
}

func (h *host) bind(dev string, f *os.File, name string, readOnly bool) error {
	d, err := os.OpenFile(h.path(dev), os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer d.Close()
	c := unix.LoopConfig{Fd: uint32(f.Fd())}
	copy(c.Info.File_name[:unix.LO_NAME_SIZE-1], name)
	if readOnly {
		c.Info.Flags = unix.LO_FLAGS_READ_ONLY
	}
	if err := unix.IoctlLoopConfigure(int(d.Fd()), &c); err != nil {
		return fmt.Errorf("/%s: %w", dev, err)
	}
	// One cache is enough. Where it cannot be, there are two.
	_ = unix.IoctlSetInt(int(d.Fd()), unix.LOOP_SET_DIRECT_IO, 1)
	return nil
}

// loopOn gives the loop device on a file of an image; empty if there is none. It
// is known by what the kernel remembers of the file's name: whoever asks the
// device itself has the file system asked, which may answer never. Of a file
// system that is unmounted already the name is left without the way to it; such a
// device must have the number that was given out.
func (h *host) loopOn(file, dev string) string {
	for _, b := range h.names("sys/block") {
		if !strings.HasPrefix(b, "loop") {
			continue
		}
		got := strings.TrimSuffix(h.value("sys/block", b, "loop/backing_file"), " (deleted)")
		if got == file || (got == "/"+filepath.Base(file) && (dev == "" || dev == h.dev(b))) {
			return b
		}
	}
	return ""
}

func (h *host) loopClear(name string) error { return h.loopIoctl(name, unix.LOOP_CLR_FD) }

func (h *host) loopCapacity(name string) error { return h.loopIoctl(name, unix.LOOP_SET_CAPACITY) }

func (h *host) loopIoctl(name string, req uint) error {
	d, err := os.OpenFile(h.path("dev", name), os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer d.Close()
	_, err = unix.IoctlRetInt(int(d.Fd()), req)
	if errors.Is(err, unix.ENXIO) {
		return nil // it is bound to nothing any more
	}
	return err
}

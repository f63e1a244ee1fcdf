package local

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/osds-io/osds/internal/faults"
	"github.com/osds-io/osds/pkg/model"
)

// This file speaks with the kernel's loop driver. Which devices there are, and
// of what, is asked of the kernel each time: a device outlives the dock, and
// somebody may have detached it.

// loop is a loop device that is bound to a file.
type loop struct {
	name string // loop3
	// base is the file's name without its directory, as the kernel shows it.
	base string
	// tag is what we gave the device as a name: it says which attachment it is.
	tag      string
	dev, ino uint64
	flags    uint32
	// hidden says that the device could not be asked (we are not root): what is
	// known is base alone.
	hidden bool
}

func (l loop) path() string { return "/dev/" + l.name }

func (l loop) readOnly() bool { return l.flags&unix.LO_FLAGS_READ_ONLY != 0 }

const loopControl = "/dev/loop-control"

// whyNoLoops says why loop devices cannot be made; empty if they can.
func whyNoLoops() string {
	if os.Geteuid() != 0 {
		return "root is needed to make loop devices"
	}
	f, err := os.OpenFile(loopControl, os.O_RDWR, 0)
	if err != nil {
		return "loop devices cannot be made: " + err.Error()
	}
	_ = f.Close()
	return ""
}

// tagPrefix marks devices of ours. The kernel keeps up to 63 bytes.
const tagPrefix = "osds:"

// tagOf gives the tag of an attachment: its id, or a digest of a long one.
func tagOf(attachmentID string) string {
	if len(tagPrefix)+len(attachmentID) < unix.LO_NAME_SIZE {
		return tagPrefix + attachmentID
	}
	h := sha256.Sum256([]byte(attachmentID))
	return tagPrefix + "#" + hex.EncodeToString(h[:20])
}

// idOfTag is the reverse; false for a digest and for a device that is not ours.
func idOfTag(tag string) (string, bool) {
	id, ok := strings.CutPrefix(tag, tagPrefix)
	return id, ok && model.ValidID(id)
}

// findLoops gives the bound loop devices whose file's name match accepts.
func findLoops(match func(base string) bool) ([]loop, error) {
	names, err := filepath.Glob("/sys/block/loop*/loop/backing_file")
	if err != nil {
		return nil, err
	}
	var out []loop
	for _, n := range names {
		b, err := os.ReadFile(n)
		if err != nil {
			continue // unbound meanwhile
		}
		// The kernel adds this when the file has lost its name; such a device
		// is told by its inode.
		file := strings.TrimSuffix(strings.TrimSuffix(string(b), "\n"), " (deleted)")
		l := loop{name: strings.Split(n, "/")[3], base: filepath.Base(file)}
		if !match(l.base) {
			continue
		}
		info, err := l.ask()
		switch {
		case errors.Is(err, fs.ErrPermission):
			l.hidden = true
		case errors.Is(err, unix.ENXIO), errors.Is(err, fs.ErrNotExist):
			continue
		case err != nil:
			return nil, fmt.Errorf("%s: %w", l.path(), err)
		default:
			l.tag, l.dev, l.ino, l.flags = nameOf(info), info.Device, info.Inode, info.Flags
		}
		out = append(out, l)
	}
	return out, nil
}

func nameOf(info *unix.LoopInfo64) string {
	b, _, _ := bytes.Cut(info.File_name[:], []byte{0})
	return string(b)
}

// ask asks a device what it is bound to.
func (l loop) ask() (*unix.LoopInfo64, error) {
	f, err := os.OpenFile(l.path(), os.O_RDONLY, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return unix.IoctlLoopGetStatus64(int(f.Fd()))
}

// same says whether a device is still what it was found to be.
func (l loop) same() (bool, error) {
	info, err := l.ask()
	if errors.Is(err, unix.ENXIO) || errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return info.Device == l.dev && info.Inode == l.ino && nameOf(info) == l.tag, nil
}

// sector is the logical block size of the devices.
const sector = 512

// bindLoop makes a loop device of a file.
func bindLoop(ctx context.Context, file *os.File, tag string, readOnly bool) (loop, error) {
	ctl, err := os.OpenFile(loopControl, os.O_RDWR, 0)
	if err != nil {
		return loop{}, err
	}
	defer ctl.Close()
	// The sector size must be the same each time a volume is exported, or what
	// is on it cannot be read. Left alone the kernel takes the least that direct
	// I/O to the file needs, which on XFS is 512 before the first snapshot and
	// 4096 after it.
	c := unix.LoopConfig{Fd: uint32(file.Fd()), Size: sector}
	copy(c.Info.File_name[:unix.LO_NAME_SIZE-1], tag)
	// Direct, so that data is not cached twice and a write that was answered is
	// in the file. The kernel leaves it out where the file cannot do it in
	// sectors.
	c.Info.Flags = unix.LO_FLAGS_DIRECT_IO
	if readOnly {
		c.Info.Flags |= unix.LO_FLAGS_READ_ONLY
	}
	for range 64 {
		if err := ctx.Err(); err != nil {
			return loop{}, err
		}
		n, err := unix.IoctlRetInt(int(ctl.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			return loop{}, fmt.Errorf("no free loop device: %w", err)
		}
		l := loop{name: "loop" + strconv.Itoa(n), tag: tag, flags: c.Info.Flags}
		dev, err := os.OpenFile(l.path(), os.O_RDWR, 0)
		if err != nil {
			return loop{}, err
		}
		faults.Point("local.export.bind")
		err = unix.IoctlLoopConfigure(int(dev.Fd()), &c)
		_ = dev.Close()
		switch {
		case err == nil:
			return l, nil
		case errors.Is(err, unix.EBUSY):
			continue // somebody else was faster
		case errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOTTY):
			return loop{}, model.Errorf(model.KindUnsupported, "the kernel refuses LOOP_CONFIGURE; 5.8 or later is needed: %w", err)
		}
		return loop{}, err
	}
	return loop{}, model.Errorf(model.KindUnavailable, "every free loop device was taken by somebody else")
}

// resize tells a device that its file has another length.
func (l loop) resize() error {
	f, err := os.OpenFile(l.path(), os.O_RDWR, 0)
	if errors.Is(err, unix.EROFS) || errors.Is(err, fs.ErrPermission) {
		f, err = os.OpenFile(l.path(), os.O_RDONLY, 0)
	}
	if err != nil {
		return err
	}
	defer f.Close()
	return unix.IoctlSetInt(int(f.Fd()), unix.LOOP_SET_CAPACITY, 0)
}

// keep takes back the order to vanish at the last close, which a detach that was
// interrupted may have left.
func (l loop) keep() error {
	f, err := os.OpenFile(l.path(), os.O_RDONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := unix.IoctlLoopGetStatus64(int(f.Fd()))
	if err != nil || info.Flags&unix.LO_FLAGS_AUTOCLEAR == 0 {
		return err
	}
	info.Flags &^= unix.LO_FLAGS_AUTOCLEAR
	return unix.IoctlLoopSetStatus64(int(f.Fd()), info)
}

// noDiscard makes a device take no discards, so that they do not give back what
// was set aside for a thick volume.
func (l loop) noDiscard() error {
	return os.WriteFile("/sys/block/"+l.name+"/queue/discard_max_bytes", []byte("0"), 0)
}

// unbind detaches a device, and is nil only when it is gone: the kernel answers
// a detach of a device that is open somewhere with success, and keeps it until
// the last close. Such a device is busy, and stays as it was.
func (l loop) unbind(ctx context.Context) error {
	busy := func(why string) error {
		return model.Errorf(model.KindBusy, "%s is in use: %s", l.path(), why)
	}
	var st unix.Stat_t
	if err := unix.Stat(l.path(), &st); err != nil {
		return err
	}
	if where, err := mountedAt(st.Rdev); err != nil {
		return err
	} else if where != "" {
		return busy("it is mounted at " + where)
	}
	if h, _ := os.ReadDir("/sys/block/" + l.name + "/holders"); len(h) > 0 {
		return busy("it is a part of " + h[0].Name())
	}
	// Exclusively: this fails while it is mounted anywhere, in whatever name
	// space, and nobody can mount it while we hold it.
	f, err := os.OpenFile(l.path(), os.O_RDONLY|unix.O_EXCL, 0)
	if errors.Is(err, unix.EBUSY) {
		return busy("it is mounted, or a part of another device")
	}
	if err != nil {
		return err
	}
	err = f.Sync() // a lost write must be heard of
	if err == nil {
		faults.Point("local.unexport.clear")
		err = unix.IoctlSetInt(int(f.Fd()), unix.LOOP_CLR_FD, 0)
	}
	_ = f.Close()
	if err != nil && !errors.Is(err, unix.ENXIO) {
		return err
	}
	// Programs that look at every new device close it at once; others do not.
	for i := 0; ; i++ {
		still, err := l.same()
		if err != nil || !still {
			return err
		}
		if i == 20 {
			break
		}
		select {
		case <-ctx.Done():
			_ = l.keep()
			return ctx.Err()
		case <-time.After(25 * time.Millisecond):
		}
	}
	if err := l.keep(); err != nil {
		if still, serr := l.same(); serr == nil && !still {
			return nil
		}
		return err
	}
	return busy("a program has it open")
}

// mountedAt says where a device is mounted, as far as this process sees.
func mountedAt(rdev uint64) (string, error) {
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return "", err
	}
	dev := fmt.Sprintf("%d:%d", unix.Major(rdev), unix.Minor(rdev))
	for _, line := range strings.Split(string(b), "\n") {
		if f := strings.Fields(line); len(f) > 4 && f[2] == dev {
			return f[4], nil
		}
	}
	return "", nil
}

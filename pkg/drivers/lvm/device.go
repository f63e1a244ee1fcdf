package lvm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/osds-io/osds/pkg/drivers/export"
	"github.com/osds-io/osds/pkg/model"
)

// Steps after which clearing and copying look whether they are to go on, and how much is noted in the journal at a time.
const (
	zeroStep = 64 << 20
	copyStep = 1 << 20
	noteStep = 256 << 20
)

func devicePath(vg, name string) string { return "/dev/" + vg + "/" + name }

// openDevice opens an active logical volume past the page cache, and checks that
// it is as large as it must be: what the kernel shows is the proof that a command
// did what it was to do.
func openDevice(ctx context.Context, vg, name string, size model.Bytes, write bool) (*os.File, error) {
	f, err := openDeviceAny(ctx, vg, name, write)
	if err != nil {
		return nil, err
	}
	have, err := deviceSize(f)
	if err == nil && have != size {
		err = model.Errorf(model.KindInternal, "%s has %s and should have %s", f.Name(), have, size)
	}
	if err != nil {
		_ = f.Close()
		return nil, err
	}
	return f, nil
}

// openDeviceAny opens an active logical volume of any size.
func openDeviceAny(ctx context.Context, vg, name string, write bool, flags ...int) (*os.File, error) {
	flag := os.O_RDONLY
	if write {
		flag = os.O_RDWR
	}
	for _, x := range flags {
		flag |= x
	}
	path := devicePath(vg, name)
	// udev makes the name, and LVM waits for it; but not where it is told not to.
	for try := 0; ; try++ {
		f, err := os.OpenFile(path, flag|unix.O_DIRECT, 0)
		if err == nil {
			return f, nil
		}
		if !errors.Is(err, os.ErrNotExist) || try >= 50 {
			return nil, model.Errorf(model.KindUnavailable, "the device of %s/%s: %w", vg, name, err)
		}
		select {
		case <-ctx.Done():
			return nil, model.Errorf(model.KindUnknownOutcome, "waiting for %s: %w", path, ctx.Err())
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// notOpen is busy for a device that somebody has claimed: it is mounted, a part of
// another device, or a target's. Mere readers do not count.
func notOpen(ctx context.Context, vg, name string) error {
	f, err := openDeviceAny(ctx, vg, name, false, unix.O_EXCL)
	if errors.Is(err, unix.EBUSY) {
		return model.Errorf(model.KindBusy, "%s/%s is in use", vg, name)
	}
	if err != nil {
		return err
	}
	defer f.Close()
	who, err := export.Holder(ctx, f.Name())
	if err != nil {
		return err
	}
	if who != "" {
		return model.Errorf(model.KindBusy, "%s/%s is in use, by %s", vg, name, who)
	}
	return nil
}

// deviceSize asks the kernel for the size of a block device.
func deviceSize(f *os.File) (model.Bytes, error) {
	var n uint64
	if err := ioctl(f, unix.BLKGETSIZE64, unsafe.Pointer(&n)); err != nil {
		return 0, fmt.Errorf("%s: its size: %w", f.Name(), err)
	}
	return model.Bytes(n), nil
}

func ioctl(f *os.File, req uint, arg unsafe.Pointer) error {
	for {
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), uintptr(req), uintptr(arg))
		switch errno {
		case 0:
			return nil
		case unix.EINTR:
		default:
			return errno
		}
	}
}

// blkZeroOut is BLKZEROOUT: the kernel writes zeros, or has the device do it where
// that is known to give zeros. A plain discard is never taken for that.
const blkZeroOut = 0x127f

func zeroRange(f *os.File, off, n int64) error {
	r := [2]uint64{uint64(off), uint64(n)}
	if err := ioctl(f, blkZeroOut, unsafe.Pointer(&r)); err != nil {
		return fmt.Errorf("clearing %s at %d: %w", f.Name(), off, err)
	}
	return nil
}

// zero clears a device from one place to another. note, if it is not nil, is
// called with what is cleared and on disk.
func zero(pc *pace, f *os.File, from, to int64, note func(off int64) error) error {
	noted := from
	for off := from; off < to; {
		if err := pc.next(); err != nil {
			return &unfinished{"cleared", off, to, err}
		}
		n := min(zeroStep, to-off)
		if err := zeroRange(f, off, n); err != nil {
			return err
		}
		off += n
		if note != nil && off-noted >= noteStep && off < to {
			if err := errors.Join(f.Sync(), note(off)); err != nil {
				return err
			}
			noted = off
		}
	}
	return f.Sync()
}

// unfinished is the end of long work's time in a call; the same call goes on there.
type unfinished struct {
	what     string
	off, end int64
	err      error
}

func (e *unfinished) Error() string {
	return fmt.Sprintf("%s %s of %s (%d %%): %v", e.what, model.Bytes(e.off), model.Bytes(e.end), e.off*100/max(e.end, 1), e.err)
}

func (e *unfinished) Unwrap() error { return e.err }

// aligned gives a buffer for direct input and output. It is unmapped by free.
func aligned() (buf []byte, free func(), err error) {
	buf, err = unix.Mmap(-1, 0, copyStep, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	return buf, func() { _ = unix.Munmap(buf) }, err
}

// copyData copies src to dst from one place to another. What is zero is cleared
// rather than written. With compare, what is the same already is left alone: dst
// may have snapshots, and each write would take space in them.
func copyData(pc *pace, dst, src *os.File, from, to int64, compare bool, note func(off int64) error) error {
	a, freeA, err := aligned()
	if err != nil {
		return err
	}
	defer freeA()
	b, freeB, err := aligned()
	if err != nil {
		return err
	}
	defer freeB()
	noted := from
	for off := from; off < to; {
		if err := pc.next(); err != nil {
			return &unfinished{"copied", off, to, err}
		}
		n := min(copyStep, to-off)
		if src == nil {
			clear(a[:n])
		} else if err := readFull(src, a[:n], off); err != nil {
			return err
		}
		if err := putBlock(dst, a[:n], b[:n], off, compare); err != nil {
			return err
		}
		off += n
		if note != nil && off-noted >= noteStep && off < to {
			if err := errors.Join(dst.Sync(), note(off)); err != nil {
				return err
			}
			noted = off
		}
	}
	return dst.Sync()
}

// chunk is what is compared at a time: no larger than the chunks of snapshots
// usually are, so that little is written needlessly.
const chunk = 4 << 10

var zeros [chunk]byte

func putBlock(dst *os.File, want, have []byte, off int64, compare bool) error {
	if !compare {
		if isZero(want) {
			return zeroRange(dst, off, int64(len(want)))
		}
		_, err := dst.WriteAt(want, off)
		return err
	}
	if err := readFull(dst, have, off); err != nil {
		return err
	}
	for i := 0; i < len(want); {
		c := min(chunk, len(want)-i)
		if bytes.Equal(want[i:i+c], have[i:i+c]) {
			i += c
			continue
		}
		j := i + c // the run of what differs
		for j < len(want) && !bytes.Equal(want[j:min(j+chunk, len(want))], have[j:min(j+chunk, len(want))]) {
			j = min(j+chunk, len(want))
		}
		if _, err := dst.WriteAt(want[i:j], off+int64(i)); err != nil {
			return err
		}
		i = j
	}
	return nil
}

func isZero(b []byte) bool {
	for len(b) > 0 {
		n := min(chunk, len(b))
		if !bytes.Equal(b[:n], zeros[:n]) {
			return false
		}
		b = b[n:]
	}
	return true
}

func readFull(f *os.File, b []byte, off int64) error {
	n, err := f.ReadAt(b, off)
	if n == len(b) {
		return nil
	}
	if err == nil || errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return fmt.Errorf("reading %s at %d: %w", f.Name(), off, err)
}

package local

import (
	"context"
	"errors"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"github.com/osds-io/osds/internal/faults"
	"github.com/osds-io/osds/pkg/model"
)

// Steps after which a long operation looks whether its caller still wants it.
const (
	copyStep     = 8 << 20
	unshareStep  = 64 << 20
	allocateStep = 16 << 30
)

// copyData fills f with the content of m.source: by sharing its blocks where the
// file system can, and else by copying what is not a hole.
func (p *pool) copyData(ctx context.Context, f *os.File, m making) error {
	st, err := m.source.Stat()
	if err != nil {
		return err
	}
	size := st.Size()
	if p.reflink {
		err := unix.IoctlFileClone(int(f.Fd()), int(m.source.Fd()))
		if err == nil {
			faults.Point("local." + m.op + ".cloned")
			if p.thick() {
				return unshare(ctx, f, size)
			}
			return nil
		}
		if m.atomic || errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
			return err
		}
		// This very file cannot be shared (it may be marked so); copy it.
	}
	if m.atomic {
		return model.Errorf(model.KindBusy, "the source is exported, and its file system cannot make a copy at one point in time: end the export, or use XFS with reflinks")
	}
	return copySparse(ctx, f, m.source, size)
}

// copySparse copies the data of src, and leaves its holes.
func copySparse(ctx context.Context, dst, src *os.File, size int64) error {
	for off := int64(0); off < size; {
		begin, err := unix.Seek(int(src.Fd()), off, unix.SEEK_DATA)
		switch {
		case errors.Is(err, unix.ENXIO):
			return ctx.Err() // nothing but a hole up to the end
		case errors.Is(err, unix.EINVAL):
			begin = off // no holes are known here
		case err != nil:
			return err
		}
		end, err := unix.Seek(int(src.Fd()), begin, unix.SEEK_HOLE)
		if errors.Is(err, unix.EINVAL) {
			end, err = size, nil
		}
		if err != nil {
			return err
		}
		if err := copyRange(ctx, dst, src, begin, min(end, size)); err != nil {
			return err
		}
		off = end
	}
	return ctx.Err()
}

func copyRange(ctx context.Context, dst, src *os.File, off, end int64) error {
	for off < end {
		if err := ctx.Err(); err != nil {
			return err
		}
		from, to := off, off
		n, err := unix.CopyFileRange(int(src.Fd()), &from, int(dst.Fd()), &to, int(min(end-off, copyStep)), 0)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.ENOSYS), errors.Is(err, unix.EXDEV), errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.EINVAL):
			return copyBuffered(ctx, dst, src, off, end)
		case err != nil:
			return err
		case n == 0:
			return io.ErrUnexpectedEOF
		}
		off += int64(n)
	}
	return nil
}

// copyBuffered copies through memory, where the kernel cannot by itself.
func copyBuffered(ctx context.Context, dst, src *os.File, off, end int64) error {
	buf := make([]byte, 1<<20)
	for off < end {
		if err := ctx.Err(); err != nil {
			return err
		}
		b := buf[:min(end-off, int64(len(buf)))]
		if _, err := src.ReadAt(b, off); err != nil {
			return err
		}
		if _, err := dst.WriteAt(b, off); err != nil {
			return err
		}
		off += int64(len(b))
	}
	return nil
}

// unshare gives a file blocks of its own.
func unshare(ctx context.Context, f *os.File, size int64) error {
	for off := int64(0); off < size; off += unshareStep {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := fallocate(f, unix.FALLOC_FL_UNSHARE_RANGE|unix.FALLOC_FL_KEEP_SIZE, off, min(unshareStep, size-off)); err != nil {
			return err
		}
	}
	return nil
}

// allocate sets space aside for a file from one place to another. What was not
// there before reads as zero: the file system marks it so, whatever the blocks
// held. The file's length stays.
func allocate(ctx context.Context, f *os.File, from, to model.Bytes) error {
	for off := from; off < to; off += allocateStep {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := fallocate(f, unix.FALLOC_FL_KEEP_SIZE, int64(off), int64(min(allocateStep, to-off))); err != nil {
			return err
		}
	}
	return nil
}

func fallocate(f *os.File, mode uint32, off, n int64) error {
	for {
		err := unix.Fallocate(int(f.Fd()), mode, off, n)
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

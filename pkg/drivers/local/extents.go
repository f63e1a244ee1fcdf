package local

import (
	"encoding/binary"
	"math"
	"os"
	"slices"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/osds-io/osds/pkg/model"
)

// extents collects where files lie on the device, to find out how much they
// share.
type extents struct {
	list []extent
	left int
}

type extent struct{ at, len uint64 }

// maxExtents bounds the memory of one refresh, to some 16 MB. Beyond it sharing
// is underestimated, and the file system's own count of used space is the bound.
const maxExtents = 1 << 20

// add adds a file's extents. What cannot be read is left out.
func (e *extents) add(p *pool, k kind, id string) {
	f, err := p.root.OpenFile(k.data(id), os.O_RDONLY, 0)
	if err != nil {
		return
	}
	defer f.Close()
	for at := uint64(0); e.left > 0; {
		batch, last, err := fiemap(f, at)
		if err != nil || len(batch) == 0 {
			return
		}
		for _, x := range batch {
			if x.flags&(fiemapUnknown|fiemapDelalloc|fiemapInline) == 0 {
				e.list = append(e.list, extent{x.physical, x.length})
				e.left--
			}
			at = x.logical + x.length
		}
		if last {
			return
		}
	}
}

// excess is how much of the extents is there more than once.
func (e *extents) excess() model.Bytes {
	slices.SortFunc(e.list, func(a, b extent) int {
		if a.at < b.at {
			return -1
		} else if a.at > b.at {
			return 1
		}
		return 0
	})
	var twice, end uint64
	for _, x := range e.list {
		stop := x.at + x.len
		if x.at < end {
			twice += min(stop, end) - x.at
		}
		end = max(end, stop)
	}
	return model.Bytes(twice)
}

// What follows is the kernel's FIEMAP call, which package unix does not have.
const (
	fsIocFiemap    = 0xc020660b
	fiemapLast     = 0x1
	fiemapUnknown  = 0x2
	fiemapDelalloc = 0x4
	fiemapInline   = 0x200

	fiemapHead = 32
	fiemapSize = 56
	fiemapMany = 512
)

type fiemapExtent struct {
	logical, physical, length uint64
	flags                     uint32
}

// fiemap gives some of a file's extents, from a place on.
func fiemap(f *os.File, start uint64) (out []fiemapExtent, last bool, err error) {
	// Of uint64, for its alignment.
	mem := make([]uint64, (fiemapHead+fiemapMany*fiemapSize)/8)
	buf := unsafe.Slice((*byte)(unsafe.Pointer(&mem[0])), len(mem)*8)
	le := binary.NativeEndian
	le.PutUint64(buf[0:], start)
	le.PutUint64(buf[8:], math.MaxUint64-start)
	le.PutUint32(buf[24:], fiemapMany)
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), fsIocFiemap, uintptr(unsafe.Pointer(&mem[0]))); errno != 0 {
		return nil, false, errno
	}
	n := min(int(le.Uint32(buf[20:])), fiemapMany)
	for i := range n {
		b := buf[fiemapHead+i*fiemapSize:]
		x := fiemapExtent{logical: le.Uint64(b), physical: le.Uint64(b[8:]), length: le.Uint64(b[16:]), flags: le.Uint32(b[40:])}
		out = append(out, x)
		last = x.flags&fiemapLast != 0
	}
	return out, last, nil
}

package drivertest

import (
	"bytes"
	"io"
	"math/rand/v2"

	"github.com/osds-io/osds/pkg/drivers"
	"github.com/osds-io/osds/pkg/model"
)

// hasData says whether contents can be looked at.
func (e *env) hasData() bool { return e.h.OpenData != nil && e.h.Skip["data"] == "" }

// blockSize is how much is written at each place.
const blockSize = 64 << 10

// places are offsets that are worth writing at: the start, across a megabyte,
// and the end.
func places(size model.Bytes) []int64 {
	return []int64{0, int64(model.MiB) - blockSize/2, int64(size) - blockSize}
}

// pattern is content that depends on the seed and the offset.
func pattern(seed uint64, off int64) []byte {
	b := make([]byte, blockSize)
	r := rand.New(rand.NewPCG(seed, uint64(off)))
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

func (e *env) openData(r drivers.VolumeRef) Data {
	e.Helper()
	f, err := e.h.OpenData(e.ctx(), r)
	if err != nil {
		e.Fatalf("data of %s: %v", r.ID, err)
	}
	return f
}

// write puts the seed's pattern at the places of a volume of the suite's size.
func (e *env) write(r drivers.VolumeRef, seed uint64) {
	e.Helper()
	if !e.hasData() {
		return
	}
	f := e.openData(r)
	for _, off := range places(e.h.Size) {
		if _, err := f.WriteAt(pattern(seed, off), off); err != nil {
			e.Fatalf("write: %v", err)
		}
	}
	if err := f.Close(); err != nil {
		e.Fatalf("close: %v", err)
	}
}

// has checks that a volume of at least the suite's size has the seed's pattern
// (0: zeros) at the places, and zeros everywhere else.
func (e *env) has(what string, r drivers.VolumeRef, seed uint64, size model.Bytes) {
	e.Helper()
	if !e.hasData() {
		return
	}
	f := e.openData(r)
	defer func() { _ = f.Close() }()
	want := make([]byte, size)
	if seed != 0 {
		for _, off := range places(e.h.Size) {
			copy(want[off:], pattern(seed, off))
		}
	}
	const step = 1 << 20
	got := make([]byte, step)
	for off := int64(0); off < int64(size); off += step {
		n := min(step, int64(size)-off)
		if m, err := f.ReadAt(got[:n], off); err != nil && (err != io.EOF || int64(m) < n) {
			e.Errorf("%s: read of %d bytes at %d: %d, %v", what, n, off, m, err)
			return
		}
		if !bytes.Equal(got[:n], want[off:off+n]) {
			i := 0
			for got[i] == want[off+int64(i)] {
				i++
			}
			e.Errorf("%s: byte %d is %#x, want %#x", what, off+int64(i), got[i], want[off+int64(i)])
			return
		}
	}
}

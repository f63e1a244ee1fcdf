//go:build real

package connector

import (
	"bytes"
	"encoding/json"
	"errors"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/osds-io/osds/pkg/drivers"
	"github.com/osds-io/osds/pkg/model"
)

// rbdEnv names a directory with a connection of type rbd, connection.json. In it
// these tests ask for what only the cluster's side can do: a file ask-NAME is
// answered by a file did-NAME.
const rbdEnv = "OSDS_TEST_RBD"

type rbdSide struct {
	*testing.T
	dir string
	req Request
}

func needRBD(t *testing.T) rbdSide {
	t.Helper()
	dir := os.Getenv(rbdEnv)
	if dir == "" {
		t.Skipf("skipped: there is no cluster of Ceph for this kernel: %s is not set", rbdEnv)
	}
	b, err := os.ReadFile(filepath.Join(dir, "connection.json"))
	if err != nil {
		t.Fatal(err)
	}
	r := Request{AttachmentID: model.NewID(), VolumeID: "rbd-in-guest", Size: 64 * model.MiB, Connection: model.Connection{Type: typeRBD}}
	if err := json.Unmarshal(b, &r.Connection.Data); err != nil {
		t.Fatal(err)
	}
	return rbdSide{t, dir, r}
}

// ask has the other side do something, and waits until it has.
func (s rbdSide) ask(name string) {
	s.Helper()
	ask, did := filepath.Join(s.dir, "ask-"+name), filepath.Join(s.dir, "did-"+name)
	_ = os.Remove(did)
	if err := os.WriteFile(ask, nil, 0o600); err != nil {
		s.Fatal(err)
	}
	for end := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		b, err := os.ReadFile(did)
		if err == nil && len(b) > 0 {
			s.Fatalf("%s: %s", name, b)
		}
		if err == nil {
			return
		}
		if !errors.Is(err, fs.ErrNotExist) || time.Now().After(end) {
			s.Fatalf("%s was not done: %v", name, err)
		}
	}
}

func (s rbdSide) must(err error) {
	s.Helper()
	if err != nil {
		s.Fatal(err)
	}
}

// past reads or writes a device past the cache of this machine.
func (s rbdSide) past(path string, write bool, b []byte, off int64) error {
	buf, err := unix.Mmap(-1, 0, len(b), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	s.must(err)
	defer unix.Munmap(buf)
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_DIRECT, 0)
	if err != nil {
		return err
	}
	if write {
		copy(buf, b)
		_, err = f.WriteAt(buf, off)
	} else {
		_, err = f.ReadAt(buf, off)
		copy(b, buf)
	}
	return errors.Join(err, f.Close())
}

func (s rbdSide) has(what, path string, want []byte, off int64) {
	s.Helper()
	got := make([]byte, len(want))
	if err := s.past(path, false, got, off); err != nil || !bytes.Equal(got, want) {
		s.Errorf("%s: what was written is not there: %v", what, err)
	}
}

// TestRBDKernel and TestRBDNBD: an image becomes a device of this kernel, and the
// device an image again: data, growth, holders, lost notes, and a host that was
// cut off.
func TestRBDKernel(t *testing.T) { testRBD(t, RBDKernel) }
func TestRBDNBD(t *testing.T)    { testRBD(t, RBDNBD) }

func testRBD(t *testing.T, way string) {
	s := needRBD(t)
	state := t.TempDir()
	open := func() *Connector {
		t.Helper()
		c, err := New(t.Context(), Config{StateDir: state, RBD: way, CephDir: "/nonexistent", Log: quietLog()})
		s.must(err)
		return c
	}
	c := open()
	defer func() { s.must(c.Close()) }()
	if why := c.Unusable()[typeRBD]; why != "" {
		t.Skip("skipped: ", why)
	}
	s.ask("new") // an empty image
	attach := func() Device {
		t.Helper()
		d, err := c.Attach(t.Context(), s.req)
		s.must(err)
		return d
	}
	defer func() {
		_ = c.Detach(t.Context(), Request{AttachmentID: s.req.AttachmentID, Connection: s.req.Connection, Force: true})
	}()
	d := attach()
	if prefix := map[string]string{RBDKernel: "/dev/rbd", RBDNBD: "/dev/nbd"}[way]; !strings.HasPrefix(d.Path, prefix) || d.Size != 64*model.MiB {
		t.Fatalf("attached: %+v", d)
	}
	if again := attach(); again.Path != d.Path {
		t.Errorf("the same attach gave %s, then %s", d.Path, again.Path)
	}
	data := make([]byte, 1<<20)
	for i := range data {
		data[i] = byte(rand.Uint32())
	}
	s.must(s.past(d.Path, true, data, 8<<20))
	s.must(os.WriteFile(filepath.Join(s.dir, "data"), data, 0o600))

	s.ask("grow")
	g, err := c.Resize(t.Context(), s.req.AttachmentID, 96*model.MiB, false)
	if err != nil || g.Size != 96*model.MiB {
		t.Errorf("grown: %+v, %v", g, err)
	}
	s.must(s.past(d.Path, true, data, 90<<20))

	f, err := os.OpenFile(d.Path, os.O_RDONLY|unix.O_EXCL, 0)
	s.must(err)
	if err := c.Detach(t.Context(), s.req); !model.IsKind(err, model.KindBusy) {
		t.Errorf("detach of a device that is open: %v", err)
	}
	s.must(f.Close())

	// A restart without the notes.
	s.must(c.Close())
	l, err := filepath.Glob(filepath.Join(state, "*.json"))
	if err != nil || len(l) != 1 {
		t.Fatalf("notes %v, %v", l, err)
	}
	s.must(os.Remove(l[0]))
	c = open()
	if list, err := c.List(t.Context(), drivers.Page{}); err != nil || (way == RBDNBD) != (len(list) == 1) {
		t.Errorf("listed without notes: %+v, %v", list, err)
	}
	s.must(c.Detach(t.Context(), s.req))
	if _, err := os.Stat("/sys/block/" + filepath.Base(d.Path) + "/pid"); way == RBDNBD && err == nil {
		t.Errorf("%s is there after its end", d.Path)
	}
	if _, err := os.Stat(d.Path); way == RBDKernel && err == nil {
		t.Errorf("%s is there after its end", d.Path)
	}

	// Read-only, and what was written is in the image.
	ro := s.req
	ro.AttachmentID, ro.ReadOnly = model.NewID(), true
	d, err = c.Attach(t.Context(), ro)
	s.must(err)
	r, err := os.Open(d.Path)
	s.must(err)
	got := make([]byte, len(data))
	if _, err := r.ReadAt(got, 90<<20); err != nil || !bytes.Equal(got, data) {
		t.Errorf("read-only: what was written is not there: %v", err)
	}
	if n, err := unix.IoctlGetInt(int(r.Fd()), unix.BLKROGET); err != nil || n != 1 {
		t.Errorf("the device is not read-only: %d, %v", n, err)
	}
	s.must(r.Close())
	s.must(c.Detach(t.Context(), ro))

	// Cut off from the cluster: what is written is not confirmed, and a forced
	// detach ends the device, whoever waits for it.
	d = attach()
	s.has("attached again", d.Path, data, 8<<20)
	s.ask("cut")
	wrote := make(chan error, 1)
	go func() { wrote <- s.past(d.Path, true, make([]byte, 1<<20), 8<<20) }()
	force := s.req
	force.Force = true
	s.must(c.Detach(t.Context(), force))
	select {
	case err := <-wrote:
		if err == nil {
			t.Error("a write was confirmed after the host had been cut off")
		}
	case <-time.After(2 * time.Minute):
		t.Error("a write to a device that was ended does not end")
	}
	if list, err := c.List(t.Context(), drivers.Page{}); err != nil || len(list) != 0 {
		t.Errorf("listed at the end: %+v, %v", list, err)
	}
	s.ask("same") // the image has what was written before
}

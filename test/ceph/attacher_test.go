//go:build real && ceph && linux

package ceph

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/osds-io/osds/pkg/client"
	"github.com/osds-io/osds/pkg/model"
	"github.com/osds-io/osds/pkg/model/wire"
	"github.com/osds-io/osds/test/harness"
)

// hostAt registers a host that is known by the address of its Ceph clients.
func (s *site) hostAt(name, addr string) *wire.HostSpec {
	s.Helper()
	h, err := s.a.Hosts.Create(s.a.Ctx(), &wire.HostSpec{
		HostName: name, OSType: "linux", AccessMode: "agentless", AvailabilityZones: []string{"default"},
		Initiators: []wire.Initiator{{PortName: addr, Protocol: "rbd"}},
	})
	must(s.T, err)
	return h
}

// watchersOf gives the addresses of an image's clients.
func (s *site) watchersOf(volume string) []string {
	s.Helper()
	out, err := lab.RBD(s.Context(), "status", s.pool+"/opensds-"+volume)
	must(s.T, err)
	var all []string
	for _, f := range strings.Fields(string(out)) {
		if a, ok := strings.CutPrefix(f, "watcher="); ok {
			all = append(all, a)
		}
	}
	return all
}

// TestAttacherFence: a volume is attached by REST alone, through the dock of its
// host. That dock dies, and its host goes on writing. A forced detach cuts the
// host off; what it writes after that does not reach the volume, which is attached
// to another host. When the first dock is back it clears away what it owes.
func TestAttacherFence(t *testing.T) {
	needFuse(t)
	s := &site{T: t, pool: poolName(t)}
	must(t, lab.CreatePool(t.Context(), s.pool))
	s.c = suite.NewCluster(t)
	s.c.AddLet(harness.Quick())
	s.c.AddDock(nil, backend(s.pool))
	attacher := func(addr string) *harness.Dock {
		return s.c.AddAttacher(harness.Config{"connector.rbd": "fuse", "connector.cephDir": lab.Dir, "connector.rbdAddresses": []string{addr}})
	}
	// Both are this machine. Ceph sees every client of it at one address, which
	// is neither's: with one attachment at a time it is clear whose a client is.
	one, two := attacher("127.0.1.1"), attacher("127.0.1.2")
	t.Cleanup(func() { noLoops(t, s.c.Dir); noMounts(t, s.c.Dir) })
	s.c.Start()
	s.a = s.c.Admin()
	s.a.WaitPools(1)
	s.a.WaitAttacher(one.Name)
	s.a.WaitAttacher(two.Name)
	s.a.Profile("default_block")
	first, second := s.hostAt("first", "127.0.1.1"), s.hostAt("second", "127.0.1.2")

	v := s.a.Volume(wire.VolumeSpec{Name: "v", Size: 1})
	at := s.a.Attach(v.ID, first.ID)
	if at.Mountpoint == "" || at.ConnectionInfo.Data["devicePath"] != at.Mountpoint {
		t.Fatalf("attached: %+v", at)
	}
	data := random(4 << 20)
	writeDevice(t, at.Mountpoint, data, 0)
	clients := s.watchersOf(v.ID)
	if len(clients) != 1 {
		t.Fatalf("the image's clients are %v", clients)
	}

	one.Kill()
	more := random(1 << 20)
	writeDevice(t, at.Mountpoint, more, 8<<20) // the device outlives the dock
	must(t, s.a.Attachments.Delete(s.a.Ctx(), at.ID, client.Force()))
	s.a.Gone(model.ResAttachment, at.ID)
	out, err := lab.Ceph(t.Context(), "osd", "blocklist", "ls")
	if err != nil || !bytes.Contains(out, []byte(clients[0])) {
		t.Errorf("%s is not on the blocklist: %s, %v", clients[0], out, err)
	}
	if w := s.watchersOf(v.ID); len(w) != 0 {
		t.Errorf("after it was cut off it is still a client: %v", w)
	}

	// The host does not know yet, and overwrites what is there.
	late := exec.Command("dd", "if=/dev/zero", "of="+at.Mountpoint, "bs=1M", "count=16", "conv=fsync,notrunc")
	must(t, late.Start())
	ended := make(chan error, 1)
	go func() { ended <- late.Wait() }()
	t.Cleanup(func() { _ = late.Process.Kill() })

	bt := s.a.Attach(v.ID, second.ID)
	same := func(what string) {
		t.Helper()
		if !bytes.Equal(readDevice(t, bt.Mountpoint, len(data), 0), data) || !bytes.Equal(readDevice(t, bt.Mountpoint, len(more), 8<<20), more) {
			t.Errorf("%s: the volume has not what was written before the cut", what)
		}
	}
	same("at the second host")
	writeDevice(t, bt.Mountpoint, more, 32<<20)
	select {
	case err := <-ended:
		if err == nil {
			t.Error("a write of the host that was cut off was confirmed")
		}
		ended <- err
	default:
	}

	// Its dock comes back, and ends the device: who waits for it is told.
	s.c.Must(one.Start())
	s.a.Quiet(harness.Limit)
	must(t, harness.Poll(harness.Limit, func() error {
		if d, err := s.a.Debts(s.a.Ctx()); err != nil || len(d) > 0 {
			return fmt.Errorf("debts %+v, %v", d, err)
		}
		return nil
	}))
	select {
	case err := <-ended:
		if err == nil {
			t.Error("the write of the host that was cut off was confirmed in the end")
		}
	case <-time.After(harness.Limit):
		t.Error("the write of the host that was cut off does not end")
	}
	if l, _ := filepath.Glob(filepath.Join(one.StateDir, "connector", "*.json")); len(l) > 0 {
		t.Errorf("notes are left: %v", l)
	}
	same("after the first host is clear")
	if w := s.watchersOf(v.ID); len(w) != 1 || w[0] == clients[0] {
		t.Errorf("the image's clients are %v", w)
	}
	s.a.Detach(bt.ID)
	// The first host is welcome again: it is a new client.
	at = s.a.Attach(v.ID, first.ID)
	bt = at
	same("at the first host again")
	s.a.Detach(at.ID)
	s.a.DeleteVolume(v.ID)
	s.empty()
}

// TestConnectorLost: the notes of a host are lost while something is attached. It
// is listed; an attach takes it as it is, a detach ends it.
func TestConnectorLost(t *testing.T) {
	h := newHost(t)
	lose := func() {
		t.Helper()
		must(t, h.c.Close())
		l, err := filepath.Glob(filepath.Join(h.dir, "state", "*.json"))
		if err != nil || len(l) != 1 {
			t.Fatalf("notes %v, %v", l, err)
		}
		must(t, removeAll(l))
		h.open()
	}
	listed := func(id, what string) {
		t.Helper()
		if l := h.list(); len(l) != 1 || l[0].AttachmentID != id || !strings.Contains(l[0].Detail, what) || !strings.Contains(l[0].Detail, "without a note") {
			t.Errorf("listed: %+v, want %s with %q", l, id, what)
		}
	}
	r := h.request("64M")
	d := h.attach(r)
	data := random(1 << 20)
	writeDevice(t, d.Path, data, 0)
	lose()
	listed(r.AttachmentID, "rbd-fuse")
	if again := h.attach(r); again.Path != d.Path {
		t.Errorf("attached anew as %s, was %s", again.Path, d.Path)
	}
	if l := h.list(); len(l) != 1 || strings.Contains(l[0].Detail, "without a note") {
		t.Errorf("attached anew: %+v", l)
	}
	// Who detaches may know no more than the ids.
	lose()
	bare := r
	bare.Connection = model.Connection{}
	must(t, h.c.Detach(h.ctx(), bare))
	h.noneLeft()

	// Nor does it matter that the client has died as well.
	d = h.attach(r)
	if !bytes.Equal(readDevice(t, d.Path, len(data), 0), data) {
		t.Error("what was written is gone")
	}
	for _, pid := range h.clients() {
		kill(t, pid)
	}
	must(t, harness.Poll(harness.Limit, func() error {
		if len(h.clients()) > 0 {
			return errors.New("it lives")
		}
		return nil
	}))
	lose()
	listed(r.AttachmentID, strings.TrimPrefix(d.Path, "/dev/"))
	bare.Force = true
	must(t, h.c.Detach(h.ctx(), bare))
	h.noneLeft()
}

func kill(t testing.TB, pid int) {
	t.Helper()
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
		t.Fatal(err)
	}
}

func removeAll(files []string) error {
	var errs []error
	for _, f := range files {
		errs = append(errs, os.Remove(f))
	}
	return errors.Join(errs...)
}

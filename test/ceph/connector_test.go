//go:build real && linux

package ceph

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/osds-io/osds/pkg/dock/connector"
	"github.com/osds-io/osds/pkg/drivers"
	"github.com/osds-io/osds/pkg/model"
	"github.com/osds-io/osds/test/harness"
)

// host is a connector of a test, and what it attaches.
type host struct {
	*testing.T
	dir string
	c   *connector.Connector
	key string
}

func newHost(t *testing.T) *host {
	t.Helper()
	needFuse(t)
	h := &host{T: t, dir: suite.Dir(t)}
	t.Cleanup(func() { noLoops(t, h.dir); noMounts(t, h.dir) })
	h.open()
	t.Cleanup(func() {
		for _, d := range h.list() {
			if err := h.c.Detach(h.ctx(), connector.Request{AttachmentID: d.AttachmentID, Force: true}); err != nil {
				t.Errorf("at the end: %v", err)
			}
		}
		if err := h.c.Close(); err != nil {
			t.Error(err)
		}
	})
	b, err := lab.Ceph(t.Context(), "auth", "print-key", "client.admin")
	if err != nil {
		t.Fatal(err)
	}
	h.key = string(b)
	return h
}

func (h *host) open() {
	h.Helper()
	c, err := connector.New(h.Context(), connector.Config{StateDir: filepath.Join(h.dir, "state"), RBD: connector.RBDFuse, CephDir: lab.Dir})
	if err != nil {
		h.Fatal(err)
	}
	h.c = c
}

// reopen is a restart of the dock.
func (h *host) reopen() {
	h.Helper()
	if err := h.c.Close(); err != nil {
		h.Fatal(err)
	}
	h.open()
}

func (h *host) ctx() context.Context {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(h.Context()), time.Minute)
	h.Cleanup(cancel)
	return ctx
}

func (h *host) list() []connector.Device {
	h.Helper()
	l, err := h.c.List(h.ctx(), drivers.Page{Limit: 100})
	if err != nil {
		h.Fatal(err)
	}
	return l
}

// request makes an image, and gives what attaches it.
func (h *host) request(size string) connector.Request {
	h.Helper()
	r := connector.Request{AttachmentID: model.NewID(), VolumeID: model.NewID()}
	image := "opensds-" + r.VolumeID
	if _, err := lab.RBD(h.Context(), "create", "rbd/"+image, "--size", size); err != nil {
		h.Fatal(err)
	}
	ip, port, _ := strings.Cut(lab.MonHost(2), ":")
	r.Connection = model.Connection{Type: "rbd", Data: map[string]any{
		"name": "rbd/" + image, "hosts": []string{ip}, "ports": []string{port}, "auth_username": "admin", "keyring": model.Secret(h.key),
	}}
	return r
}

func (h *host) attach(r connector.Request) connector.Device {
	h.Helper()
	d, err := h.c.Attach(h.ctx(), r)
	if err != nil {
		h.Fatalf("attach: %v", err)
	}
	return d
}

func (h *host) want(what string, err error, kind model.Kind) {
	h.Helper()
	if err == nil || model.KindOf(err) != kind {
		h.Errorf("%s: %v (%s), want kind %s", what, err, model.KindOf(err), kind)
	}
}

// clients are the processes that serve images to this test.
func (h *host) clients() []int {
	var out []int
	names, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, n := range names {
		b, _ := os.ReadFile(n)
		if bytes.HasPrefix(b, []byte("rbd-fuse\x00")) || bytes.Contains(b, []byte("/rbd-fuse\x00")) {
			if bytes.Contains(b, []byte(h.dir)) {
				pid, _ := strconv.Atoi(strings.Split(n, "/")[2])
				out = append(out, pid)
			}
		}
	}
	return out
}

func (h *host) noneLeft() {
	h.Helper()
	if p := h.clients(); len(p) > 0 {
		h.Errorf("rbd-fuse processes are left: %v", p)
	}
	noLoops(h.T, h.dir)
	noMounts(h.T, h.dir)
	if l, _ := filepath.Glob(filepath.Join(h.dir, "state", "rbd", "*")); len(l) > 0 {
		h.Errorf("left on disk: %v", l)
	}
	if l := h.list(); len(l) > 0 {
		h.Errorf("still listed: %+v", l)
	}
}

// A device is made of an image, shows what is written to the image, and goes
// again; twice the same call is once, across restarts too.
func TestConnector(t *testing.T) {
	h := newHost(t)
	r := h.request("64M")
	d := h.attach(r)
	if d.Size != 64*model.MiB || d.Identity == "" || d.VolumeID != r.VolumeID {
		t.Fatalf("device: %+v", d)
	}
	if again := h.attach(r); again.Path != d.Path {
		t.Errorf("the same attach again gave %s, not %s", again.Path, d.Path)
	}
	h.reopen()
	if l := h.list(); len(l) != 1 || l[0].Path != d.Path {
		t.Errorf("after a restart there is %+v", l)
	}
	if again := h.attach(r); again.Path != d.Path {
		t.Errorf("attach after a restart gave %s, not %s", again.Path, d.Path)
	}
	if b, err := os.ReadFile(filepath.Join(h.dir, "state", r.AttachmentID+".json")); err != nil || bytes.Contains(b, []byte(h.key)) {
		t.Errorf("the note has the key, or there is none: %v", err)
	}
	if l, _ := filepath.Glob(filepath.Join(h.dir, "state", "rbd", "*", "keyring")); len(l) > 0 {
		t.Errorf("the key is still on disk: %v", l)
	}

	// The same volume once more, or another volume by the same attachment.
	other := r
	other.AttachmentID = model.NewID()
	_, err := h.c.Attach(h.ctx(), other)
	h.want("second attachment of a volume", err, model.KindBusy)
	other = r
	other.VolumeID = model.NewID()
	_, err = h.c.Attach(h.ctx(), other)
	h.want("attachment of another volume", err, model.KindExists)

	data := random(8 << 20)
	writeDevice(t, d.Path, data, 8<<20)
	// Somebody holds it.
	f, err := os.Open(d.Path)
	if err != nil {
		t.Fatal(err)
	}
	other.VolumeID = r.VolumeID
	mnt := filepath.Join(h.dir, "mnt")
	must(t, os.Mkdir(mnt, 0o700))
	harness.Run(t, "mkfs.ext4", "-q", "-E", "nodiscard", d.Path)
	must(t, f.Close())
	harness.Run(t, "mount", d.Path, mnt)
	err = h.c.Detach(h.ctx(), r)
	h.want("detach of a mounted device", err, model.KindBusy)
	if err == nil || !strings.Contains(err.Error(), mnt) {
		t.Errorf("the holder is not named: %v", err)
	}
	must(t, unix.Unmount(mnt, 0))
	writeDevice(t, d.Path, data, 16<<20)
	must(t, h.c.Detach(h.ctx(), r))
	must(t, h.c.Detach(h.ctx(), r))
	h.noneLeft()

	// What was written is in the image, to whoever reads it.
	file := filepath.Join(h.dir, "export")
	if _, err := lab.RBD(t.Context(), "export", r.Connection.Data["name"].(string), file); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(file)
	must(t, err)
	if len(got) != 64<<20 || !bytes.Equal(got[16<<20:24<<20], data) {
		t.Error("the image does not have what was written to the device")
	}
}

// What is wrong with a connection is refused with the reason, and leaves nothing.
func TestConnectorRefusals(t *testing.T) {
	h := newHost(t)
	for _, x := range []struct {
		name, key string
		value     any
		kind      model.Kind
	}{
		{"absent image", "name", "rbd/opensds-absent", model.KindNotFound},
		{"option for the kernel", "name", "rbd/a,name=admin", model.KindInvalid},
		{"option for a command", "name", "rbd/--help", model.KindInvalid},
		{"path", "name", "rbd/../../etc", model.KindInvalid},
		{"no pool", "name", "image", model.KindInvalid},
		{"absent pool", "name", "nopool/image", model.KindNotFound},
		{"user with an option", "auth_username", "admin,secret=x", model.KindInvalid},
		{"key that is none", "keyring", "[client.admin]\nkey = a b", model.KindInvalid},
		{"host by name", "hosts", []string{"localhost"}, model.KindInvalid},
		{"port", "ports", []string{"70000"}, model.KindInvalid},
		{"wrong key", "keyring", "AQBzVm5lAAAAABAAf2xqk0w1c0G0l8zY8Zf3mQ==", model.KindDenied},
	} {
		t.Run(x.name, func(t *testing.T) {
			r := h.request("8M")
			r.Connection.Data[x.key] = x.value
			_, err := h.c.Attach(h.ctx(), r)
			if model.KindOf(err) != x.kind {
				t.Errorf("%v (%s), want %s", err, model.KindOf(err), x.kind)
			}
			if err != nil && strings.Contains(err.Error(), h.key) {
				t.Error("the error has the key")
			}
			must(t, h.c.Detach(h.ctx(), r))
			(&host{T: t, dir: h.dir, c: h.c}).noneLeft()
		})
	}
}

// A device grows while it is in use, and its file system with it.
func TestConnectorGrows(t *testing.T) {
	h := newHost(t)
	r := h.request("400M")
	d := h.attach(r)
	mnt := filepath.Join(h.dir, "mnt")
	must(t, os.Mkdir(mnt, 0o700))
	// ext4 grows online for CAP_SYS_RESOURCE only, which root of a container
	// may not have.
	suite.Need(t, "xfsprogs", "mkfs.xfs", "xfs_growfs")
	harness.Run(t, "mkfs.xfs", "-q", d.Path)
	harness.Run(t, "mount", d.Path, mnt)
	t.Cleanup(func() { _ = unix.Unmount(mnt, unix.MNT_DETACH) })
	data := random(4 << 20)
	must(t, os.WriteFile(filepath.Join(mnt, "f"), data, 0o600))
	before := capacity(t, mnt)
	if _, err := lab.RBD(t.Context(), "resize", r.Connection.Data["name"].(string), "--size", "800M"); err != nil {
		t.Fatal(err)
	}
	grown, err := h.c.Resize(h.ctx(), r.AttachmentID, 800*model.MiB, true)
	must(t, err)
	if grown.Size != 800*model.MiB || grown.Path != d.Path {
		t.Errorf("after growth: %+v", grown)
	}
	if after := capacity(t, mnt); after < before*3/2 {
		t.Errorf("the file system has %d bytes, had %d", after, before)
	}
	got, err := os.ReadFile(filepath.Join(mnt, "f"))
	must(t, err)
	if !bytes.Equal(got, data) {
		t.Error("the file changed")
	}
	must(t, unix.Unmount(mnt, 0))
	must(t, h.c.Detach(h.ctx(), r))
	h.noneLeft()
}

// A client that the cluster has shut out hangs; a forced detach ends it, with
// the file system on it, while somebody waits for a write.
func TestConnectorForce(t *testing.T) {
	h := newHost(t)
	r := h.request("128M")
	d := h.attach(r)
	mnt := filepath.Join(h.dir, "mnt")
	must(t, os.Mkdir(mnt, 0o700))
	harness.Run(t, "mkfs.ext4", "-q", d.Path)
	harness.Run(t, "mount", d.Path, mnt)
	t.Cleanup(func() { _ = unix.Unmount(mnt, unix.MNT_DETACH) })
	image := r.Connection.Data["name"].(string)
	out, err := lab.RBD(t.Context(), "status", image)
	must(t, err)
	_, addr, ok := strings.Cut(string(out), "watcher=")
	if !ok {
		t.Fatalf("nobody watches the image: %s", out)
	}
	addr = strings.Fields(addr)[0]
	if _, err := lab.Ceph(t.Context(), "osd", "blocklist", "add", addr); err != nil {
		t.Fatal(err)
	}
	// A process of its own: it can be waited for, and killed.
	w := exec.Command("dd", "if=/dev/zero", "of="+filepath.Join(mnt, "f"), "bs=1M", "count=16", "conv=fsync")
	must(t, w.Start())
	ended := make(chan error, 1)
	go func() { ended <- w.Wait() }()
	t.Cleanup(func() {
		_ = w.Process.Kill()
		select {
		case <-ended:
		case <-time.After(30 * time.Second):
			t.Error("the writer cannot be ended")
		}
	})
	// It waits when the device has requests that do not end. The file system
	// must not be asked: whoever does waits too.
	must(t, harness.Poll(harness.Limit, func() error {
		b, err := os.ReadFile(filepath.Join("/sys/block", filepath.Base(d.Path), "inflight"))
		if err == nil && strings.Join(strings.Fields(string(b)), " ") == "0 0" {
			err = errors.New("the device is idle")
		}
		return err
	}))
	must(t, h.c.Detach(h.ctx(), connector.Request{AttachmentID: r.AttachmentID, VolumeID: r.VolumeID, Force: true}))
	select {
	case err := <-ended:
		if err == nil {
			t.Error("the write of a client that was shut out succeeded")
		}
		ended <- err
	case <-time.After(harness.Limit):
		t.Error("the writer waits after the device was cut off")
	}
	must(t, harness.Poll(harness.Limit, func() error {
		l, err := harness.Loops(h.dir)
		if err == nil && len(l) > 0 {
			err = errors.New("loop devices are there")
		}
		return err
	}))
	h.noneLeft()
	if _, err := lab.Ceph(t.Context(), "osd", "blocklist", "rm", addr); err != nil {
		t.Error(err)
	}
}

// A client that has died is found, and attached again when nobody holds what is
// left of it.
func TestConnectorClientDies(t *testing.T) {
	h := newHost(t)
	r := h.request("64M")
	d := h.attach(r)
	data := random(1 << 20)
	writeDevice(t, d.Path, data, 0)
	for _, pid := range h.clients() {
		must(t, syscall.Kill(pid, syscall.SIGKILL))
	}
	must(t, harness.Poll(harness.Limit, func() error {
		if len(h.clients()) > 0 {
			return errors.New("it lives")
		}
		return nil
	}))
	if l := h.list(); len(l) != 1 || !strings.Contains(l[0].Detail, "has ended") {
		t.Errorf("the list does not tell of the dead client: %+v", l)
	}
	h.reopen()
	d = h.attach(r)
	if got := readDevice(t, d.Path, len(data), 0); !bytes.Equal(got, data) {
		t.Error("what was synced before the client died is gone")
	}
	must(t, h.c.Detach(h.ctx(), r))
	h.noneLeft()
}

// A read-only attachment cannot be written to.
func TestConnectorReadOnly(t *testing.T) {
	h := newHost(t)
	r := h.request("16M")
	r.ReadOnly = true
	d := h.attach(r)
	f, err := os.OpenFile(d.Path, os.O_WRONLY, 0)
	if err == nil {
		_, err = f.Write(make([]byte, 4096))
		err = errors.Join(err, f.Sync(), f.Close())
	}
	if err == nil {
		t.Error("a read-only device was written to")
	}
	must(t, h.c.Detach(h.ctx(), r))
	h.noneLeft()
}

func random(n int) []byte {
	b := make([]byte, n)
	r := rand.NewChaCha8([32]byte{byte(n)})
	_, _ = r.Read(b)
	return b
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func writeDevice(t testing.TB, path string, data []byte, off int64) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	must(t, err)
	_, err = f.WriteAt(data, off)
	must(t, errors.Join(err, f.Sync(), f.Close()))
}

// readDevice reads past the cache.
func readDevice(t testing.TB, path string, n int, off int64) []byte {
	t.Helper()
	f, err := os.Open(path)
	must(t, err)
	defer f.Close()
	must(t, unix.IoctlSetInt(int(f.Fd()), unix.BLKFLSBUF, 0))
	b := make([]byte, n)
	_, err = f.ReadAt(b, off)
	must(t, err)
	return b
}

// capacity is the size of a mounted file system.
func capacity(t testing.TB, mnt string) int64 {
	t.Helper()
	var s unix.Statfs_t
	must(t, unix.Statfs(mnt, &s))
	return int64(s.Blocks) * s.Bsize
}

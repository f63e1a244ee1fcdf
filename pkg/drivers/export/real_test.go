//go:build real

package export

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/osds-io/osds/internal/run"
	"github.com/osds-io/osds/pkg/model"
)

// These tests need root, a kernel with LIO and nvmet, iscsiadm, nvme and a block
// device that may be overwritten: /dev/vdb, or OSDS_TEST_DEVICE. They are for a
// guest that is thrown away.

const (
	addr1 = "127.0.0.1"
	addr2 = "127.0.0.2"
)

func ctx(t testing.TB) context.Context {
	c, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	return c
}

func command(t testing.TB, argv ...string) (string, error) {
	t.Helper()
	c, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	r, err := run.Exec{}.Run(c, run.Cmd{Name: argv[0], Args: argv[1:]})
	return string(r.Stdout), err
}

func must(t testing.TB, argv ...string) string {
	t.Helper()
	out, err := command(t, argv...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// wait waits until fn is true.
func wait(t testing.TB, what string, fn func() bool) {
	t.Helper()
	end := time.Now().Add(40 * time.Second)
	for !fn() {
		if time.Now().After(end) {
			t.Fatalf("%s: it did not come about", what)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// bench is a device, a state directory and a manager of them.
type bench struct {
	*testing.T
	dir  string
	conf Config
	m    *Manager
	devs map[string]string // by volume id
}

func needKernel(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("root is needed")
	}
	k := &kmods{run: run.Exec{}}
	for _, mods := range [][]string{lioModules, nvmetModules} {
		if err := k.has(context.Background(), mods...); err != nil {
			t.Skip(err)
		}
	}
}

func newBench(t *testing.T, c Config) *bench {
	needKernel(t)
	b := &bench{T: t, dir: t.TempDir(), conf: c, devs: map[string]string{}}
	if b.conf.StateDir == "" {
		b.conf.StateDir = filepath.Join(b.dir, "state")
	}
	if b.conf.Portals == nil {
		b.conf.Portals = []string{addr1}
	}
	b.conf.Log = testLog(t)
	b.open()
	t.Cleanup(b.clear)
	return b
}

func (b *bench) open() {
	b.Helper()
	m, err := Open(ctx(b), b.conf, func(_ context.Context, id string) (string, error) {
		if d, ok := b.devs[id]; ok {
			return d, nil
		}
		return "", model.Errorf(model.KindNotFound, "no volume %s", id)
	})
	if err != nil {
		b.Fatal(err)
	}
	b.m = m
}

func (b *bench) reopen() {
	b.Helper()
	if err := b.m.Close(); err != nil {
		b.Error(err)
	}
	b.open()
}

// clear ends every export, and looks that nothing of them is left.
func (b *bench) clear() {
	for _, n := range b.m.all() {
		if err := b.m.Unexport(ctx(b), n.AttachmentID, true); err != nil {
			b.Error(err)
		}
	}
	if err := b.m.Close(); err != nil {
		b.Error(err)
	}
	if left := kernelHas(b.m.owner); len(left) > 0 {
		b.Errorf("left in the kernel: %q", left)
	}
}

// kernelHas lists what there is of an owner's, and ports and hosts of ours.
func kernelHas(owner string) (left []string) {
	for _, pattern := range []string{"target/core/*/osds." + owner + ".*", "target/loopback/" + iqnPrefix + "*", "nvmet/ports/28*", "target/iscsi/" + iqnPrefix + "*", "nvmet/subsystems/" + nqnPrefix + "*"} {
		got, _ := filepath.Glob(filepath.Join(configfsRoot, pattern))
		left = append(left, got...)
	}
	got, _ := filepath.Glob(filepath.Join(runDir, "made-*"))
	return append(left, got...)
}

func hostOf(names ...string) model.Host {
	h := model.Host{HostName: "consumer"}
	for _, n := range names {
		p := ISCSI
		if strings.HasPrefix(n, "nqn") {
			p = NVMe
		}
		h.Initiators = append(h.Initiators, model.Initiator{PortName: n, Protocol: p})
	}
	return h
}

// request is for this very host.
func (b *bench) request(protocol string) Request {
	b.Helper()
	r := Request{AttachmentID: model.NewID(), VolumeID: model.NewID(), Protocol: protocol, Host: hostOf(myIQN(b), myNQN(b))}
	r.Device = b.loop(64)
	b.devs[r.VolumeID] = r.Device
	return r
}

// loop makes a device of some megabytes.
func (b *bench) loop(mb int) string {
	b.Helper()
	must(b, "modprobe", "loop")
	f := filepath.Join(b.dir, model.NewID()+".img")
	if err := os.WriteFile(f, nil, 0o600); err != nil {
		b.Fatal(err)
	}
	if err := os.Truncate(f, int64(mb)<<20); err != nil {
		b.Fatal(err)
	}
	dev := strings.TrimSpace(must(b, "losetup", "--find", "--show", f))
	b.Cleanup(func() { must(b, "losetup", "--detach", dev) })
	return dev
}

func (b *bench) export(r Request) model.Connection {
	b.Helper()
	c, err := b.m.Export(ctx(b), r)
	if err != nil {
		b.Fatal(err)
	}
	return c
}

func (b *bench) kind(what string, err error, k model.Kind) {
	b.Helper()
	if model.KindOf(err) != k {
		b.Errorf("%s: kind %q, want %q: %v", what, model.KindOf(err), k, err)
	}
}

func myIQN(t testing.TB) string {
	b, err := os.ReadFile("/etc/iscsi/initiatorname.iscsi")
	if err != nil {
		t.Skip(err)
	}
	_, n, _ := strings.Cut(strings.TrimSpace(string(b)), "=")
	return n
}

func myNQN(t testing.TB) string {
	b, err := os.ReadFile("/etc/nvme/hostnqn")
	if err != nil {
		t.Skip(err)
	}
	return strings.TrimSpace(string(b))
}

// initiator logs in over iSCSI.
type initiator struct {
	*testing.T
	iqn, portal string
}

func (b *bench) initiator(c model.Connection, path int) initiator {
	b.Helper()
	if _, err := command(b, "pgrep", "-x", "iscsid"); err != nil {
		must(b, "iscsid")
	}
	i := initiator{T: b.T, iqn: c.Data["targetIQN"].([]any)[path].(string), portal: c.Data["targetPortal"].([]any)[path].(string)}
	i.node("--op", "new")
	b.Cleanup(func() {
		_, _ = command(b, "iscsiadm", "-m", "node", "-T", i.iqn, "-p", i.portal, "--logout")
		_, _ = command(b, "iscsiadm", "-m", "node", "-T", i.iqn, "-p", i.portal, "--op", "delete")
	})
	set := func(k, v string) { i.node("--op", "update", "-n", k, "-v", v) }
	set("node.session.timeo.replacement_timeout", "5")
	set("node.session.initial_login_retry_max", "1")
	set("node.session.scan", "auto")
	if u, ok := c.Data["authUserName"].(string); ok {
		set("node.session.auth.authmethod", "CHAP")
		set("node.session.auth.username", u)
		set("node.session.auth.password", c.Data["authPassword"].(model.Secret).Reveal())
	}
	if u, ok := c.Data["authUserNameIn"].(string); ok {
		set("node.session.auth.username_in", u)
		set("node.session.auth.password_in", c.Data["authPasswordIn"].(model.Secret).Reveal())
	}
	return i
}

func (i initiator) node(args ...string) {
	i.Helper()
	must(i, append([]string{"iscsiadm", "-m", "node", "-T", i.iqn, "-p", i.portal}, args...)...)
}

func (i initiator) set(k, v string) { i.node("--op", "update", "-n", k, "-v", v) }

func (i initiator) login() error {
	_, err := command(i, "iscsiadm", "-m", "node", "-T", i.iqn, "-p", i.portal, "--login")
	return err
}

// loginAs logs in from an interface that has another name, with the same
// secrets.
func (i initiator) loginAs(iface string) error {
	i.Helper()
	out := must(i, "iscsiadm", "-m", "node", "-T", i.iqn, "-p", i.portal, "--op", "show", "-S")
	node := []string{"iscsiadm", "-m", "node", "-T", i.iqn, "-p", i.portal, "-I", iface}
	must(i, append(node, "--op", "new")...)
	for _, line := range strings.Split(out, "\n") {
		if k, v, ok := strings.Cut(line, " = "); ok && strings.HasPrefix(k, "node.session.auth.") && v != "<empty>" && !strings.Contains(k, "chap_algs") {
			must(i, append(node, "--op", "update", "-n", k, "-v", v)...)
		}
	}
	must(i, append(node, "--op", "update", "-n", "node.session.initial_login_retry_max", "-v", "1")...)
	_, err := command(i, append(node, "--login")...)
	must(i, append(node, "--op", "delete")...)
	return err
}

func (i initiator) logout() {
	i.Helper()
	i.node("--logout")
}

// scsiDisk waits for a disk of an identity, and gives its path.
func scsiDisk(t testing.TB, identity string) string {
	t.Helper()
	dev := ""
	wait(t, "a disk naa."+identity, func() bool {
		all, _ := filepath.Glob("/sys/block/sd*/device/wwid")
		for _, w := range all {
			if attr(w) == "naa."+identity {
				dev = "/dev/" + strings.Split(w, "/")[3]
				return exists(dev)
			}
		}
		return false
	})
	return dev
}

func nvmeDisk(t testing.TB, identity string) string {
	t.Helper()
	dev := ""
	wait(t, "a namespace "+identity, func() bool {
		all, _ := filepath.Glob("/sys/block/nvme*n*/nguid")
		for _, w := range all {
			name := strings.Split(w, "/")[3]
			if strings.ReplaceAll(attr(w), "-", "") == identity && !strings.Contains(name, "c") {
				dev = "/dev/" + name
				return exists(dev)
			}
		}
		return false
	})
	return dev
}

func connectNVMe(t testing.TB, c model.Connection, path int, host string) error {
	t.Helper()
	p := c.Data["targetPortals"].([]any)[path].(string)
	i := strings.LastIndexByte(p, ':')
	_, err := command(t, "nvme", "connect", "-t", "tcp", "-a", p[:i], "-s", p[i+1:], "-n", c.Data["targetNQN"].(string), "--hostnqn="+host,
		"--ctrl-loss-tmo=5", "--reconnect-delay=1")
	return err
}

func disconnectNVMe(t testing.TB, c model.Connection) {
	_, _ = command(t, "nvme", "disconnect", "-n", c.Data["targetNQN"].(string))
}

// writeBlock and readBlock go past the cache.
func writeBlock(dev string, seed byte) error {
	f, err := os.OpenFile(dev, os.O_RDWR|unix.O_DIRECT|unix.O_SYNC, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	b := aligned()
	for i := range b {
		b[i] = seed
	}
	_, err = f.WriteAt(b, 1<<20)
	return err
}

func readBlock(dev string) (byte, error) {
	f, err := os.OpenFile(dev, os.O_RDONLY|unix.O_DIRECT, 0)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	b := aligned()
	if _, err = f.ReadAt(b, 1<<20); err != nil {
		return 0, err
	}
	if !bytes.Equal(b, bytes.Repeat(b[:1], len(b))) {
		return 0, fmt.Errorf("a torn block")
	}
	return b[0], nil
}

// aligned gives a page for direct I/O.
func aligned() []byte {
	b, err := unix.Mmap(-1, 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		panic(err)
	}
	return b
}

func (b *bench) sameData(host, target string, seed byte) {
	b.Helper()
	if err := writeBlock(host, seed); err != nil {
		b.Fatal(err)
	}
	for _, d := range []string{host, target} {
		if got, err := readBlock(d); err != nil || got != seed {
			b.Errorf("%s: got %d, %v, want %d", d, got, err, seed)
		}
	}
}

// deviceSize gives a block device's or file's length.
func deviceSize(path string) (int64, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	return f.Seek(0, 2)
}

//go:build real

package connector

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/osds-io/osds/pkg/drivers"
	"github.com/osds-io/osds/pkg/model"
)

// TestHolders has a device held in every way there is, one after the other.
func TestHolders(t *testing.T) {
	l := newLab(t)
	id, dev := l.volume(100)
	x := l.iscsiTarget(id, dev, portal1, portal2)
	x.admit(l.iqn)
	id, dev = l.volume(100)
	y := l.nvmeTarget(id, dev, l.nqn, nport1)
	for _, r := range []Request{x.request(), y.request()} {
		t.Run(r.Connection.Type, func(t *testing.T) { holders(newLab(t), r) })
	}
}

func holders(l *lab, r Request) {
	c := l.connector(Config{})
	d := l.attach(c, r)
	busy := func(words ...string) {
		l.Helper()
		l.kind(c.Detach(l.context(time.Minute), r), model.KindBusy, words...)
	}

	only := "devices { filter=[\"a|^" + d.Path + "$|\",\"a|^/dev/dm-|\",\"r|.*|\"] use_devicesfile=0 }"
	l.sh("vgcreate", "-y", "--config", only, "vgx", d.Path)
	l.sh("lvcreate", "-y", "-Wn", "-l", "5", "-n", "up", "--config", only, "vgx")
	busy("used by vgx-up")
	l.sh("vgremove", "-ffy", "--config", only, "vgx")
	l.sh("pvremove", "-ffy", "--config", only, d.Path)

	l.sh("mkswap", d.Path)
	l.sh("swapon", d.Path)
	busy("swap")
	l.sh("swapoff", d.Path)

	l.sh("sgdisk", "-Z", d.Path)
	l.sh("sgdisk", "-n", "1:2048:100000", d.Path)
	l.until("there is a partition", func() bool {
		_ = l.try("partprobe", d.Path)
		return part(c, r) != ""
	})
	dir := l.TempDir()
	l.sh("mkfs.ext4", "-q", part(c, r))
	l.sh("mount", part(c, r), dir)
	busy("mounted on " + dir)
	l.sh("umount", dir)

	// A container's mount is seen by the claim alone; then it is looked for.
	cmd := exec.Command("unshare", "-m", "--propagation", "private", "sh", "-c", `mount "$0" "$1" && echo ready && exec sleep 1000`, part(c, r), dir)
	out, err := cmd.StdoutPipe()
	if err != nil {
		l.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		l.Fatal(err)
	}
	b := make([]byte, 6)
	if _, err := out.Read(b); err != nil {
		l.Fatal(err)
	}
	busy("mount namespace of sleep")
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	var last error
	defer func() { l.Log("at last:", last) }()
	l.until("it can be detached", func() bool {
		last = c.Detach(l.context(time.Minute), r)
		return last == nil
	})
	l.clean(c)
}

// part is the device of the first partition of an attached device.
func part(c *Connector, r Request) string {
	n, _ := c.notes.get(r.AttachmentID)
	d, _, err := c.proto[n.Target.Type].find(&n)
	if err != nil {
		return ""
	}
	for _, x := range c.h.stackOf(d).devs {
		name := c.h.value("sys/class/block", x.name, "dm/name")
		switch {
		case name != "" && (strings.HasSuffix(name, "-part1") || strings.HasSuffix(name, "p1")):
			return "/dev/mapper/" + name
		case !d.isMap() && c.h.exists("sys/class/block", x.name, "partition"):
			return "/dev/" + x.name
		}
	}
	return ""
}

func TestReadOnly(t *testing.T) {
	l := newLab(t)
	id, dev := l.volume(32)
	x := l.iscsiTarget(id, dev, portal1, portal2)
	x.admit(l.iqn)
	l.write(x.tpg+"/acls/"+l.iqn+"/lun_1/write_protect", "1")
	y := l.nvmeTarget(id, dev, l.nqn, nport1)
	for _, r := range []Request{x.request(), y.request()} {
		r.ReadOnly = true
		c := l.connector(Config{})
		d := l.attach(c, r)
		if f, err := os.OpenFile(d.Path, os.O_RDWR, 0); err == nil {
			_, err = f.Write([]byte("x"))
			err = errors.Join(err, f.Sync())
			f.Close()
			if err == nil {
				t.Errorf("%s can be written", d.Path)
			}
		}
		l.detach(c, r)
		l.clean(c)
	}
}

// TestReplacedTarget moves a volume to another target while it is attached: the
// device is known by its identity, and not given out as the old one.
func TestReplacedTarget(t *testing.T) {
	l := newLab(t)
	id, dev := l.volume(32)
	x := l.nvmeTarget(id, dev, l.nqn, nport1)
	c := l.connector(Config{})
	r := x.request()
	r.Connection.Data["identity"] = strings.ReplaceAll(model.NewID(), "-", "")
	_, err := c.Attach(l.context(time.Minute), r)
	l.kind(err, model.KindConflict, "another volume")
	l.clean(c)
}

// TestSharedTarget has two volumes behind one target, as arrays do: to detach one
// leaves the other alone.
func TestSharedTarget(t *testing.T) {
	l := newLab(t)
	id1, dev1 := l.volume(32)
	id2, dev2 := l.volume(32)
	x := l.iscsiTarget(id1, dev1, portal1, portal2)
	x.admit(l.iqn)
	y := l.iscsiTarget(id2, dev2, portal1)
	// The second volume as a further unit of the first's target.
	l.mkdir(x.tpg + "/lun/lun_2")
	l.link(y.store, x.tpg+"/lun/lun_2/store")
	l.mkdir(x.tpg + "/acls/" + l.iqn + "/lun_2")
	l.link(x.tpg+"/lun/lun_2", x.tpg+"/acls/"+l.iqn+"/lun_2/lun")
	defer x.remove()
	one, two := x.request(), x.request()
	two.AttachmentID, two.VolumeID = model.NewID(), id2
	two.Connection.Data["targetLun"] = 2
	two.Connection.Data["identity"] = y.identity
	c := l.connector(Config{})
	for _, first := range []Request{one, two} {
		d1, d2 := l.attach(c, one), l.attach(c, two)
		if d1.Path == d2.Path || d1.Identity == d2.Identity {
			t.Fatal(d1, d2)
		}
		last, path := two, d2.Path
		if first.AttachmentID == two.AttachmentID {
			last, path = one, d1.Path
		}
		l.detach(c, first)
		if b, err := os.ReadFile(path); err != nil || len(b) != 32<<20 {
			t.Errorf("the other volume: %d bytes, %v", len(b), err)
		}
		// And back, on the session that is there.
		l.attach(c, first)
		l.detach(c, first)
		l.detach(c, last)
		l.clean(c)
	}
}

func TestSinglePolicy(t *testing.T) {
	l := newLab(t)
	id, dev := l.volume(32)
	x := l.iscsiTarget(id, dev, portal1, portal2)
	x.admit(l.iqn)
	y := l.nvmeTarget(id, dev, l.nqn, nport1, nport2)
	for _, r := range []Request{x.request(), y.request()} {
		c := l.connector(Config{Multipath: MultipathSingle})
		d := l.attach(c, r)
		if !strings.Contains(d.Detail, "one of 2 portals") || strings.Contains(d.Path, "mapper") {
			t.Errorf("%+v", d)
		}
		if n := len(c.h.sessions()) + len(c.h.controllers()); n != 1 {
			t.Errorf("%d paths", n)
		}
		l.detach(c, r)
		l.clean(c)
	}
}

func TestAlwaysPolicy(t *testing.T) {
	l := newLab(t)
	id, dev := l.volume(32)
	x := l.iscsiTarget(id, dev, portal1)
	x.admit(l.iqn)
	c := l.connector(Config{Multipath: MultipathAlways})
	r := x.request()
	// As of a foreign array: it says nothing of the identity.
	delete(r.Connection.Data, "identity")
	d := l.attach(c, r)
	if !strings.HasPrefix(d.Path, "/dev/mapper/3") || d.Identity != x.identity {
		t.Errorf("%+v", d)
	}
	l.detach(c, r)
	l.clean(c)
}

// TestLost has the notes lost, or the session ended by somebody else.
func TestLost(t *testing.T) {
	l := newLab(t)
	id, dev := l.volume(64)
	x := l.iscsiTarget(id, dev, portal1)
	x.admit(l.iqn)
	y := l.nvmeTarget(id, dev, l.nqn, nport1)
	for _, r := range []Request{x.request(), y.request()} {
		l.attach(l.connector(Config{}), r)
		c := l.connector(Config{})
		list, err := c.List(l.context(time.Minute), drivers.Page{})
		if err != nil || len(list) != 1 || list[0].AttachmentID != r.AttachmentID || !strings.Contains(list[0].Detail, "without a note") {
			t.Errorf("%+v, %v", list, err)
		}
		l.detach(c, Request{AttachmentID: r.AttachmentID, VolumeID: r.VolumeID})
		l.clean(c)
	}

	r := x.request()
	c := l.connector(Config{})
	d := l.attach(c, r)
	l.sh("mkfs.ext4", "-q", d.Path)
	dir := l.TempDir()
	l.sh("mount", d.Path, dir)
	l.sh("iscsiadm", "-m", "node", "-T", x.name, "--logout")
	l.kind(c.Detach(l.context(time.Minute), r), model.KindBusy, "mounted on "+dir)
	r.Force = true
	l.detach(c, r)
	if b := l.read("/proc/self/mountinfo"); strings.Contains(b, dir) {
		t.Error("still mounted")
	}
	l.clean(c)
}

// TestUnreachable has no portal that answers, and one that answers nothing.
func TestUnreachable(t *testing.T) {
	l := newLab(t)
	id, dev := l.volume(32)
	x := l.iscsiTarget(id, dev, portal1)
	x.admit(l.iqn)
	y := l.nvmeTarget(id, dev, l.nqn, nport1)
	for _, r := range []Request{x.request(), y.request()} {
		c := l.connector(Config{})
		addr := portal1
		if r.Connection.Type == typeNVMe {
			addr = nport1
		}
		l.drop(addr, true)
		_, err := c.Attach(l.context(time.Minute), r)
		l.kind(err, model.KindUnavailable)
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		_, err = c.Attach(ctx, r)
		cancel()
		l.kind(err, model.KindUnknownOutcome)
		l.drop(addr, false)
		// What that has begun may come now; a detach ends it whatever it became.
		l.until("it is detached", func() bool { return c.Detach(l.context(30*time.Second), r) == nil })
		l.attach(c, r)
		l.detach(c, r)
		l.clean(c)
	}
}

// TestDaemons has multipathd and iscsid missing.
func TestDaemons(t *testing.T) {
	l := newLab(t)
	id, dev := l.volume(32)
	x := l.iscsiTarget(id, dev, portal1, portal2)
	x.admit(l.iqn)
	c := l.connector(Config{})
	stop := func(file, socket string) {
		pid := 0
		for _, f := range strings.Fields(l.read(file)) {
			for _, b := range f {
				pid = pid*10 + int(b-'0')
			}
		}
		if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		l.until(socket+" is closed", func() bool { return !c.h.listens(socket) })
	}
	names := func(protocol string) (n int) {
		for _, i := range c.Initiators() {
			if i.Protocol == protocol {
				n++
			}
		}
		return n
	}
	if names(typeISCSI) != 1 || names(typeNVMe) != 1 || len(c.Unusable()) != 0 {
		t.Error(c.Initiators(), c.Unusable())
	}
	stop("/run/multipathd.pid", multipathdSocket)
	_, err := c.Attach(l.context(time.Minute), x.request())
	l.kind(err, model.KindUnsupported, "multipath-tools", "single")
	l.sh("multipathd")
	l.until("multipathd listens", func() bool { return c.h.listens(multipathdSocket) })

	stop("/run/iscsid.pid", iscsidSocket)
	_, err = c.Attach(l.context(time.Minute), x.request())
	l.kind(err, model.KindUnsupported, "iscsid.socket")
	if names(typeISCSI) != 0 || names(typeNVMe) != 1 || c.Unusable()[typeISCSI] == "" {
		t.Error(c.Initiators(), c.Unusable())
	}
	l.sh("iscsid")
	l.until("iscsid listens", func() bool { return c.h.listens(iscsidSocket) })
	l.clean(c)
	l.attach(c, x.request())
	if f, err := c.proto[typeISCSI].(*iscsi).recordFile(portal{Name: x.name, Addr: mustAddr(t, portal1)}); err != nil || f == "" {
		t.Error(f, err)
	} else if st, err := os.Stat(f); err != nil || st.Mode().Perm() != 0o600 {
		t.Error(st.Mode(), err)
	}
	l.detach(c, x.request())
	l.clean(c)
}

// TestStuckFlush detaches, without force, a device whose paths are all down and
// that is idle; and one with a holder that only the kernel knows.
func TestNoPath(t *testing.T) {
	l := newLab(t)
	id, dev := l.volume(32)
	x := l.iscsiTarget(id, dev, portal1, portal2)
	x.admit(l.iqn)
	y := l.nvmeTarget(id, dev, l.nqn, nport1, nport2)
	for _, r := range []Request{x.request(), y.request()} {
		c := l.connector(Config{})
		l.attach(c, r)
		if r.Connection.Type == typeISCSI {
			x.remove()
			l.until("no session is up", func() bool {
				for _, s := range c.h.sessions() {
					if s.state == "LOGGED_IN" {
						return false
					}
				}
				return true
			})
		} else {
			y.remove()
			l.until("no controller is live", func() bool {
				for _, s := range c.h.controllers() {
					if s.state == "live" {
						return false
					}
				}
				return true
			})
		}
		l.detach(c, r)
		l.clean(c)
	}
}

//go:build real

package connector

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/osds-io/osds/pkg/drivers"
	"github.com/osds-io/osds/pkg/model"
)

const (
	portal1 = "127.0.0.1:3260"
	portal2 = "127.0.0.2:3260"
	nport1  = "127.0.0.1:4420"
	nport2  = "127.0.0.2:4420"
)

// life is what every attachment goes through, whatever the protocol.
func life(l *lab, c *Connector, r Request, grow func(mb int), fs string) {
	l.Helper()
	r.Size = 300 * model.MiB
	d := l.attach(c, r)
	l.Logf("%+v", d)
	if d.Size != 300*model.MiB || d.AttachmentID != r.AttachmentID || d.VolumeID != r.VolumeID || d.Identity == "" {
		l.Errorf("%+v", d)
	}
	if again := l.attach(c, r); again.Path != d.Path {
		l.Errorf("attached again: %+v", again)
	}
	other := r
	other.AttachmentID = model.NewID()
	_, err := c.Attach(l.context(time.Minute), other)
	l.kind(err, model.KindBusy, r.AttachmentID)
	if list, err := c.List(l.context(time.Minute), drivers.Page{}); err != nil || len(list) != 1 || list[0].Path != d.Path || !strings.Contains(list[0].Detail, stageAttached) {
		l.Errorf("%+v, %v", list, err)
	}

	l.sh("mkfs."+fs, "-q", d.Path)
	dir := l.TempDir()
	l.sh("mount", d.Path, dir)
	mounted := true
	defer func() {
		if mounted {
			_ = syscall.Unmount(dir, syscall.MNT_DETACH)
		}
	}()
	text := bytes.Repeat([]byte("The quick brown fox. "), 1<<16)
	if err := os.WriteFile(dir+"/f", text, 0o600); err != nil {
		l.Fatal(err)
	}
	l.kind(c.Detach(l.context(time.Minute), r), model.KindBusy, "mounted on "+dir)

	before := space(l, dir)
	grow(400)
	g, err := c.Resize(l.context(time.Minute), r.AttachmentID, 400*model.MiB, true)
	if err != nil {
		l.Fatal(err)
	}
	if g.Size != 400*model.MiB || g.Path != d.Path {
		l.Errorf("grown: %+v", g)
	}
	if after := space(l, dir); after < before+80<<20 {
		l.Errorf("the file system has grown from %d to %d", before, after)
	}
	l.sh("umount", dir)
	mounted = false

	cmd := exec.Command("sleep", "1000")
	f, err := os.Open(d.Path)
	if err != nil {
		l.Fatal(err)
	}
	cmd.Stdin = f
	if err := cmd.Start(); err != nil {
		l.Fatal(err)
	}
	f.Close()
	err = c.Detach(l.context(time.Minute), r)
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	l.kind(err, model.KindBusy, "open in sleep")

	l.detach(c, r)
	l.clean(c)
	l.detach(c, r)

	// What was written is there the next time.
	d = l.attach(c, r)
	l.sh("mount", d.Path, dir)
	got, err := os.ReadFile(dir + "/f")
	l.sh("umount", dir)
	if err != nil || sha256.Sum256(got) != sha256.Sum256(text) {
		l.Errorf("other data after attaching again: %v", err)
	}
	l.detach(c, r)
	l.clean(c)
}

func space(l *lab, dir string) int64 {
	var st syscall.Statfs_t
	if err := syscall.Statfs(dir, &st); err != nil {
		l.Fatal(err)
	}
	return int64(st.Blocks) * st.Bsize
}

func TestISCSI(t *testing.T) {
	l := newLab(t)
	for _, n := range []int{1, 2} {
		t.Run(fmt.Sprint(n, " portals"), func(t *testing.T) {
			l := newLab(t)
			id, dev := l.volume(300)
			x := l.iscsiTarget(id, dev, []string{portal1, portal2}[:n]...)
			x.admit(l.iqn)
			x.chap(n == 2)
			life(l, l.connector(Config{}), x.request(), func(mb int) {
				l.sh("lvextend", "-y", "-L", fmt.Sprint(mb, "M"), "vgt/"+id)
			}, []string{"ext4", "xfs"}[n-1])
		})
	}
	_ = l
}

func TestISCSIRefused(t *testing.T) {
	l := newLab(t)
	id, dev := l.volume(100)
	x := l.iscsiTarget(id, dev, portal1)
	x.admit(l.iqn)
	x.chap(true)
	c := l.connector(Config{})
	for what, change := range map[string]func(){
		"a wrong secret":        func() { x.pw = "wrongwrong123" },
		"a wrong target secret": func() { x.pin = "wrongwrong123" },
		"no secret":             func() { x.user, x.in = "", "" },
	} {
		t.Run(what, func(t *testing.T) {
			l := newLab(t)
			save := *x
			defer func() { *x = save }()
			change()
			_, err := c.Attach(l.context(time.Minute), x.request())
			l.kind(err, model.KindDenied)
			if strings.Contains(err.Error(), "wrongwrong") {
				t.Error("the error shows a secret")
			}
			l.clean(c)
		})
	}
	t.Run("another initiator", func(t *testing.T) {
		l := newLab(t)
		y := l.iscsiTarget(model.NewID(), dev, portal1)
		defer y.remove()
		y.admit("iqn.2000-01.lab.vm:somebody")
		_, err := c.Attach(l.context(time.Minute), y.request())
		l.kind(err, model.KindDenied)
		l.clean(c)
	})
	t.Run("another volume", func(t *testing.T) {
		l := newLab(t)
		r := x.request()
		r.Connection.Data["identity"] = "6001405" + strings.Repeat("0", 25)
		_, err := c.Attach(l.context(time.Minute), r)
		l.kind(err, model.KindConflict, "another volume")
		l.clean(c)
	})
	// After all that, the right one.
	l.attach(c, x.request())
	l.detach(c, x.request())
	l.clean(c)
}

func TestNVMe(t *testing.T) {
	newLab(t)
	for _, n := range []int{1, 2} {
		t.Run(fmt.Sprint(n, " portals"), func(t *testing.T) {
			l := newLab(t)
			id, dev := l.volume(300)
			x := l.nvmeTarget(id, dev, l.nqn, []string{nport1, nport2}[:n]...)
			life(l, l.connector(Config{}), x.request(), func(mb int) {
				l.sh("lvextend", "-y", "-L", fmt.Sprint(mb, "M"), "vgt/"+id)
				l.write(x.sub+"/namespaces/1/revalidate_size", "1")
			}, []string{"xfs", "ext4"}[n-1])
		})
	}
}

func TestNVMeRefused(t *testing.T) {
	l := newLab(t)
	id, dev := l.volume(100)
	x := l.nvmeTarget(id, dev, "nqn.2014-08.org.nvmexpress:uuid:99999999-0000-4000-8000-000000000009", nport1)
	c := l.connector(Config{})
	_, err := c.Attach(l.context(time.Minute), x.request())
	l.kind(err, model.KindDenied)
	l.clean(c)
	r := x.request()
	r.Connection.Data["hostNqn"] = "nqn.2014-08.org.nvmexpress:uuid:99999999-0000-4000-8000-000000000009"
	_, err = c.Attach(l.context(time.Minute), r)
	l.kind(err, model.KindDenied, l.nqn)
	l.clean(c)
}

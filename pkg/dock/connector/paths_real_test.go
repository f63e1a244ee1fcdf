//go:build real

package connector

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/osds-io/osds/internal/faults"
	"github.com/osds-io/osds/pkg/model"
)

// drop cuts one portal off, or lets it back.
func (l *lab) drop(addr string, on bool) {
	l.Helper()
	op := "-D"
	if on {
		op = "-I"
	}
	ip, port, _ := strings.Cut(addr, ":")
	l.sh("iptables", op, "INPUT", "-d", ip, "-p", "tcp", "--dport", port, "-j", "DROP")
}

// writer writes blocks that are known again, each made durable, until told to
// stop.
type writer struct {
	f    *os.File
	stop chan struct{}
	done chan struct{}
	mu   sync.Mutex
	n    int
	err  error
}

const blockSize = 64 << 10

func pattern(i int) []byte {
	return bytes.Repeat([]byte(fmt.Sprintf("block %09d ", i)), blockSize/16)
}

func startWriter(l *lab, file string) *writer {
	l.Helper()
	f, err := os.OpenFile(file, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		l.Fatal(err)
	}
	w := &writer{f: f, stop: make(chan struct{}), done: make(chan struct{})}
	go func() {
		defer close(w.done)
		for i := 0; ; i++ {
			select {
			case <-w.stop:
				return
			default:
			}
			_, err := f.WriteAt(pattern(i), int64(i%1000)*blockSize)
			if err == nil {
				err = f.Sync()
			}
			w.mu.Lock()
			if err != nil {
				w.err = err
				w.mu.Unlock()
				return
			}
			w.n = i + 1
			w.mu.Unlock()
		}
	}()
	return w
}

func (w *writer) state() (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.n, w.err
}

// end stops the writer, and checks what it wrote.
func (w *writer) end(l *lab) {
	l.Helper()
	close(w.stop)
	<-w.done
	n, err := w.state()
	if err != nil {
		l.Fatalf("the writer failed after %d blocks: %v", n, err)
	}
	// Not from memory.
	if err := unix.Fadvise(int(w.f.Fd()), 0, 0, unix.FADV_DONTNEED); err != nil {
		l.Error(err)
	}
	b := make([]byte, blockSize)
	for i := max(0, n-1000); i < n; i++ {
		if _, err := w.f.ReadAt(b, int64(i%1000)*blockSize); err != nil && !errors.Is(err, io.EOF) {
			l.Fatal(err)
		}
		if !bytes.Equal(b, pattern(i)) {
			l.Fatalf("block %d is not what was written", i)
		}
	}
	l.Logf("%d blocks written", n)
	w.f.Close()
}

// onePathCut cuts each of two paths in turn while a file system is written to.
func onePathCut(l *lab, r Request, ps []string, up func(*Connector) int) {
	l.Helper()
	c := l.connector(Config{})
	d := l.attach(c, r)
	l.Log(d.Detail)
	l.sh("mkfs.ext4", "-q", d.Path)
	dir := l.TempDir()
	l.sh("mount", d.Path, dir)
	defer func() { _ = syscall.Unmount(dir, syscall.MNT_DETACH) }()
	w := startWriter(l, dir+"/f")
	more := func(what string) {
		l.Helper()
		was, _ := w.state()
		l.until("writes go on "+what, func() bool {
			n, err := w.state()
			if err != nil {
				l.Fatalf("%s: %v", what, err)
			}
			return n > was+5
		})
	}
	more("with two paths")
	for _, p := range ps {
		l.drop(p, true)
		l.until(p+" is seen to be lost", func() bool { return up(c) == 1 })
		more("without " + p)
		l.drop(p, false)
		l.until(p+" is back", func() bool { return up(c) == 2 })
		more("with " + p + " again")
		// The kernel's path is up; dm-multipath's own check comes a little later.
		l.until("no path is failed", func() bool {
			out, _ := exec.Command("dmsetup", "status", "--target", "multipath").Output()
			return !strings.Contains(string(out), " F ")
		})
	}
	w.end(l)
	l.sh("umount", dir)
	l.detach(c, r)
	l.clean(c)
}

func TestISCSIPathCut(t *testing.T) {
	l := newLab(t)
	id, dev := l.volume(200)
	x := l.iscsiTarget(id, dev, portal1, portal2)
	x.admit(l.iqn)
	onePathCut(l, x.request(), x.portals, func(c *Connector) (n int) {
		for _, s := range c.h.sessions() {
			if s.state == "LOGGED_IN" {
				n++
			}
		}
		return n
	})
}

func TestNVMePathCut(t *testing.T) {
	l := newLab(t)
	id, dev := l.volume(200)
	x := l.nvmeTarget(id, dev, l.nqn, nport1, nport2)
	onePathCut(l, x.request(), x.portals, func(c *Connector) (n int) {
		for _, s := range c.h.controllers() {
			if s.state == "live" {
				n++
			}
		}
		return n
	})
}

// TestRepair attaches while one portal is down; the path comes when it is up.
func TestRepair(t *testing.T) {
	l := newLab(t)
	try := func(r Request, down string, paths func(*Connector) int) {
		t.Helper()
		c := l.connector(Config{RepairInterval: time.Second})
		l.drop(down, true)
		d, err := c.Attach(l.context(time.Minute), r)
		l.drop(down, false)
		if err != nil {
			t.Fatal(err)
		}
		t.Log(d.Detail)
		if !strings.Contains(d.Detail, "1 of 2") {
			t.Errorf("%q", d.Detail)
		}
		l.until("the second path", func() bool { return paths(c) == 2 })
		l.detach(c, r)
		l.clean(c)
	}
	id, dev := l.volume(100)
	x := l.iscsiTarget(id, dev, portal1, portal2)
	x.admit(l.iqn)
	x.chap(true)
	try(x.request(), portal2, func(c *Connector) int { return len(c.h.sessions()) })
	y := l.nvmeTarget(id, dev, l.nqn, nport1, nport2)
	try(y.request(), nport2, func(c *Connector) int { return len(c.h.controllers()) })
}

// forced ends an attachment whose target has gone while somebody writes.
func forced(l *lab, r Request, remove func()) {
	l.Helper()
	c := l.connector(Config{})
	d := l.attach(c, r)
	l.sh("mkfs.ext4", "-q", d.Path)
	dir := l.TempDir()
	l.sh("mount", d.Path, dir)
	defer func() { _ = syscall.Unmount(dir, syscall.MNT_DETACH) }()
	w := startWriter(l, dir+"/f")
	l.until("something is written", func() bool { n, _ := w.state(); return n > 3 })
	remove()
	// Stuck: nothing more is written, and nobody is told.
	was := -1
	l.until("the writer is stuck", func() bool {
		time.Sleep(time.Second)
		n, err := w.state()
		if err != nil {
			l.Fatalf("the writer failed before the detach: %v", err)
		}
		same := n == was
		was = n
		return same
	})
	l.kind(c.Detach(l.context(20*time.Second), r), model.KindBusy, "mounted")
	f := r
	f.Force = true
	err := c.Detach(l.context(time.Minute), f)
	if err != nil {
		// The writer still had its file open; it is told now.
		l.kind(err, model.KindBusy)
	}
	l.until("the writer is told", func() bool { _, err := w.state(); return err != nil })
	if b, _ := os.ReadFile("/proc/self/mountinfo"); bytes.Contains(b, []byte(dir)) {
		l.Error("still mounted")
	}
	<-w.done
	w.f.Close()
	l.until("the rest can be detached", func() bool { err = c.Detach(l.context(20*time.Second), f); return err == nil })
	l.clean(c)
}

func TestForce(t *testing.T) {
	newLab(t)
	for _, n := range []int{1, 2} {
		t.Run(fmt.Sprint("iscsi, ", n), func(t *testing.T) {
			l := newLab(t)
			id, dev := l.volume(200)
			x := l.iscsiTarget(id, dev, []string{portal1, portal2}[:n]...)
			x.admit(l.iqn)
			forced(l, x.request(), x.remove)
		})
		t.Run(fmt.Sprint("nvmeof, ", n), func(t *testing.T) {
			l := newLab(t)
			id, dev := l.volume(200)
			x := l.nvmeTarget(id, dev, l.nqn, []string{nport1, nport2}[:n]...)
			forced(l, x.request(), x.remove)
		})
	}
}

// TestMany attaches several volumes at once, by both protocols.
func TestMany(t *testing.T) {
	l := newLab(t)
	c := l.connector(Config{})
	var rs []Request
	for i := range 6 {
		id, dev := l.volume(32)
		if i%2 == 0 {
			x := l.iscsiTarget(id, dev, []string{portal1, portal2}[:1+i/2%2]...)
			x.admit(l.iqn)
			x.chap(true)
			rs = append(rs, x.request())
		} else {
			rs = append(rs, l.nvmeTarget(id, dev, l.nqn, nport1, nport2).request())
		}
	}
	for range 2 {
		var wg sync.WaitGroup
		paths := make([]string, len(rs))
		for i, r := range rs {
			wg.Add(1)
			go func() {
				defer wg.Done()
				d, err := c.Attach(l.context(2*time.Minute), r)
				if err != nil {
					t.Error(err)
				}
				paths[i] = d.Path
				// Its own volume, and no other's. Somebody else may have the
				// device open: closing it writes nothing then.
				f, err := os.OpenFile(d.Path, os.O_WRONLY, 0)
				if err != nil {
					t.Error(err)
					return
				}
				_, err = f.WriteString(r.VolumeID)
				if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
					t.Error(err)
				}
			}()
		}
		wg.Wait()
		for i, r := range rs {
			// The target writes past the cache of the volume's own device.
			out, err := exec.Command("dd", "if=/dev/vgt/"+r.VolumeID, "bs=4096", "count=1", "iflag=direct", "status=none").Output()
			b := out[:min(len(out), len(r.VolumeID))]
			if err != nil || string(b) != r.VolumeID {
				t.Errorf("%s is not %s: %q, %v", paths[i], r.VolumeID, b, err)
			}
		}
		for i, r := range rs {
			wg.Add(1)
			go func() {
				defer wg.Done()
				if err := c.Detach(l.context(2*time.Minute), r); err != nil {
					t.Errorf("%s: %v", paths[i], err)
				}
			}()
		}
		wg.Wait()
		l.clean(c)
	}
}

// TestCrash ends the process at every fault point of an attach and of a detach;
// the same call again, or a detach, completes it.
func TestCrash(t *testing.T) {
	l := newLab(t)
	id, dev := l.volume(100)
	x := l.iscsiTarget(id, dev, portal1, portal2)
	x.admit(l.iqn)
	x.chap(true)
	y := l.nvmeTarget(id, dev, l.nqn, nport1, nport2)
	for _, r := range []Request{x.request(), y.request()} {
		t.Run(r.Connection.Type, func(t *testing.T) { crashes(newLab(t), r) })
	}
}

func crashes(l *lab, r Request) {
	dir := l.TempDir()
	run := func(o order, env string) error {
		o.StateDir, o.Attachment, o.Volume, o.Type, o.Data = dir, r.AttachmentID, r.VolumeID, r.Connection.Type, r.Connection.Data
		b, err := json.Marshal(o)
		if err != nil {
			l.Fatal(err)
		}
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), childEnv+"="+string(b), faults.Env+"="+env)
		out, err := cmd.CombinedOutput()
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	}
	trace := filepath.Join(l.TempDir(), "points")
	points := map[bool][]string{}
	for _, detach := range []bool{false, true} {
		_ = os.Remove(trace)
		if err := run(order{Detach: detach}, "trace:"+trace); err != nil {
			l.Fatal(err)
		}
		seen := map[string]bool{}
		for _, p := range strings.Fields(l.read(trace)) {
			if !seen[p] {
				seen[p] = true
				points[detach] = append(points[detach], p)
			}
		}
		l.Log(points[detach])
	}
	if len(points[false]) < 6 || len(points[true]) < 5 {
		l.Errorf("too few points: %v", points)
	}
	killed := func(err error, point string) {
		l.Helper()
		var x *exec.ExitError
		if !errors.As(err, &x) || x.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
			l.Fatalf("%s: not killed: %v", point, err)
		}
	}
	again := func(point string, attach bool) {
		l.Helper()
		c := l.connector(Config{StateDir: dir})
		if attach {
			d := l.attach(c, r)
			if d.Identity == "" || d.Size != 100*model.MiB {
				l.Errorf("%s: %+v", point, d)
			}
		}
		l.detach(c, r)
		l.clean(c)
		if l.Failed() {
			l.Fatalf("after a crash at %s", point)
		}
	}
	for i, p := range points[false] {
		killed(run(order{}, "kill:"+p), p)
		again(p, i%2 == 0)
		killed(run(order{}, "kill:"+p), p)
		again(p, i%2 == 1)
	}
	for i, p := range points[true] {
		for _, attach := range []bool{i%2 == 0, i%2 == 1} {
			if err := run(order{}, ""); err != nil {
				l.Fatal(err)
			}
			killed(run(order{Detach: true}, "kill:"+p), p)
			again(p, attach)
		}
	}
}

// The kernel leaves a disk offline that did not answer for too long. An attach of
// it, when it answers again, brings it back.
func TestOffline(t *testing.T) {
	l := newLab(t)
	id, dev := l.volume(64)
	x := l.iscsiTarget(id, dev, portal1)
	x.admit(l.iqn)
	c := l.connector(Config{})
	d := l.attach(c, x.request())
	state := "/sys/block/" + filepath.Base(d.Path) + "/device/state"
	if err := os.WriteFile(state, []byte("offline"), 0); err != nil {
		t.Fatal(err)
	}
	if f, err := os.Open(d.Path); err == nil {
		f.Close()
		t.Fatal("a disk that is offline can be opened")
	}
	again := l.attach(c, x.request())
	if again.Path != d.Path {
		t.Errorf("it is %s now, and was %s", again.Path, d.Path)
	}
	l.sh("dd", "if="+d.Path, "of=/dev/null", "bs=4096", "count=1", "iflag=direct")
	if err := c.Detach(l.context(time.Minute), x.request()); err != nil {
		t.Error(err)
	}
	l.clean(c)
}

package harness

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Hostname is this machine's name, as the dock reports it.
func Hostname(t testing.TB) string {
	t.Helper()
	h, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// Run runs a command of the machine and gives its output; the test fails if it
// does.
func Run(t testing.TB, name string, args ...string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// Need makes sure that commands are there: as root on Debian the package that
// has them is installed, else the test is skipped with the reason.
func (s *Suite) Need(t testing.TB, pkg string, commands ...string) {
	t.Helper()
	s.apt.Lock()
	defer s.apt.Unlock()
	missing := func() (out []string) {
		for _, c := range commands {
			if lookPath(c) == "" {
				out = append(out, c)
			}
		}
		return out
	}
	if len(missing()) == 0 {
		return
	}
	if os.Geteuid() != 0 || lookPath("apt-get") == "" {
		t.Skipf("skipped: %s is missing and cannot be installed (package %s, by root with apt-get)", strings.Join(missing(), ", "), pkg)
	}
	install := func() ([]byte, error) {
		cmd := exec.CommandContext(t.Context(), "apt-get", "install", "-y", "-qq", "--no-install-recommends", pkg)
		// A package's daemon must not start by itself: the tests run their own.
		cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive", "RUNLEVEL=1")
		return cmd.CombinedOutput()
	}
	out, err := install()
	if err != nil {
		if _, err := exec.CommandContext(t.Context(), "apt-get", "update", "-qq").CombinedOutput(); err == nil {
			out, err = install()
			if err == nil {
				out = nil
			}
		}
	}
	if m := missing(); len(m) > 0 {
		t.Skipf("skipped: %s is missing, and apt-get install %s did not bring it: %v\n%s", strings.Join(m, ", "), pkg, err, tail(out, 1000))
	}
}

// lookPath finds a command, also where only root's PATH leads.
func lookPath(name string) string {
	if p, err := exec.LookPath(name); err == nil {
		return p
	}
	for _, dir := range []string{"/usr/sbin", "/sbin", "/usr/local/sbin"} {
		p := filepath.Join(dir, name)
		if st, err := os.Stat(p); err == nil && !st.IsDir() && st.Mode()&0o111 != 0 {
			return p
		}
	}
	return ""
}

// Tool gives the path of a command that Need made sure of.
func Tool(t testing.TB, name string) string {
	t.Helper()
	p := lookPath(name)
	if p == "" {
		t.Fatalf("there is no %s", name)
	}
	return p
}

// Loops lists the loop devices whose files are below a directory, with the file
// of each. A file that was removed while it was attached counts.
func Loops(dir string) (map[string]string, error) {
	files, err := filepath.Glob("/sys/block/loop*/loop/backing_file")
	if err != nil {
		return nil, err
	}
	out := map[string]string{}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ENXIO) || errors.Is(err, unix.ENODEV) {
			continue // detached meanwhile: before it was opened, or read
		}
		if err != nil {
			return nil, err
		}
		file := strings.TrimSpace(string(b))
		if strings.HasPrefix(file, dir+"/") {
			out["/dev/"+strings.Split(f, "/")[3]] = file
		}
	}
	return out, nil
}

// Mounts lists the mount points below a directory, the innermost first.
func Mounts(dir string) ([]string, error) {
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	var out []string
	sc := bufio.NewScanner(bytes.NewReader(b))
	for sc.Scan() {
		f := strings.Fields(sc.Text())
		if len(f) > 4 && strings.HasPrefix(f[4], dir+"/") {
			out = append([]string{f[4]}, out...)
		}
	}
	return out, sc.Err()
}

// MountXFS makes a file system with reflinks in a sparse file of a size in GB,
// and mounts it until the processes of the test have ended. It is called before
// they are added.
func (c *Cluster) MountXFS(dir string, gb int) {
	c.T.Helper()
	img := dir + ".img"
	WriteFile(c.T, img, nil)
	c.Must(os.Truncate(img, int64(gb)<<30))
	Run(c.T, Tool(c.T, "mkfs.xfs"), "-q", "-m", "reflink=1", img)
	c.Must(os.MkdirAll(dir, 0o700))
	dev := strings.TrimSpace(Run(c.T, Tool(c.T, "losetup"), "--find", "--show", img))
	c.T.Cleanup(func() {
		// What was left on it is looked for before this, below.
		if err := detach(dev); err != nil {
			c.T.Errorf("detach %s: %v", dev, err)
		}
	})
	Run(c.T, Tool(c.T, "mount"), dev, dir)
	c.T.Cleanup(func() {
		c.leftovers(dir)
		if err := unix.Unmount(dir, 0); err != nil {
			c.T.Errorf("unmount %s: %v", dir, err)
			_ = unix.Unmount(dir, unix.MNT_DETACH)
		}
	})
}

// detach ends a loop device.
func detach(dev string) error {
	f, err := os.Open(dev)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = unix.IoctlRetInt(int(f.Fd()), unix.LOOP_CLR_FD)
	return err
}

// leftovers fails the test for loop devices and mounts below a directory that its
// processes left, and removes them.
func (c *Cluster) leftovers(dir string) {
	mounts, err := Mounts(dir)
	if err != nil {
		c.T.Error(err)
	}
	var found []string
	for _, m := range mounts {
		found = append(found, "mount "+m)
		if err := unix.Unmount(m, unix.MNT_DETACH); err != nil {
			c.T.Errorf("unmount %s: %v", m, err)
		}
	}
	// The kernel ends a device when its last user is gone: for a moment that may
	// be another test's mount name space, which began as a copy of ours.
	var loops map[string]string
	err = Poll(10*time.Second, func() (err error) {
		if loops, err = Loops(dir); err == nil && len(loops) > 0 {
			err = errors.New("loop devices are there")
		}
		return err
	})
	if err != nil && len(loops) == 0 {
		c.T.Error(err)
	}
	for dev, file := range loops {
		found = append(found, fmt.Sprintf("%s of %s", dev, file))
		if err := detach(dev); err != nil {
			c.T.Errorf("detach %s: %v", dev, err)
		}
	}
	// A test that failed half-way has reasons of its own.
	if len(found) > 0 && !c.T.Failed() {
		c.T.Errorf("left behind: %s", strings.Join(found, "; "))
	}
}

//go:build linux

package cephlab

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// need is what a cluster and its users need of the machine, and the Debian
// package that has it. The packages bring the rest, the ceph and rbd commands
// among it.
var need = []struct{ file, pkg string }{
	{"ceph-mon", "ceph-mon"},
	{"ceph-mgr", "ceph-mgr"},
	{"ceph-osd", "ceph-osd"},
	{"ceph", "ceph-common"},
	{"rbd", "ceph-common"},
	{"rbd-fuse", "rbd-fuse"},
	{"/usr/include/rados/librados.h", "librados-dev"},
	{"/usr/include/rbd/librbd.h", "librbd-dev"},
}

// Missing gives the Debian packages that are not there.
func Missing() []string {
	var out []string
	for _, n := range need {
		if filepath.IsAbs(n.file) {
			if _, err := os.Stat(n.file); err == nil {
				continue
			}
		} else if lookPath(n.file) != "" {
			continue
		}
		if len(out) == 0 || out[len(out)-1] != n.pkg {
			out = append(out, n.pkg)
		}
	}
	return out
}

// Why says why no cluster can run here; empty if one can.
func Why() string {
	if os.Geteuid() != 0 {
		return "a cluster and its block devices need root"
	}
	if m := Missing(); len(m) > 0 {
		return "these packages are not installed: " + strings.Join(m, ", ")
	}
	return ""
}

// Install installs what is missing, by apt-get as root. The error says what
// cannot be had, and why.
func Install(ctx context.Context) error {
	missing := Missing()
	if len(missing) == 0 {
		return nil
	}
	what := strings.Join(missing, ", ")
	if os.Geteuid() != 0 || lookPath("apt-get") == "" {
		return fmt.Errorf("these packages are missing and only root on Debian can install them: %s", what)
	}
	apt := func(args ...string) ([]byte, error) {
		cmd := exec.CommandContext(ctx, "apt-get", append([]string{"-q", "-o", "DPkg::Lock::Timeout=600"}, args...)...)
		// No terminal, and no daemon that starts by itself.
		cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive", "RUNLEVEL=1")
		return cmd.CombinedOutput()
	}
	args := append([]string{"install", "-y", "--no-install-recommends"}, missing...)
	out, err := apt(args...)
	if err != nil {
		// The package lists may be old, or not there at all.
		if out, err = apt("update"); err == nil {
			out, err = apt(args...)
		}
	}
	if err == nil && len(Missing()) == 0 {
		return nil
	}
	return fmt.Errorf("apt-get did not bring %s: %w\n%s", strings.Join(Missing(), ", "), err, tail(out, 2000))
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

func tail(b []byte, n int) []byte {
	if len(b) > n {
		b = b[len(b)-n:]
	}
	return b
}

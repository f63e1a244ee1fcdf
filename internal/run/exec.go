package run

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/osds-io/osds/pkg/model"
)

// Exec runs real commands. The zero value is ready.
type Exec struct {
	// Log may be nil.
	Log Log
	// Grace is how long, after the group was killed at the context's end, the
	// runner waits for pipes that a process outside the group holds open;
	// 2 s if 0.
	Grace time.Duration
}

// Run runs c. At the context's end the command's whole process group is killed.
// A process that left the group (a daemon it started) lives on.
func (x Exec) Run(ctx context.Context, c Cmd) (Result, error) {
	r := Result{ExitCode: -1}
	argv := redact(append([]string{c.Name}, c.Args...), c.Secrets)
	err := x.run(ctx, c, argv, &r)
	if x.Log != nil {
		x.Log(argv, r.Duration, err)
	}
	return r, err
}

func (x Exec) run(ctx context.Context, c Cmd, argv []string, r *Result) error {
	fail := func(kind model.Kind, cause error, format string, args ...any) error {
		e := &Error{Argv: argv, ExitCode: r.ExitCode, Stderr: clean(r.Stderr, c.Secrets)}
		msg := strings.Join(argv, " ") + ": " + fmt.Sprintf(format, args...)
		if e.Stderr != "" {
			msg += ": " + e.Stderr
		}
		e.err = &model.Error{Kind: kind, Message: msg, Err: cause}
		return e
	}
	if err := ctx.Err(); err != nil {
		return fail(model.KindUnknownOutcome, err, "not started: %v", err)
	}
	for _, s := range append([]string{c.Name, c.Dir}, c.Args...) {
		if strings.ContainsRune(s, 0) {
			return fail(model.KindInvalid, nil, "not started: an argument has a NUL byte")
		}
	}
	path, err := lookPath(c.Name)
	if err != nil {
		hint := ""
		if p := packageOf(filepath.Base(c.Name)); p != "" {
			hint = "; install the package " + p
		}
		return fail(model.KindUnsupported, err, "the program is not installed%s", hint)
	}

	limit := c.MaxOutput
	if limit <= 0 {
		limit = DefaultMaxOutput
	}
	out, errs := &head{limit: limit}, &ends{}
	cmd := exec.CommandContext(ctx, path, c.Args...)
	cmd.Dir, cmd.Env = c.Dir, environment(c.Env)
	cmd.Stdout, cmd.Stderr = out, errs
	if c.Stdin != nil {
		cmd.Stdin = strings.NewReader(string(c.Stdin))
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	// The group's number stays its own while anybody is in it, and the command
	// itself is until it has been waited for, which ends these calls.
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = x.Grace
	if cmd.WaitDelay <= 0 {
		cmd.WaitDelay = 2 * time.Second
	}

	start := time.Now()
	if err := cmd.Start(); err != nil {
		return fail(startKind(err), err, "could not be started: %v", err)
	}
	err = cmd.Wait()
	r.Duration = time.Since(start)
	r.Stdout, r.Stderr = out.buf, errs.bytes()
	r.ExitCode = cmd.ProcessState.ExitCode()
	return x.verdict(ctx, c, cmd, err, r, out.over, fail)
}

// verdict says how a command that ran has ended.
func (x Exec) verdict(ctx context.Context, c Cmd, cmd *exec.Cmd, err error, r *Result, over bool,
	fail func(kind model.Kind, cause error, format string, args ...any) error) error {
	// A context that ended after the command had ended by itself changes
	// nothing: the exit code is the truth.
	if ws, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		sig := ws.Signal().String()
		cause, why := err, "ended by signal: "+sig
		if cerr := ctx.Err(); cerr != nil {
			cause, why = cerr, fmt.Sprintf("stopped after %s: %v", r.Duration.Round(time.Millisecond), cerr)
		}
		e := fail(model.KindUnknownOutcome, cause, "%s", why)
		e.(*Error).Signal = sig
		return e
	}
	if r.ExitCode != 0 && !slices.Contains(c.OK, r.ExitCode) {
		return fail(model.KindInternal, err, "exit code %d", r.ExitCode)
	}
	if over {
		return fail(model.KindUnknownOutcome, nil, "answered more than %d bytes", len(r.Stdout))
	}
	if errors.Is(err, exec.ErrWaitDelay) {
		// It ended well, but a process that it left behind holds the pipes:
		// the output may be short.
		return fail(model.KindUnknownOutcome, err, "ended, but a process it started still holds its output")
	}
	return nil
}

// startKind is the kind of a start that failed: nothing has run.
func startKind(err error) model.Kind {
	switch {
	case errors.Is(err, syscall.EAGAIN), errors.Is(err, syscall.ENOMEM),
		errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE):
		return model.KindUnavailable
	case errors.Is(err, fs.ErrNotExist):
		return model.KindUnsupported
	}
	return model.KindInternal
}

// systemDirs are looked through after PATH: services often run without them.
const systemDirs = "/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin"

func lookPath(name string) (string, error) {
	if name == "" {
		return "", fs.ErrNotExist
	}
	p, err := exec.LookPath(name)
	if err == nil && filepath.IsAbs(p) {
		return p, nil
	}
	if strings.ContainsRune(name, '/') {
		if err == nil {
			err = errors.New("a program is named by itself or by its absolute path")
		}
		return "", err
	}
	for _, d := range filepath.SplitList(systemDirs) {
		p := filepath.Join(d, name)
		if st, e := os.Stat(p); e == nil && st.Mode().IsRegular() && st.Mode()&0o111 != 0 {
			return p, nil
		}
	}
	if err == nil {
		err = fs.ErrNotExist
	}
	return "", err
}

// environment is the process's own, in the C locale, with a PATH that finds the
// helpers which system programs call, and without what is meant for osds alone.
func environment(extra []string) []string {
	env := make([]string, 0, 32)
	path := ""
	for _, kv := range os.Environ() {
		name, val, _ := strings.Cut(kv, "=")
		switch {
		case name == "PATH":
			path = val
		case name == "LANG", name == "LANGUAGE", strings.HasPrefix(name, "LC_"), strings.HasPrefix(name, "OSDS_"):
		default:
			env = append(env, kv)
		}
	}
	if path != "" {
		path += ":"
	}
	return append(append(env, "LC_ALL=C", "PATH="+path+systemDirs), extra...)
}

// packageOf names the package that has a program, by its Debian name.
func packageOf(program string) string {
	switch program {
	case "lvm", "lvs", "vgs", "pvs", "lvcreate", "lvremove", "lvextend", "lvchange", "lvconvert",
		"vgcreate", "vgremove", "vgextend", "vgchange", "pvcreate", "pvremove":
		return "lvm2"
	case "mkfs.ext4", "resize2fs", "e2fsck", "dumpe2fs":
		return "e2fsprogs"
	case "mkfs.xfs", "xfs_growfs", "xfs_io":
		return "xfsprogs"
	case "mkfs.btrfs", "btrfs":
		return "btrfs-progs"
	case "tgtd", "tgtadm", "tgt-admin":
		return "tgt"
	case "targetcli":
		return "targetcli-fb"
	case "iscsiadm", "iscsid":
		return "open-iscsi"
	case "nvme":
		return "nvme-cli"
	case "multipath", "multipathd":
		return "multipath-tools"
	case "rbd", "ceph", "rados":
		return "ceph-common"
	case "rbd-fuse":
		return "rbd-fuse"
	case "drbdadm", "drbdsetup", "drbdmeta":
		return "drbd-utils"
	case "thin_dump", "thin_delta", "thin_check":
		return "thin-provisioning-tools"
	case "qemu-img", "qemu-io", "qemu-nbd", "qemu-storage-daemon":
		return "qemu-utils"
	case "dmsetup":
		return "dmsetup"
	case "cryptsetup":
		return "cryptsetup-bin"
	case "mount", "umount", "losetup":
		return "mount"
	case "blkid", "lsblk", "wipefs", "findmnt", "fsfreeze":
		return "util-linux"
	case "sg_persist", "sg_inq":
		return "sg3-utils"
	}
	return ""
}

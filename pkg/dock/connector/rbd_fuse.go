package connector

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/osds-io/osds/internal/faults"
	"github.com/osds-io/osds/internal/run"
	"github.com/osds-io/osds/pkg/model"
)

// rbdFuse serves an image as a file by rbd-fuse, and puts a loop device on it.
// It needs nothing of the kernel but FUSE and loop devices. Discards do not reach
// the image.
//
// A process whose client was blocklisted answers no request any more, not even
// with an error. Whoever waits for the device waits until the process is killed.
// So a cut begins with that.
type rbdFuse struct{ *cephClient }

const fuseProgram = "rbd-fuse"

func (x *rbdFuse) name() string { return RBDFuse }

func (x *rbdFuse) usable() error {
	if !x.h.installed(fuseProgram) {
		return model.Errorf(model.KindUnsupported, "rbd-fuse is not installed on this host; install the package rbd-fuse")
	}
	for _, dev := range []string{"dev/fuse", "dev/loop-control"} {
		if !x.h.exists(dev) {
			return model.Errorf(model.KindUnsupported, "there is no /%s on this host: load the module", dev)
		}
	}
	return nil
}

func (x *rbdFuse) connect(ctx context.Context, n *note, key model.Secret) error {
	d, why, err := x.find(n)
	if err != nil || (d.name != "" && why == "") {
		return err
	}
	// What is half there is taken away first: a loop device without its
	// process, a mount without either. It can have no user, or it is busy.
	if err := x.teardown(ctx, n, d, false); err != nil {
		return err
	}
	if err := os.MkdirAll(x.mount(n), 0o700); err != nil {
		return model.Errorf(model.KindInternal, "connector.stateDir: %w", err)
	}
	unlock, err := x.configure(n, key)
	if err != nil {
		return err
	}
	defer unlock()
	i := n.Target.RBD
	args := []string{"-c", x.conf(n), "-n", "client." + i.User, "-p", i.Pool, "-r", i.Name}
	if i.Namespace != "" {
		args = append(args, "-s", i.Namespace)
	}
	// It answers when the file system is mounted, and goes on by itself.
	_, err = x.h.run.Run(ctx, run.Cmd{Name: fuseProgram, Args: append(args, x.mount(n)), Secrets: []model.Secret{key}})
	if err != nil {
		return cephError(err, "map", i)
	}
	faults.Point("connector.rbd.served")
	err = x.block(ctx, "loop device of "+i.String(), func() error {
		return x.h.loop(x.file(n), rbdLoopName(n), n.ReadOnly)
	})
	faults.Point("connector.rbd.mapped")
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTCONN) {
		// rbd-fuse shows what there is: an image that is absent is no error to
		// it, and without the pool it ends when it is asked.
		err = model.Errorf(model.KindNotFound, "%s is not there, or client.%s may not see it", i, i.User)
	}
	return err
}

// cephError gives an error of one of Ceph's programs its kind, by what it says.
func cephError(err error, what string, i image) error {
	if err == nil {
		return nil
	}
	kind := model.KindOf(err)
	if s := strings.ToLower(err.Error()); kind == model.KindInternal {
		switch {
		case strings.Contains(s, "permission denied"), strings.Contains(s, "operation not permitted"), strings.Contains(s, "failed to auth"), strings.Contains(s, "handle_auth_bad_method"):
			kind = model.KindDenied
		case strings.Contains(s, "no such file"), strings.Contains(s, "error opening image"):
			kind = model.KindNotFound
		case strings.Contains(s, "timed out"), strings.Contains(s, "connection refused"), strings.Contains(s, "couldn't connect"):
			kind = model.KindUnavailable
		}
	}
	return model.Errorf(kind, "%s of %s: %w", what, i, err)
}

// file is the image as rbd-fuse shows it.
func (x *rbdFuse) file(n *note) string { return filepath.Join(x.mount(n), n.Target.RBD.Name) }

func (x *rbdFuse) loop(n *note) string { return x.h.loopOn(x.file(n), n.Dev) }

// find looks for the loop device on the file; its process says whether it is
// alive. Nothing here touches the mounted file system, which may answer never.
func (x *rbdFuse) find(n *note) (disk, string, error) {
	name := x.loop(n)
	if name == "" {
		return disk{}, "there is no loop device of " + n.Target.RBD.String(), nil
	}
	d := disk{name: name, size: x.h.size(name)}
	pids := x.pids(n, fuseProgram)
	if len(pids) == 0 {
		return d, "its rbd-fuse has ended; detach with force, and attach again", nil
	}
	d.detail = fuseProgram + " " + itoa(uint32(pids[0]))
	return d, "", nil
}

func (x *rbdFuse) rescan(ctx context.Context, n *note, d disk) error {
	if len(x.pids(n, fuseProgram)) == 0 {
		return nil
	}
	return x.block(ctx, "new size of "+d.name, func() error {
		// Looking at the file has the kernel learn its size.
		if _, err := os.Stat(x.file(n)); err != nil {
			return err
		}
		return x.h.loopCapacity(d.name)
	})
}

func (x *rbdFuse) teardown(ctx context.Context, n *note, d disk, cut bool) error {
	if cut {
		if err := x.kill(ctx, n, fuseProgram); err != nil {
			return err
		}
		faults.Point("connector.rbd.killed")
	}
	if d.name != "" {
		err := x.block(ctx, "end of "+d.name, func() error { return x.h.loopClear(d.name) })
		if err != nil {
			return model.Errorf(model.KindOf(err), "end of %s: %w", d.name, err)
		}
		// The kernel keeps a device that is open until it is closed.
		if x.loop(n) != "" && !cut {
			return model.Errorf(model.KindBusy, "%s of attachment %s is in use; it ends with its last user", x.h.devPath(d.name), n.AttachmentID)
		}
	}
	faults.Point("connector.rbd.unlooped")
	if err := x.unmount(ctx, n, cut); err != nil {
		return err
	}
	faults.Point("connector.rbd.unmounted")
	return x.ended(ctx, n, fuseProgram)
}

// unmount ends the file system, however often it was mounted.
func (x *rbdFuse) unmount(ctx context.Context, n *note, cut bool) error {
	flags := unix.UMOUNT_NOFOLLOW
	if cut {
		flags |= unix.MNT_DETACH
	}
	for range 8 {
		mounted := false
		for _, m := range x.h.mounts("self") {
			mounted = mounted || m.point == x.mount(n)
		}
		if !mounted {
			return nil
		}
		err := x.block(ctx, "unmount of "+x.mount(n), func() error { return unix.Unmount(x.mount(n), flags) })
		switch {
		case errors.Is(err, unix.EBUSY):
			return model.Errorf(model.KindBusy, "%s of attachment %s is in use", x.mount(n), n.AttachmentID)
		case err != nil && !errors.Is(err, unix.EINVAL):
			return model.Errorf(model.KindOf(err), "unmount of %s: %w", x.mount(n), err)
		}
	}
	return model.Errorf(model.KindBusy, "%s does not stay unmounted", x.mount(n))
}

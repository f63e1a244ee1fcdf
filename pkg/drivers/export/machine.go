package export

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/osds-io/osds/pkg/model"
)

// runDir has what all docks of this host share, and what goes with the kernel's
// own state when the host restarts.
const runDir = "/run/osds"

// machine is what the docks of one host share. Its lock is held for a few steps
// that only look, or that the kernel does at once; never across one that waits
// for a host or a disk.
type machine struct{ dir string }

func (m machine) lock(ctx context.Context) (unlock func(), err error) {
	if err := os.MkdirAll(m.dir, 0o700); err != nil {
		return nil, kernelError("shared state of docks", err)
	}
	f, err := os.OpenFile(filepath.Join(m.dir, "export.lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, kernelError("shared state of docks", err)
	}
	for pause := time.Millisecond; ; pause = min(2*pause, 50*time.Millisecond) {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return func() { _ = f.Close() }, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			_ = f.Close()
			return nil, kernelError("lock "+f.Name(), err)
		}
		select {
		case <-ctx.Done():
			_ = f.Close()
			return nil, model.Errorf(model.KindUnknownOutcome, "another dock of this host is busy with targets: %w", ctx.Err())
		case <-time.After(pause):
		}
	}
}

// A mark says that an entry of the kernel's which others may share was made by a
// dock: it is set before the entry is made.
func (m machine) mark(name string) string { return filepath.Join(m.dir, "made-"+digest(name)[:32]) }

func (m machine) setMark(name string) error {
	f, err := os.OpenFile(m.mark(name), os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	return f.Close()
}

func (m machine) marked(name string) bool { return exists(m.mark(name)) }

func (m machine) unmark(name string) { _ = os.Remove(m.mark(name)) }

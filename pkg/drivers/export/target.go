package export

import (
	"context"
	"io/fs"
	"os"
	"syscall"

	"github.com/osds-io/osds/pkg/model"
)

// server is what serves exports: the kernel's iSCSI target, tgtd, or the kernel's
// NVMe target. Of one attachment calls come one at a time, and so do those of one
// volume that make or remove. Every method may be called again after it was
// interrupted anywhere.
type server interface {
	// can says why exports would not work here; it changes nothing. ready
	// makes them work.
	can(ctx context.Context) error
	ready(ctx context.Context) error
	// make makes an export of what its note says, or completes it.
	make(ctx context.Context, n *note) error
	// remove cuts hosts off and removes what there is of an export.
	remove(ctx context.Context, n *note) error
	// connected names who is connected; empty if it is known that nobody is.
	connected(ctx context.Context, n *note) (string, error)
	// live gives every target that is there, by name.
	live(ctx context.Context) (map[string]liveTarget, error)
	// resized tells an export that its device has grown.
	resized(ctx context.Context, n *note) error
	// orphan removes a target by its name, and sweep what else of ours is
	// there of volumes that are not to be kept; it says what.
	orphan(ctx context.Context, name string) error
	sweep(ctx context.Context, keep func(volumeID string) bool) ([]string, error)
	// identity is what hosts see.
	identity(ctx context.Context, n *note) string
}

// liveTarget is a target as the server has it.
type liveTarget struct {
	owner string // empty: not of osds, or unknown
	up    bool   // hosts can connect
}

const targetNVMe = "nvmet"

// checkDevice says whether a path can be exported.
func checkDevice(path string) error {
	st, err := os.Stat(path)
	switch {
	case os.IsNotExist(err):
		return model.Errorf(model.KindUnavailable, "the volume's device %s is not there", path)
	case err != nil:
		return model.Errorf(model.KindUnavailable, "the volume's device: %w", err)
	case st.Mode()&fs.ModeDevice == 0 || st.Mode()&fs.ModeCharDevice != 0:
		return model.Errorf(model.KindInternal, "%s is not a block device", path)
	}
	return nil
}

func rdevOf(st fs.FileInfo) (uint64, bool) {
	s, ok := st.Sys().(*syscall.Stat_t)
	return uint64(s.Rdev), ok && st.Mode()&fs.ModeDevice != 0
}

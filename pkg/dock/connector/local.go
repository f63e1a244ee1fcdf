package connector

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/osds-io/osds/pkg/drivers"
	"github.com/osds-io/osds/pkg/model"
)

// local attaches devices of this very host. They are made and removed by the
// driver that exports them; here they are only checked, flushed and let go.
type local struct{ h *host }

func (l *local) usable() error                 { return nil }
func (l *local) initiators() []model.Initiator { return nil }

func (l *local) connect(context.Context, *note, bool) (string, error) { return "", nil }
func (l *local) rescan(context.Context, *note, disk) error            { return nil }
func (l *local) forget(context.Context, *note) error                  { return nil }

func (l *local) teardown(context.Context, *note, disk, bool, bool) error { return nil }

// find gives the device, if it is the volume's.
func (l *local) find(n *note) (d disk, why string, err error) {
	var st syscall.Stat_t
	p := l.h.path(n.Target.Device)
	if err := syscall.Stat(p, &st); err != nil {
		if os.IsNotExist(err) {
			return d, n.Target.Device + " is not there", nil
		}
		return d, "", model.Errorf(model.KindInternal, "%s: %w", n.Target.Device, err)
	}
	if st.Mode&syscall.S_IFMT != syscall.S_IFBLK {
		return d, "", model.Invalid("data.devicePath", "data.devicePath %s is not a block device", n.Target.Device)
	}
	name := l.h.nameOf(devNumber(uint64(st.Rdev)))
	if name == "" {
		return d, n.Target.Device + " is the node of no device", nil
	}
	id, err := l.owner(n, name)
	if err != nil || id == "" {
		return d, n.Target.Device + " is bound to nothing yet", err
	}
	return disk{name: name, members: []string{name}, identity: id, size: l.h.size(name), detail: "local, " + n.Target.Device}, "", nil
}

// owner checks that a device is the volume's, by what the kernel knows of it: the
// name of a loop device's file, of a logical volume, or the disk's identity.
func (l *local) owner(n *note, name string) (string, error) {
	no := func(is string) (string, error) {
		return "", model.Errorf(model.KindConflict, "%s is %s, which does not belong to volume %s", n.Target.Device, is, n.VolumeID)
	}
	id, _ := drivers.NAA(n.VolumeID)
	if n.Target.Identity != "" {
		id = n.Target.Identity
	}
	switch {
	case strings.HasPrefix(name, "loop"):
		f := l.h.value("sys/block", name, "loop/backing_file")
		if f == "" {
			return "", nil
		}
		if !strings.Contains(filepath.Base(f), n.VolumeID) {
			return no("bound to " + f)
		}
		return id, nil
	case strings.HasPrefix(name, "dm-"):
		m := l.h.value("sys/block", name, "dm/name")
		// device-mapper doubles the dashes of a logical volume's name.
		if !strings.Contains(strings.ReplaceAll(m, "--", "-"), n.VolumeID) {
			return no("the device-mapper device " + m)
		}
		return id, nil
	}
	if n.Target.Identity == "" {
		return "", model.Errorf(model.KindUnsupported, "%s cannot be known to be volume %s: it is neither a loop device nor a logical volume, and the connection has no identity", n.Target.Device, n.VolumeID)
	}
	ids, _ := l.h.scsiNames(name)
	ids = append(ids, l.h.nvmeNames(name)...)
	if !contains(ids, id) {
		return no("the disk " + strings.Join(ids, "/"))
	}
	return id, nil
}

func devNumber(rdev uint64) string {
	return itoa(unix.Major(rdev)) + ":" + itoa(unix.Minor(rdev))
}

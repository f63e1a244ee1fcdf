package export

import (
	"context"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/osds-io/osds/internal/faults"
	"github.com/osds-io/osds/pkg/model"
)

// stores are the kernel's stores of one kind: what LIO has of a volume's device,
// shared by everything that is exported of it.
//
//	core/iblock_5150/osds.OWNER.VOLUME   requests go to the device as they are
//	core/fileio_5150/...                 every write is on stable storage before
//	                                     it is answered
//	core/fileio_5151/...                 the same, below a disk of this host: see
//	                                     front.go
//
// The two of fileio are apart because their serial numbers are.
type stores struct {
	root    string // of configfs
	owner   string
	adapter string
	// through says that writes go through all caches.
	through bool
}

// The numbers of the adapters that stores of osds are under: far from the small
// ones that targetcli counts from.
const (
	directStores  = "iblock_5150"
	throughStores = "fileio_5150"
	frontStores   = "fileio_5151"
)

// through tells a kernel's store of files from one of block devices.
const throughModule = "target_core_file"

func (s stores) dir() string { return filepath.Join(s.root, "target/core", s.adapter) }

func (s stores) path(volumeID string) string {
	return filepath.Join(s.dir(), "osds."+s.owner+"."+volumeID)
}

// store is what a store is made of.
type store struct {
	volumeID, device, serial string
	// product is what the disk calls itself; the kernel's own name if empty.
	product string
}

// make makes a volume's store, or completes it. The volume's lock is held.
func (s stores) make(t *tree, x store) {
	p := s.path(x.volumeID)
	if attr(filepath.Join(p, "enable")) == "1" {
		have := attr(filepath.Join(p, "udev_path"))
		if have == x.device || sameDevice(have, x.device) {
			return
		}
		// Of another device: a loop device that was made anew, say. It can be
		// replaced only while nothing uses it.
		s.remove(t, x.volumeID)
		if t.err != nil {
			t.err = model.Errorf(model.KindBusy, "volume %s is exported as %s already, and is now %s: %w", x.volumeID, have, x.device, t.err)
			return
		}
	} else if exists(p) {
		s.remove(t, x.volumeID) // half made: what it was told is not to be seen
	}
	// The adapter goes with its last store, perhaps one of another dock's.
	for range 8 {
		t.dir(s.dir())
		if err := os.Mkdir(p, 0o755); err == nil || !os.IsNotExist(err) || !t.ok() {
			if !os.IsExist(err) {
				t.fail("make "+p, err)
			}
			break
		}
	}
	if s.through {
		s.enableThrough(t, p, x)
	} else {
		t.write(filepath.Join(p, "control"), "udev_path="+x.device)
		s.enable(t, p, x)
	}
	if t.err == nil {
		restoreReservations(s.root, p, x.serial)
	}
	faults.Point("export.lio.enabled")
}

func (s stores) enable(t *tree, p string, x store) {
	t.write(filepath.Join(p, "udev_path"), x.device)
	t.write(filepath.Join(p, "wwn/vpd_unit_serial"), x.serial)
	if x.product != "" {
		t.write(filepath.Join(p, "wwn/vendor_id"), vendor)
		t.write(filepath.Join(p, "wwn/product_id"), x.product)
	}
	faults.Point("export.lio.store")
	t.write(filepath.Join(p, "enable"), "1")
	// Discard, where the device can.
	t.try(filepath.Join(p, "attrib/emulate_tpu"), "1")
}

// enableThrough makes the kernel open the device with O_DSYNC, and looks that it
// has: a write is answered when it is stable, with all that is needed to find it
// again, whatever caches there are below.
func (s stores) enableThrough(t *tree, p string, x store) {
	// The kernel creates a file if there is none of the name. A device that is
	// open keeps the name that it has of the kernel.
	f, node, err := holdDevice(x.device)
	if err != nil {
		t.fail("open "+x.device, err)
		return
	}
	defer f.Close()
	t.write(filepath.Join(p, "control"), "fd_dev_name="+node)
	s.enable(t, p, x)
	// What was discarded may still be read as it was, from the cache.
	t.try(filepath.Join(p, "attrib/unmap_zeroes_data"), "0")
	if !t.ok() {
		return
	}
	if info := attr(filepath.Join(p, "info")); !strings.Contains(info, "O_DSYNC") || attr(filepath.Join(p, "attrib/emulate_write_cache")) != "0" {
		t.fail("store of volume "+x.volumeID, model.Errorf(model.KindUnsupported, "the kernel does not write through to %s: %q", x.device, clip(info)))
	}
}

// holdDevice opens a block device, and gives its name by the kernel.
func holdDevice(path string) (*os.File, string, error) {
	node, err := filepath.EvalSymlinks(path)
	if err != nil {
		return nil, "", err
	}
	f, err := os.OpenFile(node, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, "", err
	}
	st, err := f.Stat()
	if err == nil && (st.Mode()&fs.ModeDevice == 0 || st.Mode()&fs.ModeCharDevice != 0) {
		err = model.Errorf(model.KindInternal, "%s is not a block device", node)
	}
	if err != nil {
		_ = f.Close()
		return nil, "", err
	}
	return f, node, nil
}

func (s stores) remove(t *tree, volumeID string) {
	t.rmdir(s.path(volumeID))
	if t.err == nil {
		_ = os.Remove(s.dir()) // refused while others have stores there
	}
}

// sweep removes stores that nothing uses, of volumes that keep does not want.
func (s stores) sweep(t *tree, keep, used func(volumeID string) bool) (gone []string) {
	for _, name := range t.sub(s.dir()) {
		id, ours := strings.CutPrefix(name, "osds."+s.owner+".")
		if !ours || keep(id) || used(id) {
			continue
		}
		s.remove(t, id)
		gone = append(gone, "the store of volume "+id)
	}
	return gone
}

// restoreReservations gives a new store the reservations that initiators asked
// to outlive a power cut. The kernel writes them but does not read them.
func restoreReservations(root, store, serial string) {
	dbroot := attr(filepath.Join(root, "target/dbroot"))
	b, err := os.ReadFile(filepath.Join(dbroot, "pr", "aptpl_"+serial))
	if err != nil {
		return
	}
	for _, r := range aptplRecords(string(b)) {
		_ = writeAttr(filepath.Join(store, "pr/res_aptpl_metadata"), r)
	}
}

// aptplRecords makes of the kernel's file what it takes back: a record a line,
// its fields separated by commas.
func aptplRecords(file string) []string {
	var out []string
	var fields []string
	for _, line := range strings.Split(file, "\n") {
		line = strings.TrimSpace(line)
		switch {
		case strings.HasPrefix(line, "PR_REG_START:"):
			fields = nil
		case strings.HasPrefix(line, "PR_REG_END:"):
			if len(fields) > 0 && len(out) < 256 {
				out = append(out, strings.Join(fields, ","))
			}
			fields = nil
		case strings.Contains(line, "=") && len(fields) < 32:
			fields = append(fields, line)
		}
	}
	return out
}

// sameDevice says whether two paths are one device.
func sameDevice(a, b string) bool {
	x, err := os.Stat(a)
	if err != nil {
		return false
	}
	y, err := os.Stat(b)
	if err != nil {
		return false
	}
	dx, ok1 := rdevOf(x)
	dy, ok2 := rdevOf(y)
	return ok1 && ok2 && dx == dy
}

// Holder names the kernel's target that has a block device, whoever made it;
// empty if none has. Targets do not claim devices as mounts do, so opening one
// exclusively does not tell.
func Holder(ctx context.Context, device string) (string, error) {
	t := &tree{ctx: ctx}
	core := filepath.Join(configfsRoot, "target/core")
	for _, a := range t.sub(core) {
		for _, s := range t.sub(filepath.Join(core, a)) {
			p := filepath.Join(core, a, s)
			if at := attr(filepath.Join(p, "udev_path")); at != "" && attr(filepath.Join(p, "enable")) == "1" && sameDevice(at, device) {
				return "the store " + s + " of LIO", nil
			}
		}
	}
	subs := filepath.Join(configfsRoot, "nvmet/subsystems")
	for _, s := range t.sub(subs) {
		for _, ns := range t.sub(filepath.Join(subs, s, "namespaces")) {
			p := filepath.Join(subs, s, "namespaces", ns)
			if attr(filepath.Join(p, "enable")) == "1" && sameDevice(attr(filepath.Join(p, "device_path")), device) {
				return "the NVMe subsystem " + s, nil
			}
		}
	}
	return "", t.err
}

package export

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/osds-io/osds/internal/atomicfile"
	"github.com/osds-io/osds/internal/faults"
	"github.com/osds-io/osds/internal/run"
	"github.com/osds-io/osds/pkg/model"
)

// fronts are disks of this host in front of volumes' write-through stores, for
// nvmet, which cannot be told itself to make every write stable:
//
//	loopback/iqn.2017-10.io.opensds:front.OWNER/tpgt_1/lun/lun_N/osds.VOLUME
//
// is a link to the store, and makes the kernel attach it here, as /dev/sdX. A
// volume has one, whatever is exported of it, so all see the same cache.
//
// A loop device would not do: since Linux 6.16 it drops the O_DSYNC of its file,
// and before it makes every page of a request stable by itself.
type fronts struct {
	stores
	run run.Runner

	mods *kmods

	// mu is held while units are given numbers, and while the target goes.
	mu    sync.Mutex
	ruled bool
}

var frontModules = []string{"target_core_mod", throughModule, "tcm_loop", "sd_mod"}

// vendor and frontProduct are what fronts call themselves: the rule goes by it.
const (
	vendor       = "OSDS"
	frontProduct = "FRONT"
)

// The rule keeps this host from looking at what is on fronts: partitions, volume
// groups and file systems there are those of the volumes' users.
const (
	rulesDir  = "/run/udev/rules.d"
	rulesFile = "10-osds-front.rules"
	rules     = `# Disks of osds in front of exported volumes: what is on them is not this host's.
SUBSYSTEM=="block", ATTRS{vendor}=="` + vendor + `", ATTRS{model}=="` + frontProduct + `", ENV{UDEV_DISABLE_PERSISTENT_STORAGE_RULES_FLAG}="1", ENV{SYSTEMD_READY}="0", ENV{UDISKS_IGNORE}="1", SYMLINK+="osds-front/$kernel"
`
)

// FrontLinks has a link to each disk in front of a volume, where udev runs. The
// disk is another name of the volume, for the kernel's targets alone.
const FrontLinks = "/dev/osds-front/"

func (f *fronts) ready(ctx context.Context) error {
	if err := f.mods.load(ctx, frontModules...); err != nil {
		if model.IsKind(err, model.KindUnsupported) {
			return model.Errorf(model.KindUnsupported, "exporting over NVMe so that acknowledged writes outlive a power loss: %w; or set writeThrough: never, see docs/data-path.md", err)
		}
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.ruled || !exists(filepath.Dir(rulesDir)) {
		return nil
	}
	p := filepath.Join(rulesDir, rulesFile)
	if b, err := os.ReadFile(p); err != nil || string(b) != rules {
		err := os.MkdirAll(rulesDir, 0o755)
		if err == nil {
			err = atomicfile.Write(p, []byte(rules), 0o644)
		}
		if err == nil {
			_, err = f.run.Run(ctx, run.Cmd{Name: "udevadm", Args: []string{"control", "--reload"}})
		}
		if err != nil {
			return model.Errorf(model.KindUnavailable, "the rule of udev for disks in front of volumes: %w", err)
		}
	}
	f.ruled = true
	return nil
}

func (f *fronts) target() string {
	return filepath.Join(f.root, "target/loopback", iqnPrefix+"front."+f.owner)
}

func (f *fronts) group() string { return filepath.Join(f.target(), "tpgt_1") }

// link is the name of a volume's link below its unit.
func link(volumeID string) string { return "osds." + volumeID }

// unit finds a volume's unit, and its number.
func (f *fronts) unit(t *tree, volumeID string) (dir, number string, ok bool) {
	for _, u := range t.sub(filepath.Join(f.group(), "lun")) {
		dir := filepath.Join(f.group(), "lun", u)
		if exists(filepath.Join(dir, link(volumeID))) {
			return dir, strings.TrimPrefix(u, "lun_"), true
		}
	}
	return "", "", false
}

// scsi is what the kernel shows of a unit; empty if there is no target.
func (f *fronts) scsi(number string) string {
	at := attr(filepath.Join(f.group(), "address"))
	if at == "" {
		return ""
	}
	return filepath.Join("/sys/bus/scsi/devices", at+":"+number)
}

// disk gives the path of a unit's disk; empty while there is none.
func (f *fronts) disk(number string) string {
	at := f.scsi(number)
	if at == "" {
		return ""
	}
	es, _ := os.ReadDir(filepath.Join(at, "block"))
	if len(es) == 0 {
		return ""
	}
	return "/dev/" + es[0].Name()
}

// path gives the path of a volume's disk; empty if there is none.
func (f *fronts) path(t *tree, volumeID string) string {
	_, number, ok := f.unit(t, volumeID)
	if !ok {
		return ""
	}
	return f.disk(number)
}

// make makes the disk in front of a volume, or completes it. The volume's lock
// is held.
func (f *fronts) make(t *tree, n *note) string {
	if t.ok() {
		t.fail("disks in front of volumes", f.ready(t.ctx))
	}
	f.stores.make(t, store{volumeID: n.VolumeID, device: n.Device, serial: serialOf("front " + n.VolumeID), product: frontProduct})
	if !t.ok() {
		return ""
	}
	dir, number, ok := f.unit(t, n.VolumeID)
	if ok && f.disk(number) == "" {
		t.unlink(filepath.Join(dir, link(n.VolumeID))) // somebody took the disk away
	}
	if !ok {
		dir, number = f.newUnit(t)
		faults.Point("export.front.unit")
	}
	// This returns when the kernel has found the disk.
	t.link(f.stores.path(n.VolumeID), filepath.Join(dir, link(n.VolumeID)))
	faults.Point("export.front.linked")
	if !t.ok() {
		_ = os.Remove(dir)
		return ""
	}
	return f.await(t, number)
}

// maxUnits is how many units a group has at most.
const maxUnits = 65536

// newUnit makes a unit of a number that is free, and the target if need be.
func (f *fronts) newUnit(t *tree) (dir, number string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	t.dir(filepath.Join(f.root, "target/loopback"))
	t.dir(f.target())
	t.dir(f.group())
	if nexus := filepath.Join(f.group(), "nexus"); attr(nexus) == "" {
		t.write(nexus, iqnPrefix+"front."+f.owner)
	}
	for i := 0; t.ok(); i++ {
		number = strconv.Itoa(i)
		dir = filepath.Join(f.group(), "lun", "lun_"+number)
		err := os.Mkdir(dir, 0o755)
		if err == nil {
			break
		}
		if !os.IsExist(err) || i == maxUnits-1 {
			t.fail("make "+dir, err)
		}
	}
	return dir, number
}

// await waits for a unit's disk. Its driver looks at it beside us.
func (f *fronts) await(t *tree, number string) string {
	for pause := time.Millisecond; t.ok(); pause = min(2*pause, 100*time.Millisecond) {
		if d := f.disk(number); d != "" && opens(d) {
			q := filepath.Join("/sys/block", filepath.Base(d))
			// A volume that does not answer for a while - its disks are away,
			// its thin pool is full - shall not be taken for a disk that is
			// broken, nor keep others from being attached meanwhile.
			t.write(filepath.Join(f.scsi(number), "timeout"), frontTimeout)
			t.try(filepath.Join(q, "queue/scheduler"), "none")
			if c := attr(filepath.Join(q, "queue/write_cache")); c != "write through" {
				t.fail("the disk in front", model.Errorf(model.KindInternal, "%s has the write cache %q", d, c))
			}
			return d
		}
		select {
		case <-t.ctx.Done():
		case <-time.After(pause):
		}
	}
	return ""
}

// opens says whether a disk is there: its name is, a moment earlier.
func opens(disk string) bool {
	h, _, err := holdDevice(disk)
	if err == nil {
		_ = h.Close()
	}
	return err == nil
}

// frontTimeout is 11 days, in seconds.
const frontTimeout = "1000000"

// remove removes the disk in front of a volume, and its store. The volume's lock
// is held, and nothing is exported of the disk any more.
func (f *fronts) remove(t *tree, volumeID string) {
	if dir, _, ok := f.unit(t, volumeID); ok {
		// This waits for requests that are under way.
		t.unlink(filepath.Join(dir, link(volumeID)))
		faults.Point("export.front.unlinked")
		t.rmdir(dir)
	}
	if t.ok() && exists(f.stores.path(volumeID)) {
		f.stores.remove(t, volumeID)
	}
	f.dropTarget(t)
}

// dropTarget removes the target when it has no units.
func (f *fronts) dropTarget(t *tree) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if t.ok() && exists(f.group()) && len(t.sub(filepath.Join(f.group(), "lun"))) > 0 {
		return
	}
	t.rmdir(f.group())
	t.rmdir(f.target())
}

// grown makes the kernel look at the size of a volume's disk again.
func (f *fronts) grown(t *tree, volumeID string) {
	if _, number, ok := f.unit(t, volumeID); ok {
		t.write(filepath.Join(f.scsi(number), "rescan"), "1")
	}
}

// sweep removes disks of volumes that keep does not want and nothing uses, and
// what interrupted calls have left. Nobody else works on the fronts meanwhile.
func (f *fronts) sweep(t *tree, keep func(volumeID string) bool, used func(disk string) bool) (gone []string) {
	for _, u := range t.sub(filepath.Join(f.group(), "lun")) {
		dir := filepath.Join(f.group(), "lun", u)
		es, err := os.ReadDir(dir)
		if err != nil {
			continue
		}
		id := ""
		for _, e := range es {
			if v, ours := strings.CutPrefix(e.Name(), "osds."); ours {
				id = v
			}
		}
		switch {
		case id == "":
			t.rmdir(dir)
		case !keep(id) && !used(f.disk(strings.TrimPrefix(u, "lun_"))):
			f.remove(t, id)
			gone = append(gone, "the disk in front of volume "+id)
		}
	}
	more := f.stores.sweep(t, keep, func(id string) bool { _, _, ok := f.unit(t, id); return ok })
	if exists(f.target()) {
		f.dropTarget(t)
	}
	return append(gone, more...)
}

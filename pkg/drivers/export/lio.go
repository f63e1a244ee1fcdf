package export

import (
	"context"
	"os"
	"path/filepath"
	"strings"

	"github.com/osds-io/osds/internal/faults"
	"github.com/osds-io/osds/pkg/model"
)

// lio is the kernel's iSCSI target, set up through configfs:
//
//	core/iblock_5150/osds.OWNER.VOLUME   one store for each volume, shared by
//	                                     its targets, so that SCSI reservations are
//	iscsi/IQN/tpgt_1                     one target for each attachment
//
// The alias of a target's group says whose it is.
type lio struct {
	root  string // of configfs
	owner string
	mods  *kmods
}

// lioHBA is the number of the adapter that stores of osds are under: far from
// the small ones that targetcli counts from.
const lioHBA = "iblock_5150"

const tagPrefix = "osds:"

func (l *lio) core() string { return filepath.Join(l.root, "target/core") }

func (l *lio) store(volumeID string) string {
	return filepath.Join(l.core(), lioHBA, "osds."+l.owner+"."+volumeID)
}

func (l *lio) target(name string) string { return filepath.Join(l.root, "target/iscsi", name) }

func (l *lio) group(name string) string { return filepath.Join(l.target(name), "tpgt_1") }

var lioModules = []string{"target_core_mod", "target_core_iblock", "iscsi_target_mod"}

func (l *lio) can(ctx context.Context) error { return l.mods.has(ctx, lioModules...) }

func (l *lio) ready(ctx context.Context) error {
	if err := l.mods.load(ctx, lioModules...); err != nil {
		return err
	}
	t := &tree{ctx: ctx}
	t.dir(filepath.Join(l.root, "target/iscsi"))
	if t.err != nil {
		return t.err
	}
	// Reservations that shall outlive a power cut are kept here; without the
	// directory the kernel refuses them, and says so for any registration.
	dbroot := attr(filepath.Join(l.root, "target/dbroot"))
	if !filepath.IsAbs(dbroot) {
		return nil // a kernel that cannot be asked
	}
	for _, d := range []string{"pr", "alua"} {
		if err := os.MkdirAll(filepath.Join(dbroot, d), 0o700); err != nil {
			return model.Errorf(model.KindUnavailable, "the kernel keeps reservations in %s: %w", dbroot, err)
		}
	}
	return nil
}

// make makes an export, or completes it.
func (l *lio) make(ctx context.Context, n *note) error {
	if err := checkDevice(n.Device); err != nil {
		return err
	}
	t := &tree{ctx: ctx}
	l.makeStore(t, n)
	if !t.ok() {
		return t.err
	}
	g := l.group(n.Name)
	t.dir(l.target(n.Name))
	t.dir(g)
	faults.Point("export.lio.target")
	t.put(filepath.Join(g, "param/TargetAlias"), tagPrefix+l.owner)
	for _, a := range [][2]string{{"generate_node_acls", "0"}, {"cache_dynamic_acls", "0"},
		// Who may not log in is not told of the target either.
		{"demo_mode_discovery", "0"}, {"demo_mode_write_protect", "1"}, {"authentication", zeroOne(n.User != "")}} {
		t.put(filepath.Join(g, "attrib", a[0]), a[1])
	}
	for _, p := range n.Portals {
		t.dir(filepath.Join(g, "np", p))
	}
	faults.Point("export.lio.portals")
	unit := filepath.Join(g, "lun/lun_1")
	t.dir(unit)
	t.link(l.store(n.VolumeID), filepath.Join(unit, "osds"))
	faults.Point("export.lio.unit")
	for _, i := range n.Initiators {
		l.makeACL(t, n, filepath.Join(g, "acls", i), unit)
	}
	faults.Point("export.lio.acls")
	// Only now does anybody get in.
	t.put(filepath.Join(g, "enable"), "1")
	return t.err
}

// makeACL admits one initiator.
func (l *lio) makeACL(t *tree, n *note, acl, unit string) {
	t.dir(acl)
	if n.User != "" {
		t.put(filepath.Join(acl, "auth/userid"), n.User)
		t.put(filepath.Join(acl, "auth/password"), n.Password.Reveal())
	}
	if n.UserIn != "" {
		t.put(filepath.Join(acl, "auth/userid_mutual"), n.UserIn)
		t.put(filepath.Join(acl, "auth/password_mutual"), n.PasswordIn.Reveal())
	}
	mapped := filepath.Join(acl, "lun_1")
	t.dir(mapped)
	if !exists(filepath.Join(mapped, "osds")) {
		t.link(unit, filepath.Join(mapped, "osds"))
	}
	// The kernel takes it only once the link is there; nobody is let in before
	// the group is enabled.
	t.put(filepath.Join(mapped, "write_protect"), zeroOne(n.ReadOnly))
}

func zeroOne(b bool) string {
	if b {
		return "1"
	}
	return "0"
}

// makeStore makes a volume's store, or completes it. The volume's lock is held.
func (l *lio) makeStore(t *tree, n *note) {
	s := l.store(n.VolumeID)
	if attr(filepath.Join(s, "enable")) == "1" {
		have := attr(filepath.Join(s, "udev_path"))
		if have == n.Device || sameDevice(have, n.Device) {
			return
		}
		// Of another device: a loop device that was made anew, say. It can be
		// replaced only while nothing uses it.
		l.removeStore(t, n.VolumeID)
		if t.err != nil {
			t.err = model.Errorf(model.KindBusy, "volume %s is exported as %s already, and is now %s: %w", n.VolumeID, have, n.Device, t.err)
			return
		}
	} else if exists(s) {
		l.removeStore(t, n.VolumeID) // half made: what it was told is not to be seen
	}
	// The adapter goes with its last store, perhaps one of another dock's.
	for range 8 {
		t.dir(filepath.Dir(s))
		if err := os.Mkdir(s, 0o755); err == nil || !os.IsNotExist(err) || !t.ok() {
			if !os.IsExist(err) {
				t.fail("make "+s, err)
			}
			break
		}
	}
	t.write(filepath.Join(s, "control"), "udev_path="+n.Device)
	t.write(filepath.Join(s, "udev_path"), n.Device)
	t.write(filepath.Join(s, "wwn/vpd_unit_serial"), serialOf(n.VolumeID))
	faults.Point("export.lio.store")
	t.write(filepath.Join(s, "enable"), "1")
	// Discard, where the device can.
	t.try(filepath.Join(s, "attrib/emulate_tpu"), "1")
	if t.err == nil {
		l.restoreReservations(s, serialOf(n.VolumeID))
	}
	faults.Point("export.lio.enabled")
}

// restoreReservations gives a new store the reservations that initiators asked
// to outlive a power cut. The kernel writes them but does not read them.
func (l *lio) restoreReservations(store, serial string) {
	dbroot := attr(filepath.Join(l.root, "target/dbroot"))
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

// remove removes an export's target, sessions and all, and the volume's store
// if nobody else uses it. The volume's lock is held.
func (l *lio) remove(ctx context.Context, n *note) error {
	t := &tree{ctx: ctx}
	l.removeTarget(t, n.Name)
	faults.Point("export.lio.removed")
	if t.ok() && exists(l.store(n.VolumeID)) && !l.storeUsed(t, n.VolumeID) {
		l.removeStore(t, n.VolumeID)
	}
	return t.err
}

func (l *lio) removeTarget(t *tree, name string) {
	g := l.group(name)
	if exists(filepath.Join(g, "enable")) {
		// This ends the sessions, and returns when they have ended.
		t.put(filepath.Join(g, "enable"), "0")
		faults.Point("export.lio.disabled")
	}
	for _, a := range t.sub(filepath.Join(g, "acls")) {
		acl := filepath.Join(g, "acls", a)
		for _, m := range t.sub(acl) {
			if strings.HasPrefix(m, "lun_") {
				t.links(filepath.Join(acl, m))
				t.rmdir(filepath.Join(acl, m))
			}
		}
		t.rmdir(acl)
	}
	faults.Point("export.lio.noacls")
	for _, u := range t.sub(filepath.Join(g, "lun")) {
		t.links(filepath.Join(g, "lun", u))
		t.rmdir(filepath.Join(g, "lun", u))
	}
	for _, p := range t.sub(filepath.Join(g, "np")) {
		t.rmdir(filepath.Join(g, "np", p))
	}
	t.rmdir(g)
	t.rmdir(l.target(name))
}

// storeUsed says whether a target has a unit on a volume's store.
func (l *lio) storeUsed(t *tree, volumeID string) bool {
	for _, name := range t.sub(filepath.Join(l.root, "target/iscsi")) {
		if at, err := os.Readlink(filepath.Join(l.group(name), "lun/lun_1/osds")); err == nil && filepath.Base(at) == filepath.Base(l.store(volumeID)) {
			return true
		}
	}
	return false
}

func (l *lio) removeStore(t *tree, volumeID string) {
	s := l.store(volumeID)
	t.rmdir(s)
	if t.err == nil {
		_ = os.Remove(filepath.Dir(s)) // refused while others have stores there
	}
}

// connected says who is logged in; empty if nobody is.
func (l *lio) connected(ctx context.Context, n *note) (string, error) {
	t := &tree{ctx: ctx}
	acls := filepath.Join(l.group(n.Name), "acls")
	for _, a := range t.sub(acls) {
		if who := sessionOf(attr(filepath.Join(acls, a, "info"))); who != "" {
			return who, nil
		}
	}
	return "", t.err
}

// sessionOf reads an initiator's info: empty if there is no session.
func sessionOf(info string) string {
	for _, line := range strings.Split(info, "\n") {
		if k, v, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(k) == "InitiatorName" {
			return strings.TrimSpace(v)
		}
	}
	return ""
}

// live gives the targets that the kernel has, ours and others'.
func (l *lio) live(context.Context) (map[string]liveTarget, error) {
	names, err := subdirs(filepath.Join(l.root, "target/iscsi"))
	if err != nil {
		return nil, kernelError("list targets", err)
	}
	out := map[string]liveTarget{}
	for _, name := range names {
		if name == "discovery_auth" {
			continue
		}
		g := l.group(name)
		out[name] = liveTarget{
			owner: strings.TrimPrefix(attr(filepath.Join(g, "param/TargetAlias")), tagPrefix),
			up:    attr(filepath.Join(g, "enable")) == "1",
		}
	}
	return out, nil
}

// resized has nothing to do: the kernel asks the device for its size whenever a
// host asks for the unit's.
func (l *lio) resized(context.Context, *note) error { return nil }

// orphan removes a target of ours that has no note, and afterwards stores that
// nothing uses.
func (l *lio) orphan(ctx context.Context, name string) error {
	t := &tree{ctx: ctx}
	l.removeTarget(t, name)
	return t.err
}

// sweep removes stores of ours that no target uses, of volumes that keep does
// not want.
func (l *lio) sweep(ctx context.Context, keep func(volumeID string) bool) (gone []string, err error) {
	t := &tree{ctx: ctx}
	for _, s := range t.sub(filepath.Join(l.core(), lioHBA)) {
		id, ours := strings.CutPrefix(s, "osds."+l.owner+".")
		if !ours || keep(id) || l.storeUsed(t, id) {
			continue
		}
		l.removeStore(t, id)
		gone = append(gone, "the store of volume "+id)
	}
	return gone, t.err
}

func (l *lio) identity(_ context.Context, n *note) string {
	name, _ := Identity(ISCSI, n.VolumeID)
	return name
}

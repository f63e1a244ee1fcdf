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
//	core/.../osds.OWNER.VOLUME   one store for each volume, shared by its targets,
//	                             so that SCSI reservations are: see store.go
//	iscsi/IQN/tpgt_1             one target for each attachment
//
// The alias of a target's group says whose it is.
type lio struct {
	root  string // of configfs
	owner string
	mods  *kmods
}

const tagPrefix = "osds:"

// stores are those of exports that write through all caches, or that do not.
func (l *lio) stores(through bool) stores {
	if through {
		return stores{root: l.root, owner: l.owner, adapter: throughStores, through: true}
	}
	return stores{root: l.root, owner: l.owner, adapter: directStores}
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
	if n.WriteThrough {
		t.fail("stores that write through", l.mods.load(ctx, throughModule))
	}
	s := l.stores(n.WriteThrough)
	if t.ok() {
		s.make(t, store{volumeID: n.VolumeID, device: n.Device, serial: serialOf(n.VolumeID)})
	}
	if n.SaysCache {
		// A host that has not looked again since it was told of a cache may ask
		// that single writes pass it, and would be refused.
		t.put(filepath.Join(s.path(n.VolumeID), "attrib/emulate_write_cache"), "1")
	}
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
	t.link(s.path(n.VolumeID), filepath.Join(unit, "osds"))
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

// remove removes an export's target, sessions and all, and the volume's store
// if nobody else uses it. The volume's lock is held.
func (l *lio) remove(ctx context.Context, n *note) error {
	t := &tree{ctx: ctx}
	l.removeTarget(t, n.Name)
	faults.Point("export.lio.removed")
	for _, through := range []bool{false, true} {
		s := l.stores(through)
		if t.ok() && exists(s.path(n.VolumeID)) && !l.storeUsed(t, s, n.VolumeID) {
			s.remove(t, n.VolumeID)
		}
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
func (l *lio) storeUsed(t *tree, s stores, volumeID string) bool {
	end := filepath.Join(s.adapter, filepath.Base(s.path(volumeID)))
	for _, name := range t.sub(filepath.Join(l.root, "target/iscsi")) {
		if at, err := os.Readlink(filepath.Join(l.group(name), "lun/lun_1/osds")); err == nil && strings.HasSuffix(at, "/"+end) {
			return true
		}
	}
	return false
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
	for _, through := range []bool{false, true} {
		s := l.stores(through)
		gone = append(gone, s.sweep(t, keep, func(id string) bool { return l.storeUsed(t, s, id) })...)
	}
	return gone, t.err
}

func (l *lio) identity(_ context.Context, n *note) string {
	name, _ := Identity(ISCSI, n.VolumeID)
	return name
}

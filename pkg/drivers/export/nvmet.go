package export

import (
	"context"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/osds-io/osds/internal/faults"
	"github.com/osds-io/osds/pkg/model"
)

// nvmet is the kernel's NVMe target over TCP, set up through configfs:
//
//	subsystems/NQN     one for each attachment, with one namespace and one or
//	                   more hosts that are allowed
//	hosts/NQN          shared by subsystems
//	ports/N            shared by everybody on this host, by address
//
// The model of a subsystem says whose it is.
type nvmet struct {
	root  string // nvmet's in configfs
	owner string
	mods  *kmods
	all   machine
	front *fronts
}

// Ports that osds makes have numbers from portFirst on, so that they are known
// as its own.
const (
	portFirst = 28500
	portLast  = 28999
)

// Controller ids are given out by the kernel for the whole machine, from a range
// that each subsystem can be given. Small ranges of their own make it possible to
// ask whether a subsystem has a controller: see nvmetprobe.go.
const (
	controllerFirst = 1024
	controllerLast  = 65519
	// perPortal is how many controllers a host may have at one address: one,
	// and for a while the ones that it has lost.
	perPortal = 4
)

var nvmetModules = []string{"nvmet", "nvmet_tcp"}

func (v *nvmet) can(ctx context.Context) error { return v.mods.has(ctx, nvmetModules...) }

func (v *nvmet) ready(ctx context.Context) error { return v.mods.load(ctx, nvmetModules...) }

func (v *nvmet) subsys(name string) string { return filepath.Join(v.root, "subsystems", name) }

func (v *nvmet) make(ctx context.Context, n *note) error {
	if err := checkDevice(n.Device); err != nil {
		return err
	}
	t := &tree{ctx: ctx}
	device := n.Device
	if n.WriteThrough {
		if device = v.front.make(t, n); !t.ok() {
			return t.err
		}
	}
	s := v.subsys(n.Name)
	t.dir(s)
	t.put(filepath.Join(s, "attr_allow_any_host"), "0")
	// Older kernels have none of these; what they are for does not work then.
	t.try(filepath.Join(s, "attr_model"), tagPrefix+v.owner)
	t.try(filepath.Join(s, "attr_serial"), digest(n.AttachmentID)[:20])
	faults.Point("export.nvmet.subsystem")
	v.makeNamespace(t, n, device)
	for _, h := range n.Initiators {
		v.allow(t, s, h)
	}
	faults.Point("export.nvmet.allowed")
	if t.ok() {
		t.fail("controllers of "+n.Name, v.controllers(ctx, s, perPortal*len(n.Portals)))
	}
	ports, err := parsePortals("portals", n.Portals, nvmePort)
	t.fail("portals", err)
	for _, p := range ports {
		if t.ok() {
			t.fail("listen on "+p.String(), v.listen(ctx, p, n.Name))
		}
		faults.Point("export.nvmet.port")
	}
	return t.err
}

// makeNamespace makes an export's namespace of a device: the volume's, or the
// disk in front of it.
func (v *nvmet) makeNamespace(t *tree, n *note, device string) {
	ns := filepath.Join(v.subsys(n.Name), "namespaces/1")
	t.dir(ns)
	if attr(filepath.Join(ns, "enable")) == "1" {
		if have := attr(filepath.Join(ns, "device_path")); have == device || sameDevice(have, device) {
			return
		}
		// Another device: changed under the host, which sees the same names.
		t.put(filepath.Join(ns, "enable"), "0")
	}
	t.write(filepath.Join(ns, "device_path"), device)
	t.write(filepath.Join(ns, "device_uuid"), uuidOf(n.VolumeID))
	t.write(filepath.Join(ns, "device_nguid"), uuidOf(n.VolumeID))
	faults.Point("export.nvmet.namespace")
	t.write(filepath.Join(ns, "enable"), "1")
}

// allow admits a host.
func (v *nvmet) allow(t *tree, subsys, host string) {
	if !t.ok() || exists(filepath.Join(subsys, "allowed_hosts", host)) {
		return
	}
	unlock, err := v.all.lock(t.ctx)
	if err != nil {
		t.fail("host "+host, err)
		return
	}
	defer unlock()
	h := filepath.Join(v.root, "hosts", host)
	if !exists(h) {
		t.fail("host "+host, v.all.setMark("host "+host))
		t.dir(h)
	}
	t.link(h, filepath.Join(subsys, "allowed_hosts", host))
}

// controllers gives a subsystem a range of controller ids of its own.
func (v *nvmet) controllers(ctx context.Context, subsys string, n int) error {
	if !exists(filepath.Join(subsys, "attr_cntlid_min")) {
		return nil
	}
	unlock, err := v.all.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	if _, _, own := controllerRange(subsys); own {
		return nil
	}
	all, err := subdirs(filepath.Join(v.root, "subsystems"))
	if err != nil {
		return kernelError("list subsystems", err)
	}
	var taken [][2]int
	for _, s := range all {
		if lo, hi, own := controllerRange(v.subsys(s)); own {
			taken = append(taken, [2]int{lo, hi})
		}
	}
	lo, ok := freeRange(taken, n)
	if !ok {
		return nil // so many subsystems that some must share: the kernel's own range
	}
	t := &tree{ctx: ctx}
	t.write(filepath.Join(subsys, "attr_cntlid_min"), strconv.Itoa(lo))
	t.write(filepath.Join(subsys, "attr_cntlid_max"), strconv.Itoa(lo+n-1))
	return t.err
}

// controllerRange gives the range of a subsystem's controller ids, and whether
// it is a small one.
func controllerRange(subsys string) (lo, hi int, own bool) {
	lo, err1 := strconv.Atoi(attr(filepath.Join(subsys, "attr_cntlid_min")))
	hi, err2 := strconv.Atoi(attr(filepath.Join(subsys, "attr_cntlid_max")))
	return lo, hi, err1 == nil && err2 == nil && lo > 0 && hi >= lo && hi-lo < perPortal*MaxPortals
}

// freeRange finds the lowest n ids that no range has; it sorts taken.
func freeRange(taken [][2]int, n int) (lo int, ok bool) {
	slices.SortFunc(taken, func(a, b [2]int) int { return a[0] - b[0] })
	lo = controllerFirst
	for _, r := range taken {
		if r[0] > lo+n-1 {
			break
		}
		lo = max(lo, r[1]+1)
	}
	return lo, lo+n-1 <= controllerLast
}

// listen makes a subsystem reachable at an address, on the port that is there or
// a new one.
func (v *nvmet) listen(ctx context.Context, at netip.AddrPort, name string) error {
	unlock, err := v.all.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	t := &tree{ctx: ctx}
	ports := filepath.Join(v.root, "ports")
	used := map[string]bool{}
	port := ""
	for _, p := range t.sub(ports) {
		used[p] = true
		if portAddr(filepath.Join(ports, p)) == at {
			port = p
		}
	}
	if port == "" {
		for i := portFirst; i <= portLast && port == ""; i++ {
			if s := strconv.Itoa(i); !used[s] {
				port = s
			}
		}
		if port == "" {
			return model.Errorf(model.KindExhausted, "there are %d NVMe ports already", portLast-portFirst+1)
		}
		p := filepath.Join(ports, port)
		t.dir(p)
		faults.Point("export.nvmet.portmade")
		family := "ipv4"
		if at.Addr().Is6() {
			family = "ipv6"
		}
		for _, a := range [][2]string{{"addr_trtype", "tcp"}, {"addr_adrfam", family},
			{"addr_traddr", at.Addr().String()}, {"addr_trsvcid", strconv.Itoa(int(at.Port()))}} {
			t.write(filepath.Join(p, a[0]), a[1])
		}
	}
	t.link(v.subsys(name), filepath.Join(ports, port, "subsystems", name))
	if t.err != nil {
		v.dropPort(port)
	}
	return t.err
}

// dropPort removes a port of ours that nothing uses. The machine's lock is held.
func (v *nvmet) dropPort(port string) {
	if n, err := strconv.Atoi(port); err != nil || n < portFirst || n > portLast {
		return
	}
	p := filepath.Join(v.root, "ports", port)
	if es, err := os.ReadDir(filepath.Join(p, "subsystems")); err == nil && len(es) == 0 {
		_ = os.Remove(p)
	}
}

// portAddr gives the address of a TCP port; the zero value for any other.
func portAddr(p string) netip.AddrPort {
	if attr(filepath.Join(p, "addr_trtype")) != "tcp" {
		return netip.AddrPort{}
	}
	a, err := netip.ParseAddr(attr(filepath.Join(p, "addr_traddr")))
	if err != nil {
		return netip.AddrPort{}
	}
	n, err := strconv.ParseUint(attr(filepath.Join(p, "addr_trsvcid")), 10, 16)
	if err != nil {
		return netip.AddrPort{}
	}
	return netip.AddrPortFrom(a.Unmap(), uint16(n))
}

func (v *nvmet) remove(ctx context.Context, n *note) error {
	if err := v.orphan(ctx, n.Name); err != nil {
		return err
	}
	t := &tree{ctx: ctx}
	if d := v.front.path(t, n.VolumeID); d == "" || !v.uses(t, d) {
		v.front.remove(t, n.VolumeID)
	}
	return t.err
}

// uses says whether a subsystem has a namespace of a disk.
func (v *nvmet) uses(t *tree, disk string) bool {
	for _, s := range t.sub(filepath.Join(v.root, "subsystems")) {
		if at := attr(filepath.Join(v.subsys(s), "namespaces/1/device_path")); disk != "" && (at == disk || sameDevice(at, disk)) {
			return true
		}
	}
	return false
}

// orphan removes a subsystem: first from its ports, which ends its controllers.
func (v *nvmet) orphan(ctx context.Context, name string) error {
	t := &tree{ctx: ctx}
	ports := filepath.Join(v.root, "ports")
	var idle []string
	for _, p := range t.sub(ports) {
		if l := filepath.Join(ports, p, "subsystems", name); exists(l) {
			t.unlink(l)
			idle = append(idle, p)
		}
	}
	faults.Point("export.nvmet.unlinked")
	s := v.subsys(name)
	hosts, err := os.ReadDir(filepath.Join(s, "allowed_hosts"))
	if err != nil && !os.IsNotExist(err) {
		t.fail("list hosts of "+name, err)
	}
	t.links(filepath.Join(s, "allowed_hosts"))
	for _, ns := range t.sub(filepath.Join(s, "namespaces")) {
		t.put(filepath.Join(s, "namespaces", ns, "enable"), "0")
		t.rmdir(filepath.Join(s, "namespaces", ns))
	}
	faults.Point("export.nvmet.nonamespace")
	t.rmdir(s)
	if !t.ok() {
		return t.err
	}
	faults.Point("export.nvmet.nosubsystem")
	unlock, err := v.all.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	for _, p := range idle {
		v.dropPort(p)
	}
	for _, h := range hosts {
		v.dropHost(h.Name())
	}
	return nil
}

// dropHost removes a host's entry that a dock made and no subsystem uses. The
// machine's lock is held.
func (v *nvmet) dropHost(host string) {
	if v.all.marked("host "+host) && os.Remove(filepath.Join(v.root, "hosts", host)) == nil {
		v.all.unmark("host " + host)
	}
}

func (v *nvmet) live(context.Context) (map[string]liveTarget, error) {
	names, err := subdirs(filepath.Join(v.root, "subsystems"))
	if err != nil {
		return nil, kernelError("list subsystems", err)
	}
	linked := map[string]bool{}
	ports, err := subdirs(filepath.Join(v.root, "ports"))
	if err != nil {
		return nil, kernelError("list ports", err)
	}
	for _, p := range ports {
		es, _ := os.ReadDir(filepath.Join(v.root, "ports", p, "subsystems"))
		for _, e := range es {
			linked[e.Name()] = true
		}
	}
	out := map[string]liveTarget{}
	for _, name := range names {
		s := v.subsys(name)
		t := liveTarget{up: linked[name] && attr(filepath.Join(s, "namespaces/1/enable")) == "1"}
		if m := attr(filepath.Join(s, "attr_model")); strings.HasPrefix(m, tagPrefix) {
			t.owner = strings.TrimPrefix(m, tagPrefix)
		}
		out[name] = t
	}
	return out, nil
}

// resized makes the kernel look at the device again, and tell hosts.
func (v *nvmet) resized(ctx context.Context, n *note) error {
	t := &tree{ctx: ctx}
	if n.WriteThrough {
		v.front.grown(t, n.VolumeID)
	}
	t.write(filepath.Join(v.subsys(n.Name), "namespaces/1/revalidate_size"), "1")
	return t.err
}

// sweep removes disks, ports and hosts that an interrupted call left behind.
func (v *nvmet) sweep(ctx context.Context, keep func(volumeID string) bool) ([]string, error) {
	t := &tree{ctx: ctx}
	gone := v.front.sweep(t, keep, func(disk string) bool { return v.uses(t, disk) })
	if t.err != nil {
		return gone, t.err
	}
	unlock, err := v.all.lock(ctx)
	if err != nil {
		return gone, err
	}
	defer unlock()
	ports, err := subdirs(filepath.Join(v.root, "ports"))
	if err != nil {
		return gone, kernelError("list ports", err)
	}
	for _, p := range ports {
		v.dropPort(p)
	}
	hosts, err := subdirs(filepath.Join(v.root, "hosts"))
	if err != nil {
		return gone, kernelError("list hosts", err)
	}
	for _, h := range hosts {
		v.dropHost(h)
	}
	return gone, nil
}

func (v *nvmet) identity(_ context.Context, n *note) string {
	name, _ := Identity(NVMe, n.VolumeID)
	return name
}

package connector

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
	"syscall"

	"github.com/osds-io/osds/internal/run"
)

func itoa(n uint32) string { return strconv.FormatUint(uint64(n), 10) }

// mount is a mounted file system.
type mount struct{ dev, point, source string }

// mounts reads a mountinfo file of /proc.
func (h *host) mounts(of string) []mount {
	var out []mount
	for _, l := range strings.Split(h.value("proc", of, "mountinfo"), "\n") {
		f := strings.Fields(l)
		if len(f) < 7 {
			continue
		}
		m := mount{dev: f[2], point: unescape(f[4])}
		for i := 6; i < len(f); i++ {
			if f[i] == "-" && i+2 < len(f) {
				m.source = unescape(f[i+2])
				break
			}
		}
		out = append(out, m)
	}
	return out
}

// unescape undoes the octal escapes of /proc's tables.
func unescape(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// stack is what stands on a device: itself, its partitions, and what
// device-mapper, md and the like have made of them, the lowest first.
type stack struct {
	devs []stacked
}

type stacked struct {
	name, dev string
	// own says that nobody has asked for it: the device itself, a path of it,
	// its partitions. It goes when the device goes.
	own bool
}

// stackOf walks up from a device and the paths below it.
func (h *host) stackOf(d disk) stack {
	var s stack
	seen := map[string]bool{}
	var walk func(name string, own bool)
	walk = func(name string, own bool) {
		if seen[name] || len(seen) > 1024 {
			return
		}
		seen[name] = true
		s.devs = append(s.devs, stacked{name: name, dev: h.dev(name), own: own})
		for _, p := range h.names("sys/class/block", name) {
			if h.exists("sys/class/block", name, p, "partition") {
				walk(p, own)
			}
		}
		for _, up := range h.names("sys/class/block", name, "holders") {
			walk(up, own && (h.isPartitionMap(up) || up == d.name))
		}
	}
	if d.name != "" {
		seen[d.name] = false
		for _, m := range d.members {
			if m != d.name {
				walk(m, true)
			}
		}
		if !seen[d.name] {
			walk(d.name, true)
		}
	}
	return s
}

// isPartitionMap says whether a device is a partition of a multipath map, which
// udev makes a map of its own.
func (h *host) isPartitionMap(name string) bool {
	uuid := h.value("sys/class/block", name, "dm/uuid")
	return strings.HasPrefix(uuid, "part") && strings.Contains(uuid, "-mpath-")
}

// partitionMaps gives those of a device.
func (h *host) partitionMaps(d disk) []string {
	var out []string
	for _, x := range h.names("sys/class/block", d.name, "holders") {
		if h.isPartitionMap(x) {
			out = append(out, x)
		}
	}
	return out
}

func (s stack) has(dev string) (string, bool) {
	for _, x := range s.devs {
		if x.dev == dev && dev != "" {
			return x.name, true
		}
	}
	return "", false
}

// mountsOf gives the mounts of a stack, the last made first.
func (h *host) mountsOf(s stack, of string) []mount {
	var out []mount
	for _, m := range h.mounts(of) {
		_, ok := s.has(m.dev)
		if !ok && strings.HasPrefix(m.source, "/dev/") {
			// File systems of several devices have a number of their own.
			_, ok = s.has(h.rdev(m.source))
		}
		if ok {
			out = append(out, m)
		}
	}
	for i, j := 0, len(out)-1; i < j; i, j = i+1, j-1 {
		out[i], out[j] = out[j], out[i]
	}
	return out
}

// rdev is the number of the device that a node stands for.
func (h *host) rdev(node string) string {
	var st syscall.Stat_t
	if syscall.Stat(h.path(node), &st) != nil || st.Mode&syscall.S_IFMT != syscall.S_IFBLK {
		return ""
	}
	return devNumber(uint64(st.Rdev))
}

// holders says, for people, what holds a device; none if nothing is known to.
func (h *host) holders(d disk) []string {
	s := h.stackOf(d)
	return firstFew(append(h.keepers(s), h.openBy(s)...))
}

// keepers are the holders that stay until somebody ends them: mounts and what is
// built on the device.
func (h *host) keepers(s stack) []string {
	var out []string
	for _, m := range h.mountsOf(s, "self") {
		out = append(out, "mounted on "+m.point)
	}
	for _, x := range s.devs {
		if x.own {
			continue
		}
		name := x.name
		if n := h.value("sys/class/block", x.name, "dm/name"); n != "" {
			name = n
		}
		out = append(out, "used by "+name)
	}
	for _, l := range strings.Split(h.value("proc/swaps"), "\n") {
		if f := strings.Fields(l); len(f) > 1 && strings.HasPrefix(f[0], "/dev/") {
			if _, ok := s.has(h.rdev(unescape(f[0]))); ok {
				out = append(out, "swap is on it")
			}
		}
	}
	for _, b := range h.names("sys/block") {
		if f := h.value("sys/block", b, "loop/backing_file"); strings.HasPrefix(f, "/dev/") {
			if _, ok := s.has(h.rdev(f)); ok {
				out = append(out, "used by "+b)
			}
		}
	}
	return out
}

// firstFew bounds a list for people.
func firstFew(list []string) []string {
	const few = 8
	seen := map[string]bool{}
	var out []string
	for _, s := range list {
		if !seen[s] {
			seen[s] = true
			out = append(out, s)
		}
	}
	if len(out) > few {
		return append(out[:few], fmt.Sprintf("and %d more", len(out)-few))
	}
	return out
}

// openBy names the processes that have a device of the stack open. Who serves a
// network block device has it open as long as it is there, and is no user of it.
func (h *host) openBy(s stack) []string {
	self := strconv.Itoa(os.Getpid())
	var out []string
	serves := map[string]bool{}
	for _, x := range s.devs {
		if strings.HasPrefix(x.name, "nbd") {
			serves[h.value("sys/block", x.name, "pid")] = true
		}
	}
	for _, pid := range h.names("proc") {
		if _, err := strconv.Atoi(pid); err != nil || pid == self || serves[pid] {
			continue
		}
		for _, fd := range h.names("proc", pid, "fd") {
			f := h.path("proc", pid, "fd", fd)
			if to, err := os.Readlink(f); err != nil || !strings.HasPrefix(to, "/dev/") {
				continue
			}
			var st syscall.Stat_t
			if syscall.Stat(f, &st) != nil || st.Mode&syscall.S_IFMT != syscall.S_IFBLK {
				continue
			}
			if _, ok := s.has(devNumber(uint64(st.Rdev))); ok {
				if comm := h.value("proc", pid, "comm"); !passing(comm) {
					out = append(out, "open in "+comm+" ("+pid+")")
				}
				break
			}
		}
	}
	return out
}

// passing says whether a process opens devices for a moment only, by itself.
func passing(comm string) bool {
	return strings.Contains(comm, "udev") || strings.HasPrefix(comm, "multipath") || comm == "blkid" || comm == "kpartx"
}

// elsewhere names mounts of other mount namespaces: containers.
func (h *host) elsewhere(d disk) []string {
	s := h.stackOf(d)
	mine, _ := os.Readlink(h.path("proc/self/ns/mnt"))
	seen := map[string]bool{mine: true}
	var out []string
	for _, pid := range h.names("proc") {
		if _, err := strconv.Atoi(pid); err != nil {
			continue
		}
		ns, err := os.Readlink(h.path("proc", pid, "ns/mnt"))
		if err != nil || seen[ns] {
			continue
		}
		seen[ns] = true
		for _, m := range h.mountsOf(s, pid) {
			out = append(out, fmt.Sprintf("mounted on %s in the mount namespace of %s (%s)", m.point, h.value("proc", pid, "comm"), pid))
		}
	}
	return firstFew(out)
}

// staleMounts gives the mounts of a device that is gone from the kernel's tables
// but for those mounts.
func (h *host) staleMounts(dev string) []mount {
	if dev == "" || h.nameOf(dev) != "" {
		return nil
	}
	return h.mountsOf(stack{devs: []stacked{{dev: dev}}}, "self")
}

// upper gives the device-mapper devices above a device, the topmost first.
func (h *host) upper(d disk) []string {
	var out []string
	devs := h.stackOf(d).devs
	sort.SliceStable(devs, func(i, j int) bool { return h.depth(devs[i].name, 0) > h.depth(devs[j].name, 0) })
	for _, x := range devs {
		if n := h.value("sys/class/block", x.name, "dm/name"); n != "" && x.name != d.name {
			out = append(out, n)
		}
	}
	return out
}

// depth is how many layers a device has below it.
func (h *host) depth(name string, guard int) int {
	most := 0
	if guard > 16 {
		return 0
	}
	for _, s := range h.names("sys/class/block", name, "slaves") {
		if n := 1 + h.depth(s, guard+1); n > most {
			most = n
		}
	}
	return most
}

// removeMap removes a device-mapper device by force: its I/O fails from then on,
// and it goes at once or when the last user lets go.
func (h *host) removeMap(ctx context.Context, alias string) error {
	_, err := h.run.Run(ctx, run.Cmd{Name: "dmsetup", Args: []string{"remove", "--force", "--", alias}})
	return err
}

// installed says whether a program is there.
func (h *host) installed(program string) bool {
	for _, d := range []string{"usr/sbin", "sbin", "usr/bin", "bin", "usr/local/sbin", "usr/local/bin"} {
		if st, err := os.Stat(filepath.Join(h.path(d), program)); err == nil && st.Mode().IsRegular() {
			return true
		}
	}
	return false
}

package connector

import (
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strings"

	"github.com/osds-io/osds/pkg/model"
)

// lost is what is there of an attachment, whether or not there is a note of it.
// Processes, mounts and files have its id in their paths.
type lost struct {
	way   string // Config.RBD's name of how it is a device
	image image  // as far as it is known
	by    []string
}

// lost finds what processes serve, what is mounted and what files there are below
// the directory of ours, by attachment id. What the kernel's rbd maps has no such
// path and is not among it.
func (r *rbd) lost() map[string]*lost {
	out := map[string]*lost{}
	get := func(path, by string) *lost {
		rest, ok := strings.CutPrefix(path, r.client.dir+"/")
		id, _, _ := strings.Cut(rest, "/")
		if !ok || !model.ValidID(id) {
			return nil
		}
		x := out[id]
		if x == nil {
			x = &lost{way: RBDFuse}
			out[id] = x
		}
		if by != "" && !slices.Contains(x.by, by) {
			x.by = append(x.by, by)
		}
		return x
	}
	// What was there only in part has left its configuration.
	if list, err := os.ReadDir(r.client.dir); err == nil {
		for _, e := range list {
			if x := get(filepath.Join(r.client.dir, e.Name()), ""); x != nil {
				x.read(filepath.Join(r.client.dir, e.Name(), "ceph.conf"))
			}
		}
	}
	for _, p := range r.h.names("proc") {
		comm := r.h.value("proc", p, "comm")
		if comm != fuseProgram && comm != nbdProgram {
			continue
		}
		args := strings.Split(r.h.value("proc", p, "cmdline"), "\x00")
		if i := slices.Index(args, "-c"); i >= 0 && i+1 < len(args) {
			if x := get(args[i+1], comm+" "+p); x != nil {
				x.served(comm, args)
			}
		}
	}
	for _, m := range r.h.mounts("self") {
		if filepath.Base(m.point) == "mnt" {
			get(m.point, "mount")
		}
	}
	for _, b := range r.h.names("sys/block") {
		file := strings.TrimSuffix(r.h.value("sys/block", b, "loop/backing_file"), " (deleted)")
		if x := get(file, b); file != "" && x != nil {
			x.image.Name = filepath.Base(file)
		}
	}
	return out
}

// served reads what a process was told.
func (x *lost) served(comm string, args []string) {
	after := func(flag string) string {
		if i := slices.Index(args, flag); i >= 0 && i+1 < len(args) {
			return args[i+1]
		}
		return ""
	}
	x.image.User = strings.TrimPrefix(after("-n"), "client.")
	if comm == fuseProgram {
		x.way, x.image.Pool, x.image.Name, x.image.Namespace = RBDFuse, after("-p"), after("-r"), after("-s")
		return
	}
	x.way = RBDNBD
	x.image.spec(args[len(args)-1])
}

// spec sets the image by its name with its pool.
func (i *image) spec(s string) {
	parts := strings.Split(s, "/")
	if len(parts) < 2 || len(parts) > 3 || slices.ContainsFunc(parts, func(p string) bool { return !rbdName.MatchString(p) }) {
		return
	}
	i.Pool, i.Name, i.Namespace = parts[0], parts[len(parts)-1], ""
	if len(parts) == 3 {
		i.Namespace = parts[1]
	}
}

// The lines of a configuration file of ours that say what it is for. They are
// comments to Ceph.
const (
	confImage = "# image = "
	confWay   = "# way = "
)

// read reads a configuration that configure has written.
func (x *lost) read(file string) {
	b, err := os.ReadFile(file)
	if err != nil {
		return
	}
	for _, l := range strings.Split(string(b), "\n") {
		if s, ok := strings.CutPrefix(l, confImage); ok {
			x.image.spec(s)
		}
		if s, ok := strings.CutPrefix(l, confWay); ok && (s == RBDFuse || s == RBDNBD) {
			x.way = s
		}
		if s, ok := strings.CutPrefix(l, "mon host = "); ok {
			for _, m := range strings.Split(s, ",") {
				if a, err := netip.ParseAddrPort(m); err == nil {
					x.image.Monitors = append(x.image.Monitors, a)
				}
			}
		}
	}
}

// adopt completes a note of an attachment by what is there of it; false if there
// is nothing. What the kernel's rbd maps is known by the image alone: it is taken
// if the connection says that it is the attachment's, and no note is of it.
func (r *rbd) adopt(n *note, c model.Connection, noted func(image) bool) bool {
	t, err := parseConnection(c)
	told := err == nil && t.Type == typeRBD
	if x := r.lost()[n.AttachmentID]; x != nil {
		n.Target.Type, n.RBD, n.Target.RBD = typeRBD, x.way, x.image
		if told {
			n.Target.RBD, n.Target.Identity = t.RBD, t.Identity
		}
		if b := r.h.loopOn(filepath.Join(r.client.mount(n), x.image.Name), ""); b != "" {
			n.Dev = r.h.dev(b)
		}
		return true
	}
	if !told || noted(t.RBD) {
		return false
	}
	k := *n
	k.Target, k.RBD = t, RBDKernel
	d, _, err := r.way(&k).find(&k)
	if err != nil || d.name == "" {
		return false
	}
	*n = k
	n.Dev = r.h.dev(d.name)
	return true
}

// strays are what no note knows.
func (r *rbd) strays(noted func(id string) bool) []Device {
	var out []Device
	for id, x := range r.lost() {
		if noted(id) {
			continue
		}
		what := strings.Join(x.by, ", ")
		if what == "" {
			what = "files only"
		}
		name := "an RBD image"
		if x.image.Name != "" {
			name = "RBD image " + strings.TrimPrefix(x.image.String(), "/")
		}
		out = append(out, Device{AttachmentID: id, Detail: name + " (" + what + ") without a note of it"})
	}
	sort.Slice(out, func(i, j int) bool { return out[i].AttachmentID < out[j].AttachmentID })
	return out
}

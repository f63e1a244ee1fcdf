package connector

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/osds-io/osds/internal/run"
	"github.com/osds-io/osds/pkg/model"
)

// host is how this machine is seen and changed: files of the kernel and of
// open-iscsi below a root, and commands. Unit tests of what reads them put
// recorded files below another root.
type host struct {
	root string
	run  run.Runner
	// addrs, if not nil, gives the addresses of the interfaces in unit tests.
	addrs func() ([]net.Addr, error)
}

func (h *host) path(elem ...string) string {
	return filepath.Join(append([]string{"/", h.root}, elem...)...)
}

// value reads a file of one value; empty if it cannot be read, which happens
// when what it belongs to has just gone.
func (h *host) value(elem ...string) string {
	b, err := os.ReadFile(h.path(elem...))
	if err != nil {
		return ""
	}
	return strings.TrimRight(strings.TrimSpace(string(b)), "\x00")
}

// names lists a directory; none if it is not there.
func (h *host) names(elem ...string) []string {
	list, err := os.ReadDir(h.path(elem...))
	if err != nil {
		return nil
	}
	out := make([]string, 0, len(list))
	for _, e := range list {
		out = append(out, e.Name())
	}
	return out
}

func (h *host) exists(elem ...string) bool {
	_, err := os.Stat(h.path(elem...))
	return err == nil
}

// write gives a value to a file of the kernel's.
func (h *host) write(value string, elem ...string) error {
	f, err := os.OpenFile(h.path(elem...), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(value)
	return errors.Join(err, f.Close())
}

// size is a block device's size; 0 if it is not there.
func (h *host) size(name string) model.Bytes {
	n, err := strconv.ParseInt(h.value("sys/block", name, "size"), 10, 64)
	if err != nil || n < 0 || n > 1<<53 {
		return 0
	}
	return model.Bytes(n) * 512
}

// dev is a block device's number, major:minor.
func (h *host) dev(name string) string { return h.value("sys/class/block", name, "dev") }

// devPath is the device's node.
func (h *host) devPath(name string) string {
	if m := h.value("sys/block", name, "dm/name"); m != "" && !strings.ContainsAny(m, "/\x00") {
		return "/dev/mapper/" + m
	}
	return "/dev/" + strings.ReplaceAll(name, "!", "/")
}

// nameOf is the kernel's name of the block device with a number; empty if there
// is none.
func (h *host) nameOf(dev string) string {
	p, err := os.Readlink(h.path("sys/dev/block", dev))
	if err != nil {
		return ""
	}
	return filepath.Base(p)
}

// listens says whether somebody listens on an abstract socket. It only looks: to
// connect would start what systemd has behind it.
func (h *host) listens(socket string) bool {
	for _, l := range strings.Split(h.value("proc/net/unix"), "\n") {
		f := strings.Fields(l)
		if len(f) == 8 && f[3] == "00010000" && strings.TrimRight(f[7], "@") == socket {
			return true
		}
	}
	return false
}

// module loads a kernel module if what shows that it is there is missing.
func (h *host) module(ctx context.Context, name string, shows ...string) error {
	if h.exists(shows...) {
		return nil
	}
	_, err := h.run.Run(ctx, run.Cmd{Name: "modprobe", Args: []string{"--", name}})
	if h.exists(shows...) {
		return nil
	}
	if err == nil {
		err = fs.ErrNotExist
	}
	return model.Errorf(model.KindUnsupported, "the kernel module %s cannot be loaded: %w", name, err)
}

// maxAddresses bounds how many addresses of this host are told.
const maxAddresses = 16

// addresses are those of this host's interfaces by which others can know it, in
// order; the one for itself if there is none.
func (h *host) addresses() []string {
	list, err := h.interfaces()
	if err != nil {
		return nil
	}
	var out, own []string
	for _, a := range list {
		n, ok := a.(*net.IPNet)
		if !ok {
			continue
		}
		switch {
		case n.IP.IsGlobalUnicast():
			out = append(out, n.IP.String())
		case n.IP.IsLoopback():
			own = append(own, n.IP.String())
		}
	}
	if len(out) == 0 {
		out = own
	}
	slices.Sort(out)
	out = slices.Compact(out)
	return out[:min(len(out), maxAddresses)]
}

func (h *host) interfaces() ([]net.Addr, error) {
	if h.addrs != nil {
		return h.addrs()
	}
	return net.InterfaceAddrs()
}

// disk is a block device that belongs to an attachment.
type disk struct {
	// name is the kernel's name of the device to use.
	name string
	// members are the devices below a multipath map; for any other device
	// itself alone.
	members  []string
	identity string
	size     model.Bytes
	detail   string
	// joining says that it can be used, and that a path which is up is not in it
	// yet.
	joining bool
}

// isMap says whether the device is a multipath map over iSCSI.
func (d disk) isMap() bool { return strings.HasPrefix(d.name, "dm-") }

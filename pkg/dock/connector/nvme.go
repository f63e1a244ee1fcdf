package connector

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/google/uuid"

	"github.com/osds-io/osds/internal/faults"
	"github.com/osds-io/osds/pkg/model"
)

// nvme attaches over NVMe/TCP by the kernel alone: a connection is one write to
// /dev/nvme-fabrics, which lasts until the controller is there or has failed.
// Several controllers of a subsystem are one device by the kernel's own
// multipathing.
type nvme struct {
	h    *host
	conf Config
	// block runs what may be stuck in the kernel for longer than its caller
	// waits.
	block func(ctx context.Context, what string, f func() error) error

	dialer dialer
}

const (
	fabricsDev = "dev/nvme-fabrics"
	nvmeClass  = "sys/class/nvme"
	hostNQN    = "etc/nvme/hostnqn"
	hostID     = "etc/nvme/hostid"
)

func (v *nvme) usable() error {
	if !v.h.exists(fabricsDev) || !v.h.exists("sys/module/nvme_tcp") {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		if err := v.h.module(ctx, "nvme-tcp", "sys/module/nvme_tcp"); err != nil {
			return err
		}
		if err := v.h.module(ctx, "nvme-fabrics", fabricsDev); err != nil {
			return err
		}
	}
	if err := v.name(); err != nil {
		return model.Errorf(model.KindUnsupported, "this host has no NVMe name, and none can be written to /%s: %w", hostNQN, err)
	}
	if v.nqn() == "" {
		return model.Errorf(model.KindUnsupported, "/%s has no NQN; nvme gen-hostnqn makes one", hostNQN)
	}
	return nil
}

func (v *nvme) nqn() string {
	if s := v.h.value(hostNQN); nvmeName.MatchString(s) {
		return s
	}
	return ""
}

func (v *nvme) initiators() []model.Initiator { return initiator(v.nqn(), typeNVMe) }

// hostID is the identifier that goes with the NQN: a target may insist on one
// for each NQN.
func (v *nvme) hostID() string {
	if s := v.h.value(hostID); model.ValidUUID(s) {
		return strings.ToLower(s)
	}
	if _, s, ok := strings.Cut(v.nqn(), ":uuid:"); ok && model.ValidUUID(s) {
		return strings.ToLower(s)
	}
	return ""
}

// name gives this host an NQN if it has none, in the form that nvme-cli's package
// writes: from the machine's UUID if there is one.
func (v *nvme) name() error {
	if v.h.exists(hostNQN) {
		return nil
	}
	id, err := uuid.Parse(v.h.value("sys/class/dmi/id/product_uuid"))
	if err != nil || id == uuid.Nil || id == uuid.Max {
		if id, err = uuid.NewRandom(); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(v.h.path(filepath.Dir(hostNQN)), 0o755); err != nil {
		return err
	}
	return writeNew(v.h.path(hostNQN), "nqn.2014-08.org.nvmexpress:uuid:"+id.String()+"\n")
}

// writeNew makes a file with all its content at once, unless there is one.
func writeNew(file, content string) error {
	f, err := os.CreateTemp(filepath.Dir(file), ".hostnqn.")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, werr := f.WriteString(content)
	if err := errors.Join(werr, f.Chmod(0o644), f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Link(f.Name(), file); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	return nil
}

// controller is a connection to a subsystem, as the kernel has it.
type controller struct {
	name   string
	portal portal
	state  string
	host   string
}

// controllers lists the NVMe/TCP controllers of this host.
func (h *host) controllers() []controller {
	var out []controller
	for _, name := range h.names(nvmeClass) {
		if h.value(nvmeClass, name, "transport") != "tcp" {
			continue
		}
		c := controller{name: name, state: h.value(nvmeClass, name, "state"), host: h.value(nvmeClass, name, "hostnqn")}
		c.portal.Name = h.value(nvmeClass, name, "subsysnqn")
		var ip, port string
		for _, kv := range strings.Split(h.value(nvmeClass, name, "address"), ",") {
			k, val, _ := strings.Cut(strings.TrimSpace(kv), "=")
			switch k {
			case "traddr":
				ip = val
			case "trsvcid":
				port = val
			}
		}
		a, err := netip.ParseAddr(ip)
		n, perr := strconv.ParseUint(port, 10, 16)
		if err != nil || perr != nil || c.portal.Name == "" {
			continue
		}
		c.portal.Addr = netip.AddrPortFrom(a.Unmap(), uint16(n))
		out = append(out, c)
	}
	return out
}

func (h *host) controllersOf(t *target) map[portal]controller {
	out := map[portal]controller{}
	for _, c := range h.controllers() {
		for _, p := range t.Portals {
			if c.portal == p && !strings.HasPrefix(c.state, "deleting") {
				out[p] = c
			}
		}
	}
	return out
}

// native says whether the kernel makes one device of several controllers.
func (v *nvme) native() bool { return v.h.value("sys/module/nvme_core/parameters/multipath") == "Y" }

// connect makes the controllers that are missing.
func (v *nvme) connect(ctx context.Context, n *note, fresh bool) (warn string, err error) {
	t := &n.Target
	if err := v.usable(); err != nil {
		return "", err
	}
	if t.HostNQN != "" && t.HostNQN != v.nqn() {
		return "", model.Errorf(model.KindDenied, "the export admits %s, but this host is %s", t.HostNQN, v.nqn())
	}
	single := v.conf.Multipath == MultipathSingle
	if len(t.Portals) > 1 && !single && !v.native() {
		return "", model.Errorf(model.KindUnsupported, "the connection has %d portals, but this kernel's NVMe multipathing is off: "+
			"start it with nvme_core.multipath=Y, or set connector.multipath to single to use one portal only", len(t.Portals))
	}
	have := v.h.controllersOf(t)
	if single && len(have) > 0 {
		return "", nil
	}
	var missing []portal
	for _, p := range t.Portals {
		if _, ok := have[p]; !ok {
			missing = append(missing, p)
		}
	}
	if single {
		var errs []error
		for _, p := range missing {
			if err := v.dial(ctx, p); err == nil {
				return fmt.Sprintf("one of %d portals is used, because connector.multipath is single", len(t.Portals)), nil
			} else {
				errs = append(errs, err)
			}
		}
		return "", loginError(errs)
	}
	errs := v.dialer.all(ctx, missing, len(have) > 0, v.dial)
	if len(have) == 0 && len(errs) == len(missing) {
		return "", loginError(errs)
	}
	if len(errs) > 0 {
		warn = fmt.Sprintf("%d of %d portals cannot be reached: %v", len(errs), len(t.Portals), errors.Join(errs...))
	}
	return warn, nil
}

// dial connects to one portal.
func (v *nvme) dial(ctx context.Context, p portal) error {
	there := func() bool { return len(v.h.controllersOf(&target{Portals: []portal{p}})) > 0 }
	return v.dialer.dial(ctx, p, there, func() error { return v.fabrics(p) })
}

// fabrics has the kernel connect. It returns when the controller is live, or has
// failed and is gone.
func (v *nvme) fabrics(p portal) error {
	opts := []string{
		"nqn=" + p.Name, "transport=tcp",
		"traddr=" + p.Addr.Addr().String(), "trsvcid=" + strconv.Itoa(int(p.Addr.Port())),
		"hostnqn=" + v.nqn(),
		"ctrl_loss_tmo=" + strconv.Itoa(seconds(v.conf.CtrlLossTimeout)),
		"reconnect_delay=" + strconv.Itoa(seconds(v.conf.ReconnectDelay)),
		"keep_alive_tmo=" + strconv.Itoa(seconds(v.conf.KeepAlive)),
	}
	if id := v.hostID(); id != "" {
		opts = append(opts, "hostid="+id)
	}
	f, err := os.OpenFile(v.h.path(fabricsDev), os.O_RDWR, 0)
	if err != nil {
		return model.Errorf(model.KindUnsupported, "/%s: %w", fabricsDev, err)
	}
	defer f.Close()
	said := v.listen()
	defer said.close()
	if _, err := f.WriteString(strings.Join(opts, ",")); err != nil {
		return v.refusal(p, err, said.lines())
	}
	faults.Point("connector.attach.login")
	return nil
}

// refusal gives a failed connection its kind. The kernel answers EIO whatever
// the target's reason was, and says it in its log alone.
func (v *nvme) refusal(p portal, err error, log []string) error {
	if errors.Is(err, syscall.EALREADY) {
		return nil
	}
	for _, l := range log {
		if !strings.Contains(l, p.Name) {
			continue
		}
		if strings.Contains(l, "is not allowed") && strings.Contains(l, v.nqn()) {
			return model.Errorf(model.KindDenied, "%s does not admit this host, %s", p, v.nqn())
		}
		if strings.Contains(l, "Invalid Data Parameter") {
			return model.Errorf(model.KindUnavailable, "%s: there is no such subsystem", p)
		}
	}
	if errors.Is(err, syscall.EINVAL) {
		return model.Errorf(model.KindInternal, "%s: the kernel does not take the connection's options: %w", p, err)
	}
	if errors.Is(err, syscall.EACCES) || errors.Is(err, syscall.EPERM) {
		return model.Errorf(model.KindDenied, "%s: %w", p, err)
	}
	return model.Errorf(model.KindUnavailable, "%s cannot be reached: %w", p, err)
}

// kernelLog is the kernel's log from a moment on.
type kernelLog struct{ f *os.File }

func (v *nvme) listen() kernelLog {
	fd, err := syscall.Open(v.h.path("dev/kmsg"), syscall.O_RDONLY|syscall.O_NONBLOCK|syscall.O_CLOEXEC, 0)
	if err != nil {
		return kernelLog{}
	}
	_, _ = syscall.Seek(fd, 0, io.SeekEnd)
	return kernelLog{f: os.NewFile(uintptr(fd), "kmsg")}
}

// lines gives what the kernel has said; none if it cannot be read.
func (k kernelLog) lines() []string {
	if k.f == nil {
		return nil
	}
	rc, err := k.f.SyscallConn()
	if err != nil {
		return nil
	}
	var out []string
	_ = rc.Read(func(fd uintptr) bool {
		b := make([]byte, 8192)
		for range 1000 {
			n, err := syscall.Read(int(fd), b) // one record
			if errors.Is(err, syscall.EPIPE) {
				continue // records were lost
			}
			if err != nil || n <= 0 {
				break
			}
			_, msg, _ := bytes.Cut(b[:n], []byte(";"))
			out = append(out, string(msg))
		}
		return true
	})
	return out
}

func (k kernelLog) close() {
	if k.f != nil {
		_ = k.f.Close()
	}
}

// find gives the device as it is now.
func (v *nvme) find(n *note) (d disk, why string, err error) {
	t := &n.Target
	have := v.h.controllersOf(t)
	up := 0
	for _, c := range have {
		if c.state == "live" {
			up++
		}
	}
	var seen []string
	names := 0
	for _, b := range v.h.names("sys/block") {
		if !strings.HasPrefix(b, "nvme") || v.h.value("sys/block", b, "hidden") == "1" ||
			v.h.value("sys/block", b, "device/subsysnqn") != t.name() {
			continue
		}
		ids := v.h.nvmeNames(b)
		if len(ids) == 0 {
			continue
		}
		names++
		seen = append(seen, ids[0])
		if t.Identity != "" && !contains(ids, t.Identity) {
			continue
		}
		if d.name != "" {
			if t.Identity == "" {
				return disk{}, "", model.Errorf(model.KindInvalid, "data.identity is missing, and %s has several namespaces", t.name())
			}
			continue // another path of the same, where the kernel does not join them
		}
		d = disk{name: b, members: []string{b}, identity: ids[0], size: v.h.size(b)}
		if t.Identity != "" {
			d.identity = t.Identity
		}
	}
	if d.name == "" {
		if names > 0 {
			return d, "", model.Errorf(model.KindConflict, "%s shows %s, not %s: it is another volume", t.name(), strings.Join(seen, ", "), t.Identity)
		}
		return d, fmt.Sprintf("%d of %d controllers are live, but no namespace is there", up, len(t.Portals)), nil
	}
	t.Identity = d.identity
	d.detail = fmt.Sprintf("nvmeof, %d of %d controllers live", up, len(t.Portals))
	if up == 0 {
		return d, "no controller is live", nil
	}
	return d, "", nil
}

// rescan has the kernel look at the namespaces again. It does so by itself when
// the target says that something changed; this is for a message that was lost.
func (v *nvme) rescan(ctx context.Context, n *note, _ disk) error {
	for p, c := range v.h.controllersOf(&n.Target) {
		if c.state != "live" {
			continue
		}
		err := v.block(ctx, "rescan of "+p.String(), func() error {
			return v.h.write("1", nvmeClass, c.name, "rescan_controller")
		})
		if err != nil {
			return model.Errorf(model.KindUnavailable, "rescan of %s: %w", p, err)
		}
	}
	return nil
}

// disconnect deletes the controllers.
func (v *nvme) disconnect(ctx context.Context, t *target) error {
	if err := v.dialer.settle(ctx, t); err != nil {
		return err
	}
	var errs []error
	for p, c := range v.h.controllersOf(t) {
		err := v.block(ctx, "end of "+p.String(), func() error {
			return v.h.write("1", nvmeClass, c.name, "delete_controller")
		})
		if err != nil && v.h.exists(nvmeClass, c.name) && v.h.value(nvmeClass, c.name, "subsysnqn") == t.name() {
			errs = append(errs, model.Errorf(model.KindOf(err), "end of %s: %w", p, err))
		}
	}
	return join(errs)
}

// teardown deletes the controllers; the device goes with the last.
func (v *nvme) teardown(ctx context.Context, n *note, _ disk, shared, _ bool) error {
	if shared {
		return nil // the other attachments' namespaces come by the same controllers
	}
	return v.disconnect(ctx, &n.Target)
}

func (v *nvme) forget(context.Context, *note) error { return nil }

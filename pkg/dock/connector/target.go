package connector

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"path"
	"regexp"
	"strconv"
	"strings"

	"github.com/osds-io/osds/pkg/model"
)

// The types of connections that are understood (driverVolumeType).
const (
	typeISCSI = "iscsi"
	typeNVMe  = "nvmeof"
	typeLocal = "local"
	typeRBD   = "rbd"
)

// Bounds and ports.
const (
	maxPortals = 16
	maxLUN     = 16383
	iscsiPort  = 3260
	nvmePort   = 4420
)

// Everything of a connection reaches commands, files and the kernel: only what
// the standards allow passes.
var (
	iscsiName = regexp.MustCompile(`^(iqn\.[a-zA-Z0-9][a-zA-Z0-9.:_-]{0,218}|eui\.[0-9A-Fa-f]{16}|naa\.([0-9A-Fa-f]{16}|[0-9A-Fa-f]{32}))$`)
	nvmeName  = regexp.MustCompile(`^nqn\.[a-zA-Z0-9][a-zA-Z0-9.:_-]{0,218}$`)
	chapText  = regexp.MustCompile(`^[!-~]{1,255}$`)
	hexName   = regexp.MustCompile(`^[0-9a-f]{16,64}$`)
	devName   = regexp.MustCompile(`^/dev/[A-Za-z0-9][A-Za-z0-9._/+:-]{0,250}$`)
)

// target is what a connection names, checked.
type target struct {
	Type string `json:"type"`
	// Portals are the ways to it, in the order given.
	Portals []portal `json:"portals,omitempty"`
	LUN     int      `json:"lun,omitempty"`
	// Identity is what the device must show: hex digits, lower case. Empty if
	// the connection says nothing; it is then what was seen first.
	Identity string `json:"identity,omitempty"`
	HostNQN  string `json:"hostNqn,omitempty"`
	// Device is the path of a local device.
	Device string `json:"device,omitempty"`
	// RBD is an image of a Ceph cluster.
	RBD image `json:"rbd,omitzero"`

	// Auth is in memory only, and only while its attach lasts.
	Auth chap `json:"-"`
}

// portal is one way to a target: its name and where it listens.
type portal struct {
	Name string         `json:"name"`
	Addr netip.AddrPort `json:"addr"`
}

func (p portal) String() string { return p.Name + " at " + p.Addr.String() }

// chap is the authentication over iSCSI. It is never in a note: open-iscsi's own
// records have it.
type chap struct {
	User, UserIn         string
	Password, PasswordIn model.Secret
}

func (c chap) secrets() []model.Secret {
	var out []model.Secret
	for _, s := range []model.Secret{c.Password, c.PasswordIn} {
		if s != "" {
			out = append(out, s)
		}
	}
	return out
}

// parseConnection checks a connection.
func parseConnection(c model.Connection) (target, error) {
	d := data{c.Data}
	var t target
	var err error
	switch strings.ToLower(c.Type) {
	case typeISCSI:
		t, err = d.iscsi()
	case typeNVMe:
		t, err = d.nvme()
	case typeLocal:
		t, err = d.local()
	case typeRBD:
		t, err = d.rbd()
	case "":
		return t, model.Invalid("driverVolumeType", "driverVolumeType is missing: the connection names no access protocol")
	default:
		return t, model.Errorf(model.KindUnsupported, "driverVolumeType %q cannot be attached by this host, only iscsi, nvmeof, rbd and local", clip(c.Type))
	}
	if err != nil {
		return target{}, err
	}
	if t.Identity, err = d.identity(); err != nil {
		return target{}, err
	}
	return t, nil
}

// data reads a connection's values, which may have come through JSON.
type data struct{ m map[string]any }

func bad(key, format string, args ...any) error {
	return model.Invalid("data."+key, "data.%s %s", key, fmt.Sprintf(format, args...))
}

// text gives a string; empty if there is none. Secrets are strings too.
func (d data) text(key string) (string, error) {
	switch v := d.m[key].(type) {
	case nil:
		return "", nil
	case string:
		return v, nil
	case model.Secret:
		return v.Reveal(), nil
	}
	return "", bad(key, "must be a string")
}

// list gives strings, of which one may stand alone.
func (d data) list(key string) ([]string, error) {
	var out []string
	switch v := d.m[key].(type) {
	case nil:
		return nil, nil
	case string:
		out = []string{v}
	case []string:
		out = v
	case []any:
		for _, x := range v {
			s, ok := x.(string)
			if !ok {
				return nil, bad(key, "must be a list of strings")
			}
			out = append(out, s)
		}
	default:
		return nil, bad(key, "must be a list of strings")
	}
	if len(out) > maxPortals {
		return nil, bad(key, "has %d entries, at most %d are understood", len(out), maxPortals)
	}
	return out, nil
}

// number gives a whole number, or def if there is none.
func (d data) number(key string, def int) (int, error) {
	var n int64
	var err error
	switch v := d.m[key].(type) {
	case nil:
		return def, nil
	case int:
		n = int64(v)
	case int32:
		n = int64(v)
	case int64:
		n = v
	case float64:
		if n = int64(v); float64(n) != v {
			return 0, bad(key, "must be a whole number")
		}
	case json.Number:
		n, err = v.Int64()
	case string:
		n, err = strconv.ParseInt(v, 10, 32)
	default:
		return 0, bad(key, "must be a number")
	}
	if err != nil || n < -1<<31 || n > 1<<31-1 {
		return 0, bad(key, "must be a number")
	}
	return int(n), nil
}

func (d data) iscsi() (target, error) {
	t := target{Type: typeISCSI}
	names, err := d.list("targetIQN")
	if err != nil {
		return t, err
	}
	addrs, err := d.list("targetPortal")
	if err != nil {
		return t, err
	}
	if len(names) == 0 {
		return t, bad("targetIQN", "is missing")
	}
	if len(addrs) == 0 {
		return t, bad("targetPortal", "is missing")
	}
	if len(names) != 1 && len(names) != len(addrs) {
		return t, bad("targetIQN", "has %d entries for %d of targetPortal; give one, or one for each", len(names), len(addrs))
	}
	for i, a := range addrs {
		name := names[0]
		if len(names) > 1 {
			name = names[i]
		}
		if !iscsiName.MatchString(name) {
			return t, bad("targetIQN", "%q is not an iSCSI name, such as iqn.2017-10.io.opensds:id", clip(name))
		}
		ap, err := parseAddr("targetPortal", a, iscsiPort)
		if err != nil {
			return t, err
		}
		t.add(portal{Name: name, Addr: ap})
	}
	if t.LUN, err = d.number("targetLun", -1); err != nil {
		return t, err
	}
	if t.LUN < 0 || t.LUN > maxLUN {
		return t, bad("targetLun", "is %d, must be from 0 to %d", t.LUN, maxLUN)
	}
	return t, d.chap(&t.Auth)
}

func (d data) chap(c *chap) error {
	method, err := d.text("authMethod")
	if err != nil {
		return err
	}
	switch strings.ToUpper(method) {
	case "", "NONE":
		return nil
	case "CHAP":
	default:
		return bad("authMethod", "%q is not understood, only CHAP", clip(method))
	}
	var pw, pwIn string
	for _, f := range []struct {
		key string
		to  *string
	}{{"authUserName", &c.User}, {"authPassword", &pw}, {"authUserNameIn", &c.UserIn}, {"authPasswordIn", &pwIn}} {
		if *f.to, err = d.text(f.key); err != nil {
			return err
		}
		if *f.to != "" && !chapText.MatchString(*f.to) {
			return bad(f.key, "must be of at most 255 printable ASCII characters without spaces")
		}
	}
	if c.User == "" || pw == "" {
		return bad("authUserName", "and authPassword must be given with authMethod CHAP")
	}
	if (c.UserIn == "") != (pwIn == "") {
		return bad("authUserNameIn", "and authPasswordIn must be given together")
	}
	c.Password, c.PasswordIn = model.Secret(pw), model.Secret(pwIn)
	return nil
}

func (d data) nvme() (target, error) {
	t := target{Type: typeNVMe}
	name, err := d.text("targetNQN")
	if err != nil {
		return t, err
	}
	if !nvmeName.MatchString(name) {
		return t, bad("targetNQN", "%q is not an NVMe name, such as nqn.2019-01.com.opensds:nvme:id", clip(name))
	}
	// The original's key is misspelt; both are read.
	for _, key := range []string{"transporType", "transportType"} {
		v, err := d.text(key)
		if err != nil {
			return t, err
		}
		if v != "" && !strings.EqualFold(v, "tcp") {
			return t, model.Errorf(model.KindUnsupported, "data.%s %q cannot be attached by this host, only tcp", key, clip(v))
		}
	}
	if t.HostNQN, err = d.text("hostNqn"); err != nil {
		return t, err
	}
	if t.HostNQN != "" && !nvmeName.MatchString(t.HostNQN) {
		return t, bad("hostNqn", "%q is not an NVMe name", clip(t.HostNQN))
	}
	addrs, err := d.list("targetPortals")
	if err != nil {
		return t, err
	}
	ip, err := d.text("targetIP")
	if err != nil {
		return t, err
	}
	port, err := d.number("targetPort", nvmePort)
	if err != nil {
		return t, err
	}
	if port < 1 || port > 65535 {
		return t, bad("targetPort", "is %d, must be from 1 to 65535", port)
	}
	if ip != "" {
		a, err := netip.ParseAddr(ip)
		if err != nil {
			return t, bad("targetIP", "%q is not an IP address", clip(ip))
		}
		addrs = append([]string{netip.AddrPortFrom(a, uint16(port)).String()}, addrs...)
	}
	if len(addrs) == 0 {
		return t, bad("targetIP", "is missing")
	}
	for _, a := range addrs {
		ap, err := parseAddr("targetPortals", a, port)
		if err != nil {
			return t, err
		}
		t.add(portal{Name: name, Addr: ap})
	}
	return t, nil
}

func (d data) local() (target, error) {
	t := target{Type: typeLocal}
	p, err := d.text("devicePath")
	if err != nil {
		return t, err
	}
	if !devName.MatchString(p) || path.Clean(p) != p {
		return t, bad("devicePath", "%q is not the path of a device below /dev", clip(p))
	}
	t.Device = p
	return t, nil
}

// add leaves out a portal that is named twice.
func (t *target) add(p portal) {
	for _, q := range t.Portals {
		if p == q {
			return
		}
	}
	t.Portals = append(t.Portals, p)
}

// name is the target's name, or its image's, or its device's path.
func (t *target) name() string {
	switch {
	case len(t.Portals) > 0:
		return t.Portals[0].Name
	case t.Type == typeRBD:
		return t.RBD.String()
	}
	return t.Device
}

func (d data) identity() (string, error) {
	s, err := d.text("identity")
	if err != nil || s == "" {
		return "", err
	}
	n := normalName(s)
	if !hexName.MatchString(n) {
		return "", bad("identity", "%q is not a WWN, NGUID or UUID: 16 to 64 hex digits", clip(s))
	}
	return n, nil
}

// parseAddr reads ip, ip:port or [ip]:port. Names are refused: what they mean
// can change, and a session is known by its address.
func parseAddr(key, s string, port int) (netip.AddrPort, error) {
	none := netip.AddrPort{}
	// open-iscsi's form has the portal group after a comma.
	host, _, _ := strings.Cut(s, ",")
	if a, err := netip.ParseAddr(strings.Trim(host, "[]")); err == nil && a.Zone() == "" {
		return netip.AddrPortFrom(a.Unmap(), uint16(port)), nil
	}
	ap, err := netip.ParseAddrPort(host)
	if err != nil || ap.Addr().Zone() != "" || ap.Port() == 0 {
		return none, bad(key, "%q is not an IP address with a port, such as 10.0.0.5:%d", clip(s), port)
	}
	if ap.Addr().IsUnspecified() || ap.Addr().IsMulticast() {
		return none, bad(key, "%q is not the address of a host", clip(s))
	}
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port()), nil
}

// normalName makes names of a device comparable: the same WWN is written in many
// ways.
func normalName(s string) string {
	s = strings.ToLower(strings.TrimSpace(s))
	for _, p := range []string{"naa.", "eui.", "uuid.", "nguid.", "wwn-", "nvme-", "0x"} {
		s = strings.TrimPrefix(s, p)
	}
	return strings.ReplaceAll(s, "-", "")
}

func clip(s string) string {
	if len(s) > 80 {
		return s[:80] + "..."
	}
	return s
}

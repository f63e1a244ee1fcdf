package connector

import (
	"net/netip"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/osds-io/osds/pkg/model"
)

// Names in a Ceph cluster reach command lines, configuration files and the
// kernel's option strings: what could mean something else there is refused.
var (
	rbdName   = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$`)
	cephKey   = regexp.MustCompile(`^[A-Za-z0-9+/]{20,126}={0,2}$`)
	cephFSID  = regexp.MustCompile(`^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`)
	keyInFile = regexp.MustCompile(`(?m)^\s*key\s*=\s*(\S+)\s*$`)
)

// The ports that monitors have for the two versions of their protocol.
const (
	monPortV1 = 6789
	monPortV2 = 3300
)

// image is an image of a Ceph cluster, and who asks for it.
type image struct {
	Pool      string           `json:"pool"`
	Namespace string           `json:"namespace,omitempty"`
	Name      string           `json:"name"`
	Monitors  []netip.AddrPort `json:"monitors"`
	User      string           `json:"user"`
	FSID      string           `json:"fsid,omitempty"`

	// secret is the user's key; empty if the host must have it. It is never in
	// a note.
	secret model.Secret
}

// String gives the image as the rbd command names it.
func (i image) String() string {
	if i.Namespace != "" {
		return i.Pool + "/" + i.Namespace + "/" + i.Name
	}
	return i.Pool + "/" + i.Name
}

// monitors gives the addresses as a list with commas.
func (i image) monitors() string {
	var out []string
	for _, m := range i.Monitors {
		out = append(out, m.String())
	}
	return strings.Join(out, ",")
}

// rbd reads a connection of type rbd: the keys of the original's clients, and
// those of others for what it has no key for.
func (d data) rbd() (target, error) {
	t := target{Type: typeRBD}
	i := &t.RBD
	if enc, _ := d.m["encrypted"].(bool); enc {
		// The device would show what is encrypted, and let it be overwritten.
		return t, model.Errorf(model.KindUnsupported, "this host cannot attach an encrypted image of Ceph: no way it knows of makes the plain volume a device")
	}
	name, err := d.text("name")
	if err != nil {
		return t, err
	}
	parts := strings.Split(name, "/")
	if len(parts) != 2 && len(parts) != 3 {
		return t, bad("name", "%q is not pool/image or pool/namespace/image", clip(name))
	}
	for _, p := range parts {
		if !rbdName.MatchString(p) {
			return t, bad("name", "%q: a pool, namespace or image must be of 1 to 128 letters, digits, '.', '_' and '-', the first a letter or a digit", clip(name))
		}
	}
	i.Pool, i.Name = parts[0], parts[len(parts)-1]
	if len(parts) == 3 {
		i.Namespace = parts[1]
	}
	if i.Monitors, err = d.rbdMonitors(); err != nil {
		return t, err
	}
	for _, f := range []struct {
		keys []string
		to   *string
		def  string
		form *regexp.Regexp
		say  string
	}{
		{[]string{"authUserName", "auth_username"}, &i.User, "admin", rbdName, "a cephx user without \"client.\": letters, digits, '.', '_' and '-'"},
		{[]string{"fsid", "clusterFsid"}, &i.FSID, "", cephFSID, "the fsid of a cluster, a UUID in lower case"},
	} {
		for _, key := range f.keys {
			if *f.to != "" {
				break
			}
			if *f.to, err = d.text(key); err != nil {
				return t, err
			}
			if *f.to != "" && !f.form.MatchString(*f.to) {
				return t, bad(key, "%q is not %s", clip(*f.to), f.say)
			}
		}
		if *f.to == "" {
			*f.to = f.def
		}
	}
	i.secret, err = d.cephSecret()
	return t, err
}

// rbdMonitors reads hosts and ports. There may be as many ports as hosts, or one
// for all, or none; a host may bring its own.
func (d data) rbdMonitors() ([]netip.AddrPort, error) {
	hosts, err := d.list("hosts")
	if err != nil {
		return nil, err
	}
	ports, err := d.list("ports")
	if err != nil {
		return nil, err
	}
	if len(hosts) == 0 {
		return nil, bad("hosts", "is missing: give the monitors' addresses")
	}
	if len(ports) > 1 && len(ports) != len(hosts) {
		return nil, bad("ports", "has %d entries for %d of hosts; give one, or one for each", len(ports), len(hosts))
	}
	var out []netip.AddrPort
	for n, h := range hosts {
		port := monPortV1
		if len(ports) > 0 {
			p := ports[min(n, len(ports)-1)]
			if port, err = (data{map[string]any{"ports": p}}).number("ports", 0); err != nil || port < 1 || port > 65535 {
				return nil, bad("ports", "%q is not a port", clip(p))
			}
		}
		ap, err := parseAddr("hosts", h, port)
		if err != nil {
			return nil, err
		}
		if !slices.Contains(out, ap) {
			out = append(out, ap)
		}
	}
	return out, nil
}

// cephSecret reads the user's key: alone, or in the text of a keyring.
func (d data) cephSecret() (model.Secret, error) {
	for _, key := range []string{"authPassword", "secret", "keyring"} {
		s, err := d.text(key)
		if err != nil {
			return "", err
		}
		if s == "" {
			continue
		}
		if m := keyInFile.FindStringSubmatch(s); m != nil {
			s = m[1]
		}
		if !cephKey.MatchString(s) {
			// What it is instead must not be shown.
			return "", bad(key, "is not a cephx key, nor a keyring with one")
		}
		return model.Secret(s), nil
	}
	return "", nil
}

// hostSecret gives the key of a user that the host itself has, in the files in
// which Ceph's own clients look.
func (h *host) hostSecret(dir, user string) model.Secret {
	for _, f := range []string{"ceph.client." + user + ".keyring", "ceph.keyring", "keyring"} {
		section := ""
		for _, l := range strings.Split(h.value(filepath.Join(dir, f)), "\n") {
			l = strings.TrimSpace(l)
			if strings.HasPrefix(l, "[") {
				section = strings.Trim(l, "[]")
			}
			if m := keyInFile.FindStringSubmatch(l); m != nil && section == "client."+user && cephKey.MatchString(m[1]) {
				return model.Secret(m[1])
			}
		}
	}
	return ""
}

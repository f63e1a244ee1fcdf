package connector

import (
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/osds-io/osds/pkg/drivers"
	"github.com/osds-io/osds/pkg/model"
)

const testKey = "AQBzVm5lAAAAABAAf2xqk0w1c0G0l8zY8Zf3mQ=="

func TestParseRBD(t *testing.T) {
	// As the original's clients know it, and through JSON.
	got, err := parseConnection(model.Connection{Type: "rbd", Data: map[string]any{
		"secret_type": "ceph", "name": "rbd/opensds-v1", "cluster_name": "ceph", "volume_id": "v1", "access_mode": "rw",
		"hosts": []any{"10.0.0.1", "10.0.0.2", "[fd00::3]:3300"}, "ports": []any{"6789"},
	}})
	if err != nil {
		t.Fatal(err)
	}
	want := image{Pool: "rbd", Name: "opensds-v1", User: "admin", Monitors: []netip.AddrPort{
		netip.MustParseAddrPort("10.0.0.1:6789"), netip.MustParseAddrPort("10.0.0.2:6789"), netip.MustParseAddrPort("[fd00::3]:3300")}}
	if !reflect.DeepEqual(got.RBD, want) || got.Type != "rbd" || got.name() != "rbd/opensds-v1" {
		t.Errorf("got %+v", got)
	}
	ok := map[string]any{
		"name": "p/ns/i", "hosts": []string{"10.0.0.1", "10.0.0.1"}, "ports": []string{"1", "2"}, "auth_username": "u.1",
		"keyring": model.Secret("[client.u]\n\tkey = " + testKey + "\n"), "fsid": "0b0e1a5c-2b5d-4d0e-9c44-1d7fd1a0a001",
	}
	got, err = parseConnection(model.Connection{Type: "RBD", Data: ok})
	if err != nil {
		t.Fatal(err)
	}
	if i := got.RBD; i.Namespace != "ns" || i.User != "u.1" || i.secret != testKey || i.monitors() != "10.0.0.1:1,10.0.0.1:2" || i.FSID == "" {
		t.Errorf("got %+v", got.RBD)
	}
	for _, bad := range []struct {
		key   string
		value any
	}{
		{"name", nil}, {"name", 7}, {"name", "image"}, {"name", "a/b/c/d"}, {"name", "a/"}, {"name", "a/b@c"}, {"name", "-a/b"},
		{"name", "a/.."}, {"name", "a b/c"}, {"name", "a/b,ro"}, {"name", "a\n/b"}, {"name", "p/" + strings.Repeat("x", 129)},
		{"hosts", nil}, {"hosts", []string{}}, {"hosts", []string{"mon1", "10.0.0.1"}}, {"hosts", []string{"0.0.0.0:1", "10.0.0.1"}}, {"hosts", []any{1}},
		{"ports", []string{"0"}}, {"ports", []string{"x"}}, {"ports", []string{"1", "2", "3"}},
		{"auth_username", "a,b"}, {"auth_username", "a b"}, {"keyring", "short"}, {"keyring", "[client.u]\nkey = x\nmon host = y"},
		{"keyring", testKey + "\nmon host = 1"}, {"fsid", "x"},
	} {
		m := map[string]any{}
		for k, v := range ok {
			m[k] = v
		}
		m[bad.key] = bad.value
		_, err := parseConnection(model.Connection{Type: "rbd", Data: m})
		if model.KindOf(err) != model.KindInvalid || !strings.Contains(err.Error(), "data."+bad.key) {
			t.Errorf("%s = %q: %v", bad.key, bad.value, err)
		}
		if err != nil && strings.Contains(err.Error(), testKey) {
			t.Errorf("%s: the key is in the error", bad.key)
		}
	}
}

// The key of a user that the host itself has.
func TestHostSecret(t *testing.T) {
	root := t.TempDir()
	dir := filepath.Join(root, "etc/ceph")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	text := "[client.other]\n\tkey = " + strings.Repeat("A", 38) + "==\n[client.osds]\n\tkey = " + testKey + "\n\tcaps mon = \"profile rbd\"\n"
	if err := os.WriteFile(filepath.Join(dir, "ceph.keyring"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	h := &host{root: root}
	if s := h.hostSecret("/etc/ceph", "osds"); s != testKey {
		t.Errorf("got %q", s.Reveal())
	}
	if s := h.hostSecret("/etc/ceph", "absent"); s != "" {
		t.Errorf("a key of another: %q", s.Reveal())
	}
}

// Which devices there are is read from the kernel's files; here from some that
// were recorded.
func TestFindMapped(t *testing.T) {
	root := t.TempDir()
	write := func(value string, elem ...string) {
		p := filepath.Join(append([]string{root}, elem...)...)
		if err := os.MkdirAll(filepath.Dir(p), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(value+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for id, v := range map[string][]string{"0": {"rbd", "", "i", "-"}, "3": {"rbd", "ns", "i", "-"}, "4": {"rbd", "", "j", "snap"}} {
		for n, f := range []string{"pool", "pool_ns", "name", "current_snap"} {
			write(v[n], "sys/bus/rbd/devices", id, f)
		}
		write("8192", "sys/block/rbd"+id, "size")
	}
	k := &rbdKernel{h: &host{root: root}}
	for _, x := range []struct {
		i    image
		want string
	}{
		{image{Pool: "rbd", Name: "i"}, "rbd0"}, {image{Pool: "rbd", Namespace: "ns", Name: "i"}, "rbd3"},
		{image{Pool: "rbd", Name: "j"}, ""}, {image{Pool: "other", Name: "i"}, ""},
	} {
		d, _, err := k.find(&note{Target: target{RBD: x.i}})
		if err != nil || d.name != x.want || (x.want != "" && d.size != 4*model.MiB) {
			t.Errorf("%s: %+v, %v, want %q", x.i, d, err, x.want)
		}
	}
	h := &host{root: root}
	write("/state/rbd/a/mnt/opensds-v", "sys/block/loop5/loop/backing_file")
	write("/opensds-w", "sys/block/loop6/loop/backing_file")
	write("7:6", "sys/class/block/loop6/dev")
	for _, x := range []struct{ file, dev, want string }{
		{"/state/rbd/a/mnt/opensds-v", "", "loop5"}, {"/state/rbd/b/mnt/opensds-v", "", ""},
		{"/state/rbd/c/mnt/opensds-w", "7:6", "loop6"}, {"/state/rbd/c/mnt/opensds-w", "7:1", ""},
	} {
		if got := h.loopOn(x.file, x.dev); got != x.want {
			t.Errorf("loop device of %s, %q: %q, want %q", x.file, x.dev, got, x.want)
		}
	}
}

// A host is known to Ceph by every address that its clients can have.
func TestRBDInitiators(t *testing.T) {
	addr := func(s string) net.Addr {
		ip, n, err := net.ParseCIDR(s)
		if err != nil {
			t.Fatal(err)
		}
		n.IP = ip
		return n
	}
	for _, c := range []struct {
		name string
		conf []string
		has  []net.Addr
		want []string
	}{
		{"several networks", nil, []net.Addr{addr("127.0.0.1/8"), addr("10.1.0.5/24"), addr("10.0.0.5/24"), addr("fe80::1/64"), addr("fd00::5/64"), addr("10.0.0.5/24")},
			[]string{"10.0.0.5", "10.1.0.5", "fd00::5"}},
		{"itself alone", nil, []net.Addr{addr("127.0.0.1/8"), addr("fe80::1/64")}, []string{"127.0.0.1"}},
		{"as configured", []string{"192.0.2.7"}, []net.Addr{addr("10.0.0.5/24")}, []string{"192.0.2.7"}},
	} {
		r := &rbd{h: &host{addrs: func() ([]net.Addr, error) { return c.has, nil }}, conf: Config{RBDAddresses: c.conf}}
		var got []string
		for _, x := range r.initiators() {
			if x.Protocol != typeRBD {
				t.Errorf("%s: %+v", c.name, x)
			}
			got = append(got, x.PortName)
		}
		if !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
	for _, bad := range [][]string{{"host1"}, {"0.0.0.0"}, {"10.0.0.0/24"}, make([]string, maxAddresses+1)} {
		if err := (&Config{RBDAddresses: bad}).Validate(); model.KindOf(err) != model.KindInvalid {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

// What is there of an attachment without a note of it is found by its id: by a
// process, by a loop device, by files. An image that the kernel maps is taken only
// for a connection that names it, and only if it is no other attachment's.
func TestRBDLost(t *testing.T) {
	root, state := t.TempDir(), t.TempDir()
	put := func(text string, elem ...string) {
		t.Helper()
		f := filepath.Join(elem...)
		if err := os.MkdirAll(filepath.Dir(f), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(f, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	dir := filepath.Join(state, "rbd")
	args := func(a ...string) string { return strings.Join(a, "\x00") + "\x00" }
	put("rbd-fuse\n", root, "proc/71/comm")
	put(args("rbd-fuse", "-c", dir+"/at-fuse/ceph.conf", "-n", "client.u", "-p", "p", "-r", "opensds-v1", dir+"/at-fuse/mnt"), root, "proc/71/cmdline")
	put("rbd-nbd\n", root, "proc/72/comm")
	put(args("rbd-nbd", "map", "-c", dir+"/at-nbd/ceph.conf", "-n", "client.u", "p/ns/opensds-v2"), root, "proc/72/cmdline")
	put("rbd-fuse\n", root, "proc/73/comm") // somebody else's
	put(args("rbd-fuse", "-c", "/etc/ceph/ceph.conf", "-p", "p", "/mnt"), root, "proc/73/cmdline")
	put(dir+"/at-loop/mnt/opensds-v3\n", root, "sys/block/loop5/loop/backing_file")
	put("7:5\n", root, "sys/class/block/loop5/dev")
	put(confImage+"p/opensds-v4\n"+confWay+"nbd\n[global]\nmon host = 10.0.0.1:6789\n", dir, "at-files", "ceph.conf")
	for f, s := range map[string]string{"pool": "p", "name": "opensds-v5", "current_snap": "-", "size": "1048576"} {
		put(s+"\n", root, "sys/bus/rbd/devices/0", f)
	}
	put("252:0\n", root, "sys/class/block/rbd0/dev")
	c, err := open(t.Context(), Config{StateDir: state, Log: quietLog()}, &host{root: root})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	list, err := c.List(t.Context(), drivers.Page{})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, d := range list {
		got = append(got, d.AttachmentID+": "+d.Detail)
	}
	want := []string{
		"at-files: RBD image p/opensds-v4 (files only) without a note of it",
		"at-fuse: RBD image p/opensds-v1 (rbd-fuse 71) without a note of it",
		"at-loop: RBD image opensds-v3 (loop5) without a note of it",
		"at-nbd: RBD image p/ns/opensds-v2 (rbd-nbd 72) without a note of it",
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("listed: %q\nwant %q", got, want)
	}
	for id, way := range map[string]string{"at-files": RBDNBD, "at-fuse": RBDFuse, "at-loop": RBDFuse, "at-nbd": RBDNBD} {
		if n, ok := c.adopt(Request{AttachmentID: id, VolumeID: "v"}); !ok || n.RBD != way || n.Target.Type != typeRBD || n.Stage != stageDetaching {
			t.Errorf("%s: %+v, %t", id, n, ok)
		}
	}
	if n, _ := c.adopt(Request{AttachmentID: "at-loop"}); n.Dev != "7:5" {
		t.Errorf("the device of a loop: %q", n.Dev)
	}
	mapped := Request{AttachmentID: "at-kernel", VolumeID: "v5", Connection: model.Connection{Type: "rbd", Data: map[string]any{
		"name": "p/opensds-v5", "hosts": []string{"10.0.0.1"}, "ports": []string{"6789"}}}}
	n, ok := c.adopt(mapped)
	if !ok || n.RBD != RBDKernel || n.Dev != "252:0" {
		t.Errorf("what the kernel maps: %+v, %t", n, ok)
	}
	if _, ok := c.adopt(Request{AttachmentID: "at-kernel", VolumeID: "v5"}); ok {
		t.Error("what the kernel maps was taken without a connection that names it")
	}
	n.AttachmentID, n.Stage = "at-other", stageAttached
	if err := c.notes.put(n); err != nil {
		t.Fatal(err)
	}
	if _, ok := c.adopt(mapped); ok {
		t.Error("what the kernel maps was taken from another attachment")
	}
}

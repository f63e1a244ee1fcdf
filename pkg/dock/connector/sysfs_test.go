package connector

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/osds-io/osds/internal/run"
	"github.com/osds-io/osds/pkg/drivers"
	"github.com/osds-io/osds/pkg/model"
)

// tree makes a machine of recorded files: of a Linux 6.1 with one iSCSI disk by
// two sessions, its multipath map, and one NVMe/TCP disk by two controllers.
func tree(t testing.TB) *host {
	t.Helper()
	root := t.TempDir()
	h := &host{root: root, run: run.Func(func(context.Context, run.Cmd) (run.Result, error) {
		return run.Result{ExitCode: 1}, errors.New("no commands here")
	})}
	put := func(file, content string) {
		t.Helper()
		p := filepath.Join(root, file)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	link := func(file, to string) {
		t.Helper()
		p := filepath.Join(root, file)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(filepath.Join(root, to), p); err != nil {
			t.Fatal(err)
		}
	}
	for i, ip := range []string{"127.0.0.1", "10.77.0.1"} {
		n, sd := fmt.Sprint(i+2), "sd"+string(rune('a'+i))
		dev := fmt.Sprintf("sys/devices/platform/host%d/session%s", i, n)
		scsi := fmt.Sprintf("%s/target%d:0:0/%d:0:0:1", dev, i, i)
		block := scsi + "/block/" + sd
		put(block+"/size", "4194304\n")
		put(block+"/dev", fmt.Sprintf("8:%d\n", 16*i))
		link(block+"/device", scsi)
		link(block+"/holders/dm-0", "sys/devices/virtual/block/dm-0")
		put(scsi+"/wwid", "naa.60014051234567890abcdef123456789\n")
		put(scsi+"/vpd_pg83", string(page83(t)))
		link("sys/block/"+sd, block)
		link("sys/class/block/"+sd, block)
		link(fmt.Sprintf("sys/dev/block/8:%d", 16*i), block)
		link("sys/class/iscsi_session/session"+n+"/device", dev)
		put("sys/class/iscsi_session/session"+n+"/targetname", "iqn.2017-10.io.opensds:abc\n")
		put("sys/class/iscsi_session/session"+n+"/state", []string{"LOGGED_IN\n", "FAILED\n"}[i])
		put("sys/class/iscsi_connection/connection"+n+":0/persistent_address", ip+"\n")
		put("sys/class/iscsi_connection/connection"+n+":0/persistent_port", "3260\n")
		link("sys/devices/virtual/block/dm-0/slaves/"+sd, block)
	}
	dm := "sys/devices/virtual/block/dm-0"
	put(dm+"/size", "4194304\n")
	put(dm+"/dev", "253:0\n")
	put(dm+"/dm/name", "360014051234567890abcdef123456789\n")
	put(dm+"/dm/uuid", "mpath-360014051234567890abcdef123456789\n")
	link(dm+"/holders/dm-1", "sys/devices/virtual/block/dm-1")
	link("sys/block/dm-0", dm)
	link("sys/class/block/dm-0", dm)
	put("sys/devices/virtual/block/dm-1/dm/name", "vg-lv\n")
	put("sys/devices/virtual/block/dm-1/dm/uuid", "LVM-x\n")
	put("sys/devices/virtual/block/dm-1/dev", "253:1\n")
	link("sys/devices/virtual/block/dm-1/slaves/dm-0", dm)
	link("sys/class/block/dm-1", "sys/devices/virtual/block/dm-1")

	sub := "sys/devices/virtual/nvme-subsystem/nvme-subsys0"
	put(sub+"/subsysnqn", "nqn.2019-01.com.opensds:nvme:abc\n")
	put(sub+"/nvme0n1/size", "2097152\n")
	put(sub+"/nvme0n1/hidden", "0\n")
	put(sub+"/nvme0n1/nguid", "12345678-90ab-cdef-1234-567890abcdef\n")
	put(sub+"/nvme0n1/uuid", "12345678-90ab-cdef-1234-567890abcdef\n")
	put(sub+"/nvme0n1/wwid", "uuid.12345678-90ab-cdef-1234-567890abcdef\n")
	link(sub+"/nvme0n1/device", sub)
	link("sys/block/nvme0n1", sub+"/nvme0n1")
	for i := range 2 {
		c := fmt.Sprintf("sys/devices/virtual/nvme-fabrics/ctl/nvme%d", i)
		put(c+"/transport", "tcp\n")
		put(c+"/subsysnqn", "nqn.2019-01.com.opensds:nvme:abc\n")
		put(c+"/address", fmt.Sprintf("traddr=127.0.0.%d,trsvcid=4420,src_addr=127.0.0.1\n", i+1))
		put(c+"/state", []string{"live\n", "connecting\n"}[i])
		put(c+fmt.Sprintf("/nvme0c%dn1/hidden", i), "1\n")
		link(fmt.Sprintf("sys/class/nvme/nvme%d", i), c)
		link(fmt.Sprintf("sys/block/nvme0c%dn1", i), c+fmt.Sprintf("/nvme0c%dn1", i))
	}
	put("sys/class/nvme/nvme9/transport", "pcie\n")
	put("proc/net/unix", `Num       RefCount Protocol Flags    Type St Inode Path
00000000a1db5ad7: 00000002 00000000 00010000 0001 01 11567 @ISCSIADM_ABSTRACT_NAMESPACE
00000000a1db5ad8: 00000003 00000000 00000000 0001 03 11568 @/org/kernel/linux/storage/multipathd
`)
	put("proc/self/mountinfo", `22 1 0:20 / / rw,relatime - overlay root rw
90 22 253:1 / /mnt/with\040space rw,relatime shared:1 - ext4 /dev/mapper/vg-lv rw
`)
	put("etc/iscsi/initiatorname.iscsi", "## comment\nInitiatorName=iqn.1993-08.org.debian:01:abc\n")
	put("etc/nvme/hostnqn", "nqn.2014-08.org.nvmexpress:uuid:00000000-0000-4000-8000-000000000001\n")
	return h
}

// page83 is what LIO answers.
func page83(t testing.TB) []byte {
	t.Helper()
	s := "008300ac" + "01030010" + "60014051234567890abcdef123456789" +
		"02010034" + hex.EncodeToString([]byte("LIO-ORG IBLOCK:12345678-90ab-cdef-1234-567890abcdef\x00")) +
		"51940004" + "00000001" + "51950004" + "00000000" + "01060004" + "00000000" +
		"53980024" + hex.EncodeToString([]byte("iqn.2017-10.io.opensds:abc,t,0x0001\x00")) +
		"53a8001c" + hex.EncodeToString([]byte("iqn.2017-10.io.opensds:abc\x00\x00"))
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestDesignators(t *testing.T) {
	names, wwid := designators(page83(t))
	if !reflect.DeepEqual(names, []string{"60014051234567890abcdef123456789"}) || wwid != "360014051234567890abcdef123456789" {
		t.Error(names, wwid)
	}
	// NAA 6 before NAA 5, both before EUI-64.
	b, _ := hex.DecodeString("00830034" + "01020008" + "0011223344556677" + "01030008" + "5001122334455667" + "01030010" + "60014051234567890abcdef123456789")
	names, wwid = designators(b)
	if len(names) != 3 || names[0][0] != '6' || names[2] != "0011223344556677" || wwid[:2] != "36" {
		t.Error(names, wwid)
	}
	for i := range page83(t) {
		designators(page83(t)[:i]) // whatever the length
	}
}

func FuzzDesignators(f *testing.F) {
	f.Add(page83(f))
	f.Fuzz(func(t *testing.T, b []byte) {
		names, wwid := designators(b)
		for _, n := range append(names, strings.TrimLeft(wwid, "")) {
			if strings.Trim(n, "0123456789abcdef") != "" {
				t.Errorf("%q", n)
			}
		}
	})
}

func TestSessions(t *testing.T) {
	h := tree(t)
	s := h.sessions()
	if len(s) != 2 || s[0].sid != "2" || s[0].state != "LOGGED_IN" || s[1].portal.String() != "iqn.2017-10.io.opensds:abc at 10.77.0.1:3260" {
		t.Fatalf("%+v", s)
	}
	if h.lun(s[1], 1) != "sdb" || h.lun(s[1], 2) != "" || h.scsiHost(s[1]) != "1" {
		t.Error(h.lun(s[1], 1), h.lun(s[1], 2), h.scsiHost(s[1]))
	}
}

func TestFindISCSI(t *testing.T) {
	h := tree(t)
	i := &iscsi{h: h, conf: DefaultConfig(), mp: multipath{h}}
	n := &note{Target: target{Type: typeISCSI, LUN: 1, Portals: []portal{
		{"iqn.2017-10.io.opensds:abc", mustAddr(t, "127.0.0.1:3260")}, {"iqn.2017-10.io.opensds:abc", mustAddr(t, "10.77.0.1:3260")}}}}
	d, why, err := i.find(n)
	if err != nil || why != "" || d.name != "dm-0" || len(d.members) != 2 || d.size != 2*model.GiB || d.identity != "60014051234567890abcdef123456789" {
		t.Errorf("%+v, %q, %v", d, why, err)
	}
	if p := h.devPath(d.name); p != "/dev/mapper/360014051234567890abcdef123456789" {
		t.Error(p)
	}
	n.Target.Identity = "60014050000000000000000000000000"
	if _, _, err := i.find(n); !model.IsKind(err, model.KindConflict) {
		t.Error(err)
	}
	n.Target.Identity = ""
	n.Target.LUN = 2
	if d, why, err := i.find(n); err != nil || why == "" || d.name != "" {
		t.Errorf("%+v, %q, %v", d, why, err)
	}
	n.Target.Portals[0].Name, n.Target.Portals[1].Name = "iqn.2017-10.io.opensds:abd", "iqn.2017-10.io.opensds:abd"
	if d, why, err := i.find(n); err != nil || why != "there is no session" || d.name != "" {
		t.Errorf("%+v, %q, %v", d, why, err)
	}
	if err := (multipath{h}).usable(); !model.IsKind(err, model.KindUnsupported) {
		t.Error("a connected socket is not one that listens:", err)
	}
	if err := i.usable(); !model.IsKind(err, model.KindUnsupported) || !strings.Contains(err.Error(), "open-iscsi") {
		t.Error(err)
	}
	if got := i.iqn(); got != "iqn.1993-08.org.debian:01:abc" || !h.listens(iscsidSocket) {
		t.Error(got)
	}
}

func TestFindNVMe(t *testing.T) {
	h := tree(t)
	v := &nvme{h: h, conf: DefaultConfig()}
	n := &note{Target: target{Type: typeNVMe, Portals: []portal{
		{"nqn.2019-01.com.opensds:nvme:abc", mustAddr(t, "127.0.0.1:4420")}, {"nqn.2019-01.com.opensds:nvme:abc", mustAddr(t, "127.0.0.2:4420")}}}}
	d, why, err := v.find(n)
	if err != nil || why != "" || d.name != "nvme0n1" || d.size != model.GiB || d.identity != "1234567890abcdef1234567890abcdef" || !strings.Contains(d.detail, "1 of 2") {
		t.Errorf("%+v, %q, %v", d, why, err)
	}
	n.Target.Identity = strings.Repeat("1", 32)
	if _, _, err := v.find(n); !model.IsKind(err, model.KindConflict) {
		t.Error(err)
	}
	if id := v.hostID(); id != "00000000-0000-4000-8000-000000000001" {
		t.Error(id)
	}
}

func TestHostNQN(t *testing.T) {
	h := &host{root: t.TempDir()}
	v := &nvme{h: h}
	if err := v.name(); err != nil {
		t.Fatal(err)
	}
	first := v.nqn()
	if !strings.HasPrefix(first, "nqn.2014-08.org.nvmexpress:uuid:") || v.hostID() == "" {
		t.Errorf("%q", first)
	}
	if err := v.name(); err != nil || v.nqn() != first {
		t.Error("made twice:", err, v.nqn())
	}
	if list := h.names("etc/nvme"); len(list) != 1 {
		t.Error(list)
	}
	// From the machine's own number, where it has one.
	h = &host{root: t.TempDir()}
	v = &nvme{h: h}
	if err := os.MkdirAll(h.path("sys/class/dmi/id"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(h.path("sys/class/dmi/id/product_uuid"), []byte("A1B2C3D4-0000-4000-8000-000000000007\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := v.name(); err != nil || v.nqn() != "nqn.2014-08.org.nvmexpress:uuid:a1b2c3d4-0000-4000-8000-000000000007" {
		t.Error(err, v.nqn())
	}
}

func TestNVMeRefusal(t *testing.T) {
	v := &nvme{h: tree(t)}
	p := portal{"nqn.2019-01.com.opensds:nvme:abc", mustAddr(t, "127.0.0.1:4420")}
	for line, kind := range map[string]model.Kind{
		"nvme nvme2: Connect for subsystem " + p.Name + " is not allowed, hostnqn: " + v.nqn(): model.KindDenied,
		`nvme nvme2: Connect Invalid Data Parameter, subsysnqn "` + p.Name + `"`:               model.KindUnavailable,
		"nvme nvme2: Connect for subsystem nqn.other is not allowed, hostnqn: " + v.nqn():      model.KindUnavailable,
		"": model.KindUnavailable,
	} {
		if err := v.refusal(p, io.ErrUnexpectedEOF, []string{line}); !model.IsKind(err, kind) {
			t.Errorf("%q: %v", line, err)
		}
	}
}

func TestHoldersOfTree(t *testing.T) {
	h := tree(t)
	d := disk{name: "dm-0", members: []string{"sda", "sdb"}}
	got := h.holders(d)
	if !reflect.DeepEqual(got, []string{"mounted on /mnt/with space", "used by vg-lv"}) {
		t.Errorf("%q", got)
	}
	if up := h.upper(d); !reflect.DeepEqual(up, []string{"vg-lv"}) {
		t.Error(up)
	}
	if m := h.staleMounts("253:1"); len(m) != 1 {
		t.Error("253:1 is in no table, and mounted:", m)
	}
	if m := h.staleMounts("8:0"); m != nil {
		t.Error(m)
	}
}

func TestEditRecord(t *testing.T) {
	old := "# BEGIN RECORD 2.1.8\nnode.name = iqn.a\nnode.startup = automatic\nnode.session.auth.authmethod = None\nnode.session.auth.password = old\nnode.conn[0].address = 10.0.0.1\n# END RECORD\n"
	i := &iscsi{conf: DefaultConfig()}
	tg := &target{Auth: chap{User: "u", Password: "new"}, Portals: make([]portal, 2)}
	b, err := editRecord([]byte(old), "iqn.a", i.settings(tg))
	if err != nil {
		t.Fatal(err)
	}
	got := string(b)
	for _, l := range []string{"node.name = iqn.a", "node.startup = manual", "node.session.auth.authmethod = CHAP", "node.session.auth.password = new",
		"node.session.auth.username = u", "node.conn[0].address = 10.0.0.1", "node.session.timeo.replacement_timeout = 5", "node.conn[0].timeo.login_timeout = 5"} {
		if strings.Count(got, "\n"+l+"\n") != 1 {
			t.Errorf("%q is not there once: %s", l, got)
		}
	}
	if strings.Contains(got, "old") || strings.Contains(got, "_in") || !strings.HasPrefix(got, "# BEGIN RECORD") || !strings.HasSuffix(got, "# END RECORD\n") {
		t.Error(got)
	}
	tg.Auth, tg.Portals = chap{}, tg.Portals[:1]
	b, err = editRecord(b, "iqn.a", i.settings(tg))
	if err != nil || strings.Contains(string(b), "password") || !strings.Contains(string(b), "replacement_timeout = 120") {
		t.Errorf("%s, %v", b, err)
	}
	for _, bad := range []string{"", "node.name = iqn.a\n", strings.Replace(old, "iqn.a", "iqn.b", 1), old + old} {
		if _, err := editRecord([]byte(bad), "iqn.a", nil); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
}

func TestNotes(t *testing.T) {
	dir := t.TempDir()
	s, err := openNotes(dir)
	if err != nil {
		t.Fatal(err)
	}
	n := note{AttachmentID: "a1", VolumeID: "v1", Stage: stageAttaching, Created: time.Now().UTC(),
		Target: target{Type: typeISCSI, LUN: 1, Portals: []portal{{"iqn.a", mustAddr(t, "[fd00::1]:3260")}}, Auth: chap{User: "user", Password: "topsecret"}}}
	if err := s.put(n); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "a1.json")
	b, err := os.ReadFile(file)
	if err != nil || strings.Contains(string(b), "topsecret") || strings.Contains(string(b), "user") {
		t.Errorf("%s, %v", b, err)
	}
	if st, err := os.Stat(file); err != nil || st.Mode().Perm() != 0o600 {
		t.Error(st.Mode(), err)
	}
	if err := os.WriteFile(filepath.Join(dir, ".a1.json.123"), []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	again, err := openNotes(dir)
	if err != nil {
		t.Fatal(err)
	}
	n.Target.Auth, n.Version = chap{}, noteVersion
	if got, ok := again.get("a1"); !ok || !reflect.DeepEqual(got, n) {
		t.Errorf("%+v, %+v", got, n)
	}
	if o := again.others("a2", func(o *note) bool { return o.VolumeID == "v1" }); len(o) != 1 {
		t.Error(o)
	}
	if o := again.others("a1", func(*note) bool { return true }); len(o) != 0 {
		t.Error(o)
	}
	if err := again.remove("a1"); err != nil {
		t.Fatal(err)
	}
	if err := again.remove("a1"); err != nil {
		t.Error("twice:", err)
	}
	if list, _ := os.ReadDir(dir); len(list) != 0 {
		t.Error(list)
	}
	if err := os.WriteFile(filepath.Join(dir, "d.json"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if s, err := openNotes(dir); err != nil || len(s.all()) != 0 {
		t.Error("what a power cut has left is not passed over:", err)
	}
	for _, bad := range []string{"{", `{"version":9,"attachmentId":"b"}`, `{"version":1,"attachmentId":"c"}`} {
		if err := os.WriteFile(filepath.Join(dir, "b.json"), []byte(bad), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := openNotes(dir); err == nil {
			t.Errorf("%s is taken", bad)
		}
	}
}

func quietLog() *logrus.Entry {
	l := logrus.New()
	l.SetOutput(io.Discard)
	return logrus.NewEntry(l)
}

func TestStrays(t *testing.T) {
	c, err := open(t.Context(), Config{StateDir: t.TempDir(), Log: quietLog()}, tree(t))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	list, err := c.List(t.Context(), drivers.Page{})
	if err != nil || len(list) != 2 || list[0].AttachmentID != "abc" || list[0].VolumeID != "" || !strings.Contains(list[0].Detail, "without a note") {
		t.Errorf("%+v, %v", list, err)
	}
	if list, err := c.List(t.Context(), drivers.Page{After: "abc"}); err != nil || len(list) != 0 {
		t.Error(list, err)
	}
}

func TestConfig(t *testing.T) {
	d := DefaultConfig()
	if err := d.Validate(); err != nil {
		t.Error(err)
	}
	for field, change := range map[string]func(*Config){
		"connector.multipath":       func(c *Config) { c.Multipath = "never" },
		"connector.stateDir":        func(c *Config) { c.StateDir = "x" },
		"connector.loginTimeout":    func(c *Config) { c.LoginTimeout = time.Millisecond },
		"connector.ctrlLossTimeout": func(c *Config) { c.CtrlLossTimeout = -time.Second },
		"connector.keepAlive":       func(c *Config) { c.KeepAlive = 1500 * time.Millisecond },
	} {
		c := DefaultConfig()
		change(&c)
		if err := c.Validate(); !model.IsKind(err, model.KindInvalid) || model.AsError(err).Field != field {
			t.Errorf("%s: %v", field, err)
		}
	}
	if _, err := New(t.Context(), Config{}); !model.IsKind(err, model.KindInvalid) {
		t.Error(err)
	}
	if got := (Config{}).withDefaults(); got.KeepAlive != d.KeepAlive || got.Multipath != d.Multipath {
		t.Errorf("%+v", got)
	}
}

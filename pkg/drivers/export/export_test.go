package export

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/sirupsen/logrus"

	"github.com/osds-io/osds/pkg/model"
)

// testLog writes to a test's log.
func testLog(t testing.TB) logrus.FieldLogger {
	l := logrus.New()
	l.SetLevel(logrus.DebugLevel)
	l.SetOutput(t.Output())
	return l
}

func TestOptions(t *testing.T) {
	for _, x := range []struct {
		o     Options
		field string
	}{
		{Options{}, ""},
		{Options{TgtBindIP: "10.0.0.1", EnableChapAuth: true, MutualChap: true, ISCSITarget: "tgt"}, ""},
		{Options{Portals: []string{"10.0.0.1", "10.0.0.2:3261", "fd00::1", "[fd00::2]:3260"}}, ""},
		{Options{WriteThrough: "auto"}, ""},
		{Options{WriteThrough: "never"}, ""},
		{Options{WriteThrough: "yes"}, "writeThrough"},
		{Options{TgtBindIP: "0.0.0.0"}, "tgtBindIp"},
		{Options{TgtBindIP: "10.0.0.1", Portals: []string{"10.0.0.1"}}, "tgtBindIp"},
		{Options{Portals: []string{"host.example"}}, "portals"},
		{Options{Portals: []string{"10.0.0.1", "10.0.0.1"}}, "portals[1]"},
		{Options{Portals: []string{"10.0.0.1", "10.0.0.2:0"}}, "portals[1]"},
		{Options{Portals: []string{"10.0.0.1:99999"}}, "portals"},
		{Options{Portals: []string{"::"}}, "portals"},
		{Options{Portals: []string{"fe80::1%eth0"}}, "portals"},
		{Options{Portals: []string{"../x"}}, "portals"},
		{Options{NVMePortals: []string{"10.0.0.1:4420 "}}, "nvmePortals"},
		{Options{Portals: make([]string, MaxPortals+1)}, "portals"},
		{Options{MutualChap: true}, "mutualChap"},
		{Options{ISCSITarget: "scst"}, "iscsiTarget"},
		{Options{TgtControlPort: -1}, "tgtControlPort"},
	} {
		err := x.o.Validate()
		switch e := model.AsError(err); {
		case x.field == "" && err != nil:
			t.Errorf("%+v: %v", x.o, err)
		case x.field != "" && (err == nil || e.Kind != model.KindInvalid || e.Field != x.field):
			t.Errorf("%+v: %+v, want field %s", x.o, e, x.field)
		}
	}
	c := Options{TgtBindIP: "10.0.0.9", NVMePortals: []string{"10.0.0.8"}, EnableChapAuth: true}.Config("/s", "c", "b")
	if !slices.Equal(c.Portals, []string{"10.0.0.9"}) || !slices.Equal(c.NVMePortals, []string{"10.0.0.8"}) || !c.CHAP || c.StateDir != "/s" {
		t.Errorf("%+v", c)
	}
}

func FuzzPortal(f *testing.F) {
	for _, s := range []string{"10.0.0.1", "10.0.0.1:3260", "[::1]:3260", "::1", "[::1]", "0.0.0.0", "/x", "a/b:1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		ps, err := parsePortals("p", []string{s}, 3260)
		if err != nil {
			if !model.IsKind(err, model.KindInvalid) {
				t.Fatal(err)
			}
			return
		}
		// It becomes a directory's name, and must read back as it is.
		name := ps[0].String()
		if strings.ContainsAny(name, "/ \n\x00%") || ps[0].Port() == 0 {
			t.Fatalf("%q became %q", s, name)
		}
		if again, err := parsePortals("p", []string{name}, 1); err != nil || again[0] != ps[0] {
			t.Fatalf("%q: %v, %v", name, again, err)
		}
	})
}

func TestNames(t *testing.T) {
	id := "01a1fc10-2d9d-781d-8259-188bda349be7"
	if n := targetName(ISCSI, id); n != "iqn.2017-10.io.opensds:"+id {
		t.Error(n)
	}
	if n := targetName(NVMe, id); n != "nqn.2019-01.com.opensds:nvme:"+id {
		t.Error(n)
	}
	seen := map[string]string{}
	for _, id := range []string{id, strings.ToUpper(id), "a", "A", "a_b", "a-b", "x.0", strings.Repeat("a", 128), strings.Repeat("A", 128), strings.Repeat("a", 127) + "B"} {
		for _, p := range []string{ISCSI, NVMe} {
			n := targetName(p, id)
			if len(n) > 223 || n != strings.ToLower(n) || strings.ContainsAny(n, "_/ ") {
				t.Errorf("%q for %q", n, id)
			}
			if old, dup := seen[n]; dup {
				t.Errorf("%q and %q are both %q", old, id, n)
			}
			seen[n] = id
		}
	}
}

// Ids that clients choose may be very much alike; what hosts see must differ.
func TestIdentity(t *testing.T) {
	seen := map[string]string{}
	for i := range 300 {
		for _, id := range []string{fmt.Sprintf("00000000-0000-4000-8000-%012x", i), fmt.Sprintf("%08x-0000-4000-8000-0000000000aa", i),
			fmt.Sprintf("vol%d", i), fmt.Sprintf("AAAAAAAA-0000-4000-8000-%012X", i), fmt.Sprintf("aaaaaaaa-0000-4000-8000-%012x", i)} {
			for _, p := range []string{ISCSI, NVMe} {
				name, format := Identity(p, id)
				if len(name) != 32 || strings.Trim(name, "0123456789abcdef") != "" || format == "" {
					t.Fatalf("%s %s: %q %q", p, id, name, format)
				}
				if old, dup := seen[p+name]; dup && old != id {
					t.Fatalf("%s: %s and %s are both %s", p, old, id, name)
				}
				seen[p+name] = id
			}
		}
	}
	id := "01a1fc10-2d9d-781d-8259-188bda349be7"
	if n, _ := Identity(NVMe, id); n != strings.ReplaceAll(id, "-", "") || uuidOf(id) != id {
		t.Errorf("%s, %s", n, uuidOf(id))
	}
	if n, _ := Identity(ISCSI, id); !strings.HasPrefix(n, "6001405") || tgtSerial(id) != n {
		t.Error(n)
	}
}

func TestInitiators(t *testing.T) {
	h := model.Host{HostName: "h", Initiators: []model.Initiator{
		{PortName: "iqn.1993-08.org.debian:01:ABC", Protocol: "iSCSI"}, {PortName: "iqn.1993-08.org.debian:01:abc", Protocol: "iscsi"},
		{PortName: "nqn.2014-08.org.nvmexpress:uuid:X", Protocol: "nvmeof"}}}
	if got, err := initiatorsOf(h, ISCSI); err != nil || !slices.Equal(got, []string{"iqn.1993-08.org.debian:01:abc"}) {
		t.Error(got, err)
	}
	if got, err := initiatorsOf(h, NVMe); err != nil || !slices.Equal(got, []string{"nqn.2014-08.org.nvmexpress:uuid:X"}) {
		t.Error(got, err)
	}
	for _, bad := range []model.Host{{}, {Initiators: h.Initiators[2:]}, {Initiators: []model.Initiator{{PortName: "iqn.x/../../y", Protocol: "iscsi"}}},
		{Initiators: []model.Initiator{{PortName: "ALL", Protocol: "iscsi"}}}} {
		_, err := initiatorsOf(bad, ISCSI)
		if e := model.AsError(err); e == nil || e.Kind != model.KindInvalid || e.Field != "hostInfo.initiators" {
			t.Errorf("%+v: %+v", bad, e)
		}
	}
}

func sample(id string) *note {
	return &note{Version: 1, AttachmentID: id, VolumeID: "v", Protocol: ISCSI, Target: targetLIO, Name: targetName(ISCSI, id), Device: "/dev/x",
		Initiators: []string{"iqn.a:b"}, Portals: []string{"10.0.0.1:3260", "[fd00::1]:3260"}, User: "u", Password: clear{"pass-word-1"}}
}

func TestNotes(t *testing.T) {
	dir := t.TempDir()
	b, owner, err := openNotebook(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"a", "b", "c"} {
		if err := b.write(sample(id)); err != nil {
			t.Fatal(err)
		}
		st, err := os.Stat(b.path(id))
		if err != nil || st.Mode().Perm() != 0o600 {
			t.Errorf("%v, %v", st.Mode(), err)
		}
	}
	if raw, _ := os.ReadFile(b.path("a")); !strings.Contains(string(raw), "pass-word-1") {
		t.Error("the secret is not kept")
	}
	for _, damaged := range []string{"{", `{"version":1}`, `{"version":9}`} {
		if err := os.WriteFile(b.path("b"), []byte(damaged), 0o600); err != nil {
			t.Fatal(err)
		}
		b2, again, err := openNotebook(dir)
		if err != nil || again != owner {
			t.Fatal(again, err)
		}
		notes, bad, err := b2.read()
		if err != nil || len(notes) != 2 || len(bad) != 1 || bad["b"] == nil {
			t.Errorf("%q: %v, %v, %v", damaged, notes, bad, err)
		}
	}
	if err := b.remove("b"); err != nil {
		t.Fatal(err)
	}
	if err := b.remove("b"); err != nil {
		t.Error("again:", err)
	}
	// One that a power cut has left of an export that nobody was told of.
	if err := os.WriteFile(b.path("b"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if notes, bad, err := b.read(); err != nil || len(notes) != 2 || len(bad) != 0 {
		t.Errorf("%v, %v, %v", notes, bad, err)
	}
	if durable, err := b.begin(sample("b")); err != nil || durable() != nil {
		t.Error("begun after it:", err)
	}
	if err := b.remove("b"); err != nil {
		t.Fatal(err)
	}
	notes, bad, err := b.read()
	if err != nil || len(notes) != 2 || len(bad) != 0 || notes[0].Password.Reveal() != "pass-word-1" {
		t.Errorf("%v, %v, %v", notes, bad, err)
	}
	if s := fmt.Sprintf("%v %+v %#v", *notes[0], notes[0], notes[0].Password); strings.Contains(s, "pass-word") {
		t.Errorf("a secret is printed: %s", s)
	}
	if _, other, err := openNotebook(t.TempDir()); err != nil || other == owner {
		t.Errorf("two owners are one: %s, %v", other, err)
	}
	if _, _, err := openNotebook(""); !model.IsKind(err, model.KindInvalid) {
		t.Error(err)
	}
	if err := os.WriteFile(filepath.Join(dir, ownerFile), []byte("../x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := openNotebook(dir); !model.IsKind(err, model.KindUnavailable) {
		t.Error(err)
	}
}

// What is read from a note becomes names in the kernel's tree.
func FuzzNote(f *testing.F) {
	for _, n := range []*note{sample("a"), {Version: 1}} {
		b, _ := json.Marshal(n)
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		n, err := parseNote("a", b)
		if err != nil {
			return
		}
		for _, s := range append(append([]string{n.Name, n.VolumeID}, n.Initiators...), n.Portals...) {
			if s == "" || strings.ContainsAny(s, "/\x00\n") || s == ".." {
				t.Fatalf("%q is taken from %s", s, b)
			}
		}
	})
}

func TestConnection(t *testing.T) {
	n := sample("a")
	n.UserIn, n.PasswordIn, n.ReadOnly = "t", clear{"other-secret"}, true
	c := n.connection("6001405")
	d := c.Data
	if c.Type != "iscsi" || d["targetLun"] != 1 || d["authMethod"] != "CHAP" || d["authUserName"] != "u" || d["authPassword"] != model.Secret("pass-word-1") ||
		d["authUserNameIn"] != "t" || d["accessMode"] != "ro" || d["identity"] != "6001405" || d["targetDiscovered"] != true || d["volumeId"] != "v" {
		t.Errorf("%#v", d)
	}
	if fmt.Sprint(d["targetPortal"]) != "[10.0.0.1:3260 [fd00::1]:3260]" || len(d["targetIQN"].([]any)) != 2 {
		t.Errorf("%v, %v", d["targetPortal"], d["targetIQN"])
	}
	if s := fmt.Sprintf("%+v", c); strings.Contains(s, "secret") || strings.Contains(s, "pass-word") {
		t.Errorf("a secret is printed: %s", s)
	}
	n.Protocol, n.Portals = NVMe, []string{"[fd00::1]:4420"}
	if d := n.connection("x").Data; d["targetIP"] != "fd00::1" || d["targetPort"] != 4420 || d["transporType"] != "tcp" || d["targetNQN"] != n.Name {
		t.Errorf("%#v", d)
	}
}

func TestFreeRange(t *testing.T) {
	var taken [][2]int
	used := map[int]bool{}
	for i := range 1000 {
		lo, ok := freeRange(taken, 16)
		if !ok || lo < controllerFirst || lo+15 > controllerLast {
			t.Fatalf("%d: %d, %t", i, lo, ok)
		}
		for id := lo; id < lo+16; id++ {
			if used[id] {
				t.Fatalf("%d is given twice", id)
			}
			used[id] = true
		}
		taken = append(taken, [2]int{lo, lo + 15})
	}
	if _, ok := freeRange([][2]int{{controllerFirst, controllerLast}}, 1); ok {
		t.Error("a full range has room")
	}
	if lo, ok := freeRange([][2]int{{controllerFirst + 4, controllerFirst + 7}}, 4); !ok || lo != controllerFirst {
		t.Error(lo, ok)
	}
}

func TestSessionOf(t *testing.T) {
	if s := sessionOf("No active iSCSI Session for Initiator Endpoint: iqn.x:y"); s != "" {
		t.Error(s)
	}
	if s := sessionOf("InitiatorName: iqn.x:y\nInitiatorAlias: n\nLIO Session ID: 1"); s != "iqn.x:y" {
		t.Error(s)
	}
}

func TestAPTPL(t *testing.T) {
	file := "PR_REG_START: 0\ninitiator_fabric=iSCSI\ninitiator_node=iqn.a\nsa_res_key=2748\nPR_REG_END: 0\nPR_REG_START: 1\ninitiator_node=iqn.b\nPR_REG_END: 1\n"
	got := aptplRecords(file)
	if !slices.Equal(got, []string{"initiator_fabric=iSCSI,initiator_node=iqn.a,sa_res_key=2748", "initiator_node=iqn.b"}) {
		t.Errorf("%q", got)
	}
	if got := aptplRecords("No Registrations or Reservations\n"); len(got) != 0 {
		t.Errorf("%q", got)
	}
}

// Without what it needs an export is refused, and nothing is left of it.
func TestRefusals(t *testing.T) {
	dir := t.TempDir()
	none := func(context.Context, string) (string, error) { return "", model.Errorf(model.KindNotFound, "none") }
	m, err := Open(t.Context(), Config{StateDir: dir, Log: testLog(t)}, none)
	if err != nil {
		t.Fatal(err)
	}
	host := model.Host{HostName: "h", Initiators: []model.Initiator{{PortName: "iqn.a:b", Protocol: ISCSI}}}
	good := Request{AttachmentID: "a", VolumeID: "v", Device: "/dev/null", Protocol: ISCSI, Host: host}
	for what, change := range map[string]func(*Request){
		"bad attachment": func(r *Request) { r.AttachmentID = "../a" }, "bad volume": func(r *Request) { r.VolumeID = "a/b" },
		"no portals": func(*Request) {},
	} {
		r := good
		change(&r)
		if _, err := m.Export(t.Context(), r); !model.IsKind(err, model.KindInvalid) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if _, err := m.Export(t.Context(), Request{AttachmentID: "a", VolumeID: "v", Device: "/dev/null", Protocol: "rbd"}); !model.IsKind(err, model.KindUnsupported) {
		t.Error(err)
	}
	if err := m.Unexport(t.Context(), "a", false); err != nil {
		t.Error(err)
	}
	if err := m.Unexport(t.Context(), "../a", true); !model.IsKind(err, model.KindInvalid) {
		t.Error(err)
	}
	if _, why := m.Protocols(); why[ISCSI] == "" || why[NVMe] == "" {
		t.Errorf("%q", why)
	}
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	if err := m.Unexport(t.Context(), "a", false); !model.IsKind(err, model.KindUnavailable) {
		t.Error(err)
	}
	if es, err := os.ReadDir(filepath.Join(dir, notesDir)); err != nil || len(es) != 0 {
		t.Errorf("%v, %v", es, err)
	}
	for _, c := range []Config{{StateDir: dir, Target: "scst"}, {StateDir: dir, Mutual: true}, {StateDir: dir, Portals: []string{"x"}}, {}} {
		if _, err := Open(t.Context(), c, none); !model.IsKind(err, model.KindInvalid) {
			t.Errorf("%+v: %v", c, err)
		}
	}
}

package export

import (
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/osds-io/osds/internal/run"
	"github.com/osds-io/osds/pkg/drivers"
	"github.com/osds-io/osds/pkg/model"
)

const tgtShow = `Target 5: iqn.2017-10.io.opensds:att1
    System information:
        Driver: iscsi
        State: ready
    I_T nexus information:
        I_T nexus: 10
            Initiator: iqn.x:y alias: none
            Connection: 0
                IP Address: 127.0.0.1
    LUN information:
        LUN: 0
            Type: controller
            SCSI ID: IET     00050000
            SCSI SN: beaf50
            Online: Yes
            Backing store path: None
        LUN: 1
            Type: disk
            SCSI ID: id
            SCSI SN: 0123456789abcdef0123456789abcdef
            Size: 134 MB, Block size: 512
            Online: Yes
            Readonly: No
            Backing store type: rdwr
            Backing store path: /tmp/a: b
            Backing store flags: 
    Account information:
        u1
        t1 (outgoing)
    ACL information:
        iqn.x:y
Target 6: iqn.z
    System information:
        State: suspended
`

func TestParseTargets(t *testing.T) {
	want := []tgtTarget{
		{ID: 5, Name: "iqn.2017-10.io.opensds:att1", Ready: true, Sessions: []tgtSession{{ID: "10", Initiator: "iqn.x:y", Connections: []string{"0"}}},
			Units: []tgtUnit{{Number: 0, SCSIID: "IET     00050000", Serial: "beaf50", Path: "None", Online: true},
				{Number: 1, SCSIID: "id", Serial: "0123456789abcdef0123456789abcdef", Path: "/tmp/a: b", Online: true}},
			Accounts: []string{"u1", "t1 (outgoing)"}, Initiators: []string{"iqn.x:y"}},
		{ID: 6, Name: "iqn.z"},
	}
	if got := parseTargets(tgtShow); !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	if got := parsePortalList("Portal: 127.0.0.1:23260,1\nPortal: [::]:3260,1\nx\n"); !reflect.DeepEqual(got, []string{"127.0.0.1:23260", "[::]:3260"}) {
		t.Errorf("%q", got)
	}
	if got := parseAccounts("Account list:\n    u1\n    u2\n"); !reflect.DeepEqual(got, []string{"u1", "u2"}) {
		t.Errorf("%q", got)
	}
}

func FuzzParseTargets(f *testing.F) {
	f.Add(tgtShow)
	f.Add("Target 1: a\n    LUN information:\n            Online: Yes\n        LUN: x\n    I_T nexus information:\n            Connection: 0\n")
	f.Fuzz(func(t *testing.T, s string) {
		for _, x := range parseTargets(s) {
			if x.ID <= 0 || x.Name == "" {
				t.Fatalf("%+v", x)
			}
		}
		parsePortalList(s)
		parseAccounts(s)
	})
}

// tgtBench is a tgtd of the test's own, and a manager that uses it.
type tgtBench struct {
	*testing.T
	dir, portal string
	conf        Config
	m           *Manager
	size        map[string]string // files, by volume id
	daemon      *exec.Cmd
}

const tgtInitiator = "iqn.2000-01.lab:consumer"

func freePort(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func newTgtBench(t *testing.T, c Config) *tgtBench {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("root is needed for tgtd")
	}
	for _, p := range []string{"tgtd", "tgtadm", "iscsi-inq", "iscsi-readcapacity16"} {
		if _, err := exec.LookPath(p); err != nil {
			t.Skip(err, ": the packages tgt and libiscsi-bin are needed")
		}
	}
	dir, err := os.MkdirTemp("", "osds-t") // a socket's path must be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	t.Setenv("TGT_IPC_SOCKET", filepath.Join(dir, "s"))
	b := &tgtBench{T: t, dir: dir, portal: freePort(t), size: map[string]string{}}
	c.StateDir, c.Portals, c.Target, c.TgtControlPort, c.Log = filepath.Join(dir, "state"), []string{b.portal}, targetTGT, 7, testLog(t)
	b.conf = c
	b.start()
	t.Cleanup(b.end)
	b.open()
	return b
}

func (b *tgtBench) start() {
	b.Helper()
	first := freePort(b.T) // tgtd always listens somewhere
	b.daemon = exec.Command("tgtd", "-f", "-C", "7", "--iscsi", "portal="+first)
	if err := b.daemon.Start(); err != nil {
		b.Fatal(err)
	}
	g := newTGT(Config{Run: run.Exec{}, TgtControlPort: 7}, "")
	for end := time.Now().Add(20 * time.Second); g.can(b.Context()) != nil; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			b.Fatal("tgtd does not answer")
		}
	}
}

func (b *tgtBench) stop() {
	_ = b.daemon.Process.Kill()
	_ = b.daemon.Wait()
}

func (b *tgtBench) open() {
	b.Helper()
	m, err := Open(b.ctx(), b.conf, func(_ context.Context, id string) (string, error) {
		if f, ok := b.size[id]; ok {
			return f, nil
		}
		return "", model.Errorf(model.KindNotFound, "no volume %s", id)
	})
	if err != nil {
		b.Fatal(err)
	}
	b.m = m
}

func (b *tgtBench) ctx() context.Context {
	c, cancel := context.WithTimeout(context.Background(), time.Minute)
	b.Cleanup(cancel)
	return c
}

func (b *tgtBench) end() {
	for _, n := range b.m.all() {
		if err := b.m.Unexport(b.ctx(), n.AttachmentID, true); err != nil {
			b.Error(err)
		}
		if exists(b.m.servers[targetTGT].(*tgt).ownerFile(n.Name)) {
			b.Errorf("the mark of %s is left", n.Name)
		}
	}
	if got, err := b.m.servers[targetTGT].(*tgt).show(b.ctx()); err != nil || len(got) != 0 {
		b.Errorf("left: %+v, %v", got, err)
	}
	if err := b.m.Close(); err != nil {
		b.Error(err)
	}
	b.stop()
}

func (b *tgtBench) request() Request {
	b.Helper()
	r := Request{AttachmentID: model.NewID(), VolumeID: model.NewID(), Protocol: ISCSI,
		Host: model.Host{HostName: "consumer", Initiators: []model.Initiator{{PortName: tgtInitiator, Protocol: ISCSI}}}}
	r.Device = filepath.Join(b.dir, r.VolumeID+".img")
	b.size[r.VolumeID] = r.Device
	b.grow(r, 32)
	return r
}

func (b *tgtBench) grow(r Request, mb int64) {
	b.Helper()
	f, err := os.OpenFile(r.Device, os.O_CREATE|os.O_RDWR, 0o600)
	if err == nil {
		err = f.Truncate(mb << 20)
	}
	if err != nil {
		b.Fatal(err)
	}
	_ = f.Close()
}

func (b *tgtBench) export(r Request) model.Connection {
	b.Helper()
	c, err := b.m.Export(b.ctx(), r)
	if err != nil {
		b.Fatal(err)
	}
	return c
}

// url is how libiscsi's tools name a unit.
func url(c model.Connection, user, password string) string {
	u := "iscsi://"
	if user != "" {
		u += user + "%" + password + "@"
	}
	return u + c.Data["targetPortal"].([]any)[0].(string) + "/" + c.Data["targetIQN"].([]any)[0].(string) + "/" + strconv.Itoa(c.Data["targetLun"].(int))
}

func mine(c model.Connection) string {
	u, _ := c.Data["authUserName"].(string)
	p, _ := c.Data["authPassword"].(model.Secret)
	return url(c, u, p.Reveal())
}

// capacity asks as an initiator; 0 if it is refused.
func (b *tgtBench) capacity(initiator, url string) int64 {
	b.Helper()
	out, err := run.Exec{}.Run(b.ctx(), run.Cmd{Name: "iscsi-readcapacity16", Args: []string{"-i", initiator, url}})
	_, n, ok := strings.Cut(string(out.Stdout), "Total size:")
	if err != nil || !ok {
		b.Logf("%s: %v", initiator, err)
		return 0
	}
	size, err := strconv.ParseInt(strings.TrimSpace(n), 10, 64)
	if err != nil {
		b.Fatal(err)
	}
	return size
}

func TestTgtLife(t *testing.T) {
	b := newTgtBench(t, Config{CHAP: true, Mutual: true})
	r := b.request()
	c := b.export(r)
	if got := b.capacity(tgtInitiator, mine(c)); got != 32<<20 {
		t.Fatalf("the unit has %d bytes", got)
	}
	if b.capacity(tgtInitiator, url(c, c.Data["authUserName"].(string), "wrongwrong123")) != 0 {
		t.Error("a wrong CHAP secret was let in")
	}
	if b.capacity(tgtInitiator, url(c, "", "")) != 0 {
		t.Error("no CHAP at all was let in")
	}
	if b.capacity("iqn.2000-01.lab:stranger", mine(c)) != 0 {
		t.Error("a wrong initiator was let in")
	}
	out, err := run.Exec{}.Run(b.ctx(), run.Cmd{Name: "iscsi-inq", Args: []string{"-i", tgtInitiator, "-e", "1", "-c", "128", mine(c)}})
	if name, _ := Identity(ISCSI, r.VolumeID); err != nil || !strings.Contains(string(out.Stdout), name) || c.Data["identity"] != name {
		t.Errorf("identity: %s, %v, %v", out.Stdout, err, c.Data["identity"])
	}

	b.grow(r, 48)
	if err := b.m.Resized(b.ctx(), r.VolumeID); err != nil {
		t.Fatal(err)
	}
	if got := b.capacity(tgtInitiator, mine(c)); got != 48<<20 {
		t.Errorf("grown, the unit has %d bytes", got)
	}

	// Again, after a restart of the dock, after one of tgtd: the same.
	again := b.export(r)
	if !reflect.DeepEqual(c, again) {
		t.Errorf("it was %v and is %v", c.Data, again.Data)
	}
	if err := b.m.Close(); err != nil {
		t.Fatal(err)
	}
	b.open()
	if got := b.capacity(tgtInitiator, mine(c)); got != 48<<20 {
		t.Errorf("after a restart of the dock: %d", got)
	}
	if err := b.m.Close(); err != nil {
		t.Fatal(err)
	}
	b.stop()
	b.start()
	b.open()
	if got := b.capacity(tgtInitiator, mine(c)); got != 48<<20 {
		t.Errorf("after a restart of tgtd: %d", got)
	}
	if xs, err := b.m.List(b.ctx(), drivers.Page{}); err != nil || len(xs) != 1 || xs[0].VolumeID != r.VolumeID {
		t.Errorf("%+v, %v", xs, err)
	}
	if err := b.m.Unexport(b.ctx(), r.AttachmentID, false); err != nil {
		t.Fatal(err)
	}
	if b.capacity(tgtInitiator, mine(c)) != 0 {
		t.Error("let in after the end")
	}
	accounts, err := b.m.servers[targetTGT].(*tgt).adm(b.ctx(), "", "--op", "show", "--mode", "account")
	if err != nil || len(parseAccounts(accounts)) != 0 {
		t.Errorf("accounts: %q, %v", accounts, err)
	}
}

// A connected host keeps an export, unless it is cut off.
func TestTgtForce(t *testing.T) {
	b := newTgtBench(t, Config{})
	if _, err := exec.LookPath("iscsi-perf"); err != nil {
		t.Skip(err)
	}
	r := b.request()
	c := b.export(r)
	user := exec.Command("iscsi-perf", "-i", tgtInitiator, "-t", "60", mine(c))
	if err := user.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = user.Process.Kill(); _ = user.Wait() }()
	g := b.m.servers[targetTGT]
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		who, err := g.connected(b.ctx(), b.m.note(r.AttachmentID))
		if err != nil {
			t.Fatal(err)
		}
		if who == tgtInitiator {
			break
		}
		if time.Now().After(end) {
			t.Fatal("the user does not connect")
		}
	}
	if err := b.m.Unexport(b.ctx(), r.AttachmentID, false); !model.IsKind(err, model.KindBusy) {
		t.Errorf("while connected: %v", err)
	}
	if err := b.m.Unexport(b.ctx(), r.AttachmentID, true); err != nil {
		t.Fatal(err)
	}
	if got, err := g.live(b.ctx()); err != nil || len(got) != 0 {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestTgtReadOnlyAndOrphans(t *testing.T) {
	b := newTgtBench(t, Config{})
	if _, err := exec.LookPath("iscsi-test-cu"); err != nil {
		t.Skip(err)
	}
	r := b.request()
	r.ReadOnly = true
	c := b.export(r)
	test := func(c model.Connection, name string) (string, error) {
		out, err := run.Exec{}.Run(b.ctx(), run.Cmd{Name: "iscsi-test-cu", Args: []string{"--dataloss", "--test=" + name, "-i", tgtInitiator, mine(c)}})
		return string(out.Stdout) + string(out.Stderr), err
	}
	if out, err := test(c, "SCSI.ReadOnly.ReadOnlySBC"); err != nil || !strings.Contains(out, "passed") {
		t.Errorf("%s, %v", out, err)
	}
	w := b.request()
	wc := b.export(w)
	for _, name := range []string{"SCSI.Read10.Simple", "SCSI.Write10.Simple", "SCSI.Inquiry.*"} {
		if out, err := test(wc, name); err != nil {
			t.Errorf("%s: %s, %v", name, out, err)
		}
	}
	if err := b.m.Close(); err != nil {
		t.Fatal(err)
	}
	// One note is lost, and a stranger's target stands beside.
	if err := b.m.book.remove(r.AttachmentID); err != nil {
		t.Fatal(err)
	}
	g := b.m.servers[targetTGT].(*tgt)
	if _, err := g.adm(b.ctx(), "", "--op", "new", "--mode", "target", "--tid", "1", "--targetname", "iqn.2001-04.com.example:x"); err != nil {
		t.Fatal(err)
	}
	b.open()
	got, err := g.show(b.ctx())
	if _, foreign := got["iqn.2001-04.com.example:x"]; err != nil || len(got) != 2 || !foreign {
		t.Errorf("%+v, %v", got, err)
	}
	if _, err := g.adm(b.ctx(), "", "--op", "delete", "--mode", "target", "--tid", "1"); err != nil {
		t.Fatal(err)
	}
}

// Without tgtd the error says what to do.
func TestTgtNotRunning(t *testing.T) {
	t.Setenv("TGT_IPC_SOCKET", filepath.Join(t.TempDir(), "s"))
	err := newTGT(Config{Run: run.Exec{}}, "").can(t.Context())
	switch {
	case model.IsKind(err, model.KindUnsupported):
		t.Skip(err)
	case !model.IsKind(err, model.KindUnavailable) || !strings.Contains(err.Error(), "start it"):
		t.Error(err)
	}
}

// tgtd opens what it writes through with O_SYNC, also after it has grown.
func TestTgtWriteThrough(t *testing.T) {
	for _, setting := range []string{throughAuto, throughNever} {
		t.Run(setting, func(t *testing.T) {
			b := newTgtBench(t, Config{WriteThrough: setting})
			r := b.request()
			b.export(r)
			for range 2 {
				if got := b.opensSync(r.Device); got != (setting == throughAuto) {
					t.Errorf("opened with O_SYNC: %t", got)
				}
				b.grow(r, 64)
				if err := b.m.Resized(b.ctx(), r.VolumeID); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

// opensSync says whether tgtd has a file open with O_SYNC.
func (b *tgtBench) opensSync(path string) bool {
	b.Helper()
	proc := filepath.Join("/proc", strconv.Itoa(b.daemon.Process.Pid))
	fds, _ := os.ReadDir(filepath.Join(proc, "fd"))
	for _, fd := range fds {
		if at, err := os.Readlink(filepath.Join(proc, "fd", fd.Name())); err != nil || at != path {
			continue
		}
		info, _ := os.ReadFile(filepath.Join(proc, "fdinfo", fd.Name()))
		for _, line := range strings.Split(string(info), "\n") {
			if v, ok := strings.CutPrefix(line, "flags:"); ok {
				flags, err := strconv.ParseInt(strings.TrimSpace(v), 8, 64)
				if err != nil {
					b.Fatal(err)
				}
				return flags&unix.O_SYNC == unix.O_SYNC
			}
		}
	}
	b.Fatalf("tgtd does not have %s open", path)
	return false
}

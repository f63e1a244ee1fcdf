//go:build real

package connector

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/osds-io/osds/internal/faults"
	"github.com/osds-io/osds/internal/run"
	"github.com/osds-io/osds/pkg/model"
)

// The tests of this tag need a machine of their own: they make targets, load
// modules and start iscsid and multipathd. Outside of such a guest they skip.

const childEnv = "OSDS_TEST_CONNECTOR_CHILD"

func TestMain(m *testing.M) {
	if s := os.Getenv(childEnv); s != "" {
		os.Exit(child(s))
	}
	os.Exit(m.Run())
}

// order is what a child process is told to do.
type order struct {
	StateDir   string
	Multipath  string
	Detach     bool
	Force      bool
	Attachment string
	Volume     string
	Type       string
	Data       map[string]any
}

func child(s string) int {
	var o order
	if err := json.Unmarshal([]byte(s), &o); err != nil {
		fmt.Println(err)
		return 3
	}
	if err := faults.Arm(); err != nil {
		fmt.Println(err)
		return 3
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	c, err := New(ctx, Config{StateDir: o.StateDir, Multipath: o.Multipath})
	if err != nil {
		fmt.Println(err)
		return 3
	}
	r := Request{AttachmentID: o.Attachment, VolumeID: o.Volume, Connection: model.Connection{Type: o.Type, Data: o.Data}, Force: o.Force}
	if o.Detach {
		err = c.Detach(ctx, r)
	} else {
		_, err = c.Attach(ctx, r)
	}
	if err != nil {
		fmt.Println(err)
		return 4
	}
	return 0
}

// lab is the guest: its targets, its volume group, its daemons.
type lab struct {
	testing.TB
	iqn, nqn string
}

var startOnce sync.Once

func newLab(t testing.TB) *lab {
	t.Helper()
	if os.Getenv("OSDS_TEST_GUEST") == "" {
		t.Skip("needs a throw-away guest with LIO, nvmet and dm-multipath (OSDS_TEST_GUEST is not set)")
	}
	l := &lab{TB: t}
	startOnce.Do(func() {
		l.sh("modprobe", "-a", "iscsi_target_mod", "target_core_iblock", "nvmet-tcp", "iscsi_tcp", "nvme-tcp", "dm_multipath")
		l.sh("vgcreate", "-y", "vgt", "/dev/vdb")
		l.sh("iscsid")
		l.sh("multipathd")
		logrus.SetLevel(logrus.WarnLevel)
	})
	l.iqn = strings.TrimSpace(strings.TrimPrefix(l.read("/etc/iscsi/initiatorname.iscsi"), "InitiatorName="))
	l.nqn = l.read("/etc/nvme/hostnqn")
	return l
}

func (l *lab) sh(args ...string) string {
	l.Helper()
	out, err := exec.Command(args[0], args[1:]...).CombinedOutput()
	if err != nil {
		l.Fatalf("%s: %v: %s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

func (l *lab) try(args ...string) error {
	out, err := exec.Command(args[0], args[1:]...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return nil
}

func (l *lab) read(f string) string {
	l.Helper()
	b, err := os.ReadFile(f)
	if err != nil {
		l.Fatal(err)
	}
	return strings.TrimSpace(string(b))
}

func (l *lab) write(f, v string) {
	l.Helper()
	if err := os.WriteFile(f, []byte(v), 0); err != nil {
		l.Fatalf("%q into %s: %v", v, f, err)
	}
}

func (l *lab) mkdir(f string) {
	l.Helper()
	if err := os.MkdirAll(f, 0o755); err != nil {
		l.Fatal(err)
	}
}

func (l *lab) link(to, f string) {
	l.Helper()
	if err := os.Symlink(to, f); err != nil {
		l.Fatal(err)
	}
}

func (l *lab) context(d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	l.Cleanup(cancel)
	return ctx
}

// until waits for a state.
func (l *lab) until(what string, f func() bool) {
	l.Helper()
	for end := time.Now().Add(90 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if f() {
			return
		}
	}
	l.Fatalf("never: %s", what)
}

// volume makes a logical volume.
func (l *lab) volume(mb int) (id, dev string) {
	l.Helper()
	id = model.NewID()
	l.sh("lvcreate", "-y", "-Wn", "-L", fmt.Sprint(mb, "M"), "-n", id, "vgt")
	dev = "/dev/vgt/" + id
	l.Cleanup(func() {
		if err := l.try("lvremove", "-y", "vgt/"+id); err != nil {
			l.Error(err)
		}
	})
	return id, dev
}

const (
	chapSecret   = "secret12345678"
	chapSecretIn = "other12345678"

	lio   = "/sys/kernel/config/target"
	nvmet = "/sys/kernel/config/nvmet"
)

// iscsiTarget is a target by LIO with one logical unit.
type iscsiTarget struct {
	l                 *lab
	attachment        string
	volume, name      string
	tpg, store        string
	portals           []string
	user, pw, in, pin string
	identity          string
}

func (l *lab) iscsiTarget(volume, dev string, portals ...string) *iscsiTarget {
	l.Helper()
	x := &iscsiTarget{l: l, attachment: model.NewID(), volume: volume, portals: portals}
	x.name = iqnPrefix + x.attachment
	x.store = lio + "/core/iblock_0/" + volume
	x.tpg = lio + "/iscsi/" + x.name + "/tpgt_1"
	l.mkdir(x.store)
	l.write(x.store+"/control", "udev_path="+dev)
	l.write(x.store+"/wwn/vpd_unit_serial", volume)
	l.write(x.store+"/enable", "1")
	// LIO's own form: its company's number, and hex digits of the serial.
	x.identity = "6001405" + strings.ReplaceAll(volume, "-", "")[:25]
	l.mkdir(x.tpg + "/lun/lun_1")
	l.link(x.store, x.tpg+"/lun/lun_1/store")
	for _, p := range portals {
		l.mkdir(x.tpg + "/np/" + p)
	}
	l.write(x.tpg+"/attrib/generate_node_acls", "0")
	l.write(x.tpg+"/attrib/authentication", "0")
	l.Cleanup(x.remove)
	return x
}

// admit makes the access of one initiator.
func (x *iscsiTarget) admit(iqn string) {
	x.l.Helper()
	acl := x.tpg + "/acls/" + iqn
	x.l.mkdir(acl + "/lun_1")
	x.l.link(x.tpg+"/lun/lun_1", acl+"/lun_1/lun")
	x.l.write(x.tpg+"/enable", "1")
}

func (x *iscsiTarget) chap(mutual bool) {
	x.l.Helper()
	x.user, x.pw = "host", chapSecret
	acl := x.tpg + "/acls/" + x.l.iqn
	x.l.write(acl+"/auth/userid", x.user)
	x.l.write(acl+"/auth/password", x.pw)
	if mutual {
		x.in, x.pin = "target", chapSecretIn
		x.l.write(acl+"/auth/userid_mutual", x.in)
		x.l.write(acl+"/auth/password_mutual", x.pin)
	}
	x.l.write(x.tpg+"/attrib/authentication", "1")
}

func (x *iscsiTarget) request() Request {
	d := map[string]any{
		"targetDiscovered": true, "targetIQN": []any{x.name}, "targetLun": float64(1), "discard": true,
		"accessMode": "rw", "volumeId": x.volume, "identity": x.identity,
	}
	var ps []any
	for _, p := range x.portals {
		ps = append(ps, p)
	}
	d["targetPortal"] = ps
	if x.user != "" {
		d["authMethod"], d["authUserName"], d["authPassword"] = "CHAP", x.user, x.pw
	}
	if x.in != "" {
		d["authUserNameIn"], d["authPasswordIn"] = x.in, x.pin
	}
	return Request{AttachmentID: x.attachment, VolumeID: x.volume, Connection: model.Connection{Type: typeISCSI, Data: d}}
}

// remove takes the target away, whoever is connected.
func (x *iscsiTarget) remove() {
	if _, err := os.Stat(x.tpg); err != nil {
		return
	}
	_ = os.WriteFile(x.tpg+"/enable", []byte("0"), 0)
	for _, g := range []string{"/acls/*/lun_*/lun", "/lun/lun_*/store"} {
		each(x.tpg+g, os.Remove)
	}
	for _, g := range []string{"/acls/*/lun_*", "/acls/*", "/np/*", "/lun/lun_*", ""} {
		each(x.tpg+g, rmdir)
	}
	if err := errors.Join(rmdir(filepath.Dir(x.tpg)), rmdir(x.store)); err != nil {
		x.l.Error(err)
	}
}

func each(glob string, f func(string) error) {
	list, _ := filepath.Glob(glob)
	for _, p := range list {
		_ = f(p)
	}
}

func rmdir(p string) error { return os.Remove(p) }

// nvmeTarget is a subsystem by nvmet with one namespace.
type nvmeTarget struct {
	l                        *lab
	attachment, volume, name string
	sub                      string
	portals                  []string
}

func (l *lab) nvmeTarget(volume, dev, host string, portals ...string) *nvmeTarget {
	l.Helper()
	x := &nvmeTarget{l: l, attachment: model.NewID(), volume: volume, portals: portals}
	x.name = nqnPrefix + x.attachment
	x.sub = nvmet + "/subsystems/" + x.name
	l.mkdir(x.sub)
	l.mkdir(nvmet + "/hosts/" + host)
	l.write(x.sub+"/attr_allow_any_host", "0")
	l.link(nvmet+"/hosts/"+host, x.sub+"/allowed_hosts/"+host)
	ns := x.sub + "/namespaces/1"
	l.mkdir(ns)
	l.write(ns+"/device_path", dev)
	l.write(ns+"/device_uuid", volume)
	l.write(ns+"/device_nguid", volume)
	l.write(ns+"/enable", "1")
	for i, p := range portals {
		dir := fmt.Sprintf("%s/ports/%d", nvmet, i+1)
		if _, err := os.Stat(dir); err != nil {
			l.mkdir(dir)
			ip, port, _ := strings.Cut(p, ":")
			l.write(dir+"/addr_trtype", "tcp")
			l.write(dir+"/addr_adrfam", "ipv4")
			l.write(dir+"/addr_traddr", ip)
			l.write(dir+"/addr_trsvcid", port)
		}
		l.link(x.sub, dir+"/subsystems/"+x.name)
	}
	l.Cleanup(x.remove)
	return x
}

func (x *nvmeTarget) request() Request {
	ip, port, _ := strings.Cut(x.portals[0], ":")
	d := map[string]any{
		"targetNQN": x.name, "targetIP": ip, "targetPort": port, "hostNqn": x.l.nqn, "transporType": "tcp",
		"identity": strings.ReplaceAll(x.volume, "-", ""),
	}
	var ps []any
	for _, p := range x.portals {
		ps = append(ps, p)
	}
	d["targetPortals"] = ps
	return Request{AttachmentID: x.attachment, VolumeID: x.volume, Connection: model.Connection{Type: typeNVMe, Data: d}}
}

func (x *nvmeTarget) remove() {
	if _, err := os.Stat(x.sub); err != nil {
		return
	}
	each(nvmet+"/ports/*/subsystems/"+x.name, os.Remove)
	_ = os.WriteFile(x.sub+"/namespaces/1/enable", []byte("0"), 0)
	each(x.sub+"/allowed_hosts/*", os.Remove)
	if err := errors.Join(rmdir(x.sub+"/namespaces/1"), rmdir(x.sub)); err != nil {
		x.l.Error(err)
	}
	each(nvmet+"/ports/*", func(p string) error {
		if list, _ := filepath.Glob(p + "/subsystems/*"); len(list) > 0 {
			return nil
		}
		return rmdir(p)
	})
	each(nvmet+"/hosts/*", rmdir)
}

// connector opens one, with short timeouts.
func (l *lab) connector(conf Config) *Connector {
	l.Helper()
	if conf.StateDir == "" {
		conf.StateDir = l.TempDir()
	}
	if conf.LoginTimeout == 0 {
		conf.LoginTimeout = 3 * time.Second
	}
	// No secret may be among the arguments of a command.
	watch := run.Func(func(ctx context.Context, cmd run.Cmd) (run.Result, error) {
		for _, a := range cmd.Args {
			if strings.Contains(a, chapSecret) || strings.Contains(a, chapSecretIn) {
				l.Errorf("%s has a secret among its arguments", cmd.Name)
			}
		}
		return run.Exec{}.Run(ctx, cmd)
	})
	c, err := open(l.context(time.Minute), conf, &host{run: watch})
	if err != nil {
		l.Fatal(err)
	}
	l.Cleanup(func() {
		if err := c.Close(); err != nil {
			l.Error(err)
		}
	})
	return c
}

// clean fails the test if anything of an attachment is left on the host.
func (l *lab) clean(c *Connector) {
	l.Helper()
	if n := c.notes.all(); len(n) > 0 {
		l.Errorf("left: notes %+v", n)
	}
	if list, _ := os.ReadDir(c.conf.StateDir); len(list) > 0 {
		l.Errorf("left: %v", list)
	}
	for _, s := range c.h.sessions() {
		l.Errorf("left: session %+v", s)
	}
	for _, s := range c.h.controllers() {
		l.Errorf("left: controller %+v", s)
	}
	for _, g := range []string{"/etc/iscsi/nodes/*", "/etc/iscsi/.osds-*", "/sys/block/sd*", "/sys/block/nvme*"} {
		if list, _ := filepath.Glob(g); len(list) > 0 {
			l.Errorf("left: %v", list)
		}
	}
	for _, b := range c.h.names("sys/block") {
		if u := c.h.value("sys/block", b, "dm/uuid"); strings.HasPrefix(u, "mpath-") || strings.HasPrefix(u, "part") {
			l.Errorf("left: map %s %s", b, u)
		}
	}
	if b, err := os.ReadFile("/etc/multipath/wwids"); err == nil && strings.Contains(string(b), "\n/") {
		l.Errorf("left: %s", b)
	}
}

func (l *lab) attach(c *Connector, r Request) Device {
	l.Helper()
	d, err := c.Attach(l.context(time.Minute), r)
	if err != nil {
		l.Fatal(err)
	}
	return d
}

func (l *lab) detach(c *Connector, r Request) {
	l.Helper()
	if err := c.Detach(l.context(time.Minute), r); err != nil {
		l.Fatal(err)
	}
}

func (l *lab) kind(err error, k model.Kind, words ...string) {
	l.Helper()
	if !model.IsKind(err, k) {
		l.Fatalf("%v (%s), not %s", err, model.KindOf(err), k)
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			l.Errorf("%q says nothing of %q", err, w)
		}
	}
	l.Logf("as wanted: %.200s", err.Error())
}

//go:build real

package export

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/osds-io/osds/pkg/drivers"
	"github.com/osds-io/osds/pkg/model"
)

func TestLIOLife(t *testing.T) {
	b := newBench(t, Config{CHAP: true, Mutual: true})
	r := b.request(ISCSI)
	c := b.export(r)
	if c.Type != ISCSI || c.Data["targetLun"] != lun || c.Data["authMethod"] != "CHAP" {
		t.Errorf("%+v", c)
	}
	i := b.initiator(c, 0)

	// Refused: a wrong secret, a wrong secret of the target, a wrong name.
	i.set("node.session.auth.password", "wrongwrong123")
	if i.login() == nil {
		t.Fatal("a wrong CHAP secret was let in")
	}
	i.set("node.session.auth.password", c.Data["authPassword"].(model.Secret).Reveal())
	i.set("node.session.auth.password_in", "wrongwrong123")
	if i.login() == nil {
		t.Fatal("a target that did not prove itself was taken")
	}
	i.set("node.session.auth.password_in", c.Data["authPasswordIn"].(model.Secret).Reveal())
	iface := func(op ...string) { must(t, append([]string{"iscsiadm", "-m", "iface", "-I", "stranger"}, op...)...) }
	iface("--op", "new")
	defer iface("--op", "delete")
	iface("--op", "update", "-n", "iface.initiatorname", "-v", "iqn.2000-01.lab:stranger")
	if i.loginAs("stranger") == nil {
		t.Fatal("a wrong initiator was let in")
	}
	i = b.initiator(c, 0) // its records went with the stranger's

	if err := i.login(); err != nil {
		t.Fatal(err)
	}
	name, format := Identity(ISCSI, r.VolumeID)
	if format != "NAA" || c.Data["identity"] != name {
		t.Errorf("identity %s %s, the connection says %v", format, name, c.Data["identity"])
	}
	dev := scsiDisk(t, name)
	b.sameData(dev, r.Device, 7)

	b.kind("unexport while connected", b.m.Unexport(ctx(t), r.AttachmentID, false), model.KindBusy)
	again := b.export(r)
	if again.Data["authPassword"] != c.Data["authPassword"] {
		t.Error("the secret has changed")
	}
	b.sameData(dev, r.Device, 8) // it lives on

	// Reservations work, those that outlive a power cut too.
	must(t, "sg_persist", "--out", "--register", "--param-sark=abc", "--param-aptpl", dev)
	must(t, "sg_persist", "--out", "--reserve", "--param-rk=abc", "--prout-type=5", dev)

	// A restart of the dock changes nothing.
	b.reopen()
	b.sameData(dev, r.Device, 9)
	if xs, err := b.m.List(ctx(t), drivers.Page{}); err != nil || len(xs) != 1 || xs[0].AttachmentID != r.AttachmentID || xs[0].VolumeID != r.VolumeID {
		t.Errorf("%+v, %v", xs, err)
	}
	i.logout()
	if err := b.m.Unexport(ctx(t), r.AttachmentID, false); err != nil {
		t.Fatal(err)
	}
	if left := kernelHas(b.m.owner); len(left) > 0 {
		t.Errorf("left: %q", left)
	}
	if err := b.m.Unexport(ctx(t), r.AttachmentID, false); err != nil {
		t.Error("again:", err)
	}
	if i.login() == nil {
		t.Error("let in after the end")
	}

	// What was reserved for ever is so in the next export.
	c = b.export(r)
	i = b.initiator(c, 0)
	if err := i.login(); err != nil {
		t.Fatal(err)
	}
	dev = scsiDisk(t, name)
	if out := must(t, "sg_persist", "-k", dev); !strings.Contains(out, "0xabc") {
		t.Errorf("the reservation is gone: %s", out)
	}
	i.logout()
}

// A host's powers end when its target does, in the middle of writes.
func TestLIOForce(t *testing.T) {
	b := newBench(t, Config{})
	r := b.request(ISCSI)
	c := b.export(r)
	if _, ok := c.Data["authMethod"]; ok {
		t.Errorf("CHAP was not asked for: %+v", c)
	}
	i := b.initiator(c, 0)
	if err := i.login(); err != nil {
		t.Fatal(err)
	}
	dev := scsiDisk(t, c.Data["identity"].(string))
	b.sameData(dev, r.Device, 1)
	ended := make(chan error, 1)
	began := make(chan struct{})
	go func() {
		for n := 0; ; n++ {
			if err := writeBlock(dev, 2); err != nil {
				ended <- err
				return
			}
			if n == 20 {
				close(began)
			}
		}
	}()
	<-began
	if err := b.m.Unexport(ctx(t), r.AttachmentID, true); err != nil {
		t.Fatal(err)
	}
	if err := writeBlock(r.Device, 3); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-ended:
		t.Logf("the writer: %v", err)
	case <-time.After(30 * time.Second):
		t.Error("the writer goes on")
	}
	if got, err := readBlock(r.Device); err != nil || got != 3 {
		t.Errorf("written to after the fence: %d, %v", got, err)
	}
}

func TestLIOTwoPortalsAndReadOnly(t *testing.T) {
	b := newBench(t, Config{Portals: []string{addr1, addr2 + ":3299"}})
	r := b.request(ISCSI)
	r.ReadOnly = true
	c := b.export(r)
	for path := range 2 {
		i := b.initiator(c, path)
		if err := i.login(); err != nil {
			t.Fatal(err)
		}
		dev := scsiDisk(t, c.Data["identity"].(string))
		if attr("/sys/block/"+filepath.Base(dev)+"/ro") != "1" {
			t.Errorf("%s is writable", dev)
		}
		if _, err := readBlock(dev); err != nil {
			t.Error(err)
		}
		i.logout()
	}
	w := r
	w.ReadOnly = false
	_, err := b.m.Export(ctx(t), w)
	b.kind("the same, writable", err, model.KindExists)
}

func TestLIOGrowth(t *testing.T) {
	b := newBench(t, Config{})
	r := b.request(ISCSI)
	c := b.export(r)
	i := b.initiator(c, 0)
	if err := i.login(); err != nil {
		t.Fatal(err)
	}
	dev := scsiDisk(t, c.Data["identity"].(string))
	f := strings.TrimSpace(must(t, "losetup", "--noheadings", "--output", "BACK-FILE", r.Device))
	if err := os.Truncate(f, 100<<20); err != nil {
		t.Fatal(err)
	}
	must(t, "losetup", "--set-capacity", r.Device)
	if err := b.m.Resized(ctx(t), r.VolumeID); err != nil {
		t.Fatal(err)
	}
	i.node("-R")
	wait(t, "the new size", func() bool { n, _ := deviceSize(dev); return n == 100<<20 })
	i.logout()
}

// Several hosts share a volume, and its reservations.
func TestLIOShared(t *testing.T) {
	b := newBench(t, Config{})
	r := b.request(ISCSI)
	r.MultiAttach = true
	b.export(r)
	s := r
	s.AttachmentID, s.Host = model.NewID(), hostOf("iqn.2000-01.lab:other")
	b.export(s)
	alone := r
	alone.AttachmentID, alone.MultiAttach = model.NewID(), false
	_, err := b.m.Export(ctx(t), alone)
	b.kind("one that will not share", err, model.KindBusy)
	stores, _ := filepath.Glob(filepath.Join(configfsRoot, "target/core", throughStores, "*"))
	if got := b.m.Of(r.VolumeID); len(got) != 2 || len(stores) < 1 {
		t.Errorf("%q, %q", got, stores)
	}
	if err := b.m.Unexport(ctx(t), r.AttachmentID, false); err != nil {
		t.Fatal(err)
	}
	if !exists(b.m.servers[targetLIO].(*lio).stores(true).path(r.VolumeID)) {
		t.Error("the store went with the first of two exports")
	}
}

// restoreAfter removes everything from the kernel, as a restart of the host does.
func (b *bench) wipe() {
	b.Helper()
	for _, n := range b.m.all() {
		if err := b.m.servers[n.Target].remove(ctx(b), n); err != nil {
			b.Fatal(err)
		}
	}
}

func TestRestore(t *testing.T) {
	b := newBench(t, Config{CHAP: true})
	must(t, "modprobe", "nvme-tcp")
	is, nv, gone, ending := b.request(ISCSI), b.request(NVMe), b.request(ISCSI), b.request(NVMe)
	ci, cn := b.export(is), b.export(nv)
	b.export(gone)
	b.export(ending)
	if err := b.m.Close(); err != nil {
		t.Fatal(err)
	}
	// The end of one had begun, one's volume is gone, and the kernel is new.
	n := b.m.note(ending.AttachmentID).copyOf()
	n.Ending = true
	if err := b.m.book.write(n); err != nil {
		t.Fatal(err)
	}
	b.wipe()
	delete(b.devs, gone.VolumeID)
	newDev := b.loop(64) // devices have other names after a restart
	b.devs[is.VolumeID] = newDev
	b.open()
	xs, err := b.m.List(ctx(t), drivers.Page{})
	if err != nil || len(xs) != 2 {
		t.Fatalf("%+v, %v", xs, err)
	}
	for _, id := range []string{gone.AttachmentID, ending.AttachmentID} {
		if b.m.note(id) != nil {
			t.Errorf("%s is noted", id)
		}
	}
	i := b.initiator(ci, 0)
	if err := i.login(); err != nil { // with the secret of before
		t.Fatal(err)
	}
	b.sameData(scsiDisk(t, ci.Data["identity"].(string)), newDev, 5)
	i.logout()
	if err := connectNVMe(t, cn, 0, myNQN(t)); err != nil {
		t.Fatal(err)
	}
	b.sameData(nvmeDisk(t, cn.Data["identity"].(string)), nv.Device, 6)
	disconnectNVMe(t, cn)
}

// Targets of others are left alone; ours without a note are removed.
func TestOrphans(t *testing.T) {
	b := newBench(t, Config{})
	is, nv := b.request(ISCSI), b.request(NVMe)
	b.export(is)
	b.export(nv)
	other := newBench(t, Config{NVMePortals: []string{addr1 + ":4420"}})
	ois, onv := other.request(ISCSI), other.request(NVMe)
	other.export(ois)
	other.export(onv)
	foreign := filepath.Join(configfsRoot, "target/iscsi/iqn.2001-04.com.example:x")
	for _, d := range []string{foreign, foreign + "/tpgt_1", filepath.Join(configfsRoot, "nvmet/subsystems/nqn.2001-04.com.example:x"), filepath.Join(configfsRoot, "nvmet/ports/77")} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = os.Remove(d) })
	}
	if err := b.m.Close(); err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{is.AttachmentID, nv.AttachmentID} {
		if err := b.m.book.remove(id); err != nil {
			t.Fatal(err)
		}
	}
	b.open()
	for _, d := range []string{foreign + "/tpgt_1", filepath.Join(configfsRoot, "nvmet/subsystems/nqn.2001-04.com.example:x"), filepath.Join(configfsRoot, "nvmet/ports/77"),
		filepath.Join(configfsRoot, "target/iscsi", targetName(ISCSI, ois.AttachmentID)), filepath.Join(configfsRoot, "nvmet/subsystems", targetName(NVMe, onv.AttachmentID))} {
		if !exists(d) {
			t.Errorf("%s is gone", d)
		}
	}
	for _, d := range []string{filepath.Join(configfsRoot, "target/iscsi", targetName(ISCSI, is.AttachmentID)), filepath.Join(configfsRoot, "nvmet/subsystems", targetName(NVMe, nv.AttachmentID)),
		b.m.servers[targetLIO].(*lio).stores(true).path(is.VolumeID)} {
		if exists(d) {
			t.Errorf("%s is there", d)
		}
	}
	if xs, err := other.m.List(ctx(t), drivers.Page{}); err != nil || len(xs) != 2 {
		t.Errorf("the other backend's: %+v, %v", xs, err)
	}
}

//go:build real

package export

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/osds-io/osds/pkg/model"
)

func TestNVMeLife(t *testing.T) {
	b := newBench(t, Config{Portals: []string{addr1, addr2}})
	must(t, "modprobe", "nvme-tcp")
	r := b.request(NVMe)
	c := b.export(r)
	defer disconnectNVMe(t, c)
	if c.Type != NVMe || c.Data["transporType"] != "tcp" || c.Data["targetPort"] != 4420 || c.Data["hostNqn"] != myNQN(t) {
		t.Errorf("%+v", c)
	}
	if connectNVMe(t, c, 0, "nqn.2014-08.org.nvmexpress:uuid:99999999-0000-4000-8000-000000000009") == nil {
		t.Fatal("a wrong host was let in")
	}
	// Somebody else is connected on the same port.
	o := b.request(NVMe)
	oc := b.export(o)
	defer disconnectNVMe(t, oc)
	if err := connectNVMe(t, oc, 0, myNQN(t)); err != nil {
		t.Fatal(err)
	}
	if who, err := b.m.servers[targetNVMe].connected(ctx(t), b.m.note(r.AttachmentID)); err != nil || who != "" {
		t.Errorf("connected before: %q, %v", who, err)
	}
	for path := range 2 {
		if err := connectNVMe(t, c, path, myNQN(t)); err != nil {
			t.Fatal(err)
		}
	}
	name, format := Identity(NVMe, r.VolumeID)
	if format != "NGUID" || c.Data["identity"] != name {
		t.Errorf("identity %s %s, the connection says %v", format, name, c.Data["identity"])
	}
	dev := nvmeDisk(t, name)
	if w := attr("/sys/block/" + filepath.Base(dev) + "/wwid"); w != "uuid."+r.VolumeID {
		t.Errorf("wwid %s", w)
	}
	b.sameData(dev, r.Device, 7)
	b.kind("unexport while connected", b.m.Unexport(ctx(t), r.AttachmentID, false), model.KindBusy)

	// One path less.
	ports, _ := filepath.Glob(filepath.Join(configfsRoot, "nvmet/ports/*/subsystems/"+targetName(NVMe, r.AttachmentID)))
	if len(ports) != 2 {
		t.Fatalf("%q", ports)
	}
	if err := os.Remove(ports[0]); err != nil {
		t.Fatal(err)
	}
	b.sameData(dev, r.Device, 8)
	b.kind("unexport while one path is connected", b.m.Unexport(ctx(t), r.AttachmentID, false), model.KindBusy)
	b.export(r) // the same again heals it
	b.sameData(dev, r.Device, 9)

	f := strings.TrimSpace(must(t, "losetup", "--noheadings", "--output", "BACK-FILE", r.Device))
	if err := os.Truncate(f, 100<<20); err != nil {
		t.Fatal(err)
	}
	must(t, "losetup", "--set-capacity", r.Device)
	if err := b.m.Resized(ctx(t), r.VolumeID); err != nil {
		t.Fatal(err)
	}
	wait(t, "the new size", func() bool { n, _ := deviceSize(dev); return n == 100<<20 })

	b.reopen()
	b.sameData(dev, r.Device, 10)
	disconnectNVMe(t, c)
	wait(t, "an end without force", func() bool {
		err := b.m.Unexport(ctx(t), r.AttachmentID, false)
		if err != nil && !model.IsKind(err, model.KindBusy) {
			t.Fatal(err)
		}
		return err == nil
	})
	b.kind("the other's end while connected", b.m.Unexport(ctx(t), o.AttachmentID, false), model.KindBusy)
	if connectNVMe(t, c, 0, myNQN(t)) == nil {
		t.Error("let in after the end")
	}
}

func TestNVMeForce(t *testing.T) {
	b := newBench(t, Config{})
	must(t, "modprobe", "nvme-tcp")
	r := b.request(NVMe)
	c := b.export(r)
	defer disconnectNVMe(t, c)
	if err := connectNVMe(t, c, 0, myNQN(t)); err != nil {
		t.Fatal(err)
	}
	dev := nvmeDisk(t, c.Data["identity"].(string))
	ended, began := make(chan error, 1), make(chan struct{})
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
	case <-time.After(40 * time.Second):
		t.Error("the writer goes on")
	}
	if got, err := readBlock(r.Device); err != nil || got != 3 {
		t.Errorf("written to after the fence: %d, %v", got, err)
	}
	ro := b.request(NVMe)
	ro.ReadOnly = true
	_, err := b.m.Export(ctx(t), ro)
	b.kind("read-only", err, model.KindUnsupported)
}

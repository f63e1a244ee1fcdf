//go:build real

package export

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/osds-io/osds/pkg/model"
)

// testDisk is a whole disk that may be overwritten.
func testDisk(t testing.TB) string {
	for _, e := range []string{"OSDS_TEST_DEVICE", "OSDS_TEST_DISK"} {
		if d := os.Getenv(e); d != "" {
			return d
		}
	}
	if !exists("/dev/vdb") {
		t.Skip("no disk to overwrite: set OSDS_TEST_DEVICE")
	}
	return "/dev/vdb"
}

// thin makes thin volumes on a disk.
type thin struct {
	*testing.T
	disk  string
	count int
}

func newThin(t *testing.T) *thin {
	needKernel(t)
	must(t, "modprobe", "-a", "dm_thin_pool", "nvme-tcp")
	p := &thin{T: t, disk: testDisk(t)}
	must(t, "vgcreate", "-qq", "--yes", "throughvg", p.disk)
	t.Cleanup(func() { must(t, "vgremove", "-qq", "--yes", "throughvg"); must(t, "pvremove", "-qq", p.disk) })
	must(t, "lvcreate", "-qq", "--size", "1g", "--chunksize", "64k", "--thinpool", "pool", "throughvg")
	return p
}

func (p *thin) volume() string {
	p.Helper()
	p.count++
	name := "v" + strconv.Itoa(p.count)
	must(p, "lvcreate", "-qq", "--virtualsize", "256m", "--thin", "--name", name, "throughvg/pool")
	return "/dev/throughvg/" + name
}

// flushes is how many flushes the disk below has done.
func (p *thin) flushes() int {
	p.Helper()
	f := strings.Fields(attr("/sys/block/" + filepath.Base(p.disk) + "/stat"))
	if len(f) < 16 {
		p.Fatalf("%s does not say how often it was flushed: %q", p.disk, f)
	}
	n, err := strconv.Atoi(f[15])
	if err != nil {
		p.Fatal(err)
	}
	return n
}

// attach connects this host to an export and gives the device.
func (b *bench) attach(c model.Connection) string {
	b.Helper()
	if c.Type == NVMe {
		if err := connectNVMe(b, c, 0, myNQN(b)); err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { disconnectNVMe(b, c) })
		return nvmeDisk(b, c.Data["identity"].(string))
	}
	if err := b.initiator(c, 0).login(); err != nil {
		b.Fatal(err)
	}
	return scsiDisk(b, c.Data["identity"].(string))
}

// What is acknowledged is stable, with every write-through export: each write has
// flushed the disk below, without that anybody has asked for it.
func TestWriteThrough(t *testing.T) {
	p := newThin(t)
	for _, protocol := range []string{ISCSI, NVMe} {
		for _, setting := range []string{throughAuto, throughNever} {
			t.Run(protocol+"/"+setting, func(t *testing.T) {
				b := newBench(t, Config{WriteThrough: setting})
				r := b.request(protocol)
				r.Device = p.volume()
				b.devs[r.VolumeID] = r.Device
				dev := b.attach(b.export(r))
				if at := attr("/sys/block/" + filepath.Base(dev) + "/queue/write_cache"); setting == throughAuto && protocol == ISCSI && at != "write through" {
					t.Errorf("the host is told of a cache: %s", at)
				}
				f, err := os.OpenFile(dev, os.O_RDWR|unix.O_DIRECT, 0)
				if err != nil {
					t.Fatal(err)
				}
				defer f.Close()
				unstable, writes := 0, 0
				for range 2 { // of new blocks, and of ones that are there
					for i := range 16 {
						before := p.flushes()
						if _, err := f.WriteAt(aligned(), int64(i)*1<<20); err != nil {
							t.Fatal(err)
						}
						writes++
						if p.flushes() == before {
							unstable++
						}
					}
				}
				before := p.flushes()
				if _, err := f.WriteAt(alignedOf(1<<20), 64<<20); err != nil {
					t.Fatal(err)
				}
				large := p.flushes() - before
				t.Logf("%d of %d acknowledged writes have not flushed the disk; one of 1 MiB has flushed it %d times", unstable, writes, large)
				switch {
				case setting == throughAuto && unstable > 0:
					t.Error("what is acknowledged is not stable")
				case setting == throughAuto && (large < 1 || large > 64):
					t.Error("a large write is not stable, or each of its pages by itself")
				case setting == throughNever && unstable == 0:
					t.Error("every write has flushed the disk")
				}
				if out, err := command(t, "fio", "--name=x", "--filename="+dev, "--direct=1", "--ioengine=libaio", "--iodepth=8", "--rw=randwrite", "--bs=4k",
					"--size=128m", "--runtime=6", "--time_based", "--minimal"); err == nil {
					if v := strings.Split(out, ";"); len(v) > 48 {
						t.Logf("random writes of 4 KiB, 8 at a time: %s/s", v[48])
					}
				}
			})
		}
	}
}

func alignedOf(n int) []byte {
	b, err := unix.Mmap(-1, 0, n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		panic(err)
	}
	return b
}

// All exports of a volume are done in one way: those of an earlier version stay
// as they are, and so do others beside them, until the host was restarted.
func TestWriteThroughAdopted(t *testing.T) {
	for _, protocol := range []string{ISCSI, NVMe} {
		t.Run(protocol, func(t *testing.T) {
			b := newBench(t, Config{WriteThrough: throughNever})
			must(t, "modprobe", "nvme-tcp")
			r := b.request(protocol)
			r.MultiAttach = true
			dev := b.attach(b.export(r))
			b.conf.WriteThrough = throughAuto
			b.reopen()
			s := r
			s.AttachmentID, s.Host = model.NewID(), hostOf("iqn.2000-01.lab:other", "nqn.2014-08.org.nvmexpress:uuid:99999999-0000-4000-8000-000000000009")
			b.export(s)
			b.sameData(dev, r.Device, 4)
			for _, n := range b.m.all() {
				if n.WriteThrough {
					t.Errorf("%s writes through beside one that does not", n.Name)
				}
			}
			if left, _ := filepath.Glob(filepath.Join(configfsRoot, "target/core/fileio_*/osds.*")); len(left) > 0 {
				t.Errorf("%q", left)
			}
			// As after a restart of the host, with nothing there.
			if err := b.m.Close(); err != nil {
				t.Fatal(err)
			}
			b.wipe()
			b.open()
			for _, n := range b.m.all() {
				if !n.WriteThrough {
					t.Errorf("%s does not write through", n.Name)
				}
			}
			if protocol == NVMe {
				disconnectNVMe(t, b.m.note(r.AttachmentID).connection(""))
				dev = b.attach(b.export(r))
			}
			b.sameData(dev, r.Device, 5)
		})
	}
}

// The host does not look at what is on the disk in front of a volume, nor keeps
// it when the volume's last export ends; it comes back if it was taken away.
func TestFront(t *testing.T) {
	b := newBench(t, Config{})
	must(t, "modprobe", "nvme-tcp")
	r := b.request(NVMe)
	c := b.export(r)
	dev := b.attach(c)
	tr := &tree{ctx: ctx(t)}
	front := b.m.servers[targetNVMe].(*nvmet).front
	disk := front.path(tr, r.VolumeID)
	if checkDevice(disk) != nil || tr.err != nil {
		t.Fatalf("no disk %q, %v", disk, tr.err)
	}
	must(t, "mkfs.ext4", "-q", "-U", "5ca1ab1e-0000-4000-8000-000000000001", dev)
	must(t, "udevadm", "trigger", "--settle", disk)
	if out := must(t, "udevadm", "info", "--query=property", "--name="+disk); strings.Contains(out, "ID_FS") || !strings.Contains(out, "SYSTEMD_READY=0") {
		t.Errorf("udev looks at the disk: %s", out)
	}
	if l, err := filepath.EvalSymlinks(FrontLinks + filepath.Base(disk)); err != nil || l != disk {
		t.Errorf("%s, %v", l, err)
	}
	if who, err := Holder(ctx(t), r.Device); err != nil || who == "" {
		t.Errorf("nobody has the device, %v", err)
	}

	if err := os.WriteFile("/sys/block/"+filepath.Base(disk)+"/device/delete", []byte("1"), 0); err != nil {
		t.Fatal(err)
	}
	b.export(r)
	b.sameData(dev, r.Device, 3)

	disconnectNVMe(t, c)
	wait(t, "the end", func() bool { return b.m.Unexport(ctx(t), r.AttachmentID, false) == nil })
	if left := kernelHas(b.m.owner); len(left) > 0 {
		t.Errorf("left: %q", left)
	}
	if who, err := Holder(ctx(t), r.Device); err != nil || who != "" {
		t.Errorf("%s has the device, %v", who, err)
	}
}

//go:build real

package lvm

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/osds-io/osds/pkg/client"
	"github.com/osds-io/osds/pkg/model"
	"github.com/osds-io/osds/pkg/model/wire"
	"github.com/osds-io/osds/test/guest"
)

// protocols are what everything is shown with.
var protocols = []string{"iscsi", "nvmeof"}

// TestTwoHosts is the life of volumes between a storage host and a consumer, by
// REST alone, and what happens to data when a path, the storage host or the
// consumer is lost.
func TestTwoHosts(t *testing.T) {
	all := newSystem(t, guest.Config{Nodes: 2})
	for _, protocol := range protocols {
		for _, part := range []struct {
			name string
			fn   func(*system, string)
		}{
			{"life", testLife}, {"shared", testShared}, {"strangers", testStrangers}, {"path", testPathCut},
			{"storage", testStorageLost}, {"consumer", testConsumerLost}, {"frozen", testConsumerFrozen},
		} {
			t.Run(protocol+"/"+part.name, func(t *testing.T) {
				s := all.in(t)
				part.fn(s, protocol)
				if all.t.Failed() {
					return // what an earlier part left is not this one's
				}
				s.clean()
			})
		}
	}
	all.a.Quiet(limit)
	all.a.Doctor()
}

// in gives the same system for a subtest.
func (s *system) in(t *testing.T) *system {
	c := *s
	c.t, c.a = t, s.a.For(t)
	return &c
}

// volume makes a volume of 1 GB that a protocol reaches.
func (s *system) volume(protocol string) *wire.VolumeSpec {
	s.t.Helper()
	return s.a.Volume(wire.VolumeSpec{Size: 1, PoolID: s.pools[protocol], AvailabilityZone: "default", MultiAttach: false})
}

// attach attaches a volume to a machine that a dock serves, and gives the device.
func (s *system) attach(v *wire.VolumeSpec, n *guest.Node) (x *wire.VolumeAttachmentSpec, dev string) {
	s.t.Helper()
	x = s.a.Attach(v.ID, s.hosts[n.Name].ID)
	if !strings.HasPrefix(x.Mountpoint, "/dev/") {
		s.t.Fatalf("attached, and the device is %q: %+v", x.Mountpoint, x)
	}
	return x, x.Mountpoint
}

// target is the name of an attachment's target.
func target(t *testing.T, x *wire.VolumeAttachmentSpec) string {
	if x.ConnectionInfo.DriverVolumeType == "nvmeof" {
		return data[string](t, x, "targetNQN")
	}
	v := x.ConnectionInfo.Data["targetIQN"]
	if list, ok := v.([]any); ok && len(list) > 0 {
		v = list[0]
	}
	name, _ := v.(string)
	return name
}

// paths gives how many connections a machine has to an attachment's target.
func (s *system) paths(n *guest.Node, x *wire.VolumeAttachmentSpec) string {
	s.t.Helper()
	if x.ConnectionInfo.DriverVolumeType == "nvmeof" {
		return s.shell(n, "cat /sys/class/nvme/*/subsysnqn 2>/dev/null | grep -cxF "+guest.Quote(target(s.t, x))+" || true")
	}
	return s.shell(n, "cat /sys/class/iscsi_session/*/targetname 2>/dev/null | grep -cxF "+guest.Quote(target(s.t, x))+" || true")
}

// gone checks that nothing of an attachment is left on either side.
func (s *system) gone(n *guest.Node, x *wire.VolumeAttachmentSpec) {
	s.t.Helper()
	if p := s.paths(n, x); p != "0" {
		s.t.Errorf("%s still has %s connections to %s", n.Name, p, target(s.t, x))
	}
	if out := s.shell(s.store, "find /sys/kernel/config/target/iscsi /sys/kernel/config/nvmet/subsystems -maxdepth 1 -name "+guest.Quote("*"+x.ID+"*")+" 2>/dev/null || true"); out != "" {
		s.t.Errorf("the storage host still has the target %s", out)
	}
}

// fio writes to a file, or a device, at random places, and reads all of it back in
// the end; dev is the device below. It goes on beside the test until wait is called, which fails the test if anything
// was lost. It returns when writes are under way.
func (s *system) fio(n *guest.Node, dev, file string, writes int) (wait func()) {
	s.t.Helper()
	args := []string{"fio", "--name=load", "--filename=" + file, "--ioengine=libaio", "--direct=1", "--iodepth=4", "--rw=randwrite",
		"--bs=4k", fmt.Sprintf("--size=%dk", 4*writes), "--rate_iops=250", "--randrepeat=0", "--verify=crc32c", "--verify_fatal=1", "--do_verify=1"}
	done := make(chan error, 1)
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	before := s.written(n, dev)
	go func() { done <- n.Exec(ctx, guest.Cmd{Args: args}) }()
	s.until("fio writes", func() error {
		select {
		case err := <-done:
			done <- err
			return fmt.Errorf("it has ended: %w", err)
		default:
		}
		if w := s.written(n, dev); w < before+100 {
			return fmt.Errorf("%d writes", w-before)
		}
		return nil
	})
	return func() {
		s.t.Helper()
		defer cancel()
		if err := <-done; err != nil {
			s.t.Errorf("what was written is not what is read: %v", err)
		}
	}
}

// written is how many writes a device has completed.
func (s *system) written(n *guest.Node, dev string) (count int) {
	s.t.Helper()
	// NVMe's multipath device counts nothing in this kernel: its paths do.
	out := s.shell(n, `d=$(basename $(readlink -f `+guest.Quote(dev)+`)); sum=0
		paths=/sys/class/block/$(sed -E 's/^(nvme[0-9]+)(n[0-9]+)$/\1c*\2/' <<<$d)/stat
		for f in /sys/class/block/$d/stat $([ "$paths" = /sys/class/block/$d/stat ] || ls $paths 2>/dev/null); do
			set -- $(cat $f); sum=$((sum + $5))
		done; echo $sum`)
	if _, err := fmt.Sscan(out, &count); err != nil {
		s.t.Fatal(err)
	}
	return count
}

// size is how large a machine sees a device.
func (s *system) size(n *guest.Node, dev string) string {
	s.t.Helper()
	return s.shell(n, "blockdev --getsize64 "+guest.Quote(dev))
}

// clean checks that a test left nothing, and that the system thinks so too.
func (s *system) clean() {
	s.t.Helper()
	if s.t.Failed() {
		return
	}
	s.a.Quiet(limit)
	s.until("no debt is left", func() error {
		debts, err := s.a.Debts(s.a.Ctx())
		if err == nil && len(debts) > 0 {
			err = fmt.Errorf("%d are: %+v", len(debts), debts[0])
		}
		return err
	})
	s.a.Doctor()
	if out := s.shell(s.store, "lvs --noheadings -o lv_name @osds 2>/dev/null || true; lvs --noheadings -o lv_name,lv_tags | grep -i osds || true"); out != "" {
		s.t.Errorf("volumes are left:\n%s", out)
	}
	for _, n := range s.lab.Nodes {
		if out := s.shell(n, "ls -d /sys/class/iscsi_session/* /sys/class/nvme/* 2>/dev/null || true; dmsetup ls --target multipath | grep -v '^No devices' || true"); out != "" {
			s.t.Errorf("%s is left with:\n%s", n.Name, out)
		}
	}
	if out := s.shell(s.store, "ls -d /sys/kernel/config/target/iscsi/iqn.* /sys/kernel/config/target/core/*/osds* /sys/kernel/config/nvmet/subsystems/* /sys/kernel/config/nvmet/hosts/* 2>/dev/null || true"); out != "" {
		s.t.Errorf("the storage host's kernel still has:\n%s", out)
	}
}

// testLife: create, attach, mkfs, write, snapshot under load, grow online, revert,
// detach, delete.
func testLife(s *system, protocol string) {
	v := s.volume(protocol)
	x, dev := s.attach(v, s.host)
	if got := s.a.GetVolume(v.ID).Status; got != model.StatusInUse {
		s.t.Errorf("an attached volume is %s", got)
	}
	if got := s.paths(s.host, x); got != "2" {
		s.t.Errorf("%s paths, want one through each network", got)
	}
	const sum = "sha256sum /mnt/file | cut -d' ' -f1"
	want := s.shell(s.host, "mkfs.ext4 -q "+dev+"; mount "+dev+" /mnt; dd if=/dev/urandom of=/mnt/file bs=1M count=8 conv=fsync status=none; "+sum)

	load := s.fio(s.host, dev, "/mnt/load", 3000)
	grow := func() {
		s.t.Helper()
		s.a.Grow(v.ID, 2)
		s.until("the host sees the volume grown", func() error {
			if got := s.size(s.host, dev); got != fmt.Sprint(2<<30) {
				return fmt.Errorf("it sees %s bytes", got)
			}
			return nil
		})
		s.shell(s.host, "resize2fs "+dev+" 2>&1; test $(df --output=size -B1 /mnt | tail -1) -gt 1800000000")
	}
	// LVM grows a thick volume with snapshots only while nobody has it open.
	if protocol == "iscsi" {
		grow()
	}
	snap := s.a.Snapshot(v.ID, "under-load")
	if protocol != "iscsi" {
		grow()
	}
	load()

	after := s.shell(s.host, "dd if=/dev/urandom of=/mnt/file bs=1M count=8 conv=fsync status=none; echo new >/mnt/new; "+sum)
	if after == want {
		s.t.Error("the file is as before")
	}
	if err := s.a.Attachments.Delete(s.a.Ctx(), x.ID); err == nil {
		// A mounted file system holds the device: the detach cannot end well,
		// and says so.
		w, err := s.a.Wait(s.a.Ctx(), model.ResAttachment, x.ID, client.WaitOptions{Gone: true})
		if err == nil || w.Deleted {
			s.t.Errorf("a mounted device was detached: %+v, %v", w, err)
		} else {
			s.t.Logf("detach of a mounted device: %v", err)
		}
	} else {
		s.t.Fatal(err)
	}
	s.shell(s.host, "sha256sum /mnt/file; umount /mnt")
	s.a.Detach(x.ID)
	s.gone(s.host, x)
	if out := s.shell(s.host, "test -e "+dev+" && echo there || true"); out != "" {
		s.t.Errorf("%s is still there", dev)
	}

	r, err := s.a.RevertToSnapshot(s.a.Ctx(), snap.ID, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	// All of a thick volume is read, and compared: emulation is slow.
	if _, err := s.a.Wait(s.ctx(), model.ResVolume, v.ID, client.WaitOptions{TaskID: r.TaskID}); err != nil {
		s.t.Fatal(err)
	}
	x, dev = s.attach(v, s.host)
	got := s.shell(s.host, "mount "+dev+" /mnt; test ! -e /mnt/new; "+sum+"; umount /mnt; e2fsck -fn "+dev+" >&2")
	if got = lastWord(got); !strings.Contains(got, want) {
		s.t.Errorf("after the revert the file is %s, it was %s at the snapshot", got, want)
	}
	s.a.Detach(x.ID)
	s.a.DeleteSnapshot(snap.ID)
	s.a.DeleteVolume(v.ID)
}

func lastWord(s string) string { return strings.Join(strings.Fields(s), " ") }

// testStrangers: a target admits its host, with its secret, and nobody else.
func testStrangers(s *system, protocol string) {
	v := s.volume(protocol)
	const nqn = "nqn.2014-08.org.nvmexpress:uuid:00000000-0000-4000-8000-00000000cafe"
	iqn := "iqn.2004-10.com.example:stranger-" + protocol
	// No dock serves this one: it attaches by itself, with what REST tells it.
	h := s.register("stranger-"+protocol, "10.77.0.9", iqn, nqn)
	x := s.a.Attach(v.ID, h.ID)
	if protocol == "iscsi" {
		s.strangersISCSI(x, iqn)
	} else {
		s.strangersNVMe(x, nqn)
	}
	s.a.Detach(x.ID)
	s.gone(s.host, x)
	s.a.DeleteVolume(v.ID)
	if err := s.a.Hosts.Delete(s.a.Ctx(), h.ID); err != nil {
		s.t.Error(err)
	}
}

func (s *system) strangersISCSI(x *wire.VolumeAttachmentSpec, iqn string) {
	user, password := data[string](s.t, x, "authUserName"), data[string](s.t, x, "authPassword")
	portal := data[[]string](s.t, x, "targetPortal")[0]
	login := func(iface, user, password string) string {
		q := guest.Quote
		node := "iscsiadm -m node -T " + q(target(s.t, x)) + " -p " + q(portal) + " -I " + q(iface)
		set := ""
		kvs := [][2]string{{"node.session.initial_login_retry_max", "1"}, {"node.conn[0].timeo.login_timeout", "10"}}
		if user != "" {
			kvs = append(kvs, [][2]string{{"node.session.auth.authmethod", "CHAP"}, {"node.session.auth.username", user}, {"node.session.auth.password", password}}...)
		}
		for _, kv := range kvs {
			set += node + " -o update -n " + q(kv[0]) + " -v " + q(kv[1]) + "\n"
		}
		return "trap '" + strings.ReplaceAll(node, "'", `'"'"'`) + " --logout >/dev/null 2>&1 || true; " + strings.ReplaceAll(node, "'", `'"'"'`) + " -o delete >/dev/null 2>&1 || true' EXIT\n" +
			"iscsiadm -m iface -I " + q(iface) + " -o new >/dev/null 2>&1 || true\n" +
			"iscsiadm -m iface -I " + q(iface) + " -o update -n iface.initiatorname -v " + q(map[string]string{"right": iqn, "wrong": iqn + "x"}[iface]) + "\n" +
			node + " -o new >/dev/null\n" + set + node + " --login 2>&1\n"
	}
	s.shell(s.host, login("right", user, password)) // else the refusals below would prove nothing
	s.refused(s.host, "another initiator", login("wrong", user, password))
	s.refused(s.host, "a wrong secret", login("right", user, password[1:]+"x"))
	s.refused(s.host, "no secret", login("right", "", ""))
}

func (s *system) strangersNVMe(x *wire.VolumeAttachmentSpec, nqn string) {
	connect := func(host string) string {
		return fmt.Sprintf("trap 'nvme disconnect -n %[1]s >/dev/null 2>&1 || true' EXIT; nvme connect -t tcp -n %[1]s -a %[2]s -s %[3]v --hostnqn=%[4]s --hostid=%[5]s --ctrl-loss-tmo=0 2>&1; ls /sys/class/nvme/nvme*",
			target(s.t, x), data[string](s.t, x, "targetIP"), x.ConnectionInfo.Data["targetPort"], host, host[len(host)-36:])
	}
	s.shell(s.host, connect(nqn))
	s.refused(s.host, "another host NQN", connect(nqn[:len(nqn)-4]+"beef"))
	s.refused(s.host, "the consumer's own NQN", connect(s.host.HostNQN))
}

// testPathCut: one of two paths is lost without a word while the host writes.
func testPathCut(s *system, protocol string) {
	v := s.volume(protocol)
	x, dev := s.attach(v, s.host)
	if got := s.paths(s.host, x); got != "2" {
		s.t.Fatalf("%s paths", got)
	}
	wait := s.fio(s.host, dev, dev, 4000)
	// The second network: on the first one is also what osdslet and docks say.
	s.shell(s.host, "iptables -A INPUT -i eth2 -j DROP; iptables -A OUTPUT -o eth2 -j DROP")
	before := s.written(s.host, dev)
	s.until("writes go on without the path", func() error {
		if w := s.written(s.host, dev); w < before+200 {
			return fmt.Errorf("%d writes since", w-before)
		}
		return nil
	})
	s.shell(s.host, "iptables -F INPUT; iptables -F OUTPUT")
	wait()
	s.until("the path is back", func() error {
		if up := s.livePaths(x); up != "2" {
			return fmt.Errorf("%s paths are live", up)
		}
		return nil
	})
	s.a.Detach(x.ID)
	s.gone(s.host, x)
	s.a.DeleteVolume(v.ID)
}

// livePaths counts the consumer's connections that work.
func (s *system) livePaths(x *wire.VolumeAttachmentSpec) string {
	s.t.Helper()
	q := guest.Quote(target(s.t, x))
	if x.ConnectionInfo.DriverVolumeType == "nvmeof" {
		return s.shell(s.host, `n=0; for c in /sys/class/nvme/nvme*; do [ "$(cat $c/subsysnqn)" != `+q+` ] || [ "$(cat $c/state)" != live ] || n=$((n+1)); done; echo $n`)
	}
	return s.shell(s.host, `n=0; for c in /sys/class/iscsi_session/*; do [ "$(cat $c/targetname)" != `+q+` ] || [ "$(cat $c/state)" != LOGGED_IN ] || n=$((n+1)); done; echo $n`)
}

// testStorageLost: the storage host loses its power while the consumer writes. It
// comes back with the exports, before the consumer gives up; what had been
// acknowledged is there.
func testStorageLost(s *system, protocol string) {
	v := s.volume(protocol)
	idle := s.volume(protocol) // exported, with data at rest
	x, dev := s.attach(v, s.host)
	y, other := s.attach(idle, s.host)
	sum := s.shell(s.host, "dd if=/dev/urandom of=/tmp/rest bs=1M count=16 status=none; dd if=/tmp/rest of="+other+" bs=1M oflag=direct status=none; sha256sum </tmp/rest")
	wait := s.fio(s.host, dev, dev, 4000)
	s.t.Log("the storage host loses its power")
	s.store.PowerOff()
	if err := s.store.PowerOn(s.ctx()); err != nil {
		s.t.Fatal(err)
	}
	s.startStore()
	wait()
	s.waitReady()
	if got := s.shell(s.host, "dd if="+other+" bs=1M count=16 iflag=direct status=none | sha256sum"); got != sum {
		s.t.Error("data at rest is not what was acknowledged")
	}
	for _, a := range []*wire.VolumeAttachmentSpec{x, y} {
		now, err := s.a.Attachments.Get(s.a.Ctx(), a.ID)
		if err != nil || now.Status != model.StatusAvailable {
			s.t.Errorf("after the return the attachment is %+v, %v", now, err)
		}
		s.a.Detach(a.ID)
		s.gone(s.host, a)
		s.a.DeleteVolume(a.VolumeID)
	}
}

// force ends an attachment whose host does not answer.
func (s *system) force(x *wire.VolumeAttachmentSpec) {
	s.t.Helper()
	if err := s.a.Attachments.Delete(s.a.Ctx(), x.ID, client.Force()); err != nil {
		s.t.Fatalf("force-detach: %v", err)
	}
	s.a.Gone(model.ResAttachment, x.ID)
}

// testConsumerLost: the consumer loses its power; its volume is taken from it and
// given to another host, which finds what was synced. When the consumer is back it
// cannot reach the volume with what it knew.
func testConsumerLost(s *system, protocol string) {
	v := s.volume(protocol)
	x, dev := s.attach(v, s.host)
	s.shell(s.host, "mkfs.ext4 -q "+dev+"; mount "+dev+" /mnt; echo kept >/mnt/file; sync -f /mnt")
	s.shell(s.host, "for i in $(seq 1000); do echo $i >>/mnt/log; done")
	s.t.Log("the consumer loses its power")
	s.host.PowerOff()
	s.force(x)
	y, dev := s.attach(v, s.store)
	if got := s.shell(s.store, "mount "+dev+" /mnt; cat /mnt/file; echo other >/mnt/file; sync -f /mnt"); got != "kept" {
		s.t.Errorf("the other host reads %q", got)
	}
	if err := s.host.PowerOn(s.ctx()); err != nil {
		s.t.Fatal(err)
	}
	s.startHost()
	s.waitReady()
	if protocol == "iscsi" {
		s.refused(s.host, "the lost consumer", fmt.Sprintf(`
			iscsiadm -m node -T %[1]s -p %[2]s -o new >/dev/null
			trap 'iscsiadm -m node -T %[1]s -o delete >/dev/null 2>&1 || true' EXIT
			for kv in authmethod=CHAP username=%[3]s password=%[4]s; do iscsiadm -m node -T %[1]s -p %[2]s -o update -n node.session.auth.${kv%%%%=*} -v ${kv#*=}; done
			iscsiadm -m node -T %[1]s -p %[2]s -o update -n node.session.initial_login_retry_max -v 1
			iscsiadm -m node -T %[1]s -p %[2]s --login`,
			guest.Quote(target(s.t, x)), guest.Quote(data[[]string](s.t, x, "targetPortal")[0]), data[string](s.t, x, "authUserName"), data[string](s.t, x, "authPassword")))
	} else {
		s.refused(s.host, "the lost consumer", fmt.Sprintf("nvme connect -t tcp -n %s -a %s -s %v --ctrl-loss-tmo=0", target(s.t, x), data[string](s.t, x, "targetIP"), x.ConnectionInfo.Data["targetPort"]))
	}
	if got := s.shell(s.store, "umount /mnt; e2fsck -fp "+dev+" >&2; mount "+dev+" /mnt; cat /mnt/file; umount /mnt"); lastLine(got) != "other" {
		s.t.Errorf("then the file is %q", got)
	}
	s.a.Detach(y.ID)
	s.gone(s.store, y)
	s.gone(s.host, x)
	s.a.DeleteVolume(v.ID)
}

// testConsumerFrozen: the consumer stops in the middle of its writes, as a virtual
// machine that is stalled does, and loses its volume to another host. When it goes
// on, knowing nothing, none of its writes arrives.
func testConsumerFrozen(s *system, protocol string) {
	v := s.volume(protocol)
	x, dev := s.attach(v, s.host)
	s.shell(s.host, "cat >/tmp/writer <<-'E'\nwhile dd if=/dev/zero of="+dev+" bs=64k count=16 oflag=direct conv=notrunc status=none; do :; done; echo failed\nE")
	pid, err := s.host.Daemon(s.ctx(), "/tmp/writer.log", guest.Cmd{Args: []string{"bash", "/tmp/writer"}})
	if err != nil {
		s.t.Fatal(err)
	}
	before := s.written(s.host, dev)
	s.until("the consumer writes", func() error {
		if w := s.written(s.host, dev); w < before+20 {
			return fmt.Errorf("%d writes", w-before)
		}
		return nil
	})
	if err := s.host.Pause(); err != nil {
		s.t.Fatal(err)
	}
	s.force(x)
	y, mine := s.attach(v, s.store)
	s.shell(s.store, "yes mine | head -c 1M >/tmp/mine || true; dd if=/tmp/mine of="+mine+" bs=64k oflag=direct conv=notrunc status=none")
	if err := s.host.Resume(); err != nil {
		s.t.Fatal(err)
	}
	s.until("the consumer's writes fail", func() error {
		_, err := s.host.Shell(s.ctx(), "grep -q failed /tmp/writer.log")
		return err
	})
	_, _ = s.host.Shell(s.ctx(), fmt.Sprintf("kill %d 2>/dev/null", pid))
	if out := s.shell(s.store, "blockdev --flushbufs "+mine+"; cmp -n 1048576 /tmp/mine "+mine+" && echo same"); out != "same" {
		s.t.Errorf("the volume is not as the other host wrote it: %s", out)
	}
	// The consumer's dock is back too, and gives up what it still had.
	s.until("the consumer has given the device up", func() error {
		if p := s.paths(s.host, x); p != "0" {
			return fmt.Errorf("%s paths", p)
		}
		return nil
	})
	s.a.Detach(y.ID)
	s.gone(s.store, y)
	s.a.DeleteVolume(v.ID)
}

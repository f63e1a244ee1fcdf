//go:build real

package lvm

import (
	"strings"

	"github.com/osds-io/osds/pkg/client"
	"github.com/osds-io/osds/pkg/model"
	"github.com/osds-io/osds/pkg/model/wire"
	"github.com/osds-io/osds/test/guest"
)

// testShared: a volume for several hosts is on both at once, each sees what the
// other writes, and reservations hold between them; one that is not is refused to
// the second host; a read-only attachment cannot be written.
func testShared(s *system, protocol string) {
	hosts := []*guest.Node{s.host, s.store}
	single := s.volume(protocol)
	x, _ := s.attach(single, hosts[0])
	if _, err := s.a.Attachments.Create(s.a.Ctx(), &wire.VolumeAttachmentSpec{VolumeID: single.ID, HostID: s.hosts[hosts[1].Name].ID}); err == nil {
		s.t.Error("a volume that is not multi-attach was attached to a second host")
	} else {
		s.t.Logf("a second host of a single-attach volume: %v", err)
	}
	s.a.Detach(x.ID)
	s.readOnly(protocol, single)
	s.a.DeleteVolume(single.ID)

	v := s.a.Volume(wire.VolumeSpec{Size: 1, PoolID: s.pools[protocol], AvailabilityZone: "default", MultiAttach: true})
	var at []*wire.VolumeAttachmentSpec
	var devs []string
	for _, n := range hosts {
		x, dev := s.attach(v, n)
		at, devs = append(at, x), append(devs, dev)
	}
	const block = "bs=4k count=1 oflag=direct conv=notrunc status=none"
	for i, n := range hosts {
		want := "written by " + n.Name
		s.shell(n, "printf '%s\\n' "+guest.Quote(want)+" | dd of="+devs[i]+" seek=8 bs=4k oflag=direct conv=notrunc,sync status=none")
		got := s.shell(hosts[1-i], "dd if="+devs[1-i]+" skip=8 bs=4k count=1 iflag=direct status=none | head -1")
		if got != want {
			s.t.Errorf("%s reads %q, and %q was written", hosts[1-i].Name, got, want)
		}
	}
	if protocol == "iscsi" {
		s.reserved(hosts, devs)
	}
	s.a.Detach(at[0].ID)
	s.gone(hosts[0], at[0])
	if got := s.a.GetVolume(v.ID).Status; got != model.StatusInUse {
		s.t.Errorf("with one attachment of two left the volume is %s", got)
	}
	s.shell(hosts[1], "dd if=/dev/zero of="+devs[1]+" "+block)
	s.a.Detach(at[1].ID)
	s.gone(hosts[1], at[1])
	s.a.DeleteVolume(v.ID)
}

// readOnly attaches a volume read-only: over NVMe that is refused with the reason.
func (s *system) readOnly(protocol string, v *wire.VolumeSpec) {
	s.t.Helper()
	x, err := s.a.Attachments.Create(s.a.Ctx(), &wire.VolumeAttachmentSpec{VolumeID: v.ID, HostID: s.hosts[s.host.Name].ID, AttachMode: "ro"})
	if err != nil {
		s.t.Fatal(err)
	}
	_, err = s.a.Wait(s.a.Ctx(), model.ResAttachment, x.ID, client.WaitOptions{TaskID: x.TaskID})
	if protocol == "nvmeof" {
		if err == nil || !strings.Contains(err.Error(), "read-only") {
			s.t.Errorf("read-only over NVMe: %v", err)
		}
		s.a.Detach(x.ID)
		return
	}
	if err != nil {
		s.t.Fatal(err)
	}
	if x, err = s.a.Attachments.Get(s.a.Ctx(), x.ID); err != nil {
		s.t.Fatal(err)
	}
	s.shell(s.host, "dd if="+x.Mountpoint+" of=/dev/null bs=4k count=1 iflag=direct status=none")
	s.refused(s.host, "a write to a read-only attachment", "dd if=/dev/zero of="+x.Mountpoint+" bs=4k count=1 oflag=direct conv=notrunc 2>&1")
	s.a.Detach(x.ID)
}

// reserved has the first host reserve the volume for itself (SCSI-3 persistent
// reservations: write exclusive, registrants only), on all of its paths: the second
// reads, and cannot write until it is given back.
func (s *system) reserved(hosts []*guest.Node, devs []string) {
	s.t.Helper()
	dm := func(i int, script string) string {
		return "d=" + guest.Quote(devs[i]) + "; paths=$(ls /sys/class/block/$(basename $(readlink -f $d))/slaves)\n" + script
	}
	s.shell(hosts[0], dm(0, `for p in $paths; do sg_persist --out --register-ignore --param-sark=0xa1 /dev/$p >/dev/null; done
		sg_persist --out --reserve --param-rk=0xa1 --prout-type=5 /dev/$p >/dev/null`))
	s.shell(hosts[1], "dd if="+devs[1]+" of=/dev/null bs=4k count=1 iflag=direct status=none")
	s.refused(hosts[1], "a write to what another host has reserved", "dd if=/dev/zero of="+devs[1]+" bs=4k count=1 oflag=direct conv=notrunc 2>&1")
	s.shell(hosts[0], "dd if=/dev/zero of="+devs[0]+" bs=4k count=1 oflag=direct conv=notrunc status=none")
	// The end of its registrations is the end of the reservation; the other path is
	// told of that once, instead of an answer.
	s.shell(hosts[0], dm(0, `for p in $paths; do
			end="sg_persist --out --register --param-rk=0xa1 --param-sark=0 /dev/$p"
			$end 2>&1 || $end 2>&1
		done`))
	s.shell(hosts[1], "dd if=/dev/zero of="+devs[1]+" bs=4k count=1 oflag=direct conv=notrunc status=none")
}

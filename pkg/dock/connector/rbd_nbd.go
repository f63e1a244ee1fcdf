package connector

import (
	"context"
	"strings"

	"github.com/osds-io/osds/internal/faults"
	"github.com/osds-io/osds/internal/run"
	"github.com/osds-io/osds/pkg/model"
)

// rbdNBD maps images by rbd-nbd: librbd in a process, and the kernel's network
// block device.
type rbdNBD struct{ *cephClient }

const nbdProgram = "rbd-nbd"

func (x *rbdNBD) name() string { return RBDNBD }

func (x *rbdNBD) usable() error {
	if !x.h.installed(nbdProgram) {
		return model.Errorf(model.KindUnsupported, "rbd-nbd is not installed on this host; install the package rbd-nbd")
	}
	if !x.h.kernelHas("nbd", "sys/block/nbd0") {
		return model.Errorf(model.KindUnsupported, "the kernel has no module nbd")
	}
	return nil
}

func (x *rbdNBD) connect(ctx context.Context, n *note, key model.Secret) error {
	if err := x.h.module(ctx, "nbd", "sys/block/nbd0"); err != nil {
		return err
	}
	if d, _, err := x.find(n); err != nil || d.name != "" {
		return err
	}
	unlock, err := x.configure(n, key)
	if err != nil {
		return err
	}
	defer unlock()
	i := n.Target.RBD
	args := []string{"map", "-c", x.conf(n), "-n", "client." + i.User}
	if n.ReadOnly {
		args = append(args, "--read-only")
	}
	_, err = x.h.run.Run(ctx, run.Cmd{Name: nbdProgram, Args: append(args, i.String()), Secrets: []model.Secret{key}})
	faults.Point("connector.rbd.mapped")
	return cephError(err, "map", i)
}

// find looks for the device whose process is ours.
func (x *rbdNBD) find(n *note) (disk, string, error) {
	pids := x.pids(n, nbdProgram)
	for _, b := range x.h.names("sys/block") {
		if !strings.HasPrefix(b, "nbd") {
			continue
		}
		pid := x.h.value("sys/block", b, "pid")
		for _, p := range pids {
			if pid == itoa(uint32(p)) {
				return disk{name: b, size: x.h.size(b), detail: nbdProgram + " " + pid}, "", nil
			}
		}
	}
	return disk{}, n.Target.RBD.String() + " is not mapped", nil
}

// rescan has nothing to do: rbd-nbd tells the kernel of a new size.
func (x *rbdNBD) rescan(context.Context, *note, disk) error { return nil }

func (x *rbdNBD) teardown(ctx context.Context, n *note, d disk, cut bool) error {
	if cut {
		return x.kill(ctx, n, nbdProgram)
	}
	if d.name != "" {
		if _, err := x.h.run.Run(ctx, run.Cmd{Name: nbdProgram, Args: []string{"unmap", "-c", x.conf(n), x.h.devPath(d.name)}}); err != nil {
			return cephError(err, "unmap", n.Target.RBD)
		}
	}
	return x.ended(ctx, n, nbdProgram)
}

package connector

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/osds-io/osds/internal/faults"
	"github.com/osds-io/osds/pkg/model"
)

// rbdKernel maps images by the kernel's driver, through its files in sysfs: the
// key is in no argument and no file.
type rbdKernel struct {
	h     *host
	block func(ctx context.Context, what string, f func() error) error
}

const rbdBus = "sys/bus/rbd"

// kernelMount is how long the kernel may try to reach a monitor, in seconds.
const kernelMount = 10

func (k *rbdKernel) name() string { return RBDKernel }

func (k *rbdKernel) usable() error {
	if !k.h.kernelHas("rbd", rbdBus) {
		return model.Errorf(model.KindUnsupported, "the kernel has no module rbd")
	}
	return nil
}

// file gives the file for adding or removing: newer kernels have one that gives
// all devices one major number.
func (k *rbdKernel) file(op string) string {
	if k.h.exists(rbdBus, op+"_single_major") {
		return op + "_single_major"
	}
	return op
}

func (k *rbdKernel) connect(ctx context.Context, n *note, key model.Secret) error {
	if err := k.h.module(ctx, "rbd", rbdBus); err != nil {
		return err
	}
	if d, _, err := k.find(n); err != nil || d.name != "" {
		return err
	}
	i := n.Target.RBD
	// The first version of the protocol is the kernel's default, and the only
	// one of old kernels. Which one a port speaks its number says, or a try.
	modes := []string{"", "prefer-crc"}
	if i.Monitors[0].Port() == monPortV2 {
		modes = []string{"prefer-crc", ""}
	}
	var err error
	for _, mode := range modes {
		if err = k.add(ctx, n, key, mode); err == nil || ctx.Err() != nil {
			break
		}
		if !errors.Is(err, unix.ETIMEDOUT) && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ECONNREFUSED) {
			break
		}
	}
	faults.Point("connector.rbd.mapped")
	return err
}

func (k *rbdKernel) add(ctx context.Context, n *note, key model.Secret, mode string) error {
	i := n.Target.RBD
	opts := []string{"name=" + i.User, fmt.Sprintf("mount_timeout=%d", kernelMount), "secret=" + key.Reveal()}
	if i.Namespace != "" {
		opts = append(opts, "_pool_ns="+i.Namespace)
	}
	if i.FSID != "" {
		opts = append(opts, "fsid="+i.FSID)
	}
	if mode != "" {
		opts = append(opts, "ms_mode="+mode)
	}
	if n.ReadOnly {
		opts = append(opts, "ro")
	}
	spec := strings.Join([]string{i.monitors(), strings.Join(opts, ","), i.Pool, i.Name, "-"}, " ")
	err := k.block(ctx, "map of "+i.String(), func() error { return k.h.write(spec, rbdBus, k.file("add")) })
	return rbdError(err, "map", i)
}

// rbdError gives an error of the kernel's its kind.
func rbdError(err error, what string, i image) error {
	if err == nil || model.KindOf(err) == model.KindUnknownOutcome {
		return err
	}
	kind := model.KindInternal
	switch {
	case errors.Is(err, unix.ENOENT):
		kind = model.KindNotFound
	case errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM):
		kind = model.KindDenied
	case errors.Is(err, unix.ETIMEDOUT), errors.Is(err, unix.ECONNREFUSED), errors.Is(err, unix.EHOSTUNREACH), errors.Is(err, unix.ENETUNREACH), errors.Is(err, unix.EIO), errors.Is(err, unix.ESHUTDOWN):
		kind = model.KindUnavailable
	case errors.Is(err, unix.EBUSY):
		kind = model.KindBusy
	case errors.Is(err, unix.ENXIO), errors.Is(err, unix.EINVAL):
		kind = model.KindUnsupported
		err = fmt.Errorf("%w; the kernel's log says which feature of the image or option it does not know", err)
	}
	return model.Errorf(kind, "%s of %s: %w", what, i, err)
}

func (k *rbdKernel) find(n *note) (disk, string, error) {
	i := n.Target.RBD
	for _, id := range k.h.names(rbdBus, "devices") {
		v := func(f string) string { return k.h.value(rbdBus, "devices", id, f) }
		if v("name") != i.Name || v("pool") != i.Pool || v("pool_ns") != i.Namespace || v("current_snap") != "-" {
			continue
		}
		if fsid := v("cluster_fsid"); i.FSID != "" && fsid != "" && fsid != i.FSID {
			continue
		}
		d := disk{name: "rbd" + id, detail: v("client_addr")}
		d.size = k.h.size(d.name)
		return d, "", nil
	}
	return disk{}, i.String() + " is not mapped", nil
}

// rescan reads the image's header again. The kernel does that by itself when it
// is told of a change, unless the word was lost.
func (k *rbdKernel) rescan(ctx context.Context, n *note, d disk) error {
	err := k.block(ctx, "refresh of "+d.name, func() error {
		return k.h.write("1", rbdBus, "devices", strings.TrimPrefix(d.name, "rbd"), "refresh")
	})
	return rbdError(err, "refresh", n.Target.RBD)
}

func (k *rbdKernel) teardown(ctx context.Context, n *note, d disk, cut bool) error {
	if d.name == "" {
		return nil
	}
	spec := strings.TrimPrefix(d.name, "rbd")
	if cut {
		// Waiting requests fail, whoever holds the device.
		spec += " force"
	}
	err := k.block(ctx, "unmap of "+d.name, func() error { return k.h.write(spec, rbdBus, k.file("remove")) })
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	return rbdError(err, "unmap", n.Target.RBD)
}

func (k *rbdKernel) forget(context.Context, *note) error { return nil }

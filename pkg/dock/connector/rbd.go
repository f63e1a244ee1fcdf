package connector

import (
	"context"
	"path/filepath"
	"strings"

	"github.com/osds-io/osds/internal/faults"
	"github.com/osds-io/osds/pkg/drivers"
	"github.com/osds-io/osds/pkg/model"
)

// rbd attaches images of Ceph clusters, in one of several ways.
type rbd struct {
	h    *host
	conf Config
	ways []rbdWay
	// client is what the ways with processes have in common.
	client *cephClient
	// save writes the note: which way is taken is known before it is taken.
	save func(note) error
}

// rbdWay is one way in which an image becomes a block device. Its methods are
// those of protocol, for an attachment that takes it.
type rbdWay interface {
	// name is what Config.RBD calls it.
	name() string
	usable() error
	connect(ctx context.Context, n *note, key model.Secret) error
	find(n *note) (d disk, why string, err error)
	rescan(ctx context.Context, n *note, d disk) error
	teardown(ctx context.Context, n *note, d disk, cut bool) error
	forget(ctx context.Context, n *note) error
}

func newRBD(c *Connector) *rbd {
	cl := &cephClient{h: c.h, dir: filepath.Join(c.conf.StateDir, "rbd"), block: c.block}
	return &rbd{h: c.h, conf: c.conf, client: cl, save: c.notes.put, ways: []rbdWay{
		&rbdKernel{h: c.h, block: c.block}, &rbdNBD{cephClient: cl}, &rbdFuse{cephClient: cl},
	}}
}

// choose gives the way that a new attachment takes.
func (r *rbd) choose() (rbdWay, error) {
	var why []string
	for _, w := range r.ways {
		if r.conf.RBD != RBDAuto && r.conf.RBD != w.name() {
			continue
		}
		err := w.usable()
		if err == nil {
			return w, nil
		}
		why = append(why, w.name()+": "+err.Error())
	}
	return nil, model.Errorf(model.KindUnsupported, "this host cannot attach images of Ceph: %s", strings.Join(why, "; "))
}

// way gives the way that an attachment has taken; nil if none.
func (r *rbd) way(n *note) rbdWay {
	for _, w := range r.ways {
		if w.name() == n.RBD {
			return w
		}
	}
	return nil
}

func (r *rbd) usable() error { _, err := r.choose(); return err }

// initiators are the addresses that this host's clients can have: Ceph knows a
// client by nothing else, and cuts it off by that. Which of them a client has is
// found when it connects, by the way to the monitors there is then; so all of them
// are told.
func (r *rbd) initiators() []model.Initiator {
	addrs := r.conf.RBDAddresses
	if len(addrs) == 0 {
		addrs = r.h.addresses()
	}
	var out []model.Initiator
	for _, a := range addrs {
		out = append(out, model.Initiator{PortName: a, Protocol: typeRBD})
	}
	return out
}

func (r *rbd) connect(ctx context.Context, n *note, fresh bool) (warn string, err error) {
	w := r.way(n)
	if w == nil {
		if w, err = r.choose(); err != nil {
			return "", err
		}
		n.RBD = w.name()
		if err := r.save(*n); err != nil {
			return "", err
		}
		faults.Point("connector.rbd.chosen")
	}
	if err := w.usable(); err != nil {
		return "", err
	}
	key := n.Target.RBD.secret
	if key == "" {
		key = r.h.hostSecret(r.conf.CephDir, n.Target.RBD.User)
	}
	if key == "" {
		return "", model.Errorf(model.KindDenied, "there is no key of client.%s: the connection brings none, and %s/ceph.client.%s.keyring has none", n.Target.RBD.User, r.conf.CephDir, n.Target.RBD.User)
	}
	return "", w.connect(ctx, n, key)
}

func (r *rbd) find(n *note) (d disk, why string, err error) {
	w := r.way(n)
	if w == nil {
		return disk{}, "nothing was begun", nil
	}
	if d, why, err = w.find(n); d.name != "" {
		d.members = []string{d.name}
		d.identity = identityOf(n)
		d.detail = strings.TrimSuffix(w.name()+", "+n.Target.RBD.String()+", "+d.detail, ", ")
	}
	return d, why, err
}

// identityOf gives what the volume is known by. An RBD image says nothing of
// itself to who has it as a device; it is known by its name, which has the
// volume's id.
func identityOf(n *note) string {
	if n.Target.Identity != "" {
		return n.Target.Identity
	}
	id, _ := drivers.NAA(n.VolumeID)
	return id
}

func (r *rbd) rescan(ctx context.Context, n *note, d disk) error {
	if w := r.way(n); w != nil && d.name != "" {
		return w.rescan(ctx, n, d)
	}
	return nil
}

func (r *rbd) teardown(ctx context.Context, n *note, d disk, _, cut bool) error {
	if w := r.way(n); w != nil {
		return w.teardown(ctx, n, d, cut)
	}
	return nil
}

func (r *rbd) forget(ctx context.Context, n *note) error {
	if w := r.way(n); w != nil {
		return w.forget(ctx, n)
	}
	return nil
}

// kernelHas says whether the kernel has a driver, built in or as a module that
// could be loaded.
func (h *host) kernelHas(module string, shows ...string) bool {
	if h.exists(shows...) {
		return true
	}
	release := h.value("proc/sys/kernel/osrelease")
	for _, list := range []string{"modules.dep", "modules.builtin"} {
		for _, l := range strings.Split(h.value("lib/modules", release, list), "\n") {
			f, _, _ := strings.Cut(l, ":")
			if base := filepath.Base(f); base == module+".ko" || strings.HasPrefix(base, module+".ko.") {
				return true
			}
		}
	}
	return false
}

package connector

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/osds-io/osds/internal/faults"
	"github.com/osds-io/osds/internal/keylock"
	"github.com/osds-io/osds/internal/run"
	"github.com/osds-io/osds/pkg/model"
)

// iscsi attaches over iSCSI by open-iscsi: iscsiadm for logins, iscsid keeps the
// sessions. Which sessions and devices there are is read from sysfs.
type iscsi struct {
	h    *host
	conf Config
	mp   multipath
	// save writes the note; a device is claimed only when that is noted.
	save func(note) error
	// db is held while open-iscsi's records are added to or removed.
	db keylock.Set

	dialer dialer
}

const (
	iscsidSocket  = "@ISCSIADM_ABSTRACT_NAMESPACE"
	initiatorFile = "etc/iscsi/initiatorname.iscsi"
)

// Exit codes of iscsiadm.
const (
	exitDatabase   = 6
	exitTimeout    = 8
	exitExists     = 15
	exitRefused    = 19
	exitNoDaemon   = 20
	exitNoObjects  = 21
	exitAuthFailed = 24
)

func (i *iscsi) usable() error {
	if !i.h.installed("iscsiadm") {
		return model.Errorf(model.KindUnsupported, "iscsiadm is not installed on this host; install the package open-iscsi")
	}
	if i.iqn() == "" {
		return model.Errorf(model.KindUnsupported, "/%s has no InitiatorName of this host; it comes with the package open-iscsi", initiatorFile)
	}
	if !i.h.listens(iscsidSocket) {
		return model.Errorf(model.KindUnsupported, "iscsid does not run on this host: systemctl enable --now iscsid.socket, or start iscsid where there is no systemd")
	}
	return nil
}

// iqn is this host's name; empty if it has none.
func (i *iscsi) iqn() string {
	for _, l := range strings.Split(i.h.value(initiatorFile), "\n") {
		k, v, ok := strings.Cut(strings.TrimSpace(l), "=")
		v = strings.TrimSpace(v)
		if ok && strings.TrimSpace(k) == "InitiatorName" && iscsiName.MatchString(v) {
			return v
		}
	}
	return ""
}

func (i *iscsi) initiators() []model.Initiator { return initiator(i.iqn(), typeISCSI) }

// wantsMap says whether an attachment's device is a multipath map.
func (i *iscsi) wantsMap(t *target) bool {
	switch i.conf.Multipath {
	case MultipathSingle:
		return false
	case MultipathAlways:
		return true
	}
	return len(t.Portals) > 1
}

// connect logs in to every portal that has no session. It is nil if there is a
// session at the end; warn says what is missing then.
func (i *iscsi) connect(ctx context.Context, n *note, fresh bool) (warn string, err error) {
	if err := i.usable(); err != nil {
		return "", err
	}
	if err := i.h.module(ctx, "iscsi_tcp", "sys/class/iscsi_transport/tcp"); err != nil {
		return "", err
	}
	if i.wantsMap(&n.Target) {
		if err := i.mp.usable(); err != nil {
			return "", err
		}
		if err := i.h.module(ctx, "dm_multipath", "sys/module/dm_multipath"); err != nil {
			return "", err
		}
		if n.WWID != "" {
			if err := i.mp.claim(ctx, n.WWID); err != nil {
				return "", err
			}
			faults.Point("connector.attach.claimed")
		}
	}
	have := i.h.sessionsOf(&n.Target)
	if i.conf.Multipath == MultipathSingle {
		return i.connectOne(ctx, n, have, fresh)
	}
	var missing []portal
	for _, p := range n.Target.Portals {
		if _, ok := have[p]; !ok {
			missing = append(missing, p)
		}
	}
	errs := i.dialer.all(ctx, missing, len(have) > 0, func(ctx context.Context, p portal) error {
		return i.dial(ctx, &n.Target, p, fresh)
	})
	if len(have) == 0 && len(errs) == len(missing) {
		return "", loginError(errs)
	}
	if len(errs) > 0 {
		warn = fmt.Sprintf("%d of %d portals cannot be reached: %v", len(errs), len(n.Target.Portals), errors.Join(errs...))
	}
	return warn, nil
}

// connectOne uses the first portal that answers.
func (i *iscsi) connectOne(ctx context.Context, n *note, have map[portal]session, fresh bool) (warn string, err error) {
	if len(n.Target.Portals) > 1 {
		warn = fmt.Sprintf("one of %d portals is used, because connector.multipath is single", len(n.Target.Portals))
	}
	if len(have) > 0 {
		return warn, nil
	}
	var errs []error
	for _, p := range n.Target.Portals {
		if err := i.dial(ctx, &n.Target, p, fresh); err == nil {
			return warn, nil
		} else {
			errs = append(errs, err)
		}
	}
	return "", loginError(errs)
}

// dial logs in to one portal. To end iscsiadm would not end what iscsid does for
// it, so it is left to run.
func (i *iscsi) dial(ctx context.Context, t *target, p portal, fresh bool) error {
	own := *t // the login may outlive the call that t belongs to
	t = &own
	there := func() bool { _, ok := i.h.sessionsOf(t)[p]; return ok }
	return i.dialer.dial(ctx, p, there, func() error {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*(loginRetries+1)*i.conf.LoginTimeout+10*time.Second)
		defer cancel()
		return i.login(ctx, t, p, fresh)
	})
}

// login makes the record of a portal and logs in.
func (i *iscsi) login(ctx context.Context, t *target, p portal, fresh bool) error {
	if err := i.record(ctx, t, p, fresh); err != nil {
		return err
	}
	faults.Point("connector.attach.record")
	err := i.iscsiadm(ctx, t.Auth.secrets(), exitExists, "-m", "node", "-T", p.Name, "-p", p.Addr.String(), "--login")
	if err != nil {
		return loginFailed(p, err)
	}
	faults.Point("connector.attach.login")
	return nil
}

// iscsiadm runs one command of open-iscsi. It is run again if another process
// has changed the records under it: iscsiadm reads all of them, and fails over
// one that goes meanwhile.
func (i *iscsi) iscsiadm(ctx context.Context, secrets []model.Secret, ok int, args ...string) error {
	c := run.Cmd{Name: "iscsiadm", Args: args, Secrets: secrets}
	if ok != 0 {
		c.OK = []int{ok}
	}
	for pause := 20 * time.Millisecond; ; pause *= 2 {
		r, err := i.h.run.Run(ctx, c)
		if err == nil || r.ExitCode != exitDatabase && r.ExitCode != exitNoObjects {
			return err
		}
		if pause > time.Second || sleep(ctx, pause) != nil {
			return err
		}
	}
}

// loginFailed gives a failed login its kind.
func loginFailed(p portal, err error) error {
	var re *run.Error
	if !errors.As(err, &re) {
		return err
	}
	switch re.ExitCode {
	case exitAuthFailed:
		return model.Errorf(model.KindDenied, "%s refuses this host: its name is not admitted, or the CHAP secret is wrong: %w", p, err)
	case exitRefused:
		return model.Errorf(model.KindDenied, "login to %s failed for good: the target refuses it, or its own CHAP secret is not the one that was given: %w", p, err)
	case exitTimeout:
		return model.Errorf(model.KindUnavailable, "%s does not answer, or has no such target: %w", p, err)
	case exitNoDaemon:
		return model.Errorf(model.KindUnavailable, "iscsid does not answer: %w", err)
	}
	if re.ExitCode > 0 {
		return model.Errorf(model.KindUnavailable, "login to %s: %w", p, err)
	}
	return err
}

// loginError is the error where no portal let us in: a refusal counts more than
// silence.
func loginError(errs []error) error {
	best := errs[0]
	for _, e := range errs {
		if model.IsKind(e, model.KindDenied) {
			best = e
			break
		}
	}
	if len(errs) == 1 {
		return best
	}
	return model.Errorf(model.KindOf(best), "none of %d portals can be used: %w", len(errs), errors.Join(errs...))
}

// find gives the device as it is now. why says what is still missing.
func (i *iscsi) find(n *note) (d disk, why string, err error) {
	have := i.h.sessionsOf(&n.Target)
	if len(have) == 0 {
		if name, members := i.h.multipathMap(n.WWID); name != "" {
			// All paths are gone, and the map holds what they left.
			return i.mapDisk(n, name, members), "the multipath device has no path", nil
		}
		return d, "there is no session", nil
	}
	var names []string
	wwid := ""
	in := 0
	for _, p := range n.Target.Portals {
		s, ok := have[p]
		if !ok {
			continue
		}
		if s.state == "LOGGED_IN" {
			in++
		}
		b := i.h.lun(s, n.Target.LUN)
		if b == "" {
			continue
		}
		ids, w := i.h.scsiNames(b)
		if len(ids) == 0 {
			continue
		}
		if n.Target.Identity == "" {
			n.Target.Identity = ids[0]
		}
		if !contains(ids, n.Target.Identity) {
			return d, "", model.Errorf(model.KindConflict, "%s, LUN %d, shows the device %s, not %s: it is another volume", p, n.Target.LUN, strings.Join(ids, "/"), n.Target.Identity)
		}
		names, wwid = append(names, b), w
	}
	detail := fmt.Sprintf("iscsi, %d of %d sessions up", in, len(n.Target.Portals))
	if name, members := i.h.multipathMap(wwid); name != "" {
		d = i.mapDisk(n, name, members)
		d.detail = detail + ", multipath " + strings.Join(members, " ")
		d.joining = len(members) < in
		if len(members) == 0 {
			return d, "the multipath device has no path", nil
		}
		return d, noSession(in), nil
	}
	if len(names) == 0 {
		return d, fmt.Sprintf("%d sessions, but no device with LUN %d", len(have), n.Target.LUN), nil
	}
	d = disk{name: names[0], members: names, identity: n.Target.Identity, size: i.h.size(names[0]), detail: detail}
	if i.wantsMap(&n.Target) {
		return d, "multipathd has made no map of " + strings.Join(names, ", "), nil
	}
	return d, noSession(in), nil
}

func noSession(up int) string {
	if up == 0 {
		return "no session is up"
	}
	return ""
}

func (i *iscsi) mapDisk(n *note, name string, members []string) disk {
	return disk{name: name, members: members, identity: n.Target.Identity, size: i.h.size(name), detail: "iscsi, multipath"}
}

// rescan has the kernel look at the device again.
func (i *iscsi) rescan(ctx context.Context, n *note, d disk) error {
	for p, s := range i.h.sessionsOf(&n.Target) {
		b := i.h.lun(s, n.Target.LUN)
		if b == "" {
			// The session is older than the logical unit, or its device was
			// taken away.
			if hn := i.h.scsiHost(s); hn != "" && s.state == "LOGGED_IN" {
				if err := i.h.write("- - "+strconv.Itoa(n.Target.LUN), "sys/class/scsi_host/host"+hn, "scan"); err != nil {
					return model.Errorf(model.KindInternal, "scan of %s: %w", p, err)
				}
			}
			continue
		}
		if s.state != "LOGGED_IN" {
			continue // it would wait for the session
		}
		if err := i.h.write("1", "sys/block", b, "device/rescan"); err != nil {
			return model.Errorf(model.KindInternal, "rescan of %s: %w", b, err)
		}
	}
	if !i.wantsMap(&n.Target) && !d.isMap() {
		return nil
	}
	if d.name == "" || !d.isMap() {
		// Without a map: have multipathd look at the paths again.
		for _, s := range i.h.sessionsOf(&n.Target) {
			if b := i.h.lun(s, n.Target.LUN); b != "" {
				if n.WWID == "" {
					if _, n.WWID = i.h.scsiNames(b); n.WWID != "" {
						if err := i.save(*n); err != nil {
							return err
						}
					}
				}
				if n.WWID != "" {
					if err := i.mp.claim(ctx, n.WWID); err != nil {
						return err
					}
				}
				i.mp.nudge(ctx, []string{b})
			}
		}
		return nil
	}
	if i.mapIsOld(d) {
		return i.mp.resize(ctx, d.name)
	}
	return nil
}

// mapIsOld says whether every path is larger than the map.
func (i *iscsi) mapIsOld(d disk) bool {
	for _, m := range d.members {
		if i.h.size(m) <= i.h.size(d.name) {
			return false
		}
	}
	return len(d.members) > 0
}

package connector

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/osds-io/osds/internal/faults"
	"github.com/osds-io/osds/pkg/model"
)

// The records of open-iscsi: one file for each target and portal, which iscsiadm
// reads at a login. iscsiadm makes the record, so that what iscsid.conf says
// holds. Our own values, the secrets above all, are then written into the file:
// iscsiadm would take them as arguments only, which every user can read.

// recordDirs are where distributions keep the records.
var recordDirs = []string{"etc/iscsi/nodes", "var/lib/iscsi/nodes"}

// Retries of a first login. iscsid's own default would keep an attach waiting for
// two minutes.
const loginRetries = 1

// record makes sure that a portal's record is there; a fresh one is made unless
// it may be in use and only missing paths are looked after.
func (i *iscsi) record(ctx context.Context, t *target, p portal, fresh bool) error {
	if !fresh {
		if f, err := i.recordFile(p); err == nil && f != "" {
			return nil
		}
		// Without its record the secret is not known here any more.
		return model.Errorf(model.KindUnavailable, "open-iscsi has no record of %s; attach again", p)
	}
	if _, err := i.iscsiadm(ctx, nil, 0, "-m", "node", "-T", p.Name, "-p", p.Addr.String(), "-o", "new"); err != nil {
		return err
	}
	f, err := i.recordFile(p)
	if err != nil {
		return model.Errorf(model.KindInternal, "open-iscsi's record of %s: %w", p, err)
	}
	if f == "" {
		return model.Errorf(model.KindInternal, "open-iscsi has made no record of %s in %s", p, strings.Join(recordDirs, " or "))
	}
	old, err := os.ReadFile(f)
	if err != nil {
		return model.Errorf(model.KindInternal, "open-iscsi's record of %s: %w", p, err)
	}
	b, err := editRecord(old, p.Name, i.settings(t))
	if err != nil {
		return model.Errorf(model.KindInternal, "open-iscsi's record of %s (%s): %w", p, f, err)
	}
	if err := replace(f, b); err != nil {
		return model.Errorf(model.KindInternal, "open-iscsi's record of %s: %w", p, err)
	}
	return nil
}

// setting is one line of a record; an empty value takes the line away.
type setting struct{ key, value string }

func (i *iscsi) settings(t *target) []setting {
	lost := i.conf.ReplacementTimeout
	if i.wantsMap(t) {
		lost = i.conf.PathTimeout
	}
	method := "None"
	if t.auth.user != "" {
		method = "CHAP"
	}
	return []setting{
		// After a restart of the host osds attaches, not open-iscsi: the export
		// may have been taken away meanwhile.
		{"node.startup", "manual"},
		{"node.conn[0].startup", "manual"},
		{"node.session.nr_sessions", "1"},
		{"node.session.initial_login_retry_max", strconv.Itoa(loginRetries)},
		{"node.conn[0].timeo.login_timeout", strconv.Itoa(seconds(i.conf.LoginTimeout))},
		{"node.session.timeo.replacement_timeout", strconv.Itoa(seconds(lost))},
		{"node.session.auth.authmethod", method},
		{"node.session.auth.username", t.auth.user},
		{"node.session.auth.password", t.auth.password.Reveal()},
		{"node.session.auth.username_in", t.auth.userIn},
		{"node.session.auth.password_in", t.auth.passwordIn.Reveal()},
	}
}

// editRecord gives a record with other values.
func editRecord(old []byte, target string, set []setting) ([]byte, error) {
	const begin, end = "# BEGIN RECORD", "# END RECORD"
	if strings.Count(string(old), begin) != 1 || strings.Count(string(old), end) != 1 {
		return nil, errors.New("is of a form that is not known")
	}
	drop := map[string]bool{}
	for _, s := range set {
		drop[s.key] = true
	}
	var out []string
	named := false
	for _, l := range strings.Split(strings.TrimRight(string(old), "\n"), "\n") {
		k, v, ok := strings.Cut(l, " = ")
		switch {
		case strings.HasPrefix(l, end):
			for _, s := range set {
				if s.value != "" {
					out = append(out, s.key+" = "+s.value)
				}
			}
		case ok && drop[k]:
			continue
		case ok && k == "node.name":
			named = v == target
		}
		out = append(out, l)
	}
	if !named {
		return nil, errors.New("is of another target")
	}
	return []byte(strings.Join(out, "\n") + "\n"), nil
}

// recordFile is the path of a portal's record; empty if there is none.
func (i *iscsi) recordFile(p portal) (string, error) {
	base := p.Addr.Addr().String() + "," + strconv.Itoa(int(p.Addr.Port()))
	for _, d := range recordDirs {
		dir := i.h.path(d, p.Name)
		list, err := os.ReadDir(dir)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return "", err
		}
		for _, e := range list {
			if e.Name() != base && !strings.HasPrefix(e.Name(), base+",") {
				continue
			}
			f := filepath.Join(dir, e.Name())
			if e.IsDir() {
				f = filepath.Join(f, "default")
			}
			if st, err := os.Lstat(f); err == nil && st.Mode().IsRegular() {
				return f, nil
			}
		}
	}
	return "", nil
}

// strayPrefix begins the names of our temporary files beside the records. They
// are not made among the records, where iscsiadm would take them for some.
const strayPrefix = ".osds-"

// replace writes a record anew, for root's eyes only.
func replace(file string, b []byte) (err error) {
	dir := filepath.Dir(file)
	for filepath.Base(dir) != "nodes" {
		dir = filepath.Dir(dir)
	}
	f, err := os.CreateTemp(filepath.Dir(dir), strayPrefix) // mode 0600
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(f.Name())
		}
	}()
	_, werr := f.Write(b)
	if err = errors.Join(werr, f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), file)
}

// removeStrays removes what a crash has left of replace.
func (i *iscsi) removeStrays() {
	for _, d := range recordDirs {
		list, _ := filepath.Glob(i.h.path(filepath.Dir(d), strayPrefix+"*"))
		for _, f := range list {
			if st, err := os.Lstat(f); err == nil && st.Mode().IsRegular() && time.Since(st.ModTime()) > time.Minute {
				_ = os.Remove(f)
			}
		}
	}
}

// forget removes the records of a target.
func (i *iscsi) forget(ctx context.Context, n *note) error {
	done := map[string]bool{}
	for _, p := range n.Target.Portals {
		if done[p.Name] || !i.hasRecords(p.Name) {
			continue
		}
		done[p.Name] = true
		if _, err := i.iscsiadm(ctx, nil, exitNoObjects, "-m", "node", "-T", p.Name, "-o", "delete"); err != nil {
			return err
		}
		// What iscsiadm has left: an empty directory at most.
		for _, d := range recordDirs {
			_ = os.Remove(i.h.path(d, p.Name))
		}
	}
	return nil
}

func (i *iscsi) hasRecords(name string) bool {
	for _, d := range recordDirs {
		if i.h.exists(d, name) {
			return true
		}
	}
	return false
}

// logout ends the sessions of a target. The caller has removed the map, or wants
// the paths cut from under it.
func (i *iscsi) logout(ctx context.Context, t *target, limit time.Duration) error {
	var errs []error
	for p, s := range i.h.sessionsOf(t) {
		c, cancel := context.WithTimeout(ctx, limit)
		_, err := i.iscsiadm(c, nil, exitNoObjects, "-m", "session", "-r", s.sid, "--logout")
		cancel()
		if err != nil {
			if now, ok := i.h.sessionsOf(t)[p]; ok && now.sid == s.sid {
				errs = append(errs, model.Errorf(model.KindOf(err), "logout of %s: %w", p, err))
			}
		}
	}
	return errors.Join(errs...)
}

// teardown ends the sessions of an attachment, and its map first unless the
// device is being cut off under whoever uses it.
func (i *iscsi) teardown(ctx context.Context, n *note, d disk, shared, cut bool) error {
	if name, _ := i.h.multipathMap(n.WWID); name != "" {
		if cut {
			if err := i.mp.stopQueueing(ctx, name); err != nil {
				return err
			}
		} else if err := i.removeMap(ctx, n); err != nil {
			return err
		}
		faults.Point("connector.detach.unmapped")
	}
	limit := 30 * time.Second
	if cut {
		limit = 15 * time.Second
	}
	if shared {
		for _, m := range d.members {
			if err := i.h.write("1", "sys/block", m, "device/delete"); err != nil && i.h.exists("sys/block", m) {
				return model.Errorf(model.KindInternal, "removal of %s: %w", m, err)
			}
		}
	} else if err := i.logout(ctx, &n.Target, limit); err != nil {
		return err
	}
	if n.WWID != "" {
		if err := i.mp.unclaim(ctx, n.WWID); err != nil {
			return err
		}
	}
	return nil
}

// removeMap removes the map of a device that nobody uses. The claim goes first:
// multipathd would make the map again while its paths are there.
func (i *iscsi) removeMap(ctx context.Context, n *note) error {
	if err := i.mp.unclaim(ctx, n.WWID); err != nil {
		return err
	}
	if name, members := i.h.multipathMap(n.WWID); name != "" && len(members) == 0 {
		// Whatever waits for a path waits for ever.
		if err := i.mp.stopQueueing(ctx, name); err != nil {
			return err
		}
	}
	if err := i.mp.flush(ctx, n.WWID); err != nil {
		_ = i.mp.claim(ctx, n.WWID) // it stays what it was
		return err
	}
	return nil
}

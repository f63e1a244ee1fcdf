package export

import (
	"context"
	"hash/fnv"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/osds-io/osds/internal/faults"
	"github.com/osds-io/osds/internal/run"
	"github.com/osds-io/osds/pkg/model"
)

// tgt serves iSCSI by the program tgtd, for kernels without a target. tgtd is
// started by the operator; it forgets its targets when it ends. It is asked
// through tgtadm, whose exit codes say little: what was done is looked at
// afterwards.
type tgt struct {
	run   run.Runner
	port  int // tgtd's control port
	owner string
	all   machine
}

func newTGT(c Config, owner string) *tgt {
	return &tgt{run: c.Run, port: c.TgtControlPort, owner: owner, all: machine{runDir}}
}

// adm runs tgtadm. Exit codes that a target or account is there, or is not, are
// not told apart from others by tgtadm itself: callers look.
func (g *tgt) adm(ctx context.Context, secret model.Secret, args ...string) (string, error) {
	all := []string{"--lld", "iscsi"}
	if g.port != 0 {
		all = append(all, "--control-port", strconv.Itoa(g.port))
	}
	c := run.Cmd{Name: "tgtadm", Args: append(all, args...), MaxOutput: 64 << 20}
	if secret != "" {
		c.Secrets = []model.Secret{secret}
	}
	r, err := g.run.Run(ctx, c)
	if err != nil && r.ExitCode == notConnected {
		return "", model.Errorf(model.KindUnavailable, "tgtd does not answer%s: start it (systemctl start tgt, or tgtd)", g.which())
	}
	return string(r.Stdout), err
}

// notConnected is the exit code, an errno, when nobody listens.
const notConnected = 107

func (g *tgt) which() string {
	if g.port == 0 {
		return ""
	}
	return " on control port " + strconv.Itoa(g.port)
}

func (g *tgt) can(ctx context.Context) error {
	_, err := g.adm(ctx, "", "--op", "show", "--mode", "sys")
	return err
}

func (g *tgt) ready(ctx context.Context) error { return g.can(ctx) }

// show gives the targets by name.
func (g *tgt) show(ctx context.Context) (map[string]tgtTarget, error) {
	out, err := g.adm(ctx, "", "--op", "show", "--mode", "target")
	if err != nil {
		return nil, err
	}
	m := map[string]tgtTarget{}
	for _, t := range parseTargets(out) {
		m[t.Name] = t
	}
	return m, nil
}

// ownerFile is where it is noted whose a target is, since tgtd has no room for
// it. Like tgtd's targets it goes when the host restarts.
func (g *tgt) ownerFile(name string) string { return g.all.mark("tgt " + name) }

// idOf gives a target's number, of up to 28 bits: it goes into one of the names
// that hosts see of the unit, so it had better be no other target's anywhere.
func idOf(name string, try int) int {
	h := fnv.New32a()
	_, _ = h.Write([]byte(name + strconv.Itoa(try)))
	return int(h.Sum32()&0xfffffff | 1)
}

func (g *tgt) make(ctx context.Context, n *note) error {
	have, err := g.show(ctx)
	if err != nil {
		return err
	}
	t, ok := have[n.Name]
	if !ok {
		if err := g.makeTarget(ctx, n, have); err != nil {
			return err
		}
		if t, ok, err = g.look(ctx, n.Name); err != nil || !ok {
			return first(err, model.Errorf(model.KindInternal, "tgtd made no target %s", n.Name))
		}
	}
	faults.Point("export.tgt.target")
	if err := g.makeUnit(ctx, n, t); err != nil {
		return err
	}
	faults.Point("export.tgt.unit")
	if err := g.makeAccounts(ctx, n, t); err != nil {
		return err
	}
	faults.Point("export.tgt.accounts")
	if err := g.listen(ctx, n); err != nil {
		return err
	}
	faults.Point("export.tgt.portals")
	// Last: without a name in its list a target admits nobody.
	for _, i := range n.Initiators {
		if !slices.Contains(t.Initiators, i) {
			if _, err := g.adm(ctx, "", "--op", "bind", "--mode", "target", "--tid", strconv.Itoa(t.ID), "--initiator-name", i); err != nil {
				return err
			}
		}
	}
	return g.verify(ctx, n)
}

func (g *tgt) makeTarget(ctx context.Context, n *note, have map[string]tgtTarget) error {
	used := map[int]bool{}
	for _, t := range have {
		used[t.ID] = true
	}
	if err := os.MkdirAll(g.all.dir, 0o700); err != nil {
		return kernelError("shared state of docks", err)
	}
	if err := os.WriteFile(g.ownerFile(n.Name), []byte(g.owner), 0o600); err != nil {
		return kernelError("owner of "+n.Name, err)
	}
	for try := range 16 {
		id := idOf(n.Name, try)
		if used[id] {
			continue
		}
		_, err := g.adm(ctx, "", "--op", "new", "--mode", "target", "--tid", strconv.Itoa(id), "--targetname", n.Name)
		if err == nil || try == 15 || model.IsKind(err, model.KindUnknownOutcome, model.KindUnavailable) {
			return err
		}
	}
	return model.Errorf(model.KindExhausted, "no number for target %s is free", n.Name)
}

func (g *tgt) look(ctx context.Context, name string) (tgtTarget, bool, error) {
	have, err := g.show(ctx)
	t, ok := have[name]
	return t, ok, err
}

func (g *tgt) makeUnit(ctx context.Context, n *note, t tgtTarget) error {
	tid := strconv.Itoa(t.ID)
	unit := []string{"--mode", "logicalunit", "--tid", tid, "--lun", strconv.Itoa(lun)}
	i := slices.IndexFunc(t.Units, func(u tgtUnit) bool { return u.Number == lun })
	if i >= 0 && t.Units[i].Path != n.Device {
		if len(t.Sessions) > 0 {
			return model.Errorf(model.KindBusy, "volume %s is exported as %s already, and is now %s", n.VolumeID, t.Units[i].Path, n.Device)
		}
		if _, err := g.adm(ctx, "", append(unit, "--op", "delete")...); err != nil {
			return err
		}
		i = -1
	}
	if i < 0 {
		args := append(unit, "--op", "new", "--backing-store", n.Device, "--bstype", "rdwr")
		if n.WriteThrough {
			args = append(args, "--bsoflags", "sync")
		}
		if _, err := g.adm(ctx, "", args...); err != nil {
			return err
		}
		faults.Point("export.tgt.newunit")
	}
	params := "vendor_id=OSDS,product_id=VOLUME,scsi_id=" + tgtSerial(n.VolumeID) + ",scsi_sn=" + tgtSerial(n.VolumeID) +
		",thin_provisioning=1,readonly=" + zeroOne(n.ReadOnly)
	_, err := g.adm(ctx, "", append(unit, "--op", "update", "--params", params)...)
	return err
}

// makeAccounts makes the accounts of CHAP and binds them. A password that an
// interrupted call has set is set again: it may be an older one.
func (g *tgt) makeAccounts(ctx context.Context, n *note, t tgtTarget) error {
	for _, a := range []struct {
		user   string
		secret model.Secret
		out    bool
	}{{n.User, n.Password.Secret, false}, {n.UserIn, n.PasswordIn.Secret, true}} {
		if a.user == "" || slices.ContainsFunc(t.Accounts, func(s string) bool { f, _, _ := strings.Cut(s, " "); return f == a.user }) {
			continue
		}
		if err := g.dropAccount(ctx, a.user); err != nil {
			return err
		}
		if _, err := g.adm(ctx, a.secret, "--op", "new", "--mode", "account", "--user", a.user, "--password", a.secret.Reveal()); err != nil {
			return err
		}
		faults.Point("export.tgt.account")
		bind := []string{"--op", "bind", "--mode", "account", "--tid", strconv.Itoa(t.ID), "--user", a.user}
		if a.out {
			bind = append(bind, "--outgoing")
		}
		if _, err := g.adm(ctx, "", bind...); err != nil {
			return err
		}
	}
	return nil
}

// dropAccount removes an account that is there.
func (g *tgt) dropAccount(ctx context.Context, user string) error {
	out, err := g.adm(ctx, "", "--op", "show", "--mode", "account")
	if err != nil || !slices.Contains(parseAccounts(out), user) {
		return err
	}
	_, err = g.adm(ctx, "", "--op", "delete", "--mode", "account", "--user", user)
	return err
}

// listen makes tgtd listen on the portals: all of its targets are reachable on
// all of them.
func (g *tgt) listen(ctx context.Context, n *note) error {
	have, err := g.portals(ctx)
	if err != nil {
		return err
	}
	for _, p := range n.Portals {
		if listens(have, p) {
			continue
		}
		if _, err := g.adm(ctx, "", "--op", "new", "--mode", "portal", "--param", "portal="+p); err != nil {
			if again, lerr := g.portals(ctx); lerr == nil && listens(again, p) {
				continue // somebody else was faster
			}
			return model.Errorf(model.KindUnavailable, "tgtd cannot listen on %s: %w", p, err)
		}
	}
	return nil
}

func (g *tgt) portals(ctx context.Context) ([]string, error) {
	out, err := g.adm(ctx, "", "--op", "show", "--mode", "portal")
	return parsePortalList(out), err
}

// listens says whether a portal is among those that tgtd has, by itself or by
// its port on all addresses.
func listens(have []string, portal string) bool {
	port := portal[strings.LastIndexByte(portal, ':')+1:]
	return slices.Contains(have, portal) || slices.Contains(have, "0.0.0.0:"+port) || slices.Contains(have, "[::]:"+port)
}

// verify looks whether an export is what its note says.
func (g *tgt) verify(ctx context.Context, n *note) error {
	t, ok, err := g.look(ctx, n.Name)
	if err != nil {
		return err
	}
	if bad := t.differs(n); !ok || bad != "" {
		return model.Errorf(model.KindInternal, "tgtd does not have target %s as it was told: %s", n.Name, bad)
	}
	return nil
}

// differs says what of a target is not as noted; empty if all is.
func (t tgtTarget) differs(n *note) string {
	i := slices.IndexFunc(t.Units, func(u tgtUnit) bool { return u.Number == lun })
	accounts := map[string]bool{}
	for _, a := range t.Accounts {
		f, _, _ := strings.Cut(a, " ")
		accounts[f] = true
	}
	got, want := slices.Sorted(slices.Values(t.Initiators)), slices.Sorted(slices.Values(n.Initiators))
	switch {
	case !t.Ready:
		return "it is not ready"
	case i < 0 || t.Units[i].Path != n.Device || !t.Units[i].Online:
		return "its unit is missing, offline or of another device"
	case t.Units[i].Sync != n.WriteThrough:
		return "writing through is " + strconv.FormatBool(t.Units[i].Sync)
	case t.Units[i].ReadOnly != n.ReadOnly:
		return "read-only is " + strconv.FormatBool(t.Units[i].ReadOnly)
	case t.Units[i].Serial != tgtSerial(n.VolumeID):
		return "its serial number is " + t.Units[i].Serial
	case n.User != "" && !accounts[n.User], n.UserIn != "" && !accounts[n.UserIn]:
		return "its account is missing"
	case !slices.Equal(got, want):
		return "it admits " + strings.Join(t.Initiators, ", ")
	}
	return ""
}

func (g *tgt) remove(ctx context.Context, n *note) error {
	if err := g.orphan(ctx, n.Name); err != nil {
		return err
	}
	for _, u := range []string{n.User, n.UserIn} {
		if u == "" {
			continue
		}
		if err := g.dropAccount(ctx, u); err != nil {
			return err
		}
	}
	return nil
}

// orphan removes a target: first nobody may come in any more, then who is in is
// thrown out, as often as needed.
func (g *tgt) orphan(ctx context.Context, name string) error {
	for pause := 5 * time.Millisecond; ; pause = min(2*pause, 200*time.Millisecond) {
		t, ok, err := g.look(ctx, name)
		if err != nil {
			return err
		}
		if !ok {
			_ = os.Remove(g.ownerFile(name))
			return nil
		}
		tid := strconv.Itoa(t.ID)
		for _, i := range t.Initiators {
			_, err = g.adm(ctx, "", "--op", "unbind", "--mode", "target", "--tid", tid, "--initiator-name", i)
		}
		faults.Point("export.tgt.unbound")
		for _, s := range t.Sessions {
			for _, c := range s.Connections {
				_, err = g.adm(ctx, "", "--op", "delete", "--mode", "conn", "--tid", tid, "--sid", s.ID, "--cid", c)
			}
		}
		if _, derr := g.adm(ctx, "", "--op", "delete", "--mode", "target", "--force", "--tid", tid); derr == nil {
			faults.Point("export.tgt.deleted")
			continue // look whether it is so
		} else if err == nil {
			err = derr
		}
		select {
		case <-ctx.Done():
			return model.Errorf(model.KindUnknownOutcome, "tgtd still has target %s: %w (%w)", name, ctx.Err(), err)
		case <-time.After(pause):
		}
	}
}

func (g *tgt) connected(ctx context.Context, n *note) (string, error) {
	t, ok, err := g.look(ctx, n.Name)
	if err != nil || !ok {
		return "", err
	}
	for _, s := range t.Sessions {
		if len(s.Connections) > 0 {
			return s.Initiator, nil
		}
	}
	return "", nil
}

func (g *tgt) live(ctx context.Context) (map[string]liveTarget, error) {
	have, err := g.show(ctx)
	if err != nil {
		return nil, err
	}
	out := map[string]liveTarget{}
	for name, t := range have {
		o, _ := os.ReadFile(g.ownerFile(name))
		out[name] = liveTarget{owner: string(o), up: t.Ready && len(t.Initiators) > 0 &&
			slices.ContainsFunc(t.Units, func(u tgtUnit) bool { return u.Number == lun && u.Online })}
	}
	return out, nil
}

// resized makes tgtd open the device anew, which is the one way in which it sees
// its size. For the moment between, the unit is not ready, and initiators try
// again.
func (g *tgt) resized(ctx context.Context, n *note) error {
	t, ok, err := g.look(ctx, n.Name)
	if err != nil || !ok {
		return err
	}
	unit := []string{"--op", "update", "--mode", "logicalunit", "--tid", strconv.Itoa(t.ID), "--lun", strconv.Itoa(lun), "--params"}
	_, err = g.adm(ctx, "", append(unit, "online=0")...)
	faults.Point("export.tgt.offline")
	if err == nil {
		_, err = g.adm(ctx, "", append(unit, "path="+n.Device)...)
	}
	if _, oerr := g.adm(ctx, "", append(unit, "online=1")...); err == nil {
		err = oerr
	}
	if err != nil {
		return err
	}
	return g.verify(ctx, n)
}

// sweep removes marks of targets that are gone.
func (g *tgt) sweep(context.Context, func(string) bool) ([]string, error) { return nil, nil }

// identity is what tgtd makes of the serial number: the same as LIO would show.
func (g *tgt) identity(_ context.Context, n *note) string { return tgtSerial(n.VolumeID) }

// tgtSerial is a unit's serial number: tgtd makes of 32 digits the unit's name,
// with the first replaced by 6.
func tgtSerial(volumeID string) string {
	name, _ := Identity(ISCSI, volumeID)
	return name
}

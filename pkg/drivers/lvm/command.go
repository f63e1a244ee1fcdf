package lvm

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/osds-io/osds/internal/run"
	"github.com/osds-io/osds/pkg/drivers/export"
	"github.com/osds-io/osds/pkg/model"
)

// How long commands may take.
const (
	// commandLimit is for one that changes something: it is not killed when its
	// caller goes away, because killing LVM in the middle may leave a device
	// suspended.
	commandLimit = 2 * time.Minute
	reportLimit  = time.Minute
)

// ownerEnv marks the commands of one state directory, so that those of a
// predecessor that was killed are found.
const ownerEnv = "LVM_OSDS_OWNER"

// commander runs LVM.
type commander struct {
	run run.Runner
	// config is for --config; empty if there is nothing to say.
	config string
	env    []string
}

func newCommander(r run.Runner, devices []string, stateDir string) *commander {
	c := &commander{run: r, env: []string{
		ownerEnv + "=" + stateDir,
		// File descriptors that the dock has open are none of LVM's business.
		"LVM_SUPPRESS_FD_WARNINGS=1",
	}}
	if len(devices) > 0 {
		var filter []string
		for _, d := range devices {
			// What has a meaning in a pattern stands in brackets.
			d = strings.NewReplacer(".", "[.]", "+", "[+]").Replace(d)
			filter = append(filter, strconv.Quote("a|^"+d+"$|"))
		}
		filter = append(filter, `"r|.*|"`)
		c.config = "devices/global_filter=[" + strings.Join(filter, ",") + "]"
	}
	return c
}

// hideFronts keeps LVM from the disks in front of exported volumes, where no
// devices are configured: a volume group on one is that of the volume's user, who
// may give it any name, that of a group of this host too. A filter that the
// administrator has made for LVM is left alone.
func (c *commander) hideFronts(ctx context.Context) {
	if c.config != "" {
		return
	}
	r, err := c.run.Run(ctx, run.Cmd{Name: "lvm", Args: []string{"lvmconfig", "--typeconfig", "full", "devices/filter"}, Env: c.env})
	if set := strings.TrimSpace(string(r.Stdout)); err == nil && set != "" && set != `filter=["a|.*|"]` {
		return
	}
	c.config = `devices/filter=["r|^` + export.FrontLinks + `|"]`
}

// lvm runs one LVM command: the first argument is its name.
func (c *commander) lvm(ctx context.Context, settings string, argv ...string) (run.Result, error) {
	conf := strings.TrimSpace(c.config + " " + settings)
	args := []string{argv[0]}
	if conf != "" {
		args = append(args, "--config", conf)
	}
	return c.run.Run(ctx, run.Cmd{Name: "lvm", Args: append(args, argv[1:]...), Env: c.env, MaxOutput: maxReport})
}

// maxReport bounds a report: some ten thousand logical volumes.
const maxReport = 64 << 20

// report reads all there is of some groups. A group that is not there is not in
// the result.
func (c *commander) report(ctx context.Context, groups []string) (map[string]*group, error) {
	ctx, cancel := context.WithTimeout(ctx, reportLimit)
	defer cancel()
	got, all, err := c.reportOf(ctx, groups, 5)
	if err != nil || all {
		return got, err
	}
	// LVM ends so if a group is not there, and for other reasons: of those that
	// are there the report must be without fault.
	var there []string
	for _, g := range groups {
		if got[g] != nil {
			there = append(there, g)
		}
	}
	switch {
	case len(there) == len(groups):
		return nil, model.Errorf(model.KindUnavailable, "LVM reports all volume groups and yet an error")
	case len(there) == 0:
		return got, nil
	}
	got, _, err = c.reportOf(ctx, there)
	return got, err
}

// reportOf runs one report. all is false if it ended with one of the exit codes ok.
func (c *commander) reportOf(ctx context.Context, groups []string, ok ...int) (got map[string]*group, all bool, err error) {
	args := []string{"fullreport"}
	if c.config != "" {
		args = append(args, "--config", c.config)
	}
	args = append(args, "--reportformat", "json", "--units", "b", "--nosuffix", "--all", "--quiet",
		"--configreport", "vg", "-o", vgColumns, "--configreport", "lv", "-o", lvColumns, "--configreport", "pv", "-o", pvColumns,
		"--configreport", "pvseg", "-o", pvsegColumns, "--configreport", "seg", "-o", segColumns)
	r, err := c.run.Run(ctx, run.Cmd{Name: "lvm", Args: append(args, groups...), Env: c.env, MaxOutput: maxReport, OK: ok})
	if err != nil {
		return nil, false, reportError(err)
	}
	if got, err = parseReport(r.Stdout); err != nil {
		return nil, false, model.Errorf(model.KindUnavailable, "%w", err)
	}
	return got, r.ExitCode == 0, nil
}

// reportError is the kind of a report that could not be had: nothing was changed.
func reportError(err error) error {
	if model.IsKind(err, model.KindUnsupported) {
		return err
	}
	if model.IsKind(err, model.KindUnknownOutcome) {
		return model.Errorf(model.KindUnknownOutcome, "the state of LVM could not be read: %w", err)
	}
	return model.Errorf(model.KindUnavailable, "the state of LVM could not be read: %w", err)
}

// awaitPredecessor waits until no command of a process before this one runs: one
// that waits for its turn could still make what this one has seen to be absent.
func awaitPredecessor(ctx context.Context, stateDir string) error {
	for {
		busy, err := commandsOf(stateDir)
		if err != nil {
			return model.Errorf(model.KindUnavailable, "the running commands: %w", err)
		}
		if len(busy) == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return model.Errorf(model.KindUnavailable, "commands of an earlier run of the dock have not ended (%s): %w", strings.Join(busy, ", "), ctx.Err())
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// commandsOf lists the processes that run LVM for a state directory. Daemons
// that LVM has started (dmeventd) inherit the mark and do not count.
func commandsOf(stateDir string) ([]string, error) {
	procs, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	var out []string
	for _, p := range procs {
		if _, err := strconv.Atoi(p.Name()); err != nil {
			continue
		}
		comm, err := os.ReadFile(filepath.Join("/proc", p.Name(), "comm"))
		if err != nil || strings.TrimSpace(string(comm)) != "lvm" {
			continue // most have ended meanwhile
		}
		env, err := os.ReadFile(filepath.Join("/proc", p.Name(), "environ"))
		if err != nil {
			continue
		}
		for _, kv := range strings.Split(string(env), "\x00") {
			if kv == ownerEnv+"="+stateDir {
				out = append(out, "process "+p.Name())
			}
		}
	}
	return out, nil
}

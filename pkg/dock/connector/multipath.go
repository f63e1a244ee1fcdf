package connector

import (
	"context"
	"errors"
	"os"
	"strings"
	"time"

	"github.com/osds-io/osds/internal/run"
	"github.com/osds-io/osds/pkg/model"
)

// multipath speaks with multipathd, which makes and keeps the maps. A device is
// claimed by its WWID before there is a path to it: multipathd and udev then
// know its paths for what they are from the first moment, and nothing else takes
// a path for a disk.
type multipath struct{ h *host }

const multipathdSocket = "@/org/kernel/linux/storage/multipathd"

// usable says why there is no multipath on this host; nil if there is.
func (m multipath) usable() error {
	if m.h.listens(multipathdSocket) {
		return nil
	}
	return model.Errorf(model.KindUnsupported, "multipathd is not running on this host, and the connection has several portals: "+
		"install multipath-tools and start multipathd, or set connector.multipath to single to use one portal only")
}

func (m multipath) cmd(ctx context.Context, limit time.Duration, name string, args ...string) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	_, err := m.h.run.Run(ctx, run.Cmd{Name: name, Args: args})
	return err
}

// claimed says whether the WWID is one that multipathd takes.
func (m multipath) claimed(wwid string) bool {
	b, err := os.ReadFile(m.h.path("etc/multipath/wwids"))
	return err == nil && strings.Contains("\n"+string(b), "\n/"+wwid+"/\n")
}

// claim has multipathd take the paths of a device.
func (m multipath) claim(ctx context.Context, wwid string) error {
	if m.claimed(wwid) {
		return nil
	}
	return m.cmd(ctx, 20*time.Second, "multipath", "-a", wwid)
}

// unclaim is the reverse.
func (m multipath) unclaim(ctx context.Context, wwid string) error {
	if !m.claimed(wwid) {
		return nil
	}
	err := m.cmd(ctx, 20*time.Second, "multipath", "-w", wwid)
	if !m.claimed(wwid) {
		return nil
	}
	return err
}

// nudge has multipathd look at paths that it has passed over, such as those that
// were there before the claim.
func (m multipath) nudge(ctx context.Context, paths []string) {
	for _, p := range paths {
		_ = m.cmd(ctx, 10*time.Second, "multipathd", "add", "path", p)
	}
}

// flush removes a map that nobody uses. udev and kpartx open what is new or
// changes, and wait for a lost path's timeout if they came too late.
func (m multipath) flush(ctx context.Context, wwid string) error {
	name, _ := m.h.multipathMap(wwid)
	if name == "" {
		return nil
	}
	alias := m.h.value("sys/block", name, "dm/name")
	var err error
	end := time.Now().Add(20 * time.Second)
	for wait := 50 * time.Millisecond; ; wait = min(2*wait, time.Second) {
		err = m.cmd(ctx, 20*time.Second, "multipath", "-f", alias)
		if now, _ := m.h.multipathMap(wwid); now == "" {
			return nil
		}
		if time.Now().After(end) || sleep(ctx, wait) != nil {
			break
		}
	}
	if err == nil {
		err = errors.New("it is still there")
	}
	return model.Errorf(model.KindBusy, "the multipath device %s cannot be removed: %w", alias, err)
}

// resize has multipathd take the new size of a map's paths.
func (m multipath) resize(ctx context.Context, name string) error {
	return m.cmd(ctx, 30*time.Second, "multipathd", "resize", "map", m.h.value("sys/block", name, "dm/name"))
}

// stopQueueing lets I/O on a map without paths fail instead of wait.
func (m multipath) stopQueueing(ctx context.Context, name string) error {
	alias := m.h.value("sys/block", name, "dm/name")
	if alias == "" {
		return nil
	}
	// multipathd would otherwise restore it at its next look. It may not run;
	// the message to the kernel is what counts.
	_ = m.cmd(ctx, 10*time.Second, "multipathd", "disablequeueing", "map", alias)
	return m.cmd(ctx, 10*time.Second, "dmsetup", "message", alias, "0", "fail_if_no_path")
}

// startQueueing gives the map back to multipathd's configuration.
func (m multipath) startQueueing(ctx context.Context, name string) {
	if alias := m.h.value("sys/block", name, "dm/name"); alias != "" {
		_ = m.cmd(ctx, 10*time.Second, "multipathd", "restorequeueing", "map", alias)
	}
}

// sleep waits, or gives the context's error.
func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

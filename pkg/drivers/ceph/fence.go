//go:build ceph

package ceph

import (
	"context"
	"encoding/json"
	"net"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/osds-io/osds/pkg/drivers"
	"github.com/osds-io/osds/pkg/model"
)

// fencePoll is how often it is looked whether a fenced client is gone.
const fencePoll = 100 * time.Millisecond

// watchers gives the addresses of an image's clients, other than this one.
func (s *space) watchers(img *image) ([]string, error) {
	l, err := img.ListWatchers()
	if err != nil {
		return nil, err
	}
	var out []string
	for _, w := range l {
		if a := bareAddr(w.Addr); !slices.Contains(s.l.addrs, a) && !slices.Contains(out, a) {
			out = append(out, a)
		}
	}
	return out, nil
}

// askLimit is how long clients of an image may take to say that they are there.
const askLimit = 2 * time.Second

// watched says whether somebody has an image open. It is asked of the clients
// themselves: what they are sent says that the image may have changed, which does
// them nothing. That is much less than opening the image, and as sure: the OSD
// answers at once only if it knows of nobody.
func (s *space) watched(rid string) (bool, error) {
	acks, late, err := s.io.NotifyWithTimeout(headerPrefix+rid, nil, askLimit)
	if len(acks)+len(late) > 0 || errno(err) == syscall.ETIMEDOUT {
		return true, nil
	}
	return false, err
}

// notWatched is busy for a volume that somebody has open.
func (s *space) notWatched(img *image) error {
	w, err := s.watchers(img)
	if err == nil && len(w) > 0 {
		err = model.Errorf(model.KindBusy, "volume %s is open at %s", img.id, w[0])
	}
	return err
}

// ownersGone gives the addresses of clients that hold the image's lock and are
// not watching it: they have died, or lost their way to the cluster.
func (s *space) ownersGone(img *image, watchers []string) ([]string, error) {
	_, lockers, err := img.ListLockers()
	if err != nil && !absent(err) {
		return nil, err
	}
	var out []string
	for _, l := range lockers {
		if a := bareAddr(l.Addr); !slices.Contains(s.l.addrs, a) && !slices.Contains(watchers, a) {
			out = append(out, a)
		}
	}
	return out, nil
}

// whose parts clients into those of an export's host, and those that might be
// anybody's. A client is the host's because it was seen before, by its address, or
// because nobody else can have the image. An address that two hosts say they have
// (of a bridge for containers, or one that moves between them) decides nothing.
func whose(clients []string, e exportEntry, others map[string]exportEntry) (mine, unclear []string) {
	for _, c := range clients {
		ip := addrIP(c)
		byAddr, seen, addr := slices.Contains(e.Addrs, ip), false, false
		for _, o := range others {
			seen = seen || slices.Contains(o.Clients, c)
			addr = addr || slices.Contains(o.Addrs, ip) && !(byAddr && o.Host != "" && sameHost(o.Host, e.Host))
		}
		switch {
		case slices.Contains(e.Clients, c), len(others) == 0:
			mine = append(mine, c)
		case seen:
			// It is another's.
		case byAddr && !addr:
			mine = append(mine, c)
		case byAddr == addr:
			unclear = append(unclear, c)
		}
	}
	return mine, unclear
}

// addrIP is the address in "10.0.0.1:0/123" or "[fe80::1]:0/123".
func addrIP(a string) string {
	a, _, _ = strings.Cut(a, "/")
	h, _, err := net.SplitHostPort(a)
	if err != nil {
		return ""
	}
	if ip := net.ParseIP(h); ip != nil {
		return ip.String()
	}
	return h
}

// release makes sure that an export's host is not on the image any more. Forced,
// it is cut off; otherwise the call is busy while it is there.
func (s *space) release(ctx context.Context, r drivers.ExportRef, e exportEntry, img *image) error {
	others, err := s.exportsOf(ctx, e.VolumeID)
	if err != nil {
		return err
	}
	delete(others, r.AttachmentID)
	w, err := s.watchers(img)
	if err != nil {
		return err
	}
	mine, unclear := whose(w, e, others)
	if !r.Force && len(mine)+len(unclear) > 0 {
		if err := s.remember(r.AttachmentID, e, mine); err != nil {
			return err
		}
		return model.Errorf(model.KindBusy, "volume %s is still open on the host %s, at %s", e.VolumeID, e.Host, slices.Concat(mine, unclear)[0])
	}
	if len(unclear) > 0 {
		return model.Errorf(model.KindBusy, "volume %s is open at %s, and it is not known whether that is host %q: give the host's ip, or an initiator with protocol rbd and that address, and attach anew",
			e.VolumeID, strings.Join(unclear, ", "), e.Host)
	}
	// Who holds the lock without watching is dead or cut off; it may come back,
	// and must not write then.
	gone, err := s.ownersGone(img, w)
	if err != nil {
		return err
	}
	dead, _ := whose(gone, e, others)
	if r.Force {
		dead = slices.Concat(dead, mine, e.Clients)
	}
	slices.Sort(dead)
	dead = slices.Compact(dead)
	if len(dead) == 0 {
		return nil
	}
	for _, a := range dead {
		if err := s.l.blocklist(a, s.d.conf.BlocklistTime); err != nil {
			return fail("cutting off "+a, err)
		}
		if err := step(ctx, "unexport.fenced"); err != nil {
			return err
		}
	}
	return s.awaitGone(ctx, img, dead)
}

// blocklist has the OSDs refuse a client.
func (l *link) blocklist(addr string, d time.Duration) error {
	// The monitors take a time for a number only if it has a fraction.
	expire := json.RawMessage(seconds(d) + ".0")
	err := l.command(map[string]any{"prefix": "osd blocklist", "blocklistop": "add", "addr": addr, "expire": expire}, nil)
	if errno(err) == syscall.EINVAL {
		// Before Pacific the command had another name.
		err = l.command(map[string]any{"prefix": "osd blacklist", "blacklistop": "add", "addr": addr, "expire": expire}, nil)
	}
	if err == nil {
		err = l.conn.WaitForLatestOSDMap()
	}
	return err
}

// awaitGone waits until none of the clients is on the image any more.
func (s *space) awaitGone(ctx context.Context, img *image, clients []string) error {
	t := time.NewTicker(fencePoll)
	defer t.Stop()
	for {
		w, err := s.watchers(img)
		if err != nil {
			return err
		}
		if !slices.ContainsFunc(w, func(a string) bool { return slices.Contains(clients, a) }) {
			return nil
		}
		select {
		case <-t.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// maxClients bounds how many clients of one export are remembered.
const maxClients = 16

// remember notes clients of an export's host.
func (s *space) remember(attachmentID string, e exportEntry, clients []string) error {
	n := len(e.Clients)
	for _, c := range clients {
		if !slices.Contains(e.Clients, c) {
			e.Clients = append(e.Clients, c)
		}
	}
	if len(e.Clients) == n {
		return nil
	}
	e.Clients = e.Clients[max(0, len(e.Clients)-maxClients):]
	return s.putExport(attachmentID, e)
}

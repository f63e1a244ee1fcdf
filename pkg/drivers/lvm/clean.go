package lvm

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"sort"
	"strconv"
	"strings"
	"sync"

	"github.com/osds-io/osds/pkg/drivers"
	"github.com/osds-io/osds/pkg/model"
)

// This file is about pools with zeroing: delete. There a volume is cleared when
// it is deleted, and a new one may be handed out at once, if it lies on extents
// that are known to be clear. That is known only of extents which the driver has
// cleared itself and which nobody has had since.
//
// LVM counts the changes of a group's metadata (vg_seqno). The driver knows by how
// much each of its own commands raises the count; if the count is another than
// that, somebody else has changed the group, and nothing is known to be clear any
// more. Then, and for extents that were never cleared, a new volume is cleared
// before it is handed out, as everywhere else: it only takes longer.

// cleanFile is in the state directory.
const cleanFile = "lvm-clean.json"

// cleanGroup is what is known to be clear in a group.
type cleanGroup struct {
	UUID  string `json:"uuid"`
	Seqno int64  `json:"seqno"`
	// Ranges are free extents that read as zero.
	Ranges []cleanRange `json:"ranges"`
}

type cleanRange struct {
	PV    string `json:"pv"`
	First int64  `json:"first"`
	Last  int64  `json:"last"`
}

// cleanSpace keeps that of all groups.
type cleanSpace struct {
	path   string
	mu     sync.Mutex
	groups map[string]cleanGroup
}

func openCleanSpace(dir string) (*cleanSpace, error) {
	c := &cleanSpace{path: filepath.Join(dir, cleanFile), groups: map[string]cleanGroup{}}
	return c, readState(c.path, &c.groups)
}

// of gives the free ranges of a group that are clear, the largest first. g must
// be a fresh report.
func (c *cleanSpace) of(g *group) []peRange {
	c.mu.Lock()
	defer c.mu.Unlock()
	have := c.groups[g.name]
	if have.UUID != g.uuid || have.Seqno != g.seqno {
		return nil
	}
	var out []peRange
	for _, r := range have.Ranges {
		for _, f := range g.freeSegs {
			if f.pv == r.PV && f.first <= r.Last && r.First <= f.last {
				out = append(out, peRange{f.pv, max(f.first, r.First), min(f.last, r.Last)})
			}
		}
	}
	sort.Slice(out, func(i, j int) bool { return out[i].last-out[i].first > out[j].last-out[j].first })
	return out
}

// set replaces what is known of a group, as of a fresh report.
func (c *cleanSpace) set(g *group, ranges []peRange) {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := cleanGroup{UUID: g.uuid, Seqno: g.seqno}
	for _, r := range merge(ranges) {
		n.Ranges = append(n.Ranges, cleanRange{r.pv, r.first, r.last})
	}
	c.put(g.name, n)
}

// raised notes that a command of ours has raised a group's count; by less than 0
// if it is not known by how much.
func (c *cleanSpace) raised(name string, by int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	n, ok := c.groups[name]
	switch {
	case !ok || by == 0:
	case by < 0:
		c.put(name, cleanGroup{})
	default:
		n.Seqno += int64(by)
		c.put(name, n)
	}
}

// put writes; what cannot be written is not known, now or after a restart: the
// count will be another.
func (c *cleanSpace) put(name string, n cleanGroup) {
	if len(n.Ranges) == 0 {
		if _, ok := c.groups[name]; !ok {
			return
		}
		delete(c.groups, name)
	} else {
		c.groups[name] = n
	}
	if writeState(c.path, c.groups) != nil {
		delete(c.groups, name)
	}
}

// merge joins ranges that follow each other.
func merge(in []peRange) (out []peRange) {
	in = slices.Clone(in)
	sort.Slice(in, func(i, j int) bool {
		if in[i].pv != in[j].pv {
			return in[i].pv < in[j].pv
		}
		return in[i].first < in[j].first
	})
	for _, r := range in {
		if n := len(out); n > 0 && out[n-1].pv == r.pv && r.first <= out[n-1].last+1 {
			out[n-1].last = max(out[n-1].last, r.last)
			continue
		}
		out = append(out, r)
	}
	return out
}

// without gives a less b.
func without(a, b []peRange) []peRange {
	for _, x := range b {
		var rest []peRange
		for _, r := range a {
			if r.pv != x.pv || x.last < r.first || r.last < x.first {
				rest = append(rest, r)
				continue
			}
			if r.first < x.first {
				rest = append(rest, peRange{r.pv, r.first, x.first - 1})
			}
			if x.last < r.last {
				rest = append(rest, peRange{r.pv, x.last + 1, r.last})
			}
		}
		a = rest
	}
	return a
}

// covers says whether all of b lies in a.
func covers(a, b []peRange) bool { return len(without(b, a)) == 0 }

// maxRanges bounds the ranges that one command is given.
const maxRanges = 64

// choose takes the ranges to put a volume on; nil if there are too few.
func choose(clear []peRange, extents int64) (out []peRange) {
	for _, r := range clear {
		if len(out) == maxRanges {
			return nil
		}
		if n := r.last - r.first + 1; n >= extents {
			return append(out, peRange{r.pv, r.first, r.first + extents - 1})
		}
		out = append(out, r)
		extents -= r.last - r.first + 1
	}
	return nil
}

// raises says by how much a command of ours raises a group's count when it goes
// well: as LVM 2.03 does. A wrong number does no harm but to make new volumes
// slower.
func raises(argv []string) int {
	switch argv[0] {
	case "lvcreate":
		if i := slices.Index(argv, "linear"); i > 0 && argv[i-1] == "--type" {
			return 1
		}
	case "lvextend", "lvrename":
		return 1
	case "lvchange":
		if slices.Contains(argv, "--activate") || slices.Contains(argv, "--refresh") {
			return 0
		}
		n := 0
		for _, a := range argv {
			if !strings.HasPrefix(a, "-") && strings.Contains(a, "/") && !strings.Contains(a, "=") {
				n++
			}
		}
		return n
	case "lvremove":
		return 1
	}
	return -1
}

// makeClear makes a thick volume on extents that are clear; nil if there are not
// enough of them, or if somebody else has changed the group at the same time.
func (d *Driver) makeClear(ctx context.Context, p *pool, r drivers.CreateVolume, t tags) (*lv, error) {
	end, err := p.vg.turns.take(ctx, prioNormal)
	if err != nil {
		return nil, err
	}
	defer end()
	g, err := d.freshGroup(ctx, p.vg.name)
	if err != nil {
		return nil, err
	}
	size := g.roundUp(r.Size)
	if err := d.room(p, g, size, true); err != nil {
		return nil, err
	}
	clear := d.clean.of(g)
	on := choose(clear, int64(size/g.extent))
	if on == nil {
		return nil, nil
	}
	l := &lv{name: volumeName(r.ID), size: size, tags: t.with(tagNew, model.NewID()), active: true, open: no, data: noPercent, meta: noPercent, snap: noPercent}
	point("create", "begin")
	argv := append([]string{"lvcreate", "--yes", "--quiet", "--type", "linear", "--extents", strconv.FormatInt(int64(size/g.extent), 10),
		"--name", l.name, "--activate", "y", "--zero", "n", "--wipesignatures", "n"}, l.tags.args()...)
	argv = append(argv, p.vg.name)
	for _, x := range on {
		argv = append(argv, x.String())
	}
	if err := d.create(ctx, p, l, "", argv...); err != nil {
		return nil, err
	}
	point("create", "made")
	after, err := d.freshGroup(ctx, p.vg.name)
	if err != nil {
		return nil, err
	}
	now, err := volumeIn(after, r.ID)
	if err != nil || now == nil {
		return nil, model.Errorf(model.KindUnavailable, "volume %s is not there any more: call again (%v)", r.ID, err)
	}
	if after.seqno != g.seqno+1 || !covers(on, now.ranges) {
		return now, nil // not known to be clear: it is cleared
	}
	d.clean.set(after, without(clear, now.ranges))
	if err := d.journal.set(now.tags[tagNew], progress{Whole: true}); err != nil {
		return nil, err
	}
	point("create", "whole")
	d.wake()
	return now, nil
}

// wipe clears a volume that is to be deleted, and marks it first: what is half
// cleared is no volume any more.
func (d *Driver) wipe(ctx context.Context, p *pool, id string) error {
	g, err := d.freshGroup(ctx, p.vg.name)
	if err != nil {
		return err
	}
	l, err := volumeIn(g, id)
	if err != nil || l == nil || l.pool != "" {
		return err
	}
	if l.tags[tagNew] != "" && !d.whole(l) && l.tags[tagDeleting] == "" {
		return nil // never whole: others' old data may be in it, and it is not taken for clear
	}
	// What removal would refuse must not be wiped before.
	if ok, err := removable(g, l.name); err != nil || !ok {
		return err
	}
	if err := d.activate(ctx, p.vg, l, prioNormal); err != nil {
		return err
	}
	if err := notOpen(ctx, p.vg.name, l.name); err != nil {
		return err
	}
	nonce := l.tags[tagDeleting]
	if nonce == "" {
		nonce = model.NewID()
		if err := d.retag(ctx, p.vg, l.name, l.tags, l.tags.with(tagDeleting, nonce)); err != nil {
			return err
		}
		point("delete", "marked")
	}
	if done := d.journal.get(nonce); done.Whole {
		return nil
	}
	if err := d.wipeData(ctx, p, l, nonce); err != nil {
		return asKind(fmt.Sprintf("clearing volume %s before its end", id), err)
	}
	point("delete", "cleared")
	return d.journal.set(nonce, progress{Whole: true})
}

func (d *Driver) wipeData(ctx context.Context, p *pool, l *lv, nonce string) error {
	f, err := openDevice(ctx, p.vg.name, l.name, l.size, true)
	if err != nil {
		return err
	}
	note := func(off int64) error { return d.journal.set(nonce, progress{Offset: off}) }
	err = zero(d.pace(ctx), f, d.journal.get(nonce).Offset, int64(l.size), note)
	var u *unfinished
	if errors.As(err, &u) && f.Sync() == nil {
		_ = note(u.off)
	}
	return errors.Join(err, f.Close())
}

// cleared gives the extents of what is about to be removed and is clear. g is a
// fresh report.
func (d *Driver) cleared(g *group, items []*item) (out []peRange) {
	for _, x := range items {
		if l := g.lvs[x.name]; l != nil && l.tags[tagDeleting] != "" && d.journal.get(l.tags[tagDeleting]).Whole {
			out = append(out, l.ranges...)
		}
	}
	return out
}

// learn notes, after a removal that went well, that its extents are clear. before
// is the report that it was based on.
func (d *Driver) learnClear(ctx context.Context, vg *vgroup, before *group, freed []peRange) {
	if len(freed) == 0 {
		return
	}
	known := d.clean.ofAny(before)
	g, err := d.freshGroup(ctx, vg.name)
	if err != nil || g.seqno != before.seqno+int64(raises([]string{"lvremove"})) || !covers(g.freeSegs, freed) {
		return
	}
	d.clean.set(g, append(known, freed...))
}

// ofAny gives what is known to be clear in a group as of a report before the last
// command of ours.
func (c *cleanSpace) ofAny(before *group) (out []peRange) {
	c.mu.Lock()
	defer c.mu.Unlock()
	have := c.groups[before.name]
	if have.UUID != before.uuid || have.Seqno != before.seqno+int64(raises([]string{"lvremove"})) {
		return nil
	}
	for _, r := range have.Ranges {
		out = append(out, peRange{r.PV, r.First, r.Last})
	}
	return out
}

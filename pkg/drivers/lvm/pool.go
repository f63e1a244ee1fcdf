package lvm

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/osds-io/osds/pkg/drivers"
	"github.com/osds-io/osds/pkg/model"
)

// Pools lists the pools with their statistics, and warns of those that run full.
func (d *Driver) Pools(ctx context.Context) ([]drivers.Pool, error) {
	if err := drivers.Begin(ctx); err != nil {
		return nil, err
	}
	all, err := d.fresh(ctx)
	if err != nil {
		return nil, err
	}
	usable, why := d.exports.Protocols()
	out := make([]drivers.Pool, 0, len(d.names))
	for _, n := range d.names {
		p := d.pools[n]
		dp := d.poolState(p, all[p.conf.vg])
		if proto := dp.Extras.IOConnectivity.AccessProtocol; !slices.Contains(usable, proto) {
			dp.Lacks = append(dp.Lacks, model.AbilityExport)
			d.warn(p, "export", "volumes cannot be exported by "+proto+": "+why[proto])
		} else {
			d.warn(p, "export", "")
		}
		out = append(out, dp)
	}
	return out, nil
}

// poolState shows a pool by a report. What cannot be seen is as it was last, and
// unusable: nobody may take it for gone.
func (d *Driver) poolState(p *pool, g *group) drivers.Pool {
	g, err := d.checkGroup(p.vg.name, g)
	var tp *lv
	if err == nil && p.conf.isThin() {
		tp, err = p.thinLV(d, g)
	}
	dp := drivers.Pool{
		Name: p.name, OverProvisioning: p.conf.OverProvisioningRatio, AvailabilityZone: p.conf.AvailabilityZone,
		StorageType: p.conf.StorageType, Description: p.conf.Description, MultiAttach: p.conf.MultiAttach, Extras: p.conf.Extras,
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if err != nil {
		dp.Unusable, dp.Total = err.Error(), p.lastTotal
		if u := d.known.get(p.name); u != "" {
			dp.ID = poolID(u)
		}
		return dp
	}
	if tp != nil {
		dp.ID = poolID(tp.uuid)
		dp.Total, dp.Free = p.thinSpace(g, tp)
		dp.Fills = p.fills(tp)
	} else {
		dp.ID = poolID(g.uuid)
		dp.Total, dp.Free = p.thickSpace(g)
	}
	dp.Unusable = d.unusable(p, g, tp)
	p.lastTotal = dp.Total
	d.watch(p, g, tp)
	return dp
}

// fills are those of a thin pool, as far as they are known.
func (p *pool) fills(tp *lv) (out []model.Fill) {
	for _, x := range []struct {
		of         string
		used       percent
		warn, stop int
	}{{"data", tp.data, p.conf.DataWarn, p.conf.DataStop}, {"metadata", tp.meta, p.conf.MetadataWarn, p.conf.MetadataStop}} {
		if x.used != noPercent {
			out = append(out, model.Fill{Of: x.of, Used: min(float64(x.used)/10000, 1), Warn: float64(x.warn) / 100, Stop: float64(x.stop) / 100})
		}
	}
	return out
}

// thickSpace is what osds has in a group and the free space there.
func (p *pool) thickSpace(g *group) (total, free model.Bytes) {
	used := p.used(g)
	total, free = used+g.free, g.free
	if c := p.conf.Capacity; c > 0 && total > c {
		total = max(c, used)
		free = min(free, total-used)
	}
	return total, free
}

// used is the space of all that is ours in a thick pool, snapshots as well.
func (p *pool) used(g *group) (n model.Bytes) {
	for _, l := range g.lvs {
		if l.tags[tagKind] != "" && p.has(l) {
			n += l.size
		}
	}
	return n
}

// thinSpace is the thin pool's data space less what others' volumes in it have
// taken.
func (p *pool) thinSpace(g *group, tp *lv) (total, free model.Bytes) {
	var others model.Bytes
	for _, l := range g.lvs {
		if p.has(l) && l.tags[tagKind] == "" {
			others += l.data.of(l.size)
		}
	}
	total = max(tp.size-others, 0)
	if tp.data == noPercent {
		return total, 0
	}
	free = max(tp.size-tp.data.of(tp.size), 0)
	if c := p.conf.Capacity; c > 0 && total > c {
		// What is taken beyond others' is ours.
		ours := max(tp.size-free-others, 0)
		total = c
		free = min(free, max(c-ours, 0))
	}
	return total, min(free, total)
}

// promised is the size of all volumes of ours in a thin pool, by their ids: during
// a revert one has two.
func (p *pool) promised(g *group) (n model.Bytes) {
	size := map[string]model.Bytes{}
	for _, l := range g.lvs {
		if l.tags[tagKind] == kindVolume && p.has(l) {
			size[l.tags[tagID]] = max(size[l.tags[tagID]], l.size)
		}
	}
	for _, s := range size {
		n += s
	}
	return n
}

// unusable says why nothing may be placed in a pool; empty if it may.
func (d *Driver) unusable(p *pool, g *group, tp *lv) string {
	switch {
	case g.exported:
		return fmt.Sprintf("the volume group %s is exported (vgexport)", g.name)
	case g.readOnly:
		return fmt.Sprintf("the volume group %s is read-only", g.name)
	case g.missing > 0:
		return fmt.Sprintf("%d physical volumes of the group %s are missing", g.missing, g.name)
	case tp == nil:
		return ""
	case !tp.zero:
		return fmt.Sprintf("the thin pool %s does not clear its blocks, so that volumes would show old data: lvchange --zero y %s", p.name, p.name)
	case tp.data == noPercent || tp.meta == noPercent:
		return fmt.Sprintf("how full the thin pool %s is cannot be seen: is it active? (lvchange --activate y %s)", p.name, p.name)
	case tp.data >= percent(p.conf.DataStop*100):
		return fmt.Sprintf("the data space of the thin pool %s is full to %s (dataStop is %d): extend it or delete something", p.name, tp.data, p.conf.DataStop)
	case tp.meta >= percent(p.conf.MetadataStop*100):
		return fmt.Sprintf("the metadata space of the thin pool %s is full to %s (metadataStop is %d): lvextend --poolmetadatasize", p.name, tp.meta, p.conf.MetadataStop)
	}
	return ""
}

// room says whether size more fits; the error is why not. With stops, a pool that
// takes nothing new refuses too.
func (d *Driver) room(p *pool, g *group, size model.Bytes, stops bool) error {
	var tp *lv
	if p.conf.isThin() {
		var err error
		if tp, err = p.thinLV(d, g); err != nil {
			return err
		}
	}
	if why := d.unusable(p, g, tp); why != "" && stops {
		kind := model.KindUnavailable
		if tp != nil && (tp.data >= percent(p.conf.DataStop*100) || tp.meta >= percent(p.conf.MetadataStop*100)) {
			kind = model.KindExhausted
		}
		return model.Errorf(kind, "%s", why)
	}
	if tp == nil {
		if _, free := p.thickSpace(g); size > free {
			return model.Errorf(model.KindExhausted, "pool %s has %s left, and %s is asked for", p.name, free, size)
		}
		return nil
	}
	total, _ := p.thinSpace(g, tp)
	limit := model.Bytes(math.Floor(float64(total) * p.conf.OverProvisioningRatio))
	if have := p.promised(g); size > limit-have {
		return model.Errorf(model.KindExhausted, "pool %s may promise %s and has promised %s; %s more is asked for", p.name, limit, have, size)
	}
	return nil
}

// watch warns of what runs full. p.mu is held.
func (d *Driver) watch(p *pool, g *group, tp *lv) {
	said := []string{}
	if tp != nil {
		if tp.data >= percent(p.conf.DataWarn*100) {
			said = append(said, fmt.Sprintf("its data space is full to %d %%", tp.data/100))
		}
		if tp.meta >= percent(p.conf.MetadataWarn*100) {
			said = append(said, fmt.Sprintf("its metadata space is full to %d %%", tp.meta/100))
		}
		d.sayLocked(p, "space", strings.Join(said, "; "))
		return
	}
	for _, l := range g.lvs {
		if l.tags[tagKind] != kindSnapshot || !p.has(l) {
			continue
		}
		text := ""
		switch {
		case l.overflowed():
			text = fmt.Sprintf("snapshot %s of volume %s has overflowed: its data is lost, delete it", l.tags[tagID], l.tags[tagOf])
		case l.snap >= percent(p.conf.SnapshotWarn*100):
			text = fmt.Sprintf("snapshot %s of volume %s is nearly full: when it is full its data is lost", l.tags[tagID], l.tags[tagOf])
		}
		d.sayLocked(p, l.tags[tagID], text)
	}
	for what := range p.said {
		if what != "space" && what != "export" && g.lvs[snapshotName(strings.TrimPrefix(what, "grow "))] == nil {
			delete(p.said, what)
		}
	}
}

// warn logs what has changed about a pool, once.
func (d *Driver) warn(p *pool, what, text string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	d.sayLocked(p, what, text)
}

func (d *Driver) sayLocked(p *pool, what, text string) {
	if p.said == nil {
		p.said = map[string]string{}
	}
	old := p.said[what]
	if old == text {
		return
	}
	log := d.log.WithField("pool", p.name)
	if text == "" {
		delete(p.said, what)
		log.Info("no longer: " + old)
		return
	}
	p.said[what] = text
	log.Warn(text)
}

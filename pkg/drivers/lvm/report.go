package lvm

import (
	"encoding/json"
	"fmt"
	"math"
	"sort"
	"strconv"
	"strings"

	"github.com/osds-io/osds/pkg/model"
)

// This file reads the one report that everything the driver knows comes from:
//
//	lvm fullreport --reportformat json --units b --nosuffix ...
//
// All of its values are strings; a field that is missing or does not parse makes
// the report an error, never a zero that looks like a fact.

// The columns of the report's sections.
const (
	vgColumns = "vg_uuid,vg_name,vg_attr,vg_size,vg_free,vg_extent_size,vg_seqno,vg_missing_pv_count,vg_lock_type"
	lvColumns = "lv_uuid,lv_name,lv_size,lv_attr,lv_layout,lv_role,lv_tags,lv_active,lv_device_open,lv_suspended," +
		"origin,pool_lv,data_percent,metadata_percent,snap_percent,lv_snapshot_invalid,lv_metadata_size"
	pvColumns    = "pv_uuid,pv_name"
	pvsegColumns = "pv_uuid,pvseg_start,pvseg_size,lv_uuid"
	segColumns   = "lv_uuid,segtype,seg_pe_ranges,zero"
)

// group is a volume group as a report shows it.
type group struct {
	uuid, name         string
	size, free, extent model.Bytes
	seqno              int64
	missing            int
	// readOnly, exported and lockType are reasons not to use it.
	readOnly, exported bool
	lockType           string
	lvs                map[string]*lv // by name
	freeSegs           []peRange
}

// lv is a logical volume.
type lv struct {
	uuid, name  string
	size        model.Bytes
	layout      map[string]bool
	role        map[string]bool
	tags        tags
	active      bool
	open        fact
	suspended   fact
	origin      string
	pool        string
	data, meta  percent
	snap        percent
	invalid     fact // a thick snapshot that has overflowed
	zero        bool // of a thin pool: blocks are cleared before use
	ranges      []peRange
	segs        []string // the types of its segments
	metadata    model.Bytes
	permissions byte
}

// fact is something that LVM may not be able to tell.
type fact int

const (
	unknown fact = iota
	no
	yes
)

// percent is a share in hundredths of a percent; less than 0 if it is not known.
type percent int

const noPercent percent = -1

func (p percent) String() string {
	if p < 0 {
		return "unknown"
	}
	return fmt.Sprintf("%d.%02d %%", int(p)/100, int(p)%100)
}

// of gives the part of n that p is, rounded up.
func (p percent) of(n model.Bytes) model.Bytes {
	if p <= 0 {
		return 0
	}
	return model.Bytes(math.Ceil(float64(n) * float64(p) / 10_000))
}

// peRange is a run of physical extents.
type peRange struct {
	pv          string // the device's path; its UUID if that is not known
	first, last int64
}

func (r peRange) String() string { return fmt.Sprintf("%s:%d-%d", r.pv, r.first, r.last) }

type row map[string]string

type rawReport struct {
	Report []struct {
		VG    []row `json:"vg"`
		PV    []row `json:"pv"`
		LV    []row `json:"lv"`
		PVSeg []row `json:"pvseg"`
		Seg   []row `json:"seg"`
	} `json:"report"`
}

// parseReport reads a report: the groups by name. Each must have all sections: one
// that LVM could not make is left out by it, which is not the same as empty.
func parseReport(data []byte) (map[string]*group, error) {
	var raw rawReport
	if err := json.Unmarshal(data, &raw); err != nil {
		return nil, fmt.Errorf("the report of LVM is not the JSON that was asked for: %w", err)
	}
	if raw.Report == nil {
		return nil, fmt.Errorf("the report of LVM has no report")
	}
	out := map[string]*group{}
	for _, r := range raw.Report {
		if len(r.VG) == 0 && len(r.LV) == 0 {
			continue // physical volumes that are in no group
		}
		if len(r.VG) != 1 {
			return nil, fmt.Errorf("a part of LVM's report has %d volume groups", len(r.VG))
		}
		if r.PV == nil || r.LV == nil || r.PVSeg == nil || r.Seg == nil {
			return nil, fmt.Errorf("a part of LVM's report, on %.80q, lacks a section", r.VG[0]["vg_name"])
		}
		p := &rowParser{row: r.VG[0]}
		g := p.group()
		if p.err == nil && out[g.name] != nil {
			return nil, fmt.Errorf("LVM reports the volume group %s twice: two have the same name", g.name)
		}
		byUUID := map[string]*lv{}
		for _, x := range r.LV {
			p.row = x
			l := p.lv()
			if p.err != nil {
				break
			}
			if g.lvs[l.name] != nil || byUUID[l.uuid] != nil {
				return nil, fmt.Errorf("LVM reports the logical volume %s/%s twice", g.name, l.name)
			}
			g.lvs[l.name], byUUID[l.uuid] = l, l
		}
		for _, x := range r.Seg {
			p.row = x
			p.seg(byUUID)
		}
		g.freeSegs = p.free(r.PV, r.PVSeg)
		if p.err != nil {
			return nil, p.err
		}
		out[g.name] = g
	}
	return out, nil
}

// rowParser reads one row after another and keeps the first error.
type rowParser struct {
	row row
	err error
}

func (p *rowParser) fail(name, why string) {
	if p.err == nil {
		p.err = fmt.Errorf("the report of LVM: %s %.80q %s", name, p.row[name], why)
	}
}

// text gives a field; it must be there, if empty.
func (p *rowParser) text(name string) string {
	v, ok := p.row[name]
	if !ok {
		p.fail(name, "is missing")
	}
	return v
}

func (p *rowParser) nonEmpty(name string) string {
	v := p.text(name)
	if v == "" {
		p.fail(name, "is empty")
	}
	return v
}

func (p *rowParser) int(name string) int64 {
	n, err := strconv.ParseInt(p.text(name), 10, 64)
	if err != nil || n < 0 {
		p.fail(name, "is not a count")
		return 0
	}
	return n
}

// optInt is 0 for an empty field.
func (p *rowParser) optInt(name string) int64 {
	if p.text(name) == "" {
		return 0
	}
	return p.int(name)
}

// percent reads "12.34"; empty means that it is not known.
func (p *rowParser) percent(name string) percent {
	s := p.text(name)
	if s == "" {
		return noPercent
	}
	f, err := strconv.ParseFloat(s, 64)
	if err != nil || math.IsNaN(f) || f < -1 || f > 1000 {
		p.fail(name, "is not a percentage")
		return noPercent
	}
	if f < 0 {
		return noPercent
	}
	return percent(math.Round(f * 100))
}

// flag reads a field that is empty for no, "unknown", or a word for yes.
func (p *rowParser) flag(name string) fact {
	switch p.text(name) {
	case "":
		return no
	case "unknown":
		return unknown
	}
	return yes
}

// attr gives one letter of an attribute string.
func (p *rowParser) attr(name string, i int) byte {
	s := p.text(name)
	if len(s) <= i {
		p.fail(name, "is too short")
		return '-'
	}
	return s[i]
}

func (p *rowParser) group() *group {
	g := &group{
		uuid: p.nonEmpty("vg_uuid"), name: p.nonEmpty("vg_name"),
		size: model.Bytes(p.int("vg_size")), free: model.Bytes(p.int("vg_free")), extent: model.Bytes(p.int("vg_extent_size")),
		seqno: p.int("vg_seqno"), missing: int(p.int("vg_missing_pv_count")),
		readOnly: p.attr("vg_attr", 0) == 'r', exported: p.attr("vg_attr", 2) == 'x', lockType: p.text("vg_lock_type"),
		lvs: map[string]*lv{},
	}
	if g.extent <= 0 && p.err == nil {
		p.fail("vg_extent_size", "is not a size")
	}
	return g
}

func (p *rowParser) lv() *lv {
	name := p.nonEmpty("lv_name")
	l := &lv{
		// Hidden parts of others are shown in brackets.
		uuid: p.nonEmpty("lv_uuid"), name: strings.TrimSuffix(strings.TrimPrefix(name, "["), "]"),
		size: model.Bytes(p.int("lv_size")), layout: set(p.text("lv_layout")), role: set(p.text("lv_role")),
		tags: parseTags(p.text("lv_tags")), active: p.text("lv_active") != "" && p.text("lv_active") != "unknown",
		open: p.flag("lv_device_open"), suspended: p.flag("lv_suspended"),
		origin: strings.Trim(p.text("origin"), "[]"), pool: strings.Trim(p.text("pool_lv"), "[]"),
		data: p.percent("data_percent"), meta: p.percent("metadata_percent"), snap: p.percent("snap_percent"),
		invalid: p.flag("lv_snapshot_invalid"), metadata: model.Bytes(p.optInt("lv_metadata_size")),
		permissions: p.attr("lv_attr", 1),
	}
	return l
}

func set(s string) map[string]bool {
	out := map[string]bool{}
	for _, x := range strings.Split(s, ",") {
		if x != "" {
			out[x] = true
		}
	}
	return out
}

// seg adds a segment to its volume. Ranges of other volumes' parts (a thin
// pool's data) are passed over.
func (p *rowParser) seg(byUUID map[string]*lv) {
	l := byUUID[p.nonEmpty("lv_uuid")]
	typ, text := p.nonEmpty("segtype"), p.text("seg_pe_ranges")
	if l == nil {
		return // hidden
	}
	l.segs = append(l.segs, typ)
	l.zero = p.flag("zero") == yes
	for _, s := range strings.Fields(text) {
		dev, ends, ok := cutLast(s, ':')
		first, last, dash := strings.Cut(ends, "-")
		a, err1 := strconv.ParseInt(first, 10, 64)
		b, err2 := strconv.ParseInt(last, 10, 64)
		if !ok || !dash || dev == "" || err1 != nil || err2 != nil || a < 0 || b < a {
			p.fail("seg_pe_ranges", "is not a list of ranges")
			return
		}
		if strings.HasPrefix(dev, "/") {
			l.ranges = append(l.ranges, peRange{dev, a, b})
		}
	}
}

func cutLast(s string, sep byte) (before, after string, ok bool) {
	i := strings.LastIndexByte(s, sep)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+1:], true
}

// free lists the free extents.
func (p *rowParser) free(pvs, segs []row) (out []peRange) {
	path := map[string]string{}
	for _, r := range pvs {
		p.row = r
		path[p.nonEmpty("pv_uuid")] = p.text("pv_name")
	}
	for _, r := range segs {
		p.row = r
		owner, pv := p.text("lv_uuid"), p.nonEmpty("pv_uuid")
		first, n := p.int("pvseg_start"), p.int("pvseg_size")
		if owner == "" && n > 0 && strings.HasPrefix(path[pv], "/") {
			if first > math.MaxInt64-n {
				p.fail("pvseg_size", "is too large")
				return nil
			}
			out = append(out, peRange{path[pv], first, first + n - 1})
		}
	}
	sort.Slice(out, func(i, j int) bool {
		if out[i].pv != out[j].pv {
			return out[i].pv < out[j].pv
		}
		return out[i].first < out[j].first
	})
	return out
}

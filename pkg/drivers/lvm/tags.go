package lvm

import (
	"fmt"
	"sort"
	"strings"

	"github.com/osds-io/osds/pkg/model"
)

// Everything the driver makes is tagged, in the same command that makes it. The
// tags say what it is; a logical volume without them is somebody else's, whatever
// its name.
const (
	tagPrefix   = "osds."
	tagID       = "osds.id"      // the id of the volume or snapshot it is, or is made for
	tagKind     = "osds.kind"    // see the kinds
	tagTenant   = "osds.tenant"  //
	tagCluster  = "osds.cluster" //
	tagOf       = "osds.of"      // of a snapshot: the volume's id
	tagSize     = "osds.size"    // of a snapshot: how large the volume was
	tagSource   = "osds.source"  // of a clone: what it was made from
	tagNew      = "osds.new"     // being made; its value names it in the journal
	tagDeleting = "osds.deleting"
	tagRevert   = "osds.revert" // a revert to this snapshot has begun
	tagImport   = "osds.import" // being imported; its value is the name it had
)

// The kinds of what the driver makes.
const (
	kindVolume   = "volume"
	kindSnapshot = "snapshot"
	kindAux      = "aux" // a help in the making of a volume
)

// tags are the osds tags of a logical volume, decoded.
type tags map[string]string

// parseTags reads the tags that a report shows. Others' are passed over.
func parseTags(s string) tags {
	t := tags{}
	for _, x := range strings.Split(s, ",") {
		name, val, _ := strings.Cut(x, "=")
		if strings.HasPrefix(name, tagPrefix) {
			t[name] = decodeTag(val)
		}
	}
	return t
}

// list gives the tags as LVM takes them, in order; empty values are left out.
func (t tags) list() []string {
	var out []string
	for name, val := range t {
		if val != "" {
			out = append(out, name+"="+encodeTag(val))
		}
	}
	sort.Strings(out)
	return out
}

// args gives options that add the tags.
func (t tags) args() []string {
	var out []string
	for _, x := range t.list() {
		out = append(out, "--addtag", x)
	}
	return out
}

// with gives a copy with one more.
func (t tags) with(name, val string) tags {
	out := tags{name: val}
	for k, v := range t {
		if k != name {
			out[k] = v
		}
	}
	return out
}

// without gives a copy with some less.
func (t tags) without(names ...string) tags {
	out := tags{}
	for k, v := range t {
		out[k] = v
	}
	for _, n := range names {
		delete(out, n)
	}
	return out
}

// LVM takes letters, digits and _ + . - / = ! : # & in tags. What else there may
// be in a value, and the mark itself, stands as ! and two hex digits.
const tagMark = '!'

func plainInTag(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("_+.-/:", c) >= 0
}

func encodeTag(s string) string {
	var b strings.Builder
	for i := range len(s) {
		if plainInTag(s[i]) {
			b.WriteByte(s[i])
		} else {
			fmt.Fprintf(&b, "%c%02x", tagMark, s[i])
		}
	}
	return b.String()
}

func decodeTag(s string) string {
	if strings.IndexByte(s, tagMark) < 0 {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == tagMark && i+2 < len(s) {
			var c byte
			if n, err := fmt.Sscanf(s[i+1:i+3], "%02x", &c); err == nil && n == 1 {
				b.WriteByte(c)
				i += 2
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// The names of logical volumes. Volumes and snapshots are named as by the
// original, the others are the driver's own helps.
func volumeName(id string) string   { return "volume-" + id }
func snapshotName(id string) string { return "_snapshot-" + id }

// growName holds the space that a thick volume is about to get, until it is clear.
func growName(id string) string { return "_grow-" + id }

// cloneName is the snapshot that a clone is copied from.
func cloneName(id string) string { return "_clone-" + id }

// revertName is what a thin volume is about to become, oldName what it was.
func revertName(id string) string { return "_revert-" + id }
func oldName(id string) string    { return "_old-" + id }

// auxNames are all the helps there may be of a volume.
func auxNames(id string) []string {
	return []string{growName(id), cloneName(id), revertName(id), oldName(id)}
}

// reserved are parts of names that LVM keeps for itself.
var reserved = []string{"_cdata", "_cmeta", "_corig", "_cpool", "_cvol", "_wcorig", "_iorig", "_imeta", "_mimage", "_mlog", "_rimage", "_rmeta",
	"_tdata", "_tmeta", "_vdata", "_vorigin", "_pmspare"}

// maxMapName is the longest name of a device that the device mapper takes.
const maxMapName = 127

// checkName refuses an id that LVM cannot have in a name. Dashes count twice: the
// device mapper doubles them.
func checkName(field, vg, id string) error {
	for _, r := range reserved {
		if strings.Contains(id, r) {
			return model.Invalid(field, "%s %.64q has %s in it, which LVM keeps for itself", field, id, r)
		}
	}
	long := snapshotName(id) + "-real"
	if n := len(vg) + strings.Count(vg, "-") + 1 + len(long) + strings.Count(long, "-"); n > maxMapName {
		return model.Invalid(field, "%s %.64q is too long for the name of a logical volume in group %s", field, id, vg)
	}
	return nil
}

// is says whether a logical volume is ours, of a kind, and for an id.
func (l *lv) is(kind, id string) bool {
	return l != nil && l.tags[tagKind] == kind && l.tags[tagID] == id
}

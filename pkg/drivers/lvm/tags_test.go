package lvm

import (
	"reflect"
	"regexp"
	"strings"
	"testing"

	"github.com/osds-io/osds/pkg/model"
)

// tagPattern is what LVM takes as a tag.
var tagPattern = regexp.MustCompile(`^[A-Za-z0-9_+./=!:#&][A-Za-z0-9_+./=!:#&-]*$`)

func TestTags(t *testing.T) {
	want := tags{tagID: "a.b_c-d", tagKind: kindVolume, tagTenant: "t", tagCluster: "Ünïted, \"x\" = !41 @#&\n", tagSource: "snapshot/s-1"}
	list := want.list()
	for _, x := range list {
		if !tagPattern.MatchString(x) {
			t.Errorf("LVM would refuse %q", x)
		}
	}
	if got := parseTags("others," + strings.Join(list, ",") + ",osd.x=1"); !reflect.DeepEqual(got, want) {
		t.Errorf("%q came back as %q", want, got)
	}
	if got := (tags{tagID: "x", tagTenant: ""}).args(); !reflect.DeepEqual(got, []string{"--addtag", "osds.id=x"}) {
		t.Errorf("%q", got)
	}
	if got := want.with(tagNew, "n").without(tagNew, tagOf); !reflect.DeepEqual(got, want) {
		t.Errorf("%q", got)
	}
}

func FuzzTag(f *testing.F) {
	for _, s := range []string{"", "plain", "ü!", "!4", "!zz", "a,b=c"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		e := encodeTag(s)
		if len(s) < 300 && s != "" && !tagPattern.MatchString("osds.x="+e) {
			t.Errorf("LVM would refuse %q", e)
		}
		if got := decodeTag(e); got != s {
			t.Errorf("%q became %q and came back as %q", s, e, got)
		}
		_ = parseTags(s) // anything may stand in a report
	})
}

func TestCheckName(t *testing.T) {
	for id, ok := range map[string]bool{
		model.NewID(): true, "short": true, "x_tmeta": false, "a_rimage_0": false, strings.Repeat("a", 90): true,
		strings.Repeat("a", 110): false, strings.Repeat("-", 60): false,
	} {
		if err := checkName("volumeId", "osds-vg", id); (err == nil) != ok {
			t.Errorf("%q: %v", id, err)
		}
	}
}

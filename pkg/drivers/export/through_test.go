package export

import (
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/osds-io/osds/pkg/model"
)

// What the kernel says of its own block devices is what is found; a file's, and
// one that cannot be asked, is in doubt.
func TestVolatileCache(t *testing.T) {
	f := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(f, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if !volatileCache(f) || !volatileCache(f+".none") {
		t.Error("a file is taken for stable")
	}
	all, _ := filepath.Glob("/sys/class/block/*/dev")
	seen := 0
	for _, a := range all {
		name := filepath.Base(filepath.Dir(a))
		dev := "/dev/" + name
		said := attr(filepath.Join(filepath.Dir(a), "queue/write_cache"))
		if said == "" || checkDevice(dev) != nil {
			continue
		}
		seen++
		if got := volatileCache(dev); got != (said != "write through") {
			t.Errorf("%s says %q: volatile %s", dev, said, strconv.FormatBool(got))
		}
	}
	t.Logf("%d block devices", seen)
}

// What is exported of a volume at one time is all written in one way.
func TestWritesThrough(t *testing.T) {
	f := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(f, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	direct, through := &note{AttachmentID: "b", VolumeID: "v", Name: "nb"}, &note{AttachmentID: "c", VolumeID: "v", Name: "nc", WriteThrough: true}
	for _, x := range []struct {
		setting string
		others  []*note
		live    bool
		fresh   bool
		again   bool
	}{
		{"", nil, false, true, true},
		{throughAuto, nil, false, true, true},
		{throughNever, nil, false, false, false},
		{throughAuto, []*note{direct}, true, false, false},
		{throughAuto, []*note{direct}, false, false, true},
		{throughNever, []*note{through}, true, true, true},
	} {
		m := &Manager{conf: Config{WriteThrough: x.setting}, notes: map[string]*note{}}
		n := &note{AttachmentID: "a", VolumeID: "v", Name: "na"}
		live := map[string]liveTarget{}
		for _, o := range append([]*note{n, {AttachmentID: "z", VolumeID: "w", WriteThrough: true}}, x.others...) {
			m.notes[o.AttachmentID] = o
			live[o.Name] = liveTarget{up: x.live && o != n}
		}
		if got := m.writesThrough(f, x.others); got != x.fresh {
			t.Errorf("%+v: a new one %t", x, got)
		}
		got := m.refreshed(n, f, live)
		if got.WriteThrough != x.again || got.SaysCache != x.again || got.Device != f {
			t.Errorf("%+v: one made again %+v", x, got)
		}
		n = &note{AttachmentID: "a", VolumeID: "v", WriteThrough: true}
		if m.notes["a"] = n; len(x.others) == 0 {
			if got := m.refreshed(n, f, live); !got.WriteThrough || got.SaysCache {
				t.Errorf("%+v: one that writes through made again %+v", x, got)
			}
		}
	}
	if _, err := newManager(Config{StateDir: t.TempDir(), WriteThrough: "sometimes"}, nil); model.KindOf(err) != model.KindInvalid {
		t.Errorf("%v", err)
	}
}

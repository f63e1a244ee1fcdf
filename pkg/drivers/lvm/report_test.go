package lvm

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/osds-io/osds/internal/run"
	"github.com/osds-io/osds/pkg/drivers"
	"github.com/osds-io/osds/pkg/model"
)

// The samples were made by LVM 2.03.16, with the driver's own columns.
func sample(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name+".json"))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func groupsOf(t testing.TB, name string) map[string]*group {
	t.Helper()
	all, err := parseReport(sample(t, name))
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestReport(t *testing.T) {
	all := groupsOf(t, "both")
	g := all["vg-0"]
	if len(all) != 2 || g == nil || g.uuid != "25JDut-mDkM-qfDO-La6P-NLvU-FL5A-CPcnxS" || g.size != 2143289344 || g.free != 1979711488 ||
		g.extent != 4*model.MiB || g.seqno != 7 || g.missing != 0 || g.readOnly || g.exported || len(g.lvs) != 4 {
		t.Fatalf("%+v", g)
	}
	vol := g.lvs["volume-a"]
	if !vol.is(kindVolume, "a") || vol.tags[tagCluster] != "c d" || vol.size != 64*model.MiB || !vol.active || vol.open != no ||
		vol.invalid != unknown || vol.snap != noPercent || len(vol.ranges) != 1 || vol.ranges[0] != (peRange{"/dev/vdb", 0, 15}) {
		t.Errorf("%+v", vol)
	}
	full, good := g.lvs["_snapshot-full"], g.lvs["_snapshot-good"]
	if !full.overflowed() || full.snap != 10000 || full.origin != "volume-a" || full.sizeWhenTaken() != 64*model.MiB {
		t.Errorf("%+v", full)
	}
	if good.overflowed() || good.snap != 2954 || good.size != 68*model.MiB {
		t.Errorf("%+v", good)
	}
	if len(g.freeSegs) != 1 || g.freeSegs[0] != (peRange{"/dev/vdb", 39, 510}) {
		t.Errorf("free: %v", g.freeSegs)
	}
	g = all["vg1"]
	tp := g.lvs["tp"]
	if !tp.isThinPool() || tp.data != 1000 || tp.meta != 1123 || !tp.zero || tp.open != yes || tp.metadata != 4*model.MiB {
		t.Errorf("%+v", tp)
	}
	if l := g.lvs["_snapshot-t"]; l.active || l.open != unknown || l.origin != "volume-t" || l.pool != "tp" || l.data != noPercent {
		t.Errorf("%+v", l)
	}
	if l := g.lvs["opened"]; l.open != yes || l.tags[tagKind] != "" {
		t.Errorf("%+v", l)
	}
	if l := g.lvs["tp_tdata"]; l == nil || l.role["public"] {
		t.Errorf("hidden parts: %+v", l)
	}
}

func TestReportStates(t *testing.T) {
	if l := groupsOf(t, "thick-inactive")["vg-0"].lvs["_snapshot-full"]; l.active || l.overflowed() || l.invalid != unknown {
		t.Errorf("an overflowed snapshot without a device: %+v", l)
	}
	if tp := groupsOf(t, "inactive")["vg1"].lvs["tp"]; tp.active || tp.data != noPercent || !tp.zero {
		t.Errorf("a thin pool without a device: %+v", tp)
	}
	if all := groupsOf(t, "absent"); len(all) != 1 || all["vg-0"] == nil {
		t.Errorf("with an absent group: %v", all)
	}
	if g := groupsOf(t, "empty")["vg-0"]; len(g.lvs) != 0 || len(g.freeSegs) != 1 {
		t.Errorf("an empty group: %+v", g)
	}
}

// A section that LVM left out says nothing about what is there.
func TestReportFaults(t *testing.T) {
	for name, text := range map[string]string{
		"sections":  string(sample(t, "sections")),
		"empty":     "",
		"no JSON":   "  Volume group not found",
		"no report": "{}",
		"cut":       string(sample(t, "both"))[:3000],
		"no uuid":   strings.Replace(string(sample(t, "both")), `"lv_uuid":"LT4VyA-nU4e-0soV-v62a-ebpt-KC7L-3nG01C", `, "", 1),
		"no size":   strings.Replace(string(sample(t, "both")), `"lv_size":"67108864"`, `"lv_size":"64.00m"`, 1),
		"percent":   strings.Replace(string(sample(t, "both")), `"snap_percent":"29.54"`, `"snap_percent":"NaN"`, 1),
		"ranges":    strings.Replace(string(sample(t, "both")), "/dev/vdb:0-15", "/dev/vdb:15-0", 1),
		"extent":    strings.Replace(string(sample(t, "both")), `"vg_extent_size":"4194304"`, `"vg_extent_size":"0"`, 1),
		"twice":     strings.Replace(string(sample(t, "both")), `"vg_name":"vg1"`, `"vg_name":"vg-0"`, 1),
		"no tags":   strings.Replace(string(sample(t, "both")), `"lv_tags"`, `"tags"`, 1),
	} {
		if all, err := parseReport([]byte(text)); err == nil {
			t.Errorf("%s: %v", name, all)
		}
	}
}

// reply is a run that answers with samples.
func reply(codes []int, outs ...[]byte) run.Runner {
	n := 0
	return run.Func(func(_ context.Context, c run.Cmd) (run.Result, error) {
		i := min(n, len(outs)-1)
		n++
		r := run.Result{Stdout: outs[i], ExitCode: codes[min(n-1, len(codes)-1)]}
		for _, ok := range append(c.OK, 0) {
			if r.ExitCode == ok {
				return r, nil
			}
		}
		return r, model.Errorf(model.KindInternal, "exit code %d", r.ExitCode)
	})
}

func TestReportCommand(t *testing.T) {
	absent, both := sample(t, "absent"), sample(t, "both")
	for _, x := range []struct {
		name   string
		run    run.Runner
		groups []string
		want   int // groups; -1 for an error
	}{
		{"all there", reply([]int{0}, both), []string{"vg-0", "vg1"}, 2},
		{"one absent", reply([]int{5, 0}, absent), []string{"vg-0", "nosuch"}, 1},
		{"one absent, the other at fault", reply([]int{5, 5}, absent), []string{"vg-0", "nosuch"}, -1},
		{"an error and none absent", reply([]int{5}, both), []string{"vg-0", "vg1"}, -1},
		{"none there", reply([]int{5}, []byte(`{"report": []}`)), []string{"nosuch"}, 0},
		{"another exit code", reply([]int{3}, both), []string{"vg-0", "vg1"}, -1},
		{"nonsense", reply([]int{0}, []byte("nonsense")), []string{"vg-0"}, -1},
	} {
		got, err := newCommander(x.run, nil, "/state").report(t.Context(), x.groups)
		if x.want < 0 {
			if model.KindOf(err) != model.KindUnavailable {
				t.Errorf("%s: %v, %v", x.name, got, err)
			}
		} else if err != nil || len(got) != x.want {
			t.Errorf("%s: %v, %v", x.name, got, err)
		}
	}
}

func TestDevicesBoundLVM(t *testing.T) {
	var got run.Cmd
	c := newCommander(run.Func(func(_ context.Context, c run.Cmd) (run.Result, error) {
		got = c
		return run.Result{}, errors.New("enough")
	}), []string{"/dev/vdb", "/dev/disk/by-id/a.b"}, "/state")
	_, _ = c.lvm(t.Context(), "devices/issue_discards=1", "lvremove", "vg/x")
	want := []string{"lvremove", "--config", `devices/global_filter=["a|^/dev/vdb$|","a|^/dev/disk/by-id/a[.]b$|","r|.*|"] devices/issue_discards=1`, "vg/x"}
	if strings.Join(got.Args, "\n") != strings.Join(want, "\n") || got.Name != "lvm" {
		t.Errorf("%q", got.Args)
	}
}

func FuzzReport(f *testing.F) {
	for _, n := range []string{"both", "inactive", "thick-inactive", "absent", "empty", "exported", "sections"} {
		f.Add(sample(f, n))
	}
	f.Add([]byte(`{"report":[{"vg":[{}],"pv":[],"lv":[],"pvseg":[],"seg":[]}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		all, err := parseReport(b)
		if err != nil {
			return
		}
		for name, g := range all {
			if name == "" || g.name != name || g.uuid == "" || g.extent <= 0 || g.size < 0 || g.free < 0 {
				t.Errorf("%q: %+v", name, g)
			}
			for n, l := range g.lvs {
				if l.name != n || l.uuid == "" || l.size < 0 || l.data > 100_000 {
					t.Errorf("%+v", l)
				}
				_ = l.obstacle(g)
				_ = l.sizeWhenTaken()
			}
			for _, r := range g.freeSegs {
				if r.first < 0 || r.last < r.first {
					t.Errorf("%v", r)
				}
			}
			p := &pool{name: name, vg: &vgroup{name: name}, conf: poolConfig{Capacity: model.GiB, PoolConfig: drivers.PoolConfig{}}}
			if total, free := p.thickSpace(g); free > total && g.free >= 0 {
				t.Errorf("total %d, free %d", total, free)
			}
		}
	})
}

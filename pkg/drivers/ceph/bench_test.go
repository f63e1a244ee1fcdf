//go:build ceph

package ceph

import (
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/ceph/go-ceph/rbd"

	"github.com/osds-io/osds/pkg/drivers"
	"github.com/osds-io/osds/pkg/model"
)

// The driver's calls beside librbd's own, which they are made of.
func BenchmarkCalls(b *testing.B) {
	t := newBed(b, "trashDelay: 1h", "")
	var n atomic.Int64
	direct := func() string {
		o := rbd.NewRbdImageOptions()
		defer o.Destroy()
		var bits uint64
		for _, f := range defaultFeatures {
			bits |= features[f]
		}
		t.want("features", o.SetUint64(rbd.ImageOptionFeatures, bits))
		name := fmt.Sprintf("bench-%d-%d", b.N, n.Add(1))
		t.want("create", rbd.CreateImage(t.o.io, name, uint64(model.GiB), o))
		return name
	}
	big := func() drivers.VolumeRef {
		r := t.request()
		r.Size = model.GiB
		return t.make(r)
	}
	var names []string
	b.Run("create/direct", func(b *testing.B) {
		for b.Loop() {
			names = append(names, direct())
		}
	})
	var vols []drivers.VolumeRef
	b.Run("create/driver", func(b *testing.B) {
		for b.Loop() {
			vols = append(vols, big())
		}
	})
	b.Run("get/driver", func(b *testing.B) {
		for b.Loop() {
			_, err := t.d.GetVolume(t.ctx(), vols[0])
			t.want("get", err)
		}
	})
	b.Run("list/driver", func(b *testing.B) {
		for b.Loop() {
			l, err := t.d.ListVolumes(t.ctx(), drivers.Page{Limit: 100})
			if t.want("list", err); len(l) == 0 {
				b.Fatal("nothing is listed")
			}
		}
	})
	b.Run("delete/direct", func(b *testing.B) {
		for b.Loop() {
			b.StopTimer()
			if len(names) == 0 {
				names = append(names, direct())
			}
			b.StartTimer()
			t.want("remove", rbd.RemoveImage(t.o.io, names[0]))
			names = names[1:]
		}
	})
	b.Run("delete/driver", func(b *testing.B) {
		for b.Loop() {
			b.StopTimer()
			if len(vols) == 0 {
				vols = append(vols, big())
			}
			b.StartTimer()
			t.want("delete", t.d.DeleteVolume(t.ctx(), vols[0]))
			vols = vols[1:]
		}
	})
	v := big()
	var snaps []string
	b.Run("snapshot/direct", func(b *testing.B) {
		for b.Loop() {
			img, err := t.o.open(v.ID)
			t.want("open", err)
			name := fmt.Sprintf("bench-%d", n.Add(1))
			_, err = img.CreateSnapshot(name)
			t.want("snapshot", err)
			t.want("close", img.Close())
			snaps = append(snaps, name)
		}
	})
	img, err := t.o.open(v.ID)
	t.want("open", err)
	for _, s := range snaps {
		t.want("remove", img.GetSnapshot(s).Remove())
	}
	t.want("close", img.Close())
	w := big()
	b.Run("snapshot/driver", func(b *testing.B) {
		for b.Loop() {
			_, err := t.d.CreateSnapshot(t.ctx(), drivers.CreateSnapshot{ID: model.NewID(), Volume: w})
			t.want("snapshot", err)
		}
	})
	l, err := t.d.ListSnapshots(t.ctx(), drivers.Page{})
	t.want("list", err)
	for _, s := range l {
		if s.VolumeID == w.ID {
			t.want("delete", t.d.DeleteSnapshot(t.ctx(), drivers.SnapshotRef{ID: s.ID, VolumeID: w.ID, Pool: "p"}))
		}
	}
	for _, name := range names {
		t.want("remove", rbd.RemoveImage(t.o.io, name))
	}
}

package drivertest

import (
	"context"
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/osds-io/osds/pkg/drivers"
	"github.com/osds-io/osds/pkg/model"
)

// badIDs can be no record's id; used as a file's or device's name they would do
// harm.
func badIDs() []string {
	return []string{"", ".", "..", "../x", "../../etc/passwd", "a/b", "/abs", "a\x00b", "-rf", "a b", "a\nb", "a;b", "$(x)",
		"@tag", "é", strings.Repeat("a", 129), strings.Repeat("a", 5000)}
}

func testBadIDs(e *env) {
	for _, id := range badIDs() {
		r := e.volume()
		good := r.ID
		r.ID = id
		_, err := e.d.CreateVolume(e.ctx(), r)
		e.want(fmt.Sprintf("create %.20q", id), err, model.KindInvalid)
		ref := drivers.VolumeRef{ID: id, Pool: e.h.Pool}
		_, err = e.d.GetVolume(e.ctx(), ref)
		e.want(fmt.Sprintf("get %.20q", id), err, model.KindInvalid)
		e.want(fmt.Sprintf("delete %.20q", id), e.d.DeleteVolume(e.ctx(), ref), model.KindInvalid)
		if x, ok := e.d.(drivers.Expander); ok {
			_, err = x.ExpandVolume(e.ctx(), ref, e.h.Size)
			e.want(fmt.Sprintf("expand %.20q", id), err, model.KindInvalid)
		}
		if s, ok := e.d.(drivers.Snapshotter); ok {
			_, err = s.CreateSnapshot(e.ctx(), drivers.CreateSnapshot{ID: id, Volume: drivers.VolumeRef{ID: good, Pool: e.h.Pool}})
			e.want(fmt.Sprintf("snapshot %.20q", id), err, model.KindInvalid)
			sr := drivers.SnapshotRef{ID: id, VolumeID: good, Pool: e.h.Pool}
			_, err = s.GetSnapshot(e.ctx(), sr)
			e.want(fmt.Sprintf("get snapshot %.20q", id), err, model.KindInvalid)
			e.want(fmt.Sprintf("delete snapshot %.20q", id), s.DeleteSnapshot(e.ctx(), sr), model.KindInvalid)
		}
		if x, ok := e.d.(drivers.Exporter); ok {
			_, err = x.Export(e.ctx(), drivers.Export{AttachmentID: id, Volume: drivers.VolumeRef{ID: good, Pool: e.h.Pool}, Host: e.h.Host})
			e.want(fmt.Sprintf("export %.20q", id), err, model.KindInvalid)
			err = x.Unexport(e.ctx(), drivers.ExportRef{AttachmentID: id, Volume: drivers.VolumeRef{ID: good, Pool: e.h.Pool}})
			e.want(fmt.Sprintf("unexport %.20q", id), err, model.KindInvalid)
		}
	}
	// Nobody else makes volumes for this tenant meanwhile.
	for _, v := range e.all() {
		if v.TenantID == testTenant {
			e.Errorf("made: %+v", v)
		}
	}
}

// Names are labels: whatever is in them must be refused or do no harm.
func testNames(e *env) {
	for _, name := range []string{"", "../../x", "a\x00b", "x' ; reboot", "-n", "名前", strings.Repeat("n", 5000), "a\nb", "\xff"} {
		r := e.volume()
		r.Name = name
		v, err := e.d.CreateVolume(e.ctx(), r)
		if err != nil {
			e.want(fmt.Sprintf("create with name %.20q", name), err, model.KindInvalid)
			e.absent(e.volumes[r.ID])
			continue
		}
		e.checkVolume(v, r)
		e.want("delete", e.d.DeleteVolume(e.ctx(), e.ref(v)))
		e.absent(e.ref(v))
	}
}

func testBadSizes(e *env) {
	for _, size := range []model.Bytes{0, -1, -model.GiB, math.MinInt64, math.MaxInt64, math.MaxInt64 - 4096} {
		r := e.volume()
		r.Size = size
		_, err := e.d.CreateVolume(e.ctx(), r)
		e.want(fmt.Sprintf("create of %d bytes", size), err, model.KindInvalid, model.KindExhausted)
		if size <= 0 {
			e.want(fmt.Sprintf("create of %d bytes", size), err, model.KindInvalid)
		}
		e.absent(e.volumes[r.ID])
	}
	if x, ok := able[drivers.Expander](e, model.AbilityExpand); ok {
		ref := e.make()
		for _, size := range []model.Bytes{math.MaxInt64, math.MaxInt64 - 4096} {
			_, err := x.ExpandVolume(e.ctx(), ref, size)
			e.want(fmt.Sprintf("expand to %d bytes", size), err, model.KindInvalid, model.KindExhausted)
		}
		v, err := e.d.GetVolume(e.ctx(), ref)
		e.want("get", err)
		if v.Size >= 2*e.h.Size {
			e.Errorf("a refused growth made it %s", v.Size)
		}
	}
}

// A pool that is not configured is no proof that its volumes are gone.
func testUnknownPool(e *env) {
	r := e.volume()
	r.Pool = "no-such-pool"
	_, err := e.d.CreateVolume(e.ctx(), r)
	e.want("create", err, model.KindInvalid, model.KindUnavailable)
	ref := drivers.VolumeRef{ID: r.ID, Pool: r.Pool}
	_, err = e.d.GetVolume(e.ctx(), ref)
	e.want("get", err, model.KindInvalid, model.KindUnavailable)
	e.want("delete", e.d.DeleteVolume(e.ctx(), ref), model.KindInvalid, model.KindUnavailable)
	e.absent(e.volumes[r.ID])
}

func testExhausted(e *env) {
	p := e.pool()
	r := e.volume()
	r.Size = limit(p) + model.GiB
	if r.Size > drivers.MaxSize {
		e.Skipf("pool %s promises %s, more than a volume can be", p.Name, limit(p))
	}
	_, err := e.d.CreateVolume(e.ctx(), r)
	e.want("create of more than there is", err, model.KindExhausted)
	e.absent(e.volumes[r.ID])
	if x, ok := able[drivers.Expander](e, model.AbilityExpand); ok {
		ref := e.make()
		e.write(ref, 1)
		_, err := x.ExpandVolume(e.ctx(), ref, r.Size)
		e.want("expand to more than there is", err, model.KindExhausted)
		v, err := e.d.GetVolume(e.ctx(), ref)
		e.want("get", err)
		if v.Size >= 2*e.h.Size {
			e.Errorf("a refused growth made it %s", v.Size)
		}
		e.has("after a refused growth", ref, 1, e.h.Size)
	}
}

// Two that do not fit together must not both get in.
func testFill(e *env) {
	if !e.h.Fill {
		e.Skip("the pool is too large to be filled")
	}
	size := limit(e.pool())/5*3 - limit(e.pool())/5*3%model.MiB
	reqs := make([]drivers.CreateVolume, 6)
	for i := range reqs {
		reqs[i] = e.volume()
		reqs[i].Size = size
	}
	ok := 0
	for i, err := range e.together(len(reqs), func(i int) error {
		_, err := e.d.CreateVolume(e.ctx(), reqs[i])
		return err
	}) {
		if err == nil {
			ok++
			continue
		}
		e.want("create", err, model.KindExhausted)
		e.absent(e.volumes[reqs[i].ID])
	}
	if ok != 1 {
		e.Errorf("%d volumes of three fifths of the pool were made", ok)
	}
	for _, r := range reqs {
		e.want("delete", e.d.DeleteVolume(e.ctx(), e.volumes[r.ID]))
	}
	e.makeOf(reqs[0]) // what was freed can be used
}

// A context that has ended before the call: nothing is done, or all of it.
func testCancelled(e *env) {
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	check := func(what string, err error) {
		e.Helper()
		if err != nil {
			e.want(what, err, model.KindUnknownOutcome)
		}
	}
	r := e.volume()
	_, err := e.d.CreateVolume(ended, r)
	check("create", err)
	ref := e.volumes[r.ID]
	if _, gerr := e.d.GetVolume(e.ctx(), ref); gerr != nil {
		if err == nil {
			e.Error("a create that succeeded made nothing")
		}
		e.absent(ref)
	}
	ref = e.makeOf(r)
	check("delete", e.d.DeleteVolume(ended, ref))
	ref = e.makeOf(r)
	if x, ok := able[drivers.Expander](e, model.AbilityExpand); ok {
		_, err := x.ExpandVolume(ended, ref, 2*e.h.Size)
		check("expand", err)
		if v, gerr := e.d.GetVolume(e.ctx(), ref); gerr != nil || (err == nil && v.Size < 2*e.h.Size) {
			e.Errorf("after %v: %+v, %v", err, v, gerr)
		}
	}
	if s, ok := able[drivers.Snapshotter](e, model.AbilitySnapshot); ok {
		sr := e.snapshotRequest(ref)
		_, err := s.CreateSnapshot(ended, sr)
		check("snapshot", err)
		if _, gerr := s.GetSnapshot(e.ctx(), e.snapshots[sr.ID]); (gerr == nil) != (err == nil) {
			e.Errorf("create gave %v, get %v", err, gerr)
		}
	}
	if x, ok := able[drivers.Exporter](e, model.AbilityExport); ok {
		xr := e.export(ref)
		_, err := x.Export(ended, xr)
		check("export", err)
		check("unexport", x.Unexport(ended, e.exportRef(xr)))
	}
	_, err = e.d.Pools(ended)
	check("pools", err)
}

// A context that ends somewhere in the middle: the outcome is unknown to the
// caller, but the same call again completes it and delete removes it.
func testCancelledMidway(e *env) {
	var src drivers.VolumeRef
	_, clones := able[drivers.Cloner](e, model.AbilityClone)
	if clones {
		src = e.make()
		e.write(src, 1)
	}
	for _, delay := range []time.Duration{50 * time.Microsecond, 300 * time.Microsecond, time.Millisecond, 5 * time.Millisecond} {
		for _, clone := range []bool{false, true} {
			if clone && !clones {
				continue
			}
			for _, again := range []bool{true, false} {
				r := e.volume()
				call := e.d.CreateVolume
				if clone {
					r.Source = &drivers.Source{Volume: &src, Size: e.h.Size}
					call = e.d.(drivers.Cloner).CloneVolume
				}
				ctx, cancel := context.WithTimeout(context.Background(), delay)
				_, err := call(ctx, r)
				cancel()
				if err != nil {
					e.want("create", err, model.KindUnknownOutcome)
				}
				if again {
					if _, err := call(e.ctx(), r); err != nil {
						e.Errorf("the same call again: %v", err)
						continue
					}
					seed := uint64(0)
					if clone {
						seed = 1
					}
					e.has("after the same call again", e.volumes[r.ID], seed, e.h.Size)
				}
				e.want("delete", e.d.DeleteVolume(e.ctx(), e.volumes[r.ID]))
				e.absent(e.volumes[r.ID])
			}
		}
	}
}

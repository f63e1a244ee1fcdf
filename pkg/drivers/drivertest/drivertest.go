package drivertest

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/osds-io/osds/pkg/drivers"
	"github.com/osds-io/osds/pkg/model"
)

// Run runs the suite: the required interface and every ability that the driver
// has. The names of its parts, for Harness.Skip, are those of the subtests;
// "data" stands for all comparisons of contents.
func Run(t *testing.T, h Harness) {
	h.defaults(t)
	for _, part := range []struct {
		name string
		fn   func(*env)
	}{
		{"pools", testPools},
		{"create", testCreate},
		{"same-id", testSameID},
		{"same-id-concurrently", testSameIDConcurrently},
		{"create-concurrently", testCreateConcurrently},
		{"delete", testDelete},
		{"get", testGet},
		{"list", testList},
		{"bad-ids", testBadIDs},
		{"names", testNames},
		{"bad-sizes", testBadSizes},
		{"unknown-pool", testUnknownPool},
		{"exhausted", testExhausted},
		{"fill", testFill},
		{"cancelled", testCancelled},
		{"cancelled-midway", testCancelledMidway},
		{"zero", testZero},
		{"expand", testExpand},
		{"snapshot", testSnapshot},
		{"snapshot-delete", testSnapshotDelete},
		{"snapshot-list", testSnapshotList},
		{"snapshotted-volume", testSnapshottedVolume},
		{"clone-of-snapshot", testCloneOfSnapshot},
		{"clone-of-volume", testCloneOfVolume},
		{"clone-refusals", testCloneRefusals},
		{"revert", testRevert},
		{"export", testExport},
		{"export-read-only", testExportReadOnly},
		{"export-grown", testExportGrown},
		{"multi-attach", testMultiAttach},
		{"hold", testHold},
		{"restart", testRestart},
		{"mixed", testMixed},
	} {
		t.Run(part.name, func(t *testing.T) {
			if why := h.Skip[part.name]; why != "" {
				t.Skip(why)
			}
			part.fn(newEnv(t, &h))
		})
	}
}

// needs skips a test for what the driver or the pool has not.
func (e *env) needs(abilities ...string) {
	e.Helper()
	for _, a := range abilities {
		if !e.can(a) {
			e.Skipf("the driver or its pool %s cannot %s", e.h.Pool, a)
		}
	}
}

func (e *env) can(ability string) (ok bool) {
	switch ability {
	case model.AbilityExpand:
		_, ok = able[drivers.Expander](e, ability)
	case model.AbilitySnapshot:
		_, ok = able[drivers.Snapshotter](e, ability)
	case model.AbilityClone:
		_, ok = able[drivers.Cloner](e, ability)
	case model.AbilityRevert:
		_, ok = able[drivers.Reverter](e, ability)
	case model.AbilityExport:
		_, ok = able[drivers.Exporter](e, ability)
	}
	return ok
}

// able gives the driver's ability if it and the pool have it.
func able[T any](e *env, ability string) (T, bool) {
	x, ok := e.d.(T)
	return x, ok && !slices.Contains(e.lacks, ability)
}

// pool gives the suite's pool as the driver shows it.
func (e *env) pool() drivers.Pool {
	e.Helper()
	ps, err := e.d.Pools(e.ctx())
	if err != nil {
		e.Fatalf("pools: %v", err)
	}
	i := slices.IndexFunc(ps, func(p drivers.Pool) bool { return p.Name == e.h.Pool })
	if i < 0 {
		e.Fatalf("there is no pool %q", e.h.Pool)
	}
	return ps[i]
}

func limit(p drivers.Pool) model.Bytes {
	return model.Bytes(float64(p.Total) * max(p.OverProvisioning, 1))
}

func testPools(e *env) {
	ps, err := e.d.Pools(e.ctx())
	if err != nil {
		e.Fatal(err)
	}
	names, ids := map[string]bool{}, map[string]bool{}
	for _, p := range ps {
		if p.Name == "" || names[p.Name] || (p.ID != "" && ids[p.ID]) {
			e.Errorf("name %q or id %q is empty or there twice", p.Name, p.ID)
		}
		names[p.Name], ids[p.ID] = true, true
		if p.Total <= 0 || p.Free < 0 || p.Free > p.Total {
			e.Errorf("pool %s: total %d, free %d", p.Name, p.Total, p.Free)
		}
		if p.OverProvisioning < 1 {
			e.Errorf("pool %s: over-provisioning %v", p.Name, p.OverProvisioning)
		}
		if p.StorageType != "block" || p.AvailabilityZone == "" {
			e.Errorf("pool %s: type %q, zone %q", p.Name, p.StorageType, p.AvailabilityZone)
		}
		if pol := p.Extras.DataStorage.ProvisioningPolicy; pol != "Thin" && pol != "Thick" {
			e.Errorf("pool %s: provisioningPolicy %q", p.Name, pol)
		}
	}
	before := e.pool()
	if before.Unusable != "" {
		e.Fatalf("the pool cannot be used: %s", before.Unusable)
	}
	e.make()
	if p := e.pool(); p.Total <= 0 || p.Free > p.Total || p.ID != before.ID {
		e.Errorf("after a create: %+v", p)
	}
	if before.OverProvisioning == 1 && before.Extras.DataStorage.ProvisioningPolicy == "Thick" {
		// Others may use the backend too, so only a trend is known.
		if p := e.pool(); p.Free > before.Free-e.h.Size/2 {
			e.Errorf("a thick volume of %s took %s of free space", e.h.Size, before.Free-p.Free)
		}
	}
	e.reopen()
	if p := e.pool(); p.ID != before.ID {
		e.Errorf("the pool's id was %q and is %q after a restart", before.ID, p.ID)
	}
}

func testCreate(e *env) {
	r := e.volume()
	v, err := e.d.CreateVolume(e.ctx(), r)
	if err != nil {
		e.Fatal(err)
	}
	e.checkVolume(v, r)
	got, err := e.d.GetVolume(e.ctx(), e.ref(v))
	e.want("get", err)
	e.checkVolume(got, r)
	if got.Size != v.Size || got.DurableName != v.DurableName {
		e.Errorf("created %+v, got %+v", v, got)
	}
	l, ok := e.listed(r.ID)
	if !ok {
		e.Fatal("the new volume is not listed")
	}
	e.checkVolume(l, r)
}

func testSameID(e *env) {
	r := e.volume()
	first, err := e.d.CreateVolume(e.ctx(), r)
	if err != nil {
		e.Fatal(err)
	}
	ref := e.ref(first)
	e.write(ref, 1)
	again, err := e.d.CreateVolume(e.ctx(), r)
	e.want("the same create again", err)
	e.checkVolume(again, r)
	if again.Size != first.Size || again.DurableName != first.DurableName {
		e.Errorf("first %+v, then %+v", first, again)
	}
	e.has("after the same create again", ref, 1, e.h.Size)
	other := r
	other.Size = 2 * r.Size
	_, err = e.d.CreateVolume(e.ctx(), other)
	e.want("another size with the same id", err, model.KindExists)
	e.has("after a refused create", ref, 1, e.h.Size)
	if _, ok := able[drivers.Cloner](e, model.AbilityClone); ok {
		src := e.make()
		other = r
		other.Source = &drivers.Source{Volume: &src, Size: r.Size}
		_, err = e.d.(drivers.Cloner).CloneVolume(e.ctx(), other)
		e.want("a clone with the same id", err, model.KindExists)
		e.has("after a refused clone", ref, 1, e.h.Size)
	}
}

// The dock keeps calls on one object one at a time; a driver must not go wrong
// if it does not.
func testSameIDConcurrently(e *env) {
	r := e.volume()
	errs := e.together(8, func(i int) error {
		q := r
		if i%4 == 3 {
			q.Size = 2 * r.Size
		}
		v, err := e.d.CreateVolume(e.ctx(), q)
		if err == nil && (v.ID != r.ID || v.Size < q.Size) {
			return fmt.Errorf("got %+v for %+v", v, q)
		}
		return err
	})
	ok := 0
	for i, err := range errs {
		if err == nil {
			ok++
			continue
		}
		e.want(fmt.Sprint("create ", i), err, model.KindExists, model.KindBusy)
	}
	if ok == 0 {
		e.Error("none succeeded")
	}
	n := 0
	for _, v := range e.all() {
		if v.ID == r.ID {
			n++
		}
	}
	if n != 1 {
		e.Errorf("listed %d times", n)
	}
	errs = e.together(4, func(int) error { return e.d.DeleteVolume(e.ctx(), e.volumes[r.ID]) })
	for _, err := range errs {
		if err != nil {
			e.want("delete", err, model.KindBusy)
		}
	}
	e.want("delete", e.d.DeleteVolume(e.ctx(), e.volumes[r.ID]))
	e.absent(e.volumes[r.ID])
}

func (e *env) together(n int, fn func(i int) error) []error {
	errs := make([]error, n)
	var wg sync.WaitGroup
	start := make(chan struct{})
	for i := range n {
		wg.Add(1)
		go func() {
			defer wg.Done()
			<-start
			errs[i] = fn(i)
		}()
	}
	close(start)
	wg.Wait()
	return errs
}

func testCreateConcurrently(e *env) {
	reqs := make([]drivers.CreateVolume, 8)
	for i := range reqs {
		reqs[i] = e.volume()
	}
	for i, err := range e.together(len(reqs), func(i int) error {
		_, err := e.d.CreateVolume(e.ctx(), reqs[i])
		return err
	}) {
		e.want(fmt.Sprint("create ", i), err)
	}
	for _, r := range reqs {
		v, err := e.d.GetVolume(e.ctx(), e.volumes[r.ID])
		e.want("get", err)
		e.checkVolume(v, r)
	}
	for i, err := range e.together(len(reqs), func(i int) error {
		return e.d.DeleteVolume(e.ctx(), e.volumes[reqs[i].ID])
	}) {
		e.want(fmt.Sprint("delete ", i), err)
	}
	for _, r := range reqs {
		e.absent(e.volumes[r.ID])
	}
}

func testDelete(e *env) {
	ref := e.make()
	e.write(ref, 1)
	e.want("delete", e.d.DeleteVolume(e.ctx(), ref))
	e.absent(ref)
	e.want("delete again", e.d.DeleteVolume(e.ctx(), ref))
	never := drivers.VolumeRef{ID: model.NewID(), Pool: e.h.Pool}
	e.want("delete of what never was", e.d.DeleteVolume(e.ctx(), never))
	// The id may be used again, and nothing of the old volume shows.
	r := e.volume()
	r.ID = ref.ID
	again := e.makeOf(r)
	e.has("a volume made anew", again, 0, e.h.Size)
}

func testGet(e *env) {
	_, err := e.d.GetVolume(e.ctx(), drivers.VolumeRef{ID: model.NewID(), Pool: e.h.Pool})
	e.want("get of an absent volume", err, model.KindNotFound)
	ref := e.make()
	v, err := e.d.GetVolume(e.ctx(), ref)
	e.want("get", err)
	if v.ID != ref.ID || v.Size < e.h.Size {
		e.Errorf("got %+v", v)
	}
	// What the driver gave back is a help, not a need: after an unknown
	// outcome nobody has it.
	v, err = e.d.GetVolume(e.ctx(), drivers.VolumeRef{ID: ref.ID, Pool: ref.Pool})
	e.want("get without backend data", err)
	if v.ID != ref.ID {
		e.Errorf("got %+v", v)
	}
}

func testList(e *env) {
	var ids []string
	for range 5 {
		ids = append(ids, e.make().ID)
	}
	slices.Sort(ids)
	for _, limit := range []int{1, 2, 1 << 30} {
		all := pages(e, limit, func(p drivers.Page) ([]drivers.Volume, error) { return e.d.ListVolumes(e.ctx(), p) },
			func(v drivers.Volume) string { return v.ID })
		var got []string
		for _, v := range all {
			if slices.Contains(ids, v.ID) {
				got = append(got, v.ID)
				if v.TenantID != testTenant || v.ClusterID != testCluster || v.Pool != e.h.Pool || v.Size < e.h.Size || v.Incomplete {
					e.Errorf("listed as %+v", v)
				}
			}
		}
		if !slices.Equal(got, ids) {
			e.Errorf("by %d: listed %q, want %q", limit, got, ids)
		}
	}
	vs, err := e.d.ListVolumes(e.ctx(), drivers.Page{After: strings.Repeat("~", 200), Limit: 10})
	if err != nil || len(vs) != 0 {
		e.Errorf("after the last: %v, %v", vs, err)
	}
	if _, err := e.d.ListVolumes(e.ctx(), drivers.Page{}); err != nil {
		e.Errorf("without a limit: %v", err)
	}
}

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

func testZero(e *env) {
	if !e.hasData() {
		e.Skip(e.h.Skip["data"])
	}
	// Fill space and free it again, so that old data would show.
	for range 3 {
		old := e.make()
		f := e.openData(old)
		b := pattern(7, 0)
		for off := int64(0); off+blockSize <= int64(e.h.Size); off += blockSize {
			if _, err := f.WriteAt(b, off); err != nil {
				e.Fatal(err)
			}
		}
		e.want("close", f.Close())
		e.want("delete", e.d.DeleteVolume(e.ctx(), old))
	}
	for range 3 {
		e.has("a new volume", e.make(), 0, e.h.Size)
	}
}

func testExpand(e *env) {
	e.needs(model.AbilityExpand)
	x := e.d.(drivers.Expander)
	ref := e.make()
	e.write(ref, 1)
	v, err := x.ExpandVolume(e.ctx(), ref, 2*e.h.Size)
	e.want("expand", err)
	if v.ID != ref.ID || v.Size < 2*e.h.Size {
		e.Errorf("got %+v", v)
	}
	e.has("after growing", ref, 1, 2*e.h.Size)
	for _, size := range []model.Bytes{2 * e.h.Size, e.h.Size, 1} {
		same, err := x.ExpandVolume(e.ctx(), ref, size)
		e.want("expand to no more", err)
		if same.Size != v.Size {
			e.Errorf("it was %s and is %s", v.Size, same.Size)
		}
	}
	got, err := e.d.GetVolume(e.ctx(), ref)
	e.want("get", err)
	if got.Size != v.Size {
		e.Errorf("grown to %s, got %s", v.Size, got.Size)
	}
	e.has("after growing to no more", ref, 1, 2*e.h.Size)
	_, err = x.ExpandVolume(e.ctx(), drivers.VolumeRef{ID: model.NewID(), Pool: e.h.Pool}, e.h.Size)
	e.want("expand of an absent volume", err, model.KindNotFound)
}

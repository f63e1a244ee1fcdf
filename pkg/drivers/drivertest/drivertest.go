package drivertest

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

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
		{"export-hosts", testExportHosts},
		{"hold", testHold},
		{"import", testImport},
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
	case model.AbilityImport:
		_, ok = able[drivers.Importer](e, ability)
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

package drivertest

import (
	"testing"

	"github.com/osds-io/osds/pkg/drivers"
	"github.com/osds-io/osds/pkg/model"
)

// Progress is the part of the suite for drivers whose work is long: h.New opens
// the backend so that what is named in ops (create, clone, expand, revert, delete)
// takes at least two calls. Drivers that never answer with progress need it not.
func Progress(t *testing.T, h Harness, ops ...string) {
	h.defaults(t)
	long := map[string]bool{}
	for _, o := range ops {
		long[o] = true
	}
	for _, part := range []struct {
		name string
		fn   func(*env, map[string]bool)
	}{
		{"create", progressOfCreate},
		{"create-undone", progressUndone},
		{"clone", progressOfClone},
		{"expand", progressOfExpand},
		{"expand-given-up", progressGivenUp},
		{"revert", progressOfRevert},
		{"delete", progressOfDelete},
	} {
		t.Run(part.name, func(t *testing.T) {
			if why := h.Skip["progress-"+part.name]; why != "" {
				t.Skip(why)
			}
			part.fn(newEnv(t, &h), long)
		})
	}
}

// maxCalls bounds how often a call is done again.
const maxCalls = 100_000

// through does a call until it has come to its end. between is called after each
// answer that tells of progress. It checks what is told, and that there was any.
func (e *env) through(what string, long bool, call func() error, between func(n int)) {
	e.Helper()
	var last model.Progress
	for n := 0; n < maxCalls; n++ {
		err := call()
		p := model.ProgressOf(err)
		if err == nil {
			if long && n == 0 {
				e.Errorf("%s came to its end in one call: the harness says that it takes several", what)
			}
			return
		}
		if p == nil {
			e.Fatalf("%s, after %d calls: %v", what, n, err)
		}
		if !model.IsKind(err, model.KindUnknownOutcome) {
			e.Errorf("%s: progress has the kind %s", what, model.KindOf(err))
		}
		if p.What == last.What && p.Total == last.Total && p.Done <= last.Done {
			e.Fatalf("%s does not advance: %s, then %s", what, last, p)
		}
		last = *p
		if between != nil {
			between(n)
		}
	}
	e.Fatalf("%s does not end: %s", what, last)
}

// made makes a volume in as many calls as it takes.
func (e *env) made(r drivers.CreateVolume) drivers.VolumeRef {
	e.Helper()
	var v drivers.Volume
	e.through("create", false, func() (err error) { v, err = e.create(r); return err }, nil)
	e.checkVolume(v, r)
	return e.ref(v)
}

func (e *env) create(r drivers.CreateVolume) (drivers.Volume, error) {
	if r.Source != nil {
		return e.d.(drivers.Cloner).CloneVolume(e.ctx(), r)
	}
	return e.d.CreateVolume(e.ctx(), r)
}

// unfinished checks that a volume is there as a crash would leave it: listed, and
// not to be had.
func (e *env) unfinished(r drivers.VolumeRef) {
	e.Helper()
	_, err := e.d.GetVolume(e.ctx(), r)
	e.want("get of a volume that is not whole", err, model.KindNotFound)
	if v, ok := e.listed(r.ID); !ok || !v.Incomplete {
		e.Errorf("a volume that is not whole is listed: %t, %+v", ok, v)
	}
}

// A volume that is being made goes on after a restart where it was, and is not to
// be had before it is whole.
func progressOfCreate(e *env, long map[string]bool) {
	r := e.volume()
	ref := drivers.VolumeRef{ID: r.ID, Pool: r.Pool}
	e.through("create", long["create"], func() error { _, err := e.create(r); return err }, func(n int) {
		if n == 0 {
			e.unfinished(ref)
			e.reopen() // through checks that it advances all the same
		}
	})
	v, err := e.d.GetVolume(e.ctx(), ref)
	if err != nil {
		e.Fatal(err)
	}
	e.checkVolume(v, r)
	e.has("a new volume", ref, 0, r.Size)
}

// Half of a volume can be deleted at once, and nothing of it is left.
func progressUndone(e *env, long map[string]bool) {
	if !long["create"] {
		e.Skip("creates take one call")
	}
	r := e.volume()
	if _, err := e.create(r); model.ProgressOf(err) == nil {
		e.Fatalf("the first call: %v", err)
	}
	ref := drivers.VolumeRef{ID: r.ID, Pool: r.Pool}
	e.want("delete", e.d.DeleteVolume(e.ctx(), ref))
	e.absent(ref)
}

func progressOfClone(e *env, long map[string]bool) {
	e.needs(model.AbilitySnapshot, model.AbilityClone)
	v := e.made(e.volume())
	e.write(v, 1)
	s := e.snapshot(v)
	r := e.volume()
	r.Source = &drivers.Source{Snapshot: &s, Size: r.Size}
	ref := drivers.VolumeRef{ID: r.ID, Pool: r.Pool}
	e.through("clone", long["clone"], func() error { _, err := e.create(r); return err }, func(n int) {
		if n == 0 {
			e.unfinished(ref)
			e.reopen()
		}
	})
	e.has("a clone", ref, 1, r.Size)
}

func progressOfExpand(e *env, long map[string]bool) {
	e.needs(model.AbilityExpand)
	v := e.made(e.volume())
	e.write(v, 1)
	size := 2 * e.h.Size
	e.through("expand", long["expand"], func() error {
		_, err := e.d.(drivers.Expander).ExpandVolume(e.ctx(), v, size)
		return err
	}, func(n int) {
		if n > 0 {
			return
		}
		if x, err := e.d.GetVolume(e.ctx(), v); err != nil || x.Size >= size {
			e.Errorf("a volume that is growing: %+v, %v", x, err)
		}
		e.reopen()
	})
	x, err := e.d.GetVolume(e.ctx(), v)
	if err != nil || x.Size < size {
		e.Errorf("after the growth: %+v, %v", x, err)
	}
	e.has("a grown volume", v, 1, size)
}

// A growth that is not wanted any more is given up by growing to the size that
// the volume has.
func progressGivenUp(e *env, long map[string]bool) {
	if !long["expand"] {
		e.Skip("growing takes one call")
	}
	v := e.made(e.volume())
	before := e.pool().Free
	x := e.d.(drivers.Expander)
	if _, err := x.ExpandVolume(e.ctx(), v, 2*e.h.Size); model.ProgressOf(err) == nil {
		e.Fatalf("the first call: %v", err)
	}
	got, err := x.ExpandVolume(e.ctx(), v, e.h.Size)
	if err != nil || got.Size >= 2*e.h.Size {
		e.Errorf("given up: %+v, %v", got, err)
	}
	if after := e.pool().Free; after < before {
		e.Errorf("%s free before, %s after", before, after)
	}
}

func progressOfRevert(e *env, long map[string]bool) {
	e.needs(model.AbilitySnapshot, model.AbilityRevert)
	v := e.made(e.volume())
	e.write(v, 1)
	s := e.snapshot(v)
	e.write(v, 2)
	e.through("revert", long["revert"], func() error {
		_, err := e.d.(drivers.Reverter).RevertVolume(e.ctx(), v, s)
		return err
	}, func(n int) {
		if n == 0 {
			e.reopen()
		}
	})
	e.has("after a revert", v, 1, e.h.Size)
}

func progressOfDelete(e *env, long map[string]bool) {
	v := e.made(e.volume())
	e.through("delete", long["delete"], func() error { return e.d.DeleteVolume(e.ctx(), v) }, func(n int) {
		if n == 0 {
			e.unfinished(v)
			e.reopen()
		}
	})
	e.absent(v)
}

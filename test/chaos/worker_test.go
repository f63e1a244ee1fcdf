//go:build real

package chaos

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/osds-io/osds/pkg/client"
	"github.com/osds-io/osds/pkg/model"
	"github.com/osds-io/osds/pkg/model/wire"
	"github.com/osds-io/osds/test/harness"
)

// certainty is what a client knows of something it asked for.
type certainty int

const (
	no    certainty = iota
	maybe           // there was no answer
	yes             // it was accepted
)

// volume is a volume as its client believes it to be.
type volume struct {
	id, pool string
	made     certainty
	gone     certainty
	size     int64 // the last size that was accepted
	maySize  int64 // a size asked for without an answer; 0 if none
	name     string
	mayName  string
	snaps    map[string]*part
	atts     map[string]*part
}

// part is a snapshot or an attachment.
type part struct{ made, gone certainty }

type pool struct{ id, name string }

type counts struct {
	accepted, refused, unknown int
	kinds                      map[string]int
}

func (c *counts) add(o *counts) {
	c.accepted += o.accepted
	c.refused += o.refused
	c.unknown += o.unknown
	if c.kinds == nil {
		c.kinds = map[string]int{}
	}
	for k, n := range o.kinds {
		c.kinds[k] += n
	}
}

// worker is a client with volumes of its own, so that it knows what to expect.
type worker struct {
	n      int
	t      *testing.T
	api    *client.Client
	rng    *rand.Rand
	pools  []pool
	hosts  map[string][]string
	vols   map[string]*volume
	serial int
	counts
}

func (w *worker) run(ctx context.Context, stop <-chan struct{}) {
	w.kinds = map[string]int{}
	for {
		select {
		case <-stop:
			return
		case <-time.After(time.Duration(w.rng.IntN(40)) * time.Millisecond):
		}
		live := w.live()
		if len(live) < 3 || (len(live) < 15 && w.rng.IntN(4) == 0) {
			w.create(ctx, live)
			continue
		}
		w.change(ctx, live[w.rng.IntN(len(live))])
	}
}

// live are the volumes that are not being deleted, in an order that does not
// depend on the map's.
func (w *worker) live() []*volume {
	var out []*volume
	for i := range w.serial {
		if v := w.vols[w.id(i)]; v != nil && v.gone == no && v.made == yes {
			out = append(out, v)
		}
	}
	return out
}

// id is the id of the worker's n-th volume, chosen by the client so that it is
// known even if no answer comes.
func (w *worker) id(n int) string {
	return fmt.Sprintf("%08x-0000-4000-8000-%012x", w.n, n)
}

// outcome counts an answer and says what is known now.
func (w *worker) outcome(op string, err error) certainty {
	switch {
	case err == nil:
		w.accepted++
		w.kinds[op]++
		return yes
	case client.IsUnreachable(err), model.IsKind(err, model.KindUnknownOutcome, model.KindUnavailable, model.KindInternal), errors.Is(err, context.DeadlineExceeded):
		w.unknown++
		return maybe
	}
	w.refused++
	return no
}

func (w *worker) create(ctx context.Context, live []*volume) {
	p := w.pools[w.rng.IntN(len(w.pools))]
	v := &volume{id: w.id(w.serial), pool: p.name, size: 1 + w.rng.Int64N(3), name: fmt.Sprintf("w%d-%d", w.n, w.serial), snaps: map[string]*part{}, atts: map[string]*part{}}
	w.serial++
	spec := &wire.VolumeSpec{Base: wire.Base{ID: v.id}, Name: v.name, Size: v.size, PoolID: p.id}
	op := "create"
	if len(live) > 0 && w.rng.IntN(5) == 0 {
		src := live[w.rng.IntN(len(live))]
		spec.PoolID, spec.SourceVolumeID, spec.Size = "", src.id, max(spec.Size, src.size, src.maySize)
		v.pool, v.size, op = src.pool, spec.Size, "clone"
	}
	_, err := w.api.Volumes.Create(ctx, spec)
	if v.made = w.outcome(op, err); v.made != no {
		w.vols[v.id] = v
	}
	w.settle(ctx, model.ResVolume, v.id)
}

// settle waits for the work at times, so that there is both waiting and haste.
func (w *worker) settle(ctx context.Context, res model.Resource, id string) {
	if w.rng.IntN(3) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	_, _ = w.api.Wait(ctx, res, id, client.WaitOptions{PollOnly: true})
}

func (w *worker) change(ctx context.Context, v *volume) {
	switch r := w.rng.IntN(100); {
	case r < 20:
		w.delete(ctx, v)
	case r < 35:
		w.extend(ctx, v)
	case r < 50:
		w.rename(ctx, v)
	case r < 65:
		w.snapshot(ctx, v)
	case r < 75:
		w.dropPart(ctx, v.snaps, "snapshot delete", w.api.Snapshots.Delete)
	case r < 90:
		w.attach(ctx, v)
	default:
		w.dropPart(ctx, v.atts, "detach", w.api.Attachments.Delete)
	}
}

func (w *worker) delete(ctx context.Context, v *volume) {
	if o := w.outcome("delete", w.api.Volumes.Delete(ctx, v.id)); o != no {
		v.gone = o
		w.settle(ctx, model.ResVolume, v.id)
	}
}

func (w *worker) extend(ctx context.Context, v *volume) {
	want := max(v.size, v.maySize) + 1
	_, err := w.api.ExtendVolume(ctx, v.id, want)
	switch w.outcome("extend", err) {
	case yes:
		v.size, v.maySize = want, 0
		w.settle(ctx, model.ResVolume, v.id)
	case maybe:
		v.maySize = want
	}
}

func (w *worker) rename(ctx context.Context, v *volume) {
	want := fmt.Sprintf("w%d-r%d", w.n, w.rng.IntN(1e6))
	_, err := w.api.Volumes.Update(ctx, v.id, map[string]any{"name": want})
	switch w.outcome("rename", err) {
	case yes:
		v.name, v.mayName = want, ""
	case maybe:
		v.mayName = want
	}
}

func (w *worker) snapshot(ctx context.Context, v *volume) {
	w.serial++
	id := w.id(1<<20 + w.serial)
	_, err := w.api.Snapshots.Create(ctx, &wire.VolumeSnapshotSpec{Base: wire.Base{ID: id}, Name: "s" + id[:8], VolumeID: v.id})
	if o := w.outcome("snapshot", err); o != no {
		v.snaps[id] = &part{made: o}
		w.settle(ctx, model.ResSnapshot, id)
	}
}

func (w *worker) attach(ctx context.Context, v *volume) {
	hosts := w.hosts[v.pool]
	if v.pool == "files-pool" && os.Geteuid() != 0 {
		return
	}
	w.serial++
	id := w.id(2<<20 + w.serial)
	_, err := w.api.Attachments.Create(ctx, &wire.VolumeAttachmentSpec{Base: wire.Base{ID: id}, VolumeID: v.id, HostID: hosts[w.rng.IntN(len(hosts))]})
	if o := w.outcome("attach", err); o != no {
		v.atts[id] = &part{made: o}
		w.settle(ctx, model.ResAttachment, id)
	}
}

func (w *worker) dropPart(ctx context.Context, parts map[string]*part, op string, del func(context.Context, string, ...client.Option) error) {
	for i := range w.serial + 1 {
		for _, base := range []int{1 << 20, 2 << 20} {
			if p := parts[w.id(base+i)]; p != nil && p.made == yes && p.gone == no {
				p.gone = w.outcome(op, del(ctx, w.id(base+i)))
				return
			}
		}
	}
}

// verify compares what the client was told with what there is.
func (w *worker) verify(a *harness.API) {
	w.t.Helper()
	for _, v := range w.vols {
		got, err := a.Volumes.Get(a.Ctx(), v.id)
		if !w.present("volume", v.id, v.made, v.gone, err) {
			continue
		}
		w.volume(v, got)
		for id, p := range v.snaps {
			s, err := a.Snapshots.Get(a.Ctx(), id)
			if w.present("snapshot", id, p.made, p.gone, err) && s.Status != model.StatusAvailable && !attachedLocal(v, s.StatusReason) {
				w.t.Errorf("snapshot %s of volume %s is %s: %s", id, v.id, s.Status, s.StatusReason)
			}
		}
		for id, p := range v.atts {
			x, err := a.Attachments.Get(a.Ctx(), id)
			if w.present("attachment", id, p.made, p.gone, err) && x.Status != model.StatusAvailable {
				w.t.Errorf("attachment %s of volume %s is %s: %s", id, v.id, x.Status, x.StatusReason)
			}
		}
	}
}

// attachedLocal says whether a snapshot failed for the one good reason there is
// here: files on a file system that cannot share blocks give no snapshot of a
// volume that is in use.
func attachedLocal(v *volume, reason string) bool {
	return v.pool == "files-pool" && strings.Contains(reason, "exported")
}

func (w *worker) volume(v *volume, got *wire.VolumeSpec) {
	w.t.Helper()
	switch {
	case got.Status == model.StatusError && attachedLocal(v, got.StatusReason): // a clone of a volume in use
		return
	case got.Status != model.StatusAvailable && got.Status != model.StatusInUse:
		w.t.Errorf("volume %s is %s: %s", v.id, got.Status, got.StatusReason)
	case got.Size != v.size && got.Size != v.maySize:
		w.t.Errorf("volume %s has %d GB, %d were accepted (asked for without an answer: %d): %s", v.id, got.Size, v.size, v.maySize, got.StatusReason)
	case got.Name != v.name && got.Name != v.mayName:
		w.t.Errorf("volume %s is named %q, %q was accepted (without an answer: %q)", v.id, got.Name, v.name, v.mayName)
	}
}

// present says whether a record is to be looked at further, and fails the test
// if it must be there and is not, or the other way round.
func (w *worker) present(what, id string, made, gone certainty, err error) bool {
	w.t.Helper()
	switch {
	case err != nil && !client.IsNotFound(err):
		w.t.Errorf("get %s %s: %v", what, id, err)
	case err != nil && made == yes && gone == no:
		w.t.Errorf("%s %s was accepted, never deleted, and is not there", what, id)
	case err == nil && gone == yes:
		w.t.Errorf("the deletion of %s %s was accepted, and it is still there", what, id)
	}
	return err == nil && gone == no
}

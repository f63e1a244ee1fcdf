//go:build real

package chaos

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/osds-io/osds/pkg/client"
	"github.com/osds-io/osds/pkg/model"
	"github.com/osds-io/osds/pkg/model/wire"
)

// guest is one of a crowd of clients that do at random what users do, to each
// other's records too.
type guest struct {
	t   *testing.T
	n   int
	rng *rand.Rand
	h   *history
	// patient repeats requests with their key; hasty sends each once.
	patient, hasty *client.Client
	profile, host  string
	pools          []string
	maxVolumes     int
}

// guests is how many there are.
const guests = 12

// harsh is a simulated backend that is small, slow, and fails in every way in
// which a real one does. Removals fail only in ways that must be tried again.
const harsh = `pool:
  harsh-a: {capacity: 150GiB, multiAttach: true}
  harsh-b: {capacity: 100GiB, overProvisioningRatio: 2}
latency: {default: 5ms, create: 20ms, clone: 60ms, delete: 15ms, export: 10ms}
jitter: 0.9
seed: %d
failures:
  - {op: create, kind: unavailable, rate: 0.02}
  - {op: create, lost: true, rate: 0.15}
  - {op: create, kind: exhausted, rate: 0.05}
  - {op: create, kind: internal, rate: 0.02}
  - {op: clone, lost: true, rate: 0.05}
  - {op: snapshot, lost: true, rate: 0.05}
  - {op: snapshot, kind: busy, rate: 0.03}
  - {op: expand, lost: true, rate: 0.05}
  - {op: expand, kind: exhausted, rate: 0.03}
  - {op: export, lost: true, rate: 0.05}
  - {op: export, kind: internal, rate: 0.02}
  - {op: delete, lost: true, rate: 0.05}
  - {op: delete, kind: unavailable, rate: 0.02}
  - {op: deleteSnapshot, lost: true, rate: 0.05}
  - {op: unexport, lost: true, rate: 0.05}
`

// opLimit bounds one request with its repetitions.
const opLimit = 15 * time.Second

// run works until the context ends; requests under way are then finished.
func (w *guest) run(ctx context.Context) {
	for ctx.Err() == nil {
		w.step()
		if w.rng.IntN(4) == 0 {
			time.Sleep(time.Duration(w.rng.IntN(60)) * time.Millisecond)
		}
	}
}

// step makes one request.
func (w *guest) step() {
	ctx, cancel := context.WithTimeout(context.Background(), opLimit)
	defer cancel()
	c := w.patient
	if w.rng.IntN(3) == 0 {
		c = w.hasty
	}
	switch n := w.rng.IntN(100); {
	case n < 25 && w.h.count(model.ResVolume) < w.maxVolumes:
		w.create(ctx, c)
	case n < 35:
		w.extend(ctx, c)
	case n < 45:
		w.snapshot(ctx, c)
	case n < 60:
		w.attach(ctx, c)
	case n < 70:
		w.remove(ctx, c, model.ResAttachment)
	case n < 77:
		w.remove(ctx, c, model.ResSnapshot)
	case n < 90:
		w.remove(ctx, c, model.ResVolume)
	case n < 94:
		w.update(ctx, c)
	case n < 97:
		w.group(ctx, c)
	default:
		w.look(ctx, c)
	}
}

// told notes the answer to a request and gives it; an answer that nothing
// explains fails the test.
func (w *guest) told(op, id string, err error, mayRefuse ...model.Kind) answerOf {
	a := accepted
	var gone *client.Unreachable
	switch {
	case err == nil:
	case errors.As(err, &gone), errors.Is(err, context.DeadlineExceeded), model.IsKind(err, model.KindUnavailable, model.KindUnknownOutcome):
		a = silent
	default:
		a = refused
		if !model.IsKind(err, mayRefuse...) {
			w.t.Errorf("client %d: %s %s: refused as %s: %v%s", w.n, op, id, model.KindOf(err), err, w.h.of(id))
		}
	}
	w.h.note(w.n, op, id, a, err)
	return a
}

// conflicts are what requests that meet may be told.
var conflicts = []model.Kind{model.KindBusy, model.KindConflict, model.KindNotFound, model.KindStale, model.KindInvalid, model.KindUnsupported, model.KindExists}

func (w *guest) create(ctx context.Context, c *client.Client) {
	spec := &wire.VolumeSpec{Base: wire.Base{ID: model.NewID()}, Name: fmt.Sprintf("w%d", w.n), Size: 1 + w.rng.Int64N(3)}
	op := "create volume"
	switch w.rng.IntN(6) {
	case 0:
		if s := w.h.pick(w.rng, model.ResSnapshot, w.n); s != nil {
			spec.SnapshotID, spec.Size, op = s.id, 8, "create from snapshot"
		}
	case 1:
		if v := w.h.pick(w.rng, model.ResVolume, w.n); v != nil {
			spec.SourceVolumeID, spec.Size, op = v.id, 8, "clone volume"
		}
	case 2:
		spec.PoolID = w.pools[w.rng.IntN(len(w.pools))]
	}
	w.h.add(&object{res: model.ResVolume, id: spec.ID, owner: w.n, sizes: []int64{spec.Size}})
	_, err := c.Volumes.Create(ctx, spec)
	w.created(spec.ID, w.told(op, spec.ID, err, conflicts...))
}

// created keeps what the answer says of a new object.
func (w *guest) created(id string, a answerOf) {
	switch a {
	case accepted:
		w.h.change(id, func(o *object) { o.created = true })
	case refused:
		// Refused for good: it must not be there.
		w.h.change(id, func(o *object) { o.gone, o.leaving = true, true })
		w.h.forget(id)
	}
}

func (w *guest) extend(ctx context.Context, c *client.Client) {
	v := w.h.pick(w.rng, model.ResVolume, w.n)
	if v == nil {
		return
	}
	size := slices.Max(v.sizes) + 1
	if size > 12 {
		return
	}
	w.h.change(v.id, func(o *object) { o.sizes = append(o.sizes, size) })
	_, err := c.ExtendVolume(ctx, v.id, size)
	w.told("extend", v.id, err, conflicts...)
}

func (w *guest) snapshot(ctx context.Context, c *client.Client) {
	v := w.h.pick(w.rng, model.ResVolume, w.n)
	if v == nil || w.h.count(model.ResSnapshot) > w.maxVolumes/2 {
		return
	}
	spec := &wire.VolumeSnapshotSpec{Base: wire.Base{ID: model.NewID()}, Name: "s", VolumeID: v.id}
	w.h.add(&object{res: model.ResSnapshot, id: spec.ID, volume: v.id, owner: w.n})
	_, err := c.Snapshots.Create(ctx, spec)
	w.created(spec.ID, w.told("snapshot", spec.ID, err, conflicts...))
}

func (w *guest) attach(ctx context.Context, c *client.Client) {
	v := w.h.pick(w.rng, model.ResVolume, w.n)
	if v == nil {
		return
	}
	spec := &wire.VolumeAttachmentSpec{Base: wire.Base{ID: model.NewID()}, VolumeID: v.id, HostID: w.host}
	w.h.add(&object{res: model.ResAttachment, id: spec.ID, volume: v.id, owner: w.n})
	_, err := c.Attachments.Create(ctx, spec)
	w.created(spec.ID, w.told("attach", spec.ID, err, conflicts...))
}

func (w *guest) remove(ctx context.Context, c *client.Client, res model.Resource) {
	o := w.h.pick(w.rng, res, w.n)
	if o == nil {
		return
	}
	w.h.change(o.id, func(o *object) { o.leaving = true })
	var err error
	switch res {
	case model.ResVolume:
		err = c.Volumes.Delete(ctx, o.id)
	case model.ResSnapshot:
		err = c.Snapshots.Delete(ctx, o.id)
	case model.ResAttachment:
		err = c.Attachments.Delete(ctx, o.id)
	case model.ResGroup:
		err = c.Groups.Delete(ctx, o.id)
	}
	switch w.told("delete "+string(res), o.id, err, conflicts...) {
	case accepted:
		w.h.change(o.id, func(o *object) { o.gone = true })
		w.h.forget(o.id)
	case refused:
		if client.IsNotFound(err) {
			w.h.forget(o.id)
		}
	}
}

func (w *guest) update(ctx context.Context, c *client.Client) {
	v := w.h.pick(w.rng, model.ResVolume, w.n)
	if v == nil {
		return
	}
	_, err := c.Volumes.Update(ctx, v.id, map[string]any{"description": fmt.Sprintf("by %d", w.n), "metadata": map[string]string{"n": fmt.Sprint(w.rng.IntN(100))}})
	w.told("update volume", v.id, err, conflicts...)
}

// group makes a group, adds a volume to one, or deletes one with its members.
func (w *guest) group(ctx context.Context, c *client.Client) {
	g := w.h.pick(w.rng, model.ResGroup, w.n)
	switch {
	case g == nil || g.owner != w.n:
		if w.h.count(model.ResGroup) > 20 {
			return
		}
		w.h.mu.Lock()
		mine := 0
		for _, id := range w.h.live[model.ResGroup] {
			if w.h.objects[id].owner == w.n {
				mine++
			}
		}
		w.h.mu.Unlock()
		if mine > 1 {
			return
		}
		spec := &wire.VolumeGroupSpec{Base: wire.Base{ID: model.NewID()}, Name: "g", Profiles: []string{w.profile}, AvailabilityZone: "default"}
		w.h.add(&object{res: model.ResGroup, id: spec.ID, owner: w.n})
		_, err := c.Groups.Create(ctx, spec)
		w.created(spec.ID, w.told("create group", spec.ID, err, conflicts...))
	case w.rng.IntN(4) == 0:
		// Whatever may be in it goes with it.
		w.h.mu.Lock()
		for _, o := range w.h.objects {
			if o.volume == g.id {
				o.leaving = true
			}
		}
		w.h.mu.Unlock()
		w.remove(ctx, c, model.ResGroup)
	default:
		v := w.h.pick(w.rng, model.ResVolume, w.n)
		if v == nil || v.owner != w.n {
			return
		}
		// A volume notes the group that it may be in.
		w.h.change(v.id, func(o *object) { o.volume = g.id })
		_, err := c.Groups.Update(ctx, g.id, &wire.VolumeGroupSpec{AddVolumes: []string{v.id}})
		w.told("add to group", g.id, err, conflicts...)
	}
}

// ofWorker says whether an id is one that a worker chose.
func ofWorker(id string) bool { return strings.Contains(id, "-0000-4000-8000-") }

// look reads: what is answered must have been asked for.
func (w *guest) look(ctx context.Context, c *client.Client) {
	p, err := c.Volumes.List(ctx, client.Query{Limit: 200})
	if w.told("list volumes", "", err) != accepted {
		return
	}
	for _, v := range p.Items {
		w.h.mu.Lock()
		_, ok := w.h.objects[v.ID]
		w.h.mu.Unlock()
		if !ok && !ofWorker(v.ID) {
			w.t.Errorf("volume %s (%s) is there, and nobody asked for it", v.ID, v.Status)
		}
	}
}

package drivertest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/osds-io/osds/internal/faults"
	"github.com/osds-io/osds/pkg/drivers"
	"github.com/osds-io/osds/pkg/model"
)

// childEnv marks a process that Crash has started, and says what it is to do.
const childEnv = "OSDS_DRIVERTEST_CHILD"

// order is one call that a child makes.
type order struct {
	Backend  string // what Crash was given, for the child's open
	Op       string
	Create   drivers.CreateVolume
	Volume   drivers.VolumeRef
	Snapshot drivers.SnapshotRef
	Snap     drivers.CreateSnapshot
	Export   drivers.Export
	Import   drivers.ImportVolume
	Size     model.Bytes
	Timeout  time.Duration
}

// Child is called first thing in the TestMain of a package that uses Crash. In a
// process that Crash has started it makes one call and exits; in any other it
// does nothing. open opens the backend that Crash was given.
func Child(open func(ctx context.Context, backend string) (drivers.Driver, error)) {
	s := os.Getenv(childEnv)
	if s == "" {
		return
	}
	fail := func(err error) {
		_, _ = fmt.Fprintln(os.Stderr, err)
		os.Exit(3)
	}
	var o order
	if err := json.Unmarshal([]byte(s), &o); err != nil {
		fail(err)
	}
	if err := faults.Arm(); err != nil {
		fail(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), o.Timeout)
	defer cancel()
	d, err := open(ctx, o.Backend)
	if err != nil {
		fail(err)
	}
	if err := o.do(ctx, d); err != nil {
		fail(err)
	}
	if err := d.Close(); err != nil {
		fail(err)
	}
	os.Exit(0)
}

// do makes the call.
func (o order) do(ctx context.Context, d drivers.Driver) (err error) {
	switch o.Op {
	case "create":
		_, err = d.CreateVolume(ctx, o.Create)
	case "clone":
		_, err = d.(drivers.Cloner).CloneVolume(ctx, o.Create)
	case "delete":
		err = d.DeleteVolume(ctx, o.Volume)
	case "expand":
		_, err = d.(drivers.Expander).ExpandVolume(ctx, o.Volume, o.Size)
	case "snapshot":
		_, err = d.(drivers.Snapshotter).CreateSnapshot(ctx, o.Snap)
	case "deleteSnapshot":
		err = d.(drivers.Snapshotter).DeleteSnapshot(ctx, o.Snapshot)
	case "revert":
		_, err = d.(drivers.Reverter).RevertVolume(ctx, o.Volume, o.Snapshot)
	case "export":
		_, err = d.(drivers.Exporter).Export(ctx, o.Export)
	case "unexport":
		err = d.(drivers.Exporter).Unexport(ctx, drivers.ExportRef{AttachmentID: o.Export.AttachmentID, Volume: o.Export.Volume})
	case "import":
		_, err = d.(drivers.Importer).ImportVolume(ctx, o.Import)
	case "release":
		err = d.(drivers.Importer).ReleaseVolume(ctx, o.Volume)
	default:
		err = fmt.Errorf("unknown order %q", o.Op)
	}
	return err
}

// crashCase is one operation that is interrupted.
type crashCase struct {
	name  string
	needs []string
	// prepare makes what the operation needs and says what the child does.
	prepare func(*env) order
	// between checks what is there after the crash: nothing half-made may look
	// whole.
	between func(*env, order)
	// done checks the result once the same call has been made again.
	done func(*env, order)
	// undo removes what was made; done and undo are tried in turn.
	undo func(*env, order)
}

// Crash kills a process at each fault point of each operation, and then checks
// that what it left is either completed by the same call or removed by the
// matching delete. backend is passed to Child's open, in the child; h.New must
// open the same one here. The driver's operations must have fault points.
func Crash(t *testing.T, h Harness, backend string) {
	h.defaults(t)
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range crashCases() {
		t.Run(c.name, func(t *testing.T) {
			if why := h.Skip[c.name]; why != "" {
				t.Skip(why)
			}
			crashOne(t, &h, exe, backend, c)
		})
	}
}

func crashOne(t *testing.T, h *Harness, exe, backend string, c crashCase) {
	points, ran := tracePoints(t, h, exe, backend, c)
	if t.Failed() || !ran {
		return
	}
	if len(points) == 0 {
		t.Fatal("no fault point is reached: put faults.Point between the durable steps")
	}
	for _, p := range points {
		for _, again := range []bool{true, false} {
			how := "undo"
			if again {
				how = "again"
			}
			t.Run(p+"/"+how, func(t *testing.T) {
				e := newEnv(t, h)
				o := c.prepare(e)
				o.Backend, o.Timeout = backend, h.Timeout
				e.close()
				if out, state := e.child(exe, o, "kill:"+p); !killed(state) {
					t.Fatalf("the child was not killed at %s: %v\n%s", p, state, out)
				}
				e.open()
				c.between(e, o)
				if again {
					e.want("the same call again", o.do(e.ctx(), e.d))
					c.done(e, o)
				}
				c.undo(e, o)
				e.reopen() // nothing may come back
				c.undo(e, o)
			})
		}
	}
}

// tracePoints lets the operation run to its end and gives the points that it
// comes by, each once with "@2" where it is passed twice. ran is false if the
// driver has no such operation.
func tracePoints(t *testing.T, h *Harness, exe, backend string, c crashCase) (points []string, ran bool) {
	t.Run("trace", func(t *testing.T) {
		e := newEnv(t, h)
		e.needs(c.needs...)
		ran = true
		o := c.prepare(e)
		o.Backend, o.Timeout = backend, h.Timeout
		e.close()
		file := filepath.Join(t.TempDir(), "points")
		if out, state := e.child(exe, o, "trace:"+file); !state.Success() {
			t.Fatalf("child: %v\n%s", state, out)
		}
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		seen := map[string]int{}
		for _, p := range strings.Fields(string(b)) {
			switch seen[p]++; seen[p] {
			case 1:
				points = append(points, p)
			case 2:
				points = append(points, p+"@2")
			}
		}
		e.open()
		c.done(e, o)
		c.undo(e, o)
		t.Logf("%d points: %q", len(points), points)
	})
	return points, ran
}

// child runs this test binary as Child.
func (e *env) child(exe string, o order, plan string) (string, *os.ProcessState) {
	e.Helper()
	b, err := json.Marshal(o)
	if err != nil {
		e.Fatal(err)
	}
	var out bytes.Buffer
	cmd := exec.CommandContext(e.ctx(), exe, "-test.run=^$")
	cmd.Env = append(os.Environ(), childEnv+"="+string(b), faults.Env+"="+plan)
	cmd.Stdout, cmd.Stderr = &out, &out
	err = cmd.Run()
	var xe *exec.ExitError
	if err != nil && !errors.As(err, &xe) {
		e.Fatal(err)
	}
	return out.String(), cmd.ProcessState
}

func killed(s *os.ProcessState) bool {
	ws, ok := s.Sys().(syscall.WaitStatus)
	return ok && ws.Signaled() && ws.Signal() == syscall.SIGKILL
}

func crashCases() []crashCase {
	return slices.Concat(createCrashes(), volumeCrashes(), snapshotCrashes(), exportCrashes(), importCrashes())
}

// goneVolume deletes the volume that an order was about.
func goneVolume(e *env, o order) {
	e.Helper()
	ref := o.Volume
	if o.Create.ID != "" {
		ref = e.volumes[o.Create.ID]
	}
	e.want("delete", e.d.DeleteVolume(e.ctx(), ref))
	e.absent(ref)
}

// madeVolume checks that a volume is whole, or is no volume.
func madeVolume(e *env, o order) {
	e.Helper()
	v, err := e.d.GetVolume(e.ctx(), e.volumes[o.Create.ID])
	l, listed := e.listed(o.Create.ID)
	if err != nil {
		e.want("get", err, model.KindNotFound)
		if listed && !l.Incomplete {
			e.Errorf("get says notFound, the list has %+v", l)
		}
		return
	}
	e.checkVolume(v, o.Create)
	if !listed || l.Incomplete {
		e.Errorf("get gives %+v, the list %+v, %t", v, l, listed)
	}
}

// wholeVolume checks that a volume is whole and has a content.
func wholeVolume(seed uint64) func(*env, order) {
	return func(e *env, o order) {
		e.Helper()
		madeVolume(e, o)
		if _, err := e.d.GetVolume(e.ctx(), e.volumes[o.Create.ID]); err != nil {
			e.Errorf("get: %v", err)
			return
		}
		e.has("the volume", e.volumes[o.Create.ID], seed, o.Create.Size)
	}
}

func createCrashes() []crashCase {
	return []crashCase{
		{name: "create", between: madeVolume, done: wholeVolume(0), undo: goneVolume,
			prepare: func(e *env) order { return order{Op: "create", Create: e.volume()} }},
		{name: "clone-of-volume", needs: []string{model.AbilityClone}, between: madeVolume, done: wholeVolume(1), undo: goneVolume,
			prepare: func(e *env) order {
				src := e.make()
				e.write(src, 1)
				r := e.volume()
				r.Size, r.Source = 2*e.h.Size, &drivers.Source{Volume: &src, Size: e.h.Size}
				return order{Op: "clone", Create: r}
			}},
		{name: "clone-of-snapshot", needs: []string{model.AbilitySnapshot, model.AbilityClone},
			between: madeVolume, done: wholeVolume(1), undo: goneVolume,
			prepare: func(e *env) order {
				src := e.make()
				e.write(src, 1)
				snap := e.snapshot(src)
				e.write(src, 2)
				r := e.volume()
				r.Source = &drivers.Source{Snapshot: &snap, Size: e.h.Size}
				return order{Op: "clone", Create: r}
			}},
	}
}

func volumeCrashes() []crashCase {
	return []crashCase{
		{name: "delete", undo: goneVolume,
			prepare: func(e *env) order {
				v := e.make()
				e.write(v, 1)
				return order{Op: "delete", Volume: v}
			},
			between: func(e *env, o order) {
				_, err := e.d.GetVolume(e.ctx(), o.Volume)
				l, listed := e.listed(o.Volume.ID)
				if err == nil {
					e.has("a volume that is not deleted", o.Volume, 1, e.h.Size)
				} else if e.want("get", err, model.KindNotFound); listed && !l.Incomplete {
					e.Errorf("get says notFound, the list has %+v", l)
				}
			},
			done: func(e *env, o order) { e.absent(o.Volume) }},
		{name: "expand", needs: []string{model.AbilityExpand}, undo: goneVolume,
			prepare: func(e *env) order {
				v := e.make()
				e.write(v, 1)
				return order{Op: "expand", Volume: v, Size: 2 * e.h.Size}
			},
			between: func(e *env, o order) { e.has("after the crash", o.Volume, 1, e.h.Size) },
			done: func(e *env, o order) {
				v, err := e.d.GetVolume(e.ctx(), o.Volume)
				e.want("get", err)
				if v.Size < o.Size {
					e.Errorf("got %+v", v)
				}
				e.has("after growing", o.Volume, 1, o.Size)
			}},
		{name: "revert", needs: []string{model.AbilitySnapshot, model.AbilityRevert},
			undo: func(e *env, o order) {
				e.want("delete of the snapshot", e.d.(drivers.Snapshotter).DeleteSnapshot(e.ctx(), o.Snapshot))
				goneVolume(e, o)
			},
			prepare: func(e *env) order {
				v := e.make()
				e.write(v, 1)
				s := e.snapshot(v)
				e.write(v, 2)
				return order{Op: "revert", Volume: v, Snapshot: s}
			},
			between: func(e *env, o order) { e.snapshotHas("the snapshot", o.Snapshot, e.h.Size, 1) },
			done: func(e *env, o order) {
				e.has("after a revert", o.Volume, 1, e.h.Size)
				e.snapshotHas("the snapshot", o.Snapshot, e.h.Size, 1)
			}},
	}
}

func snapshotCrashes() []crashCase {
	gone := func(e *env, o order) {
		e.Helper()
		ref := o.Snapshot
		if o.Snap.ID != "" {
			ref = e.snapshots[o.Snap.ID]
		}
		e.want("delete of the snapshot", e.d.(drivers.Snapshotter).DeleteSnapshot(e.ctx(), ref))
		_, err := e.d.(drivers.Snapshotter).GetSnapshot(e.ctx(), ref)
		e.want("get of a deleted snapshot", err, model.KindNotFound)
		if slices.ContainsFunc(e.allSnapshots(), func(s drivers.Snapshot) bool { return s.ID == ref.ID }) {
			e.Errorf("snapshot %s is listed after its delete", ref.ID)
		}
		e.noLeftovers(ref.ID)
		e.has("the volume", o.Volume, 2, e.h.Size)
	}
	// whole checks that a snapshot is whole, or is none.
	whole := func(e *env, ref drivers.SnapshotRef) (found bool) {
		e.Helper()
		s, err := e.d.(drivers.Snapshotter).GetSnapshot(e.ctx(), ref)
		i := slices.IndexFunc(e.allSnapshots(), func(s drivers.Snapshot) bool { return s.ID == ref.ID })
		if err != nil {
			e.want("get", err, model.KindNotFound)
			if i >= 0 && !e.allSnapshots()[i].Incomplete {
				e.Error("get says notFound, the list has a whole snapshot")
			}
			return false
		}
		if s.VolumeID != ref.VolumeID || s.Size < e.h.Size || i < 0 || e.allSnapshots()[i].Incomplete {
			e.Errorf("got %+v, listed at %d", s, i)
		}
		return true
	}
	return []crashCase{
		{name: "snapshot", needs: []string{model.AbilitySnapshot}, undo: gone,
			prepare: func(e *env) order {
				v := e.make()
				e.write(v, 2)
				return order{Op: "snapshot", Volume: v, Snap: e.snapshotRequest(v)}
			},
			between: func(e *env, o order) { whole(e, e.snapshots[o.Snap.ID]) },
			done: func(e *env, o order) {
				if !whole(e, e.snapshots[o.Snap.ID]) {
					e.Error("there is no snapshot")
				}
				e.snapshotHas("the snapshot", e.snapshots[o.Snap.ID], e.h.Size, 2)
			}},
		{name: "snapshot-delete", needs: []string{model.AbilitySnapshot}, undo: gone,
			prepare: func(e *env) order {
				v := e.make()
				e.write(v, 1)
				s := e.snapshot(v)
				e.write(v, 2)
				return order{Op: "deleteSnapshot", Volume: v, Snapshot: s}
			},
			between: func(e *env, o order) {
				if whole(e, o.Snapshot) {
					e.snapshotHas("a snapshot that is not deleted", o.Snapshot, e.h.Size, 1)
				}
			},
			done: func(e *env, o order) {
				if whole(e, o.Snapshot) {
					e.Error("the snapshot is there")
				}
			}},
	}
}

func exportCrashes() []crashCase {
	ended := func(e *env, o order) {
		e.Helper()
		e.want("unexport", e.d.(drivers.Exporter).Unexport(e.ctx(), e.exportRef(o.Export)))
		if live := e.exportsOf(o.Volume.ID); len(live) != 0 {
			e.Errorf("live after the end: %+v", live)
		}
		e.noLeftovers(o.Export.AttachmentID)
		e.has("the volume", o.Volume, 1, e.h.Size)
	}
	return []crashCase{
		{name: "export", needs: []string{model.AbilityExport}, undo: ended,
			prepare: func(e *env) order {
				v := e.make()
				e.write(v, 1)
				return order{Op: "export", Volume: v, Export: e.export(v)}
			},
			// What is live must be listed, and what is listed refuses a delete.
			between: func(e *env, o order) {
				if live := e.exportsOf(o.Volume.ID); len(live) > 0 {
					e.want("delete of an exported volume", e.d.DeleteVolume(e.ctx(), o.Volume), model.KindBusy)
				}
			},
			done: func(e *env, o order) {
				if live := e.exportsOf(o.Volume.ID); len(live) != 1 || live[0].AttachmentID != o.Export.AttachmentID {
					e.Errorf("live: %+v", live)
				}
			}},
		{name: "unexport", needs: []string{model.AbilityExport}, undo: ended, between: func(*env, order) {},
			prepare: func(e *env) order {
				v := e.make()
				e.write(v, 1)
				r := e.export(v)
				_, err := e.d.(drivers.Exporter).Export(e.ctx(), r)
				e.want("export", err)
				return order{Op: "unexport", Volume: v, Export: r}
			},
			done: func(e *env, o order) {
				if live := e.exportsOf(o.Volume.ID); len(live) != 0 {
					e.Errorf("live: %+v", live)
				}
			}},
	}
}

//go:build real && ceph && linux

package ceph

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/osds-io/osds/pkg/client"
	"github.com/osds-io/osds/pkg/dock/connector"
	"github.com/osds-io/osds/pkg/model"
	"github.com/osds-io/osds/pkg/model/wire"
	"github.com/osds-io/osds/test/cephlab"
	"github.com/osds-io/osds/test/harness"
)

func query() client.Query { return client.Query{} }

// seedEnv repeats the choices of an earlier run, which prints its seed.
const seedEnv = "OSDS_CEPH_SEED"

func seed(t *testing.T) uint64 {
	t.Helper()
	n := rand.Uint64()
	if s := os.Getenv(seedEnv); s != "" {
		var err error
		n, err = strconv.ParseUint(s, 10, 64)
		must(t, err)
	}
	t.Logf("%s=%d", seedEnv, n)
	return n
}

// parallel runs f for 0 to n-1, several at once.
func parallel(n, workers int, f func(int)) {
	var wg sync.WaitGroup
	next := atomic.Int64{}
	for range workers {
		wg.Go(func() {
			for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
				f(i)
			}
		})
	}
	wg.Wait()
}

// TestKilledDaemons: the OSD, then the monitor, die while 50 volumes are made.
// Every one is made in the end, once.
func TestKilledDaemons(t *testing.T) {
	s := newSite(t)
	for _, daemon := range []string{cephlab.OSD, cephlab.Mon} {
		ids := make([]string, 50)
		var wg sync.WaitGroup
		wg.Go(func() {
			parallel(len(ids), 8, func(i int) {
				v, err := s.a.Volumes.Create(s.a.Ctx(), &wire.VolumeSpec{Name: fmt.Sprintf("v%d", i), Size: 1})
				if err != nil {
					t.Errorf("create %d: %v", i, err)
					return
				}
				ids[i] = v.ID
			})
		})
		// In the middle: some are made, others are not.
		must(t, harness.Poll(harness.Limit, func() error {
			if n := made(s); n < 10 {
				return fmt.Errorf("%d are made", n)
			}
			return nil
		}))
		must(t, lab.Kill(daemon))
		time.Sleep(3 * time.Second) // it is away for a while
		must(t, lab.StartDaemon(daemon))
		must(t, lab.WaitClean(bound(t, harness.Limit)))
		wg.Wait()
		for _, id := range ids {
			if id == "" {
				continue
			}
			if _, err := s.a.Wait(bound(t, 3*harness.Limit), model.ResVolume, id, client.WaitOptions{}); err != nil {
				t.Errorf("volume %s after a kill of %s: %v", id, daemon, err)
			}
		}
		s.invariants()
		if n := len(s.images()); n != len(ids) {
			t.Errorf("%d images after a kill of %s, want %d", n, daemon, len(ids))
		}
		parallel(len(ids), 8, func(i int) {
			if err := s.a.Volumes.Delete(s.a.Ctx(), ids[i]); err != nil {
				t.Errorf("delete: %v", err)
			}
		})
		for _, id := range ids {
			if _, err := s.a.Wait(bound(t, 3*harness.Limit), model.ResVolume, id, client.WaitOptions{Gone: true}); err != nil {
				t.Errorf("delete of %s: %v", id, err)
			}
		}
		s.empty()
	}
}

// made counts the volumes that are available.
func made(s *site) int {
	vols, err := s.a.Volumes.Collect(s.a.Ctx(), query().Where("status", string(model.StatusAvailable)), 0)
	if err != nil {
		return 0
	}
	return len(vols)
}

// TestFullPool: a pool whose quota is used up takes no more volumes, says so, and
// takes them again when there is room.
func TestFullPool(t *testing.T) {
	h := newHost(t)
	s := newSite(t)
	v := s.a.Volume(wire.VolumeSpec{Name: "v", Size: 1})
	x, d := s.use(h, v.ID)
	writeDevice(t, d.Path, random(64<<20), 0)
	s.release(h, x)
	_, err := lab.Ceph(t.Context(), "osd", "pool", "set-quota", s.pool, "max_bytes", fmt.Sprint(48<<20))
	must(t, err)
	must(t, harness.Poll(harness.Limit, func() error {
		out, err := lab.Ceph(t.Context(), "health", "detail")
		if err == nil && !strings.Contains(string(out), "pool '"+s.pool+"' is full") {
			err = errors.New("the pool is not full yet")
		}
		return err
	}))
	// The dock learns of it with its next look.
	must(t, harness.Poll(harness.Limit, func() error {
		if p := s.a.Pool(s.pool); p.Status == model.StatusAvailable && p.FreeCapacity > 0 {
			return fmt.Errorf("the pool is %s and has %d GB free", p.Status, p.FreeCapacity)
		}
		return nil
	}))
	w, err := s.a.Volumes.Create(s.a.Ctx(), &wire.VolumeSpec{Name: "w", Size: 1})
	if err == nil {
		if _, err = s.a.Wait(s.a.Ctx(), model.ResVolume, w.ID, client.WaitOptions{TaskID: w.TaskID}); err == nil {
			t.Error("a volume was made in a full pool")
		}
	}
	t.Logf("a create in a full pool: %v", err)
	if w != nil && w.ID != "" {
		s.a.DeleteVolume(w.ID)
	}
	s.invariants()
	// Deleting works in a full pool, and is what makes room.
	s.a.DeleteVolume(v.ID)
	must(t, harness.Poll(harness.Limit, func() error {
		if p := s.a.Pool(s.pool); p.Status != model.StatusAvailable {
			debts, _ := s.a.Debts(s.a.Ctx())
			tasks, _ := s.a.Tasks.Collect(s.a.Ctx(), query().Where("resourceId", v.ID), 0)
			what := fmt.Sprintf("debts: %+v", debts)
			for _, k := range tasks {
				what += fmt.Sprintf("; task: %s, %d attempts: %s", k.State, k.Attempts, k.LastError)
			}
			return fmt.Errorf("the pool is %s; %s", p.Status, what)
		}
		return nil
	}))
	_, err = lab.Ceph(t.Context(), "osd", "pool", "set-quota", s.pool, "max_bytes", "0")
	must(t, err)
	// What is known of the pool's room is a few seconds old.
	must(t, harness.Poll(harness.Limit, func() error {
		w, err := s.a.Volumes.Create(s.a.Ctx(), &wire.VolumeSpec{Name: "w", Size: 1})
		if err != nil {
			return err
		}
		_, err = s.a.Wait(s.a.Ctx(), model.ResVolume, w.ID, client.WaitOptions{TaskID: w.TaskID})
		s.a.DeleteVolume(w.ID)
		return err
	}))
	s.empty()
}

// TestWatchedImage: an image that somebody has open is not removed under him. The
// delete says who it waits for, or fails, and succeeds when he has gone.
func TestWatchedImage(t *testing.T) {
	s := newSite(t)
	v := s.a.Volume(wire.VolumeSpec{Name: "v", Size: 1})
	image := s.pool + "/opensds-" + v.ID
	w := exec.Command("rbd", "-c", lab.Conf, "watch", image)
	// It ends when its input does.
	in, err := w.StdinPipe()
	must(t, err)
	must(t, w.Start())
	watches := true
	end := func() {
		if watches {
			watches = false
			_ = in.Close()
			_ = w.Wait()
		}
	}
	t.Cleanup(end)
	must(t, harness.Poll(harness.Limit, func() error {
		out, err := lab.RBD(t.Context(), "status", image)
		if err == nil && !strings.Contains(string(out), "watcher=") {
			err = errors.New("nobody watches")
		}
		return err
	}))
	must(t, s.a.Volumes.Delete(s.a.Ctx(), v.ID))
	var said string
	must(t, harness.Poll(harness.Limit, func() error {
		got, err := s.a.Volumes.Get(s.a.Ctx(), v.ID)
		if err != nil {
			return fmt.Errorf("the record went with a watcher on the image: %w", err)
		}
		if got.Status == model.StatusErrorDeleting {
			said = got.StatusReason
			return nil
		}
		tasks, err := s.a.Tasks.Collect(s.a.Ctx(), query().Where("resourceId", v.ID), 0)
		for _, k := range tasks {
			if strings.Contains(k.LastError, "open") {
				said = k.LastError
				return nil
			}
		}
		return fmt.Errorf("the volume is %s: %v", got.Status, err)
	}))
	t.Logf("a delete with a watcher: %s", said)
	out, err := lab.RBD(t.Context(), "info", image)
	if err != nil {
		t.Errorf("the image is gone: %s, %v", out, err)
	}
	end()
	must(t, harness.Poll(harness.Limit, func() error {
		got, err := s.a.Volumes.Get(s.a.Ctx(), v.ID)
		if model.IsKind(err, model.KindNotFound) {
			return nil
		}
		if err == nil && got.Status == model.StatusErrorDeleting {
			must(t, s.a.Volumes.Delete(s.a.Ctx(), v.ID))
		}
		return errors.New("it is still there")
	}))
	s.empty()
}

// thing is what TestCloneChain deletes.
type thing struct {
	res model.Resource
	id  string
}

// TestCloneChain: volumes that are each a clone of a snapshot of the one before,
// 16 deep, are deleted in any order; whoever is left keeps his data.
func TestCloneChain(t *testing.T) {
	h := newHost(t)
	s := newSite(t)
	n := seed(t)
	for order := range 2 {
		r := rand.New(rand.NewPCG(n, uint64(order)))
		v := s.a.Volume(wire.VolumeSpec{Name: "v0", Size: 1})
		x, d := s.use(h, v.ID)
		data := random(1 << 20)
		writeDevice(t, d.Path, data, 0)
		s.release(h, x)
		all := []thing{{model.ResVolume, v.ID}}
		vols := []string{v.ID}
		for i := range 16 {
			snap := s.a.Snapshot(v.ID, "s")
			v = s.a.Volume(wire.VolumeSpec{Name: fmt.Sprintf("v%d", i+1), Size: 1, SnapshotID: snap.ID})
			all = append(all, thing{model.ResSnapshot, snap.ID}, thing{model.ResVolume, v.ID})
			vols = append(vols, v.ID)
		}
		s.invariants()
		r.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
		keep := vols[r.IntN(len(vols))]
		// A volume with snapshots is refused; it comes again when the others
		// have been tried. Every round ends with fewer.
		for left := all; len(left) > 0; {
			var again []thing
			for _, x := range left {
				if x.id == keep || !s.remove(x) {
					again = append(again, x)
				}
			}
			if len(again) == 1 && again[0].id == keep {
				break
			}
			if len(again) == len(left) {
				t.Fatalf("order %d of seed %d: none of %d can be deleted", order, n, len(left))
			}
			left = again
		}
		s.invariants()
		x, d = s.use(h, keep)
		if got := readDevice(t, d.Path, len(data), 0); string(got) != string(data) {
			t.Errorf("order %d of seed %d: volume %s, the last, has lost its data", order, n, keep)
		}
		s.release(h, x)
		s.a.DeleteVolume(keep)
		s.empty()
	}
}

// remove deletes something, and says whether that could be asked for.
func (s *site) remove(x thing) bool {
	s.Helper()
	var err error
	if x.res == model.ResVolume {
		err = s.a.Volumes.Delete(s.a.Ctx(), x.id)
	} else {
		err = s.a.Snapshots.Delete(s.a.Ctx(), x.id)
	}
	if model.IsKind(err, model.KindBusy, model.KindConflict, model.KindInvalid) {
		return false
	}
	must(s.T, err)
	s.a.Gone(x.res, x.id)
	return true
}

// TestUnreachableAtStart: a dock whose cluster does not answer when it starts
// serves its other backends, and the cluster's pools too when it is back.
func TestUnreachableAtStart(t *testing.T) {
	pool := poolName(t)
	must(t, lab.CreatePool(t.Context(), pool))
	c := suite.NewCluster(t)
	c.AddLet(harness.Quick())
	c.AddDock(nil, harness.Sample("s", 100), backend(pool))
	must(t, lab.Signal(cephlab.Mon, syscall.SIGSTOP))
	resumed := false
	resume := func() {
		if !resumed {
			resumed = true
			must(t, lab.Signal(cephlab.Mon, syscall.SIGCONT))
		}
	}
	t.Cleanup(resume)
	c.Start()
	a := c.Admin()
	a.WaitPools(1)
	a.Setup()
	v := a.Volume(wire.VolumeSpec{Name: "v", Size: 1})
	if p := a.Pool("s-pool"); v.PoolID != p.ID {
		t.Errorf("placed in %s", v.PoolID)
	}
	resume()
	a.WaitPools(2)
	w := a.Volume(wire.VolumeSpec{Name: "w", Size: 1, PoolID: a.Pool(pool).ID})
	a.DeleteVolume(v.ID)

	// The same once more for what is under way: the cluster goes while a dock
	// serves, and other backends do not feel it.
	must(t, lab.Signal(cephlab.Mon, syscall.SIGSTOP))
	must(t, lab.Signal(cephlab.OSD, syscall.SIGSTOP))
	t.Cleanup(func() {
		_ = lab.Signal(cephlab.Mon, syscall.SIGCONT)
		_ = lab.Signal(cephlab.OSD, syscall.SIGCONT)
	})
	slow, err := a.Volumes.Create(a.Ctx(), &wire.VolumeSpec{Name: "slow", Size: 1, PoolID: a.Pool(pool).ID})
	must(t, err)
	a.DeleteVolume(a.Volume(wire.VolumeSpec{Name: "v2", Size: 1, PoolID: a.Pool("s-pool").ID}).ID)
	must(t, lab.Signal(cephlab.Mon, syscall.SIGCONT))
	must(t, lab.Signal(cephlab.OSD, syscall.SIGCONT))
	if _, err := a.Wait(bound(t, 3*harness.Limit), model.ResVolume, slow.ID, client.WaitOptions{}); err != nil {
		t.Errorf("the create that the cluster interrupted: %v", err)
	}
	a.DeleteVolume(slow.ID)
	a.DeleteVolume(w.ID)
	a.Quiet(harness.Limit)
	a.Doctor()
}

// TestFence: the host of an attachment is cut off by a forced end of the export:
// what it writes later does not reach the volume, and its device is removed.
func TestFence(t *testing.T) {
	h := newHost(t)
	s := newSite(t)
	v := s.a.Volume(wire.VolumeSpec{Name: "v", Size: 1})
	x, d := s.use(h, v.ID)
	data := random(4 << 20)
	writeDevice(t, d.Path, data, 0)
	// While the host has it open the export does not end by itself.
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	_ = s.a.Attachments.Delete(ctx, x.ID)
	if got, err := s.a.Attachments.Get(s.a.Ctx(), x.ID); err != nil {
		t.Errorf("the export ended while its host had the image open: %+v, %v", got, err)
	}
	must(t, h.c.Detach(h.ctx(), connector.Request{AttachmentID: x.ID, VolumeID: v.ID}))
	must(t, harness.Poll(harness.Limit, func() error {
		got, err := s.a.Attachments.Get(s.a.Ctx(), x.ID)
		if model.IsKind(err, model.KindNotFound) {
			return nil
		}
		if err == nil && got.Status == model.StatusErrorDeleting {
			must(t, s.a.Attachments.Delete(s.a.Ctx(), x.ID))
		}
		return errors.New("the attachment is still there")
	}))
	x, d = s.use(h, v.ID)
	if got := readDevice(t, d.Path, len(data), 0); string(got) != string(data) {
		t.Error("the data changed")
	}
	s.release(h, x)
	s.a.DeleteVolume(v.ID)
	s.empty()
	if l, _ := filepath.Glob(filepath.Join(h.dir, "state", "*.json")); len(l) > 0 {
		t.Errorf("notes are left: %v", l)
	}
}

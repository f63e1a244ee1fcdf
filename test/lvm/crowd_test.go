//go:build real

package lvm

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/osds-io/osds/pkg/client"
	"github.com/osds-io/osds/pkg/model"
	"github.com/osds-io/osds/pkg/model/wire"
	"github.com/osds-io/osds/test/guest"
)

// number reads a variable of the environment.
func number(t *testing.T, name string, def int) int {
	t.Helper()
	s := os.Getenv(name)
	if s == "" {
		return def
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < 1 {
		t.Fatalf("%s is %q, and must be a number", name, s)
	}
	return n
}

const crowdClients = 8

// TestCrowd has clients make, attach, detach and delete volumes while the dock,
// which does all of it on one machine, is killed again and again. Every request
// ends as asked, and nothing is left.
func TestCrowd(t *testing.T) {
	if testing.Short() {
		t.Skip("skipped: takes long; the suite lvm has it")
	}
	conf := usual()
	conf.debt = "5m" // clients wait for the dock, however long it takes to come back
	s := newSystemWith(t, guest.Config{Nodes: 1, CPUs: 2, Memory: 1536}, conf)
	volumes, kills := number(t, envVolumes, 32), number(t, envKills, 20)
	t.Logf("%d volumes, %d clients, %d kills; the full number is %s=200", volumes, crowdClients, kills, envVolumes)
	began := time.Now()
	var left, done atomic.Int64
	left.Store(int64(volumes))
	var wg sync.WaitGroup
	for c := range crowdClients {
		wg.Go(func() {
			for left.Add(-1) >= 0 {
				if err := s.oneOfMany(protocols[c%2]); err != nil {
					t.Error(err)
				}
				done.Add(1)
			}
		})
	}
	ended := make(chan struct{})
	go func() { defer close(ended); wg.Wait() }()
	killed := s.killAgain(kills, int64(volumes), &done, ended)
	<-ended
	t.Logf("%d volumes in %.0f s, the dock was killed %d times", volumes, time.Since(began).Seconds(), killed)
	if killed < kills {
		t.Errorf("the dock was killed only %d times of %d", killed, kills)
	}
	s.clean()
}

// killAgain kills the dock and starts it again, spread over the run.
func (s *system) killAgain(kills int, volumes int64, done *atomic.Int64, ended <-chan struct{}) (killed int) {
	s.t.Helper()
	for killed < kills {
		// The next kill is due when this many have been done.
		due := volumes * int64(killed) / int64(kills)
		for done.Load() < due {
			select {
			case <-ended:
				return killed
			case <-time.After(100 * time.Millisecond):
			}
		}
		// In the middle of whatever it does then.
		select {
		case <-ended:
			return killed
		case <-time.After(time.Duration(rand.IntN(3000)) * time.Millisecond):
		}
		s.kill(s.store, "osdsdock")
		killed++
		s.runDock(s.store)
	}
	return killed
}

// oneOfMany is the life of one volume.
func (s *system) oneOfMany(protocol string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	v, err := s.a.Volumes.Create(ctx, &wire.VolumeSpec{Name: "crowd", Size: 1, PoolID: s.pools[protocol], AvailabilityZone: "default"})
	if err != nil {
		return fmt.Errorf("create: %w", err)
	}
	if _, err := s.a.Wait(ctx, model.ResVolume, v.ID, client.WaitOptions{TaskID: v.TaskID}); err != nil {
		return fmt.Errorf("create: %w", err)
	}
	x, err := s.a.Attachments.Create(ctx, &wire.VolumeAttachmentSpec{VolumeID: v.ID, HostID: s.hosts[s.store.Name].ID})
	if err != nil {
		return fmt.Errorf("attach: %w", err)
	}
	if _, err := s.a.Wait(ctx, model.ResAttachment, x.ID, client.WaitOptions{TaskID: x.TaskID}); err != nil {
		return fmt.Errorf("attach over %s: %w", protocol, err)
	}
	if err := s.a.Attachments.Delete(ctx, x.ID); err != nil {
		return fmt.Errorf("detach: %w", err)
	}
	if _, err := s.a.Wait(ctx, model.ResAttachment, x.ID, client.WaitOptions{Gone: true}); err != nil {
		return fmt.Errorf("detach: %w", err)
	}
	if err := s.a.Volumes.Delete(ctx, v.ID); err != nil {
		return fmt.Errorf("delete: %w", err)
	}
	if _, err := s.a.Wait(ctx, model.ResVolume, v.ID, client.WaitOptions{Gone: true}); err != nil {
		return fmt.Errorf("delete: %w", err)
	}
	return nil
}

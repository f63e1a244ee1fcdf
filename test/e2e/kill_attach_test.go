//go:build real

package e2e

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/osds-io/osds/pkg/client"
	"github.com/osds-io/osds/pkg/model"
	"github.com/osds-io/osds/pkg/model/wire"
)

// served is the backend whose volumes a dock attaches for their host.
const served = "served"

// attaches waits until the dock of the host is known.
func (r *rig) attaches(ctx context.Context) error {
	docks, err := r.admin.Docks.Collect(ctx, client.Query{}.Where("name", r.at.Name), 0)
	if err != nil {
		return err
	}
	if len(docks) != 1 || docks[0].Status != model.StatusAvailable || len(docks[0].Initiators) == 0 {
		return fmt.Errorf("the host's dock is not there: %+v", docks)
	}
	return nil
}

// served is the life of a volume that a dock attaches: it grows while it is
// attached, is detached, attached again, cut off by force, and deleted.
func (s *scenario) served(ctx context.Context) error {
	s.dock = true
	v, err := s.create(ctx, &wire.VolumeSpec{Name: "v", Size: 1, PoolID: s.poolID})
	if err != nil {
		return err
	}
	at, err := s.attach(ctx, v)
	if err != nil {
		return err
	}
	if err := s.grow(ctx, v, 2); err != nil {
		return err
	}
	if err := s.detach(ctx, at); err != nil {
		return err
	}
	if err := s.settled(ctx, v, model.StatusAvailable, 2); err != nil {
		return err
	}
	w, err := s.create(ctx, &wire.VolumeSpec{Name: "w", Size: 1, PoolID: s.poolID})
	if err != nil {
		return err
	}
	if at, err = s.attach(ctx, w); err != nil {
		return err
	}
	s.force = true
	if err := s.remove(ctx, model.ResAttachment, at); err != nil {
		return err
	}
	if err := s.settled(ctx, w, model.StatusAvailable, 1); err != nil {
		return err
	}
	for _, id := range []string{v, w} {
		if err := s.remove(ctx, model.ResVolume, id); err != nil {
			return err
		}
	}
	return nil
}

// detach detaches; a host that is away for longer than the server waits for it
// keeps its device, which the server says, and is asked again.
func (s *scenario) detach(ctx context.Context, id string) error {
	for {
		err := s.remove(ctx, model.ResAttachment, id)
		if err == nil || !strings.Contains(err.Error(), "the host does not answer") {
			return err
		}
		s.log("detach: %v; again", err)
	}
}

// TestKillAnywhereAttached kills osdslet, the dock with the storage and the dock of
// the host at every fault point on a volume's way to a host and back.
func TestKillAnywhereAttached(t *testing.T) {
	if err := loopsHere(); err != nil {
		t.Skipf("skipped: %v", err)
	}
	drivers := []string{served}
	var todo []attempt
	for _, a := range dryRun(t, drivers, served) {
		if a.who == theHost || onTheWay(a.point) {
			todo = append(todo, a)
		}
	}
	todo = only(todo, os.Getenv("OSDS_KILL_POINT"))
	t.Logf("%d attempts", len(todo))
	report(t, tortureTwice(t, drivers, todo, onTheWay))
}

// onTheWay says whether a point is on the way to a host or back, or of a volume
// that is told to one. The others are TestKillAnywhere's.
func onTheWay(point string) bool {
	for _, s := range []string{"ttach", "etach", "xport", "esize", "volume.told", "volume.extended", "debt."} {
		if strings.Contains(point, s) {
			return true
		}
	}
	return false
}

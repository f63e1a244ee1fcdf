package dock

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/osds-io/osds/pkg/model"
)

func open(t *testing.T, dir string) (*state, *fence) {
	t.Helper()
	s, err := openState(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.close() })
	f, err := openFence(dir)
	if err != nil {
		t.Fatal(err)
	}
	return s, f
}

func TestStateSurvives(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "made", "here")
	s, f := open(t, dir)
	id := s.dockID()
	if !model.ValidUUID(id) || s.clusterID() != "" || f.epoch() != 0 {
		t.Errorf("at first: %q %q %d", id, s.clusterID(), f.epoch())
	}
	if err := s.adopt(""); !model.IsKind(err, model.KindDenied) {
		t.Errorf("adopted by nobody: %v", err)
	}
	for range 2 {
		if err := s.adopt("c1"); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.adopt("c2"); !model.IsKind(err, model.KindDenied) || !strings.Contains(err.Error(), "--join-cluster c2") {
		t.Errorf("adopted by another cluster: %v", err)
	}
	if err := f.admit(7); err != nil {
		t.Fatal(err)
	}
	if _, err := openState(dir); !model.IsKind(err, model.KindBusy) {
		t.Errorf("opened twice: %v", err)
	}
	if _, err := JoinCluster(dir, "c2"); !model.IsKind(err, model.KindBusy) {
		t.Errorf("moved while running: %v", err)
	}
	_ = s.close()
	s, f = open(t, dir)
	if s.dockID() != id || s.clusterID() != "c1" || f.epoch() != 7 {
		t.Errorf("after a restart: %q %q %d", s.dockID(), s.clusterID(), f.epoch())
	}
}

func TestFence(t *testing.T) {
	dir := t.TempDir()
	_, f := open(t, dir)
	for _, tc := range []struct {
		epoch int64
		stale bool
		high  int64
	}{{3, false, 3}, {3, false, 3}, {2, true, 3}, {5, false, 5}, {3, true, 5}} {
		err := f.admit(tc.epoch)
		if (err != nil) != tc.stale || tc.stale && !model.IsKind(err, model.KindStale) || f.epoch() != tc.high {
			t.Errorf("%d: %v, highest %d", tc.epoch, err, f.epoch())
		}
		again, err := openFence(dir)
		if err != nil || again.epoch() != tc.high {
			t.Errorf("on disk after %d: %v, %v", tc.epoch, again, err)
		}
	}
}

// An epoch that cannot be stored is not acted for.
func TestFenceThatCannotBeStored(t *testing.T) {
	dir := t.TempDir()
	_, f := open(t, dir)
	f.dir = filepath.Join(dir, "gone")
	if err := f.admit(4); !model.IsKind(err, model.KindUnavailable) {
		t.Errorf("got %v", err)
	}
	if f.epoch() != 0 {
		t.Errorf("passed to %d", f.epoch())
	}
}

func TestDamagedState(t *testing.T) {
	for file, contents := range map[string][]string{
		fenceFile:    {"", "{", `{"epoch":-1}`, `{"epoch":"x"}`, "\x00\x00\x00"},
		identityFile: {"", "{}", `{"dockId":"../x"}`, "garbage"},
	} {
		for _, c := range contents {
			dir := t.TempDir()
			s, _ := open(t, dir)
			_ = s.close()
			if err := os.WriteFile(filepath.Join(dir, file), []byte(c), 0o600); err != nil {
				t.Fatal(err)
			}
			s, err := openState(dir)
			if err == nil {
				_, err = openFence(dir)
				_ = s.close()
			}
			if err == nil || !strings.Contains(err.Error(), file) {
				t.Errorf("%s with %q: %v", file, c, err)
			}
		}
	}
	dir := t.TempDir()
	s, _ := open(t, dir)
	_ = s.close()
	if err := os.Remove(filepath.Join(dir, fenceFile)); err != nil {
		t.Fatal(err)
	}
	if _, err := openFence(dir); err == nil || !strings.Contains(err.Error(), "deposed leader") {
		t.Errorf("a fence that is missing was taken for open: %v", err)
	}
}

func TestJoinCluster(t *testing.T) {
	dir := t.TempDir()
	s, f := open(t, dir)
	id := s.dockID()
	if err := s.adopt("c1"); err != nil {
		t.Fatal(err)
	}
	if err := f.admit(9); err != nil {
		t.Fatal(err)
	}
	_ = s.close()
	if _, err := JoinCluster(dir, "no/id"); !model.IsKind(err, model.KindInvalid) {
		t.Errorf("joined a cluster with no id: %v", err)
	}
	for _, tc := range []struct {
		to, left string
		epoch    int64
	}{{"c1", "c1", 9}, {"c2", "c1", 0}, {"", "c2", 0}} {
		left, err := JoinCluster(dir, tc.to)
		if err != nil || left != tc.left {
			t.Errorf("to %q: left %q, %v", tc.to, left, err)
		}
		s, f := open(t, dir)
		if s.dockID() != id || s.clusterID() != tc.to || f.epoch() != tc.epoch {
			t.Errorf("to %q: %q %q %d", tc.to, s.dockID(), s.clusterID(), f.epoch())
		}
		_ = s.close()
	}
	if err := os.Remove(filepath.Join(dir, fenceFile)); err != nil { // the way out of a lost fence
		t.Fatal(err)
	}
	if _, err := JoinCluster(dir, "c3"); err != nil {
		t.Error(err)
	}
	if err := os.Remove(filepath.Join(dir, fenceFile)); err != nil {
		t.Fatal(err)
	}
	if _, err := JoinCluster(dir, "c3"); err != nil {
		t.Error(err)
	}
	open(t, dir)
}

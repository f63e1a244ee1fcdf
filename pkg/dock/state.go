package dock

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"syscall"

	"github.com/google/uuid"

	"github.com/osds-io/osds/internal/atomicfile"
	"github.com/osds-io/osds/pkg/model"
)

// The files of the state directory.
const (
	lockFile     = "lock"
	identityFile = "dock.json"
	fenceFile    = "fence.json"
	driversDir   = "backends"
	connectorDir = "connector"
)

// state is the dock's directory: its identity, the cluster it belongs to, and
// the fence. One process at a time has it open.
type state struct {
	dir  string
	lock *os.File

	mu sync.Mutex
	id identity
}

// identity is the content of dock.json.
type identity struct {
	DockID    string `json:"dockId"`
	ClusterID string `json:"clusterId,omitempty"`
}

// openState opens a state directory, making it the first time. An error of kind
// busy means that another process has it.
func openState(dir string) (_ *state, err error) {
	if dir == "" {
		return nil, model.Invalid("stateDir", "must be set")
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, model.Errorf(model.KindInternal, "state directory: %w", err)
	}
	s := &state{dir: dir}
	s.lock, err = os.OpenFile(filepath.Join(dir, lockFile), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, model.Errorf(model.KindInternal, "state directory: %w", err)
	}
	defer func() {
		if err != nil {
			_ = s.close()
		}
	}()
	if err := syscall.Flock(int(s.lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return nil, model.Errorf(model.KindBusy, "the state directory %s is in use by another osdsdock: %w", dir, err)
	}
	data, err := os.ReadFile(filepath.Join(dir, identityFile))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		// The fence first: a directory with an identity always has a fence.
		if err := writeEpoch(dir, 0); err != nil {
			return nil, err
		}
		return s, s.save(identity{DockID: uuid.NewString()})
	case err != nil:
		return nil, model.Errorf(model.KindInternal, "state directory: %w", err)
	}
	if err := json.Unmarshal(data, &s.id); err != nil || !model.ValidUUID(s.id.DockID) {
		return nil, model.Errorf(model.KindInternal,
			"%s is damaged; restore it from a backup (its dockId is the id of this dock in the cluster)", filepath.Join(dir, identityFile))
	}
	return s, nil
}

func (s *state) save(id identity) error {
	data, err := json.Marshal(id)
	if err != nil {
		return err
	}
	if err := atomicfile.Write(filepath.Join(s.dir, identityFile), append(data, '\n'), 0o600); err != nil {
		return model.Errorf(model.KindInternal, "state directory: %w", err)
	}
	s.id = id
	return nil
}

// dockID is the dock's id, for good.
func (s *state) dockID() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.id.DockID
}

// clusterID is the cluster the dock belongs to; "" before the first Welcome.
func (s *state) clusterID() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.id.ClusterID
}

// adopt makes the dock belong to the cluster that welcomed it, if it belongs to
// none yet, and says whether it belongs to it now. It is on disk then.
func (s *state) adopt(cluster string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case cluster == "":
		return model.Errorf(model.KindDenied, "the osdslet names no cluster")
	case s.id.ClusterID == cluster:
		return nil
	case s.id.ClusterID != "":
		return model.Errorf(model.KindDenied,
			"this dock belongs to the cluster %s, and the osdslet to %s; stop the dock and run osdsdock --join-cluster %s to move it",
			s.id.ClusterID, cluster, cluster)
	}
	return s.save(identity{DockID: s.id.DockID, ClusterID: cluster})
}

// driverDir is the directory of one backend's driver, made if need be.
func (s *state) driverDir(backend string) (string, error) {
	dir := filepath.Join(s.dir, driversDir, backend)
	return dir, os.MkdirAll(dir, 0o700)
}

// connectorDir is the connector's directory, made if need be.
func (s *state) connectorDir() (string, error) {
	dir := filepath.Join(s.dir, connectorDir)
	return dir, os.MkdirAll(dir, 0o700)
}

// close gives the directory to the next process.
func (s *state) close() error { return s.lock.Close() }

// JoinCluster moves the dock of a state directory to another cluster; "" lets
// it belong to the first that welcomes it. The fence starts again: epochs of
// another cluster mean nothing. The dock must not be running. It gives the id
// of the cluster left.
func JoinCluster(stateDir, cluster string) (left string, err error) {
	if cluster != "" && !model.ValidID(cluster) {
		return "", model.Invalid("join-cluster", "%q is not a cluster id", cluster)
	}
	s, err := openState(stateDir)
	if err != nil {
		return "", err
	}
	defer s.close()
	left = s.id.ClusterID
	if left == cluster && cluster != "" {
		if _, err := openFence(stateDir); err == nil {
			return left, nil // the fence of this very cluster stays
		}
	}
	// The identity last: if we die in between, the old cluster's dock has an
	// open fence, which its next leader's first call closes; the other way
	// round the new cluster would be refused for ever.
	if err := writeEpoch(stateDir, 0); err != nil {
		return "", err
	}
	return left, s.save(identity{DockID: s.id.DockID, ClusterID: cluster})
}

func damaged(path string, err error) error {
	return model.Errorf(model.KindInternal,
		"%s cannot be read, and without it calls of a deposed leader could not be told: restore it from a backup, or run osdsdock --join-cluster with the id of the dock's own cluster once no deposed osdslet is running: %w",
		path, err)
}

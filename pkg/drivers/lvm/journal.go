package lvm

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"github.com/osds-io/osds/internal/atomicfile"
	"github.com/osds-io/osds/pkg/model"
)

// journal keeps, in the state directory, how far the making of logical volumes
// is. A logical volume is made with the tag osds.new=NAME; it is whole when the
// tag is gone, or when the journal says that NAME is whole. So a create can be
// answered without a second command, and the tags are taken off soon after, many
// by one command.
//
// If the directory is lost, so is what is not settled yet: those volumes count as
// unfinished. Nothing that has data can be lost so, because a volume is settled
// before anything is done with it.
type journal struct {
	path string
	mu   sync.Mutex
	made map[string]progress
}

type progress struct {
	// Whole says that nothing is left to be done.
	Whole bool `json:"whole,omitempty"`
	// Offset is how far the data is cleared or copied, and on disk.
	Offset int64 `json:"offset,omitempty"`
}

const (
	journalFile = "lvm-journal.json"
	knownFile   = "lvm-groups.json"
)

// maxState bounds the files of the state directory.
const maxState = 16 << 20

func openJournal(dir string) (*journal, error) {
	j := &journal{path: filepath.Join(dir, journalFile), made: map[string]progress{}}
	return j, readState(j.path, &j.made)
}

// readState reads a small JSON file; one that is absent leaves v alone.
func readState(path string, v any) error {
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil && len(b) > maxState {
		err = errors.New("it is too large")
	}
	if err == nil {
		err = json.Unmarshal(b, v)
	}
	if err != nil {
		return model.Errorf(model.KindUnavailable, "%s cannot be read, restore or remove it: %w", path, err)
	}
	return nil
}

func writeState(path string, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if err := atomicfile.Write(path, append(b, '\n'), 0o600); err != nil {
		return model.Errorf(model.KindUnavailable, "the state directory: %w", err)
	}
	return nil
}

func (j *journal) get(name string) progress {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.made[name]
}

// pending says whether something is whole and not settled.
func (j *journal) pending() bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, p := range j.made {
		if p.Whole {
			return true
		}
	}
	return false
}

// set is durable when it returns.
func (j *journal) set(name string, p progress) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	old, had := j.made[name]
	j.made[name] = p
	err := writeState(j.path, j.made)
	if err != nil {
		if delete(j.made, name); had {
			j.made[name] = old
		}
	}
	return err
}

// drop forgets names. That it is not durable does no harm: nothing bears them.
func (j *journal) drop(names ...string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	n := len(j.made)
	for _, x := range names {
		delete(j.made, x)
	}
	if len(j.made) != n {
		_ = writeState(j.path, j.made)
	}
}

// keep forgets all names but those that are used.
func (j *journal) keep(used map[string]bool) {
	var gone []string
	j.mu.Lock()
	for n := range j.made {
		if !used[n] {
			gone = append(gone, n)
		}
	}
	j.mu.Unlock()
	j.drop(gone...)
}

// identities remembers the UUIDs of volume groups and thin pools, so that another
// one under the same name does not pass for one that has lost its volumes.
type identities struct {
	path string
	mu   sync.Mutex
	uuid map[string]string // by the pool's key: GROUP or GROUP/POOL
}

func openIdentities(dir string) (*identities, error) {
	k := &identities{path: filepath.Join(dir, knownFile), uuid: map[string]string{}}
	return k, readState(k.path, &k.uuid)
}

// get gives the UUID that something had when it was first seen; empty if it never
// was.
func (k *identities) get(name string) string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.uuid[name]
}

// learn remembers what is new.
func (k *identities) learn(found map[string]string) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	news := false
	for name, u := range found {
		if k.uuid[name] == "" && u != "" {
			k.uuid[name], news = u, true
		}
	}
	if !news {
		return nil
	}
	return writeState(k.path, k.uuid)
}

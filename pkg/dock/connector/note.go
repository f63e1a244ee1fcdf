package connector

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"sync"
	"time"

	"github.com/osds-io/osds/internal/atomicfile"
	"github.com/osds-io/osds/pkg/model"
)

// Stages of a note.
const (
	// stageAttaching: something may have been made.
	stageAttaching = "attaching"
	stageAttached  = "attached"
	// stageDetaching: something may be gone already; only Detach goes on.
	stageDetaching = "detaching"
)

const noteVersion = 1

// note is what is known of an attachment, in a file before anything is done and
// until everything is gone. It has no secrets. It outlives the dock's process, but
// need not outlive the host's power: neither do sessions and devices.
type note struct {
	Version      int       `json:"version"`
	AttachmentID string    `json:"attachmentId"`
	VolumeID     string    `json:"volumeId"`
	Target       target    `json:"target"`
	ReadOnly     bool      `json:"readOnly,omitempty"`
	Stage        string    `json:"stage"`
	Created      time.Time `json:"created"`
	// RBD is the way in which an image became a device (Config.RBD).
	RBD string `json:"rbd,omitempty"`
	// WWID is the name under which multipathd was told to take the device.
	WWID string `json:"wwid,omitempty"`
	// Dev are the numbers, major:minor, of the device that was given out. A
	// mount of a device that is gone is known by them alone.
	Dev string `json:"dev,omitempty"`
}

// notes keeps the notes of a directory. Calls for one attachment come one at a
// time.
type notes struct {
	dir string
	mu  sync.Mutex
	m   map[string]*note
}

// openNotes reads the notes. One that cannot be understood is an error: to go on
// without it would be to forget a device.
func openNotes(dir string) (*notes, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, model.Errorf(model.KindInternal, "connector.stateDir: %w", err)
	}
	s := &notes{dir: dir, m: map[string]*note{}}
	list, err := os.ReadDir(dir)
	if err != nil {
		return nil, model.Errorf(model.KindInternal, "connector.stateDir: %w", err)
	}
	for _, e := range list {
		name := e.Name()
		if strings.HasPrefix(name, ".") {
			_ = os.Remove(filepath.Join(dir, name)) // an interrupted write
			continue
		}
		id, ok := strings.CutSuffix(name, ".json")
		if !ok || !model.ValidID(id) {
			continue
		}
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			return nil, model.Errorf(model.KindInternal, "note of attachment %s: %w", id, err)
		}
		if len(b) == 0 {
			// Of an attach just before a power cut, which took the device away too.
			if err := os.Remove(filepath.Join(dir, name)); err != nil {
				return nil, model.Errorf(model.KindInternal, "note of attachment %s: %w", id, err)
			}
			continue
		}
		n := &note{}
		if err := json.Unmarshal(b, n); err != nil {
			return nil, model.Errorf(model.KindInternal, "note of attachment %s (%s) is damaged: %w", id, filepath.Join(dir, name), err)
		}
		if n.Version != noteVersion || n.AttachmentID != id {
			return nil, model.Errorf(model.KindInternal, "note %s is of version %d for attachment %q; it is not of this connector", filepath.Join(dir, name), n.Version, n.AttachmentID)
		}
		s.m[id] = n
	}
	return s, nil
}

func (s *notes) file(id string) string { return filepath.Join(s.dir, id+".json") }

// get gives a copy.
func (s *notes) get(id string) (note, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n, ok := s.m[id]
	if !ok {
		return note{}, false
	}
	return *n, true
}

// put writes a note; when it returns nil it survives the process.
func (s *notes) put(n note) error {
	n.Version, n.Target.Auth = noteVersion, chap{}
	b, err := json.MarshalIndent(n, "", "  ")
	if err != nil {
		return model.Errorf(model.KindInternal, "note of attachment %s: %w", n.AttachmentID, err)
	}
	if err := atomicfile.Replace(s.file(n.AttachmentID), append(b, '\n'), 0o600); err != nil {
		return model.Errorf(model.KindInternal, "note of attachment %s: %w", n.AttachmentID, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.m[n.AttachmentID] = &n
	return nil
}

func (s *notes) remove(id string) error {
	if err := os.Remove(s.file(id)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return model.Errorf(model.KindInternal, "note of attachment %s: %w", id, err)
	}
	if err := atomicfile.SyncDir(s.dir); err != nil {
		return model.Errorf(model.KindInternal, "note of attachment %s: %w", id, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.m, id)
	return nil
}

// all gives copies ordered by attachment id.
func (s *notes) all() []note {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]note, 0, len(s.m))
	for _, n := range s.m {
		out = append(out, *n)
	}
	sort.Slice(out, func(i, j int) bool { return out[i].AttachmentID < out[j].AttachmentID })
	return out
}

// others gives the notes of other attachments.
func (s *notes) others(id string, match func(*note) bool) []note {
	var out []note
	for _, n := range s.all() {
		if n.AttachmentID != id && match(&n) {
			out = append(out, n)
		}
	}
	return out
}

package dock

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"

	"github.com/osds-io/osds/internal/atomicfile"
	"github.com/osds-io/osds/internal/faults"
	"github.com/osds-io/osds/pkg/model"
)

// fence keeps the highest epoch seen, on disk before anything is done for it, so
// that a call of a deposed leader is refused even after a restart.
type fence struct {
	dir     string
	highest atomic.Int64
	mu      sync.Mutex // held while a higher epoch is being written
}

// fenceState is the content of fence.json.
type fenceState struct {
	Epoch int64 `json:"epoch"`
}

func openFence(dir string) (*fence, error) {
	path := filepath.Join(dir, fenceFile)
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, damaged(path, err)
	}
	var st fenceState
	if err := json.Unmarshal(data, &st); err != nil {
		return nil, damaged(path, err)
	}
	if st.Epoch < 0 {
		return nil, damaged(path, errors.New("a negative epoch"))
	}
	f := &fence{dir: dir}
	f.highest.Store(st.Epoch)
	return f, nil
}

func writeEpoch(dir string, epoch int64) error {
	data, err := json.Marshal(fenceState{Epoch: epoch})
	if err != nil {
		return err
	}
	if err := atomicfile.Write(filepath.Join(dir, fenceFile), append(data, '\n'), 0o600); err != nil {
		return model.Errorf(model.KindUnavailable, "fence: %w", err)
	}
	return nil
}

// epoch is the highest epoch seen.
func (f *fence) epoch() int64 { return f.highest.Load() }

// admit lets an epoch pass that is not lower than the highest seen. A higher one
// is on disk when admit returns; if it cannot be stored nothing passes.
func (f *fence) admit(epoch int64) error {
	if err := f.check(epoch); err != nil {
		return err
	}
	if epoch == f.highest.Load() {
		return nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	cur := f.highest.Load()
	if epoch > cur {
		faults.Point("dock.fence.before")
		if err := writeEpoch(f.dir, epoch); err != nil {
			return err
		}
		faults.Point("dock.fence.after")
		f.highest.Store(epoch)
		return nil
	}
	return f.check(epoch)
}

// check is admit for an epoch that was admitted before: is it still the highest?
func (f *fence) check(epoch int64) error {
	if cur := f.highest.Load(); epoch < cur {
		return model.Errorf(model.KindStale, "the epoch %d is over: this dock has seen %d", epoch, cur)
	}
	return nil
}

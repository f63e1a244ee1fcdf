//go:build ceph

package ceph

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/osds-io/osds/internal/atomicfile"
	"github.com/osds-io/osds/pkg/model"
)

// selfFile has, in the driver's state directory, the addresses that the cluster
// sees this driver at, as long as it is connected. After a crash the next one
// finds it, and cuts off its former self: what that one still had under way can
// do nothing any more, and its claims on images end at once instead of half a
// minute later.
const selfFile = "ceph-client.json"

type self struct{ path string }

type selfNote struct {
	Version int      `json:"version"`
	Clients []string `json:"clients"`
}

func newSelf(stateDir string) (self, error) {
	if stateDir == "" {
		return self{}, model.Invalid("stateDir", "the ceph driver needs a state directory")
	}
	if err := os.MkdirAll(stateDir, 0o700); err != nil {
		return self{}, model.Errorf(model.KindUnavailable, "the ceph driver's state directory: %w", err)
	}
	return self{filepath.Join(stateDir, selfFile)}, nil
}

// replace cuts off what the file names, and has it name a new connection. It is
// called before the connection is used.
func (f self) replace(c config, l *link) error {
	var old selfNote
	b, err := os.ReadFile(f.path)
	if err == nil {
		// A damaged file names nobody: it was being written when its writer
		// had done nothing yet.
		_ = json.Unmarshal(b, &old)
	} else if !errors.Is(err, fs.ErrNotExist) {
		return model.Errorf(model.KindUnavailable, "%s: %w", f.path, err)
	}
	for _, a := range old.Clients {
		if slices.Contains(l.addrs, a) {
			continue
		}
		if err := l.blocklist(a, c.BlocklistTime); err != nil {
			return fail("cutting off a former connection of this dock, "+a, err)
		}
	}
	if b, err = json.Marshal(selfNote{Version: 1, Clients: l.addrs}); err == nil {
		err = atomicfile.Write(f.path, append(b, '\n'), 0o600)
	}
	if err != nil {
		return model.Errorf(model.KindUnavailable, "%s: %w", f.path, err)
	}
	return nil
}

// forget is for a connection that has ended in good order.
func (f self) forget() { _ = os.Remove(f.path) }

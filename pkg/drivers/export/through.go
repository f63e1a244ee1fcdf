package export

import (
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/osds-io/osds/pkg/model"
)

// The values of writeThrough.
const (
	throughAuto  = "auto"
	throughNever = "never"
)

// volatileCache says whether writes that a device has acknowledged may be lost
// with the power. In doubt they may.
func volatileCache(device string) bool {
	st, err := os.Stat(device)
	if err != nil {
		return true
	}
	dev, ok := rdevOf(st)
	if !ok {
		return true // a file: what it takes to find the data again is cached
	}
	sys := fmt.Sprintf("/sys/dev/block/%d:%d", unix.Major(dev), unix.Minor(dev))
	for _, q := range []string{"queue", "../queue"} { // a partition has its disk's
		p, err := filepath.EvalSymlinks(sys)
		if err != nil {
			return true
		}
		if c := attr(filepath.Join(p, q, "write_cache")); c != "" {
			return c != "write through"
		}
	}
	return true
}

// writesThrough chooses how a volume is exported. What is exported of a volume at
// one time is all done the same way: a target that writes through has a cache of
// its pages, which one that does not would write past. ofOthers are the notes of
// its other exports.
func (m *Manager) writesThrough(device string, ofOthers []*note) bool {
	if len(ofOthers) > 0 {
		return ofOthers[0].WriteThrough
	}
	return m.conf.WriteThrough != throughNever && volatileCache(device)
}

// refreshed gives the note of an export that is to be made again, after the host
// was restarted: one that an earlier version made is from now on written through,
// if nothing of its volume is there that is not.
func (m *Manager) refreshed(n *note, device string, live map[string]liveTarget) *note {
	c := n.copyOf()
	c.Device = device
	for _, o := range m.notesOf(n.VolumeID) {
		if o.AttachmentID == n.AttachmentID {
			continue
		}
		if o.WriteThrough {
			c.WriteThrough, c.SaysCache = true, n.SaysCache || !n.WriteThrough
			return c
		}
		if live[o.Name].up {
			return c
		}
	}
	if !n.WriteThrough {
		c.WriteThrough = m.writesThrough(device, nil)
		c.SaysCache = c.WriteThrough
	}
	return c
}

func checkThrough(v string) error {
	if v == "" || v == throughAuto || v == throughNever {
		return nil
	}
	return model.Invalid("writeThrough", "must be %s or %s, not %q", throughAuto, throughNever, clip(v))
}

//go:build ceph

package ceph

import (
	"context"
	"encoding/json"
	"sort"
	"strings"
	"sync"
	"time"

	"github.com/ceph/go-ceph/rados"

	"github.com/osds-io/osds/pkg/drivers"
	"github.com/osds-io/osds/pkg/model"
)

// directory is the object with the directory of a pool, in its omap.
const directory = "osds.directory"

// The entries of the directory. A volume's and a snapshot's are written before it
// is made; an export's is the export.
const (
	volumeKey   = "v/" // + id: volumeEntry
	snapshotKey = "s/" // + id: snapshotEntry
	exportKey   = "a/" // + attachment id: exportEntry
	ofVolumeKey = "x/" // + volume id + "/" + attachment id: exportEntry too
	trashKey    = "d/" // + librbd's image id: trashEntry
	groupKey    = "g/" // + id of a group snapshot: groupEntry
)

// volumeEntry says what is being made, or was.
type volumeEntry struct {
	Name    string      `json:"name,omitempty"`
	Tenant  string      `json:"tenantId,omitempty"`
	Cluster string      `json:"clusterId,omitempty"`
	Size    model.Bytes `json:"size"`
	// Source is what a clone is made of: "volume/ID" or "snapshot/ID".
	Source  string    `json:"source,omitempty"`
	Created time.Time `json:"created"`
}

// snapshotEntry says whose a snapshot is.
type snapshotEntry struct {
	VolumeID string      `json:"volumeId"`
	Name     string      `json:"name,omitempty"`
	Tenant   string      `json:"tenantId,omitempty"`
	Cluster  string      `json:"clusterId,omitempty"`
	Size     model.Bytes `json:"size"`
	Created  time.Time   `json:"created"`
}

// trashEntry says that an image in the trash was put there by a delete.
type trashEntry struct {
	VolumeID string    `json:"volumeId"`
	Deleted  time.Time `json:"deleted"`
}

// item is one entry as it is stored.
type item struct {
	id   string
	data []byte
}

// store reads and writes one pool's directory.
type store struct {
	io *rados.IOContext
	w  *writer
}

// get reads one entry; found is false where the cluster says that there is none.
func (s store) get(key string, into any) (found bool, err error) {
	op := rados.CreateReadOp()
	defer op.Release()
	vals := op.GetOmapValuesByKeys([]string{key})
	if err := op.Operate(s.io, directory, rados.OperationNoFlag); err != nil {
		if absent(err) {
			return false, nil // nothing was ever made in this pool
		}
		return false, err
	}
	kv, err := vals.Next()
	if err != nil || kv == nil {
		return false, err
	}
	if err := json.Unmarshal(kv.Value, into); err != nil {
		// It is there; what it says is lost.
		return true, nil
	}
	return true, nil
}

// put writes entries, all or none.
func (s store) put(entries map[string]any) error { return s.change(entries) }

// drop removes entries, all or none.
func (s store) drop(keys ...string) error { return s.change(nil, keys...) }

// change writes entries and removes others, all or none of it.
func (s store) change(put map[string]any, drop ...string) error {
	c := change{put: make(map[string][]byte, len(put)), drop: drop}
	for k, v := range put {
		b, err := json.Marshal(v)
		if err != nil {
			return err
		}
		c.put[k] = b
	}
	return s.w.write(s.io, c)
}

// change is what one call changes in a directory.
type change struct {
	put  map[string][]byte
	drop []string
	done chan error
}

// changesMost is how many changes are written at a time: those of all calls, so
// that with a cluster that does not answer nobody waits for more than two writes.
const changesMost = maxCalls

// writer writes the changes of one pool's directory. Those that come while one
// is being written are written together after it: all are to one object, where
// they would wait for each other anyway. Who changes one entry twice waits for
// the first to be done, so that their order is kept.
type writer struct {
	mu      sync.Mutex
	busy    bool
	waiting []*turn
}

// turn is a change that waits. lead is closed when it is to write, for itself and
// others; done gives the outcome if another has written it.
type turn struct {
	change
	lead chan struct{}
}

func (w *writer) write(io *rados.IOContext, c change) error {
	t := &turn{change: c, lead: make(chan struct{})}
	t.done = make(chan error, 1)
	w.mu.Lock()
	w.waiting = append(w.waiting, t)
	if !w.busy {
		w.busy = true
		close(t.lead)
	}
	w.mu.Unlock()
	select {
	case err := <-t.done:
		return err
	case <-t.lead:
	}
	w.mu.Lock()
	n := min(len(w.waiting), changesMost)
	now := w.waiting[:n:n] // t is the first
	w.waiting = w.waiting[n:]
	w.mu.Unlock()
	err := writeAll(io, now)
	for _, x := range now {
		x.done <- err
	}
	w.mu.Lock()
	if w.busy = len(w.waiting) > 0; w.busy {
		close(w.waiting[0].lead)
	}
	w.mu.Unlock()
	return err
}

// writeAll makes changes in their order, all or none.
func writeAll(io *rados.IOContext, all []*turn) error {
	op := rados.CreateWriteOp()
	defer op.Release()
	op.Create(rados.CreateIdempotent)
	for _, t := range all {
		if len(t.put) > 0 {
			op.SetOmap(t.put)
		}
		if len(t.drop) > 0 {
			op.RmOmapKeys(t.drop)
		}
	}
	return op.Operate(io, directory, rados.OperationNoFlag)
}

// page reads at most n entries of one sort that come after an id, in the order
// of ids.
func (s store) page(prefix, after string, n int) ([]item, error) {
	from := ""
	if after != "" {
		from = prefix + after
	}
	m, err := s.io.GetOmapValues(directory, from, prefix, int64(min(n, drivers.MaxPage)))
	if absent(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	out := make([]item, 0, len(m))
	for k, v := range m {
		out = append(out, item{strings.TrimPrefix(k, prefix), v})
	}
	sort.Slice(out, func(i, j int) bool { return out[i].id < out[j].id })
	return out, nil
}

// all reads every entry of one sort, page by page, until fn says false.
func (s store) all(ctx context.Context, prefix string, fn func(item) bool) error {
	for after := ""; ; {
		p, err := s.page(prefix, after, drivers.MaxPage)
		if err != nil || len(p) == 0 {
			return err
		}
		for _, x := range p {
			if !fn(x) {
				return nil
			}
		}
		after = p[len(p)-1].id
		if err := ctx.Err(); err != nil {
			return err
		}
	}
}

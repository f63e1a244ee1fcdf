package local

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"sort"
	"strings"
	"syscall"
	"time"

	"github.com/osds-io/osds/internal/faults"
	"github.com/osds-io/osds/pkg/model"
)

// kind is what an object is.
type kind byte

const (
	volumes   kind = 'v'
	snapshots kind = 's'

	exportsDir = "exports"
	tmpDir     = "tmp"
	metaExt    = ".json"
	dataExt    = ".img"
)

func (k kind) dir() string {
	if k == snapshots {
		return "snapshots"
	}
	return "volumes"
}

func (k kind) one() string { return strings.TrimSuffix(k.dir(), "s") }

func (k kind) meta(id string) string { return k.dir() + "/" + id + metaExt }
func (k kind) data(id string) string { return k.dir() + "/" + id + dataExt }

// temp is where an object's data is made.
func (k kind) temp(id string) string { return tmpDir + "/" + string(k) + "-" + id + dataExt }

// meta is an object's .json file.
type meta struct {
	Version int         `json:"version"`
	ID      string      `json:"id"`
	Name    string      `json:"name,omitempty"`
	Tenant  string      `json:"tenantId,omitempty"`
	Cluster string      `json:"clusterId,omitempty"`
	Size    model.Bytes `json:"size"` // when it was made; the data's length is the truth
	// VolumeID is, for a snapshot, the volume it is of.
	VolumeID string `json:"volumeId,omitempty"`
	// Source is what a clone was made from: "snapshot/ID" or "volume/ID".
	Source string `json:"source,omitempty"`
	// Imported is the name that an imported volume's file had.
	Imported string    `json:"imported,omitempty"`
	Created  time.Time `json:"created"`
}

// object is a volume or snapshot as the driver knows it.
type object struct {
	kind kind
	meta meta
	pool *pool
	// whole says that both files are there.
	whole       bool
	size, alloc model.Bytes
	// shared says that the data may share blocks with other files.
	shared bool
}

// scan reads the objects of one kind from the directory.
func (p *pool) scan(k kind) ([]*object, error) {
	names, err := readNames(p.root, k.dir())
	if err != nil {
		return nil, err
	}
	found := map[string]*object{}
	at := func(id string) *object {
		if found[id] == nil {
			found[id] = &object{kind: k, meta: meta{ID: id}, pool: p}
		}
		return found[id]
	}
	hasMeta := map[string]bool{}
	for _, n := range names {
		switch id, isData := strings.CutSuffix(n, dataExt); {
		case isData && model.ValidID(id):
			st, err := p.stat(k, id)
			if err != nil {
				return nil, err
			}
			o := at(id)
			o.whole, o.size, o.alloc = true, model.Bytes(st.Size), model.Bytes(st.Blocks)*512
		case strings.HasSuffix(n, metaExt) && model.ValidID(strings.TrimSuffix(n, metaExt)):
			id := strings.TrimSuffix(n, metaExt)
			b, err := p.root.ReadFile(k.meta(id))
			if err != nil {
				return nil, err
			}
			var m meta
			// A damaged file leaves the object incomplete; its data stays
			// until somebody deletes the object.
			if json.Unmarshal(b, &m) == nil && m.ID == id && m.Version == 1 {
				at(id).meta, hasMeta[id] = m, true
			} else {
				at(id)
			}
		}
	}
	out := make([]*object, 0, len(found))
	for id, o := range found {
		if !o.whole {
			o.size = o.meta.Size
		}
		o.whole = o.whole && hasMeta[id]
		o.shared = o.meta.Source != "" || k == snapshots
		out = append(out, o)
	}
	return out, nil
}

// stat looks at an object's data.
func (p *pool) stat(k kind, id string) (*syscall.Stat_t, error) {
	fi, err := p.root.Lstat(k.data(id))
	if err != nil {
		return nil, err
	}
	st, ok := fi.Sys().(*syscall.Stat_t)
	if !ok || !fi.Mode().IsRegular() {
		return nil, errors.New(k.data(id) + " is not a regular file")
	}
	return st, nil
}

func blocksOf(fi fs.FileInfo) model.Bytes {
	if st, ok := fi.Sys().(*syscall.Stat_t); ok {
		return model.Bytes(st.Blocks) * 512
	}
	return 0
}

// allocated says how much space an object's data has; 0 if it is not known.
func (p *pool) allocated(k kind, id string) model.Bytes {
	st, err := p.stat(k, id)
	if err != nil {
		return 0
	}
	return model.Bytes(st.Blocks) * 512
}

// writeJSON puts a small file in its place, whole or not at all. dir is synced,
// so that it is durable.
func (p *pool) writeJSON(name string, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	dir, base, _ := strings.Cut(name, "/")
	tmp := tmpDir + "/" + dir + "-" + base
	f, err := p.root.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	if _, err = f.Write(append(b, '\n')); err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		faults.Point("local.json.written")
		err = p.root.Rename(tmp, name)
	}
	if err == nil {
		faults.Point("local.json.named")
		err = p.dirs[dir].Sync()
	}
	if err != nil {
		_ = p.root.Remove(tmp)
	}
	return err
}

// making is data that is being made: it gets its name when it is complete and on
// disk.
type making struct {
	op     string // for fault points
	kind   kind
	id     string
	size   model.Bytes
	source *os.File // nil for zeros
	// atomic says that the source may be written to meanwhile, so that only a
	// reflink will do.
	atomic bool
}

// make makes an object's data. On an error nothing is left but what was there
// under the name before.
func (p *pool) make(ctx context.Context, m making) (err error) {
	tmp := m.kind.temp(m.id)
	f, err := p.root.OpenFile(tmp, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		_ = f.Close()
		if err != nil {
			_ = p.root.Remove(tmp)
		}
	}()
	faults.Point("local." + m.op + ".temp")
	if p.thick() && !(m.source != nil && p.reflink) {
		// Before any data, so that what does not fit is found out at once.
		if err := allocate(ctx, f, 0, m.size); err != nil {
			return err
		}
	}
	if m.source != nil {
		if err := p.copyData(ctx, f, m); err != nil {
			return err
		}
	}
	if err := f.Truncate(int64(m.size)); err != nil {
		return err
	}
	if p.thick() && m.source != nil && p.reflink {
		if err := allocate(ctx, f, 0, m.size); err != nil {
			return err
		}
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	faults.Point("local." + m.op + ".filled")
	if err := f.Sync(); err != nil {
		return err
	}
	faults.Point("local." + m.op + ".synced")
	if err := p.root.Rename(tmp, m.kind.data(m.id)); err != nil {
		return err
	}
	faults.Point("local." + m.op + ".named")
	return p.dirs[m.kind.dir()].Sync()
}

// remove removes whatever there is of an object: the data first, so that what is
// left after a crash is incomplete and says whose it was.
func (p *pool) remove(k kind, id, op string) error {
	for _, n := range []string{k.temp(id), k.data(id), k.meta(id)} {
		if err := p.root.Remove(n); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if n != k.temp(id) {
			faults.Point("local." + op + "." + strings.TrimPrefix(n[strings.LastIndexByte(n, '.'):], "."))
		}
	}
	return p.dirs[k.dir()].Sync()
}

// readNames lists a directory.
func readNames(root *os.Root, dir string) ([]string, error) {
	f, err := root.Open(dir)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	names, err := f.Readdirnames(-1)
	sort.Strings(names)
	return names, err
}

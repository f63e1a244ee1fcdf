package local

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"strings"
	"time"
	"unicode"

	"golang.org/x/sys/unix"

	"github.com/osds-io/osds/internal/faults"
	"github.com/osds-io/osds/internal/keylock"
	"github.com/osds-io/osds/pkg/drivers"
	"github.com/osds-io/osds/pkg/model"
)

// importDir is the pool's directory of files that may become volumes: raw images
// that somebody has put there. A file is moved, never copied.
const importDir = "import"

var _ drivers.Importer = (*Driver)(nil)

func importName(name string) string { return importDir + "/" + name }

// candidate is a file that may be imported.
type candidate struct {
	name        string
	size, alloc model.Bytes
	obstacle    string
	busy        bool // the obstacle will pass
}

// candidate looks at a file; nil if there is none that could ever be imported.
func (p *pool) candidate(name string) (*candidate, error) {
	fi, err := p.root.Lstat(importName(name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if !fi.Mode().IsRegular() {
		return nil, nil
	}
	c := &candidate{name: name, size: model.Bytes(fi.Size()), alloc: blocksOf(fi)}
	switch {
	case c.size == 0:
		c.obstacle = "it is empty"
	case c.size%block != 0:
		c.obstacle = fmt.Sprintf("its size is not a multiple of %d bytes: lengthen it with truncate", block)
	case c.size > drivers.MaxSize:
		c.obstacle = fmt.Sprintf("it is larger than %s", drivers.MaxSize)
	default:
		c.busy, err = p.opened(name)
		if err != nil {
			c.obstacle = "it cannot be opened: " + err.Error()
		} else if c.busy {
			c.obstacle = "it is in use: end what has it open"
		}
	}
	return c, nil
}

// opened says whether anybody has a file open: a lease for writing is given only
// for one that nobody else has. Where there are no leases, loop devices are looked
// for.
func (p *pool) opened(name string) (bool, error) {
	f, err := p.root.OpenFile(importName(name), os.O_RDWR, 0)
	if err != nil {
		return false, err
	}
	defer f.Close() // which ends the lease
	_, err = unix.FcntlInt(f.Fd(), unix.F_SETLEASE, unix.F_WRLCK)
	if err == nil || errors.Is(err, unix.EAGAIN) {
		return err != nil, nil
	}
	ls, err := findLoops(func(base string) bool { return base == name })
	return len(ls) > 0, err
}

// adds is by how much the pool's total grows with what others' files have taken.
func (p *pool) adds(u usage, c *candidate) model.Bytes {
	most := model.Bytes(math.MaxInt64)
	if p.conf.Capacity > 0 {
		most = max(p.conf.Capacity-u.total, 0)
	}
	return min(c.alloc, most)
}

// ListImportable lists the files in the pool's directory import.
func (d *Driver) ListImportable(ctx context.Context, poolName string, pg drivers.Page) ([]drivers.Importable, error) {
	p, err := d.pool(poolName)
	if err != nil {
		return nil, err
	}
	names, err := readNames(p.root, importDir)
	if err != nil {
		return nil, ioError("pool "+p.name, err)
	}
	u, err := d.measure(p)
	if err != nil {
		return nil, ioError("pool "+p.name, err)
	}
	var out []drivers.Importable
	for _, n := range names {
		if len(out) == pg.Bound() {
			break
		}
		if n <= pg.After || checkFile(n) != nil {
			continue
		}
		if err := ctx.Err(); err != nil {
			return nil, model.Errorf(model.KindUnknownOutcome, "list: %w", err)
		}
		c, err := p.candidate(n)
		if err != nil {
			return nil, ioError("file "+n, err)
		}
		if c != nil {
			out = append(out, drivers.Importable{Name: n, Pool: p.name, Size: c.size, Adds: p.adds(u, c), Obstacle: c.obstacle})
		}
	}
	return out, nil
}

// checkFile says whether a name can be that of a file in the directory import.
func checkFile(n string) error {
	if n == "" || len(n) > 200 || strings.HasPrefix(n, ".") || strings.ContainsRune(n, '/') || strings.ContainsFunc(n, unicode.IsControl) {
		return model.Invalid("existing", "%.64q is not the name of a file in the pool's directory %s", n, importDir)
	}
	return nil
}

// ImportVolume moves a file of the directory import among the volumes. Its
// metadata comes first: what a crash leaves between the two is listed as an
// incomplete volume, and the file is where it was.
func (d *Driver) ImportVolume(ctx context.Context, r drivers.ImportVolume) (drivers.Volume, error) {
	none := drivers.Volume{}
	if err := r.Check(); err != nil {
		return none, err
	}
	p, err := d.pool(r.Pool)
	if err != nil {
		return none, err
	}
	if err := checkFile(r.Existing); err != nil {
		return none, err
	}
	if err := drivers.Begin(ctx); err != nil {
		return none, err
	}
	unlock, err := d.locks.LockAll(ctx, keylock.Want{Key: key(volumes, r.ID)}, keylock.Want{Key: "import/" + p.name + "/" + r.Existing})
	if err != nil {
		return none, ioError("volume "+r.ID, err)
	}
	defer unlock()
	have, ok, err := d.lookup(volumes, r.ID, r.Pool)
	if model.IsKind(err, model.KindInvalid) {
		err = model.Errorf(model.KindExists, "volume %s is there already: %w", r.ID, err)
	}
	if err != nil {
		return none, err
	}
	if ok && have.meta.Imported != r.Existing {
		return none, model.Errorf(model.KindExists, "volume %s is there already, and was not imported from %q", r.ID, r.Existing)
	}
	if ok && have.whole {
		if have, err = d.need(volumes, r.ID, r.Pool); err != nil {
			return none, err
		}
		return have.volume(), nil
	}
	c, err := p.candidate(r.Existing)
	switch {
	case err != nil:
		return none, ioError("file "+r.Existing, err)
	case c == nil:
		return none, model.Errorf(model.KindNotFound, "there is no file %q in the directory %s of pool %s", r.Existing, importDir, p.name)
	case c.busy:
		return none, model.Errorf(model.KindBusy, "%s cannot be imported: %s", r.Existing, c.obstacle)
	case c.obstacle != "":
		return none, model.Errorf(model.KindUnsupported, "%s cannot be imported: %s", r.Existing, c.obstacle)
	}
	if err := d.roomToImport(p, c); err != nil {
		return none, err
	}
	return d.takeOver(ctx, p, r, c)
}

// roomToImport refuses a volume that the pool may not promise.
func (d *Driver) roomToImport(p *pool, c *candidate) error {
	u, err := d.measure(p)
	if err != nil {
		return ioError("pool "+p.name, err)
	}
	d.mu.RLock()
	room := p.room(u.total + p.adds(u, c))
	d.mu.RUnlock()
	if c.size > room {
		return model.Errorf(model.KindExhausted, "pool %s has room for %s, %s has %s", p.name, room, c.name, c.size)
	}
	return nil
}

func (d *Driver) takeOver(ctx context.Context, p *pool, r drivers.ImportVolume, c *candidate) (drivers.Volume, error) {
	m := meta{Version: 1, ID: r.ID, Tenant: r.TenantID, Cluster: r.ClusterID, Size: c.size, Imported: c.name, Created: time.Now().UTC()}
	if m.Cluster == "" {
		m.Cluster = d.cluster
	}
	what := "volume " + r.ID
	faults.Point("local.import.begin")
	if err := p.writeJSON(volumes.meta(r.ID), m); err != nil {
		return drivers.Volume{}, ioError(what, err)
	}
	d.set(volumes, &object{kind: volumes, meta: m, pool: p, size: c.size})
	faults.Point("local.import.meta")
	err := p.prepare(ctx, c)
	if err == nil {
		err = p.move(importName(c.name), volumes.data(r.ID), importDir, volumes.dir())
	}
	if err != nil {
		return drivers.Volume{}, ioError(what, err)
	}
	faults.Point("local.import.named")
	n := p.allocated(volumes, r.ID)
	d.update(volumes, r.ID, func(o *object) { o.whole, o.alloc = true, n })
	o, err := d.need(volumes, r.ID, p.name)
	if err != nil {
		return drivers.Volume{}, err
	}
	return o.volume(), nil
}

// prepare makes a file as the pool's volumes are: nobody else's to read, and with
// its space set aside in a thick pool.
func (p *pool) prepare(ctx context.Context, c *candidate) error {
	f, err := p.root.OpenFile(importName(c.name), os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	if p.thick() {
		if err := allocate(ctx, f, 0, c.size); err != nil {
			return err
		}
	}
	if err := f.Chmod(0o600); err != nil {
		return err
	}
	return f.Sync()
}

// move renames a file from one directory to another, durably. It never replaces
// one.
func (p *pool) move(from, to string, dirs ...string) error {
	if _, err := p.root.Lstat(to); err == nil {
		return fmt.Errorf("%s is there already", to)
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := p.root.Rename(from, to); err != nil {
		return err
	}
	for _, d := range dirs {
		if err := p.dirs[d].Sync(); err != nil {
			return err
		}
	}
	return nil
}

// ReleaseVolume moves a volume's file to the directory import, under the name
// that it had there, if it had one and that is free, else under the volume's id.
func (d *Driver) ReleaseVolume(ctx context.Context, r drivers.VolumeRef) error {
	if err := r.Check(); err != nil {
		return err
	}
	if err := drivers.Begin(ctx); err != nil {
		return err
	}
	unlock, err := d.locks.Lock(ctx, key(volumes, r.ID))
	if err != nil {
		return ioError("volume "+r.ID, err)
	}
	defer unlock()
	o, ok, err := d.lookup(volumes, r.ID, r.Pool)
	if err != nil || !ok {
		return err
	}
	if err := d.notInUse(o); err != nil {
		return err
	}
	if err := d.forgetExports(o); err != nil {
		return err
	}
	p := o.pool
	faults.Point("local.release.begin")
	if o.whole {
		name := o.meta.Imported
		if _, err := p.root.Lstat(importName(name)); name == "" || !errors.Is(err, fs.ErrNotExist) {
			name = r.ID + dataExt
		}
		err := p.move(volumes.data(r.ID), importName(name), importDir, volumes.dir())
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return ioError("volume "+r.ID, err)
		}
		d.update(volumes, r.ID, func(o *object) { o.whole, o.alloc = false, 0 })
	}
	faults.Point("local.release.named")
	// Nothing but its metadata is left, or what an interrupted create left.
	if err := d.remove(p, volumes, r.ID, "release"); err != nil {
		return ioError("volume "+r.ID, err)
	}
	d.drop(volumes, r.ID)
	return nil
}

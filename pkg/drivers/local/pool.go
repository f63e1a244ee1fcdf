package local

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/osds-io/osds/internal/atomicfile"
	"github.com/osds-io/osds/pkg/drivers"
	"github.com/osds-io/osds/pkg/model"
)

// pool is one directory. Everything in it is reached through root, so that a
// name can never lead out of it, and so that it stays the same directory when
// something is mounted over its path.
type pool struct {
	name string
	conf poolConfig
	id   string
	root *os.Root
	// lock is the directory itself, locked against other docks.
	lock *os.File
	// dirs are the subdirectories, open for fsync.
	dirs map[string]*os.File

	// reflink says that files can share blocks, unshare that they can be parted
	// again.
	reflink, unshare bool
	// noExport says why volumes cannot be exported; empty if they can.
	noExport string

	// Guarded by Driver.mu. promised is the sum of what volumes (and, in a
	// thick pool, snapshots) may take, alloc of what the files have, and
	// excess how much of alloc is counted more than once because files share
	// blocks. reserved is promised to calls in flight.
	promised, reserved, alloc, excess model.Bytes
	// making are the objects that calls are making or growing, with the number
	// of such calls. Guarded by Driver.mu.
	making map[objectKey]int
	// freed is when something was last removed. Guarded by Driver.mu.
	freed time.Time

	// kick asks for the counts to be taken anew.
	kick chan struct{}
}

const idFile = ".osds-pool.json"

type poolID struct {
	Version int       `json:"version"`
	ID      string    `json:"id"`
	Created time.Time `json:"created"`
}

func (p *pool) thick() bool { return p.conf.ProvisioningPolicy == drivers.ThickPolicy }

// openPool opens a pool's directory, and makes it one if it is empty.
func openPool(ctx context.Context, name string, c poolConfig, known known) (_ *pool, err error) {
	p := &pool{name: name, conf: c, dirs: map[string]*os.File{}, making: map[objectKey]int{}, kick: make(chan struct{}, 1)}
	defer func() {
		if err != nil {
			_ = p.close()
			err = ioError("pool "+name+" at "+c.Path, err)
		}
	}()
	if err := os.MkdirAll(c.Path, 0o700); err != nil {
		return nil, err
	}
	if p.root, err = os.OpenRoot(c.Path); err != nil {
		return nil, err
	}
	if p.lock, err = p.root.Open("."); err != nil {
		return nil, err
	}
	if err := flock(ctx, p.lock); err != nil {
		return nil, err
	}
	if err := p.identify(known); err != nil {
		return nil, err
	}
	for _, d := range []string{volumes.dir(), snapshots.dir(), exportsDir, tmpDir, importDir} {
		if err := p.root.Mkdir(d, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return nil, err
		}
		if p.dirs[d], err = p.root.Open(d); err != nil {
			return nil, err
		}
	}
	if err := p.lock.Sync(); err != nil {
		return nil, err
	}
	if err := p.clearTemp(); err != nil {
		return nil, err
	}
	if err := p.probe(); err != nil {
		return nil, err
	}
	p.noExport = whyNoLoops()
	return p, nil
}

func (p *pool) close() error {
	var errs []error
	for _, d := range p.dirs {
		if d != nil {
			errs = append(errs, d.Close())
		}
	}
	if p.lock != nil {
		errs = append(errs, p.lock.Close())
	}
	if p.root != nil {
		errs = append(errs, p.root.Close())
	}
	return errors.Join(errs...)
}

// flock locks a directory for this process alone. It waits a little for a
// predecessor that is just ending.
func flock(ctx context.Context, dir *os.File) error {
	for range 40 {
		err := unix.Flock(int(dir.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return err
		}
		select {
		case <-ctx.Done():
			return model.Errorf(model.KindUnavailable, "%s is in use by another dock: %w", dir.Name(), ctx.Err())
		case <-time.After(50 * time.Millisecond):
		}
	}
	return model.Errorf(model.KindUnavailable, "%s is in use by another dock", dir.Name())
}

// identify reads the pool's identity, or gives it one. A pool that this dock has
// seen before must be the same one: a file system that is not mounted must not
// pass for a pool that has lost all its volumes.
func (p *pool) identify(known known) error {
	b, err := p.root.ReadFile(idFile)
	var have poolID
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return err
	default:
		if err := json.Unmarshal(b, &have); err != nil || !model.ValidID(have.ID) {
			return model.Errorf(model.KindUnavailable, "%s in %s is damaged; restore it", idFile, p.conf.Path)
		}
		if have.Version != 1 {
			return model.Errorf(model.KindUnavailable, "the pool in %s has format %d, this version of osds knows 1", p.conf.Path, have.Version)
		}
	}
	if k, ok := known[p.name]; ok && k.ID != have.ID {
		found := "there is no pool"
		if have.ID != "" {
			found = "there is another pool, " + have.ID
		}
		return model.Errorf(model.KindUnavailable,
			"pool %s is %s, but in %s %s: is its file system mounted? To begin anew, remove the pool from %s in the driver's state directory",
			p.name, k.ID, p.conf.Path, found, knownFile)
	}
	if have.ID != "" {
		p.id = have.ID
		return nil
	}
	entries, err := p.lock.ReadDir(-1)
	if err != nil {
		return err
	}
	for _, e := range entries {
		// A crash may have left the temporary name of the file below.
		if n := e.Name(); n != "lost+found" && !strings.HasPrefix(n, "."+idFile) {
			return model.Errorf(model.KindInvalid, "%s is neither empty nor a pool: it has %q; give a directory of its own", p.conf.Path, n)
		}
	}
	p.id = model.NewID()
	b, err = json.Marshal(poolID{Version: 1, ID: p.id, Created: time.Now().UTC()})
	if err != nil {
		return err
	}
	return atomicfile.Write(filepath.Join(p.conf.Path, idFile), append(b, '\n'), 0o600)
}

// clearTemp removes what was being made when a predecessor ended.
func (p *pool) clearTemp() error {
	names, err := readNames(p.root, tmpDir)
	if err != nil {
		return err
	}
	for _, n := range names {
		if err := p.root.Remove(tmpDir + "/" + n); err != nil {
			return err
		}
	}
	return nil
}

// probe finds out what the file system can do.
func (p *pool) probe() error {
	const a, b = tmpDir + "/probe-a", tmpDir + "/probe-b"
	var fst unix.Statfs_t
	if err := unix.Fstatfs(int(p.lock.Fd()), &fst); err != nil {
		return err
	}
	defer func() {
		_ = p.root.Remove(a)
		_ = p.root.Remove(b)
	}()
	src, err := p.root.OpenFile(a, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer src.Close()
	if _, err := src.Write(make([]byte, 64<<10)); err != nil {
		return err
	}
	dst, err := p.root.OpenFile(b, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer dst.Close()
	p.reflink = unix.IoctlFileClone(int(dst.Fd()), int(src.Fd())) == nil
	if p.reflink {
		p.unshare = unix.Fallocate(int(dst.Fd()), unix.FALLOC_FL_UNSHARE_RANGE, 0, 64<<10) == nil
	}
	if !p.thick() {
		return nil
	}
	if slices.Contains([]int64{unix.BTRFS_SUPER_MAGIC, bcachefsMagic, zfsMagic}, int64(fst.Type)) {
		return model.Errorf(model.KindInvalid, "%s is on a file system that writes every block anew, so space cannot be set aside; use provisioningPolicy Thin, or ext4 or XFS", p.conf.Path)
	}
	if err := unix.Fallocate(int(src.Fd()), 0, 0, 256<<10); errors.Is(err, unix.EOPNOTSUPP) {
		return model.Errorf(model.KindInvalid, "the file system of %s cannot set space aside (fallocate); use provisioningPolicy Thin, or ext4 or XFS", p.conf.Path)
	} else if err != nil {
		return err
	}
	// Copies in a thick pool must own their blocks: shared ones need new space
	// when they are overwritten.
	p.reflink = p.reflink && p.unshare
	return nil
}

const (
	bcachefsMagic = 0xca451a4e
	zfsMagic      = 0x2fc12fc1
)

// known is what the dock remembers of its pools, by name, in its own state
// directory.
type known map[string]knownPool

type knownPool struct {
	ID   string `json:"id"`
	Path string `json:"path"`
}

const knownFile = "local-pools.json"

func readKnown(stateDir string) (known, error) {
	b, err := os.ReadFile(filepath.Join(stateDir, knownFile))
	if errors.Is(err, fs.ErrNotExist) {
		return known{}, nil
	}
	k := known{}
	if err == nil {
		err = json.Unmarshal(b, &k)
	}
	if err != nil {
		return nil, model.Errorf(model.KindUnavailable, "%s in %s: %w", knownFile, stateDir, err)
	}
	return k, nil
}

// write remembers the pools. Pools that are no longer configured are kept: they
// may come back.
func (k known) write(stateDir string, pools map[string]*pool) error {
	changed := false
	for n, p := range pools {
		if want := (knownPool{ID: p.id, Path: p.conf.Path}); k[n] != want {
			k[n], changed = want, true
		}
	}
	if !changed {
		return nil
	}
	b, err := json.MarshalIndent(k, "", "  ")
	if err != nil {
		return model.Errorf(model.KindInternal, "%s: %w", knownFile, err)
	}
	return ioError(knownFile, atomicfile.Write(filepath.Join(stateDir, knownFile), append(b, '\n'), 0o600))
}

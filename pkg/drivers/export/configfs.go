package export

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/osds-io/osds/internal/run"
	"github.com/osds-io/osds/pkg/model"
)

// configfsRoot is where the kernel's targets are set up.
const configfsRoot = "/sys/kernel/config"

// tree does a row of steps in configfs and remembers the first error; further
// steps are then left out. Every step is a no-op if what it asks for is so
// already, so a row that was interrupted is completed by the same row. Before
// each step the context is looked at.
type tree struct {
	ctx context.Context
	err error
}

func (t *tree) fail(what string, err error) {
	if t.err == nil && err != nil {
		t.err = kernelError(what, err)
	}
}

func (t *tree) ok() bool {
	if t.err == nil && t.ctx.Err() != nil {
		t.err = model.Errorf(model.KindUnknownOutcome, "stopped between two steps: %w", t.ctx.Err())
	}
	return t.err == nil
}

// dir makes a directory.
func (t *tree) dir(path string) {
	if !t.ok() {
		return
	}
	if err := os.Mkdir(path, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		t.fail("make "+path, err)
	}
}

// put writes an attribute, unless it has the value already.
func (t *tree) put(path, value string) {
	if !t.ok() {
		return
	}
	if b, err := os.ReadFile(path); err == nil && strings.TrimRight(string(b), "\n") == value {
		return
	}
	t.write(path, value)
}

// try is put for what a kernel may not have or not take.
func (t *tree) try(path, value string) {
	if t.ok() {
		_ = writeAttr(path, value)
	}
}

// write writes an attribute.
func (t *tree) write(path, value string) {
	if t.ok() {
		t.fail("write "+path, writeAttr(path, value))
	}
}

func writeAttr(path, value string) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(value)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	return err
}

// link makes a symbolic link.
func (t *tree) link(target, path string) {
	if !t.ok() {
		return
	}
	if err := os.Symlink(target, path); err != nil && !errors.Is(err, fs.ErrExist) {
		t.fail("link "+path, err)
	}
}

// unlink removes a link, and rmdir a directory.
func (t *tree) unlink(path string) {
	if !t.ok() {
		return
	}
	if err := unix.Unlink(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.fail("unlink "+path, err)
	}
}

func (t *tree) rmdir(path string) {
	if !t.ok() {
		return
	}
	if err := unix.Rmdir(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.fail("remove "+path, err)
	}
}

// links removes every link in a directory.
func (t *tree) links(dir string) {
	if !t.ok() {
		return
	}
	es, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.fail("list "+dir, err)
	}
	for _, e := range es {
		if e.Type()&fs.ModeSymlink != 0 {
			t.unlink(filepath.Join(dir, e.Name()))
		}
	}
}

// sub lists the directories in a directory; none if there is no such.
func (t *tree) sub(dir string) []string {
	if !t.ok() {
		return nil
	}
	names, err := subdirs(dir)
	t.fail("list "+dir, err)
	return names
}

func subdirs(dir string) ([]string, error) {
	es, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var out []string
	for _, e := range es {
		if e.IsDir() {
			out = append(out, e.Name())
		}
	}
	return out, err
}

// attr reads an attribute; empty if it cannot be read.
func attr(path string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	return strings.TrimRight(string(b), "\n")
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// kernelError gives an error of the kernel a kind.
func kernelError(what string, err error) error {
	var me *model.Error
	switch {
	case err == nil:
		return nil
	case errors.As(err, &me):
		return err
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return model.Errorf(model.KindUnknownOutcome, "%s: %w", what, err)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return model.Errorf(model.KindUnavailable, "%s: the address is not one of this host's: %w", what, err)
	case errors.Is(err, syscall.EADDRINUSE):
		return model.Errorf(model.KindUnavailable, "%s: something else listens there, perhaps another protocol of the same portals: %w", what, err)
	case errors.Is(err, fs.ErrPermission), errors.Is(err, syscall.EROFS):
		return model.Errorf(model.KindUnsupported, "%s: %w: root is needed", what, err)
	case errors.Is(err, syscall.EBUSY), errors.Is(err, syscall.ENOMEM), errors.Is(err, syscall.EIO), errors.Is(err, syscall.EINTR):
		return model.Errorf(model.KindUnavailable, "%s: %w", what, err)
	}
	return model.Errorf(model.KindInternal, "%s: %w", what, err)
}

// kmods loads kernel modules, each once.
type kmods struct {
	run  run.Runner
	mu   sync.Mutex
	done []string
}

// load loads modules that are not there yet.
func (k *kmods) load(ctx context.Context, names ...string) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, n := range names {
		if slices.Contains(k.done, n) {
			continue
		}
		if _, err := k.run.Run(ctx, run.Cmd{Name: "modprobe", Args: []string{"--quiet", n}}); err != nil {
			if model.IsKind(err, model.KindInternal) {
				return model.Errorf(model.KindUnsupported, "the kernel has no module %s: %w", n, err)
			}
			return err
		}
		k.done = append(k.done, n)
	}
	if !exists(configfsRoot) {
		return model.Errorf(model.KindUnsupported, "the kernel has no configfs at %s", configfsRoot)
	}
	var st unix.Statfs_t
	if err := unix.Statfs(configfsRoot, &st); err != nil || st.Type != configfsMagic {
		// Where nobody else mounts it (a container, a small system).
		if err := unix.Mount("configfs", configfsRoot, "configfs", 0, ""); err != nil && !errors.Is(err, unix.EBUSY) {
			return kernelError("mount configfs", err)
		}
	}
	return nil
}

const configfsMagic = 0x62656570

// has says whether modules are loaded, built in, or there to be loaded; nothing
// is loaded.
func (k *kmods) has(ctx context.Context, names ...string) error {
	for _, n := range names {
		if exists("/sys/module/" + n) {
			continue
		}
		if _, err := k.run.Run(ctx, run.Cmd{Name: "modprobe", Args: []string{"--quiet", "--dry-run", n}}); err != nil {
			if model.IsKind(err, model.KindInternal) {
				return model.Errorf(model.KindUnsupported, "the kernel has no module %s", n)
			}
			return err
		}
	}
	return nil
}

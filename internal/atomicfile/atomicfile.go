// Package atomicfile replaces files so that a crash at any instruction leaves
// either the old content or the new one, never a mixture or nothing.
package atomicfile

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// Write replaces path by data: a temporary file in the same directory, fsync,
// rename, fsync of the directory. When it returns nil the new content survives
// a power cut.
func Write(path string, data []byte, perm os.FileMode) error {
	f, err := temporary(path, data, perm)
	if err != nil {
		return err
	}
	if err = f.Sync(); err == nil {
		err = f.Close()
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		_ = f.Close()
		_ = os.Remove(f.Name())
		return err
	}
	return SyncDir(filepath.Dir(path))
}

// Replace is Write for what is worth nothing after a power cut: the new content
// survives the end of the process only. After a power cut the file may be as it
// was, absent or empty.
func Replace(path string, data []byte, perm os.FileMode) error {
	f, err := rename(path, data, perm)
	if err != nil {
		return err
	}
	return f.Close()
}

// Begin makes a file that does not exist, as Write does, but does not wait for the
// disk: the function that it gives does. Until then a power cut may leave no file,
// or an empty one.
func Begin(path string, data []byte, perm os.FileMode) (wait func() error, err error) {
	if _, err := os.Lstat(path); err == nil {
		return nil, &os.PathError{Op: "begin", Path: path, Err: os.ErrExist}
	}
	f, err := rename(path, data, perm)
	if err != nil {
		return nil, err
	}
	done := make(chan error, 1)
	go func() { done <- errors.Join(f.Sync(), f.Close(), SyncDir(filepath.Dir(path))) }()
	return func() error { return <-done }, nil
}

// rename makes path a file with data, which is still open.
func rename(path string, data []byte, perm os.FileMode) (*os.File, error) {
	f, err := temporary(path, data, perm)
	if err != nil {
		return nil, err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		_ = f.Close()
		_ = os.Remove(f.Name())
		return nil, err
	}
	return f, nil
}

// temporary makes a file with data beside path.
func temporary(path string, data []byte, perm os.FileMode) (*os.File, error) {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return nil, err
	}
	if err = f.Chmod(perm); err == nil {
		_, err = f.Write(data)
	}
	if err != nil {
		_ = f.Close()
		_ = os.Remove(f.Name())
		return nil, err
	}
	return f, nil
}

// SyncDir makes the names in a directory durable.
func SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	err = d.Sync()
	if cerr := d.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return fmt.Errorf("sync %s: %w", dir, err)
	}
	return nil
}

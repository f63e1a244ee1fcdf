// Package guest boots throw-away Debian machines with a real storage kernel, for
// tests of what this machine's kernel may not have: device-mapper, LIO, nvmet,
// the iSCSI and NVMe initiators. They are QEMU's, by software emulation: no KVM,
// no module and no network set-up of this machine is needed.
//
// A guest's root file system is in memory: switched off, it has forgotten
// everything but its data disks, as a host that was installed anew.
package guest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
)

// EnvCache names the directory where what guests boot from is kept; by default it
// is osds-guest in the user's cache directory.
const EnvCache = "OSDS_TEST_GUEST_CACHE"

// cannotStatus is how the build says that this machine cannot do it.
const cannotStatus = 77

// CannotError says why there can be no guests on this machine.
type CannotError struct{ Reason string }

func (e *CannotError) Error() string { return "no guests on this machine: " + e.Reason }

// Image is what guests boot from.
type Image struct{ dir string }

// Build makes the image, or finds the one that was made before; what it does is
// written to log. The error is a *CannotError where the machine is not made for it.
func Build(ctx context.Context, log io.Writer) (*Image, error) {
	if runtime.GOOS != "linux" || runtime.GOARCH != "amd64" {
		return nil, &CannotError{"it is " + runtime.GOOS + "/" + runtime.GOARCH + ", not linux/amd64"}
	}
	dir := os.Getenv(EnvCache)
	if dir == "" {
		cache, err := os.UserCacheDir()
		if err != nil {
			// A machine without a home, such as a clean one for tests.
			cache = "/var/cache"
		}
		dir = filepath.Join(cache, "osds-guest")
	}
	script, err := buildScript()
	if err != nil {
		return nil, err
	}
	var last bytes.Buffer
	cmd := exec.CommandContext(ctx, script, dir)
	cmd.Stdout = io.MultiWriter(log, &last)
	cmd.Stderr = cmd.Stdout
	err = cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() == cannotStatus {
		return nil, &CannotError{string(bytes.TrimSpace(lastLine(last.Bytes())))}
	}
	if err != nil {
		return nil, fmt.Errorf("build of the guests' image: %w", err)
	}
	return &Image{dir: dir}, nil
}

// buildScript finds the script beside this source.
func buildScript() (string, error) {
	_, file, _, ok := runtime.Caller(0)
	if !ok {
		return "", errors.New("there is no source path in the program")
	}
	if filepath.IsAbs(file) {
		return filepath.Join(filepath.Dir(file), "build"), nil
	}
	// Built with -trimpath: tests run in their package's directory.
	for _, dir := range []string{"../guest", "test/guest", "."} {
		if p, err := filepath.Abs(filepath.Join(dir, "build")); err == nil {
			if _, err := os.Stat(p); err == nil {
				return p, nil
			}
		}
	}
	return "", errors.New("there is no test/guest/build near the working directory")
}

func lastLine(b []byte) []byte {
	b = bytes.TrimRight(b, "\n")
	return b[bytes.LastIndexByte(b, '\n')+1:]
}

func (im *Image) file(name string) string { return filepath.Join(im.dir, name) }

package connector

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/osds-io/osds/internal/atomicfile"
	"github.com/osds-io/osds/pkg/model"
)

// cephClient is what the ways have in common that serve an image by a process of
// this host. The process outlives the dock. It is known by its configuration
// file, which is in its arguments and has the attachment's id in its path.
type cephClient struct {
	h     *host
	dir   string
	block func(ctx context.Context, what string, f func() error) error
}

func (c *cephClient) home(n *note) string    { return filepath.Join(c.dir, n.AttachmentID) }
func (c *cephClient) conf(n *note) string    { return filepath.Join(c.home(n), "ceph.conf") }
func (c *cephClient) keyring(n *note) string { return filepath.Join(c.home(n), "keyring") }

// configure writes the process's configuration, and the key for as long as the
// process needs it to start: unlock removes it again.
func (c *cephClient) configure(n *note, key model.Secret) (unlock func(), err error) {
	i := n.Target.RBD
	if err := os.MkdirAll(c.home(n), 0o700); err != nil {
		return nil, model.Errorf(model.KindInternal, "connector.stateDir: %w", err)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s%s\n%s%s\n", confImage, i, confWay, n.RBD)
	fmt.Fprintf(&b, "[global]\nmon host = %s\nkeyring = %s\n", i.monitors(), c.keyring(n))
	if i.FSID != "" {
		fmt.Fprintf(&b, "fsid = %s\n", i.FSID)
	}
	// A start that reaches nobody ends; what runs waits for its cluster, as a
	// disk should.
	fmt.Fprintf(&b, "client mount timeout = %d\n", kernelMount)
	fmt.Fprintf(&b, "log file =\nadmin socket =\n")
	if err := atomicfile.Write(c.conf(n), []byte(b.String()), 0o600); err != nil {
		return nil, model.Errorf(model.KindInternal, "connector.stateDir: %w", err)
	}
	text := fmt.Sprintf("[client.%s]\n\tkey = %s\n", i.User, key.Reveal())
	if err := atomicfile.Write(c.keyring(n), []byte(text), 0o600); err != nil {
		return nil, model.Errorf(model.KindInternal, "connector.stateDir: %w", err)
	}
	return func() { _ = os.Remove(c.keyring(n)) }, nil
}

// forget removes what is on disk. Only what is known is removed: a file system
// that is still mounted there must not be looked into.
func (c *cephClient) forget(_ context.Context, n *note) error {
	for _, p := range []string{c.keyring(n), c.conf(n), c.mount(n), c.home(n)} {
		if err := os.Remove(p); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return model.Errorf(model.KindInternal, "connector.stateDir: %w", err)
		}
	}
	return nil
}

// mount is where rbd-fuse shows the image.
func (c *cephClient) mount(n *note) string { return filepath.Join(c.home(n), "mnt") }

// pids are the processes that serve the attachment.
func (c *cephClient) pids(n *note, comm string) []int {
	var out []int
	conf := c.conf(n)
	for _, p := range c.h.names("proc") {
		pid, err := strconv.Atoi(p)
		// The name first: it is cheap, and most are others.
		if err != nil || c.h.value("proc", p, "comm") != comm {
			continue
		}
		// A process that has ended and was not waited for has no arguments.
		args := strings.Split(c.h.value("proc", p, "cmdline"), "\x00")
		if slices.Contains(args, conf) {
			out = append(out, pid)
		}
	}
	return out
}

// kill ends the processes that serve an attachment, and waits until they have.
func (c *cephClient) kill(ctx context.Context, n *note, comm string) error {
	for pause := 2 * time.Millisecond; ; pause = min(pause*2, 100*time.Millisecond) {
		pids := c.pids(n, comm)
		if len(pids) == 0 {
			return nil
		}
		for _, pid := range pids {
			if err := unix.Kill(pid, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
				return model.Errorf(model.KindInternal, "end %s (%d): %w", comm, pid, err)
			}
		}
		if err := sleep(ctx, pause); err != nil {
			return model.Errorf(model.KindUnknownOutcome, "%s (%d) has not ended: %w", comm, pids[0], err)
		}
	}
}

// ended waits until no process serves an attachment.
func (c *cephClient) ended(ctx context.Context, n *note, comm string) error {
	for pause := 2 * time.Millisecond; ; pause = min(pause*2, 100*time.Millisecond) {
		pids := c.pids(n, comm)
		if len(pids) == 0 {
			return nil
		}
		if err := sleep(ctx, pause); err != nil {
			return model.Errorf(model.KindUnknownOutcome, "%s (%d) has not ended: %w", comm, pids[0], err)
		}
	}
}

//go:build real && ceph && linux

package ceph

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/osds-io/osds/test/guest"
)

// guestLimit bounds what runs in the guest.
const guestLimit = 5 * time.Minute

// TestKernel runs the connector's tests of the kernel's rbd and of rbd-nbd in a
// guest whose kernel has both. The guest reaches the cluster, which listens on this
// machine's loopback, by the connection that its commands go by.
func TestKernel(t *testing.T) {
	image, err := guest.Build(t.Context(), os.Stderr)
	if cannot := (*guest.CannotError)(nil); errors.As(err, &cannot) {
		t.Skip("skipped:", err)
	}
	must(t, err)
	dir := suite.Dir(t)
	share := filepath.Join(dir, "share")
	must(t, os.Mkdir(share, 0o700))
	build := exec.CommandContext(t.Context(), "go", "test", "-c", "-tags", "real", "-o", filepath.Join(share, "connector.test"), "github.com/osds-io/osds/pkg/dock/connector")
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	nbd := shareNBD(t, share)

	ctx, cancel := context.WithTimeout(t.Context(), guestLimit)
	defer cancel()
	l, err := image.Boot(ctx, dir, guest.Config{Nodes: 1, Memory: 1024, Share: share})
	must(t, err)
	defer func() { must(t, l.Close()) }()
	n := l.Nodes[0]
	for _, a := range clusterAddrs(t) {
		stop, err := n.Forward(ctx, a)
		must(t, err)
		defer stop()
	}
	run := "^TestRBDKernel$"
	if nbd {
		run = "^TestRBD(Kernel|NBD)$"
		must(t, n.WriteFile(ctx, "/usr/bin/rbd-nbd", []byte("#!/bin/sh\nexport LD_LIBRARY_PATH=/share/lib\nexec /share/lib/rbd-nbd \"$@\"\n")))
		_, err := n.Run(ctx, "chmod", "755", "/usr/bin/rbd-nbd")
		must(t, err)
	}
	key, err := lab.Ceph(ctx, "auth", "print-key", "client.admin")
	must(t, err)
	ip, port, _ := strings.Cut(lab.MonHost(1), ":")
	b, err := json.Marshal(map[string]any{"name": guestImage, "hosts": []string{ip}, "ports": []string{port},
		"auth_username": "admin", "keyring": string(key), "fsid": lab.FSID})
	must(t, err)
	must(t, os.WriteFile(filepath.Join(share, "connection.json"), b, 0o600))

	asked, done := context.WithCancel(ctx)
	answered := make(chan struct{})
	go func() { defer close(answered); answer(asked, share) }()
	var out bytes.Buffer
	err = n.Exec(ctx, guest.Cmd{Args: []string{"/share/connector.test", "-test.v", "-test.run", run, "-test.timeout", guestLimit.String()},
		Env: []string{"OSDS_TEST_RBD=/share", "OSDS_TEST_GUEST=1"}, Stdout: &out})
	done()
	<-answered
	t.Logf("in the guest:\n%s", out.String())
	if err != nil {
		t.Errorf("%v\nthe guest's console:\n%s", err, n.Console())
	}
	if !strings.Contains(out.String(), "--- PASS: TestRBDKernel") || nbd && !strings.Contains(out.String(), "--- PASS: TestRBDNBD") {
		t.Error("not all of it was tested")
	}
}

const guestImage = "rbd/opensds-rbd-in-guest"

// answer does what the tests in the guest ask for, until ctx ends.
func answer(ctx context.Context, dir string) {
	for ctx.Err() == nil {
		l, _ := filepath.Glob(filepath.Join(dir, "ask-*"))
		for _, f := range l {
			what := strings.TrimPrefix(filepath.Base(f), "ask-")
			text := ""
			if err := serve(ctx, dir, what); err != nil {
				text = err.Error()
			}
			_ = os.Remove(f)
			// Under another name until it is whole.
			tmp := filepath.Join(dir, "answer")
			if os.WriteFile(tmp, []byte(text), 0o600) == nil {
				_ = os.Rename(tmp, filepath.Join(dir, "did-"+what))
			}
		}
		select {
		case <-ctx.Done():
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func serve(ctx context.Context, dir, what string) error {
	switch what {
	case "new":
		_, _ = lab.RBD(ctx, "rm", "--no-progress", guestImage)
		_, err := lab.RBD(ctx, "create", guestImage, "--size", "64M")
		return err
	case "grow":
		_, err := lab.RBD(ctx, "resize", "--no-progress", guestImage, "--size", "96M")
		return err
	case "cut":
		out, err := lab.RBD(ctx, "status", guestImage)
		n := 0
		for _, f := range strings.Fields(string(out)) {
			if a, ok := strings.CutPrefix(f, "watcher="); ok && err == nil {
				_, err = lab.Ceph(ctx, "osd", "blocklist", "add", a)
				n++
			}
		}
		if err == nil && n != 1 {
			err = fmt.Errorf("the image has %d clients: %s", n, out)
		}
		return err
	case "same":
		file := filepath.Join(dir, "export")
		defer os.Remove(file)
		if _, err := lab.RBD(ctx, "export", "--no-progress", guestImage, file); err != nil {
			return err
		}
		got, err := os.ReadFile(file)
		want, werr := os.ReadFile(filepath.Join(dir, "data"))
		if err = errors.Join(err, werr); err != nil {
			return err
		}
		if len(got) != 96<<20 || !bytes.Equal(got[8<<20:8<<20+len(want)], want) || !bytes.Equal(got[90<<20:90<<20+len(want)], want) {
			return errors.New("the image has not what was written to the device")
		}
		return nil
	}
	return fmt.Errorf("%q is not known", what)
}

// clusterAddrs are the addresses that clients of the cluster need.
func clusterAddrs(t *testing.T) []string {
	t.Helper()
	out, err := lab.Ceph(t.Context(), "osd", "dump", "--format", "json")
	must(t, err)
	var dump struct {
		OSDs []struct {
			Public struct {
				Addrs []struct {
					Addr string `json:"addr"`
				} `json:"addrvec"`
			} `json:"public_addrs"`
		} `json:"osds"`
	}
	must(t, json.Unmarshal(out, &dump))
	all := []string{lab.MonHost(1), lab.MonHost(2)}
	for _, o := range dump.OSDs {
		for _, a := range o.Public.Addrs {
			all = append(all, a.Addr)
		}
	}
	if len(all) < 3 {
		t.Fatalf("the OSD's addresses are not known: %s", out)
	}
	return all
}

// shareNBD puts rbd-nbd and its libraries where the guest finds them; false where
// it cannot be had.
func shareNBD(t *testing.T, share string) bool {
	t.Helper()
	bin, err := exec.LookPath("rbd-nbd")
	if err != nil {
		cmd := exec.CommandContext(t.Context(), "apt-get", "install", "-y", "-qq", "--no-install-recommends", "rbd-nbd")
		cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive", "RUNLEVEL=1")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Logf("rbd-nbd is not tested: it cannot be installed: %v: %s", err, out)
			return false
		}
		if bin, err = exec.LookPath("rbd-nbd"); err != nil {
			t.Logf("rbd-nbd is not tested: %v", err)
			return false
		}
	}
	lib := filepath.Join(share, "lib")
	must(t, os.Mkdir(lib, 0o755))
	out, err := exec.CommandContext(t.Context(), "ldd", bin).Output()
	must(t, err)
	for _, f := range strings.Fields(string(out)) {
		// The C library is the guest's own.
		if name := filepath.Base(f); filepath.IsAbs(f) && !strings.HasPrefix(name, "libc.so") && !strings.HasPrefix(name, "ld-linux") && !strings.HasPrefix(name, "libm.so") {
			must(t, copyFile(filepath.Join(lib, name), f))
		}
	}
	must(t, copyFile(filepath.Join(lib, "rbd-nbd"), bin))
	return true
}

func copyFile(to, from string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY|os.O_EXCL, 0o755)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}

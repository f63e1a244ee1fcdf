//go:build linux

package cephlab

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/osds-io/osds/test/harness"
)

// Config is what a cluster is made from.
type Config struct {
	// Dir is a directory of its own, with a path of at most 60 characters:
	// daemons make sockets in it.
	Dir string
	// Address is where the daemons listen; 127.0.0.1 if empty.
	Address string
	// Pools are made, for RBD.
	Pools []string
}

// Cluster is a cluster that runs. Its methods may be called by several
// goroutines, except Stop.
type Cluster struct {
	Dir string
	// Conf is the path of ceph.conf; client.admin's keyring is found through it.
	Conf string
	FSID string

	addr    string
	ports   [2]int // of the monitor: protocol 2, protocol 1
	held    []int  // sockets that keep the ports ours
	spawner *harness.Spawner

	mu      sync.Mutex
	daemons map[string]*daemon
}

// Start makes a cluster and waits until every placement group is active and
// clean. What was started is ended again if it fails.
func Start(ctx context.Context, conf Config) (_ *Cluster, err error) {
	if why := Why(); why != "" {
		return nil, errors.New(why)
	}
	c := &Cluster{Dir: conf.Dir, Conf: filepath.Join(conf.Dir, "ceph.conf"), addr: conf.Address, daemons: map[string]*daemon{}}
	if c.addr == "" {
		c.addr = "127.0.0.1"
	}
	if len(c.Dir) > 60 || !filepath.IsAbs(c.Dir) {
		return nil, fmt.Errorf("%s is not an absolute path of at most 60 characters", c.Dir)
	}
	c.spawner = harness.NewSpawner()
	defer func() {
		if err != nil {
			err = errors.Join(err, c.logs())
			c.Stop()
		}
	}()
	if err := c.reserve(); err != nil {
		return nil, err
	}
	if err := c.create(ctx); err != nil {
		return nil, err
	}
	for _, d := range []string{Mon, Mgr, OSD} {
		if err := c.StartDaemon(d); err != nil {
			return nil, err
		}
	}
	for _, p := range conf.Pools {
		if err := c.CreatePool(ctx, p); err != nil {
			return nil, err
		}
	}
	return c, c.WaitClean(ctx)
}

// reserve takes two ports for the monitor, whose addresses never change. A socket
// that is bound and does not listen keeps them from others, and not from the
// monitor.
func (c *Cluster) reserve() error {
	ip := net.ParseIP(c.addr).To4()
	if ip == nil {
		return fmt.Errorf("%s is not an IPv4 address", c.addr)
	}
	for i := range c.ports {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		c.held = append(c.held, fd)
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
			return err
		}
		if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte(ip)}); err != nil {
			return err
		}
		sa, err := unix.Getsockname(fd)
		if err != nil {
			return err
		}
		c.ports[i] = sa.(*unix.SockaddrInet4).Port
	}
	return nil
}

// create makes the keys and the stores of the daemons.
func (c *Cluster) create(ctx context.Context) error {
	for _, d := range []string{"run", "log", "crash", "mon", "mgr", "osd"} {
		if err := os.MkdirAll(filepath.Join(c.Dir, d), 0o700); err != nil {
			return err
		}
	}
	var err error
	if c.FSID, err = uuid(); err != nil {
		return err
	}
	osd, err := uuid()
	if err != nil {
		return err
	}
	if err := c.writeConf(); err != nil {
		return err
	}
	all := []string{"mon", "allow *", "osd", "allow *", "mgr", "allow *"}
	var initial []byte
	for _, k := range []struct {
		name string
		caps []string
	}{
		{"mon.", []string{"mon", "allow *"}},
		{"client.admin", all},
		{Mgr, []string{"mon", "allow profile mgr", "osd", "allow *"}},
		{OSD, []string{"mon", "allow profile osd", "mgr", "allow profile osd", "osd", "allow *"}},
	} {
		file := c.keyring(k.name)
		args := []string{"--create-keyring", file, "--gen-key", "-n", k.name}
		for i := 0; i < len(k.caps); i += 2 {
			args = append(args, "--cap", k.caps[i], k.caps[i+1])
		}
		if _, err := c.run(ctx, "ceph-authtool", args...); err != nil {
			return err
		}
		b, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		initial = append(initial, b...)
	}
	// All keys are the monitor's from its first moment on.
	keys, monmap := filepath.Join(c.Dir, "initial"), filepath.Join(c.Dir, "monmap")
	if err := os.WriteFile(keys, initial, 0o600); err != nil {
		return err
	}
	if _, err := c.run(ctx, "monmaptool", "--create", "--fsid", c.FSID, "--addv", "a", c.monAddrs(), monmap); err != nil {
		return err
	}
	if _, err := c.run(ctx, "ceph-mon", "--mkfs", "-i", "a", "-c", c.Conf, "--monmap", monmap, "--keyring", keys); err != nil {
		return err
	}
	// Without a monitor that runs, the OSD would ask for its configuration for
	// ever.
	if _, err := c.run(ctx, "ceph-osd", "--mkfs", "-i", "0", "-c", c.Conf, "--no-mon-config", "--osd-uuid", osd); err != nil {
		return err
	}
	if err := errors.Join(os.Remove(keys), os.Remove(monmap)); err != nil {
		return err
	}
	if err := c.StartDaemon(Mon); err != nil {
		return err
	}
	_, err = c.Ceph(ctx, "osd", "new", osd, "0")
	return err
}

func (c *Cluster) keyring(name string) string { return filepath.Join(c.Dir, "ceph."+name+".keyring") }

// CreatePool makes a pool for RBD.
func (c *Cluster) CreatePool(ctx context.Context, name string) error {
	if _, err := c.Ceph(ctx, "osd", "pool", "create", name, "8"); err != nil {
		return err
	}
	_, err := c.run(ctx, "rbd", "-c", c.Conf, "pool", "init", name)
	return err
}

// AddUser makes a cephx user and gives the path of its keyring. caps are pairs,
// "mon", "profile rbd".
func (c *Cluster) AddUser(ctx context.Context, name string, caps ...string) (string, error) {
	out, err := c.Ceph(ctx, append([]string{"auth", "get-or-create", "client." + name}, caps...)...)
	if err != nil {
		return "", err
	}
	file := c.keyring("client." + name)
	return file, os.WriteFile(file, out, 0o600)
}

// MonHost gives the monitor's address, host:port, for the protocol of version 1
// or 2.
func (c *Cluster) MonHost(version int) string {
	return net.JoinHostPort(c.addr, fmt.Sprint(c.ports[2-version]))
}

// Ceph runs the ceph command as client.admin. A monitor that is dead is an error
// after a while, not a wait.
func (c *Cluster) Ceph(ctx context.Context, args ...string) ([]byte, error) {
	return c.run(ctx, "ceph", append([]string{"-c", c.Conf, "--connect-timeout", "30"}, args...)...)
}

// RBD runs the rbd command as client.admin.
func (c *Cluster) RBD(ctx context.Context, args ...string) ([]byte, error) {
	return c.run(ctx, "rbd", append([]string{"-c", c.Conf}, args...)...)
}

func (c *Cluster) run(ctx context.Context, name string, args ...string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, 90*time.Second)
	defer cancel()
	path := lookPath(name)
	if path == "" {
		return nil, fmt.Errorf("there is no %s", name)
	}
	cmd := exec.CommandContext(ctx, path, args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		err = fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, bytes.TrimSpace(tail(append(stderr.Bytes(), out...), 2000)))
	}
	return out, err
}

// WaitClean waits until the manager gives statistics, every placement group is
// active and clean, and the OSD is in.
func (c *Cluster) WaitClean(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	for {
		err := c.clean(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the cluster has not come up: %w", err)
		case <-time.After(200 * time.Millisecond):
		}
	}
}

func (c *Cluster) clean(ctx context.Context) error {
	out, err := c.Ceph(ctx, "status", "--format", "json")
	if err != nil {
		return err
	}
	var s struct {
		MgrMap struct {
			Available bool `json:"available"`
		} `json:"mgrmap"`
		OSDMap struct {
			Up int `json:"num_up_osds"`
		} `json:"osdmap"`
		PGMap struct {
			States []struct {
				Name  string `json:"state_name"`
				Count int    `json:"count"`
			} `json:"pgs_by_state"`
			PGs   int   `json:"num_pgs"`
			Total int64 `json:"bytes_total"`
		} `json:"pgmap"`
	}
	if err := json.Unmarshal(out, &s); err != nil {
		return fmt.Errorf("ceph status: %w", err)
	}
	good := 0
	for _, st := range s.PGMap.States {
		if strings.HasPrefix(st.Name, "active+clean") {
			good += st.Count
		}
	}
	if !s.MgrMap.Available || s.OSDMap.Up == 0 || good == 0 || good != s.PGMap.PGs || s.PGMap.Total == 0 {
		return fmt.Errorf("the manager is available: %t; %d OSDs are up; of %d placement groups %d are active and clean",
			s.MgrMap.Available, s.OSDMap.Up, s.PGMap.PGs, good)
	}
	return nil
}

// logs gives the ends of the daemons' logs, as an error.
func (c *Cluster) logs() error {
	var errs []error
	for _, d := range []string{Mon, Mgr, OSD} {
		if b, err := os.ReadFile(c.log(d)); err == nil {
			errs = append(errs, fmt.Errorf("log of %s:\n%s", d, tail(b, 1500)))
		}
	}
	return errors.Join(errs...)
}

// Stop ends every daemon. The directory stays.
func (c *Cluster) Stop() {
	for _, name := range []string{Mgr, OSD, Mon} {
		c.mu.Lock()
		d := c.daemons[name]
		c.mu.Unlock()
		if d != nil {
			d.stop()
		}
	}
	for _, fd := range c.held {
		_ = unix.Close(fd)
	}
	c.held = nil
	c.spawner.Close()
}

func uuid() (string, error) {
	b, err := os.ReadFile("/proc/sys/kernel/random/uuid")
	return strings.TrimSpace(string(b)), err
}

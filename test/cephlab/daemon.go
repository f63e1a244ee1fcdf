//go:build linux

package cephlab

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// stopLimit is how long a daemon may take to end before it is killed.
const stopLimit = 15 * time.Second

// daemon is one process of the cluster.
type daemon struct {
	cmd    *exec.Cmd
	exited chan struct{}
}

// StartDaemon starts a daemon that does not run. It does not wait until the
// daemon serves: WaitClean does.
func (c *Cluster) StartDaemon(name string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if d := c.daemons[name]; d != nil && d.alive() {
		return nil
	}
	kind, id, _ := strings.Cut(name, ".")
	path := lookPath("ceph-" + kind)
	out, err := os.OpenFile(filepath.Join(c.Dir, "log", name+".out"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer out.Close()
	cmd := exec.Command(path, "-f", "-i", id, "-c", c.Conf)
	cmd.Env = append(os.Environ(), "CEPH_CONF="+c.Conf)
	cmd.Stdout, cmd.Stderr, cmd.Dir = out, out, c.Dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := c.spawner.Run(cmd.Start); err != nil {
		return fmt.Errorf("start %s: %w", name, err)
	}
	// Tests of what stands still find the process by it.
	pid := filepath.Join(c.Dir, "run", name+".pid")
	if err := os.WriteFile(pid, []byte(strconv.Itoa(cmd.Process.Pid)+"\n"), 0o600); err != nil {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		return err
	}
	d := &daemon{cmd: cmd, exited: make(chan struct{})}
	go func() {
		defer close(d.exited)
		_ = cmd.Wait()
	}()
	c.daemons[name] = d
	return nil
}

// Kill ends a daemon as a loss of power would.
func (c *Cluster) Kill(name string) error {
	c.mu.Lock()
	d := c.daemons[name]
	c.mu.Unlock()
	if d == nil || !d.alive() {
		return fmt.Errorf("%s does not run", name)
	}
	if err := d.cmd.Process.Kill(); err != nil {
		return err
	}
	<-d.exited
	return nil
}

// Signal sends a signal to a daemon: SIGSTOP and SIGCONT, above all.
func (c *Cluster) Signal(name string, sig syscall.Signal) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	d := c.daemons[name]
	if d == nil || !d.alive() {
		return fmt.Errorf("%s does not run", name)
	}
	return d.cmd.Process.Signal(sig)
}

func (d *daemon) alive() bool {
	select {
	case <-d.exited:
		return false
	default:
		return true
	}
}

func (d *daemon) stop() {
	if d.alive() {
		// One that was stopped would not see the other signal.
		_ = d.cmd.Process.Signal(syscall.SIGCONT)
		_ = d.cmd.Process.Signal(syscall.SIGTERM)
	}
	select {
	case <-d.exited:
	case <-time.After(stopLimit):
		_ = d.cmd.Process.Kill()
		<-d.exited
	}
}

//go:build linux

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// proc is a process that this program started and ends.
type proc struct {
	name   string
	cmd    *exec.Cmd
	log    string // file with its output
	exited chan struct{}
	err    error // of Wait; valid after exited
}

// startProc starts a program with its output going to a file. It does not
// outlive this process, whatever happens to it.
func startProc(name, log string, env []string, bin string, args ...string) (*proc, error) {
	f, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	cmd := exec.Command(bin, args...)
	cmd.Env = append(os.Environ(), env...)
	cmd.Stdout, cmd.Stderr = f, f
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	p := &proc{name: name, cmd: cmd, log: log, exited: make(chan struct{})}
	go func() {
		p.err = cmd.Wait()
		close(p.exited)
	}()
	return p, nil
}

func (p *proc) pid() int { return p.cmd.Process.Pid }

// stop asks the process to end, and makes it after a while.
func (p *proc) stop() {
	if p == nil {
		return
	}
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.exited:
	case <-time.After(30 * time.Second):
		p.kill()
	}
}

// kill ends the process at once.
func (p *proc) kill() {
	_ = p.cmd.Process.Kill()
	<-p.exited
}

// died gives an error if the process is not running any more.
func (p *proc) died() error {
	select {
	case <-p.exited:
		return fmt.Errorf("%s ended (%v); its log ends with:\n%s", p.name, p.err, tail(p.log, 1500))
	default:
		return nil
	}
}

func tail(file string, n int) string {
	b, err := os.ReadFile(file)
	if err != nil {
		return err.Error()
	}
	if len(b) > n {
		b = b[len(b)-n:]
		if _, rest, ok := bytes.Cut(b, []byte("\n")); ok {
			b = rest
		}
	}
	return string(b)
}

// clockTick is the unit of times in /proc: 1/100 s on every Linux that Go runs on.
const clockTick = 10 * time.Millisecond

// cpu gives the processor time that the process has used, user and system.
func (p *proc) cpu() (time.Duration, error) { return cpuOf(strconv.Itoa(p.pid())) }

func cpuOf(pid string) (time.Duration, error) {
	b, err := os.ReadFile("/proc/" + pid + "/stat")
	if err != nil {
		return 0, err
	}
	// The name, in parentheses, may contain anything.
	f := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
	if len(f) < 13 {
		return 0, fmt.Errorf("/proc/%s/stat: %q", pid, b)
	}
	var sum time.Duration
	for _, s := range f[11:13] { // utime, stime
		n, err := strconv.ParseInt(s, 10, 64)
		if err != nil {
			return 0, err
		}
		sum += time.Duration(n) * clockTick
	}
	return sum, nil
}

// machineBusy gives the processor time that everything on this machine has used.
func machineBusy() (time.Duration, error) {
	b, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, err
	}
	line, _, _ := strings.Cut(string(b), "\n")
	f := strings.Fields(line)
	if len(f) < 9 || f[0] != "cpu" {
		return 0, fmt.Errorf("/proc/stat: %q", line)
	}
	var busy time.Duration
	for i, s := range f[1:9] {
		if i == 3 || i == 4 { // idle, iowait
			continue
		}
		n, err := strconv.ParseInt(s, 10, 64)
		if err != nil {
			return 0, err
		}
		busy += time.Duration(n) * clockTick
	}
	return busy, nil
}

// fds are open file descriptors: those of etcd's write-ahead log, and the rest.
// etcd holds the segments of its log since the last snapshot open, so that their
// number goes up and down by one or two as it is written.
type fds struct{ wal, rest int }

func (p *proc) fds() (fds, error) {
	var n fds
	dir := fmt.Sprintf("/proc/%d/fd", p.pid())
	d, err := os.ReadDir(dir)
	if err != nil {
		return n, err
	}
	for _, e := range d {
		// One that is closed by now was open when it was listed.
		if name, _ := os.Readlink(filepath.Join(dir, e.Name())); strings.Contains(name, "/member/wal/") {
			n.wal++
		} else {
			n.rest++
		}
	}
	return n, nil
}

// memory is what a process has in memory: its own, and pages of files (the
// database of etcd, the program), which the kernel takes back when it needs to.
type memory struct{ anon, file int64 }

func (m memory) String() string {
	return fmt.Sprintf("anonymous %.1f MiB, file-backed %.1f MiB", float64(m.anon)/(1<<20), float64(m.file)/(1<<20))
}

func (p *proc) memory() (memory, error) {
	name := fmt.Sprintf("/proc/%d/smaps_rollup", p.pid())
	b, err := os.ReadFile(name)
	if err != nil {
		return memory{}, err
	}
	return parseRollup(name, string(b))
}

func parseRollup(name, text string) (memory, error) {
	got := map[string]int64{}
	for line := range strings.Lines(text) {
		key, rest, ok := strings.Cut(line, ":")
		if f := strings.Fields(rest); ok && len(f) == 2 && f[1] == "kB" {
			if n, err := strconv.ParseInt(f[0], 10, 64); err == nil {
				got[key] = n << 10
			}
		}
	}
	rss, ok1 := got["Rss"]
	anon, ok2 := got["Anonymous"]
	if !ok1 || !ok2 {
		return memory{}, errors.New(name + " has no Rss and Anonymous")
	}
	return memory{anon: anon, file: rss - anon}, nil
}

// settled waits until the process's own memory has not fallen for a while, and
// gives it then. The runtime gives memory back bit by bit after a load.
func (p *proc) settled(ctx context.Context, calm, limit time.Duration) (memory, error) {
	var least memory
	began := time.Now()
	fell := began
	for {
		m, err := p.memory()
		if err != nil {
			return m, err
		}
		switch {
		case least.anon == 0:
			least = m
		case m.anon < least.anon-least.anon/200:
			fell = time.Now()
			least = m
		case m.anon <= least.anon:
			least = m
		}
		if time.Since(fell) > calm || time.Since(began) > limit {
			return m, nil
		}
		sleepUntil(ctx, time.Now().Add(500*time.Millisecond))
		if ctx.Err() != nil {
			return m, ctx.Err()
		}
	}
}

// meter measures processor time over the windows of a load: of the daemons, of
// this process, and of everybody else on the machine.
type meter struct {
	procs []*proc
	marks [][]time.Duration // per edge: each proc, self, machine
	at    []time.Time
	err   error
}

// edge is for drive.
func (m *meter) edge(int) {
	var row []time.Duration
	note := func(d time.Duration, err error) {
		if err != nil && m.err == nil {
			m.err = err
		}
		row = append(row, d)
	}
	for _, p := range m.procs {
		note(p.cpu())
	}
	note(cpuOf("self"))
	note(machineBusy())
	m.marks, m.at = append(m.marks, row), append(m.at, time.Now())
}

// used is processor time over all windows.
type used struct {
	procs        []time.Duration
	self, others time.Duration
	over         time.Duration
}

func (m *meter) used() (used, error) {
	if m.err != nil {
		return used{}, m.err
	}
	first, last := m.marks[0], m.marks[len(m.marks)-1]
	u := used{over: m.at[len(m.at)-1].Sub(m.at[0])}
	sum := time.Duration(0)
	for i := range m.procs {
		d := last[i] - first[i]
		u.procs = append(u.procs, d)
		sum += d
	}
	n := len(m.procs)
	u.self = last[n] - first[n]
	u.others = max(last[n+1]-first[n+1]-sum-u.self, 0)
	return u, nil
}

// cores is a share of the machine: 1 is one processor all the time.
func (u used) cores(d time.Duration) float64 { return d.Seconds() / u.over.Seconds() }

package harness

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/osds-io/osds/internal/faults"
)

// stopLimit is how long a process may take to end after SIGTERM before the test
// calls it hung. It is beyond every grace that the daemons have themselves.
const stopLimit = 60 * time.Second

// Process is one of our programs, which may be started many times. Its methods
// may be called by several goroutines.
type Process struct {
	Name string

	s    *Suite
	path string
	args []string
	dir  string

	mu     sync.Mutex
	env    []string
	faults string
	cmd    *exec.Cmd
	exited chan struct{} // closed when cmd ended
	starts int
	paused bool
	kills  int // how often the harness killed it
}

// newProcess makes a process whose output is kept in dir. It is ended with the
// test, whatever its state.
func (s *Suite) newProcess(t testing.TB, name, dir, path string, args ...string) *Process {
	t.Helper()
	p := &Process{Name: name, s: s, path: path, args: args, dir: dir}
	t.Cleanup(func() {
		p.end()
		p.report(t)
	})
	return p
}

// LogPath is the file with all that the process wrote.
func (p *Process) LogPath() string { return filepath.Join(p.dir, p.Name+".log") }

// SetEnv adds a variable for the next start.
func (p *Process) SetEnv(kv string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.env = append(p.env, kv)
}

// SetFaults arms fault points for the next starts; "" arms none. See package
// faults for the form.
func (p *Process) SetFaults(plan string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.faults = plan
}

// Start starts the process and does not wait until it is ready.
func (p *Process) Start() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.alive() {
		return fmt.Errorf("%s runs already", p.Name)
	}
	out, err := os.OpenFile(p.LogPath(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer out.Close()
	p.starts++
	fmt.Fprintf(out, "---- %s start %d %s=%s\n", time.Now().UTC().Format(time.RFC3339Nano), p.starts, faults.Env, p.faults)
	cmd := exec.Command(p.path, p.args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = p.dir, out, out
	cmd.Env = append(cleanEnv(), p.env...)
	if p.faults != "" {
		cmd.Env = append(cmd.Env, faults.Env+"="+p.faults)
	}
	// A group of its own, so that what it runs can be ended with it; and an end
	// with us, should the test's process die.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := p.s.spawn(cmd.Start); err != nil {
		return fmt.Errorf("start %s: %w", p.Name, err)
	}
	exited := make(chan struct{})
	p.cmd, p.exited, p.paused = cmd, exited, false
	go func() {
		defer close(exited)
		_ = cmd.Wait() // ProcessState has it
	}()
	return nil
}

// cleanEnv is our environment without what configures osds.
func cleanEnv() []string {
	var out []string
	for _, kv := range os.Environ() {
		if !strings.HasPrefix(kv, "OSDS_") && !strings.HasPrefix(kv, "OPENSDS_") && !strings.HasPrefix(kv, "OS_") {
			out = append(out, kv)
		}
	}
	return append(out, "GORACE=halt_on_error=0 exitcode=66", "GOTRACEBACK=all")
}

// alive says whether it runs. The caller holds the lock.
func (p *Process) alive() bool {
	if p.cmd == nil {
		return false
	}
	select {
	case <-p.exited:
		return false
	default:
		return true
	}
}

// Alive says whether the process runs; one that is paused does.
func (p *Process) Alive() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.alive()
}

// Pid is the process's id, 0 if it does not run.
func (p *Process) Pid() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.alive() {
		return 0
	}
	return p.cmd.Process.Pid
}

// Exited is closed when the process that was started last has ended.
func (p *Process) Exited() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.exited == nil {
		c := make(chan struct{})
		close(c)
		return c
	}
	return p.exited
}

// Killed says whether the process that was started last was ended by SIGKILL.
func (p *Process) Killed() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd == nil || p.alive() {
		return false
	}
	ws, ok := p.cmd.ProcessState.Sys().(syscall.WaitStatus)
	return ok && ws.Signaled() && ws.Signal() == syscall.SIGKILL
}

func (p *Process) signal(sig syscall.Signal) (exited <-chan struct{}, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.alive() {
		return p.exited, errors.New(p.Name + " does not run")
	}
	switch sig {
	case syscall.SIGSTOP:
		p.paused = true
	case syscall.SIGCONT:
		p.paused = false
	case syscall.SIGKILL:
		p.kills++
	}
	// Wait has not been answered yet, so the id is still this process's.
	return p.exited, p.cmd.Process.Signal(sig)
}

// Kill ends the process as a loss of power would: at once, and the process
// alone. It returns when it is gone; one that does not run is left alone.
func (p *Process) Kill() {
	exited, err := p.signal(syscall.SIGKILL)
	if err == nil {
		<-exited
	}
}

// Stop asks the process to end and waits. An error is a process that did not run,
// did not end in time, or did not end well.
func (p *Process) Stop() error {
	exited, err := p.signal(syscall.SIGTERM)
	if err != nil {
		return err
	}
	select {
	case <-exited:
	case <-time.After(stopLimit):
		p.dumpStacks()
		return fmt.Errorf("%s did not end within %s of SIGTERM", p.Name, stopLimit)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if code := p.cmd.ProcessState.ExitCode(); code != 0 {
		return fmt.Errorf("%s ended with %s after SIGTERM", p.Name, p.cmd.ProcessState)
	}
	return nil
}

// dumpStacks has the process write its goroutines to its log and end.
func (p *Process) dumpStacks() {
	exited, err := p.signal(syscall.SIGQUIT)
	if err != nil {
		return
	}
	select {
	case <-exited:
	case <-time.After(10 * time.Second):
		p.Kill()
	}
}

// Pause stalls the process with SIGSTOP, as a machine that swaps or a virtual
// machine that is moved would.
func (p *Process) Pause() error { _, err := p.signal(syscall.SIGSTOP); return err }

// Resume lets it go on.
func (p *Process) Resume() error { _, err := p.signal(syscall.SIGCONT); return err }

// end ends the process and all that it started.
func (p *Process) end() {
	p.mu.Lock()
	cmd, exited, alive := p.cmd, p.exited, p.alive()
	p.mu.Unlock()
	if cmd == nil {
		return
	}
	if alive {
		_ = cmd.Process.Kill()
	}
	<-exited
	// What it ran has its group; the group's id cannot have been given to
	// others while it has members, and signalling an empty one does nothing
	// unless the id was used again, which takes as many processes as there
	// are ids.
	_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
}

// report shows the log of a failed test, and fails it for what the log tells of.
func (p *Process) report(t testing.TB) {
	b, err := os.ReadFile(p.LogPath())
	if err != nil {
		return
	}
	for _, bad := range []string{"WARNING: DATA RACE", "panic: ", "fatal error: ", "the driver panicked"} {
		if i := bytes.Index(b, []byte(bad)); i >= 0 && !strings.Contains(string(b[i:]), "SIGQUIT") {
			t.Errorf("%s wrote %q:\n%s", p.Name, bad, clip(b[i:], 6000))
			break
		}
	}
	if t.Failed() {
		t.Logf("---- log of %s\n%s", p.Name, tail(withoutReads(b), p.s.logTail))
	}
}

// withoutReads leaves out the requests that changed nothing: a test that waits
// makes very many.
func withoutReads(b []byte) []byte {
	var out []byte
	for line := range bytes.Lines(b) {
		if bytes.Contains(line, []byte("level=debug msg=request ")) {
			continue
		}
		out = append(out, line...)
	}
	return out
}

func clip(b []byte, n int) []byte { return b[:min(len(b), n)] }

// tail gives the end of a text, from the beginning of a line.
func tail(b []byte, n int) []byte {
	if len(b) <= n {
		return b
	}
	b = b[len(b)-n:]
	if i := bytes.IndexByte(b, '\n'); i >= 0 {
		b = b[i+1:]
	}
	return append([]byte("(...)\n"), b...)
}

// Spawner starts processes from one thread that lives as long as it does: the
// kernel sends a child's death signal when the thread that made it ends.
type Spawner struct {
	do   chan func()
	done chan struct{}
}

// NewSpawner makes a spawner; its owner closes it.
func NewSpawner() *Spawner {
	s := &Spawner{do: make(chan func()), done: make(chan struct{})}
	go func() {
		defer close(s.done)
		runtime.LockOSThread()
		for f := range s.do {
			f()
		}
	}()
	return s
}

// Run calls f on the thread.
func (s *Spawner) Run(f func() error) error {
	ch := make(chan error, 1)
	s.do <- func() { ch <- f() }
	return <-ch
}

// Close ends the thread, and with it every process that was started to end with
// it.
func (s *Spawner) Close() {
	close(s.do)
	<-s.done
}

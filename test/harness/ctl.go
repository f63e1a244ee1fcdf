package harness

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Ctl runs the real osdsctl.
type Ctl struct {
	T testing.TB
	s *Suite
	// Env is added to a clean environment.
	Env []string
	dir string
}

// Ctl makes a runner of osdsctl for the cluster's osdslets. What it asks them
// passes through here, and is held against the description like all else; where
// they serve https it is not.
func (c *Cluster) Ctl() *Ctl {
	var urls []string
	for _, l := range c.Lets {
		urls = append(urls, l.Checked())
	}
	return &Ctl{T: c.T, s: c.S, Env: []string{"OPENSDS_ENDPOINT=" + strings.Join(urls, ",")}, dir: c.Dir}
}

// Result is how a run ended.
type Result struct {
	Out, Err string
	Code     int
}

// Run runs a command and gives its result, whatever that is.
func (c *Ctl) Run(args ...string) Result {
	c.T.Helper()
	ctx, cancel := context.WithTimeout(c.T.Context(), Limit)
	defer cancel()
	cmd, out, errs := c.command(ctx, args...)
	err := c.s.spawn(cmd.Start)
	if err == nil {
		err = cmd.Wait()
	}
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		c.T.Fatalf("osdsctl %s: %v", strings.Join(args, " "), err)
	}
	r := Result{Out: out.String(), Err: errs.String(), Code: cmd.ProcessState.ExitCode()}
	if ctx.Err() != nil {
		c.T.Fatalf("osdsctl %s did not end\n%s%s", strings.Join(args, " "), r.Out, r.Err)
	}
	return r
}

// Script runs another command with osdsctl in its path and the same environment;
// it must succeed. Its whole process group ends with it.
func (c *Ctl) Script(name string, args ...string) string {
	c.T.Helper()
	ctx, cancel := context.WithTimeout(c.T.Context(), Limit)
	defer cancel()
	cmd, out, _ := c.command(ctx, args...)
	cmd.Path, cmd.Args[0] = Tool(c.T, name), name
	cmd.Stderr = cmd.Stdout
	cmd.Env = append(cmd.Env, "PATH="+filepath.Dir(c.s.Ctl)+":"+os.Getenv("PATH")+":/usr/sbin:/sbin")
	cmd.SysProcAttr.Setpgid = true
	err := c.s.spawn(cmd.Start)
	if err == nil {
		err = cmd.Wait()
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
	}
	if err != nil {
		c.T.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return out.String()
}

func (c *Ctl) command(ctx context.Context, args ...string) (*exec.Cmd, *bytes.Buffer, *bytes.Buffer) {
	cmd := exec.CommandContext(ctx, c.s.Ctl, args...)
	cmd.Dir = c.dir
	cmd.Env = append(cleanEnv(), c.Env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	cmd.WaitDelay = 5 * time.Second
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	return cmd, &out, &errs
}

// OK runs a command that must succeed and gives its standard output.
func (c *Ctl) OK(args ...string) string {
	c.T.Helper()
	r := c.Run(args...)
	if r.Code != 0 {
		c.T.Fatalf("osdsctl %s: exit %d\n%s%s", strings.Join(args, " "), r.Code, r.Out, r.Err)
	}
	return r.Out
}

// JSON runs a command with -o json and decodes what it prints.
func (c *Ctl) JSON(out any, args ...string) {
	c.T.Helper()
	text := c.OK(append(args, "-o", "json")...)
	if err := json.Unmarshal([]byte(text), out); err != nil {
		c.T.Fatalf("osdsctl %s -o json: %v in\n%s", strings.Join(args, " "), err, text)
	}
}

// Fails runs a command that must end with a code, and gives its result.
func (c *Ctl) Fails(code int, args ...string) Result {
	c.T.Helper()
	r := c.Run(args...)
	if r.Code != code {
		c.T.Fatalf("osdsctl %s: exit %d, want %d\n%s%s", strings.Join(args, " "), r.Code, code, r.Out, r.Err)
	}
	return r
}

// Running is an osdsctl that goes on until it is interrupted.
type Running struct {
	c    *Ctl
	cmd  *exec.Cmd
	file string
	args []string
}

// Go starts a command that watches. It is interrupted with the test at the
// latest.
func (c *Ctl) Go(args ...string) *Running {
	c.T.Helper()
	f, err := os.CreateTemp(c.dir, "ctl")
	if err != nil {
		c.T.Fatal(err)
	}
	defer f.Close()
	cmd, _, _ := c.command(context.Background(), args...)
	cmd.Stdout, cmd.Stderr = f, f
	if err := c.s.spawn(cmd.Start); err != nil {
		c.T.Fatal(err)
	}
	r := &Running{c: c, cmd: cmd, file: f.Name(), args: args}
	c.T.Cleanup(func() {
		if cmd.ProcessState == nil {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		}
	})
	return r
}

// Output is what it has printed so far.
func (r *Running) Output() string {
	b, err := os.ReadFile(r.file)
	if err != nil {
		r.c.T.Fatal(err)
	}
	return string(b)
}

// Shows waits until the output has a text.
func (r *Running) Shows(text string) {
	r.c.T.Helper()
	if err := Poll(Limit, func() error {
		if out := r.Output(); !strings.Contains(out, text) {
			return errors.New(out)
		}
		return nil
	}); err != nil {
		r.c.T.Fatalf("osdsctl %s does not show %q but\n%v", strings.Join(r.args, " "), text, err)
	}
}

// Interrupt ends it as Ctrl-C does, and gives its exit code.
func (r *Running) Interrupt() int {
	r.c.T.Helper()
	if err := r.cmd.Process.Signal(os.Interrupt); err != nil {
		r.c.T.Fatal(err)
	}
	return r.End()
}

// End waits until it ends by itself, and gives its exit code.
func (r *Running) End() int {
	r.c.T.Helper()
	done := make(chan struct{})
	go func() { defer close(done); _ = r.cmd.Wait() }()
	select {
	case <-done:
	case <-time.After(Limit):
		_ = r.cmd.Process.Kill()
		<-done
		r.c.T.Fatalf("osdsctl %s does not end\n%s", strings.Join(r.args, " "), r.Output())
	}
	return r.cmd.ProcessState.ExitCode()
}

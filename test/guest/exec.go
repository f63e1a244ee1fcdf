package guest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/crypto/ssh"
)

// Cmd is a command for a machine.
type Cmd struct {
	Args []string
	// Env are KEY=VALUE.
	Env []string
	// Dir is where it runs; root's home if empty.
	Dir    string
	Stdin  io.Reader
	Stdout io.Writer // and standard error
}

// ExitError says that a command ended with a status other than 0.
type ExitError struct {
	Node, Command string
	Status        int
	Output        string
}

func (e *ExitError) Error() string {
	return fmt.Sprintf("%s: %s: status %d\n%s", e.Node, e.Command, e.Status, e.Output)
}

// Quote makes one word of a shell of s.
func Quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

func (c *Cmd) line() string {
	var b strings.Builder
	if c.Dir != "" {
		b.WriteString("cd " + Quote(c.Dir) + " && ")
	}
	b.WriteString("exec env PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C")
	for _, kv := range c.Env {
		b.WriteString(" " + Quote(kv))
	}
	for _, a := range c.Args {
		b.WriteString(" " + Quote(a))
	}
	return b.String()
}

// Exec runs a command to its end. It gives up at the end of ctx, and leaves the
// command behind then: the machine is thrown away.
func (n *Node) Exec(ctx context.Context, c Cmd) error {
	cl, err := n.dialSSH(ctx)
	if err != nil {
		return fmt.Errorf("%s: %w", n.Name, err)
	}
	last := &lastBytes{limit: 8 << 10, to: c.Stdout}
	// A machine that is paused or has lost its power does not even refuse: what
	// waits for it ends with the connection, when the machine is switched off.
	done := make(chan error, 1)
	go func() { done <- session(ctx, cl, c, last) }()
	select {
	case err = <-done:
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	last.detach() // the caller's writer is the caller's again
	var exit *ssh.ExitError
	if errors.As(err, &exit) {
		return &ExitError{Node: n.Name, Command: strings.Join(c.Args, " "), Status: exit.ExitStatus(), Output: last.String()}
	}
	if err != nil {
		n.forget(cl, err)
		return fmt.Errorf("%s: %s: %w\n%s", n.Name, strings.Join(c.Args, " "), err, last)
	}
	return nil
}

// session runs a command on a connection.
func session(ctx context.Context, cl *ssh.Client, c Cmd, out io.Writer) error {
	s, err := cl.NewSession()
	if err != nil {
		return err
	}
	defer s.Close()
	stop := context.AfterFunc(ctx, func() { _ = s.Close() })
	defer stop()
	s.Stdin, s.Stdout, s.Stderr = c.Stdin, out, out
	return s.Run(c.line())
}

// Run runs a command and gives its output.
func (n *Node) Run(ctx context.Context, args ...string) (string, error) {
	var out bytes.Buffer
	err := n.Exec(ctx, Cmd{Args: args, Stdout: &out})
	return out.String(), err
}

// Shell runs a script of bash, which ends at its first command that fails, and
// gives its output.
func (n *Node) Shell(ctx context.Context, script string) (string, error) {
	return n.Run(ctx, "bash", "-euo", "pipefail", "-c", script)
}

// WriteFile writes a file, and the directories above it.
func (n *Node) WriteFile(ctx context.Context, path string, data []byte) error {
	return n.Exec(ctx, Cmd{
		Args:  []string{"bash", "-euc", `umask 077; mkdir -p "${0%/*}"; cat >"$0.part"; mv "$0.part" "$0"`, path},
		Stdin: bytes.NewReader(data),
	})
}

// Daemon starts a command that goes on by itself, its output in a file, and gives
// its process id.
func (n *Node) Daemon(ctx context.Context, logPath string, c Cmd) (pid int, err error) {
	// setsid does not fork here, and the shell is replaced by the command: all
	// of them have the id that is printed.
	out, err := n.Run(ctx, "bash", "-c", "setsid bash -c "+Quote(c.line())+" >>"+Quote(logPath)+" 2>&1 </dev/null & echo $!")
	if err != nil {
		return 0, err
	}
	if pid, err = strconv.Atoi(strings.TrimSpace(out)); err != nil {
		return 0, fmt.Errorf("%s: %s did not start: %q", n.Name, c.Args[0], out)
	}
	return pid, nil
}

// lastBytes keeps the end of what is written and passes all of it on.
type lastBytes struct {
	mu    sync.Mutex
	limit int
	buf   []byte
	to    io.Writer
}

func (l *lastBytes) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.buf = append(l.buf, p...)
	if len(l.buf) > 2*l.limit {
		l.buf = append(l.buf[:0], l.buf[len(l.buf)-l.limit:]...)
	}
	if l.to != nil {
		return l.to.Write(p)
	}
	return len(p), nil
}

// detach stops passing on.
func (l *lastBytes) detach() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.to = nil
}

func (l *lastBytes) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return tail(string(l.buf), l.limit)
}

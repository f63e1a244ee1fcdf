package run

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
	"testing"
	"time"

	"github.com/osds-io/osds/pkg/model"
)

// The commands under test are this test binary itself in one of these modes.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && strings.HasPrefix(os.Args[1], "mode=") {
		child(strings.TrimPrefix(os.Args[1], "mode="), os.Args[2:])
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func child(mode string, args []string) {
	switch mode {
	case "echo":
		fmt.Println(strings.Join(args, "|"))
	case "fail":
		fmt.Fprintf(os.Stderr, "first line\n\tsecond \x1b[31mline with %s\n", strings.Join(args, " "))
		os.Exit(5)
	case "flood":
		for range 1000 {
			fmt.Println(strings.Repeat("o", 1000))
			fmt.Fprintln(os.Stderr, strings.Repeat("e", 100)+" "+strings.Join(args, " "))
		}
		os.Exit(3)
	case "much":
		fmt.Print(strings.Repeat("x", 5000))
	case "stdin":
		var b bytes.Buffer
		_, _ = b.ReadFrom(os.Stdin)
		fmt.Print(strings.ToUpper(b.String()))
	case "env":
		fmt.Print(strings.Join(os.Environ(), "\n"))
	case "term":
		_ = syscall.Kill(os.Getpid(), syscall.SIGTERM)
		select {}
	case "tree":
		// A grandchild that holds the pipes, in the same group.
		c := exec.Command(os.Args[0], "mode=wait")
		c.Stdout, c.Stderr = os.Stdout, os.Stderr
		if err := c.Start(); err != nil {
			os.Exit(9)
		}
		_ = os.WriteFile(args[0], []byte(strconv.Itoa(c.Process.Pid)), 0o600)
		time.Sleep(time.Minute)
	case "leave":
		// A grandchild that holds the pipes, in a group of its own.
		c := exec.Command(os.Args[0], "mode=wait")
		c.Stdout, c.Stderr = os.Stdout, os.Stderr
		c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
		if err := c.Start(); err != nil {
			os.Exit(9)
		}
		_ = os.WriteFile(args[0], []byte(strconv.Itoa(c.Process.Pid)), 0o600)
	case "wait":
		time.Sleep(time.Minute)
	}
}

func self(t *testing.T, mode string, args ...string) Cmd {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return Cmd{Name: exe, Args: append([]string{"mode=" + mode}, args...)}
}

func ctx(t *testing.T) context.Context {
	c, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	t.Cleanup(cancel)
	return c
}

func asError(t *testing.T, err error, kind model.Kind) *Error {
	t.Helper()
	var e *Error
	if !errors.As(err, &e) || model.KindOf(err) != kind {
		t.Fatalf("kind %s, want %s: %v", model.KindOf(err), kind, err)
	}
	return e
}

func TestArgumentsAreNotInterpreted(t *testing.T) {
	r, err := Exec{}.Run(ctx(t), self(t, "echo", "a b", "$(id)", "; rm -rf x", "*", ""))
	if err != nil || string(r.Stdout) != "a b|$(id)|; rm -rf x|*|\n" || r.ExitCode != 0 {
		t.Errorf("%q, %v", r.Stdout, err)
	}
	_, err = Exec{}.Run(ctx(t), self(t, "echo", "a\x00b"))
	asError(t, err, model.KindInvalid)
}

func TestExitCode(t *testing.T) {
	var logged []string
	x := Exec{Log: func(argv []string, _ time.Duration, err error) {
		logged = append(logged, fmt.Sprint(argv, err))
	}}
	c := self(t, "fail", "s3cret-long", "s3cret")
	c.Secrets = []model.Secret{"s3cret", "s3cret-long", ""}
	r, err := x.Run(ctx(t), c)
	e := asError(t, err, model.KindInternal)
	if e.ExitCode != 5 || r.ExitCode != 5 || e.Stderr != "first line; second  [31mline with *** ***" {
		t.Errorf("%+v", e)
	}
	if e.Argv[2] != "***" || strings.Contains(err.Error()+logged[0], "s3cret") || !strings.Contains(err.Error(), "exit code 5") {
		t.Errorf("argv %q, error %q, log %q", e.Argv, err, logged)
	}
	if !strings.Contains(string(r.Stderr), "s3cret") {
		t.Error("the caller's own result must not be altered")
	}

	c.OK = []int{5}
	if r, err := x.Run(ctx(t), c); err != nil || r.ExitCode != 5 {
		t.Errorf("an expected exit code: %d, %v", r.ExitCode, err)
	}
}

func TestOutputIsBounded(t *testing.T) {
	c := self(t, "flood", "s3cret")
	c.MaxOutput, c.Secrets = 2000, []model.Secret{"s3cret"}
	r, err := Exec{}.Run(ctx(t), c)
	e := asError(t, err, model.KindInternal) // the exit code says more than the length
	if len(r.Stdout) != 2000 || len(r.Stderr) > 2*endSize+100 || len(e.Stderr) > errorSize+100 {
		t.Errorf("stdout %d, stderr %d, error %d", len(r.Stdout), len(r.Stderr), len(e.Stderr))
	}
	if strings.Contains(err.Error(), "s3cret") || !strings.Contains(err.Error(), "[...]") {
		t.Errorf("%q", e.Stderr)
	}

	c = self(t, "much")
	c.MaxOutput = 4999
	r, err = Exec{}.Run(ctx(t), c)
	if e := asError(t, err, model.KindUnknownOutcome); e.ExitCode != 0 || len(r.Stdout) != 4999 {
		t.Errorf("%+v, %d", e, len(r.Stdout))
	}
	c.MaxOutput = 5000
	if _, err := (Exec{}).Run(ctx(t), c); err != nil {
		t.Errorf("exactly the bound: %v", err)
	}
}

func TestNotInstalled(t *testing.T) {
	r, err := Exec{}.Run(ctx(t), Cmd{Name: "/nowhere/lvcreate"})
	asError(t, err, model.KindUnsupported)
	if !strings.Contains(err.Error(), "lvm2") || r.ExitCode != -1 {
		t.Errorf("%d %v", r.ExitCode, err)
	}
	_, err = Exec{}.Run(ctx(t), Cmd{Name: "no-such-program-at-all"})
	asError(t, err, model.KindUnsupported)
	_, err = Exec{}.Run(ctx(t), Cmd{})
	asError(t, err, model.KindUnsupported)

	f := filepath.Join(t.TempDir(), "data")
	if err := os.WriteFile(f, []byte("not a program"), 0o700); err != nil {
		t.Fatal(err)
	}
	_, err = Exec{}.Run(ctx(t), Cmd{Name: f})
	asError(t, err, model.KindInternal)
	t.Chdir(filepath.Dir(f))
	_, err = Exec{}.Run(ctx(t), Cmd{Name: "./data"}) // whatever the current directory holds is not meant
	asError(t, err, model.KindUnsupported)
}

func TestStdinAndEnvironment(t *testing.T) {
	c := self(t, "stdin")
	c.Stdin = []byte("hello")
	if r, err := (Exec{}).Run(ctx(t), c); err != nil || string(r.Stdout) != "HELLO" {
		t.Errorf("%q %v", r.Stdout, err)
	}
	t.Setenv("LC_MESSAGES", "de_DE.UTF-8")
	t.Setenv("OSDS_AUTH_TOKEN", "x")
	t.Setenv("PATH", "/somewhere")
	c = self(t, "env")
	c.Env = []string{"EXTRA=1"}
	r, err := Exec{}.Run(ctx(t), c)
	if err != nil {
		t.Fatal(err)
	}
	env := "\n" + string(r.Stdout) + "\n"
	for _, want := range []string{"\nLC_ALL=C\n", "\nEXTRA=1\n", "\nPATH=/somewhere:/usr/local/sbin:"} {
		if !strings.Contains(env, want) {
			t.Errorf("no %q in the environment", want)
		}
	}
	for _, not := range []string{"de_DE", "OSDS_"} {
		if strings.Contains(env, not) {
			t.Errorf("%q in the environment", not)
		}
	}
}

func TestEndedContext(t *testing.T) {
	c, cancel := context.WithCancel(t.Context())
	cancel()
	r, err := Exec{}.Run(c, self(t, "echo"))
	asError(t, err, model.KindUnknownOutcome)
	if !errors.Is(err, context.Canceled) || r.Stdout != nil {
		t.Errorf("%v", err)
	}
}

// The deadline ends the command and what it started, and Run returns although a
// grandchild had the pipes.
func TestDeadlineKillsTheGroup(t *testing.T) {
	pidFile := filepath.Join(t.TempDir(), "pid")
	c, cancel := context.WithCancel(ctx(t))
	done := make(chan error, 1)
	go func() {
		_, err := Exec{}.Run(c, self(t, "tree", pidFile))
		done <- err
	}()
	pid := readPid(t, pidFile)
	cancel()
	err := <-done
	e := asError(t, err, model.KindUnknownOutcome)
	if !errors.Is(err, context.Canceled) || e.Signal != "killed" || e.ExitCode != -1 {
		t.Errorf("%+v %v", e, err)
	}
	waitGone(t, pid)
}

func TestSignal(t *testing.T) {
	_, err := Exec{}.Run(ctx(t), self(t, "term"))
	if e := asError(t, err, model.KindUnknownOutcome); e.Signal != "terminated" || e.ExitCode != -1 {
		t.Errorf("%+v", e)
	}
}

// A daemon that keeps the pipes must not keep the caller.
func TestDaemonHoldsPipes(t *testing.T) {
	pidFile := filepath.Join(t.TempDir(), "pid")
	_, err := Exec{Grace: 50 * time.Millisecond}.Run(ctx(t), self(t, "leave", pidFile))
	pid := readPid(t, pidFile)
	defer func() { _ = syscall.Kill(pid, syscall.SIGKILL) }()
	asError(t, err, model.KindUnknownOutcome)
	if err := syscall.Kill(pid, 0); err != nil {
		t.Errorf("what left the group must live on: %v", err)
	}
}

func TestFunc(t *testing.T) {
	var r Runner = Func(func(_ context.Context, c Cmd) (Result, error) {
		return Result{Stdout: []byte(c.Name)}, nil
	})
	if got, err := r.Run(ctx(t), Cmd{Name: "lvs"}); err != nil || string(got.Stdout) != "lvs" {
		t.Errorf("%q %v", got.Stdout, err)
	}
}

func readPid(t *testing.T, file string) int {
	t.Helper()
	for range 2000 {
		if b, err := os.ReadFile(file); err == nil && len(b) > 0 {
			pid, err := strconv.Atoi(string(b))
			if err != nil {
				t.Fatal(err)
			}
			return pid
		}
		time.Sleep(5 * time.Millisecond)
	}
	t.Fatal("the child did not start")
	return 0
}

// waitGone waits until a process is dead; it may stay as a zombie where nothing
// reaps orphans.
func waitGone(t *testing.T, pid int) {
	t.Helper()
	for range 2000 {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			return
		}
		if _, rest, ok := strings.Cut(string(b), ") "); ok && strings.HasPrefix(rest, "Z") {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	t.Errorf("process %d lives on", pid)
}

// Package run is the one way in which osds runs commands: a list of arguments
// and never a shell, a deadline that ends the whole process group, bounded
// output, and an error that says what ran, how it ended and what it complained
// about.
//
// Drivers take a Runner and are given an Exec. The interface is one method, so
// that the unit test of a parser can put a Func with recorded output in its
// place; whatever else a driver does is tested with the real command.
package run

import (
	"context"
	"time"

	"github.com/osds-io/osds/pkg/model"
)

// Runner runs commands.
type Runner interface {
	// Run runs a command to its end. The error is nil if it exited with 0 or
	// with one of the command's OK codes; otherwise it is an *Error. The
	// result holds what was captured in either case.
	Run(ctx context.Context, c Cmd) (Result, error)
}

// Func makes a function a Runner, for unit tests of parsers.
type Func func(ctx context.Context, c Cmd) (Result, error)

// Run calls f.
func (f Func) Run(ctx context.Context, c Cmd) (Result, error) { return f(ctx, c) }

// Cmd is one command.
type Cmd struct {
	// Name is the program: an absolute path, or a name that is looked up in
	// PATH and then in the usual system directories.
	Name string
	// Args are its arguments, each passed as it is.
	Args []string
	// Env are additional variables, "NAME=value". The locale is always C.
	Env []string
	// Dir is the working directory; the process's own if empty.
	Dir string
	// Stdin is given to the command. Secrets belong here rather than into the
	// arguments, which every user of the machine can read.
	Stdin []byte
	// Secrets are values that may stand in arguments or output; in errors and
	// logs each is replaced by ***.
	Secrets []model.Secret
	// MaxOutput bounds the captured standard output; DefaultMaxOutput if 0.
	MaxOutput int
	// OK are exit codes, besides 0, that are no error.
	OK []int
}

// DefaultMaxOutput is the bound of a command's standard output. Of standard
// error the first and last few kilobytes are kept.
const DefaultMaxOutput = 4 << 20

// Result is what a command gave.
type Result struct {
	Stdout, Stderr []byte
	// ExitCode is -1 if the command was not started or ended by a signal.
	ExitCode int
	Duration time.Duration
}

// Error says how a command failed. Its kind (model.KindOf) is
//
//   - unsupported: the program is not installed; the message names the package;
//   - unavailable: it could not be started for want of memory or processes;
//   - unknownOutcome: the context ended, or a signal ended it, or it succeeded
//     with more output than could be kept: what it was to do may be done;
//   - internal: anything else, an exit code above all. What the code means is
//     for the caller to say.
type Error struct {
	// Argv is the command with secrets replaced.
	Argv     []string
	ExitCode int
	// Signal is the signal that ended it, if one did.
	Signal string
	// Stderr is what it wrote there, trimmed, with secrets replaced.
	Stderr string

	err *model.Error
}

// Error says it in one line.
func (e *Error) Error() string { return e.err.Error() }

// Unwrap gives the *model.Error with the kind.
func (e *Error) Unwrap() error { return e.err }

// Log is told of every command that was run and how long it took; argv and err
// have no secrets in them.
type Log func(argv []string, took time.Duration, err error)

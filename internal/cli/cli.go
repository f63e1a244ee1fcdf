// Package cli is osdsctl: the commands, their output and their exit codes. It
// speaks to the REST API only, through package client.
package cli

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/osds-io/osds/pkg/client"
	"github.com/osds-io/osds/pkg/model"
)

// Exit codes.
const (
	ExitOK          = 0
	ExitUsage       = 1   // the command line is wrong
	ExitRefused     = 2   // the server refused
	ExitUnreachable = 3   // no server answered
	ExitFailed      = 4   // what was waited for or checked ended badly, or not in time
	ExitInterrupted = 130 // interrupted by a signal
)

// Env is what a run of osdsctl sees of the world.
type Env struct {
	Args   []string // without the program's name
	Stdin  io.Reader
	Stdout io.Writer
	Stderr io.Writer
	Getenv func(string) string
	// Version is printed by --version and sent in the user agent.
	Version string
}

// app is one run.
type app struct {
	env   Env
	flags globals
	c     *client.Client
	// at is the command that runs, for usage errors.
	at *cobra.Command
}

// globals are the flags of every command.
type globals struct {
	server  []string
	tenant  string
	caFile  string
	output  string
	debug   bool
	timeout time.Duration
}

// Run runs one command and gives the exit code. It returns when ctx ends.
func Run(ctx context.Context, env Env) int {
	if env.Getenv == nil {
		env.Getenv = os.Getenv
	}
	if env.Version == "" {
		env.Version = "dev"
	}
	a := &app{env: env}
	root := a.root()
	root.SetArgs(env.Args)
	root.SetIn(env.Stdin)
	root.SetOut(env.Stdout)
	root.SetErr(env.Stderr)
	err := root.ExecuteContext(ctx)
	if a.c != nil {
		a.c.Close()
	}
	return a.report(ctx, err)
}

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:           "osdsctl",
		Short:         "osdsctl is the command line of osds, a software-defined-storage controller",
		Version:       a.env.Version,
		SilenceErrors: true,
		SilenceUsage:  true,
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error {
			a.at = cmd
			return a.checkOutput()
		},
	}
	group(root)
	root.CompletionOptions.DisableDefaultCmd = true
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error { return &usageError{cmd: cmd, msg: err.Error()} })
	f := root.PersistentFlags()
	f.StringSliceVar(&a.flags.server, "server", nil, "the server's URL, or several, comma-separated (default $OSDS_ENDPOINT or $OPENSDS_ENDPOINT, or "+client.DefaultEndpoint+")")
	f.StringVar(&a.flags.tenant, "tenant", "", "the tenant's id (default $OSDS_TENANT_ID or $OPENSDS_TENANT_ID, or the administrator's)")
	f.StringVar(&a.flags.caFile, "ca", "", "file with the certificates that sign https servers' ones (default $OSDS_CACERT, or the system's)")
	f.StringVarP(&a.flags.output, "output", "o", "table", "output: table, wide, json, yaml or name")
	f.BoolVar(&a.flags.debug, "debug", false, "print the HTTP traffic, without secrets, to standard error")
	f.DurationVar(&a.flags.timeout, "timeout", client.DefaultTimeout, "deadline of each call to the server")
	root.AddCommand(
		a.versionCmd(), a.dockCmd(), a.poolCmd(), a.zoneCmd(), a.profileCmd(), a.hostCmd(), a.volumeCmd(),
		a.taskCmd(), a.eventCmd(), a.doctorCmd(), a.debtCmd(), a.certsCmd(), a.completionCmd(),
		absent("fileshare", "file shares are"),
	)
	return root
}

// connect makes the client from flags and environment.
func (a *app) connect() (*client.Client, error) {
	if a.c != nil {
		return a.c, nil
	}
	cfg := client.Config{
		Endpoints: a.flags.server,
		TenantID:  first(a.flags.tenant, a.env.Getenv("OSDS_TENANT_ID"), a.env.Getenv("OPENSDS_TENANT_ID")),
		CAFile:    first(a.flags.caFile, a.env.Getenv("OSDS_CACERT")),
		Token:     model.Secret(first(a.env.Getenv("OSDS_TOKEN"), a.env.Getenv("OS_TOKEN"))),
		Timeout:   a.flags.timeout,
		UserAgent: "osdsctl/" + a.env.Version,
	}
	if len(cfg.Endpoints) == 0 {
		for _, e := range strings.Split(first(a.env.Getenv("OSDS_ENDPOINT"), a.env.Getenv("OPENSDS_ENDPOINT")), ",") {
			if e = strings.TrimSpace(e); e != "" {
				cfg.Endpoints = append(cfg.Endpoints, e)
			}
		}
	}
	switch s := first(a.env.Getenv("OSDS_AUTH_STRATEGY"), a.env.Getenv("OPENSDS_AUTH_STRATEGY")); {
	case s == "" || s == "noauth":
	case s == "keystone" && cfg.Token != "":
	case s == "keystone":
		return nil, a.usage("OPENSDS_AUTH_STRATEGY is keystone, but there is no token: set OSDS_TOKEN to one (openstack token issue)")
	default:
		return nil, a.usage("OPENSDS_AUTH_STRATEGY is %q: use noauth, or keystone with a token in OSDS_TOKEN", s)
	}
	if a.flags.debug {
		cfg.Wrap = client.Trace(a.env.Stderr)
	}
	c, err := client.New(cfg)
	if err != nil {
		return nil, err
	}
	a.c = c
	return c, nil
}

// usageError is a wrong command line.
type usageError struct {
	cmd *cobra.Command
	msg string
}

func (e *usageError) Error() string { return e.msg }

func (a *app) usage(format string, args ...any) error {
	return &usageError{cmd: a.at, msg: fmt.Sprintf(format, args...)}
}

// failed is a command that did its work, and whose result is bad news that has
// been printed already.
type failed struct{ msg string }

func (e *failed) Error() string { return e.msg }

// report prints an error and gives the exit code for it.
func (a *app) report(ctx context.Context, err error) int {
	if err == nil {
		return ExitOK
	}
	var many interface{ Unwrap() []error }
	var unreachable *client.Unreachable
	if errors.As(err, &many) && !errors.As(err, &unreachable) {
		code := ExitOK
		for _, e := range many.Unwrap() {
			if c := a.report(ctx, e); code == ExitOK {
				code = c
			}
		}
		return code
	}
	var usage *usageError
	var refused *client.Error
	var ended *client.FailedError
	var bad *failed
	var own *model.Error
	switch {
	case errors.As(err, &usage):
		a.errorf("%s", usage.msg)
		if usage.cmd != nil {
			_, _ = fmt.Fprintf(a.env.Stderr, "Usage: %s\nSee '%s --help'.\n", usage.cmd.UseLine(), usage.cmd.CommandPath())
		}
		return ExitUsage
	case errors.As(err, &refused):
		a.errorf("%s", refused.Error())
		a.detail("field", refused.Field)
		a.detail("fix", a.fix(refused.Kind))
		if refused.Code >= 500 {
			a.detail("request id", refused.RequestID)
		}
		return ExitRefused
	case errors.Is(ctx.Err(), context.Canceled):
		a.errorf("interrupted")
		return ExitInterrupted
	case errors.As(err, &unreachable):
		a.errorf("%s", unreachable.Error())
		fix := a.fix(model.KindOf(err))
		if model.KindOf(err) == model.KindUnavailable && a.c != nil {
			fix = "is the server running at " + a.c.Endpoint() + "? Set OSDS_ENDPOINT or --server to where it is"
		}
		var untrusted *tls.CertificateVerificationError
		if errors.As(err, &untrusted) {
			fix = "name the authority of the server's certificate with OSDS_CACERT or --ca, and the server by a name that is in it"
		}
		a.detail("fix", fix)
		return ExitUnreachable
	case errors.As(err, &ended):
		a.errorf("%s", ended.Error())
		return ExitFailed
	case errors.As(err, &bad):
		a.errorf("%s", bad.msg)
		return ExitFailed
	case errors.Is(err, context.DeadlineExceeded):
		a.errorf("%s", err.Error())
		a.detail("fix", "the work goes on: look at it with 'osdsctl task list', or wait longer with --wait-timeout")
		return ExitFailed
	case errors.As(err, &own) && own.Kind == model.KindInvalid:
		a.errorf("%s", own.Error())
		a.detail("field", own.Field)
		return ExitUsage
	case errors.As(err, &own):
		a.errorf("%s", own.Error())
		return ExitRefused
	}
	a.errorf("%s", err.Error())
	return ExitUsage
}

func (a *app) errorf(format string, args ...any) {
	_, _ = fmt.Fprintf(a.env.Stderr, "ERROR: %s\n", clean(fmt.Sprintf(format, args...)))
}

func (a *app) detail(name, value string) {
	if value != "" {
		_, _ = fmt.Fprintf(a.env.Stderr, "  %s: %s\n", name, clean(value))
	}
}

func (a *app) note(format string, args ...any) {
	_, _ = fmt.Fprintf(a.env.Stderr, "%s\n", clean(fmt.Sprintf(format, args...)))
}

// fix says what the user can do about a kind of error.
func (a *app) fix(k model.Kind) string {
	switch k {
	case model.KindExhausted:
		return "see the pools with 'osdsctl pool explain', and what fits with 'osdsctl volume plan'"
	case model.KindStale:
		return "the record has changed since it was read: look at it and repeat"
	case model.KindUnauthenticated:
		return "set OSDS_TOKEN to a valid token"
	case model.KindDenied:
		return "this needs other rights: check --tenant or OSDS_TENANT_ID, or ask an administrator"
	case model.KindUnavailable:
		return "nothing was done: repeat it when the server is well again; its /readyz and its log say more"
	case model.KindUnknownOutcome:
		return "look whether it was done before you repeat it"
	}
	return ""
}

func first(values ...string) string {
	for _, v := range values {
		if v != "" {
			return v
		}
	}
	return ""
}

// group makes a command that only has subcommands say so.
func group(cmd *cobra.Command) *cobra.Command {
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			if !cmd.HasParent() {
				return cmd.Help()
			}
			_ = cmd.Usage()
			return &usageError{msg: fmt.Sprintf("%s needs a subcommand", cmd.CommandPath())}
		}
		msg := fmt.Sprintf("unknown command %q for %q", args[0], cmd.CommandPath())
		cmd.SuggestionsMinimumDistance = 2
		if s := cmd.SuggestionsFor(args[0]); len(s) > 0 {
			msg += fmt.Sprintf(": did you mean %q?", s[0])
		}
		return &usageError{cmd: cmd, msg: msg}
	}
	cmd.Args = cobra.ArbitraryArgs
	return cmd
}

// absent is a command of the original that this version does not have.
func absent(name, what string) *cobra.Command {
	return &cobra.Command{
		Use: name, Hidden: true, DisableFlagParsing: true, Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return &usageError{msg: fmt.Sprintf("unknown command %q for %q: %s not in this version of osds yet", name, cmd.Parent().CommandPath(), what)}
		},
	}
}

// args checks the number of arguments: from low to high, or any number from low
// if high is negative.
func args(low, high int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, a []string) error {
		if len(a) >= low && (high < 0 || len(a) <= high) {
			return nil
		}
		want := fmt.Sprint(low)
		switch {
		case high < 0:
			want = fmt.Sprintf("at least %d", low)
		case high != low:
			want = fmt.Sprintf("%d to %d", low, high)
		}
		return &usageError{cmd: cmd, msg: fmt.Sprintf("%s takes %s argument(s), not %d", cmd.CommandPath(), want, len(a))}
	}
}

// Command osdsctl is the command line of osds.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/osds-io/osds/internal/cli"
	"github.com/osds-io/osds/internal/version"
)

func main() { os.Exit(run()) }

func run() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	return cli.Run(ctx, cli.Env{
		Args: os.Args[1:], Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, Getenv: os.Getenv, Version: version.Version,
	})
}

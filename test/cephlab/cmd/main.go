//go:build linux

// Command cmd has what tests on a real Ceph need, by hand:
//
//	go run ./test/cephlab/cmd install      the Debian packages, where possible
//	go run ./test/cephlab/cmd up POOL...   a cluster, until Ctrl-C
//
// install ends with 0 if everything is there in the end, and else says what is
// missing and why.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/osds-io/osds/test/cephlab"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	err := errors.New("usage: install, or up and names of pools")
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case "install":
			err = install(ctx)
		case "up":
			err = up(ctx, os.Args[2:])
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "ceph:", err)
		os.Exit(1)
	}
}

func install(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Minute)
	defer cancel()
	began, missing := time.Now(), cephlab.Missing()
	if err := cephlab.Install(ctx); err != nil {
		return err
	}
	if len(missing) > 0 {
		fmt.Printf("ceph: installed %v in %.0f s\n", missing, time.Since(began).Seconds())
	}
	return nil
}

func up(ctx context.Context, pools []string) error {
	dir, err := os.MkdirTemp("", "osds-ceph")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	c, err := cephlab.Start(ctx, cephlab.Config{Dir: dir, Pools: pools})
	if err != nil {
		return err
	}
	defer c.Stop()
	fmt.Printf("a cluster runs; its configuration is %s. Ctrl-C ends it.\n", c.Conf)
	<-ctx.Done()
	return nil
}

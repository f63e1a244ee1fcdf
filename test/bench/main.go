//go:build linux

// Command bench measures osds on this machine: the real programs in processes of
// their own, with the store they ship with. It prints its figures and ends with
// one line per bar:
//
//	bar NAME VALUE UNIT >= LIMIT ok|short
//
// The status is 0 whether or not the bars are reached, and 1 if something could
// not be measured. docs/benchmarks.md says what is measured and how to read it.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// bench is one run.
type bench struct {
	r       *report
	dir     string // of this run, removed at its end
	bin     string
	profile string
	parts   map[string]bool

	clients              []int
	count                int    // volumes of the loaded system
	load                 string // api or store
	restarts             int
	rawTiming, volTiming timing
	readTiming           timing
	placeFor             time.Duration
	calm, settle         time.Duration // of memory
	cephPairs, cephBatch int           // of ceph: calls of one client, and of a batch of many

	loss      int // creates that failed or were lost, over all parts
	lossKnown bool
	perVolume float64 // KiB, the worst measured
}

// partNames are the parts, in the order in which they run.
var partNames = []string{"raw", "placement", "volumes", "memory", "lists", "restart", "ceph"}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if len(os.Args) == 3 && os.Args[1] == etcdFlag {
		if err := runEtcd(ctx, os.Args[2], os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	if err := run(ctx, os.Args[1:]); err != nil {
		if !errors.Is(err, flag.ErrHelp) {
			fmt.Fprintln(os.Stderr, "bench:", err)
		}
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	b, parent, err := parse(args)
	if err != nil {
		return err
	}
	// Whatever hangs, the run ends.
	ctx, cancel := context.WithTimeout(ctx, 20*time.Minute)
	defer cancel()
	if b.dir, err = os.MkdirTemp(parent, "osds-bench-"); err != nil {
		return err
	}
	defer os.RemoveAll(b.dir)
	b.bin = filepath.Join(b.dir, "bin")
	began := time.Now()
	if err := machine(b.r, b.dir); err != nil {
		return err
	}
	err = b.all(ctx)
	if b.lossKnown {
		b.r.atMost("create_loss", float64(b.loss), "volumes", 0)
	}
	b.r.say("\nmeasured in %.0f s", time.Since(began).Seconds())
	b.r.end()
	return err
}

// all runs the parts that were asked for. One that fails does not keep the
// others from being measured.
func (b *bench) all(ctx context.Context) error {
	var errs []error
	part := func(name string, f func(context.Context) error) {
		if ctx.Err() != nil {
			return
		}
		if err := f(ctx); err != nil {
			b.r.say("  %s could not be measured: %v", name, err)
			errs = append(errs, fmt.Errorf("%s: %w", name, err))
		}
	}
	if b.parts["raw"] {
		part("raw", b.raw)
	}
	if b.parts["placement"] {
		part("placement", b.placement)
	}
	loaded := b.parts["memory"] || b.parts["lists"] || b.parts["restart"]
	if b.parts["volumes"] || loaded {
		began := time.Now()
		if err := build(ctx, b.bin, ""); err != nil {
			return errors.Join(append(errs, err)...)
		}
		b.r.say("\nbuilt osdslet and osdsdock in %.1f s", time.Since(began).Seconds())
	}
	if b.parts["volumes"] {
		part("volumes", b.volumes)
	}
	if loaded {
		part("loaded", b.loaded)
	}
	if b.parts["ceph"] {
		part("ceph", b.ceph)
	}
	if err := ctx.Err(); err != nil {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func parse(args []string) (b *bench, parent string, err error) {
	b = &bench{
		r: newReport(os.Stdout), parts: map[string]bool{}, restarts: 3,
		rawTiming: timing{time.Second, 2 * time.Second, 3}, volTiming: timing{3 * time.Second, 4 * time.Second, 3},
		readTiming: timing{2 * time.Second, 3 * time.Second, 3}, placeFor: 2 * time.Second,
		calm: 10 * time.Second, settle: time.Minute, cephPairs: 100, cephBatch: 320,
	}
	fs := flag.NewFlagSet("bench", flag.ContinueOnError)
	short := fs.Bool("short", false, "shorter windows, and the volumes of the loaded parts written into the store (for CI)")
	only := fs.String("only", "", "measure only these parts, of "+strings.Join(partNames, ","))
	clients := fs.String("clients", "1,32,128", "how many clients, in raw and volumes")
	fs.StringVar(&b.load, "load", "", "how the volumes of the loaded parts are made: api or store (api, store with -short)")
	fs.IntVar(&b.count, "volumes", 100_000, "how many volumes the loaded parts hold")
	fs.StringVar(&b.profile, "profile", "", "directory for CPU and memory profiles of osdslet and osdsdock during volumes")
	fs.StringVar(&parent, "dir", "", "where to work; the disk there is what is measured (the system's temporary directory)")
	if err := fs.Parse(args); err != nil {
		return nil, "", err
	}
	if *short {
		b.rawTiming, b.volTiming = timing{time.Second, time.Second, 3}, timing{2 * time.Second, 2 * time.Second, 3}
		b.readTiming, b.placeFor = timing{time.Second, time.Second, 3}, time.Second
		// osdslet gives memory back when it has had nothing to do for six to
		// eight seconds: not to be measured before.
		b.settle, b.restarts = 30*time.Second, 1
		b.cephPairs, b.cephBatch = 60, 160
	}
	if b.load == "" {
		b.load = map[bool]string{false: "api", true: "store"}[*short]
	}
	if b.load != "api" && b.load != "store" {
		return nil, "", fmt.Errorf("-load %q is neither api nor store", b.load)
	}
	if b.count < 1000 || b.count > 400_000 {
		return nil, "", fmt.Errorf("-volumes %d is not from 1000 to 400000", b.count)
	}
	if err := b.chooseParts(*only); err != nil {
		return nil, "", err
	}
	for _, s := range strings.Split(*clients, ",") {
		n, err := strconv.Atoi(s)
		if err != nil || n < 1 || n > 1024 {
			return nil, "", fmt.Errorf("-clients: %q is not a number from 1 to 1024", s)
		}
		b.clients = append(b.clients, n)
	}
	if b.profile != "" {
		if b.profile, err = filepath.Abs(b.profile); err != nil {
			return nil, "", err
		}
		if err := os.MkdirAll(b.profile, 0o755); err != nil {
			return nil, "", err
		}
	}
	return b, parent, nil
}

func (b *bench) chooseParts(only string) error {
	if only == "" {
		only = strings.Join(partNames, ",")
	}
	for _, name := range strings.Split(only, ",") {
		known := false
		for _, n := range partNames {
			known = known || n == name
		}
		if !known {
			return fmt.Errorf("-only: there is no part %q, there are %s", name, strings.Join(partNames, ", "))
		}
		b.parts[name] = true
	}
	return nil
}

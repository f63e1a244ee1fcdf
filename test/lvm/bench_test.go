//go:build real

package lvm

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/osds-io/osds/test/guest"
)

// TestFigures measures the data path in a guest: creates against bare lvcreate,
// attach over NVMe/TCP on loopback against bare configfs writes and a connect, of
// the device itself and so of an export that does not write through. It prints the
// bars; figures are no verdict, and fail nothing.
func TestFigures(t *testing.T) {
	if testing.Short() {
		t.Skip("skipped: make bench-lvm has the figures")
	}
	s := newSystemWith(t, guest.Config{Nodes: 1, CPUs: 2, Memory: 1536}, settings{logLevel: "info", writeThrough: "never", debt: "8s"})
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	// Whoever comes first would have to load them.
	s.shell(s.store, "modprobe -a nvmet nvmet_tcp nvme_tcp")
	var out bytes.Buffer
	err := s.store.Exec(ctx, guest.Cmd{Args: []string{"/share/bin/probe", "-api", "http://" + apiAddr, "-pool", s.pools["nvmeof"],
		"-host", s.hosts[s.store.Name].ID, "-group", "group", "-thin", "thin"}, Stdout: &out})
	if err != nil {
		t.Fatal(err)
	}
	var f struct {
		BareCreate, OsdsCreate, BareParallel, OsdsParallel float64
		BareAttach, OsdsAttach, BareDetach, OsdsDetach     float64
		Volumes, Clients                                   int
	}
	if err := json.Unmarshal(out.Bytes(), &f); err != nil {
		t.Fatalf("%v: %s", err, out.Bytes())
	}
	for _, v := range []float64{f.BareCreate, f.OsdsCreate, f.BareParallel, f.OsdsParallel, f.BareAttach, f.OsdsAttach} {
		if v <= 0 {
			t.Fatalf("a figure is missing: %s", out.Bytes())
		}
	}
	fmt.Printf("\nthin volumes in an emulated guest with 2 processors, milliseconds; %d of each, medians\n", f.Volumes)
	fmt.Printf("  create, one after another   bare %7.0f   osds %7.0f\n", f.BareCreate, f.OsdsCreate)
	fmt.Printf("  create, %d at once, each     bare %7.0f   osds %7.0f   (%.2f and %.2f volumes/s)\n", f.Clients, f.BareParallel, f.OsdsParallel, 1000/f.BareParallel, 1000/f.OsdsParallel)
	fmt.Printf("  attach over NVMe/TCP        bare %7.0f   osds %7.0f\n", f.BareAttach, f.OsdsAttach)
	fmt.Printf("  detach                      bare %7.0f   osds %7.0f\n", f.BareDetach, f.OsdsDetach)
	bar("lvm_create_overhead", 100*(f.OsdsParallel/f.BareParallel-1), "percent", 10)
	bar("nvme_attach_ratio", f.OsdsAttach/f.BareAttach, "times", 1.5)
	s.clean()
}

// bar prints a figure with its limit, in the form of make bench.
func bar(name string, value float64, unit string, limit float64) {
	word := "ok"
	if value > limit {
		word = "short"
	}
	fmt.Printf("bar %s %.2f %s <= %g %s\n", name, value, unit, limit, word)
}

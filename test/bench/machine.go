//go:build linux

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"
)

// machine prints what the figures were measured on.
func machine(r *report, dir string) error {
	var u syscall.Utsname
	if err := syscall.Uname(&u); err != nil {
		return err
	}
	load, _ := os.ReadFile("/proc/loadavg")
	r.say("osds bench, %s", time.Now().UTC().Format("2006-01-02 15:04:05Z"))
	r.say("machine: %d cores, %s; %.1f GiB memory; Linux %s %s; %s", runtime.NumCPU(), field("/proc/cpuinfo", "model name"),
		memTotal(), utsText(u.Release[:]), utsText(u.Machine[:]), runtime.Version())
	r.say("load before: %s", strings.Join(strings.Fields(string(load))[:min(3, len(strings.Fields(string(load))))], " "))
	p50, p99, n, err := fsyncs(dir, time.Second)
	if err != nil {
		return err
	}
	r.say("disk at %s: append of 4 KiB and fdatasync p50 %s, p99 %s (%d)", dir, ms(p50), ms(p99), n)
	return nil
}

func utsText(b []int8) string {
	var s strings.Builder
	for _, c := range b {
		if c == 0 {
			break
		}
		s.WriteByte(byte(c))
	}
	return s.String()
}

func field(file, name string) string {
	b, _ := os.ReadFile(file)
	for line := range strings.Lines(string(b)) {
		if k, v, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(k) == name {
			return strings.TrimSpace(v)
		}
	}
	return "unknown"
}

func memTotal() float64 {
	var kib float64
	_, _ = fmt.Sscanf(field("/proc/meminfo", "MemTotal"), "%f kB", &kib)
	return kib / (1 << 20)
}

// fsyncs measures what a durable append costs: the least that a write to the
// store can take.
func fsyncs(dir string, d time.Duration) (p50, p99 time.Duration, n int, err error) {
	name := filepath.Join(dir, "fsync")
	f, err := os.OpenFile(name, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return 0, 0, 0, err
	}
	defer os.Remove(name)
	defer f.Close()
	block := make([]byte, 4096)
	var took []time.Duration
	for end := time.Now().Add(d); time.Now().Before(end); {
		t := time.Now()
		if _, err := f.Write(block); err != nil {
			return 0, 0, 0, err
		}
		if err := syscall.Fdatasync(int(f.Fd())); err != nil {
			return 0, 0, 0, err
		}
		took = append(took, time.Since(t))
	}
	slices.Sort(took)
	return percentile(took, 50), percentile(took, 99), len(took), nil
}

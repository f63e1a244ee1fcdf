package client_test

import (
	"context"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/osds-io/osds/internal/tlsconf"
	"github.com/osds-io/osds/pkg/dock"
	"github.com/osds-io/osds/pkg/dock/client"
	"github.com/osds-io/osds/pkg/dock/internal/memdriver"
	"github.com/osds-io/osds/pkg/drivers"
	"github.com/osds-io/osds/pkg/model"
)

// startDock serves a dock with an in-memory backend "mem" and gives its address.
func startDock(tb testing.TB, drv *memdriver.Driver, files tlsconf.Files) string {
	tb.Helper()
	cfg := dock.DefaultConfig()
	cfg.Listen, cfg.Osdslets, cfg.StateDir = "127.0.0.1:0", []string{"127.0.0.1:1"}, tb.TempDir()
	cfg.TLS, cfg.InsecureLoopback = files, !files.Set()
	cfg.Backends = []dock.BackendConfig{{Name: "mem", Driver: "mem"}}
	log := logrus.New()
	log.SetOutput(tb.Output())
	log.SetLevel(logrus.ErrorLevel)
	d, err := dock.New(dock.Options{Config: cfg, Drivers: map[string]drivers.Factory{"mem": drv.Factory}, Log: log})
	if err != nil {
		tb.Fatal(err)
	}
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- d.Serve(ctx, lis) }()
	tb.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			tb.Errorf("serve: %v", err)
		}
	})
	return lis.Addr().String()
}

func cpu() time.Duration {
	var ru syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &ru); err != nil {
		return 0
	}
	return time.Duration(ru.Utime.Nano() + ru.Stime.Nano())
}

// BenchmarkCreateVolume measures whole calls, both ends in this process; cpu-us
// is the time of all cores per call, both ends together.
func BenchmarkCreateVolume(b *testing.B) {
	for _, secure := range []bool{false, true} {
		for _, conns := range []int{1, 2, 4} {
			b.Run(fmt.Sprintf("tls=%v/conns=%d", secure, conns), func(b *testing.B) {
				var files tlsconf.Files
				opts := client.Options{Conns: conns}
				if secure {
					files, opts.Creds = certificates(b)
				}
				drv := memdriver.New()
				addr := startDock(b, drv, files)
				dialer := client.New(opts)
				defer dialer.Close()
				c, err := dialer.Dock(addr)
				if err != nil {
					b.Fatal(err)
				}
				waitReady(b, c)
				benchCalls(b, c)
			})
		}
	}
}

func benchCalls(b *testing.B, c *client.Client) {
	const callers = 128
	var seq atomic.Int64
	var wg sync.WaitGroup
	b.ReportAllocs()
	b.ResetTimer()
	began := cpu()
	for range callers {
		wg.Go(func() {
			for {
				n := seq.Add(1)
				if n > int64(b.N) {
					return
				}
				ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
				_, err := c.CreateVolume(ctx, client.Call{Epoch: 1, Seq: n, RequestID: "req-0123456789", TaskID: "task-0123456789", ClusterID: "c"}, "mem",
					drivers.CreateVolume{ID: fmt.Sprintf("0199aaaa-bbbb-7ccc-8ddd-%012x", n), Name: "v", Pool: "mem", Size: model.GiB, TenantID: model.AdminTenant})
				cancel()
				if err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	used := cpu() - began
	b.StopTimer()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "calls/s")
	b.ReportMetric(float64(used.Microseconds())/float64(b.N), "cpu-us/call")
}

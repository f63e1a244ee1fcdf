package client_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/osds-io/osds/internal/tlsconf"
	"github.com/osds-io/osds/pkg/dock/client"
	"github.com/osds-io/osds/pkg/dock/internal/docktest"
	"github.com/osds-io/osds/pkg/dock/internal/memdriver"
	"github.com/osds-io/osds/pkg/drivers"
	"github.com/osds-io/osds/pkg/model"
)

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
				cfg, opts := docktest.Config(b), client.Options{Conns: conns}
				if secure {
					ca := docktest.CA(b)
					cfg.TLS, cfg.InsecureLoopback = docktest.Files(b, ca, tlsconf.RoleDock), false
					opts.Creds = docktest.Identity(b, ca, tlsconf.RoleLet).ClientCredentials(tlsconf.RoleDock)
				}
				benchCalls(b, ready(b, cfg, opts, memdriver.New()))
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

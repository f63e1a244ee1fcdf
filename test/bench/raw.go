//go:build linux

package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"
)

// rawValue is the size of a value: about that of a volume's record.
const rawValue = 600

// rawConns is how many connections the clients share; more of them only cost.
const rawConns = 8

// raw measures the store alone: an etcd member in a process of its own, and one
// guarded put per transaction through the ordinary client. It says what this
// machine could do at most if a volume were one write and nothing else.
func (b *bench) raw(ctx context.Context) error {
	b.r.head("raw: etcd alone, one transaction = one guarded put of %d bytes, gRPC on loopback (%s)", rawValue, b.rawTiming)
	dir := filepath.Join(b.dir, "raw")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	p, addr, err := startEtcd(ctx, dir)
	if err != nil {
		return err
	}
	defer p.stop()
	clis := make([]*clientv3.Client, rawConns)
	for i := range clis {
		c, err := clientv3.New(clientv3.Config{Endpoints: []string{addr}, DialTimeout: 5 * time.Second, Logger: zap.NewNop(), Context: ctx})
		if err != nil {
			return err
		}
		defer c.Close()
		clis[i] = c
	}
	for _, n := range b.clients {
		ops := make([]operation, n)
		for i := range ops {
			ops[i] = rawPuts(clis[i%len(clis)], fmt.Sprintf("raw/%d/%d/", n, i))
		}
		meter := meter{procs: []*proc{p}}
		m, err := drive(ctx, b.rawTiming, ops, meter.edge)
		if err != nil {
			return err
		}
		if m.errors > 0 {
			return fmt.Errorf("raw: %d transactions failed: %w", m.errors, m.first)
		}
		u, err := meter.used()
		if err != nil {
			return err
		}
		b.r.say("  %3d clients  %s   cores: etcd %.2f, clients %.2f, others %.2f", n, m.figures,
			u.cores(u.procs[0]), u.cores(u.self), u.cores(u.others))
		b.r.made[fmt.Sprintf("raw_%d", n)] = m.rate
	}
	return nil
}

// rawPuts gives one client's operations. Keys are spread as those of records
// with random ids are.
func rawPuts(c *clientv3.Client, prefix string) operation {
	value := make([]byte, rawValue)
	for i := range value {
		value[i] = "0123456789abcdef"[rand.IntN(16)]
	}
	return func(ctx context.Context) (int, error) {
		key := fmt.Sprintf("%s%016x", prefix, rand.Uint64())
		ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
		defer cancel()
		r, err := c.Txn(ctx).If(clientv3.Compare(clientv3.ModRevision(key), "=", 0)).Then(clientv3.OpPut(key, string(value))).Commit()
		if err == nil && !r.Succeeded {
			err = errors.New("the guard of a new key did not hold")
		}
		return 0, err
	}
}

// etcdFlag makes this program the etcd of the raw part.
const etcdFlag = "-run-etcd"

// startEtcd starts this program again as an etcd member, and gives the address
// of its client port.
func startEtcd(ctx context.Context, dir string) (*proc, string, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, "", err
	}
	log := filepath.Join(dir, "log")
	p, err := startProc("etcd", log, nil, self, etcdFlag, dir)
	if err != nil {
		return nil, "", err
	}
	for end := time.Now().Add(30 * time.Second); ; sleepUntil(ctx, time.Now().Add(20*time.Millisecond)) {
		if f, err := os.Open(log); err == nil {
			s := bufio.NewScanner(f)
			for s.Scan() {
				if addr, ok := strings.CutPrefix(s.Text(), "serving "); ok {
					f.Close()
					return p, addr, nil
				}
			}
			f.Close()
		}
		err := p.died()
		if err == nil && time.Now().After(end) {
			err = errors.New("etcd did not start within 30 s")
		}
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			p.stop()
			return nil, "", err
		}
	}
}

// runEtcd is the child: a member with etcd's defaults, on ports that the kernel
// chooses, until it is told to end.
func runEtcd(ctx context.Context, dir string, out io.Writer) error {
	cfg := embed.NewConfig()
	cfg.Name, cfg.Dir = "raw", filepath.Join(dir, "member")
	cfg.ZapLoggerBuilder = embed.NewZapLoggerBuilder(zap.NewNop())
	cfg.QuotaBackendBytes = 8 << 30
	peer := url.URL{Scheme: "unix", Path: filepath.Join(dir, "peer.sock")}
	client := url.URL{Scheme: "http", Host: "127.0.0.1:0"}
	cfg.ListenPeerUrls, cfg.AdvertisePeerUrls = []url.URL{peer}, []url.URL{peer}
	cfg.ListenClientUrls, cfg.AdvertiseClientUrls = []url.URL{client}, []url.URL{client}
	cfg.InitialCluster = cfg.InitialClusterFromName(cfg.Name)
	e, err := embed.StartEtcd(cfg)
	if err != nil {
		return err
	}
	defer e.Close()
	select {
	case <-e.Server.ReadyNotify():
	case err := <-e.Err():
		return err
	case <-time.After(20 * time.Second):
		return errors.New("not ready within 20 s")
	}
	fmt.Fprintf(out, "serving %s\n", e.Clients[0].Addr())
	select {
	case <-ctx.Done():
		return nil
	case err := <-e.Err():
		return err
	}
}

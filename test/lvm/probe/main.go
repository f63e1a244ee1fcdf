//go:build linux

// Command probe measures the data path inside a guest: how long lvcreate takes,
// and configfs writes with a connect over NVMe/TCP, each bare and through osds, in
// turns. It prints one JSON object, and is run by the tests above it.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"sync"
	"time"

	"github.com/osds-io/osds/pkg/client"
	"github.com/osds-io/osds/pkg/model"
	"github.com/osds-io/osds/pkg/model/wire"
)

// Figures are what is measured, times in milliseconds.
type Figures struct {
	// Of one after another: the median.
	BareCreate, OsdsCreate float64
	// Of several at once: the time that all took, for each.
	BareParallel, OsdsParallel float64
	// Attach: from nothing to a device that was opened; the medians.
	BareAttach, OsdsAttach float64
	BareDetach, OsdsDetach float64
	Volumes, Clients       int
}

type probe struct {
	c               *client.Client
	api, pool, host string
	group, thin     string
	n, clients      int
	out             Figures
}

func main() {
	p := &probe{}
	flag.StringVar(&p.api, "api", client.DefaultEndpoint, "osdslet's API")
	flag.StringVar(&p.pool, "pool", "", "the id of the pool")
	flag.StringVar(&p.host, "host", "", "the id of this host")
	flag.StringVar(&p.group, "group", "", "the pool's volume group")
	flag.StringVar(&p.thin, "thin", "", "its thin pool; empty for thick volumes")
	flag.IntVar(&p.n, "n", 12, "how many of each")
	flag.IntVar(&p.clients, "clients", 8, "how many at once")
	flag.Parse()
	ctx, cancel := context.WithTimeout(context.Background(), 15*time.Minute)
	defer cancel()
	if err := p.run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "probe:", err)
		os.Exit(1)
	}
	if err := json.NewEncoder(os.Stdout).Encode(p.out); err != nil {
		os.Exit(1)
	}
}

func (p *probe) run(ctx context.Context) (err error) {
	if p.c, err = client.New(client.Config{Endpoints: []string{p.api}, Timeout: 5 * time.Minute}); err != nil {
		return err
	}
	defer p.c.Close()
	p.out.Volumes, p.out.Clients = p.n, p.clients
	ids, err := p.creates(ctx)
	if err != nil {
		return fmt.Errorf("create: %w", err)
	}
	if err := p.attaches(ctx, ids[0]); err != nil {
		return fmt.Errorf("attach: %w", err)
	}
	if _, err := p.together(len(ids), func(i int) error { return p.remove(ctx, ids[i]) }); err != nil {
		return fmt.Errorf("delete: %w", err)
	}
	return nil
}

// creates measures creates, bare and through osds by turns: whatever slows the
// machine down slows both.
func (p *probe) creates(ctx context.Context) (ids []string, err error) {
	var bare, osds []float64
	for i := range p.n {
		t, err := timed(func() error { return p.lvcreate(ctx, i) })
		if err != nil {
			return ids, err
		}
		bare = append(bare, t)
		var id string
		t, err = timed(func() (err error) { id, err = p.create(ctx); return err })
		if err != nil {
			return ids, err
		}
		ids, osds = append(ids, id), append(osds, t)
	}
	p.out.BareCreate, p.out.OsdsCreate = median(bare), median(osds)
	if err := p.lvremove(ctx, p.n); err != nil {
		return ids, err
	}
	total, err := p.together(p.n, func(i int) error { return p.lvcreate(ctx, i) })
	if err != nil {
		return ids, err
	}
	p.out.BareParallel = total / float64(p.n)
	if err := p.lvremove(ctx, p.n); err != nil {
		return ids, err
	}
	var mu sync.Mutex
	total, err = p.together(p.n, func(int) error {
		id, err := p.create(ctx)
		mu.Lock()
		defer mu.Unlock()
		ids = append(ids, id)
		return err
	})
	p.out.OsdsParallel = total / float64(p.n)
	return ids, err
}

// together calls f n times, some at once, and gives how long it took.
func (p *probe) together(n int, f func(i int) error) (float64, error) {
	next := make(chan int)
	errs := make([]error, p.clients)
	var wg sync.WaitGroup
	began := time.Now()
	for w := range p.clients {
		wg.Go(func() {
			for i := range next {
				if err := f(i); err != nil && errs[w] == nil {
					errs[w] = err
				}
			}
		})
	}
	for i := range n {
		next <- i
	}
	close(next)
	wg.Wait()
	return ms(time.Since(began)), errors.Join(errs...)
}

func (p *probe) create(ctx context.Context) (string, error) {
	v, err := p.c.Volumes.Create(ctx, &wire.VolumeSpec{Name: "probe", Size: 1, PoolID: p.pool, AvailabilityZone: "default"})
	if err != nil {
		return "", err
	}
	_, err = p.c.Wait(ctx, model.ResVolume, v.ID, client.WaitOptions{TaskID: v.TaskID})
	return v.ID, err
}

func (p *probe) remove(ctx context.Context, id string) error {
	if err := p.c.Volumes.Delete(ctx, id); err != nil {
		return err
	}
	_, err := p.c.Wait(ctx, model.ResVolume, id, client.WaitOptions{Gone: true})
	return err
}

// lvcreate is what an administrator would type.
func (p *probe) lvcreate(ctx context.Context, i int) error {
	args := []string{"-qqy", "-n", fmt.Sprintf("bare%d", i)}
	if p.thin != "" {
		args = append(args, "-V", "1g", "--thinpool", p.thin, p.group)
	} else {
		args = append(args, "-L", "1g", p.group)
	}
	return command(ctx, "lvcreate", args...)
}

func (p *probe) lvremove(ctx context.Context, n int) error {
	args := []string{"-qqy"}
	for i := range n {
		args = append(args, fmt.Sprintf("%s/bare%d", p.group, i))
	}
	return command(ctx, "lvremove", args...)
}

func command(ctx context.Context, name string, args ...string) error {
	out, err := exec.CommandContext(ctx, name, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w\n%s", name, err, out)
	}
	return nil
}

func timed(f func() error) (float64, error) {
	began := time.Now()
	err := f()
	return ms(time.Since(began)), err
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

func median(v []float64) float64 {
	slices.Sort(v)
	if len(v) == 0 {
		return 0
	}
	return v[len(v)/2]
}

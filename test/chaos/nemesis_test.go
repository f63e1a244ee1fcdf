//go:build real

package chaos

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/osds-io/osds/test/harness"
)

// nemesis kills and stalls processes at random.
type nemesis struct {
	t     *testing.T
	rng   *rand.Rand
	c     *harness.Cluster
	mu    sync.Mutex
	deeds map[string]int
	last  int64
}

// victim is a process and how to bring it back.
type victim struct{ p *harness.Process }

func (n *nemesis) victims() []victim {
	var v []victim
	for _, l := range n.c.Lets {
		v = append(v, victim{l.Process})
	}
	for _, d := range n.c.Docks {
		v = append(v, victim{d.Process})
	}
	return v
}

// run makes faults for a while, at times two at once. At its end each process
// runs or is being brought back.
func (n *nemesis) run(d time.Duration) {
	end := time.Now().Add(d)
	slots := make(chan struct{}, 2)
	var wg sync.WaitGroup
	busy := map[*harness.Process]bool{}
	var mu sync.Mutex
	for time.Now().Before(end) {
		time.Sleep(time.Duration(300+n.rng.IntN(2500)) * time.Millisecond)
		n.watchEpoch()
		vs := n.victims()
		p := vs[n.rng.IntN(len(vs))].p
		mu.Lock()
		taken := busy[p]
		busy[p] = true
		mu.Unlock()
		if taken {
			continue
		}
		kill, down := n.rng.IntN(3) > 0, time.Duration(n.rng.IntN(4000))*time.Millisecond
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			n.strike(p, kill, down)
			mu.Lock()
			busy[p] = false
			mu.Unlock()
		})
	}
	wg.Wait()
}

func (n *nemesis) strike(p *harness.Process, kill bool, down time.Duration) {
	deed := "kill -9 "
	if kill {
		p.Kill()
		time.Sleep(down)
		if err := p.Start(); err != nil {
			n.t.Errorf("%s does not start again: %v", p.Name, err)
		}
	} else {
		deed = "stall "
		// Longer than the leader's lease at times: it wakes up deposed.
		if err := p.Pause(); err != nil {
			n.t.Errorf("pause %s: %v", p.Name, err)
		}
		time.Sleep(down)
		if err := p.Resume(); err != nil {
			n.t.Errorf("resume %s: %v", p.Name, err)
		}
	}
	n.mu.Lock()
	n.deeds[deed+p.Name]++
	n.mu.Unlock()
}

// heal waits until everything runs.
func (n *nemesis) heal() {
	n.t.Helper()
	for _, v := range n.victims() {
		if !v.p.Alive() {
			n.c.Must(v.p.Start())
		}
	}
	for _, l := range n.c.Lets {
		l.WaitReady()
	}
	for _, d := range n.c.Docks {
		d.WaitReady()
	}
}

// watchEpoch notes the epoch that osdslets show; it must never go back.
func (n *nemesis) watchEpoch() {
	for _, l := range n.c.Lets {
		if !l.Alive() {
			continue
		}
		done := make(chan int64, 1)
		go func() { _, e := l.Leader(); done <- e }()
		select {
		case e := <-done:
			n.last = max(n.last, e)
		case <-time.After(200 * time.Millisecond): // stalled, perhaps
		}
	}
}

// epochs checks that in the end the leader's epoch is no lower than any seen, and
// that there were several leaders.
func (n *nemesis) epochs() {
	n.t.Helper()
	n.c.Until(harness.Limit, "a leader of the latest epoch", func() error {
		for _, l := range n.c.Lets {
			if _, e := l.Leader(); e >= n.last && e > 1 {
				n.t.Logf("the epoch is %d", e)
				return nil
			}
		}
		return fmt.Errorf("no leader of epoch %d or higher", n.last)
	})
}

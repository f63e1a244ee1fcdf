//go:build linux

package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// timing is how a load is measured: after a warm-up that does not count come
// several windows. What is published is the median of the windows' figures, so
// that one hiccup of the machine does not decide.
type timing struct {
	warm, window time.Duration
	windows      int
}

func (t timing) String() string {
	return fmt.Sprintf("%s warm-up, %d windows of %s", t.warm, t.windows, t.window)
}

// operation is one client's next operation; kind tells operations of different
// sorts apart (0 where there is one sort only).
type operation func(ctx context.Context) (kind int, err error)

// startKey is where an operation finds when it began; it may set it to later
// (it waited for its turn) or to earlier (its turn has passed while the one
// before took so long).
type startKey struct{}

// paced makes a client begin an operation rate times a second. One that is late
// because the one before was slow counts from when it should have begun.
func paced(rate int, op operation) operation {
	every := time.Second / time.Duration(rate)
	next := time.Now().Add(rand.N(every))
	return func(ctx context.Context) (int, error) {
		began := time.Now()
		if began.Before(next) {
			sleepUntil(ctx, next)
			began = time.Now()
		} else {
			began = next
		}
		next = next.Add(every)
		if at, ok := ctx.Value(startKey{}).(*time.Time); ok {
			*at = began
		}
		return op(ctx)
	}
}

// done is an operation that ended well: when, and how long it took.
type done struct {
	at, took time.Duration
	kind     int
}

// figures are those of one window, or the medians of several.
type figures struct {
	n        int
	rate     float64 // per second
	p50, p99 time.Duration
}

func (f figures) String() string {
	return fmt.Sprintf("%8.0f/s   p50 %8s   p99 %8s", f.rate, ms(f.p50), ms(f.p99))
}

func ms(d time.Duration) string { return fmt.Sprintf("%.2f ms", float64(d)/1e6) }

// measured is what a load gave.
type measured struct {
	figures // medians of the windows
	windows []figures
	kinds   map[int]figures // over all windows together
	ended   int             // operations in the windows
	errors  int             // operations that failed, at any time
	first   error           // the first failure
}

// maxErrors ends a load that does nothing but fail.
const maxErrors = 1000

// drive runs one goroutine for each operation until the windows are over. edge,
// if not nil, is called at the beginning of the first window and at the end of
// each. Operations that are under way at the end are let end.
func drive(ctx context.Context, t timing, ops []operation, edge func(i int)) (*measured, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var stop atomic.Bool
	var wg sync.WaitGroup
	var mu sync.Mutex
	m := &measured{}
	logs := make([][]done, len(ops))
	start := time.Now()
	for i, op := range ops {
		wg.Add(1)
		go func() {
			defer wg.Done()
			began := time.Time{}
			ctx := context.WithValue(ctx, startKey{}, &began)
			for !stop.Load() && ctx.Err() == nil {
				began = time.Now()
				kind, err := op(ctx)
				at := time.Now()
				if err == nil {
					logs[i] = append(logs[i], done{at.Sub(start), at.Sub(began), kind})
					continue
				}
				mu.Lock()
				if m.first == nil {
					m.first = err
				}
				if m.errors++; m.errors >= maxErrors {
					cancel()
				}
				mu.Unlock()
				time.Sleep(10 * time.Millisecond)
			}
		}()
	}
	edges := []time.Duration{}
	for i := 0; i <= t.windows; i++ {
		sleepUntil(ctx, start.Add(t.warm+time.Duration(i)*t.window))
		edges = append(edges, time.Since(start))
		if edge != nil {
			edge(i)
		}
	}
	stop.Store(true)
	wg.Wait()
	if ctx.Err() != nil {
		if m.first != nil {
			return nil, fmt.Errorf("%d operations failed: %w", m.errors, m.first)
		}
		return nil, ctx.Err()
	}
	m.sum(slices.Concat(logs...), edges)
	return m, nil
}

func sleepUntil(ctx context.Context, at time.Time) {
	t := time.NewTimer(time.Until(at))
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// sum makes the figures of the operations that ended between the edges.
func (m *measured) sum(all []done, edges []time.Duration) {
	slices.SortFunc(all, func(a, b done) int { return int(a.at - b.at) })
	kinds := map[int][]time.Duration{}
	for w := 0; w+1 < len(edges); w++ {
		var took []time.Duration
		for _, d := range all {
			if d.at >= edges[w] && d.at < edges[w+1] {
				took = append(took, d.took)
				kinds[d.kind] = append(kinds[d.kind], d.took)
			}
		}
		m.windows = append(m.windows, figuresOf(took, edges[w+1]-edges[w]))
		m.ended += len(took)
	}
	m.kinds = map[int]figures{}
	for k, took := range kinds {
		m.kinds[k] = figuresOf(took, edges[len(edges)-1]-edges[0])
	}
	m.figures = medians(m.windows)
}

func figuresOf(took []time.Duration, over time.Duration) figures {
	slices.Sort(took)
	return figures{
		n: len(took), rate: float64(len(took)) / over.Seconds(),
		p50: percentile(took, 50), p99: percentile(took, 99),
	}
}

// percentile gives the smallest value that p percent of the sorted values do not
// exceed; 0 of none.
func percentile(sorted []time.Duration, p int) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	i := (len(sorted)*p + 99) / 100
	return sorted[max(i-1, 0)]
}

// medians gives the median of each figure by itself.
func medians(ws []figures) figures {
	f := figures{
		rate: median(ws, func(f figures) float64 { return f.rate }),
		p50:  median(ws, func(f figures) time.Duration { return f.p50 }),
		p99:  median(ws, func(f figures) time.Duration { return f.p99 }),
	}
	for _, w := range ws {
		f.n += w.n
	}
	return f
}

func median[T any, V int | int64 | float64 | time.Duration](xs []T, value func(T) V) V {
	if len(xs) == 0 {
		return 0
	}
	vs := make([]V, len(xs))
	for i, x := range xs {
		vs[i] = value(x)
	}
	slices.Sort(vs)
	n := len(vs)
	if n%2 == 1 {
		return vs[n/2]
	}
	return (vs[n/2-1] + vs[n/2]) / 2
}

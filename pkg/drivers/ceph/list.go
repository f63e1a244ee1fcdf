//go:build ceph

package ceph

import (
	"context"
	"sync"

	"github.com/osds-io/osds/pkg/drivers"
)

// lookers is how many images a list looks at at a time.
const lookers = 8

// each calls fn for the numbers below n, a few at a time, and gives the first
// error.
func each(ctx context.Context, n int, fn func(i int) error) error {
	var wg sync.WaitGroup
	errs := make([]error, n)
	next := make(chan int)
	for range min(lookers, n) {
		wg.Go(func() {
			for i := range next {
				if errs[i] = ctx.Err(); errs[i] == nil {
					errs[i] = fn(i)
				}
			}
		})
	}
	for i := range n {
		next <- i
	}
	close(next)
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// listed lists one sort of entries over all pools, in the order of ids: a page of
// each pool is read and made whole by look, and the least of all are given.
func listed[T any](ctx context.Context, d *Driver, what, prefix string, p drivers.Page, id func(T) string,
	look func(context.Context, *space, []item) ([]T, error)) ([]T, error) {
	n := min(p.Bound(), drivers.MaxPage)
	return do(ctx, d, what, nil, func(ctx context.Context, l *link) ([]T, error) {
		type found struct {
			s *space
			i item
		}
		var all []found
		for _, name := range d.names {
			s := d.space(l, d.pools[name])
			items, err := s.dir.page(prefix, p.After, n)
			if err != nil {
				return nil, fail("pool "+name, err)
			}
			for _, i := range items {
				all = append(all, found{s, i})
			}
		}
		sortBy(all, func(a, b found) bool { return a.i.id < b.i.id })
		all = all[:min(n, len(all))]
		var out []T
		for _, name := range d.names {
			var mine []item
			var s *space
			for _, f := range all {
				if f.s.name == name {
					mine, s = append(mine, f.i), f.s
				}
			}
			if s == nil {
				continue
			}
			got, err := look(ctx, s, mine)
			if err != nil {
				return nil, fail("pool "+name, err)
			}
			out = append(out, got...)
		}
		sortBy(out, func(a, b T) bool { return id(a) < id(b) })
		return out, nil
	})
}

package harness

import (
	"bufio"
	"errors"
	"os"
)

// Points reads a trace of fault points: how often each was reached, and the order
// in which they first were.
func Points(file string) (order []string, hits map[string]int, err error) {
	hits = map[string]int{}
	f, err := os.Open(file)
	if errors.Is(err, os.ErrNotExist) {
		return nil, hits, nil
	}
	if err != nil {
		return nil, nil, err
	}
	defer f.Close()
	sc := bufio.NewScanner(f)
	for sc.Scan() {
		if p := sc.Text(); p != "" {
			if hits[p]++; hits[p] == 1 {
				order = append(order, p)
			}
		}
	}
	return order, hits, sc.Err()
}

//go:build linux

package main

import (
	"fmt"
	"io"
	"strconv"
	"sync"
)

// report prints figures as they come and keeps the bars for the end.
type report struct {
	out  io.Writer
	mu   sync.Mutex
	bars []bar
	made map[string]float64 // figures that other parts need
}

func newReport(out io.Writer) *report { return &report{out: out, made: map[string]float64{}} }

// bar is a figure with its limit.
type bar struct {
	name, unit string
	value      float64
	atLeast    bool
	limit      float64
}

// String is the line of the bar: one format for people and for programs.
func (b bar) String() string {
	op, word := "<=", "short"
	ok := b.value <= b.limit
	if b.atLeast {
		op, ok = ">=", b.value >= b.limit
	}
	if ok {
		word = "ok"
	}
	return fmt.Sprintf("bar %s %s %s %s %s %s", b.name, number(b.value), b.unit, op, strconv.FormatFloat(b.limit, 'f', -1, 64), word)
}

// number writes a figure with as many digits as mean something.
func number(v float64) string {
	digits := 3
	switch {
	case v == float64(int64(v)) && v < 1e6 && v > -1e6:
		digits = 0
	case v >= 1000:
		digits = 0
	case v >= 100:
		digits = 1
	case v >= 10:
		digits = 2
	}
	return strconv.FormatFloat(v, 'f', digits, 64)
}

func (r *report) say(format string, a ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	fmt.Fprintf(r.out, format+"\n", a...)
}

// head begins a section.
func (r *report) head(format string, a ...any) { r.say("\n"+format, a...) }

func (r *report) atLeast(name string, value float64, unit string, limit float64) {
	r.bars = append(r.bars, bar{name, unit, value, true, limit})
}

func (r *report) atMost(name string, value float64, unit string, limit float64) {
	r.bars = append(r.bars, bar{name, unit, value, false, limit})
}

// end prints the bars.
func (r *report) end() {
	r.say("")
	for _, b := range r.bars {
		r.say("%s", b)
	}
}

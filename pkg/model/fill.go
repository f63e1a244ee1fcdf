package model

import (
	"fmt"
	"strings"
)

// Fill is how full a part of a pool is that can run full by itself: a thin pool's
// data space, its metadata space. Used, Warn and Stop are from 0 to 1.
type Fill struct {
	// Of names the part: data, metadata.
	Of   string  `json:"of" yaml:"of"`
	Used float64 `json:"used" yaml:"used"`
	// From Warn on somebody should do something; from Stop on nothing new is
	// placed. 0 is none.
	Warn float64 `json:"warn,omitempty" yaml:"warn"`
	Stop float64 `json:"stop,omitempty" yaml:"stop"`
}

// Watermark is what a fill has reached.
type Watermark string

// The watermarks.
const (
	WatermarkOK   Watermark = "ok"
	WatermarkWarn Watermark = "warn"
	WatermarkStop Watermark = "stop"
)

// Watermark says what the fill has reached.
func (f Fill) Watermark() Watermark {
	switch {
	case f.Stop > 0 && f.Used >= f.Stop:
		return WatermarkStop
	case f.Warn > 0 && f.Used >= f.Warn:
		return WatermarkWarn
	}
	return WatermarkOK
}

// Level is the watermark as a number, for metrics: 0, 1 (warn) or 2 (stop).
func (f Fill) Level() int {
	switch f.Watermark() {
	case WatermarkStop:
		return 2
	case WatermarkWarn:
		return 1
	}
	return 0
}

// String is for people: "data 83.2 % full (warn at 80 %, stop at 95 %)".
func (f Fill) String() string {
	s := fmt.Sprintf("%s %.1f %% full", f.Of, f.Used*100)
	var at []string
	if f.Warn > 0 {
		at = append(at, fmt.Sprintf("warn at %.4g %%", f.Warn*100))
	}
	if f.Stop > 0 {
		at = append(at, fmt.Sprintf("stop at %.4g %%", f.Stop*100))
	}
	if len(at) > 0 {
		s += " (" + strings.Join(at, ", ") + ")"
	}
	return s
}

// Valid says whether the figures make sense, and the name can stand in a metric.
func (f Fill) Valid() bool {
	in := func(x float64) bool { return x >= 0 && x <= 1 }
	return f.Of != "" && len(f.Of) <= 32 && strings.Trim(f.Of, "abcdefghijklmnopqrstuvwxyz0123456789-_") == "" &&
		in(f.Used) && in(f.Warn) && in(f.Stop)
}

// MaxFills bounds the fills of one pool.
const MaxFills = 4

// UsableFills gives the valid ones, at most MaxFills, each part once.
func UsableFills(in []Fill) (out []Fill) {
	seen := map[string]bool{}
	for _, f := range in {
		if len(out) < MaxFills && f.Valid() && !seen[f.Of] {
			seen[f.Of] = true
			out = append(out, f)
		}
	}
	return out
}

// Warnings says which of the fills have reached a watermark; empty if none.
func Warnings(in []Fill) string {
	var said []string
	for _, f := range in {
		if f.Watermark() != WatermarkOK {
			said = append(said, f.String())
		}
	}
	return strings.Join(said, "; ")
}

package model

import (
	"math"
	"testing"
)

func TestFills(t *testing.T) {
	in := []Fill{
		{"data", 0.832, 0.8, 0.95}, {"metadata", 0.2, 0.8, 0.9}, {"data", 0.1, 0, 0}, {"", 0.1, 0, 0},
		{"nan", math.NaN(), 0, 0}, {"big", 1.1, 0, 0}, {"Data", 0.1, 0, 0}, {"cache", 0.95, 0.8, 0.95}, {"x", 0.99, 0, 0}, {"y", 1, 0, 0},
	}
	out := UsableFills(in)
	if len(out) != MaxFills || out[0].Of != "data" || out[1].Of != "metadata" || out[2].Of != "cache" || out[3].Of != "x" {
		t.Fatalf("%+v", out)
	}
	for i, want := range []Watermark{WatermarkWarn, WatermarkOK, WatermarkStop, WatermarkOK} {
		if got := out[i].Watermark(); got != want || out[i].Level() != map[Watermark]int{WatermarkOK: 0, WatermarkWarn: 1, WatermarkStop: 2}[want] {
			t.Errorf("%+v: %s, level %d", out[i], got, out[i].Level())
		}
	}
	if s := Warnings(out); s != "data 83.2 % full (warn at 80 %, stop at 95 %); cache 95.0 % full (warn at 80 %, stop at 95 %)" {
		t.Error(s)
	}
	if s := Warnings(out[1:2]); s != "" {
		t.Error(s)
	}
}

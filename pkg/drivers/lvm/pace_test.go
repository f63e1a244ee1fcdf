package lvm

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/osds-io/osds/pkg/model"
)

// Each call does one step at least, none after its slice, and none that would
// hardly end before its caller is gone.
func TestPace(t *testing.T) {
	at := time.Now().Add(time.Hour) // far before and after real deadlines
	clock := func() time.Time { return at }
	steps := func(ctx context.Context, slice, step time.Duration) (n int, err error) {
		p := &pace{ctx: ctx, now: clock, until: at.Add(slice)}
		for ; n < 1000; n++ {
			if err := p.next(); err != nil {
				return n, err
			}
			at = at.Add(step)
		}
		return n, nil
	}
	if n, err := steps(t.Context(), 10*time.Second, time.Second); n != 11 || err != errSlice {
		t.Error(n, err)
	}
	if n, err := steps(t.Context(), 0, time.Hour); n != 1 || err != errSlice {
		t.Error(n, err)
	}
	ctx, cancel := context.WithDeadline(t.Context(), at.Add(10*time.Second))
	defer cancel()
	if n, err := steps(ctx, time.Hour, 3*time.Second); n != 2 || err != errSlice {
		t.Error(n, err) // after 6 s a third would end at 9 s, or later
	}
	cancel()
	if n, err := steps(ctx, time.Hour, time.Second); n != 0 || !errors.Is(err, context.Canceled) {
		t.Error(n, err)
	}
}

func TestUnfinishedIsProgress(t *testing.T) {
	err := asKind("vg/volume-x", fmt.Errorf("x: %w", &unfinished{"cleared", 1 << 30, 4 << 30, errSlice}))
	p := model.ProgressOf(err)
	if p == nil || p.Percent() != 25 || !model.IsKind(err, model.KindUnknownOutcome) {
		t.Errorf("%v, %+v", err, p)
	}
	// A failure beside it is a failure.
	err = asKind("vg/volume-x", errors.Join(&unfinished{"cleared", 1, 2, errSlice}, errors.New("input/output error")))
	if model.ProgressOf(err) != nil || !model.IsKind(err, model.KindInternal) {
		t.Error(err)
	}
}

// A thin pool shows how full it is, with the marks that the driver acts by.
func TestFills(t *testing.T) {
	p := &pool{conf: poolConfig{DataWarn: 80, DataStop: 95, MetadataWarn: 70, MetadataStop: 90}}
	got := p.fills(&lv{data: 8320, meta: 9001})
	if len(got) != 2 || got[0].Watermark() != model.WatermarkWarn || got[1].Watermark() != model.WatermarkStop ||
		got[0].String() != "data 83.2 % full (warn at 80 %, stop at 95 %)" || !got[0].Valid() || !got[1].Valid() {
		t.Errorf("%+v", got)
	}
	if got := p.fills(&lv{data: noPercent, meta: noPercent}); len(got) != 0 {
		t.Errorf("of what cannot be seen: %+v", got)
	}
}

package lvm

import (
	"context"
	"errors"
	"time"
)

// defaultSlice is how long clearing or copying works in one call: the caller hears
// in between how far it is, and others get a turn. The next call goes on.
const defaultSlice = 10 * time.Second

// errSlice ends long work that the next call goes on with.
var errSlice = errors.New("the rest is for the next call")

// pace says when long work is to end in this call. At least one step is done in
// each call, or nothing would ever come to its end.
type pace struct {
	ctx     context.Context
	now     func() time.Time
	until   time.Time // of the slice
	last    time.Time // when the last step began
	longest time.Duration
}

func (d *Driver) pace(ctx context.Context) *pace {
	p := &pace{ctx: ctx, now: time.Now}
	p.until = p.now().Add(d.slice)
	return p
}

// next is called before each step; an error says that it is not to begin. One is
// not begun either that would hardly end within the call's time: an answer that
// says how far it is is worth more than silence.
func (p *pace) next() error {
	if err := p.ctx.Err(); err != nil {
		return err
	}
	now := p.now()
	first := p.last.IsZero()
	if !first {
		p.longest = max(p.longest, now.Sub(p.last))
	}
	p.last = now
	if first {
		return nil
	}
	if now.After(p.until) {
		return errSlice
	}
	if end, ok := p.ctx.Deadline(); ok && end.Sub(now) < 2*p.longest {
		return errSlice
	}
	return nil
}

package guest

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"time"
)

// Forward has an address of the guest, such as 127.0.0.1:6789, lead to the same
// address of this machine, until the function it gives is called. That waits until
// no connection is left.
func (n *Node) Forward(ctx context.Context, addr string) (stop func(), err error) {
	c, err := n.dialSSH(ctx)
	if err != nil {
		return nil, err
	}
	l, err := c.Listen("tcp", addr)
	if err != nil {
		n.forget(c, err)
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { join(ctx, in, addr) })
		}
	})
	return func() {
		cancel()
		_ = l.Close()
		wg.Wait()
	}, nil
}

// join passes on what two connections say until one of them ends.
func join(ctx context.Context, in net.Conn, addr string) {
	d := net.Dialer{Timeout: 10 * time.Second}
	out, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		_ = in.Close()
		return
	}
	end := sync.OnceFunc(func() { _ = errors.Join(in.Close(), out.Close()) })
	stop := context.AfterFunc(ctx, end)
	defer stop()
	var wg sync.WaitGroup
	wg.Go(func() { defer end(); _, _ = io.Copy(out, in) })
	wg.Go(func() { defer end(); _, _ = io.Copy(in, out) })
	wg.Wait()
}

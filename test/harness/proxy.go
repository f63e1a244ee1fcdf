package harness

import (
	"io"
	"net"
	"sync"
	"testing"
)

// Proxy forwards connections to an address, and can hold back what clients sent
// on those that stand: a network that delivers late.
type Proxy struct {
	// Addr is where it listens.
	Addr string

	to  string
	lis net.Listener
	wg  sync.WaitGroup

	mu    sync.Mutex
	lines map[*line]struct{}
	ended bool
}

// line is one connection.
type line struct {
	client, server net.Conn

	mu     sync.Mutex
	change *sync.Cond
	buf    []byte
	held   bool
	ended  bool
}

// NewProxy starts a proxy; it ends with the test.
func NewProxy(t testing.TB, to string) *Proxy {
	t.Helper()
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &Proxy{Addr: lis.Addr().String(), to: to, lis: lis, lines: map[*line]struct{}{}}
	p.wg.Go(p.accept)
	t.Cleanup(p.close)
	return p
}

func (p *Proxy) accept() {
	for {
		c, err := p.lis.Accept()
		if err != nil {
			return
		}
		p.wg.Go(func() { p.serve(c) })
	}
}

func (p *Proxy) serve(c net.Conn) {
	defer c.Close()
	s, err := net.Dial("tcp", p.to)
	if err != nil {
		return
	}
	defer s.Close()
	l := &line{client: c, server: s}
	l.change = sync.NewCond(&l.mu)
	p.mu.Lock()
	if p.ended {
		p.mu.Unlock()
		return
	}
	p.lines[l] = struct{}{}
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.lines, l)
	}()
	var wg sync.WaitGroup
	wg.Go(l.read)
	wg.Go(func() { _, _ = io.Copy(c, s); l.end() })
	l.write()
	wg.Wait()
}

// read takes what the client sends at once, so that a client that goes away
// takes nothing back.
func (l *line) read() {
	b := make([]byte, 64<<10)
	for {
		n, err := l.client.Read(b)
		l.mu.Lock()
		l.buf = append(l.buf, b[:n]...)
		if err != nil && !l.held {
			l.ended = true
		}
		l.change.Broadcast()
		l.mu.Unlock()
		if err != nil {
			return
		}
	}
}

// write passes it on, unless it is held.
func (l *line) write() {
	for {
		l.mu.Lock()
		for (l.held || len(l.buf) == 0) && !l.ended {
			l.change.Wait()
		}
		b, ended := l.buf, l.ended
		l.buf = nil
		l.mu.Unlock()
		if len(b) > 0 {
			if _, err := l.server.Write(b); err != nil {
				ended = true
			}
		}
		if ended {
			_ = l.server.Close()
			_ = l.client.Close()
			return
		}
	}
}

// end ends the line from the server's side; what is held back is kept for it.
func (l *line) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ended = true
	l.change.Broadcast()
}

// Hold keeps back what is sent on the connections that stand. They seem to work,
// and are slow. A client that goes away does not take back what it sent.
func (p *Proxy) Hold() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for l := range p.lines {
		l.mu.Lock()
		l.held = true
		l.mu.Unlock()
	}
}

// Release delivers what was held back, and gives how many bytes that is.
func (p *Proxy) Release() (bytes int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for l := range p.lines {
		l.mu.Lock()
		if l.held {
			bytes += len(l.buf)
			l.held = false
			l.change.Broadcast()
		}
		l.mu.Unlock()
	}
	return bytes
}

func (p *Proxy) close() {
	_ = p.lis.Close()
	p.mu.Lock()
	p.ended = true
	for l := range p.lines {
		l.end()
		_ = l.client.Close()
		_ = l.server.Close()
	}
	p.mu.Unlock()
	p.wg.Wait()
}

// Package client is how controllers call docks: drivers' types in and out, errors
// of package model, one set of connections per dock.
//
// Of every error that is not an answer of the dock it says whether the call can
// have reached it: unavailable means that it surely did nothing, unknownOutcome
// that somebody has to look.
package client

import (
	"context"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/peer"
	"google.golang.org/protobuf/proto"

	"github.com/osds-io/osds/internal/faults"
	"github.com/osds-io/osds/internal/tlsconf"
	"github.com/osds-io/osds/pkg/dock/dockpb"
	"github.com/osds-io/osds/pkg/model"
)

// Call says who calls and in which order; see dock.proto. Every call that
// changes something needs Epoch and Seq; with them a Get takes its turn among
// the calls on its object.
type Call struct {
	Epoch, Seq                   int64
	RequestID, TaskID, ClusterID string
}

func (c Call) pb() *dockpb.Call {
	return &dockpb.Call{Epoch: c.Epoch, Seq: c.Seq, RequestId: c.RequestID, TaskId: c.TaskID, ClusterId: c.ClusterID}
}

// Options say how docks are dialled.
type Options struct {
	// Creds authenticate both sides; nil is plain text, to loopback only.
	Creds credentials.TransportCredentials
	// Conns is how many connections are kept to each dock; 0 means 1.
	Conns int
	// Timeout is the deadline of calls whose context has none; 0 means a
	// minute.
	Timeout time.Duration
}

// Dialer keeps the connections to all docks.
type Dialer struct {
	opts Options

	mu     sync.Mutex
	docks  map[string]*Client
	closed bool
}

// New makes a dialer without any connection.
func New(o Options) *Dialer {
	if o.Conns <= 0 {
		o.Conns = 1
	}
	if o.Timeout <= 0 {
		o.Timeout = time.Minute
	}
	return &Dialer{opts: o, docks: map[string]*Client{}}
}

// Dock gives the client of the dock at an endpoint, always the same one. It
// does not wait for a connection; calls do.
func (d *Dialer) Dock(endpoint string) (*Client, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return nil, model.Errorf(model.KindUnavailable, "the connections to docks are closed")
	}
	if c := d.docks[endpoint]; c != nil {
		return c, nil
	}
	creds := d.opts.Creds
	if creds == nil {
		if !tlsconf.IsLoopback(endpoint) {
			return nil, model.Errorf(model.KindDenied, "the dock at %s is not on a loopback address: it is called with certificates only", endpoint)
		}
		creds = insecure.NewCredentials()
	}
	c := &Client{timeout: d.opts.Timeout}
	for range d.opts.Conns {
		conn, err := grpc.NewClient("passthrough:///"+endpoint, dialOptions(creds)...)
		if err != nil {
			_ = c.close()
			return nil, model.Errorf(model.KindInvalid, "dock endpoint %q: %w", endpoint, err)
		}
		c.conns = append(c.conns, conn)
	}
	d.docks[endpoint] = c
	return c, nil
}

// Forget closes the connections to an endpoint, of a dock that is gone for good
// or has moved. Calls in progress end with an unknown outcome.
func (d *Dialer) Forget(endpoint string) error {
	d.mu.Lock()
	c := d.docks[endpoint]
	delete(d.docks, endpoint)
	d.mu.Unlock()
	if c == nil {
		return nil
	}
	return c.close()
}

// Close closes all connections.
func (d *Dialer) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.closed = true
	var errs []error
	for ep, c := range d.docks {
		errs = append(errs, c.close())
		delete(d.docks, ep)
	}
	return errors.Join(errs...)
}

func dialOptions(creds credentials.TransportCredentials) []grpc.DialOption {
	return []grpc.DialOption{
		grpc.WithTransportCredentials(creds),
		grpc.WithContextDialer(dial),
		// A dock that hangs while its host lives is noticed by these pings. The
		// timeout also becomes TCP_USER_TIMEOUT, with which a dead host is
		// noticed in that time while anything is being sent, and by dial's
		// probes while nothing is.
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 10 * time.Second, Timeout: 5 * time.Second, PermitWithoutStream: true}),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.3, MaxDelay: 3 * time.Second},
			MinConnectTimeout: 5 * time.Second,
		}),
		// Trying again is the controllers' affair: they look first.
		grpc.WithDisableRetry(),
		grpc.WithDisableServiceConfig(),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage), grpc.MaxCallSendMsgSize(maxMessage), grpc.StaticMethod()),
	}
}

// maxMessage is the largest message either way: a page of a list.
const maxMessage = 16 << 20

func dial(ctx context.Context, addr string) (net.Conn, error) {
	d := net.Dialer{KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 3 * time.Second, Interval: 2 * time.Second, Count: 2}}
	return d.DialContext(ctx, "tcp", addr)
}

// Client calls one dock.
type Client struct {
	conns    []*grpc.ClientConn
	next     atomic.Uint32
	timeout  time.Duration
	profiles profileCache
}

func (c *Client) close() error {
	var errs []error
	for _, conn := range c.conns {
		errs = append(errs, conn.Close())
	}
	return errors.Join(errs...)
}

// method is one of the calls of the Dock service.
type method struct {
	path, before, after string
	// reads changes nothing: that it failed is all there is to say.
	reads bool
}

func newMethod(path, name string, reads bool) *method {
	return &method{path: path, before: "dockcall." + name + ".before", after: "dockcall." + name + ".after", reads: reads}
}

// invoke makes one call.
func (c *Client) invoke(ctx context.Context, m *method, in, out proto.Message) error {
	faults.Point(m.before)
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, c.timeout)
		defer cancel()
	}
	conn := c.conns[0]
	if len(c.conns) > 1 {
		conn = c.conns[int(c.next.Add(1))%len(c.conns)]
	}
	// The peer is known as soon as the call has a stream on a connection; a
	// call that has none was never sent.
	var p peer.Peer
	err := conn.Invoke(ctx, m.path, in, out, grpc.Peer(&p))
	faults.Point(m.after)
	if err != nil {
		return dockpb.FromStatus(err, p.Addr != nil && !m.reads)
	}
	return nil
}

package db

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"

	"github.com/osds-io/osds/pkg/model"
)

// authTimeout bounds one authentication; etcd makes it slow on purpose.
const authTimeout = 5 * time.Second

// tokens authenticates a client of an external etcd by name and password. The
// etcd client can do that itself, but sends the token it has even when it asks
// for a new one, which servers before 3.5 refuse if the token is not valid any
// more; it then asks for ever. So the token is asked for on a connection that has
// none, whenever the server says that ours is not valid: it forgets tokens when
// it starts anew.
type tokens struct {
	cli      *clientv3.Client // without a token
	user     string
	password model.Secret
	current  atomic.Pointer[string]
	// fetching is a lock that can be waited for with a context.
	fetching chan struct{}
}

// newTokens authenticates once, so that a wrong password is known at the start.
// What it uses ends with cfg.Context.
func newTokens(ctx context.Context, cfg clientv3.Config, user string, password model.Secret) (*tokens, error) {
	cli, err := clientv3.New(cfg)
	if err != nil {
		return nil, err
	}
	t := &tokens{cli: cli, user: user, password: password, fetching: make(chan struct{}, 1)}
	none := ""
	t.current.Store(&none)
	if err := t.renew(ctx, &none); err != nil {
		_ = cli.Close()
		return nil, err
	}
	return t, nil
}

func (t *tokens) close() { _ = t.cli.Close() }

// options make a client use the tokens.
func (t *tokens) options() []grpc.DialOption {
	return []grpc.DialOption{
		grpc.WithPerRPCCredentials(t), grpc.WithChainUnaryInterceptor(t.unary), grpc.WithChainStreamInterceptor(t.stream),
	}
}

// GetRequestMetadata gives the token of a call; it is part of
// credentials.PerRPCCredentials.
func (t *tokens) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	if s := *t.current.Load(); s != "" {
		return map[string]string{rpctypes.TokenFieldNameGRPC: s}, nil
	}
	return nil, nil
}

// RequireTransportSecurity is false: whether to use TLS is configured elsewhere.
func (t *tokens) RequireTransportSecurity() bool { return false }

// renew gets a new token in place of old. Of several who need one, one asks.
func (t *tokens) renew(ctx context.Context, old *string) error {
	ctx, cancel := context.WithTimeout(ctx, authTimeout)
	defer cancel()
	select {
	case t.fetching <- struct{}{}:
		defer func() { <-t.fetching }()
	case <-ctx.Done():
		return ctx.Err()
	}
	if t.current.Load() != old {
		return nil
	}
	r, err := t.cli.Authenticate(ctx, t.user, t.password.Reveal())
	token := ""
	switch {
	case err == nil:
		token = r.Token
	case !errors.Is(err, rpctypes.ErrAuthNotEnabled):
		return err
	}
	t.current.Store(&token)
	return nil
}

// unary repeats a call once with a new token if that was what it lacked. The
// server refused it before it did anything.
func (t *tokens) unary(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	token := t.current.Load()
	err := invoke(ctx, method, req, reply, cc, opts...)
	if err == nil || !lacksToken(err) {
		return err
	}
	if rerr := t.renew(ctx, token); rerr != nil {
		return rerr
	}
	return invoke(ctx, method, req, reply, cc, opts...)
}

// stream begins a stream with a new token: that an old one is not valid is said
// within the stream, where nobody could repeat it. Streams are few.
func (t *tokens) stream(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, begin grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	if err := t.renew(ctx, t.current.Load()); err != nil {
		return nil, err
	}
	return begin(ctx, desc, cc, method, opts...)
}

func lacksToken(err error) bool {
	e := rpctypes.Error(err)
	return errors.Is(e, rpctypes.ErrInvalidAuthToken) || errors.Is(e, rpctypes.ErrUserEmpty) || errors.Is(e, rpctypes.ErrAuthOldRevision)
}

package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"github.com/osds-io/osds/pkg/model"
	"github.com/osds-io/osds/pkg/model/wire"
)

// Bounds of an answer: a server gone mad must not fill the client's memory.
const (
	maxAnswer      = 256 << 20
	maxErrorAnswer = 1 << 20
)

// Back-off between repetitions: full jitter below a doubling bound.
const (
	firstPause = 100 * time.Millisecond
	maxPause   = 3 * time.Second
)

// Option changes one call.
type Option func(*request)

// IfMatch makes a change conditional: it is refused (kind stale) if the record
// is no longer the one with this entity tag.
func IfMatch(etag string) Option {
	return func(r *request) {
		if etag != "" {
			r.header.Set("If-Match", etag)
		}
	}
}

// IdempotencyKey sets the key of a call. Repeating a call with the same key and
// body gives the first one's answer, even after a restart of the caller.
func IdempotencyKey(key string) Option {
	return func(r *request) { r.key, r.noKey = key, key == "" }
}

// NoIdempotencyKey sends the call without a key; it is then not repeated.
func NoIdempotencyKey() Option { return IdempotencyKey("") }

// Force makes the end of an attachment a forced one: the host is cut off first,
// whether it answers or not.
func Force() Option { return flag("force") }

// Release makes a volume's deletion leave its data on the backend.
func Release() Option { return flag("release") }

// flag sets a parameter of the query to true.
func flag(name string) Option {
	return func(r *request) {
		if r.query == nil {
			r.query = url.Values{}
		}
		r.query.Set(name, "true")
	}
}

// RequestID sets the id under which the server logs the call.
func RequestID(id string) Option {
	return func(r *request) { r.header.Set(wire.HeaderRequestID, id) }
}

// Header sets any other header.
func Header(name, value string) Option {
	return func(r *request) { r.header.Set(name, value) }
}

// request is one call, which may become several HTTP requests.
type request struct {
	method string
	path   string // below the tenant, already escaped
	root   bool   // path is not below the tenant
	query  url.Values
	header http.Header
	body   any
	key    string
	noKey  bool
	// harmless says that a POST changes nothing, so that it may be repeated.
	harmless bool
	raw      []byte
}

// answer is what came back.
type answer struct {
	status int
	header http.Header
	body   []byte
}

func newRequest(method, path string, query url.Values, body any, opts []Option) *request {
	r := &request{method: method, path: path, query: query, body: body, header: http.Header{}}
	for _, o := range opts {
		o(r)
	}
	return r
}

func (r *request) repeatable() bool {
	return r.method == http.MethodGet || r.harmless || r.key != ""
}

func (r *request) reads() bool { return r.method == http.MethodGet || r.harmless }

// call makes a call and decodes its answer into out, which may be nil.
func (c *Client) call(ctx context.Context, r *request, out any) (*answer, error) {
	ctx, cancel := c.deadline(ctx)
	defer cancel()
	if err := c.prepare(r); err != nil {
		return nil, err
	}
	a, err := c.try(ctx, r)
	if err != nil {
		return nil, err
	}
	if out == nil || len(bytes.TrimSpace(a.body)) == 0 {
		return a, nil
	}
	if err := json.Unmarshal(a.body, out); err != nil {
		return nil, model.Errorf(model.KindInternal, "the answer of %s is not the JSON of this API (is it an osds server?): %w", c.Endpoint(), err)
	}
	return a, nil
}

func (c *Client) prepare(r *request) error {
	if r.body != nil {
		raw, err := encodeBody(r.body)
		if err != nil {
			return model.Errorf(model.KindInvalid, "cannot encode the request: %w", err)
		}
		r.raw = raw
	}
	if r.method == http.MethodPost && r.key == "" && !r.noKey && !r.harmless && !c.cfg.NoIdempotencyKey {
		r.key = uuid.NewString()
	}
	return nil
}

// try sends the request until an answer comes that repeating cannot better.
func (c *Client) try(ctx context.Context, r *request) (*answer, error) {
	pause := firstPause
	// maybe says that an earlier try may have reached a server.
	maybe := false
	for attempt, failed := 0, 0; ; attempt++ {
		ep := c.endpoint()
		a, sent, err := c.once(ctx, ep, r)
		if err == nil {
			return a, nil
		}
		var wait time.Duration
		var refused *Error
		if errors.As(err, &refused) {
			if !r.repeatable() || !transient(refused.Code) || attempt >= c.cfg.Retries {
				return nil, err
			}
			wait = refused.RetryAfter
			c.moveOn(ep)
		} else {
			maybe = maybe || sent
			err = &Unreachable{Endpoint: ep.String(), Sent: maybe, Reads: r.reads(), Err: cause(ctx, err)}
			c.moveOn(ep)
			if ctx.Err() != nil || isTLSTrust(err) {
				return nil, err
			}
			// What was never sent may go to every other endpoint once,
			// whatever the method.
			if failed++; !maybe && failed < len(c.endpoints) {
				continue
			}
			if !r.repeatable() || attempt >= c.cfg.Retries+len(c.endpoints)-1 {
				return nil, err
			}
		}
		if wait <= 0 {
			wait = time.Duration(rand.Int64N(int64(pause))) + pause/4
			pause = min(2*pause, maxPause)
		}
		if !sleep(ctx, wait) {
			return nil, err
		}
	}
}

// transient says whether a status may be another one soon.
func transient(code int) bool {
	switch code {
	case http.StatusTooManyRequests, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return true
	}
	return false
}

// once sends the request to one endpoint. sent says that, where it failed, it
// may have reached the server. An answer of 300 and more is an *Error.
func (c *Client) once(ctx context.Context, ep *url.URL, r *request) (a *answer, sent bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, c.cfg.AttemptTimeout)
	defer cancel()
	resp, sent, err := c.send(ctx, ep, r)
	if err != nil {
		return nil, sent, err
	}
	defer func() { _ = resp.Body.Close() }()
	limit := int64(maxAnswer)
	if resp.StatusCode >= 300 {
		limit = maxErrorAnswer
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, limit+1))
	if err != nil {
		return nil, true, err
	}
	if int64(len(body)) > limit {
		return nil, true, fmt.Errorf("the answer has more than %d bytes", limit)
	}
	if resp.StatusCode >= 300 {
		return nil, true, errorOf(resp, body)
	}
	return &answer{status: resp.StatusCode, header: resp.Header, body: body}, true, nil
}

// send makes one HTTP request and gives the response with its body unread.
func (c *Client) send(ctx context.Context, ep *url.URL, r *request) (*http.Response, bool, error) {
	var sent atomic.Bool
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{WroteHeaders: func() { sent.Store(true) }})
	var body io.Reader
	if r.raw != nil {
		body = bytes.NewReader(r.raw)
	}
	req, err := http.NewRequestWithContext(ctx, r.method, c.url(ep, r), body)
	if err != nil {
		return nil, false, err
	}
	for k, v := range r.header {
		req.Header[k] = v
	}
	req.Header.Set("User-Agent", c.cfg.UserAgent)
	if req.Header.Get("Accept") == "" {
		req.Header.Set("Accept", "application/json")
	}
	if r.raw != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if r.key != "" {
		req.Header.Set(wire.HeaderIdempotencyKey, r.key)
	}
	if c.cfg.Token != "" {
		req.Header.Set(wire.HeaderAuthToken, c.cfg.Token.Reveal())
	}
	if rev := c.revision.Load(); rev > 0 {
		req.Header.Set(wire.HeaderMinRevision, strconv.FormatInt(rev, 10))
	}
	resp, err := c.http.Do(req)
	if err != nil {
		var u *url.Error
		if errors.As(err, &u) {
			err = u.Err // the URL is in our own message
		}
		return nil, sent.Load(), err
	}
	if rev, err := strconv.ParseInt(resp.Header.Get(wire.HeaderRevision), 10, 64); err == nil {
		c.sawRevision(rev)
	}
	return resp, true, nil
}

func (c *Client) url(ep *url.URL, r *request) string {
	var b strings.Builder
	b.WriteString(ep.String())
	if !r.root {
		b.WriteString("/" + wire.APIVersion + "/" + url.PathEscape(c.cfg.TenantID))
	}
	b.WriteString("/" + r.path)
	if len(r.query) > 0 {
		b.WriteString("?" + r.query.Encode())
	}
	return b.String()
}

// cause prefers the reason that a context ended over what the transport made of
// it.
func cause(ctx context.Context, err error) error {
	if errors.Is(err, context.DeadlineExceeded) && ctx.Err() != nil {
		return fmt.Errorf("no answer in time: %w", err)
	}
	return err
}

// sleep waits; false if the context ended, or would before it is over.
func sleep(ctx context.Context, d time.Duration) bool {
	if dl, ok := ctx.Deadline(); ok && time.Until(dl) < d {
		return false
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// encodeBody writes a request's JSON without what the client does not mean: the
// fields that answers always have, where they are empty, and nulls.
func encodeBody(v any) ([]byte, error) {
	raw, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	if _, ok := v.(wire.Spec); !ok {
		return raw, nil
	}
	var m map[string]json.RawMessage
	if err := json.Unmarshal(raw, &m); err != nil {
		return nil, err
	}
	for _, k := range []string{"id", "createdAt", "updatedAt", "AttachStatus"} {
		if string(m[k]) == `""` {
			delete(m, k)
		}
	}
	for k, v := range m {
		if string(v) == "null" {
			delete(m, k)
		}
	}
	for _, k := range []string{"connectionInfo", "provisioningProperties", "replicationProperties", "snapshotProperties", "dataProtectionProperties"} {
		if emptyObject(m[k]) {
			delete(m, k)
		}
	}
	return json.Marshal(m)
}

// emptyObject says whether an object has nothing in it but empty objects.
func emptyObject(raw json.RawMessage) bool {
	var m map[string]json.RawMessage
	if json.Unmarshal(raw, &m) != nil || m == nil {
		return false
	}
	for _, v := range m {
		if !emptyObject(v) {
			return false
		}
	}
	return true
}

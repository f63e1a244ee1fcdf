// Package apicheck holds requests and answers of the REST API against the
// server's own description, the OpenAPI document that it serves. It is for
// tests: wrap the client's transport or the server's handler, and every pair of
// request and answer is validated on its way.
//
// What is checked: the route is in the document; the answer's status, headers
// and body are as the document says; a request that was answered with success is
// one that the document allows; the code in an error's body is the status; each
// event of a stream has the form of an event. What the document does not have
// must have been refused with an error body.
package apicheck

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"
	"github.com/getkin/kin-openapi/routers/gorillamux"
)

// documentPath is where the server describes itself.
const documentPath = "/openapi.json"

// Suite holds the document, which is read once, and what was exercised by all
// tests that share it.
type Suite struct {
	mu     sync.Mutex
	doc    *openapi3.T
	router routers.Router
	seen   map[string]int
}

// NewSuite makes a suite for the tests of a package.
func NewSuite() *Suite { return &Suite{seen: map[string]int{}} }

// Checker reports to one test.
type Checker struct {
	s *Suite
	t testing.TB
	// AnyRequest turns off the check of requests that were answered with
	// success: for tests of what the server puts up with, such as names in
	// other letter case.
	AnyRequest bool
}

// New makes a checker with a suite of its own.
func New(t testing.TB) *Checker { return NewSuite().Checker(t) }

// Checker makes a checker that adds to the suite.
func (s *Suite) Checker(t testing.TB) *Checker { return &Checker{s: s, t: t} }

// Seen counts the successful answers by operation.
func (s *Suite) Seen() map[string]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make(map[string]int, len(s.seen))
	for k, n := range s.seen {
		out[k] = n
	}
	return out
}

// Unseen lists the operations of the document that were never answered with
// success, but for those that are excepted.
func (s *Suite) Unseen(except ...string) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.doc == nil {
		return []string{"(no request was made)"}
	}
	var out []string
	for _, item := range s.doc.Paths.Map() {
		for _, op := range item.Operations() {
			if s.seen[op.OperationID] == 0 && !slices.Contains(except, op.OperationID) {
				out = append(out, op.OperationID)
			}
		}
	}
	slices.Sort(out)
	return out
}

// Transport wraps a client's transport; nil stands for the default one.
func (c *Checker) Transport(next http.RoundTripper) http.RoundTripper {
	if next == nil {
		next = http.DefaultTransport
	}
	return &transport{c: c, next: next}
}

type transport struct {
	c    *Checker
	next http.RoundTripper
}

// RoundTrip sends a request and checks its answer.
func (x *transport) RoundTrip(r *http.Request) (*http.Response, error) {
	x.c.load(func() ([]byte, error) { return x.document(r) })
	var body []byte
	if r.Body != nil {
		var err error
		body, err = io.ReadAll(r.Body)
		if cerr := r.Body.Close(); err == nil {
			err = cerr
		}
		if err != nil {
			return nil, err
		}
		r = r.Clone(r.Context())
		r.Body = io.NopCloser(bytes.NewReader(body))
	}
	resp, err := x.next.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	if isStream(resp.Header) {
		x.c.check(r, body, resp.StatusCode, resp.Header, nil)
		resp.Body = &streamBody{ReadCloser: resp.Body, s: &streamCheck{c: x.c}}
		return resp, nil
	}
	answer, err := io.ReadAll(resp.Body)
	if cerr := resp.Body.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return nil, err
	}
	resp.Body = io.NopCloser(bytes.NewReader(answer))
	x.c.check(r, body, resp.StatusCode, resp.Header, answer)
	return resp, nil
}

var errAway = errors.New("the server does not answer")

// document asks the server for its description.
func (x *transport) document(r *http.Request) ([]byte, error) {
	u := url.URL{Scheme: r.URL.Scheme, Host: r.URL.Host, Path: documentPath}
	q, err := http.NewRequestWithContext(r.Context(), http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, err
	}
	resp, err := x.next.RoundTrip(q)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errAway, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("GET %s: %s", documentPath, resp.Status)
	}
	return io.ReadAll(resp.Body)
}

// Handler wraps a server's handler. Streams are only checked as far as their
// head: use Transport for their events.
func (c *Checker) Handler(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c.load(func() ([]byte, error) {
			rec := httptest.NewRecorder()
			next.ServeHTTP(rec, httptest.NewRequest(http.MethodGet, documentPath, nil))
			if rec.Code != http.StatusOK {
				return nil, fmt.Errorf("GET %s: %d", documentPath, rec.Code)
			}
			return rec.Body.Bytes(), nil
		})
		body, err := io.ReadAll(r.Body)
		if err != nil {
			c.t.Errorf("apicheck: read the request: %v", err)
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		rec := &recorder{ResponseWriter: w}
		next.ServeHTTP(rec, r)
		if isStream(w.Header()) {
			rec.body.Reset()
		}
		c.check(r, body, rec.status, w.Header(), rec.body.Bytes())
	})
}

// recorder keeps a copy of what a handler writes.
type recorder struct {
	http.ResponseWriter
	status int
	body   bytes.Buffer
}

// WriteHeader notes the status.
func (r *recorder) WriteHeader(status int) {
	if r.status == 0 {
		r.status = status
	}
	r.ResponseWriter.WriteHeader(status)
}

// Write keeps a copy.
func (r *recorder) Write(b []byte) (int, error) {
	if r.status == 0 {
		r.status = http.StatusOK
	}
	if !isStream(r.Header()) {
		r.body.Write(b)
	}
	return r.ResponseWriter.Write(b)
}

// Unwrap lets http.ResponseController reach what is below.
func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }

func isStream(h http.Header) bool {
	return strings.HasPrefix(h.Get("Content-Type"), "text/event-stream")
}

// load reads the document if that was not done yet.
func (c *Checker) load(get func() ([]byte, error)) {
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	if c.s.doc != nil {
		return
	}
	err := func() error {
		b, err := get()
		if err != nil {
			return err
		}
		doc, err := openapi3.NewLoader().LoadFromData(b)
		if err != nil {
			return err
		}
		if err := doc.Validate(context.Background()); err != nil {
			return err
		}
		c.s.router, err = gorillamux.NewRouter(doc)
		if err == nil {
			c.s.doc = doc
		}
		return err
	}()
	// A server that is away is asked again with the next request: tests stop
	// servers.
	if err != nil && !errors.Is(err, errAway) {
		c.t.Errorf("apicheck: the server's description cannot be used: %v", err)
	}
}

// check holds one request and its answer against the document. A nil answer is
// not looked at.
func (c *Checker) check(r *http.Request, body []byte, status int, h http.Header, answer []byte) {
	c.t.Helper()
	c.s.mu.Lock()
	doc, router := c.s.doc, c.s.router
	c.s.mu.Unlock()
	if doc == nil {
		return // reported already
	}
	complain := func(format string, args ...any) {
		c.t.Helper()
		c.t.Errorf("apicheck: %s %s -> %d: %s", r.Method, r.URL.Redacted(), status, fmt.Sprintf(format, args...))
	}
	q := asSent(r, body)
	route, vars, err := router.FindRoute(q)
	if err != nil {
		// Not in the document: it must have been refused, in the usual form.
		switch {
		case status < 400 || status >= 500:
			complain("the document has no such operation (%v)", err)
		case r.Method != http.MethodHead:
			if err := doc.Components.Schemas["Error"].Value.VisitJSON(decode(answer)); err != nil {
				complain("error body %s: %v", clip(answer), err)
			}
		}
		return
	}
	in := &openapi3filter.RequestValidationInput{Request: q, PathParams: vars, Route: route, Options: &openapi3filter.Options{
		AuthenticationFunc: openapi3filter.NoopAuthenticationFunc, IncludeResponseStatus: true, SkipSettingDefaults: true,
	}}
	if status < 400 {
		if !c.AnyRequest {
			if err := openapi3filter.ValidateRequest(q.Context(), in); err != nil {
				complain("accepted a request that the document does not allow: %v", short(err))
			}
		}
		c.s.mu.Lock()
		c.s.seen[route.Operation.OperationID]++
		c.s.mu.Unlock()
	}
	if r.Method == http.MethodHead {
		return
	}
	out := &openapi3filter.ResponseValidationInput{RequestValidationInput: in, Status: status, Header: h, Options: &openapi3filter.Options{
		IncludeResponseStatus: true, ExcludeResponseBody: answer == nil,
	}}
	out.SetBodyBytes(answer)
	if err := openapi3filter.ValidateResponse(q.Context(), out); err != nil {
		complain("%v in %s", short(err), clip(answer))
		return
	}
	c.checkMore(route, status, answer, complain)
}

// checkMore checks what a schema cannot say.
func (c *Checker) checkMore(route *routers.Route, status int, answer []byte, complain func(string, ...any)) {
	if status >= 400 {
		var e struct {
			Code int `json:"code"`
		}
		if json.Unmarshal(answer, &e) == nil && e.Code != 0 && e.Code != status {
			complain("the error's code is %d", e.Code)
		}
		return
	}
	if ref := route.Operation.Responses.Status(status); ref != nil && len(ref.Value.Content) == 0 && len(answer) > 0 {
		complain("the document has no body here: %s", clip(answer))
	}
}

// asSent is the request as the document's validator takes it: the server ignores
// the content type and a slash at the end.
func asSent(r *http.Request, body []byte) *http.Request {
	q := r.Clone(context.WithoutCancel(r.Context()))
	q.Body = io.NopCloser(bytes.NewReader(body))
	q.ContentLength = int64(len(body))
	if len(body) > 0 {
		q.Header.Set("Content-Type", "application/json")
	}
	if p := q.URL.Path; len(p) > 1 && strings.HasSuffix(p, "/") {
		q.URL.Path = strings.TrimSuffix(p, "/")
		q.URL.RawPath = strings.TrimSuffix(q.URL.RawPath, "/")
	}
	return q
}

func decode(b []byte) any {
	var v any
	if json.Unmarshal(b, &v) != nil {
		return string(b)
	}
	return v
}

// short leaves the schema out of a validation error.
func short(err error) error {
	var s *openapi3.SchemaError
	if errors.As(err, &s) {
		return fmt.Errorf("at /%s: %s", strings.Join(s.JSONPointer(), "/"), s.Reason)
	}
	return err
}

func clip(b []byte) string {
	const most = 400
	if len(b) > most {
		return string(b[:most]) + "..."
	}
	return string(b)
}

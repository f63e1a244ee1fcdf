package client

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"sort"
	"strings"
	"sync"
	"time"
)

// Trace gives a wrapper for Config.Wrap that writes each request and answer to w,
// without secrets: tokens and cookies in headers, and the values of JSON fields
// that are named like secrets, are shown as ***. A body that is not JSON is not
// shown, since it cannot be searched for secrets.
func Trace(w io.Writer) func(http.RoundTripper) http.RoundTripper {
	return func(next http.RoundTripper) http.RoundTripper { return &tracer{next: next, w: w} }
}

type tracer struct {
	next http.RoundTripper
	mu   sync.Mutex // one request or answer at a time
	w    io.Writer
}

// RoundTrip makes the request and writes both sides.
func (t *tracer) RoundTrip(r *http.Request) (*http.Response, error) {
	var b bytes.Buffer
	fmt.Fprintf(&b, "> %s %s\n", r.Method, r.URL.Redacted())
	traceHeader(&b, "> ", r.Header)
	if r.GetBody != nil {
		if body, err := r.GetBody(); err == nil {
			raw, _ := io.ReadAll(body)
			_ = body.Close()
			traceBody(&b, "> ", raw)
		}
	}
	t.write(&b)
	start := time.Now()
	resp, err := t.next.RoundTrip(r)
	b.Reset()
	if err != nil {
		fmt.Fprintf(&b, "< %v (%s)\n", err, time.Since(start).Round(time.Millisecond))
		t.write(&b)
		return nil, err
	}
	fmt.Fprintf(&b, "< %s %s (%s)\n", resp.Proto, resp.Status, time.Since(start).Round(time.Millisecond))
	traceHeader(&b, "< ", resp.Header)
	if !strings.HasPrefix(resp.Header.Get("Content-Type"), "text/event-stream") {
		raw, rerr := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
		_ = resp.Body.Close()
		resp.Body = io.NopCloser(&replay{Reader: bytes.NewReader(raw), err: rerr})
		traceBody(&b, "< ", raw)
	}
	t.write(&b)
	return resp, nil
}

func (t *tracer) write(b *bytes.Buffer) {
	t.mu.Lock()
	defer t.mu.Unlock()
	_, _ = t.w.Write(b.Bytes())
}

// replay gives what was read, and then the error that reading ended with.
type replay struct {
	*bytes.Reader
	err error
}

func (r *replay) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p)
	if err == io.EOF && r.err != nil {
		err = r.err
	}
	return n, err
}

func traceHeader(b *bytes.Buffer, at string, h http.Header) {
	names := make([]string, 0, len(h))
	for k := range h {
		names = append(names, k)
	}
	sort.Strings(names)
	for _, k := range names {
		v := strings.Join(h[k], ", ")
		if secretName(k) {
			v = "***"
		}
		fmt.Fprintf(b, "%s%s: %s\n", at, k, v)
	}
}

func traceBody(b *bytes.Buffer, at string, raw []byte) {
	if len(raw) == 0 {
		return
	}
	clean, ok := Redact(raw)
	if !ok {
		fmt.Fprintf(b, "%s(%d bytes that are not JSON)\n", at, len(raw))
		return
	}
	fmt.Fprintf(b, "%s%s\n", at, bytes.TrimSpace(clean))
}

// Redact replaces the values of fields that are named like secrets in a JSON
// text; ok is false if it is not JSON.
func Redact(raw []byte) (clean []byte, ok bool) {
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.UseNumber()
	var v any
	if dec.Decode(&v) != nil || dec.More() {
		return nil, false
	}
	if !redact(v) {
		return raw, true
	}
	clean, err := json.Marshal(v)
	return clean, err == nil
}

// redact changes v in place and says whether it did.
func redact(v any) bool {
	changed := false
	switch x := v.(type) {
	case map[string]any:
		for k, e := range x {
			if s, isText := e.(string); secretName(k) && (!isText || s != "") && e != nil {
				x[k], changed = "***", true
			} else if redact(e) {
				changed = true
			}
		}
	case []any:
		for _, e := range x {
			changed = redact(e) || changed
		}
	}
	return changed
}

// secretName says whether a header or field is likely to hold a secret. It
// rather errs on the safe side.
func secretName(s string) bool {
	s = strings.ToLower(s)
	for _, part := range []string{"password", "passwd", "passphrase", "secret", "token", "credential", "cookie", "authorization",
		"privatekey", "private_key", "keyring", "apikey", "api_key"} {
		if strings.Contains(s, part) {
			return true
		}
	}
	return false
}

package client

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/osds-io/osds/pkg/model"
	"github.com/osds-io/osds/pkg/model/wire"
)

// Error is a server's refusal. model.KindOf finds its kind.
type Error struct {
	wire.ErrorSpec
	// Method and Path say what was asked.
	Method, Path string
	// RetryAfter is how long the server asks to wait; 0 if it does not say.
	RetryAfter time.Duration
}

// Error gives the server's message.
func (e *Error) Error() string {
	if e.Message == "" {
		return fmt.Sprintf("the server answered %d %s", e.Code, http.StatusText(e.Code))
	}
	return e.Message
}

// Unwrap gives the error as one of the model's.
func (e *Error) Unwrap() error { return e.ToError() }

// Unreachable says that no answer came. Where the request may have been
// carried out all the same, its kind is unknownOutcome; else it is unavailable.
type Unreachable struct {
	Endpoint string
	// Sent says that the request may have reached the server.
	Sent bool
	// Reads says that it was a read, so that Sent does not matter.
	Reads bool
	Err   error
}

// Error says which server was tried last and why it failed.
func (e *Unreachable) Error() string {
	s := fmt.Sprintf("cannot reach the server at %s: %v", e.Endpoint, e.Err)
	if e.Sent {
		s = fmt.Sprintf("no answer from the server at %s: %v", e.Endpoint, e.Err)
		if !e.Reads {
			s += " (the request may have been carried out: look before you repeat it)"
		}
	}
	return s
}

// Unwrap gives the error as one of the model's, and the cause.
func (e *Unreachable) Unwrap() []error {
	kind := model.KindUnavailable
	if e.Sent && !e.Reads {
		kind = model.KindUnknownOutcome
	}
	return []error{&model.Error{Kind: kind, Message: e.Err.Error()}, e.Err}
}

// IsNotFound says whether the server said that there is no such thing.
func IsNotFound(err error) bool { return model.IsKind(err, model.KindNotFound) }

// IsUnreachable says whether no server answered.
func IsUnreachable(err error) bool {
	var u *Unreachable
	return errors.As(err, &u)
}

// errorOf reads an error answer: the JSON of the API, or whatever a proxy or a
// foreign server says, cut to a line.
func errorOf(r *http.Response, body []byte) *Error {
	e := &Error{Method: r.Request.Method, Path: r.Request.URL.Path, RetryAfter: retryAfter(r.Header)}
	if json.Unmarshal(body, &e.ErrorSpec) != nil || (e.Message == "" && e.Code == 0) {
		e.ErrorSpec = wire.ErrorSpec{Message: plainMessage(r, body)}
	}
	e.Code = r.StatusCode
	if e.Kind == "" {
		e.Kind = wire.KindOfStatus(e.Code)
	}
	if e.RequestID == "" {
		e.RequestID = r.Header.Get(wire.HeaderRequestID)
	}
	return e
}

func plainMessage(r *http.Response, body []byte) string {
	text := strings.TrimSpace(string(body))
	if text == "" || strings.HasPrefix(text, "<") {
		return fmt.Sprintf("%s %s: the server answered %s", r.Request.Method, r.Request.URL.Path, r.Status)
	}
	if line, _, more := strings.Cut(text, "\n"); more {
		text = line
	}
	if len(text) > 300 {
		text = strings.ToValidUTF8(text[:300], "") + "..."
	}
	return text
}

// retryAfter reads the header of that name: seconds or a date.
func retryAfter(h http.Header) time.Duration {
	v := h.Get("Retry-After")
	if v == "" {
		return 0
	}
	if d, err := time.ParseDuration(v + "s"); err == nil && d >= 0 {
		return d
	}
	if t, err := http.ParseTime(v); err == nil {
		return max(0, time.Until(t))
	}
	return 0
}

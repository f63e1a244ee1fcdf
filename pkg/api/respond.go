package api

import (
	"bytes"
	"encoding/json"
	"net/http"
	"strconv"
	"sync"

	"github.com/osds-io/osds/pkg/model"
	"github.com/osds-io/osds/pkg/model/wire"
)

const contentJSON = "application/json; charset=utf-8"

// buffers are reused between answers; what a large list needed is let go.
var buffers = sync.Pool{New: func() any { return new(bytes.Buffer) }}

const maxPooledBuffer = 256 << 10

func getBuffer() *bytes.Buffer { return buffers.Get().(*bytes.Buffer) }

func putBuffer(b *bytes.Buffer) {
	if b.Cap() <= maxPooledBuffer {
		b.Reset()
		buffers.Put(b)
	}
}

// appender is what writes its own JSON.
type appender interface{ appendJSON(b []byte) []byte }

// volumeJSON shows a volume: the JSON of wire.FromVolume, without making one.
type volumeJSON struct{ *model.Volume }

func (v volumeJSON) appendJSON(b []byte) []byte { return wire.AppendVolume(b, v.Volume) }

// encode appends v's JSON to a buffer, without the encoder's line break.
func encode(b *bytes.Buffer, v any) error {
	switch x := v.(type) {
	case appender:
		b.Write(x.appendJSON(b.AvailableBuffer()))
		return nil
	case page:
		return x.encode(b)
	}
	if err := json.NewEncoder(b).Encode(v); err != nil {
		return model.Errorf(model.KindInternal, "encode the answer: %w", err)
	}
	b.Truncate(b.Len() - 1)
	return nil
}

// page is the records of a list, each as it is shown.
type page []any

func (p page) encode(b *bytes.Buffer) error {
	b.WriteByte('[')
	for i, v := range p {
		if i > 0 {
			b.WriteByte(',')
		}
		if err := encode(b, v); err != nil {
			return err
		}
	}
	b.WriteByte(']')
	return nil
}

// JSON answers with a value.
func (c *call) JSON(status int, v any) error {
	b := getBuffer()
	defer putBuffer(b)
	if err := encode(b, v); err != nil {
		return err
	}
	c.send(status, contentJSON, b.Bytes())
	return nil
}

// Empty answers without a body.
func (c *call) Empty(status int) error {
	c.send(status, "", nil)
	return nil
}

// Record answers with one record and its entity tag, or with 304 if the caller
// has it.
func (c *call) Record(status int, rev int64, v any) error {
	tag := wire.ETag(rev)
	c.w.Header()["Etag"] = []string{tag}
	if c.r.Method == http.MethodGet && noneMatch(c.r.Header.Values("If-None-Match"), tag) {
		return c.Empty(http.StatusNotModified)
	}
	return c.JSON(status, v)
}

// head sets the headers of every answer. The keys are canonical, so that nothing
// is computed for them.
func (c *call) head(contentType string) http.Header {
	h := c.w.Header()
	rev := c.rev
	if rev == 0 {
		rev = c.store().Rev()
	}
	h["X-Osds-Revision"] = []string{strconv.FormatInt(rev, 10)}
	if contentType != "" {
		h["Content-Type"] = []string{contentType}
	}
	return h
}

// send writes an answer as a whole.
func (c *call) send(status int, contentType string, body []byte) {
	h := c.head(contentType)
	if status != http.StatusNotModified {
		h["Content-Length"] = []string{strconv.Itoa(len(body))}
	}
	c.status, c.started = status, true
	c.w.WriteHeader(status)
	if len(body) > 0 {
		_, _ = c.w.Write(body) // a client that went away has no use for an error
	}
}

// Stream begins an answer that the handler writes itself.
func (c *call) Stream(status int, contentType string) http.ResponseWriter {
	c.head(contentType)
	c.status, c.started = status, true
	c.w.WriteHeader(status)
	return c.w
}

// fail answers with an error.
func (c *call) fail(err error) {
	spec := wire.FromError(err, c.id)
	c.err = err
	if c.started {
		return // too late; it is in the log
	}
	switch spec.Code {
	case http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		c.w.Header()["Retry-After"] = []string{"1"}
	}
	h := c.w.Header()
	delete(h, "Etag")
	if e := c.JSON(spec.Code, spec); e != nil {
		c.send(http.StatusInternalServerError, contentJSON, []byte(`{"code":500,"message":"internal error"}`))
	}
}

// prefixed puts the original's "create volume failed: " and the like before an
// error's message.
func prefixed(prefix string, err error) error {
	if err == nil {
		return nil
	}
	e := *model.AsError(err)
	e.Message = prefix + e.Error()
	e.Err = err
	return &e
}

// notFound is the original's answer for an id that is not there, or is not the
// caller's.
func notFound(what, id, detail string) error {
	return model.Errorf(model.KindNotFound, "%s %s not found: %s", what, shorten(id), detail)
}

// recorder notes the status of a handler that is not ours.
type recorder struct {
	http.ResponseWriter
	status int
}

// WriteHeader notes the status.
func (r *recorder) WriteHeader(status int) {
	if r.status == 0 {
		r.status = status
	}
	r.ResponseWriter.WriteHeader(status)
}

// Write notes the status that a first write implies.
func (r *recorder) Write(b []byte) (int, error) {
	if r.status == 0 {
		r.status = http.StatusOK
	}
	return r.ResponseWriter.Write(b)
}

// Unwrap lets http.ResponseController reach what is below.
func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }

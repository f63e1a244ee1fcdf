package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"reflect"
	"strings"

	"github.com/osds-io/osds/pkg/model"
)

// readBody reads the whole body, once, within its bound. The content type does
// not matter.
func (c *call) readBody() ([]byte, error) {
	if c.gotBody {
		return c.body, nil
	}
	tooLarge := &model.Error{Kind: model.KindInvalid, Status: http.StatusRequestEntityTooLarge,
		Message: "the request body is too large: at most " + model.Bytes(c.s.MaxBody).String() + " are allowed"}
	if c.r.ContentLength > c.s.MaxBody {
		c.w.Header().Set("Connection", "close") // what follows is not read
		return nil, tooLarge
	}
	var b bytes.Buffer
	if n := c.r.ContentLength; n > 0 {
		b.Grow(int(n) + bytes.MinRead)
	}
	if _, err := b.ReadFrom(http.MaxBytesReader(c.w, c.r.Body, c.s.MaxBody)); err != nil {
		var max *http.MaxBytesError
		if errors.As(err, &max) {
			return nil, tooLarge
		}
		return nil, model.Errorf(model.KindInvalid, "cannot read the request body: %w", err)
	}
	c.body, c.gotBody = b.Bytes(), true
	return c.body, nil
}

// decode reads the body as one JSON object into v. what names it in errors.
func (c *call) decode(what string, v any) error {
	b, err := c.readBody()
	if err != nil {
		return err
	}
	if len(bytes.TrimSpace(b)) == 0 {
		return model.Errorf(model.KindInvalid, "parse %s request body failed: EOF: send a JSON object", what)
	}
	return c.unmarshal(what, b, v)
}

// decodeOptional is decode for a body that may be missing.
func (c *call) decodeOptional(what string, v any) error {
	b, err := c.readBody()
	if err != nil || len(bytes.TrimSpace(b)) == 0 {
		return err
	}
	return c.unmarshal(what, b, v)
}

func (c *call) unmarshal(what string, b []byte, v any) error {
	if t := bytes.TrimLeft(b, " \t\r\n"); t[0] != '{' && json.Valid(b) {
		return model.Errorf(model.KindInvalid, "parse %s request body failed: it must be a JSON object", what)
	}
	if !c.s.Strict {
		return bodyError(what, "", json.Unmarshal(b, v))
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return bodyError(what, "", err)
	}
	if _, err := d.Token(); err != io.EOF {
		return model.Errorf(model.KindInvalid, "parse %s request body failed: there is more after the JSON object", what)
	}
	return nil
}

// bodyError says what is wrong with a body; at is the field that was being read
// if it was read on its own.
func bodyError(what, at string, err error) error {
	if err == nil {
		return nil
	}
	var wrong *json.UnmarshalTypeError
	if errors.As(err, &wrong) {
		f := strings.TrimPrefix(wrong.Field, "Base.")
		switch {
		case at != "" && f != "":
			f = at + "." + f
		case at != "":
			f = at
		}
		return model.Invalid(f, "parse %s request body failed: %s must be %s, not %s", what, f, jsonName(wrong.Type), wrong.Value)
	}
	if f, ok := strings.CutPrefix(err.Error(), "json: unknown field "); ok {
		f = strings.Trim(f, `"`)
		return model.Invalid(f, "parse %s request body failed: there is no field %q: remove it", what, shorten(f))
	}
	return &model.Error{Kind: model.KindInvalid, Field: at, Message: "parse " + what + " request body failed: " + err.Error(), Err: err}
}

// jsonName says in JSON's words what a Go type takes.
func jsonName(t reflect.Type) string {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch t.Kind() {
	case reflect.String:
		return "a string"
	case reflect.Bool:
		return "true or false"
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return "a whole number of at most 64 bits"
	case reflect.Slice, reflect.Array:
		return "a list"
	case reflect.Map, reflect.Struct:
		return "an object"
	case reflect.Float64, reflect.Float32:
		return "a number"
	}
	return "something else"
}

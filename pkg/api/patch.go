package api

import (
	"encoding/json"
	"maps"
	"reflect"
	"slices"
	"strings"

	"github.com/osds-io/osds/pkg/model"
)

// shape knows the names of a resource's fields on the wire.
type shape map[string]string // lower case to the wire's spelling

// shapeOf reads the names from a wire type. It is called once per resource.
func shapeOf(v any) shape {
	s := shape{}
	s.add(reflect.TypeOf(v))
	return s
}

func (s shape) add(t reflect.Type) {
	for f := range t.Fields() {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		switch {
		case f.Anonymous && name == "":
			s.add(f.Type)
		case name != "" && name != "-":
			s[strings.ToLower(name)] = name
		}
	}
}

// patch is the body of a PUT: the fields that the client sent, in the wire's
// spelling. A null stands for a field that was not sent.
type patch struct {
	what   string
	fields map[string]json.RawMessage
}

// ignored fields may have any value in a PUT: whoever sends a record back that
// he read sends them too, and they change by themselves.
var ignored = map[string]bool{"createdAt": true, "updatedAt": true, "AttachStatus": true, "taskId": true, "statusReason": true, "password": true}

// patch reads a PUT's body.
func (c *call) patch(what string, s shape) (*patch, error) {
	var raw map[string]json.RawMessage
	if err := c.decode(what, &raw); err != nil {
		return nil, err
	}
	p := &patch{what: what, fields: make(map[string]json.RawMessage, len(raw))}
	for k, v := range raw {
		name, ok := s[strings.ToLower(k)]
		switch {
		case !ok && c.s.Strict:
			return nil, model.Invalid(k, "parse %s request body failed: there is no field %q: remove it", what, shorten(k))
		case !ok, string(v) == "null":
		case p.fields[name] != nil:
			return nil, model.Invalid(name, "parse %s request body failed: %s is given twice, in different letter case", what, name)
		default:
			p.fields[name] = v
		}
	}
	return p, nil
}

// take decodes a field into v and says whether it was sent. What is not taken
// must be as it is already: see rest.
func (p *patch) take(name string, v any) (bool, error) {
	raw, ok := p.fields[name]
	if !ok {
		return false, nil
	}
	delete(p.fields, name)
	return true, bodyError(p.what, name, json.Unmarshal(raw, v))
}

// text takes a string; nil if it was not sent.
func (p *patch) text(name string) (*string, error) {
	var s string
	ok, err := p.take(name, &s)
	if !ok || err != nil {
		return nil, err
	}
	return &s, nil
}

// rest refuses fields that a client cannot change, unless they are sent with the
// value that they have.
func (p *patch) rest(present any) error {
	var now map[string]any
	for _, name := range slices.Sorted(maps.Keys(p.fields)) {
		raw := p.fields[name]
		if ignored[name] {
			continue
		}
		if now == nil {
			b, err := json.Marshal(present)
			if err == nil {
				err = json.Unmarshal(b, &now)
			}
			if err != nil {
				return model.Errorf(model.KindInternal, "compare with the present record: %w", err)
			}
		}
		var v any
		if err := json.Unmarshal(raw, &v); err != nil {
			return bodyError(p.what, name, err)
		}
		if have, ok := now[name]; !(ok && reflect.DeepEqual(have, v)) && !(!ok && empty(v)) {
			return model.Invalid(name, "%s cannot be changed by this call: remove %s from the request", name, name)
		}
	}
	return nil
}

// empty says whether v is what a wire type leaves out.
func empty(v any) bool {
	switch x := v.(type) {
	case nil:
		return true
	case string:
		return x == ""
	case bool:
		return !x
	case float64:
		return x == 0
	case []any:
		return len(x) == 0
	case map[string]any:
		return len(x) == 0
	}
	return false
}

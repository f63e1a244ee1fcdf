// Package strictyaml reads configuration: YAML into Go values, where a key that
// is not known is an error that names the nearest known one, and every error
// says the line and the key's path. A misspelt key must never be a setting that
// silently does not hold.
//
// Field names come from the tag "yaml", or else "json". Anchors and aliases are
// understood; merge keys ("<<") are not.
package strictyaml

import (
	"encoding"
	"errors"
	"fmt"
	"io"
	"math"
	"reflect"
	"sort"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/osds-io/osds/pkg/model"
)

// Limits of one document: configuration is small, and a document that expands
// without end is refused rather than read.
const (
	maxSize  = 1 << 20
	maxDepth = 64
	maxNodes = 200_000
)

// Decode reads one document into the struct that into points to. What it holds
// already are the defaults: keys that the document leaves out, or gives as null,
// do not change it. name is the file's name, for errors. Errors are of kind
// invalid, with the key's path as the field.
func Decode(name string, data []byte, into any) error {
	v := reflect.ValueOf(into)
	if v.Kind() != reflect.Pointer || v.IsNil() || v.Elem().Kind() != reflect.Struct {
		return model.Errorf(model.KindInternal, "strictyaml: %T is not a pointer to a struct", into)
	}
	if len(data) > maxSize {
		return model.Invalid("", "%s: larger than %d bytes", name, maxSize)
	}
	dec := yaml.NewDecoder(strings.NewReader(string(data)))
	var doc, more yaml.Node
	if err := dec.Decode(&doc); err != nil {
		if errors.Is(err, io.EOF) {
			return nil // nothing but comments: all defaults
		}
		return model.Invalid("", "%s: %s", name, strings.TrimPrefix(err.Error(), "yaml: "))
	}
	if dec.Decode(&more) == nil {
		return model.Invalid("", "%s:%d: a second document; one file has one", name, more.Line)
	}
	d := decoder{name: name}
	return d.value(doc.Content[0], v.Elem(), "", 0)
}

type decoder struct {
	name  string
	nodes int
}

func (d *decoder) errorf(n *yaml.Node, path, format string, args ...any) error {
	where := path
	if where != "" {
		where += ": "
	}
	return model.Invalid(path, "%s:%d: %s%s", d.name, n.Line, where, fmt.Sprintf(format, args...))
}

func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

// value reads n into v.
func (d *decoder) value(n *yaml.Node, v reflect.Value, path string, depth int) error {
	if d.nodes++; d.nodes > maxNodes || depth > maxDepth {
		return d.errorf(n, path, "too deep or too large")
	}
	if n.Kind == yaml.AliasNode {
		return d.value(n.Alias, v, path, depth+1)
	}
	if isNull(n) {
		return nil
	}
	if v.Kind() == reflect.Pointer {
		if v.IsNil() {
			v.Set(reflect.New(v.Type().Elem()))
		}
		return d.value(n, v.Elem(), path, depth)
	}
	if t, ok := v.Addr().Interface().(encoding.TextUnmarshaler); ok {
		if n.Kind != yaml.ScalarNode {
			return d.errorf(n, path, "must be a single value")
		}
		if err := t.UnmarshalText([]byte(n.Value)); err != nil {
			return d.errorf(n, path, "%v", err)
		}
		return nil
	}
	switch v.Kind() {
	case reflect.Struct:
		return d.structure(n, v, path, depth)
	case reflect.Map:
		return d.mapping(n, v, path, depth)
	case reflect.Slice:
		return d.sequence(n, v, path, depth)
	case reflect.Interface:
		x, err := d.free(n, path, depth)
		if err == nil {
			v.Set(reflect.ValueOf(x))
		}
		return err
	}
	return d.scalar(n, v, path)
}

func isNull(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null" }

// pairs gives the keys and values of a mapping, each key once.
func (d *decoder) pairs(n *yaml.Node, path string) ([]*yaml.Node, error) {
	if n.Kind != yaml.MappingNode {
		return nil, d.errorf(n, path, "must be a mapping of keys to values")
	}
	seen := make(map[string]int, len(n.Content)/2)
	for i := 0; i < len(n.Content); i += 2 {
		k := n.Content[i]
		if k.Kind == yaml.AliasNode {
			k = k.Alias
		}
		if k.Kind != yaml.ScalarNode || k.ShortTag() == "!!merge" {
			return nil, d.errorf(n.Content[i], path, "keys must be plain words; merge keys are not understood")
		}
		if at, dup := seen[k.Value]; dup {
			return nil, d.errorf(k, join(path, k.Value), "given twice, first in line %d", at)
		}
		seen[k.Value] = k.Line
	}
	return n.Content, nil
}

func keyOf(n *yaml.Node) string {
	if n.Kind == yaml.AliasNode {
		return n.Alias.Value
	}
	return n.Value
}

func (d *decoder) structure(n *yaml.Node, v reflect.Value, path string, depth int) error {
	content, err := d.pairs(n, path)
	if err != nil {
		return err
	}
	known := fields(v.Type())
	for i := 0; i < len(content); i += 2 {
		key := keyOf(content[i])
		at, ok := known[key]
		if !ok {
			names := make([]string, 0, len(known))
			for k := range known {
				names = append(names, k)
			}
			return d.errorf(content[i], join(path, key), "unknown key; %s", Suggest(key, names))
		}
		if err := d.value(content[i+1], v.Field(at), join(path, key), depth+1); err != nil {
			return err
		}
	}
	return nil
}

// fields maps the names of a struct's settable keys to their places.
func fields(t reflect.Type) map[string]int {
	m := make(map[string]int, t.NumField())
	for i := range t.NumField() {
		f := t.Field(i)
		if !f.IsExported() {
			continue
		}
		tag, ok := f.Tag.Lookup("yaml")
		if !ok {
			tag = f.Tag.Get("json")
		}
		name, _, _ := strings.Cut(tag, ",")
		if name == "" || name == "-" {
			continue
		}
		m[name] = i
	}
	return m
}

func (d *decoder) mapping(n *yaml.Node, v reflect.Value, path string, depth int) error {
	if v.Type().Key().Kind() != reflect.String {
		return d.errorf(n, path, "%s cannot be configured", v.Type())
	}
	content, err := d.pairs(n, path)
	if err != nil {
		return err
	}
	if v.IsNil() {
		v.Set(reflect.MakeMapWithSize(v.Type(), len(content)/2))
	}
	for i := 0; i < len(content); i += 2 {
		key := keyOf(content[i])
		el := reflect.New(v.Type().Elem()).Elem()
		if err := d.value(content[i+1], el, join(path, key), depth+1); err != nil {
			return err
		}
		v.SetMapIndex(reflect.ValueOf(key).Convert(v.Type().Key()), el)
	}
	return nil
}

func (d *decoder) sequence(n *yaml.Node, v reflect.Value, path string, depth int) error {
	if n.Kind != yaml.SequenceNode {
		return d.errorf(n, path, "must be a list")
	}
	s := reflect.MakeSlice(v.Type(), len(n.Content), len(n.Content))
	for i, c := range n.Content {
		if err := d.value(c, s.Index(i), path+"["+strconv.Itoa(i)+"]", depth+1); err != nil {
			return err
		}
	}
	v.Set(s)
	return nil
}

// scalar reads one value of a basic type. Strings take any scalar as it is
// written; the others are strict.
func (d *decoder) scalar(n *yaml.Node, v reflect.Value, path string) error {
	if n.Kind != yaml.ScalarNode {
		return d.errorf(n, path, "must be a single value")
	}
	if v.Type() == reflect.TypeFor[time.Duration]() {
		t, err := time.ParseDuration(n.Value)
		if err != nil {
			return d.errorf(n, path, "%q is not a duration, such as 20ms or 5s", n.Value)
		}
		v.SetInt(int64(t))
		return nil
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString(n.Value)
	case reflect.Bool:
		if n.ShortTag() != "!!bool" {
			return d.errorf(n, path, "%q is not true or false", n.Value)
		}
		var b bool
		if err := n.Decode(&b); err != nil {
			return d.errorf(n, path, "%q is not true or false", n.Value)
		}
		v.SetBool(b)
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		i, err := strconv.ParseInt(n.Value, 10, v.Type().Bits())
		if err != nil {
			return d.errorf(n, path, "%q is not a whole number", n.Value)
		}
		v.SetInt(i)
	case reflect.Float64:
		f, err := strconv.ParseFloat(n.Value, 64)
		if err != nil || math.IsInf(f, 0) || math.IsNaN(f) {
			return d.errorf(n, path, "%q is not a number", n.Value)
		}
		v.SetFloat(f)
	default:
		return d.errorf(n, path, "%s cannot be configured", v.Type())
	}
	return nil
}

// free reads a value of no fixed type as JSON would have it: what is neither a
// bool nor a number is a string, dates too.
func (d *decoder) free(n *yaml.Node, path string, depth int) (any, error) {
	if d.nodes++; d.nodes > maxNodes || depth > maxDepth {
		return nil, d.errorf(n, path, "too deep or too large")
	}
	if isNull(n) {
		return nil, nil
	}
	switch n.Kind {
	case yaml.AliasNode:
		return d.free(n.Alias, path, depth+1)
	case yaml.MappingNode:
		m := map[string]any{}
		return m, d.mapping(n, reflect.ValueOf(&m).Elem(), path, depth)
	case yaml.SequenceNode:
		s := make([]any, 0, len(n.Content))
		for i, c := range n.Content {
			x, err := d.free(c, path+"["+strconv.Itoa(i)+"]", depth+1)
			if err != nil {
				return nil, err
			}
			s = append(s, x)
		}
		return s, nil
	}
	switch n.ShortTag() {
	case "!!bool":
		var b bool
		if err := n.Decode(&b); err != nil {
			return nil, d.errorf(n, path, "%q is not true or false", n.Value)
		}
		return b, nil
	case "!!int", "!!float":
		// Numbers are floats, as after a trip through JSON, so that what a
		// pool shows does not depend on where it was read.
		f, err := strconv.ParseFloat(n.Value, 64)
		if err != nil || math.IsInf(f, 0) || math.IsNaN(f) {
			return nil, d.errorf(n, path, "%q is not a decimal number", n.Value)
		}
		return f, nil
	}
	return n.Value, nil
}

// Suggest says which of the known names was probably meant: the nearest one if
// it is near, or all of them.
func Suggest(got string, known []string) string {
	known = append([]string(nil), known...)
	sort.Strings(known)
	best, at := len(got)/3+2, -1
	for i, k := range known {
		if d := distance(strings.ToLower(got), strings.ToLower(k)); d < best {
			best, at = d, i
		}
	}
	if at >= 0 {
		return fmt.Sprintf("did you mean %q?", known[at])
	}
	if len(known) == 0 {
		return "none is known here"
	}
	return "known are " + strings.Join(known, ", ")
}

// distance is the Levenshtein distance, cut off for very long words.
func distance(a, b string) int {
	if len(a) > 64 || len(b) > 64 {
		return math.MaxInt
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		prev := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := prev
			if a[i] != b[j] {
				cost++
			}
			prev = row[j+1]
			row[j+1] = min(cost, row[j+1]+1, row[j]+1)
		}
	}
	return row[len(b)]
}

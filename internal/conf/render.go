package conf

import (
	"bytes"
	"fmt"
	"reflect"
	"sort"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/osds-io/osds/pkg/model"
)

// Render gives the configuration as YAML, with secrets as ***: what
// --check-config prints. What it gives can be loaded again, secrets apart.
func Render(target any) string {
	v := reflect.Indirect(reflect.ValueOf(target))
	var buf bytes.Buffer
	enc := yaml.NewEncoder(&buf)
	enc.SetIndent(2)
	if err := enc.Encode(render(v)); err != nil {
		return fmt.Sprintf("# cannot be shown: %v\n", err)
	}
	_ = enc.Close()
	return buf.String()
}

func render(v reflect.Value) *node {
	switch {
	case isScalar(v.Type()):
		return renderScalar(v)
	case v.Kind() == reflect.Struct:
		n := &node{Kind: yaml.MappingNode}
		for _, f := range structFields(v.Type()) {
			n.Content = append(n.Content, word(f.name), render(v.FieldByIndex(f.index)))
		}
		return n
	case v.Kind() == reflect.Slice:
		n := &node{Kind: yaml.SequenceNode}
		if v.Len() == 0 {
			n.Style = yaml.FlowStyle
		}
		for i := range v.Len() {
			n.Content = append(n.Content, render(v.Index(i)))
		}
		return n
	case v.Kind() == reflect.Map:
		n := &node{Kind: yaml.MappingNode}
		if v.Len() == 0 {
			n.Style = yaml.FlowStyle
		}
		keys := v.MapKeys()
		sort.Slice(keys, func(i, j int) bool { return keys[i].String() < keys[j].String() })
		for _, k := range keys {
			n.Content = append(n.Content, word(k.String()), render(v.MapIndex(k)))
		}
		return n
	}
	n := &node{}
	if err := n.Encode(v.Interface()); err != nil {
		return word(err.Error())
	}
	return n
}

func word(s string) *node {
	n := &node{}
	n.SetString(s)
	return n
}

func renderScalar(v reflect.Value) *node {
	if v.Kind() == reflect.Pointer {
		if v.IsNil() {
			return &node{Kind: yaml.ScalarNode, Tag: "!!null", Value: "null"}
		}
		v = v.Elem()
	}
	n := &node{}
	if v.Kind() == reflect.String || reflect.PointerTo(v.Type()).Implements(textType) || v.Type() == durationType {
		_ = n.Encode(scalarText(v))
		return n
	}
	_ = n.Encode(v.Interface())
	return n
}

// scalarText is a scalar as it may be written in the file.
func scalarText(v reflect.Value) string {
	if v.Kind() == reflect.Pointer {
		if v.IsNil() {
			return ""
		}
		v = v.Elem()
	}
	switch x := v.Interface().(type) {
	case model.Secret:
		if x.Reveal() == "" {
			return ""
		}
		return x.String()
	case model.Bytes:
		return bytesText(x)
	case time.Duration:
		return durationText(x)
	case fmt.Stringer:
		return x.String()
	}
	return fmt.Sprint(v.Interface())
}

// bytesText writes a size exactly, in the largest unit that divides it.
func bytesText(b model.Bytes) string {
	units := []struct {
		name string
		size model.Bytes
	}{{"TiB", model.TiB}, {"GiB", model.GiB}, {"MiB", model.MiB}, {"KiB", model.KiB}}
	for _, u := range units {
		if b != 0 && b%u.size == 0 {
			return fmt.Sprintf("%d%s", b/u.size, u.name)
		}
	}
	return fmt.Sprint(int64(b))
}

// durationText writes 1m30s, and 5m rather than 5m0s.
func durationText(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// Key is one line of the configuration's reference.
type Key struct {
	// Key is the dotted key; elements of lists are shown as backends[].name.
	Key  string
	Type string
	// Default is the text of the default, empty if there is none.
	Default string
	Doc     string
	// OneOf are the values accepted, if they are few.
	OneOf []string

	flag bool // may be given as a flag
}

// Reference lists the keys of a configuration with their types, defaults and
// documentation, in the order of its fields; target holds the defaults.
func Reference(target any) []Key {
	v := reflect.Indirect(reflect.ValueOf(target))
	var out []Key
	reference(v, "", true, &out)
	return out
}

func reference(v reflect.Value, path string, flag bool, out *[]Key) {
	sfs := structFields(v.Type())
	for _, sf := range sfs {
		key, fv := join(path, sf.name), v.FieldByIndex(sf.index)
		if isStruct(sf.typ) {
			reference(fv, key, flag, out)
			continue
		}
		k := Key{Key: key, Type: typeName(sf.typ), Default: defaultText(fv), Doc: sf.doc, OneOf: sf.oneof}
		k.flag = flag && sf.typ != secretType &&
			(isScalar(sf.typ) || sf.typ.Kind() == reflect.Slice && isScalar(sf.typ.Elem()))
		*out = append(*out, k)
		if takesFile(sf, sfs) {
			*out = append(*out, Key{Key: key + "File", Type: "path", flag: flag,
				Doc: "Path of a file that holds " + key + "; give one of the two."})
		}
		if sf.typ.Kind() == reflect.Slice && isStruct(sf.typ.Elem()) {
			e := reflect.New(sf.typ.Elem())
			if d, ok := e.Interface().(interface{ SetDefaults() }); ok {
				d.SetDefaults()
			}
			reference(e.Elem(), key+"[]", false, out)
		}
	}
}

func defaultText(v reflect.Value) string {
	switch {
	case isScalar(v.Type()):
		return scalarText(v)
	case v.Kind() == reflect.Slice && isScalar(v.Type().Elem()):
		var parts []string
		for i := range v.Len() {
			parts = append(parts, scalarText(v.Index(i)))
		}
		return strings.Join(parts, ",")
	}
	return ""
}

// typeName is a type as the reference calls it.
func typeName(t reflect.Type) string {
	switch t {
	case durationType:
		return "duration"
	case secretType:
		return "secret"
	case bytesType:
		return "size"
	}
	switch t.Kind() {
	case reflect.Pointer:
		return typeName(t.Elem())
	case reflect.Slice:
		return "list of " + typeName(t.Elem())
	case reflect.Map:
		return "map of " + typeName(t.Elem())
	case reflect.Bool:
		return "bool"
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64,
		reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return "integer"
	case reflect.Float32, reflect.Float64:
		return "number"
	case reflect.Struct:
		if !isScalar(t) {
			return "mapping"
		}
	case reflect.Interface:
		return "anything"
	}
	return "string"
}

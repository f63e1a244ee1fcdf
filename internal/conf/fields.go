package conf

import (
	"encoding"
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/osds-io/osds/pkg/model"
)

// structField is one key of a struct.
type structField struct {
	name  string
	index []int
	typ   reflect.Type
	doc   string
	oneof []string
}

// structFields lists the keys of a struct, those of embedded structs as its own.
func structFields(t reflect.Type) []structField {
	var out []structField
	for i := range t.NumField() {
		sf := t.Field(i)
		tag, _, _ := strings.Cut(sf.Tag.Get("yaml"), ",")
		if _, given := sf.Tag.Lookup("yaml"); !given {
			// Records that stand in a configuration keep their wire names.
			tag, _, _ = strings.Cut(sf.Tag.Get("json"), ",")
		}
		if tag == "-" || (!sf.IsExported() && !sf.Anonymous) {
			continue
		}
		if sf.Anonymous && tag == "" && sf.Type.Kind() == reflect.Struct {
			for _, f := range structFields(sf.Type) {
				f.index = append([]int{i}, f.index...)
				out = append(out, f)
			}
			continue
		}
		if !sf.IsExported() {
			continue
		}
		if tag == "" {
			r, n := utf8.DecodeRuneInString(sf.Name)
			tag = string(unicode.ToLower(r)) + sf.Name[n:]
		}
		f := structField{name: tag, index: []int{i}, typ: sf.Type, doc: sf.Tag.Get("doc")}
		if s := sf.Tag.Get("oneof"); s != "" {
			f.oneof = strings.Split(s, ",")
		}
		out = append(out, f)
	}
	return out
}

// field is one leaf of a configuration: a scalar, a list or a map.
type field struct {
	key   string
	val   reflect.Value
	doc   string
	oneof []string
	// secretFile says that key+"File" may name a file with the value.
	secretFile bool
}

// fieldsOf lists the leaves of a struct value, in the order of its fields.
func fieldsOf(v reflect.Value) []field {
	var out []field
	var walk func(v reflect.Value, path string)
	walk = func(v reflect.Value, path string) {
		sfs := structFields(v.Type())
		for _, sf := range sfs {
			key, fv := join(path, sf.name), v.FieldByIndex(sf.index)
			if isStruct(sf.typ) {
				walk(fv, key)
				continue
			}
			out = append(out, field{key: key, val: fv, doc: sf.doc, oneof: sf.oneof, secretFile: takesFile(sf, sfs)})
		}
	}
	walk(v, "")
	return out
}

// takesFile says whether a field is a secret whose <name>File key is ours; a
// struct may have a field of that name itself.
func takesFile(sf structField, all []structField) bool {
	if sf.typ != secretType {
		return false
	}
	for _, o := range all {
		if o.name == sf.name+"File" {
			return false
		}
	}
	return true
}

// known lists the keys that a struct accepts in a file.
func known(sfs []structField) []string {
	var out []string
	for _, sf := range sfs {
		out = append(out, sf.name)
		if takesFile(sf, sfs) {
			out = append(out, sf.name+"File")
		}
	}
	return out
}

var (
	durationType = reflect.TypeFor[time.Duration]()
	secretType   = reflect.TypeFor[model.Secret]()
	bytesType    = reflect.TypeFor[model.Bytes]()
	textType     = reflect.TypeFor[encoding.TextUnmarshaler]()
)

// isScalar says whether values of a type are written as one word.
func isScalar(t reflect.Type) bool {
	if t.Kind() == reflect.Pointer {
		return isScalar(t.Elem())
	}
	if reflect.PointerTo(t).Implements(textType) {
		return true
	}
	switch t.Kind() {
	case reflect.Struct, reflect.Slice, reflect.Array, reflect.Map, reflect.Interface,
		reflect.Func, reflect.Chan, reflect.UnsafePointer:
		return false
	}
	return true
}

func isStruct(t reflect.Type) bool { return t.Kind() == reflect.Struct && !isScalar(t) }

// setText sets a scalar from its text.
func setText(v reflect.Value, s string, oneof []string) error {
	if s != "" && len(oneof) > 0 && !contains(oneof, s) { // whether it may be empty is for Validate
		hint := ""
		if n := Nearest(s, oneof); n != "" {
			hint = fmt.Sprintf("; did you mean %q?", n)
		}
		return fmt.Errorf("%q is not one of %s%s", s, strings.Join(oneof, ", "), hint)
	}
	if v.Kind() == reflect.Pointer {
		p := reflect.New(v.Type().Elem())
		if err := setText(p.Elem(), s, nil); err != nil {
			return err
		}
		v.Set(p)
		return nil
	}
	if v.Type() == durationType {
		d, err := time.ParseDuration(strings.TrimSpace(s))
		if err != nil {
			return fmt.Errorf("%q is not a duration; write a number with a unit, such as 3s, 500ms or 2m", s)
		}
		v.SetInt(int64(d))
		return nil
	}
	if u, ok := v.Addr().Interface().(encoding.TextUnmarshaler); ok {
		return u.UnmarshalText([]byte(s))
	}
	t := strings.TrimSpace(s)
	switch v.Kind() {
	case reflect.String:
		v.SetString(s)
	case reflect.Bool:
		b, err := strconv.ParseBool(t)
		if err != nil {
			return fmt.Errorf("%q is neither true nor false", s)
		}
		v.SetBool(b)
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		n, err := strconv.ParseInt(t, 10, v.Type().Bits())
		if err != nil {
			return fmt.Errorf("%q is not a whole number in range", s)
		}
		v.SetInt(n)
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		n, err := strconv.ParseUint(t, 10, v.Type().Bits())
		if err != nil {
			return fmt.Errorf("%q is not a whole number in range, zero or more", s)
		}
		v.SetUint(n)
	case reflect.Float32, reflect.Float64:
		f, err := strconv.ParseFloat(t, v.Type().Bits())
		if err != nil || f != f || f-f != 0 {
			return fmt.Errorf("%q is not a number", s)
		}
		v.SetFloat(f)
	default:
		panic(fmt.Sprintf("conf: a field of type %s cannot be configured", v.Type()))
	}
	return nil
}

func contains(list []string, s string) bool {
	for _, x := range list {
		if x == s {
			return true
		}
	}
	return false
}

package conf

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"reflect"

	"github.com/spf13/viper"
	"go.yaml.in/yaml/v3"
)

type node = yaml.Node

// parse gives the root of a YAML text; nil for one that says nothing.
func parse(data []byte) (*node, error) {
	dec := yaml.NewDecoder(bytes.NewReader(data))
	var doc, second node
	if err := dec.Decode(&doc); err != nil {
		if errors.Is(err, io.EOF) {
			return nil, nil
		}
		return nil, err
	}
	if err := dec.Decode(&second); !errors.Is(err, io.EOF) {
		return nil, errors.New("more than one YAML document")
	}
	if len(doc.Content) == 0 {
		return nil, nil
	}
	// A few aliases can stand for gigabytes, and nobody needs them here.
	if n := findAlias(doc.Content[0]); n != nil {
		return nil, fmt.Errorf("line %d: YAML aliases are not accepted", n.Line)
	}
	return doc.Content[0], nil
}

func findAlias(n *node) *node {
	if n.Kind == yaml.AliasNode {
		return n
	}
	for _, c := range n.Content {
		if a := findAlias(c); a != nil {
			return a
		}
	}
	return nil
}

// file hands viper the leaves that the file sets.
func (l *loader) file(v *viper.Viper, t reflect.Type, data []byte) {
	root, err := parse(data)
	if err != nil {
		l.problem("", l.opts.File, "%v", err)
		return
	}
	if root == nil || isNull(root) {
		return
	}
	leaves := map[string]any{}
	l.collect(root, t, "", leaves)
	if err := v.MergeConfigMap(leaves); err != nil {
		l.problem("", l.opts.File, "%v", err)
	}
}

// collect finds the leaves of a mapping that stands for a struct.
func (l *loader) collect(n *node, t reflect.Type, path string, into map[string]any) {
	sfs := structFields(t)
	l.eachKey(n, path, func(k, val *node) {
		key := join(path, k.Value)
		for _, sf := range sfs {
			switch {
			case sf.name == k.Value && isStruct(sf.typ):
				if !isNull(val) {
					l.collect(val, sf.typ, key, into)
				}
				return
			case sf.name == k.Value, sf.name+"File" == k.Value && takesFile(sf, sfs):
				if !isNull(val) {
					into[key] = fileNode{val}
				}
				return
			}
		}
		l.unknown(k, path, known(sfs))
	})
}

// eachKey calls f for every key of a mapping, refusing what is not one and keys
// that are given twice.
func (l *loader) eachKey(n *node, path string, f func(k, v *node)) {
	if n.Kind != yaml.MappingNode {
		l.problem(path, l.at(n), "must be a mapping of keys to values")
		return
	}
	seen := make(map[string]int, len(n.Content)/2)
	for i := 0; i+1 < len(n.Content); i += 2 {
		k := n.Content[i]
		if k.Kind != yaml.ScalarNode {
			l.problem(path, l.at(k), "a key must be a word")
			continue
		}
		if line, twice := seen[k.Value]; twice {
			l.problem(join(path, k.Value), l.at(k), "given twice, first at line %d", line)
			continue
		}
		seen[k.Value] = k.Line
		f(k, n.Content[i+1])
	}
}

func (l *loader) unknown(k *node, path string, names []string) {
	hint := ""
	if near := Nearest(k.Value, names); near != "" {
		hint = fmt.Sprintf("; did you mean %q?", join(path, near))
	}
	l.problem(join(path, k.Value), l.at(k), "unknown key%s", hint)
}

func isNull(n *node) bool {
	return n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null"
}

// decode sets v, anything below a leaf, from a node. Null leaves v alone.
func (l *loader) decode(n *node, v reflect.Value, path string, oneof []string) {
	if n == nil || isNull(n) {
		return
	}
	t := v.Type()
	switch {
	case isScalar(t):
		if n.Kind != yaml.ScalarNode {
			l.problem(path, l.at(n), "must be a single value (%s)", typeName(t))
		} else if err := setText(v, n.Value, oneof); err != nil {
			l.problem(path, l.at(n), "%v", err)
		}
	case t.Kind() == reflect.Slice:
		if n.Kind != yaml.SequenceNode {
			l.problem(path, l.at(n), "must be a list (%s)", typeName(t))
			return
		}
		out := reflect.MakeSlice(t, len(n.Content), len(n.Content))
		for i, c := range n.Content {
			if d, ok := out.Index(i).Addr().Interface().(interface{ SetDefaults() }); ok {
				d.SetDefaults()
			}
			l.decode(c, out.Index(i), fmt.Sprintf("%s[%d]", path, i), oneof)
		}
		v.Set(out)
	case t.Kind() == reflect.Map && t.Key().Kind() == reflect.String:
		out := reflect.MakeMap(t)
		l.eachKey(n, path, func(k, val *node) {
			e := reflect.New(t.Elem()).Elem()
			l.decode(val, e, join(path, k.Value), oneof)
			out.SetMapIndex(reflect.ValueOf(k.Value).Convert(t.Key()), e)
		})
		v.Set(out)
	case t.Kind() == reflect.Struct:
		l.decodeStruct(n, v, path)
	case t.Kind() == reflect.Interface:
		var x any
		if err := n.Decode(&x); err != nil {
			l.problem(path, l.at(n), "%v", err)
		} else if x != nil {
			v.Set(reflect.ValueOf(x))
		}
	default:
		panic(fmt.Sprintf("conf: %s: a field of type %s cannot be configured", path, t))
	}
}

// decodeStruct reads a struct that is an element of a list or map.
func (l *loader) decodeStruct(n *node, v reflect.Value, path string) {
	sfs := structFields(v.Type())
	given := map[string]*node{}
	l.eachKey(n, path, func(k, val *node) {
		if !contains(known(sfs), k.Value) {
			l.unknown(k, path, known(sfs))
			return
		}
		if !isNull(val) {
			given[k.Value] = val
		}
	})
	for _, sf := range sfs {
		fv, key := v.FieldByIndex(sf.index), join(path, sf.name)
		file := given[sf.name+"File"]
		if !takesFile(sf, sfs) {
			file = nil
		}
		switch {
		case given[sf.name] != nil && file != nil:
			l.problem(key, l.at(file), "%sFile is given too; keep one of them", key)
		case file != nil:
			l.assignSecretFile(field{key: key, val: fv}, fileNode{file}, l.at(file))
		default:
			l.decode(given[sf.name], fv, key, sf.oneof)
		}
	}
}

package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"regexp"
	"sort"
	"strings"

	"go.yaml.in/yaml/v3"
)

// The values of --output.
const (
	outTable = "table"
	outWide  = "wide"
	outJSON  = "json"
	outYAML  = "yaml"
	outName  = "name"
)

func (a *app) checkOutput() error {
	switch a.flags.output {
	case outTable, outWide, outJSON, outYAML, outName:
		return nil
	}
	return a.usage("--output %q is not one of table, wide, json, yaml, name", a.flags.output)
}

// col is one column of a list, or one line of a record.
type col[T any] struct {
	head string
	get  func(*T) string
	// hide leaves the line out of a record where it is empty: for what the
	// original does not have.
	hide bool
}

// view says how records of one type are shown.
type view[T any] struct {
	noun string // "volume"
	list []col[T]
	wide []col[T] // more columns of -o wide
	show []col[T]
	id   func(*T) string
}

func (v *view[T]) columns(wide bool) []col[T] {
	if wide {
		return append(append([]col[T](nil), v.list...), v.wide...)
	}
	return v.list
}

func (v *view[T]) row(x *T, cols []col[T]) []string {
	row := make([]string, len(cols))
	for i, c := range cols {
		row[i] = c.get(x)
	}
	return row
}

func heads[T any](cols []col[T]) []string {
	row := make([]string, len(cols))
	for i, c := range cols {
		row[i] = c.head
	}
	return row
}

// printList shows records in the format asked for.
func printList[T any](a *app, v *view[T], items []*T) error {
	switch a.flags.output {
	case outJSON, outYAML:
		if items == nil {
			items = []*T{}
		}
		return a.encode(items)
	case outName:
		return printIDs(a.env.Stdout, v, items...)
	}
	cols := v.columns(a.flags.output == outWide)
	rows := [][]string{heads(cols)}
	for _, x := range items {
		rows = append(rows, v.row(x, cols))
	}
	return table(a.env.Stdout, rows)
}

// printOne shows one record in the format asked for.
func printOne[T any](a *app, v *view[T], x *T) error {
	switch a.flags.output {
	case outJSON, outYAML:
		return a.encode(x)
	case outName:
		return printIDs(a.env.Stdout, v, x)
	}
	rows := [][]string{{"Property", "Value"}}
	for _, c := range v.show {
		s := c.get(x)
		if s == "" && c.hide {
			continue
		}
		rows = append(rows, []string{c.head, s})
	}
	return table(a.env.Stdout, rows)
}

func printIDs[T any](w io.Writer, v *view[T], items ...*T) error {
	for _, x := range items {
		if _, err := fmt.Fprintln(w, clean(v.id(x))); err != nil {
			return err
		}
	}
	return nil
}

// encode writes any value as JSON or YAML, with the same names and order.
func (a *app) encode(v any) error {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(v); err != nil {
		return err
	}
	if a.flags.output != outYAML {
		_, err := a.env.Stdout.Write(b.Bytes())
		return err
	}
	return writeYAML(a.env.Stdout, b.Bytes())
}

// writeYAML turns JSON into YAML. JSON is YAML, so it is read as that, which
// keeps the order of keys, and written in the plain style.
func writeYAML(w io.Writer, jsonText []byte) error {
	var n yaml.Node
	if err := yaml.Unmarshal(jsonText, &n); err != nil {
		return err
	}
	plain(&n)
	enc := yaml.NewEncoder(w)
	enc.SetIndent(2)
	if err := enc.Encode(&n); err != nil {
		return err
	}
	return enc.Close()
}

// dateLike is text that YAML reads as a timestamp.
var dateLike = regexp.MustCompile(`^\d{4}-\d{1,2}-\d{1,2}`)

func plain(n *yaml.Node) {
	switch {
	case n.Kind == yaml.ScalarNode && n.Tag == "!!str" && dateLike.MatchString(n.Value):
		// Without quotes a reader would take it for a date.
	case n.Kind == yaml.ScalarNode || len(n.Content) > 0:
		// An empty list or map has only the flow style.
		n.Style = 0
	}
	for _, c := range n.Content {
		plain(c)
	}
}

// jsonText shows a map or list in a cell, as the original does.
func jsonText(v any) string {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if enc.Encode(v) != nil {
		return fmt.Sprint(v)
	}
	return strings.TrimSuffix(b.String(), "\n")
}

// flatten gives the leaves of a JSON object by their dotted names, sorted.
func flatten(prefix string, v any) [][2]string {
	m, ok := v.(map[string]any)
	if !ok {
		if s, isText := v.(string); isText {
			return [][2]string{{prefix, s}}
		}
		b, _ := json.Marshal(v)
		return [][2]string{{prefix, string(b)}}
	}
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	var out [][2]string
	for _, k := range keys {
		name := k
		if prefix != "" {
			name = prefix + "." + k
		}
		out = append(out, flatten(name, m[k])...)
	}
	return out
}

package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/osds-io/osds/pkg/client"
	"github.com/osds-io/osds/pkg/model"
	"github.com/osds-io/osds/pkg/model/wire"
)

// pollEvery is how often a server without an event stream is asked.
const pollEvery = 2 * time.Second

// watcher shows records and then their changes, until the context ends.
type watcher[T any] struct {
	a  *app
	v  *view[T]
	r  client.Reader[T]
	q  client.Query
	id string // of the only record watched; empty for a list
	// known is what was last shown of each record.
	known map[string]string
	width []int
	began bool
}

// watch shows a whole list, or the one record with this id, and then each change.
// It ends without an error when it is interrupted, or when the one record is
// gone.
func watch[T any](ctx context.Context, a *app, v *view[T], r client.Reader[T], q client.Query, id string) error {
	q.Limit, q.Offset = client.DefaultPage, 0
	w := &watcher[T]{a: a, v: v, r: r, q: q, id: id, known: map[string]string{}}
	err := w.run(ctx)
	if errors.Is(ctx.Err(), context.Canceled) {
		return nil
	}
	return err
}

func (w *watcher[T]) run(ctx context.Context) error {
	for {
		rev, err := w.sync(ctx)
		if err != nil || w.gone() {
			return err
		}
		again, err := w.follow(ctx, rev)
		if err != nil || w.gone() {
			return err
		}
		if again {
			continue
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pollEvery):
		}
	}
}

// gone says whether the one record that is watched was there and is not now.
func (w *watcher[T]) gone() bool { return w.id != "" && w.began && len(w.known) == 0 }

// sync reads everything and shows what differs from what was shown.
func (w *watcher[T]) sync(ctx context.Context) (rev int64, err error) {
	items, rev, err := w.read(ctx)
	if err != nil {
		return 0, err
	}
	if !w.began {
		if err := w.header(items); err != nil {
			return 0, err
		}
	}
	seen := map[string]bool{}
	for _, x := range items {
		raw, err := json.Marshal(x)
		if err != nil {
			return 0, err
		}
		seen[w.v.id(x)] = true
		kind := wire.EventType("")
		if _, known := w.known[w.v.id(x)]; known {
			kind = wire.EventUpdated
		} else if w.began {
			kind = wire.EventCreated
		}
		if err := w.change(kind, w.v.id(x), x, raw); err != nil {
			return 0, err
		}
	}
	for _, id := range keys(w.known) {
		if !seen[id] {
			if err := w.remove(id); err != nil {
				return 0, err
			}
		}
	}
	w.began = true
	return rev, nil
}

func (w *watcher[T]) read(ctx context.Context) ([]*T, int64, error) {
	if w.id != "" {
		x, err := w.r.Get(ctx, w.id)
		if client.IsNotFound(err) && w.began {
			return nil, 0, nil
		}
		if err != nil {
			return nil, 0, err
		}
		return []*T{x}, w.a.c.Revision(), nil
	}
	// The first page's revision: what changes while the others are read comes
	// again as an event, and is shown once.
	q := w.q
	p, err := w.r.List(ctx, q)
	if err != nil {
		return nil, 0, err
	}
	items, rev := p.Items, p.Revision
	for p.Next != "" {
		q.Marker, q.Offset = p.Next, 0
		if p, err = w.r.List(ctx, q); err != nil {
			return nil, 0, err
		}
		items = append(items, p.Items...)
	}
	return items, rev, nil
}

// follow shows events. again says that the server has a stream and everything is
// to be read anew at once; else it has none.
func (w *watcher[T]) follow(ctx context.Context, rev int64) (again bool, err error) {
	if rev == 0 || w.r.Resource() == client.ResTask {
		return false, nil
	}
	q := client.EventsQuery{Since: rev, Resource: w.r.Resource(), ID: w.id, OnBreak: func(err error) {
		w.a.note("the event stream broke (%v): connecting again", err)
	}}
	for e, err := range w.a.c.Events(ctx, q) {
		var refused *client.Error
		switch {
		case err != nil && ctx.Err() == nil && (errors.As(err, &refused) || model.IsKind(err, model.KindUnsupported)):
			return false, nil
		case err != nil:
			return false, err
		case e.Type == wire.EventResync:
			return true, nil
		case w.id != "" && e.ResourceID != w.id:
			continue
		}
		if err := w.event(e); err != nil || w.gone() {
			return false, err
		}
	}
	return false, ctx.Err()
}

func (w *watcher[T]) event(e *wire.EventSpec) error {
	if e.Type == wire.EventDeleted {
		if _, ok := w.known[e.ResourceID]; !ok {
			return nil
		}
		return w.remove(e.ResourceID)
	}
	if !matches(e.Object, w.q.Filter) {
		// It no longer fits the filter.
		if _, ok := w.known[e.ResourceID]; ok {
			return w.remove(e.ResourceID)
		}
		return nil
	}
	x := new(T)
	if err := json.Unmarshal(e.Object, x); err != nil {
		return fmt.Errorf("the event %s is not understood: %w", e.ID, err)
	}
	raw, err := json.Marshal(x)
	if err != nil {
		return err
	}
	return w.change(e.Type, e.ResourceID, x, raw)
}

// change shows a record unless it was shown so before.
func (w *watcher[T]) change(kind wire.EventType, id string, x *T, raw []byte) error {
	if old, known := w.known[id]; known && old == string(raw) {
		return nil
	}
	w.known[id] = string(raw)
	return w.print(kind, x, raw)
}

func (w *watcher[T]) remove(id string) error {
	raw := w.known[id]
	delete(w.known, id)
	x := new(T)
	if err := json.Unmarshal([]byte(raw), x); err != nil {
		return err
	}
	return w.print(wire.EventDeleted, x, []byte(raw))
}

// header writes the head of the table and fixes its widths.
func (w *watcher[T]) header(items []*T) error {
	if f := w.a.flags.output; f != outTable && f != outWide {
		return nil
	}
	cols := w.v.columns(w.a.flags.output == outWide)
	head := append([]string{"Event"}, heads(cols)...)
	w.width = make([]int, len(head))
	for i, h := range head {
		w.width[i] = utf8.RuneCountInString(h)
	}
	w.width[0] = len(wire.EventCreated)
	for _, x := range items {
		for i, c := range w.v.row(x, cols) {
			w.width[i+1] = max(w.width[i+1], utf8.RuneCountInString(oneLine(c)))
		}
	}
	if len(items) == 0 {
		w.width[1] = max(w.width[1], 36) // a UUID
	}
	var b strings.Builder
	border(&b, w.width)
	gridRow(&b, head, w.width)
	border(&b, w.width)
	_, err := w.a.env.Stdout.Write([]byte(b.String()))
	return err
}

// watched is one change in JSON and YAML.
type watched struct {
	Type   wire.EventType  `json:"type"`
	Object json.RawMessage `json:"object"`
}

func (w *watcher[T]) print(kind wire.EventType, x *T, raw []byte) error {
	out := w.a.env.Stdout
	switch w.a.flags.output {
	case outName:
		return printIDs(out, w.v, x)
	case outJSON, outYAML:
		if kind == "" {
			kind = "listed"
		}
		var b bytes.Buffer
		enc := json.NewEncoder(&b)
		enc.SetEscapeHTML(false)
		if err := enc.Encode(watched{Type: kind, Object: raw}); err != nil {
			return err
		}
		if w.a.flags.output == outJSON {
			_, err := out.Write(b.Bytes())
			return err
		}
		if _, err := out.Write([]byte("---\n")); err != nil {
			return err
		}
		return writeYAML(out, b.Bytes())
	}
	row := []string{string(kind)}
	for _, c := range w.v.row(x, w.v.columns(w.a.flags.output == outWide)) {
		row = append(row, oneLine(c))
	}
	var b strings.Builder
	gridRow(&b, row, w.width)
	_, err := out.Write([]byte(b.String()))
	return err
}

func oneLine(s string) string { return clean(strings.TrimSpace(s)) }

// matches says whether a record has one of the wanted values in each of the
// fields: the server's rule for lists.
func matches(object []byte, filter map[string][]string) bool {
	if len(filter) == 0 {
		return true
	}
	var m map[string]any
	dec := json.NewDecoder(bytes.NewReader(object))
	dec.UseNumber()
	if dec.Decode(&m) != nil {
		return false
	}
	for field, values := range filter {
		have := ""
		for k, v := range m {
			if strings.EqualFold(k, field) && v != nil {
				have = fmt.Sprint(v)
			}
		}
		ok := false
		for _, want := range values {
			ok = ok || have == want
		}
		if !ok {
			return false
		}
	}
	return true
}

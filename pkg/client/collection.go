package client

import (
	"context"
	"iter"
	"net/http"
	"net/url"
	"strconv"

	"github.com/osds-io/osds/pkg/model"
	"github.com/osds-io/osds/pkg/model/wire"
)

// DefaultPage is how many rows All asks for at a time.
const DefaultPage = 200

// Query says which rows a list has, and in which order.
type Query struct {
	// Limit is the size of a page; 0 is the server's own.
	Limit int
	// Offset skips rows; Marker goes on after a page. Use one of them.
	Offset int
	Marker string
	// SortKey is a field; SortDir is asc or desc.
	SortKey, SortDir string
	// Filter holds fields and their exact values: several values of one field
	// are alternatives.
	Filter url.Values
}

// Where adds a filter unless the value is empty.
func (q Query) Where(field, value string) Query {
	if value == "" {
		return q
	}
	f := url.Values{}
	for k, v := range q.Filter {
		f[k] = v
	}
	f[field] = append(append([]string(nil), f[field]...), value)
	q.Filter = f
	return q
}

func (q Query) values() url.Values {
	v := url.Values{}
	for k, x := range q.Filter {
		v[k] = x
	}
	if q.Limit > 0 {
		v.Set("limit", strconv.Itoa(q.Limit))
	}
	if q.Offset > 0 {
		v.Set("offset", strconv.Itoa(q.Offset))
	}
	if q.Marker != "" {
		v.Set("marker", q.Marker)
	}
	if q.SortKey != "" {
		v.Set("sortKey", q.SortKey)
	}
	if q.SortDir != "" {
		v.Set("sortDir", q.SortDir)
	}
	return v
}

// Page is one answer to a list.
type Page[T any] struct {
	Items []*T
	// Next is the marker of the next page; empty if there is none.
	Next string
	// Total is how many rows match in all; -1 if the server does not say.
	Total int
	// Revision is what the answer reflects: where to begin with Events.
	Revision int64
}

// Reader reads the records of one resource.
type Reader[T any] struct {
	c    *Client
	res  model.Resource
	path string
}

// Collection reads and changes the records of one resource.
type Collection[T any] struct{ Reader[T] }

func reader[T any](c *Client, res model.Resource) Reader[T] {
	return Reader[T]{c: c, res: res, path: paths[res]}
}

func collection[T any](c *Client, res model.Resource) Collection[T] {
	return Collection[T]{reader[T](c, res)}
}

// Resource is what the collection holds.
func (r Reader[T]) Resource() model.Resource { return r.res }

// one makes a call that answers with one record.
func one[T any](ctx context.Context, c *Client, rq *request) (*T, error) {
	v := new(T)
	a, err := c.call(ctx, rq, v)
	if err != nil {
		return nil, err
	}
	if s, ok := any(v).(wire.Spec); ok {
		s.Common().ETag = a.header.Get("ETag")
	}
	return v, nil
}

// idPath is a record's path, or an error for an id that cannot be one: an empty
// id would address the whole collection.
func idPath(path, id string, more ...string) (string, error) {
	if !model.ValidID(id) {
		return "", model.Invalid("id", "%q is not a valid id", id)
	}
	path += "/" + url.PathEscape(id)
	for _, m := range more {
		path += "/" + url.PathEscape(m)
	}
	return path, nil
}

// Get reads one record.
func (r Reader[T]) Get(ctx context.Context, id string, opts ...Option) (*T, error) {
	p, err := idPath(r.path, id)
	if err != nil {
		return nil, err
	}
	return one[T](ctx, r.c, newRequest(http.MethodGet, p, nil, nil, opts))
}

// List reads one page.
func (r Reader[T]) List(ctx context.Context, q Query, opts ...Option) (*Page[T], error) {
	var items []*T
	a, err := r.c.call(ctx, newRequest(http.MethodGet, r.path, q.values(), nil, opts), &items)
	if err != nil {
		return nil, err
	}
	p := &Page[T]{Items: items, Next: a.header.Get(wire.HeaderNextMarker), Total: -1}
	if p.Items == nil {
		p.Items = []*T{} // a list of nothing may be null
	}
	if n, err := strconv.Atoi(a.header.Get(wire.HeaderTotalCount)); err == nil {
		p.Total = n
	}
	p.Revision, _ = strconv.ParseInt(a.header.Get(wire.HeaderRevision), 10, 64)
	return p, nil
}

// All walks over all rows, page after page. It ends after the first error.
// Query.Limit is the size of a page, not of the whole.
func (r Reader[T]) All(ctx context.Context, q Query, opts ...Option) iter.Seq2[*T, error] {
	if q.Limit <= 0 {
		q.Limit = DefaultPage
	}
	return func(yield func(*T, error) bool) {
		for {
			p, err := r.List(ctx, q, opts...)
			if err != nil {
				yield(nil, err)
				return
			}
			for _, x := range p.Items {
				if !yield(x, nil) {
					return
				}
			}
			switch {
			case p.Next != "" && p.Next != q.Marker:
				q.Marker, q.Offset = p.Next, 0
			case p.Next == "" && p.Total < 0 && p.Revision == 0 && len(p.Items) > 0 && len(p.Items) >= q.Limit:
				// A server that has no markers: an original one.
				q.Offset += len(p.Items)
			default:
				return
			}
		}
	}
}

// Collect gives all rows in one slice, at most max of them (0: all).
func (r Reader[T]) Collect(ctx context.Context, q Query, max int) ([]*T, error) {
	out := []*T{}
	for x, err := range r.All(ctx, q) {
		if err != nil {
			return nil, err
		}
		out = append(out, x)
		if max > 0 && len(out) >= max {
			break
		}
	}
	return out, nil
}

// Create makes a record. The answer may be of one that is still being made: see
// Client.Wait.
func (c Collection[T]) Create(ctx context.Context, spec *T, opts ...Option) (*T, error) {
	return one[T](ctx, c.c, newRequest(http.MethodPost, c.path, nil, spec, opts))
}

// Update changes a record. Changes is anything that encodes to a JSON object: a
// T with only the fields that change, or a map where a field is to be emptied.
func (c Collection[T]) Update(ctx context.Context, id string, changes any, opts ...Option) (*T, error) {
	p, err := idPath(c.path, id)
	if err != nil {
		return nil, err
	}
	return one[T](ctx, c.c, newRequest(http.MethodPut, p, nil, changes, opts))
}

// Delete removes a record. It may still be there, deleting, when this returns.
func (c Collection[T]) Delete(ctx context.Context, id string, opts ...Option) error {
	p, err := idPath(c.path, id)
	if err != nil {
		return err
	}
	_, err = c.c.call(ctx, newRequest(http.MethodDelete, p, nil, nil, opts), nil)
	return err
}

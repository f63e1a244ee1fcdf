package db

import (
	"cmp"
	"slices"
	"strings"
	"time"
)

// MaxPage is the most records that one List gives.
const MaxPage = 1000

// Filter keeps records whose field has one of the values.
type Filter struct {
	Field  string
	Values []string
}

// Query asks for a page of records.
type Query struct {
	// Tenant restricts to one tenant; empty sees all (administrators).
	Tenant  string
	Filters []Filter
	// Sort is a field's name; empty means id. Equal values are ordered by id.
	Sort string
	Desc bool
	// Offset skips records; After continues behind a record instead (the sort
	// field's value and the id of the last one seen).
	Offset int
	After  *Cursor
	// Limit is at most MaxPage.
	Limit int
}

// Cursor is a position in a sorted list.
type Cursor struct {
	Value string // the sort field's Text
	Num   int64  // or its Num
	ID    string
}

// Page is a part of a list.
type Page[P any] struct {
	Items []P
	// Total is how many records match, or -1 where counting would need a scan.
	Total int
	// Next continues the list; nil at its end.
	Next *Cursor
	// Rev is the revision that the page shows.
	Rev int64
}

// FieldNames lists the fields that can be filtered by, in the wire's spelling.
func (t *Table[T, P]) FieldNames() []string {
	var out []string
	for i := range t.fields {
		out = append(out, t.fields[i].Name)
	}
	return out
}

// Field finds a field by its name, whatever the case of the letters.
func (t *Table[T, P]) Field(name string) (string, bool) {
	for i := range t.fields {
		if strings.EqualFold(t.fields[i].Name, name) {
			return t.fields[i].Name, true
		}
	}
	return "", false
}

// sortedWalkMax is up to how many records a filtered list is collected and
// sorted rather than found by walking the sort order.
const sortedWalkMax = 4096

// List gives a page. Filters and sort keys must be fields of the table (see
// Field); others are ignored. With at most one filter on an indexed field, or
// none, a page costs O(log n), whichever page it is.
func (t *Table[T, P]) List(q Query) Page[P] {
	if q.Limit > MaxPage {
		q.Limit = MaxPage
	}
	t.mu.RLock()
	defer t.mu.RUnlock()
	l := lister[T, P]{t: t, q: q}
	page := l.run()
	page.Rev = t.rev.Load()
	return page
}

type lister[T any, P recordPtr[T]] struct {
	t     *Table[T, P]
	q     Query
	trees []tree[P]
	sort  *Field[P]
	tests []func(P) bool // filters that the chosen range does not answer
}

func (l *lister[T, P]) run() Page[P] {
	t, q := l.t, l.q
	l.trees = t.all
	if t.scoped && q.Tenant != "" {
		ts, ok := t.tenants[q.Tenant]
		if !ok {
			return Page[P]{}
		}
		l.trees = ts
	}
	l.sort = l.fieldNamed(q.Sort)
	if l.sort == nil {
		l.sort = &t.fields[0]
	}
	best, lo, hi := l.choose()
	switch {
	case best == nil:
		if x, ok := t.find(l.trees, l.sort.Name); ok {
			return l.fromRange(x, 0, x.t.Len())
		}
		return l.collect(l.trees[0], 0, l.trees[0].t.Len())
	case l.sort.Name == "id" || l.sort.Name == best.f.Name:
		// Within one value of the field the order is by id.
		return l.fromRange(*best, lo, hi)
	case hi-lo <= sortedWalkMax:
		return l.collect(*best, lo, hi)
	}
	// Many match: walk in sort order and test each.
	l.tests = l.filters("")
	if x, ok := t.find(l.trees, l.sort.Name); ok {
		p := l.fromRange(x, 0, x.t.Len())
		if len(l.tests) == 1 {
			p.Total = hi - lo
		}
		return p
	}
	return l.collect(*best, lo, hi)
}

func (l *lister[T, P]) fieldNamed(name string) *Field[P] {
	for i := range l.t.fields {
		if l.t.fields[i].Name == name {
			return &l.t.fields[i]
		}
	}
	return nil
}

// choose picks the indexed filter with the fewest records, and leaves the other
// filters as tests.
func (l *lister[T, P]) choose() (best *tree[P], lo, hi int) {
	for _, f := range l.q.Filters {
		if len(f.Values) != 1 {
			continue
		}
		x, ok := l.t.find(l.trees, f.Field)
		if !ok || x.f.Name == "createdAt" {
			continue
		}
		a, b := x.span(f.Values[0])
		if best == nil || b-a < hi-lo {
			best, lo, hi = &x, a, b
		}
	}
	used := ""
	if best != nil {
		used = best.f.Name
	}
	l.tests = l.filters(used)
	return best, lo, hi
}

func (l *lister[T, P]) filters(except string) []func(P) bool {
	var tests []func(P) bool
	for _, f := range l.q.Filters {
		fd := l.fieldNamed(f.Field)
		if fd == nil || f.Field == except {
			continue
		}
		values := f.Values
		tests = append(tests, func(p P) bool { return slices.Contains(values, fd.Text(p)) })
	}
	return tests
}

func (l *lister[T, P]) match(p P) bool {
	for _, f := range l.tests {
		if !f(p) {
			return false
		}
	}
	return true
}

// fromRange takes the page out of positions [lo,hi) of a tree whose order there
// is the list's order.
func (l *lister[T, P]) fromRange(x tree[P], lo, hi int) Page[P] {
	q := l.q
	page := Page[P]{Total: -1}
	if len(l.tests) == 0 {
		page.Total = hi - lo
	}
	from, end := lo, hi
	if q.After != nil {
		if q.Desc {
			end = x.search(lo, hi, func(p P) bool { return l.order(p, q.After) >= 0 })
		} else {
			from = x.search(lo, hi, func(p P) bool { return l.order(p, q.After) > 0 })
		}
	}
	skip := q.Offset
	if len(l.tests) == 0 { // positions can be skipped without looking
		if q.Desc {
			end -= min(skip, end-from)
		} else {
			from += min(skip, end-from)
		}
		skip = 0
	}
	start := from
	if q.Desc {
		start = end - 1
	}
	more := false
	x.walk(start, end-from, q.Desc, func(p P) bool {
		switch {
		case !l.match(p):
		case skip > 0:
			skip--
		case len(page.Items) == q.Limit:
			more = true
			return false
		default:
			page.Items = append(page.Items, p)
		}
		return true
	})
	if more {
		page.Next = l.cursor(page.Items)
	}
	return page
}

// collect gathers a range, sorts it and cuts the page out.
func (l *lister[T, P]) collect(x tree[P], lo, hi int) Page[P] {
	var got []P
	x.walk(lo, hi-lo, false, func(p P) bool {
		if l.match(p) {
			got = append(got, p)
		}
		return true
	})
	slices.SortFunc(got, func(a, b P) int {
		c := l.compare(a, b)
		if l.q.Desc {
			return -c
		}
		return c
	})
	page := Page[P]{Total: len(got)}
	if l.q.After != nil {
		i := slices.IndexFunc(got, func(p P) bool {
			c := l.order(p, l.q.After)
			return (!l.q.Desc && c > 0) || (l.q.Desc && c < 0)
		})
		if i < 0 {
			i = len(got)
		}
		got = got[i:]
	}
	got = got[min(l.q.Offset, len(got)):]
	if len(got) > l.q.Limit {
		got = got[:l.q.Limit]
		page.Next = l.cursor(got)
	}
	page.Items = got
	return page
}

func (l *lister[T, P]) compare(a, b P) int {
	var c int
	if l.sort.Num != nil {
		c = cmp.Compare(l.sort.Num(a), l.sort.Num(b))
	} else {
		c = strings.Compare(l.sort.Text(a), l.sort.Text(b))
	}
	if c != 0 {
		return c
	}
	return strings.Compare(a.Base().ID, b.Base().ID)
}

func (l *lister[T, P]) order(p P, c *Cursor) int {
	var d int
	if l.sort.Num != nil {
		d = cmp.Compare(l.sort.Num(p), c.Num)
	} else {
		d = strings.Compare(l.sort.Text(p), c.Value)
	}
	if d != 0 {
		return d
	}
	return strings.Compare(p.Base().ID, c.ID)
}

func (l *lister[T, P]) cursor(items []P) *Cursor {
	if len(items) == 0 {
		return nil
	}
	last := items[len(items)-1]
	c := &Cursor{ID: last.Base().ID}
	if l.sort.Num != nil {
		c.Num = l.sort.Num(last)
	} else {
		c.Value = l.sort.Text(last)
	}
	return c
}

// wireTime is the wire's form of a time: UTC, to the second, without a zone.
func wireTime(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format("2006-01-02T15:04:05")
}

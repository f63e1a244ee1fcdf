package db

import (
	"cmp"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/tidwall/btree"

	"github.com/osds-io/osds/pkg/model"
)

// recordPtr is a pointer to a record type.
type recordPtr[T any] interface {
	*T
	model.Record
}

// Field is a property that records can be filtered and sorted by.
type Field[P any] struct {
	// Name is the wire's name.
	Name string
	// Text is the value in its string form: what a filter compares with.
	Text func(P) string
	// Num orders by number instead of by Text; nil for text.
	Num func(P) int64
	// Index keeps a tree ordered by this field, so that filtering and sorting
	// by it need no scan.
	Index bool
}

// node is one record in all the trees of its table. Its rec is replaced under
// the table's lock; trees whose field did not change are not touched.
type node[P any] struct{ rec P }

// tree is ordered by a field's value, then by id.
type tree[P any] struct {
	f *Field[P]
	t *btree.BTreeG[*node[P]]
}

// Table holds all records of one resource in memory. Reads are safe at any time
// and see whole revisions; only the store's watch writes.
type Table[T any, P recordPtr[T]] struct {
	res    model.Resource
	fields []Field[P]
	mu     *sync.RWMutex // the store's: one revision is applied as a whole
	byID   map[string]*node[P]
	all    []tree[P] // [0] is ordered by id
	// tenants is the same by tenant; nil for records that have none.
	tenants map[string][]tree[P]
	scoped  bool
	intern  *interner
	rev     *atomic.Int64 // the store's applied revision
}

func newTable[T any, P recordPtr[T]](s *Store, res model.Resource, scoped bool, fields ...Field[P]) *Table[T, P] {
	base := []Field[P]{
		{Name: "id", Text: func(p P) string { return p.Base().ID }, Index: true},
		{Name: "name", Text: func(p P) string { return p.Base().Name }, Index: true},
		{Name: "description", Text: func(p P) string { return p.Base().Description }},
		{Name: "tenantId", Text: func(p P) string { return p.Base().TenantID }, Index: scoped},
		{Name: "userId", Text: func(p P) string { return p.Base().UserID }},
		{Name: "createdAt", Text: func(p P) string { return wireTime(p.Base().CreatedAt) }, Num: func(p P) int64 { return p.Base().CreatedAt.UnixNano() }, Index: true},
		{Name: "updatedAt", Text: func(p P) string { return wireTime(p.Base().UpdatedAt) }, Num: func(p P) int64 { return p.Base().UpdatedAt.UnixNano() }},
	}
	t := &Table[T, P]{res: res, fields: append(base, fields...), mu: &s.mu, byID: map[string]*node[P]{}, scoped: scoped, intern: s.intern, rev: &s.rev}
	t.all = t.newTrees()
	if scoped {
		t.tenants = map[string][]tree[P]{}
	}
	s.tables[res] = t
	return t
}

func (t *Table[T, P]) newTrees() []tree[P] {
	var ts []tree[P]
	for i := range t.fields {
		f := &t.fields[i]
		if f.Index {
			ts = append(ts, tree[P]{f, btree.NewBTreeGOptions(less(f), btree.Options{NoLocks: true, Degree: 32})})
		}
	}
	return ts
}

func less[P model.Record](f *Field[P]) func(a, b *node[P]) bool {
	if f.Num == nil {
		return func(a, b *node[P]) bool {
			if c := strings.Compare(f.Text(a.rec), f.Text(b.rec)); c != 0 {
				return c < 0
			}
			return a.rec.Base().ID < b.rec.Base().ID
		}
	}
	return func(a, b *node[P]) bool {
		if c := cmp.Compare(f.Num(a.rec), f.Num(b.rec)); c != 0 {
			return c < 0
		}
		return a.rec.Base().ID < b.rec.Base().ID
	}
}

func (f *Field[P]) same(a, b P) bool {
	if f.Num != nil {
		return f.Num(a) == f.Num(b)
	}
	return f.Text(a) == f.Text(b)
}

// sharer is a record that can share texts with others.
type sharer interface {
	InternStrings(share func(string) string)
}

// decode turns a stored value into a record. known, if not nil, is the record
// that this process wrote as the very same bytes.
func (t *Table[T, P]) decode(value []byte, known model.Record, rev int64) (model.Record, error) {
	v := new(T)
	k, ours := known.(P)
	if ours = ours && k != nil; ours {
		*v = *k // what it points to stays shared with the writer
	} else if err := json.Unmarshal(value, v); err != nil {
		return nil, fmt.Errorf("%s: %w", t.res, err)
	}
	p := P(v)
	b := p.Base()
	b.Rev = rev
	b.TenantID = t.intern.get(b.TenantID)
	if r, ok := any(p).(sharer); ok {
		r.InternStrings(t.intern.get)
	}
	if r, ok := any(p).(model.Tasked); ok && !ours {
		if k := r.CurrentTask(); k != nil {
			k.InternStrings(t.intern.get)
		}
	}
	return p, nil
}

// put stores a record and gives the one it replaces. The caller holds the lock.
func (t *Table[T, P]) put(r model.Record) (old model.Record) {
	rec := r.(P)
	id := rec.Base().ID
	n, ok := t.byID[id]
	if !ok {
		n = &node[P]{rec}
		t.byID[id] = n
		t.insert(t.all, n)
		t.insert(t.treesOf(rec.Base().TenantID), n)
		return nil
	}
	prev := n.rec
	for _, trees := range [][]tree[P]{t.all, t.treesOf(prev.Base().TenantID)} {
		for _, x := range trees {
			if !x.f.same(prev, rec) {
				x.t.Delete(n)
			}
		}
	}
	n.rec = rec
	for _, trees := range [][]tree[P]{t.all, t.treesOf(rec.Base().TenantID)} {
		for _, x := range trees {
			if !x.f.same(prev, rec) {
				x.t.Set(n)
			}
		}
	}
	return prev
}

func (t *Table[T, P]) insert(trees []tree[P], n *node[P]) {
	for _, x := range trees {
		x.t.Set(n)
	}
}

// remove drops a record and gives it, or nil. The caller holds the lock.
func (t *Table[T, P]) remove(id string) model.Record {
	n, ok := t.byID[id]
	if !ok {
		return nil
	}
	for _, x := range t.all {
		x.t.Delete(n)
	}
	for _, x := range t.treesOf(n.rec.Base().TenantID) {
		x.t.Delete(n)
	}
	delete(t.byID, id)
	return n.rec
}

// treesOf gives a tenant's trees, making them when needed. Records never change
// their tenant.
func (t *Table[T, P]) treesOf(tenant string) []tree[P] {
	if !t.scoped {
		return nil
	}
	ts, ok := t.tenants[tenant]
	if !ok {
		ts = t.newTrees()
		t.tenants[tenant] = ts
	}
	return ts
}

func (t *Table[T, P]) ids() []string {
	ids := make([]string, 0, len(t.byID))
	for id := range t.byID {
		ids = append(ids, id)
	}
	return ids
}

// Get gives a record by id. The record is shared: Clone it to change it.
func (t *Table[T, P]) Get(id string) (P, bool) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	n, ok := t.byID[id]
	if !ok {
		return nil, false
	}
	return n.rec, true
}

// GetOf is Get for one tenant: records of others are as if absent. The empty
// tenant sees all.
func (t *Table[T, P]) GetOf(tenant, id string) (P, bool) {
	p, ok := t.Get(id)
	if !ok || (t.scoped && tenant != "" && p.Base().TenantID != tenant) {
		return nil, false
	}
	return p, true
}

// Len is the number of records.
func (t *Table[T, P]) Len() int {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return len(t.byID)
}

// Where gives the records whose indexed field has a value, ordered by id, at
// most limit (0: no limit).
func (t *Table[T, P]) Where(field, value string, limit int) []P {
	t.mu.RLock()
	defer t.mu.RUnlock()
	x, ok := t.find(t.all, field)
	if !ok {
		panic("db: " + string(t.res) + " has no index " + field)
	}
	lo, hi := x.span(value)
	n := hi - lo
	if limit > 0 && n > limit {
		n = limit
	}
	out := make([]P, 0, n)
	x.walk(lo, n, false, func(p P) bool { out = append(out, p); return true })
	return out
}

// Count is the number of records whose indexed field has a value.
func (t *Table[T, P]) Count(field, value string) int {
	t.mu.RLock()
	defer t.mu.RUnlock()
	x, ok := t.find(t.all, field)
	if !ok {
		panic("db: " + string(t.res) + " has no index " + field)
	}
	lo, hi := x.span(value)
	return hi - lo
}

// All gives every record, ordered by id. For lists that clients ask for use
// List, which is bounded.
func (t *Table[T, P]) All() []P {
	t.mu.RLock()
	defer t.mu.RUnlock()
	out := make([]P, 0, len(t.byID))
	t.all[0].t.Scan(func(n *node[P]) bool { out = append(out, n.rec); return true })
	return out
}

func (t *Table[T, P]) find(trees []tree[P], field string) (tree[P], bool) {
	for _, x := range trees {
		if x.f.Name == field {
			return x, true
		}
	}
	return tree[P]{}, false
}

// cmpValue compares a record's field with a filter's value; ok is false if the
// value cannot be one of this field.
func (x tree[P]) cmpValue(value string) (func(P) int, bool) {
	if x.f.Num == nil {
		return func(p P) int { return strings.Compare(x.f.Text(p), value) }, true
	}
	if n, err := strconv.ParseInt(value, 10, 64); err == nil && strconv.FormatInt(n, 10) == value {
		return func(p P) int { return cmp.Compare(x.f.Num(p), n) }, true
	}
	return nil, false
}

// span gives the half-open range of positions whose value equals value.
func (x tree[P]) span(value string) (lo, hi int) {
	c, ok := x.cmpValue(value)
	if !ok {
		return 0, 0
	}
	n := x.t.Len()
	lo = x.search(0, n, func(p P) bool { return c(p) >= 0 })
	if lo == n {
		return n, n
	}
	return lo, x.search(lo, n, func(p P) bool { return c(p) > 0 })
}

// search is the first position in [lo,n) where f holds; f must be monotonic.
func (x tree[P]) search(lo, n int, f func(P) bool) int {
	hi := n
	for lo < hi {
		m := (lo + hi) / 2
		v, _ := x.t.GetAt(m)
		if f(v.rec) {
			hi = m
		} else {
			lo = m + 1
		}
	}
	return lo
}

// walk visits at most n records from a position on, upwards or downwards.
func (x tree[P]) walk(from, n int, desc bool, f func(P) bool) {
	if n <= 0 || from < 0 {
		return
	}
	pivot, ok := x.t.GetAt(from)
	if !ok {
		return
	}
	visit := func(v *node[P]) bool {
		if n == 0 || !f(v.rec) {
			return false
		}
		n--
		return true
	}
	if desc {
		x.t.Descend(pivot, visit)
	} else {
		x.t.Ascend(pivot, visit)
	}
}

// interner shares equal strings between records: a hundred thousand volumes name
// the same few tenants, pools and profiles.
type interner struct {
	mu sync.RWMutex
	m  map[string]string
}

// internMax bounds the interner; past it strings are simply not shared.
const internMax = 1 << 16

func (i *interner) get(s string) string {
	if s == "" {
		return ""
	}
	i.mu.RLock()
	v, ok := i.m[s]
	i.mu.RUnlock()
	if ok {
		return v
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	if v, ok := i.m[s]; ok {
		return v
	}
	if len(i.m) < internMax {
		s = strings.Clone(s) // a part of a larger text would keep all of it
		i.m[s] = s
	}
	return s
}

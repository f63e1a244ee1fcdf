package api

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/osds-io/osds/pkg/db"
	"github.com/osds-io/osds/pkg/model"
	"github.com/osds-io/osds/pkg/model/wire"
)

const (
	defaultLimit = 50
	// maxFilterValues bounds the alternatives of one filter.
	maxFilterValues = 256
)

// fielder is what list parameters need of a table.
type fielder interface {
	Field(name string) (string, bool)
	FieldNames() []string
}

// list answers with a page of a table, each record as show gives it.
func list[T any, P interface {
	*T
	model.Record
}](c *call, t *db.Table[T, P], show func(P) any) error {
	q, hash, err := listQuery(c.r.URL.RawQuery, c.scope(), t)
	if err != nil {
		return err
	}
	found := t.List(q)
	out := make(page, len(found.Items))
	for i, p := range found.Items {
		out[i] = show(p)
	}
	h := c.w.Header()
	if found.Total >= 0 {
		h["X-Osds-Total-Count"] = []string{strconv.Itoa(found.Total)}
	}
	if found.Next != nil {
		h["X-Osds-Next-Marker"] = []string{marker{*found.Next, hash}.String()}
	}
	if found.Rev > c.rev {
		c.rev = found.Rev
	}
	return c.JSON(http.StatusOK, out)
}

// listQuery reads the list parameters. hash identifies the query without its
// page.
func listQuery(raw, tenant string, t fielder) (q db.Query, hash string, err error) {
	q = db.Query{Tenant: tenant, Limit: defaultLimit}
	v, err := url.ParseQuery(raw)
	if err != nil {
		return q, "", model.Errorf(model.KindInvalid, "the query string is not well-formed: %w", err)
	}
	if q.Limit, err = number(v, "limit", defaultLimit); err != nil {
		return q, "", err
	}
	q.Limit = min(q.Limit, db.MaxPage)
	if q.Offset, err = number(v, "offset", 0); err != nil {
		return q, "", err
	}
	if err := sorting(v, &q, t); err != nil {
		return q, "", err
	}
	if q.Filters, err = filters(v, t); err != nil {
		return q, "", err
	}
	hash = hashQuery(&q)
	if m := v.Get("marker"); m != "" {
		if q.Offset > 0 {
			return q, "", model.Invalid("offset", "offset and marker cannot be used together: use one of them")
		}
		if q.After, err = parseMarker(m, hash); err != nil {
			return q, "", err
		}
	}
	return q, hash, nil
}

// filters reads the parameters that are fields of the table; others are ignored,
// as in the original.
func filters(v url.Values, t fielder) ([]db.Filter, error) {
	var fs []db.Filter
	for _, key := range slices.Sorted(maps.Keys(v)) {
		switch key {
		case "limit", "offset", "sortKey", "sortDir", "marker":
			continue
		}
		name, ok := t.Field(key)
		if !ok {
			continue
		}
		i := slices.IndexFunc(fs, func(f db.Filter) bool { return f.Field == name })
		if i < 0 {
			i, fs = len(fs), append(fs, db.Filter{Field: name})
		}
		fs[i].Values = append(fs[i].Values, v[key]...)
		if len(fs[i].Values) > maxFilterValues {
			return nil, model.Invalid(key, "%s is given %d times, at most %d are allowed", key, len(fs[i].Values), maxFilterValues)
		}
	}
	return fs, nil
}

func sorting(v url.Values, q *db.Query, t fielder) error {
	desc := true
	switch d := v.Get("sortDir"); {
	case strings.EqualFold(d, "asc"):
		desc = false
	case d == "", strings.EqualFold(d, "desc"):
	default:
		return model.Invalid("sortDir", "sortDir %q is neither asc nor desc", shorten(d))
	}
	key := v.Get("sortKey")
	if key == "" {
		return nil // by id; the direction counts only with a key, as in the original
	}
	name, ok := t.Field(key)
	if !ok {
		return model.Invalid("sortKey", "sortKey %q is not a field to sort by: use one of %s", shorten(key), strings.Join(t.FieldNames(), ", "))
	}
	q.Sort, q.Desc = name, desc
	return nil
}

// number reads a parameter that is a number of 0 or more. One too large for an
// int is as good as the largest.
func number(v url.Values, name string, def int) (int, error) {
	s := v.Get(name)
	if s == "" {
		return def, nil
	}
	for i := 0; i < len(s); i++ {
		if s[i] < '0' || s[i] > '9' {
			return 0, model.Invalid(name, "%s %q is not a number of 0 or more", name, shorten(s))
		}
	}
	n, err := strconv.Atoi(s)
	if err != nil {
		return int(^uint(0) >> 1), nil
	}
	return n, nil
}

// marker is a position in a list, bound to the query that it came from. It is no
// secret: whoever makes one up gets at most what he may see anyway.
type marker struct {
	At   db.Cursor `json:"at"`
	Hash string    `json:"q"`
}

// String is the marker as a query parameter.
func (m marker) String() string {
	b, _ := json.Marshal(m)
	return base64.RawURLEncoding.EncodeToString(b)
}

func parseMarker(s, hash string) (*db.Cursor, error) {
	var m marker
	b, err := base64.RawURLEncoding.DecodeString(s)
	if err == nil {
		err = json.Unmarshal(b, &m)
	}
	if err != nil {
		return nil, model.Invalid("marker", "the marker is not one of ours: use the value of %s", wire.HeaderNextMarker)
	}
	if m.Hash != hash {
		return nil, model.Invalid("marker", "the marker belongs to another query: use it with the same filters and sorting")
	}
	return &m.At, nil
}

// hashQuery identifies what a list shows and in which order.
func hashQuery(q *db.Query) string {
	fs := slices.Clone(q.Filters)
	slices.SortFunc(fs, func(a, b db.Filter) int { return strings.Compare(a.Field, b.Field) })
	b, _ := json.Marshal([]any{q.Tenant, q.Sort, q.Desc, fs})
	sum := sha256.Sum256(b)
	return base64.RawURLEncoding.EncodeToString(sum[:9])
}

package wire

import (
	"strconv"
	"strings"
	"time"

	"github.com/osds-io/osds/pkg/model"
)

// TimeFormat is how times are written: UTC, though the original says no zone.
const TimeFormat = "2006-01-02T15:04:05"

// FormatTime writes a time; the zero time is "".
func FormatTime(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(TimeFormat)
}

// ParseTime reads what FormatTime wrote, and RFC 3339 too. "" is the zero time.
func ParseTime(s string) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	if t, err := time.ParseInLocation(TimeFormat, s, time.UTC); err == nil {
		return t, nil
	}
	t, err := time.Parse(time.RFC3339Nano, s)
	if err != nil {
		return time.Time{}, model.Errorf(model.KindInvalid, "time %q is neither %s nor RFC 3339", s, TimeFormat)
	}
	return t.UTC(), nil
}

// Base is what every record starts with.
type Base struct {
	ID        string `json:"id"`
	CreatedAt string `json:"createdAt"`
	UpdatedAt string `json:"updatedAt"`
	// ETag is the entity tag the record came with. It is not in the body: a
	// client takes it from the header and sends it back as If-Match.
	ETag string `json:"-" yaml:"-"`
}

// Common gives the Base of any spec that embeds it.
func (b *Base) Common() *Base { return b }

// Spec is any record as clients see it.
type Spec interface{ Common() *Base }

func baseOf(m *model.Meta) Base {
	return Base{ID: m.ID, CreatedAt: FormatTime(m.CreatedAt), UpdatedAt: FormatTime(m.UpdatedAt)}
}

// ETag is the entity tag of a record that was read at a revision.
func ETag(rev int64) string { return `"` + strconv.FormatInt(rev, 10) + `"` }

// ParseETag is the reverse of ETag. It takes a weak tag and a bare number too;
// ok is false for anything else.
func ParseETag(s string) (rev int64, ok bool) {
	s = strings.TrimPrefix(strings.TrimSpace(s), "W/")
	if len(s) >= 2 && s[0] == '"' && s[len(s)-1] == '"' {
		s = s[1 : len(s)-1]
	}
	rev, err := strconv.ParseInt(s, 10, 64)
	return rev, err == nil && rev > 0
}

// Header names beyond the original's.
const (
	HeaderRequestID      = "X-Request-Id"
	HeaderIdempotencyKey = "Idempotency-Key"
	// HeaderNextMarker is on a list answer with more rows to come: the value
	// for the query parameter marker.
	HeaderNextMarker = "X-Osds-Next-Marker"
	// HeaderTotalCount is how many rows match in all.
	HeaderTotalCount = "X-Osds-Total-Count"
	// HeaderRevision is on each answer: the store's revision that it reflects.
	HeaderRevision = "X-Osds-Revision"
	// HeaderMinRevision asks that the answer reflect at least this revision.
	HeaderMinRevision = "X-Osds-Min-Revision"
	// HeaderAuthToken carries the token, as in the original.
	HeaderAuthToken = "X-Auth-Token"
)

// APIVersion is the version in every path.
const APIVersion = "v1beta"

// VersionSpec is an API version.
type VersionSpec struct {
	Description string `json:"description"`
	Name        string `json:"name"`
	Status      string `json:"status"`
	UpdatedAt   string `json:"updatedAt"`
}

// Versions lists the API versions, with the original's values.
func Versions() []VersionSpec {
	return []VersionSpec{{
		Description: "v1beta version", Name: APIVersion, Status: "CURRENT",
		UpdatedAt: "2017-07-10T14:36:58.014Z",
	}}
}

// ErrorSpec is the body of every error answer.
type ErrorSpec struct {
	Code    int    `json:"code"`
	Message string `json:"message"`
	// Kind is for programs, Field names the request field at fault.
	Kind      model.Kind `json:"kind,omitempty"`
	Field     string     `json:"field,omitempty"`
	RequestID string     `json:"requestId,omitempty"`
}

// FromError makes the body for an error; the HTTP status is its Code.
func FromError(err error, requestID string) *ErrorSpec {
	e := model.AsError(err)
	if e == nil {
		return nil
	}
	return &ErrorSpec{Code: e.HTTPStatus(), Message: e.Error(), Kind: e.Kind, Field: e.Field, RequestID: requestID}
}

// ToError is the reverse: an error of the same kind. A body without a kind (the
// original's) gets the kind that fits its status.
func (s *ErrorSpec) ToError() *model.Error {
	k := s.Kind
	if k == "" {
		k = KindOfStatus(s.Code)
	}
	return &model.Error{Kind: k, Message: s.Message, Field: s.Field, Status: s.Code}
}

// KindOfStatus is the kind that fits an HTTP status where nothing better is
// known.
func KindOfStatus(code int) model.Kind {
	switch code {
	case 401:
		return model.KindUnauthenticated
	case 403:
		return model.KindDenied
	case 404:
		return model.KindNotFound
	case 409:
		return model.KindConflict
	case 412:
		return model.KindStale
	case 429, 502, 503:
		return model.KindUnavailable
	case 504:
		return model.KindUnknownOutcome
	case 507:
		return model.KindExhausted
	}
	if code >= 400 && code < 500 {
		return model.KindInvalid
	}
	return model.KindInternal
}

// mergeMaps gives a and b in one map, b winning; it copies only if it must.
func mergeMaps(a, b map[string]string) map[string]string {
	if len(b) == 0 {
		return a
	}
	if len(a) == 0 {
		return b
	}
	m := make(map[string]string, len(a)+len(b))
	for k, v := range a {
		m[k] = v
	}
	for k, v := range b {
		m[k] = v
	}
	return m
}

func taskID(t *model.Task) string {
	if t == nil {
		return ""
	}
	return t.ID
}

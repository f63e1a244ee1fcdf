package run

import (
	"bytes"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/osds-io/osds/pkg/model"
)

// head keeps the first limit bytes. It takes the rest too, and drops it: a
// command whose pipe is full would hang.
type head struct {
	limit int
	buf   []byte
	over  bool
}

func (h *head) Write(p []byte) (int, error) {
	n := min(len(p), h.limit-len(h.buf))
	h.buf = append(h.buf, p[:n]...)
	h.over = h.over || n < len(p)
	return len(p), nil
}

// endSize is how much of standard error is kept at either end: the cause is
// usually in the first lines or in the last.
const endSize = 8 << 10

type ends struct {
	first, last []byte
	cut         bool
}

func (e *ends) Write(p []byte) (int, error) {
	n := min(len(p), endSize-len(e.first))
	e.first = append(e.first, p[:n]...)
	e.last = append(e.last, p[n:]...)
	if len(e.last) > endSize {
		e.cut = true
		e.last = append(e.last[:0:0], e.last[len(e.last)-endSize:]...)
	}
	return len(p), nil
}

func (e *ends) bytes() []byte {
	if !e.cut {
		return append(e.first, e.last...)
	}
	// Cut at lines, so that a secret is never halved and so not recognised.
	first, last := e.first[:len(e.first)-lineSlack], e.last[lineSlack:]
	if i := bytes.LastIndexByte(e.first, '\n'); i >= 0 {
		first = e.first[:i+1]
	}
	if i := bytes.IndexByte(e.last, '\n'); i >= 0 {
		last = e.last[i:]
	}
	return slices.Concat(first, []byte("[...]"), last)
}

// lineSlack is dropped on both sides of the cut where there is no line to cut at.
const lineSlack = 1 << 10

// redact gives a copy of argv without the secrets.
func redact(argv []string, secrets []model.Secret) []string {
	out := make([]string, len(argv))
	for i, a := range argv {
		out[i] = hide(a, secrets)
	}
	return out
}

func hide(s string, secrets []model.Secret) string {
	// Longer ones first: a secret may be a part of another.
	secrets = slices.Clone(secrets)
	slices.SortFunc(secrets, func(a, b model.Secret) int { return len(b) - len(a) })
	for _, x := range secrets {
		if v := x.Reveal(); v != "" {
			s = strings.ReplaceAll(s, v, "***")
		}
	}
	return s
}

// errorSize bounds what of standard error goes into messages.
const errorSize = 2 << 10

// clean makes standard error fit for a message: no secrets, one line, no control
// characters, and not too long.
func clean(b []byte, secrets []model.Secret) string {
	s := hide(strings.ToValidUTF8(string(b), "?"), secrets)
	var lines []string
	for _, l := range strings.FieldsFunc(s, func(r rune) bool { return r == '\n' || r == '\r' }) {
		l = strings.TrimSpace(strings.Map(func(r rune) rune {
			if unicode.IsControl(r) {
				return ' '
			}
			return r
		}, l))
		if l != "" {
			lines = append(lines, l)
		}
	}
	s = strings.Join(lines, "; ")
	if len(s) <= errorSize {
		return s
	}
	a, z := errorSize/2, len(s)-errorSize/2
	for a > 0 && !utf8.RuneStart(s[a]) {
		a--
	}
	for z < len(s) && !utf8.RuneStart(s[z]) {
		z++
	}
	return s[:a] + " [...] " + s[z:]
}

package selector

import (
	"fmt"
	"math"
	"regexp"
	"regexp/syntax"
	"slices"
	"strconv"
	"strings"
	"unique"
)

// outcome is what a rule finds of one pool.
type outcome uint8

const (
	pass      outcome = iota
	fail              // compared, and not so
	missing           // the pool does not state the value
	wrongType         // the pool's value is of a type that the rule cannot compare
	unknownOp         // the rule has an operator that does not exist
	noFigures         // the pool's capacity figures make no sense
)

// wish is what a value should be: a test, and the words for it.
type wish struct {
	want  string // with its operator: ">= 150"
	short string // as it reads after "not": "a" for "== a"
	needs string // the type of value it can compare
	cost  int8
	test  func(*value) outcome
	// elements takes the place of the test for a list; without it a list is of
	// the wrong type.
	elements func([]value) outcome
	// unknown says which operator does not exist; such a wish is met by no
	// pool.
	unknown string
}

// Costs order the rules of a plan: those that reject for the least work come
// first.
const (
	costFirst  int8 = iota // rejects most pools: id, capacity
	costSlot               // one comparison of a known slot
	costLookup             // a lookup by key
	costWords              // several comparisons, comparison of letters
	costRegexp
)

// Bounds of a wish, which comes from a client.
const (
	maxWishText     = 1024
	maxPattern      = 256
	maxPatternSize  = 500
	maxAlternatives = 64
)

// epsilon is how far two numbers may be apart, in proportion, and still be
// equal.
const epsilon = 1e-9

func equalNumbers(a, b float64) bool {
	return math.Abs(a-b) <= epsilon*max(1, math.Abs(a), math.Abs(b))
}

// compare is the meaning of a comparison sign, given whether the two are equal
// and whether the pool's is the smaller one.
func compare(sign string, equal, less bool) bool {
	switch sign {
	case "==", "=":
		return equal
	case "!=":
		return !equal
	case "<":
		return less && !equal
	case "<=":
		return less || equal
	case ">":
		return !less && !equal
	case ">=":
		return !less || equal
	}
	return false
}

func verdict(ok bool) outcome {
	if ok {
		return pass
	}
	return fail
}

// wishNumber compares numbers.
func wishNumber(sign string, want float64) wish {
	w := wish{want: sign + " " + formatNumber(want), needs: "a number", cost: costSlot}
	w.short = strings.TrimPrefix(w.want, "== ")
	w.test = func(v *value) outcome {
		if v.kind != number {
			return wrongType
		}
		return verdict(compare(sign, equalNumbers(v.num, want), v.num < want))
	}
	return w
}

// wishText wants a text, in whatever case.
func wishText(want string) wish {
	h := unique.Make(strings.ToLower(want))
	return wish{want: "== " + clip(want), short: clip(want), needs: "a text", cost: costSlot,
		test: func(v *value) outcome {
			if v.kind != text {
				return wrongType
			}
			return verdict(v.fold == h)
		}}
}

// wishExact wants a text, letter by letter.
func wishExact(want string) wish {
	w := wishText(want)
	h := unique.Make(want)
	w.test = func(v *value) outcome {
		if v.kind != text {
			return wrongType
		}
		return verdict(v.raw == h)
	}
	return w
}

// wishBool wants true or false.
func wishBool(want bool) wish {
	n := boolValue(want).num
	s := strconv.FormatBool(want)
	return wish{want: "== " + s, short: s, needs: "true or false", cost: costSlot,
		test: func(v *value) outcome {
			if v.kind != boolean {
				return wrongType
			}
			return verdict(v.num == n)
		}}
}

// wishContains wants every one of the values in a list.
func wishContains(wants []value) wish {
	l := showList(wants)
	return wish{want: "contains " + l, short: "with all of " + l, needs: "a list", cost: costWords,
		test: func(*value) outcome { return wrongType },
		elements: func(have []value) outcome {
			for _, w := range wants {
				if !slices.ContainsFunc(have, func(h value) bool { return sameTyped(w, h) }) {
					return fail
				}
			}
			return pass
		}}
}

// sameTyped is equality of two values of one type; texts letter by letter.
func sameTyped(a, b value) bool {
	if a.kind != b.kind {
		return false
	}
	switch a.kind {
	case text:
		return a.raw == b.raw
	case number:
		return equalNumbers(a.num, b.num)
	case boolean:
		return a.num == b.num
	}
	return false
}

// parseWish reads what a profile asks of one pool value: a text with an operator
// or a typed value. The error says what is wrong and how to write it.
func parseWish(x any) (wish, error) {
	switch t := x.(type) {
	case string:
		return parseText(t)
	case bool:
		return wishBool(t), nil
	case nil:
		return wish{}, fmt.Errorf("null asks for nothing; leave the key out")
	case map[string]any:
		return wish{}, fmt.Errorf("an object cannot be compared; write one key for each value in it, with the path separated by dots")
	case []any, []string:
		return parseList(t)
	}
	f, ok := toFloat(x)
	if !ok || math.IsNaN(f) || math.IsInf(f, 0) {
		return wish{}, fmt.Errorf("a value of this type cannot be compared; use a text, a number, true, false or a list of these")
	}
	return wishNumber("==", f), nil
}

func parseList(x any) (wish, error) {
	l := elements(x)
	if len(l) == 0 {
		return wish{}, fmt.Errorf("an empty list asks for nothing; leave the key out")
	}
	if len(l) > maxAlternatives {
		return wish{}, fmt.Errorf("a list may have at most %d elements", maxAlternatives)
	}
	for _, e := range l {
		if e.kind == absent || e.kind == other {
			return wish{}, fmt.Errorf("a list may hold texts, numbers, true and false only")
		}
	}
	return wishContains(l), nil
}

// parseText reads an operator and what follows it. A text without an operator is
// compared as a whole.
func parseText(s string) (wish, error) {
	s = strings.TrimSpace(s)
	if len(s) > maxWishText {
		return wish{}, fmt.Errorf("is longer than %d bytes", maxWishText)
	}
	op, rest := s, ""
	if i := strings.IndexAny(s, " \t\r\n"); i >= 0 {
		op, rest = s[:i], strings.TrimSpace(s[i:])
	}
	switch op {
	case "":
		return wish{}, fmt.Errorf("is empty")
	case "==", "!=", ">=", "<=", ">", "<":
		f, err := parseNumber(rest)
		if err != nil {
			return wish{}, fmt.Errorf("%s compares numbers: %w (to compare texts use s%s)", op, err, op)
		}
		return wishNumber(op, f), nil
	case "s==", "s!=", "s>=", "s<=", "s>", "s<":
		if rest == "" {
			return wish{}, fmt.Errorf("%s is followed by nothing; write %q", op, op+" SSD")
		}
		return wishLetters(op, rest), nil
	case "=":
		return parseEqual(rest)
	case "<is>":
		b, err := strconv.ParseBool(rest)
		if err != nil {
			return wish{}, fmt.Errorf(`<is> is followed by true or false, not %q`, clip(rest))
		}
		w := wishBool(b)
		w.want = "<is> " + strconv.FormatBool(b)
		return w, nil
	case "<in>":
		return parsePattern(rest)
	case "<or>":
		return parseAlternatives(rest)
	}
	if o, ok := operatorLike(op); ok {
		w := wish{want: clip(s), short: clip(s), needs: "an operator that exists", cost: costFirst}
		w.test = func(*value) outcome { return unknownOp }
		w.unknown = fmt.Sprintf("unknown operator %q (known, each followed by a space: %s)", clip(o), operatorList)
		return w, nil
	}
	return parsePlain(s), nil
}

const operatorList = "== != >= <= > < = s== s!= s>= s<= s> s< <is> <in> <or>"

// operatorLike finds the sign at the beginning of a word that was surely meant
// as an operator, so that a slip (">=5", "=>", "<like>") is reported and not
// taken as a text to compare with.
func operatorLike(word string) (string, bool) {
	const signs = "<>=!"
	if strings.HasPrefix(word, "<") {
		if i := strings.IndexByte(word, '>'); i > 1 {
			return word[:i+1], true
		}
	}
	start := 0
	if len(word) > 1 && word[0] == 's' && strings.ContainsRune(signs, rune(word[1])) {
		start = 1
	}
	end := start
	for end < len(word) && strings.IndexByte(signs, word[end]) >= 0 {
		end++
	}
	return word[:end], end > start
}

func parseNumber(s string) (float64, error) {
	f, err := strconv.ParseFloat(s, 64)
	if err != nil || math.IsNaN(f) || math.IsInf(f, 0) {
		return 0, fmt.Errorf("%q is not a number", clip(s))
	}
	return f, nil
}

// parsePlain is a text without an operator: it is compared with a text in
// whatever case, with a number as a number, and with a boolean as a boolean.
func parsePlain(s string) wish {
	w := wishText(s)
	asText := w.test
	n, nerr := parseNumber(s)
	b, berr := strconv.ParseBool(s)
	isBool := boolValue(b).num
	w.needs = "a text"
	if nerr == nil {
		w.needs += " or a number"
	}
	if berr == nil {
		w.needs += " or true or false"
	}
	w.test = func(v *value) outcome {
		switch {
		case v.kind == text:
			return asText(v)
		case v.kind == number && nerr == nil:
			return verdict(equalNumbers(v.num, n))
		case v.kind == boolean && berr == nil:
			return verdict(v.num == isBool)
		}
		return wrongType
	}
	return w
}

func parseEqual(rest string) (wish, error) {
	if rest == "" {
		return wish{}, fmt.Errorf(`= is followed by nothing; write "= 200"`)
	}
	w := parsePlain(rest)
	w.want = "= " + clip(rest)
	return w, nil
}

// wishLetters compares texts by their letters, in lower case.
func wishLetters(op, want string) wish {
	sign, fold := op[1:], strings.ToLower(want)
	w := wish{want: op + " " + clip(want), needs: "a text", cost: costWords}
	w.short = w.want
	w.test = func(v *value) outcome {
		if v.kind != text {
			return wrongType
		}
		have := v.fold.Value()
		return verdict(compare(sign, have == fold, have < fold))
	}
	return w
}

// parsePattern is a search with a regular expression (RE2, linear time). It
// looks at the text as the pool states it, so case counts; (?i) turns that off.
func parsePattern(pattern string) (wish, error) {
	if pattern == "" {
		return wish{}, fmt.Errorf(`<in> is followed by a regular expression, such as "<in> ^SSD"`)
	}
	if len(pattern) > maxPattern {
		return wish{}, fmt.Errorf("the regular expression is longer than %d bytes", maxPattern)
	}
	tree, err := syntax.Parse(pattern, syntax.Perl)
	if err != nil {
		return wish{}, fmt.Errorf("<in> has a regular expression that cannot be read: %v", err)
	}
	if patternSize(tree) > maxPatternSize {
		return wish{}, fmt.Errorf("<in> has a regular expression that repeats too much; written out it may have at most %d parts", maxPatternSize)
	}
	re, err := regexp.Compile(pattern)
	if err != nil {
		return wish{}, fmt.Errorf("<in> has a regular expression that cannot be read: %v", err)
	}
	w := wish{want: "<in> " + clip(pattern), needs: "a text", cost: costRegexp}
	w.short = w.want
	w.test = func(v *value) outcome {
		if v.kind != text {
			return wrongType
		}
		return verdict(re.MatchString(v.raw.Value()))
	}
	return w, nil
}

// patternSize is about how many parts an expression has when its counted
// repetitions are written out: a few letters ("(a{99}){10}") can ask for a
// search that takes seconds for each pool.
func patternSize(re *syntax.Regexp) int {
	n := 1
	if re.Op == syntax.OpLiteral {
		n = max(1, len(re.Rune))
	}
	if len(re.Sub) > 0 && re.Op == syntax.OpRepeat {
		return min(patternSize(re.Sub[0])*max(re.Min, re.Max, 1), maxPatternSize+1)
	}
	for _, sub := range re.Sub {
		n += patternSize(sub)
	}
	return min(n, maxPatternSize+1)
}

// parseAlternatives reads what follows the first <or>: alternatives of which
// each is compared like a text without an operator.
func parseAlternatives(rest string) (wish, error) {
	var alts []wish
	var words []string
	for word := range strings.FieldsSeq(rest + " <or>") {
		if word != "<or>" {
			words = append(words, word)
			continue
		}
		alt := strings.Join(words, " ")
		if alt == "" {
			return wish{}, fmt.Errorf(`<or> is followed by nothing; write "<or> SSD <or> NVME"`)
		}
		if o, ok := operatorLike(words[0]); ok {
			return wish{}, fmt.Errorf("an alternative of <or> is a plain value, without the operator %q", clip(o))
		}
		if len(alts) == maxAlternatives {
			return wish{}, fmt.Errorf("<or> may have at most %d alternatives", maxAlternatives)
		}
		alts, words = append(alts, parsePlain(alt)), nil
	}
	w := wish{want: "<or> " + clip(strings.Join(strings.Fields(rest), " ")), needs: alts[0].needs, cost: costWords}
	w.short = w.want
	w.test = func(v *value) outcome {
		comparable := false
		for i := range alts {
			switch alts[i].test(v) {
			case pass:
				return pass
			case fail:
				comparable = true
			}
		}
		if comparable {
			return fail
		}
		return wrongType
	}
	return w, nil
}

// isTrue says whether a wish for a boolean asks for true, in any of its
// spellings.
func isTrue(x any) bool {
	switch t := x.(type) {
	case bool:
		return t
	case string:
		w, err := parseText(t)
		yes, no := boolValue(true), boolValue(false)
		return err == nil && w.unknown == "" && w.test(&yes) == pass && w.test(&no) == fail
	}
	return false
}

// Package conf loads the configuration of a daemon or a driver, strictly: what
// is not known is refused, with the place, the key and the nearest known key.
//
// A configuration is a plain struct. Its values before Load are the defaults;
// above them come the YAML file, then the environment, then flags. Keys are the
// fields' yaml tags (or their json tags, or their names with a lower-case first
// letter), joined with dots: api.listen. Tags:
//
//	yaml:"listen"        the key
//	doc:"..."            one or two sentences for docs/configuration.md
//	oneof:"text,json"    the values that are accepted
//
// A field of type model.Secret named token may also be given as tokenFile: the
// path of a file that holds it.
//
// Any struct in the tree may have a method Validate() error. It is called after
// loading; a *model.Error's Field is taken as relative to the struct's key. The
// struct of a list's elements may have a method SetDefaults(), called on each
// element before it is read.
package conf

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"reflect"
	"strings"

	"github.com/spf13/pflag"
	"github.com/spf13/viper"

	"github.com/osds-io/osds/pkg/model"
)

// MaxFile is the largest configuration file that is read.
const MaxFile = 1 << 20

// maxProblems bounds how many problems one error lists.
const maxProblems = 20

// Options says where Load looks.
type Options struct {
	// Name is the daemon's or driver's name; it stands in messages and in the
	// names of variables that are meant for this daemon alone.
	Name string
	// File is the YAML file; empty for none.
	File string
	// Optional lets File be absent.
	Optional bool
	// EnvPrefix turns the environment on: with OSDS, the variable of api.listen
	// is OSDS_API_LISTEN, or OSDS_<NAME>_API_LISTEN for this daemon alone, which
	// wins. Lists are separated by commas, or written as YAML.
	EnvPrefix string
	// OtherEnv are variables with the prefix that belong to somebody else: they
	// are never taken for a misspelling.
	OtherEnv []string
	// Flags that were given and bear the name of a key win over all else; other
	// flags are left alone. AddFlags defines them.
	Flags *pflag.FlagSet
}

// Load reads the configuration into target, a pointer to a struct that holds
// the defaults. On an error target is as it was before. The error is a
// *model.Error of kind invalid that lists everything that is wrong, one to a
// line.
func Load(target any, o Options) error {
	var data []byte
	if o.File != "" {
		var err error
		if data, err = readFile(o.File); err != nil {
			if !o.Optional || !errors.Is(err, fs.ErrNotExist) {
				return model.Errorf(model.KindInvalid, "configuration: %w", err)
			}
		}
	}
	return load(target, data, o)
}

// Parse is Load from text alone; name stands in messages.
func Parse(target any, name string, data []byte) error {
	return load(target, data, Options{Name: name, File: name})
}

func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, MaxFile+1))
	if err == nil && len(data) > MaxFile {
		err = fmt.Errorf("%s: larger than %s", path, model.Bytes(MaxFile))
	}
	return data, err
}

func load(target any, data []byte, o Options) error {
	rv := reflect.ValueOf(target)
	if rv.Kind() != reflect.Pointer || rv.IsNil() || rv.Elem().Kind() != reflect.Struct {
		panic("conf: target must be a pointer to a struct")
	}
	// Work on a copy, so that an error leaves target alone. Lists and maps are
	// always replaced as a whole, so a shallow copy is enough.
	work := reflect.New(rv.Elem().Type()).Elem()
	work.Set(rv.Elem())

	l := &loader{opts: o, fields: fieldsOf(work)}
	v := viper.NewWithOptions(viper.KeyDelimiter("\x00"))
	if len(data) > 0 {
		l.file(v, work.Type(), data)
	}
	l.env(v)
	l.flags(v)
	for _, f := range l.fields {
		l.assign(v, f)
	}
	if len(l.problems) == 0 {
		l.validate(work, "")
	}
	if err := l.err(); err != nil {
		return err
	}
	rv.Elem().Set(work)
	return nil
}

type loader struct {
	opts     Options
	fields   []field
	problems []*model.Error
	more     int
}

// problem notes something wrong with a key; where is its place, or empty.
func (l *loader) problem(key, where, format string, args ...any) {
	if len(l.problems) >= maxProblems {
		l.more++
		return
	}
	msg := fmt.Sprintf(format, args...)
	if key != "" {
		msg = key + ": " + msg
	}
	if where != "" {
		msg = where + ": " + msg
	}
	l.problems = append(l.problems, &model.Error{Kind: model.KindInvalid, Field: key, Message: msg})
}

func (l *loader) err() error {
	if len(l.problems) == 0 {
		return nil
	}
	msgs := make([]string, 0, len(l.problems)+1)
	for _, p := range l.problems {
		msgs = append(msgs, p.Message)
	}
	if l.more > 0 {
		msgs = append(msgs, fmt.Sprintf("and %d more", l.more))
	}
	return &model.Error{Kind: model.KindInvalid, Field: l.problems[0].Field, Message: strings.Join(msgs, "\n")}
}

// fileNode is a value from the file on its way through viper, which decides the
// precedence only: it would fold the case of keys inside maps.
type fileNode struct{ n *node }

// assign gives a field its value: viper knows from where.
func (l *loader) assign(v *viper.Viper, f field) {
	set := func(key string) (any, string) {
		if !v.IsSet(key) {
			return nil, ""
		}
		return v.Get(key), l.source(v, key)
	}
	val, where := set(f.key)
	if f.secretFile {
		if path, pathWhere := set(f.key + "File"); path != nil {
			if val != nil {
				l.problem(f.key, pathWhere, "%sFile is given too, at %s; keep one of them", f.key, where)
				return
			}
			l.assignSecretFile(f, path, pathWhere)
			return
		}
	}
	switch x := val.(type) {
	case nil:
	case fileNode:
		l.decode(x.n, f.val, f.key, f.oneof)
	case []string:
		l.setList(f, x, where)
	default:
		l.setFromText(f, fmt.Sprint(x), where)
	}
}

func (l *loader) assignSecretFile(f field, path any, where string) {
	p := fmt.Sprint(path)
	if n, ok := path.(fileNode); ok {
		p = n.n.Value
	}
	data, err := readFile(p)
	if err != nil {
		l.problem(f.key+"File", where, "%v", err)
		return
	}
	s := strings.TrimRight(string(data), "\r\n")
	if s == "" {
		l.problem(f.key+"File", where, "%s is empty", p)
		return
	}
	f.val.SetString(s)
}

// source names the place a key's value came from, for messages.
func (l *loader) source(v *viper.Viper, key string) string {
	if fl := l.flagFor(key); fl != nil {
		return "flag --" + fl.Name
	}
	if l.opts.EnvPrefix != "" {
		for _, name := range l.envNames(key) {
			if os.Getenv(name) != "" {
				return "variable " + name
			}
		}
	}
	if x, ok := v.Get(key).(fileNode); ok {
		return l.at(x.n)
	}
	return ""
}

func (l *loader) at(n *node) string { return fmt.Sprintf("%s:%d", l.opts.File, n.Line) }

// setFromText sets a field from one string, of a variable or a flag.
func (l *loader) setFromText(f field, s, where string) {
	if isScalar(f.val.Type()) {
		if err := setText(f.val, s, f.oneof); err != nil {
			l.problem(f.key, where, "%v", err)
		}
		return
	}
	if f.val.Kind() == reflect.Slice && isScalar(f.val.Type().Elem()) && !strings.HasPrefix(strings.TrimSpace(s), "[") {
		l.setList(f, strings.Split(s, ","), where)
		return
	}
	root, err := parse([]byte(s))
	if err != nil {
		l.problem(f.key, where, "%v", err)
		return
	}
	sub := &loader{opts: Options{File: where}}
	sub.decode(root, f.val, f.key, f.oneof)
	l.problems = append(l.problems, sub.problems...)
}

func (l *loader) setList(f field, parts []string, where string) {
	if f.val.Kind() != reflect.Slice || !isScalar(f.val.Type().Elem()) {
		l.problem(f.key, where, "cannot be given as a list of words")
		return
	}
	out := reflect.MakeSlice(f.val.Type(), 0, len(parts))
	for _, p := range parts {
		e := reflect.New(f.val.Type().Elem()).Elem()
		if err := setText(e, strings.TrimSpace(p), f.oneof); err != nil {
			l.problem(f.key, where, "%v", err)
			return
		}
		out = reflect.Append(out, e)
	}
	f.val.Set(out)
}

// validate calls Validate of every struct in the tree, inner ones first.
func (l *loader) validate(v reflect.Value, path string) {
	switch {
	case v.Kind() == reflect.Slice && !isScalar(v.Type()):
		for i := range v.Len() {
			l.validate(v.Index(i), fmt.Sprintf("%s[%d]", path, i))
		}
	case v.Kind() == reflect.Struct && !isScalar(v.Type()):
		for _, f := range structFields(v.Type()) {
			l.validate(v.FieldByIndex(f.index), join(path, f.name))
		}
		val, ok := v.Addr().Interface().(interface{ Validate() error })
		if !ok {
			return
		}
		if err := val.Validate(); err != nil {
			e := model.AsError(err)
			key := path
			if e.Field != "" {
				key = join(path, e.Field)
			}
			l.problem(key, l.opts.File, "%s", e.Error())
		}
	}
}

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

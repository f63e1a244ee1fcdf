package conf

import (
	"fmt"
	"os"
	"sort"
	"strings"

	"github.com/spf13/pflag"
	"github.com/spf13/viper"
)

// envKeys lists every key that a variable may set.
func (l *loader) envKeys() []string {
	var out []string
	for _, f := range l.fields {
		out = append(out, f.key)
		if f.secretFile {
			out = append(out, f.key+"File")
		}
	}
	return out
}

// EnvName gives the variable of a key: OSDS_API_LISTEN of api.listen.
func EnvName(prefix, key string) string {
	return prefix + "_" + strings.ToUpper(strings.NewReplacer(".", "_", "-", "_").Replace(key))
}

// envNames gives the variables of a key, the one that wins first.
func (l *loader) envNames(key string) []string {
	names := []string{EnvName(l.opts.EnvPrefix, key)}
	if l.opts.Name != "" {
		names = append([]string{EnvName(l.ownPrefix(), key)}, names...)
	}
	return names
}

// ownPrefix begins the variables that are meant for this daemon alone.
func (l *loader) ownPrefix() string { return EnvName(l.opts.EnvPrefix, l.opts.Name) }

// env binds the variables, and refuses those that can only be mistakes: unknown
// ones meant for this daemon alone, and near misses of known ones. Others with
// the prefix may be another program's.
func (l *loader) env(v *viper.Viper) {
	if l.opts.EnvPrefix == "" {
		return
	}
	names := map[string]bool{}
	var list []string
	for _, key := range l.envKeys() {
		own := l.envNames(key)
		if err := v.BindEnv(append([]string{key}, own...)...); err != nil {
			l.problem(key, "", "%v", err)
		}
		for _, n := range own {
			names[n] = true
			list = append(list, n)
		}
	}
	var given []string
	for _, kv := range os.Environ() {
		name, _, _ := strings.Cut(kv, "=")
		if strings.HasPrefix(name, l.opts.EnvPrefix+"_") && !names[name] && !contains(l.opts.OtherEnv, name) {
			given = append(given, name)
		}
	}
	sort.Strings(given)
	for _, name := range given {
		near := Nearest(name, list)
		mine := l.opts.Name != "" && strings.HasPrefix(name, l.ownPrefix()+"_")
		if !mine && (near == "" || distance(name, near, 3) > 2) {
			continue
		}
		hint := ""
		if near != "" {
			hint = fmt.Sprintf("; did you mean %s?", near)
		}
		l.problem("", "variable "+name, "unknown%s", hint)
	}
}

// flagFor gives the flag that was given for a key, if any.
func (l *loader) flagFor(key string) *pflag.Flag {
	if l.opts.Flags == nil {
		return nil
	}
	if fl := l.opts.Flags.Lookup(key); fl != nil && fl.Changed {
		return fl
	}
	return nil
}

func (l *loader) flags(v *viper.Viper) {
	for _, key := range l.envKeys() {
		if fl := l.flagFor(key); fl != nil {
			if err := v.BindPFlag(key, fl); err != nil {
				l.problem(key, "flag --"+fl.Name, "%v", err)
			}
		}
	}
}

// AddFlags defines a flag for every key of target that is one value or a list
// of words, named like the key and described by its doc tag. The flags' own
// defaults are never used: Load looks only at flags that were given.
func AddFlags(fs *pflag.FlagSet, target any) {
	for _, k := range Reference(target) {
		if k.flag && fs.Lookup(k.Key) == nil {
			fl := fs.VarPF(&textFlag{typ: k.Type}, k.Key, "", k.Doc)
			if k.Type == "bool" {
				fl.NoOptDefVal = "true"
			}
		}
	}
}

// textFlag holds a flag's text until Load reads it.
type textFlag struct{ typ, text string }

func (t *textFlag) String() string     { return t.text }
func (t *textFlag) Set(s string) error { t.text = s; return nil }

// Type is never one that viper parses itself.
func (t *textFlag) Type() string {
	if t.typ == "bool" {
		return ""
	}
	return t.typ
}

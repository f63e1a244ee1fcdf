package harness

import (
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// Config is a configuration file as keys with dots, "api.listen", and values. A
// value that is a map or a list stands as it is.
type Config map[string]any

// With gives a copy with the keys of more over those of c; a nil value removes a
// key.
func (c Config) With(more Config) Config {
	out := maps.Clone(c)
	if out == nil {
		out = Config{}
	}
	for k, v := range more {
		if v == nil {
			delete(out, k)
			continue
		}
		out[k] = v
	}
	return out
}

// YAML gives the file's text.
func (c Config) YAML() ([]byte, error) {
	root := map[string]any{}
	for _, key := range slices.Sorted(maps.Keys(c)) {
		at := root
		parts := strings.Split(key, ".")
		for _, p := range parts[:len(parts)-1] {
			next, ok := at[p].(map[string]any)
			if !ok {
				next = map[string]any{}
				at[p] = next
			}
			at = next
		}
		at[parts[len(parts)-1]] = c[key]
	}
	return yaml.Marshal(root)
}

// WriteFile writes a file for a test's programs.
func WriteFile(t testing.TB, path string, data []byte) string {
	t.Helper()
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func (c Config) write(t testing.TB, path string) {
	t.Helper()
	b, err := c.YAML()
	if err != nil {
		t.Fatal(err)
	}
	WriteFile(t, path, b)
}

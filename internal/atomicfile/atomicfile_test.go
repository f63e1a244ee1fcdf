package atomicfile

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

func TestWriteReplacesWhole(t *testing.T) {
	dir := t.TempDir()
	p := filepath.Join(dir, "f")
	for _, text := range []string{"a long first content", "short", ""} {
		if err := Write(p, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(p)
		if err != nil || string(got) != text {
			t.Errorf("got %q, %v", got, err)
		}
	}
	st, err := os.Stat(p)
	if err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", st.Mode(), err)
	}
	if left, _ := os.ReadDir(dir); len(left) != 1 {
		t.Errorf("left behind: %v", left)
	}
}

func TestReplaceAndBegin(t *testing.T) {
	dir := t.TempDir()
	p := filepath.Join(dir, "f")
	durable, err := Begin(p, []byte("begun"), 0o600)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(p); err != nil || string(got) != "begun" {
		t.Errorf("at once %q, %v", got, err)
	}
	if err := durable(); err != nil {
		t.Error(err)
	}
	if _, err := Begin(p, []byte("again"), 0o600); !errors.Is(err, os.ErrExist) {
		t.Errorf("a file that exists is begun: %v", err)
	}
	if err := Replace(p, []byte("new"), 0o640); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(p)
	st, _ := os.Stat(p)
	if err != nil || string(got) != "new" || st.Mode().Perm() != 0o640 {
		t.Errorf("%q, %v, %v", got, st, err)
	}
	if left, _ := os.ReadDir(dir); len(left) != 1 {
		t.Errorf("left behind: %v", left)
	}
}

func TestWriteLeavesNothingOnError(t *testing.T) {
	dir := t.TempDir()
	p := filepath.Join(dir, "f")
	if err := os.Mkdir(p, 0o700); err != nil { // a directory cannot be replaced
		t.Fatal(err)
	}
	if err := Write(p, []byte("x"), 0o600); err == nil {
		t.Error("no error")
	}
	if left, _ := os.ReadDir(dir); len(left) != 1 {
		t.Errorf("left behind: %v", left)
	}
	if err := Write(filepath.Join(dir, "none", "f"), nil, 0o600); err == nil {
		t.Error("no error for a missing directory")
	}
}

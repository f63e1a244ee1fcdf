package db

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/osds-io/osds/pkg/model"
)

func openIn(t *testing.T, dir string) *Store {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	s, err := Open(ctx, Config{Embedded: Embedded{Dir: dir}})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func aside(t *testing.T, dir string) []string {
	t.Helper()
	l, err := filepath.Glob(filepath.Join(dir, memberDir+".unfinished-*"))
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// What a first start that was cut short has left is put aside, and the member
// starts anew; a member that has been ready once is never touched.
func TestFirstStartCutShort(t *testing.T) {
	dir := t.TempDir()
	wal := filepath.Join(dir, memberDir, "member", "wal")
	if err := os.MkdirAll(wal, 0o700); err != nil {
		t.Fatal(err)
	}
	for path, text := range map[string]string{
		filepath.Join(dir, memberMark):                              "",
		filepath.Join(wal, "0000000000000000-0000000000000000.wal"): "cut",
	} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s := openIn(t, dir)
	h := &model.Host{Meta: model.Meta{ID: model.NewID(), Name: "h", CreatedAt: time.Now().UTC()}, HostName: "h"}
	if _, err := s.Commit(t.Context(), (&Txn{Label: "test"}).Create(h)); err != nil {
		t.Fatal(err)
	}
	s.Close()
	if _, err := os.Stat(filepath.Join(dir, memberMark)); !os.IsNotExist(err) {
		t.Errorf("the mark after the member was ready: %v", err)
	}
	left := aside(t, dir)
	if len(left) != 1 {
		t.Fatalf("put aside: %v", left)
	}
	if b, err := os.ReadFile(filepath.Join(left[0], "member", "wal", "0000000000000000-0000000000000000.wal")); err != nil || string(b) != "cut" {
		t.Errorf("what was put aside: %q %v", b, err)
	}

	s = openIn(t, dir)
	defer s.Close()
	if _, ok := s.Hosts.Get(h.ID); !ok {
		t.Error("the record is gone after a restart")
	}
	if again := aside(t, dir); len(again) != 1 {
		t.Errorf("put aside by a later start: %v", again)
	}
}

package obs

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"testing"
)

func TestProfilesAreWritten(t *testing.T) {
	dir := t.TempDir()
	cpu, mem := filepath.Join(dir, "cpu"), filepath.Join(dir, "mem")
	t.Setenv(CPUProfileEnv, cpu)
	t.Setenv(MemProfileEnv, mem)
	ctx, cancel := context.WithCancel(t.Context())
	stop, err := StartProfiles(ctx)
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	for _, f := range []string{cpu, mem} {
		b, err := os.ReadFile(f)
		if err != nil || !bytes.HasPrefix(b, []byte{0x1f, 0x8b}) { // gzip
			t.Errorf("%s: %d bytes, %v", f, len(b), err)
		}
	}
}

func TestProfilesNobodyAskedFor(t *testing.T) {
	t.Setenv(CPUProfileEnv, "")
	t.Setenv(MemProfileEnv, "")
	stop, err := StartProfiles(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	t.Setenv(CPUProfileEnv, filepath.Join(t.TempDir(), "no", "such"))
	if _, err := StartProfiles(t.Context()); err == nil {
		t.Error("a file that cannot be made is no error")
	}
}

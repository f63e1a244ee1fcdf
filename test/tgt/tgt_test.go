//go:build real

// Package tgt runs the exports' tests of tgt on this machine itself, whatever its
// kernel: tgt is a program, and libiscsi's test program needs no initiator of the
// kernel's.
package tgt

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/osds-io/osds/test/harness"
)

// TestTgt has the tests skip nothing for want of a program: what they need is
// installed.
func TestTgt(t *testing.T) {
	var host harness.Suite
	host.Need(t, "tgt", "tgtd", "tgtadm")
	host.Need(t, "libiscsi-bin", "iscsi-test-cu", "iscsi-inq")
	out := harness.NewVerdicts(t)
	cmd := exec.CommandContext(t.Context(), "go", "test", "-tags", "real", "-count=1", "-v", "-timeout", "8m", "-run", "Tgt", "./pkg/drivers/export")
	cmd.Dir, cmd.Stdout, cmd.Stderr = filepath.Join("..", ".."), out, out
	err := cmd.Run()
	out.End()
	if err != nil {
		t.Error(err)
	}
	t.Logf("%d tests passed, %d were skipped: %s", out.Passed, len(out.Skipped), strings.Join(out.Skipped, ", "))
	if out.Passed == 0 {
		t.Error("no test passed")
	}
}

package harness

import (
	"bytes"
	"regexp"
	"strings"
	"sync"
	"testing"
)

var verdict = regexp.MustCompile(`^\s*--- (PASS|SKIP): (\S+)`)

// Verdicts passes the output of another test program on, line by line, as output
// of a test, and counts. It is for tests that run a package's tests elsewhere.
type Verdicts struct {
	t    *testing.T
	mu   sync.Mutex
	rest []byte
	// Passed is how many tests passed; Skipped names those that were skipped.
	// They are to be read after End.
	Passed  int
	Skipped []string
}

// NewVerdicts is a writer for a test program's output.
func NewVerdicts(t *testing.T) *Verdicts { return &Verdicts{t: t} }

// Write takes output.
func (o *Verdicts) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.rest = append(o.rest, p...)
	for {
		i := bytes.IndexByte(o.rest, '\n')
		if i < 0 {
			return len(p), nil
		}
		o.line(string(o.rest[:i]))
		o.rest = o.rest[i+1:]
	}
}

// End passes on what has no line end, as a panic's output may.
func (o *Verdicts) End() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.rest) > 0 {
		o.line(string(o.rest))
	}
	o.rest = nil
}

func (o *Verdicts) line(s string) {
	if strings.HasPrefix(s, "=== ") {
		return
	}
	if m := verdict.FindStringSubmatch(s); m != nil {
		if m[1] == "PASS" {
			o.Passed++
		} else {
			o.Skipped = append(o.Skipped, m[2])
		}
	}
	// The other program's verdicts must not be taken for ours.
	_, _ = o.t.Output().Write([]byte("| " + s + "\n"))
}

package harness

import (
	"bytes"
	"crypto/tls"
	"flag"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/osds-io/osds/pkg/api/apicheck"
)

// Environment variables of the tests themselves.
const (
	// EnvBin names a directory with programs that were built already.
	EnvBin = "OSDS_TEST_BIN"
	// EnvRace, if not empty, builds the programs with the race detector.
	EnvRace = "OSDS_TEST_RACE"
	// EnvKeep, if not empty, leaves the tests' directories there.
	EnvKeep = "OSDS_TEST_KEEP"
)

// Suite is what all tests of a package share: the programs, built once, and the
// account of which operations of the API were used.
type Suite struct {
	// Let, Dock and Ctl are the paths of the programs.
	Let, Dock, Ctl string
	// API collects the operations that were exercised.
	API *apicheck.Suite
	// Race says that the programs were built with the race detector.
	Race bool

	// plain asks for health without checks.
	plain   *http.Client
	apt     sync.Mutex
	spawner *Spawner
	dir     string
	keep    bool
	logTail int
}

// Main builds the programs, runs the tests and cleans up. It is all that a
// TestMain has to do. The checks in after are made if the whole package was run,
// and well.
func Main(m *testing.M, s **Suite, after ...func() error) int {
	flag.Parse()
	su, err := NewSuite()
	if err != nil {
		fmt.Fprintln(os.Stderr, "harness:", err)
		return 1
	}
	defer su.Close()
	*s = su
	code := m.Run()
	if code != 0 || partial() {
		return code
	}
	for _, f := range after {
		if err := f(); err != nil {
			fmt.Println("--- FAIL:", err)
			code = 1
		}
	}
	return code
}

// partial says whether only some tests were asked for.
func partial() bool {
	for _, name := range []string{"test.run", "test.skip", "test.list"} {
		if f := flag.Lookup(name); f != nil && f.Value.String() != "" {
			return true
		}
	}
	return false
}

// NewSuite builds the programs into a directory of its own.
func NewSuite() (*Suite, error) {
	s := &Suite{
		API: apicheck.NewSuite(), Race: os.Getenv(EnvRace) != "" || raceEnabled, keep: os.Getenv(EnvKeep) != "",
		logTail: 24 << 10, spawner: NewSpawner(), plain: plainClient(),
	}
	// Short: sockets' paths are bounded.
	dir, err := os.MkdirTemp("", "osds-t")
	if err != nil {
		return nil, err
	}
	s.dir = dir
	bin := os.Getenv(EnvBin)
	if bin == "" {
		if bin, err = s.build(); err != nil {
			s.Close()
			return nil, err
		}
	}
	s.Let, s.Dock, s.Ctl = filepath.Join(bin, "osdslet"), filepath.Join(bin, "osdsdock"), filepath.Join(bin, "osdsctl")
	for _, p := range []string{s.Let, s.Dock, s.Ctl} {
		if _, err := os.Stat(p); err != nil {
			s.Close()
			return nil, err
		}
	}
	return s, nil
}

// plainClient trusts any certificate: it only asks whether somebody is there.
func plainClient() *http.Client {
	return &http.Client{Transport: &http.Transport{
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true, //nolint:gosec
	}}
}

// build compiles the programs from the tree that the test is part of.
func (s *Suite) build() (string, error) {
	bin := filepath.Join(s.dir, "bin")
	if err := os.Mkdir(bin, 0o700); err != nil {
		return "", err
	}
	root, err := moduleRoot()
	if err != nil {
		return "", err
	}
	args := []string{"build", "-o", bin + string(filepath.Separator)}
	if s.Race {
		args = append(args, "-race")
	}
	args = append(args, "./cmd/osdslet", "./cmd/osdsdock", "./cmd/osdsctl")
	cmd := exec.Command("go", args...)
	cmd.Dir = root
	began := time.Now()
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go %s: %w\n%s", strings.Join(args, " "), err, out)
	}
	fmt.Fprintf(os.Stderr, "harness: programs built in %s (race detector: %t)\n", time.Since(began).Round(100*time.Millisecond), s.Race)
	return bin, nil
}

func moduleRoot() (string, error) {
	out, err := exec.Command("go", "env", "GOMOD").Output()
	if err != nil {
		return "", fmt.Errorf("go env GOMOD: %w", err)
	}
	mod := string(bytes.TrimSpace(out))
	if mod == "" || mod == os.DevNull {
		return "", fmt.Errorf("not in a Go module")
	}
	return filepath.Dir(mod), nil
}

// Close ends the suite; its processes have ended with their tests.
func (s *Suite) Close() {
	s.spawner.Close()
	if s.keep {
		fmt.Fprintln(os.Stderr, "harness: kept", s.dir)
		return
	}
	_ = os.RemoveAll(s.dir)
}

func (s *Suite) spawn(f func() error) error { return s.spawner.Run(f) }

// Dir makes a directory for a test, with a short path. It is removed with the
// test.
func (s *Suite) Dir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp(s.dir, "t")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if !s.keep {
			_ = os.RemoveAll(dir)
		}
	})
	return dir
}

// NeedRoot skips a test that needs root, with the reason.
func NeedRoot(t testing.TB, why string) {
	t.Helper()
	if os.Geteuid() != 0 || runtime.GOOS != "linux" {
		t.Skipf("skipped: needs root on Linux: %s", why)
	}
}

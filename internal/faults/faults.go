// Package faults names the points at which a process can be made to die, or to
// stall, so that a test can enumerate them and try each. Off, a point costs one
// atomic load.
//
// The environment variable OSDS_FAULTS arms points when the process calls Arm:
//
//	OSDS_FAULTS=trace:/tmp/points        append the name of each point reached
//	OSDS_FAULTS=kill:dock.create.before  SIGKILL this process at the first hit
//	OSDS_FAULTS=kill:db.txn.after@3      ... at the third hit
//	OSDS_FAULTS=sleep:5s:dock.call       stall each hit
package faults

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// Env is the variable that Arm reads.
const Env = "OSDS_FAULTS"

type plan struct {
	mode  string
	point string
	nth   int64
	hits  atomic.Int64
	sleep time.Duration
	file  *os.File
	mu    sync.Mutex
}

var armed atomic.Pointer[plan]

// Arm reads OSDS_FAULTS. It is called once by a process's main; an unset
// variable leaves everything off.
func Arm() error {
	s := os.Getenv(Env)
	if s == "" {
		return nil
	}
	mode, rest, _ := strings.Cut(s, ":")
	p := &plan{mode: mode, nth: 1}
	switch mode {
	case "trace":
		f, err := os.OpenFile(rest, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		if err != nil {
			return fmt.Errorf("%s: %w", Env, err)
		}
		p.file = f
	case "kill":
		name, n, has := strings.Cut(rest, "@")
		p.point = name
		if has {
			v, err := strconv.ParseInt(n, 10, 64)
			if err != nil || v < 1 {
				return fmt.Errorf("%s: %q is not a count", Env, n)
			}
			p.nth = v
		}
	case "sleep":
		d, name, _ := strings.Cut(rest, ":")
		v, err := time.ParseDuration(d)
		if err != nil {
			return fmt.Errorf("%s: %w", Env, err)
		}
		p.point, p.sleep = name, v
	default:
		return fmt.Errorf("%s: unknown mode %q, use trace, kill or sleep", Env, mode)
	}
	armed.Store(p)
	return nil
}

// Point is a place where the process may be told to die. Names are lower case,
// dotted, and stable: "db.volume.place.before".
func Point(name string) {
	p := armed.Load()
	if p == nil {
		return
	}
	p.hit(name)
}

// On says whether any point is armed, for callers whose names cost something
// to build.
func On() bool { return armed.Load() != nil }

func (p *plan) hit(name string) {
	switch p.mode {
	case "trace":
		p.mu.Lock()
		_, _ = p.file.WriteString(name + "\n")
		p.mu.Unlock()
	case "kill":
		if name == p.point && p.hits.Add(1) == p.nth {
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {} // the signal is on its way
		}
	case "sleep":
		if name == p.point {
			time.Sleep(p.sleep)
		}
	}
}

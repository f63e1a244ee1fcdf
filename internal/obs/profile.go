package obs

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"runtime/pprof"
)

// The environment of a daemon whose costs are being looked at: files for a CPU
// profile of its whole life and for a profile of its memory at the end.
const (
	CPUProfileEnv = "OSDS_CPUPROFILE"
	MemProfileEnv = "OSDS_MEMPROFILE"
)

// StartProfiles begins what the environment asks for. The profile of memory is
// written when ctx ends: the daemon still holds what it worked with then. stop
// ends all and must be called after that; nothing need have been asked for.
func StartProfiles(ctx context.Context) (stop func() error, err error) {
	var cpu *os.File
	if name := os.Getenv(CPUProfileEnv); name != "" {
		if cpu, err = os.Create(name); err != nil {
			return nil, fmt.Errorf("%s: %w", CPUProfileEnv, err)
		}
		if err := pprof.StartCPUProfile(cpu); err != nil {
			_ = cpu.Close()
			return nil, fmt.Errorf("%s: %w", CPUProfileEnv, err)
		}
	}
	written := make(chan error, 1)
	endMem := func() bool { return true }
	if name := os.Getenv(MemProfileEnv); name != "" {
		endMem = context.AfterFunc(ctx, func() { written <- writeMemProfile(name) })
	}
	return func() (err error) {
		if cpu != nil {
			pprof.StopCPUProfile()
			err = cpu.Close()
		}
		if !endMem() {
			err = errors.Join(err, <-written)
		}
		return err
	}, nil
}

func writeMemProfile(name string) error {
	f, err := os.Create(name)
	if err != nil {
		return fmt.Errorf("%s: %w", MemProfileEnv, err)
	}
	runtime.GC() // so that the profile shows what is in use
	return errors.Join(pprof.WriteHeapProfile(f), f.Close())
}

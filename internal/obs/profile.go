package obs

import (
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

// StartProfiles begins what the environment asks for. stop ends it and writes the
// files; it must be called, and may be if nothing was asked for.
func StartProfiles() (stop func() error, err error) {
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
	mem := os.Getenv(MemProfileEnv)
	return func() error {
		var err error
		if cpu != nil {
			pprof.StopCPUProfile()
			err = cpu.Close()
		}
		if mem == "" {
			return err
		}
		f, merr := os.Create(mem)
		if merr != nil {
			return merr
		}
		runtime.GC() // so that the profile shows what is in use
		if merr = pprof.WriteHeapProfile(f); merr == nil {
			merr = f.Close()
		} else {
			_ = f.Close()
		}
		if err == nil {
			err = merr
		}
		return err
	}, nil
}

package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/osds-io/osds/pkg/client"
	"github.com/osds-io/osds/pkg/model"
	"github.com/osds-io/osds/pkg/model/wire"
)

// waitFlags are the flags of commands whose work goes on after the answer.
type waitFlags struct {
	on      bool
	timeout time.Duration
}

func (w *waitFlags) add(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&w.on, "wait", false, "wait until the work has ended, and show progress")
	cmd.Flags().DurationVar(&w.timeout, "wait-timeout", client.DefaultWait, "how long --wait waits")
}

// wait waits for a record to settle, with its progress on standard error.
func (a *app) wait(ctx context.Context, w *waitFlags, res model.Resource, id, task string, gone bool) (*client.Watched, error) {
	ctx, cancel := context.WithTimeout(ctx, w.timeout)
	defer cancel()
	noun := strings.TrimSuffix(string(res), "s")
	last := ""
	line := func(s string) {
		if s != last {
			a.note("%s %s: %s", noun, id, s)
		}
		last = s
	}
	return a.c.Wait(ctx, res, id, client.WaitOptions{
		TaskID:   task,
		Gone:     gone,
		OnChange: func(w *client.Watched) { line(w.State()) },
		OnTask: func(t *wire.TaskSpec) {
			if !t.State.Done() { // else the record's next state says it better
				line(taskLine(t))
			}
		},
	})
}

// taskLine is a task's progress in a line.
func taskLine(t *wire.TaskSpec) string {
	s := string(t.Kind)
	if t.ResourceStatus != "" {
		s = string(t.ResourceStatus)
	}
	if t.Step != "" {
		s += ", step " + string(t.Step)
	}
	if p := progressOf(t); p != "" {
		s += ", " + p
	}
	if t.Attempts > 0 {
		s += ", " + tries(t.Attempts)
	}
	if t.LastError != "" {
		s += ": " + t.LastError
	}
	if t.State == model.TaskWaiting && t.NextRetry != "" {
		s += " (next try at " + t.NextRetry + " UTC)"
	}
	return s
}

// progressOf says how far long work is; empty if nothing is known.
func progressOf(t *wire.TaskSpec) string {
	if t.Progress == nil {
		return ""
	}
	return model.Progress{What: t.Progress.What, Done: model.Bytes(t.Progress.Done), Total: model.Bytes(t.Progress.Total)}.String()
}

func tries(n int) string {
	if n == 1 {
		return "1 failed try"
	}
	return fmt.Sprintf("%d failed tries", n)
}

// begun shows the record of work that has begun, or, with --wait, what became of
// it; in the second case even if it failed, because the record says why.
func begun[T any](ctx context.Context, a *app, v *view[T], w *waitFlags, res model.Resource, x *T) error {
	if !w.on {
		return printOne(a, v, x)
	}
	s, err := a.wait(ctx, w, res, v.id(x), taskOf(x), false)
	if s == nil || len(s.Raw) == 0 {
		return err
	}
	end := new(T)
	if json.Unmarshal(s.Raw, end) == nil {
		if perr := printOne(a, v, end); perr != nil && err == nil {
			err = perr
		}
	}
	return err
}

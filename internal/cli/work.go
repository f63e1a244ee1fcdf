package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/osds-io/osds/pkg/client"
	"github.com/osds-io/osds/pkg/model"
	"github.com/osds-io/osds/pkg/model/wire"
)

// resourceNames turns what users call a resource into its name.
var resourceNames = map[string]model.Resource{
	"dock": model.ResDock, "pool": model.ResPool, "profile": model.ResProfile, "host": model.ResHost, "volume": model.ResVolume,
	"snapshot": model.ResSnapshot, "attachment": model.ResAttachment, "group": model.ResGroup, "volumegroup": model.ResGroup, "debt": model.ResDebt,
}

func (a *app) resource(s string) (model.Resource, error) {
	if s == "" {
		return "", nil
	}
	if r, ok := resourceNames[strings.TrimSuffix(strings.ToLower(s), "s")]; ok {
		return r, nil
	}
	return "", a.usage("--resource %q is not one of %s", s, strings.Join(keys(resourceNames), ", "))
}

func (a *app) taskCmd() *cobra.Command {
	cmd := group(&cobra.Command{Use: "task", Short: "Tasks: the work in progress, and the last that ended, on each record"})
	get := func(c *client.Client) client.Reader[wire.TaskSpec] { return c.Tasks }
	cmd.AddCommand(a.taskListCmd(), showCmd(a, taskView, "<task id>", get), a.taskWatchCmd(),
		a.taskActionCmd("retry <task id>", "Try a waiting task's next step now",
			func(ctx context.Context, id string) (*wire.TaskSpec, error) { return a.c.RetryTask(ctx, id) }),
		a.taskActionCmd("cancel <task id>", "Ask a task to undo itself",
			func(ctx context.Context, id string) (*wire.TaskSpec, error) { return a.c.CancelTask(ctx, id) }),
	)
	return cmd
}

func (a *app) taskListCmd() *cobra.Command {
	l := listFlags{unsorted: true}
	cmd := &cobra.Command{Use: "list", Short: "List tasks, the newest first", Args: args(0, 0),
		Long: "States: active and done, or one of pending, running, waiting, succeeded, failed, cancelled."}
	l.add(cmd, []string{"state", "resource", "resourceId"})
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		res, err := a.resource(*l.filters["resource"])
		if err != nil {
			return err
		}
		*l.filters["resource"] = string(res)
		return runList(cmd, a, taskView, func(c *client.Client) client.Reader[wire.TaskSpec] { return c.Tasks }, &l)
	}
	return cmd
}

func (a *app) taskWatchCmd() *cobra.Command {
	w := waitFlags{on: true}
	cmd := &cobra.Command{Use: "watch <task id>", Short: "Follow a task until it ends", Args: args(1, 1)}
	cmd.Flags().DurationVar(&w.timeout, "wait-timeout", client.DefaultWait, "how long to follow it")
	cmd.RunE = func(cmd *cobra.Command, x []string) error {
		c, err := a.connect()
		if err != nil {
			return err
		}
		t, err := c.Tasks.Get(cmd.Context(), x[0])
		if err != nil {
			return err
		}
		return begun(cmd.Context(), a, taskView, &w, client.ResTask, t)
	}
	return cmd
}

func (a *app) taskActionCmd(use, short string, do func(context.Context, string) (*wire.TaskSpec, error)) *cobra.Command {
	var w waitFlags
	cmd := &cobra.Command{Use: use, Short: short, Args: args(1, 1)}
	w.add(cmd)
	cmd.RunE = func(cmd *cobra.Command, x []string) error {
		if _, err := a.connect(); err != nil {
			return err
		}
		t, err := do(cmd.Context(), x[0])
		if err != nil {
			return err
		}
		return begun(cmd.Context(), a, taskView, &w, client.ResTask, t)
	}
	return cmd
}

func (a *app) eventCmd() *cobra.Command {
	cmd := group(&cobra.Command{Use: "event", Short: "Events: changes of records as they happen"})
	var resource, id string
	var since int64
	follow := &cobra.Command{Use: "watch", Short: "Show events until interrupted", Args: args(0, 0),
		Long: "With -o json, one object a line. Without --since, from now on. If the server's history does not\n" +
			"reach back to --since, the command ends with exit code 4."}
	follow.Flags().StringVar(&resource, "resource", "", "only of this resource, such as volume")
	follow.Flags().StringVar(&id, "id", "", "only of the record with this id")
	follow.Flags().Int64Var(&since, "since", 0, "begin after this revision")
	follow.RunE = func(cmd *cobra.Command, _ []string) error {
		res, err := a.resource(resource)
		if err != nil {
			return err
		}
		c, err := a.connect()
		if err != nil {
			return err
		}
		q := client.EventsQuery{Since: since, Resource: res, ID: id, OnBreak: func(err error) {
			a.note("the event stream broke (%v): connecting again", err)
		}}
		for e, err := range c.Events(cmd.Context(), q) {
			switch {
			case err != nil && cmd.Context().Err() != nil:
				return nil // interrupted, as it is meant to be
			case err != nil:
				return err
			case e.Type == wire.EventResync:
				return &failed{msg: "the server's history does not reach back far enough: list again, and begin without --since"}
			}
			if err := a.printEvent(e); err != nil {
				return err
			}
		}
		return nil
	}
	cmd.AddCommand(follow)
	return cmd
}

func (a *app) printEvent(e *wire.EventSpec) error {
	switch a.flags.output {
	case outJSON:
		raw, err := json.Marshal(e)
		if err != nil {
			return err
		}
		_, err = a.env.Stdout.Write(append(raw, '\n'))
		return err
	case outYAML:
		raw, err := json.Marshal(e)
		if err != nil {
			return err
		}
		if _, err := fmt.Fprintln(a.env.Stdout, "---"); err != nil {
			return err
		}
		return writeYAML(a.env.Stdout, raw)
	case outName:
		_, err := fmt.Fprintln(a.env.Stdout, clean(e.ResourceID))
		return err
	}
	var o struct {
		Name     string       `json:"name"`
		HostName string       `json:"hostName"`
		Status   model.Status `json:"status"`
		Reason   string       `json:"statusReason"`
	}
	_ = json.Unmarshal(e.Object, &o) // an event without its object is still shown
	line := fmt.Sprintf("%-10s %-8s %-13s %-36s %s", e.ID, e.Type, e.Resource, e.ResourceID, o.Name+o.HostName)
	if o.Status != "" && e.Type != wire.EventDeleted {
		line += "  " + string(o.Status)
	}
	if o.Reason != "" {
		line += ": " + o.Reason
	}
	_, err := fmt.Fprintln(a.env.Stdout, strings.TrimRight(clean(line), " "))
	return err
}

func (a *app) doctorCmd() *cobra.Command {
	return &cobra.Command{Use: "doctor", Short: "Have the server check its invariants (administrators)", Args: args(0, 0),
		Long: "Ends with exit code 4 if a check finds something.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.connect()
			if err != nil {
				return err
			}
			r, err := c.Doctor(cmd.Context())
			if err != nil {
				return err
			}
			if err := a.printReport(r); err != nil {
				return err
			}
			if !r.OK {
				return &failed{msg: "not all is well"}
			}
			return nil
		}}
}

func (a *app) printReport(r *wire.DoctorReport) error {
	switch a.flags.output {
	case outJSON, outYAML:
		return a.encode(r)
	}
	rows := [][]string{{"Check", "Ok", "Checked", "Found"}}
	for _, k := range r.Checks {
		found := append([]string(nil), k.CounterExamples...)
		if k.Omitted > 0 {
			found = append(found, fmt.Sprintf("and %d more", k.Omitted))
		}
		if k.Error != "" {
			found = append(found, "could not be checked: "+k.Error)
		}
		if a.flags.output == outName {
			if !k.OK {
				if _, err := fmt.Fprintln(a.env.Stdout, clean(k.Name)); err != nil {
					return err
				}
			}
			continue
		}
		rows = append(rows, []string{k.Name, yesNo(k.OK), num(int64(k.Checked)), strings.Join(found, "\n")})
	}
	if a.flags.output == outName {
		return nil
	}
	return table(a.env.Stdout, rows)
}

func (a *app) debtCmd() *cobra.Command {
	cmd := group(&cobra.Command{Use: "debt", Short: "Debts: work owed on backends that did not answer (administrators)"})
	cmd.AddCommand(&cobra.Command{Use: "list", Short: "List debts", Args: args(0, 0), RunE: func(cmd *cobra.Command, _ []string) error {
		c, err := a.connect()
		if err != nil {
			return err
		}
		ds, err := c.Debts(cmd.Context())
		if err != nil {
			return err
		}
		items := make([]*wire.DebtSpec, len(ds))
		for i := range ds {
			items[i] = &ds[i]
		}
		return printList(a, debtView, items)
	}})
	return cmd
}

func (a *app) completionCmd() *cobra.Command {
	return &cobra.Command{Use: "completion bash|zsh|fish", Short: "Print a script that completes commands in a shell", Args: args(1, 1),
		ValidArgs: []string{"bash", "zsh", "fish"},
		Long:      "For bash: source <(osdsctl completion bash)",
		RunE: func(cmd *cobra.Command, x []string) error {
			switch root, out := cmd.Root(), a.env.Stdout; x[0] {
			case "bash":
				return root.GenBashCompletionV2(out, true)
			case "zsh":
				return root.GenZshCompletion(out)
			case "fish":
				return root.GenFishCompletion(out, true)
			}
			return a.usage("shell %q is not one of bash, zsh, fish", x[0])
		}}
}

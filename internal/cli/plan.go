package cli

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/osds-io/osds/pkg/model"
)

func (a *app) volumePlanCmd(profile *string) *cobra.Command {
	var v volumeFlags
	cmd := &cobra.Command{Use: "plan <size>", Short: "Say where a volume would be placed, and why; create nothing", Args: args(1, 1),
		Long: "Takes the same flags as create. With -o wide, shows each rule on each pool.\n" +
			"Ends with exit code 4 if no pool fits."}
	v.add(cmd)
	cmd.Flags().StringVarP(&v.snapshot, "snapshot", "s", "", "as if made from this snapshot, by id")
	cmd.RunE = func(cmd *cobra.Command, x []string) error {
		size, err := parseSize("size", x[0])
		if err != nil {
			return err
		}
		if v.name == "" {
			v.name = "plan" // the server wants one, though nothing gets it
		}
		c, err := a.connect()
		if err != nil {
			return err
		}
		spec, err := a.volumeSpec(cmd, c, &v, *profile, size)
		if err != nil {
			return err
		}
		e, err := c.PlanVolume(cmd.Context(), spec)
		if err != nil {
			return err
		}
		if err := a.printExplanation(e); err != nil {
			return err
		}
		if e.WinnerID == "" {
			return &failed{msg: first(e.Reason, "no pool fits")}
		}
		return nil
	}
	return cmd
}

func (a *app) volumeExplainCmd() *cobra.Command {
	return &cobra.Command{Use: "explain <id>", Short: "Say why a volume is where it is, or why it is nowhere", Args: args(1, 1),
		RunE: func(cmd *cobra.Command, x []string) error {
			c, err := a.connect()
			if err != nil {
				return err
			}
			e, err := c.VolumeExplanation(cmd.Context(), x[0])
			if err != nil {
				return err
			}
			return a.printExplanation(e)
		}}
}

// printExplanation says in words and in a table what the selector found.
func (a *app) printExplanation(e *model.Explanation) error {
	switch a.flags.output {
	case outJSON, outYAML:
		return a.encode(e)
	case outName:
		if e.WinnerID == "" {
			return nil
		}
		_, err := fmt.Fprintln(a.env.Stdout, clean(e.WinnerID))
		return err
	}
	var b strings.Builder
	fmt.Fprintf(&b, "A volume of %d GB", e.SizeGB)
	if e.ProfileID != "" {
		fmt.Fprintf(&b, " with the profile %s", named(e.ProfileName, e.ProfileID))
	}
	b.WriteString("\n")
	if e.WinnerID != "" {
		fmt.Fprintf(&b, "Placed in: %s\n", named(e.WinnerName, e.WinnerID))
	} else {
		b.WriteString("Placed in: nowhere\n")
	}
	if e.Reason != "" {
		fmt.Fprintf(&b, "Reason: %s\n", clean(e.Reason))
	}
	fmt.Fprintf(&b, "%d of %d pools fit", e.Fitting, e.Considered)
	if e.Omitted > 0 {
		fmt.Fprintf(&b, "; %d are not shown", e.Omitted)
	}
	b.WriteString("\n")
	if _, err := a.env.Stdout.Write([]byte(b.String())); err != nil {
		return err
	}
	if len(e.Pools) == 0 {
		return nil
	}
	if a.flags.output == outWide {
		return a.printRules(e)
	}
	rows := [][]string{{"Pool", "Fits", "Score", "Why"}}
	for i := range e.Pools {
		p := &e.Pools[i]
		score := ""
		if p.Fits {
			score = fmt.Sprintf("%.3f", p.Score)
		}
		rows = append(rows, []string{p.PoolName, yesNo(p.Fits), score, why(p)})
	}
	return table(a.env.Stdout, rows)
}

func named(name, id string) string {
	if name == "" {
		return clean(id)
	}
	return clean(fmt.Sprintf("%s (%s)", name, id))
}

// why is the weights of a pool that fits, and the broken rules of one that does
// not, with what would have to change.
func why(p *model.PoolVerdict) string {
	var lines []string
	if p.Fits {
		for _, w := range p.Weights {
			lines = append(lines, fmt.Sprintf("%s %.3f x %g", w.Weigher, w.Value, w.Weight))
		}
		return strings.Join(lines, "\n")
	}
	for _, r := range p.Rules {
		if r.OK {
			continue
		}
		s := fmt.Sprintf("%s: want %s, have %s", r.Rule, r.Want, first(r.Have, "nothing"))
		if r.Note != "" {
			s += " (" + r.Note + ")"
		}
		lines = append(lines, s)
	}
	for _, c := range p.Change {
		lines = append(lines, "to change: "+c)
	}
	return strings.Join(lines, "\n")
}

func (a *app) printRules(e *model.Explanation) error {
	rows := [][]string{{"Pool", "Rule", "Want", "Have", "Ok", "Note"}}
	for i := range e.Pools {
		p := &e.Pools[i]
		for _, r := range p.Rules {
			rows = append(rows, []string{p.PoolName, r.Rule, r.Want, r.Have, yesNo(r.OK), r.Note})
		}
		for _, w := range p.Weights {
			rows = append(rows, []string{p.PoolName, "weigher " + w.Weigher, "", fmt.Sprintf("%.3f x %g", w.Value, w.Weight), "", ""})
		}
	}
	return table(a.env.Stdout, rows)
}

package cli

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/osds-io/osds/pkg/client"
	"github.com/osds-io/osds/pkg/model"
	"github.com/osds-io/osds/pkg/model/wire"
)

// maxInput bounds what is read from a file or standard input.
const maxInput = 1 << 20

const profileHelp = `The profile is JSON: as the argument, or in a file (--file, - for standard input).

Example:
  osdsctl profile create '{"name": "gold", "storageType": "block",
    "provisioningProperties": {
      "dataStorage": {"provisioningPolicy": "Thin"},
      "ioConnectivity": {"accessProtocol": "iscsi", "maxIOPS": 5000}},
    "customProperties": {"capabilities:extras.advanced.diskType": "<or> SSD <or> NVME"}}'`

func (a *app) profileCmd() *cobra.Command {
	cmd := group(&cobra.Command{Use: "profile", Short: "Profiles: what storage must be"})
	coll := func(c *client.Client) client.Collection[wire.ProfileSpec] { return c.Profiles }
	get := func(c *client.Client) client.Reader[wire.ProfileSpec] { return c.Profiles.Reader }
	cmd.AddCommand(
		a.profileCreateCmd(),
		listCmd(a, profileView, get, "id", "name", "description", "storageType"),
		showCmd(a, profileView, "<profile id>", get),
		a.profileUpdateCmd(),
		deleteCmd(a, profileView, "<profile id>", coll, false),
		a.customCmd(),
	)
	return cmd
}

func (a *app) profileCreateCmd() *cobra.Command {
	var file string
	cmd := &cobra.Command{Use: "create <profile-info>", Short: "Create a profile", Long: profileHelp, Args: args(0, 1)}
	cmd.Flags().StringVarP(&file, "file", "f", "", "read the profile from this file, - for standard input")
	cmd.RunE = func(cmd *cobra.Command, x []string) error {
		text, err := a.input(x, file, "profile")
		if err != nil {
			return err
		}
		spec := new(wire.ProfileSpec)
		if err := a.strict("profile", text, spec); err != nil {
			return err
		}
		// What is sent has the right spellings only: an original server drops
		// the others without a word.
		if err := spec.Normalize(); err != nil {
			return err
		}
		if _, err := wire.ToProfile(spec); err != nil {
			return err
		}
		c, err := a.connect()
		if err != nil {
			return err
		}
		p, err := c.Profiles.Create(cmd.Context(), spec)
		if err != nil {
			return err
		}
		return printOne(a, profileView, p)
	}
	return cmd
}

// input gives the text of an argument or of a file, of which there must be one.
func (a *app) input(x []string, file, what string) ([]byte, error) {
	switch {
	case len(x) > 0 && file != "":
		return nil, a.usage("the %s is given twice: as an argument and with --file", what)
	case len(x) > 0:
		return []byte(x[0]), nil
	case file == "":
		return nil, a.usage("the %s is missing: give it as JSON, or with --file", what)
	}
	in := a.env.Stdin
	if file != "-" {
		f, err := os.Open(file)
		if err != nil {
			return nil, a.usage("cannot read the %s: %v", what, err)
		}
		defer func() { _ = f.Close() }()
		in = f
	}
	text, err := io.ReadAll(io.LimitReader(in, maxInput+1))
	if err != nil {
		return nil, a.usage("cannot read the %s: %v", what, err)
	}
	if len(text) > maxInput {
		return nil, a.usage("the %s has more than %d bytes", what, maxInput)
	}
	return text, nil
}

// strict decodes JSON and refuses fields that do not exist: a misspelt one would
// be dropped in silence.
func (a *app) strict(what string, text []byte, v any) error {
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.DisallowUnknownFields()
	err := dec.Decode(v)
	if err == nil && dec.More() {
		err = errors.New("there is more after the JSON object")
	}
	var typ *json.UnmarshalTypeError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &typ):
		return model.Invalid(typ.Field, "the %s is wrong: %s is a %s, and must be a %s", what, typ.Field, typ.Value, typ.Type)
	}
	return model.Invalid(what, "the %s is not understood: %s", what, strings.TrimPrefix(err.Error(), "json: "))
}

func (a *app) profileUpdateCmd() *cobra.Command {
	var name, desc string
	var custom []string
	cmd := &cobra.Command{Use: "update <profile id>", Short: "Change a profile's name, description or customProperties", Args: args(1, 1)}
	cmd.Flags().StringVarP(&name, "name", "n", "", "the new name")
	cmd.Flags().StringVarP(&desc, "description", "d", "", "the new description")
	cmd.Flags().StringArrayVar(&custom, "custom", nil, "add or change a custom property, key=value (several times)")
	cmd.RunE = func(cmd *cobra.Command, x []string) error {
		ch := changes(cmd, map[string]any{"name": name, "description": desc})
		props, err := a.customPairs(custom)
		if err != nil {
			return err
		}
		if len(props) > 0 {
			ch["customProperties"] = props
		}
		if len(ch) == 0 {
			return nothingToChange(a, "name", "description", "custom")
		}
		c, err := a.connect()
		if err != nil {
			return err
		}
		id, err := a.profileID(cmd, c, x[0])
		if err != nil {
			return err
		}
		p, err := c.Profiles.Update(cmd.Context(), id, ch)
		if err != nil {
			return err
		}
		return printOne(a, profileView, p)
	}
	return cmd
}

// customPairs reads key=value arguments whose values are JSON where they can be
// read as such, else text.
func (a *app) customPairs(list []string) (map[string]any, error) {
	pairs, err := a.parsePairs("custom property", list)
	if err != nil {
		return nil, err
	}
	m := make(map[string]any, len(pairs))
	for k, s := range pairs {
		var v any
		if json.Unmarshal([]byte(s), &v) != nil {
			v = s
		}
		m[k] = v
	}
	return m, model.ValidateCustom("customProperties", m)
}

func (a *app) customCmd() *cobra.Command {
	cmd := group(&cobra.Command{Use: "customproperty", Aliases: []string{"customProperties", "customproperties", "custom"},
		Short: "A profile's customProperties"})
	run := func(work func(cmd *cobra.Command, c *client.Client, id string, x []string) error) func(*cobra.Command, []string) error {
		return func(cmd *cobra.Command, x []string) error {
			c, err := a.connect()
			if err != nil {
				return err
			}
			id, err := a.profileID(cmd, c, x[0])
			if err != nil {
				return err
			}
			return work(cmd, c, id, x[1:])
		}
	}
	cmd.AddCommand(
		&cobra.Command{Use: "add <profile id> <key=value>...", Short: "Add or change custom properties", Args: args(2, -1),
			Long: "A value that is JSON (true, 5, [1,2], \"text\") is taken as that, any other as text.",
			RunE: run(func(cmd *cobra.Command, c *client.Client, id string, x []string) error {
				props, err := a.customPairs(x)
				if err != nil {
					return err
				}
				all, err := c.AddCustomProperties(cmd.Context(), id, props)
				if err != nil {
					return err
				}
				return a.printCustom(all)
			})},
		&cobra.Command{Use: "list <profile id>", Short: "List custom properties", Args: args(1, 1),
			RunE: run(func(cmd *cobra.Command, c *client.Client, id string, _ []string) error {
				all, err := c.CustomProperties(cmd.Context(), id)
				if err != nil {
					return err
				}
				return a.printCustom(all)
			})},
		&cobra.Command{Use: "remove <profile id> <key>...", Short: "Remove custom properties", Args: args(2, -1),
			RunE: run(func(cmd *cobra.Command, c *client.Client, id string, x []string) error {
				for _, k := range x {
					if err := c.RemoveCustomProperty(cmd.Context(), id, k); err != nil {
						return err
					}
				}
				return nil
			})},
	)
	return cmd
}

func (a *app) printCustom(m map[string]any) error {
	if m == nil {
		m = map[string]any{}
	}
	switch a.flags.output {
	case outJSON, outYAML:
		return a.encode(m)
	}
	rows := [][]string{{"Key", "Value"}}
	for _, k := range keys(m) {
		text, isText := m[k].(string)
		if !isText {
			text = jsonText(m[k])
		}
		if a.flags.output == outName {
			if _, err := io.WriteString(a.env.Stdout, clean(k)+"\n"); err != nil {
				return err
			}
			continue
		}
		rows = append(rows, []string{k, text})
	}
	if a.flags.output == outName {
		return nil
	}
	return table(a.env.Stdout, rows)
}

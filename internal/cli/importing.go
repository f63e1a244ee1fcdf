package cli

import (
	"strings"
	"unicode"

	"github.com/spf13/cobra"

	"github.com/osds-io/osds/pkg/client"
	"github.com/osds-io/osds/pkg/model"
	"github.com/osds-io/osds/pkg/model/wire"
)

var importableView = &view[wire.ImportableSpec]{
	noun: "volume",
	list: []col[wire.ImportableSpec]{
		{head: "Name", get: func(x *wire.ImportableSpec) string { return x.Name }},
		{head: "Size", get: func(x *wire.ImportableSpec) string { return model.Bytes(x.Bytes).String() }},
		{head: "Obstacle", get: func(x *wire.ImportableSpec) string { return x.Obstacle }},
	},
	wide: []col[wire.ImportableSpec]{
		{head: "PoolId", get: func(x *wire.ImportableSpec) string { return x.PoolID }},
	},
	id: func(x *wire.ImportableSpec) string { return x.Name },
}

func (a *app) poolImportableCmd() *cobra.Command {
	return &cobra.Command{
		Use: "importable <pool>", Short: "List what a pool's backend has that osds has not made (administrators)", Args: args(1, 1),
		Long: "The pool is given by id or name. What has an obstacle cannot be imported now.",
		RunE: func(cmd *cobra.Command, x []string) error {
			c, err := a.connect()
			if err != nil {
				return err
			}
			id, err := a.poolID(cmd, c, x[0])
			if err != nil {
				return err
			}
			var items []*wire.ImportableSpec
			for marker := ""; ; {
				list, next, err := c.Importable(cmd.Context(), id, marker)
				if err != nil {
					return err
				}
				for i := range list {
					items = append(items, &list[i])
				}
				if marker = next; marker == "" {
					return printList(a, importableView, items)
				}
			}
		},
	}
}

func (a *app) volumeImportCmd(profile *string) *cobra.Command {
	var v volumeFlags
	var w waitFlags
	var tenant string
	cmd := &cobra.Command{Use: "import <pool> <existing>", Short: "Make a volume of what a pool's backend has already (administrators)", Args: args(2, 2),
		Long: "The pool is given by id or name, the existing volume by the name that `osdsctl pool importable` shows.\n" +
			"Its data and its size stay; its name on the backend becomes osds's. From then on it is a volume like any\n" +
			"other: deleting it deletes its data. `osdsctl volume delete --release` gives it back instead."}
	f := cmd.Flags()
	f.StringVarP(&v.name, "name", "n", "", "the volume's name (default: the existing one's)")
	f.StringVarP(&v.desc, "description", "d", "", "the volume's description")
	f.BoolVar(&v.multiAttach, "multi-attach", false, "let several hosts attach it")
	f.StringArrayVar(&v.metadata, "metadata", nil, "metadata, key=value (several times)")
	f.StringVar(&tenant, "for-tenant", "", "the tenant that it is to belong to, by id (default: the administrator's)")
	w.add(cmd)
	cmd.RunE = func(cmd *cobra.Command, x []string) error {
		v.pool = x[0]
		if v.name == "" {
			v.name = nameOf(x[1])
		}
		if err := v.check(a); err != nil {
			return err
		}
		c, err := a.connect()
		if err != nil {
			return err
		}
		spec, err := a.volumeSpec(cmd, c, &v, *profile, 0)
		if err != nil {
			return err
		}
		spec.Existing, spec.TenantID = x[1], tenant
		s, err := c.Volumes.Create(cmd.Context(), spec)
		if err != nil {
			return err
		}
		return begun(cmd.Context(), a, volumeView, &w, model.ResVolume, s)
	}
	return cmd
}

// nameOf makes a volume's name of a backend's: of its last part, with what names
// may have.
func nameOf(existing string) string {
	n := existing[strings.LastIndexByte(existing, '/')+1:]
	return strings.Map(func(r rune) rune {
		if r == ' ' || r == '_' || r == '-' || r < 0x80 && (unicode.IsLetter(r) || unicode.IsDigit(r)) {
			return r
		}
		return '-'
	}, n)
}

func (a *app) volumeDeleteCmd(coll func(*client.Client) client.Collection[wire.VolumeSpec]) *cobra.Command {
	var release bool
	cmd := deleteCmd(a, volumeView, "<id>", coll, true, func() []client.Option {
		if release {
			return []client.Option{client.Release()}
		}
		return nil
	})
	cmd.Long = "Deletes volumes with their data, imported ones too.\n" +
		"With --release (administrators) the data stays on the backend, and only the record goes."
	cmd.Flags().BoolVar(&release, "release", false, "leave the data on the backend, where it can be imported again")
	return cmd
}

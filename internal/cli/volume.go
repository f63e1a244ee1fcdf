package cli

import (
	"github.com/spf13/cobra"

	"github.com/osds-io/osds/pkg/client"
	"github.com/osds-io/osds/pkg/model"
	"github.com/osds-io/osds/pkg/model/wire"
)

// volumeFlags are the flags of volume create, plan and clone.
type volumeFlags struct {
	name, desc, zone, pool, snapshot, group string
	fromCloud, multiAttach                  bool
	metadata                                []string
}

func (v *volumeFlags) add(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVarP(&v.name, "name", "n", "", "the volume's name")
	f.StringVarP(&v.desc, "description", "d", "", "the volume's description")
	f.StringVarP(&v.zone, "az", "a", "", "the availability zone (default: the server's)")
	f.StringVarP(&v.pool, "pool", "l", "", "the pool to place it in, by id or name (default: any that fits)")
	f.StringVar(&v.group, "group", "", "the volume group it belongs to, by id")
	f.BoolVar(&v.multiAttach, "multi-attach", false, "let several hosts attach it")
	f.StringArrayVar(&v.metadata, "metadata", nil, "metadata, key=value (several times)")
}

// spec makes the request, with names resolved to ids.
func (a *app) volumeSpec(cmd *cobra.Command, c *client.Client, v *volumeFlags, profile string, size int64) (*wire.VolumeSpec, error) {
	md, err := a.parsePairs("metadata", v.metadata)
	if err != nil {
		return nil, err
	}
	s := &wire.VolumeSpec{Name: v.name, Description: v.desc, Size: size, AvailabilityZone: v.zone, SnapshotID: v.snapshot,
		SnapshotFromCloud: v.fromCloud, GroupID: v.group, MultiAttach: v.multiAttach, Metadata: md}
	if s.ProfileID, err = a.profileID(cmd, c, profile); err != nil {
		return nil, err
	}
	if s.PoolID, err = a.poolID(cmd, c, v.pool); err != nil {
		return nil, err
	}
	return s, nil
}

// check refuses before anything is sent what the server would refuse.
func (v *volumeFlags) check(a *app) error {
	if v.name == "" {
		return a.usage("the volume has no name: give one with --name")
	}
	if err := model.ValidateVolumeName(v.name); err != nil {
		return err
	}
	return model.ValidateDescription(v.desc)
}

func (a *app) volumeCmd() *cobra.Command {
	var profile string
	cmd := group(&cobra.Command{Use: "volume", Short: "Block volumes"})
	cmd.PersistentFlags().StringVarP(&profile, "profile", "p", "", "the profile, by id or name (default: the server's)")
	coll := func(c *client.Client) client.Collection[wire.VolumeSpec] { return c.Volumes }
	get := func(c *client.Client) client.Reader[wire.VolumeSpec] { return c.Volumes.Reader }
	cmd.AddCommand(
		a.volumeCreateCmd(&profile),
		a.volumePlanCmd(&profile),
		a.volumeCloneCmd(&profile),
		a.volumeExplainCmd(),
		listCmd(a, volumeView, get, "id", "name", "description", "status", "availabilityZone", "profileId", "poolId", "groupId", "tenantId", "userId"),
		showCmd(a, volumeView, "<id>", get),
		a.volumeUpdateCmd(),
		a.volumeExtendCmd(),
		a.revertCmd(),
		a.volumeDeleteCmd(coll),
		a.volumeImportCmd(&profile),
		a.snapshotCmd(&profile), a.attachmentCmd(), a.groupCmd(),
		absent("replication", "replications are"),
	)
	return cmd
}

func (a *app) volumeCreateCmd(profile *string) *cobra.Command {
	var v volumeFlags
	var w waitFlags
	cmd := &cobra.Command{Use: "create <size>", Short: "Create a volume", Args: args(1, 1),
		Long: "The size is a number of GB, or a size with a unit, such as 10GB or 1TiB (1 GB is 1024 MiB)."}
	v.add(cmd)
	w.add(cmd)
	cmd.Flags().StringVarP(&v.snapshot, "snapshot", "s", "", "make it from this snapshot, by id")
	cmd.Flags().BoolVarP(&v.fromCloud, "snapshotFromCloud", "c", false, "the snapshot is in the cloud")
	cmd.RunE = func(cmd *cobra.Command, x []string) error {
		size, err := parseSize("size", x[0])
		if err != nil {
			return err
		}
		if err := v.check(a); err != nil {
			return err
		}
		c, err := a.connect()
		if err != nil {
			return err
		}
		spec, err := a.volumeSpec(cmd, c, &v, *profile, size)
		if err != nil {
			return err
		}
		s, err := c.Volumes.Create(cmd.Context(), spec)
		if err != nil {
			return err
		}
		return begun(cmd.Context(), a, volumeView, &w, model.ResVolume, s)
	}
	return cmd
}

func (a *app) volumeCloneCmd(profile *string) *cobra.Command {
	var v volumeFlags
	var w waitFlags
	var sizeText string
	cmd := &cobra.Command{Use: "clone <id>", Short: "Create a volume that is a copy of another one", Args: args(1, 1)}
	v.add(cmd)
	w.add(cmd)
	cmd.Flags().StringVar(&sizeText, "size", "", "the new volume's size (default: the same as the other one's)")
	cmd.RunE = func(cmd *cobra.Command, x []string) error {
		if err := v.check(a); err != nil {
			return err
		}
		c, err := a.connect()
		if err != nil {
			return err
		}
		var size int64
		if sizeText != "" {
			if size, err = parseSize("size", sizeText); err != nil {
				return err
			}
		} else {
			src, err := c.Volumes.Get(cmd.Context(), x[0])
			if err != nil {
				return err
			}
			size = src.Size
		}
		spec, err := a.volumeSpec(cmd, c, &v, *profile, size)
		if err != nil {
			return err
		}
		spec.SourceVolumeID = x[0]
		s, err := c.Volumes.Create(cmd.Context(), spec)
		if err != nil {
			return err
		}
		return begun(cmd.Context(), a, volumeView, &w, model.ResVolume, s)
	}
	return cmd
}

func (a *app) volumeUpdateCmd() *cobra.Command {
	var name, desc string
	var metadata []string
	cmd := &cobra.Command{Use: "update <id>", Short: "Change a volume's name, description or metadata", Args: args(1, 1)}
	cmd.Flags().StringVarP(&name, "name", "n", "", "the new name")
	cmd.Flags().StringVarP(&desc, "description", "d", "", "the new description")
	cmd.Flags().StringArrayVar(&metadata, "metadata", nil, "add or change metadata, key=value (several times)")
	cmd.RunE = func(cmd *cobra.Command, x []string) error {
		ch := changes(cmd, map[string]any{"name": name, "description": desc})
		if _, ok := ch["name"]; ok {
			if err := model.ValidateVolumeName(name); err != nil {
				return err
			}
		}
		md, err := a.parsePairs("metadata", metadata)
		if err != nil {
			return err
		}
		if len(md) > 0 {
			ch["metadata"] = md
		}
		if len(ch) == 0 {
			return nothingToChange(a, "name", "description", "metadata")
		}
		c, err := a.connect()
		if err != nil {
			return err
		}
		s, err := c.Volumes.Update(cmd.Context(), x[0], ch)
		if err != nil {
			return err
		}
		return printOne(a, volumeView, s)
	}
	return cmd
}

func (a *app) volumeExtendCmd() *cobra.Command {
	var w waitFlags
	var growFS bool
	cmd := &cobra.Command{Use: "extend <id> <new size>", Short: "Make a volume larger", Args: args(2, 2),
		Long: "Hosts that a dock attaches for see the new size at once. The others look again by themselves."}
	w.add(cmd)
	cmd.Flags().BoolVar(&growFS, "grow-fs", false, "grow the file system on it too, on the one host that has it attached through a dock")
	cmd.RunE = func(cmd *cobra.Command, x []string) error {
		size, err := parseSize("newSize", x[1])
		if err != nil {
			return err
		}
		c, err := a.connect()
		if err != nil {
			return err
		}
		s, err := c.ResizeVolume(cmd.Context(), x[0], &wire.ExtendVolumeSpec{NewSize: size, GrowFileSystem: growFS})
		if err != nil {
			return err
		}
		return begun(cmd.Context(), a, volumeView, &w, model.ResVolume, s)
	}
	return cmd
}

// revertCmd is both volume revert and volume snapshot revert.
func (a *app) revertCmd() *cobra.Command {
	var w waitFlags
	var volume string
	cmd := &cobra.Command{Use: "revert <snapshot id>", Short: "Put a volume back to what it was at a snapshot", Args: args(1, 1),
		Long: "What was written to the volume since the snapshot is lost."}
	w.add(cmd)
	cmd.Flags().StringVar(&volume, "volume", "", "refuse unless the snapshot is of this volume")
	cmd.RunE = func(cmd *cobra.Command, x []string) error {
		c, err := a.connect()
		if err != nil {
			return err
		}
		s, err := c.RevertToSnapshot(cmd.Context(), x[0], &wire.RevertSpec{VolumeID: volume})
		if err != nil {
			return err
		}
		return begun(cmd.Context(), a, volumeView, &w, model.ResVolume, s)
	}
	return cmd
}

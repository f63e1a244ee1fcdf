package cli

import (
	"github.com/spf13/cobra"

	"github.com/osds-io/osds/pkg/client"
	"github.com/osds-io/osds/pkg/model"
	"github.com/osds-io/osds/pkg/model/wire"
)

func (a *app) snapshotCmd(profile *string) *cobra.Command {
	cmd := group(&cobra.Command{Use: "snapshot", Short: "Snapshots of volumes"})
	coll := func(c *client.Client) client.Collection[wire.VolumeSnapshotSpec] { return c.Snapshots }
	get := func(c *client.Client) client.Reader[wire.VolumeSnapshotSpec] { return c.Snapshots.Reader }
	cmd.AddCommand(
		a.snapshotCreateCmd(profile),
		listCmd(a, snapshotView, get, "id", "name", "description", "status", "volumeId", "userId"),
		showCmd(a, snapshotView, "<snapshot id>", get),
		nameCmd(a, snapshotView, "update <snapshot id>", "Change a snapshot's name or description", coll),
		a.revertCmd(),
		deleteCmd(a, snapshotView, "<snapshot id>", coll, true),
	)
	return cmd
}

func (a *app) snapshotCreateCmd(profile *string) *cobra.Command {
	var name, desc string
	var w waitFlags
	cmd := &cobra.Command{Use: "create <volume id>", Short: "Make a snapshot of a volume", Args: args(1, 1)}
	cmd.Flags().StringVarP(&name, "name", "n", "", "the snapshot's name")
	cmd.Flags().StringVarP(&desc, "description", "d", "", "the snapshot's description")
	w.add(cmd)
	cmd.RunE = func(cmd *cobra.Command, x []string) error {
		c, err := a.connect()
		if err != nil {
			return err
		}
		spec := &wire.VolumeSnapshotSpec{Name: name, Description: desc, VolumeID: x[0]}
		if spec.ProfileID, err = a.profileID(cmd, c, *profile); err != nil {
			return err
		}
		s, err := c.Snapshots.Create(cmd.Context(), spec)
		if err != nil {
			return err
		}
		return begun(cmd.Context(), a, snapshotView, &w, model.ResSnapshot, s)
	}
	return cmd
}

// nameCmd changes a name or a description.
func nameCmd[T any](a *app, v *view[T], use, short string, coll func(*client.Client) client.Collection[T]) *cobra.Command {
	var name, desc string
	cmd := &cobra.Command{Use: use, Short: short, Args: args(1, 1)}
	cmd.Flags().StringVarP(&name, "name", "n", "", "the new name")
	cmd.Flags().StringVarP(&desc, "description", "d", "", "the new description")
	cmd.RunE = func(cmd *cobra.Command, x []string) error {
		ch := changes(cmd, map[string]any{"name": name, "description": desc})
		if len(ch) == 0 {
			return nothingToChange(a, "name", "description")
		}
		c, err := a.connect()
		if err != nil {
			return err
		}
		s, err := coll(c).Update(cmd.Context(), x[0], ch)
		if err != nil {
			return err
		}
		return printOne(a, v, s)
	}
	return cmd
}

func (a *app) attachmentCmd() *cobra.Command {
	cmd := group(&cobra.Command{Use: "attachment", Short: "Attachments of volumes to hosts"})
	coll := func(c *client.Client) client.Collection[wire.VolumeAttachmentSpec] { return c.Attachments }
	get := func(c *client.Client) client.Reader[wire.VolumeAttachmentSpec] { return c.Attachments.Reader }
	cmd.AddCommand(
		a.attachmentCreateCmd(),
		listCmd(a, attachmentView, get, "id", "status", "volumeId", "hostId", "mountpoint", "userId"),
		showCmd(a, attachmentView, "<attachment id>", get),
		a.attachmentUpdateCmd(),
		a.attachmentDeleteCmd(coll),
	)
	return cmd
}

func (a *app) attachmentDeleteCmd(coll func(*client.Client) client.Collection[wire.VolumeAttachmentSpec]) *cobra.Command {
	var force bool
	cmd := deleteCmd(a, attachmentView, "<attachment id>", coll, true, func() []client.Option {
		if force {
			return []client.Option{client.Force()}
		}
		return nil
	})
	cmd.Long = "Detaches volumes: the host writes what it has not written yet and gives its device up, then the export ends.\n" +
		"With --force the host is cut off first, whether it answers or not: what it has not written is lost."
	cmd.Flags().BoolVar(&force, "force", false, "cut the host off first; for a host that is dead or does not let go")
	return cmd
}

func (a *app) attachmentCreateCmd() *cobra.Command {
	var mode, mountpoint string
	var w waitFlags
	cmd := &cobra.Command{Use: "create <volume id> <host id>", Short: "Attach a volume to a host, by its id or name", Args: args(2, 2)}
	cmd.Flags().StringVar(&mode, "mode", "", "ro or rw (default: rw)")
	cmd.Flags().StringVar(&mountpoint, "mountpoint", "", "where the host mounts it, for the record")
	w.add(cmd)
	cmd.RunE = func(cmd *cobra.Command, x []string) error {
		if err := model.ValidateAttachMode(mode); err != nil {
			return err
		}
		c, err := a.connect()
		if err != nil {
			return err
		}
		host, err := a.hostID(cmd, c, x[1])
		if err != nil {
			return err
		}
		s, err := c.Attachments.Create(cmd.Context(), &wire.VolumeAttachmentSpec{VolumeID: x[0], HostID: host, AttachMode: mode, Mountpoint: mountpoint})
		if err != nil {
			return err
		}
		return begun(cmd.Context(), a, attachmentView, &w, model.ResAttachment, s)
	}
	return cmd
}

func (a *app) attachmentUpdateCmd() *cobra.Command {
	var mountpoint string
	cmd := &cobra.Command{Use: "update <attachment id> [attachment info]", Short: "Change an attachment", Args: args(1, 2),
		Long: "The attachment info is JSON, such as '{\"mountpoint\": \"/mnt\"}'; --mountpoint does the same."}
	cmd.Flags().StringVar(&mountpoint, "mountpoint", "", "where the host mounts the volume")
	cmd.RunE = func(cmd *cobra.Command, x []string) error {
		ch := changes(cmd, map[string]any{"mountpoint": mountpoint})
		var what any = ch
		if len(x) == 2 {
			if len(ch) > 0 {
				return a.usage("give either the attachment info or --mountpoint")
			}
			spec := new(wire.VolumeAttachmentSpec)
			if err := a.strict("attachment info", []byte(x[1]), spec); err != nil {
				return err
			}
			spec.ConnectionInfo.Normalize()
			what = spec
		} else if len(ch) == 0 {
			return nothingToChange(a, "mountpoint")
		}
		c, err := a.connect()
		if err != nil {
			return err
		}
		s, err := c.Attachments.Update(cmd.Context(), x[0], what)
		if err != nil {
			return err
		}
		return printOne(a, attachmentView, s)
	}
	return cmd
}

func (a *app) groupCmd() *cobra.Command {
	cmd := group(&cobra.Command{Use: "group", Short: "Volume groups: volumes kept consistent in one pool"})
	coll := func(c *client.Client) client.Collection[wire.VolumeGroupSpec] { return c.Groups }
	get := func(c *client.Client) client.Reader[wire.VolumeGroupSpec] { return c.Groups.Reader }
	del := deleteCmd(a, groupView, "<id>", coll, true)
	del.Short = "Delete volume groups with all their volumes"
	cmd.AddCommand(
		a.groupCreateCmd(),
		listCmd(a, groupView, get, "id", "name", "description", "status", "availabilityZone", "poolId", "tenantId", "userId"),
		showCmd(a, groupView, "<id>", get),
		a.groupUpdateCmd(),
		del,
	)
	return cmd
}

func (a *app) groupCreateCmd() *cobra.Command {
	var name, desc, zone, profiles string
	var w waitFlags
	cmd := &cobra.Command{Use: "create", Short: "Create a volume group", Args: args(0, 0)}
	f := cmd.Flags()
	f.StringVarP(&name, "name", "n", "", "the group's name")
	f.StringVarP(&desc, "description", "d", "", "the group's description")
	f.StringVarP(&zone, "availabilityZone", "a", "", "the availability zone")
	f.StringVar(&profiles, "profiles", "", "the profiles of its volumes, by id or name, comma-separated")
	w.add(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if profiles == "" {
			return a.usage("the group has no profiles: give them with --profiles")
		}
		c, err := a.connect()
		if err != nil {
			return err
		}
		spec := &wire.VolumeGroupSpec{Name: name, Description: desc, AvailabilityZone: zone}
		for _, p := range splitIDs(profiles) {
			id, err := a.profileID(cmd, c, p)
			if err != nil {
				return err
			}
			spec.Profiles = append(spec.Profiles, id)
		}
		s, err := c.Groups.Create(cmd.Context(), spec)
		if err != nil {
			return err
		}
		return begun(cmd.Context(), a, groupView, &w, model.ResGroup, s)
	}
	return cmd
}

func (a *app) groupUpdateCmd() *cobra.Command {
	var name, desc, add, remove string
	var w waitFlags
	cmd := &cobra.Command{Use: "update <id>", Short: "Change a volume group or its members", Args: args(1, 1)}
	f := cmd.Flags()
	f.StringVarP(&name, "name", "n", "", "the new name")
	f.StringVarP(&desc, "description", "d", "", "the new description")
	f.StringVarP(&add, "addVolumes", "a", "", "volumes to add, by id, comma-separated")
	f.StringVarP(&remove, "removeVolumes", "r", "", "volumes to take out, by id, comma-separated")
	w.add(cmd)
	cmd.RunE = func(cmd *cobra.Command, x []string) error {
		ch := changes(cmd, map[string]any{"name": name, "description": desc,
			"addVolumes": splitIDs(add), "removeVolumes": splitIDs(remove)})
		if len(ch) == 0 {
			return nothingToChange(a, "name", "description", "addVolumes", "removeVolumes")
		}
		c, err := a.connect()
		if err != nil {
			return err
		}
		s, err := c.Groups.Update(cmd.Context(), x[0], ch)
		if err != nil {
			return err
		}
		return begun(cmd.Context(), a, groupView, &w, model.ResGroup, s)
	}
	return cmd
}

package cli

import (
	"strings"

	"github.com/spf13/cobra"

	"github.com/osds-io/osds/pkg/client"
	"github.com/osds-io/osds/pkg/model"
	"github.com/osds-io/osds/pkg/model/wire"
)

// hostFlags are the flags of host create and update.
type hostFlags struct {
	hostName, accessMode, osType, ip, username string
	port                                       int
	zones, initiators                          []string
}

func (h *hostFlags) add(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&h.accessMode, "accessMode", "agentless", "agent or agentless")
	f.StringSliceVar(&h.zones, "availabilityZones", []string{"default"}, "the zones that the host is in, comma-separated")
	f.StringVar(&h.ip, "ip", "", "the host's IP address")
	f.StringVar(&h.osType, "osType", "linux", "linux, windows or esxi")
	f.IntVar(&h.port, "port", 0, "the port of the host's management")
	f.StringVar(&h.username, "username", "", "the user of the host's management")
	f.StringArrayVar(&h.initiators, "initiator", nil, "an initiator: <port name>[,<protocol>], the protocol iscsi, nvmeof or fibre_channel (several times)")
}

// parseInitiator reads <port name>[,<protocol>]; the protocol follows from the
// name where it is left out.
func parseInitiator(s string) wire.Initiator {
	name, protocol, _ := strings.Cut(s, ",")
	i := wire.Initiator{PortName: strings.TrimSpace(name), Protocol: strings.TrimSpace(protocol)}
	if i.Protocol == "" {
		switch n := strings.ToLower(i.PortName); {
		case strings.HasPrefix(n, "iqn."), strings.HasPrefix(n, "eui."), strings.HasPrefix(n, "naa."):
			i.Protocol = "iscsi"
		case strings.HasPrefix(n, "nqn."):
			i.Protocol = "nvmeof"
		case model.ValidateInitiator(model.Initiator{PortName: n, Protocol: "fibre_channel"}) == nil:
			i.Protocol = "fibre_channel"
		}
	}
	return i
}

func (h *hostFlags) spec() *wire.HostSpec {
	s := &wire.HostSpec{HostName: h.hostName, AccessMode: h.accessMode, OSType: h.osType, IP: h.ip, Port: h.port, Username: h.username,
		AvailabilityZones: h.zones, Initiators: []wire.Initiator{}}
	for _, x := range h.initiators {
		s.Initiators = append(s.Initiators, parseInitiator(x))
	}
	return s
}

// validateHost checks what is about to be sent.
func validateHost(s *wire.HostSpec) error {
	h := &model.Host{HostName: s.HostName, OSType: s.OSType, AccessMode: s.AccessMode, IP: s.IP, Port: s.Port, Username: s.Username,
		AvailabilityZones: s.AvailabilityZones}
	for _, i := range s.Initiators {
		h.Initiators = append(h.Initiators, model.Initiator{PortName: i.PortName, Protocol: i.Protocol})
	}
	return model.ValidateHost(h)
}

func (a *app) hostCmd() *cobra.Command {
	cmd := group(&cobra.Command{Use: "host", Short: "Hosts: machines that volumes attach to"})
	coll := func(c *client.Client) client.Collection[wire.HostSpec] { return c.Hosts }
	get := func(c *client.Client) client.Reader[wire.HostSpec] { return c.Hosts.Reader }
	cmd.AddCommand(
		a.hostCreateCmd(),
		listCmd(a, hostView, get, "id", "hostName", "osType", "accessMode", "ip"),
		showCmd(a, hostView, "<id>", get),
		a.hostUpdateCmd(),
		deleteCmd(a, hostView, "<id>", coll, false),
		a.initiatorCmd(),
	)
	return cmd
}

func (a *app) hostCreateCmd() *cobra.Command {
	var h hostFlags
	cmd := &cobra.Command{Use: "create <name>", Short: "Create a host", Args: args(1, 1)}
	h.add(cmd)
	cmd.RunE = func(cmd *cobra.Command, x []string) error {
		h.hostName = x[0]
		spec := h.spec()
		if err := validateHost(spec); err != nil {
			return err
		}
		c, err := a.connect()
		if err != nil {
			return err
		}
		s, err := c.Hosts.Create(cmd.Context(), spec)
		if err != nil {
			return err
		}
		return printOne(a, hostView, s)
	}
	return cmd
}

func (a *app) hostUpdateCmd() *cobra.Command {
	var h hostFlags
	cmd := &cobra.Command{Use: "update <id>", Short: "Change a host", Args: args(1, 1),
		Long: "Only what is given changes; --availabilityZones and --initiator replace the whole list."}
	h.add(cmd)
	cmd.Flags().StringVar(&h.hostName, "hostName", "", "the new name")
	cmd.RunE = func(cmd *cobra.Command, x []string) error {
		spec := h.spec()
		check := *spec
		if check.HostName == "" {
			check.HostName = "unchanged"
		}
		if err := validateHost(&check); err != nil {
			return err
		}
		ch := changes(cmd, map[string]any{"hostName": h.hostName, "accessMode": h.accessMode, "osType": h.osType, "ip": h.ip,
			"port": h.port, "username": h.username, "availabilityZones": h.zones})
		if len(changed(cmd, "initiator")) > 0 {
			ch["initiators"] = spec.Initiators
		}
		if len(ch) == 0 {
			return nothingToChange(a, "hostName", "ip", "osType", "accessMode", "availabilityZones", "initiator", "port", "username")
		}
		c, err := a.connect()
		if err != nil {
			return err
		}
		id, err := a.hostID(cmd, c, x[0])
		if err != nil {
			return err
		}
		s, err := c.Hosts.Update(cmd.Context(), id, ch)
		if err != nil {
			return err
		}
		return printOne(a, hostView, s)
	}
	return cmd
}

func (a *app) initiatorCmd() *cobra.Command {
	cmd := group(&cobra.Command{Use: "initiator", Short: "A host's names on storage networks"})
	cmd.AddCommand(
		&cobra.Command{Use: "add <host id> <port name> <port protocol>", Short: "Add an initiator to a host", Args: args(2, 3),
			RunE: func(cmd *cobra.Command, x []string) error {
				i := parseInitiator(strings.Join(x[1:], ","))
				if err := model.ValidateInitiator(model.Initiator{PortName: i.PortName, Protocol: i.Protocol}); err != nil {
					return err
				}
				return a.changeInitiators(cmd, x[0], func(list []wire.Initiator) ([]wire.Initiator, error) {
					for k := range list {
						if list[k].PortName == i.PortName {
							list[k] = i
							return list, nil
						}
					}
					return append(list, i), nil
				})
			}},
		&cobra.Command{Use: "remove <host id> <port name>", Short: "Remove an initiator from a host", Args: args(2, 2),
			RunE: func(cmd *cobra.Command, x []string) error {
				return a.changeInitiators(cmd, x[0], func(list []wire.Initiator) ([]wire.Initiator, error) {
					out := []wire.Initiator{}
					for _, i := range list {
						if i.PortName != x[1] {
							out = append(out, i)
						}
					}
					if len(out) == len(list) {
						return nil, model.Errorf(model.KindNotFound, "the host has no initiator %q", x[1])
					}
					return out, nil
				})
			}},
	)
	return cmd
}

// staleTries is how often a change that others got ahead of is made anew.
const staleTries = 5

// changeInitiators reads a host, changes its list and writes it, on condition
// that nobody else wrote in between.
func (a *app) changeInitiators(cmd *cobra.Command, host string, change func([]wire.Initiator) ([]wire.Initiator, error)) error {
	c, err := a.connect()
	if err != nil {
		return err
	}
	id, err := a.hostID(cmd, c, host)
	if err != nil {
		return err
	}
	for try := 1; ; try++ {
		h, err := c.Hosts.Get(cmd.Context(), id)
		if err != nil {
			return err
		}
		list, err := change(h.Initiators)
		if err != nil {
			return err
		}
		s, err := c.Hosts.Update(cmd.Context(), id, map[string]any{"initiators": list}, client.IfMatch(h.ETag))
		if model.IsKind(err, model.KindStale) && try < staleTries {
			continue
		}
		if err != nil {
			return err
		}
		return printOne(a, hostView, s)
	}
}

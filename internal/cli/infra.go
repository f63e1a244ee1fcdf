package cli

import (
	"encoding/json"
	"fmt"
	"sort"
	"strings"

	"github.com/spf13/cobra"

	"github.com/osds-io/osds/pkg/client"
	"github.com/osds-io/osds/pkg/model"
	"github.com/osds-io/osds/pkg/model/wire"
)

func (a *app) versionCmd() *cobra.Command {
	cmd := group(&cobra.Command{Use: "version", Short: "Versions of the API"})
	cmd.AddCommand(
		&cobra.Command{Use: "list", Short: "List the API versions", Args: args(0, 0), RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.connect()
			if err != nil {
				return err
			}
			vs, err := c.Versions(cmd.Context())
			if err != nil {
				return err
			}
			items := make([]*wire.VersionSpec, len(vs))
			for i := range vs {
				items[i] = &vs[i]
			}
			return printList(a, versionView, items)
		}},
		&cobra.Command{Use: "show <apiVersion>", Short: "Show an API version", Args: args(1, 1), RunE: func(cmd *cobra.Command, x []string) error {
			c, err := a.connect()
			if err != nil {
				return err
			}
			v, err := c.Version(cmd.Context(), x[0])
			if err != nil {
				return err
			}
			return printOne(a, versionView, v)
		}},
	)
	return cmd
}

func (a *app) dockCmd() *cobra.Command {
	cmd := group(&cobra.Command{Use: "dock", Short: "Docks: the agents of storage hosts"})
	get := func(c *client.Client) client.Reader[wire.DockSpec] { return c.Docks }
	cmd.AddCommand(
		listCmd(a, dockView, get, "id", "name", "description", "status", "storageType", "endpoint", "driverName"),
		showCmd(a, dockView, "<dock id>", get),
		&cobra.Command{Use: "delete <dock id>", Short: "Remove a dock that will not come back, its pools, and what is owed there (administrators)",
			Args: args(1, 1), ValidArgsFunction: completeIDs(a, dockView, get),
			RunE: func(cmd *cobra.Command, x []string) error {
				c, err := a.connect()
				if err != nil {
					return err
				}
				return c.DeleteDock(cmd.Context(), x[0])
			}},
	)
	return cmd
}

func (a *app) zoneCmd() *cobra.Command {
	cmd := group(&cobra.Command{Use: "availabilityzone", Aliases: []string{"availabilityZone", "az"}, Short: "Availability zones"})
	cmd.AddCommand(&cobra.Command{Use: "list", Short: "List the zones that pools are in", Args: args(0, 0), RunE: func(cmd *cobra.Command, _ []string) error {
		c, err := a.connect()
		if err != nil {
			return err
		}
		zones, err := c.AvailabilityZones(cmd.Context())
		if err != nil {
			return err
		}
		zone := &view[string]{noun: "zone", list: []col[string]{{head: "AvailabilityZone", get: func(s *string) string { return *s }}},
			id: func(s *string) string { return *s }}
		items := make([]*string, len(zones))
		for i := range zones {
			items[i] = &zones[i]
		}
		return printList(a, zone, items)
	}})
	return cmd
}

func (a *app) poolCmd() *cobra.Command {
	cmd := group(&cobra.Command{Use: "pool", Short: "Storage pools"})
	get := func(c *client.Client) client.Reader[wire.StoragePoolSpec] { return c.Pools }
	cmd.AddCommand(
		listCmd(a, poolView, get, "id", "name", "description", "status", "dockId", "storageType", "availabilityZone"),
		showCmd(a, poolView, "<pool id>", get),
		a.poolExplainCmd(),
		a.poolImportableCmd(),
	)
	return cmd
}

func (a *app) poolExplainCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "explain [pool id]",
		Short: "Show what is reserved in pools, and what one of them can do",
		Long: "Without an argument: each pool's size, what the backend says is free, what is reserved\n" +
			"and how much may be. With a pool's id or name: its capabilities too, by the names that\n" +
			"profiles ask for them with (capabilities:<name> in customProperties).",
		Args: args(0, 1),
		RunE: func(cmd *cobra.Command, x []string) error {
			c, err := a.connect()
			if err != nil {
				return err
			}
			if len(x) == 0 {
				return a.explainPools(cmd, c)
			}
			id, err := a.poolID(cmd, c, x[0])
			if err != nil {
				return err
			}
			return a.explainPool(cmd, c, id)
		},
	}
}

// ledger gives the ledger by pool. Only administrators may see it; others see
// what the pools themselves say.
func (a *app) ledger(cmd *cobra.Command, c *client.Client) (map[string]wire.LedgerSpec, error) {
	rows, err := c.Ledger(cmd.Context())
	if model.IsKind(err, model.KindDenied, model.KindNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	m := make(map[string]wire.LedgerSpec, len(rows))
	for _, r := range rows {
		m[r.PoolID] = r
	}
	return m, nil
}

// poolAccount is a pool with its ledger entry; without one, what the pool says.
type poolAccount struct {
	Pool   *wire.StoragePoolSpec `json:"pool"`
	Ledger wire.LedgerSpec       `json:"ledger"`
	// Exact says that Ledger is the ledger's own, in bytes.
	Exact bool `json:"exact"`
}

func account(p *wire.StoragePoolSpec, ledger map[string]wire.LedgerSpec) *poolAccount {
	if l, ok := ledger[p.ID]; ok {
		return &poolAccount{Pool: p, Ledger: l, Exact: true}
	}
	gb := func(n int64) int64 { return int64(model.FromGB(n)) }
	return &poolAccount{Pool: p, Ledger: wire.LedgerSpec{PoolID: p.ID, PoolName: p.Name, Reserved: gb(p.ReservedCapacity),
		Limit: gb(p.ProvisionedLimit), Total: gb(p.TotalCapacity), Free: gb(p.FreeCapacity)}}
}

func (p *poolAccount) held(n int64) string {
	if !p.Exact {
		return "-"
	}
	return bytesText(n)
}

var accountView = &view[poolAccount]{
	noun: "pool",
	list: []col[poolAccount]{
		{head: "Id", get: func(x *poolAccount) string { return x.Pool.ID }},
		{head: "Name", get: func(x *poolAccount) string { return x.Pool.Name }},
		{head: "Status", get: func(x *poolAccount) string { return string(x.Pool.Status) }},
		{head: "Total", get: func(x *poolAccount) string { return bytesText(x.Ledger.Total) }},
		{head: "Free", get: func(x *poolAccount) string { return bytesText(x.Ledger.Free) }},
		{head: "Reserved", get: func(x *poolAccount) string { return bytesText(x.Ledger.Reserved) }},
		{head: "Limit", get: func(x *poolAccount) string { return bytesText(x.Ledger.Limit) }},
		{head: "Used", get: func(x *poolAccount) string { return percent(x.Ledger.Reserved, x.Ledger.Limit) }},
		{head: "Volumes", get: func(x *poolAccount) string { return x.held(x.Ledger.Volumes) }},
		{head: "Snapshots", get: func(x *poolAccount) string { return x.held(x.Ledger.Snapshots) }},
		{head: "Debts", get: func(x *poolAccount) string { return x.held(x.Ledger.Debts) }},
	},
	wide: []col[poolAccount]{
		{head: "Driver", get: func(x *poolAccount) string { return x.Pool.Driver }},
		{head: "Ratio", get: func(x *poolAccount) string { return fmt.Sprint(x.Pool.OverProvisioningRatio) }},
		{head: "Abilities", get: func(x *poolAccount) string { return strings.Join(x.Pool.Abilities, ", ") }},
		{head: "StatusReason", get: func(x *poolAccount) string { return x.Pool.StatusReason }},
	},
	id: func(x *poolAccount) string { return x.Pool.ID },
}

func (a *app) explainPools(cmd *cobra.Command, c *client.Client) error {
	pools, err := c.Pools.Collect(cmd.Context(), client.Query{}, 0)
	if err != nil {
		return err
	}
	ledger, err := a.ledger(cmd, c)
	if err != nil {
		return err
	}
	items := make([]*poolAccount, len(pools))
	for i, p := range pools {
		items[i] = account(p, ledger)
	}
	sort.SliceStable(items, func(i, j int) bool { return items[i].Pool.Name < items[j].Pool.Name })
	return printList(a, accountView, items)
}

func (a *app) explainPool(cmd *cobra.Command, c *client.Client, id string) error {
	p, err := c.Pools.Get(cmd.Context(), id)
	if err != nil {
		return err
	}
	ledger, err := a.ledger(cmd, c)
	if err != nil {
		return err
	}
	acc := account(p, ledger)
	if f := a.flags.output; f != outTable && f != outWide {
		return printOne(a, accountView, acc)
	}
	rows := [][]string{{"Property", "Value"}}
	for _, k := range accountView.columns(true) {
		rows = append(rows, []string{k.head, k.get(acc)})
	}
	if err := table(a.env.Stdout, rows); err != nil {
		return err
	}
	raw, err := json.Marshal(p)
	if err != nil {
		return err
	}
	var m map[string]any
	if err := json.Unmarshal(raw, &m); err != nil {
		return err
	}
	rows = [][]string{{"Capability", "Value"}}
	for _, kv := range flatten("", m) {
		if kv[0] != "id" && kv[0] != "createdAt" && kv[0] != "updatedAt" {
			rows = append(rows, []string{kv[0], kv[1]})
		}
	}
	return table(a.env.Stdout, rows)
}

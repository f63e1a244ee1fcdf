package export

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/osds-io/osds/pkg/model"
)

// Options are the keys of a driver's YAML that are about its targets. A driver
// embeds them in its configuration; conf calls Validate.
type Options struct {
	TgtBindIP   string   `yaml:"tgtBindIp" doc:"The address that targets listen on: the same as one entry of portals."`
	Portals     []string `yaml:"portals" doc:"The addresses that targets listen on, ADDRESS or ADDRESS:PORT; several give a host several paths. Without a port, 3260 for iSCSI and 4420 for NVMe."`
	NVMePortals []string `yaml:"nvmePortals" doc:"The addresses for NVMe over TCP, where they differ from portals."`

	EnableChapAuth bool `yaml:"enableChapAuth" doc:"Whether hosts prove who they are over iSCSI, by CHAP with a secret of each attachment's own."`
	MutualChap     bool `yaml:"mutualChap" doc:"Whether targets prove who they are as well; needs enableChapAuth."`

	WriteThrough string `yaml:"writeThrough" oneof:"auto,never" doc:"When a write is acknowledged: auto, the default, when it outlives a power loss of this host; never, as soon as the device has it, which may be in a cache that is lost with the power."`

	ISCSITarget    string `yaml:"iscsiTarget" oneof:"lio,tgt" doc:"What serves iSCSI: lio, the kernel, or tgt, the program tgtd. Left out: lio where the kernel has it, else tgt."`
	TgtControlPort int    `yaml:"tgtControlPort" doc:"The control port of the tgtd to use (its option -C)."`
	TgtConfDir     string `yaml:"tgtConfDir" doc:"Taken for the sake of old files; nothing is written there."`
}

// MaxPortals bounds the addresses of one protocol.
const MaxPortals = 16

// Validate checks the options.
func (o *Options) Validate() error {
	if o.TgtBindIP != "" && len(o.Portals) > 0 {
		return model.Invalid("tgtBindIp", "leave it out where portals are given")
	}
	if o.TgtBindIP != "" {
		if _, err := parsePortals("tgtBindIp", []string{o.TgtBindIP}, 0); err != nil {
			return err
		}
	}
	if _, err := parsePortals("portals", o.Portals, 0); err != nil {
		return err
	}
	if _, err := parsePortals("nvmePortals", o.NVMePortals, 0); err != nil {
		return err
	}
	if err := checkThrough(o.WriteThrough); err != nil {
		return err
	}
	switch {
	case o.MutualChap && !o.EnableChapAuth:
		return model.Invalid("mutualChap", "needs enableChapAuth: a target proves itself only to a host that does")
	case o.ISCSITarget != "" && o.ISCSITarget != targetLIO && o.ISCSITarget != targetTGT:
		return model.Invalid("iscsiTarget", "must be lio or tgt, not %q", o.ISCSITarget)
	case o.TgtControlPort < 0 || o.TgtControlPort > 32767:
		return model.Invalid("tgtControlPort", "must be from 0 to 32767, not %d", o.TgtControlPort)
	}
	return nil
}

// Config makes a manager's configuration of the options.
func (o Options) Config(stateDir, clusterID, backend string) Config {
	portals := o.Portals
	if o.TgtBindIP != "" {
		portals = []string{o.TgtBindIP}
	}
	return Config{StateDir: stateDir, ClusterID: clusterID, Backend: backend, Portals: portals, NVMePortals: o.NVMePortals,
		CHAP: o.EnableChapAuth, Mutual: o.MutualChap, Target: o.ISCSITarget, TgtControlPort: o.TgtControlPort,
		WriteThrough: o.WriteThrough}
}

// The values of Config.Target.
const (
	targetLIO = "lio"
	targetTGT = "tgt"
)

// The ports of the protocols.
const (
	iscsiPort = 3260
	nvmePort  = 4420
)

// parsePortals reads a list of addresses; port is for those without one. Names
// are not taken: a target listens on an address, and a name may change its own.
func parsePortals(field string, list []string, port uint16) ([]netip.AddrPort, error) {
	if len(list) > MaxPortals {
		return nil, model.Invalid(field, "%s has %d entries, at most %d are allowed", field, len(list), MaxPortals)
	}
	var out []netip.AddrPort
	seen := map[netip.AddrPort]bool{}
	for i, s := range list {
		at := field
		if len(list) > 1 {
			at = fmt.Sprintf("%s[%d]", field, i)
		}
		p, err := parsePortal(s, port)
		switch {
		case err != nil:
			return nil, model.Invalid(at, "%q is not an address with or without a port, such as 10.0.0.5, 10.0.0.5:3260 or [fd00::5]:3260", clip(s))
		case p.Addr().IsUnspecified():
			return nil, model.Invalid(at, "%s is every address of this host; give those that hosts shall use", p.Addr())
		case p.Addr().Zone() != "" || p.Addr().IsMulticast():
			return nil, model.Invalid(at, "%s cannot be listened on: give an address without a zone that is not multicast", p.Addr())
		case seen[p]:
			return nil, model.Invalid(at, "%s is given twice", s)
		}
		seen[p] = true
		out = append(out, p)
	}
	return out, nil
}

func parsePortal(s string, port uint16) (netip.AddrPort, error) {
	if a, err := netip.ParseAddr(strings.TrimSuffix(strings.TrimPrefix(s, "["), "]")); err == nil {
		return netip.AddrPortFrom(a.Unmap(), port), nil
	}
	p, err := netip.ParseAddrPort(s)
	if err == nil && p.Port() == 0 {
		err = strconv.ErrRange
	}
	return netip.AddrPortFrom(p.Addr().Unmap(), p.Port()), err
}

func clip(s string) string {
	if len(s) > 64 {
		return s[:64] + "..."
	}
	return s
}

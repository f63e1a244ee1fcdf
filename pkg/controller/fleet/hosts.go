package fleet

import (
	"strings"

	"github.com/osds-io/osds/pkg/model"
)

// Host is a dock that attaches for its own host.
type Host struct {
	Remote
	Dock *model.Dock
}

// Host finds the dock that attached for a host. One that is not there is an
// unavailable error, known without calling it.
func (f *Fleet) Host(dockID string) (*Host, error) {
	r, d, err := f.reach(dockID)
	if err != nil {
		return nil, err
	}
	return &Host{Remote: r, Dock: d}, nil
}

// ServedBy finds the dock that attaches for a host over a protocol: the one that
// has one of the host's initiators, else the one whose node has the host's name.
// It is nil for a host that attaches by itself: there is no such dock, or its
// dock does not know the protocol. Of several docks those that are there count
// before those that are not; if there are several still, nobody can tell which
// is meant, and the error says so.
func (f *Fleet) ServedBy(h *model.Host, protocol string) (*model.Dock, error) {
	var named, matched []*model.Dock
	for _, d := range f.Store.Docks.All() {
		if !d.Attaches() {
			continue
		}
		if sharesInitiator(d, h) {
			matched = append(matched, d)
		} else if strings.EqualFold(d.NodeID, h.HostName) {
			named = append(named, d)
		}
	}
	claims, by := matched, "the same initiator"
	if len(claims) == 0 {
		claims, by = named, "the same node name"
	}
	d, err := theOne(h, claims, by)
	if err != nil || d == nil || len(d.InitiatorsFor(protocol)) == 0 {
		return nil, err
	}
	return d, nil
}

// theOne gives the one dock of those that claim a host; nil if none does.
func theOne(h *model.Host, claims []*model.Dock, by string) (*model.Dock, error) {
	if len(claims) == 0 {
		return nil, nil
	}
	var there []*model.Dock
	for _, d := range claims {
		if d.Status == model.StatusAvailable {
			there = append(there, d)
		}
	}
	if len(there) == 0 {
		there = claims
	}
	if len(there) == 1 {
		return there[0], nil
	}
	return nil, model.Errorf(model.KindInvalid, "docks %s (%s) and %s (%s) both have %s as host %s: give each host names of its own",
		there[0].Name, there[0].ID, there[1].Name, there[1].ID, by, h.HostName)
}

// sharesInitiator says whether a dock's host and a host record have a name on a
// storage network in common.
func sharesInitiator(d *model.Dock, h *model.Host) bool {
	for _, x := range h.Initiators {
		for _, y := range d.Initiators {
			if strings.EqualFold(x.PortName, y.PortName) && strings.EqualFold(x.Protocol, y.Protocol) {
				return true
			}
		}
	}
	return false
}

// Complete gives the host as exports are to know it: with the initiators and the
// address that its dock has, where its record has none.
func Complete(h *model.Host, d *model.Dock, protocol string) *model.Host {
	if d == nil {
		return h
	}
	c := h.Clone()
	if len(c.InitiatorsFor(protocol)) == 0 {
		c.Initiators = append(c.Initiators, d.InitiatorsFor(protocol)...)
	}
	if c.IP == "" && len(d.Addresses) > 0 {
		c.IP = d.Addresses[0]
	}
	return c
}

package connector

import (
	"net/netip"
	"path/filepath"
	"strconv"
	"strings"
)

// session is an iSCSI session as the kernel has it.
type session struct {
	// name is the kernel's name, sid its number, which iscsiadm takes.
	name, sid string
	portal    portal
	// state is LOGGED_IN, FAILED (being recovered) or FREE (given up for now).
	state string
}

const sessionClass = "sys/class/iscsi_session"

// sessions lists the iSCSI sessions of this host.
func (h *host) sessions() []session {
	var out []session
	for _, name := range h.names(sessionClass) {
		sid, ok := strings.CutPrefix(name, "session")
		if !ok {
			continue
		}
		s := session{name: name, sid: sid, state: h.value(sessionClass, name, "state")}
		s.portal.Name = h.value(sessionClass, name, "targetname")
		for _, c := range h.names("sys/class/iscsi_connection") {
			if !strings.HasPrefix(c, "connection"+sid+":") {
				continue
			}
			dir := filepath.Join("sys/class/iscsi_connection", c)
			a, err := netip.ParseAddr(h.value(dir, "persistent_address"))
			if err != nil {
				continue
			}
			p, err := strconv.ParseUint(h.value(dir, "persistent_port"), 10, 16)
			if err != nil {
				continue
			}
			s.portal.Addr = netip.AddrPortFrom(a.Unmap().WithZone(""), uint16(p))
		}
		if s.portal.Name == "" {
			continue // it is being made, or going
		}
		out = append(out, s)
	}
	return out
}

// sessionsOf gives those of a target's portals.
func (h *host) sessionsOf(t *target) map[portal]session {
	out := map[portal]session{}
	for _, s := range h.sessions() {
		for _, p := range t.Portals {
			if s.portal == p {
				out[p] = s
			}
		}
	}
	return out
}

// lun gives the disk of a session's logical unit; empty if there is none yet.
func (h *host) lun(s session, lun int) string {
	top := filepath.Join(sessionClass, s.name, "device")
	for _, t := range h.names(top) {
		if !strings.HasPrefix(t, "target") {
			continue
		}
		for _, d := range h.names(top, t) {
			f := strings.Split(d, ":")
			if len(f) != 4 || f[3] != strconv.Itoa(lun) {
				continue
			}
			if b := h.names(top, t, d, "block"); len(b) == 1 {
				return b[0]
			}
		}
	}
	return ""
}

// scsiHost is the number of a session's SCSI host.
func (h *host) scsiHost(s session) string {
	dir, err := filepath.EvalSymlinks(h.path(sessionClass, s.name, "device"))
	if err != nil {
		return ""
	}
	n, ok := strings.CutPrefix(filepath.Base(filepath.Dir(dir)), "host")
	if _, err := strconv.Atoi(n); !ok || err != nil {
		return ""
	}
	return n
}

// multipathMap finds the device-mapper device of a multipath WWID.
func (h *host) multipathMap(wwid string) (name string, members []string) {
	if wwid == "" {
		return "", nil
	}
	for _, b := range h.names("sys/block") {
		if strings.HasPrefix(b, "dm-") && h.value("sys/block", b, "dm/uuid") == "mpath-"+wwid {
			return b, h.names("sys/block", b, "slaves")
		}
	}
	return "", nil
}

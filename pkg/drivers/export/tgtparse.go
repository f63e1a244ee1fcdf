package export

import (
	"slices"
	"strconv"
	"strings"
)

// tgtTarget is a target as tgtadm shows it.
type tgtTarget struct {
	ID         int
	Name       string
	Ready      bool
	Sessions   []tgtSession
	Units      []tgtUnit
	Accounts   []string // "(outgoing)" stands after those of the target itself
	Initiators []string
}

type tgtSession struct {
	ID          string
	Initiator   string
	Connections []string
}

type tgtUnit struct {
	Number   int
	SCSIID   string
	Serial   string
	Path     string
	Online   bool
	ReadOnly bool
	Sync     bool // every write is on stable storage before it is answered
}

// Bounds of what is read of tgtd.
const (
	maxTgtTargets = 100_000
	maxTgtParts   = 10_000
)

// parseTargets reads what "tgtadm --mode target --op show" says. Lines that are
// not known are passed over; what is not said stays empty, so that a caller who
// looks for it does not find it.
func parseTargets(out string) []tgtTarget {
	var list []tgtTarget
	var t *tgtTarget
	part := ""
	for _, line := range strings.Split(out, "\n") {
		key, val, _ := strings.Cut(strings.TrimSpace(line), ": ")
		key = strings.TrimSuffix(key, ":")
		indent := len(line) - len(strings.TrimLeft(line, " "))
		if indent == 0 {
			t, part = nil, ""
			id, err := strconv.Atoi(strings.TrimPrefix(key, "Target "))
			if strings.HasPrefix(key, "Target ") && err == nil && id > 0 && val != "" && len(list) < maxTgtTargets {
				list = append(list, tgtTarget{ID: id, Name: val})
				t = &list[len(list)-1]
			}
			continue
		}
		if t == nil {
			continue
		}
		if indent == 4 {
			part = key
			continue
		}
		t.line(part, indent, key, val)
	}
	return list
}

// line takes in one line of a part of a target.
func (t *tgtTarget) line(part string, indent int, key, val string) {
	switch part {
	case "System information":
		if key == "State" {
			t.Ready = val == "ready"
		}
	case "I_T nexus information":
		t.session(indent, key, val)
	case "LUN information":
		t.unit(indent, key, val)
	case "Account information":
		if indent == 8 && key != "" && len(t.Accounts) < maxTgtParts {
			t.Accounts = append(t.Accounts, key)
		}
	case "ACL information":
		if indent == 8 && key != "" && len(t.Initiators) < maxTgtParts {
			t.Initiators = append(t.Initiators, key)
		}
	}
}

func (t *tgtTarget) session(indent int, key, val string) {
	if indent == 8 {
		if key == "I_T nexus" && len(t.Sessions) < maxTgtParts {
			t.Sessions = append(t.Sessions, tgtSession{ID: val})
		}
		return
	}
	if len(t.Sessions) == 0 {
		return
	}
	s := &t.Sessions[len(t.Sessions)-1]
	switch {
	case key == "Initiator":
		s.Initiator, _, _ = strings.Cut(val, " ")
	case key == "Connection" && len(s.Connections) < maxTgtParts:
		s.Connections = append(s.Connections, val)
	}
}

func (t *tgtTarget) unit(indent int, key, val string) {
	if indent == 8 {
		if n, err := strconv.Atoi(val); key == "LUN" && err == nil && len(t.Units) < maxTgtParts {
			t.Units = append(t.Units, tgtUnit{Number: n})
		}
		return
	}
	if len(t.Units) == 0 {
		return
	}
	u := &t.Units[len(t.Units)-1]
	switch key {
	case "SCSI ID":
		u.SCSIID = val
	case "SCSI SN":
		u.Serial = val
	case "Online":
		u.Online = val == "Yes"
	case "Readonly":
		u.ReadOnly = val == "Yes"
	case "Backing store path":
		u.Path = val
	case "Backing store flags":
		u.Sync = slices.Contains(strings.Fields(val), "sync")
	}
}

// parsePortalList reads what "tgtadm --mode portal --op show" says: addresses
// with their ports.
func parsePortalList(out string) []string {
	var list []string
	for _, line := range strings.Split(out, "\n") {
		v, ok := strings.CutPrefix(strings.TrimSpace(line), "Portal: ")
		if !ok || len(list) == maxTgtParts {
			continue
		}
		addr, _, _ := strings.Cut(v, ",")
		list = append(list, addr)
	}
	return list
}

// parseAccounts reads what "tgtadm --mode account --op show" says.
func parseAccounts(out string) []string {
	var list []string
	for _, line := range strings.Split(out, "\n") {
		if v, ok := strings.CutPrefix(line, "    "); ok && strings.TrimSpace(v) != "" && len(list) < maxTgtTargets {
			list = append(list, strings.TrimSpace(v))
		}
	}
	return list
}

package failover

import (
	"fmt"
	"strings"
)

// edge is a state that may follow, and how.
type edge struct {
	to   state
	what string
	// arg is a side ('A', 'B') or a number; 0 is none.
	arg rune
	// mishap: users and misfortune do it, so nobody may rely on it.
	mishap bool
}

func (e edge) String() string {
	if !strings.Contains(e.what, "%") {
		return e.what
	}
	return fmt.Sprintf(e.what, e.arg)
}

// machine gives the states that may follow one.
type machine struct {
	w   world
	r   rules
	out []edge
}

// do adds what happens by itself, or is done by those who keep the system going;
// env what users and misfortune do. who is a side or a number.
func (m *machine) do(s state, what string, who ...int8)  { m.add(s, what, false, who) }
func (m *machine) env(s state, what string, who ...int8) { m.add(s, what, true, who) }

func (m *machine) add(s state, what string, mishap bool, who []int8) {
	e := edge{to: s, what: what, mishap: mishap}
	if len(who) > 0 {
		e.arg = rune(who[0])
		if strings.Contains(what, "%c") {
			e.arg += 'A'
		}
	}
	m.out = append(m.out, e)
}

func (m *machine) next(s state) []edge {
	m.out = m.out[:0]
	m.writes(s)
	m.link(s)
	m.copying(s)
	m.arbiter(s)
	m.users(s)
	m.findEvidence(s)
	m.agree(s)
	m.drive(s)
	m.late(s)
	m.poller(s)
	m.misfortune(s)
	m.returns(s)
	return m.out
}

// misfortune: links, docks and hosts fail.
func (m *machine) misfortune(s state) {
	for _, l := range m.w.links() {
		if s.Cuts > 0 && s.Cut&l == 0 {
			n := s
			n.Cuts--
			n.Cut |= l
			if l == linkAB {
				n.unlink()
			}
			m.env(n, "link %d is cut", int8(l))
		}
	}
	for x := int8(0); x < 2; x++ {
		d := &s.Side[x]
		if d.On && d.Dock && s.Dies > 0 {
			n := s
			n.Dies--
			n.Side[x].Dock, n.Side[x].Known = false, false
			m.env(n, "the dock of %c dies", x)
		}
		if d.On && s.Offs > 0 {
			n := s
			n.Offs--
			m.off(&n, x)
			n.Side[x].On = false
			m.env(n, "%c loses its power", x)
		}
		// The host's watchdog resets it, and the controller has waited for it.
		if m.w.watchdog && !d.Lapsed && !m.w.answers(&s, x) {
			n := s
			n.Side[x].Lapsed = true
			if d.On && m.r.watchdog {
				m.off(&n, x)
			} else if d.On && d.Dock {
				n.Side[x].Role, n.Side[x].Grant = min(d.Role, secondary), false
			}
			m.env(n, "the session of %c lapses", x)
		}
	}
}

// off ends everything that runs on a host; what is on its disks stays.
func (m *machine) off(s *state, x int8) {
	d := &s.Side[x]
	d.Dock, d.Known, d.Grant, d.Pend = false, false, false, false
	if d.Role == primary && !m.w.keeps {
		d.Role = secondary
	}
	s.unlink()
}

// returns: what failed comes back.
func (m *machine) returns(s state) {
	for _, l := range m.w.links() {
		if s.Cut&l != 0 {
			n := s
			n.Cut &^= l
			m.heard(&n)
			m.do(n, "link %d heals", int8(l))
		}
	}
	for x := int8(0); x < 2; x++ {
		d := &s.Side[x]
		if !d.On {
			n := s
			n.Side[x].On = true
			m.do(n, "%c has power again", x)
			continue
		}
		if d.Dock {
			continue
		}
		n := s
		n.Side[x].Dock = true
		if !m.r.durable {
			n.Side[x].Gen = 0
		}
		if n.Late.Kind != noCall && n.Late.Side == x && n.Late.Kind != setEvidence {
			n.Late.Old = true
			if m.r.instance { // it will be refused for ever
				n.Late = call{}
			}
		}
		if m.w.sites == 2 {
			n.Rec[m.w.ctrl(x)].Word = false
		}
		m.heard(&n)
		m.do(n, "the dock of %c starts", x)
	}
}

// heard ends the lapse of sessions that are there again.
func (m *machine) heard(s *state) {
	for x := int8(0); x < 2; x++ {
		if m.w.answers(s, x) {
			s.Side[x].Lapsed, s.Side[x].Known = false, true
		}
	}
}

// check holds the promises against a state.
func (m *machine) check(s *state) string {
	if s.Bad != kept {
		return promises[s.Bad]
	}
	if m.writable(s, sideA) && m.writable(s, sideB) {
		return "TWO: both sides are writable"
	}
	if s.Rec[0].Gone && (m.w.sites == 1 || s.Rec[1].Gone) && (s.Side[sideA].Role != removed || s.Side[sideB].Role != removed) {
		return "ORPHAN: the record is gone, and a side is not"
	}
	return ""
}

// good says that a state is one that the replication should end in.
func (m *machine) good(s *state) bool {
	r := &s.Rec[0]
	if r.Gone {
		return (m.w.sites == 1 || s.Rec[1].Gone) && s.Side[0].Role == removed && s.Side[1].Role == removed
	}
	if r.Entitled == nobody || r.Deleting || r.Lacks != nobody && m.w.drives(0, r.Entitled) {
		return false
	}
	x := r.Entitled
	if q := &s.Rec[1]; m.w.sites == 2 && (q.Gone || q.Deleting || q.Gen != r.Gen || q.Entitled != x || q.Lacks != nobody && m.w.drives(1, x)) {
		return false
	}
	p, o := &s.Side[x], &s.Side[other(x)]
	return inStep(s) && m.writable(s, x) && o.Role == secondary && p.Data == o.Data && p.Dock && o.Dock && p.Gen == r.Gen && o.Gen == r.Gen
}

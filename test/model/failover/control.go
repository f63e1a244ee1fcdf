package failover

// The controllers: what users ask for, and what leaders do about it. A leader
// acts on the record alone, and each of its steps may be done again by the next
// one, so leaders are not told apart; what a deposed one may still do is a late
// call, or a late transaction.

// next generation of a controller. Two controllers never choose the same.
func (m *machine) generation(s *state, c int8) int8 {
	g := s.Rec[c].Gen + 1
	if m.w.sites == 2 && m.r.unique && g%2 == c {
		g++ // the first controller has the odd ones
	}
	return g
}

// intend records that side t is to become primary, with its controller.
func (m *machine) intend(s *state, t int8, accept, planned bool) {
	c := m.w.ctrl(t)
	r := &s.Rec[c]
	g := m.generation(s, c)
	*r = record{Gen: g, Entitled: nobody, Target: t, Accept: accept, Switch: planned, May: r.May, Lacks: r.Lacks, LacksGen: r.LacksGen}
}

// users ask for changes of roles, and for deletion.
func (m *machine) users(s state) {
	for t := int8(0); t < 2; t++ {
		c := m.w.ctrl(t)
		r := &s.Rec[c]
		if r.Gone || r.Deleting || r.Entitled == t && (m.w.sites == 1 || r.Word) || r.Target == t && r.intent() {
			continue
		}
		if s.Ops > 0 {
			for _, how := range []struct {
				name            string
				planned, accept bool
			}{{"switch-over", true, false}, {"failover", false, false}, {"failover that accepts loss", false, true}} {
				lossy := r.Lacks == t || !m.w.sync
				if m.w.sites == 1 && !how.planned && how.accept != lossy && m.r.accept {
					continue
				}
				if how.planned && r.Lacks == t || how.accept && !m.r.accept {
					continue
				}
				n := s
				n.Ops--
				m.intend(&n, t, how.accept, how.planned)
				m.env(n, how.name+" to %c", t)
			}
		}
		// A change that cannot be done for what the old primary's site says is
		// taken back.
		if q := &s.Rec[m.w.ctrl(other(t))]; m.w.sites == 2 && r.intent() && r.Gen == q.Gen && q.Target == other(t) && r.Lacks == other(t) && r.LacksGen > q.LacksGen && !q.Accept {
			n := s
			m.intend(&n, t, false, false)
			m.do(n, "back to %c", t)
		}
	}
	if s.Deletes > 0 {
		for c := int8(0); c < m.w.sites; c++ {
			if r := &s.Rec[c]; !r.Gone && !r.Deleting {
				n := s
				n.Deletes--
				n.Rec[c].Deleting = true
				n.Rec[c].Gen = m.generation(&s, c)
				m.env(n, "controller %d: delete", c+1)
			}
		}
	}
}

// findEvidence stores why side t may be promoted, when it has it.
func (m *machine) findEvidence(s state) {
	for c := int8(0); c < m.w.sites; c++ {
		r := &s.Rec[c]
		if !r.intent() || r.Evidence != noEvidence && (m.w.sites == 1 || r.Word) || !m.w.drives(c, r.Target) {
			continue
		}
		t, o := r.Target, other(r.Target)
		old := &s.Side[o]
		has := func(what string, kind int8) {
			n := s
			q := &n.Rec[c]
			q.Evidence, q.Word = kind, true
			q.May, q.LacksGen = bit(t), r.Gen
			m.do(n, what+", of %c", o)
		}
		if !m.r.evidence {
			has("no evidence", otherwise)
		}
		if m.w.sites == 2 {
			m.asks(s, c)
			if m.w.statement && (!old.On || !m.r.trueWord) && (r.Accept || !m.r.accept) && m.present(&s, t) {
				has("statement", otherwise)
			}
			continue
		}
		if r.May&bit(o) == 0 {
			has("it never was promoted", never)
		}
		// To the demotion see drive.
		if r.Switch {
			continue
		}
		if m.w.sync && (r.Lacks != t || !m.r.intentFirst && s.Pre) {
			has("arbitrated", otherwise)
		}
		if m.w.fence {
			if r.Gen >= old.FGen {
				n := s
				n.Side[o].Fenced, n.Side[o].FGen = true, r.Gen
				n.Rec[c].Evidence, n.Rec[c].May, n.Rec[c].Word = otherwise, bit(t), true
				m.do(n, "fenced, of %c", o)
			}
		}
		if m.w.watchdog && (old.Lapsed || !m.r.waits && !m.w.answers(&s, o)) {
			has("watchdog", otherwise)
		}
		if m.w.statement && (!old.On || !m.r.trueWord) {
			has("statement", otherwise)
		}
	}
	if !m.r.intentFirst && !s.Pre && !s.Rec[0].Gone && s.Rec[0].Entitled != nobody && s.Rec[0].Lacks == nobody {
		n := s
		n.Pre = true
		m.do(n, "the leader finds that nobody lacks anything")
	}
}

// present says that a word given now is for the instance of a dock that runs.
func (m *machine) present(s *state, x int8) bool { return s.Side[x].On && s.Side[x].Dock }

// asks is what the controller of the target's side has from the other one.
func (m *machine) asks(s state, c int8) {
	r, q := &s.Rec[c], &s.Rec[1-c]
	if s.Cut&link12 != 0 || !m.present(&s, r.Target) {
		return
	}
	t, o := r.Target, other(r.Target)
	n := s
	nr, nq := &n.Rec[c], &n.Rec[1-c]
	switch {
	case q.Gone || q.Deleting:
		return
	case q.Gen < r.Gen:
		// It records the intent before it does anything for it.
		*nq = record{Gen: r.Gen, Entitled: nobody, Target: t, Accept: r.Accept, Switch: r.Switch, May: q.May, Lacks: q.Lacks, LacksGen: q.LacksGen}
		if !m.r.joins {
			nq.Entitled, nq.Target, nq.Word = q.Entitled, q.Target, q.Word
		}
		m.do(n, "controller %d joins", 2-c)
	case q.Gen == r.Gen:
		free := q.May&bit(o) == 0
		arbitrated := m.w.sync && q.Lacks != t && !r.Switch
		// Who was to be primary later knows what the other side lacks.
		if q.LacksGen > r.LacksGen || !m.r.handOver {
			nr.Lacks = q.Lacks
		}
		if !free && !arbitrated || nr.Lacks == t && !r.Accept && m.r.accept {
			return
		}
		nr.Evidence, nr.Word = otherwise, true
		nr.LacksGen = r.Gen
		if free {
			nr.Evidence = demoted
		}
		nr.May |= bit(t)
		m.do(n, "controller %d gives evidence", 2-c)
	}
}

// agree lets controllers of two sites hear each other: the higher generation is
// right about the roles.
func (m *machine) agree(s state) {
	if m.w.sites == 1 || s.Cut&link12 != 0 {
		return
	}
	for c := int8(0); c < 2; c++ {
		r, q := &s.Rec[c], &s.Rec[1-c]
		n := s
		x := &n.Rec[c]
		switch {
		case r.Gone:
			continue
		case q.Gone || q.Deleting:
			x.Deleting, x.Gen = true, max(r.Gen, q.Gen)
		case r.Deleting:
			continue
		case q.Gen > r.Gen:
			*x = record{Gen: q.Gen, Entitled: q.Entitled, Target: q.Target, Accept: q.Accept, Switch: q.Switch, May: r.May, Lacks: r.Lacks, LacksGen: r.LacksGen}
		case q.Gen == r.Gen && r.Entitled == nobody && q.Entitled != nobody:
			x.Entitled = q.Entitled
		case q.Gen == r.Gen && r.Entitled == c && m.present(&s, c):
			x.Word = true // nobody else has been entitled since
		}
		if n != s {
			m.do(n, "controller %d hears the other", c+1)
		}
	}
}

// wants is the call that a record asks for, to one side.
func (m *machine) wants(s *state, x int8) call {
	r := &s.Rec[m.w.ctrl(x)]
	d := &s.Side[x]
	k := call{Side: x, Gen: r.Gen}
	word := m.w.sites == 1 || r.Word || !m.r.word
	switch {
	case r.Gone:
	case r.Deleting:
		k.Kind = callRemove
	case r.intent() && r.Target == x:
		switch {
		case r.Evidence == never:
			k.Kind, k.Again = callPromote, true
		case r.Evidence == noEvidence || !word:
		case d.Role == primary && d.Since < r.Gen && m.r.anew:
			k.Kind = callDemote // it follows first
		default:
			k.Kind, k.Alone, k.Accept = callPromote, r.Evidence == otherwise, r.Accept
		}
	case r.intent():
		k.Kind = callDemote
	case r.Entitled == x:
		if word && (d.Role != primary || d.Gen < r.Gen || d.Fenced) {
			k.Kind, k.Again = callPromote, true
		}
	case d.Role == primary || d.Gen < r.Gen:
		if m.r.demoteTold {
			k.Kind = callDemote
		}
	}
	return k
}

// drive sends the calls that the records ask for.
func (m *machine) drive(s state) {
	for x := int8(0); x < 2; x++ {
		c := m.w.ctrl(x)
		k := m.wants(&s, x)
		if s.Deletes > 0 && s.Lates > 0 && s.Late.Kind == noCall {
			n := s
			n.Lates--
			n.Late = call{Kind: callConnect, Side: x, Gen: s.Rec[c].Gen}
			m.env(n, "a call that makes %c is delayed", x)
		}
		if k.Kind == noCall {
			continue
		}
		if s.Lates > 0 && s.Late.Kind == noCall && s.Side[x].Known {
			n := s
			n.Lates--
			n.Late = k
			m.env(n, "a call to %c is delayed", x)
			if k.Kind == callDemote && s.Rec[c].intent() && !m.r.guarded {
				n.Late.Kind, n.Late.Side = setEvidence, other(x)
				m.env(n, "a transaction for %c is delayed", other(x))
			}
		}
		if !m.w.answers(&s, x) {
			continue
		}
		n := s
		if !m.arrive(&n, k) {
			continue
		}
		if n != s {
			m.do(n, name[k.Kind]+" %c, no answer", x)
		}
		r := &n.Rec[c]
		switch {
		case k.Kind == callPromote && r.intent():
			r.Entitled, r.Target = x, nobody
			if r.Lacks == x { // that was accepted
				r.Lacks = nobody
			}
		case k.Kind == callDemote && m.w.sites == 2 && r.Target != x:
			r.May &^= bit(x)
		case k.Kind == callDemote && r.intent() && r.Target != x && r.Evidence == noEvidence:
			r.Evidence, r.May, r.Word = demoted, bit(r.Target), true
		case k.Kind == callRemove:
			m.forget(&n, c)
		}
		if n != s {
			m.do(n, name[k.Kind]+" %c", x)
		}
	}
	// A side whose history has parted is told to give its own up: by an
	// operator, who names the side.
	for x := int8(0); x < 2; x++ {
		r := &s.Rec[m.w.ctrl(x)]
		if !r.Gone && !r.Deleting && r.Entitled != x && m.w.answers(&s, x) {
			n := s
			if m.arrive(&n, call{Kind: callResync, Side: x, Gen: r.Gen}) && n != s {
				m.do(n, "resync %c", x)
			}
		}
	}
}

var name = map[int8]string{callPromote: "promote", callDemote: "demote", callConnect: "connect", callResync: "resync", callRemove: "remove", setEvidence: "transaction for"}

// forget ends a record when all its sides are removed; of two, each its own, as
// soon as the other knows.
func (m *machine) forget(s *state, c int8) {
	for x := int8(0); x < 2; x++ {
		if m.w.drives(c, x) && s.Side[x].Role != removed {
			return
		}
	}
	if m.w.sites == 2 && !s.Rec[1-c].Gone && !s.Rec[1-c].Deleting {
		return
	}
	s.Rec[c] = record{Gone: true, Gen: s.Rec[c].Gen, Entitled: nobody, Target: nobody, Lacks: nobody}
}

// late: what a deposed leader sent arrives.
func (m *machine) late(s state) {
	if s.Late.Kind == noCall {
		return
	}
	n := s
	if s.Late.Kind == setEvidence {
		r := &n.Rec[m.w.ctrl(s.Late.Side)]
		if r.intent() {
			r.Target, r.Evidence, r.May = s.Late.Side, demoted, bit(s.Late.Side)
		}
		n.Late = call{}
	} else {
		m.arrive(&n, s.Late)
	}
	if n != s {
		m.env(n, "late: "+name[s.Late.Kind]+" %c", s.Late.Side)
	}
}

// poller clears what the arbiter has recorded, when the data path says that it
// is over.
func (m *machine) poller(s state) {
	for c := int8(0); c < m.w.sites && m.w.sync; c++ {
		r := &s.Rec[c]
		if r.Gone || r.Deleting || r.Lacks == nobody || r.Entitled == nobody || !m.w.drives(c, r.Entitled) {
			continue
		}
		if !r.PollRead {
			n := s
			n.Rec[c].PollRead, n.Rec[c].PollFresh = true, true
			m.do(n, "the poller reads the count")
		}
		if (r.PollRead || !m.r.askAfter) && !r.PollOK && m.w.answers(&s, r.Entitled) && inStep(&s) {
			n := s
			n.Rec[c].PollOK = true
			m.do(n, "the poller has a status")
		}
		if r.PollRead {
			n := s
			q := &n.Rec[c]
			if r.PollOK && (r.PollFresh || !m.r.countSame) {
				q.Lacks = nobody
			}
			q.PollRead, q.PollOK, q.PollFresh = false, false, false
			m.do(n, "the poller clears what it may")
		}
	}
}

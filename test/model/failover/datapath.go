package failover

// The data path: two kernels, and the docks in front of them.

// writable says that a host that writes to side x is told that it is done.
func (m *machine) writable(s *state, x int8) bool {
	d := &s.Side[x]
	if !d.On || d.Role != primary || d.Fenced {
		return false
	}
	return !m.w.sync || s.Linked || d.Grant || !m.r.frozenAsks
}

func (s *state) blame(what int8) {
	if s.Bad == kept {
		s.Bad = what
	}
}

// writes of hosts, on whichever side takes them.
func (m *machine) writes(s state) {
	if s.Writes == 0 {
		return
	}
	for x := int8(0); x < 2; x++ {
		if !m.writable(&s, x) {
			continue
		}
		n := s
		n.Writes--
		b := (n.Written + 1) &^ n.Written
		n.Written |= b
		n.Acked |= b
		n.Side[x].Data |= b
		switch {
		case m.w.sync && n.Linked:
			n.Side[other(x)].Data |= b
		case !n.Linked:
			n.Side[x].Dirty = true
		}
		if n.TopSide != x && !(m.w.sync && n.Linked) {
			n.blame(lateWrite)
		}
		m.env(n, "write on %c", x)
	}
}

// unlink is the end of the connection between the kernels.
func (s *state) unlink() { s.Linked = false }

// link connects the kernels, where they let themselves be connected.
func (m *machine) link(s state) {
	a, b := &s.Side[sideA], &s.Side[sideB]
	if s.Linked || s.Cut&linkAB != 0 || !a.On || !b.On || a.Role == removed || b.Role == removed {
		return
	}
	if a.Role == primary && b.Role == primary || a.Dirty && b.Dirty {
		return // two primaries refuse each other; two histories are a split brain
	}
	n := s
	n.Linked = true
	for x := int8(0); x < 2; x++ {
		d, o := &n.Side[x], &n.Side[other(x)]
		d.Grant = false
		if m.r.thisFreeze {
			d.Pend = false
		}
		if d.Dirty {
			if o.Role == primary {
				return // a primary is not overwritten
			}
			o.Incons = true
		}
	}
	if !a.Dirty && !b.Dirty { // the one that was behind catches up by itself
		for x := int8(0); x < 2; x++ {
			if d, o := &n.Side[x], &n.Side[other(x)]; m.w.sync && d.Data&o.Data == o.Data {
				o.Data = d.Data
			}
		}
	}
	m.do(n, "the kernels connect")
}

// copying: synchronisations end, and what was written is sent after (async).
func (m *machine) copying(s state) {
	if !s.Linked {
		return
	}
	for x := int8(0); x < 2; x++ {
		y := other(x)
		if s.Side[x].Dirty && s.Side[y].Role != primary {
			n := s
			n.Side[y].Data, n.Side[y].Incons, n.Side[x].Dirty = n.Side[x].Data, false, false
			if n.Acked&^n.Side[x].Data != 0 {
				n.blame(lostCopying)
			}
			m.do(n, "%c is synchronised", y)
			continue
		}
		n := s
		from, to := &n.Side[x], &n.Side[y]
		if to.Role != secondary || to.Incons || from.Incons || from.Data&to.Data != to.Data {
			continue
		}
		to.Data = from.Data
		if from.Role == secondary {
			to.Mark = max(to.Mark, from.Dem)
		}
		if n != s {
			m.do(n, "%c has all of the other", y)
		}
	}
}

// inStep says that the data path calls both sides connected and up to date.
func inStep(s *state) bool {
	a, b := &s.Side[sideA], &s.Side[sideB]
	return s.Linked && !a.Incons && !b.Incons && !a.Dirty && !b.Dirty
}

// arrive has a call carried out by the dock of its side. done says that the
// dock answers that it is done.
func (m *machine) arrive(s *state, c call) (done bool) {
	d := &s.Side[c.Side]
	if !d.On || !d.Dock || c.Old && m.r.instance {
		return false
	}
	if c.Gen < d.Gen && m.r.generation {
		return false
	}
	if d.Role == removed {
		switch {
		case c.Kind == callRemove:
			d.Gen = max(d.Gen, c.Gen)
			return true
		case c.Kind == callConnect && !(m.r.tombstone && c.Gen <= d.Gen): // it is made anew
			d.Role = secondary
		}
		return false
	}
	if c.Kind == callPromote && !m.mayPromote(s, c) || c.Kind == callResync && !m.mayDiscard(s, c.Side) {
		return false
	}
	d.Gen = max(d.Gen, c.Gen)
	switch c.Kind {
	case callPromote:
		m.promote(s, c)
	case callDemote:
		if d.Role == primary {
			d.Role, d.Grant, d.Pend = secondary, false, d.Pend && !m.r.thisFreeze
		}
		d.Dem = max(d.Dem, c.Gen)
	case callResync:
		d.Dirty, s.Side[other(c.Side)].Dirty = false, true
	case callRemove:
		d.Role, d.Grant, d.Pend, d.Dirty, d.Incons = removed, false, false, false, false
		if !m.r.tombstone {
			d.Gen = 0
		}
		s.unlink()
	}
	return true
}

// mayPromote is what the data path and the dock look at.
func (m *machine) mayPromote(s *state, c call) bool {
	d, o := &s.Side[c.Side], &s.Side[other(c.Side)]
	switch {
	case d.Incons, c.Gen < d.FGen && m.r.fenceGen:
		return false
	case d.Role == primary && (c.Again || c.Gen == d.Since || !m.r.anew):
		return true
	case !c.Alone && s.Linked && o.Role == primary:
		return false // it sees another primary
	case !m.w.sync && !c.Accept && !c.Again && m.r.marker:
		return d.Mark == c.Gen
	}
	return true
}

// mayDiscard says that side x may be told to give up its history.
func (m *machine) mayDiscard(s *state, x int8) bool {
	d, o := &s.Side[x], &s.Side[other(x)]
	return d.Role != primary && !s.Linked && d.Dirty && (o.Dirty || !m.r.parted) && (d.Since < o.Since || !m.r.later)
}

func (m *machine) promote(s *state, c call) {
	d := &s.Side[c.Side]
	if d.Role != primary {
		d.Role, d.Grant, d.Pend = primary, false, false
		if c.Alone {
			s.unlink()
		}
	}
	d.Since = max(d.Since, c.Gen)
	d.Fenced, d.FGen = false, max(d.FGen, c.Gen)
	if o := &s.Side[other(c.Side)]; !m.w.sync && (!s.Linked || o.Data&^d.Data != 0) {
		d.Dirty = true
		s.unlink()
	}
	if c.Gen > s.Top {
		s.Top, s.TopSide = c.Gen, c.Side
		if c.Accept {
			s.Acked &= d.Data
		}
	}
	if s.TopSide == c.Side && s.Acked&^d.Data != 0 {
		s.blame(lostPromoting)
	}
}

// arbiter: a lone primary asks its controller, which answers; the answer may
// take its time.
func (m *machine) arbiter(s state) {
	for x := int8(0); x < 2 && m.w.sync; x++ {
		d := &s.Side[x]
		if d.Pend && d.Role == primary && !s.Linked {
			n := s
			n.Side[x].Pend, n.Side[x].Grant, n.Side[x].Dirty = false, true, true
			m.do(n, "%c goes on alone", x)
		}
		if d.Role != primary || s.Linked || d.Grant || d.Pend || !m.w.answers(&s, x) {
			continue
		}
		c := m.w.ctrl(x)
		r := &s.Rec[c]
		ok := !r.Gone && r.Gen == d.Gen && (r.Entitled == x || r.Target == x && r.Evidence != noEvidence)
		if !ok && !(s.Ask && x == sideA) {
			continue
		}
		if !m.r.arbiterTxn && !s.Ask && x == sideA {
			n := s
			n.Ask = true
			m.do(n, "the arbiter has looked, for %c", x)
			continue
		}
		n := s
		n.Ask = false
		n.Side[x].Pend = true
		q := &n.Rec[c]
		if m.r.outdated {
			q.Lacks = other(x)
		}
		q.PollFresh = false // the count grows
		m.do(n, "the arbiter lets %c go on", x)
	}
}

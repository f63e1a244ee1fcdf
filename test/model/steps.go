package model

// dock: it comes back, reports what is free, and does what it is called for.
func (x *step) dock(s state) {
	if !s.Up {
		n := s
		n.Up = true
		x.work(n)
	}
	if !x.r.reserve {
		free := int8(capacity)
		for _, v := range s.Vols {
			if v.LUN {
				free--
			}
		}
		if free != s.Free {
			n := s
			n.Free = free
			x.env(n)
		}
	}
	for c, m := range s.Calls {
		if !m.On {
			continue
		}
		if s.Lates > 0 && m.From >= 0 { // the caller's deadline passes, the call does not
			n := s
			n.Lates--
			l := &n.Leaders[m.From]
			l.Jobs[m.Vol].PC = unknown
			l.Seq++
			n.Calls[c].From = -1
			n.canon()
			x.work(n)
		}
		if s.Up {
			x.arrive(s, c)
		}
	}
}

// arrive is a call reaching the dock.
func (x *step) arrive(s state, c int) {
	m := s.Calls[c]
	v := &s.Vols[m.Vol]
	stale := x.r.fence && m.Epoch < s.Fence ||
		x.r.order && (m.Epoch < v.SeenEpoch || m.Epoch == v.SeenEpoch && m.Seq < v.SeenSeq)
	if stale {
		n := s
		if m.From >= 0 { // who is told so knows that its term is over
			n.Calls[c] = call{}
			n.die(int(m.From))
		} else {
			n.Calls[c] = call{}
		}
		n.canon()
		x.work(n)
		return
	}
	seen := s
	seen.Fence = max(s.Fence, m.Epoch)
	w := &seen.Vols[m.Vol]
	w.SeenEpoch, w.SeenSeq = m.Epoch, m.Seq
	done := seen
	done.Vols[m.Vol].LUN = m.Create
	x.answer(done, c, ok)
	if s.Fails == 0 {
		return
	}
	done.Fails--
	seen.Fails--
	x.answer(done, c, unknown) // done, and the answer is lost
	x.answer(seen, c, unknown) // not done, and nobody knows
	if m.Create {
		x.answer(done, c, refused) // half done, and said to have failed
		x.answer(seen, c, refused)
	}
}

func (x *step) answer(s state, c int, pc int8) {
	m := s.Calls[c]
	s.Calls[c] = call{}
	if m.From >= 0 {
		s.Leaders[m.From].Jobs[m.Vol].PC = pc
	}
	s.canon()
	x.work(s)
}

// lead is one step of a leader's work on a volume.
func (x *step) lead(s state, i, v int) {
	j := s.Leaders[i].Jobs[v]
	switch j.PC {
	case idle:
		x.pick(s, i, v)
	case picked:
		x.act(s, i, v)
	case reserved:
		n := s
		l := &n.Leaders[i]
		if !x.commit(&n, i, v, func(r *volume) {
			r.Step, r.Placed, r.Res = provision, true, true
			l.Written++
			n.Account = l.Written
		}) && !l.Dead {
			l.Used--
		}
		x.work(n)
	case ok, refused, unknown:
		x.answered(s, i, v)
	}
}

// pick reads a record with work to do. A leader whose term is over may not know
// it yet: it reads what its cache has.
func (x *step) pick(s state, i, v int) {
	r := s.Vols[v]
	pick := func(step int8) {
		n := s
		n.Leaders[i].Jobs[v] = job{PC: picked, Step: step, Status: r.Status, Debt: r.Debt}
		x.work(n)
	}
	if r.Step != noStep {
		pick(r.Step)
	}
	if r.Debt {
		pick(settle)
	}
}

// act does what the step needs: a reservation, a call, or nothing.
func (x *step) act(s state, i, v int) {
	n := s
	l := &n.Leaders[i]
	j := &l.Jobs[v]
	r := s.Vols[v]
	switch {
	case j.Step == place && x.r.reserve:
		if l.Used < capacity {
			l.Used++
			j.PC = reserved
		} else {
			x.commit(&n, i, v, func(r *volume) { r.Status, r.Step = failed, noStep })
		}
	case j.Step == place:
		full := s.Free < 1
		x.commit(&n, i, v, func(r *volume) {
			if full {
				r.Status, r.Step = failed, noStep
				return
			}
			r.Step, r.Placed = provision, true
		})
	case j.Step == remove && !r.Placed:
		x.commit(&n, i, v, func(r *volume) { r.Status, r.Step = gone, noStep })
	case !s.Up:
		j.PC = unknown
	default:
		for c := range n.Calls {
			if !n.Calls[c].On {
				n.Calls[c] = call{On: true, Create: j.Step == provision, Vol: int8(v), Epoch: l.Epoch, Seq: l.Seq, From: int8(i)}
				j.PC = waiting
				n.canon()
				x.work(n)
				return
			}
		}
		return // the wire is full; something must arrive first
	}
	x.work(n)
}

// commit is one transaction of a leader on a record. It does not hold if the
// record is not as it was read, or if the term is over, which the leader then
// knows. It says whether it held.
func (x *step) commit(n *state, i, v int, change func(*volume)) bool {
	l := &n.Leaders[i]
	j := l.Jobs[v]
	l.Jobs[v] = job{}
	if x.r.epochTxn && l.Epoch != n.Epoch {
		n.die(i)
		return false
	}
	r := &n.Vols[v]
	if j.Step == settle && !r.Debt || j.Step != settle && (r.Status != j.Status || r.Step != j.Step) {
		return false
	}
	change(r)
	return true
}

// answered writes what follows from the dock's answer.
func (x *step) answered(s state, i, v int) {
	j := s.Leaders[i].Jobs[v]
	again := func() { n := s; n.Leaders[i].Jobs[v] = job{}; x.work(n) }
	put := func(f func(n *state, r *volume)) {
		n := s
		x.commit(&n, i, v, func(r *volume) { f(&n, r) })
		x.work(n)
	}
	free := func(n *state) {
		if x.r.reserve {
			l := &n.Leaders[i]
			l.Written--
			l.Used--
			n.Account = l.Written
		}
	}
	release := func(n *state, r *volume) {
		if r.Res {
			free(n)
		}
		r.Res, r.Placed = false, false
	}
	owe := func(n *state, r *volume) {
		if !x.r.debt { // as if gone
			release(n, r)
			return
		}
		if r.Res && !x.r.debtHolds {
			free(n)
			r.Res = false
		}
		r.Debt, r.DebtRes = true, r.Res
		r.Res, r.Placed = false, false
	}
	end := func(to int8) func(*state, *volume) {
		return func(n *state, r *volume) { release(n, r); r.Status, r.Step = to, noStep }
	}
	endOwing := func(to int8) func(*state, *volume) {
		return func(n *state, r *volume) { owe(n, r); r.Status, r.Step = to, noStep }
	}
	giveUp := func(n *state, r *volume) {
		if x.r.undo {
			r.Step = undo
			return
		}
		end(failed)(n, r)
	}
	switch j.Step {
	case provision:
		switch {
		case j.PC == ok:
			put(func(_ *state, r *volume) { r.Status, r.Step = available, noStep })
		case j.PC == refused:
			put(giveUp)
		case !x.r.unknownIs:
			put(end(failed))
		default:
			again()
			put(giveUp) // it was tried for too long
		}
	case undo:
		switch {
		case j.PC == ok:
			put(end(failed))
		case !x.r.unknownIs:
			put(end(failed))
		default:
			again()
			put(endOwing(failed)) // the dock was gone for too long
		}
	case remove:
		switch {
		case j.PC == ok:
			put(end(gone))
		case !x.r.unknownIs:
			put(end(gone))
		default:
			again()
			put(endOwing(gone))
		}
	case settle:
		if j.PC != ok {
			again()
			return
		}
		put(func(n *state, r *volume) {
			if r.DebtRes {
				free(n)
			}
			r.Debt, r.DebtRes = false, false
		})
	}
}

// check gives what is wrong with a state; "" if nothing is.
func (r rules) check(s *state, quiet bool) string {
	luns := 0
	for _, v := range s.Vols {
		if v.LUN {
			luns++
		}
	}
	if luns > capacity {
		return "OVERCOMMIT: the backend holds more than the pool has"
	}
	if r.reserve {
		want := s.recount()
		if want != s.Account {
			return "LEDGER: the account is not what the records hold"
		}
		if want > capacity {
			return "LEDGER: more is reserved than the pool has"
		}
	}
	if !quiet {
		return ""
	}
	for _, v := range s.Vols {
		switch {
		case v.Status == creating || v.Status == deleting:
			return "STUCK: a record is in between for ever"
		case v.Debt:
			return "STUCK: a debt is never settled"
		case v.LUN && v.Status != available:
			return "ORPHAN: the backend has what no record has"
		case !v.LUN && v.Status == available:
			return "GHOST: a record has what the backend has not"
		}
	}
	return ""
}

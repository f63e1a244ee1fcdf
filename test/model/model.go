// Package model is a small exhaustive check of how volumes are created and
// deleted: every interleaving of users, leaders, a dock, crashes, delayed calls
// and lost answers is walked, and the invariants of osds are held against every
// state. It follows the controllers as they are: placement and reservation in
// one transaction, steps that are resumed, undo before error, the epoch in every
// transaction, the dock's two fences, and debts for docks that are gone.
//
// Numbers are small on purpose: two volumes, a pool with room for one, up to
// three leaders. What goes wrong in such protocols does so with two of
// everything.
package model

const (
	vols     = 2
	leaders  = 3
	wires    = 3 // calls under way at a time
	capacity = 1
)

// Status of a volume's record.
const (
	none int8 = iota
	creating
	available
	failed // error
	deleting
	gone
)

// Steps of a record's task.
const (
	noStep int8 = iota
	place
	provision
	undo
	remove
	settle // of a debt, which is a record of its own
)

// What a leader does with one volume.
const (
	idle     int8 = iota
	picked        // has read the record, and is about to act
	reserved      // place: space is reserved in memory, the transaction is to come
	waiting       // a call is under way
	ok            // the dock said: done
	refused       // the dock said: not done, and a retry will not help
	unknown       // no answer
)

// job is a leader's work on one volume.
type job struct {
	PC, Step int8
	// Status and Debt are the record as it was read, which stands for its
	// revision.
	Status int8
	Debt   bool
}

// leader is one term of leadership.
type leader struct {
	On    bool // the term was granted
	Dead  bool // the process is gone, or knows that its term is over
	Epoch int8
	// Seq numbers its calls; it grows only where a call may still be under way,
	// which is where the order matters.
	Seq int8
	// Written and Used are its ledger: what the store has, and with what is
	// reserved in memory.
	Written, Used int8
	Jobs          [vols]job
}

// call is a call under way to the dock.
type call struct {
	On, Create bool
	Vol        int8
	Epoch, Seq int8
	// From is who waits for the answer; -1 is nobody any more.
	From int8
}

// volume is a record and what belongs to it.
type volume struct {
	Asked        bool
	Status, Step int8
	Placed, Res  bool // it has a pool; it holds space there
	Debt         bool // a removal is owed
	DebtRes      bool // ... and holds the space
	LUN          bool // the backend has it
	// SeenEpoch and SeenSeq are the highest stamp the dock remembers for it.
	SeenEpoch, SeenSeq int8
}

type state struct {
	Vols    [vols]volume
	Leaders [leaders]leader
	Calls   [wires]call
	Account int8 // what the store says is reserved in the pool
	Epoch   int8 // in the store
	Free    int8 // what the dock reported last; only without reservations
	// Fence is the highest epoch that the dock has seen.
	Fence int8
	Up    bool // the dock runs
	// What may still go wrong.
	Fails, Takes, Lates, Downs, Deletes int8
}

// rules can be dropped one by one.
type rules struct {
	reserve   bool // space is reserved in the transaction that records the placement
	resume    bool // work is in the record, and whoever leads next goes on with it
	undo      bool // a failed create is removed from the backend before the record says error
	epochTxn  bool // a leader's transactions compare its epoch
	fence     bool // the dock refuses epochs lower than the highest seen
	fenceDisk bool // ... and remembers it over a restart
	order     bool // the dock refuses a call on an object that came after a later one
	debt      bool // a removal from a dock that is gone is recorded as owed
	debtHolds bool // ... and holds its space until it is settled
	unknownIs bool // an unknown outcome is tried again, not taken for a failure
}

func allRules() rules { return rules{true, true, true, true, true, true, true, true, true, true} }

// budget bounds what goes wrong.
type budget struct{ fails, takes, lates, downs, deletes int8 }

func start(b budget) state {
	s := state{Epoch: 1, Up: true, Free: capacity, Fails: b.fails, Takes: b.takes, Lates: b.lates, Downs: b.downs, Deletes: b.deletes}
	s.Leaders[0] = leader{On: true, Epoch: 1}
	return s
}

// step collects the states that follow one. quiet says that nothing is left to
// happen but what users and misfortune may do.
type step struct {
	r     rules
	out   []state
	quiet bool
}

func (x *step) work(s state) { x.out = append(x.out, s); x.quiet = false }
func (x *step) env(s state)  { x.out = append(x.out, s) }

// next gives every state that may follow.
func (x *step) next(s state) {
	x.out, x.quiet = x.out[:0], true
	x.users(s)
	x.misfortune(s)
	x.dock(s)
	for i := range s.Leaders {
		if l := &s.Leaders[i]; l.On && !l.Dead {
			for v := range s.Vols {
				x.lead(s, i, v)
			}
		}
	}
}

// users ask for volumes, and delete those that are available or in error.
func (x *step) users(s state) {
	for v := range s.Vols {
		r := s.Vols[v]
		if !r.Asked && (v == 0 || s.Vols[v-1].Asked) { // volumes differ in nothing else
			n := s
			n.Vols[v] = volume{Asked: true, Status: creating, Step: place}
			x.work(n)
		}
		if s.Deletes > 0 && (r.Status == available || r.Status == failed) && r.Step == noStep {
			n := s
			n.Deletes--
			n.Vols[v].Status, n.Vols[v].Step = deleting, remove
			x.env(n)
		}
	}
}

// misfortune: leaders change, with the old one dead or merely slow; the dock
// goes away.
func (x *step) misfortune(s state) {
	for i := 0; s.Takes > 0 && i+1 < leaders; i++ {
		if !s.Leaders[i].On || s.Leaders[i+1].On {
			continue
		}
		for _, crash := range []bool{true, false} {
			if !crash && s.Leaders[i].Dead {
				continue
			}
			n := s
			n.Takes--
			n.Epoch++
			if crash {
				n.die(i)
			}
			n.takeOver(i+1, x.r)
			x.env(n)
		}
	}
	// The last leader may find that its term ended (the store did not answer)
	// and lead anew, so that work never waits for a leader that gave up.
	for i := 0; i+1 < leaders; i++ {
		if s.Leaders[i].On && s.Leaders[i].Dead && !s.Leaders[i+1].On && s.Leaders[i].Epoch == s.Epoch {
			n := s
			n.Epoch++
			n.takeOver(i+1, x.r)
			x.work(n)
		}
	}
	if s.Downs > 0 && s.Up {
		n := s
		n.Downs--
		n.Up = false
		for c := range n.Calls { // its connections end
			n.unanswered(c)
		}
		for v := range n.Vols { // remembered in memory only
			n.Vols[v].SeenEpoch, n.Vols[v].SeenSeq = 0, 0
		}
		if !x.r.fenceDisk {
			n.Fence = 0
		}
		x.env(n)
	}
}

// die ends a process: its calls stay under way, and nobody waits for them.
func (s *state) die(i int) {
	l := &s.Leaders[i]
	*l = leader{On: true, Dead: true, Epoch: l.Epoch}
	for c := range s.Calls {
		if s.Calls[c].From == int8(i) {
			s.Calls[c].From = -1
		}
	}
}

// takeOver begins a term.
func (s *state) takeOver(i int, r rules) {
	n := s.recount()
	s.Leaders[i] = leader{On: true, Epoch: s.Epoch, Written: n, Used: n}
	if !r.resume { // what was only in memory is lost
		for v := range s.Vols {
			s.Vols[v].Step = noStep
		}
	}
}

// recount is what the records hold.
func (s *state) recount() (n int8) {
	for _, v := range s.Vols {
		if v.Res {
			n++
		}
		if v.Debt && v.DebtRes {
			n++
		}
	}
	return n
}

// unanswered takes a call off the wire without an answer.
func (s *state) unanswered(c int) {
	m := s.Calls[c]
	if m.On && m.From >= 0 {
		s.Leaders[m.From].Jobs[m.Vol].PC = unknown
	}
	s.Calls[c] = call{}
}

// canon puts calls in order, so that states that differ in nothing are one.
func (s *state) canon() {
	for i := 1; i < wires; i++ {
		for j := i; j > 0 && s.Calls[j].rank() > s.Calls[j-1].rank(); j-- {
			s.Calls[j], s.Calls[j-1] = s.Calls[j-1], s.Calls[j]
		}
	}
}

func (c call) rank() int {
	if !c.On {
		return -1
	}
	n := int(c.Vol)<<1 | int(c.Epoch)<<4 | int(c.Seq)<<8 | int(c.From+1)<<12
	if c.Create {
		n |= 1
	}
	return n
}

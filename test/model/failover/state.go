// Package failover is an exhaustive check of how a replication changes roles:
// every interleaving of users, leaders and their delayed calls, two docks that
// die while the kernel goes on, hosts that lose power and return, partitions
// between any two of the sides and the controllers, and the arbiter's answers is
// walked, and what docs/design/replication.md promises is held against every
// state: never two writable sides, no acknowledged write lost that nobody agreed
// to lose, none acknowledged by a side that has lost its role, and always a way
// back to one primary with both sides in step and both records alike.
//
// It follows the protocol, not the code. Numbers are small on purpose.
package failover

import "reflect"

// The two sides; a set of sides is the sum of their bits.
const (
	sideA = 0
	sideB = 1

	nobody int8 = -1
)

// Roles of a side in its kernel.
const (
	removed int8 = iota // an ordinary volume again
	secondary
	primary
)

// Kinds of evidence in a record; what matters is whether the old primary said
// itself that it is none.
const (
	noEvidence int8 = iota
	demoted
	otherwise // arbitrated, fenced, watchdog, statement
	never     // the target of the change before was not promoted yet
)

// side is a host with its dock, its kernel and its disk.
type side struct {
	On, Dock bool // the host has power; the dock's process runs
	Known    bool // ... and is known to its controller
	// Gen is the highest generation that the dock has seen, on disk.
	Gen  int8
	Role int8
	// Data are the writes that the disk has, one bit each.
	Data uint8
	// Dirty: it was written, or could be, while it was alone. Incons: a
	// synchronisation has not ended.
	Dirty, Incons bool
	// Grant: this lone primary may write; it holds until the other side is heard
	// of. Pend: the arbiter's leave is on its way.
	Grant, Pend bool
	// Fenced: the storage ends all access of the host; FGen is the generation
	// that the storage has seen, which another dock keeps.
	Fenced bool
	FGen   int8
	// Lapsed: there was no session for longer than the watchdog waits.
	Lapsed bool
	// Dem is the generation it was demoted at, Mark the one whose demotion, and
	// with it everything before, it has received from the other side.
	Dem, Mark int8
	// Since is the generation it was last promoted at, on disk.
	Since int8
}

// record is the durable record of one controller.
type record struct {
	Gone, Deleting bool
	Gen            int8
	Entitled       int8 // side, or nobody: then Target is to become primary
	Target         int8
	Evidence       int8
	Accept         bool // acceptDataLoss
	Switch         bool // a planned move: no evidence but the old primary's own word
	// May are the sides, of those that this controller drives, that may be primary.
	May uint8
	// Lacks is the side that lacks acknowledged writes, of which only the
	// controller of the primary's side knows; LacksGen is the generation that
	// its side was to be promoted at, last.
	Lacks, LacksGen int8
	// Word: the other controller, or a person, said that the other side is not
	// primary, since the present instance of the dock here started.
	Word bool
	// The poller: it has read the count, which is the same still; it has an
	// answer that both sides are connected and up to date.
	PollFresh, PollRead, PollOK bool
}

// Kinds of calls to docks.
const (
	noCall int8 = iota
	callPromote
	callDemote
	callConnect
	callResync
	callRemove
	setEvidence // no call: a deposed leader's transaction
)

// call is a call to a dock, as its sender read the record.
type call struct {
	Kind, Side, Gen int8
	// Alone: the other side is not to be heard any more. Again: the side was
	// entitled already. Accept: acceptDataLoss.
	Alone, Again, Accept bool
	// Old: the dock that it was meant for has restarted since.
	Old bool
}

// The promises that are looked at where something happens.
const (
	kept int8 = iota
	lateWrite
	lostPromoting
	lostCopying
)

var promises = [...]string{
	lateWrite:     "LATE: a side that has lost its role acknowledged a write",
	lostPromoting: "LOST: a promotion lacks acknowledged writes",
	lostCopying:   "LOST: a synchronisation discarded acknowledged writes",
}

// state is all of it. It holds no pointers, so that it is its own key.
type state struct {
	Side [2]side
	Rec  [2]record // by controller; only the first one, if there is one site
	// Linked: the two kernels hear each other.
	Linked bool
	// Cut are the links that are down, one bit each.
	Cut uint8
	// Late is a call of a deposed leader, which may arrive at any time, and as
	// often as it likes.
	Late call
	// Acked are the acknowledged writes that nobody has agreed to lose; Written
	// are all.
	Acked, Written uint8
	// Top is the highest generation that a side was promoted at, TopSide which.
	Top, TopSide int8
	// Pre and Ask are only used where a rule is dropped: evidence that was
	// looked for before the intent; a question that the arbiter has looked at
	// and not answered yet.
	Pre, Ask bool
	// Bad is the first broken promise: its place in promises.
	Bad int8
	// What may still happen.
	Ops, Cuts, Dies, Offs, Lates, Deletes, Writes int8
}

// rules can be dropped one by one.
type rules struct {
	generation  bool // docks refuse calls of generations lower than one they have seen
	durable     bool // ... and remember it over a restart
	instance    bool // docks refuse calls that were meant for one before their restart
	evidence    bool // no promotion without evidence
	intentFirst bool // evidence is looked for after the intent is recorded
	arbiterTxn  bool // the arbiter looks and writes in one transaction
	outdated    bool // what the arbiter allows is recorded
	countSame   bool // the poller clears only if the count is the same
	askAfter    bool // ... and the status was asked for after the count was read
	frozenAsks  bool // a primary that is alone asks before it goes on
	thisFreeze  bool // a leave is for one loss of the other side, and no later one
	guarded     bool // a leader's transactions fail once it is deposed
	watchdog    bool // the host resets itself; without it only the dock demotes
	waits       bool // the controller waits until that has happened
	marker      bool // a planned move waits until the old primary's end has arrived
	accept      bool // promoting a side that may lack writes needs acceptDataLoss
	trueWord    bool // statements are true
	tombstone   bool // a removed side remembers its generation
	unique      bool // two controllers never choose the same generation
	word        bool // a promotion needs a word of the other site since the dock started
	joins       bool // the other site records the intent before it gives evidence
	fenceGen    bool // storage that was fenced refuses earlier generations
	handOver    bool // ... and what it knows of lacking writes, if it was primary later
	demoteTold  bool // the loser is told, when it is back
	parted      bool // no side is told to give up its history, unless both histories have parted
	later       bool // ... nor for one that was promoted earlier
	anew        bool // a side that is primary still is promoted anew as if it were not
}

func allRules() (r rules) {
	for v, i := reflect.ValueOf(&r).Elem(), 0; i < v.NumField(); i++ {
		*(*bool)(v.Field(i).Addr().UnsafePointer()) = true
	}
	return r
}

// world is what is walked: the kind of replication, and what evidence there is.
type world struct {
	sync  bool
	sites int8
	// Which evidence can be had, beside the old primary's word and, for sync,
	// the arbiter's.
	fence, watchdog, statement bool
	// keeps: a side that was primary is primary when it has its power back, as
	// it is with arrays.
	keeps bool
	// What may happen: changes of roles that users ask for, links cut, docks
	// that die, hosts that lose power, calls that are late, deletes, writes.
	ops, cuts, dies, offs, lates, deletes, writes int8
}

func start(w world) state {
	s := state{
		Top: 1, TopSide: sideA, Linked: true,
		Ops: w.ops, Cuts: w.cuts, Dies: w.dies, Offs: w.offs, Lates: w.lates, Deletes: w.deletes, Writes: w.writes,
	}
	for i := range s.Side {
		s.Side[i] = side{On: true, Dock: true, Known: true, Gen: 1, Role: secondary, FGen: 1}
	}
	s.Side[sideA].Role, s.Side[sideA].Since = primary, 1
	for c := int8(0); c < w.sites; c++ {
		s.Rec[c] = record{Gen: 1, Entitled: sideA, Target: nobody, Lacks: nobody, Word: true}
	}
	s.Rec[0].May, s.Rec[0].LacksGen = bit(sideA), 1
	return s
}

func bit(x int8) uint8  { return 1 << x }
func other(x int8) int8 { return 1 - x }

// intent says that a change of roles is under way.
func (r *record) intent() bool { return !r.Gone && r.Entitled == nobody && !r.Deleting }

// Links.
const (
	linkAB uint8 = 1 << iota
	linkA1
	linkA2
	linkB1
	linkB2
	link12
)

// links are those that the protocol uses: a side is driven by its own
// controller only.
func (w world) links() []uint8 {
	if w.sites == 1 {
		return []uint8{linkAB, linkA1, linkB1}
	}
	return []uint8{linkAB, linkA1, linkB2, link12}
}

// ctrl is the controller that drives a side.
func (w world) ctrl(x int8) int8 {
	if w.sites == 1 {
		return 0
	}
	return x
}

func (w world) drives(c, x int8) bool { return w.ctrl(x) == c }

// hears says that a controller reaches a side's host.
func (w world) hears(s *state, x int8) bool {
	l := linkA1
	if x == sideB {
		l = linkB1
		if w.sites == 2 {
			l = linkB2
		}
	}
	return s.Cut&l == 0
}

// answers says that a side's dock does.
func (w world) answers(s *state, x int8) bool {
	return s.Side[x].On && s.Side[x].Dock && w.hears(s, x)
}

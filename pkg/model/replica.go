package model

import "time"

// ReplicaRole is what one side of a replication is in the data path.
type ReplicaRole string

// The roles. A side of unknown role is to be taken for a primary by everything
// that makes another one.
const (
	RolePrimary   ReplicaRole = "primary"   // may be written by hosts
	RoleSecondary ReplicaRole = "secondary" // follows, and hosts cannot write it
	RoleUnknown   ReplicaRole = "unknown"   // it cannot be asked
)

// ReplicaState is how the data path of one side stands.
type ReplicaState string

// The states.
const (
	// ReplicaConnecting: made, the other side was not heard of yet or is away.
	ReplicaConnecting ReplicaState = "connecting"
	// ReplicaSyncing: the secondary is being filled, or brought up to date; it
	// is not consistent meanwhile unless ReplicaStatus.LastConsistent is set.
	ReplicaSyncing ReplicaState = "syncing"
	// ReplicaInSync: every write is on both sides (sync), or follows within the
	// stated lag (async).
	ReplicaInSync ReplicaState = "inSync"
	// ReplicaSuspended: stopped by an operator (disable).
	ReplicaSuspended ReplicaState = "suspended"
	// ReplicaFrozen: a primary that was cut off and may not write until its
	// arbiter or the other side is heard of.
	ReplicaFrozen ReplicaState = "frozen"
	// ReplicaSplitBrain: both sides have writes that the other has not. One of
	// them must be discarded, by a person.
	ReplicaSplitBrain ReplicaState = "splitBrain"
	// ReplicaFailed: the data path needs a person; Detail says why.
	ReplicaFailed ReplicaState = "failed"
)

// ReplicaData says what a side's data is worth.
type ReplicaData string

// The worths.
const (
	DataUpToDate     ReplicaData = "upToDate"     // every acknowledged write is here
	DataConsistent   ReplicaData = "consistent"   // a point in time; how old is said by LastConsistent
	DataOutdated     ReplicaData = "outdated"     // consistent, and known to lack acknowledged writes
	DataInconsistent ReplicaData = "inconsistent" // in the middle of a synchronisation: no use alone
	DataUnknown      ReplicaData = "unknown"
)

// ReplicaStatus is one side of a replication as its data path says, at a moment.
type ReplicaStatus struct {
	Role  ReplicaRole  `json:"role"`
	State ReplicaState `json:"state"`
	Data  ReplicaData  `json:"data"`
	// PeerRole and PeerData are the other side as this one sees it; unknown
	// while they are not connected.
	PeerRole ReplicaRole `json:"peerRole,omitempty"`
	PeerData ReplicaData `json:"peerData,omitempty"`
	// Connected says that the two sides hear each other.
	Connected bool `json:"connected"`
	// Writable says that a host that reached this side's device could write
	// now. A frozen primary is not.
	Writable bool `json:"writable"`
	// LagBytes is what the secondary lacks, LagSeconds how old the newest
	// write is that it has; below 0: not known.
	LagBytes   Bytes   `json:"lagBytes"`
	LagSeconds float64 `json:"lagSeconds"`
	// LastConsistent is the newest moment that this side could be promoted at,
	// in the primary's time; zero if there is none.
	LastConsistent time.Time `json:"lastConsistent,omitzero"`
	// Sync is how far a synchronisation is; nil while there is none.
	Sync *Progress `json:"sync,omitempty"`
	// At is when the data path said so. Some tell only now and then: a decision
	// on a status must look that it is newer than what it depends on.
	At time.Time `json:"at"`
	// Evidence is, for a split brain, what tells: generations, addresses, since
	// when. Detail is for people.
	Evidence string `json:"evidence,omitempty"`
	Detail   string `json:"detail,omitempty"`
}

// Promotable says whether the side's data may be used alone, and if not, why.
func (s *ReplicaStatus) Promotable() error {
	switch s.Data {
	case DataUpToDate, DataConsistent, DataOutdated:
		return nil
	case DataInconsistent:
		return Errorf(KindConflict, "its data is not consistent: a synchronisation has not ended")
	}
	return Errorf(KindConflict, "it cannot be told what its data is worth")
}

// EvidenceKind is why it is safe to promote a side.
type EvidenceKind string

// The kinds of evidence.
const (
	// EvidenceDemoted: the old primary said itself that it is none any more.
	EvidenceDemoted EvidenceKind = "demoted"
	// EvidenceArbitrated: the old primary cannot write without a leave that is
	// refused from now on, and has not had one since the two were in step.
	EvidenceArbitrated EvidenceKind = "arbitrated"
	// EvidenceFenced: the old primary's storage said that nobody can write it.
	EvidenceFenced EvidenceKind = "fenced"
	// EvidenceWatchdog: the old primary's host has a watchdog that has reset it,
	// for its dock was not heard of for longer than it waits.
	EvidenceWatchdog EvidenceKind = "watchdog"
	// EvidenceStatement: a named person says that it is powered off.
	EvidenceStatement EvidenceKind = "statement"
)

// Evidence is stored with every promotion.
type Evidence struct {
	Kind EvidenceKind `json:"kind"`
	At   time.Time    `json:"at"`
	// By is the user who asked; for a statement, the person who vouches.
	By string `json:"by,omitempty"`
	// Detail is what was seen, in words.
	Detail string `json:"detail"`
}

// The replication modes, and who does the work.
const (
	ReplicationSync  = "sync"  // a write is acknowledged when both sides have it
	ReplicationAsync = "async" // the secondary follows

	ArrayBased = "ArrayBased" // the backends replicate between them
	HostBased  = "HostBased"  // hosts replicate what is attached to them
)

// AbilityReplicate is having volumes replicated by the backend itself.
const AbilityReplicate = "replicate"

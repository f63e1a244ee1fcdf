package model

// Status is the state of a record, in the original's spelling.
type Status string

// Status values. Attachments, snapshots and groups use subsets.
const (
	StatusCreating       Status = "creating"
	StatusAvailable      Status = "available"
	StatusInUse          Status = "inUse"
	StatusAttaching      Status = "attaching"
	StatusExtending      Status = "extending"
	StatusErrorExtending Status = "errorExtending"
	StatusReverting      Status = "reverting"
	StatusErrorReverting Status = "errorReverting"
	StatusUpdating       Status = "updating"
	StatusDeleting       Status = "deleting"
	StatusError          Status = "error"
	StatusErrorDeleting  Status = "errorDeleting"
	StatusUnavailable    Status = "unavailable"
)

// Transitional says whether a record in this status has work going on, and so
// must have an owner. A volume that is attaching has none itself: its
// attachment does.
func (s Status) Transitional() bool {
	switch s {
	case StatusCreating, StatusExtending, StatusReverting, StatusUpdating, StatusDeleting, StatusAttaching:
		return true
	}
	return false
}

// Failed says whether the status is one of the error states; such a record has
// a statusReason.
func (s Status) Failed() bool {
	switch s {
	case StatusError, StatusErrorDeleting, StatusErrorExtending, StatusErrorReverting:
		return true
	}
	return false
}

// from is the state table: for each operation, the states it may start in.
var from = map[Resource]map[TaskKind][]Status{
	ResVolume: {
		TaskDelete: {StatusAvailable, StatusError, StatusErrorDeleting, StatusErrorExtending, StatusErrorReverting},
		// Growing a volume in use needs a driver that can; the caller checks.
		TaskExtend: {StatusAvailable, StatusInUse, StatusErrorExtending},
		TaskRevert: {StatusAvailable, StatusErrorReverting},
		// TaskAttach and TaskSnapshot stand for "may be attached" and "may be
		// the source of a snapshot or clone"; the task itself belongs to the
		// attachment or snapshot.
		TaskAttach:   {StatusAvailable, StatusInUse},
		TaskSnapshot: {StatusAvailable, StatusInUse},
	},
	ResSnapshot: {
		TaskDelete: {StatusAvailable, StatusError, StatusErrorDeleting},
	},
	ResAttachment: {
		TaskDelete: {StatusAvailable, StatusError, StatusErrorDeleting},
	},
	ResGroup: {
		TaskDelete: {StatusAvailable, StatusError, StatusErrorDeleting, StatusInUse},
		TaskUpdate: {StatusAvailable, StatusInUse},
	},
}

// MayStart says whether an operation may start on a resource in a status.
func MayStart(res Resource, op TaskKind, s Status) bool {
	for _, x := range from[res][op] {
		if x == s {
			return true
		}
	}
	return false
}

// StartStates lists the states that MayStart accepts, for error messages.
func StartStates(res Resource, op TaskKind) []Status { return from[res][op] }

package model

// Many records say the same: their tenant, zone, pool, profile, states. The
// InternStrings methods replace such texts by shared ones, which share gives.
// Texts that are each record's own (ids, names) are left alone. They change the
// record in place and so are only for one that nobody else has yet; a task that
// other records may share has its own.

// InternStrings shares the texts of a volume, but not those of its task.
func (v *Volume) InternStrings(share func(string) string) {
	v.UserID, v.AvailabilityZone, v.Status = share(v.UserID), share(v.AvailabilityZone), Status(share(string(v.Status)))
	v.ProfileID, v.PoolID, v.RequestedPoolID = share(v.ProfileID), share(v.PoolID), share(v.RequestedPoolID)
	v.DurableFormat = share(v.DurableFormat)
}

// InternStrings shares the texts of a snapshot, but not those of its task.
func (s *Snapshot) InternStrings(share func(string) string) {
	s.UserID, s.ProfileID, s.PoolID, s.Status = share(s.UserID), share(s.ProfileID), share(s.PoolID), Status(share(string(s.Status)))
}

// InternStrings shares the texts of an attachment, but not those of its task.
func (a *Attachment) InternStrings(share func(string) string) {
	a.UserID, a.HostID, a.Status = share(a.UserID), share(a.HostID), Status(share(string(a.Status)))
	a.AttachMode, a.AccessProtocol, a.DockID = share(a.AttachMode), share(a.AccessProtocol), share(a.DockID)
}

// InternStrings shares the texts of a task.
func (t *Task) InternStrings(share func(string) string) {
	t.Kind, t.State, t.Step = TaskKind(share(string(t.Kind))), TaskState(share(string(t.State))), Step(share(string(t.Step)))
	t.Owner, t.PrevStatus = share(t.Owner), Status(share(string(t.PrevStatus)))
	t.ErrorKind, t.FailureKind = Kind(share(string(t.ErrorKind))), Kind(share(string(t.FailureKind)))
	for i := range t.History {
		t.History[i].Step = Step(share(string(t.History[i].Step)))
	}
}

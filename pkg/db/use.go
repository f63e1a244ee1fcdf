package db

import "fmt"

// UseOfDock names a record that lives in one of a dock's pools, and the pool, or
// an attachment that the dock made the device of; empty if there is none. Debts and
// the pools themselves do not count.
func (s *Store) UseOfDock(dockID string) string {
	for _, p := range s.Pools.Where("dockId", dockID, 0) {
		what, id := "", ""
		if l := s.Volumes.Where("poolId", p.ID, 1); len(l) > 0 {
			what, id = "volume", l[0].ID
		} else if l := s.Snapshots.Where("poolId", p.ID, 1); len(l) > 0 {
			what, id = "snapshot", l[0].ID
		} else if l := s.Groups.Where("poolId", p.ID, 1); len(l) > 0 {
			what, id = "volume group", l[0].ID
		}
		if what != "" {
			return fmt.Sprintf("%s %s in pool %s", what, id, p.Name)
		}
	}
	for _, a := range s.Attachments.All() {
		if a.DockID == dockID {
			return fmt.Sprintf("attachment %s, whose device is on its host", a.ID)
		}
	}
	return ""
}

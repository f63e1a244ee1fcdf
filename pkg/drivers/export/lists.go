package export

import (
	"context"
	"errors"
	"slices"
	"sort"
	"strings"

	"github.com/osds-io/osds/internal/keylock"
	"github.com/osds-io/osds/pkg/drivers"
)

// List lists the live exports, ordered by attachment id.
func (m *Manager) List(ctx context.Context, p drivers.Page) ([]drivers.LiveExport, error) {
	if err := drivers.Begin(ctx); err != nil {
		return nil, err
	}
	live := map[string]map[string]liveTarget{}
	var out []drivers.LiveExport
	for _, n := range m.all() {
		if n.AttachmentID <= p.After {
			continue
		}
		if live[n.Target] == nil {
			got, err := m.servers[n.Target].live(ctx)
			if err != nil {
				return nil, err
			}
			live[n.Target] = got
		}
		if !live[n.Target][n.Name].up {
			continue
		}
		out = append(out, drivers.LiveExport{AttachmentID: n.AttachmentID, VolumeID: n.VolumeID, Detail: n.detail()})
		if len(out) == p.Bound() {
			break
		}
	}
	return out, nil
}

func (n *note) detail() string {
	d := n.Name + " of " + n.Device + " to " + strings.Join(n.Initiators, ", ")
	if n.ReadOnly {
		d += ", read-only"
	}
	if n.WriteThrough {
		d += ", write-through"
	}
	return d
}

// Of lists the attachments of a volume that are exported, or noted.
func (m *Manager) Of(volumeID string) []string {
	var out []string
	for _, n := range m.notesOf(volumeID) {
		out = append(out, n.AttachmentID)
	}
	return out
}

// VolumeOf gives the volume of an attachment that is exported, or noted.
func (m *Manager) VolumeOf(attachmentID string) (string, bool) {
	n := m.note(attachmentID)
	if n == nil {
		return "", false
	}
	return n.VolumeID, true
}

// Volumes lists the volumes that are exported, or noted, each once.
func (m *Manager) Volumes() []string {
	var out []string
	for _, n := range m.all() {
		out = append(out, n.VolumeID)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// Resized tells the targets of a volume that its device has grown.
func (m *Manager) Resized(ctx context.Context, volumeID string) error {
	_, err := work(ctx, m, "growth of volume "+volumeID, []keylock.Want{{Key: "v/" + volumeID}}, func(ctx context.Context) (struct{}, error) {
		var errs []error
		for _, n := range m.notesOf(volumeID) {
			if !n.Ending {
				errs = append(errs, m.servers[n.Target].resized(ctx, n))
			}
		}
		return struct{}{}, errors.Join(errs...)
	})
	return err
}

// keep writes a note and remembers it, and forget removes it.
func (m *Manager) keep(n *note) error {
	if err := m.book.write(n); err != nil {
		return err
	}
	m.mu.Lock()
	m.notes[n.AttachmentID] = n
	m.mu.Unlock()
	return nil
}

// keepNew is keep for a new export: wait answers when the note is durable, which
// it must be before anybody is told of the export.
func (m *Manager) keepNew(n *note) (wait func() error, err error) {
	if wait, err = m.book.begin(n); err != nil {
		return nil, err
	}
	m.mu.Lock()
	m.notes[n.AttachmentID] = n
	m.mu.Unlock()
	return wait, nil
}

func (m *Manager) forget(id string) error {
	if err := m.book.remove(id); err != nil {
		return err
	}
	m.mu.Lock()
	delete(m.notes, id)
	delete(m.bad, id)
	m.mu.Unlock()
	return nil
}

func (m *Manager) note(id string) *note {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.notes[id]
}

func (m *Manager) damaged(id string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.bad[id]
}

// all gives the notes by attachment id.
func (m *Manager) all() []*note {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := make([]*note, 0, len(m.notes))
	for _, n := range m.notes {
		out = append(out, n)
	}
	sort.Slice(out, func(i, j int) bool { return out[i].AttachmentID < out[j].AttachmentID })
	return out
}

func (m *Manager) notesOf(volumeID string) []*note {
	return slices.DeleteFunc(m.all(), func(n *note) bool { return n.VolumeID != volumeID })
}

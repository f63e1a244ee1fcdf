package export

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/osds-io/osds/internal/atomicfile"
	"github.com/osds-io/osds/pkg/model"
)

// note is what is kept on disk of one export. It is written before the kernel is
// touched and removed after the kernel has let go, so whatever the kernel has of
// ours has a note; with Ending set nothing but the export's end may follow.
type note struct {
	Version      int      `json:"version"`
	AttachmentID string   `json:"attachmentId"`
	VolumeID     string   `json:"volumeId"`
	Protocol     string   `json:"protocol"`
	Target       string   `json:"target"` // lio, tgt or nvmet
	Name         string   `json:"name"`
	Device       string   `json:"device"`
	Initiators   []string `json:"initiators"`
	HostName     string   `json:"hostName,omitempty"`
	Portals      []string `json:"portals"`
	ReadOnly     bool     `json:"readOnly,omitempty"`
	MultiAttach  bool     `json:"multiAttach,omitempty"`
	// WriteThrough says that what is acknowledged is stable; notes of earlier
	// versions do not.
	WriteThrough bool `json:"writeThrough,omitempty"`
	// SaysCache says that the host was told of a cache once, and may go by that.
	SaysCache bool `json:"saysCache,omitempty"`
	// CHAP and the target's own proof: empty where they are not asked for.
	User       string    `json:"user,omitempty"`
	Password   clear     `json:"password,omitzero"`
	UserIn     string    `json:"userIn,omitempty"`
	PasswordIn clear     `json:"passwordIn,omitzero"`
	Ending     bool      `json:"ending,omitempty"`
	Created    time.Time `json:"created"`
}

// clear is a secret that is written to disk as it is, in a file for root alone.
// Printed, it is redacted.
type clear struct{ model.Secret }

func (c clear) MarshalJSON() ([]byte, error) { return json.Marshal(c.Reveal()) }

func (c *clear) UnmarshalJSON(b []byte) error {
	var s string
	err := json.Unmarshal(b, &s)
	c.Secret = model.Secret(s)
	return err
}

const (
	noteVersion = 1
	noteExt     = ".json"
	ownerFile   = "owner"
	notesDir    = "notes"
)

// check says whether a note that was read can be one of ours. Its strings end in
// names of files.
func (n *note) check(id string) error {
	switch {
	case n.Version != noteVersion:
		return model.Errorf(model.KindUnavailable, "has format %d, this version of osds knows %d", n.Version, noteVersion)
	case n.AttachmentID != id || !model.ValidID(n.AttachmentID) || !model.ValidID(n.VolumeID):
		return model.Errorf(model.KindUnavailable, "is of attachment %q and volume %q", clip(n.AttachmentID), clip(n.VolumeID))
	case n.Name != targetName(n.Protocol, n.AttachmentID):
		return model.Errorf(model.KindUnavailable, "has the target name %q", clip(n.Name))
	case !(n.Protocol == ISCSI && (n.Target == targetLIO || n.Target == targetTGT)) && !(n.Protocol == NVMe && n.Target == targetNVMe):
		return model.Errorf(model.KindUnavailable, "has protocol %q by %q", clip(n.Protocol), clip(n.Target))
	}
	for _, i := range n.Initiators {
		if err := model.ValidateInitiator(model.Initiator{PortName: i, Protocol: n.Protocol}); err != nil {
			return err
		}
	}
	_, err := parsePortals("portals", n.Portals, 0)
	return err
}

// parseNote reads a note.
func parseNote(id string, b []byte) (*note, error) {
	n := &note{}
	if err := json.Unmarshal(b, n); err != nil {
		return nil, model.Errorf(model.KindUnavailable, "is damaged: %w", err)
	}
	return n, n.check(id)
}

// notebook is the directory of notes.
type notebook struct{ dir string }

// openNotebook opens a state directory, and gives its owner's name: what marks
// targets as made from these notes. It is made once and random, so that two
// backends never take each other's targets for their own, however they are named.
func openNotebook(stateDir string) (notebook, string, error) {
	fail := func(err error) (notebook, string, error) {
		return notebook{}, "", model.Errorf(model.KindUnavailable, "the state directory of exports, %s: %w", stateDir, err)
	}
	if stateDir == "" {
		return notebook{}, "", model.Invalid("stateDir", "exports need a state directory")
	}
	b := notebook{dir: filepath.Join(stateDir, notesDir)}
	if err := os.MkdirAll(b.dir, 0o700); err != nil {
		return fail(err)
	}
	path := filepath.Join(stateDir, ownerFile)
	raw, err := os.ReadFile(path)
	if err == nil {
		if o := strings.TrimSpace(string(raw)); len(o) == ownerLen && strings.Trim(o, "0123456789abcdef") == "" {
			return b, o, nil
		}
		return fail(errors.New("the file " + ownerFile + " is damaged"))
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return fail(err)
	}
	o := digest(model.NewID() + newSecret().Reveal())[:ownerLen]
	if err := atomicfile.Write(path, []byte(o+"\n"), 0o600); err != nil {
		return fail(err)
	}
	return b, o, nil
}

const ownerLen = 16

func (b notebook) path(id string) string { return filepath.Join(b.dir, id+noteExt) }

// read reads all notes. A damaged one is given in bad with the reason: it cannot
// be acted on, and its target is not taken for an orphan either.
func (b notebook) read() (notes []*note, bad map[string]error, err error) {
	es, err := os.ReadDir(b.dir)
	if err != nil {
		return nil, nil, model.Errorf(model.KindUnavailable, "notes of exports: %w", err)
	}
	bad = map[string]error{}
	for _, e := range es {
		id, ok := strings.CutSuffix(e.Name(), noteExt)
		if !ok || !model.ValidID(id) || !e.Type().IsRegular() {
			continue // a temporary name that a crash has left
		}
		raw, err := os.ReadFile(b.path(id))
		if err != nil {
			return nil, nil, model.Errorf(model.KindUnavailable, "notes of exports: %w", err)
		}
		if len(raw) == 0 { // begun just before a power cut: nobody was told
			if err := os.Remove(b.path(id)); err != nil {
				return nil, nil, model.Errorf(model.KindUnavailable, "notes of exports: %w", err)
			}
			continue
		}
		n, err := parseNote(id, raw)
		if err != nil {
			bad[id] = err
			continue
		}
		notes = append(notes, n)
	}
	return notes, bad, nil
}

// write makes a note durable.
func (b notebook) write(n *note) error {
	raw, err := json.MarshalIndent(n, "", "  ")
	if err == nil {
		err = atomicfile.Write(b.path(n.AttachmentID), append(raw, '\n'), 0o600)
	}
	return n.failed(err)
}

// begin writes the note of a new export. It survives the process at once, and is
// durable when wait has answered.
func (b notebook) begin(n *note) (wait func() error, err error) {
	raw, err := json.MarshalIndent(n, "", "  ")
	if err != nil {
		return nil, n.failed(err)
	}
	durable, err := atomicfile.Begin(b.path(n.AttachmentID), append(raw, '\n'), 0o600)
	if err != nil {
		return nil, n.failed(err)
	}
	return func() error { return n.failed(durable()) }, nil
}

func (n *note) failed(err error) error {
	if err == nil {
		return nil
	}
	return model.Errorf(model.KindUnavailable, "note of attachment %s: %w", n.AttachmentID, err)
}

// remove removes a note.
func (b notebook) remove(id string) error {
	err := os.Remove(b.path(id))
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		err = atomicfile.SyncDir(b.dir)
	}
	if err != nil {
		return model.Errorf(model.KindUnavailable, "note of attachment %s: %w", id, err)
	}
	return nil
}

// copyOf gives a copy that may be changed.
func (n *note) copyOf() *note {
	c := *n
	c.Initiators, c.Portals = slices.Clone(n.Initiators), slices.Clone(n.Portals)
	return &c
}

// connection is what the host is told.
func (n *note) connection(identity string) model.Connection {
	d := map[string]any{"volumeId": n.VolumeID, "targetDiscovered": true, "accessMode": "rw", "encrypted": false, "discard": true}
	if n.ReadOnly {
		d["accessMode"] = "ro"
	}
	if identity != "" {
		d["identity"] = identity
	}
	if n.Protocol == NVMe {
		ports, _ := parsePortals("portals", n.Portals, nvmePort)
		d["targetNQN"], d["hostNqn"], d["transporType"] = n.Name, n.Initiators[0], "tcp"
		d["targetIP"], d["targetPort"] = ports[0].Addr().String(), int(ports[0].Port())
		d["targetPortals"] = asAny(n.Portals)
		return model.Connection{Type: NVMe, Data: d}
	}
	// One name for each portal: clients of the original read the two lists
	// side by side.
	iqns := make([]any, len(n.Portals))
	for i := range iqns {
		iqns[i] = n.Name
	}
	d["targetIQN"], d["targetPortal"], d["targetLun"] = iqns, asAny(n.Portals), lun
	if n.User != "" {
		d["authMethod"], d["authUserName"], d["authPassword"] = "CHAP", n.User, n.Password.Secret
	}
	if n.UserIn != "" {
		d["authUserNameIn"], d["authPasswordIn"] = n.UserIn, n.PasswordIn.Secret
	}
	return model.Connection{Type: ISCSI, Data: d}
}

func asAny(list []string) []any {
	out := make([]any, len(list))
	for i, s := range list {
		out[i] = s
	}
	return out
}

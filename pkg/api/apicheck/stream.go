package apicheck

import (
	"bytes"
	"encoding/json"
	"io"
	"strings"
)

// streamBody passes an event stream on and checks each event in it.
type streamBody struct {
	io.ReadCloser
	s *streamCheck
}

// Read reads on.
func (b *streamBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.s.add(p[:n])
	return n, err
}

// streamCheck takes a stream apart.
type streamCheck struct {
	c    *Checker
	rest []byte
	// ended says that nothing may follow: a resync is the last event.
	ended bool
}

// add takes the next bytes of the stream.
func (s *streamCheck) add(p []byte) {
	s.rest = append(s.rest, p...)
	for {
		block, rest, found := bytes.Cut(s.rest, []byte("\n\n"))
		if !found {
			return
		}
		s.event(string(block))
		s.rest = append([]byte(nil), rest...)
	}
}

// event checks one block of lines.
func (s *streamCheck) event(block string) {
	t := s.c.t
	t.Helper()
	if s.ended {
		t.Errorf("apicheck: the stream goes on after a resync: %s", block)
	}
	var id, event, data string
	for _, line := range strings.Split(block, "\n") {
		name, value, _ := strings.Cut(line, ":")
		value = strings.TrimPrefix(value, " ")
		switch name {
		case "id":
			id = value
		case "event":
			event = value
		case "data":
			data += value
		case "", "retry":
		default:
			t.Errorf("apicheck: the stream has a line %q", line)
		}
	}
	if data == "" {
		if event != "" {
			t.Errorf("apicheck: event %q has no data", event)
		}
		return
	}
	var e struct {
		ID       string          `json:"id"`
		Type     string          `json:"type"`
		Resource string          `json:"resource"`
		Object   json.RawMessage `json:"object"`
	}
	if err := json.Unmarshal([]byte(data), &e); err != nil {
		t.Errorf("apicheck: event %s: %v: %s", id, err, data)
		return
	}
	if err := s.schema("Event", []byte(data)); err != nil {
		t.Errorf("apicheck: event %s: %v in %s", id, short(err), clip([]byte(data)))
	}
	if e.ID != id || e.Type != event {
		t.Errorf("apicheck: event %s %s says of itself %s %s", id, event, e.ID, e.Type)
	}
	if name, ok := objectSchemas[e.Resource]; ok && len(e.Object) > 0 {
		if err := s.schema(name, e.Object); err != nil {
			t.Errorf("apicheck: event %s: its object: %v in %s", id, short(err), clip(e.Object))
		}
	}
	s.ended = event == "resync"
}

// objectSchemas are the schemas of the objects in events.
var objectSchemas = map[string]string{
	"docks": "Dock", "pools": "Pool", "profiles": "Profile", "hosts": "Host", "volumes": "Volume", "snapshots": "Snapshot",
	"attachments": "Attachment", "volumeGroups": "VolumeGroup", "debts": "Debt",
}

func (s *streamCheck) schema(name string, b []byte) error {
	s.c.s.mu.Lock()
	doc := s.c.s.doc
	s.c.s.mu.Unlock()
	if doc == nil {
		return nil // reported already
	}
	return doc.Components.Schemas[name].Value.VisitJSON(decode(b))
}

package api

import (
	"bytes"
	"encoding/json"
	"net/http"
	"strconv"
	"time"

	"github.com/osds-io/osds/pkg/db"
	"github.com/osds-io/osds/pkg/model"
	"github.com/osds-io/osds/pkg/model/wire"
)

// eventWriter encodes the events of one stream.
type eventWriter struct {
	s    *Server
	w    http.ResponseWriter
	rc   *http.ResponseController
	f    *eventFilter
	buf  bytes.Buffer
	at   position
	sent time.Time
}

// flush sends what is gathered. A client that does not take it in time is gone.
func (w *eventWriter) flush() error {
	if w.buf.Len() == 0 {
		return nil
	}
	// Not every ResponseWriter has deadlines; those of a server do.
	_ = w.rc.SetWriteDeadline(time.Now().Add(w.s.streams.write))
	_, err := w.w.Write(w.buf.Bytes())
	w.buf.Reset()
	if err == nil {
		err = w.rc.Flush()
	}
	w.sent = time.Now()
	return err
}

// events adds a batch, and sends parts of it that are large.
func (w *eventWriter) events(evs []db.Event) error {
	for i := range evs {
		e := &evs[i]
		w.at = position{e.Rev, e.N}
		if !w.f.wants(e.Rec) {
			continue
		}
		w.event(e)
		if w.buf.Len() >= eventFlush {
			if err := w.flush(); err != nil {
				return err
			}
		}
	}
	return nil
}

// event adds one event. The envelope is written by hand, so that the record is
// encoded once, straight into the buffer.
func (w *eventWriter) event(e *db.Event) {
	b := e.Rec.Base()
	mark := w.buf.Len()
	w.position("id: ")
	w.buf.WriteString("\nevent: ")
	w.buf.WriteString(string(e.Type))
	w.buf.WriteString("\ndata: {\"id\":\"")
	w.position("")
	w.buf.WriteString("\",\"revision\":")
	w.buf.Write(strconv.AppendInt(w.buf.AvailableBuffer(), e.Rev, 10))
	w.buf.WriteString(",\"type\":\"")
	w.buf.WriteString(string(e.Type))
	w.buf.WriteString("\",\"resource\":\"")
	w.buf.WriteString(string(e.Rec.Res()))
	w.buf.WriteString("\",\"resourceId\":")
	w.text(b.ID)
	if b.TenantID != "" {
		w.buf.WriteString(",\"tenantId\":")
		w.text(b.TenantID)
	}
	if v := w.s.show(e.Rec); v != nil {
		w.buf.WriteString(",\"object\":")
		if err := encode(&w.buf, v); err != nil {
			w.s.Log.WithError(err).Errorf("event of %s %s cannot be encoded", e.Rec.Res(), b.ID)
			w.buf.Truncate(mark)
			return
		}
	}
	w.buf.WriteString("}\n\n")
}

func (w *eventWriter) position(before string) {
	w.buf.WriteString(before)
	w.buf.Write(strconv.AppendInt(w.buf.AvailableBuffer(), w.at.rev, 10))
	if w.at.n >= 0 {
		w.buf.WriteByte('.')
		w.buf.Write(strconv.AppendInt(w.buf.AvailableBuffer(), int64(w.at.n), 10))
	}
}

// text adds a JSON string. Ids and tenants have nothing to escape; what else may
// once have been stored is encoded properly.
func (w *eventWriter) text(s string) {
	plain := true
	for i := 0; i < len(s) && plain; i++ {
		b := s[i]
		plain = b >= '0' && b <= '9' || b >= 'a' && b <= 'z' || b >= 'A' && b <= 'Z' || b == '-' || b == '_' || b == '.'
	}
	if plain {
		w.buf.WriteByte('"')
		w.buf.WriteString(s)
		w.buf.WriteByte('"')
		return
	}
	j, _ := json.Marshal(s)
	w.buf.Write(j)
}

// hello sends the beginning at once: the client knows that it is heard, and where
// it stands even if nothing happens for long.
func (w *eventWriter) hello() {
	w.buf.WriteString("retry: 2000\n")
	w.position("id: ")
	w.buf.WriteString("\n\n")
}

// keepAlive says that the stream lives, and how far it has come: a filter may
// have kept everything back.
func (w *eventWriter) keepAlive() {
	w.buf.WriteString(": keep-alive\n")
	w.position("id: ")
	w.buf.WriteString("\n\n")
}

// resync tells the client to list again, and ends the stream. Its id is where to
// go on after that.
func (w *eventWriter) resync() {
	w.at = position{rev: w.s.Store.Rev(), n: -1}
	j, err := json.Marshal(wire.EventSpec{ID: w.at.String(), Revision: w.at.rev, Type: wire.EventResync})
	if err != nil {
		return
	}
	w.buf.WriteString("id: " + w.at.String() + "\nevent: resync\ndata: ")
	w.buf.Write(j)
	w.buf.WriteString("\n\n")
	_ = w.flush()
}

// ledgerEvent is a pool's account as an event shows it: without the sums, which
// would have to be made for each event.
type ledgerEvent struct {
	PoolID   string `json:"poolId"`
	PoolName string `json:"poolName"`
	Reserved int64  `json:"reserved"`
	Limit    int64  `json:"limit"`
	Total    int64  `json:"total"`
	Free     int64  `json:"free"`
}

// show gives a record as a GET would.
func (s *Server) show(r model.Record) any {
	switch x := r.(type) {
	case *model.Volume:
		return volumeJSON{x}
	case *model.Snapshot:
		return wire.FromSnapshot(x)
	case *model.Attachment:
		return wire.FromAttachment(x)
	case *model.Group:
		return wire.FromGroup(x)
	case *model.Host:
		return wire.FromHost(x)
	case *model.Profile:
		return wire.FromProfile(x)
	case *model.Dock:
		return wire.FromDock(x)
	case *model.Debt:
		return wire.FromDebt(x)
	case *model.Pool:
		return s.showPool(x)
	case *model.Account:
		e := ledgerEvent{PoolID: x.ID, Reserved: int64(x.Reserved)}
		if p, ok := s.Store.Pools.Get(x.ID); ok {
			e.PoolName, e.Limit, e.Total, e.Free = p.Name, int64(p.Limit()), int64(p.Total), int64(p.Free)
		}
		return e
	}
	return nil
}

package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/osds-io/osds/pkg/model"
	"github.com/osds-io/osds/pkg/model/wire"
)

func startStream(w http.ResponseWriter, rev int64) {
	w.Header().Set("Content-Type", "text/event-stream")
	if rev > 0 {
		w.Header().Set("X-Osds-Revision", strconv.FormatInt(rev, 10))
	}
	w.WriteHeader(200)
	w.(http.Flusher).Flush()
}

func sendEvent(w http.ResponseWriter, rev int64, n int, kind, id, object string) {
	if object == "" {
		object = "null"
	}
	_, _ = fmt.Fprintf(w, "id: %d.%d\nevent: %s\ndata: {\"revision\":%d,\"type\":%q,\"resource\":\"volumes\",\"resourceId\":%q,\"object\":%s}\n\n",
		rev, n, kind, rev, kind, id, object)
	w.(http.Flusher).Flush()
}

func TestEventsResume(t *testing.T) {
	p := serve(t, func(n int, w http.ResponseWriter, r *http.Request) {
		switch n {
		case 1:
			startStream(w, 10)
			_, _ = io.WriteString(w, ": hello\n\n")
			// The connection breaks before the first event.
		case 2:
			startStream(w, 14)
			sendEvent(w, 11, 0, "created", "a", `{"id":"a"}`)
			sendEvent(w, 11, 1, "updated", "b", `{"id":"b"}`)
			_, _ = io.WriteString(w, ": keep-alive\nid: 11.5\n\n")
			// It breaks in the middle of an event, which must come again.
			_, _ = io.WriteString(w, "id: 12.0\nevent: updated\ndata: {\"revision\":12,")
		case 3:
			jsonAnswer(w, 503, `{"code":503,"message":"new leader"}`)
		default:
			startStream(w, 20)
			_, _ = io.WriteString(w, "event: novelty\ndata: what is this\n\n")
			_, _ = io.WriteString(w, "retry: 10\r\nid: 12.0\r\nevent: updated\r\ndata: {\"revision\":12,\r\ndata: \"resource\":\"volumes\",\"resourceId\":\"c\"}\r\n\r\n")
			sendEvent(w, 13, 0, "deleted", "d", "")
			_, _ = io.WriteString(w, "event: resync\ndata: {\"revision\":99}\n\n")
			w.(http.Flusher).Flush()
			<-r.Context().Done()
		}
	})
	c := newClient(t, Config{}, p)
	breaks := 0
	var got []string
	for e, err := range c.Events(t.Context(), EventsQuery{Resource: model.ResVolume, ID: "x", OnBreak: func(error) { breaks++ }}) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, fmt.Sprintf("%s %s %s %d", e.ID, e.Type, e.ResourceID, e.Revision))
	}
	want := "11.0 created a 11|11.1 updated b 11|12.0 updated c 12|13.0 deleted d 13| resync  99"
	if s := strings.Join(got, "|"); s != want {
		t.Errorf("\n got %s\nwant %s", s, want)
	}
	if breaks != 3 {
		t.Errorf("%d breaks", breaks)
	}
	for i, want := range []struct{ query, last string }{
		{"id=x&resource=volumes", ""},
		{"id=x&resource=volumes&since=10", ""},
		{"id=x&resource=volumes&since=10", "11.5"},
		{"id=x&resource=volumes&since=10", "11.5"},
	} {
		r := p.requests()[i]
		if r.query != want.query || r.header.Get("Last-Event-ID") != want.last || r.header.Get("Accept") != "text/event-stream" {
			t.Errorf("request %d: %s %q", i+1, r.query, r.header.Get("Last-Event-ID"))
		}
	}
}

func TestEventsErrors(t *testing.T) {
	collect := func(c *Client) (types []wire.EventType, err error) {
		for e, err := range c.Events(t.Context(), EventsQuery{Since: 5}) {
			if err != nil {
				return types, err
			}
			types = append(types, e.Type)
		}
		return types, nil
	}
	gone := serve(t, func(_ int, w http.ResponseWriter, _ *http.Request) {
		jsonAnswer(w, 410, `{"code":410,"message":"compacted"}`)
	})
	if types, err := collect(newClient(t, Config{}, gone)); err != nil || len(types) != 1 || types[0] != wire.EventResync {
		t.Error(types, err)
	}
	none := serve(t, func(_ int, w http.ResponseWriter, _ *http.Request) { http.NotFound(w, nil) })
	if _, err := collect(newClient(t, Config{}, none)); !IsNotFound(err) || len(none.requests()) != 1 {
		t.Error(err)
	}
	page := serve(t, func(_ int, w http.ResponseWriter, _ *http.Request) { jsonAnswer(w, 200, `[]`) })
	if _, err := collect(newClient(t, Config{}, page)); !model.IsKind(err, model.KindUnsupported) {
		t.Error(err)
	}
	down := newClient(t, Config{Endpoints: []string{closedEndpoint(t)}, Retries: 1})
	if _, err := collect(down); !IsUnreachable(err) {
		t.Error(err)
	}
}

func TestEventsEndWithContext(t *testing.T) {
	p := serve(t, func(_ int, w http.ResponseWriter, r *http.Request) {
		startStream(w, 1)
		sendEvent(w, 2, 0, "created", "a", `{}`)
		<-r.Context().Done()
	})
	c := newClient(t, Config{}, p)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var last error
	for e, err := range c.Events(ctx, EventsQuery{}) {
		last = err
		if e != nil {
			cancel()
		}
	}
	if !errors.Is(last, context.Canceled) {
		t.Error(last)
	}
	for e := range c.Events(t.Context(), EventsQuery{}) {
		if e == nil {
			t.Error("no event")
		}
		break // must not hang or panic
	}
}

// volumeJSON is a volume in a state.
func volumeJSON(status, task string) string {
	return fmt.Sprintf(`{"id":"v1","name":"n","status":%q,"statusReason":"because","taskId":%q}`, status, task)
}

func TestWait(t *testing.T) {
	for _, x := range []struct {
		what string
		// states are what each GET finds; the last stays. "" is 404.
		states []string
		task   string // state of task t1
		o      WaitOptions
		seen   string
		err    string
	}{
		{what: "create", states: []string{"creating", "creating", "available"}, seen: "creating available"},
		{what: "at once", states: []string{"available"}, seen: "available"},
		{what: "failed", states: []string{"creating", "error"}, seen: "creating error", err: "volume v1 is error: because"},
		{what: "delete", states: []string{"deleting", ""}, o: WaitOptions{Gone: true}, seen: "deleting deleted"},
		{what: "already gone", states: []string{""}, o: WaitOptions{Gone: true}, seen: "deleted"},
		{what: "delete failed", states: []string{"deleting", "errorDeleting"}, o: WaitOptions{Gone: true}, seen: "deleting errorDeleting",
			err: "volume v1 is errorDeleting: because"},
		{what: "delete cancelled", states: []string{"deleting", "available"}, o: WaitOptions{Gone: true}, seen: "deleting available",
			err: "volume v1 is available: because"},
		{what: "deleted meanwhile", states: []string{"creating", ""}, seen: "creating deleted", err: "it was deleted while it was waited for"},
		{what: "unknown id", states: []string{""}, err: "no such volume"},
		{what: "grown", states: []string{"extending", "available"}, task: "succeeded", o: WaitOptions{TaskID: "t1"}, seen: "extending available"},
		{what: "not grown", states: []string{"extending", "available"}, task: "failed", o: WaitOptions{TaskID: "t1"}, seen: "extending available",
			err: "volume v1 is available: pool is full"},
		{what: "another's task", states: []string{"available"}, task: "failed", o: WaitOptions{TaskID: "t0"}, seen: "available"},
		{what: "no tasks here", states: []string{"available"}, o: WaitOptions{TaskID: "t1"}, seen: "available"},
	} {
		gets := 0
		p := serve(t, func(_ int, w http.ResponseWriter, r *http.Request) {
			switch {
			case strings.HasSuffix(r.URL.Path, "/tasks/t1") && x.task != "":
				jsonAnswer(w, 200, fmt.Sprintf(`{"id":"t1","state":%q,"lastError":"pool is full"}`, x.task))
			case strings.HasSuffix(r.URL.Path, "/block/volumes/v1"):
				s := x.states[min(gets, len(x.states)-1)]
				gets++
				if s == "" {
					jsonAnswer(w, 404, `{"code":404,"message":"no such volume"}`)
					return
				}
				jsonAnswer(w, 200, volumeJSON(s, "t1"))
			default:
				jsonAnswer(w, 404, `{"code":404,"message":"no such thing"}`)
			}
		})
		var states []string
		x.o.OnChange = func(w *Watched) { states = append(states, w.State()) }
		w, err := newClient(t, Config{}, p).Wait(t.Context(), model.ResVolume, "v1", x.o)
		if s := strings.Join(states, " "); s != x.seen {
			t.Errorf("%s: saw %q, want %q", x.what, s, x.seen)
		}
		if (err == nil) != (x.err == "") || (err != nil && !strings.Contains(err.Error(), x.err)) {
			t.Errorf("%s: %v, want %q", x.what, err, x.err)
		}
		if err == nil && w.Deleted != x.o.Gone {
			t.Errorf("%s: %+v", x.what, w)
		}
		var failed *FailedError
		if x.err != "" && x.what != "unknown id" && !errors.As(err, &failed) {
			t.Errorf("%s: %T", x.what, err)
		}
	}
}

func TestWaitByEvents(t *testing.T) {
	gets := 0
	p := serve(t, func(_ int, w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/events") {
			startStream(w, 7)
			sendEvent(w, 8, 0, "updated", "v1", volumeJSON("creating", "t1"))
			sendEvent(w, 9, 0, "updated", "other", volumeJSON("error", "t1"))
			sendEvent(w, 10, 0, "updated", "v1", volumeJSON("available", "t1"))
			<-r.Context().Done()
			return
		}
		gets++
		w.Header().Set("X-Osds-Revision", strconv.Itoa(5+5*gets))
		jsonAnswer(w, 200, volumeJSON(map[bool]string{true: "creating", false: "available"}[gets == 1], "t1"))
	})
	w, err := newClient(t, Config{}, p).Wait(t.Context(), model.ResVolume, "v1", WaitOptions{})
	if err != nil || w.Status != model.StatusAvailable || w.Name != "n" {
		t.Error(w, err)
	}
	r := p.requests()
	if len(r) != 3 || r[1].query != "id=v1&resource=volumes&since=10" {
		t.Errorf("%d requests, stream %s", len(r), r[1].query)
	}
}

func TestWaitByEventsForDeletion(t *testing.T) {
	gets := 0
	p := serve(t, func(_ int, w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/events") {
			startStream(w, 7)
			sendEvent(w, 8, 0, "deleted", "v1", volumeJSON("deleting", "t1"))
			<-r.Context().Done()
			return
		}
		if gets++; gets > 1 {
			jsonAnswer(w, 404, `{"code":404,"message":"gone"}`)
			return
		}
		w.Header().Set("X-Osds-Revision", "7")
		jsonAnswer(w, 200, volumeJSON("deleting", "t1"))
	})
	w, err := newClient(t, Config{}, p).Wait(t.Context(), model.ResVolume, "v1", WaitOptions{Gone: true})
	if err != nil || !w.Deleted {
		t.Error(w, err)
	}
}

func TestWaitTimeout(t *testing.T) {
	p := serve(t, func(_ int, w http.ResponseWriter, _ *http.Request) { jsonAnswer(w, 200, volumeJSON("creating", "t1")) })
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	w, err := newClient(t, Config{}, p).Wait(ctx, model.ResVolume, "v1", WaitOptions{PollOnly: true})
	if !errors.Is(err, context.DeadlineExceeded) || w.Status != model.StatusCreating || !strings.Contains(err.Error(), "volume v1 is still creating") {
		t.Error(w, err)
	}
}

// TestWaitSurvivesRestart: a server that is away for a while does not end the
// waiting.
func TestWaitSurvivesRestart(t *testing.T) {
	p := serve(t, func(n int, w http.ResponseWriter, _ *http.Request) {
		switch {
		case n == 1:
			jsonAnswer(w, 200, volumeJSON("creating", "t1"))
		case n < 5:
			jsonAnswer(w, 503, `{"code":503,"message":"no leader"}`)
		default:
			jsonAnswer(w, 200, volumeJSON("available", "t1"))
		}
	})
	w, err := newClient(t, Config{Retries: -1}, p).Wait(t.Context(), model.ResVolume, "v1", WaitOptions{PollOnly: true})
	if err != nil || w.Status != model.StatusAvailable {
		t.Error(w, err)
	}
}

func TestWaitForTask(t *testing.T) {
	p := serve(t, func(n int, w http.ResponseWriter, _ *http.Request) {
		jsonAnswer(w, 200, fmt.Sprintf(`{"id":"t1","kind":"create","state":%q,"lastError":"no pool fits"}`,
			map[bool]string{true: "running", false: "failed"}[n < 3]))
	})
	w, err := newClient(t, Config{}, p).Wait(t.Context(), ResTask, "t1", WaitOptions{})
	if w.State() != "failed" || err == nil || err.Error() != "task t1 is failed: no pool fits" {
		t.Error(w, err)
	}
}

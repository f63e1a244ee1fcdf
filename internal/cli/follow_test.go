package cli

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
)

// volumeIn is vol1 in another state.
func volumeIn(status string) string {
	return fmt.Sprintf(`{"id":%q,"createdAt":"2026-11-20T21:35:59","updatedAt":"","name":"vol1","size":1,"status":%q,"statusReason":"why","AttachStatus":"","taskId":%q}`,
		volID, status, taskID)
}

// states answers GETs of the volume with one state after another; the last
// stays, and "" is gone. Its task is in one state all the time.
func states(t *testing.T, task string, list ...string) *server {
	n := 0
	body := strings.Replace(task1, `"waiting"`, `"`+task+`"`, 1)
	return serve(t, canned{"GET /tasks/" + taskID: body}, func(w http.ResponseWriter, r *http.Request, path string) bool {
		switch {
		case r.Method == "DELETE":
			w.WriteHeader(202)
			return true
		case r.Method == "POST":
			w.WriteHeader(202)
			_, _ = io.WriteString(w, volumeIn("creating"))
			return true
		case path != "/block/volumes/"+volID:
			return false
		}
		s := list[min(n, len(list)-1)]
		n++
		if s == "" {
			return false
		}
		_, _ = io.WriteString(w, volumeIn(s))
		return true
	})
}

func TestWaitForCreate(t *testing.T) {
	s := states(t, "running", "creating", "creating", "error")
	r := s.run(t, "volume", "create", "1", "-n", "vol1", "--wait")
	if r.code != ExitFailed || !strings.Contains(r.out, "| StatusReason     | why") || !strings.Contains(r.out, "| Status           | error") {
		t.Errorf("%+v", r)
	}
	want := "volume " + volID + ": creating\n" +
		"volume " + volID + ": creating, step provision, 3 failed tries: dock not reachable\n" +
		"volume " + volID + ": error\nERROR: volume " + volID + " is error: why\n"
	if r.err != want {
		t.Errorf("\n got %s\nwant %s", r.err, want)
	}
}

func TestWaitForTheTaskAsked(t *testing.T) {
	// The volume is available again, but its growing failed.
	s := states(t, "failed", "extending", "available")
	r := s.run(t, "volume", "extend", volID, "5", "--wait", "-o", "json")
	if r.code != ExitFailed || !strings.Contains(r.err, "ERROR: volume "+volID+" is available: dock not reachable") || !strings.Contains(r.out, `"status": "available"`) {
		t.Errorf("%+v", r)
	}
}

func TestWaitForDelete(t *testing.T) {
	r := states(t, "running", "deleting", "").run(t, "volume", "delete", volID, "--wait")
	if r.code != 0 || r.out != "" || !strings.HasSuffix(r.err, "volume "+volID+": deleted\n") {
		t.Errorf("%+v", r)
	}
	r = states(t, "running", "deleting", "errorDeleting").run(t, "volume", "delete", volID, "--wait")
	if r.code != ExitFailed || !strings.Contains(r.err, "is errorDeleting: why") {
		t.Errorf("%+v", r)
	}
}

func TestWaitTimesOut(t *testing.T) {
	r := states(t, "running", "creating").run(t, "volume", "create", "1", "-n", "v", "--wait", "--wait-timeout", "300ms")
	if r.code != ExitFailed || !strings.Contains(r.err, "is still creating") || !strings.Contains(r.err, "fix: the work goes on") {
		t.Errorf("%+v", r)
	}
}

func TestDeleteSeveral(t *testing.T) {
	s := serve(t, canned{"DELETE /block/volumes/" + volID2: ""}, nil)
	r := s.run(t, "volume", "delete", volID, volID2, "x1")
	if r.code != ExitRefused || strings.Count(r.err, "ERROR: ") != 2 || len(s.requests()) != 3 {
		t.Errorf("%+v %v", r, s.requests())
	}
}

func TestTaskWatch(t *testing.T) {
	n := 0
	s := serve(t, nil, func(w http.ResponseWriter, _ *http.Request, _ string) bool {
		n++
		body := task1
		if n > 3 {
			body = strings.NewReplacer(`"waiting"`, `"succeeded"`, `"dock not reachable"`, `""`).Replace(task1)
		}
		_, _ = io.WriteString(w, body)
		return true
	})
	r := s.run(t, "task", "watch", taskID)
	if r.code != 0 || !strings.Contains(r.err, "step provision, 3 failed tries: dock not reachable (next try at 2026-11-20T21:41:00 UTC)") ||
		!strings.Contains(r.err, "task "+taskID+": succeeded\n") || !strings.Contains(r.out, "succeeded") {
		t.Errorf("%+v", r)
	}
}

// lines collects output and ends the run when it has seen enough.
type lines struct {
	bytes.Buffer
	until string
	stop  context.CancelFunc
}

func (l *lines) Write(p []byte) (int, error) {
	n, err := l.Buffer.Write(p)
	if strings.Contains(l.String(), l.until) {
		l.stop()
	}
	return n, err
}

// follow runs a command that does not end until its output has a text, and then
// interrupts it.
func follow(t *testing.T, s *server, until string, args ...string) (int, string, string) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	out := &lines{until: until, stop: cancel}
	var errb bytes.Buffer
	code := Run(ctx, Env{Args: args, Stdout: out, Stderr: &errb, Getenv: func(k string) string {
		return map[string]string{"OSDS_ENDPOINT": s.URL}[k]
	}})
	return code, out.String(), errb.String()
}

// stream is a server with one volume and events about it and others.
func stream(t *testing.T, end string) *server {
	return serve(t, nil, func(w http.ResponseWriter, r *http.Request, path string) bool {
		w.Header().Set("X-Osds-Revision", "7")
		switch path {
		case "/block/volumes":
			_, _ = io.WriteString(w, "["+volumeIn("available")+"]")
		case "/block/volumes/" + volID:
			_, _ = io.WriteString(w, volumeIn("available"))
		case "/events":
			w.Header().Set("Content-Type", "text/event-stream")
			send := func(rev int, kind, id, object string) {
				_, _ = fmt.Fprintf(w, "id: %d.0\nevent: %s\ndata: {\"id\":\"%d.0\",\"revision\":%d,\"type\":%q,\"resource\":\"volumes\",\"resourceId\":%q,\"object\":%s}\n\n",
					rev, kind, rev, rev, kind, id, strings.ReplaceAll(object, "\n", ""))
			}
			send(7, "updated", volID, volumeIn("available")) // seen already
			send(8, "updated", volID, volumeIn("inUse"))
			if r.URL.Query().Get("id") == "" {
				send(9, "created", volID2, vol2)
			}
			if end != "" {
				send(10, end, volID, volumeIn("inUse"))
			}
			w.(http.Flusher).Flush()
			<-r.Context().Done()
		default:
			return false
		}
		return true
	})
}

func TestWatchList(t *testing.T) {
	code, out, errs := follow(t, stream(t, "deleted"), "deleted", "volume", "list", "--watch")
	if code != 0 || errs != "" {
		t.Errorf("code %d %s", code, errs)
	}
	golden(t, "volume-watch", out)
	_, out, _ = follow(t, stream(t, "deleted"), `"deleted"`, "volume", "list", "-w", "-o", "json")
	golden(t, "volume-watch-json", out)
	_, out, _ = follow(t, stream(t, "deleted"), `deleted`, "volume", "list", "-w", "-o", "yaml")
	golden(t, "volume-watch-yaml", out)
	// What does not fit the filter any more leaves the list.
	_, out, _ = follow(t, stream(t, ""), "deleted", "volume", "list", "-w", "--status", "available")
	golden(t, "volume-watch-filter", out)
}

func TestWatchShowEndsWithTheRecord(t *testing.T) {
	s := stream(t, "deleted")
	r := s.run(t, "volume", "show", volID, "--watch", "-o", "name")
	if r.code != 0 || r.out != strings.Repeat(volID+"\n", 3) {
		t.Errorf("%+v", r)
	}
	if reqs := s.requests(); reqs[1] != "GET /events?id="+volID+"&resource=volumes&since=7" {
		t.Errorf("%v", reqs)
	}
}

// TestWatchWithoutStream: a server that has none is asked again and again.
func TestWatchWithoutStream(t *testing.T) {
	n := 0
	s := serve(t, nil, func(w http.ResponseWriter, _ *http.Request, path string) bool {
		if path != "/block/volumes/"+volID {
			return false
		}
		if n++; n == 2 {
			return false // 404: it is gone
		}
		_, _ = io.WriteString(w, volumeIn("available"))
		return true
	})
	if r := s.run(t, "volume", "show", volID, "--watch"); r.code != 0 || !strings.Contains(r.out, "| deleted | "+volID) {
		t.Errorf("%+v", r)
	}
}

func TestEventWatch(t *testing.T) {
	code, out, errs := follow(t, stream(t, "deleted"), "10.0", "event", "watch", "--resource", "volume", "--since", "6")
	if code != 0 || errs != "" {
		t.Errorf("code %d %s", code, errs)
	}
	golden(t, "event-watch", out)
	_, out, _ = follow(t, stream(t, "deleted"), `"10.0"`, "event", "watch", "-o", "json")
	golden(t, "event-watch-json", out)
	gone := serve(t, nil, func(w http.ResponseWriter, _ *http.Request, _ string) bool { w.WriteHeader(410); return true })
	if r := gone.run(t, "event", "watch", "--since", "1"); r.code != ExitFailed || !strings.Contains(r.err, "does not reach back") {
		t.Errorf("%+v", r)
	}
}

func TestInterrupt(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	s := serve(t, nil, func(_ http.ResponseWriter, r *http.Request, _ string) bool {
		cancel()
		<-r.Context().Done()
		return true
	})
	if r := runWith(ctx, map[string]string{"OSDS_ENDPOINT": s.URL}, "", "volume", "list"); r.code != ExitInterrupted || r.err != "ERROR: interrupted\n" {
		t.Errorf("%+v", r)
	}
}

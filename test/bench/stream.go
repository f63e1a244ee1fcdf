//go:build linux

package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"sync"
)

// outcome is how a create ended.
type outcome int

const (
	available outcome = iota + 1
	inError
	gone
)

// watcher tells clients that their volume is available. All clients of this
// process share one event stream, as the clients of one program would. An event
// may be there before the answer to the POST is.
type watcher struct {
	cancel context.CancelFunc
	ended  chan struct{}

	mu      sync.Mutex
	waiting map[string]chan outcome
	early   map[string]outcome
	err     error
	events  int
}

// watch opens the stream of volumes and waits until the server has answered.
func watch(ctx context.Context, url string) (*watcher, error) {
	ctx, cancel := context.WithCancel(ctx)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		cancel()
		return nil, err
	}
	tr := &http.Transport{DisableKeepAlives: true}
	resp, err := tr.RoundTrip(req)
	if err != nil {
		cancel()
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		b, _ := io.ReadAll(io.LimitReader(resp.Body, 300))
		resp.Body.Close()
		cancel()
		return nil, unexpected("GET "+url, resp.StatusCode, b)
	}
	w := &watcher{cancel: cancel, ended: make(chan struct{}), waiting: map[string]chan outcome{}, early: map[string]outcome{}}
	go w.run(resp.Body)
	return w, nil
}

// close ends the stream.
func (w *watcher) close() {
	w.cancel()
	<-w.ended
}

func (w *watcher) run(body io.ReadCloser) {
	defer close(w.ended)
	defer body.Close()
	err := w.read(bufio.NewReaderSize(body, 1<<20))
	w.mu.Lock()
	defer w.mu.Unlock()
	w.err = fmt.Errorf("the event stream ended: %w", err)
	for id, ch := range w.waiting {
		delete(w.waiting, id)
		close(ch)
	}
}

var (
	dataPrefix   = []byte("data: ")
	eventResync  = []byte("event: resync")
	keyResource  = []byte(`"resourceId":"`)
	keyStatus    = []byte(`"status":"`)
	eventDeleted = []byte("event: deleted")
	keyID        = []byte(`"id":"`)
	wordDone     = []byte(`available"`)
	wordFailed   = []byte(`error"`)
	errResynched = fmt.Errorf("the server asks for a new list: events were lost")
)

// read looks only at what it needs of each line: the record's id and status.
// The names are the stream's own and come before any text of a user, where a
// quote would be escaped besides.
func (w *watcher) read(r *bufio.Reader) error {
	deleted := false
	for {
		line, err := r.ReadSlice('\n')
		if err != nil {
			return err
		}
		if bytes.HasPrefix(line, eventResync) {
			return errResynched
		}
		if bytes.HasPrefix(line, eventDeleted) {
			deleted = true // of which the next line says more
			continue
		}
		if !bytes.HasPrefix(line, dataPrefix) {
			continue
		}
		id, rest := quoted(line, keyResource)
		if id == nil {
			continue
		}
		if deleted {
			deleted = false
			w.tell(goneKey(id), gone)
			continue
		}
		at := bytes.Index(rest, keyStatus)
		if at < 0 {
			continue
		}
		switch status := rest[at+len(keyStatus):]; {
		case bytes.HasPrefix(status, wordDone):
			w.tell(id, available)
		case bytes.HasPrefix(status, wordFailed):
			w.tell(id, inError)
		}
	}
}

// goneKey is what is waited for by who waits for the end of a record.
func goneKey(id []byte) []byte { return append([]byte("gone/"), id...) }

// quoted gives what stands in quotes behind key, and what follows.
func quoted(b, key []byte) (value, rest []byte) {
	at := bytes.Index(b, key)
	if at < 0 {
		return nil, nil
	}
	b = b[at+len(key):]
	end := bytes.IndexByte(b, '"')
	if end < 0 {
		return nil, nil
	}
	return b[:end], b[end:]
}

func (w *watcher) tell(id []byte, o outcome) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.events++
	if ch, ok := w.waiting[string(id)]; ok {
		delete(w.waiting, string(id))
		ch <- o // has room for one, and is asked for one at a time
		return
	}
	w.early[string(id)] = o
}

// wait gives how a create ended. ch belongs to the caller, has room for one, and
// is empty.
func (w *watcher) wait(ctx context.Context, id []byte, ch chan outcome) (outcome, error) {
	w.mu.Lock()
	if o, ok := w.early[string(id)]; ok {
		delete(w.early, string(id))
		w.mu.Unlock()
		return o, nil
	}
	if w.err != nil {
		defer w.mu.Unlock()
		return 0, w.err
	}
	w.waiting[string(id)] = ch
	w.mu.Unlock()
	select {
	case o, ok := <-ch:
		if !ok {
			return 0, w.err
		}
		return o, nil
	case <-ctx.Done():
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.waiting, string(id))
	select {
	case o, ok := <-ch:
		if ok {
			return o, nil
		}
	default:
	}
	return 0, fmt.Errorf("volume %s is not available: %w", id, ctx.Err())
}

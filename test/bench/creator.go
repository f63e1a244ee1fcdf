//go:build linux

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// tenant is whose volumes are made.
const tenant = "bench"

const volumesPath = "/v1beta/" + tenant + "/block/volumes"

// lostAfter is when a volume that was accepted counts as lost.
const lostAfter = 30 * time.Second

// creator makes volumes through the API, from many clients.
type creator struct {
	addr     string
	profiles []string
	zones    []string
	seq      atomic.Int64
	events   *watcher

	mu       sync.Mutex
	accepted []string // ids answered with 202, in no order
}

// creatorClient is one client of a creator.
type creatorClient struct {
	c    *creator
	conn *httpConn
	ch   chan outcome
	body []byte
	req  []byte
	mine []string
}

func (c *creator) client() *creatorClient {
	return &creatorClient{c: c, conn: newConn(c.addr), ch: make(chan outcome, 1)}
}

// close ends the client's connection and adds what it made to the creator's.
func (k *creatorClient) close() {
	k.conn.close()
	k.c.mu.Lock()
	defer k.c.mu.Unlock()
	k.c.accepted = append(k.c.accepted, k.mine...)
	k.mine = nil
}

// clients makes n clients; stop ends them.
func (c *creator) clients(n int) (ks []*creatorClient, stop func()) {
	for range n {
		ks = append(ks, c.client())
	}
	return ks, func() {
		for _, k := range ks {
			k.close()
		}
	}
}

// create makes one volume and waits until it is available.
func (k *creatorClient) create(ctx context.Context) (int, error) {
	id, err := k.post()
	if err != nil {
		return 0, err
	}
	ctx, cancel := context.WithTimeout(ctx, lostAfter)
	defer cancel()
	o, err := k.c.events.wait(ctx, id, k.ch)
	if err != nil {
		k.ch = make(chan outcome, 1) // a late event may still come to the old one
		return 0, err
	}
	if o != available {
		return 0, fmt.Errorf("volume %s ended in error", id)
	}
	return 0, nil
}

// post sends the create and gives the id of the volume.
func (k *creatorClient) post() ([]byte, error) {
	n := k.c.seq.Add(1)
	b := append(k.body[:0], `{"name":"`...)
	b = appendName(b, n)
	b = append(b, `","size":1,"availabilityZone":"`...)
	b = append(b, k.c.zones[int(n)%len(k.c.zones)]...)
	b = append(b, `","profileId":"`...)
	b = append(b, k.c.profiles[int(n/7)%len(k.c.profiles)]...)
	b = append(b, `"}`...)
	k.body = b
	k.req = request(k.req[:0], http.MethodPost, volumesPath, b)
	status, body, err := k.conn.do(k.req)
	if err != nil {
		return nil, err
	}
	id, _ := quoted(body, keyID)
	if status != http.StatusAccepted || id == nil {
		return nil, unexpected("POST "+volumesPath, status, body)
	}
	k.mine = append(k.mine, string(id))
	return id, nil
}

// appendName gives the name of the nth volume.
func appendName(b []byte, n int64) []byte {
	b = append(b, "vol-"...)
	for d := int64(1_000_000); d > 1 && n < d; d /= 10 {
		b = append(b, '0')
	}
	return strconv.AppendInt(b, n, 10)
}

// fill makes n volumes from many clients, as fast as they come.
func (c *creator) fill(ctx context.Context, n, clients int, told func(done int)) (errs int, first error) {
	ks, stop := c.clients(clients)
	var left, ended atomic.Int64
	left.Store(int64(n))
	var wg sync.WaitGroup
	var mu sync.Mutex
	for _, k := range ks {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for left.Add(-1) >= 0 && ctx.Err() == nil {
				if _, err := k.create(ctx); err != nil {
					mu.Lock()
					if first == nil {
						first = err
					}
					errs++
					tooMany := errs >= maxErrors
					mu.Unlock()
					if tooMany {
						return
					}
				}
				if e := ended.Add(1); told != nil && e%(int64(n)/4) == 0 {
					told(int(e))
				}
			}
		}()
	}
	wg.Wait()
	stop()
	return errs, first
}

// trickle makes volumes at a steady rate until the context ends, and gives how
// many, and the errors. A create that is late is made up for.
func (c *creator) trickle(ctx context.Context, rate, clients int) (made, errs int, first error) {
	ks, stop := c.clients(clients)
	defer stop()
	tokens := make(chan struct{}, rate)
	var wg sync.WaitGroup
	var mu sync.Mutex
	for _, k := range ks {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for range tokens {
				_, err := k.create(context.WithoutCancel(ctx))
				mu.Lock()
				made++
				if err != nil {
					errs++
					if first == nil {
						first = err
					}
				}
				mu.Unlock()
			}
		}()
	}
	began, sent := time.Now(), 0
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for ctx.Err() == nil {
		for want := int(time.Since(began).Seconds() * float64(rate)); sent < want; sent++ {
			select {
			case tokens <- struct{}{}:
			case <-ctx.Done():
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
	}
	close(tokens)
	wg.Wait()
	return made, errs, first
}

// verify lists all volumes and compares them with those that were accepted. It
// gives how many of these are missing or not available.
func (c *creator) verify() (lost, listed int, detail string, err error) {
	states, err := listAll(c.addr)
	if err != nil {
		return 0, 0, "", err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, id := range c.accepted {
		if s := states[id]; s != "available" {
			lost++
			if detail == "" {
				detail = fmt.Sprintf("volume %s is %q", id, s)
			}
		}
	}
	return lost, len(states), detail, nil
}

// listAll gives the status of every volume, by id, page by page.
func listAll(addr string) (map[string]string, error) {
	conn := newConn(addr)
	defer conn.close()
	states := map[string]string{}
	path := volumesPath + "?limit=1000"
	for {
		status, body, err := conn.do(request(nil, http.MethodGet, path, nil))
		if err != nil {
			return nil, err
		}
		if status != http.StatusOK {
			return nil, unexpected("GET "+path, status, body)
		}
		var page []struct{ ID, Status string }
		if err := json.NewDecoder(bytes.NewReader(body)).Decode(&page); err != nil {
			return nil, err
		}
		for _, v := range page {
			states[v.ID] = v.Status
		}
		if len(conn.next) == 0 {
			return states, nil
		}
		path = volumesPath + "?limit=1000&marker=" + string(conn.next)
	}
}

// randomID gives the id of one of the volumes that were accepted.
func randomID(ids []string) string { return ids[rand.IntN(len(ids))] }

//go:build ceph

package ceph

import (
	"context"
	"errors"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/ceph/go-ceph/rados"

	"github.com/osds-io/osds/pkg/model"
)

// trashObject is librbd's list of a pool's trash.
const trashObject = "rbd_trash"

// link is one connection to the cluster, with a context for each pool. Both may
// be used by many calls at once.
type link struct {
	conn *rados.Conn
	fsid string
	// addrs are the addresses that the cluster sees this client at.
	addrs []string
	pools map[string]*rados.IOContext
	ids   map[string]int64
	dirs  map[string]*writer // of the pools' directories

	refs int  // guarded by links.mu
	dead bool // guarded by links.mu
}

// links keeps the one connection that is in use. librados finds monitors and
// OSDs again by itself; a new connection is made only when this client has been
// cut off.
type links struct {
	conf  config
	self  self
	names []string // of pools

	connecting chan struct{} // holds one token: who has it may connect
	mu         sync.Mutex
	cur        *link
	closed     bool
	wg         sync.WaitGroup // shut-downs under way
}

func newLinks(c config, f self) *links {
	ls := &links{conf: c, self: f, names: sortedNames(c.Pool), connecting: make(chan struct{}, 1)}
	ls.connecting <- struct{}{}
	return ls
}

// get gives the connection; put gives it back.
func (ls *links) get(ctx context.Context) (*link, error) {
	if l, err := ls.use(); l != nil || err != nil {
		return l, err
	}
	select {
	case <-ls.connecting:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	defer func() { ls.connecting <- struct{}{} }()
	if l, err := ls.use(); l != nil || err != nil {
		return l, err // another has connected meanwhile
	}
	l, err := connect(ls.conf, ls.names)
	if err != nil {
		return nil, err
	}
	if err := ls.self.replace(ls.conf, l); err != nil {
		l.shutdown()
		return nil, err
	}
	ls.mu.Lock()
	l.refs = 1
	ls.cur = l
	ls.mu.Unlock()
	return l, nil
}

func (ls *links) use() (*link, error) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	if ls.closed {
		return nil, model.Errorf(model.KindUnavailable, "the driver is closed")
	}
	if ls.cur == nil {
		return nil, nil
	}
	ls.cur.refs++
	return ls.cur, nil
}

// put gives a connection back, and says whether it was found dead. A dead one is
// shut down when its last user has let go of it.
func (ls *links) put(l *link, dead bool) {
	ls.mu.Lock()
	l.refs--
	if dead {
		l.dead = true
		if ls.cur == l {
			ls.cur = nil
		}
	}
	end := l.dead && l.refs == 0
	if end {
		ls.wg.Add(1)
	}
	ls.mu.Unlock()
	if end {
		go func() { defer ls.wg.Done(); l.shutdown() }()
	}
}

// close ends the connection. No call is under way any more.
func (ls *links) close(limit time.Duration) error {
	ls.mu.Lock()
	l := ls.cur
	ls.cur, ls.closed = nil, true
	if l != nil {
		ls.wg.Add(1)
		go func() { defer ls.wg.Done(); l.shutdown() }()
	}
	ls.mu.Unlock()
	ended := make(chan struct{})
	go func() { ls.wg.Wait(); close(ended) }()
	t := time.NewTimer(limit)
	defer t.Stop()
	select {
	case <-ended:
		if l != nil {
			ls.self.forget()
		}
		return nil
	case <-t.C:
		return model.Errorf(model.KindUnavailable, "the connection to the cluster does not end")
	}
}

func (l *link) shutdown() {
	for _, io := range l.pools {
		io.Destroy()
	}
	l.conn.Shutdown()
}

// connect makes a connection. It ends after connectTimeout at the latest, give or
// take a request.
func connect(c config, pools []string) (*link, error) {
	if _, err := os.Stat(c.ConfigFile); err != nil {
		return nil, model.Errorf(model.KindUnavailable, "configFile: %w", err)
	}
	if c.Keyring != "" {
		if _, err := os.Stat(c.Keyring); err != nil {
			return nil, model.Errorf(model.KindUnavailable, "keyring: %w", err)
		}
	}
	conn, err := rados.NewConnWithClusterAndUser(c.ClusterName, "client."+c.User)
	if err != nil {
		return nil, fail("a client of the cluster", err)
	}
	l := &link{conn: conn, pools: map[string]*rados.IOContext{}, ids: map[string]int64{}, dirs: map[string]*writer{}}
	if err := l.open(c, pools); err != nil {
		l.shutdown()
		return nil, err
	}
	return l, nil
}

func (l *link) open(c config, pools []string) error {
	if err := l.conn.ReadConfigFile(c.ConfigFile); err != nil {
		return model.Errorf(model.KindInvalid, "configFile %s: %w", c.ConfigFile, err)
	}
	for _, o := range [][2]string{
		{"client_mount_timeout", seconds(c.ConnectTimeout)},
		{"rados_mon_op_timeout", seconds(c.OpTimeout)},
		{"rados_osd_op_timeout", seconds(c.OpTimeout)},
		// No data goes through the dock.
		{"rbd_cache", "false"},
		{"keyring", c.Keyring},
	} {
		if o[1] == "" {
			continue
		}
		if err := l.conn.SetConfigOption(o[0], o[1]); err != nil {
			return fail("setting "+o[0], err)
		}
	}
	if err := l.conn.Connect(); err != nil {
		return notConnected(c, err)
	}
	var err error
	if l.fsid, err = l.conn.GetFSID(); err != nil {
		return fail("the cluster's id", err)
	}
	addrs, err := l.conn.GetAddrs()
	if err != nil {
		return fail("this client's addresses", err)
	}
	l.addrs = splitAddrs(addrs)
	for _, p := range pools {
		io, err := l.conn.OpenIOContext(p)
		if absent(err) {
			return model.Errorf(model.KindUnavailable, "the cluster has no pool %q: create it, or take it out of the configuration", p)
		}
		if err != nil {
			return fail("pool "+p, err)
		}
		l.pools[p], l.ids[p], l.dirs[p] = io, io.GetPoolID(), &writer{}
		// In a full pool a write is to be refused, not to wait for room.
		if err := io.SetPoolFullTry(); err != nil {
			return fail("pool "+p, err)
		}
		// librbd makes this object with the first delete; a full pool would
		// refuse it, and with it the delete that makes room.
		if err := io.Create(trashObject, rados.CreateIdempotent); err != nil && !model.IsKind(fail("", err), model.KindExhausted) {
			return fail("pool "+p, err)
		}
	}
	return nil
}

// notConnected says what a failed attempt means.
func notConnected(c config, err error) error {
	switch {
	case absent(err):
		return model.Errorf(model.KindUnavailable, "no keyring for client.%s was found: set keyring, or put the file where %s says: %w", c.User, c.ConfigFile, err)
	case model.IsKind(fail("", err), model.KindUnknownOutcome):
		return model.Errorf(model.KindUnavailable, "no monitor of %s answered in %v: %w", c.ConfigFile, c.ConnectTimeout, err)
	case model.IsKind(fail("", err), model.KindDenied):
		return model.Errorf(model.KindDenied, "the cluster refuses client.%s: its key is another one, or unknown: %w", c.User, err)
	}
	var me *model.Error
	if errors.As(err, &me) {
		return err
	}
	return model.Errorf(model.KindUnavailable, "connecting as client.%s by %s: %w", c.User, c.ConfigFile, err)
}

func seconds(d time.Duration) string { return strconv.FormatInt(int64(d/time.Second), 10) }

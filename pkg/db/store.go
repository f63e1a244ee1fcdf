package db

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sirupsen/logrus"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/osds-io/osds/pkg/model"
)

// Config says where the store is. With no Endpoints an etcd member runs inside
// this process.
type Config struct {
	Endpoints []string
	TLS       *tls.Config
	Username  string
	Password  model.Secret
	Embedded  Embedded
	// Prefix stands before every key; "/osds/v1/" if empty.
	Prefix string
	// InstanceDir keeps this process's instance id; Embedded.Dir if empty.
	InstanceDir string
	// EventHistory is how many events are kept in memory for streams to
	// resume from; 0 means 8192.
	EventHistory int
	Log          *logrus.Entry
}

// Store is the store.
type Store struct {
	Tables
	cli      *clientv3.Client
	tokens   *tokens // nil without authentication
	member   *member
	prefix   string
	instance string
	log      *logrus.Entry

	ctx     context.Context // ends with Close
	cancel  context.CancelFunc
	closing chan struct{}
	closed  sync.Once
	wg      sync.WaitGroup
	lane    *Lane

	mu     sync.RWMutex // guards the tables; held for one revision at a time
	tables map[model.Resource]anyTable
	intern *interner
	expect *expectations
	missed []Event      // what a load found that broke off; the watch's
	rev    atomic.Int64 // every change up to here is in the tables
	seenAt atomic.Int64 // when the watch last said anything, Unix nanoseconds

	waitMu  sync.Mutex
	waiters map[chan struct{}]int64
	nudged  atomic.Int64 // when the sync key was last written, Unix nanoseconds

	hub     *hub
	metrics storeMetrics
}

// anyTable is what the watch needs of a table.
type anyTable interface {
	decode(value []byte, known model.Record, rev int64) (model.Record, error)
	put(model.Record) model.Record
	remove(id string) model.Record
	ids() []string
}

// Open connects to etcd, or starts it, and loads the cache. The store serves
// when Open returns.
func Open(ctx context.Context, c Config) (*Store, error) {
	s := &Store{
		prefix: c.Prefix, log: c.Log, closing: make(chan struct{}),
		tables: map[model.Resource]anyTable{}, intern: &interner{m: map[string]string{}},
		expect: &expectations{m: map[string]expectation{}}, waiters: map[chan struct{}]int64{},
	}
	if s.prefix == "" {
		s.prefix = "/osds/v1/"
	}
	if s.log == nil {
		s.log = logrus.NewEntry(logrus.StandardLogger())
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.hub = newHub(c.EventHistory)
	s.Tables = newTables(s)
	if err := s.connect(ctx, c); err != nil {
		s.Close()
		return nil, err
	}
	rev, _, err := s.load(ctx)
	if err != nil {
		s.Close()
		return nil, err
	}
	s.hub.start(rev)
	s.wg.Add(1)
	go s.watch(rev)
	if s.member == nil {
		s.wg.Add(1)
		go s.pulse()
	}
	s.lane = s.newLane(4, nil)
	return s, nil
}

func (s *Store) connect(ctx context.Context, c Config) (err error) {
	if len(c.Endpoints) == 0 {
		if s.member, s.cli, err = startMember(ctx, c.Embedded, s.log); err != nil {
			return err
		}
		s.instance, err = instanceID(c.Embedded.Dir)
		return err
	}
	s.instance = model.NewID() // nothing proves that an older process is dead
	cfg := clientv3.Config{
		Endpoints: c.Endpoints, TLS: c.TLS,
		DialTimeout: 5 * time.Second, DialKeepAliveTime: 5 * time.Second, DialKeepAliveTimeout: 3 * time.Second,
		AutoSyncInterval: 0, Logger: zap.NewNop(), Context: s.ctx,
	}
	pctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	if c.Username != "" {
		if s.tokens, err = newTokens(pctx, cfg, c.Username, c.Password); err != nil {
			return fmt.Errorf("connect to etcd at %s: %w", strings.Join(c.Endpoints, ", "), err)
		}
		cfg.DialOptions = s.tokens.options()
	}
	if s.cli, err = clientv3.New(cfg); err != nil {
		return fmt.Errorf("connect to etcd at %s: %w", strings.Join(c.Endpoints, ", "), err)
	}
	if _, err := s.cli.Get(pctx, s.prefix+"ping"); err != nil {
		return fmt.Errorf("etcd at %s does not answer: %w", strings.Join(c.Endpoints, ", "), err)
	}
	return nil
}

// Close ends the store: waiting commits get an error, the watch ends, and an
// embedded member is stopped. Closing again does nothing.
func (s *Store) Close() { s.closed.Do(s.close) }

func (s *Store) close() {
	close(s.closing)
	s.cancel()
	s.hub.close()
	s.wg.Wait()
	if s.cli != nil {
		_ = s.cli.Close()
	}
	if s.tokens != nil {
		s.tokens.close()
	}
	if s.member != nil {
		s.member.stop()
	}
}

// Instance is this process's id in elections.
func (s *Store) Instance() string { return s.instance }

// Rev is the revision the cache has reached.
func (s *Store) Rev() int64 { return s.rev.Load() }

// Lag is how long ago the watch last heard from etcd: at most the progress
// interval (5 s embedded) while all is well.
func (s *Store) Lag() time.Duration {
	return time.Since(time.Unix(0, s.seenAt.Load()))
}

// Commit submits a transaction; see Lane.Commit.
func (s *Store) Commit(ctx context.Context, t *Txn) (int64, error) { return s.lane.Commit(ctx, t) }

// Ping asks etcd for an answer that needs its quorum.
func (s *Store) Ping(ctx context.Context) error {
	_, err := s.cli.Get(ctx, s.prefix+"ping")
	if err != nil {
		return storeError(err)
	}
	return nil
}

// GetRaw reads a key that is not a record straight from etcd. It gives nil and 0
// if there is none.
func (s *Store) GetRaw(ctx context.Context, key string) ([]byte, int64, error) {
	r, err := s.cli.Get(ctx, s.prefix+key)
	if err != nil {
		return nil, 0, storeError(err)
	}
	if len(r.Kvs) == 0 {
		return nil, 0, nil
	}
	return r.Kvs[0].Value, r.Kvs[0].ModRevision, nil
}

// Lease makes a lease for keys that end by themselves.
func (s *Store) Lease(ctx context.Context, ttl time.Duration) (LeaseID, error) {
	r, err := s.cli.Grant(ctx, int64(ttl/time.Second))
	if err != nil {
		return 0, storeError(err)
	}
	return r.ID, nil
}

// WaitRev waits until the cache shows a revision.
func (s *Store) WaitRev(ctx context.Context, rev int64) error {
	if s.rev.Load() >= rev {
		return nil
	}
	ch := make(chan struct{})
	s.waitMu.Lock()
	if s.rev.Load() >= rev {
		s.waitMu.Unlock()
		return nil
	}
	s.waiters[ch] = rev
	s.waitMu.Unlock()
	// The revision may be of a write below another prefix, by others on the
	// same etcd: then no event will come, until we write something ourselves.
	nudge := time.NewTicker(nudgeAfter)
	defer nudge.Stop()
	for waiting := true; waiting; {
		select {
		case <-ch:
			return nil
		case <-nudge.C:
			s.nudge(ctx)
		case <-ctx.Done():
			waiting = false
		case <-s.closing:
			waiting = false
		}
	}
	s.waitMu.Lock()
	delete(s.waiters, ch)
	s.waitMu.Unlock()
	if s.rev.Load() >= rev {
		return nil
	}
	return model.Errorf(model.KindUnavailable, "the cache is at revision %d and has not reached %d", s.rev.Load(), rev)
}

// nudgeAfter is how long a wait lasts before it makes sure that events come.
const nudgeAfter = 250 * time.Millisecond

// syncKey is written to have an event of our own; see nudge and Sync.
func (s *Store) syncKey() string { return s.prefix + "meta/sync/" + s.instance }

// nudge writes the sync key, seldom enough whoever asks. Its event carries the
// cache past every revision before it. etcd's own progress requests would do the
// same, but before 3.4.25 and 3.5.8 they could overtake events.
func (s *Store) nudge(ctx context.Context) {
	now, last := time.Now().UnixNano(), s.nudged.Load()
	// A last time in the future is that of a clock that has been set back.
	if d := now - last; d >= 0 && d < int64(nudgeAfter) || !s.nudged.CompareAndSwap(last, now) {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, commitTimeout)
	defer cancel()
	_, _ = s.cli.Put(ctx, s.syncKey(), "") // the next nudge is the retry
}

// pulse keeps Lag small where the server's own progress notices are minutes
// apart.
func (s *Store) pulse() {
	defer s.wg.Done()
	t := time.NewTicker(5 * time.Second)
	defer t.Stop()
	for {
		select {
		case <-t.C:
			s.nudge(s.ctx)
		case <-s.ctx.Done():
			return
		}
	}
}

// advance publishes that every change up to rev is in the tables.
func (s *Store) advance(rev int64) {
	s.seenAt.Store(time.Now().UnixNano())
	if rev <= s.rev.Load() {
		return
	}
	s.waitMu.Lock()
	s.rev.Store(rev)
	for ch, want := range s.waiters {
		if want <= rev {
			close(ch)
			delete(s.waiters, ch)
		}
	}
	s.waitMu.Unlock()
}

// split takes a key apart into resource and id.
func (s *Store) split(key string) (model.Resource, string) {
	res, id, _ := strings.Cut(strings.TrimPrefix(key, s.prefix), "/")
	return model.Resource(res), id
}

// expectations are records that this process is writing. When the watch brings
// the very same bytes, the record is taken from here instead of being decoded.
type expectations struct {
	mu sync.Mutex
	m  map[string]expectation
}

type expectation struct {
	value []byte
	rec   model.Record
}

// expectMax bounds the expectations; past it they are dropped, at the price of
// decoding.
const expectMax = 1 << 14

func (e *expectations) add(key string, value []byte, rec model.Record) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.m) >= expectMax {
		clear(e.m)
	}
	e.m[key] = expectation{value, rec}
}

func (e *expectations) take(key string, value []byte) model.Record {
	e.mu.Lock()
	defer e.mu.Unlock()
	x, ok := e.m[key]
	if !ok || !bytes.Equal(x.value, value) {
		return nil
	}
	delete(e.m, key)
	return x.rec
}

// clusterKey holds the cluster's id, made once.
const clusterKey = "meta/cluster"

// ClusterID gives the cluster's id: it tags what is made on backends, and docks
// belong to one cluster.
func (s *Store) ClusterID(ctx context.Context) (string, error) {
	for {
		b, rev, err := s.GetRaw(ctx, clusterKey)
		if err != nil {
			return "", err
		}
		if rev != 0 {
			return string(b), nil
		}
		t := (&Txn{Label: "cluster"}).If(clusterKey, Absent).PutRaw(clusterKey, []byte(model.NewID()), 0)
		if _, err := s.Commit(ctx, t); err != nil && !model.IsKind(err, model.KindConflict) {
			return "", err
		}
	}
}

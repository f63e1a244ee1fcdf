package db

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/sirupsen/logrus"
	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3client"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/osds-io/osds/internal/atomicfile"
	"github.com/osds-io/osds/pkg/model"
)

// Embedded says how to run the etcd member inside this process.
type Embedded struct {
	// Dir holds the member's data and the instance file. It is locked: two
	// processes never share it.
	Dir string
	// ListenClient is a URL for other clients (a second osdslet, etcdctl).
	// Empty: a unix socket in Dir, which only this user can reach.
	ListenClient string
	// Quota bounds the database's size in bytes; 0 means 8 GiB.
	Quota int64
}

type member struct {
	etcd *embed.Etcd
	lock *os.File
	log  *etcdLog
	// cleanup removes what memberConfig made outside of the data directory.
	cleanup func()
}

// startMember starts the embedded member and waits until it serves.
func startMember(ctx context.Context, c Embedded, log *logrus.Entry) (*member, *clientv3.Client, error) {
	dir, err := filepath.Abs(c.Dir)
	if err != nil {
		return nil, nil, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, nil, fmt.Errorf("etcd data directory: %w", err)
	}
	lock, err := lockDir(dir)
	if err != nil {
		return nil, nil, err
	}
	m := &member{lock: lock, log: &etcdLog{log: log}}
	first, err := firstStart(dir, log)
	if err != nil {
		m.stop()
		return nil, nil, err
	}
	cfg, cleanup, err := memberConfig(dir, c, m.log)
	m.cleanup = cleanup
	if err != nil {
		m.stop()
		return nil, nil, err
	}
	if m.etcd, err = embed.StartEtcd(cfg); err != nil {
		m.stop()
		return nil, nil, fmt.Errorf("start embedded etcd in %s: %w", dir, err)
	}
	select {
	case <-m.etcd.Server.ReadyNotify():
	case err := <-m.etcd.Err():
		m.stop()
		return nil, nil, fmt.Errorf("embedded etcd in %s: %w", dir, err)
	case <-ctx.Done():
		m.stop()
		return nil, nil, fmt.Errorf("embedded etcd in %s is not ready: %w", dir, ctx.Err())
	}
	if first {
		if err := firstStartDone(dir); err != nil {
			m.stop()
			return nil, nil, err
		}
	}
	cli := v3client.New(m.etcd.Server)
	if err := disarm(ctx, cli, cfg.QuotaBackendBytes, log); err != nil {
		m.stop()
		return nil, nil, err
	}
	return m, cli, nil
}

// The names below the data directory: the member's own directory, and the mark
// that it has never been ready.
const (
	memberDir  = "member"
	memberMark = "member.new"
)

// firstStart says whether the member starts for the first time. etcd writes its
// log file before it writes into it who the members are: if it is killed in
// between, it comes up as a member of nothing and waits for ever. So a mark stands
// beside a member from before it is made until it has been ready once, and what is
// found with the mark is put aside: nobody can have stored anything in it. It is
// not removed, in case somebody has put a backup there meanwhile.
func firstStart(dir string, log *logrus.Entry) (bool, error) {
	data, mark := filepath.Join(dir, memberDir), filepath.Join(dir, memberMark)
	_, err := os.Stat(data)
	if err != nil && !os.IsNotExist(err) {
		return false, err
	}
	there := err == nil
	if _, err := os.Stat(mark); err != nil && !os.IsNotExist(err) {
		return false, err
	} else if err == nil && there {
		aside := fmt.Sprintf("%s.unfinished-%d", data, time.Now().UnixNano())
		log.Warnf("the first start of the embedded etcd was cut short; what it left is put aside as %s", aside)
		if err := os.Rename(data, aside); err != nil {
			return false, err
		}
		there = false
	}
	if there {
		return false, nil
	}
	return true, atomicfile.Write(mark, []byte("the embedded etcd has not been ready yet\n"), 0o600)
}

// firstStartDone takes the mark away, for good: if it came back after a power cut,
// a member with data would be put aside.
func firstStartDone(dir string) error {
	if err := os.Remove(filepath.Join(dir, memberMark)); err != nil {
		return err
	}
	return atomicfile.SyncDir(dir)
}

// disarm ends the alarm of a full database if it is below its quota by now: the
// quota was raised, or the database defragmented. etcd itself would stay
// read-only for ever.
func disarm(ctx context.Context, cli *clientv3.Client, quota int64, log *logrus.Entry) error {
	alarms, err := cli.AlarmList(ctx)
	if err != nil {
		return fmt.Errorf("etcd's alarms: %w", err)
	}
	for _, a := range alarms.Alarms {
		if a.Alarm != etcdserverpb.AlarmType_NOSPACE {
			continue
		}
		st, err := cli.Status(ctx, "")
		if err != nil {
			return fmt.Errorf("etcd's size: %w", err)
		}
		if st.DbSize >= quota {
			log.Errorf("the store is full: %d bytes of %d; raise etcd.embedded.quota, or compact and defragment it", st.DbSize, quota)
			continue
		}
		log.Warnf("the store was full and has room again: %d bytes of %d", st.DbSize, quota)
		if _, err := cli.AlarmDisarm(ctx, &clientv3.AlarmMember{MemberID: a.MemberID, Alarm: a.Alarm}); err != nil {
			return fmt.Errorf("disarm etcd's alarm: %w", err)
		}
	}
	return nil
}

func memberConfig(dir string, c Embedded, core zapcore.Core) (*embed.Config, func(), error) {
	cfg := embed.NewConfig()
	cfg.Name = "osds"
	cfg.Dir = filepath.Join(dir, memberDir)
	// Sockets stand in the data directory, whose mode keeps other users out:
	// nobody can reach the store around the API's authorisation. A socket path
	// has at most 107 bytes, so a long directory gets a short private one.
	sockDir, cleanup := dir, func() {}
	if len(dir) > 80 {
		t, err := os.MkdirTemp("", "osds-etcd-")
		if err != nil {
			return nil, cleanup, err
		}
		sockDir = t
		cleanup = func() { _ = os.RemoveAll(t) }
	}
	for _, s := range []string{"client.sock", "peer.sock"} {
		// Left by a process that was killed; the directory's lock says that
		// nobody serves it.
		if err := os.Remove(filepath.Join(sockDir, s)); err != nil && !os.IsNotExist(err) {
			return nil, cleanup, err
		}
	}
	peer := url.URL{Scheme: "unix", Path: filepath.Join(sockDir, "peer.sock")}
	client := url.URL{Scheme: "unix", Path: filepath.Join(sockDir, "client.sock")}
	if c.ListenClient != "" {
		u, err := url.Parse(c.ListenClient)
		if err != nil || (u.Scheme != "http" && u.Scheme != "https" && u.Scheme != "unix") {
			return nil, cleanup, model.Invalid("etcd.embedded.listenClient", "%q is not a URL such as http://127.0.0.1:2379", c.ListenClient)
		}
		client = *u
	}
	cfg.ListenPeerUrls, cfg.AdvertisePeerUrls = []url.URL{peer}, []url.URL{peer}
	cfg.ListenClientUrls, cfg.AdvertiseClientUrls = []url.URL{client}, []url.URL{client}
	cfg.InitialCluster = cfg.InitialClusterFromName(cfg.Name)
	cfg.ZapLoggerBuilder = embed.NewZapLoggerBuilder(zap.New(core))
	cfg.QuotaBackendBytes = c.Quota
	if c.Quota == 0 {
		cfg.QuotaBackendBytes = 8 << 30
	}
	// Five minutes of history are enough for an event stream to resume from;
	// more would be paid for in disk at a high rate of change.
	cfg.AutoCompactionMode, cfg.AutoCompactionRetention = "periodic", "5m"
	// One member has no slow follower to keep entries for: a long raft log
	// would only be memory.
	cfg.SnapshotCount, cfg.SnapshotCatchUpEntries = 2000, 100
	cfg.WatchProgressNotifyInterval = 5 * time.Second
	return cfg, cleanup, nil
}

// lockDir takes the directory's lock for the life of the process.
func lockDir(dir string) (*os.File, error) {
	p := filepath.Join(dir, "lock")
	f, err := os.OpenFile(p, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		return nil, model.Errorf(model.KindBusy, "data directory %s is in use by another osdslet (%v); stop it or choose another --dataDir", dir, err)
	}
	return f, nil
}

func (m *member) stop() {
	m.log.quiet.Store(true) // it calls the end of its listeners an error
	if m.etcd != nil {
		m.etcd.Close()
		<-m.etcd.Server.StopNotify()
	}
	if m.cleanup != nil {
		m.cleanup()
	}
	if m.lock != nil {
		m.lock.Close()
	}
}

// instanceID gives the id kept in dir, making it at first. A process that holds
// the directory's lock knows that no other process has this id now, which lets
// it take its own stale leadership back without waiting for the lease.
func instanceID(dir string) (string, error) {
	p := filepath.Join(dir, "instance")
	b, err := os.ReadFile(p)
	if err == nil && model.ValidUUID(strings.TrimSpace(string(b))) {
		return strings.TrimSpace(string(b)), nil
	}
	if err != nil && !os.IsNotExist(err) {
		return "", err
	}
	id := model.NewID()
	tmp := p + ".tmp"
	if err := os.WriteFile(tmp, []byte(id+"\n"), 0o600); err != nil {
		return "", err
	}
	return id, os.Rename(tmp, p)
}

// etcdLog passes the member's errors on to our log; the rest is its own affair.
type etcdLog struct {
	log   *logrus.Entry
	quiet atomic.Bool
}

// Enabled is true for errors until the member is being stopped.
func (l *etcdLog) Enabled(lv zapcore.Level) bool {
	return lv >= zapcore.ErrorLevel && !l.quiet.Load()
}

// With ignores fields of the member's sub-loggers.
func (l *etcdLog) With([]zapcore.Field) zapcore.Core { return l }

// Check adds the core where Enabled.
func (l *etcdLog) Check(e zapcore.Entry, c *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if l.Enabled(e.Level) {
		return c.AddCore(e, l)
	}
	return c
}

// Write logs one entry with its fields.
func (l *etcdLog) Write(e zapcore.Entry, fields []zapcore.Field) error {
	enc := zapcore.NewMapObjectEncoder()
	for _, f := range fields {
		f.AddTo(enc)
	}
	l.log.WithFields(enc.Fields).Error("etcd: " + e.Message)
	return nil
}

// Sync has nothing to do.
func (l *etcdLog) Sync() error { return nil }

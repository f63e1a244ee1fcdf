package dock

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/sirupsen/logrus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"

	"github.com/osds-io/osds/pkg/dock/dockpb"
	"github.com/osds-io/osds/pkg/model"
)

// Times of a session.
type sessionTimes struct {
	beat     time.Duration // until a Welcome says otherwise
	silence  time.Duration // without a Welcome for so long a session is over
	retryMin time.Duration
	retryMax time.Duration
	refused  time.Duration // the pause after a refusal
}

func defaultSession() sessionTimes {
	return sessionTimes{
		beat: 3 * time.Second, silence: 10 * time.Second,
		// A try costs an osdslet no more than a beat, so the pause between two
		// need not grow past a beat's length: what waits for this dock waits
		// for the whole of it.
		retryMin: 250 * time.Millisecond, retryMax: 2 * time.Second, refused: 15 * time.Second,
	}
}

// Bounds of what a Welcome may ask for.
const (
	minBeat = 50 * time.Millisecond
	maxBeat = time.Minute
)

// session keeps the dock registered with one osdslet.
type session struct {
	d        *Dock
	endpoint string
	creds    credentials.TransportCredentials
	times    sessionTimes
	log      *logrus.Entry

	mu     sync.Mutex
	up     bool
	since  time.Time
	reason string // why it is not up

	// answered says that the osdslet of the last session answered a beat: it
	// was more than a start that failed. Only the session's own goroutines
	// use it, one after the other.
	answered bool
}

// refusal is the error of a session that the osdslet ended with a reason.
type refusal struct{ reason string }

func (r refusal) Error() string { return "refused: " + r.reason }

// errRenew ends a session because the dock has to introduce itself anew.
var errRenew = errors.New("the host's initiators have changed")

// run opens the session again and again until ctx ends.
func (s *session) run(ctx context.Context) {
	failures := 0
	for {
		began := time.Now()
		err := s.once(ctx)
		if ctx.Err() != nil {
			s.set(false, "the dock is stopping")
			return
		}
		if errors.Is(err, errRenew) {
			// The osdslet takes it for what it is: the same dock again.
			s.log.WithError(err).Info("introducing the dock anew")
			continue
		}
		if s.answered || time.Since(began) > s.times.silence {
			failures = 0 // it was up; this is a new trouble
		}
		wait := backoff(failures, s.times.retryMin, s.times.retryMax)
		failures++
		var ref refusal
		if errors.As(err, &ref) || model.IsKind(err, model.KindDenied) {
			wait = backoff(0, s.times.refused, s.times.refused)
		}
		was := s.set(false, err.Error())
		if was != err.Error() { // not the same line every few seconds
			s.log.WithError(err).Warn("not registered with the osdslet; trying again")
		}
		if !pause(ctx, wait) {
			return
		}
	}
}

// set notes the state and gives the reason that stood before.
func (s *session) set(up bool, reason string) (was string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	was = s.reason
	if up != s.up {
		s.since = time.Now()
	}
	s.up, s.reason = up, reason
	set(s.d.metrics.session.WithLabelValues(s.endpoint), up)
	return was
}

// status is for /readyz.
func (s *session) status() (up bool, detail string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.up {
		return true, "registered since " + s.since.UTC().Format(time.RFC3339)
	}
	if s.reason == "" {
		return false, "connecting"
	}
	return false, s.reason
}

// once is one session, from connecting to its end, which is always an error.
func (s *session) once(parent context.Context) error {
	conn, err := grpc.NewClient("passthrough:///"+s.endpoint,
		grpc.WithTransportCredentials(s.creds),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 10 * time.Second, Timeout: 5 * time.Second}))
	if err != nil {
		return err
	}
	defer conn.Close()
	s.answered = false
	ctx, cancel := context.WithCancelCause(parent)
	defer cancel(nil)
	// Nothing heard for too long ends the session, whatever it waits for.
	quiet := time.AfterFunc(s.times.silence, func() {
		cancel(fmt.Errorf("nothing heard from the osdslet for %v", s.times.silence))
	})
	defer quiet.Stop()

	renew := s.d.renewal() // before hello is made: what changes later is seen
	stream, err := dockpb.NewRegistryClient(conn).Session(ctx)
	if err != nil {
		return sessionError(ctx, err)
	}
	first := s.d.beat()
	first.Hello = s.d.hello()
	if err := stream.Send(first); err != nil {
		return sessionError(ctx, recvError(stream, err))
	}
	w, err := stream.Recv()
	if err != nil {
		return sessionError(ctx, err)
	}
	if err := s.welcome(w); err != nil {
		return err
	}
	s.set(true, "")
	s.log.WithFields(logrus.Fields{"cluster": w.GetClusterId(), "leader": w.GetLeader()}).Info("registered with the osdslet")

	beats := make(chan time.Duration, 1)
	ended := make(chan error, 1)
	go func() { ended <- s.receive(stream, quiet, beats) }()
	err = s.send(ctx, stream, s.beatOf(w), beats, renew, ended)
	cancel(nil)
	<-ended
	return sessionError(ctx, err)
}

// send beats until the session ends. The receiver's end comes through ended,
// which is left filled for the caller to wait on.
func (s *session) send(ctx context.Context, stream grpc.BidiStreamingClient[dockpb.DockMessage, dockpb.Welcome],
	every time.Duration, beats <-chan time.Duration, renew <-chan struct{}, ended chan error) error {
	t := time.NewTimer(every)
	defer t.Stop()
	for {
		select {
		case <-t.C:
			if err := stream.Send(s.d.beat()); err != nil && !errors.Is(err, io.EOF) {
				return err
			} // after io.EOF the receiver has the reason
			t.Reset(every)
		case every = <-beats:
		case <-renew:
			return errRenew
		case err := <-ended:
			ended <- err
			return err
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// receive reads Welcomes until the session ends.
func (s *session) receive(stream grpc.BidiStreamingClient[dockpb.DockMessage, dockpb.Welcome], quiet *time.Timer, beats chan<- time.Duration) error {
	for {
		w, err := stream.Recv()
		if err != nil {
			return err
		}
		quiet.Reset(s.times.silence)
		if err := s.welcome(w); err != nil {
			return err
		}
		s.answered = true
		select {
		case beats <- s.beatOf(w):
		default: // the sender has not read the last one; there is always a next
		}
	}
}

func (s *session) beatOf(w *dockpb.Welcome) time.Duration {
	if w.GetBeatMs() <= 0 {
		return s.times.beat
	}
	return min(max(time.Duration(w.GetBeatMs())*time.Millisecond, minBeat), maxBeat)
}

// welcome checks an answer: is this our cluster, are we accepted? The epoch it
// brings closes the fence to older leaders before the new one's first call.
func (s *session) welcome(w *dockpb.Welcome) error {
	if w.GetRefused() != "" {
		return refusal{w.GetRefused()}
	}
	if err := s.d.state.adopt(w.GetClusterId()); err != nil {
		return err
	}
	if e := w.GetEpoch(); e > s.d.fence.epoch() {
		return s.d.fence.admit(e)
	}
	return nil
}

// recvError gets the reason why a stream could not be written to.
func recvError(stream grpc.BidiStreamingClient[dockpb.DockMessage, dockpb.Welcome], err error) error {
	if !errors.Is(err, io.EOF) {
		return err
	}
	w, rerr := stream.Recv()
	if rerr != nil {
		return rerr
	}
	if w.GetRefused() != "" {
		return refusal{w.GetRefused()}
	}
	return err
}

// sessionError prefers the reason why we ended the session to what gRPC made of
// it.
func sessionError(ctx context.Context, err error) error {
	if errors.Is(err, errRenew) {
		return err
	}
	if c := context.Cause(ctx); c != nil && !errors.Is(c, context.Canceled) {
		return c
	}
	if err == nil || errors.Is(err, io.EOF) {
		return errors.New("the osdslet ended the session")
	}
	var ref refusal
	if errors.As(err, &ref) {
		return ref
	}
	return dockpb.FromStatus(err, false)
}

//go:build ceph

package ceph

import (
	"context"
	"errors"
	"syscall"

	"github.com/osds-io/osds/internal/faults"
	"github.com/osds-io/osds/pkg/model"
)

func builtIn() error { return nil }

// errno gives the error number of Ceph's answer; 0 if it is none.
func errno(err error) syscall.Errno {
	var e interface{ ErrorCode() int }
	if !errors.As(err, &e) {
		return 0
	}
	n := e.ErrorCode()
	if n < 0 {
		n = -n
	}
	return syscall.Errno(n)
}

// absent says whether the cluster said that the thing asked for is not there.
func absent(err error) bool { return errno(err) == syscall.ENOENT }

// cutOff says whether the cluster does not know this client any more: it was
// blocklisted. Nothing but a new connection helps.
func cutOff(err error) bool {
	n := errno(err)
	return n == syscall.ESHUTDOWN || n == syscall.ENOTCONN
}

// kinds says what Ceph's error numbers mean to the caller. ENOENT is not here:
// only who asked knows what it is that is not there.
var kinds = map[syscall.Errno]struct {
	kind model.Kind
	why  string
}{
	syscall.EBUSY:        {model.KindBusy, "it is in use"},
	syscall.ENOTEMPTY:    {model.KindBusy, "it has snapshots"},
	syscall.EROFS:        {model.KindBusy, "a client holds its lock and does not give it up"},
	syscall.EMLINK:       {model.KindBusy, "it is in a group"},
	syscall.EAGAIN:       {model.KindBusy, "try again"},
	syscall.EEXIST:       {model.KindExists, "it is there already"},
	syscall.ENOSPC:       {model.KindExhausted, "the cluster is full"},
	syscall.EDQUOT:       {model.KindExhausted, "the pool has reached its quota"},
	syscall.EPERM:        {model.KindDenied, "the cephx user may not do this"},
	syscall.EACCES:       {model.KindDenied, "the cephx user may not do this"},
	syscall.ETIMEDOUT:    {model.KindUnknownOutcome, "the cluster did not answer in time"},
	syscall.ECANCELED:    {model.KindUnknownOutcome, "it was broken off"},
	syscall.EINTR:        {model.KindUnknownOutcome, "it was broken off"},
	syscall.ESHUTDOWN:    {model.KindUnavailable, "this client was cut off from the cluster (blocklisted)"},
	syscall.ENOTCONN:     {model.KindUnavailable, "not connected"},
	syscall.ECONNREFUSED: {model.KindUnavailable, "no monitor can be reached"},
	syscall.EIO:          {model.KindUnavailable, "the cluster has an input/output error"},
	syscall.EOPNOTSUPP:   {model.KindUnsupported, "this cluster cannot do it"},
	syscall.ENOSYS:       {model.KindUnsupported, "this version of librbd cannot do it"},
	syscall.ERESTART:     {model.KindBusy, "another operation came in between"},
}

// fail gives an error a kind.
func fail(what string, err error) error {
	var me *model.Error
	switch {
	case err == nil:
		return nil
	case errors.As(err, &me):
		return err
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return model.Errorf(model.KindUnknownOutcome, "%s: %w", what, err)
	}
	if k, ok := kinds[errno(err)]; ok {
		return model.Errorf(k.kind, "%s: %s: %w", what, k.why, err)
	}
	if absent(err) {
		// Where absence is an answer it was looked for before; here something
		// vanished while it was worked on.
		return model.Errorf(model.KindUnavailable, "%s: a part of it has vanished meanwhile: %w", what, err)
	}
	return model.Errorf(model.KindInternal, "%s: %w", what, err)
}

// step is a place between two durable steps: a test may kill the process here,
// and a call whose time is over ends here.
func step(ctx context.Context, point string) error {
	faults.Point("ceph." + point)
	if err := ctx.Err(); err != nil {
		return model.Errorf(model.KindUnknownOutcome, "broken off: %w", err)
	}
	return nil
}

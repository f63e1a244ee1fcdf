package dockpb

import (
	"context"
	"errors"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/osds-io/osds/pkg/model"
)

// maxMessage bounds the text of an error on the wire: it travels in a header.
const maxMessage = 4096

// ToStatus makes the gRPC status of an error, with its kind and field in an
// ErrorDetail. It gives nil for nil.
func ToStatus(err error) error {
	if err == nil {
		return nil
	}
	e := model.AsError(err)
	msg := clip(e.Error())
	st := status.New(e.Kind.GRPCCode(), msg)
	det := &ErrorDetail{Kind: string(e.Kind), Message: msg, Field: clip(e.Field)}
	if p := model.ProgressOf(e); p != nil {
		det.Progress = &Progress{What: clip(p.What), Done: int64(p.Done), Total: int64(p.Total)}
	}
	if with, derr := st.WithDetails(det); derr == nil {
		st = with
	}
	return st.Err()
}

// clip makes s fit for a header and a protobuf string.
func clip(s string) string {
	if len(s) > maxMessage {
		s = s[:maxMessage] + "..."
	}
	return strings.ToValidUTF8(s, "\uFFFD")
}

// FromStatus makes the error of what a gRPC call gave; nil for nil. An error
// that the peer's osds made keeps its kind. Of all others, those of the
// transport, of a peer that died and of a deadline, nothing is known but
// whether the request can have left: sent false is proof that it did not, and
// then the call surely did nothing.
func FromStatus(err error, sent bool) error {
	if err == nil {
		return nil
	}
	var own *model.Error
	if errors.As(err, &own) {
		return own
	}
	st, ok := status.FromError(err)
	if !ok {
		st = status.FromContextError(err)
	}
	for _, d := range st.Details() {
		if det, ok := d.(*ErrorDetail); ok && knownKind(model.Kind(det.GetKind())) {
			e := &model.Error{Kind: model.Kind(det.GetKind()), Message: det.GetMessage(), Field: det.GetField(), Err: cause(st.Code())}
			if p := det.GetProgress(); p != nil {
				e.Progress = &model.Progress{What: p.GetWhat(), Done: model.Bytes(p.GetDone()), Total: model.Bytes(p.GetTotal())}
			}
			return e
		}
	}
	return &model.Error{Kind: transportKind(st.Code(), sent), Message: st.Message(), Err: cause(st.Code())}
}

// cause keeps errors.Is(err, context.DeadlineExceeded) true across the wire.
func cause(c codes.Code) error {
	switch c {
	case codes.DeadlineExceeded:
		return context.DeadlineExceeded
	case codes.Canceled:
		return context.Canceled
	}
	return nil
}

// transportKind is the kind of a status that no osds made.
func transportKind(c codes.Code, sent bool) model.Kind {
	switch c {
	case codes.Unimplemented: // an older peer; it did nothing
		return model.KindUnsupported
	case codes.Unauthenticated:
		return model.KindUnauthenticated
	case codes.PermissionDenied:
		return model.KindDenied
	}
	if sent {
		return model.KindUnknownOutcome
	}
	if c == codes.ResourceExhausted || c == codes.Internal {
		// Too large to be sent, or not encodable: trying again is no use.
		return model.KindInternal
	}
	return model.KindUnavailable
}

func knownKind(k model.Kind) bool {
	// Every kind but internal has a code of its own, and an unknown one gets
	// that of internal.
	return k == model.KindInternal || k.GRPCCode() != codes.Internal
}

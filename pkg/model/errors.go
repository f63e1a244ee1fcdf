package model

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"google.golang.org/grpc/codes"
)

// Kind says what sort of failure an Error is. Callers branch on the kind, never
// on the text.
type Kind string

// The kinds. UnknownOutcome is not a failure: the work may have been done, so
// whoever sees it has to look before it acts.
const (
	KindInvalid         Kind = "invalid"
	KindNotFound        Kind = "notFound"
	KindExists          Kind = "exists"
	KindConflict        Kind = "conflict"
	KindExhausted       Kind = "exhausted"
	KindUnsupported     Kind = "unsupported"
	KindBusy            Kind = "busy"
	KindUnauthenticated Kind = "unauthenticated"
	KindDenied          Kind = "denied"
	KindStale           Kind = "stale"
	KindUnavailable     Kind = "unavailable"
	KindUnknownOutcome  Kind = "unknownOutcome"
	KindInternal        Kind = "internal"
)

// kindTable is the one place where kinds meet HTTP and gRPC. State conflicts
// (wrong status, still has snapshots, ...) are 400 as in the original API, so
// that its clients keep working; Code on an Error overrides the default.
var kindTable = map[Kind]struct {
	http int
	grpc codes.Code
}{
	KindInvalid:         {http.StatusBadRequest, codes.InvalidArgument},
	KindNotFound:        {http.StatusNotFound, codes.NotFound},
	KindExists:          {http.StatusConflict, codes.AlreadyExists},
	KindConflict:        {http.StatusConflict, codes.Aborted},
	KindExhausted:       {http.StatusInsufficientStorage, codes.ResourceExhausted},
	KindUnsupported:     {http.StatusBadRequest, codes.Unimplemented},
	KindBusy:            {http.StatusBadRequest, codes.FailedPrecondition},
	KindUnauthenticated: {http.StatusUnauthorized, codes.Unauthenticated},
	KindDenied:          {http.StatusForbidden, codes.PermissionDenied},
	KindStale:           {http.StatusPreconditionFailed, codes.OutOfRange},
	KindUnavailable:     {http.StatusServiceUnavailable, codes.Unavailable},
	KindUnknownOutcome:  {http.StatusGatewayTimeout, codes.DeadlineExceeded},
	KindInternal:        {http.StatusInternalServerError, codes.Internal},
}

// HTTPStatus is the default HTTP status of a kind; 500 for an unknown one.
func (k Kind) HTTPStatus() int {
	if e, ok := kindTable[k]; ok {
		return e.http
	}
	return http.StatusInternalServerError
}

// GRPCCode is the gRPC code of a kind; Internal for an unknown one.
func (k Kind) GRPCCode() codes.Code {
	if e, ok := kindTable[k]; ok {
		return e.grpc
	}
	return codes.Internal
}

// KindOfGRPC is the reverse of GRPCCode, for peers that sent no kind of ours.
func KindOfGRPC(c codes.Code) Kind {
	for k, e := range kindTable {
		if e.grpc == c {
			return k
		}
	}
	switch c {
	case codes.Canceled, codes.Unknown, codes.DataLoss:
		return KindUnknownOutcome
	}
	return KindInternal
}

// Error is the error type of osds. Message is written for the person who reads
// it: it says what is wrong and, where it can, what to do.
type Error struct {
	Kind    Kind
	Message string
	// Field is the request field at fault, as the client spelt it ("size",
	// "provisioningProperties.dataStorage.provisioningPolicy"); may be empty.
	Field string
	// Status overrides the HTTP status of the kind where the original API
	// answers another one; 0 means the kind's own.
	Status int
	// Progress, if it is not nil, says that the work has not failed but goes on
	// with the same call again; see drivers.InProgress.
	Progress *Progress
	// Err is the cause, if any.
	Err error
}

// Error gives the message; the cause's text is part of it already.
func (e *Error) Error() string {
	if e.Message == "" && e.Err != nil {
		return e.Err.Error()
	}
	return e.Message
}

// Unwrap gives the cause.
func (e *Error) Unwrap() error { return e.Err }

// HTTPStatus is the status to answer with.
func (e *Error) HTTPStatus() int {
	if e.Status != 0 {
		return e.Status
	}
	return e.Kind.HTTPStatus()
}

// Errorf makes an Error of a kind. A %w argument becomes its cause for
// errors.Is and errors.As; its text is part of the message.
func Errorf(kind Kind, format string, args ...any) *Error {
	w := fmt.Errorf(format, args...)
	return &Error{Kind: kind, Message: w.Error(), Err: errors.Unwrap(w)}
}

// Invalid makes an error about one field of a request.
func Invalid(field, format string, args ...any) *Error {
	return &Error{Kind: KindInvalid, Field: field, Message: fmt.Sprintf(format, args...)}
}

// KindOf gives the kind of an error: that of the first Error in its chain,
// unknownOutcome for a context that ended, internal for anything else, and ""
// for nil.
func KindOf(err error) Kind {
	if err == nil {
		return ""
	}
	var e *Error
	if errors.As(err, &e) {
		return e.Kind
	}
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		return KindUnknownOutcome
	}
	return KindInternal
}

// IsKind says whether err is of one of the kinds.
func IsKind(err error, kinds ...Kind) bool {
	k := KindOf(err)
	for _, want := range kinds {
		if k == want {
			return true
		}
	}
	return false
}

// AsError gives the first Error in the chain, or wraps err in one of the kind
// that KindOf finds. It gives nil for nil.
func AsError(err error) *Error {
	if err == nil {
		return nil
	}
	var e *Error
	if errors.As(err, &e) {
		return e
	}
	return &Error{Kind: KindOf(err), Message: err.Error()}
}

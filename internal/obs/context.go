// Package obs is what the daemons show of themselves: logs, health, metrics, and
// the ids that tie them together and travel in the context.
package obs

import (
	"context"

	"github.com/sirupsen/logrus"
)

// Fields are what travels in a context and shows in every message logged with
// it.
type Fields struct {
	// RequestID is the id of the client's request.
	RequestID string
	// Actor is who acts: a user's id, or a controller's name.
	Actor string
	// Tenant is who is acted for.
	Tenant string
	// TaskID is the task that is being worked on.
	TaskID string
	// Epoch is the leader's epoch.
	Epoch int64
}

type fieldsKey struct{}

// WithFields puts all the fields into the context, replacing what it had.
func WithFields(ctx context.Context, f Fields) context.Context {
	return context.WithValue(ctx, fieldsKey{}, &f)
}

// FieldsOf gives the fields of a context.
func FieldsOf(ctx context.Context) Fields {
	if f, ok := ctx.Value(fieldsKey{}).(*Fields); ok {
		return *f
	}
	return Fields{}
}

func with(ctx context.Context, set func(*Fields)) context.Context {
	f := FieldsOf(ctx)
	set(&f)
	return WithFields(ctx, f)
}

// WithRequestID puts the id of the client's request into the context.
func WithRequestID(ctx context.Context, id string) context.Context {
	return with(ctx, func(f *Fields) { f.RequestID = id })
}

// RequestID gives the request's id, or "".
func RequestID(ctx context.Context) string { return FieldsOf(ctx).RequestID }

// WithActor puts who acts into the context.
func WithActor(ctx context.Context, who string) context.Context {
	return with(ctx, func(f *Fields) { f.Actor = who })
}

// Actor gives who acts, or "".
func Actor(ctx context.Context) string { return FieldsOf(ctx).Actor }

// WithTenant puts the tenant that is acted for into the context.
func WithTenant(ctx context.Context, id string) context.Context {
	return with(ctx, func(f *Fields) { f.Tenant = id })
}

// Tenant gives the tenant, or "".
func Tenant(ctx context.Context) string { return FieldsOf(ctx).Tenant }

// WithTaskID puts the task that is being worked on into the context.
func WithTaskID(ctx context.Context, id string) context.Context {
	return with(ctx, func(f *Fields) { f.TaskID = id })
}

// TaskID gives the task, or "".
func TaskID(ctx context.Context) string { return FieldsOf(ctx).TaskID }

// WithEpoch puts the leader's epoch into the context.
func WithEpoch(ctx context.Context, epoch int64) context.Context {
	return with(ctx, func(f *Fields) { f.Epoch = epoch })
}

// Epoch gives the leader's epoch, or 0.
func Epoch(ctx context.Context) int64 { return FieldsOf(ctx).Epoch }

// ctxHook adds what the entry's context carries to its fields.
type ctxHook struct{}

func (ctxHook) Levels() []logrus.Level { return logrus.AllLevels }

func (ctxHook) Fire(e *logrus.Entry) error {
	if e.Context == nil {
		return nil
	}
	f := FieldsOf(e.Context)
	for _, x := range []struct{ name, val string }{
		{"request", f.RequestID}, {"actor", f.Actor}, {"tenant", f.Tenant}, {"task", f.TaskID},
	} {
		if x.val != "" {
			e.Data[x.name] = x.val
		}
	}
	if f.Epoch != 0 {
		e.Data["epoch"] = f.Epoch
	}
	return nil
}

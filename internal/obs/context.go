// Package obs is what the daemons show of themselves: logs, health, metrics, and
// the ids that tie them together and travel in the context.
package obs

import (
	"context"

	"github.com/sirupsen/logrus"
)

// ctxKey is one of the values that travel in a context.
type ctxKey int

const (
	requestIDKey ctxKey = iota
	actorKey
	tenantKey
	taskIDKey
	epochKey
)

func text(ctx context.Context, k ctxKey) string {
	s, _ := ctx.Value(k).(string)
	return s
}

// WithRequestID puts the id of the client's request into the context.
func WithRequestID(ctx context.Context, id string) context.Context {
	return context.WithValue(ctx, requestIDKey, id)
}

// RequestID gives the request's id, or "".
func RequestID(ctx context.Context) string { return text(ctx, requestIDKey) }

// WithActor puts who acts into the context: a user's id, or a controller's name.
func WithActor(ctx context.Context, who string) context.Context {
	return context.WithValue(ctx, actorKey, who)
}

// Actor gives who acts, or "".
func Actor(ctx context.Context) string { return text(ctx, actorKey) }

// WithTenant puts the tenant that is acted for into the context.
func WithTenant(ctx context.Context, id string) context.Context {
	return context.WithValue(ctx, tenantKey, id)
}

// Tenant gives the tenant, or "".
func Tenant(ctx context.Context) string { return text(ctx, tenantKey) }

// WithTaskID puts the task that is being worked on into the context.
func WithTaskID(ctx context.Context, id string) context.Context {
	return context.WithValue(ctx, taskIDKey, id)
}

// TaskID gives the task, or "".
func TaskID(ctx context.Context) string { return text(ctx, taskIDKey) }

// WithEpoch puts the leader's epoch into the context.
func WithEpoch(ctx context.Context, epoch int64) context.Context {
	return context.WithValue(ctx, epochKey, epoch)
}

// Epoch gives the leader's epoch, or 0.
func Epoch(ctx context.Context) int64 {
	e, _ := ctx.Value(epochKey).(int64)
	return e
}

// ctxHook adds what the entry's context carries to its fields.
type ctxHook struct{}

func (ctxHook) Levels() []logrus.Level { return logrus.AllLevels }

func (ctxHook) Fire(e *logrus.Entry) error {
	if e.Context == nil {
		return nil
	}
	for _, f := range []struct {
		name string
		key  ctxKey
	}{{"request", requestIDKey}, {"actor", actorKey}, {"tenant", tenantKey}, {"task", taskIDKey}} {
		if s := text(e.Context, f.key); s != "" {
			e.Data[f.name] = s
		}
	}
	if n := Epoch(e.Context); n != 0 {
		e.Data["epoch"] = n
	}
	return nil
}

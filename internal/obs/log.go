package obs

import (
	"io"
	"os"
	"sync"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/osds-io/osds/pkg/model"
)

// LogConfig is the log section of a daemon's configuration.
type LogConfig struct {
	Level  string `yaml:"level" oneof:"error,warn,info,debug,trace" doc:"The least important messages that are written."`
	Format string `yaml:"format" oneof:"text,json" doc:"How messages are written."`
	File   string `yaml:"file" doc:"Where messages are written; empty is standard error. The file is opened again on SIGHUP, after it was rotated."`
}

// DefaultLog is text at level info, to standard error.
func DefaultLog() LogConfig { return LogConfig{Level: "info", Format: "text"} }

// NewLogger makes a logger that writes to out. Entries made WithContext show the
// request, actor, tenant, task and epoch of the context. Times are UTC.
func NewLogger(c LogConfig, out io.Writer) (*logrus.Logger, error) {
	l := logrus.New()
	l.SetOutput(out)
	l.AddHook(ctxHook{})
	if c.Level != "" {
		level, err := logrus.ParseLevel(c.Level)
		if err != nil {
			return nil, model.Invalid("level", "%q is not a level", c.Level)
		}
		l.SetLevel(level)
	}
	switch c.Format {
	case "", "text":
		l.SetFormatter(utc{&logrus.TextFormatter{FullTimestamp: true, DisableColors: true, TimestampFormat: stampFormat}})
	case "json":
		l.SetFormatter(utc{&logrus.JSONFormatter{TimestampFormat: stampFormat}})
	default:
		return nil, model.Invalid("format", "%q is neither text nor json", c.Format)
	}
	return l, nil
}

// OpenLog makes the logger of a daemon. The Output is to be reopened on SIGHUP
// and closed at the end.
func OpenLog(c LogConfig) (*logrus.Logger, *Output, error) {
	out, err := OpenOutput(c.File)
	if err != nil {
		return nil, nil, model.Invalid("file", "%v", err)
	}
	l, err := NewLogger(c, out)
	if err != nil {
		_ = out.Close()
		return nil, nil, err
	}
	return l, out, nil
}

const stampFormat = "2006-01-02T15:04:05.000Z07:00"

type utc struct{ logrus.Formatter }

func (u utc) Format(e *logrus.Entry) ([]byte, error) {
	e.Time = e.Time.In(time.UTC)
	return u.Formatter.Format(e)
}

// Output is where a log goes: a file that can be opened again after it was
// rotated, or standard error.
type Output struct {
	path string
	mu   sync.Mutex
	f    *os.File
}

// OpenOutput opens the file for appending; "" is standard error.
func OpenOutput(path string) (*Output, error) {
	o := &Output{path: path, f: os.Stderr}
	if path == "" {
		return o, nil
	}
	var err error
	o.f, err = openLog(path)
	if err != nil {
		return nil, err
	}
	return o, nil
}

func openLog(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o640)
}

// Write appends one message.
func (o *Output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.f.Write(p)
}

// Reopen opens the path anew. On an error the old file stays in use.
func (o *Output) Reopen() error {
	if o.path == "" {
		return nil
	}
	f, err := openLog(o.path)
	if err != nil {
		return err
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	old := o.f
	o.f = f
	return old.Close()
}

// Close closes the file; what is written later goes to standard error.
func (o *Output) Close() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.f == os.Stderr {
		return nil
	}
	err := o.f.Close()
	o.f = os.Stderr
	return err
}

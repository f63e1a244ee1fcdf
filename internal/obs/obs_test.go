package obs

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/osds-io/osds/pkg/model"
)

func TestContextFieldsAndSecrets(t *testing.T) {
	ctx := WithEpoch(WithTaskID(WithTenant(WithActor(WithRequestID(context.Background(), "r1"), "u1"), "t1"), "k1"), 7)
	for _, format := range []string{"text", "json"} {
		var buf bytes.Buffer
		l, err := NewLogger(LogConfig{Level: "debug", Format: format}, &buf)
		if err != nil {
			t.Fatal(err)
		}
		l.WithContext(ctx).WithField("password", model.Secret("hunter2")).Debug("a\nb")
		l.Info("no context")
		out := buf.String()
		if n := strings.Count(out, "\n"); n != 2 {
			t.Errorf("%s: %d lines for two messages: %q", format, n, out)
		}
		if strings.Contains(out, "hunter2") || !strings.Contains(out, "***") {
			t.Errorf("%s: the secret shows: %s", format, out)
		}
		if format == "json" {
			var m map[string]any
			if err := json.Unmarshal([]byte(strings.SplitN(out, "\n", 2)[0]), &m); err != nil {
				t.Fatal(err)
			}
			for k, v := range map[string]any{"request": "r1", "actor": "u1", "tenant": "t1", "task": "k1", "epoch": 7.0} {
				if m[k] != v {
					t.Errorf("%s is %v, want %v", k, m[k], v)
				}
			}
			if at, err := time.Parse(time.RFC3339, m["time"].(string)); err != nil || at.Location() != time.UTC {
				t.Errorf("time %v: %v", m["time"], err)
			}
		}
	}
	if RequestID(context.Background()) != "" || Epoch(context.Background()) != 0 {
		t.Error("an empty context has values")
	}
}

func TestLoggerRefuses(t *testing.T) {
	for _, c := range []LogConfig{{Level: "loud"}, {Format: "xml"}} {
		if _, err := NewLogger(c, io.Discard); !model.IsKind(err, model.KindInvalid) {
			t.Errorf("%+v: %v", c, err)
		}
	}
}

func TestReopenAfterRotation(t *testing.T) {
	p := filepath.Join(t.TempDir(), "log")
	l, out, err := OpenLog(LogConfig{File: p})
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	l.Info("one")
	if err := os.Rename(p, p+".1"); err != nil {
		t.Fatal(err)
	}
	if err := out.Reopen(); err != nil {
		t.Fatal(err)
	}
	l.Info("two")
	for file, want := range map[string]string{p + ".1": "one", p: "two"} {
		got, err := os.ReadFile(file)
		if err != nil || strings.Count(string(got), "\n") != 1 || !strings.Contains(string(got), want) {
			t.Errorf("%s: %q, %v", file, got, err)
		}
	}
}

func TestAdmin(t *testing.T) {
	reg := NewRegistry()
	c := prometheus.NewCounter(prometheus.CounterOpts{Name: "osds_test_total"})
	reg.MustRegister(c)
	c.Inc()
	var sick error
	checks := []Check{{Name: "a", OK: true}, {Name: "b", Optional: true, Detail: "away"}}
	mux := Admin{Registry: reg,
		Healthy: func(context.Context) error { return sick },
		Ready:   func(context.Context) []Check { return checks }}.Mux()
	get := func(path string) (int, string) {
		w := httptest.NewRecorder()
		mux.ServeHTTP(w, httptest.NewRequest("GET", path, nil))
		return w.Code, w.Body.String()
	}
	if code, body := get("/healthz"); code != 200 || body != "ok\n" {
		t.Errorf("healthz %d %q", code, body)
	}
	if code, body := get("/readyz"); code != 200 || !strings.Contains(body, `"ready":true`) || !strings.Contains(body, "away") {
		t.Errorf("readyz %d %q", code, body)
	}
	if code, body := get("/metrics"); code != 200 || !strings.Contains(body, "osds_test_total 1") || !strings.Contains(body, "go_goroutines") {
		t.Errorf("metrics %d", code)
	}
	sick = errors.New("stuck")
	checks = append(checks, Check{Name: "c", Detail: "refused"})
	if code, body := get("/healthz"); code != 503 || !strings.Contains(body, "stuck") {
		t.Errorf("healthz %d %q", code, body)
	}
	if code, body := get("/readyz"); code != 503 || !strings.Contains(body, `"ready":false`) || !strings.Contains(body, "refused") {
		t.Errorf("readyz %d %q", code, body)
	}
	if code, _ := get("/debug/pprof/"); code != 404 {
		t.Errorf("something else is served: %d", code)
	}
}

func TestServeHTTPEndsWithContext(t *testing.T) {
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	began, release := make(chan struct{}), make(chan struct{})
	done := make(chan error, 1)
	go func() {
		done <- ServeHTTP(ctx, lis, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			close(began)
			<-release
			_, _ = w.Write([]byte("whole"))
		}), time.Minute)
	}()
	got := make(chan string, 1)
	go func() {
		resp, err := http.Get("http://" + lis.Addr().String())
		if err != nil {
			got <- err.Error()
			return
		}
		defer resp.Body.Close()
		b, _ := io.ReadAll(resp.Body)
		got <- string(b)
	}()
	<-began
	cancel()
	close(release)
	if s := <-got; s != "whole" {
		t.Errorf("the request in flight got %q", s)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

package obs

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Check is one thing that is well or not.
type Check struct {
	Name string `json:"name"`
	OK   bool   `json:"ok"`
	// Detail is for people: why not, or what there is.
	Detail string `json:"detail,omitempty"`
	// Optional checks are shown but do not decide whether the whole is ready.
	Optional bool `json:"optional,omitempty"`
}

// Admin is what the admin endpoint of a daemon serves.
type Admin struct {
	// Registry is served at /metrics.
	Registry *prometheus.Registry
	// Healthy is asked by /healthz: an error means that the process should be
	// restarted. Nil means that answering is enough.
	Healthy func(ctx context.Context) error
	// Ready is asked by /readyz: whether work should be sent here.
	Ready func(ctx context.Context) []Check
}

// probeLimit is how long a health check may take.
const probeLimit = 5 * time.Second

// Mux serves /healthz, /readyz and /metrics. It asks for no credentials and
// shows no secrets; it belongs on a management address.
func (a Admin) Mux() *http.ServeMux {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), probeLimit)
		defer cancel()
		if a.Healthy != nil {
			if err := a.Healthy(ctx); err != nil {
				http.Error(w, err.Error(), http.StatusServiceUnavailable)
				return
			}
		}
		_, _ = w.Write([]byte("ok\n"))
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), probeLimit)
		defer cancel()
		a.ready(ctx, w)
	})
	if a.Registry != nil {
		mux.Handle("GET /metrics", promhttp.HandlerFor(a.Registry, promhttp.HandlerOpts{MaxRequestsInFlight: 4}))
	}
	return mux
}

func (a Admin) ready(ctx context.Context, w http.ResponseWriter) {
	body := struct {
		Ready  bool    `json:"ready"`
		Checks []Check `json:"checks"`
	}{Ready: true, Checks: []Check{}}
	if a.Ready != nil {
		body.Checks = append(body.Checks, a.Ready(ctx)...)
	}
	for _, c := range body.Checks {
		body.Ready = body.Ready && (c.OK || c.Optional)
	}
	w.Header().Set("Content-Type", "application/json")
	if !body.Ready {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	_ = json.NewEncoder(w).Encode(body)
}

// NewRegistry makes a registry with the process's and the runtime's own metrics.
func NewRegistry() *prometheus.Registry {
	r := prometheus.NewRegistry()
	r.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return r
}

// ServeHTTP serves h on lis until ctx ends, then lets requests in flight end for
// at most grace. It returns when all is over; nil if it ended because of ctx.
func ServeHTTP(ctx context.Context, lis net.Listener, h http.Handler, grace time.Duration) error {
	srv := &http.Server{
		Handler:           h,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       30 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10,
	}
	done := make(chan error, 1)
	go func() { done <- srv.Serve(lis) }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
	}
	end, cancel := context.WithTimeout(context.WithoutCancel(ctx), grace)
	defer cancel()
	if err := srv.Shutdown(end); err != nil {
		_ = srv.Close()
	}
	if err := <-done; !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// CertificateExpiry is a metric of when a certificate ends, so that an alert can
// be ahead of it.
func CertificateExpiry(certificate string, expires func() time.Time) prometheus.Collector {
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "osds_certificate_expires_timestamp_seconds", Help: "When the certificate in use ends, in Unix time.",
		ConstLabels: prometheus.Labels{"certificate": certificate},
	}, func() float64 { return float64(expires().Unix()) })
}

package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/gorilla/mux"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/osds-io/osds/pkg/model"
)

const (
	// readyTimeout bounds what /readyz asks the store.
	readyTimeout = 2 * time.Second
	// readyLag is how long the cache may have heard nothing from the store.
	readyLag = 15 * time.Second
)

// routesHealth registers what machines look at. It needs no tenant.
func (s *Server) routesHealth(r *mux.Router) {
	s.handle(r, "/healthz", methods{http.MethodGet: func(c *call) error {
		return c.JSON(http.StatusOK, map[string]bool{"ok": true})
	}})
	s.handle(r, "/readyz", methods{http.MethodGet: s.readyz})
	s.handle(r, "/metrics", methods{http.MethodGet: s.metricsPage(s.registerMetrics(s.Deps.Metrics))})
}

// readiness is the answer of /readyz.
type readiness struct {
	OK     bool         `json:"ok"`
	Checks []readyCheck `json:"checks"`
}

type readyCheck struct {
	Name   string `json:"name"`
	OK     bool   `json:"ok"`
	Detail string `json:"detail,omitempty"`
}

// readyz says whether requests would be served: the store answers, the cache is
// up to date, and somebody runs the controllers.
func (s *Server) readyz(c *call) error {
	ctx, cancel := context.WithTimeout(c.ctx, readyTimeout)
	defer cancel()
	r := readiness{OK: true}
	add := func(name string, ok bool, detail string) {
		r.Checks = append(r.Checks, readyCheck{name, ok, detail})
		r.OK = r.OK && ok
	}
	perr := s.Store.Ping(ctx)
	if perr != nil {
		add("store", false, "the store did not answer within "+readyTimeout.String()+": "+perr.Error())
	} else {
		add("store", true, "")
	}
	// Where the store is shared with others its revision runs ahead of ours;
	// then it counts that the watch is heard from.
	lag := s.Store.Lag().Round(time.Millisecond)
	fresh := lag < readyLag || perr == nil && s.Store.Sync(ctx) == nil
	add("cache", fresh, fmt.Sprintf("at revision %d, last heard from the store %s ago", s.Store.Rev(), lag))
	if l := s.Leader(); l == nil {
		add("leader", false, "nobody is known to run the controllers")
	} else {
		add("leader", true, fmt.Sprintf("%s at %s, epoch %d", l.Instance, l.Address, l.Epoch))
	}
	status := http.StatusOK
	if !r.OK {
		status = http.StatusServiceUnavailable
	}
	return c.JSON(status, r)
}

// registerMetrics adds what this server and its process have to tell, and gives
// where it is gathered; nil if it is gathered elsewhere.
func (s *Server) registerMetrics(reg prometheus.Registerer) prometheus.Gatherer {
	for _, c := range []prometheus.Collector{
		newStoreCollector(s), collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	} {
		var already prometheus.AlreadyRegisteredError
		if err := reg.Register(c); err != nil && !errors.As(err, &already) {
			s.Log.WithError(err).Error("some metrics are missing")
		}
	}
	g, _ := reg.(prometheus.Gatherer)
	return g
}

// metricsPage shows the metrics to Prometheus.
func (s *Server) metricsPage(g prometheus.Gatherer) handler {
	if g == nil {
		return func(*call) error {
			return model.Errorf(model.KindUnavailable, "metrics are not gathered here")
		}
	}
	h := promhttp.HandlerFor(g, promhttp.HandlerOpts{ErrorLog: s.Log, MaxRequestsInFlight: 4, Timeout: 10 * time.Second})
	return func(c *call) error {
		rec := &recorder{ResponseWriter: c.w}
		h.ServeHTTP(rec, c.r)
		c.status, c.started = rec.status, true
		return nil
	}
}

package api

import (
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// stats are the server's metrics. Children are looked up once per route, method
// and status, not per request.
type stats struct {
	requests *prometheus.CounterVec
	duration *prometheus.HistogramVec
	none     *routeStats // requests that match no route
}

type routeStats struct {
	vec      *prometheus.CounterVec
	labels   [2]string
	duration prometheus.Observer
	mu       sync.RWMutex
	codes    map[int]prometheus.Counter
}

func newStats(reg prometheus.Registerer) *stats {
	s := &stats{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "osds_api_requests_total", Help: "Requests answered, by route, method and status."}, []string{"route", "method", "code"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "osds_api_request_duration_seconds", Help: "Time to answer a request, by route and method.",
			Buckets: []float64{.0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, 1, 5, 30}}, []string{"route", "method"}),
	}
	if reg != nil {
		reg.MustRegister(s.requests, s.duration)
	}
	s.none = s.route("none", "any")
	return s
}

func (s *stats) route(path, method string) *routeStats {
	return &routeStats{vec: s.requests, labels: [2]string{path, method},
		duration: s.duration.WithLabelValues(path, method), codes: map[int]prometheus.Counter{}}
}

func (s *stats) observe(r *routeStats, status int, d time.Duration) {
	if r == nil {
		r = s.none
	}
	r.duration.Observe(d.Seconds())
	r.mu.RLock()
	c, ok := r.codes[status]
	r.mu.RUnlock()
	if !ok {
		c = r.vec.WithLabelValues(r.labels[0], r.labels[1], strconv.Itoa(status))
		r.mu.Lock()
		r.codes[status] = c
		r.mu.Unlock()
	}
	c.Inc()
}

//go:build linux

package main

import (
	"fmt"
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// histogram is how many requests of one route took at most how long, as osdslet
// itself has counted them: cumulative, by upper bound in seconds.
type histogram map[float64]float64

// listDurations reads the histogram of lists of volumes from osdslet's metrics.
// It tells a slow server from a client that had to wait for a processor.
func (s *system) listDurations() (histogram, error) {
	conn := newConn(s.api)
	defer conn.close()
	status, body, err := conn.do(request(nil, http.MethodGet, "/metrics", nil))
	if err != nil {
		return nil, err
	}
	if status != http.StatusOK {
		return nil, unexpected("GET /metrics", status, body)
	}
	return parseHistogram(string(body), "osds_api_request_duration_seconds_bucket", `method="GET"`, `/block/volumes"`)
}

// parseHistogram finds the buckets of a metric whose labels have all the parts.
func parseHistogram(text, metric string, parts ...string) (histogram, error) {
	h := histogram{}
	for line := range strings.Lines(text) {
		labels, ok := strings.CutPrefix(line, metric)
		if !ok || slices.ContainsFunc(parts, func(p string) bool { return !strings.Contains(labels, p) }) {
			continue
		}
		_, rest, _ := strings.Cut(labels, `le="`)
		bound, rest, _ := strings.Cut(rest, `"`)
		_, count, _ := strings.Cut(rest, " ")
		le, err := strconv.ParseFloat(bound, 64) // "+Inf" is one
		if err != nil {
			return nil, fmt.Errorf("metrics: %q: %w", line, err)
		}
		n, err := strconv.ParseFloat(strings.TrimSpace(count), 64)
		if err != nil {
			return nil, fmt.Errorf("metrics: %q: %w", line, err)
		}
		h[le] = n
	}
	if len(h) == 0 {
		return nil, fmt.Errorf("metrics: there is no %s with %v", metric, parts)
	}
	return h, nil
}

// percentile gives the smallest bound that p percent of what came since before
// did not exceed; 0 if nothing came.
func (h histogram) percentile(before histogram, p float64) time.Duration {
	all := h[math.Inf(1)] - before[math.Inf(1)]
	bounds := make([]float64, 0, len(h))
	for le := range h {
		bounds = append(bounds, le)
	}
	slices.Sort(bounds)
	for _, le := range bounds {
		if all > 0 && h[le]-before[le] >= all*p/100 {
			if math.IsInf(le, 1) {
				return time.Duration(math.MaxInt64)
			}
			return time.Duration(le * float64(time.Second))
		}
	}
	return 0
}

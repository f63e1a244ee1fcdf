package dock

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/osds-io/osds/internal/obs"
	"github.com/osds-io/osds/pkg/model"
)

// op is one of the calls of the Dock service.
type op int

const (
	opCreateVolume op = iota
	opDeleteVolume
	opGetVolume
	opListVolumes
	opExpandVolume
	opRevertVolume
	opCreateSnapshot
	opDeleteSnapshot
	opGetSnapshot
	opListSnapshots
	opListImportable
	opImportVolume
	opReleaseVolume
	opExport
	opUnexport
	opListExports
	opAttach
	opDetach
	opResizeDevice
	opListDevices
	numOps
)

// opName is an op in metrics and logs; before and after are its fault points.
var opInfo = [numOps]struct{ name, before, after string }{
	opCreateVolume:   {"createVolume", "dock.createVolume.before", "dock.createVolume.after"},
	opDeleteVolume:   {"deleteVolume", "dock.deleteVolume.before", "dock.deleteVolume.after"},
	opGetVolume:      {"getVolume", "dock.getVolume.before", "dock.getVolume.after"},
	opListVolumes:    {"listVolumes", "dock.listVolumes.before", "dock.listVolumes.after"},
	opExpandVolume:   {"expandVolume", "dock.expandVolume.before", "dock.expandVolume.after"},
	opRevertVolume:   {"revertVolume", "dock.revertVolume.before", "dock.revertVolume.after"},
	opCreateSnapshot: {"createSnapshot", "dock.createSnapshot.before", "dock.createSnapshot.after"},
	opDeleteSnapshot: {"deleteSnapshot", "dock.deleteSnapshot.before", "dock.deleteSnapshot.after"},
	opGetSnapshot:    {"getSnapshot", "dock.getSnapshot.before", "dock.getSnapshot.after"},
	opListSnapshots:  {"listSnapshots", "dock.listSnapshots.before", "dock.listSnapshots.after"},
	opListImportable: {"listImportable", "dock.listImportable.before", "dock.listImportable.after"},
	opImportVolume:   {"importVolume", "dock.importVolume.before", "dock.importVolume.after"},
	opReleaseVolume:  {"releaseVolume", "dock.releaseVolume.before", "dock.releaseVolume.after"},
	opExport:         {"export", "dock.export.before", "dock.export.after"},
	opUnexport:       {"unexport", "dock.unexport.before", "dock.unexport.after"},
	opListExports:    {"listExports", "dock.listExports.before", "dock.listExports.after"},
	opAttach:         {"attach", "dock.attach.before", "dock.attach.after"},
	opDetach:         {"detach", "dock.detach.before", "dock.detach.after"},
	opResizeDevice:   {"resizeDevice", "dock.resizeDevice.before", "dock.resizeDevice.after"},
	opListDevices:    {"listDevices", "dock.listDevices.before", "dock.listDevices.after"},
}

func (o op) String() string { return opInfo[o].name }

// metrics of a dock. The children of each op are looked up once, because a call
// costs only some tens of microseconds.
type metrics struct {
	calls   *prometheus.CounterVec
	ok      [numOps]prometheus.Counter
	seconds [numOps]prometheus.Observer
	flight  prometheus.Gauge
	stale   prometheus.Counter
	stuck   prometheus.Gauge
	backend *prometheus.GaugeVec
	session *prometheus.GaugeVec
	attach  prometheus.Gauge
}

func newMetrics(reg prometheus.Registerer, d *Dock) *metrics {
	m := &metrics{
		calls: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "osds_dock_calls_total",
			Help: "Calls answered, by operation and kind of error (ok if none; inProgress if the same call again goes on with long work)."}, []string{"op", "code"}),
		flight: prometheus.NewGauge(prometheus.GaugeOpts{Name: "osds_dock_calls_in_flight",
			Help: "Calls in progress or waiting."}),
		stale: prometheus.NewCounter(prometheus.CounterOpts{Name: "osds_dock_stale_total",
			Help: "Calls refused because of an older epoch, or overtaken by a later call on the same object."}),
		stuck: prometheus.NewGauge(prometheus.GaugeOpts{Name: "osds_dock_calls_stuck",
			Help: "Calls whose deadline is over and whose driver has not ended."}),
		backend: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "osds_dock_backend_up",
			Help: "1 if the backend is in service."}, []string{"backend", "driver"}),
		session: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "osds_dock_session_up",
			Help: "1 if the dock is registered with the osdslet."}, []string{"osdslet"}),
	}
	m.attach = prometheus.NewGauge(prometheus.GaugeOpts{Name: "osds_dock_connector_up",
		Help: "1 if the connector is in service."})
	seconds := prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "osds_dock_call_seconds",
		Help:    "How long calls took, waiting included.",
		Buckets: prometheus.ExponentialBuckets(0.0005, 4, 10)}, []string{"op"})
	for o := range numOps {
		m.ok[o] = m.calls.WithLabelValues(o.String(), "ok")
		m.seconds[o] = seconds.WithLabelValues(o.String())
	}
	if reg != nil {
		reg.MustRegister(m.calls, seconds, m.flight, m.stale, m.stuck, m.backend, m.session,
			newPoolCollector(d),
			prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "osds_dock_epoch",
				Help: "The highest epoch seen."}, func() float64 { return float64(d.fence.epoch()) }))
	}
	if reg != nil && d.connector != nil {
		reg.MustRegister(m.attach)
	}
	if reg != nil && d.identity != nil {
		reg.MustRegister(obs.CertificateExpiry("tls", d.identity.Expires))
	}
	return m
}

func (m *metrics) done(o op, err error, began time.Time) {
	m.seconds[o].Observe(time.Since(began).Seconds())
	if err == nil {
		m.ok[o].Inc()
		return
	}
	if model.ProgressOf(err) != nil {
		m.calls.WithLabelValues(o.String(), "inProgress").Inc()
		return
	}
	k := model.KindOf(err)
	if k == model.KindStale {
		m.stale.Inc()
	}
	m.calls.WithLabelValues(o.String(), string(k)).Inc()
}

func set(g prometheus.Gauge, on bool) {
	if on {
		g.Set(1)
	} else {
		g.Set(0)
	}
}

package dock

import "time"

// Quick makes everything that waits wait less, for tests.
func Quick(d *Dock) {
	d.care.retryMin, d.care.retryMax, d.care.poolsEvery = time.Millisecond, 5*time.Millisecond, 5*time.Millisecond
	d.care.namesEvery = 5 * time.Millisecond
	d.times.retryMin, d.times.retryMax, d.times.refused = time.Millisecond, 10*time.Millisecond, 10*time.Millisecond
	d.times.beat = 10 * time.Millisecond
}

// Silence sets how long a session may be silent.
func Silence(d *Dock, t time.Duration) { d.times.silence = t }

// OpenLimit sets how long opening a backend may take.
func OpenLimit(d *Dock, t time.Duration) { d.care.openLimit = t }

// Cluster gives the cluster the dock belongs to.
func Cluster(d *Dock) string { return d.state.clusterID() }

// Package cephlab runs a real Ceph on this machine's loopback for as long as a
// test or a benchmark needs it: one monitor, one manager and one OSD on a sparse
// file, every pool with one copy. Nothing of it needs systemd or a container.
//
// The daemons are children of the process that started them. They are ended by
// their ids, and by the kernel if that process dies.
package cephlab

// Package ceph tests osds on a real Ceph cluster of this machine, which it makes
// and ends itself: the conformance suite, volumes from REST to a file system,
// the host's side, and faults. Its tests have the build tag real; those that
// need the driver have the tag ceph too.
package ceph

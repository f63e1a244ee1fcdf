//go:build linux && !ceph

package main

import "context"

// ceph cannot be measured: this program was built without librbd.
func (b *bench) ceph(context.Context) error {
	b.r.head("ceph: skipped: the headers of librbd are not here (librbd-dev, librados-dev), so that this was built without its driver")
	return nil
}

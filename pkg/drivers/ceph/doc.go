// Package ceph is a driver for Ceph RBD: a volume is an image of an RBD pool.
//
// What needs Ceph's libraries is behind the build tag "ceph"; without it the
// package checks configurations and says why it can serve none.
//
// A pool has, of ours:
//
//	opensds-ID          an image; its metadata osds.volume says whose it is
//	opensds-ID@opensds-SNAPSHOT
//	osds.directory      an object whose omap has an entry for each volume,
//	                    snapshot and export
//
// A directory entry is written before the thing it stands for is made, and
// removed when the thing is gone; so everything of ours is found after a crash at
// any point, in pages and in the order of ids. A volume is whole when its image
// has osds.volume with the image's own id, which is set last; a snapshot when its
// image has it. An image that is neither in the directory nor says that it is
// ours is somebody else's, whatever its name, and is never touched.
package ceph

// Package dock is the agent of a storage host: it drives the host's backends for
// whichever osdslet leads, and keeps a session with every osdslet.
//
// A call passes, in this order: the fence (the leader's epoch, kept on disk), the
// lock of its object, a slot of its backend, the fence and the object's order
// once more, the driver. The reply comes no later than the call's deadline; the
// lock and the slot are given back when the driver has really ended, so that
// nothing ever overlaps on one object.
package dock

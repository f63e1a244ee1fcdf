// Package api is the REST server: routes, middleware, list parameters and the
// handlers of every resource.
//
// A change is one transaction: a handler validates, reads the cache, builds the
// new records with their task and commits; the controllers see the task in the
// store's watch and do the work. A handler never calls a controller. What a new
// record depends on is written again ("touched") or guarded in the same
// transaction, so that it cannot be deleted in between.
//
// Each resource has its own file with a routesX method; routes.go calls them.
package api

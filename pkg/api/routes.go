package api

import (
	"context"
	"net/http"
	"sort"
	"strings"

	"github.com/gorilla/mux"

	"github.com/osds-io/osds/pkg/model"
	"github.com/osds-io/osds/pkg/model/wire"
)

// tenantPrefix stands before every path that belongs to a tenant.
const tenantPrefix = "/" + wire.APIVersion + "/{tenantId}"

// routes registers every resource. mux tries routes in this order, so what is
// asked for most stands first, and what would match anything last.
func (s *Server) routes(r *mux.Router) {
	s.routesVolumes(r)
	s.routesAttachments(r)
	s.routesSnapshots(r)
	s.routesDocks(r)
	s.routesProfiles(r)
	s.routesHosts(r)
	s.routesGroups(r)
	s.routesWork(r)
	s.routesVersions(r)
}

// handler serves one method of one path. An error that it returns is the answer.
type handler func(c *call) error

// methods are the handlers of one path, by method.
type methods map[string]handler

// endpoint is one path: what mux finds.
type endpoint struct {
	s        *Server
	path     string
	tenant   bool
	stream   bool // no deadline
	handlers methods
	allow    string
	stats    map[string]*routeStats
}

// Route is one method of one path template.
type Route struct{ Method, Path string }

// Routes lists what the server serves, for comparison with its description.
func (s *Server) Routes() []Route {
	var out []Route
	for _, e := range s.endpoints {
		for m := range e.handlers {
			out = append(out, Route{m, e.path})
		}
	}
	sort.Slice(out, func(i, j int) bool {
		return out[i].Path < out[j].Path || (out[i].Path == out[j].Path && out[i].Method < out[j].Method)
	})
	return out
}

// handle registers a path that belongs to no tenant.
func (s *Server) handle(r *mux.Router, path string, m methods) *endpoint {
	e := &endpoint{s: s, path: path, handlers: m, stats: map[string]*routeStats{}}
	var names []string
	for name := range m {
		names = append(names, name)
		e.stats[name] = s.stats.route(path, name)
	}
	sort.Strings(names)
	e.allow = strings.Join(names, ", ")
	s.endpoints = append(s.endpoints, e)
	r.Handle(path, e)
	return e
}

// tenantHandle registers a path below a tenant: path is what follows the tenant.
func (s *Server) tenantHandle(r *mux.Router, path string, m methods) *endpoint {
	e := s.handle(r, tenantPrefix+path, m)
	e.tenant = true
	return e
}

// ServeHTTP is never called: Server.ServeHTTP calls serve.
func (e *endpoint) ServeHTTP(w http.ResponseWriter, r *http.Request) { e.s.ServeHTTP(w, r) }

// serve finds the method's handler, who asks, and runs it under a deadline.
func (e *endpoint) serve(c *call) {
	h, ok := e.handlers[c.r.Method]
	if !ok {
		c.w.Header().Set("Allow", e.allow)
		c.fail(&model.Error{Kind: model.KindUnsupported, Status: http.StatusMethodNotAllowed,
			Message: "method " + shorten(c.r.Method) + " is not possible here: use " + e.allow})
		return
	}
	c.stats = e.stats[c.r.Method]
	if !e.stream {
		ctx, cancel := context.WithTimeout(c.ctx, e.s.RequestTimeout)
		defer cancel()
		c.ctx = ctx
	}
	if err := c.begin(e); err != nil {
		c.fail(err)
		return
	}
	if err := h(c); err != nil {
		c.fail(err)
	}
}

package api

import (
	"github.com/gorilla/mux"
)

// routesWork registers what shows and steers the work behind the records, and
// what operators look at.
func (s *Server) routesWork(r *mux.Router) {
	s.routesEvents(r)
	s.routesTasks(r)
	s.routesOperations(r)
	s.routesHealth(r)
	s.routesOpenAPI(r)
}

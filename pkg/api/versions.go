package api

import (
	"net/http"

	"github.com/gorilla/mux"

	"github.com/osds-io/osds/pkg/model"
	"github.com/osds-io/osds/pkg/model/wire"
)

// routesVersions stands last: /{apiVersion} matches any single name.
func (s *Server) routesVersions(r *mux.Router) {
	s.handle(r, "/", methods{http.MethodGet: s.listVersions})
	s.handle(r, "/{apiVersion}", methods{http.MethodGet: s.getVersion})
}

func (s *Server) listVersions(c *call) error { return c.JSON(http.StatusOK, wire.Versions()) }

func (s *Server) getVersion(c *call) error {
	name := c.vars["apiVersion"]
	for _, v := range wire.Versions() {
		if v.Name == name {
			return c.JSON(http.StatusOK, v)
		}
	}
	return model.Errorf(model.KindNotFound, "can't find the version: %s", shorten(name))
}

package api

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"net/http"
	"sync"

	"github.com/gorilla/mux"
	"go.yaml.in/yaml/v3"

	"github.com/osds-io/osds/pkg/model"
)

// openAPI is the description of the whole API. A test compares it with the
// routes, and package apicheck holds every answer against it.
//
//go:embed openapi.yaml
var openAPI []byte

// OpenAPI gives the API's description, as YAML.
func OpenAPI() []byte { return openAPI }

// openAPIJSON converts the description on first use: most servers are never
// asked for it.
var openAPIJSON = sync.OnceValues(func() ([]byte, error) {
	var doc map[string]any
	if err := yaml.Unmarshal(openAPI, &doc); err != nil {
		return nil, fmt.Errorf("openapi.yaml: %w", err)
	}
	return json.Marshal(doc)
})

func (s *Server) routesOpenAPI(r *mux.Router) {
	s.handle(r, "/openapi.json", methods{http.MethodGet: func(c *call) error {
		b, err := openAPIJSON()
		if err != nil {
			return model.Errorf(model.KindInternal, "the API's description cannot be converted: %w", err)
		}
		c.send(http.StatusOK, contentJSON, b)
		return nil
	}})
	s.handle(r, "/openapi.yaml", methods{http.MethodGet: func(c *call) error {
		c.send(http.StatusOK, "application/yaml", openAPI)
		return nil
	}})
}

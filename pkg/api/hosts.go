package api

import (
	"net/http"
	"strings"

	"github.com/gorilla/mux"

	"github.com/osds-io/osds/pkg/db"
	"github.com/osds-io/osds/pkg/model"
	"github.com/osds-io/osds/pkg/model/wire"
)

func (s *Server) routesHosts(r *mux.Router) {
	s.tenantHandle(r, "/host/hosts", methods{http.MethodGet: s.listHosts, http.MethodPost: s.createHost})
	s.tenantHandle(r, "/host/hosts/{hostId}", methods{
		http.MethodGet: s.getHost, http.MethodPut: s.updateHost, http.MethodDelete: s.deleteHost,
	})
}

var hostShape = shapeOf(wire.HostSpec{})

func showHost(h *model.Host) any { return wire.FromHost(h) }

// host gives the host that the path names.
func (c *call) host() (*model.Host, error) {
	id := c.pathID("hostId")
	h, ok := c.store().Hosts.GetOf(c.scope(), id)
	if !ok {
		return nil, notFound("host", id, "specified host("+shorten(id)+") can't find")
	}
	return h, nil
}

func (s *Server) listHosts(c *call) error { return list(c, s.Store.Hosts, showHost) }

func (s *Server) getHost(c *call) error {
	h, err := c.host()
	if err != nil {
		return err
	}
	return c.Record(http.StatusOK, h.Rev, wire.FromHost(h))
}

func hostNameKey(h *model.Host) string {
	return db.NameKey(model.ResHost, h.TenantID, h.HostName)
}

// hostNameFree refuses a name that another host of the tenant has.
func (s *Server) hostNameFree(h *model.Host) error {
	for _, x := range s.Store.Hosts.Where("hostName", h.HostName, 0) {
		if x.TenantID == h.TenantID && x.ID != h.ID {
			return &model.Error{Kind: model.KindExists, Status: http.StatusBadRequest, Field: "hostName",
				Message: "the host with name " + h.HostName + " already exists in the system"}
		}
	}
	return nil
}

// toInitiators reads initiators; protocols are kept in lower case.
func toInitiators(in []wire.Initiator) []model.Initiator {
	out := make([]model.Initiator, len(in))
	for i, x := range in {
		out[i] = model.Initiator{PortName: x.PortName, Protocol: strings.ToLower(x.Protocol)}
	}
	return out
}

func (s *Server) createHost(c *call) error {
	var spec wire.HostSpec
	if err := c.decode("host", &spec); err != nil {
		return err
	}
	id, err := c.newID(spec.ID)
	if err != nil {
		return err
	}
	return c.change("api.host.create", func(t *db.Txn) (*answer, error) {
		h := &model.Host{
			Meta:     model.Meta{ID: id, TenantID: c.tenant, UserID: c.user, CreatedAt: s.now()},
			HostName: spec.HostName, OSType: strings.ToLower(spec.OSType), AccessMode: strings.ToLower(spec.AccessMode),
			IP: spec.IP, Port: spec.Port, Username: spec.Username,
			AvailabilityZones: spec.AvailabilityZones, Initiators: toInitiators(spec.Initiators),
		}
		if err := model.ValidateHost(h); err != nil {
			return nil, err
		}
		if err := idIsFree(s.Store.Hosts, "host", id); err != nil {
			return nil, err
		}
		if err := s.hostNameFree(h); err != nil {
			return nil, err
		}
		t.Create(h).If(hostNameKey(h), db.Absent).PutRaw(hostNameKey(h), []byte(id), 0)
		return done(wire.FromHost(h)), nil
	})
}

// takeHost takes a host's fields out of a PUT. A list replaces the one before.
func (p *patch) takeHost(h *model.Host) error {
	for _, f := range []struct {
		name string
		to   any
	}{
		{"hostName", &h.HostName}, {"osType", &h.OSType}, {"accessMode", &h.AccessMode}, {"ip", &h.IP}, {"port", &h.Port}, {"username", &h.Username},
	} {
		if _, err := p.take(f.name, f.to); err != nil {
			return err
		}
	}
	var zones []string
	ok, err := p.take("availabilityZones", &zones)
	if err != nil {
		return err
	}
	if ok {
		h.AvailabilityZones = zones
	}
	var ini []wire.Initiator
	if ok, err = p.take("initiators", &ini); err != nil {
		return err
	}
	if ok {
		h.Initiators = toInitiators(ini)
	}
	h.OSType, h.AccessMode = strings.ToLower(h.OSType), strings.ToLower(h.AccessMode)
	return nil
}

func (s *Server) updateHost(c *call) error {
	release, err := c.hold(c.pathID("hostId"))
	if err != nil {
		return err
	}
	defer release()
	return c.change("api.host.update", func(t *db.Txn) (*answer, error) {
		old, err := c.host()
		if err != nil {
			return nil, err
		}
		if err := c.ifMatch(old.Rev); err != nil {
			return nil, err
		}
		in, err := c.patch("host", hostShape)
		if err != nil {
			return nil, err
		}
		h := old.Clone()
		if err := in.takeHost(h); err != nil {
			return nil, err
		}
		if err := model.ValidateHost(h); err != nil {
			return nil, err
		}
		if err := in.rest(wire.FromHost(old)); err != nil {
			return nil, err
		}
		if h.HostName != old.HostName {
			if err := s.hostNameFree(h); err != nil {
				return nil, err
			}
			t.If(hostNameKey(h), db.Absent).PutRaw(hostNameKey(h), []byte(h.ID), 0)
			t.DeleteRaw(hostNameKey(old))
		}
		h.UpdatedAt = s.now()
		t.Update(h)
		return done(wire.FromHost(h)), nil
	})
}

// deleteHost removes a host. Creating an attachment writes its host again, so
// the guard on the host's revision says that none came in between.
func (s *Server) deleteHost(c *call) error {
	release, err := c.hold(c.pathID("hostId"))
	if err != nil {
		return err
	}
	defer release()
	return c.change("api.host.delete", func(t *db.Txn) (*answer, error) {
		h, err := c.host()
		if err != nil {
			return nil, err
		}
		if err := c.ifMatch(h.Rev); err != nil {
			return nil, err
		}
		if s.Store.Attachments.Count("hostId", h.ID) > 0 {
			return nil, model.Errorf(model.KindBusy, "some volumes are attached to host: %s, please detach them first", h.HostName)
		}
		t.Remove(h).DeleteRaw(hostNameKey(h))
		return &answer{status: http.StatusOK}, nil
	})
}

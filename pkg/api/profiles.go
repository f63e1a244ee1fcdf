package api

import (
	"context"
	"net/http"
	"strings"
	"time"

	"github.com/gorilla/mux"

	"github.com/osds-io/osds/pkg/controller/selector"
	"github.com/osds-io/osds/pkg/db"
	"github.com/osds-io/osds/pkg/model"
	"github.com/osds-io/osds/pkg/model/wire"
)

func (s *Server) routesProfiles(r *mux.Router) {
	s.tenantHandle(r, "/profiles", methods{http.MethodGet: s.listProfiles, http.MethodPost: s.createProfile})
	s.tenantHandle(r, "/profiles/{profileId}", methods{
		http.MethodGet: s.getProfile, http.MethodPut: s.updateProfile, http.MethodDelete: s.deleteProfile,
	})
	s.tenantHandle(r, "/profiles/{profileId}/customProperties", methods{
		http.MethodGet: s.getCustomProperties, http.MethodPost: s.addCustomProperties,
	})
	s.tenantHandle(r, "/profiles/{profileId}/customProperties/{customKey}", methods{http.MethodDelete: s.removeCustomProperty})
}

var profileShape = shapeOf(wire.ProfileSpec{})

func showProfile(p *model.Profile) any { return wire.FromProfile(p) }

// profile gives the profile that the path names.
func (c *call) profile() (*model.Profile, error) {
	id := c.pathID("profileId")
	p, ok := c.store().Profiles.Get(id)
	if !ok {
		return nil, notFound("profile", id, "Wrong resource uuid provided!")
	}
	return p, nil
}

func (s *Server) listProfiles(c *call) error { return list(c, s.Store.Profiles, showProfile) }

func (s *Server) getProfile(c *call) error {
	p, err := c.profile()
	if err != nil {
		return err
	}
	return c.Record(http.StatusOK, p.Rev, wire.FromProfile(p))
}

func (s *Server) createProfile(c *call) error {
	var spec wire.ProfileSpec
	if err := c.decode("profile", &spec); err != nil {
		return err
	}
	id, err := c.newID(spec.ID)
	if err != nil {
		return err
	}
	return c.change("api.profile.create", func(t *db.Txn) (*answer, error) {
		p, err := wire.ToProfile(&spec)
		if err == nil {
			err = selector.ValidateProfile(p)
		}
		if err != nil {
			return nil, prefixed("parse profile request body failed: ", err)
		}
		p.ID, p.CreatedAt = id, s.now()
		if err := idIsFree(s.Store.Profiles, "profile", id); err != nil {
			return nil, err
		}
		if err := s.profileNameFree(p.Name, ""); err != nil {
			return nil, prefixed("create profile failed: ", err)
		}
		t.Create(p)
		t.If(profileName(p.Name), db.Absent).PutRaw(profileName(p.Name), []byte(id), 0)
		return done(wire.FromProfile(p)), nil
	})
}

func profileName(name string) string { return db.NameKey(model.ResProfile, "", name) }

// profileNameFree refuses a name that another profile has.
func (s *Server) profileNameFree(name, own string) error {
	for _, p := range s.Store.Profiles.Where("name", name, 2) {
		if p.ID != own {
			e := model.Invalid("name", "the profile name '%s' already exists", name)
			e.Kind, e.Status = model.KindExists, http.StatusBadRequest
			return e
		}
	}
	return nil
}

// updateProfile changes name, description and customProperties: all that the
// original does. customProperties are merged key by key; null removes a key.
func (s *Server) updateProfile(c *call) error {
	return c.change("api.profile.update", func(t *db.Txn) (*answer, error) {
		old, err := c.profile()
		if err != nil {
			return nil, err
		}
		if err := c.ifMatch(old.Rev); err != nil {
			return nil, err
		}
		in, err := c.patch("profile", profileShape)
		if err != nil {
			return nil, err
		}
		p, err := s.unmarked(old)
		if err != nil {
			return nil, err
		}
		if err := in.nameAndDescription(&p.Meta, func(n string) error { return model.ValidateName("name", n, true) }); err != nil {
			return nil, err
		}
		var custom map[string]any
		if _, err := in.take("customProperties", &custom); err != nil {
			return nil, err
		}
		mergeCustom(p, custom)
		if err := model.ValidateProfile(p); err != nil {
			return nil, err
		}
		if err := selector.ValidateProfile(p); err != nil {
			return nil, prefixed("update profile failed: ", err)
		}
		if err := in.rest(wire.FromProfile(old)); err != nil {
			return nil, err
		}
		if p.Name != old.Name {
			if err := s.profileNameFree(p.Name, p.ID); err != nil {
				return nil, prefixed("update profile failed: ", err)
			}
			t.If(profileName(p.Name), db.Absent).PutRaw(profileName(p.Name), []byte(p.ID), 0)
			t.DeleteRaw(profileName(old.Name))
		}
		p.UpdatedAt = s.now()
		t.Update(p)
		return done(wire.FromProfile(p)), nil
	})
}

// unmarked gives a copy of a profile to change. One that is being deleted is not
// changed, unless nobody goes on with the deletion.
func (s *Server) unmarked(p *model.Profile) (*model.Profile, error) {
	if p.Deleting && s.now().Sub(p.UpdatedAt) <= abandoned {
		return nil, model.Errorf(model.KindBusy, "profile %s is being deleted", p.ID)
	}
	c := p.Clone()
	c.Deleting = false
	return c, nil
}

func mergeCustom(p *model.Profile, custom map[string]any) {
	if p.Custom == nil && len(custom) > 0 {
		p.Custom = map[string]any{}
	}
	for k, v := range custom {
		if v == nil {
			delete(p.Custom, k)
			continue
		}
		p.Custom[k] = v
	}
}

func custom(p *model.Profile) map[string]any {
	if p.Custom == nil {
		return map[string]any{}
	}
	return p.Custom
}

func (s *Server) getCustomProperties(c *call) error {
	p, err := c.profile()
	if err != nil {
		return err
	}
	return c.Record(http.StatusOK, p.Rev, custom(p))
}

// addCustomProperties merges entries into customProperties and gives them all.
func (s *Server) addCustomProperties(c *call) error {
	var add map[string]any
	if err := c.decode("custom property", &add); err != nil {
		return err
	}
	return c.changeCustom("api.profile.custom.add", func(p *model.Profile) (*answer, error) {
		mergeCustom(p, add)
		if err := model.ValidateCustom("customProperties", p.Custom); err != nil {
			return nil, prefixed("add custom property failed: ", err)
		}
		if err := selector.ValidateProfile(p); err != nil {
			return nil, prefixed("add custom property failed: ", err)
		}
		return done(custom(p)), nil
	})
}

func (s *Server) removeCustomProperty(c *call) error {
	key := c.vars["customKey"]
	return c.changeCustom("api.profile.custom.remove", func(p *model.Profile) (*answer, error) {
		if _, ok := p.Custom[key]; !ok {
			return nil, &model.Error{Kind: model.KindNotFound, Field: "customKey",
				Message: "profile " + p.ID + " has no custom property " + shorten(key)}
		}
		delete(p.Custom, key)
		return &answer{status: http.StatusOK}, nil
	})
}

// changeCustom changes a profile's customProperties.
func (c *call) changeCustom(label string, f func(p *model.Profile) (*answer, error)) error {
	return c.change(label, func(t *db.Txn) (*answer, error) {
		old, err := c.profile()
		if err != nil {
			return nil, err
		}
		if err := c.ifMatch(old.Rev); err != nil {
			return nil, err
		}
		p, err := c.s.unmarked(old)
		if err != nil {
			return nil, err
		}
		a, err := f(p)
		if err != nil {
			return nil, err
		}
		p.UpdatedAt = c.s.now()
		t.Update(p)
		return a, nil
	})
}

// abandoned is how old the mark of a profile's deletion must be before others
// may take it away: whoever set it died.
const abandoned = 2 * time.Minute

// deleteProfile first marks the profile, so that nothing new can depend on it,
// and then counts who does. Volume creates guard on the profile's revision
// instead of writing it, so that they do not collide with each other: after the
// mark, each of them is either in the cache or refused.
func (s *Server) deleteProfile(c *call) error {
	release, err := c.hold(c.pathID("profileId"))
	if err != nil {
		return err
	}
	defer release()
	var marked *model.Profile
	err = c.change("api.profile.delete", func(t *db.Txn) (*answer, error) {
		p, err := c.profile()
		if err != nil {
			return nil, err
		}
		if marked == nil { // the mark itself changes the revision
			if err := c.ifMatch(p.Rev); err != nil {
				return nil, err
			}
		}
		if err := s.dependants(p); err != nil { // most are refused here, unmarked
			return nil, err
		}
		if p, err = s.markDeleting(c.ctx, p, true); err != nil {
			return nil, err
		}
		marked = p
		if err := s.dependants(p); err != nil {
			return nil, err
		}
		t.Remove(p).DeleteRaw(profileName(p.Name))
		return &answer{status: http.StatusOK}, nil
	})
	if err != nil && marked != nil {
		s.unmark(c.ctx, marked)
	}
	return err
}

// unmark takes the mark away again after a deletion that came to nothing, even
// if the client has gone. Where it cannot, creates do it later.
func (s *Server) unmark(ctx context.Context, p *model.Profile) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	if _, err := s.markDeleting(ctx, p, false); err != nil && !model.IsKind(err, model.KindConflict) {
		s.Log.WithError(err).Warnf("profile %s stays marked as being deleted for %s", p.ID, abandoned)
	}
}

// markDeleting sets or clears the mark and gives the profile as written. A
// conflict is given as it is, for db.Store.Retry.
func (s *Server) markDeleting(ctx context.Context, p *model.Profile, on bool) (*model.Profile, error) {
	m := p.Clone()
	m.Deleting, m.UpdatedAt = on, s.now()
	rev, err := s.Store.Commit(ctx, (&db.Txn{Label: "api.profile.mark"}).Update(m))
	if err != nil {
		return nil, err
	}
	if err := s.Store.WaitRev(ctx, rev); err != nil {
		return nil, err
	}
	out := *m
	out.Rev = rev
	return &out, nil
}

// dependants refuses the deletion of a profile that others name, with the
// original's text for volumes.
func (s *Server) dependants(p *model.Profile) error {
	const show = 10
	refuse := func(what string, names []string, n int) error {
		more := ""
		if n > len(names) {
			more = " ..."
		}
		return model.Errorf(model.KindBusy, "There are dependent %s : [%s%s] for the specified profile %s", what, strings.Join(names, " "), more, p.ID)
	}
	if n := s.Store.Volumes.Count("profileId", p.ID); n > 0 {
		var names []string
		for _, v := range s.Store.Volumes.Where("profileId", p.ID, show) {
			names = append(names, v.Name)
		}
		return refuse("volumes", names, n)
	}
	snaps := s.Store.Snapshots.List(db.Query{Filters: []db.Filter{{Field: "profileId", Values: []string{p.ID}}}, Limit: show})
	if len(snaps.Items) > 0 {
		var names []string
		for _, x := range snaps.Items {
			names = append(names, x.ID)
		}
		return refuse("snapshots", names, max(snaps.Total, len(names)))
	}
	for _, g := range s.Store.Groups.All() {
		for _, id := range g.Profiles {
			if id == p.ID {
				return refuse("volume groups", []string{g.ID}, 1)
			}
		}
	}
	return nil
}

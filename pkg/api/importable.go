package api

import (
	"context"
	"net/http"
	"net/url"

	"github.com/osds-io/osds/pkg/db"
	"github.com/osds-io/osds/pkg/model"
	"github.com/osds-io/osds/pkg/model/wire"
)

// Finder finds what could be imported.
type Finder interface {
	Importable(ctx context.Context, poolID, after string, limit int) ([]*wire.ImportableSpec, error)
}

// maxImportable bounds a page; a dock gives no more at once.
const maxImportable = 1000

// listImportable lists what a pool has that osds has not made, by name. It is
// asked of the backend each time.
func (s *Server) listImportable(c *call) error {
	if s.Finder == nil {
		return model.Errorf(model.KindUnavailable, "this server cannot ask docks")
	}
	id := c.pathID("poolId")
	if _, ok := s.Store.Pools.Get(id); !ok {
		return notFound("pool", id, "specified pool("+shorten(id)+") can't find")
	}
	v, err := url.ParseQuery(c.r.URL.RawQuery)
	if err != nil {
		return model.Errorf(model.KindInvalid, "the query string is not well-formed: %w", err)
	}
	limit, err := number(v, "limit", defaultLimit)
	if err != nil {
		return err
	}
	limit = max(1, min(limit, maxImportable))
	hash := hashQuery(&db.Query{Sort: "importable", Filters: []db.Filter{{Field: "poolId", Values: []string{id}}}})
	after := ""
	if m := v.Get("marker"); m != "" {
		at, err := parseMarker(m, hash)
		if err != nil {
			return err
		}
		after = at.ID
	}
	list, err := s.Finder.Importable(c.ctx, id, after, limit)
	if err != nil {
		return err
	}
	if len(list) == limit {
		c.w.Header()[wire.HeaderNextMarker] = []string{marker{db.Cursor{ID: list[limit-1].Name}, hash}.String()}
	}
	return c.JSON(http.StatusOK, list)
}

// importedVolume checks and completes a request for a volume that is to be taken
// over from its backend. Whoever may name one sees its data, so that it is for
// administrators, who may say which tenant it is to belong to.
func (c *call) importedVolume(spec *wire.VolumeSpec, v *model.Volume) error {
	if !c.admin {
		return &model.Error{Kind: model.KindDenied, Field: "existing", Message: "the import of volumes is for administrators"}
	}
	if err := checkExisting(spec); err != nil {
		return err
	}
	p, ok := c.store().Pools.Get(spec.PoolID)
	switch {
	case !ok:
		return model.Invalid("poolId", "specified pool(%s) can't find", shorten(spec.PoolID))
	case !p.Can(model.AbilityImport):
		return &model.Error{Kind: model.KindUnsupported, Field: "poolId", Message: "pool " + p.Name + " cannot import volumes"}
	case v.MultiAttach && !p.MultiAttach:
		return model.Invalid("multiAttach", "pool %s does not let several hosts attach a volume", p.Name)
	}
	if spec.TenantID != "" {
		if !model.ValidTenant(spec.TenantID) {
			return model.Invalid("tenantId", "tenant id %q is not valid: use 1 to 64 letters, digits, '-' and '_'", shorten(spec.TenantID))
		}
		v.TenantID = spec.TenantID
	}
	v.Existing = spec.Existing
	return nil
}

// checkExisting checks what needs nothing else.
func checkExisting(spec *wire.VolumeSpec) error {
	switch {
	case len(spec.Existing) > 255 || model.ValidateDescription(spec.Existing) != nil:
		return model.Invalid("existing", "existing is not a name that a backend gives: at most 255 bytes without control characters")
	case spec.PoolID == "":
		return model.Invalid("poolId", "poolId must name the pool that the existing volume is in")
	case spec.Size != 0:
		return model.Invalid("size", "size must be left out: an imported volume has the size that it has")
	case spec.SnapshotID != "" || spec.SourceVolumeID != "":
		return model.Invalid("existing", "existing cannot be given with snapshotId or sourceVolumeId")
	case spec.GroupID != "":
		return model.Invalid("groupId", "an imported volume joins a group after its import: leave groupId out")
	}
	return nil
}

// released reads the query of a volume's deletion: true means that its data stays.
func (c *call) released(v *model.Volume) (bool, error) {
	if yes, err := c.flag("release"); err != nil || !yes {
		return false, err
	}
	if !c.admin {
		return false, &model.Error{Kind: model.KindDenied, Field: "release", Message: "giving a volume back to its backend is for administrators"}
	}
	if v.PoolID == "" {
		return true, nil // nothing is on a backend
	}
	p, err := c.poolOf(v)
	switch {
	case err != nil:
		return false, err
	case !p.Can(model.AbilityImport):
		return false, &model.Error{Kind: model.KindUnsupported, Field: "release", Message: "pool " + p.Name + " cannot give volumes back"}
	case v.Status != model.StatusAvailable && v.Status != model.StatusErrorDeleting:
		return false, model.Errorf(model.KindBusy, "volume %s is %s: only one that is available can be given back", v.ID, v.Status)
	}
	return true, nil
}

package dock

import (
	"context"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/osds-io/osds/pkg/dock/dockpb"
	"github.com/osds-io/osds/pkg/drivers"
	"github.com/osds-io/osds/pkg/model"
)

// maxName bounds a backend's own name of a volume.
const maxName = 255

// checkBackendName refuses what cannot be a backend's name of a volume; the driver
// knows more.
func checkBackendName(field, s string) error {
	if len(s) > maxName || !utf8.ValidString(s) || strings.ContainsFunc(s, unicode.IsControl) {
		return model.Invalid(field, "%s: %.64q is not a name: at most %d bytes without control characters", field, s, maxName)
	}
	return nil
}

// ListImportable lists what a pool has that osds has not made.
func (s *server) ListImportable(ctx context.Context, r *dockpb.ListImportableRequest) (*dockpb.ImportableList, error) {
	c := call{op: opListImportable, by: r.GetCall(), backend: r.GetBackend()}
	if err := checkBackendName("after", r.GetAfter()); err != nil {
		return nil, refuse(err)
	}
	p := drivers.Page{After: r.GetAfter(), Limit: int(r.GetLimit())}
	if p.Limit <= 0 || p.Limit > maxPage {
		p.Limit = maxPage
	}
	return run(ctx, s.d, c, func(ctx context.Context, drv drivers.Driver) (*dockpb.ImportableList, error) {
		im, err := ability[drivers.Importer](drv, c, "import volumes")
		if err != nil {
			return nil, err
		}
		list, err := im.ListImportable(ctx, r.GetPool(), p)
		if err == nil {
			err = tooMany(c, len(list), p)
		}
		if err != nil {
			return nil, err
		}
		out := &dockpb.ImportableList{Volumes: make([]*dockpb.Importable, 0, len(list))}
		for _, v := range list {
			out.Volumes = append(out.Volumes, dockpb.FromImportable(v))
		}
		return out, nil
	})
}

// ImportVolume makes an existing volume one of ours.
func (s *server) ImportVolume(ctx context.Context, r *dockpb.ImportVolumeRequest) (*dockpb.Volume, error) {
	c, err := objectCall(opImportVolume, r.GetCall(), r.GetRef(), volumeKey(r.GetRef().GetId()))
	if err == nil {
		err = checkBackendName("existing", r.GetExisting())
	}
	if err == nil && r.GetExisting() == "" {
		err = model.Invalid("existing", "existing: must name the backend's volume")
	}
	if err != nil {
		return nil, refuse(err)
	}
	in := drivers.ImportVolume{ID: r.GetRef().GetId(), Pool: r.GetRef().GetPool(), Existing: r.GetExisting(),
		TenantID: r.GetTenantId(), ClusterID: s.d.clusterFor(r.GetCall())}
	return run(ctx, s.d, c, func(ctx context.Context, drv drivers.Driver) (*dockpb.Volume, error) {
		im, err := ability[drivers.Importer](drv, c, "import volumes")
		if err != nil {
			return nil, err
		}
		v, err := im.ImportVolume(ctx, in)
		if err != nil {
			return nil, err
		}
		return dockpb.FromVolume(c.backend, v), nil
	})
}

// ReleaseVolume gives a volume back to its backend, with its data.
func (s *server) ReleaseVolume(ctx context.Context, r *dockpb.ObjectRequest) (*dockpb.Empty, error) {
	c, err := objectCall(opReleaseVolume, r.GetCall(), r.GetRef(), volumeKey(r.GetRef().GetId()))
	if err != nil {
		return nil, refuse(err)
	}
	return run(ctx, s.d, c, func(ctx context.Context, drv drivers.Driver) (*dockpb.Empty, error) {
		im, err := ability[drivers.Importer](drv, c, "import volumes")
		if err != nil {
			return nil, err
		}
		return &dockpb.Empty{}, im.ReleaseVolume(ctx, dockpb.ToVolumeRef(r.GetRef()))
	})
}

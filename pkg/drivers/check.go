package drivers

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/osds-io/osds/pkg/model"
)

// This file has what every driver must check before it touches its backend:
// identifiers become file names, LV names, image names. The checks are pure.

// MaxSize is the largest volume a driver is asked for.
const MaxSize = model.MaxVolumeGB * model.GiB

// MaxPage is what Bound makes of a page without a limit.
const MaxPage = 1000

// CheckID says whether an id may stand in names at the backend. field is what
// the error names.
func CheckID(field, id string) error {
	if !model.ValidID(id) {
		return model.Invalid(field, "%s %q is not an id: 1 to 128 letters, digits, '.', '_' and '-', the first a letter or a digit", field, clip(id))
	}
	return nil
}

// CheckSize says whether a size can be asked for.
func CheckSize(field string, n model.Bytes) error {
	if n <= 0 {
		return model.Invalid(field, "%s must be greater than 0, not %d bytes", field, int64(n))
	}
	if n > MaxSize {
		return model.Invalid(field, "%s must not be greater than %d GB", field, int64(model.MaxVolumeGB))
	}
	return nil
}

// checkLabel bounds what goes into tags and descriptions.
func checkLabel(field, s string) error {
	if len(s) > 255 || !utf8.ValidString(s) || strings.IndexFunc(s, unicode.IsControl) >= 0 {
		return model.Invalid(field, "%s %q must be at most 255 bytes without control characters", field, clip(s))
	}
	return nil
}

func clip(s string) string {
	if len(s) > 64 {
		return s[:64] + "..."
	}
	return s
}

// checkTenant says whether a tenant id may stand in a tag; empty is allowed.
func checkTenant(s string) error {
	if s != "" && !model.ValidTenant(s) {
		return model.Invalid("tenantId", "tenantId %q is not a tenant id", clip(s))
	}
	return nil
}

func first(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// Check says whether the reference can name a volume.
func (r VolumeRef) Check() error {
	return first(CheckID("volumeId", r.ID), checkLabel("pool", r.Pool))
}

// Check says whether the reference can name a snapshot.
func (r SnapshotRef) Check() error {
	err := first(CheckID("snapshotId", r.ID), checkLabel("pool", r.Pool))
	if err == nil && r.VolumeID != "" {
		err = CheckID("volumeId", r.VolumeID)
	}
	return err
}

// Check says whether a volume can be made from the request: ids, names, size,
// and a source that is one of the two and not larger than what is made of it.
func (r CreateVolume) Check() error {
	err := first(CheckID("volumeId", r.ID), checkLabel("name", r.Name), checkLabel("pool", r.Pool),
		CheckSize("size", r.Size), checkTenant(r.TenantID), checkLabel("clusterId", r.ClusterID))
	if err != nil || r.Source == nil {
		return err
	}
	s := r.Source
	switch {
	case (s.Snapshot == nil) == (s.Volume == nil):
		return model.Invalid("source", "a source is either a snapshot or a volume")
	case s.Size > r.Size:
		return model.Invalid("size", "size %s is less than the source's, %s", r.Size, s.Size)
	case s.Snapshot != nil:
		return s.Snapshot.Check()
	case s.Volume.ID == r.ID:
		return model.Invalid("source", "a volume cannot be cloned from itself")
	}
	return s.Volume.Check()
}

// Check says whether a snapshot can be made from the request.
func (r CreateSnapshot) Check() error {
	return first(CheckID("snapshotId", r.ID), checkLabel("name", r.Name), r.Volume.Check(),
		checkTenant(r.TenantID), checkLabel("clusterId", r.ClusterID))
}

// MaxGroup is how many volumes a group snapshot may have.
const MaxGroup = 256

// Check says whether a group snapshot can be made from the request.
func (r CreateGroupSnapshot) Check() error {
	err := first(CheckID("groupSnapshotId", r.ID), CheckID("groupId", r.GroupID), checkLabel("name", r.Name), checkLabel("pool", r.Pool),
		checkTenant(r.TenantID), checkLabel("clusterId", r.ClusterID))
	if err != nil {
		return err
	}
	if n := len(r.Volumes); n == 0 || n > MaxGroup {
		return model.Invalid("volumes", "a group snapshot is of 1 to %d volumes, not of %d", MaxGroup, n)
	}
	seen := map[string]bool{}
	for _, v := range r.Volumes {
		switch err := v.Check(); {
		case err != nil:
			return err
		case seen[v.ID]:
			return model.Invalid("volumes", "volume %s is there twice", v.ID)
		case v.Pool != "" && v.Pool != r.Pool:
			return model.Invalid("volumes", "volume %s is in pool %s, not in %s", v.ID, v.Pool, r.Pool)
		}
		seen[v.ID] = true
	}
	return nil
}

// Check says whether the reference can name a group snapshot.
func (r GroupSnapshotRef) Check() error {
	return first(CheckID("groupSnapshotId", r.ID), CheckID("groupId", r.GroupID), checkLabel("pool", r.Pool))
}

// Check says whether an export can be made from the request.
func (r Export) Check() error {
	return first(CheckID("attachmentId", r.AttachmentID), r.Volume.Check())
}

// Check says whether a volume can be taken over by the request. What Existing may
// be is the driver's business.
func (r ImportVolume) Check() error {
	err := first(CheckID("volumeId", r.ID), checkLabel("pool", r.Pool), checkLabel("existing", r.Existing),
		checkTenant(r.TenantID), checkLabel("clusterId", r.ClusterID))
	if err == nil && r.Existing == "" {
		err = model.Invalid("existing", "existing must name the backend's volume")
	}
	return err
}

// Check says whether the reference can name an export.
func (r ExportRef) Check() error {
	err := CheckID("attachmentId", r.AttachmentID)
	if err == nil && r.Volume.ID != "" {
		err = r.Volume.Check()
	}
	return err
}

// Bound gives the page's limit, or MaxPage if it has none.
func (p Page) Bound() int {
	if p.Limit <= 0 {
		return MaxPage
	}
	return p.Limit
}

// Begin gives an unknownOutcome error if the context has ended. Methods that
// change something call it before they touch anything.
func Begin(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return model.Errorf(model.KindUnknownOutcome, "not begun: %w", err)
	}
	return nil
}

// NAA gives the durable name of a volume that has none of its own: 32 hex digits
// of its id, the first replaced by 6, as the original's LVM driver does. An id
// that is no UUID is hashed.
func NAA(id string) (name, format string) {
	if !model.ValidUUID(id) {
		h := sha256.Sum256([]byte(id))
		return "6" + hex.EncodeToString(h[:])[1:32], "NAA"
	}
	return "6" + strings.ToLower(strings.ReplaceAll(id, "-", ""))[1:], "NAA"
}

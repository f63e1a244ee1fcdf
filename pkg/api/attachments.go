package api

import (
	"net/http"
	"net/url"
	"strings"

	"github.com/gorilla/mux"

	"github.com/osds-io/osds/pkg/db"
	"github.com/osds-io/osds/pkg/model"
	"github.com/osds-io/osds/pkg/model/wire"
)

const (
	defaultProtocol   = "iscsi"
	defaultAttachMode = "rw"
)

func (s *Server) routesAttachments(r *mux.Router) {
	s.tenantHandle(r, "/block/attachments", methods{http.MethodGet: s.listAttachments, http.MethodPost: s.createAttachment})
	s.tenantHandle(r, "/block/attachments/{attachmentId}", methods{
		http.MethodGet: s.getAttachment, http.MethodPut: s.updateAttachment, http.MethodDelete: s.deleteAttachment,
	})
}

var attachmentShape = shapeOf(wire.VolumeAttachmentSpec{})

func showAttachment(a *model.Attachment) any { return wire.FromAttachment(a) }

// attachment gives the attachment that the path names.
func (c *call) attachment() (*model.Attachment, error) {
	id := c.pathID("attachmentId")
	a, ok := c.store().Attachments.GetOf(c.scope(), id)
	if !ok {
		return nil, notFound("volume attachment", id, "specified volume attachment("+shorten(id)+") can't find")
	}
	return a, nil
}

func (s *Server) listAttachments(c *call) error {
	return list(c, s.Store.Attachments, showAttachment)
}

func (s *Server) getAttachment(c *call) error {
	a, err := c.attachment()
	if err != nil {
		return err
	}
	return c.Record(http.StatusOK, a.Rev, wire.FromAttachmentWithSecrets(a))
}

// createAttachment accepts the export of a volume to a host. Both are written
// again, so that neither can be deleted in between, nor the volume be attached
// twice.
func (s *Server) createAttachment(c *call) error {
	var spec wire.VolumeAttachmentSpec
	if err := c.decode("volume attachment", &spec); err != nil {
		return err
	}
	id, err := c.newID(spec.ID)
	if err != nil {
		return err
	}
	release, err := c.hold(spec.VolumeID, spec.HostID)
	if err != nil {
		return err
	}
	defer release()
	return c.change("api.attachment.create", func(t *db.Txn) (*answer, error) {
		if err := idIsFree(s.Store.Attachments, "volume attachment", id); err != nil {
			return nil, err
		}
		a, err := c.newAttachment(t, &spec)
		if err != nil {
			return nil, err
		}
		a.ID = id
		createRecord(t, a)
		return accepted(wire.FromAttachment(a)), nil
	})
}

func (c *call) newAttachment(t *db.Txn, spec *wire.VolumeAttachmentSpec) (*model.Attachment, error) {
	const failed = "create volume attachment failed: "
	h, ok := c.store().Hosts.GetOf(c.scope(), spec.HostID)
	if !ok {
		return nil, model.Invalid("hostId", "get host failed in create volume attachment method: specified host(%s) can't find", shorten(spec.HostID))
	}
	v, err := c.otherVolume("volumeId", spec.VolumeID)
	if err != nil {
		return nil, prefixed("get volume failed in create volume attachment method: ", err)
	}
	if err := model.ValidateAttachMode(spec.AttachMode); err != nil {
		return nil, prefixed(failed, err)
	}
	if err := model.ValidateMountpoint(spec.Mountpoint); err != nil {
		return nil, prefixed(failed, err)
	}
	if err := model.ValidateMetadata("metadata", spec.Metadata); err != nil {
		return nil, prefixed(failed, err)
	}
	if err := c.mayAttach(t, v, h); err != nil {
		return nil, err
	}
	p, err := c.poolOf(v)
	if err != nil {
		return nil, prefixed(failed, err)
	}
	if v.MultiAttach && !p.MultiAttach && c.liveOf(v) > 0 {
		return nil, &model.Error{Kind: model.KindUnsupported, Field: "volumeId", Message: failed + "volume " + v.ID + " is attached, and pool " + p.Name + " does not let several hosts attach a volume"}
	}
	if !p.Can(model.AbilityExport) {
		return nil, &model.Error{Kind: model.KindUnsupported, Field: "volumeId", Message: failed + "pool " + p.Name + " cannot export volumes to hosts"}
	}
	now := c.s.now()
	a := &model.Attachment{
		Meta:     model.Meta{TenantID: c.tenant, UserID: c.user, CreatedAt: now},
		VolumeID: v.ID, HostID: h.ID, Status: model.StatusCreating, Mountpoint: spec.Mountpoint,
		AttachMode: strings.ToLower(spec.AttachMode), AccessProtocol: p.Extras.IOConnectivity.AccessProtocol, Metadata: spec.Metadata,
		Task: model.NewTask(model.ResAttachment, model.TaskCreate, "", c.id, now),
	}
	if a.AttachMode == "" {
		a.AttachMode = defaultAttachMode
	}
	if a.AccessProtocol == "" {
		a.AccessProtocol = defaultProtocol
	}
	nv := v.Clone()
	if nv.Status == model.StatusAvailable {
		nv.Status, nv.UpdatedAt = model.StatusAttaching, now
	}
	t.Update(nv).Update(h.Clone())
	return a, nil
}

// liveOf counts the attachments of a volume that are, or may be, live.
func (c *call) liveOf(v *model.Volume) (n int) {
	for _, a := range c.store().Attachments.Where("volumeId", v.ID, 0) {
		if a.Status != model.StatusError {
			n++
		}
	}
	return n
}

// mayAttach says whether a volume may be attached to a host now.
func (c *call) mayAttach(t *db.Txn, v *model.Volume, h *model.Host) error {
	const failed = "create volume attachment failed: "
	if h.TenantID != v.TenantID && h.TenantID != model.AdminTenant {
		// Only administrators get here; it would show one tenant's data to
		// another.
		return model.Invalid("hostId", failed+"host %s and volume %s belong to different tenants", h.ID, v.ID)
	}
	if !contains(h.AvailabilityZones, v.AvailabilityZone) {
		return model.Invalid("hostId", failed+"volume %s is in availability zone %q, which is not one of those of host %s (%s): add it to the host's availabilityZones",
			v.ID, v.AvailabilityZone, h.HostName, strings.Join(h.AvailabilityZones, ", "))
	}
	attached := c.store().Attachments.Where("volumeId", v.ID, 0)
	live := 0
	for _, a := range attached {
		if a.Status == model.StatusError {
			continue // nothing is exported: a failed export is undone first
		}
		live++
		if a.HostID == h.ID {
			if v.MultiAttach {
				return model.Errorf(model.KindBusy, failed+"volume %s is already attached to host %s by attachment %s", v.ID, h.HostName, a.ID)
			}
		}
	}
	inUse := v.Status == model.StatusInUse || v.Status == model.StatusAttaching || live > 0
	switch {
	case inUse && !v.MultiAttach:
		return model.Errorf(model.KindBusy,
			"volume is already attached to one of the host. If you want to attach to multiple host, volume multiattach must be true")
	case v.Task.Active(), !model.MayStart(model.ResVolume, model.TaskAttach, v.Status):
		return busy(v.Task, failed+"only a volume that is available or inUse can be attached, volume %s is %s", v.ID, v.Status)
	}
	return c.guardGroup(t, v)
}

// updateAttachment changes where the host says that it mounts the volume.
func (s *Server) updateAttachment(c *call) error {
	return c.change("api.attachment.update", func(t *db.Txn) (*answer, error) {
		old, err := c.attachment()
		if err != nil {
			return nil, err
		}
		if err := c.ifMatch(old.Rev); err != nil {
			return nil, err
		}
		in, err := c.patch("volume attachment", attachmentShape)
		if err != nil {
			return nil, err
		}
		a := old.Clone()
		m, err := in.text("mountpoint")
		if err != nil {
			return nil, err
		}
		if m != nil {
			if err := model.ValidateMountpoint(*m); err != nil {
				return nil, err
			}
			a.Mountpoint = *m
		}
		// What was read in a list may be sent back as well as what was read
		// alone.
		if err := in.rest(wire.FromAttachmentWithSecrets(old)); err != nil && in.rest(wire.FromAttachment(old)) != nil {
			return nil, err
		}
		a.UpdatedAt = s.now()
		t.Update(a)
		return done(wire.FromAttachment(a)), nil
	})
}

// flag reads a parameter of the query that is true or false, and false if it is
// left out.
func (c *call) flag(name string) (bool, error) {
	if c.r.URL.RawQuery == "" {
		return false, nil
	}
	v, err := url.ParseQuery(c.r.URL.RawQuery)
	if err != nil {
		return false, model.Errorf(model.KindInvalid, "the query string is not well-formed: %w", err)
	}
	switch f := v.Get(name); f {
	case "", "false":
		return false, nil
	case "true":
		return true, nil
	default:
		return false, model.Invalid(name, "%s %q is neither true nor false", name, shorten(f))
	}
}

// mayDetach says whether an attachment may be ended now. A host that has only to
// see a new size does not hold that up; nor does an ordinary detach that waits for
// its host hold up a forced one.
func mayDetach(a *model.Attachment, force bool) error {
	if t := a.Task; t.Active() && (t.Kind == model.TaskResize || force && t.Kind == model.TaskDelete && !t.Force) {
		return nil
	}
	if a.Task.Active() || !model.MayStart(model.ResAttachment, model.TaskDelete, a.Status) {
		return busy(a.Task, "delete volume attachment failed: only the volume attachment with the status available, error, errorDeleting can be deleted, the volume attachment status is %s", a.Status)
	}
	return nil
}

// asDetached gives the attachment with the task that ends it.
func (c *call) asDetached(a *model.Attachment, force bool) *model.Attachment {
	n := a.Clone()
	now := c.s.now()
	n.Task = model.NewDetach(a, force, c.id, now)
	if a.Task.Active() && a.Task.Kind == model.TaskDelete {
		n.Task.PrevStatus = a.Task.PrevStatus
	}
	n.Status, n.StatusReason, n.UpdatedAt = model.StatusDeleting, "", now
	return n
}

// deleteAttachment accepts the end of an attachment: first the device on the host,
// then the export; with force the other way round. The volume's status follows
// when the export has ended.
func (s *Server) deleteAttachment(c *call) error {
	force, err := c.flag("force")
	if err != nil {
		return err
	}
	return c.change("api.attachment.delete", func(t *db.Txn) (*answer, error) {
		old, err := c.attachment()
		if err != nil {
			return nil, err
		}
		if err := c.ifMatch(old.Rev); err != nil {
			return nil, err
		}
		if err := mayDetach(old, force); err != nil {
			return nil, err
		}
		t.Update(c.asDetached(old, force))
		return &answer{status: http.StatusAccepted}, nil
	})
}

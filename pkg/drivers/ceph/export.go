//go:build ceph

package ceph

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"slices"
	"sort"
	"strings"
	"time"

	"github.com/osds-io/osds/internal/keylock"
	"github.com/osds-io/osds/pkg/drivers"
	"github.com/osds-io/osds/pkg/model"
)

// exportEntry is an export: that there is this entry is the export. It stands in
// the directory and not in the image's metadata, because metadata can be changed
// only by who holds the image's lock, which here is the host.
type exportEntry struct {
	VolumeID string `json:"volumeId"`
	Host     string `json:"host,omitempty"`
	// Addrs are the host's addresses, as far as they are known.
	Addrs       []string `json:"addrs,omitempty"`
	ReadOnly    bool     `json:"readOnly,omitempty"`
	MultiAttach bool     `json:"multiAttach,omitempty"`
	// Clients are clients of the host that were seen on the image, so that
	// they can be fenced when they are not seen any more.
	Clients []string  `json:"clients,omitempty"`
	Created time.Time `json:"created"`
}

func exportKeys(volumeID, attachmentID string) (byID, byVolume string) {
	return exportKey + attachmentID, ofVolumeKey + volumeID + "/" + attachmentID
}

func (s *space) putExport(attachmentID string, e exportEntry) error {
	a, x := exportKeys(e.VolumeID, attachmentID)
	return s.dir.put(map[string]any{a: e, x: e})
}

func (s *space) dropExport(attachmentID, volumeID string) error {
	a, x := exportKeys(volumeID, attachmentID)
	return s.dir.drop(a, x)
}

// exportsOf gives a volume's exports by attachment id.
func (s *space) exportsOf(ctx context.Context, volumeID string) (map[string]exportEntry, error) {
	m := map[string]exportEntry{}
	return m, s.dir.all(ctx, ofVolumeKey+volumeID+"/", func(i item) bool {
		var e exportEntry
		_ = json.Unmarshal(i.data, &e) // a damaged one is an export nevertheless
		m[i.id] = e
		return true
	})
}

// notExported is busy for a volume that has exports.
func (s *space) notExported(id string) error {
	l, err := s.dir.page(ofVolumeKey+id+"/", "", 1)
	if err == nil && len(l) > 0 {
		err = model.Errorf(model.KindBusy, "volume %s is exported by attachment %s", id, l[0].id)
	}
	return err
}

// Export lets a host use a volume: the host is a client of the cluster itself,
// and is told where the image is. It needs a keyring of its own.
func (d *Driver) Export(ctx context.Context, r drivers.Export) (model.Connection, error) {
	none := model.Connection{}
	if err := r.Check(); err != nil {
		return none, err
	}
	if r.Protocol != "" && !strings.EqualFold(r.Protocol, protocol) {
		return none, model.Errorf(model.KindUnsupported, "volumes of the ceph driver are attached by %s, not by %q", protocol, r.Protocol)
	}
	wants := []keylock.Want{{Key: "a/" + r.AttachmentID}, lockVolume(r.Volume.ID)}
	return on(ctx, d, r.Volume.Pool, "attachment "+r.AttachmentID, wants, func(ctx context.Context, s *space) (model.Connection, error) {
		var e exportEntry
		found, err := s.dir.get(exportKey+r.AttachmentID, &e)
		if err != nil {
			return none, err
		}
		if found && (e.VolumeID != r.Volume.ID || e.ReadOnly != r.ReadOnly || !sameHost(e.Host, r.Host.HostName)) {
			return none, model.Errorf(model.KindExists, "attachment %s is there already, of volume %s to host %q, read-only %t", r.AttachmentID, e.VolumeID, e.Host, e.ReadOnly)
		}
		img, err := s.openVolume(r.Volume.ID, false)
		if err != nil {
			return none, err
		}
		defer img.close()
		if !found {
			if err := s.mayExport(ctx, r, img); err != nil {
				return none, err
			}
		}
		if err := s.bound(ctx, r, img); err != nil {
			return none, err
		}
		if !found {
			if err := step(ctx, "export.begin"); err != nil {
				return none, err
			}
			e = exportEntry{VolumeID: r.Volume.ID, Host: r.Host.HostName, Addrs: hostAddrs(r.Host), ReadOnly: r.ReadOnly,
				MultiAttach: r.MultiAttach, Created: time.Now().UTC()}
			if err := s.putExport(r.AttachmentID, e); err != nil {
				return none, err
			}
			if err := step(ctx, "export.noted"); err != nil {
				return none, err
			}
		}
		return s.connection(r, img)
	})
}

func sameHost(a, b string) bool { return a == "" || b == "" || strings.EqualFold(a, b) }

// hostAddrs are the addresses that a host's clients can come from: its ip, and
// those of its initiators with protocol rbd.
func hostAddrs(h model.Host) []string {
	var out []string
	add := func(s string) {
		if ip := net.ParseIP(s); ip != nil && !slices.Contains(out, ip.String()) {
			out = append(out, ip.String())
		}
	}
	add(h.IP)
	for _, i := range h.Initiators {
		if strings.EqualFold(i.Protocol, protocol) {
			add(i.PortName)
		}
	}
	return out
}

// mayExport refuses an export beside others unless the pool, this export and all
// others allow it; and one of an image that somebody has open who is not known.
func (s *space) mayExport(ctx context.Context, r drivers.Export, img *image) error {
	others, err := s.exportsOf(ctx, r.Volume.ID)
	if err != nil {
		return err
	}
	for id, o := range others {
		if o.MultiAttach && r.MultiAttach && s.conf.MultiAttach {
			continue
		}
		return model.Errorf(model.KindBusy, "volume %s is exported already, by attachment %s to host %q, and cannot be shared", r.Volume.ID, id, o.Host)
	}
	if len(others) > 0 {
		return nil
	}
	w, err := s.watchers(img)
	if err == nil && len(w) > 0 {
		err = model.Errorf(model.KindBusy, "volume %s is open at %s, which no attachment accounts for", r.Volume.ID, w[0])
	}
	return err
}

// bound sets the image's bounds to those of the export.
func (s *space) bound(ctx context.Context, r drivers.Export, img *image) error {
	want := qosMeta(r.QoS)
	have := map[string]string{}
	for _, k := range []string{qosIOPS, qosBPS} {
		if v, ok := img.meta[k]; ok {
			have[k] = v
		}
	}
	if maps.Equal(want, have) {
		return nil
	}
	if others, err := s.exportsOf(ctx, r.Volume.ID); err != nil {
		return err
	} else if delete(others, r.AttachmentID); len(others) > 0 {
		return model.Errorf(model.KindUnsupported, "volume %s is attached elsewhere with other bounds, and RBD bounds an image, not a host", r.Volume.ID)
	}
	rw, err := s.openVolume(r.Volume.ID, true)
	if err != nil {
		return err
	}
	defer rw.close()
	for k := range have {
		if _, ok := want[k]; !ok {
			if err := rw.RemoveMetadata(k); err != nil && !absent(err) {
				return err
			}
		}
	}
	for k, v := range want {
		if err := rw.SetMetadata(k, v); err != nil {
			return err
		}
	}
	return rw.Image.Close()
}

// connection is what a host is told, with the original's keys and some more. No
// key is among them.
func (s *space) connection(r drivers.Export, img *image) (model.Connection, error) {
	hosts, ports, err := s.l.monitors()
	if err != nil {
		return model.Connection{}, err
	}
	mode := "rw"
	if r.ReadOnly {
		mode = "ro"
	}
	c := model.Connection{Type: protocol, Data: map[string]any{
		"secret_type":   "ceph",
		"name":          s.name + "/" + imageName(r.Volume.ID),
		"pool":          s.name,
		"image":         imageName(r.Volume.ID),
		"cluster_name":  s.d.conf.ClusterName,
		"fsid":          s.l.fsid,
		"hosts":         hosts,
		"ports":         ports,
		"auth_enabled":  true,
		"auth_username": s.d.conf.HostUser,
		"volume_id":     r.Volume.ID,
		"volumeId":      r.Volume.ID,
		"access_mode":   mode,
		"accessMode":    mode,
		"encrypted":     img.tag.Crypt != nil,
	}}
	if img.tag.Crypt != nil {
		c.Data["encryption_format"] = img.tag.Crypt.Format
	}
	return c, nil
}

// monitors gives where the monitors listen; of a monitor with addresses for both
// versions of the protocol that of the first, which every client speaks.
func (l *link) monitors() (hosts, ports []string, err error) {
	var m struct {
		Mons []struct {
			PublicAddrs struct {
				Addrvec []struct {
					Type string `json:"type"`
					Addr string `json:"addr"`
				} `json:"addrvec"`
			} `json:"public_addrs"`
		} `json:"mons"`
	}
	if err := l.command(map[string]any{"prefix": "mon dump"}, &m); err != nil {
		return nil, nil, fail("the monitors' addresses", err)
	}
	var at []string
	for _, mon := range m.Mons {
		best := ""
		for _, a := range mon.PublicAddrs.Addrvec {
			if best == "" || a.Type == "v1" {
				best = a.Addr
			}
		}
		if best != "" {
			at = append(at, best)
		}
	}
	sort.Strings(at)
	for _, a := range at {
		h, p, err := net.SplitHostPort(a)
		if err != nil {
			return nil, nil, model.Errorf(model.KindInternal, "a monitor's address %q: %w", a, err)
		}
		hosts, ports = append(hosts, h), append(ports, p)
	}
	return hosts, ports, nil
}

// Unexport ends an export. It is busy while a client of the host has the image
// open, unless it is forced: then those clients are cut off from the cluster
// first, and it ends when none of them is on the image any more.
func (d *Driver) Unexport(ctx context.Context, r drivers.ExportRef) error {
	if err := r.Check(); err != nil {
		return err
	}
	what := "attachment " + r.AttachmentID
	e, err := on(ctx, d, r.Volume.Pool, what, nil, func(_ context.Context, s *space) (exportEntry, error) {
		var e exportEntry
		found, err := s.dir.get(exportKey+r.AttachmentID, &e)
		if err == nil && !found {
			err = model.Errorf(model.KindNotFound, "attachment %s is not there", r.AttachmentID)
		}
		return e, err
	})
	switch {
	case model.IsKind(err, model.KindNotFound):
		return nil
	case err != nil:
		return err
	case e.VolumeID == "":
		e.VolumeID = r.Volume.ID // its entry is damaged
	}
	if r.Volume.ID != "" && r.Volume.ID != e.VolumeID {
		return model.Invalid("volumeId", "attachment %s is of volume %s, not of %s", r.AttachmentID, e.VolumeID, r.Volume.ID)
	}
	wants := []keylock.Want{{Key: "a/" + r.AttachmentID}, lockVolume(e.VolumeID)}
	_, err = on(ctx, d, r.Volume.Pool, what, wants, func(ctx context.Context, s *space) (struct{}, error) {
		var now exportEntry
		found, err := s.dir.get(exportKey+r.AttachmentID, &now)
		if err != nil {
			return struct{}{}, err
		}
		if !found {
			return struct{}{}, model.Errorf(model.KindNotFound, "attachment %s is not there", r.AttachmentID)
		}
		now.VolumeID = e.VolumeID
		return struct{}{}, s.unexport(ctx, r, now)
	})
	if model.IsKind(err, model.KindNotFound) {
		return nil
	}
	return err
}

func (s *space) unexport(ctx context.Context, r drivers.ExportRef, e exportEntry) error {
	if err := step(ctx, "unexport.begin"); err != nil {
		return err
	}
	img, err := s.open(e.VolumeID, false)
	if err != nil {
		return err
	}
	if img != nil {
		defer img.close()
		if err := s.release(ctx, r, e, img); err != nil {
			return err
		}
	}
	if err := step(ctx, "unexport.released"); err != nil {
		return err
	}
	if err := s.dropExport(r.AttachmentID, e.VolumeID); err != nil {
		return err
	}
	return step(ctx, "unexport.end")
}

// ListExports lists the exports by attachment id.
func (d *Driver) ListExports(ctx context.Context, p drivers.Page) ([]drivers.LiveExport, error) {
	return listed(ctx, d, "exports", exportKey, p, func(x drivers.LiveExport) string { return x.AttachmentID },
		func(_ context.Context, s *space, items []item) ([]drivers.LiveExport, error) {
			out := make([]drivers.LiveExport, 0, len(items))
			for _, i := range items {
				var e exportEntry
				_ = json.Unmarshal(i.data, &e) // a damaged one is listed too
				detail := fmt.Sprintf("%s/%s to %s", s.name, imageName(e.VolumeID), e.Host)
				if e.ReadOnly {
					detail += ", read-only"
				}
				out = append(out, drivers.LiveExport{AttachmentID: i.id, VolumeID: e.VolumeID, Pool: s.name, Detail: detail})
			}
			return out, nil
		})
}

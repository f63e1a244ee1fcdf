package local

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"net"
	"os"
	"sort"
	"strings"
	"time"

	"github.com/osds-io/osds/internal/faults"
	"github.com/osds-io/osds/internal/keylock"
	"github.com/osds-io/osds/pkg/drivers"
	"github.com/osds-io/osds/pkg/model"
)

// attachment is an attachment's file: written before its device is made, so that
// every device of ours is accounted for. It does not say that the export lives:
// the kernel says that.
type attachment struct {
	Version      int       `json:"version"`
	AttachmentID string    `json:"attachmentId"`
	VolumeID     string    `json:"volumeId"`
	ReadOnly     bool      `json:"readOnly,omitempty"`
	MultiAttach  bool      `json:"multiAttach,omitempty"`
	Created      time.Time `json:"created"`

	pool *pool
}

func exportFile(attachmentID string) string { return exportsDir + "/" + attachmentID + metaExt }

// scanExports reads the attachments of a pool. A damaged file is passed over: its
// device, if there is one, tells by its own name which attachment it is.
func (p *pool) scanExports() ([]*attachment, error) {
	names, err := readNames(p.root, exportsDir)
	if err != nil {
		return nil, err
	}
	var out []*attachment
	for _, n := range names {
		id, ok := strings.CutSuffix(n, metaExt)
		if !ok || !model.ValidID(id) {
			continue
		}
		b, err := p.root.ReadFile(exportFile(id))
		if err != nil {
			return nil, err
		}
		x := attachment{pool: p}
		if json.Unmarshal(b, &x) == nil && x.AttachmentID == id && model.ValidID(x.VolumeID) {
			out = append(out, &x)
		}
	}
	return out, nil
}

// exportsOf gives what is noted of a volume's exports, live or not.
func (d *Driver) exportsOf(volumeID string) []*attachment {
	d.mu.RLock()
	defer d.mu.RUnlock()
	var out []*attachment
	d.exports.Scan(func(_ string, x *attachment) bool {
		if x.VolumeID == volumeID {
			out = append(out, x)
		}
		return true
	})
	return out
}

func (d *Driver) exportOf(attachmentID string) (*attachment, bool) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return d.exports.Get(attachmentID)
}

// removeExport removes an attachment's file.
func (d *Driver) removeExport(x *attachment) error {
	if err := x.pool.root.Remove(exportFile(x.AttachmentID)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	d.mu.Lock()
	d.exports.Delete(x.AttachmentID)
	d.mu.Unlock()
	return x.pool.dirs[exportsDir].Sync()
}

// loopsOf gives the loop devices of a volume, whoever made them. A device of
// ours is known by its tag, even where its file was removed or replaced past the
// driver; another's by the file it is bound to.
func (d *Driver) loopsOf(volumeID string) ([]loop, error) {
	all, err := findLoops(func(base string) bool { return base == volumeID+dataExt })
	if err != nil || len(all) == 0 {
		return nil, err
	}
	var out []loop
	for _, l := range all {
		if l.hidden || strings.HasPrefix(l.tag, tagPrefix) || d.boundTo(l, volumeID) {
			out = append(out, l)
		}
	}
	return out, nil
}

// boundTo says whether a device is bound to a volume's file.
func (d *Driver) boundTo(l loop, volumeID string) bool {
	o, ok, err := d.lookup(volumes, volumeID, "")
	if !ok || err != nil {
		return false
	}
	st, err := o.pool.stat(volumes, volumeID)
	return err == nil && l.dev == st.Dev && l.ino == st.Ino
}

// notInUse is busy for a volume that has a device.
func (d *Driver) notInUse(o object) error {
	ls, err := d.loopsOf(o.meta.ID)
	if err != nil {
		return ioError("volume "+o.meta.ID, err)
	}
	if xs := d.exportedTo(o.meta.ID); len(xs) > 0 {
		return model.Errorf(model.KindBusy, "volume %s is exported by attachment %s", o.meta.ID, xs[0])
	}
	if len(ls) == 0 {
		return nil
	}
	by := "by somebody else than osds"
	if id, ok := idOfTag(ls[0].tag); ok {
		by = "by attachment " + id
	}
	return model.Errorf(model.KindBusy, "volume %s is exported as %s, %s", o.meta.ID, ls[0].path(), by)
}

// inUse says whether a volume may be written to now. In doubt it may.
func (d *Driver) inUse(o object) bool {
	ls, err := d.loopsOf(o.meta.ID)
	return err != nil || len(ls) > 0 || len(d.exportedTo(o.meta.ID)) > 0
}

// Export makes a loop device of a volume, on this host, or a target of one for
// another, as the pool's access protocol says.
func (d *Driver) Export(ctx context.Context, r drivers.Export) (model.Connection, error) {
	none := model.Connection{}
	if err := r.Check(); err != nil {
		return none, err
	}
	if err := drivers.Begin(ctx); err != nil {
		return none, err
	}
	unlock, err := d.locks.LockAll(ctx, keylock.Want{Key: "a/" + r.AttachmentID}, keylock.Want{Key: key(volumes, r.Volume.ID)})
	if err != nil {
		return none, ioError("attachment "+r.AttachmentID, err)
	}
	defer unlock()
	o, err := d.need(volumes, r.Volume.ID, r.Volume.Pool)
	if err != nil {
		return none, err
	}
	if r.Protocol != "" && !strings.EqualFold(r.Protocol, o.pool.protocol()) {
		return none, model.Errorf(model.KindUnsupported, "volumes of pool %s are attached by access protocol %s, not by %q", o.pool.name, o.pool.protocol(), r.Protocol)
	}
	if o.pool.noExport != "" {
		return none, model.Errorf(model.KindUnsupported, "volume %s cannot be exported: %s", r.Volume.ID, o.pool.noExport)
	}
	if o.pool.network() {
		return d.exportNetwork(ctx, o, r)
	}
	if err := d.isThisHost(r.Host); err != nil {
		return none, err
	}
	if r.QoS != (drivers.QoS{}) {
		return none, model.Errorf(model.KindUnsupported, "limits of I/O cannot be held for volumes that are attached on the dock's own host")
	}
	if x, ok := d.exportOf(r.AttachmentID); ok && (x.VolumeID != r.Volume.ID || x.ReadOnly != r.ReadOnly) {
		return none, model.Errorf(model.KindExists, "attachment %s is there already, of volume %s, read-only %t", r.AttachmentID, x.VolumeID, x.ReadOnly)
	}
	ls, err := d.loopsOf(o.meta.ID)
	if err != nil {
		return none, ioError("volume "+r.Volume.ID, err)
	}
	mine, others := split(ls, tagOf(r.AttachmentID))
	if len(mine) > 0 {
		l := mine[0]
		if l.readOnly() != r.ReadOnly {
			return none, model.Errorf(model.KindExists, "attachment %s is there already, as %s, read-only %t", r.AttachmentID, l.path(), l.readOnly())
		}
		if err := errors.Join(l.keep(), l.resize()); err != nil {
			return none, ioError(l.path(), err)
		}
		return connection(l, r), d.noteExport(o.pool, r)
	}
	if err := d.mayShare(o, r, others); err != nil {
		return none, err
	}
	faults.Point("local.export.begin")
	if err := d.noteExport(o.pool, r); err != nil {
		return none, err
	}
	l, err := d.bind(ctx, o, r)
	if err != nil {
		if x, ok := d.exportOf(r.AttachmentID); ok {
			_ = d.removeExport(x)
		}
		return none, ioError("attachment "+r.AttachmentID, err)
	}
	faults.Point("local.export.end")
	return connection(l, r), nil
}

// noteExport writes an attachment's file, unless it is there.
func (d *Driver) noteExport(p *pool, r drivers.Export) error {
	if _, ok := d.exportOf(r.AttachmentID); ok {
		return nil
	}
	x := &attachment{Version: 1, AttachmentID: r.AttachmentID, VolumeID: r.Volume.ID, ReadOnly: r.ReadOnly,
		MultiAttach: r.MultiAttach, Created: time.Now().UTC(), pool: p}
	if err := p.writeJSON(exportFile(r.AttachmentID), x); err != nil {
		return ioError("attachment "+r.AttachmentID, err)
	}
	d.mu.Lock()
	d.exports.Set(x.AttachmentID, x)
	d.mu.Unlock()
	faults.Point("local.export.noted")
	return nil
}

// bind makes the device.
func (d *Driver) bind(ctx context.Context, o object, r drivers.Export) (loop, error) {
	mode := os.O_RDWR
	if r.ReadOnly {
		mode = os.O_RDONLY
	}
	f, err := o.pool.root.OpenFile(volumes.data(o.meta.ID), mode, 0)
	if err != nil {
		return loop{}, err
	}
	defer f.Close()
	l, err := bindLoop(ctx, f, tagOf(r.AttachmentID), r.ReadOnly)
	if err != nil {
		return l, err
	}
	faults.Point("local.export.bound")
	if o.pool.thick() && !r.ReadOnly {
		// Where the kernel does not let it, a discard gives space back, which
		// Unexport sets aside again.
		_ = l.noDiscard()
	}
	return l, nil
}

func split(ls []loop, tag string) (mine, others []loop) {
	for _, l := range ls {
		if l.tag == tag {
			mine = append(mine, l)
		} else {
			others = append(others, l)
		}
	}
	return mine, others
}

// mayShare refuses an export beside others unless the pool, this export and all
// others allow it.
func (d *Driver) mayShare(o object, r drivers.Export, others []loop) error {
	for _, l := range others {
		id, _ := idOfTag(l.tag)
		x, noted := d.exportOf(id)
		if !noted {
			for _, y := range d.exportsOf(o.meta.ID) {
				if tagOf(y.AttachmentID) == l.tag {
					x, noted = y, true
				}
			}
		}
		if noted && x.MultiAttach && r.MultiAttach && o.pool.conf.MultiAttach {
			continue
		}
		who := "somebody else than osds"
		if noted {
			who = "attachment " + x.AttachmentID
		}
		return model.Errorf(model.KindBusy, "volume %s is exported already, as %s by %s, and cannot be shared", o.meta.ID, l.path(), who)
	}
	return nil
}

func connection(l loop, r drivers.Export) model.Connection {
	mode := "rw"
	if r.ReadOnly {
		mode = "ro"
	}
	return model.Connection{Type: protocol, Data: map[string]any{
		"devicePath":       l.path(),
		"volumeId":         r.Volume.ID,
		"accessMode":       mode,
		"targetDiscovered": true,
	}}
}

// isThisHost refuses to attach to another host: a device's name is good here
// alone, and there it would be another device.
func (d *Driver) isThisHost(h model.Host) error {
	if h.HostName == "" && h.IP == "" {
		return nil
	}
	for _, n := range d.hosts {
		if h.HostName != "" && (strings.EqualFold(h.HostName, n) || strings.EqualFold(short(h.HostName), short(n))) {
			return nil
		}
	}
	if ip := net.ParseIP(h.IP); ip != nil {
		addrs, err := net.InterfaceAddrs()
		if err != nil {
			return model.Errorf(model.KindInternal, "addresses of this host: %w", err)
		}
		for _, a := range addrs {
			if n, ok := a.(*net.IPNet); ok && n.IP.Equal(ip) {
				return nil
			}
		}
	}
	return model.Errorf(model.KindInvalid, "host %q (%s) is not the dock's own host (%s), the only one that local volumes can be attached to; if it is, add its name to hostNames",
		h.HostName, h.IP, strings.Join(d.hosts, ", "))
}

func short(host string) string {
	s, _, _ := strings.Cut(host, ".")
	return s
}

// Unexport detaches an attachment's device. It is nil only when the device is
// gone, and busy while something uses it.
func (d *Driver) Unexport(ctx context.Context, r drivers.ExportRef) error {
	if err := r.Check(); err != nil {
		return err
	}
	if r.Volume.Pool != "" {
		if _, err := d.pool(r.Volume.Pool); err != nil {
			return err
		}
	}
	if err := drivers.Begin(ctx); err != nil {
		return err
	}
	volumeID := r.Volume.ID
	x, noted := d.exportOf(r.AttachmentID)
	if noted {
		if volumeID != "" && volumeID != x.VolumeID {
			return model.Invalid("volumeId", "attachment %s is of volume %s, not of %s", r.AttachmentID, x.VolumeID, volumeID)
		}
		volumeID = x.VolumeID
	}
	unlock, err := d.locks.LockAll(ctx, keylock.Want{Key: "a/" + r.AttachmentID}, keylock.Want{Key: key(volumes, volumeID)})
	if err != nil {
		return ioError("attachment "+r.AttachmentID, err)
	}
	defer unlock()
	if d.net != nil && !noted {
		if err := d.unexportNetwork(ctx, r); err != nil {
			return err
		}
	}
	if volumeID == "" {
		return nil // nothing is noted, and nobody says where to look
	}
	if err := d.detach(ctx, r.AttachmentID, volumeID); err != nil {
		return ioError("attachment "+r.AttachmentID, err)
	}
	faults.Point("local.unexport.detached")
	if x, noted = d.exportOf(r.AttachmentID); noted {
		if err := d.removeExport(x); err != nil {
			return ioError("attachment "+r.AttachmentID, err)
		}
	}
	faults.Point("local.unexport.end")
	return nil
}

// detach detaches every device of an attachment; a crash may have left several.
func (d *Driver) detach(ctx context.Context, attachmentID, volumeID string) error {
	ls, err := d.loopsOf(volumeID)
	if err != nil {
		return err
	}
	mine, others := split(ls, tagOf(attachmentID))
	for _, l := range others {
		if l.hidden {
			return model.Errorf(model.KindUnsupported, "volume %s is exported as %s, which cannot be looked at: root is needed", volumeID, l.path())
		}
	}
	return d.unbindAll(ctx, mine, volumeID)
}

// unbindAll detaches devices of a volume.
func (d *Driver) unbindAll(ctx context.Context, ls []loop, volumeID string) error {
	for _, l := range ls {
		if err := l.unbind(ctx); err != nil {
			return err
		}
	}
	o, ok, err := d.lookup(volumes, volumeID, "")
	if len(ls) == 0 || !ok || err != nil {
		return err
	}
	if o.pool.thick() && o.whole {
		if err := o.pool.refill(ctx, volumeID); err != nil {
			return err
		}
	}
	n := o.pool.allocated(volumes, volumeID)
	d.update(volumes, volumeID, func(o *object) { o.alloc = n })
	return nil
}

// refill sets aside again what a thick volume gave back while it was in use.
func (p *pool) refill(ctx context.Context, id string) error {
	f, err := p.root.OpenFile(volumes.data(id), os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return err
	}
	return allocate(ctx, f, 0, model.Bytes(st.Size()))
}

// growExports tells a volume's devices and targets of its new length.
func (d *Driver) growExports(ctx context.Context, o object) error {
	ls, err := d.loopsOf(o.meta.ID)
	if err != nil {
		return ioError("volume "+o.meta.ID, err)
	}
	for _, l := range ls {
		if l.hidden {
			return model.Errorf(model.KindUnsupported, "volume %s has grown, but %s cannot be told: root is needed", o.meta.ID, l.path())
		}
		if err := l.resize(); err != nil {
			return ioError(l.path(), err)
		}
	}
	if len(d.exportedTo(o.meta.ID)) > 0 {
		return d.net.Resized(ctx, o.meta.ID)
	}
	return nil
}

// ListExports lists the devices and targets that there are, by attachment id.
func (d *Driver) ListExports(ctx context.Context, p drivers.Page) ([]drivers.LiveExport, error) {
	if err := drivers.Begin(ctx); err != nil {
		return nil, err
	}
	byTag := map[string]string{}
	d.mu.RLock()
	d.exports.Scan(func(id string, _ *attachment) bool {
		byTag[tagOf(id)] = id
		return true
	})
	d.mu.RUnlock()
	volume := func(base string) (object, bool) {
		id, ok := strings.CutSuffix(base, dataExt)
		if !ok {
			return object{}, false
		}
		o, ok, _ := d.lookup(volumes, id, "")
		return o, ok
	}
	ls, err := findLoops(func(base string) bool { _, ok := volume(base); return ok })
	if err != nil {
		return nil, ioError("exports", err)
	}
	live := map[string]drivers.LiveExport{}
	for _, l := range ls {
		id, ok := byTag[l.tag]
		if !ok {
			if id, ok = idOfTag(l.tag); !ok {
				continue
			}
		}
		o, ok := volume(l.base)
		if !ok || id <= p.After {
			continue
		}
		x := drivers.LiveExport{AttachmentID: id, VolumeID: o.meta.ID, Pool: o.pool.name, Detail: l.path()}
		if l.readOnly() {
			x.Detail += ", read-only"
		}
		if old, dup := live[id]; dup {
			x.Detail += ", " + old.Detail
		}
		live[id] = x
	}
	out, err := d.networkExports(ctx, p)
	if err != nil {
		return nil, err
	}
	for _, x := range live {
		out = append(out, x)
	}
	sort.Slice(out, func(i, j int) bool { return out[i].AttachmentID < out[j].AttachmentID })
	return out[:min(len(out), p.Bound())], nil
}

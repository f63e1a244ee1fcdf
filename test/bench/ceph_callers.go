//go:build linux && ceph

package main

import (
	"context"
	"fmt"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/ceph/go-ceph/rados"
	"github.com/ceph/go-ceph/rbd"

	"github.com/osds-io/osds/pkg/model"
)

// direct makes the calls by librbd, on one connection that stays: as bare as they
// can be. It has no state of its own, and serves any number of clients.
type direct struct {
	conn *rados.Conn
	io   *rados.IOContext
	seq  atomic.Int64
}

// The features that the driver gives its images, too.
const directFeatures = rbd.FeatureLayering | rbd.FeatureExclusiveLock | rbd.FeatureObjectMap | rbd.FeatureFastDiff | rbd.FeatureDeepFlatten

// directTrash is how long an image stays in the trash; the driver's default.
const directTrash = time.Hour

func connectDirect(conf, pool string) (*direct, error) {
	conn, err := rados.NewConn()
	if err != nil {
		return nil, err
	}
	d := &direct{conn: conn}
	if err = conn.ReadConfigFile(conf); err == nil {
		// As the driver has it: no data goes this way.
		err = conn.SetConfigOption("rbd_cache", "false")
	}
	if err == nil {
		err = conn.Connect()
	}
	if err == nil {
		d.io, err = conn.OpenIOContext(pool)
	}
	if err != nil {
		conn.Shutdown()
		return nil, fmt.Errorf("connecting by librados: %w", err)
	}
	return d, nil
}

func (d *direct) end() {
	d.io.Destroy()
	d.conn.Shutdown()
}

func (d *direct) close() {}

func (d *direct) name() string { return fmt.Sprintf("direct-%d", d.seq.Add(1)) }

func (d *direct) options() (*rbd.ImageOptions, error) {
	o := rbd.NewRbdImageOptions()
	return o, o.SetUint64(rbd.ImageOptionFeatures, directFeatures)
}

func (d *direct) create(context.Context) (string, error) {
	o, err := d.options()
	defer o.Destroy()
	if err != nil {
		return "", err
	}
	name := d.name()
	return name, rbd.CreateImage(d.io, name, uint64(model.GiB), o)
}

func (d *direct) snapshot(_ context.Context, volume string) (string, error) {
	img, err := rbd.OpenImage(d.io, volume, rbd.NoSnapshot)
	if err != nil {
		return "", err
	}
	name := d.name()
	_, err = img.CreateSnapshot(name)
	if cerr := img.Close(); err == nil {
		err = cerr
	}
	return name, err
}

func (d *direct) clone(_ context.Context, volume, snap string) (string, error) {
	o, err := d.options()
	defer o.Destroy()
	if err == nil {
		err = o.SetUint64(rbd.ImageOptionCloneFormat, 2)
	}
	if err != nil {
		return "", err
	}
	name := d.name()
	return name, rbd.CloneImage(d.io, volume, snap, d.io, name, o)
}

func (d *direct) remove(_ context.Context, volume string) error {
	return rbd.GetImage(d.io, volume).Trash(directTrash)
}

// restCaller is one client of the API: it makes a request, and waits for the
// event that says that it is done.
type restCaller struct {
	addr string
	conn *httpConn
	w    *watcher
}

var restSeq atomic.Int64

func (r *restCaller) close() { r.conn.close() }

const snapshotsPath = "/v1beta/" + tenant + "/block/snapshots"

func (r *restCaller) create(ctx context.Context) (string, error) {
	return r.make(ctx, volumesPath, fmt.Sprintf(`{"name":"v%d","size":1}`, restSeq.Add(1)))
}

func (r *restCaller) snapshot(ctx context.Context, volume string) (string, error) {
	return r.make(ctx, snapshotsPath, fmt.Sprintf(`{"name":"s%d","volumeId":"%s"}`, restSeq.Add(1), volume))
}

func (r *restCaller) clone(ctx context.Context, _, snap string) (string, error) {
	return r.make(ctx, volumesPath, fmt.Sprintf(`{"name":"c%d","size":1,"snapshotId":"%s"}`, restSeq.Add(1), snap))
}

func (r *restCaller) make(ctx context.Context, path, body string) (string, error) {
	status, answer, err := r.conn.do(request(nil, http.MethodPost, path, []byte(body)))
	if err != nil {
		return "", err
	}
	id, _ := quoted(answer, keyID)
	if status != http.StatusAccepted || id == nil {
		return "", unexpected("POST "+path, status, answer)
	}
	is := string(id)
	return is, r.until(ctx, id, available)
}

func (r *restCaller) remove(ctx context.Context, volume string) error {
	path := volumesPath + "/" + volume
	status, answer, err := r.conn.do(request(nil, http.MethodDelete, path, nil))
	if err != nil {
		return err
	}
	if status != http.StatusAccepted {
		return unexpected("DELETE "+path, status, answer)
	}
	return r.until(ctx, goneKey([]byte(volume)), gone)
}

func (r *restCaller) until(ctx context.Context, key []byte, want outcome) error {
	ctx, cancel := context.WithTimeout(ctx, lostAfter)
	defer cancel()
	o, err := r.w.wait(ctx, key, make(chan outcome, 1))
	if err == nil && o != want {
		err = fmt.Errorf("%s ended in error", key)
	}
	return err
}

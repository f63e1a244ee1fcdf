package harness

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/osds-io/osds/pkg/client"
	"github.com/osds-io/osds/pkg/model"
	"github.com/osds-io/osds/pkg/model/wire"
)

// API is a client of one or several osdslets, for a test. Its methods fail the
// test when the server refuses; use the Client in it where a refusal is what is
// tested. Every answer is held against the server's own description.
type API struct {
	*client.Client
	T testing.TB
	c *Cluster
}

// Client makes a client of the osdslets, of all where none is named. Each test
// has the address in its own hands: change cfg as needed.
func (c *Cluster) Client(cfg client.Config, lets ...*Let) *API {
	c.T.Helper()
	if len(lets) == 0 {
		lets = c.Lets
	}
	for _, l := range lets {
		cfg.Endpoints = append(cfg.Endpoints, l.URL())
	}
	check := c.S.API.Checker(c.T)
	wrap := cfg.Wrap
	cfg.Wrap = func(rt http.RoundTripper) http.RoundTripper {
		if wrap != nil {
			rt = wrap(rt)
		}
		return check.Transport(rt)
	}
	cl, err := client.New(cfg)
	if err != nil {
		c.T.Fatal(err)
	}
	c.T.Cleanup(cl.Close)
	return &API{Client: cl, T: c.T, c: c}
}

// Checked gives a URL at which the osdslet's API is reached through a check of
// every request and answer: for clients that are programs of their own.
func (l *Let) Checked() string {
	l.c.T.Helper()
	if l.Scheme != "http" {
		return l.URL()
	}
	if l.checked == "" {
		to, err := url.Parse(l.URL())
		l.c.Must(err)
		proxy := httptest.NewServer(&httputil.ReverseProxy{
			Rewrite:       func(r *httputil.ProxyRequest) { r.SetURL(to) },
			Transport:     l.c.S.API.Checker(l.c.T).Transport(&http.Transport{DisableCompression: true}),
			FlushInterval: -1,
			ErrorLog:      log.New(io.Discard, "", 0),
		})
		l.c.T.Cleanup(func() { proxy.CloseClientConnections(); proxy.Close() })
		l.checked = proxy.URL
	}
	return l.checked
}

// Admin is a client of all osdslets as the administrators' tenant.
func (c *Cluster) Admin() *API { c.T.Helper(); return c.Client(client.Config{}) }

// Ctx is a context that ends when nothing will come any more.
func (a *API) Ctx() context.Context {
	ctx, cancel := context.WithTimeout(a.T.Context(), Limit)
	a.T.Cleanup(cancel)
	return ctx
}

// ok fails the test for an error.
func (a *API) ok(err error, what string, args ...any) {
	a.T.Helper()
	if err != nil {
		a.T.Fatalf("%s: %v", fmt.Sprintf(what, args...), err)
	}
}

// Setup makes the default profile and a host named after this machine, in every
// zone that tests use.
func (a *API) Setup() (p *wire.ProfileSpec, h *wire.HostSpec) {
	a.T.Helper()
	return a.Profile("default_block"), a.Host(Hostname(a.T))
}

// Profile makes a block profile that asks for nothing.
func (a *API) Profile(name string) *wire.ProfileSpec {
	a.T.Helper()
	p, err := a.Profiles.Create(a.Ctx(), &wire.ProfileSpec{Name: name, StorageType: "block", Description: "any block storage"})
	a.ok(err, "create profile %s", name)
	return p
}

// Host registers a host.
func (a *API) Host(name string) *wire.HostSpec {
	a.T.Helper()
	h, err := a.Hosts.Create(a.Ctx(), &wire.HostSpec{
		HostName: name, OSType: "linux", AccessMode: "agentless", IP: "127.0.0.1", AvailabilityZones: []string{"default"},
		Initiators: []wire.Initiator{{PortName: "iqn.2004-10.io.osds:" + strings.ToLower(name), Protocol: "iscsi"}},
	})
	a.ok(err, "create host %s", name)
	return h
}

// WaitPools waits until n pools are available, and gives all.
func (a *API) WaitPools(n int) []*wire.StoragePoolSpec {
	a.T.Helper()
	var pools []*wire.StoragePoolSpec
	a.c.Until(Limit, fmt.Sprintf("%d pools are available", n), func() (err error) {
		if pools, err = a.Pools.Collect(a.Ctx(), client.Query{}, 0); err != nil {
			return err
		}
		up := 0
		for _, p := range pools {
			if p.Status == model.StatusAvailable {
				up++
			}
		}
		if up != n {
			return fmt.Errorf("%d of %d are", up, len(pools))
		}
		return nil
	})
	return pools
}

// WaitAttacher waits until a dock that attaches for its host is available.
func (a *API) WaitAttacher(name string) {
	a.T.Helper()
	a.c.Until(Limit, "dock "+name+" attaches", func() error {
		l, err := a.Docks.Collect(a.Ctx(), client.Query{}.Where("name", name), 0)
		if err != nil {
			return err
		}
		if len(l) != 1 || l[0].Status != model.StatusAvailable || len(l[0].Initiators) == 0 {
			return fmt.Errorf("it does not: %+v", l)
		}
		return nil
	})
}

// Pool gives the pool of a name.
func (a *API) Pool(name string) *wire.StoragePoolSpec {
	a.T.Helper()
	pools, err := a.Pools.Collect(a.Ctx(), client.Query{}.Where("name", name), 0)
	a.ok(err, "list pools")
	if len(pools) != 1 {
		a.T.Fatalf("%d pools are named %s", len(pools), name)
	}
	return pools[0]
}

// Settle waits until a record has no work going on, and fails the test if that
// did not end as asked.
func (a *API) Settle(res model.Resource, id, taskID string) {
	a.T.Helper()
	_, err := a.Wait(a.Ctx(), res, id, client.WaitOptions{TaskID: taskID})
	a.ok(err, "wait for %s %s", res, id)
}

// Gone waits until a record that is being deleted is gone.
func (a *API) Gone(res model.Resource, id string) {
	a.T.Helper()
	_, err := a.Wait(a.Ctx(), res, id, client.WaitOptions{Gone: true})
	a.ok(err, "wait for the end of %s %s", res, id)
}

// Volume makes a volume and waits until it is available.
func (a *API) Volume(spec wire.VolumeSpec) *wire.VolumeSpec {
	a.T.Helper()
	if spec.Size == 0 && spec.SnapshotID == "" && spec.SourceVolumeID == "" {
		spec.Size = 1
	}
	if spec.Name == "" {
		spec.Name = "vol"
	}
	v, err := a.Volumes.Create(a.Ctx(), &spec)
	a.ok(err, "create volume")
	a.Settle(model.ResVolume, v.ID, v.TaskID)
	return a.GetVolume(v.ID)
}

// GetVolume reads a volume.
func (a *API) GetVolume(id string) *wire.VolumeSpec {
	a.T.Helper()
	v, err := a.Volumes.Get(a.Ctx(), id)
	a.ok(err, "get volume %s", id)
	return v
}

// Grow grows a volume to a size in GB and waits for the end of it.
func (a *API) Grow(id string, gb int64) *wire.VolumeSpec {
	a.T.Helper()
	v, err := a.ExtendVolume(a.Ctx(), id, gb)
	a.ok(err, "grow volume %s", id)
	a.Settle(model.ResVolume, id, v.TaskID)
	return a.GetVolume(id)
}

// DeleteVolume deletes a volume and waits until it is gone.
func (a *API) DeleteVolume(id string) {
	a.T.Helper()
	a.ok(a.Volumes.Delete(a.Ctx(), id), "delete volume %s", id)
	a.Gone(model.ResVolume, id)
}

// Snapshot takes a snapshot and waits until it is available.
func (a *API) Snapshot(volumeID, name string) *wire.VolumeSnapshotSpec {
	a.T.Helper()
	s, err := a.Snapshots.Create(a.Ctx(), &wire.VolumeSnapshotSpec{VolumeID: volumeID, Name: name})
	a.ok(err, "snapshot of %s", volumeID)
	a.Settle(model.ResSnapshot, s.ID, s.TaskID)
	s, err = a.Snapshots.Get(a.Ctx(), s.ID)
	a.ok(err, "get snapshot")
	return s
}

// DeleteSnapshot deletes a snapshot and waits until it is gone.
func (a *API) DeleteSnapshot(id string) {
	a.T.Helper()
	a.ok(a.Snapshots.Delete(a.Ctx(), id), "delete snapshot %s", id)
	a.Gone(model.ResSnapshot, id)
}

// Attach exports a volume to a host and waits for the connection.
func (a *API) Attach(volumeID, hostID string) *wire.VolumeAttachmentSpec {
	a.T.Helper()
	x, err := a.Attachments.Create(a.Ctx(), &wire.VolumeAttachmentSpec{VolumeID: volumeID, HostID: hostID})
	a.ok(err, "attach %s", volumeID)
	a.Settle(model.ResAttachment, x.ID, x.TaskID)
	x, err = a.Attachments.Get(a.Ctx(), x.ID)
	a.ok(err, "get attachment")
	return x
}

// Detach ends an export and waits until it is gone.
func (a *API) Detach(id string) {
	a.T.Helper()
	a.ok(a.Attachments.Delete(a.Ctx(), id), "detach %s", id)
	a.Gone(model.ResAttachment, id)
}

// Quiet waits until no task is in progress anywhere.
func (a *API) Quiet(limit time.Duration) {
	a.T.Helper()
	a.c.Until(limit, "no task is in progress", func() error { return a.quiet() })
}

func (a *API) quiet() error {
	ctx, cancel := context.WithTimeout(a.T.Context(), 20*time.Second)
	defer cancel()
	tasks, err := a.Tasks.Collect(ctx, client.Query{}.Where("state", "active"), 0)
	if err != nil {
		return err
	}
	if len(tasks) == 0 {
		return nil
	}
	var b strings.Builder
	for i, t := range tasks {
		if i == 10 {
			break
		}
		fmt.Fprintf(&b, "\n  %s %s %s: %s, step %s, %d attempts: %s", t.Resource, t.ResourceID, t.Kind, t.State, t.Step, t.Attempts, t.LastError)
	}
	return fmt.Errorf("%d are:%s", len(tasks), b.String())
}

// Doctor has the server check its invariants and fails the test with what it
// found.
func (a *API) Doctor() {
	a.T.Helper()
	r, err := a.Client.Doctor(a.Ctx())
	a.ok(err, "doctor")
	if err := Findings(r); err != nil {
		a.T.Fatal(err)
	}
	if len(r.Checks) == 0 {
		a.T.Fatal("the doctor made no check")
	}
}

// Findings gives what a doctor's report says against the system; nil if it says
// nothing.
func Findings(r *wire.DoctorReport) error {
	var errs []error
	for _, c := range r.Checks {
		if c.OK {
			continue
		}
		errs = append(errs, fmt.Errorf("doctor: %s (%s): %s\n    %s", c.Name, c.Description, c.Error, strings.Join(c.CounterExamples, "\n    ")))
	}
	if len(errs) == 0 && !r.OK {
		errs = append(errs, errors.New("doctor: not ok, and no check says why"))
	}
	return errors.Join(errs...)
}

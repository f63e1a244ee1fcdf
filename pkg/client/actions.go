package client

import (
	"context"
	"net/http"
	"net/url"
	"strconv"

	"github.com/osds-io/osds/pkg/model/wire"
)

// Versions lists the API versions of the server.
func (c *Client) Versions(ctx context.Context) ([]wire.VersionSpec, error) {
	var v []wire.VersionSpec
	rq := newRequest(http.MethodGet, "", nil, nil, nil)
	rq.root = true
	_, err := c.call(ctx, rq, &v)
	return v, err
}

// Version gives one API version.
func (c *Client) Version(ctx context.Context, name string) (*wire.VersionSpec, error) {
	rq := newRequest(http.MethodGet, url.PathEscape(name), nil, nil, nil)
	rq.root = true
	return one[wire.VersionSpec](ctx, c, rq)
}

// AvailabilityZones lists the zones that pools are in.
func (c *Client) AvailabilityZones(ctx context.Context) ([]string, error) {
	v := []string{}
	_, err := c.call(ctx, newRequest(http.MethodGet, "availabilityZones", nil, nil, nil), &v)
	return v, err
}

// AddCustomProperties adds entries to a profile's customProperties and gives
// them all.
func (c *Client) AddCustomProperties(ctx context.Context, profileID string, add map[string]any, opts ...Option) (map[string]any, error) {
	p, err := idPath(c.Profiles.path, profileID, "customProperties")
	if err != nil {
		return nil, err
	}
	var v map[string]any
	_, err = c.call(ctx, newRequest(http.MethodPost, p, nil, add, opts), &v)
	return v, err
}

// CustomProperties gives a profile's customProperties.
func (c *Client) CustomProperties(ctx context.Context, profileID string) (map[string]any, error) {
	p, err := idPath(c.Profiles.path, profileID, "customProperties")
	if err != nil {
		return nil, err
	}
	var v map[string]any
	_, err = c.call(ctx, newRequest(http.MethodGet, p, nil, nil, nil), &v)
	return v, err
}

// RemoveCustomProperty removes one entry of a profile's customProperties.
func (c *Client) RemoveCustomProperty(ctx context.Context, profileID, key string, opts ...Option) error {
	p, err := idPath(c.Profiles.path, profileID, "customProperties", key)
	if err != nil {
		return err
	}
	_, err = c.call(ctx, newRequest(http.MethodDelete, p, nil, nil, opts), nil)
	return err
}

// action posts to a record's action and gives the record.
func action[T any](ctx context.Context, c *Client, path, id, name string, body any, opts []Option) (*T, error) {
	p, err := idPath(path, id, name)
	if err != nil {
		return nil, err
	}
	return one[T](ctx, c, newRequest(http.MethodPost, p, nil, body, opts))
}

// ExtendVolume grows a volume to a size in GB.
func (c *Client) ExtendVolume(ctx context.Context, id string, newSize int64, opts ...Option) (*wire.VolumeSpec, error) {
	return c.ResizeVolume(ctx, id, &wire.ExtendVolumeSpec{NewSize: newSize}, opts...)
}

// ResizeVolume grows a volume, and if asked to the file system on it.
func (c *Client) ResizeVolume(ctx context.Context, id string, spec *wire.ExtendVolumeSpec, opts ...Option) (*wire.VolumeSpec, error) {
	return action[wire.VolumeSpec](ctx, c, c.Volumes.path, id, "resize", spec, opts)
}

// RevertToSnapshot puts a snapshot's volume back to what it was then.
func (c *Client) RevertToSnapshot(ctx context.Context, snapshotID string, body *wire.RevertSpec, opts ...Option) (*wire.VolumeSpec, error) {
	if body == nil {
		body = &wire.RevertSpec{}
	}
	return action[wire.VolumeSpec](ctx, c, c.Snapshots.path, snapshotID, "revert", body, opts)
}

// PlanVolume says where a volume would be placed, and why, and makes nothing.
func (c *Client) PlanVolume(ctx context.Context, spec *wire.VolumeSpec, opts ...Option) (*wire.ExplanationSpec, error) {
	rq := newRequest(http.MethodPost, c.Volumes.path, url.Values{"dryRun": {"explain"}}, spec, opts)
	rq.harmless = true
	return one[wire.ExplanationSpec](ctx, c, rq)
}

// VolumeExplanation says why a volume is where it is, or is nowhere.
func (c *Client) VolumeExplanation(ctx context.Context, id string) (*wire.ExplanationSpec, error) {
	p, err := idPath(c.Volumes.path, id, "explanation")
	if err != nil {
		return nil, err
	}
	return one[wire.ExplanationSpec](ctx, c, newRequest(http.MethodGet, p, nil, nil, nil))
}

// CancelTask asks a task to undo itself.
func (c *Client) CancelTask(ctx context.Context, id string, opts ...Option) (*wire.TaskSpec, error) {
	return action[wire.TaskSpec](ctx, c, c.Tasks.path, id, "cancel", nil, opts)
}

// RetryTask tries a waiting task's next step now.
func (c *Client) RetryTask(ctx context.Context, id string, opts ...Option) (*wire.TaskSpec, error) {
	return action[wire.TaskSpec](ctx, c, c.Tasks.path, id, "retry", nil, opts)
}

// DeleteDock removes a dock that will not come back, with its pools, and writes
// off what is owed on its backends. Administrators only.
func (c *Client) DeleteDock(ctx context.Context, id string, opts ...Option) error {
	p, err := idPath(c.Docks.path, id)
	if err != nil {
		return err
	}
	_, err = c.call(ctx, newRequest(http.MethodDelete, p, nil, nil, opts), nil)
	return err
}

// ImportablePage is how many volumes Importable lists at once.
const ImportablePage = 1000

// Importable lists what a pool's backend has that osds has not made: the page
// after a marker, and the marker of the next one, if there is more. Administrators
// only.
func (c *Client) Importable(ctx context.Context, poolID, marker string) (list []wire.ImportableSpec, next string, err error) {
	p, err := idPath(c.Pools.path, poolID, "importable")
	if err != nil {
		return nil, "", err
	}
	q := url.Values{"limit": {strconv.Itoa(ImportablePage)}}
	if marker != "" {
		q.Set("marker", marker)
	}
	list = []wire.ImportableSpec{}
	a, err := c.call(ctx, newRequest(http.MethodGet, p, q, nil, nil), &list)
	if err != nil {
		return nil, "", err
	}
	return list, a.header.Get(wire.HeaderNextMarker), nil
}

// Doctor has the server check its invariants. Administrators only.
func (c *Client) Doctor(ctx context.Context) (*wire.DoctorReport, error) {
	return one[wire.DoctorReport](ctx, c, newRequest(http.MethodGet, "doctor", nil, nil, nil))
}

// Ledger gives what is reserved in each pool. Administrators only.
func (c *Client) Ledger(ctx context.Context) ([]wire.LedgerSpec, error) {
	v := []wire.LedgerSpec{}
	_, err := c.call(ctx, newRequest(http.MethodGet, "ledger", nil, nil, nil), &v)
	return v, err
}

// Debts lists the work owed on backends. Administrators only.
func (c *Client) Debts(ctx context.Context) ([]wire.DebtSpec, error) {
	v := []wire.DebtSpec{}
	_, err := c.call(ctx, newRequest(http.MethodGet, "debts", nil, nil, nil), &v)
	return v, err
}

package client

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"github.com/osds-io/osds/pkg/model"
	"github.com/osds-io/osds/pkg/model/wire"
)

// DefaultEndpoint is where a server listens if nothing else is said.
const DefaultEndpoint = "http://localhost:50040"

// Config says which server to talk to, and as whom. The zero value is the
// administrator in noauth mode at DefaultEndpoint.
type Config struct {
	// Endpoints are base URLs of equal servers. The first that can be reached
	// is used until it cannot.
	Endpoints []string
	// TenantID stands in every path.
	TenantID string
	// Token is sent as X-Auth-Token.
	Token model.Secret
	// CAFile holds the certificates that sign https servers' ones; empty means
	// the system's. CertFile and KeyFile are the client's own, if it has one.
	CAFile, CertFile, KeyFile string
	// Timeout is the deadline of a call whose context has none, with all its
	// repetitions; AttemptTimeout that of one try.
	Timeout, AttemptTimeout time.Duration
	// Retries is how often a call that may be repeated is; negative is never.
	Retries int
	// UserAgent goes before the client's own name.
	UserAgent string
	// NoIdempotencyKey stops the client from making keys for POST. Such
	// requests are then never repeated.
	NoIdempotencyKey bool
	// Transport replaces the HTTP transport; TLS settings are then its own.
	Transport http.RoundTripper
	// Wrap, if set, is put around the transport: see Trace.
	Wrap func(http.RoundTripper) http.RoundTripper
}

// Defaults of Config.
const (
	DefaultTimeout        = 60 * time.Second
	DefaultAttemptTimeout = 20 * time.Second
	DefaultRetries        = 4
)

const ownAgent = "osds-client/1"

// Client talks to the API. It may be used by many goroutines.
type Client struct {
	Docks       Reader[wire.DockSpec]
	Pools       Reader[wire.StoragePoolSpec]
	Profiles    Collection[wire.ProfileSpec]
	Hosts       Collection[wire.HostSpec]
	Volumes     Collection[wire.VolumeSpec]
	Snapshots   Collection[wire.VolumeSnapshotSpec]
	Attachments Collection[wire.VolumeAttachmentSpec]
	Groups      Collection[wire.VolumeGroupSpec]
	Tasks       Reader[wire.TaskSpec]

	cfg       Config
	endpoints []*url.URL
	http      *http.Client
	// current is the index of the endpoint in use.
	current atomic.Int64
	// revision is the newest that any answer reflected.
	revision atomic.Int64
}

// New makes a client. It does not connect yet; an error is about the Config.
func New(cfg Config) (*Client, error) {
	if cfg.TenantID == "" {
		cfg.TenantID = model.AdminTenant
	}
	if !model.ValidTenant(cfg.TenantID) {
		return nil, model.Invalid("tenant", "tenant id %q may only have letters, digits, '_' and '-'", cfg.TenantID)
	}
	if len(cfg.Endpoints) == 0 {
		cfg.Endpoints = []string{DefaultEndpoint}
	}
	cfg.Timeout = orDefault(cfg.Timeout, DefaultTimeout)
	cfg.AttemptTimeout = orDefault(cfg.AttemptTimeout, DefaultAttemptTimeout)
	if cfg.Retries == 0 {
		cfg.Retries = DefaultRetries
	}
	cfg.UserAgent = strings.TrimSpace(cfg.UserAgent + " " + ownAgent)
	c := &Client{cfg: cfg}
	for _, e := range cfg.Endpoints {
		u, err := parseEndpoint(e)
		if err != nil {
			return nil, err
		}
		c.endpoints = append(c.endpoints, u)
	}
	rt := cfg.Transport
	if rt == nil {
		t, err := transport(&cfg)
		if err != nil {
			return nil, err
		}
		rt = t
	}
	if cfg.Wrap != nil {
		rt = cfg.Wrap(rt)
	}
	c.http = &http.Client{
		Transport: rt,
		// A redirect would carry the token to wherever it points.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	c.collections()
	return c, nil
}

func (c *Client) collections() {
	c.Docks = reader[wire.DockSpec](c, model.ResDock)
	c.Pools = reader[wire.StoragePoolSpec](c, model.ResPool)
	c.Profiles = collection[wire.ProfileSpec](c, model.ResProfile)
	c.Hosts = collection[wire.HostSpec](c, model.ResHost)
	c.Volumes = collection[wire.VolumeSpec](c, model.ResVolume)
	c.Snapshots = collection[wire.VolumeSnapshotSpec](c, model.ResSnapshot)
	c.Attachments = collection[wire.VolumeAttachmentSpec](c, model.ResAttachment)
	c.Groups = collection[wire.VolumeGroupSpec](c, model.ResGroup)
	c.Tasks = reader[wire.TaskSpec](c, ResTask)
}

// ResTask names tasks where a resource is asked for: they are not stored as
// records of their own, but are shown as such.
const ResTask model.Resource = "tasks"

// paths says where in the API a resource is.
var paths = map[model.Resource]string{
	model.ResDock:       "docks",
	model.ResPool:       "pools",
	model.ResProfile:    "profiles",
	model.ResHost:       "host/hosts",
	model.ResVolume:     "block/volumes",
	model.ResSnapshot:   "block/snapshots",
	model.ResAttachment: "block/attachments",
	model.ResGroup:      "block/volumeGroups",
	model.ResDebt:       "debts",
	model.ResLedger:     "ledger",
	ResTask:             "tasks",
}

// Path gives the path of a resource's records below the tenant; "" for a
// resource that the API does not have.
func Path(res model.Resource) string { return paths[res] }

// TenantID is the tenant that the client speaks for.
func (c *Client) TenantID() string { return c.cfg.TenantID }

// Endpoint is the server in use.
func (c *Client) Endpoint() string { return c.endpoint().String() }

// Revision is the newest revision that any answer reflected.
func (c *Client) Revision() int64 { return c.revision.Load() }

// SetRevision makes the next answers reflect at least this revision: for a
// caller that learnt of it from elsewhere.
func (c *Client) SetRevision(rev int64) { c.sawRevision(rev) }

// Close ends idle connections. The client may still be used.
func (c *Client) Close() { c.http.CloseIdleConnections() }

func (c *Client) endpoint() *url.URL {
	return c.endpoints[int(c.current.Load())%len(c.endpoints)]
}

// moveOn leaves an endpoint, unless somebody else already has.
func (c *Client) moveOn(from *url.URL) {
	i := c.current.Load()
	if c.endpoints[int(i)%len(c.endpoints)] == from {
		c.current.CompareAndSwap(i, (i+1)%int64(len(c.endpoints)))
	}
}

func (c *Client) sawRevision(rev int64) {
	for {
		old := c.revision.Load()
		if rev <= old || c.revision.CompareAndSwap(old, rev) {
			return
		}
	}
}

// deadline gives ctx the default deadline if it has none.
func (c *Client) deadline(ctx context.Context) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, c.cfg.Timeout)
}

func parseEndpoint(s string) (*url.URL, error) {
	s = strings.TrimSpace(s)
	if s != "" && !strings.Contains(s, "://") {
		s = "http://" + s
	}
	u, err := url.Parse(strings.TrimRight(s, "/"))
	if err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") || u.RawQuery != "" || u.Fragment != "" {
		return nil, model.Invalid("endpoint", "endpoint %q is not of the form http://host:port or https://host:port", s)
	}
	if u.User != nil {
		return nil, model.Invalid("endpoint", "endpoint %q has a user name or password in it: remove it", u.Redacted())
	}
	return u, nil
}

// transport is one for few servers and many calls.
func transport(cfg *Config) (*http.Transport, error) {
	t := &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		DialContext:           (&net.Dialer{Timeout: 5 * time.Second, KeepAlive: 15 * time.Second}).DialContext,
		TLSHandshakeTimeout:   10 * time.Second,
		MaxIdleConns:          64,
		MaxIdleConnsPerHost:   32,
		IdleConnTimeout:       60 * time.Second,
		ExpectContinueTimeout: time.Second,
		ForceAttemptHTTP2:     true,
		TLSClientConfig:       &tls.Config{MinVersion: tls.VersionTLS12},
	}
	if cfg.CAFile != "" {
		pem, err := os.ReadFile(cfg.CAFile)
		if err != nil {
			return nil, model.Invalid("caFile", "cannot read the CA file: %v", err)
		}
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM(pem) {
			return nil, model.Invalid("caFile", "CA file %s has no certificate in PEM form", cfg.CAFile)
		}
		t.TLSClientConfig.RootCAs = pool
	}
	if (cfg.CertFile == "") != (cfg.KeyFile == "") {
		return nil, model.Invalid("certFile", "a client certificate needs both its certificate and its key file")
	}
	if cfg.CertFile != "" {
		pair, err := tls.LoadX509KeyPair(cfg.CertFile, cfg.KeyFile)
		if err != nil {
			return nil, model.Invalid("certFile", "cannot load the client certificate: %v", err)
		}
		t.TLSClientConfig.Certificates = []tls.Certificate{pair}
	}
	return t, nil
}

func orDefault(d, def time.Duration) time.Duration {
	if d <= 0 {
		return def
	}
	return d
}

// isTLSTrust says whether err is about a certificate: repeating cannot help.
func isTLSTrust(err error) bool {
	var unknown x509.UnknownAuthorityError
	var host x509.HostnameError
	var invalid x509.CertificateInvalidError
	var verify *tls.CertificateVerificationError
	return errors.As(err, &unknown) || errors.As(err, &host) || errors.As(err, &invalid) || errors.As(err, &verify)
}

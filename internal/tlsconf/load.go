package tlsconf

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"time"

	"google.golang.org/grpc/credentials"

	"github.com/osds-io/osds/pkg/model"
)

// Files are the files of one holder.
type Files struct {
	CA   string `yaml:"ca" doc:"The authority's certificate (PEM); peers must be signed by it."`
	Cert string `yaml:"cert" doc:"This process's certificate (PEM)."`
	Key  string `yaml:"key" doc:"The private key of cert (PEM)."`
}

// Set says whether any of the files is given.
func (f Files) Set() bool { return f.CA != "" || f.Cert != "" || f.Key != "" }

// Validate says which file is missing from the three.
func (f Files) Validate() error {
	if !f.Set() {
		return nil
	}
	for _, x := range []struct{ name, path string }{{"ca", f.CA}, {"cert", f.Cert}, {"key", f.Key}} {
		if x.path == "" {
			return model.Invalid(x.name, "is missing: ca, cert and key are needed together")
		}
	}
	return nil
}

// recheck is how long a look at the files on disk is good for.
const recheck = time.Second

// Identity is a holder's certificate and the authority it trusts, read again
// whenever the files change: new connections then use the new ones, standing
// ones stay. While the files on disk do not fit together the last good ones are
// used.
type Identity struct {
	files Files
	// OnReload, if set before first use, is told of each reload and of each
	// failure to.
	OnReload func(err error)

	mu      sync.Mutex
	checked time.Time
	stamp   [3]fileStamp // of cur
	failed  [3]fileStamp // of the last failure that was told of
	cur     *loaded
}

type fileStamp struct {
	mod  time.Time
	size int64
	err  string
}

type loaded struct {
	cert  tls.Certificate
	leaf  *x509.Certificate
	roots *x509.CertPool
}

// Load reads a holder's files. If own is not RoleNone the certificate must have
// that role: a dock that was given an osdslet's certificate refuses to start,
// because that key does not belong on a storage host.
func Load(files Files, own Role) (*Identity, error) {
	if !files.Set() {
		return nil, errors.New("tls: ca, cert and key are not set")
	}
	if err := files.Validate(); err != nil {
		return nil, fmt.Errorf("tls: %w", err)
	}
	id := &Identity{files: files}
	id.stamp = id.look()
	cur, err := files.load()
	if err != nil {
		return nil, err
	}
	if r := RoleOf(cur.leaf); own != RoleNone && r != own {
		return nil, fmt.Errorf("tls: %s has the role %q, need one with the role %q", files.Cert, r, own)
	}
	id.cur, id.checked = cur, time.Now()
	return id, nil
}

func (f Files) load() (*loaded, error) {
	ca, err := os.ReadFile(f.CA)
	if err != nil {
		return nil, fmt.Errorf("tls: %w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(ca) {
		return nil, fmt.Errorf("tls: %s holds no certificate", f.CA)
	}
	cert, err := tls.LoadX509KeyPair(f.Cert, f.Key)
	if err != nil {
		return nil, fmt.Errorf("tls: %s, %s: %w", f.Cert, f.Key, err)
	}
	return &loaded{cert: cert, leaf: cert.Leaf, roots: roots}, nil
}

func (id *Identity) look() [3]fileStamp {
	var out [3]fileStamp
	for i, p := range []string{id.files.CA, id.files.Cert, id.files.Key} {
		st, err := os.Stat(p)
		if err != nil {
			out[i].err = err.Error()
			continue
		}
		out[i].mod, out[i].size = st.ModTime(), st.Size()
	}
	return out
}

// current gives what is in use, after looking whether the files changed.
func (id *Identity) current() *loaded {
	id.mu.Lock()
	defer id.mu.Unlock()
	if time.Since(id.checked) < recheck {
		return id.cur
	}
	id.checked = time.Now()
	stamp := id.look()
	if stamp == id.stamp {
		return id.cur
	}
	next, err := id.files.load()
	if err == nil && RoleOf(next.leaf) != RoleOf(id.cur.leaf) {
		err = fmt.Errorf("tls: %s now has the role %q, was %q", id.files.Cert, RoleOf(next.leaf), RoleOf(id.cur.leaf))
	}
	// A failure is tried again at the next look, but told of once per change.
	tell := err == nil || stamp != id.failed
	if err == nil {
		id.cur, id.stamp = next, stamp
	} else {
		id.failed = stamp
	}
	if tell && id.OnReload != nil {
		id.OnReload(err)
	}
	return id.cur
}

// Expires is when the certificate in use ends.
func (id *Identity) Expires() time.Time { return id.current().leaf.NotAfter }

// Certificate is the one in use, for listeners with a configuration of their own.
func (id *Identity) Certificate() *tls.Certificate { return &id.current().cert }

// ServerConfig is for listeners whose clients must hold a certificate of the
// role peer; RoleNone asks clients for no certificate at all.
func (id *Identity) ServerConfig(peer Role) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
			return id.serverNow(peer), nil
		},
	}
}

func (id *Identity) serverNow(peer Role) *tls.Config {
	cur := id.current()
	c := &tls.Config{
		MinVersion:   tls.VersionTLS13,
		Certificates: []tls.Certificate{cur.cert},
		NextProtos:   []string{"h2", "http/1.1"},
		// A resumed session would outlive a change of the authority.
		SessionTicketsDisabled: true,
	}
	if peer != RoleNone {
		c.ClientAuth = tls.RequireAndVerifyClientCert
		c.ClientCAs = cur.roots
		c.VerifyConnection = checkRole(peer)
	}
	return c
}

func (id *Identity) clientNow(peer Role) *tls.Config {
	cur := id.current()
	return &tls.Config{
		MinVersion:       tls.VersionTLS13,
		Certificates:     []tls.Certificate{cur.cert},
		RootCAs:          cur.roots,
		VerifyConnection: checkRole(peer),
	}
}

// checkRole refuses a peer, verified already, that has another role.
func checkRole(want Role) func(tls.ConnectionState) error {
	return func(cs tls.ConnectionState) error {
		if len(cs.PeerCertificates) == 0 {
			return errors.New("the peer showed no certificate")
		}
		if got := RoleOf(cs.PeerCertificates[0]); got != want {
			return fmt.Errorf("the peer's certificate has the role %q, need %q", got, want)
		}
		return nil
	}
}

// ServerCredentials are for a gRPC server whose clients must have the role peer.
func (id *Identity) ServerCredentials(peer Role) credentials.TransportCredentials {
	return &creds{id: id, peer: peer}
}

// ClientCredentials are for gRPC clients whose servers must have the role peer,
// and a certificate for the name or address dialled.
func (id *Identity) ClientCredentials(peer Role) credentials.TransportCredentials {
	return &creds{id: id, peer: peer}
}

// creds make the configuration anew for each handshake, so that it follows the
// files on both sides.
type creds struct {
	id   *Identity
	peer Role
}

func (c *creds) ClientHandshake(ctx context.Context, authority string, conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return credentials.NewTLS(c.id.clientNow(c.peer)).ClientHandshake(ctx, authority, conn)
}

func (c *creds) ServerHandshake(conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return credentials.NewTLS(c.id.serverNow(c.peer)).ServerHandshake(conn)
}

func (c *creds) Info() credentials.ProtocolInfo {
	return credentials.ProtocolInfo{SecurityProtocol: "tls"}
}

func (c *creds) Clone() credentials.TransportCredentials { d := *c; return &d }

// OverrideServerName is part of the interface; the name dialled is the one
// checked, always.
func (c *creds) OverrideServerName(string) error {
	return errors.New("tlsconf: the server name cannot be overridden")
}

// IsLoopback says whether an address, host:port or host, can only be reached
// from this machine.
func IsLoopback(addr string) bool {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		host = addr
	}
	if host == "localhost" {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}

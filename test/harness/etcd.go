package harness

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net"
	"os"
	"path/filepath"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/osds-io/osds/internal/tlsconf"
	"github.com/osds-io/osds/pkg/model"
)

// Etcd is an etcd server of the system's own package, with TLS on both sides and
// a password.
type Etcd struct {
	*Process
	c               *Cluster
	url             string
	ca, cert, key   string
	user            string
	password        model.Secret
	peer, client    string
	caPEM           []byte
	certPEM, keyPEM []byte
}

// StartEtcd installs etcd's package if need be, makes certificates, starts a
// member and switches authentication on. Where there is no etcd and none can be
// installed the test is skipped.
func (c *Cluster) StartEtcd() *Etcd {
	c.T.Helper()
	c.S.Need(c.T, "etcd-server", "etcd")
	e := &Etcd{c: c, client: Port(c.T), peer: Port(c.T), user: "root", password: "correct horse battery"}
	e.url = "https://" + e.client
	ca, err := tlsconf.MakeCA("etcd's authority")
	c.Must(err)
	pair, err := tlsconf.MakeCert(ca, tlsconf.Request{Kind: tlsconf.Both, IPs: []net.IP{net.IPv4(127, 0, 0, 1)}})
	c.Must(err)
	e.ca = WriteFile(c.T, filepath.Join(c.Dir, "etcd-ca.pem"), ca.Cert)
	e.cert, e.key = filepath.Join(c.Dir, "etcd.pem"), filepath.Join(c.Dir, "etcd.key")
	c.Must(pair.Write(e.cert, e.key))
	e.caPEM, e.certPEM, e.keyPEM = ca.Cert, pair.Cert, pair.Key
	peerURL := "http://" + e.peer
	e.Process = c.S.newProcess(c.T, "etcd", c.Dir, Tool(c.T, "etcd"), "--name", "test", "--data-dir", filepath.Join(c.Dir, "etcd"),
		"--listen-client-urls", e.url, "--advertise-client-urls", e.url,
		"--listen-peer-urls", peerURL, "--initial-advertise-peer-urls", peerURL, "--initial-cluster", "test="+peerURL,
		"--cert-file", e.cert, "--key-file", e.key, "--trusted-ca-file", e.ca, "--client-cert-auth", "--logger", "zap")
	c.Must(e.Start())
	e.enableAuth()
	return e
}

// Config is what an osdslet needs to use it.
func (e *Etcd) Config() Config {
	return Config{
		"etcd.endpoints": []string{e.url}, "etcd.username": e.user, "etcd.password": e.password.Reveal(),
		"etcd.tls.ca": e.ca, "etcd.tls.cert": e.cert, "etcd.tls.key": e.key,
	}
}

// Via gives the same for an osdslet that reaches it through a proxy.
func (e *Etcd) Via(p *Proxy) Config {
	return e.Config().With(Config{"etcd.endpoints": []string{"https://" + p.Addr}})
}

// Proxy makes a proxy before it.
func (e *Etcd) Proxy() *Proxy { return NewProxy(e.c.T, e.client) }

// enableAuth makes the user and has etcd ask for it.
func (e *Etcd) enableAuth() {
	c := e.c
	c.T.Helper()
	pair, err := tls.X509KeyPair(e.certPEM, e.keyPEM)
	c.Must(err)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(e.caPEM)
	cli, err := clientv3.New(clientv3.Config{
		Endpoints: []string{e.url}, DialTimeout: 5 * time.Second,
		TLS: &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12},
	})
	c.Must(err)
	defer cli.Close()
	c.Until(Limit, "etcd answers", func() error {
		if !e.Alive() {
			b, _ := os.ReadFile(e.LogPath())
			return errEnded{model.Errorf(model.KindInternal, "etcd has ended: %s", tail(b, 2000))}
		}
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		defer cancel()
		_, err := cli.Get(ctx, "health")
		return err
	})
	ctx, cancel := context.WithTimeout(context.Background(), Limit)
	defer cancel()
	_, err = cli.UserAdd(ctx, e.user, e.password.Reveal())
	c.Must(err)
	_, err = cli.RoleAdd(ctx, "root")
	c.Must(err)
	_, err = cli.UserGrantRole(ctx, e.user, "root")
	c.Must(err)
	_, err = cli.AuthEnable(ctx)
	c.Must(err)
}

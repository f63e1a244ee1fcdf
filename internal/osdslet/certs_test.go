package osdslet

import (
	"context"
	"crypto/tls"
	"io"
	"math/big"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/osds-io/osds/internal/tlsconf"
)

// webPair writes a certificate of the REST API and gives its serial number.
func webPair(t *testing.T, c *Config, ca tlsconf.Pair) *big.Int {
	t.Helper()
	p, err := tlsconf.MakeCert(ca, tlsconf.Request{Kind: tlsconf.Server, IPs: []net.IP{net.IPv4(127, 0, 0, 1)}})
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Write(c.API.Cert, c.API.Key); err != nil {
		t.Fatal(err)
	}
	pair, err := tls.X509KeyPair(p.Cert, p.Key)
	if err != nil {
		t.Fatal(err)
	}
	return pair.Leaf.SerialNumber
}

func webConfig(t *testing.T) (*Config, tlsconf.Pair) {
	t.Helper()
	ca, err := tlsconf.MakeCA("")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	c := DefaultConfig()
	c.DataDir, c.InsecureLoopback = filepath.Join(dir, "data"), true
	c.API.Listen, c.Registry.Listen = "127.0.0.1:0", "127.0.0.1:0"
	c.API.Cert, c.API.Key = filepath.Join(dir, "api.pem"), filepath.Join(dir, "api-key.pem")
	return &c, ca
}

func TestCheckFilesReadsTheCertificates(t *testing.T) {
	c, ca := webConfig(t)
	if err := c.CheckFiles(); err == nil || !strings.Contains(err.Error(), "api.cert") {
		t.Errorf("no certificate: %v", err)
	}
	webPair(t, c, ca)
	if err := c.CheckFiles(); err != nil {
		t.Error(err)
	}
	c.Etcd.TLS.CA = "/nope/ca.pem"
	if err := c.CheckFiles(); err == nil || !strings.Contains(err.Error(), "etcd.tls.ca") {
		t.Errorf("no authority of etcd: %v", err)
	}
	c.Etcd.TLS.CA = ""
	c.TLS = tlsconf.Files{CA: c.API.Cert, Cert: c.API.Cert, Key: c.API.Key}
	if err := c.CheckFiles(); err == nil || !strings.Contains(err.Error(), "role") {
		t.Errorf("a certificate without the role: %v", err)
	}
}

func TestTheRESTCertificateIsReloaded(t *testing.T) {
	c, ca := webConfig(t)
	first := webPair(t, c, ca)
	log := logrus.New()
	log.SetOutput(io.Discard)
	ctx, cancel := context.WithCancel(t.Context())
	ended, addr := make(chan error, 1), make(chan string, 1)
	go func() {
		ended <- Run(ctx, Options{Config: *c, Log: log, Ready: func(api, _ net.Addr) { addr <- api.String() }})
	}()
	defer func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}()
	var at string
	select {
	case at = <-addr:
	case err := <-ended:
		ended <- nil
		t.Fatal(err)
	}
	serial := func() *big.Int {
		t.Helper()
		// Only which certificate is shown matters here.
		conn, err := tls.Dial("tcp", at, &tls.Config{InsecureSkipVerify: true})
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		return conn.ConnectionState().PeerCertificates[0].SerialNumber
	}
	if got := serial(); got.Cmp(first) != 0 {
		t.Fatalf("shows %s, want %s", got, first)
	}
	web := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
	defer web.CloseIdleConnections()
	res, err := web.Get("https://" + at + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	page, err := io.ReadAll(res.Body)
	_ = res.Body.Close()
	if err != nil || !strings.Contains(string(page), `osds_certificate_expires_timestamp_seconds{certificate="api.cert"}`) {
		t.Errorf("%v: the certificate's end is not in the metrics", err)
	}
	second := webPair(t, c, ca)
	for end := time.Now().Add(30 * time.Second); serial().Cmp(second) != 0; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the new certificate is not used")
		}
	}
}

// Package tlsconf makes the certificates that the parts of osds know each other
// by, and the TLS configurations that use them.
//
// One authority signs for one cluster. A certificate names a role, osdslet or
// osdsdock, and each side checks the other's: whoever steals a storage host's
// key can be that dock, but never an osdslet that gives orders to docks.
package tlsconf

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/url"
	"time"

	"github.com/osds-io/osds/internal/atomicfile"
)

// Role is what a certificate lets its holder be.
type Role string

// The roles. RoleNone is for certificates that give none: of the REST API.
const (
	RoleNone Role = ""
	RoleLet  Role = "osdslet"
	RoleDock Role = "osdsdock"
)

// Kind says on which side of a connection a certificate may stand.
type Kind string

// The kinds.
const (
	Server Kind = "server"
	Client Kind = "client"
	Both   Kind = "both"
)

// Life is how long certificates are good for, and CALife how long the
// authority's own is.
const (
	Life   = 825 * 24 * time.Hour
	CALife = 3650 * 24 * time.Hour
)

// skew is how far back certificates begin, for clocks that are behind.
const skew = 5 * time.Minute

// Pair is a certificate and its private key, both PEM.
type Pair struct{ Cert, Key []byte }

// Write stores the two with mode 0600, the key first, each replaced at once.
func (p Pair) Write(certPath, keyPath string) error {
	if err := atomicfile.Write(keyPath, p.Key, 0o600); err != nil {
		return err
	}
	return atomicfile.Write(certPath, p.Cert, 0o600)
}

// Request asks for a certificate.
type Request struct {
	Kind Kind
	Role Role
	// Names and IPs are what the holder is reached by; a server needs at least
	// one.
	Names []string
	IPs   []net.IP
	// Life is how long it is good for; 0 means the constant Life.
	Life time.Duration
}

// MakeCA makes a new authority. Its key signs everything that the cluster
// trusts: it is best kept off the machines once the certificates are made.
func MakeCA(name string) (Pair, error) {
	if name == "" {
		name = "osds CA"
	}
	tmpl, err := template(CALife)
	if err != nil {
		return Pair{}, err
	}
	tmpl.Subject = pkix.Name{CommonName: name, Organization: []string{"osds"}}
	tmpl.IsCA, tmpl.BasicConstraintsValid, tmpl.MaxPathLenZero = true, true, true
	tmpl.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return Pair{}, err
	}
	return sign(tmpl, tmpl, key, key)
}

// MakeCert makes a certificate signed by the authority ca.
func MakeCert(ca Pair, r Request) (Pair, error) {
	caCert, caKey, err := parsePair(ca)
	if err != nil {
		return Pair{}, fmt.Errorf("the authority: %w", err)
	}
	if !caCert.IsCA {
		return Pair{}, errors.New("the authority's certificate may not sign others")
	}
	life := r.Life
	if life == 0 {
		life = Life
	}
	tmpl, err := template(life)
	if err != nil {
		return Pair{}, err
	}
	if tmpl.NotAfter.After(caCert.NotAfter) {
		tmpl.NotAfter = caCert.NotAfter
	}
	if err := r.fill(tmpl); err != nil {
		return Pair{}, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return Pair{}, err
	}
	return sign(tmpl, caCert, key, caKey)
}

func (r Request) fill(tmpl *x509.Certificate) error {
	switch r.Kind {
	case Server:
		tmpl.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	case Client:
		tmpl.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	case Both:
		tmpl.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	default:
		return fmt.Errorf("unknown kind %q, use server, client or both", r.Kind)
	}
	if r.Kind != Client && len(r.Names)+len(r.IPs) == 0 {
		return errors.New("a server's certificate needs a name or an address")
	}
	tmpl.KeyUsage = x509.KeyUsageDigitalSignature
	tmpl.DNSNames, tmpl.IPAddresses = r.Names, r.IPs
	switch r.Role {
	case RoleLet, RoleDock:
		tmpl.Subject = pkix.Name{CommonName: string(r.Role), Organization: []string{"osds"}}
		tmpl.URIs = []*url.URL{roleURI(r.Role)}
	case RoleNone:
		cn := "osds client"
		if len(r.Names) > 0 {
			cn = r.Names[0]
		} else if len(r.IPs) > 0 {
			cn = r.IPs[0].String()
		}
		if cn == string(RoleLet) || cn == string(RoleDock) {
			return fmt.Errorf("the first name is that of a role, %s; ask for the role or put another name first", cn)
		}
		tmpl.Subject = pkix.Name{CommonName: cn, Organization: []string{"osds"}}
	default:
		return fmt.Errorf("unknown role %q, use %s or %s", r.Role, RoleLet, RoleDock)
	}
	return nil
}

func roleURI(r Role) *url.URL { return &url.URL{Scheme: "osds", Host: "role", Path: "/" + string(r)} }

// RoleOf gives the role a certificate names: that of its osds://role/ URI, or
// else its common name, so that any other authority's tools can make one.
func RoleOf(c *x509.Certificate) Role {
	for _, u := range c.URIs {
		if u.Scheme == "osds" && u.Host == "role" && len(u.Path) > 1 {
			return Role(u.Path[1:])
		}
	}
	switch r := Role(c.Subject.CommonName); r {
	case RoleLet, RoleDock:
		return r
	}
	return RoleNone
}

func template(life time.Duration) (*x509.Certificate, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, err
	}
	now := time.Now().UTC()
	return &x509.Certificate{SerialNumber: serial, NotBefore: now.Add(-skew), NotAfter: now.Add(life)}, nil
}

func sign(tmpl, parent *x509.Certificate, key, parentKey *ecdsa.PrivateKey) (Pair, error) {
	der, err := x509.CreateCertificate(rand.Reader, tmpl, parent, &key.PublicKey, parentKey)
	if err != nil {
		return Pair{}, err
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return Pair{}, err
	}
	return Pair{
		Cert: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		Key:  pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}),
	}, nil
}

func parsePair(p Pair) (*x509.Certificate, *ecdsa.PrivateKey, error) {
	cb, _ := pem.Decode(p.Cert)
	kb, _ := pem.Decode(p.Key)
	if cb == nil || kb == nil {
		return nil, nil, errors.New("the certificate or the key is not PEM")
	}
	cert, err := x509.ParseCertificate(cb.Bytes)
	if err != nil {
		return nil, nil, err
	}
	k, err := x509.ParsePKCS8PrivateKey(kb.Bytes)
	if err != nil {
		return nil, nil, err
	}
	key, ok := k.(*ecdsa.PrivateKey)
	if !ok || !key.PublicKey.Equal(cert.PublicKey) {
		return nil, nil, errors.New("the key does not belong to the certificate")
	}
	return cert, key, nil
}

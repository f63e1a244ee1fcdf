package tlsconf

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/credentials"
)

var loopback = []net.IP{net.ParseIP("127.0.0.1")}

func must[T any](t *testing.T) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// store writes an authority's certificate and a pair, and names the files.
func store(t *testing.T, dir string, ca, p Pair) Files {
	t.Helper()
	f := Files{CA: filepath.Join(dir, "ca.pem"), Cert: filepath.Join(dir, "cert.pem"), Key: filepath.Join(dir, "key.pem")}
	if err := p.Write(f.Cert, f.Key); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(f.CA, ca.Cert, 0o600); err != nil {
		t.Fatal(err)
	}
	return f
}

func identity(t *testing.T, ca Pair, r Request) *Identity {
	t.Helper()
	p := must[Pair](t)(MakeCert(ca, r))
	return must[*Identity](t)(Load(store(t, t.TempDir(), ca, p), RoleNone))
}

// shake does a handshake on loopback and gives both sides' errors. One byte is
// exchanged each way, because in TLS 1.3 a client learns of its refusal only
// when it reads.
func shake(t *testing.T, srv, cli credentials.TransportCredentials, name string) (srvErr, cliErr error) {
	t.Helper()
	lis := must[net.Listener](t)(net.Listen("tcp", "127.0.0.1:0"))
	defer lis.Close()
	done := make(chan error, 1)
	go func() {
		c, err := lis.Accept()
		if err != nil {
			done <- err
			return
		}
		defer c.Close()
		tc, _, err := srv.ServerHandshake(c)
		if err == nil {
			_, err = tc.Write([]byte{1})
		}
		done <- err
	}()
	c := must[net.Conn](t)(net.Dial("tcp", lis.Addr().String()))
	defer c.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	tc, _, err := cli.ClientHandshake(ctx, name, c)
	if err == nil {
		_, err = tc.Read(make([]byte, 1))
	}
	_ = c.Close()
	return <-done, err
}

func TestBothSidesVerify(t *testing.T) {
	ca := must[Pair](t)(MakeCA(""))
	other := must[Pair](t)(MakeCA(""))
	let := identity(t, ca, Request{Kind: Both, Role: RoleLet, IPs: loopback})
	dock := identity(t, ca, Request{Kind: Both, Role: RoleDock, IPs: loopback})
	foreign := identity(t, other, Request{Kind: Both, Role: RoleLet, IPs: loopback})
	roleless := identity(t, ca, Request{Kind: Both, Names: []string{"someone"}, IPs: loopback})
	clientOnly := identity(t, ca, Request{Kind: Client, Role: RoleDock})
	expired := identity(t, ca, Request{Kind: Both, Role: RoleLet, IPs: loopback, Life: -time.Minute})

	for _, tc := range []struct {
		name       string
		srv, cli   credentials.TransportCredentials
		serverName string
		want       string // in either side's error; empty: it works
	}{
		{"let to dock", dock.ServerCredentials(RoleLet), let.ClientCredentials(RoleDock), "127.0.0.1", ""},
		{"dock to let", let.ServerCredentials(RoleDock), dock.ClientCredentials(RoleLet), "127.0.0.1", ""},
		{"dock gives orders to dock", dock.ServerCredentials(RoleLet), dock.ClientCredentials(RoleDock), "127.0.0.1", `role "osdsdock", need "osdslet"`},
		{"dock poses as let's server", dock.ServerCredentials(RoleDock), dock.ClientCredentials(RoleLet), "127.0.0.1", `role "osdsdock", need "osdslet"`},
		{"foreign client", dock.ServerCredentials(RoleLet), foreign.ClientCredentials(RoleDock), "127.0.0.1", "unknown authority"},
		{"no role", dock.ServerCredentials(RoleLet), roleless.ClientCredentials(RoleDock), "127.0.0.1", `role "", need "osdslet"`},
		{"another address", dock.ServerCredentials(RoleLet), let.ClientCredentials(RoleDock), "10.0.0.1", "valid for 127.0.0.1, not 10.0.0.1"},
		{"client's certificate serves", clientOnly.ServerCredentials(RoleLet), let.ClientCredentials(RoleDock), "127.0.0.1", "certificate"},
		{"expired", dock.ServerCredentials(RoleLet), expired.ClientCredentials(RoleDock), "127.0.0.1", "expired"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			se, ce := shake(t, tc.srv, tc.cli, tc.serverName)
			if tc.want == "" {
				if se != nil || ce != nil {
					t.Fatalf("server %v, client %v", se, ce)
				}
				return
			}
			if se == nil || ce == nil {
				t.Fatalf("accepted: server %v, client %v", se, ce)
			}
			if !strings.Contains(se.Error()+ce.Error(), tc.want) {
				t.Errorf("server %v, client %v; want %q", se, ce, tc.want)
			}
		})
	}
}

func TestNoCertificateIsRefused(t *testing.T) {
	ca := must[Pair](t)(MakeCA(""))
	dock := identity(t, ca, Request{Kind: Both, Role: RoleDock, IPs: loopback})
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(ca.Cert)
	if se, ce := shake(t, dock.ServerCredentials(RoleLet), credentials.NewClientTLSFromCert(pool, ""), "127.0.0.1"); se == nil || ce == nil {
		t.Errorf("accepted: server %v, client %v", se, ce)
	}
}

func TestReload(t *testing.T) {
	ca := must[Pair](t)(MakeCA(""))
	dir := t.TempDir()
	files := store(t, dir, ca, must[Pair](t)(MakeCert(ca, Request{Kind: Both, Role: RoleDock, IPs: loopback})))
	dock := must[*Identity](t)(Load(files, RoleDock))
	var told []error
	dock.OnReload = func(err error) { told = append(told, err) }
	let := identity(t, ca, Request{Kind: Both, Role: RoleLet, IPs: loopback})
	works := func(let *Identity) bool {
		dock.checked = time.Time{} // as if the second had passed
		se, ce := shake(t, dock.ServerCredentials(RoleLet), let.ClientCredentials(RoleDock), "127.0.0.1")
		return se == nil && ce == nil
	}
	if !works(let) || len(told) != 0 {
		t.Fatalf("does not work at first: %v", told)
	}

	// A half-done replacement: the old pair stays in use, told of once.
	next := must[Pair](t)(MakeCA(""))
	p := must[Pair](t)(MakeCert(next, Request{Kind: Both, Role: RoleDock, IPs: loopback}))
	if err := os.WriteFile(files.Key, p.Key, 0o600); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if !works(let) {
			t.Fatalf("a half-done replacement was used: %v", told)
		}
	}
	if len(told) != 1 || told[0] == nil {
		t.Fatalf("told %v, want one failure", told)
	}

	// The rest: the new authority's peers are accepted, the old one's are not.
	store(t, dir, next, p)
	if works(let) {
		t.Error("the old authority is still trusted")
	}
	if !works(identity(t, next, Request{Kind: Both, Role: RoleLet, IPs: loopback})) {
		t.Error("the new authority is not trusted")
	}
	if len(told) != 2 || told[1] != nil {
		t.Errorf("told %v", told)
	}

	// A certificate of another role is not taken up.
	store(t, dir, next, must[Pair](t)(MakeCert(next, Request{Kind: Both, Role: RoleLet, IPs: loopback})))
	dock.checked = time.Time{}
	if r := RoleOf(dock.current().leaf); r != RoleDock {
		t.Errorf("took up the role %q", r)
	}
}

func TestLoadRefuses(t *testing.T) {
	ca := must[Pair](t)(MakeCA(""))
	files := store(t, t.TempDir(), ca, must[Pair](t)(MakeCert(ca, Request{Kind: Both, Role: RoleLet, IPs: loopback})))
	for name, tc := range map[string]struct {
		f    Files
		want string
	}{
		"nothing":    {Files{}, "not set"},
		"half":       {Files{CA: files.CA, Cert: files.Cert}, "is missing"},
		"absent":     {Files{CA: files.CA, Cert: files.Cert, Key: files.Key + "x"}, "no such file"},
		"not a CA":   {Files{CA: files.Key, Cert: files.Cert, Key: files.Key}, "holds no certificate"},
		"wrong role": {files, `role "osdslet", need one with the role "osdsdock"`},
	} {
		if _, err := Load(tc.f, RoleDock); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: got %v, want %q", name, err, tc.want)
		}
	}
}

func TestMake(t *testing.T) {
	ca := must[Pair](t)(MakeCA("my CA"))
	p := must[Pair](t)(MakeCert(ca, Request{Kind: Server, Role: RoleDock, Names: []string{"host-a"}, IPs: loopback}))
	block, _ := pem.Decode(p.Cert)
	c := must[*x509.Certificate](t)(x509.ParseCertificate(block.Bytes))
	if c.Subject.CommonName != "osdsdock" || c.URIs[0].String() != "osds://role/osdsdock" || c.DNSNames[0] != "host-a" ||
		!c.IPAddresses[0].Equal(loopback[0]) || c.IsCA {
		t.Errorf("made %+v", c)
	}
	if d := c.NotAfter.Sub(c.NotBefore); d != Life+skew {
		t.Errorf("good for %v", d)
	}
	f := store(t, t.TempDir(), ca, p)
	for _, path := range []string{f.Cert, f.Key} {
		if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", path, st.Mode(), err)
		}
	}
	for name, r := range map[string]Request{
		"no kind":      {Role: RoleDock, IPs: loopback},
		"nameless":     {Kind: Server, Role: RoleDock},
		"unknown role": {Kind: Both, Role: "root", IPs: loopback},
		"posing":       {Kind: Both, Names: []string{"osdslet"}, IPs: loopback},
	} {
		if _, err := MakeCert(ca, r); err == nil {
			t.Errorf("%s: made", name)
		}
	}
	if _, err := MakeCert(p, Request{Kind: Client, Role: RoleLet}); err == nil {
		t.Error("a dock's certificate signed another")
	}
	if _, err := MakeCert(Pair{}, Request{Kind: Client, Role: RoleLet}); err == nil {
		t.Error("nothing signed a certificate")
	}
}

func TestIsLoopback(t *testing.T) {
	for a, want := range map[string]bool{
		"127.0.0.1:1": true, "127.9.9.9": true, "[::1]:5": true, "localhost:80": true,
		":50050": false, "0.0.0.0:1": false, "10.0.0.1:1": false, "localhost.example:1": false, "": false,
	} {
		if IsLoopback(a) != want {
			t.Errorf("%q: %v", a, !want)
		}
	}
}

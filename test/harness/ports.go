package harness

import (
	"fmt"
	"net"
	"testing"

	"golang.org/x/sys/unix"
)

// Port reserves a loopback port for as long as the test runs and gives it as
// host:port.
func Port(t testing.TB) string {
	t.Helper()
	addr, release, err := ReservePort()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(release)
	return addr
}

// ReservePort reserves a loopback port until release is called and gives it as
// host:port. We keep a socket bound to it that does not listen: the kernel then
// gives the port to nobody else, while a child may listen on it, and again after a
// restart.
func ReservePort() (addr string, release func(), err error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return "", nil, err
	}
	release = func() { _ = unix.Close(fd) }
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
		release()
		return "", nil, err
	}
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		release()
		return "", nil, err
	}
	sa, err := unix.Getsockname(fd)
	if err != nil {
		release()
		return "", nil, err
	}
	return net.JoinHostPort("127.0.0.1", fmt.Sprint(sa.(*unix.SockaddrInet4).Port)), release, nil
}

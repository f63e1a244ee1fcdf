package guest

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"

	"golang.org/x/crypto/ssh"
	"golang.org/x/sys/unix"

	"github.com/osds-io/osds/test/harness"
)

// Config says what machines there are.
type Config struct {
	// Nodes is how many, 1 or 2. Two have two private networks between them.
	Nodes int
	// Memory is that of each in MiB, CPUs how many each has; 1024 and 1 if 0.
	Memory, CPUs int
	// Share is a directory of this machine that each has as /share.
	Share string
	// Disks are the sizes, in MiB, of each machine's blank data disks: /dev/vdb,
	// /dev/vdc and so on. They are sparse files, and outlive a power-off.
	Disks []int
}

// Links is how many networks two machines share.
const Links = 2

// Lab is some machines that run. It is closed by its owner.
type Lab struct {
	Nodes []*Node

	im      *Image
	conf    Config
	dir     string
	spawner *harness.Spawner
	signer  ssh.Signer
	key     string
	once    sync.Once
}

// Boot starts machines and waits until they answer. Their files are below dir,
// which is the caller's to remove, after Close.
func (im *Image) Boot(ctx context.Context, dir string, c Config) (*Lab, error) {
	if c.Nodes < 1 || c.Nodes > 2 {
		return nil, fmt.Errorf("%d machines are not 1 or 2", c.Nodes)
	}
	if c.Memory == 0 {
		c.Memory = 1024
	}
	if c.CPUs == 0 {
		c.CPUs = 1
	}
	l := &Lab{im: im, conf: c, dir: dir, spawner: harness.NewSpawner()}
	err := l.boot(ctx)
	if err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

func (l *Lab) boot(ctx context.Context) error {
	pub, priv, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return err
	}
	if l.signer, err = ssh.NewSignerFromKey(priv); err != nil {
		return err
	}
	sshPub, err := ssh.NewPublicKey(pub)
	if err != nil {
		return err
	}
	l.key = base64.StdEncoding.EncodeToString(sshPub.Marshal())
	for i := 1; i <= l.conf.Nodes; i++ {
		n, err := l.newNode(i)
		if err != nil {
			return err
		}
		l.Nodes = append(l.Nodes, n)
	}
	if l.conf.Nodes == 2 {
		for range Links {
			ends, err := wire()
			if err != nil {
				return err
			}
			l.Nodes[0].links = append(l.Nodes[0].links, ends[0])
			l.Nodes[1].links = append(l.Nodes[1].links, ends[1])
		}
	}
	for _, n := range l.Nodes {
		if err := n.start(); err != nil {
			return err
		}
	}
	for _, n := range l.Nodes {
		if err := n.waitUp(ctx); err != nil {
			return err
		}
	}
	return nil
}

// Close switches the machines off, hard.
func (l *Lab) Close() error {
	l.once.Do(func() {
		for _, n := range l.Nodes {
			n.PowerOff()
			n.release()
			for _, f := range n.links {
				_ = f.Close()
			}
		}
		l.spawner.Close()
	})
	return nil
}

func (l *Lab) newNode(i int) (*Node, error) {
	uuid := fmt.Sprintf("00000000-0000-4000-8000-%012d", i)
	n := &Node{
		Name: fmt.Sprintf("node%d", i), IQN: fmt.Sprintf("iqn.2004-10.com.example:node%d", i),
		HostNQN: "nqn.2014-08.org.nvmexpress:uuid:" + uuid,
		lab:     l, index: i, uuid: uuid,
	}
	for k := range Links {
		n.Addrs = append(n.Addrs, fmt.Sprintf("10.77.%d.%d", k, i))
	}
	if l.conf.Nodes == 1 {
		n.Addrs = nil
	}
	n.dir = filepath.Join(l.dir, n.Name)
	if err := os.Mkdir(n.dir, 0o700); err != nil {
		return nil, err
	}
	var err error
	if n.ssh, n.release, err = harness.ReservePort(); err != nil {
		return nil, err
	}
	for k, mib := range l.conf.Disks {
		p := n.disk(k)
		if err := os.WriteFile(p, nil, 0o600); err != nil {
			return nil, err
		}
		if err := os.Truncate(p, int64(mib)<<20); err != nil {
			return nil, err
		}
	}
	return n, nil
}

// wire is a network between two machines: two datagram sockets, each connected to
// the other. They are ours, so that a machine which was switched off finds its end
// again; like a network, they drop what comes too fast, and what nobody takes.
func wire() (ends [2]*os.File, err error) {
	var fds [2]int
	var addrs [2]unix.Sockaddr
	for i := range fds {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
		if err != nil {
			return ends, err
		}
		ends[i], fds[i] = os.NewFile(uintptr(fd), "link"+strconv.Itoa(i)), fd
		for _, opt := range []int{unix.SO_RCVBUFFORCE, unix.SO_SNDBUFFORCE} {
			// Without the right to more, the default is slower and works.
			_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, opt, 2<<20)
		}
		if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte(net.IPv4(127, 0, 0, 1).To4())}); err != nil {
			return ends, err
		}
		if addrs[i], err = unix.Getsockname(fd); err != nil {
			return ends, err
		}
	}
	for i, fd := range fds {
		if err := unix.Connect(fd, addrs[1-i]); err != nil {
			return ends, err
		}
	}
	return ends, nil
}

package guest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/crypto/ssh"
)

// bootLimit is how long a machine may take until it answers.
const bootLimit = 3 * time.Minute

// Node is one machine. Its methods may be called by several goroutines.
type Node struct {
	Name string
	// IQN and HostNQN are its names as an initiator.
	IQN, HostNQN string
	// Addrs are its addresses on the private networks; none where it is alone.
	Addrs []string

	lab     *Lab
	index   int
	uuid    string
	dir     string
	ssh     string // host:port, of this machine
	release func()
	links   []*os.File

	mu     sync.Mutex
	cmd    *exec.Cmd
	exited chan struct{}
	client *ssh.Client
	boots  int
}

func (n *Node) disk(k int) string { return filepath.Join(n.dir, fmt.Sprintf("disk%d", k+1)) }

func (n *Node) consolePath() string { return filepath.Join(n.dir, fmt.Sprintf("console%d", n.boots)) }

// Console is what the machine wrote to its console since it was switched on.
func (n *Node) Console() string {
	b, err := os.ReadFile(n.consolePath())
	if err != nil {
		return err.Error()
	}
	return string(b)
}

// args is the machine.
func (n *Node) args() []string {
	c := n.lab.conf
	kernel := fmt.Sprintf("console=ttyS0 quiet loglevel=4 panic=-1 mitigations=off nokaslr net.ifnames=0 no_timer_check nowatchdog random.trust_cpu=on"+
		" guest.name=%s guest.iqn=%s guest.uuid=%s guest.key=%s guest.addrs=%s", n.Name, n.IQN, n.uuid, n.lab.key, strings.Join(n.Addrs, ","))
	a := []string{"-name", n.Name, "-nodefaults", "-no-user-config", "-no-reboot", "-display", "none",
		"-machine", "pc,usb=off,vmport=off", "-accel", "tcg,thread=multi,tb-size=256", "-cpu", "qemu64",
		"-smp", fmt.Sprint(c.CPUs), "-m", fmt.Sprint(c.Memory),
		"-kernel", n.lab.im.file("kernel"), "-initrd", n.lab.im.file("initrd"),
		"-drive", "if=none,id=root,format=raw,readonly=on,cache=unsafe,file=" + n.lab.im.file("root.ext4"), "-device", "virtio-blk-pci,drive=root,serial=root",
		"-netdev", "user,id=user,restrict=on,hostfwd=tcp:" + n.ssh + "-:22", "-device", n.nic("user", 0),
		"-device", "virtio-rng-pci", "-serial", "file:" + n.consolePath(),
	}
	for i := range n.links {
		id := fmt.Sprintf("link%d", i)
		// The files that are passed on begin at 3.
		a = append(a, "-netdev", fmt.Sprintf("dgram,id=%s,local.type=fd,local.str=%d", id, 3+i), "-device", n.nic(id, i+1))
	}
	for k := range c.Disks {
		a = append(a, "-drive", fmt.Sprintf("if=none,id=disk%d,format=raw,cache=writeback,discard=unmap,detect-zeroes=off,file=%s", k, n.disk(k)),
			"-device", fmt.Sprintf("virtio-blk-pci,drive=disk%d,serial=disk%d,event_idx=off,ioeventfd=off", k, k))
	}
	if c.Share != "" {
		kernel += " guest.share=9p"
		a = append(a, "-virtfs", "local,mount_tag=share,security_model=none,multidevs=remap,path="+c.Share)
	}
	return append(a, "-append", kernel)
}

func (n *Node) nic(netdev string, i int) string {
	return fmt.Sprintf("virtio-net-pci,netdev=%s,romfile=,mac=52:54:00:77:%02d:%02d", netdev, i, n.index)
}

// start switches the machine on and does not wait.
func (n *Node) start() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.cmd != nil {
		return errors.New(n.Name + " is on already")
	}
	n.boots++
	path, err := exec.LookPath("qemu-system-x86_64")
	if err != nil {
		return err
	}
	out, err := os.OpenFile(filepath.Join(n.dir, "qemu.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer out.Close()
	cmd := exec.Command(path, n.args()...)
	cmd.Stdout, cmd.Stderr, cmd.ExtraFiles = out, out, n.links
	// It ends with us, should the test's process die.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := n.lab.spawner.Run(cmd.Start); err != nil {
		return fmt.Errorf("start %s: %w", n.Name, err)
	}
	exited := make(chan struct{})
	n.cmd, n.exited = cmd, exited
	go func() {
		defer close(exited)
		_ = cmd.Wait() // that it ended is what is asked for
	}()
	return nil
}

// waitUp waits until the machine answers.
func (n *Node) waitUp(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, bootLimit)
	defer cancel()
	err := errors.New("it has not booted")
	for {
		if strings.Contains(n.Console(), "guest: up") {
			if _, err = n.dialSSH(ctx); err == nil {
				return nil
			}
		}
		select {
		case <-n.exited:
			return fmt.Errorf("%s went off while it booted:\n%s\n%s", n.Name, n.qemuLog(), tail(n.Console(), 3000))
		case <-ctx.Done():
			return fmt.Errorf("%s is not up: %w, %w\n%s", n.Name, context.Cause(ctx), err, tail(n.Console(), 3000))
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func (n *Node) qemuLog() string {
	b, _ := os.ReadFile(filepath.Join(n.dir, "qemu.log"))
	return tail(string(b), 3000)
}

// PowerOff switches the machine off as a loss of power would. One that is off is
// left alone.
func (n *Node) PowerOff() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.client != nil {
		_ = n.client.Close()
		n.client = nil
	}
	if n.cmd == nil {
		return
	}
	_ = n.cmd.Process.Kill() // not waited for yet: the id is its own
	<-n.exited
	n.cmd = nil
}

// PowerOn switches the machine on again and waits until it answers.
func (n *Node) PowerOn(ctx context.Context) error {
	if err := n.start(); err != nil {
		return err
	}
	return n.waitUp(ctx)
}

// Pause stops the machine in the middle of whatever it does, as a hypervisor
// would; Resume lets it go on, and it has not noticed.
func (n *Node) Pause() error { return n.signal(syscall.SIGSTOP) }

// Resume ends a Pause.
func (n *Node) Resume() error { return n.signal(syscall.SIGCONT) }

func (n *Node) signal(sig syscall.Signal) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.cmd == nil {
		return errors.New(n.Name + " is off")
	}
	return n.cmd.Process.Signal(sig)
}

// dialSSH gives the connection that all commands share, made if need be.
func (n *Node) dialSSH(ctx context.Context) (*ssh.Client, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.client != nil {
		return n.client, nil
	}
	if n.cmd == nil {
		return nil, errors.New(n.Name + " is off")
	}
	d := net.Dialer{Timeout: 10 * time.Second}
	conn, err := d.DialContext(ctx, "tcp", n.ssh)
	if err != nil {
		return nil, err
	}
	// Whoever answers there is the QEMU that we started; its key is of no use.
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	c, chans, reqs, err := ssh.NewClientConn(conn, n.ssh, &ssh.ClientConfig{
		User: "root", Auth: []ssh.AuthMethod{ssh.PublicKeys(n.lab.signer)}, HostKeyCallback: ssh.InsecureIgnoreHostKey(),
	})
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	_ = conn.SetDeadline(time.Time{})
	n.client = ssh.NewClient(c, chans, reqs)
	return n.client, nil
}

// DialContext connects to an address as the machine sees it, such as
// 127.0.0.1:50040. It fits an http.Transport.
func (n *Node) DialContext(ctx context.Context, network, addr string) (net.Conn, error) {
	c, err := n.dialSSH(ctx)
	if err != nil {
		return nil, err
	}
	conn, err := c.DialContext(ctx, network, addr)
	if err != nil {
		n.forget(c, err)
	}
	return conn, err
}

// forget drops a connection that is broken, so that the next command makes one.
func (n *Node) forget(c *ssh.Client, err error) {
	var refused *ssh.OpenChannelError
	if errors.As(err, &refused) || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.client == c {
		_ = c.Close()
		n.client = nil
	}
}

func tail(s string, limit int) string {
	if len(s) > limit {
		s = "(...)" + s[len(s)-limit:]
	}
	return string(bytes.ToValidUTF8([]byte(s), []byte("?")))
}

package export

import (
	"context"
	"encoding/binary"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/osds-io/osds/pkg/model"
)

// This file finds out whether a host is connected to a subsystem. Kernels from
// 6.11 on list controllers in debugfs. Older ones tell nobody; but they answer
// the question itself: a request to join an I/O queue to a controller fails in
// one way if there is no such controller, and in another if there is one and the
// queue's number is out of range. Nothing is changed by either.

// connected names a host that has a controller. Where that cannot be found out
// it is empty: an export ends then as if nobody used it.
func (v *nvmet) connected(ctx context.Context, n *note) (string, error) {
	s := v.subsys(n.Name)
	if !exists(s) {
		return "", nil
	}
	if d := filepath.Join(nvmetDebug, n.Name); exists(d) {
		return debugController(d), nil
	}
	lo, hi, own := controllerRange(s)
	if !own {
		return "", nil
	}
	ports, err := parsePortals("portals", n.Portals, nvmePort)
	if err != nil {
		return "", err
	}
	// A subsystem's controllers are found through each of its ports, whichever
	// they came by.
	for _, p := range ports {
		for i, h := range n.Initiators {
			live, known, err := probeControllers(ctx, p.String(), n.Name, h, lo, hi)
			if ctx.Err() != nil {
				return "", model.Errorf(model.KindUnknownOutcome, "asking for controllers: %w", ctx.Err())
			}
			if live {
				return h, nil
			}
			if err != nil || !known {
				break // this port does not answer; another may
			}
			if i == len(n.Initiators)-1 {
				return "", nil
			}
		}
	}
	return "", nil
}

const nvmetDebug = "/sys/kernel/debug/nvmet"

// debugController names the host of a controller in a subsystem's directory.
func debugController(dir string) string {
	names, _ := subdirs(dir)
	for _, c := range names {
		if strings.HasPrefix(c, "ctrl") {
			if h := attr(filepath.Join(dir, c, "hostnqn")); h != "" {
				return h
			}
			return c
		}
	}
	return ""
}

// What the answer's result says; see nvmf_connect in the fabrics specification.
const (
	badController = 1<<16 | 16 // the id, in the connect's data
	badQueue      = 42         // the queue's number, in the command
)

// probeTime bounds a probe: the target is on this very host.
const probeTime = 2 * time.Second

// probeControllers asks for each controller id. known says that the answers were
// understood.
func probeControllers(ctx context.Context, addr, subsys, host string, lo, hi int) (live, known bool, err error) {
	for id := lo; id <= hi; id++ {
		result, err := probe(ctx, addr, joinQueue(subsys, host, uint16(id)))
		switch {
		case err != nil:
			return false, false, err
		case result == badQueue:
			return true, true, nil
		case result != badController:
			return false, false, nil // the subsystem is not on this port, say
		}
	}
	return false, true, nil
}

// probe makes a connection, of which the kernel takes one such command, and
// gives the answer's result.
func probe(ctx context.Context, addr string, command []byte) (uint32, error) {
	ctx, cancel := context.WithTimeout(ctx, probeTime)
	defer cancel()
	c, err := (&net.Dialer{}).DialContext(ctx, "tcp", addr)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	// The end of the context, by time or otherwise, ends the connection.
	stop := context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Now()) })
	defer stop()
	if err := greet(c); err != nil {
		return 0, err
	}
	if _, err := c.Write(command); err != nil {
		return 0, err
	}
	return answer(c)
}

// greet exchanges the first messages of a connection.
func greet(c io.ReadWriter) error {
	b := make([]byte, 128)
	b[2] = 128
	binary.LittleEndian.PutUint32(b[4:], 128)
	if _, err := c.Write(b); err != nil {
		return err
	}
	if _, err := io.ReadFull(c, b); err != nil {
		return err
	}
	if b[0] != 1 {
		return os.ErrInvalid
	}
	return nil
}

// joinQueue is a command that joins queue 65535 to a controller.
func joinQueue(subsys, host string, controller uint16) []byte {
	const header, command, data = 8, 64, 1024
	b := make([]byte, header+command+data)
	b[0], b[2], b[3] = 4, header+command, header+command
	binary.LittleEndian.PutUint32(b[4:], uint32(len(b)))
	cmd := b[header : header+command]
	cmd[0], cmd[1], cmd[4] = 0x7f, 0x40, 1 // fabrics; data by SGL; connect
	binary.LittleEndian.PutUint16(cmd[2:], 1)
	binary.LittleEndian.PutUint32(cmd[32:], data)
	cmd[39] = 1 // in the capsule
	binary.LittleEndian.PutUint16(cmd[42:], 0xffff)
	binary.LittleEndian.PutUint16(cmd[44:], 1)
	d := b[header+command:]
	binary.LittleEndian.PutUint16(d[16:], controller)
	copy(d[256:511], subsys)
	copy(d[512:767], host)
	return b
}

// answer reads one answer and gives its result.
func answer(c io.Reader) (uint32, error) {
	b := make([]byte, 24)
	if _, err := io.ReadFull(c, b); err != nil {
		return 0, err
	}
	if b[0] != 5 {
		return 0, os.ErrInvalid
	}
	return binary.LittleEndian.Uint32(b[8:]), nil
}

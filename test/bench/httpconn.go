//go:build linux

package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"time"
)

// httpConn is one keep-alive connection of an HTTP/1.1 client that does only what
// the load needs, one request after the other. The load shares the processors
// with what it measures: an ordinary client would take several times as much of
// them as the server's own HTTP.
type httpConn struct {
	addr string
	c    net.Conn
	r    *bufio.Reader
	body []byte
	// Of the last answer: the marker of the next page, and how many match.
	next  []byte
	total int
}

// answerLimit bounds how long an answer may take.
const answerLimit = 60 * time.Second

func newConn(addr string) *httpConn { return &httpConn{addr: addr} }

func (h *httpConn) close() {
	if h.c != nil {
		_ = h.c.Close()
		h.c = nil
	}
}

// do sends a request, which must be whole, and reads the answer. The body is
// good until the next call.
func (h *httpConn) do(req []byte) (status int, body []byte, err error) {
	if h.c == nil {
		if h.c, err = net.DialTimeout("tcp", h.addr, 5*time.Second); err != nil {
			return 0, nil, err
		}
		if h.r == nil {
			h.r = bufio.NewReaderSize(nil, 32<<10)
		}
		h.r.Reset(h.c)
	}
	if err = h.c.SetDeadline(time.Now().Add(answerLimit)); err == nil {
		if _, err = h.c.Write(req); err == nil {
			status, err = h.read()
		}
	}
	if err != nil {
		h.close()
		return 0, nil, err
	}
	return status, h.body, nil
}

var (
	errHead    = errors.New("not an HTTP/1.1 answer")
	hdrLength  = []byte("content-length")
	hdrCoding  = []byte("transfer-encoding")
	hdrConn    = []byte("connection")
	hdrMarker  = []byte("x-osds-next-marker")
	hdrTotal   = []byte("x-osds-total-count")
	valChunked = []byte("chunked")
	valClose   = []byte("close")
)

func (h *httpConn) read() (status int, err error) {
	line, err := h.r.ReadSlice('\n')
	if err != nil {
		return 0, err
	}
	if len(line) < 12 || string(line[:9]) != "HTTP/1.1 " {
		return 0, errHead
	}
	status = int(line[9]-'0')*100 + int(line[10]-'0')*10 + int(line[11]-'0')
	length, chunked, last := 0, false, false
	h.next, h.total = h.next[:0], -1
	for {
		if line, err = h.r.ReadSlice('\n'); err != nil {
			return 0, err
		}
		line = bytes.TrimRight(line, "\r\n")
		if len(line) == 0 {
			break
		}
		colon := bytes.IndexByte(line, ':')
		if colon < 0 {
			return 0, errHead
		}
		name, value := line[:colon], bytes.TrimSpace(line[colon+1:])
		switch {
		case is(name, hdrLength):
			if length, err = strconv.Atoi(string(value)); err != nil || length < 0 {
				return 0, errHead
			}
		case is(name, hdrCoding):
			chunked = bytes.EqualFold(value, valChunked)
		case is(name, hdrConn):
			last = bytes.EqualFold(value, valClose)
		case is(name, hdrMarker):
			h.next = append(h.next, value...)
		case is(name, hdrTotal):
			if h.total, err = strconv.Atoi(string(value)); err != nil {
				return 0, errHead
			}
		}
	}
	if chunked {
		err = h.readChunks()
	} else {
		err = h.readBody(length)
	}
	if err == nil && last {
		h.close()
	}
	return status, err
}

func is(name, want []byte) bool { return len(name) == len(want) && bytes.EqualFold(name, want) }

func (h *httpConn) readBody(n int) error {
	if cap(h.body) < n {
		h.body = make([]byte, n+n/4)
	}
	h.body = h.body[:n]
	_, err := io.ReadFull(h.r, h.body)
	return err
}

func (h *httpConn) readChunks() error {
	h.body = h.body[:0]
	for {
		line, err := h.r.ReadSlice('\n')
		if err != nil {
			return err
		}
		n, err := strconv.ParseUint(string(bytes.TrimSpace(line)), 16, 31)
		if err != nil {
			return errHead
		}
		at := len(h.body)
		h.body = append(h.body, make([]byte, int(n))...)
		if _, err := io.ReadFull(h.r, h.body[at:]); err != nil {
			return err
		}
		if _, err := h.r.Discard(2); err != nil {
			return err
		}
		if n == 0 {
			return nil
		}
	}
}

// request writes a request with its head into buf.
func request(buf []byte, method, path string, body []byte) []byte {
	buf = append(buf, method...)
	buf = append(buf, ' ')
	buf = append(buf, path...)
	buf = append(buf, " HTTP/1.1\r\nHost: bench\r\n"...)
	if body != nil {
		buf = append(buf, "Content-Type: application/json\r\nContent-Length: "...)
		buf = strconv.AppendInt(buf, int64(len(body)), 10)
		buf = append(buf, "\r\n"...)
	}
	buf = append(buf, "\r\n"...)
	return append(buf, body...)
}

// unexpected is the error of an answer with another status than hoped for.
func unexpected(what string, status int, body []byte) error {
	if len(body) > 300 {
		body = body[:300]
	}
	return fmt.Errorf("%s: status %d: %s", what, status, body)
}

package api

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/sirupsen/logrus"

	"github.com/osds-io/osds/pkg/db"
	"github.com/osds-io/osds/pkg/model"
)

// cpu is the processor time that this process has used, in nanoseconds.
func cpu() int64 {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return u.Utime.Nano() + u.Stime.Nano()
}

// discard is an answer that nobody reads.
type discard struct{ h http.Header }

func (d *discard) Header() http.Header         { return d.h }
func (d *discard) Write(b []byte) (int, error) { return len(b), nil }
func (d *discard) WriteHeader(int)             {}

// benchEnv logs as a daemon would.
func benchEnv(b *testing.B) *env {
	log := logrus.New()
	log.SetOutput(io.Discard)
	return newEnv(b, func(d *Deps) { d.Log = logrus.NewEntry(log) })
}

// BenchmarkGetVolume is the server's own share of a read, without the network.
func BenchmarkGetVolume(b *testing.B) {
	e := benchEnv(b)
	v := &model.Volume{Meta: model.Meta{ID: model.NewID(), TenantID: e.tenant, Name: "v"}, Size: model.GiB, Status: model.StatusAvailable,
		PoolID: model.NewID(), ProfileID: model.NewID(), BackendData: map[string]string{"lvPath": "/dev/vg/v"}}
	e.commit((&db.Txn{Label: "bench"}).Create(v))
	path := "/v1beta/" + e.tenant + "/block/volumes/" + v.ID
	b.ReportAllocs()
	start := cpu()
	for b.Loop() {
		e.s.ServeHTTP(&discard{http.Header{}}, httptest.NewRequest("GET", path, nil))
	}
	b.ReportMetric(float64(cpu()-start)/float64(b.N), "cpu-ns/op")
}

// BenchmarkListVolumes is a page of 50 of a thousand.
func BenchmarkListVolumes(b *testing.B) {
	e := benchEnv(b)
	for i := range 10 {
		tx := &db.Txn{Label: "bench"}
		for j := range 100 {
			tx.Create(&model.Volume{Meta: model.Meta{ID: model.NewID(), TenantID: e.tenant, Name: fmt.Sprintf("v%d-%d", i, j)}, Size: model.GiB, Status: model.StatusAvailable})
		}
		e.commit(tx)
	}
	path := "/v1beta/" + e.tenant + "/block/volumes?sortKey=name&offset=500"
	b.ReportAllocs()
	for b.Loop() {
		e.s.ServeHTTP(&discard{http.Header{}}, httptest.NewRequest("GET", path, nil))
	}
}

// BenchmarkCreateVolume is all that a create costs in this process, the embedded
// store included, with 128 requests in flight.
func BenchmarkCreateVolume(b *testing.B) {
	for _, keyed := range []bool{false, true} {
		b.Run(fmt.Sprintf("key=%v", keyed), func(b *testing.B) {
			e := benchEnv(b)
			body := `{"name":"bench","size":1,"profileId":"` + e.profile().ID + `"}`
			path := "/v1beta/" + e.tenant + "/block/volumes"
			var n atomic.Int64
			b.ReportAllocs()
			b.SetParallelism(64)
			start, before := cpu(), testStore.Stats()
			b.ResetTimer()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					r := httptest.NewRequest("POST", path, strings.NewReader(body))
					if keyed {
						r.Header.Set("Idempotency-Key", fmt.Sprint("k", b.N, "-", n.Add(1)))
					}
					w := httptest.NewRecorder()
					if e.s.ServeHTTP(w, r); w.Code != 202 {
						b.Errorf("%d %s", w.Code, w.Body)
					}
				}
			})
			b.StopTimer()
			after := testStore.Stats()
			b.ReportMetric(float64(cpu()-start)/float64(b.N), "cpu-ns/op")
			b.ReportMetric(float64(after.Changes-before.Changes)/float64(after.Txns-before.Txns), "changes/txn")
		})
	}
}

// BenchmarkHTTP is what requests cost over connections, with a client that does
// next to nothing: 64 connections, each with one request at a time.
func BenchmarkHTTP(b *testing.B) {
	e := benchEnv(b)
	v := &model.Volume{Meta: model.Meta{ID: model.NewID(), TenantID: e.tenant, Name: "v"}, Size: model.GiB, Status: model.StatusAvailable}
	e.commit((&db.Txn{Label: "bench"}).Create(v))
	body := `{"name":"bench","size":1,"profileId":"` + e.profile().ID + `"}`
	var n atomic.Int64
	for name, request := range map[string]func() string{
		"get": func() string {
			return "GET /v1beta/" + e.tenant + "/block/volumes/" + v.ID + " HTTP/1.1\r\nHost: x\r\n\r\n"
		},
		"create": func() string {
			return fmt.Sprintf("POST /v1beta/%s/block/volumes HTTP/1.1\r\nHost: x\r\nIdempotency-Key: k%d-%d\r\nContent-Length: %d\r\n\r\n%s", e.tenant, b.N, n.Add(1), len(body), body)
		},
	} {
		b.Run(name, func(b *testing.B) {
			b.SetParallelism(32)
			start := cpu()
			b.RunParallel(func(pb *testing.PB) {
				conn, err := net.Dial("tcp", strings.TrimPrefix(e.url, "http://"))
				if err != nil {
					b.Error(err)
					return
				}
				defer conn.Close()
				r := bufio.NewReader(conn)
				for pb.Next() {
					if err := exchange(conn, r, request()); err != nil {
						b.Error(err)
						return
					}
				}
			})
			b.ReportMetric(float64(cpu()-start)/float64(b.N), "cpu-ns/op")
		})
	}
}

// exchange sends a request and reads over its answer.
func exchange(conn net.Conn, r *bufio.Reader, request string) error {
	if _, err := io.WriteString(conn, request); err != nil {
		return err
	}
	length, first := 0, true
	for {
		line, err := r.ReadSlice('\n')
		if err != nil {
			return err
		}
		if first && !bytes.HasPrefix(line, []byte("HTTP/1.1 20")) {
			return fmt.Errorf("answer %q", line)
		}
		first = false
		if l, ok := bytes.CutPrefix(line, []byte("Content-Length: ")); ok {
			length, _ = strconv.Atoi(string(bytes.TrimSpace(l)))
		}
		if len(line) == 2 {
			break
		}
	}
	_, err := r.Discard(length)
	return err
}

package api

import (
	"strings"

	"github.com/osds-io/osds/pkg/model"
	"github.com/osds-io/osds/pkg/model/wire"
)

// ifMatch refuses a change of a record that is no longer the one that the caller
// has seen. The transaction guards on the same revision, so the answer is exact.
func (c *call) ifMatch(rev int64) error {
	hs := c.r.Header["If-Match"]
	if len(hs) == 0 {
		return nil
	}
	tag := wire.ETag(rev)
	for _, h := range hs {
		for _, t := range strings.Split(h, ",") {
			// A weak tag never matches: nothing here is only alike.
			if t = strings.TrimSpace(t); t == tag || t == "*" {
				return nil
			}
		}
	}
	return model.Errorf(model.KindStale, "the record is not the one that If-Match names: it is %s now; read it again", tag)
}

// noneMatch says whether an If-None-Match names the tag.
func noneMatch(hs []string, tag string) bool {
	for _, h := range hs {
		for _, t := range strings.Split(h, ",") {
			t = strings.TrimPrefix(strings.TrimSpace(t), "W/")
			if t == tag || t == "*" {
				return true
			}
		}
	}
	return false
}

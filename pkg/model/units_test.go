package model

import (
	"encoding/json"
	"testing"
)

// Records are stored as JSON and must come back as they were.
func TestBytesSurviveJSON(t *testing.T) {
	for _, n := range []Bytes{0, 1, GiB, -1, 1<<62 + 1} {
		in := Volume{Size: n, Reserved: n}
		b, err := json.Marshal(in)
		if err != nil {
			t.Fatal(err)
		}
		var out Volume
		if err := json.Unmarshal(b, &out); err != nil || out.Size != n || out.Reserved != n {
			t.Errorf("%s: %v, %v", b, out.Size, err)
		}
	}
	var b Bytes
	if err := json.Unmarshal([]byte(`"2GiB"`), &b); err != nil || b != 2*GiB {
		t.Error(b, err)
	}
	for _, s := range []string{`"x"`, `1.5`, `{}`, `99999999999999999999`} {
		if err := json.Unmarshal([]byte(s), &b); err == nil {
			t.Errorf("%s was read as %d", s, b)
		}
	}
}

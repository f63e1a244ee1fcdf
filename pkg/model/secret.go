package model

import (
	"encoding/json"
	"fmt"
)

// Secret is a string that prints as *** in every formatter, encoder and log.
// Reveal is the only way to the value; grep for it to see who looks.
type Secret string

const redacted = "***"

// Reveal gives the value.
func (s Secret) Reveal() string { return string(s) }

func (s Secret) String() string   { return redacted }
func (s Secret) GoString() string { return redacted }

// Format covers every verb of package fmt.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(redacted)) }

// MarshalJSON and MarshalText and MarshalYAML redact too.
func (s Secret) MarshalJSON() ([]byte, error) { return []byte(`"` + redacted + `"`), nil }

// MarshalText redacts.
func (s Secret) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// MarshalYAML redacts.
func (s Secret) MarshalYAML() (any, error) { return redacted, nil }

// StoredSecret is a Secret in a record: the store's JSON has its value, and
// everything else prints as ***. No type of package wire has one.
type StoredSecret struct{ s Secret }

// Stored gives the secret as records keep it.
func (s Secret) Stored() StoredSecret { return StoredSecret{s} }

// Secret gives it for use.
func (s StoredSecret) Secret() Secret { return s.s }

// IsZero says that there is none.
func (s StoredSecret) IsZero() bool { return s.s == "" }

func (s StoredSecret) String() string   { return redacted }
func (s StoredSecret) GoString() string { return redacted }

// Format covers every verb of package fmt.
func (s StoredSecret) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(redacted)) }

// MarshalJSON writes the value: only records have one, and only the store
// encodes records.
func (s StoredSecret) MarshalJSON() ([]byte, error) { return json.Marshal(string(s.s)) }

// UnmarshalJSON reads the value.
func (s *StoredSecret) UnmarshalJSON(b []byte) error {
	var v string
	if err := json.Unmarshal(b, &v); err != nil {
		return err
	}
	s.s = Secret(v)
	return nil
}

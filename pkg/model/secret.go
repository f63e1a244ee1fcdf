package model

import "fmt"

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

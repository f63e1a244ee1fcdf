package model

import "strings"

// secretKeys are the keys of a connection whose values are secrets.
var secretKeys = []string{"password", "secret", "authpassword", "authpasswordin", "key", "keyring", "token"}

// WithoutSecrets gives the connection as it may be shown to anybody, and kept:
// names and addresses stay, passwords are gone. It gives nil for nil.
func (c *Connection) WithoutSecrets() *Connection {
	if c == nil || !c.secrets() {
		return c
	}
	out := &Connection{Type: c.Type}
	if c.Data != nil {
		out.Data = make(map[string]any, len(c.Data))
	}
	for k, v := range c.Data {
		if !isSecret(k) {
			out.Data[k] = v
		}
	}
	return out
}

func (c *Connection) secrets() bool {
	for k := range c.Data {
		if isSecret(k) {
			return true
		}
	}
	return false
}

func isSecret(key string) bool {
	key = strings.ToLower(key)
	for _, s := range secretKeys {
		if key == s {
			return true
		}
	}
	return false
}

// String is for logs: it shows the kind of a connection, and nothing of what a
// host could log in with.
func (c Connection) String() string { return "connection(" + c.Type + ")" }

// GoString is like String.
func (c Connection) GoString() string { return c.String() }

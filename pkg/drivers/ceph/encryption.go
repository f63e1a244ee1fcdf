//go:build ceph

package ceph

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/ceph/go-ceph/rbd"

	"github.com/osds-io/osds/pkg/model"
)

// luksHeader is what LUKS2 takes of an image, as librbd makes it.
const luksHeader = 16 * model.MiB

// maxPassphrase bounds a passphrase file.
const maxPassphrase = 4096

// wishOf says whether a profile asks for encryption: with the customProperties
// encryption: luks2, or capabilities:extras.advanced.encryption: luks2, which
// selects the pools that can as well.
func (d *Driver) wishOf(p *model.Profile) (bool, error) {
	if p == nil {
		return false, nil
	}
	for _, k := range []string{encryptionKey, "capabilities:extras.advanced." + encryptionKey} {
		v, ok := p.Custom[k]
		if !ok || v == nil || v == "" {
			continue
		}
		s, _ := v.(string)
		s = strings.TrimSpace(strings.TrimPrefix(strings.TrimSpace(s), "s=="))
		if !strings.EqualFold(s, luks2) {
			return false, model.Invalid("profile.customProperties."+k, "must be %s, not %q", luks2, fmt.Sprint(v))
		}
		if d.conf.Encryption.PassphraseFile == "" {
			return false, model.Errorf(model.KindUnsupported, "the profile asks for encryption, and this backend has no encryption.passphraseFile")
		}
		return true, nil
	}
	return false, nil
}

// checkPassphrase refuses to open a backend whose passphrase cannot be read.
func (d *Driver) checkPassphrase() error {
	if d.conf.Encryption.PassphraseFile == "" {
		return nil
	}
	_, err := d.passphrase()
	return err
}

// passphrase reads the file each time, so that it can be changed. One newline at
// its end does not count.
func (d *Driver) passphrase() ([]byte, error) {
	f, err := os.Open(d.conf.Encryption.PassphraseFile)
	if err != nil {
		return nil, model.Errorf(model.KindUnavailable, "encryption.passphraseFile: %w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxPassphrase+1))
	if err != nil {
		return nil, model.Errorf(model.KindUnavailable, "encryption.passphraseFile: %w", err)
	}
	b = bytes.TrimSuffix(bytes.TrimSuffix(b, []byte("\n")), []byte("\r"))
	if len(b) == 0 || len(b) > maxPassphrase || bytes.IndexByte(b, 0) >= 0 {
		return nil, model.Errorf(model.KindUnavailable, "encryption.passphraseFile %s must hold 1 to %d bytes, none of them 0", d.conf.Encryption.PassphraseFile, maxPassphrase)
	}
	return b, nil
}

// format makes an image of size and luksHeader an encrypted volume of size.
func (s *space) format(ctx context.Context, img *image, size model.Bytes) (*crypt, error) {
	pass, err := s.d.passphrase()
	if err != nil {
		return nil, err
	}
	defer clear(pass)
	rw, err := s.open(img.id, true)
	if err == nil && rw == nil {
		err = noVolume(img.id)
	}
	if err != nil {
		return nil, err
	}
	defer rw.close()
	if err := rw.EncryptionFormat(rbd.EncryptionOptionsLUKS2{Alg: rbd.EncryptionAlgorithmAES256, Passphrase: pass}); err != nil {
		return nil, err
	}
	// Formatting loads the encryption too: what is seen now is the volume.
	n, err := rw.GetSize()
	if err != nil {
		return nil, err
	}
	if model.Bytes(n) < size || model.Bytes(n) > img.raw {
		return nil, model.Errorf(model.KindInternal, "of %s LUKS2 leaves %s, not the %s that are needed", img.raw, model.Bytes(n), size)
	}
	if err := rw.Image.Close(); err != nil {
		return nil, err
	}
	return &crypt{Format: luks2, Header: img.raw - model.Bytes(n), Secret: s.d.conf.Encryption.PassphraseFile}, step(ctx, "create.formatted")
}

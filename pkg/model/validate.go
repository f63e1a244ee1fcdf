package model

import (
	"fmt"
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Bounds of what clients may send. They are far above honest use; what they
// keep out is a record that no longer fits a transaction.
const (
	MaxName          = 255
	MaxDescription   = 1024
	MaxMetadataKeys  = 64
	MaxMetadataKey   = 255
	MaxMetadataValue = 1024
	MaxMountpoint    = 1024
)

// volumeName is what the original accepts as the name of a volume.
var volumeName = regexp.MustCompile(`^[a-zA-Z0-9 _-]+$`)

// ValidateVolumeName checks a volume's name, with the original's rules and,
// where it has one, its text.
func ValidateVolumeName(name string) error {
	switch {
	case name == "":
		return Invalid("name", "empty volume name is not allowed. Please give valid name")
	case len(name) > MaxName:
		return Invalid("name", "volume name has %d characters, at most %d are allowed", len(name), MaxName)
	case !volumeName.MatchString(name):
		// The two spaces are the original's.
		return Invalid("name", "invalid volume name, it should only contain english char and number  : %s", name)
	}
	return nil
}

// ValidateName checks the name of anything but a volume: bounded printable
// text. Whether it may be empty is the caller's rule.
func ValidateName(field, name string, required bool) error {
	if name == "" {
		if required {
			return Invalid(field, "%s is missing: give a name of 1 to %d characters", field, MaxName)
		}
		return nil
	}
	return validateText(field, name, MaxName)
}

// ValidateDescription checks a description.
func ValidateDescription(s string) error { return validateText("description", s, MaxDescription) }

// ValidateMountpoint checks where a host says that it mounts a volume.
func ValidateMountpoint(s string) error { return validateText("mountpoint", s, MaxMountpoint) }

// ValidateZone checks the name of an availability zone.
func ValidateZone(field, s string) error { return validateText(field, s, MaxName) }

// validateText allows at most max characters, none of them a control character
// except line breaks and tabs.
func validateText(field, s string, max int) error {
	if len(s) > max && utf8.RuneCountInString(s) > max {
		return Invalid(field, "%s has %d characters, at most %d are allowed", field, utf8.RuneCountInString(s), max)
	}
	if !utf8.ValidString(s) {
		return Invalid(field, "%s is not valid UTF-8 text", field)
	}
	for _, r := range s {
		if unicode.IsControl(r) && r != '\n' && r != '\t' && r != '\r' {
			return Invalid(field, "%s has the control character %U: remove it", field, r)
		}
	}
	return nil
}

// ValidateMetadata checks a map of strings that a client attaches to a record.
func ValidateMetadata(field string, m map[string]string) error {
	if len(m) > MaxMetadataKeys {
		return Invalid(field, "%s has %d keys, at most %d are allowed", field, len(m), MaxMetadataKeys)
	}
	for k, v := range m {
		if k == "" {
			return Invalid(field, "%s has an empty key", field)
		}
		if err := validateText(field, k, MaxMetadataKey); err != nil {
			return Invalid(field, "%s has a key that is too long or not plain text (at most %d characters)", field, MaxMetadataKey)
		}
		if err := validateText(field+"."+k, v, MaxMetadataValue); err != nil {
			return err
		}
	}
	return nil
}

// ValidateSizeGB checks a volume's size as a client gave it, in GB.
func ValidateSizeGB(field string, gb int64) error {
	if gb <= 0 {
		return Invalid(field, "invalid volume size: %d", gb)
	}
	if gb > MaxVolumeGB {
		return Invalid(field, "invalid volume size: %d GB is more than the largest size, %d GB", gb, int64(MaxVolumeGB))
	}
	return nil
}

// ValidateExtend checks the new size of a volume, with the original's text.
func ValidateExtend(current Bytes, newGB int64) error {
	if newGB <= current.GBCeil() {
		return Invalid("newSize", "new size for extend must be greater than current size.(current: %d GB, extended: %d GB).",
			current.GBCeil(), newGB)
	}
	return ValidateSizeGB("newSize", newGB)
}

// ValidateAttachMode checks an attachment's mode; empty stands for rw.
func ValidateAttachMode(s string) error { return validateEnum("attachMode", s, "ro", "rw") }

// validateEnum accepts one of the values in any letter case, and nothing.
func validateEnum(field, s string, values ...string) error {
	if s == "" {
		return nil
	}
	for _, v := range values {
		if strings.EqualFold(s, v) {
			return nil
		}
	}
	return Invalid(field, "%s %s is not one of the allowed values: use one of %s", field, quote(s), strings.Join(values, ", "))
}

func validateNonNegative(field string, n int64) error {
	if n < 0 {
		return Invalid(field, "%s is %d: use 0 or more", field, n)
	}
	return nil
}

// quote shows a client's value in an error: quoted, and cut where it is long.
func quote(s string) string {
	const max = 64
	if len(s) > max {
		return fmt.Sprintf("%q...", strings.ToValidUTF8(s[:max], ""))
	}
	return fmt.Sprintf("%q", s)
}

// firstError gives the first that is not nil.
func firstError(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

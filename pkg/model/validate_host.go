package model

import (
	"fmt"
	"net/netip"
	"regexp"
	"strings"
)

// Bounds of a host.
const (
	MaxHostZones      = 64
	MaxHostInitiators = 128
)

// Names that reach target configuration are kept to the characters their
// standards allow. An IQN's date is not insisted on: the original takes names
// without one.
var (
	hostName = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9._-]{0,252}[A-Za-z0-9])?$`)
	iqn      = regexp.MustCompile(`^(?i:iqn)\.[A-Za-z0-9][A-Za-z0-9.:_-]{0,218}$`)
	euiName  = regexp.MustCompile(`^(?i:eui)\.[0-9A-Fa-f]{16}$`)
	naaName  = regexp.MustCompile(`^(?i:naa)\.([0-9A-Fa-f]{16}|[0-9A-Fa-f]{32})$`)
	nqn      = regexp.MustCompile(`^(?i:nqn)\.[A-Za-z0-9][A-Za-z0-9.:_-]{0,218}$`)
	wwpn     = regexp.MustCompile(`^((0x)?[0-9A-Fa-f]{16}|[0-9A-Fa-f]{2}(:[0-9A-Fa-f]{2}){7})$`)
)

// ValidateHost checks a host. Only its name is required, as in the original.
func ValidateHost(h *Host) error {
	if h.HostName == "" {
		return Invalid("hostName", "hostName is missing: give the host's name")
	}
	if !hostName.MatchString(h.HostName) {
		return Invalid("hostName", "hostName %s may only have letters, digits, '.', '_' and '-', and must begin and end with a letter or digit",
			quote(h.HostName))
	}
	if h.IP != "" {
		if a, err := netip.ParseAddr(h.IP); err != nil || a.Zone() != "" {
			return Invalid("ip", "ip %s is not an IPv4 or IPv6 address", quote(h.IP))
		}
	}
	if h.Port < 0 || h.Port > 65535 {
		return Invalid("port", "port %d is not in 0..65535", h.Port)
	}
	if len(h.AvailabilityZones) > MaxHostZones {
		return Invalid("availabilityZones", "availabilityZones has %d entries, at most %d are allowed", len(h.AvailabilityZones), MaxHostZones)
	}
	for i, z := range h.AvailabilityZones {
		if err := ValidateName(fmt.Sprintf("availabilityZones[%d]", i), z, true); err != nil {
			return err
		}
	}
	return firstError(
		validateEnum("osType", h.OSType, "linux", "windows", "esxi"),
		validateEnum("accessMode", h.AccessMode, "agent", "agentless"),
		ValidateDescription(h.Description),
		validateText("username", h.Username, MaxName),
		validateInitiators(h.Initiators),
	)
}

func validateInitiators(list []Initiator) error {
	if len(list) > MaxHostInitiators {
		return Invalid("initiators", "initiators has %d entries, at most %d are allowed", len(list), MaxHostInitiators)
	}
	for i, x := range list {
		at := fmt.Sprintf("initiators[%d].", i)
		if err := validateInitiator(at, x); err != nil {
			return err
		}
		for j := range list[:i] {
			if list[j] == x {
				return Invalid(at+"portName", "%sportName %s is given twice", at, quote(x.PortName))
			}
		}
	}
	return nil
}

// ValidateInitiator checks one initiator.
func ValidateInitiator(x Initiator) error { return validateInitiator("", x) }

func validateInitiator(at string, x Initiator) error {
	if x.PortName == "" {
		return Invalid(at+"portName", "%sportName is missing: give the initiator's IQN, NQN or WWPN", at)
	}
	var ok bool
	var form string
	switch strings.ToLower(x.Protocol) {
	case "iscsi":
		ok = iqn.MatchString(x.PortName) || euiName.MatchString(x.PortName) || naaName.MatchString(x.PortName)
		form = "an iSCSI name, such as iqn.1993-08.org.debian:01:abcdef"
	case "nvmeof":
		ok = nqn.MatchString(x.PortName)
		form = "an NVMe name, such as nqn.2014-08.org.nvmexpress:uuid:..."
	case "fibre_channel":
		ok = wwpn.MatchString(x.PortName)
		form = "a WWPN of 16 hexadecimal digits, such as 10000090fa1b2c3d"
	case "rbd":
		// Ceph knows hosts by nothing better.
		_, err := netip.ParseAddr(x.PortName)
		ok = err == nil || hostName.MatchString(x.PortName)
		form = "an address, such as 192.0.2.7 or 2001:db8::7, or a host name"
	case "":
		return Invalid(at+"protocol", "%sprotocol is missing: use one of iscsi, fibre_channel, nvmeof, rbd", at)
	default:
		return Invalid(at+"protocol", "%sprotocol %s is not one of the allowed values: use one of iscsi, fibre_channel, nvmeof, rbd", at, quote(x.Protocol))
	}
	if !ok {
		return Invalid(at+"portName", "%sportName %s is not %s", at, quote(x.PortName), form)
	}
	return nil
}

package fs

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"strconv"
	"strings"

	"p11fs/p11"
)

// A flagName is one bit of a CK_FLAGS and its name in the tree.
type flagName struct {
	bit  p11.Flags
	name string
}

// tokenFlags are the flags of CK_TOKEN_INFO that tell of the token itself and not
// of other applications.
func tokenFlags() []flagName {
	return []flagName{
		{p11.CKF_RNG, "rng"}, {p11.CKF_WRITE_PROTECTED, "write-protected"}, {p11.CKF_LOGIN_REQUIRED, "login-required"},
		{p11.CKF_USER_PIN_INITIALIZED, "user-pin-initialized"}, {p11.CKF_RESTORE_KEY_NOT_NEEDED, "restore-key-not-needed"},
		{p11.CKF_CLOCK_ON_TOKEN, "clock-on-token"}, {p11.CKF_PROTECTED_AUTHENTICATION_PATH, "protected-authentication-path"},
		{p11.CKF_DUAL_CRYPTO_OPERATIONS, "dual-crypto-operations"}, {p11.CKF_TOKEN_INITIALIZED, "token-initialized"},
		{p11.CKF_SECONDARY_AUTHENTICATION, "secondary-authentication"}, {p11.CKF_ERROR_STATE, "error-state"},
	}
}

// flagText is the names of the bits that are set, with commas between; - is none.
func flagText(flags p11.Flags, names []flagName) string {
	var set []string
	for _, f := range names {
		if flags&f.bit != 0 {
			set = append(set, f.name)
		}
	}
	if len(set) == 0 {
		return "-"
	}
	return strings.Join(set, ",")
}

// countText prints a count or size of CK_TOKEN_INFO.
func countText(n uint64) string {
	switch n {
	case p11.Unavailable:
		return "unknown"
	case 0:
		return "unlimited"
	}
	return strconv.FormatUint(n, 10)
}

// facts is a text of lines "name: value".
type facts struct{ bytes.Buffer }

func (f *facts) add(name, value string) { fmt.Fprintf(f, "%s: %s\n", name, clean(value)) }

func (f *facts) addNumber(name string, n uint64) { f.add(name, strconv.FormatUint(n, 10)) }

func (f *facts) addVersions(hardware, firmware p11.Version) {
	f.add("hardware-version", fmt.Sprintf("%d.%d", hardware.Major, hardware.Minor))
	f.add("firmware-version", fmt.Sprintf("%d.%d", firmware.Major, firmware.Minor))
}

// tokenInfoText is the file info of a token. What other applications do to the
// token, as session counts and free memory show it, is left out.
func (p place) tokenInfoText(ctx context.Context, _ caller) ([]byte, error) {
	i, err := p.slot.TokenInfo(ctx)
	if err != nil {
		return nil, err
	}
	var f facts
	f.add("label", i.Label)
	f.add("manufacturer", i.Manufacturer)
	f.add("model", i.Model)
	f.add("serial", i.Serial)
	f.add("kind", p.slot.Kind())
	f.addNumber("slot", uint64(p.slot.ID()))
	f.add("flags", flagText(i.Flags, tokenFlags()))
	f.add("pin-length", fmt.Sprintf("%d-%d", i.MinPINLen, i.MaxPINLen))
	f.add("max-sessions", countText(i.MaxSessions))
	f.add("max-rw-sessions", countText(i.MaxRWSessions))
	f.addVersions(i.HardwareVersion, i.FirmwareVersion)
	return f.Bytes(), nil
}

// slotInfoText is the file slot of a token.
func (p place) slotInfoText(context.Context, caller) ([]byte, error) {
	i := p.slot.Info()
	var f facts
	f.addNumber("slot", uint64(p.slot.ID()))
	f.add("description", i.Description)
	f.add("manufacturer", i.Manufacturer)
	f.add("flags", flagText(i.Flags, []flagName{
		{p11.CKF_TOKEN_PRESENT, "token-present"},
		{p11.CKF_REMOVABLE_DEVICE, "removable-device"},
		{p11.CKF_HW_SLOT, "hw-slot"},
	}))
	f.addVersions(i.HardwareVersion, i.FirmwareVersion)
	return f.Bytes(), nil
}

// cardText is the file card of a token whose keys cards have.
func (p place) cardText(ctx context.Context, _ caller) ([]byte, error) {
	lines, err := p.slot.Cards(ctx)
	var b bytes.Buffer
	for _, line := range lines {
		b.WriteString(clean(line) + "\n")
	}
	return b.Bytes(), err
}

// mechanismsText is the file mechanisms of a token: name, smallest and largest
// key, functions, words of the parameter.
func (p place) mechanismsText(context.Context, caller) ([]byte, error) {
	var b bytes.Buffer
	for _, m := range p.slot.Mechanisms() {
		fmt.Fprintf(&b, "%s %d %d %s %s\n", m.Type.Short(), m.MinKeySize, m.MaxKeySize,
			cmp.Or(strings.Join(m.Uses(), ","), "-"), m.Type.Takes())
	}
	return b.Bytes(), nil
}

// sessionInfoText is the file info of a session.
func (p place) sessionInfoText(_ context.Context, c caller) ([]byte, error) {
	s := p.sessionIfOpen(c)
	if s == nil {
		return nil, errNoSession
	}
	i, err := s.eng.Info()
	if err != nil {
		return nil, err
	}
	var f facts
	f.addNumber("session", uint64(s.eng.Handle()))
	if s.name != "" {
		f.add("name", s.name)
	}
	f.addNumber("slot", uint64(i.SlotID))
	f.add("state", strings.TrimSuffix(strings.TrimSuffix(i.State.Short(), "-session"), "-functions")) // such as rw-user
	f.add("flags", flagText(i.Flags, []flagName{{p11.CKF_RW_SESSION, "rw"}, {p11.CKF_SERIAL_SESSION, "serial"}}))
	return f.Bytes(), nil
}

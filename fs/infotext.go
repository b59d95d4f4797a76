package fs

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"p11fs/engine"
	"p11fs/p11"
)

// flagName is one bit of a CK_FLAGS and its name here.
type flagName struct {
	bit  p11.Flags
	name string
}

// tokenFlags are those of CK_TOKEN_INFO that say something of the token itself
// and not of other applications.
func tokenFlags() []flagName {
	return []flagName{
		{p11.CKF_RNG, "rng"},
		{p11.CKF_WRITE_PROTECTED, "write-protected"},
		{p11.CKF_LOGIN_REQUIRED, "login-required"},
		{p11.CKF_USER_PIN_INITIALIZED, "user-pin-initialized"},
		{p11.CKF_RESTORE_KEY_NOT_NEEDED, "restore-key-not-needed"},
		{p11.CKF_CLOCK_ON_TOKEN, "clock-on-token"},
		{p11.CKF_PROTECTED_AUTHENTICATION_PATH, "protected-authentication-path"},
		{p11.CKF_DUAL_CRYPTO_OPERATIONS, "dual-crypto-operations"},
		{p11.CKF_TOKEN_INITIALIZED, "token-initialized"},
		{p11.CKF_SECONDARY_AUTHENTICATION, "secondary-authentication"},
		{p11.CKF_ERROR_STATE, "error-state"},
	}
}

func mechanismFlags() []flagName {
	return []flagName{
		{p11.CKF_HW, "hw"},
		{p11.CKF_ENCRYPT, "encrypt"},
		{p11.CKF_DECRYPT, "decrypt"},
		{p11.CKF_DIGEST, "digest"},
		{p11.CKF_SIGN, "sign"},
		{p11.CKF_SIGN_RECOVER, "sign-recover"},
		{p11.CKF_VERIFY, "verify"},
		{p11.CKF_VERIFY_RECOVER, "verify-recover"},
		{p11.CKF_GENERATE, "generate"},
		{p11.CKF_GENERATE_KEY_PAIR, "generate-key-pair"},
		{p11.CKF_WRAP, "wrap"},
		{p11.CKF_UNWRAP, "unwrap"},
		{p11.CKF_DERIVE, "derive"},
	}
}

// flagText is the names of the bits, with commas; - is none.
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

func versionText(v p11.Version) string { return fmt.Sprintf("%d.%d", v.Major, v.Minor) }

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

// tokenInfoText is the file info of a token. What other applications do to the
// token, session counts and free memory, stands in the engine's numbers of
// status and not here.
func tokenInfoText(ctx context.Context, slot *engine.Slot) ([]byte, error) {
	i, err := slot.TokenInfo(ctx)
	if err != nil {
		return nil, err
	}
	var b strings.Builder
	line := func(name, value string) { fmt.Fprintf(&b, "%s: %s\n", name, clean(value)) }
	line("label", i.Label)
	line("manufacturer", i.Manufacturer)
	line("model", i.Model)
	line("serial", i.Serial)
	line("kind", slot.Kind())
	line("slot", strconv.FormatUint(uint64(slot.ID()), 10))
	line("flags", flagText(i.Flags, tokenFlags()))
	line("pin-length", fmt.Sprintf("%d-%d", i.MinPINLen, i.MaxPINLen))
	line("max-sessions", countText(i.MaxSessions))
	line("max-rw-sessions", countText(i.MaxRWSessions))
	line("hardware-version", versionText(i.HardwareVersion))
	line("firmware-version", versionText(i.FirmwareVersion))
	return []byte(b.String()), nil
}

// slotInfoText is the file slot of a token.
func slotInfoText(_ context.Context, slot *engine.Slot) ([]byte, error) {
	i := slot.Info()
	var b strings.Builder
	line := func(name, value string) { fmt.Fprintf(&b, "%s: %s\n", name, clean(value)) }
	line("slot", strconv.FormatUint(uint64(slot.ID()), 10))
	line("description", i.Description)
	line("manufacturer", i.Manufacturer)
	line("flags", flagText(i.Flags, []flagName{
		{p11.CKF_TOKEN_PRESENT, "token-present"},
		{p11.CKF_REMOVABLE_DEVICE, "removable-device"},
		{p11.CKF_HW_SLOT, "hw-slot"},
	}))
	line("hardware-version", versionText(i.HardwareVersion))
	line("firmware-version", versionText(i.FirmwareVersion))
	return []byte(b.String()), nil
}

// mechanismsText is the file mechanisms of a token: name, smallest and largest
// key, flags.
func mechanismsText(_ context.Context, slot *engine.Slot) ([]byte, error) {
	var b strings.Builder
	for _, m := range slot.Mechanisms() {
		fmt.Fprintf(&b, "%s %d %d %s\n", m.Type.Short(), m.MinKeySize, m.MaxKeySize, flagText(m.Flags, mechanismFlags()))
	}
	return []byte(b.String()), nil
}

// sessionInfoText is the file info of a session.
func (f *FS) sessionInfoText(c caller, p place) ([]byte, error) {
	s := f.present(c, p)
	if s == nil {
		return nil, errNoSession
	}
	i, err := s.eng.Info()
	if err != nil {
		return nil, err
	}
	var b strings.Builder
	fmt.Fprintf(&b, "session: %d\n", uint64(s.eng.Handle()))
	if s.name != "" {
		fmt.Fprintf(&b, "name: %s\n", s.name)
	}
	fmt.Fprintf(&b, "slot: %d\n", uint64(i.SlotID))
	fmt.Fprintf(&b, "state: %s\n", stateText(i.State))
	fmt.Fprintf(&b, "flags: %s\n", flagText(i.Flags, []flagName{{p11.CKF_RW_SESSION, "rw"}, {p11.CKF_SERIAL_SESSION, "serial"}}))
	return []byte(b.String()), nil
}

func stateText(s p11.State) string {
	switch s {
	case p11.CKS_RO_PUBLIC_SESSION:
		return "ro-public"
	case p11.CKS_RO_USER_FUNCTIONS:
		return "ro-user"
	case p11.CKS_RW_PUBLIC_SESSION:
		return "rw-public"
	case p11.CKS_RW_USER_FUNCTIONS:
		return "rw-user"
	case p11.CKS_RW_SO_FUNCTIONS:
		return "rw-so"
	}
	return "unknown"
}

// errorText is the file error.
func (f *FS) errorText(c caller, p place) ([]byte, error) {
	if _, ok := f.callers.sessionOf(c); !ok {
		return []byte(errorOf(errNobody).text()), nil
	}
	a := f.callers.find(c)
	switch {
	case a == nil:
		return []byte(lastError{}.text()), nil
	case p.ref.self():
		return []byte(a.lastError(p.slot).text()), nil
	}
	s := a.session(p.slot, p.ref)
	switch {
	case s == nil:
		return nil, errNoSession
	case s == a.session(p.slot, sessionRef{}):
		return []byte(a.lastError(p.slot).text()), nil
	}
	return []byte(s.lastError().text()), nil
}

package format

// A Kind is what a kind of token fixes about its directory.
type Kind struct {
	// Name is the built-in name of the token directory.
	Name string
	// Label and Model are those of a token that was never initialised.
	Label, Model string
	// MasterKeyLen is the length of the master key as it is stored; the first
	// dataKeyLen bytes of it are the key, the rest is zero.
	MasterKeyLen int
	// OddParity gives a new master key odd parity in every byte.
	OddParity bool
}

// KindOf returns the facts of the kinds that keep a master key in MK_SO and
// MK_USER: swtok, lite, ep11tok and ccatok.
func KindOf(name string) (Kind, bool) {
	k := Kind{Name: name, MasterKeyLen: dataKeyLen}
	switch name {
	case "swtok":
		k.Label, k.Model = "IBM OS PKCS#11", "IBM SoftTok"
	case "lite":
		k.Label, k.Model, k.OddParity = "IBM ICA  PKCS #11", "IBM ICA", true
	case "ep11tok":
		k.Label, k.Model = "IBM OS PKCS#11", "IBM EP11Tok"
	case "ccatok":
		k.Label, k.Model, k.MasterKeyLen = "IBM PKCS#11 for CCA", "IBM CCA Token", 64
	default:
		return Kind{}, false
	}
	return k, true
}

package format

// A Kind is what a kind of token fixes about its directory.
type Kind struct {
	// Name is the built-in name of the token directory.
	Name string
	// Label, Manufacturer and Model are those of a token that was never initialised.
	Label, Manufacturer, Model string
	// MasterKeyLen is the length of the master key as it is stored; the first
	// dataKeyLen bytes of it are the key, the rest is zero.
	MasterKeyLen int
	// OddParity gives a new master key odd parity in every byte.
	OddParity bool
	// zeroKey has private objects under a key of zeros, whatever the master key is.
	zeroKey bool
}

// TPM has the facts of stock's tpm token. It keeps nothing under the master key: whoever
// reads the directory reads the private objects. It has no master key files either, so
// that its Format is no Keeper: what keeps its PINs is a chip.
func TPM() Kind {
	return Kind{Name: "tpm", Label: "IBM PKCS#11 TPM Token", Manufacturer: "IBM Corp.", Model: "TPM v1.1 Token", MasterKeyLen: dataKeyLen, zeroKey: true}
}

// KindOf returns the facts of the kinds that keep a master key in MK_SO and
// MK_USER, in format 3.8: swtok, lite, ep11tok and ccatok.
func KindOf(name string) (Kind, bool) {
	kinds := map[string]Kind{
		"swtok":   {Label: "IBM OS PKCS#11", Model: "IBM SoftTok", MasterKeyLen: dataKeyLen},
		"lite":    {Label: "IBM ICA  PKCS #11", Model: "IBM ICA", MasterKeyLen: dataKeyLen, OddParity: true},
		"ep11tok": {Label: "IBM OS PKCS#11", Model: "IBM EP11Tok", MasterKeyLen: dataKeyLen},
		"ccatok":  {Label: "IBM PKCS#11 for CCA", Model: "IBM CCA Token", MasterKeyLen: 64},
	}
	k, ok := kinds[name]
	k.Name, k.Manufacturer = name, "IBM Corp."
	return k, ok
}

// KindOf312 returns the facts of the kinds in format 3.12: swtok, lite, ep11tok and ccatok.
func KindOf312(name string) (Kind, bool) {
	kinds := map[string]Kind{
		"swtok":   {Label: "softtok", Model: "Soft"},
		"lite":    {Label: "icatok", Model: "ICA"},
		"ep11tok": {Label: "ep11tok", Model: "EP11"},
		"ccatok":  {Label: "ccatok", Model: "CCA"},
	}
	k, ok := kinds[name]
	k.Name, k.Manufacturer, k.MasterKeyLen = name, "IBM", masterKeySize312
	return k, ok
}

package wire

// A Call is the number of a PKCS#11 function on the wire. p11/table.txt has the calls;
// those up to CallDeriveKey2 are p11-kit's, those from CallSignOnce our own protocol's.
type Call uint32

// A Signature is what a call's messages hold, one character or pair of
// characters a value.
type Signature struct {
	Name              string // such as "C_SignInit"
	Request, Response string
}

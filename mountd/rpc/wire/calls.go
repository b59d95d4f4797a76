package wire

// A Call is the number of a PKCS#11 function on the wire.
type Call uint32

// The calls. Those from 66 came with protocol 1, 89 with 2; those from 256 are
// our own protocol's: an Init and its one-part operation in one request.
const (
	CallError Call = iota
	CallInitialize
	CallFinalize
	CallGetInfo
	CallGetSlotList
	CallGetSlotInfo
	CallGetTokenInfo
	CallGetMechanismList
	CallGetMechanismInfo
	CallInitToken
	CallOpenSession
	CallCloseSession
	CallCloseAllSessions
	CallGetSessionInfo
	CallInitPIN
	CallSetPIN
	CallGetOperationState
	CallSetOperationState
	CallLogin
	CallLogout
	CallCreateObject
	CallCopyObject
	CallDestroyObject
	CallGetObjectSize
	CallGetAttributeValue
	CallSetAttributeValue
	CallFindObjectsInit
	CallFindObjects
	CallFindObjectsFinal
	CallEncryptInit
	CallEncrypt
	CallEncryptUpdate
	CallEncryptFinal
	CallDecryptInit
	CallDecrypt
	CallDecryptUpdate
	CallDecryptFinal
	CallDigestInit
	CallDigest
	CallDigestUpdate
	CallDigestKey
	CallDigestFinal
	CallSignInit
	CallSign
	CallSignUpdate
	CallSignFinal
	CallSignRecoverInit
	CallSignRecover
	CallVerifyInit
	CallVerify
	CallVerifyUpdate
	CallVerifyFinal
	CallVerifyRecoverInit
	CallVerifyRecover
	CallDigestEncryptUpdate
	CallDecryptDigestUpdate
	CallSignEncryptUpdate
	CallDecryptVerifyUpdate
	CallGenerateKey
	CallGenerateKeyPair
	CallWrapKey
	CallUnwrapKey
	CallDeriveKey
	CallSeedRandom
	CallGenerateRandom
	CallWaitForSlotEvent
	CallLoginUser
	CallSessionCancel
	CallMessageEncryptInit
	CallEncryptMessage
	CallEncryptMessageBegin
	CallEncryptMessageNext
	CallMessageEncryptFinal
	CallMessageDecryptInit
	CallDecryptMessage
	CallDecryptMessageBegin
	CallDecryptMessageNext
	CallMessageDecryptFinal
	CallMessageSignInit
	CallSignMessage
	CallSignMessageBegin
	CallSignMessageNext
	CallMessageSignFinal
	CallMessageVerifyInit
	CallVerifyMessage
	CallVerifyMessageBegin
	CallVerifyMessageNext
	CallMessageVerifyFinal
	CallInitToken2
	CallDeriveKey2

	CallSignOnce Call = iota - CallDeriveKey2 - 1 + 256
	CallVerifyOnce
	CallEncryptOnce
	CallDecryptOnce
	CallDigestOnce
)

// A Signature is what a call's messages hold, one character or pair of
// characters a value.
type Signature struct {
	Name              string // such as "C_SignInit"
	Request, Response string
}

// Signatures returns those of call; ok is false for a call that does not exist.
func Signatures(call Call) (s Signature, ok bool) {
	switch {
	case call <= CallDeriveKey2:
		s = signatures[call]
	case call >= CallSignOnce && call <= CallDigestOnce:
		s = ownSignatures[call-CallSignOnce]
	}
	return s, s.Name != ""
}

var ownSignatures = [...]Signature{ //nolint:gochecknoglobals // a table, never written
	{"C_SignInit+C_Sign", "uMuayfy", "ay"},
	{"C_VerifyInit+C_Verify", "uMuayay", ""},
	{"C_EncryptInit+C_Encrypt", "uMuayfy", "ay"},
	{"C_DecryptInit+C_Decrypt", "uMuayfy", "ay"},
	{"C_DigestInit+C_Digest", "uMayfy", "ay"},
}

var signatures = [...]Signature{ //nolint:gochecknoglobals // a table, never written
	CallInitialize:          {"C_Initialize", "ayyay", ""},
	CallFinalize:            {"C_Finalize", "", ""},
	CallGetInfo:             {"C_GetInfo", "", "vsusv"},
	CallGetSlotList:         {"C_GetSlotList", "yfu", "au"},
	CallGetSlotInfo:         {"C_GetSlotInfo", "u", "ssuvv"},
	CallGetTokenInfo:        {"C_GetTokenInfo", "u", "ssssuuuuuuuuuuuvvs"},
	CallGetMechanismList:    {"C_GetMechanismList", "ufu", "au"},
	CallGetMechanismInfo:    {"C_GetMechanismInfo", "uu", "uuu"},
	CallInitToken:           {"C_InitToken", "uayz", ""},
	CallOpenSession:         {"C_OpenSession", "uu", "u"},
	CallCloseSession:        {"C_CloseSession", "u", ""},
	CallCloseAllSessions:    {"C_CloseAllSessions", "u", ""},
	CallGetSessionInfo:      {"C_GetSessionInfo", "u", "uuuu"},
	CallInitPIN:             {"C_InitPIN", "uay", ""},
	CallSetPIN:              {"C_SetPIN", "uayay", ""},
	CallGetOperationState:   {"C_GetOperationState", "ufy", "ay"},
	CallSetOperationState:   {"C_SetOperationState", "uayuu", ""},
	CallLogin:               {"C_Login", "uuay", ""},
	CallLogout:              {"C_Logout", "u", ""},
	CallCreateObject:        {"C_CreateObject", "uaA", "u"},
	CallCopyObject:          {"C_CopyObject", "uuaA", "u"},
	CallDestroyObject:       {"C_DestroyObject", "uu", ""},
	CallGetObjectSize:       {"C_GetObjectSize", "uu", "u"},
	CallGetAttributeValue:   {"C_GetAttributeValue", "uufA", "aAu"},
	CallSetAttributeValue:   {"C_SetAttributeValue", "uuaA", ""},
	CallFindObjectsInit:     {"C_FindObjectsInit", "uaA", ""},
	CallFindObjects:         {"C_FindObjects", "ufu", "au"},
	CallFindObjectsFinal:    {"C_FindObjectsFinal", "u", ""},
	CallEncryptInit:         {"C_EncryptInit", "uMu", ""},
	CallEncrypt:             {"C_Encrypt", "uayfy", "ay"},
	CallEncryptUpdate:       {"C_EncryptUpdate", "uayfy", "ay"},
	CallEncryptFinal:        {"C_EncryptFinal", "ufy", "ay"},
	CallDecryptInit:         {"C_DecryptInit", "uMu", ""},
	CallDecrypt:             {"C_Decrypt", "uayfy", "ay"},
	CallDecryptUpdate:       {"C_DecryptUpdate", "uayfy", "ay"},
	CallDecryptFinal:        {"C_DecryptFinal", "ufy", "ay"},
	CallDigestInit:          {"C_DigestInit", "uM", ""},
	CallDigest:              {"C_Digest", "uayfy", "ay"},
	CallDigestUpdate:        {"C_DigestUpdate", "uay", ""},
	CallDigestKey:           {"C_DigestKey", "uu", ""},
	CallDigestFinal:         {"C_DigestFinal", "ufy", "ay"},
	CallSignInit:            {"C_SignInit", "uMu", ""},
	CallSign:                {"C_Sign", "uayfy", "ay"},
	CallSignUpdate:          {"C_SignUpdate", "uay", ""},
	CallSignFinal:           {"C_SignFinal", "ufy", "ay"},
	CallSignRecoverInit:     {"C_SignRecoverInit", "uMu", ""},
	CallSignRecover:         {"C_SignRecover", "uayfy", "ay"},
	CallVerifyInit:          {"C_VerifyInit", "uMu", ""},
	CallVerify:              {"C_Verify", "uayay", ""},
	CallVerifyUpdate:        {"C_VerifyUpdate", "uay", ""},
	CallVerifyFinal:         {"C_VerifyFinal", "uay", ""},
	CallVerifyRecoverInit:   {"C_VerifyRecoverInit", "uMu", ""},
	CallVerifyRecover:       {"C_VerifyRecover", "uayfy", "ay"},
	CallDigestEncryptUpdate: {"C_DigestEncryptUpdate", "uayfy", "ay"},
	CallDecryptDigestUpdate: {"C_DecryptDigestUpdate", "uayfy", "ay"},
	CallSignEncryptUpdate:   {"C_SignEncryptUpdate", "uayfy", "ay"},
	CallDecryptVerifyUpdate: {"C_DecryptVerifyUpdate", "uayfy", "ay"},
	CallGenerateKey:         {"C_GenerateKey", "uMaA", "u"},
	CallGenerateKeyPair:     {"C_GenerateKeyPair", "uMaAaA", "uu"},
	CallWrapKey:             {"C_WrapKey", "uMuufy", "ay"},
	CallUnwrapKey:           {"C_UnwrapKey", "uMuayaA", "u"},
	CallDeriveKey:           {"C_DeriveKey", "uMuaA", "u"},
	CallSeedRandom:          {"C_SeedRandom", "uay", ""},
	CallGenerateRandom:      {"C_GenerateRandom", "ufy", "ay"},
	CallWaitForSlotEvent:    {"C_WaitForSlotEvent", "u", "u"},
	CallLoginUser:           {"C_LoginUser", "uuayay", ""},
	CallSessionCancel:       {"C_SessionCancel", "uu", ""},
	CallMessageEncryptInit:  {"C_MessageEncryptInit", "uMu", ""},
	CallEncryptMessage:      {"C_EncryptMessage", "uayayayfy", "ay"},
	CallEncryptMessageBegin: {"C_EncryptMessageBegin", "uayay", ""},
	CallEncryptMessageNext:  {"C_EncryptMessageNext", "uayayfyu", "ay"},
	CallMessageEncryptFinal: {"C_MessageEncryptFinal", "u", ""},
	CallMessageDecryptInit:  {"C_MessageDecryptInit", "uMu", ""},
	CallDecryptMessage:      {"C_DecryptMessage", "uayayayfy", "ay"},
	CallDecryptMessageBegin: {"C_DecryptMessageBegin", "uayay", ""},
	CallDecryptMessageNext:  {"C_DecryptMessageNext", "uayayfyu", "ay"},
	CallMessageDecryptFinal: {"C_MessageDecryptFinal", "u", ""},
	CallMessageSignInit:     {"C_MessageSignInit", "uMu", ""},
	CallSignMessage:         {"C_SignMessage", "uayayfy", "ay"},
	CallSignMessageBegin:    {"C_SignMessageBegin", "uay", ""},
	CallSignMessageNext:     {"C_SignMessageNext", "uayayyfy", "ay"},
	CallMessageSignFinal:    {"C_MessageSignFinal", "u", ""},
	CallMessageVerifyInit:   {"C_MessageVerifyInit", "uMu", ""},
	CallVerifyMessage:       {"C_VerifyMessage", "uayayay", ""},
	CallVerifyMessageBegin:  {"C_VerifyMessageBegin", "uay", ""},
	CallVerifyMessageNext:   {"C_VerifyMessageNext", "uayayay", ""},
	CallMessageVerifyFinal:  {"C_MessageVerifyFinal", "u", ""},
	CallInitToken2:          {"C_InitToken2", "uays", ""},
	CallDeriveKey2:          {"C_DeriveKey2", "uMuaA", "uPu"},
}

/* The functions on messages (PKCS#11 v3.1 §5.9, §5.11, §5.14). Those that sign
   and verify go to the daemon. The parameters of those that encrypt and decrypt
   point to memory of the program, which changes with each message: they have no
   form on the wire, and no token here has them. */
#include "operation.h"

static CK_RV unsupported(CK_SESSION_HANDLE session)
{
    struct call c;

    call_begin_session(&c, CALL_GetSessionInfo, session);
    call_fail(&c, CKR_FUNCTION_NOT_SUPPORTED);
    return call_end(&c);
}

CK_RV C_MessageEncryptInit(CK_SESSION_HANDLE session, CK_MECHANISM *mechanism, CK_OBJECT_HANDLE key)
{
    return operation_begin(CALL_MessageEncryptInit, session, mechanism, key);
}

CK_RV C_EncryptMessage(CK_SESSION_HANDLE session, void *parameter, CK_ULONG parameter_len, CK_BYTE *associated,
                       CK_ULONG associated_len, CK_BYTE *data, CK_ULONG data_len, CK_BYTE *encrypted,
                       CK_ULONG *encrypted_len)
{
    (void)parameter, (void)parameter_len, (void)associated, (void)associated_len;
    (void)data, (void)data_len, (void)encrypted, (void)encrypted_len;
    return unsupported(session);
}

CK_RV C_EncryptMessageBegin(CK_SESSION_HANDLE session, void *parameter, CK_ULONG parameter_len, CK_BYTE *associated,
                            CK_ULONG associated_len)
{
    (void)parameter, (void)parameter_len, (void)associated, (void)associated_len;
    return unsupported(session);
}

CK_RV C_EncryptMessageNext(CK_SESSION_HANDLE session, void *parameter, CK_ULONG parameter_len, CK_BYTE *part,
                           CK_ULONG part_len, CK_BYTE *encrypted, CK_ULONG *encrypted_len, CK_FLAGS flags)
{
    (void)parameter, (void)parameter_len, (void)part, (void)part_len;
    (void)encrypted, (void)encrypted_len, (void)flags;
    return unsupported(session);
}

CK_RV C_MessageEncryptFinal(CK_SESSION_HANDLE session)
{
    return operation_bare(CALL_MessageEncryptFinal, session);
}

CK_RV C_MessageDecryptInit(CK_SESSION_HANDLE session, CK_MECHANISM *mechanism, CK_OBJECT_HANDLE key)
{
    return operation_begin(CALL_MessageDecryptInit, session, mechanism, key);
}

CK_RV C_DecryptMessage(CK_SESSION_HANDLE session, void *parameter, CK_ULONG parameter_len, CK_BYTE *associated,
                       CK_ULONG associated_len, CK_BYTE *encrypted, CK_ULONG encrypted_len, CK_BYTE *data,
                       CK_ULONG *data_len)
{
    (void)parameter, (void)parameter_len, (void)associated, (void)associated_len;
    (void)encrypted, (void)encrypted_len, (void)data, (void)data_len;
    return unsupported(session);
}

CK_RV C_DecryptMessageBegin(CK_SESSION_HANDLE session, void *parameter, CK_ULONG parameter_len, CK_BYTE *associated,
                            CK_ULONG associated_len)
{
    (void)parameter, (void)parameter_len, (void)associated, (void)associated_len;
    return unsupported(session);
}

CK_RV C_DecryptMessageNext(CK_SESSION_HANDLE session, void *parameter, CK_ULONG parameter_len, CK_BYTE *encrypted,
                           CK_ULONG encrypted_len, CK_BYTE *part, CK_ULONG *part_len, CK_FLAGS flags)
{
    (void)parameter, (void)parameter_len, (void)encrypted, (void)encrypted_len;
    (void)part, (void)part_len, (void)flags;
    return unsupported(session);
}

CK_RV C_MessageDecryptFinal(CK_SESSION_HANDLE session)
{
    return operation_bare(CALL_MessageDecryptFinal, session);
}

CK_RV C_MessageSignInit(CK_SESSION_HANDLE session, CK_MECHANISM *mechanism, CK_OBJECT_HANDLE key)
{
    return operation_begin(CALL_MessageSignInit, session, mechanism, key);
}

CK_RV C_SignMessage(CK_SESSION_HANDLE session, void *parameter, CK_ULONG parameter_len, CK_BYTE *data,
                    CK_ULONG data_len, CK_BYTE *signature, CK_ULONG *signature_len)
{
    struct call c;

    call_begin_session(&c, CALL_SignMessage, session);
    put_array(&c, parameter, parameter_len);
    put_array(&c, data, data_len);
    put_room(&c, signature, signature_len);
    call_exchange(&c);
    (void)get_result(&c, signature, signature_len);
    return call_end(&c);
}

CK_RV C_SignMessageBegin(CK_SESSION_HANDLE session, void *parameter, CK_ULONG parameter_len)
{
    struct call c;

    call_begin_session(&c, CALL_SignMessageBegin, session);
    put_array(&c, parameter, parameter_len);
    call_exchange(&c);
    return call_end(&c);
}

/* Without a place for the length of the signature, this is not the last part. */
CK_RV C_SignMessageNext(CK_SESSION_HANDLE session, void *parameter, CK_ULONG parameter_len, CK_BYTE *data,
                        CK_ULONG data_len, CK_BYTE *signature, CK_ULONG *signature_len)
{
    struct call c;
    CK_ULONG none = 0, *len = signature_len != NULL ? signature_len : &none;

    call_begin_session(&c, CALL_SignMessageNext, session);
    put_array(&c, parameter, parameter_len);
    put_array(&c, data, data_len);
    put_byte(&c, signature_len != NULL);
    put_room(&c, signature_len != NULL ? signature : NULL, len);
    call_exchange(&c);
    (void)get_result(&c, signature_len != NULL ? signature : NULL, len);
    return call_end(&c);
}

CK_RV C_MessageSignFinal(CK_SESSION_HANDLE session)
{
    return operation_bare(CALL_MessageSignFinal, session);
}

CK_RV C_MessageVerifyInit(CK_SESSION_HANDLE session, CK_MECHANISM *mechanism, CK_OBJECT_HANDLE key)
{
    return operation_begin(CALL_MessageVerifyInit, session, mechanism, key);
}

/* verify sends one of the two functions with a signature. */
static CK_RV verify(enum call_number number, CK_SESSION_HANDLE session, const void *parameter, CK_ULONG parameter_len,
                    const CK_BYTE *data, CK_ULONG data_len, const CK_BYTE *signature, CK_ULONG signature_len)
{
    struct call c;

    call_begin_session(&c, number, session);
    put_array(&c, parameter, parameter_len);
    put_array(&c, data, data_len);
    put_array(&c, signature, signature_len);
    call_exchange(&c);
    return call_end(&c);
}

CK_RV C_VerifyMessage(CK_SESSION_HANDLE session, void *parameter, CK_ULONG parameter_len, CK_BYTE *data,
                      CK_ULONG data_len, CK_BYTE *signature, CK_ULONG signature_len)
{
    return verify(CALL_VerifyMessage, session, parameter, parameter_len, data, data_len, signature, signature_len);
}

CK_RV C_VerifyMessageBegin(CK_SESSION_HANDLE session, void *parameter, CK_ULONG parameter_len)
{
    struct call c;

    call_begin_session(&c, CALL_VerifyMessageBegin, session);
    put_array(&c, parameter, parameter_len);
    call_exchange(&c);
    return call_end(&c);
}

CK_RV C_VerifyMessageNext(CK_SESSION_HANDLE session, void *parameter, CK_ULONG parameter_len, CK_BYTE *data,
                          CK_ULONG data_len, CK_BYTE *signature, CK_ULONG signature_len)
{
    return verify(CALL_VerifyMessageNext, session, parameter, parameter_len, data, data_len, signature,
                  signature_len);
}

CK_RV C_MessageVerifyFinal(CK_SESSION_HANDLE session)
{
    return operation_bare(CALL_MessageVerifyFinal, session);
}

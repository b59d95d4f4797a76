/* Signatures and MACs (PKCS#11 v3.1 §5.13, §5.15). */
#include "operation.h"

CK_RV C_SignInit(CK_SESSION_HANDLE session, CK_MECHANISM *mechanism, CK_OBJECT_HANDLE key)
{
    return operation_init(KIND_SIGN, session, mechanism, &key);
}

CK_RV C_Sign(CK_SESSION_HANDLE session, CK_BYTE *data, CK_ULONG data_len, CK_BYTE *signature, CK_ULONG *signature_len)
{
    return operation_once(KIND_SIGN, session, data, data_len, signature, signature_len);
}

CK_RV C_SignUpdate(CK_SESSION_HANDLE session, CK_BYTE *part, CK_ULONG part_len)
{
    return operation_update(CALL_SignUpdate, CKF_SIGN, session, part, part_len);
}

CK_RV C_SignFinal(CK_SESSION_HANDLE session, CK_BYTE *signature, CK_ULONG *signature_len)
{
    return operation_final(CALL_SignFinal, KIND_SIGN, session, signature, signature_len);
}

CK_RV C_SignRecoverInit(CK_SESSION_HANDLE session, CK_MECHANISM *mechanism, CK_OBJECT_HANDLE key)
{
    return operation_begin(CALL_SignRecoverInit, session, mechanism, key);
}

CK_RV C_SignRecover(CK_SESSION_HANDLE session, CK_BYTE *data, CK_ULONG data_len, CK_BYTE *signature,
                    CK_ULONG *signature_len)
{
    return operation_transform(CALL_SignRecover, CKF_SIGN_RECOVER, session, data, data_len, signature, signature_len);
}

CK_RV C_VerifyInit(CK_SESSION_HANDLE session, CK_MECHANISM *mechanism, CK_OBJECT_HANDLE key)
{
    return operation_init(KIND_VERIFY, session, mechanism, &key);
}

CK_RV C_Verify(CK_SESSION_HANDLE session, CK_BYTE *data, CK_ULONG data_len, CK_BYTE *signature,
               CK_ULONG signature_len)
{
    struct call c;

    call_begin_once(&c, KIND_VERIFY, session,
                    (data == NULL && data_len != 0) || (signature == NULL && signature_len != 0));
    put_array(&c, data, data_len);
    put_array(&c, signature, signature_len);
    call_exchange(&c);
    call_settle(&c, KIND_VERIFY, true);
    return operation_end(&c);
}

CK_RV C_VerifyUpdate(CK_SESSION_HANDLE session, CK_BYTE *part, CK_ULONG part_len)
{
    return operation_update(CALL_VerifyUpdate, CKF_VERIFY, session, part, part_len);
}

CK_RV C_VerifyFinal(CK_SESSION_HANDLE session, CK_BYTE *signature, CK_ULONG signature_len)
{
    struct call c;

    call_begin_session(&c, CALL_VerifyFinal, session);
    c.uses = CKF_VERIFY;
    put_array(&c, signature, signature_len);
    call_exchange(&c);
    call_settle(&c, KIND_VERIFY, true);
    return operation_end(&c);
}

CK_RV C_VerifyRecoverInit(CK_SESSION_HANDLE session, CK_MECHANISM *mechanism, CK_OBJECT_HANDLE key)
{
    return operation_begin(CALL_VerifyRecoverInit, session, mechanism, key);
}

CK_RV C_VerifyRecover(CK_SESSION_HANDLE session, CK_BYTE *signature, CK_ULONG signature_len, CK_BYTE *data,
                      CK_ULONG *data_len)
{
    return operation_transform(CALL_VerifyRecover, CKF_VERIFY_RECOVER, session, signature, signature_len, data,
                               data_len);
}

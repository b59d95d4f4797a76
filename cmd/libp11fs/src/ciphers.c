/* Encryption, decryption and digests, alone and together (PKCS#11 v3.1 §5.8,
   §5.10, §5.12, §5.16). */
#include "operation.h"

CK_RV C_EncryptInit(CK_SESSION_HANDLE session, CK_MECHANISM *mechanism, CK_OBJECT_HANDLE key)
{
    return operation_init(KIND_ENCRYPT, session, mechanism, &key);
}

CK_RV C_Encrypt(CK_SESSION_HANDLE session, CK_BYTE *data, CK_ULONG data_len, CK_BYTE *encrypted,
                CK_ULONG *encrypted_len)
{
    return operation_once(KIND_ENCRYPT, session, data, data_len, encrypted, encrypted_len);
}

CK_RV C_EncryptUpdate(CK_SESSION_HANDLE session, CK_BYTE *part, CK_ULONG part_len, CK_BYTE *encrypted,
                      CK_ULONG *encrypted_len)
{
    return operation_transform(CALL_EncryptUpdate, CKF_ENCRYPT, session, part, part_len, encrypted, encrypted_len);
}

CK_RV C_EncryptFinal(CK_SESSION_HANDLE session, CK_BYTE *encrypted, CK_ULONG *encrypted_len)
{
    return operation_final(CALL_EncryptFinal, KIND_ENCRYPT, session, encrypted, encrypted_len);
}

CK_RV C_DecryptInit(CK_SESSION_HANDLE session, CK_MECHANISM *mechanism, CK_OBJECT_HANDLE key)
{
    return operation_init(KIND_DECRYPT, session, mechanism, &key);
}

CK_RV C_Decrypt(CK_SESSION_HANDLE session, CK_BYTE *encrypted, CK_ULONG encrypted_len, CK_BYTE *data,
                CK_ULONG *data_len)
{
    return operation_once(KIND_DECRYPT, session, encrypted, encrypted_len, data, data_len);
}

CK_RV C_DecryptUpdate(CK_SESSION_HANDLE session, CK_BYTE *encrypted, CK_ULONG encrypted_len, CK_BYTE *part,
                      CK_ULONG *part_len)
{
    return operation_transform(CALL_DecryptUpdate, CKF_DECRYPT, session, encrypted, encrypted_len, part, part_len);
}

CK_RV C_DecryptFinal(CK_SESSION_HANDLE session, CK_BYTE *part, CK_ULONG *part_len)
{
    return operation_final(CALL_DecryptFinal, KIND_DECRYPT, session, part, part_len);
}

CK_RV C_DigestInit(CK_SESSION_HANDLE session, CK_MECHANISM *mechanism)
{
    return operation_init(KIND_DIGEST, session, mechanism, NULL);
}

CK_RV C_Digest(CK_SESSION_HANDLE session, CK_BYTE *data, CK_ULONG data_len, CK_BYTE *digest, CK_ULONG *digest_len)
{
    return operation_once(KIND_DIGEST, session, data, data_len, digest, digest_len);
}

CK_RV C_DigestUpdate(CK_SESSION_HANDLE session, CK_BYTE *part, CK_ULONG part_len)
{
    return operation_update(CALL_DigestUpdate, CKF_DIGEST, session, part, part_len);
}

CK_RV C_DigestKey(CK_SESSION_HANDLE session, CK_OBJECT_HANDLE key)
{
    struct call c;

    call_begin_session(&c, CALL_DigestKey, session);
    c.uses = CKF_DIGEST;
    put_ulong(&c, key);
    call_exchange(&c);
    return call_end(&c);
}

CK_RV C_DigestFinal(CK_SESSION_HANDLE session, CK_BYTE *digest, CK_ULONG *digest_len)
{
    return operation_final(CALL_DigestFinal, KIND_DIGEST, session, digest, digest_len);
}

CK_RV C_DigestEncryptUpdate(CK_SESSION_HANDLE session, CK_BYTE *part, CK_ULONG part_len, CK_BYTE *encrypted,
                            CK_ULONG *encrypted_len)
{
    return operation_transform(CALL_DigestEncryptUpdate, CKF_DIGEST | CKF_ENCRYPT, session, part, part_len, encrypted,
                               encrypted_len);
}

CK_RV C_DecryptDigestUpdate(CK_SESSION_HANDLE session, CK_BYTE *encrypted, CK_ULONG encrypted_len, CK_BYTE *part,
                            CK_ULONG *part_len)
{
    return operation_transform(CALL_DecryptDigestUpdate, CKF_DECRYPT | CKF_DIGEST, session, encrypted, encrypted_len,
                               part, part_len);
}

CK_RV C_SignEncryptUpdate(CK_SESSION_HANDLE session, CK_BYTE *part, CK_ULONG part_len, CK_BYTE *encrypted,
                          CK_ULONG *encrypted_len)
{
    return operation_transform(CALL_SignEncryptUpdate, CKF_SIGN | CKF_ENCRYPT, session, part, part_len, encrypted,
                               encrypted_len);
}

CK_RV C_DecryptVerifyUpdate(CK_SESSION_HANDLE session, CK_BYTE *encrypted, CK_ULONG encrypted_len, CK_BYTE *part,
                            CK_ULONG *part_len)
{
    return operation_transform(CALL_DecryptVerifyUpdate, CKF_DECRYPT | CKF_VERIFY, session, encrypted, encrypted_len,
                               part, part_len);
}

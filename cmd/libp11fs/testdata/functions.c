/* Every function does what it should, through the daemon. */
#include <stdio.h>
#include <string.h>

#include "check.h"

static CK_BYTE data[] = "some data to work on, of no particular length";
enum { DATA_LEN = sizeof data - 1 };

static void check_info(CK_SLOT_ID slot)
{
    CK_INFO info;
    CK_SLOT_INFO si;
    CK_TOKEN_INFO ti;
    CK_MECHANISM_INFO mi;
    CK_MECHANISM_TYPE types[1024];
    CK_ULONG n = 0, some = 1024;
    bool eddsa = false;

    OK(f->C_GetInfo(&info));
    CHECK(info.cryptokiVersion.major == 3 && memcmp(info.manufacturerID, "p11fs ", 6) == 0);
    OK(f->C_GetSlotInfo(slot, &si));
    CHECK(memcmp(si.slotDescription, "test ", 5) == 0 && (si.flags & CKF_TOKEN_PRESENT) != 0);
    OK(f->C_GetTokenInfo(slot, &ti));
    CHECK(memcmp(ti.label, "test   ", 7) == 0 && (ti.flags & CKF_TOKEN_INITIALIZED) != 0);
    RV(f->C_GetSlotInfo(77, &si), CKR_SLOT_ID_INVALID);
    OK(f->C_GetMechanismList(slot, NULL, &n));
    CHECK(n > 50);
    OK(f->C_GetMechanismList(slot, types, &some));
    CHECK(n == some);
    for (CK_ULONG i = 0; i < n; i++) {
        OK(f->C_GetMechanismInfo(slot, types[i], &mi));
        eddsa = eddsa || types[i] == CKM_AES_KEY_WRAP;
    }
    CHECK(eddsa); /* no p11-kit client passes this one */
}

static void check_objects(CK_SESSION_HANDLE s)
{
    CK_ULONG class = CKO_DATA, n, size;
    CK_BYTE label[32];
    CK_ATTRIBUTE t[] = {{CKA_CLASS, &class, sizeof class}, {CKA_LABEL, "one", 3}, {CKA_VALUE, data, DATA_LEN}};
    CK_ATTRIBUTE change = {CKA_LABEL, "three", 5}, get = {CKA_LABEL, label, sizeof label}, find = {CKA_LABEL, "two", 3};
    CK_OBJECT_HANDLE h, copy, found[4];

    OK(f->C_CreateObject(s, t, 3, &h));
    OK(f->C_CopyObject(s, h, &find, 1, &copy));
    OK(f->C_GetObjectSize(s, h, &size));
    OK(f->C_FindObjectsInit(s, &find, 1));
    OK(f->C_FindObjects(s, found, 4, &n));
    CHECK(n == 1 && found[0] == copy);
    OK(f->C_FindObjects(s, found, 4, &n));
    CHECK(n == 0);
    OK(f->C_FindObjectsFinal(s));
    OK(f->C_SetAttributeValue(s, h, &change, 1));
    OK(f->C_GetAttributeValue(s, h, &get, 1));
    CHECK(get.ulValueLen == 5 && memcmp(label, "three", 5) == 0);
    OK(f->C_DestroyObject(s, h));
    RV(f->C_DestroyObject(s, h), CKR_OBJECT_HANDLE_INVALID);
    OK(f->C_DestroyObject(s, copy));
    OK(f->C_FindObjectsInit(s, NULL, 0));
    OK(f->C_FindObjectsFinal(s));
}

static void check_ciphers(CK_SESSION_HANDLE s, CK_OBJECT_HANDLE key)
{
    CK_BYTE iv[16] = {1, 2, 3}, out[256], back[256];
    CK_MECHANISM m = {CKM_AES_CBC_PAD, iv, sizeof iv};
    CK_ULONG n = sizeof out, part, k = sizeof back;

    OK(f->C_EncryptInit(s, &m, key));
    OK(f->C_Encrypt(s, data, DATA_LEN, out, &n));
    CHECK(n == 48);
    OK(f->C_DecryptInit(s, &m, key));
    OK(f->C_Decrypt(s, out, n, back, &k));
    CHECK(k == DATA_LEN && memcmp(back, data, k) == 0);

    OK(f->C_EncryptInit(s, &m, key));
    part = sizeof out;
    OK(f->C_EncryptUpdate(s, data, 20, out, &part));
    n = part;
    part = sizeof out - n;
    OK(f->C_EncryptUpdate(s, data + 20, DATA_LEN - 20, out + n, &part));
    n += part;
    part = sizeof out - n;
    OK(f->C_EncryptFinal(s, out + n, &part));
    n += part;
    OK(f->C_DecryptInit(s, &m, key));
    k = sizeof back;
    OK(f->C_DecryptUpdate(s, out, n, back, &k));
    part = sizeof back - k;
    OK(f->C_DecryptFinal(s, back + k, &part));
    CHECK(k + part == DATA_LEN && memcmp(back, data, DATA_LEN) == 0);
}

static void check_digests(CK_SESSION_HANDLE s, CK_OBJECT_HANDLE key)
{
    CK_MECHANISM m = {CKM_SHA256, NULL, 0};
    CK_BYTE one[32], parts[32];
    CK_ULONG n = sizeof one;

    OK(f->C_DigestInit(s, &m));
    OK(f->C_Digest(s, data, DATA_LEN, one, &n));
    CHECK(n == 32);
    for (int i = 0; i < 3; i++) {
        OK(f->C_DigestInit(s, &m));
        OK(f->C_DigestUpdate(s, data, 7));
        OK(f->C_DigestUpdate(s, data + 7, DATA_LEN - 7));
        n = sizeof parts;
        OK(f->C_DigestFinal(s, parts, &n));
        CHECK(memcmp(one, parts, 32) == 0);
    }
    OK(f->C_DigestInit(s, &m));
    OK(f->C_DigestKey(s, key));
    n = sizeof parts;
    OK(f->C_DigestFinal(s, parts, &n));
    CHECK(memcmp(one, parts, 32) != 0);
}

static void check_dual(CK_SESSION_HANDLE s, CK_OBJECT_HANDLE key)
{
    CK_OBJECT_HANDLE secret = mac_key(s);
    CK_BYTE iv[16] = {9}, out[64], back[64], digest[32], signature[64];
    CK_MECHANISM cbc = {CKM_AES_CBC, iv, sizeof iv}, sha = {CKM_SHA256, NULL, 0}, mac = {CKM_SHA256_HMAC, NULL, 0};
    CK_ULONG n, k, d;

    for (int i = 0; i < 2; i++) { /* the second time, with an Init that was put off */
        OK(f->C_EncryptInit(s, &cbc, key));
        OK(f->C_DigestInit(s, &sha));
        n = sizeof out;
        OK(f->C_DigestEncryptUpdate(s, data, 32, out, &n));
        CHECK(n == 32);
        d = sizeof digest;
        OK(f->C_DigestFinal(s, digest, &d));
        k = sizeof out;
        OK(f->C_EncryptFinal(s, out + n, &k));
        OK(f->C_DecryptInit(s, &cbc, key));
        OK(f->C_DigestInit(s, &sha));
        k = sizeof back;
        OK(f->C_DecryptDigestUpdate(s, out, 32, back, &k));
        CHECK(k == 32 && memcmp(back, data, 32) == 0);
        d = sizeof digest;
        OK(f->C_DigestFinal(s, digest, &d));
        k = sizeof back;
        OK(f->C_DecryptFinal(s, back, &k));
        OK(f->C_SignInit(s, &mac, secret));
        OK(f->C_EncryptInit(s, &cbc, key));
        n = sizeof out;
        OK(f->C_SignEncryptUpdate(s, data, 32, out, &n));
        k = sizeof signature;
        OK(f->C_SignFinal(s, signature, &k));
        d = sizeof out;
        OK(f->C_EncryptFinal(s, out + n, &d));
        OK(f->C_VerifyInit(s, &mac, secret));
        OK(f->C_DecryptInit(s, &cbc, key));
        d = sizeof back;
        OK(f->C_DecryptVerifyUpdate(s, out, n, back, &d));
        OK(f->C_VerifyFinal(s, signature, k));
        d = sizeof back;
        OK(f->C_DecryptFinal(s, back, &d));
    }
}

static void check_signatures(CK_SESSION_HANDLE s)
{
    CK_OBJECT_HANDLE public, private;
    CK_MECHANISM m = {CKM_ECDSA_SHA256, NULL, 0};
    CK_BYTE signature[64];
    CK_ULONG n;

    ec_key(s, &public, &private);
    for (int i = 0; i < 5; i++)
        OK(sign_once(s, public, private));
    for (int i = 0; i < 2; i++) {
        OK(f->C_SignInit(s, &m, private));
        OK(f->C_SignUpdate(s, data, 10));
        OK(f->C_SignUpdate(s, data + 10, 10));
        n = sizeof signature;
        OK(f->C_SignFinal(s, signature, &n));
        OK(f->C_VerifyInit(s, &m, public));
        OK(f->C_VerifyUpdate(s, data, 20));
        OK(f->C_VerifyFinal(s, signature, n));
        OK(f->C_VerifyInit(s, &m, public));
        OK(f->C_Verify(s, data, 20, signature, n));
        OK(f->C_VerifyInit(s, &m, public));
        RV(f->C_Verify(s, data, 21, signature, n), CKR_SIGNATURE_INVALID);
    }
}

/* The signature comes first. */
static void check_presented(CK_SESSION_HANDLE s)
{
    CK_OBJECT_HANDLE public, private;
    CK_MECHANISM m = {CKM_ECDSA_SHA256, NULL, 0};
    CK_BYTE signature[65] = {0};
    CK_ULONG n = 64;

    ec_key(s, &public, &private);
    OK(f->C_SignInit(s, &m, private));
    OK(f->C_Sign(s, data, 20, signature, &n));
    for (int i = 0; i < 3; i++) { /* beside an Init that is put off */
        OK(f->C_VerifyInit(s, &m, public));
        OK(f->C_Verify(s, data, 20, signature, n));
        OK(f->C_VerifyInit(s, &m, public));
        RV(f->C_VerifySignature(s, data, 20), CKR_OPERATION_NOT_INITIALIZED);
        RV(f->C_VerifySignatureInit(s, &m, public, signature, n), CKR_OPERATION_ACTIVE);
        OK(f->C_Verify(s, data, 20, signature, n));
        OK(f->C_VerifySignatureInit(s, &m, public, signature, n));
        RV(f->C_VerifyInit(s, &m, public), CKR_OPERATION_ACTIVE);
        OK(f->C_VerifySignature(s, data, 20));
        OK(f->C_VerifySignatureInit(s, &m, public, signature, n));
        OK(f->C_VerifySignatureUpdate(s, data, 10));
        RV(f->C_VerifyUpdate(s, data + 10, 10), CKR_OPERATION_NOT_INITIALIZED);
        OK(f->C_VerifySignatureUpdate(s, data + 10, 10));
        OK(f->C_VerifySignatureFinal(s));
        OK(f->C_VerifySignatureInit(s, &m, public, signature, n));
        RV(f->C_VerifySignature(s, data, 21), CKR_SIGNATURE_INVALID);
        OK(f->C_VerifySignatureInit(s, &m, public, signature, n));
        OK(f->C_VerifySignatureInit(s, NULL, 0, NULL, 0)); /* cancels */
        RV(f->C_VerifySignatureFinal(s), CKR_OPERATION_NOT_INITIALIZED);
        RV(f->C_VerifySignatureInit(s, &m, public, signature, 65), CKR_SIGNATURE_LEN_RANGE);
        RV(f->C_VerifySignatureInit(s, &m, public, NULL, 64), CKR_ARGUMENTS_BAD);
    }
}

/* A state is restored in another session, also where an Init was put off. */
static void check_state(CK_SLOT_ID slot, CK_SESSION_HANDLE s, CK_OBJECT_HANDLE key)
{
    CK_MECHANISM m = {CKM_SHA256, NULL, 0};
    CK_BYTE state[64], whole[32], parts[32];
    CK_ULONG n = 0, len = sizeof state, k = sizeof whole;
    CK_SESSION_HANDLE other = session_on(slot);

    RV(f->C_GetOperationState(s, state, &len), CKR_OPERATION_NOT_INITIALIZED);
    OK(f->C_DigestInit(s, &m));
    OK(f->C_Digest(s, data, DATA_LEN, whole, &k));
    for (int i = 0; i < 3; i++) {
        OK(f->C_DigestInit(s, &m));
        OK(f->C_DigestUpdate(s, data, 7));
        OK(f->C_GetOperationState(s, NULL, &n));
        len = n - 1;
        RV(f->C_GetOperationState(s, state, &len), CKR_BUFFER_TOO_SMALL);
        len = sizeof state;
        OK(f->C_GetOperationState(s, state, &len));
        CHECK(len == n);
        OK(f->C_DigestUpdate(s, data, 1));
        if (i > 0)
            OK(f->C_DigestInit(other, &m));
        RV(f->C_SetOperationState(other, state, len, key, 0), CKR_KEY_NOT_NEEDED);
        OK(f->C_SetOperationState(other, state, len, 0, 0));
        RV(f->C_DigestInit(other, &m), CKR_OPERATION_ACTIVE);
        OK(f->C_DigestUpdate(other, data + 7, DATA_LEN - 7));
        k = sizeof parts;
        OK(f->C_DigestFinal(other, parts, &k));
        CHECK(memcmp(whole, parts, sizeof whole) == 0);
        OK(f->C_DigestFinal(s, parts, &k));
        OK(f->C_DigestInit(other, &m));
        OK(f->C_Digest(other, data, 1, parts, &k));
        state[0] ^= 1;
        RV(f->C_SetOperationState(other, state, len, 0, 0), CKR_SAVED_STATE_INVALID);
    }
    OK(f->C_CloseSession(other));
}

static void check_recover(CK_SESSION_HANDLE s)
{
    CK_ULONG bits = 2048, n, k;
    CK_BBOOL yes = 1;
    CK_ATTRIBUTE pub[] = {{CKA_MODULUS_BITS, &bits, sizeof bits}, {CKA_VERIFY_RECOVER, &yes, 1}, {CKA_ENCRYPT, &yes, 1}};
    CK_ATTRIBUTE priv[] = {{CKA_SIGN_RECOVER, &yes, 1}, {CKA_DECRYPT, &yes, 1}};
    CK_MECHANISM gen = {CKM_RSA_PKCS_KEY_PAIR_GEN, NULL, 0}, m = {CKM_RSA_PKCS, NULL, 0};
    CK_OBJECT_HANDLE public, private;
    CK_BYTE signature[256], back[256];

    OK(f->C_GenerateKeyPair(s, &gen, pub, 3, priv, 2, &public, &private));
    OK(f->C_SignRecoverInit(s, &m, private));
    n = sizeof signature;
    OK(f->C_SignRecover(s, data, DATA_LEN, signature, &n));
    OK(f->C_VerifyRecoverInit(s, &m, public));
    k = sizeof back;
    OK(f->C_VerifyRecover(s, signature, n, back, &k));
    CHECK(k == DATA_LEN && memcmp(back, data, k) == 0);
}

static void check_keys(CK_SESSION_HANDLE s, CK_OBJECT_HANDLE key)
{
    CK_MECHANISM wrap = {CKM_AES_KEY_WRAP, NULL, 0};
    CK_ULONG class = CKO_SECRET_KEY, type = CKK_AES, n = 0;
    CK_BBOOL yes = 1;
    CK_ATTRIBUTE t[] = {{CKA_CLASS, &class, sizeof class}, {CKA_KEY_TYPE, &type, sizeof type}, {CKA_ENCRYPT, &yes, 1}};
    CK_OBJECT_HANDLE inner = aes_key(s), again;
    CK_BYTE out[64];

    OK(f->C_WrapKey(s, &wrap, key, inner, NULL, &n));
    CHECK(n == 40);
    n = 39;
    RV(f->C_WrapKey(s, &wrap, key, inner, out, &n), CKR_BUFFER_TOO_SMALL);
    CHECK(n == 40);
    n = sizeof out;
    OK(f->C_WrapKey(s, &wrap, key, inner, out, &n));
    OK(f->C_UnwrapKey(s, &wrap, key, out, n, t, 3, &again));
    out[3] ^= 1;
    RV(f->C_UnwrapKey(s, &wrap, key, out, n, t, 3, &again), CKR_WRAPPED_KEY_INVALID);
}

static void check_authenticated(CK_SESSION_HANDLE s, CK_OBJECT_HANDLE key)
{
    CK_BYTE iv[12], tag[17], out[64], associated[] = "associated";
    CK_GCM_MESSAGE_PARAMS gcm = {iv, sizeof iv, 16, CKG_GENERATE, tag, 128};
    CK_CCM_MESSAGE_PARAMS ccm = {0, iv, sizeof iv, 0, CKG_GENERATE_RANDOM, tag, 12};
    CK_MECHANISM m[] = {{CKM_AES_GCM, &gcm, sizeof gcm}, {CKM_AES_CCM, &ccm, sizeof ccm}}, kwp = {CKM_AES_KEY_WRAP_KWP, NULL, 0};
    CK_ULONG class = CKO_SECRET_KEY, type = CKK_AES, n = 0;
    CK_ATTRIBUTE t[] = {{CKA_CLASS, &class, sizeof class}, {CKA_KEY_TYPE, &type, sizeof type}};
    CK_OBJECT_HANDLE inner = aes_key(s), again;

    for (size_t i = 0; i < sizeof m / sizeof m[0]; i++) {
        CK_ULONG tag_len = i == 0 ? 16 : 12;

        memset(iv, 7, sizeof iv);
        memset(tag, 9, sizeof tag);
        OK(f->C_WrapKeyAuthenticated(s, &m[i], key, inner, associated, 10, NULL, &n));
        CHECK(n == 32 && iv[11] == 7 && tag[0] == 9);
        n = 31;
        RV(f->C_WrapKeyAuthenticated(s, &m[i], key, inner, associated, 10, out, &n), CKR_BUFFER_TOO_SMALL);
        n = sizeof out;
        OK(f->C_WrapKeyAuthenticated(s, &m[i], key, inner, associated, 10, out, &n));
        CHECK(n == 32 && tag[tag_len] == 9 && memcmp(iv + 2, "\7\7\7\7\7\7\7\7\7\7", 10) != 0 && (i == 1 || (iv[0] == 7 && iv[1] == 7)));
        OK(f->C_UnwrapKeyAuthenticated(s, &m[i], key, out, n, t, 2, associated, 10, &again));
        RV(f->C_UnwrapKeyAuthenticated(s, &m[i], key, out, n, t, 2, associated, 9, &again), CKR_WRAPPED_KEY_INVALID);
        tag[1] ^= 1;
        RV(f->C_UnwrapKeyAuthenticated(s, &m[i], key, out, n, t, 2, associated, 10, &again), CKR_WRAPPED_KEY_INVALID);
    }
    RV(f->C_WrapKeyAuthenticated(s, &kwp, key, inner, associated, 10, out, &n), CKR_MECHANISM_INVALID);
    RV(f->C_WrapKeyAuthenticated(s, NULL, key, inner, associated, 10, out, &n), CKR_ARGUMENTS_BAD);
    m[0].ulParameterLen--;
    RV(f->C_WrapKeyAuthenticated(s, &m[0], key, inner, associated, 10, out, &n), CKR_MECHANISM_PARAM_INVALID);
    m[0].ulParameterLen++;
    gcm.pTag = NULL;
    RV(f->C_WrapKeyAuthenticated(s, &m[0], key, inner, associated, 10, out, &n), CKR_MECHANISM_PARAM_INVALID);
    gcm = (CK_GCM_MESSAGE_PARAMS){iv, sizeof iv, 96, CKG_GENERATE_COUNTER, tag, 128};
    RV(f->C_WrapKeyAuthenticated(s, &m[0], key, inner, associated, 10, out, &n), CKR_MECHANISM_PARAM_INVALID);
}

/* Many messages under one key, whole and in parts, with IVs that the token counts. */
static void check_messages(CK_SESSION_HANDLE s)
{
    CK_BYTE iv[12], tag[17], sealed[64], text[64], associated[] = "associated";
    CK_BYTE *message = (CK_BYTE *)"twenty bytes of text";
    CK_ULONG n = 0, more, len = 32, type = CKK_CHACHA20;
    CK_GCM_MESSAGE_PARAMS gcm = {iv, sizeof iv, 32, CKG_GENERATE_COUNTER, tag, 128};
    CK_CCM_MESSAGE_PARAMS ccm = {20, iv, sizeof iv, 0, CKG_GENERATE, tag, 12};
    CK_SALSA20_CHACHA20_POLY1305_MSG_PARAMS poly = {iv, 96, tag};
    CK_MECHANISM gen[] = {{CKM_AES_KEY_GEN, NULL, 0}, {CKM_CHACHA20_KEY_GEN, NULL, 0}};
    CK_ATTRIBUTE aes[] = {{CKA_VALUE_LEN, &len, sizeof len}}, chacha[] = {{CKA_KEY_TYPE, &type, sizeof type}};
    struct {
        CK_MECHANISM m; /* whose parameter is of no use to the Init */
        CK_ULONG tag_len;
    } cases[] = {{{CKM_AES_GCM, &gcm, sizeof gcm}, 16}, {{CKM_AES_CCM, &ccm, sizeof ccm}, 12}, {{CKM_CHACHA20_POLY1305, &poly, sizeof poly}, 16}};

    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        void *p = cases[i].m.pParameter;
        CK_ULONG size = cases[i].m.ulParameterLen;
        CK_OBJECT_HANDLE key;

        OK(i < 2 ? f->C_GenerateKey(s, &gen[0], aes, 1, &key) : f->C_GenerateKey(s, &gen[1], chacha, 1, &key));
        memset(iv, 7, sizeof iv);
        memset(tag, 9, sizeof tag);
        RV(f->C_EncryptMessage(s, p, size, associated, 10, message, 20, sealed, &n), CKR_OPERATION_NOT_INITIALIZED);
        OK(f->C_MessageEncryptInit(s, &cases[i].m, key));
        RV(f->C_MessageEncryptInit(s, &cases[i].m, key), CKR_OPERATION_ACTIVE);
        OK(f->C_MessageDecryptInit(s, &cases[i].m, key));
        OK(f->C_EncryptMessage(s, p, size, associated, 10, message, 20, NULL, &n));
        CHECK(n == 20 && iv[11] == 7 && tag[0] == 9);
        n = 19;
        RV(f->C_EncryptMessage(s, p, size, associated, 10, message, 20, sealed, &n), CKR_BUFFER_TOO_SMALL);
        for (int round = 0; round < 3; round++) {
            if (i == 2)
                iv[0]++; /* its nonces are the program's */
            n = sizeof sealed;
            OK(f->C_EncryptMessage(s, p, size, associated, 10, message, 20, sealed, &n));
            CHECK(n == 20 && tag[cases[i].tag_len] == 9);
            CHECK(i != 0 || (memcmp(iv, "\7\7\7\7\0\0\0\0\0\0\0", 11) == 0 && iv[11] == round)); /* from 0, and none for what did not fit */
            OK(f->C_DecryptMessage(s, p, size, associated, 10, sealed, n, text, &n));
            CHECK(n == 20 && memcmp(text, message, 20) == 0);
            tag[2] ^= 1;
            RV(f->C_DecryptMessage(s, p, size, associated, 10, sealed, n, text, &n), CKR_AEAD_DECRYPT_FAILED);
            tag[2] ^= 1;
            RV(f->C_DecryptMessage(s, p, size, associated, 9, sealed, n, text, &n), CKR_AEAD_DECRYPT_FAILED);
        }
        iv[0]++;
        OK(f->C_EncryptMessageBegin(s, p, size, associated, 10));
        RV(f->C_EncryptMessageBegin(s, p, size, associated, 10), CKR_OPERATION_ACTIVE);
        RV(f->C_EncryptMessage(s, p, size, associated, 10, message, 20, sealed, &n), CKR_OPERATION_ACTIVE);
        n = sizeof sealed;
        OK(f->C_EncryptMessageNext(s, p, size, message, 7, sealed, &n, 0));
        CHECK(n <= 7);
        more = 1;
        RV(f->C_EncryptMessageNext(s, p, size, message + 7, 13, sealed + n, &more, CKF_END_OF_MESSAGE), CKR_BUFFER_TOO_SMALL);
        CHECK(more == 20 - n);
        OK(f->C_EncryptMessageNext(s, p, size, message + 7, 13, sealed + n, &more, CKF_END_OF_MESSAGE));
        CHECK(more == 20 - n);
        RV(f->C_EncryptMessageNext(s, p, size, message, 7, sealed, &n, 0), CKR_OPERATION_NOT_INITIALIZED);
        OK(f->C_DecryptMessageBegin(s, p, size, associated, 10));
        n = sizeof text;
        OK(f->C_DecryptMessageNext(s, p, size, sealed, 9, text, &n, 0));
        CHECK(n == 0); /* nothing before its tag was checked */
        n = sizeof text;
        OK(f->C_DecryptMessageNext(s, p, size, sealed + 9, 11, text, &n, CKF_END_OF_MESSAGE));
        CHECK(n == 20 && memcmp(text, message, 20) == 0);
        RV(f->C_EncryptMessage(s, p, size - 1, associated, 10, message, 20, sealed, &n), CKR_MECHANISM_PARAM_INVALID);
        RV(f->C_EncryptMessage(s, NULL, 0, associated, 10, message, 20, sealed, &n), CKR_MECHANISM_PARAM_INVALID);
        RV(f->C_EncryptMessage(s, p, size, associated, 10, message, 20, sealed, NULL), CKR_ARGUMENTS_BAD);
        OK(f->C_MessageEncryptFinal(s));
        RV(f->C_MessageEncryptFinal(s), CKR_OPERATION_NOT_INITIALIZED);
        OK(f->C_MessageDecryptInit(s, NULL, 0));
        RV(f->C_MessageDecryptFinal(s), CKR_OPERATION_NOT_INITIALIZED);
    }
}

static void check_random(CK_SESSION_HANDLE s)
{
    static CK_BYTE much[700000], none[64];
    CK_RV rv = f->C_SeedRandom(s, data, DATA_LEN);

    CHECK(rv == CKR_OK || rv == CKR_RANDOM_SEED_NOT_SUPPORTED);
    OK(f->C_GenerateRandom(s, much, sizeof much));
    CHECK(memcmp(much + sizeof much - 64, none, 64) != 0);
    OK(f->C_GenerateRandom(s, NULL, 0));
    OK(f->C_GenerateRandom(s, much, 0));
}

/* Messages that are signed have no parameter of their own. */
static void check_signed_messages(CK_SLOT_ID slot, CK_SESSION_HANDLE s)
{
    CK_OBJECT_HANDLE public, private;
    CK_MECHANISM m = {CKM_ECDSA_SHA256, NULL, 0}, gcm = {CKM_AES_GCM, NULL, 0};
    CK_MECHANISM_INFO info;
    CK_BYTE signature[64], other[64] = {0};
    CK_ULONG n = 0, more = sizeof other;

    OK(f->C_GetMechanismInfo(slot, CKM_ECDSA_SHA256, &info));
    CHECK((info.flags & (CKF_MESSAGE_SIGN | CKF_MESSAGE_VERIFY | CKF_MULTI_MESSAGE)) == (CKF_MESSAGE_SIGN | CKF_MESSAGE_VERIFY | CKF_MULTI_MESSAGE));
    ec_key(s, &public, &private);
    RV(f->C_SignMessage(s, NULL, 0, data, 20, signature, &n), CKR_OPERATION_NOT_INITIALIZED);
    RV(f->C_MessageSignInit(s, &gcm, private), CKR_MECHANISM_INVALID);
    OK(f->C_MessageSignInit(s, &m, private));
    OK(f->C_MessageVerifyInit(s, &m, public));
    RV(f->C_MessageSignInit(s, &m, private), CKR_OPERATION_ACTIVE);
    RV(f->C_SignMessage(s, other, sizeof other, data, 20, signature, &n), CKR_MECHANISM_PARAM_INVALID);
    OK(f->C_SignMessage(s, NULL, 0, data, 20, NULL, &n));
    CHECK(n == sizeof signature);
    n = 5;
    RV(f->C_SignMessage(s, NULL, 0, data, 20, signature, &n), CKR_BUFFER_TOO_SMALL);
    CHECK(n == sizeof signature);
    OK(f->C_SignMessage(s, NULL, 0, data, 20, signature, &n));
    RV(f->C_SignMessageNext(s, NULL, 0, data, 10, NULL, NULL), CKR_OPERATION_NOT_INITIALIZED);
    OK(f->C_SignMessageBegin(s, NULL, 0));
    RV(f->C_SignMessage(s, NULL, 0, data, 20, other, &more), CKR_OPERATION_ACTIVE);
    OK(f->C_SignMessageNext(s, NULL, 0, data, 10, NULL, NULL));
    OK(f->C_SignMessageNext(s, NULL, 0, data + 10, 10, NULL, &more));
    OK(f->C_SignMessageNext(s, NULL, 0, data + 10, 10, other, &more));
    OK(f->C_VerifyMessage(s, NULL, 0, data, 20, other, more));
    RV(f->C_VerifyMessage(s, NULL, 0, data, 19, other, more), CKR_SIGNATURE_INVALID);
    RV(f->C_VerifyMessage(s, NULL, 0, data, 20, other, 63), CKR_SIGNATURE_LEN_RANGE);
    OK(f->C_VerifyMessageBegin(s, NULL, 0));
    OK(f->C_VerifyMessageNext(s, NULL, 0, data, 10, NULL, 0));
    OK(f->C_VerifyMessageNext(s, NULL, 0, data + 10, 10, signature, n));
    OK(f->C_MessageSignFinal(s));
    RV(f->C_MessageSignFinal(s), CKR_OPERATION_NOT_INITIALIZED);
    OK(f->C_MessageVerifyInit(s, NULL, 0)); /* cancels */
    RV(f->C_MessageVerifyFinal(s), CKR_OPERATION_NOT_INITIALIZED);
}

static void check_unsupported(CK_SESSION_HANDLE s)
{
    RV(f->C_GetFunctionStatus(s), CKR_FUNCTION_NOT_PARALLEL);
    RV(f->C_CancelFunction(s), CKR_FUNCTION_NOT_PARALLEL);
}

static void check_asynchronous(CK_SLOT_ID slot, CK_SESSION_HANDLE s)
{
    CK_UTF8CHAR *name = (CK_UTF8CHAR *)"C_SignInit";
    CK_ASYNC_DATA result = {0};
    CK_SESSION_HANDLE other;
    CK_ULONG id;

    RV(f->C_OpenSession(slot, CKF_SERIAL_SESSION | CKF_ASYNC_SESSION, NULL, NULL, &other), CKR_SESSION_ASYNC_NOT_SUPPORTED);
    RV(f->C_AsyncComplete(s, name, &result), CKR_SESSION_ASYNC_NOT_SUPPORTED);
    RV(f->C_AsyncGetID(s, name, &id), CKR_OPERATION_NOT_INITIALIZED);
    RV(f->C_AsyncJoin(s, name, 1, NULL, 0), CKR_SAVED_STATE_INVALID);
    RV(f->C_AsyncGetID(s, NULL, &id), CKR_ARGUMENTS_BAD);
    RV(f->C_AsyncComplete(s + 1, name, &result), CKR_SESSION_HANDLE_INVALID);
}

static void check_validation(CK_SESSION_HANDLE s)
{
    CK_FLAGS flags = 1;

    OK(f->C_GetSessionValidationFlags(s, CKS_LAST_VALIDATION_OK, &flags));
    CHECK(flags == 0);
    RV(f->C_GetSessionValidationFlags(s, 2, &flags), CKR_ARGUMENTS_BAD);
    RV(f->C_GetSessionValidationFlags(s, CKS_LAST_VALIDATION_OK, NULL), CKR_ARGUMENTS_BAD);
}

/* Both sides come to one key, and one that asks for the length of the ciphertext to none. */
static void check_kem(CK_SESSION_HANDLE s)
{
    CK_MECHANISM gen = {CKM_ML_KEM_KEY_PAIR_GEN, NULL, 0}, kem = {CKM_ML_KEM, NULL, 0}, none = {CKM_SHA256_HMAC, NULL, 0};
    CK_ULONG set = CKP_ML_KEM_768, class = CKO_SECRET_KEY, type = CKK_GENERIC_SECRET, n = 0, found, left, len;
    CK_BBOOL yes = 1;
    CK_ATTRIBUTE pub[] = {{CKA_PARAMETER_SET, &set, sizeof set}, {CKA_ENCAPSULATE, &yes, 1}};
    CK_ATTRIBUTE priv[] = {{CKA_DECAPSULATE, &yes, 1}};
    CK_ATTRIBUTE t[] = {{CKA_CLASS, &class, sizeof class}, {CKA_KEY_TYPE, &type, sizeof type}, {CKA_SIGN, &yes, 1}, {CKA_LABEL, "kem", 3}};
    CK_OBJECT_HANDLE public, private, here, there, list[8];
    static CK_BYTE ciphertext[2048];
    CK_BYTE mac[32], other[32];

    OK(f->C_GenerateKeyPair(s, &gen, pub, 2, priv, 1, &public, &private));
    OK(f->C_EncapsulateKey(s, &kem, public, t, 4, NULL, &n, NULL));
    CHECK(n == 1088);
    len = n - 1;
    RV(f->C_EncapsulateKey(s, &kem, public, t, 4, ciphertext, &len, &here), CKR_BUFFER_TOO_SMALL);
    CHECK(len == n);
    OK(f->C_FindObjectsInit(s, &t[3], 1));
    OK(f->C_FindObjects(s, list, 8, &found));
    OK(f->C_FindObjectsFinal(s));
    CHECK(found == 0);
    len = sizeof ciphertext;
    OK(f->C_EncapsulateKey(s, &kem, public, t, 4, ciphertext, &len, &here));
    CHECK(len == n);
    OK(f->C_DecapsulateKey(s, &kem, private, t, 4, ciphertext, len, &there));
    OK(f->C_SignInit(s, &none, here));
    left = sizeof mac;
    OK(f->C_Sign(s, data, DATA_LEN, mac, &left));
    OK(f->C_SignInit(s, &none, there));
    left = sizeof other;
    OK(f->C_Sign(s, data, DATA_LEN, other, &left));
    CHECK(memcmp(mac, other, sizeof mac) == 0);
    RV(f->C_EncapsulateKey(s, &kem, private, t, 4, ciphertext, &len, &here), CKR_KEY_FUNCTION_NOT_PERMITTED);
    RV(f->C_DecapsulateKey(s, &kem, private, t, 4, ciphertext, len - 1, &there), CKR_WRAPPED_KEY_LEN_RANGE);
}

/* Whether a public key encapsulates is not the mechanism's only question. */
static void check_encapsulation(CK_SESSION_HANDLE s, CK_OBJECT_HANDLE key)
{
    CK_MECHANISM none = {CKM_SHA256, NULL, 0};
    CK_BYTE out[64] = {0};
    CK_ULONG n = sizeof out;
    CK_OBJECT_HANDLE made;

    check_kem(s);
    RV(f->C_EncapsulateKey(s, &none, key, NULL, 0, out, &n, &made), CKR_MECHANISM_INVALID);
    RV(f->C_EncapsulateKey(s, &none, key, NULL, 0, NULL, &n, NULL), CKR_MECHANISM_INVALID);
    RV(f->C_EncapsulateKey(s, &none, key, NULL, 0, out, &n, NULL), CKR_ARGUMENTS_BAD);
    RV(f->C_EncapsulateKey(s, NULL, key, NULL, 0, out, &n, &made), CKR_ARGUMENTS_BAD);
    RV(f->C_DecapsulateKey(s, &none, key, NULL, 0, out, n, &made), CKR_MECHANISM_INVALID);
    RV(f->C_DecapsulateKey(s, NULL, key, NULL, 0, out, n, &made), CKR_ARGUMENTS_BAD);
}

/* A token of its own would be needed to set PINs without disturbing others: the
   PIN that is set is the one that was. */
static void check_pins(CK_SLOT_ID slot, CK_SESSION_HANDLE s)
{
    CK_UTF8CHAR label[32];

    OK(f->C_Logout(s));
    RV(f->C_Logout(s), CKR_USER_NOT_LOGGED_IN);
    RV(f->C_Login(s, CKU_USER, SO_PIN, 7), CKR_PIN_INCORRECT);
    OK(f->C_LoginUser(s, CKU_USER, PIN, PIN_LEN, NULL, 0));
    OK(f->C_SetPIN(s, PIN, PIN_LEN, (CK_UTF8CHAR *)"another", 7));
    OK(f->C_Logout(s));
    OK(f->C_Login(s, CKU_SO, SO_PIN, SO_PIN_LEN));
    OK(f->C_InitPIN(s, PIN, PIN_LEN));
    OK(f->C_CloseAllSessions(slot));
    RV(f->C_CloseSession(s), CKR_SESSION_HANDLE_INVALID);
    memset(label, ' ', sizeof label);
    memcpy(label, "test", 4);
    RV(f->C_InitToken(slot, PIN, PIN_LEN, label), CKR_PIN_INCORRECT);
    OK(f->C_InitToken(slot, SO_PIN, SO_PIN_LEN, label));
}

void case_functions(void)
{
    CK_SLOT_ID slot = start(), event;
    CK_SESSION_HANDLE s = login(slot);
    CK_OBJECT_HANDLE key = aes_key(s);
    CK_SESSION_INFO info;
    CK_MECHANISM m = {CKM_SHA256, NULL, 0};

    CHECK(slot == 3);
    check_info(slot);
    OK(f->C_GetSessionInfo(s, &info));
    CHECK(info.slotID == slot && info.state == CKS_RW_USER_FUNCTIONS);
    check_objects(s);
    check_ciphers(s, key);
    check_digests(s, mac_key(s));
    check_dual(s, key);
    check_signatures(s);
    check_presented(s);
    check_state(slot, s, key);
    check_recover(s);
    check_keys(s, key);
    check_authenticated(s, key);
    check_random(s);
    check_messages(s);
    check_signed_messages(slot, s);
    check_unsupported(s);
    check_asynchronous(slot, s);
    check_validation(s);
    check_encapsulation(s, key);
    OK(f->C_DigestInit(s, &m));
    OK(f->C_SessionCancel(s, CKF_DIGEST));
    OK(f->C_DigestInit(s, &m));
    OK(f->C_DigestInit(s, NULL)); /* cancels as well */
    RV(f->C_WaitForSlotEvent(CKF_DONT_BLOCK, &event, NULL), CKR_NO_EVENT);
    check_pins(slot, s);
    OK(f->C_Finalize(NULL));
    RV(f->C_Finalize(NULL), CKR_CRYPTOKI_NOT_INITIALIZED);
}

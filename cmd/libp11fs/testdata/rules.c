/* What the module itself must hold to: arguments, buffers, parameters,
   interfaces, and that an Init which is put off cannot be told from one that is
   not. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"

/* Any function with arguments of nothing. Every one takes at most nine words. */
typedef CK_RV (*any)(CK_ULONG, CK_ULONG, CK_ULONG, CK_ULONG, CK_ULONG, CK_ULONG, CK_ULONG, CK_ULONG, CK_ULONG);

static CK_RV call_any(size_t offset)
{
    any function;

    memcpy(&function, (char *)f + offset, sizeof function);
    return function(0, 0, 0, 0, 0, 0, 0, 0, 0);
}

#define ENTRY(name, parameters) {#name, offsetof(CK_FUNCTION_LIST_3_0, name)},
static const struct {
    const char *name;
    size_t offset;
} functions[] = {FUNCTIONS_2_40(ENTRY) FUNCTIONS_3_0(ENTRY)};

enum { FUNCTIONS = sizeof functions / sizeof functions[0] };

static bool starts(const char *name)
{
    return strcmp(name, "C_Initialize") == 0 || strcmp(name, "C_GetFunctionList") == 0 ||
           strncmp(name, "C_GetInterface", 14) == 0;
}

void case_not_initialized(void)
{
    CHECK(FUNCTIONS == 92);
    for (size_t i = 0; i < FUNCTIONS; i++) {
        if (!starts(functions[i].name))
            want(functions[i].name, 0, "before C_Initialize", call_any(functions[i].offset), CKR_CRYPTOKI_NOT_INITIALIZED);
    }
    OK(f->C_Initialize(NULL));
    OK(f->C_Finalize(NULL));
    for (size_t i = 0; i < FUNCTIONS; i++) {
        if (!starts(functions[i].name))
            want(functions[i].name, 0, "after C_Finalize", call_any(functions[i].offset), CKR_CRYPTOKI_NOT_INITIALIZED);
    }
}

void case_arguments(void)
{
    CK_SLOT_ID slot = start();
    CK_SESSION_HANDLE s = login(slot);
    CK_OBJECT_HANDLE key = aes_key(s), secret = mac_key(s), h;
    CK_MECHANISM sha = {CKM_SHA256, NULL, 0}, ecb = {CKM_AES_ECB, NULL, 0}, mac = {CKM_SHA256_HMAC, NULL, 0};
    CK_MECHANISM gen = {CKM_AES_KEY_GEN, NULL, 0};
    CK_BYTE b[64] = {0};
    CK_ULONG n = sizeof b;
    CK_FUNCTION_LIST *list;

    /* With no session, every function that names one says so, whatever else is
       wrong; those that do not, take their NULL pointers ill. */
    for (size_t i = 0; i < FUNCTIONS; i++) {
        CK_RV rv;

        if (starts(functions[i].name) || strcmp(functions[i].name, "C_Finalize") == 0)
            continue;
        rv = call_any(functions[i].offset);
        if (rv != CKR_SESSION_HANDLE_INVALID && rv != CKR_ARGUMENTS_BAD && rv != CKR_SLOT_ID_INVALID)
            want(functions[i].name, 0, "with nothing", rv, CKR_ARGUMENTS_BAD);
    }
    RV(f->C_GetFunctionList(NULL), CKR_ARGUMENTS_BAD);
    OK(f->C_GetFunctionList(&list));
    RV(f->C_Finalize(b), CKR_ARGUMENTS_BAD);
    RV(f->C_GetInfo(NULL), CKR_ARGUMENTS_BAD);
    RV(f->C_GetSlotList(1, NULL, NULL), CKR_ARGUMENTS_BAD);
    RV(f->C_GetSlotInfo(slot, NULL), CKR_ARGUMENTS_BAD);
    RV(f->C_GetTokenInfo(slot, NULL), CKR_ARGUMENTS_BAD);
    RV(f->C_GetMechanismList(slot, NULL, NULL), CKR_ARGUMENTS_BAD);
    RV(f->C_GetMechanismInfo(slot, CKM_AES_ECB, NULL), CKR_ARGUMENTS_BAD);
    RV(f->C_InitToken(slot, NULL, 4, b), CKR_ARGUMENTS_BAD);
    RV(f->C_InitToken(slot, SO_PIN, SO_PIN_LEN, NULL), CKR_ARGUMENTS_BAD);
    RV(f->C_OpenSession(slot, CKF_SERIAL_SESSION, NULL, NULL, NULL), CKR_ARGUMENTS_BAD);
    RV(f->C_OpenSession(slot, 0, NULL, NULL, &h), CKR_SESSION_PARALLEL_NOT_SUPPORTED);
    RV(f->C_GetSessionInfo(s, NULL), CKR_ARGUMENTS_BAD);
    RV(f->C_Login(s, CKU_USER, NULL, 4), CKR_ARGUMENTS_BAD);
    RV(f->C_InitPIN(s, NULL, 4), CKR_ARGUMENTS_BAD);
    RV(f->C_SetPIN(s, PIN, PIN_LEN, NULL, 4), CKR_ARGUMENTS_BAD);
    RV(f->C_CreateObject(s, NULL, 1, &h), CKR_ARGUMENTS_BAD);
    RV(f->C_CreateObject(s, NULL, 0, NULL), CKR_ARGUMENTS_BAD);
    RV(f->C_CopyObject(s, key, NULL, 0, NULL), CKR_ARGUMENTS_BAD);
    RV(f->C_GetObjectSize(s, key, NULL), CKR_ARGUMENTS_BAD);
    RV(f->C_GetAttributeValue(s, key, NULL, 1), CKR_ARGUMENTS_BAD);
    RV(f->C_SetAttributeValue(s, key, NULL, 1), CKR_ARGUMENTS_BAD);
    RV(f->C_FindObjectsInit(s, NULL, 1), CKR_ARGUMENTS_BAD);
    OK(f->C_FindObjectsInit(s, NULL, 0));
    RV(f->C_FindObjects(s, NULL, 3, &n), CKR_ARGUMENTS_BAD);
    RV(f->C_FindObjects(s, &h, 1, NULL), CKR_ARGUMENTS_BAD);
    OK(f->C_FindObjectsFinal(s));
    RV(f->C_GenerateKey(s, NULL, NULL, 0, &h), CKR_ARGUMENTS_BAD);
    RV(f->C_GenerateKey(s, &gen, NULL, 0, NULL), CKR_ARGUMENTS_BAD);
    RV(f->C_GenerateKeyPair(s, &gen, NULL, 0, NULL, 0, &h, NULL), CKR_ARGUMENTS_BAD);
    RV(f->C_WrapKey(s, &ecb, key, key, b, NULL), CKR_ARGUMENTS_BAD);
    RV(f->C_UnwrapKey(s, &ecb, key, NULL, 16, NULL, 0, &h), CKR_ARGUMENTS_BAD);
    RV(f->C_DeriveKey(s, NULL, key, NULL, 0, &h), CKR_ARGUMENTS_BAD);
    RV(f->C_SeedRandom(s, NULL, 3), CKR_ARGUMENTS_BAD);
    RV(f->C_GenerateRandom(s, NULL, 3), CKR_ARGUMENTS_BAD);
    RV(f->C_WaitForSlotEvent(CKF_DONT_BLOCK, NULL, NULL), CKR_ARGUMENTS_BAD);
    RV(f->C_WaitForSlotEvent(CKF_DONT_BLOCK, &h, b), CKR_ARGUMENTS_BAD);
    /* A bad argument leaves an operation as it is. */
    for (int i = 0; i < 3; i++) {
        OK(f->C_DigestInit(s, &sha));
        RV(f->C_Digest(s, NULL, 3, b, &n), CKR_ARGUMENTS_BAD);
        RV(f->C_Digest(s, b, 3, b, NULL), CKR_ARGUMENTS_BAD);
        OK(f->C_Digest(s, b, 3, b, &n));
        OK(f->C_SignInit(s, &mac, secret));
        RV(f->C_Sign(s, NULL, 3, b, &n), CKR_ARGUMENTS_BAD);
        RV(f->C_SignUpdate(s, NULL, 3), CKR_ARGUMENTS_BAD);
        n = sizeof b;
        OK(f->C_Sign(s, b, 3, b, &n));
        OK(f->C_VerifyInit(s, &mac, secret));
        RV(f->C_Verify(s, b, 3, NULL, 3), CKR_ARGUMENTS_BAD);
        RV(f->C_Verify(s, b, 3, b, 32), CKR_SIGNATURE_INVALID);
    }
    OK(f->C_DigestInit(s, &sha));
    OK(f->C_DigestUpdate(s, NULL, 0));
    n = sizeof b;
    OK(f->C_DigestFinal(s, b, &n));
    CHECK(n == 32 && b[0] == 0xe3 && b[1] == 0xb0); /* of nothing */
    OK(f->C_Finalize(NULL));
}

void case_buffers(void)
{
    CK_SLOT_ID slot = start(), slots[4];
    CK_SESSION_HANDLE s = login(slot);
    CK_OBJECT_HANDLE key = aes_key(s), secret = mac_key(s);
    CK_BYTE iv[16] = {0}, in[32] = {7}, out[64], again[64];
    CK_MECHANISM sha = {CKM_SHA256, NULL, 0}, cbc = {CKM_AES_CBC_PAD, iv, 16}, mac = {CKM_SHA256_HMAC, NULL, 0};
    CK_ULONG n;

    n = 0;
    OK(f->C_GetSlotList(0, NULL, &n));
    CHECK(n == 1);
    n = 0;
    RV(f->C_GetSlotList(0, slots, &n), CKR_BUFFER_TOO_SMALL);
    CHECK(n == 1);
    n = 2;
    RV(f->C_GetMechanismList(slot, slots, &n), CKR_BUFFER_TOO_SMALL);
    CHECK(n > 2);
    for (int i = 0; i < 3; i++) { /* the Init by itself, then put off */
        OK(f->C_DigestInit(s, &sha));
        n = 1234;
        OK(f->C_Digest(s, in, 5, NULL, &n));
        CHECK(n == 32);
        n = 31;
        RV(f->C_Digest(s, in, 5, out, &n), CKR_BUFFER_TOO_SMALL);
        CHECK(n == 32);
        n = 0;
        RV(f->C_Digest(s, in, 5, out, &n), CKR_BUFFER_TOO_SMALL);
        CHECK(n == 32);
        OK(f->C_Digest(s, in, 5, out, &n));
        RV(f->C_Digest(s, in, 5, out, &n), CKR_OPERATION_NOT_INITIALIZED);

        OK(f->C_DigestInit(s, &sha));
        n = 31;
        RV(f->C_Digest(s, in, 5, out, &n), CKR_BUFFER_TOO_SMALL);
        n = sizeof out;
        OK(f->C_Digest(s, in, 5, again, &n));
        OK(f->C_DigestInit(s, &sha));
        OK(f->C_DigestUpdate(s, in, 5));
        n = 0;
        OK(f->C_DigestFinal(s, NULL, &n));
        CHECK(n == 32);
        n = 3;
        RV(f->C_DigestFinal(s, out, &n), CKR_BUFFER_TOO_SMALL);
        OK(f->C_DigestFinal(s, out, &n));
        CHECK(memcmp(out, again, 32) == 0);

        OK(f->C_SignInit(s, &mac, secret));
        n = 0;
        OK(f->C_Sign(s, in, 5, NULL, &n));
        CHECK(n == 32);
        OK(f->C_Sign(s, in, 5, out, &n));
        OK(f->C_VerifyInit(s, &mac, secret));
        OK(f->C_Verify(s, in, 5, out, n));

        OK(f->C_EncryptInit(s, &cbc, key));
        n = 0;
        OK(f->C_Encrypt(s, in, 16, NULL, &n));
        CHECK(n == 32);
        n = 31;
        RV(f->C_Encrypt(s, in, 16, out, &n), CKR_BUFFER_TOO_SMALL);
        OK(f->C_Encrypt(s, in, 16, out, &n));
        OK(f->C_DecryptInit(s, &cbc, key));
        n = 3;
        RV(f->C_Decrypt(s, out, 32, again, &n), CKR_BUFFER_TOO_SMALL);
        n = sizeof again;
        OK(f->C_Decrypt(s, out, 32, again, &n));
        CHECK(n == 16 && memcmp(again, in, 16) == 0);
        /* A result of no length needs no room. */
        OK(f->C_EncryptInit(s, &cbc, key));
        n = 0;
        OK(f->C_EncryptUpdate(s, in, 5, out, &n));
        CHECK(n == 0);
        n = sizeof out;
        OK(f->C_EncryptFinal(s, out, &n));
        CHECK(n == 16);
    }
    OK(f->C_Finalize(NULL));
}

static void *sized(size_t n, int fill)
{
    void *p = malloc(n);

    CHECK(p != NULL);
    memset(p, fill, n);
    return p;
}

/* round_trip encrypts and decrypts with a mechanism. */
static void round_trip(CK_SESSION_HANDLE s, CK_OBJECT_HANDLE key, CK_MECHANISM *m, CK_ULONG len)
{
    CK_BYTE in[64] = {1, 2, 3}, out[512], back[512];
    CK_ULONG n = sizeof out, k = sizeof back;

    OK(f->C_EncryptInit(s, m, key));
    OK(f->C_Encrypt(s, in, len, out, &n));
    OK(f->C_DecryptInit(s, m, key));
    OK(f->C_Decrypt(s, out, n, back, &k));
    CHECK(k == len && memcmp(in, back, k) == 0);
}

static void rsa(CK_SESSION_HANDLE s, CK_OBJECT_HANDLE secret)
{
    CK_ULONG bits = 2048, n;
    CK_BBOOL yes = 1;
    CK_ATTRIBUTE pub[] = {{CKA_MODULUS_BITS, &bits, sizeof bits}, {CKA_VERIFY, &yes, 1}, {CKA_ENCRYPT, &yes, 1}, {CKA_WRAP, &yes, 1}};
    CK_ATTRIBUTE priv[] = {{CKA_SIGN, &yes, 1}, {CKA_DECRYPT, &yes, 1}, {CKA_UNWRAP, &yes, 1}};
    CK_MECHANISM gen = {CKM_RSA_PKCS_KEY_PAIR_GEN, NULL, 0};
    CK_RSA_PKCS_PSS_PARAMS pss = {CKM_SHA256, CKG_MGF1_SHA256, 20};
    CK_RSA_PKCS_OAEP_PARAMS oaep = {CKM_SHA256, CKG_MGF1_SHA256, CKZ_DATA_SPECIFIED, "label", 5};
    CK_RSA_AES_KEY_WRAP_PARAMS wrap = {256, &oaep};
    CK_MECHANISM m = {CKM_SHA256_RSA_PKCS_PSS, &pss, sizeof pss}, enc = {CKM_RSA_PKCS_OAEP, &oaep, sizeof oaep};
    CK_MECHANISM aes = {CKM_RSA_AES_KEY_WRAP, &wrap, sizeof wrap}, info = {CKM_RSA_AES_KEY_WRAP, NULL, 0};
    CK_MECHANISM_INFO mi;
    CK_OBJECT_HANDLE public, private;
    CK_BYTE in[40] = {5}, out[512];

    OK(f->C_GenerateKeyPair(s, &gen, pub, 4, priv, 3, &public, &private));
    OK(f->C_SignInit(s, &m, private));
    n = sizeof out;
    OK(f->C_Sign(s, in, sizeof in, out, &n));
    CHECK(n == 256);
    OK(f->C_VerifyInit(s, &m, public));
    OK(f->C_Verify(s, in, sizeof in, out, n));
    pss.sLen = 21; /* another parameter is another mechanism */
    OK(f->C_VerifyInit(s, &m, public));
    RV(f->C_Verify(s, in, sizeof in, out, n), CKR_SIGNATURE_INVALID);
    OK(f->C_EncryptInit(s, &enc, public));
    n = sizeof out;
    OK(f->C_Encrypt(s, in, sizeof in, out, &n));
    OK(f->C_DecryptInit(s, &enc, private));
    n = sizeof out;
    OK(f->C_Decrypt(s, out, 256, out, &n));
    CHECK(n == sizeof in && memcmp(in, out, n) == 0);
    m.ulParameterLen--;
    RV(f->C_SignInit(s, &m, private), CKR_MECHANISM_PARAM_INVALID);
    if (f->C_GetMechanismInfo(3, info.mechanism, &mi) == CKR_OK) {
        n = sizeof out;
        OK(f->C_WrapKey(s, &aes, public, secret, out, &n));
    }
    wrap.pOAEPParams = NULL;
    RV(f->C_WrapKey(s, &aes, public, secret, out, &n), CKR_MECHANISM_PARAM_INVALID);
}

static void ecdh(CK_SESSION_HANDLE s)
{
    CK_OBJECT_HANDLE pub[2], priv[2], key;
    CK_BYTE point[128];
    CK_ATTRIBUTE get = {CKA_EC_POINT, point, sizeof point};
    CK_ULONG class = CKO_SECRET_KEY, type = CKK_GENERIC_SECRET, len = 32;
    CK_BBOOL yes = 1, no = 0;
    CK_ATTRIBUTE t[] = {{CKA_CLASS, &class, sizeof class}, {CKA_KEY_TYPE, &type, sizeof type}, {CKA_VALUE_LEN, &len, sizeof len},
                        {CKA_EXTRACTABLE, &yes, 1}, {CKA_SENSITIVE, &no, 1}};
    CK_BYTE value[2][32];
    CK_ECDH1_DERIVE_PARAMS p = {CKD_NULL, 0, NULL, 0, NULL};
    CK_MECHANISM m = {CKM_ECDH1_DERIVE, &p, sizeof p};

    for (int i = 0; i < 2; i++)
        ec_key(s, &pub[i], &priv[i]);
    for (int i = 0; i < 2; i++) {
        CK_ATTRIBUTE v = {CKA_VALUE, value[i], 32};

        get.ulValueLen = sizeof point;
        OK(f->C_GetAttributeValue(s, pub[1 - i], &get, 1));
        p.pPublicData = point;
        p.ulPublicDataLen = get.ulValueLen;
        OK(f->C_DeriveKey(s, &m, priv[i], t, 5, &key));
        OK(f->C_GetAttributeValue(s, key, &v, 1));
    }
    CHECK(memcmp(value[0], value[1], 32) == 0);
}

void case_mechanisms(void)
{
    CK_SLOT_ID slot = start();
    CK_SESSION_HANDLE s = login(slot);
    CK_OBJECT_HANDLE key = aes_key(s), secret = mac_key(s);
    CK_BYTE iv[16] = {3}, aad[5] = {4}, out[64];
    CK_GCM_PARAMS gcm = {iv, 12, 96, aad, 5, 128};
    CK_GCM_PARAMS_NO_IV_BITS old = {iv, 12, aad, 5, 96};
    CK_AES_CTR_PARAMS ctr = {64, {1, 2, 3}};
    CK_ULONG length = 8, n = sizeof out;
    CK_BYTE *exact = sized(16, 9);
    CK_MECHANISM m[] = {{CKM_AES_GCM, &gcm, sizeof gcm}, {CKM_AES_GCM, &old, sizeof old}, {CKM_AES_CTR, &ctr, sizeof ctr},
                        {CKM_AES_CBC_PAD, iv, 16},       {CKM_AES_CBC_PAD, exact, 16}};
    CK_MECHANISM mac = {CKM_SHA256_HMAC_GENERAL, &length, sizeof length};
    CK_MECHANISM unknown = {CKM_VENDOR_DEFINED + 0x7777, iv, 16}, wide = {~0UL - 5, NULL, 0}, null = {CKM_AES_CBC, NULL, 16};

    for (size_t i = 0; i < sizeof m / sizeof m[0]; i++) {
        round_trip(s, key, &m[i], 32);
        round_trip(s, key, &m[i], 32);
    }
    free(exact);
    OK(f->C_SignInit(s, &mac, secret));
    OK(f->C_Sign(s, iv, 16, out, &n));
    CHECK(n == 8);
    RV(f->C_SignInit(s, &unknown, key), CKR_MECHANISM_INVALID);
    RV(f->C_SignInit(s, &wide, key), CKR_MECHANISM_INVALID);
    RV(f->C_EncryptInit(s, &null, key), CKR_MECHANISM_PARAM_INVALID);
    gcm.ulIvLen = 12, gcm.pIv = NULL;
    RV(f->C_EncryptInit(s, &m[0], key), CKR_MECHANISM_PARAM_INVALID);
    m[2].ulParameterLen = 5;
    RV(f->C_EncryptInit(s, &m[2], key), CKR_MECHANISM_PARAM_INVALID);
    rsa(s, key);
    ecdh(s);
    OK(f->C_Finalize(NULL));
}

void case_attributes(void)
{
    CK_SLOT_ID slot = start();
    CK_SESSION_HANDLE s = login(slot);
    CK_ULONG class = CKO_SECRET_KEY, type = CKK_AES, len = 16, got_class = 0, got_len = 0;
    CK_BBOOL yes = 1, no = 0, token = 9;
    CK_MECHANISM_TYPE allowed[] = {CKM_AES_CBC, CKM_AES_GCM}, got_allowed[4];
    CK_BYTE label[8], value[64], date[] = "20300131", got_date[8];
    CK_ATTRIBUTE inner[] = {{CKA_ENCRYPT, &yes, 1}, {CKA_KEY_TYPE, &type, sizeof type}, {CKA_LABEL, "in", 2}};
    CK_ATTRIBUTE t[] = {{CKA_CLASS, &class, sizeof class},
                        {CKA_KEY_TYPE, &type, sizeof type},
                        {CKA_VALUE_LEN, &len, sizeof len},
                        {CKA_LABEL, "nested", 6},
                        {CKA_SENSITIVE, &yes, 1},
                        {CKA_WRAP, &yes, 1},
                        {CKA_START_DATE, date, 8},
                        {CKA_END_DATE, NULL, 0},
                        {CKA_ALLOWED_MECHANISMS, allowed, sizeof allowed},
                        {CKA_WRAP_TEMPLATE, inner, sizeof inner}};
    CK_MECHANISM gen = {CKM_AES_KEY_GEN, NULL, 0};
    CK_OBJECT_HANDLE key;
    CK_BBOOL in_bool = 0;
    CK_ULONG in_type = 0;
    CK_BYTE in_label[8];
    CK_ATTRIBUTE in_got[4];

    OK(f->C_GenerateKey(s, &gen, t, sizeof t / sizeof t[0], &key));
    {
        CK_ATTRIBUTE g[] = {{CKA_CLASS, &got_class, sizeof got_class}, {CKA_TOKEN, &token, 1}, {CKA_LABEL, label, sizeof label},
                            {CKA_VALUE_LEN, &got_len, sizeof got_len}, {CKA_START_DATE, got_date, 8}, {CKA_END_DATE, got_date, 8},
                            {CKA_ALLOWED_MECHANISMS, got_allowed, sizeof got_allowed}};

        OK(f->C_GetAttributeValue(s, key, g, 7));
        CHECK(got_class == CKO_SECRET_KEY && token == 0 && got_len == 16);
        CHECK(g[2].ulValueLen == 6 && memcmp(label, "nested", 6) == 0);
        CHECK(g[4].ulValueLen == 8 && memcmp(got_date, date, 8) == 0 && g[5].ulValueLen == 0);
        CHECK(g[6].ulValueLen == sizeof allowed && memcmp(got_allowed, allowed, sizeof allowed) == 0);
    }
    { /* lengths only */
        CK_ATTRIBUTE g[] = {{CKA_CLASS, NULL, 0}, {CKA_TOKEN, NULL, 5}, {CKA_LABEL, NULL, 0}, {CKA_START_DATE, NULL, 0},
                            {CKA_ALLOWED_MECHANISMS, NULL, 0}, {CKA_WRAP_TEMPLATE, NULL, 0}};

        OK(f->C_GetAttributeValue(s, key, g, 6));
        CHECK(g[0].ulValueLen == sizeof(CK_ULONG) && g[1].ulValueLen == 1 && g[2].ulValueLen == 6 && g[3].ulValueLen == 8);
        CHECK(g[4].ulValueLen == sizeof allowed && g[5].ulValueLen == 3 * sizeof(CK_ATTRIBUTE));
    }
    { /* every attribute on its own: too small, sensitive, absent, right */
        CK_ATTRIBUTE g[] = {{CKA_LABEL, label, 3}, {CKA_VALUE, value, sizeof value}, {CKA_MODULUS, value, sizeof value},
                            {CKA_CLASS, &got_class, sizeof got_class}};
        CK_RV rv = f->C_GetAttributeValue(s, key, g, 4);

        CHECK(rv == CKR_BUFFER_TOO_SMALL || rv == CKR_ATTRIBUTE_SENSITIVE || rv == CKR_ATTRIBUTE_TYPE_INVALID);
        CHECK(g[0].ulValueLen == CK_UNAVAILABLE_INFORMATION && g[1].ulValueLen == CK_UNAVAILABLE_INFORMATION);
        CHECK(g[2].ulValueLen == CK_UNAVAILABLE_INFORMATION && g[3].ulValueLen == sizeof got_class);
        g[0].ulValueLen = 0; /* a pointer, but no room */
        RV(f->C_GetAttributeValue(s, key, g, 1), CKR_BUFFER_TOO_SMALL);
        CHECK(g[0].ulValueLen == CK_UNAVAILABLE_INFORMATION);
        OK(f->C_GetAttributeValue(s, key, NULL, 0));
    }
    { /* a template: its attributes have rooms of their own */
        CK_ATTRIBUTE g = {CKA_WRAP_TEMPLATE, in_got, 3 * sizeof in_got[0]};

        for (int pass = 0; pass < 2; pass++) {
            bool seen[3] = {false};

            for (int i = 0; i < 3; i++) {
                CK_ATTRIBUTE none = {0, pass == 0 ? NULL : value + 16 * i, pass == 0 ? 0 : 16};

                in_got[i] = none;
            }
            g.ulValueLen = 3 * sizeof in_got[0];
            OK(f->C_GetAttributeValue(s, key, &g, 1));
            CHECK(g.ulValueLen == 3 * sizeof in_got[0]);
            for (int i = 0; i < 3; i++) {
                const CK_BYTE *v = in_got[i].pValue;

                if (in_got[i].type == CKA_ENCRYPT) {
                    CHECK(in_got[i].ulValueLen == 1 && (v == NULL || v[0] == 1));
                    seen[0] = true;
                } else if (in_got[i].type == CKA_KEY_TYPE) {
                    CHECK(in_got[i].ulValueLen == sizeof type && (v == NULL || memcmp(v, &type, sizeof type) == 0));
                    seen[1] = true;
                } else if (in_got[i].type == CKA_LABEL) {
                    CHECK(in_got[i].ulValueLen == 2 && (v == NULL || memcmp(v, "in", 2) == 0));
                    seen[2] = true;
                }
            }
            CHECK(seen[0] && seen[1] && seen[2]);
        }
        g.ulValueLen = 2 * sizeof in_got[0];
        RV(f->C_GetAttributeValue(s, key, &g, 1), CKR_BUFFER_TOO_SMALL);
        CHECK(g.ulValueLen == CK_UNAVAILABLE_INFORMATION);
        (void)in_bool, (void)in_type, (void)in_label;
    }
    { /* values that have no form */
        CK_ATTRIBUTE wrong[] = {{CKA_SENSITIVE, &yes, 2}, {CKA_VALUE_LEN, &len, 3}, {CKA_LABEL, NULL, 3},
                                {CKA_ALLOWED_MECHANISMS, allowed, 9}, {CKA_WRAP_TEMPLATE, inner, 5}};
        CK_ATTRIBUTE loop = {CKA_WRAP_TEMPLATE, &loop, sizeof loop}, wide = {1UL << 40, &no, 1};

        for (int i = 0; i < 5; i++)
            RV(f->C_GenerateKey(s, &gen, &wrong[i], 1, &key), CKR_ATTRIBUTE_VALUE_INVALID);
        RV(f->C_GenerateKey(s, &gen, &loop, 1, &key), CKR_ARGUMENTS_BAD);
        RV(f->C_GenerateKey(s, &gen, &wide, 1, &key), CKR_ATTRIBUTE_TYPE_INVALID);
    }
    OK(f->C_Finalize(NULL));
}

/* An Init that is put off is not seen. The first round grants each Init, the
   others put it off. */
void case_deferred(void)
{
    CK_SLOT_ID slot = start();
    CK_SESSION_HANDLE s = login(slot), other = session_on(slot);
    CK_OBJECT_HANDLE public, private, secret = mac_key(s), gone;
    CK_MECHANISM m = {CKM_ECDSA_SHA256, NULL, 0}, sha = {CKM_SHA256, NULL, 0}, mac = {CKM_SHA256_HMAC, NULL, 0};
    CK_BYTE in[32] = {1}, out[64];
    CK_ULONG n;
    CK_SESSION_INFO info;

    ec_key(s, &public, &private);
    for (int i = 0; i < 4; i++) {
        OK(f->C_SignInit(s, &m, private));
        RV(f->C_SignInit(s, &m, private), CKR_OPERATION_ACTIVE);
        n = sizeof out;
        OK(f->C_Sign(s, in, 32, out, &n));
        RV(f->C_Sign(s, in, 32, out, &n), CKR_OPERATION_NOT_INITIALIZED);

        OK(f->C_SignInit(s, &m, private));
        OK(f->C_GetSessionInfo(s, &info));
        OK(f->C_SignUpdate(s, in, 32));
        n = sizeof out;
        OK(f->C_SignFinal(s, out, &n));

        OK(f->C_SignInit(s, &m, private));
        OK(f->C_SessionCancel(s, CKF_SIGN));
        n = sizeof out;
        RV(f->C_Sign(s, in, 32, out, &n), CKR_OPERATION_NOT_INITIALIZED);
        OK(f->C_SignInit(s, &m, private));
        OK(f->C_SignInit(s, NULL, 0));
        RV(f->C_Sign(s, in, 32, out, &n), CKR_OPERATION_NOT_INITIALIZED);

        /* Several kinds at once. */
        OK(f->C_SignInit(s, &mac, secret));
        OK(f->C_DigestInit(s, &sha));
        OK(f->C_VerifyInit(s, &m, public));
        n = sizeof out;
        OK(f->C_Digest(s, in, 3, out, &n));
        n = sizeof out;
        OK(f->C_Sign(s, in, 3, out, &n));
        RV(f->C_Verify(s, in, 3, out, n), CKR_SIGNATURE_LEN_RANGE);

        /* A one-part function that fails ends it. */
        OK(f->C_VerifyInit(s, &mac, secret));
        RV(f->C_Verify(s, in, 3, in, 32), CKR_SIGNATURE_INVALID);
        RV(f->C_Verify(s, in, 3, in, 32), CKR_OPERATION_NOT_INITIALIZED);
        OK(f->C_VerifyInit(s, &mac, secret));
        OK(f->C_Verify(s, in, 3, out, n));
    }
    /* What another session does is seen by the Init, not by what follows. */
    gone = mac_key(s);
    for (int i = 0; i < 3; i++) {
        OK(f->C_SignInit(s, &mac, gone));
        n = sizeof out;
        OK(f->C_Sign(s, in, 3, out, &n));
    }
    OK(f->C_DestroyObject(other, gone));
    RV(f->C_SignInit(s, &mac, gone), CKR_KEY_HANDLE_INVALID);
    OK(f->C_SignInit(s, &m, private));
    OK(f->C_Sign(s, in, 3, out, (n = sizeof out, &n)));
    OK(f->C_SignInit(s, &m, private));
    OK(f->C_Logout(other));
    CHECK(f->C_Sign(s, in, 3, out, (n = sizeof out, &n)) != CKR_OK);
    CHECK(f->C_SignInit(s, &m, private) != CKR_OK);
    OK(f->C_CloseSession(s));
    OK(f->C_Finalize(NULL));
}

/* A hundred signatures, for the daemon to count the calls. */
void case_once(void)
{
    CK_SLOT_ID slot = start();
    CK_SESSION_HANDLE s = login(slot);
    CK_OBJECT_HANDLE public, private;
    CK_MECHANISM m = {CKM_ECDSA, NULL, 0};
    CK_BYTE digest[32] = {1}, signature[64];

    ec_key(s, &public, &private);
    for (int i = 0; i < 100; i++) {
        CK_ULONG n = sizeof signature;

        OK(f->C_SignInit(s, &m, private));
        OK(f->C_Sign(s, digest, sizeof digest, signature, &n));
    }
    OK(f->C_Finalize(NULL));
}

void case_interfaces(void)
{
    CK_INTERFACE list[4], *i;
    CK_ULONG n = 0;
    CK_VERSION v240 = {2, 40}, v30 = {3, 0}, v31 = {3, 1};
    CK_FUNCTION_LIST *old;
    CK_INFO info;

    RV(f->C_GetInterfaceList(NULL, NULL), CKR_ARGUMENTS_BAD);
    OK(f->C_GetInterfaceList(NULL, &n));
    CHECK(n == 2);
    n = 1;
    RV(f->C_GetInterfaceList(list, &n), CKR_BUFFER_TOO_SMALL);
    CHECK(n == 2);
    OK(f->C_GetInterfaceList(list, &n));
    CHECK(strcmp(list[0].pInterfaceName, "PKCS 11") == 0 && list[0].flags == 0);
    RV(f->C_GetInterface(NULL, NULL, NULL, 0), CKR_ARGUMENTS_BAD);
    OK(f->C_GetInterface(NULL, NULL, &i, 0));
    CHECK(((const CK_VERSION *)i->pFunctionList)->major == 3);
    OK(f->C_GetInterface((CK_UTF8CHAR *)"PKCS 11", &v240, &i, 0));
    CHECK(((const CK_VERSION *)i->pFunctionList)->minor == 40);
    OK(f->C_GetFunctionList(&old));
    CHECK(i->pFunctionList == old);
    OK(f->C_GetInterface((CK_UTF8CHAR *)"PKCS 11", &v30, &i, 0));
    CHECK(i->pFunctionList == f);
    RV(f->C_GetInterface((CK_UTF8CHAR *)"PKCS 11", &v31, &i, 0), CKR_FUNCTION_FAILED);
    RV(f->C_GetInterface((CK_UTF8CHAR *)"Vendor", NULL, &i, 0), CKR_FUNCTION_FAILED);
    RV(f->C_GetInterface(NULL, NULL, &i, CKF_INTERFACE_FORK_SAFE), CKR_FUNCTION_FAILED);
    OK(old->C_Initialize(NULL));
    OK(old->C_GetInfo(&info));
    CHECK(info.cryptokiVersion.major == 2 && info.cryptokiVersion.minor == 40);
    OK(f->C_GetInfo(&info));
    CHECK(info.cryptokiVersion.major == 3);
    OK(old->C_Finalize(NULL));
}

static CK_RV mutex(void *m)
{
    (void)m;
    return CKR_OK;
}

static CK_RV make_mutex(void **m)
{
    *m = NULL;
    return CKR_OK;
}

void case_initialize(void)
{
    CK_C_INITIALIZE_ARGS a = {make_mutex, mutex, mutex, mutex, 0, NULL};
    int before = descriptors();

    RV(f->C_Initialize(&a), CKR_CANT_LOCK);
    a.flags = CKF_OS_LOCKING_OK;
    OK(f->C_Initialize(&a));
    RV(f->C_Initialize(&a), CKR_CRYPTOKI_ALREADY_INITIALIZED);
    RV(f->C_Initialize(NULL), CKR_CRYPTOKI_ALREADY_INITIALIZED);
    OK(f->C_Finalize(NULL));
    a.LockMutex = NULL;
    RV(f->C_Initialize(&a), CKR_ARGUMENTS_BAD);
    a = (CK_C_INITIALIZE_ARGS){NULL, NULL, NULL, NULL, CKF_LIBRARY_CANT_CREATE_OS_THREADS, NULL};
    OK(f->C_Initialize(&a));
    OK(f->C_Finalize(NULL));
    a.pReserved = &a;
    RV(f->C_Initialize(&a), CKR_ARGUMENTS_BAD);
    for (int i = 0; i < 200; i++) {
        CK_SLOT_ID slot = start();

        (void)session_on(slot);
        OK(f->C_Finalize(NULL));
    }
    CHECK(descriptors() == before);
}

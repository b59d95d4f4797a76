/* What goes over the wire taken apart: parameters of mechanisms, attributes. */
#include <stdlib.h>
#include <string.h>

#include "check.h"

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

static CK_ULONG value_of(CK_SESSION_HANDLE s, CK_OBJECT_HANDLE key, CK_BYTE *value, CK_ULONG room)
{
    CK_ATTRIBUTE a = {CKA_VALUE, value, room};

    OK(f->C_GetAttributeValue(s, key, &a, 1));
    return a.ulValueLen;
}

/* How many generic secret keys there are. */
static CK_ULONG generics(CK_SESSION_HANDLE s)
{
    CK_ULONG n, type = CKK_GENERIC_SECRET;
    CK_ATTRIBUTE all[] = {{CKA_KEY_TYPE, &type, sizeof type}};
    CK_OBJECT_HANDLE found[256];

    OK(f->C_FindObjectsInit(s, all, 1));
    OK(f->C_FindObjects(s, found, 256, &n));
    OK(f->C_FindObjectsFinal(s));
    return n;
}

/* What comes back through pointers in the parameter: a version, four keys, two vectors. */
static void tls(CK_SESSION_HANDLE s)
{
    CK_BYTE client[32] = {1}, server[32] = {2}, version[2] = {3, 3}, value[64], ivs[2][17] = {{0}};
    CK_VERSION got = {0, 0};
    CK_ULONG type = CKK_AES;
    CK_BBOOL yes = 1, no = 0;
    CK_ATTRIBUTE open[] = {{CKA_EXTRACTABLE, &yes, 1}, {CKA_SENSITIVE, &no, 1}, {CKA_DERIVE, &yes, 1}};
    CK_ATTRIBUTE aes[] = {{CKA_EXTRACTABLE, &yes, 1}, {CKA_SENSITIVE, &no, 1}, {CKA_KEY_TYPE, &type, sizeof type}};
    CK_SSL3_KEY_MAT_OUT out = {9, 9, 9, 9, ivs[0], ivs[1]};
    CK_TLS12_MASTER_KEY_DERIVE_PARAMS master = {{client, 32, server, 32}, &got, CKM_SHA256};
    CK_TLS12_KEY_MAT_PARAMS mat = {0, 128, 128, 0, {client, 32, server, 32}, &out, CKM_SHA256};
    CK_MECHANISM gen = {CKM_TLS_PRE_MASTER_KEY_GEN, version, 2}, m = {CKM_TLS12_MASTER_KEY_DERIVE, &master, sizeof master};
    CK_MECHANISM block = {CKM_TLS12_KEY_AND_MAC_DERIVE, &mat, sizeof mat};
    CK_OBJECT_HANDLE pre, key = 0, data;
    CK_ULONG before;

    OK(f->C_GenerateKey(s, &gen, open, 3, &pre));
    OK(f->C_DeriveKey(s, &m, pre, open, 3, &key));
    CHECK(got.major == 3 && got.minor == 3 && value_of(s, key, value, sizeof value) == 48);
    got.major = 9;
    before = generics(s);
    RV(f->C_DeriveKey(s, &m, pre, open, 3, NULL), CKR_ARGUMENTS_BAD); /* nobody could be told of the key */
    CHECK(got.major == 9);
    CHECK(generics(s) == before);
    OK(f->C_DeriveKey(s, &block, key, aes, 3, NULL));
    CHECK(out.hClientMacSecret == 0 && out.hServerMacSecret == 0 && out.hClientKey != 0 && out.hServerKey != out.hClientKey);
    CHECK(value_of(s, out.hClientKey, value, 32) == 16 && value_of(s, out.hServerKey, value + 16, 32) == 16);
    CHECK(memcmp(value, value + 16, 16) != 0 && memcmp(ivs[0], ivs[1], 16) != 0 && ivs[0][16] == 0 && ivs[1][16] == 0);
    memset(ivs, 7, sizeof ivs), block.mechanism = CKM_TLS12_KEY_SAFE_DERIVE; /* no vectors, though asked for */
    OK(f->C_DeriveKey(s, &block, key, aes, 3, NULL));
    CHECK(value_of(s, out.hClientKey, value, 32) == 16 && ivs[0][0] == 7 && ivs[1][0] == 7);
    block.mechanism = CKM_TLS12_KEY_AND_MAC_DERIVE;
    mat.ulMacSizeInBits = 256, mat.ulIVSizeInBits = 0, out.pIVClient = NULL;
    OK(f->C_DeriveKey(s, &block, key, aes, 3, &data));
    CHECK(out.hClientMacSecret != 0 && value_of(s, out.hServerMacSecret, value, sizeof value) == 32);
    mat.ulIVSizeInBits = ~0UL;
    RV(f->C_DeriveKey(s, &block, key, aes, 3, NULL), CKR_MECHANISM_PARAM_INVALID);
    mat.ulIVSizeInBits = 0, mat.RandomInfo.pClientRandom = NULL;
    RV(f->C_DeriveKey(s, &block, key, aes, 3, NULL), CKR_MECHANISM_PARAM_INVALID);
    RV(f->C_DeriveKey(s, NULL, key, aes, 3, NULL), CKR_ARGUMENTS_BAD);
}

/* A ciphertext that comes back into room of the program's. */
static void kem(CK_SESSION_HANDLE s)
{
    CK_ULONG set = 1, type = CKK_GENERIC_SECRET, len = 32;
    CK_BBOOL yes = 1, no = 0;
    CK_BYTE value[2][64], *cipher = sized(768, 7), shared[3] = {1, 2, 3}, other[128];
    CK_ATTRIBUTE pub[] = {{CKA_IBM_PARAMETER_SET, &set, sizeof set}, {CKA_DERIVE, &yes, 1}, {CKA_VERIFY, &yes, 1}};
    CK_ATTRIBUTE priv[] = {{CKA_IBM_PARAMETER_SET, &set, sizeof set}, {CKA_DERIVE, &yes, 1}, {CKA_SIGN, &yes, 1}};
    CK_ATTRIBUTE t[] = {{CKA_KEY_TYPE, &type, sizeof type}, {CKA_VALUE_LEN, &len, sizeof len}, {CKA_EXTRACTABLE, &yes, 1}, {CKA_SENSITIVE, &no, 1}};
    CK_ATTRIBUTE point = {CKA_EC_POINT, other, sizeof other};
    CK_MECHANISM gen = {CKM_IBM_ML_KEM_KEY_PAIR_GEN, NULL, 0}, dsa = {CKM_IBM_ML_DSA_KEY_PAIR_GEN, NULL, 0};
    CK_IBM_ML_KEM_PARAMS p = {0, CK_IBM_ML_KEM_ENCAPSULATE, CKD_SHA256_KDF, 0, NULL, 0, shared, 3, 0};
    CK_IBM_ML_KEM_WITH_ECDH_PARAMS e = {CK_IBM_ML_KEM_ENCAPSULATE, cipher, 768, 0, CKD_NULL, 0, NULL, 0, other};
    CK_IBM_SIGN_ADDITIONAL_CONTEXT context = {CKH_IBM_HEDGE_REQUIRED, shared, 3};
    CK_MECHANISM m = {CKM_IBM_ML_KEM, &p, sizeof p}, both = {CKM_IBM_ML_KEM_WITH_ECDH, &e, sizeof e}, sign = {CKM_IBM_ML_DSA, &context, sizeof context};
    CK_OBJECT_HANDLE public, private, key = 0, ec_public, signature_public, signature_private;
    CK_BYTE signature[2420];
    CK_ULONG n = sizeof signature;

    OK(f->C_GenerateKeyPair(s, &gen, pub, 2, priv, 2, &public, &private));
    RV(f->C_DeriveKey(s, &m, public, t, 4, &key), CKR_BUFFER_TOO_SMALL);
    CHECK(p.ulCipherLen == 768 && key == 0);
    p.pCipher = cipher, p.ulCipherLen = 767;
    RV(f->C_DeriveKey(s, &m, public, t, 4, &key), CKR_BUFFER_TOO_SMALL);
    CHECK(p.ulCipherLen == 768 && key == 0 && cipher[0] == 7 && cipher[767] == 7);
    OK(f->C_DeriveKey(s, &m, public, t, 4, &key));
    CHECK(p.ulCipherLen == 768 && value_of(s, key, value[0], 64) == 32);
    RV(f->C_DeriveKey(s, &m, private, t, 4, &key), CKR_KEY_TYPE_INCONSISTENT);
    p.mode = CK_IBM_ML_KEM_DECAPSULATE;
    OK(f->C_DeriveKey(s, &m, private, t, 4, &key));
    CHECK(p.ulCipherLen == 768 && value_of(s, key, value[1], 64) == 32 && memcmp(value[0], value[1], 32) == 0);
    p.ulCipherLen = 767;
    RV(f->C_DeriveKey(s, &m, private, t, 4, &key), CKR_MECHANISM_PARAM_INVALID);
    p.ulCipherLen = 768, p.pCipher = NULL;
    RV(f->C_DeriveKey(s, &m, private, t, 4, &key), CKR_MECHANISM_PARAM_INVALID);
    p.pCipher = cipher, p.ulVersion = 1;
    RV(f->C_DeriveKey(s, &m, private, t, 4, &key), CKR_MECHANISM_PARAM_INVALID);
    p.ulVersion = 0, p.mode = 3;
    RV(f->C_DeriveKey(s, &m, private, t, 4, &key), CKR_MECHANISM_PARAM_INVALID);

    ec_key(s, &ec_public, &e.hECPrivateKey);
    OK(f->C_GetAttributeValue(s, ec_public, &point, 1));
    e.ulPublicDataLen = point.ulValueLen, len = 64;
    OK(f->C_DeriveKey(s, &both, public, t, 4, &key));
    CHECK(e.ulCipherLen == 768 && value_of(s, key, value[0], 64) == 64);
    e.mode = CK_IBM_ML_KEM_DECAPSULATE;
    OK(f->C_DeriveKey(s, &both, private, t, 4, &key));
    CHECK(value_of(s, key, value[1], 64) == 64 && memcmp(value[0], value[1], 64) == 0);

    OK(f->C_GenerateKeyPair(s, &dsa, pub, 3, priv, 3, &signature_public, &signature_private));
    OK(f->C_SignInit(s, &sign, signature_private));
    OK(f->C_Sign(s, shared, 3, signature, &n));
    CHECK(n == sizeof signature);
    OK(f->C_VerifyInit(s, &sign, signature_public));
    OK(f->C_Verify(s, shared, 3, signature, n));
    context.hedgeVariant = 0;
    RV(f->C_SignInit(s, &sign, signature_private), CKR_MECHANISM_PARAM_INVALID);
    free(cipher);
}

/* Another key, and data objects. */
static void joined(CK_SESSION_HANDLE s)
{
    CK_ULONG class = CKO_DATA, len = 20;
    CK_BBOOL yes = 1, no = 0;
    CK_BYTE value[64];
    CK_ATTRIBUTE open[] = {{CKA_EXTRACTABLE, &yes, 1}, {CKA_SENSITIVE, &no, 1}, {CKA_DERIVE, &yes, 1}};
    CK_ATTRIBUTE t[] = {{CKA_CLASS, &class, sizeof class}, {CKA_VALUE_LEN, &len, sizeof len}};
    CK_PKCS5_PBKD2_PARAMS2 p = {CKZ_SALT_SPECIFIED, "salt", 4, 2, CKP_PKCS5_PBKD2_HMAC_SHA1, NULL, 0, "password", 8};
    CK_HKDF_PARAMS h = {1, 1, CKM_SHA256, CKF_HKDF_SALT_KEY, NULL, 0, 0, "info", 4};
    CK_OBJECT_HANDLE one, two, key;
    CK_MECHANISM gen = {CKM_PKCS5_PBKD2, &p, sizeof p}, both = {CKM_CONCATENATE_BASE_AND_KEY, &two, sizeof two};
    CK_MECHANISM hkdf = {CKM_HKDF_DATA, &h, sizeof h};
    CK_ATTRIBUTE made[] = {open[0], open[1], open[2], {CKA_VALUE_LEN, &len, sizeof len}};

    OK(f->C_GenerateKey(s, &gen, made, 4, &one));
    CHECK(value_of(s, one, value, sizeof value) == 20 && memcmp(value, "\xea\x6c\x01\x4d\xc7\x2d\x6f\x8c", 8) == 0); /* RFC 6070 */
    p.saltSource = 9;
    RV(f->C_GenerateKey(s, &gen, made, 4, &two), CKR_MECHANISM_PARAM_INVALID);
    p.saltSource = CKZ_SALT_SPECIFIED, p.iterations = 1;
    OK(f->C_GenerateKey(s, &gen, made, 4, &two));
    OK(f->C_DeriveKey(s, &both, one, open, 3, &key));
    CHECK(value_of(s, key, value, sizeof value) == 40 && memcmp(value + 20, "\x0c\x60\xc8\x0f\x96\x1f\x0e\x71", 8) == 0);
    h.hSaltKey = two;
    OK(f->C_DeriveKey(s, &hkdf, one, t, 2, &key));
    CHECK(value_of(s, key, value, sizeof value) == 20);
    h.hSaltKey = 77777;
    RV(f->C_DeriveKey(s, &hkdf, one, t, 2, &key), CKR_KEY_HANDLE_INVALID);
}

/* Lists in the parameter, and the handles of more keys (NIST SP 800-108); handles that are
   none, and a byte (IKE). */
static void counted(CK_SESSION_HANDLE s)
{
    CK_ULONG class = CKO_SECRET_KEY, generic = CKK_GENERIC_SECRET, aes = CKK_AES, long_len = 48, short_len = 16;
    CK_BBOOL yes = 1, no = 0;
    CK_BYTE value[3][96], bits[] = {2, 0};
    CK_ATTRIBUTE base[] = {{CKA_CLASS, &class, sizeof class}, {CKA_KEY_TYPE, &generic, sizeof generic}, {CKA_VALUE, "a base key", 10}, {CKA_DERIVE, &yes, 1}};
    CK_ATTRIBUTE first[] = {{CKA_EXTRACTABLE, &yes, 1}, {CKA_SENSITIVE, &no, 1}, {CKA_VALUE_LEN, &long_len, sizeof long_len}, {CKA_DERIVE, &yes, 1}};
    CK_ATTRIBUTE second[] = {{CKA_EXTRACTABLE, &yes, 1}, {CKA_SENSITIVE, &no, 1}, {CKA_VALUE_LEN, &short_len, sizeof short_len}, {CKA_KEY_TYPE, &aes, sizeof aes}};
    CK_SP800_108_COUNTER_FORMAT counter = {0, 16};
    CK_SP800_108_DKM_LENGTH_FORMAT length = {CK_SP800_108_DKM_LENGTH_SUM_OF_KEYS, 0, 16};
    CK_OBJECT_HANDLE key, made = 0, more[2] = {0, 0}, whole;
    CK_PRF_DATA_PARAM fields[] = {{CK_SP800_108_ITERATION_VARIABLE, &counter, sizeof counter}, {CK_SP800_108_BYTE_ARRAY, "label", 5},
                                  {CK_SP800_108_DKM_LENGTH, &length, sizeof length}};
    CK_DERIVED_KEY keys[] = {{second, 4, &more[0]}, {second, 4, &more[1]}};
    CK_SP800_108_KDF_PARAMS p = {CKM_SHA256_HMAC, 3, fields, 1, keys};
    CK_SP800_108_FEEDBACK_KDF_PARAMS feedback = {CKM_SHA256_HMAC, 2, fields, 2, bits, 2, keys};
    CK_MECHANISM m = {CKM_SP800_108_COUNTER_KDF, &p, sizeof p}, fm = {CKM_SP800_108_FEEDBACK_KDF, &feedback, sizeof feedback};
    CK_IKE_PRF_DERIVE_PARAMS ike = {CKM_SHA256_HMAC, 0, 0, (CK_BYTE *)"ni", 2, (CK_BYTE *)"nr", 2, 77777};
    CK_IKE1_PRF_DERIVE_PARAMS ike1 = {CKM_SHA256_HMAC, 0, 0, 77777, bits, 2, bits, 2, {1}};
    CK_MECHANISM im = {CKM_IKE_PRF_DERIVE, &ike, sizeof ike}, im1 = {CKM_IKE1_PRF_DERIVE, &ike1, sizeof ike1};

    OK(f->C_CreateObject(s, base, 4, &key));
    OK(f->C_DeriveKey(s, &m, key, first, 4, &made));
    CHECK(made != 0 && more[0] != 0 && more[1] == 0);
    CHECK(value_of(s, made, value[0], 96) == 48 && value_of(s, more[0], value[1], 96) == 16);
    p.ulAdditionalDerivedKeys = 0, long_len = 96, fields[2] = (CK_PRF_DATA_PARAM){CK_SP800_108_BYTE_ARRAY, bits, 2};
    OK(f->C_DeriveKey(s, &m, key, first, 4, &whole));
    CHECK(value_of(s, whole, value[2], 96) == 96);
    CHECK(memcmp(value[0], value[2], 48) == 0 && memcmp(value[1], value[2] + 64, 16) == 0);
    RV(f->C_DeriveKey(s, &fm, key, first, 4, &whole), CKR_MECHANISM_PARAM_INVALID); /* its iteration has no width */
    fields[0] = (CK_PRF_DATA_PARAM){CK_SP800_108_ITERATION_VARIABLE, NULL, 0};
    OK(f->C_DeriveKey(s, &fm, key, first, 4, &whole));
    CHECK(more[0] != 0 && more[1] != 0 && more[0] != more[1] && value_of(s, more[1], value[0], 96) == 16);
    fields[0].type = 9;
    RV(f->C_DeriveKey(s, &fm, key, first, 4, &whole), CKR_MECHANISM_PARAM_INVALID);
    fields[0].type = CK_SP800_108_ITERATION_VARIABLE, keys[1].phKey = NULL;
    RV(f->C_DeriveKey(s, &fm, key, first, 4, &whole), CKR_MECHANISM_PARAM_INVALID);
    keys[1].phKey = &more[1], feedback.ulNumberOfDataParams = ~0UL;
    RV(f->C_DeriveKey(s, &fm, key, first, 4, &whole), CKR_MECHANISM_PARAM_INVALID);
    feedback.ulNumberOfDataParams = 2, keys[1].pTemplate = NULL;
    RV(f->C_DeriveKey(s, &fm, key, first, 4, &whole), CKR_ARGUMENTS_BAD);
    keys[1].pTemplate = second, short_len = 15; /* which is no AES key */
    more[0] = more[1] = 7;
    RV(f->C_DeriveKey(s, &fm, key, first, 4, &whole), CKR_ATTRIBUTE_VALUE_INVALID);
    CHECK(more[0] == 7 && more[1] == 7);
    fm.ulParameterLen = sizeof p;
    RV(f->C_DeriveKey(s, &fm, key, first, 4, &whole), CKR_MECHANISM_PARAM_INVALID);

    OK(f->C_DeriveKey(s, &im, key, first, 2, &whole)); /* what is said to be no key is not looked at */
    CHECK(value_of(s, whole, value[0], 96) == 32);
    ike.bRekey = 1;
    RV(f->C_DeriveKey(s, &im, key, first, 2, &whole), CKR_KEY_HANDLE_INVALID);
    ike.hNewKey = 0;
    RV(f->C_DeriveKey(s, &im, key, first, 2, &whole), CKR_MECHANISM_PARAM_INVALID);
    RV(f->C_DeriveKey(s, &im1, key, first, 2, &whole), CKR_MECHANISM_PARAM_INVALID);
    ike1.hKeygxy = key;
    OK(f->C_DeriveKey(s, &im1, key, first, 2, &whole));
    CHECK(value_of(s, whole, value[1], 96) == 32 && memcmp(value[0], value[1], 32) != 0);
}

/* A nonce whose length is in bits, as the standard has it, or in bytes, as programs do. */
static void chacha(CK_SESSION_HANDLE s)
{
    CK_BYTE nonce[24] = {7}, counter[4] = {1}, out[2][32];
    CK_SALSA20_CHACHA20_POLY1305_PARAMS p = {nonce, 96, (CK_BYTE *)"aad", 3};
    CK_CHACHA20_PARAMS stream = {counter, 32, nonce, 96};
    CK_MECHANISM gen = {CKM_CHACHA20_KEY_GEN, NULL, 0}, m = {CKM_CHACHA20_POLY1305, &p, sizeof p}, sm = {CKM_CHACHA20, &stream, sizeof stream};
    CK_OBJECT_HANDLE key;
    CK_ULONG n, lengths[] = {96, 12, 192, 24};
    CK_RV rv;

    OK(f->C_GenerateKey(s, &gen, NULL, 0, &key));
    for (int i = 0; i < 4; i++) {
        p.ulNonceLen = lengths[i];
        OK(f->C_EncryptInit(s, &m, key));
        n = sizeof out[0];
        OK(f->C_Encrypt(s, (CK_BYTE *)"16 bytes of data", 16, out[i % 2], &n));
        CHECK(n == 32);
        if (i % 2 == 1)
            CHECK(memcmp(out[0], out[1], 32) == 0);
    }
    p.ulNonceLen = 64;
    rv = f->C_EncryptInit(s, &m, key);
    RV(rv != CKR_OK ? rv : f->C_Encrypt(s, nonce, 16, out[0], &n), CKR_MECHANISM_PARAM_INVALID);
    OK(f->C_EncryptInit(s, &sm, key));
    n = sizeof out[0];
    OK(f->C_Encrypt(s, (CK_BYTE *)"16 bytes of data", 16, out[0], &n));
    /* The keystream of the AEAD begins with that counter, too. */
    p.ulNonceLen = 12;
    OK(f->C_EncryptInit(s, &m, key));
    n = sizeof out[1];
    OK(f->C_Encrypt(s, (CK_BYTE *)"16 bytes of data", 16, out[1], &n));
    CHECK(memcmp(out[0], out[1], 16) == 0);
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
    tls(s);
    kem(s);
    joined(s);
    counted(s);
    chacha(s);
    OK(f->C_Finalize(NULL));
}

/* The parameter of a mechanism that has none, or no such one, is not looked at:
   programs leave it as it happens to be in memory. */
void case_unset(void)
{
    CK_SLOT_ID slot = start();
    CK_SESSION_HANDLE s = login(slot);
    CK_OBJECT_HANDLE key = aes_key(s), secret = mac_key(s), public, private, h;
    void *nowhere = (void *)0x1234;
    CK_MECHANISM sha = {CKM_SHA256, nowhere, 64}, ecdsa = {CKM_ECDSA, nowhere, 64}, mac = {CKM_SHA256_HMAC, nowhere, 64};
    CK_MECHANISM ecb = {CKM_AES_ECB, nowhere, 64}, gen = {CKM_AES_KEY_GEN, nowhere, 64}, null = {CKM_SHA256, NULL, 64};
    CK_MECHANISM rsa = {CKM_RSA_PKCS_KEY_PAIR_GEN, nowhere, CK_UNAVAILABLE_INFORMATION};
    CK_MECHANISM wrong[] = {{CKM_AES_CBC, nowhere, 64}, {CKM_AES_CBC_PAD, nowhere, 15}, {CKM_AES_GCM, nowhere, 64},
                            {CKM_AES_CTR, nowhere, CK_UNAVAILABLE_INFORMATION}, {CKM_AES_CBC, nowhere, CK_UNAVAILABLE_INFORMATION}};
    CK_MECHANISM kwp = {CKM_AES_KEY_WRAP_KWP, nowhere, 64}, unknown = {CKM_VENDOR_DEFINED + 0x7777, nowhere, 64};
    CK_ULONG length = 16, bits = 2048, n;
    CK_ATTRIBUTE t = {CKA_VALUE_LEN, &length, sizeof length}, modulus = {CKA_MODULUS_BITS, &bits, sizeof bits};
    CK_BYTE in[32] = {1}, out[64];

    ec_key(s, &public, &private);
    for (int i = 0; i < 3; i++) { /* the later Inits are put off */
        OK(f->C_DigestInit(s, i == 1 ? &null : &sha));
        n = sizeof out;
        OK(f->C_Digest(s, in, sizeof in, out, &n));
        OK(f->C_SignInit(s, &ecdsa, private));
        n = sizeof out;
        OK(f->C_Sign(s, in, sizeof in, out, &n));
        OK(f->C_SignInit(s, &mac, secret));
        n = sizeof out;
        OK(f->C_Sign(s, in, sizeof in, out, &n));
        OK(f->C_EncryptInit(s, &ecb, key));
        n = sizeof out;
        OK(f->C_Encrypt(s, in, sizeof in, out, &n));
    }
    OK(f->C_GenerateKey(s, &gen, &t, 1, &h));
    OK(f->C_GenerateKeyPair(s, &rsa, &modulus, 1, NULL, 0, &public, &private));
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++)
        RV(f->C_EncryptInit(s, &wrong[i], key), CKR_MECHANISM_PARAM_INVALID);
    n = sizeof out;
    RV(f->C_WrapKey(s, &kwp, key, secret, out, &n), CKR_MECHANISM_PARAM_INVALID);
    RV(f->C_EncryptInit(s, &unknown, key), CKR_MECHANISM_INVALID);
    unknown.pParameter = NULL, unknown.ulParameterLen = 0;
    RV(f->C_EncryptInit(s, &unknown, key), CKR_MECHANISM_INVALID);
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

/* Makes the calls that lines on the standard input name (engine/enginetest), and prints
   the CK_RV of each. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"

static CK_BYTE data[16] = "16 bytes of data", iv[16];
static CK_MECHANISM cbc = {CKM_AES_CBC, iv, sizeof iv}, sha = {CKM_SHA256, NULL, 0}, hmac = {CKM_SHA256_HMAC, NULL, 0};
static CK_MECHANISM rsa = {CKM_RSA_PKCS, NULL, 0}, kwp = {CKM_AES_KEY_WRAP_KWP, NULL, 0};
static CK_MECHANISM gcm = {CKM_AES_GCM, NULL, 0};
static CK_BYTE message_tag[16];
static CK_GCM_MESSAGE_PARAMS message = {iv, 12, 0, CKG_NO_GENERATE, message_tag, 128};
static CK_BBOOL yes = 1, no = 0;

static CK_SLOT_ID slot;
static CK_SESSION_HANDLE helper, s;
static CK_OBJECT_HANDLE aes[3], mac[3], rsa_public, rsa_private, ec_private, object;
static CK_BYTE text[16], tag[16], proof[32], sealed[256], wrapped[64], point[67];
static CK_ULONG sealed_len, wrapped_len;
static char pins[2][16] = {"1234567", "87654321"}; /* of the user and the SO */

enum whose { PUBLIC, PRIVATE, TEMP };

static enum whose whose_of(const char *arg)
{
    return strcmp(arg, "private") == 0 ? PRIVATE : strcmp(arg, "temp") == 0 ? TEMP : PUBLIC;
}

static int is_so(const char *arg)
{
    return strcmp(arg, "so") == 0;
}

static CK_UTF8CHAR *pin(const char *arg)
{
    return (CK_UTF8CHAR *)pins[is_so(arg)];
}

static CK_ULONG pin_len(const char *arg)
{
    return strlen(pins[is_so(arg)]);
}

static void make(enum whose w)
{
    CK_ULONG class = CKO_SECRET_KEY, type = CKK_AES;
    CK_ATTRIBUTE t[] = {{CKA_CLASS, &class, sizeof class}, {CKA_KEY_TYPE, &type, sizeof type}, {CKA_VALUE, data, sizeof data},
                        {CKA_PRIVATE, w == PRIVATE ? &yes : &no, 1}, {CKA_WRAP, &yes, 1}, {CKA_UNWRAP, &yes, 1},
                        {CKA_EXTRACTABLE, &yes, 1}, {CKA_ENCRYPT, &yes, 1}, {CKA_DECRYPT, &yes, 1}};

    OK(f->C_CreateObject(helper, t, 9, &aes[w]));
    type = CKK_GENERIC_SECRET;
    t[7].type = CKA_SIGN;
    t[8].type = CKA_VERIFY;
    OK(f->C_CreateObject(helper, t, 9, &mac[w]));
}

static void begin(void)
{
    static CK_BYTE p256[] = {6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7};
    CK_ULONG class = CKO_DATA, bits = 1024, n = sizeof proof;
    CK_ATTRIBUTE one[] = {{CKA_CLASS, &class, sizeof class}, {CKA_LABEL, "one", 3}};
    CK_ATTRIBUTE rsa_pub[] = {{CKA_MODULUS_BITS, &bits, sizeof bits}, {CKA_VERIFY_RECOVER, &yes, 1}, {CKA_PRIVATE, &no, 1}};
    CK_ATTRIBUTE rsa_priv[] = {{CKA_SIGN_RECOVER, &yes, 1}, {CKA_PRIVATE, &no, 1}};
    CK_ATTRIBUTE ec_pub[] = {{CKA_EC_PARAMS, p256, sizeof p256}}, ec_priv[] = {{CKA_DERIVE, &yes, 1}, {CKA_PRIVATE, &no, 1}};
    CK_ATTRIBUTE get = {CKA_EC_POINT, point, sizeof point};
    CK_MECHANISM rsa_gen = {CKM_RSA_PKCS_KEY_PAIR_GEN, NULL, 0}, ec_gen = {CKM_EC_KEY_PAIR_GEN, NULL, 0};
    CK_OBJECT_HANDLE ec_public;

    if (helper != 0)
        OK(f->C_Finalize(NULL));
    slot = start();
    helper = session_on(slot);
    s = 0;
    make(PUBLIC);
    OK(f->C_CreateObject(helper, one, 2, &object));
    OK(f->C_GenerateKeyPair(helper, &rsa_gen, rsa_pub, 3, rsa_priv, 2, &rsa_public, &rsa_private));
    OK(f->C_GenerateKeyPair(helper, &ec_gen, ec_pub, 1, ec_priv, 2, &ec_public, &ec_private));
    OK(f->C_GetAttributeValue(helper, ec_public, &get, 1));
    OK(f->C_SignInit(helper, &hmac, mac[PUBLIC]));
    OK(f->C_Sign(helper, data, sizeof data, proof, &n));
    OK(f->C_SignRecoverInit(helper, &rsa, rsa_private));
    sealed_len = sizeof sealed;
    OK(f->C_SignRecover(helper, data, sizeof data, sealed, &sealed_len));
    n = sizeof text;
    OK(f->C_MessageEncryptInit(helper, &gcm, aes[PUBLIC]));
    OK(f->C_EncryptMessage(helper, &message, sizeof message, NULL, 0, data, sizeof data, text, &n));
    OK(f->C_MessageEncryptFinal(helper));
    memcpy(tag, message_tag, sizeof tag);
    wrapped_len = sizeof wrapped;
    OK(f->C_WrapKey(helper, &kwp, aes[PUBLIC], mac[PUBLIC], wrapped, &wrapped_len));
}

/* Where an object is to be, as two attributes. */
static void place(CK_ATTRIBUTE t[2], const char *arg)
{
    t[0] = (CK_ATTRIBUTE){CKA_TOKEN, strstr(arg, "token") != NULL ? &yes : &no, 1};
    t[1] = (CK_ATTRIBUTE){CKA_PRIVATE, strstr(arg, "private") != NULL ? &yes : &no, 1};
}

/* What was made goes at once. */
static CK_RV gone(CK_RV rv, CK_OBJECT_HANDLE made)
{
    if (rv == CKR_OK)
        OK(f->C_DestroyObject(helper, made));
    return rv;
}

static bool makes(const char *name, const char *arg, CK_RV *rv)
{
    static CK_BYTE p256[] = {6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7};
    CK_ULONG class = CKO_DATA, type = CKK_GENERIC_SECRET, length = 16;
    CK_ATTRIBUTE t[5];
    CK_OBJECT_HANDLE made = 0, public = 0;
    CK_MECHANISM aes_gen = {CKM_AES_KEY_GEN, NULL, 0}, ec_gen = {CKM_EC_KEY_PAIR_GEN, NULL, 0};
    CK_ECDH1_DERIVE_PARAMS ecdh = {.kdf = CKD_NULL, .ulPublicDataLen = 65, .pPublicData = point + 2};
    CK_MECHANISM derive = {CKM_ECDH1_DERIVE, &ecdh, sizeof ecdh};

    place(t, arg);
    t[2] = (CK_ATTRIBUTE){CKA_CLASS, &class, sizeof class};
    t[3] = (CK_ATTRIBUTE){CKA_KEY_TYPE, &type, sizeof type};
    t[4] = (CK_ATTRIBUTE){CKA_VALUE_LEN, &length, sizeof length};
    if (strcmp(name, "C_CreateObject") == 0) {
        *rv = f->C_CreateObject(s, t, 3, &made);
        *rv = gone(*rv, made);
    } else if (strcmp(name, "C_CopyObject") == 0) {
        *rv = f->C_CopyObject(s, object, t, 2, &made);
        *rv = gone(*rv, made);
    } else if (strcmp(name, "C_GenerateKey") == 0) {
        t[2] = t[4];
        *rv = f->C_GenerateKey(s, &aes_gen, t, 3, &made);
        *rv = gone(*rv, made);
    } else if (strcmp(name, "C_GenerateKeyPair") == 0) {
        CK_ATTRIBUTE ec_pub[] = {{CKA_EC_PARAMS, p256, sizeof p256}};

        *rv = f->C_GenerateKeyPair(s, &ec_gen, ec_pub, 1, t, 2, &public, &made);
        *rv = gone(gone(*rv, made), public);
    } else if (strcmp(name, "C_UnwrapKey") == 0) {
        class = CKO_SECRET_KEY;
        *rv = f->C_UnwrapKey(s, &kwp, aes[PUBLIC], wrapped, wrapped_len, t, 4, &made);
        *rv = gone(*rv, made);
    } else if (strcmp(name, "C_DeriveKey") == 0) {
        class = CKO_SECRET_KEY;
        *rv = f->C_DeriveKey(s, &derive, ec_private, t, 5, &made);
        *rv = gone(*rv, made);
    } else if (strcmp(name, "C_DestroyObject") == 0 || strcmp(name, "C_SetAttributeValue") == 0) {
        CK_ATTRIBUTE change = {CKA_LABEL, "four", 4};

        OK(f->C_CreateObject(helper, t, 3, &made));
        if (strcmp(name, "C_DestroyObject") == 0)
            *rv = f->C_DestroyObject(s, made);
        else
            *rv = f->C_SetAttributeValue(s, made, &change, 1);
        if (name[2] == 'S' || *rv != CKR_OK)
            OK(f->C_DestroyObject(helper, made));
    } else {
        return false;
    }
    return true;
}

static bool objects(const char *name, const char *arg, CK_RV *rv)
{
    CK_BYTE out[256];
    CK_ULONG n = sizeof out;
    CK_ATTRIBUTE label = {CKA_LABEL, out, sizeof out}, find = {CKA_LABEL, "one", 3};
    CK_OBJECT_HANDLE h = object, list[4];

    if (strcmp(name, "C_WrapKey") == 0) {
        *rv = f->C_WrapKey(s, &kwp, aes[PUBLIC], mac[PUBLIC], out, &n);
    } else if (strcmp(name, "C_EncapsulateKey") == 0) {
        *rv = f->C_EncapsulateKey(s, &sha, rsa_public, NULL, 0, out, &n, &h);
    } else if (strcmp(name, "C_DecapsulateKey") == 0) {
        *rv = f->C_DecapsulateKey(s, &sha, rsa_private, NULL, 0, out, n, &h);
    } else if (strcmp(name, "C_GetObjectSize") == 0) {
        *rv = f->C_GetObjectSize(s, h, &n);
    } else if (strcmp(name, "C_GetAttributeValue") == 0) {
        if (strcmp(arg, "gone") == 0) {
            OK(f->C_CopyObject(helper, object, NULL, 0, &h));
            OK(f->C_DestroyObject(helper, h));
        }
        *rv = f->C_GetAttributeValue(s, h, &label, 1);
    } else if (strcmp(name, "C_FindObjectsInit") == 0) {
        *rv = f->C_FindObjectsInit(s, &find, 1);
    } else if (strcmp(name, "C_FindObjects") == 0) {
        *rv = f->C_FindObjects(s, list, 4, &n);
    } else if (strcmp(name, "C_FindObjectsFinal") == 0) {
        *rv = f->C_FindObjectsFinal(s);
    } else {
        return false;
    }
    return true;
}

/* The two halves of a pair of functions of one form are in one row. */
static bool operations(const char *name, const char *arg, CK_RV *rv)
{
    const struct {
        const char *name;
        CK_RV (*init)(CK_SESSION_HANDLE, CK_MECHANISM *, CK_OBJECT_HANDLE);
        CK_RV (*one)(CK_SESSION_HANDLE, CK_BYTE *, CK_ULONG, CK_BYTE *, CK_ULONG *);
        CK_RV (*update)(CK_SESSION_HANDLE, CK_BYTE *, CK_ULONG, CK_BYTE *, CK_ULONG *);
        CK_RV (*final)(CK_SESSION_HANDLE, CK_BYTE *, CK_ULONG *);
        CK_MECHANISM *m;
        CK_OBJECT_HANDLE key;
        CK_BYTE *in;
        CK_ULONG in_len;
    } rows[] = {
        {"C_SignRecover", f->C_SignRecoverInit, f->C_SignRecover, NULL, NULL, &rsa, rsa_private, data, sizeof data},
        {"C_VerifyRecover", f->C_VerifyRecoverInit, f->C_VerifyRecover, NULL, NULL, &rsa, rsa_public, sealed, sealed_len},
        {"C_Encrypt", f->C_EncryptInit, f->C_Encrypt, f->C_EncryptUpdate, f->C_EncryptFinal, &cbc, aes[whose_of(arg)], data, sizeof data},
        {"C_Decrypt", f->C_DecryptInit, f->C_Decrypt, f->C_DecryptUpdate, f->C_DecryptFinal, &cbc, aes[whose_of(arg)], data, sizeof data},
        {"C_Sign", f->C_SignInit, f->C_Sign, NULL, f->C_SignFinal, &hmac, mac[whose_of(arg)], data, sizeof data},
        {"C_Verify", f->C_VerifyInit, NULL, NULL, NULL, &hmac, mac[whose_of(arg)], data, sizeof data},
        {"C_Digest", NULL, f->C_Digest, NULL, f->C_DigestFinal, &sha, 0, data, sizeof data},
        {"C_DigestEncrypt", NULL, NULL, f->C_DigestEncryptUpdate, NULL, NULL, 0, data, sizeof data},
        {"C_DecryptDigest", NULL, NULL, f->C_DecryptDigestUpdate, NULL, NULL, 0, data, sizeof data},
        {"C_SignEncrypt", NULL, NULL, f->C_SignEncryptUpdate, NULL, NULL, 0, data, sizeof data},
        {"C_DecryptVerify", NULL, NULL, f->C_DecryptVerifyUpdate, NULL, NULL, 0, data, sizeof data},
    };
    CK_BYTE out[512];
    CK_ULONG n = sizeof out;
    bool null = strcmp(arg, "null") == 0;

    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        size_t len = strlen(rows[i].name);
        const char *rest = name + len;

        if (strncmp(name, rows[i].name, len) != 0)
            continue;
        if (strcmp(rest, "Init") == 0 && rows[i].init != NULL)
            *rv = rows[i].init(s, null ? NULL : rows[i].m, null ? 0 : rows[i].key);
        else if (*rest == '\0' && rows[i].one != NULL)
            *rv = rows[i].one(s, rows[i].in, rows[i].in_len, out, &n);
        else if (strcmp(rest, "Update") == 0 && rows[i].update != NULL)
            *rv = rows[i].update(s, rows[i].in, rows[i].in_len, out, &n);
        else if (strcmp(rest, "Final") == 0 && rows[i].final != NULL)
            *rv = rows[i].final(s, out, &n);
        else
            continue;
        return true;
    }
    if (strcmp(name, "C_DigestInit") == 0)
        *rv = f->C_DigestInit(s, null ? NULL : &sha);
    else if (strcmp(name, "C_DigestUpdate") == 0)
        *rv = f->C_DigestUpdate(s, data, sizeof data);
    else if (strcmp(name, "C_DigestKey") == 0)
        *rv = f->C_DigestKey(s, mac[PUBLIC]);
    else if (strcmp(name, "C_SignUpdate") == 0)
        *rv = f->C_SignUpdate(s, data, sizeof data);
    else if (strcmp(name, "C_Verify") == 0)
        *rv = f->C_Verify(s, data, sizeof data, proof, sizeof proof);
    else if (strcmp(name, "C_VerifyUpdate") == 0)
        *rv = f->C_VerifyUpdate(s, data, sizeof data);
    else if (strcmp(name, "C_VerifyFinal") == 0)
        *rv = f->C_VerifyFinal(s, proof, sizeof proof);
    else if (strcmp(name, "C_VerifySignatureInit") == 0)
        *rv = f->C_VerifySignatureInit(s, null ? NULL : &hmac, null ? 0 : mac[whose_of(arg)], proof, null ? 0 : sizeof proof);
    else if (strcmp(name, "C_VerifySignature") == 0)
        *rv = f->C_VerifySignature(s, data, sizeof data);
    else if (strcmp(name, "C_VerifySignatureUpdate") == 0)
        *rv = f->C_VerifySignatureUpdate(s, data, sizeof data);
    else if (strcmp(name, "C_VerifySignatureFinal") == 0)
        *rv = f->C_VerifySignatureFinal(s);
    else
        return false;
    return true;
}

/* The functions of messages. What is decrypted has its tag in the parameter. */
static bool messages(const char *name, const char *arg, CK_RV *rv)
{
    const struct {
        const char *verb;
        CK_RV (*init)(CK_SESSION_HANDLE, CK_MECHANISM *, CK_OBJECT_HANDLE);
        CK_RV (*final)(CK_SESSION_HANDLE);
        CK_MECHANISM *m;
        const CK_OBJECT_HANDLE *keys;
    } rows[] = {
        {"Encrypt", f->C_MessageEncryptInit, f->C_MessageEncryptFinal, &gcm, aes},
        {"Decrypt", f->C_MessageDecryptInit, f->C_MessageDecryptFinal, &gcm, aes},
        {"Sign", f->C_MessageSignInit, f->C_MessageSignFinal, &hmac, mac},
        {"Verify", f->C_MessageVerifyInit, f->C_MessageVerifyFinal, &hmac, mac},
    };
    CK_BYTE out[64];
    CK_ULONG n = sizeof out, p_len = sizeof message;
    bool null = strcmp(arg, "null") == 0, last = strcmp(arg, "last") == 0;
    CK_FLAGS end = last ? CKF_END_OF_MESSAGE : 0;
    char whole[32];

    memcpy(message_tag, tag, sizeof tag);
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        snprintf(whole, sizeof whole, "C_Message%sInit", rows[i].verb);
        if (strcmp(name, whole) == 0) {
            *rv = rows[i].init(s, null ? NULL : rows[i].m, null ? 0 : rows[i].keys[whose_of(arg)]);
            return true;
        }
        snprintf(whole, sizeof whole, "C_Message%sFinal", rows[i].verb);
        if (strcmp(name, whole) == 0) {
            *rv = rows[i].final(s);
            return true;
        }
    }
    if (strcmp(name, "C_EncryptMessage") == 0)
        *rv = f->C_EncryptMessage(s, &message, p_len, NULL, 0, data, sizeof data, out, &n);
    else if (strcmp(name, "C_EncryptMessageBegin") == 0)
        *rv = f->C_EncryptMessageBegin(s, &message, p_len, NULL, 0);
    else if (strcmp(name, "C_EncryptMessageNext") == 0)
        *rv = f->C_EncryptMessageNext(s, &message, p_len, data, sizeof data, out, &n, end);
    else if (strcmp(name, "C_DecryptMessage") == 0)
        *rv = f->C_DecryptMessage(s, &message, p_len, NULL, 0, text, sizeof text, out, &n);
    else if (strcmp(name, "C_DecryptMessageBegin") == 0)
        *rv = f->C_DecryptMessageBegin(s, &message, p_len, NULL, 0);
    else if (strcmp(name, "C_DecryptMessageNext") == 0)
        *rv = f->C_DecryptMessageNext(s, &message, p_len, text, sizeof text, out, &n, end);
    else if (strcmp(name, "C_SignMessage") == 0)
        *rv = f->C_SignMessage(s, NULL, 0, data, sizeof data, out, &n);
    else if (strcmp(name, "C_SignMessageBegin") == 0)
        *rv = f->C_SignMessageBegin(s, NULL, 0);
    else if (strcmp(name, "C_SignMessageNext") == 0)
        *rv = f->C_SignMessageNext(s, NULL, 0, data, sizeof data, last ? out : NULL, last ? &n : NULL);
    else if (strcmp(name, "C_VerifyMessage") == 0)
        *rv = f->C_VerifyMessage(s, NULL, 0, data, sizeof data, proof, sizeof proof);
    else if (strcmp(name, "C_VerifyMessageBegin") == 0)
        *rv = f->C_VerifyMessageBegin(s, NULL, 0);
    else if (strcmp(name, "C_VerifyMessageNext") == 0)
        *rv = f->C_VerifyMessageNext(s, NULL, 0, data, sizeof data, last ? proof : NULL, last ? sizeof proof : 0);
    else
        return false;
    return true;
}

static CK_RV set_pin(const char *arg)
{
    char other[16];
    CK_RV rv;

    snprintf(other, sizeof other, "%s %d", arg, pins[is_so(arg)][strlen(arg) + 1] == '1' ? 2 : 1);
    rv = f->C_SetPIN(s, pin(arg), pin_len(arg), (CK_UTF8CHAR *)other, strlen(other));
    if (rv == CKR_OK)
        memcpy(pins[is_so(arg)], other, sizeof other);
    return rv;
}

static CK_RV sessions(const char *name, const char *arg)
{
    static CK_UTF8CHAR *function = (CK_UTF8CHAR *)"C_Sign";
    CK_UTF8CHAR label[32];
    CK_SESSION_INFO info;
    CK_ASYNC_DATA async = {0};
    CK_ULONG n;
    CK_BYTE out[8], saved[64];
    CK_ULONG saved_len = sizeof saved;
    CK_USER_TYPE user = is_so(arg) ? CKU_SO : strcmp(arg, "context") == 0 ? CKU_CONTEXT_SPECIFIC : strcmp(arg, "other") == 0 ? 7 : CKU_USER;

    if (strcmp(name, "begin") == 0)
        return begin(), CKR_OK;
    if (strcmp(name, "make") == 0)
        return make(whose_of(arg)), CKR_OK;
    if (strcmp(name, "destroy") == 0) {
        OK(f->C_DestroyObject(helper, mac[whose_of(arg)]));
        return f->C_DestroyObject(helper, aes[whose_of(arg)]);
    }
    if (strcmp(name, "open-ro") == 0)
        return f->C_OpenSession(slot, CKF_SERIAL_SESSION, NULL, NULL, &s);
    if (strcmp(name, "open-rw") == 0)
        return f->C_OpenSession(slot, CKF_SERIAL_SESSION | CKF_RW_SESSION, NULL, NULL, &s);
    if (strcmp(name, "C_GetFunctionStatus") == 0)
        return f->C_GetFunctionStatus(s);
    if (strcmp(name, "C_CancelFunction") == 0)
        return f->C_CancelFunction(s);
    if (strcmp(name, "C_InitToken") == 0)
        return memset(label, ' ', sizeof label), f->C_InitToken(slot, pin("so"), pin_len("so"), label);
    if (strcmp(name, "C_CloseSession") == 0)
        return f->C_CloseSession(s);
    if (strcmp(name, "C_GetSessionInfo") == 0)
        return f->C_GetSessionInfo(s, &info);
    if (strcmp(name, "C_GetSessionValidationFlags") == 0)
        return f->C_GetSessionValidationFlags(s, CKS_LAST_VALIDATION_OK, &n);
    if (strcmp(name, "C_GetOperationState") == 0)
        return f->C_GetOperationState(s, saved, &saved_len);
    if (strcmp(name, "C_SetOperationState") == 0)
        return f->C_SetOperationState(s, data, sizeof data, 0, 0);
    if (strcmp(name, "C_GenerateRandom") == 0)
        return f->C_GenerateRandom(s, out, sizeof out);
    if (strcmp(name, "C_SeedRandom") == 0)
        return f->C_SeedRandom(s, data, sizeof data);
    if (strcmp(name, "C_AsyncComplete") == 0)
        return f->C_AsyncComplete(s, function, &async);
    if (strcmp(name, "C_AsyncGetID") == 0)
        return f->C_AsyncGetID(s, function, &n);
    if (strcmp(name, "C_AsyncJoin") == 0)
        return f->C_AsyncJoin(s, function, 1, NULL, 0);
    if (strcmp(name, "C_Login") == 0)
        return f->C_Login(s, user, pin(arg), pin_len(arg));
    if (strcmp(name, "C_LoginUser") == 0)
        return f->C_LoginUser(s, user, pin(arg), pin_len(arg), NULL, 0);
    if (strcmp(name, "C_Logout") == 0)
        return f->C_Logout(s);
    if (strcmp(name, "C_InitPIN") == 0)
        return f->C_InitPIN(s, pin("user"), pin_len("user"));
    if (strcmp(name, "C_SetPIN") == 0)
        return set_pin(arg);
    if (strcmp(name, "C_SessionCancel") == 0)
        return f->C_SessionCancel(s, strcmp(arg, "all") == 0 ? ~0UL : strcmp(arg, "Sign") == 0 ? CKF_SIGN : CKF_FIND_OBJECTS);
    fail(name, 0, "no such call");
    return CKR_OK;
}

void case_states(void)
{
    char line[256];

    while (fgets(line, sizeof line, stdin) != NULL) {
        CK_RV rv = CKR_OK;
        char *name = line, *arg = strchr(line, ' ');

        line[strcspn(line, "\n")] = '\0';
        if (arg != NULL)
            *arg++ = '\0';
        else
            arg = strchr(line, '\0');
        if (!makes(name, arg, &rv) && !objects(name, arg, &rv) && !messages(name, arg, &rv) && !operations(name, arg, &rv))
            rv = sessions(name, arg);
        printf("%lu\n", rv);
    }
    OK(f->C_Finalize(NULL));
}

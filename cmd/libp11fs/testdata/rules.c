/* What the module itself must hold to: arguments, buffers, interfaces, and that an Init which is put off cannot be told from one that is
   not. */
#include <stdlib.h>
#include <string.h>

#include "check.h"

/* Any function with arguments of nothing. Every one takes at most ten words. */
typedef CK_RV (*any)(CK_ULONG, CK_ULONG, CK_ULONG, CK_ULONG, CK_ULONG, CK_ULONG, CK_ULONG, CK_ULONG, CK_ULONG, CK_ULONG);

static CK_RV call_any(size_t offset)
{
    any function;

    memcpy(&function, (char *)f + offset, sizeof function);
    return function(0, 0, 0, 0, 0, 0, 0, 0, 0, 0);
}

#define ENTRY(name, parameters) {#name, offsetof(CK_FUNCTION_LIST_3_2, name)},
static const struct {
    const char *name;
    size_t offset;
} functions[] = {FUNCTIONS_2_40(ENTRY) FUNCTIONS_3_0(ENTRY) FUNCTIONS_3_2(ENTRY)};

enum { FUNCTIONS = sizeof functions / sizeof functions[0] };

static bool starts(const char *name)
{
    return strcmp(name, "C_Initialize") == 0 || strcmp(name, "C_GetFunctionList") == 0 ||
           strncmp(name, "C_GetInterface", 14) == 0;
}

void case_not_initialized(void)
{
    CHECK(FUNCTIONS == 92 + 12);
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
        if (strcmp(functions[i].name, "C_GetFunctionStatus") == 0 || strcmp(functions[i].name, "C_CancelFunction") == 0) {
            want(functions[i].name, 0, "with nothing", rv, CKR_FUNCTION_NOT_PARALLEL);
            continue;
        }
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
    RV(f->C_GetFunctionStatus(s), CKR_FUNCTION_NOT_PARALLEL);
    RV(f->C_CancelFunction(s), CKR_FUNCTION_NOT_PARALLEL);
    /* A bad argument ends its operation, and no other (PKCS#11 v3.1 §5.8 to §5.15). */
    for (int i = 0; i < 3; i++) {
        OK(f->C_SignInit(s, &mac, secret));
        OK(f->C_DigestInit(s, &sha));
        RV(f->C_Digest(s, NULL, 3, b, &n), CKR_ARGUMENTS_BAD);
        RV(f->C_Digest(s, b, 3, b, &n), CKR_OPERATION_NOT_INITIALIZED);
        OK(f->C_DigestInit(s, &sha));
        RV(f->C_Digest(s, b, 3, b, NULL), CKR_ARGUMENTS_BAD);
        RV(f->C_Digest(s, b, 3, b, &n), CKR_OPERATION_NOT_INITIALIZED);
        n = sizeof b;
        OK(f->C_Sign(s, b, 3, b, &n));
        OK(f->C_SignInit(s, &mac, secret));
        RV(f->C_Sign(s, NULL, 3, b, &n), CKR_ARGUMENTS_BAD);
        OK(f->C_SignInit(s, &mac, secret));
        RV(f->C_SignUpdate(s, NULL, 3), CKR_ARGUMENTS_BAD);
        RV(f->C_Sign(s, b, 3, b, &n), CKR_OPERATION_NOT_INITIALIZED);
        OK(f->C_VerifyInit(s, &mac, secret));
        RV(f->C_Verify(s, b, 3, NULL, 3), CKR_ARGUMENTS_BAD);
        RV(f->C_Verify(s, b, 3, b, 32), CKR_OPERATION_NOT_INITIALIZED);
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
        RV(f->C_Verify(s, in, 3, out, n - 1), CKR_SIGNATURE_LEN_RANGE); /* r and s are equally long */

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

/* What fits no request, or is no argument, is refused, and ends the operation. */
void case_oversized(void)
{
    enum { LENGTH = 65 << 20 };
    CK_SLOT_ID slot = start();
    CK_SESSION_HANDLE s = login(slot);
    CK_OBJECT_HANDLE public, private;
    CK_MECHANISM sha = {CKM_SHA256, NULL, 0}, ecdsa = {CKM_ECDSA_SHA256, NULL, 0};
    CK_BYTE *data = calloc(1, LENGTH), out[64];

    CHECK(data != NULL);
    ec_key(s, &public, &private);
    for (int i = 0; i < 3; i++) { /* the later Inits are put off */
        CK_ULONG n = sizeof out;

        OK(f->C_DigestInit(s, &sha));
        RV(f->C_Digest(s, data, LENGTH, out, &n), CKR_DATA_LEN_RANGE);
        OK(f->C_SignInit(s, &ecdsa, private));
        n = sizeof out;
        RV(f->C_Sign(s, data, LENGTH, out, &n), CKR_DATA_LEN_RANGE);
        OK(f->C_VerifyInit(s, &ecdsa, public));
        RV(f->C_Verify(s, data, LENGTH, out, sizeof out), CKR_DATA_LEN_RANGE);
    }
    for (int i = 0; i < 3; i++) { /* as other arguments that go into no request */
        CK_ULONG n = sizeof out;

        OK(f->C_DigestInit(s, &sha));
        RV(f->C_Digest(s, NULL, 1, out, &n), CKR_ARGUMENTS_BAD);
        OK(f->C_DigestInit(s, &sha));
        RV(f->C_Digest(s, data, 1, out, NULL), CKR_ARGUMENTS_BAD);
        OK(f->C_DigestInit(s, &sha));
        RV(f->C_DigestUpdate(s, NULL, 1), CKR_ARGUMENTS_BAD);
        OK(f->C_DigestInit(s, &sha));
        OK(f->C_DigestUpdate(s, data, 1));
        RV(f->C_DigestFinal(s, out, NULL), CKR_ARGUMENTS_BAD);
        OK(f->C_SignInit(s, &ecdsa, private));
        RV(f->C_Sign(s, NULL, 1, out, &n), CKR_ARGUMENTS_BAD);
        RV(f->C_Sign(s, data, 1, out, &n), CKR_OPERATION_NOT_INITIALIZED);
        OK(f->C_VerifyInit(s, &ecdsa, public));
        RV(f->C_Verify(s, data, 1, NULL, 64), CKR_ARGUMENTS_BAD);
        OK(f->C_VerifyInit(s, &ecdsa, public));
        RV(f->C_VerifyFinal(s, NULL, 64), CKR_ARGUMENTS_BAD);
    }
    OK(f->C_DigestInit(s, &sha));
    OK(f->C_DigestUpdate(s, data, LENGTH)); /* which goes in parts */
    OK(f->C_Finalize(NULL));
    free(data);
}

void case_interfaces(void)
{
    static CK_VERSION versions[] = {{3, 2}, {3, 1}, {3, 0}, {2, 40}}, newer[] = {{3, 3}, {4, 0}};
    enum { VERSIONS = sizeof versions / sizeof versions[0] };
    CK_INTERFACE list[VERSIONS], *i;
    CK_ULONG n = 0;
    CK_FUNCTION_LIST *old;

    RV(f->C_GetInterfaceList(NULL, NULL), CKR_ARGUMENTS_BAD);
    OK(f->C_GetInterfaceList(NULL, &n));
    CHECK(n == VERSIONS);
    n = 1;
    RV(f->C_GetInterfaceList(list, &n), CKR_BUFFER_TOO_SMALL);
    CHECK(n == VERSIONS);
    OK(f->C_GetInterfaceList(list, &n));
    RV(f->C_GetInterface(NULL, NULL, NULL, 0), CKR_ARGUMENTS_BAD);
    OK(f->C_GetInterface(NULL, NULL, &i, 0));
    CHECK(i->pFunctionList == list[0].pFunctionList);
    for (size_t k = 0; k < VERSIONS; k++) {
        const CK_VERSION *v = &versions[k], *has = list[k].pFunctionList;
        CK_INFO info;

        CHECK(strcmp(list[k].pInterfaceName, "PKCS 11") == 0 && list[k].flags == 0);
        CHECK(has->major == v->major && has->minor == v->minor);
        OK(f->C_GetInterface((CK_UTF8CHAR *)"PKCS 11", &versions[k], &i, 0));
        CHECK(i->pFunctionList == list[k].pFunctionList);
        memcpy(&old, &i->pFunctionList, sizeof old); /* the beginning of each */
        OK(old->C_Initialize(NULL));
        OK(old->C_GetInfo(&info));
        CHECK(info.cryptokiVersion.major == v->major && info.cryptokiVersion.minor == v->minor);
        OK(old->C_Finalize(NULL));
    }
    CHECK(list[0].pFunctionList == f);
    OK(f->C_GetFunctionList(&old));
    CHECK(list[VERSIONS - 1].pFunctionList == old);
    for (size_t k = 0; k < sizeof newer / sizeof newer[0]; k++) {
        CK_INTERFACE *none = NULL;

        RV(f->C_GetInterface((CK_UTF8CHAR *)"PKCS 11", &newer[k], &none, 0), CKR_FUNCTION_FAILED);
        RV(f->C_GetInterface(NULL, &newer[k], &none, 0), CKR_FUNCTION_FAILED);
        CHECK(none == NULL);
    }
    for (size_t k = 0; k < FUNCTIONS; k++) {
        any function;

        memcpy(&function, (char *)f + functions[k].offset, sizeof function);
        CHECK(function != NULL);
    }
    RV(f->C_GetInterface((CK_UTF8CHAR *)"Vendor", NULL, &i, 0), CKR_FUNCTION_FAILED);
    RV(f->C_GetInterface(NULL, NULL, &i, CKF_INTERFACE_FORK_SAFE), CKR_FUNCTION_FAILED);
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

    /* PKCS#11 v3.1 §5.4.1: only the program's mutexes, which the module cannot use
       as it waits for the daemon. */
    RV(f->C_Initialize(&a), CKR_CANT_LOCK);
    RV(f->C_Finalize(NULL), CKR_CRYPTOKI_NOT_INITIALIZED);
    a.flags = CKF_OS_LOCKING_OK;
    OK(f->C_Initialize(&a));
    RV(f->C_Initialize(&a), CKR_CRYPTOKI_ALREADY_INITIALIZED);
    RV(f->C_Initialize(NULL), CKR_CRYPTOKI_ALREADY_INITIALIZED);
    OK(f->C_Finalize(NULL));
    for (int missing = 0; missing < 4; missing++) {
        CK_C_INITIALIZE_ARGS b = {make_mutex, mutex, mutex, mutex, missing % 2 == 0 ? CKF_OS_LOCKING_OK : 0, NULL};

        memset((char *)&b + (size_t)missing * sizeof b.CreateMutex, 0, sizeof b.CreateMutex);
        RV(f->C_Initialize(&b), CKR_ARGUMENTS_BAD);
    }
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

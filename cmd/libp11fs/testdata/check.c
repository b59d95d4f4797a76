/* check MODULE CASE [NUMBER] runs one case and exits with 0 if it held. */
#include "check.h"

#include <dirent.h>
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

CK_FUNCTION_LIST_3_2 *f;
static void *library;

void fail(const char *file, int line, const char *what)
{
    fprintf(stderr, "%s:%d: [%d] %s\n", file, line, (int)getpid(), what);
    _exit(1);
}

void want(const char *file, int line, const char *what, CK_RV got, CK_RV wanted)
{
    if (got != wanted) {
        fprintf(stderr, "%s:%d: [%d] %s = %#lx, want %#lx\n", file, line, (int)getpid(), what, got, wanted);
        _exit(1);
    }
}

/* A function by name, without the warning that a cast from void * earns. */
static void symbol(const char *name, void *to)
{
    void *p = dlsym(library, name);

    if (p == NULL)
        fail(__FILE__, __LINE__, name);
    memcpy(to, &p, sizeof p);
}

void load(const char *path)
{
    CK_RV (*get)(CK_UTF8CHAR *, CK_VERSION *, CK_INTERFACE **, CK_FLAGS);
    CK_VERSION version = {3, 2}, older = {3, 0};
    CK_INTERFACE *i;

    library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (library == NULL)
        fail(path, 0, dlerror());
    if (dlsym(library, "C_GetInterface") == NULL) {
        /* A module of 2.40. */
        CK_RV (*get_list)(CK_FUNCTION_LIST **);
        CK_FUNCTION_LIST *list;

        symbol("C_GetFunctionList", &get_list);
        OK(get_list(&list));
        f = (CK_FUNCTION_LIST_3_2 *)(void *)list;
        return;
    }
    symbol("C_GetInterface", &get);
    if (get(NULL, &version, &i, 0) != CKR_OK)
        OK(get(NULL, &older, &i, 0));
    memcpy(&f, &i->pFunctionList, sizeof f);
}

void unload(void)
{
    CHECK(dlclose(library) == 0);
    library = NULL;
    f = NULL;
}

CK_SLOT_ID start(void)
{
    CK_SLOT_ID slots[4];
    CK_ULONG n = 4;

    OK(f->C_Initialize(NULL));
    OK(f->C_GetSlotList(1, slots, &n));
    CHECK(n == 1);
    return slots[0];
}

CK_SESSION_HANDLE session_on(CK_SLOT_ID slot)
{
    CK_SESSION_HANDLE s;

    OK(f->C_OpenSession(slot, CKF_SERIAL_SESSION | CKF_RW_SESSION, NULL, NULL, &s));
    return s;
}

CK_SESSION_HANDLE login(CK_SLOT_ID slot)
{
    CK_SESSION_HANDLE s = session_on(slot);

    OK(f->C_Login(s, CKU_USER, PIN, PIN_LEN));
    return s;
}

void ec_key(CK_SESSION_HANDLE s, CK_OBJECT_HANDLE *public, CK_OBJECT_HANDLE *private)
{
    static CK_BYTE p256[] = {6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7};
    CK_BBOOL yes = 1;
    CK_ATTRIBUTE pub[] = {{CKA_EC_PARAMS, p256, sizeof p256}, {CKA_VERIFY, &yes, 1}};
    CK_ATTRIBUTE priv[] = {{CKA_SIGN, &yes, 1}, {CKA_DERIVE, &yes, 1}};
    CK_MECHANISM m = {CKM_EC_KEY_PAIR_GEN, NULL, 0};

    OK(f->C_GenerateKeyPair(s, &m, pub, 2, priv, 2, public, private));
}

CK_OBJECT_HANDLE aes_key(CK_SESSION_HANDLE s)
{
    CK_BBOOL yes = 1;
    CK_ULONG bytes = 32;
    CK_ATTRIBUTE t[] = {{CKA_VALUE_LEN, &bytes, sizeof bytes}, {CKA_ENCRYPT, &yes, 1}, {CKA_DECRYPT, &yes, 1},
                        {CKA_WRAP, &yes, 1},   {CKA_UNWRAP, &yes, 1},  {CKA_EXTRACTABLE, &yes, 1},
                        {CKA_DERIVE, &yes, 1}, {CKA_SIGN, &yes, 1},    {CKA_VERIFY, &yes, 1}};
    CK_MECHANISM m = {CKM_AES_KEY_GEN, NULL, 0};
    CK_OBJECT_HANDLE key;

    OK(f->C_GenerateKey(s, &m, t, sizeof t / sizeof t[0], &key));
    return key;
}

CK_OBJECT_HANDLE mac_key(CK_SESSION_HANDLE s)
{
    CK_BBOOL yes = 1, no = 0;
    CK_ULONG bytes = 32;
    CK_ATTRIBUTE t[] = {{CKA_VALUE_LEN, &bytes, sizeof bytes}, {CKA_SIGN, &yes, 1}, {CKA_VERIFY, &yes, 1},
                        {CKA_SENSITIVE, &no, 1}, {CKA_EXTRACTABLE, &yes, 1}};
    CK_MECHANISM m = {CKM_GENERIC_SECRET_KEY_GEN, NULL, 0};
    CK_OBJECT_HANDLE key;

    OK(f->C_GenerateKey(s, &m, t, sizeof t / sizeof t[0], &key));
    return key;
}

CK_RV sign_once(CK_SESSION_HANDLE s, CK_OBJECT_HANDLE public, CK_OBJECT_HANDLE private)
{
    CK_MECHANISM m = {CKM_ECDSA, NULL, 0};
    CK_BYTE digest[32], signature[64];
    CK_ULONG n = sizeof signature;
    CK_RV rv;

    memset(digest, (int)s & 0xff, sizeof digest);
    if ((rv = f->C_SignInit(s, &m, private)) != CKR_OK)
        return rv;
    if ((rv = f->C_Sign(s, digest, sizeof digest, signature, &n)) != CKR_OK)
        return rv;
    CHECK(n == sizeof signature);
    if ((rv = f->C_VerifyInit(s, &m, public)) != CKR_OK)
        return rv;
    return f->C_Verify(s, digest, sizeof digest, signature, n);
}

double now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

int descriptors(void)
{
    DIR *d = opendir("/proc/self/fd");
    const struct dirent *e;
    int n = 0;

    CHECK(d != NULL);
    while ((e = readdir(d)) != NULL) {
        char target[32] = "";

        if (readlinkat(dirfd(d), e->d_name, target, sizeof target - 1) > 0 && strncmp(target, "socket:", 7) == 0)
            n++;
    }
    closedir(d);
    return n;
}

static const struct {
    const char *name;
    void (*run)(void);
} cases[] = {
    {"functions", case_functions},   {"not-initialized", case_not_initialized},
    {"arguments", case_arguments},   {"buffers", case_buffers},
    {"mechanisms", case_mechanisms}, {"attributes", case_attributes},
    {"deferred", case_deferred},     {"interfaces", case_interfaces},
    {"initialize", case_initialize}, {"fork", case_fork},
    {"threads", case_threads},       {"events", case_events},
    {"absent", case_absent},         {"hostile", case_hostile},
    {"version", case_version},       {"shared", case_shared},
    {"once", case_once},             {"cancel", case_cancel},
    {"mute", case_mute},             {"oversized", case_oversized},
    {"descriptors", case_descriptors}, {"standard", case_standard},
    {"closed", case_closed},         {"destroyed", case_destroyed},
    {"foreign", case_foreign},       {"unset", case_unset},
    {"find", case_find},             {"states", case_states},
};

int main(int argc, char **argv)
{
    int number = argc > 3 ? atoi(argv[3]) : 0;

    if (argc < 3)
        return 2;
    if (strcmp(argv[2], "dlclose") == 0) {
        case_dlclose(argv[1]);
        return 0;
    }
    if (strcmp(argv[2], "unloaded") == 0) {
        case_unloaded(argv[1]);
        return 0;
    }
    if (strcmp(argv[2], "differ") == 0 && argc > 4) {
        case_differ(argv[1], argv[4], number);
        return 0;
    }
    load(argv[1]);
    if (strcmp(argv[2], "restart") == 0) {
        case_restart();
    } else if (strcmp(argv[2], "race") == 0) {
        case_race(number);
    } else {
        size_t i = 0;

        while (i < sizeof cases / sizeof cases[0] && strcmp(argv[2], cases[i].name) != 0)
            i++;
        CHECK(i < sizeof cases / sizeof cases[0]);
        cases[i].run();
    }
    unload();
    return 0;
}

/* A daemon that comes and goes, is not there, is another, or lies. */
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/time.h>

#include "check.h"

#include <stdatomic.h>

/* What a thread of the restart case does, and what became of it. */
struct loop {
    pthread_t thread;
    CK_SLOT_ID slot;
    int number;
    long signatures, restarts;
    double longest; /* seconds between two signatures */
};

/* make_key is ec_key, but for a daemon that may go away. */
static CK_RV make_key(CK_SESSION_HANDLE s, CK_OBJECT_HANDLE *public, CK_OBJECT_HANDLE *private)
{
    static CK_BYTE p256[] = {6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7};
    CK_BBOOL yes = 1;
    CK_ATTRIBUTE pub[] = {{CKA_EC_PARAMS, p256, sizeof p256}, {CKA_VERIFY, &yes, 1}};
    CK_ATTRIBUTE priv[] = {{CKA_SIGN, &yes, 1}, {CKA_PRIVATE, &(CK_BBOOL){0}, 1}};
    CK_MECHANISM m = {CKM_EC_KEY_PAIR_GEN, NULL, 0};

    return f->C_GenerateKeyPair(s, &m, pub, 2, priv, 2, public, private);
}

static atomic_bool ended;

static void *sign_on(void *loop)
{
    struct loop *l = loop;
    double began = now();

    while (!ended) {
        CK_SESSION_HANDLE s;
        CK_OBJECT_HANDLE public, private;
        CK_RV rv;
        bool told = false;

        OK(f->C_OpenSession(l->slot, CKF_SERIAL_SESSION | CKF_RW_SESSION, NULL, NULL, &s));
        rv = make_key(s, &public, &private);
        while (rv == CKR_OK && !ended) {
            rv = sign_once(s, public, private); /* verifies as well */
            if (rv == CKR_OK) {
                if (!told) {
                    const char line[] = {(char)('0' + l->number), '\n'};

                    told = true;
                    CHECK(write(1, line, sizeof line) == (ssize_t)sizeof line);
                }
                l->signatures++;
                l->longest = now() - began > l->longest ? now() - began : l->longest;
                began = now();
            }
        }
        if (rv != CKR_OK) {
            RV(rv, CKR_SESSION_HANDLE_INVALID);
            RV(f->C_CloseSession(s), CKR_SESSION_HANDLE_INVALID);
            l->restarts++;
        }
    }
    return NULL;
}

/* Signs in several threads while the daemon is restarted again and again, until standard
   input ends. A thread prints its number with the first signature of each session. A lost
   session is the only thing that may be noticed. */
void case_restart(void)
{
    enum { LOOPS = 4 };
    struct loop loops[LOOPS];
    int before = descriptors();
    CK_SLOT_ID slot = start();
    long signatures = 0, restarts = 0;
    double longest = 0;
    char c;

    for (int i = 0; i < LOOPS; i++) {
        loops[i] = (struct loop){.slot = slot, .number = i};
        CHECK(pthread_create(&loops[i].thread, NULL, sign_on, &loops[i]) == 0);
    }
    while (read(0, &c, 1) > 0) {
    }
    ended = true;
    for (int i = 0; i < LOOPS; i++) {
        CHECK(pthread_join(loops[i].thread, NULL) == 0);
        signatures += loops[i].signatures;
        restarts += loops[i].restarts;
        longest = loops[i].longest > longest ? loops[i].longest : longest;
    }
    CHECK(descriptors() <= before + 1);
    OK(f->C_Finalize(NULL));
    CHECK(descriptors() == before);
    printf("%ld signatures, %ld restarts, longest pause %.0f ms\n", signatures, restarts, longest * 1000);
}

/* Without a daemon there are no slots, and nothing waits. */
void case_absent(void)
{
    CK_ULONG n = 5;
    CK_SLOT_ID slots[5];
    CK_SESSION_HANDLE s;
    CK_INFO info;
    double began = now();
    int before = descriptors();

    OK(f->C_Initialize(NULL));
    OK(f->C_GetSlotList(0, slots, &n));
    CHECK(n == 0);
    OK(f->C_GetInfo(&info));
    RV(f->C_OpenSession(3, CKF_SERIAL_SESSION, NULL, NULL, &s), CKR_SLOT_ID_INVALID);
    RV(f->C_Logout(1), CKR_SESSION_HANDLE_INVALID);
    OK(f->C_Finalize(NULL));
    CHECK(now() - began < 5);
    CHECK(descriptors() == before);
}

/* Prints the number of the first slot: which daemon was found. */
void case_find(void)
{
    CK_ULONG n = 1;
    CK_SLOT_ID slot;

    OK(f->C_Initialize(NULL));
    OK(f->C_GetSlotList(0, &slot, &n));
    printf("%ld\n", n == 0 ? -1L : (long)slot);
    OK(f->C_Finalize(NULL));
}

/* Any answer may come, and none may do harm. A fake daemon lets C_Initialize
   through and then misbehaves. */
void case_hostile(void)
{
    CK_BYTE iv[16] = {1}, out[64];
    CK_MECHANISM m = {CKM_AES_CBC, iv, 16}, sha = {CKM_SHA256, NULL, 0};
    CK_SLOT_ID slots[2];
    CK_SESSION_HANDLE s = 0;
    CK_OBJECT_HANDLE h[2];
    CK_TOKEN_INFO ti;
    CK_ATTRIBUTE inner[2] = {{0, NULL, 0}, {0, out, 8}};
    CK_ATTRIBUTE t[] = {{CKA_LABEL, out, 16}, {CKA_TOKEN, out, 1}, {CKA_ALLOWED_MECHANISMS, h, sizeof h},
                        {CKA_WRAP_TEMPLATE, inner, sizeof inner}, {CKA_VALUE_LEN, h, sizeof h[0]}, {CKA_PARAMETER_SET, h, sizeof h[0]}};
    CK_ULONG n = 2;
    CK_RV rv = f->C_Initialize(NULL);

    if (rv != CKR_OK) {
        CHECK(rv != CKR_CRYPTOKI_ALREADY_INITIALIZED);
        return;
    }
    rv = f->C_GetSlotList(1, slots, &n);
    CHECK(rv != CKR_OK || n <= 2);
    (void)f->C_GetTokenInfo(3, &ti);
    n = 2;
    (void)f->C_GetMechanismList(3, h, &n);
    if (f->C_OpenSession(3, CKF_SERIAL_SESSION, NULL, NULL, &s) == CKR_OK) {
        (void)f->C_GetAttributeValue(s, 5, t, sizeof t / sizeof t[0]);
        (void)f->C_FindObjectsInit(s, NULL, 0);
        (void)f->C_FindObjects(s, h, 2, &n);
        n = sizeof out;
        (void)f->C_DigestInit(s, &sha);
        (void)f->C_Digest(s, iv, 16, out, &n);
        n = sizeof out;
        (void)f->C_EncryptInit(s, &m, 5);
        (void)f->C_Encrypt(s, iv, 16, out, &n);
        (void)f->C_GenerateRandom(s, out, sizeof out);
        (void)f->C_CloseSession(s);
    }
    OK(f->C_Finalize(NULL));
}

static void ignore(int number)
{
    (void)number;
}

/* A daemon that greets and then says nothing is given up, also in a program
   whose timer interrupts the waiting. */
void case_mute(void)
{
    struct sigaction action = {.sa_handler = ignore, .sa_flags = SA_RESTART};
    struct itimerval often = {{0, 50000}, {0, 50000}}, never = {{0, 0}, {0, 0}};
    double began = now();
    int before = descriptors();

    CHECK(sigaction(SIGALRM, &action, NULL) == 0);
    CHECK(setitimer(ITIMER_REAL, &often, NULL) == 0);
    OK(f->C_Initialize(NULL));
    CHECK(setitimer(ITIMER_REAL, &never, NULL) == 0);
    CHECK(now() - began > 0.9);
    CHECK(descriptors() == before);
    OK(f->C_Finalize(NULL));
}

/* A server of another protocol is none. */
void case_version(void)
{
    int before = descriptors();

    for (int i = 0; i < 3; i++)
        RV(f->C_Initialize(NULL), CKR_DEVICE_ERROR);
    RV(f->C_Finalize(NULL), CKR_CRYPTOKI_NOT_INITIALIZED);
    CHECK(descriptors() == before);
}

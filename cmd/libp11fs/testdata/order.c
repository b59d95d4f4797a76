/* Inits that were put off, in programs of several threads: nothing overtakes them. */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "check.h"

/* What the threads of case_race share. */
static struct {
    CK_SLOT_ID slot;
    CK_OBJECT_HANDLE key, stored; /* of the session, and of the token */
    double end;
    atomic_long uses, changes;
} race;

/* uses has a session of its own, in which no call may ever fail. */
static void *uses(void *unused)
{
    CK_SESSION_HANDLE s = session_on(race.slot);
    CK_BYTE iv[16] = {0}, in[16] = {1}, out[64];
    CK_MECHANISM sha = {CKM_SHA256, NULL, 0}, mac = {CKM_SHA256_HMAC, NULL, 0}, cbc = {CKM_AES_CBC, iv, sizeof iv};
    CK_MECHANISM kwp = {CKM_AES_KEY_WRAP_KWP, NULL, 0};
    CK_SESSION_INFO info;
    CK_ULONG n;

    (void)unused;
    for (int i = 0; now() < race.end; i++) {
        OK(f->C_DigestInit(s, &sha));
        if (i % 4 == 0)
            OK(f->C_GetSessionInfo(s, &info));
        if (i % 8 == 0)
            OK(f->C_DigestUpdate(s, in, sizeof in));
        n = sizeof out;
        OK(i % 8 == 0 ? f->C_DigestFinal(s, out, &n) : f->C_Digest(s, in, sizeof in, out, &n));
        OK(f->C_SignInit(s, &mac, race.key));
        n = sizeof out;
        OK(f->C_Sign(s, in, sizeof in, out, &n));
        OK(f->C_EncryptInit(s, &cbc, race.stored));
        n = sizeof out;
        OK(f->C_Encrypt(s, in, sizeof in, out, &n));
        n = sizeof out;
        OK(f->C_WrapKey(s, &kwp, race.stored, race.key, out, &n));
        race.uses++;
    }
    OK(f->C_CloseSession(s));
    return NULL;
}

/* goes_on counts a change. Between two, Inits have time to be put off. */
static bool goes_on(void)
{
    struct timespec pause = {0, 3000000};

    race.changes++;
    nanosleep(&pause, NULL);
    return now() < race.end;
}

static void *closes(void *unused)
{
    (void)unused;
    do
        OK(f->C_CloseSession(session_on(race.slot)));
    while (goes_on());
    return NULL;
}

static void *logs_in(void *unused)
{
    CK_SESSION_HANDLE s = session_on(race.slot);

    (void)unused;
    do
        RV(f->C_Login(s, CKU_USER, PIN, PIN_LEN), CKR_USER_ALREADY_LOGGED_IN);
    while (goes_on());
    OK(f->C_CloseSession(s));
    return NULL;
}

static void *destroys(void *unused)
{
    CK_SESSION_HANDLE s = session_on(race.slot);

    (void)unused;
    do
        OK(f->C_DestroyObject(s, mac_key(s)));
    while (goes_on());
    OK(f->C_CloseSession(s));
    return NULL;
}

/* relabels changes the keys that the others use. */
static void *relabels(void *unused)
{
    CK_SESSION_HANDLE s = session_on(race.slot);
    CK_BYTE label = 0;
    CK_ATTRIBUTE a = {CKA_LABEL, &label, 1};

    (void)unused;
    do {
        label++;
        OK(f->C_SetAttributeValue(s, label % 2 == 0 ? race.key : race.stored, &a, 1));
    } while (goes_on());
    OK(f->C_CloseSession(s));
    return NULL;
}

/* Threads with sessions of their own do not notice what others do. */
void case_race(int seconds)
{
    void *(*all[])(void *) = {uses, uses, uses, uses, closes, logs_in, destroys, relabels};
    enum { ALL = sizeof all / sizeof all[0] };
    pthread_t thread[ALL];
    CK_SESSION_HANDLE s;
    CK_BBOOL yes = 1;
    CK_ATTRIBUTE token = {CKA_TOKEN, &yes, 1};

    race.slot = start();
    s = login(race.slot);
    race.key = mac_key(s);
    OK(f->C_CopyObject(s, aes_key(s), &token, 1, &race.stored));
    race.end = now() + seconds;
    for (int i = 0; i < ALL; i++)
        CHECK(pthread_create(&thread[i], NULL, all[i], NULL) == 0);
    for (int i = 0; i < ALL; i++)
        CHECK(pthread_join(thread[i], NULL) == 0);
    OK(f->C_Finalize(NULL));
    printf("%ld uses, %ld changes\n", atomic_load(&race.uses), atomic_load(&race.changes));
}

/* What the two threads of case_destroyed share. */
static struct {
    pthread_barrier_t round;
    CK_SLOT_ID slot;
    CK_OBJECT_HANDLE key;
} destroyed;

enum { DESTROYED_ROUNDS = 400 };

static void *destroys_it(void *unused)
{
    CK_SESSION_HANDLE s = session_on(destroyed.slot);

    (void)unused;
    for (int i = 0; i < DESTROYED_ROUNDS; i++) {
        pthread_barrier_wait(&destroyed.round);
        OK(f->C_DestroyObject(s, destroyed.key));
        pthread_barrier_wait(&destroyed.round);
    }
    OK(f->C_CloseSession(s));
    return NULL;
}

/* A key that is destroyed serves a signature that has taken data, and begins none. */
void case_destroyed(void)
{
    CK_SESSION_HANDLE s;
    CK_MECHANISM mac = {CKM_SHA256_HMAC, NULL, 0};
    CK_BYTE in[8] = {1}, out[32];
    CK_SESSION_INFO info;
    CK_ULONG n;
    CK_RV rv;
    pthread_t thread;

    destroyed.slot = start();
    s = login(destroyed.slot);
    CHECK(pthread_barrier_init(&destroyed.round, NULL, 2) == 0);
    CHECK(pthread_create(&thread, NULL, destroys_it, NULL) == 0);
    for (int i = 0; i < DESTROYED_ROUNDS; i++) {
        destroyed.key = mac_key(s);
        for (int j = 0; j < 2; j++) { /* granted, so that the next is put off */
            OK(f->C_SignInit(s, &mac, destroyed.key));
            n = sizeof out;
            OK(f->C_Sign(s, in, sizeof in, out, &n));
        }
        OK(f->C_SignInit(s, &mac, destroyed.key));
        pthread_barrier_wait(&destroyed.round);
        if (i % 3 == 1)
            OK(f->C_GetSessionInfo(s, &info));
        n = sizeof out;
        rv = i % 3 == 2 ? f->C_SignUpdate(s, in, sizeof in) : f->C_Sign(s, in, sizeof in, out, &n);
        CHECK(rv == CKR_OK || rv == CKR_KEY_HANDLE_INVALID); /* whichever came first */
        if (i % 3 == 2 && rv == CKR_OK)
            OK(f->C_SignFinal(s, out, &n));
        RV(f->C_Sign(s, in, sizeof in, out, &n), CKR_OPERATION_NOT_INITIALIZED);
        pthread_barrier_wait(&destroyed.round);
        RV(f->C_SignInit(s, &mac, destroyed.key), CKR_KEY_HANDLE_INVALID);
    }
    CHECK(pthread_join(thread, NULL) == 0);
    OK(f->C_Finalize(NULL));
}

static const char foreign_label[] = "foreign";

/* another_program destroys the key with that label. */
static void another_program(void)
{
    pid_t child = fork();
    CK_ATTRIBUTE t = {CKA_LABEL, (void *)foreign_label, sizeof foreign_label};
    CK_OBJECT_HANDLE key;
    CK_SESSION_HANDLE s;
    CK_ULONG n;
    int status;

    if (child == 0) {
        s = login(start());
        OK(f->C_FindObjectsInit(s, &t, 1));
        OK(f->C_FindObjects(s, &key, 1, &n));
        CHECK(n == 1);
        OK(f->C_DestroyObject(s, key));
        OK(f->C_Finalize(NULL));
        _exit(0);
    }
    CHECK(child > 0 && waitpid(child, &status, 0) == child);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

/* What another program does to a key is told by the operation whose Init was put
   off, and by no other call that comes before. */
void case_foreign(void)
{
    CK_SESSION_HANDLE s = login(start());
    CK_OBJECT_HANDLE secret = mac_key(s), key;
    CK_MECHANISM gen = {CKM_AES_KEY_GEN, NULL, 0}, ecb = {CKM_AES_ECB, NULL, 0}, mac = {CKM_SHA256_HMAC, NULL, 0};
    CK_MECHANISM sha = {CKM_SHA256, NULL, 0};
    CK_BBOOL yes = 1;
    CK_ULONG bytes = 32, n;
    CK_ATTRIBUTE t[] = {{CKA_VALUE_LEN, &bytes, sizeof bytes}, {CKA_ENCRYPT, &yes, 1}, {CKA_TOKEN, &yes, 1},
                        {CKA_LABEL, (void *)foreign_label, sizeof foreign_label}};
    CK_BYTE in[16] = {1}, out[32];

    for (int between = 0; between < 5; between++) {
        OK(f->C_GenerateKey(s, &gen, t, sizeof t / sizeof t[0], &key));
        for (int i = 0; i < 2; i++) { /* granted, so that the next is put off */
            OK(f->C_EncryptInit(s, &ecb, key));
            n = sizeof out;
            OK(f->C_Encrypt(s, in, sizeof in, out, &n));
        }
        if (between == 0) {
            OK(f->C_SignInit(s, &mac, secret));
            OK(f->C_SignUpdate(s, in, sizeof in));
        }
        OK(f->C_EncryptInit(s, &ecb, key));
        another_program();
        n = sizeof out;
        switch (between) {
        case 0:
            OK(f->C_SignUpdate(s, in, sizeof in));
            OK(f->C_SignFinal(s, out, &n));
            break;
        case 1:
            OK(f->C_DigestInit(s, &sha));
            OK(f->C_Digest(s, in, sizeof in, out, &n));
            break;
        case 2:
            OK(f->C_SessionCancel(s, CKF_DIGEST));
            break;
        case 3:
            RV(f->C_EncryptUpdate(s, in, sizeof in, out, &n), CKR_KEY_HANDLE_INVALID);
            RV(f->C_EncryptUpdate(s, in, sizeof in, out, &n), CKR_OPERATION_NOT_INITIALIZED);
            continue;
        case 4:
            OK(f->C_SessionCancel(s, CKF_ENCRYPT));
            RV(f->C_Encrypt(s, in, sizeof in, out, &n), CKR_OPERATION_NOT_INITIALIZED);
            continue;
        }
        n = sizeof out;
        RV(f->C_Encrypt(s, in, sizeof in, out, &n), CKR_KEY_HANDLE_INVALID);
        RV(f->C_Encrypt(s, in, sizeof in, out, &n), CKR_OPERATION_NOT_INITIALIZED);
    }
    OK(f->C_Finalize(NULL));
}

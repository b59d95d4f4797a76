/* The module as a guest: forks, threads, unloading. */
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "check.h"

static void wait_for(pid_t child)
{
    int status;

    CHECK(child > 0);
    while (waitpid(child, &status, 0) < 0)
        CHECK(errno == EINTR);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

/* busy signs in its own session until told to stop. */
static struct {
    pthread_mutex_t mu;
    bool stop;
} flag = {PTHREAD_MUTEX_INITIALIZER, false};

static bool stopped(void)
{
    bool stop;

    pthread_mutex_lock(&flag.mu);
    stop = flag.stop;
    pthread_mutex_unlock(&flag.mu);
    return stop;
}

static void *busy(void *slot)
{
    CK_SESSION_HANDLE s = session_on(*(CK_SLOT_ID *)slot);
    CK_OBJECT_HANDLE public, private;

    ec_key(s, &public, &private);
    while (!stopped())
        OK(sign_once(s, public, private));
    return NULL;
}

/* Forks while other threads are in calls. */
void case_fork(void)
{
    int none = descriptors();
    CK_SLOT_ID slot = start();
    CK_SESSION_HANDLE s = login(slot), more;
    CK_OBJECT_HANDLE public, private;
    CK_SESSION_INFO info;
    pthread_t thread[2];
    pid_t child;

    ec_key(s, &public, &private);
    OK(sign_once(s, public, private));
    child = fork();
    if (child == 0) { /* without C_Initialize: nothing is left of it */
        CHECK(descriptors() == none);
        RV(f->C_GetSessionInfo(s, &info), CKR_CRYPTOKI_NOT_INITIALIZED);
        RV(sign_once(s, public, private), CKR_CRYPTOKI_NOT_INITIALIZED);
        RV(f->C_Finalize(NULL), CKR_CRYPTOKI_NOT_INITIALIZED);
        _exit(0);
    }
    wait_for(child);
    OK(sign_once(s, public, private));
    child = fork();
    if (child == 0) { /* and with: an application of its own */
        CHECK(start() == slot);
        RV(f->C_GetSessionInfo(s, &info), CKR_SESSION_HANDLE_INVALID);
        more = login(slot);
        ec_key(more, &public, &private);
        for (int i = 0; i < 20; i++)
            OK(sign_once(more, public, private));
        OK(f->C_Finalize(NULL));
        CHECK(descriptors() == none);
        _exit(0);
    }
    wait_for(child);
    OK(sign_once(s, public, private));
    for (int i = 0; i < 2; i++)
        CHECK(pthread_create(&thread[i], NULL, busy, &slot) == 0);
    for (int i = 0; i < 100; i++) {
        child = fork();
        if (child == 0) {
            RV(f->C_GetSessionInfo(s, &info), CKR_CRYPTOKI_NOT_INITIALIZED);
            if (i % 4 == 0) {
                CHECK(start() == slot);
                (void)session_on(slot);
                OK(f->C_Finalize(NULL));
            }
            _exit(0);
        }
        wait_for(child);
        OK(sign_once(s, public, private));
    }
    pthread_mutex_lock(&flag.mu);
    flag.stop = true;
    pthread_mutex_unlock(&flag.mu);
    for (int i = 0; i < 2; i++)
        pthread_join(thread[i], NULL);
    OK(f->C_Finalize(NULL));
    CHECK(descriptors() == none);
}

enum { THREADS = 32, ROUNDS = 60 };

static void *worker(void *slot)
{
    CK_SESSION_HANDLE s = session_on(*(CK_SLOT_ID *)slot);
    CK_OBJECT_HANDLE public, private, key = aes_key(s), found[8];
    CK_MECHANISM sha = {CKM_SHA256, NULL, 0};
    static CK_BYTE large[100000];
    CK_BYTE out[32], want_digest[32];
    CK_ULONG n;
    CK_SESSION_INFO info;

    ec_key(s, &public, &private);
    for (int i = 0; i < ROUNDS; i++) {
        OK(sign_once(s, public, private));
        OK(f->C_GetSessionInfo(s, &info));
        n = sizeof out;
        OK(f->C_DigestInit(s, &sha));
        OK(f->C_Digest(s, large, sizeof large, out, &n));
        if (i == 0)
            memcpy(want_digest, out, sizeof out);
        CHECK(memcmp(want_digest, out, sizeof out) == 0);
        OK(f->C_FindObjectsInit(s, NULL, 0));
        OK(f->C_FindObjects(s, found, 8, &n));
        OK(f->C_FindObjectsFinal(s));
    }
    OK(f->C_DestroyObject(s, key));
    OK(f->C_CloseSession(s));
    return NULL;
}

void case_threads(void)
{
    int before = descriptors();
    CK_SLOT_ID slot = start();
    CK_SESSION_HANDLE s = login(slot);
    pthread_t thread[THREADS];

    for (int i = 0; i < THREADS; i++)
        CHECK(pthread_create(&thread[i], NULL, worker, &slot) == 0);
    CHECK(descriptors() <= before + 1); /* one connection for all */
    for (int i = 0; i < THREADS; i++)
        CHECK(pthread_join(thread[i], NULL) == 0);
    OK(f->C_CloseSession(s));
    OK(f->C_Finalize(NULL));
    CHECK(descriptors() == before);
}

/* meddle uses a session that others use as well. Whatever that gives, it must
   do no harm. */
static void *meddle(void *session)
{
    CK_SESSION_HANDLE s = *(CK_SESSION_HANDLE *)session;
    CK_MECHANISM sha = {CKM_SHA256, NULL, 0}, other = {CKM_SHA512, NULL, 0};
    CK_BYTE out[64] = {0};

    for (int i = 0; i < 300; i++) {
        CK_ULONG n = sizeof out;
        CK_SESSION_INFO info;

        (void)f->C_DigestInit(s, i % 7 == 0 ? &other : &sha);
        if (i % 5 == 0)
            (void)f->C_GetSessionInfo(s, &info);
        (void)f->C_Digest(s, out, 5, out, &n);
        if (i % 11 == 0)
            (void)f->C_SessionCancel(s, CKF_DIGEST);
        if (i % 13 == 0)
            (void)f->C_DestroyObject(s, 12345);
    }
    return NULL;
}

void case_shared(void)
{
    CK_SLOT_ID slot = start();
    CK_SESSION_HANDLE s = login(slot), t;
    pthread_t thread[8];
    CK_SESSION_INFO info;

    for (int i = 0; i < 8; i++)
        CHECK(pthread_create(&thread[i], NULL, meddle, &s) == 0);
    for (int i = 0; i < 20; i++) {
        t = session_on(slot);
        OK(f->C_CloseSession(t));
    }
    for (int i = 0; i < 8; i++)
        CHECK(pthread_join(thread[i], NULL) == 0);
    OK(f->C_GetSessionInfo(s, &info));
    OK(f->C_Finalize(NULL));
}

static void *waits(void *unused)
{
    CK_SLOT_ID slot;

    (void)unused;
    RV(f->C_WaitForSlotEvent(0, &slot, NULL), CKR_CRYPTOKI_NOT_INITIALIZED);
    return NULL;
}

/* A thread that waits for events neither stops the others nor survives
   C_Finalize. */
void case_events(void)
{
    CK_SLOT_ID slot = start();
    CK_SESSION_HANDLE s = login(slot);
    CK_OBJECT_HANDLE public, private;
    struct timespec t = {0, 50000000};
    pthread_t thread;

    CHECK(pthread_create(&thread, NULL, waits, NULL) == 0);
    nanosleep(&t, NULL);
    ec_key(s, &public, &private);
    for (int i = 0; i < 50; i++)
        OK(sign_once(s, public, private));
    OK(f->C_Finalize(NULL));
    CHECK(pthread_join(thread, NULL) == 0);
}

static void *asks(void *slot)
{
    CK_TOKEN_INFO info;

    for (;;) {
        if (f->C_GetTokenInfo(*(CK_SLOT_ID *)slot, &info) != CKR_OK)
            pthread_testcancel();
    }
    return NULL;
}

/* A thread that is cancelled in a call takes nothing with it that others need,
   not even as the last one on a connection. */
void case_cancel(void)
{
    int before = descriptors();

    for (int i = 0; i < 200; i++) {
        CK_SLOT_ID slot = start();
        struct timespec t = {0, 200000};
        pthread_t thread[4];

        for (int j = 0; j < 4; j++)
            CHECK(pthread_create(&thread[j], NULL, j == 0 ? waits : asks, &slot) == 0);
        nanosleep(&t, NULL);
        for (int j = 0; j < 4; j++)
            CHECK(pthread_cancel(thread[j]) == 0);
        OK(f->C_Finalize(NULL));
        for (int j = 0; j < 4; j++)
            CHECK(pthread_join(thread[j], NULL) == 0);
        CHECK(descriptors() == before);
    }
}

/* Loads and unloads it a thousand times, with and without what should come
   between. */
void case_dlclose(const char *path)
{
    int before = descriptors();

    for (int i = 0; i < 1000; i++) {
        load(path);
        if (i % 3 != 0) {
            CK_SLOT_ID slot = start();

            (void)session_on(slot);
            if (i % 3 == 1) /* else unloaded as it is */
                OK(f->C_Finalize(NULL));
        }
        unload();
        CHECK(descriptors() == before);
        if (i % 100 == 0) { /* no handler of it is left */
            pid_t child = fork();

            if (child == 0)
                _exit(0);
            wait_for(child);
        }
    }
}

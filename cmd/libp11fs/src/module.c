#include "module.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "call.h"
#include "search.h"
#include "session.h"

enum {
    VERSION_BYTE = 0xC5,
    DEFAULT_TIMEOUT = 10, /* seconds to wait for a daemon that is being restarted */
    MAX_TIMEOUT = 3600,
    FIRST_PAUSE = 5, /* milliseconds between two tries, doubled each time */
    LAST_PAUSE = 200,
};

/* Whether a daemon that is not there is waited for. */
enum waiting {
    WAIT_LATER, /* not in C_Initialize: the program may never ask for a slot */
    WAIT_NOW,
    WAIT_OVER, /* it was in vain; a connection renews it */
};

static struct {
    pthread_mutex_t mu;       /* guards all below */
    pthread_cond_t connected; /* an attempt to connect ended */
    bool initialized;
    uint64_t instance; /* counts C_Initialize and C_Finalize */
    struct conn *conn; /* held; NULL if there is none */
    bool connecting;   /* a thread is at it */
    uint64_t attempts; /* that ended */
    CK_RV attempt;     /* how the last one ended */
    bool brought;      /* it brought a connection, which may be gone since */
    enum waiting waiting;
    unsigned timeout;  /* seconds */
    struct search search;
    struct place found; /* where the daemon was, lest another be taken for it; no path if it was not */
} module = {.mu = PTHREAD_MUTEX_INITIALIZER, .connected = PTHREAD_COND_INITIALIZER};

void module_lock(void)
{
    pthread_mutex_lock(&module.mu);
}

void module_unlock(void)
{
    pthread_mutex_unlock(&module.mu);
}

void module_wait_locked(pthread_cond_t *condition)
{
    int state;

    /* A thread that is cancelled as it waits would keep the lock for good. */
    pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &state);
    pthread_cond_wait(condition, &module.mu);
    pthread_setcancelstate(state, NULL);
}

bool module_initialized(void)
{
    bool initialized;

    module_lock();
    initialized = module.initialized;
    module_unlock();
    return initialized;
}

struct conn *module_conn_locked(void)
{
    return module.conn;
}

/* drop_locked forgets the connection and the sessions that it had. */
static void drop_locked(void)
{
    if (module.conn != NULL) {
        conn_end(module.conn);
        conn_release(module.conn);
        module.conn = NULL;
    }
    sessions_clear_locked();
}

void module_lost(struct conn *c)
{
    module_lock();
    if (module.conn == c)
        drop_locked();
    module_unlock();
}

/* Fork: the child starts as if C_Initialize had not been called. The locks are
   held over it, so that the child finds the state whole. */
static void before_fork(void)
{
    module_lock();
    conn_fork_prepare();
}

static void after_fork_parent(void)
{
    conn_fork_parent();
    module_unlock();
}

static void after_fork_child(void)
{
    conn_fork_child();
    module.conn = NULL;
    module.initialized = false;
    module.instance++;
    module.connecting = false;
    pthread_cond_init(&module.connected, NULL); /* its sleepers are not here */
    sessions_forked_locked();
    module_unlock();
}

/* Whoever unloads the module without C_Finalize leaves no descriptor behind. At
   the end of a process, other threads may still be in a call: what they use is
   freed by the last of them. */
__attribute__((destructor)) static void unload(void)
{
    module_lock();
    module.initialized = false;
    module.instance++;
    drop_locked();
    module_unlock();
}

static pthread_once_t watch_once = PTHREAD_ONCE_INIT;
static int watch_error; /* written once, by watch_once */

/* watch_fork: the C library forgets the handlers when the module is unloaded. */
static void watch_fork(void)
{
    watch_error = pthread_atfork(before_fork, after_fork_parent, after_fork_child);
}

/* find_timeout reads P11FS_TIMEOUT. */
static unsigned find_timeout(void)
{
    const char *text = secure_getenv("P11FS_TIMEOUT");
    unsigned long seconds;
    char *end;

    if (text == NULL)
        return DEFAULT_TIMEOUT;
    seconds = strtoul(text, &end, 10);
    if (end == text || *end != '\0')
        return DEFAULT_TIMEOUT;
    return seconds < MAX_TIMEOUT ? (unsigned)seconds : MAX_TIMEOUT;
}

static CK_RV check_args(const CK_C_INITIALIZE_ARGS *args)
{
    int callbacks;

    if (args == NULL)
        return CKR_OK;
    if (args->pReserved != NULL)
        return CKR_ARGUMENTS_BAD;
    callbacks = (args->CreateMutex != NULL) + (args->DestroyMutex != NULL) + (args->LockMutex != NULL) +
                (args->UnlockMutex != NULL);
    if (callbacks != 0 && callbacks != 4)
        return CKR_ARGUMENTS_BAD;
    /* PKCS#11 v3.1 §5.4.1: only the program's mutexes, when those of the system
       must not be used. */
    if (callbacks == 4 && (args->flags & CKF_OS_LOCKING_OK) == 0)
        return CKR_CANT_LOCK;
    return CKR_OK;
}

CK_RV module_initialize(const CK_C_INITIALIZE_ARGS *args)
{
    struct conn *c = NULL;
    CK_RV rv = check_args(args);

    if (rv != CKR_OK)
        return rv;
    pthread_once(&watch_once, watch_fork);
    if (watch_error != 0)
        return CKR_HOST_MEMORY;
    module_lock();
    if (module.initialized) {
        module_unlock();
        return CKR_CRYPTOKI_ALREADY_INITIALIZED;
    }
    module.initialized = true;
    module.instance++;
    module.waiting = WAIT_LATER;
    module.timeout = find_timeout();
    search_begin(&module.search);
    memset(&module.found, 0, sizeof module.found);
    module_unlock();
    rv = module_connect(&c);
    if (c != NULL)
        conn_release(c);
    module_lock();
    if (rv != CKR_OK) {
        module.initialized = false;
        module.instance++;
    }
    module.waiting = WAIT_NOW;
    module_unlock();
    return rv;
}

CK_RV module_finalize(void)
{
    struct conn *c;

    module_lock();
    if (!module.initialized) {
        module_unlock();
        return CKR_CRYPTOKI_NOT_INITIALIZED;
    }
    module.initialized = false;
    module.instance++;
    c = module.conn;
    module.conn = NULL;
    sessions_clear_locked();
    pthread_cond_broadcast(&module.connected);
    module_unlock();
    if (c != NULL) {
        /* The daemon's answer says that the sessions are gone; without one they
           are as well. */
        (void)call_simple(c, CALL_Finalize, NULL, 0);
        conn_end(c);
        conn_release(c);
    }
    return CKR_OK;
}

static uint64_t milliseconds(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

static void pause_for(uint64_t ms)
{
    struct timespec t = {.tv_sec = (time_t)(ms / 1000), .tv_nsec = (long)(ms % 1000) * 1000000};

    while (nanosleep(&t, &t) != 0 && errno == EINTR)
        ;
}

/* road_wanted reads P11FS_ROAD: "no" has all calls go by the socket. */
static bool road_wanted(void)
{
    const char *text = secure_getenv("P11FS_ROAD");

    return text == NULL || strcmp(text, "no") != 0;
}

/* The arguments of the daemon's C_Initialize: the handshake, no string. */
static const unsigned char handshake[] = "\1\0\0\0\51PRIVATE-GNOME-KEYRING-PKCS11-PROTOCOL-V-1"
                                         "\0"
                                         "\1\0\0\0\1";

/* greet makes an application of a fresh connection. again says that the daemon
   went away meanwhile. */
static CK_RV greet(struct conn *c, bool *again)
{
    unsigned char answer = 0;
    CK_RV rv;

    *again = true;
    if (!conn_greet(c, VERSION_BYTE, &answer))
        return CKR_DEVICE_ERROR;
    *again = false;
    if (answer != VERSION_BYTE)
        return CKR_DEVICE_ERROR;
    rv = call_simple(c, CALL_Initialize, handshake, sizeof handshake); /* the last byte is the string's NUL */
    if (rv == CKR_OK && road_wanted()) {
        rv = call_simple(c, CALL_Road, NULL, 0);
        if (rv == CKR_OK)
            (void)conn_road(c); /* without it all goes by the socket */
        else if (rv != CKR_DEVICE_REMOVED && rv != CKR_DEVICE_ERROR)
            rv = CKR_OK; /* an older daemon, or it has none to give */
    }
    *again = rv == CKR_DEVICE_REMOVED;
    if (rv == CKR_OK)
        conn_unlimit(c);
    return rv;
}

/* What one try needs to know, and learns. */
struct attempt {
    uint64_t instance;
    unsigned timeout;
    struct search search;
    struct place found;
    struct conn *conn;
    bool again; /* a daemon may be about to come back */
};

/* next_place gives the place of a number: there is one only once the daemon was
   found. */
static enum step next_place(const struct attempt *a, unsigned number, struct place *p)
{
    if (*a->found.path == '\0')
        return search_step(&a->search, number, p);
    *p = a->found;
    return number == 0 ? STEP_PLACE : STEP_END;
}

/* try_places tries each place once, those beyond one that refuses only if
   beyond. That no daemon is there is CKR_OK. */
static CK_RV try_places(struct attempt *a, bool beyond)
{
    struct place p;
    enum step step;

    a->again = false;
    for (unsigned i = 0; (step = next_place(a, i, &p)) != STEP_END; i++) {
        struct conn *c;
        bool again;
        CK_RV rv;

        if (step == STEP_NONE)
            continue;
        c = conn_open(&p, a->timeout > 0 ? a->timeout : 1);
        if (c == NULL) {
            /* Refused by a socket, or by a mount, whose daemon is gone. */
            bool gone = errno == ECONNREFUSED || errno == ENOTCONN;

            if (gone || errno == EAGAIN || (errno == ENOENT && *a->found.path != '\0'))
                a->again = true;
            if (errno == ENOMEM)
                return CKR_HOST_MEMORY;
            /* A user's daemon that is being restarted is still the one meant. */
            if (p.last || (gone && !beyond))
                return CKR_OK;
            continue;
        }
        rv = greet(c, &again);
        if (rv == CKR_OK) {
            a->conn = c;
            a->found = p;
            return CKR_OK;
        }
        conn_end(c);
        conn_release(c);
        if (!again)
            return rv;
        a->again = true;
        return CKR_OK;
    }
    return CKR_OK;
}

/* still says that the attempt is wanted, and may wait. */
static bool still(const struct attempt *a, enum waiting *waiting)
{
    bool same;

    module_lock();
    same = module.instance == a->instance;
    *waiting = module.waiting;
    module_unlock();
    return same;
}

static CK_RV attempt(struct attempt *a)
{
    uint64_t end = milliseconds() + (uint64_t)a->timeout * 1000, wait = FIRST_PAUSE;
    enum waiting waiting;

    for (;;) {
        CK_RV rv;
        bool over;

        if (!still(a, &waiting))
            return CKR_CRYPTOKI_NOT_INITIALIZED;
        over = waiting == WAIT_OVER || milliseconds() >= end;
        rv = try_places(a, over);
        if (rv != CKR_OK || a->conn != NULL || !a->again || waiting != WAIT_NOW)
            return rv;
        if (over) {
            module_lock();
            module.waiting = WAIT_OVER;
            module_unlock();
            return CKR_OK;
        }
        pause_for(wait);
        wait = wait * 2 < LAST_PAUSE ? wait * 2 : LAST_PAUSE;
    }
}

/* adopt_locked takes what an attempt brought. */
static CK_RV adopt_locked(const struct attempt *a, CK_RV rv)
{
    if (module.instance != a->instance) {
        if (a->conn != NULL) {
            conn_end(a->conn);
            conn_release(a->conn);
        }
        return CKR_CRYPTOKI_NOT_INITIALIZED;
    }
    if (a->conn != NULL) {
        sessions_clear_locked();
        module.conn = a->conn;
        module.waiting = WAIT_NOW;
        module.found = a->found;
    }
    return rv;
}

CK_RV module_connect(struct conn **out)
{
    CK_RV rv = CKR_OK;
    int tries = 0;

    *out = NULL;
    module_lock();
    for (;;) {
        struct attempt a;

        if (!module.initialized) {
            rv = CKR_CRYPTOKI_NOT_INITIALIZED;
            break;
        }
        if (module.conn != NULL && !conn_stands(module.conn))
            drop_locked();
        if (module.conn != NULL) {
            conn_hold(module.conn);
            *out = module.conn;
            rv = CKR_OK;
            break;
        }
        /* A daemon that went away behind its greeting is one that is restarted, and not
           one that is absent. */
        if (tries > 0 && (rv != CKR_OK || !module.brought))
            break;
        if (tries++ == TRIES) {
            rv = CKR_DEVICE_ERROR;
            break;
        }
        if (module.connecting) {
            /* How another thread's attempt ends is this one's answer too. */
            uint64_t seen = module.attempts, instance = module.instance;

            while (module.connecting && module.attempts == seen && module.instance == instance)
                pthread_cond_wait(&module.connected, &module.mu);
            rv = module.attempt;
            continue;
        }
        memset(&a, 0, sizeof a);
        a.instance = module.instance;
        a.timeout = module.timeout;
        a.search = module.search;
        a.found = module.found;
        module.connecting = true;
        module_unlock();
        rv = attempt(&a);
        module_lock();
        module.connecting = false;
        module.attempts++;
        module.attempt = rv = adopt_locked(&a, rv);
        module.brought = a.conn != NULL;
        pthread_cond_broadcast(&module.connected);
    }
    module_unlock();
    return rv;
}

#include "call.h"

#include <pthread.h>
#include <string.h>

#include "module.h"

#define CALL_SIGNATURE(name, number, request, reply) {(number), (request), (reply)},
static const struct signature {
    enum call_number number;
    const char *request, *reply;
} signatures[] = {CALLS(CALL_SIGNATURE)};
#undef CALL_SIGNATURE

static const struct signature *signature_of(enum call_number number)
{
    size_t i = 0;

    while (signatures[i].number != number)
        i++;
    return &signatures[i];
}

static const struct {
    enum call_number init, part, once;
} kind_calls[KINDS] = {
    [KIND_ENCRYPT] = {CALL_EncryptInit, CALL_Encrypt, CALL_EncryptOnce},
    [KIND_DECRYPT] = {CALL_DecryptInit, CALL_Decrypt, CALL_DecryptOnce},
    [KIND_DIGEST] = {CALL_DigestInit, CALL_Digest, CALL_DigestOnce},
    [KIND_SIGN] = {CALL_SignInit, CALL_Sign, CALL_SignOnce},
    [KIND_VERIFY] = {CALL_VerifyInit, CALL_Verify, CALL_VerifyOnce},
};

enum call_number init_number(enum kind k)
{
    return kind_calls[k].init;
}

void call_fail(struct call *c, CK_RV rv)
{
    if (c->rv == CKR_OK)
        c->rv = rv;
}

static void start(struct call *c)
{
    c->rv = CKR_OK;
    c->session = 0;
    c->slot = 0;
    c->conn = NULL;
    c->uses = c->ends = 0;
    c->closes = c->unrepeatable = c->changes = c->combined = c->absent = c->malformed = c->exchanged = false;
    c->at = 0;
    c->room = REPLY_HEAD;
    buffer_init(&c->out);
    buffer_init(&c->in);
}

/* header writes the frame's header, whose code and length come later, and the
   call's. */
static void header(struct call *c, enum call_number number)
{
    static const unsigned char frame[FRAME_HEADER];
    const char *signature = signature_of(number)->request;

    c->number = number;
    put_raw(c, frame, sizeof frame);
    put_u32(c, number);
    put_u32(c, strlen(signature));
    put_raw(c, signature, strlen(signature));
}

void call_begin(struct call *c, enum call_number number)
{
    start(c);
    if (!module_initialized())
        c->rv = CKR_CRYPTOKI_NOT_INITIALIZED;
    header(c, number);
}

/* open_locked finds the session and holds its connection. */
static struct session *open_locked(struct call *c, CK_SESSION_HANDLE handle)
{
    struct conn *conn = module_conn_locked();
    struct session *s;

    s = session_find_locked(handle);
    if (s == NULL || conn == NULL || conn_generation(conn) != s->generation || conn_ended(conn)) {
        c->rv = CKR_SESSION_HANDLE_INVALID;
        return NULL;
    }
    conn_hold(conn);
    c->conn = conn;
    c->session = handle;
    c->slot = s->slot;
    return s;
}

/* settled_locked waits until no Init of the session is on its way, and finds the
   session. */
static struct session *settled_locked(CK_SESSION_HANDLE handle)
{
    struct session *s;

    while ((s = session_find_locked(handle)) != NULL && s->sending)
        module_wait_locked(sessions_settled());
    return s;
}

static void begin(struct call *c, enum call_number number, enum kind k, CK_SESSION_HANDLE handle, bool bad)
{
    struct session *s;

    start(c);
    if (!module_initialized()) {
        c->rv = CKR_CRYPTOKI_NOT_INITIALIZED;
        return;
    }
    module_lock();
    if (k != KIND_NONE)
        (void)settled_locked(handle);
    s = open_locked(c, handle);
    if (bad)
        call_fail(c, CKR_ARGUMENTS_BAD);
    if (c->rv == CKR_OK) {
        c->combined = k != KIND_NONE && s->pending == k;
        if (k != KIND_NONE)
            number = c->combined ? kind_calls[k].once : kind_calls[k].part;
        header(c, number);
        put_ulong(c, s->remote);
        if (c->combined) {
            put_raw(c, s->granted[k].init.data, s->granted[k].init.len);
            c->combined = c->rv == CKR_OK;
            if (c->combined)
                (void)session_take_locked(s);
        }
    }
    module_unlock();
}

void call_begin_session(struct call *c, enum call_number number, CK_SESSION_HANDLE session)
{
    begin(c, number, KIND_NONE, session, false);
}

void call_begin_once(struct call *c, enum kind k, CK_SESSION_HANDLE session, bool bad)
{
    begin(c, CALL_Sign, k, session, bad);
    c->uses = kind_flag(k);
}

/* reply_header checks what came, and takes the CK_RV out of an error. */
static void reply_header(struct call *c)
{
    const char *want = signature_of(c->number)->reply;
    uint32_t number = get_u32(c), n = get_u32(c);
    const unsigned char *signature = get_raw(c, n);

    if (c->rv != CKR_OK)
        return;
    if (number == 0 && n == 1 && signature[0] == 'u') {
        CK_RV rv = get_ulong(c);

        if (c->rv == CKR_OK && (rv == CKR_OK || c->at != c->in.len))
            get_malformed(c);
        call_fail(c, rv);
        return;
    }
    if (number != (uint32_t)c->number || n != strlen(want) || memcmp(signature, want, n) != 0)
        get_malformed(c);
}

/* stays_on_socket: what carries a PIN, or waits for good, has no business in shared memory. */
static bool stays_on_socket(enum call_number number)
{
    switch (number) {
    case CALL_Initialize:
    case CALL_Finalize:
    case CALL_Road:
    case CALL_InitToken:
    case CALL_InitToken2:
    case CALL_InitPIN:
    case CALL_SetPIN:
    case CALL_Login:
    case CALL_LoginUser:
    case CALL_WaitForSlotEvent:
        return true;
    default:
        return false;
    }
}

/* transmit sends the request on c->conn and takes the reply's header apart.
   False means that the connection was lost. */
static bool transmit(struct call *c)
{
    size_t body = buffer_size(&c->out) - FRAME_HEADER;

    if (body > MAX_BODY) {
        c->rv = CKR_DATA_LEN_RANGE;
        return true;
    }
    store32(c->out.data + 8, (uint32_t)body);
    switch (conn_exchange(c->conn, &c->out, &c->in, stays_on_socket(c->number) ? SIZE_MAX : c->room)) {
    case OUTCOME_OK:
        c->exchanged = true;
        reply_header(c);
        return true;
    case OUTCOME_MALFORMED:
        module_lost(c->conn);
        c->rv = CKR_DEVICE_ERROR;
        return true;
    case OUTCOME_LOST:
        break;
    }
    module_lost(c->conn);
    return false;
}

CK_RV call_simple(struct conn *conn, enum call_number number, const void *values, size_t n)
{
    struct call c;

    start(&c);
    header(&c, number);
    put_raw(&c, values, n);
    conn_hold(conn);
    c.conn = conn;
    if (c.rv == CKR_OK && !transmit(&c))
        c.rv = CKR_DEVICE_REMOVED;
    return call_end(&c);
}

/* send_pending sends the Init that was put off in a session, if there is one,
   before a call that is of these operations, or ends those. Its error is the
   call's. */
static CK_RV send_pending(CK_SESSION_HANDLE handle, CK_FLAGS uses, CK_FLAGS ends)
{
    struct call c;
    struct session *s;
    enum kind k = KIND_NONE;
    CK_RV rv;

    start(&c);
    module_lock();
    s = settled_locked(handle);
    if (s != NULL && s->pending != KIND_NONE && open_locked(&c, handle) != NULL) {
        k = s->pending;
        header(&c, init_number(k));
        put_ulong(&c, s->remote);
        put_raw(&c, s->granted[k].init.data, s->granted[k].init.len);
        if (c.rv == CKR_OK)
            (void)session_take_locked(s);
        else
            k = KIND_NONE;
    }
    module_unlock();
    if (k == KIND_NONE) {
        rv = c.conn != NULL ? c.rv : CKR_OK;
        (void)call_end(&c);
        return rv;
    }
    if (!transmit(&c))
        c.rv = CKR_SESSION_HANDLE_INVALID;
    rv = call_end(&c);
    module_lock();
    session_sent_locked(handle);
    s = session_find_locked(handle);
    if (s != NULL) {
        if (rv == CKR_OK || ((uses | ends) & kind_flag(k)) != 0)
            s->active |= kind_flag(k);
        else
            session_postpone_locked(s, k);
    }
    module_unlock();
    return (uses & kind_flag(k)) != 0 ? rv : CKR_OK;
}

/* send_others sends what was put off in other sessions of a slot, and waits for
   what is on its way, before a call that may change how it is answered. */
static void send_others(CK_SLOT_ID slot, CK_SESSION_HANDLE own)
{
    CK_SESSION_HANDLE next = 0;

    for (;;) {
        module_lock();
        next = sessions_next_unsettled_locked(slot, next, own);
        module_unlock();
        if (next == 0)
            return;
        (void)send_pending(next, 0, 0);
    }
}

/* go_before has the session's Init that was put off go before the call. False
   means that the call fails with it. */
static bool go_before(struct call *c)
{
    struct session *s;

    if (c->combined)
        return true;
    if (c->closes) {
        module_lock();
        s = session_find_locked(c->session);
        if (s != NULL)
            s->pending = KIND_NONE;
        module_unlock();
        return true;
    }
    call_fail(c, send_pending(c->session, c->uses, c->ends));
    return c->rv == CKR_OK;
}

/* exchange_session sends a call of a session, which is gone with its
   connection. */
static void exchange_session(struct call *c)
{
    if (!go_before(c))
        return;
    if (!transmit(c))
        c->rv = module_initialized() ? CKR_SESSION_HANDLE_INVALID : CKR_CRYPTOKI_NOT_INITIALIZED;
}

/* exchange_slot sends a call that names no session, again if the daemon was
   restarted meanwhile. */
static void exchange_slot(struct call *c)
{
    for (int i = 0; i < TRIES; i++) {
        c->rv = module_connect(&c->conn);
        if (c->rv != CKR_OK)
            return;
        if (c->conn == NULL) {
            c->absent = true;
            c->rv = CKR_SLOT_ID_INVALID;
            return;
        }
        if (transmit(c))
            return;
        conn_release(c->conn);
        c->conn = NULL;
        if (!module_initialized()) {
            c->rv = CKR_CRYPTOKI_NOT_INITIALIZED;
            return;
        }
        if (c->unrepeatable)
            break;
    }
    c->rv = CKR_DEVICE_ERROR;
}

void call_exchange(struct call *c)
{
    int state;

    if (c->rv != CKR_OK)
        return;
    /* A thread that is cancelled while it reads would leave the others without
       a reader. */
    pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &state);
    if (c->changes) {
        module_lock();
        sessions_change_locked();
        module_unlock();
        send_others(c->slot, c->session);
    }
    if (c->session != 0)
        exchange_session(c);
    else
        exchange_slot(c);
    if (c->changes) {
        module_lock();
        sessions_changed_locked();
        module_unlock();
    }
    pthread_setcancelstate(state, NULL);
}

void call_settle(struct call *c, enum kind k, bool ended)
{
    struct session *s;

    if (c->session == 0 || !c->exchanged)
        return;
    module_lock();
    s = session_find_locked(c->session);
    if (s != NULL) {
        if (ended && c->rv == CKR_OK)
            s->active &= ~kind_flag(k);
        else
            s->active |= kind_flag(k);
        /* It may have been the Init that failed: the next one goes by itself. */
        if (c->combined && c->rv != CKR_OK && c->rv != CKR_BUFFER_TOO_SMALL && s->pending != k)
            s->granted[k].init.len = 0;
    }
    module_unlock();
}

CK_RV call_end(struct call *c)
{
    if (c->exchanged && c->rv == CKR_OK && c->at != c->in.len)
        get_malformed(c);
    if (c->malformed) {
        conn_end(c->conn);
        module_lost(c->conn);
    }
    if (c->combined) {
        module_lock();
        session_sent_locked(c->session);
        module_unlock();
    }
    buffer_free(&c->out);
    buffer_free(&c->in);
    if (c->conn != NULL)
        conn_release(c->conn);
    return c->rv;
}

/* Calls, and the connections that carry them. A call has a connection to itself; those
   that are free wait for the next one. A child of fork leaves its parent's alone.

   The return value of the card is in call.session, which these calls have not: call.rv
   stays CKR_OK while the answer is taken apart, as the code of values wants it. */
#include "card.h"

#include <errno.h>
#include <pthread.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "socket.h"

enum {
    GREETING = 4 + 16, /* bytes */
    ANSWER = 4 + 8,    /* of an answer that has nothing but its return value */
    IDLE = 16,         /* connections that are kept */
    PATIENCE = 30,     /* seconds for the greeting, and to send */
};

static struct {
    pthread_mutex_t mu; /* guards all below */
    struct sock idle[IDLE];
    size_t count;
    pid_t owner; /* of the connections */
} pool = {.mu = PTHREAD_MUTEX_INITIALIZER};

static pthread_once_t once = PTHREAD_ONCE_INIT;

static void fork_prepare(void)
{
    pthread_mutex_lock(&pool.mu);
}

static void fork_done(void)
{
    pthread_mutex_unlock(&pool.mu);
}

static void prepare(void)
{
    (void)pthread_atfork(fork_prepare, fork_done, fork_done); /* without memory: as before it */
}

/* socket_path finds the socket: where the environment says, unless the program has more
   rights than its user; the user's own; or the machine's. */
static bool socket_path(char *path, size_t n)
{
    const char *named = secure_getenv("P11FS_CARD"), *run = secure_getenv("XDG_RUNTIME_DIR");
    int length;

    if (named != NULL && named[0] != '\0') {
        length = snprintf(path, n, "%s", named);
        return length > 0 && (size_t)length < n;
    }
    if (run != NULL && run[0] == '/' && geteuid() != 0) {
        length = snprintf(path, n, "%s/p11fs/%s", run, card_socket_name);
        if (length > 0 && (size_t)length < n && access(path, F_OK) == 0)
            return true;
    }
    length = snprintf(path, n, "/run/p11fs/%s", card_socket_name);
    return length > 0 && (size_t)length < n;
}

static bool receive_all(const struct sock *s, unsigned char *p, size_t n)
{
    while (n != 0) {
        ssize_t got = socket_receive(s, p, n, 0);

        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return false;
        p += got;
        n -= (size_t)got;
    }
    return true;
}

static bool greet(const struct sock *s)
{
    const uint16_t one = 1;
    unsigned char hello[GREETING] = {0, 0, 0, GREETING - 4, 'p', '1', '1', 'f', 's', 'c', 'r', 'd', 0, 2, 0, 0}, answer[ANSWER];

    hello[14] = card_abi;
    memcpy(&hello[15], &one, 1); /* 1 where the lowest byte is first */
    store32(hello + 16, (uint32_t)getpid());
    return socket_send(s, hello, sizeof hello) && receive_all(s, answer, sizeof answer) && load32(answer) == ANSWER - 4 &&
           load64(answer + 4) == CKR_OK;
}

/* fresh_connection connects. */
static bool fresh_connection(struct sock *s)
{
    char path[sizeof(((struct sockaddr_un *)0)->sun_path)];

    if (!socket_path(path, sizeof path))
        return false;
    socket_open(s);
    if (s->fd < 0)
        return false;
    socket_limit(s, PATIENCE, PATIENCE);
    if (socket_connect(s, path, clock_now() + (int64_t)PATIENCE * 1000000000) && greet(s)) {
        socket_limit(s, PATIENCE, 0); /* making a key takes as long as it takes */
        return true;
    }
    socket_close(s);
    return false;
}

/* idle_connection takes one that is free. */
static bool idle_connection(struct sock *s)
{
    bool found = false;

    pthread_once(&once, prepare);
    pthread_mutex_lock(&pool.mu);
    if (pool.owner != getpid()) {
        while (pool.count != 0)
            socket_close(&pool.idle[--pool.count]); /* the parent has its own descriptor */
        pool.owner = getpid();
    }
    if (pool.count != 0) {
        *s = pool.idle[--pool.count];
        found = true;
    }
    pthread_mutex_unlock(&pool.mu);
    return found;
}

static void give_back(struct sock *s)
{
    pthread_mutex_lock(&pool.mu);
    if (pool.count == 0)
        pool.owner = getpid();
    if (pool.count < IDLE && pool.owner == getpid()) {
        pool.idle[pool.count++] = *s;
        s->fd = -1;
    }
    pthread_mutex_unlock(&pool.mu);
    socket_close(s);
}

bool card_reachable(void)
{
    struct sock s;

    if (!fresh_connection(&s))
        return false;
    give_back(&s);
    return true;
}

void call_fail(struct call *c, CK_RV rv)
{
    if (c->rv == CKR_OK)
        c->rv = rv;
}

void card_begin(struct call *c, uint32_t function)
{
    memset(c, 0, offsetof(struct call, out));
    c->at = 0;
    buffer_init(&c->out);
    buffer_init(&c->in);
    put_u32(c, 0); /* the length */
    put_u32(c, function);
}

/* answer receives the answer. Memory grows with what arrives. */
static bool answer(struct call *c, const struct sock *s)
{
    unsigned char head[4];
    uint32_t left;

    if (!receive_all(s, head, sizeof head))
        return false;
    left = load32(head);
    if (left < 8 || left > MAX_FRAME)
        return false;
    while (left != 0) {
        size_t n = left < (256u << 10) ? left : 256u << 10;

        if (!buffer_reserve(&c->in, n))
            return false;
        c->in.len += n; /* before it is there, so that a part of it is wiped as well */
        if (!receive_all(s, c->in.data + c->in.len - n, n))
            return false;
        left -= (uint32_t)n;
    }
    return true;
}

void card_exchange(struct call *c)
{
    struct sock s;

    if (c->rv == CKR_OK && c->out.len - 4 > MAX_FRAME)
        c->rv = CKR_DATA_LEN_RANGE;
    if (c->rv != CKR_OK)
        return;
    store32(c->out.data, (uint32_t)(c->out.len - 4));
    for (bool idle = true, sent = false; !sent;) {
        idle = idle && idle_connection(&s);
        if (!idle && !fresh_connection(&s)) {
            c->rv = card_gone;
            return;
        }
        buffer_free(&c->in);
        sent = socket_send(&s, c->out.data, c->out.len) && answer(c, &s);
        if (sent) {
            give_back(&s);
            break;
        }
        socket_close(&s);
        /* The server may have gone and come since the connection was made. To ask twice
           is safe: what a card keeps of a call is the same after the second. */
        if (!idle) {
            c->rv = card_gone;
            return;
        }
    }
    c->session = get_ulong(c);
}

/* outputs says whether there are outputs to be taken apart. */
static bool outputs(const struct call *c)
{
    return c->rv == CKR_OK && (c->session == CKR_OK || c->at != c->in.len);
}

/* tells says whether lengths are to be stored. */
static bool tells(const struct call *c)
{
    return c->rv == CKR_OK && (c->session == CKR_OK || c->session == card_small);
}

CK_RV card_end(struct call *c)
{
    CK_RV rv = c->rv;

    if (rv == CKR_OK && c->at != c->in.len)
        rv = card_gone; /* it was no answer to this */
    if (rv == CKR_OK)
        rv = c->session;
    if (c->malformed)
        rv = card_gone;
    buffer_free(&c->out);
    buffer_free(&c->in);
    return rv;
}

void put_in(struct call *c, const void *data, size_t n)
{
    put_bytes(c, data, n);
}

void put_output(struct call *c, const void *out, const size_t *len)
{
    put_ulong(c, len != NULL ? *len : 0);
    put_byte(c, out != NULL && len != NULL);
}

/* check_length refuses a card that says that it has stored more than there is room for:
   programs would read on behind their buffer. */
static void check_length(struct call *c, const void *out, size_t need, size_t room)
{
    if (c->rv == CKR_OK && c->session == CKR_OK && out != NULL && need > room)
        get_malformed(c);
}

void get_output(struct call *c, void *out, size_t *len)
{
    size_t need, room = len != NULL ? *len : 0;
    const unsigned char *data;
    uint32_t n;

    if (!outputs(c))
        return;
    need = get_ulong(c);
    data = get_bytes(c, &n);
    if (c->rv == CKR_OK && n != 0 && (out == NULL || n > room || n != need))
        get_malformed(c);
    check_length(c, out, need, room);
    if (!tells(c))
        return;
    if (n != 0)
        memcpy(out, data, n);
    if (len != NULL)
        *len = need;
}

void put_fill(struct call *c, const void *out, size_t len)
{
    put_ulong(c, len);
    put_byte(c, out != NULL);
}

void get_fill(struct call *c, void *out, size_t len)
{
    size_t n = len;

    get_output(c, out, &n);
    if (tells(c) && n != len)
        get_malformed(c);
}

void put_state(struct call *c, const void *state, size_t n)
{
    put_in(c, state, n);
    put_ulong(c, n);
}

void get_state(struct call *c, void *state, size_t n)
{
    size_t len = n;

    get_output(c, state, &len);
    if (c->session == CKR_OK && tells(c) && len != n)
        get_malformed(c);
}

void put_numbers(struct call *c, const CK_ULONG *list, const CK_ULONG *count)
{
    put_ulong(c, count != NULL ? *count : 0);
    put_byte(c, list != NULL && count != NULL);
}

void get_numbers(struct call *c, CK_ULONG *list, CK_ULONG *count)
{
    CK_ULONG need, room = count != NULL ? *count : 0;
    uint32_t n;

    if (!outputs(c))
        return;
    need = get_ulong(c);
    n = get_u32(c);
    if (c->rv == CKR_OK && n != 0 && (list == NULL || n > room))
        get_malformed(c);
    check_length(c, list, need, room);
    for (uint32_t i = 0; i < n && c->rv == CKR_OK; i++)
        list[i] = get_ulong(c);
    if (tells(c) && count != NULL)
        *count = need;
}

enum { INFO = 3 }; /* numbers of a CK_MECHANISM_INFO */

void put_info(struct call *c, const CK_MECHANISM_INFO *info)
{
    const CK_ULONG n = INFO;

    if (info == NULL)
        call_fail(c, CKR_ARGUMENTS_BAD);
    put_numbers(c, &n, &n);
}

void get_info(struct call *c, CK_MECHANISM_INFO *info)
{
    CK_ULONG list[INFO], n = INFO;

    get_numbers(c, list, &n);
    if (c->session == CKR_OK && tells(c) && n == INFO)
        *info = (CK_MECHANISM_INFO){list[0], list[1], list[2]};
}

enum form { FORM_BYTE, FORM_ULONG, FORM_NATIVE, FORM_DATE, FORM_MECHANISMS, FORM_TEMPLATE };

static const struct fact {
    CK_ATTRIBUTE_TYPE type;
    enum form form;
} facts[] = {
#include "attributes_gen.h"
};

/* number says whether the values of an attribute are one CK_ULONG. */
static bool number(CK_ATTRIBUTE_TYPE type)
{
    for (size_t i = 0; i < sizeof facts / sizeof facts[0]; i++)
        if (facts[i].type == type)
            return facts[i].form == FORM_ULONG || facts[i].form == FORM_NATIVE;
    return false;
}

enum { ARRAY = 0x40000000, MAX_ATTRIBUTES = 512 };

/* array says whether there are pointers in the values of an attribute. No card has such. */
static bool array(CK_ATTRIBUTE_TYPE type)
{
    return (type & ARRAY) != 0;
}

static void put_number_or_bytes(struct call *c, const CK_ATTRIBUTE *a)
{
    CK_ULONG v;

    if (a->ulValueLen == CK_UNAVAILABLE_INFORMATION || (a->pValue == NULL && a->ulValueLen != 0)) {
        call_fail(c, CKR_ATTRIBUTE_VALUE_INVALID);
        return;
    }
    if (!number(a->type) || a->ulValueLen != sizeof v) {
        put_bytes(c, a->ulValueLen != 0 ? a->pValue : "", a->ulValueLen);
        return;
    }
    memcpy(&v, a->pValue, sizeof v); /* which need not be aligned */
    put_u32(c, 8);
    put_ulong(c, v);
}

static bool bad_list(struct call *c, const CK_ATTRIBUTE *list, CK_ULONG count)
{
    if ((list == NULL && count != 0) || count > MAX_ATTRIBUTES)
        call_fail(c, CKR_ARGUMENTS_BAD);
    return c->rv != CKR_OK;
}

void put_attributes(struct call *c, const CK_ATTRIBUTE *list, CK_ULONG count)
{
    CK_ULONG n = 0;

    if (bad_list(c, list, count))
        return;
    for (CK_ULONG i = 0; i < count; i++)
        n += !array(list[i].type);
    put_u32(c, n);
    for (CK_ULONG i = 0; i < count && c->rv == CKR_OK; i++) {
        if (array(list[i].type))
            continue;
        put_ulong(c, list[i].type);
        put_number_or_bytes(c, &list[i]);
    }
}

void put_values(struct call *c, const CK_ATTRIBUTE *list, CK_ULONG count)
{
    if (bad_list(c, list, count))
        return;
    put_u32(c, count);
    for (CK_ULONG i = 0; i < count && c->rv == CKR_OK; i++) {
        put_ulong(c, list[i].type);
        put_ulong(c, list[i].pValue != NULL ? list[i].ulValueLen : 0);
        put_byte(c, list[i].pValue != NULL);
    }
}

void get_values(struct call *c, CK_ATTRIBUTE *list, CK_ULONG count)
{
    for (CK_ULONG i = 0; i < count && outputs(c); i++) {
        CK_ULONG need = get_ulong(c), v;
        const unsigned char *data;
        uint32_t n;

        data = get_bytes(c, &n);
        if (c->rv == CKR_OK && n != 0 && (list[i].pValue == NULL || n > list[i].ulValueLen || n != need))
            get_malformed(c);
        if (need != CK_UNAVAILABLE_INFORMATION)
            check_length(c, list[i].pValue, need, list[i].ulValueLen);
        if (!tells(c))
            continue;
        if (n == sizeof v && number(list[i].type)) {
            v = (CK_ULONG)load64(data);
            memcpy(list[i].pValue, &v, sizeof v);
        } else if (n != 0) {
            memcpy(list[i].pValue, data, n);
        }
        list[i].ulValueLen = need;
    }
}

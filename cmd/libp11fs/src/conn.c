/* One socket carries the calls of all threads. A thread sends its request and
   becomes the reader if there is none; the reader hands over what is for
   others, and when its own reply has come, lets one of them read on. So a thread
   that is alone pays two system calls and no switch. What fits goes by the road, if
   there is one: the thread looks there for its reply a moment, and after that has it
   come by the socket.

   Order of locks: conn.send and conn.mu are never held together; open_conns.mu
   is taken under no other lock of this file. */
#include "conn.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "road.h"
#include "road_gen.h"
#include "socket.h"

/* How long, in nanoseconds, a reader looks for a reply before it sleeps. Waking
   up costs 5 to 30 us at each end, more than most calls. It looks if the last
   reply came within BRISK_TIME, in which both ends may have woken up. */
enum { POLL_TIME = 100000, BRISK_TIME = 200000 };

/* Likewise on the road, by call: for AT_ONCE_FOR before the thread yields for the first time,
   and for LOOK_FOR in all. That is time of its own: of a yield, OWN_TIME at most, since while
   others have the processor the daemon may be among them. Where more threads wait than there
   are processors, all of it counts: they would take the processors from who works for them.
   If a thread had to sleep, it looks the next time if the reply came within SOON, in which
   both ends may have woken up. */
enum { LOOK_FOR = 200000, OWN_TIME = 2000, AT_ONCE_FOR = 5000, SOON = 250000, CALL_KINDS = 64 };

/* How soon the replies to a kind of call have come, the last time. */
enum pace { PACE_UNKNOWN, PACE_AT_ONCE, PACE_SOON, PACE_SLOW };

/* A yield that takes YIELD_TIME or more says that others want the processor, or
   that the process may have no more of it. Then nobody polls for a rest of
   MIN_REST, twice as long each time that it soon happens again, up to MAX_REST. */
enum { YIELD_TIME = 500000, MIN_REST = 1000000, MAX_REST = 128000000 };

/* How many seconds a reader sleeps before it looks whether its socket is still
   there: who closed it cannot wake it. */
enum { LOOK_TIME = 1 };

/* A thread's call. It lies on the thread's stack, and in conn.waiters. */
struct waiter {
    struct waiter *next;
    uint32_t code;
    bool sleeping, done;
    pthread_cond_t wake;
    struct buffer *reply;
};

struct conn {
    uint64_t generation;
    atomic_uint refs;
    struct sock socket;       /* guarded by open_conns.mu until opened */
    struct conn *prev, *next; /* guarded by open_conns.mu */
    int processors;           /* which this process may use */
    int64_t deadline;         /* of connecting and greeting; 0 later */
    int passed;               /* a descriptor that came while greeting, or -1 */
    struct road road;
    atomic_uchar pace[CALL_KINDS]; /* enum pace */
    atomic_uint replies;          /* by the road: that some came tells who had the processor */
    atomic_llong rest;            /* how long the last rest from polling is */
    atomic_llong rests;           /* when it ends */
    atomic_bool ended;            /* written under mu */

    pthread_mutex_t send; /* orders requests */

    pthread_mutex_t mu; /* guards all below */
    struct waiter *waiters;
    uint32_t code; /* last used */
    bool reading;  /* a thread is the reader, and owns all below the flags */
    bool malformed;

    bool brisk;        /* the last reply came soon enough for polling */
    size_t start, end; /* of what in holds */
    unsigned char in[8192];
};

/* All connections, so that a child can close them. */
static struct {
    pthread_mutex_t mu; /* guards all below */
    struct conn *first;
    uint64_t generation;
} open_conns = {.mu = PTHREAD_MUTEX_INITIALIZER};

static void unlink_locked(struct conn *c)
{
    if (c->prev != NULL)
        c->prev->next = c->next;
    else
        open_conns.first = c->next;
    if (c->next != NULL)
        c->next->prev = c->prev;
}

static void discard(struct conn *c)
{
    socket_close(&c->socket);
    if (c->passed >= 0)
        close(c->passed);
    explicit_bzero(c->in, sizeof c->in);
    free(c);
}

static int processors(void)
{
    cpu_set_t set;

    /* A machine that the set is too small for has more than one. */
    return sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 2;
}

struct conn *conn_open(const struct place *p, unsigned seconds)
{
    struct conn *c = calloc(1, sizeof *c);
    int saved;

    if (c == NULL)
        return NULL;
    atomic_init(&c->refs, 1);
    pthread_mutex_init(&c->send, NULL);
    pthread_mutex_init(&c->mu, NULL);
    c->code = 15; /* codes begin at 16 */
    c->passed = -1;
    c->processors = processors();
    /* Made and noted under one lock, which fork takes too: no child can hold a
       descriptor that it does not know of. */
    pthread_mutex_lock(&open_conns.mu);
    socket_open(&c->socket);
    saved = errno;
    c->generation = ++open_conns.generation;
    c->next = open_conns.first;
    if (c->next != NULL)
        c->next->prev = c;
    open_conns.first = c;
    pthread_mutex_unlock(&open_conns.mu);
    if (c->socket.fd >= 0) {
        socket_limit(&c->socket, seconds, seconds);
        c->deadline = clock_now() + (int64_t)seconds * 1000000000;
        if (socket_connect(&c->socket, p->path, c->deadline) && (!p->own || socket_own(&c->socket)))
            return c;
        saved = errno;
    }
    conn_release(c);
    errno = saved;
    return NULL;
}

void conn_unlimit(struct conn *c)
{
    socket_limit(&c->socket, 0, LOOK_TIME);
    c->deadline = 0;
}

void conn_hold(struct conn *c)
{
    atomic_fetch_add(&c->refs, 1);
}

void conn_release(struct conn *c)
{
    int state;

    if (atomic_fetch_sub(&c->refs, 1) != 1)
        return;
    /* A thread that is cancelled as it closes would keep the lock for good. */
    pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &state);
    pthread_mutex_lock(&open_conns.mu);
    unlink_locked(c);
    socket_close(&c->socket);
    pthread_mutex_unlock(&open_conns.mu);
    pthread_setcancelstate(state, NULL);
    pthread_mutex_destroy(&c->send);
    pthread_mutex_destroy(&c->mu);
    road_unmap(&c->road);
    discard(c);
}

uint64_t conn_generation(const struct conn *c)
{
    return c->generation;
}

static void end_locked(struct conn *c)
{
    if (c->ended)
        return;
    c->ended = true;
    socket_shutdown(&c->socket); /* wakes the reader */
    for (struct waiter *w = c->waiters; w != NULL; w = w->next)
        pthread_cond_signal(&w->wake);
}

void conn_end(struct conn *c)
{
    pthread_mutex_lock(&c->mu);
    end_locked(c);
    pthread_mutex_unlock(&c->mu);
}

bool conn_ended(struct conn *c)
{
    return atomic_load(&c->ended);
}

bool conn_stands(struct conn *c)
{
    return !conn_ended(c) && socket_ours(&c->socket);
}

/* yield lets others on this processor run. It returns how long they did, since *t, and moves
   that on. */
static int64_t yield(int64_t *t)
{
    int64_t before = *t;

    sched_yield();
    *t = clock_now();
    return *t - before;
}

/* begin_rest has nobody poll for a while. */
static void begin_rest(struct conn *c, int64_t t)
{
    long long rest = atomic_load(&c->rest);

    if (t - atomic_load(&c->rests) > 16 * rest)
        rest = MIN_REST;
    else if (rest < MAX_REST)
        rest *= 2;
    atomic_store(&c->rest, rest);
    atomic_store(&c->rests, t + rest);
}

/* receive_greeting takes a descriptor that comes along, and notes it under the lock that
   fork takes, too. It waits without the lock. */
static ssize_t receive_greeting(struct conn *c, unsigned char *p, size_t n)
{
    ssize_t got = socket_receive(&c->socket, p, 1, MSG_PEEK);

    if (got <= 0)
        return got;
    pthread_mutex_lock(&open_conns.mu);
    got = socket_receive_with(&c->socket, p, n, MSG_DONTWAIT, &c->passed);
    pthread_mutex_unlock(&open_conns.mu);
    return got;
}

/* receive returns how many bytes came, or 0 when no more will. */
static size_t receive(struct conn *c, unsigned char *p, size_t n)
{
    int64_t began = clock_now(), t = began;
    bool polls = c->deadline == 0 && c->processors > 1 && c->brisk && began >= atomic_load(&c->rests);
    int flags = polls ? MSG_DONTWAIT : 0;

    for (;;) {
        ssize_t got = c->deadline != 0 ? receive_greeting(c, p, n) : socket_receive(&c->socket, p, n, flags);

        if (got > 0) {
            c->brisk = clock_now() - began < (polls ? POLL_TIME : BRISK_TIME);
            return (size_t)got;
        }
        if (got == 0 || (errno != EINTR && errno != EAGAIN))
            return 0;
        if (flags != 0 && yield(&t) >= YIELD_TIME) {
            begin_rest(c, t);
            flags = 0;
        }
        if (t - began >= POLL_TIME)
            flags = 0;
        if (c->deadline != 0 && clock_now() >= c->deadline)
            return 0;
    }
}

bool conn_greet(struct conn *c, unsigned char offer, unsigned char *answer)
{
    return socket_send(&c->socket, &offer, 1) && receive(c, answer, 1) == 1;
}

/* take moves n received bytes to p, or drops them if p is NULL. */
static bool take(struct conn *c, unsigned char *p, size_t n)
{
    while (n != 0) {
        size_t have = c->end - c->start;

        if (have == 0) {
            c->start = c->end = 0;
            if (p != NULL && n >= sizeof c->in) {
                size_t got = receive(c, p, n);

                if (got == 0)
                    return false;
                p += got;
                n -= got;
                continue;
            }
            c->end = have = receive(c, c->in, sizeof c->in);
            if (have == 0)
                return false;
        }
        if (have > n)
            have = n;
        if (p != NULL) {
            memcpy(p, c->in + c->start, have);
            p += have;
        }
        explicit_bzero(c->in + c->start, have);
        c->start += have;
        n -= have;
    }
    return true;
}

/* read_frame reads one frame. Memory grows with what arrives, not with what a
   header announces. */
static enum outcome read_frame(struct conn *c, uint32_t *code, struct buffer *body)
{
    unsigned char header[FRAME_HEADER];
    uint32_t options, left;

    if (!take(c, header, sizeof header))
        return OUTCOME_LOST;
    *code = load32(header);
    options = load32(header + 4);
    left = load32(header + 8);
    if (options > MAX_OPTIONS || left > MAX_REPLY)
        return OUTCOME_MALFORMED;
    if (!take(c, NULL, options))
        return OUTCOME_LOST;
    while (left != 0) {
        size_t n = left < (256u << 10) ? left : 256u << 10;

        if (!buffer_reserve(body, n))
            return OUTCOME_LOST;
        body->len += n; /* before it is there, so that a part of it is wiped as well */
        if (!take(c, body->data + body->len - n, n))
            return OUTCOME_LOST;
        left -= (uint32_t)n;
    }
    return OUTCOME_OK;
}

static struct waiter *find_locked(struct conn *c, uint32_t code)
{
    struct waiter *w = c->waiters;

    while (w != NULL && w->code != code)
        w = w->next;
    return w;
}

/* deliver_locked gives a frame to the thread that waits for it. */
static bool deliver_locked(struct conn *c, uint32_t code, struct buffer *frame)
{
    struct waiter *w = find_locked(c, code);

    if (w == NULL || w->done)
        return false;
    buffer_move(w->reply, frame);
    w->done = true;
    pthread_cond_signal(&w->wake);
    return true;
}

/* read_locked reads one frame, with mu free meanwhile. */
static void read_locked(struct conn *c)
{
    struct buffer frame;
    enum outcome got;
    uint32_t code = 0;

    buffer_init(&frame);
    c->reading = true;
    pthread_mutex_unlock(&c->mu);
    got = read_frame(c, &code, &frame);
    pthread_mutex_lock(&c->mu);
    c->reading = false;
    if (got == OUTCOME_OK && !deliver_locked(c, code, &frame))
        got = OUTCOME_MALFORMED;
    if (got != OUTCOME_OK && !c->ended) {
        c->malformed = got == OUTCOME_MALFORMED;
        end_locked(c);
    }
    buffer_free(&frame);
}

/* leave_locked takes w out, and wakes one that reads on. */
static void leave_locked(struct conn *c, struct waiter *w)
{
    struct waiter **at = &c->waiters, *next;

    while (*at != w)
        at = &(*at)->next;
    *at = w->next;
    if (c->reading)
        return;
    for (next = c->waiters; next != NULL; next = next->next) {
        if (next->sleeping && !next->done) {
            pthread_cond_signal(&next->wake);
            return;
        }
    }
}

/* send_out sends a frame whole. */
static bool send_out(struct conn *c, const struct buffer *frame)
{
    const unsigned char *piece;
    size_t n;
    bool sent = true;

    pthread_mutex_lock(&c->send);
    for (size_t at = 0; sent && (piece = buffer_piece(frame, at, &n)) != NULL; at += n)
        sent = socket_send(&c->socket, piece, n);
    pthread_mutex_unlock(&c->send);
    return sent;
}

static bool send_nudge(struct conn *c)
{
    static const unsigned char nudge[FRAME_HEADER] = {[3] = ROAD_NUDGE};
    struct buffer frame;

    buffer_init(&frame);
    return buffer_add(&frame, nudge, sizeof nudge) && send_out(c, &frame); /* it fits, and is no secret */
}

/* wait_locked waits until the reply is there or the connection has ended, and takes w out. */
static enum outcome wait_locked(struct conn *c, struct waiter *w)
{
    while (!w->done && !c->ended) {
        if (!c->reading) {
            read_locked(c);
            continue;
        }
        w->sleeping = true;
        pthread_cond_wait(&w->wake, &c->mu);
        w->sleeping = false;
    }
    leave_locked(c, w);
    if (w->done)
        return OUTCOME_OK;
    return c->malformed ? OUTCOME_MALFORMED : OUTCOME_LOST;
}

/* look looks for the reply in a slot for a moment. */
static bool look(struct conn *c, int slot, enum pace pace, int64_t began)
{
    bool crowded = road_taken(&c->road) > c->processors;
    int64_t t = began, looked = 0;

    if (c->processors == 1 || pace == PACE_SLOW) /* the daemon has none meanwhile, or long to do */
        return road_answered(&c->road, slot);
    while (pace == PACE_AT_ONCE && t - began < AT_ONCE_FOR) {
        for (int i = 0; i < 100; i++) { /* which takes less than the clock */
            if (road_answered(&c->road, slot))
                return true;
        }
        t = clock_now();
    }
    while (looked < LOOK_FOR && t >= atomic_load(&c->rests)) {
        unsigned replies = atomic_load(&c->replies);
        int64_t took = yield(&t);

        if (took >= YIELD_TIME && atomic_load(&c->replies) == replies)
            begin_rest(c, t); /* no thread of this process had the processor, or of the daemon for it */
        if (road_answered(&c->road, slot))
            return true;
        looked += crowded || took < OWN_TIME ? took : OWN_TIME;
    }
    return road_answered(&c->road, slot);
}

static enum pace pace_of(int64_t took, bool slept)
{
    if (slept && took >= SOON)
        return PACE_SLOW;
    return took < AT_ONCE_FOR ? PACE_AT_ONCE : PACE_SOON;
}

/* exchange_road has a slot carry a call, from which it goes back only once both ends have
   done with it. */
static enum outcome exchange_road(struct conn *c, int slot, const struct buffer *request, struct buffer *reply)
{
    struct waiter w = {.wake = PTHREAD_COND_INITIALIZER, .reply = reply, .code = ROAD_CODE | (uint32_t)slot};
    atomic_uchar *pace = &c->pace[load32(request->data + FRAME_HEADER) % CALL_KINDS];
    size_t n = buffer_size(request) - FRAME_HEADER;
    int64_t began = clock_now();
    enum outcome outcome = OUTCOME_OK;
    bool here = true, slept; /* the reply is here, once it is there */

    if (road_ask(&c->road, slot, request, FRAME_HEADER) && !send_nudge(c)) {
        conn_end(c);
        return OUTCOME_LOST;
    }
    slept = !look(c, slot, atomic_load(pace), began);
    if (slept) {
        pthread_mutex_lock(&c->mu);
        if (road_by_socket(&c->road, slot)) {
            here = false;
            w.next = c->waiters;
            c->waiters = &w;
            outcome = wait_locked(c, &w);
        }
        pthread_mutex_unlock(&c->mu);
    }
    atomic_store(pace, (unsigned char)pace_of(clock_now() - began, slept));
    atomic_fetch_add(&c->replies, 1);
    if (here && !road_collect(&c->road, slot, reply)) {
        pthread_mutex_lock(&c->mu);
        c->malformed = true;
        end_locked(c);
        pthread_mutex_unlock(&c->mu);
        outcome = OUTCOME_MALFORMED;
    }
    pthread_cond_destroy(&w.wake);
    if (outcome == OUTCOME_OK)
        road_leave(&c->road, slot, n);
    return outcome;
}

static enum outcome exchange_socket(struct conn *c, struct buffer *request, struct buffer *reply)
{
    struct waiter w = {.wake = PTHREAD_COND_INITIALIZER, .reply = reply};
    enum outcome outcome;
    bool sent;

    pthread_mutex_lock(&c->mu);
    if (c->ended) {
        pthread_mutex_unlock(&c->mu);
        return OUTCOME_LOST;
    }
    do
        w.code = ++c->code;
    while (w.code < 16 || w.code >= ROAD_CODE || find_locked(c, w.code) != NULL);
    w.next = c->waiters;
    c->waiters = &w;
    pthread_mutex_unlock(&c->mu);

    store32(request->data, w.code);
    sent = send_out(c, request);

    pthread_mutex_lock(&c->mu);
    if (!sent)
        end_locked(c);
    outcome = wait_locked(c, &w);
    pthread_mutex_unlock(&c->mu);
    pthread_cond_destroy(&w.wake);
    return outcome;
}

enum outcome conn_exchange(struct conn *c, struct buffer *request, struct buffer *reply, size_t room)
{
    int slot = road_take(&c->road, buffer_size(request) - FRAME_HEADER, room);

    if (slot < 0)
        return exchange_socket(c, request, reply);
    /* A program that has closed the socket has ended the connection. */
    if (!conn_stands(c)) {
        conn_end(c);
        return OUTCOME_LOST;
    }
    return exchange_road(c, slot, request, reply);
}

bool conn_road(struct conn *c)
{
    bool made;

    pthread_mutex_lock(&open_conns.mu);
    made = c->passed >= 0 && road_map(&c->road, c->passed);
    if (c->passed >= 0)
        close(c->passed);
    c->passed = -1;
    pthread_mutex_unlock(&open_conns.mu);
    return made;
}

void conn_fork_prepare(void)
{
    pthread_mutex_lock(&open_conns.mu);
}

void conn_fork_parent(void)
{
    pthread_mutex_unlock(&open_conns.mu);
}

/* The threads that used the connections are not in the child, and nothing of
   theirs is waited for. */
void conn_fork_child(void)
{
    while (open_conns.first != NULL) {
        struct conn *c = open_conns.first;

        open_conns.first = c->next;
        discard(c);
    }
    pthread_mutex_unlock(&open_conns.mu);
}

#include "session.h"

#include <stdlib.h>
#include <string.h>

/* Buckets of the table by handle. Programs have a handful of sessions, few have
   thousands. */
enum { BUCKETS = 1024, MAX_INIT = 1024 };

/* Guarded by module_lock. */
static struct {
    struct session *bucket[BUCKETS];
    CK_SESSION_HANDLE last; /* handle given out */
    uint64_t changes;       /* that are over */
    unsigned changing;      /* calls that are about to change something */
    pthread_cond_t settled;
} table = {.settled = PTHREAD_COND_INITIALIZER};

CK_FLAGS kind_flag(enum kind k)
{
    switch (k) {
    case KIND_ENCRYPT:
        return CKF_ENCRYPT;
    case KIND_DECRYPT:
        return CKF_DECRYPT;
    case KIND_DIGEST:
        return CKF_DIGEST;
    case KIND_SIGN:
        return CKF_SIGN;
    case KIND_VERIFY:
        return CKF_VERIFY;
    case KIND_NONE:
    case KINDS:
        break;
    }
    return 0;
}

static struct session **place(CK_SESSION_HANDLE handle)
{
    return &table.bucket[handle % BUCKETS];
}

CK_SESSION_HANDLE session_add_locked(CK_SLOT_ID slot, uint64_t remote, uint64_t generation)
{
    struct session *s = calloc(1, sizeof *s), **at;

    if (s == NULL)
        return 0;
    do
        s->handle = ++table.last;
    while (s->handle == 0 || session_find_locked(s->handle) != NULL);
    s->slot = slot;
    s->remote = remote;
    s->generation = generation;
    s->pending = KIND_NONE;
    at = place(s->handle);
    s->next = *at;
    *at = s;
    return s->handle;
}

struct session *session_find_locked(CK_SESSION_HANDLE handle)
{
    struct session *s = *place(handle);

    while (s != NULL && s->handle != handle)
        s = s->next;
    return s;
}

/* free_at takes a session out and frees it. */
static void free_at(struct session **at)
{
    struct session *s = *at;

    *at = s->next;
    if (s->sending)
        pthread_cond_broadcast(&table.settled);
    for (int k = 0; k < KINDS; k++)
        free(s->granted[k].init.data);
    free(s);
}

void session_remove_locked(CK_SESSION_HANDLE handle)
{
    for (struct session **at = place(handle); *at != NULL; at = &(*at)->next) {
        if ((*at)->handle == handle) {
            free_at(at);
            return;
        }
    }
}

void sessions_remove_slot_locked(CK_SLOT_ID slot)
{
    for (size_t i = 0; i < BUCKETS; i++) {
        for (struct session **at = &table.bucket[i]; *at != NULL;) {
            if ((*at)->slot == slot)
                free_at(at);
            else
                at = &(*at)->next;
        }
    }
}

void sessions_clear_locked(void)
{
    for (size_t i = 0; i < BUCKETS; i++) {
        while (table.bucket[i] != NULL)
            free_at(&table.bucket[i]);
    }
}

void sessions_forked_locked(void)
{
    sessions_clear_locked();
    table.changing = 0;
    pthread_cond_init(&table.settled, NULL); /* its sleepers are not here */
}

bool session_defer_locked(struct session *s, enum kind k, const unsigned char *init, size_t len)
{
    const struct init *g = &s->granted[k].init;

    if (s->pending != KIND_NONE || (s->active & kind_flag(k)) != 0 || table.changing != 0 ||
        s->granted[k].changes != table.changes || g->data == NULL || g->len != len || memcmp(g->data, init, len) != 0)
        return false;
    s->pending = k;
    return true;
}

void session_granted_locked(struct session *s, enum kind k, const unsigned char *init, size_t len, uint64_t changes)
{
    struct init *g = &s->granted[k].init;

    s->active |= kind_flag(k);
    if (s->pending == k || s->sending)
        return; /* of another thread in this session: its bytes are still needed */
    s->granted[k].changes = changes;
    if (g->data != NULL && g->len == len && memcmp(g->data, init, len) == 0)
        return;
    free(g->data);
    g->len = 0;
    /* Without memory, or for a long one, the next Init is simply sent. */
    g->data = len != 0 && len <= MAX_INIT ? malloc(len) : NULL;
    if (g->data != NULL) {
        memcpy(g->data, init, len);
        g->len = len;
    }
}

void session_postpone_locked(struct session *s, enum kind k)
{
    if (s->pending == KIND_NONE)
        s->pending = k;
}

enum kind session_take_locked(struct session *s)
{
    enum kind k = s->pending;

    s->pending = KIND_NONE;
    s->sending = k != KIND_NONE;
    return k;
}

void session_sent_locked(CK_SESSION_HANDLE handle)
{
    struct session *s = session_find_locked(handle);

    if (s == NULL)
        return; /* and who waited knows */
    s->sending = false;
    pthread_cond_broadcast(&table.settled);
}

pthread_cond_t *sessions_settled(void)
{
    return &table.settled;
}

void sessions_change_locked(void)
{
    table.changing++;
}

void sessions_changed_locked(void)
{
    table.changing--;
    table.changes++;
}

uint64_t sessions_changes_locked(void)
{
    return table.changes;
}

CK_SESSION_HANDLE sessions_next_unsettled_locked(CK_SLOT_ID slot, CK_SESSION_HANDLE handle, CK_SESSION_HANDLE except)
{
    CK_SESSION_HANDLE next = 0;

    for (size_t i = 0; i < BUCKETS; i++) {
        for (const struct session *s = table.bucket[i]; s != NULL; s = s->next) {
            if (s->slot == slot && (s->pending != KIND_NONE || s->sending) && s->handle > handle &&
                s->handle != except && (next == 0 || s->handle < next))
                next = s->handle;
        }
    }
    return next;
}

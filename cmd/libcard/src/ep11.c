/* What of the interface of EP11's host library is no call of a card: targets, and the
   blocks of administrators' commands. */
#include "ep11.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

const unsigned char card_abi = 1;
const char card_socket_name[] = "card.ep11";
const CK_RV card_gone = 0x80010003UL;
const CK_RV card_small = CKR_BUFFER_TOO_SMALL;

enum {
    TARGET_INVALID = 0x30, /* below VENDOR */
    MAX_TARGET = 256,      /* domains */
    MAX_TARGETS = 1024,
    MASK = 32, /* bytes */
};

#define VENDOR 0x80010000UL
#define TARGET_NONE (~(target_t)0)

/* What programs before m_add_module have a target point to. */
struct targets {
    int16_t format, length; /* 0; pairs, 0 for any */
    int16_t apqns[2 * MAX_TARGET];
} __attribute__((packed));

struct module {
    uint32_t version;
    uint64_t flags;
    uint32_t domains;
    unsigned char mask[MASK];
    struct {
        char host[257];
        uint32_t port;
    } socket;
    uint32_t number;
    void *handle;
    uint32_t performance[256];
    uint32_t api; /* from version 2 on */
};

/* Flags of a module, and what m_add_module returns. */
enum {
    MODULE_SOCKET = 1,
    MODULE_MODULE = 2,
    MODULE_HANDLE = 4,
    MODULE_VIRTUAL = 0x10,
    MODULE_PROBE = 0x40,
    ERROR_OBSOLETE = -101,
    ERROR_VERSION = -102,
    ERROR_FLAGS = -103,
    ERROR_MODULE = -104,
    ERROR_DOMAIN = -105,
    ERROR_PROBE = -107,
};

struct apqn {
    uint16_t adapter, domain;
};

struct target {
    bool used;
    uint32_t count; /* 0 for any */
    struct apqn *apqns;
};

/* The targets that were given out, of which the first is number 1. */
static struct {
    pthread_mutex_t mu; /* guards all below */
    struct target *list;
    size_t count;
} targets = {.mu = PTHREAD_MUTEX_INITIALIZER};

static pthread_once_t once = PTHREAD_ONCE_INIT;

static void fork_prepare(void)
{
    pthread_mutex_lock(&targets.mu);
}

static void fork_done(void)
{
    pthread_mutex_unlock(&targets.mu);
}

static void prepare(void)
{
    (void)pthread_atfork(fork_prepare, fork_done, fork_done); /* without memory: as before it */
}

static void lock_targets(void)
{
    pthread_once(&once, prepare);
    pthread_mutex_lock(&targets.mu);
}

static struct target *target_locked(target_t t)
{
    if (t == 0 || t > targets.count || !targets.list[t - 1].used)
        return NULL;
    return &targets.list[t - 1];
}

static void put_apqn(struct call *c, uint16_t adapter, uint16_t domain)
{
    put_u32(c, (CK_ULONG)adapter << 16 | domain);
}

/* put_address writes the domains of a target that is an address. */
static void put_address(struct call *c, target_t target)
{
    struct targets t;

    memcpy(&t, (const void *)(uintptr_t)target, offsetof(struct targets, apqns));
    if (t.format != 0 || t.length < 0 || t.length > MAX_TARGET) {
        call_fail(c, VENDOR | TARGET_INVALID);
        return;
    }
    memcpy(&t, (const void *)(uintptr_t)target, offsetof(struct targets, apqns) + (size_t)t.length * 2 * sizeof t.apqns[0]);
    put_u32(c, (CK_ULONG)t.length);
    for (int i = 0; i < t.length; i++)
        put_apqn(c, (uint16_t)t.apqns[2 * i], (uint16_t)t.apqns[2 * i + 1]);
}

void put_target(struct call *c, target_t target)
{
    struct target *t;
    bool none;

    lock_targets();
    t = target_locked(target);
    none = targets.count == 0;
    if (t != NULL) {
        put_u32(c, t->count);
        for (uint32_t i = 0; i < t->count; i++)
            put_apqn(c, t->apqns[i].adapter, t->apqns[i].domain);
    }
    pthread_mutex_unlock(&targets.mu);
    if (t != NULL)
        return;
    if (target == 0 || target == TARGET_NONE)
        put_u32(c, CARD_ANY);
    else if (none && target > UINT32_MAX)
        put_address(c, target);
    else
        call_fail(c, VENDOR | TARGET_INVALID);
}

CARD_EXPORT int m_init(void)
{
    return card_reachable() ? 0 : -1;
}

CARD_EXPORT int m_shutdown(void)
{
    return 0;
}

CARD_EXPORT int m_add_backend(const char *name, unsigned port)
{
    (void)name;
    (void)port;
    return ERROR_OBSOLETE;
}

/* add_domains_locked adds the domains of a module to a target. */
static int add_domains_locked(struct target *t, const struct module *m)
{
    struct apqn *list = realloc(t->apqns, MAX_TARGET * sizeof *list);

    if (list == NULL)
        return ERROR_MODULE;
    t->apqns = list;
    for (uint32_t d = 0; d < MASK * 8; d++) {
        if ((m->mask[d / 8] & 0x80 >> d % 8) == 0)
            continue;
        if (t->count == MAX_TARGET)
            return ERROR_DOMAIN;
        list[t->count++] = (struct apqn){(uint16_t)m->number, (uint16_t)d};
    }
    return t->count != 0 ? 0 : ERROR_DOMAIN;
}

static bool empty(const struct module *m)
{
    static const unsigned char none[MASK];

    return m == NULL || memcmp(m->mask, none, MASK) == 0;
}

static int check_module(const struct module *m)
{
    if (m->version != 1 && m->version != 2)
        return ERROR_VERSION;
    if ((m->flags & (MODULE_SOCKET | MODULE_HANDLE)) != 0 || (m->flags & (MODULE_MODULE | MODULE_VIRTUAL)) == 0)
        return ERROR_FLAGS;
    return m->number > 255 && !empty(m) ? ERROR_MODULE : 0;
}

/* new_target_locked gives out a number; 0 if there is no memory, or too many are. */
static target_t new_target_locked(void)
{
    struct target *list;
    size_t i = 0;

    while (i < targets.count && targets.list[i].used)
        i++;
    if (i == targets.count) {
        list = i < MAX_TARGETS ? realloc(targets.list, (i + 1) * sizeof *list) : NULL;
        if (list == NULL)
            return 0;
        targets.list = list;
        targets.count++;
    }
    targets.list[i] = (struct target){.used = true};
    return i + 1;
}

static void drop_locked(struct target *t)
{
    free(t->apqns);
    *t = (struct target){0};
}

CARD_EXPORT int m_add_module(struct module *m, target_t *target)
{
    bool group = m != NULL && (m->flags & MODULE_VIRTUAL) != 0, made = false;
    struct target *t = NULL;
    int error;

    if (m == NULL || target == NULL)
        return ERROR_MODULE;
    error = check_module(m);
    if (error != 0)
        return error;
    if ((m->flags & MODULE_PROBE) != 0 && !card_reachable())
        return ERROR_PROBE;
    lock_targets();
    if (group && *target != TARGET_NONE) {
        t = target_locked(*target);
        error = t == NULL ? ERROR_MODULE : 0;
    } else {
        target_t n = new_target_locked();

        made = n != 0;
        error = made ? 0 : ERROR_MODULE;
        if (made) {
            t = &targets.list[n - 1];
            *target = n;
        }
    }
    /* A group of nothing is any domain. */
    if (error == 0 && !(group && empty(m)))
        error = add_domains_locked(t, m);
    if (error != 0 && made) {
        drop_locked(t);
        *target = TARGET_NONE;
    }
    pthread_mutex_unlock(&targets.mu);
    return error;
}

/* take_out_locked takes the domains of a module out of a group. */
static void take_out_locked(struct target *t, const struct module *m)
{
    uint32_t kept = 0;

    for (uint32_t i = 0; i < t->count; i++) {
        const struct apqn *a = &t->apqns[i];

        if (a->adapter != m->number || a->domain >= MASK * 8 || (m->mask[a->domain / 8] & 0x80 >> a->domain % 8) == 0)
            t->apqns[kept++] = *a;
    }
    t->count = kept;
}

CARD_EXPORT int m_rm_module(struct module *m, target_t target)
{
    struct target *t;

    lock_targets();
    t = target_locked(target);
    if (t != NULL && t->count != 0 && !empty(m))
        take_out_locked(t, m);
    if (t != NULL && (empty(m) || t->count == 0))
        drop_locked(t); /* and not a group that has become any domain */
    pthread_mutex_unlock(&targets.mu);
    return t != NULL ? 0 : ERROR_MODULE;
}

/* The blocks of commands, whose layout is this library's and the card's own
   (tokens/card/ep11). */
enum { COMMAND_HEADER = 4 + 4 + 4 + 16 + 16, ANSWER_HEADER = 4 + 8 };

struct response {
    uint32_t function, domain, instance;
    unsigned char module[16], module_number[8], module_instance[8], counter[16];
    CK_RV rv;
    uint32_t reason;
    const unsigned char *payload;
    size_t length;
};

static long block(unsigned char *out, size_t room, uint32_t function, uint32_t domain, uint32_t instance,
                  const unsigned char *module, const unsigned char *counter, const unsigned char *payload, size_t n)
{
    if (out == NULL || room < COMMAND_HEADER || n > room - COMMAND_HEADER || (payload == NULL && n != 0))
        return -1;
    memset(out, 0, COMMAND_HEADER);
    store32(out, function);
    store32(out + 4, domain);
    store32(out + 8, instance);
    if (module != NULL)
        memcpy(out + 12, module, 16);
    if (counter != NULL)
        memcpy(out + 28, counter, 16);
    if (n != 0)
        memcpy(out + COMMAND_HEADER, payload, n);
    return (long)(COMMAND_HEADER + n);
}

CARD_EXPORT long xcpa_cmdblock(unsigned char *out, size_t room, unsigned function, const struct response *r, const unsigned char *counter, const unsigned char *payload, size_t n)
{
    return block(out, room, function, r != NULL ? r->domain : 0, r != NULL ? r->instance : 0, r != NULL ? r->module : NULL, counter, payload, n);
}

CARD_EXPORT long xcpa_queryblock(unsigned char *out, size_t room, unsigned function, uint64_t domain, const unsigned char *payload, size_t n)
{
    return block(out, room, function, (uint32_t)domain, 0, NULL, NULL, payload, n);
}

CARD_EXPORT long xcpa_internal_rv(const unsigned char *answer, size_t n, struct response *r, CK_RV *rv)
{
    if (answer == NULL || r == NULL || n < ANSWER_HEADER)
        return -1;
    memset(r, 0, sizeof *r);
    r->function = load32(answer);
    r->rv = (CK_RV)load64(answer + 4);
    r->payload = answer + ANSWER_HEADER;
    r->length = n - ANSWER_HEADER;
    if (rv != NULL)
        *rv = r->rv;
    return (long)n;
}

/* The names that the tools of openCryptoki 3.8 have for these. */
CARD_EXPORT long ep11a_cmdblock(unsigned char *out, size_t room, unsigned function, const struct response *r, const unsigned char *counter, const unsigned char *payload, size_t n)
    __attribute__((alias("xcpa_cmdblock")));
CARD_EXPORT long ep11a_internal_rv(const unsigned char *answer, size_t n, struct response *r, CK_RV *rv)
    __attribute__((alias("xcpa_internal_rv")));
CARD_EXPORT CK_RV m_get_xcp_info(unsigned char *info, size_t *info_len, unsigned query, unsigned subquery, target_t target);
CARD_EXPORT CK_RV m_get_ep11_info(unsigned char *info, size_t *info_len, unsigned query, unsigned subquery, target_t target)
{
    return m_get_xcp_info(info, info_len, query, subquery, target);
}

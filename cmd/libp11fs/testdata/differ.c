/* The same calls at random through two modules, one of which puts no Init off:
   every CK_RV and every length must be the same. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"

enum { MODULES = 2, SESSIONS = 2, STEPS = 3000, KEYS = 3 };

/* One module with its sessions and keys. */
struct side {
    CK_FUNCTION_LIST_3_2 *f;
    CK_SLOT_ID slot;
    CK_SESSION_HANDLE session[SESSIONS];
    CK_OBJECT_HANDLE key[KEYS];
    CK_BYTE signature[64]; /* the last, of whatever */
    CK_ULONG signature_len;
};

/* What a step did, to be compared. */
struct result {
    CK_RV rv;
    CK_ULONG len;
};

/* A step: which call, in which session, with which key and variant. */
struct step {
    int call, session, key, variant;
};

static struct result init(const struct side *x, const struct step *p, CK_RV (*function)(CK_SESSION_HANDLE, CK_MECHANISM *, CK_OBJECT_HANDLE))
{
    CK_MECHANISM hmac = {p->variant % 4 == 0 ? CKM_SHA512_HMAC : CKM_SHA256_HMAC, NULL, 0};

    return (struct result){function(x->session[p->session], &hmac, x->key[p->key]), 0};
}

static struct result digest_init(const struct side *x, const struct step *p)
{
    CK_MECHANISM m = {p->variant % 4 == 0 ? CKM_SHA512 : CKM_SHA256, NULL, 0};

    return (struct result){x->f->C_DigestInit(x->session[p->session], &m), 0};
}

/* out calls a function with a buffer of one of several sizes, or none. */
static struct result out(struct side *x, const struct step *p, CK_BYTE *data,
                         CK_RV (*function)(CK_SESSION_HANDLE, CK_BYTE *, CK_ULONG, CK_BYTE *, CK_ULONG *))
{
    CK_BYTE buffer[64];
    CK_ULONG n = p->variant % 5 == 0 ? 5 : sizeof buffer;
    struct result r;

    r.rv = function(x->session[p->session], data, 8, p->variant % 7 == 0 ? NULL : buffer, &n);
    r.len = r.rv == CKR_OK || r.rv == CKR_BUFFER_TOO_SMALL ? n : 0;
    if (r.rv == CKR_OK && p->variant % 7 != 0) {
        memcpy(x->signature, buffer, n);
        x->signature_len = n;
    }
    return r;
}

static struct result finish(struct side *x, const struct step *p, CK_RV (*function)(CK_SESSION_HANDLE, CK_BYTE *, CK_ULONG *))
{
    CK_BYTE buffer[64];
    CK_ULONG n = p->variant % 5 == 0 ? 5 : sizeof buffer;
    struct result r;

    r.rv = function(x->session[p->session], p->variant % 7 == 0 ? NULL : buffer, &n);
    r.len = r.rv == CKR_OK || r.rv == CKR_BUFFER_TOO_SMALL ? n : 0;
    return r;
}

static struct result do_step(struct side *x, const struct step *p)
{
    CK_BYTE data[8] = {(CK_BYTE)p->variant};
    CK_SESSION_HANDLE s = x->session[p->session];
    CK_SESSION_INFO info;
    CK_MECHANISM m = {CKM_SHA256, NULL, 0};

    switch (p->call) {
    case 0: case 1: case 2:
        return init(x, p, x->f->C_SignInit);
    case 3: case 4: case 5:
        return out(x, p, data, x->f->C_Sign);
    case 6:
        return (struct result){x->f->C_SignUpdate(s, data, 8), 0};
    case 7:
        return finish(x, p, x->f->C_SignFinal);
    case 8: case 9:
        return init(x, p, x->f->C_VerifyInit);
    case 10: case 11:
        return (struct result){x->f->C_Verify(s, data, 8, x->signature, x->signature_len), 0};
    case 12:
        return (struct result){x->f->C_VerifyUpdate(s, data, 8), 0};
    case 13:
        return (struct result){x->f->C_VerifyFinal(s, x->signature, x->signature_len), 0};
    case 14: case 15:
        return digest_init(x, p);
    case 16: case 17:
        return out(x, p, data, x->f->C_Digest);
    case 18:
        return (struct result){x->f->C_DigestUpdate(s, data, 8), 0};
    case 19:
        return finish(x, p, x->f->C_DigestFinal);
    case 20:
        return (struct result){x->f->C_GetSessionInfo(s, &info), 0};
    case 21:
        return (struct result){x->f->C_DestroyObject(s, x->key[p->key]), 0};
    case 22:
        return (struct result){p->variant % 3 == 0 ? x->f->C_Logout(s) : CKR_OK, 0};
    case 23:
        return (struct result){x->f->C_Login(s, CKU_USER, PIN, PIN_LEN), 0};
    case 24:
        return (struct result){x->f->C_DigestKey(s, x->key[p->key]), 0};
    case 25:
        if (p->variant % 4 != 0)
            return (struct result){CKR_OK, 0};
        (void)x->f->C_CloseSession(s);
        return (struct result){x->f->C_OpenSession(x->slot, CKF_SERIAL_SESSION | CKF_RW_SESSION, NULL, NULL, &x->session[p->session]), 0};
    case 26:
        m.mechanism = CKM_SHA256_HMAC;
        return (struct result){x->f->C_SignInit(s, &m, 99), 0};
    default:
        return (struct result){CKR_OK, 0};
    }
}

/* renew makes the keys that are gone anew, so that steps have some. */
static void renew(struct side *x, int key)
{
    CK_BBOOL yes = 1, no = 0;
    CK_ULONG bytes = 32;
    CK_ATTRIBUTE t[] = {{CKA_VALUE_LEN, &bytes, sizeof bytes}, {CKA_SIGN, &yes, 1}, {CKA_VERIFY, &yes, 1},
                        {CKA_SENSITIVE, &no, 1}, {CKA_EXTRACTABLE, &yes, 1}, {CKA_PRIVATE, key == 0 ? &yes : &no, 1}};
    CK_MECHANISM m = {CKM_GENERIC_SECRET_KEY_GEN, NULL, 0};
    CK_RV rv = x->f->C_GenerateKey(x->session[0], &m, t, 6, &x->key[key]);

    if (rv != CKR_USER_NOT_LOGGED_IN)
        OK(rv);
}

void case_differ(const char *path, const char *other, int seed)
{
    struct side sides[MODULES];
    CK_ULONG n;

    srand((unsigned)seed);
    memset(sides, 0, sizeof sides);
    for (int i = 0; i < MODULES; i++) {
        load(i == 0 ? path : other);
        sides[i].f = f;
        OK(f->C_Initialize(NULL));
        n = 1;
        OK(f->C_GetSlotList(1, &sides[i].slot, &n));
        for (int k = 0; k < SESSIONS; k++)
            sides[i].session[k] = session_on(sides[i].slot);
        OK(f->C_Login(sides[i].session[0], CKU_USER, PIN, PIN_LEN));
        for (int k = 0; k < KEYS; k++)
            renew(&sides[i], k);
    }
    for (int i = 0; i < STEPS; i++) {
        struct step p = {rand() % 27, rand() % 8 == 0, rand() % 4 == 0 ? rand() % KEYS : 1, rand() % 1000};
        struct result r[MODULES];

        for (int k = 0; k < MODULES; k++)
            r[k] = do_step(&sides[k], &p);
        if (r[0].rv != r[1].rv || r[0].len != r[1].len) {
            fprintf(stderr, "seed %d, step %d: call %d, session %d, key %d, variant %d: %#lx, %lu; without: %#lx, %lu\n", seed, i, p.call,
                    p.session, p.key, p.variant, r[0].rv, r[0].len, r[1].rv, r[1].len);
            exit(1);
        }
        /* A key that is gone stays in use for a while. */
        if (rand() % 16 == 0 || p.call == 25 || p.call == 23) {
            for (int k = 0; k < MODULES; k++) {
                for (int j = 0; j < KEYS; j++)
                    renew(&sides[k], j);
            }
        }
    }
    for (int i = 0; i < MODULES; i++)
        OK(sides[i].f->C_Finalize(NULL));
}

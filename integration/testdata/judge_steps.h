/* What testdata/judge.c does with a module: calls of all sizes, and what comes of them. */
#include <dlfcn.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "pkcs11.h"

#define COUNT(a) (sizeof(a) / sizeof *(a))

enum { ROOM = 8192, MOST = 40 };

struct bytes {
    CK_ULONG n;
    CK_BYTE b[ROOM];
};

static CK_FUNCTION_LIST *p11;
static CK_SESSION_HANDLE session;
static CK_SLOT_ID slot;
static const char *pin;
static bool ep11; /* which kind of card */
static bool stock; /* whose defects are known */
static bool secrets_only;
static struct bytes given_rsa[8], peer_params[8], peer_point[8], given_dh[3], given_dsa[3];
static size_t peers;
static unsigned checks;

static CK_BYTE yes = 1, no = 0;
static CK_BYTE iv[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
static CK_BYTE known[32] = {1, 2, 4, 7, 8, 11, 13, 14, 16, 19, 21, 22, 25, 26, 28, 31, 32, 35, 37, 38, 41, 42, 44, 47, 49, 50, 52, 55, 56, 59, 61, 62};

static void bad(const char *format, ...)
{
    va_list args;

    va_start(args, format);
    printf("bad: ");
    vprintf(format, args);
    puts("");
    va_end(args);
}

static bool is(const char *what, CK_RV got, CK_RV want)
{
    checks++;
    if (got != want)
        bad("%s: 0x%lx, want 0x%lx", what, got, want);
    return got == want;
}

static bool ok(const char *what, CK_RV rv) { return is(what, rv, CKR_OK); }

static bool holds(const char *what, bool it)
{
    checks++;
    if (!it)
        bad("%s", what);
    return it;
}

static void hex(const void *p, CK_ULONG n)
{
    const CK_BYTE *b = p;

    putchar(' ');
    if (n == 0)
        putchar('-');
    while (n-- != 0)
        printf("%02x", *b++);
}

static void unhex(struct bytes *to, const char *text)
{
    unsigned v;

    for (to->n = 0; to->n < ROOM && sscanf(text + 2 * to->n, "%2x", &v) == 1; to->n++)
        to->b[to->n] = (CK_BYTE)v;
}

static bool same(const char *what, const struct bytes *a, const struct bytes *b)
{
    checks++;
    if (a->n == b->n && memcmp(a->b, b->b, a->n) == 0)
        return true;
    printf("bad: %s:", what);
    hex(a->b, a->n);
    hex(b->b, b->n);
    puts("");
    return false;
}

/* Templates. */

struct list {
    CK_ATTRIBUTE a[MOST];
    CK_ULONG number[MOST], n;
};

static void bytes(struct list *l, CK_ATTRIBUTE_TYPE type, const void *p, CK_ULONG n)
{
    l->a[l->n++] = (CK_ATTRIBUTE){type, (void *)p, n};
}

static void number(struct list *l, CK_ATTRIBUTE_TYPE type, CK_ULONG v)
{
    l->number[l->n] = v;
    bytes(l, type, &l->number[l->n], sizeof v);
}

static void flag(struct list *l, CK_ATTRIBUTE_TYPE type) { bytes(l, type, &yes, 1); }

static bool stays; /* whether what is made is of the token */

static void named(struct list *l, const char *label, bool private)
{
    bytes(l, CKA_TOKEN, stays ? &yes : &no, 1);
    bytes(l, CKA_PRIVATE, private ? &yes : &no, 1);
    bytes(l, CKA_LABEL, label, strlen(label));
    bytes(l, CKA_ID, label, strlen(label));
}

static CK_OBJECT_HANDLE find(CK_ULONG class, const char *label)
{
    struct list l = {0};
    CK_OBJECT_HANDLE found[2] = {0};
    CK_ULONG n = 0;

    number(&l, CKA_CLASS, class);
    bytes(&l, CKA_LABEL, label, strlen(label));
    if (ok("C_FindObjectsInit", p11->C_FindObjectsInit(session, l.a, l.n))) {
        ok("C_FindObjects", p11->C_FindObjects(session, found, 2, &n));
        ok("C_FindObjectsFinal", p11->C_FindObjectsFinal(session));
    }
    checks++;
    if (n != 1)
        bad("%lu objects are %s", n, label);
    return n == 1 ? found[0] : 0;
}

/* read_attribute reads one, after its length alone and with too little room. */
static bool read_attribute(CK_OBJECT_HANDLE o, CK_ATTRIBUTE_TYPE type, struct bytes *to)
{
    CK_ATTRIBUTE a = {type, NULL, 0};

    if (!ok("C_GetAttributeValue, length", p11->C_GetAttributeValue(session, o, &a, 1)))
        return false;
    to->n = a.ulValueLen;
    if (to->n > 1) {
        a = (CK_ATTRIBUTE){type, to->b, 1};
        is("C_GetAttributeValue, short", p11->C_GetAttributeValue(session, o, &a, 1), CKR_BUFFER_TOO_SMALL);
    }
    a = (CK_ATTRIBUTE){type, to->b, to->n};
    return ok("C_GetAttributeValue", p11->C_GetAttributeValue(session, o, &a, 1));
}

/* What has an output, as one of these. */

struct step {
    enum { ENCRYPT, DECRYPT, SIGN, DIGEST } use;
    enum { WHOLE, PART, FINAL } phase;
    CK_BYTE *in;
    CK_ULONG n;
};

static const char *const uses[] = {"encrypt", "decrypt", "sign", "digest"}, *const phases[] = {"", "update", "final"};

static CK_RV begin(int use, CK_MECHANISM *m, CK_OBJECT_HANDLE key)
{
    switch (use) {
    case ENCRYPT:
        return p11->C_EncryptInit(session, m, key);
    case DECRYPT:
        return p11->C_DecryptInit(session, m, key);
    case SIGN:
        return p11->C_SignInit(session, m, key);
    default:
        return p11->C_DigestInit(session, m);
    }
}

static CK_RV call(const struct step *s, CK_BYTE *out, CK_ULONG *n)
{
    switch (3 * s->use + s->phase) {
    case 3 * ENCRYPT + WHOLE:
        return p11->C_Encrypt(session, s->in, s->n, out, n);
    case 3 * ENCRYPT + PART:
        return p11->C_EncryptUpdate(session, s->in, s->n, out, n);
    case 3 * ENCRYPT + FINAL:
        return p11->C_EncryptFinal(session, out, n);
    case 3 * DECRYPT + WHOLE:
        return p11->C_Decrypt(session, s->in, s->n, out, n);
    case 3 * DECRYPT + PART:
        return p11->C_DecryptUpdate(session, s->in, s->n, out, n);
    case 3 * DECRYPT + FINAL:
        return p11->C_DecryptFinal(session, out, n);
    case 3 * SIGN + WHOLE:
        return p11->C_Sign(session, s->in, s->n, out, n);
    case 3 * SIGN + PART:
        *n = 0;
        return p11->C_SignUpdate(session, s->in, s->n);
    case 3 * SIGN + FINAL:
        return p11->C_SignFinal(session, out, n);
    case 3 * DIGEST + WHOLE:
        return p11->C_Digest(session, s->in, s->n, out, n);
    case 3 * DIGEST + PART:
        *n = 0;
        return p11->C_DigestUpdate(session, s->in, s->n);
    default:
        return p11->C_DigestFinal(session, out, n);
    }
}

/* A guard behind what there is room for. */
enum { GUARD = 0xa5 };

static bool fits(const char *what, const struct step *s, CK_RV rv, const CK_BYTE *out, CK_ULONG room, CK_ULONG n)
{
    checks++;
    for (CK_ULONG i = 0; i < 64; i++) {
        if (out[room + i] != GUARD) {
            bad("%s, %s %s: written behind %lu bytes", what, uses[s->use], phases[s->phase], room);
            return false;
        }
    }
    if (rv == CKR_OK && n > room) {
        bad("%s, %s %s: %lu bytes where there is room for %lu", what, uses[s->use], phases[s->phase], n, room);
        return false;
    }
    return true;
}

/* What is known of stock's CCA token: C_SignFinal for a length alone ends the operation, or
   refuses it; an HMAC is written whatever room there is; and the first bytes of one are
   taken for it, as the card's verb has it. */
static bool hmac;

static bool asks_ends(const struct step *s) { return stock && !ep11 && s->use == SIGN && s->phase == FINAL; }

static bool short_overflows(const struct step *s) { return asks_ends(s) || (stock && !ep11 && s->use == SIGN && hmac); }

/* sized appends what a step gives: for its length alone, with a byte too few, and with what
   it asked for. A length may be more than comes; a byte less may then do. */
static bool sized(const char *what, const struct step *s, struct bytes *to)
{
    CK_BYTE out[ROOM + 64];
    CK_ULONG need = 0, n;
    CK_RV rv;
    char text[200];

    snprintf(text, sizeof text, "%s, %s %s of %lu bytes", what, uses[s->use], phases[s->phase], s->n);
    if (s->phase == PART && (s->use == SIGN || s->use == DIGEST))
        return ok(text, call(s, NULL, &need));
    if (asks_ends(s))
        need = 512;
    else if (!ok(text, call(s, NULL, &need)) || need > ROOM - to->n)
        return false;
    memset(out, GUARD, sizeof out);
    rv = CKR_BUFFER_TOO_SMALL;
    if (need > 0 && !short_overflows(s)) {
        n = need - 1;
        rv = call(s, out, &n);
        checks++;
        if (rv != CKR_OK && rv != CKR_BUFFER_TOO_SMALL) {
            bad("%s, with a byte too few: 0x%lx", text, rv);
            return false;
        }
        if (rv == CKR_BUFFER_TOO_SMALL)
            holds("a short buffer's length", n >= need - 1 && n <= need);
        if (!fits(what, s, rv, out, need - 1, n))
            return false;
    }
    if (rv != CKR_OK) {
        memset(out, GUARD, sizeof out);
        n = need;
        rv = call(s, out, &n);
        if (!ok(text, rv) || !fits(what, s, rv, out, need, n))
            return false;
    }
    memcpy(to->b + to->n, out, n);
    to->n += n;
    return true;
}

static bool over(const char *what, int use)
{
    struct step s = {.use = use, .phase = WHOLE, .in = iv, .n = sizeof iv};
    CK_BYTE out[ROOM];
    CK_ULONG n = sizeof out;

    checks++;
    if (call(&s, out, &n) == CKR_OPERATION_NOT_INITIALIZED)
        return true;
    bad("%s, %s: it is not over", what, uses[use]);
    return false;
}

static bool whole(const char *what, int use, CK_MECHANISM *m, CK_OBJECT_HANDLE key, const struct bytes *in, struct bytes *out)
{
    struct step s = {.use = use, .phase = WHOLE, .in = (CK_BYTE *)in->b, .n = in->n};

    out->n = 0;
    return ok(what, begin(use, m, key)) && sized(what, &s, out) && over(what, use);
}

/* in_parts has odd parts, and none in the middle. */
static bool in_parts(const char *what, int use, CK_MECHANISM *m, CK_OBJECT_HANDLE key, const struct bytes *in, struct bytes *out)
{
    static const CK_ULONG lengths[] = {1, 15, 17, 100, 63, 5};
    struct step s = {.use = use, .phase = PART, .in = (CK_BYTE *)in->b};

    out->n = 0;
    if (!ok(what, begin(use, m, key)))
        return false;
    for (CK_ULONG i = 0, at = 0; at < in->n; i++, at += s.n) {
        s.n = i < COUNT(lengths) ? lengths[i] : in->n;
        if (s.n > in->n - at)
            s.n = in->n - at;
        s.in = (CK_BYTE *)in->b + at;
        if (!sized(what, &s, out))
            return false;
    }
    s = (struct step){.use = use, .phase = FINAL};
    return sized(what, &s, out) && over(what, use);
}

static const struct bytes *text(CK_ULONG n)
{
    static struct bytes t;

    for (t.n = 0; t.n < n; t.n++)
        t.b[t.n] = (CK_BYTE)(7 * t.n);
    return &t;
}

/* cipher prints "cipher NAME MECHANISM PLAIN CIPHER". */
static void cipher(const char *name, const char *mechanism, CK_MECHANISM m, CK_OBJECT_HANDLE key, CK_ULONG n)
{
    static struct bytes plain, sealed, parts, opened;
    char what[200];

    snprintf(what, sizeof what, "%s, %s", name, mechanism);
    plain = *text(n);
    if (!whole(what, ENCRYPT, &m, key, &plain, &sealed))
        return;
    if (in_parts(what, ENCRYPT, &m, key, &plain, &parts))
        same(what, &parts, &sealed);
    if (whole(what, DECRYPT, &m, key, &sealed, &opened))
        same(what, &opened, &plain);
    if (in_parts(what, DECRYPT, &m, key, &sealed, &opened))
        same(what, &opened, &plain);
    printf("cipher %s %s", name, mechanism);
    hex(plain.b, plain.n);
    hex(sealed.b, sealed.n);
    puts("");
}

static void verify(const char *what, CK_MECHANISM *m, CK_OBJECT_HANDLE key, const struct bytes *in, const struct bytes *sig, bool parts)
{
    static struct bytes wrong;
    CK_RV rv;

    wrong = *sig;
    wrong.b[wrong.n / 2] ^= 1;
    if (ok(what, p11->C_VerifyInit(session, m, key)))
        ok(what, p11->C_Verify(session, (CK_BYTE *)in->b, in->n, (CK_BYTE *)sig->b, sig->n));
    if (ok(what, p11->C_VerifyInit(session, m, key)))
        is(what, p11->C_Verify(session, (CK_BYTE *)in->b, in->n, wrong.b, wrong.n), CKR_SIGNATURE_INVALID);
    if (!(stock && !ep11 && hmac) && ok(what, p11->C_VerifyInit(session, m, key))) {
        rv = p11->C_Verify(session, (CK_BYTE *)in->b, in->n, (CK_BYTE *)sig->b, sig->n - 1);
        if (rv != CKR_SIGNATURE_INVALID)
            is(what, rv, CKR_SIGNATURE_LEN_RANGE);
    }
    for (int right = 0; parts && right < 2; right++) {
        if (!ok(what, p11->C_VerifyInit(session, m, key)))
            return;
        for (CK_ULONG at = 0, n; at < in->n; at += n) {
            n = in->n - at < 77 ? in->n - at : 77;
            if (!ok(what, p11->C_VerifyUpdate(session, (CK_BYTE *)in->b + at, n)))
                return;
        }
        if (right)
            ok(what, p11->C_VerifyFinal(session, (CK_BYTE *)sig->b, sig->n));
        else
            is(what, p11->C_VerifyFinal(session, wrong.b, wrong.n), CKR_SIGNATURE_INVALID);
    }
}

/* signature prints "signature NAME MECHANISM DATA SIGNATURE", of each way. */
static void signature(const char *name, const char *mechanism, CK_MECHANISM m, CK_OBJECT_HANDLE key, CK_OBJECT_HANDLE public, CK_ULONG n, bool parts)
{
    static struct bytes in, sig;
    char what[200];

    snprintf(what, sizeof what, "%s, %s", name, mechanism);
    in = *text(n);
    for (int way = 0; way < 1 + parts; way++) {
        if (!(way == 0 ? whole : in_parts)(what, SIGN, &m, key, &in, &sig))
            return;
        verify(what, &m, public, &in, &sig, parts);
        printf("signature %s %s", name, mechanism);
        hex(in.b, in.n);
        hex(sig.b, sig.n);
        puts("");
    }
}

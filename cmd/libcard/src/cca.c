/* libcsulcca.so: the verbs of IBM's CCA host library, answered by a card behind a socket.
   Names and arguments are those of the CCA Application Programmer's Guide. */
#include "card.h"

#include "cca_gen.h"

const unsigned char card_abi = 2;
const char card_socket_name[] = "card.cca";
/* Return code and reason. */
const CK_RV card_gone = (CK_RV)12 << 32 | 338;
const CK_RV card_small = (CK_RV)8 << 32 | 72;

#define VERB CARD_EXPORT void
#define HEAD long *rc, long *rs, long *exit_length, unsigned char *exit_data
#define DATA(name) long *name##_length, unsigned char *name

enum { MAX_DATA = 8 << 20, SYMMETRIC = 64, KEYWORD = 8 };

/* Errors of the library itself: return code and reason. */
enum { REFUSED = 8, BAD_LENGTH_REASON = 72 };

/* An argument as it goes to the card. */
struct arg {
    enum { NUMBER, IN, OUT, INOUT } kind;
    uint64_t number;
    const void *in;
    size_t n;
    unsigned char *out;
    size_t room;
    long *length; /* gets the length of what came out; may be NULL */
};

static size_t size_of(const long *length)
{
    return length == NULL || *length < 0 ? 0 : (size_t)*length;
}

static struct arg bytes(const void *p, size_t n)
{
    return (struct arg){.kind = IN, .in = p, .n = n};
}

static struct arg data(const long *length, const void *p)
{
    return bytes(p, p == NULL ? 0 : size_of(length));
}

static struct arg rules(const long *count, const void *p)
{
    return bytes(p, p == NULL ? 0 : KEYWORD * size_of(count));
}

static struct arg number(const long *n)
{
    return (struct arg){.kind = NUMBER, .number = (uint64_t)size_of(n)};
}

/* An output of which the caller says how much room there is. */
static struct arg output(long *length, unsigned char *p)
{
    return (struct arg){.kind = OUT, .out = p, .room = p == NULL ? 0 : size_of(length), .length = length};
}

/* An output of which the caller knows how long it is. */
static struct arg fixed(unsigned char *p, size_t room)
{
    return (struct arg){.kind = OUT, .out = p, .room = p == NULL ? 0 : room};
}

static struct arg chain(const long *length, unsigned char *p)
{
    size_t n = p == NULL ? 0 : size_of(length);

    return (struct arg){.kind = INOUT, .in = p, .n = n, .out = p, .room = n};
}

static void refuse(long *rc, long *rs, long code, long reason)
{
    *rc = code;
    *rs = reason;
}

/* Calls the card. The outputs are in the order of the arguments. Nothing is stored where the
   verb failed, but the length of what did not fit. */
static void verb(long *rc, long *rs, uint32_t function, const struct arg *args, size_t n)
{
    struct call c;
    CK_RV rv;

    for (size_t i = 0; i < n; i++) {
        if (args[i].n > MAX_DATA) {
            refuse(rc, rs, REFUSED, BAD_LENGTH_REASON);
            return;
        }
    }
    card_begin(&c, function);
    put_u32(&c, CARD_ANY);
    for (size_t i = 0; i < n; i++) {
        const struct arg *a = &args[i];

        switch (a->kind) {
        case NUMBER:
            put_ulong(&c, a->number);
            break;
        case IN:
            put_in(&c, a->in, a->n);
            break;
        case OUT:
            put_ulong(&c, a->room);
            put_byte(&c, 1); /* CCA asks for no lengths alone */
            break;
        case INOUT:
            put_state(&c, a->out, a->n);
            break;
        }
    }
    card_exchange(&c);
    for (size_t i = 0; i < n; i++) {
        const struct arg *a = &args[i];
        size_t len = a->room;

        if (a->kind == INOUT) {
            get_state(&c, a->out, a->n);
        } else if (a->kind == OUT) {
            get_output(&c, a->out, &len);
            if (a->length != NULL && c.rv == CKR_OK && (c.session == CKR_OK || len > a->room))
                *a->length = (long)len;
        }
    }
    rv = card_end(&c);
    refuse(rc, rs, (long)(rv >> 32), (long)(rv & UINT32_MAX));
}

/* CALL(name, arguments...) is the verb's call. */
#define CALL(name, ...)                                                       \
    do {                                                                      \
        struct arg args_[] = {__VA_ARGS__};                                   \
        (void)exit_length;                                                    \
        (void)exit_data;                                                      \
        verb(rc, rs, CALL_##name, args_, sizeof args_ / sizeof args_[0]);     \
    } while (0)

/* What no rule array that the card knows makes use of. */
#define UNUSED(name) ((void)name##_length, (void)name)

/* answer_room is how many bytes a program has for the answer to its rule array, in the same
   place: it says of none how many there are, but has those of the query's answer. */
static size_t answer_room(const long *count, const unsigned char *rule)
{
    static const struct {
        char word[KEYWORD + 1];
        size_t keywords;
    } answers[] = {{"STATCCAE", 9}, {"STATAES ", 4}, {"STATAPKA", 3}, {"STATCRD2", 15}};

    for (size_t i = 0; rule != NULL && i < size_of(count); i++) {
        for (size_t j = 0; j < sizeof answers / sizeof answers[0]; j++) {
            if (memcmp(rule + KEYWORD * i, answers[j].word, KEYWORD) == 0)
                return KEYWORD * answers[j].keywords;
        }
    }
    return 0;
}

VERB CSUACFQ(HEAD, long *rule_count, unsigned char *rule, DATA(verb_data))
{
    long answer = 0;

    CALL(CSUACFQ, rules(rule_count, rule), ((struct arg){.kind = OUT, .out = rule, .room = answer_room(rule_count, rule), .length = &answer}),
         output(verb_data_length, verb_data));
    if (answer > 0 && *rc == 0)
        *rule_count = answer / KEYWORD;
}

VERB CSNBRNG(HEAD, unsigned char *form, unsigned char *random)
{
    CALL(CSNBRNG, bytes(form, 8), fixed(random, 8));
}

VERB CSNBRNGL(HEAD, long *rule_count, unsigned char *rule, DATA(seed), DATA(random))
{
    UNUSED(seed);
    CALL(CSNBRNGL, rules(rule_count, rule), output(random_length, random));
}

VERB CSNBKGN(HEAD, unsigned char *form, unsigned char *length, unsigned char *type1, unsigned char *type2,
             unsigned char *kek1, unsigned char *kek2, unsigned char *key1, unsigned char *key2)
{
    (void)type2, (void)kek1, (void)kek2, (void)key2;
    CALL(CSNBKGN, bytes(form, 8), bytes(length, 8), bytes(type1, 8), bytes(key1, SYMMETRIC), fixed(key1, SYMMETRIC));
}

VERB CSNBKTB(HEAD, unsigned char *token, unsigned char *type, long *rule_count, unsigned char *rule, unsigned char *value,
             void *r1, long *r2, unsigned char *r3, unsigned char *vector, unsigned char *r4, long *r5, unsigned char *r6,
             unsigned char *pattern)
{
    (void)value, (void)r1, (void)r2, (void)r3, (void)vector, (void)r4, (void)r5, (void)r6, (void)pattern;
    CALL(CSNBKTB, bytes(type, 8), rules(rule_count, rule), fixed(token, SYMMETRIC));
}

VERB CSNBENC(HEAD, unsigned char *key, DATA(text), unsigned char *iv, long *rule_count, unsigned char *rule, long *pad,
             unsigned char *vector, unsigned char *out)
{
    (void)pad, (void)vector;
    CALL(CSNBENC, bytes(key, SYMMETRIC), data(text_length, text), bytes(iv, 8), rules(rule_count, rule),
         fixed(out, size_of(text_length)));
}

VERB CSNBDEC(HEAD, unsigned char *key, DATA(text), unsigned char *iv, long *rule_count, unsigned char *rule,
             unsigned char *vector, unsigned char *out)
{
    (void)vector;
    CALL(CSNBDEC, bytes(key, SYMMETRIC), data(text_length, text), bytes(iv, 8), rules(rule_count, rule),
         fixed(out, size_of(text_length)));
}

#define AES_CIPHER(name, tag)                                                                                   \
    VERB name(HEAD, long *rule_count, unsigned char *rule, DATA(key), DATA(params), long *block, DATA(iv),      \
              DATA(vector), DATA(text), DATA(out), DATA(optional))                                              \
    {                                                                                                           \
        (void)block;                                                                                            \
        UNUSED(vector);                                                                                         \
        CALL(name, rules(rule_count, rule), data(key_length, key), tag(params_length, params),                  \
             data(iv_length, iv), data(text_length, text), data(optional_length, optional),                     \
             output(out_length, out));                                                                          \
    }
AES_CIPHER(CSNBSAE, output)
AES_CIPHER(CSNBSAD, data)

VERB CSNDPKB(HEAD, long *rule_count, unsigned char *rule, DATA(values), DATA(name), DATA(r1), DATA(r2), DATA(r3), DATA(r4),
             DATA(r5), DATA(token))
{
    UNUSED(name);
    UNUSED(r1);
    UNUSED(r2);
    UNUSED(r3);
    UNUSED(r4);
    UNUSED(r5);
    CALL(CSNDPKB, rules(rule_count, rule), data(values_length, values), output(token_length, token));
}

VERB CSNDPKG(HEAD, long *rule_count, unsigned char *rule, DATA(regeneration), DATA(skeleton), unsigned char *transport,
             DATA(key))
{
    UNUSED(regeneration);
    (void)transport;
    CALL(CSNDPKG, rules(rule_count, rule), data(skeleton_length, skeleton), output(key_length, key));
}

VERB CSNDPKI(HEAD, long *rule_count, unsigned char *rule, DATA(source), unsigned char *importer, DATA(key))
{
    (void)importer;
    CALL(CSNDPKI, rules(rule_count, rule), data(source_length, source), output(key_length, key));
}

#define RSA_CIPHER(name)                                                                                       \
    VERB name(HEAD, long *rule_count, unsigned char *rule, DATA(in), DATA(structure), DATA(key), DATA(out))    \
    {                                                                                                          \
        UNUSED(structure);                                                                                     \
        CALL(name, rules(rule_count, rule), data(in_length, in), data(key_length, key), output(out_length, out));     \
    }
RSA_CIPHER(CSNDPKE)
RSA_CIPHER(CSNDPKD)

VERB CSNDPKX(HEAD, long *rule_count, unsigned char *rule, DATA(key), DATA(out))
{
    CALL(CSNDPKX, rules(rule_count, rule), data(key_length, key), output(out_length, out));
}

VERB CSNDDSG(HEAD, long *rule_count, unsigned char *rule, DATA(key), DATA(hash), long *signature_length, long *bits,
             unsigned char *signature)
{
    CALL(CSNDDSG, rules(rule_count, rule), data(key_length, key), data(hash_length, hash), output(signature_length, signature));
    if (*rc == 0)
        *bits = 8 * *signature_length;
}

VERB CSNDDSV(HEAD, long *rule_count, unsigned char *rule, DATA(key), DATA(hash), DATA(signature))
{
    CALL(CSNDDSV, rules(rule_count, rule), data(key_length, key), data(hash_length, hash), data(signature_length, signature));
}

/* A hash or MAC, which comes with the last part: the length stays what it is before. */
static struct arg result(const long *length, unsigned char *p, long *got)
{
    return (struct arg){.kind = OUT, .out = p, .room = p == NULL ? 0 : size_of(length), .length = got};
}

VERB CSNBOWH(HEAD, long *rule_count, unsigned char *rule, DATA(text), DATA(vector), DATA(hash))
{
    long got = 0;

    CALL(CSNBOWH, rules(rule_count, rule), data(text_length, text), chain(vector_length, vector), result(hash_length, hash, &got));
    if (got > 0)
        *hash_length = got;
}

VERB CSNBHMG(HEAD, long *rule_count, unsigned char *rule, DATA(key), DATA(text), DATA(vector), DATA(mac))
{
    long got = 0;

    CALL(CSNBHMG, rules(rule_count, rule), data(key_length, key), data(text_length, text), chain(vector_length, vector),
         result(mac_length, mac, &got));
    if (got > 0)
        *mac_length = got;
}

VERB CSNBHMV(HEAD, long *rule_count, unsigned char *rule, DATA(key), DATA(text), DATA(vector), DATA(mac))
{
    CALL(CSNBHMV, rules(rule_count, rule), data(key_length, key), data(text_length, text), data(mac_length, mac),
         chain(vector_length, vector));
}

VERB CSNBCKM(HEAD, long *rule_count, unsigned char *rule, DATA(clear), unsigned char *token)
{
    CALL(CSNBCKM, rules(rule_count, rule), data(clear_length, clear), fixed(token, SYMMETRIC));
}

VERB CSNBKTB2(HEAD, long *rule_count, unsigned char *rule, DATA(clear), DATA(name), DATA(associated), DATA(derivation),
              DATA(value), DATA(token))
{
    UNUSED(clear);
    UNUSED(name);
    UNUSED(associated);
    UNUSED(derivation);
    UNUSED(value);
    CALL(CSNBKTB2, rules(rule_count, rule), output(token_length, token));
}

VERB CSNBKGN2(HEAD, long *rule_count, unsigned char *rule, long *bits, unsigned char *type1, unsigned char *type2, DATA(name1),
              DATA(name2), DATA(associated1), DATA(associated2), DATA(kek1), DATA(kek2), DATA(key1), DATA(key2))
{
    UNUSED(name1);
    UNUSED(name2);
    UNUSED(associated1);
    UNUSED(associated2);
    UNUSED(kek1);
    UNUSED(kek2);
    UNUSED(key2);
    CALL(CSNBKGN2, rules(rule_count, rule), number(bits), bytes(type1, 8), bytes(type2, 8), data(key1_length, key1),
         output(key1_length, key1));
}

VERB CSNBKPI2(HEAD, long *rule_count, unsigned char *rule, long *bits, unsigned char *part, DATA(token))
{
    CALL(CSNBKPI2, rules(rule_count, rule), number(bits), bytes(part, part == NULL ? 0 : size_of(bits) / 8),
         data(token_length, token), output(token_length, token));
}

VERB CSNBKTC(HEAD, long *rule_count, unsigned char *rule, unsigned char *token)
{
    CALL(CSNBKTC, rules(rule_count, rule), bytes(token, SYMMETRIC), fixed(token, SYMMETRIC));
}

VERB CSNDKTC(HEAD, long *rule_count, unsigned char *rule, DATA(token))
{
    CALL(CSNDKTC, rules(rule_count, rule), data(token_length, token),
         output(token_length, token));
}

VERB CSNBKTC2(HEAD, long *rule_count, unsigned char *rule, DATA(token))
{
    CALL(CSNBKTC2, rules(rule_count, rule), data(token_length, token), output(token_length, token));
}

#define UNDER_RSA(name)                                                                                        \
    VERB name(HEAD, long *rule_count, unsigned char *rule, DATA(in), DATA(rsa), DATA(out))                     \
    {                                                                                                          \
        CALL(name, rules(rule_count, rule), data(in_length, in), data(rsa_length, rsa), output(out_length, out));     \
    }
UNDER_RSA(CSNDSYX)
UNDER_RSA(CSNDSYI)

VERB CSNDEDH(HEAD, long *rule_count, unsigned char *rule, DATA(private), DATA(kek), DATA(public), DATA(hybrid), DATA(party),
             long *bits, DATA(r1), DATA(r2), DATA(r3), DATA(r4), DATA(r5), DATA(out_kek), DATA(key))
{
    UNUSED(kek);
    UNUSED(hybrid);
    UNUSED(r1);
    UNUSED(r2);
    UNUSED(r3);
    UNUSED(r4);
    UNUSED(r5);
    UNUSED(out_kek);
    CALL(CSNDEDH, rules(rule_count, rule), data(private_length, private), data(public_length, public), data(party_length, party),
         number(bits), data(key_length, key), output(key_length, key));
}

/* Templates: attributes given, asked for, and returned. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "call.h"

/* How a value is encoded. */
enum form {
    FORM_BYTES,
    FORM_BYTE,
    FORM_ULONG,
    FORM_NATIVE, /* a number, but sent as a byte array: 8 bytes, the lowest first */
    FORM_DATE,
    FORM_MECHANISMS,
    FORM_TEMPLATE,
};

enum {
    MAX_DEPTH = 8,          /* of templates in templates */
    MAX_COUNT = 1 << 20,    /* of attributes in a template */
    WIRE_ULONG = 8,         /* bytes */
    WIRE_TEMPLATE_ENTRY = 24, /* bytes that an attribute counts as in the length of a template */
};

static const struct fact {
    CK_ATTRIBUTE_TYPE type;
    enum form form;
} facts[] = {
#include "attributes_gen.h"
};

static int compare(const void *key, const void *element)
{
    CK_ATTRIBUTE_TYPE a = *(const CK_ATTRIBUTE_TYPE *)key, b = ((const struct fact *)element)->type;

    return a < b ? -1 : a > b;
}

static enum form form_of(CK_ATTRIBUTE_TYPE type)
{
    const struct fact *f = bsearch(&type, facts, sizeof facts / sizeof facts[0], sizeof facts[0], compare);

    return f != NULL ? f->form : FORM_BYTES;
}

/* unit is the size of one element of a form's value here, and on the wire. */
static void unit(enum form f, CK_ULONG *here, CK_ULONG *wire)
{
    switch (f) {
    case FORM_ULONG:
    case FORM_NATIVE:
    case FORM_MECHANISMS:
        *here = sizeof(CK_ULONG);
        *wire = WIRE_ULONG;
        return;
    case FORM_TEMPLATE:
        *here = sizeof(CK_ATTRIBUTE);
        *wire = WIRE_TEMPLATE_ENTRY;
        return;
    case FORM_BYTES:
    case FORM_BYTE:
    case FORM_DATE:
        break;
    }
    *here = *wire = 1;
}

static CK_ULONG wire_length(enum form f, CK_ULONG n)
{
    CK_ULONG here, wire;

    unit(f, &here, &wire);
    n = n / here * wire;
    return n < UINT32_MAX ? n : UINT32_MAX - 1;
}

static CK_ULONG local_length(enum form f, uint32_t n)
{
    CK_ULONG here, wire;

    unit(f, &here, &wire);
    return n / wire * here;
}

/* A value in memory need not be aligned. */
static CK_ULONG ulong_at(const void *p)
{
    CK_ULONG v;

    memcpy(&v, p, sizeof v);
    return v;
}

static void put_template_at(struct call *c, const CK_ATTRIBUTE *template, CK_ULONG count, int depth);

/* check refuses a value that has no encoding. */
static bool check(struct call *c, const CK_ATTRIBUTE *a, enum form f)
{
    CK_ULONG n = a->ulValueLen, here, wire;
    bool single = f == FORM_BYTE || f == FORM_ULONG || f == FORM_NATIVE, fits;

    unit(f, &here, &wire);
    fits = n != CK_UNAVAILABLE_INFORMATION && (a->pValue != NULL || n == 0) && n % here == 0 && (!single || n <= here);
    if (!fits)
        call_fail(c, CKR_ATTRIBUTE_VALUE_INVALID);
    return fits;
}

static void put_native(struct call *c, const CK_ATTRIBUTE *a)
{
    unsigned char b[WIRE_ULONG];
    uint64_t v;

    if (a->ulValueLen == 0) {
        put_bytes(c, "", 0);
        return;
    }
    v = ulong_at(a->pValue);
    for (int i = 0; i < WIRE_ULONG; i++, v >>= 8)
        b[i] = (unsigned char)(v & 0xff);
    put_bytes(c, b, sizeof b);
}

static void put_attribute(struct call *c, const CK_ATTRIBUTE *a, int depth)
{
    enum form f = form_of(a->type);
    CK_ULONG n = a->ulValueLen;

    if (a->type > UINT32_MAX)
        call_fail(c, CKR_ATTRIBUTE_TYPE_INVALID);
    if (!check(c, a, f))
        return;
    put_u32(c, a->type);
    put_byte(c, 1);
    put_u32(c, wire_length(f, n));
    switch (f) {
    case FORM_BYTE:
        put_byte(c, n != 0 ? *(const CK_BYTE *)a->pValue : 0);
        break;
    case FORM_ULONG:
        put_ulong(c, n != 0 ? ulong_at(a->pValue) : 0);
        break;
    case FORM_NATIVE:
        put_native(c, a);
        break;
    case FORM_MECHANISMS:
        put_u32(c, n / sizeof(CK_ULONG));
        for (CK_ULONG i = 0; i < n / sizeof(CK_ULONG) && c->rv == CKR_OK; i++)
            put_ulong(c, ulong_at((const CK_BYTE *)a->pValue + i * sizeof(CK_ULONG)));
        break;
    case FORM_TEMPLATE:
        put_template_at(c, a->pValue, n / sizeof(CK_ATTRIBUTE), depth + 1);
        break;
    case FORM_BYTES:
    case FORM_DATE:
        put_bytes(c, n != 0 ? a->pValue : "", n);
        break;
    }
}

/* may_count refuses a template that is none. */
static bool may_count(struct call *c, const CK_ATTRIBUTE *template, CK_ULONG count, int depth)
{
    if ((template == NULL && count != 0) || count > MAX_COUNT || depth > MAX_DEPTH)
        call_fail(c, CKR_ARGUMENTS_BAD);
    return c->rv == CKR_OK;
}

static void put_template_at(struct call *c, const CK_ATTRIBUTE *template, CK_ULONG count, int depth)
{
    if (!may_count(c, template, count, depth))
        return;
    put_u32(c, count);
    for (CK_ULONG i = 0; i < count && c->rv == CKR_OK; i++)
        put_attribute(c, &template[i], depth);
}

void put_template(struct call *c, const CK_ATTRIBUTE *template, CK_ULONG count)
{
    put_template_at(c, template, count, 0);
}

/* room is how many bytes there are for an attribute asked for, as on the wire. */
static CK_ULONG room(const CK_ATTRIBUTE *a, enum form f)
{
    if (a->pValue == NULL || a->ulValueLen == CK_UNAVAILABLE_INFORMATION)
        return 0;
    return wire_length(f, a->ulValueLen);
}

enum { ATTRIBUTE_HEAD = 32 }; /* bytes of a reply beside an attribute's value, at most */

/* put_rooms asks for what a template holds. Which attributes those are is the
   token's to say: the program need not set their types. */
static void put_rooms(struct call *c, const CK_ATTRIBUTE *template, CK_ULONG count)
{
    if (!may_count(c, template, count, 1))
        return;
    put_u32(c, count);
    for (CK_ULONG i = 0; i < count && c->rv == CKR_OK; i++) {
        put_u32(c, 0);
        put_u32(c, room(&template[i], FORM_BYTES));
        expect(c, ATTRIBUTE_HEAD + room(&template[i], FORM_BYTES));
    }
}

void put_wanted(struct call *c, const CK_ATTRIBUTE *template, CK_ULONG count)
{
    if (!may_count(c, template, count, 0))
        return;
    put_u32(c, count);
    for (CK_ULONG i = 0; i < count && c->rv == CKR_OK; i++) {
        const CK_ATTRIBUTE *a = &template[i];
        enum form f = form_of(a->type);
        CK_ULONG n = room(a, f);

        if (a->type > UINT32_MAX)
            call_fail(c, CKR_ATTRIBUTE_TYPE_INVALID);
        put_u32(c, a->type);
        put_u32(c, n);
        expect(c, ATTRIBUTE_HEAD + n);
        if (f == FORM_TEMPLATE && n != 0)
            put_rooms(c, a->pValue, n / WIRE_TEMPLATE_ENTRY);
    }
}

/* value is where a value goes: n bytes as announced, which fit or are thrown
   away. */
struct value {
    unsigned char *to; /* NULL to throw it away */
    uint32_t length;   /* announced, as on the wire */
};

static void get_value_bytes(struct call *c, struct value v)
{
    uint32_t n;
    const unsigned char *p = get_bytes(c, &n);

    if (c->rv != CKR_OK || v.to == NULL)
        return;
    if (n != v.length)
        get_malformed(c);
    else if (n != 0)
        memcpy(v.to, p, n);
}

/* store puts a number where its value goes. */
static void store(struct call *c, struct value v, CK_ULONG wire, const void *number, size_t n)
{
    if (c->rv != CKR_OK || v.to == NULL || v.length == 0)
        return;
    if (v.length != wire)
        get_malformed(c);
    else
        memcpy(v.to, number, n);
}

static void get_value_native(struct call *c, struct value v)
{
    uint32_t n;
    const unsigned char *p = get_bytes(c, &n);
    uint64_t number = 0;
    CK_ULONG out;

    if (c->rv != CKR_OK || v.to == NULL || v.length == 0)
        return;
    if (n != WIRE_ULONG) {
        get_malformed(c);
        return;
    }
    for (int i = WIRE_ULONG - 1; i >= 0; i--)
        number = number << 8 | p[i];
    out = (CK_ULONG)number;
    store(c, v, WIRE_ULONG, &out, sizeof out);
}

static void get_value_ulong(struct call *c, struct value v)
{
    CK_ULONG out = get_ulong(c);

    store(c, v, WIRE_ULONG, &out, sizeof out);
}

static void get_value_byte(struct call *c, struct value v)
{
    CK_BYTE out = get_byte(c);

    store(c, v, 1, &out, 1);
}

static void get_value_mechanisms(struct call *c, struct value v)
{
    uint32_t n = get_u32(c);

    if (v.to != NULL && c->rv == CKR_OK && n != v.length / WIRE_ULONG) {
        get_malformed(c);
        return;
    }
    for (uint32_t i = 0; i < n && c->rv == CKR_OK; i++) {
        CK_ULONG type = get_ulong(c);

        if (v.to != NULL && c->rv == CKR_OK)
            memcpy(v.to + i * sizeof type, &type, sizeof type);
    }
}

static bool get_attribute(struct call *c, CK_ATTRIBUTE *a, bool nested, int depth);

/* get_value_template reads a template into the attributes at to, each of which
   has room of its own. False says that one had too little. */
static bool get_value_template(struct call *c, struct value v, int depth)
{
    uint32_t n = get_u32(c);
    bool fits = true;

    if (c->rv == CKR_OK && (depth > MAX_DEPTH || (v.to != NULL && n != v.length / WIRE_TEMPLATE_ENTRY)))
        get_malformed(c);
    for (uint32_t i = 0; i < n && c->rv == CKR_OK; i++) {
        CK_ATTRIBUTE a = {0, NULL, 0};
        unsigned char *at = v.to != NULL ? v.to + i * sizeof a : NULL;

        if (at != NULL)
            memcpy(&a, at, sizeof a);
        fits = get_attribute(c, &a, true, depth) && fits;
        if (at != NULL && c->rv == CKR_OK)
            memcpy(at, &a, sizeof a);
    }
    return fits;
}

/* get_attribute reads one attribute for a. In a template its type is part of
   the reply. False says that it did not fit. */
static bool get_attribute(struct call *c, CK_ATTRIBUTE *a, bool nested, int depth)
{
    uint32_t type = get_u32(c);
    CK_BYTE valid = get_byte(c);
    struct value v = {0};
    enum form f = form_of(type);
    CK_ULONG have = a->ulValueLen, n;
    bool there, fits;

    if (c->rv != CKR_OK)
        return true;
    if (nested)
        a->type = type;
    if (valid > 1 || type != a->type) {
        get_malformed(c);
        return true;
    }
    if (valid == 0) {
        a->ulValueLen = CK_UNAVAILABLE_INFORMATION;
        return true;
    }
    v.length = get_u32(c);
    n = local_length(f, v.length);
    there = fits = a->pValue == NULL || (have != CK_UNAVAILABLE_INFORMATION && n <= have);
    if (there)
        v.to = a->pValue;
    switch (f) {
    case FORM_BYTE:
        get_value_byte(c, v);
        break;
    case FORM_ULONG:
        get_value_ulong(c, v);
        break;
    case FORM_NATIVE:
        get_value_native(c, v);
        break;
    case FORM_MECHANISMS:
        get_value_mechanisms(c, v);
        break;
    case FORM_TEMPLATE:
        fits = get_value_template(c, v, depth + 1) && fits;
        break;
    case FORM_BYTES:
    case FORM_DATE:
        get_value_bytes(c, v);
        break;
    }
    if (c->rv == CKR_OK)
        a->ulValueLen = there ? n : CK_UNAVAILABLE_INFORMATION;
    return fits;
}

void get_template(struct call *c, CK_ATTRIBUTE *template, CK_ULONG count)
{
    bool fits = true;
    CK_RV rv;

    if (get_u32(c) != count && c->rv == CKR_OK)
        get_malformed(c);
    for (CK_ULONG i = 0; i < count && c->rv == CKR_OK; i++)
        fits = get_attribute(c, &template[i], false, 0) && fits;
    rv = get_ulong(c);
    if (c->rv != CKR_OK)
        return;
    if (c->at != c->in.len)
        get_malformed(c);
    else if (rv == CKR_OK)
        rv = fits ? CKR_OK : CKR_BUFFER_TOO_SMALL;
    else if (rv != CKR_ATTRIBUTE_SENSITIVE && rv != CKR_ATTRIBUTE_TYPE_INVALID && rv != CKR_BUFFER_TOO_SMALL)
        get_malformed(c);
    call_fail(c, rv);
}

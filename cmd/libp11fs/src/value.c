/* The values of requests and replies. */
#include <string.h>

#include "call.h"

enum { BULK = 4096 }; /* bytes of an argument from which on it is not copied */

enum { NULL_LENGTH = -1 }; /* as uint32_t: a NULL byte array */

void put_raw(struct call *c, const void *data, size_t n)
{
    if (c->rv == CKR_OK && !buffer_add(&c->out, data, n))
        c->rv = CKR_HOST_MEMORY;
}

void put_byte(struct call *c, CK_BYTE v)
{
    put_raw(c, &v, 1);
}

void put_u32(struct call *c, CK_ULONG v)
{
    unsigned char b[4];

    store32(b, (uint32_t)v);
    put_raw(c, b, sizeof b);
}

void put_ulong(struct call *c, uint64_t v)
{
    unsigned char b[8];

    store64(b, v);
    put_raw(c, b, sizeof b);
}

void put_text(struct call *c, const CK_BYTE *text, CK_ULONG n)
{
    put_u32(c, n);
    put_raw(c, text, n);
}

void put_bytes(struct call *c, const void *data, CK_ULONG n)
{
    if (data == NULL) {
        put_u32(c, (uint32_t)NULL_LENGTH);
        return;
    }
    if (n > MAX_BODY) {
        call_fail(c, CKR_DATA_LEN_RANGE);
        return;
    }
    put_u32(c, n);
    put_raw(c, data, n);
}

void put_array(struct call *c, const void *data, CK_ULONG n)
{
    if (data == NULL && n != 0)
        call_fail(c, CKR_ARGUMENTS_BAD);
    put_byte(c, 1);
    if (n < BULK || n > MAX_BODY || c->rv != CKR_OK || c->out.bulk != NULL) {
        put_bytes(c, data, n);
        return;
    }
    put_u32(c, n);
    c->out.bulk = data;
    c->out.bulk_at = c->out.len;
    c->out.bulk_len = n;
}

/* room_of is n as the wire has it: all that a reply may fill. */
static CK_ULONG room_of(CK_ULONG n)
{
    return n < MAX_REPLY ? n : MAX_REPLY;
}

void expect(struct call *c, CK_ULONG n)
{
    c->room = n < MAX_REPLY && c->room < MAX_REPLY ? c->room + n : MAX_REPLY;
}

void put_room(struct call *c, const void *out, const CK_ULONG *len)
{
    if (len == NULL)
        call_fail(c, CKR_ARGUMENTS_BAD);
    else if (out == NULL)
        put_u32(c, 0);
    else if (*len == 0)
        put_u32(c, (uint32_t)NULL_LENGTH);
    else
        put_u32(c, room_of(*len));
    if (out != NULL && len != NULL)
        expect(c, *len);
}

void put_count(struct call *c, const void *list, const CK_ULONG *count)
{
    if (count == NULL)
        call_fail(c, CKR_ARGUMENTS_BAD);
    else
        put_u32(c, list == NULL ? 0 : room_of(*count < MAX_REPLY ? *count * 8 : MAX_REPLY) / 8);
    if (list != NULL && count != NULL)
        expect(c, *count < MAX_REPLY ? *count * 8 : MAX_REPLY);
}

void get_malformed(struct call *c)
{
    c->malformed = true;
    c->rv = CKR_DEVICE_ERROR;
}

const unsigned char *get_raw(struct call *c, size_t n)
{
    const unsigned char *p;

    if (c->rv != CKR_OK)
        return NULL;
    if (n > c->in.len - c->at) {
        get_malformed(c);
        return NULL;
    }
    p = c->in.data + c->at;
    c->at += n;
    return p;
}

const unsigned char *get_bytes(struct call *c, uint32_t *n)
{
    *n = get_u32(c);
    if (*n == (uint32_t)NULL_LENGTH)
        *n = 0;
    return get_raw(c, *n);
}

CK_BYTE get_byte(struct call *c)
{
    const unsigned char *p = get_raw(c, 1);

    return p != NULL ? *p : 0;
}

uint32_t get_u32(struct call *c)
{
    const unsigned char *p = get_raw(c, 4);

    return p != NULL ? load32(p) : 0;
}

CK_ULONG get_ulong(struct call *c)
{
    const unsigned char *p = get_raw(c, 8);
    uint64_t v = p != NULL ? load64(p) : 0;

    /* Where a CK_ULONG has 4 bytes, only CK_UNAVAILABLE_INFORMATION is longer. */
    if (v != (CK_ULONG)v && v != UINT64_MAX)
        get_malformed(c);
    return (CK_ULONG)v;
}

void get_number(struct call *c, CK_ULONG *out)
{
    CK_ULONG n = get_ulong(c);

    if (c->rv == CKR_OK)
        *out = n;
}

void get_text(struct call *c, CK_BYTE *to, size_t n)
{
    uint32_t length = get_u32(c);
    const unsigned char *p;

    if (c->rv == CKR_OK && length != n)
        get_malformed(c);
    p = get_raw(c, n);
    if (p != NULL)
        memcpy(to, p, n);
}

void get_version(struct call *c, CK_VERSION *v)
{
    const unsigned char *p = get_raw(c, 2);

    if (p != NULL)
        *v = (CK_VERSION){p[0], p[1]};
}

/* too_short reports that a result of n did not fit. */
static void too_short(struct call *c, const void *out, CK_ULONG *len, CK_ULONG n)
{
    if (out != NULL && n <= *len) {
        get_malformed(c);
        return;
    }
    *len = n;
    if (out != NULL)
        call_fail(c, CKR_BUFFER_TOO_SMALL);
}

bool get_result(struct call *c, CK_BYTE *out, CK_ULONG *len)
{
    CK_BYTE present = get_byte(c);
    uint32_t n = get_u32(c);
    const unsigned char *data;

    if (c->rv != CKR_OK)
        return false;
    if (present == 0) {
        too_short(c, out, len, n);
        return false;
    }
    if (n == (uint32_t)NULL_LENGTH)
        n = 0;
    data = get_raw(c, n);
    if (data == NULL)
        return false;
    if (present != 1 || (out == NULL ? n != 0 : n > *len)) {
        get_malformed(c);
        return false;
    }
    if (n != 0)
        memcpy(out, data, n);
    *len = n;
    return true;
}

void get_list(struct call *c, CK_ULONG *list, CK_ULONG *count)
{
    CK_BYTE present = get_byte(c);
    uint32_t n = get_u32(c);

    if (c->rv != CKR_OK)
        return;
    if (present == 0) {
        too_short(c, list, count, n);
        return;
    }
    if (present != 1 || (list == NULL ? n != 0 : n > *count)) {
        get_malformed(c);
        return;
    }
    for (uint32_t i = 0; i < n && c->rv == CKR_OK; i++)
        list[i] = get_ulong(c);
    if (c->rv == CKR_OK)
        *count = n;
}

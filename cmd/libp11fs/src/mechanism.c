/* Mechanisms and their parameters. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "mechanism.h"

enum presence { PARAM_ABSENT, PARAM_PRESENT, MECHANISM_NULL };

static int compare(const void *key, const void *element)
{
    CK_MECHANISM_TYPE a = *(const CK_MECHANISM_TYPE *)key, b = ((const struct param *)element)->type;

    return a < b ? -1 : a > b;
}

const struct param *param_of(CK_MECHANISM_TYPE type)
{
    return bsearch(&type, params, params_count, sizeof params[0], compare);
}

void bad_param(struct call *c)
{
    call_fail(c, CKR_MECHANISM_PARAM_INVALID);
}

void put_data(struct call *c, const void *data, CK_ULONG n)
{
    if (data == NULL && n != 0)
        bad_param(c);
    put_bytes(c, data, n);
}

void put_mechanism(struct call *c, const CK_MECHANISM *m, bool may_be_null)
{
    const struct param *p;

    if (m == NULL) {
        if (!may_be_null)
            call_fail(c, CKR_ARGUMENTS_BAD);
        put_u32(c, 0);
        put_byte(c, MECHANISM_NULL);
        return;
    }
    if (m->mechanism > UINT32_MAX)
        call_fail(c, CKR_MECHANISM_INVALID);
    put_u32(c, m->mechanism);
    p = param_of(m->mechanism);
    if (p == NULL && m->ulParameterLen != 0)
        call_fail(c, CKR_MECHANISM_INVALID); /* it is not known what that would be */
    /* Programs leave the parameter of a mechanism that has none as it happens to
       be in memory. */
    if (p == NULL || p->layout == LAYOUT_NONE || m->ulParameterLen == 0) {
        put_byte(c, PARAM_ABSENT);
        return;
    }
    if (m->pParameter == NULL || (p->len != 0 && p->len != m->ulParameterLen)) {
        bad_param(c);
        return;
    }
    put_byte(c, PARAM_PRESENT);
    put_byte(c, p->layout);
    if (p->layout == LAYOUT_BYTES)
        put_data(c, m->pParameter, m->ulParameterLen);
    else
        p->put(c, m);
}

enum { MOST_IV = 512 }; /* bytes; the daemon makes none that are longer */

CK_ULONG get_made(struct call *c, CK_OBJECT_HANDLE *keys, CK_ULONG n, CK_BYTE *bytes, CK_ULONG len)
{
    CK_ULONG count = n, got = len;

    get_list(c, keys, &count);
    (void)get_result(c, bytes, &got);
    if (c->rv == CKR_OK && (count != n || got > len))
        get_malformed(c);
    return got;
}

void got_version(struct call *c, CK_VERSION *v, CK_ULONG unused)
{
    CK_BYTE b[2];

    (void)unused;
    if (get_made(c, NULL, 0, b, sizeof b) != sizeof b && c->rv == CKR_OK)
        get_malformed(c);
    if (c->rv == CKR_OK && v != NULL)
        *v = (CK_VERSION){b[0], b[1]};
}

void got_ssl3_key_mat_out(struct call *c, CK_SSL3_KEY_MAT_OUT *out, CK_ULONG iv_bits)
{
    CK_OBJECT_HANDLE keys[4];
    CK_BYTE ivs[2 * MOST_IV];
    CK_ULONG got, n = iv_bits / 8;

    if (n > MOST_IV)
        call_fail(c, CKR_MECHANISM_PARAM_INVALID);
    got = get_made(c, keys, 4, ivs, 2 * n);
    if (got == 0)
        n = 0; /* CKM_TLS12_KEY_SAFE_DERIVE makes none, whatever it is asked for */
    if (got != 2 * n && c->rv == CKR_OK)
        get_malformed(c);
    if (c->rv != CKR_OK || out == NULL)
        return;
    out->hClientMacSecret = keys[0];
    out->hServerMacSecret = keys[1];
    out->hClientKey = keys[2];
    out->hServerKey = keys[3];
    if (n != 0 && out->pIVClient != NULL)
        memcpy(out->pIVClient, ivs, n);
    if (n != 0 && out->pIVServer != NULL)
        memcpy(out->pIVServer, ivs + n, n);
}

void got_bytes(struct call *c, void *out, CK_ULONG *len)
{
    CK_ULONG none = 0, had = out != NULL ? *len : 0, n = had;

    get_list(c, NULL, &none);
    (void)get_result(c, out, &n);
    if (c->rv == CKR_OK && n > had)
        call_fail(c, CKR_BUFFER_TOO_SMALL);
    if (c->rv == CKR_OK || c->rv == CKR_BUFFER_TOO_SMALL)
        *len = n;
}

/* Derivations, some of which give more than one key. */
#include <string.h>

#include "mechanism.h"

CK_RV C_DeriveKey(CK_SESSION_HANDLE session, CK_MECHANISM *mechanism, CK_OBJECT_HANDLE base_key, CK_ATTRIBUTE *template, CK_ULONG count, CK_OBJECT_HANDLE *key)
{
    struct call c;
    const struct param *p = mechanism != NULL ? param_of(mechanism->mechanism) : NULL;
    bool more = p != NULL && p->got != NULL;
    CK_OBJECT_HANDLE made = 0;

    call_begin_session(&c, more ? CALL_DeriveKeys : CALL_DeriveKey, session);
    if (key == NULL && !more)
        call_fail(&c, CKR_ARGUMENTS_BAD);
    put_mechanism(&c, mechanism, false);
    put_ulong(&c, base_key);
    put_template(&c, template, count);
    call_exchange(&c);
    get_number(&c, &made);
    if (more && c.rv == CKR_OK)
        p->got(&c, mechanism);
    if (key != NULL && c.rv == CKR_OK && made != 0)
        *key = made;
    return call_end(&c);
}

enum { MOST_IV = 512 }; /* bytes; the daemon makes none that are longer */

/* get_made reads the handles of n keys and n bytes. */
static void get_made(struct call *c, CK_OBJECT_HANDLE *keys, CK_ULONG n, CK_BYTE *bytes, CK_ULONG len)
{
    CK_ULONG count = n, got = len;

    get_list(c, keys, &count);
    (void)get_result(c, bytes, &got);
    if (c->rv == CKR_OK && (count != n || got != len))
        get_malformed(c);
}

void got_version(struct call *c, CK_VERSION *v, CK_ULONG unused)
{
    CK_BYTE b[2];

    (void)unused;
    get_made(c, NULL, 0, b, sizeof b);
    if (c->rv == CKR_OK && v != NULL)
        *v = (CK_VERSION){b[0], b[1]};
}

void got_ssl3_key_mat_out(struct call *c, CK_SSL3_KEY_MAT_OUT *out, CK_ULONG iv_bits)
{
    CK_OBJECT_HANDLE keys[4];
    CK_BYTE ivs[2 * MOST_IV];
    CK_ULONG n = iv_bits / 8;

    if (n > MOST_IV)
        call_fail(c, CKR_MECHANISM_PARAM_INVALID);
    get_made(c, keys, 4, ivs, 2 * n);
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

/* Derivations, some of which give more than one key. */
#include "mechanism.h"

CK_RV C_DeriveKey(CK_SESSION_HANDLE session, CK_MECHANISM *mechanism, CK_OBJECT_HANDLE base_key, CK_ATTRIBUTE *template, CK_ULONG count, CK_OBJECT_HANDLE *key)
{
    struct call c;
    const struct param *p = mechanism != NULL ? param_of(mechanism->mechanism) : NULL;
    bool more = p != NULL && p->got != NULL;
    CK_OBJECT_HANDLE made = 0;

    call_begin_session(&c, more ? CALL_DeriveKeys : CALL_DeriveKey, session);
    if (key == NULL && (p == NULL || !p->keyless))
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

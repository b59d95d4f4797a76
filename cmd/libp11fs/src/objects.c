/* Objects and keys (PKCS#11 v3.1 §5.7, §5.17). */
#include <string.h>

#include "call.h"

/* finish takes the handle of a reply and ends the call. */
static CK_RV finish(struct call *c, CK_OBJECT_HANDLE *object)
{
    CK_OBJECT_HANDLE handle = get_ulong(c);

    if (c->rv == CKR_OK)
        *object = handle;
    return call_end(c);
}

CK_RV C_CreateObject(CK_SESSION_HANDLE session, CK_ATTRIBUTE *template, CK_ULONG count, CK_OBJECT_HANDLE *object)
{
    struct call c;

    call_begin_session(&c, CALL_CreateObject, session);
    if (object == NULL)
        call_fail(&c, CKR_ARGUMENTS_BAD);
    put_template(&c, template, count);
    call_exchange(&c);
    return finish(&c, object);
}

CK_RV C_CopyObject(CK_SESSION_HANDLE session, CK_OBJECT_HANDLE object, CK_ATTRIBUTE *template, CK_ULONG count,
                   CK_OBJECT_HANDLE *copy)
{
    struct call c;

    call_begin_session(&c, CALL_CopyObject, session);
    if (copy == NULL)
        call_fail(&c, CKR_ARGUMENTS_BAD);
    put_ulong(&c, object);
    put_template(&c, template, count);
    call_exchange(&c);
    return finish(&c, copy);
}

CK_RV C_DestroyObject(CK_SESSION_HANDLE session, CK_OBJECT_HANDLE object)
{
    struct call c;

    call_begin_session(&c, CALL_DestroyObject, session);
    c.changes = true;
    put_ulong(&c, object);
    call_exchange(&c);
    return call_end(&c);
}

CK_RV C_GetObjectSize(CK_SESSION_HANDLE session, CK_OBJECT_HANDLE object, CK_ULONG *size)
{
    struct call c;

    call_begin_session(&c, CALL_GetObjectSize, session);
    if (size == NULL)
        call_fail(&c, CKR_ARGUMENTS_BAD);
    put_ulong(&c, object);
    call_exchange(&c);
    return finish(&c, size);
}

CK_RV C_GetAttributeValue(CK_SESSION_HANDLE session, CK_OBJECT_HANDLE object, CK_ATTRIBUTE *template, CK_ULONG count)
{
    struct call c;

    call_begin_session(&c, CALL_GetAttributeValue, session);
    put_ulong(&c, object);
    put_wanted(&c, template, count);
    call_exchange(&c);
    get_template(&c, template, count);
    return call_end(&c);
}

CK_RV C_SetAttributeValue(CK_SESSION_HANDLE session, CK_OBJECT_HANDLE object, CK_ATTRIBUTE *template, CK_ULONG count)
{
    struct call c;

    call_begin_session(&c, CALL_SetAttributeValue, session);
    c.changes = true;
    put_ulong(&c, object);
    put_template(&c, template, count);
    call_exchange(&c);
    return call_end(&c);
}

CK_RV C_FindObjectsInit(CK_SESSION_HANDLE session, CK_ATTRIBUTE *template, CK_ULONG count)
{
    struct call c;

    call_begin_session(&c, CALL_FindObjectsInit, session);
    put_template(&c, template, count);
    call_exchange(&c);
    return call_end(&c);
}

CK_RV C_FindObjects(CK_SESSION_HANDLE session, CK_OBJECT_HANDLE *objects, CK_ULONG max, CK_ULONG *count)
{
    struct call c;
    CK_ULONG n = max;

    call_begin_session(&c, CALL_FindObjects, session);
    if (count == NULL || (objects == NULL && max != 0))
        call_fail(&c, CKR_ARGUMENTS_BAD);
    put_count(&c, objects, &max);
    call_exchange(&c);
    get_list(&c, objects, &n);
    if (c.rv == CKR_OK)
        *count = n;
    return call_end(&c);
}

CK_RV C_FindObjectsFinal(CK_SESSION_HANDLE session)
{
    struct call c;

    call_begin_session(&c, CALL_FindObjectsFinal, session);
    call_exchange(&c);
    return call_end(&c);
}

CK_RV C_GenerateKey(CK_SESSION_HANDLE session, CK_MECHANISM *mechanism, CK_ATTRIBUTE *template, CK_ULONG count,
                    CK_OBJECT_HANDLE *key)
{
    struct call c;

    call_begin_session(&c, CALL_GenerateKey, session);
    if (key == NULL)
        call_fail(&c, CKR_ARGUMENTS_BAD);
    put_mechanism(&c, mechanism, false);
    put_template(&c, template, count);
    call_exchange(&c);
    return finish(&c, key);
}

CK_RV C_GenerateKeyPair(CK_SESSION_HANDLE session, CK_MECHANISM *mechanism, CK_ATTRIBUTE *public_template,
                        CK_ULONG public_count, CK_ATTRIBUTE *private_template, CK_ULONG private_count,
                        CK_OBJECT_HANDLE *public_key, CK_OBJECT_HANDLE *private_key)
{
    struct call c;
    CK_OBJECT_HANDLE public;

    call_begin_session(&c, CALL_GenerateKeyPair, session);
    if (public_key == NULL || private_key == NULL)
        call_fail(&c, CKR_ARGUMENTS_BAD);
    put_mechanism(&c, mechanism, false);
    put_template(&c, public_template, public_count);
    put_template(&c, private_template, private_count);
    call_exchange(&c);
    public = get_ulong(&c);
    if (c.rv == CKR_OK)
        *public_key = public;
    return finish(&c, private_key);
}

CK_RV C_WrapKey(CK_SESSION_HANDLE session, CK_MECHANISM *mechanism, CK_OBJECT_HANDLE wrapping_key,
                CK_OBJECT_HANDLE key, CK_BYTE *wrapped, CK_ULONG *wrapped_len)
{
    struct call c;

    call_begin_session(&c, CALL_WrapKey, session);
    put_mechanism(&c, mechanism, false);
    put_ulong(&c, wrapping_key);
    put_ulong(&c, key);
    put_room(&c, wrapped, wrapped_len);
    call_exchange(&c);
    (void)get_result(&c, wrapped, wrapped_len);
    return call_end(&c);
}

CK_RV C_UnwrapKey(CK_SESSION_HANDLE session, CK_MECHANISM *mechanism, CK_OBJECT_HANDLE unwrapping_key,
                  CK_BYTE *wrapped, CK_ULONG wrapped_len, CK_ATTRIBUTE *template, CK_ULONG count,
                  CK_OBJECT_HANDLE *key)
{
    struct call c;

    call_begin_session(&c, CALL_UnwrapKey, session);
    if (key == NULL)
        call_fail(&c, CKR_ARGUMENTS_BAD);
    put_mechanism(&c, mechanism, false);
    put_ulong(&c, unwrapping_key);
    put_array(&c, wrapped, wrapped_len);
    put_template(&c, template, count);
    call_exchange(&c);
    return finish(&c, key);
}

CK_RV C_DeriveKey(CK_SESSION_HANDLE session, CK_MECHANISM *mechanism, CK_OBJECT_HANDLE base_key,
                  CK_ATTRIBUTE *template, CK_ULONG count, CK_OBJECT_HANDLE *key)
{
    struct call c;

    call_begin_session(&c, CALL_DeriveKey, session);
    if (key == NULL)
        call_fail(&c, CKR_ARGUMENTS_BAD);
    put_mechanism(&c, mechanism, false);
    put_ulong(&c, base_key);
    put_template(&c, template, count);
    call_exchange(&c);
    return finish(&c, key);
}

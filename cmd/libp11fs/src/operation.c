#include "operation.h"

#include "module.h"

CK_RV operation_init(enum kind k, CK_SESSION_HANDLE session, const CK_MECHANISM *m, CK_OBJECT_HANDLE key)
{
    struct call c;
    struct session *s;
    size_t at;
    uint64_t changes = 0;
    bool deferred = false;

    call_begin_session(&c, init_number(k), session);
    c.ends = kind_flag(k);
    at = c.out.len;
    put_mechanism(&c, m, true);
    if (k != KIND_DIGEST)
        put_ulong(&c, key);
    if (c.rv == CKR_OK) {
        module_lock();
        changes = sessions_changes_locked();
        s = session_find_locked(session);
        if (s != NULL && m != NULL)
            deferred = session_defer_locked(s, k, c.out.data + at, c.out.len - at);
        module_unlock();
    }
    if (deferred)
        return call_end(&c);
    call_exchange(&c);
    if (m == NULL) {
        call_settle(&c, k, true);
    } else if (c.rv == CKR_OK) {
        module_lock();
        s = session_find_locked(session);
        if (s != NULL)
            session_granted_locked(s, k, c.out.data + at, c.out.len - at, changes);
        module_unlock();
    }
    return call_end(&c);
}

CK_RV operation_end(struct call *c)
{
    CK_SESSION_HANDLE session = c->session;
    CK_FLAGS uses = c->uses;
    bool unsent = !c->exchanged;
    CK_RV rv = call_end(c);

    if (unsent && (rv == CKR_DATA_LEN_RANGE || rv == CKR_ARGUMENTS_BAD))
        (void)C_SessionCancel(session, uses); /* the error that counts is rv */
    return rv;
}

CK_RV operation_update(enum call_number number, CK_FLAGS uses, CK_SESSION_HANDLE session, const CK_BYTE *part,
                       CK_ULONG part_len)
{
    enum { AT_ONCE = 16 << 20 }; /* bytes in one request */
    CK_ULONG done = 0;

    do {
        CK_ULONG n = part_len - done < AT_ONCE ? part_len - done : AT_ONCE;
        struct call c;
        CK_RV rv;

        call_begin_session(&c, number, session);
        c.uses = uses;
        put_array(&c, part != NULL ? part + done : NULL, n);
        call_exchange(&c);
        rv = operation_end(&c);
        if (rv != CKR_OK)
            return rv;
        done += n;
    } while (done < part_len);
    return CKR_OK;
}

/* Without a place for the length of the signature, this is not the last part. */
CK_RV C_SignMessageNext(CK_SESSION_HANDLE session, void *parameter, CK_ULONG parameter_len, CK_BYTE *data,
                        CK_ULONG data_len, CK_BYTE *signature, CK_ULONG *signature_len)
{
    struct call c;
    CK_ULONG none = 0, *len = signature_len != NULL ? signature_len : &none;

    call_begin_session(&c, CALL_SignMessageNext, session);
    put_array(&c, parameter, parameter_len);
    put_array(&c, data, data_len);
    put_byte(&c, signature_len != NULL);
    put_room(&c, signature_len != NULL ? signature : NULL, len);
    call_exchange(&c);
    (void)get_result(&c, signature_len != NULL ? signature : NULL, len);
    return call_end(&c);
}

/* The signature comes before the data. */
CK_RV C_VerifySignatureInit(CK_SESSION_HANDLE session, CK_MECHANISM *mechanism, CK_OBJECT_HANDLE key,
                            CK_BYTE *signature, CK_ULONG signature_len)
{
    struct call c;

    call_begin_session(&c, CALL_VerifySignatureInit, session);
    c.ends = CKF_VERIFY;
    put_mechanism(&c, mechanism, true);
    put_ulong(&c, key);
    put_array(&c, signature, signature_len);
    call_exchange(&c);
    call_settle(&c, KIND_VERIFY, mechanism == NULL);
    return call_end(&c);
}

/* A program that asks for the length only may leave out the place for the key. */
CK_RV C_EncapsulateKey(CK_SESSION_HANDLE session, CK_MECHANISM *mechanism, CK_OBJECT_HANDLE public_key,
                       CK_ATTRIBUTE *template, CK_ULONG count, CK_BYTE *ciphertext, CK_ULONG *ciphertext_len,
                       CK_OBJECT_HANDLE *key)
{
    struct call c;
    CK_OBJECT_HANDLE made;

    call_begin_session(&c, CALL_EncapsulateKey, session);
    if (ciphertext_len == NULL || (key == NULL && ciphertext != NULL))
        call_fail(&c, CKR_ARGUMENTS_BAD);
    put_mechanism(&c, mechanism, false);
    put_ulong(&c, public_key);
    put_template(&c, template, count);
    put_room(&c, ciphertext, ciphertext_len);
    call_exchange(&c);
    if (get_result(&c, ciphertext, ciphertext_len) && key != NULL) {
        get_number(&c, key);
    } else {
        made = get_ulong(&c);
        if (c.rv == CKR_OK && made != CK_INVALID_HANDLE)
            get_malformed(&c);
    }
    return call_end(&c);
}

/* No session is asynchronous (C_OpenSession), so none has such an operation
   (PKCS#11 v3.2 §5.21). */
static CK_RV not_asynchronous(CK_SESSION_HANDLE session, const CK_UTF8CHAR *function, CK_RV rv)
{
    struct call c;

    call_begin_session(&c, CALL_GetSessionInfo, session);
    if (function == NULL)
        call_fail(&c, CKR_ARGUMENTS_BAD);
    call_fail(&c, rv);
    return call_end(&c);
}

CK_RV C_AsyncComplete(CK_SESSION_HANDLE session, CK_UTF8CHAR *function, CK_ASYNC_DATA *result)
{
    (void)result;
    return not_asynchronous(session, function, CKR_SESSION_ASYNC_NOT_SUPPORTED);
}

CK_RV C_AsyncGetID(CK_SESSION_HANDLE session, CK_UTF8CHAR *function, CK_ULONG *id)
{
    (void)id;
    return not_asynchronous(session, function, CKR_OPERATION_NOT_INITIALIZED);
}

CK_RV C_AsyncJoin(CK_SESSION_HANDLE session, CK_UTF8CHAR *function, CK_ULONG id, CK_BYTE *data, CK_ULONG data_len)
{
    (void)id, (void)data, (void)data_len;
    return not_asynchronous(session, function, CKR_SAVED_STATE_INVALID);
}

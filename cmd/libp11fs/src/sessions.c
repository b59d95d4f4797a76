/* Sessions, and what is asked for in them piece by piece (PKCS#11 v3.1 §5.6, §5.7.9,
   §5.18, §5.20). */
#include "call.h"
#include "module.h"

/* open_session is one try of C_OpenSession. lost says that the daemon went away
   after it had answered, and the session with it. */
static CK_RV open_session(CK_SLOT_ID slot, CK_FLAGS flags, CK_SESSION_HANDLE *session, bool *lost)
{
    struct call c;
    CK_ULONG remote;
    CK_SESSION_HANDLE handle = 0;

    *lost = false;
    call_begin(&c, CALL_OpenSession);
    if (session == NULL)
        call_fail(&c, CKR_ARGUMENTS_BAD);
    put_ulong(&c, slot);
    put_ulong(&c, flags);
    call_exchange(&c);
    remote = get_ulong(&c);
    if (c.rv == CKR_OK) {
        module_lock();
        if (module_conn_locked() != c.conn) {
            *lost = true;
            c.rv = CKR_DEVICE_ERROR;
        } else if ((handle = session_add_locked(slot, remote, conn_generation(c.conn))) == 0) {
            c.rv = CKR_HOST_MEMORY;
        }
        module_unlock();
    }
    if (c.rv == CKR_OK)
        *session = handle;
    return call_end(&c);
}

CK_RV C_OpenSession(CK_SLOT_ID slot, CK_FLAGS flags, void *application, CK_NOTIFY notify, CK_SESSION_HANDLE *session)
{
    bool lost = true;
    CK_RV rv = CKR_DEVICE_ERROR;

    /* Nothing here surrenders the processor, so there is nothing to notify. */
    (void)application;
    (void)notify;
    for (int i = 0; lost && i < TRIES; i++)
        rv = open_session(slot, flags, session, &lost);
    return rv;
}

CK_RV C_CloseSession(CK_SESSION_HANDLE session)
{
    struct call c;

    call_begin_session(&c, CALL_CloseSession, session);
    c.changes = true;
    c.closes = true;
    call_exchange(&c);
    if (c.rv == CKR_OK || c.rv == CKR_SESSION_HANDLE_INVALID) {
        module_lock();
        session_remove_locked(session);
        module_unlock();
    }
    return call_end(&c);
}

CK_RV C_CloseAllSessions(CK_SLOT_ID slot)
{
    struct call c;

    call_begin(&c, CALL_CloseAllSessions);
    put_ulong(&c, slot);
    call_exchange(&c);
    if (c.rv == CKR_OK) {
        module_lock();
        sessions_remove_slot_locked(slot);
        module_unlock();
    }
    return call_end(&c);
}

CK_RV C_SessionCancel(CK_SESSION_HANDLE session, CK_FLAGS flags)
{
    struct call c;

    call_begin_session(&c, CALL_SessionCancel, session);
    c.ends = flags;
    put_ulong(&c, flags);
    call_exchange(&c);
    for (int k = 0; k < KINDS; k++) {
        if ((flags & kind_flag((enum kind)k)) != 0)
            call_settle(&c, (enum kind)k, true);
    }
    return call_end(&c);
}

CK_RV C_SetOperationState(CK_SESSION_HANDLE session, CK_BYTE *state, CK_ULONG state_len,
                          CK_OBJECT_HANDLE encryption_key, CK_OBJECT_HANDLE authentication_key)
{
    struct call c;

    call_begin_session(&c, CALL_SetOperationState, session);
    if (state == NULL)
        call_fail(&c, CKR_ARGUMENTS_BAD);
    c.ends = ~(CK_FLAGS)0; /* whatever was active */
    put_array(&c, state, state_len);
    put_ulong(&c, encryption_key);
    put_ulong(&c, authentication_key);
    call_exchange(&c);
    for (int k = 0; k < KINDS; k++)
        call_settle(&c, (enum kind)k, false); /* any of them may be active now */
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

CK_RV C_GenerateRandom(CK_SESSION_HANDLE session, CK_BYTE *random, CK_ULONG random_len)
{
    enum { AT_ONCE = 1 << 18 }; /* bytes that the daemon is asked for */
    CK_ULONG done = 0;

    do {
        CK_ULONG n = random_len - done < AT_ONCE ? random_len - done : AT_ONCE, got = n;
        struct call c;
        CK_RV rv;

        call_begin_session(&c, CALL_GenerateRandom, session);
        if (random == NULL && random_len != 0)
            call_fail(&c, CKR_ARGUMENTS_BAD);
        put_room(&c, "", &n);
        call_exchange(&c);
        (void)get_result(&c, random != NULL ? random + done : NULL, &got);
        if (c.rv == CKR_OK && got != n)
            get_malformed(&c);
        rv = call_end(&c);
        if (rv != CKR_OK)
            return rv;
        done += n;
    } while (done < random_len);
    return CKR_OK;
}

/* The functions of parallel sessions, which there are none of: the answer is the
   same whatever the session (PKCS#11 v3.1 §5.20). */
static CK_RV not_parallel(void)
{
    return module_initialized() ? CKR_FUNCTION_NOT_PARALLEL : CKR_CRYPTOKI_NOT_INITIALIZED;
}

CK_RV C_GetFunctionStatus(CK_SESSION_HANDLE session)
{
    (void)session;
    return not_parallel();
}

CK_RV C_CancelFunction(CK_SESSION_HANDLE session)
{
    (void)session;
    return not_parallel();
}

/* Messages, and keys wrapped, with an IV and a tag of their own (PKCS#11 v3.2 §5.9, §5.11,
   §5.18.6, §5.18.7). The parameter points to memory of the program, where the IV and the
   tag go. */
#include <string.h>

#include "call.h"

/* The parameter of one message, whichever struct it is. */
struct message {
    CK_BYTE *iv, *tag;
    CK_ULONG iv_len, fixed_bits, generator, tag_len, data_len;
};

/* taken reads the parameter, whose size tells which struct it is. */
static struct message taken(struct call *c, const void *parameter, CK_ULONG len)
{
    struct message a = {0};

    if (parameter != NULL && len == sizeof(CK_GCM_MESSAGE_PARAMS)) {
        const CK_GCM_MESSAGE_PARAMS *p = parameter;

        a = (struct message){p->pIv, p->pTag, p->ulIvLen, p->ulIvFixedBits, p->ivGenerator, p->ulTagBits / 8, 0};
        if (p->ulTagBits % 8 != 0)
            call_fail(c, CKR_MECHANISM_PARAM_INVALID);
    } else if (parameter != NULL && len == sizeof(CK_CCM_MESSAGE_PARAMS)) {
        const CK_CCM_MESSAGE_PARAMS *p = parameter;

        a = (struct message){p->pNonce, p->pMAC, p->ulNonceLen, p->ulNonceFixedBits, p->nonceGenerator, p->ulMACLen, p->ulDataLen};
    } else if (parameter != NULL && len == sizeof(CK_SALSA20_CHACHA20_POLY1305_MSG_PARAMS)) {
        const CK_SALSA20_CHACHA20_POLY1305_MSG_PARAMS *p = parameter;

        /* The length is in bits; programs have bytes. */
        a = (struct message){p->pNonce, p->pTag, p->ulNonceLen <= 24 ? p->ulNonceLen : p->ulNonceLen / 8, 0, CKG_NO_GENERATE, 16, 0};
    }
    if (a.iv == NULL || a.tag == NULL || a.tag_len > 16)
        call_fail(c, CKR_MECHANISM_PARAM_INVALID);
    return a;
}

/* take reads the parameter of a key's mechanism, and puts down which that is. */
static struct message take(struct call *c, const CK_MECHANISM *m)
{
    struct message a = {0};

    if (m == NULL)
        call_fail(c, CKR_ARGUMENTS_BAD);
    else if (m->mechanism == CKM_AES_GCM || m->mechanism == CKM_AES_CCM)
        a = taken(c, m->pParameter, m->ulParameterLen);
    else
        call_fail(c, CKR_MECHANISM_INVALID);
    if (c->rv == CKR_OK && m->ulParameterLen != (m->mechanism == CKM_AES_GCM ? sizeof(CK_GCM_MESSAGE_PARAMS) : sizeof(CK_CCM_MESSAGE_PARAMS)))
        call_fail(c, CKR_MECHANISM_PARAM_INVALID);
    put_ulong(c, m != NULL ? m->mechanism : 0);
    return a;
}

/* give writes n bytes of the reply to the program's memory. */
static void give(struct call *c, CK_BYTE *to, CK_ULONG n, bool whole)
{
    CK_BYTE present = get_byte(c);
    uint32_t length;
    const unsigned char *data = get_bytes(c, &length);

    if (c->rv != CKR_OK)
        return;
    if (present != 1 || length != (whole ? n : 0))
        get_malformed(c);
    else if (length != 0)
        memcpy(to, data, length);
}

CK_RV C_WrapKeyAuthenticated(CK_SESSION_HANDLE session, CK_MECHANISM *mechanism, CK_OBJECT_HANDLE wrapping_key,
                             CK_OBJECT_HANDLE key, CK_BYTE *associated, CK_ULONG associated_len, CK_BYTE *wrapped,
                             CK_ULONG *wrapped_len)
{
    struct call c;
    struct message a;
    bool whole;

    call_begin_session(&c, CALL_WrapKeyAuthenticated, session);
    if (wrapped_len == NULL)
        call_fail(&c, CKR_ARGUMENTS_BAD);
    a = take(&c, mechanism);
    put_ulong(&c, wrapping_key);
    put_ulong(&c, key);
    put_array(&c, a.iv, a.iv_len);
    put_ulong(&c, a.fixed_bits);
    put_ulong(&c, a.generator);
    put_ulong(&c, 8 * a.tag_len);
    put_array(&c, associated, associated_len);
    put_room(&c, wrapped, wrapped_len);
    call_exchange(&c);
    whole = get_result(&c, wrapped, wrapped_len);
    give(&c, a.iv, a.iv_len, whole);
    give(&c, a.tag, a.tag_len, whole);
    return call_end(&c);
}

CK_RV C_UnwrapKeyAuthenticated(CK_SESSION_HANDLE session, CK_MECHANISM *mechanism, CK_OBJECT_HANDLE unwrapping_key,
                               CK_BYTE *wrapped, CK_ULONG wrapped_len, CK_ATTRIBUTE *template, CK_ULONG count,
                               CK_BYTE *associated, CK_ULONG associated_len, CK_OBJECT_HANDLE *key)
{
    struct call c;
    struct message a;

    call_begin_session(&c, CALL_UnwrapKeyAuthenticated, session);
    if (key == NULL)
        call_fail(&c, CKR_ARGUMENTS_BAD);
    a = take(&c, mechanism);
    put_ulong(&c, unwrapping_key);
    put_array(&c, a.iv, a.iv_len);
    put_ulong(&c, 8 * a.tag_len);
    put_array(&c, a.tag, a.tag_len);
    put_array(&c, wrapped, wrapped_len);
    put_template(&c, template, count);
    put_array(&c, associated, associated_len);
    call_exchange(&c);
    get_number(&c, key);
    return call_end(&c);
}

static CK_RV message_init(CK_SESSION_HANDLE session, CK_FLAGS use, const CK_MECHANISM *mechanism, CK_OBJECT_HANDLE key)
{
    struct call c;

    if (mechanism == NULL) /* which cancels */
        return C_SessionCancel(session, use);
    call_begin_session(&c, CALL_MessageInit, session);
    put_ulong(&c, use);
    put_ulong(&c, mechanism->mechanism);
    put_ulong(&c, key);
    call_exchange(&c);
    return call_end(&c);
}

static CK_RV message_final(CK_SESSION_HANDLE session, CK_FLAGS use)
{
    struct call c;

    call_begin_session(&c, CALL_MessageFinal, session);
    put_ulong(&c, use);
    call_exchange(&c);
    return call_end(&c);
}

/* put_message writes what the message has beside its tag. */
static void put_message(struct call *c, const struct message *a)
{
    put_ulong(c, a->data_len);
    put_array(c, a->iv, a->iv_len);
    put_ulong(c, a->fixed_bits);
    put_ulong(c, a->generator);
    put_ulong(c, 8 * a->tag_len);
}

static CK_RV message_one(CK_SESSION_HANDLE session, CK_FLAGS use, const void *parameter, CK_ULONG parameter_len,
                         const CK_BYTE *associated, CK_ULONG associated_len, const CK_BYTE *data, CK_ULONG data_len,
                         CK_BYTE *out, CK_ULONG *out_len)
{
    bool encrypt = use == CKF_MESSAGE_ENCRYPT, whole;
    struct message a;
    struct call c;

    call_begin_session(&c, CALL_MessageOne, session);
    if (out_len == NULL)
        call_fail(&c, CKR_ARGUMENTS_BAD);
    a = taken(&c, parameter, parameter_len);
    put_ulong(&c, use);
    put_message(&c, &a);
    put_array(&c, encrypt ? NULL : a.tag, encrypt ? 0 : a.tag_len);
    put_array(&c, associated, associated_len);
    put_array(&c, data, data_len);
    put_room(&c, out, out_len);
    call_exchange(&c);
    whole = get_result(&c, out, out_len);
    give(&c, a.iv, a.iv_len, whole && encrypt);
    give(&c, a.tag, a.tag_len, whole && encrypt);
    return call_end(&c);
}

static CK_RV message_begin(CK_SESSION_HANDLE session, CK_FLAGS use, const void *parameter, CK_ULONG parameter_len,
                           const CK_BYTE *associated, CK_ULONG associated_len)
{
    struct message a;
    struct call c;

    call_begin_session(&c, CALL_MessageBegin, session);
    a = taken(&c, parameter, parameter_len);
    put_ulong(&c, use);
    put_message(&c, &a);
    put_array(&c, associated, associated_len);
    call_exchange(&c);
    give(&c, a.iv, a.iv_len, use == CKF_MESSAGE_ENCRYPT);
    return call_end(&c);
}

static CK_RV message_next(CK_SESSION_HANDLE session, CK_FLAGS use, const void *parameter, CK_ULONG parameter_len,
                          const CK_BYTE *part, CK_ULONG part_len, CK_BYTE *out, CK_ULONG *out_len, CK_FLAGS flags)
{
    bool encrypt = use == CKF_MESSAGE_ENCRYPT, end = (flags & CKF_END_OF_MESSAGE) != 0, whole;
    struct message a;
    struct call c;

    call_begin_session(&c, CALL_MessageNext, session);
    if (out_len == NULL)
        call_fail(&c, CKR_ARGUMENTS_BAD);
    a = taken(&c, parameter, parameter_len);
    put_ulong(&c, use);
    put_ulong(&c, end);
    put_ulong(&c, 8 * a.tag_len);
    put_array(&c, end && !encrypt ? a.tag : NULL, end && !encrypt ? a.tag_len : 0);
    put_array(&c, part, part_len);
    put_room(&c, out, out_len);
    call_exchange(&c);
    whole = get_result(&c, out, out_len);
    give(&c, a.tag, a.tag_len, whole && end && encrypt);
    return call_end(&c);
}

CK_RV C_MessageEncryptInit(CK_SESSION_HANDLE session, CK_MECHANISM *mechanism, CK_OBJECT_HANDLE key)
{
    return message_init(session, CKF_MESSAGE_ENCRYPT, mechanism, key);
}

CK_RV C_EncryptMessage(CK_SESSION_HANDLE session, void *parameter, CK_ULONG parameter_len, CK_BYTE *associated,
                       CK_ULONG associated_len, CK_BYTE *data, CK_ULONG data_len, CK_BYTE *encrypted,
                       CK_ULONG *encrypted_len)
{
    return message_one(session, CKF_MESSAGE_ENCRYPT, parameter, parameter_len, associated, associated_len, data,
                       data_len, encrypted, encrypted_len);
}

CK_RV C_EncryptMessageBegin(CK_SESSION_HANDLE session, void *parameter, CK_ULONG parameter_len, CK_BYTE *associated,
                            CK_ULONG associated_len)
{
    return message_begin(session, CKF_MESSAGE_ENCRYPT, parameter, parameter_len, associated, associated_len);
}

CK_RV C_EncryptMessageNext(CK_SESSION_HANDLE session, void *parameter, CK_ULONG parameter_len, CK_BYTE *part,
                           CK_ULONG part_len, CK_BYTE *encrypted, CK_ULONG *encrypted_len, CK_FLAGS flags)
{
    return message_next(session, CKF_MESSAGE_ENCRYPT, parameter, parameter_len, part, part_len, encrypted,
                        encrypted_len, flags);
}

CK_RV C_MessageEncryptFinal(CK_SESSION_HANDLE session)
{
    return message_final(session, CKF_MESSAGE_ENCRYPT);
}

CK_RV C_MessageDecryptInit(CK_SESSION_HANDLE session, CK_MECHANISM *mechanism, CK_OBJECT_HANDLE key)
{
    return message_init(session, CKF_MESSAGE_DECRYPT, mechanism, key);
}

CK_RV C_DecryptMessage(CK_SESSION_HANDLE session, void *parameter, CK_ULONG parameter_len, CK_BYTE *associated,
                       CK_ULONG associated_len, CK_BYTE *encrypted, CK_ULONG encrypted_len, CK_BYTE *data,
                       CK_ULONG *data_len)
{
    return message_one(session, CKF_MESSAGE_DECRYPT, parameter, parameter_len, associated, associated_len, encrypted,
                       encrypted_len, data, data_len);
}

CK_RV C_DecryptMessageBegin(CK_SESSION_HANDLE session, void *parameter, CK_ULONG parameter_len, CK_BYTE *associated,
                            CK_ULONG associated_len)
{
    return message_begin(session, CKF_MESSAGE_DECRYPT, parameter, parameter_len, associated, associated_len);
}

CK_RV C_DecryptMessageNext(CK_SESSION_HANDLE session, void *parameter, CK_ULONG parameter_len, CK_BYTE *encrypted,
                           CK_ULONG encrypted_len, CK_BYTE *part, CK_ULONG *part_len, CK_FLAGS flags)
{
    return message_next(session, CKF_MESSAGE_DECRYPT, parameter, parameter_len, encrypted, encrypted_len, part,
                        part_len, flags);
}

CK_RV C_MessageDecryptFinal(CK_SESSION_HANDLE session)
{
    return message_final(session, CKF_MESSAGE_DECRYPT);
}

/* Keys wrapped with a tag of their own (PKCS#11 v3.2 §5.18.6, §5.18.7). The parameter
   points to memory of the program, where the IV and the tag go. */
#include <string.h>

#include "call.h"

/* The parameter of one message, whichever struct it is. */
struct message {
    CK_BYTE *iv, *tag;
    CK_ULONG iv_len, fixed_bits, generator, tag_len;
};

/* take reads the parameter, and puts down its mechanism. */
static struct message take(struct call *c, const CK_MECHANISM *m)
{
    struct message a = {0};

    if (m == NULL) {
        call_fail(c, CKR_ARGUMENTS_BAD);
    } else if (m->mechanism == CKM_AES_GCM && m->pParameter != NULL && m->ulParameterLen == sizeof(CK_GCM_MESSAGE_PARAMS)) {
        const CK_GCM_MESSAGE_PARAMS *p = m->pParameter;

        a = (struct message){p->pIv, p->pTag, p->ulIvLen, p->ulIvFixedBits, p->ivGenerator, p->ulTagBits / 8};
        if (p->ulTagBits % 8 != 0)
            call_fail(c, CKR_MECHANISM_PARAM_INVALID);
    } else if (m->mechanism == CKM_AES_CCM && m->pParameter != NULL && m->ulParameterLen == sizeof(CK_CCM_MESSAGE_PARAMS)) {
        const CK_CCM_MESSAGE_PARAMS *p = m->pParameter;

        a = (struct message){p->pNonce, p->pMAC, p->ulNonceLen, p->ulNonceFixedBits, p->nonceGenerator, p->ulMACLen};
    } else {
        call_fail(c, m->mechanism == CKM_AES_GCM || m->mechanism == CKM_AES_CCM ? CKR_MECHANISM_PARAM_INVALID : CKR_MECHANISM_INVALID);
    }
    if (a.iv == NULL || a.tag == NULL || a.tag_len > 16)
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

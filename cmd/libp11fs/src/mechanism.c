/* Mechanisms and their parameters. */
#include <stdint.h>
#include <stdlib.h>

#include "call.h"

/* How a parameter is encoded; the numbers are the protocol's. */
enum layout {
    LAYOUT_RAW,
    LAYOUT_PSS,
    LAYOUT_OAEP,
    LAYOUT_GCM,
    LAYOUT_CTR,
    LAYOUT_ECDH1,
    LAYOUT_ULONG,
    LAYOUT_RSA_AES_WRAP,
    LAYOUT_STRING,
    LAYOUT_CBC_DATA,
};

enum presence { PARAM_ABSENT, PARAM_PRESENT, MECHANISM_NULL };

static const struct fact {
    CK_MECHANISM_TYPE type;
    enum layout layout;
    unsigned block;
} facts[] = {
#include "mechanisms_gen.h"
};

static int compare(const void *key, const void *element)
{
    CK_MECHANISM_TYPE a = *(const CK_MECHANISM_TYPE *)key, b = ((const struct fact *)element)->type;

    return a < b ? -1 : a > b;
}

static void bad(struct call *c)
{
    call_fail(c, CKR_MECHANISM_PARAM_INVALID);
}

/* put_data writes bytes of a parameter, which the program may have left out. */
static void put_data(struct call *c, const void *data, CK_ULONG n)
{
    if (data == NULL && n != 0)
        bad(c);
    put_bytes(c, data, n);
}

static void put_pss(struct call *c, const CK_RSA_PKCS_PSS_PARAMS *p)
{
    put_ulong(c, p->hashAlg);
    put_ulong(c, p->mgf);
    put_ulong(c, p->sLen);
}

static void put_oaep(struct call *c, const CK_RSA_PKCS_OAEP_PARAMS *p)
{
    put_ulong(c, p->hashAlg);
    put_ulong(c, p->mgf);
    put_ulong(c, p->source);
    put_data(c, p->pSourceData, p->ulSourceDataLen);
}

static void put_gcm(struct call *c, const CK_MECHANISM *m)
{
    if (m->ulParameterLen == sizeof(CK_GCM_PARAMS)) {
        const CK_GCM_PARAMS *p = m->pParameter;

        put_data(c, p->pIv, p->ulIvLen);
        put_ulong(c, p->ulIvBits);
        put_data(c, p->pAAD, p->ulAADLen);
        put_ulong(c, p->ulTagBits);
    } else if (m->ulParameterLen == sizeof(CK_GCM_PARAMS_NO_IV_BITS)) {
        const CK_GCM_PARAMS_NO_IV_BITS *p = m->pParameter;

        put_data(c, p->pIv, p->ulIvLen);
        put_ulong(c, p->ulIvLen * 8);
        put_data(c, p->pAAD, p->ulAADLen);
        put_ulong(c, p->ulTagBits);
    } else {
        bad(c);
    }
}

static void put_ecdh1(struct call *c, const CK_ECDH1_DERIVE_PARAMS *p)
{
    put_ulong(c, p->kdf);
    put_data(c, p->pSharedData, p->ulSharedDataLen);
    put_data(c, p->pPublicData, p->ulPublicDataLen);
}

static void put_cbc_data(struct call *c, const CK_MECHANISM *m, unsigned block)
{
    if (block == 8 && m->ulParameterLen == sizeof(CK_DES_CBC_ENCRYPT_DATA_PARAMS)) {
        const CK_DES_CBC_ENCRYPT_DATA_PARAMS *p = m->pParameter;

        put_data(c, p->iv, sizeof p->iv);
        put_data(c, p->pData, p->length);
    } else if (block == 16 && m->ulParameterLen == sizeof(CK_AES_CBC_ENCRYPT_DATA_PARAMS)) {
        const CK_AES_CBC_ENCRYPT_DATA_PARAMS *p = m->pParameter;

        put_data(c, p->iv, sizeof p->iv);
        put_data(c, p->pData, p->length);
    } else {
        bad(c);
    }
}

/* sized gives the parameter if it has the size of its struct. */
static const void *sized(struct call *c, const CK_MECHANISM *m, size_t size)
{
    if (m->ulParameterLen == size)
        return m->pParameter;
    bad(c);
    return NULL;
}

static void put_param(struct call *c, const CK_MECHANISM *m, enum layout layout, unsigned block)
{
    const void *p;

    switch (layout) {
    case LAYOUT_RAW:
        put_data(c, m->pParameter, m->ulParameterLen);
        break;
    case LAYOUT_PSS:
        if ((p = sized(c, m, sizeof(CK_RSA_PKCS_PSS_PARAMS))) != NULL)
            put_pss(c, p);
        break;
    case LAYOUT_OAEP:
        if ((p = sized(c, m, sizeof(CK_RSA_PKCS_OAEP_PARAMS))) != NULL)
            put_oaep(c, p);
        break;
    case LAYOUT_GCM:
        put_gcm(c, m);
        break;
    case LAYOUT_CTR:
        if ((p = sized(c, m, sizeof(CK_AES_CTR_PARAMS))) != NULL) {
            const CK_AES_CTR_PARAMS *ctr = p;

            put_ulong(c, ctr->ulCounterBits);
            put_bytes(c, ctr->cb, sizeof ctr->cb);
        }
        break;
    case LAYOUT_ECDH1:
        if ((p = sized(c, m, sizeof(CK_ECDH1_DERIVE_PARAMS))) != NULL)
            put_ecdh1(c, p);
        break;
    case LAYOUT_ULONG:
        if ((p = sized(c, m, sizeof(CK_ULONG))) != NULL)
            put_ulong(c, *(const CK_ULONG *)p);
        break;
    case LAYOUT_RSA_AES_WRAP:
        if ((p = sized(c, m, sizeof(CK_RSA_AES_KEY_WRAP_PARAMS))) != NULL) {
            const CK_RSA_AES_KEY_WRAP_PARAMS *wrap = p;

            put_ulong(c, wrap->ulAESKeyBits);
            if (wrap->pOAEPParams != NULL)
                put_oaep(c, wrap->pOAEPParams);
            else
                bad(c);
        }
        break;
    case LAYOUT_STRING:
        if ((p = sized(c, m, sizeof(CK_KEY_DERIVATION_STRING_DATA))) != NULL) {
            const CK_KEY_DERIVATION_STRING_DATA *string = p;

            put_data(c, string->pData, string->ulLen);
        }
        break;
    case LAYOUT_CBC_DATA:
        put_cbc_data(c, m, block);
        break;
    }
}

void put_mechanism(struct call *c, const CK_MECHANISM *m, bool may_be_null)
{
    const struct fact *f;

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
    if (m->pParameter == NULL || m->ulParameterLen == 0) {
        if (m->ulParameterLen != 0)
            bad(c);
        put_byte(c, PARAM_ABSENT);
        return;
    }
    f = bsearch(&m->mechanism, facts, sizeof facts / sizeof facts[0], sizeof facts[0], compare);
    put_byte(c, PARAM_PRESENT);
    put_byte(c, f != NULL ? (CK_BYTE)f->layout : LAYOUT_RAW);
    put_param(c, m, f != NULL ? f->layout : LAYOUT_RAW, f != NULL ? f->block : 0);
}
